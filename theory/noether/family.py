"""Symmetries of a loss as families of generators on the tensors of a pytree: charges, constraints, budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax.typing import ArrayLike
from jaxtyping import Array

KINDS = {
    "translation": "theta + s",
    "scale": "e^s theta",
    "rescale": "e^s theta_1, e^(-p s) theta_2",
    "matrix": "U B, V B^(-T)",
    "rotation": "U O, V O",
    "flat": "theta + anything",
}
MATRICES = ("matrix", "rotation")


class Part(NamedTuple):
    """One tensor's part in a symmetry.

    Args:
        name: Path of the tensor in the pytree, its keys joined by "/".
        units: Axes that count the units (neurons, channels, heads), in order; all others are summed over.
        coefficient: Power of the transformation: 1, -1, -p.
        shape: Shape in which to see the tensor first, for a flattened or grouped axis; None for its own.
        inner: Axis of the matrix B, for the kinds "matrix" and "rotation".
    """

    name: str
    units: tuple[int, ...] = ()
    coefficient: float = 1.0
    shape: tuple[int, ...] | None = None
    inner: int | None = None


@dataclass(frozen=True)
class SymmetryFamily:
    r"""One generator a unit: :math:`\xi_u(\theta) = A_u\theta + b_u`, of one kind and on the same tensors.

    Args:
        kind: "translation" (theta + s), "scale" (e^s theta), "rescale" (e^s theta_1, e^{-p s} theta_2), "matrix"
            (U B, V B^{-T}), "rotation" (U O, V O with O orthogonal) or "flat" (the gradient is zero).
        parts: The tensors it moves.
        status: "exact", "approximate", "undecided", "inactive" (a dead unit), "broken", or, where nobody has looked,
            "declared".
        evidence: What speaks for the status: name -> number.
    """

    kind: str
    parts: tuple[Part, ...]
    status: str = "declared"
    evidence: Mapping[str, float] = field(default_factory=dict, compare=False)

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"`kind` must be one of {', '.join(KINDS)}, but got {self.kind}.")
        if not self.parts:
            raise ValueError("`parts` must name at least one tensor, but got none.")

    @property
    def has_charge(self) -> bool:
        """Whether gradient flow conserves a number: the generator is a gradient field."""
        return self.kind != "rotation"

    def __str__(self) -> str:
        def term(part):
            power = "" if abs(part.coefficient) == 1 else f" {abs(part.coefficient):g}"
            return f"{'+' if part.coefficient > 0 else '-'}{power} {part.name}{_indices(part)}"

        positive_first = sorted(self.parts, key=lambda part: part.coefficient < 0)
        return f"{self.kind}: {' '.join(map(term, positive_first)).removeprefix('+ ')}"

    @property
    def coefficients(self) -> tuple[float, ...]:
        return tuple(part.coefficient for part in self.parts)


def _indices(part: Part) -> str:
    rank = max([*part.units, part.inner if part.inner is not None else -1]) + 1 if part.shape is None else None
    letters = ["." for _ in range(rank if rank is not None else len(part.shape))]
    for axis in part.units:
        letters[axis] = "u"
    if part.inner is not None:
        letters[part.inner] = "i"
    return f"[{','.join(letters)}]" if letters else ""


def tensors(tree: Any) -> dict[str, Any]:
    """The leaves of a pytree by their paths, keys joined by "/"."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _with(tree: Any, changed: Mapping[str, Any], rest: Callable) -> Any:
    """The tree with some leaves replaced, the others mapped by `rest`."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    return structure.unflatten(
        [changed[name] if name in changed else rest(leaf) for name, (_, leaf) in zip(names, leaves, strict=True)]
    )


def _order(part: Part, shape: tuple[int, ...]) -> tuple[tuple[int, ...], list[int]]:
    """(shape in which the tensor is seen, axes in the order units, inner, rest)."""
    seen = part.shape or shape
    lead = [*part.units, *(() if part.inner is None else (part.inner,))]
    if math.prod(seen) != math.prod(shape) or any(axis >= len(seen) for axis in lead):
        raise ValueError(f"`parts` must fit the tensors, but {part.name} has shape {shape}.")
    return seen, lead + [axis for axis in range(len(seen)) if axis not in lead]


def view(part: Part, tree: Any) -> Array:
    """A tensor as (units, inner, rest); inner is 1 where there is no matrix."""
    named = tensors(tree)
    if part.name not in named:
        raise ValueError(f"`parts` must name tensors of the parameters, but got {part.name}.")
    return arranged(part, _array(named[part.name]))


def _array(x: Any) -> Any:
    """An array of JAX or NumPy as it is, anything else of JAX; large audits stay on the host without compiling."""
    return x if hasattr(x, "__array_namespace__") else jnp.asarray(x)


def arranged(part: Part, x: Any) -> Any:
    """A tensor, of JAX or NumPy, as (units, inner, rest); inner is 1 where there is no matrix."""
    seen, order = _order(part, x.shape)
    units = math.prod(seen[axis] for axis in part.units)
    return x.reshape(seen).transpose(order).reshape(units, 1 if part.inner is None else seen[part.inner], -1)


def units_shape(family: SymmetryFamily, tree: Any) -> tuple[int, ...]:
    """Shape of an amount or a direction: (units,), or (units, inner, inner) for matrices."""
    first = family.parts[0]
    seen, _ = _order(first, jnp.shape(tensors(tree)[first.name]))
    inner = () if first.inner is None else (seen[first.inner],) * 2
    return (math.prod(seen[axis] for axis in first.units), *inner)


def _unview(part: Part, x: Array, shape: tuple[int, ...]) -> Array:
    """The inverse of `view`."""
    seen, order = _order(part, shape)
    return x.reshape([seen[axis] for axis in order]).transpose(np.argsort(order)).reshape(shape)


def _product(family: SymmetryFamily, part: Part, x: Array, y: Array) -> Array:
    """Sum of the products over what is no unit: (units,), or (units, inner, inner) for matrices."""
    product = part.coefficient * jnp.einsum("uir,ujr->uij", x, y)
    return product if family.kind in MATRICES else product[:, 0, 0]


def bilinear(family: SymmetryFamily, x: Any, y: Any) -> Array:
    r"""The quadratic form of a symmetry, :math:`x^\top A_u y`, unit by unit.

    Args:
        family: A symmetry other than a translation.
        x: A pytree like the parameters.
        y: A pytree like the parameters.

    Returns:
        One number a unit, shape (units,); for "matrix" the symmetric part of x_U^T y_U - x_V^T y_V, for "rotation" the
        antisymmetric part of x_U^T y_U + x_V^T y_V, shape (units, inner, inner).

    Valid: any trees of the same structure; `bilinear(family, theta, update)` is the momentum of the symmetry.
    Raises: ValueError for a translation or a flat family, for tensors that are missing or of another shape.
    Source: arXiv:2012.04728 (diagonal), derived for matrices.
    Checked: gradient of `charge`, finite transformation.
    """
    if family.kind in ("translation", "flat"):
        raise ValueError(f"`family` must have a quadratic charge, but got kind {family.kind}.")
    total = sum(_product(family, part, view(part, x), view(part, y)) for part in family.parts)
    if family.kind not in MATRICES:
        return total
    mirrored = jnp.swapaxes(total, 1, 2)
    return (total + mirrored) / 2 if family.kind == "matrix" else (total - mirrored) / 2


def charge(family: SymmetryFamily, params: Any) -> Array:
    r"""The quantity that gradient flow conserves, unit by unit.

    .. math:: s_u = \langle\theta, \mathbb 1_u\rangle, \quad C_u = \theta^\top A_u\theta, \quad C = U^\top U - V^\top V

    Args:
        family: A symmetry with a charge.
        params: The parameters, a pytree.

    Returns:
        One number a unit, shape (units,), linear for a translation and quadratic otherwise; shape
        (units, inner, inner) for "matrix".

    Valid: gradient flow on any batches, where the symmetry is exact.
    Raises: ValueError for a rotation, which has none, and as `bilinear`.
    Source: arXiv:2012.04728 [paper]; matrices derived.
    Checked: gradient flow with and without decay (1e-6, of the integrator), its gradient is the generator (1e-13).
    """
    if not family.has_charge:
        raise ValueError(f"`family` must have a symmetric generator, but got kind {family.kind}.")
    if family.kind in ("translation", "flat"):
        return sum(part.coefficient * jnp.sum(view(part, params), (1, 2)) for part in family.parts)
    return bilinear(family, params, params)


def generator(family: SymmetryFamily, params: Any, direction: ArrayLike) -> Any:
    r"""The infinitesimal symmetry, :math:`\sum_u d_u\,\xi_u(\theta)`.

    Args:
        family: A symmetry.
        params: The parameters, a pytree.
        direction: Amount of each unit, shape (units,), or (units, inner, inner) for matrices: any for "matrix", of
            which the antisymmetric part is used for "rotation".

    Returns:
        A pytree like `params`, zero on the tensors that do not move.

    Valid: "flat": the translation of its tensors.
    Raises: ValueError as `bilinear`.
    Source: arXiv:2012.04728 [paper]; matrices derived.
    Checked: derivative of `transform` at 0.
    """
    return _moved(family, params, _array(direction), _infinitesimal, lambda x: 0 * _array(x))


def transform(family: SymmetryFamily, params: Any, amount: ArrayLike) -> Any:
    r"""The finite symmetry: parameters at which every batch has the same loss.

    .. math:: \theta + s, \qquad e^{c s}\theta, \qquad (U e^S, V e^{-S^\top})

    Args:
        family: A symmetry.
        params: The parameters, a pytree.
        amount: Amount of each unit, as `generator` takes its direction.

    Returns:
        A pytree like `params`.

    Valid: any amount.
    Raises: ValueError as `bilinear`.
    Source: arXiv:2012.04728 [paper]; matrices derived.
    Checked: losses of every kind at amounts ln 1/2, ln 2, ln 7 (1e-11); the audited networks (1e-12).
    """
    return _moved(family, params, _array(amount), _finite, lambda x: x)


def _moved(family, params, amount, action, rest):
    named = tensors(params)
    moved = {}
    for part in family.parts:
        x = view(part, params)
        s = amount.astype(x.dtype).reshape(x.shape[0], *((x.shape[1],) * 2 if family.kind in MATRICES else (1, 1)))
        shape = jnp.shape(named[part.name])
        change = _unview(part, action(family, part, x, s), shape)
        # A tensor may have a part in a symmetry twice, by two of its axes: the actions add, or compose.
        before = moved.get(part.name)
        if before is None:
            moved[part.name] = change
        elif action is _infinitesimal:
            moved[part.name] = before + change
        else:
            moved[part.name] = _unview(part, action(family, part, view(part, {**named, **moved}), s), shape)
    return _with(params, moved, rest)


def _infinitesimal(family, part, x, s):
    if family.kind in ("translation", "flat"):
        return part.coefficient * s + 0 * x
    if family.kind == "rotation":
        return ((s - s.swapaxes(1, 2)) / 2).swapaxes(1, 2) @ x
    if family.kind == "matrix":
        return s.swapaxes(1, 2) @ x if part.coefficient > 0 else -s @ x
    return part.coefficient * s * x


def _finite(family, part, x, s):
    if family.kind in ("translation", "flat"):
        return x + part.coefficient * s
    if family.kind in MATRICES:
        s = (s - s.swapaxes(1, 2)) / 2 if family.kind == "rotation" else s
        exponent = s if part.coefficient > 0 else -s.swapaxes(1, 2)
        B = (
            scipy.linalg.expm(exponent)
            if isinstance(exponent, np.ndarray)
            else jax.vmap(jax.scipy.linalg.expm)(exponent)
        )
        return B.swapaxes(1, 2) @ x
    return s.__array_namespace__().exp(part.coefficient * s) * x
