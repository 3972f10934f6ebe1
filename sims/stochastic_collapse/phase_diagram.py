"""Four phases of SGD with multiplicative noise and a bounded nonlinearity: collapsed, live, diverged, bistable.

The model is a loss of one weight: its curvature at every step is drawn, and differs between the origin and infinity.
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
    Mean,
    Output,
    Parameter,
    Pathwise,
    Setting,
    per_cell,
    whole,
)
from sims.stochastic_collapse.factors import log_size
from sims.stochastic_collapse.setup import SOURCE
from theory.stochastic_collapse import bounded_exponents, bounded_phase_code, lyapunov_exponent, phase_code

# Steps change ln |theta| by less than this on average: so deep, and so far out, that a run does not lead back.
FASTEST = 4.0
MIXED = 4


class Sizes(NamedTuple):
    """What a compilation depends on."""

    paths: int
    steps: int


def walk(key, x, eta, mu, sigma, K, steps: int):
    """ln |theta| after so many steps of SGD; paths along the last axis, starts that share their draws before it."""

    def step(x, k):
        h = sigma * jax.random.normal(jax.random.fold_in(key, k), x.shape[-1:], x.dtype) - mu
        return x + log_size(1 - eta * (h[None, :] + K * jax.nn.sigmoid(2 * x))), None

    return jax.lax.scan(step, x, jnp.arange(steps))[0]


def phase_of(ends, bound):
    """The commonest phase of the paths, from where those started below, at and above theta = 1 end.

    A path is in the phase of the region in which it ends from anywhere; it is bistable if low stays low and high high.
    """
    low, middle, high = (ends > -bound).astype(int) + (ends > bound).astype(int)
    either = jnp.where((low == 0) & (high == 2), 3, MIXED)
    code = jnp.where((low == middle) & (middle == high), low, either)
    votes = jnp.sum(code[:, None] == jnp.arange(MIXED + 1)[None, :], axis=0)
    return jnp.argmax(votes).astype(ends.dtype)


def one(key, cell, settings, sizes):
    start, deep = settings["start"], FASTEST * sizes.steps
    starts = jnp.stack([-deep + 0 * start, -start, 0 * start, start, deep + 0 * start])
    x = jnp.broadcast_to(starts[:, None], (len(starts), sizes.paths))
    ends = walk(key, x, cell["eta"], cell["mu"], cell["sigma"], cell["K"], sizes.steps)
    growth = jnp.mean(ends - x, axis=-1) / sizes.steps
    return {
        "phase": phase_of(ends[1:4], start),
        "near_zero": growth[0],
        "at_infinity": growth[-1],
    }


def predict(cells, settings, sizes):
    model = cells["eta"], cells["mu"], cells["sigma"], cells["K"]
    exponents = bounded_exponents(*model)
    return {
        "phase": bounded_phase_code(*model).astype(exponents.near_zero.dtype),
        "near_zero": exponents.near_zero,
        "at_infinity": exponents.at_infinity,
    }


def sde(eta, h, sigma):
    return eta * lyapunov_exponent(h, jnp.sqrt(eta) * sigma)


def other_convention(eta, h, sigma):
    """sqrt(D) dW for sqrt(2 D) dW."""
    return eta * lyapunov_exponent(h, jnp.sqrt(eta / 2) * sigma)


def mean_square(eta, h, sigma):
    return jnp.log((1 - eta * h) ** 2 + (eta * sigma) ** 2) / 2


def stratonovich(eta, h, sigma):
    return -eta * h + jnp.zeros_like(sigma)


WRONG = {
    "of the SDE": sde, "of noise sqrt(D) dW": other_convention, "of the mean square": mean_square,
    "of Stratonovich noise": stratonovich,
}  # fmt: skip


def near_zero_by(exponent):
    return lambda cells, settings, sizes: exponent(cells["eta"], -cells["mu"], cells["sigma"])


def at_infinity_by(exponent):
    return lambda cells, settings, sizes: exponent(cells["eta"], cells["K"] - cells["mu"], cells["sigma"])


def phase_by(exponent):
    def formula(cells, settings, sizes):
        near, far = (by(exponent)(cells, settings, sizes) for by in (near_zero_by, at_infinity_by))
        return phase_code(near, far).astype(near.dtype)

    return formula


def twins(of):
    return {f"exponent {name}": of(exponent) for name, exponent in WRONG.items()}


def off_the_lines(cells, settings):
    """Next to a line the walk is recurrent, or nearly so, and no run is long enough."""
    exponents = bounded_exponents(*(cells[name] for name in ("eta", "mu", "sigma", "K")))
    return np.min(np.abs(exponents), axis=0) > settings["band"]


phase_diagram = Experiment(
    name="phase_diagram",
    title="Collapsed, live, diverged, bistable: SGD with multiplicative noise",
    sources=(SOURCE,),
    axes={
        "eta": Parameter(np.geomspace(0.1, 3, 32), r"learning rate $\eta$", scale="log", domain=POSITIVE),
        "sigma": Parameter(
            np.linspace(0.1875, 6, 32), r"standard deviation $\sigma$ of the curvature", domain=NONNEGATIVE
        ),
        "K": Parameter([-1.0, 1.0], r"further curvature $K$ at infinity"),
    },
    fixed={"mu": Parameter(0.5, r"minus the curvature at the origin $\mu$")},
    settings={
        "paths": Setting(8, "paths of a replicate", domain=whole(1)),
        "steps": Setting(2000, "steps of SGD", domain=whole(1)),
        "start": Setting(30.0, "distance of the starts from ln |theta| = 0, and end of its region", domain=POSITIVE),
        "band": Setting(0.1, "exponents below which the phase is not judged", domain=POSITIVE),
    },
    sizes=lambda settings: Sizes(settings["paths"], settings["steps"]),
    theory_sizes=lambda sizes: (),
    simulate=per_cell(one),
    predict=predict,
    outputs={
        "phase": Output("phase: 0 collapsed, 1 live, 2 diverged, 3 bistable, 4 mixed"),
        "near_zero": Output(r"exponent near the origin $\Lambda_0$ (per step)"),
        "at_infinity": Output(r"exponent at infinity $\Lambda_\infty$ (per step)"),
    },
    claims=(
        Pathwise(
            "phase", "training ends in the phase of the two exponents' signs", tolerance=0.1, where=off_the_lines,
            twins=twins(phase_by),
        ),
        Mean("near_zero", "near the origin the distance grows at the exact exponent", twins=twins(near_zero_by)),
        Mean("at_infinity", "far out the distance grows at the exact exponent", twins=twins(at_infinity_by)),
    ),
    presets={
        "smoke": {"eta": [0.2, 1.0, 2.0], "sigma": [0.5, 3.0, 4.5], "steps": 1000, "replicates": 4},
        "laptop": {"replicates": 20},
        "paper": {
            "eta": np.geomspace(0.05, 3, 512), "sigma": np.linspace(6 / 512, 6, 512), "steps": 10_000,
            "band": 0.05, "paths": 16, "replicates": 20,
        },
    },
    block=2**16,
)  # fmt: skip
