"""Two-layer networks that read digits: how many units vanish or merge, and the exponents of a unit and of a pair."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sims.digits import CLASSES, SIDE, digits
from sims.engine.experiment import (
    BELOW_ONE,
    NONNEGATIVE,
    POSITIVE,
    Experiment,
    Output,
    Parameter,
    Pathwise,
    Rank,
    Setting,
    per_cell,
    whole,
)
from sims.stochastic_collapse.collapse_audit import HeavyBall, Sampling, normal_growth
from sims.stochastic_collapse.invariance import Duplicates, Vanishing, origin
from sims.stochastic_collapse.setup import SOURCE

AXES = (("hidden/kernel", 1), ("hidden/bias", 0), ("out/kernel", 0))
VANISHED, MERGED = 1e-3, 1e-2  # of the largest unit; of the sizes of both


class Sizes(NamedTuple):
    """What a compilation depends on."""

    hidden: int
    batch: int
    probe: int


def outputs(params, x):
    hidden = x @ params["hidden"]["kernel"] + params["hidden"]["bias"][None, :]
    return jax.nn.gelu(hidden, approximate=False) @ params["out"]["kernel"]


def loss(params, batch):
    """Half the squared distance from the one-hot targets."""
    x, y = batch
    return jnp.mean(jnp.sum((outputs(params, x) - y) ** 2, 1)) / 2


def samples():
    """Centered images of shape (1797, 64), and one-hot targets."""
    x = digits().pixels.reshape(-1, SIDE**2)
    return jnp.asarray(x - x.mean(0), float), jax.nn.one_hot(digits().labels, CLASSES, dtype=float)


def initial(key, hidden: int):
    k_in, k_out = jax.random.split(key)
    return {
        "hidden": {"kernel": jax.random.normal(k_in, (SIDE**2, hidden)) / SIDE, "bias": jnp.zeros(hidden)},
        "out": {"kernel": jax.random.normal(k_out, (hidden, CLASSES)) / hidden**0.5},
    }


def train(params, data, optimizer, sampling, key, steps):
    """Parameters after so many steps on minibatches; `steps` may be traced."""

    def step(k, state):
        params, velocity = state
        return optimizer.step(jax.grad(loss)(params, sampling.draw(key, data, k)), params, velocity)

    rest = jax.tree.map(jnp.zeros_like, params)
    return jax.lax.fori_loop(jnp.int32(0), jnp.asarray(steps, jnp.int32), step, (params, rest))[0]


def units(params):
    """All weights of every unit, shape (hidden, weights)."""
    layer = params["hidden"]
    return jnp.concatenate([layer["kernel"].T, layer["bias"][:, None], params["out"]["kernel"]], 1)


def distances(params):
    """(size of every unit, distance of every pair over the sum of their sizes)."""
    theta = units(params)
    size = jnp.linalg.norm(theta, axis=1)
    apart = jnp.linalg.norm(theta[:, None, :] - theta[None, :, :], axis=2)
    return size, apart / jnp.maximum(size[:, None] + size[None, :], jnp.finfo(size.dtype).tiny)


def counts(params):
    """(share of the units that vanished, share of them that are copies of an earlier one that did not)."""
    size, apart = distances(params)
    gone = size < VANISHED * jnp.max(size)
    earlier = jnp.tri(len(size), k=-1, dtype=bool)
    copy = jnp.any(earlier & (apart < MERGED) & ~gone[None, :], 1) & ~gone
    return jnp.mean(gone, dtype=size.dtype), jnp.mean(copy, dtype=size.dtype)


def probe(key, params, invariant_set, data, optimizer, sampling, steps):
    """ln growth of a small perturbation across a set: in training, by the cocycle, and by it on other batches."""
    k_start, k_batches, k_others = jax.random.split(key, 3)
    on = invariant_set.project(params)
    z = jax.random.normal(k_start, origin(invariant_set, on).shape)
    z = z / jnp.linalg.norm(z)
    small = jnp.finfo(z.dtype).eps ** 0.5
    start = invariant_set.move(on, small * z)
    end = train(start, data, optimizer, sampling, k_batches, steps)
    measured = jnp.log(invariant_set.distance(end) / invariant_set.distance(start))
    same, other = (
        normal_growth(loss, on, invariant_set, data, optimizer, sampling, k, steps, z)[0][-1]
        for k in (k_batches, k_others)
    )
    return measured, same, other


def one(key, cell, settings, sizes):
    k_start, k_train, k_unit, k_pair = jax.random.split(key, 4)

    def with_noise(k, batch):
        x, y = batch
        return x, y + cell["label_noise"] * jax.random.normal(k, y.shape, y.dtype)

    data, sampling = samples(), Sampling(sizes.batch, perturb=with_noise)
    optimizer = HeavyBall(cell["learning_rate"], settings["momentum"], cell["weight_decay"])
    steps = jnp.round(settings["time"] / cell["learning_rate"])
    params = train(initial(k_start, sizes.hidden), data, optimizer, sampling, k_train, steps)
    vanished, merged = counts(params)

    size, apart = distances(params)
    smallest = Vanishing(AXES, jnp.argmin(size))
    # Of the units that are left, the two that are most alike.
    left = size >= VANISHED * jnp.max(size)
    apart = jnp.where(left[:, None] & left[None, :] & ~jnp.eye(len(size), dtype=bool), apart, jnp.inf)
    i, j = jnp.unravel_index(jnp.argmin(apart), apart.shape)
    unit, unit_cocycle, unit_other = probe(k_unit, params, smallest, data, optimizer, sampling, sizes.probe)
    pair, pair_cocycle, pair_other = probe(
        k_pair, params, Duplicates(AXES, i, j), data, optimizer, sampling, sizes.probe
    )
    decay = sizes.probe * jnp.log1p(-cell["learning_rate"] * cell["weight_decay"] / (1 - settings["momentum"]))
    right = jnp.argmax(outputs(params, data[0]), 1) == jnp.argmax(data[1], 1)
    return {
        "unit_growth": unit,
        "unit_growth_theory": unit_cocycle,
        "unit_growth_other": unit_other,
        "unit_growth_decay": decay,
        "pair_growth": pair,
        "pair_growth_theory": pair_cocycle,
        "pair_growth_other": pair_other,
        "pair_growth_decay": decay,
        "collapsed": vanished + merged,
        "collapsed_theory": -unit_cocycle / sizes.probe / cell["learning_rate"],
        "collapsed_noise": cell["learning_rate"] * cell["label_noise"] ** 2,
        "vanished": vanished,
        "vanished_theory": jnp.full_like(vanished, jnp.nan),
        "merged": merged,
        "merged_theory": jnp.full_like(merged, jnp.nan),
        "accuracy": jnp.mean(right, dtype=vanished.dtype),
        "accuracy_theory": jnp.full_like(vanished, jnp.nan),
    }


digits_networks = Experiment(
    name="digits",
    title="Networks that read digits: units that vanish or merge",
    sources=(SOURCE,),
    axes={
        "learning_rate": Parameter([0.05, 0.2, 0.4], r"learning rate $\eta$", scale="log", domain=POSITIVE),
        "label_noise": Parameter([0.0, 1.0, 2.0], r"label noise $\zeta$", domain=NONNEGATIVE),
    },
    fixed={"weight_decay": Parameter(0.04, r"weight decay $\lambda$", domain=NONNEGATIVE)},
    settings={
        "hidden": Setting(32, "hidden units", domain=whole(2)),
        "batch": Setting(8, "samples of a minibatch", domain=whole(1)),
        "momentum": Setting(0.0, r"momentum $\beta$", domain=BELOW_ONE),
        "time": Setting(500.0, "learning rate times steps of training", domain=POSITIVE),
        "probe": Setting(300, "steps over which a small perturbation is followed", domain=whole(2)),
    },
    sizes=lambda settings: Sizes(*(settings[name] for name in Sizes._fields)),
    simulate=per_cell(one, one_by_one=True),
    predict=lambda cells, settings, sizes: {},
    outputs={
        "unit_growth": Output("ln growth of a unit that nearly vanishes"),
        "pair_growth": Output("ln growth of the distance of two nearly equal units"),
        "collapsed": Output("share of units that vanished or merged"),
        "vanished": Output("share of units that vanished"),
        "merged": Output("share of units that merged"),
        "accuracy": Output("accuracy on the training data"),
    },
    claims=(
        Pathwise(
            "unit_growth", "a small unit of a trained network grows or dies as its cocycle", tolerance=1e-5,
            rounding=1e6, twins={"other batches": "unit_growth_other", "weight decay alone": "unit_growth_decay"},
        ),
        Pathwise(
            "pair_growth", "two nearly equal units part or merge as their cocycle", tolerance=1e-5, rounding=1e6,
            twins={"other batches": "pair_growth_other", "weight decay alone": "pair_growth_decay"},
        ),
        Rank(
            "collapsed", "where a vanishing unit dies faster, more units have vanished or merged",
            twins={"label noise attracts, as in one dimension": "collapsed_noise"},
        ),
    ),
    presets={
        "smoke": {
            "learning_rate": [0.1, 0.4], "label_noise": [0.0, 1.0], "hidden": 8, "time": 20.0, "probe": 40,
            "replicates": 4,
        },
        "laptop": {"replicates": 20},
        "paper": {
            "learning_rate": [0.025, 0.05, 0.1, 0.2, 0.4], "label_noise": [0.0, 0.5, 1.0, 2.0], "hidden": 64,
            "time": 2000.0, "probe": 1000, "replicates": 40,
        },
    },
)  # fmt: skip
