"""The Rayleigh quotient: the smallest loss that does not see the length of its weight."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def draw(key, d: int):
    """A weight and eigenvalues near 1, 2, ..., d; loss(w, eigenvalues) is in their frame.

    The weight lies on one side of every eigenvector, so that draws that err in the same direction can be averaged.
    """
    k_w, k_eigenvalues = jax.random.split(key)
    w = jax.random.uniform(k_w, (d,), minval=0.5) / d**0.5
    return w, jnp.arange(1.0, d + 1) * jax.random.uniform(k_eigenvalues, (d,), minval=0.8, maxval=1.2)


def loss(w, eigenvalues):
    """Half the Rayleigh quotient."""
    return jnp.sum(eigenvalues * w**2) / jnp.sum(w**2) / 2
