"""Exponents in the limit of small steps: shuffled epochs of a data set, against the SDE and the second order."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sims.engine.experiment import POSITIVE, Experiment, Order, Output, Parameter, Setting, per_cell, whole
from sims.minibatches import shuffled_epoch
from sims.stochastic_collapse.factors import log_size
from sims.stochastic_collapse.setup import SOURCE
from theory.stochastic_collapse import exponent_expansion, lyapunov_exponent


class Sizes(NamedTuple):
    """What a compilation depends on."""

    samples: int


def spread_evenly(key, samples: int):
    """Numbers of mean 0, mean square 1 and no skewness: every one comes with its opposite."""
    x = jax.random.normal(key, (samples // 2,))
    return jnp.concatenate([x, -x]) / jnp.sqrt(jnp.mean(x**2))


def epoch(key, eta, h):
    """Growth of ln |theta| per step over a shuffled epoch of single samples."""

    def step(x, i):
        return x + log_size(1 - eta * h[i]), None

    order = shuffled_epoch(key, len(h), 1)[:, 0]
    return jax.lax.scan(step, jnp.zeros(()), order)[0] / len(h)


def one(key, cell, settings, sizes):
    k_data, k_sde, k_fixed = jax.random.split(key, 3)
    eta, h, noise = settings["eta"], cell["mean_curvature"], cell["noise"]
    x = spread_evenly(k_data, sizes.samples)
    return {
        # The noise per unit time is fixed: the curvatures spread as eta^(-1/2).
        "per_time": epoch(k_sde, eta, h + noise / jnp.sqrt(eta) * x) / eta,
        "per_step": epoch(k_fixed, eta, h + noise * x),
    }


def predict(cells, settings, sizes):
    eta, h, noise = settings["eta"], cells["mean_curvature"], cells["noise"]
    return {"per_time": lyapunov_exponent(h, noise), "per_step": exponent_expansion(eta, h, noise)}


def by(formula):
    return lambda cells, settings, sizes: formula(settings["eta"], cells["mean_curvature"], cells["noise"])


def ladder(values):
    return {"setting": "eta", "values": values, "replicates": 20}


continuous_limit = Experiment(
    name="continuous_limit",
    title="From the exponent of discrete SGD to that of the SDE",
    sources=(SOURCE,),
    axes={
        "mean_curvature": Parameter([-0.6, -0.2, 0.4], r"mean curvature $\bar h$"),
        "noise": Parameter([0.5, 0.7, 1.0], r"noise amplitude $\zeta$, or spread $\sigma_h$", domain=POSITIVE),
    },
    settings={
        "eta": Setting(0.01, "learning rate", domain=POSITIVE),
        "samples": Setting(32, "samples of the data set", domain=whole(4)),
    },
    sizes=lambda settings: Sizes(settings["samples"]),
    simulate=per_cell(one),
    predict=predict,
    outputs={
        "per_time": Output(r"growth of $\ln|\theta|$ per unit time, at a fixed noise amplitude"),
        "per_step": Output(r"growth of $\ln|\theta|$ per step, at a fixed spread"),
    },
    claims=(
        Order(
            "per_time", "the exponent of the SDE holds to first order in the step size", order=1,
            **ladder((0.016, 0.008, 0.004, 0.002)),
            twins={
                "noise sqrt(D) dW": by(lambda eta, h, zeta: lyapunov_exponent(h, zeta / 2**0.5)),
                "Stratonovich noise": by(lambda eta, h, zeta: -h + 0 * zeta),
                "the mean square": by(lambda eta, h, zeta: -h + zeta**2 / 2),
            },
        ),
        Order(
            "per_step", "with the step of gradient descent it holds to third order", order=3,
            **ladder((0.04, 0.02, 0.01, 0.005)),
            twins={
                "the SDE": by(lambda eta, h, sigma: eta * lyapunov_exponent(h, jnp.sqrt(eta) * sigma)),
                "first order": by(lambda eta, h, sigma: -eta * h + 0 * sigma),
            },
        ),
    ),
    presets={
        "smoke": {"noise": [0.5, 1.0], "replicates": 4, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {"eta": 0.001, "samples": 1024, "replicates": 100},
    },
)  # fmt: skip
