"""How a charge relaxes under momentum and weight decay: the regimes of `theory.oscillator`, for either degree."""

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from theory.arguments import below_one, nonnegative, together
from theory.oscillator import Boundaries, boundaries, envelope, frequency

REGIMES = ("overdamped", "underdamped", "alternating", "unstable")


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
    return Boundaries(*((0.5 if quadratic else 1.0) * line for line in boundaries(beta)))


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
    return frequency(beta, (2 if quadratic else 1) * e)


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
    return envelope(beta, (2 if quadratic else 1) * e)


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
