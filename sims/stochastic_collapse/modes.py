"""Singular modes s_hat = u v of a linear student, trained by SGD with label noise; kept in logarithms."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Mode(NamedTuple):
    """ln |u + v| and ln |u - v|: one noise in both gradients multiplies the sum by 1 + g, the difference by 1 - g."""

    sum: jax.Array
    difference: jax.Array


def start(s_hat, imbalance, paths: int) -> Mode:
    """Paths that start at one s_hat, with u - v a given part of u + v; balanced at 0."""
    total = jnp.log(4 * s_hat / (1 - imbalance**2)) / 2
    return Mode(*(jnp.broadcast_to(x, (paths,)) for x in (total, total + jnp.log(imbalance))))


def value(mode: Mode):
    """s_hat = u v."""
    return (jnp.exp(2 * mode.sum) - jnp.exp(2 * mode.difference)) / 4


def step(mode: Mode, noise, s, eta, zeta) -> Mode:
    """One step of SGD; `noise` is standard normal, one number a path."""
    g = -eta * (value(mode) - s + zeta * noise)
    return Mode(mode.sum + jnp.log(jnp.abs(1 + g)), mode.difference + jnp.log(jnp.abs(1 - g)))


def independent_step(u, v, noises, s, eta, zeta):
    """One step of SGD that draws the noise of either gradient for itself, as label noise does not."""
    r = u * v - s
    return u - eta * (r + zeta * noises[0]) * v, v - eta * (r + zeta * noises[1]) * u


def run(key, mode: Mode, s, eta, zeta, steps) -> Mode:
    """The paths after so many steps, which may be traced."""

    def body(k, mode):
        return step(mode, jax.random.normal(jax.random.fold_in(key, k), mode.sum.shape), s, eta, zeta)

    return jax.lax.fori_loop(jnp.int32(0), jnp.asarray(steps, jnp.int32), body, mode)
