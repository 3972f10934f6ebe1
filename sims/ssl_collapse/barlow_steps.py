"""Barlow Twins by gradient descent from small weights: one mode after another, and which of them are kept."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sims.descent import gradient_descent, gradient_descent_path, gradient_flow
from sims.engine.experiment import (
    POSITIVE,
    Domain,
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
from sims.ssl_collapse.setup import SIMON, SOURCE
from theory.ssl_collapse import barlow_kept, barlow_mode, barlow_shares

MODES = 4
KEPT = 2
TIMES = tuple(np.linspace(0.5, 12, 24))
# Long enough for every kept mode, at a step that is stable.
END, STEP = 60.0, 0.05


class Sizes(NamedTuple):
    """What a compilation depends on."""

    together: int


def sizes(settings) -> Sizes:
    return Sizes(settings["together"])


def rotation(key, d: int):
    return jnp.linalg.qr(jax.random.normal(key, (d, d)))[0]


def covariance(ratio, basis):
    """Cross-covariance of two views with eigenvalues 1, r, r^2, ... in a basis, and those eigenvalues."""
    gamma = ratio[..., None] ** jnp.arange(MODES, dtype=float)
    return (basis * gamma[None, :]) @ basis.T, gamma


def loss(W, A0):
    """Barlow Twins for infinitely many inputs, not normalised."""
    K = W @ A0 @ W.T
    return jnp.sum((K - jnp.eye(len(W), dtype=K.dtype)) ** 2)


def shares(W, gamma, basis):
    """Part of every mode in Tr K."""
    return gamma * jnp.sum((W @ basis) ** 2, 0)


def one(key, ratio, settings):
    k_basis, k_turn, k_W, k_sign = jax.random.split(key, 4)
    basis, turn = rotation(k_basis, MODES), rotation(k_turn, MODES)
    A0, gamma = covariance(ratio, basis)
    scale, eta = settings["scale"], settings["eta"]

    def objective(W):
        return loss(W, A0)

    # Aligned modes: the right singular vectors are the eigenvectors of A0, the left ones any.
    start = scale * jnp.sqrt(1 + jnp.arange(MODES, dtype=float))
    counts = jnp.round(jnp.array(TIMES) / eta).astype(jnp.int32)
    path = gradient_descent_path(objective, (turn * start[None, :]) @ basis.T, eta, counts)
    values = jax.vmap(lambda W: jnp.diagonal(turn.T @ W @ basis))(path)
    t = (counts.astype(float) * eta)[:, None]

    # Any start: two dimensions for four modes, and one.
    W = scale * jax.random.normal(k_W, (KEPT, MODES))
    two = gradient_descent(objective, W, STEP, round(END / STEP))
    single = gradient_descent(objective, W[:1], eta, jnp.round(END / eta))
    at_start = (W[:1] @ basis)[0]
    first = shares(W[:1], gamma, basis)
    # Equal parts of all modes at the start: the share that is left has no law with heavy tails. Gradient flow: a finite
    # step would change the exponent.
    equal = scale * jnp.sum(basis * jax.random.rademacher(k_sign, (MODES,), basis.dtype)[None, :], 1)[None, :]
    return {
        "path": values,
        "path_theory": barlow_mode(t, gamma[None, :], start[None, :]),
        "path_half": barlow_mode(t / 2, gamma[None, :], start[None, :]),
        "path_end": barlow_mode(t, gamma[None, :], start[None, :]) * jnp.sqrt(gamma)[None, :],
        "kept": shares(two, gamma, basis) - 0.5,
        "share": shares(single, gamma, basis),
        "share_theory": barlow_shares(at_start, gamma),
        "share_of_start": first / jnp.sum(first),
        "left": shares(gradient_flow(objective, equal, END, round(END / STEP)), gamma, basis)[1],
    }


def simulate(key, cells, settings, sizes):
    def some(cell):
        return jax.vmap(lambda ratio: one(key, ratio, settings))(cell["ratio"])

    return cell_by_cell(some, in_columns(cells), sizes.together)


def kept(order, count: int = KEPT):
    """+ 1/2 for modes that are kept, -1/2 for others; `order` gives the numbers that decide."""

    def formula(cells, settings, sizes):
        gamma = cells["ratio"][:, None] ** jnp.arange(MODES, dtype=float)[None, :]
        return barlow_kept(order(gamma), count).astype(gamma.dtype) - 0.5

    return formula


def predict(cells, settings, sizes):
    """Paths and shares depend on the first weights that were drawn."""
    return {"kept": kept(lambda gamma: gamma)(cells, settings, sizes), "left": jnp.zeros_like(cells["ratio"])}


BELOW_ONE = Domain("above 0 and below 1", lambda x: (x > 0) & (x < 1))
STEPS = {
    "setting": "eta", "values": (0.04, 0.02, 0.01, 0.005), "order": 1, "replicates": 20, "axes": {"ratio": [0.5]},
    "settings": {"scale": 0.05},
}  # fmt: skip
SCALES = {
    "setting": "scale", "values": (0.008, 0.004, 0.002, 0.001), "order": 1, "replicates": 20,
    "axes": {"ratio": [0.5]}, "settings": {"eta": 0.04},
}  # fmt: skip
MODE = {"mode": np.arange(1, MODES + 1)}

barlow_steps = Experiment(
    name="barlow_steps",
    title="Barlow Twins step by step",
    sources=(SIMON, SOURCE),
    axes={
        "ratio": Parameter([0.3, 0.4, 0.5, 0.6, 0.65], r"ratio $r$, $\gamma_i = r^{i-1}$", domain=BELOW_ONE)
    },
    settings={
        "eta": Setting(0.01, "learning rate", domain=POSITIVE),
        "scale": Setting(1e-3, "singular value of the weights at the start", domain=POSITIVE),
        "together": Setting(1, "cells simulated side by side: one on a CPU, many on a GPU", domain=whole(1)),
    },
    sizes=sizes,
    theory_sizes=lambda sizes: (),
    simulate=simulate,
    predict=predict,
    outputs={
        "path": Output("singular value $w$", dims={"time": TIMES} | MODE),
        "kept": Output(r"share in $\mathrm{Tr}\,K$, less 1/2, $m = 2$", dims=MODE),
        "share": Output(r"share in $K$, $m = 1$", dims=MODE),
        "left": Output("share of the second mode, $m = 1$"),
    },
    claims=(
        Order(
            "path", "every mode takes its step when and as high as the flow says, to order 1 in the step size",
            twins={"half the rate": "path_half", "every singular value to 1": "path_end"}, **STEPS,
        ),
        Phase(
            "kept", "from small weights the modes of the largest gamma are kept",
            twins={
                "one mode alone": kept(lambda gamma: gamma, 1),
                "the smallest gamma": kept(lambda gamma: 1 / gamma),
            },
        ),
        Order(
            "share", "one dimension keeps the shares of its flow, to order 1 in the step size",
            twins={"the shares of the start": "share_of_start"}, **STEPS,
        ),
        Order(
            "left", "the second mode is left with a share of order scale^(2 - 2 gamma_2 / gamma_1)", **SCALES,
        ),
    ),
    presets={
        "smoke": {"ratio": [0.35, 0.65], "eta": 0.04, "replicates": 4, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {
            "ratio": np.linspace(0.2, 0.8, 13), "eta": 0.0025, "scale": 1e-4, "replicates": 100, "together": 13,
        },
    },
)  # fmt: skip
