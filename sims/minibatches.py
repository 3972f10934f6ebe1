"""Minibatches of a finite data set: with replacement, without, and in shuffled epochs."""

from __future__ import annotations

import jax


def minibatch(key, samples: int, batch: int, replace: bool = True):
    """Indices of one minibatch, drawn with or without replacement inside it. Shape (batch,)."""
    return jax.random.choice(key, samples, (batch,), replace)


def shuffled_epoch(key, samples: int, batch: int):
    """Indices of the minibatches of one epoch, every sample once; a remainder is dropped. Shape (batches, batch)."""
    return jax.random.permutation(key, samples)[: samples // batch * batch].reshape(-1, batch)
