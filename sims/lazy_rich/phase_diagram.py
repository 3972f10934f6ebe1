"""The lazy-rich phase diagram over scale and imbalance: a linear neuron, and ReLU networks at several times.

The linear neuron has a closed form. The ReLU networks are held against gradient descent on infinitely many samples,
which knows the teacher and the student's first weights and no data.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sims.descent import gradient_descent_path
from sims.engine.experiment import (
    POSITIVE,
    Experiment,
    Order,
    Output,
    Parameter,
    Setting,
    cell_by_cell,
    in_columns,
    whole,
)
from sims.lazy_rich import relu
from sims.lazy_rich.relu import Student, draw, scaled, train
from sims.lazy_rich.setup import PARAMETERS, SOURCE, half_squares, learning_rate, neuron_at, rates
from sims.lazy_rich.single_neuron import kernel as kernel_of_neuron
from theory.lazy_rich import (
    kernel_distance,
    kernel_distance_at,
    loss_at,
    population_hamming_distance,
    population_kernel_distance,
    relu_population_flow,
    relu_population_loss,
)

NEURON_TIMES = (1.0, 3.0, 10.0, 30.0)
NEURON_D = 2


class Sizes(NamedTuple):
    """What a compilation depends on."""

    n: int
    n_test: int
    d: int
    m: int
    checkpoints: int
    together: int


def checkpoints(steps, count: int):
    """Steps at which the ReLU networks are measured: decades up to the last."""
    return jnp.round(jnp.asarray(steps, float) / 10.0 ** jnp.arange(count - 1, -1, -1, dtype=float)).astype(jnp.int32)


def sizes(settings) -> Sizes:
    return Sizes(*(settings[name] for name in Sizes._fields))


def neuron(cell, h):
    """Kernel distance and loss of a linear neuron that starts across the solution, at the times of the diagram."""
    beta_star, across = jnp.eye(NEURON_D)
    start = neuron_at(cell["tau"] ** 2 * across, cell)
    # Steps of h over the fastest rate, made a little smaller so that whole numbers of them reach every time.
    fastest = jnp.sqrt(cell["delta"] ** 2 + 4 * jnp.maximum(cell["tau"] ** 2, 1.0) ** 2)
    steps = jnp.round(jnp.ceil(jnp.array(NEURON_TIMES) * fastest) / h)

    def loss(p):
        return half_squares(p, jnp.eye(NEURON_D), beta_star)

    def until(carry, at):
        params, time, done = carry
        target, count = at
        rate = learning_rate((target - time) / (count - done), cell)
        params = jax.tree.map(lambda x: x[0], gradient_descent_path(loss, params, rate, jnp.array([count - done])))
        return (params, target, count), params

    begin = (start, jnp.zeros(()), jnp.zeros(()))
    _, path = jax.lax.scan(until, begin, (jnp.array(NEURON_TIMES), steps))
    K0 = kernel_of_neuron(start, cell)
    return {
        "neuron_kernel_distance": jax.vmap(lambda p: kernel_distance(K0, kernel_of_neuron(p, cell)))(path),
        "neuron_loss": jax.vmap(loss)(path),
    }


def relu_networks(task, student, cell, settings, shape: Sizes):
    """Every measure at every checkpoint, of real samples and of infinitely many."""
    start = scaled(student, cell["tau"], cell["delta"], rates(cell))
    h = settings["learning_rate"] / cell["tau"] ** 2
    counts = checkpoints(settings["steps"], shape.checkpoints)
    path = train(task, start, h, counts, **rates(cell))
    teacher = task.V, task.a_star

    limit = Student(*relu_population_flow(*start, *teacher, h, counts, 1 / shape.d, **rates(cell)))
    y, y_test = (relu.outputs(Student(*teacher), X) for X in (task.X, task.X_test))
    K0 = relu.kernel(start, task.X, **rates(cell))

    def measured(s):
        return {
            "kernel_distance": kernel_distance(K0, relu.kernel(s, task.X, **rates(cell))),
            "hamming_distance": relu.hamming(start, s, task.X),
            "parameter_distance": relu.distance(start, s),
            "train_loss": relu.mean_squares(s, task.X, y),
            "test_loss": relu.mean_squares(s, task.X_test, y_test),
        }

    def predicted(s):
        loss = relu_population_loss(*s, *teacher, 1 / shape.d)
        return {
            "kernel_distance_theory": population_kernel_distance(*start, *s, **rates(cell)),
            "hamming_distance_theory": population_hamming_distance(start.W, s.W),
            "parameter_distance_theory": relu.distance(start, s),
            "train_loss_theory": loss,
            "test_loss_theory": loss,
        }

    return jax.vmap(measured)(path) | jax.vmap(predicted)(limit)


def simulate(key, cells, settings, sizes):
    task, student = draw(key, sizes.n, sizes.n_test, sizes.d, sizes.m)

    def some(cell):
        both = jax.vmap(lambda c: neuron(c, settings["h"]) | relu_networks(task, student, c, settings, sizes))
        return both(cell)

    return cell_by_cell(some, in_columns(cells), sizes.together)


def predict(cells, settings, sizes):
    """The linear neuron; the ReLU networks' predictions depend on the teacher that was drawn."""
    names = ("tau", "delta", "eta_a", "eta_w")
    columns = jnp.broadcast_arrays(*(cells[name][:, None] for name in names), jnp.array(NEURON_TIMES)[None, :])
    tau, delta, eta_a, eta_w, t = columns
    of_layers = {"eta_a": eta_a, "eta_w": eta_w}
    return {
        "neuron_kernel_distance": kernel_distance_at(tau, delta, t, 1.0, NEURON_D, 0.0, **of_layers),
        "neuron_loss": loss_at(tau, delta, t, **of_layers),
    }


def balanced(output):
    """The same at no imbalance."""

    def formula(cells, settings, sizes):
        return predict({**cells, "delta": jnp.zeros_like(cells["delta"])}, settings, sizes)[output]

    return formula


def other_sign(output):
    """The same with delta of the other sign."""

    def formula(cells, settings, sizes):
        return predict({**cells, "delta": -cells["delta"]}, settings, sizes)[output]

    return formula


# No noise hides the neuron's third order in h, by which a straight line misses the limit.
NEURON_FLOOR = 1e-6
NEURON_LADDER = {
    "setting": "h", "values": (1 / 8, 1 / 16, 1 / 32, 1 / 64), "order": 1, "replicates": 4,
    "axes": {"tau": [0.3, 1.0], "delta": [-1.0, -0.3, 0.3, 1.0]},
    "settings": {"n": 4, "n_test": 4, "d": 2, "m": 2, "steps": 1, "checkpoints": 1},
}  # fmt: skip


def fits(values, settings):
    if settings["m"] % 2:
        raise ValueError(f"`m` must be even, for half of the students are mirrored, but got {settings['m']}.")
    if settings["steps"] < 10 ** (settings["checkpoints"] - 1):
        raise ValueError(
            f"`steps` must be at least 10^(checkpoints - 1) = {10 ** (settings['checkpoints'] - 1)}, "
            f"but got {settings['steps']}."
        )


TIMES = {"step": lambda settings: np.asarray(checkpoints(settings["steps"], settings["checkpoints"]))}

phase_diagram = Experiment(
    name="phase_diagram",
    title="Lazy or rich: phase diagram over scale and imbalance",
    sources=(SOURCE,),
    axes={
        "tau": Parameter(np.logspace(-1, 0.3, 6), PARAMETERS["tau"].label, scale="log", domain=POSITIVE),
        "delta": Parameter(np.linspace(-1, 1, 7), PARAMETERS["delta"].label),
    },
    fixed={name: PARAMETERS[name] for name in ("eta_a", "eta_w")},
    settings={
        "n": Setting(200, "samples", domain=whole(1)),
        "n_test": Setting(500, "test samples", domain=whole(1)),
        "d": Setting(20, "dimension of the inputs", domain=whole(2)),
        "m": Setting(20, "neurons of the student", domain=whole(2)),
        "steps": Setting(2500, "steps of gradient descent", domain=whole(1)),
        "checkpoints": Setting(3, "decades of steps at which it is measured", domain=whole(1)),
        "learning_rate": Setting(0.01, "step of the ReLU networks times tau^2", domain=POSITIVE),
        "h": Setting(1 / 64, "step of the linear neuron over its fastest rate", domain=POSITIVE),
        "together": Setting(1, "cells simulated side by side: one on a CPU, many on a GPU", domain=whole(1)),
    },
    sizes=sizes,
    simulate=simulate,
    predict=predict,
    validate=fits,
    outputs={
        "neuron_kernel_distance": Output(r"linear neuron: kernel distance $S(0,t)$", dims={"time": NEURON_TIMES}),
        "neuron_loss": Output("linear neuron: loss", dims={"time": NEURON_TIMES}),
        "kernel_distance": Output("kernel distance", dims=TIMES),
        "hamming_distance": Output("Hamming distance per neuron", dims=TIMES),
        "parameter_distance": Output("parameter distance", dims=TIMES),
        "train_loss": Output("train loss", dims=TIMES),
        "test_loss": Output("test loss", dims=TIMES),
    },
    claims=(
        Order(
            "neuron_kernel_distance", "the neuron's kernel distance is exact, up to the step size",
            twins={
                "balanced layers": balanced("neuron_kernel_distance"),
                "delta with the other sign": other_sign("neuron_kernel_distance"),
            }, floor=NEURON_FLOOR, **NEURON_LADDER,
        ),
        Order(
            "neuron_loss", "the neuron's loss is exact, up to the step size",
            twins={
                "balanced layers": balanced("neuron_loss"),
                "delta with the other sign": other_sign("neuron_loss"),
            }, floor=NEURON_FLOOR, **NEURON_LADDER,
        ),
    ),
    presets={
        "smoke": {
            "tau": [0.1, 0.4, 2.0], "delta": [-1.0, 0.0, 1.0], "n": 50, "n_test": 100, "d": 6, "m": 6, "steps": 200,
            "checkpoints": 2, "replicates": 4, "ladders": False,
        },
        "laptop": {"replicates": 20},
        "paper": {
            "tau": np.logspace(-1, 0.3, 17), "delta": np.linspace(-1, 1, 17), "n": 1000, "d": 100, "m": 50,
            "steps": 100_000, "checkpoints": 4, "learning_rate": 0.005, "replicates": 16, "together": 289,
        },
    },
    block=289,
)  # fmt: skip
