"""How far SGD wanders: displacements against time, local exponents, and both against the hyperparameters."""

from __future__ import annotations

import json

import jax
import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.statistics import bars, mean
from figures.style import (
    DASHED,
    DOTTED,
    GREY,
    SMALL,
    footer,
    legend_above,
    letter,
    number,
    panels,
    points,
    style,
)
from theory.sgd_limit import displacement_exponent, global_displacement, local_displacement

FARTHEST = 1e9  # steps to which exponents are drawn
WINDOW = 3  # octaves over which an exponent is fitted
LOOKS = ("-", DASHED, DOTTED)
COMPILED = jax.jit(global_displacement)


def displacements(dataset: xr.Dataset) -> Figure | None:
    """Displacement in one and many steps; its local exponent; displacement from a checkpoint."""
    if any(dataset[name].ndim == 0 for name in ("alpha", "beta", "eta", "batch")):
        return None
    with style():
        figure, axes = panels(1, 3, 2.35, gridspec_kw={"width_ratios": [1, 1.25, 1]})
        _many_steps(axes[0, 0], dataset)
        _local_exponents(axes[0, 1], dataset)
        _from_start(axes[0, 2], dataset)
        letter(axes.flat)
        footer(figure, dataset, "lines: theory; markers: simulated chains with 95 % bars")
    return figure


def exponents(dataset: xr.Dataset) -> Figure | None:
    """Displacement in one step, and exponents from a checkpoint, against learning rate, momentum and batch."""
    if any(dataset[name].ndim == 0 for name in ("alpha", "beta", "eta", "batch")):
        return None
    with style():
        figure, axes = panels(1, 3, 2.35)
        _one_step(axes[0, 0], dataset)
        _fitted(axes[0, 1], dataset, "eta")
        _fitted(axes[0, 2], dataset, "beta")
        axes[0, 2].set_ylabel("")
        letter(axes.flat)
        fit = rf"exponents: the last {2**WINDOW}-fold of the steps, $\alpha={number(_at(dataset, alpha=0)['alpha'])}$"
        footer(figure, dataset, f"lines: theory; markers: simulated chains with 95 % bars; {fit}")
    return figure


def _at(dataset, **index):
    """The numbers of a cell that the theory needs: the last value of an axis that is not named."""
    return {
        name: float(np.atleast_1d(dataset[name].values)[index.get(name, -1)])
        for name in ("alpha", "eta", "beta", "batch", "weight_decay")
    }


def _cell(dataset, output, **index):
    return dataset[output].isel({name: index.get(name, -1) for name in ("alpha", "beta", "eta", "batch")})


def _laws(dataset, k, cells, start=None):
    """Displacements in every cell at steps k. Shape (cells, steps)."""
    alpha, *numbers = (np.array([cell[name] for cell in cells])[:, None] for name in cells[0])
    spectrum = np.arange(1.0, json.loads(dataset.attrs["settings"])["d"] + 1) ** -alpha[..., None]
    start = None if start is None else np.full(spectrum.shape, start)
    return np.asarray(COMPILED(k[None, :], spectrum, *numbers, start=start))


def _dense(low, high, count=80):
    return np.unique(np.geomspace(low, high, count).round())


def _many_steps(axis, dataset):
    """Stationary start, the smallest batch and the largest learning rate."""
    lags = dataset["lag"].values
    axis.set(xscale="log", yscale="log")
    k = _dense(lags[0], 4 * lags[-1])
    cells = [{"alpha": 0, "beta": i, "batch": 0} for i in range(dataset.sizes["beta"])]
    laws = _laws(dataset, k, [_at(dataset, **at) for at in cells])
    for i, (beta, at, law) in enumerate(zip(dataset["beta"].values, cells, laws, strict=True)):
        axis.plot(k, law, color=f"C{i}")
        local = mean(_cell(dataset, "local", **at)).item()
        axis.plot(k[[0, -1]], [local, local], color=f"C{i}", linestyle=DOTTED)
        draws = _cell(dataset, "displacement", **at)
        points(axis, lags, mean(draws).values, bars(draws).values, f"C{i}", rf"$\beta={number(float(beta))}$")
    legend_above(axis, fontsize=SMALL)
    axis.set_xlabel("steps $k$")
    axis.set_ylabel(r"$E|\theta_{j+k}-\theta_j|^2$; dotted: in one step")


def _local_exponents(axis, dataset):
    between = dataset["lag_between"].values
    axis.set(xscale="log", ylim=(-0.15, 2.25))
    k = _dense(1, FARTHEST, 240)
    alphas = dataset["alpha"].values
    levels = {2.0: "2", 1.0: "1", 0.0: "0"} | {1 / a: rf"$1/{number(float(a))}$" for a in alphas}
    for level, words in levels.items():
        axis.axhline(level, color="0.75", linestyle=DOTTED, linewidth=0.7, zorder=0)
        axis.text(1.01, level, words, transform=axis.get_yaxis_transform(), va="center", fontsize=SMALL, color=GREY)
    second, last = min(1, dataset.sizes["eta"] - 1), len(alphas) - 1
    cases = [(0, -1, 0), (0, 0, second), (last, 0, second), (last, 0, -1)]
    places = [{"alpha": j, "beta": i, "eta": e, "batch": 0} for j, i, e in dict.fromkeys(cases)]
    cells = [_at(dataset, **at) for at in places]
    slopes = displacement_exponent(k, _laws(dataset, k, cells))
    for colour, (at, cell, slope) in enumerate(zip(places, cells, slopes, strict=True)):
        axis.plot(np.sqrt(k[1:] * k[:-1]), slope, color=f"C{colour}")
        draws = _cell(dataset, "exponent", **at)
        words = rf"$\alpha={number(cell['alpha'])}$, $\beta={number(cell['beta'])}$, $\eta={_plain(cell['eta'])}$"
        points(axis, between, mean(draws).values, bars(draws).values, f"C{colour}", words)
    axis.legend(loc="upper right", fontsize=SMALL)
    axis.set_xlabel("steps $k$")
    axis.set_ylabel(r"local exponent $c(k)$")


def _plain(value):
    return number(value).replace("$", "")


def _from_start(axis, dataset):
    lags = dataset["lag"].values
    start = json.loads(dataset.attrs["settings"])["start"]
    middle = dataset.sizes["eta"] // 2
    axis.set(xscale="log", yscale="log")
    k = _dense(lags[0], 4 * lags[-1])
    batches = range(min(dataset.sizes["batch"], len(LOOKS)))
    cells = [{"alpha": 0, "beta": i, "eta": middle, "batch": j} for j in batches for i in range(dataset.sizes["beta"])]
    for at, law in zip(cells, _laws(dataset, k, [_at(dataset, **at) for at in cells], start), strict=True):
        axis.plot(k, law, color=f"C{at['beta']}", linestyle=LOOKS[at["batch"]])
        draws = _cell(dataset, "from_start", **at)
        points(axis, lags, mean(draws).values, bars(draws).values, f"C{at['beta']}")
    sizes = [Line2D([], [], color=GREY, linestyle=look) for look in LOOKS[: dataset.sizes["batch"]]]
    words = [rf"$S={number(float(b))}$" for b in dataset["batch"].values]
    axis.legend(sizes, words, loc="upper left", fontsize=SMALL)
    axis.set_xlabel("steps $k$")
    axis.set_ylabel(r"$E|\theta_k-\theta_0|^2$ from a checkpoint")


def _one_step(axis, dataset):
    """Against the learning rate, with the law of the paper scaled from one point."""
    eta = dataset["eta"].values
    axis.set(xscale="log", yscale="log")
    dense = np.geomspace(eta[0], eta[-1], 60)
    spectrum = np.arange(1.0, json.loads(dataset.attrs["settings"])["d"] + 1) ** -float(dataset["alpha"][0])
    reference = _at(dataset, alpha=0, beta=0, eta=0, batch=0)
    measured = mean(_cell(dataset, "local", alpha=0, beta=0, eta=0, batch=0)).item()
    for look, j in zip(LOOKS, range(dataset.sizes["batch"]), strict=False):
        for i, beta in enumerate(dataset["beta"].values):
            cell = _at(dataset, alpha=0, beta=i, batch=j)
            numbers = cell["beta"], cell["batch"], cell["weight_decay"]
            axis.plot(dense, local_displacement(spectrum, dense, *numbers), color=f"C{i}", linestyle=look)
            scale = reference["batch"] * (1 - reference["beta"] ** 2) / reference["eta"] ** 2 * measured
            scaled = scale * eta**2 / (cell["batch"] * (1 - cell["beta"] ** 2))
            axis.plot(eta, scaled, "+", ms=5, color="0.3", zorder=4)
            draws = dataset["local"].isel(alpha=0, beta=i, batch=j)
            label = rf"$\beta={number(float(beta))}$" if j == 0 else None
            points(axis, eta, mean(draws).values, bars(draws).values, f"C{i}", label)
    axis.plot([], [], "+", ms=5, color="0.3", label=r"$\propto \eta^2/S(1-\beta^2)$")
    axis.legend(loc="upper left", fontsize=SMALL)
    axis.set_xlabel(r"learning rate $\eta$")
    axis.set_ylabel(r"$E|\theta_{k+1}-\theta_k|^2$")


def _fitted(axis, dataset, along):
    """Exponent over the last octaves from a checkpoint."""
    lags = dataset["lag"].values
    ends = lags[[-1 - WINDOW, -1]]
    start = json.loads(dataset.attrs["settings"])["start"]
    x = dataset[along].values
    logarithmic = along == "eta"
    dense = np.geomspace(x[0], x[-1], 60) if logarithmic else np.linspace(x[0], x[-1], 60)
    other = "beta" if along == "eta" else "eta"
    axis.set(ylim=(-0.15, 2.25))
    batches = range(min(dataset.sizes["batch"], len(LOOKS)))
    places = [{"alpha": 0, other: i, "batch": j} for j in batches for i in range(dataset.sizes[other])]
    cells = [{**_at(dataset, **at), along: value} for at in places for value in dense]
    slopes = displacement_exponent(ends, _laws(dataset, ends, cells, start)).reshape(len(places), len(dense))
    symbol = {"beta": r"\beta", "eta": r"\eta"}[other]
    for at, slope in zip(places, slopes, strict=True):
        i = at[other]
        axis.plot(dense, slope, color=f"C{i}", linestyle=LOOKS[at["batch"]])
        draws = dataset["from_start"].isel(at).sel(lag=ends)
        measured = np.log(draws).diff("lag").isel(lag=0) / np.log(ends[1] / ends[0])
        label = rf"${symbol}={_plain(float(dataset[other][i]))}$" if at["batch"] == 0 else None
        points(axis, x, mean(measured).values, bars(measured).values, f"C{i}", label)
    if logarithmic:
        axis.set_xscale("log")
    axis.legend(loc="center left" if logarithmic else "best", fontsize=SMALL)
    axis.set_xlabel(r"learning rate $\eta$" if logarithmic else r"momentum $\beta$")
    axis.set_ylabel("exponent from a checkpoint")


def local(dataset: xr.Dataset) -> Figure | None:
    """Displacement of a network in one step against each hyperparameter, with the law scaled from a single point."""
    names = ("eta", "batch", "beta")
    if any(dataset[name].ndim == 0 for name in names):
        return None
    middle = {name: dataset.sizes[name] // 2 for name in names}
    centre = {name: float(dataset[name][middle[name]]) for name in names}
    scale = mean(dataset["local"].isel(middle)).item() / _scaling(**centre)
    labels = {"eta": r"learning rate $\eta$", "batch": "batch $S$", "beta": r"momentum $\beta$"}
    symbols = {"eta": r"\eta", "batch": "S", "beta": r"\beta"}
    with style():
        figure, axes = panels(1, 3, 2.2, sharey=True)
        for axis, name in zip(axes.flat, names, strict=True):
            x = dataset[name].values
            axis.set_yscale("log")
            dense = np.linspace(x[0], x[-1], 100) if name == "beta" else np.geomspace(x[0], x[-1], 100)
            other = "beta" if name != "beta" else "eta"
            for i, value in enumerate(dataset[other].values):
                law = scale * _scaling(**{**centre, other: float(value), name: dense})
                axis.plot(dense, law, color=f"C{i}")
                draws = dataset["local"].isel({**middle, other: i, name: slice(None)})
                label = rf"${symbols[other]}={_plain(float(value))}$"
                points(axis, x, mean(draws).values, bars(draws).values, f"C{i}", label)
            if name != "beta":
                axis.set_xscale("log")
                axis.set_xticks(x, [number(float(v)) for v in x])
                axis.set_xticks([], minor=True)
            axis.legend(fontsize=SMALL)
            axis.set_xlabel(labels[name])
        axes[0, 0].plot(centre["eta"], scale * _scaling(**centre), "o", ms=7, mfc="none", color="black", zorder=5)
        axes[0, 0].set_ylabel(r"$E|\theta_{k+1}-\theta_k|^2$")
        letter(axes.flat)
        fixed = ", ".join(f"${symbols[n]}={_plain(v)}$" for n, v in centre.items())
        note = rf"lines: $\eta^2/S(1-\beta^2)$ scaled from the point in the circle ({fixed}); markers: the network"
        footer(figure, dataset, note)
    return figure


def _scaling(eta, batch, beta):
    return eta**2 / (batch * (1 - beta**2))
