r"""InfoNCE of Gaussian data with the similarity -|f - f'|^2 / 2 tau at its minimum, for infinitely many negatives.

Beyond the quartic landscape: the loss at the minimum is a sum over modes, and its strengths have a closed form.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import integer, nonnegative, number, positive, require, together, with_one_dtype
from theory.ssl_collapse.covariances import checked_covariances, inverse_root

PAIRS = ("augmented", "clean", "clean_negatives")
SERIES = 12  # terms: 0.04^12 is below the last bit


def infonce_mode_strength(q: ArrayLike | None = None, *, margin: ArrayLike | None = None) -> Float[Array, "..."]:
    r"""Embedding variance of a mode at the minimum of InfoNCE, in units of the temperature.

    .. math:: s = \frac2{\sqrt{1 + 8q} - 1} - 1 = \frac{4(1 - q)}{(3 + \sqrt{1 + 8q})\,u}, \qquad
        u = \frac{4q}{\sqrt{1 + 8q} + 1}

    Args:
        q: Noise fraction: eigenvalue of Sigma^(-1/2) (alpha C + lambda tau I) Sigma^(-1/2). Shape (...).
        margin: 1 - q, instead of q: near the threshold q itself would lose it to rounding. Shape (...).

    Returns:
        s: 0 for q >= 1 (collapsed), infinite for q <= 0 (no minimum). Shape (...).

    Valid: exact for Gaussian data, infinitely many negatives, augmented as anchors are. Gradients on either side of the
        threshold, and 0 where the mode is collapsed.
    Raises: ValueError unless exactly one of `q` and `margin` is given, or for nan (concrete values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: mpmath (1e-14) from q = 1e-12 to 1 - 1e-12, float32 near the threshold, its stationarity;
        simulations `sims.ssl_collapse.strength` and `sims.ssl_collapse.phase_diagram`.
    """
    if (q is None) == (margin is None):
        raise ValueError("Give one of `q` and `margin`, and not the other.")
    given = {"q": q} if margin is None else {"margin": margin}
    ((name, value),) = given.items()
    (x,) = together(value)
    require(~jnp.isnan(x), name, "a number", value)
    q, margin = (x, 1 - x) if margin is None else (1 - x, x)
    alive = (margin > 0) & (q > 0)
    safe_q = jnp.where(alive, q, 0.5)
    root = jnp.sqrt(1 + 8 * safe_q)
    strength = jnp.where(alive, margin, 0.5) * (root + 1) / ((3 + root) * safe_q)
    return jnp.where(alive, strength, jnp.where(q <= 0, jnp.inf, 0.0))


def infonce_strength_near_threshold(margin: ArrayLike, order: int = 2) -> Float[Array, "..."]:
    r"""Expansion of the strength of a mode just above its threshold.

    .. math:: s = \tfrac23\hat\rho + \tfrac{16}{27}\hat\rho^2 + O(\hat\rho^3), \qquad \hat\rho = 1 - q

    The first term is the quartic landscape's: it is too small by a share 8/9 of the margin.

    Args:
        margin: rho-hat = 1 - q; at or below 0 the mode is collapsed. Shape (...).
        order: Number of terms, 1 (the quartic landscape) or 2.

    Returns:
        s, in units of the temperature. Shape (...).

    Valid: margin << 1.
    Raises: ValueError for another order.
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: the error's order in the margin against `infonce_mode_strength`.
    """
    if order not in (1, 2):
        raise ValueError(f"`order` must be 1 or 2, but got {order}.")
    (margin,) = together(margin)
    x = jnp.maximum(margin, 0)
    return 2 / 3 * x + (16 / 27 * x**2 if order == 2 else 0)


def infonce_mode_loss(
    s: ArrayLike, q: ArrayLike | None = None, *, margin: ArrayLike | None = None
) -> Float[Array, "..."]:
    r"""Share of one mode in the loss of InfoNCE, of an encoder aligned with the modes.

    .. math:: \ell(s) = qs - \tfrac12\ln(1 + s) - \tfrac12\frac s{1 + s}

    Args:
        s: Embedding variance of the mode in units of the temperature, zero or positive. Shape (...).
        q: Noise fraction, as in `infonce_mode_strength`. Shape (...).
        margin: 1 - q, instead of q. Shape (...).

    Returns:
        The loss of the mode, 0 at s = 0. Shape: the arguments, broadcast.

    Valid: as `infonce_mode_strength`. Free of cancellation at small s.
    Raises: ValueError unless exactly one of `q` and `margin` is given, or for s < 0 (concrete values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: mpmath (1e-12), float32, its minimum.
    """
    if (q is None) == (margin is None):
        raise ValueError("Give one of `q` and `margin`, and not the other.")
    nonnegative(s=s)
    s, x = together(s, q if margin is None else margin)
    q, margin = (x, 1 - x) if margin is None else (1 - x, x)
    # s - ln(1 + s) by its series in z = s / (2 + s), with the two halves of the loss that cancel to first order.
    low = jnp.where(s < 0.5, s, 0.0)
    z = low / (2 + low)
    series = sum(z ** (2 * k) / (2 * k + 3) for k in range(SERIES))
    bracket = (low * z - 2 * z**3 * series) / 2 + low**2 / (1 + low) / 2
    high = jnp.where(s < 0.5, 1.0, s)
    far = q * high - jnp.log1p(high) / 2 - high / (1 + high) / 2
    return jnp.where(s < 0.5, bracket - margin * low, far)


def infonce_variance(
    a: ArrayLike,
    c: ArrayLike,
    temperature: ArrayLike = 1.0,
    alpha: ArrayLike = 1.0,
    weight_decay: ArrayLike = 0.0,
    *,
    pairs: str = "augmented",
) -> Float[Array, "..."]:
    r"""Embedding variance of a mode of a common eigenbasis at the minimum of InfoNCE, by which pairs are augmented.

    .. math:: \tau s\,\frac{a + c}{g}, \qquad s = \frac1u - 1, \quad u = \frac{4q}{1 + \sqrt{1 + 8rq}}, \quad
        q = \frac{\alpha c + \lambda\tau}g

    =================  ================  ===========  ========  ===================================
    pairs              repulsion of      g            r         the mode is alive while
    =================  ================  ===========  ========  ===================================
    augmented          two views         a + c        1         a > (alpha - 1) c + lambda tau
    clean              two clean points  a            1         a > alpha c + lambda tau
    clean_negatives    a view and a      a            1 + c/a   a > (alpha - 1/2) c + lambda tau
                       clean point
    =================  ================  ===========  ========  ===================================

    Args:
        a: Variance of the clean input along the mode, positive. Shape (...).
        c: Variance of the augmentation along it, zero or positive. Shape (...).
        temperature: tau, positive. Shape (...).
        alpha: Weight of the alignment term, zero or positive. Shape (...).
        weight_decay: lambda of lambda |W|_F^2, zero or positive. Shape (...).
        pairs: "augmented", "clean" or "clean_negatives"; both views of a positive pair are augmented in all.

    Returns:
        The mode's eigenvalue of S = W Sigma W^T, Sigma with the augmentation, in the unit of the squared embedding
        that tau has: 0 where it is collapsed, infinite where nothing holds it. Shape: the arguments, broadcast.

    Valid: exact for Gaussian data, infinitely many negatives, commuting A0 and C, and enough outputs (m >= d).
    Raises: ValueError for arguments outside their ranges or unknown pairs (concrete values only).
    Source: derived here, in the setting of Ziyin et al. (2023); clean negatives as in Jing et al. (2022).
    Checked: descent on `infonce_loss` of the same pairs, `infonce_minimum`; simulations `sims.ssl_collapse.pairs`
        and `sims.ssl_collapse.phase_diagram`.
    """
    if pairs not in PAIRS:
        raise ValueError(f"`pairs` must be one of {', '.join(PAIRS)}, but got {pairs}.")
    positive(a=a, temperature=temperature)
    nonnegative(c=c, alpha=alpha, weight_decay=weight_decay)
    a, c, tau, alpha, decay = together(a, c, temperature, alpha, weight_decay)
    scale = a + c if pairs == "augmented" else a
    r = 1 + c / a if pairs == "clean_negatives" else jnp.ones_like(a)
    load = alpha * c + decay * tau
    q = load / scale
    pull = {"augmented": a + (1 - alpha) * c, "clean": a - alpha * c, "clean_negatives": a + (0.5 - alpha) * c}[pairs]
    margin = (pull - decay * tau) / scale  # (1 + r) / 2 - q
    alive = (margin > 0) & (load > 0)
    safe_q = jnp.where(alive, q, 0.5)
    root = jnp.sqrt(1 + 8 * r * safe_q)
    # Two forms of 1/u - 1; the first cancels at the threshold, the second at q = 0.
    strength = jnp.where(q < 0.25, (1 + root - 4 * safe_q) / (4 * safe_q), 4 * margin / (root + 4 * safe_q - 1))
    variance = tau * strength * (a + c) / scale
    return jnp.where(alive, variance, jnp.where(load > 0, 0.0, jnp.inf))


class InfoNCEMinimum(NamedTuple):
    r"""The minimum of InfoNCE: every mode's noise fraction, and what the encoder does with it.

    q, shape (d,), ascending; strengths, shape (d,), the eigenvalues of S / tau on these modes, 0 beyond the first m;
    gram, W^T W, shape (d, d); the loss there.
    """

    q: Float[Array, " d"]
    strengths: Float[Array, " d"]
    gram: Float[Array, "d d"]
    loss: Float[Array, ""]


def infonce_minimum(
    A0: ArrayLike,
    C: ArrayLike,
    m: int,
    temperature: ArrayLike = 1.0,
    alpha: ArrayLike = 1.0,
    weight_decay: ArrayLike = 0.0,
) -> InfoNCEMinimum:
    r"""Global minimum of InfoNCE over linear encoders, A0 and C commuting or not.

    .. math:: \Sigma^{-1/2}(\alpha C + \lambda\tau I)\Sigma^{-1/2} = \sum_i q_i v_iv_i^\top, \qquad
        W^\top W = \tau\,\Sigma^{-1/2}\sum_{i \le m} s(q_i)\, v_iv_i^\top\,\Sigma^{-1/2}, \qquad
        L = \sum_{i \le m} \ell(s_i)

    Args:
        A0: Covariance of clean inputs. Shape (d, d).
        C: Covariance of the augmentation noise. Shape (d, d).
        m: Outputs of the encoder, 1 or more.
        temperature: tau, positive. A number.
        alpha: Weight of the alignment term, zero or positive. A number.
        weight_decay: lambda of lambda |W|_F^2, zero or positive. A number.

    Returns:
        `InfoNCEMinimum(q, strengths, gram, loss)`.

    Valid: exact for Gaussian data and infinitely many negatives, augmented as anchors are. Gradients of the Gram matrix
        at distinct q.
    Raises: ValueError for matrices that are no covariances or do not fit, a number outside its range, or where no
        minimum exists because a mode has neither noise nor decay (concrete values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: descent on `infonce_loss` from random starts (1e-6); through `infonce_variance`, which it equals in a
        common eigenbasis, simulation `sims.ssl_collapse.phase_diagram`.
    """
    A0, C, Sigma = checked_covariances(A0, C)
    integer(1, m=m)
    number(temperature=temperature, alpha=alpha, weight_decay=weight_decay)
    positive(temperature=temperature)
    nonnegative(alpha=alpha, weight_decay=weight_decay)
    A0, C, Sigma, tau, alpha, decay = with_one_dtype(A0, C, Sigma, temperature, alpha, weight_decay)
    d, identity = len(A0), jnp.eye(len(A0), dtype=A0.dtype)
    root = inverse_root(Sigma)

    def in_white(X):
        Y = root @ X @ root
        return (Y + Y.T) / 2

    q, v = jnp.linalg.eigh(in_white(alpha * C + decay * tau * identity))
    # The same eigenvectors give 1 - q without the rounding of q.
    margin = jnp.sum(v * (in_white(A0 - (alpha - 1) * C - decay * tau * identity) @ v), axis=0)
    require(
        jnp.min(q) > 8 * d * jnp.finfo(q.dtype).eps * jnp.max(q), "alpha C + lambda tau I",
        "positive definite, for without noise or decay along a mode there is no minimum", jnp.min(q),
    )  # fmt: skip
    learned = jnp.arange(d) < m
    near = infonce_mode_strength(margin=margin)
    strengths = jnp.where(learned, jnp.where(q < 0.5, infonce_mode_strength(q), near), 0.0)
    U = root @ v
    gram = tau * (U * strengths[None, :]) @ U.T
    loss = jnp.where(q < 0.5, infonce_mode_loss(strengths, q), infonce_mode_loss(strengths, margin=margin))
    return InfoNCEMinimum(q, strengths, gram, jnp.sum(jnp.where(learned, loss, 0.0)))
