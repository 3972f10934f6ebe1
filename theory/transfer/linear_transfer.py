"""Linear transfer: the head retrained on frozen pretrained features, also called a linear probe."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import (
    angle,
    finite,
    integer,
    nonnegative,
    positive,
    together,
    with_one_dtype,
)
from theory.random_matrix import chi_square_inverse_square, effective_ridge
from theory.roots import positive_root
from theory.transfer.scratch import least_squares_risk, scratch_risk


def linear_transfer_risk(
    theta: ArrayLike,
    ridge: ArrayLike = 0,
    feature_scale: ArrayLike = 1,
    target_norm: ArrayLike = 1,
) -> Float[Array, "..."]:
    r"""Excess risk of a linear probe on the one feature that pretraining leaves.

    .. math:: R_{lt} = b^2 \sin^2\theta
        + b^2 \cos^2\theta \Big(\frac\lambda{s^2 + \lambda}\Big)^2

    Args:
        theta: Angle between source and target, in radians, from 0 to pi. Shape (...).
        ridge: lambda of the loss |y - H c|^2 / n + lambda |c|^2, zero or positive. Shape (...).
        feature_scale: s, the feature's singular value, positive, in the units of sqrt(lambda);
            B^{(L-1)/L} after pretraining of depth L. Shape (...).
        target_norm: b = |beta_t|, positive, in units of y. Shape (...).

    Returns:
        |beta_hat - beta_t|^2, in units of y^2, whatever the noise. Shape: broadcast.

    Valid: n -> infinity at any n/d: the probe has one parameter.
    Raises: ValueError for theta outside [0, pi], lambda < 0, s <= 0, or b not positive and finite.
    Source: arXiv:2410.08194, linear transfer; its ridge form 1 - (1 + 2 lambda) / (1 + lambda)^2
        cos^2 theta is s = b = 1.
    Checked: reference form, limit of `linear_transfer_risk_finite` (slope -1 in n), gradients.
    """
    theta, ridge, s, b = _checked(theta, ridge, feature_scale, target_norm)
    shrunk = ridge / (s**2 + ridge)
    return b**2 * (jnp.sin(theta) ** 2 + jnp.cos(theta) ** 2 * shrunk**2)


def linear_transfer_risk_finite(
    n: ArrayLike,
    theta: ArrayLike,
    sigma: ArrayLike,
    ridge: ArrayLike = 0,
    feature_scale: ArrayLike = 1,
    target_norm: ArrayLike = 1,
) -> Float[Array, "..."]:
    r"""Mean excess risk of a linear probe on one feature, exact at every sample size.

    .. math:: \mathbb E R_{lt} = b^2 \sin^2\theta + \mathbb E_{Q \sim \chi^2_n}\Big[
        b^2 \cos^2\theta \frac{\Lambda^2}{(Q + \Lambda)^2} + \tau^2 \frac{Q}{(Q + \Lambda)^2}\Big],
        \quad \Lambda = \frac{n\lambda}{s^2}, \quad \tau^2 = b^2 \sin^2\theta + \sigma^2

    Without ridge it is :math:`b^2 \sin^2\theta + \tau^2 / (n - 2)`.

    Args:
        n: Number of samples, a whole number from 1. Shape (...).
        theta: Angle between source and target, in radians, from 0 to pi. Shape (...).
        sigma: Standard deviation of the label noise, in units of y. Shape (...).
        ridge: lambda, zero or positive, as in `linear_transfer_risk`. Shape (...).
        feature_scale: s, positive. Shape (...).
        target_norm: b = |beta_t|, positive, in units of y. Shape (...).

    Returns:
        Mean of |beta_hat - beta_t|^2 over data, in units of y^2; inf for n <= 2 without ridge
        (unless sigma = sin(theta) = 0). Shape: broadcast.

    Valid: exact at every n and d for Gaussian inputs; relative error of the quadrature 1e-11.
    Raises: ValueError for n not whole or < 1, sigma < 0, and as `linear_transfer_risk`.
    Source: arXiv:2410.08194, linear transfer at finite n; with ridge derived here.
    Checked: reference values, mpmath integrals (1e-11), closed form at lambda = 0, Monte Carlo.
    """
    integer(1, n=n)
    nonnegative(sigma=sigma)
    finite(sigma=sigma)
    theta, ridge, s, b, n, sigma = _checked(theta, ridge, feature_scale, target_norm, n, sigma)
    shift = n * ridge / s**2
    outside, inside = (b * jnp.sin(theta)) ** 2, (b * jnp.cos(theta)) ** 2
    penalised = shift > 0
    safe_shift = jnp.where(penalised, shift, 1.0)
    bias = jnp.where(penalised, safe_shift**2 * chi_square_inverse_square(n, safe_shift), 0.0)
    # E Q g(Q) over chi^2_n is n E g(Q) over chi^2_{n+2}, which leaves no difference to take
    gain = n * chi_square_inverse_square(n + 2, shift)
    noise = outside + sigma**2
    bounded = jnp.isfinite(gain)
    variance = jnp.where(bounded, noise * jnp.where(bounded, gain, 0.0), jnp.inf)
    variance = jnp.where(noise > 0, variance, 0.0)
    return outside + inside * bias + variance


def tuned_linear_transfer_ridge(
    n: ArrayLike,
    theta: ArrayLike,
    sigma: ArrayLike,
    feature_scale: ArrayLike = 1,
    target_norm: ArrayLike = 1,
) -> Float[Array, "..."]:
    r"""Best ridge of a linear probe on one feature.

    .. math:: \lambda^* = \frac{s^2}n \frac{b^2 \sin^2\theta + \sigma^2}{b^2 \cos^2\theta}

    Args:
        n: Number of samples, a whole number from 1. Shape (...).
        theta: Angle between source and target, in radians, from 0 to pi. Shape (...).
        sigma: Standard deviation of the label noise, in units of y. Shape (...).
        feature_scale: s, positive. Shape (...).
        target_norm: b = |beta_t|, positive, in units of y. Shape (...).

    Returns:
        The ridge, in units of s^2; large and finite at theta = pi/2, where the best probe is 0.
        Shape: broadcast.

    Valid: exact at every n, and best for every single draw of the feature's values.
    Raises: ValueError as `linear_transfer_risk_finite`.
    Source: derived here: the integrand over Q is stationary at the same Lambda for every Q.
    Checked: numerical minimum of `linear_transfer_risk_finite`.
    """
    integer(1, n=n)
    nonnegative(sigma=sigma)
    finite(sigma=sigma)
    theta, _, s, b, n, sigma = _checked(theta, 0, feature_scale, target_norm, n, sigma)
    overlap2 = jnp.maximum(jnp.cos(theta) ** 2, jnp.finfo(theta.dtype).eps)
    return s**2 / n * (jnp.sin(theta) ** 2 + (sigma / b) ** 2) / overlap2


def feature_space_risk(
    n: ArrayLike, rank: ArrayLike, inside: ArrayLike, outside: ArrayLike, sigma: ArrayLike
) -> Float[Array, "..."]:
    r"""Mean excess risk of a ridgeless probe on r orthonormal linear features, exact.

    .. math:: \mathbb E R = \rho + \iota \Big(1 - \frac nr\Big)_+
        + (\rho + \sigma^2) \frac{\min(n, r)}{|n - r| - 1}

    Args:
        n: Number of samples, a whole number from 1. Shape (...).
        rank: Number r of features, a whole number from 1. Shape (...).
        inside: iota, squared norm of the target inside the features' span, in units of y^2.
            Shape (...).
        outside: rho, squared norm outside: the floor, its fate, in units of y^2. Shape (...).
        sigma: Standard deviation of the label noise, in units of y. Shape (...).

    Returns:
        Mean of |beta_hat - beta_t|^2, in units of y^2; inf for |n - r| <= 1 unless
        rho = sigma = 0. Shape: broadcast.

    Valid: exact for Gaussian inputs; the double descent sits at n = r, not n = d.
    Raises: ValueError for n or r not whole or < 1, or iota, rho or sigma < 0 (concrete values).
    Source: derived here: the target outside the span acts as noise.
    Checked: reference values, Monte Carlo on both sides of n = r, r = 1 and r = d.
    """
    integer(1, n=n, rank=rank)
    nonnegative(inside=inside, outside=outside, sigma=sigma)
    finite(inside=inside, outside=outside, sigma=sigma)
    n, rank, inside, outside, sigma = together(n, rank, inside, outside, sigma)
    return outside + least_squares_risk(n, rank, inside, outside + sigma**2)


def feature_ridge_risk(
    features: ArrayLike, target: ArrayLike, n: ArrayLike, sigma: ArrayLike, ridge: ArrayLike
) -> Float[Array, "..."]:
    r"""Excess risk of a ridge probe on any linear features, without training it.

    .. math:: R = \frac1{1 - D_2} \Big[\big|\kappa (W W^\top + \kappa I)^{-1} \beta_t\big|^2
        + \sigma^2 D_2\Big], \quad
        \kappa = \lambda + \frac\kappa n \sum_j \frac{k_j}{k_j + \kappa}, \quad
        D_2 = \frac1n \sum_j \frac{k_j^2}{(k_j + \kappa)^2}

    Args:
        features: W, whose columns are the features; k_j are the eigenvalues of W W^T.
            Shape (..., d, r).
        target: beta_t, in units of y. Shape (..., d).
        n: Number of samples, a whole number from 1. Shape (...).
        sigma: Standard deviation of the label noise, in units of y. Shape (...).
        ridge: lambda of |y - X W c|^2 / n + lambda |c|^2, positive, in units of k. Shape (...).

    Returns:
        |beta_hat - beta_t|^2, in units of y^2. Shape: the leading shapes, broadcast.

    Valid: Gaussian inputs, deterministic equivalent, relative error O(1/n).
    Raises: ValueError for n not whole or < 1, sigma < 0, lambda <= 0, or lengths d that differ.
    Source: derived here; Gaussian-design ridge regression in the metric of the features.
    Checked: reference value, `isotropic_feature_ridge_risk` (slope -1 in d), dense formula with
        the full eigenbasis, Monte Carlo (2 %), gradients.
    """
    integer(1, n=n)
    nonnegative(sigma=sigma)
    finite(sigma=sigma)
    positive(ridge=ridge)
    if jnp.ndim(features) < 2 or jnp.ndim(target) < 1:
        raise ValueError("`features` must be a matrix and `target` a vector.")
    if jnp.shape(features)[-2] != jnp.shape(target)[-1]:
        raise ValueError(
            f"`features` must have as many rows as `target` has entries, but got "
            f"{jnp.shape(features)[-2]} and {jnp.shape(target)[-1]}."
        )
    features, target, n, sigma, ridge = with_one_dtype(features, target, n, sigma, ridge)
    shape = jnp.broadcast_shapes(features.shape[:-2], target.shape[:-1], n.shape, sigma.shape, ridge.shape)
    return jnp.vectorize(_feature_ridge_risk, signature="(d,r),(d),(),(),()->()")(
        jnp.broadcast_to(features, shape + features.shape[-2:]),
        jnp.broadcast_to(target, shape + target.shape[-1:]),
        *(jnp.broadcast_to(value, shape) for value in (n, sigma, ridge)),
    )


def _feature_ridge_risk(W, target, n, sigma, ridge):
    gram = W.T @ W
    spectrum = jnp.maximum(jnp.linalg.eigvalsh(gram), 0.0)
    kappa = effective_ridge(spectrum, n, ridge)
    D2 = jnp.sum((spectrum / (spectrum + kappa)) ** 2) / n
    damped = gram + kappa * jnp.eye(gram.shape[0], dtype=gram.dtype)
    missed = target - W @ jax.scipy.linalg.solve(damped, W.T @ target, assume_a="pos")
    return (jnp.sum(missed**2) + sigma**2 * D2) / (1 - D2)


def isotropic_feature_ridge_risk(
    gamma: ArrayLike,
    theta: ArrayLike,
    sigma: ArrayLike,
    ridge: ArrayLike,
    tail: ArrayLike,
    feature_scale: ArrayLike = 1,
    target_norm: ArrayLike = 1,
) -> Float[Array, "..."]:
    r"""Excess risk of a ridge probe on one learned feature over an isotropic tail.

    .. math:: W W^\top = \alpha^2 I + s^2 \hat u \hat u^\top, \qquad
        \kappa^2 + \big(\alpha^2 - \alpha^2/\gamma - \lambda\big) \kappa = \alpha^2 \lambda, \qquad
        D_2 = \frac{\alpha^4}{\gamma (\alpha^2 + \kappa)^2}

    .. math:: R = \frac1{1 - D_2} \Big[b^2 \kappa^2 \Big(\frac{\sin^2\theta}{(\alpha^2 + \kappa)^2}
        + \frac{\cos^2\theta}{(\alpha^2 + s^2 + \kappa)^2}\Big) + \sigma^2 D_2\Big]

    Without ridge and for gamma < 1, with :math:`w = \alpha^2 / (\alpha^2 + s^2)`,
    :math:`R = (1 - \gamma) b^2 [\sin^2\theta + \cos^2\theta / (1 - \gamma + \gamma/w)^2]
    + \sigma^2 \gamma / (1 - \gamma)`.

    Args:
        gamma: Samples per dimension n/d, positive; dimensionless. Shape (...).
        theta: Angle between source and target, in radians, from 0 to pi. Shape (...).
        sigma: Standard deviation of the label noise, in units of y. Shape (...).
        ridge: lambda, zero or positive, in units of s^2. Shape (...).
        tail: alpha, scale of the residual features, zero or positive, in units of s. Shape (...).
        feature_scale: s, positive. Shape (...).
        target_norm: b = |beta_t|, positive, in units of y. Shape (...).

    Returns:
        |beta_hat - beta_t|^2, in units of y^2; inf at lambda = 0, gamma = 1 with noise.
        Shape: broadcast.

    Valid: n, d -> infinity at fixed gamma, error O(1/d). The limits alpha -> 0 and lambda -> 0 do
        not commute; where both are 0 it is alpha -> 0 first, `linear_transfer_risk`.
    Raises: ValueError for gamma <= 0, sigma, lambda or alpha < 0, and as `linear_transfer_risk`.
    Source: derived here.
    Checked: reference value, ridgeless form, both orders of limits, `feature_ridge_risk`, gradients.
    """
    positive(gamma=gamma)
    nonnegative(sigma=sigma, tail=tail)
    finite(sigma=sigma, tail=tail)
    theta, ridge, s, b, gamma, sigma, tail = _checked(theta, ridge, feature_scale, target_norm, gamma, sigma, tail)
    alpha2 = tail**2
    kappa = positive_root(alpha2 / gamma - alpha2 + ridge, alpha2 * ridge)
    total = alpha2 + kappa
    empty = total == 0  # neither tail nor ridge
    total = jnp.where(empty, 1.0, total)
    missed_outside = jnp.where(empty, 1.0, kappa / total)
    missed_inside = kappa / (alpha2 + s**2 + kappa)
    D2 = (alpha2 / total) ** 2 / gamma
    bias = b**2 * (jnp.sin(theta) ** 2 * missed_outside**2 + jnp.cos(theta) ** 2 * missed_inside**2)
    numerator = bias + sigma**2 * D2
    peak = D2 >= 1
    risk = numerator / jnp.where(peak, 1.0, 1 - D2)
    return jnp.where(peak, jnp.where(numerator > 0, jnp.inf, 0.0), risk)


def linear_transferability(
    gamma: ArrayLike,
    theta: ArrayLike,
    sigma: ArrayLike,
    ridge: ArrayLike = 0,
    feature_scale: ArrayLike = 1,
    target_norm: ArrayLike = 1,
) -> Float[Array, "..."]:
    r"""Transferability of a linear probe: the risk it saves against scratch training.

    .. math:: \mathcal T_{lt} = R_{sc}(\gamma, \sigma) - R_{lt}(\theta)

    Args:
        gamma: Samples per dimension n/d, positive; dimensionless. Shape (...).
        theta: Angle between source and target, in radians, from 0 to pi. Shape (...).
        sigma: Standard deviation of the label noise, in units of y. Shape (...).
        ridge: lambda, zero or positive, as in `linear_transfer_risk`. Shape (...).
        feature_scale: s, positive. Shape (...).
        target_norm: b = |beta_t|, positive, in units of y. Shape (...).

    Returns:
        Saved risk, in units of y^2; negative transfer where it is below 0. Shape: broadcast.

    Valid: n, d -> infinity at fixed gamma.
    Raises: ValueError as `scratch_risk` and `linear_transfer_risk`.
    Source: arXiv:2410.08194, transferability of linear transfer.
    Checked: zeros at `linear_transfer_boundary`; signs of the three arguments on distances.
    """
    saved = scratch_risk(gamma, sigma, target_norm)
    spent = linear_transfer_risk(theta, ridge, feature_scale, target_norm)
    saved, spent = together(saved, spent)
    return saved - spent


def _checked(theta, ridge, feature_scale, target_norm, *others):
    angle(theta=theta)
    nonnegative(ridge=ridge)
    positive(feature_scale=feature_scale, target_norm=target_norm)
    finite(ridge=ridge, feature_scale=feature_scale, target_norm=target_norm)
    return together(theta, ridge, feature_scale, target_norm, *others)
