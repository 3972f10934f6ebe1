"""Charges of networks that learn to read: motion and exact law, and how far any optimizer is from it."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from figures.style import COLOURS, DASHED, SMALL, footer, legend_above, letter, number, panels, style

COLUMNS = (  # network, family, name of the charge
    (0, 2, "translation: logits of an MLP"),
    (0, 0, "rescale: ReLU units of an MLP"),
    (1, 0, "scale: channels of a CNN"),
)
ROWS = {0: "SGD", 1: "heavy ball"}
OPTIMIZERS = ("SGD", "heavy\nball", "Nesterov", "decoupled\ndecay", "AdamW")
NETWORKS = ("MLP", "CNN", "transformer")
LEAST = 1e-17


def charges(dataset: xr.Dataset) -> Figure | None:
    """One network each; a line a unit, the law dashed upon it, at the largest weight decay."""
    swept = ("network", "optimizer")
    if any(dataset[name].ndim == 0 for name in swept):
        return None
    columns = [c for c in COLUMNS if c[0] in dataset["network"].values]
    rows = [r for r in ROWS if r in dataset["optimizer"].values]
    if not columns or not rows:
        return None
    decay = float(np.max(dataset["weight_decay"]))
    one = dataset.isel(replicate=0)
    one = one.sel(weight_decay=decay) if one["weight_decay"].ndim else one
    with style():
        figure, axes = panels(len(rows), len(columns), 1.75 * len(rows) + 0.3, sharex=True)
        for line, row in zip(axes, rows, strict=True):
            for axis, (network, family, words) in zip(line, columns, strict=True):
                cell = one.sel(network=network, optimizer=row).isel(family=family)
                steps = cell["moment"].values
                for unit in range(cell.sizes["unit"]):
                    colour = f"C{unit % 6}"
                    axis.plot(steps, cell["charge"].isel(unit=unit), color=colour, linewidth=2.2, alpha=0.45)
                    axis.plot(steps, cell["charge_theory"].isel(unit=unit), color="black", linestyle=DASHED, lw=0.8)
                if row == rows[0]:
                    axis.set_title(words, fontsize=SMALL + 1)
        for axis in axes[-1]:
            axis.set_xlabel("step")
        for axis, row in zip(axes[:, 0], rows, strict=True):
            axis.set_ylabel(f"charge under {ROWS[row]}")
        letter(axes.flat)
        footer(figure, dataset, rf"colours: measured, dashed: exact law; $\lambda$ = {number(decay)}; one draw shown")
    return figure


def deviations(dataset: xr.Dataset) -> Figure | None:
    """Largest deviation of a charge from the exact law over a run, optimizer by optimizer, and the budget's gap."""
    if dataset["optimizer"].ndim == 0 or dataset["network"].ndim == 0:
        return None
    steps = json.loads(dataset.attrs["settings"])["steps"]
    with style():
        figure, axes = panels(1, 2, 2.4, sharey=True)
        for axis, name, words in (
            (axes[0, 0], "deviation", "prediction minus measurement"),
            (axes[0, 1], "gap", "gap of the budget"),
        ):
            for network, colour in zip(dataset["network"].values, COLOURS, strict=False):
                for optimizer in dataset["optimizer"].values:
                    cell = dataset[name].sel(network=network, optimizer=optimizer)
                    y = cell.max([d for d in cell.dims if d != "replicate"]).values
                    offset = 0.2 * (network - 1)
                    label = NETWORKS[int(network)] if optimizer == dataset["optimizer"].values[0] else None
                    axis.plot(
                        optimizer + offset + 0 * y,
                        np.maximum(y, LEAST),
                        "o",
                        ms=2.5,
                        alpha=0.6,
                        color=colour,
                        label=label,
                    )
            axis.set_yscale("log")
            axis.yaxis.set_major_locator(LogLocator(numticks=9))
            axis.set_xlim(-0.6, len(OPTIMIZERS) - 0.4)
            axis.set_xticks(range(len(OPTIMIZERS)), OPTIMIZERS, fontsize=SMALL + 0.5)
            axis.set_ylabel(f"{words},\nover the terms of the charge")
        axes[0, 1].tick_params(labelleft=True)
        legend_above(axes[0, 0], fontsize=SMALL)
        letter(axes.flat)
        footer(figure, dataset, f"a dot a run: the largest over all charges and {steps} steps")
    return figure
