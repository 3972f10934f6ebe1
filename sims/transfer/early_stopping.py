"""Training for a finite time: gradient descent on the plain loss, from scratch and from a pretrained source."""

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
    Order,
    Output,
    Parameter,
    Phase,
    Setting,
    whole,
)
from sims.transfer.deep_linear import initial_network, quadratic_loss, rotated, weights
from sims.transfer.phase_diagram import SOURCE, to_samples, validate
from sims.transfer.regression import draw, regression
from theory.transfer import early_stopped_risk

FRACTIONS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


class Sizes(NamedTuple):
    """Shapes and choices that a compilation depends on."""

    d: int
    rows: int
    width: int
    protocol: str
    pretraining_steps: int
    flow_steps: int


def sizes(settings):
    rows = math.ceil(settings["gamma_max"] * settings["d"] - 1e-9)
    keys = ("width", "protocol", "pretraining_steps", "flow_steps")
    return Sizes(settings["d"], rows, *(settings[key] for key in keys))


def counts(settings, xp=jnp):
    """Steps of gradient descent at each recorded time, whole numbers from 1."""
    return xp.maximum(xp.round(settings["last_time"] * xp.asarray(FRACTIONS) / settings["learning_rate"]), 1)


def times(settings, xp=jnp):
    """The recorded times: learning rate times steps."""
    return settings["learning_rate"] * counts(settings, xp)


def trajectory(loss, network, settings, sizes):
    """End-to-end weights at the recorded times, shape (times, d)."""
    start = jnp.zeros((1,))

    def descend(network, steps):
        network = gradient_descent(loss, network, settings["learning_rate"], steps)
        return network, weights(network)

    def flow(network, duration):
        network = gradient_flow(loss, network, duration, sizes.flow_steps)
        return network, weights(network)

    if sizes.protocol == "flow":
        return jax.lax.scan(flow, network, jnp.diff(jnp.concatenate([start, times(settings)])))[1]
    steps = jnp.diff(jnp.concatenate([start, counts(settings)])).astype(jnp.int32)
    return jax.lax.scan(descend, network, steps)[1]


def simulate(key, cells, settings, sizes):
    theta, sigma, source_norm = cells["theta"], cells["sigma"], cells["source_norm"]
    n = jnp.round(cells["gamma"] * sizes.d)
    k_data, k_network = jax.random.split(key)
    task = regression(draw(k_data, sizes.rows, sizes.d), n, theta, sigma, cells["target_norm"])
    source = source_norm * task.source

    network = rotated(initial_network(k_network, sizes.d, sizes.width, 2, settings["alpha"]), task.basis)
    duration = 0.1 * sizes.pretraining_steps / source_norm
    pretrained = gradient_flow(quadratic_loss(jnp.ones(sizes.d), source), network, duration, sizes.pretraining_steps)

    def risks(start):
        def cell(target, min_norm):
            path = trajectory(quadratic_loss(task.eigenvalues, min_norm), start, settings, sizes)
            return jnp.sum((path - target[None, :]) ** 2, axis=1)

        return jax.vmap(cell)(task.target, task.min_norm)

    scratch, tuned = jax.vmap(risks)((jnp.stack([jnp.zeros(sizes.d), source]),))
    two_layers = risks(pretrained)
    flow, spread = on_spectrum(task, source, cells, n, times(settings), rate=2.0)
    lost = jnp.linalg.norm(weights(pretrained) - source) > 1e-2 * source_norm
    return {
        "scratch_risk": scratch,
        "fine_tuning_risk": tuned,
        "fine_tuning_risk_two_layers": two_layers,
        "fine_tuning_risk_controlled": tuned - spread,
        "transferability": scratch - tuned,
        "transferability_two_layers": scratch - two_layers,
        "flow_error": tuned - flow,
        "flow_error_half_rate": tuned - on_spectrum(task, source, cells, n, times(settings), rate=1.0)[0],
        "status": jnp.where(lost, 1, 0) * jnp.ones(theta.shape, jnp.int32),
    }


def on_spectrum(task, source, cells, n, t, rate):
    """Risk of the flow given this draw's spectrum, and its part of mean zero: that of the directions and the noise.

    The start's distance to the target is uniform on a sphere and the noise Gaussian, whatever the eigenvalues, so the
    expectation of that part is exactly zero at every d; without it little variance is left.
    """
    fading = jnp.exp(-rate * task.eigenvalues[None, :] * t[:, None])[None]
    distance = (source[None, :] - task.target)[:, None, :]
    noise = (task.min_norm - task.seen[None, :] * task.target)[:, None, :]
    drawn = jnp.sum((fading * distance + (1 - fading) * noise) ** 2, axis=2)
    variance = task.seen / (n * jnp.where(task.seen > 0, task.eigenvalues, 1.0))
    bias = jnp.mean(fading**2, axis=2) * jnp.sum(distance**2, axis=2)
    expected = bias + (cells["sigma"] ** 2)[:, None] * jnp.sum((1 - fading) ** 2 * variance[None, None, :], axis=2)
    return drawn, drawn - expected


def initial_distance(cells):
    """|beta_s - beta_t|^2."""
    B, b = cells["source_norm"], cells["target_norm"]
    return B**2 + b**2 - 2 * B * b * jnp.cos(cells["theta"])


def risk(distance2, cells, t):
    """Cell by cell, so that the rounding of a quadrature does not depend on the number of cells."""
    columns = (cells["gamma"], distance2, cells["sigma"])
    return jax.lax.map(lambda cell: early_stopped_risk(*cell, t), columns)


def predict(cells, settings, sizes):
    t = times(settings)
    scratch, tuned = risk(cells["target_norm"] ** 2, cells, t), risk(initial_distance(cells), cells, t)
    return {
        "scratch_risk": scratch,
        "fine_tuning_risk": tuned,
        "fine_tuning_risk_two_layers": tuned,
        "fine_tuning_risk_controlled": tuned,
        "transferability": scratch - tuned,
        "transferability_two_layers": scratch - tuned,
        "flow_error": jnp.zeros_like(tuned),
    }


def forgotten_square(cells, settings, sizes):
    """exp(-2 lambda t) where its square belongs: the bias of half the time, the noise of all of it."""
    t = times(settings)
    bias = risk(initial_distance(cells), {**cells, "sigma": jnp.zeros_like(cells["sigma"])}, t / 2)
    return bias + risk(jnp.zeros_like(cells["theta"]), cells, t)


def converged(cells, settings, sizes):
    return risk(initial_distance(cells), cells, jnp.full(len(FRACTIONS), jnp.inf))


def noise_without_gamma(cells, settings, sizes):
    louder = {**cells, "sigma": cells["sigma"] * jnp.sqrt(cells["gamma"])}
    return risk(initial_distance(cells), louder, times(settings))


def converged_transferability(cells, settings, sizes):
    t = jnp.full(len(FRACTIONS), jnp.inf)
    quiet = {**cells, "sigma": jnp.zeros_like(cells["sigma"])}
    return risk(cells["target_norm"] ** 2, quiet, t) - risk(initial_distance(cells), quiet, t)


def sine_for_cosine(cells, settings, sizes):
    turned = {**cells, "theta": jnp.pi / 2 - cells["theta"]}
    t = times(settings)
    return risk(cells["target_norm"] ** 2, cells, t) - risk(initial_distance(turned), cells, t)


def small_steps(cells, settings):
    return np.full(np.shape(cells["gamma"]), settings["learning_rate"] <= 0.01 and settings["protocol"] == "gd")


def unfinished(cells, settings):
    """Where there is transferability left at the last time: with many more samples both risks have converged to one."""
    return cells["gamma"] < 1.15


TIME = {"time": lambda settings: times(settings, np)}
LADDER = {"gamma": [0.5, 0.9, 1.5], "theta": [0.6, 1.3], "sigma": [0.5]}

early_stopping = Experiment(
    name="early_stopping",
    title="Fine-tuning and training from scratch for a finite time",
    sources=(SOURCE,),
    axes={
        "gamma": Parameter(
            [0.3, 0.5, 0.7, 0.9, 1.0, 1.1, 1.3, 1.6, 2.0], r"samples per dimension $\gamma=n/d$",
            domain=POSITIVE, snap=to_samples, role="shared",
        ),
        "theta": Parameter(
            math.pi / 2 * np.array([0.1, 0.3, 0.5, 0.8, 1.0]), r"angle between the tasks $\theta$",
            unit="rad", domain=ANGLE,
        ),
        "sigma": Parameter([0.0, 0.2], r"label noise $\sigma$", domain=NONNEGATIVE),
    },
    fixed={
        "source_norm": Parameter(1.0, r"source norm $|\beta_s|$", domain=POSITIVE),
        "target_norm": Parameter(1.0, r"target norm $|\beta_t|$", domain=POSITIVE),
    },
    settings={
        "d": Setting(100, "input dimension", domain=whole(2)),
        "width": Setting(0, "hidden width of the two-layer network; 0 is one neuron, rank one", domain=whole(0)),
        "gamma_max": Setting(2.0, "largest n / d for which data are drawn", domain=POSITIVE),
        "alpha": Setting(1e-3, "initial scale of the two-layer network", domain=POSITIVE),
        "pretraining_steps": Setting(500, "Runge-Kutta steps of its pretraining", domain=whole(1)),
        "protocol": Setting("gd", "gradient descent, or Runge-Kutta steps of the flow", choices=("gd", "flow")),
        "learning_rate": Setting(0.01, "of gradient descent", domain=POSITIVE),
        "last_time": Setting(50.0, "learning rate times steps at the end", domain=POSITIVE),
        "flow_steps": Setting(100, "Runge-Kutta steps between two recorded times", domain=whole(1)),
    },
    sizes=sizes,
    simulate=simulate,
    predict=predict,
    validate=validate,
    outputs={
        "transferability": Output(r"transferability at a finite time $\mathcal{T}(t)$", dims=TIME),
        "scratch_risk": Output(r"risk from scratch $R_{\mathrm{sc}}(t)$", dims=TIME),
        "fine_tuning_risk": Output(r"risk of fine-tuning $R_{\mathrm{ft}}(t)$, one layer", dims=TIME),
        "fine_tuning_risk_controlled": Output(r"$R_{\mathrm{ft}}(t)$, less a part of mean zero", dims=TIME),
        "fine_tuning_risk_two_layers": Output(r"risk of fine-tuning $R_{\mathrm{ft}}(t)$, two layers", dims=TIME),
        "transferability_two_layers": Output(r"$\mathcal{T}(t)$ with two layers fine-tuned", dims=TIME),
        "flow_error": Output(r"$R_{\mathrm{ft}}(t)$ less that of the flow on the same draw", dims=TIME),
    },
    claims=(
        Bound(
            "flow_error", "gradient descent follows the flow on the very draw", upper=0.05, rounding=50,
            where=small_steps, twins={"rate 2 lambda for 4 lambda": "flow_error_half_rate"},
        ),
        Phase(
            "transferability", "at a finite time fine-tuning helps or hurts as the theory says", rounding=500,
            where=unfinished, share=0.95,
            twins={"the converged risks": converged_transferability, "sine for cosine": sine_for_cosine},
        ),
        Order(
            "flow_error", "gradient descent is the flow in the limit of small steps", rounding=500,
            setting="learning_rate", values=(0.02, 0.01, 0.005, 0.0025), order=1, replicates=20,
            axes=LADDER, settings={"d": 40, "last_time": 20.0, "protocol": "gd"},
            twins={"rate 2 lambda for 4 lambda": "flow_error_half_rate"},
        ),
        Order(
            "fine_tuning_risk_controlled", "the mean risk is that of the Marchenko-Pastur law, to order 1/d",
            floor=1e-9, rounding=500, setting="d", values=(20, 40, 80, 160), order=-1, replicates=400,
            axes=LADDER, settings={"protocol": "flow", "last_time": 5.0, "pretraining_steps": 100},
            twins={
                "rate 2 lambda for 4 lambda": forgotten_square, "converged": converged,
                "noise without 1/gamma": noise_without_gamma,
            },
        ),
    ),
    presets={
        "smoke": {
            "d": 40, "gamma": [0.5, 0.9, 1.0, 1.1, 1.5, 2.0], "sigma": [0.2], "replicates": 20, "ladders": False,
        },
        "laptop": {"d": 100, "replicates": 20},
        "paper": {
            "d": 500, "width": 500, "alpha": 1e-5, "gamma": np.linspace(0.1, 2.0, 20),
            "theta": math.pi / 2 * np.linspace(0.05, 1.0, 20), "replicates": 20,
        },
    },
)  # fmt: skip
