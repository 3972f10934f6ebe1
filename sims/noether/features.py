"""Gradients contracted with the parameters, tensor by tensor and axis by axis, which a symmetry makes cancel."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from theory.noether.family import MATRICES, Part, arranged, tensors

REST, INNER = -1, -2
LARGEST = 2**24  # numbers in a feature over all samples: beyond it is left out
PAIRS = 128  # of dimensions, to look for rotations in


class View(NamedTuple):
    """A tensor as axes (length, role): a number, the place among the units' axes; REST, summed over; or INNER."""

    name: str
    axes: tuple[tuple[int, int], ...]

    @property
    def units(self) -> tuple[int, ...]:
        """Lengths of the axes that count units, in their order."""
        return tuple(length for role, length in sorted((role, length) for length, role in self.axes) if role >= 0)

    @property
    def inner(self) -> int:
        """Length of the inner axis, 1 without."""
        return math.prod(length for length, role in self.axes if role == INNER)

    def replaced(self, place: int, pieces: Iterable[tuple[int, int]]) -> View:
        """With an axis split into pieces; those of length 1 are left out."""
        pieces = tuple(piece for piece in pieces if piece[0] > 1) or ((1, REST),)
        return View(self.name, (*self.axes[:place], *pieces, *self.axes[place + 1 :]))

    def relabeled(self, roles: dict[int, int]) -> View:
        """With other roles, where `roles` has one."""
        return View(self.name, tuple((length, roles.get(role, role)) for length, role in self.axes))

    def canonical(self) -> View:
        """The same sums with the fewest axes: equal views become equal."""
        axes: list[list[int]] = []  # length, first role, last role
        for length, role in self.axes:
            if length == 1:
                continue
            joins = axes and (role == axes[-1][2] + 1 if role >= 0 <= axes[-1][2] else role == axes[-1][2])
            if joins:
                axes[-1] = [axes[-1][0] * length, axes[-1][1], role]
            else:
                axes.append([length, role, role])
        order = {first: place for place, first in enumerate(sorted(first for _, first, _ in axes if first >= 0))}
        return View(self.name, tuple((length, order.get(first, first)) for length, first, _ in axes))

    def part(self, coefficient: float, shapes: dict[str, tuple[int, ...]]) -> Part:
        """The tensor's part in a family, in its own shape if that has the axes."""
        axes = _tidied(self.axes, shapes[self.name])
        shape = tuple(length for length, _ in axes)
        places = [place for _, place in sorted((role, place) for place, (_, role) in enumerate(axes) if role >= 0)]
        inner = [place for place, (_, role) in enumerate(axes) if role == INNER]
        own = shape == shapes[self.name]
        return Part(self.name, tuple(places), float(coefficient), None if own else shape, inner[0] if inner else None)


def _tidied(axes, shape):
    """Pieces of one of the tensor's own axes joined again where they have one role or consecutive ones."""
    tidy, rest = [], list(axes)
    for own in shape:
        taken = [rest.pop(0)] if rest else []
        while math.prod(length for length, _ in taken) < own and rest:
            taken.append(rest.pop(0))
        if math.prod(length for length, _ in taken) != own:
            return axes  # axes of the tensor were merged
        roles = [role for length, role in taken if length > 1] or [taken[0][1]]
        consecutive = roles[0] >= 0 and roles == list(range(roles[0], roles[0] + len(roles)))
        if consecutive or len(roles) == 1 or set(roles) == {REST}:
            tidy.append((own, roles[0]))
        else:
            tidy.extend(taken)
    return (*tidy, *rest)


def numbered(view: View) -> View:
    """Units' axes numbered as they lie in memory."""
    count = itertools.count()
    return View(view.name, tuple((length, next(count) if role >= 0 else role) for length, role in view.axes))


def divisors(n: int) -> list[int]:
    """All divisors, in ascending order."""
    return [d for d in range(1, n + 1) if n % d == 0]


# ---- what the loss does as units are shifted, scaled, turned or mixed, by one gradient


class Pair(NamedTuple):
    """Parameters and a gradient there by the tensors' names, and the squared length of the gradient."""

    theta: dict[str, np.ndarray]
    g: dict[str, np.ndarray]
    squares: float


Pairs = Iterable[Pair]


def terms(kind: str, x: np.ndarray, g: np.ndarray) -> np.ndarray:
    """The entries that a shift adds, those of g, or a scaling, theta g."""
    return g if kind in ("shift", "translation", "flat") else x * g


def summed(part: Part, entries: np.ndarray) -> np.ndarray:
    """Sums of a tensor's entries over what is no unit, shape (units, 1)."""
    seen = part.shape or entries.shape
    total = entries.reshape(seen).sum(tuple(axis for axis in range(len(seen)) if axis not in part.units))
    return total.transpose(np.argsort(np.argsort(part.units))).reshape(-1, 1)


def matrices(part: Part, x: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, float]:
    """theta^T g, shape (units, inner, inner), for mixing an inner axis, and the sum of the squares of its terms."""
    x, g = arranged(part, x), arranged(part, g)
    return x @ g.transpose(0, 2, 1), float(np.sum((x**2).sum(1) * (g**2).sum(1)))


def spins(part: Part, x: np.ndarray, g: np.ndarray, most: int | None = None) -> tuple[np.ndarray, float]:
    """The antisymmetric part of theta^T g, shape (units, pairs), at most so many, and about its terms' squares' sum."""
    product, squares = matrices(part, x, g)
    i, j = _pairs(product.shape[1], most)
    return product[:, i, j] - product[:, j, i], 2 * squares * len(i) / product.shape[1] ** 2


@functools.cache
def _pairs(n, most):
    i, j = np.triu_indices(n, 1)
    chosen = slice(None) if most is None or len(i) <= most else np.random.default_rng(0).choice(len(i), most, False)
    return i[chosen], j[chosen]


class Measured(NamedTuple):
    """A view's feature at every sample, (samples, units, k), its length, and that of terms of random sign."""

    view: View
    values: np.ndarray
    length: float
    chance: float


def measure(pairs: Pairs, kind: str, views: Sequence[View], shapes: dict[str, tuple[int, ...]]) -> list[Measured]:
    """Features of kind "shift", "scale" or "spin" of all views at all pairs."""
    parts = [view.part(1.0, shapes) for view in views]
    values: list[list[np.ndarray]] = [[] for _ in views]
    squares = np.zeros(len(views))
    for theta, g, _ in pairs:
        seen: dict[str, tuple[np.ndarray, float]] = {}
        for k, part in enumerate(parts):
            name = part.name
            if kind == "spin":
                value, square = spins(part, theta[name], g[name], PAIRS)
            else:
                if name not in seen:
                    entries = terms(kind, theta[name], g[name])
                    seen[name] = entries, float(np.sum(entries**2))
                value, square = summed(part, seen[name][0]), seen[name][1]
            values[k].append(value)
            squares[k] += square
    stacked = [np.stack(x) for x in values]
    return [
        Measured(v, x, float(np.linalg.norm(x)), float(c**0.5)) for v, x, c in zip(views, stacked, squares, strict=True)
    ]


def violation(pairs: Pairs, kind: str, parts: Sequence[Part]) -> Iterator[tuple[np.ndarray, float]]:
    """What a family of this kind forces to zero, flat, and the sum of the squares of its terms, at every pair."""
    for theta, g, slope in pairs:
        total, squares = 0.0, 0.0
        for part in parts:
            x, y, c = theta[part.name], g[part.name], part.coefficient
            if kind in MATRICES:
                value, square = (matrices if kind == "matrix" else spins)(part, x, y)
                value = value if c > 0 else -value.transpose(0, 2, 1)
            else:
                entries = terms(kind, x, y)
                value, square = c * summed(part, entries), c**2 * float(np.sum(entries**2))
            total, squares = total + value, squares + square
        # A flat tensor's own gradient is rounding, so it is held against that of all tensors.
        yield np.ravel(total), slope if kind == "flat" else squares


# ---- gradients


class Samples:
    """Gradients of all batches at random parameters, a sequence of `Pair` in float64.

    Args:
        compiled: `confirm.Compiled`.
        params: Parameters, which set the scale of the random ones.
        batches: Batches.
        points: How many random parameters.
        seed: Their seed.
    """

    def __init__(self, compiled: Any, params: Any, batches: Sequence[Any], points: int, seed: int):
        rng = np.random.default_rng(seed)
        self.compiled, self.batches, self.flat = compiled, batches, []
        self.points = [_randomized(params, rng) for _ in range(points)]
        self.hosted = [jax.tree.map(lambda x: np.asarray(x, float), point) for point in self.points]
        nearby = [
            _like(x, np.asarray(x) * (1 + 1e-3 * rng.standard_normal(x.shape))) for x in jax.tree.leaves(self.points[0])
        ]
        self._nearby = jax.tree.structure(params).unflatten(nearby)
        first = self.points[0], batches[0]
        values = [float(compiled.value(*first)) for _ in range(2)] + [float(compiled.gradient(*first)[0])]
        tolerance = max(1e-6, *(1e4 * float(jnp.finfo(x.dtype).eps) for x in jax.tree.leaves(params)))
        for value in values[1:]:
            if abs(value - values[0]) > tolerance * abs(values[0]):
                raise ValueError(
                    "`loss` must return the same number for the same arguments, but got "
                    f"{values[0]:.6g} and {value:.6g}."
                )
        found = [result for point in self.points for result in self._gradients(point)]
        self._pairs = [pair for _, pair in found]
        self.size = float(np.mean([abs(value) for value, _ in found])) or 1.0

    def _gradients(self, params):
        """(loss, pair) on every batch."""
        theta = {name: np.asarray(x, float) for name, x in tensors(params).items()}
        for batch in self.batches:
            value, gradient = self.compiled.gradient(params, batch)
            g = {name: np.asarray(x, float) for name, x in tensors(gradient).items()}
            for name, x in g.items():
                if not np.isfinite(x).all():
                    raise ValueError(f"`loss` must have finite gradients, but got that of {name} at random parameters.")
            yield float(value), Pair(theta, g, float(sum(np.sum(x**2) for x in g.values())))

    def __iter__(self):
        return iter(self._pairs)

    def __len__(self):
        return len(self._pairs)

    def some(self, count: int):
        """At least that many of the pairs and at least 24, if there are, from all points."""
        step = max(1, len(self) // max(24, count))
        return self._pairs[::step]

    def revived(self, rng):
        """The first point with all tensors without gradient drawn anew, so that dead units live again."""
        point = self.hosted[0]
        drawn = [
            2 * np.abs(x).max() * rng.standard_normal(x.shape) if name in self.flat else x
            for name, x in tensors(point).items()
        ]
        return jax.tree.structure(point).unflatten(drawn)

    def close(self):
        """Pairs at parameters next to the first point."""
        return [pair for _, pair in self._gradients(self._nearby)]


def _randomized(params, rng):
    """Parameters of the same size, without the zeros and ones of an initialization that hide or fake a symmetry."""

    def one(x):
        values = np.asarray(x, float)
        size = float(np.sqrt(np.mean(values**2)))
        if size == 0 and x.ndim > 1:
            size = 10 / math.sqrt(math.prod(x.shape[:-1]))
        noise = rng.standard_normal((2, *x.shape))
        return _like(x, values * np.exp(0.2 * noise[0]) + 0.1 * (size or 1.0) * noise[1])

    return jax.tree.map(one, params)


def _like(x, values):
    return jnp.asarray(values, x.dtype)
