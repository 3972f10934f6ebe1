r"""VICReg of a linear encoder: variances of its dimensions, and the two forms that its minimum has.

.. math:: L = \nu_{inv}E|f - f^+|^2 + \nu_{var}\sum_j\big(\gamma - \sqrt{S_{jj} + \epsilon}\big)_+
    + \nu_{cov}\sum_{i \ne j} S_{ij}^2

A strong covariance term gives every dimension a mode of its own; a weak one lets all dimensions share the modes.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import finite, number, positive, together, with_one_dtype
from theory.roots import increasing_root
from theory.ssl_collapse.bias import correlation
from theory.ssl_collapse.covariances import checked_covariances


class CovarianceWeights(NamedTuple):
    """Weights of the covariance term up to which the dimensions share the modes, and from which they do not."""

    shared: Float[Array, "..."]
    aligned: Float[Array, "..."]


def vicreg_loss(
    W: ArrayLike,
    A0: ArrayLike,
    C: ArrayLike,
    invariance: ArrayLike = 1.0,
    variance: ArrayLike = 1.0,
    covariance: ArrayLike = 1.0,
    target: ArrayLike = 1.0,
    epsilon: ArrayLike = 1e-4,
) -> Float[Array, ""]:
    r"""VICReg's loss for infinitely many inputs.

    .. math:: L = 2\nu_{inv}\mathrm{Tr}[WCW^\top] + \nu_{var}\sum_j\big(\gamma - \sqrt{S_{jj} + \epsilon}\big)_+
        + \nu_{cov}\sum_{i \ne j} S_{ij}^2

    Args:
        W: Weights. Shape (m, d).
        A0: Covariance of clean inputs. Shape (d, d).
        C: Covariance of the augmentation noise. Shape (d, d).
        invariance: nu_inv, weight of E |f - f+|^2, positive. A number.
        variance: nu_var, weight of the hinge on the standard deviations, positive. A number.
        covariance: nu_cov, weight of the covariances, positive. A number.
        target: gamma, target standard deviation, positive. A number.
        epsilon: Added to the variance below the root, positive. A number.

    Returns:
        L.

    Valid: any distribution.
    Raises: ValueError for matrices that are no covariances or do not fit, or a number that is not positive (concrete
        values only).
    Source: derived here; the loss of Bardes, Ponce and LeCun (2022).
    Checked: against the minibatch loss at large batches.
    """
    A0, C, Sigma = checked_covariances(A0, C)
    numbers = {
        "invariance": invariance, "variance": variance, "covariance": covariance, "target": target, "epsilon": epsilon,
    }  # fmt: skip
    number(**numbers)
    positive(**numbers)
    W, C, Sigma, invariance, variance, covariance, target, epsilon = with_one_dtype(W, C, Sigma, *numbers.values())
    if W.ndim != 2 or W.shape[1] != len(C):
        raise ValueError(f"`W` must be of shape (m, {len(C)}), but got shape {W.shape}.")
    finite(W=W)
    S = W @ Sigma @ W.T
    spread = jnp.diagonal(S)
    hinge = jnp.sum(jnp.maximum(target - jnp.sqrt(spread + epsilon), 0))
    off_diagonal = jnp.sum(S**2) - jnp.sum(spread**2)
    return 2 * invariance * jnp.trace(W @ C @ W.T) + variance * hinge + covariance * off_diagonal


def vicreg_deviation(
    q: ArrayLike,
    invariance: ArrayLike = 1.0,
    variance: ArrayLike = 1.0,
    target: ArrayLike = 1.0,
    epsilon: ArrayLike = 1e-4,
) -> Float[Array, "..."]:
    r"""Standard deviation of a dimension of VICReg that has a mode of its own.

    .. math:: \sqrt{S_{jj} + \epsilon} = \min\Big(\gamma, \max\Big(\sqrt\epsilon,
        \frac{\nu_{var}}{4\nu_{inv}q_j}\Big)\Big)

    Args:
        q: Noise fraction of the mode, 1 - rho, from 0 to 1. Shape (...).
        invariance: nu_inv, positive. Shape (...).
        variance: nu_var, positive. Shape (...).
        target: gamma, positive. Shape (...).
        epsilon: Positive, below gamma^2. Shape (...).

    Returns:
        The root; sqrt(epsilon) is a collapsed dimension. Shape: the arguments, broadcast.

    Valid: any distribution; the minimum for nu_cov -> infinity, and from `vicreg_covariance_weights(...).aligned` on
        if one mode at most reaches the target. Modes that reach it together share their dimensions, and the
        eigenvalues of S differ by O(1 / nu_cov).
    Raises: ValueError for q outside [0, 1] or another argument that is not positive (concrete values only).
    Source: derived here; the loss of Bardes, Ponce and LeCun (2022).
    Checked: multistart minimisation of `vicreg_loss`; simulation `sims.ssl_collapse.vicreg`.
    """
    correlation(q=q)
    positive(invariance=invariance, variance=variance, target=target, epsilon=epsilon)
    q, invariance, variance, target, epsilon = together(q, invariance, variance, target, epsilon)
    pull = 4 * invariance * q
    balance = jnp.where(pull > 0, variance / jnp.where(pull > 0, pull, 1.0), jnp.inf)
    return jnp.minimum(target, jnp.maximum(jnp.sqrt(epsilon), balance))


def vicreg_threshold(
    invariance: ArrayLike = 1.0, variance: ArrayLike = 1.0, epsilon: ArrayLike = 1e-4
) -> Float[Array, "..."]:
    r"""Noise fraction from which a dimension of VICReg collapses: epsilon sets it.

    .. math:: q_c = \frac{\nu_{var}}{4\nu_{inv}\sqrt\epsilon}

    Args:
        invariance: nu_inv, positive. Shape (...).
        variance: nu_var, positive. Shape (...).
        epsilon: Positive. Shape (...).

    Returns:
        The threshold; above 1 nothing collapses. Shape: the arguments, broadcast.

    Valid: as `vicreg_deviation`.
    Raises: ValueError for an argument that is not positive (concrete values only).
    Source: derived here; the loss of Bardes, Ponce and LeCun (2022).
    Checked: both sides of it in `vicreg_deviation`; simulation `sims.ssl_collapse.vicreg`.
    """
    positive(invariance=invariance, variance=variance, epsilon=epsilon)
    invariance, variance, epsilon = together(invariance, variance, epsilon)
    return variance / (4 * invariance * jnp.sqrt(epsilon))


def vicreg_covariance_weights(
    variance: ArrayLike = 1.0, target: ArrayLike = 1.0, epsilon: ArrayLike = 1e-4
) -> CovarianceWeights:
    r"""Weights of the covariance term between which the minimum changes its form.

    Rotating the embedding leaves the eigenvalues of S and changes its diagonal, on which
    :math:`h(s) = \nu_{var}(\gamma - \sqrt{s + \epsilon}) - \nu_{cov}s^2` acts: convex, it wants equal variances,
    concave, it wants unequal ones. :math:`h'' = 0` where :math:`(s + \epsilon)^{3/2} = \nu_{var} / 8\nu_{cov}`.

    .. math:: \nu_{cov} \le \frac{\nu_{var}}{8\gamma^3} \text{ (shared)}, \qquad
        \nu_{cov} \ge \frac{\nu_{var}}{8\epsilon^{3/2}} \text{ (aligned)}

    Args:
        variance: nu_var, positive. Shape (...).
        target: gamma, positive. Shape (...).
        epsilon: Positive. Shape (...).

    Returns:
        `CovarianceWeights(shared, aligned)`: up to the first all dimensions have one variance, as
        `vicreg_shared_strengths` says; from the second on every dimension has one mode, as `vicreg_deviation` says.
        Shape: the arguments, broadcast.

    Valid: sufficient for every noise; between them the noise decides.
    Raises: ValueError for an argument that is not positive (concrete values only).
    Source: derived here; the loss of Bardes, Ponce and LeCun (2022).
    Checked: multistart minimisation of `vicreg_loss` on both sides; simulation `sims.ssl_collapse.vicreg`.
    """
    positive(variance=variance, target=target, epsilon=epsilon)
    variance, target, epsilon = together(variance, target, epsilon)
    return CovarianceWeights(variance / (8 * target**3), variance / (8 * epsilon**1.5))


def vicreg_shared_strengths(
    q: ArrayLike,
    invariance: ArrayLike = 1.0,
    variance: ArrayLike = 1.0,
    covariance: ArrayLike = 1.0,
    target: ArrayLike = 1.0,
    epsilon: ArrayLike = 1e-4,
) -> Float[Array, "... modes"]:
    r"""Eigenvalues of S under VICReg with a weak covariance term: all dimensions have the same variance D.

    .. math:: \lambda_i = \frac{(\mu - 2\nu_{inv}q_i)_+}{2\nu_{cov}}, \qquad \sum_i\lambda_i = mD, \qquad
        \mu = 2\nu_{cov}D + \frac{\nu_{var}}{2\sqrt{D + \epsilon}} \text{ or } D = \gamma^2 - \epsilon

    Water is filled into the modes: the noisiest ones collapse although every dimension keeps its variance.

    Args:
        q: Noise fractions of the m modes of the least noise, from 0 to 1. Shape (..., m).
        invariance: nu_inv, positive. Shape (...).
        variance: nu_var, positive. Shape (...).
        covariance: nu_cov, positive. Shape (...).
        target: gamma, positive. Shape (...).
        epsilon: Positive, below gamma^2. Shape (...).

    Returns:
        The eigenvalues. Shape (..., m).

    Valid: any distribution; nu_cov at most `vicreg_covariance_weights(...).shared`.
    Raises: ValueError for q outside [0, 1] or another argument that is not positive (concrete values only).
    Source: derived here; the loss of Bardes, Ponce and LeCun (2022).
    Checked: multistart minimisation of `vicreg_loss`; simulation `sims.ssl_collapse.vicreg`.
    """
    correlation(q=q)
    numbers = {
        "invariance": invariance, "variance": variance, "covariance": covariance, "target": target, "epsilon": epsilon,
    }  # fmt: skip
    positive(**numbers)
    q, *numbers = with_one_dtype(q, *numbers.values())
    shape = jnp.broadcast_shapes(q.shape[:-1], *(x.shape for x in numbers))
    q = jnp.broadcast_to(q, (*shape, q.shape[-1]))
    invariance, variance, covariance, target, epsilon = (jnp.broadcast_to(x, shape) for x in numbers)

    def fill(mu):
        return jnp.maximum(mu[..., None] - 2 * invariance[..., None] * q, 0) / (2 * covariance[..., None])

    def push(D):
        return 2 * covariance * D + variance / (2 * jnp.sqrt(D + epsilon))

    def below_balance(D):
        return D - jnp.mean(fill(push(D)), axis=-1)

    most = target**2 - epsilon
    D = jnp.where(below_balance(most) < 0, most, increasing_root(below_balance, jnp.zeros_like(most), most))

    def too_much(mu):
        return jnp.mean(fill(mu), axis=-1) - D

    # At the target the hinge pushes as little as it must.
    return fill(increasing_root(too_much, jnp.zeros_like(D), push(D)))
