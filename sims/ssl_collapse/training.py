"""Two augmented views of fresh Gaussian inputs, and SGD on them."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from sims.descent import optimizer_step


class Sizes(NamedTuple):
    """What a compilation of minibatch training depends on; `together` cells are simulated side by side."""

    batch: int
    steps: int
    together: int


def sizes(settings) -> Sizes:
    return Sizes(*(settings[name] for name in Sizes._fields))


def gaussian_views(key, n: int, clean_root, noise_root):
    """Two views, each of shape (n, d), of n inputs of covariance A0 under noise of covariance C.

    `clean_root` and `noise_root` are factors, R R^T = A0 and C, of shape (d, d), or the standard deviations on a
    common eigenbasis, of shape (d,).
    """
    normals = jax.random.normal(key, (3, n, clean_root.shape[0]), clean_root.dtype)
    scale = [
        z * r[None, :] if r.ndim == 1 else z @ r.T
        for z, r in zip(normals, (clean_root, noise_root, noise_root), strict=True)
    ]
    return scale[0] + scale[1], scale[0] + scale[2]


def train(loss, params, key, steps: int, rate, observe, optimizer=optax.sgd):
    """(parameters, mean of `observe(parameters)` over the last quarter) after SGD on fresh minibatches.

    Args:
        loss: loss(params, key) of one minibatch, which the key draws.
        params: A pytree.
        key: Root of the minibatches.
        steps: Number of steps.
        rate: Learning rate at first; 0.3 times as large from half of the steps on, 0.1 times from three quarters on.
        observe: What is averaged while the rate is smallest, a function of the parameters.
        optimizer: From a schedule to an optax optimizer.
    """
    late = 3 * steps // 4
    rule = optimizer(
        lambda k: rate * jnp.where(k < steps // 2, 1.0, jnp.where(k < late, 0.3, 0.1)).astype(jnp.result_type(rate))
    )

    def step(carry, k):
        params, state, total = carry
        gradient = jax.grad(loss)(params, jax.random.fold_in(key, k))
        params, state = optimizer_step(rule, gradient, params, state)
        seen = observe(params)
        total = jax.tree.map(lambda t, o: jnp.where(k < late, t, t + o / (steps - late)), total, seen)
        return (params, state, total), None

    start = jax.tree.map(jnp.zeros_like, observe(params))
    (params, _, mean), _ = jax.lax.scan(step, (params, rule.init(params), start), jnp.arange(steps))
    return params, mean
