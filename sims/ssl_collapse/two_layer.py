"""When two layers learn their modes: the escape from the origin, ranks that are a matter of time, and what each holds.

Both layers are trained by gradient descent on the spectral loss of infinitely many pairs.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from sims.descent import gradient_descent, gradient_descent_path, gradient_flow
from sims.engine.experiment import POSITIVE, Experiment, Order, Output, Parameter, Pathwise, Setting, per_cell
from sims.ssl_collapse.layers import (
    AUGMENTATION,
    CLEAN,
    KAPPA,
    MODES,
    aligned,
    covariances,
    draw_basis,
    gaussian,
    halfway,
    hidden_grams,
    modes,
    population_loss,
    product,
    strengths,
)
from sims.ssl_collapse.setup import JING, SOURCE
from theory.ssl_collapse import (
    representation_strength,
    two_layer_apparent_rank,
    two_layer_escape_time,
    two_layer_time,
    two_layer_trajectory,
)

MOMENTS = 24
SPREAD = 0.2


def logistic(p0, rate, b, sigma, t):
    """A single layer from p0, or both with all but one frozen at sqrt(rate): p^2 is logistic."""
    limit2 = b / (2 * KAPPA * sigma**2)
    return jnp.sqrt(limit2 / (1 + (limit2 / p0**2 - 1) * jnp.exp(-4 * b * rate * t)))


def crossing(loss, params, step, steps, observe, level):
    """Time at which each observed number crossed `level` under the gradient flow, followed by Runge-Kutta steps."""

    def ahead(k, carry):
        params, p, time = carry
        params = gradient_flow(loss, params, step, 1)
        now = observe(params)
        return params, now, jnp.minimum(time, step * halfway(now, p, level, k.astype(p.dtype)))

    p = observe(params)
    start = (params, p, jnp.full_like(p, jnp.inf))
    return jax.lax.fori_loop(jnp.int32(0), jnp.asarray(steps, jnp.int32), ahead, start)[2]


def one(key, cell, settings, sizes):
    k_basis, k_start, k_random = jax.random.split(key, 3)
    b, sigma = modes(cell["noise"])
    limit = jnp.sqrt(b / (2 * KAPPA)) / sigma
    basis = draw_basis(k_basis)
    A0, Sigma = covariances(basis, cell["noise"])
    eta, ratio = settings["learning_rate"], cell["ratio"]

    # W1 starts `ratio` times as strong as W2.
    p0 = settings["p0"] * jnp.exp(SPREAD * jax.random.uniform(k_start, b.shape, minval=-1.0, maxval=1.0))
    delta = p0 * (ratio - 1 / ratio)
    params = aligned(basis, (jnp.sqrt(p0 * ratio), jnp.sqrt(p0 / ratio)))

    def loss(layers):
        return population_loss(layers, A0, Sigma, jnp.zeros_like(eta))

    halves = two_layer_time(limit / 2, p0, b, sigma, KAPPA, delta)
    between = jnp.concatenate([halves[:1] / 1.3, jnp.sqrt(halves[:-1] * halves[1:]), 1.3 * halves[-1:]])
    moments = 1.3 * halves[-1] * jnp.arange(MOMENTS + 1).astype(eta.dtype) / MOMENTS
    counts = jnp.round(jnp.concatenate([between, moments]) / eta).astype(jnp.int32)
    t = eta * counts.astype(eta.dtype)

    def p(layers):
        return strengths(product(layers), basis)

    order = jnp.argsort(counts)
    rising = gradient_descent_path(loss, params, eta, counts[order])
    path = jax.tree.map(lambda w: w[jnp.argsort(order)], rising)
    seen = jax.vmap(p)(path)
    ranks, seen, at_ranks, times = seen[: len(between)], seen[len(between) :], t[: len(between)], t[len(between) :]
    step = settings["step"]
    escape = crossing(loss, params, step, jnp.ceil(1.3 * halves[-1] / step), p, limit / 2)

    imbalances = jnp.stack([delta, jnp.zeros_like(delta)])[:, None, :]
    columns = tuple(x[None, None, :] for x in (p0, b, sigma))
    exact, even = two_layer_trajectory(times[None, :, None], *columns, KAPPA, imbalances)
    alone = 4 * b * p0
    logarithmic = jnp.log(limit / p0) / (2 * b)
    last = representation_strength(exact[-1], delta)
    return {
        "trajectory": seen / limit[None, :],
        "trajectory_theory": exact / limit[None, :],
        "trajectory_balanced": even / limit[None, :],
        "trajectory_frozen": logistic(p0[None, :], (p0 * ratio)[None, :], b[None, :], sigma[None, :], times[:, None])
        / limit[None, :],
        "trajectory_single": logistic(p0[None, :], 1.0, b[None, :], sigma[None, :], times[:, None]) / limit[None, :],
        "escape": escape * alone,
        "escape_theory": two_layer_escape_time(b, p0, delta) * alone,
        "escape_single": logarithmic * alone,
        "rank": jnp.sum(ranks > limit[None, :] / 2, axis=1).astype(eta.dtype),
        "rank_theory": two_layer_apparent_rank(
            at_ranks, p0[None, :], b[None, :], sigma[None, :], KAPPA, delta[None, :]
        ).astype(eta.dtype),
        "rank_single": jnp.sum(logarithmic[None, :] <= at_ranks[:, None], axis=1).astype(eta.dtype),
        "representation": strengths(path[0][-1], basis),
        "representation_theory": last,
        "representation_balanced": jnp.sqrt(exact[-1]),
        "representation_swapped": representation_strength(exact[-1], -delta),
        "misalignment": misalignment(loss, k_random, settings),
        "status": jnp.where(jnp.all(jnp.isfinite(escape)), 0, 1),
    }


def misalignment(loss, key, settings):
    """1 - cos between W1 W1^T and W2^T W2 after training from independent Gaussian layers."""
    scale, eta = settings["scale"], settings["learning_rate"]
    steps = jnp.round(1 / (scale**2 * eta)).astype(jnp.int32)
    first, second = hidden_grams(gradient_descent(loss, gaussian(key, 2, scale), eta, steps))
    gap = first / jnp.linalg.norm(first) - second / jnp.linalg.norm(second)
    return jnp.sum(gap**2) / 2


def predict(cells, settings, sizes):
    """Layers that started alike have one Gram matrix; the rest depends on the start that was drawn."""
    return {"misalignment": jnp.zeros_like(cells["ratio"])}


def hyperbolic(cells, settings, sizes):
    """1 / 4 b p0, for layers of any imbalance."""
    return jnp.broadcast_to(jnp.ones_like(cells["ratio"])[:, None], (len(cells["ratio"]), len(CLEAN)))


def everything(cells, settings, sizes):
    """The rank of the minimum."""
    return jnp.full((len(cells["ratio"]), len(CLEAN) + 1), float(len(CLEAN)))


def fits(values, settings):
    b, sigma = modes(values["noise"])
    most = float(jnp.min(jnp.sqrt(b / (2 * KAPPA)) / sigma)) / 2 * np.exp(-SPREAD)
    if settings["p0"] >= most:
        start = "for every mode to start below half of its limit"
        raise ValueError(f"`p0` must be below {most:.3g}, {start}, but got {settings['p0']:g}.")


STEPS = {"setting": "learning_rate", "values": (0.04, 0.02, 0.01, 0.005), "order": 1, "replicates": 20}

two_layer = Experiment(
    name="two_layer",
    title="Two layers: hyperbolic escape, apparent rank, alignment",
    sources=(SOURCE, JING),
    axes={"ratio": Parameter([0.25, 1.0, 3.0, 8.0], r"layers at the start $\sigma_1/\sigma_2$", scale="log",
                             domain=POSITIVE)},
    fixed=AUGMENTATION,
    settings={
        "p0": Setting(0.03, "geometric mean of the modes' products at the start", domain=POSITIVE),
        "scale": Setting(0.25, "standard deviation of the Gaussian layers", domain=POSITIVE),
        "learning_rate": Setting(0.01, "learning rate", domain=POSITIVE),
        "step": Setting(0.02, "time of a Runge-Kutta step on the way to escape", domain=POSITIVE),
    },
    simulate=per_cell(one),
    predict=predict,
    validate=fits,
    outputs={
        "trajectory": Output(r"$p(t)/p_\infty$", dims={"moment": np.arange(MOMENTS + 1) / MOMENTS, **MODES}),
        "escape": Output(r"time to $p_\infty/2$, times $4bp_0$", dims=MODES),
        "rank": Output("apparent rank", dims={"learned": [0, 1, 2, 3]}),
        "representation": Output(r"singular value of $W_1$", dims=MODES),
        "misalignment": Output(r"$1-\cos(W_1W_1^\top, W_2^\top W_2)$"),
    },
    claims=(
        Order(
            "trajectory", "modes of two layers follow the closed form, balanced or not", **STEPS,
            settings={"scale": 0.25},
            twins={
                "balanced layers": "trajectory_balanced", "one layer trained": "trajectory_frozen",
                "a single layer": "trajectory_single",
            },
        ),
        Order(
            "representation", "the first layer holds the root of the product", **STEPS, settings={"scale": 0.25},
            twins={"balanced layers": "representation_balanced", "the other layer": "representation_swapped"},
        ),
        Order(
            "escape", "the time to escape is asinh(a / p0) / 4 a b, to first order in p0", setting="p0",
            values=(0.04, 0.02, 0.01, 0.005), order=1, replicates=20, axes={"ratio": [1.0, 3.0]},
            settings={"learning_rate": 0.02},
            twins={"hyperbolic at any imbalance": hyperbolic, "logarithmic, as of one layer": "escape_single"},
        ),
        Order(
            "misalignment", "small layers align, to fourth order in their scale", setting="scale",
            values=(0.14, 0.1, 0.07, 0.05), order=4, replicates=20, axes={"ratio": [1.0]},
            settings={"p0": 0.1, "learning_rate": 0.02},
        ),
        Pathwise(
            "rank", "modes look collapsed until their own time has come", tolerance=1e-6,
            twins={"the rank of the minimum": everything, "the times of a single layer": "rank_single"},
        ),
    ),
    presets={
        "smoke": {"ratio": [1.0, 4.0], "p0": 0.05, "learning_rate": 0.02, "replicates": 4, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {
            "ratio": np.geomspace(0.05, 20, 21), "p0": 0.01, "scale": 0.1, "learning_rate": 0.005, "replicates": 100,
        },
    },
)  # fmt: skip
