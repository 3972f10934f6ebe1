"""Which interpolator gradient flow ends at when the data leave directions unseen, and what it minimises."""

import warnings
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import finite, nonnegative, positive, require, together, traced, with_one_dtype
from theory.lazy_rich.conserved import conserved_quantity
from theory.lazy_rich.parameters import layer_strengths, norm
from theory.lazy_rich.single_neuron import final_sign
from theory.roots import safe_sqrt


class Interpolator(NamedTuple):
    """Where training ends: the regression vector and the outgoing weight."""

    beta: Float[Array, " d"]
    a: Float[Array, ""]


def mirror_potential(
    beta_norm: ArrayLike, delta: ArrayLike, *, eta_a: ArrayLike = 1.0, eta_w: ArrayLike = 1.0
) -> Float[Array, "..."]:
    r"""Potential that a linear neuron minimises among all interpolators.

    .. math:: \Phi_\delta(\beta) = \frac{(\kappa - 2\delta)\sqrt{\kappa + \delta}}{3\sqrt{\eta_a\eta_w}}, \qquad
        \beta_\infty = \arg\min_{X\beta = y} \Phi_\delta(\beta) - \sigma\sqrt{2\eta_a}\,w_0^\top\beta, \qquad
        \sigma = \operatorname{sign} a_\infty

    Args:
        beta_norm: ||beta||, zero or positive. Shape (...).
        delta: The conserved quantity. Shape (...).
        eta_a: Learning rate of a, positive; relative. Shape (...).
        eta_w: Learning rate of w, positive; relative. Shape (...).

    Returns:
        Phi, whose slope along ||beta|| is :math:`\sqrt{\kappa - \delta}`; convex, with a cone at 0 if delta < 0.
        Shape: broadcast.

    Valid: gradient flow that ends at zero loss.
    Raises: ValueError for beta_norm < 0, a rate that is not positive, or values that are not finite.
    Source: arXiv:2406.06158 [paper] up to a factor (Azulay et al. 2021 for delta >= 0); rates derived here.
    Checked: reference value, its derivative (1e-10), its numerical minimum is `interpolator` (1e-6).
    """
    nonnegative(beta_norm=beta_norm)
    outer, inner = layer_strengths(beta_norm, delta, eta_a=eta_a, eta_w=eta_w)
    outer, inner, eta_a, eta_w = together(outer, inner, eta_a, eta_w)
    return (3 * inner - outer) * safe_sqrt(2 * outer) / (3 * jnp.sqrt(eta_a * eta_w))


def mirror_potential_slope(
    beta_norm: ArrayLike, delta: ArrayLike, *, eta_a: ArrayLike = 1.0, eta_w: ArrayLike = 1.0
) -> Float[Array, "..."]:
    r"""Slope of the potential along the norm: the gradient is this times the direction of beta.

    .. math:: \nabla\Phi_\delta = \sqrt{\kappa - \delta}\,\hat\beta = \sqrt{2\eta_a}\,\|w\|\,\hat\beta

    Args:
        beta_norm: ||beta||, zero or positive. Shape (...).
        delta: The conserved quantity. Shape (...).
        eta_a: Learning rate of a, positive; relative. Shape (...).
        eta_w: Learning rate of w, positive; relative. Shape (...).

    Returns:
        The slope, zero or positive. Shape: broadcast.

    Valid: everywhere.
    Raises: ValueError for beta_norm < 0, a rate that is not positive, or values that are not finite.
    Source: derived here.
    Checked: derivative of `mirror_potential` (1e-10); time-warped mirror flow: dw/dt = eta_w a v.
    """
    nonnegative(beta_norm=beta_norm)
    return safe_sqrt(2 * layer_strengths(beta_norm, delta, eta_a=eta_a, eta_w=eta_w).inner)


def split(X: ArrayLike, y: ArrayLike, w0: ArrayLike, *rates: ArrayLike) -> tuple[Array, ...]:
    """Minimum-norm interpolator X^+ y, and w_0 in the row space of X and in its kernel; arguments checked."""
    shapes = jnp.shape(X), jnp.shape(y), jnp.shape(w0)
    if len(shapes[0]) != 2 or shapes[1:] != (shapes[0][:1], shapes[0][1:]):
        raise ValueError(
            f"`X`, `y` and `w0` must have shapes (n, d), (n,) and (d,), but got {', '.join(map(str, shapes))}."
        )
    finite(X=X, y=y, w0=w0)
    X, y, w0, *rates = with_one_dtype(X, y, w0, *rates)
    inverse = jnp.linalg.pinv(X)
    beta_star, row = inverse @ y, inverse @ (X @ w0)
    if not traced(X, y):
        residual = np.linalg.norm(np.asarray(X @ beta_star - y))
        tolerance = np.finfo(X.dtype).eps ** 0.5 * np.linalg.norm(np.asarray(y))
        require(residual <= tolerance, "y", "in the range of `X`, with residual 0", residual)
        if len(singular_values(X)) == X.shape[1]:
            warnings.warn("`X` has full column rank: it has one interpolator, and no bias is left.", stacklevel=3)
    return beta_star, row, w0 - row, *rates


def singular_values(X: ArrayLike) -> np.ndarray:
    """Nonzero singular values, largest first."""
    values = np.linalg.svd(np.asarray(X), compute_uv=False)
    return values[values > values.max() * max(np.shape(X)) * np.finfo(values.dtype).eps]


def interpolator(
    X: ArrayLike,
    y: ArrayLike,
    w0: ArrayLike,
    a0: ArrayLike,
    sign: ArrayLike | None = None,
    *,
    eta_a: ArrayLike = 1.0,
    eta_w: ArrayLike = 1.0,
) -> Interpolator:
    r"""Interpolator at which gradient flow of a linear neuron ends.

    .. math:: \beta_\infty = \beta_* + a_\infty w_{0,\rm null}, \qquad
        \eta_w a_\infty^2 = \frac{u + \sqrt{u^2 + 4\eta_a\eta_w s^2}}2, \qquad
        u = \delta + \eta_a \|w_{0,\rm null}\|^2 = \eta_w a_0^2 - \eta_a \|w_{0,\rm row}\|^2

    Args:
        X: Inputs, of any rank below d. Shape (n, d).
        y: Labels in the range of X. Shape (n,).
        w0: Incoming weights at the start. Shape (d,).
        a0: Outgoing weight at the start. A number.
        sign: Sign of a at the end, 1 or -1. If None it is that of a_0 for u > 0, where a cannot cross 0, and
            `final_sign` of (w_0,row, a_0) for u <= 0, which needs equal nonzero singular values.
        eta_a: Learning rate of a, positive; relative. A number.
        eta_w: Learning rate of w, positive; relative. A number.

    Returns:
        (beta, a) at the end. Shapes (d,) and ().

    Valid: gradient flow that ends at zero loss. Traced arguments are not checked.
    Raises: ValueError if the shapes do not match, y is not in the range of X, a rate is not positive, or the sign
        is not decided: u <= 0 with unequal singular values, or a start on the separatrix. Warns where X has full
        column rank.
    Source: arXiv:2406.06158 [paper] at unit rates; rates and the sign derived here.
    Checked: reference values, adaptive integration (1e-9), minimum of `mirror_potential` (1e-6), both limits of
        delta; simulation `sims.lazy_rich`.
    """
    positive(eta_a=eta_a, eta_w=eta_w)
    finite(a0=a0)
    beta_star, row, null, a0, eta_a, eta_w = split(X, y, w0, a0, eta_a, eta_w)
    u = conserved_quantity(row, a0, eta_a=eta_a, eta_w=eta_w)
    if sign is None:
        if not traced(X, u):
            values = singular_values(X)
            equal = (u > 0) | (values[0] <= values[-1] * (1 + 1e-5))
            needed = "given where `X` has unequal singular values and a may cross 0"
            require(equal, "sign", needed + " (u <= 0)", u)
        settled = final_sign(row, a0, beta_star, eta_a=eta_a, eta_w=eta_w)
        sign = jnp.where(u > 0, jnp.sign(a0), settled)
        if not traced(sign):
            require(sign != 0, "sign", "given where the start is on the separatrix", sign)
    elif not traced(sign):
        require(np.abs(np.asarray(sign)) == 1, "sign", "1 or -1", sign)
    outer, _ = layer_strengths(norm(beta_star), u, eta_a=eta_a, eta_w=eta_w)
    _, sign = with_one_dtype(outer, sign)
    a = sign * jnp.sqrt(outer / eta_w)
    return Interpolator(beta_star + a * null, a)
