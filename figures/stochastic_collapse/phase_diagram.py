"""The phase diagram of multiplicative noise: four phases over step and noise, and the universal line behind them."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.colors import TwoSlopeNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullFormatter

from figures.statistics import bars, edges, first_of_the_rest, mean
from figures.style import (
    BLUE,
    COLOURS,
    DASHED,
    DOTTED,
    GREEN,
    GREY,
    ORANGE,
    SIGNED,
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
from theory.stochastic_collapse import (
    bounded_exponents,
    collapse_boundary,
    collapse_window,
    discrete_exponent,
    lyapunov_exponent,
)

PHASES = {"collapsed": BLUE, "live": GREEN, "diverged": VERMILION, "bistable": ORANGE, "mixed": "0.6"}
PALE = 0.6  # share of a phase's colour, the rest white
TIP = 0.924138873  # ratio m / (s sqrt 2) on the universal line
RAY = 0.2  # -h-bar / sigma_h of the window that is drawn
ACROSS, UP = (-1.7, 1.2), (0.0, 2.6)  # the part of the universal plane that is drawn
MOST = 40  # markers of a line
DENSE = 300
POINTER = {"arrowstyle": "-", "linewidth": 0.6, "shrinkB": 3}
WHITE = {"boxstyle": "square,pad=0.2", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
BOXED = {"fontsize": SMALL, "bbox": WHITE}


def phase_diagram(dataset: xr.Dataset) -> Figure | None:
    """Phases at the last and the first K; exponents along the step size; and all of them in the universal plane."""
    dataset, words = first_of_the_rest(dataset, "eta", "sigma", "K")
    if dataset["eta"].ndim == 0 or dataset["sigma"].ndim == 0:
        return None
    dataset = dataset if dataset["K"].ndim else dataset.expand_dims("K")
    dataset = dataset.sortby(["eta", "sigma", "K"])
    at = [dataset.isel(K=k) for k in dict.fromkeys((-1, 0))][: dataset.sizes["K"]]
    with style():
        figure, axes = panels(2, 2, 4.9)
        for axis, cells in zip(axes[0], at, strict=False):
            _phases(axis, cells)
        for axis in axes[0, len(at) :]:
            axis.set_axis_off()
        looks = [Patch(facecolor=_pale(colour)) for colour in list(PHASES.values())[:4]]
        legend_above(axes[0, 0], looks, list(PHASES)[:4], fontsize=SMALL)
        lines = [Line2D([], [], color="black", linestyle=look) for look in ("-", DASHED)]
        lines.append(Line2D([], [], color="0.3", linestyle=DOTTED))
        names = [r"$\Lambda_0=0$", r"$\Lambda_\infty=0$", r"$\Lambda_0=0$, SDE"]
        if len(at) > 1:
            legend_above(axes[0, 1], lines, names, fontsize=SMALL)
        axes[0, 0].set_ylabel(r"noise $\sigma$ of the curvature")
        _exponents(axes[1, 0], at[0])
        _plane(figure, axes[1, 1], dataset)
        letter(axes.flat)
        note = rf"$\mu={number(float(dataset['mu']))}$; colours and markers: SGD; lines: theory"
        footer(figure, dataset, "; ".join(part for part in (note, words) if part))
    return figure


def _pale(colour):
    return tuple(PALE * np.array(to_rgb(colour)) + 1 - PALE)


def _logarithmic(axis):
    axis.set_xscale("log")
    axis.set_xticks([0.1, 0.2, 0.5, 1, 2])
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel(r"learning rate $\eta$")


def _phases(axis, cells):
    """Each cell in the colours of the phases its replicates are in."""
    eta, sigma = cells["eta"].values, cells["sigma"].values
    x, y = edges(eta, logarithmic=True), edges(sigma)
    codes = cells["phase"].transpose("sigma", "eta", "replicate").values
    shares = np.stack([(codes == code).mean(-1) for code in range(len(PHASES))], -1)
    axis.pcolormesh(x, y, shares @ np.array([_pale(colour) for colour in PHASES.values()]), rasterized=True)
    dense = np.meshgrid(np.geomspace(x[0], x[-1], DENSE), np.linspace(y[0], y[-1], DENSE))
    mu, K = float(cells["mu"]), float(cells["K"])
    exact = bounded_exponents(dense[0], mu, dense[1], K)
    sde = lyapunov_exponent(-mu, np.sqrt(dense[0]) * dense[1])
    for values, look, colour in zip((*exact, sde), ("-", [DASHED], [DOTTED]), ("black", "black", "0.3"), strict=True):
        if np.min(values) < 0 < np.max(values):
            axis.contour(*dense, values, [0.0], colors=colour, linewidths=1.0, linestyles=look)
    _logarithmic(axis)
    axis.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    axis.text(0.03, 0.04, f"$K={number(K)}$", transform=axis.transAxes, va="bottom", bbox=WHITE)


def _plane(figure, axis, dataset):
    """Both exponents at every K, each at its own mean curvature, around one line."""
    eta, sigma = edges(dataset["eta"].values, logarithmic=True), edges(dataset["sigma"].values)
    mu = float(dataset["mu"])
    norm = TwoSlopeNorm(0.0, -0.5, 0.5)
    mesh = None
    for name, curvatures in (("at_infinity", mu - dataset["K"].values), ("near_zero", [mu])):
        for k, curvature in enumerate(curvatures):
            values = mean(dataset[name].isel(K=k)).transpose("sigma", "eta").values
            x, y = np.broadcast_arrays(eta[None, :] * curvature, sigma[:, None] * eta[None, :])
            mesh = axis.pcolormesh(x, y, values, norm=norm, cmap=SIGNED, rasterized=True)
    across, up = collapse_boundary(np.concatenate([-np.geomspace(60, 0.01, DENSE), np.geomspace(0.01, 200, DENSE)]))
    axis.plot(across, up, color="black")
    noise = np.linspace(*UP, DENSE)
    axis.plot(noise**2 / 2, noise, color="0.3", linestyle=DOTTED)
    tip = [float(value) for value in collapse_boundary(TIP)]
    axis.plot(*tip, "*", color="black", ms=6)
    axis.annotate(f"tip\n({tip[0]:.3f}, {tip[1]:.3f})", tip, (0.52, 0.42), arrowprops=POINTER, **BOXED)
    ends = np.array(collapse_window(-RAY, 1.0))
    axis.plot([0, 1.45 * RAY * ends[1]], [0, 1.45 * ends[1]], color=GREY, linewidth=0.7)
    axis.plot(RAY * ends, ends, "o", color="black", mfc="white", ms=3.5)
    axis.annotate(r"window in $\eta$", (RAY * ends[1], ends[1]), (-0.75, 1.05), arrowprops=POINTER, **BOXED)
    axis.annotate("", (RAY * ends[0], ends[0]), (-0.35, 1.0), arrowprops=POINTER)
    axis.set(xlim=ACROSS, ylim=UP)
    axis.set_xlabel(r"mean of the step $-\eta\bar h$")
    axis.set_ylabel(r"noise of the step $\eta\sigma_h/\sqrt{B}$")
    bar = figure.colorbar(mesh, ax=axis, pad=0.02, aspect=18, extend="both")
    bar.outline.set_linewidth(0.6)
    bar.set_label(r"measured $\Lambda$ per step", fontsize=SMALL + 0.5)
    bar.ax.tick_params(labelsize=SMALL)


def _exponents(axis, cells):
    """The exponent near the origin along the step size, at three noises."""
    eta = cells["eta"].values
    dense = np.geomspace(eta[0], eta[-1], DENSE)
    mu, drawn = float(cells["mu"]), []
    shown = np.unique(np.linspace(0, cells.sizes["sigma"] - 1, 5).astype(int)[1:4])
    for k, colour in zip(shown, COLOURS, strict=False):
        sigma = float(cells["sigma"][k])
        draws = cells["near_zero"].isel(sigma=k)
        exact = discrete_exponent(dense, -mu, sigma)
        axis.plot(dense, exact, color=colour)
        axis.plot(dense, dense * lyapunov_exponent(-mu, np.sqrt(dense) * sigma), color=colour, linestyle=DOTTED)
        drawn.append((mean(draws).values, bars(draws).values, colour, rf"$\sigma={number(sigma)}$"))
    values = np.concatenate([means for means, *_ in drawn])
    low = min(values.min(), -0.1)
    high = min(values.max(), -6 * low)
    axis.set_ylim(low - 0.15 * (high - low), high + 0.1 * (high - low))
    _logarithmic(axis)
    some = slice(None, None, -(-len(eta) // MOST))
    for means, half, colour, label in drawn:
        points(axis, eta[some], means[some], half[some], colour, label, ms=2.4)
    axis.axhline(0, color=GREY, linewidth=0.5)
    axis.set_xlim(eta[0] / 1.05, eta[-1] * 1.05)
    axis.set_ylabel(r"exponent near the origin $\Lambda_0$ per step")
    axis.legend(loc="upper left", fontsize=SMALL, title="dotted: SDE", title_fontsize=SMALL)
