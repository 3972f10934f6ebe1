"""Minibatch losses whose square holds pairs of one input: their mean, and the encoders that SGD finds on them."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sims.engine.experiment import (
    POSITIVE,
    Experiment,
    Mean,
    Output,
    Parameter,
    Setting,
    per_cell,
    whole,
)
from sims.ssl_collapse import losses
from sims.ssl_collapse.setup import SIMON, SOURCE
from sims.ssl_collapse.training import gaussian_views, train
from theory.ssl_collapse import (
    barlow_batch_bias,
    barlow_batch_strengths,
    spectral_batch_bias,
    spectral_batch_strengths,
)

RHO = (0.6, 0.45, 0.3)
# An encoder that mixes its modes, for the mean of the losses.
WEIGHTS = ((0.9, -0.4, 0.3), (0.2, 0.8, 0.5))


class Sizes(NamedTuple):
    """What a compilation depends on."""

    batch: int
    steps: int
    draws: int


def sizes(settings) -> Sizes:
    return Sizes(int(settings["batch"]), settings["steps"], settings["draws"])


def spectral_of_all_pairs(first, second):
    """The spectral loss with the square over all n^2 pairs."""
    products = jnp.matmul(first, second.T, precision="highest")
    return -2 * jnp.mean(jnp.sum(first * second, 1)) + jnp.mean(products**2)


LOSSES = {"barlow": losses.barlow, "spectral": spectral_of_all_pairs}


def views(key, batch: int):
    rho = jnp.array(RHO, float)
    return gaussian_views(key, batch, jnp.sqrt(rho), jnp.sqrt(1 - rho))


def excess(key, loss, shape: Sizes):
    """n times the mean of a minibatch's loss, less the loss of infinitely many inputs."""
    W = jnp.array(WEIGHTS, float)

    def total(carry, k):
        x, y = views(jax.random.fold_in(key, k), shape.batch)
        return carry + loss(x @ W.T, y @ W.T), None

    mean = jax.lax.scan(total, jnp.zeros(()), jnp.arange(shape.draws))[0] / shape.draws
    S, K = W @ W.T, (W * jnp.array(RHO, float)[None, :]) @ W.T
    return mean, S, K


def one(key, cell, settings, sizes):
    n = cell["batch"]
    out = {}
    for name, loss in LOSSES.items():
        mean, S, K = excess(jax.random.fold_in(key, 0), loss, sizes)
        square = (
            jnp.sum((K - jnp.eye(len(K))) ** 2) - len(K) if name == "barlow" else (-2 * jnp.trace(K) + jnp.sum(S**2))
        )
        out[f"{name}_loss"] = n * (mean - square)

        def objective(W, k, loss=loss):
            x, y = views(k, sizes.batch)
            return loss(x @ W.T, y @ W.T)

        k_start, k_data = jax.random.split(jax.random.fold_in(key, 1))
        start = jnp.eye(len(RHO)) + 0.3 * jax.random.normal(k_start, (len(RHO), len(RHO)))
        _, M = train(objective, start, k_data, sizes.steps, settings["learning_rate"], lambda W: W.T @ W)
        out[name] = jnp.diagonal(M)
    return out


def predict(cells, settings, sizes):
    n, rho = cells["batch"], jnp.array(RHO, float)[None, :]
    W = jnp.array(WEIGHTS, float)
    S, K = W @ W.T, (W * rho) @ W.T
    ones = jnp.ones_like(n)
    return {
        "barlow_loss": barlow_batch_bias(S, K, 1.0) * ones,
        "spectral_loss": spectral_batch_bias(K, 1.0) * ones,
        "barlow": barlow_batch_strengths(rho, n),
        "spectral": spectral_batch_strengths(rho, n),
    }


def changed(output, formula):
    """A twin: `formula(S, K)` times n, or `formula(rho, n)`, in place of the prediction."""

    def of_loss(cells, settings, sizes):
        W = jnp.array(WEIGHTS, float)
        return formula(W @ W.T, (W * jnp.array(RHO, float)[None, :]) @ W.T) * jnp.ones_like(cells["batch"])

    def of_modes(cells, settings, sizes):
        shape = (len(cells["batch"]), len(RHO))
        return jnp.broadcast_to(formula(jnp.array(RHO, float)[None, :], cells["batch"][:, None]), shape)

    return of_loss if output.endswith("loss") else of_modes


def shared_factor(rho, n):
    """The same loss in one mode alone: n s = n rho / (rho^2 (n + 1) + 1)."""
    return n * rho / (rho**2 * (n + 1) + 1)


MODES = {"rho": RHO}

batch_bias = Experiment(
    name="batch_bias",
    title="Pairs of one input in a minibatch's loss",
    sources=(SOURCE, SIMON),
    axes={
        "batch": Parameter(
            [8.0, 16.0, 32.0, 64.0], "batch size $n$", scale="log", domain=whole(2), role="static",
        ),
    },
    settings={
        "steps": Setting(12_000, "steps of SGD", domain=whole(8)),
        "learning_rate": Setting(0.005, "learning rate at first", domain=POSITIVE),
        "draws": Setting(4000, "minibatches over which a loss is averaged", domain=whole(1)),
    },
    sizes=sizes,
    theory_sizes=lambda sizes: (),
    simulate=per_cell(one, one_by_one=True),
    predict=predict,
    outputs={
        "barlow_loss": Output(r"$n\,(E\hat L - L)$, Barlow Twins"),
        "spectral_loss": Output(r"$n\,(E\hat L - L)$, spectral, all pairs"),
        "barlow": Output("strength $s$, Barlow Twins", dims=MODES),
        "spectral": Output("strength $s$, spectral, all pairs", dims=MODES),
    },
    claims=(
        Mean(
            "barlow_loss", "a minibatch adds [(Tr S)^2 + |K|^2] / n to the loss of Barlow Twins",
            twins={
                "no bias": changed("loss", lambda S, K: 0 * S[0, 0]),
                "Tr K for Tr S": changed("loss", lambda S, K: jnp.trace(K) ** 2 + jnp.sum(K**2)),
                "2 |K|^2": changed("loss", lambda S, K: jnp.trace(S) ** 2 + 2 * jnp.sum(K**2)),
            },
        ),
        Mean(
            "spectral_loss", "the square over all pairs adds [(Tr K)^2 + |K|^2] / n to the spectral loss",
            twins={
                "no bias": changed("loss", lambda S, K: 0 * S[0, 0]),
                "Barlow's": changed("loss", lambda S, K: jnp.trace(S) ** 2 + jnp.sum(K**2)),
            },
        ),
        Mean(
            "barlow", "SGD on small batches of Barlow Twins finds the minimum of the biased loss",
            twins={
                "1 / rho": changed("barlow", lambda rho, n: 1 / rho),
                "half of the bias": changed("barlow", lambda rho, n: barlow_batch_strengths(rho, 2 * n[:, 0])),
                "each mode alone": changed("barlow", shared_factor),
            },
        ),
        Mean(
            "spectral", "SGD on the spectral loss over all pairs finds the minimum of the biased loss",
            twins={
                "rho": changed("spectral", lambda rho, n: rho),
                "half of the bias": changed("spectral", lambda rho, n: spectral_batch_strengths(rho, 2 * n[:, 0])),
            },
        ),
    ),
    presets={
        "smoke": {
            "batch": [8.0, 32.0], "steps": 1000, "learning_rate": 0.02, "draws": 500, "replicates": 4,
            "ladders": False,
        },
        "laptop": {"replicates": 20},
        "paper": {
            "batch": [4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0], "steps": 100_000, "learning_rate": 0.002,
            "draws": 50_000, "replicates": 100,
        },
    },
)  # fmt: skip
