"""Barlow Twins from small weights: its steps in time, and the modes that it keeps."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from figures.statistics import bars, mean, of_draws
from figures.style import (
    BLUE,
    DASHED,
    GREEN,
    GREY,
    PURPLE,
    SMALL,
    VERMILION,
    footer,
    letter,
    number,
    panels,
    points,
    style,
)
from theory.ssl_collapse import barlow_mode, barlow_step_time

COLOURS = (BLUE, GREEN, VERMILION, PURPLE)


def barlow_steps(dataset: xr.Dataset) -> Figure | None:
    """Variances of the modes over time at one ratio, shares kept over the ratio, and shares draw by draw."""
    if dataset["ratio"].ndim == 0:
        return None
    ratios, time, modes = (dataset[name].values for name in ("ratio", "time", "mode"))
    middle = int(np.argmin(np.abs(ratios - 0.6)))
    gamma = ratios[middle] ** (modes - 1.0)
    path = dataset["path"].isel(ratio=middle)
    with style():
        figure, axes = panels(1, 3, 2.35)
        axis = axes[0, 0]
        axis.set_ylim(-0.05, 1.15)
        dense = np.linspace(0, time[-1], 400)
        for k, colour in enumerate(COLOURS):
            # The singular value at the start, from the first point of the theory.
            w = float(of_draws(dataset["path_theory"]).isel(ratio=middle, time=0, mode=k))
            start = (np.exp(8 * gamma[k] * time[0]) * (w**-2 - gamma[k]) + gamma[k]) ** -0.5
            axis.plot(dense, gamma[k] * np.asarray(barlow_mode(dense, gamma[k], start)) ** 2, color=colour)
            here = gamma[k] * path.isel(mode=k) ** 2
            points(axis, time, mean(here).values, bars(here).values, colour, ms=2)
            step = float(barlow_step_time(gamma[k], start))
            if step < time[-1]:
                axis.axvline(step, color=colour, linestyle=DASHED, linewidth=0.7)
        axis.set(xlabel="time $t$", ylabel=r"$\gamma_i w_i^2$")
        axis.text(
            0.97, 0.06, rf"$r={number(float(ratios[middle]))}$", transform=axis.transAxes, ha="right", fontsize=SMALL
        )  # fmt: skip

        axis = axes[0, 1]
        axis.set_ylim(-0.08, 1.3)
        for k, colour in enumerate(COLOURS):
            axis.plot(ratios, of_draws(dataset["kept_theory"]).isel(mode=k).values + 0.5, color=colour)
            here = dataset["kept"].isel(mode=k) + 0.5
            points(axis, ratios, mean(here).values, bars(here).values, colour, f"mode {k + 1}")
        axis.legend(loc="center left", fontsize=SMALL)
        axis.set(xlabel=r"ratio $r=\gamma_{i+1}/\gamma_i$", ylabel=r"share in $\mathrm{Tr}\,K$, $m=2$")

        axis = axes[0, 2]
        axis.plot([1e-8, 1], [1e-8, 1], color=GREY)
        for k, colour in enumerate(COLOURS):
            x, y = (dataset[f"share{t}"].isel(mode=k).values.ravel() for t in ("_theory", ""))
            axis.plot(x, y, "o", ms=1.8, mew=0, alpha=0.6, color=colour)
        axis.set(xscale="log", yscale="log", xlim=(1e-8, 2), ylim=(1e-8, 2))
        axis.set(xlabel="share, from the first weights", ylabel="share in $K$, $m=1$")
        letter(axes.flat)
        footer(figure, dataset, "lines: theory; markers: gradient descent; dashed: step times")
    return figure
