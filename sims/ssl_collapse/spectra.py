"""One linear encoder under five losses: which modes live is one question, how strong they are another."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from sims.engine.experiment import (
    POSITIVE,
    Bound,
    Experiment,
    Mean,
    Order,
    Output,
    Parameter,
    Phase,
    Setting,
    cell_by_cell,
    in_columns,
    whole,
)
from sims.ssl_collapse import losses
from sims.ssl_collapse.setup import SIMON, SOURCE
from sims.ssl_collapse.training import Sizes, gaussian_views, sizes, train
from theory.ssl_collapse import barlow_decayed_strength, effective_landscape, infonce_mode_strength

# Views of unit variance: correlation rho = a. The last mode is noise alone.
RHO = (0.6, 0.45, 0.3, 0.0)
LOSSES = {
    "spectral": lambda f, g, tau: losses.spectral(f, g),
    "infonce_dot": lambda f, g, tau: losses.infonce_dot(f, g, tau, positive=True),
    "infonce_distance": lambda f, g, tau: losses.infonce_distance(f, g, tau),
    "barlow": lambda f, g, tau: losses.barlow(f, g),
    "alignment": lambda f, g, tau: losses.alignment(f, g),
}
LEARNED = tuple(LOSSES)[:-1]
# The 1/n of Barlow Twins is multiplied by the sum of 1/rho^2: so many times as many inputs.
MORE = {"barlow": 8}
# A mode lives if it has more than this share of the strongest mode's variance.
LEAST = 0.01


def encoder(key, name, decay, temperature, settings, shape: Sizes):
    """Strengths of the modes of one encoder trained under the loss of that name."""
    loss, batch = LOSSES[name], shape.batch * MORE.get(name, 1)
    k_start, k_data = jax.random.split(key)
    rho = jnp.array(RHO, float)
    W = 0.3 * jax.random.normal(k_start, (len(RHO), len(RHO)))

    def objective(W, k):
        x, y = gaussian_views(k, batch, jnp.sqrt(rho), jnp.sqrt(1 - rho))
        return loss(x @ W.T, y @ W.T, temperature) + decay * jnp.sum(W**2)

    _, M = train(objective, W, k_data, shape.steps, settings["learning_rate"], lambda W: W.T @ W)
    return jnp.diagonal(M)


def simulate(key, cells, settings, sizes):
    def one(cell):
        def under(name):
            return jax.vmap(lambda decay, tau: encoder(key, name, decay, tau, settings, sizes))(
                cell["weight_decay"], cell["temperature"]
            )

        strengths = {name: under(name) for name in LOSSES}
        return strengths | {"living": living(jnp.stack([strengths[name] for name in LEARNED], 1))}

    return cell_by_cell(one, in_columns(cells), sizes.together)


def living(strengths):
    """How far above (below: negative) the least share a mode's part of the strongest one is."""
    return strengths / jnp.max(strengths, -1, keepdims=True) - LEAST


def quartic(loss, factor=1.0):
    """beta / 2 kappa of the quartic landscape, over decays; `factor` times the loss's own kappa."""

    def strengths(decay, tau):
        rho = jnp.array(RHO, float)
        B, Sigma, kappa = effective_landscape(jnp.diag(rho), jnp.diag(1 - rho), loss, tau, weight_decay=decay)
        return jnp.maximum(jnp.diagonal(B) / jnp.diagonal(Sigma), 0) / (2 * factor * kappa)

    return lambda cells, settings, sizes: jax.vmap(strengths)(cells["weight_decay"], cells["temperature"])


def exact_distance(cells, settings, sizes):
    rho, decay, tau = jnp.array(RHO, float)[None, :], cells["weight_decay"][:, None], cells["temperature"][:, None]
    return tau * infonce_mode_strength(margin=rho - decay * tau)


def barlow(cells, settings, sizes):
    # A mode without a correlation has no cross-covariance to whiten: decay alone acts on it.
    rho, decay = jnp.array(RHO[:-1], float)[None, :], cells["weight_decay"][:, None]
    return jnp.pad(barlow_decayed_strength(rho, rho, decay), ((0, 0), (0, 1)))


def predict(cells, settings, sizes):
    formulas = {
        "spectral": quartic("spectral"),
        "infonce_dot": quartic("infonce_dot"),
        "infonce_distance": exact_distance,
        "barlow": barlow,
    }
    strengths = {name: formula(cells, settings, sizes) for name, formula in formulas.items()}
    stacked = jnp.stack([strengths[name] for name in LEARNED], 1)
    spectral = strengths["spectral"]
    return strengths | {
        "spectral": jnp.where(spectral > 0, spectral, jnp.nan),
        "alignment": jnp.zeros_like(spectral),
        "living": living(stacked),
    }


def augmentation_collapses(cells, settings, sizes):
    """Modes with more noise than signal dead: the boundary of clean negatives."""
    rho, decay = jnp.array(RHO, float)[None, :], cells["weight_decay"][:, None]
    alive = jnp.where(2 * rho - 1 - decay / 2 > 0, 1.0, -LEAST)
    return jnp.broadcast_to(alive[:, None, :], (len(alive), len(LEARNED), len(RHO)))


def without_decay(cells, settings, sizes):
    """1 / rho."""
    return barlow({"weight_decay": 0 * cells["weight_decay"]}, settings, sizes)


def decay_without_effect(cells, settings, sizes):
    alive = jnp.where(jnp.array(RHO, float) > 0, 1.0, -LEAST)
    return jnp.broadcast_to(alive[None, None, :], (len(cells["weight_decay"]), len(LEARNED), len(RHO)))


def of(loss):
    return lambda cells, settings, sizes: predict(cells, settings, sizes)[loss]


LADDER = {
    "setting": "batch", "values": (16, 32, 64, 128), "order": -1, "replicates": 20, "axes": {"weight_decay": [0.1]},
}  # fmt: skip
MODES = {"rho": RHO}

spectra = Experiment(
    name="spectra",
    title="One linear encoder under five losses",
    sources=(SOURCE, SIMON),
    axes={"weight_decay": Parameter([0.1, 0.3, 0.7, 1.05], r"weight decay $\lambda$", domain=POSITIVE)},
    # At 1/2 every loss has the boundary a = lambda / 2.
    fixed={"temperature": Parameter(0.5, r"temperature $\tau$", domain=POSITIVE)},
    settings={
        "batch": Setting(32, "inputs in a minibatch", domain=whole(4)),
        "steps": Setting(1000, "steps of SGD", domain=whole(8)),
        "learning_rate": Setting(0.05, "learning rate at first", domain=POSITIVE),
        "together": Setting(1, "cells simulated side by side: one on a CPU, many on a GPU", domain=whole(1)),
    },
    sizes=sizes,
    theory_sizes=lambda sizes: (),
    simulate=simulate,
    predict=predict,
    outputs={
        **{
            name: Output(f"strength $s$, {words}", dims=MODES)
            for name, words in {
                "spectral": "spectral", "infonce_dot": "InfoNCE, dot product",
                "infonce_distance": "InfoNCE, distance", "barlow": "Barlow Twins", "alignment": "alignment alone",
            }.items()
        },
        "living": Output("share of the strongest mode, less 0.01", dims={"loss": np.arange(len(LEARNED))} | MODES),
    },
    claims=(
        Phase(
            "living", "every loss with repulsion has the same living modes, those with a > lambda / 2",
            twins={
                "more noise than signal is collapse": augmentation_collapses,
                "decay does not matter": decay_without_effect,
            },
        ),
        Bound(
            "alignment", "without repulsion every mode collapses", upper=1e-9, twins={"spectral": of("spectral")},
        ),
        Mean(
            "spectral", "spectral: the strengths of the living modes are rho - lambda / 2",
            twins={"InfoNCE's 3/4 for kappa": quartic("spectral", 0.75), "1 / rho": of("barlow")},
        ),
        Order(
            "infonce_dot", "InfoNCE with dot products: tau (rho - tau lambda), to order 1/n",
            twins={
                "kappa of the distance": quartic("infonce_dot", 1.5),
                "spectral": of("spectral"),
            }, **LADDER,
        ),
        Order(
            "infonce_distance", "InfoNCE with distances: the exact minimum, to order 1/n",
            twins={"quartic": quartic("infonce_distance"), "dot product": of("infonce_dot")}, **LADDER,
        ),
        Order(
            "barlow", "Barlow Twins: (1 - lambda / 2a) / rho, to order 1/n",
twins={"spectral": of("spectral"), "without decay": without_decay},
            **LADDER,
        ),
    ),
    presets={
        "smoke": {"weight_decay": [0.1, 0.7], "batch": 16, "steps": 400, "replicates": 4, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {
            "weight_decay": np.linspace(0.05, 1.15, 12), "batch": 1024, "steps": 20_000, "replicates": 50,
            "together": 12,
        },
    },
)  # fmt: skip
