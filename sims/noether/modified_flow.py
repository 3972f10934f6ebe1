"""Iterates of gradient descent and of heavy ball against the flows that follow them, order by order."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from sims.descent import flow_path, gradient_descent_path, optimizer_step
from sims.engine.experiment import (
    BELOW_ONE,
    NONNEGATIVE,
    POSITIVE,
    Experiment,
    Order,
    Output,
    Parameter,
    Setting,
    per_cell,
    whole,
)
from sims.noether import rayleigh
from sims.noether.setup import SOURCES, optimizer
from theory import noether
from theory.noether import heavy_ball_flow, heavy_ball_lag, heavy_ball_ode, heavy_ball_start

TIME, TIME_OF_HEAVY_BALL = 4.0, 1.0  # heavy ball is 1 / (1 - beta) times as fast
MOMENTS = 6
STEPS_BETWEEN = 100
STEPS_OF_PARTICLE = 8000  # its mass is of the order of the learning rate, and steps must be well below it


def heavy_ball_path(loss, w, eta, beta, decay, checkpoints):
    """Weights at rising numbers of steps of optax's heavy ball."""
    heavy = optimizer("heavy ball", eta, beta, decay)

    def step(_, carry):
        params, state = carry
        return optimizer_step(heavy, jax.grad(loss)(params), params, state)

    def until(carry, count):
        carry = jax.lax.fori_loop(jnp.int32(0), count, step, carry)
        return carry, carry[0]

    return jax.lax.scan(until, (w, heavy.init(w)), jnp.diff(checkpoints, prepend=jnp.int32(0)))[1]


def one(key, cell, settings, sizes):
    eta, beta, decay = settings["eta"], cell["momentum"], cell["weight_decay"]
    w, eigenvalues = rayleigh.draw(key, sizes)

    def loss(w):
        return rayleigh.loss(w, eigenvalues)

    def moments(time):
        steps = jnp.round(jnp.linspace(1 / 3, 1.0, MOMENTS) * time / eta).astype(jnp.int32)
        return steps, eta * steps.astype(eta.dtype)

    steps, t = moments(TIME)
    plain = gradient_descent_path(loss, w, eta, steps)
    flows = [flow_path(noether.modified_flow(loss, eta, order), w, t, STEPS_BETWEEN) for order in (0, 1, 2)]

    steps, t = moments(TIME_OF_HEAVY_BALL)
    heavy = heavy_ball_path(loss, w, eta, beta, decay, steps)
    slow = heavy_ball_flow(loss, eta, beta, weight_decay=decay)
    lagging, at_once = (flow_path(slow, w, t - lag, STEPS_BETWEEN) for lag in (heavy_ball_lag(eta, beta), 0.0))
    particle = heavy_ball_ode(loss, eta, beta, weight_decay=decay)
    kicked = heavy_ball_start(loss, beta, weight_decay=decay)(w)

    def fall(velocity):
        return flow_path(lambda state: particle(*state), (w, velocity), t, STEPS_OF_PARTICLE)[0]

    started, at_rest = fall(kicked), fall(jnp.zeros_like(w))
    return {
        "gradient_flow": plain,
        "gradient_flow_theory": flows[0],
        "gradient_flow_still": jnp.broadcast_to(w, plain.shape),
        "first_order": plain,
        "first_order_theory": flows[1],
        "first_order_gradient_flow": flows[0],
        "second_order": plain,
        "second_order_theory": flows[2],
        "second_order_first": flows[1],
        "slow_manifold": heavy,
        "slow_manifold_theory": lagging,
        "slow_manifold_without_lag": at_once,
        "particle": heavy,
        "particle_theory": started,
        "particle_at_rest": at_rest,
    }


def ladder(values, order):
    return {"setting": "eta", "values": values, "order": order, "replicates": 20, "axes": {"momentum": [0.8]}}


COARSE, FINE = (0.04, 0.02, 0.01, 0.005), (0.001, 0.0005, 0.00025, 0.000125)
DIMS = {"moment": np.linspace(1 / 3, 1, MOMENTS), "component": lambda s: np.arange(s["d"])}

modified_flow = Experiment(
    name="modified_flow",
    title="Flows that follow gradient descent and heavy ball, order by order",
    sources=SOURCES,
    axes={"momentum": Parameter([0.0, 0.5, 0.8], r"momentum $\beta$", domain=BELOW_ONE)},
    fixed={"weight_decay": Parameter(0.1, r"weight decay $\lambda$ of the heavy ball", domain=NONNEGATIVE)},
    settings={
        "eta": Setting(0.01, "learning rate", domain=POSITIVE),
        "d": Setting(3, "dimension of the Rayleigh quotient", domain=whole(2)),
    },
    sizes=lambda settings: settings["d"],
    simulate=per_cell(one),
    predict=lambda cells, settings, sizes: {},
    outputs={
        "gradient_flow": Output("gradient descent, against gradient flow", dims=DIMS),
        "first_order": Output("gradient descent, against the modified flow", dims=DIMS),
        "second_order": Output("gradient descent, against the modified flow of second order", dims=DIMS),
        "slow_manifold": Output("heavy ball, against the lagging slow flow", dims=DIMS),
        "particle": Output("heavy ball, against the particle with mass", dims=DIMS),
    },
    claims=(
        Order(
            "gradient_flow", "gradient flow follows gradient descent to first order", **ladder(COARSE, 1),
            twins={"no motion": "gradient_flow_still"},
        ),
        Order(
            "first_order", "the modified flow follows it to second order", **ladder(COARSE, 2),
            twins={"gradient flow": "first_order_gradient_flow"},
        ),
        Order(
            "second_order", "with its next term, to third order", **ladder(COARSE, 3),
            twins={"without that term": "second_order_first"},
        ),
        Order(
            "slow_manifold", "the slow flow, with its lag, follows heavy ball to second order", **ladder(FINE, 2),
            twins={"without the lag": "slow_manifold_without_lag"},
        ),
        Order(
            "particle", "a particle with mass, kicked at the start, follows it to second order", **ladder(FINE, 2),
            twins={"started at rest": "particle_at_rest"},
        ),
    ),
    presets={
        "smoke": {"momentum": [0.0, 0.8], "eta": 0.05, "replicates": 4, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {"momentum": [0.0, 0.5, 0.8, 0.9, 0.95], "eta": 0.001, "replicates": 100},
    },
)  # fmt: skip
