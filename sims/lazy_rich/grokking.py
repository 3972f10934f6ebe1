r"""Grokking: how soon a quadratic network generalizes modular addition, by the balance between its layers.

.. math:: f = A\,(W [e_a; e_b])^2, \qquad W \propto \alpha, \quad A \propto \alpha^{-2}, \qquad
    \delta = 2 \|a_i\|^2 - \|w_i\|^2 = \frac{2p}{h^2 \alpha^4} - \alpha^2 \ \text{on average}

at p numbers and h neurons: one function at the start for every alpha, and an imbalance that grows as alpha falls.
Gradient flow conserves delta (the activation is homogeneous of degree 2); weight decay shrinks it. The theory orders
the networks, and gives no time: the further upstream (the larger delta), the sooner the test set should be right.
The default alphas start with about the same norm of the weights at both ends, so the norm orders them otherwise.

Measured (laptop size, seed 5): 2450 steps or more at alpha = 1.15, 1500 at 0.41, 1790 at 0.29, 1490 at 0.145, with
balance at 0.32: the order is a tendency, of rank correlation 0.45, and the norm has none (-0.03). It depends on the
size: with ``--p 17 --width 100 --checks 160 --replicates 20 --seed 3`` the norm orders the times (0.89) and the
imbalance does not (0.07). The delay from a fitted training set to a right test set follows the norm at either size.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sims.descent import gradient_descent_path
from sims.engine.experiment import NONNEGATIVE, POSITIVE, Domain, Experiment, Output, Parameter, Rank, Setting, whole
from sims.lazy_rich.setup import SOURCE
from theory.arguments import require
from theory.lazy_rich import conserved_quantity

DEGREE = 2
RIGHT = 0.95
SHARE = Domain("above 0 and below 1", lambda x: (x > 0) & (x < 1))


class Sizes(NamedTuple):
    """What a compilation depends on."""

    p: int
    width: int
    train: int
    checks: int
    together: int


class Network(NamedTuple):
    """Weights W (width, 2p) and A (p, width)."""

    W: jax.Array
    A: jax.Array


class Pairs(NamedTuple):
    """Pairs (a, b) as the columns of [e_a; e_b], and their sums modulo p."""

    X: jax.Array
    sums: jax.Array


def training_pairs(p: int, share: float) -> int:
    return round(share * p**2)


def sizes(settings) -> Sizes:
    train = training_pairs(settings["p"], settings["share"])
    return Sizes(settings["p"], settings["width"], train, settings["checks"], settings["together"])


def draw_pairs(key, sizes: Sizes, dtype=float) -> tuple[Pairs, Pairs]:
    """All pairs in random order: those of the training set, and the rest."""
    p = sizes.p
    a, b = jnp.divmod(jax.random.permutation(key, p**2), p)
    X = jnp.concatenate([jax.nn.one_hot(number, p, dtype=dtype, axis=0) for number in (a, b)])
    parts = (slice(sizes.train), slice(sizes.train, None))
    return tuple(Pairs(X[:, part], ((a + b) % p)[part]) for part in parts)


def draw_network(key, sizes: Sizes, dtype=float) -> Network:
    """The network at alpha = 1."""
    p, width = sizes.p, sizes.width
    k_W, k_A = jax.random.split(key)
    W = jax.random.normal(k_W, (width, 2 * p), dtype) / (2 * p) ** 0.5
    return Network(W, jax.random.normal(k_A, (p, width), dtype) / width)


def rescaled(network: Network, alpha) -> Network:
    """The same function with the inner weights alpha times as large."""
    return Network(alpha * network.W, network.A / alpha**DEGREE)


def outputs(network: Network, X):
    return network.A @ (network.W @ X) ** DEGREE


def loss(network: Network, pairs: Pairs):
    """Squared error, summed over outputs, of the centred one-hot sums; mean over pairs."""
    p = len(network.A)
    target = jax.nn.one_hot(pairs.sums, p, dtype=network.A.dtype, axis=0) - 1 / p
    return jnp.mean(jnp.sum((outputs(network, pairs.X) - target) ** 2, axis=0))


def decayed_loss(network: Network, pairs: Pairs, weight_decay):
    """With half the squared norm of the weights, whose gradient is coupled weight decay."""
    return loss(network, pairs) + weight_decay / 2 * sum(jnp.sum(x**2) for x in network)


def accuracy(network: Network, pairs: Pairs):
    return jnp.mean(jnp.argmax(outputs(network, pairs.X), axis=0) == pairs.sums, dtype=network.A.dtype)


def first_right(accuracies, checkpoints):
    """The first checkpoint above 95 %; one check after the last where there is none.

    A time that the run was too short to see is later than all that it saw, which is what an order needs to know; as a
    number it is a lower bound, and the accuracy at the end tells it.
    """
    above = accuracies > RIGHT
    later = checkpoints[-1] + checkpoints[0]
    return jnp.where(jnp.any(above), checkpoints[jnp.argmax(above)], later).astype(accuracies.dtype)


def simulate(key, cells, settings, sizes):
    """All cells start from the same normal numbers and share the training set."""
    k_network, k_pairs = jax.random.split(key)
    dtype = cells["alpha"].dtype
    network, (train, test) = draw_network(k_network, sizes, dtype), draw_pairs(k_pairs, sizes, dtype)
    checkpoints = settings["every"] * jnp.arange(1, sizes.checks + 1, dtype=jnp.int32)

    def descend(alpha):
        def decayed(network):
            return decayed_loss(network, train, settings["weight_decay"])

        path = gradient_descent_path(decayed, rescaled(network, alpha), settings["learning_rate"], checkpoints)
        fitted, right = (jax.lax.map(lambda now, pairs=pairs: accuracy(now, pairs), path) for pairs in (train, test))
        last = loss(jax.tree.map(lambda x: x[-1], path), train)
        steps = {"grokking_step": first_right(right, checkpoints), "training_step": first_right(fitted, checkpoints)}
        measured = {**steps, "test_accuracy": right[-1]}
        return {name: jnp.where(jnp.isfinite(last), value, jnp.nan) for name, value in measured.items()}

    # A CPU is fastest with one cell at a time, which keeps its numbers in the cache.
    return jax.lax.map(descend, cells["alpha"], batch_size=sizes.together if sizes.together > 1 else None)


def imbalance(alpha, sizes: Sizes):
    """The conserved quantity of a neuron with weights of typical norm."""
    return conserved_quantity(alpha[..., None], sizes.p**0.5 / sizes.width / alpha**DEGREE, degree=DEGREE)


def predict(cells, settings, sizes):
    """The score that orders the steps to grokking; it is not itself a number of steps. Nothing is said of the rest."""
    delta = imbalance(cells["alpha"], sizes)
    unknown = jnp.full_like(delta, jnp.nan)
    return {"grokking_step": -delta, "training_step": unknown, "test_accuracy": unknown}


def downstream_first(cells, settings, sizes):
    return imbalance(cells["alpha"], sizes)


def squared_norm(cells, settings, sizes):
    """Of all weights, at the start, on average."""
    alpha = cells["alpha"]
    return sizes.width * alpha**2 + sizes.p / sizes.width / alpha**4


def fits(values, settings):
    pairs = settings["p"] ** 2
    train = training_pairs(settings["p"], settings["share"])
    require(
        0 < train < pairs, "share", f"such that of {pairs} pairs some are trained on and some not", settings["share"]
    )


grokking = Experiment(
    name="grokking",
    title="Grokking of modular addition, up- and downstream",
    sources=(SOURCE,),
    axes={
        "alpha": Parameter(
            np.geomspace(0.145, 1.15, 7).round(3), r"inner weights over their standard size $\alpha$", scale="log",
            domain=POSITIVE,
        ),
    },
    settings={
        "p": Setting(23, "numbers that are added modulo p", domain=whole(2)),
        "width": Setting(200, "hidden neurons", domain=whole(1)),
        "share": Setting(0.75, "of the pairs that are trained on", domain=SHARE),
        "learning_rate": Setting(0.3, "of full-batch gradient descent", domain=NONNEGATIVE),
        "weight_decay": Setting(1e-3, "added to the gradient, times the weights", domain=NONNEGATIVE),
        "every": Setting(20, "steps between two checks of the accuracy", domain=whole(1)),
        "checks": Setting(130, "checks of the accuracy", domain=whole(1)),
        "together": Setting(1, "cells simulated side by side: one on a CPU, many on a GPU", domain=whole(1)),
    },
    sizes=sizes,
    simulate=simulate,
    predict=predict,
    validate=fits,
    outputs={
        "grokking_step": Output("step of 95 % test accuracy"),
        "training_step": Output("step of 95 % training accuracy"),
        "test_accuracy": Output("test accuracy at the end"),
    },
    claims=(
        Rank(
            "grokking_step", "the further upstream, the sooner it groks",
            twins={
                "the further downstream": downstream_first, "the smaller the norm of the weights": squared_norm,
                "the sooner the training set is fitted": "training_step",
            },
        ),
    ),
    presets={
        "smoke": {
            "alpha": [0.45, 0.55, 0.65, 0.75, 0.9], "p": 17, "width": 100, "every": 50, "checks": 40,
            "replicates": 4,
        },
        "laptop": {"replicates": 32},
        "paper": {"alpha": np.geomspace(0.145, 1.15, 32), "checks": 300, "together": 32, "replicates": 100},
    },
)  # fmt: skip
