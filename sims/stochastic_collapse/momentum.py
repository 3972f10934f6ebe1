"""Heavy ball on random curvatures: a product of 2 x 2 matrices, renormalised, against the expansion of its exponent."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

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
from sims.stochastic_collapse.setup import SOURCE
from theory.stochastic_collapse import discrete_exponent, effective_exponent, lyapunov_exponent, momentum_exponent


class Sizes(NamedTuple):
    """What a compilation depends on."""

    paths: int
    steps: int
    burn_in: int


def training(cells, settings):
    """(learning rate, mean curvature) at which the noise of a step is `strength` (1 - beta), for sigma_h = 1.

    The noise is e^2 sigma_h^2, with the effective rate e = eta / (1 - beta); the drift, -e h-bar, is a multiple of it.
    """
    beta = cells["beta"]
    e = jnp.sqrt(settings["strength"] * (1 - beta))
    return e * (1 - beta), -cells["drift"] * e


def heavy_ball(key, eta, beta, mean, sizes: Sizes):
    """Growth of ln |q| per step after the burn-in, q = z + beta p / (1 - beta), and what has mean zero in it.

    Both of shape (paths,). q moves by -e h z alone, h independent of all that went before. So the odd powers of the
    noise in e h z / q have mean zero, the second less its mean, and the noise to which z / q responds later.
    """
    e = eta / (1 - beta)
    lag, drift = beta / (1 - beta), e * mean

    def step(state, k):
        z, p, growth, zero = state
        noise = jax.random.normal(jax.random.fold_in(key, k), (sizes.paths,))
        share = z / (z + lag * p)
        x = e * noise * share
        later = -(drift + e**2) * lag * e * noise
        unbiased = -x - (x**2 - (e * share) ** 2) / 2 - x**3 / 3 + later

        p = beta * p - eta * (mean + noise) * z
        z = z + p
        size = jnp.abs(z + lag * p)
        here = (k >= sizes.burn_in).astype(z.dtype)
        return (z / size, p / size, growth + here * jnp.log(size), zero + here * unbiased), None

    begin = jnp.ones(sizes.paths), *(jnp.zeros(sizes.paths) for _ in range(3))
    (_, _, growth, zero), _ = jax.lax.scan(step, begin, jnp.arange(sizes.burn_in + sizes.steps))
    return growth / sizes.steps, zero / sizes.steps


def one(key, cell, settings, sizes):
    eta, mean = training(cell, settings)
    growth, zero = heavy_ball(key, eta, cell["beta"], mean, sizes)
    noise = settings["strength"] * (1 - cell["beta"])
    return {"exponent": jnp.mean(growth) / noise, "controlled": jnp.mean(growth - zero) / noise}


def per_noise(formula):
    """A formula of (eta, beta, mean curvature), over the noise of a step."""

    def exponent(cells, settings, sizes):
        eta, mean = training(cells, settings)
        return formula(eta, cells["beta"], mean) / (settings["strength"] * (1 - cells["beta"]))

    return exponent


def predict(cells, settings, sizes):
    exponent = per_noise(lambda eta, beta, h: momentum_exponent(eta, beta, h, 1.0))(cells, settings, sizes)
    return {"exponent": exponent, "controlled": exponent}


TWINS = {
    "the leading order alone": per_noise(lambda eta, beta, h: effective_exponent(eta, beta, h, 1.0)),
    "eta for eta / (1 - beta)": per_noise(lambda eta, beta, h: eta * lyapunov_exponent(h, jnp.sqrt(eta))),
    "plain SGD at eta / (1 - beta)": per_noise(lambda eta, beta, h: discrete_exponent(eta / (1 - beta), h, 1.0)),
}

momentum = Experiment(
    name="momentum",
    title="Heavy ball collapses at the effective learning rate, and how much that is off",
    sources=(SOURCE,),
    axes={
        "beta": Parameter([0.0, 0.5, 0.9], r"momentum $\beta$", domain=BELOW_ONE),
        "drift": Parameter([-1.0, -0.3, 0.3, 1.0], r"drift over noise $-\bar hB/e\sigma_h^2$"),
    },
    settings={
        "strength": Setting(0.008, "noise of a step e^2 sigma_h^2 / B, over 1 - beta", domain=POSITIVE),
        "paths": Setting(64, "paths of a replicate", domain=whole(1)),
        "steps": Setting(20_000, "steps of SGD that count", domain=whole(1)),
        "burn_in": Setting(200, "steps before them", domain=whole(0)),
    },
    sizes=lambda settings: Sizes(*(settings[name] for name in Sizes._fields)),
    theory_sizes=lambda sizes: (),
    simulate=per_cell(one),
    predict=predict,
    outputs={
        "exponent": Output(r"growth of $\ln|\theta|$ per step, over the noise $e^2\sigma_h^2/B$"),
        "controlled": Output("the same less terms of mean zero"),
    },
    claims=(
        Mean("exponent", "heavy ball grows at the expansion to second order", twins=TWINS),
        Order(
            "controlled", "what the expansion leaves out is of third order, over the noise of second", order=2,
            setting="strength", values=(0.008, 0.004, 0.002, 0.001), replicates=20, axes={"drift": [-1.0, -0.3]},
            settings={"steps": 10_000}, twins=TWINS,
        ),
    ),
    presets={
        "smoke": {"drift": [-1.0, 1.0], "steps": 500, "replicates": 4, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {
            "beta": [0.0, 0.5, 0.8, 0.9, 0.95], "paths": 1024, "steps": 50_000, "burn_in": 1000, "replicates": 50,
        },
    },
)  # fmt: skip
