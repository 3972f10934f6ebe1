"""Modes that switch on one after another, exact losses, minibatches, and what random weights do."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.statistics import bars, mean, of_draws
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
    legend_above,
    letter,
    number,
    panels,
    points,
    style,
)
from theory.ssl_collapse import plateau_escape_rate

MODES = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY)
LOOKS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")


def dynamics(dataset: xr.Dataset) -> Figure | None:
    """Strengths over time without decay, and every mode's half-time against its final strength."""
    if dataset.sizes["time"] < 2:
        return None
    with style():
        figure, axes = panels(1, 3, 2.55)
        first = dataset.isel(weight_decay=0) if dataset["weight_decay"].ndim else dataset
        _switches(axes[0, 0], first, "spectral")
        _switches(axes[0, 1], first, "infonce", "infonce_quartic")
        axes[0, 0].legend(
            loc="upper left", fontsize=SMALL, title="mode", title_fontsize=SMALL, ncols=2, handlelength=0.6
        )
        looks = [Line2D([], [], color=GREY), Line2D([], [], color=GREY, linestyle=DASHED)]
        axes[0, 1].legend(looks, ["exact", "quartic"], loc="upper left", fontsize=SMALL)
        _order(axes[0, 2], dataset)
        letter(axes.flat)
        decay = number(float(first["weight_decay"]))
        footer(
            figure, dataset, rf"(a), (b): $\lambda={decay}$; line: theory, markers: gradient descent in full matrices"
        )
    return figure


def _switches(axis, dataset, name, wrong=None):
    draws, t = dataset[name], dataset["time"].values
    theory = of_draws(dataset[f"{name}_theory"])
    axis.set_xscale("log")
    highest = float(max(mean(draws).max(), theory.max()))
    axis.set_ylim(-0.03 * highest, 1.35 * highest)
    for k, (mode, colour) in enumerate(zip(dataset["mode"].values, MODES, strict=False)):
        axis.plot(t, theory.isel(mode=k), color=colour, zorder=3)
        if wrong:
            axis.plot(t, of_draws(dataset[wrong]).isel(mode=k), color=colour, linestyle=DASHED, linewidth=0.7)
        here = draws.isel(mode=k)
        points(axis, t, mean(here), bars(here), colour, f"{mode}", ms=1.8, elinewidth=0.7, zorder=2)
    axis.set_xlabel("time $t$")
    axis.set_ylabel(label_of(draws))


def _order(axis, dataset):
    """Half-times, over the strengths at the last time, of modes that have come to their end by then."""
    axis.set_yscale("log")
    several = dataset["weight_decay"].ndim > 0
    decays = np.atleast_1d(dataset["weight_decay"].values)
    chosen = np.unique(np.linspace(0, len(decays) - 1, 3).round().astype(int))
    reached = dataset["half_time"].where(np.isfinite(dataset["half_time"]))
    predicted = of_draws(dataset["half_time_theory"].where(np.isfinite(dataset["half_time_theory"])))
    axis.set_ylim(0.7 * float(reached.min()), 2.2 * float(reached.max()))
    for k, look in zip(chosen, LOOKS, strict=False):
        at = {"weight_decay": k} if several else {}
        strength = of_draws(dataset["spectral_theory"]).isel({**at, "time": -1})
        axis.plot(strength, predicted.isel(at), color=GREY, linewidth=0.8)
        times = reached.isel(at)
        for mode, colour in zip(range(dataset.sizes["mode"]), MODES, strict=False):
            here = times.isel(mode=mode)
            if np.isfinite(here).all():
                points(axis, [float(strength[mode])], [float(mean(here))], [float(bars(here))], colour, fmt=look, ms=3)
    looks = [Line2D([], [], color=GREY, marker=look, linestyle="none", ms=3) for look in LOOKS[: len(chosen)]]
    words = [rf"$\lambda={number(float(decays[k]))}$" for k in chosen]
    axis.legend(looks, words, loc="upper left", fontsize=SMALL, handlelength=0.6)
    axis.set_xlabel(r"final strength $\Sigma y$")
    axis.set_ylabel(label_of(dataset["half_time"]))


def riccati(dataset: xr.Dataset) -> Figure | None:
    """Eigenvalues of the Gram matrix from random weights, a panel a rank; dashed: as if every mode were alone."""
    dataset = dataset if dataset["rank"].ndim else dataset.expand_dims("rank")
    shown = dataset["rank"].values[-3:]
    with style():
        figure, axes = panels(1, len(shown), 2.4)
        highest = 1.35 * float(_eigenvalues(dataset["white_modes_alone"]).mean("replicate").max())
        for axis, rank in zip(axes.flat, shown, strict=True):
            here = dataset.sel(rank=rank)
            t = here["time"].values
            found, theory, alone = (_eigenvalues(here[name]) for name in ("white", "white_theory", "white_modes_alone"))
            axis.set_ylim(-0.03 * highest, highest)
            for k, colour in zip(range(found.sizes["eigenvalue"]), MODES, strict=False):
                axis.plot(t, of_draws(theory).isel(eigenvalue=k), color=colour)
                axis.plot(t, of_draws(alone).isel(eigenvalue=k), color=colour, linestyle=DASHED, linewidth=0.7)
                draws = found.isel(eigenvalue=k)
                points(axis, t, mean(draws), bars(draws), colour, ms=1.8, elinewidth=0.7)
            axis.set_title(f"start of rank {number(float(rank))}", fontsize=SMALL + 1)
            axis.set_xlabel("time $t$")
        axes[0, 0].set_ylabel(r"eigenvalues of $U^\top U$")
        looks = [Line2D([], [], color=GREY), Line2D([], [], color=GREY, linestyle=DASHED)]
        axes[0, 0].legend(looks, ["Riccati flow", "every mode alone"], loc="upper left", fontsize=SMALL)
        letter(axes.flat)
        footer(figure, dataset, "markers: gradient descent from random weights, mean over the draws")
    return figure


def _eigenvalues(gram: xr.DataArray) -> xr.DataArray:
    """Falling eigenvalues of every Gram matrix, along a new last dimension."""
    gram = gram.transpose(..., "row", "column")
    values = np.linalg.eigvalsh(gram.values)[..., ::-1]
    rest = [dim for dim in gram.dims if dim not in ("row", "column")]
    return xr.DataArray(values, dims=[*rest, "eigenvalue"], coords={d: gram[d] for d in rest if d in gram.coords})


def minibatch_dynamics(dataset: xr.Dataset) -> Figure | None:
    """Every replicate of minibatch SGD around the logistic curves, a panel a strength of the augmentation."""
    if dataset["augmentation"].ndim == 0:
        dataset = dataset.expand_dims("augmentation")
    picked = np.unique(np.linspace(0, dataset.sizes["augmentation"] - 1, 3).round().astype(int))
    with style():
        figure, axes = panels(1, len(picked), 2.4)
        for axis, k in zip(axes.flat, picked, strict=True):
            here = dataset.isel(augmentation=k)
            t = here["time"].values
            for mode, colour in zip(range(here.sizes["mode"]), MODES, strict=False):
                draws = here["curve"].isel(mode=mode).transpose("replicate", "time").values
                axis.plot(t, draws.T, "o", color=colour, ms=1.4, mew=0, alpha=0.5, zorder=1)
                label = f"{here['mode'].values[mode]}"
                axis.plot(t, of_draws(here["curve_theory"]).isel(mode=mode), color=colour, label=label)
            axis.axhline(1, color=GREY, linewidth=0.5, zorder=0)
            words = f"augmentation × {number(float(here['augmentation']))}"
            axis.set_title(words, fontsize=SMALL + 1)
            axis.set_xlabel("time $t$")
        axes[0, 0].set_ylabel(label_of(dataset["curve"]))
        axes[0, 0].legend(loc="lower right", fontsize=SMALL, title="mode", title_fontsize=SMALL, handlelength=0.8)
        letter(axes.flat)
        footer(figure, dataset, "line: logistic curve; dots: every run of minibatch SGD")
    return figure


def plateau(dataset: xr.Dataset) -> Figure | None:
    """One run on its way over the saddle, on both scales, and the rate at which it leaves."""
    if dataset["rho_out"].ndim == 0 or dataset["a_out"].ndim:
        return None
    dataset = dataset.sortby("rho_out")
    middle = dataset.isel(rho_out=dataset.sizes["rho_out"] // 2, replicate=0).transpose(..., "time", "mode")
    with style():
        figure, axes = panels(1, 3, 2.55)
        left, logarithmic, right = axes[0]
        _plateaus(left, middle)
        _growth(logarithmic, middle)
        for axis in (left, logarithmic):
            axis.set_xlim(0, _end(middle))
            axis.set_xlabel("time $t$")
            axis.set_ylabel("strength")
        _rates(right, dataset)
        letter(axes.flat)
        rho = number(float(middle["rho_out"]))
        footer(figure, dataset, rf"(a), (b): one run at $\rho={rho}$; line: theory, markers: gradient descent")
    return figure


def _missing(run):
    """Index of the mode that comes in late."""
    return int(np.argmax(run["end_theory"].values - run["held_theory"].values))


def _end(run):
    """A time well after the second plateau is reached."""
    strength = run["path"].values[:, _missing(run)]
    return 1.4 * float(run["time"][np.argmax(strength > 0.9 * strength[-1])])


def _plateaus(axis, run):
    highest = float(np.nanmax(run["path"]))
    for k, colour in zip(range(run.sizes["mode"]), MODES, strict=False):
        for name, look in (("held_theory", DASHED), ("end_theory", "-")):
            axis.axhline(float(run[name][k]), color=colour, linestyle=look, linewidth=0.8, zorder=1)
        axis.plot(run["time"], run["path"].isel(mode=k), "o", color=colour, ms=1.8, zorder=2 - 0.1 * k)
    axis.set_ylim(-0.04 * highest, 1.45 * highest)
    looks = [Line2D([], [], color=GREY, linestyle=look) for look in (DASHED, "-")]
    words = ["saddle, the largest $b$", r"minimum, the largest $\beta$"]
    axis.legend(looks, words, loc="upper right", fontsize=SMALL)


def _growth(axis, run):
    t, strength = run["time"].values, run["path"].values[:, _missing(run)]
    for k, colour in zip(range(run.sizes["mode"]), MODES, strict=False):
        mode = f"{run['mode'].values[k]}"
        axis.plot(t, run["path"].isel(mode=k), "o", color=colour, ms=1.8, label=mode if k else f"mode {mode}")
    growing = np.flatnonzero((strength > 1e-8) & (strength < 1e-2))
    if len(growing):
        middle = growing[len(growing) // 2]
        along = t[growing]
        line = strength[middle] * np.exp(2 * float(run["escape_rate_theory"]) * (along - t[middle]))
        axis.plot(along, line, color=BLACK, linewidth=0.9)
        axis.annotate(
            "twice the rate", (along[len(along) // 4], line[len(along) // 4]), (6, -2), textcoords="offset points",
            fontsize=SMALL, va="top",
        )  # fmt: skip
    axis.set_yscale("log")
    axis.set_ylim(1e-10, 10)
    legend_above(axis)


def _rates(axis, dataset):
    """The mode that is held has the least beta, twice its strength; only beta matters of it."""
    rho, a_out = dataset["rho_out"].values, float(dataset["a_out"])
    held = dataset["held_theory"].isel(rho_out=0).values
    beta = 2 * held[held > 0].min()
    dense = np.linspace(rho[0], rho[-1], 200)
    exact = np.asarray(plateau_escape_rate(beta, 1.0, 2 * a_out, a_out / dense))
    axis.plot(dense, exact, color=BLUE)
    axis.set_ylim(0, 1.15 * exact.max())
    draws = dataset["escape_rate"]
    points(axis, rho, mean(draws), bars(draws), BLUE)
    axis.set_xlabel(label_of(dataset["rho_out"], 36))
    axis.set_ylabel(label_of(draws))
