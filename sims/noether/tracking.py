"""Charges of a network while any optax optimizer trains it, beside their exact law where one is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sims.descent import optimizer_step
from theory.noether import Optimizer, Sources, SymmetryFamily, bilinear, charge


class Track(NamedTuple):
    """What a symmetry did in K steps: charges of shape (K + 1, ...), sources of shape (K, ...).

    ========  ==========================================================================
    charge    C_k, or s_k of a translation
    gradient  [g_k]_A of the gradient of the loss alone; 0 for a translation
    step      [Delta_k]_A of the update; 0 for a translation
    work      <A theta_k, Delta_k>; the shift of a translation
    cross     <A Delta_k, g_k>; 0 for a translation
    ========  ==========================================================================
    """

    charge: jax.Array
    gradient: jax.Array
    step: jax.Array
    work: jax.Array
    cross: jax.Array


def track_charges(
    loss: Callable,
    params: Any,
    optimizer: optax.GradientTransformation,
    batches: Any,
    families: Sequence[SymmetryFamily],
) -> tuple[Any, jax.Array, tuple[Track, ...]]:
    """Train on the batches in turn and follow the charges of some symmetries.

    Args:
        loss: loss(params, batch).
        params: The parameters to start from, a pytree.
        optimizer: Any optax optimizer.
        batches: Batches stacked along the first axis of every leaf, K of them.
        families: Symmetries that have a charge.

    Returns:
        (the trained parameters, losses of shape (K,), a `Track` for every family).

    Valid: losses without state; jit, vmap.
    Raises: ValueError for a family without charge or that does not fit the parameters.
    Source: arXiv:2012.04728; sources of the discrete laws derived.
    Checked: `charge_budget` of five optimizers (1e-13).
    """

    def step(carry, batch):
        params, state = carry
        value, g = jax.value_and_grad(loss)(params, batch)
        new, state = optimizer_step(optimizer, g, params, state)
        update = jax.tree.map(jnp.subtract, new, params)
        return (new, state), (value, tuple(_sources(family, params, g, update) for family in families))

    (end, _), (losses, sources) = jax.lax.scan(step, (params, optimizer.init(params)), batches)
    last = tuple(charge(family, end) for family in families)
    tracks = (Track(jnp.concatenate([now, end[None]]), *rest) for end, (now, *rest) in zip(last, sources, strict=True))
    return end, losses, tuple(tracks)


def _sources(family, params, g, update):
    now = charge(family, params)
    if family.kind in ("translation", "flat"):
        nothing = jnp.zeros_like(now)
        return now, nothing, nothing, charge(family, update), nothing
    pairs = ((g, g), (update, update), (params, update), (update, g))
    return now, *(bilinear(family, x, y) for x, y in pairs)


def law_sources(track: Track, law: Optimizer) -> Sources:
    """What the law of an optimizer asks of a run."""
    before = track.charge[:-1]
    pull = jnp.asarray(law.eta, before.dtype) * law.weight_decay
    pull = pull.reshape(-1, *(1,) * (before.ndim - 1)) if pull.ndim else pull
    return Sources(
        step=track.step,
        gradient=track.gradient,
        cross=track.cross + law.weight_decay * track.work,
        update=track.step + 2 * pull * track.work + pull**2 * before,
    )


def terms_of(family: SymmetryFamily, params: Any) -> jax.Array:
    """The size of a charge's terms: the largest over units with all signs positive."""
    kind = family.kind if family.kind in ("translation", "matrix") else "scale"
    parts = tuple(part._replace(coefficient=abs(part.coefficient)) for part in family.parts)
    positive_terms = jax.tree.map(jnp.abs, params) if kind == "translation" else params
    return jnp.max(jnp.abs(charge(replace(family, kind=kind, parts=parts), positive_terms)))
