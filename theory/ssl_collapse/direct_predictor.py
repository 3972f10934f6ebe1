"""DirectPred: a predictor that is set from the covariance of the embeddings instead of being trained."""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import finite, integer, nonnegative, positive_semidefinite, together, with_one_dtype
from theory.roots import safe_sqrt
from theory.ssl_collapse.byol import byol_fixed_points, checked_mode, rising
from theory.ssl_collapse.integration import flow_at


def direct_predictor(F: ArrayLike, eps: ArrayLike = 0.0) -> Float[Array, "m m"]:
    r"""Predictor set from the covariance of the embeddings.

    .. math:: W_p = U \operatorname{diag}(p_j)\,U^\top, \qquad p_j = \sqrt{s_j} + \epsilon \max_i s_i, \qquad
        F = E f f^\top = U \operatorname{diag}(s_j)\,U^\top

    Args:
        F: Covariance of the embeddings, or a moving average of it. Shape (m, m).
        eps: epsilon, zero or positive, per root of an embedding variance. A number.

    Returns:
        W_p. Shape (m, m).

    Valid: everywhere.
    Raises: ValueError for a matrix that is no covariance or for eps < 0 (concrete values only).
    Source: arXiv:2102.06810.
    Checked: its square at eps = 0; simulation `sims.ssl_collapse.direct_predictor`.
    """
    positive_semidefinite(F=F)
    nonnegative(eps=eps)
    F, eps = with_one_dtype(F, eps)
    s, U = jnp.linalg.eigh(F)
    p = safe_sqrt(s) + eps * jnp.max(s)
    return jnp.sum(U[:, None, :] * p[None, None, :] * U[None, :, :], axis=2)


def direct_predictor_strengths(
    a: ArrayLike, c: ArrayLike, weight_decay: ArrayLike, eps: ArrayLike = 0.0
) -> Float[Array, "... modes"]:
    r"""Embedding variances of an encoder trained with DirectPred, all modes that can live alive.

    A mode rests where its predictor eigenvalue is the :math:`p_+` of BYOL, whatever eps is:

    .. math:: \sqrt{s_j} + \epsilon \max_i s_i = p_{+,j}, \qquad
        \max_i s_i = \Big(\frac{2\max_i p_{+,i}}{1 + \sqrt{1 + 4\epsilon \max_i p_{+,i}}}\Big)^2

    Args:
        a: Clean variances, positive. Shape (..., modes).
        c: Augmentation variances, zero or positive. Shape (..., modes).
        weight_decay: eta, zero or positive. Shape (..., modes).
        eps: epsilon, zero or positive. Shape (..., modes).

    Returns:
        s_j; 0 for a mode above its critical decay, or one with p_+ <= eps max s, which too large an eps kills. Shape
        (..., modes).

    Valid: tau = 1. At eps = 0 the eigenvalues p follow `byol_flow` on the parabola at every time, for any a + c, and
        s = p^2; w^2 is s / (a + c).
    Raises: ValueError for an argument outside its range (concrete values only).
    Source: derived here; p_j of arXiv:2102.06810.
    Checked: zeros of the flow with its predictor set so; simulation `sims.ssl_collapse.direct_predictor`.
    """
    checked_mode(a, c, weight_decay)
    nonnegative(eps=eps)
    finite(eps=eps)
    a, c, eta, eps = together(a, c, weight_decay, eps)
    p = jnp.nan_to_num(byol_fixed_points(a, c, eta).stable, nan=0.0)
    top = jnp.max(p, axis=-1, keepdims=True)
    strongest = (2 * top / (1 + jnp.sqrt(1 + 4 * eps * top))) ** 2
    return jnp.maximum(p - eps * strongest, 0.0) ** 2


def direct_predictor_critical_start(
    strongest: ArrayLike, a: ArrayLike, c: ArrayLike, weight_decay: ArrayLike, eps: ArrayLike = 0.0
) -> Float[Array, "..."]:
    r"""Root of an embedding variance above which a mode survives, the strongest mode being at rest.

    .. math:: \sqrt{s_j(0)} > p_{-,j} - \epsilon \max_i s_i

    so that :math:`\epsilon\max_i s_i > p_{-,j}` rescues a mode from any start.

    Args:
        strongest: max_i s_i, zero or positive. Shape (...).
        a: Clean variance, positive. Shape (...).
        c: Augmentation variance, zero or positive. Shape (...).
        weight_decay: eta, zero or positive. Shape (...).
        eps: epsilon, zero or positive. Shape (...).

    Returns:
        The least root of s_j at the start: 0 where a mode is rescued from any, inf where it cannot live. Shape: the
        arguments, broadcast.

    Valid: max_i s_i constant.
    Raises: ValueError for an argument outside its range (concrete values only).
    Source: derived here, in the setting of Ziyin et al. (2023).
    Checked: the sign of the growth rate; simulation `sims.ssl_collapse.direct_predictor`.
    """
    checked_mode(a, c, weight_decay)
    nonnegative(eps=eps, strongest=strongest)
    finite(eps=eps, strongest=strongest)
    strongest, a, c, eta, eps = together(strongest, a, c, weight_decay, eps)
    stable, saddle = byol_fixed_points(a, c, eta)
    floor = eps * strongest
    return jnp.where(stable > floor, jnp.maximum(saddle - floor, 0.0), jnp.inf)


def direct_predictor_trajectory(
    times: ArrayLike,
    s: ArrayLike,
    a: ArrayLike,
    c: ArrayLike,
    weight_decay: ArrayLike,
    eps: ArrayLike = 0.0,
    *,
    steps: int = 100,
) -> Float[Array, "T ... modes"]:
    r"""Embedding variances under gradient flow of the encoder, its predictor set at every time.

    .. math:: \dot s_j = 2 s_j \big\{p_j [a_j - (a_j + c_j) p_j] - \eta\big\}, \qquad
        p_j = \sqrt{s_j} + \epsilon \max_i s_i

    Args:
        times: Rising times, zero or positive. Shape (T,).
        s: First embedding variances, zero or positive. Shape (..., modes).
        a: Clean variances, positive. Shape (..., modes).
        c: Augmentation variances, zero or positive. Shape (..., modes).
        weight_decay: eta, zero or positive. Shape (..., modes).
        eps: epsilon, zero or positive. Shape (..., modes).
        steps: Classical Runge-Kutta steps between two times.

    Returns:
        s_j. Shape (T, ..., modes).

    Valid: F without a moving average, tau = 1; steps of less than about 0.1 / rate each; error O(steps^-4).
    Raises: ValueError for an argument outside its range, or times that do not rise from 0 on (concrete values only).
    Source: derived here; p_j of arXiv:2102.06810.
    Checked: SciPy's integrator (1e-8), `byol_trajectory` at eps = 0; simulation `sims.ssl_collapse.direct_predictor`,
        order 1 in the step.
    """
    checked_mode(a, c, weight_decay)
    nonnegative(eps=eps, s=s)
    finite(eps=eps, s=s)
    integer(1, steps=steps)
    rising(times)
    times, *state = with_one_dtype(times, *together(s, a, c, weight_decay, eps))
    start, a, c, eta, eps = state

    def velocity(s):
        p = safe_sqrt(s) + eps * jnp.max(s, axis=-1, keepdims=True)
        return 2 * s * (p * (a - (a + c) * p) - eta)

    return flow_at(velocity, start, times, steps)
