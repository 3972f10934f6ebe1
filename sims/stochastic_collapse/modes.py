"""Singular modes s_hat = u v of a linear student, trained by SGD with label noise; kept in logarithms."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sims.engine.experiment import Domain

EVEN = Domain("an even number, 2 or more", lambda x: (x >= 2) & (x % 2 == 0))  # as `controlled` halves


class Mode(NamedTuple):
    """ln |u + v| and ln |u - v|: one noise in both gradients multiplies the sum by 1 + g, the difference by 1 - g."""

    sum: jax.Array
    difference: jax.Array


class Averages(NamedTuple):
    """Means over paths and steps: of s_hat, of its square, and of c (xi^2 - 1)."""

    first: jax.Array
    second: jax.Array
    heat: jax.Array


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


def averaged(key, mode: Mode, s, eta, zeta, steps: int) -> tuple[Mode, Averages]:
    """The paths after so many steps, and what they were on the way.

    What the noise of a step adds to the moments is known, and of mean zero: it is taken off. Of s_hat that is so where
    the mode lives; of a collapsed one it would be noise.
    """
    tau = eta * zeta**2 / 2

    def body(k, carry):
        mode, totals = carry
        noise = jax.random.normal(jax.random.fold_in(key, k), mode.sum.shape)
        push, heat, s_hat = zeta * noise, tau * (noise**2 - 1), value(mode)
        measures = Averages(s_hat + push + heat, s_hat**2 + s_hat * (push - heat) + (s + tau) * (push + heat), 2 * heat)
        return step(mode, noise, s, eta, zeta), jax.tree.map(lambda t, m: t + jnp.mean(m), totals, measures)

    zero = jnp.zeros_like(s)
    last, totals = jax.lax.fori_loop(0, steps, body, (mode, Averages(zero, zero, zero)))
    return last, jax.tree.map(lambda t: t / steps, totals)


def controlled(values, control):
    """Values less their part along a control of mean zero; each half of them takes the slope of the other half."""
    shape, values, control = values.shape, values.reshape(2, -1), control.reshape(2, -1)
    centred = values - jnp.mean(values, axis=1, keepdims=True)
    slope = jnp.sum(centred * control, axis=1, keepdims=True) / jnp.sum(control**2, axis=1, keepdims=True)
    return (values - slope[::-1] * control).reshape(shape)
