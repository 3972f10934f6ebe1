"""From which learning rate, or batch size, on does a pair merge? Where a collapse exponent changes its sign."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array

from sims.stochastic_collapse.collapse_audit import collapse_exponent
from sims.stochastic_collapse.invariance import InvariantSet
from theory.arguments import finite, integer, positive


class Critical(NamedTuple):
    """The value at which an exponent changes its sign, and its standard error."""

    value: float
    error: float


def critical_learning_rate(
    loss: Callable[[Any, Any], Array],
    params: Any,
    invariant_set: InvariantSet,
    data: Any,
    between: tuple[float, float],
    batch: int,
    *,
    points: int = 9,
    halvings: int = 4,
    **options: Any,
) -> Critical | None:
    """Learning rate at which a set begins, or ceases, to attract: where the collapse exponent changes its sign.

    Args:
        loss: loss(params, batch), the mean over the batch.
        params: A point of the set.
        invariant_set: The set.
        data: The samples.
        between: Smallest and largest learning rate, positive.
        batch: Samples of a minibatch.
        points: Learning rates that are tried first, evenly spaced in the logarithm, from 2.
        halvings: How often the first interval with a change of sign is halved.
        options: The other arguments of `collapse_exponent`.

    Returns:
        The smallest of them, as a `Critical`; None where no two neighbours differ in sign. The draws are the same at
        every rate, so that the difference between two of them is seen more sharply than either.

    Valid: to the standard error that comes with it, if the exponent is smooth on the first interval. Rates at which a
        run diverges count as having no sign.
    Raises: ValueError, one sentence, as `collapse_exponent`.
    Source: derived.
    Checked: a linear neuron, whose critical rate is known in closed form.
    """
    _require_range(between, points, halvings)
    return _sign_change(
        lambda lr: collapse_exponent(loss, params, invariant_set, data, lr, batch, **options),
        np.geomspace(*between, points), halvings,
    )  # fmt: skip


def critical_batch_size(
    loss: Callable[[Any, Any], Array],
    params: Any,
    invariant_set: InvariantSet,
    data: Any,
    lr: float,
    between: tuple[int, int],
    *,
    points: int = 5,
    halvings: int = 2,
    **options: Any,
) -> Critical | None:
    """Batch size at which a set ceases to attract, as `critical_learning_rate`; every size tried is compiled anew.

    Args:
        loss: loss(params, batch), the mean over the batch.
        params: A point of the set.
        invariant_set: The set.
        data: The samples.
        lr: Learning rate, positive.
        between: Smallest and largest batch.
        points: Sizes that are tried first, evenly spaced in the logarithm up to rounding, from 2.
        halvings: How often the first interval with a change of sign is halved, while whole numbers are left in it.
        options: The other arguments of `collapse_exponent`.

    Returns:
        A `Critical`, between two whole numbers; None where no two neighbours differ in sign.

    Valid: as `critical_learning_rate`.
    Raises: ValueError, one sentence, as `collapse_exponent`.
    Source: derived.
    Checked: a linear neuron, whose critical batch is known in closed form.
    """
    _require_range(between, points, halvings)
    integer(1, between=between)
    sizes = np.unique(np.geomspace(*between, points).round().astype(int))
    return _sign_change(
        lambda batch: collapse_exponent(loss, params, invariant_set, data, lr, int(batch), **options), sizes, halvings
    )


def _sign_change(exponent, values, halvings):
    """Where an exponent that is known at some values changes its sign first.

    Values with an exponent within two standard errors of zero, or with none, are passed over.
    """
    found = [(value, exponent(value)) for value in values]
    clear = [(value, e) for value, e in found if abs(e.mean) > 2 * e.error]
    changes = [(left, right) for left, right in itertools.pairwise(clear) if left[1].mean * right[1].mean < 0]
    if not changes:
        return None
    (a, at_a), (b, at_b) = changes[0]
    slope = (at_b.mean - at_a.mean) / math.log(b / a)
    for _ in range(halvings):
        middle = math.sqrt(a * b)
        if isinstance(a, np.integer):
            middle = a + (b - a) // 2
            if middle == a:
                break
        at = exponent(middle)
        if at.mean * at_a.mean > 0:
            a, at_a = middle, at
        elif at.mean * at_b.mean > 0:
            b, at_b = middle, at
    share = at_a.mean / (at_a.mean - at_b.mean)
    values = (1 - share) * at_a.values + share * at_b.values
    root = float(a * (b / a) ** share)
    return Critical(root, float(root * values.std(ddof=1) / len(values) ** 0.5 / abs(slope)))


def _require_range(between, points, halvings):
    low, high = between
    positive(between=low)
    finite(between=high)
    if not low < high:
        raise ValueError(f"`between` must rise, but got {low:g} and {high:g}.")
    integer(2, points=points)
    integer(0, halvings=halvings)
