"""Several normal dimensions with random matrices: the exponent of the Ito process, and what bounds it."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sims.engine.experiment import (
    NONNEGATIVE,
    POSITIVE,
    Bound,
    Experiment,
    Order,
    Output,
    Parameter,
    Setting,
    per_cell,
    whole,
)
from sims.stochastic_collapse.setup import SOURCE
from theory.stochastic_collapse import largest_log_norm_drift, mean_square_exponent, top_exponent_2d

CHANNELS = 2


class Sizes(NamedTuple):
    """What a compilation depends on."""

    dimension: int
    paths: int


def system(cell, dimension):
    """Curvature and noise of one cell: a fixed draw for every number of the axis `system`."""
    key = jax.random.fold_in(jax.random.key(0), cell["system"].astype(jnp.int32))
    k_H, k_G = jax.random.split(jax.random.fold_in(key, dimension))
    H = jax.random.normal(k_H, (dimension, dimension)) / 2
    G = jax.random.normal(k_G, (CHANNELS, dimension, dimension)) / dimension**0.5
    return H, cell["noise"] * G


def times(matrix, vectors):
    """The matrix times every vector, shape (paths, d), as a sum: its bits do not depend on the number of paths."""
    return jnp.sum(matrix[None] * vectors[:, None, :], -1)


class Step(NamedTuple):
    """One Euler step of every path, from unit vectors."""

    end: jax.Array
    growth: jax.Array
    martingale: jax.Array
    drift: jax.Array


def step(n, noise, H, G, dt) -> Step:
    """The next direction, growth of ln |z| and its martingale, and the drift q(n) of the direction left."""
    Gn = [times(g, n) for g in G]
    along = [jnp.sum(n * each, -1) for each in Gn]
    Hn = times(H, n)
    drift = sum(jnp.sum(each**2, -1) / 2 - a**2 for each, a in zip(Gn, along, strict=True)) - jnp.sum(n * Hn, -1)
    kicks = jnp.sqrt(dt) * noise.T
    end = n - dt * Hn + sum(kick[:, None] * each for kick, each in zip(kicks, Gn, strict=True))
    square = jnp.sum(end**2, -1)
    martingale = sum(kick * a for kick, a in zip(kicks, along, strict=True))
    return Step(end / jnp.sqrt(square)[:, None], jnp.log(square) / 2, martingale, drift)


def one(key, cell, settings, sizes):
    H, G = system(cell, sizes.dimension)
    k_start, k_noise = jax.random.split(key)
    start = jax.random.normal(k_start, (sizes.paths, sizes.dimension))
    start = start / jnp.sqrt(jnp.sum(start**2, -1, keepdims=True))
    dt = settings["dt"]
    skipped, last = (jnp.round(t / dt).astype(jnp.int32) for t in (settings["burn_in"], settings["time"]))

    def advance(k, state):
        n, total, largest = state
        # Increments of +- sqrt(dt) have the moments that first order needs, at a quarter of a Gaussian's cost.
        noise = jax.random.rademacher(jax.random.fold_in(k_noise, k), (sizes.paths, CHANNELS), dt.dtype)
        end, growth, martingale, drift = step(n, noise, H, G, dt)
        # The martingale has mean zero: less of it, the same mean is known better.
        return end, total + jnp.where(k < skipped, 0.0, growth - martingale), jnp.maximum(largest, drift)

    none = jnp.zeros(sizes.paths, dt.dtype)
    _, total, visited = jax.lax.fori_loop(jnp.int32(0), last, advance, (start, none, none - jnp.inf))
    exponent, visited = jnp.mean(total) / ((last - skipped).astype(dt.dtype) * dt), jnp.max(visited)
    largest = largest_log_norm_drift(H, G)
    return {
        "exponent": exponent,
        "largest": visited,
        "largest_theory": largest,
        "above": jnp.maximum(jnp.maximum(exponent, visited) - largest, 0.0),
        "above_theory": jnp.zeros_like(exponent),
        "above_of_mean_square": jnp.maximum(mean_square_exponent(H, G) - largest, 0.0),
    }


def of_systems(formula):
    """A formula of (H, G) in every cell; it is known in two dimensions."""

    def values(cells, settings, sizes):
        if sizes.dimension != 2:
            return jnp.full_like(cells["system"], jnp.nan)
        return formula(*jax.vmap(lambda cell: system(cell, 2))(dict(cells)))

    return values


def stratonovich(H, G):
    """The exponent of the same matrices read as a Stratonovich process."""
    return top_exponent_2d(H - jnp.sum(G @ G, -3) / 2, G)


def predict(cells, settings, sizes):
    return {"exponent": of_systems(top_exponent_2d)(cells, settings, sizes)}


def fits(values, settings):
    if settings["burn_in"] >= settings["time"]:
        raise ValueError(f"`burn_in` must be below `time` = {settings['time']:g}, but got {settings['burn_in']:g}.")


normal_dimensions = Experiment(
    name="normal_dimensions",
    title="Several normal dimensions: exponent and largest drift",
    sources=(SOURCE,),
    axes={
        "dimension": Parameter([2, 3, 4], "normal dimensions $d$", domain=whole(1), role="static"),
        "system": Parameter(range(6), "draw of the matrices", domain=whole(0)),
    },
    fixed={"noise": Parameter(1.0, "noise amplitude", domain=NONNEGATIVE)},
    settings={
        "paths": Setting(200, "paths of a replicate", domain=whole(1)),
        "time": Setting(50.0, "time of a path", domain=POSITIVE),
        "burn_in": Setting(10.0, "time until directions are stationary", domain=NONNEGATIVE),
        "dt": Setting(0.02, "time step", domain=POSITIVE),
    },
    sizes=lambda settings: Sizes(int(settings["dimension"]), settings["paths"]),
    simulate=per_cell(one, one_by_one=True),
    predict=predict,
    validate=fits,
    outputs={
        "exponent": Output(r"exponent $\Lambda$", unit="1/t"),
        "largest": Output("largest drift on the way", unit="1/t"),
        "above": Output("exponent, or drift on the way, above the largest", unit="1/t"),
    },
    claims=(
        Order(
            "exponent", "steps approach the exponent of two dimensions to first order", setting="dt",
            values=(0.06, 0.04, 0.03, 0.02), order=1, replicates=20, axes={"dimension": [2]}, settings={"paths": 1000},
            twins={
                "the largest drift": of_systems(largest_log_norm_drift),
                "growth of the mean square": of_systems(mean_square_exponent),
                "Stratonovich": of_systems(stratonovich),
            },
        ),
        Bound(
            "above", "no exponent and no drift on the way exceeds the largest, in any dimension", upper=0.01,
            twins={"growth of the mean square": "above_of_mean_square"},
        ),
    ),
    presets={
        "smoke": {"dimension": [2, 3], "system": [0, 3], "paths": 100, "time": 30.0, "replicates": 4, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {"dimension": [2, 3, 4, 6, 8], "system": range(50), "paths": 5000, "dt": 0.005, "replicates": 40},
    },
)  # fmt: skip
