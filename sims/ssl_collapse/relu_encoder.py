"""A ReLU encoder of real digits under InfoNCE with pixel noise: what its penultimate features say of its embedding.

The network learns its features together with its last layer. Of the last layer, on the features as they have become,
the tilted matrix says what is at rest, what stays collapsed and what would be learned next.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sims.engine.experiment import POSITIVE, Experiment, Mean, Output, Parameter, Setting, in_columns, whole
from sims.ssl_collapse.digit_views import FEATURES, FOLLOWED, LOSS_PARAMETERS, TRAINED, centered, principal
from sims.ssl_collapse.setup import JING, SOURCE
from sims.ssl_collapse.trained_encoders import CUT, LOSS, SECOND, compared, gaussian_matrix, probed
from theory.ssl_collapse import collapse_boundary, learned_directions

OFF = 1e-6  # variance that a unit counts with at least


class Sizes(NamedTuple):
    """What a compilation depends on."""

    m: int
    hidden: int
    batch: int
    steps: int
    probe: int
    directions: int


def initial(key, m: int, hidden: int, dtype):
    k_hidden, k_last = jax.random.split(key)
    return {
        "hidden": jax.random.normal(k_hidden, (hidden, FEATURES), dtype) * (2 / FEATURES) ** 0.5,
        "bias": jnp.zeros(hidden, dtype),
        "last": jax.random.normal(k_last, (m, hidden), dtype) / hidden**0.5,
    }


def features(params, x):
    """Penultimate features of inputs of shape (n, 64): shape (n, hidden)."""
    return jax.nn.relu(x @ params["hidden"].T + params["bias"][None, :])


def covariances(x, x_plus):
    """(A0, C) of two views of the same inputs; a unit that is off has a little noise."""
    x, x_plus = x - jnp.mean(x, 0, keepdims=True), x_plus - jnp.mean(x_plus, 0, keepdims=True)
    shared, apart = x.T @ x_plus / len(x), (x - x_plus).T @ (x - x_plus) / (2 * len(x))
    return (shared + shared.T) / 2, apart + OFF * jnp.eye(len(apart), dtype=apart.dtype)


def simulate(key, cells, settings, sizes):
    columns = in_columns(cells)
    sigma = jnp.sqrt(columns["sigma2"])
    numbers = {name: columns[name] for name in LOSS}
    images = jnp.asarray(centered(), sigma.dtype)
    k_start, k_train, k_all = jax.random.split(key, 3)

    def noisy(k, x):
        """Two views with pixel noise in every cell, on the same draws."""
        z = jax.random.normal(k, (2, *x.shape), x.dtype)
        return tuple(x[None] + sigma[:, None, None] * each[None] for each in z)

    def views(k):
        k_rows, k_noise = jax.random.split(k)
        return noisy(k_noise, images[jax.random.randint(k_rows, (sizes.batch,), 0, len(images))])

    def on_all(params):
        """Covariances of the features, of all images."""
        return jax.vmap(lambda p, x, y: covariances(features(p, x), features(p, y)))(params, *noisy(k_all, images))

    def variance(params):
        return jnp.linalg.eigvalsh(sum(on_all(params)))[:, -1]

    one = initial(k_start, sizes.m, sizes.hidden, sigma.dtype)
    start = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(sigma), *x.shape)), one)
    rate = settings["rate"]
    found = probed(k_train, start, features, views, numbers, rate, sizes, variance, lambda p: p["bias"])
    A0, C = on_all(found.params)
    W = found.params["last"]
    strengths = jnp.linalg.eigvalsh(W @ (A0 + C) @ W.mT)[:, ::-1] / numbers["temperature"][:, None]
    wanted = jnp.sum(jnp.linalg.eigvalsh(found.untilted) > 0, 1, dtype=sigma.dtype)
    return compared(found, gaussian_matrix(W, A0, C, numbers), rate) | {
        "rank": jnp.sum(strengths > CUT, 1, dtype=sigma.dtype),
        "feature_rank": jnp.minimum(wanted, sizes.m),
        "strength": strengths,
    }


def predict(cells, settings, sizes):
    """Of a linear encoder of the pixels; the features of this one are its own."""
    noise = cells["sigma2"]
    boundary = collapse_boundary(noise, "infonce_distance", *(cells[name] for name in LOSS))
    rank = learned_directions(jnp.asarray(principal()[0], noise.dtype), boundary, sizes.m).astype(noise.dtype)
    unknown = jnp.full((len(noise), sizes.m), jnp.nan, noise.dtype)
    return {"rank": rank, "feature_rank": rank, "strength": unknown}


relu_encoder = Experiment(
    name="relu_encoder",
    title="InfoNCE on handwritten digits: a ReLU encoder and its penultimate features",
    sources=(SOURCE, JING),
    axes={
        "sigma2": Parameter(
            [0.1, 0.2, 0.3, 0.45, 0.65], r"augmentation variance $\sigma^2$", scale="log", domain=POSITIVE
        ),
    },
    fixed=LOSS_PARAMETERS,
    settings={**TRAINED, "hidden": Setting(32, "hidden units", domain=whole(2))},
    sizes=lambda settings: Sizes(*(settings[name] for name in Sizes._fields)),
    simulate=simulate,
    predict=predict,
    outputs={
        "rank": Output("rank of the embedding"),
        "feature_rank": Output("rank that Gaussian features would have"),
        "strength": Output(r"strength $s$", dims={"mode": lambda settings: np.arange(1, settings["m"] + 1)}),
        "rest": Output("mean pull along the directions in use"),
        "growth": Output("pull along new directions", dims=FOLLOWED),
    },
    claims=(
        Mean(
            "growth", "a new direction of the features grows or dies as the tilted matrix of the last layer has it",
            floor=SECOND, twins={"without the tilt": "growth_origin", "tilted as Gaussian": "growth_gaussian"},
        ),
        Mean(
            "rest", "along the directions in use the tilted matrix vanishes, up to the noise of a step",
            twins={"without the tilt": "rest_origin", "tilted as Gaussian": "rest_gaussian"},
        ),
    ),
    presets={
        "smoke": {"sigma2": [0.1, 0.45], "m": 8, "hidden": 12, "batch": 32, "steps": 400, "probe": 60, "replicates": 5},
        "laptop": {"replicates": 20},
        "paper": {
            "sigma2": np.geomspace(0.05, 1.0, 13), "hidden": 128, "batch": 1024, "steps": 20_000, "probe": 2000,
            "replicates": 40,
        },
    },
    block=16,
)  # fmt: skip
