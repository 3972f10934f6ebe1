"""The same modes under the spectral loss of minibatches: how far noisy gradients take them from their curves.

Measured is the root mean square, over modes and times, of a deviation in units of the final strengths. At a fixed rate
the spread around full-batch descent falls as batch^-1/2. Where the rate falls as 1 / batch, the deviation from the
logistic curves themselves falls as 1 / batch.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sims.engine.experiment import NONNEGATIVE, POSITIVE, Experiment, Order, Output, Parameter, Setting, per_cell, whole
from sims.ssl_collapse import losses
from sims.ssl_collapse.population import descent_path, orthogonal, spectral, squares, steps_at, with_spectrum
from sims.ssl_collapse.setup import SOURCE
from sims.ssl_collapse.training import gaussian_views
from theory.ssl_collapse import mode_trajectory

A = (1.0, 0.7, 0.45)
SPREAD = (1.5, 0.7, 0.3)  # variances of the augmentation over those of the inputs, times the axis
M = 3
TIMES = np.arange(1, 25) / 10


class Sizes(NamedTuple):
    """What a compilation depends on."""

    batch: int
    schedule: str


def one(key, cell, settings, sizes):
    a = jnp.array(A)
    c = cell["augmentation"] * a * jnp.array(SPREAD)
    sigma, b = a + c, 2 * a
    final = b / (2 * sigma**2)
    keys = jax.random.split(key, 4)
    V = orthogonal(keys[0], len(A), len(A))
    roots = [V * jnp.sqrt(x)[None, :] for x in (a, c)]
    A0, Sigma = with_spectrum(V, a), with_spectrum(V, sigma)
    y0 = settings["start"] * final
    W0 = orthogonal(keys[1], M, len(A)) @ (V * jnp.sqrt(y0)[None, :]).T

    def strengths(key, rate, loss):
        def step(W, k):
            return W - rate * jax.grad(loss)(W, jax.random.fold_in(key, k))

        path = descent_path(step, W0, steps_at(TIMES, rate), lambda W: squares(W, V))
        return path / final[None, :]

    def minibatch(W, key):
        first, second = gaussian_views(key, sizes.batch, *roots)
        return losses.spectral(first @ W.T, second @ W.T)

    def population(W, key):
        return spectral(W, A0, Sigma, 0.0)

    def curves(rate, b, sigma):
        t = steps_at(TIMES, rate).astype(float) * rate
        return mode_trajectory(t[:, None], b[None, :], sigma[None, :], 1.0, y0[None, :]) / final[None, :]

    fixed = sizes.schedule == "fixed"
    rate = settings["rate"] if fixed else settings["rate_times_batch"] / sizes.batch
    path, expected = strengths(keys[2], rate, minibatch), curves(rate, b, sigma)
    # At a fixed rate, what the finite step alone does is taken away.
    known = strengths(keys[2], rate, population) - expected if fixed else 0.0

    def distance(b, sigma):
        return jnp.sqrt(jnp.mean((path - known - curves(rate, b, sigma)) ** 2))

    deviation = distance(b, sigma)
    return {
        "deviation": deviation,
        "deviation_theory": jnp.zeros_like(deviation),
        # The theory is 0: so much would have to be taken off for a wrong curve to be right.
        "without_sigma": deviation - distance(b, jnp.ones_like(sigma)),
        "by_beta": deviation - distance(b / sigma, sigma),
        "curve": path,
        "curve_theory": expected,
    }


def times(settings):
    rate = settings["rate"] if settings["schedule"] == "fixed" else settings["rate_times_batch"] / settings["batch"]
    return np.asarray(steps_at(TIMES, rate)) * rate


TWINS = {"Sigma left out of the quartic term": "without_sigma", "the rate beta for b": "by_beta"}
LADDER = {"setting": "batch", "replicates": 20, "axes": {"augmentation": [0.5, 1.5]}, "twins": TWINS}

minibatch_dynamics = Experiment(
    name="minibatch_dynamics",
    title="Modes of a self-supervised encoder under the noise of minibatches",
    sources=(SOURCE,),
    axes={
        "augmentation": Parameter([0.5, 1.0, 1.5], "strength of the augmentation", domain=NONNEGATIVE),
    },
    settings={
        "batch": Setting(128, "batch size", domain=whole(2)),
        "schedule": Setting("fixed", "learning rate: fixed, or falling as 1 / batch", choices=("fixed", "falling")),
        "rate": Setting(0.01, "learning rate, fixed", domain=POSITIVE),
        "rate_times_batch": Setting(0.32, "learning rate times batch size, falling", domain=POSITIVE),
        "start": Setting(0.02, "squared singular value at the start over the final one", domain=POSITIVE),
    },
    sizes=lambda settings: Sizes(settings["batch"], settings["schedule"]),
    theory_sizes=lambda sizes: None,
    simulate=per_cell(one, one_by_one=True),
    predict=lambda cells, settings, sizes: {},
    outputs={
        "deviation": Output("deviation, over the final strengths"),
        "curve": Output(
            "strength over the final one",
            dims={"time": times, "mode": np.arange(1, len(A) + 1)},
        ),
    },
    claims=(
        Order(
            "deviation", "noise of minibatches moves the modes off their curves as batch^-1/2",
            values=(16, 32, 64, 128, 256), order=-0.5, **LADDER,
        ),
        Order(
            "deviation", "with a rate that falls as 1 / batch the curves hold to order 1 / batch",
            values=(16, 32, 64, 128), order=-1, settings={"schedule": "falling"}, **LADDER,
        ),
    ),
    presets={
        "smoke": {"augmentation": [0.5, 1.5], "batch": 32, "rate": 0.02, "replicates": 4, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {"augmentation": np.linspace(0.1, 2, 12), "batch": 1024, "rate": 0.002, "replicates": 100},
    },
)  # fmt: skip
