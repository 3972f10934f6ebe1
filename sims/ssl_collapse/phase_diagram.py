"""Which modes of a linear encoder InfoNCE learns, over augmentation and weight decay: SGD on minibatches."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sims.engine.experiment import (
    NONNEGATIVE,
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
from sims.ssl_collapse.infonce_training import in_embedding, minibatch_infonce
from sims.ssl_collapse.setup import SOURCE
from sims.ssl_collapse.training import train
from theory.ssl_collapse import infonce_strength_near_threshold, infonce_variance


class Sizes(NamedTuple):
    """What a compilation depends on."""

    d: int
    m: int
    negatives: int
    steps: int
    together: int


def clean_variances(d: int):
    """a_i = 1 / i."""
    return 1 / jnp.arange(1, d + 1, dtype=float)


def simulate(key, cells, settings, sizes):
    k_start, k_batches = jax.random.split(key)
    start = 0.1 * jax.random.normal(k_start, (sizes.m, sizes.d))
    a = clean_variances(sizes.d)

    def one(cell):
        c = jnp.full_like(a, cell["sigma2"])
        loss = minibatch_infonce(
            sizes.negatives + 1, a, c, cell["temperature"], cell["alpha"], cell["weight_decay"]
        )  # fmt: skip
        gram = train(loss, start, k_batches, sizes.steps, settings["rate"], lambda W: W.T @ W)[1]
        S = in_embedding(gram, a + c, cell["temperature"])
        return {
            "strength": jnp.diag(S),
            "rank": jnp.sum(jnp.linalg.eigvalsh(S) > settings["alive"]).astype(S.dtype),
        }

    return cell_by_cell(jax.vmap(one), in_columns(cells), sizes.together)


def modes(cells, sizes):
    """(a, sigma^2, tau, alpha, lambda) by cell and mode."""
    names = ("sigma2", "temperature", "alpha", "weight_decay")
    columns = [jnp.broadcast_to(cells[name], jnp.shape(cells["sigma2"]))[:, None] for name in names]
    return jnp.broadcast_arrays(clean_variances(sizes.d)[None, :], *columns)


def kept(per_mode, sizes):
    """The modes for which the encoder has outputs: with equal noise the first m."""
    return jnp.where(jnp.arange(sizes.d)[None, :] < sizes.m, per_mode, 0)


def strengths(pairs="augmented", change=lambda *parameters: parameters):
    """The strengths at the minimum, of these pairs and after a change of the parameters."""

    def formula(cells, settings, sizes):
        a, c, tau, alpha, decay = change(*modes(cells, sizes))
        return kept(infonce_variance(a, c, tau, alpha, decay, pairs=pairs) / tau, sizes)

    return formula


def quartic(cells, settings, sizes):
    """The strengths of the quartic landscape."""
    return kept(infonce_strength_near_threshold(margins(cells, sizes), order=1), sizes)


def margins(cells, sizes):
    a, c, tau, alpha, decay = modes(cells, sizes)
    return (a - (alpha - 1) * c - decay * tau) / (a + c)


def rank_of(formula):
    def rank(cells, settings, sizes):
        return jnp.sum(formula(cells, settings, sizes) > 0, axis=1).astype(float)

    return rank


def half_the_decay(a, c, tau, alpha, decay):
    """lambda / 2 |W|^2 for lambda |W|^2."""
    return a, c, tau, alpha, decay / 2


def predict(cells, settings, sizes):
    return {"strength": strengths()(cells, settings, sizes), "rank": rank_of(strengths())(cells, settings, sizes)}


def away_from_thresholds(cells, settings):
    """Every mode clear of its threshold: predicted at four times the strength that counts as alive, or as far below its
    threshold, and with time for eight e-folds of w^2 at the rate 4 b (a square W_0 would need many more, for its least
    singular value is near 0).
    """
    columns = {name: jnp.asarray(v) for name, v in cells.items()}
    a, c, tau, alpha, decay = modes(columns, sizes(settings))
    b = (a - (alpha - 1) * c) / tau - decay
    # The schedule of `train` makes the time of a run 0.6 times its steps at the first rate.
    grown = 4 * jnp.abs(b) * 0.6 * settings["rate"] * settings["steps"] > 8
    clear = 2 / 3 * jnp.abs(tau * b / (a + c)) > 4 * settings["alive"]
    return np.asarray(jnp.all(grown & clear, axis=1))


def sizes(settings) -> Sizes:
    return Sizes(*(int(settings[name]) for name in Sizes._fields))


MODES = {"mode": lambda settings: np.arange(1, settings["d"] + 1)}

phase_diagram = Experiment(
    name="phase_diagram",
    title="Dimensional collapse of InfoNCE over augmentation and weight decay",
    sources=(SOURCE,),
    axes={
        "sigma2": Parameter(
            np.geomspace(0.055, 1.5, 9), r"augmentation variance $\sigma^2$", scale="log", domain=POSITIVE
        ),
        "weight_decay": Parameter([0.0, 0.1, 0.25, 0.5], r"weight decay $\lambda$", domain=NONNEGATIVE),
    },
    fixed={
        "alpha": Parameter(2.0, r"weight of the alignment term $\alpha$", domain=NONNEGATIVE),
        "temperature": Parameter(1.0, r"temperature $\tau$", domain=POSITIVE),
    },
    settings={
        "d": Setting(8, "dimension of the inputs", domain=whole(1)),
        "m": Setting(16, "dimension of the embedding", domain=whole(1)),
        "negatives": Setting(63, "negatives of an anchor, one less than the batch", domain=whole(1)),
        "steps": Setting(1500, "steps of SGD", domain=whole(4)),
        "rate": Setting(0.15, "learning rate at first", domain=POSITIVE),
        "alive": Setting(0.005, "strength from which a mode counts as alive", domain=POSITIVE),
        "together": Setting(1, "cells simulated side by side: one on a CPU, many on a GPU", domain=whole(1)),
    },
    sizes=sizes,
    simulate=simulate,
    predict=predict,
    outputs={
        "strength": Output(r"strength $s_i$ in units of $\tau$", dims=MODES),
        "rank": Output("rank of the embedding"),
    },
    claims=(
        Pathwise(
            "rank", "every run learns the modes with a > (alpha - 1) sigma^2 + lambda tau, and no other",
            tolerance=1e-6, where=away_from_thresholds,
            twins={
                "clean negatives, a > alpha sigma^2 + lambda tau": rank_of(strengths("clean")),
                "half the weight decay": rank_of(strengths(change=half_the_decay)),
            },
        ),
        Order(
            "strength", "strengths are those of the exact minimum, up to 1 / N",
            setting="negatives", values=(31, 47, 63, 127), order=-1, replicates=20,
            axes={"sigma2": [0.155, 0.18], "weight_decay": [0.0]},
            twins={"the quartic landscape": quartic, "clean negatives": strengths("clean")},
        ),
    ),
    presets={
        "smoke": {
            "sigma2": [0.2, 0.4, 0.7], "weight_decay": [0.0, 0.6], "d": 4, "m": 8, "negatives": 31, "steps": 700,
            "replicates": 4, "ladders": False,
        },
        "laptop": {"replicates": 20},
        "paper": {
            "sigma2": np.geomspace(0.03, 1.25, 32), "weight_decay": np.linspace(0.0, 1.0, 16), "d": 16, "m": 32,
            "negatives": 1023, "steps": 6000, "replicates": 20, "together": 32,
        },
    },
)  # fmt: skip
