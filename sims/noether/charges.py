"""Charges of real networks that learn to read digits, step by step, under five optimizers."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sims.digits import batches
from sims.engine.experiment import (
    BELOW_ONE,
    NONNEGATIVE,
    POSITIVE,
    Bound,
    Domain,
    Experiment,
    Output,
    Parameter,
    Setting,
    per_cell,
    whole,
)
from sims.noether.networks import NETWORKS, families, network
from sims.noether.setup import OPTIMIZERS, SOURCES, law_of, optimizer
from sims.noether.tracking import Track, law_sources, terms_of, track_charges
from theory.noether import predict_charge

MOST_FAMILIES = 8
UNITS, MOMENTS = 6, 26
ADAM_SHARE = 0.02  # of the learning rate of the others
WRONG = ("double_counted", "coupled", "without_memory")
ADAMW = OPTIMIZERS.index("AdamW")


def one_of(names: tuple[str, ...]) -> Domain:
    """The positions in a list of names."""
    words = ", ".join(f"{i} ({name})" for i, name in enumerate(names))
    return Domain(f"one of {words}", lambda x: np.isin(x, np.arange(len(names))))


class Sizes(NamedTuple):
    """What a compilation depends on."""

    network: str
    batch: int
    steps: int


def hyper_of(name: str, cell, settings):
    """Learning rate, momentum and weight decay of one of `OPTIMIZERS`."""
    rate = settings["learning_rate"] * (ADAM_SHARE if name == "AdamW" else 1.0)
    return rate, settings["momentum"], cell["weight_decay"]


def any_optimizer(index, cell, settings) -> optax.GradientTransformation:
    """The optimizer of a traced index: all share one compilation, and keep their states side by side."""
    every = [optimizer(name, *hyper_of(name, cell, settings)) for name in OPTIMIZERS]

    def update(g, states, params):
        def with_optimizer(i):
            def branch(g, states, params):
                change, state = every[i].update(g, states[i], params)
                return change, (*states[:i], state, *states[i + 1 :])

            return branch

        return jax.lax.switch(index, [with_optimizer(i) for i in range(len(every))], g, states, params)

    return optax.GradientTransformation(lambda params: tuple(tx.init(params) for tx in every), update)


def predictions(name: str, track: Track, linear: bool, cell, settings):
    """(law, and the wrong laws in the order of `WRONG`, nan where they do not apply) of all charges of one kind."""
    law = law_of(name, *hyper_of(name, cell, settings))
    sources = law_sources(track, law)

    def predicted(law, sources=sources):
        return predict_charge(track.charge[0], sources, law, steps=len(track.step), linear=linear)

    def wrong(twin):
        if twin == "double_counted" and name == "SGD":
            # The gradient of loss and decay together as the source: the decay is counted twice.
            return predicted(law, sources._replace(gradient=track.gradient + law.weight_decay**2 * track.charge[:-1]))
        if twin == "coupled" and name == "decoupled decay":
            return predicted(law._replace(decoupled=False))
        if twin == "without_memory" and name == "heavy ball":
            return predicted(law._replace(momentum=0.0))
        return jnp.full_like(track.charge, jnp.nan)

    return predicted(law), *(wrong(twin) for twin in WRONG)


def together(tracks, chosen) -> Track:
    """The charges of some families side by side, shapes (steps, all their units)."""
    return jax.tree.map(lambda *x: jnp.concatenate([y.reshape(len(y), -1) for y in x], 1), *(tracks[i] for i in chosen))


def apart(values, tracks, chosen):
    """The columns of each family of what `together` put side by side."""
    widths = [tracks[i].charge[0].size for i in chosen]
    return dict(zip(chosen, jnp.split(values, np.cumsum(widths)[:-1], axis=1), strict=True))


def some_units(charges):
    """A few columns."""
    return jnp.take(charges, jnp.linspace(0, charges.shape[1] - 1, UNITS).round().astype(jnp.int32), axis=1)


def padded(values):
    """Stacked over families, with nan where a network has fewer."""
    return jnp.stack([*values, *[jnp.full_like(values[0], jnp.nan)] * (MOST_FAMILIES - len(values))])


def one(key, cell, settings, sizes):
    k_start, k_batches = jax.random.split(key)
    start, loss = network(sizes.network)
    params, known = start(k_start), families(sizes.network)
    index = cell["optimizer"].astype(jnp.int32)
    data = batches(k_batches, sizes.steps, sizes.batch)
    _, losses, tracks = track_charges(loss, params, any_optimizer(index, cell, settings), data, known)

    laws = [{} for _ in range(1 + len(WRONG))]
    for linear in (True, False):
        chosen = [i for i, family in enumerate(known) if (family.kind == "translation") == linear]
        track = together(tracks, chosen)
        branches = [
            lambda track, name=name, linear=linear: predictions(name, track, linear, cell, settings)
            for name in OPTIMIZERS
        ]
        for found, values in zip(laws, jax.lax.switch(index, branches, track), strict=True):
            found |= apart(values, tracks, chosen)
    charges = [track.charge.reshape(sizes.steps + 1, -1) for track in tracks]
    changes = [jnp.diff(track.charge, axis=0) for track in tracks]
    firsts = [(1 if f.kind == "translation" else 2) * track.work for f, track in zip(known, tracks, strict=True)]
    scale = [terms_of(family, params) for family in known]

    def largest(gaps):
        # A maximum of nan alone comes out as -inf on a CPU.
        tops = [jnp.where(jnp.isnan(gap).any(), jnp.nan, jnp.max(jnp.abs(gap))) for gap in gaps]
        return padded([top / size for top, size in zip(tops, scale, strict=True)])

    order = range(len(known))
    deviations = [largest([charges[i] - law[i] for i in order]) for law in laws]
    moments = jnp.round(jnp.linspace(0.0, sizes.steps, MOMENTS)).astype(jnp.int32)
    zero = padded([jnp.zeros(())] * len(known))
    return {
        "loss": losses,
        "loss_theory": jnp.full_like(losses, jnp.nan),
        "deviation": deviations[0],
        "deviation_theory": zero,
        **{f"deviation_{name}": values for name, values in zip(WRONG, deviations[1:], strict=True)},
        "gap": largest([changes[i] - (firsts[i] + tracks[i].step) for i in order]),
        "gap_theory": zero,
        "gap_without_finite_step": largest([changes[i] - firsts[i] for i in order]),
        "charge": padded([some_units(charges[i][moments]) for i in order]),
        "charge_theory": padded([some_units(laws[0][i][moments]) for i in order]),
    }


def follows_a_law(cells, settings):
    return cells["optimizer"] != ADAMW


FAMILY = {"family": np.arange(MOST_FAMILIES)}

charges = Experiment(
    name="charges",
    title="Charges of networks that learn to read, step by step",
    sources=SOURCES,
    axes={
        "network": Parameter([0, 1, 2], "network", domain=one_of(NETWORKS), role="static"),
        "optimizer": Parameter([0, 1, 2, 3, 4], "optimizer", domain=one_of(OPTIMIZERS)),
        "weight_decay": Parameter([0.0, 0.01], r"weight decay $\lambda$", domain=NONNEGATIVE),
    },
    settings={
        "learning_rate": Setting(0.05, "learning rate; a fiftieth of it for AdamW", domain=POSITIVE),
        "momentum": Setting(0.9, "momentum", domain=BELOW_ONE),
        "batch": Setting(16, "images of a minibatch", domain=whole(2)),
        "steps": Setting(60, "steps of training", domain=whole(2)),
    },
    sizes=lambda s: Sizes(NETWORKS[int(s["network"])], s["batch"], s["steps"]),
    simulate=per_cell(one, one_by_one=True),
    predict=lambda cells, settings, sizes: {},
    outputs={
        "loss": Output("loss", unit="nats", dims={"step": lambda s: np.arange(s["steps"])}),
        "deviation": Output("largest deviation from the law, over the terms", dims=FAMILY),
        "gap": Output("largest gap in the budget, over the terms", dims=FAMILY),
        "charge": Output(
            "charge",
            dims=FAMILY | {
                "moment": lambda s: np.round(np.linspace(0, s["steps"], MOMENTS)), "unit": np.arange(UNITS)
            },
        ),
    },
    claims=(
        Bound(
            "deviation", "every charge follows the exact law of its optimizer", upper=1e-12, where=follows_a_law,
            rounding=30,
            twins={
                "the decayed gradient as source": "deviation_double_counted",
                "the coupled law for decoupled decay": "deviation_coupled",
                "without memory": "deviation_without_memory",
            },
        ),
        Bound(
            "gap", "the budget of every charge closes under every optimizer", upper=1e-13, rounding=30,
            twins={"without the finite step": "gap_without_finite_step"},
        ),
    ),
    presets={
        "smoke": {
            "network": [0], "optimizer": [0, 1, 3], "weight_decay": [0.01], "steps": 10, "batch": 8, "replicates": 2,
        },
        "laptop": {"replicates": 20},
        "paper": {"weight_decay": [0.0, 1e-4, 1e-3, 1e-2], "steps": 10_000, "batch": 256, "replicates": 20},
    },
)  # fmt: skip
