"""Linear encoders trained by SGD on InfoNCE with in-batch negatives."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from sims.ssl_collapse.losses import infonce_distance
from sims.ssl_collapse.training import gaussian_views


def minibatch_infonce(n: int, a, c, temperature, alpha, weight_decay):
    """InfoNCE of n fresh inputs, two views of each, with weight decay: a function of the encoder and a key.

    `a` and `c` are the variances of clean inputs and of augmentations on their common eigenbasis, of shape (d,).
    """

    def loss(W, key):
        first, second = gaussian_views(key, n, jnp.sqrt(a), jnp.sqrt(c))
        return infonce_distance(first @ W.T, second @ W.T, temperature, alpha) + weight_decay * jnp.sum(W**2)

    return loss


def stationary_gram(loss, W, key, steps: int, rate):
    """Mean of W^T W over the last three quarters of SGD at a constant rate on fresh minibatches. Shape (d, d)."""

    def step(carry, k):
        W, total = carry
        W = W - rate * jax.grad(loss)(W, jax.random.fold_in(key, k))
        return (W, jnp.where(k < steps // 4, total, total + W.T @ W)), None

    start = (W, jnp.zeros((W.shape[1], W.shape[1]), W.dtype))
    (_, total), _ = jax.lax.scan(step, start, jnp.arange(steps))
    return total / (steps - steps // 4)


def in_embedding(gram, views, temperature):
    """Sigma^(1/2) W^T W Sigma^(1/2) / tau of views whose variances are `views`: the eigenvalues of S / tau, by mode."""
    root = jnp.sqrt(views / temperature)
    return root[:, None] * gram * root[None, :]
