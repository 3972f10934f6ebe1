r"""Heavy-ball SGD on ridge regression with a finite data set: exact first and second moments.

Data are rows u of X with labels y; :math:`L = \frac1{2N}|X\theta - y|^2 + \frac\lambda2|\theta|^2` with optimum
:math:`\hat\theta`, residuals :math:`r = X\hat\theta - y`, position :math:`x = \theta - \hat\theta`, step w,
:math:`z = (x, w)`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import (
    below_one,
    finite,
    integer,
    nonnegative,
    number,
    positive,
    require,
    traced,
    with_one_dtype,
)
from theory.oscillator import impulse_response, relaxation
from theory.sampling import minibatch_variance


class MinibatchMoments(NamedTuple):
    """Optimum, and mean and second moment of (x, w) at steps 0, 1, ..., K."""

    optimum: Float[Array, " d"]
    mean: Float[Array, "steps 2*d"]
    second: Float[Array, "steps 2*d 2*d"]


class Stationary(NamedTuple):
    """Optimum, and stationary covariance of (x, w)."""

    optimum: Float[Array, " d"]
    covariance: Float[Array, "2*d 2*d"]


class Regression(NamedTuple):
    """A data set about its optimum: inputs, residuals, curvature H = X^T X / N and mean gradient without the decay."""

    X: Array
    residuals: Array
    H: Array
    gradient: Array


def minibatch_moments(
    X: ArrayLike,
    y: ArrayLike,
    eta: ArrayLike,
    beta: ArrayLike,
    batch: ArrayLike,
    steps: int,
    weight_decay: ArrayLike = 0.0,
    theta0: ArrayLike | None = None,
    replace: bool = True,
) -> MinibatchMoments:
    r"""Mean and second moment of position and step, step by step.

    .. math:: m' = Fm, \qquad M' = FMF^\top + \eta^2 \begin{pmatrix} C & C \\ C & C \end{pmatrix}, \qquad
        F = \begin{pmatrix} I - \eta(H + \lambda I) & \beta I \\ -\eta(H + \lambda I) & \beta I \end{pmatrix}

    with the covariance C of the batch gradient given the state, averaged over it,

    .. math:: C = c\,\Big(\frac1N\sum_i u_i u_i^\top\big(u_i^\top M_{xx} u_i + 2 r_i u_i^\top m_x + r_i^2\big)
        - E[\bar g\bar g^\top]\Big), \qquad \bar g = Hx + \frac1N X^\top r

    and c = `minibatch_variance`.

    Args:
        X: Inputs. Shape (N, d).
        y: Labels. Shape (N,).
        eta: Learning rate, positive, in units of 1 / H. A number.
        beta: Momentum, from 0 to below 1; dimensionless. A number.
        batch: Samples S of a batch, a whole number from 1. A number.
        steps: Number of steps K, fixed.
        weight_decay: lambda, zero or positive, in units of H. A number.
        theta0: Start, at rest; the origin if None. Shape (d,).
        replace: Whether a batch is drawn with replacement. Batches are independent either way.

    Returns:
        `MinibatchMoments(optimum, mean, second)`: theta_hat; E z, shape (K + 1, 2 d); E z z^T, not centred, shape
        (K + 1, 2 d, 2 d).

    Valid: exact at every step size. Not for shuffled epochs, whose batches depend on each other.
    Raises: ValueError for shapes that do not match, a rate that is not positive, beta outside [0, 1), a batch that is
        no whole number from 1 or, without replacement, above N, lambda < 0, or an optimum that is not unique (concrete
        values only).
    Source: derived here.
    Checked: enumeration of all batch sequences, with and without replacement (1e-13); reference values; float32;
        gradients; simulation `sims.sgd_limit.finite_data`.
    """
    X, y, eta, beta, batch, decay = _given(X, y, eta, beta, batch, weight_decay)
    optimum, data = _about_optimum(X, y, decay)
    d, share = len(optimum), _share(batch, data, replace)
    start = jnp.zeros_like(optimum) if theta0 is None else jnp.asarray(theta0, optimum.dtype)
    if start.shape != (d,):
        raise ValueError(f"`theta0` must have shape ({d},), but got {start.shape}.")
    F = step_matrix(data.H, eta, beta, decay)

    def step(moments, _):
        m, M = moments
        C = share * _noise(data, m[:d], M[:d, :d])
        moments = F @ m, F @ M @ F.T + eta**2 * jnp.tile(C, (2, 2))
        return moments, moments

    z = jnp.concatenate([start - optimum, jnp.zeros_like(start)])
    first = z, z[:, None] * z[None, :]
    _, path = jax.lax.scan(step, first, length=steps)
    return MinibatchMoments(optimum, *(jnp.concatenate([a[None], b]) for a, b in zip(first, path, strict=True)))


def minibatch_stationary(
    X: ArrayLike,
    y: ArrayLike,
    eta: ArrayLike,
    beta: ArrayLike,
    batch: ArrayLike,
    weight_decay: ArrayLike = 0.0,
    replace: bool = True,
) -> Stationary:
    r"""Stationary covariance of position and step.

    In the eigenbasis of H, :math:`p_l = \eta(\rho_l + \lambda)`,

    .. math:: \mathrm{Cov}(x_l, x_m) = \frac{\eta^2 (1 - \beta^2)\,C_{lm}}
        {(1 - \beta)^2[(1 + \beta)(p_l + p_m) - p_l p_m] + \beta(p_l - p_m)^2}

    .. math:: \mathrm{Cov}(w_l, w_m) = \frac{p_l + p_m}{1 + \beta}\,\mathrm{Cov}(x_l, x_m), \qquad
        \mathrm{Cov}(x_l, w_m) = \frac{p_l - \beta p_m}{1 - \beta^2}\,\mathrm{Cov}(x_l, x_m)

    with C of `minibatch_moments`, which is linear in Cov(x, x): one linear solve.

    Args:
        X: Inputs. Shape (N, d).
        y: Labels. Shape (N,).
        eta: Learning rate, positive, in units of 1 / H. A number.
        beta: Momentum, from 0 to below 1; dimensionless. A number.
        batch: Samples S of a batch, a whole number from 1. A number.
        weight_decay: lambda, zero or positive, in units of H. A number.
        replace: Whether a batch is drawn with replacement.

    Returns:
        `Stationary(optimum, covariance)`; the covariance has shape (2 d, 2 d).

    Valid: exact where the second moments stay bounded; cost O(N d^4 + d^6), for small d. Traced arguments pass
        unchecked, and a covariance that is not positive means that there is none.
    Raises: ValueError as `minibatch_moments`, or where unstable in mean square (concrete values only).
    Source: derived here.
    Checked: 3000 steps of `minibatch_moments` (1e-12), with and without replacement, momentum and decay; float32;
        gradients; simulation `sims.sgd_limit.regression`.
    """
    X, y, eta, beta, batch, decay = _given(X, y, eta, beta, batch, weight_decay)
    optimum, data = _about_optimum(X, y, decay)
    modes = _modes(data, eta, beta, _share(batch, data, replace), decay)
    V = modes.vectors
    blocks = [[modes.xx, modes.xw], [modes.xw.T, modes.ww]]
    return Stationary(optimum, jnp.block([[V @ block @ V.T for block in row] for row in blocks]))


def minibatch_autocovariance(
    lags: ArrayLike,
    X: ArrayLike,
    y: ArrayLike,
    eta: ArrayLike,
    beta: ArrayLike,
    batch: ArrayLike,
    weight_decay: ArrayLike = 0.0,
    replace: bool = True,
) -> Float[Array, "... d"]:
    r"""Stationary autocovariance of the position along every eigenvector of H.

    .. math:: E[x_l(j + k)\,x_l(j)] = R_l(k)\,\mathrm{Var}\,x_l + \beta\,G_l(k)\,\mathrm{Cov}(x_l, w_l)

    with `relaxation` R and `impulse_response` G of the damped oscillator: the noise of later batches has mean zero
    whatever the state. The displacement is :math:`E|x(j + k) - x(j)|^2 = 2\sum_l [\gamma_l(0) - \gamma_l(k)]`.

    Args:
        lags: k in steps, whole numbers from 0. Shape (...).
        X: Inputs. Shape (N, d).
        y: Labels. Shape (N,).
        eta: Learning rate, positive, in units of 1 / H. A number.
        beta: Momentum, from 0 to below 1; dimensionless. A number.
        batch: Samples S of a batch, a whole number from 1. A number.
        weight_decay: lambda, zero or positive, in units of H. A number.
        replace: Whether a batch is drawn with replacement.

    Returns:
        gamma_l(k), the eigenvalues of H rising. Shape (..., d).

    Valid: exact where the second moments stay bounded.
    Raises: ValueError as `minibatch_stationary`, or for lags that are no whole numbers from 0.
    Source: derived here.
    Checked: powers of F on the stationary covariance (1e-12); simulation `sims.sgd_limit.regression`.
    """
    integer(0, lags=lags)
    X, y, eta, beta, batch, decay = _given(X, y, eta, beta, batch, weight_decay)
    _, data = _about_optimum(X, y, decay)
    modes = _modes(data, eta, beta, _share(batch, data, replace), decay)
    lags = jnp.asarray(lags, X.dtype)[..., None]
    pull = jnp.broadcast_to(eta * (modes.spectrum + decay), (*lags.shape[:-1], len(modes.spectrum)))
    rest, push = relaxation(lags, beta, pull), impulse_response(lags, beta, pull)
    variance, covariance = (jnp.broadcast_to(jnp.diag(x), pull.shape) for x in (modes.xx, modes.xw))
    return rest * variance + beta * push * covariance


class Modes(NamedTuple):
    """Eigenvalues and eigenvectors of H, and the blocks of the stationary covariance between them."""

    spectrum: Array
    vectors: Array
    xx: Array
    xw: Array
    ww: Array


def _modes(data: Regression, eta, beta, share, decay) -> Modes:
    """The stationary covariance in the eigenbasis of H, where the noise's covariance alone is unknown."""
    d = len(data.H)
    spectrum, V = jnp.linalg.eigh(data.H)
    U = data.X @ V
    data = Regression(U, data.residuals, jnp.diag(spectrum), data.gradient @ V)
    p, q = eta * (spectrum[:, None] + decay), eta * (spectrum[None, :] + decay)
    denominator = (1 - beta) ** 2 * ((1 + beta) * (p + q) - p * q) + beta * (p - q) ** 2
    gain = eta**2 * (1 - beta**2) / denominator

    pairs = (U[:, :, None] * U[:, None, :]).reshape(len(U), d * d)
    fed = pairs.T @ pairs / len(U) - jnp.kron(data.H, data.H)
    fed = share * fed * gain.reshape(1, -1)  # what a covariance C of the noise adds to itself
    if not traced(fed):
        require(jnp.max(p) < 2 * (1 + beta), "eta", "below 2 (1 + beta) / (rho + lambda)", eta)
        radius = np.abs(np.linalg.eigvals(np.asarray(fed))).max()
        require(radius < 1, "eta", "small enough for the second moments to stay bounded", eta)
    at_rest = share * _noise(data, jnp.zeros_like(spectrum), jnp.zeros_like(data.H))
    C = jnp.linalg.solve(jnp.eye(d * d, dtype=fed.dtype) - fed, at_rest.reshape(-1)).reshape(d, d)
    xx = gain * (C + C.T) / 2
    return Modes(spectrum, V, xx, (p - beta * q) / (1 - beta**2) * xx, (p + q) / (1 + beta) * xx)


def step_matrix(H: Array, eta: Array, beta: Array, weight_decay: Array) -> Float[Array, "2*d 2*d"]:
    """F, which takes the mean of (x, w) one step further."""
    identity = jnp.eye(len(H), dtype=H.dtype)
    pull = eta * (H + weight_decay * identity)
    return jnp.block([[identity - pull, beta * identity], [-pull, beta * identity]])


def _noise(data: Regression, m, M):
    """Covariance of one sample's gradient, for mean m and second moment M of the position."""
    X, r, H, g = data
    squares = jnp.sum((X @ M) * X, 1) + 2 * r * (X @ m) + r**2
    mixed = (H @ m)[:, None] * g[None, :]
    return (X.T * squares[None, :]) @ X / len(X) - H @ M @ H - mixed - mixed.T - g[:, None] * g[None, :]


def _about_optimum(X, y, decay):
    """The ridge optimum, and the data set about it."""
    H = X.T @ X / len(X)
    ridge = H + decay * jnp.eye(X.shape[1], dtype=X.dtype)
    if not traced(ridge):
        least, most = np.linalg.eigvalsh(np.asarray(ridge))[[0, -1]]
        require(least > 10 * len(ridge) * np.finfo(ridge.dtype).eps * most, "weight_decay", "positive where the inputs "
                "do not span all dimensions", decay)  # fmt: skip
    optimum = jnp.linalg.solve(ridge, X.T @ y / len(X))
    residuals = X @ optimum - y
    return optimum, Regression(X, residuals, H, X.T @ residuals / len(X))


def _share(batch, data, replace):
    """Variance of the batch gradient over that of one sample's."""
    return minibatch_variance(batch, None if replace else len(data.X)).astype(data.X.dtype)


def _given(X, y, eta, beta, batch, decay):
    """Arguments in one dtype, checked."""
    shape = np.shape(X)
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"`X` must have shape (N, d), but got {shape}.")
    if np.shape(y) != shape[:1]:
        raise ValueError(f"`y` must have shape ({shape[0]},), but got {np.shape(y)}.")
    number(eta=eta, beta=beta, batch=batch, weight_decay=decay)
    finite(X=X, y=y)
    positive(eta=eta)
    below_one(beta=beta)
    integer(1, batch=batch)
    nonnegative(weight_decay=decay)
    return with_one_dtype(X, y, eta, beta, batch, decay)
