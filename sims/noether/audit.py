"""Audit of a person's own loss: which continuous symmetries has it, exactly or nearly, and on which tensors?

`find_symmetries` needs a loss and its parameters, no model; `table` says what it found. The families it returns are
those of `theory.noether`, whose charges and laws of change apply to them.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sims.noether.confirm import Precision, compiled_loss, confirmed, lenient
from sims.noether.features import PAIRS, Samples, View, measure
from sims.noether.promotion import planes_and_inner, promoted, refined, rotations, subgroups
from sims.noether.wiring import Candidate, Tolerance, aligned, columns, implied_vectors, null_vectors
from theory.arguments import integer, positive
from theory.noether.family import KINDS, SymmetryFamily, tensors


def find_symmetries(
    loss: Callable[[Any, Any], Any],
    params: Any,
    batches: Sequence[Any],
    *,
    seed: int = 0,
    points: int = 2,
    approximate: float = 1e-3,
) -> list[SymmetryFamily]:
    r"""All continuous symmetries of a loss that translate, scale or mix units of its tensors, found from its gradients.

    .. math:: \sum_c v_c \sum_{\text{summed axes}} \theta_c \odot g_c = 0 \text{ for all units, batches and points}
        \iff \theta_c \to e^{s v_c}\theta_c \text{ is a symmetry}

    and the same with g alone for translations, :math:`U^\top G_U = G_V^\top V` for GL(r), its antisymmetric part for
    rotations. The v_c are null vectors over all tensors with an axis of that length, in whole numbers where possible.

    Args:
        loss: loss(params, batch), one number, deterministic.
        params: The parameters, any pytree of float32 or float64 arrays; their values set the scale of random ones.
        batches: Batches of different data, with random labels if possible: 24 or so, and at least as many that
            `points` times their number is twice the number of tensors.
        seed: Seed of the random parameters, directions and amounts.
        points: Random parameters at which gradients are taken, from 2.
        approximate: Largest relative residual of an approximate symmetry.

    Returns:
        The families, by kind and by the tensors' order. One that follows from another (coarser units, a subgroup) is
        left out. Status: "exact", residuals of at most 1e3 machine epsilons; "approximate", up to `approximate`, or
        broken by far transformations only, as by a norm layer's epsilon; "undecided", as small as rounding, but not
        random, or a loss that overflows when transformed; "inactive", no gradient but not flat, as a dead unit;
        "broken", found by chance and refuted. Evidence:

        =======================  ==========================================================================
        gradient                 violation of the gradient constraint, in units of its random value
        hessian                  violation of H xi + A^T g = 0, likewise
        finite                   relative change of the loss at amounts ln 1/2, ln 2, ln 7
        far                      the same for factors of 1024 and 1/1024
        coherence                cosine of the violations at two close parameters, near 0 for rounding
        singular_value           the null singular value
        next_singular_value      the first one that is none: the gap
        =======================  ==========================================================================

    Valid: generators that are diagonal with units along axes of the tensors (or parts of an axis, if grouped or
        flattened, of equal size), GL(r) up to r = 1024 and rotations up to 128 dimensions; not on slices (a fused QKV
        kernel), not shears (a bias that moves into the next one), not permutations. Gradients are kept, in float64.
    Raises: ValueError, one sentence: too few, empty or equal batches, integer or half-precision leaves, a loss that is
        not a number, not deterministic or has no finite gradients.
    Source: derived; constraints of arXiv:2012.04728.
    Checked: declared symmetries of the 13 networks of `sims.noether.models` in float64 and float32, none missed and
        none false, classes right; a recurrent, a scanned and tied networks; losses with a broken symmetry or none.
    """
    integer(2, points=points)
    positive(approximate=approximate)
    batches = _checked(loss, params, batches)
    eps = max(float(jnp.finfo(x.dtype).eps) for x in tensors(params).values())
    if eps > 1e-10:
        warnings.warn("Residuals below 1e-4 are rounding in float32; float64 parameters show them.", stacklevel=2)
    compiled = compiled_loss(loss)
    samples = Samples(compiled, params, batches, points, seed)
    close = samples.close()
    shapes = {name: np.shape(x) for name, x in tensors(params).items()}
    _require_enough(shapes, len(batches), points)

    tolerance = Tolerance(min(1e5 * eps, approximate), approximate, 1e-2 if eps > 1e-10 else 1e-4)
    flat = [name for name in shapes if _is_flat(name, samples, close, eps)]
    samples.flat = flat
    found = [_flat_family(name, shapes[name]) for name in flat]
    active = {name: shape for name, shape in shapes.items() if name not in flat}
    shifts = _search(samples, "shift", active, tolerance)
    scales = _search(samples, "scale", active, tolerance)
    scales = [promoted(c, samples, active, tolerance.level(c.singular)) for c in scales]
    turns = _rotations(samples, active, [c for c in scales if c.kind == "matrix"], tolerance)
    found += [_family(c, active) for c in (*shifts, *scales, *turns)]
    precision = Precision(4 * eps, 1e3 * eps, 1e4 * eps, approximate)
    rng = np.random.default_rng(seed)
    found = [confirmed(family, compiled, samples, close, precision, rng) for family in found]
    kinds, names = list(KINDS), list(shapes)
    return sorted(found, key=lambda f: (kinds.index(f.kind), [names.index(p.name) for p in f.parts], str(f)))


def table(families: Sequence[SymmetryFamily]) -> str:
    """The families with their status, residuals and singular-value gap, one a line."""
    rows = [("status", "gradient", "Hessian", "finite", "far", "gap", "family")]
    for family in families:
        e = family.evidence
        numbers = [f"{e[name]:.1e}" if name in e else "" for name in ("gradient", "hessian", "finite", "far")]
        gap = f"{e['singular_value']:.0e} < {e['next_singular_value']:.2g}" if "singular_value" in e else ""
        rows.append((family.status, *numbers, gap, str(family)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows) + "\n"


# ---- search


def _search(samples, kind, shapes, tolerance):
    """Families of one-parameter symmetries, from many units to few."""
    known, found = [], []
    for views in columns(shapes, len(samples)).values():
        features = measure(samples, kind, views, shapes)
        for candidate in _candidates(kind, views, features, known, shapes, tolerance):
            fine = refined(candidate, samples, kind, shapes, tolerance.level(candidate.singular))
            known.append((fine.views, fine.coefficients))
            found.append(fine)
    return found


def _candidates(kind, views, features, known, shapes, tolerance):
    for vector, singular, following in null_vectors(features, implied_vectors(known, views), tolerance, shapes):
        coefficients = tuple(vector.values())
        named = {"shift": "translation"}.get(kind, "scale" if min(coefficients) > 0 else "rescale")
        yield Candidate(named, aligned([views[c] for c in vector]), coefficients, singular, following)


def _rotations(samples, shapes, groups, tolerance):
    known = [pair for group in groups for pair in subgroups(group)]
    found = []
    for (inner, units), views in planes_and_inner(shapes, len(samples)).items():
        rows = units * min(inner * (inner - 1) // 2, PAIRS)
        if 2 * len(views) > rows * len(samples):
            continue
        features = measure(samples.some(-(-4 * len(views) // rows)), "spin", views, shapes)
        fresh = list(_candidates("spin", views, features, known, shapes, tolerance))
        for candidate in rotations(fresh):
            fine = refined(candidate, samples, "spin", shapes, tolerance.level(candidate.singular))
            known.extend(subgroups(fine))
            found.append(fine)
    return found


def _is_flat(name, samples, close, eps):
    """Whether a tensor's gradient is zero or as small and as random as rounding."""
    own = sum(float(np.sum(g[name] ** 2)) for _, g, _ in samples)
    if own > (1e3 * eps) ** 2 * sum(squares for _, _, squares in samples):
        return False
    here, there = (np.concatenate([g[name].ravel() for _, g, _ in p]) for p in (list(samples)[: len(close)], close))
    lengths = np.linalg.norm(here) * np.linalg.norm(there)
    return lengths == 0 or here @ there < 0.9 * lengths


def _flat_family(name, shape):
    return SymmetryFamily("flat", (View(name, tuple((n, k) for k, n in enumerate(shape))).part(1.0, {name: shape}),))


def _family(candidate, shapes):
    views = candidate.views
    parts = tuple(view.part(c, shapes) for view, c in zip(views, candidate.coefficients, strict=True))
    gap = {"singular_value": candidate.singular, "next_singular_value": candidate.following}
    return SymmetryFamily(candidate.kind, parts, evidence=gap)


# ---- bad input


def _checked(loss, params, batches):
    leaves, named = jax.tree.leaves(params), tensors(params)
    if not leaves:
        raise ValueError("`params` must hold at least one tensor, but got none.")
    if len(named) < len(leaves):
        raise ValueError(f"`params` must have a path of its own for every tensor, but {len(leaves)} have {len(named)}.")
    for name, x in named.items():
        if getattr(x, "dtype", None) not in (np.float32, np.float64):
            kind = getattr(x, "dtype", type(x).__name__)
            raise ValueError(f"`params` must hold arrays of float32 or float64, but {name} is {kind}.")
    if not isinstance(batches, Sequence):
        raise ValueError(f"`batches` must be a sequence of batches, but got {type(batches).__name__}.")
    if not batches:
        raise ValueError("`batches` must hold at least one batch, but got none.")
    for batch in batches:
        for x in jax.tree.leaves(batch):
            if np.size(x) == 0:
                raise ValueError(f"`batches` must hold samples, but got an array of shape {np.shape(x)}.")
    first = jax.tree.leaves(batches[0])
    if all(map(_equal, itertools.repeat(first), (jax.tree.leaves(batch) for batch in batches[1:]))):
        raise ValueError(f"`batches` must differ from each other, but got {len(batches)} equal ones.")
    with lenient():
        out = jax.eval_shape(loss, params, batches[0])
    if getattr(out, "shape", None) != () or not jnp.issubdtype(out.dtype, jnp.floating):
        raise ValueError(f"`loss` must return one real number, but got {out}.")
    return batches


def _equal(a, b):
    return len(a) == len(b) and all(
        np.shape(x) == np.shape(y) and bool(jnp.all(x == y)) for x, y in zip(a, b, strict=True)
    )


def _require_enough(shapes, batches, points):
    needed = 2 * len(shapes)
    for length, views in columns(shapes, 1).items():
        needed = max(needed, -(-2 * len(views) // length))
    if batches * points < needed:
        raise ValueError(
            f"`batches` must give {needed} gradients for {len(shapes)} tensors, but got {batches} at {points} points."
        )
