"""Real random transformers: real softmax attention, real MLPs, fresh Gaussian weights in every block.

One draw of a block's weights serves every cell of the sweep: the scales of a cell multiply activations, not weights.
Gradients at every block come from one backward pass that draws the same weights again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from theory.gaussian_kernels import activation_function
from theory.signal_propagation import TransformerConfig

# Signs of W_V and W_2. Each of the four networks is as random as the first; over the four the fluctuations that are
# odd in either matrix cancel, which are the largest.
SIGNS = ((1, 1), (1, -1), (-1, 1), (-1, -1))


class Shape(NamedTuple):
    """What a compilation depends on: sizes and architecture of the network."""

    n: int
    d: int
    depth: int
    heads: int = 1
    mlp_width: int = 0
    norm: str = "pre"
    residual: str = "normalized"
    activation: str = "tanh"
    causal: bool = False

    @property
    def hidden(self) -> int:
        """Width of the MLP: d where none is given."""
        return self.mlp_width or self.d


class Weights(NamedTuple):
    """Standard normal weights of one block; per head d_k = d / heads, and one d x d value-output map."""

    query: jax.Array
    key: jax.Array
    value: jax.Array
    first: jax.Array
    second: jax.Array


def draw_weights(key, shape: Shape, dtype) -> Weights:
    """The weights of one block, entries of unit variance; 24 random bits each, four times as fast as 53."""
    h, d, d_k = shape.heads, shape.d, shape.d // shape.heads
    sizes = ((h, d, d_k), (h, d, d_k), (h, d, d), (d, shape.hidden), (shape.hidden, d))
    ends = np.cumsum([math.prod(size) for size in sizes])
    # One call of the generator for all of them: it is what takes long to compile.
    entries = jax.random.normal(key, (ends[-1],), jnp.float32).astype(dtype)
    return Weights(*(part.reshape(size) for part, size in zip(jnp.split(entries, ends[:-1]), sizes, strict=True)))


def rms_norm(x):
    r"""N(x) = sqrt(d) x / |x|, token by token."""
    return x * (x.shape[-1] ** 0.5 / jnp.linalg.norm(x, axis=-1, keepdims=True))


def attention(Y, weights: Weights, config: TransformerConfig, shape: Shape):
    r"""Sum over heads of softmax(Y W_Q (Y W_K)^T / sqrt d_k) Y W_V."""
    d_k = shape.d // shape.heads
    queries, keys = (jnp.einsum("nd,hdk->hnk", Y, W) for W in (weights.query, weights.key))
    logits = jnp.einsum("hnk,hmk->hnm", queries, keys) * (config.sigma_A / (shape.d * d_k**0.5))
    if shape.causal:
        logits = jnp.where(jnp.tri(len(Y), dtype=bool)[None], logits, -jnp.inf)
    mixed = jnp.einsum("hnm,md->hnd", jax.nn.softmax(logits, axis=-1), Y)
    return jnp.einsum("hnd,hde->ne", mixed, weights.value) * (config.sigma_V / (shape.d * shape.heads) ** 0.5)


def mlp(Y, weights: Weights, config: TransformerConfig, shape: Shape):
    r"""phi(Y W_1) W_2."""
    hidden = activation_function(shape.activation)(Y @ weights.first * (config.sigma_w / shape.d**0.5))
    return hidden @ weights.second * (config.sigma_2 / shape.hidden**0.5)


def block(X, weights: Weights, config: TransformerConfig, shape: Shape):
    """One transformer block: tokens X of shape (n, d) to tokens."""
    before = rms_norm if shape.norm == "pre" else lambda x: x
    after = rms_norm if shape.norm == "post" else lambda x: x
    X = after(config.kept_A**0.5 * X + config.alpha_A * attention(before(X), weights, config, shape))
    return after(config.kept_M**0.5 * X + config.alpha_M * mlp(before(X), weights, config, shape))


def signed(weights: Weights, signs) -> Weights:
    """The weights of an antithetic network."""
    return weights._replace(value=signs[0] * weights.value, second=signs[1] * weights.second)


def simplex(q0, rho0, n: int, d: int):
    r"""n tokens with :math:`X_i \cdot X_i = q_0 d` and equal cosines rho0, exactly.

    The frame is the standard one: the weights' law is invariant under rotations, so a random frame gives the same law.

    Raises: ValueError if d < n.
    """
    if d < n:
        raise ValueError(f"`d` must be at least n = {n}, so that the tokens can form a simplex, but got {d}.")
    apart, together = jnp.sqrt(1 - rho0), jnp.sqrt(1 + (n - 1) * rho0)
    mean = jnp.full((n, n), 1 / n, jnp.result_type(apart))
    root = apart * (jnp.eye(n, dtype=mean.dtype) - mean) + together * mean
    return jnp.sqrt(q0 * d) * jnp.concatenate([root, jnp.zeros((n, d - n), mean.dtype)], axis=1)


class Moments(NamedTuple):
    """Mean square per dimension of n vectors, and that of their differences: q and q - p, or u and u - v."""

    square: jax.Array
    difference: jax.Array

    def collective(self, n: int):
        """u + (n - 1) v."""
        return n * self.square - (n - 1) * self.difference


def moments(X) -> Moments:
    r"""q and q - p = sum_i |X_i - mean|^2 / ((n - 1) d), which does not cancel, over the last two axes."""
    n, d = X.shape[-2:]
    apart = X - X.mean(-2, keepdims=True)
    return Moments(jnp.sum(X**2, (-2, -1)) / (n * d), jnp.sum(apart**2, (-2, -1)) / (max(n - 1, 1) * d))


def cotangents(key, kinds, n: int, d: int):
    """Gaussian cotangents at the top: "token" (independent), "difference" (of zero token mean), "pooled" (shared)."""
    R = jax.random.normal(key, (n, d))
    kind = {"token": R, "difference": R - R.mean(0, keepdims=True), "pooled": jnp.broadcast_to(R[:1], (n, d))}
    return jnp.stack([kind[k] for k in kinds])


def layer_keys(key, depth: int):
    """One key a block, whatever the depth."""
    return jax.vmap(lambda layer: jax.random.fold_in(key, layer))(jnp.arange(depth))


def every_network(X, weights: Weights, config: TransformerConfig, shape: Shape):
    """One block of every cell and every antithetic sign: X of shape (cells, signs, n, d), one draw of the weights."""
    signs = jnp.array(SIGNS, X.dtype)

    def one(X, config, sign):
        return block(X, signed(weights, sign), config, shape)

    return jax.vmap(jax.vmap(one, (0, None, 0)), (0, 0, None))(X, config, signs)


def forward(keys, starts, config: TransformerConfig, shape: Shape):
    """Tokens before every block and after the last, for every cell and sign.

    Args:
        keys: One a block.
        starts: A pytree of tokens at the input, each of shape (cells, any number of tokens, d).
        config: Fields of shape (cells,).
        shape: The network.

    Returns:
        The same pytree, shapes (depth + 1, cells, signs, tokens, d).
    """

    def step(streams, key):
        weights = draw_weights(key, shape, config.alpha_A.dtype)
        streams = jax.tree.map(lambda X: every_network(X, weights, config, shape), streams)
        return streams, streams

    starts = jax.tree.map(lambda X: jnp.repeat(X[:, None], len(SIGNS), axis=1), starts)
    _, path = jax.lax.scan(step, starts, keys)
    return jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), starts, path)


def backward(keys, path, top, config: TransformerConfig, shape: Shape, measure: Callable):
    """`measure` of the gradients at the input of every block and at the top, in one backward pass.

    Args:
        keys: Those of `forward`; the weights are drawn again.
        path: What `forward` returned.
        top: Cotangents at the top, shape (kinds, cells, signs, n, d).
        config: Fields of shape (cells,).
        shape: The network.
        measure: What to keep of the gradients of one layer.
    """

    def step(G, at):
        key, X = at
        weights = draw_weights(key, shape, X.dtype)
        _, pull = jax.vjp(lambda X: every_network(X, weights, config, shape), X)
        G = jax.vmap(lambda g: pull(g)[0])(G)
        return G, measure(G)

    _, below = jax.lax.scan(step, top, (keys, path[:-1]), reverse=True)
    return jax.tree.map(lambda x, y: jnp.concatenate([x, y[None]]), below, measure(top))


def mean_moments(X) -> Moments:
    """The moments of tokens or gradients, averaged over the antithetic signs."""
    return jax.tree.map(lambda x: x.mean(-1), moments(X))


def gradient_moments(key, keys, path, config: TransformerConfig, shape: Shape, kinds) -> dict[str, Moments]:
    """Moments of the gradients at the input of every block and at the top, for each kind of cotangent.

    Args:
        key: For the cotangents.
        keys: Those of `forward`.
        path: What `forward` returned, shape (depth + 1, cells, signs, n, d).
        config: Fields of shape (cells,).
        shape: The network.
        kinds: As in `cotangents`.

    Returns:
        Kind -> moments of shape (depth + 1, cells).
    """
    R = cotangents(key, kinds, shape.n, shape.d).astype(path.dtype)
    top = jnp.broadcast_to(R[:, None, None], (len(kinds), *path.shape[1:]))
    gradients = backward(keys, path, top, config, shape, mean_moments)
    return {kind: Moments(*(x[:, i] for x in gradients)) for i, kind in enumerate(kinds)}


def mean_over_networks(key, count: int, one: Callable):
    """Mean of `one(key)`, a pytree, over so many independent networks; one at a time, so memory does not grow."""
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(count))
    return jax.tree.map(lambda x: x.mean(0), jax.lax.map(one, keys))
