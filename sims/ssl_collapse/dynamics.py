"""Modes that switch on one after another: gradient descent in full matrices on the exact losses of all data.

The spectral loss is quartic; distance-InfoNCE is not. Modes are learned in the order of b, and end in that of beta.
"""

from __future__ import annotations

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
    Rank,
    Setting,
    per_cell,
)
from sims.ssl_collapse.population import (
    descent_path,
    first_crossings,
    orthogonal,
    spectral,
    squares,
    steps_at,
    with_spectrum,
)
from sims.ssl_collapse.setup import SOURCE
from theory.ssl_collapse import (
    half_time,
    infonce_loss,
    infonce_mode_trajectory,
    mode_trajectory,
)

A = (1.2, 1.0, 0.8, 0.6, 0.45, 0.3)
RHO = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # the faster a mode, the weaker in the end
M = 8
TIMES = (
    *(
        0.1,
        0.16,
        0.2,
        0.26,
        0.3,
        0.36,
        0.4,
        0.46,
        0.5,
        0.56,
        0.6,
        0.7,
        0.8,
        0.9,
        1.0,
        1.2,
        1.4,
        1.6,
        1.8,
        2.0,
        2.4,
        2.8,
    ),
    *(3.2, 3.6, 4.0, 4.6, 5.2, 6.0, 7.0, 8.0, 10.0, 12.0),
)
LONGEST = 24.0  # until which the half-times of slow modes are waited for
ALPHA, TEMPERATURE = 1.3, 0.8


class Modes(NamedTuple):
    """Variances of clean inputs, of the augmentation and of the views, each of shape (d,)."""

    a: jax.Array
    c: jax.Array
    sigma: jax.Array


def modes(dtype=float) -> Modes:
    a, rho = jnp.array(A, dtype), jnp.array(RHO, dtype)
    return Modes(a, a / rho - a, a / rho)


def one(key, cell, settings, sizes):
    decay, rate = cell["weight_decay"], settings["rate"]
    a, c, sigma = modes()
    keys = jax.random.split(key, 3)
    V = orthogonal(keys[0], len(A), len(A))
    A0, C, Sigma = (with_spectrum(V, x) for x in (a, c, sigma))
    y0 = settings["start"] * jnp.exp(jax.random.normal(keys[1], a.shape))
    W = orthogonal(keys[2], M, len(A)) @ (V * jnp.sqrt(y0)[None, :]).T
    counts = steps_at(TIMES, rate)
    t = (counts.astype(a.dtype) * rate)[None, :]

    def observe(W):
        return squares(W, V)

    def descend(loss):
        def step(W, _):
            return W - rate * jax.grad(loss)(W)

        return step

    on_spectral = descend(lambda W: spectral(W, A0, Sigma, decay))
    on_infonce = descend(lambda W: infonce_loss(W, A0, C, TEMPERATURE, ALPHA, decay))
    b = 2 * a - decay
    columns = [x[:, None] for x in (b, sigma, jnp.ones_like(b), y0)]
    logistic = mode_trajectory(t, *columns)
    b_infonce = (a - (ALPHA - 1) * c) / TEMPERATURE - decay

    def infonce_theory(alpha):
        start = (a[:, None], c[:, None], y0[:, None])
        return infonce_mode_trajectory(t, *start, TEMPERATURE, alpha, decay)

    final = jnp.where(b > 0, b, 1.0) / (2 * sigma**2)
    levels = jnp.where(b > 0, final / 2, jnp.inf)
    reached = first_crossings(on_spectral, observe, W, sizes, levels, rate)
    of = {"spectral": sigma[:, None], "infonce": sigma[:, None] / TEMPERATURE}
    strengths = {
        "spectral": descent_path(on_spectral, W, counts, observe).T,
        "spectral_theory": logistic,
        "spectral_without_sigma": mode_trajectory(t, columns[0], 1.0, 1.0, columns[3]),
        "spectral_at_half_the_rate": mode_trajectory(t / 2, *columns),
        "spectral_by_beta": mode_trajectory(t, columns[0] / columns[1], *columns[1:]),
        "infonce": descent_path(on_infonce, W, counts, observe).T,
        "infonce_theory": infonce_theory(ALPHA),
        "infonce_quartic": mode_trajectory(t, b_infonce[:, None], columns[1], 0.75 / TEMPERATURE**2, columns[3]),
        "infonce_of_alpha_one": infonce_theory(1.0),
    }
    return {name: of[name.split("_")[0]] * y for name, y in strengths.items()} | {
        "half_time": reached,
        "half_time_theory": half_time(b, sigma, 1.0, y0),
        "half_time_by_beta": half_time(b / sigma, sigma, 1.0, y0),
        "half_time_final_ranking": -b / sigma,
    }


DIMS = {
    "mode": np.arange(1, len(A) + 1),
    "time": lambda settings: np.asarray(steps_at(TIMES, settings["rate"])) * settings["rate"],
}
LADDER = {
    "setting": "rate", "values": (0.02, 0.01, 0.005, 0.0025), "order": 1, "replicates": 20,
    "axes": {"weight_decay": [0.0, 0.75]},
}  # fmt: skip

dynamics = Experiment(
    name="dynamics",
    title="Modes of a self-supervised encoder that switch on one after another",
    sources=(SOURCE,),
    axes={"weight_decay": Parameter([0.0, 0.3, 0.6, 0.75, 0.9], r"weight decay $\lambda$", domain=NONNEGATIVE)},
    settings={
        "rate": Setting(0.01, "learning rate", domain=POSITIVE),
        "start": Setting(1e-3, "typical squared singular value at the start", domain=POSITIVE),
    },
    sizes=lambda settings: int(np.ceil(LONGEST / settings["rate"])),
    theory_sizes=lambda sizes: None,
    simulate=per_cell(one, one_by_one=True),
    predict=lambda cells, settings, sizes: {},
    outputs={
        "spectral": Output(r"strength $\Sigma y$, spectral loss", dims=DIMS),
        "infonce": Output(r"strength $\Sigma y/\tau$, InfoNCE", dims=DIMS),
        "half_time": Output(r"half-time $t_{1/2}$, spectral loss", dims={"mode": DIMS["mode"]}),
    },
    claims=(
        Order(
            "spectral", "modes of the spectral loss follow logistic curves, to first order in the step",
            twins={
                "Sigma left out of the quartic term": "spectral_without_sigma",
                "half the rate": "spectral_at_half_the_rate",
                "the rate beta for b": "spectral_by_beta",
            }, **LADDER,
        ),
        Order(
            "infonce", "modes of distance-InfoNCE follow their exact equation, to first order in the step",
            twins={"the quartic landscape": "infonce_quartic", "alpha = 1": "infonce_of_alpha_one"}, **LADDER,
        ),
        Order(
            "half_time", "half of the final strength is reached at the predicted time, to first order in the step",
            twins={"the rate beta for b": "half_time_by_beta"}, **LADDER,
        ),
        Rank(
            "half_time", "modes are learned in the order of b, not of their final strength", least=0.9,
            twins={"the final ranking": "half_time_final_ranking"},
        ),
    ),
    presets={
        "smoke": {"weight_decay": [0.0, 0.75], "rate": 0.02, "replicates": 4, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {"weight_decay": [0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.75, 0.9], "rate": 0.001, "replicates": 100},
    },
)  # fmt: skip
