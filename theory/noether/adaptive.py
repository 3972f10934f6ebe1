"""Adaptive optimizers: how a preconditioner moves the charges, and which ones sign descent keeps instead."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import finite, integer, positive, together, with_one_dtype
from theory.noether.family import SymmetryFamily, bilinear, charge, tensors
from theory.noether.modified import at_dtype


def preconditioned_charge_rate(
    family: SymmetryFamily, params: Any, gradient: Any, preconditioner: Any, eta: ArrayLike
) -> Float[Array, "units ..."]:
    r"""Change of a charge in one step of a diagonally preconditioned descent, to first order in the step.

    .. math:: 2\langle A\theta, \Delta\rangle = -2\eta \sum_i (D_i - \bar D)\,(A\theta)_i\,g_i, \qquad
        \Delta = -\eta D g

    and :math:`-\eta\sum_i (D_i - \bar D)\,g_i` for a translation.

    Args:
        family: A symmetry with a charge.
        params: The parameters, a pytree.
        gradient: Gradient of the loss, a pytree like `params`.
        preconditioner: D, a pytree like `params`; 1 / (sqrt(v) + epsilon) for RMSProp and for Adam at beta_1 = 0.
        eta: Learning rate, positive. A number.

    Returns:
        The change per step, of the shape of the charge. Divided by eta it does not vanish with it, unless D is the
        same wherever the symmetry acts: then it is 0, and the charge moves by the finite step [Delta]_A alone.

    Valid: exact symmetry; D-bar is the mean over the family's tensors, and any number in exact arithmetic.
    Raises: ValueError as `charge`, or for a rate that is not positive (concrete values only).
    Source: derived here.
    Checked: steps of random and constant preconditioners on three symmetric losses (1e-12).
    """
    positive(eta=eta)
    if not family.has_charge:
        raise ValueError(f"`family` must have a symmetric generator, but got kind {family.kind}.")
    named = tensors(preconditioner)
    entries = [jnp.ravel(named[name]) for name in {part.name: None for part in family.parts}]
    mean = jnp.mean(jnp.concatenate(entries))
    moved = jax.tree.map(lambda d, g: -at_dtype(eta, g) * (d - at_dtype(mean, d)) * g, preconditioner, gradient)
    if family.kind in ("translation", "flat"):
        return charge(family, moved)
    return 2 * bilinear(family, params, moved)


def sign_descent_charge(w: ArrayLike) -> Float[Array, "... depth-1"]:
    r"""Imbalance of a chain of scalar weights that sign descent conserves.

    .. math:: |w_i| - |w_{i+1}|, \qquad f = \prod_i w_i, \quad w_i \leftarrow w_i - \eta\operatorname{sign} g_i

    Args:
        w: Weights of the chain. Shape (..., depth).

    Returns:
        Differences of neighbours, in units of w. Shape (..., depth - 1).

    Valid: any loss of the product, any step size, until a weight changes its sign; w_i^2 - w_j^2 is not conserved.
    Raises: ValueError for a single number, or values that are not finite (concrete values only).
    Source: derived here.
    Checked: sign descent on a chain of four (1e-14).
    """
    finite(w=w)
    (w,) = with_one_dtype(w)
    if not w.ndim:
        raise ValueError("`w` must have shape (..., depth), but got ().")
    return -jnp.diff(jnp.abs(w), axis=-1)


def softmax_bias_drift(classes: ArrayLike, eta: ArrayLike) -> Float[Array, "..."]:
    r"""Drift of the sum of a softmax's biases per step of sign descent on one example.

    .. math:: -(n - 2)\,\eta

    Args:
        classes: n, a whole number from 2. Shape (...).
        eta: Learning rate, positive. Shape (...).

    Returns:
        Change of the sum, which gradient descent conserves. Shape: broadcast.

    Valid: cross entropy, every probability between 0 and 1; 0 for two classes, for any batch and for Adam too.
    Raises: ValueError for arguments out of range (concrete values only).
    Source: derived here.
    Checked: sign descent on the biases of 2, 3 and 10 classes (1e-14); Adam on two classes.
    """
    integer(2, classes=classes)
    positive(eta=eta)
    n, eta = together(classes, eta)
    return -(n - 2) * eta
