"""Basins of the two signs of the outer weight: the separatrix, and starts on both sides of it."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.statistics import mean
from figures.style import BLUE, GREY, SMALL, VERMILION, footer, letter, number, panels, style
from theory.lazy_rich import separatrix_cosine

MOST = 4


def basins(dataset: xr.Dataset) -> Figure | None:
    """The plane of beta, solution to the right: grey line by theory, markers by what gradient descent did."""
    if dataset["delta"].ndim == 0 or dataset["tau"].ndim or dataset["eta_a"].ndim or dataset["eta_w"].ndim:
        return None
    deltas = dataset["delta"].values
    deltas = deltas[np.unique(np.linspace(0, len(deltas) - 1, min(MOST, len(deltas))).round().astype(int))]
    norm0 = float(dataset["tau"]) ** 2
    rates = {name: float(dataset[name]) for name in ("eta_a", "eta_w")}
    lengths = np.linspace(1e-3, 2 * norm0, 200)
    with style():
        figure, axes = panels(1, len(deltas), 2.0, sharex=True, sharey=True)
        for axis, delta in zip(axes[0], deltas, strict=True):
            cosine = np.asarray(separatrix_cosine(lengths, 1.0, delta, **rates))
            axis.plot(lengths * cosine, lengths * np.sqrt(1 - cosine**2), color=GREY)
            at = np.arccos(float(separatrix_cosine(norm0, 1.0, delta, **rates)))
            for offset in np.atleast_1d(dataset["offset"].values):
                kept = float(mean(dataset["kept"].sel(delta=delta, **_of(dataset, "offset", offset))))
                angle, colour = at + offset, BLUE if kept > 0 else VERMILION
                axis.plot(norm0 * np.cos(angle), norm0 * np.sin(angle), "o", color=colour, ms=3)
            axis.plot(1, 0, "*", color="black", ms=6)
            axis.set_title(rf"$\delta={number(float(delta))}$")
            axis.set_xlabel(r"$\beta\cdot\hat\beta_*$")
            axis.set(xlim=(-1.6 * norm0, max(1.3, 1.3 * norm0)), ylim=(-0.1, 1.6 * norm0))
        axes[0, 0].set_ylabel(r"$|\beta_\perp|$")
        looks = [Line2D([], [], color=GREY)]
        looks += [Line2D([], [], color=colour, marker="o", linestyle="none", ms=3) for colour in (BLUE, VERMILION)]
        names = ["separatrix", "sign of $a$ kept", "sign of $a$ lost"]
        axes[0, -1].legend(looks, names, fontsize=SMALL - 0.5, loc="upper right")
        letter(axes.flat)
        footer(figure, dataset, "star: solution; line: theory, markers: gradient descent from there")
    return figure


def _of(dataset, name, value):
    return {name: value} if dataset[name].ndim else {}
