"""Learning the target from scratch: minimum-norm interpolation, tuned ridge, early stopping."""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import (
    depth_of_network,
    finite,
    integer,
    nonnegative,
    positive,
    together,
)
from theory.random_matrix import marchenko_pastur_mean
from theory.roots import positive_root, safe_sqrt


def noise_risk(gamma: ArrayLike, sigma: ArrayLike) -> Float[Array, "..."]:
    r"""Excess risk that label noise adds to minimum-norm least squares.

    .. math:: \sigma^2 \frac{\min(\gamma, 1)}{|1 - \gamma|}

    Args:
        gamma: Samples per dimension n/d, positive; dimensionless. Shape (...).
        sigma: Standard deviation of the label noise, in units of y. Shape (...).

    Returns:
        The risk, in units of y^2; inf at gamma = 1 unless sigma = 0. Shape: broadcast.

    Valid: n, d -> infinity at fixed gamma.
    Raises: ValueError for gamma <= 0, or sigma negative or infinite (concrete values only).
    Source: arXiv:2410.08194, the noise term of the scratch risk on both sides of gamma = 1.
    Checked: through `scratch_risk`.
    """
    positive(gamma=gamma)
    nonnegative(sigma=sigma)
    finite(sigma=sigma)
    gamma, sigma = together(gamma, sigma)
    gap = jnp.abs(1 - gamma)
    gain = jnp.where(gap > 0, jnp.minimum(gamma, 1.0) / jnp.where(gap > 0, gap, 1.0), jnp.inf)
    return _times(sigma**2, gain)


def scratch_risk(gamma: ArrayLike, sigma: ArrayLike, target_norm: ArrayLike = 1) -> Float[Array, "..."]:
    r"""Excess risk of a network trained from scratch, from small initial weights to convergence.

    .. math:: R_{sc} = \begin{cases}
        b^2 (1 - \gamma) + \sigma^2 \gamma / (1 - \gamma) & \gamma < 1 \\
        \sigma^2 / (\gamma - 1) & \gamma > 1 \end{cases}

    Args:
        gamma: Samples per dimension n/d, positive; dimensionless. Shape (...).
        sigma: Standard deviation of the label noise, in units of y. Shape (...).
        target_norm: b = |beta_t|, positive, in units of y. Shape (...).

    Returns:
        |beta_hat - beta_t|^2, in units of y^2. Shape: the arguments, broadcast.

    Valid: linear network of any depth from vanishing weights, isotropic Gaussian inputs, n and
        d -> infinity; error O(1/d) away from gamma = 1, where it is inf (0 if sigma = 0).
    Raises: ValueError for gamma <= 0, sigma < 0, or b not positive and finite (concrete values).
    Source: Tahir, Ganguli and Rotskoff (2025), arXiv:2410.08194, scratch-trained risk.
    Checked: reference value, limit of `scratch_risk_finite`, gamma -> 0, 1, inf, gradients.
    """
    positive(gamma=gamma, target_norm=target_norm)
    nonnegative(sigma=sigma)
    finite(sigma=sigma, target_norm=target_norm)
    gamma, sigma, b = together(gamma, sigma, target_norm)
    return b**2 * jnp.maximum(1 - gamma, 0.0) + noise_risk(gamma, sigma)


def scratch_risk_finite(
    n: ArrayLike, d: ArrayLike, sigma: ArrayLike, target_norm: ArrayLike = 1
) -> Float[Array, "..."]:
    r"""Mean excess risk of a network trained from scratch, exact at every size.

    .. math:: \mathbb E R_{sc} = \begin{cases}
        b^2 (1 - n/d) + \sigma^2 n / (d - n - 1) & n < d - 1 \\
        \sigma^2 d / (n - d - 1) & n > d + 1 \end{cases}

    Args:
        n: Number of samples, a whole number. Shape (...).
        d: Dimension, a whole number from 2. Shape (...).
        sigma: Standard deviation of the label noise, in units of y. Shape (...).
        target_norm: b = |beta_t|, positive, in units of y. Shape (...).

    Returns:
        Mean of |beta_hat - beta_t|^2 over data, in units of y^2; inf for |n - d| <= 1 if there is
        noise. Shape: the arguments, broadcast.

    Valid: exact for Gaussian inputs and the minimum-norm interpolator (least squares for n > d).
    Raises: ValueError for n or d not whole, n < 0, d < 2, sigma < 0, or b not positive and finite.
    Source: derived here: mean of an inverse Wishart matrix.
    Checked: reference value, Monte Carlo on both sides of n = d.
    """
    integer(0, n=n)
    integer(2, d=d)
    nonnegative(sigma=sigma)
    positive(target_norm=target_norm)
    finite(sigma=sigma, target_norm=target_norm)
    n, d, sigma, b = together(n, d, sigma, target_norm)
    return least_squares_risk(n, d, b**2, sigma**2)


def least_squares_risk(
    n: Float[Array, "..."],
    rank: Float[Array, "..."],
    signal: Float[Array, "..."],
    noise: Float[Array, "..."],
) -> Float[Array, "..."]:
    r"""Mean excess risk of minimum-norm least squares on r isotropic Gaussian features.

    .. math:: \mathbb E R = \iota (1 - n/r)_+ + \tau^2 \frac{\min(n, r)}{|n - r| - 1}

    Args:
        n: Number of samples. Shape (...).
        rank: Number r of features. Shape (...).
        signal: iota, squared norm of the coefficients to be learned, in units of y^2. Shape (...).
        noise: tau^2, variance of the rest of y, in units of y^2. Shape (...).

    Returns:
        Squared distance to the coefficients, in units of y^2; inf for |n - r| <= 1 with noise.
        Shape (...).

    Valid: exact for jointly Gaussian features and noise; arguments already checked and broadcast.
    Source: derived here: mean of an inverse Wishart matrix.
    Checked: through `scratch_risk_finite` and `feature_space_risk`.
    """
    gap = jnp.abs(n - rank) - 1
    gain = jnp.where(gap > 0, jnp.minimum(n, rank) / jnp.where(gap > 0, gap, 1.0), jnp.inf)
    return signal * jnp.maximum(1 - n / rank, 0.0) + _times(noise, gain)


def scratch_risk_std(n: ArrayLike, d: ArrayLike, sigma: ArrayLike, target_norm: ArrayLike = 1) -> Float[Array, "..."]:
    r"""Standard deviation over data sets of the scratch risk, exact at every size.

    .. math:: R_{sc} = b^2\, \mathrm{Beta}\big(\tfrac{d-n}2, \tfrac n2\big) 1_{n<d}
        + \sigma^2 \frac{\chi^2_m}{\chi^2_{|n-d|+1}}, \qquad m = \min(n, d)

    .. math:: \mathrm{Var} R_{sc} = b^4 \frac{2n(d-n)_+}{d^2(d+2)} + \sigma^4
        \Big[\frac{m(m+2)}{(|n-d|-1)(|n-d|-3)} - \frac{m^2}{(|n-d|-1)^2}\Big]

    All variables above are independent.

    Args:
        n: Number of samples, a whole number. Shape (...).
        d: Dimension, a whole number from 2. Shape (...).
        sigma: Standard deviation of the label noise, in units of y. Shape (...).
        target_norm: b = |beta_t|, positive, in units of y. Shape (...).

    Returns:
        Standard deviation of |beta_hat - beta_t|^2, in units of y^2; inf for |n - d| <= 3 if there
        is noise. Shape: the arguments, broadcast.

    Valid: exact for Gaussian inputs.
    Raises: ValueError for n or d not whole, n < 0, d < 2, sigma < 0, or b not positive and finite.
    Source: derived here: Hotelling's law of the noise term.
    Checked: Wishart moments of order two; Kolmogorov-Smirnov test of the law of R on both sides.
    """
    integer(0, n=n)
    integer(2, d=d)
    nonnegative(sigma=sigma)
    positive(target_norm=target_norm)
    finite(sigma=sigma, target_norm=target_norm)
    n, d, sigma, b = together(n, d, sigma, target_norm)
    beta_variance = 2 * n * jnp.maximum(d - n, 0.0) / (d**2 * (d + 2))
    m, gap = jnp.minimum(n, d), jnp.abs(n - d)
    spread = gap > 3
    gap = jnp.where(spread, gap, 5.0)
    ratio_variance = m * (m + 2) / ((gap - 1) * (gap - 3)) - (m / (gap - 1)) ** 2
    ratio_variance = jnp.where(spread | (m == 0), ratio_variance, jnp.inf)
    return safe_sqrt(b**4 * beta_variance + _times(sigma**4, ratio_variance))


def tuned_scratch_risk(gamma: ArrayLike, sigma: ArrayLike, target_norm: ArrayLike = 1) -> Float[Array, "..."]:
    r"""Excess risk of scratch training at its best ridge or weight decay.

    .. math:: R^*_{sc} = \tfrac{b^2}2 \Big[1 - \gamma - q + \sqrt{(1 - \gamma - q)^2 + 4q}\Big],
        \qquad q = \sigma^2 / b^2

    Args:
        gamma: Samples per dimension n/d, positive; dimensionless. Shape (...).
        sigma: Standard deviation of the label noise, in units of y. Shape (...).
        target_norm: b = |beta_t|, positive, in units of y. Shape (...).

    Returns:
        |beta_hat - beta_t|^2 at the ridge of `tuned_scratch_ridge`, in units of y^2.
        Shape: the arguments, broadcast.

    Valid: n, d -> infinity at fixed gamma, error O(1/d); no peak at gamma = 1.
    Raises: ValueError for gamma <= 0, sigma < 0, or b not positive and finite (concrete values).
    Source: derived here from the ridge equivalent; arXiv:2410.08194 shows it empirically.
    Checked: reference value, minimum over ridges of the Marchenko-Pastur risk (1e-9), gradients.
    """
    positive(gamma=gamma, target_norm=target_norm)
    nonnegative(sigma=sigma)
    finite(sigma=sigma, target_norm=target_norm)
    gamma, sigma, b = together(gamma, sigma, target_norm)
    q = sigma**2 / b**2
    return b**2 * positive_root(1 - gamma - q, q)


def tuned_scratch_ridge(gamma: ArrayLike, sigma: ArrayLike, target_norm: ArrayLike = 1) -> Float[Array, "..."]:
    r"""Best ridge of scratch training.

    .. math:: \lambda^* = \frac{\sigma^2}{b^2 \gamma} \quad\text{in}\quad
        \tfrac1n |y - X\beta|^2 + \lambda |\beta|^2

    Args:
        gamma: Samples per dimension n/d, positive; dimensionless. Shape (...).
        sigma: Standard deviation of the label noise, in units of y. Shape (...).
        target_norm: b = |beta_t|, positive, in units of y. Shape (...).

    Returns:
        The ridge, in units of x^2. Shape: the arguments, broadcast.

    Valid: best on average over targets of norm b at every size; for one target as d -> infinity.
    Raises: ValueError for gamma <= 0, sigma < 0, or b not positive and finite (concrete values).
    Source: derived here; the posterior mean of a Gaussian prior.
    Checked: minimum over ridges of the Marchenko-Pastur risk.
    """
    positive(gamma=gamma, target_norm=target_norm)
    nonnegative(sigma=sigma)
    finite(sigma=sigma, target_norm=target_norm)
    gamma, sigma, b = together(gamma, sigma, target_norm)
    return sigma**2 / (b**2 * gamma)


def weight_decay_ridge(decay: ArrayLike, norm: ArrayLike, depth: ArrayLike = 2) -> Float[Array, "..."]:
    r"""Ridge that weight decay on every layer of a linear network amounts to.

    .. math:: \min_{W_1 \cdots W_L = \beta} \frac\omega2 \sum_l |W_l|_F^2
        = \frac{\omega L}2 |\beta|^{2/L}, \qquad
        \lambda_{\rm eff} = \frac\omega2 |\hat\beta|^{2/L - 2}

    Args:
        decay: omega, zero or positive, in units of the loss per weight^2. Shape (...).
        norm: |beta_hat| at the minimum, positive, in units of y. Shape (...).
        depth: Number L of layers, from 1, or infinity. Shape (...).

    Returns:
        The ridge lambda of the loss + lambda |beta|^2 with the same stationary point.
        Shape: the arguments, broadcast.

    Valid: exact at every stationary point with beta_hat != 0.
    Raises: ValueError for decay < 0, norm <= 0, or depth not a whole number from 1.
    Source: derived here; arXiv:2410.08194 uses weight decay empirically.
    Checked: stationary points of the layered loss for L = 2, 3 (1e-10).
    """
    nonnegative(decay=decay)
    positive(norm=norm)
    depth_of_network(depth)
    decay, norm, depth = together(decay, norm, depth)
    return decay / 2 * norm ** (2 / depth - 2)


def early_stopped_risk(gamma: ArrayLike, distance2: ArrayLike, sigma: ArrayLike, t: ArrayLike) -> Float[Array, "..."]:
    r"""Excess risk of linear regression by gradient flow stopped at a finite time.

    .. math:: R(t) = \Delta^2 \int e^{-4\lambda t} d\mu
        + \frac{\sigma^2}\gamma \int \frac{(1 - e^{-2\lambda t})^2}\lambda d\mu,
        \qquad \mu = \text{Marchenko-Pastur law of } X^\top X / n

    Args:
        gamma: Samples per dimension n/d, positive; dimensionless. Shape (...).
        distance2: Delta^2 = |beta(0) - beta_t|^2, zero or positive, in units of y^2: b^2 from
            scratch, |beta_s - beta_t|^2 from a pretrained start. Shape (...).
        sigma: Standard deviation of the label noise, in units of y. Shape (...).
        t: Training time on the loss |y - X beta|^2 / n (learning rate times steps), zero or
            positive, may be inf. Shape (...).

    Returns:
        |beta(t) - beta_t|^2, in units of y^2. Shape: the arguments, broadcast.

    Valid: depth 1, n and d -> infinity at fixed gamma, error O(1/d).
    Raises: ValueError for gamma <= 0, or distance2, sigma or t < 0 (concrete values only).
    Source: derived here.
    Checked: reference values, mpmath integrals (1e-10), t = 0 and inf, gradients.
    """
    positive(gamma=gamma)
    nonnegative(distance2=distance2, sigma=sigma, t=t)
    finite(distance2=distance2, sigma=sigma)
    gamma, distance2, sigma, t = together(gamma, distance2, sigma, t)
    endless = jnp.isinf(t)
    time = jnp.where(endless, 0.0, t)[..., None]

    def remaining(eigenvalues):
        return jnp.where(endless[..., None], 0.0, jnp.exp(-4 * eigenvalues * time))

    def fitted_noise(eigenvalues):
        fitted = jnp.where(endless[..., None], 1.0, -jnp.expm1(-2 * eigenvalues * time))
        return fitted**2 / eigenvalues

    bias = distance2 * marchenko_pastur_mean(remaining, gamma, at_zero=1.0)
    gain = marchenko_pastur_mean(fitted_noise, gamma) / gamma
    gain = jnp.where(endless & (gamma == 1), jnp.inf, gain)
    return bias + _times(sigma**2, gain)


def _times(amount: Float[Array, "..."], gain: Float[Array, "..."]) -> Float[Array, "..."]:
    """Product that is 0 where the amount is 0, however large the gain."""
    infinite = jnp.isinf(gain)
    product = amount * jnp.where(infinite, 0.0, gain)
    return jnp.where(infinite & (amount > 0), jnp.inf, product)
