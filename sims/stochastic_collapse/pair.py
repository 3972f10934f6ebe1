"""A network of two GELU neurons on scalar inputs, trained by heavy ball, and a perturbation across equal neurons."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from theory.stochastic_collapse import permutation_set_hessian

START = ((1.0, 0.6), (-0.6, -0.4))  # w and a of the two neurons
MIDDLE = ((0.8, 0.8), (-0.5, -0.5))  # the nearest equal ones


class Net(NamedTuple):
    """Incoming and outgoing weights of two neurons, shapes (2,)."""

    w: jax.Array
    a: jax.Array


class Run(NamedTuple):
    """A network and its momentum."""

    net: Net
    velocity: Net


class Growth(NamedTuple):
    """A perturbation (z, p) of norm one, and the logarithm of its length."""

    tangent: jax.Array
    log: jax.Array


def gelu(u):
    return jax.nn.gelu(u, approximate=False)


def outputs(net, x):
    return (net.a[:, None] * gelu(net.w[:, None] * x[None, :])).sum(0)


def loss(net, x, y):
    return ((outputs(net, x) - y) ** 2).mean() / 2


def at_rest(net):
    """A run that begins at this network."""
    return Run(net, jax.tree.map(jnp.zeros_like, net))


def trained(run, x, y, eta, beta):
    """A run after one more step of heavy ball."""
    gradient = jax.grad(loss)(run.net, x, y)
    velocity = jax.tree.map(lambda v, g: beta * v - eta * g, run.velocity, gradient)
    return Run(jax.tree.map(jnp.add, run.net, velocity), velocity)


def log_distance(net):
    """ln of the distance from equal neurons."""
    return jnp.log(((net.w[0] - net.w[1]) ** 2 + (net.a[0] - net.a[1]) ** 2) / 2) / 2


def hessians(net, x, residual):
    """Normal Hessian of every sample, at equal neurons. Shape (samples, 2, 2)."""
    u = net.w[0] * x
    slope, curvature = (jax.vmap(f)(u) for f in (jax.grad(gelu), jax.grad(jax.grad(gelu))))
    return permutation_set_hessian(x[:, None], residual[:, None], net.a[:1], slope, curvature)


def grown(growth, A):
    """A perturbation after one more matrix."""
    tangent = (A * growth.tangent[None, :]).sum(1)
    length = jnp.sqrt((tangent**2).sum())
    return Growth(tangent / length, growth.log + jnp.log(length))


def data(key, samples):
    """Gaussian inputs in pairs x and -x, of mean square one, and the target -x.

    No two equal neurons reach it. An odd target leaves an even residual, which draws the neurons together.
    """
    x = jax.random.normal(key, (samples // 2,))
    x = jnp.concatenate([x, -x]) / jnp.sqrt((x**2).mean())
    return x, -x


def sandwiched(A, S):
    """A S A^T."""
    return ((A[:, :, None] * S[None, :, :]).sum(1)[:, None, :] * A[None, :, :]).sum(-1)
