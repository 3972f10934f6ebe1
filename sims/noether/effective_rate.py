"""What sets the effective learning rate of a scale-invariant weight: the memory of its start, or equilibrium."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sims.engine.experiment import POSITIVE, Experiment, Order, Output, Parameter, Setting, per_cell
from sims.noether.setup import SOURCES, optimizer
from sims.noether.synthetic import RATE, SETTINGS, gaussian_lengths, squares, start, train
from theory.arguments import require
from theory.noether import effective_learning_rate, equilibrium_norm, norm_relaxation


class Sizes(NamedTuple):
    """What a compilation depends on."""

    dimension: int
    steps: int


def to_steps(values, settings):
    """Whole numbers of steps."""
    return np.maximum(1, np.round(values / settings["eta_lambda"])) * settings["eta_lambda"]


def validate(values, settings):
    longest, x = settings["longest"], values["eta_lambda_steps"]
    require(x <= longest * (1 + 1e-9), "eta_lambda_steps", f"at most `longest` = {longest:g}", x)


def one(key, cell, settings, sizes):
    k_start, k_run, k_length = jax.random.split(key, 3)
    eta, e, c = settings["learning_rate"], settings["eta_lambda"], settings["gradient_norm"]
    u, n = start(k_start, sizes.dimension)
    lengths = gaussian_lengths(k_length, c, sizes.dimension, sizes.steps)
    theta = jnp.sqrt(cell["ratio"]) * equilibrium_norm(eta, e / eta, c) * u
    _, run = train(k_run, theta, n, optimizer("SGD", eta, 0.0, e / eta), lengths, 0.0, sizes.steps)
    last = jnp.round(cell["eta_lambda_steps"] / e).astype(jnp.int32)
    return {"rate": over_equilibrium(squares(run)[last], eta, e, c)}


def over_equilibrium(square, eta, e, c):
    """Effective learning rate, in units of that in equilibrium."""
    still = equilibrium_norm(eta, e / eta, c) ** 2
    return effective_learning_rate(eta, square) / effective_learning_rate(eta, still)


def predicted(cells, settings, slower=1.0, decay=1.0):
    eta, e, c = settings["learning_rate"], settings["eta_lambda"], settings["gradient_norm"]
    weight_decay = e / eta
    r0 = cells["ratio"] * equilibrium_norm(eta, weight_decay, c) ** 2
    t = cells["eta_lambda_steps"] / weight_decay / slower
    return over_equilibrium(norm_relaxation(t, r0, eta, decay * weight_decay, c), eta, e, c)


effective_rate = Experiment(
    name="effective_rate",
    title="Effective learning rate of a scale-invariant weight: memory of its start or equilibrium",
    sources=SOURCES,
    axes={
        "eta_lambda_steps": Parameter(
            np.geomspace(0.01, 2.0, 12), r"decay of all steps $\eta\lambda k$", scale="log",
            domain=POSITIVE, snap=to_steps,
        ),
        "ratio": Parameter(
            np.geomspace(0.1, 10, 9), "squared norm at the start, over equilibrium", scale="log", domain=POSITIVE
        ),
    },
    settings={
        "eta_lambda": Setting(0.005, "learning rate times weight decay", domain=RATE),
        **SETTINGS,
        "longest": Setting(2.0, "most steps, times eta lambda", domain=POSITIVE),
    },
    sizes=lambda s: Sizes(s["dimension"], round(s["longest"] / s["eta_lambda"])),
    simulate=per_cell(one, one_by_one=True),
    predict=lambda cells, settings, sizes: {"rate": predicted(cells, settings)},
    validate=validate,
    outputs={"rate": Output("effective learning rate over equilibrium")},
    claims=(
        Order(
            "rate", "the effective rate goes from the memory of the start to equilibrium, up to the step size",
            setting="eta_lambda", values=(0.02, 0.01, 0.005, 0.0025), order=1, replicates=100,
            axes={"eta_lambda_steps": [0.1, 0.3, 0.6], "ratio": [0.5, 2.0, 4.0]},
            settings={"longest": 0.6, "dimension": 512},
            twins={
                "equilibrium from the start": lambda cells, *_: jnp.ones_like(cells["ratio"]),
                "at half the rate": lambda cells, settings, _: predicted(cells, settings, slower=2.0),
                "without decay": lambda cells, settings, _: predicted(cells, settings, decay=0.0),
            },
        ),
    ),
    presets={
        "smoke": {
            "eta_lambda_steps": [0.1, 1.0], "ratio": [0.5, 2.0], "eta_lambda": 0.02, "longest": 1.0, "replicates": 4,
            "ladders": False,
        },
        "laptop": {"replicates": 20},
        "paper": {
            "eta_lambda_steps": np.geomspace(1e-3, 5, 24), "ratio": np.geomspace(0.05, 20, 17), "eta_lambda": 1e-3,
            "longest": 5.0, "dimension": 512, "replicates": 20,
        },
    },
)  # fmt: skip
