"""What training does to the conserved quantity: one step exactly, a whole run, minibatches, weight decay."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sims.descent import gradient_descent, gradient_step
from sims.engine.experiment import (
    NONNEGATIVE,
    Experiment,
    Mean,
    Order,
    Output,
    Parameter,
    Pathwise,
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
    imbalance,
    learning_rate,
    neuron_at,
    rates,
)
from theory.lazy_rich import (
    conserved_drift,
    conserved_sgd_step,
    conserved_step,
    decayed_conserved_quantity,
    gradient_flow,
    gradient_noise,
)

TIME = 6.0
SAMPLES = 12
LARGE_STEP = 0.1


class Sizes(NamedTuple):
    """What a compilation depends on."""

    d: int
    batch: int
    draws: int


def without_turning(T, start, beta_star, cell):
    """The drift over h without the term along w: only minus eta_w a^2 |v|^2."""
    t = jnp.linspace(0.0, 1.0, 4001) ** 2 * T
    w, a = gradient_flow(t, *start, beta_star, **rates(cell))
    v = beta_star[None, :] - a[:, None] * w
    return -cell["eta_a"] * cell["eta_w"] * jnp.trapezoid(cell["eta_w"] * a**2 * jnp.sum(v**2, -1), t)


def one(key, cell, settings, sizes):
    h, d = settings["h"], sizes.d
    k_start, k_data, k_batch = jax.random.split(key, 3)
    beta_star, start_at = goal_and_start(k_start, d)
    start = neuron_at(cell["tau"] ** 2 * start_at, cell)
    delta, rate = imbalance(start, cell), learning_rate(h, cell)

    # Whitened data: a whole run.
    steps = jnp.round(TIME / h)
    end = gradient_descent(lambda p: half_squares(p, jnp.eye(d), beta_star), start, rate, steps)
    drift = conserved_drift(1.0, steps * h, *start, beta_star, **rates(cell))

    # Any data: one step.
    X = jax.random.normal(k_data, (SAMPLES, d)) / SAMPLES**0.5
    y = X @ beta_star + 0.5 * jax.random.normal(jax.random.fold_in(k_data, 1), (SAMPLES,)) / SAMPLES**0.5
    large = learning_rate(LARGE_STEP, cell)
    v = -jax.grad(lambda beta: jnp.sum((X @ beta - y) ** 2) / 2)(start.a * start.w)
    once = gradient_step(lambda p: half_squares(p, X, y), start, large)
    late_a = start.a + large.a * jnp.dot(once.w, v)

    def minibatch(key):
        rows = jax.random.randint(key, (sizes.batch,), 0, SAMPLES)
        X_b, y_b = X[rows], y[rows]
        return gradient_step(lambda p: half_squares(p, X_b, y_b) * SAMPLES / sizes.batch, start, large)

    batches = jax.vmap(lambda i: minibatch(jax.random.fold_in(k_batch, i)))(jnp.arange(sizes.draws))

    def decayed(p):
        return half_squares(p, jnp.eye(d), beta_star) + settings["weight_decay"] * (jnp.sum(p.w**2) + p.a**2) / 2

    # Gradient descent of the common rate of both layers.
    same = {**cell, "eta_a": jnp.ones(()), "eta_w": jnp.ones(())}
    balanced = neuron_at(cell["tau"] ** 2 * start_at, same)
    kept = gradient_descent(decayed, balanced, Neuron(h, h), steps)
    exact_step = conserved_step(*start, v, LARGE_STEP, **rates(cell))
    other = cell["eta_w"] * start.a**2 + cell["eta_a"] * jnp.sum(start.w**2)
    return {
        "imbalance": imbalance(end, cell),
        "imbalance_theory": delta,
        "imbalance_other_sign": other - 2 * cell["eta_a"] * jnp.sum(end.w**2),
        "drift": (imbalance(end, cell) - delta) / h,
        "drift_theory": drift,
        "drift_without_turning": without_turning(steps * h, start, beta_star, cell),
        "step": imbalance(once, cell) - delta,
        "step_theory": exact_step,
        "step_one_after_the_other": cell["eta_w"] * late_a**2 - cell["eta_a"] * jnp.sum(once.w**2) - delta,
        "minibatch": jnp.mean(imbalance(batches, cell)) - delta,
        "minibatch_theory": conserved_sgd_step(
            *start, *gradient_noise(start.a * start.w, X, y), sizes.batch, LARGE_STEP, **rates(cell)
        ),
        "minibatch_without_noise": exact_step,
        "decayed": imbalance(kept, same),
        "decayed_theory": decayed_conserved_quantity(steps * h, cell["delta"], settings["weight_decay"]),
        "decayed_half": decayed_conserved_quantity(steps * h / 2, cell["delta"], settings["weight_decay"]),
    }


LADDER = {
    "setting": "h", "values": (0.08, 0.04, 0.02, 0.01), "order": 1, "replicates": 80,
    "axes": {"delta": [-2.0, -0.5, 0.5, 2.0]}, "settings": {"draws": 1, "tau": 0.5},
}  # fmt: skip

conservation = Experiment(
    name="conservation",
    title="The conserved quantity of a linear neuron, and what breaks it",
    sources=(SOURCE,),
    axes={"delta": Parameter(np.array([-4.0, -2.0, -1.0, -0.5, 0.5, 1.0, 2.0, 4.0]), PARAMETERS["delta"].label)},
    fixed={
        "tau": PARAMETERS["tau"],
        "eta_a": Parameter(0.7, PARAMETERS["eta_a"].label, domain=PARAMETERS["eta_a"].domain),
        "eta_w": Parameter(1.2, PARAMETERS["eta_w"].label, domain=PARAMETERS["eta_w"].domain),
    },
    settings={
        "h": STEP,
        "d": Setting(3, "dimension", domain=whole(2)),
        "batch": Setting(2, "samples of a minibatch, drawn with replacement", domain=whole(1)),
        "draws": Setting(1000, "minibatches that a replicate averages", domain=whole(1)),
        "weight_decay": Setting(0.1, "coefficient of half the squared weights", domain=NONNEGATIVE),
    },
    sizes=lambda settings: Sizes(settings["d"], settings["batch"], settings["draws"]),
    simulate=per_cell(one),
    predict=lambda cells, settings, sizes: {},
    outputs={
        "imbalance": Output(r"imbalance $\delta$ at the end"),
        "drift": Output(r"drift of $\delta$ over the step size"),
        "step": Output(r"change of $\delta$ in one step"),
        "minibatch": Output(r"mean change of $\delta$ in one minibatch step"),
        "decayed": Output(r"imbalance $\delta$ under weight decay"),
    },
    claims=(
        Order(
            "imbalance", "the imbalance is conserved, up to the step size",
            twins={"the sum in place of the difference": "imbalance_other_sign"}, **LADDER,
        ),
        Order(
            "drift", "a run drifts by its predicted rate, up to the step size",
            twins={"without the term along w": "drift_without_turning"}, **LADDER,
        ),
        Pathwise(
            "step", "the change in one step is exact", tolerance=1e-12, rounding=30,
            twins={"the outer layer after the inner one": "step_one_after_the_other"},
        ),
        Mean(
            "minibatch", "the mean change in a minibatch step is exact", rounding=30,
            twins={"without the noise of the gradients": "minibatch_without_noise"},
        ),
        Order(
            "decayed", "weight decay erases the imbalance exponentially, up to the step size",
            twins={"half the rate": "decayed_half"}, **LADDER,
        ),
    ),
    presets={
        "smoke": {"delta": [-1.0, 1.0], "h": 0.05, "draws": 20, "replicates": 6, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {"delta": np.linspace(-4, 4, 32), "h": 0.0025, "draws": 10_000, "replicates": 100},
    },
)  # fmt: skip
