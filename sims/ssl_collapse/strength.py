"""The strength of equal modes under InfoNCE with few negatives: SGD on minibatches about the minimum."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

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
from sims.ssl_collapse.infonce_training import in_embedding, minibatch_infonce, stationary_gram
from sims.ssl_collapse.setup import SOURCE
from theory.ssl_collapse import (
    finite_negatives_shift,
    infonce_mode_strength,
    infonce_strength_near_threshold,
    negatives_dilution,
)

INSIDE = Domain("between 0 and 1", lambda x: (x > 0) & (x < 1))
FEW = 40  # negatives for each one that counts, from which on the next order in 1/N is small


class Sizes(NamedTuple):
    """What a compilation depends on."""

    negatives: int
    modes: int
    steps: int


def one(key, cell, settings, sizes):
    q = jnp.full((sizes.modes,), cell["q"])
    loss = minibatch_infonce(sizes.negatives + 1, 1 - q, q, 1.0, 1.0, 0.0)
    start = jnp.diag(jnp.sqrt(infonce_mode_strength(q)))
    # What the noise of SGD adds is of the order rate / N: with this rate of the second order in 1 / N.
    gram = stationary_gram(loss, start, key, sizes.steps, settings["rate_times_negatives"] / sizes.negatives)
    strength = jnp.trace(in_embedding(gram, jnp.ones_like(q), 1.0)) / sizes.modes
    return {"strength": strength, "strength_shifted": strength}


def limit(cells, settings, sizes):
    return infonce_mode_strength(cells["q"])


def shift_of(modes: int, q, negatives):
    """Shift of one of so many equal modes."""
    return finite_negatives_shift(jnp.broadcast_to(q[:, None], (len(q), modes)), negatives)[:, 0]


def shifted(cells, settings, sizes):
    return limit(cells, settings, sizes) + shift_of(sizes.modes, cells["q"], cells["negatives"])


def predict(cells, settings, sizes):
    return {"strength": limit(cells, settings, sizes), "strength_shifted": shifted(cells, settings, sizes)}


def each_on_its_own(cells, settings, sizes):
    """The shift by the mode's own share in Pi."""
    return limit(cells, settings, sizes) + shift_of(1, cells["q"], cells["negatives"])


def twice_the_shift(cells, settings, sizes):
    """1 / N for 1 / 2N."""
    return 2 * shifted(cells, settings, sizes) - limit(cells, settings, sizes)


def quartic(cells, settings, sizes):
    return infonce_strength_near_threshold(1 - cells["q"], order=1)


def noise_of_the_difference(cells, settings, sizes):
    """2 q for q: the noise of a pair's difference over the variance of a view."""
    return infonce_mode_strength(2 * cells["q"])


def enough_negatives(cells, settings):
    dilution = np.asarray(negatives_dilution(np.asarray(infonce_mode_strength(cells["q"]))[:, None]))
    return dilution ** cells["modes"] * FEW < cells["negatives"]


strength = Experiment(
    name="strength",
    title="Strength of a mode under InfoNCE with few negatives",
    sources=(SOURCE,),
    axes={
        "q": Parameter([0.2, 0.4, 0.55, 0.75], r"noise fraction $\hat q$", domain=INSIDE),
        "negatives": Parameter([15, 127], r"negatives $N$", domain=whole(1), role="static"),
        "modes": Parameter([1, 3], "equal modes", domain=whole(1), role="static"),
    },
    settings={
        "steps": Setting(2000, "steps of SGD", domain=whole(4)),
        "rate_times_negatives": Setting(1.5, "learning rate times negatives", domain=POSITIVE),
    },
    sizes=lambda settings: Sizes(*(int(settings[name]) for name in Sizes._fields)),
    simulate=per_cell(one, one_by_one=True),
    predict=predict,
    outputs={
        "strength": Output(r"strength $s$ in units of $\tau$"),
        "strength_shifted": Output(r"strength $s$ in units of $\tau$, shifted"),
    },
    claims=(
        Mean(
            "strength_shifted", "few negatives shift the strength as Pi / N, Pi the product over all modes",
            where=enough_negatives,
            twins={"no shift": limit, "every mode on its own": each_on_its_own, "twice the shift": twice_the_shift},
        ),
        Order(
            "strength", "the strength reaches the exact minimum as 1 / N",
            setting="negatives", values=(23, 47, 95, 143), order=-1, replicates=20,
            axes={"q": [0.35, 0.5], "modes": [1]},
            twins={"the quartic landscape": quartic, "2 q for q": noise_of_the_difference},
        ),
    ),
    presets={
        "smoke": {"q": [0.3, 0.7], "modes": [1], "negatives": [15], "steps": 300, "replicates": 4, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {
            "q": np.linspace(0.1, 0.9, 17), "negatives": [15, 31, 63, 127, 255], "modes": [1, 2, 4], "steps": 20_000,
            "replicates": 20,
        },
    },
)  # fmt: skip
