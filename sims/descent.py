"""Gradient flow and gradient descent of any loss over any pytree of parameters."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def gradient_flow(loss, params, time, steps: int):
    """Parameters after a gradient flow of length `time`, by `steps` classical Runge-Kutta steps.

    A fixed step in `lax.scan`: on small networks ten times faster on a CPU than a general ODE solver, and the same
    number of operations in every lane of a vmap.
    """
    step = time / steps
    downhill = jax.grad(lambda p: -loss(p))

    def ahead(p, h, slope):
        return jax.tree.map(lambda a, b: a + h * b, p, slope)

    def runge_kutta(p, _):
        k1 = downhill(p)
        k2 = downhill(ahead(p, step / 2, k1))
        k3 = downhill(ahead(p, step / 2, k2))
        k4 = downhill(ahead(p, step, k3))
        return jax.tree.map(lambda a, *k: a + step / 6 * (k[0] + 2 * k[1] + 2 * k[2] + k[3]), p, k1, k2, k3, k4), None

    return jax.lax.scan(runge_kutta, params, None, length=steps)[0]


def gradient_descent(loss, params, learning_rate, steps):
    """Parameters after `steps` steps of full-batch gradient descent; `steps` may be traced."""

    def step(_, p):
        return jax.tree.map(lambda a, g: a - learning_rate * g, p, jax.grad(loss)(p))

    return jax.lax.fori_loop(jnp.int32(0), jnp.asarray(steps, jnp.int32), step, params)
