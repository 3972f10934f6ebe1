"""Sections of the spectral landscape: contours, all stationary points with their signatures, and descents on top."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.statistics import first_of_the_rest
from figures.style import MAGNITUDE, ORANGE, SKY, SMALL, VERMILION, footer, letter, number, panels, style
from theory.ssl_collapse import collapse_phase, effective_landscape, hessian_spectrum, stationary_points

MOST = 3
REACH = 1.08
WORDS = {"none": "no collapse", "dimensional": "dimensional collapse", "complete": "complete collapse"}
MARKS = {"minimum": ("o", ORANGE), "saddle": ("X", "white"), "maximum": ("^", SKY)}


def sections(dataset: xr.Dataset) -> Figure | None:
    """Contours and large marks: theory; lines with small markers: descent on real data."""
    if dataset["weight_decay"].ndim == 0:
        return None
    dataset, _ = first_of_the_rest(dataset, "weight_decay")
    values = dataset["weight_decay"].values
    shown = values[np.unique(np.linspace(0, len(values) - 1, MOST).round().astype(int))]
    with style():
        figure, axes = panels(1, len(shown), 2.75, sharey=True)
        for axis, decay in zip(axes.flat, shown, strict=True):
            _panel(axis, dataset.sel(weight_decay=decay), float(decay))
        axes[0, 0].set_ylabel("weight on the second mode $w_2$")
        marks = [
            Line2D([], [], marker=mark, mfc=face, mec="black", linestyle="none", ms=5) for mark, face in MARKS.values()
        ]
        path = Line2D([], [], color=VERMILION, marker="o", ms=1.6, linewidth=0.8)
        figure.legend(
            [*marks, path], [*MARKS, "descent"], loc="outside upper center", ncols=4, fontsize=7, handletextpad=0.3
        )  # fmt: skip
        letter(axes.flat)
        note = (
            "contours and marks: theory, with the numbers of negative, zero and positive Hessian eigenvalues; lines: "
            "gradient descent of the spectral loss on real data"
        )
        footer(figure, dataset, note)
    return figure


def landscape_of(dataset: xr.Dataset, decay: float):
    """The landscape of diagonal encoders of these modes."""
    a, c = (np.diag([float(dataset[f"{mode}{of}"]) for mode in ("first", "second")]) for of in ("", "_noise"))
    return effective_landscape(a, c, "spectral", weight_decay=decay)


def marked_points(landscape) -> list[tuple[np.ndarray, str, tuple[int, int, int]]]:
    """(weights, kind, numbers of Hessian eigenvalues below, at and above zero) of every stationary point."""
    B, Sigma, kappa = landscape
    found, points = stationary_points(B, Sigma, kappa, 2), []
    for active, gram in zip(np.asarray(found.active), np.asarray(found.gram), strict=True):
        signs = np.sign(np.round(hessian_spectrum(B, Sigma, np.flatnonzero(active), 2), 9))
        counts = tuple(int((signs == sign).sum()) for sign in (-1, 0, 1))
        kind = "minimum" if not counts[0] else "maximum" if counts[0] == len(signs) else "saddle"
        w = np.sqrt(np.maximum(np.diag(gram), 0))
        w = np.where(w > 1e-6, w, 0)
        corners = np.unique([(i * w[0], j * w[1]) for i in (-1, 1) for j in (-1, 1)], axis=0)
        points += [(corner, kind, counts) for corner in corners]
    return points


def _panel(axis, cell, decay):
    landscape = landscape_of(cell, decay)
    grid = np.linspace(-REACH, REACH, 161)
    b, variance = np.diag(landscape.B), np.diag(landscape.Sigma)
    along = [-b[i] * grid**2 + float(landscape.kappa) * variance[i] ** 2 * grid**4 for i in (0, 1)]
    loss = along[0][None, :] + along[1][:, None]
    # Levels at equal shares of the area show the flat floor and the steep walls alike.
    levels = np.unique(np.quantile(loss, np.linspace(0, 1, 20)))
    axis.contourf(grid, grid, loss, levels, cmap=MAGNITUDE, norm=BoundaryNorm(levels, 256), alpha=0.5)
    axis.contour(grid, grid, loss, levels, colors="0.35", linewidths=0.25, linestyles="solid")
    paths = cell["weight"].isel(replicate=0)
    for k in paths["path"].values:
        x, y = paths.sel(path=k).transpose("mode", "time").values
        axis.plot(x, y, color=VERMILION, linewidth=0.8)
        axis.plot(x[0], y[0], "o", color=VERMILION, ms=1.8)
        _arrow(axis, x, y)
    for w, kind, counts in marked_points(landscape):
        mark, face = MARKS[kind]
        axis.plot(*w, mark, mfc=face, mec="black", mew=0.6, ms=5.5, zorder=5)
        axis.annotate(
            ",".join(map(str, counts)), w, (0, -11 if w[1] > 0 else 5), textcoords="offset points", ha="center",
            fontsize=SMALL, zorder=6, bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.6},
        )  # fmt: skip
    axis.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), aspect="equal")
    axis.set_xlabel("weight on the first mode $w_1$")
    phase = WORDS[collapse_phase(landscape.B, 2)]
    axis.set_title(rf"$\lambda = {number(decay)}$: {phase}", loc="right")


def _arrow(axis, x, y):
    """The direction of a descent, where it has covered half of its way."""
    way = np.concatenate([[0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
    k = int(np.clip(np.searchsorted(way, way[-1] / 2), 1, len(x) - 1))
    if way[-1] > 0.05:
        axis.annotate(
            "", (x[k], y[k]), (x[k - 1], y[k - 1]), arrowprops={"arrowstyle": "->", "color": VERMILION, "lw": 0.8}
        )
