"""The matrix that pulls an encoder's last layer at any point of training: which features it learns next."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.nn import softmax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import finite, nonnegative, number, positive, with_one_dtype
from theory.ssl_collapse.covariances import inverse_root
from theory.ssl_collapse.landscape import LOSSES, effective_landscape

PAIRS = ("augmented", "positive_in_denominator", "clean")


def effective_matrix(
    W: ArrayLike,
    x: ArrayLike,
    x_plus: ArrayLike,
    loss: str = "infonce_distance",
    temperature: ArrayLike = 1.0,
    alpha: ArrayLike = 1.0,
    weight_decay: ArrayLike = 0.0,
    *,
    pairs: str = "augmented",
    clean: ArrayLike | None = None,
) -> Float[Array, "d d"]:
    r"""Matrix B_eff that pulls the last layer W of an encoder, from two views of the same inputs.

    .. math:: \nabla_W L = -2 W B_{\rm eff}(W)

    of distance-InfoNCE, with the pairs tilted towards those that W brings close,

    .. math:: B_{\rm eff} = \frac1{2\tau} E_x E_{\chi \sim p(\cdot|x)} (x - \chi)(x - \chi)^\top
        - \frac\alpha{2\tau} E (x - x^+)(x - x^+)^\top - \lambda I, \qquad p(\chi|x) \propto e^{-|W(x - \chi)|^2/2\tau}

    W is stationary iff W B_eff = 0. Then the loss falls along a collapsed direction v (W v = 0), at the rate
    2 v^T B_eff v of ln |W v|, iff v^T B_eff v > 0.

    Args:
        W: Last layer. Shape (m, d).
        x: Features of one view, its anchors. Shape (n, d).
        x_plus: Features of the other view of the same inputs; its n - 1 other rows are an anchor's negatives. Shape
            (n, d).
        loss: As in `effective_landscape`.
        temperature: tau of InfoNCE, positive. A number.
        alpha: Weight of InfoNCE's alignment term, zero or positive. A number.
        weight_decay: lambda of lambda |W|_F^2, zero or positive. A number.
        pairs: Pairs of InfoNCE: "augmented"; "positive_in_denominator" (the positive beside the negatives); "clean"
            (repulsion between the rows of `clean`).
        clean: Features without augmentation, for "clean" pairs alone. Shape (n, d).

    Returns:
        B_eff. Shape (d, d).

    Valid: exact, for the loss of this very minibatch, features of any distribution.
    Raises: ValueError for shapes that do not fit, features that are not finite, an unknown loss or kind of pairs, or a
        number outside its range (concrete values only).
    Source: derived here, in the setting of Ziyin et al. (2023); of infonce_distance the form of Jing et al. (2022).
    Checked: gradients of the minibatch losses by autodiff (1e-12); the Gaussian limit; a brute-force double sum.
    """
    shape = np.shape(x)
    if len(shape) != 2 or shape[0] < 2:
        raise ValueError(f"`x` must have the shape (n, d) with n >= 2, but got shape {shape}.")
    if np.shape(x_plus) != shape:
        raise ValueError(f"`x_plus` must have the shape of `x`, {shape}, but got shape {np.shape(x_plus)}.")
    if np.ndim(W) != 2 or np.shape(W)[1] != shape[1]:
        raise ValueError(f"`W` must have the shape (m, {shape[1]}), but got shape {np.shape(W)}.")
    if loss not in LOSSES:
        raise ValueError(f"`loss` must be one of {', '.join(LOSSES)}, but got {loss}.")
    if pairs not in PAIRS:
        raise ValueError(f"`pairs` must be one of {', '.join(PAIRS)}, but got {pairs}.")
    if (pairs == "clean") != (clean is not None):
        raise ValueError("`clean` must be given with pairs of clean features, and only then.")
    if pairs != "augmented" and not loss.startswith("infonce"):
        raise ValueError(f"`pairs` must be augmented for {loss}, but got {pairs}.")
    number(temperature=temperature, alpha=alpha, weight_decay=weight_decay)
    positive(temperature=temperature)
    nonnegative(alpha=alpha, weight_decay=weight_decay)
    finite(W=W, x=x, x_plus=x_plus)
    anchors, others = (x, x_plus) if clean is None else (clean, clean)
    if np.shape(anchors) != shape:
        raise ValueError(f"`clean` must have the shape of `x`, {shape}, but got shape {np.shape(clean)}.")
    W, x, x_plus, anchors, others, tau, alpha, decay = with_one_dtype(
        W, x, x_plus, anchors, others, temperature, alpha, weight_decay
    )
    n = len(x)
    aligned, apart = _symmetric(x.T @ x_plus / n), (x - x_plus).T @ (x - x_plus) / (2 * n)
    f, g = anchors @ W.T, others @ W.T
    own = jnp.eye(n, dtype=bool) if pairs != "positive_in_denominator" else jnp.zeros((n, n), bool)
    match loss:
        case "infonce_distance":
            distances = jnp.sum(f**2, 1)[:, None] + jnp.sum(g**2, 1)[None, :] - 2 * f @ g.T
            p = softmax(jnp.where(own, -jnp.inf, -distances / (2 * tau)), axis=1)
            squares = anchors.T @ anchors + (others * jnp.sum(p, 0)[:, None]).T @ others
            push = (squares / 2 - _symmetric(anchors.T @ p @ others)) / n
            B = (push - alpha * apart) / tau
        case "infonce_dot":
            p = softmax(jnp.where(own, -jnp.inf, f @ g.T / tau), axis=1)
            B = (alpha * aligned - _symmetric(anchors.T @ p @ others) / n) / tau
        case "spectral":
            products = jnp.where(own, 0.0, f @ g.T)
            B = 2 * aligned - 2 * _symmetric(x.T @ products @ x_plus) / (n * (n - 1))
        case "barlow":
            G, M = x.T @ x_plus / n, W.T @ W
            B = 2 * aligned - G @ M @ G.T - G.T @ M @ G
        case _:
            B = -apart
    return B - decay * jnp.eye(len(B), dtype=B.dtype)


def _symmetric(X):
    return (X + X.T) / 2


def gaussian_effective_matrix(
    W: ArrayLike,
    A0: ArrayLike,
    C: ArrayLike,
    loss: str = "infonce_distance",
    temperature: ArrayLike = 1.0,
    alpha: ArrayLike = 1.0,
    weight_decay: ArrayLike = 0.0,
) -> Float[Array, "d d"]:
    r"""`effective_matrix` of Gaussian features and infinitely many negatives.

    .. math:: B_{\rm eff} = B - 2\kappa\Sigma M\Sigma, \qquad
        \tfrac1{2\tau}\Sigma^{1/2}\big[(I + T)^{-1} + (I + T)^{-2}\big]\Sigma^{1/2} - \tfrac\alpha\tau C - \lambda I

    the second of infonce_distance, M = W^T W, T = Sigma^(1/2) M Sigma^(1/2) / tau.

    Args:
        W: Last layer. Shape (m, d).
        A0: Covariance of two views of one input. Shape (d, d).
        C: Covariance of the augmentation noise. Shape (d, d).
        loss: As in `effective_landscape`.
        temperature: tau of InfoNCE, positive. A number.
        alpha: Weight of InfoNCE's alignment term, zero or positive. A number.
        weight_decay: lambda of lambda |W|_F^2, zero or positive. A number.

    Returns:
        B_eff. Shape (d, d).

    Valid: Gaussian features (any, for spectral, barlow and alignment), infinite N, negatives augmented.
    Raises: ValueError as `effective_landscape`, or for a W that does not fit.
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: minus the derivative of the loss in M, by autodiff (1e-12); many samples (2 %); W = 0.
    """
    B, Sigma, kappa = effective_landscape(A0, C, loss, temperature, alpha, weight_decay)
    if np.ndim(W) != 2 or np.shape(W)[1] != len(B):
        raise ValueError(f"`W` must have the shape (m, {len(B)}), but got shape {np.shape(W)}.")
    W, Sigma, C, tau, alpha, decay = with_one_dtype(W, Sigma, C, temperature, alpha, weight_decay)
    M = W.T @ W
    if loss != "infonce_distance":
        return B - 2 * kappa * Sigma @ M @ Sigma
    one = jnp.eye(len(B), dtype=B.dtype)
    inverse = inverse_root(Sigma)
    root = Sigma @ inverse
    tilt = jnp.linalg.inv(one + root @ M @ root.T / tau)
    return _symmetric(root @ (tilt + tilt @ tilt) @ root.T) / (2 * tau) - alpha * C / tau - decay * one


class Dormant(NamedTuple):
    """Directions that an encoder does not use, the most wanted first.

    pull, shape (d,), is v^T B_eff v, and the columns v of directions, shape (d, d), are unit vectors; nan where there
    is none, for the encoder uses the others.
    """

    pull: Float[Array, " d"]
    directions: Float[Array, "d d"]


def dormant_directions(W: ArrayLike, B_eff: ArrayLike, tolerance: ArrayLike = 1e-3) -> Dormant:
    r"""Spectrum of B_eff on the null space of W: what the encoder would learn next, and how fast.

    .. math:: P B_{\rm eff} P v = b v, \qquad \frac{d}{dt} \ln|W v| = 2 b

    Args:
        W: Last layer. Shape (m, d).
        B_eff: As `effective_matrix` gives it. Shape (d, d).
        tolerance: Singular values of W up to this count as zero, in the unit of W; zero or positive. A number.

    Returns:
        `Dormant(pull, directions)`. A direction grows, and is no longer collapsed, where its pull is positive.

    Valid: gradient flow; a W of rank below m (at rank m no dimension of the embedding is free, and a new direction can
        only take the place of another). Exact at a stationary W, where the signs depend on no choice of coordinates.
    Raises: ValueError for shapes that do not fit or a negative tolerance (concrete values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: growth of small perturbations by gradient steps; full rank, rank zero.
    """
    nonnegative(tolerance=tolerance)
    d = np.shape(W)[-1]
    if np.ndim(W) != 2 or np.shape(B_eff) != (d, d):
        raise ValueError(f"`B_eff` must have the shape ({d}, {d}), but got shape {np.shape(B_eff)}.")
    W, B, tolerance = with_one_dtype(W, B_eff, tolerance)
    strengths, V = jnp.linalg.eigh(W.T @ W)
    used = strengths > tolerance**2
    null = jnp.where(used[None, :], 0.0, V)
    P = null @ null.T
    # What the encoder uses is moved below everything else.
    shift = 2 * jnp.linalg.norm(B) + 1
    pull, directions = jnp.linalg.eigh(P @ B @ P - shift * (jnp.eye(d, dtype=B.dtype) - P))
    free = jnp.arange(d) < jnp.sum(~used)
    pull, directions = pull[::-1], directions[:, ::-1]
    return Dormant(jnp.where(free, pull, jnp.nan), jnp.where(free[None, :], directions, jnp.nan))
