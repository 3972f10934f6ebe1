"""First passages of the quartic double well over the noise: their mean in every phase, and what a finite step adds."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator

from figures.statistics import bars, first_of_the_rest, mean
from figures.style import (
    BLUE,
    DASHED,
    DOTTED,
    GREY,
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
from theory.stochastic_collapse import mean_first_passage


def passage(dataset: xr.Dataset) -> Figure | None:
    """Simulated passages over the double integral, and relative to it with and without the overshoot of a step."""
    if dataset["zeta"].ndim == 0:
        return None
    dataset = first_of_the_rest(dataset, "zeta")[0].sortby("zeta")
    zeta, mu = dataset["zeta"].values, float(dataset["mu"])
    s = json.loads(dataset.attrs["settings"])
    dense = np.linspace(zeta[0], zeta[-1], 200)

    def theory(zeta, dt):
        return np.asarray(mean_first_passage(s["eps"], s["start"], mu, zeta, seen_every=dt))

    draws = dataset["passage"]
    with style():
        figure, axes = panels(1, 2, 2.3)
        left, right = axes[0]
        seen, continuous = theory(dense, s["dt"]), theory(dense, 0.0)
        exponent = np.abs(mu - dense**2 / 2)
        leading = np.log(s["start"] / s["eps"]) / np.where(exponent > 0.02, exponent, np.nan)
        left.set_yscale("log")
        left.set_ylim(continuous.min() / 1.4, 2 * seen.max())
        left.plot(dense, seen, color=BLUE)
        left.plot(dense, continuous, color=VERMILION, linestyle=DASHED)
        left.plot(dense, leading, color=GREY, linestyle=DOTTED)
        points(left, zeta, mean(draws), bars(draws), BLUE)
        looks = [
            Line2D([], [], color=colour, linestyle=look)
            for colour, look in ((BLUE, "-"), (VERMILION, DASHED), (GREY, DOTTED))
        ]
        words = [
            rf"seen every $\Delta t = {number(s['dt'])}$",
            "seen at every time",
            r"$\ln(\theta_0/\epsilon)/|\Lambda|$",
        ]
        left.legend(looks, words, fontsize=SMALL, loc="upper right")
        left.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        left.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
        left.yaxis.set_minor_locator(LogLocator(subs=()))
        left.set_ylabel(label_of(draws))

        ratios = []
        for dt, colour, shift, words in (
            (s["dt"], BLUE, -1, "with the overshoot"),
            (0.0, VERMILION, 1, "without"),
        ):
            line = theory(zeta, dt)
            ratio, half = mean(draws).values / line - 1, bars(draws).values / line
            ratios += [ratio - half, ratio + half]
            at = zeta + shift * 0.004 * np.ptp(zeta)
            right.errorbar(at, ratio, yerr=half, fmt="o", color=colour, label=words)
        right.axhline(0, color=GREY, linewidth=0.8, zorder=0)
        top = np.nanmax(ratios)
        right.set_ylim(min(np.nanmin(ratios), 0) - 0.15 * top, 1.45 * top)
        right.legend(fontsize=SMALL, loc="upper right", ncols=2)
        right.set_ylabel("simulation / theory − 1")
        for axis in axes.flat:
            axis.axvline((2 * max(mu, 0.0)) ** 0.5, color=GREY, linewidth=0.6, zorder=0)
            axis.set_xlabel(label_of(dataset["zeta"]))
        letter(axes.flat)
        note = r"upright line: $\zeta = \sqrt{2\mu}$, where the well collapses"
        footer(figure, dataset, note)
    return figure
