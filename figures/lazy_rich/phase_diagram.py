"""The lazy-rich phase diagram: each measure early and late, by theory, in simulation, and their difference."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from figures.statistics import edges, failed, first_of_the_rest, mean, of_draws
from figures.style import MAGNITUDE, SMALL, footer, hatched, number, panels, style

ROWS = {
    "neuron_kernel_distance": ("linear neuron\nkernel distance", "time"),
    "kernel_distance": ("ReLU network\nkernel distance", "step"),
    "hamming_distance": ("ReLU network\nHamming distance", "step"),
    "parameter_distance": ("ReLU network\nparameter distance", "step"),
    "test_loss": ("ReLU network\ntest loss", "step"),
}
LOGARITHMIC = ("parameter_distance", "test_loss")


def phase_diagram(dataset: xr.Dataset) -> Figure | None:
    """Rows are measures; three columns for an early time and three for a late one."""
    dataset, _ = first_of_the_rest(dataset, "tau", "delta")
    if dataset["tau"].ndim == 0 or dataset["delta"].ndim == 0:
        return None
    dataset = dataset.sortby(["tau", "delta"])
    names = [name for name in ROWS if name in dataset]
    with style():
        figure, axes = panels(len(names), 6, 1.15 * len(names) + 0.5, sharex=True, sharey=True)
        for row, name in zip(axes, names, strict=True):
            words, clock = ROWS[name]
            for group, at in ((row[:3], 0), (row[3:], -1)):
                _maps(figure, group, dataset, name, dataset[clock].values[at])
            row[0].set_ylabel(words + "\n" + r"scale $\tau$", fontsize=SMALL + 0.5)
        for axis in axes[-1]:
            axis.set_xlabel(r"imbalance $\delta$")
        for group in (axes[0, :3], axes[0, 3:]):
            for axis, title in zip(group, ("theory", "simulation", "difference"), strict=True):
                axis.set_title(title)
        for k, axis in enumerate(axes[:, 0]):
            axis.text(-0.42, 1.0, f"({chr(ord('a') + k)})", transform=axis.transAxes, fontweight="bold", va="top")
        note = r"ReLU theory: descent on infinitely many samples; upstream: $\delta>0$"
        footer(figure, dataset, note)
    return figure


def _maps(figure, row, dataset, name, moment):
    _, clock = ROWS[name]
    cell = dataset[[name, f"{name}_theory"]].sel({clock: moment})
    draws, theory = (cell[key].transpose("tau", "delta", ...) for key in (name, f"{name}_theory"))
    values, expected = mean(draws).values, of_draws(theory).values
    gap = mean(draws - theory).transpose("tau", "delta").values
    x, y = edges(dataset["delta"].values), edges(dataset["tau"].values, logarithmic=True)
    together = np.concatenate([values.ravel(), expected.ravel()])
    together = together[np.isfinite(together)]
    if name in LOGARITHMIC and (together > 0).any():
        low = together[together > 0].min()
        norm = LogNorm(max(low, together.max() / 1e4), together.max())
    else:
        norm = Normalize(0, max(together.max(), 1e-12))
    limit = max(np.nanmax(np.abs(gap)), 1e-12)
    row[0].pcolormesh(x, y, expected, norm=norm, cmap=MAGNITUDE, rasterized=True)
    image = row[1].pcolormesh(x, y, values, norm=norm, cmap=MAGNITUDE, rasterized=True)
    difference = row[2].pcolormesh(x, y, gap, vmin=-limit, vmax=limit, cmap="PuOr_r", rasterized=True)
    lost = failed(dataset).transpose("tau", "delta").values
    for axis in row:
        axis.set_yscale("log")
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.xaxis.set_major_locator(MaxNLocator(3))
        axis.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
        hatched(axis, x, y, lost)
    for axis, drawn in ((row[1], image), (row[2], difference)):
        bar = figure.colorbar(drawn, ax=axis, fraction=0.08, pad=0.03)
        bar.ax.tick_params(labelsize=SMALL - 1)
        if isinstance(drawn.norm, LogNorm):
            bar.ax.yaxis.set_minor_formatter(NullFormatter())
        else:
            bar.locator = MaxNLocator(3)
            bar.update_ticks()
    stamp = f"t = {number(moment)}" if clock == "time" else f"step {number(moment)}"
    look = {"boxstyle": "square,pad=0.15", "facecolor": "black", "edgecolor": "none", "alpha": 0.6}
    row[0].text(0.04, 0.93, stamp, transform=row[0].transAxes, fontsize=SMALL - 1, color="white", va="top", bbox=look)
