"""Noise of minibatches drawn from a finite data set."""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import integer, require, together, traced


def minibatch_variance(batch: ArrayLike, samples: ArrayLike | None = None) -> Float[Array, "..."]:
    r"""Variance of the mean of a minibatch, in units of the variance of one sample.

    .. math:: c = \frac1B, \qquad c = \frac1B\,\frac{N - B}{N - 1} \text{ without replacement}

    Args:
        batch: Samples B of the minibatch, a whole number from 1. Shape (...).
        samples: N of the data set, for a batch drawn without replacement; None with replacement, or for streaming
            data. Shape (...).

    Returns:
        The factor c; 0 for the whole data set without replacement. Shape: broadcast.

    Valid: exact, for the variance with divisor N.
    Raises: ValueError for B < 1, B > N without replacement, or numbers that are not whole (concrete values only).
    Source: sampling from a finite population.
    Checked: enumeration of all batches.
    """
    integer(1, batch=batch)
    if samples is None:
        (batch,) = together(batch)
        return 1 / batch
    integer(1, samples=samples)
    if not traced(batch, samples):
        batch_, samples_ = together(batch, samples)
        require(batch_ <= samples_, "batch", "at most the number of samples", batch_)
    batch, samples = together(batch, samples)
    left = (samples - batch) / jnp.where(samples > 1, samples - 1, 1.0)
    return jnp.where(samples > 1, left, 0.0) / batch
