"""Charges of gradient descent against their continuous-time solutions, at smaller and smaller steps."""

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
    Order,
    Output,
    Parameter,
    Setting,
    per_cell,
    whole,
)
from sims.noether import rayleigh, softmax
from sims.noether.setup import SOURCES, optimizer
from sims.noether.tracking import track_charges
from theory.noether import Part, SymmetryFamily, momentum_charge_ode, sgd_charge_ode

TIME = 3.0
MOMENTS = 9
BATCH = 8
SCALE = (SymmetryFamily("scale", (Part(""),)),)


class Sizes(NamedTuple):
    """What a compilation depends on."""

    d: int
    steps: int


def one(key, cell, settings, sizes):
    k_w, k_softmax = jax.random.split(key)
    eta, decay, beta = settings["eta"], cell["weight_decay"], cell["momentum"]
    w, eigenvalues = rayleigh.draw(k_w, sizes.d)
    # The whole loss at every step: noise would hide the second order.
    always = jnp.broadcast_to(eigenvalues, (sizes.steps, sizes.d))

    def moments(share):
        seen = jnp.round(share * jnp.linspace(1 / 3, 1.0, MOMENTS) * sizes.steps).astype(jnp.int32)
        return seen, eta * seen.astype(eta.dtype)

    seen, t = moments(1.0)
    # Heavy ball is 1 / (1 - beta) times as fast: a third of the time.
    early, soon = moments(1 / 3)

    def charge_of(loss, params, batches, families, name):
        return track_charges(loss, params, optimizer(name, eta, beta, decay), batches, families)[2][0]

    plain, heavy = (charge_of(rayleigh.loss, w, always, SCALE, name) for name in ("SGD", "heavy ball"))
    weights, data = softmax.draw(k_softmax, softmax.Sizes(2, 3, BATCH, sizes.steps))
    shift = charge_of(softmax.loss, weights, data, softmax.SHIFT[1:], "heavy ball")

    def sgd(**how):
        return sgd_charge_ode(plain.charge[0], t, eta, decay, plain.gradient, **how)[:, 0]

    def momentum(track, source, decay=decay, **how):
        return momentum_charge_ode(track.charge[0], soon, eta, decay, beta, source, **how)[:, 0]

    at_rest, started = (momentum(heavy, heavy.step, corrected_start=start) for start in (False, True))
    still, moving = (momentum(shift, None, linear=True, corrected_start=start) for start in (False, True))
    halved = momentum(heavy, heavy.step, decay / 2)
    size = shift.charge[0, 0]
    return {
        "sgd": plain.charge[seen, 0],
        "sgd_theory": sgd(),
        "sgd_without_source": sgd_charge_ode(plain.charge[0], t, eta, decay)[:, 0] * jnp.exp(-decay * t),
        "sgd_improved": plain.charge[seen, 0],
        "sgd_improved_theory": sgd(improved_rate=True),
        "sgd_paper": sgd(),
        "heavy_ball": heavy.charge[early, 0],
        "heavy_ball_theory": at_rest,
        "heavy_ball_halved": halved,
        "heavy_ball_started": heavy.charge[early, 0],
        "heavy_ball_started_theory": started,
        "heavy_ball_at_rest": at_rest,
        "shift": shift.charge[early, 0] / size,
        "shift_theory": still / size,
        "shift_of_plain_descent": shift.charge[0, 0] / size * jnp.exp(-decay * soon),
        "shift_started": shift.charge[early, 0] / size,
        "shift_started_theory": moving / size,
        "shift_at_rest": still / size,
    }


def ladder(values, order):
    return {"setting": "eta", "values": values, "order": order, "replicates": 20, "axes": {"momentum": [0.8]}}


COARSE, FINE = (0.04, 0.02, 0.01, 0.005), (0.002, 0.001, 0.0005, 0.00025)
DIMS = {"moment": np.linspace(1 / 3, 1, MOMENTS)}

continuous = Experiment(
    name="continuous",
    title="Charges in continuous time, and the corrections of second order",
    sources=SOURCES,
    axes={"momentum": Parameter([0.0, 0.5, 0.8, 0.9], r"momentum $\beta$", domain=BELOW_ONE)},
    fixed={"weight_decay": Parameter(0.3, r"weight decay $\lambda$", domain=NONNEGATIVE)},
    settings={
        "eta": Setting(0.005, "learning rate", domain=POSITIVE),
        "d": Setting(3, "dimension of the Rayleigh quotient", domain=whole(2)),
    },
    sizes=lambda settings: Sizes(settings["d"], max(round(TIME / settings["eta"]), MOMENTS)),
    simulate=per_cell(one),
    predict=lambda cells, settings, sizes: {},
    outputs={
        "sgd": Output(r"$|w|^2$ under SGD", dims=DIMS),
        "sgd_improved": Output(r"$|w|^2$ under SGD, improved rate", dims=DIMS),
        "heavy_ball": Output(r"$|w|^2$ under momentum, from rest", dims=DIMS),
        "heavy_ball_started": Output(r"$|w|^2$ under momentum, corrected start", dims=DIMS),
        "shift": Output("logit shift under momentum, from rest", dims=DIMS),
        "shift_started": Output("logit shift under momentum, corrected start", dims=DIMS),
    },
    claims=(
        Order(
            "sgd", "the paper's solution for SGD holds to first order", **ladder(COARSE, 1),
            twins={"half the rate, no source": "sgd_without_source"},
        ),
        Order(
            "sgd_improved", "at the rate 2 lambda + eta lambda^2 it holds to second order", **ladder(COARSE, 2),
            twins={"the rate 2 lambda": "sgd_paper"},
        ),
        Order(
            "heavy_ball", "the paper's solution for momentum holds to first order", **ladder(FINE, 1),
            twins={"half the weight decay": "heavy_ball_halved"},
        ),
        Order(
            "heavy_ball_started", "with the corrected start it holds to second order", **ladder(FINE, 2),
            twins={"started at rest": "heavy_ball_at_rest"},
        ),
        Order(
            "shift", "the paper's linear solution holds to first order", **ladder(FINE, 1),
            twins={"plain gradient descent": "shift_of_plain_descent"},
        ),
        Order(
            "shift_started", "with the corrected start it holds to second order", **ladder(FINE, 2),
            twins={"started at rest": "shift_at_rest"},
        ),
    ),
    presets={
        "smoke": {"momentum": [0.0, 0.8], "eta": 0.05, "replicates": 4, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {"momentum": [0.0, 0.5, 0.8, 0.9, 0.95], "eta": 0.001, "replicates": 100},
    },
)  # fmt: skip
