"""A singular mode near 0: whether label noise removes it, and how long it stays away once the learning rate drops."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sims.engine.experiment import (
    POSITIVE,
    Domain,
    Experiment,
    Mean,
    Order,
    Output,
    Parameter,
    Setting,
    per_cell,
    whole,
)
from sims.stochastic_collapse import modes
from sims.stochastic_collapse.setup import SOURCE
from sims.stochastic_collapse.singular_mode import label_noise
from theory.stochastic_collapse import hold_time, mode_exponent

LOG_START = -60.0  # of u + v and u - v: so low that s_hat never reaches s
DROP = Domain("above 0 and below 1", lambda x: (x > 0) & (x < 1))


class Sizes(NamedTuple):
    """What a compilation depends on."""

    paths: int
    before: int
    after: int


def sizes(settings):
    before = math.ceil(settings["duration"] / settings["eta"])
    return Sizes(settings["paths"], before, math.ceil(before / settings["drop"]))


def growth(key, mode, s, eta, zeta, steps):
    """The paths after so many steps, and the mean growth of ln |u + v| and of ln |u - v|.

    The growth is less its own noise, of mean zero: that of first and of second order in xi.
    """

    def body(k, carry):
        mode, push, heat = carry
        noise = jax.random.normal(jax.random.fold_in(key, k), mode.sum.shape)
        after = modes.step(mode, noise, s, eta, zeta)
        return after, push + jnp.mean(noise), heat + jnp.mean(noise**2 - 1)

    zero = jnp.zeros_like(s)
    last, push, heat = jax.lax.fori_loop(0, steps, body, (mode, zero, zero))
    push, heat = eta * zeta * push, (eta * zeta) ** 2 / 2 * heat
    return (
        last,
        jnp.mean(last.sum - mode.sum) + push + heat,
        jnp.mean(last.difference - mode.difference) - push + heat,
    )


def independent_growth(key, s, eta, zeta, paths: int, steps: int):
    """Growth of ln |(u, v)| where u and v do not share their noise."""

    def body(k, carry):
        u, v, grown = carry
        noises = jax.random.normal(jax.random.fold_in(key, k), (2, paths))
        u, v = u + eta * (s - zeta * noises[0]) * v, v + eta * (s - zeta * noises[1]) * u
        length = jnp.sqrt(u**2 + v**2)
        return u / length, v / length, grown + jnp.mean(jnp.log(length))

    u = jnp.broadcast_to(jnp.sqrt(jnp.full_like(s, 0.5)), (paths,))
    return jax.lax.fori_loop(0, steps, body, (u, u, jnp.zeros_like(s)))[2]


def one(key, cell, settings, sizes):
    k_before, k_after, k_independent = jax.random.split(key, 3)
    s, eta, zeta = cell["s"], settings["eta"], label_noise(cell, settings)
    begin = jnp.full((sizes.paths,), LOG_START)
    low, fall, imbalance = growth(k_before, modes.Mode(begin, begin), s, eta, zeta, sizes.before)
    _, rise, _ = growth(k_after, low, s, settings["drop"] * eta, zeta, sizes.after)
    other = independent_growth(k_independent, s, eta, zeta, sizes.paths, sizes.before)
    # The first phase and the second last as long, in units of time.
    return {
        "exponent": fall / sizes.before,
        "independent_noise": other / sizes.before,
        "imbalance_exponent": imbalance / sizes.before,
        "hold": jnp.where(fall < 0, -fall, 0.0) / rise,
    }


def predict(cells, settings, sizes):
    s, eta, zeta = cells["s"], settings["eta"], label_noise(cells, settings)
    collapsed = s < cells["temperature"] / 2
    return {
        "exponent": mode_exponent(s, eta, zeta),
        "imbalance_exponent": mode_exponent(-s, eta, zeta),
        "hold": jnp.where(collapsed, hold_time(s, eta, zeta, 1.0, settings["drop"] * eta), jnp.nan),
    }


def of_the_sde(cells, settings, sizes):
    """eta (s - tau)."""
    return settings["eta"] * (cells["s"] - cells["temperature"] / 2)


def twice_the_threshold(cells, settings, sizes):
    return settings["eta"] * (cells["s"] - cells["temperature"])


def noiseless(cells, settings, sizes):
    return jnp.log1p(settings["eta"] * cells["s"])


def of_the_sum(cells, settings, sizes):
    return predict(cells, settings, sizes)["exponent"]


def imbalance_of_the_sde(cells, settings, sizes):
    return -settings["eta"] * (cells["s"] + cells["temperature"] / 2)


def hold_without_noise_after(cells, settings, sizes):
    return hold_time(cells["s"], settings["eta"], label_noise(cells, settings), 1.0)


def hold_of_the_other_threshold(cells, settings, sizes):
    """tau = eta zeta^2."""
    zeta = 2**0.5 * label_noise(cells, settings)
    return hold_time(cells["s"], settings["eta"], zeta, 1.0, settings["drop"] * settings["eta"])


collapsed_mode = Experiment(
    name="collapsed_mode",
    title="A singular mode near 0 under label noise",
    sources=(SOURCE,),
    axes={"s": Parameter([0.15, 0.25, 0.35, 0.6, 0.8], "singular value $s$", domain=POSITIVE)},
    fixed={"temperature": Parameter(1.0, r"$c = \eta\zeta^2$", domain=POSITIVE)},
    settings={
        "eta": Setting(0.05, "learning rate", domain=POSITIVE),
        "drop": Setting(0.1, "learning rate after the drop over that before", domain=DROP),
        "duration": Setting(20.0, "time before the drop, and after it", domain=POSITIVE),
        "paths": Setting(64, "paths of a replicate", domain=whole(1)),
    },
    sizes=sizes,
    simulate=per_cell(one, one_by_one=True),
    predict=predict,
    outputs={
        "exponent": Output(r"growth of $\ln|u+v|$ a step"),
        "imbalance_exponent": Output(r"growth of $\ln|u-v|$ a step"),
        "hold": Output("time after the drop over that before"),
    },
    claims=(
        Mean(
            "exponent", "near 0 a mode grows or dies at the exponent of discrete steps",
            twins={
                "of the SDE": of_the_sde, "threshold eta zeta^2": twice_the_threshold, "no noise": noiseless,
                "noise of its own in u and v": "independent_noise",
            },
        ),
        Mean(
            "imbalance_exponent", "and its imbalance at that of -s",
            twins={"of the SDE": imbalance_of_the_sde, "that of the sum": of_the_sum},
        ),
        Order(
            "hold", "a collapsed mode stays away in proportion to the time before the drop, up to the step size",
            setting="eta", values=(0.04, 0.02, 0.01, 0.005), order=1, replicates=20,
            axes={"s": [0.15, 0.25]},
            twins={
                "no noise after the drop": hold_without_noise_after,
                "threshold eta zeta^2": hold_of_the_other_threshold,
            },
        ),
    ),
    presets={
        "smoke": {"s": [0.15, 0.8], "duration": 5.0, "replicates": 6, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {"s": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0], "eta": 0.02, "paths": 2048, "replicates": 100},
    },
)  # fmt: skip
