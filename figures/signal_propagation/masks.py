"""Causal against bidirectional collapse: exponents of real networks, and the slow approach to them."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.signal_propagation.transformer import spread, transformer
from figures.statistics import bars, first_of_the_rest, mean
from figures.style import (
    BLUE,
    COLOURS,
    DASHED,
    DOTTED,
    GREY,
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
from theory.signal_propagation import angle_exponent, gradient_exponent, propagate_gram, stationary_norm

APPROACH = 200
gram_path = jax.jit(propagate_gram, static_argnums=1)


def causal(dataset: xr.Dataset) -> Figure:
    """Angle and token exponents against sigma_w with a causal mask, without one dashed; and the rate block by block."""
    dataset, words = first_of_the_rest(dataset, "alpha", "sigma_w")
    sigma_w = dataset["sigma_w"].values
    dense = np.linspace(sigma_w.min(), sigma_w.max(), 81)
    shown = spread(dataset["alpha"].values)
    with style():
        figure, axes = panels(1, 3, 2.4)
        for axis, name in zip(axes[0, :2], ("angle", "token"), strict=True):
            lines = {
                (alpha, mask): _exponent(name, transformer(dataset, alpha_A=alpha, alpha_M=alpha, sigma_w=dense), mask)
                for alpha in shown for mask in (True, False)
            }  # fmt: skip
            top, bottom = (f([f(v) for (_, mask), v in lines.items() if mask]) for f in (np.max, np.min))
            axis.set_ylim(bottom - 0.25 * (top - bottom), top + 0.1 * (top - bottom))
            axis.axhline(0, color=GREY, linewidth=0.5)
            for alpha, colour in zip(shown, COLOURS, strict=False):
                axis.plot(dense, lines[alpha, True], color=colour)
                axis.plot(dense, lines[alpha, False], color=colour, linestyle=DASHED, linewidth=0.8)
                draws = dataset[f"{name}_exponent"].sel(alpha=alpha)
                label = rf"$\alpha={number(alpha)}$" if colour == BLUE else number(alpha)
                points(axis, sigma_w, mean(draws), bars(draws), colour, label)
            axis.set_xlabel(r"first MLP scale $\sigma_w$")
        axes[0, 0].set_ylabel(r"angle exponent $\lambda_a$")
        axes[0, 1].set_ylabel(r"token exponent $\lambda_g^{\mathrm{tok}}$")
        legend_above(axes[0, 0], fontsize=SMALL)
        looks = [Line2D([], [], color=GREY, linestyle=look) for look in ("-", DASHED)]
        legend_above(axes[0, 1], looks, ["causal", "bidirectional"], fontsize=SMALL, handlelength=1.8)
        _approach(axes[0, 2], dataset, float(shown[len(shown) // 2]))
        letter(axes.flat)
        footer(figure, dataset, "; ".join(part for part in ("markers: simulation with 95 % bars", words) if part))
    return figure


def _exponent(name, config, mask):
    config = replace(config, causal=mask)
    return np.asarray(angle_exponent(config) if name == "angle" else gradient_exponent(config, "token"))


def _approach(axis, dataset, alpha):
    """Rate of the mean 1 - cosine in the Gram map, from equal cosines, against the exponent."""
    n = int(transformer(dataset).n)
    sigma_w = float(dataset["sigma_w"][dataset.sizes["sigma_w"] // 2])
    config = transformer(dataset, alpha_A=alpha, alpha_M=alpha, sigma_w=sigma_w)
    blocks = np.arange(1, APPROACH + 1)
    for mask, colour in ((True, BLUE), (False, VERMILION)):
        one = replace(config, causal=mask)
        q = float(stationary_norm(one))
        start = q * (np.eye(n) * 1e-6 + (1 - 1e-6))
        C = np.asarray(gram_path(start, APPROACH, one))
        lengths = np.sqrt(np.diagonal(C, axis1=1, axis2=2))
        apart = 1 - (C / (lengths[:, :, None] * lengths[:, None, :])).mean((1, 2))
        rate = np.diff(np.log(np.maximum(apart, 1e-300)))
        seen = apart[1:] > 1e-11
        axis.plot(blocks[seen], rate[seen], color=colour, label="causal" if mask else "bidirectional")
        axis.axhline(float(angle_exponent(one)), color=colour, linestyle=DOTTED, linewidth=0.9)
    axis.set_xscale("log")
    axis.set_xlabel("block $l$")
    axis.set_ylabel(r"$\Delta\ln\langle 1-\hat C\rangle$ per block")
    axis.legend(loc="center right", fontsize=SMALL)
