"""Lyapunov exponents of products of random matrices: growth of a perturbation that is renormalized as it goes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import below_one, integer

DISCARD = 0.2


class Exponent(NamedTuple):
    """A Lyapunov exponent per step: mean over the replicas, its standard error, and the replicas' own values."""

    mean: float
    error: float
    values: Float[Array, " replicas"]


def norm(tree: Any) -> Float[Array, ""]:
    """Euclidean norm of a pytree."""
    return jnp.sqrt(sum(jnp.vdot(x, x) for x in jax.tree.leaves(tree)))


def log_growth(advance: Callable, state: Any, tangent: Any, steps: int, size: Callable = norm):
    r"""Logarithm of the size of a perturbation after every step of a linear map, without underflow.

    Args:
        advance: advance(step, state, tangent) -> (state, tangent), linear in the tangent.
        state: What the map depends on, and carries on: any pytree.
        tangent: The perturbation, any pytree.
        steps: How many steps.
        size: The size that is recorded; the tangent is scaled to norm 1 after every step.

    Returns:
        (last state, logarithms of the size after each step, shape (steps,)).
    """

    def step(carry, k):
        state, tangent, scale = carry
        state, tangent = advance(k, state, tangent)
        seen = scale + jnp.log(size(tangent))
        length = norm(tangent)
        length = jnp.where(length > 0, length, jnp.ones_like(length))
        return (state, jax.tree.map(lambda x: x / length, tangent), scale + jnp.log(length)), seen

    start = state, tangent, jnp.zeros((), jnp.result_type(*jax.tree.leaves(tangent)))
    (state, _, _), logs = jax.lax.scan(step, start, jnp.arange(steps))
    return state, logs


def exponent_of(logs: Float[Array, "replicas steps"], discard: float = DISCARD) -> Exponent:
    """The exponent from the logarithms after every step, without the first share of them."""
    first = int(discard * logs.shape[1])
    values = (logs[:, -1] - logs[:, first]) / (logs.shape[1] - 1 - first)
    return Exponent(float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5), values)


def top_lyapunov(
    matrix: Callable[[Array], ArrayLike],
    key: Array,
    *,
    steps: int = 10_000,
    replicas: int = 16,
    discard: float = DISCARD,
) -> Exponent:
    r"""Top Lyapunov exponent of a product of independent random matrices.

    .. math:: \Lambda = \lim_{k \to \infty} \frac1k \ln \|A_k \cdots A_1 z\|

    Args:
        matrix: matrix(key) -> A, square; jittable.
        key: Key of all draws.
        steps: Matrices of a product, from 10.
        replicas: Products, from 2.
        discard: Share of the steps that is left out at the start, from 0 to below 1.

    Returns:
        An `Exponent`, per step. Its error falls as steps^(-1/2).

    Valid: products that forget their first direction within the steps left out.
    Raises: ValueError, one sentence: a matrix that is not square, numbers out of range.
    Source: Furstenberg and Kesten (1960); the usual renormalization.
    Checked: rotations and scalings, where it is exact; E ln|1 - eta h| of Gaussian scalars.
    """
    integer(10, steps=steps)
    integer(2, replicas=replicas)
    below_one(discard=discard)
    shape = jax.eval_shape(matrix, key).shape
    if len(shape) != 2 or shape[0] != shape[1]:
        raise ValueError(f"`matrix` must give square matrices, but got shape {shape}.")
    return exponent_of(_products(matrix, jax.random.split(key, replicas), steps), discard)


@functools.partial(jax.jit, static_argnames=("matrix", "steps"))
def _products(matrix, keys, steps):
    def product(key):
        def advance(k, state, z):
            return state, matrix(jax.random.fold_in(key, k)) @ z

        size = jax.eval_shape(matrix, key)
        start = jax.random.normal(jax.random.fold_in(key, steps), size.shape[:1], size.dtype)
        return log_growth(advance, (), start / norm(start), steps)[1]

    return jax.vmap(product)(keys)
