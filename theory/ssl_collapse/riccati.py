"""The flow of a whole encoder, not aligned with any mode: a matrix Riccati equation and its solution."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import finite, nonnegative, number, positive, symmetric, with_one_dtype
from theory.roots import mean_decay


def riccati_flow(t: ArrayLike, U0: ArrayLike, B_tilde: ArrayLike, kappa: ArrayLike) -> Float[Array, "... d d"]:
    r"""Gram matrix of a whitened encoder under the flow of the quartic landscape, from any start.

    .. math:: \dot U = 2U\tilde B - 4\kappa UU^\top U, \qquad
        U^\top U(t) = e^{2\tilde Bt}U_0^\top\big[I_m + 8\kappa U_0JU_0^\top\big]^{-1}U_0e^{2\tilde Bt}, \qquad
        J = \int_0^t e^{4\tilde Bs}ds

    It is computed in the eigenbasis of B_tilde, with the triangular factor of U0 in it, row by row relative to the
    growth of the row's own mode: no exponent is positive, so that nothing overflows at any t.

    Args:
        t: Time, zero or positive. Shape (...).
        U0: W Sigma^(1/2) at time 0; it may lack rank. Shape (m, d).
        B_tilde: Sigma^(-1/2) B Sigma^(-1/2), symmetric, eigenvalues of any sign. Shape (d, d).
        kappa: Coefficient of the quartic term, positive. A number.

    Returns:
        U^T U(t), whose eigenvalues are the strengths of the modes. Shape (..., d, d).

    Valid: the flow of W for Sigma = I; for Sigma = s I with s t for t; for any Sigma the flow that is preconditioned,
        dW/dt = -grad L Sigma^(-1). A mode whose part in U0 is below 1e-15 of the largest (1e-6 in float32) counts as
        absent, and an absent mode is never learned. Derivatives where the eigenvalues of B_tilde are distinct.
    Raises: ValueError for a negative or infinite t, matrices that do not fit or are not finite, a B_tilde that is not
        symmetric, or a kappa that is not positive (concrete values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: printed values; the formula as it stands in 60 digits (1e-10) up to times at which it overflows; starts
        that lack rank; gradient descent from random weights, order 1 in its step, `sims.ssl_collapse.riccati`.
    """
    nonnegative(t=t)
    finite(t=t, U0=U0)
    number(kappa=kappa)
    positive(kappa=kappa)
    symmetric(B_tilde=B_tilde)
    shape = np.shape(B_tilde)
    if np.ndim(U0) != 2 or np.shape(U0)[1] != shape[0]:
        raise ValueError(f"`U0` must have {shape[0]} columns, as `B_tilde` has, but got shape {np.shape(U0)}.")
    t, U0, B_tilde, kappa = with_one_dtype(t, U0, B_tilde, kappa)
    eigenvalues, vectors = jnp.linalg.eigh(-(B_tilde + B_tilde.T) / 2)  # falling eigenvalues of B_tilde
    R = _echelon(jnp.matmul(U0, vectors, precision="highest"))
    gram = functools.partial(_gram, R=R, eigenvalues=-eigenvalues, vectors=vectors, kappa=kappa)
    return jax.vmap(gram)(t.ravel()).reshape(*t.shape, *shape)


def _echelon(Z):
    """R, shape (d, d), upper triangular, with R^T R = Z^T Z; a column that depends on those before it has no row."""
    m, d = Z.shape
    least = 4 * max(m, d) * jnp.finfo(Z.dtype).eps * jnp.sqrt(jnp.sum(Z**2))

    def column(Q, j):
        rest = Z[:, j]
        for _ in range(2):  # twice, for orthogonality to the last bit
            rest = rest - jnp.sum(Q * jnp.sum(Q * rest[:, None], 0)[None, :], 1)
        square = jnp.sum(rest**2)
        new = square > least**2
        unit = jnp.where(new, rest / jnp.sqrt(jnp.where(new, square, 1.0)), 0.0)
        return Q.at[:, j].set(unit), None

    Q, _ = jax.lax.scan(column, jnp.zeros_like(Z), jnp.arange(d))
    return jnp.triu(jnp.matmul(Q.T, Z, precision="highest"))


def _gram(t, R, eigenvalues, vectors, kappa):
    grows = jnp.maximum(eigenvalues, 0.0)
    # Row i is divided by the growth of mode i. Below the diagonal R is 0.
    start = R * jnp.exp(2 * t * jnp.minimum(eigenvalues[None, :] - grows[:, None], 0.0))
    past = R * jnp.exp(2 * t * jnp.minimum(grows[None, :] - grows[:, None], 0.0))
    past = past * jnp.sqrt(t * mean_decay(4 * t * jnp.abs(eigenvalues)))[None, :]
    shrunk = jnp.where(jnp.diagonal(R) > 0, jnp.exp(-4 * t * grows), 1.0)
    bracket = jnp.diag(shrunk) + 8 * kappa * jnp.matmul(past, past.T, precision="highest")
    half = jax.scipy.linalg.solve_triangular(jnp.linalg.cholesky(bracket), start @ vectors.T, lower=True)
    return jnp.matmul(half.T, half, precision="highest")
