"""Kernels of nonlinear Gaussian features (dual activations): what a wide random layer does to inner products."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import finite, nonnegative, require, together, traced
from theory.roots import safe_sqrt

Activation = str | Callable[[Array], Array]


@jax.custom_jvp
def arc_cosine_kernel(cosine: Float[Array, "..."]) -> Float[Array, "..."]:
    r"""Mean product of two rectified standard Gaussians with a given correlation.

    .. math:: \mathbb E[(z)_+ (z')_+] = \frac{\sqrt{1 - u^2} + u\,(\pi - \arccos u)}{2\pi}

    Args:
        cosine: The correlation u of z and z', in [-1, 1]; dimensionless. Shape (...).

    Returns:
        The kernel, between 0 (u = -1) and 1/2 (u = 1). Shape (...).

    Valid: exact; values of u beyond [-1, 1] by rounding are clipped.
    Source: Cho and Saul (2009), arc-cosine kernel of degree one, times 1/2.
    Checked: mpmath integral over the wedge (1e-10), derivative at u = -1 and 1.
    """
    u = jnp.clip(cosine, -1.0, 1.0)
    return (jnp.sqrt(1 - u**2) + u * (jnp.pi - jnp.arccos(u))) / (2 * jnp.pi)


@arc_cosine_kernel.defjvp
def _arc_cosine_kernel_jvp(primals, tangents):
    (u,), (du,) = primals, tangents
    slope = (jnp.pi - jnp.arccos(jnp.clip(u, -1.0, 1.0))) / (2 * jnp.pi)
    return arc_cosine_kernel(u), slope * du


def relu_kernel(weights: Float[Array, "..."], others: Float[Array, "..."]) -> Float[Array, "..."]:
    r"""Gram matrix of ReLU features under standard Gaussian inputs.

    .. math:: K_{ik} = \mathbb E_x[(a_i^\top x)_+ (c_k^\top x)_+]
        = \frac{|a_i||c_k|}{2\pi}\big(\sqrt{1 - u^2} + u(\pi - \arccos u)\big),
        \quad u = \frac{a_i^\top c_k}{|a_i||c_k|}

    Args:
        weights: Rows a_i, one per feature. Shape (m, d).
        others: Rows c_k. Shape (p, d).

    Returns:
        The Gram matrix, in units of |a||c|. Shape (m, p).

    Valid: exact for x ~ N(0, I_d).
    Raises: ValueError if the rows have different lengths.
    Source: Cho and Saul (2009); arXiv:2410.08194, section on ReLU networks.
    Checked: Monte Carlo; u = -1, 0, 1; homogeneity; gradients, also between equal rows.
    """
    if weights.ndim != 2 or others.ndim != 2 or weights.shape[1] != others.shape[1]:
        raise ValueError(
            "`weights` and `others` must be matrices with equally long rows, "
            f"but got shapes {weights.shape} and {others.shape}."
        )
    norms = safe_sqrt(jnp.sum(weights**2, axis=1, keepdims=True))
    other_norms = safe_sqrt(jnp.sum(others**2, axis=1, keepdims=True))
    units = weights / jnp.where(norms > 0, norms, 1.0)
    other_units = others / jnp.where(other_norms > 0, other_norms, 1.0)
    return norms * other_norms.T * arc_cosine_kernel(units @ other_units.T)


# Trapezoid nodes of a standard Gaussian: in one dimension fine enough for slopes as steep as 1/50.
REACH, PLANE_NODES, LINE_NODES = 9.0, 361, 4001


def _gaussian_nodes(count: int, dtype) -> tuple[Array, Array]:
    nodes = np.linspace(-REACH, REACH, count)
    weights = np.exp(-(nodes**2) / 2)
    return jnp.asarray(nodes, dtype), jnp.asarray(weights / weights.sum(), dtype)


def _mean_square(phi, q):
    nodes, weights = (x.reshape((1,) * q.ndim + (-1,)) for x in _gaussian_nodes(LINE_NODES, q.dtype))
    # A sum, not a matrix product, whose last bit would depend on how many q there are.
    return jnp.sum(phi(safe_sqrt(q)[..., None] * nodes) ** 2 * weights, axis=-1)


def _mean_product(phi, q, c):
    """E phi(x) phi(y) by sums over u = (x + y) / 2 and v = (x - y) / 2, which are independent; even in v."""
    u, weights = _gaussian_nodes(PLANE_NODES, q.dtype)
    v, of_v = u[PLANE_NODES // 2 :], weights[PLANE_NODES // 2 :].at[1:].multiply(2)

    def one(pair):
        along, across = safe_sqrt((pair[0] + pair[1]) / 2), safe_sqrt((pair[0] - pair[1]) / 2)
        x, y = (along * u[:, None] + sign * across * v[None, :] for sign in (1, -1))
        return weights @ (phi(x) * phi(y)) @ of_v

    return jax.lax.map(one, (q.ravel(), c.ravel())).reshape(q.shape)


def _erf(q, c):
    return 2 / jnp.pi * jnp.arcsin(2 * c / (1 + 2 * q))


def _erf_slope(q, c):
    return 4 / jnp.pi / jnp.sqrt((1 + 2 * q) ** 2 - 4 * c**2)


def _cosine(q, c):
    return jnp.where(q > 0, c / jnp.where(q > 0, q, 1.0), 1.0)


def _relu(q, c):
    return q * arc_cosine_kernel(_cosine(q, c))


def _relu_slope(q, c):
    return (jnp.pi - jnp.arccos(jnp.clip(_cosine(q, c), -1.0, 1.0))) / (2 * jnp.pi)


def _gelu_terms(q, c):
    A = 1 / 4 + jnp.arcsin(c / (1 + q)) / (2 * jnp.pi)
    D = (1 + q) ** 2 - c**2
    return A, 1 / (2 * jnp.pi * jnp.sqrt(D)), D, q**2 + c**2 * (1 - q) / (1 + q)


def _gelu(q, c):
    A, B, _, h = _gelu_terms(q, c)
    return c * A + B * h


def _gelu_slope(q, c):
    A, B, D, h = _gelu_terms(q, c)
    return A + c * B + B * c / D * h + 2 * B * c * (1 - q) / (1 + q)


CLOSED_FORMS = {
    "linear": (lambda q, c: c, lambda q, c: jnp.ones_like(c)),
    "erf": (_erf, _erf_slope),
    "relu": (_relu, _relu_slope),
    "gelu": (_gelu, _gelu_slope),
}
FUNCTIONS = {
    "linear": lambda x: x,
    "erf": jax.scipy.special.erf,
    "relu": jax.nn.relu,
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "tanh": jnp.tanh,
}


def activation_function(activation: Activation) -> Callable[[Array], Array]:
    """The elementwise function of an activation's name; a function is returned as it is.

    Raises: ValueError for an unknown name.
    """
    if callable(activation):
        return activation
    if activation not in FUNCTIONS:
        raise ValueError(f"`activation` must be a function or one of {', '.join(FUNCTIONS)}, but got {activation}.")
    return FUNCTIONS[activation]


@functools.cache
def _slope(phi):
    def slope(x):
        return jax.jvp(phi, (x,), (jnp.ones_like(x),))[1]

    return slope


def _formulas(activation: Activation):
    """(C, Cdot) as functions of q and c."""
    if activation in CLOSED_FORMS:
        return CLOSED_FORMS[activation]
    phi = activation_function(activation)
    return functools.partial(_mean_product, phi), functools.partial(_mean_product, _slope(phi))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _kernel(activation, q, c):
    return _formulas(activation)[0](q, c)


@_kernel.defjvp
def _kernel_jvp(activation, primals, tangents):
    """At fixed c/q the kernel is smooth in q up to c = q, and Price's theorem gives the slope along c."""
    (q, c), (dq, dc) = primals, tangents
    value, slope = _formulas(activation)
    cosine = _cosine(q, c)
    out, along = jax.jvp(lambda variance: value(variance, cosine * variance), (q,), (dq,))
    return out, along + slope(q, c) * (dc - cosine * dq)


def gaussian_kernel(
    activation: Activation, q: ArrayLike, c: ArrayLike
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    r"""Kernel of an activation and its derivative, for two Gaussians of equal variance.

    .. math:: C(q, c) = \mathbb E\,\phi(x)\phi(y), \qquad
        \dot C(q, c) = \mathbb E\,\phi'(x)\phi'(y) = \partial C / \partial c, \qquad
        \mathrm{Var}\,x = \mathrm{Var}\,y = q, \quad \mathrm{Cov}(x, y) = c

    ==========  =============================================================================================
    linear      :math:`C = c,\ \dot C = 1`
    erf         :math:`C = \frac2\pi\arcsin\frac{2c}{1+2q},\ \dot C = \frac4\pi[(1+2q)^2 - 4c^2]^{-1/2}`
    relu        :math:`C = q\,K(c/q)`, K the arc-cosine kernel, :math:`\dot C = \frac{\pi-\arccos(c/q)}{2\pi}`
    gelu        exact :math:`x\Phi(x)`: :math:`C = cA + Bh,\ \dot C = A + cB + \frac{Bc}{D}h +
                \frac{2Bc(1-q)}{1+q}` with :math:`A = \frac14 + \frac1{2\pi}\arcsin\frac c{1+q}`,
                :math:`D = (1+q)^2 - c^2`, :math:`B = \frac1{2\pi\sqrt D}`,
                :math:`h = q^2 + c^2\frac{1-q}{1+q}`
    tanh, any   trapezoid sum in :math:`(x \pm y)/2`, which is exact to rounding for analytic activations
    ==========  =============================================================================================

    Args:
        activation: "linear", "erf", "relu", "gelu" (exact), "tanh", or any elementwise JAX function.
        q: Variance, zero or positive; units of the preactivation squared. Shape (...).
        c: Covariance, from -q to q; the same units. Shape (...).

    Returns:
        (C, Cdot). Shapes: broadcast. The derivatives of C are exact and finite also at c = q.

    Valid: exact; sums to 1e-12 for tanh at q <= 25. A callable with a kink is summed to O(1e-3).
    Raises: ValueError for an unknown activation, a negative q, or |c| > q.
    Source: Price (1958); Williams (1997) for erf, Cho and Saul (2009) for ReLU, GELU derived here.
    Checked: mpmath on both sides of c = 0, Price's theorem, Monte Carlo.
    """
    activation_function(activation)
    nonnegative(q=q)
    finite(q=q, c=c)
    q, c = together(q, c)
    if not traced(q, c):
        require(np.abs(c) <= np.asarray(q) * (1 + 1e-6), "c", "between -q and q", c)
    c = c + jax.lax.stop_gradient(jnp.clip(c, -q, q) - c)  # the gradient of a clip is halved at its ends
    return _kernel(activation, q, c), _formulas(activation)[1](q, c)


def activation_moments(activation: Activation, q: ArrayLike) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    r"""Mean squares of an activation and of its slope, the kernel at c = q.

    .. math:: \mathbb E\,\phi(x)^2, \qquad \mathbb E\,\phi'(x)^2, \qquad x \sim \mathcal N(0, q)

    Args:
        activation: As in `gaussian_kernel`.
        q: Variance, zero or positive. Shape (...).

    Returns:
        The two mean squares. Shape (...).

    Valid: exact; sums in one dimension, to 1e-13 for tanh at q <= 2500.
    Raises: ValueError for an unknown activation or a negative q.
    Source: as `gaussian_kernel`.
    Checked: mpmath; `gaussian_kernel` at c = q.
    """
    phi = activation_function(activation)
    nonnegative(q=q)
    finite(q=q)
    (q,) = together(q)
    if activation in CLOSED_FORMS:
        return _kernel(activation, q, q), CLOSED_FORMS[activation][1](q, q)
    return _mean_square(phi, q), _mean_square(_slope(phi), q)
