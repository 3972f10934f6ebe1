"""Transfer from a source that was itself learned from finitely many noisy samples."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sims.descent import gradient_flow
from sims.engine.experiment import (
    ANGLE,
    NONNEGATIVE,
    POSITIVE,
    Bound,
    Experiment,
    Mean,
    Order,
    Output,
    Parameter,
    Pathwise,
    Setting,
    whole,
)
from sims.transfer.deep_linear import features, initial_network, quadratic_loss, rotated, weights
from sims.transfer.head_start import along
from sims.transfer.phase_diagram import SOURCE, to_samples, validate
from sims.transfer.regression import draw, regression
from sims.transfer.training import escape_time, linear_probe
from theory.arguments import require
from theory.transfer import (
    fine_tuning_endpoint_scale,
    fine_tuning_risk,
    fine_tuning_scale,
    finite_source_fine_tuning_risk,
    finite_source_linear_transfer_risk,
    linear_transfer_risk,
    linear_transfer_risk_finite,
    scratch_risk,
    scratch_risk_finite,
)

CONVERGED = 1e-4
STEP = 0.08


class Sizes(NamedTuple):
    """Shapes; width 0 is the network of one hidden unit a layer."""

    d: int
    rows: int
    source_rows: int
    width: int
    depth: int
    pretraining_steps: int
    flow_steps: int


def sizes(settings):
    d = settings["d"]
    rows = (math.ceil(settings[name] * d - 1e-9) for name in ("gamma_max", "gamma_source_max"))
    escape = math.ceil(escape_time(settings["alpha"], settings["depth"]) / STEP)
    pretraining = settings["pretraining_steps"] + escape
    return Sizes(d, *rows, settings["width"], settings["depth"], pretraining, settings["flow_steps"])


def simulate(key, cells, settings, sizes):
    d, depth = sizes.d, sizes.depth
    theta, sigma = cells["theta"], cells["sigma"]
    n, n_source = jnp.round(cells["gamma"] * d), jnp.round(cells["gamma_source"] * d)
    k_data, k_source, k_network = jax.random.split(key, 3)
    data = draw(k_data, sizes.rows, d)
    task = regression(data, n, theta, sigma, jnp.ones(()))
    source_data = draw(k_source, sizes.source_rows, d)._replace(source=data.source, normal=data.normal)
    source_task = regression(source_data, n_source, jnp.zeros(1), cells["sigma_source"][None], jnp.ones(()))

    def trained(network, seen, optimum, size, steps):
        time = STEP * steps / size ** (2 - 2 / depth)
        return gradient_flow(quadratic_loss(seen, optimum), network, time, steps)

    learned = source_task.min_norm[0]
    fresh = rotated(initial_network(k_network, d, sizes.width, depth, settings["alpha"]), source_task.basis)
    pretrained = trained(fresh, source_task.seen, learned, jnp.linalg.norm(learned), sizes.pretraining_steps)
    missed = jnp.linalg.norm(source_task.seen * (weights(pretrained) - learned)) / jnp.linalg.norm(learned)
    pretrained = rotated(rotated(pretrained, source_task.basis.T), task.basis)
    source = weights(pretrained)
    source_norm = jnp.linalg.norm(source)

    def fine_tuned(min_norm):
        size = jnp.maximum(jnp.linalg.norm(min_norm), source_norm)
        tuned = weights(trained(pretrained, task.seen, min_norm, size, sizes.flow_steps))
        return tuned, jnp.linalg.norm(task.seen * (tuned - min_norm)) / size

    tuned, residual = jax.vmap(fine_tuned)(task.min_norm)
    ridge = settings["ridge"] * source_norm ** (2 - 2 / depth)
    probed = linear_probe(features(pretrained), task, ridge)
    risks = {name: jnp.sum((w - task.target) ** 2, axis=1) for name, w in {"tuned": tuned, "probed": probed}.items()}

    cosine = along(task.target, source) / source_norm
    angle = jnp.arccos(jnp.clip(cosine, -1.0, 1.0))
    scale = source_norm ** (1 - 1 / depth)
    kept, probe_part = zero_mean_parts(task, source, cells, sizes)
    return {
        "fine_tuning_risk": risks["tuned"],
        "fine_tuning_risk_controlled": risks["tuned"] - kept,
        "linear_transfer_risk": risks["probed"],
        "linear_transfer_risk_theory": linear_transfer_risk_finite(n, angle, sigma, ridge, scale),
        "linear_transfer_risk_true_angle": linear_transfer_risk_finite(n, theta, sigma, ridge, scale),
        "linear_transfer_risk_controlled": risks["probed"] - probe_part,
        **against_endpoint(task, tuned, source, depth),
        "status": jnp.where((residual < CONVERGED) & (missed < CONVERGED), 0, 1),
    }


def against_endpoint(task, tuned, source, depth):
    """The measured end point against the theory's at the norm of the source that was learned, draw by draw."""
    unseen, norm = (1 - task.seen) * source, jnp.linalg.norm(source)
    orthogonal, min_norm2 = jnp.sum(unseen**2), jnp.sum(task.min_norm**2, axis=1)
    under = orthogonal > 0
    kappa = fine_tuning_endpoint_scale(min_norm2, orthogonal / norm**2, norm, depth)
    true_norm = fine_tuning_endpoint_scale(min_norm2, jnp.minimum(orthogonal / norm**2, 1.0), 1.0, depth)

    def distance(scale):
        endpoint = task.min_norm + jnp.outer(scale, unseen)
        return jnp.linalg.norm(tuned - endpoint, axis=1) / jnp.linalg.norm(endpoint, axis=1)

    at = along(tuned, unseen) / jnp.where(under, orthogonal, 1.0)
    return {
        "fine_tuning_scale": jnp.where(under, at, jnp.nan),
        "fine_tuning_scale_theory": jnp.where(under, kappa, jnp.nan),
        "fine_tuning_scale_true_norm": jnp.where(under, true_norm, jnp.nan),
        "endpoint_error": distance(kappa),
        "endpoint_error_true_norm": distance(true_norm),
    }


def zero_mean_parts(task, source, cells, sizes):
    """The parts of both risks that are linear in statistics about their exact means."""
    d, theta, sigma = sizes.d, cells["theta"], cells["sigma"]
    n, n_source = cells["gamma"] * d, cells["gamma_source"] * d
    unseen = (1 - task.seen) * source
    share, omega, ones = jnp.maximum(1 - n / d, 0.0), jnp.minimum(n_source / d, 1.0), jnp.ones_like(theta)

    def of_least_squares(n, sigma):
        """Mean squared norm of a unit target learned from n samples."""
        noise = jnp.minimum(n, d) / jnp.maximum(jnp.abs(n - d) - 1, 1)
        return jnp.minimum(n / d, 1.0) + sigma**2 * noise

    norm2 = of_least_squares(n_source, cells["sigma_source"])
    overlap = omega * jnp.cos(theta)
    statistics = (
        jnp.sum(task.min_norm**2, axis=1), jnp.sum(unseen**2) * ones, along(task.target, unseen),
        jnp.sum(source**2) * ones, along(task.target, source),
    )  # fmt: skip
    means = (of_least_squares(n, sigma) * ones, share * norm2 * ones, share * overlap, norm2 * ones, overlap)
    deviations = tuple(s - m for s, m in zip(statistics, means, strict=True))

    def saved(min_norm2, orthogonal, unseen_overlap, norm2, overlap):
        norm = jnp.sqrt(norm2)
        kappa = fine_tuning_endpoint_scale(min_norm2, orthogonal / norm2, norm, sizes.depth)
        return 2 * kappa * unseen_overlap - kappa**2 * orthogonal

    def probed(min_norm2, orthogonal, unseen_overlap, norm2, overlap):
        return -(overlap**2) / norm2

    scratch = jnp.sum((task.min_norm - task.target) ** 2, axis=1) - scratch_risk_finite(n, d, sigma)
    tuned = scratch - jax.jvp(saved, means, deviations)[1]
    measurable = (jnp.abs(n - d) > 1.5) & (jnp.abs(n_source - d) > 1.5)
    parts = tuned, jax.jvp(probed, means, deviations)[1]
    return tuple(jnp.where(measurable, part, 0.0) for part in parts)


def predict(cells, settings, sizes):
    names = ("gamma", "theta", "sigma", "gamma_source", "sigma_source")
    tuned = finite_source_fine_tuning_risk(*(cells[name] for name in names), sizes.depth)
    probed = finite_source_linear_transfer_risk(cells["theta"], cells["gamma_source"], cells["sigma_source"])
    return {
        "fine_tuning_risk": tuned,
        "fine_tuning_risk_controlled": tuned,
        "linear_transfer_risk_controlled": probed,
        "endpoint_error": jnp.zeros_like(tuned),
    }


def perfect_source(cells, settings, sizes):
    """The true source, known exactly."""
    return fine_tuning_risk(cells["gamma"], cells["theta"], cells["sigma"], 1.0, 1.0, sizes.depth)


def learned_norm(cells, settings, sizes):
    """A perfect overlap of the learned source with the true one: omega forgotten."""
    gamma, omega = cells["gamma"], jnp.minimum(cells["gamma_source"], 1.0)
    norm = jnp.sqrt(omega + cells["sigma_source"] ** 2 * omega / jnp.abs(1 - cells["gamma_source"]))
    kappa = fine_tuning_scale(gamma, cells["sigma"], norm, 1.0, sizes.depth)
    saved = 2 * kappa * jnp.cos(cells["theta"]) - (kappa * norm) ** 2
    return scratch_risk(gamma, cells["sigma"]) - jnp.maximum(1 - gamma, 0.0) * saved


def perfect_probe(cells, settings, sizes):
    return linear_transfer_risk(cells["theta"])


def noise_free_probe(cells, settings, sizes):
    """Source noise forgotten: only the missing directions cost."""
    return finite_source_linear_transfer_risk(
        cells["theta"], cells["gamma_source"], jnp.zeros_like(cells["sigma_source"])
    )


def off_peak(cells, settings):
    """Ten target samples or more: fewer give the probe no usable mean."""
    return cells["gamma"] * settings["d"] > 9.5


def overparametrised(cells, settings):
    return cells["gamma"] < 1


def validate_both(values, settings):
    validate(values, settings)
    most = settings["gamma_source_max"]
    require(
        values["gamma_source"] <= most, "gamma_source", f"at most gamma_source_max = {most:g}", values["gamma_source"]
    )


LADDER = {
    "setting": "d", "values": (20, 40, 80, 160), "order": -1, "replicates": 600, "floor": 1e-13,
    "settings": {"width": 0, "gamma_max": 1.5, "gamma_source_max": 2.0, "depth": 2},
}  # fmt: skip
RATIO = {"gamma_source": [0.5, 2.0], "theta": [0.6], "sigma": [0.5], "sigma_source": [0.5]}

finite_source = Experiment(
    name="finite_source",
    title="Transfer from a source learned from noisy samples",
    sources=(SOURCE,),
    axes={
        "gamma_source": Parameter(
            [0.3, 0.6, 1.5, 2.5], r"source samples per dimension $\gamma_s$", domain=POSITIVE, snap=to_samples,
            role="shared",
        ),
        "gamma": Parameter(
            [0.25, 0.5, 1.5], r"samples per dimension $\gamma=n/d$", domain=POSITIVE, snap=to_samples, role="shared"
        ),
        "theta": Parameter(
            [math.pi / 8, math.pi / 4, 1.2], r"angle between the tasks $\theta$", unit="rad", domain=ANGLE
        ),
        "sigma": Parameter([0.2, 0.7], r"label noise $\sigma$", domain=NONNEGATIVE),
    },
    fixed={"sigma_source": Parameter(0.5, r"label noise of the source $\sigma_s$", domain=NONNEGATIVE)},
    settings={
        "d": Setting(60, "input dimension", domain=whole(2)),
        "width": Setting(6, "hidden width; 0 is one hidden unit a layer", domain=whole(0)),
        "depth": Setting(2, "number of layers", domain=whole(2)),
        "gamma_max": Setting(1.5, "largest n / d for which data are drawn", domain=POSITIVE),
        "gamma_source_max": Setting(2.5, "largest n / d for which source data are drawn", domain=POSITIVE),
        "alpha": Setting(1e-5, "initial scale; a layer starts at alpha^(1/(depth-1))", domain=POSITIVE),
        "ridge": Setting(1e-5, "ridge of the linear probe, in units of its squared feature", domain=NONNEGATIVE),
        "pretraining_steps": Setting(500, "Runge-Kutta steps of pretraining, after the escape", domain=whole(1)),
        "flow_steps": Setting(400, "Runge-Kutta steps of fine-tuning", domain=whole(1)),
    },
    sizes=sizes,
    simulate=simulate,
    predict=predict,
    validate=validate_both,
    outputs={
        "fine_tuning_risk": Output(r"risk after fine-tuning $R_{\mathrm{ft}}$"),
        "fine_tuning_risk_controlled": Output(r"$R_{\mathrm{ft}}$, less a part of mean zero"),
        "linear_transfer_risk": Output(r"risk of the linear probe $R_{\mathrm{lt}}$"),
        "linear_transfer_risk_controlled": Output(r"$R_{\mathrm{lt}}$, less a part of mean zero"),
        "fine_tuning_scale": Output(r"end-point scale $\kappa$"),
        "endpoint_error": Output("relative distance to the end point"),
    },
    claims=(
        Bound(
            "endpoint_error", "fine-tuned weights end where the closed form at the learned norm says, in every draw",
            upper=1e-4, rounding=1e3, twins={"norm of the true source": "endpoint_error_true_norm"},
        ),
        Pathwise(
            "fine_tuning_scale", "the unseen part of the learned source is scaled by kappa at its own norm",
            tolerance=1e-4, rounding=1e3, where=overparametrised,
            twins={"norm of the true source": "fine_tuning_scale_true_norm"},
        ),
        Mean(
            "linear_transfer_risk", "the mean risk of the probe is the exact one at the learned source's angle",
            rounding=500, where=off_peak, twins={"angle of the true source": "linear_transfer_risk_true_angle"},
        ),
        Order(
            "fine_tuning_risk_controlled", "the mean risk of fine-tuning is the closed form, to order 1/d",
            axes={**RATIO, "gamma": [0.5]},
            twins={"perfect source": perfect_source, "perfect overlap": learned_norm}, **LADDER,
        ),
        Order(
            "linear_transfer_risk_controlled", "the mean risk of the probe is the closed form, to order 1/d",
            axes={**RATIO, "gamma": [1.5]},
            twins={"perfect source": perfect_probe, "noise-free source": noise_free_probe}, **LADDER,
        ),
    ),
    presets={
        "smoke": {
            "d": 40, "gamma": [0.5], "gamma_source": [0.5, 1.5], "gamma_source_max": 1.5, "replicates": 20,
            "ladders": False,
        },
        "laptop": {"replicates": 20},
        "paper": {"d": 500, "gamma": np.linspace(0.2, 1.8, 9), "gamma_max": 2.0, "replicates": 50},
    },
)  # fmt: skip
