"""Where products of Gaussian factors collapse: the universal line, windows of learning rates, the critical noise."""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import finite, together, traced
from theory.roots import increasing_root
from theory.stochastic_collapse.products import discrete_exponent, elog_abs_normal, gaussian_steps

# The tip of the universal line: its ratio z = m / (s sqrt 2), and the largest mean m that noise collapses.
TIP_RATIO, TIP_MEAN = 0.924138873004591767, 1.278077587526103678
# The largest -mean_curvature sqrt(batch) / std_curvature that a step size collapses, and the length of the vector
# eta (mean_curvature, std_curvature / sqrt(batch)) at which it does.
STEEPEST, STEEPEST_REACH = 0.328187572897819244, 0.744377253179875124
FARTHEST = 2.5  # beyond the largest such length on the line


class CollapseWindow(NamedTuple):
    """Learning rates between which the origin attracts."""

    low: Float[Array, "..."]
    high: Float[Array, "..."]


def collapse_boundary(ratio: ArrayLike) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    r"""The universal line on which the exponent of Gaussian curvatures is zero.

    .. math:: s = \exp\Big[\tfrac12(\gamma_E + \ln 2) - \int_0^z 2\,\mathrm{Dawson}(u)\,du\Big], \qquad m = \sqrt2\,zs

    Args:
        ratio: z = m / (s sqrt 2), any sign; dimensionless. The tip is at 0.924. Shape (...).

    Returns:
        (-eta h-bar, eta sigma_h / sqrt(B)) = (m - 1, s). Two arrays of the argument's shape.

    Valid: everywhere; z -> inf is the limit of small steps.
    Raises: ValueError for a ratio that is not finite (concrete values only).
    Source: derived here.
    Checked: `discrete_exponent` is zero there (1e-14); the tip, m = 1 and m = 0 (mpmath).
    """
    finite(ratio=ratio)
    (z,) = together(ratio)
    s = jnp.exp(-elog_abs_normal(math.sqrt(2) * z, 1.0))
    # For a large z the mean is close to 1, and this is close to zero.
    log_m = -discrete_exponent(1.0, 0.0, 1 / (math.sqrt(2) * jnp.maximum(z, 1.0)))
    return jnp.where(z > 1, jnp.expm1(log_m), math.sqrt(2) * z * s - 1), s


def collapse_window(mean_curvature: ArrayLike, std_curvature: ArrayLike, batch: ArrayLike = 1) -> CollapseWindow | None:
    r"""Learning rates between which the origin attracts SGD on Gaussian curvatures.

    .. math:: \Lambda(\eta) < 0 \iff \eta_{lo} < \eta < \eta_{hi}, \qquad
        \eta_{lo} \approx \frac{2|\bar h|B}{\sigma_h^2} \text{ for } \bar h < 0, \text{ else } 0

    Args:
        mean_curvature: h-bar, any sign; per eta. Shape (...).
        std_curvature: sigma_h, zero or positive; per eta. Shape (...).
        batch: B, samples per step; a whole number. Shape (...).

    Returns:
        `CollapseWindow(low, high)`, in units of eta. Shape: broadcast. nan where no learning rate collapses, which is
        where -h-bar sqrt(B) / sigma_h > 0.3281876; None for single numbers then.

    Valid: independent batches.
    Raises: ValueError for a mean that is not finite, sigma_h < 0 or a batch that is not a whole number >= 1 (concrete
        values only).
    Source: derived here.
    Checked: reference values; `discrete_exponent` is zero at both ends (1e-14), its sign beside them; gradients.
    """
    _, h, spread = gaussian_steps(1.0, mean_curvature, std_curvature, batch)
    some = jnp.where(h < 0, -h < STEEPEST * spread, (h > 0) | (spread > 0))
    reach = jnp.where(some, jnp.hypot(jnp.where(some, h, 1.0), spread), 1.0)
    # Where there is no window the roots of h-bar = 0 are sought.
    h, spread = jnp.where(some, h / reach, 0.0), jnp.where(some, spread / reach, 1.0)
    tip = jnp.full_like(reach, STEEPEST_REACH)
    high = increasing_root(lambda t: discrete_exponent(t, h, spread), tip, jnp.full_like(reach, FARTHEST))

    falling = h < 0
    h, spread = jnp.where(falling, h, -0.2), jnp.where(falling, spread, 1.0)
    low = increasing_root(lambda t: -discrete_exponent(t, h, spread), -1.5 * h / spread**2, tip)
    window = (jnp.where(some, t, jnp.nan) / reach for t in (jnp.where(falling, low, 0.0), high))
    return None if not some.ndim and not traced(some) and not some else CollapseWindow(*window)


def critical_noise(eta: ArrayLike, mean_curvature: ArrayLike, batch: ArrayLike = 1) -> Float[Array, "..."]:
    r"""Smallest spread of the curvatures at which the origin no longer repels SGD.

    .. math:: \min\{\sigma_h \ge 0: E\ln|\mathcal N(1 - \eta\bar h,\ \eta^2\sigma_h^2/B)| \le 0\}

    Args:
        eta: Learning rate, positive. Shape (...).
        mean_curvature: h-bar, any sign; per eta. Shape (...).
        batch: B, samples per step; a whole number. Shape (...).

    Returns:
        sigma_h, per eta; 0 where no noise is needed, nan where none suffices: |1 - eta h-bar| > 1.2780776. Shape:
        broadcast.

    Valid: Gaussian curvatures, independent batches.
    Raises: ValueError as `discrete_exponent`.
    Source: derived here.
    Checked: reference values; `discrete_exponent` is zero there (1e-14), its sign beside it; gradients.
    """
    eta, h, unit = gaussian_steps(eta, mean_curvature, 1.0, batch)
    # A step over the origin, to the other side of it, grows the distance as one away from it.
    growth = jnp.where(eta * h < 1, -eta * h, eta * h - 2)
    solved = (growth > 0) & (growth <= TIP_MEAN - 1)
    x = jnp.where(solved, growth, 0.1)
    low, high = (1 + x) * jnp.sqrt(jnp.log1p(x)), (1 + x) / (math.sqrt(2) * TIP_RATIO)
    root = increasing_root(lambda s: -discrete_exponent(1.0, -x, s), low, high) / (eta * unit)
    return jnp.where(solved, root, jnp.where(growth <= 0, 0.0, jnp.nan))
