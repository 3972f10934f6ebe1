"""Trainability: the final loss over weight scale and branch strength, and over the exponents at the start."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from figures.signal_propagation.transformer import transformer
from figures.statistics import bars, edges, failed, first_of_the_rest, mean
from figures.style import BLUE, GREY, SMALL, footer, hatched, label_of, letter, panels, style, verdict_of
from theory.signal_propagation import angle_exponent, gradient_exponent

DENSE = 81
LOSS = "cividis_r"


def training(dataset: xr.Dataset) -> Figure:
    """Loss over (alpha, sigma_w) with the critical line, over both total exponents, and against the score."""
    dataset, words = first_of_the_rest(dataset, "alpha", "sigma_w")
    dataset = dataset.sortby(["alpha", "sigma_w"])
    loss = mean(dataset["final_loss"])
    angle, pooled = totals(dataset, *np.meshgrid(dataset["alpha"], dataset["sigma_w"], indexing="ij"))
    limits = float(loss.min()), float(loss.max())
    with style():
        figure, axes = panels(1, 3, 2.5)
        left, middle, right = axes[0]
        image = _map(left, dataset, loss, limits)
        middle.axhline(0, color=GREY, linewidth=0.5)
        middle.axvline(0, color=GREY, linewidth=0.5)
        middle.scatter(
            angle.ravel(), pooled.ravel(), c=loss.values.ravel(), cmap=LOSS, vmin=limits[0], vmax=limits[1], s=22,
            edgecolors="black", linewidths=0.4, zorder=3,
        )  # fmt: skip
        middle.set_xlabel(r"$L\lambda_a$ at the start")
        middle.set_ylabel(r"$L\lambda_g^{\mathrm{pool}}$ at the start")
        bar = figure.colorbar(image, ax=axes[0, :2], pad=0.02, aspect=25)
        bar.set_label(label_of(dataset["final_loss"]))
        bar.outline.set_linewidth(0.6)
        score = dataset["final_loss_theory"].transpose("alpha", "sigma_w").values.ravel()
        half = bars(dataset["final_loss"]).transpose("alpha", "sigma_w").values.ravel()
        right.errorbar(score, loss.transpose("alpha", "sigma_w").values.ravel(), yerr=half, fmt="o", color=BLUE)
        right.set_xlabel(r"$\max(|L\lambda_a|, |L\lambda_g^{\mathrm{pool}}|)$")
        right.set_ylabel(label_of(dataset["final_loss"]))
        right.set_ylim(0, 1.15 * limits[1])
        for judgement in verdict_of(dataset):
            if judgement["kind"] == "rank" and "rank correlation" in judgement["numbers"]:
                low, high = judgement["numbers"]["its interval"]
                words_of_rank = (
                    f"rank correlation {judgement['numbers']['rank correlation']:.2f}\n[{low:.2f}, {high:.2f}]"
                )
                right.text(
                    0.97, 0.05, words_of_rank.replace("-", "−"), ha="right", fontsize=SMALL, color=GREY,
                    transform=right.transAxes,
                )  # fmt: skip
        letter(axes.flat)
        footer(figure, dataset, "; ".join(part for part in (r"black line: $\lambda_a=0$ by theory", words) if part))
    return figure


def totals(dataset: xr.Dataset, alpha, sigma_w) -> tuple[np.ndarray, np.ndarray]:
    """Both exponents at the start, times the depth, in the unit-variance gauge."""
    depth = json.loads(dataset.attrs["settings"])["depth"]
    config = transformer(dataset, alpha_A=alpha, alpha_M=alpha, sigma_w=sigma_w).unit_variance()
    return depth * np.asarray(angle_exponent(config)), depth * np.asarray(gradient_exponent(config, "pooled"))


def _map(axis, dataset, loss, limits):
    x, y = edges(dataset["alpha"].values), edges(dataset["sigma_w"].values)
    x = np.clip(x, 1e-3, 1 - 1e-3)
    values = loss.transpose("sigma_w", "alpha").values
    image = axis.pcolormesh(x, y, values, cmap=LOSS, vmin=limits[0], vmax=limits[1], rasterized=True)
    hatched(axis, x, y, failed(dataset).transpose("sigma_w", "alpha").values)
    alpha, sigma_w = np.meshgrid(np.linspace(x[0], x[-1], DENSE), np.linspace(max(y[0], 0.05), y[-1], DENSE))
    angle, _ = totals(dataset, alpha, sigma_w)
    if angle.min() < 0 < angle.max():
        axis.contour(alpha, sigma_w, angle, [0.0], colors="black", linewidths=0.9)
    axis.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    axis.set_xlabel(r"branch strength $\alpha$")
    axis.set_ylabel(label_of(dataset["sigma_w"]))
    return image
