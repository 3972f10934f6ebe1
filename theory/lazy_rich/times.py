"""Times that a linear neuron takes: to align with the solution, and to grow along it."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import finite, nonnegative, positive, require, together, traced
from theory.lazy_rich.conserved import conserved_quantity
from theory.lazy_rich.parameters import layer_strengths
from theory.roots import newton, safe_sqrt

NEWTON_STEPS = 60


def _fit(mu0, s, delta, eta_a, eta_w):
    r"""R, and what A and B of :math:`e^{F} = (A + B) / (k|\delta|(s - \mu))` are at a norm."""
    k = 2 * jnp.sqrt(eta_a * eta_w)
    R = safe_sqrt(delta**2 + (k * s) ** 2)
    return R, delta**2 + k**2 * s * mu0, R * safe_sqrt(delta**2 + (k * mu0) ** 2)


def fitting_time(
    mu: ArrayLike,
    mu0: ArrayLike,
    s: ArrayLike,
    delta: ArrayLike,
    *,
    eta_a: ArrayLike = 1.0,
    eta_w: ArrayLike = 1.0,
) -> Float[Array, "..."]:
    r"""Time that an aligned neuron, or one singular mode, takes to grow.

    .. math:: t = \frac{F(\mu) - F(\mu_0)}R, \qquad
        F(m) = \operatorname{asinh} \frac{\delta^2 + k^2 s m}{k|\delta|(s - m)}, \qquad
        k = 2\sqrt{\eta_a\eta_w}, \quad R = \sqrt{\delta^2 + k^2 s^2}

    evaluated without the poles at delta = 0, for :math:`e^{F(m)} k |\delta| (s - m) = \delta^2 + k^2 s m
    + R \sqrt{\delta^2 + k^2 m^2}`.

    Args:
        mu: Norm ||beta|| reached, from mu0 to below s. Shape (...).
        mu0: Norm at the start, zero or positive. Shape (...).
        s: ||beta_*||, positive. Shape (...).
        delta: The conserved quantity. Shape (...).
        eta_a: Learning rate of a, positive; relative. Shape (...).
        eta_w: Learning rate of w, positive; relative. Shape (...).

    Returns:
        The time. Shape: broadcast.

    Valid: whitened data and a start along beta_*; sigmoid for delta -> 0 (rich), 1 - exp(-|delta| t) for
        |delta| -> infinity (lazy).
    Raises: ValueError for mu0 < 0, mu < mu0, mu >= s, s <= 0, or mu0 = 0 at delta = 0 (concrete values only).
    Source: derived here.
    Checked: reference values, quadrature (1e-11), inverse of `fitted_norm`, both limits, float32, gradients.
    """
    nonnegative(mu0=mu0)
    positive(s=s, eta_a=eta_a, eta_w=eta_w)
    finite(mu0=mu0, s=s, delta=delta, eta_a=eta_a, eta_w=eta_w)
    if not traced(mu, mu0, s, delta):
        require(np.asarray(mu) >= np.asarray(mu0), "mu", "at least `mu0`", mu)
        require(np.asarray(mu) < np.asarray(s), "mu", "below `s`", mu)
        require((np.asarray(mu0) > 0) | (np.asarray(delta) != 0), "mu0", "positive where `delta` is 0", mu0)
    mu, mu0, s, delta, eta_a, eta_w = together(mu, mu0, s, delta, eta_a, eta_w)
    R, A, B = _fit(mu, s, delta, eta_a, eta_w)
    _, A0, B0 = _fit(mu0, s, delta, eta_a, eta_w)
    return jnp.log((A + B) / (A0 + B0) * ((s - mu0) / (s - mu))) / R


def fitted_norm(
    t: ArrayLike,
    mu0: ArrayLike,
    s: ArrayLike,
    delta: ArrayLike,
    *,
    eta_a: ArrayLike = 1.0,
    eta_w: ArrayLike = 1.0,
) -> Float[Array, "..."]:
    r"""Norm of an aligned neuron, or size of one singular mode, in time.

    .. math:: \mu(t) = \frac{R^2 \mu_0 + X s}{R^2 + X}, \qquad
        X = (\delta^2 + k^2 s \mu_0)(\cosh Rt - 1) + R \sqrt{\delta^2 + k^2\mu_0^2} \sinh Rt

    Args:
        t: Time, zero or positive, or inf. Shape (...).
        mu0: Norm at the start, zero or positive. Shape (...).
        s: ||beta_*||, or the singular value of the solution, positive. Shape (...).
        delta: The conserved quantity. Shape (...).
        eta_a: Learning rate of a, positive; relative. Shape (...).
        eta_w: Learning rate of w, positive; relative. Shape (...).

    Returns:
        mu(t), in units of s. Shape: broadcast.

    Valid: whitened data; a start along beta_* with a > 0, or a task-aligned wide network with Delta = delta I. For
        mu0 = 0 at delta = 0 it stays 0.
    Raises: ValueError for t < 0, mu0 < 0, or s or a rate that is not positive (concrete values only).
    Source: derived here; the inverse of `fitting_time`, as a mean of mu0 and s.
    Checked: inverse of `fitting_time` (1e-12), `gradient_flow` and `matrix_flow`, t = 0 and inf.
    """
    nonnegative(t=t, mu0=mu0)
    positive(s=s, eta_a=eta_a, eta_w=eta_w)
    finite(mu0=mu0, s=s, delta=delta, eta_a=eta_a, eta_w=eta_w)
    t, mu0, s, delta, eta_a, eta_w = together(t, mu0, s, delta, eta_a, eta_w)
    R, A, B = _fit(mu0, s, delta, eta_a, eta_w)
    E, gone = jnp.exp(-R * t), -jnp.expm1(-R * t)
    X = gone * (A * gone + B * (1 + E)) / 2
    return (R**2 * E * mu0 + X * s) / (R**2 * E + X)


def alignment_time(
    phi: ArrayLike,
    w0_norm: ArrayLike,
    a0: ArrayLike,
    s: ArrayLike,
    *,
    eta_a: ArrayLike = 1.0,
    eta_w: ArrayLike = 1.0,
) -> Float[Array, "..."]:
    r"""Time that a neuron orthogonal to the solution takes to align with it.

    .. math:: e^{\delta t/2} \sinh\lambda t = \frac{\lambda \|w_0\|}{\eta_w s a_0} \frac\phi{\sqrt{1 - \phi^2}}

    Args:
        phi: Cosine between w and beta_* to be reached, between 0 and 1. Shape (...).
        w0_norm: ||w_0||, positive. Shape (...).
        a0: Outgoing weight at the start, positive. Shape (...).
        s: ||beta_*||, positive. Shape (...).
        eta_a: Learning rate of a, positive; relative. Shape (...).
        eta_w: Learning rate of w, positive; relative. Shape (...).

    Returns:
        The time. Shape: broadcast.

    Valid: whitened data and w_0 orthogonal to beta_*. At phi = 1 / sqrt 2 and ||beta_0|| = s = 1 it is ln 2 / delta
        far upstream, and |delta| ln delta^2 far downstream, where fitting takes only 1 / |delta|.
    Raises: ValueError for phi outside (0, 1), or other arguments that are not positive and finite.
    Source: derived here.
    Checked: reference values, `gradient_flow` there (1e-10), both limits, float32, gradients.
    """
    if not traced(phi):
        require((np.asarray(phi) > 0) & (np.asarray(phi) < 1), "phi", "between 0 and 1, both excluded", phi)
    positive(w0_norm=w0_norm, a0=a0, s=s, eta_a=eta_a, eta_w=eta_w)
    finite(w0_norm=w0_norm, a0=a0, s=s, eta_a=eta_a, eta_w=eta_w)
    phi, w0_norm, a0, s, eta_a, eta_w = together(phi, w0_norm, a0, s, eta_a, eta_w)
    delta = conserved_quantity(w0_norm[..., None], a0, eta_a=eta_a, eta_w=eta_w)
    r, minus = layer_strengths(s, delta, eta_a=eta_a, eta_w=eta_w)
    twice = r + minus
    tangent = phi / jnp.sqrt((1 - phi) * (1 + phi))
    goal = jnp.log(twice * w0_norm / (eta_w * s * a0) * tangent)

    def excess(t):
        # The equation's logarithm, concave in t: Newton's method climbs to the root from any bound below it.
        return r * t + jnp.log(-jnp.expm1(-twice * t)) - goal

    below = jnp.maximum(goal, jax.nn.sigmoid(goal + jnp.log(r / twice))) / r
    return newton(excess, below, NEWTON_STEPS)
