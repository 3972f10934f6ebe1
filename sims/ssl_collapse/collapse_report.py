"""Report on a person's own encoder: what its last layer learns under a self-supervised loss, and what collapses."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from sims.ssl_collapse.trained_layer import CLEAR, TrainedLayer, inspect
from theory.arguments import finite, integer, nonnegative, number, positive, require
from theory.ssl_collapse import (
    byol_critical_decay,
    collapse_phase,
    collapse_thresholds,
    effective_landscape,
    half_time,
    infonce_mode_strength,
    mode_strengths,
    negatives_dilution,
    negatives_needed,
    view_covariances,
)
from theory.ssl_collapse.covariances import inverse_root, whitened

TOLERANCE = 0.1  # relative error of the strengths that the number of negatives is asked for
LOSSES = ("infonce_distance", "infonce_dot", "spectral", "barlow")
PHASES = {"none": "no collapse", "dimensional": "dimensional collapse", "complete": "complete collapse"}
KNOBS = {
    "augmentation": "variance of the augmentation, times",
    "alpha": "weight of alignment",
    "temperature": "temperature",
    "weight_decay": "weight decay",
}


@dataclass(frozen=True)
class ModeRow:
    """One direction of the features, the most wanted first.

    variance of the views along it; rho, the correlation of two views; margin, the pull at the origin as a share of the
    variance, above 0 where the direction is learned, and its standard error over the samples; strength, its variance in
    the embedding; pull at the origin; half_time of learning it, in learning rate times steps; byol_decay, the weight
    decay from which BYOL loses it.
    """

    variance: float
    rho: float
    margin: float
    error: float
    strength: float
    pull: float
    half_time: float
    byol_decay: float


@dataclass(frozen=True)
class Knob:
    """One parameter: its value, and at which value the next direction dies, or else one more appears; None if at none.

    complete is where the last one dies. All of them at least, the other parameters as they are.
    """

    name: str
    value: float
    dies: float | None
    appears: float | None
    complete: float | None


@dataclass(frozen=True)
class CollapseReport:
    """What `collapse_report` found; `str()` is a set of tables, `to_dict()` is ready for JSON."""

    loss: str
    samples: int
    features: int
    spanned: int
    clipped: int
    m: int
    rank: int
    unstable: int
    phase: str
    commuting: float
    modes: tuple[ModeRow, ...]
    knobs: tuple[Knob, ...]
    dilution: float | None
    negatives: float | None
    n_negatives: float
    trained: TrainedLayer | None

    def to_dict(self) -> dict:
        """Plain numbers and words; None for what is not finite."""
        return json.loads(json.dumps(asdict(self)), parse_constant=lambda constant: None)

    def __str__(self) -> str:
        heading = ("mode", "variance", "rho", "margin", "error", "strength", "half-time", "BYOL decay")
        shown = self.modes[: min(self.m, self.unstable) + 4]
        rows = [
            (str(k), *map(_short, (r.variance, r.rho, r.margin, r.error, r.strength, r.half_time, r.byol_decay)))
            for k, r in enumerate(shown, 1)
        ]
        tables = [_table([heading, *rows])]
        heading = ("parameter", "now", "next dies above", "one more below", "all dead above")
        rows = [(KNOBS[k.name], *map(_short, (k.value, k.dies, k.appears, k.complete))) for k in self.knobs]
        tables.append(_table([heading, *rows]))
        if self.trained:
            heading = ("new direction", "pull", "error", "training")
            rows = [(str(k), _short(d.pull), _short(d.error), d.verdict) for k, d in enumerate(self.trained.new, 1)]
            tables.append(_table([heading, *rows]))
        return "\n".join([*(textwrap.fill(sentence, 110) for sentence in self.sentences), "", *tables])

    @property
    def sentences(self) -> list[str]:
        """What a reader should know first."""
        return list(self._sentences())

    def _sentences(self) -> Iterator[str]:
        rest = f" {self.features - self.spanned} do not vary and are left out." if self.spanned < self.features else ""
        yield f"{self.samples} pairs of views, {self.features} features.{rest}"
        if self.clipped:
            yield f"{self.clipped} directions have nothing in common between two views, and count as noise alone."
        yield (
            f"{self.loss}: {self.m} outputs learn {self.rank} of {self.spanned} directions ({PHASES[self.phase]}); "
            f"{self.unstable} would grow from zero{self._doubt()}."
        )
        if any(math.isinf(row.strength) for row in self.modes):
            yield "Some directions have neither noise nor decay: nothing bounds their strength."
        if self.negatives is not None and not self.negatives <= self.n_negatives:
            yield (
                f"Strengths within {TOLERANCE:.0%} of these take {_short(self.negatives)} negatives "
                f"(one in {_short(self.dilution)} counts); you have {_short(self.n_negatives)}."
            )
        if self.commuting > 0.1:
            yield f"Noise and signal do not share their directions ({self.commuting:.0%}): times are rough."
        if self.trained:
            yield from self.trained.sentences(self.rank, self.m)

    def _doubt(self) -> str:
        """How many they may be, by the error of the margins."""
        sure, perhaps = (sum(r.margin > sign * CLEAR * r.error for r in self.modes) for sign in (1, -1))
        return "" if sure == perhaps else f", {sure} to {perhaps} within {CLEAR:g} standard errors"


def collapse_report(
    features: Callable[[Any], Any] | None,
    views: tuple[Any, Any],
    loss: str = "infonce_distance",
    *,
    m: int | None = None,
    W: Any | None = None,
    temperature: float = 1.0,
    alpha: float = 1.0,
    weight_decay: float = 0.0,
    n_negatives: float = math.inf,
    start: float = 0.1,
) -> CollapseReport:
    r"""What a linear last layer on top of given features learns, from two views of the data; and what a given one does.

    .. math:: A_0 = \mathrm{Cov}(x, x^+), \qquad C = \tfrac12\mathrm{Cov}(x - x^+), \qquad
        \nabla_W L = -2WB_{\rm eff}(W)

    Args:
        features: Penultimate features of a batch, any function of it to shape (n, d), as `model.apply` of Flax with its
            parameters; None if the views are features already.
        views: Two augmented views of the same inputs, a batch each, of one shape and n > d samples.
        loss: "infonce_distance" (similarity -|f - f'|^2 / 2 tau), "infonce_dot" (f . f' / tau), "spectral" or "barlow".
        m: Outputs of the last layer; by default those of W, or as many as there are features.
        W: The last layer as it is now, shape (m, d); None before training.
        temperature: tau of InfoNCE, positive.
        alpha: Weight of InfoNCE's alignment term, zero or positive.
        weight_decay: lambda of lambda |W|_F^2, without 1/2, zero or positive.
        n_negatives: Negatives of an anchor, 1 or more; infinity is allowed.
        start: Standard deviation of the last layer's entries before training, positive: for the times of learning.

    Returns:
        A `CollapseReport`. Features that do not vary are left out, as are combinations of others.

    Valid: features held fixed. Of W = 0 for any features; ranks and strengths for Gaussian ones (spectral and barlow:
        any) and many negatives; W B_eff and new directions for any features and any W. Times: of the quartic landscape,
        where noise and signal share their directions.
    Raises: ValueError, one sentence, for views or features of unequal or wrong shape, fewer samples than features,
        numbers that are not finite, an unknown loss, or a number outside its range.
    Source: derived here, in the setting of Ziyin et al. (2023); W B_eff in the form of Jing et al. (2022).
    Checked: known covariances, thresholds by varying them, `sims.ssl_collapse.report_example`; strengths and new
        directions by training, `sims.ssl_collapse.digits` and `relu_encoder`.
    """
    if loss not in LOSSES:
        raise ValueError(f"`loss` must be one of {', '.join(LOSSES)}, but got {loss}.")
    number(temperature=temperature, alpha=alpha, weight_decay=weight_decay, n_negatives=n_negatives, start=start)
    positive(temperature=temperature, start=start)
    finite(temperature=temperature, alpha=alpha, weight_decay=weight_decay, start=start)
    nonnegative(alpha=alpha, weight_decay=weight_decay)
    require(np.asarray(n_negatives) >= 1, "n_negatives", "1 or more", n_negatives)
    x, x_plus = _features(features, views)
    n, d = x.shape
    if W is not None:
        W = np.asarray(W, x.dtype)
        if W.ndim != 2 or W.shape[1] != d:
            raise ValueError(f"`W` must have the shape (m, {d}), but got shape {W.shape}.")
        finite(W=W)
        if m is not None and m != len(W):
            raise ValueError(f"`m` must be the number of rows of `W`, {len(W)}, but got {m}.")
        m = len(W)
    m = d if m is None else m
    integer(1, m=m)
    basis = _span(x, x_plus)
    x, x_plus = x @ basis, x_plus @ basis
    A0, C, clipped = view_covariances(x, x_plus)
    numbers = {"temperature": temperature, "alpha": alpha, "weight_decay": weight_decay}
    landscape = effective_landscape(A0, C, loss, **numbers)
    modes = _modes(x, x_plus, A0, C, landscape, loss, m, start, numbers)
    unstable = sum(row.margin > 0 for row in modes)
    dilution = negatives = None
    if loss == "infonce_distance":
        q = np.array([1 - row.margin for row in modes[:m] if row.margin > 0])
        bounded = len(q) and q.min() > 0
        dilution = float(negatives_dilution(infonce_mode_strength(q))) if bounded else math.inf if len(q) else 1.0
        negatives = float(negatives_needed(q, TOLERANCE)) if bounded else math.inf if len(q) else 0.0
    commutator = np.asarray(A0 @ C - C @ A0)
    trained = None
    if W is not None:
        trained = inspect(W @ basis, x, x_plus, loss, numbers, n_negatives)
    return CollapseReport(
        loss=loss, samples=n, features=d, spanned=basis.shape[1], clipped=int(clipped), m=m,
        rank=min(m, unstable), unstable=unstable, phase=collapse_phase(landscape.B, min(m, basis.shape[1])),
        commuting=float(np.linalg.norm(commutator) / (2 * np.linalg.norm(A0) * np.linalg.norm(C) or 1)),
        modes=modes, knobs=_knobs(A0, C, loss, m, numbers), dilution=dilution, negatives=negatives,
        n_negatives=float(n_negatives), trained=trained,
    )  # fmt: skip


def _features(features, views):
    """Features of both views, shape (n, d)."""
    if not isinstance(views, tuple | list) or len(views) != 2:
        raise ValueError("`views` must be two batches of the same inputs.")
    shapes = [np.shape(view) for view in views]
    if shapes[0] != shapes[1]:
        raise ValueError(f"`views` must have one shape, but got {shapes[0]} and {shapes[1]}.")
    x, x_plus = (np.asarray(view if features is None else features(view)) for view in views)
    if x.ndim != 2 or x.shape != x_plus.shape or len(x) != shapes[0][0]:
        raise ValueError(f"`features` must have the shape ({shapes[0][0]}, d), but got shape {x.shape}.")
    if len(x) <= x.shape[1]:
        raise ValueError(f"`views` must have more samples than features, {x.shape[1]}, but got {len(x)}.")
    for view in (x, x_plus):
        finite(features=view)
    dtype = jnp.result_type(float)
    return x.astype(dtype), x_plus.astype(dtype)


def _span(x, x_plus):
    """Orthonormal basis of the directions along which the views vary, shape (d, r)."""
    both = np.concatenate([x - x.mean(0), x_plus - x_plus.mean(0)])
    variances, vectors = np.linalg.eigh(both.T @ both)
    varies = variances > 100 * len(variances) * np.finfo(both.dtype).eps * variances[-1]
    if not varies.any():
        raise ValueError("`features` must vary from sample to sample, but got constant ones.")
    return vectors[:, varies][:, ::-1]


def _modes(x, x_plus, A0, C, landscape, loss, m, start, numbers) -> tuple[ModeRow, ...]:
    """The whitened modes in feature space: unit vectors u_i along Sigma^(-1/2) v_i."""
    B, Sigma, kappa = landscape
    root = inverse_root(Sigma)
    beta, V = (np.asarray(z)[..., ::-1] for z in jnp.linalg.eigh(whitened(B, Sigma)))
    # Of directions that are wanted the same, the one that is learned first is first.
    U = np.asarray(root) @ V
    U = U / np.linalg.norm(U, axis=0)
    order = np.lexsort((-np.einsum("ai,ab,bi->i", U, np.asarray(B), U), -np.round(beta / np.abs(beta).max(), 9)))
    U, beta = U[:, order], beta[order]
    a, c, b = (np.einsum("ai,ab,bi->i", U, np.asarray(X), U) for X in (A0, C, B))
    tau = numbers["temperature"] if loss.startswith("infonce") else 1.0
    margin = tau * beta
    if loss == "infonce_distance":
        strengths = tau * np.asarray(infonce_mode_strength(margin=margin))
    else:
        strengths = np.zeros(len(a))
        found = np.asarray(mode_strengths(A0, C, loss, min(m, len(a)), **numbers))
        strengths[: len(found)] = found
    strengths = np.where((margin > 0) & (np.arange(len(a)) < m), strengths, 0.0)
    times = half_time(b, np.einsum("ai,ab,bi->i", U, np.asarray(Sigma), U), kappa, m * start**2)
    decay = byol_critical_decay(np.maximum(a, np.finfo(a.dtype).tiny), np.maximum(c, 0))
    columns = (
        a + c,
        a / (a + c),
        margin,
        _error(x @ U, x_plus @ U, loss, numbers) / (a + c),
        strengths,
        b,
        times,
        decay,
    )
    return tuple(ModeRow(*map(float, row)) for row in zip(*columns, strict=True))


def _error(p, p_plus, loss, numbers):
    """Standard error of tau times the pull at the origin along directions on which the views are p and p_plus."""
    signal, noise = {
        "infonce_distance": (1.0, numbers["alpha"] - 1), "infonce_dot": (numbers["alpha"], 0.0),
    }.get(loss, (2.0, 0.0))  # fmt: skip
    p, p_plus = p - p.mean(0), p_plus - p_plus.mean(0)
    return (signal * p * p_plus - noise * (p - p_plus) ** 2 / 2).std(0, ddof=1) / len(p) ** 0.5


def _knobs(A0, C, loss, m, numbers) -> tuple[Knob, ...]:
    found = collapse_thresholds(A0, C, loss, **numbers)
    knobs = []
    for name, now in {"augmentation": 1.0, **numbers}.items():
        values = np.asarray(getattr(found, name))
        if np.isnan(values).any() or not np.isfinite(values[values > 0]).any():
            continue  # this parameter kills no direction
        # Of more living directions than outputs, those beyond m may die unnoticed.
        alive, dead = values[values > now][:m], values[(values <= now) & (values > 0)]
        dies = float(alive[-1]) if len(alive) and np.isfinite(alive[-1]) else None
        appears = float(dead[0]) if len(dead) and len(alive) < m else None
        complete = float(values[0]) if np.isfinite(values[0]) else None
        knobs.append(Knob(name, float(now), dies, appears, complete))
    return tuple(knobs)


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.rjust, row, widths)).rstrip() for row in rows) + "\n"
