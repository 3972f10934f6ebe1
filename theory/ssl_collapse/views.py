"""Covariances from two views of real data, and how far each direction is from its collapse."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import finite, with_one_dtype
from theory.ssl_collapse.covariances import inverse_root, positive_definite
from theory.ssl_collapse.landscape import effective_landscape


class ViewCovariances(NamedTuple):
    """A0 and C, both shape (d, d), and how many correlations of two views were negative and became zero."""

    A0: Float[Array, "d d"]
    C: Float[Array, "d d"]
    clipped: Float[Array, ""]


def view_covariances(x: ArrayLike, x_plus: ArrayLike) -> ViewCovariances:
    r"""Covariances A0, of what two views share, and C, of the augmentation noise, from samples.

    .. math:: \Sigma = \tfrac12[\mathrm{Cov}(x) + \mathrm{Cov}(x^+)], \qquad C = \tfrac12\mathrm{Cov}(x - x^+), \qquad
        A_0 = \Sigma - C = \tfrac12[\mathrm{Cov}(x, x^+) + \mathrm{Cov}(x^+, x)]

    C and Sigma have no negative eigenvalues. A0 may have, of estimation error: in coordinates in which Sigma is the
    identity they are set to zero, so that A0 + C is still Sigma.

    Args:
        x: One view. Shape (n, d), n > d.
        x_plus: The other view of the same inputs. Shape (n, d).

    Returns:
        `ViewCovariances(A0, C, clipped)`.

    Valid: any augmentation, dependent on the input or not; unbiased but for the clipping, error O(n^-1/2).
    Raises: ValueError for shapes that do not fit, too few samples, numbers that are not finite, or a Sigma that is not
        positive definite (concrete values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: many samples of known covariances; A0 + C = Sigma to rounding; clipping.
    """
    shape = np.shape(x)
    if len(shape) != 2:
        raise ValueError(f"`x` must have the shape (n, d), but got shape {shape}.")
    if np.shape(x_plus) != shape:
        raise ValueError(f"`x_plus` must have the shape of `x`, {shape}, but got shape {np.shape(x_plus)}.")
    n, d = shape
    if n <= d:
        raise ValueError(f"`x` must have more samples than features, {d}, but got {n}.")
    finite(x=x, x_plus=x_plus)
    x, x_plus = with_one_dtype(x, x_plus)

    def cov(z):
        z = z - jnp.mean(z, 0, keepdims=True)
        return z.T @ z / (n - 1)

    Sigma, C = (cov(x) + cov(x_plus)) / 2, cov(x - x_plus) / 2
    positive_definite(**{"the covariance of the views": Sigma})
    inverse = inverse_root(Sigma)
    root = Sigma @ inverse
    q, V = jnp.linalg.eigh(inverse @ C @ inverse)
    V = root @ V
    A0, C = ((V * weight[None, :]) @ V.T for weight in (jnp.maximum(1 - q, 0), jnp.minimum(q, 1)))
    return ViewCovariances((A0 + A0.T) / 2, (C + C.T) / 2, jnp.sum(q > 1))


class Thresholds(NamedTuple):
    """Values beyond which a direction is collapsed, one an entry, each of shape (d,) and descending.

    At a value v the number of positive eigenvalues of B is that of the entries above v; zero where a direction is
    collapsed at every value, infinite where it never is. Every parameter alone is varied.
    """

    augmentation: Float[Array, " d"]
    alpha: Float[Array, " d"]
    temperature: Float[Array, " d"]
    weight_decay: Float[Array, " d"]


def collapse_thresholds(
    A0: ArrayLike,
    C: ArrayLike,
    loss: str = "infonce_distance",
    temperature: ArrayLike = 1.0,
    alpha: ArrayLike = 1.0,
    weight_decay: ArrayLike = 0.0,
) -> Thresholds:
    r"""Strength of augmentation, weight of alignment, temperature and decay at which directions collapse one by one.

    .. math:: \det\big[A_0 - (\alpha - 1)\,g\,C - \lambda\tau I\big] = 0

    for distance-InfoNCE, g multiplying the covariance of the augmentation noise at a fixed A0; of the other losses B
    does not contain C, and det B = 0 is solved for temperature and decay alone.

    Args:
        A0: Covariance of two views of one input. Shape (d, d).
        C: Covariance of the augmentation noise. Shape (d, d).
        loss: "infonce_distance", "infonce_dot", "spectral" or "barlow", as in `effective_landscape`.
        temperature: tau of InfoNCE, positive. A number.
        alpha: Weight of InfoNCE's alignment term, zero or positive. A number.
        weight_decay: lambda of lambda |W|_F^2, zero or positive. A number.

    Returns:
        `Thresholds(augmentation, alpha, temperature, weight_decay)`; alpha is nan but for infonce_distance, and
        augmentation for alpha < 1, where it helps.

    Valid: instability of W = 0 for any distribution; the rank of the minimum (at most m) for Gaussian features, and for
        spectral and barlow any. Negatives augmented, infinite N. A zero eigenvalue of C counts as 1e-15 of the largest.
    Raises: ValueError as `effective_landscape`; for "alignment", which collapses at every value.
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: eigenvalues of B at and around the thresholds; commuting matrices; simulation `sims.ssl_collapse.digits`.
    """
    if loss == "alignment":
        raise ValueError("`loss` must be one with repulsion, but got alignment.")
    B0 = effective_landscape(A0, C, loss, temperature, alpha).B
    B = effective_landscape(A0, C, loss, temperature, alpha, weight_decay).B
    A0, C, tau, alpha, decay = with_one_dtype(A0, C, temperature, alpha, weight_decay)
    d, one = len(A0), jnp.eye(len(A0), dtype=A0.dtype)
    of_decay = jnp.maximum(jnp.linalg.eigvalsh(B0), 0)[::-1]

    def always(B):
        return jnp.where(jnp.linalg.eigvalsh(B)[::-1] > 0, jnp.inf, 0.0).astype(B.dtype)

    if loss.startswith("infonce"):
        safe = jnp.where(decay > 0, decay, 1.0)
        of_temperature = jnp.where(decay > 0, of_decay * tau / safe, always(B0))
    else:
        of_temperature = always(B)
    if loss != "infonce_distance":
        return Thresholds(always(B), jnp.full(d, jnp.nan, A0.dtype), of_temperature, of_decay)

    eigenvalues, V = jnp.linalg.eigh(C)
    eps = 4 * jnp.finfo(C.dtype).eps
    V = V / jnp.sqrt(jnp.maximum(eigenvalues, eps * jnp.maximum(eigenvalues[-1], eps)))[None, :]
    ratios = jnp.linalg.eigvalsh(V.T @ (A0 - decay * tau * one) @ V)[::-1]
    ratios = jnp.where(jnp.abs(ratios) > eps**-0.5, jnp.sign(ratios) * jnp.inf, ratios)
    grown = jnp.maximum(ratios, 0) / jnp.where(alpha > 1, alpha - 1, 1.0)
    of_augmentation = jnp.where(alpha > 1, grown, jnp.where(alpha < 1, jnp.nan, always(B)))
    return Thresholds(of_augmentation, jnp.maximum(1 + ratios, 0), of_temperature, of_decay)
