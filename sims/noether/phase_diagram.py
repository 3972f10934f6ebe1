"""How a network's charge moves under momentum and weight decay: softmax regression, its logit shift, four regimes."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from sims.engine.experiment import (
    BELOW_ONE,
    POSITIVE,
    Experiment,
    Output,
    Parameter,
    Pathwise,
    Setting,
    per_cell,
    whole,
)
from sims.noether.setup import SOURCES, optimizer
from sims.noether.softmax import SHIFT, Sizes, draw, loss
from sims.noether.tracking import track_charges
from theory.noether import damping_boundaries, damping_code, linear_charge, ode_damping_boundary


def measured_recursion(s):
    r"""Memory beta and decay e of :math:`D_{k+1} = \beta D_k - e s_k`, fitted to charges; D_k = s_k - s_{k-1}.

    Least squares over all steps; the first D is 0, for training starts at rest.
    """
    scale = jnp.abs(s[0])
    s = s / scale[None, :]
    D = jnp.diff(s, axis=0, prepend=s[:1])
    now, before, level = D[1:].ravel(), D[:-1].ravel(), s[:-1].ravel()
    columns = jnp.stack([before, -level], 1)
    sizes = jnp.linalg.norm(columns, axis=0)
    sizes = jnp.where(sizes > 0, sizes, 1.0)
    memory, decay = jnp.linalg.lstsq(columns / sizes[None, :], now)[0] / sizes
    return memory, decay


def regime_of_roots(memory, decay):
    """0 to 3: the roots of z^2 - (1 + memory - decay) z + memory: they decay, oscillate, alternate or grow."""
    trace = 1 + memory - decay
    square = trace**2 - 4 * memory
    root = jnp.sqrt(jnp.abs(square))
    largest = jnp.where(square < 0, jnp.sqrt(jnp.abs(memory)), jnp.abs(trace) / 2 + root / 2)
    real = jnp.where(trace < 0, 2, 0)
    return jnp.where(largest > 1, 3, jnp.where(square < 0, 1, real)).astype(trace.dtype)


def one(key, cell, settings, sizes):
    params, batches = draw(key, sizes)
    eta, beta = settings["learning_rate"], cell["momentum"]
    weight_decay = cell["eta_lambda"] / eta
    heavy_ball = optimizer("heavy ball", eta, beta, weight_decay)
    _, _, tracks = track_charges(loss, params, heavy_ball, batches, SHIFT)
    s = jnp.concatenate([track.charge for track in tracks], 1)
    memory, decay = measured_recursion(s)
    # Over the largest of the run: an unstable charge grows by many orders.
    size = jnp.max(jnp.abs(s))
    exact = linear_charge(s[0], sizes.steps, eta, weight_decay, beta)
    return {
        "charge": s / size,
        "charge_theory": exact / size,
        "charge_decoupled": linear_charge(s[0], sizes.steps, eta, weight_decay, beta, decoupled=True) / size,
        "memory": memory,
        "decay": decay,
        "regime": regime_of_roots(memory, decay),
    }


def predict(cells, settings, sizes):
    beta, e = cells["momentum"], cells["eta_lambda"]
    return {"memory": beta, "decay": e, "regime": damping_code(beta, e).astype(beta.dtype)}


def regime_of_the_ode(cells, settings, sizes):
    """Over- and underdamped as the continuous-time equation has it, which knows no other regime."""
    beta, e = cells["momentum"], cells["eta_lambda"]
    return (e > ode_damping_boundary(beta)).astype(beta.dtype)


def without_memory(cells, settings, sizes):
    """The regimes of plain gradient descent."""
    beta, e = cells["momentum"], cells["eta_lambda"]
    return damping_code(jnp.zeros_like(beta), e).astype(beta.dtype)


def off_the_lines(cells, settings):
    """On a boundary itself rounding decides which regime is measured."""
    distances = [np.abs(cells["eta_lambda"] / line - 1) for line in damping_boundaries(cells["momentum"])]
    return np.min(distances, axis=0) > 1e-6


phase_diagram = Experiment(
    name="phase_diagram",
    title="Four regimes of a charge under momentum and weight decay",
    sources=SOURCES,
    axes={
        "momentum": Parameter(np.linspace(0, 0.96, 13), r"momentum $\beta$", domain=BELOW_ONE),
        "eta_lambda": Parameter(
            np.concatenate([np.geomspace(3e-4, 0.6, 11), np.arange(1.0, 4.6, 0.25)]),
            r"learning rate times weight decay $\eta\lambda$", scale="log", domain=POSITIVE,
        ),
    },
    settings={
        "learning_rate": Setting(0.05, r"of the heavy ball", domain=POSITIVE),
        "inputs": Setting(4, "dimension of the inputs", domain=whole(1)),
        "classes": Setting(5, "classes", domain=whole(2)),
        "batch": Setting(16, "samples of a minibatch", domain=whole(1)),
        "steps": Setting(60, "steps of training", domain=whole(8)),
    },
    sizes=lambda settings: Sizes(*(settings[name] for name in Sizes._fields)),
    simulate=per_cell(one),
    predict=predict,
    outputs={
        "charge": Output(
            "charge over its largest",
            dims={"step": lambda s: np.arange(s["steps"] + 1), "unit": lambda s: np.arange(s["inputs"] + 1)},
        ),
        "memory": Output(r"measured memory $\beta$"),
        "decay": Output(r"measured decay $\eta\lambda$"),
        "regime": Output("regime: 0 over-, 1 underdamped, 2 alternating, 3 unstable"),
    },
    claims=(
        Pathwise(
            "regime", "the measured recursion is in the regime of its momentum and weight decay", tolerance=1e-12,
            where=off_the_lines,
            twins={"of the continuous-time equation": regime_of_the_ode, "without memory": without_memory},
        ),
        Pathwise(
            "charge", "the charge follows its recursion", tolerance=1e-11, rounding=1e4,
            twins={"decoupled weight decay": "charge_decoupled"},
        ),
    ),
    presets={
        "smoke": {
            "momentum": [0.0, 0.8], "eta_lambda": [0.005, 0.5, 5.0], "steps": 30, "replicates": 4,
        },
        "laptop": {"replicates": 20},
        "paper": {
            "momentum": np.linspace(0, 0.99, 67), "eta_lambda": np.geomspace(1e-4, 6, 64), "steps": 300,
            "replicates": 100,
        },
    },
)  # fmt: skip
