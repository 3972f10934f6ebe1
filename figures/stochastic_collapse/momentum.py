"""Heavy ball: its exponent over momentum, and what the effective learning rate alone leaves out of it."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.statistics import bars, mean
from figures.style import (
    BLUE,
    DASHED,
    GREEN,
    GREY,
    ORANGE,
    VERMILION,
    footer,
    label_of,
    legend_above,
    letter,
    number,
    panels,
    points,
    style,
)
from theory.stochastic_collapse import effective_exponent, momentum_exponent

LOOKS = (BLUE, GREEN, ORANGE, VERMILION)
DENSE = 200


def momentum(dataset: xr.Dataset) -> Figure | None:
    """The exponent, and its distance to the SDE at the effective rate over the strength of the noise."""
    if dataset["beta"].ndim == 0:
        return None
    dataset = (dataset if dataset["drift"].ndim else dataset.expand_dims("drift")).sortby(["beta", "drift"])
    strength = json.loads(dataset.attrs["settings"])["strength"]
    with style():
        figure, axes = panels(1, 2, 2.5)
        _along(axes[0, 0], dataset["exponent"], strength, 1.0, only_correction=False)
        axes[0, 0].set_ylabel(label_of(dataset["exponent"], 34))
        axes[0, 0].axhline(0, color="0.8", linewidth=0.6, zorder=0)
        looks = [Line2D([], [], color=GREY, linestyle=look) for look in ("-", DASHED)]
        legend_above(axes[0, 0], looks, ["to second order", r"SDE at $\eta/(1-\beta)$"], handlelength=1.6)
        _along(axes[0, 1], dataset["controlled"], strength, strength, only_correction=True)
        axes[0, 1].set_ylabel("the same less the SDE,\nover the strength of the noise")
        legend_above(axes[0, 1])
        letter(axes.flat)
        words = rf"strength $e^2\sigma_h^2/B(1-\beta)={number(strength)}$; markers: heavy ball"
        footer(figure, dataset, words + ", in (b) less terms of mean zero")
    return figure


def _along(axis, draws, strength, unit, only_correction):
    """One colour a drift along momentum; exponents are divided by the noise of a step, strength (1 - beta)."""
    beta = draws["beta"].values
    dense = np.linspace(0, max(beta[-1], 0.05), DENSE)
    chosen = np.unique(np.linspace(0, draws.sizes["drift"] - 1, len(LOOKS)).round().astype(int))
    drawn = []
    for k, colour in zip(chosen, LOOKS, strict=False):
        drift = float(draws["drift"][k])
        exact, leading = (
            np.asarray(f(1 - dense, dense, -drift * strength * (1 - dense), strength * (1 - dense)))
            for f in (momentum_exponent, effective_exponent)
        )
        noise = strength * (1 - dense)
        less = leading / noise if only_correction else 0.0
        axis.plot(dense, (exact / noise - less) / unit, color=colour)
        if not only_correction:
            axis.plot(dense, leading / noise, color=colour, linestyle=DASHED)
        here = draws.isel(drift=k)
        less = drift - 0.5 if only_correction else 0.0
        drawn.append(((mean(here) - less) / unit, bars(here) / unit, colour, drift))
    low = min(float(np.nanmin(means)) for means, *_ in drawn)
    high = max(float(np.nanmax(means)) for means, *_ in drawn)
    axis.set_ylim(low - 0.15 * (high - low) - 1e-3, high + 0.15 * (high - low) + 1e-3)
    for k, (means, half, colour, drift) in enumerate(drawn):
        points(axis, beta, means, half, colour, (r"drift $=$ " if k == 0 else "") + number(drift))
    axis.set_xlabel(label_of(draws["beta"]))
