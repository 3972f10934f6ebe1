"""What a verdict is made of: a claim's numbers, and the judgement on them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

import numpy as np
import xarray as xr

from sims.engine.experiment import Claim, Experiment, evaluate

AGREES, DISAGREES, UNDECIDED, OUTSIDE = "agrees", "disagrees", "undecided", "outside validity"


@dataclass
class Judgement:
    """The verdict on one claim.

    `intervals` are in units of their direction: of the twin's deviation for a twin, of the output for a shift or a
    trend. `detectable` is the smallest deviation the data would have caught, in the words of `detectable_unit`.
    """

    output: str
    kind: str
    sentence: str
    outcome: str = OUTSIDE
    reason: str = ""
    cells: int = 0
    failed: int = 0
    replicates: int = 0
    effective_cells: float = float("nan")
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    twins: dict[str, bool] = field(default_factory=dict)
    detectable: float = float("nan")
    detectable_unit: str = ""
    numbers: dict[str, object] = field(default_factory=dict)

    def settle(self, holds: bool, reason: str = "") -> Judgement:
        """The outcome, from whether the theory holds and whether every twin was rejected."""
        kept = [name for name, rejected in self.twins.items() if not rejected]
        if not holds:
            self.outcome, self.reason = DISAGREES, reason
        elif kept or not self.twins:
            self.outcome = UNDECIDED
            self.reason = f"twin not rejected: {', '.join(kept)}" if kept else "no wrong twin was tried"
        else:
            self.outcome = AGREES
        return self


@dataclass
class Verdict:
    """The judgements on all claims of one experiment."""

    experiment: str
    judgements: list[Judgement]

    @property
    def disagrees(self) -> bool:
        return any(j.outcome == DISAGREES for j in self.judgements)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, default=float)

    def table(self) -> str:
        """The verdict in a few lines a claim."""
        lines = []
        for j in self.judgements:
            lines.append(f"{j.outcome.upper():<17}{j.output} ({j.kind}): {j.sentence}")
            if j.reason:
                lines.append(f"{'':17}because {j.reason}")
            if j.outcome == OUTSIDE:
                continue
            counts = f"{j.cells} cells"
            if np.isfinite(j.effective_cells):
                counts += f" (worth {j.effective_cells:.3g} independent ones)"
            failed = f", {j.failed} failed" if j.failed else ""
            lines.append(f"{'':17}{counts}{failed}, {j.replicates} replicates")
            if np.isfinite(j.detectable):
                lines.append(f"{'':17}would have caught {j.detectable:.2g} {j.detectable_unit}")
            for key, value in j.numbers.items():
                lines.append(f"{'':17}{key}: {_words(value)}")
            for name, rejected in j.twins.items():
                low, high = j.intervals.get(f"twin: {name}", (np.nan, np.nan))
                at = f" (theory 0, twin 1: data in [{low:.3g}, {high:.3g}])" if np.isfinite(low) else ""
                lines.append(f"{'':17}twin {'rejected' if rejected else 'NOT rejected'}: {name}{at}")
        return "\n".join(lines)


def _words(value: object) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_words(v) for v in value) + "]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class Sample:
    """One claim's numbers as flat arrays: draws (replicates, cells), theory the same, region and twins.

    Inner dimensions count as cells. `usable` marks those in the region, finite in theory and in every replicate.
    """

    def __init__(self, dataset: xr.Dataset, experiment: Experiment, claim: Claim):
        self.settings = json.loads(dataset.attrs["settings"])
        self.axes = [name for name in experiment.parameters if name in dataset.dims]
        shape = tuple(dataset.sizes[name] for name in self.axes)
        grid = np.meshgrid(*(dataset[name].values for name in self.axes), indexing="ij") if self.axes else []
        count = int(np.prod(shape))
        self.cells = {name: np.ravel(g) for name, g in zip(self.axes, grid, strict=True)}
        self.cells |= {n: np.full(count, float(dataset[n])) for n in experiment.parameters if n not in self.axes}

        inner = tuple(experiment.outputs[claim.output].dims)
        size = int(np.prod([dataset.sizes[name] for name in inner]))
        replicates = dataset.sizes["replicate"]

        def per_draw(name):
            array = dataset[name]
            if "replicate" not in array.dims:
                array = array.expand_dims(replicate=replicates)
            return array.transpose("replicate", *self.axes, *inner).values.reshape(replicates, count * size)

        def of_formula(formula):
            values = evaluate(experiment, formula, self.cells, self.settings)[""]
            return np.tile(np.broadcast_to(values.reshape(count, -1), (count, size)).ravel(), (replicates, 1))

        self.draws, self.theory = per_draw(claim.output), per_draw(f"{claim.output}_theory")
        self.twins = {n: per_draw(t) if isinstance(t, str) else of_formula(t) for n, t in claim.twins.items()}
        self.coordinates = {n: np.repeat(self.cells[n], size) for n in self.axes if len(np.unique(self.cells[n])) > 1}
        for name, g in zip(inner, np.meshgrid(*(dataset[n].values for n in inner), indexing="ij"), strict=True):
            self.coordinates[name] = np.tile(np.ravel(g), count)

        region = np.repeat(np.asarray(claim.where(self.cells, self.settings), bool), size)
        self.infinite = region & np.isinf(self.theory).any(0)
        region &= ~self.infinite & ~np.isnan(self.theory).any(0)
        finite = np.isfinite(self.draws).all(0)
        self.usable, self.failed = region & finite, int((region & ~finite).sum())
        epsilon = 2.0**-52 if dataset.attrs["precision"] == 64 else 2.0**-23
        self.floor = claim.floor + claim.rounding * epsilon

    def judgement(self, claim: Claim) -> Judgement:
        return Judgement(
            claim.output,
            claim.kind,
            claim.sentence,
            cells=int(self.usable.sum()),
            failed=self.failed,
            replicates=len(self.draws),
        )
