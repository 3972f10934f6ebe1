"""When collapse helps: the risk of a linear probe on the modes that an encoder kept."""

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from theory.arguments import finite, integer, nonnegative, require, together, traced, with_one_dtype


def probe_risk(
    theta: ArrayLike, a: ArrayLike, k: ArrayLike, n: ArrayLike, noise_variance: ArrayLike
) -> Float[Array, "..."]:
    r"""Test error of least squares on the first k modes, the others collapsed.

    .. math:: R(k) = \sigma_{\rm eff}^2(k)\,\frac{n - 1}{n - k - 1}, \qquad
        \sigma_{\rm eff}^2(k) = \sigma_\xi^2 + \sum_{i>k}\theta_i^2a_i

    The signal of a collapsed mode is noise to the probe.

    Args:
        theta: Weights of the target theta . x + xi, the surviving modes first. Shape (d,).
        a: Variances of the inputs along the modes, zero or positive. Shape (d,).
        k: Number of surviving modes, from 0 to d. Shape (...).
        n: Samples of the probe, more than k + 1. Shape (...).
        noise_variance: Var xi, zero or positive. Shape (...).

    Returns:
        Mean squared error on a new sample, its noise included, in the mean over samples. Shape: k, n and
        noise_variance, broadcast.

    Valid: exact for Gaussian inputs without augmentation, independent along the modes; no intercept; any invertible
        map of the k features. inf for n <= k + 1 where the values are traced.
    Raises: ValueError for shapes that do not fit, a number outside its range or n <= k + 1 (concrete values only).
    Source: derived here, in the setting of Ziyin et al. (2023), from the inverse Wishart law.
    Checked: printed values; least squares on drawn samples; encoders trained with augmentations,
        `sims.ssl_collapse.probe`.
    """
    theta, a, k, n, noise = _checked(theta, a, k, n, noise_variance)
    enough = n > k + 1
    require(enough, "n", "more than k + 1", n)
    excess = (n - 1) / jnp.where(enough, n - k - 1, 1)
    return jnp.where(enough, _effective_noise(theta, a, k, noise) * excess, jnp.inf)


def dropping_helps(
    theta: ArrayLike, a: ArrayLike, k: ArrayLike, n: ArrayLike, noise_variance: ArrayLike
) -> Bool[Array, "..."]:
    r"""Whether the collapse of mode k lowers the probe's risk, :math:`R(k - 1) < R(k)`.

    .. math:: \theta_k^2a_k < \frac{\sigma_{\rm eff}^2(k)}{n - k - 1}

    Args:
        theta: Weights of the target, the surviving modes first. Shape (d,).
        a: Variances of the inputs along the modes, zero or positive. Shape (d,).
        k: The mode, counted from 1: from 1 to d. Shape (...).
        n: Samples of the probe, more than k + 1. Shape (...).
        noise_variance: Variance of the target's noise, zero or positive. Shape (...).

    Returns:
        Whether the risk falls. Shape: k, n and noise_variance, broadcast.

    Valid: as `probe_risk`. A mode that carries no signal should always collapse; most is gained at n close to d.
    Raises: ValueError as `probe_risk`, or for k < 1.
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: differences of `probe_risk`; `sims.ssl_collapse.probe`.
    """
    integer(1, k=k)
    theta, a, k, n, noise = _checked(theta, a, k, n, noise_variance)
    require(n > k + 1, "n", "more than k + 1", n)
    signal = (theta**2 * a)[k.astype(int) - 1]
    return signal * (n - k - 1) < _effective_noise(theta, a, k, noise)


def best_rank(theta: ArrayLike, a: ArrayLike, n: ArrayLike, noise_variance: ArrayLike) -> Int[Array, "..."]:
    r"""Number of modes that an encoder should keep for a probe of n samples, :math:`\arg\min_k R(k)`.

    Args:
        theta: Weights of the target, in the order in which modes survive. Shape (d,).
        a: Variances of the inputs along the modes, zero or positive. Shape (d,).
        n: Samples of the probe, 2 or more. Shape (...).
        noise_variance: Variance of the target's noise, zero or positive. Shape (...).

    Returns:
        k from 0 to min(d, n - 2), the smallest of equal ones. Shape: n and noise_variance, broadcast.

    Valid: as `probe_risk`. As n -> infinity, all modes up to the last that carries signal.
    Raises: ValueError for shapes that do not fit or a number outside its range (concrete values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: exhaustive minimum of `probe_risk`; `sims.ssl_collapse.probe`.
    """
    integer(2, n=n)
    theta, a, _, n, noise = _checked(theta, a, 0, n, noise_variance)
    k = jnp.arange(theta.size + 1, dtype=theta.dtype)
    k = jnp.reshape(k, (1,) * n.ndim + (-1,))
    left = n[..., None] - k - 1
    risk = _effective_noise(theta, a, k, noise[..., None]) / jnp.where(left > 0, left, 1)
    return jnp.argmin(jnp.where(left > 0, risk, jnp.inf), axis=-1)


def _checked(theta, a, k, n, noise):
    if np.ndim(theta) != 1 or np.shape(theta) != np.shape(a):
        shapes = f"{np.shape(theta)} and {np.shape(a)}"
        raise ValueError(f"`theta` and `a` must be vectors of one length, but got shapes {shapes}.")
    finite(theta=theta, a=a, noise_variance=noise)
    nonnegative(a=a, noise_variance=noise)
    integer(0, k=k)
    if not traced(n):
        integer(1, n=n)
    d = np.shape(theta)[0]
    if not traced(k):
        require(np.asarray(k) <= d, "k", f"at most the number of modes, {d}", k)
    theta, a, k, n, noise = with_one_dtype(theta, a, k, n, noise)
    return theta, a, *together(k, n, noise)


def _effective_noise(theta, a, k, noise):
    """Noise, and the signal of the modes after the k-th."""
    signal = theta**2 * a
    tail = jnp.concatenate([jnp.cumsum(signal[::-1])[::-1], jnp.zeros(1, signal.dtype)])
    return noise + tail[k.astype(int)]
