"""Two layers with weight decay on real minibatches: strengths from both starts."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.statistics import bars, first_of_the_rest, mean
from figures.style import BLUE, DASHED, DOTTED, GREEN, GREY, VERMILION, footer, panels, points, style
from theory.ssl_collapse import two_layer_critical_decay, two_layer_strength

COLOURS = (BLUE, GREEN, VERMILION)


def two_layer_minibatch(dataset: xr.Dataset) -> Figure | None:
    """Filled markers: from the learned state; open ones: from small layers; lines: two layers and one."""
    if dataset["weight_decay"].ndim == 0:
        return None
    dataset = first_of_the_rest(dataset, "weight_decay")[0]
    x, clean = dataset["weight_decay"].values, dataset["clean"].values
    dense = np.linspace(0, x.max() * 1.05, 800)
    with style():
        figure, axes = panels(1, 3, 2.4, sharey=True)
        for k, (axis, colour) in enumerate(zip(axes.flat, COLOURS, strict=True)):
            b, sigma = 2 * clean[k], clean[k] + float(dataset["noise"])

            def square(decay, depth=2, b=b, sigma=sigma):
                p = np.asarray(two_layer_strength(b, sigma, 1.0, decay, depth))
                return 2 * (sigma * p) ** 2 / b

            axis.plot(dense, square(dense), color=colour)
            axis.plot(dense, square(dense, 1), color=GREY, linestyle=DASHED)
            axis.axvline(
                float(two_layer_critical_decay(b, sigma, 1.0).transition), color=GREY, linestyle=DOTTED, linewidth=0.9
            )
            axis.set_ylim(-0.05, 1.08)
            values = dataset["variance"].isel(clean=k)
            points(axis, x, mean(values), bars(values), colour)
            # The logarithm is that of 12 p^2 / p_inf^2.
            small = np.maximum(np.exp(dataset["small"].isel(clean=k)) - 1e-6, 0) / 12
            points(axis, x, mean(small), bars(small), colour, mfc="white", ms=2.4)
            axis.set_xlabel(r"weight decay $\lambda$")
            axis.set_title(rf"({'abc'[k]}) mode $a={clean[k]:g}$", loc="left")
        axes[0, 0].set_ylabel(r"$p^2/p_\infty^2$")
        look = {"color": GREY, "marker": "o", "linestyle": "none"}
        axes[0, 2].legend(
            [
                Line2D([], [], **look),
                Line2D([], [], mfc="white", **look),
                Line2D([], [], color=GREY, linestyle=DASHED),
                Line2D([], [], color=GREY, linestyle=DOTTED),
            ],
            ["learned start", "small start", "one layer", r"transition $\lambda_c$"],
            loc="upper right",
        )
        footer(figure, dataset, "solid lines: theory of two layers; markers: SGD on minibatches")
    return figure
