"""Distances between the data laws of source and target, none of which decides transfer's sign.

Both laws are those of (x, y), x ~ N(0, I_d), y = beta^T x + sigma noise: zero-mean Gaussians.
"""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory import gaussian
from theory.arguments import angle, finite, integer, nonnegative, positive, together
from theory.roots import safe_sqrt


def kl_divergence(
    theta: ArrayLike, sigma: ArrayLike, source_norm: ArrayLike = 1, target_norm: ArrayLike = 1
) -> Float[Array, "..."]:
    r"""Kullback-Leibler divergence between the laws of source and target data.

    .. math:: \mathrm{KL} = \frac{|\beta_s - \beta_t|^2}{2\sigma^2}

    Args:
        theta: Angle between source and target, in radians, from 0 to pi. Shape (...).
        sigma: Standard deviation of both label noises, positive, in units of y. Shape (...).
        source_norm: B = |beta_s|, positive, in units of y. Shape (...).
        target_norm: b = |beta_t|, positive, in units of y. Shape (...).

    Returns:
        The divergence, in nats. Shape: the arguments, broadcast.

    Valid: exact, every d.
    Raises: ValueError for theta outside [0, pi], or sigma, B or b not positive and finite.
    Source: arXiv:2410.08194; for unit norms (1 - cos(theta)) / sigma^2.
    Checked: reference value, general Gaussian formula (1e-9), gradients.
    """
    positive(sigma=sigma)
    theta, sigma, B, b = _checked(theta, sigma, source_norm, target_norm)
    return _separation2(theta, B, b) / (2 * sigma**2)


def wasserstein2(
    theta: ArrayLike, sigma: ArrayLike, source_norm: ArrayLike = 1, target_norm: ArrayLike = 1
) -> Float[Array, "..."]:
    r"""Wasserstein-2 distance between the laws of source and target data.

    .. math:: W_2^2 = \mathrm{tr}\big(\Sigma_s + \Sigma_t
        - 2 (\Sigma_s^{1/2} \Sigma_t \Sigma_s^{1/2})^{1/2}\big), \qquad
        \Sigma = \begin{pmatrix} I_2 & \beta \\ \beta^\top & |\beta|^2 + \sigma^2 \end{pmatrix}
        = A A^\top, \quad A = \begin{pmatrix} I_2 & 0 \\ \beta^\top & \sigma \end{pmatrix}

    The laws differ only in y and in the plane of beta_s and beta_t.

    Args:
        theta: Angle between source and target, in radians, from 0 to pi. Shape (...).
        sigma: Standard deviation of both label noises, in units of y. Shape (...).
        source_norm: B = |beta_s|, positive, in units of y. Shape (...).
        target_norm: b = |beta_t|, positive, in units of y. Shape (...).

    Returns:
        The distance, not squared, in units of y and x alike. Shape: the arguments, broadcast.

    Valid: exact, every d >= 2; derivatives of first order.
    Raises: ValueError for theta outside [0, pi], sigma < 0, or B or b not positive and finite.
    Source: arXiv:2410.08194 discusses it; this form derived here.
    Checked: reference value, matrix square roots (1e-8), 0 at equality, gradients.
    """
    theta, sigma, B, b = _checked(theta, sigma, source_norm, target_norm)
    zero, one = jnp.zeros_like(theta), jnp.ones_like(theta)

    def root_of_covariance(along, across):
        rows = [[one, zero, zero], [zero, one, zero], [along, across, sigma]]
        return jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)

    source = root_of_covariance(B, zero)
    target = root_of_covariance(b * jnp.cos(theta), b * jnp.sin(theta))
    return gaussian.wasserstein2(source, target)


def mmd(
    theta: ArrayLike,
    sigma: ArrayLike,
    bandwidth: ArrayLike,
    d: ArrayLike,
    source_norm: ArrayLike = 1,
    target_norm: ArrayLike = 1,
) -> Float[Array, "..."]:
    r"""Gaussian-kernel maximum mean discrepancy between the laws of source and target data.

    .. math:: \mathrm{MMD}^2 = \Big(1 + \frac2{\ell^2}\Big)^{-d/2}
        \Big[D_{ss}^{-1/2} + D_{tt}^{-1/2} - 2 D_{st}^{-1/2}\Big], \qquad
        D_{ij} = 1 + \frac{|\beta_i|^2 + |\beta_j|^2 + 2\sigma^2}{\ell^2}
        - \frac{|\beta_i + \beta_j|^2}{\ell^2 (\ell^2 + 2)}

    for the kernel :math:`e^{-|z - z'|^2 / (2\ell^2)}`, z = (x, y); computed without cancellation.

    Args:
        theta: Angle between source and target, in radians, from 0 to pi. Shape (...).
        sigma: Standard deviation of both label noises, in units of y. Shape (...).
        bandwidth: l, positive, in units of z. Shape (...).
        d: Dimension of x, a whole number from 2. Shape (...).
        source_norm: B = |beta_s|, positive, in units of y. Shape (...).
        target_norm: b = |beta_t|, positive, in units of y. Shape (...).

    Returns:
        The discrepancy, not squared; dimensionless. Shape: the arguments, broadcast.

    Valid: exact.
    Raises: ValueError as `wasserstein2`, and for bandwidth <= 0 or d not whole or < 2.
    Source: derived here.
    Checked: reference value, determinants of the whole covariance (1e-8), 0 at equality,
        float32, gradients.
    """
    positive(bandwidth=bandwidth)
    finite(bandwidth=bandwidth)
    integer(2, d=d)
    theta, sigma, B, b, ell, d = _checked(theta, sigma, source_norm, target_norm, bandwidth, d)
    mixing = ell**2 * (ell**2 + 2)
    spread = 1 + 2 * sigma**2 / ell**2
    D_s, D_t = (spread + 2 * norm**2 * (1 / ell**2 - 2 / mixing) for norm in (B, b))
    D_mean = (D_s + D_t) / 2
    gap_st = _separation2(theta, B, b) / mixing
    D_st = D_mean + gap_st
    # D_s^{-1/2} + D_t^{-1/2} - 2 D_mean^{-1/2}, with D_s - D_t taken out
    p, q = jnp.sqrt(D_s), jnp.sqrt(D_t)
    gap = 2 * (B**2 - b**2) * (1 / ell**2 - 2 / mixing) / (p + q)
    product, root = p * q, jnp.sqrt(D_mean)
    of_norms = gap**2 * (D_s + D_t + 4 * product) / 2
    of_norms = of_norms / (product * root * ((p + q) * root + 2 * product))
    of_direction = 2 * gap_st / (root * jnp.sqrt(D_st) * (root + jnp.sqrt(D_st)))
    return safe_sqrt((1 + 2 / ell**2) ** (-d / 2) * (of_norms + of_direction))


def _separation2(theta, source_norm, target_norm):
    """|beta_s - beta_t|^2 without cancellation."""
    half = jnp.sin(theta / 2)
    return (source_norm - target_norm) ** 2 + 4 * source_norm * target_norm * half**2


def _checked(theta, sigma, source_norm, target_norm, *others):
    angle(theta=theta)
    nonnegative(sigma=sigma)
    positive(source_norm=source_norm, target_norm=target_norm)
    finite(sigma=sigma, source_norm=source_norm, target_norm=target_norm)
    return together(theta, sigma, source_norm, target_norm, *others)
