"""Fine-tuning all layers of a pretrained linear network until it interpolates the target's data."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import (
    angle,
    depth_of_network,
    finite,
    nonnegative,
    positive,
    require,
    together,
    traced,
    with_one_dtype,
)
from theory.roots import newton, positive_root, safe_sqrt
from theory.transfer.scratch import noise_risk, scratch_risk


def fine_tuning_endpoint_scale(
    min_norm2: ArrayLike, orthogonal: ArrayLike, source_norm: ArrayLike = 1, depth: ArrayLike = 2
) -> Float[Array, "..."]:
    r"""Factor by which fine-tuning rescales what the data do not see, for one data set.

    .. math:: \hat\beta_{ft} = \hat\beta_{mn} + \kappa P_\perp \beta_s, \qquad
        \kappa = (N/B)^{1 - 1/L}, \qquad N^2 = g + h B^{2/L} N^{2 - 2/L}

    Args:
        min_norm2: g = |beta_mn|^2 of the minimum-norm interpolator, in units of y^2. Shape (...).
        orthogonal: h = |P_perp beta_s|^2 / B^2, from 0 to 1; dimensionless. Shape (...).
        source_norm: B = |beta_s|, positive, in units of y. Shape (...).
        depth: Number L of layers, from 1, or infinity; may be traced, which takes the generic
            solver for every depth. Shape (...).

    Returns:
        kappa, dimensionless; N = |beta_ft|. Shape: the arguments, broadcast.

    Valid: exact for every data set and every loss of X beta driven to interpolation, from a
        balanced rank-one start; relative error 1e-12 in float64 and 1e-5 in float32.
    Raises: ValueError for g < 0, h outside [0, 1], B not positive and finite, or depth not a whole
        number from 1 (concrete values only).
    Source: derived here; arXiv:2410.08194 has kappa = 1, exact for L = 1 and for sigma = 0, B = b.
    Checked: mpmath root (1e-12) for L = 1, 2, 3, 5, 10, 100, inf; flow of the real network (1e-7).
    """
    nonnegative(min_norm2=min_norm2, orthogonal=orthogonal)
    positive(source_norm=source_norm)
    finite(source_norm=source_norm, orthogonal=orthogonal)
    depth_of_network(depth)
    g, h, B = together(min_norm2, orthogonal, source_norm)
    if not traced(depth) and jnp.ndim(depth) == 0 and float(depth) in _CLOSED_FORMS:
        return _CLOSED_FORMS[float(depth)](g, h, B)
    g, h, B, depth = together(g, h, B, depth)
    return jnp.where(jnp.isinf(depth), _scale_infinite_depth(g, h, B), _scale_any_depth(g, h, B, depth))


def _scale_one_layer(g, h, B):
    return jnp.ones_like(g)


def _scale_two_layers(g, h, B):
    bounded = jnp.isfinite(g)
    N = positive_root(h * B, jnp.where(bounded, g, 1.0))
    return jnp.where(bounded, safe_sqrt(N / B), jnp.inf)


def _scale_infinite_depth(g, h, B):
    seen = 1 - h
    N = safe_sqrt(g / jnp.where(seen > 0, seen, 1.0))
    N_unseen = jnp.where(g > 0, jnp.inf, B)
    return jnp.where(seen > 0, N, N_unseen) / B


def _scale_any_depth(g, h, B, depth):
    """Root x = (N/B)^2 of x = G + h x^(1-p), p = 1/L.

    In y = log x it is log(G + h e^{(1-p) y}) = y, whose difference is convex and has slopes in
    [-1, -p]: Newton's method from a lower bound of y never overshoots.
    """
    bounded = jnp.isfinite(g)
    tiny = jnp.finfo(g.dtype).tiny
    p = jnp.where(jnp.isinf(depth), 0.5, 1 / depth)
    G = jnp.where(bounded, g, 1.0) / B**2
    log_G, log_h = jnp.log(jnp.maximum(G, tiny)), jnp.log(jnp.maximum(h, tiny))

    def excess(y):
        return jnp.logaddexp(log_G, log_h + (1 - p) * y) - y

    y = newton(excess, jnp.maximum(log_G, log_h / p), steps=20)
    x = jax.lax.stop_gradient(jnp.maximum(jnp.exp(y), tiny))
    # one exact step in x, whose derivatives stay finite where G or h vanish
    power = x ** (1 - p)
    slope = jax.lax.stop_gradient(1 - (1 - p) * h * power / x)
    x = x - (x - h * power - G) / slope
    return jnp.where(bounded, jnp.maximum(x, tiny) ** ((1 - p) / 2), jnp.inf)


_CLOSED_FORMS = {
    1.0: _scale_one_layer,
    2.0: _scale_two_layers,
    float("inf"): _scale_infinite_depth,
}


def fine_tuning_scale(
    gamma: ArrayLike,
    sigma: ArrayLike,
    source_norm: ArrayLike = 1,
    target_norm: ArrayLike = 1,
    depth: ArrayLike = 2,
) -> Float[Array, "..."]:
    r"""Factor by which fine-tuning rescales what the data do not see, for large data sets.

    .. math:: \kappa \text{ of } g = b^2 \gamma + \frac{\sigma^2 \gamma}{1 - \gamma},
        \quad h = 1 - \gamma \quad (\gamma < 1)

    Args:
        gamma: Samples per dimension n/d, positive; dimensionless. Shape (...).
        sigma: Standard deviation of the label noise, in units of y. Shape (...).
        source_norm: B = |beta_s|, positive, in units of y. Shape (...).
        target_norm: b = |beta_t|, positive, in units of y. Shape (...).
        depth: Number L of layers, from 1, or infinity. Shape (...).

    Returns:
        kappa, dimensionless; 1 if L = 1 or if sigma = 0 and B = b. For gamma > 1, where it
        multiplies nothing, its value at h = 0; inf at gamma = 1 with noise. Shape: broadcast.

    Valid: n, d -> infinity at fixed gamma, error O(1/d).
    Raises: ValueError as `scratch_risk` and `fine_tuning_endpoint_scale`.
    Source: derived here; arXiv:2410.08194 has kappa = 1.
    Checked: reference values, L = 1, 2, 3, infinity, gamma -> 0 and 1, per-data-set form.
    """
    positive(gamma=gamma, source_norm=source_norm, target_norm=target_norm)
    nonnegative(sigma=sigma)
    finite(sigma=sigma, source_norm=source_norm, target_norm=target_norm)
    g, h = seen_and_unseen(gamma, sigma, target_norm)
    return fine_tuning_endpoint_scale(g, h, source_norm, depth)


def seen_and_unseen(gamma, sigma, target_norm):
    """Large-size limits of g = |beta_mn|^2 and h = |P_perp u|^2."""
    gamma, sigma, b = together(gamma, sigma, target_norm)
    g = b**2 * jnp.minimum(gamma, 1.0) + noise_risk(gamma, sigma)
    return g, jnp.maximum(1 - gamma, 0.0)


def fine_tuning_risk(
    gamma: ArrayLike,
    theta: ArrayLike,
    sigma: ArrayLike,
    source_norm: ArrayLike = 1,
    target_norm: ArrayLike = 1,
    depth: ArrayLike = 2,
) -> Float[Array, "..."]:
    r"""Excess risk of fine-tuning all layers from pretrained weights.

    .. math:: R_{ft} = \begin{cases} (1 - \gamma)(b^2 + \kappa^2 B^2 - 2 \kappa B b \cos\theta)
        + \sigma^2 \gamma / (1 - \gamma) & \gamma < 1 \\ R_{sc} & \gamma > 1 \end{cases}

    Args:
        gamma: Samples per dimension n/d, positive; dimensionless. Shape (...).
        theta: Angle between source and target, in radians, from 0 to pi. Shape (...).
        sigma: Standard deviation of the label noise, in units of y. Shape (...).
        source_norm: B = |beta_s|, positive, in units of y. Shape (...).
        target_norm: b = |beta_t|, positive, in units of y. Shape (...).
        depth: Number L of layers, from 1, or infinity. Shape (...).

    Returns:
        |beta_hat - beta_t|^2, in units of y^2; inf at gamma = 1 with noise. Shape: broadcast.

    Valid: n, d -> infinity at fixed gamma, error O(1/d); balanced rank-one start.
    Raises: ValueError for theta outside [0, pi], and as `fine_tuning_scale`.
    Source: derived here; arXiv:2410.08194 has kappa = 1.
    Checked: reference values, mean of `fine_tuning_endpoint` over data, gradients.
    """
    angle(theta=theta)
    scratch = scratch_risk(gamma, sigma, target_norm)
    saved = fine_tuning_transferability(gamma, theta, sigma, source_norm, target_norm, depth)
    scratch, saved = together(scratch, saved)
    return scratch - saved


def fine_tuning_transferability(
    gamma: ArrayLike,
    theta: ArrayLike,
    sigma: ArrayLike,
    source_norm: ArrayLike = 1,
    target_norm: ArrayLike = 1,
    depth: ArrayLike = 2,
) -> Float[Array, "..."]:
    r"""Transferability of fine-tuning: the risk it saves against scratch training.

    .. math:: \mathcal T_{ft} = (1 - \gamma)_+ (2 \kappa B b \cos\theta - \kappa^2 B^2)

    Args:
        gamma: Samples per dimension n/d, positive; dimensionless. Shape (...).
        theta: Angle between source and target, in radians, from 0 to pi. Shape (...).
        sigma: Standard deviation of the label noise, in units of y. Shape (...).
        source_norm: B = |beta_s|, positive, in units of y. Shape (...).
        target_norm: b = |beta_t|, positive, in units of y. Shape (...).
        depth: Number L of layers, from 1, or infinity. Shape (...).

    Returns:
        Saved risk, in units of y^2; exactly 0 for gamma >= 1. Shape: broadcast.

    Valid: n, d -> infinity at fixed gamma, error O(1/d); balanced rank-one start.
    Raises: ValueError for theta outside [0, pi], and as `fine_tuning_scale`.
    Source: derived here; arXiv:2410.08194 has (1 - gamma)(2 cos(theta) - 1), exact for sigma = 0
        and B = b.
    Checked: printed formula where it is exact, zeros at `fine_tuning_boundary`, gradients.
    """
    angle(theta=theta)
    positive(gamma=gamma)
    gamma, theta, sigma, B, b = together(gamma, theta, sigma, source_norm, target_norm)
    under = gamma < 1
    gamma = jnp.where(under, gamma, 0.5)
    kappa = fine_tuning_scale(gamma, sigma, B, b, depth)
    saved = saved_risk(gamma, kappa * B, b, jnp.cos(theta))
    return jnp.where(under, saved, 0.0)


def saved_risk(gamma, kept, target_norm, cosine):
    """Risk saved by keeping `kept` of the source's direction where the data see nothing."""
    gamma, kept, b, cosine = together(gamma, kept, target_norm, cosine)
    return (1 - gamma) * (2 * kept * b * cosine - kept**2)


def fine_tuning_endpoint(X: ArrayLike, y: ArrayLike, source: ArrayLike, depth: ArrayLike = 2) -> Float[Array, "..."]:
    r"""Regression vector at which fine-tuning ends on one data set, exactly.

    .. math:: \hat\beta_{ft} = X^+ y + \kappa\, P_\perp \beta_s

    Args:
        X: Inputs, fewer rows than columns, of full rank. Shape (n, d).
        y: Labels. Shape (n,).
        source: beta_s, not 0, in units of y. Shape (d,).
        depth: Number L of layers, from 1, or infinity. A number.

    Returns:
        The regression vector, in units of y. Shape (d,).

    Valid: exact for gradient flow from the balanced rank-one weights that pretraining leaves;
        kappa is `fine_tuning_endpoint_scale`.
    Raises: ValueError if shapes do not match, n >= d, X lacks full rank, or source = 0.
    Source: derived here.
    Checked: reference values, flow of the real network (1e-7) for L = 1, 2, 3, minimum of the
        implicit-bias potential (1e-6).
    """
    min_norm, unseen, B = split(X, y, source)
    h = jnp.sum((unseen / B) ** 2)
    kappa = fine_tuning_endpoint_scale(jnp.sum(min_norm**2), h, B, depth)
    return min_norm + kappa * unseen


def split(X, y, source):
    """Minimum-norm interpolator, P_perp beta_s and |beta_s| of one data set, arguments checked."""
    if jnp.ndim(X) != 2 or (jnp.shape(y), jnp.shape(source)) != (
        jnp.shape(X)[:1],
        jnp.shape(X)[1:],
    ):
        raise ValueError(
            "`X`, `y` and `source` must have shapes (n, d), (n,) and (d,), "
            f"but got {jnp.shape(X)}, {jnp.shape(y)} and {jnp.shape(source)}."
        )
    n, d = jnp.shape(X)
    if n >= d:
        raise ValueError(f"`X` must have fewer rows than columns, but got {n} rows and {d} columns.")
    if not traced(X):
        rank = np.linalg.matrix_rank(np.asarray(X))
        require(rank == n, "X", f"of full rank {n}", rank)
    if not traced(source):
        require(np.any(source), "source", "different from 0", 0)
    X, y, source = with_one_dtype(X, y, source)
    norm = jnp.linalg.norm(source)
    Q, _ = jnp.linalg.qr(X.T)
    R = Q.T @ X.T  # after Q, not beside it: two batched LAPACK calls at once can block each other
    min_norm = Q @ jax.scipy.linalg.solve_triangular(R, y, trans="T")
    return min_norm, source - Q @ (Q.T @ source), norm
