"""Risk of a soft-thresholded student in the spiked model, from singular values of random matrices."""

from __future__ import annotations

import itertools
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
    whole,
)
from sims.stochastic_collapse import modes
from sims.stochastic_collapse.setup import SOURCE
from theory.stochastic_collapse import teacher_student_risk

ENDS = ("weakest", "strongest")  # of the teacher's modes
AVERAGED = {"risk": False, "averaged_risk": True}


class Sizes(NamedTuple):
    """What a compilation depends on."""

    m: int
    rank: int
    draws: int


def sizes(settings) -> Sizes:
    return Sizes(*(settings[name] for name in Sizes._fields))


def spectrum(cells, rank: int):
    """The teacher's singular values."""
    return cells["weakest"] + (cells["strongest"] - cells["weakest"]) * jnp.linspace(0.0, 1.0, rank)


def simulate(key, cells, settings, sizes):
    """The draws of one replicate serve every threshold.

    A mode's moments under label noise are those of its stationary law, given the singular values that were drawn.
    """
    teacher, sigma = spectrum(cells, sizes.rank), cells["sigma"]
    W = jnp.diag(jnp.zeros(sizes.m).at[: sizes.rank].set(teacher))

    def decomposed(k):
        G = jax.random.normal(jax.random.fold_in(key, k), (sizes.m, sizes.m))
        left, singular, right = jnp.linalg.svd(W + sigma / sizes.m**0.5 * G)
        return singular, jnp.sum(left * (W @ right.T), axis=0)

    singular, overlap = jax.lax.map(decomposed, jnp.arange(sizes.draws))
    # Without a threshold the loss is that of the noise, of a mean that is known: it serves as control variate.
    control = losses(singular, singular**2, overlap, teacher) - sigma**2 * sizes.m

    def cell(tau):
        first = jnp.maximum(singular - tau, 0.0)
        moments = {"risk": jnp.maximum(singular**2 - tau**2, 0.0), "averaged_risk": first**2}
        return {
            name: jnp.mean(modes.controlled(losses(first, m, overlap, teacher), control)) for name, m in moments.items()
        }

    return jax.lax.map(cell, cells["tau"])


def losses(first, second, overlap, teacher):
    """Squared distances to the teacher, of modes of given moments (draws, m)."""
    return jnp.sum(second - 2 * first * overlap, axis=-1) + jnp.sum(teacher**2)


def formula(averaged: bool, **options):
    """A risk of the closed form, or of one with other options."""

    def risk(cells, settings, sizes):
        def one(tau, sigma, *ends):
            teacher = spectrum(dict(zip(ENDS, ends, strict=True)), sizes.rank)
            return teacher_student_risk(tau, teacher, sigma, sizes.m, averaged, **options)

        return jax.vmap(one)(*jnp.broadcast_arrays(*(cells[name] for name in ("tau", "sigma", *ENDS))))

    return risk


def without_the_teacher(averaged: bool):
    """The bulk as if there were no teacher, and a teacher as if nothing of it were learned."""

    def risk(cells, settings, sizes):
        def one(tau, sigma, *ends):
            teacher = spectrum(dict(zip(ENDS, ends, strict=True)), sizes.rank)
            bulk = teacher_student_risk(tau, teacher[:0], sigma, sizes.m, averaged)
            return bulk + jnp.sum(teacher**2)

        return jax.vmap(one)(*jnp.broadcast_arrays(*(cells[name] for name in ("tau", "sigma", *ENDS))))

    return risk


def predict(cells, settings, sizes):
    return {name: formula(averaged)(cells, settings, sizes) for name, averaged in AVERAGED.items()}


def fits(values, settings):
    if settings["rank"] > settings["m"]:
        raise ValueError(f"`rank` must be at most m = {settings['m']}, but got {settings['rank']}.")
    for sigma, *ends in itertools.product(*(values[name] for name in ("sigma", *ENDS))):
        if sigma in np.linspace(*ends, settings["rank"]):
            raise ValueError(f"`sigma` must be different from every mode of the teacher, but got {sigma:g}.")


LADDER = {
    "setting": "m", "values": (16, 24, 32, 48), "order": -1, "replicates": 20, "settings": {"draws": 1000},
    "axes": {"tau": [0.3, 0.45]},
}  # fmt: skip
WORDS = {"risk": "of the fluctuating student", "averaged_risk": "of the student averaged over its label noise"}

risk = Experiment(
    name="risk",
    title="Risk of a soft-thresholded student in the spiked model",
    sources=(SOURCE,),
    axes={"tau": Parameter(np.linspace(0.0, 1.3, 14), r"soft threshold $\tau$", domain=NONNEGATIVE)},
    fixed={
        "sigma": Parameter(0.5, r"noise of the data $\sigma$", domain=POSITIVE),
        "weakest": Parameter(0.6, "weakest mode of the teacher", domain=POSITIVE),
        "strongest": Parameter(1.0, "strongest mode of the teacher", domain=POSITIVE),
    },
    settings={
        "m": Setting(64, "dimension", domain=whole(2)),
        "rank": Setting(5, "rank of the teacher", domain=whole(1)),
        "draws": Setting(8, "data sets of a replicate, an even number", domain=modes.EVEN),
    },
    sizes=sizes,
    simulate=simulate,
    predict=predict,
    validate=fits,
    outputs={name: Output(f"risk {words}") for name, words in WORDS.items()},
    claims=tuple(
        Order(
            name, f"the risk {words} is that of the spiked model, to order 1/m", **LADDER,
            twins={
                "without the terms of real noise": formula(AVERAGED[name], complex_noise=True),
                "without the teacher": without_the_teacher(AVERAGED[name]),
                "of the other student": formula(not AVERAGED[name]),
            },
        )
        for name, words in WORDS.items()
    ),
    presets={
        "smoke": {"m": 16, "rank": 2, "draws": 4, "tau": [0.3, 0.9], "replicates": 4, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {"m": 256, "draws": 16, "tau": np.linspace(0.0, 1.3, 53), "replicates": 100},
    },
)  # fmt: skip
