r"""Heavy-ball SGD on a linear regression whose inputs are fresh Gaussian draws: noise that depends on the state.

Inputs :math:`u \sim \mathcal N(0, \mathrm{diag}\,\rho)` and labels :math:`y = u \cdot \theta^\star + \sigma\epsilon`, S
of them a step; position :math:`x = \theta - \theta^\star`. No weight decay.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from theory.arguments import below_one, integer, nonnegative, positive, require, traced, with_one_dtype


class StreamingMoments(NamedTuple):
    """Stationary variance of every mode, and excess risk."""

    variance: Float[Array, "... modes"]
    excess_risk: Float[Array, "..."]


def streaming_feedback(spectrum: ArrayLike, eta: ArrayLike, beta: ArrayLike, batch: ArrayLike) -> Float[Array, "..."]:
    r"""Share of the gradient noise that the motion itself causes.

    .. math:: K = \sum_l \rho_l g_l, \qquad g_l = \frac{a_l\rho_l/S}{1 - a_l\rho_l^2/S}, \qquad
        a_l = \frac{(1 + \beta)\,\eta}{(1 - \beta)\,\rho_l\,[2(1 + \beta) - \eta\rho_l]}

    Args:
        spectrum: Variances rho of the inputs, positive, in units of 1 / eta. Shape (..., modes).
        eta: Learning rate, positive. Shape (...).
        beta: Momentum, from 0 to below 1; dimensionless. Shape (...).
        batch: Samples S of a step, a whole number from 1. Shape (...).

    Returns:
        K, dimensionless; infinite where a single mode is unstable in mean square. Shape: the arguments, broadcast.

    Valid: every eta; below 1 SGD is stable in mean square, and the noise is 1 / (1 - K) times that at the optimum.
    Raises: ValueError for a spectrum or rate that is not positive, beta outside [0, 1) or a batch that is not a whole
        number from 1 (concrete values only).
    Source: derived here.
    Checked: the spectral radius of the recursion of second moments crosses 1 where K does; through
        `streaming_stationary`.
    """
    spectrum, eta, beta, batch = _given(spectrum, eta, beta, batch)
    gain = _gains(spectrum, eta, beta, batch)
    return jnp.sum(spectrum * gain, -1)


def streaming_is_stable(spectrum: ArrayLike, eta: ArrayLike, beta: ArrayLike, batch: ArrayLike) -> Bool[Array, "..."]:
    r"""Whether the second moments stay bounded.

    .. math:: \eta\rho_l < 2(1 + \beta), \quad a_l\rho_l^2 < S \quad\text{for all } l, \qquad K < 1

    Args:
        spectrum: Variances rho of the inputs, positive, in units of 1 / eta. Shape (..., modes).
        eta: Learning rate, positive. Shape (...).
        beta: Momentum, from 0 to below 1; dimensionless. Shape (...).
        batch: Samples S of a step, a whole number from 1. Shape (...).

    Returns:
        True where stable. Shape: the arguments, broadcast.

    Valid: exact. Beyond it single paths may still converge when there is no label noise; their mean square does not.
    Raises: ValueError as `streaming_feedback`.
    Source: derived here.
    Checked: spectral radius of the recursion of second moments; eta = 2 / (d + 2) for isotropic inputs, S = 1;
        simulation `sims.sgd_limit.streaming_stability`.
    """
    return streaming_feedback(spectrum, eta, beta, batch) < 1


def streaming_stationary(
    spectrum: ArrayLike, eta: ArrayLike, beta: ArrayLike, batch: ArrayLike, sigma: ArrayLike = 1.0
) -> StreamingMoments:
    r"""Stationary variances and excess risk of SGD on fresh samples.

    .. math:: \mathrm{Var}\,x_l = g_l(\sigma^2 + R), \qquad R = \mathrm{tr}(H\,\mathrm{Cov}\,x) =
        \frac{\sigma^2 K}{1 - K}, \qquad \text{excess risk} = \frac R2

    Args:
        spectrum: Variances rho of the inputs, positive, in units of 1 / eta. Shape (..., modes).
        eta: Learning rate, positive. Shape (...).
        beta: Momentum, from 0 to below 1; dimensionless. Shape (...).
        batch: Samples S of a step, a whole number from 1. Shape (...).
        sigma: Standard deviation of the label noise, zero or positive. Shape (...).

    Returns:
        `StreamingMoments(variance, excess_risk)`, in units of sigma^2 / rho and of sigma^2; shapes (..., modes) and
        (...). Infinite where the second moments grow without bound, for traced arguments.

    Valid: exact at any step size that is stable in mean square. K -> 0 is the model of additive noise.
    Raises: ValueError as `streaming_feedback`, for sigma < 0, or where unstable in mean square (concrete values only).
    Source: derived here.
    Checked: reference values; fixed point of the recursion of second moments (1e-11); the additive chain at small eta,
        first order; float32; gradients; simulation `sims.sgd_limit.streaming`.
    """
    nonnegative(sigma=sigma)
    spectrum, eta, beta, batch = _given(spectrum, eta, beta, batch)
    (sigma, eta, _) = with_one_dtype(sigma, eta, spectrum)
    gain = _gains(spectrum, eta, beta, batch)
    feedback = jnp.sum(spectrum * gain, -1)
    if not traced(feedback, eta):
        words = "small enough for the second moments to stay bounded"
        require(feedback < 1, "eta", words, eta)
    stable = feedback < 1
    noise = sigma**2 / jnp.where(stable, 1 - feedback, 1.0)
    variance = jnp.where(stable[..., None], jnp.where(stable[..., None], gain, 0.0) * noise[..., None], jnp.inf)
    return StreamingMoments(variance, jnp.where(stable, jnp.where(stable, feedback, 0.0) * noise / 2, jnp.inf))


def _given(spectrum, eta, beta, batch):
    """Arguments in one dtype, checked and broadcast, but for the modes of the spectrum."""
    positive(spectrum=spectrum, eta=eta)
    below_one(beta=beta)
    integer(1, batch=batch)
    spectrum, eta, beta, batch = with_one_dtype(spectrum, eta, beta, batch)
    lead = jnp.broadcast_shapes(spectrum.shape[:-1], eta.shape, beta.shape, batch.shape)
    numbers = (jnp.broadcast_to(x, lead) for x in (eta, beta, batch))
    return jnp.broadcast_to(spectrum, (*lead, spectrum.shape[-1])), *numbers


def _gains(spectrum, eta, beta, batch):
    """g_l, infinite for a mode that is unstable by itself."""
    eta, beta, batch = (x[..., None] for x in (eta, beta, batch))
    step, wide = eta * spectrum, 1 + beta
    # a rho = numerator / [(1 - beta) (2 (1 + beta) - eta rho)]; one fraction has no poles of its own inside.
    denominator = batch * (1 - beta) * (2 * wide - step) - wide * step
    stable = denominator > 0
    return jnp.where(stable, wide * eta / jnp.where(stable, denominator, 1.0), jnp.inf)
