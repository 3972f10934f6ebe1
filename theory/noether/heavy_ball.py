"""Flows that follow heavy ball: a particle with mass and friction, and the slow manifold onto which it settles.

Time is t = eta k, or eta (1 - d) k with dampening.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.noether.modified import checked, combine, require_order, slope_of


class Inertia(NamedTuple):
    """Mass (in units of t) and friction (dimensionless) of heavy ball in continuous time."""

    mass: Float[Array, ""]
    friction: Float[Array, ""]


def heavy_ball_inertia(eta: ArrayLike, momentum: ArrayLike, *, dampening: ArrayLike = 0.0) -> Inertia:
    r"""Mass and friction of the particle that heavy ball is.

    .. math:: m\ddot\theta + \mu\dot\theta = -\tilde g, \qquad m = \frac{\eta(1 + \beta)}2, \qquad \mu = 1 - \beta

    Args:
        eta: Learning rate, positive. A number.
        momentum: beta, from 0 to below 1. A number.
        dampening: d, from 0 to below 1: eta (1 - d) for eta. A number.

    Returns:
        `Inertia(mass, friction)`.

    Valid: to first order in eta; without momentum too.
    Raises: ValueError for a rate that is not positive, beta or d outside [0, 1) (concrete values only).
    Source: arXiv:2012.04728 [paper].
    Checked: through `heavy_ball_ode`.
    """
    eta, _, beta, dampening = checked(eta, 0.0, momentum, dampening)
    return Inertia(eta * (1 - dampening) * (1 + beta) / 2, 1 - beta)


def heavy_ball_ode(
    loss: Callable,
    eta: ArrayLike,
    momentum: ArrayLike,
    *,
    weight_decay: ArrayLike = 0.0,
    dampening: ArrayLike = 0.0,
) -> Callable:
    r"""Second-order flow that heavy ball follows.

    .. math:: \ddot\theta = -\frac{\mu\dot\theta + \tilde g}m

    Args:
        loss: L(params).
        eta: Learning rate, positive. A number.
        momentum: beta, from 0 to below 1. A number.
        weight_decay: lambda, zero or positive. A number.
        dampening: d, from 0 to below 1. A number.

    Returns:
        A function: (params, velocity) -> (velocity, acceleration), per t.

    Valid: error O(eta) at fixed t from rest, O(eta^2) from `heavy_ball_start`, past the start-up layer of
        t = O(eta / (1 - beta)), in which it is O(eta).
    Raises: ValueError as `heavy_ball_inertia`, or for weight_decay < 0.
    Source: arXiv:2012.04728 [paper].
    Checked: order in eta on a Rayleigh quotient, from both starts.
    """
    _, decay, _, _ = checked(eta, weight_decay, momentum, dampening)
    mass, friction = heavy_ball_inertia(eta, momentum, dampening=dampening)
    slope = slope_of(loss, decay)

    def motion(params, velocity):
        return velocity, combine((-friction / mass, velocity), (-1 / mass, slope(params)))

    return motion


def heavy_ball_start(loss: Callable, momentum: ArrayLike, *, weight_decay: ArrayLike = 0.0) -> Callable:
    r"""Velocity from which the second-order flow follows heavy ball from rest.

    .. math:: \dot\theta(0) = -\frac{\tilde g_0}{1 + \beta}

    Args:
        loss: L(params).
        momentum: beta, from 0 to below 1. A number.
        weight_decay: lambda, zero or positive. A number.

    Returns:
        A function: params -> velocity, per t.

    Valid: `heavy_ball_ode` to O(eta^2), past the start-up layer.
    Raises: ValueError for beta outside [0, 1) or weight_decay < 0 (concrete values only).
    Source: derived here.
    Checked: order in eta on a Rayleigh quotient.
    """
    _, decay, beta, _ = checked(1.0, weight_decay, momentum)
    slope = slope_of(loss, decay)
    return lambda params: combine((-1 / (1 + beta), slope(params)))


def heavy_ball_flow(
    loss: Callable,
    eta: ArrayLike,
    momentum: ArrayLike,
    order: int = 1,
    *,
    weight_decay: ArrayLike = 0.0,
    dampening: ArrayLike = 0.0,
) -> Callable:
    r"""First-order flow onto which heavy ball settles, its slow manifold.

    .. math:: \dot\theta = -\frac{\tilde g}{1 - \beta} - \frac{\eta(1 + \beta)}{2(1 - \beta)^3} \tilde H\tilde g

    Args:
        loss: L(params).
        eta: Learning rate, positive. A number.
        momentum: beta, from 0 to below 1. A number.
        order: Number of corrections: 0 or 1.
        weight_decay: lambda, zero or positive. A number.
        dampening: d, from 0 to below 1: eta (1 - d) for eta. A number.

    Returns:
        A function: params -> d params / dt.

    Valid: iterates from rest at time t are at t - `heavy_ball_lag` of this flow, to O(eta^2) at order 1; without the
        lag to O(eta). Past the start-up layer; beta = 0 is `modified_flow`.
    Raises: ValueError for another order, and as `heavy_ball_ode`.
    Source: derived here.
    Checked: order in eta on a Rayleigh quotient, with and without the lag; beta = 0.
    """
    eta, decay, beta, dampening = checked(eta, weight_decay, momentum, dampening)
    require_order(order, 1)
    slope = slope_of(loss, decay)
    settled = 1 / (1 - beta)
    drift = eta * (1 - dampening) * (1 + beta) / 2 * settled**3

    def velocity(params):
        g = slope(params)
        flow = combine((-settled, g))
        if order >= 1:
            bend = jax.jvp(slope, (params,), (g,))[1]
            flow = combine((1.0, flow), (-drift, bend))
        return flow

    return velocity


def heavy_ball_lag(eta: ArrayLike, momentum: ArrayLike, *, dampening: ArrayLike = 0.0) -> Float[Array, ""]:
    r"""Time by which heavy ball from rest is behind its slow manifold.

    .. math:: \delta t = \frac{\eta\beta}{1 - \beta}

    Args:
        eta: Learning rate, positive. A number.
        momentum: beta, from 0 to below 1. A number.
        dampening: d, from 0 to below 1: eta (1 - d) for eta. A number.

    Returns:
        The lag, in units of t.

    Valid: `heavy_ball_flow`, past the start-up layer.
    Raises: ValueError as `heavy_ball_inertia`.
    Source: derived here.
    Checked: order in eta on a Rayleigh quotient.
    """
    eta, _, beta, dampening = checked(eta, 0.0, momentum, dampening)
    return eta * (1 - dampening) * beta / (1 - beta)
