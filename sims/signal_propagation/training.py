r"""Trainability: transformers trained on a counting task, their final loss beside the exponents they started with.

Every token asks how often it occurs in its sequence. The theory orders the networks and gives no loss: those with the
larger :math:`\max(|L\lambda_a|, |L\lambda_g^{\mathrm{pool}}|)` at their start should end higher.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sims.descent import optimizer_step
from sims.engine.experiment import NONNEGATIVE, POSITIVE, Experiment, Output, Parameter, Rank, Setting, whole
from sims.signal_propagation.network import Shape, Weights, block, draw_weights, layer_keys, rms_norm
from sims.signal_propagation.setup import PARAMETERS, SOURCE, STRENGTH, config_of, settings
from theory.signal_propagation import TransformerConfig, angle_exponent, gradient_exponent

VOCABULARY = 8


class Sizes(NamedTuple):
    """What a compilation depends on."""

    shape: Shape
    batch: int
    steps: int
    test_sequences: int
    together: int


def sizes(settings) -> Sizes:
    named = {name: settings[name] for name in Shape._fields if name in settings}
    rest = (settings[name] for name in Sizes._fields[1:])
    return Sizes(Shape(**{**named, "n": int(settings["n"])}), *rest)


class Model(NamedTuple):
    """All matrices, as they are trained: embedding, blocks (leading axis: depth), readout."""

    embedding: jax.Array
    blocks: Weights
    readout: jax.Array


def draw_normal(key, shape: Shape, dtype) -> Model:
    """A model of standard normal entries."""
    k_blocks, k_ends = jax.random.split(key)
    blocks = jax.vmap(lambda k: draw_weights(k, shape, dtype))(layer_keys(k_blocks, shape.depth))
    ends = jax.random.normal(k_ends, (VOCABULARY + shape.n, shape.d), dtype)
    return Model(ends[:VOCABULARY], blocks, ends[VOCABULARY:].T)


def scaled(normal: Model, config: TransformerConfig, shape: Shape) -> Model:
    """The matrices themselves: the standard normal ones times the scales of the theory's random transformer."""
    W, of_logits = normal.blocks, (config.sigma_A / shape.d) ** 0.5
    blocks = Weights(
        query=of_logits * W.query,
        key=of_logits * W.key,
        value=config.sigma_V / (shape.d * shape.heads) ** 0.5 * W.value,
        first=config.sigma_w / shape.d**0.5 * W.first,
        second=config.sigma_2 / shape.hidden**0.5 * W.second,
    )
    return Model(normal.embedding, blocks, normal.readout / shape.d**0.5)


def unscaled(config: TransformerConfig, shape: Shape) -> TransformerConfig:
    """The transformer in which `block` takes its weights as they are: Adam's steps are those of the matrices."""
    units = {
        "sigma_A": shape.d,
        "sigma_V": (shape.d * shape.heads) ** 0.5,
        "sigma_w": shape.d**0.5,
        "sigma_2": shape.hidden**0.5,
    }
    return replace(config, **{name: jnp.full_like(config.alpha_A, value) for name, value in units.items()})


def draw_sequences(key, count: int, n: int):
    """Tokens, uniform and independent, shape (count, n)."""
    # The short axis first: random numbers along a last axis of ten take XLA four times as long to compile.
    return jax.random.randint(key, (n, count), 0, VOCABULARY, jnp.int32).T


def counts(tokens):
    """The label of every token: how many others in its sequence are the same."""
    return jnp.sum(tokens[..., :, None] == tokens[..., None, :], axis=-1, dtype=jnp.int32) - 1


def logits(model: Model, tokens, config: TransformerConfig, shape: Shape):
    """Shape (n, classes), of one sequence; `config` is `unscaled`."""
    # A product, because the gradient of a look-up is a scatter, whose order of summation is free on a GPU.
    X = jax.nn.one_hot(tokens, VOCABULARY, dtype=model.embedding.dtype) @ model.embedding
    X, _ = jax.lax.scan(lambda X, weights: (block(X, weights, config, shape), None), X, model.blocks)
    return rms_norm(X) @ model.readout


def loss(model: Model, tokens, config: TransformerConfig, shape: Shape):
    """Cross-entropy per token, in nats, of sequences of shape (count, n)."""
    out = jax.vmap(lambda one: logits(model, one, config, shape))(tokens)
    return optax.softmax_cross_entropy_with_integer_labels(out, counts(tokens)).mean()


def optimizer(learning_rate, steps: int) -> optax.GradientTransformation:
    """Adam with a rate that falls linearly to zero, after a clip of the global norm at one."""
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.linear_schedule(learning_rate, 0.0, steps)))


def train(key, model: Model, config: TransformerConfig, learning_rate, sizes: Sizes) -> Model:
    """The model after its steps, each on a fresh batch."""
    shape, adam = sizes.shape, optimizer(learning_rate, sizes.steps)

    def step(carry, count):
        model, state = carry
        tokens = draw_sequences(jax.random.fold_in(key, count), sizes.batch, shape.n)
        return optimizer_step(adam, jax.grad(loss)(model, tokens, config, shape), model, state), None

    return jax.lax.scan(step, (model, adam.init(model)), jnp.arange(sizes.steps))[0][0]


def config_of_cells(cells, shape: Shape) -> TransformerConfig:
    """Both branches have the strength alpha."""
    return config_of(cells, shape, alpha_A=cells["alpha"], alpha_M=cells["alpha"])


def simulate(key, cells, settings, sizes):
    """All cells start from the same standard normal numbers and see the same sequences."""
    shape = sizes.shape
    config = config_of_cells(cells, shape)
    k_normal, k_train, k_test = jax.random.split(key, 3)
    normal = draw_normal(k_normal, shape, config.alpha_A.dtype)
    test = draw_sequences(k_test, sizes.test_sequences, shape.n)

    def final_loss(config):
        config = config.unit_variance()
        plain = unscaled(config, shape)
        model = train(k_train, scaled(normal, config, shape), plain, settings["learning_rate"], sizes)
        return loss(model, test, plain, shape)

    # A CPU is fastest with one cell at a time, which keeps its numbers in the cache.
    several = sizes.together if sizes.together > 1 else None
    return {"final_loss": jax.lax.map(final_loss, config, batch_size=several)}


def totals(cells, sizes):
    """Exponents over the whole depth: of the angle, and of the pooled gradient."""
    shape = sizes.shape

    def total(config):
        config = config.unit_variance()
        return shape.depth * angle_exponent(config), shape.depth * gradient_exponent(config, "pooled")

    # One by one: a product over all cells has a last bit that depends on their number.
    return jax.lax.map(total, config_of_cells(cells, shape))


def predict(cells, settings, sizes):
    """The score that orders the final losses; it is not itself a loss."""
    angle, pooled = totals(cells, sizes)
    return {"final_loss": jnp.maximum(jnp.abs(angle), jnp.abs(pooled))}


def angle_alone(cells, settings, sizes):
    return jnp.abs(totals(cells, sizes)[0])


def gradient_alone(cells, settings, sizes):
    return jnp.abs(totals(cells, sizes)[1])


def strength_alone(cells, settings, sizes):
    return cells["alpha"]


def strong(cells, settings):
    r"""Where the branches together write as much as the stream holds, :math:`\alpha^2 L \ge 1`.

    A weaker network is nearly linear: its exponents vanish and it still learns slowly, so at a fixed number of steps
    the exponents do not order it.
    """
    return cells["alpha"] ** 2 * settings["depth"] >= 1


def fits(values, settings):
    d, heads = settings["d"], settings["heads"]
    if d % heads:
        raise ValueError(f"`heads` must divide d = {d}, but got {heads}.")


training = Experiment(
    name="training",
    title="Trainability of transformers by their exponents at the start",
    sources=(SOURCE,),
    axes={
        "alpha": Parameter([0.4, 0.5, 0.6], r"branch strength $\alpha_A=\alpha_M=\alpha$", domain=STRENGTH),
        "sigma_w": Parameter([0.5, 2.0, 4.0, 5.0], r"first MLP scale $\sigma_w$", domain=POSITIVE),
    },
    fixed={
        "n": Parameter(10, "tokens $n$", domain=whole(2), role="static"),
        "sigma_A": PARAMETERS["sigma_A"],
    },
    settings={
        **settings(d=32, depth=16, networks=None, norm=None, residual=None),
        "batch": Setting(32, "sequences of one step", domain=whole(1)),
        "steps": Setting(300, "steps of training", domain=whole(0)),
        "learning_rate": Setting(1e-3, "of Adam, falling to zero", domain=NONNEGATIVE),
        "test_sequences": Setting(512, "sequences on which the final loss is measured", domain=whole(1)),
    },
    sizes=sizes,
    simulate=simulate,
    predict=predict,
    validate=fits,
    outputs={"final_loss": Output("test loss after training", unit="nat")},
    claims=(
        Rank(
            "final_loss", "the further the exponents are from zero over the depth, the higher the final loss",
            where=strong,
            twins={
                "the angle exponent alone": angle_alone, "the gradient exponent alone": gradient_alone,
                "the branch strength alone": strength_alone,
            },
        ),
    ),
    presets={
        "smoke": {
            "alpha": [0.5, 0.7, 0.95], "sigma_w": [0.5, 2.0, 4.0], "d": 8, "depth": 4, "batch": 8, "steps": 100,
            "learning_rate": 1e-2, "test_sequences": 64, "replicates": 6,
        },
        "laptop": {"batch": 16, "replicates": 32},
        "paper": {
            "alpha": np.linspace(0.05, 0.95, 16), "sigma_w": np.geomspace(0.5, 6.0, 16), "depth": 32, "steps": 10_000,
            "test_sequences": 2048, "together": 64, "replicates": 20,
        },
    },
    block=256,
)  # fmt: skip
