"""Invariant sets of a person's own network: units that vanish, units that are equal, fixed points of a symmetry.

A set is affine, and is made of a pytree of parameters by `vanishing`, `duplicates`, `fixed_points` or `affine`.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.tree_util import register_dataclass
from jaxtyping import Array, Float

from sims.stochastic_collapse.lyapunov import norm

ROUNDING = 1e3  # machine epsilons


class InvariantSet(ABC):
    r"""An affine set A of parameters, :math:`\theta = \theta_A + N z` with :math:`\theta_A \in A` and z = 0 on A.

    `normal(params)` gives the coordinates z across A, `lift(z, params)` the perturbation N z, a pytree like params. The
    columns of N are orthonormal; or N is the orthogonal projection onto the directions across A, and `within` projects
    coordinates.
    """

    @abstractmethod
    def normal(self, params: Any) -> Float[Array, " k"]:
        """The coordinates across A; zero on A."""

    @abstractmethod
    def lift(self, z: Float[Array, " k"], params: Any) -> Any:
        """The perturbation of the parameters that has these coordinates."""

    def within(self, z: Float[Array, " k"], params: Any) -> Float[Array, " k"]:
        """The coordinates without what lies along A, which rounding adds."""
        return z

    def move(self, params: Any, z: Float[Array, " k"]) -> Any:
        """The parameters moved by z across A."""
        return jax.tree.map(jnp.add, params, self.lift(z, params))

    def project(self, params: Any) -> Any:
        """The nearest point of A."""
        return self.move(params, -self.normal(params))

    def distance(self, params: Any) -> Float[Array, ""]:
        """Euclidean distance from A."""
        return jnp.linalg.norm(self.normal(params))


@functools.partial(register_dataclass, data_fields=["unit"], meta_fields=["axes"])
@dataclass(frozen=True)
class Vanishing(InvariantSet):
    """The unit's tensors, all of them, are zero."""

    axes: tuple[tuple[str, int], ...]
    unit: Any

    def normal(self, params):
        return _taken(params, self.axes, self.unit)

    def lift(self, z, params):
        return _placed(params, self.axes, [(self.unit, z)])

    def __str__(self):
        return f"unit {self.unit}"


@functools.partial(register_dataclass, data_fields=["i", "j"], meta_fields=["axes"])
@dataclass(frozen=True)
class Duplicates(InvariantSet):
    """Two units have equal tensors."""

    axes: tuple[tuple[str, int], ...]
    i: Any
    j: Any

    def normal(self, params):
        return (_taken(params, self.axes, self.i) - _taken(params, self.axes, self.j)) / math.sqrt(2)

    def lift(self, z, params):
        half = z / math.sqrt(2)
        return _placed(params, self.axes, [(self.i, half), (self.j, -half)])

    def __str__(self):
        return f"units {self.i} and {self.j}"


@functools.partial(register_dataclass, data_fields=[], meta_fields=["reflect"])
@dataclass(frozen=True)
class FixedPoints(InvariantSet):
    """The parameters that an orthogonal involution leaves alone."""

    reflect: Callable

    def normal(self, params):
        return ravel_pytree(self._odd(params))[0]

    def lift(self, z, params):
        return self._odd(ravel_pytree(params)[1](z))

    def within(self, z, params):
        return self.normal(self.lift(z, params))

    def _odd(self, v):
        return jax.tree.map(lambda x, y: (x - y) / 2, v, self.reflect(v))

    def __str__(self):
        return f"fixed points of {getattr(self.reflect, '__name__', 'a symmetry')}"


@functools.partial(register_dataclass, data_fields=["basis", "offset"], meta_fields=[])
@dataclass(frozen=True)
class Affine(InvariantSet):
    """The solutions of linear equations."""

    basis: Any  # (parameters, k), orthonormal columns
    offset: Any

    def normal(self, params):
        return ravel_pytree(params)[0] @ self.basis - self.offset

    def lift(self, z, params):
        return ravel_pytree(params)[1](self.basis @ z)

    def __str__(self):
        return f"{len(self.offset)} linear equations"


def vanishing(params: Any, axes: Mapping[str, int], unit: int) -> Vanishing:
    """The set where a unit vanishes, its incoming and its outgoing weights: the sign set.

    Invariant iff the activation is zero at zero (not for a sigmoid), and the unit's bias is among its tensors.

    Args:
        params: Any pytree of floating-point arrays.
        axes: Which axis counts the units, for every tensor the unit has a part of: {"Dense_0/kernel": 1,
            "Dense_0/bias": 0, "Dense_1/kernel": 0}. Names are the keys of the tensor, joined by "/".
        unit: Which unit, from 0.

    Raises: ValueError, one sentence: unknown tensors or axes, different numbers of units, a unit that is not there.
    """
    _require_unit(_count(params, axes), unit=unit)
    return Vanishing(tuple(axes.items()), unit)


def duplicates(params: Any, axes: Mapping[str, int], i: int, j: int) -> Duplicates:
    """The set where two units are equal, in their incoming and their outgoing weights: the permutation set.

    Invariant for every activation. Equal incoming weights alone are not kept.

    Args:
        params: Any pytree of floating-point arrays.
        axes: Which axis counts the units, for every tensor that the units have a part of, as in `vanishing`.
        i: One unit, from 0.
        j: The other.

    Raises: ValueError, one sentence: as `vanishing`, or twice the same unit.
    """
    _require_unit(_count(params, axes), i=i, j=j)
    if i == j:
        raise ValueError(f"`j` must be another unit than `i`, but got {j} twice.")
    return Duplicates(tuple(axes.items()), i, j)


def fixed_points(params: Any, reflect: Callable[[Any], Any]) -> FixedPoints:
    """The set that an orthogonal involution of the parameters, a symmetry of every sample's loss, leaves alone.

    Args:
        params: Any pytree of floating-point arrays.
        reflect: A linear function on such pytrees, its own inverse, that keeps the Euclidean norm: an exchange of two
            heads, a change of signs.

    Raises: ValueError, one sentence, for a function that is not linear, no involution or not orthogonal.
    """
    u, v = (random_like(params, jax.random.key(seed)) for seed in (0, 1))

    def differ(a, b):
        gap = jax.tree.map(jnp.subtract, a, b)
        return float(norm(gap)) > ROUNDING * epsilon(params) * float(norm(v))

    reflected = reflect(v)
    if differ(reflect(jax.tree.map(jnp.add, u, v)), jax.tree.map(jnp.add, reflect(u), reflected)):
        raise ValueError("`reflect` must be linear, but the image of a sum is not the sum of the images.")
    if differ(reflect(reflected), v):
        raise ValueError("`reflect` must be its own inverse, but applied twice it moves the parameters.")
    if abs(float(norm(reflected) - norm(v))) > ROUNDING * epsilon(params) * float(norm(v)):
        raise ValueError("`reflect` must be orthogonal, but it changes inner products.")
    return FixedPoints(reflect)


def affine(params: Any, constraint: Callable[[Any], Any]) -> Affine:
    """The set where affine functions of the parameters are zero.

    Args:
        params: Any pytree of floating-point arrays, of some thousand numbers at most.
        constraint: An affine function of such a pytree, with independent values: a vector, or a pytree.

    Raises: ValueError, one sentence, for a function that is not affine or whose values depend on each other.
    """
    flat, unravel = ravel_pytree(params)

    def values(x):
        return ravel_pytree(constraint(unravel(x)))[0]

    zero = jnp.zeros_like(flat)
    d, C = values(zero), jax.jacfwd(values)(zero)
    other = ravel_pytree(random_like(params, jax.random.key(0)))[0]
    gap = values(other) - (C @ other + d)
    if float(jnp.abs(gap).max()) > ROUNDING * epsilon(params) * float(jnp.abs(C).sum(1).max() * jnp.abs(other).max()):
        raise ValueError("`constraint` must be affine, but it is not.")
    Q, R = jnp.linalg.qr(C.T)
    size = jnp.abs(jnp.diag(R))
    if len(C) > len(flat) or float(size.min()) <= ROUNDING * epsilon(params) * float(size.max()):
        raise ValueError(f"`constraint` must have independent values, but some of the {len(C)} follow from others.")
    return Affine(Q, -jax.scipy.linalg.solve_triangular(R, d, trans=1))


def require_finite(name: str, tree: Any) -> None:
    """Requirement that every floating-point number of a pytree is finite."""
    for leaf in map(np.asarray, jax.tree.leaves(tree)):
        if np.issubdtype(leaf.dtype, np.floating) and not np.isfinite(leaf).all():
            raise ValueError(f"`{name}` must be finite, but got {leaf[~np.isfinite(leaf)][0]}.")


# ---- parts of a pytree


def tensors(params: Any) -> dict[str, Any]:
    """The leaves of a pytree by their paths, keys joined by "/"."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _taken(params, axes, unit):
    """A unit's part of its tensors, in one vector."""
    named = tensors(params)
    parts = [jax.lax.dynamic_index_in_dim(named[name], unit, axis, keepdims=False) for name, axis in axes]
    return ravel_pytree(parts)[0]


def _placed(params, axes, vectors):
    """A pytree of zeros but for the parts of some units: [(unit, vector), ...]."""
    out = {name: jnp.zeros_like(x) for name, x in tensors(params).items()}
    for unit, vector in vectors:
        start = 0
        for name, axis in axes:
            shape = out[name].shape[:axis] + out[name].shape[axis + 1 :]
            stop = start + math.prod(shape)
            part = vector[start:stop].reshape(shape).astype(out[name].dtype)
            out[name] = jax.lax.dynamic_update_index_in_dim(out[name], part, unit, axis)
            start = stop
    return jax.tree.unflatten(jax.tree.structure(params), out.values())


def _count(params, axes):
    """The number of units, the same for every tensor."""
    require_finite("params", params)
    named = tensors(params)
    if not axes:
        raise ValueError("`axes` must name at least one tensor, but got none.")
    counts = {}
    for name, axis in axes.items():
        if name not in named:
            raise ValueError(f"`axes` must name tensors of `params` ({', '.join(named)}), but got {name}.")
        shape = np.shape(named[name])
        if not 0 <= axis < len(shape):
            raise ValueError(f"`axes` must fit the tensors, but {name} has shape {shape} and no axis {axis}.")
        counts[name] = shape[axis]
    if len(set(counts.values())) > 1:
        words = ", ".join(f"{count} in {name}" for name, count in counts.items())
        raise ValueError(f"`axes` must count the same units in every tensor, but got {words}.")
    return counts[name]


def _require_unit(count, **named):
    for name, unit in named.items():
        if not 0 <= unit < count:
            raise ValueError(f"`{name}` must be from 0 to {count - 1}, but got {unit}.")


def random_like(params, key, scaled=False):
    """Gaussian numbers in the shape of a pytree, `scaled` as large as each of its arrays in mean square."""
    leaves, structure = jax.tree.flatten(params)

    def like(x, k):
        size = jnp.sqrt(jnp.mean(x**2)) if scaled else jnp.ones_like(x, shape=())
        return jnp.where(size > 0, size, jnp.ones_like(size)) * jax.random.normal(k, x.shape, x.dtype)

    return structure.unflatten(map(like, map(jnp.asarray, leaves), jax.random.split(key, len(leaves))))


def epsilon(params):
    """The largest machine epsilon of a pytree."""
    return max(float(jnp.finfo(jnp.result_type(x)).eps) for x in jax.tree.leaves(params))
