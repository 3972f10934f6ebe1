"""A neuron's two layers: how strong each is at a given product and imbalance, and the weights themselves."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import finite, positive, require, together, traced, with_one_dtype
from theory.roots import positive_root, safe_sqrt


def norm(x: Array) -> Array:
    """Euclidean length along the last axis, with gradient 0 at 0."""
    return safe_sqrt(jnp.sum(x**2, axis=-1))


def unit(x: Array) -> Array:
    """Direction along the last axis; 0 for the zero vector."""
    length = norm(x)[..., None]
    return x / jnp.where(length > 0, length, 1.0)


def dot(x: Array, y: Array) -> Array:
    """Inner product along the last axis."""
    return jnp.sum(x * y, axis=-1)


def batched(vectors: dict[str, ArrayLike], **numbers: ArrayLike) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """Vectors of shape (..., d) and numbers of shape (...), finite, of one dtype and broadcast against each other.

    Raises: ValueError if a vector is none, if their lengths differ, if the rest of the shapes does not broadcast, or
        for a value that is not finite.
    """
    finite(**vectors, **numbers)
    arrays = with_one_dtype(*vectors.values(), *numbers.values())
    vectors_, numbers_ = arrays[: len(vectors)], arrays[len(vectors) :]
    shapes = [x.shape for x in vectors_]
    if len({shape[-1:] for shape in shapes} | {()}) != 2:
        names = " and ".join(f"`{name}`" for name in vectors)
        found = " and ".join(map(str, shapes))
        raise ValueError(f"{names} must be vectors of one length, but got shapes {found}.")
    try:
        shape = np.broadcast_shapes(*(shape[:-1] for shape in shapes), *(x.shape for x in numbers_))
    except ValueError:
        named = dict(zip([*vectors, *numbers], (x.shape for x in arrays), strict=True))
        raise ValueError(f"The arguments' shapes do not broadcast: {named}.") from None
    return (
        tuple(jnp.broadcast_to(x, shape + x.shape[-1:]) for x in vectors_),
        tuple(jnp.broadcast_to(x, shape) for x in numbers_),
    )


class Strengths(NamedTuple):
    """eta_w a^2 of the outer layer and eta_a |w|^2 of the inner one."""

    outer: Float[Array, "..."]
    inner: Float[Array, "..."]


def layer_strengths(
    beta_norm: ArrayLike, delta: ArrayLike, *, eta_a: ArrayLike = 1.0, eta_w: ArrayLike = 1.0
) -> Strengths:
    r"""Strengths of the two layers of a linear neuron, from its product and its imbalance.

    .. math:: \eta_w a^2 = \frac{\kappa + \delta}2, \qquad \eta_a \|w\|^2 = \frac{\kappa - \delta}2, \qquad
        \kappa = \sqrt{\delta^2 + 4\eta_a\eta_w\|\beta\|^2}

    Args:
        beta_norm: ||beta|| = |a| ||w||; its sign is ignored. Shape (...).
        delta: The conserved quantity, in units of rate times weight^2. Shape (...).
        eta_a: Learning rate of a, positive; relative. Shape (...).
        eta_w: Learning rate of w, positive; relative. Shape (...).

    Returns:
        (outer, inner), in units of delta; their sum is kappa and their difference delta. Shape: broadcast.

    Valid: everywhere, without cancellation for either sign of delta.
    Raises: ValueError for a rate that is not positive, or a value that is not finite (concrete values only).
    Source: derived here.
    Checked: weights built from it (1e-14), float32, delta = 0 and +-1e8.
    """
    positive(eta_a=eta_a, eta_w=eta_w)
    finite(beta_norm=beta_norm, delta=delta, eta_a=eta_a, eta_w=eta_w)
    b, delta, eta_a, eta_w = together(beta_norm, delta, eta_a, eta_w)
    product = eta_a * eta_w * b**2
    return Strengths(positive_root(delta, product), positive_root(-delta, product))


def require_direction(beta: ArrayLike, delta: ArrayLike) -> None:
    """One sentence where beta = 0 leaves the direction of a nonzero w open."""
    if not traced(beta, delta):
        length = np.linalg.norm(np.asarray(beta), axis=-1)
        require((length > 0) | (np.asarray(delta) >= 0), "beta", "different from 0 where `delta` is negative", length)


def params_from_beta(
    beta: ArrayLike, delta: ArrayLike, *, eta_a: ArrayLike = 1.0, eta_w: ArrayLike = 1.0
) -> tuple[Float[Array, "... d"], Float[Array, "..."]]:
    r"""Weights of a linear neuron with a given product and imbalance, and a > 0.

    .. math:: a = \sqrt{\frac{\kappa + \delta}{2\eta_w}}, \qquad w = \frac\beta a

    Args:
        beta: The product a w, in units of y / x. Shape (..., d).
        delta: The conserved quantity eta_w a^2 - eta_a ||w||^2. Shape (...).
        eta_a: Learning rate of a, positive; relative. Shape (...).
        eta_w: Learning rate of w, positive; relative. Shape (...).

    Returns:
        (w, a), shapes (..., d) and (...); (-w, -a) has the same product and imbalance.

    Valid: everywhere but beta = 0 with delta < 0, where the direction of w is open.
    Raises: ValueError there, for a rate that is not positive, or a value that is not finite (concrete values only).
    Source: arXiv:2406.06158 [paper]; rates derived here.
    Checked: product and imbalance of the result (1e-14), both signs of delta, beta = 0 with delta >= 0.
    """
    positive(eta_a=eta_a, eta_w=eta_w)
    require_direction(beta, delta)
    (beta,), (delta, eta_a, eta_w) = batched({"beta": beta}, delta=delta, eta_a=eta_a, eta_w=eta_w)
    outer, inner = layer_strengths(norm(beta), delta, eta_a=eta_a, eta_w=eta_w)
    return safe_sqrt(inner / eta_a)[..., None] * unit(beta), safe_sqrt(outer / eta_w)


def relative_scale(
    tau: ArrayLike, delta: ArrayLike, *, eta_a: ArrayLike = 1.0, eta_w: ArrayLike = 1.0
) -> Float[Array, "..."]:
    r"""Relative scale of the layers: :math:`\|w\| = \tau\alpha`, :math:`|a| = \tau/\alpha`.

    .. math:: \alpha = \Big(\frac{\eta_w}{\eta_a}\Big)^{1/4}
        \exp\Big(-\frac12 \operatorname{asinh}\frac\delta{2\tau^2\sqrt{\eta_a\eta_w}}\Big)

    Args:
        tau: Overall scale, positive; tau^2 is the norm of beta. Shape (...).
        delta: The conserved quantity, in units of rate times weight^2. Shape (...).
        eta_a: Learning rate of a, positive; relative. Shape (...).
        eta_w: Learning rate of w, positive; relative. Shape (...).

    Returns:
        alpha, dimensionless: small upstream (delta > 0), large downstream. Shape: broadcast.

    Valid: everywhere; at unit rates :math:`\sqrt{(\sqrt{4 + \delta^2/\tau^4} - \delta/\tau^2)/2}`, which cancels.
    Raises: ValueError for tau or a rate that is not positive, or a value that is not finite (concrete values only).
    Source: arXiv:2406.06158 [paper] at unit rates; rates derived here.
    Checked: reference value, imbalance of the weights (1e-14), float32 at delta = 1e4 tau^2.
    """
    positive(tau=tau, eta_a=eta_a, eta_w=eta_w)
    finite(tau=tau, delta=delta, eta_a=eta_a, eta_w=eta_w)
    tau, delta, eta_a, eta_w = together(tau, delta, eta_a, eta_w)
    return (eta_w / eta_a) ** 0.25 * jnp.exp(-jnp.arcsinh(delta / (2 * tau**2 * jnp.sqrt(eta_a * eta_w))) / 2)
