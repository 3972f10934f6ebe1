"""Flows without a closed form, by classical Runge-Kutta steps of a fixed number."""

import jax
import jax.numpy as jnp


def runge_kutta(velocity, state, h):
    """State, any pytree, one step of length h after `state`; h is a number, or of the shape of every leaf."""

    def ahead(h, slope):
        return jax.tree.map(lambda x, v: x + h * v, state, slope)

    k1 = velocity(state)
    k2 = velocity(ahead(h / 2, k1))
    k3 = velocity(ahead(h / 2, k2))
    k4 = velocity(ahead(h, k3))
    return ahead(h / 6, jax.tree.map(lambda a, b, c, d: a + 2 * b + 2 * c + d, k1, k2, k3, k4))


def flow_at(velocity, start, times, steps: int):
    """States at rising times from 0 on, each leaf of shape (T, ...), with so many steps between two of them."""

    def until(state, span):
        def step(state, _):
            return runge_kutta(velocity, state, span / steps), None

        state, _ = jax.lax.scan(step, state, length=steps)
        return state, state

    return jax.lax.scan(until, start, jnp.diff(times, prepend=jnp.zeros((), times.dtype)))[1]
