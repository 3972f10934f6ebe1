"""How the norm of a scale-invariant weight relaxes: from any start, and after a change of the learning rate."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sims.engine.experiment import POSITIVE, Experiment, Order, Output, Parameter, Pathwise, Setting, per_cell
from sims.noether.equilibrium import CORRELATION
from sims.noether.setup import SOURCES, optimizer
from sims.noether.synthetic import RATE, SETTINGS, squares, start, train
from theory.noether import angle_after_drop, norm_relaxation, squared_norm_sgd

TIMES = (0.08, 0.16, 0.32, 0.64, 1.28)  # eta lambda k
LATE = 0.04
SPREAD = 0.5  # of the lengths of the gradients
LADDER = {"setting": "eta_lambda", "values": (0.02, 0.01, 0.005, 0.0025), "order": 1, "replicates": 20}


class Sizes(NamedTuple):
    """What a compilation depends on; moments and `late` count steps."""

    dimension: int
    burn_in: int
    moments: tuple[int, ...]
    late: int

    @property
    def steps(self) -> int:
        return self.moments[-1] + self.late


def sizes(settings):
    e = settings["eta_lambda"]
    moments = (max(1, round(time / e)) for time in TIMES)
    return Sizes(settings["dimension"], math.ceil(settings.get("burn_in", 0.0) / e), (*moments,), round(LATE / e))


def moments(key, sizes: Sizes):
    """Steps at which to look, a little later in each replicate, for nothing else in them is random."""
    first = jnp.array(sizes.moments, jnp.int32)
    return first + jax.random.randint(key, first.shape, 0, sizes.late + 1, jnp.int32)


def relaxing(key, cell, settings, sizes):
    k_start, k_run, k_free, k_random, k_length, k_moments = jax.random.split(key, 6)
    eta, e, c = settings["learning_rate"], settings["eta_lambda"], settings["gradient_norm"]
    size, at = eta * c / jnp.sqrt(2 * e), moments(k_moments, sizes)
    r0 = cell["ratio"] * size
    u, n = start(k_start, sizes.dimension)
    decayed, free = (optimizer("SGD", eta, 0.0, decay) for decay in (e / eta, 0.0))

    def path(key, rule, length):
        return squares(train(key, jnp.sqrt(r0) * u, n, rule, length, settings["correlation"], sizes.steps)[1])

    lengths = c * (1 + SPREAD * jax.random.uniform(k_length, (sizes.steps,), minval=-1.0, maxval=1.0))
    t = eta * at.astype(float)
    exact = squared_norm_sgd(r0, lengths**2, eta, e / eta)
    average = jnp.full_like(lengths, jnp.mean(lengths**2))
    return {
        "norm": path(k_run, decayed, c)[at] / size,
        "norm_theory": norm_relaxation(t, r0, eta, e / eta, c) / size,
        "norm_half_the_rate": norm_relaxation(t / 2, r0, eta, e / eta, c) / size,
        "norm_without_decay": norm_relaxation(t, r0, eta, 0.0, c) / size,
        "growth": path(k_free, free, c)[at] / r0,
        "growth_theory": norm_relaxation(t, r0, eta, 0.0, c) / r0,
        "growth_linear": 1 + eta * c**2 * t / r0**2,
        "recursion": path(k_random, decayed, lengths)[at] / size,
        "recursion_theory": exact[at] / size,
        "recursion_constant": squared_norm_sgd(r0, average, eta, e / eta)[at] / size,
        "recursion_twice_decayed": squared_norm_sgd(r0, lengths**2, eta, 2 * e / eta)[at] / size,
    }


relaxation = Experiment(
    name="relaxation",
    title="Norm of a scale-invariant weight on its way to equilibrium",
    sources=SOURCES,
    axes={
        "ratio": Parameter(
            [0.25, 0.5, 1.0, 2.0, 4.0], "squared norm at the start, over equilibrium", scale="log", domain=POSITIVE
        )
    },
    settings={
        "eta_lambda": Setting(0.01, "learning rate times weight decay", domain=RATE),
        **SETTINGS,
        "correlation": Setting(0.5, "correlation of successive gradients", domain=CORRELATION),
    },
    sizes=sizes,
    simulate=per_cell(relaxing, one_by_one=True),
    predict=lambda cells, settings, sizes: {},
    outputs={
        "norm": Output("squared norm over equilibrium", dims={"eta_lambda_steps": TIMES}),
        "growth": Output("squared norm without decay, over its start", dims={"eta_lambda_steps": TIMES}),
        "recursion": Output(
            "squared norm over equilibrium, gradients of random length", dims={"eta_lambda_steps": TIMES}
        ),
    },
    claims=(
        Order(
            "norm", "the fourth power of the norm relaxes at the rate 4 lambda, up to the step size",
            twins={"at half the rate": "norm_half_the_rate", "without decay": "norm_without_decay"}, **LADDER,
        ),
        Order(
            "growth", "without decay the fourth power of the norm grows in proportion to time, up to the step size",
            twins={"the squared norm itself": "growth_linear"}, **LADDER,
        ),
        Pathwise(
            "recursion", "the norm follows its recursion, whatever the lengths of the gradients",
            tolerance=1e-12, rounding=1e3,
            twins={"of their mean square": "recursion_constant", "twice the decay": "recursion_twice_decayed"},
        ),
    ),
    presets={
        "smoke": {"ratio": [0.25, 4.0], "eta_lambda": 0.02, "replicates": 4, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {"eta_lambda": 1e-4, "dimension": 1000, "replicates": 20},
    },
)  # fmt: skip


# ---- a change of the learning rate in equilibrium


def changing(key, cell, settings, sizes):
    k_start, k_before, k_after, k_moments = jax.random.split(key, 4)
    eta, e, c, rho = (settings[name] for name in ("learning_rate", "eta_lambda", "gradient_norm", "correlation"))
    later = cell["change"] * eta
    before, after = (optimizer("SGD", rate, 0.0, e / eta) for rate in (eta, later))
    theta, n = start(k_start, sizes.dimension)
    (theta, n, _), _ = train(k_before, theta, n, before, c, rho, sizes.burn_in)
    _, run = train(k_after, theta, n, after, c, rho, sizes.steps + 1)
    at = jnp.concatenate([jnp.zeros(1, jnp.int32), moments(k_moments, sizes)])
    steps = at.astype(float)
    unit = jnp.sqrt(2 * e)
    predicted = angle_after_drop(steps, eta, later, e / eta) / unit
    return {
        "angle": run.angle[at] / unit,
        "angle_theory": predicted,
        "angle_without_jump": jnp.sqrt(cell["change"]) * jnp.ones_like(predicted),
        "angle_half_the_rate": angle_after_drop(steps / 2, eta, later, e / eta) / unit,
    }


rate_change = Experiment(
    name="rate_change",
    title="Angle per step of a scale-invariant weight after a change of the learning rate",
    sources=SOURCES,
    axes={
        "change": Parameter(
            [0.1, 0.3, 3.0], "learning rate after the change, over before", scale="log", domain=POSITIVE
        )
    },
    settings={
        **relaxation.settings,
        "burn_in": Setting(10.0, "steps before the change, times eta lambda", domain=POSITIVE),
    },
    sizes=sizes,
    simulate=per_cell(changing, one_by_one=True),
    predict=lambda cells, settings, sizes: {},
    outputs={"angle": Output(r"angle of a step, over $\sqrt{2\eta\lambda}$", dims={"eta_lambda_steps": (0.0, *TIMES)})},
    claims=(
        Order(
            "angle", "the angle jumps with the rate and relaxes to its new equilibrium, up to the step size",
            twins={"of equilibrium at once": "angle_without_jump", "at half the rate": "angle_half_the_rate"},
            # A jump to three times the angle makes its square, which must be small, nine times as large.
            **LADDER | {"values": (1.2e-3, 6e-4, 3e-4, 1.5e-4), "settings": {"burn_in": 5.0}},
        ),
    ),
    presets={
        "smoke": {"change": [0.1, 3.0], "eta_lambda": 0.02, "replicates": 4, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {"change": [0.01, 0.1, 0.3, 3.0, 10.0], "eta_lambda": 1e-4, "dimension": 1000, "replicates": 20},
    },
)  # fmt: skip
