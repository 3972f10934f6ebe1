r"""What SGD samples instead of its loss, and the current that never rests.

Position :math:`\theta` is measured from the minimum of the loss with its weight decay.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import below_one, finite, nonnegative, positive, with_one_dtype
from theory.sgd_limit.diffusion import require_positive
from theory.sgd_limit.langevin import inverse_temperature


class LangevinMatrices(NamedTuple):
    """Drift A, diffusion D, circulation Q and potential U of (theta, v): A = (D + Q) U."""

    A: Float[Array, "2d 2d"]
    D: Float[Array, "2d 2d"]
    Q: Float[Array, "2d 2d"]
    U: Float[Array, "2d 2d"]


class Current(NamedTuple):
    """A vector field over phase space: its position and velocity components."""

    theta: Float[Array, "... d"]
    v: Float[Array, "... d"]


def langevin_matrices(
    hessian: ArrayLike, eta: ArrayLike, beta: ArrayLike, weight_decay: ArrayLike = 0.0
) -> LangevinMatrices:
    r"""Drift of SGD in phase space, taken apart into what dissipates and what circulates.

    .. math:: A = \begin{pmatrix} 0 & -I \\ \frac2{\eta(1 + \beta)}(H + \lambda I) & 2\gamma I \end{pmatrix}, \quad
        D = \begin{pmatrix} 0 & 0 \\ 0 & 2\gamma H \end{pmatrix}, \quad
        Q = \begin{pmatrix} 0 & -H \\ H & 0 \end{pmatrix}, \quad
        U = \begin{pmatrix} \frac2{\eta(1 + \beta)}H^{-1}(H + \lambda I) & 0 \\ 0 & H^{-1} \end{pmatrix}

    with :math:`\gamma = \frac{1 - \beta}{\eta(1 + \beta)}`, in :math:`dz = -Az\,dt + \sqrt{2D/\kappa}\,dW`.

    Args:
        hessian: H, symmetric and positive definite. Shape (d, d).
        eta: Learning rate, positive. A number.
        beta: Momentum, from 0 to below 1. A number.
        weight_decay: lambda, zero or positive. A number.

    Returns:
        `LangevinMatrices(A, D, Q, U)`. Shapes (2d, 2d).

    Valid: gradient noise of covariance sigma^2 H / S, eta -> 0.
    Raises: ValueError for an argument out of its range, or H not symmetric and positive definite (concrete values
        only).
    Source: arXiv:2107.09133 [paper].
    Checked: A = (D + Q) U; the covariance of `stationary_decomposition` is U^-1 / kappa (1e-9).
    """
    H, eta, beta, decay = _given(hessian, eta, beta, weight_decay)
    one, none = jnp.eye(len(H), dtype=H.dtype), jnp.zeros_like(H)
    stiff, rate = 2 / (eta * (1 + beta)), 2 * (1 - beta) / (eta * (1 + beta))
    inverse = jnp.linalg.inv(H)
    return LangevinMatrices(
        A=jnp.block([[none, -one], [stiff * (H + decay * one), rate * one]]),
        D=jnp.block([[none, none], [none, rate * H]]),
        Q=jnp.block([[none, -H], [H, none]]),
        U=jnp.block([[stiff * (one + decay * inverse), none], [none, inverse]]),
    )


def modified_loss(
    theta: ArrayLike,
    v: ArrayLike,
    hessian: ArrayLike,
    eta: ArrayLike,
    beta: ArrayLike,
    weight_decay: ArrayLike = 0.0,
) -> Float[Array, "..."]:
    r"""Potential that SGD samples in place of its loss.

    .. math:: \Phi = \frac1{\eta(1 + \beta)}\theta^\top(I + \lambda H^{-1})\theta + \tfrac12 v^\top H^{-1}v, \qquad
        p \propto e^{-\kappa\Phi}

    Args:
        theta: Position, from the minimum. Shape (..., d).
        v: Velocity, in units of theta / t. Shape (..., d).
        hessian: H, symmetric and positive definite. Shape (d, d).
        eta: Learning rate, positive. A number.
        beta: Momentum, from 0 to below 1. A number.
        weight_decay: lambda, zero or positive. A number.

    Returns:
        Phi, in units of loss over curvature times 1 / t. Shape (...).

    Valid: as `langevin_matrices`. Without decay it is isotropic in the position, whatever H is.
    Raises: ValueError as `langevin_matrices`, or for vectors that do not fit.
    Source: arXiv:2107.09133 [paper].
    Checked: U of `langevin_matrices`; `phase_space_covariance` in continuous time.
    """
    H, eta, beta, decay = _given(hessian, eta, beta, weight_decay)
    theta, v = _vectors(H, theta, v)
    position = theta * (theta + decay * _over(H, theta)) / (eta * (1 + beta))
    return jnp.sum(position + v * _over(H, v) / 2, -1)


def stationary_density(
    theta: ArrayLike,
    v: ArrayLike,
    hessian: ArrayLike,
    eta: ArrayLike,
    beta: ArrayLike,
    batch: ArrayLike,
    weight_decay: ArrayLike = 0.0,
    sigma: ArrayLike = 1.0,
) -> Float[Array, "..."]:
    r"""Stationary density of SGD over phase space.

    .. math:: p = \Big(\frac\kappa{2\pi}\Big)^d \sqrt{\det U}\;e^{-\kappa\Phi}

    Args:
        theta: Position, from the minimum. Shape (..., d).
        v: Velocity, in units of theta / t. Shape (..., d).
        hessian: H, symmetric and positive definite. Shape (d, d).
        eta: Learning rate, positive. A number.
        beta: Momentum, from 0 to below 1. A number.
        batch: Batch size S, a whole number from 1. A number.
        weight_decay: lambda, zero or positive. A number.
        sigma: Standard deviation of the residuals, positive. A number.

    Returns:
        p, per unit of theta^d v^d. Shape (...).

    Valid: as `langevin_matrices`.
    Raises: ValueError as `modified_loss` and `inverse_temperature`.
    Source: arXiv:2107.09133 [paper].
    Checked: Gaussian of covariance U^-1 / kappa (scipy); the stationary Fokker-Planck equation.
    """
    energy = modified_loss(theta, v, hessian, eta, beta, weight_decay)
    H, eta, beta, decay = _given(hessian, eta, beta, weight_decay)
    kappa = inverse_temperature(beta, batch, sigma)
    energy, kappa = with_one_dtype(energy, kappa)
    d = len(H)
    inverse = jnp.linalg.inv(H)
    _, volume = jnp.linalg.slogdet((jnp.eye(d, dtype=H.dtype) + decay * inverse) @ inverse)
    volume = volume + d * jnp.log(2 / (eta * (1 + beta)))
    return jnp.exp(d * jnp.log(kappa / (2 * jnp.pi)) + volume / 2 - kappa * energy)


def probability_current(
    theta: ArrayLike,
    v: ArrayLike,
    hessian: ArrayLike,
    eta: ArrayLike,
    beta: ArrayLike,
    batch: ArrayLike,
    weight_decay: ArrayLike = 0.0,
    sigma: ArrayLike = 1.0,
) -> Current:
    r"""Stationary probability current of SGD in phase space.

    .. math:: J = -Q\,U\begin{pmatrix} \theta \\ v \end{pmatrix} p
        = \begin{pmatrix} v \\ -\frac2{\eta(1 + \beta)}(H + \lambda I)\,\theta \end{pmatrix} p

    Args:
        theta: Position, from the minimum. Shape (..., d).
        v: Velocity, in units of theta / t. Shape (..., d).
        hessian: H, symmetric and positive definite. Shape (d, d).
        eta: Learning rate, positive. A number.
        beta: Momentum, from 0 to below 1. A number.
        batch: Batch size S, a whole number from 1. A number.
        weight_decay: lambda, zero or positive. A number.
        sigma: Standard deviation of the residuals, positive. A number.

    Returns:
        `Current(theta, v)`: clockwise in the plane of x and v of each mode, at its frequency omega. Shapes (..., d).

    Valid: as `langevin_matrices`.
    Raises: ValueError as `stationary_density`.
    Source: arXiv:2107.09133 [paper].
    Checked: -Q U z p of `langevin_matrices`; without divergence (automatic differentiation).
    """
    p = stationary_density(theta, v, hessian, eta, beta, batch, weight_decay, sigma)
    H, eta, beta, decay = _given(hessian, eta, beta, weight_decay)
    theta, v = _vectors(H, theta, v)
    pull = jnp.einsum("ij,...j->...i", H, theta) + decay * theta
    return Current(v * p[..., None], -2 / (eta * (1 + beta)) * pull * p[..., None])


def _given(hessian, eta, beta, weight_decay):
    positive(eta=eta)
    below_one(beta=beta)
    nonnegative(weight_decay=weight_decay)
    H, eta, beta, decay = with_one_dtype(hessian, eta, beta, weight_decay)
    require_positive("hessian", H)
    return H, eta, beta, decay


def _vectors(H, theta, v):
    finite(theta=theta, v=v)
    theta, v, _ = with_one_dtype(theta, v, H)
    for name, x in (("theta", theta), ("v", v)):
        if x.ndim < 1 or x.shape[-1] != len(H):
            raise ValueError(f"`{name}` must have shape (..., {len(H)}), but got {x.shape}.")
    shape = jnp.broadcast_shapes(theta.shape, v.shape)
    return jnp.broadcast_to(theta, shape), jnp.broadcast_to(v, shape)


def _over(H, x):
    """H^-1 x of every vector."""
    return jnp.linalg.solve(H, x.reshape(-1, len(H)).T).T.reshape(x.shape)
