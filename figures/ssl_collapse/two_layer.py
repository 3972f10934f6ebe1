"""Two layers: their modes over time, escape times, what the first layer holds, and ranks that are a matter of time."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from figures.statistics import bars, first_of_the_rest, mean
from figures.style import (
    BLUE,
    DASHED,
    DOTTED,
    GREEN,
    GREY,
    VERMILION,
    footer,
    legend_above,
    letter,
    number,
    panels,
    points,
    style,
)
from theory.ssl_collapse import (
    representation_strength,
    two_layer_escape_time,
    two_layer_strength,
    two_layer_time,
    two_layer_trajectory,
)

COLOURS = (BLUE, GREEN, VERMILION)


def two_layer(dataset: xr.Dataset) -> Figure | None:
    """Lines: theory; markers: gradient descent on both layers; colours: modes."""
    if dataset["ratio"].ndim == 0:
        return None
    dataset = first_of_the_rest(dataset, "ratio")[0]
    noise = float(dataset["noise"])
    p0 = json.loads(dataset.attrs["settings"])["p0"]
    with style():
        figure, axes = panels(2, 2, 4.2)
        _trajectories(axes[0, 0], dataset, noise)
        _escape(axes[0, 1], dataset, p0, noise)
        _representation(axes[1, 0], dataset, p0, noise)
        _rank(axes[1, 1], dataset, noise)
        letter(axes.flat)
        footer(figure, dataset, "lines: theory; markers: gradient descent on both layers; colours: modes")
    return figure


def _ends(dataset):
    """The cells of the most and of the least balanced layers, each with what its markers and lines look like."""
    ratios = np.abs(np.log(dataset["ratio"].values))
    return [
        (dataset.isel(ratio=int(i)), *look)
        for i, look in ((ratios.argmin(), ("-", True)), (ratios.argmax(), (DASHED, False)))
    ]


def _runs(cell, noise):
    """(p0, delta), each of shape (replicates, modes), and (b, Sigma_i, kappa), of every run of a cell."""
    modes = tuple(
        np.array(column) for column in zip(*(_mode(cell, k, noise) for k in range(len(COLOURS))), strict=True)
    )
    p0 = cell["trajectory"].isel(moment=0).transpose("replicate", "clean").values * np.asarray(
        two_layer_strength(*modes)
    )
    ratio = float(cell["ratio"])
    return p0, p0 * (ratio - 1 / ratio), tuple(column[None, :] for column in modes)


def _halves(p0, delta, modes):
    """Times to half of the limit. Shape (replicates, modes)."""
    return np.asarray(two_layer_time(two_layer_strength(*modes) / 2, p0, *modes, delta))


def _trajectories(axis, dataset, noise):
    """The first replicate of each."""
    dense = np.linspace(0, 1, 400)
    for cell, line, filled in _ends(dataset):
        p0, delta, modes = _runs(cell, noise)
        time = 1.3 * _halves(p0, delta, modes)[0, -1] * dense[:, None]
        path = np.asarray(two_layer_trajectory(time, p0[:1], *modes, delta[:1]) / two_layer_strength(*modes))
        for k, colour in enumerate(COLOURS):
            axis.plot(dense, path[:, k], color=colour, linestyle=line)
            seen = cell["trajectory"].isel(replicate=0, clean=k).values
            axis.plot(cell["moment"].values, seen, "o", ms=2.6, color=colour, mfc=colour if filled else "white")
    axis.set_ylabel(r"$p(t)/p_\infty$")
    _two_looks(axis, dataset)


def _two_looks(axis, dataset):
    axis.set_xlabel("time, over 1.3 times that of the last mode")
    handles, labels = [], []
    for cell, line, filled in _ends(dataset):
        handles += axis.plot([], [], "o", mfc=GREY if filled else "white", color=GREY, linestyle=line)
        labels.append(rf"$\sigma_1/\sigma_2={number(float(cell['ratio']))}$")
    legend_above(axis, handles, labels, handlelength=2.2)


def _dense(axis, dataset):
    x = dataset["ratio"].values
    axis.set_xscale("log")
    axis.set_xlim(x.min() / 1.2, x.max() * 1.2)
    axis.set_xticks(x, [number(v) for v in x])
    axis.minorticks_off()
    axis.set_xlabel(r"layers at the start $\sigma_1/\sigma_2$")
    return x, np.geomspace(*axis.get_xlim(), 300)


def _escape(axis, dataset, p0, noise):
    x, dense = _dense(axis, dataset)
    hyperbolic = np.asarray(two_layer_escape_time(1.0, p0, p0 * (dense - 1 / dense))) * 4 * p0
    axis.plot(dense, hyperbolic, color="black", label=r"small $p_0$")
    axis.axhline(1, color=GREY, linestyle=DASHED, label=r"$1/4bp_0$")
    axis.set_ylim(0, 1.25)
    means, half = mean(dataset["escape"]), bars(dataset["escape"])
    for k, colour in enumerate(COLOURS):
        limit = float(two_layer_strength(*_mode(dataset, k, noise)))
        single = 2 * p0 * np.log(limit / p0)
        modes = _mode(dataset, k, noise)
        exact = np.asarray(two_layer_time(limit / 2, p0, *modes, p0 * (dense - 1 / dense))) * 4 * modes[0] * p0
        axis.plot(dense, exact, color=colour, label="exact" if k == 0 else None)
        axis.axhline(single, color=colour, linestyle=DOTTED, label="one layer" if k == 0 else None)
        points(axis, x * 1.02 ** (k - 1), means.isel(clean=k), half.isel(clean=k), colour)
    axis.set_ylabel(r"time to $p_\infty/2$, times $4bp_0$")
    legend_above(axis, handlelength=1.6)


def _representation(axis, dataset, p0, noise):
    x, dense = _dense(axis, dataset)
    for k, colour in enumerate(COLOURS):
        limit = float(two_layer_strength(*_mode(dataset, k, noise)))
        axis.plot(dense, np.asarray(representation_strength(limit, p0 * (dense - 1 / dense))), color=colour)
        axis.axhline(limit**0.5, color=colour, linestyle=DASHED)
    values = dataset["representation"]
    for k, colour in enumerate(COLOURS):
        axis.errorbar(
            x, mean(values).isel(clean=k).values, yerr=bars(values).isel(clean=k).values, fmt="o", color=colour,
            label=rf"$a={number(float(dataset['clean'][k]))}$",
        )  # fmt: skip
    axis.set_ylabel(r"singular value of $W_1$ at the end")
    dashed = axis.plot([], [], color=GREY, linestyle=DASHED)[0]
    handles, labels = axis.get_legend_handles_labels()
    legend_above(axis, [*handles, dashed], [*labels, r"$\sqrt{p_\infty}$"])


def _rank(axis, dataset, noise):
    """Modes beyond half of their limit: mean over the runs."""
    dense = np.linspace(0, 1, 800)
    for cell, line, filled in _ends(dataset):
        halves = _halves(*_runs(cell, noise))
        shares = halves / (1.3 * halves[:, -1:])
        theory = (shares[None] <= dense[:, None, None]).sum(2).mean(1)
        axis.plot(dense, theory, color=BLUE, linestyle=line)
        ranks = (cell["trajectory"] > 0.5).sum("clean").astype(float)
        axis.errorbar(
            cell["moment"].values, mean(ranks).values, yerr=bars(ranks).values, fmt="o", ms=2.6, color=BLUE,
            mfc=BLUE if filled else "white",
        )  # fmt: skip
    axis.axhline(len(COLOURS), color=GREY, linestyle=DOTTED)
    axis.text(0, len(COLOURS) - 0.1, "rank of the minimum", color=GREY, va="top")
    axis.set_ylim(-0.15, len(COLOURS) + 0.3)
    axis.set_yticks(range(len(COLOURS) + 1))
    axis.set_ylabel("apparent rank, mean of runs")
    _two_looks(axis, dataset)


def _mode(dataset, k, noise):
    """b, Sigma_i and kappa of the spectral loss."""
    clean = float(dataset["clean"][k])
    return 2 * clean, clean + noise, 1.0
