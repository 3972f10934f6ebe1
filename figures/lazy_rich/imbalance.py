"""What the imbalance decides: which interpolator, how far the kernel of a wide network moves, how long it takes."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.statistics import bars, first_of_the_rest, mean, of_draws
from figures.style import (
    BLUE,
    COLOURS,
    DASHED,
    DOTTED,
    GREY,
    SMALL,
    footer,
    legend_above,
    letter,
    panels,
    points,
    style,
)

SHAPES = ("funnel", "square", "inverted funnel")


def _against_delta(axis, draws, theory, colour, label=None):
    axis.plot(draws["delta"], of_draws(theory), color=colour)
    points(axis, draws["delta"], mean(draws), bars(draws), colour, label)
    axis.set_xlabel(r"imbalance $\delta$")


def interpolators(dataset: xr.Dataset) -> Figure | None:
    """Part of the interpolator that no sample has seen, between its two limits."""
    if dataset["delta"].ndim == 0:
        return None
    dataset = first_of_the_rest(dataset, "delta")[0].sortby("delta").isel(component=1)
    limits = {
        r"direction of the start, $\delta\to-\infty$": ("beta_same_direction", DOTTED),
        r"nearest to the start, $\delta\to\infty$": ("beta_nearest", DASHED),
        "least norm": ("beta_least_norm", "-"),
    }
    levels = {words: (float(mean(dataset[name]).mean()), look) for words, (name, look) in limits.items()}
    with style():
        figure, axes = panels(1, 1, 2.6, "half")
        axis = axes[0, 0]
        ends = [*(level for level, _ in levels.values()), *np.ravel(mean(dataset["beta"]))]
        axis.set_ylim(min(ends) - 0.08 * np.ptp(ends) - 0.02, max(ends) + 0.55 * np.ptp(ends) + 0.02)
        for words, (level, look) in levels.items():
            axis.axhline(level, color=GREY, linestyle=look, linewidth=0.8, label=words)
        _against_delta(axis, dataset["beta"], dataset["beta_theory"], BLUE, "gradient descent; line: theory")
        axis.set_ylabel(r"$\beta_\infty$ across the sample")
        axis.legend(fontsize=SMALL, loc="upper right")
        footer(figure, dataset, "means over random starts, 95 % bars")
    return figure


def deep_interpolators(dataset: xr.Dataset) -> Figure | None:
    """Part of the interpolator that no sample has seen, for chains of several depths."""
    if dataset["delta"].ndim == 0:
        return None
    dataset = first_of_the_rest(dataset, "delta", "depth")[0].sortby("delta").isel(component=1)
    with style():
        figure, axes = panels(1, 1, 2.6, "half")
        axis = axes[0, 0]
        ends = np.ravel(mean(dataset["beta"]))
        axis.set_ylim(ends.min() - 0.12 * np.ptp(ends) - 0.02, ends.max() + 0.15 * np.ptp(ends) + 0.02)
        for depth, colour in zip(np.atleast_1d(dataset["depth"].values), COLOURS, strict=False):
            at = {"depth": depth} if dataset["depth"].ndim else {}
            _against_delta(axis, dataset["beta"].sel(at), dataset["beta_theory"].sel(at), colour, f"$L={depth:g}$")
        axis.set_ylabel(r"$\beta_\infty$ across the sample")
        legend_above(axis, fontsize=SMALL)
        footer(figure, dataset, "line: theory, markers: gradient descent; means over random starts, 95 % bars")
    return figure


def wide(dataset: xr.Dataset) -> Figure | None:
    """Kernel distance and loss of the three shapes at the last time."""
    if dataset["delta"].ndim == 0:
        return None
    dataset = first_of_the_rest(dataset, "delta", "shape")[0].sortby("delta").isel(time=-1)
    shapes = np.atleast_1d(dataset["shape"].values)
    with style():
        figure, axes = panels(1, 2, 2.3)
        for axis, name, words in ((axes[0, 0], "kernel_distance", "kernel distance"), (axes[0, 1], "loss", "loss")):
            top = float(max(mean(dataset[name]).max(), of_draws(dataset[f"{name}_theory"]).max()))
            axis.set_ylim(-0.04 * top, 1.15 * top)
            for shape, colour in zip(shapes, COLOURS, strict=False):
                at = {"shape": shape} if dataset["shape"].ndim else {}
                draws, theory = dataset[name].sel(at), dataset[f"{name}_theory"].sel(at)
                _against_delta(axis, draws, theory, colour, SHAPES[int(shape)])
            axis.set_ylabel(f"{words} at t = {float(dataset['time']):g}")
        legend_above(axes[0, 0], fontsize=SMALL)
        looks = [Line2D([], [], color=GREY), Line2D([], [], color=GREY, marker="o", linestyle="none")]
        legend_above(axes[0, 1], looks, ["exact flow", "gradient descent"], fontsize=SMALL, handlelength=1.4)
        letter(axes.flat)
        footer(figure, dataset, "means over random starts and tasks, with 95 % bars")
    return figure
