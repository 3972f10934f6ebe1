"""A bias beside a linear encoder under InfoNCE with dot products: a large one keeps its own dimension empty."""

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
from sims.ssl_collapse.training import Sizes, gaussian_views, sizes, train
from theory.ssl_collapse import dot_bias_threshold

# Views of unit variance.
RHO = (0.5, 0.45, 0.4, 0.35)


def encoder(key, square, temperature, settings, shape: Sizes):
    """Gram matrix and squared bias after training from small weights and a bias of that square."""
    k_W, k_b, k_data = jax.random.split(key, 3)
    rho = jnp.array(RHO, float)
    direction = jax.random.normal(k_b, (len(RHO),))
    b = jnp.sqrt(square) * direction / jnp.linalg.norm(direction)
    W = settings["scale"] * jax.random.normal(k_W, (len(RHO), len(RHO)))

    def objective(params, k):
        W, b = params
        x, y = gaussian_views(k, shape.batch, jnp.sqrt(rho), jnp.sqrt(1 - rho))
        return losses.infonce_dot(x @ W.T + b[None, :], y @ W.T + b[None, :], temperature, positive=True)

    def observe(params):
        W, b = params
        return W.T @ W, b @ b

    return train(objective, (W, b), k_data, shape.steps, settings["learning_rate"], observe)[1]


def simulate(key, cells, settings, sizes):
    def one(cell):
        gram, square = jax.vmap(lambda square, tau: encoder(key, square, tau, settings, sizes))(
            cell["bias_square"], cell["temperature"]
        )
        strengths = jnp.linalg.eigvalsh(gram)[:, ::-1]
        weakest = strengths[:, -1] / (cell["temperature"] * RHO[-1]) - 0.5
        # The mode that is left is the one of the least correlation.
        low = dot_bias_threshold(jnp.array(RHO[-1:], float)[None, :], cell["temperature"])
        empty = square > low
        # Below the threshold a bias must vanish: one that has not is still on its way.
        moving = (square > low / 50) & ~empty
        return {
            "strength": strengths,
            "final_square": square,
            "weakest": weakest,
            "full": jnp.where(moving, jnp.nan, (weakest > 0).astype(square.dtype)),
            "full_theory": 1 - empty.astype(square.dtype),
            "status": jnp.where(moving, 1, 0),
            "start_decides": (cell["bias_square"] < limit(cell)).astype(square.dtype),
        }

    return cell_by_cell(one, in_columns(cells), sizes.together)


def limit(cells):
    """The threshold of a small start, at which all modes are unused."""
    return dot_bias_threshold(jnp.array(RHO, float)[None, :], cells["temperature"])


def above_or_below(factor):
    """The weakest strength over its value in a full embedding, less one half, if a bias above `limit` empties one."""

    def formula(cells, settings, sizes):
        return jnp.where(cells["bias_square"] < factor * limit(cells), 0.5, -0.5)

    return formula


def predict(cells, settings, sizes):
    full = cells["bias_square"] < limit(cells)
    weakest = jnp.where(full, 0.5, -0.5)
    strengths = cells["temperature"][:, None] * jnp.array(RHO, float)[None, :]
    strengths = strengths.at[:, -1].set(jnp.where(full, strengths[:, -1], 0))
    return {"strength": strengths, "weakest": weakest, "final_square": jnp.where(full, 0, cells["bias_square"])}


def certain(cells, settings):
    """Outside the starts between the thresholds of the weakest and of the strongest mode, and a band beside them."""
    low, high = (2 * cells["temperature"] * rho for rho in (min(RHO), max(RHO)))
    return (cells["bias_square"] < 0.9 * low) | (cells["bias_square"] > 1.1 * high)


dot_bias = Experiment(
    name="dot_bias",
    title="InfoNCE with dot products and a bias",
    sources=(SOURCE, JING),
    axes={
        "bias_square": Parameter(
            [0.1, 0.26, 0.265, 0.27, 0.275, 0.28, 0.29, 0.3, 0.4, 0.45, 0.6, 0.65, 0.7, 0.8, 0.9],
            "squared bias at the start $|b_0|^2$", domain=POSITIVE,
        ),
    },
    fixed={"temperature": Parameter(0.5, r"temperature $\tau$", domain=POSITIVE)},
    settings={
        "batch": Setting(64, "inputs in a minibatch", domain=whole(4)),
        "steps": Setting(2000, "steps of SGD", domain=whole(8)),
        "learning_rate": Setting(0.02, "learning rate at first", domain=POSITIVE),
        "scale": Setting(0.03, "standard deviation of the weights at the start", domain=POSITIVE),
        "together": Setting(1, "cells simulated side by side: one on a CPU, many on a GPU", domain=whole(1)),
    },
    sizes=sizes,
    theory_sizes=lambda sizes: (),
    simulate=simulate,
    predict=predict,
    outputs={
        "strength": Output("strength $s$", dims={"rho": RHO}),
        "final_square": Output("$|b|^2$ after training"),
        "weakest": Output(r"weakest strength over $\tau\rho$, less 1/2"),
        "full": Output("full rank"),
    },
    claims=(
        Phase(
            "weakest", "a bias above 2 tau max rho at the start leaves one dimension empty, one below every 2 tau rho "
            "does not", where=certain,
            twins={
                "a bias is harmless": lambda cells, *_: jnp.full_like(cells["bias_square"], 0.5),
                "tau rho": above_or_below(0.5),
                "4 tau rho": above_or_below(2.0),
            },
        ),
        Pathwise(
            "full", "the rank is full where the final |b|^2 is below 2 tau rho of the weakest mode", tolerance=1e-3,
            twins={
                "always full": lambda cells, *_: jnp.ones_like(cells["bias_square"]),
                "the start decides": "start_decides",
            },
        ),
    ),
    presets={
        "smoke": {
            "bias_square": [0.1, 0.25, 0.45, 0.7], "batch": 32, "steps": 1500, "replicates": 4, "ladders": False,
        },
        "laptop": {"replicates": 20},
        "paper": {
            "bias_square": np.linspace(0.05, 1.25, 25), "batch": 256, "steps": 8000, "learning_rate": 0.005,
            "replicates": 100,
            "together": 25,
        },
    },
)  # fmt: skip
