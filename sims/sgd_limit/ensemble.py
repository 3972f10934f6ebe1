"""An ensemble of SGD runs around a minimum whose Hessian is not diagonal, and what is measured of it."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sims.sgd_limit.heavy_ball import heavy_ball, power_law
from theory.sgd_limit import phase_space_covariance

FROM = 5.0  # distance of a start from the minimum along every eigenvector, in standard deviations of the position


class Sizes(NamedTuple):
    """What a compilation depends on."""

    d: int
    paths: int
    early: int
    burn_in: int
    steps: int


def early_steps(early: int) -> np.ndarray:
    """Steps at which the way to the stationary law is looked at."""
    return np.unique(np.geomspace(1, early, 8).round().astype(int))


def problem(key, cell, sizes: Sizes):
    """(eigenvectors, spectrum, optimum): a quadratic loss in general position."""
    k_rotation, k_optimum = jax.random.split(key)
    R, _ = jnp.linalg.qr(jax.random.normal(k_rotation, (sizes.d, sizes.d)))
    return R, power_law(sizes.d, cell["alpha"]), jax.random.normal(k_optimum, (sizes.d,))


def one(key, cell, settings, sizes):
    eta, beta, decay = cell["eta"], cell["beta"], cell["weight_decay"]
    k_problem, k_noise = jax.random.split(key)
    R, spectrum, optimum = problem(k_problem, cell, sizes)
    H, root = (R * spectrum[None, :]) @ R.T, R * jnp.sqrt(spectrum)[None, :]
    minimum = jnp.linalg.solve(H + decay * jnp.eye(sizes.d), H @ optimum)

    def loss(theta):
        off = theta - optimum
        return off @ H @ off / 2 + decay * theta @ theta / 2

    def step(carry, k):
        theta, w = carry
        xi = jax.random.normal(jax.random.fold_in(k_noise, k), theta.shape)
        noise = xi @ root.T / jnp.sqrt(settings["batch"].astype(theta.dtype))
        theta, w = heavy_ball(theta, w, jax.vmap(jax.grad(loss))(theta) + noise, eta, beta)
        return (theta, w), None

    def record(carry, k):
        carry, _ = step(carry, k)
        return carry, carry

    def in_eigenbasis(theta, w):
        return (theta - minimum[None, None, :]) @ R, w @ R

    start = minimum + start_of(cell, settings, sizes) @ R.T
    theta = jnp.broadcast_to(start, (sizes.paths, sizes.d))
    steps = jnp.arange(sizes.early + sizes.burn_in + sizes.steps, dtype=jnp.int32)
    first, middle, last = jnp.split(steps, [sizes.early, sizes.early + sizes.burn_in])
    carry, way = jax.lax.scan(record, (theta, jnp.zeros_like(theta)), first)
    carry, _ = jax.lax.scan(step, carry, middle)
    _, path = jax.lax.scan(record, carry, last)
    return measured(in_eigenbasis(*way), in_eigenbasis(*path), cell, settings, sizes)


def start_of(cell, settings, sizes):
    """Where training starts, in the eigenbasis: as far along every direction."""
    return FROM * jnp.sqrt(units(cell, settings).position) * jnp.ones(sizes.d)


def measured(way, path, cell, settings, sizes):
    """What the ensemble of chains shows, in units of the Langevin equation."""
    unit = units(cell, settings)
    (x, w), step2 = path, cell["eta"] ** 2 * unit.motion
    middle = (x[1:] + x[:-1]) / 2
    turned = x[:-1] * w[1:] - x[1:] * w[:-1]
    at = early_steps(sizes.early) - 1
    mean, spread = moments(way[0][at], way[1][at])
    scales = jnp.stack([jnp.sqrt(unit.position), jnp.sqrt(step2)])
    lags = jnp.arange(sizes.early, dtype=jnp.int32)
    origins = sizes.steps - sizes.early + 1

    def remembered(lag):
        return jnp.mean(x[:origins] * jax.lax.dynamic_slice_in_dim(x, lag, origins), (0, 1))

    return {
        "position": covariance(x, x) / unit.position,
        "velocity": covariance(w, w) / step2,
        "midpoint": jnp.mean(middle * w[1:], (0, 1)) / (scales[0] * scales[1]),
        "circulation": jnp.mean(turned, (0, 1)) / step2,
        "memory": jax.lax.map(remembered, lags) / unit.position,
        "mean": mean / scales[None, :, None],
        "spread": spread / (scales[:, None] * scales[None, :])[None, :, :, None],
        "run": jnp.stack([way[0][:, 0], way[1][:, 0]], 1) / scales[None, :, None],
        "cloud": jnp.stack([x[:, 0], w[:, 0]], 1) / scales[None, :, None],
    }


def covariance(a, b):
    """Second moments of two sets of modes over steps and paths; products are written out, not a matrix product."""
    return jnp.mean(a[..., :, None] * b[..., None, :], (0, 1))


def moments(x, w):
    """Mean and covariance over paths of (x, w), at every step and of every mode."""
    z = jnp.stack([x, w], 1)
    mean = jnp.mean(z, 2)
    off = z - mean[:, :, None]
    return mean, jnp.sum(off[:, :, None] * off[:, None, :], 3) / (x.shape[1] - 1)


def units(cell, settings):
    """Variances of the Langevin equation at unit curvature without decay."""
    one = jnp.ones_like(cell["eta"])
    return phase_space_covariance(one, cell["eta"], cell["beta"], settings["batch"], time="ou")
