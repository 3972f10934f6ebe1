"""A linear neuron in time: growth along the solution, turning away from the start, and its kernel."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.figure import Figure

from figures.statistics import bars, first_of_the_rest, mean
from figures.style import SIGNED, SMALL, footer, letter, number, panels, points, style

PANELS = (
    (r"along the solution, $\beta\cdot\beta_*$", lambda d, end="": d[f"beta{end}"].isel(component=0)),
    (r"across it, $|\beta_\perp|$", lambda d, end="": np.abs(d[f"beta{end}"].isel(component=1))),
    (r"kernel distance $S(0,t)$", lambda d, end="": d[f"kernel_distance{end}"]),
)


def trajectories(dataset: xr.Dataset) -> Figure:
    """Means over random starts at every imbalance: lines are the exact flow, markers gradient descent."""
    dataset, _ = first_of_the_rest(dataset, "delta")
    deltas = np.atleast_1d(dataset["delta"].values)
    reach, times = max(np.abs(deltas).max(), 1e-9), dataset["time"].values
    with style():
        figure, axes = panels(1, 3, 2.3)
        for axis, (words, pick) in zip(axes[0], PANELS, strict=True):
            draws, theory = pick(dataset), pick(dataset, "_theory")
            top = float(max(mean(draws).max(), mean(theory).max()))
            bottom = float(min(mean(draws).min(), mean(theory).min(), 0))
            axis.set_ylim(bottom - 0.05 * (top - bottom), top + 0.12 * (top - bottom))
            axis.set_xscale("log")
            for delta in deltas:
                at = {"delta": delta} if dataset["delta"].ndim else {}
                axis.plot(times, mean(theory.sel(at)), color=_colour(delta / reach))
                points(
                    axis, times, mean(draws.sel(at)), bars(draws.sel(at)), _colour(delta / reach), number(float(delta))
                )
            axis.set_xlabel("time $t$")
            axis.set_ylabel(words)
            axis.set_xticks(times, [number(float(t)) for t in times])
            axis.minorticks_off()
        axes[0, -1].legend(title=r"$\delta$", fontsize=SMALL, title_fontsize=SMALL, loc="upper left")
        letter(axes.flat)
        footer(figure, dataset, "lines: exact flow, markers: gradient descent; means over random starts")
    return figure


def _colour(share: float):
    """Red upstream, blue downstream, dark grey balanced; the pale middle of the map is left out."""
    return colormaps[SIGNED](0.5 + np.sign(share) * (0.2 + 0.3 * abs(share))) if share else "0.2"
