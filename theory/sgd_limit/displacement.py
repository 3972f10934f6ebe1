r"""How far SGD wanders after convergence: in one step, in many, and the exponents in between.

All displacements are mean squares summed over the modes of a quadratic loss with gradient noise
:math:`\Sigma = \sigma^2 H`; :math:`h_l = \rho_l + \lambda`.
"""

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln, zeta
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import (
    below_one,
    finite,
    integer,
    nonnegative,
    positive,
    require,
    together,
    traced,
    with_one_dtype,
)
from theory.oscillator import impulse_response
from theory.sgd_limit.correlation import decorrelation
from theory.sgd_limit.phase_space import phase_space_covariance, transient

SUMMED = 32  # modes of a power law that are summed one by one


def local_displacement(
    spectrum: ArrayLike,
    eta: ArrayLike,
    beta: ArrayLike,
    batch: ArrayLike,
    weight_decay: ArrayLike = 0.0,
    sigma: ArrayLike = 1.0,
    time: str = "discrete",
) -> Float[Array, "..."]:
    r"""Mean squared displacement in one step.

    .. math:: E|\theta_{k+1} - \theta_k|^2 = \sum_l \frac{2\eta^2\sigma^2\rho_l/S}
        {(1 - \beta)[2(1 + \beta) - \eta h_l]} \qquad
        \Big(\text{in continuous time: } \frac{\eta^2\sigma^2\,\mathrm{tr}H}{S(1 - \beta^2)}\Big)

    Args:
        spectrum: Eigenvalues rho of the Hessian, zero or positive. Shape (..., modes).
        eta: Learning rate, positive, in units of 1 / rho. Shape (...).
        beta: Momentum, from 0 to below 1; dimensionless. Shape (...).
        batch: Batch size S, a whole number from 1. Shape (...).
        weight_decay: lambda, zero or positive, in units of rho. Shape (...).
        sigma: Standard deviation of the residuals, zero or positive. Shape (...).
        time: "discrete" for the chain, "ou" for the Langevin equation.

    Returns:
        The displacement, in units of sigma^2 / rho. Shape: the arguments, broadcast, without the modes.

    Valid: additive noise, eta h < 2 (1 + beta), exact; in continuous time to first order in eta h.
    Raises: ValueError for an argument out of its range, a flat mode (h = 0), or an unstable one (concrete values only).
    Source: derived here; in continuous time arXiv:2107.09133 [paper].
    Checked: reference values; one step of `global_displacement`; simulation `sims.sgd_limit.displacement`.
    """
    spectrum, eta, *others = _of_modes(spectrum, eta, beta, batch, weight_decay, sigma)
    motion = phase_space_covariance(spectrum, eta, *others, time=time).motion
    return jnp.sum(motion if time == "discrete" else eta**2 * motion, -1)


def global_displacement(
    lags: ArrayLike,
    spectrum: ArrayLike,
    eta: ArrayLike,
    beta: ArrayLike,
    batch: ArrayLike,
    weight_decay: ArrayLike = 0.0,
    sigma: ArrayLike = 1.0,
    time: str = "discrete",
    start: ArrayLike | None = None,
) -> Float[Array, "..."]:
    r"""Mean squared displacement in k steps, between stationary states or from a fixed start at rest.

    .. math:: E|\theta_{j+k} - \theta_j|^2 = \sum_l 2\,\mathrm{Var}\,x_l\,[1 - r_l(k)], \qquad
        E|\theta_k - \theta_0|^2 = \sum_l \big[(E x_{k,l} - x_{0,l})^2 + \mathrm{Var}\,x_{k,l}\big]

    Args:
        lags: k, zero or positive; whole numbers for the chain. Shape (...).
        spectrum: Eigenvalues rho of the Hessian, zero or positive. Shape (..., modes).
        eta: Learning rate, positive, in units of 1 / rho. Shape (...).
        beta: Momentum, from 0 to below 1; dimensionless. Shape (...).
        batch: Batch size S, a whole number from 1. Shape (...).
        weight_decay: lambda, zero or positive, in units of rho. Shape (...).
        sigma: Standard deviation of the residuals, zero or positive. Shape (...).
        time: "discrete" for the chain, "ou" for the Langevin equation.
        start: Position x_0 of every mode from the minimum, in units of sigma rho^{-1/2}; None for a stationary start.
            Shape (..., modes).

    Returns:
        The displacement, in units of sigma^2 / rho. Shape: the arguments, broadcast, without the modes.

    Valid: additive noise, eta h < 2 (1 + beta), exact; in continuous time to first order in eta h. No cancellation for
        flat modes.
    Raises: ValueError as `local_displacement`, for lags below 0 or not whole, or a start that is not finite.
    Source: derived here.
    Checked: reference values; sums of fifty-digit roots; moments of the chain step by step; the sum over velocity
        correlations of the paper to its Riemann error; float32; gradients; simulation
        `sims.sgd_limit.displacement`.
    """
    spectrum, eta, beta, batch, decay, sigma = _of_modes(spectrum, eta, beta, batch, weight_decay, sigma)
    law = phase_space_covariance(spectrum, eta, beta, batch, decay, sigma, time)
    k, h = jnp.asarray(lags, spectrum.dtype)[..., None], spectrum + decay
    gone = decorrelation(k, eta, beta, h, time)
    if start is None:
        return jnp.sum(2 * together(law.position, gone)[0] * gone, -1)
    finite(start=start)
    if time == "discrete":  # from rest, not with the mean step of a stationary state
        _, b, e = together(gone, beta, eta * h)
        gone = gone + e * b / (1 + b) * impulse_response(k, b, e)
    spread = transient(k, 0.0, spectrum, eta, beta, batch, decay, sigma, time).covariance[..., 0, 0]
    start, gone, spread = together(jnp.asarray(start, spectrum.dtype), gone, spread)
    return jnp.sum((start * gone) ** 2 + spread, -1)


def diffusion_constant(
    spectrum: ArrayLike, eta: ArrayLike, beta: ArrayLike, batch: ArrayLike, sigma: ArrayLike = 1.0
) -> Float[Array, "..."]:
    r"""Displacement per step while all modes diffuse freely.

    .. math:: \frac{E|\theta_{j+k} - \theta_j|^2}k \to \frac{\eta^2\sigma^2\,\mathrm{tr}H}{S(1 - \beta)^2}

    Args:
        spectrum: Eigenvalues rho of the Hessian, zero or positive. Shape (..., modes).
        eta: Learning rate, positive, in units of 1 / rho. Shape (...).
        beta: Momentum, from 0 to below 1; dimensionless. Shape (...).
        batch: Batch size S, a whole number from 1. Shape (...).
        sigma: Standard deviation of the residuals, zero or positive. Shape (...).

    Returns:
        The constant, in units of sigma^2 / rho per step. Shape: the arguments, broadcast, without the modes.

    Valid: 1 / (1 - beta) << k << (1 - beta) / (eta h); it is (1 + beta) / (1 - beta) times the local displacement.
    Raises: ValueError for an argument out of its range (concrete values only).
    Source: derived here.
    Checked: slope of `global_displacement` for flat modes.
    """
    spectrum, eta, beta, batch, _, sigma = _of_modes(spectrum, eta, beta, batch, 0.0, sigma)
    return jnp.sum((eta * sigma / (1 - beta)) ** 2 * spectrum / batch, -1)


def displacement_saturation(
    spectrum: ArrayLike,
    eta: ArrayLike,
    beta: ArrayLike,
    batch: ArrayLike,
    weight_decay: ArrayLike = 0.0,
    sigma: ArrayLike = 1.0,
    time: str = "discrete",
) -> Float[Array, "..."]:
    r"""Displacement between stationary states that have forgotten each other.

    .. math:: E|\theta_{j+k} - \theta_j|^2 \to 2\sum_l \mathrm{Var}\,x_l, \qquad
        k \gg \frac{1 - \beta}{\eta h_{\min}}

    Args:
        spectrum: Eigenvalues rho of the Hessian, zero or positive. Shape (..., modes).
        eta: Learning rate, positive, in units of 1 / rho. Shape (...).
        beta: Momentum, from 0 to below 1; dimensionless. Shape (...).
        batch: Batch size S, a whole number from 1. Shape (...).
        weight_decay: lambda, zero or positive, in units of rho. Shape (...).
        sigma: Standard deviation of the residuals, zero or positive. Shape (...).
        time: "discrete" for the chain, "ou" for the Langevin equation.

    Returns:
        The displacement, in units of sigma^2 / rho. Shape: the arguments, broadcast, without the modes.

    Valid: as `local_displacement`.
    Raises: ValueError as `local_displacement`.
    Source: derived here.
    Checked: `global_displacement` at long lags.
    """
    arguments = _of_modes(spectrum, eta, beta, batch, weight_decay, sigma)
    return 2 * jnp.sum(phase_space_covariance(*arguments, time=time).position, -1)


def power_law_displacement(
    lags: ArrayLike,
    eta: ArrayLike,
    beta: ArrayLike,
    rho1: ArrayLike,
    alpha: ArrayLike,
    batch: ArrayLike,
    sigma: ArrayLike = 1.0,
    *,
    corrected: bool = False,
    from_minimum: bool = False,
) -> Float[Array, "..."]:
    r"""Anomalous diffusion over a power-law spectrum :math:`\rho_l = \rho_1 l^{-\alpha}` of infinitely many modes.

    .. math:: E|\Delta_k|^2 \simeq \frac{\eta\sigma^2}{S(1 - \beta)}
        \Big[\Gamma(1 - \tfrac1\alpha)\,a^{1/\alpha} + c\Big], \qquad a = \frac{\eta\rho_1 k}{1 - \beta}, \qquad
        c = -\tfrac12 + \sum_l \frac{\eta\rho_l}{2(1 + \beta) - \eta\rho_l}

    The constant c, of the Euler-Maclaurin formula and of the modes that are not slow, is left out unless `corrected`.
    From the minimum, at rest, it is half of this at 2 a.

    Args:
        lags: k in steps, positive. Shape (...).
        eta: Learning rate, positive, in units of 1 / rho. Shape (...).
        beta: Momentum, from 0 to below 1; dimensionless. Shape (...).
        rho1: Largest eigenvalue, positive. Shape (...).
        alpha: Exponent of the spectrum, above 1; dimensionless. Shape (...).
        batch: Batch size S, a whole number from 1. Shape (...).
        sigma: Standard deviation of the residuals, zero or positive. Shape (...).
        corrected: Whether to add c.
        from_minimum: Whether to start at the minimum instead of in the stationary state.

    Returns:
        The displacement, in units of sigma^2 / rho. Shape: the arguments, broadcast.

    Valid: no weight decay, :math:`\frac1{1 - \beta} \ll k` and :math:`\frac{1 - \beta}{\eta\rho_1} \ll k \ll
        \frac{1 - \beta}{\eta\rho_d}`; relative error of order k^{-1/alpha}, with c of order 1 / k.
    Raises: ValueError for an argument out of its range, alpha <= 1, or an unstable mode (concrete values only).
    Source: derived here.
    Checked: reference value; orders in k of the exact sum over 20,000 modes; simulation `sims.sgd_limit.anomalous`.
    """
    positive(lags=lags, eta=eta, rho1=rho1)
    below_one(beta=beta)
    integer(1, batch=batch)
    nonnegative(sigma=sigma)
    _above_one(alpha)
    k, eta, beta, rho1, alpha, batch, sigma = together(lags, eta, beta, rho1, alpha, batch, sigma)
    if not traced(eta, beta, rho1):
        require(eta * rho1 < 2 * (1 + beta), "eta * rho1", "below 2 (1 + beta)", eta * rho1)
    a = (2 if from_minimum else 1) * eta * rho1 * k / (1 - beta)
    modes = jnp.exp(gammaln(1 - 1 / alpha)) * a ** (1 / alpha)
    if corrected:
        modes = modes - 0.5 + _not_slow(eta * rho1 / (2 * (1 + beta)), alpha)
    return (0.5 if from_minimum else 1.0) * eta * sigma**2 / (batch * (1 - beta)) * modes


def _not_slow(x, alpha):
    """Sum over l of x l^-alpha / (1 - x l^-alpha), for x below 1."""
    l = jnp.arange(1, SUMMED + 1, dtype=x.dtype)  # noqa: E741
    each = x[..., None] * jnp.broadcast_to(l, (*x.shape, SUMMED)) ** -alpha[..., None]
    rest = sum(x**j * zeta(j * alpha, jnp.full_like(alpha, SUMMED + 1)) for j in (1, 2, 3))
    return jnp.sum(each / (1 - each), -1) + rest


def power_law_exponent(alpha: ArrayLike) -> Float[Array, "..."]:
    r"""Exponent of the anomalous diffusion over a power-law spectrum.

    .. math:: c = \frac1\alpha, \qquad E|\Delta_k|^2 \propto k^c

    Args:
        alpha: Exponent of the spectrum :math:`\rho_l \propto l^{-\alpha}`, above 1; dimensionless. Shape (...).

    Returns:
        c. Shape (...).

    Valid: as `power_law_displacement`; before it 2 (ballistic) and 1 (diffusive), after it 0 (saturated).
    Raises: ValueError for alpha <= 1 (concrete values only).
    Source: derived here.
    Checked: slope of the exact sum over 20,000 modes.
    """
    _above_one(alpha)
    (alpha,) = together(alpha)
    return 1 / alpha


def displacement_exponent(lags: ArrayLike, msd: ArrayLike) -> Float[Array, "... lags-1"]:
    r"""Local exponent of a displacement between neighbouring lags.

    .. math:: c = \frac{\ln E|\Delta_{k'}|^2 - \ln E|\Delta_k|^2}{\ln k' - \ln k}

    Args:
        lags: k in steps, positive and rising. Shape (lags,).
        msd: Mean squared displacements at those lags, positive. Shape (..., lags).

    Returns:
        c, which stands for the geometric mean of its two lags. Shape (..., lags - 1).

    Valid: always; a number for a window, not a law.
    Raises: ValueError for lags that do not rise, or for displacements that are not positive (concrete values only).
    Source: the definition.
    Checked: power laws.
    """
    positive(lags=lags, msd=msd)
    lags, msd = with_one_dtype(lags, msd)
    if not traced(lags):
        steps = np.diff(np.asarray(lags))
        require(steps > 0, "lags", "rising", np.asarray(lags)[1:])
    slopes = jnp.diff(jnp.log(msd), axis=-1)
    return slopes / jnp.broadcast_to(jnp.diff(jnp.log(lags)), slopes.shape)


def _above_one(alpha):
    if not traced(alpha):
        require(np.asarray(alpha) > 1, "alpha", "above 1", alpha)


def _of_modes(spectrum, *numbers):
    """The spectrum and numbers of one dtype and shape, the last axis that of the modes."""
    spectrum, *numbers = with_one_dtype(spectrum, *numbers)
    return together(spectrum, *(x[..., None] for x in numbers))
