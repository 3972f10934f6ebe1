"""The quartic landscape that every loss has near the origin: what pulls the encoder away and what brings it back."""

from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import nonnegative, number, positive, positive_semidefinite, require, with_one_dtype
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
        pairs: Pairs of InfoNCE: "augmented" (negatives are views, as anchors are); "clean" (distances only: repulsion
            between clean points, alpha C for (alpha - 1) C in B, A0 in Sigma's place); "positive_in_denominator" (the
            positive beside the N augmented negatives: A0 N / (N + 1) for A0 in B of distances, alpha - 1 / (N + 1)
            for alpha in B of products, and kappa's limit of many negatives).

    Returns:
        `Landscape(B, Sigma, kappa)`.

    Valid: exact at all W for spectral and barlow (any data) and alignment, and for infonce_dot on Gaussian data at
        infinite N; the others to fourth order in W: B for any data, kappa of infonce_dot for any and of distances for
        Gaussian data (`distance_quartic_term` for others). The positive in the denominator at finite N:
        `positive_in_denominator_loss`.
    Raises: ValueError for matrices that are no covariances or do not fit, an unknown loss or kind of pairs, or a number
        outside its range (concrete values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: reference values; `origin_matrix`; autodiff of the losses averaged by quadrature; simulation
        `sims.ssl_collapse.origin`.
    """
    A0, C, Sigma = checked_covariances(A0, C)
    check_loss(loss, pairs)
    A0, tau, alpha, decay, N = _numbers(A0, temperature, alpha, weight_decay, n_negatives)
    one = jnp.ones((), A0.dtype)
    finite = 1 - 1 / N
    match loss, pairs:
        case "infonce_distance", "augmented":
            B, kappa = (A0 - (alpha - 1) * C) / tau, 0.75 * finite / tau**2
        case "infonce_distance", "clean":
            positive_definite(A0=A0)
            B, Sigma, kappa = (A0 - alpha * C) / tau, A0, 0.75 * finite / tau**2
        case "infonce_distance", _:
            B, kappa = (A0 / (1 + 1 / N) - (alpha - 1) * C) / tau, 0.75 / tau**2
        case "infonce_dot", "augmented":
            B, kappa = alpha * A0 / tau, 0.5 * finite / tau**2
        case "infonce_dot", _:
            B, kappa = (alpha - 1 / (N + 1)) * A0 / tau, 0.5 / tau**2
        case "spectral", _:
            B, kappa = 2 * A0, one
        case "barlow", _:
            positive_definite(A0=A0)
            B, Sigma, kappa = 2 * A0, A0, one
        case _:
            B, kappa = -C, 0 * one
    return Landscape(B - decay * jnp.eye(len(B), dtype=B.dtype), Sigma, kappa)


def origin_matrix(
    negative_differences: ArrayLike,
    positive_differences: ArrayLike,
    temperature: ArrayLike = 1.0,
    alpha: ArrayLike = 1.0,
    weight_decay: ArrayLike = 0.0,
) -> Float[Array, "d d"]:
    r"""B of distance InfoNCE with any pairs, from the two covariances of differences that the loss uses.

    .. math:: B = \frac1{2\tau}\mathrm{Cov}(x - x^-) - \frac\alpha{2\tau}\mathrm{Cov}(x - x^+) - \lambda I

    Args:
        negative_differences: Covariance of anchor less negative: 2 (A0 + C) if both are views, 2 A0 + C if the anchor
            alone is, 2 A0 if none is; of all that the denominator holds, in the mean. Shape (d, d).
        positive_differences: Covariance of anchor less positive: 2 C between two views. Shape (d, d).
        temperature: tau, positive. A number.
        alpha: Weight of the alignment term, zero or positive. A number.
        weight_decay: lambda of lambda |W|_F^2, zero or positive. A number.

    Returns:
        B: the Hessian at W = 0 is -2 B, once for every row of W. Shape (d, d).

    Valid: any data, any number of negatives.
    Raises: ValueError for matrices that are no covariances or do not fit, or a number outside its range (concrete
        values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: the rows of `effective_landscape`; simulation `sims.ssl_collapse.origin`.
    """
    positive_semidefinite(negative_differences=negative_differences, positive_differences=positive_differences)
    negatives, positives = with_one_dtype(negative_differences, positive_differences)
    if negatives.shape != positives.shape:
        raise ValueError(
            f"`positive_differences` must have the shape of `negative_differences`, {negatives.shape}, but got shape "
            f"{positives.shape}."
        )
    negatives, tau, alpha, decay, _ = _numbers(negatives, temperature, alpha, weight_decay, jnp.inf)
    return (negatives - alpha * positives) / (2 * tau) - decay * jnp.eye(len(negatives), dtype=negatives.dtype)


def check_loss(loss: str, pairs: str) -> None:
    """Requirement that a loss, and its kind of pairs, is one of those that `effective_landscape` knows."""
    if loss not in LOSSES:
        raise ValueError(f"`loss` must be one of {', '.join(LOSSES)}, but got {loss}.")
    if pairs not in PAIRS:
        raise ValueError(f"`pairs` must be one of {', '.join(PAIRS)}, but got {pairs}.")
    if pairs != "augmented" and not loss.startswith("infonce"):
        raise ValueError(f"`pairs` must be augmented for {loss}, but got {pairs}.")
    if pairs == "clean" and loss != "infonce_distance":
        raise ValueError(f"`pairs` must be augmented or positive_in_denominator for {loss}, but got {pairs}.")


def _numbers(matrix, temperature, alpha, weight_decay, n_negatives) -> tuple[Array, ...]:
    """The matrix and the loss's four numbers, in their ranges and of one dtype."""
    number(temperature=temperature, alpha=alpha, weight_decay=weight_decay, n_negatives=n_negatives)
    positive(temperature=temperature)
    nonnegative(alpha=alpha, weight_decay=weight_decay)
    require(jnp.asarray(n_negatives) >= 1, "n_negatives", "1 or more", n_negatives)
    return with_one_dtype(matrix, temperature, alpha, weight_decay, n_negatives)
