"""The residual stream of a Flax model, watched and perturbed from outside through `flax.linen.intercept_methods`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Variables = Any
Apply = Callable[[Variables], Any]
IsBlock = Callable[[Any], bool]


def streams(apply: Apply, is_block: IsBlock, variables: Variables, shifts=None, start=None) -> list:
    """The input of every block, plus its shift, and the last block's output.

    Args:
        apply: The model as a function of its variables.
        is_block: Which modules are blocks; those inside a block do not count.
        variables: The model's variables.
        shifts: What to add to each block's input, one array a block; none by default.
        start: Function that replaces the first block's input; none by default.
    """
    from flax import linen

    inputs, last, inside = [], None, False

    def watch(call, args, kwargs, context):
        nonlocal last, inside
        if inside or context.method_name != "__call__" or not is_block(context.module):
            return call(*args, **kwargs)
        x = _first(args, kwargs)
        x = start(x) if start and not inputs else x
        x = x if shifts is None else x + shifts[len(inputs)]
        inputs.append(x)
        args, kwargs = ((x, *args[1:]), kwargs) if args else ((), {**kwargs, next(iter(kwargs)): x})
        inside = True
        out = call(*args, **kwargs)
        last, inside = _output(out), False
        return out

    with linen.intercept_methods(watch):
        apply(variables)
    return [*inputs, last]


def _first(args, kwargs):
    return args[0] if args else next(iter(kwargs.values()), None)


def _output(out):
    return out[0] if isinstance(out, tuple | list) and out else out


# ---- which modules are the blocks


class Call(NamedTuple):
    """A module's call: what it lies within, and the stream before and after."""

    module: Any
    within: tuple[type, ...]
    input: Any
    output: Any


def calls_of(apply: Apply, variables: Variables) -> list[Call]:
    """Every module's call, outer before inner, from an abstract evaluation."""
    from flax import linen

    calls, path = [], []

    def watch(call, args, kwargs, context):
        if context.method_name != "__call__":
            return call(*args, **kwargs)
        place, within = len(calls), tuple(path)
        calls.append(None)
        path.append(type(context.module))
        out = call(*args, **kwargs)
        path.pop()
        calls[place] = Call(context.module, within, _first(args, kwargs), _output(out))
        return out

    def trace(variables):
        with linen.intercept_methods(watch):
            apply(variables)

    fitting(lambda v: jax.eval_shape(trace, v), variables)
    return calls


def find_blocks(calls: list[Call], block: type | IsBlock | None) -> tuple[IsBlock, str]:
    """The predicate of the residual blocks and their name, guessed where `block` is None.

    Raises: ValueError naming the modules that were called, where none qualifies.
    """
    counts = Counter(type(c.module).__name__ for c in calls[1:])
    seen = ", ".join(f"{kind} ({count})" for kind, count in counts.items()) or "no modules"
    if block is None:
        kind = _guess(calls)
        if kind is None:
            raise ValueError(
                "`block` must be given as a module class or a predicate, because no repeated module maps the stream "
                f"to itself in a chain outside nn.scan, nn.remat and nn.jit, among {seen}."
            )
        return lambda module: type(module) is kind, kind.__name__
    if not callable(block):
        raise ValueError(f"`block` must be a module class or a predicate on modules, but got {block}.")
    is_block = (lambda module: isinstance(module, block)) if isinstance(block, type) else block
    name = next((type(c.module).__name__ for c in calls if is_block(c.module)), None)
    if name is None:
        what = getattr(block, "__name__", "the predicate")
        raise ValueError(f"`block` must match a module that the model calls, but {what} matches none of {seen}.")
    return is_block, name


def _guess(calls):
    """The class of the longest chain that lies in no other chain, the model itself apart."""
    kinds = dict.fromkeys(type(c.module) for c in calls[1:])
    of_kind = {kind: [c for c in calls[1:] if type(c.module) is kind] for kind in kinds}
    chains = {kind: chain for kind, chain in of_kind.items() if _is_chain(chain)}
    outer = [kind for kind, chain in chains.items() if not any(set(c.within[1:]) & set(chains) for c in chain)]
    return max(outer, key=lambda kind: len(chains[kind]), default=None)


def _is_chain(calls):
    keep = all(np.ndim(c.input) >= 2 and np.shape(c.input) == np.shape(c.output) for c in calls)
    return keep and len(calls) > 1 and all(a.output is b.input for a, b in pairwise(calls))


@contextmanager
def followed():
    """One sentence where the stream was seen inside a transformation, from which nothing may be carried out."""
    try:
        yield
    except jax.errors.UnexpectedTracerError:
        raise ValueError("`model` must call its blocks outside nn.scan, nn.remat and nn.jit, but did not.") from None


def fitting(f: Callable[[Variables], Any], variables: Variables) -> Any:
    """f(variables), where what Flax and JAX say of a misfit becomes one sentence."""
    from flax.errors import FlaxError

    try:
        return f(variables)
    except (FlaxError, TypeError, ValueError) as error:
        why = " ".join(str(error).split()).split(". ")[0].split(" (https")[0].rstrip(".")
        raise ValueError(f"`params` and `tokens` must fit the model, but got {type(error).__name__}: {why}.") from error


# ---- measurements


class Measured(NamedTuple):
    """Gram matrices (L + 1, n, n); rows u, w of the token and u, w of the pooled gradients (4, L + 1); mean squares
    of the collapsed stream (L + 1,); gains per block of angles, token and pooled gradients (3, L).
    """

    gram: Any
    gradients: Any
    collapsed_q: Any
    gains: Any


def measurement(apply: Apply, is_block: IsBlock, shapes: list, draws: int) -> Callable[..., Measured]:
    """Function of (variables, key, norm), compiled once for many networks; `norm` is the mean square of the collapsed
    tokens at the first block, nan for that of each sequence's first token.

    Args:
        apply: As in `streams`.
        is_block: As in `streams`.
        shapes: What `streams` returns, or the shapes and dtypes of it.
        draws: Number of cotangents of each kind, and of perturbations, to average over.
    """
    n = shapes[0].shape[-2]
    state = jax.jit(lambda *given: _state(apply, is_block, shapes, *given))

    def measure(variables, key, norm):
        # Gaussian cotangents, which serve as perturbations too: one a token without their mean, or one for all tokens.
        shape = (draws, *shapes[0].shape)
        each = jax.random.normal(key, math.prod(shape), shapes[0].dtype).reshape(shape)
        kinds = jnp.stack([each - each.mean(-2, keepdims=True), jnp.broadcast_to(each[..., :1, :], shape)])
        gram, gradients, _ = state(variables, kinds, False, norm)
        relative = gradients / gradients[:, :1, -1:]
        equal, ((u, w), (u_pooled, w_pooled)), angle = state(variables, kinds, True, norm)
        token, pooled = u - w / (n - 1), u_pooled + w_pooled
        gains = angle[1:] / angle[:-1], token[:-1] / token[1:], pooled[:-1] / pooled[1:]
        return Measured(gram, relative.reshape(4, -1), geometry(equal)[0], jnp.stack(gains))

    return measure


def geometry(gram) -> tuple:
    """(q, rho) of Gram matrices (..., n, n): mean diagonal, and mean off the diagonal relative to it."""
    n = gram.shape[-1]
    q = gram.trace(axis1=-2, axis2=-1) / n
    return q, (gram.sum((-2, -1)) / n - q) / (n - 1) / q


def _state(apply, is_block, shapes, variables, kinds, equal, norm):
    """Gram matrices (L + 1, n, n), (u, w) of both kinds of cotangent (2, 2, L + 1), and squared angles (L + 1,) between
    perturbed tokens, in the stream as it is or with its tokens made equal first.
    """
    none = [jnp.zeros(x.shape, x.dtype) for x in shapes[:-1]]

    def forward(shifts):
        return streams(apply, is_block, variables, shifts, lambda x: jnp.where(equal, _collapse(x, norm), x))

    path, push = jax.linearize(forward, none)
    pull = jax.linear_transpose(lambda shifts: push(shifts)[-1], none)

    def overlaps(R):
        (G,) = pull(R.astype(path[-1].dtype))
        return jnp.stack([_overlaps(x) for x in (*G, R)], axis=1)

    def angles(delta):
        tangents = push([_across(delta, path[0]), *none[1:]])
        return jnp.stack([_squared_angle(*pair) for pair in zip(tangents, path, strict=True)])

    gradients = jax.lax.map(lambda kind: jax.lax.map(overlaps, kind).mean(0), kinds)
    return jnp.stack([_gram(x) for x in path]), gradients, jax.lax.map(angles, kinds[0]).mean(0)


def _wide(x):
    """A stream as (sequences, n, d), at least in float32."""
    return x.reshape(-1, *x.shape[-2:]).astype(x.dtype if x.dtype.itemsize >= 4 else jnp.float32)


def _gram(x):
    x = _wide(x)
    return jnp.einsum("sid,sjd->ij", x, x) / (x.shape[0] * x.shape[2])


def _overlaps(G):
    """u = mean |G_i|^2 / d and w = (n - 1) v, the overlap with all other tokens."""
    G = _wide(G)
    u = jnp.mean(G**2)
    return jnp.stack([u, jnp.mean(G.sum(1) ** 2) / G.shape[1] - u])


def _collapse(x, norm):
    """Each sequence's first token repeated, of mean square `norm`, or of its own if nan."""
    first = x[..., :1, :]
    scale = jnp.sqrt(norm / jnp.mean(first**2, axis=-1, keepdims=True)).astype(x.dtype)
    return jnp.broadcast_to(jnp.where(jnp.isnan(norm), first, scale * first), x.shape)


def _across(delta, x):
    """delta without its mean over tokens and its part along x, which is the same for all tokens."""
    delta = delta - delta.mean(-2, keepdims=True)
    return delta - x * jnp.sum(delta * x, axis=-1, keepdims=True) / jnp.sum(x**2, axis=-1, keepdims=True)


def _squared_angle(delta, x):
    delta, x = _wide(delta), _wide(x)
    return jnp.mean(jnp.sum(_across(delta, x) ** 2, axis=-1) / jnp.sum(x**2, axis=-1))
