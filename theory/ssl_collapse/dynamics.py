r"""How the modes of an encoder grow under gradient flow, from small weights to the minimum.

Covariances share an eigenbasis and the encoder is aligned with it: w is the singular value of W on a mode, y = w^2, and
Sigma y the mode's strength (embedding variance).
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from theory.arguments import finite, nonnegative, positive, together
from theory.roots import mean_decay
from theory.ssl_collapse.integration import runge_kutta

STEPS = 2048
SETTLED = 40.0  # e^-40: no digit is left


def mode_trajectory(
    t: ArrayLike, b: ArrayLike, sigma: ArrayLike, kappa: ArrayLike, y0: ArrayLike
) -> Float[Array, "..."]:
    r"""Squared singular value of a mode of the quartic landscape under gradient flow: a logistic curve.

    .. math:: \dot y = 4by - 8\kappa\Sigma^2y^2, \qquad
        y(t) = \frac{y_0}{e^{-4bt} + \frac{2\kappa\Sigma^2}b\, y_0\,(1 - e^{-4bt})}

    Args:
        t: Time, zero or positive. Shape (...).
        b: Eigenvalue of B (`effective_landscape`) on the mode, any sign. Shape (...).
        sigma: Sigma, variance of the views along the mode, positive. Shape (...).
        kappa: Coefficient of the quartic term, positive. Shape (...).
        y0: y at time 0, zero or positive. Shape (...).

    Returns:
        y(t); Sigma y is the mode's strength. Shape: the arguments, broadcast.

    Valid: commuting A0, C, B and an encoder aligned with them; any sign of b, and b = 0, where
        y = y0 / (1 + 8 kappa Sigma^2 y0 t).
    Raises: ValueError for a negative or infinite t, a b that is not finite, sigma or kappa that are not positive, or a
        negative y0 (concrete values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: printed values, mpmath on both sides of b = 0 (1e-12), gradients at b = 0; gradient descent in full
        matrices, order 1 in its step, `sims.ssl_collapse.dynamics`.
    """
    _check_time(t)
    positive(sigma=sigma, kappa=kappa)
    finite(b=b)
    nonnegative(y0=y0)
    t, b, sigma, kappa, y0 = together(t, b, sigma, kappa, y0)
    growing = b >= 0
    exponent = jnp.where(growing, 4 * b * t, -4 * b * t)
    small = jnp.exp(-exponent)
    braking = 8 * kappa * sigma**2 * y0 * t * mean_decay(exponent)
    return y0 * jnp.where(growing, 1.0, small) / (jnp.where(growing, small, 1.0) + braking)


def half_time(b: ArrayLike, sigma: ArrayLike, kappa: ArrayLike, y0: ArrayLike) -> Float[Array, "..."]:
    r"""First time at which a mode of the quartic landscape has half of its final strength.

    .. math:: t_{1/2} = \frac1{4b}\ln\Big(\frac{y_\infty}{y_0} - 1\Big), \qquad y_\infty = \frac b{2\kappa\Sigma^2}

    Args:
        b: Eigenvalue of B on the mode, any sign. Shape (...).
        sigma: Sigma, variance of the views along the mode, positive. Shape (...).
        kappa: Coefficient of the quartic term, positive. Shape (...).
        y0: y at time 0, zero or positive. Shape (...).

    Returns:
        The time; 0 where y0 is more than half of y_infinity, inf where the mode never grows (b <= 0 or y0 = 0). Shape:
        the arguments, broadcast.

    Valid: as `mode_trajectory`.
    Raises: ValueError for a b that is not finite, sigma or kappa that are not positive, or a negative y0 (concrete
        values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: printed value, the trajectory at that time; gradient descent, `sims.ssl_collapse.dynamics`.
    """
    positive(sigma=sigma, kappa=kappa)
    finite(b=b)
    nonnegative(y0=y0)
    b, sigma, kappa, y0 = together(b, sigma, kappa, y0)
    learned = (b > 0) & (y0 > 0)
    rate = jnp.where(learned, b, 1.0)
    ratio = rate / (2 * kappa * sigma**2 * jnp.where(learned, y0, 1.0))
    time = jnp.log(jnp.where(ratio > 2, ratio - 1, 1.0)) / (4 * rate)
    return jnp.where(learned, time, jnp.inf)


def learning_order(b: ArrayLike, sigma: ArrayLike, kappa: ArrayLike, y0: ArrayLike) -> Int[Array, " d"]:
    r"""Modes in the order in which they reach half of their final strength: from small weights, the largest b first.

    Args:
        b: Eigenvalues of B, any sign. Shape (d,).
        sigma: Variances of the views along the modes, positive. Shape (d,), or a number.
        kappa: Coefficient of the quartic term, positive. A number.
        y0: y at time 0, zero or positive. Shape (d,), or a number.

    Returns:
        Indices of the modes by rising `half_time`, those that are never learned last. Shape (d,).

    Valid: as `mode_trajectory`. As y0 -> 0 the order is that of falling b, whatever sigma: not `final_ranking`.
    Raises: ValueError as `half_time`.
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: the limit y0 -> 0 by hand; gradient descent, `sims.ssl_collapse.dynamics`.
    """
    return jnp.argsort(half_time(b, sigma, kappa, y0), axis=-1)


def final_ranking(b: ArrayLike, sigma: ArrayLike) -> Int[Array, " d"]:
    r"""Modes by their strength at the minimum, the strongest first: by falling :math:`\beta = b/\Sigma`.

    Args:
        b: Eigenvalues of B, any sign. Shape (d,).
        sigma: Variances of the views along the modes, positive. Shape (d,), or a number.

    Returns:
        Indices of the modes. Shape (d,).

    Valid: the quartic landscape; the first min(m, #{b > 0}) are those that an m-dimensional encoder keeps.
    Raises: ValueError for a b that is not finite or a sigma that is not positive (concrete values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: by hand; the end of gradient descent, `sims.ssl_collapse.plateau`.
    """
    positive(sigma=sigma)
    finite(b=b)
    b, sigma = together(b, sigma)
    return jnp.argsort(-b / sigma, axis=-1)


def plateau_escape_rate(
    b_in: ArrayLike, sigma_in: ArrayLike, b_out: ArrayLike, sigma_out: ArrayLike
) -> Float[Array, "..."]:
    r"""Rate at which an encoder leaves a saddle that holds the mode "in" where the mode "out" belongs.

    .. math:: \frac d{dt}\ln|w_{\rm out}| = 2\Sigma_{\rm out}(\beta_{\rm out} - \beta_{\rm in}), \qquad
        \beta = b/\Sigma

    Args:
        b_in: Eigenvalue of B on the learned mode with the least beta, positive. Shape (...).
        sigma_in: Variance of the views along it, positive. Shape (...).
        b_out: Eigenvalue of B on a mode that is not learned, any sign. Shape (...).
        sigma_out: Variance of the views along it, positive. Shape (...).

    Returns:
        Growth rate of the encoder's column on the mode "out"; where it is negative the mode stays out. Shape: the
        arguments, broadcast.

    Valid: fewer embedding dimensions than positive modes (no free dimension: with one, the rate is 2 b_out), all of
        them at the saddle's strengths beta / 2 kappa; independent of kappa.
    Raises: ValueError for a b_in that is not positive, a b_out that is not finite, or a sigma that is not positive
        (concrete values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: eigenvalues of the Hessian at the saddle by automatic differentiation (1e-12); gradient descent from small
        random weights, order 1 in its step, `sims.ssl_collapse.plateau`.
    """
    positive(b_in=b_in, sigma_in=sigma_in, sigma_out=sigma_out)
    finite(b_out=b_out)
    b_in, sigma_in, b_out, sigma_out = together(b_in, sigma_in, b_out, sigma_out)
    return 2 * (b_out - sigma_out * b_in / sigma_in)


def infonce_mode_rate(
    y: ArrayLike,
    a: ArrayLike,
    c: ArrayLike,
    temperature: ArrayLike = 1.0,
    alpha: ArrayLike = 1.0,
    weight_decay: ArrayLike = 0.0,
) -> Float[Array, "..."]:
    r"""Growth rate of a mode under gradient flow of distance-InfoNCE, exact for Gaussian data.

    .. math:: \frac{d\ln y}{dt} = -4\Big[\frac\Sigma\tau\Big(\alpha q - \frac u2 - \frac{u^2}2\Big) + \lambda\Big],
        \qquad u = \frac1{1 + \Sigma y/\tau}, \quad q = c/\Sigma, \quad \Sigma = a + c

    Args:
        y: Squared singular value of the encoder on the mode, zero or positive. Shape (...).
        a: Variance of the clean inputs along the mode, zero or positive. Shape (...).
        c: Variance of the augmentation along the mode, zero or positive. Shape (...).
        temperature: tau, positive. Shape (...).
        alpha: Weight of the alignment term, zero or positive. Shape (...).
        weight_decay: lambda of lambda |W|_F^2, zero or positive. Shape (...).

    Returns:
        The rate. Shape: the arguments, broadcast.

    Valid: Gaussian data, infinitely many negatives, augmented as the anchors are; commuting A0 and C, an encoder
        aligned with them.
    Raises: ValueError for an argument outside its range, or a + c = 0 (concrete values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: the gradient of the loss of one mode, by quadrature (1e-9); through `infonce_mode_trajectory`.
    """
    nonnegative(y=y, a=a, c=c, alpha=alpha, weight_decay=weight_decay)
    positive(temperature=temperature)
    y, a, c, tau, alpha, decay = together(y, a, c, temperature, alpha, weight_decay)
    sigma = a + c
    positive(**{"a + c": sigma})
    u = 1 / (1 + sigma * y / tau)
    return -4 * (alpha * c / tau - sigma / tau * (u + u**2) / 2 + decay)


def infonce_mode_trajectory(
    t: ArrayLike,
    a: ArrayLike,
    c: ArrayLike,
    y0: ArrayLike,
    temperature: ArrayLike = 1.0,
    alpha: ArrayLike = 1.0,
    weight_decay: ArrayLike = 0.0,
) -> Float[Array, "..."]:
    r"""Squared singular value of a mode under gradient flow of distance-InfoNCE, exact for Gaussian data.

    The integral of `infonce_mode_rate` in ln y, by 2048 classical Runge-Kutta steps up to t, or up to a time at which
    no digit of y moves any more.

    Args:
        t: Time, zero or positive. Shape (...).
        a: Variance of the clean inputs along the mode, zero or positive. Shape (...).
        c: Variance of the augmentation along the mode, zero or positive. Shape (...).
        y0: y at time 0, zero or positive. Shape (...).
        temperature: tau, positive. Shape (...).
        alpha: Weight of the alignment term, zero or positive. Shape (...).
        weight_decay: lambda of lambda |W|_F^2, zero or positive. Shape (...).

    Returns:
        y(t); (a + c) y is the mode's strength. Shape: the arguments, broadcast.

    Valid: as `infonce_mode_rate`; relative error below 1e-9 up to t = 100 tau / (a + c), and at the end.
    Raises: ValueError for an argument outside its range, or a + c = 0 (concrete values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: printed values, the closed form of t(y) by partial fractions (1e-10), the fixed point; gradient descent in
        full matrices, order 1 in its step, `sims.ssl_collapse.dynamics`.
    """
    _check_time(t)
    nonnegative(y0=y0)
    infonce_mode_rate(y0, a, c, temperature, alpha, weight_decay)
    t, a, c, y0, *parameters = together(t, a, c, y0, temperature, alpha, weight_decay)
    alive = y0 > 0
    log_y0 = jnp.log(jnp.where(alive, y0, 1.0))
    step = jnp.minimum(t, _settling_time(log_y0, a, c, *parameters)) / STEPS

    def rate(log_y):
        return infonce_mode_rate(jnp.exp(log_y), a, c, *parameters)

    log_y, _ = jax.lax.scan(lambda log_y, _: (runge_kutta(rate, log_y, step), None), log_y0, length=STEPS)
    return jnp.where(alive, jnp.exp(log_y), 0.0)


def _settling_time(log_y0, a, c, tau, alpha, decay):
    """A time after which ln y is within e^-40 of its end; inf if it has none.

    With s the strength over tau, q = (alpha c + lambda tau) / Sigma and u = 1 / (1 + s): at the distance r from the end
    ln s*, |d ln s/dt| >= 4 (Sigma/tau) q (1 - u*) (1 - e^-r).
    """
    sigma = a + c
    q = (alpha * c + tau * decay) / sigma
    bounded = (q > 0) & (q < 1)
    q = jnp.where(bounded, q, 0.5)
    u = 4 * q / (jnp.sqrt(1 + 8 * q) + 1)
    distance = jnp.abs(log_y0 - jnp.log(tau / sigma * (1 / u - 1)))
    time = (distance + SETTLED) * tau / (4 * sigma * q * (1 - u))
    return jnp.where(bounded, jax.lax.stop_gradient(time), jnp.inf)


def _check_time(t):
    nonnegative(t=t)
    finite(t=t)
