"""A scalar neuron as the paper simulates it: the SDE of its label noise, collapsed fractions and end points."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sims.engine.experiment import (
    NONNEGATIVE,
    POSITIVE,
    Experiment,
    Output,
    Parameter,
    Phase,
    Setting,
    per_cell,
    whole,
)
from sims.stochastic_collapse.neuron import collapsed, draw, start, walk
from sims.stochastic_collapse.setup import SOURCE
from theory.stochastic_collapse import neuron_threshold

SHARES = (1 / 6, 1 / 2, 1.0)  # of the whole time: 100, 300 and 600 in the paper
CLOSE = 1e-2  # distance from the origin at which the paper counts a path as collapsed
BAND, CROSSING = 0.25, 0.1  # about the threshold: where this time decides nothing, and where the curves cross


class Sizes(NamedTuple):
    """What a compilation depends on."""

    samples: int
    paths: int


def one(key, cell, settings, sizes):
    k_data, k_start, k_noise = jax.random.split(key, 3)
    data, dt = draw(k_data, sizes.samples), settings["dt"]
    begin = start(k_start, sizes.paths)
    strength = cell["zeta"] * jnp.sqrt(cell["eta"] * dt)

    def until(carry, share):
        state, before = carry
        last = jnp.round(share * settings["time"] / dt).astype(jnp.int32)
        state = walk(k_noise, state, data, dt, strength, before, last)
        return (state, last), jnp.mean((state.log < jnp.log(CLOSE)).astype(dt.dtype))

    (end, _), fraction = jax.lax.scan(until, (begin, jnp.int32(0)), jnp.array(SHARES, dt.dtype))
    noise, threshold = cell["eta"] * cell["zeta"] ** 2 / 2, neuron_threshold(*data)
    above = noise > threshold
    points = (jnp.exp(end.log)[None, :] * end.direction).T
    return {
        "fraction": fraction,
        "fraction_theory": jnp.where(above, jnp.ones_like(fraction), 0.0),
        "end": points,
        "end_theory": jnp.where(above, jnp.zeros_like(points), jnp.nan),
        "change": fraction[-1] - fraction[0],
        "change_theory": noise - threshold,
        "fallen": jnp.mean(collapsed(end).astype(dt.dtype)) - 0.5,
        "fallen_theory": noise - threshold,
    }


def twice_the_threshold(cells, settings, sizes):
    return cells["eta"] * cells["zeta"] ** 2 / 2 - 2


def never(cells, settings, sizes):
    return jnp.full_like(cells["eta"], -1.0)


def farther_than(band):
    """Cells farther from the threshold, which is 1 for inputs of mean square one and targets y = x + 0.1 xi."""
    return lambda cells, settings: abs(cells["eta"] * cells["zeta"] ** 2 / 2 - 1) > band


TWINS = {
    "noise sqrt(D) dW for sqrt(2 D) dW": twice_the_threshold,
    "growth of the mean square, or Stratonovich": never,
}


neuron_noise = Experiment(
    name="neuron_noise",
    title="A scalar neuron in the SDE of its label noise",
    sources=(SOURCE,),
    axes={"eta": Parameter(np.linspace(0.3, 4.5, 29), r"noise $\eta$ of the SDE", domain=POSITIVE)},
    fixed={"zeta": Parameter(1.0, r"label noise $\zeta$", domain=NONNEGATIVE)},
    settings={
        "samples": Setting(16, "samples", domain=whole(2)),
        "paths": Setting(32, "neurons of a replicate", domain=whole(1)),
        "time": Setting(300.0, "time of a path", domain=POSITIVE),
        "dt": Setting(0.02, "time step", domain=POSITIVE),
    },
    sizes=lambda settings: Sizes(settings["samples"], settings["paths"]),
    simulate=per_cell(one),
    predict=lambda cells, settings, sizes: {},
    outputs={
        "fraction": Output(
            r"collapsed fraction, $|w| < 10^{-2}$", dims={"time": lambda s: s["time"] * np.array(SHARES)}
        ),
        "end": Output("end point", dims={"path": lambda s: np.arange(s["paths"]), "weight": [1, 2]}),
        "change": Output("change of the collapsed fraction"),
        "fallen": Output(r"share of paths whose $|w|$ fell by $e^7$, less one half"),
    },
    claims=(
        Phase(
            "change", "the collapsed fraction rises in time above the threshold and falls below", twins=TWINS,
            where=farther_than(CROSSING),
        ),
        Phase(
            "fallen", "most paths fall for good above the threshold, and few below", share=1.0, twins=TWINS,
            where=farther_than(BAND),
        ),
    ),
    presets={
        "smoke": {"eta": [0.5, 1.0, 3.0, 4.0], "samples": 8, "paths": 8, "time": 100.0, "dt": 0.04, "replicates": 4},
        "laptop": {"replicates": 20},
        "paper": {
            "eta": np.linspace(0.08, 4.0, 50), "samples": 32, "paths": 1000, "time": 600.0, "dt": 0.01,
            "replicates": 20,
        },
    },
    block=256,
)  # fmt: skip
