"""A scalar neuron with label noise: where it collapses over learning rate and noise, and how the paths end."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.statistics import bars, edges, mean
from figures.style import (
    BLACK,
    BLUE,
    DASHED,
    GREEN,
    GREY,
    MAGNITUDE,
    ORANGE,
    SKY,
    SMALL,
    VERMILION,
    footer,
    label_of,
    legend_above,
    letter,
    number,
    panels,
    points,
    style,
)
from theory.stochastic_collapse import neuron_exponents

ONE = np.ones(1)  # data of C = X_2 = 1, as the neuron's are up to the noise of its targets
PHASES = LinearSegmentedColormap.from_list("phases", ["#3b2c6e", "#f4f1e4"])
TARGET_NOISE, SPAN, GRID, POINTS = 0.1, 2.6, 161, 250


def diagram(dataset: xr.Dataset) -> Figure | None:
    """Phases of SGD over learning rate and label noise, and the exponents along two noise levels."""
    if dataset["eta"].ndim == 0 or dataset["zeta"].ndim == 0:
        return None
    dataset = dataset.sortby(["eta", "zeta"])
    eta, zeta = dataset["eta"].values, dataset["zeta"].values
    with style():
        figure, axes = panels(1, 3, 2.5, gridspec_kw={"width_ratios": [1.15, 1, 1]})
        axis = axes[0, 0]
        x, y = edges(eta), edges(zeta)
        values = mean(dataset["phase"]).transpose("zeta", "eta").values
        axis.pcolormesh(x, y, values, cmap=PHASES, vmin=-1, vmax=1, rasterized=True)
        dense = [np.linspace(max(e[0], 1e-3), e[-1], 240) for e in (x, y)]
        exact = np.asarray(neuron_exponents(ONE, ONE, dense[0][None, :], dense[1][:, None], time="full_gradient").u)
        axis.contour(*dense, exact, levels=[0.0], colors=[VERMILION], linewidths=1.2)
        axis.plot(dense[0], np.sqrt(2 / dense[0]), color=BLUE, linestyle=DASHED)
        axis.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
        axis.set(xlabel=label_of(dataset["eta"]), ylabel=label_of(dataset["zeta"]))
        looks = [Line2D([], [], color=VERMILION), Line2D([], [], color=BLUE, linestyle=DASHED)]
        legend_above(axis, looks, ["exact", "SDE"], handlelength=1.6)
        axis.text(0.96, 0.04, "light: live\ndark: collapsed", transform=axis.transAxes, ha="right", fontsize=SMALL)
        for axis, names, words in (
            (axes[0, 1], ("u", "v"), "full gradient"),
            (axes[0, 2], ("single_u", "single_v"), "single samples"),
        ):
            _exponents(axis, dataset, names)
            axis.set_title(words, fontsize=SMALL + 0.5, loc="right")
        axes[0, 1].set_ylabel("exponent per step")
        letter(axes.flat)
        footer(figure, dataset, "colour and markers: SGD; lines: theory for each draw of the data")
    return figure


def _exponents(axis, dataset, names):
    """Exponents of u (filled) and v (open) against the learning rate, at two noise levels."""
    eta, zeta = dataset["eta"].values, dataset["zeta"].values
    levels = np.unique([len(zeta) // 6, len(zeta) - 1 - len(zeta) // 4])
    shown = [mean(dataset[f"{n}{t}"]).isel(zeta=levels) for n in names for t in ("", "_theory")]
    low, high = min(float(s.min()) for s in shown), max(float(s.max()) for s in shown)
    axis.set_ylim(low - 0.08 * (high - low), high + 0.35 * (high - low))
    axis.axhline(0, color="0.8", linewidth=0.6)
    for level, colour in zip(levels, (GREEN, ORANGE), strict=False):
        for name, face in zip(names, (colour, "white"), strict=True):
            here, predicted = (dataset[f"{name}{t}"].isel(zeta=level) for t in ("", "_theory"))
            axis.plot(eta, mean(predicted), color=colour)
            points(axis, eta, mean(here), bars(here), colour, mfc=face)
    looks = [Line2D([], [], color=c, marker="o") for c, _ in zip((GREEN, ORANGE), levels, strict=False)]
    looks += [Line2D([], [], color=GREY, marker="o", mfc=face, linestyle="none") for face in (GREY, "white")]
    words = [rf"$\zeta={number(float(zeta[level]))}$" for level in levels]
    axis.legend(looks, [*words, r"$w_1+w_2$", r"$w_1-w_2$"], loc="upper left", ncols=2, fontsize=SMALL + 0.5)
    axis.set_xlabel(label_of(dataset["eta"]))


def noise(dataset: xr.Dataset) -> Figure | None:
    """End points on the loss at three noise levels, and the collapsed fraction against the noise at several times."""
    if dataset["eta"].ndim == 0:
        return None
    dataset = dataset.sortby("eta")
    eta = dataset["eta"].values
    strength = eta * float(dataset["zeta"]) ** 2 / 2 if dataset["zeta"].ndim == 0 else None
    if strength is None:
        return None
    with style():
        figure, axes = panels(1, 4, 2.15, gridspec_kw={"width_ratios": [1, 1, 1, 1.35]})
        some = [int(np.argmin(np.abs(strength - wish))) for wish in (0.3, 0.9, 1.8)]
        for axis, k in zip(axes[0, :3], some, strict=True):
            _end_points(axis, dataset["end"].isel(eta=k))
            axis.set_title(rf"$\eta\zeta^2/2={number(float(strength[k]))}$", fontsize=SMALL + 0.5, loc="right")
        axes[0, 0].set_ylabel("$w_2$")
        for axis in axes[0, 1:3]:
            axis.tick_params(labelleft=False)
        axis = axes[0, 3]
        axis.set_ylim(-0.03, 1.06)
        axis.axvline(1, color=BLACK, linestyle=DASHED)
        for time, colour in zip(dataset["time"].values, (SKY, BLUE, VERMILION), strict=False):
            here = dataset["fraction"].sel(time=time)
            axis.plot(strength, mean(here), color=colour, linewidth=0.7)
            points(axis, strength, mean(here), bars(here), colour, rf"$t={number(float(time))}$")
        axis.set(xlabel=r"label noise $\eta\zeta^2\sigma'(0)/2$", ylabel=label_of(dataset["fraction"], 30))
        legend_above(axis)
        letter(axes.flat)
        footer(
            figure, dataset, "colour: loss of many samples; dots: end points; markers with 95 % bars: Euler steps of "
            "the SDE, joined; dashed: threshold",
        )  # fmt: skip
    return figure


def _end_points(axis, end):
    """The loss of infinitely many samples, and the last weights of some paths of every draw."""
    grid = np.linspace(-SPAN, SPAN, GRID)
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    f = grid[:, None, None] * np.tanh(grid[None, :, None] * nodes)
    loss = ((f - nodes) ** 2 @ weights / weights.sum() + TARGET_NOISE**2) / 2
    axis.pcolormesh(grid, grid, np.log(loss), cmap=MAGNITUDE, rasterized=True, shading="nearest")
    ends = end.stack(point=("path", "replicate")).transpose("weight", "point").values
    axis.plot(*ends[:, :POINTS], "o", ms=1.6, mew=0.25, mfc="white", mec="black", clip_on=True)
    axis.set(xlim=(-SPAN, SPAN), ylim=(-SPAN, SPAN), xlabel="$w_1$", xticks=(-2, 0, 2), yticks=(-2, 0, 2))
