"""How far gradient descent drifts from the conserved quantity over a whole run."""

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import require, traced, with_one_dtype
from theory.lazy_rich.conserved import second_order_step
from theory.lazy_rich.parameters import batched, dot
from theory.lazy_rich.single_neuron import gradient_flow

# Gauss-Legendre rule of the integral in sqrt(t), for runs are fastest at the start: panels, and nodes in each.
PANELS, NODES = 128, 16


def conserved_drift(
    h: ArrayLike,
    T: ArrayLike,
    w0: ArrayLike,
    a0: ArrayLike,
    beta_star: ArrayLike,
    *,
    eta_a: ArrayLike = 1.0,
    eta_w: ArrayLike = 1.0,
) -> Float[Array, "..."]:
    r"""Drift of the conserved quantity over a whole run of gradient descent, to first order in the step size.

    .. math:: \delta(T) - \delta(0) = h\,\eta_a\eta_w \int_0^T \big[\eta_a (w^\top v)^2 - \eta_w a^2 \|v\|^2\big] dt
        + O(h^2), \qquad v = \beta_* - \beta

    Args:
        h: Step size, in units of time. A number.
        T: Time of the run, steps times h, zero or positive. A number.
        w0: Incoming weights at the start. Shape (..., d).
        a0: Outgoing weight at the start. Shape (...).
        beta_star: The solution X^+ y. Shape (..., d).
        eta_a: Learning rate of a, positive; relative. Shape (...).
        eta_w: Learning rate of w, positive; relative. Shape (...).

    Returns:
        The drift. Shape (...).

    Valid: whitened data, X^T X = I; error O(h^2). The integral to 1e-11 for lambda T <= 1000 (2048 nodes).
    Raises: ValueError as `gradient_flow`, or if T is not finite.
    Source: derived here.
    Checked: reference value; gradient descent at four step sizes, extrapolated; adaptive quadrature.
    """
    if not traced(T):
        require(np.isfinite(T) & (np.asarray(T) >= 0), "T", "zero or positive, and finite", T)
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    root = (np.arange(PANELS)[:, None] + (1 + nodes) / 2).ravel() / PANELS
    _, h, T, within, weights = with_one_dtype(w0, h, T, root**2, root * np.tile(weights, PANELS) / PANELS)
    w, a = gradient_flow(T * within, w0, a0, beta_star, eta_a=eta_a, eta_w=eta_w)
    (beta_star,), (_, eta_a, eta_w) = batched({"beta_star": beta_star}, a0=a0, eta_a=eta_a, eta_w=eta_w)
    beta_star = jnp.broadcast_to(beta_star, w.shape[:-2] + beta_star.shape[-1:])
    v = beta_star[..., None, :] - a[..., None] * w
    eta_a, eta_w = (jnp.broadcast_to(x, a.shape[:-1])[..., None] for x in (eta_a, eta_w))
    integrand = second_order_step(a, dot(w, v) ** 2, dot(v, v), eta_a, eta_w)
    return h * T * jnp.sum(integrand * jnp.broadcast_to(weights, integrand.shape), axis=-1)
