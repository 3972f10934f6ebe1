"""What fine-tuning minimises among all interpolators: the potential of its implicit bias."""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import depth_of_network, finite, nonnegative, together
from theory.roots import safe_sqrt


def implicit_bias_potential(norm: ArrayLike, depth: ArrayLike = 2) -> Float[Array, "..."]:
    r"""Potential that gradient flow of a balanced linear network minimises.

    .. math:: q(\beta) = |\beta|^{1 + 1/L}, \qquad
        \hat\beta = \arg\min_{X\beta = y} q(\beta) - \nabla q(\beta_s)^\top \beta

    Args:
        norm: |beta|, zero or positive, in units of y. Shape (...).
        depth: Number L of layers, from 1, or infinity. Shape (...).

    Returns:
        q, in units of y^{1 + 1/L}. Shape: the arguments, broadcast.

    Valid: balanced rank-one start at beta_s.
    Raises: ValueError for a negative norm, or depth not a whole number from 1 (concrete values).
    Source: Azulay et al. (2021); derived here for every L.
    Checked: its numerical minimum is `fine_tuning_endpoint` (1e-6).
    """
    nonnegative(norm=norm)
    depth_of_network(depth)
    norm, depth = together(norm, depth)
    return norm ** (1 + 1 / depth)


def unbalanced_bias_potential(norm: ArrayLike, imbalance: ArrayLike) -> Float[Array, "..."]:
    r"""Potential that gradient flow of an unbalanced two-layer network minimises.

    .. math:: q(x) = \tfrac32 \int_0^x \Big(\sqrt{z^2 + \delta^2/4} - \tfrac\delta2\Big)^{1/2} dz
        = \tfrac12 a (3 u^2 - a^2) + \tfrac12 \delta_+^{3/2},
        \qquad a u = x, \quad a^2 - u^2 = \delta

    With it, :math:`\hat\beta = \arg\min_{X\beta = y} q(|\beta|) - \nabla q(|\beta_0|)^\top \beta`.

    Args:
        norm: x = |beta|, zero or positive, in units of y. Shape (...).
        imbalance: delta = a_0^2 - s^2, head against first layer, in units of y. Shape (...).

    Returns:
        q, in units of y^{3/2}; x^{3/2} at delta = 0. Shape: the arguments, broadcast.

    Valid: rank-one start, and a final head a > 0.
    Raises: ValueError for a negative norm or a value that is not finite (concrete values only).
    Source: derived here; Azulay et al. (2021) for the form of the flow.
    Checked: reference value, quadrature of its derivative (1e-9), its numerical minimum is
        `fine_tuning_head_endpoint` (1e-6).
    """
    nonnegative(norm=norm)
    finite(norm=norm, imbalance=imbalance)
    x, delta = together(norm, imbalance)
    r = safe_sqrt(x**2 + delta**2 / 4)
    larger2 = r + jnp.abs(delta) / 2  # of a^2 and u^2
    smaller2 = x**2 / jnp.where(larger2 > 0, larger2, 1.0)
    larger = safe_sqrt(larger2)
    heavy_head, heavy_layer = safe_sqrt(delta), safe_sqrt(-delta)
    # delta >= 0: a is the larger, and a^3 - delta^{3/2} = u^2 (a^2 + a c + c^2) / (a + c)
    c, a = heavy_head, jnp.where(delta >= 0, larger, 1.0)
    a_plus_c = jnp.where(a + c > 0, a + c, 1.0)
    above = smaller2 * (3 * a - (a**2 + a * c + c**2) / a_plus_c) / 2
    below = safe_sqrt(smaller2) * (2 * larger2 + heavy_layer**2) / 2
    return jnp.where(delta >= 0, above, below)
