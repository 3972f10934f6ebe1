"""A student under label noise: losses, soft thresholding of the modes, and both after a drop of the learning rate."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from figures.statistics import bars, first_of_the_rest, mean, of_draws
from figures.style import (
    BLUE,
    DASHED,
    GREEN,
    GREY,
    MAGNITUDE,
    ORANGE,
    PURPLE,
    SKY,
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
from theory.stochastic_collapse import mode_moments, moments_after_drop

NOISE_COLOURS = (BLUE, SKY, GREEN, ORANGE, VERMILION, PURPLE)
TIMES = 4  # after the drop, at which the modes are shown


def thresholds(dataset: xr.Dataset) -> Figure | None:
    """Above: while the learning rate is large; below: after its drop. Lines: theory given the data that were drawn."""
    if dataset["zeta"].ndim == 0:
        return None
    dataset = first_of_the_rest(dataset, "zeta")[0].sortby("zeta")
    settings = json.loads(dataset.attrs["settings"])
    shown = np.unique(np.linspace(0, dataset.sizes["zeta"] - 1, len(NOISE_COLOURS)).round().astype(int))
    dataset = dataset.isel(zeta=shown)
    with style():
        figure, axes = panels(2, 3, 4.6, gridspec_kw={"width_ratios": [1, 1, 0.95]})
        for row, suffix, words in ((axes[0], "", "step"), (axes[1], "_after", "step after the drop")):
            for axis, name in zip(row, ("train_loss", "test_loss"), strict=False):
                _loss(axis, dataset, name, suffix, words)
        _modes(axes[0, 2], dataset, settings)
        _modes_after(axes[1, 2], dataset, settings)
        looks = [Line2D([], [], color=color) for color in NOISE_COLOURS[: len(shown)]]
        words = [number(float(z)) for z in dataset["zeta"]]
        words[0] = rf"$\zeta=$ {words[0]}"
        legend_above(axes[0, 1], looks, words)
        letter(axes.flat)
        footer(figure, dataset, "dashed: limit of long times; solid: theory, below without noise after the drop")
    return figure


def _loss(axis, dataset, name, suffix, words):
    step = f"step{suffix}"
    draws, expected = dataset[f"{name}{suffix}"], of_draws(dataset[f"{name}{suffix}_theory"])
    x, centres = dataset[step].values, mean(draws)
    # Without label noise the train loss falls to 0, out of the panel.
    noisy = centres.isel(zeta=slice(1, None)).values
    low, high = noisy.min() / (8 if name == "train_loss" else 1.25), centres.values.max() * 1.25
    axis.set(xscale="log", yscale="log", ylim=(low, high))
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axis.yaxis.set_minor_formatter(NullFormatter())
    for k, color in enumerate(NOISE_COLOURS[: dataset.sizes["zeta"]]):
        cell, theory = draws.isel(zeta=k), expected.isel(zeta=k)
        if suffix:
            axis.plot(x, theory, color=color)
        else:
            axis.axhline(float(theory[-1]), color=color, linestyle=DASHED, linewidth=0.8)
            axis.plot(x, mean(cell), color=color, linewidth=0.5)
        seen = (mean(cell) > low).values
        points(axis, x[seen], mean(cell)[seen], bars(cell)[seen], color, ms=2)
        if not seen.any():
            note = rf"$\zeta={number(float(cell['zeta']))}$: below {number(10.0 ** np.ceil(np.log10(cell.max())))}"
            axis.text(0.02, 0.02, note, transform=axis.transAxes, fontsize=SMALL, color=color, va="bottom")
    axis.set_xlabel(words)
    axis.set_ylabel(name.replace("_", " "))


def _modes(axis, dataset, settings):
    """Each mode of each draw against the soft threshold."""
    s = dataset["learned_noiseless"]
    dense = np.linspace(0, 1.05 * float(s.max()), 300)
    axis.plot(dense, dense, color=GREY, linewidth=0.6)
    for k, color in enumerate(NOISE_COLOURS[: dataset.sizes["zeta"]]):
        cell = dataset.isel(zeta=k)
        axis.plot(
            cell["learned_noiseless"].values.ravel(), cell["learned"].values.ravel(), ".", ms=1.5, alpha=0.5,
            color=color, markeredgewidth=0, rasterized=True,
        )  # fmt: skip
        zeta = float(cell["zeta"])
        axis.plot(dense, mode_moments(np.maximum(dense, 1e-9), settings["eta"], zeta).mean, color=color)
    axis.set(xlim=(0, dense[-1]), ylim=(-0.03 * dense[-1], dense[-1]))
    axis.set_xlabel("singular value of the data $s$")
    axis.set_ylabel(r"learned mode $\hat s$")


def _modes_after(axis, dataset, settings):
    """Under the strongest noise, at several times after the drop: each mode's mean over the draws."""
    cell = dataset.isel(zeta=-1)
    s, steps = mean(cell["learned_noiseless"]).values, cell["step_after"].values
    zeta, eta = float(cell["zeta"]), settings["eta"]
    dense = np.linspace(1e-3, 1.05 * float(dataset["learned_noiseless"].max()), 300)
    picked = np.unique(np.linspace(0, len(steps) - 1, TIMES).round().astype(int))
    for k, color in zip(picked, colormaps[MAGNITUDE](np.linspace(0, 0.85, len(picked))), strict=True):
        values = mean(cell["learned_after"].isel(step_after=k)).values
        axis.plot(s, values, ".", ms=2.5, color=color, markeredgewidth=0)
        t = settings["drop"] * eta * steps[k]
        axis.plot(dense, moments_after_drop(t, dense, eta, zeta).mean, color=color, label=number(float(steps[k])))
    axis.plot(dense, dense, color=GREY, linewidth=0.6)
    axis.set(xlim=(0, dense[-1]), ylim=(-0.03 * dense[-1], dense[-1]))
    axis.set_xlabel("singular value of the data $s$")
    axis.set_ylabel(rf"$\hat s$ after the drop, $\zeta={number(zeta)}$")
    axis.legend(title="steps after the drop", fontsize=SMALL, title_fontsize=SMALL, loc="upper left")
