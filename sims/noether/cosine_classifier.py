"""A real scale-invariant weight in equilibrium: a cosine classifier that reads digits, by minibatches."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from sims.descent import optimizer_step
from sims.digits import CLASSES, SIDE, batches
from sims.engine.experiment import BELOW_ONE, POSITIVE, Experiment, Mean, Output, Parameter, Setting, per_cell, whole
from sims.noether.equilibrium import EITHER, OPTIMIZER, STEP, law, step_and_angle, twins
from sims.noether.setup import SOURCES, optimizer
from sims.noether.synthetic import RATE, measured


class Sizes(NamedTuple):
    """What a compilation depends on."""

    optimizer: str
    batch: int
    burn_in: int
    window: int


def sizes(settings):
    steps = (math.ceil(settings[name] / settings["eta_lambda"]) for name in ("burn_in", "window"))
    return Sizes(OPTIMIZER[int(settings["decoupled"])], settings["batch"], *steps)


def loss(weight, images, scale):
    """Cross-entropy of logits that are linear in the pixels, with weights of one norm for all classes together."""
    logits = images.pixels.reshape(len(images.pixels), -1) @ (scale * weight / jnp.linalg.norm(weight))
    return optax.softmax_cross_entropy_with_integer_labels(logits, images.labels).mean()


def one(key, cell, settings, sizes):
    k_start, k_images = jax.random.split(key)
    eta, e = settings["learning_rate"], settings["eta_lambda"]
    rule = optimizer(sizes.optimizer, eta, cell["momentum"], e / eta)

    def step(carry, k):
        weight, state = carry
        images = jax.tree.map(lambda x: x[0], batches(jax.random.fold_in(k_images, k), 1, sizes.batch))
        value, gradient = jax.value_and_grad(loss)(weight, images, settings["scale"])
        new, state = optimizer_step(rule, gradient, weight, state)
        return (new, state), (value, measured(weight, new))

    weight = jax.random.normal(k_start, (SIDE**2, CLASSES)) / SIDE
    steps = jnp.arange(sizes.burn_in + sizes.window)
    trained, _ = jax.lax.scan(step, (weight, rule.init(weight)), steps[: sizes.burn_in])
    _, (losses, run) = jax.lax.scan(step, trained, steps[sizes.burn_in :])
    mean = jnp.mean(losses)
    return {**step_and_angle(run, e, cell["decoupled"]), "loss": mean, "loss_theory": jnp.full_like(mean, jnp.nan)}


def remembers(cells, settings):
    """With momentum: without it the turn of every step is eta lambda, whatever the norm does."""
    return cells["momentum"] > 0


cosine_classifier = Experiment(
    name="cosine_classifier",
    title="Angle per step of a cosine classifier that reads digits",
    sources=SOURCES,
    axes={
        "momentum": Parameter([0.0, 0.5, 0.9], r"momentum $\beta$", domain=BELOW_ONE),
        "decoupled": Parameter([0, 1], "decoupled weight decay", domain=EITHER, role="static"),
    },
    settings={
        "eta_lambda": Setting(0.01, "learning rate times weight decay", domain=RATE),
        "learning_rate": Setting(0.1, "learning rate", domain=POSITIVE),
        "scale": Setting(30.0, "norm of the normalized weights", domain=POSITIVE),
        "batch": Setting(32, "images of a minibatch", domain=whole(1)),
        "burn_in": Setting(10.0, "steps before anything is measured, times eta lambda", domain=POSITIVE),
        "window": Setting(20.0, "steps over which is averaged, times eta lambda", domain=POSITIVE),
    },
    sizes=sizes,
    simulate=per_cell(one, one_by_one=True),
    predict=lambda cells, settings, sizes: law(cells, settings, cells["decoupled"] == 1),
    outputs={
        "step": Output(r"squared step over squared norm, over $2\eta\lambda$"),
        "angle": Output(r"angle of a step, over $\sqrt{2\eta\lambda}$"),
        "loss": Output("training loss", unit="nats"),
    },
    claims=tuple(
        Mean(
            name, f"momentum and decay alone decide the {words} of a network", where=remembers, floor=1e-12,
            rounding=30, twins=twins(name),
        )
        for name, words in STEP.items()
    ),
    presets={
        "smoke": {"momentum": [0.0, 0.9], "eta_lambda": 0.03, "window": 10.0, "replicates": 6},
        "laptop": {"replicates": 20},
        "paper": {"momentum": [0.0, 0.5, 0.9, 0.95], "eta_lambda": 1e-3, "batch": 128},
    },
)  # fmt: skip
