r"""Population losses of InfoNCE for Gaussian data and infinitely many negatives, exact at every encoder."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import integer, nonnegative, number, positive, with_one_dtype
from theory.ssl_collapse.covariances import checked_covariances, inverse_root
from theory.ssl_collapse.infonce import PAIRS


@jax.custom_jvp
def log_det_one_plus(X: Float[Array, "m m"]) -> Float[Array, ""]:
    """ln det(I + X) of a symmetric positive semidefinite X, to a relative rounding error; smooth at X = 0 too."""
    return jnp.sum(jnp.log1p(jnp.linalg.eigvalsh(X)))


@log_det_one_plus.defjvp
def _log_det_jvp(primals, tangents):
    (X,), (dX,) = primals, tangents
    inverse = jnp.linalg.inv(jnp.eye(len(X), dtype=X.dtype) + X)
    return log_det_one_plus(X), jnp.sum(inverse * dX.T)


def _prepared(W, A0, C, temperature, alpha, weight_decay):
    A0, C, Sigma = checked_covariances(A0, C)
    if np.ndim(W) != 2 or np.shape(W)[1] != len(A0):
        raise ValueError(f"`W` must have shape (m, {len(A0)}), but got {np.shape(W)}.")
    number(temperature=temperature, alpha=alpha, weight_decay=weight_decay)
    positive(temperature=temperature)
    nonnegative(alpha=alpha, weight_decay=weight_decay)
    return with_one_dtype(W, A0, C, Sigma, temperature, alpha, weight_decay)


def infonce_loss(
    W: ArrayLike,
    A0: ArrayLike,
    C: ArrayLike,
    temperature: ArrayLike = 1.0,
    alpha: ArrayLike = 1.0,
    weight_decay: ArrayLike = 0.0,
    *,
    pairs: str = "augmented",
) -> Float[Array, ""]:
    r"""Population loss of InfoNCE with the similarity -|f - f'|^2 / 2 tau.

    .. math:: L = \tfrac\alpha\tau\mathrm{Tr}[WCW^\top] - \tfrac12\ln\det\big(I + \tfrac{S_\chi}\tau\big)
        - \tfrac12\mathrm{Tr}\big[S_x(\tau I + S_\chi)^{-1}\big] + \lambda|W|_F^2

    Args:
        W: The encoder. Shape (m, d).
        A0: Covariance of clean inputs. Shape (d, d).
        C: Covariance of the augmentation noise. Shape (d, d).
        temperature: tau, positive. A number.
        alpha: Weight of the alignment term, zero or positive. A number.
        weight_decay: lambda, zero or positive. A number.
        pairs: Who repels whom. "augmented": views repel views, S_x = S_chi = W Sigma W^T. "clean": clean points repel
            clean points, S_x = S_chi = W A0 W^T. "clean_negatives": an augmented anchor, S_x = W Sigma W^T, and clean
            negatives, S_chi = W A0 W^T.

    Returns:
        The loss without constants, 0 at W = 0.

    Valid: exact for Gaussian data and infinitely many negatives, at every W.
    Raises: ValueError for matrices that are no covariances or do not fit W, a number outside its range or unknown pairs
        (concrete values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: Gauss-Hermite quadrature of its definition (1e-10) for all pairs, its quartic expansion, gradients and
        Hessian at W = 0; minibatch losses of all pairs.
    """
    if pairs not in PAIRS:
        raise ValueError(f"`pairs` must be one of {', '.join(PAIRS)}, but got {pairs}.")
    W, A0, C, Sigma, tau, alpha, decay = _prepared(W, A0, C, temperature, alpha, weight_decay)
    anchors = W @ (A0 if pairs == "clean" else Sigma) @ W.T / tau
    negatives = W @ (Sigma if pairs == "augmented" else A0) @ W.T / tau
    identity = jnp.eye(len(W), dtype=W.dtype)
    spread = jnp.trace(jnp.linalg.solve(identity + negatives, anchors))
    repulsion = -log_det_one_plus((negatives + negatives.T) / 2) / 2 - spread / 2
    return alpha / tau * jnp.sum(W * (W @ C)) + repulsion + decay * jnp.sum(W**2)


def infonce_dot_loss(
    W: ArrayLike,
    A0: ArrayLike,
    C: ArrayLike,
    temperature: ArrayLike = 1.0,
    alpha: ArrayLike = 1.0,
    weight_decay: ArrayLike = 0.0,
) -> Float[Array, ""]:
    r"""Population loss of InfoNCE with the similarity f . f' / tau.

    .. math:: L = -\tfrac\alpha\tau\mathrm{Tr}[WA_0W^\top] + \tfrac1{2\tau^2}\mathrm{Tr}[(W\Sigma W^\top)^2]
        + \lambda|W|_F^2

    Args:
        W: The encoder. Shape (m, d).
        A0: Covariance of clean inputs. Shape (d, d).
        C: Covariance of the augmentation noise. Shape (d, d).
        temperature: tau, positive. A number.
        alpha: Weight of the alignment term, zero or positive. A number.
        weight_decay: lambda, zero or positive. A number.

    Returns:
        The loss without constants, 0 at W = 0.

    Valid: exact for Gaussian data and infinitely many negatives, at every W; finite numbers of negatives come near it
        only while the eigenvalues of S / tau stay well below 1/sqrt 2, see `finite_negatives_dot_correction`.
    Raises: as `infonce_loss`.
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: Gauss-Hermite quadrature of its definition (1e-10); simulation `sims.ssl_collapse.negatives`.
    """
    W, A0, _, Sigma, tau, alpha, decay = _prepared(W, A0, C, temperature, alpha, weight_decay)
    S = W @ Sigma @ W.T
    return -alpha / tau * jnp.sum(W * (W @ A0)) + jnp.sum(S**2) / (2 * tau**2) + decay * jnp.sum(W**2)


class DotMinimum(NamedTuple):
    r"""The minimum of InfoNCE with dot products.

    strengths, shape (d,), descending: the eigenvalues of S / tau, 0 beyond the first m; gram, W^T W, shape (d, d); the
    loss there.
    """

    strengths: Float[Array, " d"]
    gram: Float[Array, "d d"]
    loss: Float[Array, ""]


def infonce_dot_minimum(
    A0: ArrayLike,
    C: ArrayLike,
    m: int,
    temperature: ArrayLike = 1.0,
    alpha: ArrayLike = 1.0,
    weight_decay: ArrayLike = 0.0,
) -> DotMinimum:
    r"""Global minimum of InfoNCE with dot products over linear encoders.

    .. math:: \Sigma^{-1/2}(\alpha A_0 - \lambda\tau I)\Sigma^{-1/2} = \sum_i s_iv_iv_i^\top, \qquad
        W^\top W = \tau\,\Sigma^{-1/2}\sum_{i \le m} (s_i)_+v_iv_i^\top\,\Sigma^{-1/2}, \qquad
        L = -\tfrac12\sum_{i \le m}(s_i)_+^2

    Args:
        A0: Covariance of clean inputs. Shape (d, d).
        C: Covariance of the augmentation noise. Shape (d, d).
        m: Outputs of the encoder, 1 or more.
        temperature: tau, positive. A number.
        alpha: Weight of the alignment term, zero or positive. A number.
        weight_decay: lambda, zero or positive. A number.

    Returns:
        `DotMinimum(strengths, gram, loss)`; without decay strengths are alpha times the correlations between two views.

    Valid: as `infonce_dot_loss`. Gradients of the Gram matrix at distinct strengths.
    Raises: ValueError for matrices that are no covariances or do not fit, or a number outside its range (concrete
        values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: descent on `infonce_dot_loss` from random starts (1e-6).
    """
    integer(1, m=m)
    d = np.shape(A0)[-1] if np.ndim(A0) else 0
    _, A0, _, Sigma, tau, alpha, decay = _prepared(np.zeros((1, d)), A0, C, temperature, alpha, weight_decay)
    root = inverse_root(Sigma)
    pull = root @ (alpha * A0 - decay * tau * jnp.eye(d, dtype=A0.dtype)) @ root
    s, v = jnp.linalg.eigh((pull + pull.T) / 2)
    s, U = s[::-1], (root @ v)[:, ::-1]
    strengths = jnp.where(jnp.arange(d) < m, jnp.maximum(s, 0), 0)
    return DotMinimum(strengths, tau * (U * strengths[None, :]) @ U.T, -jnp.sum(strengths**2) / 2)
