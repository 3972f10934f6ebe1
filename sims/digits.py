"""The handwritten digits of scikit-learn, 8 by 8 pixels: the real data of every topic."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

CLASSES, SIDE = 10, 8


class Images(NamedTuple):
    """A batch: images of shape (b, 8, 8) with pixels from 0 to 1, and their digits."""

    pixels: jax.Array
    labels: jax.Array


@functools.cache
def digits() -> Images:
    """The 1797 images."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return Images(np.asarray(data.images / 16, float), np.asarray(data.target, np.int32))


def batches(key, count: int, size: int, dtype=float) -> Images:
    """Minibatches drawn with replacement, shapes (count, size, ...)."""
    rows = jax.random.randint(key, (count, size), 0, len(digits().labels))
    return Images(jnp.asarray(digits().pixels, dtype)[rows], jnp.asarray(digits().labels)[rows])
