"""Saddles: the spectra of their Hessians, and the rates at which descent leaves them."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from figures.statistics import bars, mean
from figures.style import (
    BLUE,
    DASHED,
    GREY,
    SMALL,
    VERMILION,
    footer,
    letter,
    panels,
    points,
    style,
    theory_and_simulation,
)

SETS = ("none", "1", "2", "3", "1, 3", "2, 3")  # the modes that a saddle holds, by its number


def saddles(dataset: xr.Dataset) -> Figure | None:
    """Lines: theory; markers: the loss of real data."""
    if dataset["saddle"].ndim == 0:
        return None
    with style():
        figure, axes = panels(1, 2, 2.5, gridspec_kw={"width_ratios": [1.6, 1]})
        _spectra(axes[0, 0], dataset)
        _rates(axes[0, 1], dataset)
        letter(axes.flat)
        footer(figure, dataset, "lines: theory; markers: the spectral loss of real data and descent on it")
    return figure


def _spectra(axis, dataset):
    """Side by side the eigenvalues of every saddle, ascending."""
    number = dataset["saddle"].values
    count = dataset.sizes["eigenvalue"]
    places = np.linspace(-0.34, 0.34, count)
    theory = dataset["spectrum_theory"].transpose("saddle", "eigenvalue").values
    low, high = theory.min(), theory.max()
    axis.set_ylim(low - 0.12 * (high - low), high + 0.25 * (high - low))
    axis.axhline(0, color="0.8", linewidth=0.6)
    for k in range(len(number)):
        spectrum = dataset["spectrum"].isel(saddle=k)
        axis.hlines(theory[k], k + places - 0.055, k + places + 0.055, color="black", zorder=4)
        colours = np.where(theory[k] < -1e-9, VERMILION, BLUE)
        for i in range(count):
            one = spectrum.isel(eigenvalue=i)
            points(axis, [k + places[i]], [mean(one)], [bars(one)], colours[i], ms=4, alpha=0.7)
    axis.set_xticks(range(len(number)), [SETS[int(n)] for n in number])
    axis.set_xlabel("modes that the saddle holds")
    axis.set_ylabel("eigenvalues of the Hessian")
    theory_and_simulation(axis, "closed spectrum", "autodiff on the data", loc="upper left", ncols=2, fontsize=SMALL)


def _rates(axis, dataset):
    theory, measured = dataset["escape_theory"].values, dataset["escape"]
    top = 1.12 * max(theory.max(), float(measured.max()))
    axis.set(xlim=(0, 1.06 * top), ylim=(0, top))
    axis.axline((0, 0), slope=1, color=GREY, label="gradient flow")
    rate = json.loads(dataset.attrs["settings"])["learning_rate"]
    dense = np.linspace(0, 1.06 * top, 100)
    axis.plot(dense, np.log1p(rate * dense) / rate, color=GREY, linestyle=DASHED, label=rf"steps of $\eta = {rate:g}$")
    points(axis, theory, mean(measured), bars(measured), BLUE, ms=3.4)
    names = np.array([SETS[int(n)] for n in dataset["saddle"].values])
    for x in np.unique(theory.round(9)):
        here = np.abs(theory - x) < 1e-6
        place = x, float(mean(measured)[here].min())
        axis.annotate(
            "\n".join(names[here]), place, (3, -5), textcoords="offset points", fontsize=SMALL, va="top",
            annotation_clip=False,
        )  # fmt: skip
    axis.set_xlabel("most negative eigenvalue, its sign turned")
    axis.set_ylabel("rate of escape")
    axis.legend(loc="upper left", fontsize=SMALL)
