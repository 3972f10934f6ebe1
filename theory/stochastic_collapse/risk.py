r"""Risk of a linear student whose singular values are soft-thresholded at tau, in the spiked model.

The data are :math:`X^\top y = W + \frac\sigma{\sqrt m} G`, m x m, G of independent standard normal entries, and the
teacher :math:`W = \sum_j s_j a_j b_j^\top` is of finite rank.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import integer, nonnegative, number, positive, require, traced, with_one_dtype

NODES = 200
GRID, GOLDEN_STEPS = 401, 60


class Threshold(NamedTuple):
    """The threshold of least risk, in units of s, and that risk, in units of s^2."""

    tau: Float[Array, ""]
    risk: Float[Array, ""]


def teacher_student_risk(
    tau: ArrayLike,
    spectrum: ArrayLike,
    sigma: ArrayLike,
    m: ArrayLike,
    averaged: bool = False,
    *,
    complex_noise: bool = False,
) -> Float[Array, "..."]:
    r"""Expected squared error of a student that label noise soft-thresholds at tau.

    With :math:`x = 2\sigma\sin\vartheta`, :math:`a = s^2/\sigma^2` and :math:`D = (1 - a)^2 + 4a\cos^2\vartheta`,

    .. math:: E\|\hat W - W\|_F^2 &= \int_{\vartheta_\tau}^{\pi/2} \Big[\frac{4m}\pi\cos^2\vartheta f_2(x) -
        \frac1\pi f_2(x)\Big] d\vartheta + \tfrac14 f_2(2\sigma) \\
        &+ \sum_s \Big[s^2 - \frac2\pi\int_{\vartheta_\tau}^{\pi/2} \frac{f_2(x)(a + \cos2\vartheta) +
        4\sigma a f_1(x)\sin2\vartheta\cos\vartheta}D\,d\vartheta + 1_{s > \sigma,\,x_s > \tau}
        \big(f_2(x_s) - 2f_1(x_s)(s - \tfrac{\sigma^2}s)\big)\Big]

    :math:`f_1 = x - \tau`; :math:`f_2 = x^2 - \tau^2` of the fluctuating student, :math:`(x - \tau)^2` of its average
    over the label noise (shortly after a drop of the learning rate); :math:`\sin\vartheta_\tau = \tau / 2\sigma`;
    :math:`x_s = s + \sigma^2/s`, the outlier of the data that a mode of the teacher makes. For tau >= 2 sigma the bulk
    is gone, and with it the integrals and the term 1/4 f_2(2 sigma).

    Args:
        tau: Soft threshold eta zeta^2 / 2, zero or positive, in units of s. Shape (...).
        spectrum: Singular values s of the teacher, positive, none equal to sigma. Shape (r,), r may be 0.
        sigma: Noise of the data, positive, in units of s. A number.
        m: Dimension, a whole number from r. A number.
        averaged: Whether the student is averaged over the label noise.
        complex_noise: Whether G is complex: then the two terms of f_2 without m do not exist.

    Returns:
        The risk, in units of s^2. Shape (...).

    Valid: m -> infinity at fixed rank, error O(1 / m); it is large where an s is within m^(-1/3) sigma of sigma, or
        x_s near tau. The quadrature holds to 1e-10 for |s - sigma| > 0.02 sigma.
    Raises: ValueError if `tau` is negative, `sigma` or a singular value not positive, `spectrum` not of shape (r,) or
        equal to sigma somewhere, or `m` is not a whole number from r (concrete values only).
    Source: derived here.
    Checked: reference values; mpmath on the resolvents of the derivation (1e-9); m sigma^2 at tau = 0; no bulk above
        2 sigma; singular values of random matrices, real and complex.
    """
    nonnegative(tau=tau)
    tau, spectrum, sigma, m = _checked(tau, spectrum, sigma, m)
    below = tau < 2 * sigma
    start = jnp.arcsin(jnp.where(below, tau / (2 * sigma), 0.0))
    nodes, weights = (jnp.asarray(v, tau.dtype) for v in np.polynomial.legendre.leggauss(NODES))
    half = (jnp.pi / 2 - start)[..., None] / 2
    # From the pole's side, pi / 2 - theta, so that the cosine is small where it has to be.
    co = half * jnp.broadcast_to(1 + nodes, (*tau.shape, NODES))
    weight = half * jnp.broadcast_to(weights, co.shape)
    cosine, sine = jnp.sin(co), jnp.cos(co)
    threshold = tau[..., None]

    def f(x, threshold):
        first = x - threshold
        return first, first**2 if averaged else first * (x + threshold)

    def integral(integrand):
        return jnp.where(below, jnp.sum(weight * integrand, axis=-1), 0.0)

    first, second = f(2 * sigma * sine, threshold)
    risk = 4 * m / jnp.pi * integral(cosine**2 * second)
    if not complex_noise:
        edge = jnp.where(below, f(2 * sigma, tau)[1] / 4, 0.0)
        risk = risk + edge - integral(second) / jnp.pi

    def teachers(s):
        """What one mode of the teacher adds."""
        a = (s / sigma) ** 2
        D = (1 - a) ** 2 + 4 * a * cosine**2
        density = second * (a - 1 + 2 * cosine**2)
        overlap = 8 * sigma * a * first * sine * cosine**2
        x = s + sigma**2 / s
        learned, square = f(x, tau)
        outlier = jnp.where((s > sigma) & (x > tau), square - 2 * learned * (s - sigma**2 / s), 0.0)
        return s**2 - 2 / jnp.pi * integral((density * a + overlap) / D) + outlier

    return risk + jnp.sum(jax.vmap(teachers)(spectrum), axis=0)


def _checked(tau, spectrum, sigma, m):
    """The arguments of one dtype."""
    number(sigma=sigma, m=m)
    if np.ndim(spectrum) != 1:
        raise ValueError(f"`spectrum` must have shape (r,), but got {np.shape(spectrum)}.")
    positive(sigma=sigma)
    positive(spectrum=spectrum)
    integer(max(np.size(spectrum), 1), m=m)
    if not traced(spectrum, sigma):
        require(np.asarray(spectrum) != np.asarray(sigma), "spectrum", "different from sigma", spectrum)
    return with_one_dtype(tau, spectrum, sigma, m)


def best_threshold(spectrum: ArrayLike, sigma: ArrayLike, m: ArrayLike, averaged: bool = False) -> Threshold:
    r"""Threshold of least risk: the label noise that a schedule should end on.

    .. math:: \tau^* = \arg\min_\tau E\|\hat W - W\|_F^2

    Args:
        spectrum: Singular values of the teacher, positive, none equal to sigma. Shape (r,).
        sigma: Noise of the data, positive. A number.
        m: Dimension, a whole number from r. A number.
        averaged: Whether the student is averaged over the label noise, as shortly after a drop of the learning rate.

    Returns:
        `Threshold(tau, risk)`; the label noise is zeta = sqrt(2 tau / eta).

    Valid: as `teacher_student_risk`; tau to about 1e-7, which the flatness of a minimum allows.
    Raises: ValueError as `teacher_student_risk`.
    Source: derived here.
    Checked: reference value; a fine grid; a teacher that is not seen (all of it below sigma) is best not learned.
    """
    _, spectrum, sigma, m = _checked(0.0, spectrum, sigma, m)
    outliers = jnp.where(spectrum > sigma, spectrum + sigma**2 / spectrum, 0.0)
    highest = jnp.maximum(2 * sigma, jnp.max(outliers, initial=0.0))

    def risk(tau):
        return teacher_student_risk(tau, spectrum, sigma, m, averaged)

    grid = highest * jnp.linspace(0, 1, GRID, dtype=sigma.dtype)
    least = grid[jnp.argmin(risk(grid))]
    spacing, ratio = highest / (GRID - 1), (5**0.5 - 1) / 2

    def narrower(_, ends):
        low, high = ends
        inner = jnp.stack([high - ratio * (high - low), low + ratio * (high - low)])
        values = risk(inner)
        left = values[0] < values[1]
        return jnp.where(left, low, inner[0]), jnp.where(left, inner[1], high)

    ends = (jnp.maximum(least - spacing, 0.0), jnp.minimum(least + spacing, highest))
    low, high = jax.lax.fori_loop(0, GOLDEN_STEPS, narrower, ends)
    # The least risk may be at an end of the range, which the golden section only approaches.
    candidates = jnp.stack([(low + high) / 2, ends[0], ends[1]])
    values = risk(candidates)
    best = jnp.argmin(values)
    return Threshold(candidates[best], values[best])
