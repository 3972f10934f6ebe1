"""Learning the target from scratch with ridge: the risk at the best ridge, and where the best ridge is."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sims.engine.experiment import POSITIVE, Experiment, Mean, Order, Output, Parameter, Setting, whole
from sims.transfer.phase_diagram import SOURCE, to_samples, validate
from theory.transfer import (
    isotropic_feature_ridge_risk,
    scratch_risk,
    tuned_scratch_ridge,
    tuned_scratch_risk,
)

GOLDEN = (math.sqrt(5) - 1) / 2
WIDEST = (-8.0, 6.0)
SECTIONS = 40


class Sizes(NamedTuple):
    d: int
    rows: int
    draws: int


def sizes(settings):
    return Sizes(settings["d"], math.ceil(settings["gamma_max"] * settings["d"] - 1e-9), settings["draws"])


def simulate(key, cells, settings, sizes):
    """One replicate: `draws` data sets, each with one regression task for every vector of an orthonormal basis."""
    d, b = sizes.d, cells["target_norm"]
    n = jnp.round(cells["gamma"] * d)

    def solved(k):
        """A data set in its eigenbasis: spectrum, targets, and the inputs' correlation with clean labels and noise."""
        k_inputs, k_noise, k_targets = jax.random.split(k, 3)
        used = (jnp.arange(sizes.rows, dtype=float) < n).astype(float)[:, None]
        inputs = used * jax.random.normal(k_inputs, (sizes.rows, d))
        noise = jax.random.normal(k_noise, (sizes.rows, d))
        targets, _ = jnp.linalg.qr(jax.random.normal(k_targets, (d, d)))
        spectrum, basis = jnp.linalg.eigh(inputs.T @ inputs / n)
        modes = basis.T @ inputs.T / n
        return spectrum, b * basis.T @ targets, b * modes @ (inputs @ targets), modes @ noise

    spectrum, targets, clean, noisy = jax.lax.map(solved, jax.random.split(key, sizes.draws))

    def risk_of(sigma):
        """Risk of ridge regression as a function of the ridge, its mean over data sets and tasks."""
        correlation = clean + sigma * noisy
        quadratic, linear = jnp.sum(correlation**2, axis=2), jnp.sum(correlation * targets, axis=2)

        def risk(ridge):
            resolvent = 1 / (spectrum + ridge)
            return b**2 + jnp.sum(resolvent * (resolvent * quadratic - 2 * linear)) / (d * sizes.draws)

        return risk

    def search(risk):
        """The ridge of least risk, by golden sections of its logarithm."""

        def section(_, bracket):
            low, high = bracket
            inner, outer = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
            left = risk(jnp.exp(inner)) < risk(jnp.exp(outer))
            return jnp.where(left, low, inner), jnp.where(left, outer, high)

        low, high = jax.lax.fori_loop(0, SECTIONS, section, (jnp.asarray(WIDEST[0]), jnp.asarray(WIDEST[1])))
        return jnp.exp((low + high) / 2)

    def cell(sigma, relative):
        risk = risk_of(sigma)
        best = tuned_scratch_ridge(cells["gamma"], sigma, b)
        return {"ridge_risk": risk(relative * best), "tuned_risk": risk(best), "best_ridge": search(risk)}

    return jax.vmap(cell)(cells["sigma"], cells["relative_ridge"])


def predict(cells, settings, sizes):
    gamma, sigma, b = cells["gamma"], cells["sigma"], cells["target_norm"]
    best = tuned_scratch_ridge(gamma, sigma, b)
    return {
        "ridge_risk": ridge_risk(cells, cells["relative_ridge"] * best),
        "tuned_risk": tuned_scratch_risk(gamma, sigma, b),
        "best_ridge": best,
    }


def ridge_risk(cells, ridge):
    """Ridge regression is a probe on isotropic features; a target orthogonal to the strong one does not see it."""
    nothing = jnp.full_like(cells["gamma"], jnp.pi / 2)
    return isotropic_feature_ridge_risk(cells["gamma"], nothing, cells["sigma"], ridge, 1.0, 1.0, cells["target_norm"])


def ridgeless(cells, settings, sizes):
    return scratch_risk(cells["gamma"], cells["sigma"], cells["target_norm"])


def noise_to_signal(cells, settings, sizes):
    """The best ridge of the loss that sums over samples and divides by d: gamma forgotten."""
    return (cells["sigma"] / cells["target_norm"]) ** 2


def standard_deviation(cells, settings, sizes):
    """sigma / b for its square."""
    return cells["sigma"] / (cells["target_norm"] * cells["gamma"])


def gamma_forgotten(cells, settings, sizes):
    return ridge_risk(cells, cells["relative_ridge"] * noise_to_signal(cells, settings, sizes))


LADDER = {
    "setting": "d", "values": (20, 40, 80, 160), "order": -1, "replicates": 60,
    "settings": {"draws": 20, "gamma_max": 1.0},
    "axes": {"gamma": [0.5, 1.0], "sigma": [0.5], "relative_ridge": [0.2, 5.0]},
}  # fmt: skip

ridge_scratch = Experiment(
    name="ridge_scratch",
    title="Learning from scratch with ridge",
    sources=(SOURCE,),
    axes={
        "gamma": Parameter(
            [0.3, 0.6, 1.0, 1.5, 3.0], r"samples per dimension $\gamma=n/d$", domain=POSITIVE, snap=to_samples,
            role="shared",
        ),
        "sigma": Parameter([0.3, 0.6, 1.0], r"label noise $\sigma$", domain=POSITIVE),
        "relative_ridge": Parameter(
            np.geomspace(0.05, 20, 7), r"ridge $\lambda/\lambda^*$", scale="log", domain=POSITIVE
        ),
    },
    fixed={"target_norm": Parameter(1.0, r"target norm $|\beta_t|$", domain=POSITIVE)},
    settings={
        "d": Setting(60, "input dimension and number of tasks on each data set", domain=whole(2)),
        "gamma_max": Setting(3.0, "largest n / d for which data are drawn", domain=POSITIVE),
        "draws": Setting(10, "data sets averaged in a replicate", domain=whole(1)),
    },
    sizes=sizes,
    simulate=simulate,
    predict=predict,
    validate=validate,
    outputs={
        "ridge_risk": Output(r"risk with ridge $R_{\mathrm{sc}}^\lambda$"),
        "tuned_risk": Output(r"risk at the predicted best ridge $R_{\mathrm{sc}}^*$"),
        "best_ridge": Output(r"ridge of least risk $\lambda^*$"),
    },
    claims=(
        Mean(
            "best_ridge", "the ridge of least risk is where the theory says, at every size",
            rounding=5e3, twins={"gamma forgotten": noise_to_signal, "sigma for its square": standard_deviation},
        ),
        Order(
            "tuned_risk", "the risk at the best ridge is the closed form, to order 1/d",
            rounding=500, twins={"ridgeless": ridgeless}, **LADDER,
        ),
        Order(
            "ridge_risk", "the risk at any ridge is the closed form, to order 1/d",
            rounding=500, twins={"ridgeless": ridgeless, "gamma forgotten": gamma_forgotten}, **LADDER,
        ),
    ),
    presets={
        "smoke": {
            "d": 30, "gamma": [0.5, 1.5], "sigma": [0.3, 0.6], "relative_ridge": [0.2, 1.0, 5.0], "ladders": False,
        },
        "laptop": {"replicates": 20},
        "paper": {"d": 500, "gamma": np.linspace(0.2, 3.0, 15), "draws": 20, "replicates": 50},
    },
)  # fmt: skip
