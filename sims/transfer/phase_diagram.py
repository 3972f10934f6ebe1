"""The transferability phase diagram of deep linear networks: probe, fine-tune, or train from scratch."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np

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
    Phase,
    Setting,
    whole,
)
from sims.transfer.training import simulate, sizes
from theory.arguments import require
from theory.transfer import (
    fine_tuning_transferability,
    linear_transfer_risk,
    linear_transfer_risk_finite,
    scratch_risk_finite,
)

SOURCE = """@inproceedings{tahir2025features,
  title = {Features are fate: a theory of transfer learning in high-dimensional regression},
  author = {Tahir, Javan and Ganguli, Surya and Rotskoff, Grant M.},
  booktitle = {International Conference on Machine Learning},
  year = {2025},
  eprint = {2410.08194},
  archivePrefix = {arXiv}
}"""


def predict(cells, settings, sizes):
    gamma, theta, sigma = cells["gamma"], cells["theta"], cells["sigma"]
    b, source_norm = cells["target_norm"], cells["source_norm"]
    n = gamma * sizes.d
    scale = source_norm ** (1 - 1 / sizes.depth)
    scratch = scratch_risk_finite(n, sizes.d, sigma, b)
    probe = linear_transfer_risk_finite(n, theta, sigma, settings["ridge"] * scale**2, scale, b)
    tuned = fine_tuning_transferability(gamma, theta, sigma, source_norm, b, sizes.depth)
    return {
        "scratch_risk": scratch,
        "linear_transfer_risk": probe,
        "linear_transfer_transferability": scratch - probe,
        "fine_tuning_transferability": tuned,
        "fine_tuning_transferability_controlled": tuned,
        "endpoint_error": jnp.zeros_like(tuned),
    }


def noise_without_amplification(cells, settings, sizes):
    finite = scratch_risk_finite(
        cells["gamma"] * sizes.d, sizes.d, jnp.zeros_like(cells["sigma"]), cells["target_norm"]
    )
    return finite + cells["sigma"] ** 2


def kappa_one(cells, settings, sizes):
    """The printed formula, without noise in it: fine-tuning as if the unseen part of the weights kept its length."""
    return fine_tuning_transferability(
        cells["gamma"], cells["theta"], cells["sigma"], cells["source_norm"], cells["target_norm"], 1
    )


def underparametrised_formula(cells, settings, sizes):
    return (1 - cells["gamma"]) * (2 * jnp.cos(cells["theta"]) - 1)


def ones(cells, settings, sizes):
    return jnp.ones_like(cells["gamma"])


def other_sign(cells, settings, sizes):
    """The boundary at sin(theta) where it belongs at cos(theta)."""
    scratch = scratch_risk_finite(cells["gamma"] * sizes.d, sizes.d, cells["sigma"], cells["target_norm"])
    return scratch - linear_transfer_risk(jnp.pi / 2 - cells["theta"], 0.0, 1.0, cells["target_norm"])


def off_peak(cells, settings):
    """Where 20 replicates of a least-squares risk have a usable mean: ten samples, and ten away from n = d."""
    n = cells["gamma"] * settings["d"]
    return trained_to_the_end(cells, settings) & (np.abs(n - settings["d"]) > 9.5) & (n > 9.5)


def trained_to_the_end(cells, settings):
    """Every protocol but gradient descent with its fixed budget of steps."""
    return np.full(np.shape(cells["gamma"]), settings["protocol"] not in ("gd", "reduced_gd"))


def small_start(cells, settings):
    """Where the error of the end point, of the order of a layer's squared initial scale, is below 1e-5."""
    small = settings["alpha"] ** (2 / (settings["depth"] - 1)) < 1e-5
    return small & whitened(cells, settings)


def whitened(cells, settings):
    """The protocol that ends at rounding; the reduced flow has the second-order error of its time grid."""
    return np.full(np.shape(cells["gamma"]), settings["protocol"] == "whitened")


def small_start_unseen(cells, settings):
    return small_start(cells, settings) & (cells["gamma"] < 1)


def underparametrised(cells, settings):
    return whitened(cells, settings) & (cells["gamma"] > 1)


def validate(values, settings):
    require(
        values["gamma"] <= settings["gamma_max"],
        "gamma",
        f"at most gamma_max = {settings['gamma_max']:g}",
        values["gamma"],
    )


def to_samples(gamma, settings):
    """gamma = n / d for whole n, at least one."""
    return np.maximum(np.round(gamma * settings["d"]), 1) / settings["d"]


HALF_PI = math.pi / 2
RATIO = {"gamma": [0.5], "theta": [math.pi / 4, 1.2], "sigma": [1.0]}

phase_diagram = Experiment(
    name="phase_diagram",
    title="Transferability of deep linear networks",
    sources=(SOURCE,),
    axes={
        "gamma": Parameter(
            np.linspace(0.1, 2.0, 20), r"samples per dimension $\gamma=n/d$",
            domain=POSITIVE, snap=to_samples, role="shared",
        ),
        "theta": Parameter(
            HALF_PI * np.linspace(0.05, 1.0, 20), r"angle between the tasks $\theta$", unit="rad", domain=ANGLE
        ),
        "sigma": Parameter([0.0, 0.2, 1.0], r"label noise $\sigma$", domain=NONNEGATIVE),
    },
    fixed={
        "source_norm": Parameter(1.0, r"source norm $|\beta_s|$", domain=POSITIVE),
        "target_norm": Parameter(1.0, r"target norm $|\beta_t|$", domain=POSITIVE),
    },
    settings={
        "d": Setting(100, "input dimension", domain=whole(2)),
        "width": Setting(8, "hidden width of the networks", domain=whole(1)),
        "depth": Setting(2, "number of layers", domain=whole(2)),
        "gamma_max": Setting(2.0, "largest n / d for which data are drawn", domain=POSITIVE),
        "alpha": Setting(1e-4, "initial scale; a layer starts at alpha^(1/(depth-1))", domain=POSITIVE),
        "ridge": Setting(1e-3, "ridge of the linear probe, in units of its squared feature", domain=NONNEGATIVE),
        "protocol": Setting(
            "whitened",
            "training on the target: gradient flow of the sample-whitened loss, gradient descent on the plain loss, or "
            "either on the exactly reduced rank-one network",
            choices=("whitened", "gd", "reduced_gd", "reduced_flow"),
        ),
        "pretraining_steps": Setting(300, "Runge-Kutta steps of pretraining, after the escape", domain=whole(1)),
        "flow_steps": Setting(300, "steps of the gradient flow on the target, after the escape", domain=whole(1)),
        "learning_rate": Setting(0.01, "of fine-tuning by gradient descent", domain=POSITIVE),
        "steps": Setting(5000, "of fine-tuning by gradient descent", domain=whole(1)),
        "scratch_learning_rate": Setting(0.1, "of training from scratch by gradient descent", domain=POSITIVE),
        "scratch_steps": Setting(10000, "of training from scratch by gradient descent", domain=whole(1)),
    },
    sizes=sizes,
    simulate=simulate,
    predict=predict,
    validate=validate,
    outputs={
        "scratch_risk": Output(r"risk from scratch $R_{\mathrm{sc}}$"),
        "linear_transfer_risk": Output(r"risk of the linear probe $R_{\mathrm{lt}}$"),
        "linear_transfer_transferability": Output(r"transferability, linear probe $\mathcal{T}_{\mathrm{lt}}$"),
        "fine_tuning_transferability": Output(r"transferability, fine-tuning $\mathcal{T}_{\mathrm{ft}}$"),
        "fine_tuning_transferability_controlled": Output(
            r"$\mathcal{T}_{\mathrm{ft}}$, less a part of mean zero"
        ),
        "fine_tuning_scale": Output(r"end-point scale $\kappa$"),
        "endpoint_error": Output("relative distance to the end point"),
    },
    claims=(
        Bound(
            "endpoint_error", "fine-tuned weights end where the closed form says, in every draw",
            upper=1e-4, rounding=1e3, where=small_start,
            twins={"kappa = 1": "endpoint_error_kappa_one", "kappa of another depth": "endpoint_error_other_depth"},
        ),
        Pathwise(
            "fine_tuning_scale", "the unseen part of the source is scaled by kappa, in every draw",
            tolerance=1e-4, rounding=1e3, where=small_start_unseen,
            twins={"kappa = 1": ones, "kappa of another depth": "fine_tuning_scale_other_depth"},
        ),
        Bound(
            "fine_tuning_transferability", "with more samples than dimensions fine-tuning changes nothing",
            upper=1e-6, rounding=1e3, where=underparametrised,
            twins={"the formula of gamma < 1": underparametrised_formula},
        ),
        Mean(
            "scratch_risk", "the mean risk from scratch is the exact finite-size one",
            floor=1e-6, rounding=500, where=off_peak,
            twins={"noise not amplified, sigma^2": noise_without_amplification},
        ),
        Mean(
            "linear_transfer_risk", "the mean risk of the probe is the exact finite-size one",
            floor=1e-6, rounding=500, where=off_peak,
            twins={"min-norm least squares on the features": "linear_transfer_risk_lstsq"},
        ),
        Phase(
            "linear_transfer_transferability", "the probe helps or hurts as the theory says",
            floor=1e-6, rounding=500, where=off_peak, twins={"sine for cosine": other_sign},
        ),
        Phase(
            "fine_tuning_transferability", "fine-tuning helps or hurts as the theory says",
            floor=1e-6, rounding=500, where=off_peak, twins={"kappa = 1": kappa_one},
        ),
        Order(
            "endpoint_error", "the end point is exact in the limit of small initial weights",
            floor=1e-10, rounding=500, setting="alpha", values=(0.1, 0.05, 0.02, 0.01), order=2, replicates=20,
            axes={"gamma": [0.3, 0.6], "theta": [math.pi / 4], "sigma": [0.2]},
            settings={"d": 50, "depth": 2, "protocol": "whitened", "flow_steps": 600},
        ),
        Order(
            "fine_tuning_scale", "at depth 3 the scale is exact as the squared layer scale vanishes",
            floor=1e-10, rounding=500, setting="alpha", values=(8e-3, 4e-3, 2e-3, 1e-3), order=1, replicates=20,
            axes={"gamma": [0.3, 0.6], "theta": [math.pi / 4], "sigma": [1.0]},
            settings={"d": 50, "depth": 3, "protocol": "whitened", "flow_steps": 600},
            twins={"kappa = 1": ones, "kappa of depth 2": "fine_tuning_scale_other_depth"},
        ),
        Order(
            "endpoint_error", "gradient descent ends there in the limit of small steps",
            floor=1e-8, rounding=500,
            setting="learning_rate", values=(0.02, 0.01, 0.005, 0.0025), order=1, replicates=20,
            axes={"gamma": [0.3], "theta": [math.pi / 4], "sigma": [0.2]},
            settings={"d": 40, "depth": 2, "protocol": "gd", "steps": 10000, "scratch_steps": 1, "alpha": 1e-4},
        ),
        Order(
            "fine_tuning_transferability_controlled", "the mean is the asymptotic one, to order 1/d",
            setting="d", values=(20, 40, 80, 160), order=-1, replicates=400, axes=RATIO,
            settings={"depth": 2, "protocol": "whitened"}, twins={"kappa = 1": kappa_one},
        ),
    ),
    presets={
        "smoke": {
            "d": 40, "gamma": np.linspace(0.25, 2.0, 8), "theta": HALF_PI * np.linspace(0.25, 1.0, 4),
            "replicates": 20, "ladders": False,
        },
        "laptop": {"d": 100, "replicates": 20},
        "paper": {
            "d": 500, "gamma": np.linspace(0.05, 2.0, 40), "theta": HALF_PI * np.linspace(0.025, 1.0, 40),
            "replicates": 50,
        },
    },
)  # fmt: skip
