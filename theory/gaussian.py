"""Gaussian laws: distances between them, and the kernel of rectified Gaussian features."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from theory.roots import safe_sqrt


@jax.custom_jvp
def arc_cosine_kernel(cosine: Float[Array, "..."]) -> Float[Array, "..."]:
    r"""Mean product of two rectified standard Gaussians with a given correlation.

    .. math:: \mathbb E[(z)_+ (z')_+] = \frac{\sqrt{1 - u^2} + u\,(\pi - \arccos u)}{2\pi}

    Args:
        cosine: The correlation u of z and z', in [-1, 1]; dimensionless. Shape (...).

    Returns:
        The kernel, between 0 (u = -1) and 1/2 (u = 1). Shape (...).

    Valid: exact; values of u beyond [-1, 1] by rounding are clipped.
    Source: Cho and Saul (2009), arc-cosine kernel of degree one, times 1/2.
    Checked: mpmath integral over the wedge (1e-10), derivative at u = -1 and 1.
    """
    u = jnp.clip(cosine, -1.0, 1.0)
    return (jnp.sqrt(1 - u**2) + u * (jnp.pi - jnp.arccos(u))) / (2 * jnp.pi)


@arc_cosine_kernel.defjvp
def _arc_cosine_kernel_jvp(primals, tangents):
    (u,), (du,) = primals, tangents
    slope = (jnp.pi - jnp.arccos(jnp.clip(u, -1.0, 1.0))) / (2 * jnp.pi)
    return arc_cosine_kernel(u), slope * du


def relu_kernel(weights: Float[Array, "..."], others: Float[Array, "..."]) -> Float[Array, "..."]:
    r"""Gram matrix of ReLU features under standard Gaussian inputs.

    .. math:: K_{ik} = \mathbb E_x[(a_i^\top x)_+ (c_k^\top x)_+]
        = \frac{|a_i||c_k|}{2\pi}\big(\sqrt{1 - u^2} + u(\pi - \arccos u)\big),
        \quad u = \frac{a_i^\top c_k}{|a_i||c_k|}

    Args:
        weights: Rows a_i, one per feature. Shape (m, d).
        others: Rows c_k. Shape (p, d).

    Returns:
        The Gram matrix, in units of |a||c|. Shape (m, p).

    Valid: exact for x ~ N(0, I_d).
    Raises: ValueError if the rows have different lengths.
    Source: Cho and Saul (2009); arXiv:2410.08194, section on ReLU networks.
    Checked: Monte Carlo; u = -1, 0, 1; homogeneity; gradients, also between equal rows.
    """
    if weights.ndim != 2 or others.ndim != 2 or weights.shape[1] != others.shape[1]:
        raise ValueError(
            "`weights` and `others` must be matrices with equally long rows, "
            f"but got shapes {weights.shape} and {others.shape}."
        )
    norms = safe_sqrt(jnp.sum(weights**2, axis=1, keepdims=True))
    other_norms = safe_sqrt(jnp.sum(others**2, axis=1, keepdims=True))
    units = weights / jnp.where(norms > 0, norms, 1.0)
    other_units = others / jnp.where(other_norms > 0, other_norms, 1.0)
    return norms * other_norms.T * arc_cosine_kernel(units @ other_units.T)


def wasserstein2(factor: Float[Array, "..."], other: Float[Array, "..."]) -> Float[Array, "..."]:
    r"""Wasserstein-2 distance between the zero-mean Gaussians of covariance A A^T and C C^T.

    .. math:: W_2^2 = \mathrm{tr}\big(\Sigma + \Sigma' - 2(\Sigma^{1/2}\Sigma'\Sigma^{1/2})^{1/2}\big)
        = \min_{O \in O(k)} |A - C O|_F^2

    The minimum over orthogonal matrices does not cancel, so small distances stay accurate; the
    best O is held fixed in the gradient, which the envelope theorem makes exact.

    Args:
        factor: Any square root A of the first covariance, Sigma = A A^T. Shape (..., k, k).
        other: Any square root C of the second covariance. Shape (..., k, k).

    Returns:
        The distance, not squared. Shape (...).

    Valid: exact, singular covariances included; derivatives of first order; the gradient where
        the distance is 0 is 0.
    Source: Dowson and Landau (1982); the second form derived here.
    Checked: matrix square roots of the first form (1e-10), distance 0, commuting covariances.
    """
    left, _, right = jnp.linalg.svd(jnp.swapaxes(other, -1, -2) @ factor, full_matrices=False)
    rotation = jax.lax.stop_gradient(left @ right)
    return safe_sqrt(jnp.sum((factor - other @ rotation) ** 2, axis=(-2, -1)))


def mmd(covariance: Float[Array, "..."], other: Float[Array, "..."], bandwidth: float | Array) -> Float[Array, "..."]:
    r"""Gaussian-kernel maximum mean discrepancy between two zero-mean Gaussians.

    .. math:: \mathrm{MMD}^2 = f(2\Sigma) + f(2\Sigma') - 2 f(\Sigma + \Sigma'),
        \qquad f(A) = \det(I + A / \ell^2)^{-1/2},
        \qquad k(z, z') = e^{-|z - z'|^2 / (2\ell^2)}

    Args:
        covariance: Sigma, symmetric and nonnegative. Shape (..., k, k).
        other: Sigma'. Shape (..., k, k).
        bandwidth: The kernel's length l, positive, in units of z. A number.

    Returns:
        The discrepancy, not squared. Shape (...).

    Valid: exact; the three terms cancel, so errors are about 1e-8 where it is near 0 (float64).
    Source: derived here: z - z' is Gaussian.
    Checked: Monte Carlo of the kernel means; the closed form of `theory.transfer.mmd`.
    """

    def mean_kernel(total):
        identity = jnp.eye(total.shape[-1], dtype=total.dtype)
        identity = jnp.broadcast_to(identity, total.shape)
        return 1 / jnp.sqrt(jnp.linalg.det(identity + total / bandwidth**2))

    return safe_sqrt(mean_kernel(2 * covariance) + mean_kernel(2 * other) - 2 * mean_kernel(covariance + other))
