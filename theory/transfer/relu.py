"""Linear transfer between two-layer ReLU networks: what the trained features cannot express."""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import finite, integer, nonnegative, together, with_one_dtype
from theory.gaussian_kernels import relu_kernel


def relu_floor(target_neurons: ArrayLike, target_coefficients: ArrayLike, features: ArrayLike) -> Float[Array, ""]:
    r"""Squared distance of a ReLU target from the span of trained ReLU features.

    .. math:: |P_\perp f_t|^2 = c_t^\top K_{tt} c_t - k^\top K_{ff}^+ k, \qquad k = K_{ft} c_t,
        \qquad f_t(x) = \sum_k c_k (a_k^\top x)_+

    Args:
        target_neurons: Rows a_k. Shape (p, d).
        target_coefficients: c_k, with every prefactor, in units of y / (a x). Shape (p,).
        features: Rows w_i of the trained first layer; their scale is irrelevant. Shape (m, d).

    Returns:
        The floor of the linear probe's risk, in units of y^2. A number.

    Valid: exact for x ~ N(0, I_d) and infinitely many samples.
    Raises: ValueError if the shapes do not match.
    Source: derived here from the arc-cosine kernel; arXiv:2410.08194, section on ReLU networks.
    Checked: reference value, 0 for features that contain the target, least squares on many samples,
        duplicated and rescaled features, gradients.
    """
    a, c, w = with_one_dtype(target_neurons, target_coefficients, features)
    if a.ndim != 2 or w.ndim != 2 or c.shape != a.shape[:1] or w.shape[1] != a.shape[1]:
        raise ValueError(
            "`target_neurons`, `target_coefficients` and `features` must have shapes "
            f"(p, d), (p,) and (m, d), but got {a.shape}, {c.shape} and {w.shape}."
        )
    norms = jnp.sqrt(jnp.sum(w**2, axis=1, keepdims=True))
    w = w / jnp.where(norms > 0, norms, 1.0)
    k = relu_kernel(w, a) @ c
    inverse = jnp.linalg.pinv(relu_kernel(w, w), hermitian=True)
    return jnp.maximum(c @ relu_kernel(a, a) @ c - k @ inverse @ k, 0.0)


def relu_linear_transfer_risk(floor: ArrayLike, n: ArrayLike, width: ArrayLike) -> Float[Array, "..."]:
    r"""Excess risk of a ridgeless probe on m nonlinear features, no label noise.

    .. math:: R_{lt} \approx |P_\perp f_t|^2 \Big(1 + \frac m{n - m - 1}\Big)

    Args:
        floor: |P_perp f_t|^2 of `relu_floor`, in units of y^2. Shape (...).
        n: Number of samples, a whole number from 1. Shape (...).
        width: Number m of linearly independent features, a whole number from 1. Shape (...).

    Returns:
        The risk, in units of y^2; inf for n <= m + 1, where the formula does not hold.
        Shape: broadcast.

    Valid: approximate, n well above m: exact only if residual and features were Gaussian.
    Raises: ValueError for floor < 0, or n or m not whole or < 1 (concrete values only).
    Source: derived here, as for Gaussian features.
    Checked: limit n -> infinity; least squares of a random ReLU network at n = 10 m (5 %).
    """
    nonnegative(floor=floor)
    finite(floor=floor)
    integer(1, n=n, width=width)
    floor, n, m = together(floor, n, width)
    enough = n > m + 1
    return jnp.where(enough, floor * (1 + m / jnp.where(enough, n - m - 1, 1.0)), jnp.inf)
