"""A bias beside a linear encoder under the spectral loss: it takes one dimension of the embedding."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from sims.engine.experiment import (
    NONNEGATIVE,
    POSITIVE,
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
from sims.ssl_collapse.setup import SOURCE
from sims.ssl_collapse.training import Sizes, gaussian_views, train
from theory.ssl_collapse import effective_landscape, spectral_minimum_with_bias

# Views of unit variance; the last mode is noise alone, so that five live.
RHO = (0.9, 0.8, 0.7, 0.6, 0.5, 0.0)
# A mode lives if it has more than this share of the weakest mode that can live.
LEAST = 0.1


def sizes(settings) -> Sizes:
    return Sizes(settings["batch"], round(settings["time"] / settings["learning_rate"]), settings["together"])


def encoder(key, m, decay, settings, shape: Sizes):
    """Gram matrix and bias of a trained encoder of m dimensions: of the others the embedding is not used."""
    k_start, k_data = jax.random.split(key)
    d = len(RHO)
    rho, used = jnp.array(RHO, float), (jnp.arange(d, dtype=float) < m).astype(float)
    k_W, k_b = jax.random.split(k_start)
    start = 0.3 * jax.random.normal(k_W, (d, d)), 0.3 * jax.random.normal(k_b, (d,))

    def objective(params, k):
        W, b = params
        x, y = gaussian_views(k, shape.batch, jnp.sqrt(rho), jnp.sqrt(1 - rho))
        f, g = ((v @ W.T + b[None, :]) * used[None, :] for v in (x, y))
        return losses.spectral(f, g) + decay * jnp.sum((W * used[:, None]) ** 2)

    def observe(params):
        W, b = params
        W = W * used[:, None]
        return W.T @ W, jnp.sum((b * used) ** 2)

    return train(objective, start, k_data, shape.steps, settings["learning_rate"], observe)[1]


def simulate(key, cells, settings, sizes):
    def one(cell):
        gram, square = jax.vmap(lambda m, decay: encoder(key, m, decay, settings, sizes))(
            cell["m"], cell["weight_decay"]
        )
        strengths = jnp.linalg.eigvalsh(gram)[:, ::-1]
        empty = jnp.sum(jnp.where(minimum(cell)[0] > 0, 0, strengths), -1)
        return {"strength": strengths, "bias_square": square, "living": living(strengths, cell), "empty": empty}

    return cell_by_cell(one, in_columns(cells), sizes.together)


def living(strengths, cells):
    """Strength less LEAST times the weakest mode that lives at all (in an embedding of any dimension)."""
    all_modes = quartic(cells["weight_decay"])
    return strengths - LEAST * jnp.min(jnp.where(all_modes > 0, all_modes, jnp.inf), -1, keepdims=True)


def quartic(decay):
    """beta / 2 of every mode, without a bias and in an embedding that is large enough."""
    rho = jnp.array(RHO, float)

    def strengths(decay):
        B, _, kappa = effective_landscape(jnp.diag(rho), jnp.diag(1 - rho), "spectral", weight_decay=decay)
        return jnp.maximum(jnp.diagonal(B), 0) / (2 * kappa)

    return jax.vmap(strengths)(decay)


def minimum(cells):
    """Strengths and squared bias at the minimum."""
    rho = jnp.array(RHO, float)

    def at(m, decay):
        found = spectral_minimum_with_bias(jnp.diag(rho), jnp.diag(1 - rho), m, decay)
        return found.strengths, found.bias_square

    return jax.vmap(at)(cells["m"], cells["weight_decay"])


def predict(cells, settings, sizes):
    strengths, square = minimum(cells)
    return {
        "strength": jnp.where(strengths > 0, strengths, jnp.nan),
        "bias_square": square,
        "living": living(strengths, cells),
        "empty": jnp.zeros_like(square),
    }


def without_bias(cells, settings, sizes):
    """m dimensions for the data."""
    return jnp.where(
        jnp.arange(len(RHO), dtype=float)[None, :] < cells["m"][:, None], quartic(cells["weight_decay"]), 0
    )


def quartic_of_distance(cells, settings, sizes):
    """3/4 for kappa."""
    return without_bias(cells, settings, sizes) / 0.75


def without_decay(cells, settings, sizes):
    return jnp.broadcast_to(jnp.array(RHO, float)[None, :], (len(cells["m"]), len(RHO)))


def one_more(cells, settings, sizes):
    """Strength of the mode that the bias displaces."""
    with_m = without_bias(cells, settings, sizes)
    return jnp.sum(with_m, -1) - jnp.sum(minimum(cells)[0], -1)


def nothing(cells, settings, sizes):
    return jnp.zeros_like(cells["m"])


def decayed(cells, settings, sizes):
    """A bias that decays as the weights do: |b|^2 = 1 - lambda / 2."""
    return 1 - cells["weight_decay"] / 2


def beside_modes(cells, settings):
    """Not in one dimension alone, where nothing is left that could disturb the bias."""
    return cells["m"] > 1


LADDER = {
    "setting": "learning_rate", "values": (0.04, 0.02, 0.01, 0.005), "order": 1, "replicates": 20,
    "axes": {"m": [3.0]}, "settings": {"batch": 16, "time": 40.0},
}  # fmt: skip
MODES = {"rho": RHO}

bias = Experiment(
    name="bias",
    title="The spectral loss with a bias",
    sources=(SOURCE,),
    axes={"m": Parameter([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], "dimension of the embedding $m$", domain=whole(1))},
    fixed={"weight_decay": Parameter(0.1, r"weight decay $\lambda$", domain=NONNEGATIVE)},
    settings={
        "batch": Setting(32, "inputs in a minibatch", domain=whole(4)),
        "time": Setting(75.0, "steps times the learning rate at first", domain=POSITIVE),
        "learning_rate": Setting(0.05, "learning rate at first", domain=POSITIVE),
        "together": Setting(1, "cells simulated side by side: one on a CPU, many on a GPU", domain=whole(1)),
    },
    sizes=sizes,
    theory_sizes=lambda sizes: (),
    simulate=simulate,
    predict=predict,
    outputs={
        "strength": Output("strength $s$", dims=MODES),
        "bias_square": Output("$|b|^2$"),
        "empty": Output("strength of all modes without a dimension"),
        "living": Output("strength less 0.1 of the weakest that can live", dims=MODES),
    },
    claims=(
        Phase(
            "living", "the embedding has rank min(m - 1, n_+)",
            twins={"rank min(m, n_+)": lambda *given: living(without_bias(*given), given[0])},
        ),
        Mean(
            "strength", "the modes of the data that live keep their strengths",
            twins={"kappa of InfoNCE with distances": quartic_of_distance, "strength rho": without_decay},
        ),
        Mean(
            "bias_square", "the bias has |b|^2 = 1", where=beside_modes,
            twins={"a bias that decays": decayed, "no bias": nothing},
        ),
        Order(
            "empty", "what is left in all other modes vanishes to order 1 in the step size",
            twins={"m dimensions": one_more}, **LADDER,
        ),
    ),
    presets={
        "smoke": {"m": [1.0, 3.0, 6.0], "batch": 16, "time": 30.0, "replicates": 4, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {"batch": 512, "time": 800.0, "learning_rate": 0.02, "replicates": 100, "together": 6},
    },
)  # fmt: skip
