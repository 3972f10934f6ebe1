"""Decisions for practitioners: how much of the target the features hold, and what to do with them."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from theory.arguments import integer, require, together, traced
from theory.roots import safe_sqrt
from theory.transfer.fine_tuning import fine_tuning_transferability
from theory.transfer.linear_transfer import (
    linear_transfer_risk_finite,
    tuned_linear_transfer_ridge,
)
from theory.transfer.scratch import scratch_risk_finite, tuned_scratch_risk

CHOICES = ("train from scratch", "linear probe", "fine-tune")


class Recommendation(NamedTuple):
    """Predicted risks of the three ways to learn the target, in units of y^2, and the least."""

    scratch: Float[Array, "..."]
    probe: Float[Array, "..."]
    fine_tune: Float[Array, "..."]
    choice: Int[Array, "..."]

    @property
    def name(self) -> np.ndarray:
        """The choices in words."""
        return np.array(CHOICES)[np.asarray(self.choice)]


def recommend(
    n: ArrayLike,
    d: ArrayLike,
    sigma: ArrayLike,
    theta: ArrayLike,
    source_norm: ArrayLike = 1,
    target_norm: ArrayLike = 1,
    depth: ArrayLike = 2,
    tuned: bool = False,
) -> Recommendation:
    r"""Recommendation whether to train from scratch, probe linearly, or fine-tune.

    .. math:: \arg\min\ \{\mathbb E R_{sc},\ \mathbb E R_{lt},\
        \mathbb E R_{sc} - \mathcal T_{ft}(n/d)\}

    Args:
        n: Number of samples, a whole number from 1. Shape (...).
        d: Dimension, a whole number from 2. Shape (...).
        sigma: Standard deviation of the label noise, in units of y. Shape (...).
        theta: Angle between source and target, in radians, from 0 to pi. Shape (...).
        source_norm: B = |beta_s|, positive, in units of y. Shape (...).
        target_norm: b = |beta_t|, positive, in units of y. Shape (...).
        depth: Number L of layers, from 1, or infinity. Shape (...).
        tuned: Whether scratch training and the probe use their best ridge. Fine-tuning always runs
            to convergence.

    Returns:
        The three predicted risks, in units of y^2, and `choice`: 0, 1, 2 for the `CHOICES`, which
        `name` spells out. Of equal risks the first is chosen. Shapes: broadcast.

    Valid: scratch and probe exact in mean at every size (tuned scratch up to O(1/d)); fine-tuning
        exact for L = 1 and up to O(1/d) otherwise.
    Raises: ValueError as the risks themselves.
    Source: derived here; arXiv:2410.08194 for the three ways.
    Checked: each risk against its own function, the choice on both sides of the boundaries.
    """
    integer(1, n=n)
    integer(2, d=d)
    n, d, sigma, theta, B, b = together(n, d, sigma, theta, source_norm, target_norm)
    scratch = scratch_risk_finite(n, d, sigma, b)
    fine_tune = scratch - fine_tuning_transferability(n / d, theta, sigma, B, b, depth)
    ridge = 0
    if tuned:
        scratch = tuned_scratch_risk(n / d, sigma, b)
        ridge = tuned_linear_transfer_ridge(n, theta, sigma, 1, b)
    probe = linear_transfer_risk_finite(n, theta, sigma, ridge, 1, b)
    scratch, probe, fine_tune = together(scratch, probe, fine_tune)
    choice = jnp.argmin(jnp.stack([scratch, probe, fine_tune]), axis=0)
    return Recommendation(scratch, probe, fine_tune, choice)


class Overlap(NamedTuple):
    """Overlap of a target with learned features, estimated from data.

    Squared norms are unbiased, so they may be slightly negative; errors are one standard deviation.
    """

    cosine: Float[Array, ""]
    cosine_interval: tuple[Float[Array, ""], Float[Array, ""]]
    theta: Float[Array, ""]
    theta_interval: tuple[Float[Array, ""], Float[Array, ""]]
    inside: Float[Array, ""]
    inside_error: Float[Array, ""]
    outside: Float[Array, ""]
    outside_error: Float[Array, ""]
    noise: Float[Array, ""]


def estimate_overlap(
    features: ArrayLike,
    X: ArrayLike,
    y: ArrayLike,
    confidence: float = 0.95,
    rank: int | None = None,
) -> Overlap:
    r"""Estimate of how much of a target lies in the span of learned linear features.

    A probe on the r features, :math:`\hat c = (Z^\top Z)^{-1} Z^\top y`, Z = X V, sees
    :math:`\iota = |P\beta_t|^2` and, in its m = n - r residuals e, only the sum
    :math:`\tau^2 = \rho + \sigma^2` of what the features miss and of the label noise. The inputs
    separate these two: the residuals are a fresh regression on the p = d - r directions outside,
    in which m may be far below p.

    .. math:: \hat\tau^2 = \frac{|e|^2}m, \qquad
        \hat\iota = |\hat c|^2 - \hat\tau^2\, \mathrm{tr} (Z^\top Z)^{-1}, \qquad
        \hat\rho = \frac{|X_\perp^\top e|^2 - p |e|^2}{m (m + 1)}, \qquad
        \hat\sigma^2 = \hat\tau^2 - \hat\rho

    .. math:: \cos^2\theta = \frac\iota{\iota + \rho}, \quad \text{with the interval of all ratios }
        \frac\iota\rho \text{ for which } |\hat\iota \rho - \hat\rho \iota| \le
        z \sqrt{V_\iota \rho^2 + V_\rho \iota^2}

    Here :math:`V_\rho` is the exact variance of :math:`\hat\rho` and :math:`X_\perp^\top` the part
    of the rotated inputs outside the features.

    Args:
        features: W; its columns span the features. One column is taken as the source itself,
            and the angle then runs to pi. Shape (d, r).
        X: Target inputs. Shape (n, d).
        y: Target labels. Shape (n,).
        confidence: Nominal coverage of the intervals, between 0 and 1.
        rank: Number of leading singular directions of `features` to keep; by default all that are
            not zero to rounding.

    Returns:
        Cosine and angle (radians) between target and features with intervals, `inside` = iota and
        `outside` = rho (units of y^2) with standard errors, `noise` = sigma (units of y). The
        interval is all of [0, 1] where n is too small to tell.

    Valid: inputs x ~ N(0, I_d), noise Gaussian (whiten the inputs first); the standard error of
        rho is about sqrt(2 d) (rho + sigma^2) / n, so n of order sqrt(d) is enough to start.
        Interval: Fieller's, Gaussian approximation; at 95 % it covers 96 to 99 % from n = 30.
    Raises: ValueError if shapes do not match, the confidence is not in (0, 1), features are zero or
        all of R^d, or n < r + 3.
    Source: derived here; Dicker (2014) for the variance of a regression with n < d; Fieller (1954).
    Checked: Monte Carlo: means, variances and coverage, for n below and above d, r = 1 and more.
    """
    V = _basis(features, rank)
    X, y = (jnp.asarray(value, dtype=V.dtype) for value in (X, y))
    if X.ndim != 2 or y.shape != X.shape[:1] or X.shape[1] != V.shape[0]:
        raise ValueError(
            "`features`, `X` and `y` must have shapes (d, r), (n, d) and (n,), "
            f"but got {jnp.shape(features)}, {X.shape} and {y.shape}."
        )
    require(0 < confidence < 1, "confidence", "between 0 and 1", confidence)
    (d, r), n = V.shape, X.shape[0]
    require(r < d, "features", f"of rank below the dimension {d}", r)
    require(n >= r + 3, "n", f"at least the features' rank plus 3, {r + 3}", n)
    m, p = n - r, d - r

    Z = X @ V
    inverse = jnp.linalg.inv(Z.T @ Z)
    coefficients = inverse @ (Z.T @ y)
    residuals = y - Z @ coefficients
    seen = residuals @ (X - Z @ V.T)
    total = jnp.sum(residuals**2) / m
    inside = jnp.sum(coefficients**2) - total * jnp.trace(inverse)
    outside = (jnp.sum(seen**2) - p * m * total) / (m * (m + 1))

    inside_variance = _inside_variance(coefficients, inverse, total, m)

    def outside_variance(rho):
        return _outside_variance(jnp.clip(rho, 0.0, total), total, m, p)

    ratio = jnp.maximum(inside, 0.0), jnp.maximum(outside, 0.0)
    cosine = _cosine(*ratio)
    z = ndtri((1 + jnp.asarray(confidence, dtype=V.dtype)) / 2)
    low, high = _fieller(inside, outside, inside_variance, outside_variance, z)
    if jnp.shape(features)[1] == 1:
        source = jnp.asarray(features, dtype=V.dtype)[:, 0]
        sign = jnp.sign(coefficients[0] * (source @ V[:, 0]))
        cosine = sign * cosine
        low, high = (
            jnp.where(sign > 0, jnp.where(low > 0, low, -high), -high),
            jnp.where(sign > 0, high, jnp.where(low > 0, -low, high)),
        )
    return Overlap(
        cosine=cosine,
        cosine_interval=(low, high),
        theta=jnp.arccos(cosine),
        theta_interval=(jnp.arccos(high), jnp.arccos(low)),
        inside=inside,
        inside_error=jnp.sqrt(inside_variance),
        outside=outside,
        outside_error=jnp.sqrt(outside_variance(outside)),
        noise=safe_sqrt(total - outside),
    )


def _basis(features, rank):
    """Orthonormal basis of the leading singular directions of the features."""
    if jnp.ndim(features) != 2:
        raise ValueError(f"`features` must be a matrix, but got shape {jnp.shape(features)}.")
    if rank is None:
        rank = min(jnp.shape(features))
        if not traced(features):
            rank = np.linalg.matrix_rank(np.asarray(features))
            require(rank > 0, "features", "different from 0", 0)
    integer(1, rank=rank)
    (features,) = together(features)
    V, _, _ = jnp.linalg.svd(features, full_matrices=False)
    return V[:, : int(rank)]


def _inside_variance(coefficients, inverse, total, m):
    """Variance of |c_hat|^2 - tau_hat^2 tr(Z^T Z)^-1, given Z."""
    signal = 4 * total * (coefficients @ inverse @ coefficients)
    bias = 4 * total**2 * jnp.sum(inverse**2)  # the mean of that term's noise part
    own = 2 * total**2 * jnp.sum(inverse**2)
    of_total = 2 * total**2 / m * jnp.trace(inverse) ** 2
    return jnp.maximum(signal - bias, 0.0) + own + of_total


def _outside_variance(outside, total, m, p):
    r"""Exact variance of rho_hat at rho and tau^2 = rho + sigma^2.

    Given y, X^T y is Gaussian: m (m + 1) rho_hat = rho (s^2 - s) + 2 sqrt(rho) sigma s^{3/2} g
    + sigma^2 s (g^2 - 1) + tau^2 s (chi^2_{p-1} - p + 1), s ~ chi^2_m, whose terms are
    uncorrelated.
    """
    noise = total - outside
    second = m * (m + 2)
    third = second * (m + 4)
    fourth = third * (m + 6)
    variance = outside**2 * (fourth - 2 * third + second - (m * (m + 1)) ** 2)
    variance = variance + 4 * outside * noise * third
    variance = variance + 2 * second * (noise**2 + (p - 1) * total**2)
    return variance / (m * (m + 1)) ** 2


def _fieller(inside, outside, inside_variance, outside_variance, z):
    """Interval of the cosine: an arc around the estimate, in units of the standard errors.

    The variance of rho_hat grows with rho, so `outside_variance` is a function: the lower end takes it
    at its own rho, iota_hat tan(theta)^2, found by increasing iterations; the upper one at rho_hat.
    """
    a, quarter = jnp.sqrt(inside_variance), jnp.pi / 2

    def end(side, whole, rho):
        b = jnp.sqrt(outside_variance(rho))
        x, y = inside / a, outside / b
        radius = jnp.hypot(x, y)
        arc = jnp.arctan2(x, y) + side * jnp.arcsin(jnp.minimum(z / radius, 1.0))
        arc = jnp.where(radius > z, jnp.clip(arc, 0.0, quarter), whole)
        return a * jnp.sin(arc), b * jnp.sin(quarter - arc)

    rho = outside
    for _ in range(8):
        iota_share, rho_share = end(-1, 0.0, rho)
        rho = jnp.maximum(inside, 0.0) * rho_share / jnp.maximum(iota_share, 1e-6 * a)
    return _cosine(iota_share, rho_share), _cosine(*end(1, quarter, outside))


def _cosine(inside, outside):
    """sqrt(inside / (inside + outside)), nan where both are 0."""
    return safe_sqrt(jnp.clip(inside / (inside + outside), 0.0, 1.0))
