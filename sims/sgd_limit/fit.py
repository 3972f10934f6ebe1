"""Roots of a chain of positions, fitted to its fluctuations by least squares."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from theory.sgd_limit import phase_space_covariance


def fitted_roots(moments):
    """(memory, pull) of w' = memory w - pull x, by least squares from sums of xx, xw, ww, xw', ww'."""
    xx, xw, ww, ahead_x, ahead_w = moments
    determinant = xx * ww - xw**2
    return (xx * ahead_w - xw * ahead_x) / determinant, (xw * ahead_w - ww * ahead_x) / determinant


def regime_of(memory, pull):
    """(regime, angle, decay) of the larger root of z^2 - (1 + memory - pull) z + memory."""
    P = 1 + memory - pull
    square = P**2 - 4 * memory
    gap = jnp.sqrt(jnp.abs(square))
    size = jnp.where(square < 0, jnp.sqrt(jnp.abs(memory)), (jnp.abs(P) + gap) / 2)
    angle = jnp.where(square < 0, jnp.arctan2(gap, P), jnp.where(P < 0, jnp.pi, 0.0))
    code = jnp.where(size > 1, 3, jnp.where(square < 0, 1, jnp.where(P < 0, 2, 0)))
    return code.astype(P.dtype), angle, -jnp.log(size)


def standard_errors(beta, e, count):
    """How well so many steps of a stable chain tell the sign of D = (1 + beta - e)^2 - 4 beta, and 2 (1 + beta) - e."""
    position, cross, motion = (np.asarray(c) for c in phase_space_covariance(1.0, e, beta, 1))
    P = 1 + beta - e
    for by_beta, by_e in ((2 * P - 4, -2 * P), (2.0, -1.0)):
        spread = position * by_beta**2 + motion * by_e**2 + 2 * cross * by_beta * by_e
        yield np.sqrt(e**2 * spread / (position * motion - cross**2) / count)
