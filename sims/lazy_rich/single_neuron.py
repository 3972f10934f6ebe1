"""A linear neuron on whitened data, trained by gradient descent in its weights, against its exact trajectory."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from sims.descent import gradient_descent_path
from sims.engine.experiment import Experiment, Order, Output, Parameter, Setting, per_cell, whole
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
from theory.lazy_rich import gradient_flow, kernel_distance, ntk_matrix

TIMES = (0.5, 1.0, 2.0, 4.0, 8.0)


def kernel(params: Neuron, cell):
    """Neural tangent kernel on whitened data: the Jacobian of a w, by automatic differentiation, times itself."""
    J = jax.jacobian(lambda p: p.a * p.w)(params)
    return cell["eta_w"] * J.w @ J.w.T + cell["eta_a"] * J.a[:, None] * J.a[None, :]


def kernel_with_the_first_outer_weight(start: Neuron, now: Neuron):
    """The distance with 2 a_0^2 |w_t|^2 in the norm of the kernel at t, an error in circulation; at unit rates."""
    d, inner = len(start.w), jnp.sum(now.w**2)
    product = jnp.sum(
        (start.a**2 * jnp.eye(d) + jnp.outer(start.w, start.w)) * (now.a**2 * jnp.eye(d) + jnp.outer(now.w, now.w))
    )
    first = d * start.a**4 + 2 * start.a**2 * jnp.sum(start.w**2) + jnp.sum(start.w**2) ** 2
    return 1 - product / jnp.sqrt(first * (d * now.a**4 + 2 * start.a**2 * inner + inner**2))


def one(key, cell, settings, sizes):
    d, steps = sizes, jnp.round(jnp.array(TIMES) / settings["h"])
    times = steps * settings["h"]  # those that whole steps reach
    beta_star, start_at = goal_and_start(key, d)
    beta0 = cell["tau"] ** 2 * start_at
    start, balanced = (neuron_at(beta0, {**cell, "delta": delta}) for delta in (cell["delta"], 0.0 * cell["delta"]))
    path = gradient_descent_path(
        lambda p: half_squares(p, jnp.eye(d), beta_star),
        start,
        learning_rate(settings["h"], cell),
        steps,
    )
    exact = Neuron(*gradient_flow(times, *start, beta_star, **rates(cell)))
    twin = Neuron(*gradient_flow(times, *balanced, beta_star, **rates(cell)))
    K0 = kernel(start, cell)
    M0, M = (ntk_matrix(beta, cell["delta"], **rates(cell)) for beta in (beta0, exact.a[:, None] * exact.w))
    return {
        "beta": path.a[:, None] * path.w,
        "beta_theory": exact.a[:, None] * exact.w,
        "beta_balanced": twin.a[:, None] * twin.w,
        "kernel_distance": jax.vmap(lambda p: kernel_distance(K0, kernel(p, cell)))(path),
        "kernel_distance_theory": kernel_distance(jnp.broadcast_to(M0, M.shape), M),
        "kernel_distance_misprint": jax.vmap(lambda p: kernel_with_the_first_outer_weight(start, p))(exact),
    }


LADDER = {
    "setting": "h", "values": (0.08, 0.04, 0.02, 0.01), "order": 1, "replicates": 20,
    "axes": {"delta": [-4.0, -1.0, 1.0, 4.0]},
}  # fmt: skip

single_neuron = Experiment(
    name="single_neuron",
    title="A linear neuron from lazy to rich",
    sources=(SOURCE,),
    axes={"delta": Parameter(np.array([-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0]), PARAMETERS["delta"].label)},
    fixed={name: PARAMETERS[name] for name in ("tau", "eta_a", "eta_w")},
    settings={"h": STEP, "d": Setting(3, "dimension", domain=whole(2))},
    sizes=lambda settings: settings["d"],
    simulate=per_cell(one),
    predict=lambda cells, settings, sizes: {},
    outputs={
        "beta": Output(
            r"product $\beta=aw$", dims={"time": TIMES, "component": lambda s: np.arange(1, s["d"] + 1)}
        ),
        "kernel_distance": Output(r"kernel distance $S(0,t)$", dims={"time": TIMES}),
    },
    claims=(
        Order(
            "beta", "gradient descent follows the exact flow, up to its step size",
            twins={"the balanced formula": "beta_balanced"}, **LADDER,
        ),
        Order(
            "kernel_distance", "the kernel distance is exact, up to the step size",
            twins={"2 a_0^2 |w_t|^2 in the norm": "kernel_distance_misprint"}, **LADDER,
        ),
    ),
    presets={
        "smoke": {"delta": [-1.0, 0.0, 1.0], "h": 0.05, "replicates": 6, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {"delta": np.linspace(-4, 4, 33), "h": 0.0025, "replicates": 100},
    },
)  # fmt: skip
