"""How long a mode remembers its position: correlation and decorrelation, of the chain and in continuous time."""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import integer, together
from theory.oscillator import impulse_response, oscillation, relaxation, sum_and_discriminant
from theory.sgd_limit.chain import log_gap, lost_by_the_slow
from theory.sgd_limit.langevin import motion, require_stationary, require_time

HEAVY = 0.6  # momentum above which few steps correlate so much that 1 - r needs a form of its own


def autocorrelation(
    lags: ArrayLike, eta: ArrayLike, beta: ArrayLike, h: ArrayLike, time: str = "discrete"
) -> Float[Array, "..."]:
    r"""Stationary autocorrelation of the position of a mode.

    .. math:: r(k) = R_k + \frac{\eta h\beta}{1 + \beta}\,G_k, \qquad r(1) = \frac{1 + \beta - \eta h}{1 + \beta}

    with the relaxation R from rest and the response G of `theory.oscillator`; in continuous time
    :math:`(e^{-A\eta k})_{11}`.

    Args:
        lags: k, zero or positive; whole numbers for the chain. Shape (...).
        eta: Learning rate, positive. Shape (...).
        beta: Momentum, from 0 to below 1. Shape (...).
        h: Curvature with the weight decay, positive. Shape (...).
        time: "discrete" for the chain, "ou" for the Langevin equation.

    Returns:
        r(k), dimensionless. Shape: broadcast.

    Valid: exact for the chain, eta h < 2 (1 + beta); in continuous time to first order in eta h.
    Raises: ValueError for a lag below 0 or not whole, or without a stationary law (concrete values only).
    Source: derived here (Yule-Walker); in continuous time arXiv:2107.09133 [paper].
    Checked: reference values; roots with fifty digits in every regime and on its lines; gradients on the lines; order 1
        of the difference of the two; simulation `sims.sgd_limit.phase_space`.
    """
    require_time(time)
    k, eta, beta, h = together(lags, eta, beta, h)
    if time == "ou":
        even, kernel, gamma, _ = motion(eta * k, eta, beta, h)
        return even + gamma * kernel
    _require_chain(lags, eta, beta, h)
    e = eta * h
    return relaxation(k, beta, e) + e * beta / (1 + beta) * impulse_response(k, beta, e)


def decorrelation(
    lags: ArrayLike, eta: ArrayLike, beta: ArrayLike, h: ArrayLike, time: str = "discrete"
) -> Float[Array, "..."]:
    r"""One minus the autocorrelation of the position of a mode, without cancellation.

    .. math:: 1 - r(k) = \frac{E(x_{j+k} - x_j)^2}{2\,\mathrm{Var}\,x}
        = 1 - z_+^k - \frac{z_-(1 - z_+^2)}{1 + \beta}\,G_k

    Args:
        lags: k, zero or positive; whole numbers for the chain. Shape (...).
        eta: Learning rate, positive. Shape (...).
        beta: Momentum, from 0 to below 1. Shape (...).
        h: Curvature with the weight decay, positive. Shape (...).
        time: "discrete" for the chain, "ou" for the Langevin equation.

    Returns:
        1 - r(k), from 0 to 2. Shape: broadcast.

    Valid: as `autocorrelation`; relative rounding of a flat mode is that of (1 - beta) k, whatever h is.
    Raises: ValueError as `autocorrelation`.
    Source: derived here.
    Checked: fifty digits for flat modes, heavy momentum and few steps, and on the lines; float32; gradients.
    """
    require_time(time)
    k, eta, beta, h = together(lags, eta, beta, h)
    if time == "ou":
        return _in_time(eta * k, *motion(eta * k, eta, beta, h)[1:])
    _require_chain(lags, eta, beta, h)
    # A sum of the roots of the other sign changes the sign of r at odd lags.
    negative = 1 + beta - eta * h < 0
    left = _of_positive_sum(k, beta, jnp.where(negative, 2 * (1 + beta) - eta * h, eta * h))
    return jnp.where(negative & (k % 2 == 1), 2 - left, left)


def _require_chain(lags, eta, beta, h):
    integer(0, lags=lags)
    require_stationary(eta, beta, h)


def _of_positive_sum(k, beta, e):
    """1 - r(k): of a slow and a fast decay, of heavy momentum near the double root or turning, and of all the rest."""
    G, D = impulse_response(k, beta, e), sum_and_discriminant(beta, e)[1]
    heavy, apart = beta > HEAVY, (1 - beta) ** 2 / 4 < D
    lost = jnp.where(apart, lost_by_the_slow(beta, jnp.where(apart, e, 0.0)), 0.5)
    slow = -jnp.expm1(k * jnp.log1p(-lost)) - beta / (1 - lost) * lost * (2 - lost) / (1 + beta) * G

    b = jnp.where(heavy, beta, 0.8)
    pull = jnp.where(heavy & ~apart, e, (1 - b) ** 2)
    P, D = sum_and_discriminant(b, pull)
    gap, rate = log_gap(P, D), -jnp.log(b) / 2
    psi2 = gap**2 * D / 4  # the square of (ln z_+ - ln z_-) / 2
    _, half = oscillation(k / 2, rate, rate**2 - psi2)
    _, kernel = oscillation(k, rate, rate**2 - psi2)
    joint = -jnp.expm1(-rate * k) - 2 * psi2 * half**2 - gap * P * (1 - b) / (1 + b) / 2 * kernel

    rest = 1 - relaxation(k, beta, e) - e * beta / (1 + beta) * G
    return jnp.where(apart, slow, jnp.where(heavy, joint, rest))


def _in_time(t, kernel, gamma, omega2):
    """The same of the Langevin equation."""
    square = gamma**2 - omega2
    apart = square > gamma**2 / 4
    slow = omega2 / (gamma + jnp.sqrt(jnp.where(apart, square, 1.0)))
    _, half = oscillation(t / 2, gamma, omega2)
    return jnp.where(
        apart, -jnp.expm1(-slow * t) - slow * kernel, -jnp.expm1(-gamma * t) - 2 * square * half**2 - gamma * kernel
    )
