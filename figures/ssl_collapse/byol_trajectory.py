"""BYOL in time: predictor, encoder, target and the distance from the parabola beside the equation of a mode."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from figures.ssl_collapse.byol_modes import COLOURS, variances, words
from figures.statistics import bars, first_of_the_rest, mean
from figures.style import SMALL, footer, label_of, letter, number, panels, points, style
from theory.ssl_collapse import byol_invariant, byol_trajectory

OUTPUTS = ("p", "w2", "tau", "invariant")


def trajectory(dataset: xr.Dataset) -> Figure | None:
    """The four modes from the first start of the sweep: lines are theory, markers matrices on all data."""
    dataset, _ = first_of_the_rest(dataset)
    t = dataset["time"].values
    dense = np.linspace(0, t[-1], 200)
    eta, alpha, beta, p0, w0 = (
        float(dataset[name]) for name in ("weight_decay", "predictor_rate", "ema_rate", "start", "encoder")
    )
    with style():
        figure, axes = panels(1, 4, 2.1)
        for mode, colour in enumerate(COLOURS, start=1):
            path = byol_trajectory(
                dense, p0, w0**2, **variances(mode), weight_decay=eta, predictor_rate=alpha, ema_rate=beta, steps=10
            )
            lines = (*path, byol_invariant(dense, p0, w0**2, eta, alpha))
            for axis, line in zip(axes[0], lines, strict=True):
                axis.plot(dense, line, color=colour, label=words(mode))
        for axis, name in zip(axes[0], OUTPUTS, strict=True):
            for mode, colour in enumerate(COLOURS, start=1):
                here = dataset[name].sel(mode=mode)
                points(axis, t, mean(here), bars(here), colour)
            axis.set(xlabel="time", ylabel=label_of(dataset[name]))
        axes[0, 3].set_ylim(top=np.ptp(axes[0, 3].get_ylim()) * 1.45 + axes[0, 3].get_ylim()[0])
        axes[0, 3].legend(fontsize=SMALL, loc="upper right")
        letter(axes.flat)
        footer(
            figure, dataset, "lines: theory; markers: gradient descent of the matrices on all data, "
            rf"from $p={number(p0)}$, $w={number(w0)}$",
        )  # fmt: skip
    return figure
