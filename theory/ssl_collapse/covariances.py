"""Covariances of clean inputs, of augmentation noise and of views, and the coordinates in which views are white."""

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import positive_semidefinite, require, traced, with_one_dtype


def checked_covariances(A0: ArrayLike, C: ArrayLike) -> tuple[Array, Array, Array]:
    """(A0, C, Sigma = A0 + C) of one dtype, each of shape (d, d).

    Raises: ValueError unless both are symmetric, without negative eigenvalues and of one shape, and Sigma is positive
        definite (concrete values only).
    """
    positive_semidefinite(A0=A0, C=C)
    if np.shape(A0) != np.shape(C):
        raise ValueError(f"`C` must have the shape of `A0`, {np.shape(A0)}, but got shape {np.shape(C)}.")
    A0, C = with_one_dtype(A0, C)
    positive_definite(**{"A0 + C": A0 + C})
    return A0, C, A0 + C


def positive_definite(**named: ArrayLike) -> None:
    """Requirement that each argument is a symmetric matrix with positive eigenvalues only."""
    positive_semidefinite(**named)
    for name, value in named.items():
        if not traced(value):
            eigenvalues = np.linalg.eigvalsh(np.asarray(value))
            least = len(eigenvalues) * np.finfo(eigenvalues.dtype).eps * eigenvalues.max()
            require(eigenvalues.min() > least, name, "positive definite", eigenvalues.min())


def inverse_root(Sigma: Float[Array, "d d"]) -> Float[Array, "d d"]:
    """Sigma^(-1/2), symmetric, of a positive definite Sigma."""
    eigenvalues, vectors = jnp.linalg.eigh(Sigma)
    return (vectors / jnp.sqrt(eigenvalues)[None, :]) @ vectors.T


def whitened(X: Float[Array, "d d"], Sigma: Float[Array, "d d"]) -> Float[Array, "d d"]:
    """Sigma^(-1/2) X Sigma^(-1/2) of a symmetric X, symmetric to the last bit."""
    root = inverse_root(Sigma)
    Y = root @ X @ root
    return (Y + Y.T) / 2
