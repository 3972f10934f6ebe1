r"""Rare classes: which of them an encoder learns, and how strongly, by loss.

Class k appears with frequency p_k and amplitude h_k along an axis of its own, under augmentation noise of variance c_k:
a_k = p_k h_k^2, Sigma_k = a_k + c_k, rho_k = a_k / Sigma_k.
"""

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import nonnegative, positive, require, together, with_one_dtype
from theory.ssl_collapse.infonce import infonce_variance
from theory.ssl_collapse.landscape import LOSSES
from theory.ssl_collapse.normalization import alignment_fill

ROUNDING = 1e-5  # of single precision, in a sum of frequencies


def class_strengths(
    p: ArrayLike,
    h: ArrayLike,
    noise: ArrayLike,
    loss: str,
    temperature: ArrayLike = 1.0,
    alpha: ArrayLike = 1.0,
    weight_decay: ArrayLike = 0.0,
    variance: ArrayLike = 1.0,
) -> Float[Array, "..."]:
    r"""Embedding variance of every class at the minimum of a loss.

    =================  ====================================================================================
    loss               variance of class k
    =================  ====================================================================================
    infonce_distance   tau s*(q_k), q_k = (alpha c_k + lambda tau) / Sigma_k
    infonce_dot        tau (alpha rho_k - lambda tau / Sigma_k)_+
    spectral           (rho_k - lambda / 2 Sigma_k)_+
    barlow             (1 - lambda / 2 a_k)_+ / rho_k
    alignment          E |f|^2 for the class of the largest rho, 0 for the others (normalised embeddings)
    =================  ====================================================================================

    Args:
        p: Frequencies of the classes, their sum 1. Shape (..., K).
        h: Amplitudes, positive. Shape (..., K).
        noise: Variance c of the augmentation along the classes' axes, positive. Shape (..., K).
        loss: As in `effective_landscape`; "alignment" alone is normalised to E |f|^2 = `variance`.
        temperature: tau of InfoNCE, positive. Shape (..., K), a number as a rule.
        alpha: Weight of InfoNCE's alignment term, zero or positive. Likewise.
        weight_decay: lambda of lambda |W|_F^2, zero or positive; alignment has none. Likewise.
        variance: E |f|^2 of alignment, positive. Shape (...).

    Returns:
        The variances, the embedding being at least K wide. Shape (..., K).

    Valid: exact for spectral, barlow and alignment, any data; for InfoNCE if the classes' coordinates are Gaussian,
        which one-hot classes are not: `one_hot_minimum`.
    Raises: ValueError for frequencies that are negative or do not sum to 1, an unknown loss, or an argument outside its
        range (concrete values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: descent on the population losses; simulation `sims.ssl_collapse.imbalance`.
    """
    if loss not in LOSSES:
        raise ValueError(f"`loss` must be one of {', '.join(LOSSES)}, but got {loss}.")
    frequencies(p)
    positive(h=h, noise=noise, temperature=temperature, variance=variance)
    nonnegative(alpha=alpha, weight_decay=weight_decay)
    p, h, c, tau, alpha, decay = together(p, h, noise, temperature, alpha, weight_decay)
    a = p * h**2
    rho = a / (a + c)
    match loss:
        case "infonce_distance":
            seen = jnp.where(a > 0, a, 1)
            return jnp.where(a > 0, infonce_variance(seen, c, tau, alpha, decay), 0)
        case "infonce_dot":
            return tau * jnp.maximum(alpha * rho - decay * tau / (a + c), 0)
        case "spectral":
            return jnp.maximum(rho - decay / (2 * (a + c)), 0)
        case "barlow":
            seen = jnp.where(a > 0, a, 1)
            return jnp.where(a > 0, jnp.maximum(1 - decay / (2 * seen), 0) * (a + c) / seen, 0)
        case _:
            return alignment_fill(1 - rho, with_one_dtype(variance, p)[0])


def critical_frequency(
    h: ArrayLike,
    noise: ArrayLike,
    loss: str,
    temperature: ArrayLike = 1.0,
    alpha: ArrayLike = 1.0,
    weight_decay: ArrayLike = 0.0,
) -> Float[Array, "..."]:
    r"""Frequency below which a class is not learned.

    .. math:: p_c = \frac{(\alpha - 1)c + \lambda\tau}{h^2} \ \text{(infonce_distance)}, \qquad
        \frac{\lambda\tau}{\alpha h^2} \ \text{(infonce_dot)}, \qquad \frac\lambda{2h^2} \ \text{(spectral, barlow)}

    Args:
        h: Amplitude of the class, positive. Shape (...).
        noise: Variance c of the augmentation along its axis, zero or positive. Shape (...).
        loss: "infonce_distance", "infonce_dot", "spectral" or "barlow".
        temperature: tau, positive. Shape (...).
        alpha: Weight of InfoNCE's alignment term, positive. Shape (...).
        weight_decay: lambda, zero or positive. Shape (...).

    Returns:
        p_c: not above 0 where every class is learned, 1 or more where none is. Shape: the arguments, broadcast.

    Valid: exact for spectral and barlow; for InfoNCE where no other class is learned, or Gaussian coordinates: of
        one-hot classes those that are learned move it (`one_hot_minimum`).
    Raises: ValueError for another loss or an argument outside its range (concrete values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: `class_strengths` on both sides; simulation `sims.ssl_collapse.imbalance`.
    """
    if loss not in LOSSES[:4]:
        raise ValueError(f"`loss` must be one of {', '.join(LOSSES[:4])}, but got {loss}.")
    positive(h=h, temperature=temperature, alpha=alpha)
    nonnegative(noise=noise, weight_decay=weight_decay)
    h, c, tau, alpha, decay = together(h, noise, temperature, alpha, weight_decay)
    match loss:
        case "infonce_distance":
            needed = (alpha - 1) * c + decay * tau
        case "infonce_dot":
            needed = decay * tau / alpha
        case _:
            needed = decay / 2
    return needed / h**2


def squared_response(strengths: ArrayLike, p: ArrayLike, h: ArrayLike, noise: ArrayLike) -> Float[Array, "..."]:
    r"""Squared length of the embedding of a clean input of every class.

    .. math:: |W \hat x_k|^2 = h_k^2\, \frac{s_k}{\Sigma_k}

    Args:
        strengths: Embedding variances s of the classes, zero or positive. Shape (..., K).
        p: Frequencies, their sum 1. Shape (..., K).
        h: Amplitudes, positive. Shape (..., K).
        noise: Variance of the augmentation along the classes' axes, positive. Shape (..., K).

    Returns:
        The squares, in the unit of `strengths`. Shape (..., K).

    Valid: encoders whose W^T W is diagonal on the classes' axes, as at the minima of `class_strengths`.
    Raises: ValueError for frequencies that are negative or do not sum to 1, or an argument outside its range (concrete
        values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: a linear encoder; simulation `sims.ssl_collapse.imbalance`.
    """
    frequencies(p)
    nonnegative(strengths=strengths)
    positive(h=h, noise=noise)
    s, p, h, c = together(strengths, p, h, noise)
    return h**2 * s / (p * h**2 + c)


def minority_ratio(strengths: ArrayLike, p: ArrayLike) -> Float[Array, "..."]:
    r"""Strength of the rarest class over that of the most frequent one: how robust a loss is to imbalance.

    .. math:: s_{\mathrm{argmin}\, p} / s_{\mathrm{argmax}\, p}

    Of classes of one amplitude and one noise, without decay and at alpha = 1: alignment, normalised, 0; InfoNCE by
    distance, below spectral; spectral and InfoNCE by product, rho_min / rho_max; Barlow rho_max / rho_min, above 1.

    Args:
        strengths: Embedding variances of the classes. Shape (..., K).
        p: Frequencies, their sum 1. Shape (..., K).

    Returns:
        The ratio. Shape (...).

    Valid: the majority is learned.
    Raises: ValueError for frequencies that are negative or do not sum to 1 (concrete values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: the order of the losses over random classes; simulation `sims.ssl_collapse.imbalance`.
    """
    frequencies(p)
    s, p = together(strengths, p)
    ends = jnp.stack([jnp.argmin(p, axis=-1), jnp.argmax(p, axis=-1)], axis=-1)
    minority, majority = jnp.moveaxis(jnp.take_along_axis(s, ends, axis=-1), -1, 0)
    return minority / majority


def frequencies(p: ArrayLike) -> None:
    """Requirement that `p`, shape (..., K), are frequencies of classes."""
    if not np.ndim(p):
        raise ValueError("`p` must be a list of frequencies, but got a number.")
    nonnegative(p=p)
    total = jnp.sum(jnp.asarray(p), axis=-1)
    require(jnp.abs(total - 1) <= ROUNDING, "p", "of sum 1", total)
