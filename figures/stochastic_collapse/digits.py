"""Networks that read digits: which units are left, and how fast a small unit and a close pair die."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.statistics import bars, first_of_the_rest, mean
from figures.style import COLOURS, GREY, SMALL, footer, label_of, legend_above, letter, number, panels, points, style


def units(dataset: xr.Dataset) -> Figure | None:
    """Growth in training against the cocycle, draw by draw; the share of vanished units against their exponent."""
    if dataset["learning_rate"].ndim == 0 or dataset["label_noise"].ndim == 0:
        return None
    dataset = first_of_the_rest(dataset, "learning_rate", "label_noise")[0]
    noises = list(zip(dataset["label_noise"].values, COLOURS, strict=False))
    with style():
        figure, axes = panels(1, 3, 2.3)
        _growth(axes[0, 0], dataset, noises)
        _collapsed(axes[0, 1], dataset, noises)
        _accuracy(axes[0, 2], dataset, noises)
        looks = [Line2D([], [], color=colour, marker="o", linestyle="") for _, colour in noises]
        words = [rf"$\zeta = {number(float(noise))}$" for noise, _ in noises]
        legend_above(axes[0, 1], looks, words, fontsize=SMALL)
        letter(axes.flat)
        steps = json.loads(dataset.attrs["settings"])["probe"]
        footer(figure, dataset, f"growth over {steps} steps; line in (a): real training equals the cocycle")
    return figure


def _growth(axis, dataset, noises):
    for noise, colour in noises:
        for name, marker in (("unit_growth", "o"), ("pair_growth", "x")):
            at = dataset.sel(label_noise=noise)
            axis.plot(
                at[f"{name}_theory"].values.ravel(), at[name].values.ravel(), marker, color=colour, ms=2.5, alpha=0.7
            )
    ends = np.array(axis.get_xlim())
    axis.plot(ends, ends, color=GREY, linewidth=0.8, zorder=0)
    looks = [Line2D([], [], color=GREY, marker=m, linestyle="", ms=3) for m in ("o", "x")]
    axis.legend(looks, ["small unit", "close pair"], fontsize=SMALL, loc="upper left")
    axis.set_xlabel("ln growth by the cocycle")
    axis.set_ylabel("ln growth in training")


def _collapsed(axis, dataset, noises):
    for noise, colour in noises:
        at = dataset.sel(label_noise=noise)
        rate, share = -at["collapsed_theory"], at["collapsed"]
        axis.errorbar(
            mean(rate), mean(share), yerr=bars(share), xerr=bars(rate), fmt="o", ms=3, color=colour, capsize=1.5
        )
    axis.axvline(0, color=GREY, linewidth=0.8, zorder=0)
    axis.set_xlabel(r"exponent of a small unit, per $\eta k$")
    axis.set_ylabel(label_of(dataset["collapsed"], wrap=24))


def _accuracy(axis, dataset, noises):
    rates = dataset["learning_rate"].values
    axis.set_ylim(0, 1)
    for noise, colour in noises:
        share = dataset["accuracy"].sel(label_noise=noise)
        points(axis, rates, mean(share), bars(share), colour)
    axis.set_xscale("log")
    axis.set_xticks(rates, [number(float(rate)) for rate in rates])
    axis.minorticks_off()
    axis.set_xlabel(label_of(dataset["learning_rate"]))
    axis.set_ylabel(label_of(dataset["accuracy"]))
