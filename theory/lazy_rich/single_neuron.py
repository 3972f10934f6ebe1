"""One linear neuron on whitened data: its exact trajectory at every imbalance, and which sign of it wins."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import finite, nonnegative, positive, require, together, traced, with_one_dtype
from theory.lazy_rich.conserved import conserved_quantity
from theory.lazy_rich.parameters import batched, dot, layer_strengths, norm, unit
from theory.roots import mean_decay, safe_sqrt


def linear_flow(t: Array, P0: Array, Q0: Array, across2: Array, gs: Array, delta: Array) -> tuple[Array, Array, Array]:
    r"""The two layers along the solution, and what is left across it, elementwise.

    .. math:: (P, Q, c\,e^{-\delta t/2}), \qquad P = c\sqrt{\eta_a}\,w^\top\hat\beta_*, \quad Q = \sqrt{\eta_w}\,a

    With every exponential divided by :math:`e^{\lambda t}` all terms of c^{-2} are positive and none overflows.

    Args:
        t: Time, zero or positive, or inf.
        P0: P at time 0.
        Q0: Q at time 0.
        across2: eta_a ||w_perp||^2 at time 0.
        gs: sqrt(eta_a eta_w) ||beta_*||.
        delta: The conserved quantity, Q0^2 - P0^2 - across2.
    """
    r, minus = layer_strengths(gs, delta)  # lambda + delta/2 and lambda - delta/2
    twice = r + minus
    still = twice == 0
    sin, cos = (safe_sqrt(jnp.where(still, 0.5, x / jnp.where(still, 1.0, twice))) for x in (r, minus))
    growing, dying = cos * P0 + sin * Q0, sin * P0 - cos * Q0
    upstream = delta >= 0
    size, slow = jnp.where(upstream, delta, -delta), jnp.where(upstream, twice, 2 * r)
    # Cut where the slow exponential is all but 0: a start on the stable manifold of the saddle would end as 0 / 0.
    limits = jnp.finfo(t.dtype)
    t = jnp.minimum(
        t, jax.lax.stop_gradient(-0.9 * float(np.log(limits.tiny)) / jnp.where(slow > 0, slow, limits.tiny))
    )
    t = jnp.minimum(t, float(limits.max) ** 0.5)
    E, integral = jnp.exp(-twice * t), t * mean_decay(twice * t)
    across = across2 * jnp.exp(-slow * t) * t * mean_decay(size * t)
    c = 1 / jnp.sqrt(growing**2 * integral + E * (1 + dying**2 * integral) + across)
    return c * (cos * growing + sin * dying * E), c * (sin * growing - cos * dying * E), c * jnp.exp(-r * t)


def gradient_flow(
    t: ArrayLike,
    w0: ArrayLike,
    a0: ArrayLike,
    beta_star: ArrayLike,
    *,
    eta_a: ArrayLike = 1.0,
    eta_w: ArrayLike = 1.0,
) -> tuple[Float[Array, "... d"], Float[Array, "..."]]:
    r"""Weights of a linear neuron under gradient flow, exactly.

    With :math:`w = p\,\hat\beta_* + w_\perp`, :math:`(P, Q) \propto (\sqrt{\eta_a}\,p, \sqrt{\eta_w}\,a)` and
    :math:`g = \sqrt{\eta_a\eta_w}`, the flow is linear up to a common factor c:

    .. math:: \frac d{dt}\binom PQ = \begin{pmatrix} -\delta/2 & gs \\ gs & \delta/2 \end{pmatrix} \binom PQ, \qquad
        a = \frac{cQ}{\sqrt{\eta_w}}, \quad
        w = c\Big(\frac P{\sqrt{\eta_a}} \hat\beta_* + e^{-\delta t/2} w_{0\perp}\Big)

    .. math:: c^{-2} = 1 + A_+^2 \frac{e^{2\lambda t} - 1}{2\lambda} + A_-^2 \frac{1 - e^{-2\lambda t}}{2\lambda}
        + \eta_a \|w_{0\perp}\|^2 \frac{1 - e^{-\delta t}}\delta, \qquad \lambda = \sqrt{\delta^2/4 + g^2 s^2}

    with A_+ and A_- the components of (P, Q) at time 0 along the growing and the decaying eigenvector.

    Args:
        t: Times, zero or positive, in units of 1 / (rate y^2); may be inf. Shape (T,), or any.
        w0: Incoming weights at the start. Shape (..., d).
        a0: Outgoing weight at the start, any sign. Shape (...).
        beta_star: The solution X^+ y, of norm s; may be 0. Shape (..., d).
        eta_a: Learning rate of a, positive; relative. Shape (...).
        eta_w: Learning rate of w, positive; relative. Shape (...).

    Returns:
        (w, a), shapes (..., T, d) and (..., T): the starts first, then the times.

    Valid: whitened data, X^T X = I, and half the squared error; every imbalance and sign of a, and crossings of 0.
        Derivatives away from beta_* = 0.
    Raises: ValueError for t < 0 or nan, a rate that is not positive, shapes that do not match, or values that are not
        finite (concrete values only).
    Source: arXiv:2406.06158 [paper] has it in branches; this single form derived here.
    Checked: reference values, adaptive integration (1e-10), 60 digits also next to the separatrix (1e-14), the
        paper's two forms, float32 (1e-6), s = 0, the saddle, gradients; simulation `sims.lazy_rich`.
    """
    nonnegative(t=t)
    positive(eta_a=eta_a, eta_w=eta_w)
    (w0, beta_star), (a0, eta_a, eta_w) = batched({"w0": w0, "beta_star": beta_star}, a0=a0, eta_a=eta_a, eta_w=eta_w)
    _, t = with_one_dtype(w0, t)
    delta = conserved_quantity(w0, a0, eta_a=eta_a, eta_w=eta_w)
    s, along = norm(beta_star), unit(beta_star)
    p0 = dot(w0, along)
    across = w0 - p0[..., None] * along
    root_a, root_w = jnp.sqrt(eta_a), jnp.sqrt(eta_w)

    def timed(x):
        return x.reshape(a0.shape + (1,) * t.ndim + x.shape[a0.ndim :])

    starts = root_a * p0, root_w * a0, eta_a * dot(across, across), root_a * root_w * s, delta
    times = t.reshape((1,) * a0.ndim + t.shape)
    P, Q, kept = linear_flow(times, *map(timed, starts))
    w = (P / timed(root_a))[..., None] * timed(along) + kept[..., None] * timed(across)
    return w, Q / timed(root_w)


def reduced_velocity(
    mu: ArrayLike,
    phi: ArrayLike,
    s: ArrayLike,
    delta: ArrayLike,
    *,
    eta_a: ArrayLike = 1.0,
    eta_w: ArrayLike = 1.0,
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    r"""Velocity of a linear neuron's signed norm and alignment.

    .. math:: \dot\mu = \kappa(\phi s - \mu), \qquad
        \dot\phi = \frac{2\eta_a\eta_w\mu}{\kappa - \delta}\, s\,(1 - \phi^2)

    Args:
        mu: a ||w||, not 0, in units of y / x; it has the sign of a. Shape (...).
        phi: Cosine of the angle between w and beta_*, from -1 to 1. Shape (...).
        s: ||beta_*||, zero or positive. Shape (...).
        delta: The conserved quantity. Shape (...).
        eta_a: Learning rate of a, positive; relative. Shape (...).
        eta_w: Learning rate of w, positive; relative. Shape (...).

    Returns:
        (dmu/dt, dphi/dt). Shape: broadcast.

    Valid: whitened data, X^T X = I.
    Raises: ValueError for mu = 0, phi outside [-1, 1], s < 0, or a rate that is not positive.
    Source: arXiv:2406.06158 [paper] for the variables; rates derived here.
    Checked: derivative of `gradient_flow` along time (1e-10).
    """
    nonnegative(s=s)
    finite(s=s)
    if not traced(phi):
        require(np.abs(np.asarray(phi)) <= 1, "phi", "between -1 and 1", phi)
    mu, phi, s, delta, eta_a, eta_w = together(mu, phi, s, delta, eta_a, eta_w)
    strengths = layer_strengths(mu, delta, eta_a=eta_a, eta_w=eta_w)
    turning = turning_rate(mu, delta, eta_a=eta_a, eta_w=eta_w)
    return sum(strengths) * (phi * s - mu), turning * s * (1 - phi**2)


def turning_rate(
    mu: ArrayLike, delta: ArrayLike, *, eta_a: ArrayLike = 1.0, eta_w: ArrayLike = 1.0
) -> Float[Array, "..."]:
    r"""Rate at which a neuron's direction turns, per drive across it.

    .. math:: \frac{d\hat w}{dt} = \eta_w \frac a{\|w\|} (I - \hat w\hat w^\top)\,v, \qquad
        \eta_w \frac a{\|w\|} = \frac{2\eta_a\eta_w\mu}{\kappa - \delta}

    Args:
        mu: a ||w||, not 0; it has the sign of a. Shape (...).
        delta: The conserved quantity. Shape (...).
        eta_a: Learning rate of a, positive; relative. Shape (...).
        eta_w: Learning rate of w, positive; relative. Shape (...).

    Returns:
        The rate; large upstream, small downstream. Shape: broadcast.

    Valid: any data and any drive v; piecewise-linear neurons too.
    Raises: ValueError for mu = 0 or a rate that is not positive (concrete values only).
    Source: derived here.
    Checked: through `reduced_velocity`; a / ||w|| of the weights (1e-14).
    """
    if not traced(mu):
        require(np.asarray(mu) != 0, "mu", "different from 0", mu)
    _, inner = layer_strengths(mu, delta, eta_a=eta_a, eta_w=eta_w)
    mu, inner, eta_a, eta_w = together(mu, inner, eta_a, eta_w)
    return eta_a * eta_w * mu / inner


def separatrix(
    w0: ArrayLike, a0: ArrayLike, beta_star: ArrayLike, *, eta_a: ArrayLike = 1.0, eta_w: ArrayLike = 1.0
) -> Float[Array, "..."]:
    r"""Signed distance of a start from the stable manifold of the saddle a = 0.

    .. math:: \Sigma = \Big(\lambda + \frac\delta2\Big) a_0 + \eta_a\, w_0^\top \beta_*

    Args:
        w0: Incoming weights at the start. Shape (..., d).
        a0: Outgoing weight at the start. Shape (...).
        beta_star: The solution X^+ y. Shape (..., d).
        eta_a: Learning rate of a, positive; relative. Shape (...).
        eta_w: Learning rate of w, positive; relative. Shape (...).

    Returns:
        Sigma, whose sign a(infinity) has; 0 only for delta <= 0. Shape (...).

    Valid: whitened data, X^T X = I.
    Raises: ValueError as `gradient_flow`.
    Source: arXiv:2406.06158 [paper] at unit rates; rates derived here.
    Checked: reference values; through `final_sign`.
    """
    sigma, _ = _separatrix(w0, a0, beta_star, eta_a, eta_w)
    return sigma


def _separatrix(w0, a0, beta_star, eta_a, eta_w):
    """Sigma and the size of what it is rounded from."""
    positive(eta_a=eta_a, eta_w=eta_w)
    (w0, beta_star), (a0, eta_a, eta_w) = batched({"w0": w0, "beta_star": beta_star}, a0=a0, eta_a=eta_a, eta_w=eta_w)
    delta = conserved_quantity(w0, a0, eta_a=eta_a, eta_w=eta_w)
    r, _ = layer_strengths(norm(beta_star), delta, eta_a=eta_a, eta_w=eta_w)
    size = r * jnp.abs(a0) + eta_a * norm(w0) * norm(beta_star)
    return r * a0 + eta_a * dot(w0, beta_star), size


def final_sign(
    w0: ArrayLike, a0: ArrayLike, beta_star: ArrayLike, *, eta_a: ArrayLike = 1.0, eta_w: ArrayLike = 1.0
) -> Float[Array, "..."]:
    r"""Sign of the outgoing weight at the end of training, and of the alignment.

    .. math:: \operatorname{sign} a(\infty) = \phi(\infty) = \operatorname{sign} \Sigma

    Args:
        w0: Incoming weights at the start. Shape (..., d).
        a0: Outgoing weight at the start. Shape (...).
        beta_star: The solution X^+ y. Shape (..., d).
        eta_a: Learning rate of a, positive; relative. Shape (...).
        eta_w: Learning rate of w, positive; relative. Shape (...).

    Returns:
        1, -1, or 0 where rounding does not let Sigma decide. Shape (...).

    Valid: whitened data, X^T X = I. With :math:`\Sigma a_0 < 0`, possible for delta < 0 only, a crosses 0.
    Raises: ValueError as `gradient_flow`.
    Source: arXiv:2406.06158 [paper] at unit rates; rates derived here.
    Checked: adaptive integration of 200 random starts; +-1e-3 radians off the separatrix.
    """
    sigma, size = _separatrix(w0, a0, beta_star, eta_a, eta_w)
    return jnp.where(jnp.abs(sigma) > 8 * jnp.finfo(sigma.dtype).eps * size, jnp.sign(sigma), 0.0)


def separatrix_cosine(
    beta_norm: ArrayLike, s: ArrayLike, delta: ArrayLike, *, eta_a: ArrayLike = 1.0, eta_w: ArrayLike = 1.0
) -> Float[Array, "..."]:
    r"""Cosine between start and solution, in the plane of beta, at which training ends at the saddle.

    .. math:: \cos\angle(\beta_0, \beta_*) = -\frac{(\lambda + \frac\delta2)(\kappa_0 + \delta)}
        {2\eta_a\eta_w \|\beta_0\| s}
        = -\sqrt{\frac{(\kappa_0 + \delta)(\lambda + \frac\delta2)}{(\kappa_0 - \delta)(\lambda - \frac\delta2)}}

    Args:
        beta_norm: ||beta_0||, positive. Shape (...).
        s: ||beta_*||, positive. Shape (...).
        delta: The conserved quantity, zero or negative. Shape (...).
        eta_a: Learning rate of a, positive; relative. Shape (...).
        eta_w: Learning rate of w, positive; relative. Shape (...).

    Returns:
        The cosine, from -1 (delta = 0) to 0 (delta -> -infinity), for either sign of a. Shape: broadcast.

    Valid: whitened data, X^T X = I.
    Raises: ValueError for delta > 0, where there is no saddle, or arguments that are not positive.
    Source: derived here.
    Checked: `separatrix` there is 0 (1e-14); both ends of starts rotated by 1e-3.
    """
    positive(beta_norm=beta_norm, s=s)
    if not traced(delta):
        require(np.asarray(delta) <= 0, "delta", "zero or negative, for there is no saddle above", delta)
    outer0, inner0 = layer_strengths(beta_norm, delta, eta_a=eta_a, eta_w=eta_w)
    outer, inner = layer_strengths(s, delta, eta_a=eta_a, eta_w=eta_w)
    outer0, inner0, outer, inner = together(outer0, inner0, outer, inner)
    return -jnp.sqrt(outer0 * outer / (inner0 * inner))
