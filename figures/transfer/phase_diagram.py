"""The headline: transferability over (theta, gamma), simulated and predicted, with slices; and all noise levels."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from figures.statistics import bars, edges, failed, mean
from figures.style import (
    BLUE,
    COLOURS,
    DASHED,
    DOTTED,
    GREY,
    SMALL,
    angle,
    angle_ticks,
    footer,
    hatched,
    legend_above,
    letter,
    panels,
    points,
    shared_x_label,
    style,
    theory_and_simulation,
)
from figures.transfer.diagram import GAMMA, THETA, Diagram, diagram, spread, telling_noise

SYMBOL = {"linear_transfer": r"\mathcal{T}_{\mathrm{lt}}", "fine_tuning": r"\mathcal{T}_{\mathrm{ft}}"}
NAME = {"linear_transfer": "linear probe", "fine_tuning": "fine-tuning"}
HELPS = "RdBu"
LINE = 0.9


def phase_diagram(dataset: xr.Dataset) -> Figure:
    """Simulated map, theory map and slices of the transferability, for the linear probe and for fine-tuning."""
    d = diagram(dataset)
    sigma = telling_noise(d.sigma, d.target_norm)
    with style():
        if d.is_map:
            figure, axes = panels(2, 3, 4.2, width_ratios=[1, 1, 1.12], sharex="col")
            for row, method in zip(axes, SYMBOL, strict=True):
                simulated_map(row[0], d, method, sigma)
                theory_map(row[1], d, method, sigma)
                contours(row[0], d, method, sigma, finite=True)
                contours(row[1], d, method, sigma)
                row[0].set_ylabel(f"{NAME[method]}\n{GAMMA}")
                row[1].tick_params(labelleft=False)
            for axis in axes[1, :2]:
                axis.set_xlabel(THETA)
                angle_ticks(axis)
            axes[0, 0].set_title("simulation")
            axes[0, 1].set_title("theory")
            if d.gamma.max() > 1.3:
                boundary_legend(axes[1, 1], d)
            colour_bar(figure, axes[:, :2])
            slices = axes[:, 2]
        else:
            figure, axes = panels(1, 2, 2.4)
            slices = axes[0]
        for axis, method in zip(slices, SYMBOL, strict=True):
            draw_slices(axis, d, method, sigma)
            axis.set_ylabel(rf"transferability ${SYMBOL[method]}$, {NAME[method]}")
        legend_above(slices[0])
        if d.is_map:
            slices[0].set_xlabel("")
            theory_and_simulation(slices[1], loc="upper right", borderaxespad=0.1)
        else:
            theory_and_simulation(slices[1], loc="lower right", bbox_to_anchor=(1, 0.99), ncols=2)
        letter(axes.flat)
        footer(figure, dataset, "; ".join(part for part in (rf"$\sigma$ = {sigma:g}", d.note) if part))
    return figure


def noise_levels(dataset: xr.Dataset) -> Figure | None:
    """Simulated maps with the theory's boundaries, or slices, one column a noise level."""
    d = diagram(dataset)
    sigmas = spread(d.sigma, 4)
    if len(sigmas) < 2:
        return None
    with style():
        figure, axes = panels(2, len(sigmas), 4.1, sharex=True, sharey=True)
        for row, method in zip(axes, SYMBOL, strict=True):
            for axis, sigma in zip(row, sigmas, strict=True):
                if d.is_map:
                    simulated_map(axis, d, method, sigma)
                    contours(axis, d, method, sigma, finite=True)
                else:
                    draw_slices(axis, d, method, sigma)
            row[0].set_ylabel(f"{NAME[method]}\n{GAMMA if d.is_map else f'transferability ${SYMBOL[method]}$'}")
        for axis, sigma in zip(axes[0], sigmas, strict=True):
            axis.set_title(rf"$\sigma={sigma:g}$")
        shared = THETA if d.is_map else axes[1, 0].get_xlabel()
        shared_x_label(axes[0], "")
        shared_x_label(axes[1], shared)
        if d.is_map:
            angle_ticks(axes[1, 0])
            if d.gamma.max() > 1.3:
                boundary_legend(axes[1, 0], d)
            colour_bar(figure, axes)
        else:
            legend_above(axes[1, -1])
        letter(axes.flat)
        footer(figure, dataset, d.note)
    return figure


def simulated_map(axis, d: Diagram, method: str, sigma: float) -> None:
    """Mean transferability of every simulated cell as a colour; cells in which a replicate failed are hatched."""
    data = d.at(sigma)
    x, y = edges(d.theta), edges(d.gamma)
    values = mean(data[f"{method}_transferability"]).transpose("gamma", "theta").values
    axis.pcolormesh(x, y, values, norm=_norm(d), cmap=HELPS, rasterized=True)
    hatched(axis, x, y, failed(data).transpose("gamma", "theta").values)
    axis.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    axis.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    if method == "fine_tuning":
        _exactly_zero(axis)


def theory_map(axis, d: Diagram, method: str, sigma: float, points: int = 400) -> None:
    """The asymptotic transferability over the same ranges."""
    x, y = edges(d.theta), edges(d.gamma)
    theta = np.minimum(
        (np.linspace(x[0], x[-1], points + 1)[1:] + np.linspace(x[0], x[-1], points + 1)[:-1]) / 2, np.pi
    )
    gamma = (np.linspace(y[0], y[-1], points + 1)[1:] + np.linspace(y[0], y[-1], points + 1)[:-1]) / 2
    predict = d.probe_asymptotic if method == "linear_transfer" else d.fine_tuned
    values = np.clip(predict(gamma[:, None], theta[None, :], sigma), -d.limit, d.limit)
    axis.imshow(
        values, origin="lower", extent=(x[0], x[-1], y[0], y[-1]), aspect="auto", norm=_norm(d), cmap=HELPS,
        interpolation="nearest",
    )  # fmt: skip
    axis.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    axis.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    if method == "fine_tuning":
        _exactly_zero(axis)


def contours(axis, d: Diagram, method: str, sigma: float, finite: bool = False) -> None:
    """The theory's zero lines in black: asymptotic solid, exact at this d dotted, the printed formula dashed."""
    (left, right), (bottom, top) = axis.get_xlim(), axis.get_ylim()
    if method == "linear_transfer":
        for theta, gamma in d.probe_contours(np.linspace(max(left, 0), min(right, np.pi), 500), sigma):
            axis.plot(theta, gamma, color="black", linewidth=LINE)
        if finite:
            n = np.unique(np.linspace(max(bottom * d.d, 3), top * d.d, 400).astype(int))
            theta = np.linspace(max(left, 0), min(right, np.pi), 120)
            values = np.clip(d.probe_exact(n[:, None], theta[None, :], sigma), -9, 9)
            axis.contour(theta, n / d.d, values, [0], colors="black", linewidths=LINE, linestyles=[DOTTED])
    elif bottom < 1:
        gamma = 1 - np.geomspace(1 - max(bottom, 1e-3), max(1 - top, 1e-7), 600)
        printed = d.fine_tuning_contour(gamma, 0.0, depth=1)
        exact = d.fine_tuning_contour(gamma, sigma)
        axis.plot(exact, gamma, color="black", linewidth=LINE)
        axis.plot(printed, gamma, color="black", linewidth=LINE, linestyle=DASHED)
    axis.set(xlim=(left, right), ylim=(bottom, top))


def boundary_legend(axis, d: Diagram) -> None:
    """What the lines of `contours` are, in the blank half of a fine-tuning map."""
    looks = [("-", r"theory, $\mathcal{T}=0$"), (DOTTED, f"exact at $d={d.d}$"), (DASHED, r"as printed ($\kappa=1$)")]
    lines = [Line2D([], [], color="black", linewidth=LINE, linestyle=look) for look, _ in looks]
    axis.legend(lines, [words for _, words in looks], loc="upper left", handlelength=1.6, borderaxespad=0.3)


def draw_slices(axis, d: Diagram, method: str, sigma: float) -> None:
    """Transferability against gamma at three angles, or against theta if only one gamma was simulated."""
    draws = d.at(sigma)[f"{method}_transferability"]
    axis.axhline(0, color=GREY, linewidth=0.5)
    axis.set_ylim(-1.08 * d.limit, 1.08 * d.limit)
    if len(d.gamma) > 1 or len(d.theta) == 1:
        n = d.samples()
        for k, (color, theta) in enumerate(zip(COLOURS, d.thetas(), strict=False)):
            axis.plot(n / d.d, _finite(_exact(d, method, n, theta, sigma)), color=color)
            cells = draws.sel(theta=theta)
            label = angle(theta) if k else rf"$\theta=$ {angle(theta)}"
            points(axis, d.gamma, mean(cells), bars(cells), color, label)
        axis.set_xlabel(GAMMA)
        axis.set_xlim(0, max(n[-1] / d.d, d.gamma.max()) * 1.02)
    else:
        theta = np.linspace(0, max(np.pi / 2, d.theta.max()), 300)
        n = np.round(d.gamma[0] * d.d)
        axis.plot(theta, _finite(_exact(d, method, n, theta, sigma)), color=BLUE)
        cells = draws.isel(gamma=0)
        points(axis, d.theta, mean(cells), bars(cells), BLUE, rf"$\gamma={d.gamma[0]:g}$")
        axis.set_xlabel(THETA)
        angle_ticks(axis)


def _exact(d: Diagram, method: str, n, theta, sigma):
    if method == "linear_transfer":
        return d.probe_exact(n, theta, sigma)
    return d.fine_tuned(np.asarray(n) / d.d, theta, sigma)


def _finite(values):
    return np.where(np.isfinite(values), values, np.nan)


def _norm(d: Diagram) -> Normalize:
    return Normalize(-d.limit, d.limit)


def _exactly_zero(axis) -> None:
    """A line at gamma = 1, and a word on why the panel is blank above it."""
    (left, right), (bottom, top) = axis.get_xlim(), axis.get_ylim()
    if bottom < 1 < top:
        axis.axhline(1, color="black", linewidth=0.4)
    if top > 1.3:
        axis.text(
            (left + right) / 2, 1 + 0.25 * (top - 1), r"$\mathcal{T}_{\mathrm{ft}}=0$ for $\gamma\geq1$",
            ha="center", va="center", fontsize=SMALL + 0.5, color="0.25",
        )  # fmt: skip


def colour_bar(figure: Figure, axes) -> None:
    """One colour bar for the maps of these axes."""
    bar = figure.colorbar(axes.flat[0].collections[0], ax=axes, extend="both", shrink=0.75, aspect=30, pad=0.02)
    bar.set_label(r"transferability   (hurts $\leftarrow$ 0 $\rightarrow$ helps)")
    bar.outline.set_linewidth(0.6)
    bar.locator = MaxNLocator(4, steps=[1, 2, 5, 10])
    bar.update_ticks()
