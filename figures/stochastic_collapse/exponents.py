"""Exponents of random factors over the step size: Gaussian curvatures, and finite data sets draw by draw."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.statistics import bars, first_of_the_rest, mean
from figures.style import COLOURS, DOTTED, GREY, SMALL, footer, label_of, letter, number, panels, points, style
from theory.stochastic_collapse import collapse_window, discrete_exponent, lyapunov_exponent

SAMPLINGS = {
    "with_replacement": ("with replacement", "o"),
    "without_replacement": ("without replacement", "s"),
    "epochs": ("shuffled epochs", "^"),
}
DENSE = 300


def exponents(dataset: xr.Dataset) -> Figure | None:
    """Gaussian curvatures at the least and the largest batch, and measured over exact growth of finite data sets."""
    if dataset["eta"].ndim == 0 or dataset["mean_curvature"].ndim == 0:
        return None
    dataset, words = first_of_the_rest(dataset, "eta", "mean_curvature", "batch")
    dataset = dataset if dataset["batch"].ndim else dataset.expand_dims("batch")
    dataset = dataset.sortby(["eta", "mean_curvature", "batch"])
    at = [dataset.isel(batch=k) for k in dict.fromkeys((0, dataset.sizes["batch"] - 1))]
    with style():
        figure, axes = panels(1, len(at) + 1, 2.5)
        for axis, cells in zip(axes[0], at, strict=False):
            _gaussian(axis, cells)
        axes[0, 0].set_ylabel(label_of(dataset["gaussian"]))
        axes[0, 0].add_artist(axes[0, 0].legend(loc="upper left", fontsize=SMALL))
        looks = [Line2D([], [], color=GREY, linestyle=look) for look in ("-", DOTTED)]
        axes[0, -2].legend(looks, ["exact", "SDE"], loc="lower left", fontsize=SMALL)
        _finite(axes[0, -1], dataset)
        letter(axes.flat)
        note = "markers: SGD; crosses: ends of the window of collapse"
        footer(figure, dataset, "; ".join(part for part in (note, words) if part))
    return figure


def _gaussian(axis, cells):
    eta, batch, std = cells["eta"].values, float(cells["batch"]), float(cells["std_curvature"])
    dense = np.geomspace(eta[0] / 1.2, eta[-1] * 1.2, DENSE)
    chosen = np.unique(np.linspace(0, cells.sizes["mean_curvature"] - 1, 3).round().astype(int))
    means = mean(cells["gaussian"])
    low, high = float(means.min()), float(means.max())
    axis.set_ylim(low - 0.15 * (high - low), high + 0.45 * (high - low))
    axis.axhline(0, color="0.8", linewidth=0.6, zorder=0)
    for k, colour in zip(chosen, COLOURS, strict=False):
        h = float(cells["mean_curvature"][k])
        axis.plot(dense, discrete_exponent(dense, h, std, batch), color=colour)
        axis.plot(
            dense, dense * lyapunov_exponent(h, np.sqrt(dense / batch) * std), color=colour, linestyle=DOTTED
        )  # fmt: skip
        draws = cells["gaussian"].isel(mean_curvature=k)
        points(axis, eta, mean(draws), bars(draws), colour, rf"$\bar h={number(h)}$")
        ends = np.array(collapse_window(h, std, batch) or (np.nan, np.nan), float)
        axis.plot(ends[ends > 0], 0 * ends[ends > 0], "x", color=colour, ms=5, zorder=4)
    axis.set_xscale("log")
    axis.set_xlim(dense[0], dense[-1])
    axis.set_xlabel(label_of(cells["eta"]))
    axis.set_title(f"$B={number(batch)}$", loc="right", fontsize=SMALL + 0.5)


def _finite(axis, dataset):
    """One marker a data set, step size, mean curvature and batch."""
    ends = []
    for (name, (label, marker)), colour in zip(SAMPLINGS.items(), COLOURS, strict=True):
        exact, measured = dataset[f"{name}_theory"].values.ravel(), dataset[name].values.ravel()
        look = {"ms": 2, "mew": 0, "alpha": 0.5, "linestyle": "none", "rasterized": True}
        axis.plot(exact, measured, marker, color=colour, label=label, **look)
        ends += [np.nanmin(exact), np.nanmax(exact)]
    line = np.array([min(ends), max(ends)])
    axis.plot(line, line, color="black", linewidth=0.7, zorder=4)
    axis.set_xlabel("exact average over batches")
    samples = json.loads(dataset.attrs["settings"])["samples"]
    axis.set_ylabel(f"growth per step on {samples} samples")
    axis.legend(loc="upper left", fontsize=SMALL, markerscale=2)
    axis.set_title("finite data", loc="right", fontsize=SMALL + 0.5)
