"""Linear encoders of normalised embeddings: which modes share a fixed variance, by temperature and by batch."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sims.engine.experiment import POSITIVE, Experiment, Order, Output, Parameter, Phase, Setting, per_cell, whole
from sims.ssl_collapse.losses import infonce_distance, spectral
from sims.ssl_collapse.setup import SOURCE
from sims.ssl_collapse.training import gaussian_views, train
from theory.ssl_collapse import critical_temperature, infonce_mode_strength, water_fill, water_fill_infonce

Q = np.array([0.1, 0.25, 0.4, 0.55, 0.7, 0.85])  # noise fractions of the modes
# Away from those at which a mode joins, by `BAND`; in the middle six the quartic landscape has another mode active.
TEMPERATURES = (0.13, 0.2, 0.37, 0.42, 0.74, 0.85, 1.45, 1.6, 3.5, 5.5, 12.0)
BLEND = 0.3  # of every mode with the next: clean inputs and noise have no common eigenbasis
ALIVE = 0.003  # share of the variance from which a mode counts as active: noise leaves a collapsed one 1e-4
BAND = 0.25  # |ln tau / tau_k| at which a mode that joins is slower than the training, or weaker than `ALIVE`


class Sizes(NamedTuple):
    """What a compilation depends on."""

    loss: str
    unit_length: str
    batch: int
    steps: int


def mixing(dtype):
    """The matrix T from modes to inputs, x = T z with z white."""
    return jnp.eye(len(Q), dtype=dtype) + BLEND * jnp.eye(len(Q), k=1, dtype=dtype)


def normalized(first, second):
    """Both views over the root mean square length of all embeddings of the minibatch."""
    square = (jnp.mean(jnp.sum(first**2, 1)) + jnp.mean(jnp.sum(second**2, 1))) / 2
    return first / jnp.sqrt(square), second / jnp.sqrt(square)


def of_unit_length(first, second):
    """Every embedding over its own length."""
    return tuple(f / jnp.linalg.norm(f, axis=1, keepdims=True) for f in (first, second))


def trained(key, tau, rate, normalize, sizes):
    """Shares of the modes in the variance at the end of a training, from mode to mode of the aligned minimum."""
    T, q = mixing(tau.dtype), jnp.asarray(Q, tau.dtype)
    k_start, k_train = jax.random.split(key)

    def loss(W, key):
        first, second = gaussian_views(key, sizes.batch, T * jnp.sqrt(1 - q)[None, :], T * jnp.sqrt(q)[None, :])
        f, g = normalize(first @ W.T, second @ W.T)
        if sizes.loss == "spectral":
            return spectral(f / jnp.sqrt(tau), g / jnp.sqrt(tau))
        return infonce_distance(f, g, tau)

    def shares(W):
        variances = jnp.sum((W @ T) ** 2, 0)
        return variances / jnp.sum(variances)

    W = jax.random.normal(k_start, (len(q), len(q)), tau.dtype) / len(q)
    return train(loss, W, k_train, sizes.steps, rate, shares)[1]


def one(key, cell, settings, sizes):
    tau, rate = cell["temperature"], settings["learning_rate"] * cell["temperature"]
    share, unit = trained(key, tau, rate, normalized, sizes), jnp.full(len(Q), jnp.nan, tau.dtype)
    if sizes.unit_length == "yes":
        unit = trained(key, tau, rate, of_unit_length, sizes)
    return {"share": share, "margin": share - ALIVE, "unit_length": unit}


def filled(cells, sizes):
    """Shares of the variance by water-filling."""
    tau = cells["temperature"]
    q = jnp.asarray(Q, tau.dtype)
    if sizes.loss == "spectral":
        return water_fill(2 * (1 - q)[None, :] / tau[:, None], 1 / tau**2, 1.0).strengths
    return water_fill_infonce(q[None, :], 1 / tau).strengths * tau[:, None]


def predict(cells, settings, sizes):
    share = filled(cells, sizes)
    return {"share": share, "margin": share - ALIVE, "unit_length": share * jnp.nan}


def without_the_constraint(cells, settings, sizes):
    """Strengths that an embedding of free variance would have, over their sum."""
    strengths = infonce_mode_strength(jnp.asarray(Q, cells["temperature"].dtype))
    shares = strengths / jnp.sum(strengths)
    return jnp.broadcast_to(shares[None, :], (len(cells["temperature"]), len(Q)))


def quartic(cells, settings, sizes):
    """Water-filling of InfoNCE's quartic landscape: kappa = 3/4 in units of tau."""
    tau = cells["temperature"]
    return water_fill(1 - jnp.asarray(Q, tau.dtype)[None, :], 0.75, 1 / tau).strengths * tau[:, None]


def inverse_temperature(cells, settings, sizes):
    """More dimensions at a higher temperature."""
    return filled({"temperature": 1 / cells["temperature"]}, sizes)


def only_the_best(cells, settings, sizes):
    """All of the variance in the mode of the least noise, as alignment alone would have it."""
    first = jnp.arange(len(Q)) == 0
    return jnp.broadcast_to(first[None, :].astype(cells["temperature"].dtype), (len(cells["temperature"]), len(Q)))


def margin(formula):
    return lambda cells, settings, sizes: formula(cells, settings, sizes) - ALIVE


def away_from_joining(cells, settings):
    """Temperatures at which no mode is about to join."""
    joins = np.array([float(critical_temperature(Q, k)) for k in range(1, len(Q))])
    return np.all(np.abs(np.log(cells["temperature"][:, None] / joins[None, :])) > BAND, axis=1)


def ladder(**settings):
    return {
        "setting": "batch", "values": (16, 32, 64, 128), "order": -1, "replicates": 12,
        "axes": {"temperature": [1.0, 2.0]}, "settings": settings | {"unit_length": "no"},
    }  # fmt: skip


MODES = {"mode": 1 + np.arange(len(Q))}

normalization = Experiment(
    name="normalization",
    title="Normalised embeddings: water-filling of the modes",
    sources=(SOURCE,),
    axes={
        "temperature": Parameter(
            TEMPERATURES, r"temperature $\tau$", scale="log", domain=POSITIVE
        )
    },
    settings={
        "loss": Setting("infonce_distance", "loss", choices=("infonce_distance", "spectral")),
        "unit_length": Setting("yes", "embeddings of unit length are trained as well", choices=("yes", "no")),
        "batch": Setting(64, "samples of a minibatch", domain=whole(3)),
        "steps": Setting(2000, "steps of SGD", domain=whole(8)),
        "learning_rate": Setting(0.1, "learning rate over the temperature, at first", domain=POSITIVE),
    },
    sizes=lambda settings: Sizes(*(settings[name] for name in Sizes._fields)),
    theory_sizes=lambda sizes: sizes._replace(batch=0, steps=0),
    simulate=per_cell(one, one_by_one=True),
    predict=predict,
    outputs={
        "share": Output("share of the variance", dims=MODES),
        "margin": Output("share of the variance, above that of a collapsed mode", dims=MODES),
        "unit_length": Output("share of the variance, embeddings of unit length", dims=MODES),
    },
    claims=(
        Phase(
            "margin", "lower temperatures keep more dimensions, each from its own temperature on",
            where=away_from_joining,
            twins={
                "without the constraint": margin(without_the_constraint),
                "the quartic landscape": margin(quartic),
                "temperature inverted": margin(inverse_temperature),
            },
        ),
        Order(
            "share", "InfoNCE fills the modes as its exact landscape says, up to the batch", **ladder(),
            twins={
                "without the constraint": without_the_constraint,
                "the quartic landscape": quartic,
                "rank one": only_the_best,
            },
        ),
        Order(
            "share", "the spectral loss fills them as its quartic landscape says, up to the batch",
            **ladder(loss="spectral"),
            twins={
                "the kappa of InfoNCE": quartic,
                "rank one": only_the_best,
            },
        ),
    ),
    presets={
        "smoke": {
            "temperature": [0.3, 1.5, 6.0], "batch": 24, "steps": 600, "replicates": 4, "ladders": False,
        },
        "laptop": {"replicates": 20},
        "paper": {"temperature": np.geomspace(0.06, 16.0, 33), "batch": 512, "steps": 20_000, "replicates": 50},
    },
)  # fmt: skip
