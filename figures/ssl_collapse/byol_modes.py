"""What the figures of BYOL share: the modes, their colours, and a panel a mode over a grid of two axes."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import LinearSegmentedColormap

from figures.statistics import edges, mean, of_draws
from figures.style import BLACK, BLUE, GREEN, PURPLE, VERMILION, hatched, number

# Clean and augmentation variances of the modes, as the experiments have them.
CLEAN, NOISE = np.array([1.4, 0.9, 0.7, 0.4]), np.array([0.4, 0.3, 0.5, 0.3])
COLOURS = (BLUE, GREEN, VERMILION, PURPLE)
FATES = LinearSegmentedColormap.from_list("fates", ["#3b2c6e", "#f4f1e4", "#009E73"])


def variances(mode: int) -> dict[str, float]:
    """a and c of a mode, counted from 1."""
    return {"a": CLEAN[mode - 1], "c": NOISE[mode - 1]}


def words(mode: int) -> str:
    return rf"$a={number(CLEAN[mode - 1])},\ c={number(NOISE[mode - 1])}$"


def fates(axis, dataset, name: str, mode: int, x: str, y: str, least: float, logarithmic: tuple[bool, bool]):
    """Mean margin of survival of one mode, from -`least` (dead) on; hatched where no fate is predicted by then."""
    here = dataset[name].sel(mode=mode)
    known = of_draws(dataset[f"{name}_theory"].sel(mode=mode)).transpose(y, x).notnull().values
    grid = [edges(dataset[v].values, log) for v, log in zip((x, y), logarithmic, strict=True)]
    values = mean(here).transpose(y, x).values
    mesh = axis.pcolormesh(*grid, values, cmap=FATES, vmin=-least, vmax=least, rasterized=True)
    hatched(axis, *grid, ~known, edgecolor="0.62")
    for log, scale in zip(logarithmic, (axis.set_xscale, axis.set_yscale), strict=True):
        if log:
            scale("log")
    axis.set(xlim=grid[0][[0, -1]], ylim=grid[1][[0, -1]])
    return mesh


LINE = {"color": BLACK, "linewidth": 1.3}
