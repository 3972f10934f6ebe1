"""Fixed points of BYOL and SimSiam over the weight decay, mode by mode, and all modes on one curve."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.ssl_collapse.byol_modes import CLEAN, COLOURS, NOISE, variances, words
from figures.statistics import bars, first_of_the_rest, mean
from figures.style import DASHED, GREY, SMALL, footer, label_of, letter, panels, points, style
from theory.ssl_collapse import byol_critical_decay, byol_fixed_points

OUTPUTS = {"predictor": 1, "predictor_ema": 0}  # filled: the target is the encoder


def byol(dataset: xr.Dataset) -> Figure | None:
    """Left: predictor eigenvalues with both fixed points; right: the same in units of the modes."""
    if dataset["weight_decay"].ndim == 0:
        return None
    dataset = first_of_the_rest(dataset, "weight_decay")[0].sortby("weight_decay")
    eta = dataset["weight_decay"].values
    with style():
        figure, axes = panels(1, 2, 2.5)
        left, right = axes[0]
        left.set(xlim=(0, 1.15 * eta.max()), ylim=(-0.03, 0.98))
        right.set(xlim=(0, 1.6), ylim=(-0.04, 1.1))
        for mode, colour in enumerate(COLOURS, start=1):
            critical = float(byol_critical_decay(**variances(mode)))
            dense = critical * (1 - np.linspace(1, 3e-3, 300) ** 2)
            p = byol_fixed_points(**variances(mode), weight_decay=dense)
            left.plot(dense, p.stable, color=colour, label=words(mode))
            left.plot(dense, p.saddle, color=colour, linestyle=DASHED, linewidth=0.8)
            unit = CLEAN[mode - 1] / (CLEAN[mode - 1] + NOISE[mode - 1])
            for name, filled in OUTPUTS.items():
                here = dataset[name].sel(mode=mode)
                means, half, face = mean(here).values, bars(here).values, colour if filled else "white"
                shift = (0.5 - filled) * 0.012
                points(left, eta + shift * eta.max(), means, half, colour, mfc=face)
                inside = eta / critical < 1.6
                points(
                    right, (eta / critical)[inside] + shift, (means / unit)[inside], (half / unit)[inside], colour,
                    mfc=face,
                )  # fmt: skip
        dense = 1 - np.linspace(1, 3e-3, 300) ** 2
        p = byol_fixed_points(1.0, 0.0, dense / 4)
        right.plot(dense, p.stable, color=GREY, zorder=1)
        right.plot(dense, p.saddle, color=GREY, linestyle=DASHED, zorder=1)
        right.plot([0, 1.6], [0, 0], color=GREY, zorder=1)
        left.legend(loc="upper right", ncols=2, fontsize=SMALL)
        looks = [Line2D([], [], color=GREY, marker="o", linestyle="none", mfc=face) for face in (GREY, "white")]
        looks += [Line2D([], [], color=GREY), Line2D([], [], color=GREY, linestyle=DASHED)]
        right.legend(looks, ["SimSiam", "BYOL", "stable", "saddle"], loc="upper right", fontsize=SMALL)
        left.set(xlabel=label_of(dataset["weight_decay"]), ylabel="predictor eigenvalue $p$")
        right.set(xlabel=r"$\eta/\eta_c$", ylabel=r"$p\,(a+c)/a$")
        letter(axes.flat)
        footer(figure, dataset, "lines: theory; markers with 95 % bars: SGD")
    return figure
