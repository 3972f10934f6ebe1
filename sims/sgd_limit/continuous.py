"""Heavy ball without noise against the Langevin equation's mean, at smaller and smaller steps.

As the momentum goes to 1 by beta = 1 - c sqrt(eta), a mode turns in some 1 / sqrt(eta) steps: the root of the learning
rate is the step in the oscillator's own time.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sims.engine.experiment import POSITIVE, Experiment, Order, Output, Parameter, Setting, per_cell, whole
from sims.sgd_limit.heavy_ball import heavy_ball
from sims.sgd_limit.setup import SOURCE
from theory.sgd_limit import propagator

TURNS = (1.0, 2.0, 3.0, 4.0)  # sqrt(eta) times the step
TIMES = (0.25, 0.5, 1.0)  # eta times the step
MOMENTA = (0.0, 0.5, 0.8)
STEPS = (0.2, 0.1, 0.05, 0.025)


class Sizes(NamedTuple):
    """What a compilation depends on."""

    d: int
    light: tuple[int, ...]
    heavy: tuple[int, ...]


def sizes(settings) -> Sizes:
    """The steps at which the two limits are looked at."""
    step = settings["step"]
    light, heavy = (round(t / step**2) for t in TIMES), (round(turn / step) for turn in TURNS)
    return Sizes(settings["d"], tuple(light), tuple(heavy))


def draw(key, d: int):
    """(H, its eigenvectors and eigenvalues, start): a quadratic loss, and a start with all modes positive."""
    k_rotation, k_rho, k_start = jax.random.split(key, 3)
    R, _ = jnp.linalg.qr(jax.random.normal(k_rotation, (d, d)))
    rho = jax.random.uniform(k_rho, (d,), minval=0.8, maxval=1.2)
    return (R * rho[None, :]) @ R.T, R, rho, R @ jax.random.uniform(k_start, (d,), minval=0.5, maxval=1.5)


def path(H, theta, eta, beta, steps: int):
    """Positions at steps 0, ..., `steps` + 1, released at rest: a step ahead they are where they were a step before."""

    def loss(theta):
        return theta @ H @ theta / 2

    def step(carry, _):
        theta, w = heavy_ball(*carry, jax.grad(loss)(carry[0]), eta, beta)
        return (theta, w), theta

    w = eta * jax.grad(loss)(theta) / (1 + beta)
    _, after = jax.lax.scan(step, (theta, w), length=steps + 1)
    return jnp.concatenate([theta[None], after])


def one(key, cell, settings, sizes):
    H, R, rho, start = draw(key, sizes.d)
    eta, size = settings["step"] ** 2, (start @ R)[None, :]
    beta = 1 - cell["friction"] * settings["step"]
    at = jnp.array(sizes.heavy)
    x = path(H, start, eta, beta, sizes.heavy[-1]) @ R

    def moved(steps, beta):
        """Columns of (x, v) that the Langevin equation makes of the start."""
        law = propagator(eta * steps.astype(eta.dtype)[:, None], eta, beta, rho[None, :])
        return law[..., 0, 0] * size, law[..., 1, 0] * size

    position, velocity = moved(at, beta)
    massless = jnp.exp(-rho[None, :] * eta * at.astype(eta.dtype)[:, None] / (1 - beta)) * size
    # Twice the mass and twice the damping are half the curvature.
    slower = propagator((eta * at.astype(eta.dtype))[:, None], eta, beta, rho[None, :] / 2)
    out = {
        "position": x[at],
        "position_theory": position,
        "position_massless": massless,
        "position_heavier": slower[..., 0, 0] * size,
        "velocity": (x[at + 1] - x[at - 1]) / (2 * settings["step"]),
        "velocity_theory": settings["step"] * velocity,
        "velocity_massless": -settings["step"] * rho[None, :] / (1 - beta) * massless,
        "velocity_heavier": settings["step"] * slower[..., 1, 0] * size,
    }
    soon = jnp.array(sizes.light)
    fixed = [(path(H, start, eta, jnp.asarray(b, eta.dtype), sizes.light[-1]) @ R)[soon] for b in MOMENTA]
    exact = [moved(soon, b)[0] for b in MOMENTA]
    plain = jnp.exp(-rho[None, :] * eta * soon.astype(eta.dtype)[:, None]) * size
    return out | {
        "light": jnp.stack(fixed),
        "light_theory": jnp.stack(exact),
        "light_without_momentum": jnp.stack([plain] * len(MOMENTA)),
    }


def ladder(sentence, output, **twins):
    return Order(
        output, sentence, setting="step", values=STEPS, order=2, replicates=20,
        axes={"friction": [1.0]}, twins={name.replace("_", " "): twin for name, twin in twins.items()},
    )  # fmt: skip


def fits(values, settings):
    if max(values["friction"]) * settings["step"] > 1:
        least = 1 - max(values["friction"]) * settings["step"]
        raise ValueError(f"`friction` must leave a momentum that is not negative, but got {least:.6g}.")


MODES = {"mode": lambda s: list(range(1, s["d"] + 1))}

continuous = Experiment(
    name="continuous",
    title="Heavy ball and the Langevin equation, at smaller and smaller steps",
    sources=(SOURCE,),
    axes={
        "friction": Parameter(
            [0.5, 1.0, 2.0], r"friction $c$: momentum $\beta = 1 - c\sqrt{\eta}$", domain=POSITIVE
        ),
    },
    settings={
        "step": Setting(0.1, "square root of the learning rate", domain=POSITIVE),
        "d": Setting(3, "dimension", domain=whole(1)),
    },
    sizes=sizes,
    simulate=per_cell(one, one_by_one=True),
    predict=lambda cells, settings, sizes: {},
    validate=fits,
    outputs={
        "position": Output("position, momentum to 1", dims={"turn": TURNS} | MODES),
        "velocity": Output(r"$\sqrt{\eta}$ times the velocity, momentum to 1", dims={"turn": TURNS} | MODES),
        "light": Output("position, fixed momentum", dims={"momentum": MOMENTA, "time": TIMES} | MODES),
    },
    claims=(
        ladder(
            "positions follow the equation to first order in eta, as momentum goes to 1", "position",
            without_mass="position_massless", twice_the_mass_and_damping="position_heavier",
        ),
        ladder(
            "velocities do as well", "velocity",
            without_mass="velocity_massless", twice_the_mass_and_damping="velocity_heavier",
        ),
        ladder(
            "at a fixed momentum positions follow it to first order in eta", "light",
            without_momentum="light_without_momentum",
        ),
    ),
    presets={
        "smoke": {"friction": [1.0, 2.0], "step": 0.2, "replicates": 4, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {"friction": [0.25, 0.5, 1.0, 2.0], "step": 0.01, "d": 32, "replicates": 50},
    },
)  # fmt: skip
