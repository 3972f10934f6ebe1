"""Weight decay on a deep linear network, trained to convergence, against the ridge path of linear regression."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sims.descent import gradient_descent
from sims.engine.experiment import (
    NONNEGATIVE,
    POSITIVE,
    Bound,
    Experiment,
    Output,
    Parameter,
    Pathwise,
    Setting,
    whole,
)
from sims.transfer.deep_linear import initial_network, quadratic_loss, rotated, weights
from sims.transfer.phase_diagram import SOURCE, to_samples, validate
from sims.transfer.regression import draw, regression
from theory.transfer import weight_decay_ridge


class Sizes(NamedTuple):
    d: int
    rows: int
    width: int
    depth: int


def sizes(settings):
    rows = math.ceil(settings["gamma_max"] * settings["d"] - 1e-9)
    return Sizes(settings["d"], rows, settings["width"], int(settings["depth"]))


def simulate(key, cells, settings, sizes):
    k_data, k_network = jax.random.split(key)
    n = jnp.round(cells["gamma"] * sizes.d)
    data, sigma = draw(k_data, sizes.rows, sizes.d), cells["sigma"]
    task = regression(data, n, jnp.zeros(1), jnp.broadcast_to(sigma, (1,)), cells["target_norm"])
    spectrum, optimum = task.eigenvalues, task.min_norm[0]
    fresh = rotated(initial_network(k_network, sizes.d, sizes.width, sizes.depth, settings["alpha"]), task.basis)

    # At three layers the origin is a local minimum for any decay; a network that has learned does not fall in.
    fit = quadratic_loss(spectrum, optimum)
    learned = gradient_descent(fit, fresh, settings["learning_rate"], settings["fitting_steps"])

    def cell(decay):
        def loss(network):
            return fit(network) + decay / 2 * sum(jnp.sum(layer**2) for layer in network)

        trained = gradient_descent(loss, learned, settings["learning_rate"], settings["steps"])
        slope = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.grad(loss)(trained)))
        beta = weights(trained)
        norm = jnp.linalg.norm(beta)

        def ridge_regression(ridge):
            return spectrum * optimum / (spectrum + ridge)

        def path(depth):
            return ridge_regression(weight_decay_ridge(decay, norm, depth))

        other = 3 if sizes.depth == 2 else 2
        return {
            "norm": norm,
            "norm_theory": jnp.linalg.norm(path(sizes.depth)),
            "norm_other_depth": jnp.linalg.norm(path(other)),
            "norm_same_ridge": jnp.linalg.norm(ridge_regression(decay / 2)),
            "distance": jnp.linalg.norm(beta - path(sizes.depth)) / norm,
            "distance_other_depth": jnp.linalg.norm(beta - path(other)) / norm,
            "distance_ridgeless": jnp.linalg.norm(beta - optimum) / norm,
            "status": jnp.where((slope < 1e-5) & (norm > 1e-3), 0, 1),
        }

    return jax.vmap(cell)(cells["decay"])


def predict(cells, settings, sizes):
    return {"distance": jnp.zeros_like(cells["decay"])}


weight_decay = Experiment(
    name="weight_decay",
    title="Weight decay on deep linear networks",
    sources=(SOURCE,),
    axes={
        "decay": Parameter(np.geomspace(0.05, 0.15, 4), r"weight decay $\omega$", scale="log", domain=POSITIVE),
        "depth": Parameter([2, 3], "layers $L$", domain=whole(2), role="static"),
        "gamma": Parameter(
            [0.5, 1.5], r"samples per dimension $\gamma=n/d$", domain=POSITIVE, snap=to_samples, role="shared"
        ),
    },
    fixed={
        "sigma": Parameter(0.3, r"label noise $\sigma$", domain=NONNEGATIVE),
        "target_norm": Parameter(1.0, r"target norm $|\beta_t|$", domain=POSITIVE),
    },
    settings={
        "d": Setting(30, "input dimension", domain=whole(2)),
        "width": Setting(4, "hidden width of the networks", domain=whole(1)),
        "gamma_max": Setting(1.5, "largest n / d for which data are drawn", domain=POSITIVE),
        "alpha": Setting(0.1, "initial scale; a layer starts at alpha^(1/(depth-1))", domain=POSITIVE),
        "learning_rate": Setting(0.03, "of gradient descent", domain=POSITIVE),
        "fitting_steps": Setting(3000, "of gradient descent before weight decay sets in", domain=whole(1)),
        "steps": Setting(12000, "of gradient descent with weight decay", domain=whole(1)),
    },
    sizes=sizes,
    simulate=simulate,
    predict=predict,
    validate=validate,
    outputs={
        "norm": Output(r"norm of the trained weights $|\hat\beta|$"),
        "distance": Output("relative distance to the ridge path"),
    },
    claims=(
        Bound(
            "distance", "the trained network lies on the ridge path, at the ridge of its norm and depth",
            upper=1e-4, rounding=500,
            twins={"the ridge of another depth": "distance_other_depth", "ridgeless": "distance_ridgeless"},
        ),
        Pathwise(
            "norm", "its norm is that of ridge regression with the effective ridge",
            tolerance=1e-4, rounding=500,
            twins={"the ridge of another depth": "norm_other_depth", "omega / 2 itself": "norm_same_ridge"},
        ),
    ),
    presets={
        "smoke": {"decay": [0.08, 0.12], "gamma": [0.5], "steps": 8000, "replicates": 10},
        "laptop": {"replicates": 20},
        "paper": {"d": 500, "width": 16, "gamma": [0.25, 0.5, 1.0, 1.5], "steps": 20000, "replicates": 50},
    },
)  # fmt: skip
