r"""Noether's learning dynamics: heavy ball as a particle whose kinetic energy breaks the symmetries of the loss.

:math:`\xi = A\theta + b` is the generator of a symmetry. The metric M of the kinetic energy is diagonal: a number (the
mass m of `heavy_ball_inertia`), or a function of the parameters that returns a pytree like them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import nonnegative, positive, require, traced, with_one_dtype
from theory.noether.discrete import each_step
from theory.noether.family import SymmetryFamily, bilinear, charge
from theory.noether.modified import at_dtype, slope_of
from theory.roots import mean_decay

Metric = ArrayLike | Callable


def noether_lagrangian(
    loss: Callable, metric: Metric, friction: ArrayLike, mass: ArrayLike, *, weight_decay: ArrayLike = 0.0
) -> Callable:
    r"""Lagrangian of gradient descent with momentum.

    .. math:: \mathcal L = e^{\mu t/m}\Big(\frac12 \dot\theta^\top M \dot\theta - L(\theta)
        - \frac\lambda2\|\theta\|^2\Big)

    Args:
        loss: L(params).
        metric: M, the mass itself for heavy ball.
        friction: mu = 1 - beta, above 0. A number.
        mass: m, positive, in units of t. A number.
        weight_decay: lambda, zero or positive. A number.

    Returns:
        A function: (t, params, velocity) -> the Lagrangian, a number.

    Valid: its Euler-Lagrange equation is `heavy_ball_ode` for M = m. It grows in time: for derivations, not for runs.
    Raises: ValueError for arguments out of range (concrete values only).
    Source: arXiv:2105.02716 [paper].
    Checked: Euler-Lagrange equation by automatic differentiation, with constant and with varying metric (1e-12).
    """
    positive(friction=friction, mass=mass)
    nonnegative(weight_decay=weight_decay)

    def value(t, params, velocity):
        potential = loss(params)
        kinetic = _dot(velocity, _lowered(metric, params, velocity)) / 2
        decay = at_dtype(weight_decay, potential) / 2 * _dot(params, params)
        t, mu, m = (at_dtype(x, potential) for x in (t, friction, mass))
        return jnp.exp(mu * t / m) * (kinetic - potential - decay)

    return value


def noether_momentum(family: SymmetryFamily, params: Any, velocity: Any, metric: Metric) -> Float[Array, "units ..."]:
    r"""Momentum along a symmetry, which a particle without friction would conserve.

    .. math:: \langle M\dot\theta, \xi\rangle

    Args:
        family: A symmetry.
        params: The parameters, a pytree.
        velocity: d params / dt, a pytree like `params`.
        metric: M, a number or a function of the parameters.

    Returns:
        One number a unit, or a matrix as for `bilinear`.

    Valid: any symmetry, rotations included; half the mass times the rate of a quadratic charge.
    Raises: ValueError if tensors are missing or of another shape.
    Source: arXiv:2105.02716 [paper].
    Checked: its derivative along the motion is `noether_balance`, five kinds of symmetry (1e-12).
    """
    return _along(family, params, _lowered(metric, params, velocity))


def kinetic_symmetry_breaking(
    family: SymmetryFamily, params: Any, velocity: Any, metric: Metric
) -> Float[Array, "units ..."]:
    r"""How the kinetic energy breaks a symmetry of the loss.

    .. math:: \langle M\dot\theta, A\dot\theta\rangle + \frac12 \dot\theta^\top (\partial_\xi M)\,\dot\theta

    Args:
        family: A symmetry.
        params: The parameters, a pytree.
        velocity: d params / dt, a pytree like `params`.
        metric: M, a number or a function of the parameters.

    Returns:
        One number a unit, or a matrix as for `bilinear`; zero for translations and rotations at M = m.

    Valid: any symmetry; m [velocity]_A at M = m, the source of `momentum_charge_ode`.
    Raises: ValueError if tensors are missing or of another shape.
    Source: arXiv:2105.02716 [paper] at M = m; the rest derived here.
    Checked: derivative of the kinetic energy along the generator, five kinds of symmetry (1e-12).
    """
    lowered = _lowered(metric, params, velocity)
    if family.kind in ("translation", "flat"):
        broken = jnp.zeros_like(charge(family, params))
    else:
        broken = bilinear(family, velocity, lowered)
    if not callable(metric):
        return broken
    slope = jax.grad(lambda at: _dot(velocity, _lowered(metric, at, velocity)) / 2)(params)
    return broken + _along(family, params, slope)


def explicit_breaking(family: SymmetryFamily, params: Any, weight_decay: ArrayLike) -> Float[Array, "units ..."]:
    r"""How weight decay breaks a symmetry of the loss.

    .. math:: -\lambda \langle\theta, \xi\rangle

    Args:
        family: A symmetry.
        params: The parameters, a pytree.
        weight_decay: lambda, zero or positive. A number.

    Returns:
        One number a unit, or a matrix as for `bilinear`; zero for rotations.

    Valid: any symmetry.
    Raises: ValueError for weight_decay < 0, or if tensors are missing or of another shape.
    Source: arXiv:2105.02716 [paper].
    Checked: through `noether_balance`.
    """
    nonnegative(weight_decay=weight_decay)
    product = _along(family, params, params)
    return -at_dtype(weight_decay, product) * product


class NoetherBalance(NamedTuple):
    """Why the momentum along a symmetry changes; `friction + kinetic + explicit` is `rate` where the loss has it.

    ========  =====================================================
    rate      d/dt <M velocity, xi>, by the equation of motion
    friction  -(mu / m) <M velocity, xi>
    kinetic   `kinetic_symmetry_breaking`
    explicit  `explicit_breaking`
    ========  =====================================================
    """

    rate: Float[Array, "units ..."]
    friction: Float[Array, "units ..."]
    kinetic: Float[Array, "units ..."]
    explicit: Float[Array, "units ..."]

    @property
    def gap(self) -> Array:
        """What is left unexplained: -<g, xi>, zero for a symmetry."""
        return self.rate - self.friction - self.kinetic - self.explicit


def noether_balance(
    family: SymmetryFamily,
    loss: Callable,
    params: Any,
    velocity: Any,
    metric: Metric,
    friction: ArrayLike,
    mass: ArrayLike,
    *,
    weight_decay: ArrayLike = 0.0,
) -> NoetherBalance:
    r"""Noether's theorem with broken symmetry, term by term.

    .. math:: \frac d{dt}\Big(e^{\mu t/m}\langle M\dot\theta, \xi\rangle\Big) = e^{\mu t/m}\Big(
        \langle M\dot\theta, A\dot\theta\rangle + \frac12 \dot\theta^\top(\partial_\xi M)\dot\theta
        - \lambda\langle\theta, \xi\rangle\Big)

    Args:
        family: A symmetry.
        loss: L(params).
        params: The parameters, a pytree.
        velocity: d params / dt, a pytree like `params`.
        metric: M, a number (the mass itself for heavy ball) or a function of the parameters.
        friction: mu = 1 - beta, above 0. A number.
        mass: m, positive, in units of t. A number.
        weight_decay: lambda, zero or positive. A number.

    Returns:
        `NoetherBalance`, each term of the shape of `noether_momentum`; divided by the growing exponential.

    Valid: every state; the equation of motion is that of `noether_lagrangian`.
    Raises: ValueError for arguments out of range (concrete values only), or tensors that are missing.
    Source: arXiv:2105.02716 [paper] at M = m; the rest derived here.
    Checked: five kinds of symmetry, constant and varying metric (1e-12); integrated trajectory (1e-6).
    """
    positive(friction=friction, mass=mass)
    nonnegative(weight_decay=weight_decay)
    moment = noether_momentum(family, params, velocity, metric)
    kinetic = kinetic_symmetry_breaking(family, params, velocity, metric)
    slope = slope_of(loss, weight_decay)(params)
    pull = at_dtype(friction, moment) / at_dtype(mass, moment) * moment
    rate = kinetic - pull - _along(family, params, slope)
    return NoetherBalance(rate, -pull, kinetic, explicit_breaking(family, params, weight_decay))


def noether_memory(
    times: ArrayLike, breaking: ArrayLike, friction: ArrayLike, mass: ArrayLike
) -> Float[Array, "T ..."]:
    r"""Momentum along a symmetry from rest, as a memory of how the symmetry was broken.

    .. math:: \langle M\dot\theta, \xi\rangle(t) = \int_0^t e^{-\mu(t - \tau)/m}\,b(\tau)\,d\tau

    Args:
        times: Rising times, the first that of rest. Shape (T,).
        breaking: b, the sum of kinetic and explicit breaking at those times. Shape (T, ...).
        friction: mu = 1 - beta, above 0. A number.
        mass: m, positive, in units of t. A number.

    Returns:
        The momentum at those times, 0 at the first. Shape (T, ...).

    Valid: exact for b linear between the times, error O(spacing^2) otherwise; no exponential grows.
    Raises: ValueError for arguments out of range (concrete values only), or shapes that do not match.
    Source: arXiv:2105.02716 [paper].
    Checked: closed form for linear b (1e-12); integrated trajectory, order in the spacing.
    """
    positive(friction=friction, mass=mass)
    times, b, mu, m = with_one_dtype(times, breaking, friction, mass)
    if times.ndim != 1 or b.shape[:1] != times.shape:
        raise ValueError(
            f"`times` and `breaking` must have shapes (T,) and (T, ...), but got {times.shape} and {b.shape}."
        )
    gaps = jnp.diff(times)
    if not traced(times):
        require(np.asarray(gaps) > 0, "times", "rising", times[1:])
    x = mu * gaps / m
    mean, early = mean_decay(x), _early(x)

    start = jnp.zeros_like(b[0])
    push = each_step(gaps * early, b) * b[:-1] + each_step(gaps * (mean - early), b) * b[1:]
    _, path = jax.lax.scan(_remember, start, (jnp.exp(-x), push))
    return jnp.concatenate([start[None], path])


def _remember(moment, law):
    kept, push = law
    moment = kept * moment + push
    return moment, moment


def _early(x):
    r""":math:`\int_0^1 s\,e^{-xs}\,ds = (1 - (1 + x)e^{-x}) / x^2`: weight of the earlier end."""
    small = x < 0.5
    near = jnp.where(small, x, 0.0)
    series = jnp.zeros_like(x)
    for n in range(14, -1, -1):
        series = 1 / (n + 2) - near / (n + 1) * series
    far = jnp.where(small, 1.0, x)
    return jnp.where(small, series, (-jnp.expm1(-far) - far * jnp.exp(-far)) / far**2)


def _along(family, params, covector):
    """<covector, xi>, unit by unit."""
    if family.kind in ("translation", "flat"):
        return charge(family, covector)
    return bilinear(family, params, covector)


def _lowered(metric, params, velocity):
    """M velocity."""
    if callable(metric):
        return jax.tree.map(jnp.multiply, metric(params), velocity)
    return jax.tree.map(lambda v: at_dtype(metric, v) * v, velocity)


def _dot(x, y):
    return sum(jax.tree.leaves(jax.tree.map(lambda a, b: jnp.sum(a * b), x, y)))
