"""Pretraining of a two-layer linear network on the source population."""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import finite, nonnegative, positive, require, together, traced


def pretraining_norm(t: ArrayLike, source_norm: ArrayLike, initial_norm: ArrayLike) -> Float[Array, "..."]:
    r"""Norm of the learned regression vector during pretraining of a two-layer network.

    .. math:: |\beta(t)| = \frac{B b_0 e^{4Bt}}{B + b_0 (e^{4Bt} - 1)}
        = \frac{B}{1 + (B/b_0 - 1)\, e^{-4Bt}}

    Args:
        t: Time of gradient flow on |beta - beta_s|^2, zero or positive. Shape (...).
        source_norm: B = |beta_s|, positive, in units of y. Shape (...).
        initial_norm: b_0 = |W_1(0)^T u + w_2(0)|^2 / 4, positive, u = beta_s / B, in units of y.
            Shape (...).

    Returns:
        |beta(t)|, in units of y. Shape: the arguments, broadcast.

    Valid: balanced rank-one start, exactly; small random start, after a transient e^{-2Bt}.
    Raises: ValueError for t < 0, or B or b_0 not positive and finite (concrete values only).
    Source: arXiv:2410.08194, pretraining dynamics; the rate derived here.
    Checked: integration of the layers' flow (1e-8), t = 0, half-time and inf.
    """
    nonnegative(t=t)
    positive(source_norm=source_norm, initial_norm=initial_norm)
    finite(source_norm=source_norm, initial_norm=initial_norm)
    t, B, b0 = together(t, source_norm, initial_norm)
    return B / (1 + (B / b0 - 1) * jnp.exp(-4 * B * t))


def pretraining_half_time(source_norm: ArrayLike, initial_norm: ArrayLike) -> Float[Array, "..."]:
    r"""Time at which pretraining of a two-layer network has learned half the source's norm.

    .. math:: t_{1/2} = \frac1{4B} \ln\Big(\frac B{b_0} - 1\Big) \approx \frac1{4B} \ln\frac B{b_0}

    Args:
        source_norm: B = |beta_s|, positive, in units of y. Shape (...).
        initial_norm: b_0, positive and below B, in units of y, as in `pretraining_norm`.
            Shape (...).

    Returns:
        The time; negative if b_0 > B/2, the half lying before the start. Shape: broadcast.

    Valid: as `pretraining_norm`; only logarithmic in the initial weights.
    Raises: ValueError for B or b_0 not positive and finite, or b_0 >= B (concrete values only).
    Source: derived here.
    Checked: `pretraining_norm` there is B/2.
    """
    positive(source_norm=source_norm, initial_norm=initial_norm)
    finite(source_norm=source_norm, initial_norm=initial_norm)
    B, b0 = together(source_norm, initial_norm)
    if not traced(B, b0):
        require(b0 < B, "initial_norm", "below `source_norm`", b0)
    return jnp.log(B / b0 - 1) / (4 * B)
