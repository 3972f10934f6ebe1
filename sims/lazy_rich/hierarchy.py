r"""Random hierarchy model: how well a convolutional network generalizes, by the balance of its outer layers.

L levels, on each of which a symbol stands for one of m tuples of s symbols, and no tuple for two symbols; the class is
the topmost symbol. ReLU convolutions with kernel and stride s read it, every layer a level, and a linear readout.

.. math:: W_1 \propto \alpha, \quad a \propto \alpha^{-1}, \qquad
    \delta = \|a\|_F^2 - \|W_1\|_F^2 = \frac{n_c}{\alpha^2} - 2 h \alpha^2 \ \text{on average}

at n_c classes and h channels: one function at the start for every alpha, and an imbalance, conserved by gradient flow
through all the layers between, that grows as alpha falls. The theory orders the networks, and gives no accuracy: the
further upstream (the larger delta), the higher it should be after training on the same P inputs.
The default alphas start with the same norm of the weights at both ends, so the norm orders them otherwise.

Measured (laptop size, seed 0, P = 256, all training sets fitted): the accuracy is highest near balance, 0.87 at
alpha = 0.49, and falls to 0.80 at 0.1 and to 0.64 at 3.54. Downstream of balance, where norm and imbalance have one
order, the claim holds; on both sides the norm and the learning rate order the accuracies better (rank correlations
0.81 and 0.80) than the imbalance (0.52), and that claim is undecided. Of two starts with the same norm the upstream
one is better: by 0.16 +- 0.01 at the ends, 0.06 +- 0.01 at alpha = 0.22 and 1.6.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from sims.descent import gradient_descent
from sims.engine.experiment import POSITIVE, Experiment, Output, Parameter, Rank, Setting, whole
from sims.lazy_rich.setup import SOURCE
from theory.lazy_rich import conserved_quantity

HIERARCHY = """@article{cagnetta2024how,
  title = {How Deep Neural Networks Learn Compositional Data: The Random Hierarchy Model},
  author = {Cagnetta, Francesco and Petrini, Leonardo and Tomasini, Umberto M. and Favero, Alessandro and Wyart,
            Matthieu},
  journal = {Physical Review X},
  volume = {14},
  pages = {031001},
  year = {2024}
}"""
MOST_INPUTS = 10**7


class Grammar(NamedTuple):
    """v symbols, n_c classes, m tuples of s symbols for each, L levels."""

    v: int
    n_c: int
    m: int
    s: int
    L: int

    @property
    def inputs(self) -> int:
        """How many distinct inputs there are."""
        return self.n_c * self.m ** sum(self.s**level for level in range(self.L))

    @property
    def scale(self) -> int:
        """Sample sizes of this order are needed to learn it."""
        return self.n_c * self.m**self.L


class Sizes(NamedTuple):
    """What a compilation depends on."""

    grammar: Grammar
    P: int
    width: int
    test_inputs: int
    together: int


class Network(NamedTuple):
    """Kernels (s channels, width), from the input on, and readout (width, n_c)."""

    kernels: tuple[jax.Array, ...]
    readout: jax.Array


class Inputs(NamedTuple):
    """One-hot symbols (count, s^L, v) and classes (count, n_c)."""

    X: jax.Array
    classes: jax.Array


def grammar_of(settings) -> Grammar:
    return Grammar(*(settings[name] for name in Grammar._fields))


def sizes(settings) -> Sizes:
    rest = (settings[name] for name in ("width", "test_inputs", "together"))
    return Sizes(grammar_of(settings), int(settings["P"]), *rest)


def draw_rules(key, grammar: Grammar) -> list[jax.Array]:
    """On every level, from the top, the tuples of each symbol, as numbers in base v: shape (symbols, m)."""
    v, n_c, m, s, L = grammar
    keys = jax.random.split(key, L)
    symbols = [n_c] + [v] * (L - 1)
    return [
        jax.random.permutation(k, v**s)[: count * m].reshape(count, m) for k, count in zip(keys, symbols, strict=True)
    ]


def derive(rules: list[jax.Array], numbers, grammar: Grammar):
    """Symbols (count, s^L) and classes (count,) of inputs by their number, whose digits are the class and the choices.

    Every number below `grammar.inputs` is another input.
    """
    v, n_c, m, s, _ = grammar
    rest, classes = jnp.divmod(numbers, n_c)
    symbols = classes[:, None]
    for rule in rules:
        choices, rest = digits(rest, m, symbols.shape[1])
        symbols = digits(rule[symbols, choices], v, s)[0].reshape(len(numbers), -1)
    return symbols, classes


def digits(numbers, base: int, count: int):
    """The last `count` digits, the least first along a new axis, and what stands before them."""
    out = []
    for _ in range(count):
        numbers, digit = jnp.divmod(numbers, base)
        out.append(digit)
    return jnp.stack(out, axis=-1), numbers


def draw_inputs(key, sizes: Sizes, dtype=float) -> tuple[Inputs, Inputs]:
    """P distinct inputs to train on, and others to test on: the rest, or `test_inputs` of it."""
    grammar = sizes.grammar
    k_rules, k_order = jax.random.split(key)
    chosen = jax.random.permutation(k_order, grammar.inputs)[: sizes.P + sizes.test_inputs]
    symbols, classes = derive(draw_rules(k_rules, grammar), chosen, grammar)
    both = Inputs(jax.nn.one_hot(symbols, grammar.v, dtype=dtype), jax.nn.one_hot(classes, grammar.n_c, dtype=dtype))
    parts = (slice(sizes.P), slice(sizes.P, None))
    return tuple(jax.tree.map(lambda array, part=part: array[part], both) for part in parts)


def draw_network(key, sizes: Sizes, dtype=float) -> Network:
    """The network at alpha = 1: kernels of variance 2 / fan-in, and a readout of variance 1 / width."""
    grammar, width = sizes.grammar, sizes.width
    k_readout, *keys = jax.random.split(key, grammar.L + 1)
    fan_in = [grammar.s * grammar.v] + [grammar.s * width] * (grammar.L - 1)
    kernels = tuple(
        (2 / fan) ** 0.5 * jax.random.normal(k, (fan, width), dtype) for k, fan in zip(keys, fan_in, strict=True)
    )
    return Network(kernels, jax.random.normal(k_readout, (width, grammar.n_c), dtype) / width**0.5)


def rescaled(network: Network, alpha) -> Network:
    """The same function with the first layer alpha times as large."""
    first, *others = network.kernels
    return Network((alpha * first, *others), network.readout / alpha)


def logits(network: Network, X):
    """Shape (count, n_c). A convolution with stride s is a product with every patch of s neighbours."""
    for kernel in network.kernels:
        patches = X.reshape(-1, len(kernel))  # of all inputs: one flat product is twice as fast on a CPU
        X = jax.nn.relu(patches @ kernel)
    return X @ network.readout


def loss(network: Network, inputs: Inputs):
    """Cross-entropy, mean over inputs, in nats."""
    return optax.softmax_cross_entropy(logits(network, inputs.X), inputs.classes).mean()


def accuracy(network: Network, inputs: Inputs):
    right = jnp.argmax(logits(network, inputs.X), axis=1) == jnp.argmax(inputs.classes, axis=1)
    return jnp.mean(right, dtype=inputs.X.dtype)


def sharpness(key, loss, params, iterations):
    """Largest eigenvalue of the Hessian, by power iteration: the Rayleigh quotient of its last vector."""
    flat, unravel = ravel_pytree(params)

    def hessian(vector):
        return jax.jvp(jax.grad(lambda x: loss(unravel(x))), (flat,), (vector,))[1]

    def turn(_, vector):
        return hessian(vector / jnp.linalg.norm(vector))

    start = jax.random.normal(key, flat.shape, flat.dtype)
    vector = jax.lax.fori_loop(jnp.int32(0), jnp.asarray(iterations, jnp.int32), turn, start)
    return jnp.vdot(vector, hessian(vector)) / jnp.vdot(vector, vector)


def simulate(key, cells, settings, sizes):
    """All cells start from the same normal numbers and see the same inputs."""
    k_network, k_inputs, k_sharpness = jax.random.split(key, 3)
    dtype = cells["alpha"].dtype
    network, (train, test) = draw_network(k_network, sizes, dtype), draw_inputs(k_inputs, sizes, dtype)

    def descend(alpha):
        def on_train(network):
            return loss(network, train)

        start = rescaled(network, alpha)
        largest = sharpness(k_sharpness, on_train, start, settings["iterations"])
        rate = settings["rate"] / largest
        end = gradient_descent(on_train, start, rate, settings["steps"])
        measured = {
            "test_accuracy": accuracy(end, test),
            "training_accuracy": accuracy(end, train),
            "learning_rate": rate,
        }
        # An eigenvalue below zero would be the largest in size alone, and gives no learning rate.
        learnt = (largest > 0) & jnp.isfinite(on_train(end))
        return {name: jnp.where(learnt, value, jnp.nan) for name, value in measured.items()}

    # A CPU is fastest with one cell at a time, which keeps its numbers in the cache.
    return jax.lax.map(descend, cells["alpha"], batch_size=sizes.together if sizes.together > 1 else None)


def squared_norms(alpha, sizes: Sizes):
    """Of the first layer and of the readout, at the start, on average."""
    return 2 * sizes.width * alpha**2, sizes.grammar.n_c / alpha**2


def imbalance(alpha, sizes: Sizes):
    """The conserved quantity of the outer layers: the sum of those of all pairs of neighbours."""
    first, readout = squared_norms(alpha, sizes)
    return conserved_quantity(jnp.sqrt(first)[..., None], jnp.sqrt(readout))


def predict(cells, settings, sizes):
    """The score that orders the accuracies; it is not itself an accuracy. Nothing is said of the rest."""
    delta = imbalance(cells["alpha"], sizes)
    unknown = jnp.full_like(delta, jnp.nan)
    return {"test_accuracy": delta, "training_accuracy": unknown, "learning_rate": unknown}


def upstream_last(cells, settings, sizes):
    return -imbalance(cells["alpha"], sizes)


def small_norm(cells, settings, sizes):
    return -sum(squared_norms(cells["alpha"], sizes))


def half_way(cells, settings):
    """At the sample size nearest to twice n_c m^L, where networks are on their way from guessing to faultless."""
    distance = np.abs(np.log(cells["P"] / (2 * grammar_of(settings).scale)))
    return distance == distance.min()


def half_way_downstream(cells, settings):
    first, readout = 2 * settings["width"] * cells["alpha"] ** 2, settings["n_c"] / cells["alpha"] ** 2
    return half_way(cells, settings) & (first > readout)


def fits(values, settings):
    grammar = grammar_of(settings)
    v, n_c, m, s, _ = grammar
    for name, symbols in (("v", v), ("n_c", n_c)):
        if symbols * m > v**s:
            raise ValueError(f"`m` must be such that {name} m is at most v^s = {v**s}, but got {symbols * m}.")
    if grammar.inputs > MOST_INPUTS:
        raise ValueError(f"`L` must leave at most {MOST_INPUTS} inputs, but got {grammar.inputs}.")
    if values["P"].max() >= grammar.inputs:
        raise ValueError(f"`P` must be below the number of inputs, {grammar.inputs}, but got {values['P'].max():g}.")


hierarchy = Experiment(
    name="hierarchy",
    title="Generalization on the random hierarchy model, up- and downstream",
    sources=(SOURCE, HIERARCHY),
    axes={
        "alpha": Parameter(
            np.geomspace(0.1, 3.54, 10).round(3), r"first layer over its standard size $\alpha$", scale="log",
            domain=POSITIVE,
        ),
        "P": Parameter([64, 128, 256], "training inputs $P$", scale="log", domain=whole(1), role="static"),
    },
    settings={
        "v": Setting(8, "symbols", domain=whole(2)),
        "n_c": Setting(8, "classes", domain=whole(2)),
        "m": Setting(4, "tuples that a symbol may stand for", domain=whole(1)),
        "s": Setting(2, "symbols of a tuple", domain=whole(2)),
        "L": Setting(2, "levels", domain=whole(1)),
        "width": Setting(32, "channels of a layer", domain=whole(1)),
        "rate": Setting(0.7, "learning rate times the largest eigenvalue of the Hessian at the start", domain=POSITIVE),
        "iterations": Setting(100, "power iterations for that eigenvalue", domain=whole(1)),
        "steps": Setting(2500, "steps of full-batch gradient descent", domain=whole(0)),
        "test_inputs": Setting(4096, "inputs to test on, where as many are left", domain=whole(1)),
        "together": Setting(1, "cells simulated side by side: one on a CPU, many on a GPU", domain=whole(1)),
    },
    sizes=sizes,
    simulate=simulate,
    predict=predict,
    validate=fits,
    outputs={
        "test_accuracy": Output("test accuracy"),
        "training_accuracy": Output("training accuracy"),
        "learning_rate": Output("learning rate"),
    },
    claims=(
        Rank(
            "test_accuracy", "downstream of balance, the less so the higher the test accuracy",
            where=half_way_downstream,
            twins={"the reverse": upstream_last, "the training accuracy": "training_accuracy"},
        ),
        Rank(
            "test_accuracy", "on both sides of balance, the further upstream the higher the test accuracy",
            where=half_way,
            twins={
                "the reverse": upstream_last, "the smaller the norm of the weights": small_norm,
                "the larger the learning rate that the start allows": "learning_rate",
            },
        ),
    ),
    presets={
        "smoke": {"alpha": [0.2, 0.5, 1.0, 2.0, 3.0], "P": [128], "steps": 500, "iterations": 30, "replicates": 4},
        "laptop": {"replicates": 20},
        "paper": {
            "alpha": np.geomspace(0.1, 1.25, 16), "P": [256, 512, 1024, 2048, 4096], "L": 3, "width": 256,
            "steps": 20_000, "together": 16, "replicates": 20,
        },
    },
)  # fmt: skip
