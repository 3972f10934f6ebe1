"""How long a mode of BYOL takes on the parabola, and the ghost of a fixed point that slows it."""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import positive, together
from theory.roots import safe_sqrt
from theory.ssl_collapse.byol import byol_critical_decay, checked_mode


def byol_passage_time(
    start: ArrayLike, end: ArrayLike, a: ArrayLike, c: ArrayLike, weight_decay: ArrayLike
) -> Float[Array, "..."]:
    r"""Time in which a mode on the parabola goes from one predictor eigenvalue to another.

    .. math:: T = \int_{p_0}^{p_1} \frac{dp}{p\,[a p - (a + c)p^2 - \eta]} = \frac1\eta \Big[
        \ln\frac{\sqrt{(a + c)p^2 - a p + \eta}}p - \frac a2 I(p) \Big]_{p_0}^{p_1}, \qquad
        I = \begin{cases} \frac2{\sqrt{-D}} \arctan\frac{2(a + c)p - a}{\sqrt{-D}} & D < 0 \\
        \frac1{\sqrt D} \ln\Big|\frac{2(a + c)p - a - \sqrt D}{2(a + c)p - a + \sqrt D}\Big| & D > 0 \end{cases}

    with :math:`D = a^2 - 4\eta(a + c)`.

    Args:
        start: p at the start, positive; w^2 = p^2 / alpha_p. Shape (...).
        end: p at the end, positive. Shape (...).
        a: Clean variance, positive. Shape (...).
        c: Augmentation variance, zero or positive. Shape (...).
        weight_decay: eta, positive. Shape (...).

    Returns:
        The time; inf where the mode never gets there. Shape: the arguments, broadcast.

    Valid: the target is the encoder itself; any predictor rate. Relative error of rounding / sqrt|D| near D = 0.
    Raises: ValueError for an argument outside its range (concrete values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: mpmath's quadrature (1e-11) on both sides of the critical decay; simulation
        `sims.ssl_collapse.byol_ghost`, order 1 in the step.
    """
    checked_mode(a, c, weight_decay, start=start, end=end)
    positive(weight_decay=weight_decay)
    p0, p1, a, c, eta = together(start, end, a, c, weight_decay)
    Sigma = a + c
    D = a**2 - 4 * eta * Sigma
    root = safe_sqrt(jnp.abs(D))
    width = jnp.where(root > 0, root, 1.0)

    def parts(p):
        u = 2 * Sigma * p - a
        ghost = 2 / width * jnp.arctan(u / width)
        saddle = (jnp.log(jnp.abs(u - width)) - jnp.log(jnp.abs(u + width))) / width
        touching = -2 / u
        I = jnp.where(D < 0, ghost, jnp.where(D > 0, saddle, touching))  # noqa: E741
        speed = a * p - Sigma * p**2 - eta
        return jnp.log(jnp.abs(speed)) / 2 - jnp.log(p) - a / 2 * I, speed, u

    (G0, v0, u0), (G1, v1, u1) = parts(p0), parts(p1)
    # No fixed point between the two: the velocity keeps its sign, and below the saddle is not above the living mode.
    same = (jnp.sign(v0) == jnp.sign(v1)) & (v0 != 0) & ((D < 0) | (v0 > 0) | (jnp.sign(u0) == jnp.sign(u1)))
    reached = same & (jnp.sign(p1 - p0) * jnp.sign(v0) >= 0)
    return jnp.where(p0 == p1, 0.0, jnp.where(reached, (G1 - G0) / eta, jnp.inf))


def ghost_time(a: ArrayLike, c: ArrayLike, weight_decay: ArrayLike) -> Float[Array, "..."]:
    r"""Time that a dying mode spends near the fixed point that has just vanished.

    .. math:: T \simeq \frac{\pi}{\frac a{2(a + c)} \sqrt{(\eta - \eta_c)(a + c)}}

    A training run shorter than that looks as if the mode had survived.

    Args:
        a: Clean variance, positive. Shape (...).
        c: Augmentation variance, zero or positive. Shape (...).
        weight_decay: eta, zero or positive. Shape (...).

    Returns:
        The time; inf up to the critical decay. Shape: the arguments, broadcast.

    Valid: eta slightly above `byol_critical_decay`, on the parabola, the target the encoder itself; what the way to
        and from the ghost takes is left out, a time that stays finite.
    Raises: ValueError for an argument outside its range (concrete values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: `byol_passage_time` (order 1/2 in eta - eta_c); simulation `sims.ssl_collapse.byol_ghost`.
    """
    checked_mode(a, c, weight_decay)
    a, c, eta = together(a, c, weight_decay)
    excess = eta - byol_critical_decay(a, c)
    slow = a / (2 * (a + c)) * safe_sqrt(excess * (a + c))
    return jnp.where(excess > 0, jnp.pi / jnp.where(excess > 0, slow, 1.0), jnp.inf)
