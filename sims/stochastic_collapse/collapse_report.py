"""Report on a layer of a person's own network: which of its units does training remove, which does it merge?"""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from sims.stochastic_collapse.collapse_audit import collapse_exponent
from sims.stochastic_collapse.invariance import (
    Duplicates,
    InvariantSet,
    Vanishing,
    check_invariance,
    duplicates,
    vanishing,
)
from sims.stochastic_collapse.invariant_sets import tensors
from theory.arguments import integer

CLEAR = 3.0  # standard errors


@dataclass(frozen=True)
class CollapseRow:
    """One set: how far the parameters are from it, and whether training closes the distance.

    apart is the distance in units of the layer: of a unit its norm over the root mean square of all units' norms, of a
    pair the norm of the difference over that of both together. exponent is that of the distance, per step, with its
    standard error; nan where there is none.
    """

    name: str
    kind: str
    apart: float
    exponent: float
    error: float
    verdict: str

    @property
    def steps(self) -> float:
        """Steps in which the distance falls by a factor e; negative where it grows."""
        return -1 / self.exponent if self.exponent else math.inf


@dataclass(frozen=True)
class CollapseReport:
    """What `collapse_report` found; `str()` is a table, `to_dict()` is ready for JSON."""

    rows: tuple[CollapseRow, ...]
    units: int
    invariant: Mapping[str, bool]
    leak: Mapping[str, float]

    def count(self, kind: str, verdict: str = "attracts") -> int:
        """How many sets of a kind, "unit" or "pair", have a verdict."""
        return sum(row.kind == kind and row.verdict == verdict for row in self.rows)

    def to_dict(self) -> dict:
        """Plain numbers and words; None for what is not finite."""
        return json.loads(json.dumps(asdict(self)), parse_constant=lambda constant: None)

    def __str__(self) -> str:
        table = [("set", "apart", "exponent", "error", "e-folding (steps)", "training")]
        for r in self.rows:
            numbers = (f"{x:.3g}" if math.isfinite(x) else "" for x in (r.apart, r.exponent, r.error, r.steps))
            table.append((r.name, *numbers, r.verdict))
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ["  ".join(map(str.rjust, row, widths)) for row in table]
        return "\n".join([*lines, "", *(textwrap.fill(sentence, 110) for sentence in self._sentences())]) + "\n"

    def _sentences(self) -> Iterator[str]:
        pairs, all_pairs = sum(row.kind == "pair" for row in self.rows), self.units * (self.units - 1) // 2
        yield (
            f"{self.units} units, the nearest {pairs} of {all_pairs} pairs. A set attracts where the distance from it "
            f"shrinks by more than {CLEAR:g} standard errors of its exponent (per step)."
        )
        for kind, holds in self.invariant.items():
            if not holds:
                where = "no unit can vanish and stay so" if kind == "unit" else "equal units do not stay equal"
                yield f"Not invariant: {where}, for gradients leave the set by {self.leak[kind]:.2g} of their size."


def collapse_report(
    loss: Callable[[Any, Any], Array],
    params: Any,
    axes: Mapping[str, int],
    data: Any,
    lr: float,
    batch: int,
    *,
    kinds: Sequence[str] = ("unit", "pair"),
    pairs: int = 10,
    **options: Any,
) -> CollapseReport:
    """Collapse exponents of every unit of a layer, and of its nearest pairs, the most attracted first.

    Args:
        loss: loss(params, batch), the mean over the batch.
        params: The parameters, anywhere; each set's run starts from the nearest point of the set.
        axes: Which axis counts the units, for every tensor that they have a part of, as in `vanishing`.
        data: The samples, a pytree of arrays that count them along their first axis.
        lr: Learning rate, positive.
        batch: Samples of a minibatch.
        kinds: What to look at: "unit" (does it vanish?), "pair" (does it merge?), or both.
        pairs: How many pairs, those whose units are nearest to each other, from 1.
        options: The other arguments of `collapse_exponent`.

    Returns:
        A `CollapseReport`.

    Valid: as `collapse_exponent`; a unit of an activation with a kink at zero (ReLU) is judged with the slope that JAX
        gives it there.
    Raises: ValueError, one sentence, as `collapse_exponent` and `vanishing`.
    Source: derived, for the sets of arXiv:2306.04251.
    Checked: rows against `collapse_exponent`; a sigmoid's units are not invariant.
    """
    integer(1, pairs=pairs)
    unknown = [kind for kind in kinds if kind not in ("unit", "pair")]
    if unknown:
        raise ValueError(f"`kinds` must be of unit and pair, but got {unknown[0]}.")
    rows, invariant, leak = [], {}, {}
    vectors = _vectors(params, axes)
    for kind in kinds:
        sets = _sets(kind, params, axes, vectors, pairs)
        if not sets:
            continue
        first = sets[0]
        found = check_invariance(loss, first.project(params), first, data)
        invariant[kind], leak[kind] = found.holds, found.largest
        for each in sets:
            rows.append(_row(kind, each, vectors, found.holds, loss, params, data, lr, batch, options))
    rows.sort(key=lambda row: (math.isnan(row.exponent), row.exponent))
    return CollapseReport(tuple(rows), len(vectors), invariant, leak)


def _row(kind, each, vectors, invariant, loss, params, data, lr, batch, options):
    exponent, error = math.nan, math.nan
    if invariant:
        exponent, error, _ = collapse_exponent(loss, each.project(params), each, data, lr, batch, **options)
    if not invariant:
        verdict = "not invariant"
    elif not math.isfinite(exponent):
        verdict = "diverges"
    elif abs(exponent) <= CLEAR * error:
        verdict = "undecided"
    else:
        verdict = "attracts" if exponent < 0 else "repels"
    return CollapseRow(str(each), kind, _apart(each, vectors), exponent, error, verdict)


def _vectors(params, axes):
    """Every unit's tensors in one vector, shape (units, k)."""
    first = vanishing(params, axes, 0)
    name, axis = first.axes[0]
    count = tensors(params)[name].shape[axis]
    return np.asarray(jax.vmap(lambda unit: Vanishing(first.axes, unit).normal(params))(jnp.arange(count)))


def _sets(kind, params, axes, vectors, pairs) -> list[InvariantSet]:
    if kind == "unit":
        return [vanishing(params, axes, unit) for unit in range(len(vectors))]
    i, j = np.triu_indices(len(vectors), 1)
    nearest = np.argsort(_difference(vectors, i, j), kind="stable")[:pairs]
    return [duplicates(params, axes, int(i[k]), int(j[k])) for k in nearest]


def _apart(each, vectors):
    if isinstance(each, Duplicates):
        return float(_difference(vectors, each.i, each.j))
    norms = np.linalg.norm(vectors, axis=-1)
    return float(norms[each.unit] / np.sqrt((norms**2).mean()))


def _difference(vectors, i, j):
    """Norm of the difference of two units, over that of both together."""
    both = np.hypot(np.linalg.norm(vectors[i], axis=-1), np.linalg.norm(vectors[j], axis=-1))
    return np.linalg.norm(vectors[i] - vectors[j], axis=-1) / np.where(both > 0, both, 1.0)
