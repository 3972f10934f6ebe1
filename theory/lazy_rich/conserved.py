"""The conserved quantity of a pair of layers, and how steps, noise and weight decay change it."""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import finite, nonnegative, positive, together, with_one_dtype
from theory.lazy_rich.parameters import batched, dot


def conserved_quantity(
    w: ArrayLike,
    a: ArrayLike,
    *,
    eta_a: ArrayLike = 1.0,
    eta_w: ArrayLike = 1.0,
    degree: ArrayLike = 1.0,
) -> Float[Array, "..."]:
    r"""Conserved quantity of a neuron under gradient flow, its imbalance.

    .. math:: \delta = k\,\eta_w a^2 - \eta_a \|w\|^2

    Args:
        w: Incoming weights, for many neurons the rows of W. Shape (..., d).
        a: Outgoing weight. Shape (...).
        eta_a: Learning rate of a, positive; relative. Shape (...).
        eta_w: Learning rate of w, positive; relative. Shape (...).
        degree: Degree k of the activation's homogeneity, positive: 1 for linear and (leaky) ReLU, 2 for z^2.
            Shape (...).

    Returns:
        delta: positive upstream, 0 balanced, negative downstream. Shape (...).

    Valid: gradient flow of any loss on any data, bias-free neurons; not momentum or Adam.
    Raises: ValueError for rates or a degree that are not positive, shapes that do not match, or values that are not
        finite (concrete values only).
    Source: arXiv:2406.06158 [paper] at unit rates and degree 1; the rest derived here.
    Checked: adaptive integration (1e-10) of one neuron and of leaky-ReLU and quadratic neurons.
    """
    positive(eta_a=eta_a, eta_w=eta_w, degree=degree)
    (w,), (a, eta_a, eta_w, degree) = batched({"w": w}, a=a, eta_a=eta_a, eta_w=eta_w, degree=degree)
    return degree * eta_w * a**2 - eta_a * dot(w, w)


def conserved_step(
    w: ArrayLike,
    a: ArrayLike,
    v: ArrayLike,
    h: ArrayLike,
    *,
    eta_a: ArrayLike = 1.0,
    eta_w: ArrayLike = 1.0,
    degree: ArrayLike = 1.0,
) -> Float[Array, "..."]:
    r"""Exact change of the conserved quantity in one step of gradient descent.

    .. math:: \Delta\delta = h^2 \eta_a\eta_w \Big[\frac{\eta_a}k (w^\top v)^2 - \eta_w a^2 \|v\|^2\Big]

    of the simultaneous step :math:`w \mathrel{+}= h\eta_w a v,\ a \mathrel{+}= h\eta_a w^\top v / k`. Sum it over the
    steps instead of subtracting two values of delta, which loses digits in float32.

    Args:
        w: Incoming weights before the step. Shape (..., d).
        a: Outgoing weight before the step. Shape (...).
        v: Drive, minus the gradient of the loss by beta = a w: X^T (y - X beta) for a linear neuron and half the
            squared error; :math:`\xi_i = -\sum_j \sigma'(w_i^\top x_j) x_j\,\partial L/\partial f_j` for any other.
            Shape (..., d).
        h: Step size, in units of time. Shape (...).
        eta_a: Learning rate of a, positive; relative. Shape (...).
        eta_w: Learning rate of w, positive; relative. Shape (...).
        degree: Degree k of the activation's homogeneity, positive. Shape (...).

    Returns:
        The change of `conserved_quantity`. Shape: broadcast.

    Valid: exact at every step size.
    Raises: ValueError as `conserved_quantity`.
    Source: derived here.
    Checked: one step of linear, leaky-ReLU and quadratic neurons (1e-12).
    """
    positive(eta_a=eta_a, eta_w=eta_w, degree=degree)
    (w, v), (a, h, eta_a, eta_w, k) = batched({"w": w, "v": v}, a=a, h=h, eta_a=eta_a, eta_w=eta_w, degree=degree)
    return h**2 * second_order_step(a, dot(w, v) ** 2 / k, dot(v, v), eta_a, eta_w)


def second_order_step(a, along2, v2, eta_a, eta_w):
    """The coefficient of h^2, of (w^T v)^2 and ||v||^2 or their means."""
    return eta_a * eta_w * (eta_a * along2 - eta_w * a**2 * v2)


def gradient_noise(beta: ArrayLike, X: ArrayLike, y: ArrayLike) -> tuple[Float[Array, " d"], Float[Array, "d d"]]:
    r"""Mean and covariance of the drive of one random sample.

    .. math:: v_j = n\,x_j(y_j - x_j^\top\beta), \qquad v = \frac1n\sum_j v_j, \qquad
        C = \frac1n \sum_j (v_j - v)(v_j - v)^\top

    Args:
        beta: The regression vector. Shape (d,).
        X: Inputs. Shape (n, d).
        y: Labels. Shape (n,).

    Returns:
        (v, C), shapes (d,) and (d, d); v = X^T (y - X beta).

    Valid: exact, for half the sum of squared errors.
    Raises: ValueError if the shapes do not match, or for values that are not finite (concrete values only).
    Source: derived here.
    Checked: through `conserved_sgd_step`, by enumeration of every batch.
    """
    finite(beta=beta, X=X, y=y)
    beta, X, y = with_one_dtype(beta, X, y)
    if X.ndim != 2 or beta.shape != X.shape[1:] or y.shape != X.shape[:1]:
        raise ValueError(
            "`beta`, `X` and `y` must have shapes (d,), (n, d) and (n,), "
            f"but got {beta.shape}, {X.shape} and {y.shape}."
        )
    n = X.shape[0]
    draws = n * X * (y - X @ beta)[:, None]
    v = jnp.mean(draws, axis=0)
    centred = draws - v[None, :]
    return v, centred.T @ centred / n


def conserved_sgd_step(
    w: ArrayLike,
    a: ArrayLike,
    v: ArrayLike,
    C: ArrayLike,
    batch: ArrayLike,
    h: ArrayLike,
    *,
    eta_a: ArrayLike = 1.0,
    eta_w: ArrayLike = 1.0,
) -> Float[Array, ""]:
    r"""Mean change of the conserved quantity in one step of stochastic gradient descent, exactly.

    .. math:: \mathbb E\,\Delta\delta = h^2 \eta_a\eta_w \Big[\eta_a \Big((w^\top v)^2 + \frac{w^\top C w}B\Big)
        - \eta_w a^2 \Big(\|v\|^2 + \frac{\operatorname{tr} C}B\Big)\Big]

    Args:
        w: Incoming weights. Shape (d,).
        a: Outgoing weight. A number.
        v: Mean drive, as from `gradient_noise`. Shape (d,).
        C: Covariance of the drive of one sample. Shape (d, d).
        batch: Size B of the batch, drawn with replacement; a whole number from 1, or inf. A number.
        h: Step size, in units of time. A number.
        eta_a: Learning rate of a, positive; relative. A number.
        eta_w: Learning rate of w, positive; relative. A number.

    Returns:
        The mean change. A number.

    Valid: exact at every step size and batch size; batch = inf is `conserved_step`.
    Raises: ValueError if C is not d x d, for a batch or rate that is not positive, or values that are not finite.
    Source: derived here.
    Checked: enumeration of every batch of two (1e-12).
    """
    positive(eta_a=eta_a, eta_w=eta_w, batch=batch)
    finite(C=C)
    (w, v), (a, h, eta_a, eta_w) = batched({"w": w, "v": v}, a=a, h=h, eta_a=eta_a, eta_w=eta_w)
    _, C, batch = with_one_dtype(w, C, batch)
    if C.shape != w.shape * 2:
        raise ValueError(f"`C` must have shape (d, d) = {w.shape * 2}, but got {C.shape}.")
    along2 = dot(w, v) ** 2 + w @ C @ w / batch
    return h**2 * second_order_step(a, along2, dot(v, v) + jnp.trace(C) / batch, eta_a, eta_w)


def decayed_conserved_quantity(
    t: ArrayLike, delta: ArrayLike, weight_decay: ArrayLike, *, eta: ArrayLike = 1.0
) -> Float[Array, "..."]:
    r"""Conserved quantity under gradient flow with weight decay.

    .. math:: \delta(t) = \delta(0)\,e^{-2\eta\lambda t} \qquad\text{on}\qquad L + \frac\lambda2 \|\theta\|^2

    Args:
        t: Time, zero or positive. Shape (...).
        delta: The conserved quantity at time 0. Shape (...).
        weight_decay: lambda, zero or positive, in units of the loss per weight^2. Shape (...).
        eta: Learning rate of both layers, positive. Shape (...).

    Returns:
        delta(t). Shape: broadcast.

    Valid: equal rates of the layers; any loss and data.
    Raises: ValueError for t or lambda < 0, a rate that is not positive, or a delta that is not finite.
    Source: derived here.
    Checked: adaptive integration (1e-10).
    """
    nonnegative(t=t, weight_decay=weight_decay)
    positive(eta=eta)
    finite(t=t, delta=delta, weight_decay=weight_decay, eta=eta)
    t, delta, weight_decay, eta = together(t, delta, weight_decay, eta)
    return delta * jnp.exp(-2 * eta * weight_decay * t)
