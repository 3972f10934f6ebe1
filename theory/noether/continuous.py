"""A charge in continuous time: the damped oscillator of the paper, and the two corrections that make it second order.

Time is t = eta k, or eta (1 - d) k with dampening. No exponential here grows.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import finite, nonnegative, number, with_one_dtype
from theory.noether.discrete import with_sources
from theory.noether.optimizer import Optimizer, check
from theory.oscillator import oscillation
from theory.roots import safe_sqrt


class Rates(NamedTuple):
    """Damping and angular frequency of a charge, in units of 1 / t."""

    gamma: Float[Array, ""]
    omega: Float[Array, ""]


def charge_rates(
    eta: ArrayLike,
    weight_decay: ArrayLike,
    momentum: ArrayLike,
    *,
    dampening: ArrayLike = 0.0,
    linear: bool = False,
) -> Rates:
    r"""Damping and frequency of the oscillator that a charge is under momentum.

    .. math:: \ddot C + 2\gamma\dot C + \omega^2 C = 2[\dot\theta]_A, \qquad
        \gamma = \frac{1 - \beta}{\eta(1 + \beta)}, \qquad \omega^2 = \frac{4\lambda}{\eta(1 + \beta)}

    Args:
        eta: Learning rate, positive. A number.
        weight_decay: lambda, zero or positive. A number.
        momentum: beta, from 0 to below 1. A number.
        dampening: d, from 0 to below 1: eta (1 - d) for eta. A number.
        linear: Whether the charge is that of a translation: omega^2 halved, and no source.

    Returns:
        `Rates(gamma, omega)`, in units of 1 / t.

    Valid: heavy ball with coupled decay, eta -> 0.
    Raises: ValueError for an optimizer that does not exist (concrete values only).
    Source: arXiv:2012.04728 [paper].
    Checked: reference values; through `momentum_charge_ode`.
    """
    check(Optimizer(eta, weight_decay, momentum, dampening))
    number(eta=eta)
    eta, decay, beta, dampening = with_one_dtype(eta, weight_decay, momentum, dampening)
    gamma, square = _constants(eta * (1 - dampening), decay, beta, linear)
    return Rates(gamma, safe_sqrt(square))


def _constants(eta, decay, beta, linear):
    """gamma and omega^2."""
    inertia = eta * (1 + beta)
    return (1 - beta) / inertia, (2 if linear else 4) * decay / inertia


def sgd_charge_ode(
    c0: ArrayLike,
    t: ArrayLike,
    eta: ArrayLike,
    weight_decay: ArrayLike,
    gradient_sources: ArrayLike | None = None,
    *,
    linear: bool = False,
    improved_rate: bool = False,
) -> Float[Array, "t ..."]:
    r"""Charge under stochastic gradient descent in continuous time.

    .. math:: C(t) = e^{-2\lambda t} C_0 + \eta \int_0^t e^{-2\lambda(t - \tau)} [g(\tau)]_A\,d\tau, \qquad
        s(t) = e^{-\lambda t} s_0

    with the integral as the sum :math:`\eta^2 \sum_{k < t/\eta} e^{-2\lambda(t - \eta k)} [g_k]_A`.

    Args:
        c0: The charge at time 0. Shape (...).
        t: Times eta k, zero or positive. Any shape.
        eta: Learning rate, positive. A number.
        weight_decay: lambda, zero or positive. A number.
        gradient_sources: [g_k]_A of each step, without the decay; None for no source. Shape (K, ...).
        linear: Whether the charge is that of a translation.
        improved_rate: Whether to decay at 2 lambda + eta lambda^2 (half of it if linear) instead of 2 lambda.

    Returns:
        C(t), in units of c0. Shape: that of t, then (...).

    Valid: error O(eta) at fixed t, with the improved rate O(eta^2), also for the largest error of a run. The sum holds
        the steps before t, a step counting as passed from its middle on.
    Raises: ValueError for an optimizer that does not exist, t < 0, a source for a linear charge, or shapes that do not
        match.
    Source: arXiv:2012.04728 [paper]; the improved rate derived here from its modified flow.
    Checked: orders 1 and 2 in eta against a simulated Rayleigh quotient and `linear_charge`; direct sum; float32.
    """
    check(Optimizer(eta, weight_decay))
    c0, t, source, eta, decay, _ = _given(c0, t, eta, weight_decay, 0.0, "gradient_sources", gradient_sources, linear)
    rate = (1 if linear else 2) * decay + improved_rate * (0.5 if linear else 1.0) * eta * decay**2

    kept = jnp.broadcast_to(jnp.exp(-rate * eta), len(source))
    _, after = jax.lax.scan(_decay, c0, (kept, eta**2 * source))
    passed = _passed(t, eta, len(source))
    left = t - eta * passed.astype(t.dtype)
    return _outer(jnp.exp(-rate * left), c0) * jnp.concatenate([c0[None], after])[passed]


def momentum_charge_ode(
    c0: ArrayLike,
    t: ArrayLike,
    eta: ArrayLike,
    weight_decay: ArrayLike,
    momentum: ArrayLike,
    step_sources: ArrayLike | None = None,
    *,
    dampening: ArrayLike = 0.0,
    linear: bool = False,
    corrected_start: bool = False,
) -> Float[Array, "t ..."]:
    r"""Charge under momentum and coupled weight decay in continuous time.

    .. math:: C(t) = e^{-\gamma t}\Big(\cos\Omega t + \frac\gamma\Omega \sin\Omega t\Big) C_0
        + G(t)\,\dot C(0) + \int_0^t G(t - \tau)\,2[\dot\theta(\tau)]_A\,d\tau, \qquad
        G(t) = \frac{e^{-\gamma t}\sin\Omega t}\Omega

    with :math:`\Omega = \sqrt{\omega^2 - \gamma^2}`, which is imaginary if overdamped, and the integral by the midpoint
    rule, :math:`\sum_k \frac 2\eta [\Delta_k]_A\,G(t - \eta(k + \frac12))`.

    Args:
        c0: The charge at time 0. Shape (...).
        t: Times eta (1 - d) k, zero or positive. Any shape.
        eta: Learning rate, positive. A number.
        weight_decay: lambda, zero or positive. A number.
        momentum: beta, from 0 to below 1. A number.
        step_sources: [Delta_k]_A of each step; None for no source. Shape (K, ...).
        dampening: d, from 0 to below 1: eta (1 - d) for eta. A number.
        linear: Whether the charge is that of a translation.
        corrected_start: Whether :math:`\dot C(0) = -2\lambda C_0 / (1 + \beta)`, half of it if linear, instead of 0.

    Returns:
        C(t), in units of c0. Shape: that of t, then (...).

    Valid: error O(eta) at fixed t > 0, with the corrected start O(eta^2); within t = O(eta / (1 - beta)) of the start
        no continuous curve follows the iterates, and the error is O(eta).
    Raises: ValueError as `sgd_charge_ode`.
    Source: arXiv:2012.04728 [paper]; corrected start and midpoints derived here.
    Checked: reference values; mpmath in all three regimes (1e-12); orders 1 and 2 in eta against a simulated
        Rayleigh quotient and `linear_charge`; direct sum; gradients at the critical point; float32.
    """
    check(Optimizer(eta, weight_decay, momentum, dampening))
    c0, t, source, eta, decay, beta, dampening = _given(
        c0, t, eta, weight_decay, momentum, "step_sources", step_sources, linear, dampening
    )
    eta = eta * (1 - dampening)
    gamma, square = _constants(eta, decay, beta, linear)
    speed = -(1 if linear else 2) * corrected_start * decay / (1 + beta) * c0

    def propagator(time):
        even, kernel = oscillation(time, gamma, square)
        return even + gamma * kernel, kernel, -square * kernel, even - gamma * kernel

    # States just after each push, which comes half a step late.
    waits = jnp.where(jnp.arange(len(source)) == 0, eta / 2, eta)
    _, after = jax.lax.scan(_kick, (c0, speed), (propagator(waits), 2 / eta * source))
    passed = _passed(t, eta, len(source))
    last = jnp.maximum(eta * (passed.astype(t.dtype) - 0.5), 0.0)
    c, speed = (jnp.concatenate([x[None], y])[passed] for x, y in zip((c0, speed), after, strict=True))
    kept, kernel, _, _ = (_outer(x, c0) for x in propagator(jnp.maximum(t - last, 0.0)))
    return kept * c + kernel * speed


def _decay(c, law):
    kept, push = law
    c = kept * (c + push)
    return c, c


def _kick(state, law):
    (c, speed), ((kept, kernel, pull, slowed), push) = state, law
    state = kept * c + kernel * speed, pull * c + slowed * speed + push
    return state, state


def _given(c0, t, eta, decay, momentum, name, source, linear, *more):
    """Arguments in one dtype, the source as (K, ...) with K = 0 for none."""
    number(eta=eta)
    nonnegative(t=t)
    finite(t=t)
    if linear and source is not None:
        raise ValueError(f"`{name}` must be None for a linear charge, but got shape {np.shape(source)}.")
    if source is None:
        finite(c0=c0)
        c0, t, *numbers = with_one_dtype(c0, t, eta, decay, momentum, *more)
        return c0, t, jnp.zeros((0, *c0.shape), c0.dtype), *numbers
    c0, source, t, *numbers = with_sources(c0, t, eta, decay, momentum, *more, **{name: source})
    return c0, t, source, *numbers


def _passed(t, eta, steps):
    """How many sources lie half a step or more before t."""
    return jnp.clip(jnp.ceil(t / eta - 0.5), 0, steps).astype(int)


def _outer(x, like):
    """One number a time, to multiply an array of charges at those times with."""
    return x.reshape(x.shape + (1,) * like.ndim)
