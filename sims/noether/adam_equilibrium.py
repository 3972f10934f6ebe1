"""Norm and angle per step of a scale-invariant weight in equilibrium under Adam, with either weight decay."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from sims.engine.experiment import (
    BELOW_ONE,
    POSITIVE,
    Experiment,
    Mean,
    Order,
    Output,
    Parameter,
    Setting,
    per_cell,
    whole,
)
from sims.noether.equilibrium import law, step_and_angle
from sims.noether.setup import SOURCES
from sims.noether.synthetic import RATE, SETTINGS, gaussian_lengths, start, train
from theory.noether import adam_l2_equilibrium_norm, adamw_equilibrium_norm, equilibrium_norm


class Sizes(NamedTuple):
    """What a compilation depends on."""

    dimension: int
    burn_in: int
    window: int


def stationary(key, norm, rule, gradient_norm, sizes: Sizes):
    """`Steps` in equilibrium on Gaussian white noise, from a random weight of some norm."""
    k_start, k_lengths, k_burn_in, k_run = jax.random.split(key, 4)
    u, n = start(k_start, sizes.dimension)
    lengths = gaussian_lengths(k_lengths, gradient_norm, sizes.dimension, sizes.burn_in + sizes.window)
    early, late = jnp.split(lengths, [sizes.burn_in])
    (theta, n, state), _ = train(k_burn_in, norm * u, n, rule, early, 0.0, sizes.burn_in)
    return train(k_run, theta, n, rule, late, 0.0, sizes.window, state)[1]


# ---- decoupled decay


def one(key, cell, settings, sizes):
    eta, e, c = settings["learning_rate"], cell["eta_lambda"], settings["gradient_norm"]
    unit = jnp.sqrt(eta**2 * sizes.dimension / (2 * e))
    rule = optax.adamw(eta, cell["beta1"], 1 - settings["forgetting"], eps=0.0, weight_decay=e / eta)
    run = stationary(key, unit, rule, c, sizes)
    return {**step_and_angle(run, e, jnp.ones(())), "norm": jnp.mean(run.square) / unit**2}


def adamw_law(cells, settings, decoupled=True):
    """Step and angle, under either decay."""
    cells, e = {"momentum": cells["beta1"]}, cells["eta_lambda"]
    return law(cells, {**settings, "eta_lambda": e}, jnp.full(e.shape, decoupled))


def predict(cells, settings, sizes):
    eta, e = settings["learning_rate"], cells["eta_lambda"]
    norm = adamw_equilibrium_norm(eta, e / eta, sizes.dimension, cells["beta1"])
    return {**adamw_law(cells, settings), "norm": norm**2 * 2 * e / (eta**2 * sizes.dimension)}


def memoryless(name):
    """One output of the law, without momentum."""

    def wrong(cells, settings, sizes):
        return predict({**cells, "beta1": jnp.zeros_like(cells["beta1"])}, settings, sizes)[name]

    return wrong


def of_coupled_decay(cells, settings, sizes):
    return adamw_law(cells, settings, decoupled=False)["step"]


def leading_order(cells, settings, sizes):
    """Both the angle and the norm are given in units of their leading order in eta lambda."""
    return jnp.ones_like(cells["beta1"])


def without_momentum(cells, settings):
    """With it, the changes of the second moment enter the sum of past gradients."""
    return cells["beta1"] == 0


LADDER = {
    "setting": "forgetting", "values": (0.02, 0.01, 0.005, 0.0025), "order": 1, "replicates": 40,
    "settings": {"burn_in": 4000},
}  # fmt: skip
SLOW = (0.01, 0.005, 0.0025, 0.00125)

adamw_equilibrium = Experiment(
    name="adamw_equilibrium",
    title="Norm and angle per step of a scale-invariant weight in equilibrium under AdamW",
    sources=SOURCES,
    axes={
        "beta1": Parameter([0.0, 0.5, 0.9], r"momentum $\beta_1$", domain=BELOW_ONE),
        "eta_lambda": Parameter(
            [0.01, 0.03, 0.1], r"learning rate times weight decay $\eta\lambda$", scale="log", domain=RATE
        ),
    },
    settings={
        **SETTINGS,
        "dimension": Setting(64, "dimension of the weight", domain=whole(3)),
        "forgetting": Setting(0.01, "one minus beta_2", domain=RATE),
        "burn_in": Setting(2000, "steps before anything is measured", domain=whole(1)),
        "window": Setting(2000, "steps over which is averaged", domain=whole(1)),
    },
    sizes=lambda s: Sizes(s["dimension"], s["burn_in"], s["window"]),
    simulate=per_cell(one, one_by_one=True),
    predict=predict,
    outputs={
        "step": Output(r"squared step over squared norm, over $2\eta\lambda$"),
        "angle": Output(r"angle of a step, over $\sqrt{2\eta\lambda}$"),
        "norm": Output(r"$\|\theta\|^2$ over $\eta D/2\lambda$"),
    },
    claims=(
        Mean(
            "step", "without momentum decay alone decides the mean squared step, whatever the second moment",
            where=without_momentum, floor=1e-12, rounding=30, twins={"of coupled decay": of_coupled_decay},
        ),
        Mean(
            "angle", "without momentum decay alone decides the angle of a step, whatever the second moment",
            where=without_momentum, floor=1e-12, rounding=30, twins={"leading order in eta lambda": leading_order},
        ),
        Order(
            "step", "momentum and decay alone decide the mean squared step, up to how fast the second moment forgets",
            axes={"beta1": [0.8], "eta_lambda": [0.3]},
            twins={"of coupled decay": of_coupled_decay, "without momentum": memoryless("step")},
            # A hundredth is small beside 1 - beta_1; the effect is too, and asks for long averages.
            **LADDER | {"values": SLOW, "replicates": 60, "settings": {"burn_in": 4000, "window": 6000}},
        ),
        Order(
            "norm", "the norm is that of a constant second moment, up to how fast it forgets",
            axes={"beta1": [0.0, 0.5], "eta_lambda": [0.03, 0.1]},
            twins={"leading order in eta lambda": leading_order, "without momentum": memoryless("norm")}, **LADDER,
        ),
    ),
    presets={
        "smoke": {
            "beta1": [0.0, 0.9], "eta_lambda": [0.1], "burn_in": 300, "window": 500, "forgetting": 0.05,
            "replicates": 6, "ladders": False,
        },
        "laptop": {"replicates": 20},
        "paper": {
            "beta1": [0.0, 0.5, 0.8, 0.9, 0.95], "eta_lambda": [1e-3, 3e-3, 1e-2, 3e-2, 0.1], "forgetting": 1e-3,
            "dimension": 1000, "burn_in": 20_000, "window": 20_000, "replicates": 50,
        },
    },
)  # fmt: skip


# ---- coupled decay


def small_sizes(settings):
    steps = (math.ceil(settings[name] / settings["small"]) for name in ("burn_in", "window"))
    return Sizes(math.ceil(settings["dimension"] / settings["small"]), *steps)


def coupled_one(key, cell, settings, sizes):
    eta, c, decay = settings["learning_rate"], settings["gradient_norm"], weight_decay(cell, settings, sizes)
    rule = optax.chain(optax.add_decayed_weights(decay), optax.adam(eta, 0.0, 1 - settings["small"], eps=0.0))
    run = stationary(key, in_units(1.0, settings, sizes), rule, c, sizes)
    return {"norm": jnp.sqrt(jnp.mean(run.square)) / in_units(1.0, settings, sizes)}


def weight_decay(cells, settings, sizes):
    """That at which a step shortens the weight by about `decay` times `small`."""
    eta, c = settings["learning_rate"], settings["gradient_norm"]
    return (cells["decay"] * settings["small"]) ** 1.5 * c / (eta**2 * sizes.dimension)


def in_units(x, settings, sizes):
    """A norm, from units of that at which the squared step is `small` times the squared norm."""
    return x * settings["learning_rate"] * jnp.sqrt(sizes.dimension / settings["small"])


def coupled_norm(formula):
    """A norm at equilibrium, in those units."""

    def norm(cells, settings, sizes):
        eta, c, decay = settings["learning_rate"], settings["gradient_norm"], weight_decay(cells, settings, sizes)
        return formula(eta, decay, c, sizes.dimension) / in_units(1.0, settings, sizes)

    return norm


adam_l2_equilibrium = Experiment(
    name="adam_l2_equilibrium",
    title="Norm of a scale-invariant weight in equilibrium under Adam with coupled decay",
    sources=SOURCES,
    axes={"decay": Parameter([1.0, 2.0, 4.0, 8.0], "decay of a step, over `small`", scale="log", domain=POSITIVE)},
    settings={
        **SETTINGS,
        "small": Setting(
            0.02, "one minus beta_2; decay and the inverse dimension are in proportion to it", domain=RATE
        ),
        "dimension": Setting(3.0, "dimension of the weight, times `small`", domain=POSITIVE),
        "burn_in": Setting(12.0, "steps before anything is measured, times `small`", domain=POSITIVE),
        "window": Setting(20.0, "steps over which is averaged, times `small`", domain=POSITIVE),
    },
    sizes=small_sizes,
    simulate=per_cell(coupled_one, one_by_one=True),
    predict=lambda *args: {"norm": coupled_norm(adam_l2_equilibrium_norm)(*args)},
    outputs={"norm": Output(r"norm over $\eta\,\sqrt{D/s}$, $s=1-\beta_2$")},
    claims=(
        Order(
            "norm", "the norm is that of a small decay, a constant second moment and a large dimension",
            setting="small", values=(0.02, 0.01, 0.005, 0.0025), order=1, replicates=20, axes={"decay": [8.0]},
            settings={"window": 8.0},
            twins={
                "of decoupled decay": coupled_norm(lambda eta, decay, c, D: adamw_equilibrium_norm(eta, decay, D, 0.0)),
                "of gradient descent": coupled_norm(lambda eta, decay, c, D: equilibrium_norm(eta, decay, c)),
            },
        ),
    ),
    presets={
        "smoke": {"decay": [2.0, 8.0], "small": 0.05, "replicates": 4, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {"decay": [0.5, 1.0, 2.0, 4.0, 8.0, 16.0], "small": 0.002, "replicates": 50},
    },
)  # fmt: skip
