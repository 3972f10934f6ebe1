"""Stationary law of a linear diffusion, and the current that noise of another shape than the drift keeps up."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import finite, nonnegative, require, traced, with_one_dtype

SYMMETRIC = 1e-5  # relative asymmetry that passes for rounding


class Decomposition(NamedTuple):
    """Stationary covariance B, its inverse U, and the antisymmetric Q that drives the current."""

    B: Float[Array, "n n"]
    U: Float[Array, "n n"]
    Q: Float[Array, "n n"]


def stationary_decomposition(A: ArrayLike, D: ArrayLike, step: ArrayLike = 0.0) -> Decomposition:
    r"""Stationary law and current of a linear diffusion.

    .. math:: dx = -Ax\,dt + \sqrt{2D}\,dW: \qquad AB + BA^\top = 2D, \quad U = B^{-1}, \quad
        Q = \tfrac12(AB - BA^\top) = AB - D, \quad A = (D + Q)U

    and, for its Euler steps :math:`x \leftarrow x - \epsilon Ax + \sqrt{2\epsilon D}\,\xi`,
    :math:`AB + BA^\top - \epsilon ABA^\top = 2D`.

    Args:
        A: Drift, its eigenvalues with positive real parts, in units of 1 / t. Shape (n, n).
        D: Diffusion, symmetric and positive semidefinite, in units of x^2 / t. Shape (n, n).
        step: epsilon, zero for the diffusion itself. A number.

    Returns:
        `Decomposition(B, U, Q)`: covariance, inverse covariance, and the antisymmetric part of AB; the current is
        -Q U x times the density. Shapes (n, n).

    Valid: every stable A whose noise reaches all directions; n small, for n^2 equations are solved.
    Raises: ValueError for matrices that do not fit, D not symmetric and positive semidefinite, or A unstable (concrete
        values only).
    Source: arXiv:2107.09133 [paper]; for Euler steps derived here.
    Checked: reference value; the paper's form in the eigenbasis of a symmetric A; A = (D + Q) U; iterated Euler steps;
        `langevin_matrices`; simulation `sims.sgd_limit.currents`.
    """
    A, D, step = with_one_dtype(A, D, step)
    _require_square("A", A)
    require_positive("D", D, strictly=False)
    if A.shape != D.shape:
        raise ValueError(f"`A` and `D` must have one shape, but got {A.shape} and {D.shape}.")
    nonnegative(step=step)
    if not traced(A, step):
        eigenvalues = np.linalg.eigvals(np.asarray(A))
        require((eigenvalues.real > 0).all(), "A", "of eigenvalues with positive real parts", eigenvalues.real.min())
        growth = np.abs(1 - float(step) * eigenvalues).max()
        require(float(step) == 0 or growth < 1, "step", "so small that its steps are stable", step)
    n = len(A)
    one = jnp.eye(n, dtype=A.dtype)
    equations = jnp.kron(A, one) + jnp.kron(one, A) - step * jnp.kron(A, A)
    B = jnp.linalg.solve(equations, 2 * D.ravel()).reshape(n, n)
    B = (B + B.T) / 2
    return Decomposition(B, jnp.linalg.inv(B), (A @ B - B @ A.T) / 2)


def _require_square(name, M):
    if M.ndim != 2 or M.shape[0] != M.shape[1]:
        raise ValueError(f"`{name}` must have shape (n, n), but got {M.shape}.")


def require_positive(name, M, strictly=True):
    """Requirement that a matrix is symmetric, and positive definite or semidefinite."""
    _require_square(name, M)
    if traced(M):
        return
    finite(**{name: M})
    M = np.asarray(M)
    size = np.abs(M).max()
    if (off := np.abs(M - M.T).max()) > SYMMETRIC * size:
        raise ValueError(f"`{name}` must be symmetric, but differs from its transpose by {off:.6g}.")
    least = np.linalg.eigvalsh(M)[0]
    words = f"of eigenvalues that are {'positive' if strictly else 'zero or positive'}"
    require(least > 0 if strictly else least >= -SYMMETRIC * size, name, words, least)
