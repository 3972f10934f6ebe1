"""Descent in a section of the spectral landscape: two weights on the diagonal, under weaker and stronger decay.

The data are finite and not Gaussian, with diagonal covariances, so that the encoder stays diagonal.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sims.descent import gradient_descent_path
from sims.engine.experiment import NONNEGATIVE, POSITIVE, Experiment, Order, Output, Parameter, Setting, per_cell, whole
from sims.ssl_collapse import finite_data
from sims.ssl_collapse.setup import SOURCE
from theory.ssl_collapse import effective_landscape, mode_trajectory

STARTS = np.array(
    [
        [0.05, 0.03], [0.85, 0.15], [0.06, 0.8], [-0.9, 0.9], [-0.25, 0.45], [-0.04, 0.01], [-0.75, -0.06],
        [-0.5, -0.9], [0.03, -0.35], [0.7, -0.8], [0.15, -0.04], [0.0, 0.9], [-0.9, 0.0],
    ]
)  # fmt: skip
MOMENTS = 61


class Sizes(NamedTuple):
    """What a compilation depends on."""

    inputs: int
    noises: int


def covariances(cell):
    """The diagonals of A0 and of C."""
    a = jnp.stack([cell["first"], cell["second"]])
    return a, jnp.stack([cell["first_noise"], cell["second_noise"]])


def one(key, cell, settings, sizes):
    a, c = covariances(cell)
    views = finite_data.draw(key, sizes.inputs, sizes.noises, jnp.diag(a), jnp.diag(c))

    def loss(W):
        return finite_data.spectral_loss(W, views, cell["weight_decay"])

    rate = settings["learning_rate"]
    shares = jnp.linspace(0.0, 1.0, MOMENTS) ** 2
    seen = jnp.round(shares * settings["time"] / rate).astype(jnp.int32)

    def path(start):
        return jax.vmap(jnp.diag)(gradient_descent_path(loss, jnp.diag(start), rate, seen))

    starts = jnp.asarray(STARTS, rate.dtype)
    exact, halved, unscaled = (
        trajectory(starts, seen.astype(rate.dtype) * rate, a, c, cell["weight_decay"], **how)
        for how in ({}, {"pull": 0.5}, {"views": 0})
    )
    return {"weight": jax.vmap(path)(starts), "weight_theory": exact, "halved": halved, "unscaled": unscaled}


def trajectory(starts, times, a, c, decay, pull=1.0, views=1):
    """Signed weights along the gradient flow. Shape (starts, times, 2)."""
    B, Sigma, kappa = effective_landscape(jnp.diag(a), jnp.diag(c), "spectral", weight_decay=decay)
    b, variance = pull * jnp.diag(B), jnp.diag(Sigma) ** views
    t, at = times[None, :, None], starts[:, None, :]
    y = mode_trajectory(t, b[None, None], variance[None, None], kappa, at**2)
    return jnp.sign(at) * jnp.sqrt(jnp.maximum(y, 0))


def moments(settings):
    return settings["time"] * np.linspace(0, 1, MOMENTS) ** 2


sections = Experiment(
    name="sections",
    title="Sections of the spectral landscape, and descent in them",
    sources=(SOURCE,),
    axes={"weight_decay": Parameter([0.2, 1.1, 1.8], r"weight decay $\lambda$", domain=NONNEGATIVE)},
    fixed={
        "first": Parameter(0.8, "variance of the first clean mode $a_1$", domain=POSITIVE),
        "second": Parameter(0.45, "variance of the second clean mode $a_2$", domain=POSITIVE),
        "first_noise": Parameter(0.4, "augmentation of the first mode $c_1$", domain=POSITIVE),
        "second_noise": Parameter(0.35, "augmentation of the second mode $c_2$", domain=POSITIVE),
    },
    settings={
        "inputs": Setting(5, "inputs", domain=whole(3)),
        "noises": Setting(5, "noises of every input", domain=whole(3)),
        "learning_rate": Setting(0.01, "learning rate", domain=POSITIVE),
        "time": Setting(15.0, "time of descent", domain=POSITIVE),
    },
    sizes=lambda settings: Sizes(settings["inputs"], settings["noises"]),
    simulate=per_cell(one, one_by_one=True),
    predict=lambda cells, settings, sizes: {},
    outputs={
        "weight": Output("weight", dims={"path": np.arange(len(STARTS)), "time": moments, "mode": [1, 2]}),
    },
    claims=(
        Order(
            "weight", "descent follows the flow of the landscape, to first order in the step", setting="learning_rate",
            values=(0.04, 0.02, 0.01, 0.005), order=1, replicates=4,
            twins={"half of B": "halved", "variances of the views forgotten": "unscaled"},
        ),
    ),
    presets={
        "smoke": {"learning_rate": 0.04, "replicates": 2, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {"weight_decay": np.linspace(0, 2, 21), "learning_rate": 0.002, "replicates": 50},
    },
)  # fmt: skip
