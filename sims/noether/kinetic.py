"""Noether's learning dynamics: the momentum of heavy ball along a symmetry, and the kinetic energy that breaks it."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sims.descent import optimizer_step
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
from sims.noether import rayleigh
from sims.noether.setup import SOURCES, optimizer
from theory.noether import (
    Part,
    SymmetryFamily,
    explicit_breaking,
    heavy_ball_inertia,
    kinetic_symmetry_breaking,
    noether_memory,
    noether_momentum,
)

SHARES = (0.4, 0.6, 0.8, 1.0)  # of the time
SCALE = SymmetryFamily("scale", (Part("w"),))
RESCALE = SymmetryFamily("rescale", (Part("U", (1,)), Part("V", (0,), -1.0)))


class Sizes(NamedTuple):
    """What a compilation depends on."""

    d: int
    width: int
    steps: int


def factorization(params, Y):
    """Squared error of a product of two matrices."""
    return jnp.mean((params["U"] @ params["V"] - Y) ** 2) / 2


def draw(key, sizes: Sizes):
    """Losses with their starts: a Rayleigh quotient, and factors of a matrix, the first one the larger."""
    k_w, k_u, k_v, k_y = jax.random.split(key, 4)
    w, eigenvalues = rayleigh.draw(k_w, sizes.d)
    shape = sizes.d, sizes.width
    # All entries positive, so that draws err in the same direction and can be averaged.
    U, V = (jax.random.uniform(k, shape, minval=0.5) / sizes.width**0.5 for k in (k_u, k_v))
    Y = 2 + jax.random.uniform(k_y, (sizes.d, sizes.d))
    return (
        (lambda params: rayleigh.loss(params["w"], eigenvalues), {"w": w}),
        (lambda params: factorization(params, Y), {"U": U, "V": V.T / 2}),
    )


def heavy_ball(loss, params, rule, steps: int):
    """(parameters, central differences of them in a step) at steps 0, ..., `steps`, at rest before."""

    def step(carry, _):
        before, now, state = carry
        after, state = optimizer_step(rule, jax.grad(loss)(now), now, state)
        return (now, after, state), (now, jax.tree.map(lambda a, b: (a - b) / 2, after, before))

    return jax.lax.scan(step, (params, params, rule.init(params)), None, length=steps + 1)[1]


def one(key, cell, settings, sizes):
    eta, beta, decay = settings["learning_rate"], cell["momentum"], cell["weight_decay"]
    mass, friction = heavy_ball_inertia(eta, beta)
    rule = optimizer("heavy ball", eta, beta, decay)
    at = jnp.array([round(share * sizes.steps) for share in SHARES])
    t = eta * jnp.arange(sizes.steps + 1.0)
    out = {}
    for name, family, (loss, start) in zip(("scale", "rescale"), (SCALE, RESCALE), draw(key, sizes), strict=True):
        path, difference = heavy_ball(loss, start, rule, sizes.steps)
        velocity = jax.tree.map(lambda x: x / eta, difference)
        kinetic = jax.vmap(lambda p, v, f=family: kinetic_symmetry_breaking(f, p, v, mass))(path, velocity)
        explicit = jax.vmap(lambda p, f=family: explicit_breaking(f, p, decay))(path)
        momentum = jax.vmap(lambda p, v, f=family: noether_momentum(f, p, v, mass))(path, velocity)

        def memory(breaking):
            return noether_memory(t, breaking, friction, mass)[at] / (mass * eta)

        out |= {
            name: momentum[at] / (mass * eta),
            f"{name}_theory": memory(kinetic + explicit),
            f"{name}_without_kinetic": memory(explicit),
            f"{name}_twice_kinetic": memory(2 * kinetic + explicit),
        }
    return out


TIME = {"share": SHARES}
FASTEST = {1: 0.005, 2: 0.01}  # of the ladder: order one is hidden by order two until the steps are small
WORDS = {"scale": "the scale of a weight", "rescale": "the rescaling of two layers"}


def claims(order, words, weight_decay):
    """Claims along both symmetries; the order is that of the discrepancy in units of the kinetic term."""
    return (
        Order(
            name, f"the momentum along {symmetry} remembers {words}, up to the step size", order=order,
            axes={"momentum": [0.0, 0.3], "weight_decay": [weight_decay]},
            twins={"without the kinetic term": f"{name}_without_kinetic", "twice that term": f"{name}_twice_kinetic"},
            setting="learning_rate", values=tuple(FASTEST[order] / 2**k for k in range(4)), replicates=20,
        )
        for name, symmetry in WORDS.items()
    )  # fmt: skip


kinetic = Experiment(
    name="kinetic",
    title="Momentum along a symmetry, and the kinetic energy that breaks it",
    sources=SOURCES,
    axes={
        "momentum": Parameter([0.0, 0.3, 0.6], r"momentum $\beta$", domain=BELOW_ONE),
        "weight_decay": Parameter([0.0, 0.2], r"weight decay $\lambda$", domain=NONNEGATIVE),
    },
    settings={
        "learning_rate": Setting(0.005, "learning rate", domain=POSITIVE),
        "time": Setting(1.0, "steps times the learning rate", domain=POSITIVE),
        "d": Setting(5, "dimension", domain=whole(2)),
        "width": Setting(3, "units between the factors", domain=whole(1)),
    },
    sizes=lambda s: Sizes(s["d"], s["width"], max(len(SHARES), round(s["time"] / s["learning_rate"]))),
    simulate=per_cell(one, one_by_one=True),
    predict=lambda cells, settings, sizes: {},
    outputs={
        "scale": Output(r"$\langle\dot\theta, \xi\rangle/\eta$ along the scale", dims=TIME | {"weight": [0]}),
        "rescale": Output(
            r"$\langle\dot\theta, \xi\rangle/\eta$ along a rescaling",
            dims=TIME | {"unit": lambda s: np.arange(s["width"])},
        ),
    },
    # Heavy ball is the particle's equation in central differences, but decay is interpolated between steps.
    claims=(*claims(2, "how kinetic energy broke it", 0.0), *claims(1, "how kinetic energy and decay broke it", 1.0)),
    presets={
        "smoke": {
            "momentum": [0.0, 0.6], "weight_decay": [0.2], "learning_rate": 0.02, "replicates": 4, "ladders": False,
        },
        "laptop": {"replicates": 20},
        "paper": {
            "momentum": [0.0, 0.3, 0.6, 0.9], "weight_decay": [0.0, 0.02, 0.2], "learning_rate": 5e-4, "time": 3.0,
            "d": 50, "width": 20, "replicates": 50,
        },
    },
)  # fmt: skip
