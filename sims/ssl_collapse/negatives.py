"""What finitely many negatives change in the loss of InfoNCE: minibatch losses of encoders that are not trained."""

from __future__ import annotations

from typing import NamedTuple

import jax
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
from sims.ssl_collapse.losses import log_mean_negatives, squared_distances
from sims.ssl_collapse.setup import SOURCE
from sims.ssl_collapse.training import gaussian_views
from theory.ssl_collapse import finite_negatives_correction, finite_negatives_dot_correction, negatives_dilution

TOGETHER = 64  # minibatches side by side
CORRELATION = Domain("from 0 to 1", lambda x: (x >= 0) & (x <= 1))


class Sizes(NamedTuple):
    """What a compilation depends on."""

    negatives: int
    modes: int
    anchors: int


def excess(key, s, rho, similarities, limit, sizes: Sizes):
    """What the repulsion of N negatives has over its limit, without and with the positive beside them.

    The fluctuation of a denominator about its mean, whose own mean is zero, is taken out: most of the noise is in it.

    Args:
        key: Root of the minibatches.
        s: Variances of the embedding, whose views correlate by rho. Shape (modes,).
        similarities: Of two sets of embeddings, shape (n, n).
        limit: Logarithm of the mean of exp(similarity) over all negatives, of embeddings. Shape (n,).
    """
    n = sizes.negatives + 1

    def minibatch(k):
        first, second = gaussian_views(k, n, jnp.sqrt(rho * s), jnp.sqrt((1 - rho) * s))
        pairs, mean = similarities(first, second), limit(first)
        alone, beside = log_mean_negatives(pairs), log_mean_negatives(pairs, positive=True)
        fluctuation = jnp.expm1(alone - mean)
        return jnp.mean(alone - mean - fluctuation), jnp.mean(beside - mean - fluctuation)

    batches = -(-sizes.anchors // n)
    keys = jax.vmap(lambda k: jax.random.fold_in(key, k))(jnp.arange(batches))
    alone, beside = jax.lax.map(minibatch, keys, batch_size=min(TOGETHER, batches))
    return jnp.mean(alone), jnp.mean(beside)


def distance(key, cell, settings, sizes):
    s = jnp.full((sizes.modes,), cell["strength"])

    def similarities(first, second):
        return -squared_distances(first, second) / 2

    def limit(f):
        return -jnp.sum(jnp.log1p(s)[None, :] + f**2 / (1 + s)[None, :], axis=1) / 2

    only, beside = excess(key, s, cell["rho"], similarities, limit, sizes)
    return {"negatives_only": only, "with_positive": beside}


def dot(key, cell, settings, sizes):
    s = jnp.full((sizes.modes,), cell["strength"])

    def similarities(first, second):
        return jnp.matmul(first, second.T, precision="highest")

    def limit(f):
        return jnp.sum(s[None, :] * f**2, axis=1) / 2

    return {"dot": excess(key, s, cell["rho"], similarities, limit, sizes)[0]}


def several(value, modes: int):
    """As many equal modes. Shape (cells, modes)."""
    return jnp.broadcast_to(value[:, None], (len(value), modes))


def predict_distance(cells, settings, sizes):
    s, rho = (
        several(jnp.broadcast_to(cells[name], cells["strength"].shape), sizes.modes) for name in ("strength", "rho")
    )
    return {
        "negatives_only": finite_negatives_correction(s, cells["negatives"]),
        "with_positive": finite_negatives_correction(s, cells["negatives"], rho=rho),
    }


def predict_dot(cells, settings, sizes):
    s = several(cells["strength"], sizes.modes)
    return {"dot": finite_negatives_dot_correction(s, cells["negatives"], order=2)}


def nothing(cells, settings, sizes):
    return jnp.zeros_like(cells["strength"])


def alone(cells, settings, sizes):
    return predict_distance(cells, settings, sizes)["negatives_only"]


def twice(cells, settings, sizes):
    """1 / N for 1 / 2N."""
    return 2 * alone(cells, settings, sizes)


def without_one(cells, settings, sizes):
    """Pi for Pi - 1."""
    return -negatives_dilution(several(cells["strength"], sizes.modes)) / (2 * cells["negatives"])


def sum_of_modes(cells, settings, sizes):
    """Every mode on its own: the sum of their shares for the product."""
    return sizes.modes * finite_negatives_correction(several(cells["strength"], 1), cells["negatives"])


def identical_positive(cells, settings, sizes):
    """The positive as near as its own anchor: 1 / N for its mean share."""
    return alone(cells, settings, sizes) + 1 / cells["negatives"]


def first_order_of(change):
    """The dot product's first order, of other strengths."""

    def formula(cells, settings, sizes):
        return finite_negatives_dot_correction(change(several(cells["strength"], sizes.modes)), cells["negatives"])

    return formula


def twice_the_dot(cells, settings, sizes):
    return 2 * first_order_of(lambda s: s)(cells, settings, sizes)


def finite_moments(cells, settings):
    """Strengths below 1 / sqrt 12, where the order after the second is 1 / N^3."""
    return cells["strength"] < 12**-0.5


SETTINGS = {"anchors": Setting(65_536, "anchors in all minibatches of a replicate", domain=whole(1))}
SMOKE = {"anchors": 2048, "negatives": [7], "modes": [2], "replicates": 4, "ladders": False}


def axes(strengths, negatives):
    return {
        "strength": Parameter(strengths, r"strength $s$ in units of $\tau$", domain=POSITIVE),
        "negatives": Parameter(negatives, r"negatives $N$", domain=whole(1), role="static"),
        "modes": Parameter([1, 3], "equal modes", domain=whole(1), role="static"),
    }


def sizes_of(settings) -> Sizes:
    return Sizes(*(int(settings[name]) for name in Sizes._fields))


# Beyond 0.785, the root of 1 + 5 s = 8 s^2, the term of order 1 / N^3 is infinite and the next order no whole power.
LADDER = {
    "setting": "negatives", "values": (7, 15, 31, 63), "order": -2, "replicates": 20,
    "axes": {"strength": [0.4, 0.6], "modes": [2]}, "settings": {"anchors": 262_144},
}  # fmt: skip

negatives = Experiment(
    name="negatives",
    title="The loss of InfoNCE with few negatives",
    sources=(SOURCE,),
    axes=axes([0.25, 0.5, 1.0, 1.5], [7, 31]),
    fixed={"rho": Parameter(0.6, r"correlation of two views $\rho$", domain=CORRELATION)},
    settings=SETTINGS,
    sizes=sizes_of,
    simulate=per_cell(distance, one_by_one=True),
    predict=predict_distance,
    outputs={
        "negatives_only": Output(r"$L_N - L$, negatives only"),
        "with_positive": Output(r"$L_N - L$, the positive beside them"),
    },
    claims=(
        Order(
            "negatives_only", "the loss differs by (Pi - 1) / 2N, up to 1 / N^2", **LADDER,
            twins={
                "no difference": nothing, "1 / N for 1 / 2N": twice, "Pi for Pi - 1": without_one,
                "a sum over modes": sum_of_modes,
            },
        ),
        Order(
            "with_positive", "a positive in the denominator adds its mean share, up to 1 / N^2", **LADDER,
            twins={
                "no difference": nothing, "without it": alone, "the positive as near as the anchor": identical_positive,
            },
        ),
    ),
    presets={
        "smoke": SMOKE,
        "laptop": {"replicates": 20},
        "paper": {
            "strength": np.linspace(0.1, 2.0, 20), "anchors": 4_000_000, "modes": [1, 2, 4], "negatives": [7, 31, 127],
            "replicates": 20,
        },
    },
)  # fmt: skip

negatives_dot = Experiment(
    name="negatives_dot",
    title="The loss of InfoNCE with dot products and few negatives",
    sources=(SOURCE,),
    axes=axes([0.1, 0.2, 0.25, 0.45, 0.6, 0.8], [31, 127]),
    fixed={"rho": Parameter(0.6, r"correlation of two views $\rho$", domain=CORRELATION)},
    settings=SETTINGS,
    sizes=sizes_of,
    simulate=per_cell(dot, one_by_one=True),
    predict=predict_dot,
    outputs={"dot": Output(r"$L_N - L$, dot product")},
    claims=(
        Mean(
            "dot", "weak modes: the loss differs by the determinant, with the next order in 1 / N",
            where=finite_moments,
            twins={
                "no difference": nothing, "1 / N for 1 / 2N": twice_the_dot,
                "det(I - S^2)": first_order_of(lambda s: s / 2**0.5),
            },
        ),
    ),
    presets={
        "smoke": SMOKE | {"negatives": [31]},
        "laptop": {"replicates": 20},
        "paper": {
            "strength": np.linspace(0.05, 1.0, 20), "anchors": 4_000_000, "modes": [1, 2, 4],
            "negatives": [31, 127, 511], "replicates": 20,
        },
    },
)  # fmt: skip
