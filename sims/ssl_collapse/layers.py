"""Encoders of several linear layers under the spectral contrastive loss: a random basis, layers, losses.

Three inputs, six hidden units, three outputs. The spectral loss is quartic at every W: B = 2 A0 and kappa = 1.
"""

from __future__ import annotations

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sims.engine.experiment import NONNEGATIVE, Parameter

CLEAN = (1.2, 0.7, 0.4)
HIDDEN = 6
KAPPA = 1.0
MODES = {"clean": CLEAN}
AUGMENTATION = {"noise": Parameter(0.25, r"augmentation variance $\sigma^2$", domain=NONNEGATIVE)}


class Modes(NamedTuple):
    """Eigenvalues of B and of the covariance of views, mode by mode."""

    b: jax.Array
    sigma: jax.Array


class Basis(NamedTuple):
    """Orthonormal columns: the data's eigenvectors, directions of the outputs, and those of every hidden layer."""

    data: jax.Array
    outputs: jax.Array
    hidden: jax.Array


def modes(noise) -> Modes:
    """Under augmentations of each variance. Shapes (..., modes)."""
    noise = jnp.asarray(noise)
    clean = jnp.broadcast_to(jnp.array(CLEAN), (*noise.shape, len(CLEAN)))
    return Modes(2 * clean, clean + jnp.broadcast_to(noise[..., None], clean.shape))


def orthonormal(key, rows: int, columns: int):
    """Random orthonormal columns. Shape (rows, columns)."""
    return jnp.linalg.qr(jax.random.normal(key, (rows, columns)))[0]


def draw_basis(key, depth: int = 2) -> Basis:
    k_data, k_outputs, k_hidden = jax.random.split(key, 3)
    n = len(CLEAN)
    hidden = [orthonormal(jax.random.fold_in(k_hidden, layer), HIDDEN, n) for layer in range(depth - 1)]
    return Basis(
        orthonormal(k_data, n, n), orthonormal(k_outputs, n, n), jnp.stack(hidden) if hidden else jnp.zeros((0, 1, n))
    )


def covariances(basis: Basis, noise):
    """A0, and Sigma = A0 + C under isotropic augmentations of variance `noise`."""
    A0 = (basis.data * jnp.array(CLEAN)[None, :]) @ basis.data.T
    return A0, A0 + noise * jnp.eye(len(CLEAN))


def aligned(basis: Basis, strengths):
    """Layers whose singular bases are one, with these singular values: an array of modes a layer, the first first."""
    frames = [basis.data, *basis.hidden, basis.outputs]
    return tuple(
        (after * s[None, :]) @ before.T for before, after, s in zip(frames[:-1], frames[1:], strengths, strict=True)
    )


def gaussian(key, depth: int, scale):
    """Layers of independent Gaussian entries."""
    widths = [len(CLEAN), *[HIDDEN] * (depth - 1), len(CLEAN)]
    return tuple(
        scale * jax.random.normal(jax.random.fold_in(key, layer), (after, before))
        for layer, (before, after) in enumerate(itertools.pairwise(widths))
    )


def product(layers):
    """W_L ... W_1."""
    return functools.reduce(lambda W, layer: layer @ W, layers)


def decay_loss(layers, weight_decay):
    """lambda (|W_1|^2 + ... + |W_L|^2)."""
    return weight_decay * sum(jnp.sum(layer**2) for layer in layers)


def population_loss(layers, A0, Sigma, weight_decay):
    """The spectral loss of infinitely many pairs, with decay."""
    W = product(layers)
    S = W @ Sigma @ W.T
    return -2 * jnp.trace(W @ A0 @ W.T) + jnp.sum(S**2) + decay_loss(layers, weight_decay)


def strengths(W, basis: Basis):
    """|W v| of every eigenvector v of the data: the singular values, once W is aligned with them. Shape (modes,)."""
    return jnp.linalg.norm(W @ basis.data, axis=0)


def hidden_grams(layers):
    """W1 W1^T and W2^T W2 on the hidden space of two layers."""
    first, second = layers
    return first @ first.T, second.T @ second


def halfway(p, before, level, step):
    """Share of a step at which p, rising from `before`, crossed `level`; infinity if it did not in this step."""
    crossed = (before < level) & (p >= level)
    return jnp.where(crossed, step + (level - before) / jnp.where(crossed, p - before, 1.0), jnp.inf)
