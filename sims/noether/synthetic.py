"""A scale-invariant weight under synthetic gradients across it, of any memory, and real optimizer steps."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sims.descent import optimizer_step
from sims.engine.experiment import POSITIVE, Domain, Setting, whole

RATE = Domain("above 0 and below 1", lambda x: (x > 0) & (x < 1))
SETTINGS = {
    "learning_rate": Setting(0.1, "learning rate", domain=POSITIVE),
    "gradient_norm": Setting(1.0, "norm of the gradient on the unit sphere", domain=POSITIVE),
    "dimension": Setting(32, "dimension of the weight", domain=whole(3)),
}


def unit(x):
    return x / jnp.linalg.norm(x)


def tangent(u, x):
    """The part of x across the direction u."""
    return x - jnp.sum(u * x) * u


def random_tangent(key, u):
    """A random direction across u."""
    return unit(tangent(u, jax.random.normal(key, u.shape)))


def next_direction(key, u, n, correlation):
    """The next direction of an autoregressive gradient on the sphere at u, the last being n.

    White noise at correlation 0. At 1 it stays in the plane of n and u, and turns with u.
    """
    kept = unit(tangent(u, n))
    fresh = unit(tangent(kept, random_tangent(key, u)))
    return correlation * kept + jnp.sqrt(1 - correlation**2) * fresh


def gaussian_lengths(key, gradient_norm, dimension: int, steps: int):
    """Lengths that make white noise Gaussian; the root of their mean square is `gradient_norm`."""
    across = jax.random.normal(key, (steps, dimension - 1))
    return gradient_norm * jnp.linalg.norm(across, axis=1) / jnp.sqrt(dimension - 1.0)


class Steps(NamedTuple):
    """Of every step: ||theta||^2 before it, <theta, Delta> and ||Delta||^2; shapes (steps,)."""

    square: jax.Array
    work: jax.Array
    step: jax.Array

    @property
    def angle(self):
        """Angle between the weight before and after."""
        across = self.square * self.step - self.work**2
        return jnp.arctan2(jnp.sqrt(across), self.square + self.work)


def train(key, theta, n, rule, gradient_norm, correlation, steps: int, state=None):
    """Steps of an optimizer on a gradient of length c / ||theta||; c is a number, or one for each step.

    Returns: (theta, direction of the gradient, state) at the end; `Steps`.
    """

    def step(carry, law):
        theta, n, state = carry
        k, c = law
        n = next_direction(jax.random.fold_in(key, k), unit(theta), n, correlation)
        new, state = optimizer_step(rule, c / jnp.linalg.norm(theta) * n, theta, state)
        return (new, n, state), measured(theta, new)

    state = rule.init(theta) if state is None else state
    lengths = jnp.broadcast_to(gradient_norm, (steps,))
    return jax.lax.scan(step, (theta, n, state), (jnp.arange(steps), lengths))


def measured(theta, new):
    moved = new - theta
    return Steps(jnp.sum(theta**2), jnp.sum(theta * moved), jnp.sum(moved**2))


def squares(run):
    """||theta||^2 before every step and after the last."""
    return jnp.concatenate([run.square, (run.square + 2 * run.work + run.step)[-1:]])


def start(key, dimension: int):
    """A random direction, and one across it."""
    k_u, k_n = jax.random.split(key)
    u = unit(jax.random.normal(k_u, (dimension,)))
    return u, random_tangent(k_n, u)
