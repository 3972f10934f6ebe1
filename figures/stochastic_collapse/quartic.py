"""The quartic double well: paths and stationary law of each phase, collapsed share, moments and exponent over noise."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.statistics import bars, first_of_the_rest, mean
from figures.style import (
    BLACK,
    BLUE,
    DASHED,
    DOTTED,
    GREEN,
    GREY,
    ORANGE,
    SKY,
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
from theory.stochastic_collapse import (
    collapse_fraction,
    elog_abs_normal,
    fokker_planck,
    lyapunov_exponent,
    quartic_moment,
    quartic_of_steps,
    quartic_phase,
    quartic_phase_code,
    quartic_stationary_density,
)

TIMES = (SKY, BLUE, GREEN, BLACK)
PATHS = (BLUE, VERMILION, GREEN, ORANGE)
DENSE = 48
COARSE = {"cells": 1024, "steps": 100}  # of the Fokker-Planck curves: within 1e-3
SIMPSON = np.array([1, 4, 1]) / 6
SHOWN = 40  # moments of a path that carry a marker
ROOM = 0.28  # share of a panel that the law beside the paths takes


def quartic(dataset: xr.Dataset) -> Figure | None:
    """Markers: Euler steps; lines: closed forms. A panel a phase, then every measure against the noise."""
    if dataset["zeta"].ndim == 0:
        return None
    dataset = first_of_the_rest(dataset, "zeta")[0].sortby("zeta")
    zeta, mu = dataset["zeta"].values, float(dataset["mu"])
    settings = json.loads(dataset.attrs["settings"])
    with style():
        figure, axes = panels(2, 3, 4.1)
        for code, axis in enumerate(axes[0]):
            _paths(axis, dataset, zeta, mu, code)
        _shares(axes[1, 0], dataset, zeta, mu, settings)
        _moments(axes[1, 1], dataset, zeta, mu, settings)
        _exponents(axes[1, 2], dataset, zeta, mu, settings)
        letter(axes.flat)
        note = (
            "markers: Euler steps; lines: closed form on the same Wiener path, Fokker-Planck equation, stationary law"
        )
        footer(figure, dataset, note)
    return figure


def _paths(axis, dataset, zeta, mu, code):
    """Sample paths in the middle cell of a phase, and beside them the law that they have in the end."""
    cells = np.flatnonzero(np.asarray(quartic_phase_code(mu, zeta)) == code)
    axis.set_xlabel("time $t$")
    axis.set_ylabel(r"$|\theta|$")
    if not len(cells):
        axis.text(0.5, 0.5, "no cell in this phase", transform=axis.transAxes, ha="center", color=GREY, fontsize=SMALL)
        return
    at = dataset.isel(zeta=cells[len(cells) // 2], replicate=0).transpose(..., "sample", "moment")
    t, noise = at["moment"].values, float(at["zeta"])
    paths, closed = (np.exp(at[name].values) for name in ("path", "path_theory"))
    every = max(len(t) // SHOWN, 1)
    for path, line, colour in zip(paths, closed, PATHS, strict=False):
        axis.plot(t, line, color=colour, linewidth=0.7)
        axis.plot(t[::every], path[::every], "o", color=colour, ms=1.4)
    top = paths.max()
    if code == 2:
        x, law = (np.asarray(v) for v in fokker_planck(t[-1], 1.0, mu, noise, **COARSE))
        level, words = np.exp(x), "law at the end"
        law = law / law.max()
        axis.set_yscale("log")
        axis.set_ylim(paths.min() / 10, 1e3 * top)
    else:
        level, words = np.linspace(1e-3, 1.2 * top, 400), "stationary law"
        law = np.asarray(quartic_stationary_density(level, mu, noise))
        # A peak at 0 that has no end is cut.
        law = np.minimum(law / law[level > 0.05 * top].max(), 1.0)
        axis.set_ylim(0, 1.4 * top)
    wide = t[-1] * (1 + ROOM)
    axis.fill_betweenx(level, t[-1] * 1.02, t[-1] * 1.02 + (wide - t[-1] * 1.02) * law, color="0.75", linewidth=0)
    axis.set_xticks([tick for tick in axis.get_xticks() if 0 <= tick <= t[-1] * 1.001])
    axis.set_xlim(0, wide)
    axis.text(0.99, 1.01, words, transform=axis.transAxes, ha="right", va="bottom", fontsize=SMALL, color=GREY)
    words = rf"{quartic_phase(mu, noise)}, $\zeta = {number(noise)}$"
    axis.text(0.03, 0.98, words, transform=axis.transAxes, va="top", fontsize=SMALL + 0.5)


def _thresholds(axis, mu, lines=(2,)):
    for factor, look in zip(lines, (DASHED, DOTTED), strict=False):
        axis.axvline((factor * mu) ** 0.5, color=GREY, linestyle=look, linewidth=0.8, zorder=0)


def _dense(zeta):
    return np.linspace(zeta[0], zeta[-1], DENSE)


def _shares(axis, dataset, zeta, mu, settings):
    dense = _dense(zeta)
    model = quartic_of_steps(mu, dense, settings["dt"])
    axis.set_ylim(-0.03, 1.03)
    times = dataset["time"].values
    columns = np.broadcast_arrays(times[:, None], *model)
    shares = collapse_fraction(columns[0], settings["eps"], *columns[1:], settings["start"], start="normal", **COARSE)
    for t, share, colour in zip(times, shares, TIMES, strict=False):
        axis.plot(dense, share, color=colour)
        draws = dataset["collapsed"].sel(time=t)
        points(axis, zeta, mean(draws), bars(draws), colour, rf"$t = {number(float(t))}$")
    _thresholds(axis, mu)
    axis.annotate(r"$\sqrt{2\mu}$", ((2 * mu) ** 0.5, 0.97), (-2, 0), textcoords="offset points", ha="right", va="top")
    axis.legend(loc="upper left", fontsize=SMALL, borderaxespad=0.1, handlelength=0.8)
    axis.set_xlabel(label_of(dataset["zeta"]))
    axis.set_ylabel(label_of(dataset["collapsed"]))


def _moments(axis, dataset, zeta, mu, settings):
    """Stationary moments, and those over the last two quarters of a run, which differ next to the threshold."""
    dense = _dense(zeta)
    live = np.asarray(quartic_phase_code(mu, dense)) < 2
    times = dataset["time"].values[-1] * np.array([0.5, 0.75, 1.0])
    columns = np.broadcast_arrays(times[:, None], settings["start"], mu, dense)
    x, mass = (np.asarray(v) for v in fokker_planck(*columns, start="normal", **COARSE))
    axis.set_ylim(-0.04 * mu, 1.2 * mu)
    for name, q, colour in (("second_moment", 2, BLUE), ("mean_distance", 1, VERMILION)):
        curve = np.zeros(len(dense))
        curve[live] = quartic_moment(q, mu, dense[live])
        axis.plot(dense, curve, color=colour)
        axis.plot(dense, SIMPSON @ (mass * np.exp(q * x)).sum(-1), color=colour, linestyle=DOTTED)
        points(axis, zeta, mean(dataset[name]), bars(dataset[name]), colour, label_of(dataset[name]))
    _thresholds(axis, mu, (2, 1))
    handles, words = axis.get_legend_handles_labels()
    looks = [Line2D([], [], color=GREY, linestyle=look) for look in ("-", DOTTED)]
    words += ["stationary", "at these times"]
    axis.legend([h[0] for h in handles] + looks, words, loc="upper right", fontsize=SMALL, handlelength=1.2)
    axis.set_xlabel(label_of(dataset["zeta"]))
    axis.set_ylabel("moment")


def _exponents(axis, dataset, zeta, mu, settings):
    dense, dt = _dense(zeta), settings["dt"]
    exact = np.asarray(elog_abs_normal(1 + mu * dt, dense * dt**0.5)) / dt
    axis.plot(dense, exact, color=BLUE)
    axis.plot(dense, lyapunov_exponent(-mu, dense), color=ORANGE, linestyle=DASHED)
    axis.axhline(mu, color=GREY, linestyle=DOTTED, linewidth=0.8)
    axis.axhline(0, color=GREY, linewidth=0.6, zorder=0)
    _thresholds(axis, mu)
    points(axis, zeta, mean(dataset["exponent"]), bars(dataset["exponent"]), BLUE)
    looks = [
        Line2D([], [], color=BLUE),
        Line2D([], [], color=ORANGE, linestyle=DASHED),
        Line2D([], [], color=GREY, linestyle=DOTTED),
    ]
    axis.legend(looks, ["Euler steps", "differential equation", "Stratonovich"], loc="lower left", fontsize=SMALL)
    axis.set_xlabel(label_of(dataset["zeta"]))
    axis.set_ylabel(r"exponent of the saddle, $1/t$")
