"""Deep linear networks and their training, on losses that are diagonal quadratics of the end-to-end weights.

A network is a tuple of layers. Layers are matrices, the last one a vector; or, in the reduced form that rank-one
networks keep exactly under gradient descent, the first is a vector and the others are numbers.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

Network = tuple[Array, ...]


def initial_network(key: Array, d: int, width: int, depth: int, alpha: Array) -> Network:
    """Random layers of scale alpha^(1/(depth-1)); width 0 gives the reduced form.

    With this convention the product of all layers but the first, whose smallness makes the learned features rank one,
    shrinks alike at every depth, and pretraining escapes the origin in about the same time.
    """
    scale = alpha ** (1 / (depth - 1))
    inner = (width,) if width else ()
    shapes = [(d, *inner), *[inner * 2] * (depth - 2), inner]
    fan_in = [d, *[max(width, 1)] * (depth - 2), 1]
    keys = jax.random.split(key, depth)
    return tuple(scale * jax.random.normal(k, shape) / f**0.5 for k, shape, f in zip(keys, shapes, fan_in, strict=True))


def rotated(network: Network, basis: Array) -> Network:
    """The same network, its inputs in the coordinates of an orthonormal basis."""
    return (basis.T @ network[0], *network[1:])


def weights(network: Network) -> Array:
    """End-to-end weights W_1 ... W_L, multiplied from the right: no product of two matrices is ever formed."""
    product = network[-1]
    for layer in reversed(network[:-1]):
        product = layer @ product if layer.ndim == 2 else layer * product
    return product


def features(network: Network) -> Array:
    """The linear map W_1 ... W_{L-1} onto the last hidden layer, shape (d, width)."""
    product = network[0][:, None] if network[0].ndim == 1 else network[0]
    for layer in network[1:-1]:
        product = product @ layer if layer.ndim == 2 else product * layer
    return product


def quadratic_loss(curvature: Array, optimum: Array):
    """The loss sum_j k_j (w_j - w*_j)^2 of a network's end-to-end weights w."""

    def loss(network: Network) -> Array:
        return jnp.sum(curvature * (weights(network) - optimum) ** 2)

    return loss


def reduced_flow(network: Network, curvature: Array, optimum: Array, times: Array) -> Network:
    r"""Gradient flow of a reduced network (u, s_2, ..., s_L) on a quadratic loss, at the last of `times`.

    Given the product :math:`a = \prod_l s_l` every coordinate of u obeys a linear equation, whose exponential is exact;
    a midpoint rule follows a. The flow conserves :math:`s_l^2 - |u|^2`, which gives the s. No step is limited by
    stiffness, so a logarithmic grid reaches the limit. Second order in the ratio of successive times.
    """
    first, rest = network[0], jnp.stack(network[1:])
    excess, signs = rest**2 - first @ first, jnp.sign(rest)

    def others(u):
        return signs * jnp.sqrt(jnp.maximum(excess + u @ u, 0.0))

    def relax(u, a, duration):
        fading = jnp.exp(-2 * a**2 * curvature * duration)
        safe = jnp.where(a == 0, 1.0, a)
        return jnp.where(a == 0, u, fading * u + (1 - fading) * optimum / safe)

    def step(u, duration):
        middle = relax(u, jnp.prod(others(u)), duration / 2)
        return relax(u, jnp.prod(others(middle)), duration), None

    durations = jnp.diff(times, prepend=jnp.zeros_like(times[:1]))
    u, _ = jax.lax.scan(step, first, durations)
    return (u, *others(u))
