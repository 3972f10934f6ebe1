"""Tokens and gradients along the depth, from real networks, beside the two-mode theory and the closures it replaces."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullFormatter

from figures.signal_propagation.transformer import spread, transformer
from figures.statistics import bars, first_of_the_rest, mean
from figures.style import BLUE, COLOURS, DASHED, GREY, SMALL, VERMILION, footer, letter, number, panels, points, style
from theory.signal_propagation import propagate, single_mode_gradient


def geometry(dataset: xr.Dataset) -> Figure:
    """1 - rho and q block by block, one column a logit scale; dashed: the annealed softmax closure."""
    dataset, words = first_of_the_rest(dataset, "sigma_A", "sigma_w")
    columns = spread(dataset["sigma_A"].values)
    shown = dataset.sel(sigma_A=columns, sigma_w=spread(dataset["sigma_w"].values))
    with style():
        figure, axes = panels(2, len(columns), 3.9, sharex=True, sharey="row")
        lowest = min(float((1 - p / q).min()) for p, q in (
            (mean(shown["p"]), mean(shown["q"])), (shown["p_theory"], shown["q_theory"]),
        ))  # fmt: skip
        axes[0, 0].set_yscale("log")
        axes[0, 0].set_ylim(lowest / 1.6, 1.6)
        axes[0, 0].yaxis.set_minor_formatter(NullFormatter())
        axes[1, 0].set_ylim(0, 1.15 * float(max(shown["q_theory"].max(), mean(shown["q"]).max())))
        for column, sigma_A in zip(axes.T, columns, strict=True):
            _column(column, dataset, sigma_A)
            column[0].set_title(rf"$\sigma_A={number(sigma_A)}$")
            column[1].set_xlabel("block $l$")
        axes[0, 0].set_ylabel(r"$1-\rho_l$")
        axes[1, 0].set_ylabel(r"squared length $q_l$")
        axes[0, 0].legend(loc="lower left", fontsize=SMALL)
        looks = [Line2D([], [], color=GREY, linestyle=look) for look in ("-", DASHED)]
        looks.append(Line2D([], [], color=GREY, marker="o", linestyle="none"))
        axes[1, 0].legend(looks, ["theory", "annealed closure", "simulation"], loc="lower left", fontsize=SMALL)
        letter(axes.flat)
        footer(figure, dataset, words)
    return figure


def _column(column, dataset, sigma_A):
    depth, last = dataset["depth"].values, int(dataset["depth"][-1])
    angles, lengths = column
    here = dataset.sel(sigma_A=sigma_A)
    for sigma_w, colour in zip(spread(dataset["sigma_w"].values), COLOURS, strict=False):
        cell = here.sel(sigma_w=sigma_w)
        start = float(cell["q0"]), float(cell["rho0"]), last
        config = transformer(cell, sigma_w=sigma_w, sigma_A=sigma_A)
        angles.plot(depth, 1 - cell["p_theory"] / cell["q_theory"], color=colour)
        annealed = propagate(*start, _annealed(config))
        angles.plot(depth, 1 - np.asarray(annealed.rho), color=colour, linestyle=DASHED, linewidth=0.8)
        lengths.plot(depth, cell["q_theory"], color=colour)
        lengths.plot(depth, np.asarray(annealed.q), color=colour, linestyle=DASHED, linewidth=0.8)
        draws = 1 - cell["p"] / cell["q"]
        label = rf"$\sigma_w={number(sigma_w)}$" if colour == BLUE else number(sigma_w)
        points(angles, depth, mean(draws), bars(draws), colour, label)
        points(lengths, depth, mean(cell["q"]), bars(cell["q"]), colour)
    lengths.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def _annealed(config):
    return replace(config, closure="annealed")


def gradients(dataset: xr.Dataset) -> Figure:
    """u and (n - 1) v at the input of every block for both cotangents; dashed: the single-mode closure."""
    dataset, words = first_of_the_rest(dataset, "sigma_A", "sigma_w")
    columns = spread(dataset["sigma_A"].values)
    sigma_w = float(dataset["sigma_w"][dataset.sizes["sigma_w"] // 2])
    depth = dataset["depth"].values
    n = json.loads(dataset.attrs["settings"]).get("n") or float(dataset["n"])
    shown = dataset.sel(sigma_A=columns, sigma_w=sigma_w)
    with style():
        figure, axes = panels(2, len(columns), 3.9, sharex=True, sharey="row")
        for row, kind in zip(axes, ("token", "pooled"), strict=True):
            row[0].set_yscale("log")
            row[0].set_ylim(*_range(shown, kind))
        for column, sigma_A in zip(axes.T, columns, strict=True):
            cell = dataset.sel(sigma_A=sigma_A, sigma_w=sigma_w)
            config = transformer(cell, sigma_w=sigma_w, sigma_A=sigma_A)
            single = single_mode_gradient(float(cell["q0"]), float(cell["rho0"]), int(depth[-1]), _annealed(config))
            for axis, kind in zip(column, ("token", "pooled"), strict=True):
                _gradient_panel(axis, cell, kind, depth)
                axis.plot(depth, np.asarray(single), color=GREY, linestyle=DASHED, linewidth=0.9)
            column[0].set_title(rf"$\sigma_A={number(sigma_A)}$")
            column[1].set_xlabel("block $l$")
        axes[0, 0].set_ylabel("independent cotangents")
        axes[1, 0].set_ylabel("shared cotangent")
        looks = [Line2D([], [], color=c, marker="o") for c in (BLUE, VERMILION)]
        looks.append(Line2D([], [], color=GREY, linestyle=DASHED))
        names = ["$u$", "$(n-1)v$", "single-mode closure of $u$"]
        axes[0, -1].legend(looks, names, loc="upper right", fontsize=SMALL, borderaxespad=0.1)
        letter(axes.flat)
        note = rf"$\sigma_w={number(sigma_w)}$, $n={n:g}$; lines: theory, markers: simulation with 95 % bars"
        footer(figure, dataset, "; ".join(part for part in (note, words) if part))
    return figure


def _range(shown, kind):
    """A logarithmic range that holds the positive means and theories, the input of v = 0 left out."""
    values = [np.ravel(v) for x in "uv" for v in (mean(shown[f"{x}_{kind}"]), shown[f"{x}_{kind}_theory"])]
    positive = np.concatenate([v[v > 0] for v in values])
    return max(positive.min() / 2, positive.max() / 1e4), positive.max() * 4


def _gradient_panel(axis, cell, kind, depth):
    for x, colour in (("u", BLUE), ("v", VERMILION)):
        draws, theory = cell[f"{x}_{kind}"], cell[f"{x}_{kind}_theory"].values
        axis.plot(depth, np.where(theory > 0, theory, np.nan), color=colour)
        averaged, half = mean(draws).values, bars(draws).values
        seen = averaged > 0
        points(axis, depth[seen], averaged[seen], np.minimum(half, 0.99 * averaged)[seen], colour)
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
