"""What adaptive optimizers do to charges: the drift under a diagonal preconditioner, and two classes."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sims.descent import optimizer_step
from sims.engine.experiment import (
    BELOW_ONE,
    POSITIVE,
    Bound,
    Experiment,
    Order,
    Output,
    Parameter,
    Pathwise,
    Setting,
    per_cell,
    whole,
)
from sims.noether import softmax
from sims.noether.charges import one_of
from sims.noether.setup import SOURCES
from sims.noether.synthetic import RATE
from theory.noether import Part, SymmetryFamily, charge, preconditioned_charge_rate

NAMES = ("RMSProp", "Adam")
EPSILON = 1e-8
RESCALE = SymmetryFamily("rescale", (Part("kernel0", (1,)), Part("bias0", (0,)), Part("kernel", (0,), -1.0)))
FAMILIES = (RESCALE, *softmax.SHIFT)


# ---- drift under a preconditioner


class Sizes(NamedTuple):
    """What a compilation depends on."""

    optimizer: str
    inputs: int
    width: int
    classes: int
    batch: int
    steps: int


def loss(params, batch):
    """Cross-entropy of softmax regression on ReLU units."""
    inputs, labels = batch
    hidden = jax.nn.relu(inputs @ params["kernel0"] + params["bias0"][None, :])
    return softmax.loss(params, (hidden, labels))


def draw(key, sizes: Sizes):
    """Weights, and minibatches of Gaussian inputs with labels of a random linear teacher."""
    k_first, k_bias, k_last, k_data = jax.random.split(key, 4)
    _, batches = softmax.draw(k_data, softmax.Sizes(sizes.inputs, sizes.classes, sizes.batch, sizes.steps))
    last, _ = softmax.draw(k_last, softmax.Sizes(sizes.width, sizes.classes, 1, 1))
    kernel = jax.random.normal(k_first, (sizes.inputs, sizes.width)) / sizes.inputs**0.5
    first = {"kernel0": kernel, "bias0": 0.1 * jax.random.normal(k_bias, (sizes.width,))}
    return {**first, **last, "kernel": last["kernel"] / sizes.width**0.5}, batches


def adaptive_optimizer(name: str, learning_rate, decay) -> optax.GradientTransformation:
    """One of `NAMES`, Adam without momentum."""
    if name == "RMSProp":
        return optax.rmsprop(learning_rate, decay, eps=EPSILON, eps_in_sqrt=False)
    return optax.adam(learning_rate, 0.0, decay, eps=EPSILON)


def preconditioner(name: str, second_moment, decay, count):
    """D, one over the root of the second moment; Adam corrects the bias of its zero start."""
    correction = 1 - decay**count if name == "Adam" else jnp.ones_like(decay)
    return jax.tree.map(lambda v: 1 / (jnp.sqrt(v / correction) + EPSILON), second_moment)


def train(loss, params, batches, rule, name, rate, decay):
    """Steps of an adaptive optimizer. Returns: trained parameters; sum of the first-order changes of the charges."""

    def step(carry, batch):
        params, state, v, count, total = carry
        g = jax.grad(loss)(params, batch)
        v = jax.tree.map(lambda v, g: decay * v + (1 - decay) * g**2, v, g)
        D = preconditioner(name, v, decay, count)
        first = [preconditioned_charge_rate(family, params, g, D, rate) for family in FAMILIES]
        params, state = optimizer_step(rule, g, params, state)
        return (params, state, v, count + 1, jax.tree.map(jnp.add, total, (*first,))), None

    nothing = tuple(jnp.zeros_like(charge(family, params)) for family in FAMILIES)
    v = jax.tree.map(jnp.zeros_like, params)
    carry = (params, rule.init(params), v, jnp.ones_like(decay), nothing)
    (params, *_, total), _ = jax.lax.scan(step, carry, batches)
    return params, total


def drifting(key, cell, settings, sizes):
    params, batches = draw(key, sizes)
    rate, decay = settings["learning_rate"], cell["forgetting"]
    rule = adaptive_optimizer(sizes.optimizer, rate, 1 - decay)
    end, first = train(loss, params, batches, rule, sizes.optimizer, rate, 1 - decay)
    rescale, *shifts = (charge(family, end) - charge(family, params) for family in FAMILIES)
    shift, predicted = jnp.concatenate(shifts), jnp.concatenate(first[1:])

    def distance(prediction):
        return jnp.sqrt(jnp.mean((rescale - prediction) ** 2))

    off = distance(first[0])
    return {
        "rescale": rescale,
        "rescale_theory": first[0],
        "distance": off,
        "distance_theory": jnp.zeros_like(off),
        # A twin is what, taken from the output, leaves the distance to its own prediction.
        "distance_conserved": off - distance(jnp.zeros_like(rescale)),
        "distance_half": off - distance(first[0] / 2),
        "shift": shift,
        "shift_theory": predicted,
        "shift_conserved": jnp.zeros_like(shift),
    }


# RMSProp starts with large steps, until its second moment is there: a fast one, for these are of order two.
LADDER = {
    "setting": "learning_rate", "values": (0.01, 0.005, 0.0025, 0.00125), "order": 1, "replicates": 40,
    "axes": {"optimizer": [0, 1], "forgetting": [0.5]},
}  # fmt: skip

adaptive_charge = Experiment(
    name="adaptive_charge",
    title="Charges that an adaptive optimizer moves",
    sources=SOURCES,
    axes={
        "optimizer": Parameter([0, 1], "optimizer", domain=one_of(NAMES), role="static"),
        "forgetting": Parameter([0.01, 0.1, 0.5], r"one minus $\beta_2$", scale="log", domain=RATE),
    },
    settings={
        "learning_rate": Setting(0.01, "learning rate", domain=POSITIVE),
        "time": Setting(0.5, "steps times the learning rate", domain=POSITIVE),
        "inputs": Setting(8, "dimension of the inputs", domain=whole(1)),
        "width": Setting(6, "ReLU units", domain=whole(1)),
        "classes": Setting(4, "classes", domain=whole(2)),
        "batch": Setting(16, "samples of a minibatch", domain=whole(1)),
    },
    sizes=lambda s: Sizes(
        NAMES[int(s["optimizer"])], s["inputs"], s["width"], s["classes"], s["batch"],
        max(1, round(s["time"] / s["learning_rate"])),
    ),
    simulate=per_cell(drifting, one_by_one=True),
    predict=lambda cells, settings, sizes: {},
    outputs={
        "rescale": Output(
            "change of in-weights less out-weights, squared", dims={"unit": lambda s: np.arange(s["width"])}
        ),
        "distance": Output("distance of these changes from the prediction, root mean square"),
        "shift": Output("shift of the logits", dims={"row": lambda s: np.arange(s["width"] + 1)}),
    },
    claims=(
        Order(
            "distance", "the preconditioner moves the charges of ReLU units, up to the step size",
            twins={"conserved": "distance_conserved", "half the rate": "distance_half"}, **LADDER,
        ),
        Pathwise(
            "shift", "the preconditioner alone moves the shift of the logits", tolerance=1e-9, rounding=1e4,
            twins={"conserved": "shift_conserved"},
        ),
    ),
    presets={
        "smoke": {"optimizer": [1], "forgetting": [0.1], "learning_rate": 0.05, "replicates": 4, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {
            "learning_rate": 1e-3, "inputs": 64, "width": 64, "classes": 10, "batch": 128, "replicates": 50,
        },
    },
)  # fmt: skip


# ---- two classes


def shift_after(key, classes: int, rule, sizes):
    """How far training moves the logit shift of softmax regression."""
    params, batches = softmax.draw(key, softmax.Sizes(sizes.inputs, classes, sizes.batch, sizes.steps))

    def step(carry, batch):
        params, state = carry
        return optimizer_step(rule, jax.grad(softmax.loss)(params, batch), params, state), None

    (end, _), _ = jax.lax.scan(step, (params, rule.init(params)), batches)
    return jnp.concatenate([charge(family, end) - charge(family, params) for family in softmax.SHIFT])


def shifting(key, cell, settings, sizes):
    rule = optax.adam(cell["learning_rate"], cell["beta1"])
    more = shift_after(key, sizes.classes + 1, rule, sizes)
    shift = shift_after(key, sizes.classes, rule, sizes)
    return {"shift": shift, "shift_theory": jnp.zeros_like(shift), "shift_more": more}


logit_shift = Experiment(
    name="logit_shift",
    title="The logit shift under Adam: kept with two classes, not with three",
    sources=SOURCES,
    axes={
        "learning_rate": Parameter([0.01, 0.03, 0.1], "learning rate", scale="log", domain=POSITIVE),
        "beta1": Parameter([0.0, 0.9], r"momentum $\beta_1$", domain=BELOW_ONE),
    },
    settings={
        "classes": Setting(2, "classes, and as the twin one more", domain=whole(2)),
        "inputs": Setting(4, "dimension of the inputs", domain=whole(1)),
        "batch": Setting(16, "samples of a minibatch", domain=whole(1)),
        "steps": Setting(100, "steps of training", domain=whole(1)),
    },
    sizes=lambda settings: softmax.Sizes(*(settings[name] for name in softmax.Sizes._fields)),
    simulate=per_cell(shifting, one_by_one=True),
    predict=lambda cells, settings, sizes: {},
    outputs={"shift": Output("shift of the logits", dims={"row": lambda s: np.arange(s["inputs"] + 1)})},
    claims=(
        Bound(
            "shift", "Adam keeps the logit shift of two classes", upper=1e-12, rounding=1e3,
            where=lambda cells, settings: np.full(np.shape(cells["beta1"]), settings["classes"] == 2),
            twins={"of three classes": "shift_more"},
        ),
    ),
    presets={
        "smoke": {"learning_rate": [0.03], "steps": 20, "replicates": 4},
        "laptop": {"replicates": 20},
        "paper": {"steps": 10_000, "inputs": 64, "batch": 128, "replicates": 50},
    },
)  # fmt: skip
