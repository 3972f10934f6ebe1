"""The time to collapse above the critical weight decay: exact, and the inverse square root of its ghost."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.ssl_collapse.byol_modes import COLOURS
from figures.statistics import bars, first_of_the_rest, mean
from figures.style import BLACK, DASHED, GREY, SMALL, footer, label_of, letter, number, panels, points, style
from theory.ssl_collapse import byol_critical_decay, byol_passage_time, ghost_time

FIRST, LAST = 1.5, 0.5  # start and end of a passage, in units of the eigenvalue at which the fixed points merge


def passage(a, c, distance):
    """(exact time, the ghost's) at distances sqrt(eta / eta_c - 1)."""
    decay, merged = byol_critical_decay(a, c) * (1 + distance**2), a / (2 * (a + c))
    return np.asarray(byol_passage_time(FIRST * merged, LAST * merged, a, c, decay)), np.asarray(
        ghost_time(a, c, decay)
    )


def ghost(dataset: xr.Dataset) -> Figure | None:
    """Left: times against the distance from the critical decay; right: their share of the ghost's."""
    if dataset["distance"].ndim == 0:
        return None
    dataset = first_of_the_rest(dataset, "noise", "distance")[0].sortby("distance")
    dataset = dataset.expand_dims("noise") if dataset["noise"].ndim == 0 else dataset
    x, a = dataset["distance"].values, float(dataset["clean"])
    dense = np.geomspace(x.min() / 1.3, x.max() * 1.3, 200)
    some = dataset["noise"].values[:: -(-dataset.sizes["noise"] // 4)]
    with style():
        figure, axes = panels(1, 2, 2.4)
        left, right = axes[0]
        left.set(xscale="log", yscale="log", xlim=dense[[0, -1]])
        right.set(xscale="log", xlim=dense[[0, -1]], ylim=(0, 1.08))
        for size, (c, colour) in enumerate(zip(some, COLOURS, strict=False)):
            exact, slow = passage(a, c, dense)
            here = dataset.sel(noise=c)
            left.plot(dense, exact, color=colour, label=rf"$c={number(float(c))}$")
            left.plot(dense, slow, color=colour, linestyle=DASHED, linewidth=0.8)
            points(left, x, mean(here["time"]), bars(here["time"]), colour)
            # All variances share one curve: their markers are drawn around each other.
            points(right, x, mean(here["share"]), bars(here["share"]), colour, ms=2.5 + 2.5 * size, mfc="none")
        right.plot(dense, exact / slow, color=GREY, zorder=1)
        right.axhline(1, color=BLACK, linestyle=DASHED, linewidth=0.8)
        handles, names = left.get_legend_handles_labels()
        left.legend(
            [*handles, Line2D([], [], color=GREY), Line2D([], [], color=GREY, linestyle=DASHED)],
            [*names, "exact", "ghost"], loc="upper right", fontsize=SMALL,
        )  # fmt: skip
        left.set(xlabel=label_of(dataset["distance"]), ylabel=label_of(dataset["time"]))
        right.set(xlabel=label_of(dataset["distance"]), ylabel=label_of(dataset["share"]))
        letter(axes.flat)
        footer(figure, dataset, f"lines: theory; markers: gradient descent, $a={number(a)}$")
    return figure
