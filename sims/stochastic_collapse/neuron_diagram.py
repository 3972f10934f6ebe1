"""A scalar neuron under SGD with label noise: collapsed or live over learning rate and noise, and the exponents."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sims.engine.experiment import (
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
from sims.stochastic_collapse.neuron import NEAR, collapsed, draw, network, start, walk
from sims.stochastic_collapse.setup import SOURCE
from theory.stochastic_collapse import neuron_exponents

ANGLES = 256
LEAST_RATIO, LEAST_FALL = 0.15, 40.0


class Sizes(NamedTuple):
    """What a compilation depends on."""

    samples: int
    paths: int
    draws: int


def growth(w, x, y, eta):
    """Growth of ln |u| and ln |v|, u = w1 + w2 and v = w1 - w2, in one step of SGD on the samples x, y."""
    after = w - eta * jax.grad(lambda w: jnp.mean((network(w, x) - y) ** 2) / 2)(w)
    return [jnp.log(jnp.abs((after[0] + s * after[1]) / (w[0] + s * w[1]))) for s in (1, -1)]


def measured_exponents(key, data, eta, zeta, count):
    """Mean growth of u and v near the origin: the full gradient with fresh labels, and single samples."""
    k_angle, k_label, k_sample, k_single = jax.random.split(key, 4)
    samples = len(data.x)
    angle = jax.random.uniform(k_angle, (count,), maxval=2 * jnp.pi)
    w = math.exp(NEAR) * jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)
    # m labels of variance m zeta^2 move the mean gradient as one label of variance zeta^2 does: B = 1.
    labels = data.y[None, :] + samples**0.5 * zeta * jax.random.normal(k_label, (count, samples))
    u, v = jax.vmap(growth, (0, None, 0, None))(w, data.x, labels, eta)
    chosen = jax.random.randint(k_sample, (count,), 0, samples)
    label = data.y[chosen] + zeta * jax.random.normal(k_single, (count,))
    single_u, single_v = jax.vmap(growth, (0, 0, 0, None))(w, data.x[chosen], label, eta)
    means = {"u": u, "v": v, "single_u": single_u, "single_v": single_v}
    return {name: jnp.mean(each) for name, each in means.items()}


def independent_noise(C, square):
    """Exponent per unit time if w1 and w2 had noise of their own, of variance `square`, and the signal C."""
    sine = jnp.sin((jnp.arange(ANGLES, dtype=C.dtype) + 0.5) * (2 * jnp.pi / ANGLES))
    V = 2 - sine**2
    log_density = math.sqrt(2) * C / square * jnp.arctanh(sine / math.sqrt(2)) - jnp.log(V) / 2
    density = jnp.exp(log_density - jnp.max(log_density))
    return jnp.sum(density * (C * sine + square / 2 * (1 - sine**2))) / jnp.sum(density)


def one(key, cell, settings, sizes):
    k_data, k_start, k_noise, k_exponents = jax.random.split(key, 4)
    eta, zeta = cell["eta"], cell["zeta"]
    data = draw(k_data, sizes.samples)
    steps = settings["steps"]
    end = walk(k_noise, start(k_start, sizes.paths), data, eta, eta * zeta, jnp.int32(0), steps)
    share = jnp.mean(collapsed(end).astype(eta.dtype))

    C, X2 = jnp.mean(data.x * data.y), jnp.mean(data.x**2)
    spread = eta * zeta * jnp.sqrt(X2)
    full, single, sde = (
        neuron_exponents(*data, eta, zeta, time=t) for t in ("full_gradient", "single_sample", "continuous")
    )
    square = {s: jnp.log((1 + s * eta * C) ** 2 + spread**2) / 2 for s in (1, -1)}
    # Drift against spread of the walk of ln |u|, and the way it goes: where both are large no path is left undecided.
    settled = (jnp.abs(full.u) > LEAST_RATIO * spread**2 / (1 + spread**2)) & (
        jnp.abs(full.u) * steps.astype(eta.dtype) > LEAST_FALL
    )

    def phase(exponent):
        return jnp.where(settled, jnp.where(exponent > 0, 1.0, -1.0), jnp.nan)

    measured = measured_exponents(k_exponents, data, eta, zeta, sizes.draws)
    return {
        "phase": jnp.where(share > 0.5, -1.0, 1.0),
        "phase_theory": phase(full.u),
        "phase_sde": phase(sde.u),
        "phase_mean_square": phase(square[1]),
        "phase_independent": phase(independent_noise(C, eta * zeta**2 * X2)),
        **measured,
        "u_theory": full.u,
        "u_sde": eta * sde.u,
        "u_mean_square": square[1],
        "u_quiet": jnp.log(jnp.abs(1 + eta * C)),
        "v_theory": full.v,
        "v_sde": eta * sde.v,
        "v_mean_square": square[-1],
        "v_quiet": jnp.log(jnp.abs(1 - eta * C)),
        "single_u_theory": single.u,
        "single_u_sde": eta * sde.u,
        "single_u_full": full.u,
        "single_v_theory": single.v,
        "single_v_sde": eta * sde.v,
        "single_v_full": full.v,
    }


def exponent_claim(output, sentence, twins):
    return Mean(output, sentence, twins={words: f"{output}_{name}" for words, name in twins.items()})


FULL = {"the SDE's": "sde", "growth of the mean square": "mean_square", "Stratonovich: without noise": "quiet"}
SINGLE = {"the SDE's": "sde", "the full gradient's": "full"}

neuron_diagram = Experiment(
    name="neuron_diagram",
    title="A scalar neuron under SGD: collapsed or live",
    sources=(SOURCE,),
    axes={
        "eta": Parameter(np.linspace(0.03, 0.48, 12), r"learning rate $\eta$", domain=POSITIVE),
        "zeta": Parameter(np.linspace(0.5, 8.2, 12), r"label noise $\zeta$", domain=POSITIVE),
    },
    settings={
        "samples": Setting(16, "samples", domain=whole(2)),
        "paths": Setting(16, "neurons of a replicate", domain=whole(1)),
        "steps": Setting(2000, "steps of SGD", domain=whole(1)),
        "draws": Setting(500, "single steps near the origin", domain=whole(1)),
    },
    sizes=lambda settings: Sizes(*(settings[name] for name in Sizes._fields)),
    simulate=per_cell(one),
    predict=lambda cells, settings, sizes: {},
    outputs={
        "phase": Output("collapsed (−1) or live (1)"),
        "u": Output(r"exponent of $w_1 + w_2$ per step"),
        "v": Output(r"exponent of $w_1 - w_2$ per step"),
        "single_u": Output(r"exponent of $w_1 + w_2$ per step, single samples"),
        "single_v": Output(r"exponent of $w_1 - w_2$ per step, single samples"),
    },
    claims=(
        Pathwise(
            "phase", "most neurons collapse where the exact exponent is negative, and live where it is positive",
            tolerance=1e-6, twins={
                "the SDE's exponent": "phase_sde", "growth of the mean square": "phase_mean_square",
                "independent noise in w1 and w2": "phase_independent",
            },
        ),
        exponent_claim("u", "the sum of the weights grows at the exact exponent", FULL),
        exponent_claim("v", "so does their difference", FULL),
        exponent_claim("single_u", "under single samples the sum grows at their exponent", SINGLE),
        exponent_claim("single_v", "and so does the difference", SINGLE),
    ),
    presets={
        "smoke": {
            "eta": [0.05, 0.2, 0.4], "zeta": [1.0, 4.5, 8.0], "steps": 1500, "draws": 200, "replicates": 6,
        },
        "laptop": {"replicates": 20},
        "paper": {
            "eta": np.linspace(0.01, 0.5, 50), "zeta": np.linspace(0.2, 10.0, 50), "samples": 32, "paths": 64,
            "steps": 10_000, "draws": 5000, "replicates": 40,
        },
    },
    block=256,
)  # fmt: skip
