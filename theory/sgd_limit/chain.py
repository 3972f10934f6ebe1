r"""The exact chain of a mode: heavy ball on a parabola, at any learning rate.

With :math:`e = \eta h` and the step :math:`w_k = x_k - x_{k-1}`,

.. math:: \begin{pmatrix} x \\ w \end{pmatrix} \leftarrow T \begin{pmatrix} x \\ w \end{pmatrix}
    - \eta\varepsilon \begin{pmatrix} 1 \\ 1 \end{pmatrix}, \qquad
    T = \begin{pmatrix} 1 - e & \beta \\ -e & \beta \end{pmatrix}.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from theory.arguments import below_one, nonnegative, positive, require, together, traced
from theory.oscillator import boundaries, envelope, frequency, impulse_response, relaxation, sum_and_discriminant
from theory.roots import safe_sqrt
from theory.sgd_limit.langevin import oscillator_rates, require_time

REGIMES = ("overdamped", "oscillating", "flipping", "unstable")
CLOSE = 0.04  # squared ratio of gap and sum of the roots below which a series has all digits
TERMS = 13


class PerStep(NamedTuple):
    """How far a mode turns in a step (radians), and the rate per step at which it decays."""

    angle: Float[Array, "..."]
    decay: Float[Array, "..."]


def regime_code(eta: ArrayLike, beta: ArrayLike, h: ArrayLike) -> Int[Array, "..."]:
    r"""Number of the regime in which a mode moves; `regime` has the words.

    .. math:: 0: \eta h \le (1 - \sqrt\beta)^2, \qquad 1: \eta h < (1 + \sqrt\beta)^2, \qquad
        2: \eta h < 2(1 + \beta), \qquad 3: \eta h \ge 2(1 + \beta)

    Args:
        eta: Learning rate, positive. Shape (...).
        beta: Momentum, from 0 to below 1. Shape (...).
        h: Curvature with the weight decay, zero or positive. Shape (...).

    Returns:
        0 overdamped, 1 oscillating, 2 flipping, 3 unstable. Shape: broadcast.

    Valid: exact at every learning rate.
    Raises: ValueError for eta <= 0, beta outside [0, 1) or h < 0 (concrete values only).
    Source: derived here.
    Checked: reference values; eigenvalues of T on both sides of every line.
    """
    positive(eta=eta)
    below_one(beta=beta)
    nonnegative(h=h)
    eta, beta, h = together(eta, beta, h)
    critical, flipping, unstable = boundaries(beta)
    turning = jnp.where(eta * h < flipping, 1, jnp.where(eta * h < unstable, 2, 3))
    return jnp.where(eta * h <= critical, 0, turning)


def regime(eta: ArrayLike, beta: ArrayLike, h: ArrayLike) -> str | np.ndarray:
    """Regime in which a mode moves, in a word.

    Args:
        eta: Learning rate, positive. Shape (...).
        beta: Momentum, from 0 to below 1. Shape (...).
        h: Curvature with the weight decay, zero or positive. Shape (...).

    Returns:
        "overdamped" (decay), "oscillating", "flipping" (decay, the sign changes each step) or "unstable" (no
        stationary law); for arrays an array of words. Shape: broadcast.

    Valid: concrete values; `regime_code` inside `jit`. The lines are overdamped, flipping and unstable.
    Raises: ValueError as `regime_code`.
    Source: derived here.
    Checked: reference values.
    """
    words = np.array(REGIMES)[np.asarray(regime_code(eta, beta, h))]
    return words if words.ndim else str(words)


def chain_propagator(steps: ArrayLike, eta: ArrayLike, beta: ArrayLike, h: ArrayLike) -> Float[Array, "... 2 2"]:
    r"""Mean position and step of a mode, some steps later.

    .. math:: T^k = \begin{pmatrix} R_k & \beta G_k \\ -e\,G_k & R_k - (1 - \beta - e)\,G_k \end{pmatrix}, \qquad
        e = \eta h

    with the relaxation R from rest and the response G to a unit push of `theory.oscillator`.

    Args:
        steps: k, a whole number from 0. Shape (...).
        eta: Learning rate, positive. Shape (...).
        beta: Momentum, from 0 to below 1. Shape (...).
        h: Curvature with the weight decay, zero or positive. Shape (...).

    Returns:
        The matrix that takes (x, w) from step 0 to step k. Shape: broadcast, then (2, 2).

    Valid: exact at every learning rate, unstable ones too.
    Raises: ValueError for an argument out of its range (concrete values only).
    Source: derived here (Cayley-Hamilton).
    Checked: matrix powers in every regime and on its lines (1e-9); gradients on the lines.
    """
    positive(eta=eta)
    nonnegative(h=h)
    k, eta, beta, h = together(steps, eta, beta, h)
    e = eta * h
    R, G = relaxation(k, beta, e), impulse_response(k, beta, e)
    rows = [[R, beta * G], [-e * G, R - (1 - beta - e) * G]]
    return jnp.stack([jnp.stack(row, -1) for row in rows], -2)


def oscillation_per_step(eta: ArrayLike, beta: ArrayLike, h: ArrayLike, time: str = "discrete") -> PerStep:
    r"""Angle and decay of a mode per step.

    .. math:: \text{oscillating:}\quad \arccos\frac{1 + \beta - \eta h}{2\sqrt\beta},\ -\tfrac12\ln\beta, \qquad
        \text{in continuous time:}\quad \eta\nu,\ \eta\gamma = \frac{1 - \beta}{1 + \beta}

    Args:
        eta: Learning rate, positive. Shape (...).
        beta: Momentum, from 0 to below 1. Shape (...).
        h: Curvature with the weight decay, positive. Shape (...).
        time: "discrete" for the chain, "ou" for the Langevin equation.

    Returns:
        `PerStep(angle, decay)`: 0 and the slower decay if overdamped, pi if flipping; a decay below 0 is growth.
        Shape: broadcast.

    Valid: exact; in continuous time to first order in eta.
    Raises: ValueError for an argument out of its range (concrete values only).
    Source: derived here; in continuous time arXiv:2107.09133 [paper].
    Checked: reference values; eigenvalues of T; a flat mode in float32.
    """
    require_time(time)
    gamma, omega = oscillator_rates(eta, beta, h)
    eta, beta, h = together(eta, beta, h)
    if time == "ou":
        square = gamma**2 - omega**2
        slow = omega**2 / (gamma + safe_sqrt(square))
        return PerStep(eta * safe_sqrt(-square), eta * jnp.where(square > 0, slow, gamma))
    e = eta * h
    lost = lost_by_the_slow(beta, e)
    slow = e <= boundaries(beta).critical
    size = envelope(beta, e)
    decay = -jnp.log(jnp.where(size > 0, size, 1.0))
    decay = jnp.where(size > 0, decay, jnp.inf)
    return PerStep(frequency(beta, e), jnp.where(slow & (lost < 1), -jnp.log1p(-jnp.where(lost < 1, lost, 0.0)), decay))


def continuous_embedding(eta: ArrayLike, beta: ArrayLike, h: ArrayLike) -> Float[Array, "... 2 2"]:
    r"""Drift whose flow passes through the chain at every step.

    .. math:: A^* = -\frac{\ln T}\eta, \qquad
        \ln T = \tfrac12\ln\beta\;I + \frac{\ln z_+ - \ln z_-}{z_+ - z_-}\Big(T - \frac{1 + \beta - \eta h}2 I\Big)

    Args:
        eta: Learning rate, positive. Shape (...).
        beta: Momentum, above 0 and below 1. Shape (...).
        h: Curvature with the weight decay, positive, :math:`\eta h < (1 + \sqrt\beta)^2`. Shape (...).

    Returns:
        A* in units of 1 / t, of (x, w). Shape: broadcast, then (2, 2).

    Valid: overdamped and oscillating. Interpolates mean, correlations and transient covariance, but is no diffusion:
        its driving covariance :math:`A^*B + BA^{*\top}` has a negative eigenvalue.
    Raises: ValueError where there is no real logarithm: beta = 0, or a flipping mode (concrete values only).
    Source: derived here.
    Checked: reference value; its exponential is T on both sides of the double root (1e-12); the negative eigenvalue.
    """
    positive(eta=eta, beta=beta, h=h)
    below_one(beta=beta)
    if not traced(eta, beta, h):
        eta_, beta_, h_ = together(eta, beta, h)
        below = eta_ * h_ < boundaries(beta_).alternating
        require(below, "eta * h", "below (1 + sqrt(beta))^2, where flipping begins", eta_ * h_)
    eta, beta, h = together(eta, beta, h)
    e = eta * h
    P, D = sum_and_discriminant(beta, e)
    s = log_gap(P, D)
    half, mean = s * (1 - beta - e) / 2, jnp.log(beta) / 2
    rows = [[mean + half, s * beta], [-s * e, mean - half]]
    return -jnp.stack([jnp.stack(row, -1) for row in rows], -2) / eta[..., None, None]


def lost_by_the_slow(beta, e):
    """1 - z_+ of the slower of two positive roots, to all digits; of their mean where they are a pair."""
    return 2 * e / (1 - beta + e + safe_sqrt(sum_and_discriminant(beta, e)[1]))


def log_gap(P, D):
    """(ln z_+ - ln z_-) / (z_+ - z_-) of roots with sum P and squared difference D, smooth through D = 0."""
    size = jnp.where(P > 0, P, 1.0)
    close = (P > 0) & (jnp.abs(D) < CLOSE * size**2)
    y = jnp.where(close, D, 0.0) / size**2
    series = jnp.zeros_like(y)
    for j in range(TERMS, -1, -1):
        series = 1 / (2 * j + 1) + y * series
    gap = jnp.sqrt(jnp.where(close, 1.0, jnp.abs(D)))
    real = ~close & (D > 0) & (gap < P)
    apart = 2 * jnp.arctanh(jnp.where(real, gap / size, 0.5)) / gap
    turned = 2 * jnp.arctan2(gap, P) / gap
    return jnp.where(close, 2 / size * series, jnp.where(D > 0, apart, turned))
