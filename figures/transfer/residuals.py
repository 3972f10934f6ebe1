"""What is left of the simulation after the theory is taken away, in standard errors."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from scipy import stats

from figures.statistics import edges, failed, mean, of_draws, standard_error, z_values
from figures.style import (
    BLUE,
    GREY,
    HATCH,
    SIGNED,
    SMALL,
    VERMILION,
    angle_ticks,
    footer,
    hatched,
    letter,
    panels,
    points,
    shared_x_label,
    style,
)
from figures.transfer.diagram import GAMMA, THETA, Diagram, diagram, spread

OUTPUTS = {
    "linear_transfer_risk": r"probe's risk $R_{\mathrm{lt}}$",
    "linear_transfer_transferability": r"linear probe $\mathcal{T}_{\mathrm{lt}}$",
    "fine_tuning_transferability": r"fine-tuning $\mathcal{T}_{\mathrm{ft}}$",
}
SHORT = r"$\gamma=n/d$"
LIMIT = 4.0
ZERO = 1e-6
BINS = np.linspace(-5, 5, 26)
FLIPS = 400


def residuals(dataset: xr.Dataset) -> Figure | None:
    """z maps, one row an output and one column a noise level, and the histogram of each row against its law."""
    d = diagram(dataset)
    sigmas = spread(d.sigma, 3)
    if not any(np.isfinite(z_of(d, name)).any() for name in OUTPUTS):
        return None
    columns = len(sigmas) + 1
    with style():
        ratios = [1] * len(sigmas) + [1.25]
        figure, axes = panels(3, columns, 4.9, "half" if columns == 2 and not d.is_map else "full", width_ratios=ratios)
        for row, name in zip(axes, OUTPUTS, strict=True):
            z = z_of(d, name)
            for axis, sigma in zip(row, sigmas, strict=False):
                here = z.sel(sigma=sigma)
                if d.is_map:
                    drawn = _map(axis, d, here, d.at(sigma))
                else:
                    _line(axis, d, here)
                axis.label_outer()
            _histogram(row[-1], d, name, z)
            row[0].set_ylabel(f"{OUTPUTS[name]}\n{SHORT if d.is_map else '$z$'}", linespacing=1.3)
        for axis, sigma in zip(axes[0], sigmas, strict=False):
            axis.set_title(rf"$\sigma={sigma:g}$")
        shared_x_label(axes[-1, :-1], THETA if d.is_map or len(d.gamma) == 1 else GAMMA)
        axes[-1, -1].set_xlabel(r"$z$ of a cell")
        if d.is_map:
            bar = figure.colorbar(
                drawn, ax=axes[:, :-1], location="bottom", extend="both", shrink=0.55, aspect=34, pad=0.015
            )
            bar.set_label(r"$z$ = (simulation $-$ theory) / standard error")
            bar.outline.set_linewidth(0.6)
            look = {"facecolor": "none", "edgecolor": "0.35", "hatch": HATCH, "linewidth": 0.4}
            words = [
                Patch(label=r"no claim: $n<10$, $|n-d|<10$, or failed", **look),
                Patch(color="0.85", label="exactly 0 in every draw"),
            ]
            axes[-1, -1].legend(
                handles=words, loc="upper right", bbox_to_anchor=(1.02, -0.3), fontsize=SMALL, handlelength=1.4
            )
        letter(axes.flat)
        note = "cells share their draws, so neighbours move together; grey band: 95 % of sign-flipped replicates"
        footer(figure, dataset, "; ".join(part for part in (note, d.note) if part))
    return figure


def z_of(d: Diagram, name: str) -> xr.DataArray:
    """z of every cell over (gamma, theta, sigma): nan outside the claims' region and where all draws are exactly 0."""
    draws, theory = d.data[name], d.data[f"{name}_theory"]
    zero = (np.abs(draws).max("replicate") < ZERO * d.limit) & (np.abs(of_draws(theory)) < ZERO * d.limit)
    z = z_values(draws, theory).where(~zero)
    inside = xr.DataArray(d.valid(), {"gamma": d.gamma}, "gamma")
    return z.where(inside).transpose("gamma", "theta", "sigma")


def _map(axis, d, z, data):
    x, y = edges(d.theta), edges(d.gamma)
    axis.set_facecolor("0.85")
    drawn = axis.pcolormesh(x, y, z.values, cmap=SIGNED, vmin=-LIMIT, vmax=LIMIT, rasterized=True)
    outside = np.broadcast_to(~d.valid()[:, None], z.shape)
    hatched(axis, x, y, outside, facecolor="white")
    hatched(axis, x, y, failed(data).transpose("gamma", "theta").values & ~outside)
    axis.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    axis.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    angle_ticks(axis)
    return drawn


def _line(axis, d, z):
    along_gamma = len(d.gamma) > 1 or len(d.theta) == 1
    x = d.gamma if along_gamma else d.theta
    values = z.isel(theta=0).values if along_gamma else z.isel(gamma=0).values
    for edge in (-2, 0, 2):
        axis.axhline(edge, color=GREY, linewidth=0.5, linestyle="-" if edge == 0 else ":")
    axis.set_ylim(-LIMIT - 1, LIMIT + 1)
    points(axis, x, values, np.full(len(x), np.nan), BLUE)
    if not along_gamma:
        angle_ticks(axis)


def _histogram(axis, d, name, z):
    """z of the cells against Student's t, with the band of what correlated cells would show by chance."""
    values = z.values[np.isfinite(z.values)]
    degrees = max(d.data.sizes["replicate"] - 1, 1)
    grid = np.linspace(BINS[0], BINS[-1], 300)
    axis.plot(grid, stats.t.pdf(grid, degrees), color=VERMILION, label=rf"$t_{{{degrees}}}$", zorder=3)
    if len(values):
        density = _density(values)
        axis.stairs(density, BINS, color=BLUE, linewidth=1.0, label="cells", zorder=2)
        low, high = _by_chance(d, name, z)
        axis.stairs(high, BINS, baseline=low, fill=True, color="0.87", zorder=0)
    axis.set_xlim(BINS[0], BINS[-1])
    axis.set_ylim(0, None)
    axis.yaxis.set_major_locator(MaxNLocator(3))
    words = [f"{len(values)} cells"]
    if len(values) > 1:
        words.append(rf"rms $z$ = {np.sqrt((values**2).mean()):.2f}")
    share = sign_agreement(d, name)
    if share is not None:
        words.append(f"sign right in {100 * share[0]:.1f} %\nof {share[1]} decided cells")
    axis.text(0.02, 0.98, "\n".join(words), transform=axis.transAxes, va="top", fontsize=SMALL, linespacing=1.25)
    axis.set_ylim(0, 1.9 * axis.get_ylim()[1])
    axis.legend(loc="upper right", fontsize=SMALL, handlelength=1.2, borderaxespad=0.1)


def _density(values):
    return np.histogram(np.clip(values, BINS[0], BINS[-1]), BINS)[0] / len(values) / np.diff(BINS)


def _by_chance(d: Diagram, name: str, z: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % band of the histogram if replicates had random signs; the correlation between cells is kept."""
    draws = (d.data[name] - d.data[f"{name}_theory"]).transpose("replicate", "gamma", "theta", "sigma").values
    draws = draws[:, np.isfinite(z.values)]
    draws = draws[:, np.isfinite(draws).all(0)]
    count = len(draws)
    if count < 2 or draws.shape[1] == 0:
        return np.zeros(len(BINS) - 1), np.zeros(len(BINS) - 1)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (FLIPS, count))
    means = signs @ draws / count
    variance = ((draws**2).mean(0) - means**2) / (count - 1)
    densities = np.array([_density(row) for row in means / np.sqrt(np.maximum(variance, 1e-300))])
    return np.quantile(densities, 0.025, axis=0), np.quantile(densities, 0.975, axis=0)


def sign_agreement(d: Diagram, name: str) -> tuple[float, int] | None:
    """Share of cells with the theory's sign among those two standard errors from zero, and their number."""
    if not name.endswith("_transferability"):
        return None
    draws, theory = d.data[name], of_draws(d.data[f"{name}_theory"])
    means, inside = mean(draws), xr.DataArray(d.valid(), {"gamma": d.gamma}, "gamma")
    decided = inside & (np.abs(means) > 2 * standard_error(draws) + ZERO) & (np.abs(theory) > ZERO)
    count = int(decided.sum())
    right = (np.sign(means) == np.sign(theory)) & decided
    return (float(right.sum()) / count, count) if count else None
