"""How a charge relaxes under momentum and weight decay: roots, regimes, and the closed form of both in time."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Complex, Float, Int

from theory.arguments import finite, integer, nonnegative, together
from theory.noether.optimizer import below_one
from theory.roots import safe_sqrt

REGIMES = ("overdamped", "underdamped", "alternating", "unstable")
SERIES = 10  # terms of a series of even or odd inverse factorials, whose argument is at most 1


class Boundaries(NamedTuple):
    """Values of eta lambda at which the regime changes, in rising order."""

    critical: Float[Array, "..."]
    alternating: Float[Array, "..."]
    unstable: Float[Array, "..."]


def damping_boundaries(beta: ArrayLike, *, quadratic: bool = False) -> Boundaries:
    r"""Values of eta lambda at which the relaxation of a charge changes its kind.

    .. math:: (1 - \sqrt\beta)^2, \qquad (1 + \sqrt\beta)^2, \qquad 2(1 + \beta)

    Args:
        beta: Momentum, from 0 to below 1. Shape (...).
        quadratic: Whether the charge is quadratic: half of each, for the homogeneous part.

    Returns:
        `Boundaries(critical, alternating, unstable)`, dimensionless. Shape (...).

    Valid: heavy ball with coupled decay, exact at every step size; with dampening, of eta (1 - d) lambda.
    Raises: ValueError for beta outside [0, 1) (concrete values only).
    Source: derived here.
    Checked: reference values; modulus and argument of the roots on both sides.
    """
    below_one(beta=beta)
    (beta,) = together(beta)
    root, scale = safe_sqrt(beta), 0.5 if quadratic else 1.0
    return Boundaries(*(scale * x for x in (((1 - beta) / (1 + root)) ** 2, (1 + root) ** 2, 2 * (1 + beta))))


def damping_code(beta: ArrayLike, eta_lambda: ArrayLike, *, quadratic: bool = False) -> Int[Array, "..."]:
    r"""Number of the regime in which a charge relaxes; `damping_regime` has the words.

    .. math:: 0: \eta\lambda \le (1 - \sqrt\beta)^2, \qquad 1: \eta\lambda < (1 + \sqrt\beta)^2, \qquad
        2: \eta\lambda \le 2(1 + \beta), \qquad 3: \eta\lambda > 2(1 + \beta)

    Args:
        beta: Momentum, from 0 to below 1. Shape (...).
        eta_lambda: Learning rate times weight decay, zero or positive; dimensionless. Shape (...).
        quadratic: Whether the charge is quadratic: thresholds halved, for the homogeneous part.

    Returns:
        0 overdamped, 1 underdamped, 2 alternating, 3 unstable. Shape: broadcast.

    Valid: as `damping_boundaries`.
    Raises: ValueError for beta outside [0, 1) or eta_lambda < 0 (concrete values only).
    Source: derived here.
    Checked: reference values; the roots on both sides of every line; `linear_charge` in every regime.
    """
    below_one(beta=beta)
    nonnegative(eta_lambda=eta_lambda)
    beta, e = together(beta, eta_lambda)
    critical, alternating, unstable = damping_boundaries(beta, quadratic=quadratic)
    oscillating = jnp.where(e < alternating, 1, jnp.where(e <= unstable, 2, 3))
    return jnp.where(e <= critical, 0, oscillating)


def damping_regime(beta: ArrayLike, eta_lambda: ArrayLike, *, quadratic: bool = False) -> str | np.ndarray:
    """Regime in which a charge relaxes, in a word.

    Args:
        beta: Momentum, from 0 to below 1. Shape (...).
        eta_lambda: Learning rate times weight decay, zero or positive; dimensionless. Shape (...).
        quadratic: Whether the charge is quadratic.

    Returns:
        "overdamped" (decay), "underdamped" (slow oscillation), "alternating" (decay, the sign flips each step) or
        "unstable" (growth); for arrays an array of words. Shape: broadcast.

    Valid: concrete values; `damping_code` inside `jit`. The lines themselves are overdamped, alternating, alternating.
    Raises: ValueError as `damping_code`.
    Source: derived here.
    Checked: reference values.
    """
    words = np.array(REGIMES)[np.asarray(damping_code(beta, eta_lambda, quadratic=quadratic))]
    return words if words.ndim else str(words)


def characteristic_roots(beta: ArrayLike, e: ArrayLike) -> tuple[Complex[Array, "..."], Complex[Array, "..."]]:
    r"""Factors per step of the two modes of a charge.

    .. math:: z^2 - (1 + \beta - e)\,z + \beta = 0

    Args:
        beta: Momentum, from 0 to below 1. Shape (...).
        e: Pull per step: eta (1 - d) lambda of a linear charge, twice that of a quadratic one. Shape (...).

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
    P, D = _sum_and_discriminant(beta, e)
    root = safe_sqrt(jnp.abs(D))
    large = (P + jnp.where(P < 0, -root, root)) / 2
    small = beta / jnp.where(large == 0, 1.0, large)
    above, below = jnp.where(P < 0, small, large), jnp.where(P < 0, large, small)
    imaginary = jnp.where(D < 0, root / 2, 0.0)
    plus, minus = (jnp.where(D < 0, P / 2, x) for x in (above, below))
    return jax.lax.complex(plus, imaginary), jax.lax.complex(minus, -imaginary)


def _sum_and_discriminant(beta, e):
    """z_+ + z_- and (z_+ - z_-)^2, the second in the form that cancels less."""
    P = 1 + beta - e
    return P, jnp.where(beta < 0.1, P**2 - 4 * beta, (1 - beta) ** 2 - e * (2 * (1 + beta) - e))


def damping_frequency(beta: ArrayLike, eta_lambda: ArrayLike, *, quadratic: bool = False) -> Float[Array, "..."]:
    r"""Angle by which the oscillation of a charge advances in a step.

    .. math:: \arg z_+ = \arccos \frac{1 + \beta - \eta\lambda}{2\sqrt\beta}

    Args:
        beta: Momentum, from 0 to below 1. Shape (...).
        eta_lambda: Learning rate times weight decay, zero or positive; dimensionless. Shape (...).
        quadratic: Whether the charge is quadratic: twice eta lambda instead.

    Returns:
        The angle in radians: 0 if overdamped, pi where the sign alternates. Shape: broadcast.

    Valid: as `damping_boundaries`.
    Raises: ValueError as `damping_code`.
    Source: derived here.
    Checked: reference value; argument of the larger root.
    """
    below_one(beta=beta)
    nonnegative(eta_lambda=eta_lambda)
    beta, e = together(beta, eta_lambda)
    P, D = _sum_and_discriminant(beta, (2 if quadratic else 1) * e)
    return jnp.arctan2(safe_sqrt(-D), P)


def damping_envelope(beta: ArrayLike, eta_lambda: ArrayLike, *, quadratic: bool = False) -> Float[Array, "..."]:
    r"""Factor per step by which the slower mode of a charge shrinks.

    .. math:: \max(|z_+|, |z_-|), \qquad \sqrt\beta \text{ if underdamped}

    Args:
        beta: Momentum, from 0 to below 1. Shape (...).
        eta_lambda: Learning rate times weight decay, zero or positive; dimensionless. Shape (...).
        quadratic: Whether the charge is quadratic: twice eta lambda instead.

    Returns:
        The factor; 1 at eta_lambda = 0, above 1 if unstable. Shape: broadcast.

    Valid: as `damping_boundaries`.
    Raises: ValueError as `damping_code`.
    Source: derived here.
    Checked: modulus of the roots.
    """
    below_one(beta=beta)
    nonnegative(eta_lambda=eta_lambda)
    beta, e = together(beta, eta_lambda)
    P, D = _sum_and_discriminant(beta, (2 if quadratic else 1) * e)
    return jnp.where(D < 0, safe_sqrt(beta), (jnp.abs(P) + safe_sqrt(D)) / 2)


def ode_damping_boundary(beta: ArrayLike, *, quadratic: bool = False) -> Float[Array, "..."]:
    r"""Value of eta lambda at which the continuous-time charge becomes underdamped.

    .. math:: \gamma = \omega \quad\text{at}\quad \eta\lambda = \frac{(1 - \beta)^2}{2(1 + \beta)}

    Args:
        beta: Momentum, from 0 to below 1. Shape (...).
        quadratic: Whether the charge is quadratic: half of it.

    Returns:
        eta lambda, dimensionless. Shape (...).

    Valid: the exact `damping_boundaries(beta).critical` only for beta -> 1; at beta = 0 it is 1/2 instead of 1.
    Raises: ValueError for beta outside [0, 1) (concrete values only).
    Source: arXiv:2012.04728 [paper], from its gamma and omega.
    Checked: `charge_rates` there, ratio to the exact line at beta = 0 and for beta -> 1.
    """
    below_one(beta=beta)
    (beta,) = together(beta)
    return (1 - beta) ** 2 / ((4 if quadratic else 2) * (1 + beta))


def charge_kernel(steps: ArrayLike, beta: ArrayLike, e: ArrayLike) -> Float[Array, "..."]:
    r"""Response of a charge to a unit push, some steps later.

    .. math:: G_n = \frac{z_+^n - z_-^n}{z_+ - z_-}, \qquad n z^{n-1} \text{ at a double root}

    Args:
        steps: n, a whole number from 0. Shape (...).
        beta: Momentum, from 0 to below 1. Shape (...).
        e: Pull per step: eta (1 - d) lambda of a linear charge, twice that of a quadratic one. Shape (...).

    Returns:
        G_n; G_0 = 0, G_1 = 1. Shape: broadcast.

    Valid: exact; without cancellation near a double root, and differentiable through it.
    Raises: ValueError for n that is no whole number, beta outside [0, 1) or e < 0 (concrete values only).
    Source: derived here.
    Checked: mpmath on both sides of every line, to what the rounding of the arguments allows; gradients on the lines.
    """
    return _modes(steps, beta, e)[1]


def charge_relaxation(steps: ArrayLike, beta: ArrayLike, e: ArrayLike) -> Float[Array, "..."]:
    r"""Fraction of a charge left after some steps from rest, if nothing pushes it.

    .. math:: G_{n+1} - \beta G_n = \frac{z_+^n + z_-^n}2 + \frac{1 - \beta - e}2\,G_n

    Args:
        steps: n, a whole number from 0. Shape (...).
        beta: Momentum, from 0 to below 1. Shape (...).
        e: Pull per step: eta (1 - d) lambda of a linear charge, twice that of a quadratic one. Shape (...).

    Returns:
        s_n / s_0. Shape: broadcast.

    Valid: heavy ball with coupled decay; the whole of a linear charge, the homogeneous part of a quadratic one.
    Raises: ValueError as `charge_kernel`.
    Source: derived here.
    Checked: `linear_charge`; mpmath and gradients as `charge_kernel`; float32 after 10^7 steps.
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
    P, D = _sum_and_discriminant(beta, e)
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
