"""BYOL with matrices: a linear encoder, a linear predictor and a target network, trained by SGD with weight decay.

The cells of a grid are the last axis of every weight and share the minibatches. A linear network sees of a minibatch
its second moments alone; products are written as sums, whose bits do not depend on how many cells there are.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sims.ssl_collapse.training import gaussian_views

# Clean and augmentation variances of the modes.
CLEAN, NOISE = (1.4, 0.9, 0.7, 0.4), (0.4, 0.3, 0.5, 0.3)
D = len(CLEAN)
MODES = {"mode": range(1, D + 1)}


class Byol(NamedTuple):
    """Encoder W, predictor P and target network, each of shape (d, d, cells)."""

    W: jax.Array
    P: jax.Array
    target: jax.Array


class Moments(NamedTuple):
    """Mean of x x^T and of x x+^T over a minibatch. Shapes (d, d), or (d, d, cells)."""

    views: jax.Array
    pairs: jax.Array


class Rates(NamedTuple):
    """Learning rate, weight decay, and rates of the predictor and of the target relative to the encoder's.

    Numbers, or one for each cell. An infinite `ema` makes the target the encoder itself.
    """

    rate: jax.Array
    decay: jax.Array
    predictor: jax.Array
    ema: jax.Array


def modes(dtype=float):
    """(a, c) of the modes."""
    return jnp.asarray(CLEAN, dtype), jnp.asarray(NOISE, dtype)


def product(A, B):
    """A B for every cell."""
    return jnp.sum(A[:, :, None] * B[None], axis=1)


def moments(x, x_plus) -> Moments:
    n = len(x)
    return Moments(*(jnp.matmul(x.T, y, precision="highest") / n for y in (x, x_plus)))


def minibatches(key, batch: int, a, c):
    """Fresh minibatches of two views: a function from a step to its moments."""
    return lambda k: moments(*gaussian_views(jax.random.fold_in(key, k), batch, jnp.sqrt(a), jnp.sqrt(c)))


def whole_data(key, a, c):
    """The moments of 3 d points whose moments are exactly those of the population."""
    d = len(a)
    clean, first, second = jnp.split(jnp.linalg.qr(jax.random.normal(key, (3 * d, 3 * d)))[0] * (3 * d) ** 0.5, 3, 1)
    a, c = jnp.sqrt(a)[None, :], jnp.sqrt(c)[None, :]
    return moments(clean * a + first * c, clean * a + second * c)


def loss(weights, target, seen: Moments):
    """E |P W x - target x+|^2 / 2, without the part that has no gradient, summed over cells."""
    W, P = weights
    F = product(P, W)
    views, pairs = (m.reshape(*F.shape[:2], -1) for m in seen)
    return jnp.sum(F * product(F, views)) / 2 - jnp.sum(product(F, pairs) * jax.lax.stop_gradient(target))


def step(net: Byol, seen: Moments, rates: Rates) -> Byol:
    """One step of SGD, and of the target's moving average."""
    rate, decay, predictor, ema = (jnp.reshape(x, (1, 1, -1)) for x in rates)
    gW, gP = jax.grad(loss)((net.W, net.P), net.target, seen)
    W = net.W - rate * (gW + decay * net.W)
    P = net.P - rate * (predictor * gP + decay * net.P)
    return Byol(W, P, net.target + jnp.minimum(rate * ema, 1) * (W - net.target))


def rotation(key, d: int):
    """A random orthogonal matrix."""
    return jnp.linalg.qr(jax.random.normal(key, (d, d)))[0]


def start(Q, p, w, tau=1.0) -> Byol:
    """Weights of eigenvalues p and singular values w, shape (d, cells), on the modes and on the left basis Q."""
    W = Q[:, :, None] * w[None]
    P = jnp.sum(Q[:, None, :, None] * Q[None, :, :, None] * p[None, None], axis=2)
    return Byol(W, P, tau * W)


def predictor_modes(net: Byol, Q):
    """Diagonal of Q^T P Q. Shape (d, cells)."""
    return jnp.sum(Q[:, :, None] * jnp.sum(net.P[:, :, None] * Q[None, :, :, None], axis=1), axis=0)


def encoder_modes(weight, Q):
    """Diagonal of Q^T W: singular values, with their sign, while W keeps its basis. Shape (d, cells)."""
    return jnp.sum(Q[:, :, None] * weight, axis=0)


def descend(net, draw, update, spans: int, steps: int, observe):
    """(means over each span of so many steps, values at its end) of what is observed; leaves of shape (spans, ...).

    Args:
        net: The weights, any pytree.
        draw: draw(k): what step k sees.
        update: update(net, seen) -> net.
        spans: Number of spans.
        steps: Steps in each.
        observe: observe(net) -> a pytree of arrays.
    """

    def one_step(carry, k):
        net, total = carry
        net = update(net, draw(k))
        return (net, jax.tree.map(jnp.add, total, observe(net))), None

    def span(net, i):
        nothing = jax.tree.map(jnp.zeros_like, observe(net))
        (net, total), _ = jax.lax.scan(one_step, (net, nothing), i * steps + jnp.arange(steps))
        return net, (jax.tree.map(lambda x: x / steps, total), observe(net))

    return jax.lax.scan(span, net, jnp.arange(spans))[1]
