"""Deep linear chains with fewer samples than dimensions: which interpolator, at which depth."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from sims.descent import gradient_descent
from sims.engine.experiment import POSITIVE, Experiment, Order, Output, Parameter, Setting, per_cell, whole
from sims.lazy_rich.setup import PARAMETERS, SOURCE, STEP, rates
from theory.lazy_rich import deep_interpolator, deep_params_from_beta, interpolator, params_from_beta

WIDTH = 3


def chain(w, a, depth: int, key):
    """Full matrices of rank one: the first layer u w^T, then `depth` mutually balanced ones of gain a."""
    ends = [jax.random.normal(k, (WIDTH,)) for k in jax.random.split(key, depth)]
    ends = [u / jnp.linalg.norm(u) for u in ends] + [jnp.ones(1)]
    return [jnp.outer(ends[0], w), *(a * jnp.outer(ends[i + 1], ends[i]) for i in range(depth))]


def product(layers):
    """beta of the chain."""
    beta = layers[0]
    for W in layers[1:]:
        beta = W @ beta
    return beta[0]


def one(key, cell, settings, sizes):
    d, depth = sizes
    k_start, k_chain = jax.random.split(key)
    seen, unseen = jnp.eye(d)[0], jnp.eye(d)[1]
    across, towards = jax.random.uniform(k_start, (2,), minval=0.3, maxval=1.0)
    beta0 = cell["tau"] ** 2 * (towards * seen + across * unseen)
    w0, a0 = deep_params_from_beta(beta0, cell["delta"], depth, **rates(cell))
    h = settings["h"]
    rate = [h * cell["eta_w"], *(h * cell["eta_a"] for _ in range(depth))]
    steps = jnp.round(settings["time"] / h)
    end = gradient_descent(lambda p: (product(p) @ seen - 1) ** 2 / 2, chain(w0, a0, depth, k_chain), rate, steps)
    X, y, plane = seen[None, :], jnp.ones(1), jnp.array([0, 1])
    shallow = params_from_beta(beta0, cell["delta"], **rates(cell))
    balanced = deep_params_from_beta(beta0, 0.0 * cell["delta"], depth, **rates(cell))
    return {
        "beta": product(end)[plane],
        "beta_theory": deep_interpolator(X, y, w0, a0, depth, **rates(cell)).beta[plane],
        "beta_shallow": interpolator(X, y, *shallow, **rates(cell)).beta[plane],
        "beta_balanced": deep_interpolator(X, y, *balanced, depth, **rates(cell)).beta[plane],
    }


deep = Experiment(
    name="deep",
    title="Which interpolator an unbalanced deep chain finds",
    sources=(SOURCE,),
    axes={
        "depth": Parameter([1, 2, 3], "layers after the first $L$", domain=whole(1), role="static"),
        "delta": Parameter(np.array([-2.0, -1.0, -0.3, 0.0, 0.3, 1.0, 2.0]), PARAMETERS["delta"].label),
    },
    fixed={
        "tau": Parameter(0.7, PARAMETERS["tau"].label, domain=POSITIVE),
        **{name: PARAMETERS[name] for name in ("eta_a", "eta_w")},
    },
    settings={
        "h": STEP,
        "time": Setting(20.0, "time of the run", domain=POSITIVE),
        "d": Setting(3, "dimension", domain=whole(2)),
    },
    sizes=lambda settings: (settings["d"], int(settings["depth"])),
    simulate=per_cell(one),
    predict=lambda cells, settings, sizes: {},
    outputs={"beta": Output(r"interpolator $\beta_\infty$, along and across the sample", dims={"component": [1, 2]})},
    claims=(
        Order(
            "beta", "a deep chain finds the interpolator of its depth and imbalance, up to the step size",
            setting="h", values=(0.08, 0.04, 0.02, 0.01), order=1, replicates=20,
            axes={"depth": [2, 3], "delta": [-0.5, 0.5]},
            twins={"that of a single neuron": "beta_shallow", "that of balanced layers": "beta_balanced"},
        ),
    ),
    presets={
        "smoke": {"depth": [2], "delta": [-0.5, 0.5], "h": 0.05, "replicates": 6, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {"depth": [1, 2, 3, 5], "delta": np.linspace(-2, 2, 17), "h": 0.0025, "replicates": 100},
    },
)  # fmt: skip
