r"""Singular modes of a linear student under label noise: soft thresholding, and how long a collapsed mode stays so.

A mode s-hat = u v learns the singular value s of the data by :math:`u \leftarrow u - \eta (uv - s + \zeta\xi) v`,
:math:`v \leftarrow v - \eta (uv - s + \zeta\xi) u`, with the same standard normal xi in both. Balanced (u = v),
u follows the quartic model with mu = s and zeta^2 replaced by :math:`c = \eta\zeta^2`. Time is t = eta k.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import finite, nonnegative, positive, require, together, traced
from theory.roots import mean_decay
from theory.stochastic_collapse.fokker_planck import CELLS, STEPS, fokker_planck
from theory.stochastic_collapse.products import discrete_exponent

NODES, DIGITS = 600, 40.0  # of the trapezoidal rule in ln s_hat: where the integrand is below e^-40 it ends


class Moments(NamedTuple):
    """Mean, in units of s, and second moment, in units of s^2, of a mode."""

    mean: Float[Array, "..."]
    second: Float[Array, "..."]


def soft_threshold(eta: ArrayLike, zeta: ArrayLike) -> Float[Array, "..."]:
    r"""Threshold below which label noise removes a singular mode, and by which it shrinks the others.

    .. math:: \tau = \tfrac12\eta\zeta^2

    Args:
        eta: Learning rate, positive, in units of 1 / s. Shape (...).
        zeta: Standard deviation of the label noise of a mode, zero or positive, in units of s. Shape (...).

    Returns:
        The threshold tau, in units of s. Shape: the arguments, broadcast.

    Valid: eta -> 0 at fixed eta zeta^2; the threshold of discrete steps is where `mode_exponent` is 0.
    Raises: ValueError if `eta` is not positive or `zeta` negative (concrete values only).
    Source: derived here.
    Checked: reference value; through the moments of `mode_density`; simulation.
    """
    positive(eta=eta)
    nonnegative(zeta=zeta)
    eta, zeta = together(eta, zeta)
    return eta * zeta**2 / 2


def mode_moments(s: ArrayLike, eta: ArrayLike, zeta: ArrayLike, *, discrete: bool = False) -> Moments:
    r"""Stationary mean and second moment of a singular mode: the singular value, soft-thresholded.

    .. math:: E\hat s = (s - \tau)_+, \qquad E\hat s^2 = (s^2 - \tau^2)_+,

    and with the first correction of discrete steps, from :math:`E\ln|1 + \eta(s - \hat s - \zeta\xi)| = 0` and
    :math:`E\hat s' = E\hat s`,

    .. math:: E\hat s = s - \tau - \eta\tau(s + \tfrac\tau2), \qquad E\hat s^2 = s^2 - \tau^2 - \eta\tau^2(s + 2\tau).

    Args:
        s: Singular value of the data, positive. Shape (...).
        eta: Learning rate, positive, in units of 1 / s. Shape (...).
        zeta: Label noise, zero or positive, in units of s. Shape (...).
        discrete: Whether to add the correction.

    Returns:
        `Moments(mean, second)`, 0 for a collapsed mode. Shape: the arguments, broadcast.

    Valid: t -> infinity, error O(eta) at fixed eta zeta^2, O(eta^2) with the correction (above the threshold).
    Raises: ValueError if `s` or `eta` is not positive or `zeta` negative (concrete values only).
    Source: derived here.
    Checked: reference values; integrals of `mode_density`; orders 1 and 2 in eta of simulated modes.
    """
    positive(s=s)
    tau = soft_threshold(eta, zeta)
    s, eta, tau = together(s, eta, tau)
    mean, second = s - tau, s**2 - tau**2
    if discrete:
        mean, second = mean - eta * tau * (s + tau / 2), second - eta * tau**2 * (s + 2 * tau)
    live = (s > tau) & (mean > 0)
    return Moments(jnp.where(live, mean, 0.0), jnp.where(live, second, 0.0))


def mode_density(s_hat: ArrayLike, s: ArrayLike, eta: ArrayLike, zeta: ArrayLike) -> Float[Array, "..."]:
    r"""Stationary density of a singular mode that survives: a Gamma law.

    .. math:: p(\hat s) = \frac{\hat s^{k - 1} e^{-\hat s / c}}{\Gamma(k)\,c^k}, \qquad k = \frac sc - \frac12,
        \qquad c = \eta\zeta^2

    Args:
        s_hat: Value of the mode, zero or positive, in units of s. Shape (...).
        s: Singular value of the data, above the threshold. Shape (...).
        eta: Learning rate, positive, in units of 1 / s. Shape (...).
        zeta: Label noise, positive, in units of s. Shape (...).

    Returns:
        The density, in units of 1 / s; at s_hat = 0 it is 0 for k > 1, 1 / c for k = 1 and infinite for k < 1.
        Shape: the arguments, broadcast.

    Valid: eta -> 0 at fixed eta zeta^2, t -> infinity.
    Raises: ValueError if `s_hat` is negative, `eta` or `zeta` is not positive, or the mode is collapsed: `s` at or
        below the threshold (concrete values only).
    Source: arXiv:2306.04251 [paper] for the quartic model; derived here for the mode.
    Checked: mpmath (1e-11); it is the stationary density of the quartic model under s_hat = u^2; limits at 0.
    """
    nonnegative(s_hat=s_hat)
    positive(eta=eta, zeta=zeta)
    tau = soft_threshold(eta, zeta)
    if not traced(s, tau):
        s_, tau_ = together(s, tau)
        require(s_ > tau_, "s", "above the soft threshold, or the mode is collapsed", s_)
    s_hat, s, tau = together(s_hat, s, tau)
    k, y = s / (2 * tau) - 0.5, s_hat / (2 * tau)
    inside = y > 0
    safe = jnp.where(inside, y, 1.0)
    density = jnp.exp((k - 1) * jnp.log(safe) - safe - gammaln(k))
    at_zero = jnp.where(k > 1, 0.0, jnp.where(k < 1, jnp.inf, 1.0))
    return jnp.where(inside, density, at_zero) / (2 * tau)


def mode_exponent(s: ArrayLike, eta: ArrayLike, zeta: ArrayLike) -> Float[Array, "..."]:
    r"""Lyapunov exponent of u near 0, per step of SGD: the mode collapses iff it is negative.

    .. math:: \Lambda = E\ln|1 + \eta(s + \zeta\xi)|, \qquad \Lambda = \eta(s - \tau) + O(\eta^2)

    Args:
        s: Singular value of the data; its negative for the imbalance u - v. Shape (...).
        eta: Learning rate, positive, in units of 1 / s. Shape (...).
        zeta: Label noise, zero or positive, in units of s. Shape (...).

    Returns:
        The growth of ln |u + v| a step (half that of ln s_hat), dimensionless. Shape: the arguments, broadcast.

    Valid: exact, at every learning rate, while s_hat is far below s.
    Raises: ValueError if `s` is not finite, `eta` is not positive or `zeta` negative (concrete values only).
    Source: derived here.
    Checked: reference value; Monte Carlo; the threshold as eta -> 0; simulation.
    """
    finite(s=s)
    positive(eta=eta)
    nonnegative(zeta=zeta)
    s, eta, zeta = together(s, eta, zeta)
    return discrete_exponent(eta, -s, zeta)


def mode_mean_bound(t: ArrayLike, s: ArrayLike, eta: ArrayLike, zeta: ArrayLike, s0: ArrayLike) -> Float[Array, "..."]:
    r"""Lower bound on the mean of a mode at a finite time.

    .. math:: E\hat s_t \ge \frac{s - \tau}{1 + \big(\frac{s - \tau}{\hat s_0} - 1\big) e^{-2(s - \tau)t}}

    Args:
        t: Time eta k, zero or positive, in units of 1 / s. Shape (...).
        s: Singular value of the data, positive. Shape (...).
        eta: Learning rate, positive, in units of 1 / s. Shape (...).
        zeta: Label noise, zero or positive, in units of s. Shape (...).
        s0: Mode at the start, balanced, positive. Shape (...).

    Returns:
        The bound, in units of s. Shape: the arguments, broadcast.

    Valid: eta -> 0 at fixed eta zeta^2, on both sides of the threshold and at it, where it is s0 / (1 + 2 s0 t); exact
        at t = 0, as t -> infinity, and without noise.
    Raises: ValueError if `t` or `zeta` is negative, or another argument is not positive (concrete values only).
    Source: arXiv:2306.04251 [paper].
    Checked: reference value; mpmath (1e-12) on both sides of s = tau; below `mode_mean`; simulation.
    """
    nonnegative(t=t)
    positive(s=s, s0=s0)
    t, s, tau, s0 = together(t, s, soft_threshold(eta, zeta), s0)
    return _logistic(2 * (s - tau) * t, t, s0)


def _logistic(x, t, s0):
    """s0 e^x / [1 + 2 t s0 (e^x - 1) / x], without an exponential that grows."""
    grows = x >= 0
    size = jnp.where(grows, x, -x)
    decay, integral = jnp.exp(-size), 2 * t * s0 * mean_decay(size)
    return s0 * jnp.where(grows, 1.0, decay) / (jnp.where(grows, decay, 1.0) + integral)


def mode_mean(
    t: ArrayLike,
    s: ArrayLike,
    eta: ArrayLike,
    zeta: ArrayLike,
    s0: ArrayLike,
    *,
    cells: int = CELLS,
    steps: int = STEPS,
) -> Float[Array, "..."]:
    r"""Mean of a mode at a finite time: that of exp(2x) over the Fokker-Planck law of :math:`x = \tfrac12\ln\hat s`.

    .. math:: dx = (s - \tau - e^{2x})\,dt + \sqrt c\,dW

    Args:
        t: Time eta k, zero or positive, finite, in units of 1 / s. Shape (...).
        s: Singular value of the data, positive. Shape (...).
        eta: Learning rate, positive, in units of 1 / s. Shape (...).
        zeta: Label noise, positive, in units of s. Shape (...).
        s0: Mode at the start, balanced, positive. Shape (...).
        cells: Number of cells of `fokker_planck`, fixed.
        steps: Number of its time steps, fixed.

    Returns:
        The mean, in units of s. Shape: the arguments, broadcast.

    Valid: eta -> 0 at fixed eta zeta^2; error of the cells and steps below 1e-4 where `fokker_planck` is valid.
    Raises: ValueError if `t` is negative, or another argument not positive (concrete values only).
    Source: derived here.
    Checked: reference value; more cells and steps; the Taylor series at t = 0; `mode_mean_bound`; the
        stationary mean; order in eta of simulated modes.
    """
    nonnegative(t=t)
    positive(s=s, zeta=zeta, s0=s0)
    t, s, tau, s0 = together(t, s, soft_threshold(eta, zeta), s0)
    x, mass = fokker_planck(t, jnp.sqrt(s0), s, jnp.sqrt(2 * tau), cells=cells, steps=steps)
    # At the start the law is a point somewhere in its cell.
    return jnp.where(t > 0, jnp.sum(mass * jnp.exp(2 * x), axis=-1), s0)


def moments_after_drop(t: ArrayLike, s: ArrayLike, eta: ArrayLike, zeta: ArrayLike) -> Moments:
    r"""Moments of a mode at a time after the learning rate dropped from eta to nearly 0.

    .. math:: \hat s(t) = \frac{s}{1 + (s / \hat s_0 - 1) e^{-2st}}, \qquad \hat s_0 \sim \mathrm{Gamma}(k, c)

    One factor s_hat_0 of the integrand is taken into the law, :math:`\hat s_0\,p_k = (s - \tau)\,p_{k+1}`, so that the
    trapezoidal rule in :math:`\ln\hat s_0` converges exponentially for every k > 0.

    Args:
        t: Time eta' k since the drop, zero or positive, in units of 1 / s. Shape (...).
        s: Singular value of the data, positive. Shape (...).
        eta: Learning rate before the drop, positive, in units of 1 / s. Shape (...).
        zeta: Label noise, zero or positive, in units of s. Shape (...).

    Returns:
        `Moments(mean, second)`, 0 for a collapsed mode. Shape: the arguments, broadcast.

    Valid: stationary before the drop; eta -> 0 at fixed eta zeta^2, and eta' zeta^2 -> 0; to 1e-10
        for s t < 60. At t = 0 `mode_moments`, as t -> infinity s and s^2 of a mode that survived.
    Raises: ValueError if `t` or `zeta` is negative, or another argument is not positive (concrete values only).
    Source: derived here.
    Checked: reference values; mpmath (1e-10) for k from 1e-3 to 10^4; limits; order in eta of simulated modes.
    """
    nonnegative(t=t)
    start = mode_moments(s, eta, zeta)
    t, s, c, mean, _ = together(t, s, 2 * soft_threshold(eta, zeta), *start)
    live, noisy = mean > 0, c > 0
    x = 2 * s * t
    k = jnp.where(live & noisy, mean / jnp.where(noisy, c, 1.0), 1.0)
    # The mass below e^-x has not regrown: there the integrand falls as s_hat_0^(k + 1), above as s_hat_0^k.
    width = 9 / jnp.sqrt(k + 1)
    left = width + jnp.where(k * x > DIGITS, DIGITS / k, x + (DIGITS - k * x) / (k + 1))
    grid = jnp.broadcast_to(jnp.asarray(np.linspace(0, 1, NODES), k.dtype), (*k.shape, NODES))
    w, k = (left + jnp.minimum(width, 4.0))[..., None] * grid - left[..., None], k[..., None]
    weights = jnp.exp((k + 1) * (w - jnp.expm1(w)))
    weights = weights / jnp.sum(weights, axis=-1, keepdims=True)
    # Without noise the mode is s itself.
    s0 = jnp.where(noisy[..., None], (k + 1) * c[..., None] * jnp.exp(w), s[..., None])
    share = 1 / (jnp.exp(-x)[..., None] + s0 * (2 * t * mean_decay(x))[..., None])  # s_hat(t) / s_hat_0
    first, second = (jnp.sum(weights * each, axis=-1) for each in (share, s0 * share**2))
    return Moments(jnp.where(live, mean * first, 0.0), jnp.where(live, mean * second, 0.0))


def hold_time(
    s: ArrayLike, eta: ArrayLike, zeta: ArrayLike, duration: ArrayLike, eta_after: ArrayLike = 0.0
) -> Float[Array, "..."]:
    r"""Time after a drop of the learning rate during which a collapsed mode stays negligible.

    .. math:: t_{hold} = T\,\frac{c - 2s}{2s - c'}, \qquad c = \eta\zeta^2, \quad c' = \eta'\zeta^2:

    :math:`\ln\hat s` falls at c - 2s for a time T, and then has to rise by as much at 2s - c'.

    Args:
        s: Singular value of the data, positive. Shape (...).
        eta: Learning rate before the drop, positive, in units of 1 / s. Shape (...).
        zeta: Label noise, zero or positive, in units of s. Shape (...).
        duration: Time T = eta k before the drop, zero or positive, in units of 1 / s. Shape (...).
        eta_after: Learning rate eta' after the drop, zero or positive. Shape (...).

    Returns:
        The time eta' k, in units of 1 / s: 0 for a mode that was not collapsed, infinite for one that is collapsed
        after the drop too. Shape: the arguments, broadcast.

    Valid: eta -> 0 at fixed eta zeta^2, error O(1) in T.
    Raises: ValueError if `s` or `eta` is not positive, or another argument negative (concrete values only).
    Source: derived here.
    Checked: reference value; both edges; simulation.
    """
    positive(s=s)
    nonnegative(duration=duration, eta_after=eta_after)
    tau = soft_threshold(eta, zeta)
    s, tau, zeta, duration, eta_after = together(s, tau, zeta, duration, eta_after)
    fall, rise = 2 * (tau - s), 2 * s - eta_after * zeta**2
    returns = rise > 0
    held = jnp.where(returns, duration * fall / jnp.where(returns, rise, 1.0), jnp.inf)
    return jnp.where(fall > 0, held, 0.0)
