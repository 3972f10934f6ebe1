"""What few negatives change in the loss of InfoNCE, times their number."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.statistics import bars, first_of_the_rest, mean
from figures.style import (
    BLACK,
    COLOURS,
    DASHED,
    DOTTED,
    GREY,
    SMALL,
    footer,
    legend_above,
    letter,
    number,
    panels,
    points,
    style,
)
from theory.ssl_collapse import finite_negatives_correction, finite_negatives_dot_correction

DENSE = 400
MARKERS = ("o", "s", "D", "^")
LOOKS = ("-", DASHED, DOTTED)


def negatives(dataset: xr.Dataset) -> Figure | None:
    """Negatives only, and with the positive beside them."""
    prepared = _prepared(dataset)
    if prepared is None:
        return None
    dataset, words = prepared
    rho = float(dataset["rho"])
    with style():
        figure, axes = panels(1, 2, 2.6)
        for axis, name, positive in zip(axes[0], ("negatives_only", "with_positive"), (None, rho), strict=True):
            _panel(axis, dataset, name, lambda s, rho=positive: finite_negatives_correction(s, 1.0, rho=rho))
        axes[0, 0].set_ylabel(r"$N(L_N-L)$")
        axes[0, 0].text(0.03, 0.04, "negatives only", transform=axes[0, 0].transAxes, fontsize=SMALL + 1)
        axes[0, 1].text(0.97, 0.04, "with the positive", transform=axes[0, 1].transAxes, fontsize=SMALL + 1, ha="right")
        letter(axes.flat)
        note = rf"$\rho={number(rho)}$; lines: first order in $1/N$; markers: minibatches, no training"
        footer(figure, dataset, "; ".join(part for part in (note, words) if part))
    return figure


def negatives_dot(dataset: xr.Dataset) -> Figure | None:
    """The dot product, whose correction diverges."""
    prepared = _prepared(dataset)
    if prepared is None:
        return None
    dataset, words = prepared
    with style():
        figure, axes = panels(1, 1, 2.6, "half")
        axis = axes[0, 0]
        excess = -mean(dataset["dot"]) * dataset["negatives"]
        axis.set_yscale("log")
        limits = 0.4 * float(excess.where(excess > 0).min()), 4 * float(excess.max())
        _panel(axis, dataset, "dot", lambda s: -finite_negatives_dot_correction(s, 1.0), sign=-1, limits=limits)
        axis.axvline(0.5**0.5, color=GREY, lw=0.8)
        axis.annotate(
            r"$1/\sqrt{2}$", (0.5**0.5, 0.02), (3, 0), ("data", "axes fraction"), "offset points", fontsize=SMALL
        )
        axis.set_ylabel(r"$N(L-L_N)$, dot product")
        note = r"lines: first order in $1/N$; markers: minibatches, no training"
        footer(figure, dataset, "; ".join(part for part in (note, words) if part))
    return figure


def _prepared(dataset):
    dataset, words = first_of_the_rest(dataset, "strength", "negatives", "modes")
    if dataset["strength"].ndim == 0:
        return None
    for name in ("modes", "negatives"):
        dataset = dataset if dataset[name].ndim else dataset.expand_dims(name)
    return dataset.sortby(["strength", "negatives", "modes"]), words


def _panel(axis, dataset, name, limit, sign=1, limits=None):
    s = dataset["strength"].values
    dense = np.linspace(0, 1.06 * s.max(), DENSE)
    scaled = sign * dataset[name] * dataset["negatives"]
    handles, names = [], []
    least = []
    for j, look, marker in zip(range(dataset.sizes["modes"]), LOOKS, MARKERS, strict=False):
        modes = int(dataset["modes"][j])
        line = np.asarray(limit(np.broadcast_to(dense[:, None], (DENSE, modes))))
        axis.plot(dense, np.where(np.isfinite(line), line, np.nan), color=BLACK, linestyle=look)
        handles.append(Line2D([], [], color=BLACK, marker=marker, linestyle=look))
        names.append(f"{modes} mode{'s' * (modes > 1)}")
        least += [line[np.isfinite(line)].min(), line[np.isfinite(line)].max()]
    room = 0.06 * (max(least) - min(least))
    axis.set_ylim(*(limits or (min(least) - room, max(least) + room)))
    for j, marker in zip(range(dataset.sizes["modes"]), MARKERS, strict=False):
        for k, colour in zip(range(dataset.sizes["negatives"]), COLOURS, strict=False):
            cells = scaled.isel(modes=j, negatives=k)
            points(axis, s, mean(cells), bars(cells), colour, fmt=marker)
    for k, colour in zip(range(dataset.sizes["negatives"]), COLOURS, strict=False):
        handles.append(Line2D([], [], color=colour, marker="o", linestyle="none"))
        names.append(f"$N={number(float(dataset['negatives'][k]))}$")
    axis.set_xlim(0, dense[-1])
    axis.set_xlabel(r"strength $s$ (units of $\tau$)")
    legend_above(axis, handles, names)
