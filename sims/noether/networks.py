"""Three Flax networks that read the digits of scikit-learn, and the symmetries of their architecture."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from sims.digits import CLASSES, SIDE
from theory.noether import Part, SymmetryFamily

NETWORKS = ("mlp", "cnn", "transformer")


class Mlp(nn.Module):
    """Two hidden layers of ReLU units."""

    width: int = 32

    @nn.compact
    def __call__(self, images):
        x = images.reshape(len(images), -1)
        for _ in range(2):
            x = nn.relu(nn.Dense(self.width)(x))
        return nn.Dense(CLASSES)(x)


class Cnn(nn.Module):
    """Two convolutions with batch normalization and ReLU, averaged over positions; the statistics are the batch's."""

    width: int = 8
    epsilon: float = 0.0

    @nn.compact
    def __call__(self, images):
        x = images[..., None]
        for k in range(2):
            x = nn.Conv(self.width * (k + 1), (3, 3), strides=k + 1)(x)
            # Variances in one pass would lose digits.
            x = nn.relu(nn.BatchNorm(use_running_average=False, epsilon=self.epsilon, use_fast_variance=False)(x))
        return nn.Dense(CLASSES)(x.mean((1, 2)))


class Transformer(nn.Module):
    """Pre-norm blocks over the rows of an image, ReLU inside, averaged over tokens."""

    width: int = 16
    heads: int = 2
    depth: int = 2
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, images):
        position = self.param("position", nn.initializers.normal(0.3), (SIDE, self.width))
        x = nn.Dense(self.width, name="embed")(images) + position[None, :, :]
        for k in range(self.depth):
            x = x + self.attention(self.norm(f"norm{k}a")(x), f"attention{k}")
            h = nn.relu(nn.Dense(2 * self.width, name=f"up{k}")(self.norm(f"norm{k}b")(x)))
            x = x + nn.Dense(self.width, name=f"down{k}")(h)
        return nn.Dense(CLASSES, name="head")(self.norm("last")(x).mean(1))

    def norm(self, name):
        return nn.LayerNorm(epsilon=self.epsilon, use_fast_variance=False, name=name)

    def attention(self, x, name):
        shape = (self.heads, self.width // self.heads)
        q, k, v = (nn.DenseGeneral(shape, name=f"{name}_{part}")(x) for part in ("query", "key", "value"))
        weights = nn.softmax(jnp.einsum("bthr,bshr->bhts", q, k) / shape[1] ** 0.5)
        mixed = jnp.einsum("bhts,bshr->bthr", weights, v)
        return nn.DenseGeneral(self.width, axis=(-2, -1), name=f"{name}_out")(mixed)


MODULES = {"mlp": Mlp, "cnn": Cnn, "transformer": Transformer}


def network(name: str):
    """(initial parameters as a function of a key, loss as a function of parameters and a batch)."""
    module = MODULES[name]()

    def start(key):
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            variables = module.init(key, jax.random.normal(key, (2, SIDE, SIDE)))
        return _distinct(jax.tree.map(lambda x: x.astype(float), variables["params"]), key)

    def loss(params, batch):
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            out = module.apply({"params": params}, batch.pixels, mutable=["batch_stats"])[0]
            return optax.softmax_cross_entropy_with_integer_labels(out, batch.labels).mean()

    return start, loss


def _distinct(params, key):
    """Biases and gains away from 0 and 1, where a charge would start at nothing."""
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.fold_in(key, 1), len(leaves))
    moved = [x + 0.1 * jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)]
    return structure.unflatten(moved)


def joint(lower: str, upper: str, below: int, above: int, kind: str = "rescale") -> SymmetryFamily:
    """Rescaling of the units between two layers: kernel and bias below, kernel above; the axes count the units."""
    return SymmetryFamily(
        kind,
        (Part(f"{lower}/kernel", (below,)), Part(f"{lower}/bias", (0,)), Part(f"{upper}/kernel", (above,), -1.0)),
    )


def normalized(norm: str, upper: str, axis: int) -> SymmetryFamily:
    """Rescaling of gain and bias of a normalization against the next kernel, through ReLU or nothing."""
    return SymmetryFamily(
        "rescale", (Part(f"{norm}/scale", (0,)), Part(f"{norm}/bias", (0,)), Part(f"{upper}/kernel", (axis,), -1.0))
    )


def shift(layer: str, units: tuple[int, ...] = (0,)) -> tuple[SymmetryFamily, SymmetryFamily]:
    """Translation of the logits: every row of the last kernel, and its bias, summed over classes."""
    return (
        SymmetryFamily("translation", (Part(f"{layer}/kernel", units),)),
        SymmetryFamily("translation", (Part(f"{layer}/bias"),)),
    )


def head_pair(first: str, second: str, second_axes=(1, 2)) -> SymmetryFamily:
    """GL(r) of every head: two kernels with their biases. `second_axes`: heads and inner axis of the second kernel."""
    units, inner = second_axes
    parts = [Part(f"{first}/kernel", (1,), 1.0, None, 2), Part(f"{first}/bias", (0,), 1.0, None, 1)]
    parts.append(Part(f"{second}/kernel", (units,), -1.0, None, inner))
    if second_axes == (1, 2):
        parts.append(Part(f"{second}/bias", (0,), -1.0, None, 1))
    return SymmetryFamily("matrix", tuple(parts))


def families(name: str) -> tuple[SymmetryFamily, ...]:
    """The symmetries that the architecture promises."""
    if name == "mlp":
        return (joint("Dense_0", "Dense_1", 1, 0), joint("Dense_1", "Dense_2", 1, 0), *shift("Dense_2"))
    if name == "cnn":
        scales = tuple(SymmetryFamily("scale", (Part(f"Conv_{k}/kernel", (3,)),)) for k in range(2))
        return (
            *scales,
            normalized("BatchNorm_0", "Conv_1", 2),
            normalized("BatchNorm_1", "Dense_0", 0),
            *shift("Dense_0"),
        )
    blocks = []
    for k in range(Transformer.depth):
        blocks += [
            head_pair(f"attention{k}_query", f"attention{k}_key"),
            head_pair(f"attention{k}_value", f"attention{k}_out", (0, 1)),
            joint(f"up{k}", f"down{k}", 1, 0),
        ]
    return (*blocks, *shift("head"))
