"""Softmax attention over Gaussian logits: how much two rows overlap."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import require, together, traced

METHODS = ("exact", "annealed", "large_n", "expansion")
# Nodes of ln t and of a standard Gaussian. The trapezoid sums converge exponentially; at n <= 4096 and s <= 5 they
# agree with finer grids to 1e-11 absolute.
TIMES, NODES, REACH = 360, 121, 8.5


class SoftmaxOverlaps(NamedTuple):
    """Overlaps of two softmax rows A and B, and what their gradients need."""

    Q: Float[Array, "..."]
    P: Float[Array, "..."]
    T1: Float[Array, "..."]
    T2: Float[Array, "..."]


def softmax_overlaps(n: ArrayLike, s: ArrayLike, r: ArrayLike, method: str = "exact") -> SoftmaxOverlaps:
    r"""Mean overlaps of two softmax rows over n Gaussian logits.

    .. math:: Q = \mathbb E \sum_j A_j^2, \quad P = \mathbb E \sum_j A_j B_j, \quad
        T_1 = \mathbb E\Big[\sum A^2 - 2\sum A^3 + \big(\sum A^2\big)^2\Big], \quad
        T_2 = \mathbb E\Big[\sum AB - \sum A^2B - \sum AB^2 + \big(\sum AB\big)^2\Big]

    "exact", from :math:`Z^{-m} = \int t^{m-1} e^{-tZ} dt / \Gamma(m)` and the Laplace transforms of a lognormal
    w, :math:`\varphi_k(t) = \mathbb E\,w^k e^{-tw}` and
    :math:`\varphi_{ab}(t, \tau) = \mathbb E\,w^a w'^b e^{-tw - \tau w'}`:

    .. math:: Q = n\int t\,\varphi_2\varphi_0^{n-1} dt, \qquad
        P = n\iint \varphi_{11}\varphi_{00}^{n-1} dt\,d\tau, \qquad \ldots

    "annealed", the ratio of averages, right for :math:`e^{2s^2} \ll n`:

    .. math:: Q = \frac1{1 + (n-1)e^{-s^2}}, \quad P = \frac1{1 + (n-1)e^{-rs^2}}, \quad
        T_1 = Q(1-Q), \quad T_2 = P(1-P)

    "expansion", to second order in 1/n with :math:`E = e^{s^2}`, :math:`R = e^{rs^2}` (T1 and T2 to first order):

    .. math:: Q = \frac En\Big[1 - \frac{2E^2 - 3E + 1}n\Big], \qquad
        P = \frac Rn\Big[1 + \frac{R - 1 + 2(E-1) - 2(ER-1)}n\Big]

    "large_n": all zero.

    Args:
        n: Number of logits, a whole number from 1, or infinity. Shape (...).
        s: Standard deviation of the logits, zero or positive; dimensionless. Shape (...).
        r: Correlation between the rows' logits of one column, from 0 to 1. Shape (...).
        method: One of the above.

    Returns:
        (Q, P, T1, T2), each from 0 to 1. Shapes: broadcast.

    Valid: "exact" at every n; to 1e-11 absolute up to s = 5 and n = 4096. At s = 0: Q = P = 1/n, T1 = T2 = (1 - 1/n)/n.
    Raises: ValueError for an argument out of range or an unknown method.
    Source: annealed: arXiv:2403.02579; the others derived here.
    Checked: Monte Carlo over n = 16 ... 256, s = 0.5 ... 5 (`sims.signal_propagation.softmax_overlaps`), the sum
        rule E sum A = 1, s = 0, n = 1, r = 1, grids twice as fine.
    """
    if method not in METHODS:
        raise ValueError(f"`method` must be one of {', '.join(METHODS)}, but got {method}.")
    for name, value, ok, words in (
        ("n", n, lambda x: (x >= 1) & (x == np.floor(x)), "a whole number not below 1, or infinity"),
        ("s", s, lambda x: (x >= 0) & np.isfinite(x), "zero or positive, and finite"),
        ("r", r, lambda x: (x >= 0) & (x <= 1), "between 0 and 1"),
    ):
        if not traced(value):
            require(ok(np.asarray(value)), name, words, value)
    n, s, r = together(n, s, r)
    return overlaps_of_logits(n, s**2 * r, s**2 * (1 - r), method)


def overlaps_of_logits(n: Array, shared: Array, own: Array, method: str) -> SoftmaxOverlaps:
    """`softmax_overlaps` from the variances of the two rows' shared and own part of a logit."""
    # Rounding may have made a variance negative; unlike `maximum`, this keeps the slope at zero.
    shared, own = (jnp.where(x >= 0, x, 0.0) for x in (shared, own))
    if method == "large_n":
        return SoftmaxOverlaps(*(jnp.zeros_like(n),) * 4)
    if method == "exact":
        return _exact(n, _root(shared), _root(own))
    E, R = jnp.exp(shared + own), jnp.exp(shared)
    if method == "annealed":
        Q, P = 1 / (1 + (n - 1) / E), 1 / (1 + (n - 1) / R)
        return SoftmaxOverlaps(Q, P, Q * (1 - Q), P * (1 - P))
    Q = E / n * (1 - (2 * E**2 - 3 * E + 1) / n)
    P = R / n * (1 + (R - 1 + 2 * (E - 1) - 2 * (E * R - 1)) / n)
    return SoftmaxOverlaps(Q, P, E / n, R / n)


def _root(variance):
    """The standard deviation, at zero replaced by one so small that only its derivative notices.

    The overlaps are even in the standard deviation, so their slope in the variance is finite at zero.
    """
    least = jnp.maximum(variance, jnp.finfo(variance.dtype).eps)
    return jnp.sqrt(variance + jax.lax.stop_gradient(least - variance))


def _exact(n, shared, own):
    finite = jnp.isfinite(n) & (n > 1)
    count = jnp.where(finite, n, 2.0)
    shape = n.shape
    values = jax.lax.map(lambda x: _overlaps(*x), (count.ravel(), shared.ravel(), own.ravel()))
    limits = (jnp.where(n == 1, 1.0, 0.0).astype(n.dtype),) * 2 + (jnp.zeros_like(n),) * 2
    return SoftmaxOverlaps(
        *(jnp.where(finite, v.reshape(shape), limit) for v, limit in zip(values, limits, strict=True))
    )


def _overlaps(n, shared, own):
    """The exact overlaps of one (n, shared, own). Sums over x = ln t, whose Jacobian makes every t^k w^k a (tw)^k."""
    dtype = n.dtype
    z, weights = _gaussian(dtype)
    s = jnp.sqrt(shared**2 + own**2)
    low, high = -jnp.log(n) - 9 * s - 40, 9 * s + 6
    step = (high - low) / (TIMES - 1)
    t = jnp.exp(low + step * jnp.arange(TIMES, dtype=dtype))

    def laplace(tw, k):
        """E of (tw)^k e^{-tw} over the last axis."""
        tw = jnp.minimum(tw, 1e60 if dtype == jnp.float64 else 1e9)
        return (tw**k * jnp.exp(-tw)) @ weights

    of_own = t[:, None, None] * jnp.exp(shared * z)[None, :, None] * jnp.exp(own * z)[None, None, :]
    given_shared = [laplace(of_own, k) for k in range(3)]

    def one_row(k):
        return laplace(t[:, None] * jnp.exp(s * z)[None, :], k)

    def two_rows(a, b):
        return (given_shared[a] * weights[None, :]) @ given_shared[b].T

    def power(phi, exponent):
        return jnp.exp(exponent * jnp.log(jnp.maximum(phi, jnp.finfo(dtype).tiny)))

    nobody, nobodies = one_row(0), two_rows(0, 0)
    single, pair = power(nobody, n - 1) * step, power(nobodies, n - 1) * step**2
    two, twos = power(nobody, n - 2) * step, power(nobodies, n - 2) * step**2

    A2 = n * jnp.sum(one_row(2) * single)
    A3 = n / 2 * jnp.sum(one_row(3) * single)
    A2_squared = n / 6 * jnp.sum(one_row(4) * single) + n * (n - 1) / 6 * jnp.sum(one_row(2) ** 2 * two)
    AB = two_rows(1, 1)
    P = n * jnp.sum(AB * pair)
    A2B = n * jnp.sum(two_rows(2, 1) * pair)
    AB_squared = n * jnp.sum(two_rows(2, 2) * pair) + n * (n - 1) * jnp.sum(AB**2 * twos)
    return A2, P, A2 - 2 * A3 + A2_squared, P - 2 * A2B + AB_squared


def _gaussian(dtype):
    nodes = np.linspace(-REACH, REACH, NODES)
    weights = np.exp(-(nodes**2) / 2)
    return jnp.asarray(nodes, dtype), jnp.asarray(weights / weights.sum(), dtype)


def condensed_overlap(beta: ArrayLike) -> Float[Array, "..."]:
    r"""Overlap Q of a softmax row in the large-n limit with logits growing as the root of ln n.

    .. math:: Q \to \max(0,\ 1 - \sqrt2 / \beta), \qquad s = \beta\sqrt{\ln n}

    Args:
        beta: Inverse temperature, positive; dimensionless. Shape (...).

    Returns:
        Q; zero below the condensation at beta = sqrt 2. Shape (...).

    Valid: n -> infinity; corrections only O(1 / ln n).
    Raises: ValueError if `beta` is not positive.
    Source: the random-energy model, Derrida (1981).
    Checked: the exact overlap at n = 1e2 ... 1e12 approaches it.
    """
    if not traced(beta):
        require(np.asarray(beta) > 0, "beta", "positive", beta)
    (beta,) = together(beta)
    return jnp.maximum(0.0, 1 - jnp.sqrt(2.0).astype(beta.dtype) / beta)
