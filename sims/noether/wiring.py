"""Which tensors a symmetry joins, and with which powers: null vectors of the features of all tensors at once."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sims.noether.features import LARGEST, REST, Measured, View, numbered

DENOMINATORS = (1, 2, 3, 4, 6)
NEARLY_INTEGER = 1e-2  # of a coefficient in an approximate symmetry
ROWS = 8  # of the matrix of features, for every column, are enough


class Candidate(NamedTuple):
    """A family that the gradients suggest: views that count the same units, with the powers of the transformation."""

    kind: str
    views: tuple[View, ...]
    coefficients: tuple[float, ...]
    singular: float
    following: float


class Tolerance(NamedTuple):
    """Singular values up to `exact` are rounding, up to `near` a symmetry nearly; `integer`: of a coefficient."""

    exact: float
    near: float
    integer: float

    def level(self, singular: float) -> float:
        """What a finer family may leave: no more than its coarser one, which may be exact."""
        return self.exact if singular <= self.exact else max(self.near, 2 * singular)


def columns(shapes: dict[str, tuple[int, ...]], samples: int) -> dict[int, list[View]]:
    """Every tensor by every set of its axes, as length -> views; all axes at once only to match another tensor."""
    found: dict[int, list[View]] = {}
    whole = []
    for name, shape in shapes.items():
        axes = [axis for axis, length in enumerate(shape) if length > 1]
        for count in range(len(axes) + 1):
            for units in itertools.combinations(axes, count):
                view = numbered(View(name, tuple((n, 0 if axis in units else REST) for axis, n in enumerate(shape))))
                if count == len(axes) > 1:
                    whole.append(view)
                elif math.prod(view.units) * samples <= LARGEST:
                    found.setdefault(math.prod(view.units), []).append(view)
    lengths = {length: {view.name for view in views} for length, views in found.items()}
    for view in whole:
        length = math.prod(view.units)
        if lengths.get(length, set()) - {view.name}:
            found[length].append(view)
    names = list(shapes)
    return {
        length: sorted({view.canonical(): view for view in found[length]}.values(), key=lambda v: names.index(v.name))
        for length in sorted(found, reverse=True)
    }


# ---- null vectors


def null_vectors(
    features: Sequence[Measured],
    implied: Sequence[dict[int, float]],
    tolerance: Tolerance,
    shapes: dict[str, tuple[int, ...]],
) -> list[tuple[dict[int, float], float, float]]:
    """Sparse vectors with sum_c v_c feature_c = 0 that the implied ones do not span.

    Args:
        features: One a column, of equal shapes.
        implied: Vectors known before, column -> coefficient.
        tolerance: Of the singular values of the normalized columns.
        shapes: Of the tensors; of equally sparse vectors the one with the fewest lengths of a last axis is taken, then
            the one with the fewest tensors of one axis.

    Returns:
        (vector, its residual, the first singular value that is none) each.
    """
    # A column that is nearly zero by itself would, normalized, be noise in all the others.
    relative = np.array([f.length / f.chance if f.chance > 0 else 0.0 for f in features])
    alone = [c for c in range(len(features)) if relative[c] <= tolerance.near]
    rest = [c for c in range(len(features)) if relative[c] > tolerance.near]
    singular, rows = _singular([features[c] for c in rest])
    following = float(min(singular[singular > tolerance.near], default=1.0))
    found = [({c: 1.0}, float(relative[c]), following) for c in alone if {c: 1.0} not in implied]

    lengths = np.array([features[c].length for c in rest])
    known = [v for v in (np.array([w.get(c, 0.0) for c in rest]) for w in implied) if np.any(v)]
    cost = _cost([shapes[features[c].view.name] for c in rest])
    for level, integer in ((tolerance.exact, tolerance.integer), (tolerance.near, NEARLY_INTEGER)):
        null = rows[singular <= level] / lengths if rest else rows
        for vector in sparsest(independent(reduced(null, integer), known), known, cost, integer):
            combined = sum(v * features[c].values for v, c in zip(vector, rest, strict=True))
            residual = float(np.linalg.norm(combined) / np.linalg.norm(vector * lengths))
            known.append(vector)
            if residual <= 10 * tolerance.near:
                found.append(({c: float(v) for v, c in zip(vector, rest, strict=True) if v}, residual, following))
    return found


def _singular(features):
    """Singular values and right vectors of the normalized columns; of a random part of very many rows."""
    if not features:
        return np.zeros(0), np.zeros((0, 0))
    count, most = features[0].values.size, ROWS * (len(features) + 25)
    chosen = np.random.default_rng(0).choice(count, most, replace=False) if count > most else slice(None)
    matrix = np.stack([f.values.ravel()[chosen] / f.length for f in features], 1)
    _, singular, rows = np.linalg.svd(matrix * math.sqrt(count / len(matrix)), full_matrices=False)
    return singular, rows


def reduced(vectors: np.ndarray, tolerance: float) -> list[np.ndarray]:
    """Reduced row echelon form, its rows made whole numbers where they are rational."""
    rows = np.linalg.svd(vectors, full_matrices=False)[2] if len(vectors) else vectors
    rows, rank = rows.copy(), 0
    for column in range(rows.shape[1]):
        if rank == len(rows):
            break
        pivot = rank + int(np.argmax(np.abs(rows[rank:, column])))
        if abs(rows[pivot, column]) <= tolerance:
            continue
        rows[[rank, pivot]] = rows[[pivot, rank]]
        rows[rank] /= rows[rank, column]
        others = np.arange(len(rows)) != rank
        rows[others] -= np.outer(rows[others, column], rows[rank])
        rank += 1
    return [whole(row, tolerance) for row in rows[:rank]]


def whole(row: np.ndarray, tolerance: float) -> np.ndarray:
    """The row times a number: whole where it is rational, more positive than negative entries or the first positive."""
    row = np.where(np.abs(row) > tolerance * np.abs(row).max(), row, 0.0)
    row = row / np.abs(row[row != 0]).min()
    for denominator in DENOMINATORS:
        close = np.round(denominator * row)
        if np.all(np.abs(denominator * row - close) <= tolerance * denominator * np.maximum(1, np.abs(row))):
            row = close / np.gcd.reduce(np.abs(close[close != 0]).astype(int))
            break
    positive, negative = (row > 0).sum(), (row < 0).sum()
    return row if positive > negative or (positive == negative and row[row != 0][0] > 0) else -row


def _cost(shapes):
    def cost(vector):
        places = np.flatnonzero(vector)
        size = float(np.abs(vector[places]).sum())
        lasts, short = {shapes[place][-1:] for place in places}, sum(len(shapes[place]) == 1 for place in places)
        return len(places), size, len(lasts), short, *places

    return cost


def independent(vectors, known):
    """Those that neither the known ones nor the ones before span."""
    chosen, rank = list(known), _rank(known)
    fresh = []
    for vector in vectors:
        if _rank([*chosen, vector]) > rank:
            chosen.append(vector)
            fresh.append(vector)
            rank += 1
    return fresh


def _rank(vectors):
    return np.linalg.matrix_rank(np.stack([v / np.linalg.norm(v) for v in vectors]), tol=1e-4) if len(vectors) else 0


def sparsest(vectors, known, cost, tolerance):
    """The same span modulo the known vectors, each of the least cost that adding one or two of the others reaches."""
    vectors = list(vectors)
    pool = [*known, *(rest for v, w in itertools.combinations(known, 2) for rest in _eliminated(v, w, tolerance))]
    improved = True
    while improved:
        improved = False
        for k in range(len(vectors)):
            for other in [*pool, *vectors[:k], *vectors[k + 1 :]]:
                for rest in _eliminated(vectors[k], other, tolerance):
                    if cost(rest) < cost(vectors[k]):
                        vectors[k], improved = rest, True
    return vectors


def _eliminated(vector, other, tolerance):
    """The vector plus multiples of the other, by which they have an entry less in common."""
    both = (vector != 0) & (other != 0)
    rests = (vector - ratio * other for ratio in sorted(set(vector[both] / other[both])))
    return [whole(rest, tolerance) for rest in rests if np.any(np.abs(rest) > tolerance)]


# ---- the same family seen in other views


def coarser(views: Sequence[View]) -> list[tuple[View, ...]]:
    """The views with some axes of the units summed over, in all ways, themselves among them."""
    if not alike(views):
        everything = dict.fromkeys(range(max(len(view.units) for view in views)), REST)
        return [tuple(views), tuple(view.relabeled(everything) for view in views)]
    count = len(views[0].units)
    found = []
    for size in range(count, -1, -1):
        for kept in itertools.combinations(range(count), size):
            roles = {role: kept.index(role) if role in kept else REST for role in range(count)}
            found.append(tuple(view.relabeled(roles) for view in views))
    return found


def implied_vectors(known: Sequence[tuple[Sequence[View], Sequence[float]]], columns: Sequence[View]):
    """What known families say about these columns, column -> coefficient each."""
    index = {view.canonical(): c for c, view in enumerate(columns)}
    found: list[dict[int, float]] = []
    for views, coefficients in known:
        for summed in coarser(views):
            places = [index.get(view.canonical()) for view in summed]
            if None in places:
                continue
            vector: dict[int, float] = {}
            for place, coefficient in zip(places, coefficients, strict=True):
                vector[place] = vector.get(place, 0.0) + coefficient
            vector = {place: v for place, v in vector.items() if v}
            if vector and vector not in found:
                found.append(vector)
    return found


def alike(views: Sequence[View]) -> bool:
    """Whether the units' axes have the same lengths."""
    return len({view.units for view in views}) == 1


def aligned(views: Sequence[View]) -> tuple[View, ...]:
    """The views with their units' axes cut alike, as a kernel (d, 4, 8) and a kernel (32, d) are: 4, 8 both."""
    cuts = sorted({math.prod(view.units[:k]) for view in views for k in range(len(view.units) + 1)})
    if any(b % a for a, b in itertools.pairwise(cuts)):
        return tuple(views)
    lengths = [b // a for a, b in itertools.pairwise(cuts)]
    found = []
    for view in views:
        axes: list[tuple[int, int]] = []
        pieces: dict[int, list[tuple[int, int]]] = {}
        place = 0
        for role, length in enumerate(view.units):
            while math.prod(size for size, _ in pieces.setdefault(role, [])) < length:
                pieces[role].append((lengths[place], place))
                place += 1
        for length, role in view.axes:
            axes.extend(pieces[role] if role >= 0 else [(length, role)])
        found.append(View(view.name, tuple(axes)))
    return tuple(found)


def ordered(views: Sequence[View]) -> tuple[View, ...]:
    """The units' axes renumbered as they lie in the first tensor."""
    roles = [role for _, role in views[0].axes if role >= 0]
    return tuple(view.relabeled({role: place for place, role in enumerate(roles)}) for view in views)
