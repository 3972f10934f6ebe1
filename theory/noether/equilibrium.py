r"""Norm of a scale-invariant weight: growth by finite steps against decay.

The gradient is orthogonal to the weight and falls as 1 / ||theta||; c is its norm on the unit sphere. Times are
t = eta k. With dampening read eta (1 - d) for eta.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import below_one, finite, nonnegative, positive, require, together, traced, with_one_dtype
from theory.noether.optimizer import Optimizer, check, schedule
from theory.roots import mean_decay


def require_equilibrium(eta: ArrayLike, weight_decay: ArrayLike) -> None:
    """One sentence where there is no equilibrium: no decay, or decay of the whole weight in a step."""
    positive(eta=eta, weight_decay=weight_decay)
    finite(eta=eta, weight_decay=weight_decay)
    some_kept(eta, weight_decay)


def some_kept(eta: ArrayLike, weight_decay: ArrayLike) -> None:
    """Requirement that a step does not take the whole weight away."""
    if not traced(eta, weight_decay):
        rate = np.asarray(eta) * np.asarray(weight_decay)
        require(rate < 1, "weight_decay", "below 1 / `eta`", weight_decay)


def equilibrium_norm(eta: ArrayLike, weight_decay: ArrayLike, gradient_norm: ArrayLike) -> Float[Array, "..."]:
    r"""Stationary norm of a scale-invariant weight under gradient descent.

    .. math:: \|\theta\|^4 = \frac{\eta c^2}{\lambda(2 - \eta\lambda)}

    Args:
        eta: Learning rate, positive. Shape (...).
        weight_decay: lambda, positive and below 1 / eta. Shape (...).
        gradient_norm: c, norm of the gradient on the unit sphere, positive. Shape (...).

    Returns:
        ||theta||, in units of the weights. Shape: broadcast.

    Valid: exact for constant c; full batch or stochastic, without momentum.
    Raises: ValueError for arguments out of range (concrete values only).
    Source: derived here; to leading order arXiv:2006.08419.
    Checked: reference value, fixed point of `squared_norm_sgd` (1e-13), white noise.
    """
    require_equilibrium(eta, weight_decay)
    positive(gradient_norm=gradient_norm)
    eta, decay, c = together(eta, weight_decay, gradient_norm)
    return jnp.sqrt(c * jnp.sqrt(eta / (decay * (2 - eta * decay))))


def equilibrium_norm_momentum(
    eta: ArrayLike,
    weight_decay: ArrayLike,
    gradient_norm: ArrayLike,
    momentum: ArrayLike,
    autocorrelation: str | ArrayLike = "white",
) -> Float[Array, "..."]:
    r"""Stationary norm of a scale-invariant weight under momentum and coupled decay.

    .. math:: \|\theta\|^4 = \frac{\eta c^2}{2\lambda(1 - \beta)} \Big(1 + 2\sum_{j\ge1} \beta^j \rho_j\Big), \qquad
        \rho_j = \frac{\langle\hat g_k \cdot \hat g_{k+j}\rangle}{c^2}

    Args:
        eta: Learning rate, positive. Shape (...).
        weight_decay: lambda, positive and below 1 / eta. Shape (...).
        gradient_norm: c, root mean square norm of the gradient on the unit sphere, positive. Shape (...).
        momentum: beta, from 0 to below 1. Shape (...).
        autocorrelation: rho_1, ..., rho_J of the gradient, zero beyond, shape (J,); or "white", all 0, or "smooth", all
            1: a factor (1 + beta) / (1 - beta).

    Returns:
        ||theta||, in units of the weights. Shape: broadcast.

    Valid: leading order in eta lambda, which must be small beside (1 - beta)^2 and the gradient's decorrelation.
    Raises: ValueError for arguments out of range (concrete values only), or another word.
    Source: derived here.
    Checked: simulated white and autoregressive gradients; the rotating gradient for eta lambda -> 0.
    """
    require_equilibrium(eta, weight_decay)
    positive(gradient_norm=gradient_norm)
    below_one(momentum=momentum)
    eta, decay, c, beta = together(eta, weight_decay, gradient_norm, momentum)
    if isinstance(autocorrelation, str):
        if autocorrelation not in ("white", "smooth"):
            raise ValueError(f"`autocorrelation` must be numbers, white or smooth, but got {autocorrelation}.")
        memory = 1.0 if autocorrelation == "white" else (1 + beta) / (1 - beta)
    else:
        _, rho = with_one_dtype(eta, autocorrelation)
        if rho.ndim != 1:
            raise ValueError(f"`autocorrelation` must have shape (J,), but got {rho.shape}.")
        powers = jnp.cumprod(jnp.broadcast_to(beta[..., None], (*beta.shape, len(rho))), axis=-1)
        memory = 1 + 2 * jnp.tensordot(powers, rho, 1)
    return (eta * c**2 / (2 * decay * (1 - beta)) * memory) ** 0.25


def rotating_equilibrium_norm(
    eta: ArrayLike, weight_decay: ArrayLike, gradient_norm: ArrayLike, momentum: ArrayLike
) -> Float[Array, "..."]:
    r"""Stationary norm of a weight that a smooth gradient turns in a plane, under momentum and coupled decay.

    .. math:: \|\theta\|^4
        = \frac{\eta c^2 (1 + \beta)}{(1 - \beta)^2 \lambda \big(2 - \frac{\eta\lambda}{1 + \beta}\big)},
        \qquad g = \frac{c\,J\theta}{\|\theta\|^2}

    Args:
        eta: Learning rate, positive. Shape (...).
        weight_decay: lambda, positive and below 1 / eta. Shape (...).
        gradient_norm: c, norm of the gradient on the unit sphere, positive. Shape (...).
        momentum: beta, from 0 to below 1. Shape (...).

    Returns:
        ||theta||, in units of the weights. Shape: broadcast.

    Valid: exact; J turns by 90 degrees.
    Raises: ValueError for arguments out of range (concrete values only).
    Source: derived here.
    Checked: reference value, simulated heavy ball (1e-12), beta = 0.
    """
    require_equilibrium(eta, weight_decay)
    positive(gradient_norm=gradient_norm)
    below_one(momentum=momentum)
    eta, decay, c, beta = together(eta, weight_decay, gradient_norm, momentum)
    return (eta * c**2 * (1 + beta) / ((1 - beta) ** 2 * decay * (2 - eta * decay / (1 + beta)))) ** 0.25


def adamw_equilibrium_norm(
    eta: ArrayLike, weight_decay: ArrayLike, dimension: ArrayLike, beta1: ArrayLike = 0.9
) -> Float[Array, "..."]:
    r"""Stationary norm of a scale-invariant weight under AdamW.

    .. math:: \|\theta\|^2 = \eta^2 D\,\frac{1 - \beta_1}{1 + \beta_1}\,\frac{1 + a\beta_1}{(1 - a^2)(1 - a\beta_1)}
        \simeq \frac{\eta D}{2\lambda}, \qquad a = 1 - \eta\lambda

    Args:
        eta: Learning rate, positive. Shape (...).
        weight_decay: lambda, positive and below 1 / eta, multiplied by eta in a step. Shape (...).
        dimension: D, number of entries of the weight, positive. Shape (...).
        beta1: Decay of the first moment, from 0 to below 1. Shape (...).

    Returns:
        ||theta||, in units of the weights. Shape: broadcast.

    Valid: white gradients, large D, beta_2 -> 1, epsilon = 0.
    Raises: ValueError for arguments out of range (concrete values only).
    Source: derived here; to leading order arXiv:2305.17212.
    Checked: optax.adamw on white noise (2%).
    """
    require_equilibrium(eta, weight_decay)
    positive(dimension=dimension)
    below_one(beta1=beta1)
    eta, decay, D, beta = together(eta, weight_decay, dimension, beta1)
    rate = eta * decay
    kept = (1 - rate) * beta
    return eta * jnp.sqrt(D * (1 - beta) / (1 + beta) * (1 + kept) / (rate * (2 - rate) * (1 - kept)))


def adam_l2_equilibrium_norm(
    eta: ArrayLike, weight_decay: ArrayLike, gradient_norm: ArrayLike, dimension: ArrayLike
) -> Float[Array, "..."]:
    r"""Stationary norm of a scale-invariant weight under Adam with coupled decay.

    .. math:: \|\theta\| = \Big(\frac{\eta c\sqrt D}{2\lambda}\Big)^{1/3}

    Args:
        eta: Learning rate, positive. Shape (...).
        weight_decay: lambda, added to the gradient, positive. Shape (...).
        gradient_norm: c, root mean square norm of the gradient on the unit sphere, positive. Shape (...).
        dimension: D, number of entries of the weight, positive. Shape (...).

    Returns:
        ||theta||, in units of the weights. Shape: broadcast.

    Valid: beta_1 = 0, white gradients, large D, beta_2 -> 1, epsilon = 0; a decay small beside the gradient.
    Raises: ValueError for arguments that are not positive (concrete values only).
    Source: derived here.
    Checked: optax.adam on white noise (2%).
    """
    positive(eta=eta, weight_decay=weight_decay, gradient_norm=gradient_norm, dimension=dimension)
    eta, decay, c, D = together(eta, weight_decay, gradient_norm, dimension)
    return jnp.cbrt(eta * c * jnp.sqrt(D) / (2 * decay))


def squared_norm_sgd(
    r0: ArrayLike, squared_gradient_norms: ArrayLike, eta: ArrayLike, weight_decay: ArrayLike = 0.0
) -> Float[Array, " K+1"]:
    r"""Squared norm of a scale-invariant weight after every step of gradient descent.

    .. math:: r_{k+1} = (1 - \eta\lambda)^2\,r_k + \frac{\eta^2 c_k^2}{r_k}

    Args:
        r0: ||theta_0||^2, positive. A number.
        squared_gradient_norms: c_k^2, of the gradients on the unit sphere, zero or positive. Shape (K,).
        eta: Learning rate, positive. A number, or one for each step.
        weight_decay: lambda, zero or positive. A number.

    Returns:
        r_0, ..., r_K. Shape (K + 1,).

    Valid: every batch, step size and schedule; no momentum.
    Raises: ValueError for arguments out of range (concrete values only), or shapes that do not match.
    Source: derived here.
    Checked: reference value, Rayleigh quotient (1e-12).
    """
    check(Optimizer(eta, weight_decay))
    positive(r0=r0)
    nonnegative(squared_gradient_norms=squared_gradient_norms)
    r0, c2, eta, decay = with_one_dtype(r0, squared_gradient_norms, eta, weight_decay)
    if r0.ndim or c2.ndim != 1:
        raise ValueError(
            f"`r0` and `squared_gradient_norms` must have shapes () and (K,), but got {r0.shape} and {c2.shape}."
        )
    eta, _ = schedule(eta, decay, len(c2))

    _, path = jax.lax.scan(_grow, r0, ((1 - eta * decay) ** 2, eta**2 * c2))
    return jnp.concatenate([r0[None], path])


def _grow(r, law):
    kept, push = law
    r = kept * r + push / r
    return r, r


def norm_relaxation(
    t: ArrayLike, r0: ArrayLike, eta: ArrayLike, weight_decay: ArrayLike, gradient_norm: ArrayLike
) -> Float[Array, "..."]:
    r"""Squared norm of a scale-invariant weight on its way to equilibrium.

    .. math:: r^2(t) = r_{eq}^2 + (r_0^2 - r_{eq}^2)\,e^{-4\lambda t}, \qquad r_{eq}^2 = \frac{\eta c^2}{2\lambda};
        \qquad r^2(t) = r_0^2 + 2\eta c^2 t \text{ for } \lambda = 0

    Args:
        t: Time eta k, zero or positive. Shape (...).
        r0: ||theta_0||^2, positive. Shape (...).
        eta: Learning rate, positive. Shape (...).
        weight_decay: lambda, zero or positive. Shape (...).
        gradient_norm: c, norm of the gradient on the unit sphere, positive. Shape (...).

    Returns:
        r = ||theta||^2. Shape: broadcast.

    Valid: constant c; gradient descent up to O(eta lambda).
    Raises: ValueError for arguments out of range (concrete values only).
    Source: derived here; arXiv:2006.08419 has the rate.
    Checked: reference value, order in eta against `squared_norm_sgd`, lambda = 0 and lambda -> 0.
    """
    nonnegative(t=t, weight_decay=weight_decay)
    positive(r0=r0, eta=eta, gradient_norm=gradient_norm)
    t, r0, eta, decay, c = together(t, r0, eta, weight_decay, gradient_norm)
    x = 4 * decay * t
    return jnp.sqrt(r0**2 * jnp.exp(-x) + 2 * eta * c**2 * t * mean_decay(x))


def relaxation_multiplier(eta: ArrayLike, weight_decay: ArrayLike) -> Float[Array, "..."]:
    r"""Factor per step by which a small deviation of the norm from its equilibrium shrinks.

    .. math:: 1 - 4\eta\lambda + 2\eta^2\lambda^2

    Args:
        eta: Learning rate, positive. Shape (...).
        weight_decay: lambda, positive and below 1 / eta. Shape (...).

    Returns:
        The factor: about 1 / (4 eta lambda) steps to equilibrium. Shape: broadcast.

    Valid: exact for constant c, without momentum; negative, a deviation that changes sign, from eta lambda = 0.293.
    Raises: ValueError for arguments out of range (concrete values only).
    Source: derived here.
    Checked: derivative of a step at the fixed point (1e-13).
    """
    require_equilibrium(eta, weight_decay)
    eta, decay = together(eta, weight_decay)
    return 1 - 2 * eta * decay * (2 - eta * decay)
