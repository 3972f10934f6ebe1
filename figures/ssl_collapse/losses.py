"""One encoder under several losses: strengths and collapse; and what pairs of one input do in a minibatch."""

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
from theory.ssl_collapse import (
    barlow_batch_strengths,
    barlow_decayed_strength,
    infonce_mode_strength,
    spectral_batch_strengths,
)

LOOKS = {
    "barlow": ("Barlow Twins", PURPLE, "o"),
    "spectral": ("spectral", BLUE, "s"),
    "infonce_distance": ("InfoNCE, distance", VERMILION, "D"),
    "infonce_dot": ("InfoNCE, dot product", GREEN, "^"),
    "alignment": ("alignment alone", BLACK, "v"),
}
# The classes of `living` of the dataset, in its order.
LIVING = ("spectral", "infonce_dot", "infonce_distance", "barlow")


def curve(name: str, rho, decay: float, tau: float):
    """Strength of a mode of views with unit variance under a loss with weight decay."""
    match name:
        case "barlow":
            return np.where(rho > 0, barlow_decayed_strength(np.maximum(rho, 1e-9), np.maximum(rho, 1e-9), decay), 0)
        case "spectral":
            return np.maximum(rho - decay / 2, 0)
        case "infonce_dot":
            return tau * np.maximum(rho - tau * decay, 0)
        case "infonce_distance":
            return tau * np.asarray(infonce_mode_strength(margin=rho - decay * tau))
        case _:
            return np.zeros_like(rho)


def spectra(dataset: xr.Dataset) -> Figure | None:
    """Strength against correlation at two weight decays, and the number of living modes over weight decay."""
    if dataset["weight_decay"].ndim == 0:
        return None
    decays, rho = dataset["weight_decay"].values, dataset["rho"].values
    tau = float(dataset["temperature"].values.ravel()[0])
    with style():
        figure, axes = panels(1, 3, 2.45)
        dense = np.linspace(0, 1.15 * rho.max(), 400)
        for axis, k in zip(axes[0, :2], (0, -1 if len(decays) < 4 else -2), strict=True):
            decay = float(decays[k])
            axis.set(xlim=(-0.02, dense[-1]), ylim=(-0.12, 3.2))
            for name, (words, color, marker) in LOOKS.items():
                axis.plot(dense, curve(name, dense, decay, tau), color=color)
                here = dataset[name].isel(weight_decay=k)
                points(axis, rho, mean(here).values, bars(here).values, color, words, fmt=marker)
            axis.axvline(decay / 2, color=GREY, linestyle=DASHED, zorder=0)
            axis.text(0.97, 0.95, rf"$\lambda={number(decay)}$", transform=axis.transAxes, ha="right", va="top")
            axis.set_xlabel(r"correlation of two views $\rho$")
        axes[0, 0].set_ylabel("strength $s$")
        handles = [
            Line2D([], [], color=color, marker=marker, ms=3, label=words) for words, color, marker in LOOKS.values()
        ]
        axes[0, 2].legend(handles=handles, loc="lower left", fontsize=SMALL, handlelength=1.4)
        _living(axes[0, 2], dataset, decays, rho)
        letter(axes.flat)
        note = "lines: theory; markers: SGD on minibatches, 95 % bars; dashed: $\\lambda/2$"
        footer(figure, dataset, note)
    return figure


def _living(axis, dataset, decays, rho):
    """Number of living modes: staircase of theory, and the losses side by side."""
    dense = np.linspace(0, 1.15 * decays.max(), 600)
    axis.plot(dense, (2 * rho[None, :] > dense[:, None]).sum(1), color=GREY, drawstyle="steps-mid")
    count = (dataset["living"] > 0).sum("rho")
    shift = 0.012 * dense[-1]
    for k, name in enumerate(LIVING):
        _, color, marker = LOOKS[name]
        here = count.isel(loss=k)
        points(axis, decays + shift * (k - 1.5), mean(here).values, bars(here).values, color, fmt=marker)
    axis.set(xlim=(0, dense[-1]), xlabel=r"weight decay $\lambda$", ylabel="living modes")
    axis.set_yticks(range(len(rho)))


def batch_bias(dataset: xr.Dataset) -> Figure | None:
    """Strengths of modes over the batch size, for two losses whose square holds pairs of one input; their means."""
    if dataset["batch"].ndim == 0:
        return None
    batch, rho = dataset["batch"].values, dataset["rho"].values
    dense = np.geomspace(batch.min() / 1.3, batch.max() * 1.3, 300)
    with style():
        figure, axes = panels(1, 3, 2.35)
        for axis, name, formula, limit in (
            (axes[0, 0], "barlow", barlow_batch_strengths, 1 / rho),
            (axes[0, 1], "spectral", spectral_batch_strengths, rho),
        ):
            axis.set(xscale="log", ylim=(0, 1.15 * limit.max()))
            lines = np.asarray(formula(rho, dense))
            for k, colour in enumerate((BLUE, GREEN, VERMILION)):
                axis.plot(dense, lines[:, k], color=colour)
                axis.axhline(limit[k], color=colour, linestyle=DASHED, linewidth=0.7)
                here = dataset[name].isel(rho=k)
                points(axis, batch, mean(here).values, bars(here).values, colour, rf"$\rho={number(float(rho[k]))}$")
            axis.set_ylabel(label_of(dataset[name], 40))
        axes[0, 1].legend(loc="lower right", fontsize=SMALL)
        axis = axes[0, 2]
        axis.set(xscale="log")
        theory = {name: of_draws(dataset[f"{name}_loss_theory"]).values for name in ("barlow", "spectral")}
        axis.set_ylim(0, 1.3 * max(v.max() for v in theory.values()))
        for name, colour in (("barlow", PURPLE), ("spectral", ORANGE)):
            axis.plot(batch, theory[name], color=colour)
            here = dataset[f"{name}_loss"]
            words = {"barlow": "Barlow Twins", "spectral": "spectral, all pairs"}[name]
            points(axis, batch, mean(here).values, bars(here).values, colour, words)
        axis.set_ylabel(r"$n\,(E\hat L - L)$")
        axis.legend(loc="center right", fontsize=SMALL)
        for axis in axes.flat:
            axis.set_xlabel("batch size $n$")
            axis.set_xlim(dense[0], dense[-1])
            axis.set_xticks(batch, [number(v) for v in batch])
            axis.minorticks_off()
        letter(axes.flat)
        footer(figure, dataset, "lines: theory; dashed: infinitely many inputs; markers: simulation, 95 % bars")
    return figure
