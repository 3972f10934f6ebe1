"""Anomalous diffusion: displacements over a power-law spectrum, with the average over the gradient noise taken exactly.

Heavy ball on a quadratic loss is linear. A run with gradient noise at its first step alone tells how far the noise of
every earlier step has moved it by now; independent noise adds the squares.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sims.engine.experiment import BELOW_ONE, POSITIVE, Experiment, Order, Output, Parameter, Setting, per_cell, whole
from sims.sgd_limit.displacement import ABOVE_ONE
from sims.sgd_limit.heavy_ball import heavy_ball, power_law
from sims.sgd_limit.setup import SOURCE
from theory.sgd_limit import power_law_displacement


class Sizes(NamedTuple):
    """What a compilation depends on."""

    d: int


def mean_displacement(spectrum, eta, beta, batch, lag):
    """E |theta_k - theta_0|^2 from the minimum, at rest, after `lag` steps; exact over the noise."""

    def step(_, state):
        x, w, squares = state
        x, w = heavy_ball(x, w, spectrum * x, eta, beta)
        return x, w, squares + x**2

    noise = jnp.sqrt(spectrum / batch)
    first, w = heavy_ball(jnp.zeros_like(spectrum), jnp.zeros_like(spectrum), noise, eta, beta)
    return jnp.sum(jax.lax.fori_loop(jnp.int32(1), lag, step, (first, w, first**2))[2])


def one(key, cell, settings, sizes):
    moved = mean_displacement(
        power_law(sizes.d, cell["alpha"]), cell["eta"], cell["beta"], cell["batch"], settings["lag"]
    )

    def law(beta=cell["beta"], **how):
        k = settings["lag"].astype(moved.dtype)
        each = (k, cell["eta"], beta, 1.0, cell["alpha"], cell["batch"])
        return power_law_displacement(*each, from_minimum=True, **how)

    # Over the theory, so that an error is a relative one.
    leading, corrected = law(), law(corrected=True)
    stationary = 2 ** (1 - 1 / cell["alpha"]) * leading
    return {
        "leading": moved / leading,
        "leading_theory": jnp.ones_like(moved),
        "leading_stationary": stationary / leading,
        "leading_without_momentum": law(jnp.zeros_like(cell["beta"])) / leading,
        "corrected": moved / corrected,
        "corrected_theory": jnp.ones_like(moved),
        "corrected_uncorrected": leading / corrected,
    }


LADDER = {
    "setting": "lag", "values": (500, 1000, 2000, 4000), "replicates": 4,
    "axes": {"alpha": [3.0], "beta": [0.0, 0.5], "eta": [0.1]}, "settings": {"d": 4000},
}  # fmt: skip

anomalous = Experiment(
    name="anomalous",
    title="Anomalous diffusion over a power-law spectrum",
    sources=(SOURCE,),
    axes={
        "alpha": Parameter([2.0, 2.5, 3.0, 4.0], r"exponent of the spectrum $\alpha$", domain=ABOVE_ONE),
        "beta": Parameter([0.0, 0.5, 0.8], r"momentum $\beta$", domain=BELOW_ONE),
    },
    fixed={
        "eta": Parameter(0.1, r"learning rate $\eta$", domain=POSITIVE),
        "batch": Parameter(1, r"batch $S$", domain=whole(1)),
    },
    settings={
        "lag": Setting(2000, "steps after which the displacement is measured", domain=whole(1)),
        "d": Setting(4000, "modes of curvature l^-alpha", domain=whole(1)),
    },
    sizes=lambda settings: Sizes(settings["d"]),
    simulate=per_cell(one, one_by_one=True),
    predict=lambda cells, settings, sizes: {},
    outputs={
        "leading": Output(r"displacement over its power law $\propto k^{1/\alpha}$"),
        "corrected": Output("displacement over the power law with its constant"),
    },
    claims=(
        Order(
            "leading", "the power law of exponent 1 / alpha holds to relative order k^(-1 / alpha)", order=-1 / 3,
            **LADDER,
            twins={"stationary start": "leading_stationary", "no momentum": "leading_without_momentum"},
        ),
        Order(
            "corrected", "with its constant it holds to relative order 1 / k", order=-1, **LADDER,
            twins={"without the constant": "corrected_uncorrected"},
        ),
    ),
    presets={
        "smoke": {"alpha": [3.0], "beta": [0.0, 0.5], "lag": 100, "d": 200, "replicates": 2, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {"beta": [0.0, 0.5, 0.9, 0.99], "lag": 100_000, "d": 20_000, "replicates": 20},
    },
)  # fmt: skip
