"""The toy of Jing et al. (2022): noise on half of the coordinates, dot products, a bias. Shrinkage is not collapse."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from sims.engine.experiment import (
    POSITIVE,
    Experiment,
    Output,
    Parameter,
    Pathwise,
    Phase,
    Setting,
    cell_by_cell,
    in_columns,
    whole,
)
from sims.ssl_collapse import losses
from sims.ssl_collapse.setup import JING, SOURCE
from sims.ssl_collapse.training import Sizes, sizes, train
from theory.ssl_collapse import dot_bias_threshold

# d, m and the number of coordinates with noise.
DIMENSION, NOISY = 16, 8
INPUTS = 10_000
TEMPERATURE = 0.1
# A direction lives if its Gram eigenvalue is above this share of the predicted one.
LEAST = 0.25


def deviations(noise):
    """Standard deviation of the noise on every coordinate."""
    return noise * (jnp.arange(DIMENSION) >= DIMENSION - NOISY).astype(noise.dtype)


def views(key, inputs, batch: int, noise):
    k_rows, k_noise = jax.random.split(key)
    x = inputs[jax.random.randint(k_rows, (batch,), 0, len(inputs))]
    first, second = jax.random.normal(k_noise, (2, batch, DIMENSION), x.dtype) * deviations(noise)[None, None, :]
    return x + first, x + second


def encoder(key, start, noise, settings, shape: Sizes):
    """Gram matrix and squared bias of a linear layer from its usual start, its bias `start` times as large."""
    k_x, k_W, k_b, k_data = jax.random.split(key, 4)
    inputs = jax.random.normal(k_x, (INPUTS, DIMENSION))
    bound = DIMENSION**-0.5
    W = jax.random.uniform(k_W, (DIMENSION, DIMENSION), minval=-bound, maxval=bound)
    b = start * jax.random.uniform(k_b, (DIMENSION,), minval=-bound, maxval=bound)

    def objective(params, k):
        W, b = params
        x, y = views(k, inputs, shape.batch, noise)
        return losses.infonce_dot(x @ W.T + b[None, :], y @ W.T + b[None, :], TEMPERATURE, positive=True)

    def observe(params):
        W, b = params
        return W.T @ W, b @ b

    return train(objective, (W, b), k_data, shape.steps, settings["learning_rate"], observe)[1]


def simulate(key, cells, settings, sizes):
    def one(cell):
        gram, square = jax.vmap(lambda *cell: encoder(key, *cell, settings, sizes))(cell["bias"], cell["noise"])
        return measured(gram, square, cell["noise"])

    return cell_by_cell(one, in_columns(cells), sizes.together)


def measured(gram, square, noise):
    """Gram eigenvalues of both blocks over the theory's, falling, and whether the final bias explains the last one."""
    clean = slice(0, DIMENSION - NOISY)
    noisy = slice(DIMENSION - NOISY, DIMENSION)
    over = jnp.linalg.eigvalsh(gram[:, noisy, noisy])[:, ::-1] / squared_weight(noise)[:, None]
    threshold = jax.vmap(lambda rho: dot_bias_threshold(rho[None], TEMPERATURE))(1 / (1 + noise**2))
    lost = (over[:, -1] < LEAST).astype(over.dtype)
    return {
        "clean": jnp.linalg.eigvalsh(gram[:, clean, clean])[:, ::-1] / TEMPERATURE,
        "noisy": over,
        "living": over[:, :-1] - LEAST,
        "final_square": square / threshold,
        "lost": lost,
        "lost_theory": (square > threshold).astype(over.dtype),
    }


def squared_weight(noise):
    """tau a / Sigma^2 with a = 1."""
    return TEMPERATURE / (1 + noise**2) ** 2


def predict(cells, settings, sizes):
    ones = jnp.ones_like(cells["noise"])[:, None]
    return {
        "clean": ones * jnp.ones((1, DIMENSION - NOISY)),
        "noisy": ones * jnp.ones((1, NOISY)),
        "living": (1 - LEAST) * ones * jnp.ones((1, NOISY - 1)),
        "final_square": ones[:, 0],
    }


def all_collapsed(cells, settings, sizes):
    """Noise stronger than the signal is collapse: the boundary of clean negatives."""
    dead = jnp.where(cells["noise"] > 1, 0.0, 1.0)[:, None]
    return dead * jnp.ones((1, NOISY - 1)) - LEAST


def constant(value):
    return lambda cells, settings, sizes: jnp.full_like(cells["noise"], value)


dot_toy = Experiment(
    name="dot_toy",
    title="The toy of Jing et al.: shrinkage is not collapse",
    sources=(JING, SOURCE),
    axes={"bias": Parameter([0.25, 1.0], "bias at the start over the usual one", domain=POSITIVE)},
    fixed={"noise": Parameter(1.5, "standard deviation of the noise", domain=POSITIVE)},
    settings={
        "batch": Setting(64, "inputs in a minibatch", domain=whole(4)),
        "steps": Setting(5000, "steps of SGD", domain=whole(8)),
        "learning_rate": Setting(1e-3, "learning rate at first", domain=POSITIVE),
        "together": Setting(1, "cells simulated side by side: one on a CPU, many on a GPU", domain=whole(1)),
    },
    sizes=sizes,
    theory_sizes=lambda sizes: (),
    simulate=simulate,
    predict=predict,
    outputs={
        "clean": Output(
            r"$w^2/\tau$, directions without noise", dims={"direction": np.arange(1, DIMENSION - NOISY + 1)}
        ),
        "noisy": Output(r"$w^2\Sigma^2/\tau a$, noisy directions", dims={"noisy_direction": np.arange(1, NOISY + 1)}),
        "living": Output("the same less 1/4, the last left out", dims={"living_direction": np.arange(1, NOISY)}),
        "final_square": Output(r"$|b|^2 / 2\tau\rho$ after training"),
        "lost": Output("directions lost"),
    },
    claims=(
        Phase(
            "living", "noisy directions shrink to tau a / Sigma^2 and do not collapse, all but one at least",
            twins={"collapse where the noise is above the signal": all_collapsed},
        ),
        Pathwise(
            "lost", "one is lost where the final |b|^2 is above 2 tau rho of the noisy directions, and there alone",
            tolerance=1e-3, twins={"never": constant(0.0), "always": constant(1.0)},
        ),
    ),
    presets={
        "smoke": {"batch": 32, "steps": 2000, "learning_rate": 3e-3, "replicates": 4, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {
            "bias": [0.1, 0.25, 0.5, 0.75, 1.0], "batch": 512, "steps": 30_000, "replicates": 100, "together": 5,
        },
    },
)  # fmt: skip
