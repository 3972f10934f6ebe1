"""Ends of descents: the rank of the embedding, and Gram matrices against the minimum's and the lowest saddle's."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.figure import Figure

from figures.statistics import bars, mean
from figures.style import (
    BLUE,
    GREY,
    MAGNITUDE,
    SMALL,
    VERMILION,
    footer,
    letter,
    panels,
    points,
    style,
)


def minima(dataset: xr.Dataset) -> Figure | None:
    """Lines: theory; markers: gradient descent from random encoders."""
    if dataset["m"].ndim == 0 or dataset["n_positive"].ndim == 0:
        return None
    with style():
        figure, axes = panels(1, 3, 2.4)
        _ranks(axes[0, 0], dataset)
        _ends(axes[0, 1], dataset, "gram", r"entries of $W^\top W$")
        _ends(axes[0, 2], dataset, "loss", "loss", 2.2)
        letter(axes.flat)
        footer(figure, dataset, "lines: theory; markers: gradient descent from random encoders")
    return figure


def _ranks(axis, dataset):
    """One staircase a dimension of the embedding, a little apart."""
    n, sizes = dataset["n_positive"].values, dataset["m"].values
    shades = colormaps[MAGNITUDE](np.linspace(0, 0.85, len(sizes)))
    shifts = np.linspace(-0.14, 0.14, len(sizes))
    axis.set_ylim(-0.4, max(sizes) + 0.5)
    for m, shade, shift in zip(sizes, shades, shifts, strict=True):
        one = dataset.sel(m=m)
        axis.plot(n, mean(one["rank_theory"]) + shift, color=shade)
        points(axis, n, mean(one["rank"]) + shift, bars(one["rank"]), shade)
        axis.annotate(
            f"$m = {m:g}$", (n[-1], float(mean(one["rank_theory"])[-1]) + shift), (4, 0), textcoords="offset points",
            fontsize=SMALL, color=shade, va="center", annotation_clip=False,
        )  # fmt: skip
    axis.set_xlim(min(n) - 0.2, max(n) + 0.9)
    axis.set_xticks(n)
    axis.set_xlabel("positive eigenvalues $n_+(B)$")
    axis.set_ylabel("rank of the embedding")


def _ends(axis, dataset, name, words, size=1.0):
    """Every draw: where it ended against the minimum, and against the lowest saddle where there is one."""
    ended, minimum, saddle = (
        np.ravel(v) for v in xr.broadcast(dataset[name], dataset[f"{name}_theory"], dataset[f"{name}_at_saddle"])
    )
    away = np.abs(saddle - minimum) > 1e-9
    axis.plot(
        saddle[away], ended[away], "o", ms=0.6 * size, color=VERMILION, alpha=0.35, mew=0, rasterized=True, zorder=1,
        label="against the lowest saddle",
    )  # fmt: skip
    axis.axline((0, 0), slope=1, color=GREY, zorder=2)
    axis.plot(
        minimum,
        ended,
        "o",
        ms=1.6 * size,
        color=BLUE,
        mew=0,
        rasterized=True,
        zorder=3,
        label="against the global minimum",
    )
    legend = axis.legend(loc="upper left", fontsize=SMALL, markerscale=2 / size, handletextpad=0.1)
    for handle in legend.legend_handles:
        handle.set_alpha(1)
    low, high = min(minimum.min(), saddle.min()), max(minimum.max(), saddle.max())
    margin = 0.06 * (high - low)
    axis.set(xlim=(low - margin, high + margin), ylim=(low - margin, high + 5 * margin))
    axis.set_xlabel(f"predicted {words}")
    axis.set_ylabel(f"{words} after descent")
