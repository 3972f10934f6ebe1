"""Integrators of the quartic double well against its closed form along the same Wiener path."""

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
    Setting,
    per_cell,
    whole,
)
from sims.stochastic_collapse.quartic_steps import euler, euler_of_logarithm, exact, trajectory, wiener
from sims.stochastic_collapse.setup import SOURCE
from theory.stochastic_collapse import quartic_path as closed_form

MOMENTS = 8


class Sizes(NamedTuple):
    """What a compilation depends on."""

    paths: int
    steps: int
    within: int


def sizes(settings):
    steps = max(round(settings["time"] / settings["dt"] / MOMENTS), 1) * MOMENTS
    return Sizes(settings["paths"], steps, round(settings["dt"] * settings["resolution"]))


def one(key, cell, settings, sizes):
    mu, zeta, dt = cell["mu"], cell["zeta"], settings["dt"]
    k_start, k_noise = jax.random.split(key)
    x = jnp.log(settings["start"] * jnp.abs(jax.random.normal(k_start, (sizes.paths,))))
    spacing, many = dt / sizes.within, sizes.steps * sizes.within
    _, W = wiener(k_noise, spacing, many, sizes.paths)
    times = spacing * jnp.arange(many + 1, dtype=dt.dtype)
    dW = jnp.diff(W[:, :: sizes.within], axis=1)

    seen = slice(sizes.steps // MOMENTS, None, sizes.steps // MOMENTS)
    along = {name: trajectory(step, x, mu, zeta, dt, dW)[:, seen] for name, step in STEPS.items()}
    fine = slice(None, None, sizes.within)
    closed = exact(x, mu, zeta, times, W)[:, fine][:, seen]
    without_ito = closed_form(jnp.exp(x), W, times, mu + zeta**2 / 2, zeta)[:, fine][:, seen]
    # theta0^2 for 2 theta0^2 in the Riccati equation.
    half = closed_form(jnp.exp(x) / 2**0.5, W, times, mu, zeta)[:, fine][:, seen] + np.log(2) / 2

    def miss(path, other):
        return jnp.sqrt(jnp.mean((path - other) ** 2, 0))

    out = {}
    for name, path in along.items():
        error = miss(path, closed)
        # A twin of the error leaves that to another path: not negative.
        out |= {
            name: error,
            f"{name}_theory": jnp.zeros_like(error),
            f"{name}_stratonovich": error - miss(path, without_ito),
            f"{name}_half": error - miss(path, half),
        }
    return out


STEPS = {"euler": euler, "euler_of_logarithm": euler_of_logarithm}


def fits(values, settings):
    within = settings["dt"] * settings["resolution"]
    if abs(within - round(within)) > 1e-6 or within < 1:
        raise ValueError(
            f"`resolution` must be a whole number of points in a step of {settings['dt']:g}, "
            f"but got {settings['resolution']}."
        )


def claim(name, sentence, order):
    return Order(
        name, sentence, setting="dt", values=(2.0**-7, 2.0**-8, 2.0**-9, 2.0**-10), order=order, replicates=20,
        axes={"zeta": [0.5, 1.0]}, settings={"paths": 32, "resolution": 8192, "time": 1.0},
        twins={"Stratonovich": f"{name}_stratonovich", "half of the cubic": f"{name}_half"},
    )  # fmt: skip


DIMS = {"moment": lambda s: s["dt"] * sizes(s).steps * np.arange(1, MOMENTS + 1) / MOMENTS}

quartic_path = Experiment(
    name="quartic_path",
    title="The quartic double well path by path",
    sources=(SOURCE,),
    axes={"zeta": Parameter([0.1, 0.5, 1.0, 1.5, 2.0], r"noise $\zeta$", domain=NONNEGATIVE)},
    fixed={"mu": Parameter(1.5, r"curvature of the saddle $\mu$")},
    settings={
        "dt": Setting(2.0**-8, "time step", domain=POSITIVE),
        "time": Setting(2.0, "time of a run", domain=POSITIVE),
        "resolution": Setting(1024, "points of a Wiener path per unit time", domain=whole(1)),
        "start": Setting(1.0, "root mean square of theta at the start", domain=POSITIVE),
        "paths": Setting(32, "paths in a replicate", domain=whole(2)),
    },
    sizes=sizes,
    validate=fits,
    simulate=per_cell(one),
    predict=lambda cells, settings, sizes: {},
    outputs={
        "euler": Output(r"error of $\ln|\theta|$, Euler steps of $\theta$", dims=DIMS),
        "euler_of_logarithm": Output(r"error of $\ln|\theta|$, Euler steps of $\ln|\theta|$", dims=DIMS),
    },
    claims=(
        claim("euler", "Euler steps of theta follow the closed form to order one half", 0.5),
        claim("euler_of_logarithm", "Euler steps of ln|theta| follow it to first order", 1),
    ),
    presets={
        "smoke": {"zeta": [0.5, 1.5], "dt": 2.0**-6, "resolution": 256, "paths": 8, "replicates": 4, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {"zeta": np.linspace(0, 2.5, 26), "dt": 2.0**-9, "resolution": 8192, "paths": 256, "replicates": 50},
    },
    block=16,
)  # fmt: skip
