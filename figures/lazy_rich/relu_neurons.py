"""ReLU neurons in the plane: which turn, which grow, from upstream, balanced and downstream starts."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.statistics import first_of_the_rest
from figures.style import BLUE, DASHED, GREY, SMALL, VERMILION, footer, letter, number, panels, style

DRAW = 0  # the replicate that is drawn


def relu_neurons(dataset: xr.Dataset) -> Figure | None:
    """Trajectories of |a| w of one network a panel, over the longest; the inputs lie on the circle of radius one."""
    shown = ("tau", "delta")
    dataset = first_of_the_rest(dataset, *shown)[0].isel(replicate=DRAW)
    if dataset.sizes["component"] != 2:
        return None
    dataset = dataset.expand_dims([name for name in shown if name not in dataset["status"].dims])
    rows, columns = dataset["tau"].values, dataset["delta"].values
    with style():
        figure, axes = panels(len(rows), len(columns), 2.15 * len(rows) + 0.3, sharex=True, sharey=True)
        for line, tau in zip(axes, rows, strict=True):
            for axis, delta in zip(line, columns, strict=True):
                _network(axis, dataset.sel(tau=tau, delta=delta))
                axis.set_title(rf"$\tau={number(float(tau))}$, $\delta={number(float(delta))}$", fontsize=SMALL + 0.5)
        for axis in axes[-1]:
            axis.set_xlabel(r"$|a|\,w_1$ over the largest")
        for axis in axes[:, 0]:
            axis.set_ylabel(r"$|a|\,w_2$ over the largest")
        looks = [Line2D([], [], color=colour) for colour in (BLUE, VERMILION)]
        looks += [Line2D([], [], color=GREY, marker="o", linestyle="none", ms=1.6), Line2D([], [], color="black")]
        names = ["$a>0$ at the start", "$a<0$", "inputs", "teacher (dashed: $a<0$)"]
        figure.legend(looks, names, ncols=4, loc="outside upper center", fontsize=SMALL, handlelength=1.4)
        letter(axes.flat)
        footer(figure, dataset.expand_dims("replicate"), "one network a panel; dots: where the neurons end")
    return figure


def _network(axis, cell: xr.Dataset) -> None:
    paths = cell["neuron"].transpose("time", "student_neuron", "component").values
    reach = np.nanmax(np.linalg.norm(paths, axis=-1)) or 1.0
    circle = cell["inputs"].transpose("sample", "component").values
    axis.plot(*circle.T, "o", color=GREY, ms=1.6, zorder=1)
    for (x, y), sign in zip(
        cell["teacher"].transpose("teacher_neuron", "component").values, cell["teacher_sign"].values, strict=True
    ):
        look = "-" if sign > 0 else DASHED
        axis.plot([0, 1.15 * x], [0, 1.15 * y], color="black", linestyle=look, linewidth=0.7, zorder=1)
    for k, sign in enumerate(cell["sign"].values):
        x, y = paths[:, k].T / reach
        colour = BLUE if sign > 0 else VERMILION
        axis.plot(x, y, color=colour, linewidth=0.6, alpha=0.7)
        axis.plot(x[-1], y[-1], "o", color=colour, ms=1.8)
    axis.set(xlim=(-1.25, 1.25), ylim=(-1.25, 1.25), aspect="equal")
