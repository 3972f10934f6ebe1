"""The probe on r features at once: a network pretrained on r tasks, probed without ridge, on both sides of n = r."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sims.descent import gradient_flow
from sims.engine.experiment import NONNEGATIVE, POSITIVE, Experiment, Mean, Output, Parameter, Setting, whole
from sims.transfer.phase_diagram import SOURCE
from sims.transfer.regression import draw
from theory.arguments import require
from theory.transfer import feature_space_risk
from theory.transfer.scratch import least_squares_risk


class Sizes(NamedTuple):
    d: int
    rows: int
    rank: int
    draws: int
    pretraining_steps: int


def sizes(settings):
    return Sizes(*(int(settings[name]) for name in ("d", "n_max", "rank", "draws", "pretraining_steps")))


def simulate(key, cells, settings, sizes):
    d, r = sizes.d, sizes.rank
    k_tasks, k_first, k_second, k_data = jax.random.split(key, 4)
    frame, _ = jnp.linalg.qr(jax.random.normal(k_tasks, (d, r + 1)))
    tasks = frame[:, :r]

    def population_loss(layers):
        return jnp.sum((layers[0] @ layers[1] - tasks) ** 2)

    alpha = settings["alpha"]
    start = (
        alpha * jax.random.normal(k_first, (d, r)) / d**0.5,
        alpha * jax.random.normal(k_second, (r, r)) / r**0.5,
    )
    trained = gradient_flow(population_loss, start, 0.1 * sizes.pretraining_steps, sizes.pretraining_steps)
    learned = trained[0]

    # The target's part within the span lies along one task: the features are isotropic there.
    plane = jnp.stack([frame[:, 0], frame[:, r]], axis=1)
    weights = jnp.stack(
        [jnp.sqrt(cells["inside"]) * jnp.ones_like(cells["outside"]), jnp.sqrt(cells["outside"])], axis=1
    )

    def risks(k):
        data = draw(k, sizes.rows, d)

        def risk(n, sigma, weight):
            used = (jnp.arange(sizes.rows, dtype=float) < n).astype(data.inputs.dtype)
            hidden = used[:, None] * (data.inputs @ learned)
            target = plane @ weight
            labels = used * (data.inputs @ target + sigma * data.noise)
            eigenvalues, basis = jnp.linalg.eigh(hidden.T @ hidden)
            seen = jnp.arange(r, dtype=float) >= r - n
            inverse = jnp.where(seen, 1 / jnp.where(seen, eigenvalues, 1.0), 0.0)
            head = basis @ (inverse * (basis.T @ (hidden.T @ labels)))
            return jnp.sum((learned @ head - target) ** 2)

        return jax.vmap(risk)(cells["n"], cells["sigma"], weights)

    risk = jnp.mean(jax.lax.map(risks, jax.random.split(k_data, sizes.draws)), axis=0)
    lost = jnp.sqrt(population_loss(trained) / r) > 1e-4
    return {"probe_risk": risk, "status": jnp.where(lost, 1, 0) * jnp.ones(risk.shape, jnp.int32)}


def predict(cells, settings, sizes):
    return {
        "probe_risk": feature_space_risk(cells["n"], cells["rank"], cells["inside"], cells["outside"], cells["sigma"])
    }


def unseen_target_forgotten(cells, settings, sizes):
    """tau^2 = sigma^2: the part of the target outside the span as a floor only, not as noise."""
    zero = jnp.zeros_like(cells["outside"])
    return cells["outside"] + feature_space_risk(cells["n"], cells["rank"], cells["inside"], zero, cells["sigma"])


def asymptotic(cells, settings, sizes):
    """n - r where n - r - 1 belongs: the limit of large n and r."""
    n, rank, outside = cells["n"], cells["rank"], cells["outside"]
    gain = jnp.minimum(n, rank) / jnp.abs(n - rank)
    return outside + cells["inside"] * jnp.maximum(1 - n / rank, 0.0) + (outside + cells["sigma"] ** 2) * gain


def peak_at_dimension(cells, settings, sizes):
    """The double descent at n = d, as if from scratch, where it belongs at n = r."""
    n, outside = cells["n"], cells["outside"]
    d = jnp.full_like(n, sizes.d)
    return outside + least_squares_risk(n, d, cells["inside"], outside + cells["sigma"] ** 2)


def off_peak(cells, settings):
    """Five samples away from n = r: nearer, the mean over the draws of a replicate is not usable."""
    return np.abs(cells["n"] - cells["rank"]) > 4.5


def validate(values, settings):
    require(values["n"] <= settings["n_max"], "n", f"at most n_max = {settings['n_max']}", values["n"])
    require(values["rank"] < settings["d"], "rank", f"below d = {settings['d']}", values["rank"])


feature_space = Experiment(
    name="feature_space",
    title="Probe on the feature space of many pretraining tasks",
    sources=(SOURCE,),
    axes={
        "n": Parameter([3, 5, 8, 11, 15, 20, 26, 34, 45], "samples $n$", scale="log", domain=whole(1)),
        "rank": Parameter([6, 20], "features $r$", domain=whole(1), role="static"),
        "outside": Parameter([0.0, 0.5], r"target outside the features $\rho$", domain=NONNEGATIVE),
        "sigma": Parameter([0.2, 0.7], r"label noise $\sigma$", domain=NONNEGATIVE),
    },
    fixed={"inside": Parameter(0.5, r"target within the features $\iota$", domain=POSITIVE)},
    settings={
        "d": Setting(50, "input dimension", domain=whole(3)),
        "n_max": Setting(45, "largest n for which data are drawn", domain=whole(1)),
        "draws": Setting(50, "data sets averaged in a replicate", domain=whole(1)),
        "alpha": Setting(1e-3, "initial scale of the network", domain=POSITIVE),
        "pretraining_steps": Setting(300, "Runge-Kutta steps of pretraining", domain=whole(1)),
    },
    sizes=sizes,
    simulate=simulate,
    predict=predict,
    validate=validate,
    outputs={"probe_risk": Output("risk of the probe $R$")},
    claims=(
        Mean(
            "probe_risk", "the mean risk is the exact one, in few samples and in many",
            rounding=500, where=off_peak,
            twins={
                "target outside the span is no noise": unseen_target_forgotten,
                "n - r for n - r - 1": asymptotic,
                "peak at n = d": peak_at_dimension,
            },
        ),
    ),
    presets={
        "smoke": {"n": [5, 11, 26, 40], "rank": [20], "draws": 80},
        "laptop": {"replicates": 30},
        "paper": {
            "d": 500, "n_max": 200, "n": np.geomspace(4, 200, 20).round(), "rank": [10, 50], "draws": 200,
            "replicates": 50,
        },
    },
)  # fmt: skip
