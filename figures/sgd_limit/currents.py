"""SGD in two dimensions: on the contours of its loss, and on those of the potential it samples, with its current."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.statistics import bars, mean
from figures.style import BLUE, DASHED, GREY, SMALL, VERMILION, footer, letter, number, panels, points, style
from theory.sgd_limit import stationary_decomposition

# The example of the paper, as simulated.
DRIFT = np.array([[2.5, -1.5], [-1.5, 2.5]])
NOISE = np.diag([4.0, 1.0])
REACH = 4.2  # of the planes, in units of sqrt(eta / 2)
ENTRIES = ("$C_{xx}$", "$C_{xy}$", "$C_{yy}$", "circulation")


def currents(dataset: xr.Dataset) -> Figure | None:
    """A run on the loss and on the modified loss at the smallest rate; covariance and circulation at every rate."""
    if "path" not in dataset:
        return None
    dataset = dataset.expand_dims("eta") if dataset["eta"].ndim == 0 else dataset.sortby("eta")
    first = dataset.isel(eta=0)
    eta = float(first["eta"])
    B, U, Q = (np.asarray(M) for M in stationary_decomposition(DRIFT, NOISE))
    with style():
        figure, axes = panels(1, 3, 2.65)
        _plane(axes[0, 0], first, DRIFT / np.trace(DRIFT @ B) * 2)
        axes[0, 0].set_title("loss", fontsize=SMALL + 1)
        _plane(axes[0, 1], first, U)
        _streams(axes[0, 1], -Q @ U)
        axes[0, 1].set_title("modified loss and current", fontsize=SMALL + 1)
        axes[0, 1].set_ylabel("")
        _entries(axes[0, 2], dataset)
        letter(axes.flat)
        footer(figure, dataset, rf"(a, b) $\eta={number(eta)}$, one run; (c) markers: simulation with 95 % bars")
    return figure


def _grid(count):
    side = np.linspace(-REACH, REACH, count)
    return side, np.stack(np.meshgrid(side, side), -1)


def _plane(axis, cell, form):
    side, z = _grid(121)
    energy = np.einsum("xyi,ij,xyj->xy", z, form, z) / 2
    axis.contour(side, side, energy, np.array([0.5, 2.0, 4.5]), colors="black", linewidths=0.8, zorder=2)
    run = cell["path"].isel(replicate=0).transpose("coordinate", "moment").values
    axis.plot(*run, color=VERMILION, linewidth=0.45, alpha=0.8, zorder=1)
    axis.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH))
    axis.set_aspect("equal")
    axis.set_xlabel(r"$\theta_1$ over $\sqrt{\eta/2}$")
    axis.set_ylabel(r"$\theta_2$ over $\sqrt{\eta/2}$")


def _streams(axis, flow):
    side, z = _grid(41)
    v = np.einsum("ij,xyj->xyi", flow, z)
    axis.streamplot(side, side, v[..., 0], v[..., 1], color=BLUE, linewidth=0.6, density=0.5, arrowsize=0.6, zorder=3)


def _entries(axis, dataset):
    places = np.arange(len(ENTRIES))
    eta = dataset["eta"].values
    values = xr.concat([dataset["covariance"], dataset["circulation"].expand_dims(entry=[3])], "entry")
    exact = xr.concat([dataset["covariance_theory"], dataset["circulation_theory"].expand_dims(entry=[3])], "entry")
    B, _, Q = (np.asarray(M) for M in stationary_decomposition(DRIFT, NOISE))
    shifts = np.linspace(-0.2, 0.2, len(eta)) if len(eta) > 1 else [0.0]
    axis.axhline(0, color="0.8", linewidth=0.5)
    for colour, (rate, shift) in enumerate(zip(eta, shifts, strict=True)):
        here = values.sel(eta=rate)
        for place, level in zip(places, exact.sel(eta=rate).values, strict=True):
            axis.plot(place + shift + np.array([-0.13, 0.13]), [level, level], color=f"C{colour}")
        points(
            axis, places + shift, mean(here).transpose("entry").values, bars(here).transpose("entry").values,
            f"C{colour}", rf"$\eta={number(float(rate))}$",
        )  # fmt: skip
    for place, level in zip(places, (B[0, 0], B[0, 1], B[1, 1], Q[0, 1]), strict=True):
        axis.plot(
            place + np.array([-0.38, 0.38]), [level, level], color=GREY, linestyle=DASHED, linewidth=0.8, zorder=0
        )
    handles, words = axis.get_legend_handles_labels()
    handles = [h[0] if hasattr(h, "has_yerr") else h for h in handles]
    handles += [Line2D([], [], color=GREY), Line2D([], [], color=GREY, linestyle=DASHED, linewidth=0.8)]
    axis.legend(handles, [*words, "theory", r"$\eta\to0$"], fontsize=SMALL, handlelength=1.3, loc="upper right")
    axis.set_xticks(places, ENTRIES)
    axis.set_ylabel(r"in units of $\eta/2$ and $\eta^2$")
