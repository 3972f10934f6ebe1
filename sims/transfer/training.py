"""Deep linear networks on two tasks: pretrained on the source, then probed, fine-tuned, or trained from scratch."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sims.descent import gradient_descent, gradient_flow
from sims.transfer.deep_linear import (
    features,
    initial_network,
    quadratic_loss,
    reduced_flow,
    rotated,
    weights,
)
from sims.transfer.regression import draw, mix, regression
from theory.transfer import fine_tuning_endpoint_scale

CONVERGED = 1e-4
LAST_TIME = 1e9


class Sizes(NamedTuple):
    """Shapes and choices that a compilation depends on; width 0 is the reduced network."""

    d: int
    rows: int
    width: int
    depth: int
    protocol: str
    pretraining_steps: int
    scratch_flow_steps: int
    flow_steps: int


def sizes(settings):
    reduced = settings["protocol"].startswith("reduced")
    escape = math.ceil(escape_time(settings["alpha"], settings["depth"]) / step(settings["depth"]))
    return Sizes(
        settings["d"],
        math.ceil(settings["gamma_max"] * settings["d"] - 1e-9),
        0 if reduced else settings["width"],
        settings["depth"],
        settings["protocol"],
        settings["pretraining_steps"] + escape,
        settings["flow_steps"] + 2 * escape,
        settings["flow_steps"],
    )


def step(depth):
    """Runge-Kutta step towards a target of norm 1; the curvature there grows like the number of layers."""
    return 0.2 / depth


def escape_time(alpha, depth):
    """How long a flow towards a target of norm 1 stays near zero, from layers of scale alpha^(1/(depth-1))."""
    layer = alpha ** (1 / (depth - 1))
    return math.log(1 / layer) / 2 if depth == 2 else 1 / (2 * (depth - 2) * layer ** (depth - 2))


def train(network, task, optimum, size, sizes, *, flow_steps, learning_rate, steps):
    """One network, trained on one cell's target data by the protocol; `size` is the largest norm on its way."""
    if sizes.protocol == "whitened":
        time = step(sizes.depth) * flow_steps / size ** (2 - 2 / sizes.depth)
        return gradient_flow(quadratic_loss(task.seen, optimum), network, time, flow_steps)
    if sizes.protocol == "reduced_flow":
        times = jnp.geomspace(1e-3, LAST_TIME, sizes.flow_steps)
        return reduced_flow(network, task.eigenvalues, optimum, times)
    return gradient_descent(quadratic_loss(task.eigenvalues, optimum), network, learning_rate, steps)


def simulate(key, cells, settings, sizes):
    theta, sigma, source_norm = cells["theta"], cells["sigma"], cells["source_norm"]
    n = jnp.round(cells["gamma"] * sizes.d)
    k_data, k_pretrained, k_scratch = jax.random.split(key, 3)
    task = regression(draw(k_data, sizes.rows, sizes.d), n, theta, sigma, cells["target_norm"])

    def fresh(k):
        return rotated(initial_network(k, sizes.d, sizes.width, sizes.depth, settings["alpha"]), task.basis)

    source = source_norm * task.source
    time = step(sizes.depth) * sizes.pretraining_steps / source_norm ** (2 - 2 / sizes.depth)
    population_loss = quadratic_loss(jnp.ones(sizes.d), source)
    pretrained = gradient_flow(population_loss, fresh(k_pretrained), time, sizes.pretraining_steps)
    untrained = fresh(k_scratch)

    def risk(w, target):
        return jnp.sum((w - target) ** 2)

    def cell(target, min_norm):
        size = jnp.linalg.norm(min_norm)
        scratch = train(
            untrained, task, min_norm, size, sizes,
            flow_steps=sizes.scratch_flow_steps,
            learning_rate=settings["scratch_learning_rate"], steps=settings["scratch_steps"],
        )  # fmt: skip
        tuned = train(
            pretrained, task, min_norm, jnp.maximum(jnp.maximum(size, source_norm), 1.0), sizes,
            flow_steps=sizes.flow_steps, learning_rate=settings["learning_rate"], steps=settings["steps"],
        )  # fmt: skip
        scratch, tuned = weights(scratch), weights(tuned)
        residual = jnp.maximum(*(jnp.linalg.norm(task.seen * (w - min_norm)) for w in (scratch, tuned)))
        return scratch, tuned, residual / size

    scratch, tuned, residual = jax.vmap(cell)(task.target, task.min_norm)
    ridge = settings["ridge"] * source_norm ** (2 - 2 / sizes.depth)
    hidden = features(pretrained)
    probe = linear_probe(hidden, task, ridge)
    unregularised = linear_probe(hidden, task, 0.0)
    risks = {
        name: jax.vmap(risk)(w, task.target)
        for name, w in {"scratch": scratch, "probe": probe, "lstsq": unregularised, "tuned": tuned}.items()
    }
    converged = residual < CONVERGED
    if sizes.protocol in ("gd", "reduced_gd"):
        converged = jnp.ones_like(converged)
    lost = jnp.linalg.norm(weights(pretrained) - source) > 1e-2 * source_norm
    transferability = risks["scratch"] - risks["tuned"]
    return {
        "scratch_risk": risks["scratch"],
        "linear_transfer_risk": risks["probe"],
        "linear_transfer_risk_lstsq": risks["lstsq"],
        "linear_transfer_transferability": risks["scratch"] - risks["probe"],
        "fine_tuning_transferability": transferability,
        "fine_tuning_transferability_controlled": transferability - zero_mean_part(task, cells, sizes),
        **against_endpoint(tuned, task, source_norm, sizes),
        "status": jnp.where(converged & ~lost, 0, 1),
    }


def linear_probe(hidden, task, ridge):
    """End-to-end weights after ridge regression of the labels on the hidden layer, one row per cell."""
    gram = hidden.T @ (task.eigenvalues[:, None] * hidden) + ridge * jnp.eye(hidden.shape[1])
    heads = jnp.linalg.solve(gram, hidden.T @ (task.eigenvalues[:, None] * task.solved))
    return mix(task.mixture, hidden @ heads)


def against_endpoint(tuned, task, source_norm, sizes):
    """The measured end point against the theory's, draw by draw: the scale kappa, and the relative distance."""
    unseen = (1 - task.seen) * task.source
    orthogonal = jnp.sum(unseen**2)
    min_norm2 = jnp.sum(task.min_norm**2, axis=1)
    other = 3 if sizes.depth == 2 else 2

    def scale(depth):
        return fine_tuning_endpoint_scale(min_norm2, orthogonal, source_norm, depth)

    def distance(kappa):
        endpoint = task.min_norm + jnp.outer(kappa * source_norm, unseen)
        return jnp.linalg.norm(tuned - endpoint, axis=1) / jnp.linalg.norm(endpoint, axis=1)

    defined = orthogonal > 0
    measured = jnp.sum(tuned * unseen[None], axis=1) / (source_norm * jnp.where(defined, orthogonal, 1.0))
    return {
        "fine_tuning_scale": jnp.where(defined, measured, jnp.nan),
        "fine_tuning_scale_theory": jnp.where(defined, scale(sizes.depth), jnp.nan),
        "fine_tuning_scale_other_depth": jnp.where(defined, scale(other), jnp.nan),
        "endpoint_error": distance(scale(sizes.depth)),
        "endpoint_error_kappa_one": distance(jnp.ones_like(min_norm2)),
        "endpoint_error_other_depth": distance(scale(other)),
    }


def zero_mean_part(task, cells, sizes):
    """The part of the fine-tuning transferability that is linear in three statistics about their exact means.

    Its expectation is exactly zero at every d: subtracting it leaves the mean alone and removes most of the variance.
    """
    d, n = sizes.d, cells["gamma"] * sizes.d
    b, theta, sigma = cells["target_norm"], cells["theta"], cells["sigma"]
    unseen = (1 - task.seen) * task.source
    unseen_share = jnp.maximum(1 - n / d, 0.0)
    ones = jnp.ones_like(theta)
    measured = (
        jnp.sum(task.min_norm**2, axis=1),
        jnp.sum(unseen**2) * ones,
        jnp.sum(task.target * unseen[None], axis=1),
    )
    exact = (
        b**2 * n / d + sigma**2 * n / jnp.maximum(d - n - 1, 1),
        unseen_share * ones,
        b * jnp.cos(theta) * unseen_share,
    )

    def transferability(min_norm2, orthogonal, overlap):
        kappa = fine_tuning_endpoint_scale(min_norm2, orthogonal, cells["source_norm"], sizes.depth)
        pull = kappa * cells["source_norm"]
        return 2 * pull * overlap - pull**2 * orthogonal

    exact = tuple(jnp.broadcast_to(value, ones.shape) for value in exact)
    deviation = tuple(m - e for m, e in zip(measured, exact, strict=True))
    part = jax.jvp(transferability, exact, deviation)[1]
    return jnp.where(n < d - 1, part, 0.0)
