"""Random-matrix laws: Marchenko-Pastur averages, the ridge equivalent, chi-square moments."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import nonnegative, positive, together
from theory.roots import newton


def marchenko_pastur_mean(function: Callable, gamma: ArrayLike, at_zero: ArrayLike = 0.0) -> Float[Array, "..."]:
    r"""Mean of a function over the Marchenko-Pastur law of :math:`X^\top X / n`, X standard Gaussian.

    .. math:: \mathbb E f = (1 - \gamma)_+ f(0) + \int f(\lambda)
        \frac{\gamma \sqrt{(\lambda_+ - \lambda)(\lambda - \lambda_-)}}{2\pi\lambda} d\lambda,
        \qquad \lambda_\pm = (1 \pm \gamma^{-1/2})^2

    With :math:`\lambda = \lambda_- + 4\gamma^{-1/2} / (1 + e^{-2v})` the integral is
    :math:`\frac2\pi \int \frac{f(\lambda)}{\lambda \cosh^3 v} dv` over the real line. Its poles lie
    at :math:`|\mathrm{Im}\, v| = \pi/2` for every gamma, 1 included, so that the trapezoidal rule
    converges exponentially.

    Args:
        function: f, elementwise; it is given eigenvalues of shape (..., 361), the shape of `gamma`
            and one more axis for the quadrature, and all it closes over must broadcast with that.
        gamma: Samples per dimension n/d, positive; dimensionless. Shape (...).
        at_zero: f(0), counted where gamma < 1. Shape (...).

    Returns:
        The mean. Shape: `gamma` and `at_zero`, broadcast.

    Valid: f smooth on the positive axis, of growth below 1/lambda at 0 if gamma = 1.
    Raises: ValueError if `gamma` is not positive (concrete values only).
    Source: Marchenko and Pastur (1967); change of variables derived here.
    Checked: moments (1e-13) and resolvent (1e-10) in closed form at gamma from 0.05 to 20 with 1 and
        1 +- 1e-6; mpmath integrals (1e-10); sampled spectra; gradients.
    """
    positive(gamma=gamma)
    gamma, at_zero = together(gamma, at_zero)
    step = 0.15
    v = jnp.asarray(np.arange(-267, 94) * step, dtype=gamma.dtype)
    v = jnp.broadcast_to(v, (*gamma.shape, v.size))
    root = jnp.sqrt(gamma)
    lower = ((gamma - 1) / (root * (1 + root))) ** 2
    eigenvalues = lower[..., None] + (4 / root)[..., None] / (1 + jnp.exp(-2 * v))
    weights = 2 / jnp.pi * step / (eigenvalues * jnp.cosh(v) ** 3)
    bulk = jnp.sum(weights * function(eigenvalues), axis=-1)
    return jnp.maximum(1 - gamma, 0.0) * at_zero + bulk


def effective_ridge(spectrum: Float[Array, "..."], n: ArrayLike, ridge: ArrayLike) -> Float[Array, "..."]:
    r"""Ridge that a population regression needs to act as the ridge on n samples.

    .. math:: \kappa = \lambda + \frac{\kappa}{n} \sum_j \frac{k_j}{k_j + \kappa}

    Args:
        spectrum: Eigenvalues k_j of the features' covariance, zero or positive. Shape (r,).
        n: Number of samples, positive. A number.
        ridge: lambda, positive, in units of k, for the loss mean square + lambda |w|^2. A number.

    Returns:
        The largest root kappa, between lambda and lambda + sum(k) / n. A number.

    Valid: exact definition; it describes Gaussian features up to relative errors O(1/n).
    Source: Silverstein's equation, as in the ridge literature; derived here by deleting one sample.
    Checked: mpmath root (1e-12) from n = 1 to 1000 and lambda from 1e-8 to 10; gradients.
    """
    spectrum = jnp.asarray(spectrum)
    n, ridge = together(jnp.asarray(n, dtype=spectrum.dtype), jnp.asarray(ridge, spectrum.dtype))

    def gap(kappa):
        return kappa - ridge - kappa * jnp.sum(spectrum / (spectrum + kappa)) / n

    return newton(gap, ridge + jnp.sum(spectrum) / n, steps=60)


def chi_square_inverse_square(n: ArrayLike, shift: ArrayLike) -> Float[Array, "..."]:
    r"""Mean of :math:`(Q + \Lambda)^{-2}` over a chi-square variable Q.

    .. math:: \mathbb E\frac{1}{(Q + \Lambda)^2}
        = \int_0^\infty s\, e^{-\Lambda s} (1 + 2s)^{-n/2} ds
        = \tfrac14 U\big(2, 3 - \tfrac n2, \tfrac\Lambda2\big)

    The trapezoidal rule in log s converges exponentially, uniformly in n and Lambda.

    Args:
        n: Degrees of freedom, positive. Shape (...).
        shift: Lambda, zero or positive, in units of Q. Shape (...).

    Returns:
        The mean; at Lambda = 0 it is 1 / ((n - 2)(n - 4)) for n > 4 and inf for n <= 4.
        Shape: the arguments, broadcast.

    Valid: Lambda = 0 or Lambda / (n + Lambda) > 1e-30; relative error 1e-11.
    Raises: ValueError if `n` is not positive or `shift` is negative (concrete values only).
    Source: derived here: the Laplace transform of the chi-square law; U is Tricomi's function.
    Checked: mpmath `hyperu` (1e-11) for n from 1 to 10^5, Lambda from 1e-12 to 10^6; gradients.
    """
    positive(n=n)
    nonnegative(shift=shift)
    n, shift = together(n, shift)
    step = 0.2
    w = jnp.asarray(np.arange(-100, 401) * step, dtype=n.dtype)
    w = jnp.broadcast_to(w, (*n.shape, w.size))
    log_scale = jnp.log(2 / (n + shift))[..., None]
    s = jnp.exp(log_scale + w)
    logarithm = 2 * (log_scale + w) - shift[..., None] * s - n[..., None] / 2 * jnp.log1p(2 * s)
    mean = step * jnp.sum(jnp.exp(logarithm), axis=-1)
    return jnp.where((shift == 0) & (n <= 4), jnp.inf, mean)
