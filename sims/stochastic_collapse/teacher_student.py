"""A linear student that learns a teacher of low rank from noisy data by SGD with label noise: soft thresholding.

The data are whitened (X^T X = I), the student starts on their singular vectors, and the label noise is diagonal in the
same basis: every mode is then learned for itself. Label noise of any other kind would couple the modes.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sims.engine.experiment import (
    NONNEGATIVE,
    POSITIVE,
    Domain,
    Experiment,
    Mean,
    Order,
    Output,
    Parameter,
    Setting,
    cell_by_cell,
    whole,
)
from sims.stochastic_collapse.setup import SOURCE
from theory.stochastic_collapse import mode_exponent, mode_moments, moments_after_drop, soft_threshold

MOMENTS, AFTER = 21, 12  # measurements before the drop, two each time the steps double, and after it
DEEP = 0.25  # below the threshold by so much, a mode collapses in a straight line
SETTLED = 8.0  # relaxation times after which a mode has its stationary law
DROP = Domain("above 0 and below 1", lambda x: (x > 0) & (x < 1))


class Sizes(NamedTuple):
    """What a compilation depends on."""

    m: int
    rank: int
    students: int
    together: int


class Data(NamedTuple):
    """Singular values of the data, the part of the teacher along each of their modes, and the teacher's own."""

    singular: jax.Array
    overlap: jax.Array
    teacher: jax.Array


class Run(NamedTuple):
    """ln u of every student at the end, and the means of s_hat and of its square on the way."""

    weights: jax.Array
    first: jax.Array
    second: jax.Array


def sizes(settings) -> Sizes:
    return Sizes(*(settings[name] for name in Sizes._fields))


def checkpoints(settings):
    """Steps at which is measured, before the drop and after it."""

    def marks(steps, count):
        doublings = jnp.arange(1 - count, 1, dtype=float) / 2
        return jnp.round(jnp.asarray(steps, float) * 2.0**doublings).astype(jnp.int32)

    return marks(settings["steps"], MOMENTS), marks(settings["steps_after"], AFTER)


def draw(key, sigma, sizes: Sizes) -> Data:
    """X^T y = W + sigma / sqrt(m) G, decomposed; W is diagonal, for the law of G has no preferred basis."""
    teacher = jnp.linspace(0.5, 1.0, sizes.rank)
    everywhere = jnp.zeros(sizes.m).at[: sizes.rank].set(teacher)
    G = jax.random.normal(key, (sizes.m, sizes.m))
    left, singular, right = jnp.linalg.svd(jnp.diag(everywhere) + sigma / sizes.m**0.5 * G)
    return Data(singular, jnp.sum(left * everywhere[:, None] * right.T, axis=0), teacher)


def train(key, weights, s, eta, zeta, steps) -> Run:
    """Balanced modes (u = v) after so many steps.

    Of the means of a mode above the threshold, what its noise adds is taken off: it is known, and of mean zero.
    """
    tau = eta * zeta**2 / 2
    s = jnp.broadcast_to(s, weights.shape)
    live = (s > tau).astype(s.dtype)

    def body(k, run):
        noise = jax.random.normal(jax.random.fold_in(key, k), weights.shape)
        s_hat = jnp.exp(2 * run.weights)
        push, heat = live * zeta * noise, live * tau * (noise**2 - 1)
        x = run.weights + jnp.log(jnp.abs(1 - eta * (s_hat - s + zeta * noise)))
        first = s_hat + push + heat
        second = s_hat**2 + s_hat * (push - heat) + (s + tau) * (push + heat)
        return Run(x, run.first + first, run.second + second)

    zero = jnp.zeros_like(weights)
    run = jax.lax.fori_loop(jnp.int32(0), steps, body, Run(weights, zero, zero))
    count = jnp.maximum(steps, 1).astype(zero.dtype)
    return Run(run.weights, run.first / count, run.second / count)


def path(key, weights, s, eta, zeta, marks):
    """The runs from one mark to the next, each with a leading axis over marks."""

    def until(weights, piece):
        number, steps = piece
        run = train(jax.random.fold_in(key, number), weights, s, eta, zeta, steps)
        return run.weights, run

    numbers = jnp.arange(len(marks), dtype=jnp.int32)
    return jax.lax.scan(until, weights, (numbers, jnp.diff(marks, prepend=jnp.int32(0))))


def train_loss(first, second, data: Data):
    """Half the squared distance to the data, of modes of given moments (..., m)."""
    s = jnp.broadcast_to(data.singular, first.shape)
    return jnp.sum(second - 2 * first * s + s**2, axis=-1) / 2


def test_loss(first, second, data: Data):
    """Squared distance to the teacher, of modes of given moments (..., m)."""
    q = jnp.broadcast_to(data.overlap, first.shape)
    return jnp.sum(second - 2 * first * q, axis=-1) + jnp.sum(data.teacher**2)


def students(key, data: Data, zeta, settings, sizes: Sizes):
    """What is measured of the students under one label noise."""
    k_before, k_after = jax.random.split(key)
    eta, s = settings["eta"], data.singular[None, :]
    marks, marks_after = checkpoints(settings)
    weights, before = path(k_before, jnp.zeros((sizes.students, sizes.m)), s, eta, zeta, marks)
    _, after = path(k_after, weights, s, settings["drop"] * eta, zeta, marks_after)

    # The second half of the phase is the last two pieces.
    pieces = jnp.diff(marks)[-2:].astype(s.dtype)
    share = pieces / jnp.sum(pieces)
    first, second = (jnp.mean(jnp.einsum("t,tkm->km", share, x[-2:]), 0) for x in (before.first, before.second))
    log_rate = jnp.mean(before.weights[-1] - before.weights[-3], 0) / jnp.sum(pieces)
    s_hat, later = jnp.exp(2 * before.weights), jnp.exp(2 * after.weights)
    return {
        "train_loss": jnp.mean(train_loss(s_hat, s_hat**2, data), 1),
        "test_loss": jnp.mean(test_loss(s_hat, s_hat**2, data), 1),
        "train_loss_after": jnp.mean(train_loss(later, later**2, data), 1),
        "test_loss_after": jnp.mean(test_loss(later, later**2, data), 1),
        "learned": first,
        "learned_after": jnp.mean(later, 1),
        "total": jnp.sum(first),
        "stationary_test_loss": test_loss(first, second, data),
        "log_rate": log_rate,
    }


def theory(data: Data, zeta, settings):
    """The same of the closed forms, given the data that were drawn, and their twins."""
    eta, s = settings["eta"], data.singular
    marks, marks_after = checkpoints(settings)
    tau = soft_threshold(eta, zeta)
    law = mode_moments(s, eta, zeta, discrete=True)
    t = (settings["drop"] * eta * marks_after.astype(s.dtype))[:, None]
    after = moments_after_drop(*jnp.broadcast_arrays(t, s[None, :]), eta, zeta)

    def at_all(value, count):
        return jnp.broadcast_to(value, (count,))

    # The slowest part of a mode's relaxation has the rate (s - tau)^2 / 2c; the window begins at half the time.
    settled = (s > tau) & ((s - tau) ** 2 * eta * settings["steps"].astype(s.dtype) > SETTLED * 8 * tau)
    kept = jnp.where(s > tau, s, 0.0)
    wide = mode_moments(s, eta, 2**0.5 * zeta)
    exponent = mode_exponent(s, eta, zeta)
    deep = tau - s > DEEP
    out = {
        "train_loss_theory": at_all(train_loss(*law, data), len(marks)),
        "test_loss_theory": at_all(test_loss(*law, data), len(marks)),
        "train_loss_after_theory": train_loss(*after, data),
        "test_loss_after_theory": test_loss(*after, data),
        "learned_theory": jnp.where(settled, law.mean, jnp.nan),
        "learned_noiseless": s,
        "learned_wide": wide.mean,
        "learned_after_theory": after.mean,
        "log_rate_theory": jnp.where(deep, exponent, jnp.nan),
        "log_rate_noiseless": jnp.log1p(eta * s),
        "log_rate_wide": mode_exponent(s, eta, 2**0.5 * zeta),
    }
    for name, (first, second) in {
        "theory": law, "hard": (kept, kept**2), "wide": wide, "noiseless": (s, s**2),
    }.items():  # fmt: skip
        out[f"total_{name}"] = jnp.sum(first)
        out[f"stationary_test_loss_{name}"] = test_loss(first, second, data)
    return out


def simulate(key, cells, settings, sizes):
    """The data are shared by all cells, and so are the draws of the label noise, which differ in their size."""
    k_data, k_run = jax.random.split(key)
    data = draw(k_data, cells["sigma"], sizes)

    def one(zeta):
        return jax.vmap(lambda z: students(k_run, data, z, settings, sizes) | theory(data, z, settings))(zeta)

    return cell_by_cell(one, cells["zeta"], sizes.together)


def noisy(cells, settings):
    return cells["zeta"] > 0


def twins(output):
    return {
        "hard threshold": f"{output}_hard",
        "threshold eta zeta^2": f"{output}_wide",
        "no threshold": f"{output}_noiseless",
    }


LADDER = {
    "setting": "steps", "values": (5000, 10_000, 20_000, 40_000), "order": -1, "replicates": 20,
    "axes": {"zeta": [9.0]}, "settings": {"eta": 0.01, "steps_after": 100, "students": 6},
}  # fmt: skip
MODE = {"mode": lambda settings: np.arange(settings["m"])}
STEP = {"step": lambda settings: np.asarray(checkpoints(settings)[0])}
STEP_AFTER = {"step_after": lambda settings: np.asarray(checkpoints(settings)[1])}


def fits(values, settings):
    if settings["rank"] > settings["m"]:
        raise ValueError(f"`rank` must be at most m = {settings['m']}, but got {settings['rank']}.")


teacher_student = Experiment(
    name="teacher_student",
    title="Teacher and student: label noise soft-thresholds the singular values",
    sources=(SOURCE,),
    axes={"zeta": Parameter([0.0, 5.0, 10.0, 15.0, 20.0], r"label noise $\zeta$", domain=NONNEGATIVE)},
    fixed={"sigma": Parameter(0.5, r"noise of the data $\sigma$", domain=POSITIVE)},
    settings={
        "eta": Setting(3 / 1024, "learning rate", domain=POSITIVE),
        "steps": Setting(50_000, "steps before the drop", domain=whole(2000)),
        "drop": Setting(0.1, "learning rate after the drop over that before", domain=DROP),
        "steps_after": Setting(10_000, "steps after the drop", domain=whole(100)),
        "m": Setting(64, "dimension", domain=whole(2)),
        "rank": Setting(8, "rank of the teacher", domain=whole(1)),
        "students": Setting(2, "students of the same data", domain=whole(1)),
        "together": Setting(1, "cells simulated side by side: one on a CPU, many on a GPU", domain=whole(1)),
    },
    sizes=sizes,
    simulate=simulate,
    predict=lambda cells, settings, sizes: {},
    validate=fits,
    outputs={
        "train_loss": Output("train loss", dims=STEP),
        "test_loss": Output("test loss", dims=STEP),
        "train_loss_after": Output("train loss after the drop", dims=STEP_AFTER),
        "test_loss_after": Output("test loss after the drop", dims=STEP_AFTER),
        "learned": Output(r"mode $E[\hat s]$ before the drop", dims=MODE),
        "learned_after": Output(r"mode $E[\hat s]$ after the drop", dims=STEP_AFTER | MODE),
        "total": Output(r"sum of the modes before the drop"),
        "stationary_test_loss": Output("mean test loss before the drop"),
        "log_rate": Output(r"growth of $\ln u$ a step", dims=MODE),
    },
    claims=(
        Mean(
            "log_rate", "modes of the data far below the threshold die at the exponent of discrete steps", where=noisy,
            twins={"no noise": "log_rate_noiseless", "threshold eta zeta^2": "log_rate_wide"},
        ),
        Mean(
            "learned", "modes far above the threshold are shrunk by it", where=noisy,
            twins={"no threshold": "learned_noiseless", "threshold eta zeta^2": "learned_wide"},
        ),
        Order(
            "total", "all modes are soft-thresholded, up to those near the threshold", **LADDER,
            twins=twins("total"),
        ),
        Order(
            "stationary_test_loss", "and so is the squared distance to the teacher", **LADDER,
            twins=twins("stationary_test_loss"),
        ),
    ),
    presets={
        "smoke": {
            "zeta": [0.0, 20.0], "m": 16, "rank": 2, "steps": 8000, "steps_after": 1000, "replicates": 4,
            "ladders": False,
        },
        "laptop": {"replicates": 20},
        "paper": {"replicates": 256, "students": 8, "together": 5},
    },
)  # fmt: skip
