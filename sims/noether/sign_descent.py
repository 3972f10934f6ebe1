"""What sign descent conserves, and what it does not."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sims.descent import optimizer_step
from sims.engine.experiment import POSITIVE, Experiment, Output, Parameter, Pathwise, Setting, per_cell, whole
from sims.noether import softmax
from sims.noether.setup import SOURCES
from theory.noether import sign_descent_charge, softmax_bias_drift


class Chain(NamedTuple):
    """What a compilation depends on."""

    depth: int
    classes: int
    inputs: int
    steps: int


def signs(loss, params, learning_rate, batches):
    """Parameters after sign descent on the batches in turn."""
    rule = optax.sign_sgd(learning_rate)

    def step(params, batch):
        return optimizer_step(rule, jax.grad(loss)(params, batch), params, rule.init(params))[0], None

    return jax.lax.scan(step, params, batches)[0]


def one(key, cell, settings, sizes):
    k_size, k_sign, k_target, k_x, k_softmax = jax.random.split(key, 5)
    w = jax.random.uniform(k_size, (sizes.depth,), minval=1.0, maxval=1.6)
    w = w * jax.random.rademacher(k_sign, w.shape, w.dtype)
    # A target of the same sign, so that no weight crosses zero on the way.
    target = jnp.prod(w) * jax.random.uniform(k_target, (), minval=0.5, maxval=2.0)

    def error(w, x):
        return (jnp.prod(w) - target) ** 2 * x**2 / 2

    end = signs(error, w, cell["learning_rate"], jax.random.normal(k_x, (sizes.steps,)))
    squares = jnp.sqrt(end[1:] ** 2 + w[:-1] ** 2 - w[1:] ** 2)
    kept = sign_descent_charge(w)

    # One example at every step.
    params, batch = softmax.draw(k_softmax, softmax.Sizes(sizes.inputs, sizes.classes, 1, 1))
    always = jax.tree.map(lambda x: jnp.broadcast_to(x, (sizes.steps, *x.shape[1:])), batch)
    bias = signs(softmax.loss, params, cell["learning_rate"], always)["bias"]
    moved = (jnp.sum(bias) - jnp.sum(params["bias"])) / sizes.steps / cell["learning_rate"]
    drift = softmax_bias_drift(cell["classes"], cell["learning_rate"]) / cell["learning_rate"]
    return {
        "difference": sign_descent_charge(end),
        "difference_theory": kept,
        "difference_of_squares": squares - jnp.abs(end[1:]),
        "drift": moved,
        "drift_theory": drift,
        "drift_conserved": jnp.zeros_like(drift),
        "drift_wrong_classes": drift - 1,
    }


sign_descent = Experiment(
    name="sign_descent",
    title="What sign descent conserves, and what it does not",
    sources=SOURCES,
    axes={
        "learning_rate": Parameter([0.001, 0.003, 0.01], "learning rate", scale="log", domain=POSITIVE),
        "classes": Parameter([2, 3, 10], "classes", domain=whole(2), role="static"),
    },
    settings={
        "depth": Setting(4, "weights of the chain", domain=whole(2)),
        "inputs": Setting(4, "dimension of the inputs of the softmax", domain=whole(1)),
        "steps": Setting(100, "steps of training", domain=whole(1)),
    },
    sizes=lambda s: Chain(s["depth"], int(s["classes"]), s["inputs"], s["steps"]),
    simulate=per_cell(one, one_by_one=True),
    predict=lambda cells, settings, sizes: {},
    outputs={
        "difference": Output(r"$|w_i| - |w_{i+1}|$", dims={"pair": lambda s: np.arange(s["depth"] - 1)}),
        "drift": Output("drift of the sum of biases a step, over the learning rate"),
    },
    claims=(
        Pathwise(
            "difference", "a chain keeps the differences of its weights' absolute values", tolerance=1e-12,
            rounding=1e3, twins={"the differences of their squares": "difference_of_squares"},
        ),
        Pathwise(
            "drift", "on one example the biases drift by minus the number of classes less two", tolerance=1e-11,
            rounding=1e4, twins={"conserved": "drift_conserved", "less one": "drift_wrong_classes"},
        ),
    ),
    presets={
        "smoke": {"learning_rate": [0.01], "classes": [2, 3], "steps": 30, "replicates": 4},
        "laptop": {"replicates": 20},
        "paper": {"classes": [2, 3, 10, 100, 1000], "depth": 8, "inputs": 64, "replicates": 50},
    },
)  # fmt: skip
