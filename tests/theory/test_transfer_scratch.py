"""Scratch risk: exact laws by Monte Carlo, tuned ridge by minimisation, limits and edges."""

import math

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.optimize import minimize_scalar

from theory.random_matrix import marchenko_pastur_mean
from theory.transfer import (
    early_stopped_risk,
    pretraining_half_time,
    pretraining_norm,
    scratch_risk,
    scratch_risk_finite,
    scratch_risk_std,
    tuned_scratch_ridge,
    tuned_scratch_risk,
    weight_decay_ridge,
)

positive = st.floats(0.05, 5)


def sampled_risks(n, d, sigma, b, count, seed):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(count, n, d))
    beta = b * np.eye(d)[0]
    y = X @ beta + sigma * rng.normal(size=(count, n))
    hat = (np.linalg.pinv(X) @ y[..., None])[..., 0]
    return ((hat - beta) ** 2).sum(1)


@pytest.mark.parametrize(("n", "d"), [(5, 14), (24, 10)])
def test_finite_mean_and_law_are_exact(n, d):
    sigma, b, count = 1.5, 1.3, 8000
    risks = sampled_risks(n, d, sigma, b, count, seed=n)
    error = risks.std() / math.sqrt(count)
    assert abs(risks.mean() - scratch_risk_finite(n, d, sigma, b)) < 5 * error
    assert abs(risks.mean() - scratch_risk(n / d, sigma, b)) > 5 * error
    rng = np.random.default_rng(0)
    m, gap = min(n, d), abs(n - d)

    def law(freedom):
        unseen = rng.beta((d - n) / 2, n / 2, size=100_000) if n < d else 0
        ratio = rng.chisquare(m, size=100_000) / rng.chisquare(freedom, size=100_000)
        return b**2 * unseen + sigma**2 * ratio

    assert scipy.stats.ks_2samp(risks, law(gap + 1)).pvalue > 1e-5
    assert scipy.stats.ks_2samp(risks, law(gap)).pvalue < 1e-8
    # the standard deviation of that law, from its moments
    inverse = scipy.stats.invgamma((gap + 1) / 2, scale=0.5)
    second = m * (m + 2) * (inverse.var() + inverse.mean() ** 2)
    variance = sigma**4 * (second - (m * inverse.mean()) ** 2)
    if n < d:
        variance += b**4 * scipy.stats.beta((d - n) / 2, n / 2).var()
    np.testing.assert_allclose(scratch_risk_std(n, d, sigma, b), math.sqrt(variance), rtol=1e-12)


def test_spread_by_wishart_moments_above_d():
    n, d = 30, 12
    common = (n - d) * (n - d - 1) * (n - d - 3)
    trace_of_square = d * (n - 1) / common
    square_of_trace = d * (d * (n - d - 2) + 2) / common
    variance = 2 * trace_of_square + square_of_trace - (d / (n - d - 1)) ** 2
    np.testing.assert_allclose(scratch_risk_std(n, d, 1.0) ** 2, variance, rtol=1e-12)


def test_edges():
    n = np.array([9, 10, 11])
    assert np.isposinf(scratch_risk_finite(n, 10, 0.1)).all()
    assert np.isfinite(scratch_risk_finite(np.array([8, 12]), 10, 0.1)).all()
    np.testing.assert_allclose(scratch_risk_finite(n, 10, 0.0), [0.1, 0, 0], atol=1e-15)
    assert np.isposinf(scratch_risk_std(np.array([7, 13]), 10, 0.1)).all()
    assert np.isfinite(scratch_risk_std(np.array([6, 14]), 10, 0.1)).all()
    np.testing.assert_allclose(scratch_risk_std(7, 10, 0.0) ** 2, 2 * 7 * 3 / (100 * 12))
    assert scratch_risk_std(0, 10, 1.0) == 0
    assert scratch_risk_finite(0, 10, 1.0) == 1
    assert np.isposinf(scratch_risk(1.0, 0.1))
    assert scratch_risk(1.0, 0.0) == 0
    assert scratch_risk(math.inf, 1.0) == 0
    assert tuned_scratch_risk(math.inf, 1.0) == 0
    np.testing.assert_allclose(scratch_risk(1e-9, 1.0, 2.0), 4, rtol=1e-8)
    assert np.isfinite(jax.grad(scratch_risk, (0, 1, 2))(1.0, 0.0, 1.0)).all()


def test_the_finite_mean_tends_to_the_asymptotic_one_as_one_over_d():
    d = np.array([100, 200, 400, 800])
    for gamma in (0.5, 1.5):
        gaps = np.abs(scratch_risk_finite(gamma * d, d, 0.7) - scratch_risk(gamma, 0.7))
        slopes = np.diff(np.log(gaps)) / np.log(2)
        assert np.all(np.abs(slopes + 1) < 0.1)


@given(positive, positive, positive, positive)
@settings(max_examples=25, deadline=None)
def test_symmetries(gamma, sigma, b, scale):
    risk, tuned = scratch_risk(gamma, sigma, b), tuned_scratch_risk(gamma, sigma, b)
    np.testing.assert_allclose(scratch_risk(gamma, scale * sigma, scale * b), scale**2 * risk, rtol=1e-12)
    assert tuned <= risk * (1 + 1e-12)
    assert tuned <= b**2 * (1 + 1e-12)
    if gamma != 1:  # the noise's share is symmetric in n and d up to the factor 1 / gamma
        noise = risk - b**2 * max(1 - gamma, 0)
        mirrored = scratch_risk(1 / gamma, sigma, b) - b**2 * max(1 - 1 / gamma, 0)
        np.testing.assert_allclose(noise, mirrored, rtol=1e-8)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 1.7])
def test_tuned_ridge_is_the_minimum_of_the_ridge_risk(gamma):
    sigma, b = 0.6, 1.3

    @jax.jit
    def risk(ridge):
        missed = marchenko_pastur_mean(lambda e: (ridge / (e + ridge)) ** 2, gamma, 1.0)
        noise = marchenko_pastur_mean(lambda e: e / (e + ridge) ** 2, gamma)
        return b**2 * missed + sigma**2 / gamma * noise

    ridge = tuned_scratch_ridge(gamma, sigma, b)
    np.testing.assert_allclose(risk(ridge), tuned_scratch_risk(gamma, sigma, b), rtol=1e-11)
    assert abs(jax.jit(jax.grad(risk))(ridge)) < 1e-11
    best = minimize_scalar(lambda x: float(risk(math.exp(x))), bounds=(-6, 4), method="bounded")
    np.testing.assert_allclose(best.fun, tuned_scratch_risk(gamma, sigma, b), rtol=1e-9)
    assert abs(best.x - math.log(ridge)) < 1e-3 < abs(best.x - math.log(ridge * gamma**2 / 2))


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_weight_decay_is_a_ridge(depth):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(6, 4)), rng.normal(size=6)
    ridge = 0.3
    beta = np.linalg.solve(X.T @ X / 6 + ridge * np.eye(4), X.T @ y / 6)
    norm = np.linalg.norm(beta)
    decay = ridge / weight_decay_ridge(1.0, norm, depth)
    unit = jnp.asarray(beta / norm)
    size = norm ** (1 / depth)
    layers = [size * jnp.outer(unit, unit) for _ in range(depth - 1)] + [size * unit]

    def loss(layers, decay):
        vector = layers[-1]
        for layer in reversed(layers[:-1]):
            vector = layer @ vector
        penalty = sum(jnp.sum(layer**2) for layer in layers)
        return jnp.mean((y - X @ vector) ** 2) + decay / 2 * penalty

    gradient = jax.grad(loss)(layers, decay)
    assert max(jnp.abs(leaf).max() for leaf in gradient) < 1e-10
    gradient = jax.grad(loss)(layers, 2 * decay)
    assert max(jnp.abs(leaf).max() for leaf in gradient) > 1e-3


@pytest.mark.parametrize("gamma", [0.7, 1.8])
def test_early_stopping_against_mpmath_and_its_ends(gamma):
    distance2, sigma, t = 0.9, 0.25, 2.5
    low, high = (1 - gamma**-0.5) ** 2, (1 + gamma**-0.5) ** 2

    def integrand(e):
        density = gamma * mpmath.sqrt((high - e) * (e - low)) / (2 * mpmath.pi * e)
        fitted = (1 - mpmath.exp(-2 * e * t)) ** 2 / e
        return density * (distance2 * mpmath.exp(-4 * e * t) + sigma**2 / gamma * fitted)

    expected = float(mpmath.quad(integrand, [low, (low + high) / 2, high]))
    expected += distance2 * max(1 - gamma, 0)
    assert abs(early_stopped_risk(gamma, distance2, sigma, t) - expected) < 1e-10
    assert abs(early_stopped_risk(gamma, distance2, sigma, t / 2) - expected) > 1e-4
    np.testing.assert_allclose(early_stopped_risk(gamma, distance2, sigma, 0), distance2, rtol=1e-13)
    np.testing.assert_allclose(
        early_stopped_risk(gamma, 1.3**2, sigma, math.inf),
        scratch_risk(gamma, sigma, 1.3),
        rtol=1e-12,
    )


def test_early_stopping_at_the_peak():
    times = np.array([10.0, 1e4, math.inf])
    risks = early_stopped_risk(1.0, 1.0, 0.3, times)
    assert np.isfinite(risks[:2]).all()
    assert np.isposinf(risks[2])
    assert early_stopped_risk(1.0, 1.0, 0.0, math.inf) == 0


def test_pretraining_is_the_flow_of_the_layers():
    source_norm, head = 1.4, 0.02

    def flow(_, weights):  # two balanced layers along the source: beta = w_1 w_2
        miss = 2 * (weights[0] * weights[1] - source_norm)
        return [-miss * weights[1], -miss * weights[0]]

    times = np.linspace(0, 2, 9)
    path = solve_ivp(flow, (0, 2), [head, head], t_eval=times, rtol=1e-11, atol=1e-14)
    norms = path.y[0] * path.y[1]
    initial = head**2  # |w_1 + w_2|^2 / 4
    np.testing.assert_allclose(pretraining_norm(times, source_norm, initial), norms, rtol=1e-8)
    assert not np.allclose(pretraining_norm(times / 2, source_norm, initial), norms, rtol=1e-2)
    half = pretraining_half_time(source_norm, initial)
    np.testing.assert_allclose(pretraining_norm(half, source_norm, initial), source_norm / 2)
    np.testing.assert_allclose(half, math.log(source_norm / initial) / (4 * source_norm), rtol=1e-3)
    np.testing.assert_allclose(pretraining_norm(math.inf, source_norm, initial), source_norm)
