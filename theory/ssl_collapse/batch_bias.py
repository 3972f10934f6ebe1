r"""What a minibatch adds to a loss whose square holds pairs of one input, and where its minimum goes.

The square of an average over n inputs holds n pairs of an input with itself. In expectation they add 1/n times a term
to the loss, however many steps are averaged.
"""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import number, positive_semidefinite, require, with_one_dtype
from theory.roots import increasing_root
from theory.ssl_collapse.bias import correlation


def barlow_batch_bias(S: ArrayLike, K: ArrayLike, batch: ArrayLike) -> Float[Array, ""]:
    r"""Expected loss of a minibatch under Barlow Twins, less that of infinitely many inputs.

    .. math:: E|\hat K - I|_F^2 - |K - I|_F^2 = \frac{(\mathrm{Tr}S)^2 + |K|_F^2}n, \qquad
        \hat K = \frac1n\sum_b f_b f_b^{+\top}

    Args:
        S: Embedding covariance, W Sigma W^T. Shape (m, m).
        K: Cross-covariance of two views, W A0 W^T. Shape (m, m).
        batch: n, at least 1. A number.

    Returns:
        The bias.

    Valid: Gaussian inputs, K-hat neither centred nor symmetrised.
    Raises: ValueError for matrices that are no covariances or differ in shape, or n < 1 (concrete values only).
    Source: derived here, in the setting of Simon et al. (2023).
    Checked: fourth moments by Isserlis' theorem; simulation `sims.ssl_collapse.batch_bias`.
    """
    S, K, batch = _checked(batch, S=S, K=K)
    if S.shape != K.shape:
        raise ValueError(f"`K` must have the shape of `S`, {S.shape}, but got shape {K.shape}.")
    return (jnp.trace(S) ** 2 + jnp.sum(K**2)) / batch


def spectral_batch_bias(K: ArrayLike, batch: ArrayLike) -> Float[Array, ""]:
    r"""The same for the spectral contrastive loss whose square runs over all n^2 pairs, the positive ones too.

    .. math:: E\hat L - L = \frac{(\mathrm{Tr}K)^2 + |K|_F^2}n

    Args:
        K: Cross-covariance of two views, W A0 W^T. Shape (m, m).
        batch: n, at least 1. A number.

    Returns:
        The bias.

    Valid: Gaussian inputs.
    Raises: ValueError for a K that is no covariance, or n < 1 (concrete values only).
    Source: derived here.
    Checked: fourth moments by Isserlis' theorem; simulation `sims.ssl_collapse.batch_bias`.
    """
    K, batch = _checked(batch, K=K)
    return (jnp.trace(K) ** 2 + jnp.sum(K**2)) / batch


def barlow_batch_strengths(rho: ArrayLike, batch: ArrayLike) -> Float[Array, "... modes"]:
    r"""Embedding variances at the minimum of the expected minibatch loss of Barlow Twins.

    .. math:: s_i = \frac{(\rho_i - T/n)_+}{\rho_i^2 (1 + 1/n)}, \qquad T = \sum_i s_i

    Args:
        rho: Correlations of two views, those of the m modes in use, from 0 to 1. Shape (..., modes).
        batch: n, at least 1; infinity gives 1 / rho. Shape (...).

    Returns:
        The variances. Weak modes shrink most, and die where rho < T / n. Shape (..., modes).

    Valid: Gaussian inputs, no weight decay; the global minimum, by von Neumann's trace inequality.
    Raises: ValueError for rho outside [0, 1] or n < 1 (concrete values only).
    Source: derived here.
    Checked: dense minimisation; simulation `sims.ssl_collapse.batch_bias`.
    """
    rho, batch = _checked_modes(rho, batch)
    weight = jnp.where(rho > 0, 1 / (jnp.where(rho > 0, rho, 1.0) ** 2 * (1 + 1 / batch)), 0)

    def strengths(total):
        return jnp.maximum(rho - (total / batch[..., 0])[..., None], 0) * weight

    def excess(total):
        return total - jnp.sum(strengths(total), axis=-1)

    most = jnp.sum(rho * weight, axis=-1)
    return strengths(increasing_root(excess, jnp.zeros_like(most), most))


def spectral_batch_strengths(rho: ArrayLike, batch: ArrayLike) -> Float[Array, "... modes"]:
    r"""The same for the spectral loss whose square runs over all n^2 pairs.

    .. math:: s_i = \frac{\rho_i}{(1 + \rho_i^2/n)(1 + a/n)}, \qquad a = \sum_i\frac{\rho_i^2}{1 + \rho_i^2/n}

    Args:
        rho: Correlations of two views, those of the m modes in use, from 0 to 1. Shape (..., modes).
        batch: n, at least 1; infinity gives rho. Shape (...).

    Returns:
        The variances. Shape (..., modes).

    Valid: Gaussian inputs, no weight decay.
    Raises: ValueError for rho outside [0, 1] or n < 1 (concrete values only).
    Source: derived here.
    Checked: dense minimisation; simulation `sims.ssl_collapse.batch_bias`.
    """
    rho, batch = _checked_modes(rho, batch)
    own = 1 + rho**2 / batch
    a = jnp.sum(rho**2 / own, axis=-1, keepdims=True)
    return rho / (own * (1 + a / batch))


def _checked(batch, **covariances):
    """The covariances, then the batch, of one dtype."""
    positive_semidefinite(**covariances)
    number(batch=batch)
    require(jnp.asarray(batch) >= 1, "batch", "1 or more", batch)
    return with_one_dtype(*covariances.values(), batch)


def _checked_modes(rho, batch):
    """rho, and the batch with one axis more, to stand beside the modes."""
    correlation(rho=rho)
    require(jnp.asarray(batch) >= 1, "batch", "1 or more", batch)
    rho, batch = with_one_dtype(rho, batch)
    shape = jnp.broadcast_shapes(rho.shape[:-1], batch.shape)
    return jnp.broadcast_to(rho, (*shape, rho.shape[-1])), jnp.broadcast_to(batch, shape)[..., None]
