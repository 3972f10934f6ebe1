"""ReLU networks on more and more samples, against gradient descent on infinitely many."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

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
from sims.lazy_rich.relu import Student, distance, draw, scaled, train
from sims.lazy_rich.setup import PARAMETERS, SOURCE, rates
from theory.lazy_rich import relu_population_flow


class Sizes(NamedTuple):
    """What a compilation depends on."""

    n: int
    d: int
    m: int


def one(task, student, cell, settings, d: int):
    """How far the weights end from those of the population, as a share of how far these moved."""
    start = scaled(student, cell["tau"], cell["delta"], rates(cell))
    h, steps = settings["h"], settings["steps"].reshape(1)
    end = jax.tree.map(lambda x: x[0], train(task, start, h, steps, **rates(cell)))

    def population(q):
        W, a = relu_population_flow(*start, task.V, task.a_star, h, steps, q, **rates(cell))
        return Student(W[0], a[0])

    limit = population(1 / d)
    moved = distance(start, limit)
    return {
        "distance": distance(end, limit) / moved,
        "distance_theory": jnp.zeros_like(moved),
        "distance_of_gaussian_inputs": distance(population(1.0), limit) / moved,
    }


def simulate(key, cells, settings, sizes):
    task, student = draw(key, sizes.n, 1, sizes.d, sizes.m)
    return cell_by_cell(jax.vmap(lambda cell: one(task, student, cell, settings, sizes.d)), in_columns(cells))


population = Experiment(
    name="population",
    title="ReLU networks on many samples against infinitely many",
    sources=(SOURCE,),
    axes={
        "tau": Parameter([0.3, 1.0], PARAMETERS["tau"].label, scale="log", domain=POSITIVE),
        "delta": Parameter([-0.3, 0.0, 0.3], PARAMETERS["delta"].label),
    },
    fixed={name: PARAMETERS[name] for name in ("eta_a", "eta_w")},
    settings={
        "n": Setting(2000, "samples", domain=whole(1)),
        "d": Setting(10, "dimension of the inputs", domain=whole(2)),
        "m": Setting(10, "neurons of the student, an even number", domain=whole(2)),
        "h": Setting(0.02, "step size, in units of time", domain=POSITIVE),
        "steps": Setting(1000, "steps of gradient descent", domain=whole(1)),
    },
    sizes=lambda settings: Sizes(*(settings[name] for name in Sizes._fields)),
    simulate=simulate,
    predict=lambda cells, settings, sizes: {},
    outputs={"distance": Output("distance to the population's weights, over that moved")},
    claims=(
        Order(
            "distance", "ReLU networks follow the population's flow, up to the root of the samples",
            setting="n", values=(250, 1000, 4000, 16000), order=-0.5, replicates=20,
            axes={"tau": [0.3, 1.0], "delta": [-0.3, 0.3]}, settings={"steps": 500},
            twins={"inputs of unit variance, q = 1": "distance_of_gaussian_inputs"},
        ),
    ),
    presets={
        "smoke": {"n": 100, "d": 4, "m": 4, "steps": 100, "replicates": 6, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {"n": 64000, "d": 100, "m": 50, "replicates": 20},
    },
)  # fmt: skip
