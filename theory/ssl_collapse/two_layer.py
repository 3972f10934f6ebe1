"""Two layers, or an encoder and its projector: when their modes are learned, and what the encoder alone holds.

f(x) = W2 W1 x on the quartic landscape of `effective_landscape`, with B and Sigma in a common eigenbasis. p is the
singular value of W2 W1 on one mode, p_inf = sqrt(b / 2 kappa) / Sigma_i its limit, delta = sigma_1^2 - sigma_2^2 what
the squared singular values of W1 and W2 on it differ by.
"""

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from theory.arguments import below_one, finite, nonnegative, positive, require, together, traced
from theory.roots import increasing_root, mean_decay, positive_root, safe_sqrt


def two_layer_time(
    p: ArrayLike, p0: ArrayLike, b: ArrayLike, sigma: ArrayLike, kappa: ArrayLike, imbalance: ArrayLike = 0.0
) -> Float[Array, "..."]:
    r"""Time in which gradient flow takes the product of two layers from p0 to p on one mode.

    .. math:: \dot p = \sqrt{\delta^2 + 4p^2}\,(2bp - 4\kappa\Sigma_i^2p^3), \qquad
        4bt = \Big[\frac{\mathrm{artanh}(r/R)}R - \frac{\mathrm{asinh}(a/p)}a\Big]_{p_0}^p, \qquad
        a = \frac{|\delta|}2,\ r^2 = a^2 + p^2,\ R^2 = a^2 + \frac b{2\kappa\Sigma_i^2}

    Balanced layers, a = 0, have 1/p for asinh(a/p)/a, and p_inf for R.

    Args:
        p: Singular value of W2 W1 at the end, positive, on that side of p_inf on which `p0` is. Shape (...).
        p0: The same at the start, positive. Shape (...).
        b: Eigenvalue of B, not 0; without decay. Shape (...).
        sigma: Sigma_i, eigenvalue of the covariance of views, positive. Shape (...).
        kappa: Coefficient of the quartic term, positive. Shape (...).
        imbalance: delta at the start, of any sign. Shape (...).

    Returns:
        The time; negative if the flow goes from p to p0. Shape: the arguments, broadcast.

    Valid: aligned layers (the singular bases of W1, W2 and B are one) without weight decay, b of either sign: at
        b < 0, and above p_inf, p falls. Rounding grows as kappa Sigma_i^2 p^2 / |b|.
    Raises: ValueError for a p or p0 that is not positive, b = 0, sigma or kappa not positive, an infinite imbalance, or
        a p beyond the limit (concrete values only).
    Source: the flow of sigma_1 and sigma_2 is that of Jing et al. (2022); the time is derived here, in the setting of
        Ziyin et al. (2023).
    Checked: mpmath quadrature on both sides of p_inf, of b = 0 and of R = 0; delta -> 0; simulation `two_layer`.
    """
    positive(p=p)
    _check(p0, b, sigma, kappa, imbalance)
    p, p0, b, sigma, kappa, imbalance = together(p, p0, b, sigma, kappa, imbalance)
    limit = _limit(b, sigma, kappa)
    require((p - limit) * (p0 - limit) > 0, "p", "on the side of its limit on which `p0` is", p)
    return _time(p, p0, b, sigma, kappa, imbalance)


def two_layer_trajectory(
    time: ArrayLike, p0: ArrayLike, b: ArrayLike, sigma: ArrayLike, kappa: ArrayLike, imbalance: ArrayLike = 0.0
) -> Float[Array, "..."]:
    r"""Singular value of the product of two layers on one mode under gradient flow, the inverse of `two_layer_time`.

    Args:
        time: t, zero or positive. Shape (...).
        p0: Singular value of W2 W1 at the start, positive. Shape (...).
        b: Eigenvalue of B, not 0; without decay. Shape (...).
        sigma: Sigma_i, eigenvalue of the covariance of views, positive. Shape (...).
        kappa: Coefficient of the quartic term, positive. Shape (...).
        imbalance: delta at the start, of any sign. Shape (...).

    Returns:
        p(t). Shape: the arguments, broadcast.

    Valid: as `two_layer_time`, at any p0. Balanced layers at b < 0 fall as 1 / 4 |b| t, not exponentially.
    Raises: ValueError for a negative time, and as `two_layer_time`.
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: back through `two_layer_time`; Runge-Kutta on the two singular values; simulation `two_layer`.
    """
    nonnegative(time=time)
    _check(p0, b, sigma, kappa, imbalance)
    time, p0, b, sigma, kappa, imbalance = together(time, p0, b, sigma, kappa, imbalance)
    limit = _limit(b, sigma, kappa)
    at_rest = p0 == limit
    start = jnp.where(at_rest, p0 / 2, p0)
    rising = start < limit
    # No mode falls faster than dp/dt = -k (|delta| + 2p) p, which ends at this logarithm.
    delta = jnp.abs(imbalance)
    k = 2 * jnp.abs(b) + 4 * kappa * (sigma * start) ** 2
    least = -k * delta * time - jnp.log(1 / start + 2 * k * time * mean_decay(k * delta * time))
    close = 2 * jnp.finfo(p0.dtype).eps
    ends = jnp.log(jnp.where(limit > 0, limit, 1.0)) + jnp.where(rising, -close, close)
    low = jnp.where(rising, jnp.log(start), jnp.where(limit > 0, jnp.maximum(least, ends), least))
    high = jnp.where(rising, ends, jnp.log(start))

    def late(x):
        return jnp.where(rising, 1.0, -1.0) * (_time(jnp.exp(x), start, b, sigma, kappa, imbalance) - time)

    return jnp.where(at_rest, p0, jnp.exp(increasing_root(late, low, high)))


def two_layer_escape_time(b: ArrayLike, p0: ArrayLike, imbalance: ArrayLike = 0.0) -> Float[Array, "..."]:
    r"""Time that two layers with a small product need to learn a mode.

    .. math:: t = \frac{\mathrm{asinh}(a/p_0)}{4ab} \to \frac1{4bp_0} \quad (a = |\delta|/2 \to 0), \qquad
        \to \frac{\ln(|\delta|/p_0)}{2b|\delta|} \quad (p_0 \to 0)

    The origin of balanced layers is degenerate: the time is hyperbolic in p0. The larger of two unequal layers hardly
    moves, and the time is logarithmic as for one layer.

    Args:
        b: Eigenvalue of B, of any sign. Shape (...).
        p0: Singular value of W2 W1 at the start, positive. Shape (...).
        imbalance: delta at the start, of any sign. Shape (...).

    Returns:
        The time; infinity where b is not positive. Shape: the arguments, broadcast.

    Valid: p0, |delta| << p_inf; relative error O(p0 / p_inf) for balanced layers.
    Raises: ValueError unless p0 is positive and b and the imbalance are finite (concrete values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: leading term of `two_layer_time`; simulation `two_layer`, order in p0.
    """
    positive(p0=p0)
    finite(b=b, imbalance=imbalance)
    b, p0, imbalance = together(b, p0, imbalance)
    unstable = b > 0
    return jnp.where(unstable, _climb(jnp.abs(imbalance) / 2, p0) / (4 * jnp.where(unstable, b, 1.0)), jnp.inf)


def two_layer_apparent_rank(
    time: ArrayLike,
    p0: ArrayLike,
    b: ArrayLike,
    sigma: ArrayLike,
    kappa: ArrayLike,
    imbalance: ArrayLike = 0.0,
    share: ArrayLike = 0.5,
) -> Int[Array, "..."]:
    r"""Number of modes that two layers have learned at a time: all those with b above about 1 / 4 p0 t.

    Modes that have not escaped yet look collapsed, though none with b > 0 is at the minimum: this collapse by implicit
    regularisation is an effect of finite time.

    Args:
        time: t, zero or positive. Shape (...).
        p0: Singular values of W2 W1 at the start, positive. Shape (..., modes).
        b: Eigenvalues of B, not 0. Shape (..., modes).
        sigma: Eigenvalues of the covariance of views, positive. Shape (..., modes).
        kappa: Coefficient of the quartic term, positive. Shape (..., modes).
        imbalance: delta at the start, of any sign. Shape (..., modes).
        share: A mode counts from this share of p_inf on, above 0 and below 1. Shape (..., modes).

    Returns:
        The count. Shape: the arguments, broadcast, without the last axis.

    Valid: as `two_layer_time`.
    Raises: ValueError for a share outside (0, 1), and as `two_layer_trajectory`.
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: by `two_layer_trajectory`; simulation `two_layer`.
    """
    nonnegative(time=time)
    below_one(share=share)
    positive(share=share)
    _check(p0, b, sigma, kappa, imbalance)
    time = jnp.expand_dims(jnp.asarray(time), -1) if jnp.ndim(time) else time
    time, p0, b, sigma, kappa, imbalance, share = together(time, p0, b, sigma, kappa, imbalance, share)
    limit = _limit(b, sigma, kappa)
    learned = share * limit
    waits = p0 < learned
    target, start = (jnp.where(waits, x, y) for x, y in ((learned, 1.0), (p0, 0.5)))
    seconds = _time(target, start, jnp.where(waits, b, 1.0), sigma, kappa, imbalance)
    return jnp.sum((limit > 0) & jnp.where(waits, seconds <= time, True), axis=-1)


def two_layer_imbalance(time: ArrayLike, imbalance: ArrayLike, weight_decay: ArrayLike = 0.0) -> Float[Array, "..."]:
    r"""What the two layers' Gram matrices on the hidden space differ by, under gradient flow.

    .. math:: D = W_1W_1^\top - W_2^\top W_2, \qquad D(t) = D(0)\,e^{-4\lambda t}

    Args:
        time: t, zero or positive. Shape (...).
        imbalance: D(0), or its eigenvalue sigma_1^2 - sigma_2^2. Shape (...).
        weight_decay: lambda of lambda (|W1|_F^2 + |W2|_F^2), zero or positive. Shape (...).

    Returns:
        D(t). Shape: the arguments, broadcast.

    Valid: any loss of W2 W1, of any minibatch, any start, aligned or not: a gradient never changes D, steps of size eta
        change it by O(eta).
    Raises: ValueError for a negative time or decay, or an infinite imbalance (concrete values only).
    Source: Jing et al. (2022) without decay; derived here with it.
    Checked: Runge-Kutta; simulation `two_layer_minibatch`, order in eta.
    """
    nonnegative(time=time, weight_decay=weight_decay)
    finite(imbalance=imbalance)
    time, imbalance, weight_decay = together(time, imbalance, weight_decay)
    return imbalance * jnp.exp(-4 * weight_decay * time)


def representation_strength(p: ArrayLike, imbalance: ArrayLike = 0.0) -> Float[Array, "..."]:
    r"""Singular value of the first layer alone, the encoder before its projector, on a mode of the product.

    .. math:: \sigma_1^2 = \tfrac12\big[\delta + \sqrt{\delta^2 + 4p^2}\big], \qquad
        \sigma_1 = \sqrt p \quad (\delta = 0)

    The logarithms of a balanced representation's singular values are half as spread as those of the embedding's.

    Args:
        p: Singular value of W2 W1, zero or positive. Shape (...).
        imbalance: delta = sigma_1^2 - sigma_2^2, of any sign. Shape (...).

    Returns:
        sigma_1. Shape: the arguments, broadcast.

    Valid: aligned layers, with and without decay.
    Raises: ValueError for a negative p or an infinite imbalance (concrete values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: sigma_1 sigma_2 = p; simulation `two_layer`.
    """
    nonnegative(p=p)
    finite(imbalance=imbalance)
    p, imbalance = together(p, imbalance)
    return safe_sqrt(positive_root(imbalance, p**2))


def _check(p0, b, sigma, kappa, imbalance):
    positive(p0=p0, sigma=sigma, kappa=kappa)
    finite(b=b, imbalance=imbalance)
    if not traced(b):
        require(np.asarray(b) != 0, "b", "different from 0", b)


def _limit(b, sigma, kappa):
    """p_inf; 0 where b is not positive."""
    return safe_sqrt(b / (2 * kappa)) / sigma


def _time(p, p0, b, sigma, kappa, imbalance):
    a = jnp.abs(imbalance) / 2
    square = b / (2 * kappa * sigma**2)

    def clock(p):
        return _saturation(a, square, p) - _climb(a, p)

    return (clock(p) - clock(p0)) / (4 * b)


def _climb(a, p):
    """asinh(a / p) / a, whose limit at a = 0 is 1 / p."""
    x = a / p
    small = x < 1e-4
    far = jnp.where(small, 1.0, x)
    return jnp.where(small, 1 - x**2 / 6, jnp.arcsinh(far) / far) / p


def _saturation(a, square, p):
    """artanh(r / R) / R, continued to r > R and to R^2 < 0."""
    r, R2 = jnp.sqrt(a**2 + p**2), a**2 + square
    y = R2 / r**2
    small = jnp.abs(y) < 1e-4
    R = jnp.sqrt(jnp.where(small, 1.0, jnp.abs(R2)))
    gap = jnp.where(small | (R2 < 0), 1.0, jnp.abs(square - p**2))
    far = jnp.where(R2 > 0, jnp.log((R + r) / jnp.sqrt(gap)), jnp.arctan(R / r)) / R
    return jnp.where(small, (1 + y / 3 + y**2 / 5) / r, far)
