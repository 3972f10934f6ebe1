"""Fine-tuning from a pretrained first layer and another head: a new or a rescaled one."""

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
    Order,
    Output,
    Parameter,
    Pathwise,
    Setting,
    whole,
)
from sims.transfer.deep_linear import initial_network, quadratic_loss, rotated, weights
from sims.transfer.phase_diagram import SOURCE, to_samples, validate
from sims.transfer.regression import draw, regression
from theory.transfer import fine_tuning_head_risk, fine_tuning_head_scale, scratch_risk, scratch_risk_finite

CONVERGED = 5e-5
RANK_ONE = 1e-3


class Sizes(NamedTuple):
    """Shapes and choices; width 0 is the network of one hidden unit."""

    d: int
    rows: int
    width: int
    protocol: str
    pretraining_steps: int
    flow_steps: int


def sizes(settings):
    rows = math.ceil(settings["gamma_max"] * settings["d"] - 1e-9)
    return Sizes(
        settings["d"], rows, *(settings[name] for name in ("width", "protocol", "pretraining_steps", "flow_steps"))
    )


def pretrain(key, cells, settings, sizes):
    """The block's task, the pretrained first layer, the unit vector v along its head, and whether it was learned."""
    k_data, k_network = jax.random.split(key)
    n = jnp.round(cells["gamma"] * sizes.d)
    task = regression(draw(k_data, sizes.rows, sizes.d), n, cells["theta"], cells["sigma"], cells["target_norm"])
    source_norm = cells["feature_scale"] ** 2
    network = rotated(initial_network(k_network, sizes.d, sizes.width, 2, settings["alpha"]), task.basis)
    loss = quadratic_loss(jnp.ones(sizes.d), source_norm * task.source)
    time = 0.1 * sizes.pretraining_steps / source_norm
    first, head = gradient_flow(loss, network, time, sizes.pretraining_steps)
    learned = jnp.linalg.norm(weights((first, head)) - source_norm * task.source) < CONVERGED * source_norm
    return task, first, head / jnp.linalg.norm(head), learned


def spread(network):
    """The share of the first layer that does not feed the direction of the head."""
    first, head = network
    if head.ndim == 0:
        return jnp.zeros_like(head)
    direction = head / jnp.linalg.norm(head)
    return jnp.linalg.norm(first - jnp.outer(first @ direction, direction)) / jnp.linalg.norm(first)


def along(rows, vector):
    """Each row's product with a vector, in an order of additions that the number of rows does not change."""
    return jnp.sum(rows * vector[None], axis=1)


def curvature_of(task, sizes):
    """Of the loss: whitening the samples changes the path of fine-tuning, and the data set whose theory is meant."""
    return task.seen if sizes.protocol == "whitened" else task.eigenvalues


def fine_tune(task, first, direction, heads, scale, sizes):
    """Weights of each cell after the flow from its head, and whether it interpolates and is of rank one still.

    Near the origin, through which a head must pass to change its sign, what pretraining left in the other directions
    grows; the start was then not small enough, or the precision, for this data set.
    """
    curvature = curvature_of(task, sizes)

    def cell(head, min_norm):
        size = jnp.maximum(jnp.linalg.norm(min_norm), jnp.maximum(scale**2, head**2))
        time = 0.05 * sizes.flow_steps / (size * jnp.max(curvature))
        network = (first, head * direction)
        network = gradient_flow(quadratic_loss(curvature, min_norm), network, time, sizes.flow_steps)
        tuned = weights(network)
        residual = jnp.linalg.norm(task.seen * (tuned - min_norm)) / jnp.linalg.norm(min_norm)
        return tuned, (residual < CONVERGED) & (spread(network) < RANK_ONE)

    return jax.vmap(cell)(heads, task.min_norm)


def measured(task, tuned, heads, cells, sizes):
    """The risk, and the final head and the end point against the theory's, draw by draw.

    A negative head over a feature is a positive one, as the theory has it, over the opposite feature.
    """
    scale, curvature = cells["feature_scale"], curvature_of(task, sizes)
    unseen = (1 - task.seen) * task.source
    orthogonal = jnp.sum(unseen**2)
    min_norm2 = jnp.sum(task.min_norm**2, axis=1)
    seen2 = jnp.sum(curvature * task.source**2)
    correlation = along(task.min_norm, curvature * task.source)
    size = jnp.abs(heads)
    fits_better = heads * scale * seen2 * jnp.sign(heads) < 2 * correlation * jnp.sign(heads)
    known = (size >= scale) | fits_better | (size == 0)
    sign = jnp.where(size == 0, jnp.sign(correlation), jnp.where(known, jnp.sign(heads), jnp.nan))

    def final(share, start):
        """The final head, of which the theory sees `share` in the data and the head `start` before."""
        return sign * fine_tuning_head_scale(min_norm2, share, scale, start)

    def distance(head):
        endpoint = task.min_norm + jnp.outer(head * scale, unseen)
        return jnp.linalg.norm(tuned - endpoint, axis=1) / jnp.linalg.norm(endpoint, axis=1)

    heads_of = {
        "theory": final(orthogonal, size),
        "balanced": final(orthogonal, scale * jnp.ones_like(size)),
        "all_seen": final(jnp.zeros_like(orthogonal), size),
    }
    under = orthogonal > 0
    at = along(tuned, unseen) / jnp.where(under, scale * orthogonal, 1.0)
    zero = jnp.zeros_like(size)
    return {
        "risk": jnp.sum((tuned - task.target) ** 2, axis=1),
        "final_head": jnp.where(under, at, jnp.nan),
        **{f"final_head_{name}": jnp.where(under, head, jnp.nan) for name, head in heads_of.items()},
        "endpoint_error": distance(heads_of["theory"]),
        "endpoint_error_theory": jnp.where(jnp.isnan(sign), jnp.nan, zero),
        "endpoint_error_balanced": distance(heads_of["balanced"]),
    }


def less_zero_mean_part(task, risk, heads, mean_heads, cells, sizes):
    """The risk less its part that is linear in statistics about their exact means: the same mean, less variance."""
    d, n = sizes.d, cells["gamma"] * sizes.d
    b, theta, sigma, scale = (cells[name] for name in ("target_norm", "theta", "sigma", "feature_scale"))
    unseen = (1 - task.seen) * task.source
    share, ones = jnp.maximum(1 - n / d, 0.0), jnp.ones_like(theta)
    statistics = (jnp.sum(task.min_norm**2, axis=1), jnp.sum(unseen**2) * ones, along(task.target, unseen), heads)
    means = (
        (b**2 * n / d + sigma**2 * n / jnp.maximum(d - n - 1, 1)) * ones,
        share * ones,
        b * jnp.cos(theta) * share,
        mean_heads,
    )

    def saved(min_norm2, orthogonal, overlap, head):
        pull = scale * fine_tuning_head_scale(min_norm2, orthogonal, scale, head)
        return 2 * pull * overlap - pull**2 * orthogonal

    deviations = tuple(s - m for s, m in zip(statistics, means, strict=True))
    scratch = jnp.sum((task.min_norm - task.target) ** 2, axis=1)
    part = scratch - scratch_risk_finite(n, d, sigma, b) - jax.jvp(saved, means, deviations)[1]
    return jnp.where(n < d - 1, risk - part, risk)


def simulate(key, cells, settings, sizes):
    """A head of any size along the pretrained one."""
    task, first, direction, learned = pretrain(key, cells, settings, sizes)
    heads = cells["head"] * jnp.ones_like(cells["theta"])
    tuned, converged = fine_tune(task, first, direction, heads, cells["feature_scale"], sizes)
    out = measured(task, tuned, heads, cells, sizes)
    controlled = less_zero_mean_part(task, out["risk"], heads, heads, cells, sizes)
    return {**out, "risk_controlled": controlled, "status": jnp.where(converged & learned, 0, 1)}


def risk(cells, head):
    names = ("gamma", "theta", "sigma", "feature_scale")
    return fine_tuning_head_risk(*(cells[name] for name in names), head, cells["target_norm"])


def predict(cells, settings, sizes):
    value = risk(cells, cells["head"])
    return {"risk": value, "risk_controlled": value}


def balanced(cells, settings, sizes):
    """The formula of pretrained weights as they are."""
    return risk(cells, cells["feature_scale"])


def frozen_product(cells, settings, sizes):
    """As if the product of head and feature, kappa = 1, stayed what it was before."""
    gamma, b = cells["gamma"], cells["target_norm"]
    pull = cells["head"] * cells["feature_scale"]
    noise = scratch_risk(gamma, cells["sigma"], b)
    return noise - jnp.maximum(1 - gamma, 0.0) * (2 * pull * b * jnp.cos(cells["theta"]) - pull**2)


def known_sign(cells, settings):
    """Where the theory knows the final head's sign, and the flow from it is not stopped by the origin."""
    tame = (cells["theta"] <= np.pi / 2) | (cells["head"] >= cells["feature_scale"])
    return tame & (cells["gamma"] < 1)


AXES = {
    "gamma": Parameter(
        [0.2, 0.4, 0.6, 0.8], r"samples per dimension $\gamma=n/d$", domain=POSITIVE, snap=to_samples, role="shared"
    ),
    "feature_scale": Parameter(
        [0.6, 1.0, 1.4], r"scale of the feature $s$, that of a source of norm $s^2$", domain=POSITIVE, role="shared"
    ),
    "theta": Parameter([0.4, 0.8, 1.1, 1.3], r"angle between the tasks $\theta$", unit="rad", domain=ANGLE),
    "sigma": Parameter([0.2, 1.0], r"label noise $\sigma$", domain=NONNEGATIVE),
}  # fmt: skip
COMMON = {
    "sources": (SOURCE,),
    "fixed": {"target_norm": Parameter(1.0, r"target norm $|\beta_t|$", domain=POSITIVE)},
    "settings": {
        "d": Setting(60, "input dimension", domain=whole(2)),
        "width": Setting(6, "hidden width; 0 is one hidden unit", domain=whole(0)),
        "gamma_max": Setting(1.0, "largest n / d for which data are drawn", domain=POSITIVE),
        "protocol": Setting(
            "whitened",
            "fine-tuning by gradient flow of the sample-whitened or of the plain loss",
            choices=("whitened", "plain"),
        ),
        "alpha": Setting(1e-8, "initial scale of the networks", domain=POSITIVE),
        "pretraining_steps": Setting(500, "Runge-Kutta steps of pretraining", domain=whole(1)),
        "flow_steps": Setting(1400, "Runge-Kutta steps of fine-tuning", domain=whole(1)),
    },
    "sizes": sizes,
    "validate": validate,
}
OUTPUTS = {
    "risk": Output(r"risk after fine-tuning $R_{\mathrm{ft}}$"),
    "risk_controlled": Output(r"$R_{\mathrm{ft}}$, less a part of mean zero"),
    "final_head": Output("final head $a$"),
    "endpoint_error": Output("relative distance to the end point"),
}
DRAW_BY_DRAW = {
    "final_head": {"the formula of balanced weights": "final_head_balanced", "m without 1 - h": "final_head_all_seen"},
    "endpoint_error": {"the formula of balanced weights": "endpoint_error_balanced"},
}
LADDER = {"setting": "d", "order": -1, "replicates": 400, "floor": 1e-13, "settings": {"width": 0}}
PRESETS = {
    "smoke": {
        "d": 50, "gamma": [0.3, 0.6], "feature_scale": [0.7, 1.4], "replicates": 20, "ladders": False,
    },
    "laptop": {"replicates": 20},
    "paper": {"d": 500, "gamma": np.linspace(0.1, 0.9, 9), "theta": np.linspace(0.1, 1.5, 15), "replicates": 50},
}  # fmt: skip

head_start = Experiment(
    name="head_start",
    title="Fine-tuning from a new or rescaled head",
    axes={**AXES, "head": Parameter([0.0, 0.5, 1.0, 1.5], r"head before fine-tuning $a_0$", domain=NONNEGATIVE)},
    simulate=simulate,
    predict=predict,
    outputs=OUTPUTS,
    claims=(
        Bound(
            "endpoint_error", "fine-tuned weights end where the closed form says, in every draw",
            upper=1e-4, rounding=1e3, where=known_sign, twins=DRAW_BY_DRAW["endpoint_error"],
        ),
        Pathwise(
            "final_head", "the head grows to a, in every draw",
            tolerance=1e-4, rounding=1e3, where=known_sign, twins=DRAW_BY_DRAW["final_head"],
        ),
        Order(
            "risk_controlled", "the mean risk is the closed form, to order 1/d", values=(30, 60, 120, 240),
            axes={
                "gamma": [0.5], "feature_scale": [1.2], "theta": [math.pi / 6], "sigma": [0.6], "head": [0.0, 2.0],
            },
            twins={"the formula of balanced weights": balanced, "head and feature as before": frozen_product}, **LADDER,
        ),
    ),
    presets=PRESETS,
    **COMMON,
)  # fmt: skip
