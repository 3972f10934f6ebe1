"""Plain InfoNCE (alpha = 1) under rising augmentation, by which pairs are augmented: SGD on minibatches."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sims.engine.experiment import (
    POSITIVE,
    Experiment,
    Order,
    Output,
    Parameter,
    Pathwise,
    Setting,
    cell_by_cell,
    in_columns,
    whole,
)
from sims.ssl_collapse.infonce_training import in_embedding
from sims.ssl_collapse.losses import log_mean_negatives, squared_distances
from sims.ssl_collapse.setup import JING, SOURCE
from sims.ssl_collapse.training import train
from theory.ssl_collapse import infonce_variance

PAIRS = ("augmented", "clean_negatives", "clean")
SHARE = (1.0, 0.5, 0.0)  # of the points in a repelling pair that are augmented
CLEAN = (1.0, 1.0)
OTHER = 0.5  # augmentation variance of the second mode


class Sizes(NamedTuple):
    """What a compilation depends on."""

    negatives: int
    steps: int
    m: int


def minibatch_loss(n: int, a, c, pairs: str):
    """InfoNCE of n fresh inputs: two views of each attract, and what `pairs` says repels."""

    def loss(W, key):
        clean, noise, other = jax.random.normal(key, (3, n, len(a)), a.dtype)
        clean = clean * jnp.sqrt(a)[None, :]
        first, second = (clean + z * jnp.sqrt(c)[None, :] for z in (noise, other))
        anchors = clean if pairs == "clean" else first
        negatives = second if pairs == "augmented" else clean
        pull = jnp.mean(jnp.sum(((first - second) @ W.T) ** 2, axis=1)) / 2
        return pull + jnp.mean(log_mean_negatives(-squared_distances(anchors @ W.T, negatives @ W.T) / 2))

    return loss


def simulate(key, cells, settings, sizes):
    k_start, k_batches = jax.random.split(key)
    start = 0.3 * jax.random.normal(k_start, (sizes.m, 2))
    a = jnp.array(CLEAN)

    def strength(c, pairs):
        c = jnp.stack([c, jnp.full_like(c, OTHER)])
        loss = minibatch_loss(sizes.negatives + 1, a, c, pairs)
        rate = settings["rate"] / (1 + c[0])
        gram = train(loss, start, k_batches, sizes.steps, rate, lambda W: W.T @ W)[1]
        return in_embedding(gram, a + c, 1.0)[0, 0]

    def one(cell):
        s = jnp.stack([strength(cell["noise"], pairs) for pairs in PAIRS])
        return {"strength": s, "alive": (s > settings["alive"]).astype(s.dtype)}

    return cell_by_cell(jax.vmap(one), in_columns(cells))


def strengths(*pairs):
    """The strengths of the noisy mode if these pairs are the three kinds. Shape (cells, 3)."""

    def formula(cells, settings, sizes):
        return jnp.stack([infonce_variance(CLEAN[0], cells["noise"], pairs=p) for p in pairs], axis=1)

    return formula


def survivors(*pairs):
    def formula(cells, settings, sizes):
        return (strengths(*pairs)(cells, settings, sizes) > 0).astype(float)

    return formula


def predict(cells, settings, sizes):
    return {"strength": strengths(*PAIRS)(cells, settings, sizes), "alive": survivors(*PAIRS)(cells, settings, sizes)}


def away_from_thresholds(cells, settings):
    """Augmentations at which every mode is predicted at four times the strength of a live one, or as far below."""
    c = np.asarray(cells["noise"])[:, None]
    share = np.array(SHARE)[None, :]
    margin = (CLEAN[0] - (1 - share) * c) / (CLEAN[0] + share * c)
    return np.all(2 / 3 * np.abs(margin) > 4 * settings["alive"], axis=1)


pairs = Experiment(
    name="pairs",
    title="Augmentation alone collapses no mode, unless negatives are clean",
    sources=(SOURCE, JING),
    axes={
        "noise": Parameter(
            [0.25, 0.6, 1.5, 3.0, 5.0, 8.0], r"augmentation variance $c$ of the mode", scale="log", domain=POSITIVE
        )
    },
    settings={
        "negatives": Setting(63, "negatives of an anchor, one less than the batch", domain=whole(1)),
        "steps": Setting(1500, "steps of SGD", domain=whole(4)),
        "rate": Setting(0.3, "learning rate at first, times 1 + c", domain=POSITIVE),
        "alive": Setting(0.01, "strength from which the mode counts as alive", domain=POSITIVE),
        "m": Setting(4, "dimension of the embedding", domain=whole(2)),
    },
    sizes=lambda settings: Sizes(settings["negatives"], settings["steps"], settings["m"]),
    simulate=simulate,
    predict=predict,
    outputs={
        "strength": Output(r"strength $s$ in units of $\tau$", dims={"pairs": (0, 1, 2)}),
        "alive": Output("share of runs in which the mode is alive", dims={"pairs": (0, 1, 2)}),
    },
    claims=(
        Pathwise(
            "alive", "with augmented negatives the mode survives, with clean ones it collapses beyond c = a, or 2 a",
            tolerance=1e-6, where=away_from_thresholds,
            twins={
                "augmentation alone collapses a mode": survivors("clean", "clean", "clean"),
                "no augmentation collapses a mode": survivors("augmented", "augmented", "augmented"),
                "clean negatives are clean pairs": survivors("augmented", "clean", "clean"),
            },
        ),
        Order(
            "strength", "strengths are those of the exact minimum of the pairs, up to 1 / N",
            setting="negatives", values=(23, 47, 95, 143), order=-1, replicates=20, axes={"noise": [0.6, 5.0]},
            twins={
                "augmentation alone collapses a mode": strengths("clean", "clean", "clean"),
                "clean negatives are clean pairs": strengths("augmented", "clean", "clean"),
            },
        ),
    ),
    presets={
        "smoke": {"noise": [0.25, 1.5, 5.0], "negatives": 31, "steps": 600, "replicates": 4, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {"noise": np.geomspace(0.1, 30, 24), "negatives": 1023, "steps": 10_000, "replicates": 20},
    },
)  # fmt: skip
