r"""Implicit adaptivity: on the sphere, gradient descent with weight decay is RMSProp.

u is the direction of a scale-invariant weight and Z = ||theta||^4. A gradient here is that of the loss on the unit
sphere, orthogonal to u.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import below_one, nonnegative, number, positive, together, with_one_dtype
from theory.noether.equilibrium import require_equilibrium, some_kept


class RMSProp(NamedTuple):
    """Decay of the second moment, and learning rate."""

    rho: Float[Array, "..."]
    learning_rate: Float[Array, "..."]


def rmsprop_equivalent(eta: ArrayLike, weight_decay: ArrayLike) -> RMSProp:
    r"""RMSProp that gradient descent with weight decay is, on the direction of a scale-invariant weight.

    .. math:: \rho = (1 - \eta\lambda)^4, \qquad \eta_R = \frac{\sqrt{(1 - \rho)/2}}{(1 - \eta\lambda)^2}
        \simeq \sqrt{2\eta\lambda}

    Args:
        eta: Learning rate, positive. Shape (...).
        weight_decay: lambda, positive and below 1 / eta. Shape (...).

    Returns:
        `RMSProp(rho, learning_rate)`, for `rmsprop_trajectory`; dimensionless. Shape: broadcast.

    Valid: one second moment for the whole weight, used before its update; relative error of order eta lambda.
    Raises: ValueError for arguments out of range (concrete values only).
    Source: the idea arXiv:2105.02716 [paper]; exact constants derived here.
    Checked: reference values; `sphere_trajectory` on a random stream, deviation proportional to eta lambda.
    """
    require_equilibrium(eta, weight_decay)
    eta, decay = together(eta, weight_decay)
    a = 1 - eta * decay
    return RMSProp(a**4, jnp.sqrt(_forgotten(eta * decay) / 2) / a**2)


def _forgotten(rate):
    """1 - (1 - rate)^4."""
    lost = rate * (2 - rate)
    return lost * (2 - lost)


def equivalent_second_moment(Z: ArrayLike, eta: ArrayLike, weight_decay: ArrayLike) -> Float[Array, "..."]:
    r"""Second moment of the equivalent RMSProp, from the norm of the weight.

    .. math:: G = \frac{1 - \rho}{2(1 - \eta\lambda)^2\eta^2} \|\theta\|^4

    Args:
        Z: ||theta||^4, positive. Shape (...).
        eta: Learning rate, positive. Shape (...).
        weight_decay: lambda, positive and below 1 / eta. Shape (...).

    Returns:
        G, in units of the squared gradient on the unit sphere. Shape: broadcast.

    Valid: as `rmsprop_equivalent`.
    Raises: ValueError for arguments out of range (concrete values only).
    Source: derived here.
    Checked: `sphere_step` and a step of RMSProp turn alike (1e-13).
    """
    positive(Z=Z)
    require_equilibrium(eta, weight_decay)
    Z, eta, decay = together(Z, eta, weight_decay)
    rate = eta * decay
    return _forgotten(rate) / (2 * (1 - rate) ** 2 * eta**2) * Z


class SphereState(NamedTuple):
    """Direction u, shape (..., d), and ||theta||^4, shape (...)."""

    u: Float[Array, "... d"]
    Z: Float[Array, "..."]


def sphere_step(
    u: ArrayLike, Z: ArrayLike, gradient: ArrayLike, eta: ArrayLike, weight_decay: ArrayLike = 0.0
) -> SphereState:
    r"""Direction and norm of a scale-invariant weight after a step of gradient descent.

    .. math:: u \leftarrow \operatorname{normalize}\Big(u - \frac{\eta}{a\sqrt Z}\hat g\Big), \qquad
        Z \leftarrow a^4 Z + 2a^2\eta^2\|\hat g\|^2 + \frac{\eta^4\|\hat g\|^4}Z, \qquad a = 1 - \eta\lambda

    Args:
        u: Direction, of length 1. Shape (..., d).
        Z: ||theta||^4, positive. Shape (...).
        gradient: Gradient at u, orthogonal to it. Shape (..., d).
        eta: Learning rate, positive. A number.
        weight_decay: lambda, zero or positive and below 1 / eta. A number.

    Returns:
        `SphereState(u, Z)` after the step.

    Valid: exact at every step size; no momentum.
    Raises: ValueError for arguments out of range (concrete values only), or shapes that do not match.
    Source: derived here.
    Checked: first step of `sphere_trajectory` (1e-13).
    """
    _rate(eta, weight_decay)
    positive(Z=Z)
    u, Z, g, eta, decay = _state(u, Z, eta, weight_decay, gradient=gradient)
    return _sphere_step(u, Z, g, eta, 1 - eta * decay)


def _sphere_step(u, Z, g, eta, a):
    push = eta**2 * jnp.sum(g**2, axis=-1)
    return SphereState(
        _unit(u - (eta / (a * jnp.sqrt(Z)))[..., None] * g),
        a**4 * Z + 2 * a**2 * push + push**2 / Z,
    )


def sphere_trajectory(
    u0: ArrayLike,
    Z0: ArrayLike,
    gradient: Callable,
    batches: Any,
    eta: ArrayLike,
    weight_decay: ArrayLike = 0.0,
) -> SphereState:
    r"""Direction and norm of a scale-invariant weight after every step of gradient descent.

    Args:
        u0: Direction at the start, of length 1. Shape (..., d).
        Z0: ||theta_0||^4, positive. Shape (...).
        gradient: gradient(u, batch), of the loss on the unit sphere, orthogonal to u.
        batches: Second argument of each step, a pytree with leaves of shape (K, ...).
        eta: Learning rate, positive. A number.
        weight_decay: lambda, zero or positive and below 1 / eta. A number.

    Returns:
        `SphereState(u, Z)`, shapes (K + 1, ..., d) and (K + 1, ...), the start included.

    Valid: exact at every step size; no momentum.
    Raises: ValueError as `sphere_step`.
    Source: derived here; repeats `sphere_step`.
    Checked: gradient descent on a stream of Rayleigh quotients (1e-11).
    """
    _rate(eta, weight_decay)
    positive(Z0=Z0)
    u0, Z0, eta, decay = _state(u0, Z0, eta, weight_decay)
    return _run(u0, Z0, batches, lambda u, Z, x: _sphere_step(u, Z, gradient(u, x), eta, 1 - eta * decay))


class RMSPropState(NamedTuple):
    """Direction u, shape (..., d), and second moment G, shape (...)."""

    u: Float[Array, "... d"]
    G: Float[Array, "..."]


def rmsprop_trajectory(
    u0: ArrayLike,
    G0: ArrayLike,
    gradient: Callable,
    batches: Any,
    rho: ArrayLike,
    learning_rate: ArrayLike,
) -> RMSPropState:
    r"""RMSProp on the sphere with one second moment, after every step.

    .. math:: u \leftarrow \operatorname{normalize}\Big(u - \frac{\eta_R\,\hat g}{\sqrt G}\Big), \qquad
        G \leftarrow \rho G + (1 - \rho)\|\hat g\|^2

    Args:
        u0: Direction at the start, of length 1. Shape (..., d).
        G0: Second moment at the start, positive; `equivalent_second_moment`. Shape (...).
        gradient: gradient(u, batch), of the loss on the unit sphere, orthogonal to u.
        batches: Second argument of each step, a pytree with leaves of shape (K, ...).
        rho: Decay of the second moment, from 0 to below 1. A number.
        learning_rate: eta_R, positive. A number.

    Returns:
        `RMSPropState(u, G)`, shapes (K + 1, ..., d) and (K + 1, ...), the start included.

    Valid: with the constants of `rmsprop_equivalent`: gradient descent with decay, but for relative O(eta lambda).
    Raises: ValueError for arguments out of range (concrete values only), or shapes that do not match.
    Source: arXiv:2105.02716 [paper], discrete form derived here.
    Checked: `sphere_trajectory` on a random stream, deviation proportional to eta lambda.
    """
    positive(G0=G0, learning_rate=learning_rate)
    below_one(rho=rho)
    number(rho=rho, learning_rate=learning_rate)
    u0, G0, rho, learning_rate = _state(u0, G0, rho, learning_rate)

    def step(u, G, x):
        g = gradient(u, x)
        moved = _unit(u - (learning_rate / jnp.sqrt(G))[..., None] * g)
        return RMSPropState(moved, rho * G + (1 - rho) * jnp.sum(g**2, axis=-1))

    return RMSPropState(*_run(u0, G0, batches, step))


def norm_fourth_power_rate(
    Z: ArrayLike,
    squared_gradient_norm: ArrayLike,
    eta: ArrayLike,
    weight_decay: ArrayLike,
    momentum: ArrayLike = 0.0,
) -> Float[Array, "..."]:
    r"""Rate of the fourth power of the norm of a scale-invariant weight: a second moment of its gradients.

    .. math:: \frac d{dt}\|\theta\|^4 = -\frac{4\lambda}{1 - \beta}\|\theta\|^4
        + \frac{2\eta(1 + \beta)}{(1 - \beta)^3}\|\hat g\|^2

    Args:
        Z: ||theta||^4, positive. Shape (...).
        squared_gradient_norm: Squared gradient on the unit sphere, zero or positive. Shape (...).
        eta: Learning rate, positive. Shape (...).
        weight_decay: lambda, zero or positive. Shape (...).
        momentum: beta, from 0 to below 1. Shape (...).

    Returns:
        dZ/dt, t = eta k. Shape: broadcast.

    Valid: leading order in eta; with momentum smooth gradients, and inertia dropped.
    Raises: ValueError for arguments out of range (concrete values only).
    Source: arXiv:2105.02716 [paper] for the structure; constants derived here.
    Checked: zero at `equilibrium_norm_momentum` (smooth); simulated rotating gradient, error falling with eta.
    """
    positive(Z=Z, eta=eta)
    nonnegative(squared_gradient_norm=squared_gradient_norm, weight_decay=weight_decay)
    below_one(momentum=momentum)
    Z, g2, eta, decay, beta = together(Z, squared_gradient_norm, eta, weight_decay, momentum)
    return -4 * decay / (1 - beta) * Z + 2 * eta * (1 + beta) / (1 - beta) ** 3 * g2


def _rate(eta, weight_decay):
    number(eta=eta, weight_decay=weight_decay)
    positive(eta=eta)
    nonnegative(weight_decay=weight_decay)
    some_kept(eta, weight_decay)


def _state(u, second, *numbers, **vectors):
    u, second, *rest = with_one_dtype(u, second, *vectors.values(), *numbers)
    for name, x in {"u": u, **dict(zip(vectors, rest, strict=False))}.items():
        if not x.ndim or x.shape != (*second.shape, u.shape[-1]):
            raise ValueError(f"`{name}` must have shape (..., d) over {second.shape}, but got {x.shape}.")
    return u, second, *rest


def _run(u0, second0, batches, step):
    def advance(state, x):
        state = step(*state, x)
        return tuple(state), tuple(state)

    _, path = jax.lax.scan(advance, (u0, second0), batches)
    return SphereState(*(jnp.concatenate([x[None], xs]) for x, xs in zip((u0, second0), path, strict=True)))


def _unit(x):
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)
