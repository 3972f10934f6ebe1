"""A scalar neuron without a bias, f(x) = w2 tanh(w1 x), on real data: its gradient, its label noise, and its steps.

A state is a direction, shape (2, paths), and ln |w|, so that no underflow passes for collapse.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from theory.roots import safe_sqrt

NEAR = math.log(1e-8)  # ln |w| below which the neuron is the product w1 w2 x, to rounding
START = math.log(1e-3)
FALL = 7.0  # how far ln |w| has fallen from its start where a path counts as collapsed


class Data(NamedTuple):
    """Inputs and targets, shape (samples,)."""

    x: jax.Array
    y: jax.Array


class State(NamedTuple):
    """Unit vectors, shape (2, paths), and ln |w|, shape (paths,)."""

    direction: jax.Array
    log: jax.Array


def draw(key, samples: int) -> Data:
    """Gaussian inputs scaled to a mean square of one, and y = x + 0.1 xi."""
    k_x, k_y = jax.random.split(key)
    x = jax.random.normal(k_x, (samples,))
    x = x / jnp.sqrt(jnp.mean(x**2))
    return Data(x, x + 0.1 * jax.random.normal(k_y, (samples,)))


def network(w, x):
    return w[1] * jnp.tanh(w[0] * x)


def slopes(w, x):
    """Outputs, shape (samples, paths), and their gradients by w1 and by w2, of weights of shape (2, paths)."""
    t = jnp.tanh(w[0][None, :] * x[:, None])
    return w[1][None, :] * t, (w[1][None, :] * (1 - t**2) * x[:, None], t)


def label_noise(by_w1, by_w2, normals):
    r"""A draw of :math:`m^{-1/2} \sum_i \nabla f(x_i)\,\xi_i` from two normals in place of m: the same Gaussian law.

    Its covariance is the mean of the outer products of the gradients, and the draw is by its Cholesky root, whose last
    entry is formed as a sum of squares: near the origin the two gradients are parallel.
    """
    square = jnp.mean(by_w1**2, 0)
    share = jnp.mean(by_w1 * by_w2, 0) / jnp.where(square > 0, square, 1.0)
    rest = safe_sqrt(jnp.mean((by_w2 - share[None, :] * by_w1) ** 2, 0))
    first = safe_sqrt(square) * normals[0]
    return jnp.stack([first, share * first + rest * normals[1]])


def start(key, paths: int) -> State:
    """Random directions at a distance of 1e-3."""
    w = jax.random.normal(key, (2, paths))
    return State(w / jnp.sqrt(jnp.sum(w**2, 0, keepdims=True)), jnp.full(paths, START, w.dtype))


def noisy_step(state: State, data: Data, rate, strength, normals) -> State:
    """One step along the full gradient, with label noise of this strength.

    SGD has rate eta and strength eta zeta; an Euler step of the SDE rate dt and strength zeta sqrt(eta dt). Below a
    distance of 1e-8 the neuron is homogeneous, and its step there is the same at every distance.
    """
    distance = jnp.exp(jnp.maximum(state.log, NEAR))[None, :]
    f, gradients = slopes(distance * state.direction, data.x)
    residual = f - data.y[:, None]
    force = jnp.stack([jnp.mean(residual * by, 0) for by in gradients])
    end = state.direction + (strength * label_noise(*gradients, normals) - rate * force) / distance
    length = jnp.sqrt(jnp.sum(end**2, 0))
    return State(end / length[None, :], state.log + jnp.log(length))


def walk(key, state: State, data: Data, rate, strength, before, until) -> State:
    """The state after steps number `before` to `until`; each has its own noise, whatever the number of steps."""

    def step(k, state):
        return noisy_step(
            state, data, rate, strength, jax.random.normal(jax.random.fold_in(key, k), state.direction.shape)
        )

    return jax.lax.fori_loop(before, until, step, state)


def collapsed(state: State):
    return state.log < START - FALL
