"""The ladders of a verdict: how the difference between theory and simulation vanishes."""

from __future__ import annotations

import textwrap

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from scipy import stats

from figures.style import BLUE, GREY, SMALL, VERMILION, footer, letter, number, panels, style, verdict_of

WORDS = {
    "alpha": r"initial scale $\alpha$",
    "learning_rate": r"learning rate $\eta$",
    "d": r"dimension $d$",
    "n": r"samples $n$",
    "width": "width",
    "dt": r"time step $\Delta t$",
    "eta": r"learning rate $\eta$",
    "step": r"step $\sqrt\eta$",
    "delta": r"distance $\delta$",
    "strength": "noise of a step",
    "m": r"size $m$",
    "steps": "steps",
    "lag": "lag",
    "batch": r"batch size $S$",
    "negatives": r"negatives $N$",
    "rate": "learning rate",
    "scale": "scale of the start",
    "p0": r"start $p_0$",
    "distance": "distance from the threshold",
}
COLUMNS = 3


def convergence(dataset: xr.Dataset) -> Figure | None:
    """Discrepancy against the setting that controls it, one panel an order claim, with fitted and predicted order."""
    ladders = [ladder for judgement in verdict_of(dataset) if (ladder := _ladder(judgement)) is not None]
    if not ladders:
        return None
    columns = 2 if len(ladders) == 4 else min(len(ladders), COLUMNS)
    rows = -(-len(ladders) // columns)
    with style():
        column = "half" if columns == 1 else "full"
        figure, axes = panels(rows, columns, 2.35 * rows + 0.2, column)
        for axis in axes.flat[len(ladders) :]:
            axis.remove()
        for axis, ladder in zip(axes.flat, ladders, strict=False):
            _panel(axis, **ladder)
        for axis in axes[:, 0]:
            axis.set_ylabel("|simulation − theory|")
        letter(axes.flat[: len(ladders)])
        footer(figure, dataset)
    return figure


def _ladder(judgement: dict) -> dict | None:
    """What a panel shows of an order claim; None if the claim is another or no rung is positive."""
    numbers = judgement.get("numbers", {})
    setting = next(iter(numbers), None)
    if judgement["kind"] != "order" or "discrepancy" not in numbers:
        return None
    x, y, error = (np.array(numbers[key], float) for key in (setting, "discrepancy", "standard error"))
    seen = y > 0
    if seen.sum() < 2:
        return None
    half = stats.t.ppf(0.975, max(judgement["replicates"] - 1, 1)) * error
    return {
        "setting": setting,
        "x": x[seen],
        "y": y[seen],
        "half": half[seen],
        "fitted": numbers.get("fitted order"),
        "predicted": numbers["predicted order"],
        "sentence": judgement["sentence"],
        "outcome": judgement["outcome"],
    }


def _panel(axis, setting, x, y, half, fitted, predicted, sentence, outcome):
    axis.set_xscale("log")
    axis.set_yscale("log")
    # A bar that reaches zero has no lower end on a logarithmic axis: it leaves the panel.
    axis.errorbar(x, y, yerr=[np.minimum(half, y * (1 - 1e-3)), half], fmt="o", color=BLUE, zorder=3)
    weights = y / np.maximum(half, 0.02 * y)
    centre = [np.average(np.log(v), weights=weights**2) for v in (x, y)]
    along = np.array([x.min() / 1.3, x.max() * 1.3])
    for order, look, name in (
        (predicted, {"color": GREY, "linestyle": "--"}, "predicted"),
        (fitted, {"color": VERMILION}, "fitted"),
    ):
        if order is not None:
            line = np.exp(centre[1] + order * (np.log(along) - centre[0]))
            axis.plot(along, line, label=f"{name} order ${order:.3g}$", zorder=2 if name == "fitted" else 1, **look)
    axis.set_xlim(*along)
    span = np.log(y.max() / y.min())
    low, high = y.min() * np.exp(-0.12 * span) / 1.3, y.max() * np.exp(0.2 * span) * 1.3
    axis.set_ylim(min(low, max((y - half)[half < y].min(initial=low), low / 3)), max(high, 1.1 * (y + half).max()))
    axis.set_xticks(x, [number(v) for v in x])
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.minorticks_off()
    if np.ptp(np.log10(axis.get_ylim())) < 2.5:
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axis.set_xlabel(WORDS.get(setting, setting.replace("_", " ")))
    rising = (predicted if fitted is None else fitted) or 0
    axis.legend(loc="upper left" if rising > 0 else "upper right", borderaxespad=0.1)
    words = textwrap.fill(f"{sentence}: {outcome}", 31)
    axis.annotate(words, (0, 1), (16, 4), "axes fraction", "offset points", fontsize=SMALL, va="bottom")
