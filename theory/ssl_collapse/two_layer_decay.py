"""Weight decay on two layers or more: collapse is a transition of first order, with hysteresis.

Decay lambda (|W1|_F^2 + ... + |WL|_F^2) on the quartic landscape of `effective_landscape`, with B and Sigma in a common
eigenbasis. p is the singular value of the product of all layers on one mode. Every stationary point is balanced.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import finite, nonnegative, positive, require, together
from theory.roots import increasing_root, safe_sqrt


class CriticalDecay(NamedTuple):
    """Decay from which on a mode's collapsed state is the better one, and up to which its learned state exists."""

    transition: Float[Array, "..."]
    spinodal: Float[Array, "..."]


def two_layer_potential(
    p: ArrayLike,
    b: ArrayLike,
    sigma: ArrayLike,
    kappa: ArrayLike,
    weight_decay: ArrayLike = 0.0,
    depth: ArrayLike = 2,
) -> Float[Array, "..."]:
    r"""Loss of one mode over the product of its layers, with each product in its cheapest layers.

    .. math:: \ell(p) = -bp^2 + \kappa\Sigma_i^2p^4 + \lambda L|p|^{2/L}

    For two layers the decay is the nuclear norm of their product: min |W1|^2 + |W2|^2 = 2 |W2 W1|_*.

    Args:
        p: Singular value of the product of all layers. Shape (...).
        b: Eigenvalue of B, of any sign; without decay. Shape (...).
        sigma: Sigma_i, eigenvalue of the covariance of views, positive. Shape (...).
        kappa: Coefficient of the quartic term, positive. Shape (...).
        weight_decay: lambda, zero or positive. Shape (...).
        depth: L, number of layers, 1 or more. Shape (...).

    Returns:
        The loss. Shape: the arguments, broadcast.

    Valid: balanced, aligned layers; exact for the losses for which `effective_landscape` is.
    Raises: ValueError for a sigma or kappa that is not positive, a negative decay, or fewer than one layer (concrete
        values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: the loss of matrices, minimised over the layers of one product.
    """
    finite(p=p)
    b, sigma, kappa, decay, L, p = _checked(b, sigma, kappa, weight_decay, depth, p)
    size = jnp.abs(p)
    cost = jnp.where(size > 0, jnp.where(size > 0, size, 1.0) ** (2 / L), 0.0)
    return -b * p**2 + kappa * (sigma * p**2) ** 2 + decay * L * cost


def two_layer_critical_decay(b: ArrayLike, sigma: ArrayLike, kappa: ArrayLike, depth: ArrayLike = 2) -> CriticalDecay:
    r"""Weight decays at which a mode of two layers, or more, stops being the best state, and stops being a state.

    .. math:: \lambda_c = \frac b{2L-1}\,p_c^{2-2/L}, \quad p_c^2 = \frac{(L-1)b}{(2L-1)\kappa\Sigma_i^2}, \qquad
        \lambda_{sp} = \frac{Lb}{2L-1}\,p_{sp}^{2-2/L}, \quad p_{sp}^2 = \frac{p_c^2}2

    .. math:: L = 2: \quad \lambda_c = \frac{b^{3/2}}{3\Sigma_i\sqrt{3\kappa}}, \qquad
        \lambda_{sp} = \sqrt2\,\lambda_c; \qquad L = 1: \quad \lambda_c = \lambda_{sp} = b

    Below the spinodal the collapsed state is a minimum too, at every lambda > 0; a single layer has one state.

    Args:
        b: Eigenvalue of B, of any sign; without decay. Shape (...).
        sigma: Sigma_i, eigenvalue of the covariance of views, positive. Shape (...).
        kappa: Coefficient of the quartic term, positive. Shape (...).
        depth: L, number of layers, 1 or more. Shape (...).

    Returns:
        `CriticalDecay(transition, spinodal)`; 0 where b is not positive. Shapes: the arguments, broadcast.

    Valid: as `two_layer_potential`.
    Raises: ValueError as `two_layer_potential`.
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: stationarity of the potential; simulations `hysteresis` (depths 1 to 3), `two_layer_minibatch`.
    """
    b, sigma, kappa, _, L = _checked(b, sigma, kappa, 0.0, depth)
    edge, _ = _edge(b, sigma, kappa, L)
    scale = jnp.maximum(b, 0) / (2 * L - 1)
    power = 1 - 1 / L
    return CriticalDecay(scale * (2 * edge) ** power, L * scale * edge**power)


def two_layer_strength(
    b: ArrayLike,
    sigma: ArrayLike,
    kappa: ArrayLike,
    weight_decay: ArrayLike = 0.0,
    depth: ArrayLike = 2,
    *,
    lowest: bool = False,
) -> Float[Array, "..."]:
    r"""Singular value of the product of two layers, or more, in a mode's learned state: the largest root of

    .. math:: p^{2-2/L}\,(b - 2\kappa\Sigma_i^2p^2) = \lambda, \qquad
        L = 2: \quad p = 2p_{sp}\cos\Big[\frac\pi6 + \frac13\arcsin\frac\lambda{\lambda_{sp}}\Big]

    Args:
        b: Eigenvalue of B, of any sign; without decay. Shape (...).
        sigma: Sigma_i, eigenvalue of the covariance of views, positive. Shape (...).
        kappa: Coefficient of the quartic term, positive. Shape (...).
        weight_decay: lambda, zero or positive. Shape (...).
        depth: L, number of layers, 1 or more. Shape (...).
        lowest: The state of lowest loss, collapsed from the transition on, for the learned state, which is metastable
            from there to the spinodal.

    Returns:
        p; 0 past the spinodal (past the transition if `lowest`). Embedding variance Sigma_i p^2. Shape: the arguments,
        broadcast.

    Valid: as `two_layer_potential`; derivatives of first order.
    Raises: ValueError as `two_layer_potential`.
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: closed forms at L = 1 and 2; stationarity; simulations `hysteresis` (depths 1 to 3), `two_layer_minibatch`.
    """
    b, sigma, kappa, decay, L = _checked(b, sigma, kappa, weight_decay, depth)
    ends = two_layer_critical_decay(b, sigma, kappa, L)
    alive = decay < (ends.transition if lowest else ends.spinodal)
    b, decay = jnp.where(alive, b, 1.0), jnp.where(alive, decay, 0.0)
    edge, limit = _edge(b, sigma, kappa, L)
    pull = _pull(b, sigma, kappa, L)
    return jnp.where(alive, increasing_root(lambda p: decay - pull(p), jnp.sqrt(edge), limit), 0.0)


def two_layer_barrier(
    b: ArrayLike, sigma: ArrayLike, kappa: ArrayLike, weight_decay: ArrayLike, depth: ArrayLike = 2
) -> Float[Array, "..."]:
    r"""Product of balanced layers below which a mode collapses: the smaller positive root of

    .. math:: p^{2-2/L}\,(b - 2\kappa\Sigma_i^2p^2) = \lambda, \qquad
        L = 2: \quad p = 2p_{sp}\sin\Big[\frac13\arcsin\frac\lambda{\lambda_{sp}}\Big] \approx \frac\lambda b

    Args:
        b: Eigenvalue of B, of any sign; without decay. Shape (...).
        sigma: Sigma_i, eigenvalue of the covariance of views, positive. Shape (...).
        kappa: Coefficient of the quartic term, positive. Shape (...).
        weight_decay: lambda, zero or positive. Shape (...).
        depth: L, number of layers, 1 or more. Shape (...).

    Returns:
        The barrier: a mode is learned from p0 above it. 0 for a single layer or no decay, infinity past the spinodal.
        Shape: the arguments, broadcast.

    Valid: balanced, aligned layers at the start.
    Raises: ValueError as `two_layer_potential`.
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: closed form at L = 2; the flow on both sides; simulation `hysteresis`.
    """
    b, sigma, kappa, decay, L = _checked(b, sigma, kappa, weight_decay, depth)
    alive = decay < two_layer_critical_decay(b, sigma, kappa, L).spinodal
    several = alive & (L > 1) & (decay > 0)
    b, L = jnp.where(several, b, 1.0), jnp.where(several, L, 2.0)
    decay = jnp.where(several, decay, two_layer_critical_decay(b, sigma, kappa, L).spinodal / 2)
    edge, _ = _edge(b, sigma, kappa, L)
    pull = _pull(b, sigma, kappa, L)
    # The barrier without the quartic term is nearer to 0.
    low = jnp.minimum((decay / b) ** (0.5 / (1 - 1 / L)), jnp.sqrt(edge)) / 2
    root = increasing_root(lambda p: pull(p) - decay, low, jnp.sqrt(edge))
    return jnp.where(several, root, jnp.where(alive, 0.0, jnp.inf))


def _checked(b, sigma, kappa, decay, depth, *others):
    finite(b=b)
    positive(sigma=sigma, kappa=kappa)
    nonnegative(weight_decay=decay)
    require(jnp.asarray(depth) >= 1, "depth", "1 or more", depth)
    return together(b, sigma, kappa, decay, depth, *others)


def _edge(b, sigma, kappa, L):
    """p_sp^2, and p_inf; 0 where b is not positive."""
    square = jnp.maximum(b, 0) / (2 * kappa * sigma**2)
    return square * (L - 1) / (2 * L - 1), safe_sqrt(square)


def _pull(b, sigma, kappa, L):
    """The decay at which p is stationary."""
    return lambda p: p ** (2 - 2 / L) * (b - 2 * kappa * (sigma * p) ** 2)
