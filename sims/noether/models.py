"""Small Flax networks and the symmetries that they have, for the audit: what is there and what must not be found."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from theory.noether.family import Part, SymmetryFamily

CLASSES, SAMPLES = 4, 8
FEATURES, HIDDEN = 6, (9, 8)  # MLP
SIDE, CHANNELS = 6, (6, 5)  # CNN
VOCABULARY, TOKENS, WIDTH, HEADS, HEAD, MLP = 11, 5, 8, 2, 4, 12  # transformers
QUERIES = 4  # heads of the modern block; its keys and values have HEADS

ACTIVATIONS = {"relu": nn.relu, "relu2": lambda x: nn.relu(x) ** 2, "gelu": nn.gelu, "linear": lambda x: x}


class Mlp(nn.Module):
    """Two hidden layers."""

    activation: str

    @nn.compact
    def __call__(self, x):
        for width in HIDDEN:
            x = ACTIVATIONS[self.activation](_dense(width, x)(x))
        return _dense(CLASSES, x)(x)


class Cnn(nn.Module):
    """Two convolutions with batch normalization and ReLU, flattened; running statistics have mean zero."""

    epsilon: float
    train: bool

    @nn.compact
    def __call__(self, x):
        for channels in CHANNELS:
            x = nn.Conv(channels, (3, 3), strides=2 if channels == CHANNELS[1] else 1, **_types(x))(x)
            norm = nn.BatchNorm(not self.train, epsilon=self.epsilon, use_fast_variance=False, **_types(x))
            x = nn.relu(norm(x))
        return _dense(CLASSES, x)(x.reshape(len(x), -1))


class Transformer(nn.Module):
    """One pre-norm block; a label for every token."""

    activation: str
    epsilon: float

    @nn.compact
    def __call__(self, tokens, dtype):
        types = {"dtype": dtype, "param_dtype": dtype}
        x = nn.Embed(VOCABULARY, WIDTH, name="embed", **types)(tokens)
        x = x + self.param("position", nn.initializers.normal(1.0), (TOKENS, WIDTH), dtype)

        def norm(name):
            return nn.LayerNorm(epsilon=self.epsilon, use_fast_variance=False, name=name, **types)

        attention = nn.MultiHeadDotProductAttention(HEADS, qkv_features=HEADS * HEAD, name="attention", **types)
        x = x + attention(norm("norm1")(x))
        h = ACTIVATIONS[self.activation](nn.Dense(MLP, name="up", **types)(norm("norm2")(x)))
        x = x + nn.Dense(WIDTH, name="down", **types)(h)
        return nn.Dense(CLASSES, name="head", **types)(norm("norm3")(x))


class Modern(nn.Module):
    """One block with RMS normalization, grouped queries, rotary positions, SwiGLU and no biases.

    `qk`: "" for none, "gain" or "plain" for a normalization of queries and keys with or without gain. `rotary`: whether
    positions rotate planes.
    """

    qk: str = ""
    rotary: bool = True
    epsilon: float = 0.0

    @nn.compact
    def __call__(self, tokens, dtype):
        types = {"dtype": dtype, "param_dtype": dtype}

        def norm(name, scale=True):
            return nn.RMSNorm(epsilon=self.epsilon, use_scale=scale, name=name, **types)

        def project(features, name, axis=-1):
            return nn.DenseGeneral(features, axis=axis, use_bias=False, name=name, **types)

        x = nn.Embed(VOCABULARY, WIDTH, name="embed", **types)(tokens)
        h = norm("norm1")(x)
        q, k, v = (project((n, HEAD), name)(h) for name, n in (("query", QUERIES), ("key", HEADS), ("value", HEADS)))
        if self.qk:
            q, k = norm("query_norm", self.qk == "gain")(q), norm("key_norm", self.qk == "gain")(k)
        if self.rotary:
            q, k = rotary(q), rotary(k)
        k, v = (jnp.repeat(y, QUERIES // HEADS, axis=-2) for y in (k, v))
        logits = jnp.einsum("bthr,bshr->bhts", q, k) / 2
        past = jnp.tril(jnp.ones((TOKENS, TOKENS), bool))
        weights = nn.softmax(jnp.where(past, logits, -jnp.inf))
        x = x + project(WIDTH, "out", (-2, -1))(jnp.einsum("bhts,bshr->bthr", weights, v))
        h = norm("norm2")(x)
        x = x + project(WIDTH, "down")(nn.silu(project(MLP, "gate")(h)) * project(MLP, "up")(h))
        return project(CLASSES, "head")(norm("norm3")(x))


def rotary(x):
    """Rotation of the planes (i, i + r/2) by angles proportional to the position."""
    half = x.shape[-1] // 2
    angles = jnp.arange(x.shape[-3])[:, None, None] * jnp.array(0.7 ** np.arange(half), x.dtype)
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * jnp.cos(angles) - b * jnp.sin(angles), a * jnp.sin(angles) + b * jnp.cos(angles)], -1)


def _types(x):
    return {"dtype": x.dtype, "param_dtype": x.dtype}


def _dense(width, x):
    return nn.Dense(width, **_types(x))


class Batch(NamedTuple):
    """Inputs, images or tokens, and random labels."""

    inputs: jax.Array
    labels: jax.Array


MODELS: dict[str, nn.Module] = {
    **{f"mlp_{name}": Mlp(name) for name in ACTIVATIONS},
    "cnn_train": Cnn(0.0, True),
    "cnn_train_epsilon": Cnn(1e-5, True),
    "cnn_eval": Cnn(1e-5, False),
    "transformer_gelu": Transformer("gelu", 0.0),
    "transformer_relu": Transformer("relu", 0.0),
    "transformer_epsilon": Transformer("relu", 1e-6),
    "modern": Modern(),
    "modern_qk_norm": Modern("gain"),
    "modern_plain": Modern("plain", rotary=False),
}
INPUTS = {Mlp: (FEATURES,), Cnn: (SIDE, SIDE, 2), Transformer: (TOKENS,), Modern: (TOKENS,)}


def build(name: str, seed: int = 0, dtype: Any = None) -> tuple[Callable, Any, Callable[..., list[Batch]]]:
    """A small network with softmax cross-entropy on random labels.

    Args:
        name: One of `MODELS`.
        seed: Seed of the parameters.
        dtype: float32 or float64, JAX's default where None.

    Returns:
        (loss, params, make_batches): loss(params, batch), a pytree, and make_batches(count, seed=0), a list of batches.

    Raises: ValueError for another name.
    """
    module = _named(name)
    reads_tokens = isinstance(module, Transformer | Modern)
    dtype = jnp.dtype(dtype or jnp.result_type(float))

    def make_batches(count, seed=0):
        rng = np.random.default_rng(seed)
        size = (SAMPLES, *INPUTS[type(module)])

        def one():
            inputs = rng.integers(VOCABULARY, size=size) if reads_tokens else rng.standard_normal(size)
            labels = rng.integers(CLASSES, size=size if reads_tokens else SAMPLES)
            return Batch(jnp.asarray(inputs, np.int32 if reads_tokens else dtype), jnp.asarray(labels, np.int32))

        return [one() for _ in range(count)]

    def arguments(batch):
        return (batch.inputs, dtype) if reads_tokens else (batch.inputs,)

    batch = make_batches(1)[0]
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        shapes = jax.eval_shape(lambda k: module.init(k, *arguments(batch)), jax.random.key(0))
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda x: jnp.asarray(_initial(rng, x.shape), dtype), shapes["params"])
    # Means of zero, so that a kernel and its gain rescale each other at evaluation.
    statistics = {
        module: {"mean": jnp.zeros(x["mean"].shape, dtype), "var": jnp.linspace(0.5, 2, x["var"].size, dtype=dtype)}
        for module, x in shapes.get("batch_stats", {}).items()
    }

    def loss(params, batch):
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            variables = {"params": params, **({"batch_stats": statistics} if statistics else {})}
            logits, _ = module.apply(variables, *arguments(batch), mutable=["batch_stats"])
            chosen = jnp.take_along_axis(nn.log_softmax(logits), batch.labels[..., None], -1)
            return -jnp.mean(chosen)

    return loss, params, make_batches


def _named(name):
    if name not in MODELS:
        raise ValueError(f"`name` must be one of {', '.join(MODELS)}, but got {name}.")
    return MODELS[name]


def _initial(rng, shape):
    """Kernels of unit gain, everything of rank 1 near zero or one."""
    if len(shape) == 1:
        return 1 + 0.1 * rng.standard_normal(shape)
    return rng.standard_normal(shape) / np.sqrt(np.prod(shape[:-1]) if len(shape) != 3 else WIDTH)


# ---- declared symmetries


def families(name: str) -> tuple[SymmetryFamily, ...]:
    """The symmetries that a model has by its architecture, exact or, by the epsilon of its norm, approximate."""
    found = {Mlp: _mlp, Cnn: _cnn, Transformer: _pre_norm, Modern: _modern}[type(_named(name))](name)
    return tuple(_declared(text, "approximate" if text.endswith("~") else "exact") for text in found)


def _declared(text, status):
    """A family from its sum, axes as units u, inner axis i or summed, and their lengths if they are not its own."""
    kind, terms = text.split(": ")
    parts = []
    for sign, number, name, axes in re.findall(r"([+-]?) ?(\d*) ?([a-zA-Z][\w/]*)(?:\[(.*?)\])?", terms):
        letters = axes.split(",") if axes else []
        shape = tuple(int(axis[:-1]) for axis in letters) if any(axis[:-1] for axis in letters) else None
        units = tuple(place for place, axis in enumerate(letters) if axis[-1] == "u")
        inner = next((place for place, axis in enumerate(letters) if axis[-1] == "i"), None)
        parts.append(Part(name, units, float(sign + (number or "1")), shape, inner))
    return SymmetryFamily(kind, tuple(parts), status)


def _mlp(name):
    yield "translation: Dense_2/bias"
    yield "translation: Dense_2/kernel[u]"
    for below, above in ((0, 1), (1, 2)):
        if name == "mlp_linear":
            yield f"matrix: Dense_{below}/bias[i] + Dense_{below}/kernel[.,i] - Dense_{above}/kernel[i]"
        elif name != "mlp_gelu":
            degree = 2 if name == "mlp_relu2" else 1
            yield f"rescale: Dense_{below}/bias[u] + Dense_{below}/kernel[.,u] - {degree} Dense_{above}/kernel[u]"


def _cnn(name):
    yield "translation: Dense_0/bias"
    yield "translation: Dense_0/kernel[u]"
    flattened = f"Dense_0/kernel[{SIDE * SIDE // 4}.,{CHANNELS[1]}u,{CLASSES}.]"
    for k, upper in enumerate(("Conv_1/kernel[.,.,u]", flattened)):
        yield f"rescale: BatchNorm_{k}/bias[u] + BatchNorm_{k}/scale[u] - {upper}"
        if name == "cnn_eval":
            yield f"rescale: Conv_{k}/bias[u] + Conv_{k}/kernel[.,.,.,u] - BatchNorm_{k}/scale[u]"
        else:
            yield f"flat: Conv_{k}/bias[u]"
            yield f"scale: Conv_{k}/kernel[.,.,.,u]" + ("~" if name.endswith("epsilon") else "")


def _pre_norm(name):
    yield from ("translation: head/bias", "translation: head/kernel[u]")
    # A layer normalization subtracts what all features have in common.
    yield from ("translation: attention/out/bias", "translation: attention/out/kernel[u,u]")
    yield from ("translation: down/bias", "translation: down/kernel[u]")
    yield from ("translation: embed/embedding[u]", "translation: position[u]")
    yield "translation: embed/embedding[.,u] - position[.,u]"
    stream = "attention/out/bias + attention/out/kernel + down/bias + down/kernel + embed/embedding + position"
    yield f"scale: {stream}" + ("~" if name.endswith("epsilon") else "")
    query, value = (f"attention/{n}/bias[u,i] + attention/{n}/kernel[.,u,i]" for n in ("query", "value"))
    yield f"matrix: {query} - attention/key/kernel[.,u,i]"
    yield f"matrix: {value} - attention/out/kernel[u,i]"
    yield "flat: attention/key/bias[u,u]"
    read = "attention/query/kernel[u] - attention/key/kernel[u] - attention/value/kernel[u]"
    for norm, readers in (("norm1", read), ("norm2", "up/kernel[u]"), ("norm3", "head/kernel[u]")):
        yield f"rescale: {norm}/bias[u] + {norm}/scale[u] - {readers}"
    if not name.endswith("gelu"):
        yield "rescale: up/bias[u] + up/kernel[.,u] - down/kernel[u]"


def _modern(name):
    module, group, half = MODELS[name], QUERIES // HEADS, HEAD // 2
    yield "translation: head/kernel[u]"
    yield "scale: down/kernel + embed/embedding + out/kernel"
    yield "rescale: up/kernel[.,u] - down/kernel[u]"
    yield f"matrix: value/kernel[.,u,i] - out/kernel[{HEADS}u,{group}.,{HEAD}i,{WIDTH}.]"
    yield "rescale: norm1/scale[u] - key/kernel[u] - query/kernel[u] - value/kernel[u]"
    yield "rescale: norm2/scale[u] - gate/kernel[u] - up/kernel[u]"
    yield "rescale: norm3/scale[u] - head/kernel[u]"
    if module.qk:
        yield from ("scale: query/kernel[.,u]", "scale: key/kernel[.,u]")
    if not module.qk:
        key, query = (f"{WIDTH}.,{HEADS}u,2{{0}},{half}u", f"{WIDTH}.,{HEADS}u,{group}.,2{{0}},{half}u")
        yield f"rescale: key/kernel[{key}] - query/kernel[{query}]".format(".")
        yield f"rotation: key/kernel[{key}] + query/kernel[{query}]".format("i")
    elif module.qk == "gain":
        yield f"rescale: key_norm/scale[2.,{half}u] - query_norm/scale[2.,{half}u]"
    else:
        yield f"rotation: key/kernel[.,u,i] + query/kernel[{WIDTH}.,{HEADS}u,{group}.,{HEAD}i]"
