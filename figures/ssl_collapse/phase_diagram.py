"""Which modes InfoNCE learns: strengths over augmentation and mode, ranks over augmentation and weight decay."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.colors import BoundaryNorm, LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from figures.statistics import bars, edges, first_of_the_rest, mean
from figures.style import (
    BLUE,
    DASHED,
    DOTTED,
    GREEN,
    GREY,
    MAGNITUDE,
    ORANGE,
    PURPLE,
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
from theory.ssl_collapse import finite_negatives_shift, infonce_strength_near_threshold, infonce_variance

DENSE = 600
DIM = 0.01  # strength from which a cell of the map has a colour
COLLAPSED = "0.9"
SHOWN = (1, 2, 4, 8)  # modes of the panel of strengths
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE)


def phase_diagram(dataset: xr.Dataset) -> Figure | None:
    """Colours and markers: SGD on minibatches; lines: the exact minimum."""
    dataset, words = first_of_the_rest(dataset, "sigma2", "weight_decay")
    if dataset["sigma2"].ndim == 0:
        return None
    dataset = dataset if dataset["weight_decay"].ndim else dataset.expand_dims("weight_decay")
    dataset = dataset.sortby(["sigma2", "weight_decay"])
    with style():
        figure, axes = panels(2, 2, 4.7)
        _modes(figure, axes[0, 0], dataset)
        _strengths(axes[0, 1], dataset)
        _ranks(axes[1, 0], dataset)
        if dataset.sizes["weight_decay"] > 1:
            _plane(figure, axes[1, 1], dataset)
        else:
            axes[1, 1].set_axis_off()
        letter(axes.flat)
        alpha, tau = (number(float(dataset[name])) for name in ("alpha", "temperature"))
        note = rf"$\alpha={alpha}$, $\tau={tau}$, $a_i=1/i$; colours and markers: SGD on minibatches; lines: theory"
        footer(figure, dataset, "; ".join(part for part in (note, words) if part))
    return figure


def _parameters(dataset):
    return float(dataset["temperature"]), float(dataset["alpha"])


def _threshold(dataset, sigma2, decay):
    """The eigenvalue a at which a mode dies."""
    tau, alpha = _parameters(dataset)
    return (alpha - 1) * sigma2 + decay * tau


def _dense(dataset):
    ends = edges(dataset["sigma2"].values, logarithmic=True)[[0, -1]]
    return np.geomspace(*ends, DENSE)


def _sigma_axis(axis, dataset):
    axis.set_xscale("log")
    axis.set_xlim(_dense(dataset)[[0, -1]])
    axis.set_xticks([tick for tick in (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0) if _inside(axis.get_xlim(), tick)])
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel(r"augmentation variance $\sigma^2$")


def _inside(limits, value):
    return limits[0] <= value <= limits[1]


def _modes(figure, axis, dataset):
    """The learned strength of every mode at the first weight decay, and the line beyond which modes die."""
    cells = dataset.isel(weight_decay=0)
    s = mean(cells["strength"]).transpose("mode", "sigma2").values[::-1]
    a = 1 / cells["mode"].values[::-1]
    x, y = edges(cells["sigma2"].values, logarithmic=True), edges(a, logarithmic=True)
    colours = colormaps[MAGNITUDE].with_extremes(under=COLLAPSED)
    norm = LogNorm(DIM, max(np.nanmax(s), 2 * DIM))
    mesh = axis.pcolormesh(x, y, s, cmap=colours, norm=norm, rasterized=True)
    bar = figure.colorbar(mesh, ax=axis, extend="min", pad=0.02)
    bar.set_label(r"learned strength $s_i$")
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    dense = _dense(dataset)
    axis.plot(dense, _threshold(dataset, dense, float(cells["weight_decay"])), color=VERMILION, lw=1.8)
    axis.set_yscale("log")
    axis.set_ylim(y[0], y[-1])
    axis.set_yticks(a, [f"1/{round(1 / v)}" if v < 1 else "1" for v in a])
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.minorticks_off()
    _sigma_axis(axis, dataset)
    axis.set_ylabel(r"mode eigenvalue $a_i$")
    axis.text(0.04, 0.93, "learned", transform=axis.transAxes, fontsize=SMALL + 1, color="black", va="top")
    axis.text(0.96, 0.07, "collapsed", transform=axis.transAxes, fontsize=SMALL + 1, color="0.3", ha="right")
    decay = float(cells["weight_decay"])
    line = Line2D([], [], color=VERMILION, lw=1.8)
    legend_above(axis, [line], [rf"$a=(\alpha-1)\sigma^2+\lambda\tau$, $\lambda={number(decay)}$"])


def _strengths(axis, dataset):
    """A few modes at the first weight decay: the exact minimum, also with few negatives, and the quartic landscape."""
    cells = dataset.isel(weight_decay=0)
    tau, alpha = _parameters(dataset)
    decay, dense = float(cells["weight_decay"]), _dense(dataset)
    negatives = json.loads(dataset.attrs["settings"])["negatives"]
    a, c = (np.broadcast_to(x, (DENSE, dataset.sizes["mode"])) for x in (1 / cells["mode"].values, dense[:, None]))
    exact = np.asarray(infonce_variance(a, c, tau, alpha, decay)) / tau
    margin = (a - _threshold(dataset, c, decay)) / (a + c)
    quartic = np.asarray(infonce_strength_near_threshold(margin, 1))
    few = exact + np.asarray(finite_negatives_shift(1 - margin, negatives))
    axis.set_yscale("log")
    axis.set_ylim(DIM, 1.5 * float(cells["strength"].max()))
    shown = [i for i in SHOWN if i <= cells.sizes["mode"]]
    looks = (({}, exact), ({"linestyle": DOTTED, "lw": 0.9}, few), ({"linestyle": DASHED, "lw": 0.7}, quartic))
    for i, colour in zip(shown, COLOURS, strict=False):
        for k, (look, strength) in enumerate(looks):
            curve = strength[:, i - 1]
            axis.plot(
                dense, np.where(curve > 0, curve, np.nan), color=colour, label=f"$i={i}$" if k == 0 else None, **look
            )
        draws = cells["strength"].sel(mode=i)
        alive = cells["strength_theory"].sel(mode=i).values > DIM
        x, y, half = (v[alive] for v in (cells["sigma2"].values, mean(draws).values, bars(draws).values))
        if alive.any():
            points(axis, x, y, half, colour)
    _sigma_axis(axis, dataset)
    axis.set_ylabel(r"strength $s_i$ (units of $\tau$)")
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axis.add_artist(axis.legend(loc="upper right", title="mode", borderaxespad=0))
    lines = [Line2D([], [], color=GREY, **look) for look, _ in looks]
    legend_above(axis, lines, ["exact minimum", f"$N={number(negatives)}$", "quartic"])


def _ranks(axis, dataset):
    """The number of learned modes, by weight decay."""
    dense = _dense(dataset)
    most = min(json.loads(dataset.attrs["settings"])["m"], dataset.sizes["mode"])
    axis.set_ylim(-0.35, dataset.sizes["mode"] + 0.6)
    # Staircases that coincide are drawn a little apart.
    for k, colour in zip(range(dataset.sizes["weight_decay"]), COLOURS, strict=False):
        cells = dataset.isel(weight_decay=k)
        decay, apart = float(cells["weight_decay"]), 0.09 * (k - (dataset.sizes["weight_decay"] - 1) / 2)
        alive = (1 / cells["mode"].values)[:, None] > _threshold(dataset, dense, decay)[None, :]
        axis.plot(dense, np.minimum(alive.sum(0), most) + apart, color=colour, label=rf"$\lambda={number(decay)}$")
        draws = cells["rank"]
        points(axis, cells["sigma2"].values, mean(draws).values + apart, bars(draws).values, colour)
    _sigma_axis(axis, dataset)
    axis.set_yticks(range(dataset.sizes["mode"] + 1))
    axis.set_ylabel("rank of the embedding")
    axis.legend(loc="upper right", borderaxespad=0)


def _plane(figure, axis, dataset):
    """The rank over weight decay and augmentation, and the lines along which it drops."""
    decay, sigma2 = dataset["weight_decay"].values, dataset["sigma2"].values
    ranks = mean(dataset["rank"]).transpose("sigma2", "weight_decay").values
    x, y = edges(decay), edges(sigma2, logarithmic=True)
    count = dataset.sizes["mode"]
    colours, norm = colormaps[MAGNITUDE].resampled(count + 1), BoundaryNorm(np.arange(count + 2) - 0.5, count + 1)
    tau, alpha = _parameters(dataset)
    across, up = np.linspace(0, x[-1], DENSE), np.geomspace(y[0], y[-1], DENSE)
    alive = (1 / dataset["mode"].values)[:, None, None] > _threshold(dataset, up[:, None], across[None, :])[None]
    axis.pcolormesh(across, up, alive.sum(0), cmap=colours, norm=norm, alpha=0.45, shading="nearest", rasterized=True)
    at = np.broadcast_arrays(decay[None, :], sigma2[:, None])
    mesh = axis.scatter(*at, c=ranks, cmap=colours, norm=norm, s=22, edgecolor="white", linewidth=0.7, zorder=3)
    bar = figure.colorbar(mesh, ax=axis, pad=0.02, ticks=range(count + 1))
    bar.set_label("rank of the embedding")
    for i in dataset["mode"].values:
        line = (1 / i - across * tau) / (alpha - 1) if alpha > 1 else np.full_like(across, np.nan)
        axis.plot(across, np.where(line > 0, line, np.nan), color=VERMILION, lw=0.9)
    axis.set_yscale("log")
    axis.set_ylim(y[0], y[-1])
    axis.set_xlim(-0.03 * x[-1], x[-1])
    axis.set_yticks([tick for tick in (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0) if _inside(axis.get_ylim(), tick)])
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel(r"weight decay $\lambda$")
    axis.set_ylabel(r"augmentation variance $\sigma^2$")
    legend_above(axis, [Line2D([], [], color=VERMILION, lw=0.9)], [r"$(\alpha-1)\sigma^2+\lambda\tau=a_i$"])
