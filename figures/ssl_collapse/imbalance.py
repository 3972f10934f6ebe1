"""A rare class under four losses: from which frequency on it is learned, how strongly, and beside the common ones."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from figures.statistics import bars, mean
from figures.style import (
    BLACK,
    BLUE,
    DASHED,
    DOTTED,
    GREEN,
    GREY,
    SMALL,
    VERMILION,
    footer,
    label_of,
    letter,
    number,
    panels,
    points,
    style,
)
from theory.ssl_collapse import class_strengths, critical_frequency, one_hot_minimum

NOISE, TAU, EXCESS = 0.1, 0.15, 0.1
DECAY = {"infonce_distance": 0.6, "spectral": 0.3, "barlow": 0.0, "alignment": 0.0}
COLOURS = {"barlow": GREEN, "spectral": BLUE, "infonce_distance": VERMILION, "alignment": BLACK}
NAMES = {
    "barlow": "Barlow Twins", "spectral": "spectral", "infonce_distance": "InfoNCE", "alignment": "alignment: 0",
}  # fmt: skip
POINTS = 60
SETTLED = 0.04  # the frequency from which Barlow Twins, at the rate 8 p, settles within a short training
TICKS = (0.03, 0.1, 0.3)


def imbalance(dataset: xr.Dataset) -> Figure | None:
    """Strength of the rare class under regularised losses, and its ratio to the most common one under plain ones."""
    if dataset["frequency"].ndim == 0 or dataset["load"].ndim == 0:
        return None
    dataset = dataset.sortby("frequency")
    p = dataset["frequency"].values
    dense = np.geomspace(p[0] / 1.15, min(p[-1] * 1.15, 0.95), POINTS)
    with style():
        figure, axes = panels(1, 2, 2.6, gridspec_kw={"width_ratios": [1.15, 1]})
        _strength(axes[0, 0], dataset.isel(load=-1), p, dense)
        _ratio(axes[0, 1], dataset.isel(load=0), p, dense)
        for axis in axes.flat:
            axis.set_xscale("log")
            axis.set_xlim(dense[0], dense[-1])
            axis.set_xticks(TICKS, [number(tick) for tick in TICKS])
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.set_xlabel(label_of(dataset["frequency"]))
        letter(axes.flat)
        footer(
            figure, dataset, "markers: linear encoders under minibatch SGD, 95 % bars, of Barlow Twins where it has "
            "settled; lines: theory",
        )  # fmt: skip
    return figure


def frequencies(p):
    return np.stack([0.6 * (1 - p), 0.4 * (1 - p), p], axis=-1)


def strengths(name, p, load, gaussian=False):
    """Strengths of the classes, shape (..., 3); those of InfoNCE for one-hot classes unless `gaussian`."""
    how = {"temperature": TAU, "alpha": 1 + EXCESS * load, "weight_decay": DECAY[name] * load}
    if name != "infonce_distance" or gaussian:
        return np.asarray(class_strengths(frequencies(p), 1.0, NOISE, name, **how))
    one = jnp.ones(3)
    return np.asarray(
        jax.lax.map(lambda f: one_hot_minimum(f, one, NOISE * one, **how).strengths, jnp.asarray(frequencies(p)))
    )


def _strength(axis, dataset, p, dense):
    load = float(dataset["load"])
    shown = ("spectral", "infonce_distance")
    top = max(float(mean(dataset[name]).isel({"class": 2}).max()) for name in shown)
    axis.set_ylim(-0.04 * top, 1.12 * top)
    for name in shown:
        colour, draws = COLOURS[name], dataset[name].isel({"class": 2})
        edge = float(critical_frequency(1.0, NOISE, name, TAU, 1 + EXCESS * load, DECAY[name] * load))
        line = np.sort(np.append(dense, edge))
        axis.plot(line, strengths(name, line, load)[:, 2], color=colour)
        points(axis, p, mean(draws), bars(draws), colour)
        axis.axvline(edge, color=colour, linestyle=DOTTED, linewidth=0.9)
    axis.plot(
        dense, strengths("infonce_distance", dense, load, gaussian=True)[:, 2], color=VERMILION, linestyle=DASHED,
    )  # fmt: skip
    looks = [
        *(Line2D([], [], color=COLOURS[name], marker="o") for name in shown),
        Line2D([], [], color=VERMILION, linestyle=DASHED),
        Line2D([], [], color=GREY, linestyle=DOTTED),
    ]
    words = ["spectral", "InfoNCE", "InfoNCE, Gaussian classes", "critical frequency $p_c$"]
    axis.legend(looks, words, loc="upper left", fontsize=SMALL, handlelength=1.8)
    axis.set_ylabel("variance of the rare class")


def _ratio(axis, dataset, p, dense):
    axis.set_yscale("log")
    axis.set_ylim(2e-5, 30)
    axis.axhline(1, color="0.85", linewidth=0.6)
    for name, colour in COLOURS.items():
        ratio = dataset[name].isel({"class": 2}) / dataset[name].isel({"class": 0})
        theory = strengths(name, dense, float(dataset["load"]))
        if name != "alignment":
            axis.plot(dense, theory[:, 2] / theory[:, 0], color=colour)
        seen = (p > SETTLED) | (name != "barlow")
        points(axis, p[seen], mean(ratio)[seen], bars(ratio)[seen], colour)
    looks = [
        Line2D([], [], color=c, marker="o", linestyle="-" if n != "alignment" else "none") for n, c in COLOURS.items()
    ]
    axis.legend(looks, list(NAMES.values()), loc="center right", fontsize=SMALL, handlelength=1.4)
    axis.set_ylabel("rare over most common class")
