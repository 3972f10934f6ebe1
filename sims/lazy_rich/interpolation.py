"""Which interpolator a linear neuron finds with fewer samples than dimensions, and which sign of it wins."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from sims.descent import gradient_descent
from sims.engine.experiment import (
    POSITIVE,
    Domain,
    Experiment,
    Order,
    Output,
    Parameter,
    Phase,
    Setting,
    per_cell,
    whole,
)
from sims.lazy_rich.setup import (
    PARAMETERS,
    SOURCE,
    STEP,
    Neuron,
    goal_and_start,
    half_squares,
    learning_rate,
    neuron_at,
    rates,
)
from theory.lazy_rich import final_sign, interpolator, params_from_beta, separatrix_cosine


def trained(params: Neuron, X, y, cell, settings) -> Neuron:
    """The neuron at the end of gradient descent."""
    steps = jnp.round(settings["time"] / settings["h"])
    return gradient_descent(lambda p: half_squares(p, X, y), params, learning_rate(settings["h"], cell), steps)


def one_sample(key, cell, settings, sizes):
    """A random direction is seen; the start has a part along it, and a part that is never seen."""
    d = sizes
    seen, unseen = jnp.eye(d)[0], jnp.eye(d)[1]
    across, towards = jax.random.uniform(key, (2,), minval=0.3, maxval=1.0)
    beta0 = cell["tau"] ** 2 * (towards * seen + across * unseen)
    X, y = seen[None, :], jnp.ones(1)
    start = neuron_at(beta0, cell)
    end = trained(start, X, y, cell, settings)
    balanced = neuron_at(beta0, {**cell, "delta": 0.0 * cell["delta"]})
    plane = jnp.array([0, 1])
    return {
        "beta": (end.a * end.w)[plane],
        "beta_theory": interpolator(X, y, *start, **rates(cell)).beta[plane],
        "beta_least_norm": seen[plane] + 0.0 * across,
        "beta_nearest": (seen + beta0[1] * unseen)[plane],  # delta to infinity
        "beta_same_direction": (beta0 / beta0[0])[plane],  # delta to minus infinity
        "beta_balanced": interpolator(X, y, *balanced, **rates(cell)).beta[plane],
    }


interpolation = Experiment(
    name="interpolation",
    title="Which interpolator an unbalanced neuron finds",
    sources=(SOURCE,),
    axes={"delta": Parameter(np.array([-2.0, -1.0, -0.3, 0.0, 0.3, 1.0, 2.0]), PARAMETERS["delta"].label)},
    fixed={
        "tau": Parameter(0.7, PARAMETERS["tau"].label, domain=POSITIVE),
        **{name: PARAMETERS[name] for name in ("eta_a", "eta_w")},
    },
    settings={
        "h": STEP,
        "time": Setting(20.0, "time of the run", domain=POSITIVE),
        "d": Setting(3, "dimension", domain=whole(2)),
    },
    sizes=lambda settings: settings["d"],
    simulate=per_cell(one_sample),
    predict=lambda cells, settings, sizes: {},
    outputs={"beta": Output(r"interpolator $\beta_\infty$, along and across the sample", dims={"component": [1, 2]})},
    claims=(
        Order(
            "beta", "the neuron finds the interpolator of its imbalance, up to the step size",
            setting="h", values=(0.16, 0.08, 0.04, 0.02), order=1, replicates=20,
            axes={"delta": [-2.0, -0.5, 0.5, 2.0]},
            twins={
                "the one of least norm": "beta_least_norm", "that of a balanced neuron": "beta_balanced",
                "the nearest to the start": "beta_nearest", "the one in the start's direction": "beta_same_direction",
            },
        ),
    ),
    presets={
        "smoke": {"delta": [-1.0, 1.0], "h": 0.05, "replicates": 6, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {"delta": np.linspace(-4, 4, 33), "h": 0.0025, "replicates": 100},
    },
)  # fmt: skip


def near_the_separatrix(key, cell, settings, sizes):
    """Whitened data; a start turned by a small angle off the stable manifold of the saddle a = 0."""
    d = sizes
    k_goal, k_sign = jax.random.split(key)
    beta_star, _ = goal_and_start(k_goal, d)
    norm0 = cell["tau"] ** 2
    angle = jnp.arccos(separatrix_cosine(norm0, 1.0, cell["delta"], **rates(cell))) + cell["offset"]
    beta0 = norm0 * (jnp.cos(angle) * beta_star + jnp.sin(angle) * jnp.eye(d)[1])
    w0, a0 = params_from_beta(beta0, cell["delta"], **rates(cell))
    sign = jax.random.rademacher(k_sign, (), w0.dtype)  # either sign of a
    start = Neuron(sign * w0, sign * a0)
    end = trained(start, jnp.eye(d), beta_star, cell, settings)
    return {
        "kept": sign * jnp.sign(end.a),
        "kept_theory": sign * final_sign(*start, beta_star, **rates(cell)),
        "kept_as_if_balanced": jnp.ones_like(sign),
    }


SADDLE = Domain("zero or negative, for there is no saddle above", lambda x: x <= 0)

basins = Experiment(
    name="basins",
    title="Which sign of the outer weight wins",
    sources=(SOURCE,),
    axes={
        "delta": Parameter(np.array([-10.0, -4.0, -2.0, -1.0, -0.5]), PARAMETERS["delta"].label, domain=SADDLE),
        "offset": Parameter(np.array([-0.05, -0.02, 0.02, 0.05]), "angle beyond the separatrix", unit="rad"),
    },
    fixed={name: PARAMETERS[name] for name in ("tau", "eta_a", "eta_w")},
    settings={
        "h": Setting(0.002, "step size h, in units of time", domain=POSITIVE),
        "time": Setting(60.0, "time of the run", domain=POSITIVE),
        "d": Setting(2, "dimension", domain=whole(2)),
    },
    sizes=lambda settings: settings["d"],
    simulate=per_cell(near_the_separatrix),
    predict=lambda cells, settings, sizes: {},
    outputs={"kept": Output("1 if the outer weight keeps its sign, −1 if it crosses zero")},
    claims=(
        Phase(
            "kept", "starts on either side of the separatrix end with the sign predicted", share=1.0,
            twins={"the sign never changes": "kept_as_if_balanced"},
        ),
    ),
    presets={
        "smoke": {"delta": [-4.0, -2.0, -1.0], "h": 0.01, "replicates": 4},
        "laptop": {"replicates": 20},
        "paper": {"offset": [-0.01, -0.005, 0.005, 0.01], "h": 0.0002, "replicates": 20},
    },
)  # fmt: skip
