r"""How fast a scale-invariant weight turns: its angle per step, which in equilibrium the decay alone decides."""

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import below_one, nonnegative, positive, require, together, traced
from theory.noether.equilibrium import require_equilibrium


def equilibrium_angle(
    eta: ArrayLike, weight_decay: ArrayLike, momentum: ArrayLike = 0.0, *, decoupled: bool = False
) -> Float[Array, "..."]:
    r"""Angle between successive iterates of a scale-invariant weight at stationary norm.

    .. math:: \cos\varphi = 1 - \frac{\eta\lambda}{1 + \beta}, \qquad
        \cos\varphi = \frac{a + \beta}{1 + a\beta} \text{ decoupled}, \quad a = 1 - \eta\lambda

    Args:
        eta: Learning rate, positive. Shape (...).
        weight_decay: lambda, positive and below 1 / eta. Shape (...).
        momentum: beta, from 0 to below 1; for AdamW beta_1. Shape (...).
        decoupled: Whether the decay bypasses the momentum.

    Returns:
        The angle in radians, about sqrt(2 eta lambda / (1 + beta)), decoupled sqrt(1 - beta) times that.
        Shape: broadcast.

    Valid: any gradient statistics; exact where the norm is constant, otherwise for averages over its fluctuations.
    Raises: ValueError for arguments out of range (concrete values only).
    Source: derived here; to leading order arXiv:2305.17212.
    Checked: reference value; rotating gradient with each decay (1e-12), white noise.
    """
    # In the form 2 arcsin sqrt((1 - cos) / 2), which keeps the digits of a small angle.
    return 2 * jnp.arcsin(jnp.sqrt(_turn(eta, weight_decay, momentum, decoupled) / 2))


def _turn(eta, weight_decay, momentum, decoupled):
    """1 - cos of the angle."""
    require_equilibrium(eta, weight_decay)
    below_one(momentum=momentum)
    eta, decay, beta = together(eta, weight_decay, momentum)
    rate = eta * decay
    return rate * (1 - beta) / (1 + beta - rate * beta) if decoupled else rate / (1 + beta)


def step_size_ratio(
    eta: ArrayLike, weight_decay: ArrayLike, momentum: ArrayLike = 0.0, *, decoupled: bool = False
) -> Float[Array, "..."]:
    r"""Root mean square step of a scale-invariant weight at stationary norm, in units of the norm.

    .. math:: \sqrt{\frac{\langle\|\Delta\|^2\rangle}r} = \sqrt{\frac{2\eta\lambda}{1 + \beta}}, \qquad
        \sqrt{\frac{\langle\|d\|^2\rangle}r} = \sqrt{\frac{(1 - a^2)(1 - a\beta)}{1 + a\beta}} \text{ decoupled}

    Args:
        eta: Learning rate, positive. Shape (...).
        weight_decay: lambda, positive and below 1 / eta. Shape (...).
        momentum: beta, from 0 to below 1; for AdamW beta_1. Shape (...).
        decoupled: Whether the decay bypasses the momentum, a = 1 - eta lambda; then of the step d without its decay.

    Returns:
        The ratio, dimensionless. Shape: broadcast.

    Valid: as `equilibrium_angle`.
    Raises: ValueError for arguments out of range (concrete values only).
    Source: derived here.
    Checked: reference value; rotating gradient with each decay (1e-12), white noise.
    """
    if not decoupled:
        return jnp.sqrt(2 * _turn(eta, weight_decay, momentum, False))
    require_equilibrium(eta, weight_decay)
    below_one(momentum=momentum)
    eta, decay, beta = together(eta, weight_decay, momentum)
    rate = eta * decay
    kept = (1 - rate) * beta
    return jnp.sqrt(rate * (2 - rate) * (1 - kept) / (1 + kept))


def weight_decay_for_angle(angle: ArrayLike, eta: ArrayLike, momentum: ArrayLike = 0.0) -> Float[Array, "..."]:
    r"""Weight decay at which a scale-invariant weight turns by a wanted angle in a step.

    .. math:: \lambda = \frac{(1 + \beta)(1 - \cos\varphi)}\eta

    Args:
        angle: The angle phi in radians, above 0 and below pi / 2. Shape (...).
        eta: Learning rate, positive. Shape (...).
        momentum: beta, from 0 to below 1. Shape (...).

    Returns:
        lambda, coupled. Shape: broadcast.

    Valid: inverse of `equilibrium_angle`.
    Raises: ValueError for arguments out of range (concrete values only).
    Source: derived here.
    Checked: inverse of `equilibrium_angle` (1e-14).
    """
    if not traced(angle):
        x = np.asarray(angle)
        require((x > 0) & (x < np.pi / 2), "angle", "between 0 and pi / 2, both excluded", angle)
    positive(eta=eta)
    below_one(momentum=momentum)
    angle, eta, beta = together(angle, eta, momentum)
    return (1 + beta) * 2 * jnp.sin(angle / 2) ** 2 / eta


def angle_after_drop(
    steps: ArrayLike, eta: ArrayLike, eta_after: ArrayLike, weight_decay: ArrayLike
) -> Float[Array, "..."]:
    r"""Angle per step of a scale-invariant weight after a change of the learning rate at equilibrium.

    .. math:: \varphi(k) = \eta' \sqrt{\frac{2\lambda}{\eta' + (\eta - \eta')\,e^{-4\eta'\lambda k}}}

    from :math:`\sqrt{2\eta\lambda}\,\eta'/\eta` to :math:`\sqrt{2\eta'\lambda}`.

    Args:
        steps: k, steps since the change, zero or positive. Shape (...).
        eta: Learning rate before, positive. Shape (...).
        eta_after: Learning rate eta' after, positive. Shape (...).
        weight_decay: lambda, positive and below 1 / eta. Shape (...).

    Returns:
        The angle in radians. Shape: broadcast.

    Valid: leading order in eta lambda; no momentum, constant c.
    Raises: ValueError for arguments out of range (concrete values only).
    Source: derived here.
    Checked: both ends; `squared_norm_sgd` after a drop and a rise, error proportional to eta lambda.
    """
    nonnegative(steps=steps)
    require_equilibrium(eta, weight_decay)
    positive(eta_after=eta_after)
    k, eta, after, decay = together(steps, eta, eta_after, weight_decay)
    return after * jnp.sqrt(2 * decay / (after + (eta - after) * jnp.exp(-4 * after * decay * k)))


def effective_learning_rate(eta: ArrayLike, squared_norm: ArrayLike) -> Float[Array, "..."]:
    r"""Learning rate of the direction of a scale-invariant weight.

    .. math:: \frac\eta{\|\theta\|^2}

    Args:
        eta: Learning rate, positive. Shape (...).
        squared_norm: ||theta||^2, positive. Shape (...).

    Returns:
        The rate at which the direction follows the gradient on the unit sphere. Shape: broadcast.

    Valid: to first order in the angle of a step.
    Raises: ValueError for arguments that are not positive (concrete values only).
    Source: arXiv:2105.02716 [paper].
    Checked: through `undecayed_learning_rate`.
    """
    positive(eta=eta, squared_norm=squared_norm)
    eta, r = together(eta, squared_norm)
    return eta / r


def undecayed_learning_rate(steps: ArrayLike, gradient_norm: ArrayLike) -> Float[Array, "..."]:
    r"""Effective learning rate of a scale-invariant weight that no decay holds back.

    .. math:: \frac\eta{\|\theta\|^2} \to \frac1{c\sqrt{2k}}

    Args:
        steps: k, steps from the start, positive. Shape (...).
        gradient_norm: c, norm of the gradient on the unit sphere, positive. Shape (...).

    Returns:
        The rate, whatever eta is. Shape: broadcast.

    Valid: lambda = 0, constant c, k beyond r_0^2 / (2 eta^2 c^2); no momentum.
    Raises: ValueError for arguments that are not positive (concrete values only).
    Source: derived here.
    Checked: `squared_norm_sgd` at two rates (1e-3 at k = 10^4).
    """
    positive(steps=steps, gradient_norm=gradient_norm)
    k, c = together(steps, gradient_norm)
    return 1 / (c * jnp.sqrt(2 * k))
