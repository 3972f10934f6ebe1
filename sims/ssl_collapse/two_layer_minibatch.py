"""Two layers with weight decay under SGD on fresh minibatches: which modes live, how strong, and what is conserved.

The spectral loss of n inputs, two augmented views each; no pair of one input is in its square.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sims.descent import gradient_step
from sims.engine.experiment import (
    NONNEGATIVE,
    POSITIVE,
    Experiment,
    Order,
    Output,
    Parameter,
    Phase,
    Setting,
    cell_by_cell,
    in_columns,
    whole,
)
from sims.ssl_collapse.layers import (
    AUGMENTATION,
    CLEAN,
    KAPPA,
    MODES,
    aligned,
    decay_loss,
    draw_basis,
    gaussian,
    hidden_grams,
    modes,
    product,
    strengths,
)
from sims.ssl_collapse.losses import spectral
from sims.ssl_collapse.setup import JING, SOURCE
from sims.ssl_collapse.training import gaussian_views
from theory.ssl_collapse import two_layer_critical_decay, two_layer_imbalance, two_layer_strength

BAND = 0.15
DEAD = 1e-6


class Sizes(NamedTuple):
    """What a compilation depends on."""

    batch: int
    together: int


def simulate(key, cells, settings, sizes):
    k_basis, k_random, k_small, k_views = jax.random.split(key, 4)
    noise = cells["noise"]
    b, sigma = modes(noise)
    limit = jnp.sqrt(b / (2 * KAPPA)) / sigma
    basis = draw_basis(k_basis)
    # The views come in the data's eigenbasis; the first layer sees them rotated.
    roots = jnp.sqrt(jnp.array(CLEAN)), jnp.sqrt(jnp.full(len(CLEAN), 1.0) * noise)
    eta = settings["learning_rate"]
    steps = {
        name: jnp.round(settings[name] / eta).astype(jnp.int32) for name in ("time", "settle", "small_time", "balance")
    }
    starts = {
        "learned": aligned(basis, (jnp.sqrt(limit),) * 2),
        "small": gaussian(k_small, 2, settings["small"]),
        "random": gaussian(k_random, 2, settings["scale"]),
    }

    def train(layers, decays, count, settled):
        """(layers after `count` steps at every decay, mean of p^2 over those from `settled` on)."""

        def loss(layers, decay, views):
            W = product(layers) @ basis.data
            first, second = (view @ W.T for view in views)
            return spectral(first, second) + decay_loss(layers, decay)

        def step(k, carry):
            layers, total = carry
            views = gaussian_views(jax.random.fold_in(k_views, k), sizes.batch, *roots)
            layers = jax.vmap(lambda w, decay: gradient_step(lambda v: loss(v, decay, views), w, eta))(layers, decays)
            square = jax.vmap(lambda w: strengths(product(w), basis) ** 2)(layers)
            return layers, total + jnp.where(k >= settled, square, 0.0)

        layers = jax.tree.map(lambda w: jnp.broadcast_to(w[None], (len(decays), *w.shape)), layers)
        total = jnp.zeros((len(decays), len(b)))
        layers, total = jax.lax.fori_loop(jnp.int32(0), count, step, (layers, total))
        return layers, total / (count - settled).astype(eta.dtype)

    def one(decays):
        learned = train(starts["learned"], decays, steps["time"], steps["settle"])[1]
        small = train(starts["small"], decays, steps["small_time"], steps["small_time"] // 2)[1]
        random = train(starts["random"], decays, steps["balance"], 0)[0]
        return learned, small, jax.vmap(balance)(random)

    decays = in_columns(cells)["weight_decay"]
    learned, small, last = cell_by_cell(one, decays, sizes.together)
    first = jnp.broadcast_to(balance(starts["random"]), last.shape)
    early = steps["balance"]
    time = eta * early.astype(eta.dtype)

    def drift(decay):
        """How far D is from where it should be, over its size at the start."""
        gap = last - two_layer_imbalance(time, first, decay[:, None, None])
        return jnp.linalg.norm(gap, axis=(1, 2)) / jnp.linalg.norm(first, axis=(1, 2))

    finite = jnp.all(jnp.isfinite(learned + small), axis=1)
    return {
        "variance": learned / limit[None, :] ** 2,
        "learned": distance(learned, limit[None, :]),
        "small": distance(small, limit[None, :]),
        "drift": drift(decays),
        # A twin of a distance that leaves the distance to another law.
        "drift_conserved": drift(decays) - drift(jnp.zeros_like(decays)),
        "drift_halved": drift(decays) - drift(decays / 2),
        "status": jnp.where(finite, 0, 2),
    }


def balance(layers):
    """W1 W1^T - W2^T W2."""
    first, second = hidden_grams(layers)
    return first - second


def distance(square, limit):
    """Logarithm of p^2 over that of half the spinodal's p, cut off where nothing is left."""
    return jnp.log(12 * square / limit**2 + DEAD)


def squares(decay, noise, **how):
    """p^2 of every cell and mode, over that without decay."""
    b, sigma = modes(noise)
    return 2 * KAPPA * (sigma * two_layer_strength(b, sigma, KAPPA, decay[:, None], **how)) ** 2 / b


def predict(cells, settings, sizes):
    square = squares(cells["weight_decay"], cells["noise"])
    return {
        "variance": square,
        "learned": distance(square, 1.0),
        "small": distance(jnp.zeros_like(square), 1.0),
        "drift": jnp.zeros_like(cells["weight_decay"]),
    }


def variance(change=lambda decay: decay, **how):
    def formula(cells, settings, sizes):
        return squares(change(cells["weight_decay"]), cells["noise"], **how)

    return formula


def alive(**how):
    def formula(cells, settings, sizes):
        return distance(squares(cells["weight_decay"], cells["noise"], **how), 1.0)

    return formula


def away_from_spinodals(cells, settings):
    """Where a minibatch's noise is far too small to carry a mode over its barrier."""
    ends = two_layer_critical_decay(*modes(cells["noise"]), KAPPA).spinodal
    return (np.abs(np.asarray(cells["weight_decay"])[:, None] / np.asarray(ends) - 1) > BAND).all(1)


def with_decay(cells, settings):
    return away_from_spinodals(cells, settings) & (np.asarray(cells["weight_decay"]) > 0)


def fits(values, settings):
    if settings["settle"] >= settings["time"]:
        raise ValueError(f"`settle` must be below `time`, but got {settings['settle']:g}.")


two_layer_minibatch = Experiment(
    name="two_layer_minibatch",
    title="Two layers with weight decay on real minibatches: collapse of first order",
    sources=(SOURCE, JING),
    axes={
        "weight_decay": Parameter(
            [0.0, 0.1, 0.18, 0.23, 0.25, 0.36, 0.39, 0.55, 0.58, 0.85], r"weight decay $\lambda$", domain=NONNEGATIVE
        )
    },
    fixed=AUGMENTATION,
    settings={
        "batch": Setting(32, "inputs in a minibatch", domain=whole(2)),
        "learning_rate": Setting(0.02, "learning rate", domain=POSITIVE),
        "time": Setting(60.0, "training time, steps times learning rate", domain=POSITIVE),
        "settle": Setting(30.0, "time from which on strengths are averaged", domain=POSITIVE),
        "small_time": Setting(60.0, "training time of small layers", domain=POSITIVE),
        "balance": Setting(4.0, "time at which the layers' balance is measured", domain=POSITIVE),
        "scale": Setting(0.3, "standard deviation of random layers", domain=POSITIVE),
        "small": Setting(0.03, "standard deviation of small layers", domain=POSITIVE),
        "together": Setting(1, "cells simulated side by side: one on a CPU, many on a GPU", domain=whole(1)),
    },
    sizes=lambda settings: Sizes(settings["batch"], settings["together"]),
    theory_sizes=lambda sizes: (),
    simulate=simulate,
    predict=predict,
    validate=fits,
    outputs={
        "variance": Output(r"$p^2/p_\infty^2$, from the learned state", dims=MODES),
        "learned": Output(r"$\ln(4p^2/p_{sp}^2)$, from the learned state", dims=MODES),
        "small": Output(r"$\ln(4p^2/p_{sp}^2)$, from small layers", dims=MODES),
        "drift": Output(r"distance of $W_1W_1^\top-W_2^\top W_2$ from its law"),
    },
    claims=(
        Phase(
            "learned", "learned modes live up to their own spinodals", share=1.0, where=away_from_spinodals,
            twins={"the transition for the spinodal": alive(lowest=True), "a single layer": alive(depth=1)},
        ),
        Phase(
            "small", "small layers stay collapsed at every decay", share=1.0, where=with_decay,
            twins={"the learned state": alive(), "a single layer": alive(depth=1)},
        ),
        Order(
            "variance", "strengths approach the largest root, to first order in the step", setting="learning_rate",
            values=(0.03, 0.015, 0.0075, 0.00375), order=1, replicates=20, axes={"weight_decay": [0.0, 0.1, 0.18]},
            settings={"batch": 16, "time": 50.0, "settle": 10.0, "small_time": 1.0, "balance": 1.0},
            twins={"half the decay": variance(lambda decay: decay / 2), "a single layer": variance(depth=1)},
        ),
        Order(
            "drift", "the layers' balance decays at 4 lambda on any minibatch", setting="learning_rate",
            values=(0.02, 0.01, 0.005, 0.0025), order=1, replicates=20, axes={"weight_decay": [0.0, 0.1, 0.2]},
            settings={"time": 1.0, "settle": 0.5, "small_time": 1.0},
            twins={"conserved with decay": "drift_conserved", "decays at 2 lambda": "drift_halved"},
        ),
    ),
    presets={
        "smoke": {
            "weight_decay": [0.1, 0.25, 0.55, 0.85], "batch": 16, "time": 15.0, "settle": 10.0,
            "small_time": 15.0, "replicates": 4,
            "ladders": False,
        },
        "laptop": {"replicates": 20},
        "paper": {
            "weight_decay": np.linspace(0, 0.9, 46), "batch": 1024, "time": 200.0, "settle": 100.0,
            "small_time": 200.0, "replicates": 50,
            "together": 46,
        },
    },
)  # fmt: skip
