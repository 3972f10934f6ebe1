r"""Agreement: what a dataset says about the claims of its experiment.

A mean is judged by projection. With residuals :math:`e_{rc}` of replicate r in cell c and a direction
:math:`\delta_c` (a wrong twin minus the theory, a common shift or factor, a trend along an axis),

.. math:: \lambda_r = \frac{\sum_c w_{rc}\, e_{rc}}{\sum_c w_{rc}\, \delta_c}, \qquad
    w_{rc} = \frac{\delta_c}{v_{-r,c}},

where the variance :math:`v_{-r}` is estimated from the other replicates. The :math:`\lambda_r` are independent
whatever the correlation between cells; 0 is the theory and 1 is the twin, and the half-width of their interval is the
power. A claim *agrees* if every interval holds 0, errors of random sign are excluded as well, and every twin is
rejected. If the data cannot reject a twin the claim is *undecided*.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import singledispatch

import numpy as np
import xarray as xr
from scipy import stats

from sims.engine.experiment import Bound, Claim, Experiment, Mean, Order, Pathwise, Phase, Rank
from sims.engine.judgement import UNDECIDED, Judgement, Sample, Verdict
from sims.engine.statistics import contrast, effective_cells, interval, rank_correlation, sign_flip_p

LEVEL = 1e-3
OMNIBUS_LEVEL = 1e-4
LEAST_REPLICATES = 4
LEAST_DECISIVE = 5
LEAST_EFFECTIVE = 3


def assess(dataset: xr.Dataset, experiment: Experiment, ladders: Mapping[int, Sequence[xr.Dataset]] | None = None):
    """The verdict on every claim.

    Args:
        dataset: As `sims.engine.run.run` returns it.
        experiment: The experiment it came from.
        ladders: For the index of each order claim, the datasets of its rungs.

    Returns: a `Verdict`; order claims without a ladder are left out.
    """
    judgements = []
    for index, claim in enumerate(experiment.claims):
        if not isinstance(claim, Order):
            judgements.append(judge(claim, Sample(dataset, experiment, claim)))
        elif ladders and index in ladders:
            judgements.append(judge(claim, [Sample(rung, experiment, claim) for rung in ladders[index]]))
    return Verdict(experiment.name, judgements)


@singledispatch
def judge(claim: Claim, sample) -> Judgement:
    """The judgement on one claim; one rule per kind."""
    raise TypeError(f"no rule for claims of kind {claim.kind}")


@judge.register
def _mean(claim: Mean, sample: Sample) -> Judgement:
    out, use = sample.judgement(claim), sample.usable
    if not use.any():
        return out
    if len(sample.draws) < LEAST_REPLICATES:
        out.outcome, out.reason = UNDECIDED, f"fewer than {LEAST_REPLICATES} replicates"
        return out
    theory = sample.theory[:, use]
    residuals = sample.draws[:, use] - theory
    directions = {"shift": np.ones(residuals.shape[1])}
    if np.abs(theory).max() > sample.floor:
        directions["relative error"] = theory.mean(0)
    for name, values in sample.coordinates.items():
        ranks = stats.rankdata(values[use], method="dense")
        if ranks.max() > 1:
            directions[f"trend along {name}"] = 2 * (ranks - 1) / (ranks.max() - 1) - 1
    for name, twin in sample.twins.items():
        # A twin that is not finite somewhere (a pole of its own) speaks where it is.
        deviation = twin[:, use] - theory
        deviation = np.where(np.isfinite(deviation).all(0), deviation, 0.0)
        if np.abs(deviation).max() > sample.floor:
            directions[f"twin: {name}"] = deviation if np.ptp(deviation, axis=0).any() else deviation[0]
    level = LEVEL / len(directions)
    for name, direction in directions.items():
        out.intervals[name] = contrast(residuals, direction, level, sample.floor)
    out.twins = {n: not _holds(out.intervals.get(f"twin: {n}", (1, 1)), 1.0) for n in claim.twins}
    out.effective_cells = effective_cells(residuals)
    caught = "relative error" if "relative error" in out.intervals else "shift"
    out.detectable, out.detectable_unit = float(np.ptp(out.intervals[caught]) / 2), f"as a common {caught}"
    off = [name for name, bounds in out.intervals.items() if not _holds(bounds, 0.0)]
    p = 1.0
    if out.effective_cells >= LEAST_EFFECTIVE:
        p = sign_flip_p(residuals, sample.floor)
        out.numbers["errors of random sign, p"] = p
    reasons = [f"{name} lies in [{out.intervals[name][0]:.3g}, {out.intervals[name][1]:.3g}]" for name in off]
    if p < OMNIBUS_LEVEL:
        reasons.append(f"errors of random sign at p = {p:.1g}")
    return out.settle(not reasons, "; ".join(reasons))


def _holds(bounds: tuple[float, float], value: float) -> bool:
    return bounds[0] <= value <= bounds[1]


@judge.register
def _pathwise(claim: Pathwise, sample: Sample) -> Judgement:
    out, use = sample.judgement(claim), sample.usable
    if not use.any():
        return out
    draws, theory = sample.draws[:, use], sample.theory[:, use]
    typical = np.sqrt((theory**2).mean())
    allowed = claim.tolerance * np.maximum(np.abs(theory), typical) + sample.floor

    def worst(other):
        return float((np.abs(draws - other) / allowed).max()) * claim.tolerance

    error = worst(theory)
    out.numbers["largest difference, in units of the terms"] = error
    for name, twin in sample.twins.items():
        miss = worst(np.where(np.isfinite(twin[:, use]), twin[:, use], theory))
        out.numbers[f"the twin's ({name})"] = miss
        out.twins[name] = miss > claim.tolerance
    out.detectable, out.detectable_unit = claim.tolerance, "in units of the terms, in any draw"
    return out.settle(error <= claim.tolerance, f"a draw differs by {error:.2g}, allowed {claim.tolerance:.2g}")


@judge.register
def _bound(claim: Bound, sample: Sample) -> Judgement:
    out, use = sample.judgement(claim), sample.usable
    if not use.any():
        return out
    largest, upper = float(np.abs(sample.draws[:, use]).max()), claim.upper + sample.floor
    out.numbers["largest value"] = largest
    for name, twin in sample.twins.items():
        out.numbers[f"the twin's ({name})"] = float(np.nanmax(np.abs(twin[:, use])))
        out.twins[name] = out.numbers[f"the twin's ({name})"] > upper
    out.detectable, out.detectable_unit = upper, "in any draw"
    return out.settle(largest <= upper, f"a draw reaches {largest:.2g}, allowed {upper:.2g}")


@judge.register
def _phase(claim: Phase, sample: Sample) -> Judgement:
    out, use = sample.judgement(claim), sample.usable
    if not use.any():
        return out
    if len(sample.draws) < LEAST_REPLICATES:
        out.outcome, out.reason = UNDECIDED, f"fewer than {LEAST_REPLICATES} replicates"
        return out
    draws, theory = sample.draws[:, use], sample.theory[:, use].mean(0)
    mean, error = draws.mean(0), draws.std(0, ddof=1) / len(draws) ** 0.5
    decisive = (np.abs(mean) > 2 * error + sample.floor) & (np.abs(theory) > sample.floor)
    right = np.sign(mean) == np.sign(theory)
    if decisive.sum() < LEAST_DECISIVE:
        out.outcome, out.reason = UNDECIDED, "too few cells are two standard errors from zero"
        return out
    share = float(right[decisive].mean())
    out.numbers |= {"cells decided": int(decisive.sum()), "share with the theory's sign": share}
    for name, twin in sample.twins.items():
        differ = decisive & (np.sign(twin[:, use].mean(0)) != np.sign(theory))
        sides = float(right[differ].mean()) if differ.any() else float("nan")
        out.numbers[f"share siding with the theory against '{name}', of {int(differ.sum())}"] = sides
        out.twins[name] = bool(differ.sum() >= LEAST_DECISIVE and sides >= claim.share)
    out.detectable, out.detectable_unit = float(np.median(2 * error[decisive])), "(median) in the mean of one cell"
    return out.settle(share >= claim.share, f"only {share:.3f} of the decided cells have the theory's sign")


@judge.register
def _rank(claim: Rank, sample: Sample) -> Judgement:
    """A rank correlation in every replicate, so that draws which cells share cannot feign many cells; then `interval`.

    A twin is rejected by the paired differences: the theory's correlation less the twin's, replicate by replicate.
    """
    out, use = sample.judgement(claim), sample.usable
    if not use.any():
        return out
    if len(sample.draws) < LEAST_REPLICATES or use.sum() < LEAST_DECISIVE:
        few = f"fewer than {LEAST_REPLICATES} replicates or {LEAST_DECISIVE} cells"
        out.outcome, out.reason = UNDECIDED, few
        return out
    level = LEVEL / (1 + len(sample.twins))
    values = rank_correlation(sample.draws[:, use], sample.theory[:, use])
    low, high = out.intervals["rank correlation"] = tuple(float(v) for v in np.clip(interval(values, level), -1, 1))
    out.numbers |= {"rank correlation": float(values.mean()), "its interval": [low, high]}
    for name, twin in sample.twins.items():
        both = use & np.isfinite(twin).all(0)
        theirs = rank_correlation(sample.draws[:, both], twin[:, both])
        lead = interval(rank_correlation(sample.draws[:, both], sample.theory[:, both]) - theirs, level)
        out.intervals[f"lead over {name}"] = lead
        out.numbers |= {f"the twin's ({name})": float(theirs.mean()), f"lead over {name}": list(lead)}
        out.twins[name] = lead[0] > 0
    out.detectable, out.detectable_unit = (high - low) / 2, "in the rank correlation"
    if low <= claim.least <= high:
        out.outcome, out.reason = UNDECIDED, f"the rank correlation may be above or below {claim.least:g}"
        return out
    return out.settle(low > claim.least, f"the rank correlation lies in [{low:.2g}, {high:.2g}]")


@judge.register
def _order(claim: Order, rungs: list[Sample]) -> Judgement:
    r"""Order and intercept of the discrepancy along a ladder.

    The discrepancy of a rung is the residual projected onto the mean residual of the coarsest rung, taken from the
    other replicates. Its order is the slope of a weighted log-log fit, its intercept that of a straight line in
    ``setting ** order``; both with jackknife intervals over replicates. A twin is rejected if its discrepancy does not
    vanish, or if that vanishes at another order.
    """
    out = rungs[0].judgement(claim)
    use = np.all([rung.usable for rung in rungs], axis=0)
    out.cells, out.failed = int(use.sum()), max(rung.failed for rung in rungs)
    if not use.any():
        return out
    x = np.array(claim.values, float)
    residuals = np.array([rung.draws[:, use] - rung.theory[:, use] for rung in rungs])
    floor = rungs[0].floor
    count = residuals.shape[1]
    coarsest = int(np.argmax(x**claim.order))
    size = use.sum() ** 0.5

    def directions(residuals):
        # Leave-one-out directions: a replicate never chooses the direction along which it is measured.
        others = (residuals[coarsest].sum(0) - residuals[coarsest]) / (count - 1)
        lengths = np.linalg.norm(others, axis=1, keepdims=True)
        return others / np.where(lengths > 0, lengths, 1.0)

    def moments(values):
        mean, error = values.mean(1), values.std(1, ddof=1) / count**0.5
        return mean, error, (mean > 10 * floor) & (mean > 2 * error)

    direction = directions(residuals)
    along = np.einsum("krc,rc->kr", residuals, direction) / size
    mean, error, kept = moments(along)
    out.numbers |= {
        claim.setting: [float(v) for v in x],
        "discrepancy": [float(v) for v in mean],
        "standard error": [float(v) for v in error],
        "predicted order": float(claim.order),
    }
    if kept.sum() < 3:
        out.outcome, out.reason = UNDECIDED, "fewer than three rungs stand above the noise and the floor"
        return out

    def intercept(values, *further):
        spread = np.hypot(error, 0.02 * np.abs(values)) + floor
        terms = np.stack([(x / x.max()) ** p for p in (0.0, claim.order, *further)], axis=1)
        return np.linalg.lstsq(terms / spread[:, None], values / spread, rcond=None)[0][0]

    def jackknife(statistic, values, level):
        total, at = values.sum(1), statistic(values.mean(1))
        left = np.array([statistic((total - values[:, r]) / (count - 1)) for r in range(count)])
        spread = ((count - 1) / count * ((left - left.mean()) ** 2).sum()) ** 0.5
        half = stats.t.ppf(1 - level / 2, count - 1) * spread
        return at, half

    level = LEVEL / 2

    def order_of(values):
        """The fitted order of a discrepancy, and the half-width of its interval."""
        _, error, kept = moments(values)

        def slope(means):
            spread = np.hypot(error[kept] / means[kept], 0.02)
            return np.polyfit(np.log(x[kept]), np.log(means[kept]), 1, w=1 / spread)[0]

        order, half = jackknife(slope, np.where(values.mean(1, keepdims=True) > 0, values, np.abs(values)), level)
        return order, max(half, 0.1)

    order, half = order_of(along)
    out.intervals["order"] = (float(order - half), float(order + half))
    out.numbers["fitted order"] = float(order)
    steps = np.diff(np.log(mean[kept])) / np.diff(np.log(x[kept]))
    out.numbers["local slopes"] = [float(v) for v in steps]

    # The next order of the discrepancy bends the line; how far that moves its intercept is no failure of the limit.
    bends = (2 * claim.order, claim.order + np.sign(claim.order)) if len(x) > 3 else ()

    def limit(values):
        """The intercept of a discrepancy, and the half-width of its interval."""
        at, wide = jackknife(intercept, values, level)
        slack = 10 * floor + max((abs(at - intercept(values.mean(1), p)) for p in bends), default=0.0)
        return at, wide + slack

    at, room = limit(along)
    out.intervals["intercept"] = (float(at - room), float(at + room))
    out.detectable, out.detectable_unit = room, "in the limit"

    out.twins = {f"order {p:g}": not _holds(out.intervals["order"], p) for p in (claim.order - 1, claim.order + 1)}
    for name in claim.twins:
        gap = np.array([rung.theory[:, use] - rung.twins[name][:, use] for rung in rungs])
        gap = np.where(np.isfinite(gap), gap, 0.0)
        shifted = along + np.einsum("krc,rc->kr", gap, direction) / size
        at, room = limit(shifted)
        out.twins[name] = bool(abs(at) > room)
        theirs = residuals + gap
        theirs = np.einsum("krc,rc->kr", theirs, directions(theirs)) / size
        if not out.twins[name] and moments(theirs)[2].sum() >= 3:
            fitted, room = order_of(theirs)
            out.numbers[f"the twin's order ({name})"] = float(fitted)
            out.twins[name] = bool(abs(fitted - claim.order) > room)
    reasons = []
    if not _holds(out.intervals["order"], claim.order):
        reasons.append(f"the fitted order is {order:.2f} +- {half:.2f}, not {claim.order:g}")
    if not _holds(out.intervals["intercept"], 0.0):
        low, high = out.intervals["intercept"]
        reasons.append(f"the limit is off by [{low:.2g}, {high:.2g}]")
    return out.settle(not reasons, "; ".join(reasons))
