"""Encoders whose modes are hidden in random bases, the exact spectral loss, and descent that is watched on its way."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def orthogonal(key, rows: int, columns: int, dtype=float):
    """A uniformly random matrix with orthonormal columns, rows >= columns."""
    Q, R = jnp.linalg.qr(jax.random.normal(key, (rows, columns), dtype))
    return Q * jnp.where(jnp.diagonal(R) < 0, -1, 1)[None, :].astype(dtype)


def with_spectrum(V, eigenvalues):
    """V diag(eigenvalues) V^T, symmetric to the last bit."""
    X = (V * eigenvalues[None, :]) @ V.T
    return (X + X.T) / 2


def spectral(W, A0, Sigma, weight_decay):
    """The spectral contrastive loss over the whole distribution of the data, whatever it is, with weight decay."""
    S = W @ Sigma @ W.T
    return -2 * jnp.sum((W @ A0) * W) + jnp.sum(S**2) + weight_decay * jnp.sum(W**2)


def squares(W, V):
    """y: squared norm of the encoder's column on every mode, the columns of V. Shape (d,)."""
    return jnp.sum((W @ V) ** 2, 0)


def steps_at(times, rate):
    """Numbers of steps after which descent at this rate has come to the times, whole numbers."""
    return jnp.round(jnp.asarray(times, jnp.result_type(rate)) / rate).astype(jnp.int32)


def descent_path(step, W, counts, observe):
    """`observe(W)` after rising numbers of steps W <- step(W, k), shape (T, ...)."""

    def until(carry, count):
        W, k = carry
        W = jax.lax.fori_loop(k, count, lambda i, W: step(W, i), W)
        return (W, count), observe(W)

    return jax.lax.scan(until, (W, jnp.int32(0)), counts)[1]


def first_crossings(step, observe, W, steps: int, levels, time_step):
    """When `observe(W)` first rises above `levels`, between two steps by its logarithm; inf if it never does."""

    def body(carry, k):
        W, before, found = carry
        W = step(W, k)
        after = observe(W)
        share = jnp.log(levels / before) / jnp.log(after / before)
        now = (before < levels) & (after >= levels) & ~jnp.isfinite(found)
        return (W, after, jnp.where(now, (k + share) * time_step, found)), None

    first = observe(W)
    never = jnp.full_like(first, jnp.inf)
    return jax.lax.scan(body, (W, first, never), jnp.arange(steps, dtype=levels.dtype))[0][2]
