"""Two-layer ReLU networks: the probe's floor under the falling risk from scratch, and where the two cross."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.statistics import bars, edges, mean, of_draws
from figures.style import (
    BLUE,
    DASHED,
    DOTTED,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    SMALL,
    VERMILION,
    footer,
    label_of,
    legend_above,
    letter,
    panels,
    points,
    style,
)

COLOURS = (BLUE, GREEN, ORANGE, VERMILION, PURPLE, SKY)


def relu(dataset: xr.Dataset) -> Figure:
    """Risks against the number of samples, and the map of the probe's transferability with the measured crossing."""
    mus = dataset["mu"].values
    shown = [mu for mu in mus if mu > 0] or list(mus)
    shown = [shown[i] for i in np.unique(np.linspace(0, len(shown) - 1, 3).round().astype(int))]
    exponent, scale = power_law(dataset)
    with style():
        figure, axes = panels(1, 3, 2.35)
        probe, tuned, phases = axes[0]
        _risks(probe, dataset, "linear_transfer_risk", shown, exponent, scale)
        _risks(tuned, dataset, "fine_tuning_risk", shown, exponent, scale)
        for colour, mu in zip(COLOURS, shown, strict=False):
            floor = float(of_draws(dataset["linear_transfer_risk_floor"]).sel(mu=mu)[0])
            probe.axhline(floor, color=colour, linewidth=0.7, linestyle=DOTTED)
        if len(mus) > 1:
            _phases(phases, figure, dataset, exponent, scale)
        letter(axes.flat)
        footer(figure, dataset, rf"dashed: power law $R_{{\mathrm{{sc}}}}\propto n^{{{exponent:.2f}}}$, fitted")
    return figure


def power_law(dataset: xr.Dataset) -> tuple[float, float]:
    """(exponent, scale) of scale * n^exponent, fitted to the risk from scratch; it depends on the target alone."""
    risk = mean(dataset["scratch_risk"]).mean("mu")
    use = np.isfinite(risk.values) & (risk.values > 0)
    if use.sum() < 2:
        return np.nan, np.nan
    exponent, constant = np.polyfit(np.log(dataset["n"].values[use]), np.log(risk.values[use]), 1)
    return float(exponent), float(np.exp(constant))


def _risks(axis, dataset, name, shown, exponent, scale):
    n = dataset["n"].values
    axis.set_xscale("log")
    axis.set_yscale("log")
    scratch = dataset["scratch_risk"].mean("mu", skipna=True)
    values = [mean(scratch), *(mean(dataset[name].sel(mu=mu)) for mu in shown)]
    lowest, highest = (float(f([f(v.where(v > 0)) for v in values])) for f in (np.nanmin, np.nanmax))
    axis.set_ylim(0.6 * lowest, 1.6 * highest)
    axis.plot(n, scale * n**exponent, color=GREY, linewidth=0.9, linestyle=DASHED)
    first = name == "linear_transfer_risk"
    points(axis, n, mean(scratch), bars(scratch), GREY, None if first else "scratch")
    for colour, mu in zip(COLOURS, shown, strict=False):
        draws = dataset[name].sel(mu=mu)
        axis.plot(n, of_draws(dataset[f"{name}_theory"]).sel(mu=mu), color=colour)
        label = f"{mu:g}" if mu != shown[0] else rf"$\mu=$ {mu:g}"
        points(axis, n, mean(draws), bars(draws), colour, label if first else None)
    axis.set_xlabel(label_of(dataset["n"]))
    axis.set_ylabel(label_of(dataset[name]))
    legend_above(axis)


def _phases(axis, figure, dataset, exponent, scale):
    gain = mean(dataset["linear_transfer_transferability"]).transpose("n", "mu")
    limit = float(np.nanmax(np.abs(gain)))
    across, along = edges(dataset["mu"].values), np.exp(edges(np.log(dataset["n"].values)))
    image = axis.pcolormesh(across, along, gain, cmap="RdBu", vmin=-limit, vmax=limit, rasterized=True)
    figure.colorbar(image, ax=axis, label=r"transferability $\mathcal{T}_{\mathrm{lt}}$")
    floor = of_draws(dataset["linear_transfer_risk_floor"]).isel(n=0).values
    axis.plot(dataset["mu"], (floor / scale) ** (1 / exponent), color="black", linestyle=DASHED)
    axis.set_yscale("log")
    axis.set_ylim(along[0], along[-1])
    axis.set_xlabel(r"missing fraction of the teacher $\mu$")
    axis.set_ylabel(label_of(dataset["n"]))
    crossing = Line2D([], [], color="black", linestyle=DASHED)
    axis.legend([crossing], ["fit crosses the floor"], loc="upper right", fontsize=SMALL, handlelength=1.6)
