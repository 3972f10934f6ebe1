"""The regimes of SGD after convergence, the angle of its fluctuations, and the exponents of its displacement."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy import stats

from figures.statistics import bars, edges, first_of_the_rest, mean
from figures.style import (
    BLUE,
    DASHED,
    DOTTED,
    GREEN,
    GREY,
    MAGNITUDE,
    ORANGE,
    SMALL,
    VERMILION,
    footer,
    letter,
    number,
    panels,
    points,
    style,
    theory_and_simulation,
)
from theory.oscillator import boundaries, frequency
from theory.sgd_limit import global_displacement, phase_space_covariance

COLOURS = (BLUE, GREEN, ORANGE, VERMILION)
WORDS = ("overdamped", "oscillating", "flipping", "unstable")
SHOWN = 3  # momenta
PULL = 0.14  # about which eta h the displacement is shown
TOP = 2.3  # of the axis of exponents


def regimes(dataset: xr.Dataset) -> Figure | None:
    """Measured regimes, measured angles, variances, and local exponents of the displacement."""
    if dataset["beta"].ndim == 0 or dataset["eta_h"].ndim == 0:
        return None
    dataset, words = first_of_the_rest(dataset, "beta", "eta_h")
    dataset = dataset.sortby(["beta", "eta_h"])
    with style():
        figure, axes = panels(2, 2, 4.6)
        _regimes(axes[0, 0], dataset)
        _angles(figure, axes[0, 1], dataset)
        _exponents(axes[1, 0], dataset)
        _variances(axes[1, 1], dataset)
        letter(axes.flat)
        note = "colours, markers with 95 % bars: simulated chains; lines: theory; (d) colours as in (c)"
        footer(figure, dataset, "; ".join(part for part in (note, words) if part))
    return figure


def _map(axis, dataset, values, **look):
    beta, e = dataset["beta"].values, dataset["eta_h"].values
    x, y = edges(beta), edges(e, logarithmic=True)
    image = axis.pcolormesh(x, y, values, rasterized=True, **look)
    dense = np.linspace(0, min(x[-1], 0.999), 400)
    for line in boundaries(dense):
        axis.plot(dense, line, color="black", zorder=3)
    axis.plot(dense, (1 - dense) ** 2 / (2 * (1 + dense)), color="black", linestyle=DASHED, zorder=3)
    axis.set_yscale("log")
    axis.set(xlim=(x[0], min(x[-1], 1.0)), ylim=(y[0], y[-1]))
    axis.set_xlabel(r"momentum $\beta$")
    axis.set_ylabel(r"learning rate times curvature $\eta h$")
    return image


def _regimes(axis, dataset):
    codes = dataset["regime"].median("replicate").transpose("eta_h", "beta").values
    norm = BoundaryNorm(np.arange(5) - 0.5, 4)
    _map(axis, dataset, codes, cmap=ListedColormap(COLOURS), norm=norm, alpha=0.6)
    looks = [Line2D([], [], color="black"), Line2D([], [], color="black", linestyle=DASHED)]
    axis.legend(looks, ["roots of the chain", "Langevin equation"], loc="lower left", fontsize=SMALL, handlelength=1.6)
    for code, place in ((0, (0.12, 0.03)), (1, (0.55, 0.3)), (3, (0.15, 3.4))):
        axis.annotate(WORDS[code], place, fontsize=SMALL + 0.5, va="center", annotation_clip=True)
    if axis.get_ylim()[1] > 2:
        leader = {"arrowstyle": "-", "linewidth": 0.6, "shrinkA": 1, "shrinkB": 0}
        axis.annotate(
            WORDS[2], (0.025, 1.6), (0.22, 0.95), fontsize=SMALL + 0.5, va="center", arrowprops=leader, zorder=4
        )


def _angles(figure, axis, dataset):
    angle = mean(dataset["frequency"]).where(dataset["regime"].median("replicate") < 3)
    axis.set_facecolor("0.85")
    image = _map(axis, dataset, angle.transpose("eta_h", "beta").values, cmap=MAGNITUDE, vmin=0, vmax=np.pi)
    low, high = axis.get_ylim()
    beta, e = np.linspace(0.002, 0.998, 300), np.geomspace(low, min(high, 4.0), 300)
    levels = np.array([0.1, 0.25, 0.5, 0.75]) * np.pi
    exact = np.asarray(frequency(beta[None, :], e[:, None]))
    critical, alternating, _ = (np.asarray(line)[None, :] for line in boundaries(beta))
    inside = (e[:, None] > critical) & (e[:, None] < alternating)
    axis.contour(beta, e, np.where(inside, exact, np.nan), levels, colors="white", linewidths=0.8)
    bar = figure.colorbar(image, ax=axis, pad=0.02, aspect=22, ticks=[0, *levels, np.pi])
    bar.ax.set_yticklabels(["0", r"$\pi/10$", r"$\pi/4$", r"$\pi/2$", r"$3\pi/4$", r"$\pi$"])
    bar.set_label("angle a step", fontsize=SMALL + 0.5)
    bar.outline.set_linewidth(0.6)
    axis.set_ylabel("")


def _some(values):
    """A few values from the first to the last."""
    return np.unique(np.linspace(0, len(values) - 1, SHOWN).round().astype(int))


def _exponents(axis, dataset):
    e = dataset["eta_h"].values
    at = int(np.argmin(np.abs(np.log(e / PULL))))
    alpha, modes = float(dataset["alpha"]), json.loads(dataset.attrs["settings"])["modes"]
    lags = dataset["lag"].values
    dense = np.unique(np.geomspace(1, lags[-1], 120).round())
    spectrum = np.arange(1.0, modes + 1) ** -alpha
    plateaux = {2: "ballistic", 1: "diffusive", 1 / alpha: rf"$1/\alpha$, $\alpha={number(alpha)}$", 0: "at rest"}
    axis.set_xscale("log")
    axis.set(xlim=(1.2, 1.5 * lags[-1]), ylim=(-0.3, TOP))
    for level, words in plateaux.items():
        axis.axhline(level, color="0.6", linestyle=DOTTED, linewidth=0.8)
        axis.text(1.01, level, words, fontsize=SMALL, color="0.35", va="center", transform=axis.get_yaxis_transform())
    shown = _some(dataset["beta"].values)
    betas = dataset["beta"].values[shown]
    both = np.concatenate([dense, 2 * dense])[None, :]
    walked = np.asarray(global_displacement(both, spectrum, float(e[at]), betas[:, None], 1))
    near, far = np.split(walked, 2, axis=1)
    for colour, (i, beta) in enumerate(zip(shown, betas, strict=True)):
        axis.plot(dense * 2**0.5, np.log2(far / near)[colour], color=f"C{colour}")
        centre, half = _slopes(dataset["displacement"].isel(beta=i, eta_h=at), lags)
        points(axis, lags[:-1] * 2**0.5, centre, half, f"C{colour}", rf"$\beta={number(float(beta))}$")
    axis.legend(loc="upper right", fontsize=SMALL, title=rf"$\eta h_1={number(float(e[at]))}$", title_fontsize=SMALL)
    axis.set_xlabel(r"steps $k$, from $k/\sqrt{2}$ to $\sqrt{2}k$")
    axis.set_ylabel(r"exponent of $E|\Delta_k|^2$")


def _slopes(draws, lags):
    """Exponents of the mean displacement over an octave, with 95 % bars: jackknife over replicates."""
    values = draws.transpose("replicate", "lag").values
    count = len(values)

    def slopes(means):
        return np.diff(np.log2(means)) / np.diff(np.log2(lags))

    left = np.array([slopes((values.sum(0) - one) / (count - 1)) for one in values])
    error = np.sqrt((count - 1) / count * ((left - left.mean(0)) ** 2).sum(0))
    return slopes(values.mean(0)), stats.t.ppf(0.975, count - 1) * error


def _variances(axis, dataset):
    e = dataset["eta_h"].values
    axis.set_xscale("log")
    axis.set(xlim=edges(e, logarithmic=True)[[0, -1]], ylim=(0, 6))
    axis.axhline(1.0, color=GREY, linestyle=DASHED, linewidth=0.8)
    axis.text(e[0], 0.9, "Langevin equation", fontsize=SMALL, color=GREY, va="top")
    for colour, i in enumerate(_some(dataset["beta"].values)):
        beta = float(dataset["beta"][i])
        dense = np.geomspace(e[0], 0.999 * 2 * (1 + beta), 300)
        ratio = phase_space_covariance(1.0, dense, beta, 1).position
        axis.plot(dense, ratio / phase_space_covariance(1.0, dense, beta, 1, time="ou").position, color=f"C{colour}")
        here = dataset["position"].isel(beta=i)
        kept = e < 2 * (1 + beta)
        points(axis, e[kept], mean(here).values[kept], bars(here).values[kept], f"C{colour}")
    theory_and_simulation(axis, loc="upper left", fontsize=SMALL)
    axis.set_xlabel(r"learning rate times curvature $\eta h$")
    axis.set_ylabel("variance over that\nof the Langevin equation")
