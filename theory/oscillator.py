r"""The damped oscillator, step by step and in time: heavy ball on a parabola.

.. math:: x_{k+1} = (1 + \beta - e)\,x_k - \beta\,x_{k-1}, \qquad \ddot x + 2\gamma\dot x + \omega^2 x = 0

with e the learning rate times the curvature (or the weight decay). All closed forms stay accurate, and differentiable,
through the double root.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Complex, Float

from theory.arguments import below_one, finite, integer, nonnegative, together
from theory.roots import safe_sqrt

SERIES = 10  # terms of a series of even or odd inverse factorials, whose argument is at most 1


class Boundaries(NamedTuple):
    """Values of e at which the regime changes, in rising order."""

    critical: Float[Array, "..."]
    alternating: Float[Array, "..."]
    unstable: Float[Array, "..."]


def boundaries(beta: ArrayLike) -> Boundaries:
    r"""Pulls per step at which the oscillator changes its kind.

    .. math:: (1 - \sqrt\beta)^2, \qquad (1 + \sqrt\beta)^2, \qquad 2(1 + \beta)

    Args:
        beta: Momentum, from 0 to below 1. Shape (...).

    Returns:
        `Boundaries(critical, alternating, unstable)`, dimensionless. Shape (...).

    Valid: exact at every step size: real roots, a complex pair, negative real roots, growth.
    Raises: ValueError for beta outside [0, 1) (concrete values only).
    Source: derived here.
    Checked: modulus and argument of the roots on both sides.
    """
    below_one(beta=beta)
    (beta,) = together(beta)
    root = safe_sqrt(beta)
    return Boundaries(((1 - beta) / (1 + root)) ** 2, (1 + root) ** 2, 2 * (1 + beta))


def characteristic_roots(beta: ArrayLike, e: ArrayLike) -> tuple[Complex[Array, "..."], Complex[Array, "..."]]:
    r"""Factors per step of the two modes.

    .. math:: z^2 - (1 + \beta - e)\,z + \beta = 0

    Args:
        beta: Momentum, from 0 to below 1. Shape (...).
        e: Pull per step, zero or positive; dimensionless. Shape (...).

    Returns:
        (z_+, z_-), the larger real root or positive imaginary part first. Shape: broadcast, complex.

    Valid: exact; their product is beta.
    Raises: ValueError for beta outside [0, 1) or e < 0 (concrete values only).
    Source: derived here.
    Checked: sum and product (1e-14), mpmath.
    """
    below_one(beta=beta)
    nonnegative(e=e)
    beta, e = together(beta, e)
    P, D = sum_and_discriminant(beta, e)
    root = safe_sqrt(jnp.abs(D))
    large = (P + jnp.where(P < 0, -root, root)) / 2
    small = beta / jnp.where(large == 0, 1.0, large)
    above, below = jnp.where(P < 0, small, large), jnp.where(P < 0, large, small)
    imaginary = jnp.where(D < 0, root / 2, 0.0)
    plus, minus = (jnp.where(D < 0, P / 2, x) for x in (above, below))
    return jax.lax.complex(plus, imaginary), jax.lax.complex(minus, -imaginary)


def sum_and_discriminant(beta: Array, e: Array) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """z_+ + z_- and (z_+ - z_-)^2, the second in the form that cancels less."""
    P = 1 + beta - e
    return P, jnp.where(beta < 0.1, P**2 - 4 * beta, (1 - beta) ** 2 - e * (2 * (1 + beta) - e))


def frequency(beta: ArrayLike, e: ArrayLike) -> Float[Array, "..."]:
    r"""Angle by which the oscillation advances in a step.

    .. math:: \arg z_+ = \arccos \frac{1 + \beta - e}{2\sqrt\beta}

    Args:
        beta: Momentum, from 0 to below 1. Shape (...).
        e: Pull per step, zero or positive; dimensionless. Shape (...).

    Returns:
        The angle in radians: 0 if overdamped, pi where the sign alternates. Shape: broadcast.

    Valid: exact.
    Raises: ValueError as `characteristic_roots`.
    Source: derived here.
    Checked: argument of the larger root.
    """
    below_one(beta=beta)
    nonnegative(e=e)
    P, D = sum_and_discriminant(*together(beta, e))
    return jnp.arctan2(safe_sqrt(-D), P)


def envelope(beta: ArrayLike, e: ArrayLike) -> Float[Array, "..."]:
    r"""Factor per step by which the slower mode shrinks.

    .. math:: \max(|z_+|, |z_-|), \qquad \sqrt\beta \text{ if underdamped}

    Args:
        beta: Momentum, from 0 to below 1. Shape (...).
        e: Pull per step, zero or positive; dimensionless. Shape (...).

    Returns:
        The factor; 1 at e = 0, above 1 if unstable. Shape: broadcast.

    Valid: exact.
    Raises: ValueError as `characteristic_roots`.
    Source: derived here.
    Checked: modulus of the roots.
    """
    below_one(beta=beta)
    nonnegative(e=e)
    beta, e = together(beta, e)
    P, D = sum_and_discriminant(beta, e)
    return jnp.where(D < 0, safe_sqrt(beta), (jnp.abs(P) + safe_sqrt(D)) / 2)


def impulse_response(steps: ArrayLike, beta: ArrayLike, e: ArrayLike) -> Float[Array, "..."]:
    r"""Response to a unit push, some steps later.

    .. math:: G_n = \frac{z_+^n - z_-^n}{z_+ - z_-}, \qquad n z^{n-1} \text{ at a double root}

    Args:
        steps: n, a whole number from 0. Shape (...).
        beta: Momentum, from 0 to below 1. Shape (...).
        e: Pull per step, zero or positive; dimensionless. Shape (...).

    Returns:
        G_n; G_0 = 0, G_1 = 1. Shape: broadcast.

    Valid: exact; without cancellation near a double root, and differentiable through it.
    Raises: ValueError for n that is no whole number, beta outside [0, 1) or e < 0 (concrete values only).
    Source: derived here.
    Checked: mpmath on both sides of every line, to what the rounding of the arguments allows; gradients on the lines.
    """
    return _modes(steps, beta, e)[1]


def relaxation(steps: ArrayLike, beta: ArrayLike, e: ArrayLike) -> Float[Array, "..."]:
    r"""Fraction of the start that is left after some steps from rest.

    .. math:: G_{n+1} - \beta G_n = \frac{z_+^n + z_-^n}2 + \frac{1 - \beta - e}2\,G_n

    Args:
        steps: n, a whole number from 0. Shape (...).
        beta: Momentum, from 0 to below 1. Shape (...).
        e: Pull per step, zero or positive; dimensionless. Shape (...).

    Returns:
        x_n / x_0. Shape: broadcast.

    Valid: exact, with the digits of `impulse_response`.
    Raises: ValueError as `impulse_response`.
    Source: derived here.
    Checked: the recursion; mpmath and gradients as `impulse_response`; float32 after 10^7 steps.
    """
    mean, kernel = _modes(steps, beta, e)
    _, beta, e = together(steps, beta, e)
    return mean + (1 - beta - e) / 2 * kernel


def _modes(steps, beta, e):
    """((z_+^n + z_-^n)/2, G_n), each branch on safe arguments: near a double root, real roots, complex pair."""
    integer(0, steps=steps)
    below_one(beta=beta)
    nonnegative(e=e)
    finite(e=e)
    n, beta, e = together(steps, beta, e)
    P, D = sum_and_discriminant(beta, e)
    sign, p = jnp.where(P < 0, -1.0, 1.0), jnp.abs(P)
    near = n**2 * jnp.abs(D) <= p**2
    real, pair = ~near & (D >= 0), ~near & (D < 0)

    y = jnp.where(near, D, 0.0) / jnp.where(p > 0, p, 1.0) ** 2  # binomial sums of (P +- sqrt D)^n
    even = odd = term = jnp.ones_like(y)
    for j in range(SERIES):
        even = even + (term := term * (n - 2 * j) * (n - 2 * j - 1) / ((2 * j + 1) * (2 * j + 2)) * y)
    term = n
    odd = n
    for j in range(SERIES):
        odd = odd + (term := term * (n - 2 * j - 1) * (n - 2 * j - 2) / ((2 * j + 2) * (2 * j + 3)) * y)
    half = jnp.where(near, p, 1.0) / 2
    less = jnp.maximum(n - 1, 0)
    mean_near, kernel_near = _power(1 - half, n) * even, _power(1 - half, less) * odd

    root = jnp.sqrt(jnp.where(real, D, 1.0))
    slow = jnp.where(P > 0, 2 * e / (1 - beta + e + root), 1 - (p + root) / 2)
    slow = jnp.where(real, slow, 0.5)
    gap = jnp.where(real, root / (1 - slow), 0.5)
    large, ratio = _power(slow, n), _power(gap, n)
    mean_real, kernel_real = large * (1 + ratio) / 2, _power(slow, less) * (1 - ratio) / gap

    root = jnp.sqrt(jnp.where(pair, -D, 1.0))
    angle = jnp.arctan2(root, p)
    size = jnp.where(pair, beta, 0.5) ** (n / 2)
    mean_pair, kernel_pair = size * jnp.cos(n * angle), 2 * size * jnp.sin(n * angle) / root

    mean = jnp.where(near, mean_near, jnp.where(real, mean_real, mean_pair))
    kernel = jnp.where(near, kernel_near, jnp.where(real, kernel_real, kernel_pair))
    return sign**n * mean, sign**less * kernel


def _power(loss, n):
    """(1 - loss)^n, accurate for a small loss, with a gradient at 0^0."""
    small, plain = loss < 0.5, n == 0
    slow = jnp.exp(n * jnp.log1p(-jnp.where(small, loss, 0.0)))
    return jnp.where(small, slow, jnp.where(plain, 1.0, 1 - jnp.where(small | plain, 0.5, loss)) ** n)


def oscillation(t: Array, gamma: Array, omega2: Array) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    r""":math:`e^{-\gamma t}\cosh\kappa t` and :math:`e^{-\gamma t}\sinh(\kappa t)/\kappa`, of either sign of kappa^2.

    Each branch on safe arguments: a series about the critical point, two decays, a damped oscillation.
    """
    square = gamma**2 - omega2
    x = square * t**2
    near = jnp.abs(x) < 1
    real, pair = ~near & (x > 0), ~near & (x < 0)

    y = jnp.where(near, x, 0.0)
    even = odd = jnp.ones_like(y)
    for j in range(SERIES, 0, -1):
        even = 1 + y / ((2 * j - 1) * 2 * j) * even
        odd = 1 + y / (2 * j * (2 * j + 1)) * odd
    damped = jnp.exp(-gamma * t)

    kappa = jnp.sqrt(jnp.where(real, square, 1.0))
    slow = jnp.exp(-jnp.where(real, omega2 / (gamma + kappa) * t, 1.0))
    gone = -jnp.expm1(-jnp.where(real, 2 * kappa * t, 1.0))

    Omega = jnp.sqrt(jnp.where(pair, -square, 1.0))
    phase = Omega * t
    return (
        jnp.where(near, damped * even, jnp.where(real, slow * (2 - gone) / 2, damped * jnp.cos(phase))),
        jnp.where(near, damped * t * odd, jnp.where(real, slow * gone / (2 * kappa), damped * jnp.sin(phase) / Omega)),
    )
