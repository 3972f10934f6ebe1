"""DirectPred: the strengths that its eps leaves, and which modes it rescues or kills."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from figures.ssl_collapse.byol_modes import CLEAN, COLOURS, LINE, NOISE, fates, words
from figures.statistics import bars, edges, first_of_the_rest, mean
from figures.style import BLACK, SMALL, footer, label_of, letter, number, panels, points, shared_x_label, style
from theory.ssl_collapse import direct_predictor_critical_start, direct_predictor_strengths

MODES = range(1, 5)


def predictions(eps, eta):
    """(sqrt(s), critical start) of every mode over eps. Shapes (eps, modes)."""
    a, c, eps = CLEAN[None, :], NOISE[None, :], eps[:, None]
    s = np.asarray(direct_predictor_strengths(a, c, eta, eps))
    edge = np.asarray(direct_predictor_critical_start(s.max(1, keepdims=True), a, c, eta, eps))
    return np.sqrt(s), np.where(np.isinf(edge), 1e3, edge)


def direct(dataset: xr.Dataset) -> Figure | None:
    """Left: roots of the strengths over eps from the largest start; right: who survives, over eps and start."""
    if dataset["eps"].ndim == 0 or dataset["start"].ndim == 0:
        return None
    dataset = first_of_the_rest(dataset, "eps", "start")[0].sortby(["eps", "start"])
    eta, eps = float(dataset["weight_decay"]), dataset["eps"].values
    if (eps > 0).sum() < 2:
        return None
    with style():
        figure, axes = panels(1, 4, 2.3, gridspec_kw={"width_ratios": [1.7, 1, 1, 1]})
        _strengths(axes[0, 0], dataset, eps, eta)
        positive = dataset.sel(eps=eps[eps > 0])
        grid = edges(eps[eps > 0], True)
        dense = np.geomspace(grid[0], grid[-1], 600)
        _, edge = predictions(dense, eta)
        for mode, axis in zip(MODES[1:], axes[0, 1:4], strict=True):
            fates(axis, positive, "survival", mode, "eps", "start", 0.25, (True, True))
            axis.plot(dense, np.maximum(edge[:, mode - 1], 1e-9), **LINE)
            axis.set_title(words(mode), fontsize=SMALL, loc="right")
        for axis in axes[0, 2:4]:
            axis.tick_params(labelleft=False)
        axes[0, 1].set_ylabel(label_of(dataset["start"]))
        shared_x_label(axes[0, 1:4], label_of(dataset["eps"]))
        letter(axes.flat)
        footer(
            figure,
            dataset,
            rf"$\eta={number(eta)}$; colour and markers: SGD, green where a mode lives; lines: theory; hatched: "
            "not decided in time, or in the band",
        )
    return figure


def _strengths(axis, dataset, eps, eta):
    here = dataset["root"].isel(start=-1)
    dense = np.concatenate([[0.0], np.geomspace(eps[eps > 0].min() / 3, eps.max() * 1.3, 300)])
    lines, _ = predictions(dense, eta)
    linear = eps[eps > 0].min()
    axis.set_xscale("symlog", linthresh=linear)
    axis.set(xlim=(-0.15 * linear, dense[-1]), ylim=(-0.03, 1.12))
    for mode, colour in zip(MODES, COLOURS, strict=True):
        axis.plot(dense, lines[:, mode - 1], color=colour, label=words(mode))
        values = here.sel(mode=mode)
        points(axis, eps, mean(values), bars(values), colour)
    axis.legend(fontsize=SMALL, loc="upper right", ncols=2, handlelength=1.0, columnspacing=0.8)
    axis.set_xticks([0.0, *(10.0**k for k in range(-2, 3) if linear < 10.0**k < dense[-1])])
    axis.axhline(0, color=BLACK, linewidth=0.4, zorder=0)
    axis.set(xlabel=label_of(dataset["eps"]), ylabel=label_of(dataset["root"], 26))
