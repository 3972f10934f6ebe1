"""Wide linear networks with several outputs: conserved matrix, exact solution, kernel, implicit bias of a mode."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import finite, integer, nonnegative, positive, require, together, traced, with_one_dtype
from theory.lazy_rich.parameters import layer_strengths
from theory.roots import safe_sqrt

# Longest composed step in units of the inverse spread of the exponents: a longer one is singular in rounding.
LONGEST_STEP = 4.0


def conserved_matrix(
    W: ArrayLike, A: ArrayLike, *, eta_a: ArrayLike = 1.0, eta_w: ArrayLike = 1.0
) -> Float[Array, "h h"]:
    r"""Conserved matrix of a wide linear network :math:`f = A^\top W x` under gradient flow.

    .. math:: \Delta = \eta_w A A^\top - \eta_a W W^\top

    Args:
        W: First layer. Shape (h, d).
        A: Second layer. Shape (h, c).
        eta_a: Learning rate of A, positive; relative. A number.
        eta_w: Learning rate of W, positive; relative. A number.

    Returns:
        Delta. Shape (h, h).

    Valid: any loss of f and any data.
    Raises: ValueError if the shapes do not match, a rate is not positive, or values are not finite.
    Source: arXiv:2406.06158 [paper] at unit rates; rates derived here.
    Checked: adaptive integration (1e-9); `conserved_quantity` at h = c = 1.
    """
    W, A, eta_a, eta_w = _network(W, A, eta_a, eta_w)
    return eta_w * A @ A.T - eta_a * W @ W.T


def _network(W, A, eta_a, eta_w, **others):
    positive(eta_a=eta_a, eta_w=eta_w)
    finite(W=W, A=A, eta_a=eta_a, eta_w=eta_w, **others)
    W, A, *rest = with_one_dtype(W, A, eta_a, eta_w, *others.values())
    if W.ndim != 2 or A.ndim != 2 or W.shape[0] != A.shape[0]:
        raise ValueError(f"`W` and `A` must have shapes (h, d) and (h, c), but got {W.shape} and {A.shape}.")
    return W, A, *rest


def _require_product(name, matrix, W, A):
    if matrix.shape != (W.shape[1], A.shape[1]):
        raise ValueError(f"`{name}` must have shape (d, c) = {(W.shape[1], A.shape[1])}, but got {matrix.shape}.")


def conserved_matrix_step(
    W: ArrayLike,
    A: ArrayLike,
    G: ArrayLike,
    h: ArrayLike,
    *,
    eta_a: ArrayLike = 1.0,
    eta_w: ArrayLike = 1.0,
) -> Float[Array, "h h"]:
    r"""Exact change of the conserved matrix in one step of gradient descent.

    .. math:: \Delta' - \Delta = h^2 \eta_a\eta_w \big[\eta_a W G G^\top W^\top - \eta_w A G^\top G A^\top\big]

    of the simultaneous step :math:`W \mathrel{-}= h\eta_w A G^\top,\ A \mathrel{-}= h\eta_a W G`.

    Args:
        W: First layer before the step. Shape (h, d).
        A: Second layer before the step. Shape (h, c).
        G: Gradient of the loss by beta = W^T A, X^T (X beta - Y) for half the squared error. Shape (d, c).
        h: Step size, in units of time. A number.
        eta_a: Learning rate of A, positive; relative. A number.
        eta_w: Learning rate of W, positive; relative. A number.

    Returns:
        The change of `conserved_matrix`. Shape (h, h).

    Valid: exact at every step size.
    Raises: ValueError as `conserved_matrix`.
    Source: derived here.
    Checked: one step (1e-12); `conserved_step` at h = c = 1.
    """
    W, A, eta_a, eta_w, G, h = _network(W, A, eta_a, eta_w, G=G, h=h)
    _require_product("G", G, W, A)
    inner, outer = W @ G, A @ G.T
    return h**2 * eta_a * eta_w * (eta_a * inner @ inner.T - eta_w * outer @ outer.T)


def matrix_flow(
    t: ArrayLike,
    W0: ArrayLike,
    A0: ArrayLike,
    beta_star: ArrayLike,
    steps: int | None = None,
    *,
    eta_a: ArrayLike = 1.0,
    eta_w: ArrayLike = 1.0,
) -> Float[Array, "... d c"]:
    r"""Product of a wide linear network under gradient flow, exactly, for any start with Delta = delta I.

    With :math:`Z = [\sqrt{\eta_a} W, \sqrt{\eta_w} A]` and :math:`g = \sqrt{\eta_a\eta_w}`,

    .. math:: Z^\top Z(t) = e^{\Gamma t} Z_0^\top \Big[I + Z_0 \int_0^t e^{2\Gamma u} du\, Z_0^\top\Big]^{-1}
        Z_0 e^{\Gamma t}, \qquad
        \Gamma = \begin{pmatrix} -\frac\delta2 I_d & g\beta_* \\ g\beta_*^\top & \frac\delta2 I_c \end{pmatrix}

    whose off-diagonal block is g beta. Steps are composed: :math:`Z \leftarrow L^{-1} Z e^{\Gamma dt}` with L the
    Cholesky factor of the bracket.

    Args:
        t: Times, zero or positive and finite. Shape (T,), or any.
        W0: First layer at the start. Shape (h, d).
        A0: Second layer at the start. Shape (h, c).
        beta_star: The solution X^+ Y. Shape (d, c).
        steps: Number of composed steps up to each time; if None enough for the largest one, which needs concrete
            arguments. More than the spread of the eigenvalues of Gamma times t / 8.
        eta_a: Learning rate of A, positive; relative. A number.
        eta_w: Learning rate of W, positive; relative. A number.

    Returns:
        beta = W^T A. Shape (T, d, c).

    Valid: whitened data, X^T X = I, and half the squared error; Delta = delta I, which needs h <= c for delta > 0
        and h <= d for delta < 0.
    Raises: ValueError for t < 0, shapes that do not match, Delta not a multiple of I, or a rate that is not positive
        (concrete values only); and where traced arguments leave `steps` open.
    Source: derived here; it contains `gradient_flow` at h = c = 1.
    Checked: reference values, adaptive integration of five shapes (1e-10), `gradient_flow`, float32, delta = 0;
        simulation `sims.lazy_rich`.
    """
    nonnegative(t=t)
    finite(t=t)
    W, A, eta_a, eta_w, beta_star, t = _network(W0, A0, eta_a, eta_w, beta_star=beta_star, t=t)
    _require_product("beta_star", beta_star, W, A)
    (h, d), c = W.shape, A.shape[1]
    Delta = conserved_matrix(W, A, eta_a=eta_a, eta_w=eta_w)
    delta = jnp.trace(Delta) / h
    if not traced(Delta):
        off = np.abs(np.asarray(Delta - delta * jnp.eye(h, dtype=Delta.dtype))).max()
        size = np.asarray(eta_w * jnp.sum(A**2) + eta_a * jnp.sum(W**2))
        tolerance = np.finfo(Delta.dtype).eps ** 0.5 * size
        require(off <= tolerance, "W0", "such that Delta is a multiple of I, up to rounding", off)
    g = jnp.sqrt(eta_a * eta_w)
    Gamma = jnp.block(
        [
            [-delta / 2 * jnp.eye(d, dtype=W.dtype), g * beta_star],
            [g * beta_star.T, delta / 2 * jnp.eye(c, dtype=W.dtype)],
        ]
    )
    rates, modes = jnp.linalg.eigh(Gamma)
    if steps is None:
        if traced(t, rates):
            raise ValueError("`steps` must be given where the arguments are traced, but got None.")
        steps = max(1, math.ceil(float(jnp.max(t, initial=0.0) * (rates[-1] - rates[0])) / LONGEST_STEP))
    else:
        integer(1, steps=steps)
    Z0 = jnp.concatenate([jnp.sqrt(eta_a) * W, jnp.sqrt(eta_w) * A], axis=1) @ modes

    def until(time):
        dt = time / steps
        grown = jnp.exp(rates * dt)[None, :]
        # The integral of e^{2 rate u}, whose limit at rate = 0 is dt.
        moving = rates != 0
        twice = jnp.where(moving, 2 * rates, 1.0)
        integral = jnp.where(moving, jnp.expm1(twice * dt) / twice, dt)[None, :]

        def step(_, Z):
            L = jnp.linalg.cholesky(jnp.eye(h, dtype=Z.dtype) + (Z * integral) @ Z.T)
            return jax.scipy.linalg.solve_triangular(L, Z * grown, lower=True)

        Z = jax.lax.fori_loop(0, steps, step, Z0) @ modes.T
        return Z[:, :d].T @ Z[:, d:] / g

    return jax.lax.map(until, t.ravel()).reshape((*t.shape, d, c))


def layer_grams(
    beta: ArrayLike,
    delta: ArrayLike,
    width: int,
    *,
    eta_a: ArrayLike = 1.0,
    eta_w: ArrayLike = 1.0,
) -> tuple[Float[Array, "c c"], Float[Array, "d d"]]:
    r"""Gram matrices of the two layers of a wide linear network, from its product and its imbalance.

    .. math:: \eta_w A^\top A = \sum_{i \le h} \frac{\kappa_i + \delta}2\, v_i v_i^\top, \qquad
        \eta_a W^\top W = \sum_{i \le h} \frac{\kappa_i - \delta}2\, u_i u_i^\top, \qquad
        \beta = \sum_i \sigma_i u_i v_i^\top, \quad \kappa_i = \sqrt{\delta^2 + 4\eta_a\eta_w\sigma_i^2}

    For h = c the first is :math:`\frac12(\sqrt{\delta^2 I + 4\eta_a\eta_w\beta^\top\beta} + \delta I)`, and for h = d
    the second likewise with :math:`\beta\beta^\top` and -delta.

    Args:
        beta: The product W^T A, of rank h. Shape (d, c).
        delta: The conserved quantity; Delta = delta I. A number.
        width: Number h of hidden neurons, from 1 to min(d, c).
        eta_a: Learning rate of A, positive; relative. A number.
        eta_w: Learning rate of W, positive; relative. A number.

    Returns:
        (eta_w A^T A, eta_a W^T W), shapes (c, c) and (d, d).

    Valid: rank(beta) = h; zero singular values are right on the side where h fills the space (A for h = c, W for
        h = d), and open on the other.
    Raises: ValueError if beta is no matrix, or width is not a whole number from 1 to min(d, c).
    Source: derived here.
    Checked: weights along adaptive integrations (1e-8), both square-root forms.
    """
    finite(beta=beta, delta=delta)
    integer(1, width=width)
    beta, delta, eta_a, eta_w = with_one_dtype(beta, delta, eta_a, eta_w)
    if beta.ndim != 2:
        raise ValueError(f"`beta` must have shape (d, c), but got {beta.shape}.")
    require(width <= min(beta.shape), "width", f"at most min(d, c) = {min(beta.shape)}", width)
    u, sigma, v = jnp.linalg.svd(beta, full_matrices=False)
    outer, inner = layer_strengths(sigma[:width], delta, eta_a=eta_a, eta_w=eta_w)
    return (v[:width].T * outer[None, :]) @ v[:width], (u[:, :width] * inner[None, :]) @ u[:, :width].T


def wide_ntk_matrix(
    beta: ArrayLike,
    delta: ArrayLike,
    width: int,
    *,
    eta_a: ArrayLike = 1.0,
    eta_w: ArrayLike = 1.0,
) -> Float[Array, "cd cd"]:
    r"""Operator of the neural tangent kernel of a wide linear network, on the stacked columns of a d x c matrix.

    .. math:: \dot\beta = -G\,(\eta_w A^\top A) - (\eta_a W^\top W)\,G, \qquad
        M = \eta_w A^\top A \otimes I_d + I_c \otimes \eta_a W^\top W

    Args:
        beta: The product W^T A, of rank h. Shape (d, c).
        delta: The conserved quantity; Delta = delta I. A number.
        width: Number h of hidden neurons, from 1 to min(d, c).
        eta_a: Learning rate of A, positive; relative. A number.
        eta_w: Learning rate of W, positive; relative. A number.

    Returns:
        M, for `kernel_distance` on whitened data. Shape (c d, c d).

    Valid: as `layer_grams`. Funnel networks (d > h = c) are lazy for delta -> infinity and delayed rich for
        delta -> -infinity, inverted funnels the reverse, square ones lazy in both; all rich at delta = 0 and small
        scale.
    Raises: ValueError as `layer_grams`.
    Source: derived here; arXiv:2406.06158 for the regimes.
    Checked: velocity of beta (1e-8), `ntk_matrix` at c = 1, the regimes of the three shapes.
    """
    outer, inner = layer_grams(beta, delta, width, eta_a=eta_a, eta_w=eta_w)
    c, d = len(outer), len(inner)
    return jnp.kron(outer, jnp.eye(d, dtype=outer.dtype)) + jnp.kron(jnp.eye(c, dtype=outer.dtype), inner)


def hyperbolic_entropy(
    sigma: ArrayLike, delta: ArrayLike, *, eta_a: ArrayLike = 1.0, eta_w: ArrayLike = 1.0
) -> Float[Array, "..."]:
    r"""Potential of the mirror flow of the singular values of a wide linear network.

    .. math:: \Phi(\sigma) = \frac1k \Big[\sigma \operatorname{asinh} \frac{k\sigma}{|\delta|}
        - \sqrt{\sigma^2 + \frac{\delta^2}{k^2}} + \frac{|\delta|}k\Big], \qquad
        \Phi'' = \frac1{\sqrt{\delta^2 + k^2\sigma^2}}, \qquad k = 2\sqrt{\eta_a\eta_w}

    Args:
        sigma: Singular value, any sign. Shape (...).
        delta: The conserved quantity, not 0. Shape (...).
        eta_a: Learning rate of A, positive; relative. Shape (...).
        eta_w: Learning rate of W, positive; relative. Shape (...).

    Returns:
        Phi: like |sigma| for delta -> 0 and like sigma^2 for |delta| -> infinity. Shape: broadcast.

    Valid: task-aligned modes; by itself no global bias, for singular vectors move.
    Raises: ValueError for delta = 0, a rate that is not positive, or values that are not finite.
    Source: arXiv:2406.06158 [paper]; rates derived here.
    Checked: second derivative (1e-10), both limits, mirror flow of `fitted_norm`.
    """
    positive(eta_a=eta_a, eta_w=eta_w)
    finite(sigma=sigma, delta=delta, eta_a=eta_a, eta_w=eta_w)
    if not traced(delta):
        require(np.asarray(delta) != 0, "delta", "different from 0, where the entropy is infinite", delta)
    sigma, delta, eta_a, eta_w = together(sigma, delta, eta_a, eta_w)
    k = 2 * jnp.sqrt(eta_a * eta_w)
    width = jnp.abs(delta) / k
    return (sigma * jnp.arcsinh(sigma / width) - sigma**2 / (safe_sqrt(sigma**2 + width**2) + width)) / k
