"""Two-layer networks of piecewise-linear neurons: early phase, and training on infinitely many samples."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import finite, nonnegative, positive, require, together, traced, with_one_dtype
from theory.lazy_rich.parameters import batched, dot, norm, unit
from theory.roots import safe_sqrt


def angle_between(u: Array, w: Array) -> Array:
    """Angle along the last axis, accurate at 0 and pi, with gradient 0 there; pi/2 if a vector is 0."""
    u, w = unit(u), unit(w)
    return 2 * jnp.arctan2(norm(u - w), norm(u + w))


class Overlaps(NamedTuple):
    r"""Means over two half-spaces of Gaussian inputs at an angle.

    ==========  =========================  =========================================================================
    active      :math:`(\pi-\theta)/2\pi`  :math:`\mathbb E\,1_{u^\top g>0} 1_{w^\top g>0}`
    turned      :math:`\sin\theta/2\pi`    size of the rest of :math:`\mathbb E\,1 1\,g g^\top`, which swaps u and w
    ==========  =========================  =========================================================================
    """

    active: Array
    turned: Array

    @classmethod
    def at(cls, theta: Array) -> "Overlaps":
        return cls((jnp.pi - theta) / (2 * jnp.pi), jnp.sin(theta) / (2 * jnp.pi))


def relu_drift(u: ArrayLike, w: ArrayLike, slope: ArrayLike = 0.0) -> Float[Array, "... d"]:
    r"""Mean input that a neuron sees weighted by another neuron's output.

    .. math:: D(u, w) = \mathbb E_g[\sigma(u^\top g)\,\sigma'(w^\top g)\,g]
        = \frac1{2\pi} \big[(\pi - \theta) u + \|u\| \sin\theta\,\hat w\big] \quad\text{(ReLU)}

    and :math:`\gamma u + (1 - \gamma)^2 D` for a leaky ReLU of slope gamma.

    Args:
        u: Weights of the neuron that drives. Shape (..., d).
        w: Weights of the driven neuron; only the direction matters. Shape (..., d).
        slope: Slope gamma of the activation below 0, finite; 0 is ReLU, 1 linear. Shape (...).

    Returns:
        D, in units of u. Shape (..., d).

    Valid: g ~ N(0, I); times q for isotropic inputs of E[x x^T] = q I, on the unit sphere q = 1/d.
    Raises: ValueError if the lengths differ or for values that are not finite.
    Source: derived here; Cho and Saul (2009) for w^T D.
    Checked: reference value, quadrature in the plane (1e-10), theta = 0 and pi, w^T D = `relu_overlap`.
    """
    (u, w), (slope,) = batched({"u": u, "w": w}, slope=slope)
    active, turned = Overlaps.at(angle_between(u, w))
    along_u, along_w = slope + (1 - slope) ** 2 * active, (1 - slope) ** 2 * turned * norm(u)
    return along_u[..., None] * u + along_w[..., None] * unit(w)


def relu_overlap(u: ArrayLike, w: ArrayLike, slope: ArrayLike = 0.0) -> Float[Array, "..."]:
    r"""Mean product of the outputs of two neurons.

    .. math:: \mathcal K(u, w) = \mathbb E_g[\sigma(u^\top g)\,\sigma(w^\top g)] = w^\top D(u, w)
        = \frac{\|u\|\|w\|}{2\pi} [\sin\theta + (\pi - \theta)\cos\theta] \quad\text{(ReLU)}

    Args:
        u: Weights of the first neuron. Shape (..., d).
        w: Weights of the second neuron. Shape (..., d).
        slope: Slope gamma of the activation below 0, finite. Shape (...).

    Returns:
        The overlap, in units of u w. Shape (...).

    Valid: as `relu_drift`.
    Raises: ValueError as `relu_drift`.
    Source: Cho and Saul (2009), arc-cosine kernel of degree one, times 1/2.
    Checked: reference value, quadrature in the plane (1e-10), symmetry.
    """
    drift = relu_drift(u, w, slope)
    (w, drift), _ = batched({"w": w, "drift": drift})
    return dot(w, drift)


def frozen_drive(
    t: ArrayLike,
    w0: ArrayLike,
    a0: ArrayLike,
    xi: ArrayLike,
    *,
    eta_a: ArrayLike = 1.0,
    eta_w: ArrayLike = 1.0,
) -> tuple[Float[Array, "... d"], Float[Array, "..."]]:
    r"""Weights of a neuron under a constant drive, the early phase of training.

    .. math:: w_\parallel = p_0 \cosh gt + \sqrt{\eta_w/\eta_a}\, a_0 \sinh gt, \qquad
        a = a_0 \cosh gt + \sqrt{\eta_a/\eta_w}\, p_0 \sinh gt, \qquad g = \sqrt{\eta_a\eta_w}\,\|\xi\|

    Args:
        t: Time, zero or positive. Shape (...).
        w0: Incoming weights at the start. Shape (..., d).
        a0: Outgoing weight at the start. Shape (...).
        xi: Drive, minus the gradient of the loss by the neuron's regression vector. Shape (..., d).
        eta_a: Learning rate of a, positive; relative. Shape (...).
        eta_w: Learning rate of w, positive; relative. Shape (...).

    Returns:
        (w, a), shapes (..., d) and (...); the part of w across xi stays.

    Valid: until activation patterns flip or f is no longer small beside y.
    Raises: ValueError for t < 0, a rate that is not positive, or values that are not finite.
    Source: derived here.
    Checked: adaptive integration (1e-10), conserved quantity.
    """
    nonnegative(t=t)
    positive(eta_a=eta_a, eta_w=eta_w)
    (w0, xi), (t, a0, eta_a, eta_w) = batched({"w0": w0, "xi": xi}, t=t, a0=a0, eta_a=eta_a, eta_w=eta_w)
    along, g, ratio = unit(xi), jnp.sqrt(eta_a * eta_w) * norm(xi), jnp.sqrt(eta_w / eta_a)
    p0 = dot(w0, along)
    cosh, sinh = jnp.cosh(g * t), jnp.sinh(g * t)
    p = p0 * cosh + ratio * a0 * sinh
    return w0 + (p - p0)[..., None] * along, a0 * cosh + p0 / ratio * sinh


def frozen_alignment_time(
    phi: ArrayLike,
    w0_norm: ArrayLike,
    a0: ArrayLike,
    xi_norm: ArrayLike,
    *,
    eta_a: ArrayLike = 1.0,
    eta_w: ArrayLike = 1.0,
) -> Float[Array, "..."]:
    r"""Time that a neuron orthogonal to a constant drive takes to align with it.

    .. math:: t = \frac1g \operatorname{asinh}\Big(\sqrt{\frac{\eta_a}{\eta_w}}\, \frac{\|w_0\|}{a_0}
        \frac\phi{\sqrt{1 - \phi^2}}\Big), \qquad g = \sqrt{\eta_a\eta_w}\,\|\xi\|

    Args:
        phi: Cosine between w and the drive to be reached, between 0 and 1. Shape (...).
        w0_norm: ||w_0||, positive. Shape (...).
        a0: Outgoing weight at the start, positive. Shape (...).
        xi_norm: ||xi||, positive. Shape (...).
        eta_a: Learning rate of a, positive; relative. Shape (...).
        eta_w: Learning rate of w, positive; relative. Shape (...).

    Returns:
        The time: short upstream, logarithmic in ||w_0|| / a_0 downstream. Shape: broadcast.

    Valid: as `frozen_drive`.
    Raises: ValueError for phi outside (0, 1), or other arguments that are not positive and finite.
    Source: derived here.
    Checked: `frozen_drive` there (1e-12).
    """
    if not traced(phi):
        require((np.asarray(phi) > 0) & (np.asarray(phi) < 1), "phi", "between 0 and 1, both excluded", phi)
    positive(w0_norm=w0_norm, a0=a0, xi_norm=xi_norm, eta_a=eta_a, eta_w=eta_w)
    finite(w0_norm=w0_norm, a0=a0, xi_norm=xi_norm, eta_a=eta_a, eta_w=eta_w)
    phi, w0_norm, a0, xi_norm, eta_a, eta_w = together(phi, w0_norm, a0, xi_norm, eta_a, eta_w)
    tangent = phi / jnp.sqrt((1 - phi) * (1 + phi))
    return jnp.arcsinh(jnp.sqrt(eta_a / eta_w) * w0_norm / a0 * tangent) / (jnp.sqrt(eta_a * eta_w) * xi_norm)


def _population(W, a, V, a_star, *numbers, **named):
    """Student, teacher and numbers, as arrays of one dtype; shapes checked."""
    finite(W=W, a=a, V=V, a_star=a_star, **named)
    W, a, V, a_star, *numbers = with_one_dtype(W, a, V, a_star, *numbers)
    if W.ndim != 2 or V.ndim != 2 or a.shape + a_star.shape != W.shape[:1] + V.shape[:1] or W.shape[1] != V.shape[1]:
        raise ValueError(
            "`W`, `a`, `V` and `a_star` must have shapes (m, d), (m,), (p, d) and (p,), "
            f"but got {W.shape}, {a.shape}, {V.shape} and {a_star.shape}."
        )
    return W, a, V, a_star, *numbers


def _drive(W, a, V, a_star, q, slope):
    neurons, heads = jnp.concatenate([V, W]), jnp.concatenate([a_star, -a])
    cosine = unit(W) @ unit(neurons).T
    # A rounded cosine is enough: the drive feels an error of the angle only times its sine.
    active, turned = Overlaps.at(jnp.arctan2(safe_sqrt((1 - cosine) * (1 + cosine)), cosine))
    along = (slope + (1 - slope) ** 2 * active) * heads[None, :]
    towards_itself = (1 - slope) ** 2 * turned @ (heads * norm(neurons))
    return 2 * q * (along @ neurons + towards_itself[:, None] * unit(W))


def relu_population_drive(
    W: ArrayLike, a: ArrayLike, V: ArrayLike, a_star: ArrayLike, q: ArrayLike = 1.0, slope: ArrayLike = 0.0
) -> Float[Array, "m d"]:
    r"""Drive of every student neuron on infinitely many samples.

    .. math:: \xi_i = 2q \Big[\sum_k a^*_k D(v_k, w_i) - \sum_j a_j D(w_j, w_i)\Big], \qquad
        \dot w_i = \eta_w a_i \xi_i, \quad \dot a_i = \eta_a w_i^\top \xi_i

    Args:
        W: Student's incoming weights. Shape (m, d).
        a: Student's outgoing weights. Shape (m,).
        V: Teacher's incoming weights. Shape (p, d).
        a_star: Teacher's outgoing weights. Shape (p,).
        q: Second moment of the inputs, E[x x^T] = q I, positive: 1 for Gaussian ones, 1/d on the unit sphere.
        slope: Slope gamma of the activation below 0, finite.

    Returns:
        xi; a_i xi_i is minus the gradient of the loss E (f - y)^2 by w_i. Shape (m, d).

    Valid: isotropic inputs of a rotation-invariant law, mean squared error without 1/2.
    Raises: ValueError if the shapes do not match, q is not positive, or values are not finite.
    Source: derived here.
    Checked: gradient of `relu_population_loss` (1e-10).
    """
    positive(q=q)
    W, a, V, a_star, q, slope = _population(W, a, V, a_star, q, slope, q=q, slope=slope)
    return _drive(W, a, V, a_star, q, slope)


def relu_population_flow(
    W0: ArrayLike,
    a0: ArrayLike,
    V: ArrayLike,
    a_star: ArrayLike,
    h: ArrayLike,
    checkpoints: ArrayLike,
    q: ArrayLike = 1.0,
    slope: ArrayLike = 0.0,
    *,
    eta_a: ArrayLike = 1.0,
    eta_w: ArrayLike = 1.0,
) -> tuple[Float[Array, "T m d"], Float[Array, "T m"]]:
    r"""Student's weights during gradient descent on infinitely many samples: no data, no fitted parameter.

    .. math:: w_i \mathrel{+}= h\,\eta_w a_i \xi_i, \qquad a_i \mathrel{+}= h\,\eta_a w_i^\top \xi_i

    with the drive of `relu_population_drive`. The step is that of the run to be predicted: the drive does not vanish
    with w_i, which can reach 0 in finite time and stay there, where adaptive steps stall.

    Args:
        W0: Student's incoming weights at the start. Shape (m, d).
        a0: Student's outgoing weights at the start. Shape (m,).
        V: Teacher's incoming weights. Shape (p, d).
        a_star: Teacher's outgoing weights. Shape (p,).
        h: Step size, positive, in units of time; flow time is steps times h. A number.
        checkpoints: Numbers of steps to report, not decreasing, from 0. Shape (T,).
        q: Second moment of the inputs, E[x x^T] = q I, positive: 1 for Gaussian ones, 1/d on the unit sphere.
        slope: Slope gamma of the activation below 0, finite.
        eta_a: Learning rate of a, positive; relative. A number.
        eta_w: Learning rate of W, positive; relative. A number.

    Returns:
        (W, a) at the checkpoints, shapes (T, m, d) and (T, m).

    Valid: the limit n -> infinity of full-batch gradient descent on the mean squared error without 1/2, error
        O(1 / sqrt n); isotropic inputs of a rotation-invariant law. Forward-mode derivatives only.
    Raises: ValueError if the shapes do not match, h, q or a rate is not positive, or checkpoints are not whole
        numbers that do not decrease (concrete values only).
    Source: derived here.
    Checked: a linear neuron (slope 1) is `gradient_flow`; gradient descent on samples (n^{-1/2}); conserved
        quantities by `conserved_step`; simulation `sims.lazy_rich`.
    """
    positive(h=h, q=q, eta_a=eta_a, eta_w=eta_w)
    if not traced(checkpoints):
        steps = np.asarray(checkpoints)
        increments = np.diff(steps, prepend=0)
        require(
            (increments >= 0) & (steps == np.floor(steps)), "checkpoints", "whole numbers that do not decrease", steps
        )
    named = {"h": h, "q": q, "slope": slope, "eta_a": eta_a, "eta_w": eta_w}
    W, a, V, a_star, h, q, slope, eta_a, eta_w = _population(W0, a0, V, a_star, *named.values(), **named)

    def step(_, weights):
        W, a = weights
        xi = _drive(W, a, V, a_star, q, slope)
        return W + h * eta_w * a[:, None] * xi, a + h * eta_a * dot(W, xi)

    def until(weights, count):
        weights = jax.lax.fori_loop(0, count, step, weights)
        return weights, weights

    counts = jnp.diff(jnp.asarray(checkpoints, dtype=int), prepend=0)
    return jax.lax.scan(until, (W, a), counts)[1]


def relu_population_loss(
    W: ArrayLike, a: ArrayLike, V: ArrayLike, a_star: ArrayLike, q: ArrayLike = 1.0, slope: ArrayLike = 0.0
) -> Float[Array, ""]:
    r"""Test loss of a student on infinitely many samples.

    .. math:: \mathbb E(f - y)^2 = q\,[a^\top \mathcal K a - 2 a^\top \mathcal K a^* + a^{*\top} \mathcal K a^*]

    Args:
        W: Student's incoming weights. Shape (m, d).
        a: Student's outgoing weights. Shape (m,).
        V: Teacher's incoming weights. Shape (p, d).
        a_star: Teacher's outgoing weights. Shape (p,).
        q: Second moment of the inputs, E[x x^T] = q I, positive.
        slope: Slope gamma of the activation below 0, finite.

    Returns:
        The loss, in units of y^2. A number.

    Valid: isotropic inputs of a rotation-invariant law.
    Raises: ValueError as `relu_population_drive`.
    Source: derived here.
    Checked: quadrature through `relu_overlap`; 0 for the teacher itself; many samples.
    """
    positive(q=q)
    W, a, V, a_star, q, slope = _population(W, a, V, a_star, q, slope, q=q, slope=slope)
    neurons, heads = jnp.concatenate([V, W]), jnp.concatenate([a_star, -a])
    return q * heads @ relu_overlap(neurons[:, None, :], neurons[None, :, :], slope) @ heads


def population_hamming_distance(W0: ArrayLike, W: ArrayLike) -> Float[Array, "..."]:
    r"""Share of inputs on which a neuron's activation pattern has changed, mean over neurons.

    .. math:: H = \frac1m \sum_i \frac{\angle(w_i(0), w_i(t))}\pi

    Args:
        W0: Incoming weights at the start. Shape (..., m, d).
        W: Incoming weights now. Shape (..., m, d).

    Returns:
        H, from 0 to 1; the authors' code sums over neurons, which is m times this. Shape (...).

    Valid: inputs of a rotation-invariant law.
    Raises: ValueError if the lengths differ or for values that are not finite.
    Source: arXiv:2406.06158 [paper] for the measure; the angle derived here.
    Checked: many samples; float32 at small angles.
    """
    (W0, W), _ = batched({"W0": W0, "W": W})
    return jnp.mean(angle_between(W0, W) / jnp.pi, axis=-1)


def population_kernel_distance(
    W0: ArrayLike,
    a0: ArrayLike,
    W: ArrayLike,
    a: ArrayLike,
    slope: ArrayLike = 0.0,
    *,
    eta_a: ArrayLike = 1.0,
    eta_w: ArrayLike = 1.0,
) -> Float[Array, ""]:
    r"""Distance of the neural tangent kernels of two networks, over pairs of independent inputs.

    .. math:: S = 1 - \frac{\langle K, K'\rangle}{\sqrt{\langle K, K\rangle\langle K', K'\rangle}}, \qquad
        \langle K, K'\rangle = \sum_{ij} \eta_a^2\,\mathcal K(w_i, w'_j)^2
        + \eta_a\eta_w \big[a'^2_j \|D(w_i, w'_j)\|^2 + a_i^2 \|D(w'_j, w_i)\|^2\big]
        + \eta_w^2 a_i^2 a'^2_j\,\|\mathbb E\,\sigma'\sigma'\,g g^\top\|_F^2

    .. math:: \|\mathbb E\,\sigma'(u^\top g)\sigma'(w^\top g)\,g g^\top\|_F^2
        = d \Big(\frac{\pi - \theta}{2\pi}\Big)^2 + 2\Big(\frac{\sin\theta}{2\pi}\Big)^2 \quad\text{(ReLU)}

    of :math:`K(x, x') = \sum_i \eta_a \sigma(w_i^\top x)\sigma(w_i^\top x')
    + \eta_w a_i^2 \sigma'(w_i^\top x)\sigma'(w_i^\top x')\,x^\top x'`.

    Args:
        W0: Incoming weights of the first network. Shape (m, d).
        a0: Its outgoing weights. Shape (m,).
        W: Incoming weights of the second network. Shape (p, d).
        a: Its outgoing weights. Shape (p,).
        slope: Slope gamma of the activation below 0, finite.
        eta_a: Learning rate of a, positive; relative. A number.
        eta_w: Learning rate of W, positive; relative. A number.

    Returns:
        S, from 0 to 1; dimensionless. A number.

    Valid: inputs of a rotation-invariant law, of any scale; the kernel of n samples differs by O(1/n) through its
        diagonal, and by its noise. Below 1e-6 it is noise in float32.
    Raises: ValueError if the shapes do not match, a rate is not positive, or values are not finite.
    Source: derived here.
    Checked: kernels of many samples; `kernel_distance` of `ntk_matrix` for a linear neuron (slope 1, 1e-12).
    """
    positive(eta_a=eta_a, eta_w=eta_w)
    named = {"slope": slope, "eta_a": eta_a, "eta_w": eta_w}
    W0, a0, W, a, slope, eta_a, eta_w = _population(W0, a0, W, a, *named.values(), **named)

    def inner(first, second):
        (U, b), (W, a) = first, second
        u, w = U[:, None, :], W[None, :, :]
        forth, back = relu_drift(u, w, slope), relu_drift(w, u, slope)
        active, turned = Overlaps.at(angle_between(u, w))
        both = U.shape[1] * (slope + (1 - slope) ** 2 * active) ** 2 + 2 * ((1 - slope) ** 2 * turned) ** 2
        b2, a2 = jnp.broadcast_to(b[:, None] ** 2, both.shape), jnp.broadcast_to(a[None, :] ** 2, both.shape)
        w = jnp.broadcast_to(w, forth.shape)
        crossed = a2 * dot(forth, forth) + b2 * dot(back, back)
        return jnp.sum(eta_a**2 * dot(w, forth) ** 2 + eta_a * eta_w * crossed + eta_w**2 * b2 * a2 * both)

    start, now = (W0, a0), (W, a)
    return 1 - inner(start, now) / jnp.sqrt(inner(start, start) * inner(now, now))
