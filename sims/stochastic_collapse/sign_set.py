"""The sign-invariant set of a linear neuron with isotropic inputs: label noise attracts it in one dimension alone."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sims.engine.experiment import (
    NONNEGATIVE,
    POSITIVE,
    Experiment,
    Order,
    Output,
    Parameter,
    Phase,
    Setting,
    per_cell,
    whole,
)
from sims.stochastic_collapse.setup import SOURCE
from theory.stochastic_collapse import sign_set_exponent

NEAR = math.log(1e-6)  # ln |theta| below which the loss is its linear part, to rounding
MOMENTS = 25
ANGLES = 2000


class Neuron(NamedTuple):
    """f(x) = a w.x."""

    a: jax.Array
    w: jax.Array


class Sizes(NamedTuple):
    """What a compilation depends on."""

    dimension: int
    paths: int
    moments: int


def loss(neuron, x, y):
    return (neuron.a * jnp.sum(neuron.w * x) - y) ** 2 / 2


def inner(p, q):
    """Inner product of two neurons of every path."""
    return p.a * q.a + jnp.sum(p.w * q.w, -1)


def sgd_step(direction, log, x, y, eta):
    """(direction, growth of ln |theta|, its linear part) after one sample of every path.

    The gradient is that at the distance e^log, or at 1e-6, where it is as linear as rounding can tell.
    """
    distance = jnp.exp(jnp.maximum(log, NEAR))
    theta = Neuron(distance * direction.a, distance[:, None] * direction.w)
    g = jax.vmap(jax.grad(loss))(theta, x, y)
    move = Neuron(-eta * g.a / distance, -eta * g.w / distance[:, None])
    end = jax.tree.map(jnp.add, direction, move)
    length = jnp.sqrt(inner(end, end))
    return Neuron(end.a / length, end.w / length[:, None]), jnp.log(length), inner(direction, move)


def sample(key, sizes, eta):
    """One input of every path and its label: zero, wrong by plus or minus zeta with eta zeta^2 = 1."""
    k_x, k_y = jax.random.split(key)
    x = jax.random.normal(k_x, (sizes.paths, sizes.dimension))
    return x, jax.random.rademacher(k_y, (sizes.paths,), x.dtype) / jnp.sqrt(eta)


def balanced(key, sizes):
    """Neurons with |a| = |w|: in one dimension on a line that they would never leave but for rounding.

    Rounding takes about (ln epsilon)^2 / 4 = 330 units of time to grow, in float64.
    """
    w = jax.random.normal(key, (sizes.paths, sizes.dimension))
    w = w / jnp.sqrt(2 * jnp.sum(w**2, -1, keepdims=True))
    return Neuron(jnp.full(sizes.paths, 0.5**0.5, w.dtype), w)


def one(key, cell, settings, sizes):
    eta = settings["eta"]
    k_start, k_near, k_far = jax.random.split(key, 3)
    start = balanced(k_start, sizes)
    skipped, last = (jnp.round(t / eta).astype(jnp.int32) for t in (settings["burn_in"], settings["time"]))

    def near(k, state):
        direction, total = state
        x, y = sample(jax.random.fold_in(k_near, k), sizes, eta)
        direction, growth, linear = sgd_step(direction, jnp.full_like(total, NEAR), x, y, eta)
        # The linear part has mean zero: less of it, the same mean is known better.
        return direction, total + jnp.where(k < skipped, 0.0, growth - linear)

    _, total = jax.lax.fori_loop(jnp.int32(0), last, near, (start, jnp.zeros_like(start.a)))
    exponent = jnp.mean(total) / ((last - skipped).astype(eta.dtype) * eta)

    def far(k, state):
        direction, log = state
        x, y = sample(jax.random.fold_in(k_far, k), sizes, eta)
        direction, growth, _ = sgd_step(direction, log, x, y, eta)
        return direction, log + growth

    def until(state, share):
        *state, before = state
        until = jnp.round(share * settings["life"] / eta).astype(jnp.int32)
        state = jax.lax.fori_loop(before, until, far, tuple(state))
        return (*state, until), jnp.median(state[1])

    shares = jnp.arange(1, sizes.moments + 1, dtype=eta.dtype) / sizes.moments
    begin = (start, jnp.zeros_like(start.a), jnp.int32(0))
    median = jax.lax.scan(until, begin, shares)[1]
    return {
        "exponent": exponent,
        "median": median,
        # Half way between the linear law of one dimension and no collapse.
        "fate": median[-1] + settings["life"] / 4,
    }


def predict(cells, settings, sizes):
    exponent = sign_set_exponent(cells["dimension"])
    time = settings["life"] * jnp.arange(1, sizes.moments + 1, dtype=exponent.dtype) / sizes.moments
    return {
        "exponent": exponent,
        "median": jnp.minimum(exponent, 0.0)[:, None] * time[None, :],
        "fate": exponent,
    }


def of_one_dimension(cells, settings, sizes):
    """The exponent of a scalar neuron, in every dimension."""
    return jnp.full_like(cells["dimension"], sign_set_exponent(1))


def independent_noise(cells, settings, sizes):
    """The exponent if a and w had noise of their own: u = |w|^2 / |theta|^2 has a density in closed form."""
    d = cells["dimension"][:, None]
    u = jnp.sin((jnp.arange(ANGLES, dtype=d.dtype) + 0.5) * (jnp.pi / 2 / ANGLES))[None, :] ** 2
    V = 1 - 2 * u + 2 * u**2
    log_density = -jnp.log(V) / 2 + (d - 1) / 2 * (jnp.log(u) - jnp.log(V) / 2)
    density = jnp.exp(log_density - jnp.max(log_density, -1, keepdims=True))
    q = (u + d * (1 - u)) / 2 - 2 * u * (1 - u)
    return jnp.sum(density * q, -1) / jnp.sum(density, -1)


def fits(values, settings):
    if settings["burn_in"] >= settings["time"]:
        raise ValueError(f"`burn_in` must be below `time` = {settings['time']:g}, but got {settings['burn_in']:g}.")


def not_neutral(cells, settings):
    return cells["dimension"] != 2


AS_IN_ONE = {"as in one dimension": of_one_dimension}

sign_set = Experiment(
    name="sign_set",
    title="Label noise on a linear neuron with isotropic inputs",
    sources=(SOURCE,),
    axes={
        "dimension": Parameter([1, 2, 3, 4, 5, 6, 8], "dimension of the inputs $d$", domain=whole(1), role="static"),
    },
    settings={
        "eta": Setting(0.01, "learning rate, at a label noise of eta zeta^2 = 1", domain=POSITIVE),
        "paths": Setting(160, "neurons of a replicate", domain=whole(1)),
        "time": Setting(20.0, "time near the origin, in 1 / (eta zeta^2)", domain=POSITIVE),
        "burn_in": Setting(4.0, "time until directions are stationary", domain=NONNEGATIVE),
        "life": Setting(30.0, "time of the whole neuron", domain=POSITIVE),
        "moments": Setting(25, "times at which the whole neuron is seen", domain=whole(1)),
    },
    sizes=lambda settings: Sizes(int(settings["dimension"]), settings["paths"], settings["moments"]),
    simulate=per_cell(one, one_by_one=True),
    predict=predict,
    validate=fits,
    outputs={
        "exponent": Output(r"exponent over $s^2 = \eta\zeta^2$"),
        "median": Output(
            r"median of $\ln|\theta|$",
            dims={"time": lambda s: s["life"] * np.arange(1, s["moments"] + 1) / s["moments"]},
        ),
        "fate": Output(r"median of $\ln|\theta|$ above half of the law of $d = 1$"),
    },
    claims=(
        Order(
            "exponent", "the exponent of every dimension is approached to first order in the learning rate",
            setting="eta", values=(0.04, 0.02, 0.01, 0.005), order=1, replicates=20,
            axes={"dimension": [1, 2, 3, 4, 8]}, settings={"paths": 400, "life": 0.5, "moments": 1},
            twins=AS_IN_ONE | {"independent noise in a and w": independent_noise},
        ),
        Phase(
            "exponent", "label noise attracts a scalar neuron and repels one with three inputs or more",
            where=not_neutral, twins=AS_IN_ONE,
        ),
        Phase(
            "fate", "whole neurons collapse in one dimension and stay in the others", where=not_neutral,
            twins=AS_IN_ONE,
        ),
    ),
    presets={
        "smoke": {
            "dimension": [1, 3], "eta": 0.02, "paths": 50, "time": 10.0, "life": 20.0, "moments": 5,
            "replicates": 4, "ladders": False,
        },
        "laptop": {"replicates": 20},
        "paper": {
            "dimension": [1, 2, 3, 4, 5, 6, 8, 12, 16, 32], "eta": 0.002, "paths": 5000,
            "replicates": 40,
        },
    },
)  # fmt: skip
