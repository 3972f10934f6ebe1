"""Fourth-order landscapes of InfoNCE that are not of the common form: other pairs, few negatives, data not Gaussian."""

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import nonnegative, number, positive, require, with_one_dtype
from theory.ssl_collapse.covariances import checked_covariances
from theory.ssl_collapse.landscape import effective_landscape, origin_matrix


def anchor_augmented_loss(
    W: ArrayLike,
    A0: ArrayLike,
    C: ArrayLike,
    temperature: ArrayLike = 1.0,
    alpha: ArrayLike = 1.0,
    weight_decay: ArrayLike = 0.0,
    n_negatives: ArrayLike = jnp.inf,
) -> Float[Array, ""]:
    r"""Distance InfoNCE near W = 0, between augmented anchors and clean negatives.

    .. math:: L = -\mathrm{Tr}[WBW^\top] + \frac{1 - 1/N}{\tau^2}
        \mathrm{Tr}\big[\tfrac14 MA_0MA_0 + \tfrac12 M\Sigma MA_0\big], \qquad
        B = \frac{A_0 + (\frac12 - \alpha)C}\tau - \lambda I, \quad M = W^\top W

    Args:
        W: Encoder. Shape (m, d).
        A0: Covariance of clean inputs. Shape (d, d).
        C: Covariance of the augmentation noise. Shape (d, d).
        temperature: tau, positive. A number.
        alpha: Weight of the alignment term between two views, zero or positive. A number.
        weight_decay: lambda of lambda |W|_F^2, zero or positive. A number.
        n_negatives: N, at least 1; infinity is allowed. A number.

    Returns:
        The loss, 0 at W = 0. A number.

    Valid: to fourth order in W, Gaussian data; the part of second order for any.
    Raises: ValueError as `effective_landscape`, or if W does not fit (concrete values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: autodiff of the loss averaged by quadrature; simulation `sims.ssl_collapse.origin`.
    """
    A0, C, Sigma = checked_covariances(A0, C)
    B = origin_matrix(2 * A0 + C, 2 * C, temperature, alpha, weight_decay)
    M, B, A0, Sigma, tau, N = _gram(W, B, A0, Sigma, temperature, n_negatives)
    return -_trace(M, B) + (1 - 1 / N) / tau**2 * (_square(M, A0, A0) / 4 + _square(M, Sigma, A0) / 2)


def positive_in_denominator_loss(
    W: ArrayLike,
    A0: ArrayLike,
    C: ArrayLike,
    loss: str = "infonce_distance",
    temperature: ArrayLike = 1.0,
    alpha: ArrayLike = 1.0,
    weight_decay: ArrayLike = 0.0,
    n_negatives: ArrayLike = jnp.inf,
) -> Float[Array, ""]:
    r"""InfoNCE near W = 0 with the positive beside N augmented negatives in the denominator.

    .. math:: L = -\mathrm{Tr}[WBW^\top] + \frac{N^2 v + N p}{2(N + 1)^2}, \qquad M = W^\top W

    with, for distances and for products in turn,

    .. math::
        \tau^2 v &= \tfrac32\mathrm{Tr}[(M\Sigma)^2], &
        \tau^2 p &= (\mathrm{Tr}[MA_0])^2 + \mathrm{Tr}[(MC)^2] + \tfrac12\mathrm{Tr}[(M\Sigma)^2], \\
        \tau^2 v &= \mathrm{Tr}[(M\Sigma)^2], &
        \tau^2 p &= (\mathrm{Tr}[MA_0])^2 + \mathrm{Tr}[(MA_0)^2] + \mathrm{Tr}[(M\Sigma)^2]

    v is the variance of a similarity over negatives, p the mean square by which the positive's differs from their mean.

    Args:
        W: Encoder. Shape (m, d).
        A0: Covariance of clean inputs. Shape (d, d).
        C: Covariance of the augmentation noise. Shape (d, d).
        loss: "infonce_distance" or "infonce_dot".
        temperature: tau, positive. A number.
        alpha: Weight of the alignment term, zero or positive. A number.
        weight_decay: lambda of lambda |W|_F^2, zero or positive. A number.
        n_negatives: N, at least 1; infinity is allowed. A number.

    Returns:
        The loss, less its value at W = 0. A number.

    Valid: to fourth order in W, Gaussian data; the part of second order for any.
    Raises: ValueError as `effective_landscape`, or if W does not fit (concrete values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: autodiff of the loss averaged by quadrature; simulation `sims.ssl_collapse.origin`.
    """
    A0, C, _ = checked_covariances(A0, C)
    how = {"pairs": "positive_in_denominator"}
    B, Sigma, _ = effective_landscape(A0, C, loss, temperature, alpha, weight_decay, n_negatives, **how)
    M, B, A0, C, Sigma, tau, N = _gram(W, B, A0, C, Sigma, temperature, n_negatives)
    views, clean = _square(M, Sigma, Sigma), _trace(M, A0) ** 2
    if loss == "infonce_distance":
        v, p = 1.5 * views, clean + _square(M, C, C) + 0.5 * views
    else:
        v, p = views, clean + _square(M, A0, A0) + views
    return -_trace(M, B) + (v + p / N) / (2 * tau**2 * (1 + 1 / N) ** 2)


def distance_quartic_term(
    S: ArrayLike, norm_variance: ArrayLike, temperature: ArrayLike = 1.0, n_negatives: ArrayLike = jnp.inf
) -> Float[Array, ""]:
    r"""Fourth-order term of distance InfoNCE for data of any symmetric distribution.

    .. math:: \frac{1 - 1/N}{\tau^2}\Big[\tfrac12\mathrm{Tr}\,S^2 + \tfrac18\mathrm{Var}|f|^2\Big]

    Gaussian embeddings have Var |f|^2 = 2 Tr S^2: the kappa of `effective_landscape`.

    Args:
        S: Covariance of the embeddings f between which the loss repels. Shape (m, m).
        norm_variance: Variance of |f|^2, zero or positive. A number.
        temperature: tau, positive. A number.
        n_negatives: N, at least 1; infinity is allowed. A number.

    Returns:
        The term, quadratic in S. A number.

    Valid: anchors and negatives of one distribution with f and -f alike, the positive left out of the denominator.
    Raises: ValueError for a matrix that is no covariance or a number outside its range (concrete values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: Gaussian limit; a finite data set averaged exactly; simulation `sims.ssl_collapse.origin`.
    """
    number(norm_variance=norm_variance, temperature=temperature, n_negatives=n_negatives)
    nonnegative(norm_variance=norm_variance)
    positive(temperature=temperature)
    require(jnp.asarray(n_negatives) >= 1, "n_negatives", "1 or more", n_negatives)
    S, variance, tau, N = with_one_dtype(S, norm_variance, temperature, n_negatives)
    return (1 - 1 / N) / tau**2 * (jnp.sum(S**2) / 2 + variance / 8)


def _gram(W, *others) -> tuple[Array, ...]:
    """(M, the others) of one dtype; the first of the others is a matrix that W must fit."""
    shape, d = np.shape(W), len(others[0])
    if len(shape) != 2 or shape[1] != d or not shape[0]:
        raise ValueError(f"`W` must have shape (m, {d}), but got shape {shape}.")
    W, *others = with_one_dtype(W, *others)
    return W.T @ W, *others


def _trace(M, X):
    """Tr [M X] of symmetric matrices."""
    return jnp.sum(M * X)


def _square(M, X, Y):
    """Tr [M X M Y] of symmetric matrices."""
    return jnp.sum((M @ X) * (Y @ M))
