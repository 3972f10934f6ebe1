r"""Neurons without a bias near the origin: linear with isotropic inputs, and scalar with data.

Label noise of one draw moves the ingoing and the outgoing weight together, which is what attracts a scalar neuron.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import finite, integer, nonnegative, positive, require, together, traced, with_one_dtype
from theory.stochastic_collapse.products import discrete_exponent, lyapunov_exponent
from theory.stochastic_collapse.windows import critical_noise

NODES, WEIGHTS = np.polynomial.legendre.leggauss(160)
NEGLIGIBLE = 40.0
TIMES = ("continuous", "full_gradient", "single_sample")


class NeuronExponents(NamedTuple):
    """Exponents of u = w1 + w2 and of v = w1 - w2."""

    u: Float[Array, "..."]
    v: Float[Array, "..."]


def sign_set_exponent(d: ArrayLike) -> Float[Array, "..."]:
    r"""Exponent of the sign-invariant set of a linear neuron with isotropic inputs and label noise alone.

    .. math:: \frac{\lambda_d}{s^2}
        = \Big\langle \frac{\cosh^2y + d\sinh^2y}{2\cosh 2y} - \tanh^2 2y \Big\rangle, \qquad
        \rho(y) \propto \cosh^{d-1}\!y\;e^{-\frac{d-1}2\cosh^2y}

    for :math:`da = s\,w\cdot dW,\ dw = s\,a\,dW` with the same d-dimensional W. Noise attracts at d = 1 (-1/2), is
    neutral at d = 2 and repels above.

    Args:
        d: Dimension of the inputs, 1 or more; any real number. Shape (...).

    Returns:
        The exponent in units of s^2 = eta zeta^2 q / B per unit time, q the variance of an input. Shape (...).

    Valid: exact for the Ito process; discrete steps approach it with O(eta).
    Raises: ValueError for d < 1 (concrete values only).
    Source: derived here: the angle of (a, |w|), pi/2 + arctan tanh y, has additive noise.
    Checked: mpmath (1e-10) from d = 1 + 1e-9 to 1e6; reference values; d = 1; gradient; simulation.
    """
    if not traced(d):
        require(np.asarray(d) >= 1, "d", "1 or more", d)
    (d,) = together(d)
    above = d > 1
    k = jnp.where(above, d, 2.0)[..., None] - 1
    # (k/2) (sinh^2 y - ln cosh^2 y) passes `NEGLIGIBLE` before sinh^2 y = 2 t + 2 sqrt t.
    t = NEGLIGIBLE / k
    end = jnp.arcsinh(jnp.sqrt(2 * (t + jnp.sqrt(t))))
    shape = (1,) * d.ndim + NODES.shape
    nodes, weights = (jnp.asarray(x, d.dtype).reshape(shape) for x in (NODES, WEIGHTS))
    square = jnp.sinh(end * (1 + nodes) / 2) ** 2
    rho = weights * jnp.exp(k / 2 * (jnp.log1p(square) - square))
    share = square / (1 + 2 * square)  # of a^2 in |z|^2
    drift = (1 - share + (k + 1) * share) / 2 - 4 * share * (1 - share)
    return jnp.where(above, jnp.sum(rho * drift, -1) / jnp.sum(rho, -1), -0.5)


def neuron_exponents(
    x: ArrayLike,
    y: ArrayLike,
    eta: ArrayLike,
    zeta: ArrayLike,
    slope: ArrayLike = 1.0,
    batch: ArrayLike = 1,
    time: str = "continuous",
) -> NeuronExponents:
    r"""Exponents of the scalar neuron w2 sigma(w1 x) at the origin, under squared loss and label noise.

    .. math:: \Lambda_{u,v} = \pm\sigma'C - \tfrac12\eta\zeta^2\sigma'^2X_2/B, \qquad
        \Lambda_{u,v} = E\ln|1 \pm \eta\sigma' c_b|, \qquad C = \overline{xy},\ X_2 = \overline{x^2}

    per unit time t = eta k, and per step of SGD. The signal c_b of a step is Gaussian of mean C and variance
    zeta^2 X_2 / B for the full gradient, and x_i (y_i + zeta xi) for a single sample.

    Args:
        x: Inputs. Shape (..., m).
        y: Targets. Shape (..., m).
        eta: Learning rate, positive. Shape (...).
        zeta: Standard deviation of the label noise, zero or positive; in units of y. Shape (...).
        slope: sigma'(0), positive. Shape (...).
        batch: B, independent label draws that a step averages: 1 in the paper's SDE, m for the full batch with a fresh
            draw for every sample. A whole number. Shape (...).
        time: "continuous", "full_gradient" or "single_sample".

    Returns:
        `NeuronExponents(u, v)`, per unit time if continuous, else per step. Shape: broadcast.

    Valid: sigma(0) = 0, Gaussian labels; exact near the origin. The origin attracts where both are negative.
    Raises: ValueError for eta <= 0, zeta < 0, slope <= 0, a batch that is not a whole number >= 1, or not 1 for a
        single sample, another time, or shapes that do not match (concrete values only).
    Source: arXiv:2306.04251 [paper] for the threshold at B = 1; the exponents derived here.
    Checked: reference values; mpmath averages over the label; eta -> 0 to first order; gradients; simulation
        `sims.stochastic_collapse.neuron_diagram`.
    """
    if time not in TIMES:
        raise ValueError(f"`time` must be one of {', '.join(TIMES)}, but got {time}.")
    positive(eta=eta, slope=slope)
    nonnegative(zeta=zeta)
    integer(1, batch=batch)
    x, y = _data(x, y)
    x, y, eta, zeta, slope, B = with_one_dtype(x, y, eta, zeta, slope, batch)
    if time == "single_sample":
        if not traced(batch):
            require(np.asarray(batch) == 1, "batch", "1 for a single sample", batch)
        x, y, eta, zeta, slope = together(x, y, *(v[..., None] for v in (eta, zeta, slope)))
        each = (discrete_exponent(eta, s * slope * x * y, slope * zeta * jnp.abs(x)) for s in (-1, 1))
        return NeuronExponents(*(jnp.mean(e, -1) for e in each))
    C, X2, eta, zeta, slope, B = together(_mean_product(x, y), _mean_product(x, x), eta, zeta, slope, B)
    curvature, spread = slope * C, slope * zeta * jnp.sqrt(X2)
    if time == "full_gradient":
        return NeuronExponents(*(discrete_exponent(eta, s * curvature, spread, batch) for s in (-1, 1)))
    return NeuronExponents(*(lyapunov_exponent(s * curvature, spread * jnp.sqrt(eta / B)) for s in (-1, 1)))


def neuron_threshold(x: ArrayLike, y: ArrayLike, slope: ArrayLike = 1.0, batch: ArrayLike = 1) -> Float[Array, "..."]:
    r"""Label noise above which the origin attracts a scalar neuron in continuous time.

    .. math:: \tfrac12\eta\zeta^2 > \frac B{\sigma'(0)}\, \frac{|\sum x_iy_i|}{\sum x_i^2}

    Args:
        x: Inputs, not all zero. Shape (..., m).
        y: Targets. Shape (..., m).
        slope: sigma'(0), positive. Shape (...).
        batch: B, independent label draws that a step averages; a whole number. Shape (...).

    Returns:
        The critical eta zeta^2 / 2, in units of y over x. Shape: broadcast.

    Valid: eta -> 0; `neuron_boundary` at any step.
    Raises: ValueError as `neuron_exponents`, or if every x is zero.
    Source: arXiv:2306.04251 [paper], for B = 1 and a positive sum.
    Checked: `neuron_exponents` is zero there; simulation `sims.stochastic_collapse.neuron_noise`.
    """
    positive(slope=slope)
    integer(1, batch=batch)
    x, y = _data(x, y, some=True)
    x, y, slope, B = with_one_dtype(x, y, slope, batch)
    signal, size, slope, B = together(jnp.abs(_mean_product(x, y)), _mean_product(x, x), slope, B)
    return B * signal / (slope * size)


def neuron_boundary(
    x: ArrayLike, y: ArrayLike, eta: ArrayLike, slope: ArrayLike = 1.0, batch: ArrayLike = 1
) -> Float[Array, "..."]:
    r"""Smallest label noise at which the origin attracts a scalar neuron under the full gradient, at any step size.

    .. math:: \min\{\zeta: E\ln|\mathcal N(1 + \eta\sigma'|C|,\ \eta^2\sigma'^2\zeta^2X_2/B)| \le 0\}

    Args:
        x: Inputs, not all zero. Shape (..., m).
        y: Targets. Shape (..., m).
        eta: Learning rate, positive. Shape (...).
        slope: sigma'(0), positive. Shape (...).
        batch: B, independent label draws that a step averages; a whole number. Shape (...).

    Returns:
        zeta, in units of y; nan where no noise suffices, eta sigma' |C| > 0.2780776. Shape: broadcast.

    Valid: exact near the origin for Gaussian labels.
    Raises: ValueError as `neuron_exponents`, or if every x is zero.
    Source: derived here.
    Checked: `neuron_exponents` is zero there; the limit eta -> 0 is `neuron_threshold`.
    """
    positive(eta=eta, slope=slope)
    x, y = _data(x, y, some=True)
    x, y, eta, slope = with_one_dtype(x, y, eta, slope)
    signal, size, eta, slope = together(jnp.abs(_mean_product(x, y)), _mean_product(x, x), eta, slope)
    return critical_noise(eta, -slope * signal, batch) / (slope * jnp.sqrt(size))


def _mean_product(x, y):
    return jnp.mean(x * y, -1)


def _data(x, y, some=False):
    """Inputs and targets of one shape (..., m)."""
    finite(x=x, y=y)
    if not np.ndim(x) or np.shape(x)[-1:] != np.shape(y)[-1:]:
        raise ValueError(f"`x` and `y` must have as many samples, but got shapes {np.shape(x)} and {np.shape(y)}.")
    x, y = together(x, y)
    if some and not traced(x):
        require(np.any(np.asarray(x) != 0, -1), "x", "nonzero in some sample", 0.0)
    return x, y
