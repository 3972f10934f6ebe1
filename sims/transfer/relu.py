"""Two-layer ReLU networks: pretrained on a part of the teacher, then probed, fine-tuned or trained from scratch."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sims.descent import gradient_descent
from sims.engine.experiment import (
    NONNEGATIVE,
    POSITIVE,
    Domain,
    Experiment,
    Mean,
    Order,
    Output,
    Parameter,
    Phase,
    Setting,
    whole,
)
from sims.transfer.phase_diagram import SOURCE
from theory.transfer import relu_floor, relu_linear_transfer_risk

CONVERGED = 0.02
FRACTION = Domain("a fraction from 0 to below 1", lambda x: (x >= 0) & (x < 1))


class Sizes(NamedTuple):
    """Shapes that a compilation depends on."""

    d: int
    width: int
    neurons: int
    rows: int
    probe_samples: int
    test_samples: int
    batch: int
    pretraining_steps: int


def sizes(settings):
    return Sizes(*(settings[name] for name in Sizes._fields))


def student(network, inputs):
    """The mean-field network f(x) = c . relu(W x) / m."""
    first, head = network
    return jax.nn.relu(inputs @ first.T) @ head / len(head)


def squared_error(network, inputs, labels, seen=1.0):
    """Sum of squared errors of the rows that are seen."""
    return jnp.sum(seen * (student(network, inputs) - labels) ** 2)


def initial_student(key, d, width):
    k_first, k_head = jax.random.split(key)
    first = 0.5 * jax.random.normal(k_first, (width, d)) / d**0.5
    return first, 0.5 * jax.random.rademacher(k_head, (width,), first.dtype)


def teacher(key, d, neurons):
    """Unit neurons and their coefficients +-1 / sqrt(neurons)."""
    k_neurons, k_signs = jax.random.split(key)
    directions = jax.random.normal(k_neurons, (neurons, d))
    directions = directions / jnp.linalg.norm(directions, axis=1, keepdims=True)
    return directions, jax.random.rademacher(k_signs, (neurons,), directions.dtype) / neurons**0.5


def labels_of(target, inputs):
    directions, coefficients = target
    return jax.nn.relu(inputs @ directions.T) @ coefficients


def pretrain(key, network, source, settings, sizes):
    """Online gradient descent on fresh samples of the source; the rate falls to zero in the last half, linearly."""
    rate = settings["pretraining_rate"] * sizes.width
    steps = sizes.pretraining_steps
    optimizer = optax.sgd(lambda count: rate * jnp.clip(2 - 2 * count / steps, 0.0, 1.0).astype(rate.dtype))

    def step(state, count):
        network, memory = state
        inputs = jax.random.normal(jax.random.fold_in(key, count), (sizes.batch, sizes.d))
        slope = jax.grad(squared_error)(network, inputs, labels_of(source, inputs))
        updates, memory = optimizer.update(jax.tree.map(lambda g: g / sizes.batch, slope), memory)
        return (optax.apply_updates(network, updates), memory), None

    return jax.lax.scan(step, (network, optimizer.init(network)), jnp.arange(steps))[0][0]


def least_squares(hidden, labels, ridge):
    """Head that minimises the mean squared error plus a ridge; `hidden` has a row per sample, zero where unseen."""
    gram, moment = hidden.T @ hidden, hidden.T @ labels
    penalty = ridge * jnp.trace(gram) / len(gram)
    return jnp.linalg.solve(gram + penalty * jnp.eye(len(gram)), moment)


def simulate(key, cells, settings, sizes):
    k_teacher, k_data, k_probe, k_test, k_network, k_scratch, k_online = jax.random.split(key, 7)
    target = teacher(k_teacher, sizes.d, sizes.neurons)
    removed = jnp.round(cells["mu"] * sizes.neurons)
    source = (target[0], jnp.where(jnp.arange(sizes.neurons) < removed, 0.0, target[1]))

    def sample(k, count):
        inputs = jax.random.normal(k, (count, sizes.d))
        return inputs, labels_of(target, inputs)

    inputs, labels = sample(k_data, sizes.rows)
    probe_inputs, probe_labels = sample(k_probe, sizes.probe_samples)
    test_inputs, test_labels = sample(k_test, sizes.test_samples)
    untrained = initial_student(k_network, sizes.d, sizes.width)
    pretrained = pretrain(k_online, untrained, source, settings, sizes)
    fresh = initial_student(k_scratch, sizes.d, sizes.width)
    test_hidden = jax.nn.relu(test_inputs @ pretrained[0].T)

    def risk(network):
        return squared_error(network, test_inputs, test_labels) / sizes.test_samples

    def probe_risk(hidden, labels, ridge):
        return jnp.mean((test_hidden @ least_squares(hidden, labels, ridge) - test_labels) ** 2)

    hidden = jax.nn.relu(inputs @ pretrained[0].T)

    def cell(n):
        seen = (jnp.arange(sizes.rows) < n).astype(inputs.dtype)

        def loss(network):
            return squared_error(network, inputs, labels, seen / n)

        def train(start):
            return gradient_descent(loss, start, settings["learning_rate"] * sizes.width, settings["steps"])

        few = seen[:, None] * hidden
        return {
            "scratch_risk": risk(train(fresh)),
            "fine_tuning_risk": risk(train(pretrained)),
            "linear_transfer_risk": probe_risk(few, labels, settings["ridge"]),
            "least_squares_risk": probe_risk(few, labels, 0.0),
        }

    out = jax.vmap(cell)(cells["n"])
    every_cell = jnp.ones_like(cells["n"])
    measured = probe_risk(jax.nn.relu(probe_inputs @ pretrained[0].T), probe_labels, 0.0)
    floors = {
        "": floor_of(relu_floor, target, pretrained[0]),
        "_initial": floor_of(relu_floor, target, untrained[0]),
        "_source": floor_of(relu_floor, source, pretrained[0]),
        "_sign": relu_floor_sign,
    }
    return out, floors, measured, every_cell
