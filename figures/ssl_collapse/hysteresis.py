"""Weight decay on one layer and on several: a continuous transition, and hysteresis up to the spinodal."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from figures.statistics import bars, first_of_the_rest, mean
from figures.style import (
    BLUE,
    DASHED,
    DOTTED,
    GREEN,
    GREY,
    VERMILION,
    footer,
    letter,
    number,
    panels,
    style,
)
from theory.ssl_collapse import two_layer_barrier, two_layer_critical_decay, two_layer_strength

COLOURS = (BLUE, GREEN, VERMILION)
DENSE = 600
START_TICKS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


def hysteresis(dataset: xr.Dataset) -> Figure | None:
    """Above: both branches over the decay, a panel a depth; below: starts beside the barrier, where there is one."""
    if dataset["weight_decay"].ndim == 0:
        return None
    dataset = first_of_the_rest(
        dataset.expand_dims("depth") if dataset["depth"].ndim == 0 else dataset, "depth", "weight_decay"
    )[0]
    depths = dataset["depth"].values
    with style():
        figure, axes = panels(2, max(len(depths), 2), 4.3)
        for column, depth in enumerate(depths):
            here = dataset.isel(depth=column)
            _branches(axes[0, column], here, depth)
            if depth > 1:
                _barrier(axes[1, column], here, depth)
        kept = [axis for axis in axes.flat if axis.has_data()]
        for axis in axes.flat:
            if axis not in kept:
                axis.axis("off")
        _legend(axes[1, 0] if depths[0] == 1 else axes[0, 0], depths[0] == 1, dataset)
        axes[0, 0].set_ylabel(r"singular value $p$ of the product")
        next(axis for axis in axes[1] if axis in kept).set_ylabel(r"start $p_0/p_\infty$")
        letter(kept)
        footer(figure, dataset, "lines: theory; markers: gradient descent; colours: modes")
    return figure


def _modes(dataset):
    clean = dataset["clean"].values
    return list(zip(COLOURS, 2 * clean, clean + float(dataset["noise"]), strict=True))


def _axis(axis, dataset):
    x = dataset["weight_decay"].values
    axis.set_xscale("log")
    axis.set_xlim(x.min() / 1.15, x.max() * 1.15)
    axis.set_xlabel(r"weight decay $\lambda$")
    return x, np.geomspace(*axis.get_xlim(), DENSE)


def _branches(axis, dataset, depth):
    x, dense = _axis(axis, dataset)
    for k, (colour, b, sigma) in enumerate(_modes(dataset)):
        ends = two_layer_critical_decay(b, sigma, 1.0, depth)
        below = np.append(dense[dense < ends.spinodal], ends.spinodal * (1 - 1e-9))
        top = np.asarray(two_layer_strength(b, sigma, 1.0, below, depth))
        axis.plot([*below, ends.spinodal], [*top, 0.0], color=colour)
        if depth > 1:
            axis.plot(below, np.asarray(two_layer_barrier(b, sigma, 1.0, below, depth)), color=colour, linestyle=DASHED)
            axis.axvline(float(ends.transition), color=colour, linestyle=DOTTED, linewidth=0.8)
        for name, filled in (("raised", True), ("small", False)):
            values = dataset[name].isel(clean=k)
            axis.errorbar(
                x, mean(values).values, yerr=bars(values).values, fmt="o", color=colour, ms=3.2 if filled else 2.2,
                mfc=colour if filled else "white", zorder=3,
            )  # fmt: skip
    axis.set_ylim(-0.04, None)
    axis.set_title("1 layer" if depth == 1 else f"{depth:g} layers")


def _barrier(axis, dataset, depth):
    x, dense = _axis(axis, dataset)
    survival = mean(dataset["survival"])
    for k, (colour, b, sigma) in enumerate(_modes(dataset)):
        limit = float(two_layer_strength(b, sigma, 1.0, 0.0, depth))
        axis.plot(dense, np.asarray(two_layer_barrier(b, sigma, 1.0, dense, depth)) / limit, color=colour)
        barrier = np.asarray(two_layer_barrier(b, sigma, 1.0, x, depth)) / limit
        held = np.isfinite(barrier)
        for factor in dataset["factor"].values:
            lives = survival.sel(factor=factor).isel(clean=k).values > 0
            for which, face in ((lives, colour), (~lives, "white")):
                axis.plot(x[which & held], factor * barrier[which & held], "o", ms=2.4, mew=0.7, color=colour, mfc=face)
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    ticks = [tick for tick in START_TICKS if low < tick < high]
    axis.set_yticks(ticks, [number(tick) for tick in ticks])
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.set_title(f"{depth:g} layers: starts", loc="right")


def _legend(axis, empty, dataset):
    colours = [Line2D([], [], color=c) for c in COLOURS]
    names = [rf"mode $a={a:g}$" for a in dataset["clean"].values]
    look = {"color": GREY, "marker": "o", "linestyle": "none"}
    handles = [
        *colours,
        Line2D([], [], color=GREY),
        Line2D([], [], color=GREY, linestyle=DASHED),
        Line2D([], [], color=GREY, linestyle=DOTTED),
        Line2D([], [], **look),
        Line2D([], [], mfc="white", **look),
    ]
    labels = [
        *names, "learned state, up to its spinodal", "barrier", r"transition $\lambda_c$",
        "decay raised on learned layers\n(below: start that is learned)", "small layers\n(below: start that collapses)",
    ]  # fmt: skip
    axis.legend(handles, labels, loc="center left" if empty else "upper right", borderaxespad=0)
