"""Gradient flow and gradient descent of any loss over any pytree of parameters."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax


def flow(field, start, time, steps: int):
    """State after following a vector field for `time`, by `steps` classical Runge-Kutta steps.

    A fixed step in `lax.scan`: on small networks ten times faster on a CPU than a general ODE solver, and the same
    number of operations in every lane of a vmap.
    """
    step = time / steps

    def ahead(x, h, slope):
        return jax.tree.map(lambda a, b: a + h * b, x, slope)

    def runge_kutta(x, _):
        k1 = field(x)
        k2 = field(ahead(x, step / 2, k1))
        k3 = field(ahead(x, step / 2, k2))
        k4 = field(ahead(x, step, k3))
        return jax.tree.map(lambda a, *k: a + step / 6 * (k[0] + 2 * k[1] + 2 * k[2] + k[3]), x, k1, k2, k3, k4), None

    return jax.lax.scan(runge_kutta, start, length=steps)[0]


def flow_path(field, start, times, steps: int):
    """States at rising times, shape (T,), with so many Runge-Kutta steps between two of them."""

    def until(state, time):
        state = flow(field, state, time, steps)
        return state, state

    return jax.lax.scan(until, start, jnp.diff(times, prepend=jnp.zeros((), times.dtype)))[1]


def gradient_flow(loss, params, time, steps: int):
    """Parameters after a gradient flow of length `time`, by `steps` steps of `flow`."""
    return flow(jax.grad(lambda p: -loss(p)), params, time, steps)


def gradient_step(loss, params, learning_rate):
    """One step of full-batch gradient descent; `learning_rate` is a number, or one for each part of `params`."""
    rates = jax.tree.broadcast(learning_rate, params)
    return jax.tree.map(lambda a, g, rate: a - rate * g, params, jax.grad(loss)(params), rates)


def optimizer_step(optimizer: optax.GradientTransformation, gradient, params, state):
    """(parameters, state) after one step of an optax optimizer."""
    with jax.numpy_dtype_promotion("standard"):  # optax raises a float to a whole number
        updates, state = optimizer.update(gradient, state, params)
    return optax.apply_updates(params, updates), state


def gradient_descent(loss, params, learning_rate, steps):
    """Parameters after `steps` steps of full-batch gradient descent; `steps` may be traced."""
    steps = jnp.asarray(steps, jnp.int32)
    return jax.lax.fori_loop(jnp.int32(0), steps, lambda _, p: gradient_step(loss, p, learning_rate), params)


def gradient_descent_path(loss, params, learning_rate, checkpoints):
    """Parameters at rising numbers of steps, shape (T,); they may be traced."""

    def until(params, steps):
        params = gradient_descent(loss, params, learning_rate, steps)
        return params, params

    counts = jnp.diff(jnp.asarray(checkpoints, jnp.int32), prepend=jnp.int32(0))
    return jax.lax.scan(until, params, counts)[1]
