"""Taylor coefficients of sampled losses at W = 0: the curvature in every direction, and the term of fourth order.

They are derivatives of the loss of real minibatches at the origin itself and have no remainder: their means are exact.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sims.engine.experiment import (
    NONNEGATIVE,
    POSITIVE,
    Domain,
    Experiment,
    Mean,
    Output,
    Parameter,
    Setting,
    in_columns,
    per_cell,
    whole,
)
from sims.ssl_collapse.setup import SOURCE
from sims.ssl_collapse.taylor import (
    A0,
    ALIGNMENT,
    ANCHOR,
    CLEAN,
    DIRECTIONS,
    DISTANCE,
    DISTANCE_KEPT,
    DOT,
    DOT_KEPT,
    SPECTRAL,
    C,
    W,
    draw,
    taylor,
)
from theory.ssl_collapse import (
    anchor_augmented_loss,
    distance_quartic_term,
    effective_landscape,
    origin_matrix,
    positive_in_denominator_loss,
    quartic_loss,
)

QUARTIC = np.arange(SPECTRAL + 1, dtype=np.int32)  # the minibatch loss of Barlow Twins is biased in fourth order
ANY_DATA = np.array([DISTANCE, CLEAN, DOT, SPECTRAL], np.int32)
KEPT = np.array([DISTANCE_KEPT, DOT_KEPT], np.int32)


class Sizes(NamedTuple):
    """What a compilation depends on."""

    n: int
    batches: int


def sizes(settings) -> Sizes:
    n = int(settings["n_negatives"]) + 1
    return Sizes(n, max(settings["samples"] // n, 1))


def one(key, cell, settings, sizes):
    def of_batch(k):
        batch = draw(jax.random.fold_in(key, k), sizes.n, cell["density"])
        return taylor(batch, cell["temperature"], cell["alpha"], cell["weight_decay"])

    second, fourth = jax.tree.map(lambda x: jnp.mean(x, 0), jax.vmap(of_batch)(jnp.arange(sizes.batches)))
    return {"curvature": -second, "quartic": fourth[QUARTIC], "quartic_any": fourth[ANY_DATA]}


def matrices(N, tau, alpha, decay):
    """B of every loss. Shape (losses, 3, 3)."""

    def of(loss, pairs="augmented"):
        return effective_landscape(A0, C, loss, tau, alpha, decay, N, pairs=pairs).B

    augmented, clean, kept = (
        of("infonce_distance", pairs) for pairs in ("augmented", "clean", "positive_in_denominator")
    )
    anchor = origin_matrix(2 * A0 + C, 2 * C, tau, alpha, decay)
    products = [of("infonce_dot", pairs) for pairs in ("augmented", "positive_in_denominator")]
    rest = [of(loss) for loss in ("spectral", "barlow", "alignment")]
    return jnp.stack([augmented, clean, anchor, kept, *products, *rest])


def quartic_terms(N, tau):
    """Terms of fourth order in W of the losses of `QUARTIC`, for Gaussian data."""

    def of(loss, pairs="augmented"):
        landscape = effective_landscape(A0, C, loss, tau, n_negatives=N, pairs=pairs)
        return quartic_loss(W, landscape._replace(B=0 * landscape.B))

    def beyond(loss, *how):
        # The fourth order of an even polynomial: its second order cancels between W and 2 W.
        return (loss(2 * W, A0, C, *how, tau, n_negatives=N) - 4 * loss(W, A0, C, *how, tau, n_negatives=N)) / 12

    kept = [beyond(positive_in_denominator_loss, loss) for loss in ("infonce_distance", "infonce_dot")]
    distances = [of("infonce_distance"), of("infonce_distance", "clean"), beyond(anchor_augmented_loss), kept[0]]
    return jnp.stack([*distances, of("infonce_dot"), kept[1], of("spectral")])


def norm_variance(noise, density):
    """Variance of |W x|^2 of sparse clean inputs with Gaussian noise."""

    def fourth_moment(X):
        S = W @ X @ W.T
        return jnp.trace(S) ** 2 + 2 * jnp.sum(S**2)

    moment = density * fourth_moment(A0 / density + noise) + (1 - density) * fourth_moment(jnp.asarray(noise))
    return moment - np.trace(W @ (A0 + noise) @ W.T) ** 2


def any_terms(N, tau, density):
    """Terms of fourth order in W of the losses of `ANY_DATA`, for sparse data."""
    distances = [
        distance_quartic_term(W @ (A0 + noise) @ W.T, norm_variance(noise, density), tau, N) for noise in (C, 0 * C)
    ]
    gaussian = quartic_terms(N, tau)
    return jnp.stack([*distances, gaussian[DOT], gaussian[SPECTRAL]])


def over_cells(formula):
    """A formula of (N, tau, alpha, decay, density) in every cell."""

    def values(cells, settings, sizes):
        columns = in_columns(cells)
        names = ("temperature", "alpha", "weight_decay", "density")
        return jax.vmap(lambda *numbers: formula(sizes.n - 1, *numbers))(*(columns[name] for name in names))

    return values


def curvature(change=lambda B, *_: B):
    """Quadratic forms of the matrices, after a change of them."""

    def formula(N, tau, alpha, decay, density):
        B = change(matrices(N, tau, alpha, decay), tau, alpha, decay)
        return jnp.einsum("vi,lij,vj->lv", DIRECTIONS, B, DIRECTIONS)

    return over_cells(formula)


def quartic(change=lambda terms, *_: terms):
    """Terms of fourth order, after a change of them."""
    return over_cells(lambda N, tau, *_: change(quartic_terms(N, tau), tau))


def predict(cells, settings, sizes):
    arguments = cells, settings, sizes
    return {
        "curvature": curvature()(*arguments),
        "quartic": quartic()(*arguments),
        "quartic_any": over_cells(lambda N, tau, alpha, decay, density: any_terms(N, tau, density))(*arguments),
    }


def undiluted(B, tau, alpha, decay):
    return B.at[KEPT].set(matrices(jnp.inf, tau, alpha, decay)[KEPT])


def endless(terms, tau):
    return terms.at[KEPT].set(quartic_terms(jnp.inf, tau)[KEPT])


def without_factor(N):
    """Infinitely many negatives, but for a single one: a term that is exactly zero would decide alone."""
    return jnp.inf if N > 1 else N


CURVATURE_TWINS = {
    "alpha C for (alpha - 1) C": curvature(lambda B, tau, *_: B.at[DISTANCE].add(-C / tau)),
    "N / (N + 1) omitted": curvature(undiluted),
    "anchors as clean as the negatives": curvature(lambda B, *_: B.at[ANCHOR].set(B[CLEAN])),
    "decay with 1/2": curvature(lambda B, tau, alpha, decay: B + decay / 2 * jnp.eye(3)[None]),
    "A0 for 2 A0 in the spectral loss": curvature(lambda B, *_: B.at[SPECTRAL].add(-A0)),
    "alignment without its 1/2": curvature(lambda B, *_: B.at[ALIGNMENT].add(-C)),
}
QUARTIC_TWINS = {
    "InfoNCE's 3/4 for the spectral loss": quartic(lambda terms, tau: terms.at[SPECTRAL].multiply(0.75)),
    "1/2 for 3/4 in distances": quartic(lambda terms, tau: terms.at[DISTANCE].multiply(2 / 3)),
    "1 - 1/N omitted": over_cells(lambda N, tau, *_: quartic_terms(without_factor(N), tau).at[KEPT].set(
        quartic_terms(N, tau)[KEPT])),
    "many negatives beside the positive": quartic(endless),
    "views for clean points": quartic(lambda terms, tau: terms.at[CLEAN].set(terms[DISTANCE])),
}  # fmt: skip
ANY_TWINS = {
    "kappa of Gaussian data": over_cells(lambda N, tau, *_: quartic_terms(N, tau)[ANY_DATA]),
    "1 - 1/N omitted": over_cells(lambda N, tau, alpha, decay, density: any_terms(without_factor(N), tau, density)),
}


def is_gaussian(cells, settings):
    return cells["density"] == 1


SHARE = Domain("above 0 and at most 1", lambda x: (x > 0) & (x <= 1))

origin = Experiment(
    name="origin",
    title="Curvature and quartic term of self-supervised losses at the origin",
    sources=(SOURCE,),
    axes={
        "n_negatives": Parameter([1, 3, 12], "negatives $N$", scale="log", domain=whole(1), role="static"),
        "density": Parameter([0.3, 1.0], "share of inputs that are not zero", domain=SHARE),
    },
    fixed={
        "temperature": Parameter(0.8, r"temperature $\tau$", domain=POSITIVE),
        "alpha": Parameter(1.6, r"weight of alignment $\alpha$", domain=NONNEGATIVE),
        "weight_decay": Parameter(0.3, r"weight decay $\lambda$", domain=NONNEGATIVE),
    },
    settings={"samples": Setting(6000, "anchors of a replicate", domain=whole(1))},
    sizes=sizes,
    simulate=per_cell(one),
    predict=predict,
    outputs={
        "curvature": Output(
            r"curvature $v^\top Bv$", dims={"loss": np.arange(9), "direction": np.arange(len(DIRECTIONS))}
        ),
        "quartic": Output("term of fourth order", dims={"quartic_loss": QUARTIC}),
        "quartic_any": Output("term of fourth order, any data", dims={"any_loss": ANY_DATA}),
    },
    claims=(
        Mean("curvature", "the curvature at W = 0 is -2 B of every loss, whatever the data", twins=CURVATURE_TWINS),
        Mean(
            "quartic", "the term of fourth order is that of every loss, for Gaussian data", twins=QUARTIC_TWINS,
            where=is_gaussian,
        ),
        Mean(
            "quartic_any", "of other data distances feel the variance of |f|^2, products and the spectral loss nothing",
            twins=ANY_TWINS,
        ),
    ),
    presets={
        "smoke": {"n_negatives": [3], "samples": 400, "replicates": 6, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {
            "n_negatives": [1, 2, 4, 8, 32, 128], "density": [0.1, 0.3, 1.0], "samples": 100_000, "replicates": 50,
        },
    },
)  # fmt: skip
