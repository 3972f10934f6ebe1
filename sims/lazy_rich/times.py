"""How long a linear neuron takes to turn towards the solution, and to grow to it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from sims.descent import gradient_step
from sims.engine.experiment import POSITIVE, Experiment, Order, Output, Parameter, Setting, per_cell, whole
from sims.lazy_rich.setup import (
    PARAMETERS,
    SOURCE,
    STEP,
    Neuron,
    half_squares,
    learning_rate,
    neuron_at,
    rates,
)
from theory.lazy_rich import alignment_time, fitting_time

ALIGNED_START = 0.05


def first_time(measure, target, start: Neuron, loss, h, cell, most):
    """Time at which `measure` of the weights passes `target`, between two steps by a straight line."""

    def unfinished(state):
        _, _, now, count = state
        return (now < target) & (count < most)

    def step(state):
        params, _, now, count = state
        params = gradient_step(loss, params, learning_rate(h, cell))
        return params, now, measure(params), count + 1

    _, before, now, count = jax.lax.while_loop(unfinished, step, (start, measure(start), measure(start), 0))
    whole_steps = (count - 1).astype(h.dtype)
    return jnp.where(now >= target, h * (whole_steps + (target - before) / (now - before)), jnp.nan)


def one(key, cell, settings, sizes):
    d, h, most = sizes, settings["h"], settings["most_steps"]
    beta_star, across = jnp.eye(d)[0], jnp.eye(d)[1]
    phi, mu = jax.random.uniform(key, (2,), minval=jnp.array([0.4, 0.5]), maxval=jnp.array([0.9, 0.95]))
    orthogonal = neuron_at(cell["tau"] ** 2 * across, cell)
    aligned = neuron_at(ALIGNED_START * beta_star, cell)

    def loss(p):
        return half_squares(p, jnp.eye(d), beta_star)

    def cosine(p):
        return p.w[0] / jnp.linalg.norm(p.w)

    def length(p):
        return p.a * jnp.linalg.norm(p.w)

    balanced = neuron_at(cell["tau"] ** 2 * across, {**cell, "delta": 0.0 * cell["delta"]})
    zero = jnp.zeros(())
    return {
        "alignment_time": first_time(cosine, phi, orthogonal, loss, h, cell, most),
        "alignment_time_theory": alignment_time(phi, jnp.linalg.norm(orthogonal.w), orthogonal.a, 1.0, **rates(cell)),
        "alignment_time_balanced": alignment_time(phi, jnp.linalg.norm(balanced.w), balanced.a, 1.0, **rates(cell)),
        "fitting_time": first_time(length, mu, aligned, loss, h, cell, most),
        "fitting_time_theory": fitting_time(mu, ALIGNED_START, 1.0, cell["delta"], **rates(cell)),
        "fitting_time_balanced": fitting_time(mu, ALIGNED_START, 1.0, zero, **rates(cell)),
    }


LADDER = {
    "setting": "h", "values": (0.04, 0.02, 0.01, 0.005), "order": 1, "replicates": 20,
    "axes": {"delta": [-3.0, -1.0, 1.0, 3.0]},
}  # fmt: skip

times = Experiment(
    name="times",
    title="Times to align and to fit",
    sources=(SOURCE,),
    axes={"delta": Parameter(np.array([-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0]), PARAMETERS["delta"].label)},
    fixed={
        "tau": Parameter(0.7, PARAMETERS["tau"].label, domain=POSITIVE),
        **{name: PARAMETERS[name] for name in ("eta_a", "eta_w")},
    },
    settings={
        "h": STEP,
        "most_steps": Setting(1_000_000, "steps after which a run is given up", domain=whole(1)),
        "d": Setting(2, "dimension", domain=whole(2)),
    },
    sizes=lambda settings: settings["d"],
    simulate=per_cell(one),
    predict=lambda cells, settings, sizes: {},
    outputs={
        "alignment_time": Output("time to align with the solution"),
        "fitting_time": Output("time to grow to the solution"),
    },
    claims=(
        Order(
            "alignment_time", "the time to align is exact, up to the step size",
            twins={"that of a balanced neuron": "alignment_time_balanced"}, **LADDER,
        ),
        Order(
            "fitting_time", "the time to fit is exact, up to the step size",
            twins={"that of a balanced neuron": "fitting_time_balanced"}, **LADDER,
        ),
    ),
    presets={
        "smoke": {"delta": [-1.0, 1.0], "h": 0.05, "replicates": 6, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {"delta": np.linspace(-8, 8, 33), "h": 0.001, "replicates": 100},
    },
)  # fmt: skip
