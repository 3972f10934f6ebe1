"""Kernels of a linear neuron: from weights, along trajectories, and the phase diagram with its limits."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from theory.lazy_rich import (
    gradient_flow,
    kernel_distance,
    kernel_distance_at,
    loss_at,
    ntk_matrix,
    vanishing_scale_kernel_distance,
    whitened_kernel_distance,
)

RATES = {"eta_a": 0.6, "eta_w": 2.5}
flow = jax.jit(gradient_flow)
matrix = jax.jit(ntk_matrix)
closed = jax.jit(whitened_kernel_distance)
diagram = jax.jit(kernel_distance_at)
loss = jax.jit(loss_at)
apart = jax.jit(kernel_distance)


def weights(beta, delta, eta_a=1.0, eta_w=1.0):
    """A start of this product and imbalance, in numpy."""
    beta, delta = np.asarray(beta), np.asarray(delta)
    b2 = eta_a * eta_w * np.sum(beta**2, -1)
    larger = (np.abs(delta) + np.sqrt(delta**2 + 4 * b2)) / 2
    a = np.sqrt(np.where(delta >= 0, larger, b2 / larger) / eta_w)
    return beta / a[..., None], a


def plain_distance(K0, K1):
    return 1 - np.sum(K0 * K1) / np.linalg.norm(K0) / np.linalg.norm(K1)


def test_the_kernel_is_that_of_the_weights_and_moves_beta():
    rng = np.random.default_rng(0)
    w, v, a = rng.normal(size=(8, 3)), rng.normal(size=(8, 3)), rng.normal(size=8)
    delta = 2.5 * a**2 - 0.6 * np.sum(w**2, -1)
    M = matrix(a[:, None] * w, delta, **RATES)
    expected = 2.5 * a[:, None, None] ** 2 * np.eye(3) + 0.6 * w[:, :, None] * w[:, None, :]
    np.testing.assert_allclose(M, expected, rtol=1e-12, atol=1e-13)
    velocity = 0.6 * np.sum(w * v, -1)[:, None] * w + 2.5 * a[:, None] ** 2 * v  # a' w + a w'
    np.testing.assert_allclose(np.einsum("kij,kj->ki", M, v), velocity, rtol=1e-12, atol=1e-12)
    for twin in (matrix(a[:, None] * w, -delta, **RATES), matrix(a[:, None] * w, delta)):
        assert np.abs(twin - expected).max() > 0.05


def test_the_kernel_is_lazy_upstream_and_radial_downstream():
    beta = np.array([[0.6, 0.8]] * 3)
    M = matrix(beta, np.array([1e6, 0.0, -1e6]))
    radial = np.outer(beta[0], beta[0])
    np.testing.assert_allclose(M[0] / 1e6, np.eye(2), atol=1e-11)
    np.testing.assert_allclose(M[1], np.eye(2) + radial, atol=1e-14)
    np.testing.assert_allclose(M[2] / 1e6, radial, atol=1e-11)
    np.testing.assert_allclose(matrix(0 * beta, np.full(3, 0.7))[0], 0.7 * np.eye(2), atol=1e-15)


def test_distances_do_not_cancel():
    rng = np.random.default_rng(1)
    K0, K1 = rng.normal(size=(2, 5, 5))
    np.testing.assert_allclose(apart(K0, K1), plain_distance(K0, K1), rtol=1e-14)
    np.testing.assert_allclose(apart(3 * K0, 7 * K0), 0, atol=1e-15)
    np.testing.assert_allclose(apart(K0, -K0), 2, rtol=1e-14)
    near = apart(*(x.astype(np.float32) for x in (np.eye(2), np.array([[1, 1e-4], [1e-4, 1]]))))
    assert near.dtype == np.float32
    np.testing.assert_allclose(near, 5e-9, rtol=1e-3)
    assert abs(plain_distance(np.eye(2), np.array([[1, 1e-4], [1e-4, 1]], np.float32))) != pytest.approx(5e-9, rel=1e-3)


def test_the_closed_form_keeps_its_printed_digits_and_is_that_of_matrices():
    np.testing.assert_allclose(closed(0.3, 1, 0.2, 4, -0.5), 0.4289877521, rtol=0, atol=5e-11)
    found = closed(0.3, 1, 0.2, 4, 0.5, eta_a=0.4, eta_w=1.5)
    np.testing.assert_allclose(found, 0.02552307816, rtol=0, atol=5e-12)
    rng = np.random.default_rng(2)
    betas, delta = rng.normal(size=(2, 6, 3)), rng.normal(size=6)
    norms = np.linalg.norm(betas, axis=-1)
    cosine = np.sum(betas[0] * betas[1], -1) / norms[0] / norms[1]
    M0, M1 = (np.array(matrix(beta, delta, **RATES)) for beta in betas)
    expected = np.array([plain_distance(*pair) for pair in zip(M0, M1, strict=True)])
    np.testing.assert_allclose(closed(*norms, cosine, 3, delta, **RATES), expected, rtol=1e-12)
    for twin in (closed(*norms, cosine, 3, -delta, **RATES), closed(*norms, cosine, 4, delta, **RATES)):
        assert np.median(np.abs(twin / expected - 1)) > 0.01


def test_printed_distances_along_trajectories():
    cases = [
        (1.1, (0.5, -0.2, 0), 0.6, (0.3, 0.9, 0), 1, 1, 2, 0.109800723),
        (2.0, (0.4, 1, -0.7), -0.8, (0.5, -0.2, 0.6), 0.5, 1.5, 3, 0.07698263205),
        (4.0, (0.5, 1.2, 0), 1.3, (-0.8, 0.1, 0), 1, 1, 2, 0.1945413322),
        (25.0, (0.3, 2, 0), 0.02, (0.6, -0.3, 0), 2, 0.4, 2, 0.1915302107),
    ]
    t, w0, a0, beta_star, eta_a, eta_w, d, printed = (np.array(column) for column in zip(*cases, strict=True))
    rates, case = {"eta_a": eta_a, "eta_w": eta_w}, np.arange(4)
    w, a = (np.array(x)[case, case] for x in flow(t, w0, a0, beta_star, **rates))
    norms = np.abs(a0) * np.linalg.norm(w0, axis=-1), np.abs(a) * np.linalg.norm(w, axis=-1)
    cosine = np.sum(w0 * w, -1) / np.linalg.norm(w0, axis=-1) / np.linalg.norm(w, axis=-1)
    delta = eta_w * a0**2 - eta_a * np.sum(w0**2, -1)
    np.testing.assert_allclose(closed(*norms, cosine, d, delta, **rates), printed, rtol=0, atol=5e-11)


def test_the_phase_diagram_keeps_its_printed_digits():
    delta = np.array([0.4, -0.4])
    S, L = diagram(0.3, delta, 2.0), loss(0.3, delta, 2.0)
    np.testing.assert_allclose(S, (0.03340169917, 0.1846368852), rtol=0, atol=5e-11)
    np.testing.assert_allclose(L, (0.008317601749, 0.4281333775), rtol=0, atol=5e-11)


def test_the_phase_diagram_is_that_of_trajectories():
    rng = np.random.default_rng(3)
    tau, s, t = rng.uniform(0.1, 1.5, (3, 12))
    delta, phi0 = rng.normal(size=12), rng.uniform(-1, 1, 12)
    t, delta = 8 * t, np.where(np.arange(12) == 0, 0, delta)
    found, lost = diagram(tau, delta, t, s, 3, phi0, **RATES), loss(tau, delta, t, s, phi0, **RATES)
    beta_star = s[:, None] * np.array([1.0, 0, 0])
    beta0 = (tau**2)[:, None] * np.stack([phi0, np.sqrt(1 - phi0**2), 0 * phi0], -1)
    w, a = flow(t, *weights(beta0, delta, **RATES), beta_star, **RATES)
    beta = np.array(a[..., None] * w)[np.arange(12), np.arange(12)]
    M0, M1 = (np.array(matrix(x, delta, **RATES)) for x in (beta0, beta))
    expected = [plain_distance(*pair) for pair in zip(M0, M1, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)
    np.testing.assert_allclose(lost, np.sum((beta - beta_star) ** 2, -1) / 2, rtol=0, atol=1e-13)
    for twin in (diagram(tau, -delta, t, s, 3, phi0, **RATES), diagram(tau, delta, t, s, 3, 0 * phi0, **RATES)):
        assert np.median(np.abs(twin - found)) > 0.01


def test_the_diagram_starts_at_zero_and_ends_where_only_norms_and_angle_matter():
    tau, delta = np.array([0.1, 0.5, 1.0, 1.4])[:, None], np.array([-1.0, -0.1, 0.0, 0.1, 1.0])[None, :]
    np.testing.assert_allclose(diagram(tau, delta, 0.0), 0, atol=1e-15)
    np.testing.assert_allclose(loss(tau, delta, 0.0), np.tile((tau**4 + 1) / 2, 5), rtol=1e-13)
    end = diagram(tau, delta, np.inf)
    np.testing.assert_allclose(end, closed(tau**2, 1.0, 0.0, 2, delta), rtol=0, atol=1e-13)
    np.testing.assert_allclose(loss(tau, delta, np.inf), 0, atol=1e-28)
    np.testing.assert_allclose(diagram(tau, delta, 1e4), end, rtol=0, atol=1e-10)


def test_vanishing_scales_have_three_limits():
    d = np.array([2, 5, 50])
    limits = vanishing_scale_kernel_distance(d)
    sides = [diagram(1e-5, delta, np.inf, 1.0, d) for delta in (1e-5, 0.0, -1e-5)]
    np.testing.assert_allclose(sides, limits, rtol=0, atol=1e-4)
    assert np.all(np.abs(np.diff(limits, axis=0)) > 5e-3)
    # In between, over |delta| ~ tau^2, the distance depends on delta / tau^2 alone.
    np.testing.assert_allclose(diagram(1e-4, 3e-8, np.inf), diagram(1e-5, 3e-10, np.inf), rtol=1e-6)
    assert limits.upstream[0] < diagram(1e-4, 1e-8, np.inf) < limits.balanced[0]


def test_the_released_norm_is_rejected_and_the_right_distance_is_monotone():
    t, delta = np.linspace(0, 20, 201), np.array([-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0])
    S = np.array(diagram(1.0, delta[:, None], t[None, :]))
    np.testing.assert_allclose(S[[2, 0], 10], (0.117, 0.0055), rtol=0, atol=5e-4)  # t = 1
    assert np.all(np.diff(S, axis=1) > -1e-15)
    for which, printed in ((2, 0.304), (0, 0.059)):
        w0, a0 = map(np.array, weights(np.array([-1.0, 0.0]), delta[which]))
        w, a = map(np.array, flow(1.0, w0, a0, np.array([0.0, 1.0])))
        overlap = 2 * a0**2 * a**2 + a0**2 * w @ w + a**2 * w0 @ w0 + (w @ w0) ** 2
        sizes = [2 * b**4 + 2 * a0**2 * x @ x + (x @ x) ** 2 for b, x in ((a0, w0), (a, w))]
        released = 1 - overlap / np.sqrt(np.prod(sizes))
        assert released == pytest.approx(printed, abs=5e-4)
        assert abs(released - S[which, 10]) > 0.05


@pytest.mark.thorough
def test_float32_and_gradients():
    tau, delta = np.logspace(-1, 0.3, 5)[:, None], np.array([-1.0, -1e-6, 0.0, 0.3, 1.0])[None, :]
    t = np.array([0.01, 3.0, np.inf])[:, None, None]
    tau, delta = tau[None], delta[None]
    single = diagram(*(x.astype(np.float32) for x in (tau, delta, t)))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, diagram(tau, delta, t), rtol=0, atol=1e-6)
    points = jnp.array([0.3, 0.8, 0.5]), jnp.array([-0.4, 0.0, 0.4]), jnp.array([2.0, 1.0, 3.0])
    both = jax.jit(lambda *cell: (kernel_distance_at(*cell), loss_at(*cell)))
    check_grads(both, points, order=1, modes=["rev"], atol=1e-5, rtol=1e-5)


def refuses(call, words):
    with pytest.raises(ValueError, match="^" + re.escape(words) + "$"):
        call()


def test_bad_arguments_are_named():
    refuses(lambda: ntk_matrix([0.0, 0], -1), "`beta` must be different from 0 where `delta` is negative, but got 0.")
    refuses(lambda: ntk_matrix([1.0, 0], 1, eta_a=-1), "`eta_a` must be positive, but got -1.")
    words = "`K0` and `K1` must be matrices of one shape, but got shapes (2, 2) and (3, 3)."
    refuses(lambda: kernel_distance(np.eye(2), np.eye(3)), words)
    refuses(lambda: kernel_distance(np.eye(2), np.nan * np.eye(2)), "`K1` must be finite, but got nan.")
    refuses(lambda: whitened_kernel_distance(1, 1, 1.1, 2, 0.0), "`cosine` must be between -1 and 1, but got 1.1.")
    words = "`d` must be a whole number not below 1, but got 2.5."
    refuses(lambda: whitened_kernel_distance(1, 1, 0.5, 2.5, 0.0), words)
    refuses(lambda: vanishing_scale_kernel_distance(2.5), words)
    refuses(lambda: kernel_distance_at(1, 0.0, 1, d=2.5), words)
    for call in (kernel_distance_at, loss_at):
        refuses(lambda call=call: call(0.0, 1, 1), "`tau` must be positive, but got 0.")
        refuses(lambda call=call: call(1.0, np.nan, 1), "`delta` must be finite, but got nan.")
        refuses(lambda call=call: call(1.0, 1, -1), "`t` must be zero or positive, but got -1.")
        refuses(lambda call=call: call(1.0, 1, 1, s=-1), "`s` must be zero or positive, but got -1.")
        refuses(lambda call=call: call(1.0, 1, 1, phi0=1.5), "`phi0` must be between -1 and 1, but got 1.5.")
        refuses(lambda call=call: call(1.0, 1, 1, eta_w=0), "`eta_w` must be positive, but got 0.")
    words = "The arguments' shapes do not broadcast: [(2,), (3,), (), (), (), (), (), ()]."
    refuses(lambda: kernel_distance_at(np.ones(2), np.ones(3), 1.0), words)
