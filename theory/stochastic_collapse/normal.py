r"""Several normal dimensions: growth of ln |z| along a direction, and the exponent on the circle of directions.

Near an invariant set the distance z follows :math:`dz = -Hz\,dt + \sum_a G_a z\,dW_a` (Ito), with d normal dimensions.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float
from scipy.special import ndtri

from theory.arguments import finite, require, traced, with_one_dtype
from theory.roots import mean_decay, safe_sqrt

ANGLES, SPREAD, ASCENTS, SQUARINGS, TAYLOR = 64, 32, 60, 40, 18
FAR = 80.0  # ratio of drift to diffusion from which a flux is upwind


def log_norm_drift(n: ArrayLike, H: ArrayLike, G: ArrayLike) -> Float[Array, "..."]:
    r"""Drift of ln |z| along a direction.

    .. math:: q(n) = -n^\top Hn + \tfrac12\sum_a |G_an|^2 - \sum_a (n^\top G_an)^2

    Args:
        n: A direction, of any length but 0. Shape (..., d).
        H: Mean curvature of the normal dimensions, in 1 / t. Shape (..., d, d).
        G: Matrices of the noise, one a Wiener process, in t^(-1/2). Shape (..., a, d, d).

    Returns:
        q, in 1 / t. Shape (...).

    Valid: Ito noise; d = 1 is `lyapunov_exponent`.
    Raises: ValueError for n = 0, matrices that are not square, values that are not finite or shapes that do not match.
    Source: derived here: Ito on ln |z|.
    Checked: reference value; the mean growth of one small step; any length of n.
    """
    H, G, n = _given(H, G, n)
    if not traced(n):
        require(np.any(np.asarray(n) != 0, axis=-1), "n", "a direction", 0.0)
    return jnp.vectorize(_drift, signature="(d),(d,d),(a,d,d)->()")(_unit(n), H, G)


def largest_log_norm_drift(H: ArrayLike, G: ArrayLike) -> Float[Array, "..."]:
    r"""Largest drift of ln |z| over all directions, a bound of the exponent.

    .. math:: \Lambda \le \max_{|n| = 1} q(n)

    Args:
        H: Mean curvature, in 1 / t. Shape (..., d, d).
        G: Matrices of the noise. Shape (..., a, d, d).

    Returns:
        The maximum, in 1 / t. Shape (...).

    Valid: d = 2 exactly. In more dimensions the largest of many ascents, each along the best of whole great circles:
        a value that q does take, and so never above the maximum.
    Raises: ValueError as `log_norm_drift`.
    Source: derived here.
    Checked: the roots of the trigonometric polynomial (d = 2), dense random directions (d = 3, 4, 6), gradient.
    """
    return jnp.vectorize(_largest, signature="(d,d),(a,d,d)->()")(*_given(H, G))


def attractive_in_every_direction(H: ArrayLike, G: ArrayLike) -> Bool[Array, "..."]:
    r"""Whether ln |z| falls along every direction, which is sufficient for collapse.

    .. math:: \max_{|n| = 1} q(n) < 0

    Args:
        H: Mean curvature, in 1 / t. Shape (..., d, d).
        G: Matrices of the noise. Shape (..., a, d, d).

    Returns:
        True or false. Shape (...).

    Valid: sufficient, not necessary. False is certain; true is exact for d = 2, and for d > 2 as good as the search of
        `largest_log_norm_drift`.
    Raises: ValueError as `log_norm_drift`.
    Source: derived here.
    Checked: through `largest_log_norm_drift`; a collapsing system for which it is false.
    """
    return largest_log_norm_drift(H, G) < 0


def mean_square_exponent(H: ArrayLike, G: ArrayLike) -> Float[Array, "..."]:
    r"""Growth rate of the root of the mean square of z, not the criterion of collapse.

    .. math:: \tfrac12 \max\mathrm{Re}\,\mathrm{spec}\big(M \mapsto -HM - MH^\top + \textstyle\sum_a G_aMG_a^\top\big)
        \ge \Lambda

    Args:
        H: Mean curvature, in 1 / t. Shape (..., d, d).
        G: Matrices of the noise. Shape (..., a, d, d).

    Returns:
        The rate, in 1 / t. Shape (...).

    Valid: exact; the generator keeps covariances positive, so its top eigenvalue is real.
    Raises: ValueError as `log_norm_drift`.
    Source: Ito on z z^T.
    Checked: eigenvalues (1e-10); one dimension; above the exponent.
    """
    return jnp.vectorize(_mean_square, signature="(d,d),(a,d,d)->()")(*_given(H, G))


def top_exponent_2d(H: ArrayLike, G: ArrayLike, points: int = 512) -> Float[Array, "..."]:
    r"""Lyapunov exponent of two normal dimensions.

    .. math:: \Lambda = \int_0^\pi q(n_\varphi)\,\rho(\varphi)\,d\varphi, \qquad
        \partial_\varphi\big(b\rho - \tfrac12\partial_\varphi(V\rho)\big) = 0, \qquad
        b = -\tau^\top Hn - \sum_a (\tau^\top G_an)(n^\top G_an), \qquad V = \sum_a (\tau^\top G_an)^2

    with n = (cos phi, sin phi) and tau its derivative. Finite volumes with exponentially fitted flux, which is upwind
    where V vanishes, on `points` and on half as many cells, extrapolated to none.

    Args:
        H: Mean curvature, in 1 / t. Shape (..., 2, 2).
        G: Matrices of the noise. Shape (..., a, 2, 2).
        points: Cells of [0, pi), an even whole number.

    Returns:
        The exponent, in 1 / t. Shape (...).

    Valid: where the direction forgets its start: V > 0 somewhere between any two directions that the drift keeps.
        Error O(points^-4), or O(1 / points) where V vanishes or is below the drift over `points`.
    Raises: ValueError as `log_norm_drift`, or for other than two dimensions or an odd number of points.
    Source: Furstenberg and Khasminskii; the flux of Scharfetter and Gummel (1969).
    Checked: reference value; order in `points`; commuting noise; a rotating system; no noise; gradient.
    """
    H, G = _given(H, G)
    if H.shape[-1] != 2:
        raise ValueError(f"`H` must have shape (..., 2, 2), but got {H.shape}.")
    require(points >= 8 and points % 2 == 0, "points", "an even whole number not below 8", points)

    def exponent(H, G):
        coarse, fine = (_stationary_drift(H, G, count) for count in (points // 2, points))
        return (4 * fine - coarse) / 3

    return jnp.vectorize(exponent, signature="(d,d),(a,d,d)->()")(H, G)


def _given(H, G, n=None):
    """The matrices, and a direction, checked: of one dtype and broadcast against each other."""
    named = {"H": H, "G": G} | ({} if n is None else {"n": n})
    finite(**named)
    arrays = with_one_dtype(*named.values())
    H = arrays[0]
    if H.ndim < 2 or H.shape[-1] != H.shape[-2]:
        raise ValueError(f"`H` must be square matrices, but got shape {H.shape}.")
    d = H.shape[-1]
    wanted = {"H": (d, d), "G": ("a", d, d), "n": (d,)}
    for (name, x), inner in zip(zip(named, arrays, strict=True), list(wanted.values())[: len(arrays)], strict=True):
        if x.ndim < len(inner) or any(k not in ("a", m) for k, m in zip(inner, x.shape[-len(inner) :], strict=True)):
            words = ", ".join(map(str, inner))
            raise ValueError(f"`{name}` must have shape (..., {words}), but got {x.shape}.")
    inner = [x.shape[-len(wanted[name]) :] for name, x in zip(named, arrays, strict=True)]
    try:
        lead = np.broadcast_shapes(*(x.shape[: x.ndim - len(i)] for x, i in zip(arrays, inner, strict=True)))
    except ValueError:
        shapes = [x.shape for x in arrays]
        raise ValueError(f"The arguments' shapes do not broadcast: {shapes}.") from None
    return tuple(jnp.broadcast_to(x, lead + i) for x, i in zip(arrays, inner, strict=True))


def _unit(n):
    length = safe_sqrt(jnp.sum(n**2, -1, keepdims=True))
    return n / jnp.where(length > 0, length, 1.0)


def _drift(n, H, G):
    Gn = G @ n
    return -n @ (H @ n) + jnp.sum(Gn**2) / 2 - jnp.sum((Gn @ n) ** 2)


def _largest(H, G):
    d = H.shape[-1]

    def on_circle(theta, n, t):
        return _drift(jnp.cos(theta) * n + jnp.sin(theta) * t, H, G)

    slope = jax.grad(on_circle)
    curvature = jax.grad(slope)

    def climb(_, n):
        gradient = jax.grad(_drift)(n, H, G)
        rise = gradient - (gradient @ n) * n
        # At a critical point any great circle is as good: the one towards n turned by a quarter in two of its axes.
        other = jnp.roll(n, 1) * jnp.where(jnp.arange(d) == 0, -1, 1).astype(n.dtype)
        flat = rise @ rise <= (100 * jnp.finfo(n.dtype).eps) ** 2 * (gradient @ gradient)
        t = _unit(jnp.where(flat, other, rise))
        t = _unit(t - (t @ n) * n)
        angles = jnp.arange(ANGLES, dtype=n.dtype) * (jnp.pi / ANGLES)
        values = jax.vmap(on_circle, (0, None, None))(angles, n, t)
        theta = angles[jnp.argmax(values)]
        for _ in range(3):
            bend = curvature(theta, n, t)
            theta = theta - jnp.where(bend < 0, slope(theta, n, t) / jnp.where(bend < 0, bend, 1.0), 0.0)
        theta = jnp.where(on_circle(theta, n, t) > jnp.max(values), theta, angles[jnp.argmax(values)])
        return _unit(jnp.cos(theta) * n + jnp.sin(theta) * t)

    starts = jnp.asarray(_directions(d), H.dtype)
    rounds = 2 if d == 2 else ASCENTS
    ends = jax.vmap(lambda n: jax.lax.fori_loop(0, rounds, climb, n))(starts)
    return jnp.max(jax.vmap(_drift, (0, None, None))(jax.lax.stop_gradient(ends), H, G))


def _directions(d):
    """The axes, and directions spread over the sphere: normal quantiles of a lattice that fills the cube evenly."""
    if d <= 2:
        return np.eye(d)[:1]
    ratio = 2.0
    for _ in range(50):  # the root of x^(d + 1) = x + 1
        ratio = (1 + ratio) ** (1 / (d + 1))
    lattice = (0.5 + np.outer(np.arange(1, SPREAD + 1), ratio ** -np.arange(1.0, d + 1))) % 1
    spread = ndtri(lattice)
    return np.concatenate([np.eye(d), spread / np.linalg.norm(spread, axis=1, keepdims=True)])


def _mean_square(H, G):
    d = H.shape[-1]
    one = jnp.eye(d, dtype=H.dtype)
    generator = -jnp.kron(H, one) - jnp.kron(one, H) + sum(jnp.kron(g, g) for g in G)
    scale = jnp.sqrt(jnp.sum(generator**2))
    scale = jnp.where(scale > 0, scale, 1.0)

    def square(_, state):
        power, log = state
        size = jnp.sqrt(jnp.sum(power**2))
        power = power / size
        return power @ power, 2 * (log + jnp.log(size))

    one = jnp.eye(d * d, dtype=H.dtype)
    step = one  # the exponential of the generator over its size
    for k in range(TAYLOR, 0, -1):
        step = one + generator @ step / (scale * k)
    power, log = jax.lax.fori_loop(0, SQUARINGS, square, (step, jnp.zeros((), H.dtype)))
    return scale * (log + jnp.log(jnp.sqrt(jnp.sum(power**2)))) / 2.0 ** (SQUARINGS + 1)


def _stationary_drift(H, G, points):
    h = jnp.pi / points
    centres = h * jnp.arange(points, dtype=H.dtype)

    def direction(phi):
        return jnp.stack([jnp.cos(phi), jnp.sin(phi)]), jnp.stack([-jnp.sin(phi), jnp.cos(phi)])

    def across(phi):
        """Half of V, and the drift of the flux b rho - (V rho)' / 2 once V' is taken from it."""
        n, tau = direction(phi)
        turn = G @ n @ tau
        return jnp.sum(turn**2) / 2, -tau @ (H @ n) - jnp.sum(turn * (G @ tau @ tau))

    D, drift = jax.vmap(across)(centres + h / 2)
    # Where nothing turns the direction every density is stationary: a trace of diffusion chooses the uniform one.
    scale = jnp.sum(jnp.abs(H)) + jnp.sum(G**2)
    D = D + 100 * jnp.finfo(D.dtype).eps * jnp.where(scale > 0, scale, 1.0)
    # Rates to the right and to the left: (D / h^2) B(-+w) with w = h drift / D and B(w) = w / (e^w - 1).
    w = jnp.minimum(jnp.abs(drift) * h / D, FAR)
    diffusion = D * jnp.exp(-w) / mean_decay(w)
    right, left = (diffusion + h * jnp.maximum(x, 0.0) for x in (drift, -drift))
    left = jnp.roll(left, 1)
    generator = jnp.roll(jnp.diag(right), 1, 0) + jnp.roll(jnp.diag(left), -1, 0) - jnp.diag(right + left)
    # One balance follows from the others; in its place the whole mass is 1.
    rho = jnp.linalg.solve(generator.at[0].set(1.0), jnp.zeros(points, H.dtype).at[0].set(1.0))
    return rho @ jax.vmap(lambda phi: _drift(direction(phi)[0], H, G))(centres)
