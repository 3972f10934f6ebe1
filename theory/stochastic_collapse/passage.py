r"""When the quartic double well collapses: the share that has, the mean first passage, and the solution path by path.

In :math:`x = \ln|\theta|` the well ends in a wall near :math:`\ln\sqrt\mu`, below which x is Brownian motion of
variance zeta^2 and drift :math:`\Lambda = \mu - \zeta^2/2`.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import finite, nonnegative, positive, require, together, traced, with_one_dtype
from theory.roots import safe_sqrt
from theory.stochastic_collapse.fokker_planck import CELLS, STEPS, fokker_planck, lowest_log

METHODS = ("fokker_planck", "reflected")
NODES = 2048
# Of the exponential integral: z^19 ... z^0 of its series below 1, depth of its continued fraction above.
SERIES = [(-1) ** n / (n * math.factorial(n)) for n in range(20, 0, -1)]
LEVELS = 80
OVERSHOOT = 0.5825971579390107  # of a Gaussian walk, in standard deviations of a step: -zeta(1/2) / sqrt(2 pi)
MARGIN = 10.0  # from the level to the lower wall, in ln |theta|


def collapse_fraction(
    t: ArrayLike,
    eps: ArrayLike,
    mu: ArrayLike,
    zeta: ArrayLike,
    theta0: ArrayLike | None = None,
    *,
    method: str = "fokker_planck",
    start: str = "point",
    cells: int = CELLS,
    steps: int = STEPS,
) -> Float[Array, "..."]:
    r"""Probability that the quartic double well has come closer to 0 than eps.

    .. math:: F(t) = P(|\theta_t| < \epsilon)

    by the Fokker-Planck equation, or, from the closed form of a hard wall at :math:`\sqrt\mu`, where it then starts:

    .. math:: F(t) = \Phi\Big(\frac{-X + \nu t}{\zeta\sqrt t}\Big)
        + e^{2\nu X/\zeta^2}\,\Phi\Big(\frac{-X - \nu t}{\zeta\sqrt t}\Big), \qquad
        X = \ln\frac{\sqrt\mu}\epsilon, \quad \nu = \frac{\zeta^2}2 - \mu

    Args:
        t: Time eta k, zero or positive, finite. Shape (...).
        eps: The distance, positive, below the start. Shape (...).
        mu: Curvature of the saddle at 0, in units of 1 / t; positive for the hard wall and the default start.
            Shape (...).
        zeta: Noise amplitude, positive, in units of t^(-1/2). Shape (...).
        theta0: |theta| at time 0, positive; sqrt(mu) by default. With a normal start its root mean square.
            Shape (...).
        method: "fokker_planck", or "reflected" for the hard wall, which ignores `theta0` and `start`.
        start: "point" or "normal", as in `fokker_planck`.
        cells: As in `fokker_planck`.
        steps: As in `fokker_planck`.

    Returns:
        The probability. Shape: broadcast.

    Valid: Fokker-Planck as stated there (1e-4); the hard wall up to an O(1) shift of X, a relative error that vanishes
        as eps -> 0.
    Raises: ValueError for another method, eps that is not below the start, and as `fokker_planck`.
    Source: derived here.
    Checked: mpmath for the hard wall (1e-10, critical and on both sides); reference values; the hard wall approaches
        Fokker-Planck as eps -> 0; finer cells and steps (1e-4); simulation `sims.stochastic_collapse.quartic`.
    """
    if method not in METHODS:
        raise ValueError(f"`method` must be one of {', '.join(METHODS)}, but got {method}.")
    reflected = method == "reflected"
    nonnegative(t=t)
    positive(eps=eps, zeta=zeta)
    if reflected or theta0 is None:
        positive(mu=mu)
    finite(t=t, mu=mu, zeta=zeta)
    if reflected or theta0 is None:
        theta0 = jnp.sqrt(with_one_dtype(mu)[0])
    positive(theta0=theta0)
    finite(theta0=theta0)
    if not traced(eps, theta0) and (reflected or start == "point"):
        require(np.asarray(eps) < np.asarray(theta0), "eps", "below the start", eps)
    t, eps, mu, zeta, theta0 = together(t, eps, mu, zeta, theta0)
    if reflected:
        return _reflected(t, eps, mu, zeta)
    level = jnp.log(eps)
    lowest = jnp.minimum(lowest_log(t, theta0, mu, zeta, start=start), level - MARGIN)
    x, mass = fokker_planck(t, theta0, mu, zeta, start=start, lowest=lowest, cells=cells, steps=steps)
    # Up to the right edge of a cell: centres would count half a cell too little.
    h = (x[..., -1] - x[..., 0]) / (cells - 1)
    place = (level - lowest) / h
    whole = jnp.clip(jnp.floor(place).astype(jnp.int32), 0, cells - 1)
    at = whole[..., None]
    here = jnp.take_along_axis(mass, at, -1)[..., 0]
    upto = jnp.take_along_axis(jnp.cumsum(mass, -1), at, -1)[..., 0]
    return upto - here * jnp.clip(1 + whole.astype(place.dtype) - place, 0.0, 1.0)


def _reflected(t, eps, mu, zeta):
    X, nu = jnp.log(mu) / 2 - jnp.log(eps), zeta**2 / 2 - mu
    spread = zeta * safe_sqrt(t)
    begun = spread > 0
    spread = jnp.where(begun, spread, 1.0)
    straight = jnp.exp(log_ndtr((nu * t - X) / spread))
    # The factor overflows where the normal tail underflows: their logarithms do not.
    mirrored = jnp.exp(2 * nu * X / zeta**2 + log_ndtr((-X - nu * t) / spread))
    return jnp.where(begun, straight + mirrored, 0.0)


def mean_first_passage(
    eps: ArrayLike, theta0: ArrayLike, mu: ArrayLike, zeta: ArrayLike, *, seen_every: ArrayLike = 0.0
) -> Float[Array, "..."]:
    r"""Mean time at which the quartic double well is first as close to 0 as eps.

    .. math:: T = \frac2{\zeta^2}\int_{\ln\epsilon}^{\ln\theta_0} dx\; e^{-ax + e^{2x}/\zeta^2}
        \int_x^\infty e^{au - e^{2u}/\zeta^2}\,du, \qquad a = \frac{2\mu}{\zeta^2} - 1

    With u = x + y/2 and the integral over x done first, one smooth integral is left for every a:

    .. math:: T = \frac1{2\zeta^2}\int_0^\infty e^{ay/2}\Big[E_1\Big(\frac{\epsilon^2}{\zeta^2}(e^y - 1)\Big)
        - E_1\Big(\frac{\theta_0^2}{\zeta^2}(e^y - 1)\Big)\Big]\,dy, \qquad e^y = 1 + e^r

    Args:
        eps: The distance, positive, below theta0. Shape (...).
        theta0: |theta| at time 0, positive. Shape (...).
        mu: Curvature of the saddle at 0, in units of 1 / t; any sign. Shape (...).
        zeta: Noise amplitude, positive, in units of t^(-1/2). Shape (...).
        seen_every: Interval dt at which theta is looked at, zero or positive: the level is then as if lower by the
            mean overshoot of a Gaussian walk, :math:`\ln\epsilon \to \ln\epsilon - 0.5826\,\zeta\sqrt{dt}`.
            Shape (...).

    Returns:
        The time eta k; for eps -> 0 it grows as :math:`\ln(1/\epsilon)/|\Lambda|` if collapsed,
        :math:`\ln^2\epsilon/\zeta^2` if critical, :math:`\epsilon^{-a}` otherwise. Shape: broadcast.

    Valid: the stochastic differential equation; seen every dt, to O(dt).
    Raises: ValueError for eps that is not below theta0, arguments that are not positive or finite (concrete values
        only).
    Source: derived here from the scale function and the speed measure.
    Checked: mpmath of the double integral in all three phases (1e-10), reference values, the differential equation
        in theta0 through automatic derivatives, the three limits; simulation `sims.stochastic_collapse.passage`,
        also for the order in dt.
    """
    positive(eps=eps, theta0=theta0, zeta=zeta)
    nonnegative(seen_every=seen_every)
    finite(theta0=theta0, mu=mu, zeta=zeta, seen_every=seen_every)
    if not traced(eps, theta0):
        require(np.asarray(eps) < np.asarray(theta0), "eps", "below theta0", eps)
    eps, theta0, mu, zeta, dt = together(eps, theta0, mu, zeta, seen_every)
    level = jnp.log(eps) - OVERSHOOT * zeta * safe_sqrt(dt)
    return jnp.vectorize(_passage, signature="(),(),(),()->()")(level, jnp.log(theta0), mu, zeta)


def _passage(level, start, mu, zeta):
    half = mu / zeta**2 - 0.5
    near, far = (2 * (x - jnp.log(zeta)) for x in (level, start))
    # From where dy = 0 to where the exponential integral has died, also of a growing power.
    power = jnp.maximum(half, 0.0)
    first = -40 - jnp.maximum(far, 0.0)
    last = jnp.log(50 + power + 10 * safe_sqrt(power)) - near
    r = jnp.linspace(first, last, NODES)
    gap = exponential_integral(r + near) - exponential_integral(r + far)
    present = gap > 0
    log = half * jax.nn.softplus(r) + jax.nn.log_sigmoid(r) + jnp.log(jnp.where(present, gap, 1.0))
    # The integrand is analytic and dies at both ends: the trapezoid rule is exact to rounding.
    return jnp.sum(jnp.where(present, jnp.exp(log), 0.0)) * (r[1] - r[0]) / (2 * zeta**2)


@jax.custom_jvp
def exponential_integral(log_z: Array) -> Array:
    r""":math:`E_1(z) = \int_z^\infty e^{-w}\,dw / w` from ln z: its series below 1, its continued fraction above."""
    small = log_z < 0
    z = jnp.exp(jnp.where(small, log_z, 0.0))
    series = z * jnp.polyval(jnp.asarray(SERIES, z.dtype), z)
    below = -float(np.euler_gamma) - jnp.where(small, log_z, 0.0) - series
    z = jnp.exp(jnp.where(small, 0.0, jnp.minimum(log_z, 7.0)))  # 0 from e^7 on

    def level(k, deeper):
        n = (LEVELS - k).astype(z.dtype)
        return n**2 / (z + 2 * n + 1 - deeper)

    fraction = jax.lax.fori_loop(0, LEVELS, level, jnp.zeros_like(z))
    return jnp.where(small, below, jnp.exp(-z) / (z + 1 - fraction))


@exponential_integral.defjvp
def _exponential_integral_jvp(primals, tangents):
    (log_z,), (tangent,) = primals, tangents
    return exponential_integral(log_z), -jnp.exp(-jnp.exp(jnp.minimum(log_z, 7.0))) * tangent


def quartic_path(
    theta0: ArrayLike, wiener: ArrayLike, times: ArrayLike, mu: ArrayLike, zeta: ArrayLike
) -> Float[Array, "... times"]:
    r"""Logarithm of |theta| along one Wiener path, exactly.

    .. math:: \theta_t^2 = \frac{\theta_0^2 M_t}{1 + 2\theta_0^2\int_0^t M_s\,ds}, \qquad
        M_t = e^{(2\mu - \zeta^2)\,t + 2\zeta W_t}

    Args:
        theta0: |theta| at time 0, positive. Shape (...).
        wiener: W at the times, 0 at time 0; in units of t^(1/2). Shape (..., times).
        times: Rising times from 0 on. Shape (times,).
        mu: Curvature of the saddle at 0; any sign. Shape (...).
        zeta: Noise amplitude, zero or positive. Shape (...).

    Returns:
        ln |theta| at the times. Shape (..., times).

    Valid: exact but for the integral, which is the trapezoid sum of the times: error O(spacing) along a path,
        O(spacing^2) without noise.
    Raises: ValueError for theta0 that is not positive, zeta < 0, times that do not rise from 0, or shapes that do not
        match (concrete values only).
    Source: derived here: a Riccati equation in 1 / theta^2.
    Checked: the logistic curve at zeta = 0 (order 2), direct sums, float32 where theta itself
        underflows; simulation `sims.stochastic_collapse.quartic_path`.
    """
    positive(theta0=theta0)
    nonnegative(zeta=zeta)
    finite(theta0=theta0, wiener=wiener, mu=mu, zeta=zeta)
    theta0, wiener, times, mu, zeta = with_one_dtype(theta0, wiener, times, mu, zeta)
    if times.ndim != 1 or wiener.shape[-1:] != times.shape:
        raise ValueError(f"`wiener` must end with the shape of the times, {times.shape}, but got {wiener.shape}.")
    if not traced(times):
        require(np.asarray(times)[:1] == 0, "times", "0 at first", times[:1])
        require(np.diff(times) > 0, "times", "rising", times[1:])
    theta0, mu, zeta = (v[..., None] for v in (theta0, mu, zeta))
    shape = np.broadcast_shapes(theta0.shape, mu.shape, zeta.shape, wiener.shape)
    theta0, mu, zeta, wiener = (jnp.broadcast_to(v, shape) for v in (theta0, mu, zeta, wiener))
    log_m = (2 * mu - zeta**2) * jnp.broadcast_to(times, shape) + 2 * zeta * wiener
    spacing = jnp.log(jnp.broadcast_to(jnp.diff(times), (*shape[:-1], shape[-1] - 1)) / 2)
    area = jnp.logaddexp(log_m[..., 1:], log_m[..., :-1]) + spacing
    area = jax.lax.cumlogsumexp(area, axis=area.ndim - 1)
    area = jnp.concatenate([jnp.full_like(area[..., :1], -jnp.inf), area], -1)
    start = jnp.log(theta0)
    return start + log_m / 2 - jax.nn.softplus(math.log(2) + 2 * start + area) / 2
