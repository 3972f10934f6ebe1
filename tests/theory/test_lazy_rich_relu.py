"""Piecewise-linear neurons: quadrature in the plane, gradients of the loss, real steps on many samples."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.integrate import solve_ivp

from theory.lazy_rich import (
    conserved_step,
    frozen_alignment_time,
    frozen_drive,
    gradient_flow,
    kernel_distance,
    ntk_matrix,
    population_hamming_distance,
    population_kernel_distance,
    relu_drift,
    relu_overlap,
    relu_population_drive,
    relu_population_flow,
    relu_population_loss,
)

RATES = {"eta_a": 0.6, "eta_w": 2.5}
drift = jax.jit(relu_drift)
overlap = jax.jit(relu_overlap)
drive = jax.jit(relu_population_drive)
train = jax.jit(relu_population_flow)
risk = jax.jit(relu_population_loss)
distance = jax.jit(population_kernel_distance)
early = jax.jit(frozen_drive)
step = jax.jit(conserved_step)
align = jax.jit(frozen_alignment_time)
hamming = jax.jit(population_hamming_distance)


def activation(z, slope):
    return np.where(z > 0, z, slope * z)


def derivative(z, slope):
    return np.where(z > 0, 1.0, slope)


def plane_mean(integrand, kinks):
    """Mean over Gaussian g in the plane of a function of degree 2 in g, by arcs between its kinks."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    edges = np.sort(np.concatenate([np.mod(kinks, 2 * np.pi), [0, 2 * np.pi]]))
    total = 0
    for low, high in itertools.pairwise(edges):
        alpha = (high + low + (high - low) * nodes) / 2
        circle = np.stack([np.cos(alpha), np.sin(alpha)], -1)
        total = total + (high - low) / 2 * weights @ integrand(circle)
    return 2 * total / (2 * np.pi)  # E r^2 = 2


def test_drift_and_overlap_keep_their_printed_digits():
    u, w = np.array([1, 0.5]), np.array([-0.2, 0.7])
    np.testing.assert_allclose(drift(u, w), (0.2314522672, 0.3079132347), rtol=0, atol=5e-11)
    np.testing.assert_allclose(overlap(u, w), 0.1692488108, rtol=0, atol=5e-11)


@pytest.mark.parametrize("slope", [0.0, 0.3])
def test_drift_and_overlap_are_means_over_the_plane(slope):
    rng = np.random.default_rng(0)
    for u, w in rng.normal(size=(4, 2, 2)):
        kinks = [np.arctan2(*x[::-1]) + sign * np.pi / 2 for x in (u, w) for sign in (1, -1)]

        def driven(g, u=u, w=w):
            return (activation(g @ u, slope) * derivative(g @ w, slope))[:, None] * g

        found = drift(u, w, slope)
        np.testing.assert_allclose(found, plane_mean(driven, kinks), rtol=0, atol=1e-12)
        both = plane_mean(lambda g, u=u, w=w: activation(g @ u, slope) * activation(g @ w, slope), kinks)
        np.testing.assert_allclose(overlap(u, w, slope), both, rtol=0, atol=1e-12)
        np.testing.assert_allclose(overlap(w, u, slope), both, rtol=0, atol=1e-14)
        for twin in (drift(w, u, slope), drift(u, w, slope + 0.1), drift(u, -w, slope)):
            assert np.abs(twin - found).max() > 1e-3


def test_equal_opposite_and_vanishing_neurons():
    u = np.array([0.6, -0.8, 1.1])
    np.testing.assert_allclose(drift(u, 3 * u), u / 2, rtol=1e-14)
    np.testing.assert_allclose(drift(u, -3 * u), 0, atol=1e-16)
    np.testing.assert_allclose(drift(u, np.array([1.0, 2.0, -3.0]), 1.0), u, rtol=1e-14)  # linear
    assert np.all(np.isfinite(drift(u, 0 * u)))
    assert not np.any(drift(0 * u, u))
    for dtype, error in ((np.float64, 1e-15), (np.float32, 2e-7)):
        near = drift(u.astype(dtype), (u + 1e-4 * np.array([0.8, 0.6, 0])).astype(dtype))
        assert near.dtype == dtype
        np.testing.assert_allclose(near, u / 2, rtol=0, atol=1e-8 + error)


def student(seed, m=4, p=2, d=3):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(m, d)), rng.normal(size=m), rng.normal(size=(p, d)), rng.normal(size=p)


@pytest.mark.parametrize("slope", [0.0, 0.3])
def test_the_drive_is_the_gradient_of_the_loss(slope):
    W, a, V, a_star = student(1)
    q = 1 / 3
    xi = drive(W, a, V, a_star, q, slope)
    by_W, by_a = jax.jit(jax.grad(relu_population_loss, (0, 1)))(W, a, V, a_star, q, slope)
    np.testing.assert_allclose(a[:, None] * xi, -by_W, rtol=0, atol=1e-12)
    np.testing.assert_allclose(np.sum(W * xi, -1), -by_a, rtol=0, atol=1e-12)
    parts = [[a_star, drift(V[None, :, :], W[:, None, :], slope)], [-a, drift(W[None, :, :], W[:, None, :], slope)]]
    np.testing.assert_allclose(xi, 2 * q * sum(np.einsum("k,ikd->id", *part) for part in parts), rtol=0, atol=1e-13)
    assert np.abs(drive(W, -a, V, a_star, q, slope) - xi).max() > 0.1
    np.testing.assert_allclose(drive(V, a_star, V, a_star, q, slope), 0, atol=1e-15)
    np.testing.assert_allclose(risk(V, a_star, V, a_star, q, slope), 0, atol=1e-15)


def test_the_loss_is_that_of_many_samples_on_the_sphere():
    W, a, V, a_star = student(2)
    X = np.random.default_rng(3).normal(size=(50_000, 3))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    errors = (activation(X @ W.T, 0) @ a - activation(X @ V.T, 0) @ a_star) ** 2
    deviation = errors.std() / len(X) ** 0.5
    assert abs(errors.mean() - risk(W, a, V, a_star, 1 / 3)) < 4 * deviation
    for twin in (risk(W, a, V, a_star, 1.0), risk(W, a, V, -a_star, 1 / 3)):
        assert abs(errors.mean() - twin) > 10 * deviation
    changed = np.mean((X @ W[:2].T > 0) != (X @ V.T > 0))
    assert abs(changed - hamming(W[:2], V)) < 4 * 0.5 / len(X) ** 0.5
    near = hamming(*(x.astype(np.float32) for x in (W, W + 1e-5 * np.roll(W, 1, axis=1))))
    exact = hamming(W, W + 1e-5 * np.roll(W, 1, axis=1))
    assert near.dtype == np.float32
    np.testing.assert_allclose(near, exact, rtol=0, atol=1e-7)
    assert exact > 1e-6


def test_euler_steps_approach_the_flow_of_a_linear_neuron():
    w0, a0, beta_star, q = np.array([0.4, 1.0, -0.7]), 0.8, np.array([0.5, -0.2, 0.6]), 0.25
    times = np.array([0.0, 1.0, 4.0])
    exact_w, exact_a = gradient_flow(2 * q * times, w0, a0, beta_star, **RATES)
    errors = []
    for count in (25, 50, 100):
        checkpoints = np.round(times * count).astype(int)
        start = w0[None, :], np.array([a0]), beta_star[None, :], np.ones(1)
        W, a = train(*start, 1 / count, checkpoints, q, 1.0, **RATES)
        assert W.shape == (3, 1, 3)
        assert a.shape == (3, 1)
        errors.append(max(np.abs(W[:, 0] - exact_w).max(), np.abs(a[:, 0] - exact_a).max()))
        np.testing.assert_array_equal(W[0], w0[None, :])
    np.testing.assert_allclose(np.diff(np.log2(errors)), -1, atol=0.1)
    assert errors[-1] < 5e-3


def descend(W, a, V, a_star, X, h, steps):
    """Real full-batch gradient descent on the mean squared error."""
    y = activation(X @ V.T, 0) @ a_star
    for _ in range(steps):
        Z = X @ W.T
        r = 2 * (activation(Z, 0) @ a - y) / len(X)
        xi = -(derivative(Z, 0) * r[:, None]).T @ X
        W, a = W + h * a[:, None] * xi, a + h * np.sum(W * xi, -1)
    return W, a


def test_gradient_descent_on_samples_approaches_the_population():
    W0, a0, V, a_star = student(4)
    W0 = 0.3 * W0
    (_, W), (_, a) = train(W0, a0, V, a_star, 0.02, np.array([5, 40]))
    moved = np.hypot(np.linalg.norm(W - W0), np.linalg.norm(a - a0))
    assert moved > 0.5

    def gap(n):
        rng = np.random.default_rng(n)
        ends = [descend(W0, a0, V, a_star, rng.normal(size=(n, 3)), 0.02, 40) for _ in range(6)]
        return np.mean([np.hypot(np.linalg.norm(w - W), np.linalg.norm(b - a)) for w, b in ends]) / moved

    small, large = gap(1000), gap(16_000)
    assert large < 0.05
    assert 2.5 < small / large < 6.5  # n^{-1/2}
    (_, half), (_, b) = train(W0, a0, V, a_star, 0.02 / 2, np.array([5, 40]))  # as for a loss with 1/2
    assert np.hypot(np.linalg.norm(half - W), np.linalg.norm(b - a)) / moved > 0.1


def test_steps_change_delta_by_exactly_this_and_paths_continue():
    start = student(5)
    W, a = map(np.array, train(*start, 0.02, np.arange(6), 0.5, 0.1, **RATES))
    V, a_star = start[2:]
    change = np.diff(2.5 * a**2 - 0.6 * np.sum(W**2, -1), axis=0)
    predicted = [step(W[i], a[i], drive(W[i], a[i], V, a_star, 0.5, 0.1), 0.02, **RATES) for i in range(5)]
    np.testing.assert_allclose(predicted, change, rtol=0, atol=1e-12)
    assert np.abs(change).min() > 1e-9
    later, _ = train(W[2], a[2], V, a_star, 0.02, np.array([0, 0, 1, 1, 2, 3]), 0.5, 0.1, **RATES)
    np.testing.assert_allclose(later, W[[2, 2, 3, 3, 4, 5]], rtol=1e-13)


def test_a_neuron_of_the_wrong_sign_is_stuck_at_zero_and_stays_finite():
    W0, a0 = np.array([[0.1, 0.02], [0.05, -0.08]]), np.array([-1.0, 1.0])
    W, a = train(W0, a0, np.array([[1.0, 0.0]]), np.ones(1), 0.01, np.array([0, 100, 500]))
    assert np.all(np.isfinite(W))
    np.testing.assert_allclose(a[-1, 0], -((1 - 0.0104) ** 0.5), rtol=0, atol=0.01)  # -sqrt(delta)
    assert np.linalg.norm(W[-1, 0]) < 0.02
    assert np.linalg.norm(W[-1, 1]) > 0.5


def test_float32_forward_derivatives_and_batches():
    start = student(6)
    checkpoints = np.array([5, 40])
    W, _ = train(*start, 0.02, checkpoints)
    singles = [np.asarray(x, np.float32) for x in (*start, 0.02)]
    single = train(*singles, checkpoints)
    assert single[0].dtype == single[1].dtype == np.float32
    np.testing.assert_allclose(single[0], W, rtol=0, atol=3e-6)

    def last(h):
        return relu_population_flow(*start, h, checkpoints)[1].sum()

    slope = jax.jit(lambda h: jax.jvp(last, (h,), (1.0,))[1])(0.02)
    secant = (
        train(*start, 0.02 + 1e-6, checkpoints)[1].sum() - train(*start, 0.02 - 1e-6, checkpoints)[1].sum()
    ) / 2e-6
    np.testing.assert_allclose(slope, secant, rtol=1e-6)
    stacked = [jnp.stack([jnp.asarray(x)] * 2) for x in start]
    mapped = jax.jit(jax.vmap(relu_population_flow, (0, 0, 0, 0, 0, None)))(
        *stacked, jnp.array([0.02, 0.01]), checkpoints
    )
    np.testing.assert_allclose(mapped[0][0], W, rtol=1e-12)
    assert np.abs(mapped[0][1] - W).max() > 0.01


def on_the_circle(W, a, slope, count):
    """Kernel of the real features at the midpoints of arcs that end at every kink."""
    alpha = 2 * np.pi * (np.arange(count) + 0.5) / count
    X = np.stack([np.cos(alpha), np.sin(alpha)], -1)
    outer, inner = activation(X @ W.T, slope), derivative(X @ W.T, slope) * a
    return 0.6 * outer @ outer.T + 2.5 * (inner @ inner.T) * (X @ X.T)


@pytest.mark.parametrize("slope", [0.0, 0.3])
def test_kernel_distances_are_those_of_all_inputs_on_the_circle(slope):
    rng = np.random.default_rng(7)
    angles = 2 * np.pi * rng.integers(0, 200, (2, 3)) / 200
    W0, W = rng.uniform(0.3, 1.5, (2, 3, 1)) * np.stack([np.cos(angles), np.sin(angles)], -1)
    a0, a = rng.normal(size=(2, 3))
    found = distance(W0, a0, W, a, slope, **RATES)
    real = [kernel_distance(*(on_the_circle(*net, slope, n) for net in ((W0, a0), (W, a)))) for n in (200, 400)]
    np.testing.assert_allclose((4 * real[1] - real[0]) / 3, found, rtol=0, atol=1e-7)
    for twin in (distance(W0, a0, W, a, slope + 0.2, **RATES), distance(W0, a0, W, a, slope)):
        assert abs(twin - found) > 1e-3
    np.testing.assert_allclose(distance(W, a, W, a, slope, **RATES), 0, atol=1e-15)


def test_kernel_distances_know_the_dimension():
    w, b, beta = np.array([0.4, 1.0, -0.7, 0.2]), -0.8, np.array([0.25, -0.1, 0.3, 0.05])
    delta = 2.5 * b**2 - 0.6 * w @ w
    matrix = jax.jit(ntk_matrix)
    linear = kernel_distance(matrix(b * w, delta, **RATES), matrix(beta, 1.1, **RATES))
    a = np.sqrt((1.1 + np.sqrt(1.1**2 + 6 * beta @ beta)) / 5)
    alone = np.array([1.0, 0, 0])  # beside two dead neurons
    found = distance(alone[:, None] * w, alone * b, alone[:, None] * beta / a, alone * a, 1.0, **RATES)
    np.testing.assert_allclose(found, linear, rtol=0, atol=1e-13)
    # ReLU in four dimensions, on pairs of different samples.
    rng = np.random.default_rng(8)
    (W0, W), (a0, a) = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 3))
    X = rng.normal(size=(1500, 4))

    def kernel(W, a):
        outer, inner = activation(X @ W.T, 0), derivative(X @ W.T, 0) * a
        K = 0.6 * outer @ outer.T + 2.5 * (inner @ inner.T) * (X @ X.T)
        return K - np.diag(np.diag(K))

    K0, K1 = kernel(W0, a0), kernel(W, a)
    sampled = 1 - np.sum(K0 * K1) / np.linalg.norm(K0) / np.linalg.norm(K1)
    assert abs(sampled / distance(W0, a0, W, a, 0.0, **RATES) - 1) < 0.05


def test_the_early_phase_is_a_flow_under_a_constant_drive():
    w0, a0, xi = np.array([0.3, -0.5, 0.8]), -0.4, np.array([0.7, 0.1, -1.2])

    def velocity(_, state):
        return np.append(2.5 * state[3] * xi, 0.6 * state[:3] @ xi)

    times = np.array([0.3, 1.0])
    path = solve_ivp(velocity, (0, 1), np.append(w0, a0), method="DOP853", rtol=1e-12, atol=1e-13, t_eval=times).y
    w, a = early(times, w0, a0, xi, **RATES)
    np.testing.assert_allclose(w, path[:3].T, rtol=0, atol=1e-10)
    np.testing.assert_allclose(a, path[3], rtol=0, atol=1e-10)
    assert np.abs(early(times, w0, a0, xi)[1] - a).min() > 0.01
    across = np.array([0.6, 0.0, 0.35])
    a0, phi = np.array([3.0, 0.5, 0.01]), 0.9
    t = align(phi, np.linalg.norm(across), a0, np.linalg.norm(xi), **RATES)
    w, _ = early(t, across, a0, xi, **RATES)
    cosine = w @ xi / np.linalg.norm(w, axis=-1) / np.linalg.norm(xi)
    np.testing.assert_allclose(cosine, phi, rtol=1e-12)
    assert np.all(np.diff(t) > 0)
    upstream = align(0.6, 1e-3, 2.0, 1.5, **RATES)
    np.testing.assert_allclose(upstream, 1e-3 / (2.5 * 2 * 1.5) * 0.75, rtol=1e-6)
    check_grads(early, (0.5, jnp.asarray(w0), -0.4, jnp.asarray(xi)), order=1, modes=["rev"], atol=1e-6, rtol=1e-6)


def refuses(call, words):
    with pytest.raises(ValueError, match="^" + re.escape(words) + "$"):
        call()


def test_bad_arguments_are_named():
    W, a, V, b = np.ones((3, 2)), np.ones(3), np.ones((1, 2)), np.ones(1)
    refuses(
        lambda: relu_drift(W, np.ones(3)), "`u` and `w` must be vectors of one length, but got shapes (3, 2) and (3,)."
    )
    refuses(lambda: relu_overlap(W, W, np.nan), "`slope` must be finite, but got nan.")
    words = "`W`, `a`, `V` and `a_star` must have shapes (m, d), (m,), (p, d) and (p,), but got "
    for call in (relu_population_drive, relu_population_loss):
        refuses(lambda call=call: call(W, a, V, a), words + "(3, 2), (3,), (1, 2) and (3,).")
        refuses(lambda call=call: call(W, a, V, b, 0.0), "`q` must be positive, but got 0.")
        refuses(lambda call=call: call(W, a, V, b, 1.0, np.inf), "`slope` must be finite, but got inf.")
    refuses(lambda: relu_population_flow(W, a, V, a, 0.1, [1]), words + "(3, 2), (3,), (1, 2) and (3,).")
    refuses(lambda: relu_population_flow(W, a, V, b, 0.0, [1]), "`h` must be positive, but got 0.")
    words = "`checkpoints` must be whole numbers that do not decrease, but got "
    refuses(lambda: relu_population_flow(W, a, V, b, 0.1, [4, 3]), words + "3.")
    refuses(lambda: relu_population_flow(W, a, V, b, 0.1, [0.5]), words + "0.5.")
    refuses(lambda: relu_population_flow(W, a, V, b, 0.1, [-1]), words + "-1.")
    refuses(lambda: relu_population_flow(W, a, V, b, 0.1, [1], eta_w=-1), "`eta_w` must be positive, but got -1.")
    words = "`W0` and `W` must be vectors of one length, but got shapes (3, 2) and (3, 3)."
    refuses(lambda: population_hamming_distance(W, np.ones((3, 3))), words)
    refuses(lambda: population_kernel_distance(W, a, W, a, eta_a=0), "`eta_a` must be positive, but got 0.")
    refuses(lambda: frozen_drive(-1.0, [1.0, 0], 1.0, [0.0, 1]), "`t` must be zero or positive, but got -1.")
    words = "`phi` must be between 0 and 1, both excluded, but got 1."
    refuses(lambda: frozen_alignment_time(1.0, 1.0, 1.0, 1.0), words)
    refuses(lambda: frozen_alignment_time(0.5, 1.0, -1.0, 1.0), "`a0` must be positive, but got -1.")
