r"""InfoNCE of one-hot classes, which are not Gaussian: its quartic landscape, its exact loss and its minimum.

A clean input is h_k e_k or -h_k e_k with probability p_k / 2 each, under Gaussian noise of variances c; the encoder is
aligned with the axes, y_k the squared singular value of W on axis k, and its embedding variance s_k = Sigma_k y_k with
Sigma_k = p_k h_k^2 + c_k. Distance-InfoNCE, infinitely many negatives, augmented as the positives are.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import integer, nonnegative, number, positive, with_one_dtype
from theory.ssl_collapse.imbalance import frequencies

DESCENTS, POLISHING = 24, 4
HALVINGS = 10
MOST_NODES = 200_000


class OneHotMinimum(NamedTuple):
    """Embedding variances of the classes at the minimum, shape (K,), squared singular values y, shape (K,), loss."""

    strengths: Float[Array, " K"]
    y: Float[Array, " K"]
    loss: Float[Array, ""]


def one_hot_quartic(p: ArrayLike, h: ArrayLike, noise: ArrayLike) -> Float[Array, "K K"]:
    r"""Matrix of the quartic term of distance-InfoNCE for one-hot classes.

    .. math:: L = -\sum_k b_k y_k + \frac{y^\top K y}{\tau^2}, \qquad
        K = \tfrac34 \mathrm{diag}(\Sigma_k^2) + \tfrac18\big[\mathrm{diag}(p_k h_k^4 - 2a_k^2) - aa^\top\big]

    with a_k = p_k h_k^2 and b_k = [a_k - (alpha - 1) c_k] / tau - lambda. Gaussian data have the first term alone.

    Args:
        p: Frequencies, their sum 1. Shape (K,).
        h: Amplitudes, positive. Shape (K,).
        noise: Variances c of the augmentation, zero or positive. Shape (K,) or a number.

    Returns:
        K. Shape (K, K).

    Valid: to fourth order in W, infinitely many negatives; noise with a Gaussian's first four moments.
    Raises: ValueError for frequencies that are negative or do not sum to 1, or an argument outside its range (concrete
        values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: enumeration of all pairs of inputs (1e-12); simulation `sims.ssl_collapse.one_hot`.
    """
    p, h, c = _classes(p, h, noise)
    a = p * h**2
    return jnp.diag(0.75 * (a + c) ** 2 + (p * h**4 - 2 * a**2) / 8) - jnp.outer(a, a) / 8


def one_hot_quartic_minimum(
    p: ArrayLike,
    h: ArrayLike,
    noise: ArrayLike,
    temperature: ArrayLike = 1.0,
    alpha: ArrayLike = 1.0,
    weight_decay: ArrayLike = 0.0,
) -> OneHotMinimum:
    r"""Minimum of the quartic landscape of one-hot classes.

    .. math:: y = \tfrac{\tau^2}2 K^{-1} b \quad \text{on the classes that are learned}

    The classes help one another: the elements of K off the diagonal are negative.

    Args:
        p: Frequencies, their sum 1. Shape (K,).
        h: Amplitudes, positive. Shape (K,).
        noise: Variances c of the augmentation, positive. Shape (K,) or a number.
        temperature: tau, positive. A number.
        alpha: Weight of the alignment term, zero or positive. A number.
        weight_decay: lambda of lambda |W|_F^2, zero or positive. A number.

    Returns:
        `OneHotMinimum(strengths, y, loss)`.

    Valid: close to the threshold of every class; relative error of y of the order of b.
    Raises: ValueError as `one_hot_quartic`, or for a parameter outside its range (concrete values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: KKT conditions, `one_hot_minimum` near the threshold; simulation `sims.ssl_collapse.one_hot`.
    """
    positive(noise=noise)
    return _quartic_minimum(*_parameters(*_classes(p, h, noise), temperature, alpha, weight_decay))


@jax.jit
def _quartic_minimum(p, h, c, tau, alpha, decay):
    b = (p * h**2 - (alpha - 1) * c) / tau - decay
    K = one_hot_quartic(p, h, c) / tau**2

    def loss(y):
        return -jnp.sum(b * y) + y @ K @ y

    y = nonnegative_minimum(loss, jnp.maximum(b, 0) / (2 * jnp.diag(K)))
    return OneHotMinimum((p * h**2 + c) * y, y, loss(y))


def one_hot_loss(
    y: ArrayLike,
    p: ArrayLike,
    h: ArrayLike,
    noise: ArrayLike,
    temperature: ArrayLike = 1.0,
    alpha: ArrayLike = 1.0,
    weight_decay: ArrayLike = 0.0,
    *,
    nodes: int = 10,
) -> Float[Array, ""]:
    r"""Population loss of distance-InfoNCE on one-hot classes, for an encoder aligned with the axes.

    .. math:: L = \sum_k \Big[\frac{\alpha c_k y_k}\tau + \lambda y_k - \tfrac12\ln\big(1 + \tfrac{c_k y_k}\tau\big)
        - \tfrac12 v_k \Sigma_k\Big] + E_x \ln \sum_k p_k e^{-v_k h_k^2/2} \cosh(v_k h_k x_k), \qquad
        v_k = \frac{y_k}{\tau + c_k y_k}

    Args:
        y: Squared singular values of W on the axes, zero or positive. Shape (K,).
        p: Frequencies, their sum 1. Shape (K,).
        h: Amplitudes, positive. Shape (K,).
        noise: Variances c of the augmentation, zero or positive. Shape (K,) or a number.
        temperature: tau, positive. A number.
        alpha: Weight of the alignment term, zero or positive. A number.
        weight_decay: lambda of lambda |W|_F^2, zero or positive. A number.
        nodes: Gauss-Hermite nodes of the noise along one axis.

    Returns:
        The loss, 0 at y = 0.

    Valid: infinitely many negatives; the error of the quadrature falls exponentially with `nodes`.
    Raises: ValueError as `one_hot_quartic`, for a parameter outside its range, or for more than 200 000 nodes in all,
        nodes^K (concrete values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: Monte Carlo of the definition, convergence in `nodes`, its expansion by `one_hot_quartic`.
    """
    p, h, c = _classes(p, h, noise)
    nonnegative(y=y)
    integer(2, nodes=nodes)
    if nodes ** len(p) > MOST_NODES:
        raise ValueError(f"`nodes` must have `nodes`^K at most {MOST_NODES}, but got {nodes} for K = {len(p)}.")
    y, p, h, c, tau, alpha, decay = _parameters(y, p, h, c, temperature, alpha, weight_decay)
    v = y / (tau + c * y)
    x, weights = np.polynomial.hermite_e.hermegauss(nodes)
    grid = np.stack(np.meshgrid(*[x] * len(p), indexing="ij"), -1).reshape(-1, len(p))
    share = np.prod(np.stack(np.meshgrid(*[weights / weights.sum()] * len(p), indexing="ij")), 0).ravel()
    noise_of, share = jnp.asarray(grid, y.dtype) * jnp.sqrt(c)[None, :], jnp.asarray(share, y.dtype)

    def of_class(own):
        """E_x of the logarithm over inputs of one class; by symmetry of its positive sign."""
        z = (v * h)[None, :] * (noise_of + own[None, :])
        mixture = jnp.log(p)[None, :] - (v * h**2 / 2)[None, :] + jnp.logaddexp(z, -z) - jnp.log(2.0).astype(z.dtype)
        return jnp.sum(share * jax.nn.logsumexp(mixture, axis=1))

    outside = alpha * c * y / tau + decay * y - jnp.log1p(c * y / tau) / 2 - v * (p * h**2 + c) / 2
    return jnp.sum(outside) + jnp.sum(p * jax.vmap(of_class)(jnp.diag(h)))


def one_hot_minimum(
    p: ArrayLike,
    h: ArrayLike,
    noise: ArrayLike,
    temperature: ArrayLike = 1.0,
    alpha: ArrayLike = 1.0,
    weight_decay: ArrayLike = 0.0,
    *,
    nodes: int = 10,
) -> OneHotMinimum:
    r"""Minimum of distance-InfoNCE on one-hot classes, over encoders aligned with the axes.

    Args:
        p: Frequencies, their sum 1. Shape (K,).
        h: Amplitudes, positive. Shape (K,).
        noise: Variances c of the augmentation, positive. Shape (K,) or a number.
        temperature: tau, positive. A number.
        alpha: Weight of the alignment term, zero or positive. A number.
        weight_decay: lambda of lambda |W|_F^2, zero or positive. A number.
        nodes: Gauss-Hermite nodes of the noise along one axis.

    Returns:
        `OneHotMinimum(strengths, y, loss)`; a class that is not learned has strength 0.

    Valid: as `one_hot_loss`; alignment with the axes is a symmetry of the data (any sign of any coordinate).
    Raises: ValueError as `one_hot_loss` (concrete values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: KKT conditions, convergence in `nodes`, `one_hot_quartic_minimum` near the threshold, gradients by finite
        differences; simulation `sims.ssl_collapse.imbalance`.
    """
    positive(noise=noise)
    integer(2, nodes=nodes)
    return _minimum(nodes, *_parameters(*_classes(p, h, noise), temperature, alpha, weight_decay))


@partial(jax.jit, static_argnums=0)
def _minimum(nodes, p, h, c, *parameters):
    def loss(y):
        return one_hot_loss(y, p, h, c, *parameters, nodes=nodes)

    y = nonnegative_minimum(loss, _quartic_minimum(p, h, c, *parameters).y)
    return OneHotMinimum((p * h**2 + c) * y, y, loss(y))


def nonnegative_minimum(loss, start: Float[Array, " K"]) -> Float[Array, " K"]:
    r"""Minimum of a smooth function of few variables y >= 0, by projected Newton steps.

    The gradient is that of the implicit function theorem.

    Args:
        loss: Function of y, shape (K,); it may close over traced parameters.
        start: First iterate, zero or positive. Shape (K,).

    Returns:
        The minimum. Shape (K,).

    Valid: minima at which the Hessian of the variables above 0 is positive definite.
    Source: Newton's method; derived here.
    Checked: through the two minima that use it.
    """
    shares = jnp.asarray(0.5 ** np.arange(HALVINGS), start.dtype)

    def direction(y):
        slope, bend = jax.grad(loss)(y), jax.hessian(loss)(y)
        free = (y > 0) | (slope < 0)
        bend = jnp.where(free[:, None] & free[None, :], bend, jnp.eye(len(y), dtype=y.dtype))
        values, vectors = jnp.linalg.eigh(bend)
        values = jnp.maximum(jnp.abs(values), jnp.finfo(y.dtype).eps * jnp.max(jnp.abs(values)))
        inverse = (vectors / values[None, :]) @ vectors.T
        return jnp.where(free, slope, 0), inverse

    def descend(_, y):
        slope, inverse = direction(y)
        trials = jnp.maximum(y[None, :] - shares[:, None] * (inverse @ slope)[None, :], 0)
        return jax.lax.stop_gradient(trials[jnp.argmin(jax.lax.map(loss, trials))])

    def polish(_, y):
        slope, inverse = direction(y)
        return jax.lax.stop_gradient(jnp.maximum(y - inverse @ slope, 0))

    y = jax.lax.fori_loop(0, DESCENTS, descend, jax.lax.stop_gradient(start))
    y = jax.lax.stop_gradient(jax.lax.fori_loop(0, POLISHING, polish, y))
    _, inverse = direction(y)
    slope = jnp.where(y > 0, jax.grad(loss)(y), 0)
    return y - jax.lax.stop_gradient(inverse) @ (slope - jax.lax.stop_gradient(slope))


def _classes(p, h, noise):
    """(p, h, c) of one dtype, each of shape (K,)."""
    if np.ndim(p) != 1 or np.shape(h) != np.shape(p):
        raise ValueError(f"`p` and `h` must have one shape (K,), but got {np.shape(p)} and {np.shape(h)}.")
    if np.shape(noise) not in ((), np.shape(p)):
        raise ValueError(f"`noise` must have the shape of `p`, {np.shape(p)}, but got shape {np.shape(noise)}.")
    frequencies(p)
    positive(h=h)
    nonnegative(noise=noise)
    p, h, c = with_one_dtype(p, h, noise)
    return p, h, jnp.broadcast_to(c, p.shape)


def _parameters(*values):
    """The same values of one dtype, after checking the last three: temperature, alpha and weight decay."""
    tau, alpha, decay = values[-3:]
    number(temperature=tau, alpha=alpha, weight_decay=decay)
    positive(temperature=tau)
    nonnegative(alpha=alpha, weight_decay=decay)
    return with_one_dtype(*values)
