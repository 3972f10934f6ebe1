"""Logarithms of random factors."""

from __future__ import annotations

import jax.numpy as jnp


def log_size(factor):
    """ln |factor| of factors 1 - eta h: rounding to zero, which no noise does, is not taken for a collapse."""
    return jnp.log(jnp.maximum(jnp.abs(factor), jnp.finfo(factor.dtype).eps / 4))
