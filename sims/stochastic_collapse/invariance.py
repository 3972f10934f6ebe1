"""Is it invariant? The gradient of every single sample across a set, and the Hessians that act there.

`sims.stochastic_collapse.collapse_audit` says whether training is attracted to the set.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sims.stochastic_collapse.invariant_sets import (
    ROUNDING,
    Affine,
    Duplicates,
    FixedPoints,
    InvariantSet,
    Vanishing,
    affine,
    duplicates,
    epsilon,
    fixed_points,
    random_like,
    require_finite,
    vanishing,
)
from sims.stochastic_collapse.lyapunov import norm
from theory.arguments import integer

__all__ = [
    "Affine",
    "Duplicates",
    "FixedPoints",
    "Invariance",
    "InvariantSet",
    "Vanishing",
    "across",
    "affine",
    "check_invariance",
    "duplicates",
    "fixed_points",
    "normal_hessians",
    "origin",
    "require_on",
    "require_samples",
    "vanishing",
]


@dataclass(frozen=True)
class Invariance:
    """Whether every sample's gradient stays in the set.

    Args:
        normal: Size of each sample's gradient across the set, at the point asked for and at random points of the set;
            in units of the largest gradient. Shape (points, samples).
        tolerance: What rounding may leave of it.
    """

    normal: np.ndarray = field(repr=False)
    tolerance: float

    @property
    def largest(self) -> float:
        """The largest gradient across the set."""
        return float(self.normal.max())

    @property
    def holds(self) -> bool:
        return self.largest <= self.tolerance


def check_invariance(
    loss: Callable[[Any, Any], Array],
    params: Any,
    invariant_set: InvariantSet,
    data: Any,
    *,
    points: int = 4,
    seed: int = 0,
) -> Invariance:
    r"""Gradient of every sample across a set, at a point of the set and at random ones.

    .. math:: P_\perp \nabla \ell_i(\theta) = 0 \quad \forall \theta \in A,\ \forall i

    Args:
        loss: loss(params, batch), the mean over the batch.
        params: A point of the set; `invariant_set.project` gives the nearest one.
        invariant_set: The set.
        data: The samples, a pytree of arrays that count them along their first axis.
        points: Points of the set, from 1: the one given, and others around it, as far away as the parameters are large.
        seed: Seed of the other points.

    Returns:
        An `Invariance`.

    Valid: at the points tried. A kink (ReLU at zero) counts as JAX differentiates it.
    Raises: ValueError, one sentence: a point that is not on the set, values that are not finite.
    Source: arXiv:2306.04251, the definition of an invariant set.
    Checked: sign and permutation sets of dense and convolutional networks, those that are invariant (1e-13) and those
        that are not.
    """
    integer(1, points=points)
    require_on(invariant_set, params)
    require_samples(data)
    normal, whole = _sample_gradients(loss, params, invariant_set, data, points, jax.random.key(seed))
    largest = float(whole.max())
    if not math.isfinite(largest):
        raise ValueError(f"`loss` must have finite gradients on the set, but got {largest}.")
    return Invariance(np.asarray(normal) / (largest or 1.0), ROUNDING * epsilon(params))


@functools.partial(jax.jit, static_argnames=("loss", "points"))
def _sample_gradients(loss, params, invariant_set, data, points, key):
    """(Size of the gradient across the set, size of the whole gradient), shapes (points, samples)."""

    def near(k):
        noise = random_like(params, jax.random.fold_in(key, k), scaled=True)
        moved = jax.tree.map(lambda x, y: jnp.where(k > 0, x + y, x), params, noise)
        return invariant_set.project(moved)

    def at(k):
        point = near(k)

        def of(sample):
            batch = jax.tree.map(lambda x: x[None], sample)
            normal = jax.grad(across(loss, point, invariant_set, batch))(origin(invariant_set, point))
            return jnp.linalg.norm(normal), norm(jax.grad(loss)(point, batch))

        return jax.lax.map(of, data)

    return jax.lax.map(at, jnp.arange(points))


def normal_hessians(
    loss: Callable[[Any, Any], Array], params: Any, invariant_set: InvariantSet, data: Any
) -> Float[Array, "samples k k"]:
    r"""Hessian of every sample's loss across a set: the matrices whose batch means drive a normal perturbation.

    .. math:: M_i = N^\top \nabla^2 \ell_i(\theta)\, N

    Args:
        loss: loss(params, batch), the mean over the batch.
        params: A point of the set.
        invariant_set: The set.
        data: The samples, a pytree of arrays that count them along their first axis.

    Returns:
        M_i, in the coordinates of `invariant_set.normal`. Shape (samples, k, k).

    Valid: losses that are twice differentiable at the point.
    Raises: ValueError, one sentence: a point that is not on the set, values that are not finite.
    Source: derived.
    Checked: `theory.stochastic_collapse.sign_set_hessian` and `permutation_set_hessian` (1e-13).
    """
    require_on(invariant_set, params)
    require_samples(data)
    return _normal_hessians(loss, params, invariant_set, data)


@functools.partial(jax.jit, static_argnames="loss")
def _normal_hessians(loss, params, invariant_set, data):
    def of(sample):
        batch = jax.tree.map(lambda x: x[None], sample)
        return jax.jacfwd(jax.grad(across(loss, params, invariant_set, batch)))(origin(invariant_set, params))

    return jax.lax.map(of, data)


def across(loss, params, invariant_set, batch):
    """The loss as a function of the coordinates across the set."""
    return lambda z: loss(invariant_set.move(params, z), batch)


def origin(invariant_set, params):
    """The coordinates of a point of the set: zeros."""
    shape = jax.eval_shape(invariant_set.normal, params)
    return jnp.zeros(shape.shape, shape.dtype)


def require_on(invariant_set: InvariantSet, params: Any) -> None:
    """Requirement that the parameters are finite and lie on the set, to rounding."""
    require_finite("params", params)
    distance, size = float(invariant_set.distance(params)), float(norm(params))
    if not distance <= ROUNDING * epsilon(params) * size:
        raise ValueError(
            f"`params` must lie on the invariant set ({invariant_set}), but got a distance of {distance:.3g}; "
            "`invariant_set.project` gives the nearest point."
        )


def require_samples(data: Any) -> int:
    """The number of samples, which every array of the data must have along its first axis."""
    counts = {np.shape(x)[0] if np.ndim(x) else 0 for x in jax.tree.leaves(data)}
    if len(counts) != 1 or 0 in counts:
        raise ValueError(f"`data` must count its samples along the first axis, but got {sorted(counts)} of them.")
    require_finite("data", data)
    return counts.pop()
