"""All stationary points of the quartic landscape: the minimum, its rank and strengths, saddles and their Hessians.

The modes are the eigenvectors v_i of the whitened matrix Sigma^(-1/2) B Sigma^(-1/2), in descending order of their
eigenvalues beta_i. B and Sigma need not commute.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from theory.arguments import integer, number, positive, symmetric, with_one_dtype
from theory.ssl_collapse.covariances import inverse_root, positive_definite, whitened
from theory.ssl_collapse.landscape import Landscape, effective_landscape


class StationaryPoints(NamedTuple):
    """The classes of stationary points of a landscape, their losses ascending: the global minimum is the first.

    active: which modes a class holds, shape (classes, d); gram: its W^T W, shape (classes, d, d); loss: shape
    (classes,); index: its number of negative Hessian eigenvalues, shape (classes,).
    """

    active: Bool[Array, "classes d"]
    gram: Float[Array, "classes d d"]
    loss: Float[Array, " classes"]
    index: Int[Array, " classes"]


def quartic_loss(W: ArrayLike, landscape: Landscape) -> Float[Array, ""]:
    r"""Value of a quartic landscape.

    .. math:: L = -\mathrm{Tr}[WBW^\top] + \kappa\,\mathrm{Tr}[(W\Sigma W^\top)^2]

    Args:
        W: Encoder. Shape (m, d).
        landscape: As `effective_landscape` returns it.

    Returns:
        The loss, 0 at W = 0. A number.

    Valid: any W.
    Raises: ValueError if W does not fit.
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: definitions of the losses in the tests of `effective_landscape`.
    """
    d = len(landscape.B)
    if np.ndim(W) != 2 or np.shape(W)[1] != d:
        raise ValueError(f"`W` must have shape (m, {d}), but got shape {np.shape(W)}.")
    W, B, Sigma, kappa = with_one_dtype(W, *landscape)
    return kappa * jnp.sum((W @ Sigma @ W.T) ** 2) - jnp.sum((W @ B) * W)


def n_active(B: ArrayLike, m: int) -> Int[Array, ""]:
    r"""Rank of the encoder at the minimum of the quartic landscape: the modes that do not collapse.

    .. math:: \mathrm{rank}\,W = \min(m, n_+(B))

    Args:
        B: Matrix that pulls the encoder from the origin. Shape (d, d).
        m: Dimension of the embedding, 1 or more.

    Returns:
        The rank, whatever Sigma and kappa are; eigenvalues within rounding of 0 do not count. A whole number.

    Valid: all stationary encoders have at most this rank; complete collapse at 0, dimensional collapse below min(m, d).
    Raises: ValueError for a matrix that is not symmetric or m < 1 (concrete values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: rank of `minimum_gram`; congruent matrices; simulation `sims.ssl_collapse.minima`.
    """
    symmetric(B=B)
    integer(1, m=m)
    (B,) = with_one_dtype(B)
    return jnp.minimum(m, jnp.sum(_above_zero(jnp.linalg.eigvalsh(B))))


def minimum_gram(B: ArrayLike, Sigma: ArrayLike, kappa: ArrayLike, m: int) -> Float[Array, "d d"]:
    r"""Gram matrix of the encoders at the global minimum of the quartic landscape.

    .. math:: W^\top W = \frac1{2\kappa}\Sigma^{-1/2}\Big[\sum_{i \le m}(\beta_i)_+ v_iv_i^\top\Big]\Sigma^{-1/2}

    Args:
        B: Matrix that pulls the encoder from the origin. Shape (d, d).
        Sigma: Covariance in the quartic term. Shape (d, d).
        kappa: Coefficient of the quartic term, positive. A number.
        m: Dimension of the embedding, 1 or more.

    Returns:
        The Gram matrix, which a rotation W -> O W leaves. Shape (d, d).

    Valid: every local minimum; one of many where `minimum_is_unique` does not hold.
    Raises: ValueError for a B that is not symmetric, a Sigma that is not positive definite or does not fit, kappa <= 0
        or m < 1 (concrete values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: reference values; descent from random encoders; simulation `sims.ssl_collapse.minima`.
    """
    integer(1, m=m)
    return stationary_gram(B, Sigma, kappa, jnp.arange(len(jnp.asarray(B))) < m)


def minimum_loss(B: ArrayLike, Sigma: ArrayLike, kappa: ArrayLike, m: int) -> Float[Array, ""]:
    r"""Loss at the global minimum of the quartic landscape.

    .. math:: L_\star = -\frac1{4\kappa}\sum_{i \le m}(\beta_i)_+^2

    Args:
        B: Matrix that pulls the encoder from the origin. Shape (d, d).
        Sigma: Covariance in the quartic term. Shape (d, d).
        kappa: Coefficient of the quartic term, positive. A number.
        m: Dimension of the embedding, 1 or more.

    Returns:
        The loss, 0 in complete collapse. A number.

    Valid: every landscape with kappa > 0.
    Raises: ValueError as `minimum_gram`.
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: reference value; `quartic_loss` of `minimum_gram`.
    """
    integer(1, m=m)
    return stationary_loss(B, Sigma, kappa, jnp.arange(len(jnp.asarray(B))) < m)


def minimum_is_unique(B: ArrayLike, Sigma: ArrayLike, m: int) -> Bool[Array, ""]:
    r"""Whether the global minimum of the quartic landscape is one Gram matrix.

    .. math:: \beta_m > \beta_{m+1} \quad\text{or}\quad \beta_m \le 0 \quad\text{or}\quad m \ge d

    Barlow Twins without weight decay has beta_i = 2 throughout: with m < d every subspace of m dimensions is a minimum,
    and the dynamics, not the landscape, choose the modes that are kept.

    Args:
        B: Matrix that pulls the encoder from the origin. Shape (d, d).
        Sigma: Covariance in the quartic term. Shape (d, d).
        m: Dimension of the embedding, 1 or more.

    Returns:
        True if it is, with room for rounding.

    Valid: every landscape with kappa > 0.
    Raises: ValueError as `minimum_gram`.
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: Barlow Twins with and without decay.
    """
    B, Sigma, _ = _checked(B, Sigma, 1.0, m)
    beta, _ = _modes(B, Sigma)
    if m >= len(beta):
        return jnp.asarray(True)
    rounding = 100 * len(beta) * jnp.finfo(beta.dtype).eps * jnp.max(jnp.abs(beta))
    return (beta[m - 1] - beta[m] > rounding) | (beta[m - 1] <= rounding)


def mode_strengths(
    A0: ArrayLike,
    C: ArrayLike,
    loss: str,
    m: int,
    temperature: ArrayLike = 1.0,
    alpha: ArrayLike = 1.0,
    weight_decay: ArrayLike = 0.0,
    n_negatives: ArrayLike = jnp.inf,
    *,
    pairs: str = "augmented",
) -> Float[Array, " k"]:
    r"""Variances of the embedding at the minimum of a loss's quartic landscape, descending.

    .. math:: s_i = \frac{\beta_i}{2\kappa}, \qquad s_i = \frac{\beta_i}{2\kappa\rho_i}
        \text{ with } A_0 \text{ in } \Sigma\text{'s place (common eigenbasis)}

    With rho_i the correlation between the two views of a mode, and alpha = 1, lambda = 0, N infinite: rho for spectral,
    tau rho for infonce_dot, 2/3 tau rho for infonce_distance, 1 / rho for barlow. The collapsed modes are the same.

    Args:
        A0, C, loss, temperature, alpha, weight_decay, n_negatives, pairs: As in `effective_landscape`.
        m: Dimension of the embedding, 1 or more.

    Returns:
        Nonzero eigenvalues of W Sigma W^T, then zeros, Sigma = A0 + C. Shape (min(m, d),).

    Valid: as `effective_landscape`; of barlow without decay at m < d one of many (`minimum_is_unique`).
    Raises: ValueError as `effective_landscape`, m < 1, or a landscape without quartic term (alignment, one negative).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: closed forms per loss; eigenvalues of W Sigma W^T at a factor W of `minimum_gram`.
    """
    how = (temperature, alpha, weight_decay, n_negatives)
    gram = minimum_gram(*effective_landscape(A0, C, loss, *how, pairs=pairs), m)
    root = jnp.linalg.cholesky(sum(with_one_dtype(A0, C)))
    return jnp.maximum(jnp.linalg.eigvalsh(root.T @ gram @ root)[::-1][:m], 0)


def stationary_gram(B: ArrayLike, Sigma: ArrayLike, kappa: ArrayLike, active: ArrayLike) -> Float[Array, "d d"]:
    r"""Gram matrix of the encoders of one class of stationary points.

    .. math:: W^\top W = \frac1{2\kappa}\Sigma^{-1/2}\Big[\sum_{i \in I}(\beta_i)_+ v_iv_i^\top\Big]\Sigma^{-1/2}

    Args:
        B: Matrix that pulls the encoder from the origin. Shape (d, d).
        Sigma: Covariance in the quartic term. Shape (d, d).
        kappa: Coefficient of the quartic term, positive. A number.
        active: Whether a mode is in the set I, beta descending. Shape (d,).

    Returns:
        The Gram matrix; modes with beta <= 0 add nothing. Shape (d, d).

    Valid: an embedding with as many dimensions as I has modes, or more; inside `jit`, `stationary_points` lists all.
    Raises: ValueError for a B that is not symmetric, a Sigma that is not positive definite or does not fit, a set of
        another length or kappa <= 0 (concrete values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: gradient by autodiff at every class; simulation `sims.ssl_collapse.saddles`.
    """
    B, Sigma, kappa = _checked(B, Sigma, kappa, 1)
    beta, modes = _modes(B, Sigma)
    kept = _kept(beta, active)
    return (modes * kept[None, :]) @ modes.T / (2 * kappa)


def stationary_loss(B: ArrayLike, Sigma: ArrayLike, kappa: ArrayLike, active: ArrayLike) -> Float[Array, ""]:
    r"""Loss of one class of stationary points.

    .. math:: L = -\frac1{4\kappa}\sum_{i \in I}(\beta_i)_+^2

    Args:
        B: Matrix that pulls the encoder from the origin. Shape (d, d).
        Sigma: Covariance in the quartic term. Shape (d, d).
        kappa: Coefficient of the quartic term, positive. A number.
        active: Whether a mode is in the set I, beta descending. Shape (d,).

    Returns:
        The loss, 0 at the origin. A number.

    Valid: as `stationary_gram`.
    Raises: ValueError as `stationary_gram`.
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: `quartic_loss` at every class.
    """
    B, Sigma, kappa = _checked(B, Sigma, kappa, 1)
    beta, _ = _modes(B, Sigma)
    return -jnp.sum(_kept(beta, active) ** 2) / (4 * kappa)


def stationary_points(B: ArrayLike, Sigma: ArrayLike, kappa: ArrayLike, m: int) -> StationaryPoints:
    r"""All classes of stationary points of the quartic landscape: one for every set I of at most m positive modes.

    .. math:: W^\top W = \frac1{2\kappa}\Sigma^{-1/2}\Big[\sum_{i \in I}\beta_i v_iv_i^\top\Big]\Sigma^{-1/2}, \qquad
        L = -\frac1{4\kappa}\sum_{i \in I}\beta_i^2

    Args:
        B: Matrix that pulls the encoder from the origin. Shape (d, d).
        Sigma: Covariance in the quartic term. Shape (d, d).
        kappa: Coefficient of the quartic term, positive. A number.
        m: Dimension of the embedding, 1 or more.

    Returns:
        `StationaryPoints(active, gram, loss, index)`: the minimum first, the origin last. All but the minimum are
        strict saddles, or the maximum: every local minimum is global.

    Valid: concrete values, for their number depends on them: sum over k <= min(m, n_+) of binomial(n_+, k). Where
        eigenvalues beta are equal the sets stand for all invariant subspaces.
    Raises: ValueError as `minimum_gram`.
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: gradient and Hessian by autodiff at every class, B and Sigma not commuting; simulation
        `sims.ssl_collapse.saddles`.
    """
    B, Sigma, kappa = _checked(B, Sigma, kappa, m)
    beta, modes = _modes(B, Sigma)
    d, n = len(beta), int(jnp.sum(_above_zero(beta)))
    sets = [chosen for k in range(min(m, n) + 1) for chosen in itertools.combinations(range(n), k)]
    active = np.array([[i in chosen for i in range(d)] for chosen in sets])
    kept = jnp.where(jnp.asarray(active), beta[None, :], 0)
    gram = jnp.einsum("ji,ci,ki->cjk", modes, kept, modes) / (2 * kappa)
    loss = -jnp.sum(kept**2, 1) / (4 * kappa)
    index = np.array([_negative_directions(chosen, n, m, np.asarray(beta)) for chosen in sets])
    order = np.argsort(np.asarray(loss), kind="stable")
    return StationaryPoints(jnp.asarray(active[order]), gram[order], loss[order], jnp.asarray(index[order]))


def hessian_spectrum(B: ArrayLike, Sigma: ArrayLike, active: Sequence[int], m: int) -> Float[Array, " m*d"]:
    r"""Eigenvalues of the Hessian at a stationary point, in the whitened encoder :math:`U = W\Sigma^{1/2}`.

    With k modes in the set I, whatever kappa is:

    ========================  ==========================================  ===========
    direction                 eigenvalue                                  how often
    ========================  ==========================================  ===========
    strength of a in I        4 beta_a                                    k
    pair a, b in I            2 (beta_a + beta_b), and 0 (a rotation)     k (k - 1)/2
    a in I towards j          2 (beta_a - beta_j)                         k (d - k)
    free dimension towards j  -2 beta_j                                   (m - k)(d - k)
    free dimension towards a  0 (a rotation)                              (m - k) k
    ========================  ==========================================  ===========

    Args:
        B: Matrix that pulls the encoder from the origin. Shape (d, d).
        Sigma: Covariance in the quartic term. Shape (d, d).
        active: The set I: positions of modes, beta descending, the first is 0; at most m of them.
        m: Dimension of the embedding, 1 or more.

    Returns:
        The eigenvalues, ascending. Shape (m d,).

    Valid: active modes with beta > 0. Away from the origin eigenvalues in W differ, their signs do not; at W = 0 those
        in W are of -2 B, each m times.
    Raises: ValueError for matrices as in `minimum_gram`, or a set that is none (concrete values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: Hessians by autodiff at every class; simulation `sims.ssl_collapse.saddles`.
    """
    B, Sigma, _ = _checked(B, Sigma, 1.0, m)
    beta, _ = _modes(B, Sigma)
    d, inside = len(beta), sorted({int(a) for a in active})
    if len(inside) != len(active) or len(inside) > m or any(not 0 <= a < d for a in inside):
        raise ValueError(f"`active` must hold at most {m} different modes from 0 to {d - 1}, but got {list(active)}.")
    k, outside = len(inside), [j for j in range(d) if j not in inside]
    a, j = beta[np.array(inside, int)], beta[np.array(outside, int)]
    upper = np.triu_indices(k, 1)
    pairs = (a[:, None] + a[None, :])[upper]
    rotations = jnp.zeros(k * (k - 1) // 2 + k * (m - k), beta.dtype)
    towards = (a[:, None] - j[None, :]).ravel()
    return jnp.sort(jnp.concatenate([4 * a, 2 * pairs, rotations, 2 * towards, jnp.tile(-2 * j, m - k)]))


def _negative_directions(inside: tuple[int, ...], n: int, m: int, beta: np.ndarray) -> int:
    """Hessian eigenvalues below zero at a class: stronger modes outside, for each weaker inside and free dimension."""
    outside = [j for j in range(n) if j not in inside]
    return sum(beta[j] > beta[a] for a in inside for j in outside) + (m - len(inside)) * len(outside)


def _kept(beta, active):
    """beta of the active modes that have it above 0, otherwise 0."""
    if np.shape(active) != beta.shape:
        raise ValueError(f"`active` must have shape {beta.shape}, but got shape {np.shape(active)}.")
    return jnp.where(jnp.asarray(active), jnp.maximum(beta, 0), 0)


def _above_zero(eigenvalues):
    rounding = len(eigenvalues) * jnp.finfo(eigenvalues.dtype).eps * jnp.max(jnp.abs(eigenvalues))
    return eigenvalues > rounding


def _modes(B, Sigma):
    """(beta descending, Sigma^(-1/2) v_i in the columns)."""
    beta, vectors = jnp.linalg.eigh(whitened(B, Sigma))
    return beta[::-1], (inverse_root(Sigma) @ vectors)[:, ::-1]


def _checked(B, Sigma, kappa, m):
    symmetric(B=B)
    positive_definite(Sigma=Sigma)
    if np.shape(B) != np.shape(Sigma):
        raise ValueError(f"`Sigma` must have the shape of `B`, {np.shape(B)}, but got shape {np.shape(Sigma)}.")
    number(kappa=kappa)
    positive(kappa=kappa)
    integer(1, m=m)
    return with_one_dtype(B, Sigma, kappa)
