"""Momentum: products of random 2 x 2 matrices, whose exponent is an expansion in the effective step."""

from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import below_one, finite, nonnegative, positive, together


def momentum_exponent(
    eta: ArrayLike, beta: ArrayLike, mean_curvature: ArrayLike, variance: ArrayLike
) -> Float[Array, "..."]:
    r"""Lyapunov exponent of heavy ball on Gaussian curvatures, to second order in the effective step.

    .. math:: p' = \beta p - \eta h_b z, \quad z' = z + p', \qquad
        e = \frac\eta{1 - \beta}, \quad v = e^2\sigma_h^2/B

    .. math:: \Lambda = -e\bar h - \frac v2 - e^2\bar h^2\Big(\frac12 + \frac\beta{1 - \beta}\Big)
        - e\bar h v\,\frac{1 + \beta}{1 - \beta}
        - v^2\Big(\frac34 + \frac\beta{1 - \beta} + \frac{\beta^2}{2(1 - \beta^2)}\Big)

    The first two terms are those of the SDE at eta / (1 - beta) for eta.

    Args:
        eta: Learning rate, positive. Shape (...).
        beta: Momentum, from 0 to below 1. Shape (...).
        mean_curvature: h-bar, any sign; per eta. Shape (...).
        variance: sigma_h^2 / B of a batch's mean curvature, zero or positive; times (N - B) / (N - 1) for a batch of B
            of N samples drawn without replacement; per eta^2. Shape (...).

    Returns:
        Growth of ln |(z, p)| per step. Shape: broadcast.

    Valid: e |h-bar| and v small against 1 - beta; the error is of third order in both.
    Raises: ValueError for eta <= 0, beta outside [0, 1), a mean that is not finite or a negative variance (concrete
        values only).
    Source: derived here.
    Checked: reference value; `discrete_exponent` at beta = 0 and the stationary law of the matrices' direction on a
        grid, both to order 3; simulation `sims.stochastic_collapse.momentum`.
    """
    beta, d, v = _effective(eta, beta, mean_curvature, variance)
    return (
        -d
        - v / 2
        - d**2 * (0.5 + beta / (1 - beta))
        - d * v * (1 + beta) / (1 - beta)
        - v**2 * (0.75 + beta / (1 - beta) + beta**2 / (2 * (1 - beta**2)))
    )


def effective_exponent(
    eta: ArrayLike, beta: ArrayLike, mean_curvature: ArrayLike, variance: ArrayLike
) -> Float[Array, "..."]:
    r"""Lyapunov exponent of heavy ball to leading order: the SDE at the effective step.

    .. math:: \Lambda = -e\bar h - \tfrac12 e^2\sigma_h^2/B, \qquad e = \frac\eta{1 - \beta}

    Args:
        eta: Learning rate, positive. Shape (...).
        beta: Momentum, from 0 to below 1. Shape (...).
        mean_curvature: h-bar, any sign; per eta. Shape (...).
        variance: sigma_h^2 / B, zero or positive; per eta^2. Shape (...).

    Returns:
        Growth of ln |(z, p)| per step. Shape: broadcast.

    Valid: as `momentum_exponent`, with an error of second order.
    Raises: ValueError as `momentum_exponent`.
    Source: derived here.
    Checked: order 2 of the distance to `momentum_exponent`.
    """
    _, d, v = _effective(eta, beta, mean_curvature, variance)
    return -d - v / 2


def _effective(eta, beta, mean_curvature, variance):
    """(beta, mean, variance) of a step at the effective learning rate e: beta, e h-bar, e^2 sigma_h^2 / B."""
    positive(eta=eta)
    below_one(beta=beta)
    finite(eta=eta, mean_curvature=mean_curvature, variance=variance)
    nonnegative(variance=variance)
    eta, beta, h, variance = together(eta, beta, mean_curvature, variance)
    e = eta / (1 - beta)
    return beta, e * h, e**2 * variance
