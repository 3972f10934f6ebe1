r"""Exact laws of a charge at every step size, for each kind of gradient descent.

All are one recursion, :math:`D \leftarrow m_k D - r_k C + f_k,\ C \leftarrow C + D`: what the step remembers, how decay
pulls, and what the finite step pushes. Matrix charges obey it entry by entry. With dampening read eta (1 - d) for eta.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import finite, integer, with_one_dtype
from theory.noether.optimizer import Optimizer, check, schedule


def linear_charge(
    s0: ArrayLike,
    steps: int,
    eta: ArrayLike,
    weight_decay: ArrayLike,
    momentum: ArrayLike = 0.0,
    *,
    dampening: ArrayLike = 0.0,
    nesterov: bool = False,
    decoupled: bool = False,
) -> Float[Array, "steps+1 ..."]:
    r"""Charge of a translation symmetry, a sum of weights, after every step.

    .. math:: s_{k+1} = (1 + \beta - \eta\lambda)\,s_k - \beta s_{k-1}, \qquad s_{-1} = s_0

    Nesterov: :math:`s_{k+1} = s_k + \beta(s_k - s_{k-1}) - \eta(1 + \beta)\lambda s_k + \eta\beta\lambda s_{k-1}`, from
    :math:`s_1 = (1 - \eta(1 + \beta)\lambda) s_0`. Decoupled: :math:`s_{k+1} = (1 - \eta\lambda)\,s_k`.

    Args:
        s0: The charge at the start. Shape (...).
        steps: Number of steps, a whole number from 0, static.
        eta: Learning rate, positive. A number, or one for each step.
        weight_decay: lambda, zero or positive. A number.
        momentum: beta, from 0 to below 1. A number.
        dampening: d, from 0 to below 1. A number.
        nesterov: Whether the step looks ahead.
        decoupled: Whether the decay bypasses the momentum.

    Returns:
        s_0, ..., s_steps, in units of s0. Shape (steps + 1, ...).

    Valid: every batch and step size; a schedule has beta eta_k / eta_{k-1} for beta.
    Raises: ValueError as `predict_charge`.
    Source: derived here.
    Checked: reference values; simulated softmax regression with every optimizer, constant rate and schedule (1e-12).
    """
    check(Optimizer(eta, weight_decay, momentum, dampening, nesterov, decoupled))
    integer(0, steps=steps)
    finite(s0=s0)
    s0, eta, decay, momentum, dampening = with_one_dtype(s0, eta, weight_decay, momentum, dampening)
    eta, beta = schedule(eta, momentum, steps)
    still = jnp.zeros((steps, *s0.shape), s0.dtype)
    if decoupled:
        return _trajectory(s0, jnp.zeros_like(eta), eta * decay, still)
    if nesterov:
        return _trajectory(s0, *_lookahead(eta, beta, decay, momentum), still)
    return _trajectory(s0, beta, eta * (1 - dampening) * decay, still)


def _lookahead(eta, beta, pull, momentum):
    """Memory and drag of Nesterov's step, whose first has no gradient before it."""
    before = jnp.where(beta > 0, momentum, 0.0)
    return beta - eta * before * pull, eta * pull * (1 + momentum - before)


def sgd_charge(
    c0: ArrayLike, gradient_sources: ArrayLike, eta: ArrayLike, weight_decay: ArrayLike = 0.0
) -> Float[Array, "K+1 ..."]:
    r"""Quadratic charge after every step of stochastic gradient descent.

    .. math:: C_{k+1} = (1 - \eta\lambda)^2\,C_k + \eta^2 [g_k]_A, \qquad [x]_A = x^\top A x

    Args:
        c0: The charge C_0 at the start. Shape (...).
        gradient_sources: [g_k]_A of the gradients used, without the decay, in units of C / eta^2. Shape (K, ...).
        eta: Learning rate, positive. A number, or one for each step.
        weight_decay: lambda, zero or positive, coupled or decoupled. A number.

    Returns:
        C_0, ..., C_K. Shape (K + 1, ...).

    Valid: every batch, step size and schedule; no momentum.
    Raises: ValueError as `predict_charge`.
    Source: derived here; the paper, arXiv:2012.04728, has the limit of small steps.
    Checked: reference values; simulated Rayleigh quotient (also optax), ReLU network and attention (1e-12).
    """
    check(Optimizer(eta, weight_decay))
    c0, g, eta, decay = with_sources(c0, eta, weight_decay, gradient_sources=gradient_sources)
    eta, _ = schedule(eta, jnp.zeros_like(decay), len(g))
    return _trajectory(c0, jnp.zeros_like(eta), _lost(eta * decay), each_step(eta, g) ** 2 * g)


def quadratic_charge(
    c0: ArrayLike,
    step_sources: ArrayLike,
    eta: ArrayLike,
    weight_decay: ArrayLike = 0.0,
    momentum: ArrayLike = 0.0,
    *,
    dampening: ArrayLike = 0.0,
) -> Float[Array, "K+1 ..."]:
    r"""Quadratic charge after every step with momentum and coupled weight decay.

    .. math:: C_{k+1} = (1 + \beta - 2\eta\lambda)\,C_k - \beta C_{k-1} + [\Delta_k]_A + \beta [\Delta_{k-1}]_A,
        \qquad C_{-1} = C_0,\ \Delta_{-1} = 0

    Args:
        c0: The charge C_0 at the start. Shape (...).
        step_sources: [Delta_k]_A of the steps theta_{k+1} - theta_k, in units of C. Shape (K, ...).
        eta: Learning rate, positive. A number, or one for each step.
        weight_decay: lambda, zero or positive. A number.
        momentum: beta, from 0 to below 1. A number.
        dampening: d, from 0 to below 1. A number.

    Returns:
        C_0, ..., C_K. Shape (K + 1, ...).

    Valid: every batch and step size; a schedule has beta eta_k / eta_{k-1} for beta.
    Raises: ValueError as `predict_charge`.
    Source: derived here.
    Checked: reference values; simulated Rayleigh quotient (also optax), ReLU network and attention (1e-12).
    """
    check(Optimizer(eta, weight_decay, momentum, dampening))
    c0, moved, eta, decay, momentum, dampening = with_sources(
        c0, eta, weight_decay, momentum, dampening, step_sources=step_sources
    )
    eta, beta = schedule(eta, momentum, len(moved))
    return _trajectory(c0, beta, 2 * eta * (1 - dampening) * decay, moved + each_step(beta, moved) * previous(moved))


def nesterov_charge(
    c0: ArrayLike,
    step_sources: ArrayLike,
    cross_sources: ArrayLike,
    eta: ArrayLike,
    weight_decay: ArrayLike,
    momentum: ArrayLike,
) -> Float[Array, "K+1 ..."]:
    r"""Quadratic charge after every step of Nesterov's momentum with coupled weight decay.

    .. math:: C_{k+1} = C_k + [\Delta_k]_A + \beta(C_k - C_{k-1} + [\Delta_{k-1}]_A) - 2\eta(1 + \beta)\lambda C_k
        + 2\eta\beta(\lambda C_{k-1} + X_{k-1}), \qquad X_k = \Delta_k^\top A \tilde g_k

    from :math:`C_1 = C_0 - 2\eta(1 + \beta)\lambda C_0 + [\Delta_0]_A`.

    Args:
        c0: The charge C_0 at the start. Shape (...).
        step_sources: [Delta_k]_A of the steps theta_{k+1} - theta_k, in units of C. Shape (K, ...).
        cross_sources: X_k, steps times gradients with the decay, in units of C / eta. Shape (K, ...).
        eta: Learning rate, positive. A number, or one for each step.
        weight_decay: lambda, zero or positive. A number.
        momentum: beta, above 0 and below 1. A number.

    Returns:
        C_0, ..., C_K. Shape (K + 1, ...).

    Valid: every batch and step size; a schedule has beta eta_k / eta_{k-1} for beta outside the last term.
    Raises: ValueError as `predict_charge`.
    Source: derived here.
    Checked: reference values; simulated Rayleigh quotient (also optax), ReLU network and attention (1e-12).
    """
    check(Optimizer(eta, weight_decay, momentum, nesterov=True))
    c0, moved, cross, eta, decay, momentum = with_sources(
        c0, eta, weight_decay, momentum, step_sources=step_sources, cross_sources=cross_sources
    )
    eta, beta = schedule(eta, momentum, len(moved))
    looked = 2 * each_step(eta * momentum, cross) * previous(cross)
    push = moved + each_step(beta, moved) * previous(moved) + looked
    return _trajectory(c0, *_lookahead(eta, beta, 2 * decay, momentum), push)


def decoupled_charge(
    c0: ArrayLike,
    update_sources: ArrayLike,
    eta: ArrayLike,
    weight_decay: ArrayLike,
    momentum: ArrayLike,
) -> Float[Array, "K+1 ..."]:
    r"""Quadratic charge after every step with momentum and decoupled weight decay.

    .. math:: C_{k+1} = a^2 C_k + a\beta(C_k - a^2 C_{k-1} + [d_{k-1}]_A) + [d_k]_A, \qquad a = 1 - \eta\lambda

    from :math:`C_1 = a^2 C_0 + [d_0]_A`, for :math:`\theta \leftarrow a\theta + d_k`.

    Args:
        c0: The charge C_0 at the start. Shape (...).
        update_sources: [d_k]_A of the steps without their decay, in units of C. Shape (K, ...).
        eta: Learning rate, positive. A number, or one for each step.
        weight_decay: lambda, zero or positive. A number.
        momentum: beta, from 0 to below 1. A number.

    Returns:
        C_0, ..., C_K. Shape (K + 1, ...).

    Valid: every batch and step size, any dampening; a schedule has a_k^2 C_k, a_k beta eta_k / eta_{k-1} for a beta and
        a_{k-1}^2 C_{k-1}.
    Raises: ValueError as `predict_charge`.
    Source: derived here.
    Checked: reference values; simulated Rayleigh quotient (also optax), ReLU network and attention (1e-12).
    """
    check(Optimizer(eta, weight_decay, momentum, decoupled=True))
    c0, update, eta, decay, momentum = with_sources(c0, eta, weight_decay, momentum, update_sources=update_sources)
    eta, beta = schedule(eta, momentum, len(update))
    kept, lost = (1 - eta * decay) * beta, _lost(eta * decay)
    push = update + each_step(kept, update) * previous(update)
    return _trajectory(c0, kept * (1 - previous(lost)), lost - kept * previous(lost), push)


def angular_momentum(
    j0: ArrayLike, steps: int, momentum: ArrayLike, *, eta: ArrayLike | None = None
) -> Float[Array, "steps+1 ..."]:
    r"""Angular momentum of an antisymmetric generator, which has no charge.

    .. math:: J_{k+1} = \beta J_k, \qquad
        J_k = \langle A\theta_k, \Delta_k\rangle = \langle A\theta_{k+1}, \Delta_k\rangle

    Args:
        j0: J_0; zero from rest. Shape (...).
        steps: Number of steps, a whole number from 0, static.
        momentum: beta, from 0 to below 1. A number.
        eta: Learning rates of the steps 0 to `steps`, positive, shape (steps + 1,); None if constant.

    Returns:
        J_0, ..., J_steps. Shape (steps + 1, ...).

    Valid: heavy ball at every step size, with or without coupled decay; beta eta_k / eta_{k-1} for beta in a schedule.
    Raises: ValueError as `predict_charge`.
    Source: derived here.
    Checked: heavy ball started with a velocity, on a rotation-symmetric loss, constant rate and schedule (1e-12).
    """
    check(Optimizer(1.0 if eta is None else eta, momentum=momentum))
    integer(0, steps=steps)
    finite(j0=j0)
    j0, eta, momentum = with_one_dtype(j0, 1.0 if eta is None else eta, momentum)
    _, beta = schedule(eta, momentum, steps + 1)
    return jnp.concatenate([j0[None], each_step(jnp.cumprod(beta[1:]), j0[None]) * j0[None]])


def _trajectory(start, memory, drag, push):
    """C_0, ..., C_K, from D = 0."""
    _, path = jax.lax.scan(_step, (start, jnp.zeros_like(start)), (memory, drag, push))
    return jnp.concatenate([start[None], path])


def _step(state, law):
    """D <- m_k D - r_k C + f_k, C <- C + D."""
    charge, moved = state
    memory, drag, push = law
    moved = memory * moved - drag * charge + push
    return (charge + moved, moved), charge + moved


def _lost(rate):
    """1 - (1 - rate)^2."""
    return rate * (2 - rate)


def each_step(x, like):
    """One number a step, to multiply an array of steps with."""
    return x.reshape(x.shape + (1,) * (like.ndim - 1))


def previous(x):
    """The value one step before, zero at the first."""
    return jnp.concatenate([jnp.zeros_like(x[:1]), x[:-1]])


def with_sources(c0, *numbers, **sources):
    """The charge, its sources and the numbers in one dtype; every source has one value a step, shaped as the charge."""
    finite(c0=c0, **sources)
    arrays = with_one_dtype(c0, *sources.values(), *numbers)
    start, given = arrays[0], arrays[1 : 1 + len(sources)]
    for name, x in zip(sources, given, strict=True):
        if x.ndim != start.ndim + 1 or x.shape[1:] != start.shape or len(x) != len(given[0]):
            steps = "K" if x is given[0] else len(given[0])
            wanted = ", ".join(map(str, (steps, *start.shape))) + ("," if not start.shape else "")
            raise ValueError(f"`{name}` must have shape ({wanted}), but got {x.shape}.")
    return arrays
