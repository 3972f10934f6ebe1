"""Self-supervised losses of one minibatch: embeddings of two views of the same n inputs in, a number out.

Row i of `first` and row i of `second`, each of shape (n, m), are a positive pair; an anchor's negatives are the n - 1
other rows of the other view.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def squared_distances(first, second):
    """|f_i - g_j|^2, not below 0, with the derivatives of the square where two points meet. Shape (n, n)."""
    products = jnp.matmul(first, second.T, precision="highest")
    squares = jnp.sum(first**2, 1)[:, None] + jnp.sum(second**2, 1)[None, :] - 2 * products
    return squares + jax.lax.stop_gradient(jnp.maximum(-squares, 0))


def log_mean_negatives(similarities, positive: bool = False):
    """log (1/N) sum_j exp(s_ij) over the N = n - 1 negatives of every anchor; `positive` adds the positive to the sum.

    The prefactor is 1/N either way. Shape (n,).
    """
    n = len(similarities)
    others = similarities if positive else jnp.where(jnp.eye(n, dtype=bool), -jnp.inf, similarities)
    return jax.nn.logsumexp(others, axis=1) - jnp.log(jnp.asarray(n - 1, similarities.dtype))


def infonce_distance(first, second, temperature=1.0, alpha=1.0, positive: bool = False):
    """InfoNCE with the similarity -|f - f'|^2 / 2 tau, and the weight alpha of its alignment term."""
    pull = jnp.mean(jnp.sum((first - second) ** 2, 1)) / (2 * temperature)
    push = log_mean_negatives(-squared_distances(first, second) / (2 * temperature), positive)
    return alpha * pull + jnp.mean(push)


def infonce_dot(first, second, temperature=1.0, alpha=1.0, positive: bool = False):
    """InfoNCE with the similarity f . f' / tau, and the weight alpha of its alignment term."""
    pull = -jnp.mean(jnp.sum(first * second, 1)) / temperature
    push = log_mean_negatives(jnp.matmul(first, second.T, precision="highest") / temperature, positive)
    return alpha * pull + jnp.mean(push)


def spectral(first, second):
    """Spectral contrastive loss, -2 E f . f+ + E (f . f-)^2, unbiased: no pair of one input is in the square."""
    n = len(first)
    products = jnp.matmul(first, second.T, precision="highest") ** 2
    return -2 * jnp.mean(jnp.sum(first * second, 1)) + (jnp.sum(products) - jnp.trace(products)) / (n * (n - 1))


def barlow(first, second):
    """Barlow Twins without normalisation, |K - I|_F^2 - m with K = (1/n) sum_b f_b f_b+^T; biased by O(1/n)."""
    n, m = first.shape
    K = jnp.matmul(first.T, second, precision="highest") / n
    return jnp.sum((K - jnp.eye(m, dtype=K.dtype)) ** 2) - m


def alignment(first, second):
    """E |f - f+|^2 / 2 alone."""
    return jnp.mean(jnp.sum((first - second) ** 2, 1)) / 2


def vicreg(first, second, invariance=1.0, variance=1.0, covariance=1.0, target=1.0, epsilon=1e-4):
    """VICReg: invariance, hinges on the standard deviations and squared covariances, the means of the two views'."""
    n = len(first)

    def regularised(f):
        f = f - jnp.mean(f, 0)[None, :]
        S = jnp.matmul(f.T, f, precision="highest") / (n - 1)
        spread = jnp.diagonal(S)
        hinge = jnp.sum(jnp.maximum(target - jnp.sqrt(spread + epsilon), 0))
        return variance * hinge + covariance * (jnp.sum(S**2) - jnp.sum(spread**2))

    pull = invariance * jnp.mean(jnp.sum((first - second) ** 2, 1))
    return pull + (regularised(first) + regularised(second)) / 2
