"""Two neurons become one: their distance in training, with the slope of the normal cocycle, and all slopes at once."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.statistics import bars, mean, of_draws
from figures.style import (
    BLACK,
    BLUE,
    DASHED,
    GREEN,
    GREY,
    ORANGE,
    SKY,
    SMALL,
    VERMILION,
    footer,
    letter,
    number,
    panels,
    style,
)

COLOURS = (BLUE, SKY, GREEN, ORANGE, VERMILION)
MARKERS = 10


def permutation(dataset: xr.Dataset) -> Figure | None:
    """Distance against steps over noise levels and over learning rates, and slopes measured against predicted."""
    if dataset["eta"].ndim == 0 or dataset["sigma"].ndim == 0:
        return None
    dataset = dataset.sortby(["eta", "sigma"])
    middle = {name: dataset[name].values[dataset.sizes[name] // 2] for name in ("eta", "sigma")}
    with style():
        figure, axes = panels(1, 3, 2.5, gridspec_kw={"width_ratios": [1, 1, 0.95]})
        for axis, varied, held in ((axes[0, 0], "sigma", "eta"), (axes[0, 1], "eta", "sigma")):
            _decay(axis, dataset.sel({held: middle[held]}), varied)
            symbol = {"eta": r"\eta", "sigma": r"\sigma"}[held]
            axis.set_title(rf"${symbol} = {number(float(middle[held]))}$", fontsize=SMALL + 0.5, loc="right")
        axes[0, 0].set_ylabel(r"squared distance $|w_1-w_2|^2+|a_1-a_2|^2$")
        _slopes(axes[0, 2], dataset)
        letter(axes.flat)
        footer(figure, dataset, "markers: geometric mean over draws; lines: slope of the normal cocycle")
    return figure


def _shown(coordinate):
    """As many values as there are colours, evenly chosen."""
    some = np.unique(np.linspace(0, len(coordinate) - 1, len(COLOURS)).round().astype(int))
    return list(zip(coordinate.values[some], COLOURS, strict=False))


def _decay(axis, cut, varied):
    """Geometric means of the squared distance at the moments that every draw reaches, and lines of slope 2 Lambda."""
    steps = cut["step"].values
    lowest = 0.0
    for value, colour in _shown(cut[varied]):
        here = cut.sel({varied: value})
        logs = here["log_distance"].transpose("replicate", "step").values
        reached = np.isfinite(logs).all(0)
        if reached.sum() < 2:
            continue
        log2 = (2 * logs[:, reached].mean(0) + np.log(2)) / np.log(10)
        k = steps[reached]
        first = int(0.3 * (len(k) - 1))
        slope = 2 * float(of_draws(here["slope_theory"])) / np.log(10)
        axis.plot(k, 10 ** (log2[first] + slope * (k - k[first])), color=colour)
        some = np.unique(np.linspace(0, len(k) - 1, MARKERS).astype(int))
        axis.plot(k[some], 10 ** log2[some], "o", color=colour, label=number(float(value)))
        lowest = min(lowest, log2.min())
    quiet = cut["log_distance_without_noise"]
    quiet = quiet.isel({varied: 0}) if varied in quiet.dims else quiet
    logs = quiet.transpose("replicate", "step").values
    reached = np.isfinite(logs).all(0)
    axis.plot(steps[reached], 2 * np.exp(2 * logs[:, reached].mean(0)), color=GREY, linestyle=DASHED, label="no noise")
    axis.set_yscale("log")
    axis.set_ylim(10 ** (1.4 * lowest - 3), 30)  # room for the legend
    axis.set_xlim(0, steps[-1] * 1.03)
    axis.set_xlabel("step")
    symbol = {"eta": r"$\eta$", "sigma": r"$\sigma$"}[varied]
    look = {"title_fontsize": SMALL, "fontsize": SMALL, "loc": "lower right", "columnspacing": 0.8}
    axis.legend(title=symbol, ncols=2, handlelength=1.4, **look)


def _slopes(axis, dataset):
    """Minus the measured slope of every cell over minus the exponent of an independent run of equal neurons."""
    measured, predicted = -dataset["exponent"], -dataset["exponent_theory"]
    for value, colour in _shown(dataset["eta"]):
        here = {"eta": value}
        x, y = mean(predicted.sel(here)).values, mean(measured.sel(here)).values
        axis.errorbar(
            x, y, xerr=bars(predicted.sel(here)).values, yerr=bars(measured.sel(here)).values, fmt="o", color=colour,
            label=number(float(value)), zorder=3,
        )  # fmt: skip
    both = np.concatenate([mean(v).values.ravel() for v in (measured, predicted)])
    both = both[np.isfinite(both) & (both > 0)]
    line = np.array([both.min() / 2, both.max() * 2])
    axis.plot(line, line, color=BLACK, linewidth=0.8)
    axis.set(xscale="log", yscale="log", xlim=line, ylim=line)
    axis.set_xlabel(r"$-\Lambda$ of the normal cocycle, per step")
    axis.set_ylabel(r"$-$slope of $\ln$ distance, per step")
    handles, labels = axis.get_legend_handles_labels()
    handles = [Line2D([], [], marker="o", linestyle="none", color=h[0].get_color()) for h in handles]
    look = {"title_fontsize": SMALL, "fontsize": SMALL, "loc": "lower right", "handlelength": 0.8}
    axis.legend(handles, labels, title=r"$\eta$", **look)
