"""Distances between the data laws do not decide whether transfer helps; the angle does."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from scipy import stats
from scipy.optimize import brentq

from figures.statistics import bars, mean
from figures.style import (
    BLUE,
    GREY,
    SMALL,
    VERMILION,
    angle,
    footer,
    letter,
    points,
    style,
    theory_and_simulation,
    width,
)
from figures.transfer.diagram import GAMMA, Diagram, diagram, telling_noise
from theory.transfer import kl_divergence, mmd, wasserstein2

PAIRS = 500
NORMS = (0.4, 2.0)
GAMMA_OF_PAIRS = 0.5


def distances(dataset: xr.Dataset) -> Figure:
    """Probe transferability of random pairs against KL, W2, MMD and sin^2 theta; and along gamma for a single pair."""
    d = diagram(dataset)
    sigma = telling_noise(d.sigma, d.target_norm) or 0.2
    with style():
        figure, axes = plt.subplot_mosaic(
            [["kl", "w2", "mmd"], ["sine", "gamma", "gamma"]], figsize=(width(), 3.9), height_ratios=[1, 1.05]
        )
        source, theta = random_pairs()
        saved = d.probe_asymptotic(GAMMA_OF_PAIRS, theta, sigma)
        measures = measures_of(d, sigma)
        for key, (label, measure) in measures.items():
            _scatter(axes[key], measure(theta, source * d.target_norm), saved)
            axes[key].set_xlabel(label)
            _opposite_pair(axes[key], d, sigma, measure)
        _scatter(axes["sine"], np.sin(theta) ** 2, saved)
        axes["sine"].set_xlabel(r"$\sin^2\theta$")
        for key in ("w2", "mmd"):
            axes[key].sharey(axes["kl"])
            axes[key].tick_params(labelleft=False)
        for key in ("kl", "sine"):
            axes[key].set_ylabel(r"transferability $\mathcal{T}_{\mathrm{lt}}$")
        axes["gamma"].sharey(axes["sine"])
        axes["gamma"].tick_params(labelleft=False)
        _along_gamma(axes["gamma"], d, sigma, measures)
        letter(axes.values())
        pairs = (
            rf"(a–d): {PAIRS} random pairs, theory, $\gamma$ = {GAMMA_OF_PAIRS:g}, $\sigma$ = {sigma:g}; joined: one"
        )
        pairs += " distance, opposite signs"
        footer(figure, dataset, "; ".join(part for part in (pairs, d.note) if part))
    return figure


def random_pairs() -> tuple[np.ndarray, np.ndarray]:
    """Source norms (in units of the target's) and angles."""
    random = np.random.default_rng(0)
    return random.uniform(*NORMS, PAIRS), random.uniform(0, np.pi, PAIRS)


def measures_of(d: Diagram, sigma: float) -> dict:
    """Distances between the laws of source and target: key -> (label, function of theta and source norm)."""
    b, bandwidth = d.target_norm, np.sqrt(d.d)
    return {
        "kl": ("KL divergence (nats)", lambda theta, B: np.asarray(kl_divergence(theta, sigma, B, b))),
        "w2": (r"Wasserstein distance $W_2$", lambda theta, B: np.asarray(wasserstein2(theta, sigma, B, b))),
        "mmd": (
            r"MMD, Gaussian kernel of width $\sqrt{d}$",
            lambda theta, B: np.asarray(mmd(theta, sigma, bandwidth, d.d, B, b)),
        ),
    }


def _scatter(axis, x, saved):
    axis.axhline(0, color=GREY, linewidth=0.5)
    for sign, color in ((1, BLUE), (-1, VERMILION)):
        here = np.sign(saved) == sign
        axis.scatter(x[here], saved[here], s=3.5, color=color, linewidths=0, alpha=0.75)
    rank = stats.spearmanr(x, saved).statistic
    axis.set_ylim(saved.min() - 0.06 * np.ptp(saved), saved.max() + 0.28 * np.ptp(saved))
    axis.text(
        0.98, 0.97, f"rank correlation {rank:.2f}".replace("-", "−"), transform=axis.transAxes, ha="right", va="top",
        fontsize=SMALL,
    )  # fmt: skip


def opposite_pair(d: Diagram, measure, theta: float = 1.2) -> tuple[float, float] | None:
    """(distance, source norm) of the aligned pair as far apart as the pair of equal norms at `theta`."""
    b = d.target_norm
    wanted = float(measure(theta, b))

    def miss(norm):
        return float(measure(0.0, norm)) - wanted

    if miss(NORMS[1] * 2 * b) < 0:
        return None
    return wanted, float(brentq(miss, b, NORMS[1] * 2 * b, xtol=1e-6))


def _opposite_pair(axis, d, sigma, measure, theta=1.2):
    """Two pairs at one distance of which one helps and the other hurts, joined by a line."""
    found = opposite_pair(d, measure, theta)
    if found is None:
        return
    saved = d.probe_asymptotic(GAMMA_OF_PAIRS, np.array([theta, 0.0]), sigma)
    axis.plot(
        [found[0]] * 2, saved, "o-", color="black", markerfacecolor="white", markersize=4, linewidth=0.9, zorder=4
    )


def _along_gamma(axis, d, sigma, measures):
    theta = float(d.theta[np.argmin(np.abs(d.theta - np.pi / 4))])
    n = d.samples()
    exact = d.probe_exact(n, theta, sigma)
    gamma = n / d.d
    axis.axhline(0, color=GREY, linewidth=0.5)
    for sign, color in ((1, BLUE), (-1, VERMILION)):
        shown = np.where(np.isfinite(exact), exact, axis.get_ylim()[1])
        axis.fill_between(
            gamma, 0, shown, where=sign * shown >= 0, color=color, alpha=0.18, linewidth=0, interpolate=True
        )
    axis.plot(gamma, np.where(np.isfinite(exact), exact, np.nan), color="black")
    simulated = np.flatnonzero(np.isclose(d.sigma, sigma))
    if len(simulated):
        draws = d.at(float(d.sigma[simulated[0]]))["linear_transfer_transferability"].sel(theta=theta)
        points(axis, d.gamma, mean(draws), bars(draws), "black")
    axis.set_xlim(0, gamma[-1] * 1.02)
    axis.set_xlabel(GAMMA)
    values = [float(measure(theta, d.source_norm)) for _, measure in measures.values()]
    names = ("KL", "$W_2$", "MMD")
    words = ", ".join(f"{name} = {value:.2g}" for name, value in zip(names, values, strict=True))
    words = f"$\\theta$ = {angle(theta)}: {words} at every $\\gamma$"
    axis.annotate(words, (0, 1), (16, 4), "axes fraction", "offset points", fontsize=SMALL, va="bottom")
    theory_and_simulation(
        axis, loc="lower right", bbox_to_anchor=(1, 0.985), ncols=2, fontsize=SMALL, columnspacing=1.0
    )
