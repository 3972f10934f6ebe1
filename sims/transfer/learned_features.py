"""The probe on features as pretraining leaves them from weights that are not small: one strong feature over a tail."""

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
    Experiment,
    Order,
    Output,
    Parameter,
    Pathwise,
    Phase,
    Setting,
    whole,
)
from sims.transfer.deep_linear import features, initial_network, quadratic_loss, weights
from sims.transfer.phase_diagram import SOURCE, to_samples, validate
from theory.arguments import require
from theory.roots import positive_root
from theory.transfer import feature_ridge_risk, isotropic_feature_ridge_risk, linear_transfer_risk


class Sizes(NamedTuple):
    d: int
    rows: int
    draws: int
    tasks: int
    pretraining_steps: int


def sizes(settings):
    rows = math.ceil(settings["gamma_max"] * settings["d"] - 1e-9)
    return Sizes(settings["d"], rows, settings["draws"], settings["tasks"], settings["pretraining_steps"])


def simulate(key, cells, settings, sizes):
    d, tail = sizes.d, cells["tail"]
    n = jnp.round(cells["gamma"] * d)
    k_frame, k_gaussian, k_orthogonal, k_data = jax.random.split(key, 4)
    frame, _ = jnp.linalg.qr(jax.random.normal(k_frame, (d, 1 + sizes.tasks)))
    source, normals = frame[:, :1], frame[:, 1:]

    def pretrained(network):
        loss = quadratic_loss(jnp.ones(d), frame[:, 0])
        network = gradient_flow(loss, network, 0.05 * sizes.pretraining_steps, sizes.pretraining_steps)
        return features(network), jnp.linalg.norm(weights(network) - frame[:, 0])

    rotation, _ = jnp.linalg.qr(jax.random.normal(k_orthogonal, (d, d)))
    starts = initial_network(k_gaussian, d, d, 2, tail), (tail * rotation, jnp.zeros(d))
    learned, lost = jax.vmap(pretrained)(jax.tree.map(lambda *layers: jnp.stack(layers), *starts))
    gaussian, orthogonal = learned
    cosine, sine, sigma, ridge = jnp.cos(cells["theta"]), jnp.sin(cells["theta"]), cells["sigma"], ridges(cells)

    def targets(c, s):
        """Targets of all tasks of a cell: one angle to the source, orthogonal other parts."""
        return c * source + s * normals

    def risks(k):
        k_inputs, k_noise = jax.random.split(k)
        used = (jnp.arange(sizes.rows, dtype=float) < n).astype(frame.dtype)[:, None]
        inputs = used * jax.random.normal(k_inputs, (sizes.rows, d))
        noise = jax.random.normal(k_noise, (sizes.rows, sizes.tasks))

        def of(features):
            hidden = inputs @ features
            gram = hidden.T @ hidden / n
            clean, noisy = hidden.T @ (inputs @ frame) / n, hidden.T @ noise / n

            def risk(c, s, sigma, ridge):
                correlation = c * clean[:, :1] + s * clean[:, 1:] + sigma * noisy
                heads = jax.scipy.linalg.solve(gram + ridge * jnp.eye(d), correlation, assume_a="pos")
                return jnp.sum((features @ heads - targets(c, s)) ** 2) / sizes.tasks

            return jax.vmap(risk)(cosine, sine, sigma, ridge)

        return jax.vmap(of)(learned)

    risk, isotropic = jnp.mean(jax.lax.map(risks, jax.random.split(k_data, sizes.draws)), axis=0)

    def equivalent(cell):
        c, s, sigma, ridge = cell
        samples = jnp.stack([n, 1e9 * n])[:, None]
        return jnp.mean(feature_ridge_risk(gaussian, targets(c, s).T, samples, sigma, ridge), axis=1)

    theory = jax.lax.map(equivalent, (cosine, sine, sigma, ridge))
    strength = jnp.sum((orthogonal.T @ source) ** 2)
    floor = linear_transfer_risk(cells["theta"], ridge, feature_scale(tail))
    return {
        "learned_features_risk": risk,
        "learned_features_risk_theory": theory[:, 0],
        "learned_features_risk_infinite": theory[:, 1],
        "isotropic_tail_risk": isotropic,
        "gain_of_tail": floor - isotropic,
        "feature_strength": strength * jnp.ones_like(ridge),
        "status": jnp.where(jnp.max(lost) > 1e-6, 1, 0) * jnp.ones(ridge.shape, jnp.int32),
    }


def ridges(cells):
    """The ridge is given in units of the tail's squared scale."""
    return cells["relative_ridge"] * cells["tail"] ** 2


def feature_scale(tail):
    r"""Strength s of the learned feature: the head grows to s as well, and :math:`s \sqrt{\alpha^2 + s^2} = 1`."""
    return jnp.sqrt(positive_root(-(tail**2), jnp.ones_like(tail)))


def isotropic_risk(cells, **other):
    values = {"ridge": ridges(cells), "feature_scale": feature_scale(cells["tail"]), **cells, **other}
    names = ("gamma", "theta", "sigma", "ridge", "tail", "feature_scale")
    return isotropic_feature_ridge_risk(*(values[name] for name in names))


def predict(cells, settings, sizes):
    tail = cells["tail"]
    risk = isotropic_risk(cells)
    return {
        "isotropic_tail_risk": risk,
        "gain_of_tail": tail_forgotten(cells, settings, sizes) - risk,
        "feature_strength": tail**2 + feature_scale(tail) ** 2,
    }


def tail_forgotten(cells, settings, sizes):
    """The tail to zero before the ridge: one feature, the source."""
    return linear_transfer_risk(cells["theta"], ridges(cells), feature_scale(cells["tail"]))


def ridge_forgotten(cells, settings, sizes):
    """The ridge to zero before the tail."""
    return isotropic_risk(cells, ridge=jnp.zeros_like(cells["tail"]))


def noise_forgotten(cells, settings, sizes):
    risk = isotropic_risk(cells, sigma=jnp.zeros_like(cells["sigma"]))
    return tail_forgotten(cells, settings, sizes) - risk


def rank_one_strength(cells, settings, sizes):
    return jnp.ones_like(cells["tail"])


def strength_without_balance(cells, settings, sizes):
    """s = 1, as at small weights, on top of the tail."""
    return 1 + cells["tail"] ** 2


def clear_of_zero(cells, settings):
    """Where the gain is larger than the corrections to the theory, of order 1/d."""
    cells = {name: np.asarray(v, float) for name, v in cells.items()}
    return np.abs(predict(cells, settings, None)["gain_of_tail"]) > 2 / settings["d"]


def validate_tasks(values, settings):
    validate(values, settings)
    require(settings["tasks"] < settings["d"], "tasks", f"below d = {settings['d']}", settings["tasks"])


learned_features = Experiment(
    name="learned_features",
    title="Probe on learned features with a tail",
    sources=(SOURCE,),
    axes={
        "relative_ridge": Parameter(
            np.geomspace(1e-2, 1e2, 9), r"ridge $\lambda/\alpha^2$", scale="log", domain=POSITIVE
        ),
        "gamma": Parameter(
            [0.5, 1.5], r"samples per dimension $\gamma=n/d$", domain=POSITIVE, snap=to_samples, role="shared"
        ),
        "theta": Parameter([math.pi / 8, 1.0], r"angle between the tasks $\theta$", unit="rad", domain=ANGLE),
        "sigma": Parameter([0.2, 0.8], r"label noise $\sigma$", domain=NONNEGATIVE),
    },
    fixed={"tail": Parameter(0.3, r"initial scale of the first layer $\alpha$", domain=POSITIVE)},
    settings={
        "d": Setting(60, "input dimension and hidden width", domain=whole(3)),
        "gamma_max": Setting(1.5, "largest n / d for which data are drawn", domain=POSITIVE),
        "draws": Setting(10, "data sets averaged in a replicate", domain=whole(1)),
        "tasks": Setting(4, "targets probed on each data set", domain=whole(1)),
        "pretraining_steps": Setting(400, "Runge-Kutta steps of pretraining", domain=whole(1)),
    },
    sizes=sizes,
    simulate=simulate,
    predict=predict,
    validate=validate_tasks,
    outputs={
        "learned_features_risk": Output("risk of the probe, Gaussian start"),
        "isotropic_tail_risk": Output("risk of the probe, orthogonal start"),
        "gain_of_tail": Output("risk that the tail of the features saves"),
        "feature_strength": Output(r"strength of the source feature $\hat u^\top W W^\top \hat u$"),
    },
    claims=(
        Pathwise(
            "feature_strength", "an orthogonal start of scale alpha learns the feature s over the tail alpha",
            tolerance=1e-6, rounding=500, twins={"rank one": rank_one_strength, "s = 1": strength_without_balance},
        ),
        Phase(
            "gain_of_tail", "the tail helps or hurts as the theory says", where=clear_of_zero,
            twins={"noise forgotten": noise_forgotten},
        ),
        Order(
            "learned_features_risk", "the risk on actual features is that of the equivalent, to order 1/d",
            rounding=500, setting="d", values=(10, 20, 40, 80), order=-1, replicates=40,
            axes={"gamma": [1.5], "theta": [1.0], "sigma": [0.5], "relative_ridge": [0.02]},
            settings={"draws": 400, "tasks": 8},
            twins={"tail to zero first": tail_forgotten, "infinite samples": "learned_features_risk_infinite"},
        ),
        Order(
            "isotropic_tail_risk", "the risk on an isotropic tail is the closed form, to order 1/d",
            rounding=500, setting="d", values=(20, 40, 80, 160), order=-1, replicates=40,
            axes={"gamma": [0.5], "theta": [1.0], "sigma": [0.5], "relative_ridge": [0.5, 2.0]},
            settings={"draws": 20, "tasks": 8},
            twins={"tail to zero first": tail_forgotten, "ridge to zero first": ridge_forgotten},
        ),
    ),
    presets={
        "smoke": {"d": 50, "draws": 4, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {"d": 400, "draws": 20, "tasks": 20, "relative_ridge": np.geomspace(1e-3, 1e3, 25), "replicates": 50},
    },
)  # fmt: skip
