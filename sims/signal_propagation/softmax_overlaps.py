"""Softmax rows over real Gaussian logits: their overlaps beside the exact integrals."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sims.engine.experiment import NONNEGATIVE, Experiment, Mean, Output, Parameter, Setting, per_cell, whole
from sims.signal_propagation.setup import FRACTION, SOURCE
from theory.signal_propagation import softmax_overlaps as theory


class Sizes(NamedTuple):
    """What a compilation depends on."""

    n: int
    pairs: int


def sizes(settings):
    return Sizes(int(settings["n"]), settings["pairs"])


def one(key, cell, settings, sizes):
    """Pairs of softmax rows whose logits correlate column by column."""
    k_shared, k_own = jax.random.split(key)
    shared = jax.random.normal(k_shared, (1, sizes.pairs, sizes.n))
    own = jax.random.normal(k_own, (2, sizes.pairs, sizes.n))
    logits = cell["s"] * (jnp.sqrt(cell["r"]) * shared + jnp.sqrt(1 - cell["r"]) * own)
    A, B = jax.nn.softmax(logits, axis=-1)
    AA, BB, AB = (jnp.sum(x * y, -1) for x, y in ((A, A), (B, B), (A, B)))
    alone = sum(jnp.mean(S - 2 * jnp.sum(X**3, -1) + S**2) for X, S in ((A, AA), (B, BB))) / 2
    both = jnp.mean(AB - jnp.sum(A**2 * B, -1) - jnp.sum(A * B**2, -1) + AB**2)
    return {"Q": jnp.mean(AA + BB) / 2, "P": jnp.mean(AB), "T1": alone, "T2": both}


def predict(cells, settings, sizes):
    return theory(sizes.n, cells["s"], cells["r"])._asdict()


def other_method(output, method):
    def formula(cells, settings, sizes):
        return getattr(theory(sizes.n, cells["s"], cells["r"], method), output)

    return formula


WORDS = {
    "Q": "the overlap of a row with itself",
    "P": "the overlap of two rows",
    "T1": "the softmax derivative of one row",
    "T2": "the softmax derivative of two rows",
}

softmax_overlaps = Experiment(
    name="softmax_overlaps",
    title="Overlaps of softmax rows over Gaussian logits",
    sources=(SOURCE,),
    axes={
        "n": Parameter([16, 64, 256], "logits $n$", scale="log", domain=whole(1), role="static"),
        "s": Parameter([0.5, 1.0, 2.0, 3.0, 5.0], "logit standard deviation $s$", domain=NONNEGATIVE),
        "r": Parameter([0.0, 0.5, 0.9], "correlation of the rows $r$", domain=FRACTION),
    },
    settings={"pairs": Setting(200, "pairs of rows that a replicate averages", domain=whole(1))},
    sizes=sizes,
    simulate=per_cell(one, one_by_one=True),
    predict=predict,
    outputs={
        "Q": Output(r"$Q=\mathbb{E}\,\sum_j A_j^2$"),
        "P": Output(r"$P=\mathbb{E}\,\sum_j A_jB_j$"),
        "T1": Output(r"$T_1$"),
        "T2": Output(r"$T_2$"),
    },
    claims=tuple(
        Mean(
            name, f"{words} is exact at every n and s", rounding=1e6,
            twins={"the annealed closure": other_method(name, "annealed")},
        )
        for name, words in WORDS.items()
    ),
    presets={
        "smoke": {"n": [16, 64], "s": [0.5, 2.0, 4.0], "pairs": 100, "replicates": 20},
        "laptop": {"replicates": 40},
        "paper": {"n": [16, 64, 256, 1024, 4096], "pairs": 5000, "replicates": 100},
    },
)  # fmt: skip
