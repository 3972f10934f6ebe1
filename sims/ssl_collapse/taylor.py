"""Minibatches of three inputs, every loss of one minibatch, and its Taylor coefficients at W = 0.

Data of a density below 1 are zero, up to augmentation, but for that share; their covariance is the same.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from sims.ssl_collapse import losses

A0 = np.array([[1.5, 0.4, 0.0], [0.4, 0.8, 0.2], [0.0, 0.2, 0.6]])
C = np.array([[0.3, -0.1, 0.1], [-0.1, 0.5, 0.0], [0.1, 0.0, 0.2]])
W = np.array([[0.4, -0.3, 0.2], [0.2, 0.5, 0.6]])
ROW = np.array([0.6, 0.8])  # the encoder ROW v^T has the Gram matrix v v^T
DIRECTIONS = np.concatenate([np.eye(3), (np.eye(3) + np.roll(np.eye(3), 1, 1)) / 2**0.5])

# The losses in their order: distances; between clean points; between augmented anchors and clean negatives; with the
# positive in the denominator; products; those with the positive; and three more.
DISTANCE, CLEAN, ANCHOR, DISTANCE_KEPT, DOT, DOT_KEPT, SPECTRAL, BARLOW, ALIGNMENT = range(9)


def draw(key, n: int, density):
    """(clean inputs, first views, second views), each of shape (n, 3)."""
    k_clean, k_where, k_noise = jax.random.split(key, 3)
    present = jax.random.uniform(k_where, (n, 1)) < density
    clean = jnp.where(present, jax.random.normal(k_clean, (n, 3)), 0) / jnp.sqrt(density)
    noise = jax.random.normal(k_noise, (2, n, 3))
    root, spread = (jnp.asarray(np.linalg.cholesky(X).T, clean.dtype) for X in (A0, C))
    clean = clean @ root
    return clean, clean + noise[0] @ spread, clean + noise[1] @ spread


def every_loss(W, batch, tau, alpha, decay):
    """Every loss of one minibatch. Shape (losses,)."""
    clean, first, second = (x @ W.T for x in batch)
    pull = alpha * losses.alignment(first, second) / tau

    def push(anchors, negatives):
        return jnp.mean(losses.log_mean_negatives(-losses.squared_distances(anchors, negatives) / (2 * tau)))

    return decay * jnp.sum(W**2) + jnp.stack(
        [
            losses.infonce_distance(first, second, tau, alpha),
            pull + push(clean, clean),
            pull + push(first, clean),
            losses.infonce_distance(first, second, tau, alpha, positive=True),
            losses.infonce_dot(first, second, tau, alpha),
            losses.infonce_dot(first, second, tau, alpha, positive=True),
            losses.spectral(first, second),
            losses.barlow(first, second),
            losses.alignment(first, second),
        ]
    )


def derivative(f, order: int):
    """The derivative of that order of a function of one number."""
    for _ in range(order):
        f = (lambda g: lambda s: jax.jvp(g, (s,), (jnp.ones_like(s),))[1])(f)
    return f


def taylor(batch, tau, alpha, decay):
    """(terms of second order in every direction, shape (losses, directions), term of fourth order at W, (losses,))."""
    zero = jnp.zeros_like(tau)

    def along(V):
        return lambda s: every_loss(s * V, batch, tau, alpha, decay)

    encoders = jnp.asarray(ROW[None, :, None] * DIRECTIONS[:, None, :], zero.dtype)
    second = jax.vmap(lambda V: derivative(along(V), 2)(zero) / 2)(encoders)
    return second.T, derivative(along(jnp.asarray(W, zero.dtype)), 4)(zero) / 24
