"""ReLU neurons in the plane: the trajectory of each, and the quantity that each conserves."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sims.descent import gradient_step, optimizer_step
from sims.engine.experiment import (
    POSITIVE,
    Experiment,
    Order,
    Output,
    Parameter,
    Pathwise,
    Setting,
    cell_by_cell,
    in_columns,
    whole,
)
from sims.lazy_rich.relu import TEACHERS, Student, draw, mean_squares, outputs, scaled, train
from sims.lazy_rich.setup import PARAMETERS, SOURCE, rates
from theory.lazy_rich import conserved_quantity, conserved_step

MOMENTS = 40
LARGE_STEP = 0.02


class Sizes(NamedTuple):
    """What a compilation depends on."""

    n: int
    d: int
    m: int


def moments(time: float) -> np.ndarray:
    """Times at which the neurons are seen: squares of a regular grid, for the first ones move fast."""
    return time * np.linspace(0, 1, MOMENTS) ** 2


def adam(loss, student: Student, h, steps) -> Student:
    """The student after steps of Adam."""
    optimizer = optax.adam(h)

    def step(_, carry):
        params, state = carry
        return optimizer_step(optimizer, jax.grad(loss)(params), params, state)

    return jax.lax.fori_loop(jnp.int32(0), steps.astype(jnp.int32), step, (student, optimizer.init(student)))[0]


def one(task, student, cell, settings, sizes):
    layers, h = rates(cell), settings["h"]
    start = scaled(student, cell["tau"], cell["delta"], layers)
    steps = jnp.round(settings["time"] / h * jnp.linspace(0.0, 1.0, MOMENTS) ** 2)
    path = train(task, start, h, steps, **layers)
    y = outputs(Student(task.V, task.a_star), task.X)

    def loss(s):
        return mean_squares(s, task.X, y)

    def conserved(s):
        return conserved_quantity(s.W, s.a, **layers)

    # The gradient with respect to a w at fixed patterns is that of w over a.
    xi = -jax.grad(loss)(start).W / start.a[:, None]
    once = gradient_step(loss, start, Student(LARGE_STEP * cell["eta_w"], LARGE_STEP * cell["eta_a"]))
    late = start.a + LARGE_STEP * cell["eta_a"] * jnp.sum(once.W * xi, 1)
    delta = conserved(start)
    moved = adam(loss, start, h, steps[-1] / 10)
    return {
        "neuron": path.W * jnp.abs(path.a)[..., None],
        "neuron_theory": jnp.full((MOMENTS, sizes.m, sizes.d), jnp.nan),
        "inputs": task.X,
        "inputs_theory": jnp.full((sizes.n, sizes.d), jnp.nan),
        "teacher": task.V,
        "teacher_theory": jnp.full((TEACHERS, sizes.d), jnp.nan),
        "sign": jnp.sign(start.a),
        "sign_theory": jnp.full(sizes.m, jnp.nan),
        "teacher_sign": task.a_star,
        "teacher_sign_theory": jnp.full(TEACHERS, jnp.nan),
        "imbalance": conserved(jax.tree.map(lambda x: x[-1], path)),
        "imbalance_theory": delta,
        "imbalance_of_adam": conserved(moved),
        "step": conserved(once) - delta,
        "step_theory": conserved_step(start.W, start.a, xi, LARGE_STEP, **layers),
        "step_one_after_the_other": conserved(once._replace(a=late)) - delta,
    }


def simulate(key, cells, settings, sizes):
    """All cells share the task and the directions of the neurons."""
    task, student = draw(key, sizes.n, 1, sizes.d, sizes.m)
    return cell_by_cell(jax.vmap(lambda cell: one(task, student, cell, settings, sizes)), in_columns(cells))


def numbered(name):
    return lambda settings: np.arange(settings[name])


relu_neurons = Experiment(
    name="relu_neurons",
    title="ReLU neurons in the plane",
    sources=(SOURCE,),
    axes={
        "tau": Parameter([0.1, 2.0], PARAMETERS["tau"].label, scale="log", domain=POSITIVE),
        "delta": Parameter([-0.9999, 0.0, 0.9999], PARAMETERS["delta"].label),
    },
    fixed={name: PARAMETERS[name] for name in ("eta_a", "eta_w")},
    settings={
        "n": Setting(20, "samples", domain=whole(1)),
        "d": Setting(2, "dimension of the inputs", domain=whole(2)),
        "m": Setting(50, "neurons of the student, an even number", domain=whole(2)),
        "h": Setting(0.004, "step size, in units of time", domain=POSITIVE),
        "time": Setting(60.0, "length of the run", domain=POSITIVE),
    },
    sizes=lambda settings: Sizes(*(settings[name] for name in Sizes._fields)),
    simulate=simulate,
    predict=lambda cells, settings, sizes: {},
    outputs={
        "neuron": Output(
            r"$|a_i|\,w_i$",
            dims={"time": lambda s: moments(s["time"]), "student_neuron": numbered("m"), "component": numbered("d")},
        ),
        "inputs": Output("inputs", dims={"sample": numbered("n"), "component": numbered("d")}),
        "teacher": Output("teacher", dims={"teacher_neuron": np.arange(TEACHERS), "component": numbered("d")}),
        "sign": Output("sign of $a$ at the start", dims={"student_neuron": numbered("m")}),
        "teacher_sign": Output("sign of the teacher's $a$", dims={"teacher_neuron": np.arange(TEACHERS)}),
        "imbalance": Output(r"imbalance $\delta_i$ at the end", dims={"student_neuron": numbered("m")}),
        "step": Output(r"change of $\delta_i$ in one step", dims={"student_neuron": numbered("m")}),
    },
    claims=(
        Order(
            "imbalance", "every ReLU neuron conserves its imbalance, up to the step size",
            setting="h", values=(0.02, 0.01, 0.005, 0.0025), order=1, replicates=20,
            axes={"tau": [0.3, 1.0], "delta": [-1.0, 1.0]}, settings={"m": 10, "time": 10.0},
            twins={"the same under Adam": "imbalance_of_adam"},
        ),
        Pathwise(
            "step", "the change of every ReLU neuron in one step is exact", tolerance=1e-12, rounding=30,
            twins={"the outer layer after the inner one": "step_one_after_the_other"},
        ),
    ),
    presets={
        "smoke": {"tau": [0.5], "m": 6, "n": 8, "h": 0.02, "time": 4.0, "replicates": 6, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {"h": 1e-4, "time": 100.0, "replicates": 20},
    },
)  # fmt: skip
