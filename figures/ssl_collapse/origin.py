"""Taylor coefficients of every loss at the origin: curvatures, quartic terms over negatives, and data not Gaussian."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.statistics import bars, mean
from figures.style import (
    BLACK,
    BLUE,
    DASHED,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    SMALL,
    VERMILION,
    footer,
    letter,
    panels,
    points,
    style,
)

LOSSES = (
    "InfoNCE, distances", "clean points", "clean negatives", "positive kept", "InfoNCE, products",
    "products, positive kept", "spectral", "Barlow Twins", "alignment",
)  # fmt: skip
COLOURS = (BLUE, SKY, PURPLE, GREEN, VERMILION, ORANGE, BLACK, "0.6", "0.35")
MARKS = ("o", "s", "^", "D", "o", "D", "v", "P", "X")


def origin(dataset: xr.Dataset) -> Figure | None:
    """Short lines: theory; markers: derivatives of sampled losses at W = 0; colours: losses."""
    if dataset["n_negatives"].ndim == 0 or dataset["density"].ndim == 0:
        return None
    with style():
        figure, axes = panels(1, 3, 2.7)
        _curvatures(axes[0, 0], dataset)
        _over_negatives(axes[0, 1], dataset)
        _over_density(axes[0, 2], dataset)
        looks = [
            Line2D([], [], color=colour, marker=mark, linestyle="none")
            for colour, mark in zip(COLOURS, MARKS, strict=True)
        ]
        figure.legend(
            looks, LOSSES, loc="outside upper center", ncols=5, fontsize=SMALL, handletextpad=0.1, columnspacing=1.0
        )  # fmt: skip
        letter(axes.flat)
        footer(
            figure, dataset, "short lines: theory; markers: derivatives of the sampled losses at W = 0, with 95 % bars"
        )
    return figure


def _curvatures(axis, dataset):
    """All data and numbers of negatives, every direction."""
    low, high = (float(f(dataset["curvature_theory"])) for f in (np.min, np.max))
    margin = 0.06 * (high - low)
    axis.set(xlim=(low - margin, high + margin), ylim=(low - margin, high + margin))
    axis.axline((0, 0), slope=1, color=GREY)
    for loss in dataset["loss"].values:
        one = dataset.sel(loss=loss)
        x, y, half = (np.ravel(v) for v in _alike(one["curvature_theory"], one["curvature"]))
        points(axis, x, y, half, COLOURS[loss], fmt=MARKS[loss], ms=2.2)
    axis.set_xlabel(r"predicted curvature $v^\top Bv$")
    axis.set_ylabel("measured curvature")


def _alike(theory, draws):
    """(theory, means, half-widths) of one shape."""
    return xr.broadcast(theory, mean(draws), bars(draws))


def _over_negatives(axis, dataset):
    gaussian = dataset.sel(density=dataset["density"].max())
    axis.set_ylim(-0.05, 1.12 * float(gaussian["quartic_theory"].max()))
    _side_by_side(axis, gaussian, "quartic", "quartic_loss", "n_negatives")
    axis.set_xlabel("negatives $N$")
    axis.set_ylabel("term of fourth order")
    axis.set_title("Gaussian data", loc="right")


def _over_density(axis, dataset):
    many = dataset.sel(n_negatives=dataset["n_negatives"].max())
    axis.set_ylim(-0.05, 1.12 * float((mean(many["quartic_any"]) + bars(many["quartic_any"])).max()))
    _side_by_side(axis, many, "quartic_any", "any_loss", "density")
    for loss in many["any_loss"].values:
        gaussian = float(many["quartic_theory"].sel(quartic_loss=loss, density=many["density"].max()))
        axis.axhline(gaussian, color=COLOURS[loss], linestyle=DASHED, linewidth=0.7, zorder=1)
    axis.plot([], [], color=GREY, linestyle=DASHED, linewidth=0.7, label="as for Gaussian data")
    axis.legend(loc="upper right", fontsize=SMALL)
    axis.set_xlabel("share of inputs that are not zero")
    axis.set_title(f"$N = {float(many['n_negatives']):g}$", loc="right")


def _side_by_side(axis, dataset, name, losses, along):
    """One group a value of `along`, in it every loss: theory a short line, simulation a marker."""
    values, k = dataset[along].values, np.arange(dataset.sizes[along])
    shifts = np.linspace(-0.33, 0.33, dataset.sizes[losses])
    for loss, shift in zip(dataset[losses].values, shifts, strict=True):
        one = dataset.sel({losses: loss})
        axis.hlines(one[f"{name}_theory"], k + shift - 0.06, k + shift + 0.06, color=COLOURS[loss], zorder=2)
        points(axis, k + shift, mean(one[name]), bars(one[name]), COLOURS[loss], fmt=MARKS[loss], ms=3, alpha=0.75)
    axis.set_xticks(k, [f"{v:g}" for v in values])
    axis.set_xlim(-0.5, len(k) - 0.5)
