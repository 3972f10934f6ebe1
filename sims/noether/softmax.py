"""Softmax regression on random data: the smallest network whose logits can be shifted."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from theory.noether import Part, SymmetryFamily

SHIFT = (SymmetryFamily("translation", (Part("kernel", (0,)),)), SymmetryFamily("translation", (Part("bias"),)))


class Sizes(NamedTuple):
    """What a compilation depends on."""

    inputs: int
    classes: int
    batch: int
    steps: int


def loss(params, batch):
    """Cross-entropy of softmax regression."""
    inputs, labels = batch
    logits = inputs @ params["kernel"] + params["bias"][None, :]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def draw(key, sizes: Sizes):
    """Weights, and minibatches of Gaussian inputs with labels of a random linear teacher."""
    k_start, k_bias, k_teacher, k_inputs = jax.random.split(key, 4)
    kernel = jax.random.normal(k_start, (sizes.inputs, sizes.classes))
    params = {"kernel": kernel, "bias": jax.random.normal(k_bias, (sizes.classes,))}
    inputs = jax.random.normal(k_inputs, (sizes.steps, sizes.batch, sizes.inputs))
    labels = jnp.argmax(inputs @ jax.random.normal(k_teacher, kernel.shape), -1)
    return params, (inputs, labels)
