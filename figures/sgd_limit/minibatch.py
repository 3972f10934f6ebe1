"""SGD on real samples: stationary variances, stability, and second moments of a small data set."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.statistics import bars, edges, mean, of_draws
from figures.style import (
    DASHED,
    DOTTED,
    GREY,
    SIGNED,
    SMALL,
    footer,
    letter,
    number,
    panels,
    points,
    style,
)
from theory.sgd_limit import (
    phase_space_covariance,
    streaming_feedback,
    streaming_stationary,
)


def _settings(dataset):
    return json.loads(dataset.attrs["settings"])


def _spectrum(dataset):
    settings = _settings(dataset)
    return np.arange(1.0, settings["d"] + 1) ** -settings["alpha"]


def streaming(dataset: xr.Dataset) -> Figure | None:
    """Variance of every mode over that under additive noise, a panel for each batch size."""
    if dataset["batch"].ndim == 0 or dataset["beta"].ndim == 0 or dataset["effective_rate"].ndim == 0:
        return None
    rho, sigma = _spectrum(dataset), float(np.ravel(dataset["sigma"])[0])
    modes = dataset["mode"].values
    with style():
        figure, axes = panels(1, dataset.sizes["batch"], 2.2, sharey=True)
        axes[0, 0].set_ylim(0.96, 1.03 * float((dataset["variance_theory"] / _additive(dataset)).max()))
        for j, axis in enumerate(axes.flat):
            S = float(dataset["batch"][j])
            axis.axhline(1.0, color=GREY, linestyle=DASHED)
            for i, beta in enumerate(dataset["beta"].values):
                for e, rate in enumerate(dataset["effective_rate"].values):
                    cell = {"batch": j, "beta": i, "effective_rate": e}
                    additive = _additive(dataset).isel(cell)
                    exact = streaming_stationary(rho, rate * (1 - beta), beta, S, sigma).variance / additive.values
                    axis.plot(modes, exact, color=f"C{i}", linestyle="-" if e else DOTTED)
                    draws = dataset["variance"].isel(cell) / additive
                    label = rf"$\beta={number(float(beta))}$" if e == 0 else None
                    at = modes + 0.1 * (i - (dataset.sizes["beta"] - 1) / 2)
                    points(axis, at, mean(draws).values, bars(draws).values, f"C{i}", label)
            axis.set_title(f"batch $S={number(S)}$")
            axis.set_xlabel("mode $l$")
            axis.set_xticks(modes if len(modes) < 12 else modes[:: len(modes) // 6])
        axes[0, 0].set_ylabel("variance over that\nunder additive noise")
        axes[0, -1].legend(fontsize=SMALL, loc="upper right")
        rates = (number(float(rate)) for rate in dataset["effective_rate"].values[[0, -1]])
        words = ", ".join(
            rf"{look} $\eta/(1-\beta)={rate}$" for look, rate in zip(("dotted", "full"), rates, strict=True)
        )
        letter(axes.flat)
        note = f"lines: theory ({words}); dashed: additive noise; markers: simulation with 95 % bars"
        footer(figure, dataset, note)
    return figure


def _additive(dataset):
    """Variances under the noise of the optimum."""
    rho = xr.DataArray(_spectrum(dataset), dims="mode")
    beta, S = dataset["beta"], dataset["batch"]
    cells = xr.broadcast(rho, dataset["effective_rate"] * (1 - beta), beta, S, dataset["sigma"])
    numbers = (cells[k].values for k in range(4))
    law = phase_space_covariance(*numbers, 0.0, cells[4].values)
    return cells[0].copy(data=np.asarray(law.position))


def stability(dataset: xr.Dataset) -> Figure | None:
    """Growth of the risk, where the second moments are stable, and where gradient descent is."""
    if dataset["beta"].ndim == 0 or dataset["eta"].ndim == 0:
        return None
    dataset = dataset.sortby(["beta", "eta"])
    beta, eta, S = dataset["beta"].values, dataset["eta"].values, _settings(dataset)["batch"]
    growth = mean(dataset["growth"]).transpose("eta", "beta").values
    x, y = edges(beta), edges(eta, logarithmic=True)
    dense, fine = np.linspace(0, min(x[-1], 0.999), 200), np.geomspace(y[0], y[-1], 200)
    K = np.asarray(streaming_feedback(_spectrum(dataset), fine[:, None], dense[None, :], S))
    with style():
        figure, axes = panels(1, 1, 2.5, "half")
        axis = axes[0, 0]
        limit = 3 * np.abs(np.minimum(growth, 0)).max() or 1.0  # the explosion is left to the end of the scale
        image = axis.pcolormesh(x, y, growth, cmap=SIGNED, vmin=-limit, vmax=limit, rasterized=True)
        axis.contour(dense, fine, np.where(np.isfinite(K), K, 1e9), [1.0], colors="black")
        axis.plot(dense, 2 * (1 + dense), color="black", linestyle=DASHED)
        axis.set_yscale("log")
        axis.set(xlim=(max(x[0], 0), x[-1]), ylim=(y[0], y[-1]))
        axis.set_xlabel(r"momentum $\beta$")
        axis.set_ylabel(r"learning rate $\eta$")
        bar = figure.colorbar(image, ax=axis, extend="both", pad=0.02, aspect=22)
        bar.set_label("growth of ln(risk) a step", fontsize=SMALL + 0.5)
        looks = [Line2D([], [], color="black", linestyle=look) for look in ("-", DASHED)]
        axis.legend(looks, ["$K=1$", r"$\eta\rho_1=2(1+\beta)$"], loc="lower left", fontsize=SMALL)
        footer(figure, dataset, f"S = {S:g}; colour: simulation; line: theory; dashed: gradient descent")
    return figure


def finite_data(dataset: xr.Dataset) -> Figure | None:
    """Mean square of the first coordinate, over theory, step by step; and what shuffled epochs change."""
    if dataset["batch"].ndim == 0 or dataset["beta"].ndim == 0 or dataset["effective_rate"].ndim == 0:
        return None
    at = {"effective_rate": -1, "batch": 0, "beta": dataset.sizes["beta"] // 2, "entry": 0}
    steps = dataset["step"].values
    cell = ", ".join(
        rf"${symbol}={number(float(dataset[name][at[name]]))}$"
        for name, symbol in (("batch", "S"), ("beta", r"\beta"), ("effective_rate", r"\eta/(1-\beta)"))
    )
    looks = {"exchanged": (DOTTED, "other sampling"), "at_optimum": (DASHED, "noise of the optimum")}
    looks["additive"] = ((0, (5, 1.5, 1, 1.5)), r"noise $\propto H$")
    with style():
        figure, axes = panels(1, 3, 2.2)
        for axis, name in zip(axes.flat, ("with_replacement", "without_replacement"), strict=False):
            draws = dataset[name].isel(at)
            axis.axhline(1.0, color="C0", label="exact")
            for twin, (look, words) in looks.items():
                axis.plot(steps, of_draws(dataset[f"{name}_{twin}"]).isel(at), color=GREY, linestyle=look, label=words)
            points(axis, steps, mean(draws).values, bars(draws).values, "C0")
            axis.set_title(name.replace("_", " "))
            axis.set_xlabel("step")
        axes[0, 0].set_ylabel(r"$E x_1^2$ over theory")
        axes[0, 0].legend(fontsize=SMALL, loc="best")
        _epochs(axes[0, 2], dataset)
        letter(axes.flat)
        note = f"(a), (b): {cell}, markers: simulation with 95 % bars, lines: laws averaged over data sets"
        if dataset.sizes["batch"] > 1:
            note += f"; (c): full markers $S={number(float(dataset['batch'][0]))}$, open ones larger batches"
        footer(figure, dataset, note)
    return figure


def _epochs(axis, dataset):
    """Change of the variance of every mode, against how slow the mode is to the epoch."""
    modes = dataset["mode"].values
    axis.set(ylim=(-1.05, 0.25), xticks=modes)
    axis.axhline(0.0, color=GREY, linestyle=DASHED)
    for i, beta in enumerate(dataset["beta"].values):
        for j in range(dataset.sizes["batch"]):
            draws = dataset["epochs"].isel(beta=i, batch=j, effective_rate=0)
            at = modes + 0.12 * (i - 1) + 0.04 * (2 * j - 1)
            label = rf"$\beta={number(float(beta))}$" if j == 0 else None
            look = {"mfc": f"C{i}" if j == 0 else "white"}
            points(axis, at, mean(draws).values, bars(draws).values, f"C{i}", label, **look)
    axis.set_title("shuffled epochs")
    axis.set_xlabel("mode, from the steepest")
    axis.set_ylabel("change of the variance")
    axis.legend(fontsize=SMALL, loc="upper left", ncols=len(dataset["beta"]), columnspacing=0.7, handletextpad=0.1)
