"""The transferability phase diagram: deep linear networks, pretrained, then probed, fine-tuned or trained from scratch."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sims.descent import gradient_descent, gradient_flow
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
from sims.transfer.deep_linear import (
    features,
    initial_network,
    quadratic_loss,
    reduced_flow,
    rotated,
    weights,
)
from sims.transfer.regression import draw, mix, regression
from theory.arguments import require
from theory.transfer import (
    fine_tuning_endpoint_scale,
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
CONVERGED = 1e-4
LAST_TIME = 1e9


class Sizes(NamedTuple):
    """Shapes and choices that a compilation depends on; width 0 is the reduced network."""

    d: int
    rows: int
    width: int
    depth: int
    protocol: str
    pretraining_steps: int
    flow_steps: int


def sizes(settings):
    reduced = settings["protocol"].startswith("reduced")
    return Sizes(
        settings["d"],
        math.ceil(settings["gamma_max"] * settings["d"] - 1e-9),
        0 if reduced else settings["width"],
        settings["depth"],
        settings["protocol"],
        settings["pretraining_steps"],
        settings["flow_steps"],
    )


def train(network, task, optimum, size, sizes, *, learning_rate, steps):
    """One network, trained on one cell's target data by the protocol; `size` is the largest norm on its way."""
    if sizes.protocol == "whitened":
        time = 0.1 * sizes.flow_steps / size ** (2 - 2 / sizes.depth)
        return gradient_flow(quadratic_loss(task.seen, optimum), network, time, sizes.flow_steps)
    if sizes.protocol == "reduced_flow":
        times = jnp.geomspace(1e-3, LAST_TIME, sizes.flow_steps)
        return reduced_flow(network, task.eigenvalues, optimum, times)
    return gradient_descent(quadratic_loss(task.eigenvalues, optimum), network, learning_rate, steps)


def simulate(key, cells, settings, sizes):
    theta, sigma, source_norm = cells["theta"], cells["sigma"], cells["source_norm"]
    n = jnp.round(cells["gamma"] * sizes.d)
    k_data, k_pretrained, k_scratch = jax.random.split(key, 3)
    task = regression(draw(k_data, sizes.rows, sizes.d), n, theta, sigma, cells["target_norm"])

    def fresh(k):
        return rotated(initial_network(k, sizes.d, sizes.width, sizes.depth, settings["alpha"]), task.basis)

    source = source_norm * task.source
    time = 0.1 * sizes.pretraining_steps / source_norm ** (2 - 2 / sizes.depth)
    population_loss = quadratic_loss(jnp.ones(sizes.d), source)
    pretrained = gradient_flow(population_loss, fresh(k_pretrained), time, sizes.pretraining_steps)
    untrained = fresh(k_scratch)

    def risk(w, target):
        return jnp.sum((w - target) ** 2)

    def cell(target, min_norm):
        size = jnp.linalg.norm(min_norm)
        scratch = train(
            untrained, task, min_norm, size, sizes,
            learning_rate=settings["scratch_learning_rate"], steps=settings["scratch_steps"],
        )  # fmt: skip
        tuned = train(
            pretrained, task, min_norm, jnp.maximum(jnp.maximum(size, source_norm), 1.0), sizes,
            learning_rate=settings["learning_rate"], steps=settings["steps"],
        )  # fmt: skip
        scratch, tuned = weights(scratch), weights(tuned)
        residual = jnp.maximum(*(jnp.linalg.norm(task.seen * (w - min_norm)) for w in (scratch, tuned)))
        return scratch, tuned, residual / size

    scratch, tuned, residual = jax.vmap(cell)(task.target, task.min_norm)
    ridge = settings["ridge"] * source_norm ** (2 - 2 / sizes.depth)
    hidden = features(pretrained)
    probe = linear_probe(hidden, task, ridge)
    unregularised = linear_probe(hidden, task, 0.0)
    risks = {
        name: jax.vmap(risk)(w, task.target)
        for name, w in dict(scratch=scratch, probe=probe, lstsq=unregularised, tuned=tuned).items()
    }
    converged = residual < CONVERGED
    if sizes.protocol in ("gd", "reduced_gd"):
        converged = jnp.ones_like(converged)
    lost = jnp.linalg.norm(weights(pretrained) - source) > 1e-2 * source_norm
    transferability = risks["scratch"] - risks["tuned"]
    return {
        "scratch_risk": risks["scratch"],
        "linear_transfer_risk": risks["probe"],
        "linear_transfer_risk_lstsq": risks["lstsq"],
        "linear_transfer_transferability": risks["scratch"] - risks["probe"],
        "fine_tuning_transferability": transferability,
        "fine_tuning_transferability_controlled": transferability - zero_mean_part(task, cells, sizes),
        **against_endpoint(tuned, task, source_norm, sizes),
        "status": jnp.where(converged & ~lost, 0, 1),
    }


def linear_probe(hidden, task, ridge):
    """End-to-end weights after ridge regression of the labels on the hidden layer, one row per cell."""
    gram = hidden.T @ (task.eigenvalues[:, None] * hidden) + ridge * jnp.eye(hidden.shape[1])
    heads = jnp.linalg.solve(gram, hidden.T @ (task.eigenvalues[:, None] * task.solved))
    return mix(task.mixture, hidden @ heads)


def against_endpoint(tuned, task, source_norm, sizes):
    """The measured end point against the theory's, draw by draw: the scale kappa, and the relative distance."""
    unseen = (1 - task.seen) * task.source
    orthogonal = jnp.sum(unseen**2)
    min_norm2 = jnp.sum(task.min_norm**2, axis=1)
    other = 3 if sizes.depth == 2 else 2

    def scale(depth):
        return fine_tuning_endpoint_scale(min_norm2, orthogonal, source_norm, depth)

    def distance(kappa):
        endpoint = task.min_norm + jnp.outer(kappa * source_norm, unseen)
        return jnp.linalg.norm(tuned - endpoint, axis=1) / jnp.linalg.norm(endpoint, axis=1)

    defined = orthogonal > 0
    measured = jnp.sum(tuned * unseen[None], axis=1) / (source_norm * jnp.where(defined, orthogonal, 1.0))
    return {
        "fine_tuning_scale": jnp.where(defined, measured, jnp.nan),
        "fine_tuning_scale_theory": jnp.where(defined, scale(sizes.depth), jnp.nan),
        "fine_tuning_scale_other_depth": jnp.where(defined, scale(other), jnp.nan),
        "endpoint_error": distance(scale(sizes.depth)),
        "endpoint_error_kappa_one": distance(jnp.ones_like(min_norm2)),
        "endpoint_error_other_depth": distance(scale(other)),
    }


def zero_mean_part(task, cells, sizes):
    """The part of the fine-tuning transferability that is linear in three statistics about their exact means.

    Its expectation is exactly zero at every d, so subtracting it leaves the mean alone and removes most of the variance.
    """
    d, n = sizes.d, cells["gamma"] * sizes.d
    b, theta, sigma = cells["target_norm"], cells["theta"], cells["sigma"]
    unseen = (1 - task.seen) * task.source
    unseen_share = jnp.maximum(1 - n / d, 0.0)
    ones = jnp.ones_like(theta)
    measured = (jnp.sum(task.min_norm**2, axis=1), jnp.sum(unseen**2) * ones, jnp.sum(task.target * unseen[None], axis=1))
    exact = (
        b**2 * n / d + sigma**2 * n / jnp.maximum(d - n - 1, 1),
        unseen_share * ones,
        b * jnp.cos(theta) * unseen_share,
    )

    def transferability(min_norm2, orthogonal, overlap):
        kappa = fine_tuning_endpoint_scale(min_norm2, orthogonal, cells["source_norm"], sizes.depth)
        pull = kappa * cells["source_norm"]
        return 2 * pull * overlap - pull**2 * orthogonal

    exact = tuple(jnp.broadcast_to(value, ones.shape) for value in exact)
    deviation = tuple(m - e for m, e in zip(measured, exact, strict=True))
    part = jax.jvp(transferability, exact, deviation)[1]
    return jnp.where(n < d - 1, part, 0.0)


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
    finite = scratch_risk_finite(cells["gamma"] * sizes.d, sizes.d, jnp.zeros_like(cells["sigma"]), cells["target_norm"])
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


def converging(cells, settings):
    """Where the end point is reached by gradient descent too: away from n = d."""
    return np.abs(cells["gamma"] - 1) * settings["d"] > 9.5


def overparametrised(cells, settings):
    return trained_to_the_end(cells, settings) & (cells["gamma"] < 1)


def underparametrised(cells, settings):
    return trained_to_the_end(cells, settings) & (cells["gamma"] > 1)


def validate(values, settings):
    require(values["gamma"] <= settings["gamma_max"], "gamma", f"at most gamma_max = {settings['gamma_max']:g}", values["gamma"])


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
        "alpha": Setting(1e-3, "initial scale; a layer starts at alpha^(1/(depth-1))", domain=POSITIVE),
        "ridge": Setting(1e-3, "ridge of the linear probe, in units of its squared feature", domain=NONNEGATIVE),
        "protocol": Setting(
            "whitened",
            "training on the target: gradient flow of the sample-whitened loss, gradient descent on the plain loss, or "
            "either on the exactly reduced rank-one network",
            choices=("whitened", "gd", "reduced_gd", "reduced_flow"),
        ),
        "pretraining_steps": Setting(500, "Runge-Kutta steps of pretraining", domain=whole(1)),
        "flow_steps": Setting(300, "steps of the gradient flow on the target", domain=whole(1)),
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
            upper=1e-4, floor=2e-13, where=trained_to_the_end,
            twins={"kappa = 1": "endpoint_error_kappa_one", "kappa of another depth": "endpoint_error_other_depth"},
        ),
        Pathwise(
            "fine_tuning_scale", "the unseen part of the source is scaled by kappa, in every draw",
            tolerance=1e-4, floor=2e-13, where=overparametrised,
            twins={"kappa = 1": ones, "kappa of another depth": "fine_tuning_scale_other_depth"},
        ),
        Bound(
            "fine_tuning_transferability", "with more samples than dimensions fine-tuning changes nothing",
            upper=1e-6, floor=2e-13, where=underparametrised,
            twins={"the formula of gamma < 1": underparametrised_formula},
        ),
        Mean(
            "scratch_risk", "the mean risk from scratch is the exact finite-size one",
            floor=1e-6, where=off_peak, twins={"noise not amplified, sigma^2": noise_without_amplification},
        ),
        Mean(
            "linear_transfer_risk", "the mean risk of the probe is the exact finite-size one",
            floor=1e-6, where=off_peak,
            twins={"min-norm least squares on the features": "linear_transfer_risk_lstsq"},
        ),
        Phase(
            "linear_transfer_transferability", "the probe helps or hurts as the theory says",
            floor=1e-6, where=off_peak, twins={"sine for cosine": other_sign},
        ),
        Phase(
            "fine_tuning_transferability", "fine-tuning helps or hurts as the theory says",
            floor=1e-6, where=off_peak, twins={"kappa = 1": kappa_one},
        ),
        Order(
            "endpoint_error", "the end point is exact in the limit of small initial weights",
            floor=1e-10, setting="alpha", values=(0.1, 0.05, 0.02, 0.01), order=2, replicates=20,
            axes={"gamma": [0.3, 0.6], "theta": [math.pi / 4], "sigma": [0.2]},
            settings={"d": 50, "depth": 2, "protocol": "whitened", "flow_steps": 600},
        ),
        Order(
            "endpoint_error", "gradient descent ends there in the limit of small steps",
            floor=1e-8, setting="learning_rate", values=(0.02, 0.01, 0.005, 0.0025), order=1, replicates=20,
            axes={"gamma": [0.3], "theta": [math.pi / 4], "sigma": [0.2]},
            settings={"d": 40, "depth": 2, "protocol": "gd", "steps": 40000, "scratch_steps": 1, "alpha": 1e-4},
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
