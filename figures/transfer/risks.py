"""The risks themselves: double descent from scratch, the probe's floor, and what its ridge does."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.statistics import bars, mean
from figures.style import (
    BLUE,
    DASHED,
    DOTTED,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    SMALL,
    VERMILION,
    angle,
    footer,
    legend_above,
    letter,
    panels,
    points,
    style,
)
from figures.transfer.diagram import GAMMA, Diagram, diagram, spread, telling_noise
from theory.transfer import linear_transfer_risk, scratch_risk, tuned_scratch_risk

NOISE_COLOURS = (PURPLE, SKY, ORANGE)
ANGLE_COLOURS = (BLUE, GREEN, VERMILION)
RIDGES = np.linspace(0, 0.6, 121)


def double_descent(dataset: xr.Dataset) -> Figure:
    """Risk from scratch and of the probe against the amount of data, and of the probe against its ridge."""
    d = diagram(dataset)
    with style():
        figure, axes = panels(1, 3, 2.35)
        scratch, probe, ridge = axes[0]
        _scratch(scratch, d)
        sigma = telling_noise(d.sigma, d.target_norm)
        _probe(probe, d, sigma)
        _ridge(ridge, d)
        letter(axes.flat)
        footer(figure, dataset, "; ".join(part for part in (rf"(b): $\sigma$ = {sigma:g}", d.note) if part))
    return figure


def scratch_draws(d: Diagram, sigma: float) -> xr.DataArray:
    """Risk from scratch over (gamma, replicate): the mean over angles, which it does not depend on."""
    return d.at(sigma)["scratch_risk"].mean("theta", skipna=True)


def _scratch(axis, d):
    b2 = d.target_norm**2
    axis.set_yscale("log")
    axis.set_ylim(0.02 * b2, 40 * b2)
    n = d.samples()
    gamma = n / d.d
    dense = np.unique(np.concatenate([gamma, 1 + np.linspace(-0.1, 0.1, 81)]))
    for color, sigma in zip(NOISE_COLOURS, spread(d.sigma, 3), strict=False):
        exact = d.scratch_exact(n, sigma)
        axis.plot(gamma, np.where((exact > 0) & np.isfinite(exact), exact, np.nan), color=color)
        limit = np.asarray(scratch_risk(dense, sigma, d.target_norm))
        axis.plot(dense, np.where(limit > 0, limit, np.nan), color="black", linewidth=0.7, linestyle=DOTTED, zorder=2.5)
        if sigma > 0:
            tuned = np.asarray(tuned_scratch_risk(dense, sigma, d.target_norm))
            axis.plot(dense, tuned, color=color, linewidth=0.9, linestyle=DASHED)
        draws = scratch_draws(d, sigma)
        seen = (mean(draws) > 1e-3 * axis.get_ylim()[0]).values
        points(axis, d.gamma[seen], mean(draws)[seen], bars(draws)[seen], color, rf"$\sigma=$ {sigma:g}")
    axis.set_xlim(0, gamma[-1] * 1.02)
    axis.set_xlabel(GAMMA)
    axis.set_ylabel(r"risk from scratch $R_{\mathrm{sc}}$")
    legend_above(axis)
    noise = max(spread(d.sigma, 3))
    if noise > 0:
        at = 0.98 * axis.get_xlim()[1]
        height = float(tuned_scratch_risk(at, noise, d.target_norm))
        axis.annotate(
            "best ridge", (at, height), (0, -3), textcoords="offset points", ha="right", va="top", fontsize=SMALL
        )


def _probe(axis, d, sigma):
    b2 = d.target_norm**2
    n = d.samples()
    data = d.at(sigma)["linear_transfer_risk"]
    theory = [d.probe_risk_exact(n, theta, sigma) for theta in d.thetas()]
    highest = max([1.1 * b2, *(1.1 * float(np.nanmax(np.where(np.isfinite(t), t, np.nan))) for t in theory)])
    axis.set_ylim(0, min(highest, 2 * b2))
    for k, (color, theta) in enumerate(zip(ANGLE_COLOURS, d.thetas(), strict=False)):
        axis.axhline(
            float(linear_transfer_risk(theta, target_norm=d.target_norm)), color=color, linewidth=0.7, linestyle=DOTTED
        )
        axis.plot(n / d.d, np.where(np.isfinite(theory[k]), theory[k], np.nan), color=color)
        draws = data.sel(theta=theta)
        label = angle(theta) if k else rf"$\theta=$ {angle(theta)}"
        points(axis, d.gamma, mean(draws), bars(draws), color, label)
    axis.set_xlim(0, n[-1] / d.d * 1.02)
    axis.set_xlabel(GAMMA)
    axis.set_ylabel(r"risk of the linear probe $R_{\mathrm{lt}}$")
    legend_above(axis)
    axis.add_artist(axis.get_legend())
    floor = Line2D([], [], color=GREY, linestyle=DOTTED, linewidth=0.9)
    axis.legend([floor], [r"floor $|\beta_t|^2\sin^2\theta$"], loc="upper right", handlelength=1.6, fontsize=SMALL)


def _ridge(axis, d):
    gamma = d.gamma[np.argmin(np.abs(d.gamma - 0.5))]
    theta = d.theta[np.argmin(np.abs(d.theta - np.pi / 8))]
    n, drawn = np.round(gamma * d.d), []
    for color, sigma in zip(NOISE_COLOURS, spread(d.sigma, 3), strict=False):
        drawn.append(d.probe_risk_exact(n, theta, sigma, RIDGES))
        axis.plot(RIDGES, np.where(np.isfinite(drawn[-1]), drawn[-1], np.nan), color=color)
    limit = np.asarray(linear_transfer_risk(theta, RIDGES, 1.0, d.target_norm))
    axis.plot(RIDGES, limit, color="black", linewidth=0.7, linestyle=DOTTED)
    cells = [d.at(sigma)["linear_transfer_risk"].sel(gamma=gamma, theta=theta) for sigma in spread(d.sigma, 3)]
    reached = np.concatenate([limit, *drawn, [float(mean(draws)) for draws in cells]])
    reached = reached[np.isfinite(reached) & (reached < 4 * limit.max())]
    margin = 0.1 * np.ptp(reached)
    axis.set_ylim(max(reached.min() - 3 * margin, 0), reached.max() + margin)
    sizes = (4.6, 3.6, 2.6)
    for color, sigma, draws, size in zip(NOISE_COLOURS, spread(d.sigma, 3), cells, sizes, strict=False):
        points(axis, [d.ridge], [mean(draws)], [bars(draws)], color, rf"$\sigma=$ {sigma:g}", markersize=size)
    axis.set_xlim(-0.015 * max(RIDGES[-1], d.ridge), max(RIDGES[-1], 1.05 * d.ridge))
    axis.set_xlabel(r"ridge $\lambda\,/\,s^2$ of the probe")
    axis.set_ylabel(rf"$R_{{\mathrm{{lt}}}}$ at $\gamma={gamma:g}$, $\theta=$ {angle(theta)}")
    legend_above(axis)
    axis.add_artist(axis.get_legend())
    lines = [Line2D([], [], color=GREY), Line2D([], [], color="black", linestyle=DOTTED, linewidth=0.9)]
    words = [f"exact at $d={d.d}$", r"$n,d\to\infty$"]
    axis.legend(lines, words, loc="lower right", handlelength=1.6, fontsize=SMALL, borderaxespad=0.1)
