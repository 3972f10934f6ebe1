"""Where a mode is and how fast it moves: the stationary law, the way there, and the current around it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import below_one, finite, integer, nonnegative, positive, together
from theory.sgd_limit.chain import chain_propagator
from theory.sgd_limit.correlation import decorrelation
from theory.sgd_limit.langevin import oscillator_rates, propagator, require_stationary, require_time

BITS = 31  # of a number of steps


class PhaseSpaceCovariance(NamedTuple):
    """Variance of the position, covariance with the motion, variance of the motion (step w, or velocity v)."""

    position: Float[Array, "..."]
    cross: Float[Array, "..."]
    motion: Float[Array, "..."]


class Transient(NamedTuple):
    """Mean and covariance of (position, motion)."""

    mean: Float[Array, "... 2"]
    covariance: Float[Array, "... 2 2"]


def phase_space_covariance(
    spectrum: ArrayLike,
    eta: ArrayLike,
    beta: ArrayLike,
    batch: ArrayLike,
    weight_decay: ArrayLike = 0.0,
    sigma: ArrayLike = 1.0,
    time: str = "discrete",
) -> PhaseSpaceCovariance:
    r"""Stationary covariance of position and motion of every mode.

    .. math:: \mathrm{Var}\,x = \frac{(1 + \beta)\,\eta s^2}{(1 - \beta)h\,[2(1 + \beta) - \eta h]}, \qquad
        \mathrm{Var}\,w = \frac{2\eta^2 s^2}{(1 - \beta)[2(1 + \beta) - \eta h]}, \qquad
        \mathrm{Cov}(x, w) = \tfrac12\mathrm{Var}\,w, \qquad s^2 = \frac{\sigma^2\rho}S, \quad h = \rho + \lambda

    In continuous time, of position and velocity:

    .. math:: \mathrm{Var}\,x = \frac{\eta s^2}{2(1 - \beta)h}, \qquad
        \mathrm{Var}\,v = \frac{s^2}{1 - \beta^2}, \qquad \mathrm{Cov}(x, v) = 0

    Args:
        spectrum: Eigenvalues rho of the Hessian, zero or positive. Shape (...).
        eta: Learning rate, positive. Shape (...).
        beta: Momentum, from 0 to below 1. Shape (...).
        batch: Batch size S, a whole number from 1. Shape (...).
        weight_decay: lambda, zero or positive. Shape (...).
        sigma: Standard deviation of the residuals, zero or positive: gradient noise of sigma^2 H / S. Shape (...).
        time: "discrete" for the chain, "ou" for the Langevin equation.

    Returns:
        `PhaseSpaceCovariance(position, cross, motion)`; the motion is the step w, or the velocity v. Shape: broadcast.

    Valid: additive noise, eta h < 2 (1 + beta), exact; in continuous time the variances lack the factor
        1 / (1 - eta h / (2 (1 + beta))). Without decay that of the position is the same for all modes.
    Raises: ValueError for an argument out of its range, a flat mode (h = 0), or an unstable one (concrete values only).
    Source: derived here; in continuous time arXiv:2107.09133 [paper].
    Checked: reference values; discrete and continuous Lyapunov equations (1e-9); simulations
        `sims.sgd_limit.phase_diagram` and `sims.sgd_limit.phase_space`.
    """
    require_time(time)
    eta, beta, h, s2 = _modes(spectrum, eta, beta, batch, weight_decay, sigma)
    if time == "ou":
        positive(h=h)
        return PhaseSpaceCovariance(eta * s2 / (2 * (1 - beta) * h), jnp.zeros_like(h), s2 / ((1 - beta) * (1 + beta)))
    require_stationary(eta, beta, h)
    room = (1 - beta) * (2 * (1 + beta) - eta * h)
    motion = 2 * eta**2 * s2 / room
    return PhaseSpaceCovariance((1 + beta) * eta * s2 / (h * room), motion / 2, motion)


def transient(
    steps: ArrayLike,
    start: ArrayLike,
    spectrum: ArrayLike,
    eta: ArrayLike,
    beta: ArrayLike,
    batch: ArrayLike,
    weight_decay: ArrayLike = 0.0,
    sigma: ArrayLike = 1.0,
    time: str = "discrete",
    motion: ArrayLike = 0.0,
) -> Transient:
    r"""Mean and covariance of position and motion of every mode, some steps after a fixed start.

    .. math:: \bar z_k = T^k z_0, \qquad C_k = B - T^k B\,T^{k\top}, \qquad C_{j + k} = C_k + T^k C_j T^{k\top}

    with B of `phase_space_covariance`; in continuous time :math:`e^{-A\eta k}` for :math:`T^k`.

    Args:
        steps: k, zero or positive; whole numbers below 2^31 for the chain. Shape (...).
        start: Position x_0 of the mode, from the minimum. Shape (...).
        spectrum: Eigenvalues rho of the Hessian, zero or positive. Shape (...).
        eta: Learning rate, positive. Shape (...).
        beta: Momentum, from 0 to below 1. Shape (...).
        batch: Batch size S, a whole number from 1. Shape (...).
        weight_decay: lambda, zero or positive. Shape (...).
        sigma: Standard deviation of the residuals, zero or positive. Shape (...).
        time: "discrete" for the chain, "ou" for the Langevin equation.
        motion: Step w_0, or velocity v_0, at the start; 0 from rest. Shape (...).

    Returns:
        `Transient(mean, covariance)` of (x, w), or of (x, v). Shapes: broadcast, then (2,) and (2, 2).

    Valid: as `phase_space_covariance`; the chain by its doubling, which cancels nowhere, also where it has no
        stationary law.
    Raises: ValueError for an argument out of its range; in continuous time also for a flat mode (concrete values only).
    Source: derived here; in continuous time arXiv:2107.09133 [paper].
    Checked: reference values; step by step (1e-11), also flat and unstable; the limit B; float32; gradients; simulation
        `sims.sgd_limit.phase_space`.
    """
    require_time(time)
    finite(start=start, motion=motion)
    eta, beta, h, s2 = _modes(spectrum, eta, beta, batch, weight_decay, sigma)
    k, x, w, eta, beta, h, s2 = together(steps, start, motion, eta, beta, h, s2)
    if time == "ou":
        nonnegative(steps=steps)
        through = propagator(eta * k, eta, beta, h)
        covariance = _diffused(eta * k, through, eta, beta, h, s2)
    else:
        integer(0, steps=steps)
        through = chain_propagator(k, eta, beta, h)
        covariance = (eta**2 * s2)[..., None, None] * _doubled(k, eta, beta, h)
    return Transient((through @ jnp.stack([x, w], -1)[..., None])[..., 0], covariance)


def _diffused(t, through, eta, beta, h, s2):
    """B - exp(-At) B exp(-A^T t) of the Langevin equation."""
    gamma, omega = oscillator_rates(eta, beta, h)
    kept, kernel, slowed = through[..., 0, 0], through[..., 0, 1], through[..., 1, 1]
    gone = decorrelation(t / eta, eta, beta, h, "ou")
    xx = gone * (1 + kept) / omega**2 - kernel**2
    xv = 2 * gamma * kernel**2
    vv = (1 - slowed) * (1 + slowed) - (omega * kernel) ** 2
    rows = [[xx, xv], [xv, vv]]
    unit = jnp.stack([jnp.stack(row, -1) for row in rows], -2)
    return (s2 / ((1 - beta) * (1 + beta)))[..., None, None] * unit


def _doubled(k, eta, beta, h):
    """Sum over k steps of T^j (1, 1) (1, 1)^T T^jT, by the bits of k."""
    k = k.astype(jnp.int32)

    def conjugate(T, C):
        return T @ C @ T.mT

    def bit(carry, i):
        total, power = carry
        T = chain_propagator((1 << i).astype(eta.dtype), eta, beta, h)
        on = ((k >> i) & 1)[..., None, None] == 1
        return (jnp.where(on, power + conjugate(T, total), total), power + conjugate(T, power)), None

    ones = jnp.ones((*k.shape, 2, 2), eta.dtype)
    return jax.lax.scan(bit, (jnp.zeros_like(ones), ones), jnp.arange(BITS, dtype=jnp.int32))[0][0]


def circulation(eta: ArrayLike, beta: ArrayLike, h: ArrayLike, s2: ArrayLike) -> Float[Array, "..."]:
    r"""Circulation of a mode in phase space, per step of the chain.

    .. math:: E[x_k w_{k+1} - x_{k+1} w_k] = \mathrm{Var}\,x\,[r(2) - 1] = -\frac{\eta^2 s^2}{1 - \beta}

    Args:
        eta: Learning rate, positive. Shape (...).
        beta: Momentum, from 0 to below 1. Shape (...).
        h: Curvature with the weight decay, positive. Shape (...).
        s2: Variance of the mode's gradient noise, zero or positive. Shape (...).

    Returns:
        The circulation, clockwise and therefore negative; it does not depend on h. Shape: broadcast.

    Valid: additive noise, eta h < 2 (1 + beta), exact.
    Raises: ValueError for an argument out of its range, or without a stationary law (concrete values only).
    Source: derived here.
    Checked: reference value; r(2) and Var x of the chain; simulation `sims.sgd_limit.phase_space`.
    """
    require_stationary(eta, beta, h)
    nonnegative(s2=s2)
    eta, beta, _, s2 = together(eta, beta, h, s2)
    return -(eta**2) * s2 / (1 - beta)


def _modes(spectrum, eta, beta, batch, weight_decay, sigma):
    """eta, beta, h = rho + lambda and s^2 = sigma^2 rho / S, of one shape."""
    positive(eta=eta)
    below_one(beta=beta)
    integer(1, batch=batch)
    nonnegative(spectrum=spectrum, weight_decay=weight_decay, sigma=sigma)
    rho, eta, beta, batch, decay, sigma = together(spectrum, eta, beta, batch, weight_decay, sigma)
    return eta, beta, rho + decay, sigma**2 * rho / batch
