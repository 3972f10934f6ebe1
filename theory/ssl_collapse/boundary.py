"""Phase diagrams of collapse: where a mode dies, how many survive, and the phase in a word."""

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from theory.arguments import integer, nonnegative, positive, require, together, with_one_dtype
from theory.ssl_collapse.landscape import check_loss
from theory.ssl_collapse.stationary import n_active

PHASES = ("none", "dimensional", "complete")


def collapse_boundary(
    augmentation: ArrayLike,
    loss: str = "infonce_distance",
    temperature: ArrayLike = 1.0,
    alpha: ArrayLike = 1.0,
    weight_decay: ArrayLike = 0.0,
    n_negatives: ArrayLike = jnp.inf,
    *,
    pairs: str = "augmented",
) -> Float[Array, "..."]:
    r"""Variance of a clean mode below which it collapses.

    A mode of clean variance a survives in the landscape if a > a_c; the line is straight in every pair of parameters.

    .. math:: a_c = (\alpha - 1)\sigma^2 + \lambda\tau \ \text{ (infonce\_distance)}, \qquad
        \frac{\lambda\tau}\alpha \ \text{ (infonce\_dot)}, \qquad
        \frac\lambda2 \ \text{ (spectral, barlow)}, \qquad \infty \ \text{ (alignment)}

    Args:
        augmentation: Variance sigma^2 of the augmentation on the mode, zero or positive. Shape (...).
        loss: As in `effective_landscape`.
        temperature: tau, positive. Shape (...).
        alpha: Weight of InfoNCE's alignment term, zero or positive. Shape (...).
        weight_decay: lambda of lambda |W|_F^2, zero or positive. Shape (...).
        n_negatives: N, at least 1: counts only with the positive in the denominator. Shape (...).
        pairs: As in `effective_landscape`. "clean": alpha sigma^2 + lambda tau. "positive_in_denominator": (1 + 1/N)
            times the line of distances; lambda tau / (alpha - 1 / (N + 1)) for products.

    Returns:
        a_c, negative where no mode collapses, infinite where all do. Shape: broadcast.

    Valid: A0 and C with common eigenvectors; any data. The transition is continuous: strength grows as a - a_c.
    Raises: ValueError for an unknown loss or kind of pairs, or a number outside its range (concrete values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: the sign of B's eigenvalues on both sides of the line, for every loss and kind of pairs.
    """
    check_loss(loss, pairs)
    nonnegative(augmentation=augmentation, alpha=alpha, weight_decay=weight_decay)
    positive(temperature=temperature)
    require(jnp.asarray(n_negatives) >= 1, "n_negatives", "1 or more", n_negatives)
    noise, tau, alpha, decay, N = together(augmentation, temperature, alpha, weight_decay, n_negatives)
    match loss, pairs:
        case "infonce_distance", "augmented":
            return (alpha - 1) * noise + decay * tau
        case "infonce_distance", "clean":
            return alpha * noise + decay * tau
        case "infonce_distance", _:
            return (1 + 1 / N) * ((alpha - 1) * noise + decay * tau)
        case "infonce_dot", _:
            pull = alpha if pairs == "augmented" else alpha - 1 / (N + 1)
            return jnp.where(pull > 0, decay * tau / jnp.where(pull > 0, pull, 1), jnp.inf)
        case "alignment", _:
            return jnp.full_like(noise, jnp.inf)
    return decay / 2


def learned_directions(clean: ArrayLike, boundary: ArrayLike, m: int) -> Int[Array, "..."]:
    r"""Number of modes that survive.

    .. math:: \min\big(m, \#\{i : a_i > a_c\}\big)

    Args:
        clean: Variances a_i of the clean modes, zero or positive. Shape (d,).
        boundary: Variance a_c of `collapse_boundary`, of one augmentation for all modes. Shape (...).
        m: Dimension of the embedding, 1 or more.

    Returns:
        The rank of the encoder at the minimum. Shape of `boundary`.

    Valid: augmentation noise alike in all directions, any data near the origin.
    Raises: ValueError for variances that are negative or no vector, or m < 1 (concrete values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: `n_active` of the landscape.
    """
    if np.ndim(clean) != 1:
        raise ValueError(f"`clean` must have shape (d,), but got shape {np.shape(clean)}.")
    nonnegative(clean=clean)
    integer(1, m=m)
    clean, boundary = with_one_dtype(clean, boundary)
    above = jnp.expand_dims(clean, range(boundary.ndim)) > boundary[..., None]
    return jnp.minimum(m, jnp.sum(above, -1))


def collapse_code(B: ArrayLike, m: int) -> Int[Array, ""]:
    r"""Number of the phase of the minimum; `collapse_phase` has the words.

    .. math:: 0: n_+(B) \ge \min(m, d), \qquad 1: 0 < n_+(B) < \min(m, d), \qquad 2: B \preceq 0

    Args:
        B: Matrix that pulls the encoder from the origin. Shape (d, d).
        m: Dimension of the embedding, 1 or more.

    Returns:
        0 none, 1 dimensional, 2 complete collapse. A whole number.

    Valid: as `n_active`.
    Raises: ValueError as `n_active`.
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: both sides of both edges.
    """
    rank, most = n_active(B, m), min(m, len(jnp.asarray(B)))
    return jnp.where(rank == 0, 2, jnp.where(rank < most, 1, 0))


def collapse_phase(B: ArrayLike, m: int) -> str:
    """Phase of the minimum, in a word.

    Args:
        B: Matrix that pulls the encoder from the origin. Shape (d, d).
        m: Dimension of the embedding, 1 or more.

    Returns:
        "none", "dimensional" or "complete", of collapse.

    Valid: concrete values; `collapse_code` inside `jit`. An embedding of one dimension has no dimensional collapse.
    Raises: ValueError as `n_active`.
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: both sides of both edges.
    """
    return PHASES[int(collapse_code(B, m))]
