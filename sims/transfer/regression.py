"""The target task's data, and the one factorisation of them that every cell of a replicate shares.

The rows of X are nested: a sample size n takes the first n rows of one draw. In the eigenbasis of X^T X / n the squared
loss of any network f(x) = x . w is a diagonal quadratic in w, whatever n is, so no shape depends on n. This is an
orthogonal change of coordinates and approximates nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class Draw(NamedTuple):
    """One replicate's randomness: X (rows, d), noise (rows,), and two orthonormal directions."""

    inputs: Array
    noise: Array
    source: Array
    normal: Array


class Task(NamedTuple):
    """A block's regression problem in the eigenbasis of X^T X / n.

    Args:
        eigenvalues: Of X^T X / n, exactly zero outside the row space. Shape (d,).
        seen: 1 in the row space of X, 0 outside. Shape (d,).
        basis: Eigenvectors as columns. Shape (d, d).
        source: Unit source direction. Shape (d,).
        target: Target weights of each cell. Shape (cells, d).
        min_norm: Least-squares weights of least norm of each cell's labels. Shape (cells, d).
        solved: Those weights for the labels X u, X v and the noise alone. Shape (d, 3).
        mixture: How each cell mixes the three. Shape (cells, 3).
    """

    eigenvalues: Array
    seen: Array
    basis: Array
    source: Array
    target: Array
    min_norm: Array
    solved: Array
    mixture: Array


def mix(mixture: Array, parts: Array) -> Array:
    """Each cell's mixture of the columns of `parts`, (cells, k) and (d, k) to (cells, d).

    A sum, not a matrix product: its last bit must not depend on how many cells the block has.
    """
    return jnp.sum(mixture[:, None, :] * parts[None], axis=2)


def draw(key: Array, rows: int, d: int) -> Draw:
    """Gaussian inputs and noise, and two orthonormal directions, uniform on the sphere."""
    k_inputs, k_noise, k_plane = jax.random.split(key, 3)
    plane, _ = jnp.linalg.qr(jax.random.normal(k_plane, (d, 2)))
    return Draw(jax.random.normal(k_inputs, (rows, d)), jax.random.normal(k_noise, (rows,)), plane[:, 0], plane[:, 1])


def regression(data: Draw, n: Array, theta: Array, sigma: Array, target_norm: Array) -> Task:
    """The first `n` rows, with the labels of each (theta, sigma); `n` may be traced.

    Labels are linear in (cos theta, sin theta, sigma), so three solved right-hand sides serve every cell.
    """
    rows, d = data.inputs.shape
    inputs = jnp.where((jnp.arange(rows, dtype=n.dtype) < n)[:, None], data.inputs, 0.0)
    eigenvalues, basis = jnp.linalg.eigh(inputs.T @ inputs / n)
    seen = jnp.arange(d, dtype=n.dtype) >= d - n
    eigenvalues = jnp.where(seen, eigenvalues, 0.0)

    plane = jnp.stack([data.source, data.normal], axis=1)
    labels = jnp.concatenate([inputs @ plane, data.noise[:, None]], axis=1)
    correlation = basis.T @ (inputs.T @ labels) / n
    solved = jnp.where(seen[:, None], correlation / jnp.where(seen, eigenvalues, 1.0)[:, None], 0.0)

    mixture = jnp.stack([target_norm * jnp.cos(theta), target_norm * jnp.sin(theta), sigma], axis=1)
    plane = basis.T @ plane
    return Task(
        eigenvalues, seen.astype(basis.dtype), basis, plane[:, 0],
        mix(mixture[:, :2], plane), mix(mixture, solved), solved, mixture,
    )  # fmt: skip
