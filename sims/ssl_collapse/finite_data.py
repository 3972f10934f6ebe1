"""A finite data set whose population loss is a sum: every input under every noise, with covariances that are given."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Views(NamedTuple):
    """Every view of every input, shape (inputs, noises, d)."""

    x: jax.Array


def with_covariance(key, n: int, root):
    """n points, shape (n, d), not Gaussian, of mean zero and covariance root root^T to the last bits."""
    d = len(root)
    z = jax.random.uniform(key, (n, d)) ** 2
    z = z - jnp.mean(z, 0)[None, :]
    for _ in range(2):  # the second time takes away what rounding left of an ill-conditioned draw
        lower = jnp.linalg.cholesky(jnp.matmul(z.T, z, precision="highest") / n)
        z = jax.scipy.linalg.solve_triangular(lower, z.T, lower=True).T
    return z @ root.T


def draw(key, inputs: int, noises: int, A0, C) -> Views:
    """Every one of the inputs, of covariance A0, under every one of the noises, of covariance C."""
    k_clean, k_noise = jax.random.split(key)
    clean = with_covariance(k_clean, inputs, jnp.linalg.cholesky(A0))
    noise = with_covariance(k_noise, noises, jnp.linalg.cholesky(C))
    return Views(clean[:, None, :] + noise[None, :, :])


def spectral_loss(W, views: Views, decay):
    """The spectral contrastive loss over all pairs of views: positives of one input, negatives of any two.

    The square is summed in the m dimensions of the embedding: sum_ab (f_a . f_b)^2 = |F^T F|^2.
    """
    f = jnp.matmul(views.x, W.T, precision="highest")
    mean = jnp.mean(f, 1)
    positives = jnp.mean(jnp.sum(mean**2, 1))
    flat = f.reshape(-1, len(W))
    square = jnp.sum((jnp.matmul(flat.T, flat, precision="highest") / len(flat)) ** 2)
    return -2 * positives + square + decay * jnp.sum(W**2)
