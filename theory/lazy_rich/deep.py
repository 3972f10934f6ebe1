"""Deep linear networks: conserved matrices of neighbouring layers, and the rank-one chain with its implicit bias."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import finite, integer, nonnegative, positive, require, together, traced, with_one_dtype
from theory.lazy_rich.conserved import conserved_quantity
from theory.lazy_rich.implicit_bias import Interpolator, split
from theory.lazy_rich.parameters import batched, norm, require_direction, unit
from theory.roots import newton

NEWTON_STEPS = 40


def deep_conserved_matrices(
    weights: Sequence[ArrayLike], rates: Sequence[ArrayLike] | None = None
) -> list[Float[Array, "..."]]:
    r"""Conserved matrices of the neighbouring layers of a deep linear network.

    .. math:: D_l = \frac{W_{l+1}^\top W_{l+1}}{\eta_{l+1}} - \frac{W_l W_l^\top}{\eta_l}

    Args:
        weights: W_1, ..., W_L of f = W_L ... W_1 x. Shapes (h_l, h_{l-1}).
        rates: Learning rate of each layer, positive; all 1 if None.

    Returns:
        D_1, ..., D_{L-1}. Shapes (h_l, h_l).

    Valid: gradient flow of any loss on any data.
    Raises: ValueError if the shapes do not chain, or a rate is not positive.
    Source: derived here (Arora et al. 2018 for equal rates).
    Checked: adaptive integration (1e-9); `conserved_quantity` of two layers.
    """
    weights, rates = _layers("weights", weights, rates)
    if any(inner.shape[0] != outer.shape[1] for inner, outer in itertools.pairwise(weights)):
        raise ValueError(f"`weights` must chain as W_L ... W_1, but got shapes {[W.shape for W in weights]}.")
    return [
        outer.T @ outer / rates[at + 1] - inner @ inner.T / rates[at]
        for at, (inner, outer) in enumerate(itertools.pairwise(weights))
    ]


def deep_conserved_steps(
    drives: Sequence[ArrayLike], h: ArrayLike, rates: Sequence[ArrayLike] | None = None
) -> list[Float[Array, "..."]]:
    r"""Exact changes of the conserved matrices in one step of gradient descent.

    .. math:: \Delta D_l = h^2 \big(\eta_{l+1} S_{l+1}^\top S_{l+1} - \eta_l S_l S_l^\top\big), \qquad
        S_l = -\frac{\partial L}{\partial W_l}

    Args:
        drives: S_1, ..., S_L; the step is :math:`W_l \mathrel{+}= h\eta_l S_l`. Shapes of the weights.
        h: Step size, in units of time. A number.
        rates: Learning rate of each layer, positive; all 1 if None.

    Returns:
        The changes of `deep_conserved_matrices`. Shapes (h_l, h_l).

    Valid: exact at every step size.
    Raises: ValueError if a rate is not positive.
    Source: derived here.
    Checked: one step of a three-layer network (1e-12).
    """
    drives, rates = _layers("drives", drives, rates)
    finite(h=h)
    _, h = with_one_dtype(drives[0], h)
    return [
        h**2 * (rates[at + 1] * outer.T @ outer - rates[at] * inner @ inner.T)
        for at, (inner, outer) in enumerate(itertools.pairwise(drives))
    ]


def _layers(name, matrices, rates):
    rates = [1.0] * len(matrices) if rates is None else list(rates)
    if len(rates) != len(matrices) or any(jnp.ndim(matrix) != 2 for matrix in matrices):
        shapes = [jnp.shape(matrix) for matrix in matrices]
        raise ValueError(f"`{name}` must be matrices with one rate each, but got {shapes} and {len(rates)} rates.")
    for matrix, rate in zip(matrices, rates, strict=True):
        finite(**{name: matrix})
        positive(rates=rate)
    both = with_one_dtype(*matrices, *rates)
    return both[: len(matrices)], both[len(matrices) :]


class _Chain(NamedTuple):
    """Gain of each outer layer and length of the inner one."""

    a: Array
    w: Array


def _chain(b, delta, depth, eta_a, eta_w):
    r"""Root of :math:`a^L \sqrt{(\eta_w a^2 - \delta)/\eta_a} = b`, in the logarithm of the weaker layer."""
    upstream = delta >= 0
    size = jnp.where(upstream, delta, -delta)
    weak, strong = jnp.where(upstream, 1.0, depth), jnp.where(upstream, depth, 1.0)
    some = b > 0
    goal = 2 * jnp.log(jnp.where(some, b, 1.0)) + jnp.log(eta_a) + depth * jnp.log(eta_w)
    log_size = jnp.where(size > 0, jnp.log(jnp.where(size > 0, size, 1.0)), -jnp.inf)

    def excess(z):
        # Convex and increasing in z: Newton's method descends to the root from any bound above it.
        return weak * z + strong * jnp.log(jnp.exp(z) + size) - goal

    above = jnp.minimum(goal / (weak + strong), (goal - strong * log_size) / weak)
    small = jnp.where(some, jnp.exp(newton(excess, above, NEWTON_STEPS)), 0.0)
    outer, inner = jnp.where(upstream, small + size, small), jnp.where(upstream, small, small + size)
    return _Chain(jnp.sqrt(outer / eta_w), jnp.sqrt(inner / eta_a))


def deep_params_from_beta(
    beta: ArrayLike,
    delta: ArrayLike,
    depth: ArrayLike,
    *,
    eta_a: ArrayLike = 1.0,
    eta_w: ArrayLike = 1.0,
) -> tuple[Float[Array, "... d"], Float[Array, "..."]]:
    r"""Weights of a rank-one chain with a given product and imbalance, and a > 0.

    .. math:: \beta = a^L w, \qquad \delta = \eta_w a^2 - \eta_a \|w\|^2, \qquad
        a^L \sqrt{(\eta_w a^2 - \delta)/\eta_a} = \|\beta\|

    Args:
        beta: The product. Shape (..., d).
        delta: The conserved quantity of the first layer and each of the others. Shape (...).
        depth: Number L of mutually balanced layers of gain a after the first, a whole number from 1. Shape (...).
        eta_a: Learning rate of the gains, positive; relative. Shape (...).
        eta_w: Learning rate of w, positive; relative. Shape (...).

    Returns:
        (w, a), shapes (..., d) and (...). w is the gradient of `deep_mirror_potential` at beta.

    Valid: everywhere but beta = 0 with delta < 0.
    Raises: ValueError there, for a depth not whole, a rate that is not positive, or values that are not finite.
    Source: derived here.
    Checked: product and imbalance of the result (1e-12); `params_from_beta` at depth 1.
    """
    require_direction(beta, delta)
    (beta,), numbers = batched({"beta": beta}, delta=delta, depth=depth, eta_a=eta_a, eta_w=eta_w)
    integer(1, depth=depth)
    positive(eta_a=eta_a, eta_w=eta_w)
    a, length = _chain(norm(beta), *numbers)
    return length[..., None] * unit(beta), a


def deep_ntk_matrix(
    beta: ArrayLike,
    delta: ArrayLike,
    depth: ArrayLike,
    *,
    eta_a: ArrayLike = 1.0,
    eta_w: ArrayLike = 1.0,
) -> Float[Array, "... d d"]:
    r"""Matrix of the neural tangent kernel of a rank-one chain, :math:`\dot\beta = M v`.

    .. math:: M = \eta_w a^{2L} I + L\,\eta_a a^{2L-2} w w^\top

    Args:
        beta: The product a^L w. Shape (..., d).
        delta: The conserved quantity. Shape (...).
        depth: Number L of layers after the first, a whole number from 1. Shape (...).
        eta_a: Learning rate of the gains, positive; relative. Shape (...).
        eta_w: Learning rate of w, positive; relative. Shape (...).

    Returns:
        M. Shape (..., d, d).

    Valid: any data.
    Raises: ValueError as `deep_params_from_beta`.
    Source: derived here.
    Checked: velocity of beta in full matrices (1e-12); `ntk_matrix` at depth 1.
    """
    w, a = deep_params_from_beta(beta, delta, depth, eta_a=eta_a, eta_w=eta_w)
    (w,), (a, depth, eta_a, eta_w) = batched({"w": w}, a=a, depth=depth, eta_a=eta_a, eta_w=eta_w)
    line = w[..., :, None] * w[..., None, :]
    identity = jnp.broadcast_to(jnp.eye(w.shape[-1], dtype=w.dtype), line.shape)
    along = depth * eta_a * a ** (2 * depth - 2)
    return (eta_w * a ** (2 * depth))[..., None, None] * identity + along[..., None, None] * line


def deep_mirror_potential(
    beta_norm: ArrayLike,
    delta: ArrayLike,
    depth: ArrayLike,
    *,
    eta_a: ArrayLike = 1.0,
    eta_w: ArrayLike = 1.0,
) -> Float[Array, "..."]:
    r"""Potential that a rank-one chain minimises among all interpolators.

    .. math:: \Phi_{\delta,L} = \|w\|\|\beta\| - \frac{\eta_w}{\eta_a} \frac{a^{L+2}}{L + 2}, \qquad
        \beta_\infty = \arg\min_{X\beta = y} \Phi_{\delta,L}(\beta) - w_0^\top\beta

    with a and ||w|| as in `deep_params_from_beta`; at delta = 0 and unit rates it is
    :math:`\frac{L+1}{L+2} \|\beta\|^{(L+2)/(L+1)}`.

    Args:
        beta_norm: ||beta||, zero or positive. Shape (...).
        delta: The conserved quantity. Shape (...).
        depth: Number L of layers after the first, a whole number from 1. Shape (...).
        eta_a: Learning rate of the gains, positive; relative. Shape (...).
        eta_w: Learning rate of w, positive; relative. Shape (...).

    Returns:
        Phi, whose slope along ||beta|| is ||w||. Shape: broadcast.

    Valid: a > 0 throughout, and zero loss at the end.
    Raises: ValueError for beta_norm < 0, a depth not whole, a rate that is not positive, or values not finite.
    Source: derived here; arXiv:2406.06158 [paper] states the case delta = 0.
    Checked: its derivative (1e-9), `mirror_potential` at depth 1, its numerical minimum is `deep_interpolator` (1e-6).
    """
    nonnegative(beta_norm=beta_norm)
    integer(1, depth=depth)
    positive(eta_a=eta_a, eta_w=eta_w)
    finite(beta_norm=beta_norm, delta=delta, eta_a=eta_a, eta_w=eta_w)
    b, delta, depth, eta_a, eta_w = together(beta_norm, delta, depth, eta_a, eta_w)
    a, w = _chain(b, delta, depth, eta_a, eta_w)
    return w * b - eta_w / eta_a * a ** (depth + 2) / (depth + 2)


def deep_interpolator(
    X: ArrayLike,
    y: ArrayLike,
    w0: ArrayLike,
    a0: ArrayLike,
    depth: ArrayLike,
    *,
    eta_a: ArrayLike = 1.0,
    eta_w: ArrayLike = 1.0,
) -> Interpolator:
    r"""Interpolator at which gradient flow of a rank-one chain ends.

    .. math:: \beta_\infty = \beta_* + a_\infty^L w_{0,\rm null}, \qquad
        \eta_w a_\infty^2 - \eta_a s^2 a_\infty^{-2L} = \delta + \eta_a \|w_{0,\rm null}\|^2

    Args:
        X: Inputs, of any rank below d. Shape (n, d).
        y: Labels in the range of X. Shape (n,).
        w0: First layer at the start. Shape (d,).
        a0: Gain of each later layer at the start, positive. A number.
        depth: Number L of layers after the first, a whole number from 1. A number.
        eta_a: Learning rate of the gains, positive; relative. A number.
        eta_w: Learning rate of w, positive; relative. A number.

    Returns:
        (beta, a) at the end. Shapes (d,) and ().

    Valid: flow that ends at zero loss with a > 0; for L >= 2 a start with w_0^T v < 0 can stay at a = 0, for L = 1
        a can cross 0 (`interpolator`).
    Raises: ValueError if the shapes do not match, y is not in the range of X, or a0 or a rate is not positive. Warns
        where X has full column rank.
    Source: derived here.
    Checked: reference value, adaptive integration (1e-9), minimum of `deep_mirror_potential` (1e-6), `interpolator`
        at L = 1; simulation `sims.lazy_rich`.
    """
    positive(a0=a0, eta_a=eta_a, eta_w=eta_w)
    finite(a0=a0, eta_a=eta_a, eta_w=eta_w)
    integer(1, depth=depth)
    beta_star, row, null, a0, depth, eta_a, eta_w = split(X, y, w0, a0, depth, eta_a, eta_w)
    s, u = norm(beta_star), conserved_quantity(row, a0, eta_a=eta_a, eta_w=eta_w)
    if not traced(s, u):
        require(np.asarray((s > 0) | (u > 0)), "y", "different from 0 where a would end at 0", s)
    a, _ = _chain(s, u, depth, eta_a, eta_w)
    return Interpolator(beta_star + a**depth * null, a)
