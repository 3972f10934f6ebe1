"""The regimes of a charge over momentum and weight decay: map, boundaries, and one trajectory of each."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.statistics import edges, first_of_the_rest, mean
from figures.style import BLUE, DASHED, GREEN, ORANGE, SMALL, VERMILION, footer, letter, number, panels, style
from theory.noether import damping_boundaries, damping_code, damping_regime, linear_charge, ode_damping_boundary

COLOURS = (BLUE, GREEN, ORANGE, VERMILION)
SHOWN, SPACE = 30, 3.0  # steps of a trajectory, and the distance between two
ZOOM = 0.8  # least eta lambda of the second map


def regimes(dataset: xr.Dataset) -> Figure | None:
    """Colours: regimes of the measured recursion; lines: where the exact law and the continuous-time one change."""
    if dataset["momentum"].ndim == 0 or dataset["eta_lambda"].ndim == 0:
        return None
    dataset = first_of_the_rest(dataset, "momentum", "eta_lambda")[0].sortby(["momentum", "eta_lambda"])
    beta, e = dataset["momentum"].values, dataset["eta_lambda"].values
    with style():
        figure, axes = panels(1, 3, 2.5, gridspec_kw={"width_ratios": [1.1, 0.9, 1]})
        _map(axes[0, 0], dataset, beta, e)
        _map(axes[0, 1], dataset, beta, e)
        axes[0, 0].set_yscale("log")
        axes[0, 0].set_ylim(edges(e, logarithmic=True)[[0, -1]])
        axes[0, 1].set_ylim(ZOOM, max(e))
        axes[0, 1].set_ylabel("")
        looks = [Line2D([], [], color="black"), Line2D([], [], color="black", linestyle=DASHED)]
        axes[0, 0].legend(looks, ["exact boundaries", "continuous time"], loc="lower left", fontsize=SMALL)
        _trajectories(axes[0, 2], dataset, beta, e)
        letter(axes.flat)
        footer(figure, dataset, "colours and markers: softmax regression under heavy ball; lines: theory")
    return figure


def _map(axis, dataset, beta, e):
    codes = mean(dataset["regime"]).transpose("eta_lambda", "momentum").values
    x, y = edges(beta), edges(e, logarithmic=True)
    norm = BoundaryNorm(np.arange(5) - 0.5, 4)
    axis.pcolormesh(x, y, codes, cmap=ListedColormap(COLOURS), norm=norm, alpha=0.55, rasterized=True)
    dense = np.linspace(0, min(x[-1], 0.999), 400)
    for boundary in damping_boundaries(dense):
        axis.plot(dense, boundary, color="black")
    axis.plot(dense, ode_damping_boundary(dense), color="black", linestyle=DASHED)
    axis.set(xlim=(x[0], x[-1]))
    axis.set_xlabel(r"momentum $\beta$")
    axis.set_ylabel(r"$\eta\lambda$")


def _trajectories(axis, dataset, beta, e):
    """One of every regime, one above the other."""
    steps = dataset["step"].values
    steps = steps[steps <= SHOWN]
    for code, colour in enumerate(COLOURS):
        cells = np.argwhere(np.asarray(damping_code(beta[:, None], e[None, :])) == code)
        if not len(cells):
            continue
        i, k = cells[len(cells) // 2]
        cell = dataset["charge"].isel(replicate=0, unit=0, momentum=i, eta_lambda=k)
        exact = np.asarray(linear_charge(1.0, int(steps[-1]), 1.0, float(e[k]), float(beta[i])))
        top, level = np.abs(exact).max(), -SPACE * code
        measured = (cell / cell.isel(step=0)).values[: len(steps)]
        axis.axhline(level, color="0.8", linewidth=0.6)
        axis.plot(steps, exact / top + level, color=colour)
        axis.plot(steps, measured / top + level, "o", ms=1.8, color=colour)
        words = (
            rf"{damping_regime(beta[i], e[k])}, $\beta={number(float(beta[i]))}$, $\eta\lambda={number(float(e[k]))}$"
        )
        axis.text(SHOWN, level + 1.05, words, fontsize=SMALL, color=colour, ha="right", va="bottom")
    axis.set_ylim(-SPACE * 3 - 1.3, 2.0)
    axis.set_yticks([])
    axis.set_xlabel("step")
    axis.set_ylabel("logit shift over its largest")
