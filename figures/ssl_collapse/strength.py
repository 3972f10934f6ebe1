"""The strength of a mode over its noise fraction, and what few negatives add to it."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from figures.statistics import bars, first_of_the_rest, mean
from figures.style import (
    BLACK,
    COLOURS,
    DASHED,
    GREY,
    footer,
    legend_above,
    letter,
    number,
    panels,
    points,
    style,
)
from theory.ssl_collapse import finite_negatives_shift, infonce_mode_strength, infonce_strength_near_threshold

DENSE = 200
MARKERS = ("o", "s", "D", "^")


def strength(dataset: xr.Dataset) -> Figure | None:
    """Strengths with their limit, and the distance to it times N with the predicted shift."""
    dataset, words = first_of_the_rest(dataset, "q", "negatives", "modes")
    if dataset["q"].ndim == 0:
        return None
    for name in ("modes", "negatives"):
        dataset = dataset if dataset[name].ndim else dataset.expand_dims(name)
    dataset = dataset.sortby(["q", "negatives", "modes"])
    q = dataset["q"].values
    dense = np.linspace(max(q[0] - 0.06, 0.03), 0.999, DENSE)
    with style():
        figure, axes = panels(1, 2, 2.6)
        _strengths(axes[0, 0], dataset.isel(modes=0), dense)
        _shifts(axes[0, 1], dataset, dense)
        for axis in axes.flat:
            axis.set_xlim(dense[0], 1.03)
            axis.set_xlabel(r"noise fraction $\hat q$")
        letter(axes.flat)
        footer(figure, dataset, "; ".join(part for part in ("markers: SGD on minibatches", words) if part))
    return figure


def _shift(dense, negatives, modes):
    equal = np.broadcast_to(dense[:, None], (len(dense), int(modes)))
    return np.asarray(finite_negatives_shift(equal, float(negatives)))[:, 0]


def _strengths(axis, dataset, dense):
    limit = np.asarray(infonce_mode_strength(dense))
    axis.set_yscale("log")
    axis.set_ylim(0.02, 1.5 * limit.max())
    axis.plot(dense, limit, color=BLACK)
    axis.plot(dense, np.asarray(infonce_strength_near_threshold(1 - dense, 1)), color=GREY, linestyle=DASHED)
    handles = [Line2D([], [], color=BLACK), Line2D([], [], color=GREY, linestyle=DASHED)]
    names = [r"exact, $N\to\infty$", "quartic landscape"]
    for k, colour in zip(range(dataset.sizes["negatives"]), COLOURS, strict=False):
        cells = dataset.isel(negatives=k)
        N = float(cells["negatives"])
        axis.plot(dense, limit + _shift(dense, N, float(dataset["modes"])), color=colour, lw=0.8)
        drawn = points(axis, cells["q"].values, mean(cells["strength"]), bars(cells["strength"]), colour)
        handles.append(drawn[0])
        names.append(f"$N={number(N)}$, shifted")
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.set_ylabel(r"strength $s$ (units of $\tau$)")
    axis.legend(handles, names, loc="lower left")


def _shifts(axis, dataset, dense):
    """(s - limit) N by number of modes and of negatives."""
    draws = dataset["strength"] - dataset["strength_theory"]
    axis.set_yscale("log")
    for j in range(dataset.sizes["modes"]):
        modes = float(dataset["modes"][j])
        axis.plot(dense, _shift(dense, 1.0, modes), color=BLACK, linestyle="-" if j == 0 else DASHED)
    low, high = _shift(dense[dense < 0.9], 1.0, 1).min(), _shift(dense[:1], 1.0, dataset["modes"].values.max())[0]
    axis.set_ylim(0.5 * low, 2 * high)
    handles, names = [], []
    for j, marker in zip(range(dataset.sizes["modes"]), MARKERS, strict=False):
        modes = int(dataset["modes"][j])
        handles.append(Line2D([], [], color=BLACK, marker=marker, linestyle="-" if j == 0 else DASHED))
        names.append(f"{modes} equal modes" if modes > 1 else "1 mode")
        for k, colour in zip(range(dataset.sizes["negatives"]), COLOURS, strict=False):
            cells = draws.isel(modes=j, negatives=k) * float(dataset["negatives"][k])
            apart = 0.006 * (2 * k - 1)
            points(axis, cells["q"].values + apart, mean(cells), bars(cells), colour, fmt=marker)
    for k, colour in zip(range(dataset.sizes["negatives"]), COLOURS, strict=False):
        handles.append(Line2D([], [], color=colour, marker="o", linestyle="none"))
        names.append(f"$N={number(float(dataset['negatives'][k]))}$")
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.set_ylabel(r"shift times negatives, $N(s_N-s)$")
    legend_above(axis, handles, names)
