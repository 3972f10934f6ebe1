"""SGD around a minimum: spirals into the stationary law, round positions, and velocities like the Hessian."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse

from figures.statistics import bars, mean
from figures.style import (
    BLUE,
    DASHED,
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
from theory.sgd_limit import phase_space_covariance

SPIRALS = 3
EVERY = 5  # of the points of a cloud
SIGMAS = 2.0  # standard deviations of an ellipse


def phase_space(dataset: xr.Dataset) -> Figure | None:
    """Top: the way of the steepest mode at several momenta; bottom: the stationary law at the largest."""
    if dataset["beta"].ndim == 0 or dataset.sizes["mode"] < 2:
        return None
    plain = dataset.sortby("beta")
    if plain["weight_decay"].ndim:
        plain = plain.sortby("weight_decay").isel(weight_decay=0)
    with style():
        figure, axes = panels(2, SPIRALS, 4.5)
        shown = np.unique(np.linspace(0, plain.sizes["beta"] - 1, SPIRALS).round().astype(int))
        for axis, i in zip(axes[0], shown, strict=False):
            _spiral(axis, plain.isel(beta=i))
        for axis in axes[0, len(shown) :]:
            axis.remove()
        _looks(
            axes[0, 0], one_run={"color": "0.7", "linewidth": 0.6}, theory={"color": BLUE},
            mean={"color": VERMILION, "marker": "o", "linestyle": "none"},
        )  # fmt: skip
        last = plain.isel(beta=-1)
        _cloud(axes[1, 0], last, 0, "position")
        _cloud(axes[1, 1], last, 1, "step")
        _variances(axes[1, 2], dataset.sortby("beta").isel(beta=-1))
        letter([axis for axis in axes.flat if axis.figure is not None])
        footer(
            figure,
            dataset,
            rf"below: $\beta={number(float(last['beta']))}$, ellipses of ${SIGMAS:g}\sigma$; "
            "in units of the Langevin equation at unit curvature",
        )
    return figure


def _spiral(axis, cell):
    """Position and step of the steepest mode: one run, the mean of many, and its theory."""
    run = cell["run"].isel(replicate=0, mode=0).transpose("component", "step").values
    exact = cell["run_theory"].isel(mode=0).transpose("component", "step").values
    axis.plot(*run, color="0.7", linewidth=0.6, zorder=1)
    axis.plot(*exact, color=BLUE, zorder=2)
    centre = mean(cell["mean"].isel(mode=0)).transpose("component", "at").values
    half = bars(cell["mean"].isel(mode=0)).transpose("component", "at").values
    axis.errorbar(*centre, xerr=half[0], yerr=half[1], fmt="o", color=VERMILION, zorder=3)
    axis.axhline(0, color="0.8", linewidth=0.5, zorder=0)
    axis.axvline(0, color="0.8", linewidth=0.5, zorder=0)
    words = rf"$\beta={number(float(cell['beta']))}$"
    axis.text(0.03, 0.97, words, fontsize=SMALL + 1, va="top", transform=axis.transAxes)
    axis.set_xlabel(r"position $x_k$")
    axis.set_ylabel(r"step $w_k$")


def _looks(axis, **looks):
    """A legend above the panel: words to a colour with a line style or a marker."""
    handles = [Line2D([], [], **look) for look in looks.values()]
    legend_above(axis, handles, [name.replace("_", " ") for name in looks], fontsize=SMALL)


def _cloud(axis, cell, component, name):
    """Stationary runs in the plane of the steepest and the flattest mode, with the ellipse of the theory."""
    steep, flat = 0, cell.sizes["mode"] - 1
    run = (
        cell["cloud"]
        .isel(component=component, moment=slice(None, None, EVERY))
        .transpose("mode", "replicate", "moment")
    )
    axis.plot(run.values[steep].ravel(), run.values[flat].ravel(), ".", ms=1.2, color=VERMILION, alpha=0.5, zorder=1)
    exact = cell["position_theory" if component == 0 else "velocity_theory"]
    variances = [float(exact.isel(mode=k, other=k)) for k in (steep, flat)]
    axes = [2 * SIGMAS * v**0.5 for v in variances]
    axis.add_patch(Ellipse((0, 0), *axes, fill=False, edgecolor=BLUE, linewidth=1.2, zorder=3))
    reach = 1.75 * SIGMAS * max(variances) ** 0.5
    axis.set(xlim=(-reach, reach), ylim=(-reach, reach))
    axis.set_aspect("equal")
    looks = {"runs": {"color": VERMILION, "marker": ".", "linestyle": "none"}, "theory": {"color": BLUE}}
    if component == 0:
        h = [(k + 1.0) ** -float(cell["alpha"]) + float(cell["weight_decay"]) for k in (steep, flat)]
        # Of the area of the ellipse of the theory.
        level = (axes[0] * axes[1]) ** 0.5 * (h[0] * h[1]) ** 0.25
        for factor in (1.0, 1.7):
            sides = [factor * level / k**0.5 for k in h]
            axis.add_patch(
                Ellipse((0, 0), *sides, fill=False, edgecolor=GREY, linestyle=DASHED, linewidth=0.8, zorder=2)
            )
        looks["loss"] = {"color": GREY, "linestyle": DASHED, "linewidth": 0.8}
    _looks(axis, **looks)
    axis.set_xlabel(f"{name}, steepest mode")
    axis.set_ylabel(f"{name}, flattest mode")


def _variances(axis, cells):
    """Variances of position and step against the curvature, at every decay."""
    decays = np.atleast_1d(cells["weight_decay"].values)
    eta, beta, alpha = (float(cells[name]) for name in ("eta", "beta", "alpha"))
    batch = int(json.loads(cells.attrs["settings"])["batch"])
    rho = cells["mode"].values.astype(float) ** -alpha
    dense = np.geomspace(rho.min() / 1.3, rho.max() * 1.3, 100)
    unit = phase_space_covariance(1.0, eta, beta, batch, time="ou")
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set(xlim=dense[[0, -1]])
    series = []
    for name, colour in (("position", BLUE), ("velocity", VERMILION)):
        for decay, filled in zip(decays, (True, False), strict=False):
            here = cells if cells["weight_decay"].ndim == 0 else cells.sel(weight_decay=decay)
            law = phase_space_covariance(dense, eta, beta, batch, decay)
            exact = law.position / unit.position if name == "position" else law.motion / (eta**2 * unit.motion)
            axis.plot(dense, exact, color=colour, linestyle="-" if filled else DASHED, linewidth=0.9)
            draws = [here[name].isel(mode=k, other=k) for k in range(len(rho))]
            centre, half = ([float(f(d)) for d in draws] for f in (mean, bars))
            series.append((centre, half, colour, filled, name, decay))
    axis.set_ylim(0.5 * min(min(s[0]) for s in series), 3.5 * max(max(s[0]) for s in series))
    for centre, half, colour, filled, name, decay in series:
        words = rf"{'position' if name == 'position' else 'step'}, $\lambda={number(float(decay))}$"
        points(axis, rho, centre, half, colour, words, mfc=colour if filled else "white")
    axis.legend(loc="upper left", fontsize=SMALL, ncols=2, handletextpad=0.3, columnspacing=0.8, borderaxespad=0.1)
    for scale, ticks in ((axis.xaxis, rho), (axis.yaxis, np.array([0.1, 0.2, 0.5, 1.0, 2.0, 5.0]))):
        low, high = scale.get_view_interval()
        ticks = ticks[(ticks >= low) & (ticks <= high)]
        scale.set_ticks(ticks, [number(tick) for tick in ticks])
        scale.set_ticks([], minor=True)
    axis.set_xlabel(r"curvature $\rho$")
    axis.set_ylabel("variance")
