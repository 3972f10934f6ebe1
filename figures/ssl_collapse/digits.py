"""Encoders of real digits: ranks beside the Gaussian prediction, and the tilted matrix that explains the gap."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from figures.statistics import bars, first_of_the_rest, mean
from figures.style import (
    BLUE,
    COLOURS,
    GREY,
    ORANGE,
    PURPLE,
    SMALL,
    VERMILION,
    footer,
    label_of,
    letter,
    number,
    panels,
    points,
    style,
)
from theory.ssl_collapse import collapse_boundary, infonce_mode_strength, learned_directions

KINDS = {"gaussian": (BLUE, "Gaussian surrogate"), "digits": (VERMILION, "digits")}
LOSS = ("temperature", "alpha", "weight_decay")


def digits(dataset: xr.Dataset) -> Figure | None:
    """Ranks, strengths, the spectrum of the matrix that pulls at one level, growth of new directions."""
    if dataset["sigma2"].ndim == 0:
        return None
    dataset = first_of_the_rest(dataset, "sigma2")[0].sortby("sigma2")
    with style():
        figure, axes = panels(2, 2, 4.3)
        _rank(axes[0, 0], dataset)
        _strengths(axes[0, 1], dataset)
        _spectrum(axes[1, 0], dataset)
        growth(axes[1, 1], dataset, "digits_growth")
        letter(axes.flat)
        footer(figure, dataset, "lines: theory; markers with 95 % bars: SGD on minibatches of InfoNCE")
    return figure


def linear_rank(dataset, variances):
    """(dense sigma^2, directions that a linear encoder learns of Gaussian vectors)."""
    low, high = dataset["sigma2"].values[[0, -1]]
    dense = np.geomspace(low / 1.1, high * 1.1, 600)
    boundary = collapse_boundary(dense, "infonce_distance", *(float(dataset[name]) for name in LOSS))
    return dense, learned_directions(variances, boundary, json.loads(dataset.attrs["settings"])["m"])


def _rank(axis, dataset):
    axis.plot(*linear_rank(dataset, dataset["variance"].values), color=GREY, label="theory, Gaussian")
    axis.set_ylim(-0.6, float(dataset["gaussian_rank"].max()) + 1.5)
    for (name, (colour, words)), shift in zip(KINDS.items(), (0.985, 1.015), strict=True):
        rank = dataset[f"{name}_rank"]
        points(axis, dataset["sigma2"] * shift, mean(rank), bars(rank), colour, label=words)
    rank_axes(axis, dataset)


def rank_axes(axis, dataset):
    axis.set_xscale("log")
    ticks = [v for v in (0.05, 0.1, 0.2, 0.5, 1.0) if axis.get_xlim()[0] <= v <= axis.get_xlim()[1]]
    axis.xaxis.set_major_locator(FixedLocator(ticks))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xticklabels([number(v) for v in ticks])
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel(label_of(dataset["sigma2"]))
    axis.set_ylabel("rank of the embedding")
    axis.legend(fontsize=SMALL)


def _strengths(axis, dataset):
    """Every mode at every level, against its noise fraction."""
    tau, alpha, decay = (float(dataset[name]) for name in LOSS)
    noise = dataset["sigma2"]
    q = (alpha * noise + decay * tau) / (dataset["variance"] + noise)
    axis.set(yscale="log", ylim=(8e-3, 6), xlim=(float(q.min()) - 0.03, 1.02))
    dense = np.linspace(float(q.min()), 0.999, 400)
    axis.plot(dense, infonce_mode_strength(dense), color=GREY, label="theory, Gaussian")
    for name, (colour, words) in KINDS.items():
        strength = dataset[f"{name}_strength"]
        means, half, x = (v.transpose("sigma2", "variance").values.ravel() for v in (mean(strength), bars(strength), q))
        seen = (means > 1e-2) & (means < 6)
        points(axis, x[seen], means[seen], half[seen], colour, label=words, ms=2)
    axis.set_xlabel(r"noise fraction $\hat q$ of the mode")
    axis.set_ylabel(r"strength $s/\tau$")
    axis.legend(fontsize=SMALL)


def _spectrum(axis, dataset):
    """Eigenvalues at the level at which the ranks differ most."""
    gap = abs(mean(dataset["digits_rank"]) - dataset["digits_rank_theory"])
    below = dataset["sigma2"] >= 0.08 if (dataset["sigma2"] >= 0.08).any() else dataset["sigma2"] > 0
    at = dataset.isel(sigma2=int(np.argmax(gap.where(below, -1).values)))
    tau, alpha, decay = (float(dataset[name]) for name in LOSS)
    k = np.arange(1, at.sizes["variance"] + 1)
    untilted = (at["variance"].values - (alpha - 1) * float(at["sigma2"])) / tau - decay
    axis.axhline(0, color="0.8", linewidth=0.6, zorder=0)
    axis.set(ylim=(1.6 * untilted.min(), -1.6 * untilted.min()))
    axis.plot(k, untilted, color=GREY, drawstyle="steps-mid", label="theory at $W = 0$")
    for (name, (colour, words)), shift in zip(KINDS.items(), (-0.12, 0.12), strict=True):
        spectrum = at[f"{name}_spectrum"]
        points(axis, k + shift, mean(spectrum), bars(spectrum), colour, label=f"{words}, trained", ms=2.2)
    axis.set_xlabel("eigenvalue number")
    axis.set_ylabel(r"eigenvalue of $B_{\rm eff}$")
    axis.legend(fontsize=SMALL, title=rf"$\sigma^2 = {number(float(at['sigma2']))}$", title_fontsize=SMALL)


def growth(axis, dataset, name: str) -> None:
    """Pull along new directions as training has it, against the tilted and the untilted matrix."""
    measured = dataset[name]
    looks = {
        "growth_theory": (VERMILION, VERMILION, r"tilted $B_{\rm eff}$"),
        "growth_gaussian": (ORANGE, "white", "tilted as Gaussian"),
        "growth_origin": (PURPLE, "white", "untilted"),
    }
    stem = name.removesuffix("growth")
    y, half = mean(measured).values.ravel(), bars(measured).values.ravel()
    xs = {key: mean(dataset[stem + key]).transpose(*mean(measured).dims).values.ravel() for key in looks}
    near = y > -0.12
    low = min(y[near].min(), *(x[near].min() for x in xs.values()))
    high = max(y[near].max(), *(x[near].max() for x in xs.values()))
    room = 0.06 * (high - low)
    axis.set(xlim=(low - room, high + room), ylim=(low - room, max(y[near].max(), 0) + 2 * room))
    axis.axline((0, 0), slope=1, color=GREY, linewidth=0.8, zorder=0)
    axis.axhline(0, color="0.85", linewidth=0.6, zorder=0)
    axis.axvline(0, color="0.85", linewidth=0.6, zorder=0)
    for key in reversed(looks):
        colour, face, words = looks[key]
        points(axis, xs[key][near], y[near], half[near], colour, label=words, ms=2.5, mfc=face)
    axis.set_xlabel("predicted pull along new directions")
    axis.set_ylabel("half their growth rate in training")
    axis.legend(fontsize=SMALL, loc="lower right")


def relu_encoder(dataset: xr.Dataset) -> Figure | None:
    """Ranks of a ReLU encoder beside those of a linear one and of its features; growth of new directions."""
    if dataset["sigma2"].ndim == 0:
        return None
    dataset = first_of_the_rest(dataset, "sigma2")[0].sortby("sigma2")
    with style():
        figure, axes = panels(1, 2, 2.5)
        left, right = axes[0]
        noise = dataset["sigma2"].values
        left.set_ylim(-0.6, float(max(dataset[n].max() for n in ("rank", "feature_rank", "rank_theory"))) + 1.5)
        left.plot(noise, dataset["rank_theory"], color=GREY, label="linear encoder of the pixels", marker="_")
        for name, colour, face, words in (
            ("feature_rank", BLUE, "white", "Gaussian, of its own features"),
            ("rank", VERMILION, VERMILION, "trained"),
        ):
            points(left, noise, mean(dataset[name]), bars(dataset[name]), colour, label=words, mfc=face)
        rank_axes(left, dataset)
        growth(right, dataset, "growth")
        letter(axes.flat)
        footer(figure, dataset, "line: theory; markers with 95 % bars: SGD on minibatches of InfoNCE")
    return figure


def crops(dataset: xr.Dataset) -> Figure | None:
    """Ranks over the weight of alignment, predicted from two views and trained; growth of new directions."""
    if dataset["alpha"].ndim == 0 or dataset["reach"].ndim == 0:
        return None
    dataset = first_of_the_rest(dataset, "reach", "alpha")[0].sortby("alpha")
    with style():
        figure, axes = panels(1, 2, 2.5)
        left, right = axes[0]
        alpha, shown = dataset["alpha"].values, dataset["reach"].values
        shown = shown[np.unique(np.linspace(0, len(shown) - 1, len(COLOURS)).astype(int))]
        left.set_ylim(-0.6, float(dataset["rank_theory"].max()) + 5.5)
        for reach, colour in zip(shown, COLOURS, strict=False):
            at = dataset.sel(reach=reach)
            left.plot(alpha, mean(at["rank_theory"]), color=colour)
            words = rf"reach {number(float(reach))}"
            points(left, alpha, mean(at["rank"]), bars(at["rank"]), colour, label=words)
        handles, labels = left.get_legend_handles_labels()
        handles.append(Line2D([], [], color=GREY))
        left.legend(handles, [*labels, "predicted from two views"], fontsize=SMALL)
        left.set_xlabel(label_of(dataset["alpha"]))
        left.set_ylabel("rank of the embedding")
        left.yaxis.set_major_locator(MaxNLocator(integer=True))
        growth(right, dataset, "growth")
        letter(axes.flat)
        footer(figure, dataset, "lines: theory; markers with 95 % bars: SGD on minibatches of InfoNCE")
    return figure
