"""VICReg with real minibatches: dimensions with a mode of their own, and dimensions that share the modes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from sims.engine.experiment import (
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
from sims.ssl_collapse import losses
from sims.ssl_collapse.setup import SOURCE
from sims.ssl_collapse.training import Sizes, gaussian_views, sizes, train
from theory.ssl_collapse import vicreg_covariance_weights, vicreg_deviation, vicreg_shared_strengths

BARDES = (
    "@inproceedings{bardes2022vicreg, title = {VICReg: Variance-Invariance-Covariance Regularization for "
    "Self-Supervised Learning}, author = {Bardes, Adrien and Ponce, Jean and LeCun, Yann}, booktitle = {International "
    "Conference on Learning Representations}, year = {2022}}"
)
# Noise fractions; views of unit variance.
Q = (0.1, 0.4, 0.8)
# Weight of the variances and target: the units.
VARIANCE, TARGET, EPSILON = 1.0, 1.0, 0.1
SHARED, ALIGNED = 0.1, 5.0
# A mode lives if its variance is more than this.
LEAST = 0.01


def encoder(key, invariance, covariance, epsilon, settings, shape: Sizes):
    """Eigenvalues and diagonal of the embedding covariance of a trained encoder, both falling."""
    k_start, k_data = jax.random.split(key)
    q = jnp.array(Q, float)
    W = 0.5 * jax.random.normal(k_start, (len(Q), len(Q)))

    def objective(W, k):
        x, y = gaussian_views(k, shape.batch, jnp.sqrt(1 - q), jnp.sqrt(q))
        return losses.vicreg(x @ W.T, y @ W.T, invariance, VARIANCE, covariance, TARGET, epsilon)

    # The covariance term is stiff: its curvature is some four times its weight.
    rate = settings["learning_rate"] / (1 + covariance / 5)
    gram, spread = train(objective, W, k_data, shape.steps, rate, lambda W: (W.T @ W, jnp.sum(W**2, 1)))[1]
    return jnp.linalg.eigvalsh(gram)[::-1], jnp.sort(spread)[::-1]


def simulate(key, cells, settings, sizes):
    def one(cell):
        strength, spread = jax.vmap(lambda i, c, e: encoder(key, i, c, e, settings, sizes))(
            cell["invariance"], cell["covariance"], cell["epsilon"]
        )
        return outputs(strength) | {"spread": spread}

    return cell_by_cell(one, in_columns(cells), sizes.together)


def outputs(strength):
    return {
        "strength": strength,
        "top": strength[:, 0],
        "others": strength[:, 1:],
        "living": strength - LEAST,
    }


def aligned(cells):
    q = jnp.array(Q, float)[None, :]
    invariance, epsilon = (cells[name][:, None] for name in ("invariance", "epsilon"))
    return vicreg_deviation(q, invariance, VARIANCE, TARGET, epsilon) ** 2 - epsilon


def shared(cells):
    q = jnp.array(Q, float)[None, :]
    return vicreg_shared_strengths(q, cells["invariance"], VARIANCE, cells["covariance"], TARGET, cells["epsilon"])


def weak(cells):
    return cells["covariance"] <= vicreg_covariance_weights(VARIANCE, TARGET, cells["epsilon"]).shared


def predict(cells, settings, sizes):
    among = weak(cells)[:, None]
    strength = jnp.where(among, shared(cells), aligned(cells))
    mean = jnp.mean(strength, -1, keepdims=True)
    return outputs(strength) | {"spread": jnp.where(among, mean, strength)}


def strong(cells, settings):
    """Dimensions with modes of their own, whatever the noise."""
    return cells["covariance"] >= np.asarray(vicreg_covariance_weights(VARIANCE, TARGET, cells["epsilon"]).aligned)


def weak_below_target(cells, settings):
    """Dimensions that share the modes, their variance below the target: above it the hinge has a corner."""
    variance = np.asarray(shared({k: jnp.asarray(v) for k, v in cells.items()})).mean(-1)
    return np.asarray(weak(cells)) & (variance < 0.9 * (TARGET**2 - cells["epsilon"]))


def either(cells, settings):
    return strong(cells, settings) | np.asarray(weak(cells))


def own_modes(cells, settings, sizes):
    return aligned(cells)


def no_epsilon(cells, settings, sizes):
    """The variance without its epsilon: nothing collapses."""
    return aligned(cells) + cells["epsilon"][:, None]


def half_the_noise(cells, settings, sizes):
    """E |f - f+|^2 = sum q S for 2 sum q S."""
    return aligned({**cells, "invariance": cells["invariance"] / 2})


LADDER = {
    "setting": "batch", "order": -1,
}  # fmt: skip

vicreg = Experiment(
    name="vicreg",
    title="VICReg: who owns a mode",
    sources=(BARDES, SOURCE),
    axes={
        "invariance": Parameter(
            [0.7, 0.9, 1.1, 1.3, 1.5, 1.8, 2.4], r"weight of the invariance $\nu_{inv}$", domain=POSITIVE
        ),
        "covariance": Parameter(
            [SHARED, ALIGNED], r"weight of the covariances $\nu_{cov}$", scale="log", domain=POSITIVE
        ),
    },
    fixed={"epsilon": Parameter(EPSILON, r"$\epsilon$", domain=POSITIVE)},
    settings={
        "batch": Setting(256, "inputs in a minibatch", domain=whole(4)),
        "steps": Setting(1200, "steps of SGD", domain=whole(8)),
        "learning_rate": Setting(0.05, "learning rate at first", domain=POSITIVE),
        "together": Setting(1, "cells simulated side by side: one on a CPU, many on a GPU", domain=whole(1)),
    },
    sizes=sizes,
    theory_sizes=lambda sizes: (),
    simulate=simulate,
    predict=predict,
    outputs={
        "strength": Output("eigenvalue of $S$", dims={"q": Q}),
        "spread": Output("variance of a dimension", dims={"dimension": np.arange(1, len(Q) + 1)}),
        "top": Output("largest eigenvalue of $S$"),
        "others": Output("other eigenvalues of $S$", dims={"further_q": Q[1:]}),
        "living": Output("eigenvalue of $S$ less 0.01", dims={"q": Q}),
    },
    claims=(
        Phase(
            "living", "which modes live: by epsilon under a strong covariance term, by water-filling under a weak one",
            where=either,
            twins={
                "modes of their own": lambda *given: own_modes(*given) - LEAST,
                "nothing collapses": lambda *given: no_epsilon(*given) - LEAST,
            },
        ),
        Order(
            "others", "a mode of its own has the variance (nu_var / 4 nu_inv q)^2 - epsilon, to order 1/n",
            where=strong,
            twins={
                "epsilon not taken off": lambda *given: no_epsilon(*given)[:, 1:],
                "half the noise": lambda *given: half_the_noise(*given)[:, 1:],
            },
            axes={"invariance": [1.5], "covariance": [ALIGNED]}, values=(128, 256, 512, 1024), replicates=20, **LADDER,
        ),
        Order(
            "strength", "dimensions that share have the strengths of water-filling, to order 1/n",
            where=weak_below_target, twins={"modes of their own": own_modes},
            axes={"invariance": [2.4], "covariance": [SHARED]}, values=(64, 128, 256, 512), replicates=80, **LADDER,
        ),
    ),
    presets={
        "smoke": {"invariance": [1.1, 2.4], "batch": 64, "steps": 800, "replicates": 4, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {
            "invariance": np.linspace(0.6, 2.5, 20), "batch": 4096, "steps": 40_000, "replicates": 50, "together": 40,
        },
    },
)  # fmt: skip
