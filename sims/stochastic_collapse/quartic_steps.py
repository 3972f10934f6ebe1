"""Integrators of the quartic double well, in x = ln |theta|: theta itself would underflow."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from theory.stochastic_collapse import quartic_path


def euler(x, mu, zeta, dt, dW):
    """Multiplicative Euler step of theta itself; its sign is forgotten."""
    return x + jnp.log(jnp.abs(1 + (mu - jnp.exp(2 * x)) * dt + zeta * dW))


def euler_of_logarithm(x, mu, zeta, dt, dW):
    """Euler step of ln |theta|, with the drift that Ito's formula gives it."""
    return x + (mu - zeta**2 / 2 - jnp.exp(2 * x)) * dt + zeta * dW


def descent(x, time):
    """The cubic descent alone, exactly."""
    return x - jnp.log1p(2 * time * jnp.exp(2 * x)) / 2


def splitting(x, mu, zeta, dt, dW):
    """The linear equation exactly, then the cubic descent; of second order in law if half a descent came before."""
    return descent(x + (mu - zeta**2 / 2) * dt + zeta * dW, dt)


def wiener(key, dt, steps: int, paths: int):
    """Increments, shape (paths, steps), and the Wiener paths that they make, shape (paths, steps + 1)."""
    dW = jnp.sqrt(dt) * jax.random.normal(key, (paths, steps))
    return dW, jnp.pad(jnp.cumsum(dW, 1), ((0, 0), (1, 0)))


def trajectory(step, x, mu, zeta, dt, dW):
    """x after every step of every path, the start first. Shape (paths, steps + 1)."""

    def body(x, dW):
        x = step(x, mu, zeta, dt, dW)
        return x, x

    return jnp.concatenate([x[:, None], jax.lax.scan(body, x, dW.T)[1].T], 1)


def exact(x, mu, zeta, times, W):
    """x along the same Wiener paths by the closed form. Shape (paths, times)."""
    return quartic_path(jnp.exp(x), W, times, mu, zeta)
