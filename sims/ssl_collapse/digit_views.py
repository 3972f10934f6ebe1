"""Handwritten digits and their Gaussian surrogate: two views of the same images, the covariances of both the same."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sims.digits import SIDE, digits
from sims.engine.experiment import NONNEGATIVE, POSITIVE, Parameter, Setting, whole

FEATURES = SIDE**2
LOSS_PARAMETERS = {
    "temperature": Parameter(1.0, r"temperature $\tau$", domain=POSITIVE),
    "alpha": Parameter(2.0, r"weight of alignment $\alpha$", domain=POSITIVE),
    "weight_decay": Parameter(0.0, r"weight decay $\lambda$", domain=NONNEGATIVE),
}
TRAINED = {
    "m": Setting(16, "outputs of the encoder", domain=whole(1)),
    "batch": Setting(64, "inputs of a minibatch", domain=whole(2)),
    "steps": Setting(2400, "steps of training", domain=whole(4)),
    "probe": Setting(400, "minibatches that measure, and then steps that grow, new directions", domain=whole(2)),
    "directions": Setting(4, "new directions that are followed", domain=whole(1)),
    "rate": Setting(0.15, "learning rate at first", domain=POSITIVE),
}
FOLLOWED = {"direction": lambda settings: np.arange(1, settings["directions"] + 1)}


class Sizes(NamedTuple):
    """What a compilation depends on."""

    m: int
    batch: int
    steps: int
    probe: int
    directions: int


@functools.cache
def centered() -> np.ndarray:
    """The images as vectors of mean zero, shape (1797, 64)."""
    x = digits().pixels.reshape(-1, FEATURES)
    return x - x.mean(0)


@functools.cache
def covariance() -> np.ndarray:
    """Covariance of the images, shape (64, 64)."""
    return np.cov(centered().T, ddof=0)


@functools.cache
def principal() -> tuple[np.ndarray, np.ndarray]:
    """Variances along the principal components, descending, shape (64,), and the components, columns of (64, 64)."""
    variances, components = np.linalg.eigh(covariance())
    return np.maximum(variances, 0)[::-1], components[:, ::-1]


def clean_pair(key, n: int, dtype):
    """n images, and n Gaussian vectors of the same covariance. Shape (2, n, 64)."""
    k_rows, k_normals = jax.random.split(key)
    images = jnp.asarray(centered(), dtype)[jax.random.randint(k_rows, (n,), 0, len(centered()))]
    variances, components = principal()
    root = jnp.asarray(np.sqrt(variances)[:, None] * components.T, dtype)
    return jnp.stack([images, jax.random.normal(k_normals, (n, FEATURES), dtype) @ root])


def hat(u, zoom):
    """Matrix of linear interpolation along one side: pixel i reads the image at centre + zoom (i - centre) + u."""
    i = jnp.arange(SIDE, dtype=u.dtype)
    centre = (SIDE - 1) / 2
    at = centre + zoom * (i - centre) + u
    return jnp.maximum(1 - jnp.abs(at[:, None] - i[None, :]), 0)


def crop(key, images, reach):
    """Images, shape (n, 8, 8), each shifted by up to `reach` pixels and magnified by up to 1 / (1 - reach / 8).

    Both at random; nothing but zeros is beyond an image's edge.
    """
    u = jax.random.uniform(key, (3, len(images)), images.dtype, -1, 1) * reach
    zoom = 1 - jnp.abs(u[2]) / SIDE
    down, across = jax.vmap(hat)(u[0], zoom), jax.vmap(hat)(u[1], zoom)
    return jnp.einsum("bij,bjk,blk->bil", down, images, across)
