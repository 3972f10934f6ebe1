r"""Normal perturbations of an invariant set as a product of random matrices: what acts on them in one step.

A two-layer block :math:`f = \sum_j a_j \sigma(w_j \cdot x)` with inputs x in d dimensions (a bias is one more constant
input) and p outputs. On an invariant set the Hessian of every sample has no normal-tangent block, so that a normal
perturbation obeys :math:`z_{k+1} = (I - \eta M_{b_k}) z_k` to first order; for a loss that is a mean over the batch,
M_b is the batch mean of the samples' M.
"""

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import below_one, finite, nonnegative, positive, with_one_dtype


def sign_set_hessian(x: ArrayLike, residual: ArrayLike, slope: ArrayLike = 1.0) -> Float[Array, "... n n"]:
    r"""Normal Hessian of a sample's loss where a neuron vanishes, w = 0 and a = 0.

    .. math:: M = \sigma'(0) \begin{pmatrix} 0 & x r^\top \\ r x^\top & 0 \end{pmatrix}_{(w, a)}

    Args:
        x: Inputs. Shape (..., d).
        residual: r, the derivative of the sample's loss by the p outputs; f - y for half the squared error. Shape
            (..., p), with p = 1 for a single output.
        slope: sigma'(0), of an activation with sigma(0) = 0. Shape (...).

    Returns:
        M, coordinates w before a; n = d + p. Shape: the leading ones, broadcast, then (n, n).

    Valid: exact, for activations that are differentiable at 0. With sigma(0) != 0 the set is not invariant.
    Raises: ValueError for arguments that are not finite (concrete values only) or shapes that do not broadcast.
    Source: derived here, for the set of arXiv:2306.04251; the source lists a before w.
    Checked: autodiff of a two-layer network with one and with three outputs (1e-14).
    """
    finite(x=x, residual=residual, slope=slope)
    x, r, _, slope, _ = _vectors(x, residual, residual, slope, 0.0)
    return _blocks(jnp.zeros((*x.shape, x.shape[-1]), x.dtype), slope[..., None, None] * _outer(x, r))


def permutation_set_hessian(
    x: ArrayLike, residual: ArrayLike, a: ArrayLike, slope: ArrayLike, curvature: ArrayLike
) -> Float[Array, "... n n"]:
    r"""Normal Hessian of a sample's loss where two neurons are equal, w_1 = w_2 = w and a_1 = a_2 = a.

    .. math:: M = \begin{pmatrix} (r\cdot a)\,\sigma''(w \cdot x)\,x x^\top & \sigma'(w\cdot x)\,x r^\top \\
        \sigma'(w \cdot x)\,r x^\top & 0 \end{pmatrix}_{((w_1 - w_2) / \sqrt 2,\ (a_1 - a_2) / \sqrt 2)}

    Args:
        x: Inputs. Shape (..., d).
        residual: r, the derivative of the sample's loss by the p outputs; f - y for half the squared error. Shape
            (..., p), with p = 1 for a single output.
        a: Outgoing weights of either neuron. Shape (..., p).
        slope: sigma' at w . x. Shape (...).
        curvature: sigma'' at w . x. Shape (...).

    Returns:
        M, coordinates w before a; n = d + p. Shape: the leading ones, broadcast, then (n, n).

    Valid: exact, for any activation that is twice differentiable at w . x.
    Raises: ValueError for arguments that are not finite (concrete values only) or shapes that do not broadcast.
    Source: derived here, for the set of arXiv:2306.04251.
    Checked: printed values; autodiff of a two-layer network with one and with three outputs (1e-14);
        simulation `sims.stochastic_collapse.permutation`.
    """
    finite(x=x, residual=residual, a=a, slope=slope, curvature=curvature)
    x, r, a, slope, curvature = _vectors(x, residual, a, slope, curvature)
    ww = ((r * a).sum(-1) * curvature)[..., None, None] * _outer(x, x)
    return _blocks(ww, slope[..., None, None] * _outer(x, r))


def heavy_ball_cocycle(
    M: ArrayLike, eta: ArrayLike, beta: ArrayLike = 0.0, weight_decay: ArrayLike = 0.0
) -> Float[Array, "... m m"]:
    r"""Matrix of one step of heavy ball on a normal perturbation and its momentum.

    .. math:: \begin{pmatrix} z' \\ p' \end{pmatrix} = \begin{pmatrix} I - \eta\tilde M & \beta I \\
        -\eta\tilde M & \beta I \end{pmatrix} \begin{pmatrix} z \\ p \end{pmatrix}, \qquad \tilde M = M + \lambda I

    Args:
        M: Normal Hessian of the batch's loss. Shape (..., n, n).
        eta: Learning rate, positive. Shape (...).
        beta: Momentum, from 0 to below 1. Shape (...).
        weight_decay: lambda, zero or positive; added to the gradient, as times the parameters. Shape (...).

    Returns:
        The matrix that acts on (z, p), with p' = beta p - eta M z and z' = z + p'; m = 2 n. Shape: the leading ones,
        broadcast, then (m, m).

    Valid: exact to first order in z; at beta = 0 the exponent is that of I - eta M.
    Raises: ValueError for eta <= 0, beta outside [0, 1), weight_decay < 0, an M that is not finite (concrete values
        only) or not square.
    Source: derived here.
    Checked: two steps of heavy ball on a quadratic loss (1e-14); determinant beta^n;
        simulation `sims.stochastic_collapse.permutation`.
    """
    positive(eta=eta)
    below_one(beta=beta)
    nonnegative(weight_decay=weight_decay)
    finite(M=M, eta=eta, weight_decay=weight_decay)
    if np.ndim(M) < 2 or np.shape(M)[-1] != np.shape(M)[-2]:
        raise ValueError(f"`M` must be square, but got shape {np.shape(M)}.")
    M, eta, beta, decay = with_one_dtype(M, eta, beta, weight_decay)
    lead = _lead(M.shape[:-2], eta.shape, beta.shape, decay.shape)
    M = jnp.broadcast_to(M, (*lead, *M.shape[-2:]))
    one = jnp.broadcast_to(jnp.eye(M.shape[-1], dtype=M.dtype), M.shape)
    eta, beta, decay = (jnp.broadcast_to(v, lead)[..., None, None] for v in (eta, beta, decay))
    push = eta * (M + decay * one)
    return _square(one - push, beta * one, -push, beta * one)


def _vectors(x, residual, a, slope, curvature):
    """x of shape (..., d), residual and a of shape (..., p), slope and curvature of shape (...): one leading shape."""
    vectors = {"x": x, "residual": residual, "a": a}
    for name, vector in vectors.items():
        if np.ndim(vector) == 0:
            raise ValueError(f"`{name}` must have an axis of its own, but got a number.")
    if np.shape(residual)[-1] != np.shape(a)[-1]:
        outputs = np.shape(residual)[-1]
        raise ValueError(f"`a` must have as many outputs as `residual`, {outputs}, but got {np.shape(a)[-1]}.")
    *vectors, slope, curvature = with_one_dtype(*vectors.values(), slope, curvature)
    lead = _lead(*(v.shape[:-1] for v in vectors), slope.shape, curvature.shape)
    vectors = [jnp.broadcast_to(v, (*lead, v.shape[-1])) for v in vectors]
    return *vectors, jnp.broadcast_to(slope, lead), jnp.broadcast_to(curvature, lead)


def _lead(*shapes):
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        raise ValueError(f"The arguments' leading shapes do not broadcast: {list(shapes)}.") from None


def _outer(u, v):
    return u[..., :, None] * v[..., None, :]


def _blocks(ww, wa):
    """The symmetric matrix of these blocks, without one of a with a."""
    zero = jnp.zeros((*wa.shape[:-2], wa.shape[-1], wa.shape[-1]), wa.dtype)
    return _square(ww, wa, jnp.swapaxes(wa, -1, -2), zero)


def _square(a, b, c, d):
    return jnp.concatenate([jnp.concatenate([a, b], -1), jnp.concatenate([c, d], -1)], -2)
