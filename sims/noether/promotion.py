"""From one-parameter families to all that they belong to: GL(r) of a pair, rotations of an inner axis, finer units."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from sims.noether.features import (
    INNER,
    LARGEST,
    PAIRS,
    REST,
    Pairs,
    View,
    divisors,
    measure,
    numbered,
    violation,
)
from sims.noether.wiring import Candidate, alike, coarser, ordered

LARGEST_INNER = 128  # rotations of more dimensions are left out
MOST_COMBINATIONS = 10**6  # of finer views of a family's tensors
LARGEST_MATRIX = 1024  # rows of the identity that is tested


def promoted(candidate: Candidate, pairs: Pairs, shapes: dict[str, tuple[int, ...]], near: float) -> Candidate:
    r"""The family as :math:`GL(r)`, for the largest r at which the whole matrix cancels; itself where none does.

    .. math:: U^\top G_U = G_V^\top V
    """
    views = candidate.views
    if candidate.kind != "rescale" or not alike(views) or any(abs(c) != 1 for c in candidate.coefficients):
        return candidate
    for option in _with_inner_axis(views):
        parts = [view.part(c, shapes) for view, c in zip(option, candidate.coefficients, strict=True)]
        if _cancels(pairs, "matrix", parts, near):
            return candidate._replace(kind="matrix", views=option)
    return candidate


def _cancels(pairs, kind, parts, near):
    total, squares = 0.0, 0.0
    for value, square in violation(pairs, kind, parts):
        total, squares = total + float(value @ value), squares + square
        if total > near**2 * squares * 100:
            return False
    return total <= near**2 * squares


def _with_inner_axis(views: Sequence[View]) -> list[tuple[View, ...]]:
    """All ways to read consecutive axes of the units, or the last part of one, as inner axis; longest first."""
    count, found = len(views[0].units), []
    for first, last in itertools.combinations(range(count + 1), 2):
        roles = {role: INNER if first <= role < last else role for role in range(count)}
        found.append(tuple(_merged(view.relabeled(roles)) for view in views))
    for role, length in enumerate(views[0].units):
        for inner in divisors(length)[1:-1]:
            cut = ((length // inner, role), (inner, INNER))
            found.append(tuple(view.replaced(_place(view, role), cut) for view in views))
    whole = [option for option in found if all(_is_matrix(view) for view in option)]
    return sorted(whole, key=lambda option: -option[0].inner)


def _place(view, role):
    return next(place for place, (_, r) in enumerate(view.axes) if r == role)


def _merged(view):
    """Neighbouring inner axes made one, the units' axes numbered without gaps."""
    axes: list[tuple[int, int]] = []
    for length, role in view.axes:
        if role == INNER and axes and axes[-1][1] == INNER:
            axes[-1] = (axes[-1][0] * length, INNER)
        else:
            axes.append((length, role))
    order = {role: place for place, role in enumerate(sorted(role for _, role in axes if role >= 0))}
    return View(view.name, tuple((length, order.get(role, role)) for length, role in axes))


def _is_matrix(view):
    return sum(role == INNER for _, role in view.axes) == 1 and 1 < view.inner <= LARGEST_MATRIX


def planes_and_inner(shapes: dict[str, tuple[int, ...]], samples: int) -> dict[tuple[int, int], list[View]]:
    """Views with an inner axis to rotate, an axis of the tensor or a pair cut from one, as (inner, units) -> views."""
    found: dict[tuple[int, int], dict[View, View]] = {}
    whole = []
    for name, shape in shapes.items():
        for axis, length in enumerate(shape):
            others = [other for other, size in enumerate(shape) if other != axis and size > 1]
            cuts = [((length, INNER),)]
            if length > 2 and length % 2 == 0:
                cuts += [((a, 0), (2, INNER), (length // 2 // a, 0)) for a in divisors(length // 2)]
            for count in range(len(others) + 1):
                for units, cut in itertools.product(itertools.combinations(others, count), cuts):
                    axes = [(size, 0 if other in units else REST) for other, size in enumerate(shape)]
                    axes[axis : axis + 1] = [piece for piece in cut if piece[0] > 1] or [(1, REST)]
                    view = numbered(View(name, tuple(axes)))
                    n, r = math.prod(view.units), view.inner
                    if not (1 < r <= LARGEST_INNER and n * min(r * (r - 1) // 2, PAIRS) * samples <= LARGEST):
                        continue
                    if count == len(others) > 0:
                        whole.append(((r, n), view))
                    else:
                        found.setdefault((r, n), {})[view.canonical()] = view
    for key, view in whole:
        if {other.name for other in found.get(key, {})} - {view.name}:
            found[key][view.canonical()] = view
    return {key: list(found[key].values()) for key in sorted(found, reverse=True)}


def subgroups(candidate: Candidate) -> list[tuple[tuple[View, ...], tuple[float, ...]]]:
    """The rotations that a group contains: of its inner axis and of every part of it, of each unit or of many alike."""
    views, found = candidate.views, []
    count, r = len(views[0].units), views[0].inner
    for inner in divisors(r)[1:]:
        for before in divisors(r // inner):
            cut = ((before, count), (inner, INNER), (r // inner // before, count + 1))
            pieces = [view.replaced(_place(view, INNER), cut) for view in views]
            found.extend(coarser(ordered([_merged(view) for view in pieces])))
    return [(option, (1.0,) * len(option)) for option in found]


def rotations(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those that turn all their tensors the same way, as kind "rotation"."""
    same = (c for c in candidates if len(set(c.coefficients)) == 1)
    return [c._replace(kind="rotation", coefficients=(1.0,) * len(c.views), views=ordered(c.views)) for c in same]


# ---- finer units, by axes that are longer, grouped or flattened


def refined(
    candidate: Candidate, pairs: Pairs, kind: str, shapes: dict[str, tuple[int, ...]], near: float
) -> Candidate:
    """The family with as many units as it has: a summed axis of every tensor, or a part of it, may count units too."""
    if not alike(candidate.views):
        return candidate
    step = _refine_once(candidate, pairs, kind, shapes, near)
    while step is not None:
        candidate, step = step, _refine_once(step, pairs, kind, shapes, near)
    return candidate._replace(views=ordered(candidate.views))


def _refine_once(candidate, pairs, kind, shapes, near):
    views, new = candidate.views, len(candidate.views[0].units)
    rests = [[place for place, (n, role) in enumerate(view.axes) if role == REST and n > 1] for view in views]
    lengths = ([view.axes[place][0] for place in places] for view, places in zip(views, rests, strict=True))
    common = set.intersection(*({d for n in each for d in divisors(n)[1:]} for each in lengths))
    if not common:
        return None
    # Every summed axis resolved once; the finer sums are sums of these.
    resolved = [
        measure(pairs, kind, [view.replaced(p, [(view.axes[p][0], new)]) for p in places], shapes)
        for view, places in zip(views, rests, strict=True)
    ]
    for length in sorted(common, reverse=True):
        options = [
            [
                (view.replaced(place, [(a, REST), (length, new), (n // length // a, REST)]), _summed(x, n, a, length))
                for place, x in zip(places, measured, strict=True)
                for n in [view.axes[place][0]]
                if n % length == 0
                for a in divisors(n // length)
            ]
            for view, places, measured in zip(views, rests, resolved, strict=True)
        ]
        chosen = _cancelling(options, candidate.coefficients, near)
        if chosen is not None:
            return candidate._replace(views=chosen)
    return None


def _summed(measured, n, before, length):
    """(samples, units, length, k) of a feature resolved along an axis of length n, and its chance level."""
    samples, units, k = measured.values.shape
    shape = (samples, units // n, before, length, n // before // length, k)
    return measured.values.reshape(shape).sum((2, 4)), measured.chance


def _cancelling(options, coefficients, near):
    """One view of every tensor such that the features cancel unit by unit, or None."""
    counts = [len(option) for option in options]
    if math.prod(counts) > MOST_COMBINATIONS:
        return None
    probes = np.random.default_rng(0).standard_normal((4, *options[0][0][1][0].shape))
    totals = np.zeros((1, len(probes)))
    for option, coefficient in zip(options, coefficients, strict=True):
        projected = coefficient * np.stack([(probes * x).sum((1, 2, 3, 4)) for _, (x, _) in option])
        totals = (totals[:, None, :] + projected[None, :, :]).reshape(-1, len(probes))
    chance = math.sqrt(sum((c * option[0][1][1]) ** 2 for c, option in zip(coefficients, options, strict=True)))
    for place in np.flatnonzero(np.abs(totals).max(1) <= 10 * near * chance):
        chosen = [option[k] for option, k in zip(options, np.unravel_index(place, counts), strict=True)]
        value = sum(c * x for c, (_, (x, _)) in zip(coefficients, chosen, strict=True))
        if np.linalg.norm(value) <= near * chance:
            return tuple(view for view, _ in chosen)
    return None
