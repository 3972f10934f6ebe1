"""Overlaps of softmax rows against the logit scale, and what the annealed closure does to the geometry."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.signal_propagation.transformer import spread
from figures.statistics import bars, mean
from figures.style import (
    BLUE,
    COLOURS,
    DASHED,
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
from theory.signal_propagation import TransformerConfig, propagate, softmax_overlaps

DENSE = 21
BLOCKS = 6
LOGITS = np.linspace(0.4, 4.0, 10)

overlaps_of = jax.jit(softmax_overlaps, static_argnames="method")
propagate_all = jax.jit(propagate, static_argnums=2)


def overlaps(dataset: xr.Dataset) -> Figure:
    """Q and P against s for several n, exact and annealed; and the cosine's error by the annealed closure."""
    r = float(dataset["r"][dataset.sizes["r"] // 2])
    n_values = spread(dataset["n"].values)
    s = dataset["s"].values
    dense = np.linspace(min(s.min(), 0.25), s.max(), DENSE)
    with style():
        figure, axes = panels(1, 3, 2.4)
        for axis, name in zip(axes[0, :2], "QP", strict=True):
            axis.set_yscale("log")
            axis.set_ylim(0.5 / max(n_values), 1.4)
            for n, colour in zip(n_values, COLOURS, strict=False):
                for method, look in (("exact", "-"), ("annealed", DASHED)):
                    values = getattr(overlaps_of(n, dense, r, method=method), name)
                    axis.plot(dense, values, color=colour, linestyle=look, linewidth=1.1 if look == "-" else 0.8)
                draws = dataset[name].sel(n=n, r=r)
                label = f"$n={n:.0f}$" if colour == BLUE else f"{n:.0f}"
                points(axis, s, mean(draws), bars(draws), colour, label)
            axis.set_xlabel("logit standard deviation $s$")
        axes[0, 0].set_ylabel(r"$Q=\mathbb{E}\sum_jA_j^2$")
        axes[0, 1].set_ylabel(rf"$P=\mathbb{{E}}\sum_jA_jB_j$ at $r={number(r)}$")
        legend_above(axes[0, 0], fontsize=SMALL)
        looks = [Line2D([], [], color=GREY, linestyle=look) for look in ("-", DASHED)]
        axes[0, 1].legend(looks, ["exact", "annealed"], loc="upper left", fontsize=SMALL)
        _closure_error(axes[0, 2], n_values)
        letter(axes.flat)
        footer(figure, dataset, "markers: simulation with 95 % bars")
    return figure


def _closure_error(axis, n_values):
    for n, colour in zip(n_values, COLOURS, strict=False):
        config = TransformerConfig(n=n, sigma_A=LOGITS, activation="erf")
        exact = propagate_all(1.0, 0.25, BLOCKS, config).rho[-1]
        annealed = propagate_all(1.0, 0.25, BLOCKS, replace(config, closure="annealed")).rho[-1]
        axis.plot(LOGITS, np.abs(np.asarray(annealed - exact)), color=colour, label=f"$n={n:.0f}$")
    axis.set_yscale("log")
    axis.set_xlabel(r"logit scale $\sigma_A$")
    axis.set_ylabel(rf"$|\rho_{{{BLOCKS}}}$ annealed $-$ exact$|$")
