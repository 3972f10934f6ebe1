"""The neural tangent kernel of a linear neuron, and how far training moves it: the lazy-rich phase diagram."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import finite, integer, nonnegative, positive, require, together, traced, with_one_dtype
from theory.lazy_rich.parameters import batched, layer_strengths, norm, require_direction, unit
from theory.lazy_rich.single_neuron import linear_flow
from theory.roots import safe_sqrt


def ntk_matrix(
    beta: ArrayLike, delta: ArrayLike, *, eta_a: ArrayLike = 1.0, eta_w: ArrayLike = 1.0
) -> Float[Array, "... d d"]:
    r"""Matrix of the neural tangent kernel: :math:`\dot\beta = M v`, :math:`K = X M X^\top`.

    .. math:: M = \eta_w a^2 I + \eta_a w w^\top
        = \frac{\kappa + \delta}2 I + \frac{\kappa - \delta}2 \hat\beta\hat\beta^\top

    Args:
        beta: The product a w. Shape (..., d).
        delta: The conserved quantity. Shape (...).
        eta_a: Learning rate of a, positive; relative. Shape (...).
        eta_w: Learning rate of w, positive; relative. Shape (...).

    Returns:
        M, in units of delta: lazy (delta I) far upstream, delayed rich (|delta| on the direction of beta alone) far
        downstream. Shape (..., d, d).

    Valid: any data; piecewise-linear neurons too, with their own drive.
    Raises: ValueError for beta = 0 with delta < 0, a rate that is not positive, or values that are not finite.
    Source: arXiv:2406.06158 [paper] for the kernel; as a function of beta and delta derived here.
    Checked: weights (1e-14), velocity of beta along `gradient_flow` (1e-10).
    """
    require_direction(beta, delta)
    (beta,), (delta, eta_a, eta_w) = batched({"beta": beta}, delta=delta, eta_a=eta_a, eta_w=eta_w)
    outer, inner = layer_strengths(norm(beta), delta, eta_a=eta_a, eta_w=eta_w)
    direction = unit(beta)
    line = direction[..., :, None] * direction[..., None, :]
    identity = jnp.broadcast_to(jnp.eye(beta.shape[-1], dtype=beta.dtype), line.shape)
    return outer[..., None, None] * identity + inner[..., None, None] * line


def kernel_distance(K0: ArrayLike, K1: ArrayLike) -> Float[Array, "..."]:
    r"""Distance between two kernels, whatever their scales.

    .. math:: S = 1 - \frac{\langle K_0, K_1\rangle}{\|K_0\|_F \|K_1\|_F}
        = \frac12 \Big\| \frac{K_0}{\|K_0\|_F} - \frac{K_1}{\|K_1\|_F} \Big\|_F^2

    Args:
        K0: A kernel matrix, not 0. Shape (..., n, n).
        K1: A kernel matrix, not 0. Shape (..., n, n).

    Returns:
        S, from 0 (lazy) to 1; dimensionless. Shape (...).

    Valid: everywhere; the second form does not cancel where S is small.
    Raises: ValueError if the shapes differ, or for values that are not finite.
    Source: arXiv:2406.06158 [paper]; the second form derived here.
    Checked: the first form (1e-14), float32 at S = 1e-9.
    """
    finite(K0=K0, K1=K1)
    K0, K1 = with_one_dtype(K0, K1)
    if K0.shape != K1.shape or K0.ndim < 2:
        raise ValueError(f"`K0` and `K1` must be matrices of one shape, but got shapes {K0.shape} and {K1.shape}.")
    flat = (K.reshape((*K.shape[:-2], -1)) for K in (K0, K1))
    first, second = map(unit, flat)
    return jnp.sum((first - second) ** 2, axis=-1) / 2


def whitened_kernel_distance(
    norm0: ArrayLike,
    norm1: ArrayLike,
    cosine: ArrayLike,
    d: ArrayLike,
    delta: ArrayLike,
    *,
    eta_a: ArrayLike = 1.0,
    eta_w: ArrayLike = 1.0,
) -> Float[Array, "..."]:
    r"""Kernel distance between two moments of training on whitened data.

    .. math:: S = 1 - \frac{d A_0 A_1 + A_0 G_1 + A_1 G_0 + G_0 G_1 \cos^2\theta}
        {\prod_i \sqrt{d A_i^2 + 2 A_i G_i + G_i^2}}, \qquad
        A = \frac{\kappa + \delta}2, \quad G = \frac{\kappa - \delta}2

    Args:
        norm0: ||beta|| at the first moment. Shape (...).
        norm1: ||beta|| at the second moment. Shape (...).
        cosine: Cosine of the angle theta between the two beta, from -1 to 1. Shape (...).
        d: Dimension, a whole number from 1. Shape (...).
        delta: The conserved quantity. Shape (...).
        eta_a: Learning rate of a, positive; relative. Shape (...).
        eta_w: Learning rate of w, positive; relative. Shape (...).

    Returns:
        S, from 0 to 1; dimensionless. Shape: broadcast.

    Valid: whitened data, X^T X = I; exact. At norm 0 with delta < 0 the direction is that of w.
    Raises: ValueError for a cosine outside [-1, 1], d not whole, or as `layer_strengths`.
    Source: derived here. The authors' code has 2 a_0^2 ||w_t||^2 where the norm needs 2 a_t^2 ||w_t||^2.
    Checked: reference values, `kernel_distance` of `ntk_matrix` (1e-13).
    """
    if not traced(cosine):
        require(np.abs(np.asarray(cosine)) <= 1, "cosine", "between -1 and 1", cosine)
    norm0, norm1, cosine, d, delta, eta_a, eta_w = _same(norm0, norm1, cosine, d, delta, eta_a, eta_w)
    layers = (layer_strengths(x, delta, eta_a=eta_a, eta_w=eta_w) for x in (norm0, norm1))
    return _distance(*layers, (1 - cosine) * (1 + cosine), d)


def _same(norm0, norm1, cosine, d, *rest):
    integer(1, d=d)
    finite(cosine=cosine)
    return together(norm0, norm1, cosine, d, *rest)


def _distance(layers0, layers1, sine2, d):
    """Half the squared distance of the normalized kernels a I + g (line), which does not cancel where S is small."""
    (a0, g0), (a1, g1) = (_normalized(layers, d) for layers in (layers0, layers1))
    a, g = a0 - a1, g0 - g1
    return ((d - 1) * a**2 + (a + g) ** 2 + 2 * g0 * g1 * sine2) / 2


def _normalized(layers, d):
    A, G = layers
    size = safe_sqrt(d * A**2 + 2 * A * G + G**2)
    size = jnp.where(size > 0, size, 1.0)
    return A / size, G / size


class _Path(NamedTuple):
    """A neuron in the plane of its start and the solution: its layers then and now, sin^2 of the angle, the loss."""

    start: tuple[Array, Array]
    now: tuple[Array, Array]
    sine2: Array
    loss: Array


def _path(tau, delta, t, s, phi0, eta_a, eta_w):
    positive(tau=tau, eta_a=eta_a, eta_w=eta_w)
    nonnegative(t=t, s=s)
    finite(tau=tau, delta=delta, s=s, eta_a=eta_a, eta_w=eta_w)
    if not traced(phi0):
        require(np.abs(np.asarray(phi0)) <= 1, "phi0", "between -1 and 1", phi0)
    tau, delta, t, s, phi0, eta_a, eta_w = together(tau, delta, t, s, phi0, eta_a, eta_w)
    start = layer_strengths(tau**2, delta, eta_a=eta_a, eta_w=eta_w)
    sine0 = safe_sqrt((1 - phi0) * (1 + phi0))
    g, length = jnp.sqrt(eta_a * eta_w), safe_sqrt(start.inner)
    P, Q, kept = linear_flow(t, length * phi0, safe_sqrt(start.outer), (length * sine0) ** 2, g * s, delta)
    across = kept * length * sine0
    inner = P**2 + across**2
    turned = phi0 * across - sine0 * P
    sine2 = turned**2 / jnp.where(inner > 0, inner, 1.0)
    loss = ((Q * P / g - s) ** 2 + (Q * across / g) ** 2) / 2
    return _Path(start, (Q**2, inner), sine2, loss)


def kernel_distance_at(
    tau: ArrayLike,
    delta: ArrayLike,
    t: ArrayLike,
    s: ArrayLike = 1.0,
    d: ArrayLike = 2,
    phi0: ArrayLike = 0.0,
    *,
    eta_a: ArrayLike = 1.0,
    eta_w: ArrayLike = 1.0,
) -> Float[Array, "..."]:
    r"""Kernel distance S(0, t) in closed form: the lazy-rich phase diagram.

    `whitened_kernel_distance` between a start with :math:`\|\beta_0\| = \tau^2`, :math:`a_0 > 0` and
    :math:`\cos(\beta_0, \beta_*) = \phi_0`, and `gradient_flow` from there.

    Args:
        tau: Overall scale, positive. Shape (...).
        delta: The conserved quantity. Shape (...).
        t: Time, zero or positive, or inf. Shape (...).
        s: ||beta_*||, zero or positive. Shape (...).
        d: Dimension, a whole number from 1. Shape (...).
        phi0: Cosine between start and solution, from -1 to 1. Shape (...).
        eta_a: Learning rate of a, positive; relative. Shape (...).
        eta_w: Learning rate of w, positive; relative. Shape (...).

    Returns:
        S(0, t), from 0 to 1; dimensionless. Shape: broadcast.

    Valid: whitened data, X^T X = I, and half the squared error; every sign of delta.
    Raises: ValueError for tau or a rate that is not positive, t or s < 0, d not whole, or |phi0| > 1.
    Source: derived here from the exact solution of arXiv:2406.06158.
    Checked: reference values, `gradient_flow` and `kernel_distance` (1e-12), t = 0 and inf,
        `vanishing_scale_kernel_distance`, float32, gradients; simulation `sims.lazy_rich`.
    """
    integer(1, d=d)
    tau, delta, t, s, d, phi0, eta_a, eta_w = together(tau, delta, t, s, d, phi0, eta_a, eta_w)
    path = _path(tau, delta, t, s, phi0, eta_a, eta_w)
    return _distance(path.start, path.now, path.sine2, d)


def loss_at(
    tau: ArrayLike,
    delta: ArrayLike,
    t: ArrayLike,
    s: ArrayLike = 1.0,
    phi0: ArrayLike = 0.0,
    *,
    eta_a: ArrayLike = 1.0,
    eta_w: ArrayLike = 1.0,
) -> Float[Array, "..."]:
    r"""Loss in the cells of the lazy-rich phase diagram.

    .. math:: L(t) = \tfrac12 \|\beta(t) - \beta_*\|^2

    Args:
        tau: Overall scale, positive; ||beta_0|| = tau^2. Shape (...).
        delta: The conserved quantity. Shape (...).
        t: Time, zero or positive, or inf. Shape (...).
        s: ||beta_*||, zero or positive. Shape (...).
        phi0: Cosine between start and solution, from -1 to 1. Shape (...).
        eta_a: Learning rate of a, positive; relative. Shape (...).
        eta_w: Learning rate of w, positive; relative. Shape (...).

    Returns:
        The loss, in units of s^2. Shape: broadcast.

    Valid: as `kernel_distance_at`.
    Raises: ValueError as `kernel_distance_at`.
    Source: derived here from the exact solution of arXiv:2406.06158.
    Checked: reference values, `gradient_flow` (1e-12), t = 0 and inf.
    """
    return _path(tau, delta, t, s, phi0, eta_a, eta_w).loss


class VanishingScale(NamedTuple):
    """Kernel distances for tau -> 0, on the three sides of delta = 0."""

    upstream: Float[Array, "..."]
    balanced: Float[Array, "..."]
    downstream: Float[Array, "..."]


def vanishing_scale_kernel_distance(d: ArrayLike) -> VanishingScale:
    r"""Kernel distance S(0, inf) for tau -> 0 first, then delta -> 0: it is discontinuous there.

    .. math:: \delta \to 0^+:\ 1 - \frac{d + 1}{\sqrt{d(d + 3)}}, \qquad
        \delta = 0:\ 1 - \frac{d + 2}{d + 3}, \qquad
        \delta \to 0^-:\ 1 - \frac1{\sqrt{d + 3}}

    Args:
        d: Dimension, a whole number from 1. Shape (...).

    Returns:
        (upstream, balanced, downstream). Shape (...).

    Valid: a start orthogonal to the solution; at finite tau the three meet over a width |delta| ~ tau^2.
    Raises: ValueError if d is not a whole number from 1.
    Source: derived here.
    Checked: `kernel_distance_at` at tau = 1e-5 (1e-4).
    """
    integer(1, d=d)
    (d,) = together(d)
    root = jnp.sqrt(d + 3)
    return VanishingScale(1 - (d + 1) / (jnp.sqrt(d) * root), 1 / (d + 3), 1 - 1 / root)
