"""The Langevin equation that SGD follows, and its motion in a quadratic loss, mode by mode.

Even without momentum the equation is of second order: half the learning rate is a mass.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import below_one, finite, integer, nonnegative, positive, require, together, traced
from theory.oscillator import oscillation

TIMES = ("discrete", "ou")
ROUNDING = 1e-6


class Langevin(NamedTuple):
    """Mass (in units of t) and damping (dimensionless) of SGD in continuous time."""

    mass: Float[Array, "..."]
    damping: Float[Array, "..."]


class OscillatorRates(NamedTuple):
    """Damping and angular frequency of a mode, in units of 1 / t."""

    gamma: Float[Array, "..."]
    omega: Float[Array, "..."]


class Hyperparameters(NamedTuple):
    """Momentum, learning rate and batch size (None if none was given)."""

    beta: Float[Array, "..."]
    eta: Float[Array, "..."]
    batch: Float[Array, "..."] | None


def langevin_coefficients(eta: ArrayLike, beta: ArrayLike) -> Langevin:
    r"""Mass and damping of the particle that SGD with momentum is.

    .. math:: m\ddot\theta + \mu\dot\theta = -\nabla L - \lambda\theta + \sqrt{\eta/S}\,\Sigma^{1/2}\dot W, \qquad
        m = \frac{\eta(1 + \beta)}2, \qquad \mu = 1 - \beta

    Args:
        eta: Learning rate, positive. Shape (...).
        beta: Momentum, from 0 to below 1. Shape (...).

    Returns:
        `Langevin(mass, damping)`. Shape: broadcast.

    Valid: to first order in eta; without momentum too.
    Raises: ValueError for eta <= 0 or beta outside [0, 1) (concrete values only).
    Source: arXiv:2107.09133 [paper].
    Checked: reference values; the first moment of `propagator`.
    """
    eta, beta = _optimizer(eta, beta)
    return Langevin(eta * (1 + beta) / 2, 1 - beta)


def inverse_temperature(beta: ArrayLike, batch: ArrayLike, sigma: ArrayLike = 1.0) -> Float[Array, "..."]:
    r"""Inverse temperature at which SGD samples its modified loss.

    .. math:: \kappa = \frac{S(1 - \beta^2)}{\sigma^2}

    Args:
        beta: Momentum, from 0 to below 1. Shape (...).
        batch: Batch size S, a whole number from 1. Shape (...).
        sigma: Standard deviation of the residuals, positive: gradient noise of sigma^2 H / S. Shape (...).

    Returns:
        kappa, in units of the inverse loss. Shape: broadcast.

    Valid: as `modified_loss`.
    Raises: ValueError for an argument out of its range (concrete values only).
    Source: arXiv:2107.09133 [paper], with sigma = 1.
    Checked: the stationary covariance of the Langevin equation is that of this temperature (1e-9).
    """
    below_one(beta=beta)
    integer(1, batch=batch)
    positive(sigma=sigma)
    beta, batch, sigma = together(beta, batch, sigma)
    return batch * (1 - beta) * (1 + beta) / sigma**2


def oscillator_rates(eta: ArrayLike, beta: ArrayLike, h: ArrayLike) -> OscillatorRates:
    r"""Damping and frequency of a mode.

    .. math:: \ddot x + 2\gamma\dot x + \omega^2 x = \text{noise}, \qquad
        \gamma = \frac{1 - \beta}{\eta(1 + \beta)}, \qquad \omega = \sqrt{\frac{2h}{\eta(1 + \beta)}}

    Args:
        eta: Learning rate, positive. Shape (...).
        beta: Momentum, from 0 to below 1. Shape (...).
        h: Curvature with the weight decay, rho + lambda, positive. Shape (...).

    Returns:
        `OscillatorRates(gamma, omega)`, in units of 1 / t; the mode oscillates where omega > gamma. Shape: broadcast.

    Valid: as `langevin_coefficients`.
    Raises: ValueError for eta <= 0, beta outside [0, 1) or h <= 0 (concrete values only).
    Source: arXiv:2107.09133 [paper].
    Checked: reference values; through `propagator`.
    """
    gamma, omega2 = _constants(eta, beta, h)
    return OscillatorRates(gamma, jnp.sqrt(omega2))


def propagator(t: ArrayLike, eta: ArrayLike, beta: ArrayLike, h: ArrayLike) -> Float[Array, "... 2 2"]:
    r"""Mean position and velocity of a mode, some time later.

    .. math:: e^{-At} = e^{-\gamma t}\begin{pmatrix}
        \cos\nu t + \frac\gamma\nu\sin\nu t & \frac1\nu\sin\nu t \\
        -\frac{\omega^2}\nu\sin\nu t & \cos\nu t - \frac\gamma\nu\sin\nu t \end{pmatrix}, \qquad
        A = \begin{pmatrix} 0 & -1 \\ \omega^2 & 2\gamma \end{pmatrix}, \quad \nu^2 = \omega^2 - \gamma^2

    Args:
        t: Time eta k, zero or positive. Shape (...).
        eta: Learning rate, positive. Shape (...).
        beta: Momentum, from 0 to below 1. Shape (...).
        h: Curvature with the weight decay, positive. Shape (...).

    Returns:
        The matrix that takes (x, v) from 0 to t. Shape: broadcast, then (2, 2).

    Valid: over-, critically and underdamped; no exponential of it grows.
    Raises: ValueError as `oscillator_rates`, or for t < 0 (concrete values only).
    Source: arXiv:2107.09133 [paper].
    Checked: reference values; matrix exponential on both sides of the critical damping (1e-9); gradients on it;
        float32; simulation `sims.sgd_limit.continuous` (first order in eta).
    """
    even, kernel, gamma, omega2 = motion(t, eta, beta, h)
    rows = [[even + gamma * kernel, kernel], [-omega2 * kernel, even - gamma * kernel]]
    return jnp.stack([jnp.stack(row, -1) for row in rows], -2)


def equivalent_hyperparameters(
    alpha: ArrayLike, eta: ArrayLike, beta: ArrayLike, batch: ArrayLike | None = None
) -> Hyperparameters:
    r"""Momentum, learning rate and batch size of the same stationary law, at another temperature or at the same one.

    .. math:: \beta' = \sqrt{1 - \alpha(1 - \beta^2)}, \qquad \eta' = \eta\,\frac{1 + \beta}{1 + \beta'}, \qquad
        S' = \frac S\alpha

    Args:
        alpha: Factor of the inverse temperature kappa at a fixed batch size, from 0 (excluded) to 1 / (1 - beta^2).
            Shape (...).
        eta: Learning rate, positive. Shape (...).
        beta: Momentum, from 0 to below 1. Shape (...).
        batch: Batch size S; with S' = S / alpha the temperature is kept as well. None to keep S. Shape (...).

    Returns:
        `Hyperparameters(beta, eta, batch)`; the batch need not be whole. Shape: broadcast.

    Valid: in continuous time; the landscape Phi stays, the dynamics differ.
    Raises: ValueError for an argument out of its range (concrete values only).
    Source: derived here; the paper's code anneals this way (arXiv:2107.09133).
    Checked: reference values; landscape, temperature and `phase_space_covariance` before and after, and both limits.
    """
    positive(alpha=alpha, eta=eta)
    below_one(beta=beta)
    if batch is not None:
        integer(1, batch=batch)
    alpha, eta, beta, size = together(alpha, eta, beta, 1.0 if batch is None else batch)
    cold = (1 - beta) * (1 + beta)
    require(alpha * cold <= 1 + ROUNDING, "alpha", "at most 1 / (1 - beta^2)", alpha)
    other = jnp.sqrt(jnp.maximum(beta**2 + (1 - alpha) * cold, 0.0))
    return Hyperparameters(other, eta * (1 + beta) / (1 + other), None if batch is None else size / alpha)


def motion(t, eta, beta, h):
    """(e^-gt cos nu t, e^-gt sin(nu t) / nu, gamma, omega^2), g for gamma, of one shape."""
    nonnegative(t=t)
    finite(t=t)
    t, eta, beta, h = together(t, eta, beta, h)
    gamma, omega2 = _constants(eta, beta, h)
    return *oscillation(t, gamma, omega2), gamma, omega2


def _constants(eta, beta, h):
    """gamma and omega^2."""
    positive(h=h)
    finite(h=h)
    eta, beta = _optimizer(eta, beta)
    eta, beta, h = together(eta, beta, h)
    return (1 - beta) / (eta * (1 + beta)), 2 * h / (eta * (1 + beta))


def _optimizer(eta, beta):
    positive(eta=eta)
    finite(eta=eta)
    below_one(beta=beta)
    return together(eta, beta)


def require_time(time: str) -> None:
    """Requirement that `time` is that of the chain or that of the Langevin equation."""
    if time not in TIMES:
        raise ValueError(f"`time` must be {' or '.join(TIMES)}, but got {time}.")


def require_stationary(eta: ArrayLike, beta: ArrayLike, h: ArrayLike) -> None:
    """Requirement that the chain of a mode has a stationary law: 0 < eta h < 2 (1 + beta)."""
    positive(eta=eta, h=h)
    below_one(beta=beta)
    if not traced(eta, beta, h):
        eta, beta, h = together(eta, beta, h)
        require(eta * h < 2 * (1 + beta), "eta * h", "below 2 (1 + beta)", eta * h)
