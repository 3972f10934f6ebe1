"""A student under label noise: losses, soft thresholding of the modes, and both after a drop of the learning rate."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.statistics import bars, first_of_the_rest, mean, of_draws
from figures.style import (
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
        footer(figure, dataset, "dashed: long-time limit; solid: theory")
    return figure


def _loss(axis, dataset, name, suffix, words):
    step = f"step{suffix}"
    draws = dataset[f"{name}{suffix}"]
    expected = of_draws(dataset[f"{name}{suffix}_theory"])
    values = np.concatenate([mean(draws).values.ravel(), expected.values[:, -1]])
    values = values[values > 0]
    axis.set(xscale="log", yscale="log", ylim=(values.min() / 1.3, values.max() * 1.3))
    x = dataset[step].values
    for k, color in enumerate(NOISE_COLOURS[: dataset.sizes["zeta"]]):
        cell, theory = draws.isel(zeta=k), expected.isel(zeta=k)
        if suffix:
            axis.plot(x, theory, color=color)
        else:
            axis.axhline(float(theory[-1]), color=color, linestyle=DASHED, linewidth=0.8)
            axis.plot(x, mean(cell), color=color, linewidth=0.5)
        points(axis, x, mean(cell), bars(cell), color, ms=2)
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
    """The same under the strongest noise, at several times after the drop."""
    cell = dataset.isel(zeta=-1)
    s, steps = cell["learned_noiseless"].values.ravel(), cell["step_after"].values
    zeta, eta = float(cell["zeta"]), settings["eta"]
    dense = np.linspace(1e-3, 1.05 * s.max(), 300)
    colours = (VERMILION, ORANGE, GREEN, BLUE)
    picked = np.unique(np.linspace(0, len(steps) - 1, TIMES).round().astype(int))
    for k, color in zip(picked, colours, strict=False):
        values = cell["learned_after"].isel(step_after=k).values.ravel()
        axis.plot(s, values, ".", ms=1.5, alpha=0.5, color=color, markeredgewidth=0, rasterized=True)
        t = settings["drop"] * eta * steps[k]
        axis.plot(dense, moments_after_drop(t, dense, eta, zeta).mean, color=color, label=number(float(steps[k])))
    axis.plot(dense, dense, color=GREY, linewidth=0.6)
    axis.set(xlim=(0, dense[-1]), ylim=(-0.03 * dense[-1], dense[-1]))
    axis.set_xlabel("singular value of the data $s$")
    axis.set_ylabel(rf"$\hat s$ after the drop, $\zeta={number(zeta)}$")
    axis.legend(title="steps after", fontsize=SMALL, title_fontsize=SMALL, loc="upper left")
