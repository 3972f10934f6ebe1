"""Linear probing, then fine-tuning: the head that least squares on the pretrained feature gives is where it starts."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from sims.engine.experiment import Bound, Experiment, Order, Output, Pathwise, Phase
from sims.transfer.deep_linear import features
from sims.transfer.head_start import (
    AXES,
    COMMON,
    DRAW_BY_DRAW,
    LADDER,
    OUTPUTS,
    PRESETS,
    along,
    balanced,
    curvature_of,
    fine_tune,
    frozen_product,
    less_zero_mean_part,
    measured,
    pretrain,
    risk,
)
from theory.transfer import scratch_risk, scratch_risk_finite


def simulate(key, cells, settings, sizes):
    """The head that least squares on the pretrained feature gives: linear probing, then fine-tuning."""
    task, first, direction, learned = pretrain(key, cells, settings, sizes)
    feature = features((first, direction)) @ jnp.atleast_1d(direction)
    fitted = curvature_of(task, sizes) * feature
    heads = along(task.min_norm, fitted) / (feature @ fitted)
    tuned, converged = fine_tune(task, first, direction, heads, cells["feature_scale"], sizes)
    out = measured(task, tuned, heads, cells, sizes)
    controlled = less_zero_mean_part(task, out["risk"], heads, mean_head(cells), cells, sizes)
    scratch = scratch_risk_finite(cells["gamma"] * sizes.d, sizes.d, cells["sigma"], cells["target_norm"])
    return {
        **out,
        "risk_controlled": controlled,
        "transferability_controlled": scratch - controlled,
        "status": jnp.where(converged & learned, 0, 1),
    }


def mean_head(cells):
    """The probe's mean, at every size."""
    return cells["target_norm"] * jnp.cos(cells["theta"]) / cells["feature_scale"]


def predict(cells, settings, sizes):
    value = risk(cells, mean_head(cells))
    saved = scratch_risk(cells["gamma"], cells["sigma"], cells["target_norm"]) - value
    return {"risk": value, "risk_controlled": value, "transferability_controlled": saved}


def balanced_transferability(cells, settings, sizes):
    scratch = scratch_risk(cells["gamma"], cells["sigma"], cells["target_norm"])
    return scratch - balanced(cells, settings, sizes)


def as_probed(cells, settings, sizes):
    return frozen_product({**cells, "head": mean_head(cells)}, settings, sizes)


def overparametrised(cells, settings):
    return cells["gamma"] < 1


def clear_of_zero(cells, settings):
    """Where the transferability is larger than the corrections to the theory: the variance of the probed head, 1/n."""
    cells = {name: np.asarray(v, float) for name, v in cells.items()}
    variance = (cells["target_norm"] ** 2 + cells["sigma"] ** 2) / (cells["gamma"] * settings["d"])
    return np.abs(predict(cells, settings, None)["transferability_controlled"]) > 3 * variance


probed_head = Experiment(
    name="probed_head",
    title="Fine-tuning after probing",
    axes=AXES,
    simulate=simulate,
    predict=predict,
    outputs={
        **OUTPUTS,
        "transferability_controlled": Output(r"transferability $\mathcal{T}$, less a part of mean zero"),
    },
    claims=(
        Bound(
            "endpoint_error", "fine-tuned weights end where the closed form says, in every draw",
            upper=1e-4, rounding=1e3, where=overparametrised, twins=DRAW_BY_DRAW["endpoint_error"],
        ),
        Pathwise(
            "final_head", "the head grows to a, in every draw",
            tolerance=1e-4, rounding=1e3, where=overparametrised, twins=DRAW_BY_DRAW["final_head"],
        ),
        Phase(
            "transferability_controlled", "probing first helps or hurts as the theory says",
            where=clear_of_zero, rounding=500, twins={"the formula of balanced weights": balanced_transferability},
        ),
        Order(
            "risk_controlled", "the mean risk is the closed form, to order 1/d", values=(30, 60, 120, 240),
            axes={"gamma": [0.5], "feature_scale": [1.0], "theta": [0.8], "sigma": [0.4]},
            twins={"the formula of balanced weights": balanced, "head and feature as before": as_probed}, **LADDER,
        ),
    ),
    presets={
        **PRESETS,
        "smoke": {**PRESETS["smoke"], "theta": np.linspace(0.2, 1.4, 13)},
        "laptop": {"d": 100, "replicates": 20},
    },
    **COMMON,
)  # fmt: skip
