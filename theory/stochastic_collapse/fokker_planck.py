r"""The quartic double well at finite times: its Fokker-Planck equation in the logarithm of the distance.

:math:`d\theta = (\mu\theta - \theta^3)\,dt + \zeta\theta\,dW` is a particle in a potential of :math:`x = \ln|\theta|`,

.. math:: dx = (\Lambda - e^{2x})\,dt + \zeta\,dW, \qquad \Lambda = \mu - \zeta^2/2,

so that collapse is a drift to minus infinity, without underflow.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax.linalg import tridiagonal_solve
from jax.scipy.special import erf, ndtr
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import finite, nonnegative, positive, require, together, traced
from theory.roots import safe_sqrt

STARTS = ("point", "normal")
CELLS, STEPS = 2048, 200
WIDTH = 0.03  # standard deviation, in x, at which a point has become a Gaussian that the cells resolve


def fokker_planck(
    t: ArrayLike,
    theta0: ArrayLike,
    mu: ArrayLike,
    zeta: ArrayLike,
    *,
    start: str = "point",
    lowest: ArrayLike | None = None,
    highest: ArrayLike | None = None,
    cells: int = CELLS,
    steps: int = STEPS,
) -> tuple[Float[Array, "... cells"], Float[Array, "... cells"]]:
    r"""Law of ln |theta| in the quartic double well at a finite time.

    .. math:: \partial_t p = -\partial_x\Big[(\Lambda - e^{2x})\,p - \frac{\zeta^2}2\,\partial_x p\Big]

    on equal cells with walls at both ends; the means of any function f are sums :math:`\sum_i m_i f(x_i)`.

    Args:
        t: Time eta k, zero or positive, finite. Shape (...).
        theta0: |theta| at time 0, positive; with a normal start its root mean square. Shape (...).
        mu: Curvature of the saddle at 0, in units of 1 / t; any sign. Shape (...).
        zeta: Noise amplitude, positive, in units of t^(-1/2). Shape (...).
        start: "point", or "normal" for theta(0) normal with mean zero.
        lowest: Lower wall in x; `lowest_log` by default. Shape (...).
        highest: Upper wall in x; by default far above the well and the start. Shape (...).
        cells: Number of cells, fixed.
        steps: Number of time steps, fixed.

    Returns:
        (x, mass): centres of the cells, and the probability in each, of sum 1. Shapes (..., cells), the arguments
        broadcast.

    Valid: error O(cell^2) over the square of the law's width, and O(steps^-2): below 1e-4 in any probability at the
        default sizes while a cell is below a sixteenth of the width. The stationary law in the cells is exact. For
        mu <= 0 too, which always collapses.
    Raises: ValueError for t < 0, theta0 or zeta that is not positive, values that are not finite, another start, or a
        wall on the wrong side (concrete values only).
    Source: Scharfetter and Gummel (1969) for the fluxes; Alexander (1977) for the steps; derived here in x.
    Checked: Brownian motion with drift far below the well, the stationary law (1e-6), order 2 in cells and in steps,
        reference values (3e-5); simulation `sims.stochastic_collapse.quartic`.
    """
    nonnegative(t=t)
    positive(theta0=theta0, zeta=zeta)
    finite(t=t, theta0=theta0, mu=mu, zeta=zeta)
    if start not in STARTS:
        raise ValueError(f"`start` must be one of {', '.join(STARTS)}, but got {start}.")
    lowest = lowest_log(t, theta0, mu, zeta, start=start) if lowest is None else lowest
    highest = _highest(theta0, mu, zeta, start) if highest is None else highest
    if not traced(theta0, lowest, highest):
        require(np.asarray(lowest) < np.log(theta0), "lowest", "below ln(theta0)", lowest)
        require(np.asarray(highest) > np.log(theta0), "highest", "above ln(theta0)", highest)
    solve = functools.partial(_solve, normal=start == "normal", cells=cells, steps=steps)
    return jnp.vectorize(solve, signature="(),(),(),(),(),()->(n),(n)")(*together(t, theta0, mu, zeta, lowest, highest))


def lowest_log(
    t: ArrayLike, theta0: ArrayLike, mu: ArrayLike, zeta: ArrayLike, *, start: str = "point"
) -> Float[Array, "..."]:
    r"""Lower wall of `fokker_planck` that no path feels: seven standard deviations below the deterministic descent.

    .. math:: \ln\theta_0 - \tfrac12\ln(1 + 2\theta_0^2 t) - \max(-\Lambda, 0)\,t - 7\zeta\sqrt t - 1

    Where the law is stationary in the end, no further than its own tail of 1e-17 reaches, :math:`20\,\zeta^2/\Lambda`.

    Args:
        t: Time, zero or positive. Shape (...).
        theta0: |theta| at time 0, positive. Shape (...).
        mu: Curvature of the saddle at 0. Shape (...).
        zeta: Noise amplitude, positive. Shape (...).
        start: "point", or "normal", whose law reaches 15 lower.

    Returns:
        The wall, a value of ln |theta|. Shape: broadcast.

    Valid: any mu.
    Raises: nothing; `fokker_planck` checks.
    Source: derived here.
    Checked: through `fokker_planck` and `collapse_fraction`.
    """
    t, theta0, mu, zeta = together(t, theta0, mu, zeta)
    exponent = mu - zeta**2 / 2
    reach = 7 * zeta * safe_sqrt(t)
    live = exponent > 0
    reach = jnp.where(live, jnp.minimum(reach, 20 * zeta**2 / jnp.where(live, exponent, 1.0)), reach)
    fall = jnp.log(theta0) - jnp.log1p(2 * theta0**2 * t) / 2 - jnp.maximum(-exponent, 0.0) * t
    return fall - reach - (16.0 if start == "normal" else 1.0)


def _highest(theta0, mu, zeta, start):
    """Upper wall: above six noise amplitudes beyond the well, and above the start."""
    theta0, mu, zeta = together(theta0, mu, zeta)
    start = jnp.log(theta0) + (math.log(6) if start == "normal" else 0.3)
    return jnp.maximum(jnp.log(safe_sqrt(mu) + 6 * zeta), start)


def _solve(t, theta0, mu, zeta, lowest, highest, *, normal, cells, steps):
    h = (highest - lowest) / cells
    edges = lowest + h * jnp.arange(cells + 1, dtype=h.dtype)
    x = edges[:-1] + h / 2
    exponent, D = mu - zeta**2 / 2, zeta**2 / 2
    if normal:
        begin = jnp.zeros_like(t)
        below = erf(jnp.exp(edges) / theta0 / math.sqrt(2))
    else:
        # The law of the first instants: the cubic descent, and the noise on top of it.
        begin = jnp.minimum(t, (WIDTH / zeta) ** 2)
        centre = jnp.log(theta0) - jnp.log1p(2 * theta0**2 * begin) / 2 + exponent * begin
        spread = zeta * safe_sqrt(begin)
        below = ndtr((edges - centre) / jnp.where(spread > 0, spread, jnp.finfo(h.dtype).eps))
    # What the walls cut off stays in the last cell.
    mass = jnp.diff(below.at[0].set(0.0).at[-1].set(1.0))

    energy = (jnp.exp(2 * x) / 2 - exponent * x) / D
    rise = jnp.diff(energy)
    up, down = (D / h**2 * _bernoulli(r) for r in (rise, -rise))
    none = jnp.zeros(1, h.dtype)
    leaving = jnp.concatenate([up, none]) + jnp.concatenate([none, down])

    def implicit(mass, dt):
        """Mass after a backward Euler step; the fluxes between cells keep its sum."""
        lower, upper = jnp.concatenate([none, -dt * up]), jnp.concatenate([-dt * down, none])
        return tridiagonal_solve(lower, 1 + dt * leaving, upper, mass[:, None])[:, 0]

    root = math.sqrt(2)

    def step(mass, dt):
        # Alexander's two stages, of second order and damping every fast mode.
        dt = (1 - 1 / root) * dt
        return implicit((1 + root) * implicit(mass, dt) - root * mass, dt), None

    # Steps that grow as the root of time, as the width of the law does.
    k = jnp.arange(steps, dtype=h.dtype)
    return x, jax.lax.scan(step, mass, (t - begin) * (2 * k + 1) / steps**2)[0]


def _bernoulli(z: Array) -> Array:
    """z / (e^z - 1), safe at 0 and for every size of z."""
    small = jnp.abs(z) < 1e-3
    far = jnp.where(small, 1.0, z)
    return jnp.where(small, 1 - z / 2 + z**2 / 12, far / jnp.expm1(jnp.minimum(far, 80.0)))
