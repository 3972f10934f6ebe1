"""Depth-scaled branches: total exponents stay put however deep the network is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.signal_propagation.transformer import spread, transformer
from figures.statistics import bars, first_of_the_rest, mean
from figures.style import (
    BLUE,
    COLOURS,
    DOTTED,
    GREY,
    SMALL,
    footer,
    legend_above,
    letter,
    number,
    panels,
    points,
    style,
)
from theory.signal_propagation import angle_exponent, depth_scaled, depth_scaled_totals, gradient_exponent


def depth_scaling(dataset: xr.Dataset) -> Figure:
    r"""L lambda against L at alpha = kappa / sqrt L: exact at finite L, its limit dotted, and the networks."""
    dataset, _ = first_of_the_rest(dataset, "depth", "kappa_A", "sigma_w")
    kappa_A, kappa_M = float(dataset["kappa_A"][-1]), float(dataset["kappa_M"])
    depths = dataset["depth"].values
    dense = np.unique(np.geomspace(max(depths.min(), 2), 4 * depths.max(), 40).round())
    with style():
        figure, axes = panels(1, 2, 2.4)
        for axis, name in zip(axes[0], ("angle", "pooled"), strict=True):
            curves, ends = {}, {}
            for sigma_w in spread(dataset["sigma_w"].values):
                config = replace(transformer(dataset, sigma_w=float(sigma_w)), norm="pre")
                curves[sigma_w] = [_total(name, config, kappa_A, kappa_M, L) for L in dense]
                ends[sigma_w] = float(getattr(depth_scaled_totals(config, kappa_A, kappa_M), name))
            values = np.concatenate(
                [*curves.values(), mean(dataset[f"{name}_total"].sel(kappa_A=kappa_A)).values.ravel()]
            )
            margin = 0.12 * np.ptp(values) + 0.02
            axis.set_xscale("log")
            axis.set_ylim(values.min() - margin, values.max() + margin)
            axis.axhline(0, color=GREY, linewidth=0.5)
            for (sigma_w, curve), colour in zip(curves.items(), COLOURS, strict=False):
                axis.plot(dense, curve, color=colour)
                axis.axhline(ends[sigma_w], color=colour, linestyle=DOTTED, linewidth=0.9)
                draws = dataset[f"{name}_total"].sel(kappa_A=kappa_A, sigma_w=sigma_w)
                label = rf"$\sigma_w={number(sigma_w)}$" if colour == BLUE else number(sigma_w)
                points(axis, depths, mean(draws), bars(draws), colour, label)
            axis.set_xlabel("depth $L$")
            axis.set_xticks(depths, [number(v) for v in depths])
            axis.minorticks_off()
        axes[0, 0].set_ylabel(r"total angle exponent $L\lambda_a$")
        axes[0, 1].set_ylabel(r"total pooled exponent $L\lambda_g^{\mathrm{pool}}$")
        legend_above(axes[0, 0], fontsize=SMALL)
        looks = [Line2D([], [], color=GREY, linestyle=look) for look in ("-", DOTTED)]
        legend_above(axes[0, 1], looks, ["theory at $L$", "its limit"], fontsize=SMALL, handlelength=1.8)
        letter(axes.flat)
        footer(figure, dataset, rf"$\kappa_A={kappa_A:g}$, $\kappa_M={kappa_M:g}$; markers: simulation with 95 % bars")
    return figure


def _total(name, config, kappa_A, kappa_M, L):
    config = depth_scaled(config, kappa_A, kappa_M, L)
    return float(L * (angle_exponent(config) if name == "angle" else gradient_exponent(config, "pooled")))
