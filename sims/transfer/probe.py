"""The linear probe at any sample size: ridge regression on the one feature that a real pretraining leaves."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sims.descent import gradient_flow
from sims.engine.experiment import (
    ANGLE,
    NONNEGATIVE,
    POSITIVE,
    Experiment,
    Mean,
    Order,
    Output,
    Parameter,
    Setting,
    whole,
)
from sims.transfer.deep_linear import features, initial_network, quadratic_loss, weights
from sims.transfer.phase_diagram import SOURCE
from sims.transfer.regression import draw
from theory.arguments import require
from theory.transfer import linear_transfer_risk, linear_transfer_risk_finite


class Sizes(NamedTuple):
    d: int
    rows: int
    depth: int
    draws: int
    pretraining_steps: int


def sizes(settings):
    return Sizes(*(int(settings[name]) for name in ("d", "n_max", "depth", "draws", "pretraining_steps")))


def simulate(key, cells, settings, sizes):
    k_plane, k_network, k_data = jax.random.split(key, 3)
    B, b = cells["source_norm"], cells["target_norm"]
    plane, _ = jnp.linalg.qr(jax.random.normal(k_plane, (sizes.d, 2)))

    source = B * plane[:, 0]
    network = initial_network(k_network, sizes.d, 0, sizes.depth, settings["alpha"])
    time = 0.1 * sizes.pretraining_steps / B ** (2 - 2 / sizes.depth)
    network = gradient_flow(quadratic_loss(jnp.ones(sizes.d), source), network, time, sizes.pretraining_steps)
    feature = features(network)[:, 0]
    mixture = jnp.stack([b * jnp.cos(cells["theta"]), b * jnp.sin(cells["theta"]), cells["sigma"]], axis=1)

    def risks(k):
        """The risk in every cell, of one draw of data; a cell with n samples takes its first n rows."""
        data = draw(k, sizes.rows, sizes.d)
        hidden = data.inputs @ feature
        parts = jnp.concatenate([data.inputs @ plane, data.noise[:, None]], axis=1)

        def risk(n, ridge, weight):
            used = jnp.where(jnp.arange(sizes.rows, dtype=float) < n, hidden, 0.0)
            head = used @ (parts @ weight) / (used @ used + n * ridge)
            return jnp.sum((head * feature - plane @ weight[:2]) ** 2)

        return jax.vmap(risk)(cells["n"], cells["ridge"], mixture)

    mean = jnp.mean(jax.lax.map(risks, jax.random.split(k_data, sizes.draws)), axis=0)
    lost = jnp.linalg.norm(weights(network) - source) > 1e-2 * B
    return {
        "linear_transfer_risk": mean,
        "linear_transfer_risk_limit": mean,
        "status": jnp.where(lost, 1, 0) * jnp.ones(mean.shape, jnp.int32),
    }


def finite(cells, sizes, **other):
    """The exact mean, some of its arguments replaced."""
    with_other = {**cells, **other}
    n, theta, sigma, ridge, B, b = (
        with_other[name] for name in ("n", "theta", "sigma", "ridge", "source_norm", "target_norm")
    )
    return linear_transfer_risk_finite(n, theta, sigma, ridge, B ** (1 - 1 / sizes.depth), b)


def infinite_sample(cells, settings, sizes):
    scale = cells["source_norm"] ** (1 - 1 / sizes.depth)
    return linear_transfer_risk(cells["theta"], cells["ridge"], scale, cells["target_norm"])


def predict(cells, settings, sizes):
    return {
        "linear_transfer_risk": finite(cells, sizes),
        "linear_transfer_risk_limit": infinite_sample(cells, settings, sizes),
    }


def ridge_forgotten(cells, settings, sizes):
    return finite(cells, sizes, ridge=jnp.zeros_like(cells["ridge"]))


def ridge_forgotten_limit(cells, settings, sizes):
    return infinite_sample({**cells, "ridge": jnp.zeros_like(cells["ridge"])}, settings, sizes)


def feature_scale_forgotten(cells, settings, sizes):
    return finite(cells, sizes, source_norm=jnp.ones_like(cells["source_norm"]))


def unseen_target_forgotten(cells, settings, sizes):
    """The part of the target outside the feature as a floor only, not as the noise that it also is."""
    outside = (cells["target_norm"] * jnp.sin(cells["theta"])) ** 2
    within = {"theta": jnp.zeros_like(cells["theta"]), "target_norm": cells["target_norm"] * jnp.cos(cells["theta"])}
    return outside + finite(cells, sizes, **within)


def usable_mean(cells, settings):
    """Without ridge the risk has the tail of an inverse chi-square variable: ten samples at least."""
    return (cells["n"] > 9.5) | (cells["ridge"] > 0)


def validate(values, settings):
    require(values["n"] <= settings["n_max"], "n", f"at most n_max = {settings['n_max']}", values["n"])


probe = Experiment(
    name="probe",
    title="Linear probe on one pretrained feature, at any sample size",
    sources=(SOURCE,),
    axes={
        "n": Parameter([5, 7, 10, 14, 20, 30, 50, 100], "samples $n$", scale="log", domain=whole(1)),
        "theta": Parameter(
            [math.pi / 8, math.pi / 4, 1.2], r"angle between the tasks $\theta$", unit="rad", domain=ANGLE
        ),
        "sigma": Parameter([0.0, 0.5, 1.0], r"label noise $\sigma$", domain=NONNEGATIVE),
        "ridge": Parameter([0.0, 0.1, 0.5], r"ridge $\lambda$", domain=NONNEGATIVE),
    },
    fixed={
        "source_norm": Parameter(1.5, r"source norm $|\beta_s|$", domain=POSITIVE),
        "target_norm": Parameter(1.0, r"target norm $|\beta_t|$", domain=POSITIVE),
    },
    settings={
        "d": Setting(30, "input dimension", domain=whole(2)),
        "depth": Setting(2, "number of layers", domain=whole(2)),
        "n_max": Setting(100, "largest n for which data are drawn", domain=whole(1)),
        "draws": Setting(100, "data sets averaged in a replicate", domain=whole(1)),
        "alpha": Setting(1e-3, "initial scale; a layer starts at alpha^(1/(depth-1))", domain=POSITIVE),
        "pretraining_steps": Setting(400, "Runge-Kutta steps of pretraining", domain=whole(1)),
    },
    sizes=sizes,
    simulate=simulate,
    predict=predict,
    validate=validate,
    outputs={
        "linear_transfer_risk": Output(r"risk of the linear probe $R_{\mathrm{lt}}$"),
        "linear_transfer_risk_limit": Output(r"$R_{\mathrm{lt}}$, against its limit $n\to\infty$"),
    },
    claims=(
        Mean(
            "linear_transfer_risk", "the mean risk of the probe is the exact one, at every n and ridge",
            rounding=500, where=usable_mean,
            twins={
                "the limit of infinite n": infinite_sample,
                "ridge forgotten": ridge_forgotten,
                "feature scale forgotten": feature_scale_forgotten,
                "target outside the feature is no noise": unseen_target_forgotten,
            },
        ),
        Order(
            "linear_transfer_risk_limit", "the mean risk of the probe tends to its limit as 1/n",
            rounding=500, setting="n", values=(40, 80, 160, 320), order=-1, replicates=40,
            axes={"theta": [math.pi / 4, 1.2], "sigma": [1.0], "ridge": [0.0, 0.5]},
            settings={"d": 10, "draws": 400, "n_max": 320}, twins={"ridge forgotten": ridge_forgotten_limit},
        ),
    ),
    presets={
        "smoke": {"n": [5, 10, 20, 50], "sigma": [0.5], "n_max": 50, "draws": 50, "ladders": False},
        "laptop": {"replicates": 40},
        "paper": {"d": 500, "draws": 400, "replicates": 50},
    },
)  # fmt: skip
