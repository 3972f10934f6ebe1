"""The quartic landscape that every loss has near the origin, and all its stationary points."""

from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import nonnegative, number, positive, require, with_one_dtype
from theory.ssl_collapse.covariances import checked_covariances, positive_definite

LOSSES = ("infonce_distance", "infonce_dot", "spectral", "barlow", "alignment")
PAIRS = ("augmented", "clean", "positive_in_denominator")


class Landscape(NamedTuple):
    r"""The loss :math:`-\mathrm{Tr}[WBW^\top] + \kappa\,\mathrm{Tr}[(W\Sigma W^\top)^2]`.

    B, shape (d, d), pulls W from the origin, Sigma, shape (d, d), and kappa bring it back.
    """

    B: Float[Array, "d d"]
    Sigma: Float[Array, "d d"]
    kappa: Float[Array, ""]


def effective_landscape(
    A0: ArrayLike,
    C: ArrayLike,
    loss: str,
    temperature: ArrayLike = 1.0,
    alpha: ArrayLike = 1.0,
    weight_decay: ArrayLike = 0.0,
    n_negatives: ArrayLike = jnp.inf,
    *,
    pairs: str = "augmented",
) -> Landscape:
    r"""Quartic landscape of a self-supervised loss near W = 0.

    .. math:: L = -\mathrm{Tr}[WBW^\top] + \kappa\,\mathrm{Tr}[(W\Sigma W^\top)^2]

    =================  ===========================================  ==========================
    loss               B                                            kappa
    =================  ===========================================  ==========================
    infonce_distance   [A0 - (alpha - 1) C] / tau - lambda I        3/4 (1 - 1/N) / tau^2
    infonce_dot        alpha A0 / tau - lambda I                    1/2 (1 - 1/N) / tau^2
    spectral           2 A0 - lambda I                              1
    barlow             2 A0 - lambda I                              1, with A0 in Sigma's place
    alignment          -C - lambda I                                0
    =================  ===========================================  ==========================

    Args:
        A0: Covariance of clean inputs. Shape (d, d).
        C: Covariance of the augmentation noise. Shape (d, d).
        loss: "infonce_distance" (similarity -|f - f'|^2 / 2 tau), "infonce_dot" (f . f' / tau), "spectral",
            "barlow" (not normalised) or "alignment" (E |f - f+|^2 / 2 alone).
        temperature: tau of InfoNCE, positive. A number.
        alpha: Weight of InfoNCE's alignment term, zero or positive. A number.
        weight_decay: lambda of lambda |W|_F^2, zero or positive. A number.
        n_negatives: N of InfoNCE, at least 1; infinity is allowed. A number.
        pairs: Pairs of infonce_distance: "augmented" (negatives are views, as anchors are); "clean" (repulsion
            between clean points; A0 - alpha C in B, A0 in Sigma's place); "positive_in_denominator" (augmented, the
            positive beside the N negatives; alpha = 1, A0 N / (N + 1) in B, kappa its limit).

    Returns:
        `Landscape(B, Sigma, kappa)`.

    Valid: exact for spectral (any data), barlow (any data), alignment, and for infonce_dot on Gaussian data at infinite
        N; the others to fourth order in W, kappa for Gaussian data and B for any.
    Raises: ValueError for matrices that are no covariances or do not fit, an unknown loss or kind of pairs, or a number
        outside its range (concrete values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: see the tests.
    """
    A0, C, Sigma = checked_covariances(A0, C)
    if loss not in LOSSES:
        raise ValueError(f"`loss` must be one of {', '.join(LOSSES)}, but got {loss}.")
    if pairs not in PAIRS:
        raise ValueError(f"`pairs` must be one of {', '.join(PAIRS)}, but got {pairs}.")
    if pairs != "augmented" and loss != "infonce_distance":
        raise ValueError(f"`pairs` must be augmented for {loss}, but got {pairs}.")
    number(temperature=temperature, alpha=alpha, weight_decay=weight_decay, n_negatives=n_negatives)
    positive(temperature=temperature)
    nonnegative(alpha=alpha, weight_decay=weight_decay)
    require(jnp.asarray(n_negatives) >= 1, "n_negatives", "1 or more", n_negatives)
    A0, tau, alpha, decay, N = with_one_dtype(A0, temperature, alpha, weight_decay, n_negatives)
    if pairs == "positive_in_denominator":
        require(alpha == 1, "alpha", "1 with the positive in the denominator", alpha)
    one = jnp.ones((), A0.dtype)
    finite = 1 - 1 / N
    match loss, pairs:
        case "infonce_distance", "augmented":
            B, kappa = (A0 - (alpha - 1) * C) / tau, 0.75 * finite / tau**2
        case "infonce_distance", "clean":
            positive_definite(A0=A0)
            B, Sigma, kappa = (A0 - alpha * C) / tau, A0, 0.75 * finite / tau**2
        case "infonce_distance", "positive_in_denominator":
            B, kappa = A0 / (tau * (1 + 1 / N)), 0.75 / tau**2
        case "infonce_dot", _:
            B, kappa = alpha * A0 / tau, 0.5 * finite / tau**2
        case "spectral", _:
            B, kappa = 2 * A0, one
        case "barlow", _:
            positive_definite(A0=A0)
            B, Sigma, kappa = 2 * A0, A0, one
        case _:
            B, kappa = -C, 0 * one
    return Landscape(B - decay * jnp.eye(len(B), dtype=B.dtype), Sigma, kappa)
