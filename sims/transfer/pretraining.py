"""Pretraining: deep linear networks that leave the origin under the population's gradient flow."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sims.descent import gradient_descent, gradient_flow
from sims.engine.experiment import (
    POSITIVE,
    Experiment,
    Order,
    Output,
    Parameter,
    Pathwise,
    Setting,
    per_cell,
    whole,
)
from sims.transfer.deep_linear import initial_network, quadratic_loss, weights
from sims.transfer.phase_diagram import SOURCE
from theory.transfer import pretraining_half_time, pretraining_norm

PHASES = np.linspace(0.0, 2.0, 17)
EARLY = 4
PATIENCE = 20.0
OF_DEPTH_TWO = ("escape_rate_half_rate", "early_excess", "second_singular_value", "balance_drift")
OF_EVERY_PHASE = ("norm", "norm_theory", "norm_half_rate", "norm_without_quarter", "norm_exponential")


class Sizes(NamedTuple):
    """Shapes that a compilation depends on."""

    d: int
    width: int
    depth: int
    flow_steps: int


def sizes(settings):
    return Sizes(settings["d"], settings["width"], settings["depth"], settings["flow_steps"])


def escape_time(loss, network, source_norm, latest, step):
    """Time at which half the source's norm is learned, by Runge-Kutta steps; inf if that is after `latest`."""

    def size(network):
        return jnp.linalg.norm(weights(network))

    def below_half(state):
        return (size(state[0]) < source_norm / 2) & (state[1] < latest)

    def advance(state):
        network, time, _ = state
        return gradient_flow(loss, network, step, 1), time + step, size(network)

    network, time, before = jax.lax.while_loop(below_half, advance, (network, jnp.zeros_like(step), size(network)))
    after = size(network)
    beyond = jnp.log(2 * after / source_norm) / jnp.log(after / before)
    return jnp.where(after < source_norm / 2, jnp.inf, time - step * beyond)


def one(key, cell, settings, sizes):
    """One network, from its random start to its escape; at depth two also all that the closed forms speak of."""
    B, alpha = cell["source_norm"], settings["alpha"]
    k_source, k_network = jax.random.split(key)
    direction = jax.random.normal(k_source, (sizes.d,))
    direction = direction / jnp.linalg.norm(direction)
    network = initial_network(k_network, sizes.d, sizes.width, sizes.depth, alpha ** (sizes.depth - 1))
    loss = quadratic_loss(jnp.ones(sizes.d), B * direction)

    rate = 4 * B ** (2 - 2 / sizes.depth)
    latest = PATIENCE * jnp.log(1 + 1 / alpha) / (rate * alpha ** (sizes.depth - 2))
    escape = escape_time(loss, network, B, latest, 0.04 / rate)
    out = {"escape_rate": 1 / escape, "status": jnp.where(jnp.isinf(escape), 1, 0)}
    if sizes.depth == 2:
        return out | two_layers(network, direction, loss, B, settings, sizes)
    nothing = jnp.full(len(PHASES), jnp.nan)
    return out | dict.fromkeys(OF_EVERY_PHASE, nothing) | dict.fromkeys(OF_DEPTH_TWO, nothing[0])


def two_layers(network, direction, loss, B, settings, sizes):
    start = jnp.sum((network[0].T @ direction + network[1]) ** 2) / 4
    half = pretraining_half_time(B, start)
    times = half * jnp.asarray(PHASES, half.dtype)

    def advance(network, duration):
        network = gradient_flow(loss, network, duration, sizes.flow_steps)
        return network, jnp.linalg.norm(weights(network))

    durations = jnp.diff(times, prepend=jnp.zeros((1,), half.dtype))
    trained, norm = jax.lax.scan(advance, network, durations)
    theory = pretraining_norm(times, B, start)

    def imbalance(network):
        return network[0].T @ network[0] - network[1][:, None] * network[1][None, :]

    steps = jnp.ceil(times[-1] / settings["learning_rate"])
    descended = gradient_descent(loss, network, settings["learning_rate"], steps)
    return {
        "norm": norm,
        "norm_theory": theory,
        "norm_half_rate": pretraining_norm(times / 2, B, start),
        "norm_without_quarter": pretraining_norm(times, B, 4 * start),
        "norm_exponential": jnp.minimum(start * jnp.exp(4 * B * times), B),
        "early_excess": norm[EARLY] - theory[EARLY],
        "escape_rate_theory": 1 / half,
        "escape_rate_half_rate": 1 / (2 * half),
        "second_singular_value": jnp.linalg.svd(trained[0], compute_uv=False)[1],
        "balance_drift": jnp.linalg.norm(imbalance(descended) - imbalance(network)),
    }


def predict(cells, settings, sizes):
    """What vanishes in a limit; the rest depends on the initial weights and is predicted draw by draw."""
    zero = jnp.zeros_like(cells["source_norm"])
    names = ("early_excess", "second_singular_value", "balance_drift")
    if sizes.depth == 2:
        return dict.fromkeys(names, zero)
    return dict.fromkeys(names, jnp.nan * zero) | {"escape_rate": zero}


def of_depth_two(cells, settings):
    return np.full(np.shape(cells["source_norm"]), settings["depth"] == 2)


SMALL = {"d": 30, "width": 6}

pretraining = Experiment(
    name="pretraining",
    title="Pretraining of deep linear networks from small random weights",
    sources=(SOURCE,),
    axes={"source_norm": Parameter([0.5, 1.0, 2.0], r"source norm $B$", scale="log", domain=POSITIVE)},
    settings={
        "d": Setting(100, "input dimension", domain=whole(2)),
        "width": Setting(16, "hidden width", domain=whole(2)),
        "depth": Setting(2, "number of layers", domain=whole(2)),
        "alpha": Setting(1e-3, "initial scale of every layer", domain=POSITIVE),
        "flow_steps": Setting(60, "Runge-Kutta steps between two recorded times", domain=whole(1)),
        "learning_rate": Setting(0.01, "of gradient descent, whose balance drifts", domain=POSITIVE),
    },
    sizes=sizes,
    simulate=per_cell(one),
    predict=predict,
    outputs={
        "norm": Output(r"norm learned $|\beta(t)|$", dims={"half_times": PHASES}),
        "escape_rate": Output(r"inverse of the half-time $1/t_{1/2}$"),
        "early_excess": Output(r"excess of $|\beta|$ at half the half-time"),
        "second_singular_value": Output(r"second singular value of $W_1$"),
        "balance_drift": Output(r"drift of $W_1^\top W_1-w_2w_2^\top$ by gradient descent"),
    },
    claims=(
        Pathwise(
            "norm", "the norm grows as the logistic function of the initial weights, in every draw", tolerance=1e-4,
            rounding=50, where=of_depth_two,
            twins={
                "rate 2B for 4B": "norm_half_rate", "b0 without its quarter": "norm_without_quarter",
                "exponential, then constant": "norm_exponential",
            },
        ),
        Pathwise(
            "escape_rate", "half is learned at the time that the initial weights say, in every draw", tolerance=1e-4,
            rounding=50, where=of_depth_two, twins={"rate 2B for 4B": "escape_rate_half_rate"},
        ),
        Order(
            "early_excess", "the growth is logistic, but for the square of the initial scale", rounding=500,
            setting="alpha", values=(0.004, 0.002, 0.001, 0.0005), order=2, replicates=20, settings=SMALL,
        ),
        Order(
            "second_singular_value", "the features become rank one as the initial scale vanishes", rounding=50,
            setting="alpha", values=(0.1, 0.03, 0.01, 0.003), order=1, replicates=20, settings=SMALL,
        ),
        Order(
            "balance_drift", "the layers stay balanced in the limit of small steps", rounding=5e3,
            setting="learning_rate", values=(0.008, 0.004, 0.002, 0.001), order=1, replicates=20, settings=SMALL,
        ),
        Order(
            "escape_rate", "three layers take a time that grows as one over the initial scale", rounding=5e3,
            setting="alpha", values=(0.03, 0.02, 0.01, 0.005), order=1, replicates=20,
            settings={**SMALL, "depth": 3},
        ),
    ),
    presets={
        "smoke": {"d": 20, "width": 4, "replicates": 10, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {"d": 500, "width": 500, "alpha": 1e-5, "replicates": 20},
    },
)  # fmt: skip
