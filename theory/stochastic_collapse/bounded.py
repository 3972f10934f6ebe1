"""A model that multiplicative noise collapses, and nonlinearity bounds, with exact phases in discrete time."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from theory.arguments import finite, nonnegative, require, together
from theory.roots import increasing_root
from theory.stochastic_collapse.products import FAR, discrete_exponent, gaussian_steps, log_size

PHASES = ("collapsed", "live", "diverged", "bistable")
ASYMPTOTIC_TERMS, POISSON_TERMS = 20, 130  # up to m^2 / 2 s^2 = 36, where the one series gives way to the other


class BoundedExponents(NamedTuple):
    """Exponents per step of the bounded model, near the origin and at infinity."""

    near_zero: Float[Array, "..."]
    at_infinity: Float[Array, "..."]


def bounded_exponents(eta: ArrayLike, mu: ArrayLike, sigma: ArrayLike, K: ArrayLike) -> BoundedExponents:
    r"""Exponents near the origin and at infinity of the model with exact phases.

    .. math:: g_k = h_k\theta + \frac{K\theta^3}{1 + \theta^2}, \quad h_k \sim \mathcal N(-\mu, \sigma^2), \qquad
        \Lambda_0 = E\ln|\mathcal N(1 + \eta\mu, \eta^2\sigma^2)|, \quad
        \Lambda_\infty = E\ln|\mathcal N(1 + \eta\mu - \eta K, \eta^2\sigma^2)|

    Args:
        eta: Learning rate, positive. Shape (...).
        mu: Minus the mean curvature at the origin, any sign; per eta. Shape (...).
        sigma: Standard deviation of the curvature, zero or positive; per eta. Shape (...).
        K: Curvature that infinity has in addition, any sign; per eta. Shape (...).

    Returns:
        `BoundedExponents(near_zero, at_infinity)`, per step. Shape: broadcast.

    Valid: every step size.
    Raises: ValueError as `discrete_exponent`, or for a K that is not finite (concrete values only).
    Source: derived here.
    Checked: reference values; simulation `sims.stochastic_collapse.phase_diagram`.
    """
    finite(mu=mu, K=K)
    nonnegative(sigma=sigma)
    eta, mu, sigma, K = together(eta, mu, sigma, K)
    return BoundedExponents(discrete_exponent(eta, -mu, sigma), discrete_exponent(eta, K - mu, sigma))


def bounded_phase_code(eta: ArrayLike, mu: ArrayLike, sigma: ArrayLike, K: ArrayLike) -> Int[Array, "..."]:
    r"""Number of the phase of the bounded model; `bounded_phase` has the words.

    .. math:: 0: \Lambda_0 \le 0, \Lambda_\infty \le 0, \quad 1: \Lambda_0 > 0 \ge \Lambda_\infty, \quad
        2: \Lambda_0, \Lambda_\infty > 0, \quad 3: \Lambda_0 \le 0 < \Lambda_\infty

    Args:
        eta: Learning rate, positive. Shape (...).
        mu: Minus the mean curvature at the origin, any sign; per eta. Shape (...).
        sigma: Standard deviation of the curvature, zero or positive; per eta. Shape (...).
        K: Curvature that infinity has in addition, any sign; per eta. Shape (...).

    Returns:
        0 collapsed, 1 live, 2 diverged, 3 bistable. Shape: broadcast.

    Valid: every step size; on a line itself the exponent is zero and the walk recurrent.
    Raises: ValueError as `bounded_exponents`.
    Source: derived here.
    Checked: reference value, a cell of every phase; simulation `sims.stochastic_collapse.phase_diagram`.
    """
    return phase_code(*bounded_exponents(eta, mu, sigma, K))


def phase_code(near_zero: ArrayLike, at_infinity: ArrayLike) -> Int[Array, "..."]:
    r"""Number of the phase that two exponents of any one-dimensional model make, as in `bounded_phase_code`.

    Args:
        near_zero: Lambda_0, per step or per unit time. Shape (...).
        at_infinity: Lambda_inf, the same. Shape (...).

    Returns:
        0 collapsed, 1 live, 2 diverged, 3 bistable. Shape: broadcast.

    Valid: independent factors, and nothing absorbing between the origin and infinity.
    Source: derived here.
    Checked: through `bounded_phase_code`.
    """
    near, far = together(near_zero, at_infinity)
    return jnp.where(near > 0, jnp.where(far > 0, 2, 1), jnp.where(far > 0, 3, 0))


def bounded_phase(eta: ArrayLike, mu: ArrayLike, sigma: ArrayLike, K: ArrayLike) -> str | np.ndarray:
    """Phase of the bounded model, in a word.

    Args:
        eta: Learning rate, positive. Shape (...).
        mu: Minus the mean curvature at the origin, any sign; per eta. Shape (...).
        sigma: Standard deviation of the curvature, zero or positive; per eta. Shape (...).
        K: Curvature that infinity has in addition, any sign; per eta. Shape (...).

    Returns:
        "collapsed" (onto the origin from anywhere), "live" (neither), "diverged" (from anywhere) or "bistable" (either,
        by start and chance); for arrays an array of words. Shape: broadcast.

    Valid: concrete values; `bounded_phase_code` inside `jit`.
    Raises: ValueError as `bounded_exponents`.
    Source: derived here.
    Checked: reference value.
    """
    words = np.array(PHASES)[np.asarray(bounded_phase_code(eta, mu, sigma, K))]
    return words if words.ndim else str(words)


def near_zero_exponent(
    eta: ArrayLike, mean_curvature: ArrayLike, std_curvature: ArrayLike, batch: ArrayLike = 1
) -> Float[Array, "..."]:
    r"""Exponent of the stationary density near an origin that repels, where a nonlinearity bounds SGD.

    .. math:: p(\theta) \propto |\theta|^{a - 1}, \qquad E|1 - \eta h_b|^{-a} = 1, \qquad
        a \to \frac{2|\bar h|B}{\eta\sigma_h^2} - 1 \text{ for small } \eta

    Args:
        eta: Learning rate, positive. Shape (...).
        mean_curvature: h-bar, any sign; per eta. Shape (...).
        std_curvature: sigma_h, zero or positive; per eta. Shape (...).
        batch: B, samples per step; a whole number. Shape (...).

    Returns:
        a, above 0 and below 1; 1 to rounding if the noise is small. The density of x = ln |theta| falls as exp(a x).
        Shape: broadcast; nan where the origin attracts (traced values only).

    Valid: Gaussian curvatures, independent batches.
    Raises: ValueError as `discrete_exponent`, or if that is not positive (concrete values only).
    Source: derived here.
    Checked: reference value; mpmath (1e-10) on both sides of the switch; the limit of small eta; simulation
        `sims.stochastic_collapse.near_zero`.
    """
    exponent = discrete_exponent(eta, mean_curvature, std_curvature, batch)
    require(exponent > 0, "discrete_exponent", "positive for a density near the origin", exponent)
    eta, h, spread = gaussian_steps(eta, mean_curvature, std_curvature, batch)
    live = exponent > 0
    x, s = jnp.where(live, -eta * h, 0.5), jnp.where(live, eta * spread, 1.0)

    def growth(a):
        return _log_moment(x, s, a) / a

    top = jnp.full_like(x, 1 - float(jnp.finfo(x.dtype).epsneg))
    return jnp.where(live, increasing_root(growth, jnp.zeros_like(x), top), jnp.nan)


def _log_moment(x, s, a):
    """ln E |N(1 + x, s^2)|^-a for a below 1."""
    m = 1 + x
    far = jnp.abs(m) >= FAR * s
    w = (jnp.where(far, s, 0.0) / jnp.where(far, m, 1.0)) ** 2
    tail = jnp.zeros_like(w)
    for n in range(ASYMPTOTIC_TERMS, 0, -1):
        tail = (a + 2 * n - 2) * (a + 2 * n - 1) / (2 * n) * w * (1 + tail)
    asymptotic = jnp.log1p(tail) - a * log_size(jnp.where(far, m, 1.0), jnp.where(far, x, 0.0))

    # The noncentral chi-squared law is a Poisson mixture of central ones: no term is negative.
    square = 2 * jnp.where(far, 1.0, s) ** 2
    mean = jnp.where(far, 0.0, m) ** 2 / square

    def outwards(k, total):
        n = (POISSON_TERMS - 1 - k).astype(total.dtype)
        return 1 + mean / (n + 1) * (n + (1 - a) / 2) / (n + 0.5) * total

    total = jax.lax.fori_loop(0, POISSON_TERMS, outwards, jnp.ones_like(mean))
    mixture = jnp.log(total) - mean - a / 2 * jnp.log(square) + gammaln((1 - a) / 2) - math.log(math.pi) / 2
    return jnp.where(far, asymptotic, mixture)
