"""Several normal dimensions: the exponent of a neuron against the dimension of its inputs, and of random matrices."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from figures.statistics import bars, mean, of_draws
from figures.style import (
    BLACK,
    BLUE,
    DASHED,
    DOTTED,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    footer,
    label_of,
    legend_above,
    letter,
    panels,
    points,
    style,
)
from theory.stochastic_collapse import sign_set_exponent

COLOURS = (BLUE, GREEN, ORANGE, VERMILION, PURPLE, SKY)


def sign_set(dataset: xr.Dataset) -> Figure | None:
    """Exponent against the dimension of the inputs, and the median distance of whole neurons against time."""
    if dataset["dimension"].ndim == 0:
        return None
    dataset = dataset.sortby("dimension")
    d = dataset["dimension"].values
    with style():
        figure, axes = panels(1, 2, 2.4)
        axis = axes[0, 0]
        dense = 1 + (d[-1] - 1) * np.linspace(0, 1, 300) ** 3
        curve = np.asarray(sign_set_exponent(dense))
        axis.axhline(0, color="0.8", linewidth=0.6)
        axis.plot(dense, curve, color=GREY, label="theory")
        axis.set_ylim(-0.6, max(curve.max(), 0) + 0.1)
        points(axis, d, mean(dataset["exponent"]), bars(dataset["exponent"]), BLUE, "linear neuron")
        axis.set(xlabel=label_of(dataset["dimension"]), ylabel=label_of(dataset["exponent"]))
        for words, side in (("repels", "bottom"), ("attracts", "top")):
            axis.annotate(
                words,
                (d[-1], 0),
                (0, 3 if side == "bottom" else -3),
                textcoords="offset points",
                ha="right",
                va=side,
                color=GREY,
            )
        axis.legend(loc="upper left")
        _medians(axes[0, 1], dataset)
        letter(axes.flat)
        footer(figure, dataset, "markers: SGD with 95 % bars; solid lines: theory; dotted: a guide")
    return figure


def _medians(axis, dataset):
    d, time = dataset["dimension"].values, dataset["time"].values
    some = [k for k in range(len(d)) if d[k] in (1, 2, 3, 4, 8)] or range(min(len(d), len(COLOURS)))
    every = np.unique(np.linspace(0, len(time) - 1, 13).astype(int))
    values = mean(dataset["median"])
    axis.set_xlim(0, time[-1] * 1.03)
    axis.set_ylim(float(values.min()) * 1.1, max(float(values.max()), 0) + 1)
    for k, colour in zip(some, COLOURS, strict=False):
        here = dataset["median"].isel(dimension=k)
        axis.plot(time, mean(here), color=colour, linestyle=DOTTED, linewidth=0.8)
        points(axis, time[every], mean(here)[every], bars(here)[every], colour, f"$d={d[k]:g}$")
    slope = float(sign_set_exponent(1))
    if d[0] == 1:
        at_end = float(values.sel(dimension=1)[-1])
        axis.plot(time, at_end + slope * (time - time[-1]), color=BLACK, label=r"slope $-\frac{1}{2}$")
    axis.set(xlabel=r"time $s^2t$", ylabel=label_of(dataset["median"]))
    legend_above(axis)


def normal_dimensions(dataset: xr.Dataset) -> Figure | None:
    """Exponents of random matrices: against the exact one in two dimensions, and against the largest drift in all."""
    if dataset["system"].ndim == 0:
        return None
    dataset = dataset if dataset["dimension"].ndim else dataset.expand_dims("dimension")
    with style():
        figure, axes = panels(1, 2, 2.6)
        left, right = axes[0]
        largest = of_draws(dataset["largest_theory"])
        exponent, half = mean(dataset["exponent"]), bars(dataset["exponent"])
        plane = dataset["exponent_theory"].sel(dimension=2) if 2 in dataset["dimension"] else None
        if plane is not None:
            _diagonal(left, np.concatenate([plane.values, exponent.sel(dimension=2).values]))
            points(left, plane.values, exponent.sel(dimension=2), half.sel(dimension=2), BLUE)
        left.set(xlabel=r"exact $\Lambda$, $d = 2$ (1/t)", ylabel=r"exponent $\Lambda$ of the process (1/t)")
        _diagonal(right, np.concatenate([largest.values.ravel(), exponent.values.ravel()]))
        for d, colour in zip(dataset["dimension"].values, COLOURS, strict=False):
            x, y, bar = (v.sel(dimension=d).values for v in (largest, exponent, half))
            points(right, x, y, bar, colour, f"$d={d:g}$")
        right.axvline(0, color="0.8", linewidth=0.6)
        right.axhline(0, color="0.8", linewidth=0.6)
        right.set(xlabel=r"largest drift $\max_n q(n)$ (1/t)", ylabel=r"exponent $\Lambda$ of the process (1/t)")
        right.legend(loc="upper left")
        letter(axes.flat)
        footer(figure, dataset, "markers: Ito process with 95 % bars, one a draw of the matrices; dashed: equality")
    return figure


def _diagonal(axis, values):
    low, high = np.min(values), np.max(values)
    margin = 0.08 * (high - low)
    axis.plot([low, high], [low, high], color=GREY, linestyle=DASHED)
    axis.set(xlim=(low - margin, high + margin), ylim=(low - margin, high + margin))
