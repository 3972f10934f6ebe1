"""When collapse helps: the error of a linear probe over the modes that survived."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from figures.statistics import bars, mean, of_draws
from figures.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SMALL,
    VERMILION,
    footer,
    label_of,
    letter,
    panels,
    points,
    style,
)

COLOURS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE)


def probe(dataset: xr.Dataset) -> Figure | None:
    """Error over the number of modes with its least, and what the collapse saves over the number of samples."""
    if dataset["survivors"].ndim == 0:
        return None
    dataset = dataset.sortby("survivors")
    k, n = dataset["survivors"].values, dataset["samples"].values
    with style():
        figure, axes = panels(1, 2, 2.6)
        left, right = axes[0]
        risk, theory = dataset["risk"], of_draws(dataset["risk_theory"]).transpose("survivors", "samples")
        span = float(theory.max() - theory.min())
        left.set_ylim(float(theory.min()) - 0.12 * span, float(theory.max()) + 0.1 * span)
        for i, colour in zip(range(len(n)), COLOURS, strict=False):
            curve = theory.isel(samples=i).values
            left.plot(k, curve, color=colour)
            left.plot(k[curve.argmin()], curve.min(), "s", color=colour, ms=6, mfc="none", mew=0.8)
            draws = risk.isel(samples=i)
            points(left, k, mean(draws), bars(draws), colour, f"$n={n[i]}$")
        left.axhline(float(dataset["noise_variance"]), color=GREY, linewidth=0.6, zorder=0)
        left.text(k[0], float(dataset["noise_variance"]), "noise", fontsize=SMALL, color=GREY, va="bottom")
        left.set_xticks(k)
        left.set_xlabel("modes that survived, $k$")
        left.set_ylabel(label_of(risk))
        left.legend(loc="upper right", fontsize=SMALL)

        gain, theory = dataset["gain"], of_draws(dataset["gain_theory"]).transpose("survivors", "samples")
        right.set_xscale("log")
        low, high = float(theory.min()), float(theory.max())
        right.set_ylim(max(1.1 * low, -1.5 * high), 1.25 * high)
        right.axhline(0, color="black", linewidth=0.6)
        kept = [i for i in range(len(k)) if np.any(theory.isel(survivors=i))]
        for i, colour in zip(kept, COLOURS, strict=False):
            right.plot(n, theory.isel(survivors=i), color=colour)
            draws = gain.isel(survivors=i)
            points(right, n, mean(draws), bars(draws), colour, f"$k={k[i]:g}$")
        right.set_xticks(n, [f"{v}" for v in n])
        right.minorticks_off()
        right.text(0.4, 0.95, "collapse helps", transform=right.transAxes, fontsize=SMALL, color=GREY, va="top")
        right.text(0.4, 0.05, "collapse hurts", transform=right.transAxes, fontsize=SMALL, color=GREY)
        right.set_xlabel("samples of the probe, $n$")
        right.set_ylabel(label_of(gain))
        right.legend(loc="upper right", fontsize=SMALL)
        letter(axes.flat)
        footer(figure, dataset, "line: theory, its least framed; markers: probes on trained encoders")
    return figure
