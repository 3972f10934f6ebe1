"""Normalised embeddings: how the modes share a fixed variance, and how many of them do, by temperature."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.statistics import bars, edges, first_of_the_rest, mean
from figures.style import (
    BLACK,
    BLUE,
    DASHED,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    SMALL,
    VERMILION,
    footer,
    label_of,
    letter,
    panels,
    points,
    style,
)
from theory.ssl_collapse import infonce_mode_strength, normalized_rank, water_fill, water_fill_infonce

COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
Q = np.array([0.1, 0.25, 0.4, 0.55, 0.7, 0.85])
ALIVE = 0.003


def normalization(dataset: xr.Dataset) -> Figure | None:
    """Shares of the modes over the temperature, and the number of active ones."""
    if dataset["temperature"].ndim == 0 or dataset.sizes["mode"] != len(Q):
        return None
    dataset = first_of_the_rest(dataset, "temperature")[0].sortby("temperature")
    tau = dataset["temperature"].values
    dense = np.geomspace(*edges(tau, logarithmic=True)[[0, -1]], 300)
    with style():
        figure, axes = panels(1, 2, 2.5, gridspec_kw={"width_ratios": [1.35, 1]})
        _shares(axes[0, 0], dataset, tau, dense)
        _ranks(axes[0, 1], dataset, tau, dense)
        for axis in axes.flat:
            axis.set_xscale("log")
            axis.set_xlim(dense[0], dense[-1])
            axis.set_xlabel(label_of(dataset["temperature"]))
        letter(axes.flat)
        footer(figure, dataset, "markers: a linear encoder under minibatch SGD, 95 % bars; lines: theory")
    return figure


def _shares(axis, dataset, tau, dense):
    axis.set_ylim(-0.03, 1.06)
    exact = np.asarray(water_fill_infonce(Q, 1 / dense).strengths) * dense[:, None]
    for k, colour in enumerate(COLOURS):
        axis.plot(dense, exact[:, k], color=colour)
        unit, share = (dataset[name].isel(mode=k) for name in ("unit_length", "share"))
        if np.isfinite(unit).any():
            points(axis, tau, mean(unit), np.full(len(tau), np.nan), colour, fmt="x", ms=3, mew=0.8)
        points(axis, tau, mean(share), bars(share), colour)
        axis.text(1.015, 0.93 - 0.1 * k, f"$q={Q[k]:g}$", transform=axis.transAxes, color=colour, fontsize=SMALL)
    axis.set_ylabel("share of the variance")
    looks = [
        Line2D([], [], color=GREY),
        Line2D([], [], color=GREY, marker="o", linestyle="none"),
        Line2D([], [], color=GREY, marker="x", ms=3, mew=0.8, linestyle="none"),
    ]
    words = ["water-filling", "unit mean square", "unit length (another loss)"]
    axis.legend(looks, words, loc="upper left", fontsize=SMALL, handlelength=1.4)


def _ranks(axis, dataset, tau, dense):
    axis.plot(dense, normalized_rank(Q, 1 / dense), color=BLACK, label="exact")
    quartic = np.sum(np.asarray(water_fill(1 - Q, 0.75, 1 / dense).strengths) > 0, axis=-1)
    axis.plot(dense, quartic, color=VERMILION, linestyle=DASHED, label="quartic landscape")
    free = np.sum(np.asarray(infonce_mode_strength(Q)) > 0)
    axis.axhline(free, color=GREY, linestyle="dotted", label="without the constraint")
    active = (dataset["share"] > ALIVE).sum("mode").where(np.isfinite(dataset["share"]).all("mode"))
    axis.set_ylim(0.5, len(Q) + 0.6)
    points(axis, tau, mean(active), bars(active), BLUE, "share above 0.3 %")
    axis.set_yticks(range(1, len(Q) + 1))
    axis.set_ylabel("active modes")
    axis.legend(loc="lower left", fontsize=SMALL, handlelength=1.8)
