r"""Learning without negatives, BYOL and SimSiam: the modes of a linear encoder W and its linear predictor W_p.

The loss is :math:`\tfrac12 E|W_p W x - \mathrm{sg}(W_a x^+)|^2 + \tfrac\eta2(|W|_F^2 + |W_p|_F^2)`, sg the stopped
gradient; the weight decay eta has the usual 1/2 here. On a common eigenbasis a mode has clean variance a, augmentation
variance c, eigenvalue p of W_p, squared singular value w^2 of W and ratio tau of the target W_a to W. The predictor
learns predictor_rate times as fast as the encoder, by its data term alone, and the target follows the encoder at
ema_rate.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import finite, integer, nonnegative, positive, require, together, traced, with_one_dtype
from theory.roots import safe_sqrt
from theory.ssl_collapse.integration import flow_at


class ByolFixedPoints(NamedTuple):
    """Predictor eigenvalue of a living mode, and of the edge of its basin; nan where the mode cannot live."""

    stable: Float[Array, "..."]
    saddle: Float[Array, "..."]


class ByolMode(NamedTuple):
    """Predictor eigenvalue p, squared singular value w^2 of the encoder, and ratio tau of target and encoder."""

    p: Float[Array, "..."]
    w2: Float[Array, "..."]
    tau: Float[Array, "..."]


def checked_mode(a: ArrayLike, c: ArrayLike, weight_decay: ArrayLike, **rates: ArrayLike) -> None:
    """Requirement that these are the variances and the weight decay of a mode, and positive finite `rates`."""
    positive(a=a, **rates)
    nonnegative(c=c, weight_decay=weight_decay)
    finite(a=a, c=c, weight_decay=weight_decay, **rates)


def rising(times: ArrayLike) -> None:
    """Requirement that `times`, of shape (T,), rise from 0 on."""
    nonnegative(times=times)
    finite(times=times)
    if not traced(times):
        times = np.asarray(times)
        require(np.diff(times) >= 0, "times", "rising", times[1:])


def byol_critical_decay(a: ArrayLike, c: ArrayLike, tau: ArrayLike = 1.0) -> Float[Array, "..."]:
    r"""Weight decay above which a mode cannot live.

    .. math:: \eta_c = \frac{\tau^2 a^2}{4(a + c)}

    Args:
        a: Clean variance, positive. Shape (...).
        c: Augmentation variance, zero or positive. Shape (...).
        tau: Ratio of target and encoder, positive: 1 once a target network has caught up. Shape (...).

    Returns:
        The critical decay. Shape: the arguments, broadcast.

    Valid: a = 1 is the isotropic case; at tau = 1 it is a rho / 4 with rho = a / (a + c).
    Raises: ValueError for a variance or a ratio outside its range (concrete values only).
    Source: arXiv:2102.06810 (isotropic); derived here (anisotropic), in the setting of Ziyin et al. (2023).
    Checked: the fixed points merge there; simulations `sims.ssl_collapse.byol_survival`, `sims.ssl_collapse.byol`.
    """
    checked_mode(a, c, 0.0, tau=tau)
    a, c, tau = together(a, c, tau)
    return (tau * a) ** 2 / (4 * (a + c))


def byol_fixed_points(a: ArrayLike, c: ArrayLike, weight_decay: ArrayLike, tau: ArrayLike = 1.0) -> ByolFixedPoints:
    r"""Fixed points of a mode.

    .. math:: p_\pm = \frac{\tau a \pm \sqrt{\tau^2 a^2 - 4\eta(a + c)}}{2(a + c)}, \qquad
        w_\pm^2 = \frac{p_\pm^2}{\alpha_p}

    Args:
        a: Clean variance, positive. Shape (...).
        c: Augmentation variance, zero or positive. Shape (...).
        weight_decay: eta, zero or positive. Shape (...).
        tau: Ratio of target and encoder, positive: 1 once a target network has caught up. Shape (...).

    Returns:
        `ByolFixedPoints(stable, saddle)`, both nan above the critical decay. 0 is a third one, stable if eta > 0.

    Valid: any predictor rate and any rate of the target, which move no fixed point.
    Raises: ValueError for an argument outside its range (concrete values only).
    Source: arXiv:2102.06810 (isotropic); derived here (anisotropic), in the setting of Ziyin et al. (2023).
    Checked: mpmath (1e-13), zeros and stability of `byol_flow`; simulation `sims.ssl_collapse.byol`.
    """
    checked_mode(a, c, weight_decay, tau=tau)
    a, c, eta, tau = together(a, c, weight_decay, tau)
    square = (tau * a) ** 2 - 4 * eta * (a + c)
    stable = (tau * a + safe_sqrt(square)) / (2 * (a + c))
    alive = square >= 0
    return ByolFixedPoints(*(jnp.where(alive, x, jnp.nan) for x in (stable, eta / ((a + c) * stable))))


def byol_flow(
    p: ArrayLike,
    w2: ArrayLike,
    tau: ArrayLike,
    a: ArrayLike,
    c: ArrayLike,
    weight_decay: ArrayLike,
    *,
    predictor_rate: ArrayLike = 1.0,
    ema_rate: ArrayLike | None = None,
) -> ByolMode:
    r"""Velocity of a mode under gradient flow.

    .. math:: \dot p = \alpha_p w^2 [\tau a - (a + c)p] - \eta p, \qquad
        \dot{(w^2)} = 2 p w^2 [\tau a - (a + c)p] - 2\eta w^2, \qquad
        \dot\tau = \beta(1 - \tau) - \tau\,\frac{\dot w}w

    Args:
        p: Eigenvalue of the predictor. Shape (...).
        w2: Squared singular value of the encoder, zero or positive. Shape (...).
        tau: Ratio of target and encoder. Shape (...).
        a: Clean variance, positive. Shape (...).
        c: Augmentation variance, zero or positive. Shape (...).
        weight_decay: eta, zero or positive. Shape (...).
        predictor_rate: alpha_p, positive. Shape (...).
        ema_rate: beta, positive. Shape (...). None: the target is the encoder itself (SimSiam), whose tau stays.

    Returns:
        `ByolMode` of time derivatives, in units of the encoder's learning rate times the step.

    Valid: exact for matrices that share the eigenbasis of the covariances; any distribution of the data.
    Raises: ValueError for an argument outside its range (concrete values only).
    Source: arXiv:2102.06810 (isotropic); derived here (anisotropic), in the setting of Ziyin et al. (2023).
    Checked: automatic derivatives of the matrix loss; simulation `sims.ssl_collapse.byol_trajectory`, order 1 in the
        step.
    """
    rates = {"predictor_rate": predictor_rate} | ({} if ema_rate is None else {"ema_rate": ema_rate})
    checked_mode(a, c, weight_decay, **rates)
    nonnegative(w2=w2)
    finite(p=p, w2=w2, tau=tau)
    p, w2, tau, a, c, eta, alpha, beta = together(
        p, w2, tau, a, c, weight_decay, predictor_rate, 0.0 if ema_rate is None else ema_rate
    )
    return _velocity(ByolMode(p, w2, tau), a, c, eta, alpha, beta, ema_rate is not None)


def _velocity(mode, a, c, eta, alpha, beta, target: bool):
    p, w2, tau = mode
    pull = tau * a - (a + c) * p
    growth = p * pull - eta
    return ByolMode(
        alpha * w2 * pull - eta * p,
        2 * w2 * growth,
        beta * (1 - tau) - tau * growth if target else jnp.zeros_like(tau),
    )


def byol_trajectory(
    times: ArrayLike,
    p: ArrayLike,
    w2: ArrayLike,
    tau: ArrayLike = 1.0,
    *,
    a: ArrayLike,
    c: ArrayLike,
    weight_decay: ArrayLike,
    predictor_rate: ArrayLike = 1.0,
    ema_rate: ArrayLike | None = None,
    steps: int = 100,
) -> ByolMode:
    r"""Mode at given times after a start: `byol_flow`, integrated.

    Args:
        times: Rising times, zero or positive. Shape (T,).
        p: First eigenvalue of the predictor. Shape (...).
        w2: First squared singular value of the encoder, zero or positive. Shape (...).
        tau: First ratio of target and encoder. Shape (...).
        a: Clean variance, positive. Shape (...).
        c: Augmentation variance, zero or positive. Shape (...).
        weight_decay: eta, zero or positive. Shape (...).
        predictor_rate: alpha_p, positive. Shape (...).
        ema_rate: beta, positive, or None for SimSiam. Shape (...).
        steps: Classical Runge-Kutta steps between two times.

    Returns:
        `ByolMode` of arrays of shape (T, ...).

    Valid: steps of less than about 0.1 / rate each, for every rate of the mode; error O(steps^-4).
    Raises: ValueError as `byol_flow`, for times that do not rise from 0 on, or for fewer steps than 1.
    Source: arXiv:2102.06810 (isotropic); derived here (anisotropic), in the setting of Ziyin et al. (2023).
    Checked: SciPy's integrator (1e-9), the closed form `byol_passage_time`; simulation
        `sims.ssl_collapse.byol_trajectory`.
    """
    integer(1, steps=steps)
    byol_flow(p, w2, tau, a, c, weight_decay, predictor_rate=predictor_rate, ema_rate=ema_rate)
    rising(times)
    times, *state = with_one_dtype(
        times, *together(p, w2, tau, a, c, weight_decay, predictor_rate, 0.0 if ema_rate is None else ema_rate)
    )
    start, model = ByolMode(*state[:3]), state[3:]

    def velocity(mode):
        return _velocity(mode, *model, ema_rate is not None)

    return flow_at(velocity, start, times, steps)


def byol_invariant(
    t: ArrayLike, p: ArrayLike, w2: ArrayLike, weight_decay: ArrayLike, predictor_rate: ArrayLike = 1.0
) -> Float[Array, "..."]:
    r"""Distance from the parabola at time t, of a mode that started at (p, w^2).

    .. math:: w^2 - \frac{p^2}{\alpha_p} = e^{-2\eta t} c_0, \qquad c_0 = w^2(0) - \frac{p(0)^2}{\alpha_p}

    Args:
        t: Time, zero or positive. Shape (...).
        p: First eigenvalue of the predictor. Shape (...).
        w2: First squared singular value of the encoder. Shape (...).
        weight_decay: eta, zero or positive. Shape (...).
        predictor_rate: alpha_p, positive. Shape (...).

    Returns:
        w^2 - p^2 / alpha_p at time t. Shape: the arguments, broadcast.

    Valid: any a, c and target; gradient flow.
    Raises: ValueError for an argument outside its range (concrete values only).
    Source: arXiv:2102.06810, whose text has c_0 of the opposite sign.
    Checked: `byol_trajectory`; simulation `sims.ssl_collapse.byol_trajectory`, order 1 in the step.
    """
    nonnegative(t=t, weight_decay=weight_decay)
    positive(predictor_rate=predictor_rate)
    t, p, w2, eta, alpha = together(t, p, w2, weight_decay, predictor_rate)
    return jnp.exp(-2 * eta * t) * (w2 - p**2 / alpha)
