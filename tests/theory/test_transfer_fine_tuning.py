"""Fine-tuning: the end point against the flow of real networks, its potential, and mpmath."""

import itertools
import math

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad, solve_ivp
from scipy.optimize import minimize

from theory.transfer import (
    fine_tuning_boundary,
    fine_tuning_endpoint,
    fine_tuning_endpoint_scale,
    fine_tuning_head_endpoint,
    fine_tuning_head_risk,
    fine_tuning_head_scale,
    fine_tuning_risk,
    fine_tuning_scale,
    fine_tuning_transferability,
    finite_source_fine_tuning_risk,
    finite_source_linear_transfer_risk,
    implicit_bias_potential,
    linear_transfer_risk,
    scratch_risk,
    unbalanced_bias_potential,
)

DEPTHS = [1, 2, 3, 5, 10, 100, math.inf]


def exact_scale(g, h, B, depth):
    """kappa from the scalar equation for N, bisected with 50 digits."""
    with mpmath.workdps(50):
        g, h, B = (mpmath.mpf(float(value)) for value in (g, h, B))
        p = mpmath.mpf(0) if depth == math.inf else mpmath.mpf(1) / depth
        gap = lambda N: N**2 - g - h * B ** (2 * p) * N ** (2 - 2 * p)  # noqa: E731
        low = max(mpmath.sqrt(g), h ** (1 / (2 * p)) * B if p else 0)
        high = 2 * low
        while gap(high) <= 0:
            high *= 2
        for _ in range(120):
            middle = (low + high) / 2
            low, high = (middle, high) if gap(middle) <= 0 else (low, middle)
        return float((low / B) ** (1 - p))


@pytest.mark.parametrize("depth", DEPTHS)
def test_scale_is_the_root(depth):
    points = [(g, h, B) for g in (1e-6, 0.3, 40.0) for h in (1e-3, 0.5, 0.99) for B in (0.4, 2.0)]
    g, h, B = np.array(points).T
    expected = [exact_scale(*point, depth) for point in points]
    np.testing.assert_allclose(fine_tuning_endpoint_scale(g, h, B, depth), expected, rtol=1e-12)
    traced = jax.jit(fine_tuning_endpoint_scale)(g, h, B, depth)
    np.testing.assert_allclose(traced, expected, rtol=1e-12)
    single = (jnp.asarray(value, jnp.float32) for value in (g, h, B))
    single = jax.jit(fine_tuning_endpoint_scale)(*single, jnp.float32(depth))
    np.testing.assert_allclose(single, expected, rtol=2e-5)
    twin = fine_tuning_endpoint_scale(g, h, B, 4)
    assert not np.allclose(twin, expected, rtol=1e-3)


@pytest.mark.parametrize("depth", [1.0, 2.0, 3.0, 7.0, math.inf])
@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
def test_scale_at_the_corners(depth, dtype):
    g = jnp.array([0.0, 1e-20, 0.5, 0.5, 0.0], dtype)
    h = jnp.array([0.5, 0.5, 0.0, 1.0, 1.0], dtype)
    kappa, gradients = jax.jit(
        lambda g, h: (
            fine_tuning_endpoint_scale(g, h, 2.0, depth),
            jax.grad(lambda *a: fine_tuning_endpoint_scale(*a, 2.0, depth)[:3].sum(), (0, 1))(g, h),
        )
    )(g, h)
    assert kappa.dtype == dtype
    p = 1 / depth
    unmoved = 0.5 ** (depth * (1 - p) / 2) if depth < math.inf else 0.0
    rtol = 1e-12 if dtype == jnp.float64 else 1e-5
    np.testing.assert_allclose(kappa[:2], unmoved, rtol=rtol, atol=1e-9)
    np.testing.assert_allclose(kappa[2], (math.sqrt(0.5) / 2) ** (1 - p), rtol=rtol)
    np.testing.assert_allclose(kappa[4], 1.0, rtol=rtol)
    assert np.isfinite(kappa[3]) == (depth < math.inf)
    if depth < math.inf:
        assert np.isfinite(jnp.asarray(gradients)).all()


@pytest.mark.parametrize("depth", [2, 3, 6])
def test_scale_has_the_implicit_gradient(depth):
    g, h, B = 0.7, 0.4, 1.3
    gradient = jax.grad(fine_tuning_endpoint_scale, (0, 1, 2))(g, h, B, depth)
    for i, slope in enumerate(gradient):
        step = np.eye(3)[i] * 1e-7
        plus, minus = (exact_scale(*(np.array([g, h, B]) + s * step), depth) for s in (1, -1))
        np.testing.assert_allclose(slope, (plus - minus) / 2e-7, rtol=1e-6)


def flow(layers, X, y, time, whiten=False):
    """Gradient flow of a linear network W_1 ... W_L on |y - X beta|^2, integrated to `time`."""
    if whiten:
        Q, R = np.linalg.qr(X.T)
        X, y = Q.T, np.linalg.solve(R.T, y)
    shapes = [layer.shape for layer in layers]
    cuts = np.cumsum([0] + [layer.size for layer in layers])

    def unpack(z):
        return [z[a:b].reshape(s) for a, b, s in zip(cuts, cuts[1:], shapes, strict=False)]

    def product(matrices, size):
        result = np.eye(size)
        for matrix in matrices:
            result = result @ matrix
        return result

    def slope(_, z):
        layers = unpack(z)
        gradient = 2 * X.T @ (X @ product(layers, X.shape[1]) - y[:, None])
        parts = []
        for i, layer in enumerate(layers):
            before = product(layers[:i], X.shape[1])
            after = product(layers[i + 1 :], layer.shape[1])
            parts.append(-(before.T @ gradient @ after.T))
        return np.concatenate([part.ravel() for part in parts])

    start = np.concatenate([layer.ravel() for layer in layers])
    end = solve_ivp(slope, (0, time), start, method="DOP853", rtol=1e-11, atol=1e-12).y[:, -1]
    beta = product(unpack(end), X.shape[1])[:, 0]
    assert np.abs(X @ beta - y).max() < 1e-8, "the flow has not converged"
    return beta


def data_set(seed, n=3, d=7):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), 2 * rng.normal(size=n), 1.3 * rng.normal(size=d)


def unit(vector):
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_endpoint_is_that_of_the_real_network(depth, whiten):
    X, y, source = data_set(depth)
    size = np.linalg.norm(source) ** (1 / depth)
    rng = np.random.default_rng(9)
    between = [unit(rng.normal(size=2)) for _ in range(depth - 1)]
    directions = [unit(source), *between, np.ones(1)]
    layers = [size * np.outer(a, c) for a, c in itertools.pairwise(directions)]
    beta = flow(layers, X, y, time=40.0, whiten=whiten)
    np.testing.assert_allclose(fine_tuning_endpoint(X, y, source, depth), beta, atol=1e-7)
    for twin in {1, 2, 3} - {depth}:
        assert np.abs(fine_tuning_endpoint(X, y, source, twin) - beta).max() > 1e-3


def head_flow(seed, s, a0, sign=1):
    X, y, source = data_set(seed)
    source = sign * np.sign(unit(source) @ X.T @ y) * source
    v = np.array([0.6, 0.8])
    beta = flow([s * np.outer(unit(source), v), a0 * v[:, None]], X, y, time=60.0)
    return beta, fine_tuning_head_endpoint(X, y, source, s, a0), (X, y, source)


@pytest.mark.parametrize(
    ("s", "a0", "sign"),
    [(0.7, 1.6, 1), (0.7, 1.6, -1), (1.2, 1.2, -1), (1.2, 0.3, 1), (1.2, 0, 1), (1.2, 0, -1)],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_head_endpoint_is_that_of_the_real_network(seed, s, a0, sign):
    beta, endpoint, (X, y, source) = head_flow(seed, s, a0, sign)
    np.testing.assert_allclose(endpoint, beta, atol=1e-7)
    if a0 != s:
        twin = fine_tuning_endpoint(X, y, s * a0 * unit(source) if a0 else source)
        assert np.abs(twin - beta).max() > 1e-3


def test_head_endpoint_leaves_open_what_theory_leaves_open():
    X, y, source = data_set(0)
    against = -np.sign(unit(source) @ X.T @ y) * source
    assert np.isnan(fine_tuning_head_endpoint(X, y, against, 1.2, 0.3)).all()


def test_head_scale_contains_the_balanced_start():
    g, h, B = np.array([0.2, 3.0]), np.array([0.3, 0.8]), 1.7
    head = fine_tuning_head_scale(g, h, math.sqrt(B), math.sqrt(B))
    np.testing.assert_allclose(head / math.sqrt(B), fine_tuning_endpoint_scale(g, h, B), rtol=1e-14)
    risks = fine_tuning_head_risk(np.array([0.4, 1.4]), 1.0, 0.6, math.sqrt(B), math.sqrt(B), 0.8)
    np.testing.assert_allclose(risks, fine_tuning_risk(np.array([0.4, 1.4]), 1.0, 0.6, B, 0.8), rtol=1e-13)


def test_a_probed_head_on_small_features_never_transfers_negatively():
    gamma, theta, b, s = 0.5, np.array([0.4, 1.2, 1.5]), 1.3, 1e-5
    risk = fine_tuning_head_risk(gamma, theta, 0.7, s, b * np.cos(theta) / s, b)
    best = scratch_risk(gamma, 0.7, b) - (1 - gamma) * b**2 * np.cos(theta) ** 2
    np.testing.assert_allclose(risk, best, rtol=1e-8)
    assert (fine_tuning_risk(gamma, theta, 0.7, b, b) > best + 1e-3).all()


def minimise_over_interpolators(potential, start, X, y, slope):
    """Minimum over X beta = y of potential(|beta|) - slope(start) . beta, by numerical search."""
    pseudo, basis = np.linalg.pinv(X) @ y, np.linalg.svd(X)[2][X.shape[0] :].T
    linear = slope(np.linalg.norm(start)) * unit(start)

    @jax.jit
    @jax.value_and_grad
    def objective(z):
        beta = pseudo + basis @ z
        return potential(jnp.linalg.norm(beta)) - linear @ beta

    found = minimize(objective, 0.1 * np.ones(basis.shape[1]), jac=True, method="BFGS", tol=1e-10)
    return pseudo + basis @ found.x


@pytest.mark.parametrize("depth", [2, 3, math.inf])
def test_endpoint_minimises_the_potential(depth):
    X, y, source = data_set(4)
    potential = lambda norm: implicit_bias_potential(norm, depth)  # noqa: E731
    best = minimise_over_interpolators(potential, source, X, y, jax.grad(potential))
    np.testing.assert_allclose(fine_tuning_endpoint(X, y, source, depth), best, atol=1e-6)
    assert np.abs(fine_tuning_endpoint(X, y, source, 1) - best).max() > 1e-3


@pytest.mark.parametrize(("s", "a0"), [(0.7, 1.6), (1.2, 0.3)])
def test_head_endpoint_minimises_the_unbalanced_potential(s, a0):
    X, y, source = data_set(1)
    source = np.sign(unit(source) @ X.T @ y) * source
    start = s * a0 * unit(source)
    potential = lambda x: unbalanced_bias_potential(x, a0**2 - s**2)  # noqa: E731
    best = minimise_over_interpolators(potential, start, X, y, jax.grad(potential))
    np.testing.assert_allclose(fine_tuning_head_endpoint(X, y, source, s, a0), best, atol=1e-6)
    assert np.abs(fine_tuning_endpoint(X, y, start) - best).max() > 1e-3


@pytest.mark.parametrize("delta", [-0.6, -1e-6, 0.0, 1e-6, 0.9])
def test_unbalanced_potential_is_its_integral(delta):
    x = np.array([0.0, 1e-3, 0.4, 3.0])
    slope = lambda z: 1.5 * math.sqrt(max(math.sqrt(z**2 + delta**2 / 4) - delta / 2, 0))  # noqa: E731
    expected = [quad(slope, 0, end, epsabs=1e-13, epsrel=1e-12, points=[1e-6])[0] for end in x]
    np.testing.assert_allclose(unbalanced_bias_potential(x, delta), expected, rtol=1e-9, atol=1e-12)
    if delta == 0:
        np.testing.assert_allclose(unbalanced_bias_potential(x, 0.0), x**1.5, rtol=1e-13)


def test_the_printed_formula_is_exact_where_it_should_be():
    gamma, theta = np.array([0.2, 0.9]), np.array([0.3, 1.4])
    printed = (1 - gamma) * (2 * np.cos(theta) - 1)
    for depth in (2, 3, math.inf):
        exact = fine_tuning_transferability(gamma, theta, 0.0, 1, 1, depth)
        np.testing.assert_allclose(exact, printed, rtol=1e-12, atol=1e-14)
        assert np.abs(fine_tuning_transferability(gamma, theta, 1.0, 1, 1, depth) - printed).min() > 0.01
    one_layer = fine_tuning_transferability(gamma, theta, 1.0, 1, 1, 1)
    np.testing.assert_allclose(one_layer, printed, rtol=1e-12)
    np.testing.assert_allclose(fine_tuning_boundary(gamma, 0.0), math.pi / 3, rtol=1e-12)
    degrees = [math.degrees(fine_tuning_boundary(0.5, 1.0, depth=depth)) for depth in (2, math.inf)]
    np.testing.assert_allclose(degrees, [52.2, 30.0], atol=0.05)


def test_beyond_interpolation_nothing_transfers():
    gamma = np.array([1.0, 1.0 + 1e-12, 3.0])
    assert (fine_tuning_transferability(gamma, 0.4, 0.5, 3, 1, 3) == 0).all()
    np.testing.assert_array_equal(fine_tuning_risk(gamma, 0.4, 0.5, 3), scratch_risk(gamma, 0.5))
    assert np.isnan(fine_tuning_boundary(gamma, 0.5)).all()
    assert np.isnan(fine_tuning_boundary(0.5, 0.0, 3.0, 1.0))
    assert np.isfinite(fine_tuning_boundary(0.5, 0.0, 1.0, 1.0))
    gradient = jax.grad(fine_tuning_risk, (0, 1, 2, 3))(1.5, 0.4, 0.5, 3.0)
    assert np.isfinite(jnp.asarray(gradient)).all()


@given(
    st.floats(0.02, 0.98),
    st.floats(0.01, 2),
    st.floats(0.2, 3),
    st.sampled_from([1, 2, 3, math.inf]),
)
@settings(max_examples=12, deadline=None)
def test_fine_tuning_crosses_scratch_training_at_the_boundary(gamma, sigma, B, depth):
    angle = fine_tuning_boundary(gamma, sigma, B, 1, depth)
    kappa = fine_tuning_scale(gamma, sigma, B, 1, depth)
    assert bool(np.isnan(angle)) == bool(kappa * B > 2)
    if np.isnan(angle):
        assert fine_tuning_transferability(gamma, 0.0, sigma, B, 1, depth) < 0
    else:
        zero = fine_tuning_transferability(gamma, angle, sigma, B, 1, depth)
        assert abs(zero) < 1e-12 * max(1, kappa * B) ** 2
        assert fine_tuning_transferability(gamma, angle + 1e-3, sigma, B, 1, depth) < 0


@pytest.mark.parametrize("depth", [2, math.inf])
def test_the_risk_is_the_mean_over_data_sets(depth):
    d, n, count, theta, sigma, B = 120, 60, 200, 2.4, 1.5, 0.6
    target = np.r_[math.cos(theta), math.sin(theta), np.zeros(d - 2)]
    source = B * np.eye(d)[0]

    @jax.jit
    @jax.vmap
    def risk(key):
        key, other = jax.random.split(key)
        X = jax.random.normal(key, (n, d))
        y = X @ target + sigma * jax.random.normal(other, (n,))
        return jnp.sum((fine_tuning_endpoint(X, y, source, depth) - target) ** 2)

    risks = jax.block_until_ready(risk(jax.random.split(jax.random.key(0), count)))
    tolerance = 5 * risks.std() / math.sqrt(count) + 3 / d
    assert abs(risks.mean() - fine_tuning_risk(n / d, theta, sigma, B, 1, depth)) < tolerance
    assert abs(risks.mean() - fine_tuning_risk(n / d, theta, sigma, B, 1, 1)) > tolerance


def test_a_finite_source_is_the_mean_over_sources():
    d, n, count, theta, sigma, noise = 60, 30, 200, 0.6, 0.5, 0.8
    target = np.r_[math.cos(theta), math.sin(theta), np.zeros(d - 2)]
    rng = np.random.default_rng(1)
    endpoints = jax.jit(jax.vmap(fine_tuning_endpoint))
    for n_source in (30, 120):
        X_source = rng.normal(size=(count, n_source, d))
        y_source = X_source[..., 0] + noise * rng.normal(size=(count, n_source))
        transposed = X_source.swapaxes(1, 2)
        if n_source < d:
            source = transposed @ np.linalg.solve(X_source @ transposed, y_source[..., None])
        else:
            source = np.linalg.solve(transposed @ X_source, transposed @ y_source[..., None])
        source = source[..., 0]
        X = rng.normal(size=(count, n, d))
        y = X @ target + sigma * rng.normal(size=(count, n))
        beta = np.asarray(endpoints(X, y, source))
        cosine2 = (source @ target) ** 2 / (source**2).sum(1)
        measured = ((beta - target) ** 2).sum(1), 1 - cosine2
        gamma_source = n_source / d
        predicted = (
            finite_source_fine_tuning_risk(n / d, theta, sigma, gamma_source, noise),
            finite_source_linear_transfer_risk(theta, gamma_source, noise),
        )
        perfect = fine_tuning_risk(n / d, theta, sigma), linear_transfer_risk(theta)
        for sample, exact, twin in zip(measured, predicted, perfect, strict=True):
            tolerance = 5 * sample.std() / math.sqrt(count) + 2 / d
            assert abs(sample.mean() - exact) < tolerance
            assert abs(sample.mean() - twin) > tolerance


def test_an_infinite_source_is_the_true_source():
    gamma = np.array([0.4, 1.7])
    np.testing.assert_allclose(
        finite_source_fine_tuning_risk(gamma, 0.6, 0.3, math.inf, 0.4, 3),
        fine_tuning_risk(gamma, 0.6, 0.3, 1, 1, 3),
        rtol=1e-12,
    )
    np.testing.assert_allclose(
        finite_source_linear_transfer_risk(0.6, math.inf, 0.4),
        linear_transfer_risk(0.6),
        rtol=1e-12,
    )
    assert np.isposinf(finite_source_fine_tuning_risk(0.4, 0.6, 0.3, 1.0, 0.4))
    assert finite_source_linear_transfer_risk(0.6, 1.0, 0.4) == 1
