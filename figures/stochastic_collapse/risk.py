"""The risk of a soft-thresholded student against its threshold, and where it is least."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from figures.statistics import bars, first_of_the_rest, mean
from figures.style import (
    BLUE,
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
from theory.stochastic_collapse import best_threshold, teacher_student_risk

STUDENTS = {
    "risk": ("fluctuating", BLUE, False),
    "averaged_risk": ("averaged over label noise", VERMILION, True),
}


def risks(dataset: xr.Dataset) -> Figure | None:
    """Risk of both students, and what is left of it beside the theory."""
    if dataset["tau"].ndim == 0:
        return None
    dataset = first_of_the_rest(dataset, "tau")[0].sortby("tau")
    settings = json.loads(dataset.attrs["settings"])
    sigma, ends = float(dataset["sigma"]), (float(dataset["weakest"]), float(dataset["strongest"]))
    teacher = np.linspace(*ends, settings["rank"])
    tau = dataset["tau"].values
    dense = np.unique(np.concatenate([tau, np.linspace(tau[0], tau[-1], 300)]))

    def theory(at, averaged, **options):
        return np.asarray(teacher_student_risk(at, teacher, sigma, settings["m"], averaged, **options))

    with style():
        figure, axes = panels(1, 2, 2.5)
        left, right = axes[0]
        curves = {name: theory(dense, averaged) for name, (_, _, averaged) in STUDENTS.items()}
        highest = max(curve.max() for curve in curves.values())
        left.set_ylim(0, 1.08 * highest)
        gaps = {}
        for name, (words, color, averaged) in STUDENTS.items():
            draws = dataset[name]
            left.plot(dense, curves[name], color=color)
            points(left, tau, mean(draws), bars(draws), color, words)
            gaps[name] = mean(draws) - theory(tau, averaged)
        least = best_threshold(teacher, sigma, settings["m"], True)
        left.axvline(float(least.tau), color=VERMILION, linestyle=DOTTED, linewidth=0.8)
        note = rf"least risk {number(float(least.risk))} at $\tau={number(float(least.tau))}$"
        left.annotate(
            note, (float(least.tau), float(least.risk)), (0.04, 0.05), textcoords="axes fraction", fontsize=SMALL,
            arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": GREY},
        )  # fmt: skip
        for axis in (left, right):
            axis.axvline(2 * sigma, color=GREY, linestyle=DASHED, linewidth=0.8)
            axis.set_xlabel(r"soft threshold $\tau$")
            axis.set_xlim(tau[0] - 0.03 * np.ptp(tau), tau[-1] + 0.03 * np.ptp(tau))
        left.set_ylabel(r"risk $\|\hat W-W\|_F^2$")
        legend_above(left)

        half = {name: bars(dataset[name]) for name in STUDENTS}
        reach = [np.abs(gaps[name]) + half[name].fillna(0) for name in STUDENTS]
        top = 1.3 * max(float(np.max(r)) for r in reach)
        right.set_ylim(-top, top)
        right.axhline(0, color="black", linewidth=0.6)
        for name, (_, color, averaged) in STUDENTS.items():
            other = theory(dense, averaged, complex_noise=True) - curves[name]
            right.plot(dense, other, color=color, linestyle=DASHED, linewidth=0.8)
            points(right, tau, gaps[name], half[name], color)
        right.set_ylabel("simulation − theory")
        right.text(
            0.02, 0.02, "dashed: theory of complex noise", transform=right.transAxes, fontsize=SMALL, color=GREY,
            va="bottom",
        )  # fmt: skip
        right.text(2 * sigma, 0.98, r" $2\sigma$", transform=right.get_xaxis_transform(), fontsize=SMALL, va="top")
        letter(axes.flat)
        footer(figure, dataset, rf"$m={settings['m']}$, {settings['draws']} data sets a replicate; lines: theory")
    return figure
