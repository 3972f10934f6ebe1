"""Norm and angle per step of a scale-invariant weight in equilibrium: gradients of any memory, real optimizer steps."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sims.engine.experiment import (
    BELOW_ONE,
    POSITIVE,
    Domain,
    Experiment,
    Mean,
    Order,
    Output,
    Parameter,
    Pathwise,
    Setting,
    per_cell,
)
from sims.noether.setup import SOURCES, optimizer
from sims.noether.synthetic import RATE, SETTINGS, start, train
from theory.noether import (
    equilibrium_angle,
    equilibrium_norm,
    equilibrium_norm_momentum,
    rotating_equilibrium_norm,
    step_size_ratio,
)

CORRELATION = Domain("from 0 to 1", lambda x: (x >= 0) & (x <= 1))
EITHER = Domain("0 (coupled) or 1 (decoupled)", lambda x: (x == 0) | (x == 1))
LAGS = 300  # of the autocorrelation; momentum 0.9 forgets the rest to 1e-14
OPTIMIZER = ("heavy ball", "decoupled decay")


class Sizes(NamedTuple):
    """What a compilation depends on."""

    optimizer: str
    dimension: int
    burn_in: int
    measured: int


def sizes(settings):
    steps = (math.ceil(settings[name] / settings["eta_lambda"]) for name in ("burn_in", "window"))
    return Sizes(OPTIMIZER[int(settings["decoupled"])], settings["dimension"], *steps)


def one(key, cell, settings, sizes):
    k_start, k_burn_in, k_run = jax.random.split(key, 3)
    eta, e, c = settings["learning_rate"], settings["eta_lambda"], settings["gradient_norm"]
    rule = optimizer(sizes.optimizer, eta, cell["momentum"], e / eta)
    theta, n = start(k_start, sizes.dimension)
    (theta, n, state), _ = train(k_burn_in, theta, n, rule, c, cell["correlation"], sizes.burn_in)
    _, run = train(k_run, theta, n, rule, c, cell["correlation"], sizes.measured, state)
    fourth = jnp.mean(run.square**2) * e / (eta * c) ** 2
    return {**step_and_angle(run, e, cell["decoupled"]), "norm": fourth}


def step_and_angle(run, eta_lambda, decoupled):
    """Averages over a run: squared step in units of the squared norm, and angle, over their leading order.

    Under decoupled decay the step is that without the decay.
    """
    square, work, step = map(jnp.mean, run)
    decay = eta_lambda * decoupled
    added = step + 2 * decay * work + decay**2 * square
    turn = -work / square  # 1 - cos
    return {
        "step": added / square / (2 * eta_lambda),
        "angle": 2 * jnp.arcsin(jnp.sqrt(turn / 2)) / jnp.sqrt(2 * eta_lambda),
    }


def predict(cells, settings, sizes):
    beta, rho = cells["momentum"], cells["correlation"]
    eta, e, c = settings["learning_rate"], settings["eta_lambda"], settings["gradient_norm"]
    leading = leading_norm(cells, settings, sizes)
    turning = rotating_equilibrium_norm(eta, e / eta, c, beta) ** 4 * e / (eta * c) ** 2
    still = equilibrium_norm(eta, e / eta, c) ** 4 * e / (eta * c) ** 2
    norm = jnp.where(beta == 0, still, jnp.where(rho == 1, turning, leading))
    return law(cells, settings, cells["decoupled"] == 1) | {"norm": jnp.where(cells["decoupled"] == 1, jnp.nan, norm)}


def law(cells, settings, decoupled):
    """Step and angle under either decay."""
    beta, eta, e = cells["momentum"], settings["learning_rate"], settings["eta_lambda"]
    steps, angles = (
        jnp.where(decoupled, formula(eta, e / eta, beta, decoupled=True), formula(eta, e / eta, beta))
        for formula in (step_size_ratio, equilibrium_angle)
    )
    return {"step": steps**2 / (2 * e), "angle": angles / jnp.sqrt(2 * e)}


def leading_norm(cells, settings, sizes, **other):
    """The norm to leading order, for other statistics of the gradient if wished."""
    eta, e, c = settings["learning_rate"], settings["eta_lambda"], settings["gradient_norm"]

    def one(beta, rho):
        memory = other.get("autocorrelation", rho ** jnp.arange(1.0, LAGS + 1))
        return equilibrium_norm_momentum(eta, e / eta, c, other.get("momentum", beta), memory) ** 4

    return jax.vmap(one)(cells["momentum"], cells["correlation"]) * e / (eta * c) ** 2


def memoryless(name):
    """One output of the law, without momentum."""

    def wrong(cells, settings, sizes):
        still = {**cells, "momentum": jnp.zeros_like(cells["momentum"])}
        return law(still, settings, cells["decoupled"] == 1)[name]

    return wrong


def other_decay(name):
    """One output of the law, of the decay that the run does not have."""
    return lambda cells, settings, sizes: law(cells, settings, cells["decoupled"] == 0)[name]


def constant(cells, settings):
    """Where the norm does not fluctuate."""
    return (cells["momentum"] == 0) | (cells["correlation"] == 1)


def fluctuating(cells, settings):
    return ~constant(cells, settings)


def white(cells, settings):
    return cells["correlation"] == 0


def twins(name):
    return {"without momentum": memoryless(name), "of the other decay": other_decay(name)}


STEP = {"step": "mean squared step over mean squared norm", "angle": "angle of a step"}
LADDER = {
    "setting": "eta_lambda", "values": (0.2, 0.1, 0.05, 0.025), "order": 1, "replicates": 40,
    "settings": {"window": 60},
}  # fmt: skip

equilibrium = Experiment(
    name="equilibrium",
    title="Norm and angle per step of a scale-invariant weight in equilibrium",
    sources=SOURCES,
    axes={
        "momentum": Parameter([0.0, 0.5, 0.9], r"momentum $\beta$", domain=BELOW_ONE),
        "correlation": Parameter([0.0, 0.5, 0.9, 1.0], r"correlation of gradients $\rho$", domain=CORRELATION),
        "decoupled": Parameter([0, 1], "decoupled weight decay", domain=EITHER, role="static"),
    },
    settings={
        "eta_lambda": Setting(0.01, "learning rate times weight decay", domain=RATE),
        **SETTINGS,
        "burn_in": Setting(20.0, "steps before anything is measured, times eta lambda", domain=POSITIVE),
        "window": Setting(40.0, "steps over which is averaged, times eta lambda", domain=POSITIVE),
    },
    sizes=sizes,
    simulate=per_cell(one, one_by_one=True),
    predict=predict,
    outputs={
        "step": Output(r"squared step over squared norm, over $2\eta\lambda$"),
        "angle": Output(r"angle of a step, over $\sqrt{2\eta\lambda}$"),
        "norm": Output(r"$\|\theta\|^4$ over $\eta c^2/\lambda$"),
    },
    claims=(
        *(
            Mean(
                name, f"momentum and decay alone decide the {words}", where=fluctuating, floor=1e-12, rounding=30,
                twins=twins(name),
            )
            for name, words in STEP.items()
        ),
        *(
            Pathwise(
                name, f"where the norm is constant, the {words} is so in every run", where=constant, tolerance=1e-10,
                rounding=1e4, twins=twins(name),
            )
            for name, words in STEP.items()
        ),
        Pathwise(
            "norm", "without momentum, and of a gradient that turns with the weight, the norm is exact",
            where=constant, tolerance=1e-10, rounding=1e6,
            twins={
                "leading order": leading_norm,
                "of white noise": lambda *args: leading_norm(*args, autocorrelation="white"),
            },
        ),
        Order(
            "norm", "of white noise, the norm is that of leading order", where=white,
            axes={"momentum": [0.3, 0.5], "correlation": [0.0], "decoupled": [0]},
            twins={
                "of smooth gradients": lambda *args: leading_norm(*args, autocorrelation="smooth"),
                "without momentum": lambda *args: leading_norm(*args, momentum=0.0),
            },
            **LADDER,
        ),
        Order(
            "norm", "of correlated gradients, the norm is that of leading order",
            axes={"momentum": [0.3, 0.5], "correlation": [0.3, 0.6, 0.9], "decoupled": [0]},
            twins={
                "of white noise": lambda *args: leading_norm(*args, autocorrelation="white"),
                "of smooth gradients": lambda *args: leading_norm(*args, autocorrelation="smooth"),
            },
            **LADDER,
        ),
    ),
    presets={
        "smoke": {
            "momentum": [0.0, 0.9], "correlation": [0.0, 1.0], "eta_lambda": 0.03, "replicates": 6, "ladders": False,
        },
        "laptop": {"replicates": 20},
        "paper": {
            "momentum": [0.0, 0.3, 0.5, 0.7, 0.9, 0.95], "correlation": [0.0, 0.3, 0.6, 0.9, 0.99, 1.0],
            "eta_lambda": 1e-3, "dimension": 1000, "burn_in": 10.0, "window": 20.0, "replicates": 20,
        },
    },
)  # fmt: skip
