r"""The quartic double well with multiplicative noise: stationary law, its moments, and its phases.

:math:`L = \frac14\theta^4 - \frac\mu2\theta^2` and :math:`d\theta = (\mu\theta - \theta^3)\,dt + \zeta\theta\,dW`. The
noise vanishes at the saddle theta = 0, an invariant set, which it makes attractive once zeta^2 >= 2 mu.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammainc, gammaln
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from theory.arguments import finite, nonnegative, positive, require, together, traced
from theory.roots import safe_sqrt
from theory.stochastic_collapse.products import elog_abs_normal


class QuarticParameters(NamedTuple):
    """Curvature of the saddle (in units of 1 / t) and amplitude of the noise (in units of t^(-1/2))."""

    mu: Float[Array, "..."]
    zeta: Float[Array, "..."]


PHASES = ("bimodal", "unimodal", "collapsed")


def quartic_phase_code(mu: ArrayLike, zeta: ArrayLike) -> Int[Array, "..."]:
    r"""Number of the phase of the stationary law; `quartic_phase` has the words.

    .. math:: 0: \zeta^2 < \mu, \qquad 1: \mu \le \zeta^2 < 2\mu, \qquad 2: \zeta^2 \ge 2\mu

    Args:
        mu: Curvature of the saddle at 0, positive, in units of 1 / t. Shape (...).
        zeta: Noise amplitude, zero or positive, in units of t^(-1/2). Shape (...).

    Returns:
        0 bimodal, 1 unimodal, 2 collapsed. Shape: broadcast.

    Valid: the stochastic differential equation; a step of size eta moves the lines by O(eta).
    Raises: ValueError for mu that is not positive, zeta < 0, or values that are not finite (concrete values only).
    Source: arXiv:2306.04251 [paper] for the last threshold.
    Checked: both sides of each line, against the modes and the density at 0; simulation
        `sims.stochastic_collapse.quartic`.
    """
    mu, zeta = _given(mu, zeta)
    return jnp.where(zeta**2 < mu, 0, jnp.where(zeta**2 < 2 * mu, 1, 2))


def quartic_phase(mu: ArrayLike, zeta: ArrayLike) -> str | np.ndarray:
    """Phase of the stationary law in a word.

    Args:
        mu: Curvature of the saddle at 0, positive. Shape (...).
        zeta: Noise amplitude, zero or positive. Shape (...).

    Returns:
        "bimodal" (two modes beside 0), "unimodal" (a mode at 0, and yet no mass there) or "collapsed" (all mass at 0);
        for arrays an array of words. Shape: broadcast.

    Valid: concrete values; `quartic_phase_code` inside `jit`.
    Raises: ValueError as `quartic_phase_code`.
    Source: arXiv:2306.04251 [paper].
    Checked: through `quartic_phase_code`.
    """
    words = np.array(PHASES)[np.asarray(quartic_phase_code(mu, zeta))]
    return words if words.ndim else str(words)


def quartic_modes(mu: ArrayLike, zeta: ArrayLike) -> Float[Array, "..."]:
    r"""Distance from 0 of the modes of the stationary law, which noise moves inwards.

    .. math:: \sqrt{(\mu - \zeta^2)_+}

    Args:
        mu: Curvature of the saddle at 0, positive. Shape (...).
        zeta: Noise amplitude, zero or positive. Shape (...).

    Returns:
        |theta| at the modes; 0 if the law is unimodal or collapsed. Shape: broadcast.

    Valid: the stochastic differential equation.
    Raises: ValueError as `quartic_phase_code`.
    Source: derived here.
    Checked: slope 0 of the density there (1e-12).
    """
    mu, zeta = _given(mu, zeta)
    return safe_sqrt(mu - zeta**2)


def quartic_stationary_density(theta: ArrayLike, mu: ArrayLike, zeta: ArrayLike) -> Float[Array, "..."]:
    r"""Stationary density of the quartic double well, half of its mass on each side of 0.

    .. math:: p(\theta) = \frac{|\theta|^{a - 1} e^{-\theta^2/\zeta^2}}{\zeta^a\,\Gamma(a/2)}, \qquad
        a = \frac{2\mu}{\zeta^2} - 1

    Args:
        theta: Any number. Shape (...).
        mu: Curvature of the saddle at 0, positive. Shape (...).
        zeta: Noise amplitude, positive, with zeta^2 < 2 mu. Shape (...).

    Returns:
        The density, of integral 1 over the line; at 0 it is 0 if bimodal, infinite if zeta^2 > mu. Shape: broadcast.

    Valid: t -> infinity, from an initial law that is symmetric; the sign of theta never changes.
    Raises: ValueError for mu or zeta that is not positive, a collapsed law, which has no density, or values that are
        not finite (concrete values only).
    Source: arXiv:2306.04251 [paper].
    Checked: mpmath on both sides of a = 1 (1e-12), its integral, reference values, gradients; simulation
        `sims.stochastic_collapse.quartic`.
    """
    finite(theta=theta)
    mu, zeta = _live(mu, zeta)
    theta, mu, zeta = together(theta, mu, zeta)
    a = 2 * mu / zeta**2 - 1
    size = jnp.abs(theta / zeta)
    still = size == 0
    log = (a - 1) * jnp.log(jnp.where(still, 1.0, size)) - size**2 - jnp.log(zeta) - gammaln(a / 2)
    at_zero = jnp.where(a > 1, 0.0, jnp.where(a == 1, jnp.exp(log), jnp.inf))
    return jnp.where(still, at_zero, jnp.exp(log))


def quartic_distribution(theta: ArrayLike, mu: ArrayLike, zeta: ArrayLike) -> Float[Array, "..."]:
    r"""Stationary probability of being closer to 0 than theta.

    .. math:: P(|\theta_\infty| \le \theta) = \frac{\gamma(a/2,\ \theta^2/\zeta^2)}{\Gamma(a/2)}, \qquad
        \frac{\theta_\infty^2}{\zeta^2} \sim \mathrm{Gamma}\Big(\frac a2\Big)

    Args:
        theta: A distance from 0, zero or positive, or infinite. Shape (...).
        mu: Curvature of the saddle at 0, positive. Shape (...).
        zeta: Noise amplitude, positive, with zeta^2 < 2 mu. Shape (...).

    Returns:
        The probability. Shape: broadcast.

    Valid: t -> infinity.
    Raises: ValueError for theta < 0, and as `quartic_stationary_density`.
    Source: derived here.
    Checked: mpmath (1e-12), reference value; derivative 2 p(theta).
    """
    nonnegative(theta=theta)
    mu, zeta = _live(mu, zeta)
    theta, mu, zeta = together(theta, mu, zeta)
    return gammainc(mu / zeta**2 - 0.5, (theta / zeta) ** 2)


def quartic_moment(q: ArrayLike, mu: ArrayLike, zeta: ArrayLike) -> Float[Array, "..."]:
    r"""Stationary moment of |theta|.

    .. math:: E|\theta|^q = \zeta^q\,\frac{\Gamma(\frac{a + q}2)}{\Gamma(\frac a2)}, \qquad
        E\theta^2 = \mu - \frac{\zeta^2}2

    Args:
        q: Its order, above -a, below which it is infinite. Shape (...).
        mu: Curvature of the saddle at 0, positive. Shape (...).
        zeta: Noise amplitude, positive, with zeta^2 < 2 mu. Shape (...).

    Returns:
        The moment. Shape: broadcast.

    Valid: t -> infinity.
    Raises: ValueError for values that are not finite, and as `quartic_stationary_density`.
    Source: derived here.
    Checked: mpmath (1e-12), the second moment, a reference value; simulation `sims.stochastic_collapse.quartic`.
    """
    finite(q=q)
    mu, zeta = _live(mu, zeta)
    q, mu, zeta = together(q, mu, zeta)
    half = mu / zeta**2 - 0.5
    exists = half + q / 2 > 0
    q = jnp.where(exists, q, 0.0)
    return jnp.where(exists, jnp.exp(q * jnp.log(zeta) + gammaln(half + q / 2) - gammaln(half)), jnp.inf)


def quartic_of_steps(mu: ArrayLike, zeta: ArrayLike, dt: ArrayLike) -> QuarticParameters:
    r"""Quartic model whose logarithm, near 0, has the drift and the variance of Euler steps.

    .. math:: \Lambda' = \frac{E\ln|m|}{dt}, \qquad \zeta'^2 = \frac{\mathrm{Var}\ln|m|}{dt}, \qquad
        \mu' = \Lambda' + \frac{\zeta'^2}2, \qquad m = 1 + \mu\,dt + \zeta\sqrt{dt}\,\xi

    with the variance as :math:`q + \frac52 q^2`, :math:`q = \zeta^2 dt / (1 + \mu\,dt)^2`.

    Args:
        mu: Curvature of the saddle at 0, any sign. Shape (...).
        zeta: Noise amplitude, zero or positive. Shape (...).
        dt: Step, positive. Shape (...).

    Returns:
        `QuarticParameters(mu, zeta)`, for `collapse_fraction` and its like. Shape: broadcast.

    Valid: deep below the well, where the exponent is exact and the variance has an error O(q^3). Steps in the well
        itself leave an error: 0.03 of a collapsed share at mu = 1.5, zeta = 2.3 and dt = 0.02, 0.01 at dt = 0.01.
    Raises: ValueError for dt that is not positive, zeta < 0, or values that are not finite (concrete values only).
    Source: derived here.
    Checked: quadrature over xi; the limit dt -> 0; simulation `sims.stochastic_collapse.quartic`.
    """
    positive(dt=dt)
    nonnegative(zeta=zeta)
    finite(mu=mu, zeta=zeta, dt=dt)
    mu, zeta, dt = together(mu, zeta, dt)
    mean, spread = 1 + mu * dt, zeta * jnp.sqrt(dt)
    q = (spread / mean) ** 2
    exponent, square = elog_abs_normal(mean, spread) / dt, (q + 2.5 * q**2) / dt
    return QuarticParameters(exponent + square / 2, safe_sqrt(square))


def _given(mu, zeta):
    positive(mu=mu)
    nonnegative(zeta=zeta)
    finite(mu=mu, zeta=zeta)
    return together(mu, zeta)


def _live(mu, zeta):
    """The arguments, if a stationary law exists."""
    positive(mu=mu, zeta=zeta)
    finite(mu=mu, zeta=zeta)
    if not traced(mu, zeta):
        live = np.asarray(zeta) ** 2 < 2 * np.asarray(mu)
        require(live, "zeta", "below sqrt(2 mu), for the law is collapsed from there on", zeta)
    return together(mu, zeta)
