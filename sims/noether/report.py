"""Report on a person's own training: its symmetries, their charges predicted and measured, waste, effective rates."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sims.noether.audit import find_symmetries
from sims.noether.tracking import Track, law_sources, terms_of, track_charges
from theory.arguments import finite, integer, positive
from theory.noether import (
    Optimizer,
    SymmetryFamily,
    effective_learning_rate,
    norm_relaxation,
    predict_charge,
    tensors,
)

EXACT = ("exact", "declared")
CLOSED = 1e3  # machine epsilons, times the root of the steps: what rounding may leave open


@dataclass(frozen=True)
class ChargeRow:
    """One family's charge over a run, in units of the size of its terms.

    moved is the largest change; predicted the largest deviation from the law of the declared optimizer, None where
    none was declared; gap what the budget leaves unexplained. decay, finite_step and remainder are the sums over the
    run of the budget's parts, of the unit that moved most.
    """

    family: str
    kind: str
    status: str
    units: int
    moved: float
    decay: float
    finite_step: float
    remainder: float
    gap: float
    predicted: float | None


@dataclass(frozen=True)
class FlatRow:
    """A tensor without gradient: how far the optimizer has moved its entries, besides their decay."""

    tensor: str
    moved: float


@dataclass(frozen=True)
class RateRow:
    """Effective learning rate eta / ||theta||^2 of a scale-invariant family, median over its units.

    forecast is the rate after `steps` more steps at the next learning rate, equilibrium that after infinitely many,
    None without weight decay.
    """

    family: str
    start: float
    end: float
    forecast: float
    equilibrium: float | None


@dataclass(frozen=True)
class SymmetryReport:
    """What `symmetry_report` found; `str()` is a set of tables, `to_dict()` is ready for JSON."""

    families: tuple[SymmetryFamily, ...]
    charges: tuple[ChargeRow, ...]
    flat: tuple[FlatRow, ...]
    rates: tuple[RateRow, ...]
    coupling: str
    losses: tuple[float, float]
    steps: int
    next_rate: float
    next_steps: int
    tolerance: float
    tracks: tuple[Track, ...]
    laws: tuple[np.ndarray | None, ...]

    def to_dict(self) -> dict:
        """Plain numbers and words; None for what is not finite."""
        families = [
            {
                "name": str(f), "kind": f.kind, "status": f.status, "evidence": dict(f.evidence),
                "parts": {part.name: part.coefficient for part in f.parts},
            }
            for f in self.families
        ]  # fmt: skip
        out = {"families": families, "coupling": self.coupling, "steps": self.steps, "tolerance": self.tolerance}
        out |= {name: [asdict(row) for row in getattr(self, name)] for name in ("charges", "flat", "rates")}
        return json.loads(json.dumps(out | {"losses": self.losses}), parse_constant=lambda constant: None)

    @property
    def sentences(self) -> list[str]:
        """What a reader should know first."""
        closed = sum(row.gap <= self.tolerance for row in self.charges)
        out = [
            f"{len(self.charges)} charges over {self.steps} steps, loss {self.losses[0]:.4g} to {self.losses[1]:.4g}: "
            f"the budget of {closed} closes to rounding."
        ]
        exact = [row for row in self.charges if row.status in EXACT and row.predicted is not None]
        lawful = sum(row.predicted <= self.tolerance for row in exact)
        if exact:
            out.append(f"{lawful} of {len(exact)} exact charges follow the law of the declared optimizer.")
        wasted = [row.tensor for row in self.flat if row.moved > 0]
        if wasted:
            out.append(f"Moved without any gradient: {', '.join(wasted)}.")
        return [*out, self.coupling]

    def __str__(self) -> str:
        charges = [("moved", "decay", "finite step", "remainder", "gap", "off the law", "status", "charge")]
        for row in self.charges:
            numbers = (row.moved, row.decay, row.finite_step, row.remainder, row.gap, row.predicted)
            charges.append((*map(_short, numbers), row.status, row.family))
        tables = [_table(charges)]
        if self.flat:
            tables.append(_table([("moved", "flat tensor"), *((_short(row.moved), row.tensor) for row in self.flat)]))
        if self.rates:
            heading = (
                "rate at start",
                "at end",
                f"after {self.next_steps} at {self.next_rate:g}",
                "equilibrium",
                "scale",
            )
            rows = [(*map(_short, (r.start, r.end, r.forecast, r.equilibrium)), r.family) for r in self.rates]
            tables.append(_table([heading, *rows]))
        return "\n".join([*self.sentences, "", *tables])


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows) + "\n"


def symmetry_report(
    loss: Callable[[Any, Any], Any],
    params: Any,
    optimizer: optax.GradientTransformation,
    batches: Sequence[Any],
    law: Optimizer | None = None,
    *,
    families: Sequence[SymmetryFamily] | None = None,
    next_rate: float | None = None,
    next_steps: int = 1000,
    seed: int = 0,
) -> SymmetryReport:
    r"""Find the symmetries of a loss, train, and hold every charge against its exact law and its budget.

    .. math:: C_{k+1} - C_k = -2\eta\lambda C_k + [\Delta_k]_A + \text{remainder}

    Args:
        loss: loss(params, batch), one number, deterministic.
        params: The parameters to start from, any pytree.
        optimizer: Any optax optimizer.
        batches: List of batches of one shape, 24 or more; they serve the audit, and then the training, one a step.
        law: What the optimizer is meant to be, for its exact law; of Adam, its learning rate and decay, for the budget.
            None: the budget alone, without its decay.
        families: Symmetries that are known already, instead of the audit.
        next_rate: Learning rate of the forecast, positive; that of the run by default.
        next_steps: Steps of the forecast, from 1.
        seed: Seed of the audit.

    Returns:
        A `SymmetryReport`.

    Valid: deterministic losses without state. The forecast takes the gradients of the run's second half as typical.
    Raises: ValueError, one sentence, as `find_symmetries` and `predict_charge`; batches of different shapes.
    Source: arXiv:2012.04728; discrete laws, budget and forecast derived.
    Checked: networks that read digits, five optimizers (law and budget 1e-13); a wrong coupling is named; the forecast
        against continued training of a Rayleigh quotient (10 %).
    """
    integer(1, next_steps=next_steps)
    if next_rate is not None:
        positive(next_rate=next_rate)
        finite(next_rate=next_rate)
    if families is None:
        families = find_symmetries(loss, params, batches, seed=seed)
    charged = tuple(f for f in families if f.has_charge and f.kind != "flat" and f.status != "broken")
    stacked = _stacked(batches)
    run = jax.jit(lambda p, b: track_charges(loss, p, optimizer, b, charged))
    end, losses, tracks = run(params, stacked)
    tracks = jax.tree.map(np.asarray, tracks)
    steps = len(batches)
    tolerance = CLOSED * max(float(jnp.finfo(x.dtype).eps) for x in tensors(params).values()) * math.sqrt(steps)
    declared = law or Optimizer(1.0)
    laws = tuple(None if law is None else _predicted(f, t, law) for f, t in zip(charged, tracks, strict=True))
    rows = tuple(_row(f, t, predicted, declared, params) for f, t, predicted in zip(charged, tracks, laws, strict=True))
    flat = tuple(_flat(f, params, end, declared, steps) for f in families if f.kind == "flat")
    scales = () if law is None else tuple(
        _rates(f, t, law, next_rate or float(np.mean(law.eta)), next_steps)
        for f, t in zip(charged, tracks, strict=True) if f.kind == "scale"
    )  # fmt: skip
    return SymmetryReport(
        families=tuple(families), charges=rows, flat=flat, rates=scales,
        coupling=_coupling(charged, tracks, law, params, tolerance), losses=(float(losses[0]), float(losses[-1])),
        steps=steps, next_rate=float(next_rate or np.mean(declared.eta)), next_steps=next_steps, tolerance=tolerance,
        tracks=tracks, laws=laws,
    )  # fmt: skip


def _stacked(batches):
    shapes = {str(jax.tree.map(np.shape, batch)) for batch in batches}
    if len(shapes) != 1:
        raise ValueError(f"`batches` must all have one shape, but got {len(shapes)} shapes.")
    return jax.tree.map(lambda *x: jnp.stack(x), *batches)


def _predicted(family, track, law):
    linear = family.kind == "translation"
    sources = None if linear else law_sources(track, law)
    return np.asarray(predict_charge(track.charge[0], sources, law, steps=len(track.step), linear=linear))


def _row(family, track, predicted, law, params):
    size, order = float(terms_of(family, params)), 1 if family.kind == "translation" else 2
    pull = order * np.broadcast_to(law.eta, len(track.step)) * law.weight_decay
    before, change = track.charge[:-1], np.diff(track.charge, axis=0)
    decay = -pull.reshape(-1, *(1,) * (before.ndim - 1)) * before
    remainder = order * track.work - decay
    gap = np.abs(change - decay - track.step - remainder).max()
    moved = np.abs(track.charge[-1] - track.charge[0])
    most = np.unravel_index(moved.argmax(), moved.shape)
    sums = (float(x.sum(0)[most]) / size for x in (decay, track.step, remainder))
    off = None if predicted is None else float(np.abs(track.charge - predicted).max()) / size
    largest = float(np.abs(track.charge - track.charge[0]).max()) / size
    return ChargeRow(str(family), family.kind, family.status, len(before[0]), largest, *sums, float(gap) / size, off)


def _flat(family, params, end, law, steps):
    name = family.parts[0].name
    rate = np.broadcast_to(np.asarray(law.eta) * law.weight_decay, steps)
    decayed = np.prod(1 - rate) if law.decoupled or not law.momentum else None
    before, after = np.asarray(tensors(params)[name]), np.asarray(tensors(end)[name])
    if decayed is None:
        # Under coupled decay with momentum a flat tensor relaxes as every linear charge.
        relaxed = predict_charge(before.ravel(), None, law, steps=steps, linear=True)[-1]
        moved = np.abs(after.ravel() - np.asarray(relaxed)).max()
    else:
        moved = np.abs(after - decayed * before).max()
    rounding = CLOSED * np.finfo(before.dtype).eps * max(np.abs(before).max(), 1.0)
    return FlatRow(name, float(moved) if moved > rounding else 0.0)


def _coupling(families, tracks, law, params, tolerance):
    """Whether the decay acts as declared: the other law is tried as well."""
    if law is None:
        return "No law was declared: the budget alone is shown."
    if not law.weight_decay or not law.momentum:
        return "Coupled and decoupled decay are the same here, without decay or without momentum."
    other = law._replace(decoupled=not law.decoupled, nesterov=False, dampening=0.0)
    quadratic = [(f, t) for f, t in zip(families, tracks, strict=True) if f.status in EXACT]
    if not quadratic:
        return "No exact charge tells how the decay is coupled."
    off = {
        name: max(
            float(np.abs(t.charge - _predicted(f, t, it)).max() / terms_of(f, params)) for f, t in quadratic
        )
        for name, it in (("declared", law), ("other", other))
    }  # fmt: skip
    words = ("decoupled", "coupled") if law.decoupled else ("coupled", "decoupled")
    if off["declared"] <= tolerance:
        return f"The decay is {words[0]}, as declared."
    if off["other"] <= tolerance:
        return f"The decay is {words[1]}, not {words[0]} as declared."
    return (
        f"The charges follow neither the coupled nor the decoupled law of this optimizer "
        f"(off by {min(off.values()):.2g}): it is another one, or has a metric of its own, as Adam."
    )


def _rates(family, track, law: Optimizer, next_rate, next_steps):
    """Rates of a scale family; the gradient's strength is what the run's second half says by its budget."""
    eta = float(np.mean(law.eta))
    slowed = 1.0 if law.decoupled else 1 - law.momentum
    decay = law.weight_decay / slowed
    C = track.charge
    half = len(C) // 2
    # C_{k+1} - C_k = -2 eta lambda' C_k + eta^2 c^2 / C_k, on average.
    pushed = np.mean((np.diff(C[half:], axis=0) + 2 * eta * decay * C[half:-1]) * C[half:-1], axis=0)
    c = np.sqrt(np.maximum(pushed, 1e-300)) / eta
    later = norm_relaxation(next_rate * next_steps, C[-1], next_rate, decay, c)
    settled = float(np.median(next_rate / np.sqrt(next_rate * c**2 / (2 * decay)))) if decay else None
    start, end, forecast = (
        float(jnp.median(effective_learning_rate(rate, x)))
        for rate, x in ((eta, C[0]), (eta, C[-1]), (next_rate, later))
    )
    return RateRow(str(family), start, end, forecast, settled)
