"""Upstream and downstream networks that must generalize: time to grok, and accuracy on a hierarchical task."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from figures.statistics import bars, first_of_the_rest, mean
from figures.style import (
    BLUE,
    COLOURS,
    GREY,
    SMALL,
    VERMILION,
    footer,
    legend_above,
    letter,
    number,
    panels,
    points,
    style,
)

UPSTREAM = r"inner weights over standard, $\alpha$ (small: upstream)"


def _panel(axis, alpha, curves, margin=0.12):
    """Means with 95 % bars against alpha, on a logarithmic axis."""
    means = np.concatenate([np.ravel(mean(draws)) for draws, _, _ in curves])
    low, high = np.nanmin(means), np.nanmax(means)
    axis.set_xscale("log")
    axis.set_ylim(low - margin * (high - low) - 1e-3, high + 2.5 * margin * (high - low) + 1e-3)
    for draws, colour, label in curves:
        axis.plot(alpha, mean(draws), color=colour, linewidth=0.7)
        points(axis, alpha, mean(draws), bars(draws), colour, label)
    axis.set_xlabel(UPSTREAM)
    axis.set_xticks(alpha.values, [number(float(v)) for v in alpha.values])
    axis.minorticks_off()


def grokking(dataset: xr.Dataset) -> Figure | None:
    """Steps to fit the training set and to be right on the test set, and the delay between them."""
    if dataset["alpha"].ndim == 0:
        return None
    dataset = first_of_the_rest(dataset, "alpha")[0].sortby("alpha")
    fitted, right = dataset["training_step"], dataset["grokking_step"]
    with style():
        figure, axes = panels(1, 2, 2.4)
        _panel(axes[0, 0], dataset["alpha"], [(right, BLUE, "test set"), (fitted, VERMILION, "training set")])
        axes[0, 0].set_ylabel("steps to 95 % accuracy")
        legend_above(axes[0, 0], fontsize=SMALL)
        _panel(axes[0, 1], dataset["alpha"], [(right - fitted, GREY, None)])
        axes[0, 1].set_ylabel("steps from training to test set")
        letter(axes.flat)
        footer(figure, dataset, "means with 95 % bars; the theory orders the networks and gives no time")
    return figure


def hierarchy(dataset: xr.Dataset) -> Figure | None:
    """Test accuracy of the random hierarchy model against the scale of the first layer, at every sample size."""
    if dataset["alpha"].ndim == 0:
        return None
    dataset = first_of_the_rest(dataset, "alpha", "P")[0].sortby("alpha")
    sizes = np.atleast_1d(dataset["P"].values)
    with style():
        figure, axes = panels(1, 1, 2.6, "half")
        curves = [
            (dataset["test_accuracy"].sel({"P": P} if dataset["P"].ndim else {}), colour, f"P = {P:g}")
            for P, colour in zip(sizes, COLOURS, strict=False)
        ]
        _panel(axes[0, 0], dataset["alpha"], curves)
        axes[0, 0].set_ylabel("test accuracy")
        legend_above(axes[0, 0], fontsize=SMALL)
        footer(figure, dataset, "means with 95 % bars")
    return figure
