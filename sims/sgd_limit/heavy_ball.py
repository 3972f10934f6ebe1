"""Heavy ball, and the squared loss of a linear regression."""

from __future__ import annotations

import jax.numpy as jnp


def heavy_ball(theta, w, gradient, eta, beta):
    """(position, step) after one step of heavy ball."""
    w = beta * w - eta * gradient
    return theta + w, w


def half_squares(theta, inputs, labels):
    """Half the mean squared residual of a linear regression."""
    return jnp.mean((inputs @ theta - labels) ** 2) / 2


def power_law(d: int, alpha):
    """Eigenvalues l^-alpha, l = 1, ..., d, for exponents of any shape (...). Shape (..., d)."""
    alpha = jnp.asarray(alpha, float)
    return jnp.broadcast_to(jnp.arange(1, d + 1, dtype=float), (*alpha.shape, d)) ** -alpha[..., None]
