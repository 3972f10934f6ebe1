"""Wide linear networks, not aligned with their task: funnels, squares and inverted funnels."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sims.descent import gradient_descent_path
from sims.engine.experiment import POSITIVE, Domain, Experiment, Order, Output, Parameter, per_cell
from sims.lazy_rich.setup import PARAMETERS, SOURCE, STEP, rates
from theory.lazy_rich import kernel_distance, layer_strengths, matrix_flow, wide_ntk_matrix

TIMES = (0.5, 1.0, 2.0, 5.0, 10.0)
SHAPES = {"funnel": (8, 2, 2), "square": (4, 4, 4), "inverted funnel": (2, 2, 8)}
COMPOSED_STEPS = 24


class Network(NamedTuple):
    """f = A^T W x."""

    W: jax.Array
    A: jax.Array

    @property
    def beta(self):
        return self.W.T @ self.A


def orthonormal(key, rows: int, columns: int):
    """Uniform orthonormal columns."""
    Q, R = jnp.linalg.qr(jax.random.normal(key, (rows, columns)))
    return Q * jnp.sign(jnp.diagonal(R))[None, :]


def start(key, cell, delta, shape) -> Network:
    r"""Layers with :math:`\eta_w A A^\top - \eta_a W W^\top = \delta I` and all singular values of beta equal tau^2."""
    d, h, c = shape
    keys = jax.random.split(key, 3)
    U, V_w, V_a = (orthonormal(k, rows, h) for k, rows in zip(keys, (h, d, c), strict=True))
    outer, inner = layer_strengths(cell["tau"] ** 2, delta, **rates(cell))
    return Network(jnp.sqrt(inner / cell["eta_a"]) * U @ V_w.T, jnp.sqrt(outer / cell["eta_w"]) * U @ V_a.T)


def kernel(params: Network, cell):
    """Neural tangent kernel on whitened data, by automatic differentiation."""
    J = jax.jacobian(lambda p: p.beta.ravel())(params)
    W, A = (x.reshape(len(x), -1) for x in J)
    return cell["eta_w"] * W @ W.T + cell["eta_a"] * A @ A.T


def one(key, cell, settings, sizes):
    shape = sizes
    d, h, c = shape
    k_start, k_goal = jax.random.split(key)
    goal = jax.random.normal(k_goal, (d, c))
    goal = goal / jnp.linalg.norm(goal, 2)
    params, balanced = (start(k_start, cell, delta, shape) for delta in (cell["delta"], 0.0 * cell["delta"]))
    steps = jnp.round(jnp.array(TIMES) / settings["h"])
    times = steps * settings["h"]

    def loss(p):
        return jnp.sum((p.beta - goal) ** 2) / 2

    rate = Network(settings["h"] * cell["eta_w"], settings["h"] * cell["eta_a"])
    path = gradient_descent_path(loss, params, rate, steps)
    exact, twin = (matrix_flow(times, *p, goal, COMPOSED_STEPS, **rates(cell)) for p in (params, balanced))

    def measures(beta0, beta, delta):
        M0, M = (wide_ntk_matrix(b, delta, h, **rates(cell)) for b in (beta0, beta))
        return jnp.sum((beta - goal) ** 2) / 2, kernel_distance(M0, M)

    theory, of_twin = (
        jax.vmap(lambda b, p=p, delta=delta: measures(p.beta, b, delta))(betas)
        for p, betas, delta in ((params, exact, cell["delta"]), (balanced, twin, 0.0 * cell["delta"]))
    )
    K0 = kernel(params, cell)
    return {
        "loss": jax.vmap(loss)(path),
        "loss_theory": theory[0],
        "loss_balanced": of_twin[0],
        "kernel_distance": jax.vmap(lambda p: kernel_distance(K0, kernel(p, cell)))(path),
        "kernel_distance_theory": theory[1],
        "kernel_distance_balanced": of_twin[1],
    }


LADDER = {
    "setting": "h", "values": (0.04, 0.02, 0.01, 0.005), "order": 1, "replicates": 80,
    "axes": {"delta": [-2.0, 2.0], "shape": [0, 2]},
}  # fmt: skip


wide = Experiment(
    name="wide",
    title="Wide linear networks from lazy to rich",
    sources=(SOURCE,),
    axes={
        "shape": Parameter(
            [0, 1, 2], "funnel, square, inverted funnel", role="static",
            domain=Domain("0, 1 or 2", lambda x: np.isin(x, (0, 1, 2))),
        ),
        "delta": Parameter(np.array([-8.0, -4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0, 8.0]), PARAMETERS["delta"].label),
    },
    fixed={
        "tau": Parameter(0.05**0.5, PARAMETERS["tau"].label, domain=POSITIVE),
        **{name: PARAMETERS[name] for name in ("eta_a", "eta_w")},
    },
    settings={"h": STEP},
    sizes=lambda settings: tuple(SHAPES.values())[int(settings["shape"])],
    simulate=per_cell(one),
    predict=lambda cells, settings, sizes: {},
    outputs={
        "loss": Output("loss", dims={"time": TIMES}),
        "kernel_distance": Output(r"kernel distance $S(0,t)$", dims={"time": TIMES}),
    },
    claims=(
        Order(
            "loss", "gradient descent follows the exact matrix flow, up to its step size",
            twins={"balanced layers": "loss_balanced"}, **LADDER,
        ),
        Order(
            "kernel_distance", "the kernel distance is exact, up to the step size",
            twins={"balanced layers": "kernel_distance_balanced"}, **LADDER,
        ),
    ),
    presets={
        "smoke": {"shape": [0], "delta": [-1.0, 1.0], "h": 0.05, "replicates": 6, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {"delta": np.linspace(-8, 8, 33), "h": 0.0025, "replicates": 100},
    },
)  # fmt: skip
