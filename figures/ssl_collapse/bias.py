"""A bias beside the encoder: the dimension that it takes, and the one that it keeps empty."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from figures.statistics import bars, mean
from figures.style import (
    BLUE,
    DASHED,
    DOTTED,
    GREY,
    SMALL,
    VERMILION,
    footer,
    letter,
    number,
    panels,
    points,
    style,
)
from theory.ssl_collapse import dot_bias_threshold, spectral_minimum_with_bias


def spectral_bias(dataset: xr.Dataset) -> Figure | None:
    """Strengths, rank and bias of the spectral loss over the dimension of the embedding."""
    if dataset["m"].ndim == 0:
        return None
    m, rho = dataset["m"].values, dataset["rho"].values
    decay = float(dataset["weight_decay"].values.ravel()[0])
    dense = np.arange(m.min(), m.max() + 1)
    minima = [spectral_minimum_with_bias(np.diag(rho), np.diag(1 - rho), k, decay) for k in dense]
    own = np.maximum(rho - decay / 2, 0)
    with style():
        figure, axes = panels(1, 3, 2.35)
        axis = axes[0, 0]
        axis.set_ylim(-0.05, 1.12)
        for k, value in enumerate(rho):
            color = f"C{k}"
            axis.plot(dense, [float(x.strengths[k]) for x in minima], color=color, drawstyle="steps-mid", alpha=0.8)
            here = dataset["strength"].isel(rho=k)
            points(axis, m, mean(here).values, bars(here).values, color, rf"${number(float(value))}$")
        axis.legend(title=r"$\rho$", ncols=2, fontsize=SMALL, title_fontsize=SMALL, loc="upper left")
        axis.set_ylabel("strength $s$")
        axis.set_ylim(-0.05, 1.6)

        axis = axes[0, 1]
        rank = [int((np.asarray(x.strengths) > 0).sum()) for x in minima]
        axis.plot(dense, rank, color=BLUE, label="$\\min(m-1, n_+)$")
        axis.plot(dense, np.minimum(dense, (own > 0).sum()), color=GREY, linestyle=DASHED, label="without a bias")
        found = (dataset["living"] > 0).sum("rho")
        points(axis, m, mean(found).values, bars(found).values, BLUE)
        axis.legend(loc="upper left")
        axis.set_ylabel("rank of the embedding")

        axis = axes[0, 2]
        axis.set_ylim(0, 1.3)
        axis.plot(dense, [float(x.bias_square) for x in minima], color=BLUE, label="theory")
        axis.axhline(1 - decay / 2, color=GREY, linestyle=DASHED, label="a bias that decays")
        here = dataset["bias_square"]
        points(axis, m, mean(here).values, bars(here).values, BLUE)
        axis.legend(loc="lower right")
        axis.set_ylabel("$|b|^2$")
        for axis in axes.flat:
            axis.set_xlabel("dimension of the embedding $m$")
            axis.set_xticks(dense)
        letter(axes.flat)
        footer(figure, dataset, "lines: theory; markers: SGD on minibatches, 95 % bars")
    return figure


def dot_bias(dataset: xr.Dataset) -> Figure | None:
    """Weakest strength and final bias of every run over the squared bias at its start."""
    if dataset["bias_square"].ndim == 0:
        return None
    start, rho = dataset["bias_square"].values, dataset["rho"].values
    tau = float(dataset["temperature"].values.ravel()[0])
    low, high = (float(dot_bias_threshold(np.array([r]), tau)) for r in (rho.min(), rho.max()))
    weakest = dataset["strength"].isel(rho=-1).transpose("bias_square", "replicate").values
    final = dataset["final_square"].transpose("bias_square", "replicate").values
    jitter = 0.006 * np.linspace(-1, 1, weakest.shape[1]) * np.ptp(start)
    x = (start[:, None] + jitter[None, :]).ravel()
    with style():
        figure, axes = panels(1, 3, 2.35)
        for axis, y in ((axes[0, 0], weakest.ravel() / (tau * rho.min())), (axes[0, 1], final.ravel())):
            axis.plot(x, y, "o", ms=1.8, color=BLUE, alpha=0.6, mew=0)
            axis.axvspan(low, high, color="0.9", zorder=0, label="the start decides")
            axis.set_xlabel("squared bias at the start $|b_0|^2$")
        edges = np.array([0, low, high, 1.05 * start.max()])
        axes[0, 0].plot(edges[:2], [1, 1], color=VERMILION)
        axes[0, 0].plot(edges[2:], [0, 0], color=VERMILION, label="theory")
        axes[0, 0].set(ylabel=r"weakest strength over $\tau\rho$", ylim=(-0.08, 1.5))
        axes[0, 0].legend(loc="center left", fontsize=SMALL)
        axes[0, 1].plot(edges[:2], [0, 0], color=VERMILION)
        axes[0, 1].plot(edges[2:], edges[2:], color=VERMILION)
        axes[0, 1].axhline(low, color=GREY, linestyle=DASHED)
        axes[0, 1].text(0.02, low, r"$2\tau\rho_{\min}$", ha="left", va="bottom", fontsize=SMALL, color=GREY)
        axes[0, 1].set_ylabel("$|b|^2$ after training")
        axis = axes[0, 2]
        axis.plot(final.ravel(), weakest.ravel() / (tau * rho.min()), "o", ms=1.8, color=BLUE, alpha=0.6, mew=0)
        axis.axvline(low, color=GREY, linestyle=DASHED)
        axis.text(low, 1.35, r" $2\tau\rho_{\min}$", ha="left", va="top", fontsize=SMALL, color=GREY)
        axis.set(
            xlabel="$|b|^2$ after training", ylabel=r"weakest strength over $\tau\rho$", ylim=(-0.08, 1.5)
        )  # fmt: skip
        letter(axes.flat)
        footer(figure, dataset, "one point for every run, side by side; lines: theory")
    return figure


def dot_toy(dataset: xr.Dataset) -> Figure | None:
    """Gram eigenvalues of both blocks over the theory's, and the smallest against the final bias."""
    starts = np.atleast_1d(dataset["bias"].values)
    if dataset["bias"].ndim == 0:
        dataset = dataset.expand_dims("bias")
    with style():
        figure, axes = panels(1, 3, 2.35)
        for axis, name, words in (
            (axes[0, 0], "clean", "directions without noise"),
            (axes[0, 1], "noisy", "noisy directions"),
        ):
            top = float(np.nanmax(dataset[name].values))
            axis.set_ylim(-0.08, max(1.25, 1.1 * top))
            index = dataset[dataset[name].dims[-1]].values
            axis.axhline(1, color="black", label="theory")
            for k, start in enumerate(starts):
                here = dataset[name].isel(bias=k).transpose("replicate", ...).values
                shift = 0.12 * (k - (len(starts) - 1) / 2)
                axis.plot(
                    np.broadcast_to(index + shift, here.shape).ravel(), here.ravel(), "o", ms=1.8, mew=0, alpha=0.6,
                    color=f"C{k}", label=f"{number(float(start))}",
                )  # fmt: skip
            axis.set(xlabel=words, ylabel=dataset[name].attrs.get("label", name).split(",")[0])
            axis.set_xticks(index)
        axes[0, 1].axhline(0, color=GREY, linestyle=DOTTED)
        axes[0, 1].legend(title="bias at the start", loc="center left", fontsize=SMALL, title_fontsize=SMALL)
        axis = axes[0, 2]
        for k in range(len(starts)):
            here = dataset.isel(bias=k)
            axis.plot(here["final_square"], here["noisy"].isel(noisy_direction=-1), "o", ms=2.6, mew=0, color=f"C{k}")
        axis.axvline(1, color=GREY, linestyle=DASHED)
        axis.set(
            xlabel=dataset["final_square"].attrs.get("label", "final_square"),
            ylabel="the last of the noisy directions", ylim=(-0.08, 1.25),
        )  # fmt: skip
        letter(axes.flat)
        footer(figure, dataset, "one point for every run and direction; line: theory for infinitely many negatives")
    return figure
