"""Linear probes: exact means by integrals and Monte Carlo, ridge equivalents, orders of limits."""

import math

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads
from scipy.optimize import brentq, minimize_scalar

from theory.transfer import (
    feature_ridge_risk,
    feature_space_risk,
    isotropic_feature_ridge_risk,
    linear_transfer_boundary,
    linear_transfer_risk,
    linear_transfer_risk_finite,
    linear_transferability,
    scratch_risk,
    scratch_risk_finite,
    tuned_linear_transfer_boundary,
    tuned_linear_transfer_ridge,
    tuned_scratch_risk,
)


def integral_over_chi_square(n, theta, sigma, ridge, s, b):
    shift = n * mpmath.mpf(ridge) / s**2
    outside, inside = (b * mpmath.sin(theta)) ** 2, (b * mpmath.cos(theta)) ** 2

    def integrand(q):
        density = q ** (mpmath.mpf(n) / 2 - 1) * mpmath.exp(-q / 2)
        density /= 2 ** (mpmath.mpf(n) / 2) * mpmath.gamma(mpmath.mpf(n) / 2)
        return density * (inside * shift**2 + (outside + sigma**2) * q) / (q + shift) ** 2

    nodes = sorted({0, 1e-8, 1e-4, 1e-2, 1, n / 2, n, 2 * n, 4 * n + 100, mpmath.inf})
    return float(outside + mpmath.quad(integrand, nodes))


@pytest.mark.parametrize("n", [1, 3, 13, 200])
def test_finite_risk_is_the_chi_square_integral(n):
    ridges = np.array([1e-4, 0.02, 1.0, 50.0])
    args = (0.65, 0.4, 0.8, 1.1)
    computed = linear_transfer_risk_finite(n, 0.65, 0.4, ridges, 0.8, 1.1)
    expected = [integral_over_chi_square(n, *args[:2], ridge, *args[2:]) for ridge in ridges]
    np.testing.assert_allclose(computed, expected, rtol=1e-11)
    asymptotic = linear_transfer_risk(0.65, ridges, 0.8, 1.1)
    assert not np.allclose(asymptotic, expected, rtol=1e-3)


def test_finite_risk_without_ridge():
    n = np.array([3, 4, 5, 13, 1000])
    outside, noise = 1.1**2 * math.sin(0.65) ** 2, 0.4**2
    exact = outside + (outside + noise) / (n - 2)
    np.testing.assert_allclose(linear_transfer_risk_finite(n, 0.65, 0.4, 0, 1, 1.1), exact, rtol=1e-12)
    nearly = linear_transfer_risk_finite(n[2:], 0.65, 0.4, 1e-13, 1, 1.1)
    np.testing.assert_allclose(nearly, exact[2:], rtol=1e-8)
    assert np.isposinf(linear_transfer_risk_finite(np.array([1, 2]), 0.65, 0.4)).all()
    assert linear_transfer_risk_finite(2, 0.0, 0.0) == 0
    assert np.isfinite(jax.grad(linear_transfer_risk_finite, 3)(13.0, 0.65, 0.4, 0.0))


def test_finite_risk_tends_to_the_asymptotic_one_as_one_over_n():
    n = np.array([100, 200, 400, 800])
    gaps = linear_transfer_risk_finite(n, 0.65, 0.4, 0.2) - linear_transfer_risk(0.65, 0.2)
    assert np.all(np.abs(np.diff(np.log(np.abs(gaps))) / np.log(2) + 1) < 0.1)
    np.testing.assert_allclose(
        linear_transfer_risk(0.65, 0.2), 1 - (1 + 0.4) / 1.2**2 * math.cos(0.65) ** 2, rtol=1e-14
    )


def test_finite_risk_is_the_mean_of_probes():
    n, theta, sigma, ridge, s, b, count = 6, 1.1, 0.5, 0.1, 0.8, 1.2, 200_000
    rng = np.random.default_rng(0)
    z, other, noise = rng.normal(size=(3, count, n))
    y = b * math.cos(theta) * z + b * math.sin(theta) * other + sigma * noise
    feature = s * z
    head = (feature * y).sum(1) / ((feature**2).sum(1) + n * ridge)
    risks = (b * math.sin(theta)) ** 2 + (s * head - b * math.cos(theta)) ** 2
    error = risks.std() / math.sqrt(count)
    assert abs(risks.mean() - linear_transfer_risk_finite(n, theta, sigma, ridge, s, b)) < 5 * error
    assert abs(risks.mean() - linear_transfer_risk_finite(n, theta, sigma, ridge, 1, b)) > 5 * error
    assert abs(risks.mean() - linear_transfer_risk_finite(n + 1, theta, sigma, ridge, s, b)) > 5 * error


def test_tuned_probe_ridge_is_the_minimum():
    n, theta, sigma, s, b = 9, 0.8, 0.5, 0.7, 1.2
    risk = jax.jit(lambda x: linear_transfer_risk_finite(n, theta, sigma, jnp.exp(x), s, b))
    best = minimize_scalar(lambda x: float(risk(x)), bounds=(-8, 4), method="bounded")
    ridge = float(tuned_linear_transfer_ridge(n, theta, sigma, s, b))
    assert abs(best.x - math.log(ridge)) < 1e-3 < abs(best.x - math.log(ridge * n / (n - 1)))
    orthogonal = tuned_linear_transfer_ridge(n, math.pi / 2, sigma)
    np.testing.assert_allclose(linear_transfer_risk_finite(n, math.pi / 2, sigma, orthogonal), 1, rtol=1e-12)


@pytest.mark.parametrize(("n", "r", "d"), [(16, 6, 9), (5, 12, 16)])
def test_feature_space_risk_is_the_mean_of_probes(n, r, d):
    count, sigma = 6000, 0.4
    rng = np.random.default_rng(r)
    beta = rng.normal(size=d)
    X = rng.normal(size=(count, n, d))
    y = X @ beta + sigma * rng.normal(size=(count, n))
    head = (np.linalg.pinv(X[..., :r]) @ y[..., None])[..., 0]
    inside, outside = (beta[:r] ** 2).sum(), (beta[r:] ** 2).sum()
    risks = outside + ((head - beta[:r]) ** 2).sum(1)
    error = risks.std() / math.sqrt(count)
    assert abs(risks.mean() - feature_space_risk(n, r, inside, outside, sigma)) < 5 * error
    assert abs(risks.mean() - feature_space_risk(n, r, inside, 0, sigma) - outside) > 5 * error


def test_feature_space_contains_one_feature_and_all_features():
    outside = math.sin(0.7) ** 2
    np.testing.assert_allclose(
        feature_space_risk(9, 1, 1 - outside, outside, 0.3),
        linear_transfer_risk_finite(9, 0.7, 0.3),
        rtol=1e-12,
    )
    n = np.array([5, 30])
    np.testing.assert_allclose(
        feature_space_risk(n, 12, 1.44, 0, 0.3), scratch_risk_finite(n, 12, 0.3, 1.2), rtol=1e-14
    )
    assert np.isposinf(feature_space_risk(np.array([11, 12, 13]), 12, 1, 0.1, 0)).all()


def dense_feature_ridge_risk(W, target, n, sigma, ridge):
    k, v = np.linalg.eigh(W @ W.T)
    k = np.maximum(k, 0)
    kappa = brentq(lambda x: x - ridge - x / n * (k / (k + x)).sum(), ridge, ridge + k.sum() / n, xtol=1e-15)
    D2 = (k**2 / (k + kappa) ** 2).sum() / n
    bias = (kappa**2 * (v.T @ target) ** 2 / (k + kappa) ** 2).sum()
    return (bias + sigma**2 * D2) / (1 - D2)


@pytest.mark.parametrize(("d", "r", "n"), [(7, 3, 10), (7, 3, 2), (5, 8, 4)])
def test_feature_ridge_risk_is_the_sum_over_the_full_basis(d, r, n):
    rng = np.random.default_rng(d)
    W, target = rng.normal(size=(d, r)), rng.normal(size=d)
    for ridge in (1e-3, 0.3):
        expected = dense_feature_ridge_risk(W, target, n, 0.4, ridge)
        np.testing.assert_allclose(feature_ridge_risk(W, target, n, 0.4, ridge), expected, rtol=1e-9)
    batch = feature_ridge_risk(W, target, np.array([[n], [n + 1]]), 0.4, np.array([1e-3, 0.3]))
    assert batch.shape == (2, 2)
    np.testing.assert_allclose(batch[0, 1], expected, rtol=1e-9)


def test_feature_ridge_risk_gradient_with_equal_and_zero_directions():
    W = jnp.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 0], [0, 0, 0]])
    target = jnp.array([0.5, 0.2, 0.1, -0.3])
    risk = jax.jit(lambda *args: feature_ridge_risk(args[0], args[1], 5, args[2], args[3]))
    check_grads(risk, (W, target, 0.3, 0.1), order=1, modes=["rev"], atol=1e-5, rtol=1e-5)


def test_feature_ridge_risk_is_close_to_the_mean_of_probes():
    d, n, r, sigma, ridge, count = 40, 60, 40, 0.5, 0.02, 1500
    rng = np.random.default_rng(5)
    W = rng.normal(size=(d, r)) * np.linspace(0.05, 1, r) / math.sqrt(d)
    target = rng.normal(size=d) / math.sqrt(d)
    X = rng.normal(size=(count, n, d))
    y = X @ target + sigma * rng.normal(size=(count, n))
    H = X @ W
    gram = H.transpose(0, 2, 1) @ H / n + ridge * np.eye(r)
    head = np.linalg.solve(gram, (H.transpose(0, 2, 1) @ y[..., None]) / n)[..., 0]
    mean = ((head @ W.T - target) ** 2).sum(1).mean()
    np.testing.assert_allclose(feature_ridge_risk(W, target, n, sigma, ridge), mean, rtol=0.02)
    assert abs(feature_ridge_risk(W, target, n, sigma, 4 * ridge) / mean - 1) > 0.04


def test_isotropic_tail_is_the_limit_of_features():
    gamma, theta, sigma, ridge, alpha, s, b = 0.7, 0.65, 0.25, 0.05, 0.3, 1.2, 1.1
    risk_of = jax.jit(feature_ridge_risk)
    limit = isotropic_feature_ridge_risk(gamma, theta, sigma, ridge, alpha, s, b)
    gaps = []
    for d in (40, 80, 120):
        W = np.diag(np.r_[math.hypot(alpha, s), np.full(d - 1, alpha)])
        target = b * np.r_[math.cos(theta), math.sin(theta), np.zeros(d - 2)]
        gaps.append(float(risk_of(W, target, round(gamma * d), sigma, ridge) - limit))
    slopes = np.diff(np.log(np.abs(gaps))) / np.diff(np.log([40, 80, 120]))
    assert np.all(np.abs(slopes + 1) < 0.1)


@pytest.mark.parametrize("gamma", [0.3, 0.9])
def test_ridgeless_isotropic_tail(gamma):
    theta, sigma, alpha, s, b = 0.65, 0.25, 0.3, 1.2, 1.1
    w = alpha**2 / (alpha**2 + s**2)
    cosine2, sine2 = math.cos(theta) ** 2, math.sin(theta) ** 2
    form = (1 - gamma) * b**2 * (sine2 + cosine2 / (1 - gamma + gamma / w) ** 2)
    form += sigma**2 * gamma / (1 - gamma)
    risk = isotropic_feature_ridge_risk(gamma, theta, sigma, 0, alpha, s, b)
    np.testing.assert_allclose(risk, form, rtol=1e-12)
    np.testing.assert_allclose(isotropic_feature_ridge_risk(gamma, theta, sigma, 1e-13, alpha, s, b), form, rtol=1e-9)


def test_the_two_limits_do_not_commute():
    gamma, theta, sigma = 0.4, 0.9, 0.2
    tail_first = isotropic_feature_ridge_risk(gamma, theta, sigma, 1e-6, 1e-7)
    np.testing.assert_allclose(tail_first, linear_transfer_risk(theta), rtol=1e-5)
    ridge_first = isotropic_feature_ridge_risk(gamma, theta, sigma, 0, 1e-7)
    expected = scratch_risk(gamma, sigma, math.sin(theta))
    np.testing.assert_allclose(ridge_first, expected, rtol=1e-10)
    assert abs(tail_first - ridge_first) > 0.1
    np.testing.assert_allclose(
        isotropic_feature_ridge_risk(gamma, theta, sigma, [0.0, 0.3], 0.0, 0.8, 1.1),
        linear_transfer_risk(theta, np.array([0.0, 0.3]), 0.8, 1.1),
        rtol=1e-14,
    )


def test_isotropic_tail_beyond_the_peak():
    np.testing.assert_allclose(isotropic_feature_ridge_risk(2.0, 1.0, 0.3, 0, 0.1), 0.09, rtol=1e-12)
    assert np.isposinf(isotropic_feature_ridge_risk(1.0, 1.0, 0.3, 0, 0.1))


@given(st.floats(0.05, 3.1), st.floats(0.01, 1.9))
@settings(max_examples=30, deadline=None)
def test_probes_cross_scratch_training_at_the_boundary(theta, sigma):
    minus, plus, over = linear_transfer_boundary(theta, sigma)
    cosine, step = abs(math.cos(theta)), 1e-4
    assert bool(np.isnan(minus)) == bool(np.isnan(plus)) == (cosine >= 1 - sigma)
    if cosine < 1 - sigma:
        zeros = linear_transferability(np.array([minus, plus]), theta, sigma)
        np.testing.assert_allclose(zeros, 0, atol=1e-8)
        if plus - minus > 0.01:
            inside = linear_transferability(np.array([minus + step, plus - step]), theta, sigma)
            assert (inside < 0).all()
        assert (linear_transferability(np.array([minus * 0.999, plus * 1.0001]), theta, sigma) > 0).all()
    else:
        everywhere = linear_transferability(np.linspace(0.01, 0.999, 50), theta, sigma)
        assert (everywhere > -1e-12).all()
    sides = linear_transferability(over * np.array([1 - 1e-6, 1, 1 + 1e-6]), theta, sigma)
    assert sides[0] > 0 > sides[2]
    assert abs(sides[1]) < 1e-9
    tuned = tuned_linear_transfer_boundary(theta, sigma)
    np.testing.assert_allclose(tuned_scratch_risk(max(tuned, 1e-30), sigma), linear_transfer_risk(theta), rtol=1e-9)


def test_boundary_at_its_tangency_and_ends():
    sigma = 0.3
    tangent = math.acos(1 - sigma) + 1e-9
    minus, plus, _ = linear_transfer_boundary(tangent, sigma)
    np.testing.assert_allclose([minus, plus], 1 - sigma, rtol=1e-3)
    np.testing.assert_allclose(scratch_risk(1 - sigma, sigma), 2 * sigma - sigma**2, rtol=1e-14)
    assert np.isnan(linear_transfer_boundary(0.0, 0.1)).all()
    assert np.isnan(linear_transfer_boundary(1.2, 2.5)[0])
    assert np.isnan(tuned_linear_transfer_boundary(0.0, 0.1))
    np.testing.assert_allclose(linear_transfer_boundary(0.9, 0.0), [math.cos(0.9) ** 2, 1, 1], rtol=1e-14)
