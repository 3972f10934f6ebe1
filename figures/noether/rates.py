"""Effective learning rates of a scale-invariant weight against those of RMSProp on the sphere."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from figures.statistics import bars, first_of_the_rest, mean, of_draws
from figures.style import COLOURS, SMALL, footer, legend_above, letter, number, panels, points, style


def effective_rates(dataset: xr.Dataset) -> Figure | None:
    """Rates over their start, from several norms at the start; and how far the two directions are apart."""
    if dataset["ratio"].ndim == 0:
        return None
    dataset = first_of_the_rest(dataset, "ratio")[0].sortby("ratio")
    settings = json.loads(dataset.attrs["settings"])
    time = dataset["moment"].values * settings["longest"]
    # The rate is one over the squared norm, and the second moment goes with its square.
    rate, theirs = (dataset[name] ** -0.5 for name in ("second_moment", "second_moment_theory"))
    with style():
        figure, axes = panels(1, 2, 2.3)
        low, high = float(mean(rate).min()), float(mean(rate).max())
        axes[0, 0].set_yscale("log")
        axes[0, 0].set_ylim(low / 1.3, high * 1.3)
        axes[0, 1].set_ylim(0, 1.5 * float(mean(dataset["distance"]).max()) + 1e-12)
        for ratio, colour in zip(dataset["ratio"].values, COLOURS, strict=False):
            at = {"ratio": ratio}
            axes[0, 0].plot(time, of_draws(theirs.sel(at)), color=colour)
            points(axes[0, 0], time, mean(rate.sel(at)), bars(rate.sel(at)), colour, number(float(ratio)))
            apart = dataset["distance"].sel(at)
            points(axes[0, 1], time, mean(apart), bars(apart), colour)
        for axis in axes[0]:
            axis.set_xlabel(r"$\eta\lambda k$")
            axis.set_xlim(0, 1.05 * np.max(time))
        axes[0, 0].set_ylabel("effective learning rate over its start")
        axes[0, 1].set_ylabel("distance of the directions")
        legend_above(axes[0, 0], fontsize=SMALL)
        letter(axes.flat)
        note = "lines: RMSProp on the sphere; colours: squared norm at the start over that in equilibrium"
        footer(figure, dataset, note)
    return figure
