"""Fine-tuning two layers from any rank-one start: a new head, a rescaled one, or a probed one."""

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import (
    angle,
    finite,
    nonnegative,
    positive,
    require,
    together,
    traced,
    with_one_dtype,
)
from theory.roots import positive_root, safe_sqrt
from theory.transfer.fine_tuning import saved_risk, seen_and_unseen, split
from theory.transfer.scratch import scratch_risk


def fine_tuning_head_scale(
    min_norm2: ArrayLike, orthogonal: ArrayLike, feature_scale: ArrayLike, head: ArrayLike
) -> Float[Array, "..."]:
    r"""Head at which fine-tuning of two layers ends from any rank-one start, for one data set.

    .. math:: W_1(0) = s\, \hat u v^\top, \quad w_2(0) = a_0 v: \qquad
        a^2 = \tfrac12 \big[m + \sqrt{m^2 + 4g}\big], \quad m = a_0^2 - s^2 (1 - h), \qquad
        \hat\beta = \hat\beta_{mn} + a s P_\perp \hat u

    Args:
        min_norm2: g = |beta_mn|^2 of the minimum-norm interpolator, in units of y^2. Shape (...).
        orthogonal: h = |P_perp u|^2, from 0 to 1; dimensionless. Shape (...).
        feature_scale: s, positive, in units of sqrt(y). Shape (...).
        head: a_0, zero or positive, in units of sqrt(y). Shape (...).

    Returns:
        The final head a >= 0, in units of sqrt(y). Shape: the arguments, broadcast.

    Valid: exact for every data set on the branch a > 0: always if a_0 >= s, and whenever the start
        fits the data better than 0 does; for a_0 = 0, -a if u X^T y < 0.
    Raises: ValueError for g, h or a_0 < 0, or s not positive and finite (concrete values only).
    Source: derived here; a_0 = s = sqrt(B) is `fine_tuning_endpoint_scale` at L = 2.
    Checked: flow of the real network (1e-7), the case a_0 = s.
    """
    nonnegative(min_norm2=min_norm2, orthogonal=orthogonal, head=head)
    positive(feature_scale=feature_scale)
    finite(orthogonal=orthogonal, feature_scale=feature_scale, head=head)
    g, h, s, a0 = together(min_norm2, orthogonal, feature_scale, head)
    bounded = jnp.isfinite(g)
    a2 = positive_root(a0**2 - s**2 * (1 - h), jnp.where(bounded, g, 1.0))
    return jnp.where(bounded, safe_sqrt(a2), jnp.inf)


def fine_tuning_head_endpoint(
    X: ArrayLike, y: ArrayLike, source: ArrayLike, feature_scale: ArrayLike, head: ArrayLike
) -> Float[Array, "..."]:
    r"""Regression vector at which fine-tuning of two layers ends from any rank-one start.

    .. math:: \hat\beta = X^+ y + a s\, P_\perp \hat u

    Args:
        X: Inputs, fewer rows than columns, of full rank. Shape (n, d).
        y: Labels. Shape (n,).
        source: Any vector along u, not 0. Shape (d,).
        feature_scale: s of W_1(0) = s u v^T, positive, in units of sqrt(y). A number.
        head: a_0 of w_2(0) = a_0 v, zero or positive, in units of sqrt(y): 0 is a new head,
            b cos(theta) / s is linear probing before fine-tuning. A number.

    Returns:
        The regression vector, in units of y; nan where theory leaves the final head's sign open:
        0 < a_0 < s and a start that fits the data no better than 0. Shape (d,).

    Valid: exact for gradient flow; a is `fine_tuning_head_scale` with the sign stated there.
    Raises: ValueError if shapes do not match, n >= d, X lacks full rank, source = 0, s <= 0 or
        a_0 < 0 (concrete values only).
    Source: derived here: a cannot change sign without passing through beta = 0, so never once the
        loss is below that of beta = 0, and never if a^2 - |W_1|^2, which is conserved, is >= 0.
    Checked: flow of the real network (1e-7) for heads below, at and above s, new heads of both
        signs.
    """
    nonnegative(head=head)
    positive(feature_scale=feature_scale)
    min_norm, unseen, norm = split(X, y, source)
    X, y, source = with_one_dtype(X, y, source)
    s, a0 = (jnp.asarray(value, dtype=unseen.dtype) for value in (feature_scale, head))
    seen = X @ (source / norm)
    correlation = seen @ y
    fits_better = a0 * s * (seen @ seen) < 2 * correlation
    sign = jnp.where(a0 == 0, jnp.sign(correlation), jnp.where((a0 >= s) | fits_better, 1.0, jnp.nan))
    g, h = jnp.sum(min_norm**2), jnp.sum((unseen / norm) ** 2)
    return min_norm + sign * fine_tuning_head_scale(g, h, s, a0) * s * unseen / norm


def fine_tuning_head_risk(
    gamma: ArrayLike,
    theta: ArrayLike,
    sigma: ArrayLike,
    feature_scale: ArrayLike,
    head: ArrayLike,
    target_norm: ArrayLike = 1,
) -> Float[Array, "..."]:
    r"""Excess risk of fine-tuning two layers from any rank-one start: new head, rescaled, or probed.

    .. math:: R = (1 - \gamma)(b^2 + t^2 - 2 t b \cos\theta) + \frac{\sigma^2\gamma}{1 - \gamma},
        \qquad t = a s \quad (\gamma < 1), \qquad R_{sc} \quad (\gamma > 1)

    The best t is :math:`b \cos\theta`; a probed head, :math:`a_0 = b \cos\theta / s`, reaches it
    as s -> 0, and then transfer is never negative.

    Args:
        gamma: Samples per dimension n/d, positive; dimensionless. Shape (...).
        theta: Angle between source and target, in radians, from 0 to pi; to pi/2 where a_0 < s,
            since the final head may change sign beyond. Shape (...).
        sigma: Standard deviation of the label noise, in units of y. Shape (...).
        feature_scale: s, scale of the first layer, positive, in units of sqrt(y). Shape (...).
        head: a_0, the head before fine-tuning, zero or positive, in units of sqrt(y). Shape (...).
        target_norm: b = |beta_t|, positive, in units of y. Shape (...).

    Returns:
        |beta_hat - beta_t|^2, in units of y^2; inf at gamma = 1 with noise. Shape: broadcast.

    Valid: n, d -> infinity at fixed gamma, error O(1/d).
    Raises: ValueError for theta outside its range, a_0 < 0, s <= 0, and as `scratch_risk`.
    Source: derived here; a_0 = s = sqrt(B) is `fine_tuning_risk` at depth 2.
    Checked: reference values, the case a_0 = s, the probed head's limit.
    """
    positive(gamma=gamma, feature_scale=feature_scale)
    nonnegative(head=head)
    finite(feature_scale=feature_scale, head=head)
    angle(theta=theta)
    if not traced(theta, head, feature_scale):
        ok = np.less_equal(theta, np.pi / 2 * (1 + 1e-6)) | np.greater_equal(head, feature_scale)
        require(ok, "theta", "at most pi/2 where `head` is below `feature_scale`", theta)
    scratch = scratch_risk(gamma, sigma, target_norm)
    gamma, theta, sigma, s, a0, b, scratch = together(gamma, theta, sigma, feature_scale, head, target_norm, scratch)
    under = gamma < 1
    gamma = jnp.where(under, gamma, 0.5)
    g, h = seen_and_unseen(gamma, sigma, b)
    t = fine_tuning_head_scale(g, h, s, a0) * s
    return scratch - jnp.where(under, saved_risk(gamma, t, b, jnp.cos(theta)), 0.0)
