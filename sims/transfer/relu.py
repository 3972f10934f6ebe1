"""Two-layer ReLU networks: pretrained on a part of the teacher, then probed, fine-tuned or trained from scratch."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sims.descent import gradient_descent
from sims.engine.experiment import (
    POSITIVE,
    Domain,
    Experiment,
    Mean,
    Order,
    Output,
    Parameter,
    Phase,
    Setting,
    whole,
)
from sims.transfer.phase_diagram import SOURCE
from theory.arguments import require
from theory.gaussian_kernels import arc_cosine_kernel, relu_kernel
from theory.transfer import feature_ridge_risk, relu_floor, relu_linear_transfer_risk

CONVERGED = 0.05
FRACTION = Domain("a fraction from 0 to below 1", lambda x: (x >= 0) & (x < 1))


class Sizes(NamedTuple):
    """Shapes that a compilation depends on."""

    d: int
    width: int
    neurons: int
    rows: int
    probe_samples: int
    test_samples: int
    batch: int
    pretraining_steps: int


def sizes(settings):
    return Sizes(*(settings[name] for name in Sizes._fields))


def student(network, inputs):
    """The mean-field network f(x) = c . relu(W x) / m."""
    first, head = network
    return jax.nn.relu(inputs @ first.T) @ head / len(head)


def squared_error(network, inputs, labels, seen=1.0):
    """Sum of squared errors of the rows that are seen."""
    return jnp.sum(seen * (student(network, inputs) - labels) ** 2)


def initial_student(key, d, width):
    k_first, k_head = jax.random.split(key)
    first = 0.5 * jax.random.normal(k_first, (width, d)) / d**0.5
    return first, 0.5 * jax.random.rademacher(k_head, (width,), first.dtype)


def teacher(key, d, neurons):
    """Unit neurons and their coefficients +-1 / sqrt(neurons)."""
    k_neurons, k_signs = jax.random.split(key)
    directions = jax.random.normal(k_neurons, (neurons, d))
    directions = directions / jnp.linalg.norm(directions, axis=1, keepdims=True)
    return directions, jax.random.rademacher(k_signs, (neurons,), directions.dtype) / neurons**0.5


def labels_of(target, inputs):
    directions, coefficients = target
    return jax.nn.relu(inputs @ directions.T) @ coefficients


def pretrain(key, network, source, rate, sizes):
    """Online gradient descent, every batch drawn afresh."""

    def step(network, count):
        inputs = jax.random.normal(jax.random.fold_in(key, count), (sizes.batch, sizes.d))
        slope = jax.grad(squared_error)(network, inputs, labels_of(source, inputs), 1 / sizes.batch)
        return jax.tree.map(lambda a, g: a - rate * g, network, slope), None

    return jax.lax.scan(step, network, jnp.arange(sizes.pretraining_steps))[0]


def least_squares(hidden, labels, ridge):
    """Head that minimises the mean squared error plus a ridge; `hidden` has a row per sample, zero where unseen."""
    gram, moment = hidden.T @ hidden, hidden.T @ labels
    penalty = ridge * jnp.trace(gram) / len(gram)
    return jnp.linalg.solve(gram + penalty * jnp.eye(len(gram)), moment)


def simulate(key, cells, settings, sizes):
    k_teacher, k_inputs, k_network, k_scratch, k_online = jax.random.split(key, 5)
    target = teacher(k_teacher, sizes.d, sizes.neurons)
    removed = jnp.round(cells["mu"] * sizes.neurons)
    source = (target[0], jnp.where(jnp.arange(sizes.neurons, dtype=removed.dtype) < removed, 0.0, target[1]))
    untrained, fresh = (initial_student(k, sizes.d, sizes.width) for k in (k_network, k_scratch))
    pretrained = pretrain(k_online, untrained, source, settings["pretraining_rate"] * sizes.width, sizes)

    # Test points, points that measure the floor, and the target's data: independent rows of one draw.
    ends = (sizes.test_samples, sizes.test_samples + sizes.probe_samples)
    points = jax.random.normal(k_inputs, (ends[1] + sizes.rows, sizes.d))
    test, many, few = (slice(ends[0]), slice(*ends), slice(ends[1], None))
    labels, features = labels_of(target, points), jax.nn.relu(points @ pretrained[0].T)

    def risk(network):
        return squared_error(network, points[test], labels[test], 1 / sizes.test_samples)

    def risk_of_head(head):
        return jnp.mean((features[test] @ head - labels[test]) ** 2)

    def cell(n):
        seen = (jnp.arange(sizes.rows, dtype=n.dtype) < n).astype(points.dtype)

        def trained_risk(start):
            rate = settings["learning_rate"] * sizes.width
            return risk(gradient_descent(loss, start, rate, settings["steps"]))

        def loss(network):
            return squared_error(network, points[few], labels[few], seen / n)

        scratch, tuned = jax.lax.map(trained_risk, jax.tree.map(lambda *a: jnp.stack(a), fresh, pretrained))
        head = least_squares(seen[:, None] * features[few], labels[few], settings["ridge"])
        return {"scratch_risk": scratch, "fine_tuning_risk": tuned, "linear_transfer_risk": risk_of_head(head)}

    risks = jax.vmap(cell)(cells["n"])
    exact = 10 * sizes.width * jnp.finfo(points.dtype).eps
    floor = risk_of_head(least_squares(features[many], labels[many], exact))
    return {
        **risks,
        **against_kernel(target, source, pretrained, untrained, cells["n"], floor, risks, settings, sizes),
        "probe_excess": (floor - risk_of_head(best_head(target, pretrained[0]))) * jnp.ones_like(cells["n"]),
        "status": has_learned(pretrained, points[test], labels_of(source, points[test])) * jnp.ones_like(cells["n"]),
    }


def has_learned(network, inputs, labels):
    """0 where the network has learned the source, 1 where not."""
    return jnp.where(squared_error(network, inputs, labels) < CONVERGED * jnp.sum(labels**2), 0.0, 1.0)


def against_kernel(target, source, pretrained, untrained, n, floor, risks, settings, sizes):
    """What the probe gave beside what the kernel of the trained features says, and beside wrong kernels."""
    layers = jnp.stack([pretrained[0], untrained[0], pretrained[0]])
    heads = jnp.stack([target[1], target[1], source[1]])
    floors = jax.vmap(relu_floor, (None, 0, 0))(target[0], heads, layers)
    predicted = jax.vmap(probe_risk, (None, 0, 0, None, None))(target, layers[:2], floors[:2], n, settings["ridge"])
    wrong = [floor_of_kernel(k, target, pretrained[0]) for k in (arc_cosine_with_wrong_sign, arc_cosine_without_sine)]
    everywhere = jnp.ones_like(n)
    at_this_size = relu_linear_transfer_risk(jnp.stack([*floors, *wrong]), sizes.probe_samples, sizes.width)
    names = ("theory", "initial", "source", "wrong_sign", "without_sine")
    scratch = risks["scratch_risk"]
    return {
        "probe_floor": floor * everywhere,
        **{f"probe_floor_{name}": value * everywhere for name, value in zip(names, at_this_size, strict=True)},
        "linear_transfer_risk_theory": predicted[0],
        "linear_transfer_risk_initial": predicted[1],
        "linear_transfer_risk_floor": floors[0] * everywhere,
        "linear_transfer_transferability": scratch - risks["linear_transfer_risk"],
        "linear_transfer_transferability_theory": scratch - predicted[0],
        "linear_transfer_transferability_source": scratch - floors[2],
        "fine_tuning_transferability": scratch - risks["fine_tuning_risk"],
    }


def probe_risk(target, features, floor, n, ridge):
    """The ridge probe's risk, as if the features were Gaussian with the moments that they have.

    The part of the target outside their span is noise to them, of the floor's variance.
    """
    moments = relu_kernel(features, features)
    eigenvalues, vectors = jnp.linalg.eigh(moments)
    scale = jnp.sqrt(jnp.maximum(eigenvalues, 10 * len(moments) * jnp.finfo(moments.dtype).eps * eigenvalues[-1]))
    projected = vectors.T @ (relu_kernel(features, target[0]) @ target[1]) / scale
    penalty = ridge * jnp.trace(moments) / len(moments)
    return floor + feature_ridge_risk(jnp.diag(scale), projected, n, jnp.sqrt(floor), penalty)


def best_head(target, features):
    """The head of the probe with infinitely many samples."""
    inverse = jnp.linalg.pinv(relu_kernel(features, features), hermitian=True)
    return inverse @ (relu_kernel(features, target[0]) @ target[1])


def floor_of_kernel(kernel, target, features):
    """The floor of `relu_floor` with another function of the cosine as the kernel; wrong on purpose."""
    directions, coefficients = target
    units = features / jnp.linalg.norm(features, axis=1, keepdims=True)
    projections = kernel(units @ directions.T) @ coefficients
    inverse = jnp.linalg.pinv(kernel(units @ units.T), hermitian=True)
    total = coefficients @ kernel(directions @ directions.T) @ coefficients
    return jnp.maximum(total - projections @ inverse @ projections, 0.0)


def arc_cosine_with_wrong_sign(cosine):
    u = jnp.clip(cosine, -1.0, 1.0)
    return (jnp.sqrt(1 - u**2) + u * (jnp.pi + jnp.arccos(u))) / (2 * jnp.pi)


def arc_cosine_without_sine(cosine):
    return arc_cosine_kernel(cosine) - jnp.sqrt(1 - jnp.clip(cosine, -1.0, 1.0) ** 2) / (2 * jnp.pi)


def predict(cells, settings, sizes):
    """What vanishes with many samples. The probe is predicted draw by draw; training all layers has no closed form."""
    zero = jnp.zeros_like(cells["n"])
    unknown = ("scratch_risk", "fine_tuning_risk", "fine_tuning_transferability")
    return {"probe_excess": zero} | dict.fromkeys(unknown, jnp.nan * zero)


def well_sampled(cells, settings):
    """Where features that are not Gaussian act as if they were: many samples per feature."""
    return cells["n"] >= 2 * settings["width"]


def validate(values, settings):
    require(values["n"] <= settings["rows"], "n", f"at most rows = {settings['rows']}", values["n"])
    enough = settings["probe_samples"] > settings["width"] + 1
    require(enough, "probe_samples", "above the width plus one", settings["probe_samples"])


def to_neurons(mu, settings):
    """Whole numbers of removed neurons, not all of them."""
    return np.minimum(np.round(mu * settings["neurons"]), settings["neurons"] - 1) / settings["neurons"]


SMALL = {"d": 6, "width": 20, "neurons": 5, "batch": 128}

relu = Experiment(
    name="relu",
    title="Transferability of two-layer ReLU networks",
    sources=(SOURCE,),
    axes={
        "mu": Parameter(
            [0.0, 0.2, 0.4, 0.6], r"fraction of the teacher missing in the source $\mu$",
            domain=FRACTION, snap=to_neurons, role="shared",
        ),
        "n": Parameter([10, 20, 40, 80, 160, 320], "target samples $n$", scale="log", domain=whole(1)),
    },
    settings={
        "d": Setting(10, "input dimension", domain=whole(1)),
        "width": Setting(40, "hidden neurons of the student", domain=whole(1)),
        "neurons": Setting(5, "neurons of the teacher", domain=whole(1)),
        "rows": Setting(320, "largest n for which data are drawn", domain=whole(1)),
        "batch": Setting(256, "samples per step of pretraining", domain=whole(1)),
        "pretraining_steps": Setting(2000, "steps of pretraining", domain=whole(1)),
        "pretraining_rate": Setting(0.2, "learning rate of pretraining, per hidden neuron", domain=POSITIVE),
        "steps": Setting(1000, "steps of gradient descent on the target", domain=whole(0)),
        "learning_rate": Setting(0.1, "of gradient descent on the target, per hidden neuron", domain=POSITIVE),
        "ridge": Setting(1e-3, "of the probe, in units of its mean squared feature", domain=POSITIVE),
        "probe_samples": Setting(10000, "samples of the regression that measures the floor", domain=whole(1)),
        "test_samples": Setting(10000, "samples on which risks are measured", domain=whole(1)),
    },
    sizes=sizes,
    simulate=simulate,
    predict=predict,
    validate=validate,
    block=8,
    outputs={
        "linear_transfer_transferability": Output(r"transferability, linear probe $\mathcal{T}_{\mathrm{lt}}$"),
        "fine_tuning_transferability": Output(r"transferability, fine-tuning $\mathcal{T}_{\mathrm{ft}}$"),
        "scratch_risk": Output(r"risk from scratch $R_{\mathrm{sc}}$"),
        "fine_tuning_risk": Output(r"risk of fine-tuning $R_{\mathrm{ft}}$"),
        "linear_transfer_risk": Output(r"risk of the linear probe $R_{\mathrm{lt}}$"),
        "probe_floor": Output("risk of a probe with very many samples"),
        "probe_excess": Output("that risk, less that of the best head"),
    },
    claims=(
        Mean(
            "probe_floor", "the trained features cannot express what the kernel says they cannot", rounding=500,
            twins={
                "floor of the initial features": "probe_floor_initial", "floor of the source": "probe_floor_source",
                "wrong sign of the arccosine": "probe_floor_wrong_sign",
                "kernel without its sine": "probe_floor_without_sine",
            },
        ),
        Mean(
            "linear_transfer_risk", "the probe's risk is that of Gaussian features with the same moments", rounding=500,
            where=well_sampled,
            twins={"initial features": "linear_transfer_risk_initial", "the floor alone": "linear_transfer_risk_floor"},
        ),
        Phase(
            "linear_transfer_transferability", "the probe beats the measured risk from scratch where the floor says so",
            rounding=500, where=well_sampled, twins={"floor of the source": "linear_transfer_transferability_source"},
        ),
        Order(
            "probe_excess", "the probe reaches the best head of the kernel as one over the number of samples",
            rounding=5e3, setting="probe_samples", values=(800, 1600, 3200, 6400), order=-1, replicates=40,
            axes={"mu": [0.4], "n": [20]}, settings={**SMALL, "rows": 20, "steps": 0, "pretraining_steps": 600},
        ),
    ),
    presets={
        "smoke": {
            **SMALL, "n": [40, 80, 160, 320], "pretraining_steps": 600, "steps": 200, "test_samples": 4000,
            "replicates": 20, "ladders": False,
        },
        "laptop": {"replicates": 20},
        "paper": {
            "d": 100, "width": 1000, "neurons": 100, "mu": np.linspace(0.0, 0.9, 10),
            "n": np.geomspace(50, 6400, 8).round(), "rows": 6400, "batch": 512, "pretraining_steps": 4000,
            "steps": 4000, "probe_samples": 100000, "test_samples": 20000, "replicates": 20,
        },
    },
)  # fmt: skip
