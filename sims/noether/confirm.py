"""Is it a symmetry? The finite action, the Hessian identity and the rounding of a family, and its class."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np

from sims.noether.features import Pairs, Samples, violation
from theory.noether.constraints import hessian_constraint
from theory.noether.family import MATRICES, SymmetryFamily, transform, units_shape

AMOUNTS = tuple(map(math.log, (0.5, 2.0, 7.0)))
FAR = math.log(1024.0)  # shrinks an epsilon's denominator by a million, and is exact in binary
COHERENT = 0.9  # mean cosine above which violations are no rounding
STATUSES = ("exact", "approximate", "undecided", "inactive", "broken")


class Compiled(NamedTuple):
    """A loss and its derivatives: value(params, batch), gradient(params, batch), product(params, batch, tangent)."""

    value: Callable
    gradient: Callable
    product: Callable


class Precision(NamedTuple):
    """Rounding, what it leaves of a residual that is zero and of the loss, and where an approximate symmetry ends."""

    rounding: float
    residual: float
    loss: float
    near: float


def confirmed(
    family: SymmetryFamily,
    compiled: Compiled,
    samples: Samples,
    close: Pairs,
    precision: Precision,
    rng: np.random.Generator,
) -> SymmetryFamily:
    r"""The family with its evidence and its status.

    Args:
        family: A candidate.
        compiled: The loss and its derivatives.
        samples: Gradients at random parameters.
        close: Pairs at parameters next to the samples', where a residual that is no rounding is nearly the same.
        precision: Thresholds.
        rng: Generator of directions, factors and amounts.

    Returns:
        "exact": all residuals are rounding. "approximate": up to `precision.near`, or only for small transformations.
        "undecided": the residuals are as small as rounding, but not random, or the loss overflows. "inactive": no
        gradient, but the loss depends on it elsewhere. "broken": none of these.
    """
    gradient, coherence = _gradient(family, samples, close)
    hessian = _hessian(family, compiled, samples, rng)
    finite, far = _actions(family, compiled, samples, rng)
    evidence = {"gradient": gradient, "hessian": hessian, "finite": finite, "coherence": coherence}
    if far is not None:
        evidence["far"] = far
    # At a kink the second derivative may not exist; the finite actions say more.
    largest = max(gradient, hessian) if math.isfinite(hessian) else gradient
    moved = max(finite, far or 0.0)
    if largest > precision.near:
        status = "broken"
    elif family.kind == "flat" and not moved <= precision.loss:
        status = "inactive"
    elif largest > precision.residual or precision.loss < moved < math.inf:
        status = "approximate"
    elif moved == math.inf or (coherence > COHERENT and gradient > precision.rounding):
        status = "undecided"
    else:
        status = "exact"
    return replace(family, status=status, evidence={**family.evidence, **evidence})


def _gradient(family, samples, close):
    """Root mean square violation over its chance level, and its mean cosine with the one at close parameters."""
    here = list(violation(samples, family.kind, family.parts))
    there = violation(close, family.kind, family.parts)
    chance = sum(square for _, square in here)
    residual = math.sqrt(sum(float(v @ v) for v, _ in here) / chance) if chance > 0 else 0.0
    products = [(a @ b, np.linalg.norm(a) * np.linalg.norm(b)) for (a, _), (b, _) in zip(here, there, strict=False)]
    return residual, float(np.mean([product / (length or 1.0) for product, length in products]))


def _hessian(family, compiled, samples, rng):
    params = samples.hosted[-1]
    dtypes = jax.tree.map(lambda x: x.dtype, samples.points[-1])

    def residual(batch):
        def product(tangent):
            tangent = jax.tree.map(lambda x, d: x.astype(d), tangent, dtypes)
            return jax.tree.map(_host, compiled.product(samples.points[-1], batch, tangent))

        gradient = jax.tree.map(_host, compiled.gradient(samples.points[-1], batch)[1])
        factors = jax.tree.map(lambda x: rng.standard_normal(x.shape), params)
        direction = rng.standard_normal(units_shape(family, params))
        return float(hessian_constraint(family, params, gradient, product, direction, factors))

    # Where a softmax saturates, its curvature cancels and the scale of the residual with it: hence not one batch.
    return float(np.median([residual(batch) for batch in samples.batches[-3:]]))


def _host(x):
    return np.asarray(x, float)


def _actions(family, compiled, samples, rng):
    """Largest relative change of the loss under moderate transformations, and under far ones where there are any."""
    params, batch = samples.hosted[0], samples.batches[0]
    if family.kind == "flat":
        params = samples.revived(rng)
    shape = units_shape(family, params)

    def loss(theta):
        theta = jax.tree.map(lambda x, like: x.astype(like.dtype), theta, samples.points[0])
        return float(compiled.value(theta, batch))

    def change(amount):
        after = loss(transform(family, params, np.asarray(amount)))
        return abs(after - before) / samples.size if math.isfinite(after - before) else math.inf

    before = loss(params)
    if family.kind in MATRICES:
        mixed = [s * rng.standard_normal(shape) / math.sqrt(shape[-1]) for s in AMOUNTS]
        return max(map(change, mixed)), None
    order = rng.permutation(np.arange(math.prod(shape))).reshape(shape)
    finite = max(change(np.take(AMOUNTS, (order + k) % 3)) for k in range(3))
    if family.kind not in ("scale", "rescale"):
        return finite, None
    return finite, max(change(sign * FAR * (1 - 2 * (order % 2))) for sign in (1, -1))


# ---- a person's loss


@contextlib.contextmanager
def lenient():
    """A person's model may promote types and ranks; products keep the precision of their factors."""
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        jax.default_matmul_precision("highest"),
    ):
        yield


def compiled_loss(loss: Callable) -> Compiled:
    """A loss and its derivatives, each compiled once."""

    def product(params, batch, tangent):
        return jax.jvp(lambda p: jax.grad(loss)(p, batch), (params,), (tangent,))[1]

    return Compiled(*map(_called, (lambda p, b: loss(p, b), jax.value_and_grad(loss), product)))


def _called(function):
    jitted = jax.jit(function)

    def call(*arguments):
        with lenient():
            return jitted(*arguments)

    return call
