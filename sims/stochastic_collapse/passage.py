"""First passages of the quartic double well towards its saddle: their mean in every phase, and how late a step is."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from sims.engine.experiment import (
    POSITIVE,
    Experiment,
    Mean,
    Order,
    Output,
    Parameter,
    Setting,
    per_cell,
    whole,
)
from sims.stochastic_collapse.quartic_steps import descent, splitting
from sims.stochastic_collapse.setup import SOURCE
from theory.stochastic_collapse import mean_first_passage


def one(key, cell, settings, sizes):
    mu, zeta, dt = cell["mu"], cell["zeta"], settings["dt"]
    level, exponent = jnp.log(settings["eps"]), mu - zeta**2 / 2
    decided = exponent < -(zeta**2) / 10

    def going(carry):
        k, x, *_ = carry
        return (k < settings["most"]) & jnp.any(x > level)

    def step(carry):
        k, x, known, count = carry
        dW = jnp.sqrt(dt) * jax.random.normal(jax.random.fold_in(key, k), x.shape)
        above = x > level
        # How much sooner this noise alone brings a path down: of mean zero and, in a deep collapse, most of the spread.
        slope = jnp.where(decided, exponent, -1.0) - 2 * jnp.exp(2 * x)
        sooner = jnp.where(decided & above, zeta / slope * dW, 0.0)
        x = jnp.where(above, splitting(x, mu, zeta, dt, dW), x)
        return k + 1, x, known + sooner, count + above.astype(count.dtype)

    start = descent(jnp.full(sizes, jnp.log(settings["start"])), dt / 2)
    zero = jnp.zeros_like(start)
    _, x, known, count = jax.lax.while_loop(going, step, (jnp.int32(0), start, zero, zero))
    controlled = jnp.mean(dt * count + known)
    return {
        "passage": jnp.mean(dt * count),
        "passage_as_seen": controlled,
        "passage_corrected": controlled,
        "status": jnp.where(jnp.any(x > level), 1, 0),
    }


def predict(cells, settings, sizes):
    seen, at_every_time = (after(unchanged, **how)(cells, settings, sizes) for how in ({}, {"seen_every": 0.0}))
    return {"passage": seen, "passage_as_seen": at_every_time, "passage_corrected": seen}


def after(change, **how):
    """The mean first passage after a change of (mu, zeta), seen at every step."""

    def formula(cells, settings, sizes):
        model = change(cells["mu"], cells["zeta"])
        return mean_first_passage(settings["eps"], settings["start"], *model, **{"seen_every": settings["dt"], **how})

    return formula


def unchanged(mu, zeta):
    return mu, zeta


def half_the_overshoot(cells, settings, sizes):
    return after(unchanged, seen_every=settings["dt"] / 4)(cells, settings, sizes)


def stratonovich(mu, zeta):
    """Without the drift that Ito's convention has in ln |theta|."""
    return mu + zeta**2 / 2, zeta


def half_the_noise(mu, zeta):
    """sqrt(D) dW for sqrt(2 D) dW."""
    return mu, zeta / 2**0.5


def ballistic(cells, settings, sizes):
    """ln(start / eps) / |Lambda|, the leading term of a collapse."""
    exponent = jnp.abs(cells["mu"] - cells["zeta"] ** 2 / 2)
    return jnp.log(settings["start"] / settings["eps"]) / exponent


def fits(values, settings):
    if settings["eps"] >= settings["start"]:
        raise ValueError(f"`eps` must be below `start`, but got {settings['eps']:g}.")


LADDER = {
    "setting": "dt", "replicates": 20, "axes": {"zeta": [2.2, 2.6]}, "settings": {"eps": 0.01, "paths": 8192},
}  # fmt: skip

TWINS = {"Stratonovich": stratonovich, "sqrt(D) dW": half_the_noise}

passage = Experiment(
    name="passage",
    title="Mean first passage of the quartic double well to its saddle",
    sources=(SOURCE,),
    axes={"zeta": Parameter([1.1, 1.25, 2**0.5, 1.6, 2.0], r"noise $\zeta$", domain=POSITIVE)},
    fixed={"mu": Parameter(1.0, r"curvature of the saddle $\mu$")},
    settings={
        "dt": Setting(0.02, "time step", domain=POSITIVE),
        "eps": Setting(0.05, "distance from 0 at which a path has passed", domain=POSITIVE),
        "start": Setting(1.0, "distance from 0 at the start", domain=POSITIVE),
        "paths": Setting(1000, "paths in a replicate", domain=whole(2)),
        "most": Setting(1_000_000, "steps after which a path is given up", domain=whole(1)),
    },
    sizes=lambda settings: (settings["paths"],),
    validate=fits,
    simulate=per_cell(one, one_by_one=True),
    predict=predict,
    outputs={
        "passage": Output("mean first passage time"),
        "passage_as_seen": Output("mean first passage time, as seen"),
        "passage_corrected": Output("mean first passage time, corrected"),
    },
    claims=(
        Mean(
            "passage", "the mean first passage is the double integral, seen at discrete times",
            twins={
                "seen at every time": after(unchanged, seen_every=0.0),
                "the leading term of a collapse": ballistic,
                **{name: after(change) for name, change in TWINS.items()},
            },
        ),
        Order(
            "passage_as_seen", "steps see a passage late, to order one half", values=(0.08, 0.04, 0.02, 0.01),
            order=0.5, twins={name: after(change, seen_every=0.0) for name, change in TWINS.items()}, **LADDER,
        ),
        Order(
            "passage_corrected", "with the overshoot of a Gaussian walk it holds to first order",
            values=(0.16, 0.08, 0.04, 0.02), order=1,
            twins={
                "without the overshoot": after(unchanged, seen_every=0.0),
                "half the overshoot": half_the_overshoot,
                **{name: after(change) for name, change in TWINS.items()},
            }, **LADDER,
        ),
    ),
    presets={
        "smoke": {"zeta": [2**0.5, 1.6, 2.0], "paths": 50, "replicates": 6, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {"zeta": np.linspace(1.0, 2.5, 16), "dt": 0.001, "paths": 10_000, "replicates": 50},
    },
)  # fmt: skip
