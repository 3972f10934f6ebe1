r"""Flows that follow the iterates of gradient descent more closely than gradient flow does.

A loss here is a function of the parameters, any pytree; weight decay is added to it, so that
:math:`\tilde g = g + \lambda\theta`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import number, with_one_dtype
from theory.noether.family import SymmetryFamily, bilinear, charge
from theory.noether.optimizer import Optimizer, check


def modified_flow(loss: Callable, eta: ArrayLike, order: int = 1, *, weight_decay: ArrayLike = 0.0) -> Callable:
    r"""Flow that gradient descent follows, to a given order in the step size.

    .. math:: \dot\theta = -\tilde g - \frac\eta2 \tilde H\tilde g
        - \eta^2\Big(\frac13 \tilde H^2\tilde g + \frac1{12}\nabla^3 L[\tilde g, \tilde g]\Big)

    Args:
        loss: L(params), differentiable order + 1 times.
        eta: Learning rate, positive. A number.
        order: Number of corrections: 0 (gradient flow), 1 or 2.
        weight_decay: lambda, zero or positive. A number.

    Returns:
        A function: params -> d params / dt, of their structure.

    Valid: order n follows the iterates to O(eta^(n+1)) at fixed t; no momentum.
    Raises: ValueError for another order, a rate that is not positive, or weight_decay < 0 (concrete values only).
    Source: arXiv:2012.04728 [paper] to first order; the next is standard backward error analysis.
    Checked: orders 1, 2, 3 in eta on a Rayleigh quotient; exact logarithm of a linear step; dense derivatives.
    """
    eta, decay, _, _ = checked(eta, weight_decay)
    require_order(order, 2)
    slope = slope_of(loss, decay)

    def bend(params, direction):
        return jax.jvp(slope, (params,), (direction,))[1]

    def velocity(params):
        g = slope(params)
        flow = combine((-1.0, g))
        if order >= 1:
            once = bend(params, g)
            flow = combine((1.0, flow), (-eta / 2, once))
        if order >= 2:
            twice = bend(params, once)
            third = jax.jvp(lambda at: bend(at, g), (params,), (g,))[1]
            flow = combine((1.0, flow), (-(eta**2) / 3, twice), (-(eta**2) / 12, third))
        return flow

    return velocity


def modified_loss(loss: Callable, eta: ArrayLike, *, weight_decay: ArrayLike = 0.0) -> Callable:
    r"""Loss whose gradient flow gradient descent follows to first order in the step size.

    .. math:: \tilde L = L + \frac\lambda2\|\theta\|^2 + \frac\eta4 \|g + \lambda\theta\|^2

    Args:
        loss: L(params).
        eta: Learning rate, positive. A number.
        weight_decay: lambda, zero or positive. A number.

    Returns:
        A function: params -> the modified loss, a number.

    Valid: its flow follows the iterates to O(eta^2) at fixed t; no momentum.
    Raises: ValueError as `modified_flow`.
    Source: arXiv:2012.04728 [paper].
    Checked: minus its gradient is `modified_flow` of order 1 (1e-14).
    """
    eta, decay, _, _ = checked(eta, weight_decay)

    def modified(params):
        value, g = loss(params), slope_of(loss, decay)(params)
        return value + at_dtype(decay / 2, value) * _square(params) + at_dtype(eta / 4, value) * _square(g)

    return modified


def modified_charge_rate(
    family: SymmetryFamily,
    loss: Callable,
    params: Any,
    eta: ArrayLike,
    order: int = 1,
    *,
    weight_decay: ArrayLike = 0.0,
) -> Float[Array, "units ..."]:
    r"""Rate at which the modified flow moves a charge.

    .. math:: \dot C = -2\lambda C + \eta\big([g]_A - \lambda^2 C\big)
        + \eta^2\Big(g^\top A H g + \lambda\,g^\top A H\theta + \lambda [g]_A - \frac23 \lambda^3 C\Big)

    and :math:`\dot s = -\lambda s\,(1 + \frac{\eta\lambda}2 + \frac{\eta^2\lambda^2}3)` for a translation.

    Args:
        family: A symmetry of the loss with a charge.
        loss: L(params).
        params: The parameters, a pytree.
        eta: Learning rate, positive. A number.
        order: Number of corrections: 0, 1 or 2.
        weight_decay: lambda, zero or positive. A number.

    Returns:
        dC/dt, in units of C / t. Shape of the charge.

    Valid: exact symmetry; no momentum.
    Raises: ValueError as `modified_flow` and `charge`.
    Source: arXiv:2012.04728 [paper] to first order; the second derived here.
    Checked: derivative of the charge along `modified_flow` for translation, scale, rescale and matrix (1e-12).
    """
    eta, decay, _, _ = checked(eta, weight_decay)
    require_order(order, 2)
    now = charge(family, params)
    eta, decay = at_dtype(eta, now), at_dtype(decay, now)
    if family.kind in ("translation", "flat"):
        return -decay * now * sum((eta * decay) ** n / (n + 1) for n in range(order + 1))
    g = jax.grad(loss)(params)
    pushed = bilinear(family, g, g)
    rate = -2 * decay * now
    if order >= 1:
        rate = rate + eta * (pushed - decay**2 * now)
    if order >= 2:
        bend = jax.jvp(jax.grad(loss), (params,), (combine((1.0, g), (decay, params)),))[1]
        rate = rate + eta**2 * (bilinear(family, g, bend) + decay * pushed - 2 / 3 * decay**3 * now)
    return rate


def checked(eta, weight_decay, momentum=0.0, dampening=0.0):
    """The four numbers of an optimizer without a schedule, in one dtype."""
    check(Optimizer(eta, weight_decay, momentum, dampening))
    number(eta=eta)
    return with_one_dtype(eta, weight_decay, momentum, dampening)


def require_order(order, most):
    if order not in range(most + 1):
        known = ", ".join(map(str, range(most)))
        raise ValueError(f"`order` must be {known} or {most}, but got {order}.")


def slope_of(loss, decay):
    """Gradient of the loss with its decay."""
    return lambda params: combine((1.0, jax.grad(loss)(params)), (decay, params))


def at_dtype(x, like):
    return jnp.asarray(x, like.dtype)


def combine(*terms):
    """Sum of numbers times pytrees, in the dtype of each leaf."""
    numbers, trees = zip(*terms, strict=True)
    return jax.tree.map(lambda *xs: sum(at_dtype(a, x) * x for a, x in zip(numbers, xs, strict=True)), *trees)


def _square(tree):
    return sum(jnp.sum(x**2) for x in jax.tree.leaves(tree))
