"""Where SGD with momentum on fresh samples is stable: growth of the excess risk without label noise."""

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
    Output,
    Parameter,
    Phase,
    Setting,
    per_cell,
    whole,
)
from sims.sgd_limit.heavy_ball import half_squares, heavy_ball, power_law
from sims.sgd_limit.setup import SOURCE
from theory.sgd_limit import streaming_feedback, streaming_is_stable

BAND = 1.25  # ratio of K to its critical value, 1, inside which few paths decide a mean


class Sizes(NamedTuple):
    """What a compilation depends on."""

    d: int
    batch: int
    paths: int
    steps: int


def sizes(settings) -> Sizes:
    return Sizes(*(int(settings[name]) for name in Sizes._fields))


def one(key, cell, settings, sizes):
    k_start, k_samples = jax.random.split(key)
    spectrum = power_law(sizes.d, settings["alpha"])

    def step(carry, k):
        x, w, log_risk = carry
        u = jax.random.normal(jax.random.fold_in(k_samples, k), (sizes.paths, sizes.batch, sizes.d))
        u = u * jnp.sqrt(spectrum)[None, None, :]
        gradient = jax.vmap(jax.grad(half_squares))(x, u, jnp.zeros((sizes.paths, sizes.batch)))
        x, w = heavy_ball(x, w, gradient, cell["eta"], cell["beta"])
        # All paths in one unit, which follows their mean risk, so that nothing over- or underflows.
        risk = jnp.mean(jnp.sum(spectrum[None, :] * x**2, 1))
        log_risk = log_risk + jnp.log(risk)
        return (x / jnp.sqrt(risk), w / jnp.sqrt(risk), log_risk), log_risk

    x = jax.random.normal(k_start, (sizes.paths, sizes.d))
    steps = jnp.arange(sizes.steps, dtype=jnp.int32)
    path = jax.lax.scan(step, (x, jnp.zeros_like(x), jnp.zeros(())), steps)[1]
    half = sizes.steps // 2
    return {"growth": (path[-1] - path[half - 1]) / (sizes.steps - half)}


def sign(stable):
    return {"growth": jnp.where(stable, -1.0, 1.0)}


def predict(cells, settings, sizes):
    spectrum = power_law(sizes.d, settings["alpha"])
    return sign(streaming_is_stable(spectrum, cells["eta"], cells["beta"], float(sizes.batch)))


def deterministic(cells, settings, sizes):
    """Stable wherever gradient descent is."""
    return sign(cells["eta"] < 2 * (1 + cells["beta"]))["growth"]


def plain(cells, settings, sizes):
    """SGD without momentum at the same learning rate."""
    return predict({**cells, "beta": jnp.zeros_like(cells["beta"])}, settings, sizes)["growth"]


def outside_band(cells, settings):
    spectrum = np.arange(1, settings["d"] + 1.0) ** -settings["alpha"]
    K = np.asarray(streaming_feedback(spectrum, cells["eta"], cells["beta"], settings["batch"]))
    return (K > BAND) | (K < 1 / BAND)


streaming_stability = Experiment(
    name="streaming_stability",
    title="Mean-square stability of SGD on fresh samples",
    sources=(SOURCE,),
    axes={
        "beta": Parameter(np.linspace(0, 0.9, 10), r"momentum $\beta$", domain=BELOW_ONE),
        "eta": Parameter(np.geomspace(0.1, 4, 12), r"learning rate $\eta$", scale="log", domain=POSITIVE),
    },
    settings={
        "d": Setting(32, "dimension of the inputs", domain=whole(1)),
        "alpha": Setting(0.5, "exponent of the spectrum l^-alpha", domain=NONNEGATIVE),
        "batch": Setting(8, "samples of a step", domain=whole(1)),
        "paths": Setting(16, "paths averaged in a replicate", domain=whole(1)),
        "steps": Setting(80, "steps of training", domain=whole(2)),
    },
    sizes=sizes,
    simulate=per_cell(one, one_by_one=True),
    predict=predict,
    outputs={"growth": Output("growth of the log excess risk a step")},
    claims=(
        Phase(
            "growth", "the excess risk grows where the second moments do", where=outside_band,
            twins={"stable up to 2 (1 + beta)": deterministic, "stable as without momentum": plain},
        ),
    ),
    presets={
        "smoke": {
            "beta": [0.0, 0.45, 0.9], "eta": [0.05, 0.4, 2.0], "d": 8, "paths": 8, "steps": 40, "replicates": 4,
        },
        "laptop": {"replicates": 20},
        "paper": {
            "beta": np.linspace(0, 0.98, 40), "eta": np.geomspace(0.02, 5, 60), "d": 256, "batch": 32, "paths": 64,
            "steps": 1000, "replicates": 20,
        },
    },
)  # fmt: skip
