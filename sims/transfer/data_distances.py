"""Distances between the data laws of source and target, estimated from samples of both."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sims.engine.experiment import (
    ANGLE,
    POSITIVE,
    Experiment,
    Mean,
    Order,
    Output,
    Parameter,
    Setting,
    whole,
)
from sims.transfer.phase_diagram import SOURCE
from theory.transfer import kl_divergence, mmd, wasserstein2


class Sizes(NamedTuple):
    """Shapes that a compilation depends on."""

    d: int
    samples: int
    kernel_samples: int


def sizes(settings):
    return Sizes(settings["d"], settings["samples"], min(settings["kernel_samples"], settings["samples"]))


def simulate(key, cells, settings, sizes):
    """Independent samples of both laws; inputs and noise are shared by all cells, which differ in the labels only."""
    k_source, k_target, k_noise = jax.random.split(key, 3)
    shape = (sizes.samples, sizes.d)
    source_inputs, target_inputs = jax.random.normal(k_source, shape), jax.random.normal(k_target, shape)
    source_noise, target_noise = jax.random.normal(k_noise, (2, sizes.samples))
    B, b, bandwidth = cells["source_norm"], cells["target_norm"], settings["bandwidth"]
    few = sizes.kernel_samples
    within_source = squared_distances(source_inputs[:few], source_inputs[:few])
    within_target = squared_distances(target_inputs[:few], target_inputs[:few])
    between = squared_distances(source_inputs[:few], target_inputs[:few])

    def cell(parameters):
        theta, sigma = parameters
        source = jnp.zeros(sizes.d).at[0].set(B)
        target = jnp.zeros(sizes.d).at[0].set(b * jnp.cos(theta)).at[1].set(b * jnp.sin(theta))
        source_labels = source_inputs @ source + sigma * source_noise
        target_labels = target_inputs @ target + sigma * target_noise

        surprise = (source_labels - source_inputs @ target) ** 2 - (source_labels - source_inputs @ source) ** 2
        root = root_of_moment(source_inputs, source_labels)
        overlap = jnp.linalg.eigvalsh(root @ moment(target_inputs, target_labels) @ root)
        size = jnp.mean(jnp.sum(source_inputs**2, axis=1) + source_labels**2)
        size = size + jnp.mean(jnp.sum(target_inputs**2, axis=1) + target_labels**2)

        def kernel(distances, labels, others):
            gaps = labels[:few, None] - others[None, :few]
            return jnp.exp(-(distances + gaps**2) / (2 * bandwidth**2))

        def of_pairs(distances, labels):
            return (jnp.sum(kernel(distances, labels, labels)) - few) / (few * (few - 1))

        return {
            "kl_divergence": jnp.mean(surprise) / (2 * sigma**2),
            "wasserstein2_squared": size - 2 * jnp.sum(jnp.sqrt(jnp.maximum(overlap, 0.0))),
            "mmd_squared": of_pairs(within_source, source_labels) + of_pairs(within_target, target_labels)
            - 2 * jnp.mean(kernel(between, source_labels, target_labels)),
        }  # fmt: skip

    return jax.lax.map(cell, (cells["theta"], cells["sigma"]))


def squared_distances(points, others):
    return jnp.sum(points**2, axis=1)[:, None] + jnp.sum(others**2, axis=1)[None, :] - 2 * points @ others.T


def moment(inputs, labels):
    """Empirical second moment of (x, y)."""
    joint = jnp.concatenate([inputs, labels[:, None]], axis=1)
    return joint.T @ joint / len(inputs)


def root_of_moment(inputs, labels):
    eigenvalues, vectors = jnp.linalg.eigh(moment(inputs, labels))
    return (vectors * jnp.sqrt(jnp.maximum(eigenvalues, 0.0))[None, :]) @ vectors.T


def parameters(cells):
    return cells["theta"], cells["sigma"], cells["source_norm"], cells["target_norm"]


def squared_mmd(cells, bandwidth, d):
    theta, sigma, B, b = parameters(cells)
    return mmd(theta, sigma, bandwidth, d, B, b) ** 2


def predict(cells, settings, sizes):
    return {
        "kl_divergence": kl_divergence(*parameters(cells)),
        "wasserstein2_squared": wasserstein2(*parameters(cells)) ** 2,
        "mmd_squared": squared_mmd(cells, settings["bandwidth"], sizes.d),
    }


def kl_without_half(cells, settings, sizes):
    return 2 * kl_divergence(*parameters(cells))


def kl_of_the_angle(cells, settings, sizes):
    theta, sigma, B, b = parameters(cells)
    return kl_divergence(theta, sigma, jnp.ones_like(B), jnp.ones_like(b))


def w2_unsquared(cells, settings, sizes):
    return wasserstein2(*parameters(cells))


def w2_of_the_labels(cells, settings, sizes):
    """The distance between the regression vectors, as if x were known."""
    theta, _, B, b = parameters(cells)
    return B**2 + b**2 - 2 * B * b * jnp.cos(theta)


def mmd_unsquared(cells, settings, sizes):
    return jnp.sqrt(squared_mmd(cells, settings["bandwidth"], sizes.d))


def mmd_other_kernel(cells, settings, sizes):
    """The kernel exp(-|z - z'|^2 / l^2)."""
    return squared_mmd(cells, settings["bandwidth"] / 2**0.5, sizes.d)


data_distances = Experiment(
    name="data_distances",
    title="Distances between source and target data, from samples",
    sources=(SOURCE,),
    axes={
        "theta": Parameter(
            np.linspace(0.0, math.pi, 9), r"angle between the tasks $\theta$", unit="rad", domain=ANGLE
        ),
        "sigma": Parameter([0.5, 1.0], r"label noise $\sigma$", domain=POSITIVE),
    },
    fixed={
        "source_norm": Parameter(1.3, r"source norm $|\beta_s|$", domain=POSITIVE),
        "target_norm": Parameter(0.9, r"target norm $|\beta_t|$", domain=POSITIVE),
    },
    settings={
        "d": Setting(8, "input dimension", domain=whole(2)),
        "samples": Setting(1000, "samples of each law", domain=whole(2)),
        "kernel_samples": Setting(400, "how many of them the kernel estimate compares in pairs", domain=whole(2)),
        "bandwidth": Setting(3.0, "length of the Gaussian kernel", domain=POSITIVE),
    },
    sizes=sizes,
    simulate=simulate,
    predict=predict,
    outputs={
        "kl_divergence": Output("Kullback-Leibler divergence", unit="nats"),
        "wasserstein2_squared": Output(r"squared Wasserstein distance $W_2^2$"),
        "mmd_squared": Output(r"squared discrepancy $\mathrm{MMD}^2$"),
    },
    claims=(
        Mean(
            "kl_divergence", "the mean log-likelihood ratio is the divergence", rounding=500,
            twins={"without the half": kl_without_half, "norms ignored": kl_of_the_angle},
        ),
        Mean(
            "mmd_squared", "the unbiased kernel estimate has the closed form as its mean", rounding=5,
            twins={"not squared": mmd_unsquared, "kernel without its half": mmd_other_kernel},
        ),
        Order(
            "wasserstein2_squared", "the distance of the sample moments is that of the laws, to order 1/samples",
            rounding=5e3, setting="samples", values=(100, 200, 400, 800), order=-1, replicates=400,
            axes={"theta": [0.0, 0.8, 1.6], "sigma": [0.5]}, settings={"d": 6, "kernel_samples": 2},
            twins={"not squared": w2_unsquared, "distance of the regression vectors": w2_of_the_labels},
        ),
    ),
    presets={
        "smoke": {"samples": 300, "kernel_samples": 300, "replicates": 60, "ladders": False},
        "laptop": {"replicates": 100},
        "paper": {"samples": 4000, "kernel_samples": 4000, "theta": np.linspace(0.0, math.pi, 33), "replicates": 100},
    },
)  # fmt: skip
