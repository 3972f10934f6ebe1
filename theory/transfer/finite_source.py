"""Transfer from a source that was itself learned from finitely many noisy samples."""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import angle, finite, nonnegative, positive, together
from theory.transfer.fine_tuning import fine_tuning_scale
from theory.transfer.scratch import noise_risk, scratch_risk


def finite_source_fine_tuning_risk(
    gamma: ArrayLike,
    theta: ArrayLike,
    sigma: ArrayLike,
    gamma_source: ArrayLike,
    sigma_source: ArrayLike,
    depth: ArrayLike = 2,
) -> Float[Array, "..."]:
    r"""Excess risk of fine-tuning when the source itself was learned from noisy samples.

    .. math:: R_{ft} = R_{sc} - (1 - \gamma)_+ (2 \kappa \omega \cos\theta - \kappa^2 B_s^2),
        \qquad \omega = \min(\gamma_s, 1), \qquad
        B_s^2 = \omega + \sigma_s^2 \frac{\omega}{|1 - \gamma_s|}

    Args:
        gamma: Target samples per dimension n/d, positive; dimensionless. Shape (...).
        theta: Angle between the true source and target, both of norm 1, in radians. Shape (...).
        sigma: Standard deviation of the target's label noise, in units of y. Shape (...).
        gamma_source: Source samples per dimension, positive; dimensionless. Shape (...).
        sigma_source: Standard deviation of the source's label noise, in units of y. Shape (...).
        depth: Number L of layers, from 1, or infinity. Shape (...).

    Returns:
        |beta_hat - beta_t|^2, in units of y^2; inf for gamma < 1 at gamma_source = 1 with source
        noise, and at gamma = 1 with noise. Shape: broadcast.

    Valid: unit norms, all sizes -> infinity at fixed ratios; kappa is `fine_tuning_scale` at B_s.
    Raises: ValueError as `fine_tuning_risk`, and for gamma_source <= 0 or sigma_source < 0.
    Source: arXiv:2410.08194 for kappa = 1; kappa derived here.
    Checked: reference values, gamma_source -> infinity, Monte Carlo.
    """
    angle(theta=theta)
    scratch = scratch_risk(gamma, sigma)
    omega, B2 = _learned_source(gamma_source, sigma_source)
    gamma, theta, sigma, scratch, omega, B2 = together(gamma, theta, sigma, scratch, omega, B2)
    bounded, under = jnp.isfinite(B2), gamma < 1
    B = jnp.sqrt(jnp.where(bounded, B2, 1.0))
    gamma = jnp.where(under, gamma, 0.5)
    kappa = fine_tuning_scale(gamma, sigma, B, 1, depth)
    saved = (1 - gamma) * (2 * kappa * omega * jnp.cos(theta) - kappa**2 * B**2)
    saved = jnp.where(bounded, saved, -jnp.inf)
    return scratch - jnp.where(under, saved, 0.0)


def finite_source_linear_transfer_risk(
    theta: ArrayLike, gamma_source: ArrayLike, sigma_source: ArrayLike
) -> Float[Array, "..."]:
    r"""Excess risk of a linear probe when the source itself was learned from noisy samples.

    .. math:: R_{lt} = 1 - \frac{\omega^2}{B_s^2} \cos^2\theta, \qquad
        \omega = \min(\gamma_s, 1), \qquad
        B_s^2 = \omega + \sigma_s^2 \frac{\omega}{|1 - \gamma_s|}

    Args:
        theta: Angle between the true source and target, both of norm 1, in radians. Shape (...).
        gamma_source: Source samples per dimension, positive; dimensionless. Shape (...).
        sigma_source: Standard deviation of the source's label noise, in units of y. Shape (...).

    Returns:
        |beta_hat - beta_t|^2, in units of y^2; 1 at gamma_source = 1 with noise. Shape: broadcast.

    Valid: unit norms, all sizes -> infinity at fixed ratios.
    Raises: ValueError for theta outside [0, pi], gamma_source <= 0 or sigma_source < 0.
    Source: derived here.
    Checked: reference value, gamma_source -> infinity, Monte Carlo.
    """
    angle(theta=theta)
    omega, B2 = _learned_source(gamma_source, sigma_source)
    theta, omega, B2 = together(theta, omega, B2)
    return 1 - omega**2 / B2 * jnp.cos(theta) ** 2


def _learned_source(gamma_source, sigma_source):
    """Overlap with the true source and squared norm of a source learned from noisy samples."""
    positive(gamma_source=gamma_source)
    nonnegative(sigma_source=sigma_source)
    finite(sigma_source=sigma_source)
    gamma, sigma = together(gamma_source, sigma_source)
    omega = jnp.minimum(gamma, 1.0)
    return omega, omega + noise_risk(gamma, sigma)
