"""A singular mode that survives its label noise: the stationary law, against smaller and smaller steps."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sims.engine.experiment import (
    BELOW_ONE,
    POSITIVE,
    Experiment,
    Order,
    Output,
    Parameter,
    Setting,
    per_cell,
    whole,
)
from sims.stochastic_collapse import modes
from sims.stochastic_collapse.setup import SOURCE
from theory.stochastic_collapse import mode_moments


class Sizes(NamedTuple):
    """What a compilation depends on."""

    paths: int
    burn_in: int
    measured: int


def sizes(settings):
    steps = (math.ceil(settings[name] / settings["eta"]) for name in ("burn_in", "window"))
    return Sizes(settings["paths"], *steps)


def label_noise(cells, settings):
    """zeta of a temperature c = eta zeta^2."""
    return jnp.sqrt(cells["temperature"] / settings["eta"])


def one(key, cell, settings, sizes):
    k_burn_in, k_window, k_independent = jax.random.split(key, 3)
    s, eta, zeta = cell["s"], settings["eta"], label_noise(cell, settings)
    first = modes.run(k_burn_in, modes.start(s, cell["imbalance"], sizes.paths), s, eta, zeta, sizes.burn_in)

    last, window = modes.averaged(k_window, first, s, eta, zeta, sizes.measured)
    fall = jnp.mean(last.difference - first.difference) / (eta * sizes.measured) + window.heat
    other, other_second = independent(k_independent, cell, settings, sizes)
    return {
        "mean": window.first,
        "second": window.second,
        "mean_discrete": window.first,
        "imbalance_rate": fall,
        "independent_mean": other,
        "independent_second": other_second,
    }


def independent(key, cell, settings, sizes):
    """Moments of modes whose u and v do not share their noise."""
    s, eta, zeta = cell["s"], settings["eta"], label_noise(cell, settings)

    paths, measured = sizes.paths // 4 + 1, sizes.measured // 4 + 1

    def body(k, carry):
        u, v, first, second = carry
        noises = jax.random.normal(jax.random.fold_in(key, k), (2, paths))
        u, v = modes.independent_step(u, v, noises, s, eta, zeta)
        s_hat = jnp.where(k >= sizes.burn_in, u * v, 0.0)
        return u, v, first + jnp.mean(s_hat), second + jnp.mean(s_hat**2)

    u, zero = jnp.broadcast_to(jnp.sqrt(s), (paths,)), jnp.zeros_like(s)
    *_, first, second = jax.lax.fori_loop(0, sizes.burn_in + measured, body, (u, u, zero, zero))
    return first / measured, second / measured


def predict(cells, settings, sizes):
    plain, discrete = (
        mode_moments(cells["s"], settings["eta"], label_noise(cells, settings), discrete=kind) for kind in (False, True)
    )
    balanced = cells["imbalance"] == 0
    return {
        "mean": plain.mean,
        "second": plain.second,
        "mean_discrete": discrete.mean,
        "imbalance_rate": jnp.where(balanced, jnp.nan, -cells["temperature"]),
    }


def twice_the_threshold(cells, settings, sizes):
    """tau = eta zeta^2."""
    wide = 2**0.5 * label_noise(cells, settings)
    return mode_moments(cells["s"], settings["eta"], wide)


def noiseless(cells, settings, sizes):
    return mode_moments(cells["s"], settings["eta"], jnp.zeros(()))


def moment(formula, name):
    """One moment of a formula, as a twin."""
    return lambda *args: getattr(formula(*args), name)


def same_as_the_sum(cells, settings, sizes):
    """u - v as long-lived as u + v."""
    return jnp.zeros_like(cells["s"])


def half_as_fast(cells, settings, sizes):
    return -cells["temperature"] / 2


def ladder(values, order):
    return {
        "setting": "eta", "values": values, "order": order, "replicates": 20,
        "axes": {"s": [1.0], "imbalance": [0.5]}, "settings": {"paths": 128, "window": 200 * 2.0**order},
    }  # fmt: skip


COARSE, FINE = (0.04, 0.028, 0.02, 0.014), (0.04, 0.02, 0.01, 0.005)
WORDS = {"mean": "mean", "second": "second moment"}

singular_mode = Experiment(
    name="singular_mode",
    title="A singular mode under label noise: its stationary law",
    sources=(SOURCE,),
    axes={
        "s": Parameter([0.5, 1.0, 1.5], "singular value $s$", domain=POSITIVE),
        "imbalance": Parameter([0.0, 0.5], "imbalance at the start $(u-v)/(u+v)$", domain=BELOW_ONE),
    },
    fixed={"temperature": Parameter(0.3, r"$c = \eta\zeta^2$", domain=POSITIVE)},
    settings={
        "eta": Setting(0.02, "learning rate", domain=POSITIVE),
        "paths": Setting(64, "paths of a replicate", domain=whole(1)),
        "burn_in": Setting(40.0, "time before anything is measured", domain=POSITIVE),
        "window": Setting(200.0, "time over which is averaged", domain=POSITIVE),
    },
    sizes=sizes,
    simulate=per_cell(one, one_by_one=True),
    predict=predict,
    outputs={
        "mean": Output(r"$E[\hat s]$"),
        "second": Output(r"$E[\hat s\,^2]$"),
        "mean_discrete": Output(r"$E[\hat s]$, corrected for the step"),
        "imbalance_rate": Output(r"growth of $\ln|u-v|$ per unit time"),
    },
    claims=(
        *(
            Order(
                name, f"the {words} of a mode is soft-thresholded, up to the step size", **ladder(FINE, 1),
                twins={
                    "threshold eta zeta^2": moment(twice_the_threshold, name), "no noise": moment(noiseless, name),
                    "noise of its own in u and v": f"independent_{name}",
                },
            )
            for name, words in WORDS.items()
        ),
        Order(
            "mean_discrete", "with the correction for discrete steps the mean holds to second order",
            **ladder(COARSE, 2), twins={"without the correction": lambda *args: predict(*args)["mean"]},
        ),
        Order(
            "imbalance_rate", "the imbalance u - v dies at the rate c while u + v lives, up to the step size",
            **ladder(FINE, 1), twins={"it lives too": same_as_the_sum, "half as fast": half_as_fast},
        ),
    ),
    presets={
        "smoke": {"s": [0.5, 1.5], "eta": 0.04, "window": 40.0, "paths": 16, "replicates": 4, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {"s": [0.4, 0.5, 0.7, 1.0, 1.5, 2.0], "eta": 0.005, "paths": 256, "replicates": 100},
    },
)  # fmt: skip
