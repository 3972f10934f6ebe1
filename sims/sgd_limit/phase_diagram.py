"""Regimes of SGD after convergence, over momentum and learning rate, and how far it wanders.

Every cell has `paths` chains of one curvature, started at the minimum, whose fluctuations say how they move: least
squares of a step on the step and the position before it. And it has `copies` of a power-law spectrum, started from
their stationary law, whose displacements are taken over blocks of 1, 2, 4, ... steps.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sims.engine.experiment import (
    BELOW_ONE,
    POSITIVE,
    Domain,
    Experiment,
    Mean,
    Output,
    Parameter,
    Pathwise,
    Setting,
    per_cell,
    whole,
)
from sims.sgd_limit.fit import fitted_roots, regime_of, standard_errors
from sims.sgd_limit.heavy_ball import heavy_ball, power_law
from sims.sgd_limit.setup import SOURCE
from theory.sgd_limit import (
    global_displacement,
    oscillation_per_step,
    oscillator_rates,
    phase_space_covariance,
    regime_code,
)

RUNAWAY = 1e4  # standard deviations of a step's noise beyond which a chain is stopped
SURE, FAR = 6.0, 20.0  # standard errors of the fit from a line
GROWING = 0.1  # distance in eta h from where chains run away within a few hundred steps
RELAXED = 5.0  # decay times that pass before a variance is measured
STEEP = Domain("above 1", lambda x: np.isfinite(x) & (x > 1))


class Sizes(NamedTuple):
    """What a compilation depends on."""

    paths: int
    modes: int
    copies: int
    burn_in: int
    steps: int


def lags_of(steps: int) -> np.ndarray:
    """1, 2, 4, ... up to half the steps."""
    return 2 ** np.arange(max(int(np.log2(steps)), 1))


def one(key, cell, settings, sizes):
    eta, beta, lags = cell["eta_h"], cell["beta"], lags_of(sizes.steps)
    spectrum = jnp.tile(power_law(sizes.modes, cell["alpha"]), sizes.copies)
    h = jnp.concatenate([jnp.ones(sizes.paths), spectrum])
    k_start, k_noise = jax.random.split(key)

    def loss(theta):
        return jnp.sum(h * theta**2) / 2

    def step(carry, k):
        theta, w, moments, fit, before, squares = carry
        noise = jnp.sqrt(h) * jax.random.normal(jax.random.fold_in(k_noise, k), h.shape)
        after, moved = heavy_ball(theta, w, jax.grad(loss)(theta) + noise, eta, beta)
        here = jnp.abs(theta) < RUNAWAY * eta
        after, moved = jnp.where(here, after, theta), jnp.where(here, moved, w)

        x, v, ahead = theta[: sizes.paths], w[: sizes.paths], moved[: sizes.paths]
        seen = jnp.stack([x * x, x * v, v * v])
        moments = moments + jnp.where(k < sizes.burn_in, 0.0, seen)
        fit = fit + jnp.where(here[: sizes.paths], jnp.concatenate([seen, jnp.stack([x * ahead, v * ahead])]), 0.0)

        due = ((k + 1) % jnp.asarray(lags, jnp.int32) == 0)[:, None]
        there = after[None, sizes.paths :]
        squares = squares + jnp.where(due, (there - before) ** 2, 0.0)
        return (after, moved, moments, fit, jnp.where(due, there, before), squares), None

    theta, w = stationary(k_start, h, eta, beta)
    still = jnp.arange(len(h)) < sizes.paths
    theta, w = jnp.where(still, 0.0, theta), jnp.where(still, 0.0, w)
    before = jnp.broadcast_to(theta[None, sizes.paths :], (len(lags), len(spectrum)))
    carry = (theta, w, jnp.zeros((3, sizes.paths)), jnp.zeros((5, sizes.paths)), before, jnp.zeros_like(before))
    every = jnp.arange(sizes.burn_in + sizes.steps, dtype=jnp.int32)
    (_, _, moments, fit, _, squares), _ = jax.lax.scan(step, carry, every)

    unit = units(eta, beta)
    position, cross, motion = jnp.mean(moments, 1) / sizes.steps
    code, angle, decay = regime_of(*fitted_roots(jnp.sum(fit, 1)))
    blocks = len(every) // lags
    return {
        "regime": code,
        "frequency": angle,
        "decay": decay,
        "position": position / unit.position,
        "cross": cross / (eta**2 * unit.motion),
        "motion": motion / (eta**2 * unit.motion),
        "displacement": jnp.sum(squares, 1) / jnp.asarray(blocks * sizes.copies, squares.dtype) / unit.position,
    }


def stationary(key, h, eta, beta):
    """A draw of (position, step) from the stationary law, or the minimum where there is none."""
    position, cross, motion = (jnp.where(h * eta < 2 * (1 + beta), c, 0.0) for c in law(h, eta, beta))
    first, second = jax.random.normal(key, (2, *h.shape))
    root = jnp.sqrt(position)
    slope = cross / jnp.where(root > 0, root, 1.0)
    return root * first, slope * first + jnp.sqrt(motion - slope**2) * second


def law(h, eta, beta, time="discrete"):
    """Stationary variances, without decay and for unit noise."""
    return phase_space_covariance(h, eta, beta, 1, time=time)


def units(eta, beta):
    """The variances of the Langevin equation at unit curvature."""
    return law(jnp.ones_like(eta), eta, beta, "ou")


def predict(cells, settings, sizes):
    eta, beta = cells["eta_h"], cells["beta"]
    unit, at = units(eta, beta), law(jnp.ones_like(eta), eta, beta)
    stable = eta < 2 * (1 + beta)
    turn = oscillation_per_step(eta, beta, 1.0)
    return {
        "regime": regime_code(eta, beta, 1.0).astype(eta.dtype),
        "frequency": turn.angle,
        "decay": turn.decay,
        "position": jnp.where(stable, at.position / unit.position, jnp.inf),
        "cross": jnp.where(stable, at.cross / (eta**2 * unit.motion), jnp.inf),
        "motion": jnp.where(stable, at.motion / (eta**2 * unit.motion), jnp.inf),
        "displacement": jnp.where(stable[:, None], displacement(cells, sizes), jnp.inf),
    }


def displacement(cells, sizes, time="discrete", beta=None, eta=None):
    """Mean square displacement over the variance of one mode of the Langevin equation."""
    eta, beta = cells["eta_h"] if eta is None else eta, cells["beta"] if beta is None else beta
    spectrum = jax.vmap(lambda alpha: power_law(sizes.modes, alpha))(cells["alpha"])
    lags = jnp.asarray(lags_of(sizes.steps), eta.dtype)[None, :]
    found = global_displacement(lags, spectrum[:, None, :], eta[:, None], beta[:, None], 1, time=time)
    return found / units(cells["eta_h"], cells["beta"]).position[:, None]


def in_time(output):
    """The Langevin equation's value."""

    def formula(cells, settings, sizes):
        eta, beta = cells["eta_h"], cells["beta"]
        if output == "displacement":
            return displacement(cells, sizes, "ou")
        return getattr(oscillation_per_step(eta, beta, 1.0, "ou"), {"frequency": "angle", "decay": "decay"}[output])

    return formula


def regime_in_time(cells, settings, sizes):
    """Over- and underdamped as the Langevin equation has it, which knows no other regime."""
    gamma, omega = oscillator_rates(cells["eta_h"], cells["beta"], 1.0)
    return (omega > gamma).astype(gamma.dtype)


def without_memory(cells, settings, sizes):
    """The regimes of SGD without momentum at the learning rate eta / (1 - beta)."""
    eta, beta = cells["eta_h"], cells["beta"]
    return regime_code(eta / (1 - beta), jnp.zeros_like(beta), 1.0).astype(eta.dtype)


def everywhere(value):
    """The same in all cells: variances of the Langevin equation, or the covariance of its position and velocity."""
    return lambda cells, settings, sizes: jnp.full_like(cells["beta"], value)


def without_correction(cells, settings, sizes):
    """Displacement of plain SGD at the learning rate eta / (1 - beta): no ballistic steps."""
    return displacement(cells, sizes, "ou", jnp.zeros_like(cells["beta"]), cells["eta_h"] / (1 - cells["beta"]))


def clear(cells, settings, errors=SURE):
    """Cells that are so many standard errors of the fit away from the double roots and from instability."""
    e, beta = cells["eta_h"], cells["beta"]
    stable = e < 2 * (1 + beta)
    count = settings["paths"] * (settings["burn_in"] + settings["steps"])
    of_roots, of_growth = standard_errors(beta, np.where(stable, e, 1.0), count)
    discriminant, room = (1 + beta - e) ** 2 - 4 * beta, 2 * (1 + beta) - e
    sure = (np.abs(discriminant) > errors * of_roots) & (room > errors * of_growth)
    return np.where(stable, sure, -room > GROWING)


def relaxed(cells, settings):
    """Stable cells whose chains have forgotten the start when they are measured."""
    e, beta = cells["eta_h"], cells["beta"]
    decay = np.asarray(oscillation_per_step(e, beta, 1.0).decay)
    return (e < 2 * (1 + beta)) & (decay * settings["burn_in"] > RELAXED)


def turning(cells, settings):
    """Oscillating cells far from the lines, where the fit has no bias."""
    return (np.asarray(regime_code(cells["eta_h"], cells["beta"], 1.0)) == 1) & clear(cells, settings, FAR)


def decaying(cells, settings):
    """Oscillating cells with a memory that the fit knows to a few percent."""
    return turning(cells, settings) & (cells["beta"] >= 0.3)


def stable(cells, settings):
    return cells["eta_h"] < 2 * (1 + cells["beta"])


LAGS = {"lag": lambda s: lags_of(s["steps"])}

phase_diagram = Experiment(
    name="phase_diagram",
    title="SGD after convergence: four regimes, and how far it wanders",
    sources=(SOURCE,),
    axes={
        "beta": Parameter(np.linspace(0, 0.96, 9), r"momentum $\beta$", domain=BELOW_ONE),
        "eta_h": Parameter(
            np.concatenate([np.geomspace(0.004, 0.6, 8), np.arange(0.9, 4.6, 0.4)]),
            r"learning rate times curvature $\eta h$", scale="log", domain=POSITIVE,
        ),
    },
    fixed={"alpha": Parameter(2.0, r"exponent $\alpha$ of the spectrum $l^{-\alpha}$", domain=STEEP)},
    settings={
        "paths": Setting(32, "chains of one curvature in a replicate", domain=whole(2)),
        "modes": Setting(24, "modes of the spectrum", domain=whole(1)),
        "copies": Setting(2, "copies of the spectrum in a replicate", domain=whole(1)),
        "burn_in": Setting(512, "steps before a variance is measured", domain=whole(1)),
        "steps": Setting(1536, "steps over which it is measured", domain=whole(8)),
    },
    sizes=lambda settings: Sizes(*(int(settings[name]) for name in Sizes._fields)),
    simulate=per_cell(one),
    predict=predict,
    outputs={
        "regime": Output("regime: 0 overdamped, 1 oscillating, 2 flipping, 3 unstable"),
        "frequency": Output("angle a step", unit="rad"),
        "decay": Output("decay a step"),
        "position": Output("variance of the position over that of the Langevin equation"),
        "cross": Output("covariance of position and step over the variance of that equation's steps"),
        "motion": Output("variance of the step over that of the Langevin equation"),
        "displacement": Output("mean square displacement of a power-law spectrum", dims=LAGS),
    },
    claims=(
        Pathwise(
            "regime", "the fluctuations of a chain show the regime of its roots", tolerance=1e-12, where=clear,
            twins={"of the Langevin equation": regime_in_time, "SGD at eta / (1 - beta)": without_memory},
        ),
        Mean(
            "frequency", "fluctuations oscillate at the angle of the roots", where=turning,
            twins={"of the Langevin equation": in_time("frequency")},
        ),
        Mean(
            "decay", "and decay by half the logarithm of the momentum", where=decaying,
            twins={"of the Langevin equation": in_time("decay")},
        ),
        Mean(
            "position", "positions vary by the chain's own law", where=relaxed,
            twins={"of the Langevin equation": everywhere(1.0)},
        ),
        Mean(
            "motion", "and so do steps", where=relaxed, twins={"of the Langevin equation": everywhere(1.0)},
        ),
        Mean(
            "cross", "a step goes with the position it led to", where=relaxed,
            twins={"of the Langevin equation": everywhere(0.0), "twice that": lambda *a: 2 * predict(*a)["cross"]},
        ),
        Mean(
            "displacement", "displacements are sums of what the modes forget", where=stable,
            twins={
                "of the Langevin equation": in_time("displacement"), "SGD at eta / (1 - beta)": without_correction,
            },
        ),
    ),
    presets={
        "smoke": {
            "beta": [0.0, 0.48, 0.84], "eta_h": [0.02, 0.3, 1.3, 2.9, 4.5], "paths": 16, "modes": 6, "copies": 2,
            "burn_in": 256, "steps": 256, "replicates": 4,
        },
        "laptop": {"replicates": 20},
        "paper": {
            "beta": np.linspace(0, 0.98, 50),
            "eta_h": np.concatenate([np.geomspace(0.001, 0.6, 32), np.arange(0.7, 4.6, 0.1)]), "paths": 256,
            "modes": 512, "copies": 4, "burn_in": 8192, "steps": 24576, "replicates": 50,
        },
    },
    block=4096,
)  # fmt: skip
