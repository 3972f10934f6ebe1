"""Products of random factors: the exponent at which one normal coordinate grows or dies.

Time is t = eta k; exponents of discrete SGD are per step.
"""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import dawsn
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import finite, integer, nonnegative, positive, require, together, with_one_dtype

MOST_BATCHES = 100_000
HALF_LOG = (np.euler_gamma + math.log(2)) / 2  # -E ln |N(0, 1)|
FAR = 8.5  # m / s from which the asymptotic series is used
SERIES = 24
NODES, WEIGHTS = (x / 2 for x in np.polynomial.legendre.leggauss(28))
NODES = NODES + 0.5


def lyapunov_exponent(curvature: ArrayLike, noise: ArrayLike) -> Float[Array, "..."]:
    r"""Lyapunov exponent of the origin in continuous time, in one dimension.

    .. math:: d\theta = -h\theta\,dt + \zeta\theta\,dW, \qquad \Lambda = -h - \tfrac12\zeta^2

    Args:
        curvature: h = L''(0), any sign; per unit time. Shape (...).
        noise: zeta, zero or positive; zeta^2 per unit time. SGD has zeta^2 = eta sigma_h^2 / B. Shape (...).

    Returns:
        Growth rate of ln |theta| per unit time; the origin attracts where it is negative. Shape: broadcast.

    Valid: Ito convention; a nonlinear L with noise sqrt(2 D) dW has zeta^2 = D''(0).
    Raises: ValueError for a curvature that is not finite or a negative noise (concrete values only).
    Source: arXiv:2306.04251 [paper], alpha = -Lambda.
    Checked: the limit eta -> 0 of `discrete_exponent`, to first order in eta.
    """
    finite(curvature=curvature)
    nonnegative(noise=noise)
    h, zeta = together(curvature, noise)
    return -h - zeta**2 / 2


def elog_abs_normal(m: ArrayLike, s: ArrayLike) -> Float[Array, "..."]:
    r"""Mean logarithm of the absolute value of a Gaussian variable.

    .. math:: E\ln|\mathcal N(m, s^2)| = \ln s - \tfrac12(\gamma_E + \ln 2)
        + \int_0^{m/(s\sqrt2)} 2\,\mathrm{Dawson}(u)\,du

    Args:
        m: Mean, any sign. Shape (...).
        s: Standard deviation, zero or positive. Shape (...).

    Returns:
        The mean; ln |m| at s = 0, -inf at m = s = 0. Shape: broadcast.

    Valid: everywhere. By quadrature up to |m| = 8.5 s, beyond by ln |m| - q/2 - (3/4) q^2 - ..., q = (s/m)^2.
    Raises: ValueError for a mean that is not finite or a negative s (concrete values only).
    Source: derived here.
    Checked: mpmath (1e-14 absolute), both sides of the switch, s = 0, m = 0, gradients, float32.
    """
    finite(m=m)
    nonnegative(s=s)
    m, s = together(m, s)
    return _elog(m, m - 1, s)


def discrete_exponent(
    eta: ArrayLike, mean_curvature: ArrayLike, std_curvature: ArrayLike, batch: ArrayLike = 1
) -> Float[Array, "..."]:
    r"""Lyapunov exponent of SGD on Gaussian curvatures, exact at every step size.

    .. math:: \theta_{k+1} = (1 - \eta h_b)\theta_k, \qquad
        \Lambda = E\ln|\mathcal N(1 - \eta\bar h,\ \eta^2\sigma_h^2/B)|

    Args:
        eta: Learning rate, positive. Shape (...).
        mean_curvature: h-bar, any sign; per eta. Shape (...).
        std_curvature: sigma_h, zero or positive; per eta. Shape (...).
        batch: B, samples per step; a whole number. Shape (...).

    Returns:
        Growth of ln |theta| per step. Shape: broadcast.

    Valid: independent batches; relative accuracy for eta -> 0 too.
    Raises: ValueError for eta <= 0, a mean that is not finite, sigma_h < 0 or a batch that is not a whole number >= 1
        (concrete values only).
    Source: derived here.
    Checked: `elog_abs_normal`; mpmath for eta down to 1e-8 (1e-13 relative); simulation
        `sims.stochastic_collapse.exponents`.
    """
    eta, h, spread = gaussian_steps(eta, mean_curvature, std_curvature, batch)
    return _elog(1 - eta * h, -eta * h, eta * spread)


def finite_data_exponent(
    eta: ArrayLike, curvatures: ArrayLike, batch: int = 1, replace: bool = True
) -> Float[Array, "..."]:
    r"""Lyapunov exponent of SGD on a finite data set, by the exact average over its batches.

    .. math:: \Lambda = \frac1{|\mathcal B|}\sum_{b\in\mathcal B} \ln\Big|1 - \frac\eta B\sum_{i\in b} h_i\Big|

    Args:
        eta: Learning rate, positive. Shape (...).
        curvatures: h_i of every sample; per eta. Shape (..., N).
        batch: B, samples per step. A whole number.
        replace: Whether a batch is drawn with replacement: B uses multisets with their multiplicities, else subsets.

    Returns:
        Growth of ln |theta| per step; -inf if a batch puts theta on 0. Shape: broadcast.

    Valid: independent batches. For B = 1 shuffled epochs grow by N times this, without any spread.
    Raises: ValueError for eta <= 0, curvatures that are not finite, a batch that is not a whole number >= 1 or, without
        replacement, exceeds N, or more than 100000 different batches (concrete values only).
    Source: derived here.
    Checked: the average over all N^B ordered batches, N = B, a direct product over an epoch; simulation
        `sims.stochastic_collapse.exponents`.
    """
    positive(eta=eta)
    finite(curvatures=curvatures)
    eta, h = with_one_dtype(eta, curvatures)
    if not h.ndim:
        raise ValueError("`curvatures` must have a last axis over samples, but got a number.")
    batches, weights = _batches(h.shape[-1], batch, replace)
    means = jnp.mean(h[..., batches], -1)
    shape = np.broadcast_shapes(eta.shape, h.shape[:-1])
    x = -jnp.broadcast_to(eta, shape)[..., None] * jnp.broadcast_to(means, (*shape, means.shape[-1]))
    return jnp.sum(jnp.broadcast_to(jnp.asarray(weights, x.dtype), x.shape) * log_size(1 + x, x), -1)


def exponent_expansion(
    eta: ArrayLike, mean_curvature: ArrayLike, std_curvature: ArrayLike, batch: ArrayLike = 1
) -> Float[Array, "..."]:
    r"""Lyapunov exponent of SGD to second order in the step size, for any law of the curvatures.

    .. math:: \Lambda = -\eta\bar h - \tfrac{\eta^2}2\Big(\bar h^2 + \frac{\sigma_h^2}B\Big) + O(\eta^3)

    The SDE, eta `lyapunov_exponent`, lacks the term in h-bar^2, which gradient descent has without any noise.

    Args:
        eta: Learning rate, positive. Shape (...).
        mean_curvature: h-bar, any sign; per eta. Shape (...).
        std_curvature: sigma_h, zero or positive; per eta. Shape (...).
        batch: B, samples per step; a whole number. Shape (...).

    Returns:
        Growth of ln |theta| per step. Shape: broadcast.

    Valid: eta times the curvatures small.
    Raises: ValueError as `discrete_exponent`.
    Source: derived here.
    Checked: order 3 in eta of the distance to `discrete_exponent`.
    """
    eta, h, spread = gaussian_steps(eta, mean_curvature, std_curvature, batch)
    return -eta * h - eta**2 / 2 * (h**2 + spread**2)


def gaussian_steps(eta, mean_curvature, std_curvature, batch):
    """(eta, mean, standard deviation of a batch's mean), checked, of one dtype and shape."""
    positive(eta=eta)
    finite(eta=eta, mean_curvature=mean_curvature, std_curvature=std_curvature)
    nonnegative(std_curvature=std_curvature)
    integer(1, batch=batch)
    eta, h, sigma, B = together(eta, mean_curvature, std_curvature, batch)
    return eta, h, sigma / jnp.sqrt(B)


@jax.jit
def _elog(m, x, s):
    """E ln |N(m, s^2)| with m = 1 + x, accurate relative to x and s^2 where these are small."""
    far = jnp.abs(m) >= FAR * s
    q = (jnp.where(far, s, 0.0) / jnp.where(far & (m != 0), m, 1.0)) ** 2
    tail = jnp.zeros_like(q)
    for n in range(SERIES, 0, -1):
        tail = 1 / (2 * n) + (2 * n + 1) * q * tail
    safe = jnp.where(far, 1.0, s)
    near = jnp.log(safe) - HALF_LOG + _dawson_integral(jnp.where(far, 0.0, m) / (safe * math.sqrt(2)))
    return jnp.where(far, log_size(jnp.where(far, m, 1.0), jnp.where(far, x, 0.0)) - q * tail, near)


def log_size(m, x):
    """ln |m| with m = 1 + x."""
    small = jnp.abs(x) < 0.5
    return jnp.where(small, jnp.log1p(jnp.where(small, x, 0.0)), jnp.log(jnp.abs(jnp.where(small, 1.0, m))))


def _dawson_integral(z):
    """Twice the integral of Dawson's function from 0 to z, |z| up to 6, by Gauss-Legendre quadrature."""
    nodes, weights = (jnp.asarray(a, z.dtype).reshape((1,) * z.ndim + (-1,)) for a in (NODES, WEIGHTS))
    return 2 * z * jnp.sum(weights * dawsn(z[..., None] * nodes), -1)


def _batches(samples: int, batch: int, replace: bool) -> tuple[np.ndarray, np.ndarray]:
    """The different batches, shape (M, B), and their probabilities."""
    integer(1, batch=batch)
    if not replace:
        require(batch <= samples, "batch", f"at most the {samples} samples if none is drawn twice", batch)
    count = math.comb(samples + batch - 1 if replace else samples, batch)
    few = f"small enough to leave at most {MOST_BATCHES} different batches of {samples} samples"
    require(count <= MOST_BATCHES, "batch", few, batch)
    if not replace:
        return np.array(list(itertools.combinations(range(samples), batch))), np.full(count, 1 / count)
    batches = np.array(list(itertools.combinations_with_replacement(range(samples), batch)))
    repeats = [math.prod(math.factorial(n) for n in np.unique(b, return_counts=True)[1].tolist()) for b in batches]
    return batches, math.factorial(batch) / np.array(repeats, float) / float(samples) ** batch
