"""Which modes of BYOL survive: the basin of the living fixed point, on the parabola and off it."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from theory.arguments import finite, integer, positive, together
from theory.ssl_collapse.byol import byol_fixed_points, checked_mode
from theory.ssl_collapse.integration import runge_kutta

FAR = 30.0


def byol_survives(
    p: ArrayLike,
    a: ArrayLike,
    c: ArrayLike,
    weight_decay: ArrayLike,
) -> Bool[Array, "..."]:
    r"""Whether a mode that starts on the parabola survives.

    .. math:: \eta < \eta_c \quad\text{and}\quad p(0) > p_-

    Args:
        p: Predictor eigenvalue at the start, where w^2 = p^2 / alpha_p and the target is the encoder. Shape (...).
        a: Clean variance, positive. Shape (...).
        c: Augmentation variance, zero or positive. Shape (...).
        weight_decay: eta, zero or positive. Shape (...).

    Returns:
        True or false. Shape: the arguments, broadcast.

    Valid: after a time far above `byol_passage_time`; with a target network too, for the boundary is a fixed point.
    Raises: ValueError for an argument outside its range (concrete values only).
    Source: arXiv:2102.06810 (isotropic); derived here (anisotropic), in the setting of Ziyin et al. (2023).
    Checked: trajectories, with a target network and without; simulation `sims.ssl_collapse.byol_survival`.
    """
    finite(p=p)
    p, a, c, eta = together(p, a, c, weight_decay)
    return p > byol_fixed_points(a, c, eta).saddle


def byol_critical_start(
    invariant: ArrayLike,
    a: ArrayLike,
    c: ArrayLike,
    weight_decay: ArrayLike,
    predictor_rate: ArrayLike = 1.0,
    *,
    steps: int = 4000,
) -> Float[Array, "..."]:
    r"""Predictor eigenvalue above which a mode survives, off the parabola too.

    The basin of the living fixed point, :math:`p(0) > p^\star(c_0)`, ends on the stable manifold of the saddle: as
    c_0 decays at the rate 2 eta and trajectories of one c_0 keep their order,

    .. math:: \frac{dp^\star}{d\ln c_0} = -\frac1{2\eta}\Big\{\big[p^{\star2} + \alpha_p c_0\big]
        \big[a - (a + c)p^\star\big] - \eta p^\star\Big\}, \qquad p^\star(0) = p_-

    Args:
        invariant: c_0 = w^2 - p^2 / alpha_p at the start, of either sign. Shape (...).
        a: Clean variance, positive. Shape (...).
        c: Augmentation variance, zero or positive. Shape (...).
        weight_decay: eta, positive. Shape (...).
        predictor_rate: alpha_p, positive. Shape (...).
        steps: Runge-Kutta steps from the saddle to c_0.

    Returns:
        p*. Shape: the arguments, broadcast. -inf where every start of that c_0 survives, inf above the critical decay.

    Valid: the target is the encoder itself, tau = 1; error O(steps^-4), 1e-8 for |p*| < 1.
    Raises: ValueError for an argument outside its range (concrete values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: trajectories on both sides, SciPy's integrator; simulation `sims.ssl_collapse.byol_survival`.
    """
    checked_mode(a, c, weight_decay, predictor_rate=predictor_rate)
    positive(weight_decay=weight_decay)
    finite(invariant=invariant)
    integer(1, steps=steps)
    c0, a, c, eta, alpha = together(invariant, a, c, weight_decay, predictor_rate)
    dead = 4 * eta * (a + c) > a**2
    safe = jnp.where(dead, a**2 / (8 * (a + c)), eta)
    start = byol_fixed_points(a, c, safe).saddle
    rate = start * (a - 2 * (a + c) * start)
    slope = -alpha * (a - (a + c) * start) / (2 * safe + rate)
    # The stable manifold begins as a straight line, and the flow backward in time forgets how far it is followed.
    share = 1e-3 * jnp.finfo(c0.dtype).eps ** 0.25
    h = -jnp.log(share) / (2 * safe * steps)

    def velocity(state):
        """Backward in time."""
        p, distance = state
        return safe * p - (p**2 + alpha * distance) * (a - (a + c) * p), 2 * safe * distance

    def step(state, _):
        escaped = jnp.isinf(state[0])
        p, distance = runge_kutta(velocity, (jnp.where(escaped, 0.0, state[0]), state[1]), h)
        # Backward in time a negative p reaches -inf.
        return (jnp.where(escaped | ~(p > -FAR), -jnp.inf, p), distance), None

    near = c0 * share
    (end, _), _ = jax.lax.scan(step, (start + slope * near, near), length=steps)
    return jnp.where(dead, jnp.inf, end)
