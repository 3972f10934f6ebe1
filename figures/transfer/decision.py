"""Probe, fine-tune or train from scratch: the choice of least risk, simulated and predicted."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from figures.statistics import edges, failed, mean, standard_error
from figures.style import (
    BLUE,
    DASHED,
    GREEN,
    HATCH,
    ORANGE,
    angle_ticks,
    footer,
    hatched,
    letter,
    panels,
    shared_x_label,
    style,
)
from figures.transfer.diagram import GAMMA, THETA, Diagram, diagram, recommend, spread
from theory.transfer import CHOICES, tuned_linear_transfer_boundary

COLOURS = (ORANGE, BLUE, GREEN)
PALE = ListedColormap([tuple(0.25 + 0.75 * np.array(to_rgb(c))) for c in COLOURS])
ZERO = 1e-6


def decision(dataset: xr.Dataset) -> Figure | None:
    """Choice of least mean risk over (theta, gamma), simulated cells above the prediction, one column a noise level."""
    d = diagram(dataset)
    if not d.is_map:
        return None
    sigmas = spread(d.sigma, 4)
    columns = len(sigmas)
    with style():
        figure, axes = panels(3, len(sigmas), 5.6, "full" if len(sigmas) > 1 else "half", sharex=True, sharey=True)
        for (top, middle, bottom), sigma in zip(axes.T, sigmas, strict=True):
            agreement = _simulated(top, d, sigma)
            _predicted(middle, d, sigma, tuned=False)
            _predicted(bottom, d, sigma, tuned=True)
            _tuned_boundary(bottom, d, sigma)
            top.set_title(rf"$\sigma={sigma:g}$: {agreement}" if len(sigmas) < 4 else rf"$\sigma={sigma:g}$")
        for axis, words in zip(axes[:, 0], ("simulation", "theory", "theory, best ridge"), strict=True):
            axis.set_ylabel(f"{words}\n{GAMMA}", linespacing=1.3)
        axes[0, 0].yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        angle_ticks(axes[-1, 0])
        shared_x_label(axes[-1], THETA)
        handles = [Patch(color=PALE(k), label=words) for k, words in enumerate(CHOICES)]
        handles.append(Patch(facecolor=0.45 * np.array(PALE(2)[:3]) + 0.55, label="paler: a tie within 2 s.e."))
        if failed(d.data).any():
            handles.append(Patch(facecolor="none", edgecolor="0.35", hatch=HATCH, linewidth=0.4, label="failed"))
        handles.append(
            Line2D([], [], color="black", linestyle=DASHED, linewidth=0.9, label=r"$\gamma^*$: probe = tuned scratch")
        )
        figure.legend(
            handles=handles,
            loc="outside upper center",
            ncols=5 if columns > 2 and len(handles) == 5 else 3 if columns > 1 else 2,
        )
        letter(axes.flat)
        footer(figure, dataset, d.note)
    return figure


def simulated_choice(d: Diagram, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Index in CHOICES of the least mean risk, and whether the runner-up is within two standard errors.

    Of equal risks the first is chosen, as in `recommend`. Shapes (gamma, theta); -1 where nothing was simulated.
    """
    data = d.at(sigma).transpose("replicate", "gamma", "theta", missing_dims="ignore")
    scratch = data["scratch_risk"]
    gain = xr.concat(
        [xr.zeros_like(scratch), data["linear_transfer_transferability"], data["fine_tuning_transferability"]],
        dim="choice", coords="minimal", compat="override", join="override",
    )  # fmt: skip
    means = mean(gain).transpose("choice", "gamma", "theta").values
    floor = ZERO * d.limit
    means = np.where(np.abs(means) < floor, 0.0, means)
    known = np.isfinite(means).all(0)
    best = np.argmax(np.where(np.isfinite(means), means, -np.inf), axis=0)
    ahead = gain.isel(choice=xr.DataArray(best, dims=("gamma", "theta"))) - gain
    margins = mean(ahead).transpose("choice", "gamma", "theta").values
    errors = standard_error(ahead).transpose("choice", "gamma", "theta").values
    # The paired difference; a choice that is the same to rounding is no rival.
    rival = (np.arange(3)[:, None, None] != best) & (margins > floor)
    close = (rival & ~(margins > 2 * errors)).any(0) & known
    return np.where(known, best, -1), close


def predicted_choice(d: Diagram, gamma, theta, sigma: float, tuned: bool = False) -> np.ndarray:
    """Index in CHOICES of the least predicted risk at whole numbers of samples."""
    n = np.maximum(np.round(np.asarray(gamma) * d.d), 1)
    norms = d.source_norm, d.target_norm
    return np.asarray(recommend(n, d.d, sigma, theta, *norms, depth=d.depth, tuned=tuned).choice)


def _simulated(axis, d, sigma):
    x, y = edges(d.theta), edges(d.gamma)
    choice, close = simulated_choice(d, sigma)
    _colour(axis, x, y, np.ma.masked_less(choice, 0))
    lost = failed(d.at(sigma)).transpose("gamma", "theta").values
    hatched(axis, x, y, close & ~lost, facecolor=(1, 1, 1, 0.55), hatch=None)
    hatched(axis, x, y, lost)
    predicted = predicted_choice(d, d.gamma[:, None], d.theta[None, :], sigma)
    counted = (choice >= 0) & ~close
    if not counted.any():
        return "no cell decided"
    return f"{(choice == predicted)[counted].sum()} of {counted.sum()} agree"


def _predicted(axis, d, sigma, tuned):
    x, y = edges(d.theta), edges(d.gamma)
    n = np.unique(np.linspace(max(y[0] * d.d, 1), y[-1] * d.d, 120).round())
    theta = np.linspace(x[0], min(x[-1], np.pi), 140)
    choice = predicted_choice(d, n[:, None] / d.d, theta[None, :], sigma, tuned)
    _colour(axis, edges(theta), edges(n / d.d), choice)
    axis.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))


def _colour(axis, x, y, choice):
    axis.pcolormesh(x, y, choice, cmap=PALE, vmin=-0.5, vmax=2.5, rasterized=True)
    axis.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))


def _tuned_boundary(axis, d, sigma):
    low, high = axis.get_xlim()
    theta = np.linspace(max(low, 1e-3), min(high, np.pi - 1e-3), 400)
    boundary = np.asarray(tuned_linear_transfer_boundary(theta, sigma / d.target_norm))
    axis.plot(theta, boundary, color="black", linewidth=0.9, linestyle=DASHED)
    axis.set_xlim(low, high)
