r"""InfoNCE with finitely many negatives: what N negatives change in the loss and in the strengths, to order 1/N.

The modes are those of an aligned encoder; strengths s are in units of the temperature, one along the last axis for each
mode, and modes that are collapsed may be left out.
"""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import nonnegative, positive, require, together, with_one_dtype
from theory.ssl_collapse.infonce import infonce_mode_loss, infonce_mode_strength


def negatives_dilution(s: ArrayLike) -> Float[Array, "..."]:
    r"""Mean square of a negative's share in the denominator: so many negatives are worth one.

    .. math:: \Pi = E_x\frac{E_\chi k^2}{(E_\chi k)^2} = \prod_i\frac{(1 + s_i)^{3/2}}{(1 + 3s_i)^{1/2}}, \qquad
        k = e^{-|f(x) - f(\chi)|^2 / 2\tau}

    Args:
        s: Embedding variances of the modes in units of the temperature, zero or positive. Shape (..., modes).

    Returns:
        Pi, 1 or more, growing exponentially with the number of strong modes; N negatives count as N / Pi.
        Shape (...).

    Valid: exact for Gaussian data and the similarity -|f - f'|^2 / 2 tau.
    Raises: ValueError for s < 0 (concrete values only).
    Source: derived here.
    Checked: Gauss-Hermite quadrature (1e-10).
    """
    nonnegative(s=s)
    (s,) = together(s)
    return jnp.exp(_log_dilution(s))


def _half_sum(x):
    return jnp.sum(x, axis=-1) / 2


def _log_dilution(s):
    return _half_sum(3 * jnp.log1p(s) - jnp.log1p(3 * s))


def _log_positive(x):
    """ln x, minus infinity at and below 0, with safe gradients."""
    return jnp.where(x > 0, jnp.log(jnp.where(x > 0, x, 1.0)), -jnp.inf)


def _by_order(N, order, first, log_m2, log_m3, log_m22):
    """first / N, and at order 2 with what the moments m_3, m_2^2, m_2 of a negative's share add at 1 / N^2."""
    if order == 1:
        first, N = together(first, N)
        return first / N
    infinite = jnp.isinf(log_m3)
    m3, m22, m2 = (jnp.expm1(jnp.where(infinite, 0.0, x)) for x in (log_m3, log_m22, log_m2))
    second = jnp.where(infinite, jnp.inf, m3 / 3 - 3 * m22 / 4 + m2 / 2)
    first, second, N = together(first, second, N)
    return first / N + second / N**2


def _require_order(order, rho=None):
    if order not in (1, 2):
        raise ValueError(f"`order` must be 1 or 2, but got {order}.")
    if order == 2 and rho is not None:
        raise ValueError("`order` must be 1 with the positive in the denominator, but got 2.")


def _positive_share(s, rho):
    r"""The positive's mean share in the denominator, times N: prod sqrt((1 + s) / D), and its slopes in ln s-units."""
    D = 1 + s * (1 - 2 * rho) + rho**2 * s**2 / (1 + s)
    slope = 1 - 2 * rho + rho**2 * s * (2 + s) / (1 + s) ** 2
    return jnp.exp(jnp.sum(jnp.log1p(s) - jnp.log(D), axis=-1) / 2), (1 / (1 + s) - slope / D) / 2


def _negatives(n_negatives):
    require(jnp.asarray(n_negatives) >= 1, "n_negatives", "1 or more", n_negatives)
    return n_negatives


def _correlation(rho):
    require((jnp.asarray(rho) >= 0) & (jnp.asarray(rho) <= 1), "rho", "between 0 and 1", rho)
    return rho


def finite_negatives_correction(
    s: ArrayLike, n_negatives: ArrayLike, *, rho: ArrayLike | None = None, order: int = 1
) -> Float[Array, "..."]:
    r"""Difference that a finite number of negatives makes to the loss of InfoNCE.

    .. math:: L_N - L = -\frac{\Pi - 1}{2N} + \Big[\frac1N\prod_i\sqrt{\frac{1 + s_i}{D_i}}\Big], \qquad
        D_i = 1 + s_i(1 - 2\rho_i) + \frac{\rho_i^2s_i^2}{1 + s_i}

    The bracket if the positive is in the denominator too, the prefactor of the sum staying 1/N. The next order, with
    negatives only, is

    .. math:: \frac1{N^2}\Big[\frac{E\kappa_3}3 - \frac{3E\kappa_2^2}4\Big] =
        \frac1{N^2}\Big[\frac{Em_3}3 - \frac{3Em_2^2}4 + \frac{Em_2}2 - \frac1{12}\Big], \qquad
        m_p = \frac{E_\chi k^p}{(E_\chi k)^p},

    .. math:: (Em_3)^2 = \prod_i\frac{(1 + s_i)^4}{1 + 4s_i - 3s_i^2}, \qquad
        (Em_2^2)^2 = \prod_i\frac{(1 + s_i)^5}{(1 + 2s_i)(1 + 3s_i - 2s_i^2)}

    Args:
        s: Embedding variances of the modes in units of the temperature, zero or positive. Shape (..., modes).
        n_negatives: N, 1 or more. Shape (...).
        rho: Correlation of the two views along each mode, in [0, 1], with the positive in the denominator; None
            without it. Shape (..., modes).
        order: 1, or 2 with negatives only.

    Returns:
        The difference; at order 2 infinite once an s reaches (2 + sqrt 7) / 3. Shape (...).

    Valid: N >> Pi of `negatives_dilution`, Gaussian data. The remainder is of the next order in 1/N while every s is
        below (2 + sqrt 7) / 3 = 1.55 (order 1), beyond which E m_3 is infinite and it falls more slowly.
    Raises: ValueError for s < 0, N < 1, rho outside [0, 1], another order, or order 2 with rho (concrete values only).
    Source: derived here.
    Checked: Gauss-Hermite quadrature of the moments (1e-8); simulation `sims.ssl_collapse.negatives` (order 2 after the
        first).
    """
    nonnegative(s=s)
    _require_order(order, rho)
    s, N = with_one_dtype(s, _negatives(n_negatives))
    first = -jnp.expm1(_log_dilution(s)) / 2
    if rho is not None:
        first = first + _positive_share(*together(s, _correlation(rho)))[0]
    one = jnp.log1p(s)
    log_m3 = _half_sum(4 * one - _log_positive(1 + 4 * s - 3 * s**2))
    log_m22 = _half_sum(5 * one - jnp.log1p(2 * s) - _log_positive(1 + 3 * s - 2 * s**2))
    return _by_order(N, order, first, _log_dilution(s), log_m3, log_m22)


def finite_negatives_loss(
    s: ArrayLike, q: ArrayLike, n_negatives: ArrayLike = jnp.inf, *, rho: ArrayLike | None = None
) -> Float[Array, "..."]:
    r"""Loss of an aligned encoder with N negatives.

    .. math:: L_N = \sum_i\Big[q_is_i - \tfrac12\ln(1 + s_i) - \tfrac12\frac{s_i}{1 + s_i}\Big]
        - \frac{\Pi - 1}{2N} + \Big[\frac1N\prod_i\sqrt{\frac{1 + s_i}{D_i}}\Big]

    Args:
        s: Embedding variances of the modes in units of the temperature, zero or positive. Shape (..., modes).
        q: Noise fractions as in `infonce_mode_strength`; 1 - rho at alpha = 1 without decay. Shape (..., modes).
        n_negatives: N, 1 or more; infinity is allowed. Shape (...).
        rho: Correlations, with the positive in the denominator; None without it. Shape (..., modes).

    Returns:
        The loss without constants. Shape (...).

    Valid: as `finite_negatives_correction`.
    Raises: as `finite_negatives_correction`.
    Source: derived here.
    Checked: printed values; through its two parts.
    """
    s, q = together(s, q)
    return jnp.sum(infonce_mode_loss(s, q), axis=-1) + finite_negatives_correction(s, n_negatives, rho=rho)


def finite_negatives_shift(
    q: ArrayLike, n_negatives: ArrayLike, *, rho: ArrayLike | None = None
) -> Float[Array, "... modes"]:
    r"""Shift of the strengths at the minimum of InfoNCE by a finite number of negatives.

    .. math:: \delta s_i = \frac1N\Big[\frac\Pi2\frac{3s_i}{(1 + s_i)(1 + 3s_i)}
        - \Big(\partial_{s_i}\prod_j\sqrt{\tfrac{1 + s_j}{D_j}}\Big)\Big]\Big/\Big(\frac{u_i^2}2 + u_i^3\Big), \qquad
        u_i = \frac1{1 + s_i}

    The inner bracket if the positive is in the denominator too.

    Args:
        q: Noise fractions of the modes that the encoder has outputs for, positive. Shape (..., modes).
        n_negatives: N, 1 or more. Shape (...).
        rho: Correlations, with the positive in the denominator; None without it. Shape (..., modes).

    Returns:
        Shift of `infonce_mode_strength(q)`, positive without the positive; 0 where q >= 1, for a collapsed mode stays
        collapsed. Shape (..., modes).

    Valid: N >> Pi; with the positive in the denominator also |1 - q| >> 1/N, for it moves the threshold itself.
    Raises: ValueError for q <= 0, N < 1 or rho outside [0, 1] (concrete values only).
    Source: derived here.
    Checked: printed values, the minimum of `finite_negatives_loss` at large N; simulation `sims.ssl_collapse.strength`
        (order 1, and 2 after it).
    """
    positive(q=q)
    q, N = with_one_dtype(q, _negatives(n_negatives))
    s = infonce_mode_strength(q)
    if rho is not None:
        s, rho = together(s, _correlation(rho))
    u = 1 / (1 + s)
    push = negatives_dilution(s)[..., None] * 1.5 * s * u / (1 + 3 * s)
    if rho is not None:
        share, slopes = _positive_share(s, rho)
        push = push - share[..., None] * slopes
    shift, N = together(jnp.where(s > 0, push / (u**2 / 2 + u**3), 0.0), N[..., None])
    return shift / N


def negatives_needed(q: ArrayLike, tolerance: ArrayLike) -> Float[Array, "..."]:
    r"""Number of negatives that bring every strength within a relative tolerance of its limit.

    .. math:: N = \max_i\frac{\delta s_i|_{N=1}}{s_i\,\epsilon}

    Args:
        q: Noise fractions of the modes, positive. Shape (..., modes).
        tolerance: Relative error epsilon of the strengths, positive. Shape (...).

    Returns:
        N, exponential in the number of strong modes; 0 if all are collapsed. Shape (...).

    Valid: tolerance << 1, from the first order in 1/N; negatives only.
    Raises: ValueError for q <= 0 or a tolerance that is not positive (concrete values only).
    Source: derived here.
    Checked: against `finite_negatives_shift`; its growth with the number of modes.
    """
    positive(tolerance=tolerance)
    q, tolerance = with_one_dtype(q, tolerance)
    s = infonce_mode_strength(q)
    relative = finite_negatives_shift(q, 1.0) / jnp.where(s > 0, s, 1.0)
    largest, tolerance = together(jnp.max(relative, axis=-1), tolerance)
    return largest / tolerance


def finite_negatives_dot_correction(s: ArrayLike, n_negatives: ArrayLike, *, order: int = 1) -> Float[Array, "..."]:
    r"""Difference that a finite number of negatives makes to InfoNCE with dot products.

    .. math:: L_N - L = -\frac1{2N}\Big[\prod_i(1 - 2s_i^2)^{-1/2} - 1\Big]
        + \frac1{N^2}\Big[\frac{Em_3}3 - \frac{3Em_2^2}4 + \frac{Em_2}2 - \frac1{12}\Big]

    .. math:: Em_3 = \prod_i(1 - 6s_i^2)^{-1/2}, \qquad Em_2^2 = \prod_i(1 - 4s_i^2)^{-1/2}, \qquad
        Em_2 = \prod_i(1 - 2s_i^2)^{-1/2}

    Args:
        s: Eigenvalues of S / tau, zero or positive. Shape (..., modes).
        n_negatives: N, 1 or more. Shape (...).
        order: 1, or 2 for the second bracket.

    Returns:
        The difference. At order 1 minus infinity once an eigenvalue reaches 1/sqrt 2: the limit is then not reached as
        1/N; at order 2 infinite once one reaches 1/sqrt 6. Shape (...).

    Valid: Gaussian data, the positive not in the denominator. The remainder is of the next order in 1/N while every s
        is below 1/sqrt 6 (order 1) or 1/sqrt 12 (order 2).
    Raises: ValueError for s < 0, N < 1 or another order (concrete values only).
    Source: derived here.
    Checked: Gauss-Hermite quadrature of the moments (1e-8), both sides of the edges; simulation
        `sims.ssl_collapse.negatives`.
    """
    nonnegative(s=s)
    _require_order(order)
    s, N = with_one_dtype(s, _negatives(n_negatives))
    log_m2, log_m22, log_m3 = (_half_sum(-_log_positive(1 - p * s**2)) for p in (2, 4, 6))
    infinite = jnp.isinf(log_m2)
    first = jnp.where(infinite, -jnp.inf, -jnp.expm1(jnp.where(infinite, 0.0, log_m2)) / 2)
    return _by_order(N, order, first, jnp.where(infinite, 0.0, log_m2), log_m3, log_m22)
