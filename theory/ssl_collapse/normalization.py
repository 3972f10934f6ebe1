r"""Normalised embeddings, E |f|^2 fixed: the strengths fill the modes as water fills a vessel.

The constraint is an equality, Tr S = E |f|^2: complete collapse is impossible, and the level mu has either sign. The
strengths of InfoNCE are in units of the temperature, eigenvalues of S / tau; their budget is then E |f|^2 / tau.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import finite, integer, nonnegative, number, positive, require, together, with_one_dtype
from theory.roots import increasing_root
from theory.ssl_collapse.covariances import checked_covariances, inverse_root, whitened
from theory.ssl_collapse.infonce import infonce_mode_strength


class WaterFilling(NamedTuple):
    """Strengths of the modes, shape (..., d), in the order of the input, and the level mu, shape (...)."""

    strengths: Float[Array, "..."]
    mu: Float[Array, "..."]


class NormalizedMinimum(NamedTuple):
    """Minimum of normalised InfoNCE: effective noise fractions q of its modes, ascending, shape (d,); strengths in
    units of tau, shape (d,); level mu; Gram matrix W^T W, shape (d, d)."""

    q: Float[Array, " d"]
    strengths: Float[Array, " d"]
    mu: Float[Array, ""]
    gram: Float[Array, "d d"]


def water_fill(beta: ArrayLike, kappa: ArrayLike, budget: ArrayLike, m: int | None = None) -> WaterFilling:
    r"""Mode strengths of a quartic landscape under the constraint of a total variance.

    .. math:: s_i = \frac{(\beta_i - \mu)_+}{2\kappa}, \qquad \sum_{i \le m} s_i = c

    At least k modes are active iff :math:`\sum_{i \le k} (\beta_i - \beta_k) < 2\kappa c`.

    Args:
        beta: Eigenvalues of Sigma^(-1/2) B Sigma^(-1/2), any order and sign. Shape (..., d).
        kappa: Coefficient of Tr[S^2], positive. Shape (...).
        budget: c = E |f|^2 = Tr S, positive. Shape (...).
        m: Width of the embedding, the most modes; None for d.

    Returns:
        `WaterFilling(strengths, mu)`.

    Valid: exact for the spectral loss, any data; for InfoNCE the quartic approximation.
    Raises: ValueError for kappa or a budget that is not positive, m < 1 or beta that is not finite (concrete values
        only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: sums and KKT conditions, the number of active modes, gradients by finite differences; simulation
        `sims.ssl_collapse.normalization`.
    """
    finite(beta=beta)
    positive(kappa=kappa, budget=budget)
    beta, kappa, budget = _modes(beta, kappa, budget)
    kept = _kept(beta, m)
    top = -jnp.sort(-beta, axis=-1)[..., :kept]
    counts = jnp.broadcast_to(jnp.arange(1, kept + 1, dtype=beta.dtype), top.shape)
    levels = (jnp.cumsum(top, axis=-1) - (2 * kappa * budget)[..., None]) / counts
    active = jnp.sum(top > levels, axis=-1, keepdims=True)
    mu = jnp.take_along_axis(levels, active - 1, axis=-1)
    above = jnp.where(_leading(-beta, kept), jnp.maximum(beta - mu, 0), 0)
    return WaterFilling(above / (2 * kappa[..., None]), mu[..., 0])


def water_fill_infonce(q: ArrayLike, budget: ArrayLike, m: int | None = None) -> WaterFilling:
    r"""Mode strengths of distance-InfoNCE under the constraint of a total variance.

    .. math:: s_i = s^\star(\hat q_i + \mu), \qquad \sum_{i \le m} s_i = \frac{E|f|^2}\tau

    Args:
        q: Eigenvalues of Sigma^(-1/2) (alpha C + lambda tau I) Sigma^(-1/2), any order. Shape (..., d).
        budget: E |f|^2 / tau, positive; dimensionless. Shape (...).
        m: Width of the embedding, the most modes; None for d.

    Returns:
        `WaterFilling(strengths, mu)`, strengths in units of tau.

    Valid: Gaussian data, infinitely many negatives; embeddings divided by (E |f|^2)^(1/2). Embeddings divided by their
        own length follow it roughly, not in any limit: without fluctuations of |f|^2 their kappa is another.
    Raises: ValueError for a budget that is not positive, m < 1 or q that is not finite (concrete values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: mpmath, KKT conditions, gradients; simulation `sims.ssl_collapse.normalization`.
    """
    finite(q=q)
    positive(budget=budget)
    q, budget = _modes(q, budget)
    kept = _kept(q, m)
    top = jnp.sort(q, axis=-1)[..., :kept]
    least = top[..., :1]

    def missing(level):
        """What the budget still lacks at the level mu = level - min q."""
        return budget - jnp.sum(infonce_mode_strength(top - least + level[..., None]), axis=-1)

    level = increasing_root(missing, jnp.zeros_like(budget), jnp.ones_like(budget))
    strengths = infonce_mode_strength(q - least + level[..., None])
    return WaterFilling(jnp.where(_leading(q, kept), strengths, 0), level - least[..., 0])


def alignment_fill(q: ArrayLike, budget: ArrayLike) -> Float[Array, "..."]:
    r"""Mode strengths of alignment alone under the constraint of a total variance: rank one.

    .. math:: s_i = c\, \delta_{ik}, \qquad k = \mathrm{argmin}_i\, q_i

    Args:
        q: Noise fractions 1 - rho. Shape (..., d).
        budget: c = E |f|^2, positive. Shape (...).

    Returns:
        Strengths, the first of equal modes taking all. Shape (..., d).

    Valid: any data; if several modes have the least q their shares are arbitrary.
    Raises: ValueError for a budget that is not positive or q that is not finite (concrete values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: as the limit of `water_fill` at small kappa; simulation `sims.ssl_collapse.imbalance`.
    """
    finite(q=q)
    positive(budget=budget)
    q, budget = _modes(q, budget)
    return jnp.where(_leading(q, 1), budget[..., None], 0)


def normalized_rank(q: ArrayLike, budget: ArrayLike, m: int | None = None) -> Float[Array, "..."]:
    r"""Number of active modes of normalised distance-InfoNCE.

    .. math:: \max\Big\{k \le m: \sum_{i < k} s^\star(1 + \hat q_i - \hat q_k) < \frac{E|f|^2}\tau\Big\}

    Args:
        q: Effective noise fractions, any order, as in `water_fill_infonce`. Shape (..., d).
        budget: E |f|^2 / tau, positive; dimensionless. Shape (...).
        m: Width of the embedding, the most modes; None for d.

    Returns:
        The number, at least 1, in the dtype of `q`. Shape (...).

    Valid: as `water_fill_infonce`.
    Raises: ValueError as `water_fill_infonce`.
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: counted strengths of `water_fill_infonce`; simulation `sims.ssl_collapse.normalization`.
    """
    finite(q=q)
    positive(budget=budget)
    q, budget = _modes(q, budget)
    needed = _budgets(jnp.sort(q, axis=-1)[..., : _kept(q, m)])
    return jnp.sum(needed < budget[..., None], axis=-1).astype(q.dtype)


def critical_temperature(q: ArrayLike, k: int, variance: ArrayLike = 1.0) -> Float[Array, "..."]:
    r"""Temperature below which one more mode than k is active in normalised distance-InfoNCE.

    .. math:: \tau_k = \frac{E|f|^2}{\sum_{i \le k} s^\star(1 + \hat q_i - \hat q_{k+1})}

    A lower temperature keeps more dimensions.

    Args:
        q: Effective noise fractions alpha c_i / Sigma_i, any order. Shape (..., d).
        k: Number of active modes above that temperature, from 1 to d - 1.
        variance: E |f|^2, positive. Shape (...).

    Returns:
        tau_k, infinite if mode k + 1 is as good as the first. Shape (...).

    Valid: as `water_fill_infonce`, without weight decay (else q depends on tau: use `normalized_rank`).
    Raises: ValueError for another k, a variance that is not positive or q that is not finite (concrete values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: `water_fill_infonce` on both sides; simulation `sims.ssl_collapse.normalization`.
    """
    finite(q=q)
    positive(variance=variance)
    number(k=k)
    integer(1, k=k)
    q, variance = _modes(q, variance)
    require(k < q.shape[-1], "k", f"below the number of modes, {q.shape[-1]}", k)
    return variance / _budgets(jnp.sort(q, axis=-1))[..., k]


def normalized_infonce_minimum(
    A0: ArrayLike,
    C: ArrayLike,
    m: int,
    temperature: ArrayLike = 1.0,
    alpha: ArrayLike = 1.0,
    weight_decay: ArrayLike = 0.0,
    variance: ArrayLike = 1.0,
) -> NormalizedMinimum:
    r"""Global minimum of distance-InfoNCE over linear encoders of a given E |f|^2.

    .. math:: W^\top W = \tau\, \Sigma^{-1/2} \sum_{i \le m} s_i v_i v_i^\top\, \Sigma^{-1/2}

    Args:
        A0: Covariance of clean inputs. Shape (d, d).
        C: Covariance of the augmentation noise; it need not commute with A0. Shape (d, d).
        m: Width of the embedding.
        temperature: tau, positive. A number.
        alpha: Weight of the alignment term, zero or positive. A number.
        weight_decay: lambda of lambda |W|_F^2, zero or positive. A number.
        variance: E |f|^2, positive. A number.

    Returns:
        `NormalizedMinimum(q, strengths, mu, gram)`.

    Valid: Gaussian data, infinitely many negatives, augmented as the positives are.
    Raises: ValueError for matrices that are no covariances or do not fit, m < 1, or a number outside its range
        (concrete values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: the gradient of the exact loss is that of the constraint; descent of it under the constraint.
    """
    A0, C, Sigma = checked_covariances(A0, C)
    number(temperature=temperature, alpha=alpha, weight_decay=weight_decay, variance=variance)
    positive(temperature=temperature, variance=variance)
    nonnegative(alpha=alpha, weight_decay=weight_decay)
    A0, tau, alpha, decay, variance = with_one_dtype(A0, temperature, alpha, weight_decay, variance)
    q, v = jnp.linalg.eigh(whitened(alpha * C + decay * tau * jnp.eye(len(C), dtype=C.dtype), Sigma))
    strengths, mu = water_fill_infonce(q, variance / tau, m)
    directions = inverse_root(Sigma) @ v
    return NormalizedMinimum(q, strengths, mu, tau * (directions * strengths[None, :]) @ directions.T)


def _budgets(q: Array) -> Array:
    """Sum over i < k of s*(1 + q_i - q_k) of ascending q: the budget at which mode k joins. Shape (..., d)."""
    before = jnp.tril(jnp.ones((q.shape[-1],) * 2, bool), -1)
    strengths = infonce_mode_strength(margin=q[..., :, None] - q[..., None, :])
    return jnp.sum(jnp.where(jnp.broadcast_to(before, strengths.shape), strengths, 0), axis=-1)


def _modes(values: ArrayLike, *others: ArrayLike) -> tuple[Array, ...]:
    """The modes' values, shape (..., d), and other arguments, shape (...), broadcast against one another."""
    if not np.ndim(values):
        raise ValueError("The modes must be a list, but got a number.")
    values, *others = with_one_dtype(values, *others)
    leading, *others = together(values[..., 0], *others)
    return jnp.broadcast_to(values, (*leading.shape, values.shape[-1])), *others


def _kept(values: Array, m: int | None) -> int:
    """How many modes an embedding of width m can hold."""
    if m is None:
        return values.shape[-1]
    number(m=m)
    integer(1, m=m)
    return min(int(m), values.shape[-1])


def _leading(values: Array, count: int) -> Array:
    """Which entries are among the `count` least along the last axis."""
    return jnp.argsort(jnp.argsort(values, axis=-1), axis=-1) < count
