"""Local displacement of a real network: a small MLP that reads digits, from the minimum that it was trained to."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sims.digits import CLASSES, SIDE, digits
from sims.engine.experiment import (
    BELOW_ONE,
    POSITIVE,
    Experiment,
    Order,
    Output,
    Parameter,
    Rank,
    Setting,
    per_cell,
    whole,
)
from sims.sgd_limit.heavy_ball import heavy_ball
from sims.sgd_limit.setup import SOURCE


class Sizes(NamedTuple):
    """What a compilation depends on."""

    samples: int
    hidden: int
    training: int
    burn_in: int
    steps: int
    largest_batch: int
    paths: int


def sizes(settings) -> Sizes:
    long = {name: settings[name] * settings["refine"] for name in ("burn_in", "steps")}
    return Sizes(*(int({**settings, **long}[name]) for name in Sizes._fields))


class Mlp(NamedTuple):
    """Weights and biases of two layers."""

    W: jax.Array
    b: jax.Array
    V: jax.Array
    c: jax.Array


def draw(key, sizes: Sizes):
    """A network, and samples of the digits with their labels."""
    k_W, k_V, k_rows = jax.random.split(key, 3)
    images = digits()
    rows = jax.random.choice(k_rows, len(images.labels), (sizes.samples,), replace=False)
    X = jnp.asarray(images.pixels, float).reshape(-1, SIDE**2)[rows]
    W = jax.random.normal(k_W, (SIDE**2, sizes.hidden)) / SIDE
    V = jax.random.normal(k_V, (sizes.hidden, CLASSES)) / sizes.hidden**0.5
    return Mlp(W, jnp.zeros(sizes.hidden), V, jnp.zeros(CLASSES)), X, jnp.asarray(images.labels)[rows]


def losses(net: Mlp, X, labels):
    """Cross-entropy of every sample."""
    logits = jnp.tanh(X @ net.W + net.b[None, :]) @ net.V + net.c[None, :]
    of_label = jnp.sum(jax.nn.one_hot(labels, CLASSES, dtype=logits.dtype) * logits, 1)
    return jax.nn.logsumexp(logits, 1) - of_label


def square(tree):
    """Sum of all squares."""
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree))


def objective(net, X, labels, weights, decay):
    """Weighted loss with weight decay."""
    return jnp.sum(weights * losses(net, X, labels)) + decay * square(net) / 2


def converged(net, X, labels, decay, steps: int):
    """The network after full-batch descent with momentum: at its minimum."""
    equal = jnp.full(len(X), 1 / len(X))

    def step(_, state):
        gradient = jax.grad(objective)(state[0], X, labels, equal, decay)
        return move(*state, gradient, 0.2, 0.9)

    return jax.lax.fori_loop(0, steps, step, (net, jax.tree.map(jnp.zeros_like, net)))[0]


def move(net, w, gradient, eta, beta):
    """`heavy_ball` on every part of the network."""
    both = [heavy_ball(*parts, eta, beta) for parts in zip(net, w, gradient, strict=True)]
    return tuple(Mlp(*parts) for parts in zip(*both, strict=True))


def noise(net, X, labels):
    """Trace of the covariance of one sample's gradient."""
    each = jax.vmap(jax.grad(lambda net, x, label: losses(net, x[None, :], label[None])[0]), (None, 0, 0))
    return sum(jnp.sum(jnp.var(g, 0)) for g in each(net, X, labels))


def simulate(key, cells, settings, sizes):
    k_net, k_batches = jax.random.split(key)
    net, X, labels = draw(k_net, sizes)
    net = converged(net, X, labels, settings["decay"], sizes.training)
    trace = noise(net, X, labels)

    def one(key, cell, settings, sizes):
        eta, beta = cell["eta"] / settings["refine"].astype(cell["eta"].dtype), cell["beta"]
        # The first S of a larger batch are a batch of S.
        weights = jnp.where(jnp.arange(sizes.largest_batch, dtype=float) < cell["batch"], 1 / cell["batch"], 0.0)

        def path(key):
            def step(state, k):
                rows = jax.random.randint(jax.random.fold_in(key, k), (sizes.largest_batch,), 0, len(X))
                gradient = jax.grad(objective)(state[0], X[rows], labels[rows], weights, settings["decay"])
                state = move(*state, gradient, eta, beta)
                return state, square(state[1])

            start = net, jax.tree.map(jnp.zeros_like, net)
            k = jnp.arange(sizes.burn_in + sizes.steps, dtype=jnp.int32)
            return jnp.mean(jax.lax.scan(step, start, k)[1][sizes.burn_in :])

        local = jnp.mean(jax.vmap(path)(jax.random.split(key, sizes.paths)))
        leading = eta**2 * trace / (cell["batch"] * (1 - beta**2))
        return {
            "local": local,
            "local_theory": leading,
            "local_without_momentum": leading * (1 - beta**2),
            "local_temperature": eta / (cell["batch"] * (1 - beta)),
            "ratio": leading / local,
            "ratio_theory": jnp.ones_like(local),
            "ratio_diffusion": (1 - beta) / (1 + beta),
        }

    return per_cell(one, one_by_one=True)(k_batches, cells, settings, sizes)


def fits(values, settings):
    if max(values["batch"]) > settings["largest_batch"]:
        raise ValueError(
            f"`batch` must be at most largest_batch = {settings['largest_batch']}, but got {max(values['batch']):g}."
        )


network = Experiment(
    name="network",
    title="Local displacement of a network that reads digits",
    sources=(SOURCE,),
    axes={
        "eta": Parameter([0.003, 0.01, 0.03], r"learning rate $\eta$", scale="log", domain=POSITIVE),
        "batch": Parameter([4, 16, 64], r"batch $S$", scale="log", domain=whole(1)),
        "beta": Parameter([0.0, 0.8, 0.95], r"momentum $\beta$", domain=BELOW_ONE),
    },
    settings={
        "samples": Setting(200, "samples of the data set", domain=whole(2)),
        "hidden": Setting(8, "hidden units", domain=whole(1)),
        "decay": Setting(0.01, "weight decay", domain=POSITIVE),
        "training": Setting(1500, "steps of full-batch descent before", domain=whole(1)),
        "burn_in": Setting(100, "steps before anything is measured", domain=whole(0)),
        "steps": Setting(200, "steps over which is averaged", domain=whole(1)),
        "largest_batch": Setting(64, "the largest batch", domain=whole(1)),
        "paths": Setting(1, "paths averaged in a replicate", domain=whole(1)),
        "refine": Setting(1, "divides the learning rates and multiplies the steps", domain=whole(1)),
    },
    sizes=sizes,
    simulate=simulate,
    predict=lambda cells, settings, sizes: {},
    validate=fits,
    outputs={
        "local": Output(r"displacement in one step $E|\delta|^2$"),
        "ratio": Output(r"$\eta^2\,\mathrm{tr}\Sigma\,/\,S(1-\beta^2)$ over the displacement"),
    },
    claims=(
        Rank(
            "local", "one step goes as eta^2 / (S (1 - beta^2))", least=0.9,
            twins={"eta^2 / S": "local_without_momentum", "eta / (S (1 - beta))": "local_temperature"},
        ),
        Order(
            "ratio", "with the noise at the minimum it is right to relative order eta", setting="refine",
            values=(1, 2, 4, 8), order=-1, replicates=20, axes={"eta": [0.05], "batch": [16], "beta": [0.8]},
            settings={"burn_in": 400, "steps": 800, "largest_batch": 16, "paths": 4},
            twins={"diffusion": "ratio_diffusion"},
        ),
    ),
    presets={
        "smoke": {
            "eta": [0.01, 0.03], "batch": [4, 16], "beta": [0.0, 0.9], "samples": 60, "hidden": 4, "training": 300,
            "burn_in": 40, "steps": 60, "largest_batch": 16, "replicates": 4, "ladders": False,
        },
        "laptop": {"replicates": 20},
        "paper": {
            "eta": [0.001, 0.003, 0.01, 0.03], "batch": [32, 128, 512], "beta": [0.0, 0.8, 0.9, 0.95, 0.99],
            "samples": 1797, "hidden": 64, "training": 20_000, "burn_in": 1000, "steps": 5000, "largest_batch": 512,
            "replicates": 20,
        },
    },
)  # fmt: skip
