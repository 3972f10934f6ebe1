"""Survival maps of BYOL and SimSiam, a panel a mode, and the basin off the parabola with paths in it."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.ssl_collapse.byol_modes import LINE, fates, variances, words
from figures.statistics import bars, first_of_the_rest, mean
from figures.style import (
    BLACK,
    BLUE,
    DASHED,
    GREY,
    SMALL,
    VERMILION,
    footer,
    label_of,
    letter,
    panels,
    points,
    shared_x_label,
    style,
)
from theory.ssl_collapse import (
    byol_critical_decay,
    byol_critical_start,
    byol_fixed_points,
    byol_flow,
    byol_survives,
    byol_trajectory,
)

ROWS = {"survival": "SimSiam", "survival_ema": "BYOL"}
MODES = range(1, 5)


def survival(dataset: xr.Dataset) -> Figure | None:
    """Who survives over weight decay and start: the four modes, without a target network and with."""
    if dataset["weight_decay"].ndim == 0 or dataset["start"].ndim == 0:
        return None
    dataset = first_of_the_rest(dataset, "weight_decay", "start")[0].sortby(["weight_decay", "start"])
    with style():
        figure, axes = panels(2, 4, 3.7, sharex=True, sharey=True)
        for row, (name, system) in zip(axes, ROWS.items(), strict=True):
            for mode, axis in zip(MODES, row, strict=True):
                mesh = fates(axis, dataset, name, mode, "weight_decay", "start", 0.5, (False, False))
                critical = float(byol_critical_decay(**variances(mode)))
                dense = critical * (1 - np.linspace(1, 3e-3, 300) ** 2)
                edge = np.asarray(byol_fixed_points(**variances(mode), weight_decay=dense).saddle)
                axis.plot([*dense, critical], [*edge, max(axis.get_ylim())], **LINE)
            row[0].set_ylabel(f"{system}\n{label_of(dataset['start'])}")
        for mode, axis in zip(MODES, axes[0], strict=True):
            axis.set_title(words(mode), fontsize=SMALL + 0.5, loc="right")
        shared_x_label(axes[1], label_of(dataset["weight_decay"]))
        figure.colorbar(mesh, ax=axes, shrink=0.8, pad=0.01, label=r"$p/p_+ - \frac{1}{2}$", extend="both")
        letter(axes.flat)
        footer(
            figure,
            dataset,
            "colour: SGD, green where a mode lives; line: theory; hatched: not decided in time, or in the band",
        )
    return figure


def basin(dataset: xr.Dataset) -> Figure | None:
    """Which starts of predictor and encoder survive, and the flow with paths of the weakest mode."""
    if dataset["start"].ndim == 0 or dataset["encoder"].ndim == 0:
        return None
    dataset = first_of_the_rest(dataset, "start", "encoder")[0].sortby(["start", "encoder"])
    eta = float(dataset["weight_decay"])
    with style():
        figure, axes = panels(1, 5, 2.3, gridspec_kw={"width_ratios": [1, 1, 1, 1, 1.7]})
        for mode, axis in zip(MODES, axes[0], strict=False):
            fates(axis, dataset, "survival", mode, "start", "encoder", 0.5, (False, True))
            _edge(axis, variances(mode), eta)
            axis.set_title(words(mode), fontsize=SMALL, loc="right")
        for axis in axes[0, 1:4]:
            axis.tick_params(labelleft=False)
        axes[0, 0].set_ylabel(label_of(dataset["encoder"]))
        shared_x_label(axes[0, :4], label_of(dataset["start"]))
        _flow(axes[0, 4], dataset, 4, eta)
        letter(axes.flat)
        footer(
            figure, dataset, "colour and markers: SGD, green where a mode lives; black: theory, the stable manifold of "
            "the saddle; dashed: parabola; hatched: not decided in time, or in the band",
        )  # fmt: skip
    return figure


def _edge(axis, mode, eta, squared: bool = False):
    """The edge of the basin: (p*, w) for every distance from the parabola, w squared in the plane of the flow."""
    if not byol_survives(10.0, **mode, weight_decay=eta):
        return
    limits = axis.get_xlim()
    distances = np.concatenate([-np.geomspace(4.0, 1e-7, 300), np.geomspace(1e-7, 1.0, 300)])
    p = np.asarray(byol_critical_start(distances, **mode, weight_decay=eta))
    kept = np.isfinite(p) & (p > min(limits) - 1)
    strength = np.maximum(distances[kept] + p[kept] ** 2, 1e-12)
    axis.plot(p[kept], strength if squared else np.sqrt(strength), **LINE)
    p = np.linspace(1e-3, max(limits), 200)
    axis.plot(p, p**2 if squared else p, color=GREY, linestyle=DASHED, linewidth=0.9)
    axis.set_xlim(limits)


def _flow(axis, dataset, number, eta):
    """Arrows of the flow, fixed points, and paths of the dataset from a few starts beside those of the theory."""
    mode = variances(number)
    x, y = np.linspace(-0.12, 0.62, 60), np.linspace(1e-3, 0.36, 50)
    field = byol_flow(x[None, :], y[:, None], 1.0, **mode, weight_decay=eta)
    axis.set(xlim=(x[0], x[-1]), ylim=(-0.01, y[-1]))
    axis.streamplot(
        x, y, np.asarray(field.p), np.asarray(field.w2), color="0.78", linewidth=0.5, arrowsize=0.5, density=0.8,
    )  # fmt: skip
    _edge(axis, mode, eta, squared=True)
    points_at = byol_fixed_points(**mode, weight_decay=eta)
    for p, face in ((points_at.stable, BLACK), (points_at.saddle, "white")):
        axis.plot(float(p), float(p) ** 2, "s", ms=4, mfc=face, mec=BLACK, zorder=5)
    axis.plot(0, 0, "s", ms=4, mfc=BLACK, mec=BLACK, zorder=5, clip_on=False)
    times = np.linspace(0, float(dataset["time"][-1]), 200)
    for p0, w0 in _starts(dataset, x, y):
        here = dataset.sel(start=p0, encoder=w0, mode=number)
        path = byol_trajectory(times, p0, w0**2, **mode, weight_decay=eta, steps=20)
        lives = float(mean(here["survival"])) > 0
        colour = BLUE if lives else VERMILION
        axis.plot(path.p, path.w2, color=colour, linewidth=1.0, zorder=3)
        axis.plot(p0, w0**2, "o", ms=3.2, mfc="white", mec=colour, zorder=4)
        points(axis, mean(here["p"]), mean(here["w2"]), bars(here["w2"]), colour, xerr=bars(here["p"]), ms=2.4)
    axis.set(xlabel="predictor eigenvalue $p$", ylabel=r"encoder strength $w^2$")
    looks = [Line2D([], [], color=c, marker="o", ms=2.4) for c in (BLUE, VERMILION)]
    axis.legend(looks, ["lives", "dies"], loc="upper left", fontsize=SMALL)


def _starts(dataset, x, y):
    """Up to nine starts inside the panel, spread over the grid."""
    p, w = (dataset[name].values for name in ("start", "encoder"))
    inside_p, inside_w = p[(p > x[0]) & (p < x[-1])], w[(w**2 < y[-1]) & (w > 0.02)]
    return [
        (float(a), float(b))
        for a in inside_p[:: max(len(inside_p) // 3, 1)]
        for b in inside_w[:: max(len(inside_w) // 3, 1)]
    ]
