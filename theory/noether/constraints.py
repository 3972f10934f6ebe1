"""What a symmetry forces on gradient and Hessian, and how a single update moves its charge."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array

from theory.arguments import nonnegative, positive
from theory.noether.family import MATRICES, SymmetryFamily, bilinear, charge, generator, units_shape, view


class Residual(NamedTuple):
    """Violation of the two constraints, each relative to what it would be without the symmetry; 0 where exact."""

    gradient: Array
    hessian: Array


def gradient_constraint(family: SymmetryFamily, params: Any, gradient: Any) -> Array:
    r"""Inner product of a gradient with the generators of a symmetry, over the product of their lengths.

    .. math:: \langle g, \xi_u\rangle, \qquad U^\top G_U - G_V^\top V, \qquad
        (U^\top G_U + V^\top G_V)_{\text{antisymmetric}}

    Args:
        family: A symmetry.
        params: The parameters, a pytree.
        gradient: Gradient of any batch, a pytree like `params`.

    Returns:
        The violation, unit by unit, zero at exact symmetry. Shape (units,), or (units, inner, inner).

    Valid: every batch. The length is that of the whole family, so that a unit without gradient counts as zero; for a
        flat family that of all tensors' gradient.
    Raises: ValueError if tensors are missing or of another shape.
    Source: arXiv:2012.04728 [paper]; the full matrix identity derived.
    Checked: as `constraint_residual`.
    """
    products, lengths = 0.0, 0.0
    for part in family.parts:
        x, g = view(part, params), view(part, gradient)
        if family.kind in ("translation", "flat"):
            x = jnp.ones_like(x)
        product = jnp.einsum("uir,ujr->uij", x, g)
        if family.kind == "matrix":
            product = product if part.coefficient > 0 else -jnp.swapaxes(product, 1, 2)
        elif family.kind == "rotation":
            product = (product - jnp.swapaxes(product, 1, 2)) / 2
        else:
            product = part.coefficient * jnp.sum(x * g, (1, 2))
        products = products + product
        # A flat tensor's own gradient is rounding, so it is held against that of all tensors.
        steep = jax.tree.leaves(gradient) if family.kind == "flat" else [g]
        lengths = lengths + part.coefficient**2 * jnp.sum(x**2) * sum(jnp.sum(y**2) for y in steep)
    return products / jnp.where(lengths > 0, jnp.sqrt(lengths), 1.0)


def constraint_residual(loss: Callable, params: Any, batch: Any, family: SymmetryFamily, key: Array) -> Residual:
    r"""How far a loss is from a symmetry at one point, on one batch, to first and second order.

    .. math:: \langle g, \xi\rangle = 0, \qquad H\xi + A^\top g = 0

    for a random combination of the units in the second.

    Args:
        loss: loss(params, batch).
        params: The parameters, a pytree.
        batch: Its second argument.
        family: The symmetry to be tested.
        key: Random key of the combination.

    Returns:
        `Residual(gradient, hessian)`: largest violation over units, relative to the lengths; and ||H xi + A^T g|| over
        the same with random factors on the entries of xi, which no symmetry has.

    Valid: losses that are twice differentiable at almost every point; ReLU kinks are harmless.
    Raises: ValueError if tensors are missing or of another shape.
    Source: arXiv:2012.04728, equations 5 and 6 [paper]; affine form derived.
    Checked: losses of every kind (1e-13); the audited networks; GELU rescale and others, which violate it.
    """

    def slope(p):
        return jax.grad(loss)(p, batch)

    g = slope(params)
    k_direction, k_factors = jax.random.split(key)
    direction = jax.random.normal(k_direction, units_shape(family, params), jnp.result_type(*jax.tree.leaves(params)))
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(k_factors, len(leaves))
    factors = [jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)]
    product = lambda tangent: jax.jvp(slope, (params,), (tangent,))[1]  # noqa: E731
    hessian = hessian_constraint(family, params, g, product, direction, structure.unflatten(factors))
    return Residual(jnp.max(jnp.abs(gradient_constraint(family, params, g))), hessian)


def hessian_constraint(
    family: SymmetryFamily,
    params: Any,
    gradient: Any,
    product: Callable[[Any], Any],
    direction: ArrayLike,
    factors: Any,
) -> Array:
    r"""Violation of the second-order constraint, :math:`H\xi + A^\top g = 0`, for a combination of the units.

    Args:
        family: A symmetry.
        params: The parameters, a pytree.
        gradient: Gradient of a batch, a pytree like `params`.
        product: Product of the Hessian of the same batch with a pytree like `params`.
        direction: The combination, as `generator` takes it; a random one.
        factors: Random factors, a pytree like `params`.

    Returns:
        ||H xi + A^T g|| over the same with xi times the factors (flat: with the factors themselves), which no symmetry
        has. A number.

    Valid: losses that are twice differentiable at almost every point; ReLU kinks are harmless.
    Raises: ValueError if tensors are missing or of another shape.
    Source: arXiv:2012.04728, equation 6 [paper]; affine form derived.
    Checked: as `constraint_residual`.
    """
    xi = generator(family, params, direction)
    other = product(factors if family.kind == "flat" else jax.tree.map(operator.mul, xi, factors))
    turned = _transposed(family, gradient, direction, params)
    scale = _length(other) + _length(turned)
    return _length(jax.tree.map(operator.add, product(xi), turned)) / (scale + (scale == 0).astype(scale.dtype))


def _length(tree):
    return sum((x**2).sum() for x in jax.tree.leaves(tree)) ** 0.5


def _transposed(family, gradient, direction, params):
    """A^T g, of the combination of units: the generator at g, with the transposed matrix."""
    if family.kind in ("translation", "flat"):
        return jax.tree.map(lambda x: 0 * x, params)
    if family.kind in MATRICES:
        direction = direction.swapaxes(1, 2)
    return generator(family, gradient, direction)


class ChargeBudget(NamedTuple):
    """Why a charge moved in one update; `decay + finite_step + remainder` is `total`.

    ===========  ===================================================================================
    total        C(theta + Delta) - C(theta), measured
    decay        -2 eta lambda C, what weight decay alone would do (-eta lambda s if linear)
    finite_step  [Delta]_A, the second order of the step
    remainder    2 <A theta, Delta> + 2 eta lambda C: memory, metric of the optimizer, broken symmetry
    ===========  ===================================================================================
    """

    total: Array
    decay: Array
    finite_step: Array
    remainder: Array

    @property
    def gap(self) -> Array:
        """What the budget leaves unexplained: rounding alone."""
        return self.total - self.decay - self.finite_step - self.remainder


def charge_budget(
    family: SymmetryFamily, params: Any, update: Any, eta: ArrayLike = 1.0, weight_decay: ArrayLike = 0.0
) -> ChargeBudget:
    r"""Exact budget of a charge over one update of any optimizer.

    .. math:: C_{k+1} - C_k = 2\langle A\theta_k, \Delta_k\rangle + [\Delta_k]_A

    Args:
        family: A symmetry with a charge.
        params: The parameters before the update, a pytree.
        update: The update Delta, a pytree like `params`.
        eta: Learning rate, positive. A number.
        weight_decay: Coefficient lambda of the decay, zero or positive. A number.

    Returns:
        `ChargeBudget`, each term of the charge's shape.

    Valid: any update. The remainder is zero for gradient descent where the symmetry is exact.
    Raises: ValueError as `charge`; for eta that is not positive, weight_decay < 0.
    Source: derived here.
    Checked: descent and Adam (closes to 1e-14); five optimizers on a ReLU network (1e-13).
    """
    positive(eta=eta)
    nonnegative(weight_decay=weight_decay)
    now, after = charge(family, params), charge(family, jax.tree.map(jnp.add, params, update))
    rate = jnp.asarray(eta, now.dtype) * jnp.asarray(weight_decay, now.dtype)
    if family.kind in ("translation", "flat"):
        first, finite_step, decay = charge(family, update), jnp.zeros_like(now), -rate * now
    else:
        first, finite_step, decay = (
            2 * bilinear(family, params, update),
            bilinear(family, update, update),
            -2 * rate * now,
        )
    return ChargeBudget(after - now, decay, finite_step, first - decay)
