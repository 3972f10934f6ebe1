"""A bias beside the linear encoder, f(x) = W x + b: what it takes from the spectral loss and from InfoNCE."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import (
    finite,
    integer,
    nonnegative,
    number,
    positive,
    positive_semidefinite,
    require,
    traced,
    with_one_dtype,
)
from theory.ssl_collapse.covariances import checked_covariances, inverse_root, whitened


class BiasedMinimum(NamedTuple):
    r"""Minimum of the spectral loss with a bias.

    Strengths, the eigenvalues of :math:`\Sigma^{1/2}M\Sigma^{1/2}`, falling, shape (d,); Gram matrix M = W^T W, shape
    (d, d); |b|^2; and the loss.
    """

    strengths: Float[Array, " d"]
    gram: Float[Array, "d d"]
    bias_square: Float[Array, ""]
    loss: Float[Array, ""]


def spectral_loss_with_bias(
    W: ArrayLike, bias: ArrayLike, A0: ArrayLike, C: ArrayLike, weight_decay: ArrayLike = 0.0
) -> Float[Array, ""]:
    r"""Spectral contrastive loss of an encoder with a bias.

    .. math:: L = -2\mathrm{Tr}[WA_0W^\top] - 2|b|^2 + \mathrm{Tr}S^2 + 2b^\top Sb + |b|^4 + \lambda|W|_F^2

    Args:
        W: Weights. Shape (m, d).
        bias: b. Shape (m,).
        A0: Covariance of clean inputs. Shape (d, d).
        C: Covariance of the augmentation noise. Shape (d, d).
        weight_decay: lambda, zero or positive; the bias does not decay. A number.

    Returns:
        L.

    Valid: any distribution of inputs of mean 0.
    Raises: ValueError for matrices that are no covariances or shapes that do not fit, or lambda < 0 (concrete values
        only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: the loss without a bias and with one more constant input; its minimum by BFGS.
    """
    A0, C, Sigma = checked_covariances(A0, C)
    W, bias, A0, Sigma, decay = with_one_dtype(W, bias, A0, Sigma, weight_decay)
    if W.ndim != 2 or W.shape[1] != len(A0):
        raise ValueError(f"`W` must be of shape (m, {len(A0)}), but got shape {W.shape}.")
    if bias.shape != W.shape[:1]:
        raise ValueError(f"`bias` must have one entry for each of the {len(W)} rows of `W`, but got {bias.shape}.")
    finite(W=W, bias=bias)
    number(weight_decay=decay)
    nonnegative(weight_decay=decay)
    S, square = W @ Sigma @ W.T, bias @ bias
    pull = -2 * jnp.trace(W @ A0 @ W.T) - 2 * square
    return pull + jnp.sum(S**2) + 2 * bias @ S @ bias + square**2 + decay * jnp.sum(W**2)


def spectral_minimum_with_bias(
    A0: ArrayLike, C: ArrayLike, m: ArrayLike, weight_decay: ArrayLike = 0.0
) -> BiasedMinimum:
    r"""Minimum of the spectral loss with a bias: the bias takes one dimension of the embedding.

    .. math:: |b|^2 = 1, \qquad Sb = 0, \qquad s_i = (\beta_i / 2)_+ \text{ for } i < m, \qquad
        L = -1 - \tfrac14\sum_{i<m} (\beta_i)_+^2

    A constant input is one more mode, of correlation 1, before all others: m - 1 are left to the data.

    Args:
        A0: Covariance of clean inputs. Shape (d, d).
        C: Covariance of the augmentation noise. Shape (d, d).
        m: Dimension of the embedding, at least 1. A number.
        weight_decay: lambda of lambda |W|_F^2, zero or positive. A number.

    Returns:
        `BiasedMinimum(strengths, gram, bias_square, loss)`; beta_i are the falling eigenvalues of
        :math:`\Sigma^{-1/2}(2A_0 - \lambda I)\Sigma^{-1/2}`.

    Valid: any distribution; beta_i < 2, that is some noise or some decay in every mode (else the constant shares).
    Raises: ValueError for matrices that are no covariances, m < 1 or lambda < 0 (concrete values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: gradient and BFGS on the loss; simulation `sims.ssl_collapse.bias`.
    """
    A0, C, Sigma = checked_covariances(A0, C)
    number(m=m, weight_decay=weight_decay)
    integer(1, m=m)
    nonnegative(weight_decay=weight_decay)
    A0, Sigma, m, decay = with_one_dtype(A0, Sigma, m, weight_decay)
    d = len(A0)
    beta, vectors = jnp.linalg.eigh(whitened(2 * A0 - decay * jnp.eye(d, dtype=A0.dtype), Sigma))
    beta, vectors = beta[::-1], vectors[:, ::-1]
    strengths = jnp.where(jnp.arange(d, dtype=A0.dtype) < m - 1, jnp.maximum(beta, 0) / 2, 0)
    back = inverse_root(Sigma) @ vectors
    gram = (back * strengths[None, :]) @ back.T
    return BiasedMinimum(strengths, (gram + gram.T) / 2, jnp.ones((), A0.dtype), -1 - jnp.sum(strengths**2))


def spectral_rank(B: ArrayLike, m: ArrayLike, bias: bool = False) -> Float[Array, ""]:
    r"""Rank of the embedding at the minimum of the spectral loss.

    .. math:: \min(m, n_+(B)), \quad \text{with a bias } \min(m - 1, n_+(B))

    Args:
        B: 2 A0 - lambda I, or the B of another quartic landscape (without a bias). Shape (d, d).
        m: Dimension of the embedding, at least 1. A number.
        bias: Whether the encoder has a bias, or the inputs a mean that is not removed.

    Returns:
        The rank; n_+ counts the positive eigenvalues, above 10 d times the rounding of the largest.

    Valid: any distribution; with a bias as `spectral_minimum_with_bias`.
    Raises: ValueError for a B that is not a symmetric matrix, or m < 1 (concrete values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: the rank of `spectral_minimum_with_bias`; simulation `sims.ssl_collapse.bias`.
    """
    number(m=m)
    integer(1, m=m)
    B, m = with_one_dtype(B, m)
    if B.ndim != 2 or B.shape[0] != B.shape[1]:
        raise ValueError(f"`B` must be a square matrix, but got shape {B.shape}.")
    finite(B=B)
    eigenvalues = jnp.linalg.eigvalsh((B + B.T) / 2)
    rounding = 10 * len(B) * jnp.finfo(B.dtype).eps * jnp.max(jnp.abs(eigenvalues))
    return jnp.minimum(jnp.sum(eigenvalues > rounding).astype(B.dtype), m - int(bias))


def dot_bias_penalty(
    S: ArrayLike, bias: ArrayLike, temperature: ArrayLike = 1.0, alpha: ArrayLike = 1.0
) -> Float[Array, ""]:
    r"""What a bias adds to InfoNCE with the similarity f . f' / tau.

    .. math:: \frac{b^\top Sb}{2\tau^2} + \frac{1 - \alpha}\tau |b|^2

    Args:
        S: Embedding covariance. Shape (m, m).
        bias: b. Shape (m,).
        temperature: tau, positive. A number.
        alpha: Weight of the alignment term, zero or positive. A number.

    Returns:
        The penalty. At alpha = 1 every b with S b = 0 is stationary; above 1 the loss has no lower bound.

    Valid: Gaussian inputs, infinitely many negatives. Similarities -|f - f'|^2 / 2 tau do not see a bias.
    Raises: ValueError for an S that is no covariance, a b that does not fit, tau <= 0 or alpha < 0 (concrete values
        only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: Gauss-Hermite integration of the loss.
    """
    positive_semidefinite(S=S)
    if np.shape(bias) != np.shape(S)[:1]:
        raise ValueError(f"`bias` must have one entry for each row of `S`, but got shape {np.shape(bias)}.")
    finite(bias=bias)
    number(temperature=temperature, alpha=alpha)
    positive(temperature=temperature)
    nonnegative(alpha=alpha)
    S, bias, tau, alpha = with_one_dtype(S, bias, temperature, alpha)
    return bias @ S @ bias / (2 * tau**2) + (1 - alpha) / tau * (bias @ bias)


def dot_bias_threshold(rho: ArrayLike, temperature: ArrayLike = 1.0) -> Float[Array, "..."]:
    r"""Squared bias above which InfoNCE with f . f' / tau leaves the dimension along the bias without a mode.

    .. math:: |b|^2 > 2\tau\max_i\rho_i

    Args:
        rho: Correlations of two views in the modes that no other dimension has taken (all of them, for a small
            start), from 0 to 1. Shape (..., modes).
        temperature: tau, positive. Shape (...).

    Returns:
        The threshold on |b|^2. Shape (...).

    Valid: alpha = 1, Gaussian inputs, infinitely many negatives. Above it S b = 0 is stable; below it the best unused
        mode grows along b and b itself decays. From a start that is not small, judge by the final |b|^2. For gradient
        flow: the noise of minibatches wears the bias down, the slower the smaller the step.
    Raises: ValueError for tau <= 0 or rho outside [0, 1] (concrete values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: eigenvalues of the Hessian on both sides; simulation `sims.ssl_collapse.dot_bias`.
    """
    positive(temperature=temperature)
    correlation(rho=rho)
    rho, tau = with_one_dtype(rho, temperature)
    return 2 * tau * jnp.max(rho, axis=-1)


def correlation(**named: ArrayLike) -> None:
    """Requirement that each argument lies in [0, 1]."""
    for name, value in named.items():
        if not traced(value):
            x = np.asarray(value)
            require((x >= 0) & (x <= 1), name, "between 0 and 1", value)
