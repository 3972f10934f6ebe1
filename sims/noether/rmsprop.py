"""Gradient descent with weight decay on a scale-invariant loss, beside RMSProp on the sphere on its own gradients."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sims.descent import optimizer_step
from sims.engine.experiment import POSITIVE, Experiment, Order, Output, Parameter, Pathwise, Setting, per_cell, whole
from sims.noether.setup import SOURCES, optimizer
from sims.noether.synthetic import RATE, unit
from theory.noether import (
    equivalent_second_moment,
    rmsprop_equivalent,
    rmsprop_trajectory,
    sphere_trajectory,
)

MOMENTS = 4


class Sizes(NamedTuple):
    """What a compilation depends on."""

    dimension: int
    batch: int
    steps: int


def quotient(theta, M):
    """Half the Rayleigh quotient: it does not know the length of theta."""
    return theta @ M @ theta / (2 * jnp.sum(theta**2))


def draw(key, sizes: Sizes):
    """A random direction, and covariances of minibatches of Gaussian inputs.

    No direction is better than another: with a signal both descents would find it and forget their differences.
    """
    k_start, k_inputs = jax.random.split(key)
    inputs = jax.random.normal(k_inputs, (sizes.steps, sizes.batch, sizes.dimension))
    stream = jnp.einsum("kbi,kbj->kij", inputs, inputs) / sizes.batch
    return unit(jax.random.normal(k_start, (sizes.dimension,))), stream


def descend(theta, stream, rule):
    """Iterates of gradient descent on the stream, shape (K + 1, D)."""

    def step(carry, M):
        theta, state = carry
        theta, state = optimizer_step(rule, jax.grad(quotient)(theta, M), theta, state)
        return (theta, state), theta

    _, path = jax.lax.scan(step, (theta, rule.init(theta)), stream)
    return jnp.concatenate([theta[None], path])


def one(key, cell, settings, sizes):
    u0, stream = draw(key, sizes)
    eta, e = settings["learning_rate"], settings["eta_lambda"]
    decay, gradient = e / eta, jax.grad(quotient)
    squares = jax.vmap(lambda M: jnp.sum(gradient(u0, M) ** 2))(stream)
    Z0 = cell["ratio"] ** 2 * eta * jnp.mean(squares) / (2 * decay)
    path = descend(Z0**0.25 * u0, stream, optimizer("SGD", eta, 0.0, decay))
    Z = jnp.sum(path**2, axis=1) ** 2
    u = path / jnp.linalg.norm(path, axis=1, keepdims=True)

    sphere = sphere_trajectory(u0, Z0, gradient, stream, eta, decay)
    rho, rate = rmsprop_equivalent(eta, decay)
    G, G0 = (equivalent_second_moment(z, eta, decay) for z in (Z, Z0))
    adaptive = rmsprop_trajectory(u0, G0, gradient, stream, rho, rate)
    fixed = rmsprop_trajectory(u0, G0, gradient, stream, jnp.ones_like(rho), rate)
    fast = rmsprop_trajectory(u0, G0, gradient, stream, rho**2, rate)
    late = rho * G0 + (1 - rho) * jnp.sum(gradient(u0, stream[0]) ** 2)
    at = jnp.array([(k + 1) * sizes.steps // MOMENTS for k in range(MOMENTS)])

    def distance(other):
        return jnp.linalg.norm((u - other.u)[at], axis=1)

    return {
        "direction": u[at],
        "direction_theory": sphere.u[at],
        "direction_rmsprop": adaptive.u[at],
        "norm": Z[at] / Z0,
        "norm_theory": sphere.Z[at] / Z0,
        "norm_rmsprop": adaptive.G[at] / G0,
        "step": u[1],
        "step_theory": adaptive.u[1],
        "step_late": unit(u0 - rate / jnp.sqrt(late) * gradient(u0, stream[0])),
        "distance": distance(adaptive),
        "distance_theory": jnp.zeros(MOMENTS),
        # A twin is what, taken from the output, leaves the distance to its own trajectory.
        "distance_fixed": distance(adaptive) - distance(fixed),
        "distance_fast": distance(adaptive) - distance(fast),
        "second_moment": G[at] / G0,
        "second_moment_theory": adaptive.G[at] / G0,
        "second_moment_fixed": fixed.G[at] / G0,
        "second_moment_fast": fast.G[at] / G0,
    }


ENTRIES = {"entry": lambda settings: np.arange(settings["dimension"])}
MOMENT = {"moment": [(k + 1) / MOMENTS for k in range(MOMENTS)]}
LADDER = {"setting": "eta_lambda", "values": (0.008, 0.004, 0.002, 0.001), "order": 1, "replicates": 80}

rmsprop = Experiment(
    name="rmsprop",
    title="Weight decay and normalization are RMSProp on the sphere",
    sources=SOURCES,
    axes={
        "ratio": Parameter(
            [0.5, 1.0, 2.0], "squared norm at the start, over equilibrium", scale="log", domain=POSITIVE
        )
    },
    settings={
        "eta_lambda": Setting(0.004, "learning rate times weight decay", domain=RATE),
        "learning_rate": Setting(0.1, "learning rate", domain=POSITIVE),
        "longest": Setting(2.0, "steps, times eta lambda", domain=POSITIVE),
        "dimension": Setting(10, "dimension of the weight", domain=whole(2)),
        "batch": Setting(4, "inputs of a minibatch", domain=whole(1)),
    },
    sizes=lambda s: Sizes(s["dimension"], s["batch"], max(MOMENTS, math.ceil(s["longest"] / s["eta_lambda"]))),
    simulate=per_cell(one, one_by_one=True),
    predict=lambda cells, settings, sizes: {},
    outputs={
        "direction": Output("direction of the weight", dims=MOMENT | ENTRIES),
        "norm": Output(r"$\|\theta\|^4$ over its start", dims=MOMENT),
        "step": Output("direction after one step", dims=ENTRIES),
        "distance": Output("distance from the direction of RMSProp", dims=MOMENT),
        "second_moment": Output("second moment that the norm stands for, over its start", dims=MOMENT),
    },
    claims=(
        Pathwise(
            "direction", "on the sphere gradient descent is the exact update", tolerance=1e-9, rounding=1e5,
            twins={"of RMSProp": "direction_rmsprop"},
        ),
        Pathwise(
            "norm", "its norm follows the exact update", tolerance=1e-9, rounding=1e5,
            twins={"of RMSProp": "norm_rmsprop"},
        ),
        Pathwise(
            "step", "one step is that of RMSProp with the second moment before its update", tolerance=1e-12,
            rounding=100, twins={"with the second moment after it": "step_late"},
        ),
        Order(
            "distance", "the direction is that of RMSProp on its own gradients, up to the decay of a step",
            twins={"constant effective rate": "distance_fixed", "twice as fast a memory": "distance_fast"}, **LADDER,
        ),
        Order(
            "second_moment", "the norm is the second moment of RMSProp, up to the decay of a step",
            twins={"constant": "second_moment_fixed", "twice as fast a memory": "second_moment_fast"}, **LADDER,
        ),
    ),
    presets={
        "smoke": {"ratio": [0.5, 2.0], "eta_lambda": 0.02, "replicates": 4, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {
            "ratio": [0.25, 0.5, 1.0, 2.0, 4.0], "eta_lambda": 1e-3, "longest": 6.0, "dimension": 100, "batch": 16,
            "replicates": 50,
        },
    },
)  # fmt: skip
