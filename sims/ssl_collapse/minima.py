"""Where gradient descent of the spectral loss ends from random encoders: the global minimum, and its rank.

The data are finite and not Gaussian, the loss is a sum over all pairs of views, and A0 and C do not commute.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sims.descent import gradient_descent
from sims.engine.experiment import POSITIVE, Experiment, Output, Parameter, Pathwise, Setting, per_cell, whole
from sims.ssl_collapse import finite_data
from sims.ssl_collapse.setup import SOURCE
from theory.ssl_collapse import effective_landscape, n_active, stationary_gram, stationary_loss

VARIANCES = (1.0, 2.0)  # of the views, from the weakest direction to the strongest
POSITIVE_MODES, OTHER_MODES = (1.0, 0.4), (-0.15, -0.3)  # beta, from the first to the last
DECAY = 0.6
SMALLEST, LARGEST = 0.01, 0.25  # standard deviation of the first weights, drawn evenly in its logarithm
ALIVE = 1e-3  # least variance of a dimension of the embedding that counts


class Sizes(NamedTuple):
    """What a compilation depends on."""

    d: int
    inputs: int
    noises: int


def covariances(key, beta):
    """(A0, C) for which the spectral loss with its decay has these beta, in directions that are drawn."""
    d = len(beta)
    turns = jnp.linalg.qr(jax.random.normal(key, (2, d, d)))[0]
    root = (turns[0] * jnp.linspace(*VARIANCES, d)[None, :] ** 0.5) @ turns[0].T
    B = root @ (turns[1] * beta[None, :]) @ turns[1].T @ root
    A0, Sigma = (B + DECAY * jnp.eye(d)) / 2, root @ root
    return (A0 + A0.T) / 2, (Sigma + Sigma.T - A0 - A0.T) / 2


def unwhitened_gram(landscape, m):
    """The m strongest directions of Sigma^-1 B Sigma^-1 / 2, the Gram matrix of as many dimensions as inputs."""
    inverse = jnp.linalg.inv(landscape.Sigma)
    gram = inverse @ landscape.B @ inverse / 2
    values, vectors = jnp.linalg.eigh((gram + gram.T) / 2)
    kept = jnp.where(jnp.arange(len(gram), dtype=m.dtype)[::-1] < m, jnp.maximum(values, 0), 0)
    return (vectors * kept[None, :]) @ vectors.T


def one(key, cell, settings, sizes):
    k_modes, k_data, k_start, k_size = jax.random.split(key, 4)
    d, m = sizes.d, cell["m"]
    mode = jnp.arange(d, dtype=m.dtype)
    beta = jnp.where(mode < cell["n_positive"], jnp.linspace(*POSITIVE_MODES, d), jnp.linspace(*OTHER_MODES, d))
    A0, C = covariances(k_modes, beta)
    views = finite_data.draw(k_data, sizes.inputs, sizes.noises, A0, C)

    def loss(W):
        return finite_data.spectral_loss(W, views, DECAY)

    # Rows from m on are zero, and no gradient moves them.
    size = SMALLEST * (LARGEST / SMALLEST) ** jax.random.uniform(k_size)
    start = jnp.where(mode[:, None] < m, size * jax.random.normal(k_start, (d, d)), 0)
    W = gradient_descent(loss, start, settings["learning_rate"], settings["steps"])

    landscape = effective_landscape(A0, C, "spectral", weight_decay=DECAY)
    best, saddle = mode < m, (mode < m - 1) | (mode == m)
    gram, lowest = stationary_gram(*landscape, best), stationary_loss(*landscape, best)
    alive = jnp.linalg.eigvalsh(W @ landscape.Sigma @ W.T) > ALIVE
    return {
        "rank": jnp.sum(alive.astype(m.dtype)),
        "rank_theory": jnp.minimum(n_active(landscape.B, d).astype(m.dtype), m),
        "rank_of_embedding": m,
        "rank_of_landscape": cell["n_positive"],
        "gram": W.T @ W,
        "gram_theory": gram,
        "gram_at_saddle": stationary_gram(*landscape, saddle),
        "gram_unwhitened": unwhitened_gram(landscape, m),
        "gram_of_infonce": gram * 4 / 3,
        "loss": loss(W),
        "loss_theory": lowest,
        "loss_at_saddle": stationary_loss(*landscape, saddle),
        "loss_half": lowest / 2,
    }


def axis_of(settings):
    return np.arange(settings["d"])


def fits(values, settings):
    for name in ("inputs", "noises"):
        if settings[name] <= settings["d"]:
            raise ValueError(f"`{name}` must exceed `d` = {settings['d']}, but got {settings[name]}.")
    for name in ("m", "n_positive"):
        if values[name].max() > settings["d"]:
            raise ValueError(f"`{name}` must not exceed `d` = {settings['d']}, but got {values[name].max():g}.")


minima = Experiment(
    name="minima",
    title="Every descent ends at the global minimum of the landscape",
    sources=(SOURCE,),
    axes={
        "m": Parameter([1, 2, 3, 4, 5], "dimension of the embedding $m$", domain=whole(1)),
        "n_positive": Parameter([0, 1, 2, 3, 4, 5], "positive eigenvalues $n_+(B)$", domain=whole(0)),
    },
    settings={
        "d": Setting(5, "dimension of the inputs", domain=whole(2)),
        "inputs": Setting(8, "inputs", domain=whole(2)),
        "noises": Setting(7, "noises of every input", domain=whole(2)),
        "learning_rate": Setting(0.04, "learning rate", domain=POSITIVE),
        "steps": Setting(2500, "steps of gradient descent", domain=whole(1)),
    },
    sizes=lambda settings: Sizes(settings["d"], settings["inputs"], settings["noises"]),
    validate=fits,
    simulate=per_cell(one, one_by_one=True),
    predict=lambda cells, settings, sizes: {},
    outputs={
        "rank": Output("rank of the embedding"),
        "gram": Output(r"$W^\top W$", dims={"row": axis_of, "column": axis_of}),
        "loss": Output("loss"),
    },
    claims=(
        Pathwise(
            "rank", "the embedding keeps min(m, n_+(B)) dimensions", tolerance=1e-9,
            twins={"m alone": "rank_of_embedding", "n_+(B) alone": "rank_of_landscape"},
        ),
        Pathwise(
            "gram", "every descent ends at the global minimum", tolerance=1e-6, rounding=2000,
            twins={
                "at the lowest saddle": "gram_at_saddle", "modes of the matrix before whitening": "gram_unwhitened",
                "InfoNCE's 3/4 for the spectral loss": "gram_of_infonce",
            },
        ),
        Pathwise(
            "loss", "its loss is the sum of the best squares", tolerance=1e-9, rounding=2000,
            twins={"at the lowest saddle": "loss_at_saddle", "1/8 for 1/4": "loss_half"},
        ),
    ),
    presets={
        "smoke": {"m": [1, 3, 5], "n_positive": [0, 2, 5], "replicates": 4, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {"replicates": 500},
    },
)  # fmt: skip
