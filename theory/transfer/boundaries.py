"""Boundaries of the transferability phase diagram, where transfer neither helps nor hurts."""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import angle, finite, nonnegative, positive, together
from theory.roots import safe_sqrt
from theory.transfer.fine_tuning import fine_tuning_scale


def linear_transfer_boundary(
    theta: ArrayLike, sigma: ArrayLike
) -> tuple[Float[Array, "..."], Float[Array, "..."], Float[Array, "..."]]:
    r"""Data amounts between which a linear probe is worse than scratch training.

    .. math:: \gamma_\pm = \tfrac12\big[m \pm \sqrt{m^2 - 4\cos^2\theta}\big], \quad
        m = 1 + \cos^2\theta - \sigma^2, \qquad \gamma_{over} = 1 + \sigma^2 / \sin^2\theta

    Transfer is negative for gamma in (gamma_-, gamma_+) and for gamma > gamma_over.

    Args:
        theta: Angle between source and target, in radians, from 0 to pi. Shape (...).
        sigma: Standard deviation of the label noise, in units of b = |beta_t|. Shape (...).

    Returns:
        (gamma_minus, gamma_plus, gamma_over), in samples per dimension; the first two are nan where
        |cos(theta)| >= 1 - sigma, the third where sin(theta) = 0. Shapes: broadcast.

    Valid: n, d -> infinity; no ridge.
    Raises: ValueError for theta outside [0, pi], or sigma negative or infinite (concrete values).
    Source: arXiv:2410.08194, phase boundary of linear transfer.
    Checked: reference values, `linear_transferability` is 0 there and changes sign, tangency.
    """
    angle(theta=theta)
    nonnegative(sigma=sigma)
    finite(sigma=sigma)
    theta, sigma = together(theta, sigma)
    cosine, sine2 = jnp.abs(jnp.cos(theta)), jnp.sin(theta) ** 2
    exists = cosine < 1 - sigma
    m = jnp.where(exists, 1 + cosine**2 - sigma**2, 1.0)
    # m^2 - 4 cos^2 = (m - 2 |cos|) (m + 2 |cos|), and gamma_- gamma_+ = cos^2
    spread = ((1 - cosine) ** 2 - sigma**2) * ((1 + cosine) ** 2 - sigma**2)
    plus = (m + safe_sqrt(jnp.where(exists, spread, 1.0))) / 2
    minus = cosine**2 / plus
    over = 1 + sigma**2 / jnp.where(sine2 > 0, sine2, 1.0)
    return (
        jnp.where(exists, minus, jnp.nan),
        jnp.where(exists, plus, jnp.nan),
        jnp.where(sine2 > 0, over, jnp.nan),
    )


def tuned_linear_transfer_boundary(theta: ArrayLike, sigma: ArrayLike) -> Float[Array, "..."]:
    r"""Amount of data above which a linear probe is worse than scratch training at its best ridge.

    .. math:: \gamma^* = \cos^2\theta \Big(1 + \frac{\sigma^2}{\sin^2\theta}\Big)

    Args:
        theta: Angle between source and target, in radians, from 0 to pi. Shape (...).
        sigma: Standard deviation of the label noise, in units of b = |beta_t|. Shape (...).

    Returns:
        Samples per dimension; nan where sin(theta) = 0, where transfer never hurts.
        Shape: broadcast.

    Valid: n, d -> infinity; scratch training as `tuned_scratch_risk`.
    Raises: ValueError for theta outside [0, pi], or sigma negative or infinite (concrete values).
    Source: derived here.
    Checked: reference value, `tuned_scratch_risk` there equals `linear_transfer_risk`.
    """
    angle(theta=theta)
    nonnegative(sigma=sigma)
    finite(sigma=sigma)
    theta, sigma = together(theta, sigma)
    sine2 = jnp.sin(theta) ** 2
    boundary = jnp.cos(theta) ** 2 * (1 + sigma**2 / jnp.where(sine2 > 0, sine2, 1.0))
    return jnp.where(sine2 > 0, boundary, jnp.nan)


def fine_tuning_boundary(
    gamma: ArrayLike,
    sigma: ArrayLike,
    source_norm: ArrayLike = 1,
    target_norm: ArrayLike = 1,
    depth: ArrayLike = 2,
) -> Float[Array, "..."]:
    r"""Angle above which fine-tuning is worse than scratch training.

    .. math:: \cos\theta = \frac{\kappa B}{2b}

    Args:
        gamma: Samples per dimension n/d, positive; dimensionless. Shape (...).
        sigma: Standard deviation of the label noise, in units of y. Shape (...).
        source_norm: B = |beta_s|, positive, in units of y. Shape (...).
        target_norm: b = |beta_t|, positive, in units of y. Shape (...).
        depth: Number L of layers, from 1, or infinity. Shape (...).

    Returns:
        The angle, in radians; nan where kappa B > 2b, transfer being negative at every angle, and
        for gamma >= 1, where it is 0 at every angle. Shape: broadcast.

    Valid: n, d -> infinity at fixed gamma; kappa is `fine_tuning_scale`.
    Raises: ValueError as `fine_tuning_scale`.
    Source: derived here; arXiv:2410.08194 has pi/3, exact for sigma = 0 and B = b.
    Checked: `fine_tuning_transferability` is 0 there and changes sign; pi/3; existence.
    """
    positive(gamma=gamma)
    gamma, sigma, B, b = together(gamma, sigma, source_norm, target_norm)
    under = gamma < 1
    kappa = fine_tuning_scale(jnp.where(under, gamma, 0.5), sigma, B, b, depth)
    kappa, under, B, b = jnp.broadcast_arrays(kappa, under, B, b)
    cosine = kappa * B / (2 * b)
    exists = under & (cosine <= 1)
    return jnp.where(exists, jnp.arccos(jnp.where(exists, cosine, 0.0)), jnp.nan)
