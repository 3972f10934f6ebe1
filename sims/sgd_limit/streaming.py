"""SGD with momentum on fresh Gaussian samples: stationary variances where the noise depends on the state."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sims.engine.experiment import (
    BELOW_ONE,
    NONNEGATIVE,
    POSITIVE,
    Experiment,
    Mean,
    Output,
    Parameter,
    Setting,
    per_cell,
    whole,
)
from sims.sgd_limit.heavy_ball import half_squares, heavy_ball, power_law
from sims.sgd_limit.setup import SOURCE
from theory.sgd_limit import phase_space_covariance, streaming_stationary


class Sizes(NamedTuple):
    """What a compilation depends on."""

    d: int
    batch: int
    paths: int
    burn_in: int
    steps: int


def sizes(settings) -> Sizes:
    return Sizes(*(int(settings[name]) for name in Sizes._fields))


def one(key, cell, settings, sizes):
    k_optimum, k_samples = jax.random.split(key)
    spectrum, eta = power_law(sizes.d, settings["alpha"]), cell["effective_rate"] * (1 - cell["beta"])
    optimum = jax.random.normal(k_optimum, (sizes.d,))

    def step(carry, k):
        theta, w, squares = carry
        k_u, k_noise = jax.random.split(jax.random.fold_in(k_samples, k))
        u = jax.random.normal(k_u, (sizes.paths, sizes.batch, sizes.d)) * jnp.sqrt(spectrum)[None, None, :]
        y = u @ optimum + cell["sigma"] * jax.random.normal(k_noise, (sizes.paths, sizes.batch))
        theta, w = heavy_ball(theta, w, jax.vmap(jax.grad(half_squares))(theta, u, y), eta, cell["beta"])
        measured = jnp.mean((theta - optimum[None, :]) ** 2, 0)
        return (theta, w, squares + jnp.where(k < sizes.burn_in, 0.0, measured)), None

    start = jnp.tile(optimum[None, :], (sizes.paths, 1))
    carry = (start, jnp.zeros_like(start), jnp.zeros_like(optimum))
    (_, _, squares), _ = jax.lax.scan(step, carry, jnp.arange(sizes.burn_in + sizes.steps, dtype=jnp.int32))
    variance = squares / sizes.steps
    return {"variance": variance, "excess_risk": jnp.sum(spectrum * variance) / 2}


def law(cells, settings, sizes, eta, beta):
    """Variances and risk at another learning rate and momentum."""
    spectrum = power_law(sizes.d, settings["alpha"])
    return streaming_stationary(spectrum, eta, beta, float(sizes.batch), cells["sigma"])._asdict()


def predict(cells, settings, sizes):
    return law(cells, settings, sizes, cells["effective_rate"] * (1 - cells["beta"]), cells["beta"])


def additive(cells, settings, sizes):
    """Variances under the noise of the optimum, whatever the state."""
    spectrum = power_law(sizes.d, settings["alpha"])
    eta = cells["effective_rate"] * (1 - cells["beta"])
    numbers = (x[:, None] for x in (eta, cells["beta"], jnp.full_like(eta, sizes.batch)))
    law = phase_space_covariance(spectrum[None, :], *numbers, 0.0, cells["sigma"][:, None])
    return {"variance": law.position, "excess_risk": jnp.sum(spectrum[None, :] * law.position, 1) / 2}


def without_risk(cells, settings, sizes):
    """Variances g sigma^2: every mode feeds itself, but not the others."""
    risk = predict(cells, settings, sizes)
    share = cells["sigma"] ** 2 / (cells["sigma"] ** 2 + 2 * risk["excess_risk"])
    return {"variance": risk["variance"] * share[:, None], "excess_risk": risk["excess_risk"] * share}


def plain(cells, settings, sizes):
    """SGD without momentum at the learning rate eta / (1 - beta)."""
    return law(cells, settings, sizes, cells["effective_rate"], jnp.zeros_like(cells["beta"]))


def twins(output):
    """The wrong laws of one output."""
    forms = {"noise of the optimum": additive, "no feedback": without_risk, "SGD at eta / (1 - beta)": plain}
    return {name: lambda *a, form=form: form(*a)[output] for name, form in forms.items()}


streaming = Experiment(
    name="streaming",
    title="SGD on fresh samples: noise that depends on the state",
    sources=(SOURCE,),
    axes={
        "effective_rate": Parameter([0.2, 0.6], r"effective rate $\eta/(1-\beta)$", scale="log", domain=POSITIVE),
        "beta": Parameter([0.0, 0.5, 0.8], r"momentum $\beta$", domain=BELOW_ONE),
        "batch": Parameter([4, 16], r"batch $S$", scale="log", domain=whole(1), role="static"),
    },
    fixed={"sigma": Parameter(1.0, r"label noise $\sigma$", domain=POSITIVE)},
    settings={
        "d": Setting(6, "dimension of the inputs", domain=whole(1)),
        "alpha": Setting(1.0, "exponent of the spectrum l^-alpha", domain=NONNEGATIVE),
        "paths": Setting(64, "paths averaged in a replicate", domain=whole(1)),
        "burn_in": Setting(400, "steps before anything is measured", domain=whole(1)),
        "steps": Setting(400, "steps over which is averaged", domain=whole(1)),
    },
    sizes=sizes,
    simulate=per_cell(one, one_by_one=True),
    predict=predict,
    outputs={
        "variance": Output(r"variance $\mathrm{Var}\,x_l$", dims={"mode": lambda s: np.arange(1, s["d"] + 1)}),
        "excess_risk": Output("excess risk"),
    },
    claims=(
        Mean("variance", "the noise of the samples feeds on the motion it causes", twins=twins("variance")),
        Mean("excess_risk", "the excess risk is sigma^2 K / 2(1 - K)", twins=twins("excess_risk")),
    ),
    presets={
        "smoke": {
            "effective_rate": [0.6], "beta": [0.0, 0.8], "batch": [4], "d": 3, "paths": 16, "burn_in": 60, "steps": 100,
            "replicates": 4,
        },
        "laptop": {"replicates": 20},
        "paper": {
            "effective_rate": [0.05, 0.1, 0.2, 0.4], "beta": [0.0, 0.5, 0.9, 0.99], "batch": [8, 64], "d": 20,
            "paths": 256, "burn_in": 4000, "steps": 4000, "replicates": 50,
        },
    },
)  # fmt: skip
