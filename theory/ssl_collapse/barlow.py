"""Barlow Twins without normalisation: modes that are learned one step after another, and which of them are kept."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from theory.arguments import finite, integer, nonnegative, positive, together, with_one_dtype
from theory.roots import increasing_root


def barlow_mode(t: ArrayLike, gamma: ArrayLike, w0: ArrayLike) -> Float[Array, "..."]:
    r"""Singular value of one mode under the gradient flow of Barlow Twins.

    .. math:: w(t) = \frac{e^{4\gamma t}}{\sqrt{w_0^{-2} + (e^{8\gamma t} - 1)\gamma}}

    Args:
        t: Time of the flow of :math:`|W A_0 W^\top - I|_F^2`, zero or positive. Shape (...).
        gamma: Eigenvalue of A0, the cross-covariance of two views, positive. Shape (...).
        w0: Singular value of W at t = 0, positive. Shape (...).

    Returns:
        w(t), which tends to gamma^(-1/2). Shape: the arguments, broadcast.

    Valid: exact for aligned modes, whose right singular vectors are eigenvectors of A0; any number of them.
    Raises: ValueError for t < 0, gamma <= 0 or w0 <= 0 (concrete values only).
    Source: derived here; the form of Simon et al. (2023).
    Checked: mpmath, its differential equation; simulation `sims.ssl_collapse.barlow_steps`.
    """
    nonnegative(t=t)
    positive(gamma=gamma, w0=w0)
    t, gamma, w0 = together(t, gamma, w0)
    return jax.lax.rsqrt(gamma + (w0**-2 - gamma) * jnp.exp(-8 * gamma * t))


def barlow_step_time(gamma: ArrayLike, w0: ArrayLike) -> Float[Array, "..."]:
    r"""Time at which a mode of Barlow Twins has half of its final variance.

    .. math:: t_{1/2} = \frac1{8\gamma}\ln\Big(\frac1{\gamma w_0^2} - 1\Big) \approx -\frac{\ln\gamma w_0^2}{8\gamma}

    Args:
        gamma: Eigenvalue of A0, positive. Shape (...).
        w0: Singular value of W at t = 0, positive. Shape (...).

    Returns:
        The time; nan from a start above the half. Shape: the arguments, broadcast.

    Valid: as `barlow_mode`.
    Raises: ValueError for gamma <= 0 or w0 <= 0 (concrete values only).
    Source: derived here, in the setting of Simon et al. (2023).
    Checked: the value of `barlow_mode` at that time.
    """
    positive(gamma=gamma, w0=w0)
    gamma, w0 = together(gamma, w0)
    rise = 1 / (gamma * w0**2) - 1
    grows = rise >= 1
    return jnp.where(grows, jnp.log(jnp.where(grows, rise, 1.0)) / (8 * gamma), jnp.nan)


def barlow_kept(gamma: ArrayLike, m: int) -> Bool[Array, "... modes"]:
    r"""Modes that Barlow Twins keeps from a small start: the m of the largest gamma.

    Without weight decay every m-dimensional subspace of the modes is a global minimum; the flow decides.

    Args:
        gamma: Eigenvalues of A0, positive. Shape (..., modes).
        m: Dimension of the embedding, at least 1.

    Returns:
        Whether a mode is kept. Shape (..., modes).

    Valid: W(0) -> 0; what is left in mode j instead of mode i is O(|W(0)|^(2 - 2 gamma_j / gamma_i)).
    Raises: ValueError for gamma <= 0 or m < 1 (concrete values only).
    Source: derived here, in the setting of Simon et al. (2023).
    Checked: descent from small starts; simulation `sims.ssl_collapse.barlow_steps`.
    """
    positive(gamma=gamma)
    integer(1, m=m)
    (gamma,) = with_one_dtype(gamma)
    rank = jnp.argsort(jnp.argsort(-gamma, axis=-1), axis=-1)
    return rank < m


def barlow_shares(w0: ArrayLike, gamma: ArrayLike) -> Float[Array, "... modes"]:
    r"""Shares that the modes have in the end in an embedding of one dimension, from any start.

    .. math:: k_i = \gamma_i w_{0i}^2 e^{8\gamma_i\theta}, \qquad \sum_i k_i = 1

    Args:
        w0: The weights at the start in the eigenbasis of A0, at least one not zero. Shape (..., modes).
        gamma: Eigenvalues of A0, positive. Shape (..., modes).

    Returns:
        k_i, the parts of w^T A0 w = 1. Shape (..., modes).

    Valid: exact for gradient flow with m = 1, for :math:`\dot w = 4(1 - k)\Gamma w`.
    Raises: ValueError for gamma <= 0 or weights that are not finite (concrete values only).
    Source: derived here.
    Checked: numerical integration; simulation `sims.ssl_collapse.barlow_steps`.
    """
    positive(gamma=gamma)
    finite(w0=w0)
    w0, gamma = together(w0, gamma)
    start = jnp.where(w0 != 0, jnp.log(gamma * jnp.where(w0 != 0, w0, 1.0) ** 2), -jnp.inf)
    first = jax.nn.logsumexp(start, axis=-1)
    low = jnp.minimum(-first / (8 * jnp.min(gamma, axis=-1)), 0)
    high = jnp.min(-start / (8 * gamma), axis=-1)

    def logarithm(theta):
        return jax.nn.logsumexp(start + 8 * gamma * theta[..., None], axis=-1)

    return jnp.exp(start + 8 * gamma * increasing_root(logarithm, low, jnp.maximum(high, low))[..., None])


def barlow_decayed_strength(rho: ArrayLike, gamma: ArrayLike, weight_decay: ArrayLike = 0.0) -> Float[Array, "..."]:
    r"""Embedding variance of a mode at the minimum of Barlow Twins with weight decay.

    .. math:: s = \frac1\rho\Big(1 - \frac\lambda{2\gamma}\Big)_+

    Args:
        rho: Correlation of two views, above 0 and at most 1. Shape (...).
        gamma: Eigenvalue of A0, positive. Shape (...).
        weight_decay: lambda of lambda |W|_F^2, zero or positive. Shape (...).

    Returns:
        The variance. Shape: the arguments, broadcast.

    Valid: exact, any distribution, A0 and C with one eigenbasis; for the m modes of the largest gamma.
    Raises: ValueError for rho <= 0, gamma <= 0 or lambda < 0 (concrete values only).
    Source: derived here, in the setting of Simon et al. (2023).
    Checked: the quartic landscape; simulation `sims.ssl_collapse.spectra`.
    """
    positive(rho=rho, gamma=gamma)
    nonnegative(weight_decay=weight_decay)
    rho, gamma, decay = together(rho, gamma, weight_decay)
    return jnp.maximum(1 - decay / (2 * gamma), 0) / rho
