"""SGD with momentum on a small data set: every second moment, step by step, for three ways of drawing batches.

Batches with and without replacement have exact laws. Those of a shuffled epoch depend on each other, so that the law of
independent batches fails; the experiment shows by how much.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sims.engine.experiment import (
    BELOW_ONE,
    NONNEGATIVE,
    POSITIVE,
    Experiment,
    Mean,
    Output,
    Parameter,
    Phase,
    Setting,
    per_cell,
    whole,
)
from sims.minibatches import minibatch, shuffled_epoch
from sims.sgd_limit.heavy_ball import half_squares, heavy_ball
from sims.sgd_limit.setup import SOURCE
from theory.sampling import minibatch_variance
from theory.sgd_limit import minibatch_moments
from theory.sgd_limit.finite_data import step_matrix


class Sizes(NamedTuple):
    """What a compilation depends on."""

    samples: int
    d: int
    batch: int
    paths: int
    steps: int


def sizes(settings) -> Sizes:
    return Sizes(*(int(settings[name]) for name in Sizes._fields))


def draw(key, samples: int, d: int):
    """Bounded inputs of unequal variances and labels with unit noise about a random line."""
    k_x, k_line, k_noise = jax.random.split(key, 3)
    scale = jnp.sqrt(3 / jnp.arange(1, d + 1, dtype=float))
    X = jax.random.uniform(k_x, (samples, d), minval=-1, maxval=1) * scale[None, :]
    return X, X @ jax.random.normal(k_line, (d,)) + jax.random.normal(k_noise, (samples,))


def independent(replace: bool):
    """Batches of all paths at step k, drawn anew: a function (key, k, sizes) -> indices, shape (paths, batch)."""

    def indices(key, k, sizes: Sizes):
        keys = jax.random.split(jax.random.fold_in(key, k), sizes.paths)
        return jax.vmap(lambda key: minibatch(key, sizes.samples, sizes.batch, replace))(keys)

    return indices


def of_epochs(key, k, sizes: Sizes):
    """Batches of all paths at step k, each path in its own shuffled epochs."""
    count = sizes.samples // sizes.batch
    keys = jax.random.split(jax.random.fold_in(key, k // count), sizes.paths)
    return jax.vmap(lambda key: shuffled_epoch(key, sizes.samples, sizes.batch)[k % count])(keys)


def second_moments(key, data, optimum, eta, beta, decay, kinds, sizes: Sizes):
    """Means over paths of z z^T after steps 1, 2, ..., K, where z = (theta - optimum, step). Starts at theta = 0.

    For every one of `kinds` of batches. Shape (kinds, K, 2 d, 2 d).
    """
    X, y = data
    keys = list(jax.random.split(key, len(kinds)))

    def loss(theta, rows):
        return half_squares(theta, X[rows], y[rows]) + decay * jnp.sum(theta**2) / 2

    def step(carry, k):
        theta, w = carry
        rows = jnp.stack([indices(key, k, sizes) for indices, key in zip(kinds, keys, strict=True)])
        gradient = jax.vmap(jax.vmap(jax.grad(loss)))(theta, rows)
        theta, w = heavy_ball(theta, w, gradient, eta, beta)
        z = jnp.concatenate([theta - optimum[None, None, :], w], 2)
        return (theta, w), jnp.mean(z[..., :, None] * z[..., None, :], 1)

    start = 2 * (jnp.zeros((len(kinds), sizes.paths, sizes.d)),)
    return jax.lax.scan(step, start, jnp.arange(sizes.steps, dtype=jnp.int32))[1].swapaxes(0, 1)


def frozen(noise, first, H, eta, beta, decay, steps: int):
    """Second moments under gradient noise whose covariance does not change."""
    F = step_matrix(H, eta, beta, decay)

    def step(M, _):
        M = F @ M @ F.T + eta**2 * jnp.tile(noise, (2, 2))
        return M, M

    return jax.lax.scan(step, first, length=steps)[1]


def entries(M, size):
    """The entries on and above the diagonal, over root mean squares `size`. Shape (steps, entries)."""
    rows, columns = np.triu_indices(M.shape[-1])
    return M[..., rows, columns] / (size[..., rows] * size[..., columns])


def one(key, cell, settings, sizes):
    k_data, k_batches = jax.random.split(key)
    X, y = data = draw(k_data, sizes.samples, sizes.d)
    beta, decay = cell["beta"], settings["weight_decay"]
    eta = cell["effective_rate"] * (1 - beta)
    law = {r: minibatch_moments(X, y, eta, beta, sizes.batch, sizes.steps, decay, replace=r) for r in (True, False)}
    optimum, first = law[True].optimum, law[True].second[0]

    kinds = (independent(True), independent(False), of_epochs)
    *simulated, shuffled = second_moments(k_batches, data, optimum, eta, beta, decay, kinds, sizes)

    H, r2 = X.T @ X / len(X), (X @ optimum - y) ** 2
    g = X.T @ (X @ optimum - y) / len(X)
    at_optimum = (X.T * r2[None, :]) @ X / len(X) - g[:, None] * g[None, :]

    noises = jnp.stack([at_optimum, jnp.mean(r2) * H])

    out = {}
    for name, replace, found in zip(("with_replacement", "without_replacement"), (True, False), simulated, strict=True):
        share = minibatch_variance(sizes.batch, None if replace else sizes.samples).astype(X.dtype)
        exact, exchanged = (law[r].second[1:] for r in (replace, not replace))
        size = jnp.sqrt(jnp.diagonal(exact, axis1=1, axis2=2))
        out[name] = entries(found, size)
        out[f"{name}_theory"], out[f"{name}_exchanged"] = entries(exact, size), entries(exchanged, size)
        wrong = jax.vmap(lambda noise: frozen(noise, first, H, eta, beta, decay, sizes.steps))(share * noises)
        out[f"{name}_at_optimum"], out[f"{name}_additive"] = (entries(M, size) for M in wrong)

    # What shuffling changes along the eigenvectors of H, late: the last epoch against independent batches.
    V, late = jnp.linalg.eigh(H)[1], sizes.samples // sizes.batch

    def variances(second):
        spread = jnp.mean(second[-late:, : sizes.d, : sizes.d], 0)
        return jnp.sum(V * (spread @ V), 0)

    iid = variances(law[False].second)
    change = variances(shuffled) / iid - 1
    return {**out, "epochs": change, "epochs_theory": -jnp.ones_like(change), "epochs_more": jnp.ones_like(change)}


def twins(output):
    names = {
        "the other way of sampling": "exchanged",
        "noise of the optimum": "at_optimum",
        "noise proportional to H": "additive",
    }
    return {words: f"{output}_{name}" for words, name in names.items()}


def fits(values, settings):
    for batch in values["batch"]:
        if settings["samples"] % batch:
            raise ValueError(f"`batch` must divide samples = {settings['samples']}, but got {batch:g}.")


DIMS = {
    "step": lambda s: np.arange(1, s["steps"] + 1),
    "entry": lambda s: np.arange(s["d"] * (2 * s["d"] + 1)),
}

finite_data = Experiment(
    name="finite_data",
    title="SGD on a finite data set: second moments step by step",
    sources=(SOURCE,),
    axes={
        "effective_rate": Parameter([0.1, 0.4], r"effective rate $\eta/(1-\beta)$", scale="log", domain=POSITIVE),
        "beta": Parameter([0.0, 0.6, 0.9], r"momentum $\beta$", domain=BELOW_ONE),
        "batch": Parameter([2, 5], r"batch $S$", scale="log", domain=whole(1), role="static"),
    },
    settings={
        "samples": Setting(20, "samples of the data set", domain=whole(2)),
        "d": Setting(3, "dimension of the inputs", domain=whole(1)),
        "weight_decay": Setting(0.05, "weight decay", domain=NONNEGATIVE),
        "paths": Setting(400, "paths averaged in a replicate", domain=whole(1)),
        "steps": Setting(30, "steps of training", domain=whole(1)),
    },
    sizes=sizes,
    simulate=per_cell(one, one_by_one=True),
    predict=lambda cells, settings, sizes: {},
    validate=fits,
    outputs={
        "with_replacement": Output(r"second moments, with replacement (over theory)", dims=DIMS),
        "without_replacement": Output(r"second moments, without replacement (over theory)", dims=DIMS),
        "epochs": Output(
            "change of the variance in shuffled epochs", dims={"mode": lambda s: np.arange(s["d"], 0, -1)}
        ),
    },
    claims=(
        Mean("with_replacement", "batches with replacement have the exact moments", twins=twins("with_replacement")),
        Mean("without_replacement", "so have those without replacement", twins=twins("without_replacement")),
        Phase(
            "epochs", "modes slower than an epoch vary less in shuffled epochs", twins={"they vary more": "epochs_more"}
        ),
    ),
    presets={
        "smoke": {
            "effective_rate": [0.4], "beta": [0.0, 0.9], "batch": [2], "samples": 10, "d": 2, "paths": 60, "steps": 12,
            "replicates": 4,
        },
        "laptop": {"replicates": 20},
        "paper": {
            "beta": [0.0, 0.6, 0.9, 0.98], "batch": [1, 2, 10, 50], "samples": 100, "d": 5, "paths": 20_000,
            "steps": 400, "replicates": 50,
        },
    },
)  # fmt: skip
