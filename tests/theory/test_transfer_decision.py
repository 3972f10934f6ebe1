"""Recommendations at the boundaries, and the overlap estimate by Monte Carlo with coverage."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from theory.transfer import (
    CHOICES,
    estimate_overlap,
    feature_space_risk,
    fine_tuning_transferability,
    linear_transfer_risk_finite,
    recommend,
    scratch_risk_finite,
    tuned_linear_transfer_boundary,
    tuned_linear_transfer_ridge,
    tuned_scratch_risk,
)


@pytest.mark.thorough
def test_recommendation_holds_the_three_risks():
    n, theta = np.array([[20], [150]]), np.array([0.2, 1.0, 2.0])
    advice = recommend(n, 100, 0.3, theta, 1.2, 0.9, 3)
    scratch = np.broadcast_to(scratch_risk_finite(n, 100, 0.3, 0.9), (2, 3))
    np.testing.assert_allclose(advice.scratch, scratch, rtol=1e-14)
    probe = linear_transfer_risk_finite(n, theta[None], 0.3, target_norm=0.9)
    np.testing.assert_allclose(advice.probe, probe, rtol=1e-14)
    saved = fine_tuning_transferability(n / 100, theta[None], 0.3, 1.2, 0.9, 3)
    np.testing.assert_allclose(advice.fine_tune, scratch - saved, rtol=1e-12)
    stacked = np.stack(advice[:3])
    np.testing.assert_array_equal(advice.choice, stacked.argmin(0))
    assert advice.name.shape == (2, 3)
    assert set(advice.name.ravel()) <= set(CHOICES)
    assert recommend(20, 100, 0.3, 0.05).name == "linear probe"
    assert recommend(1000, 100, 0.3, 1.0).name == "train from scratch"
    assert recommend(50, 100, 0.0, 0.9).name == "fine-tune"


def test_recommendation_under_jit_and_at_the_peak():
    advice = jax.jit(recommend)(np.array([99, 100, 101]), 100, 0.3, 1.0)
    assert (advice.choice == 1).all()
    assert np.isposinf(advice.scratch).all()


def test_tuned_recommendation():
    n, theta = np.array([30, 300]), np.array([0.5, 1.1])
    advice = recommend(n, 100, 0.3, theta, tuned=True)
    np.testing.assert_allclose(advice.scratch, tuned_scratch_risk(n / 100, 0.3), rtol=1e-14)
    ridge = tuned_linear_transfer_ridge(n, theta, 0.3)
    np.testing.assert_allclose(advice.probe, linear_transfer_risk_finite(n, theta, 0.3, ridge), rtol=1e-13)
    assert (advice.probe < recommend(n, 100, 0.3, theta).probe).all()
    edge = 10_000 * float(tuned_linear_transfer_boundary(1.2, 1.0))
    sides = recommend(np.round(edge * np.array([0.9, 1.1])), 10_000, 1.0, 1.2, tuned=True)
    assert (np.sign(sides.scratch - sides.probe) == [1, -1]).all()


def estimates(n, d, r, inside, outside, sigma, sign=1, count=1000, seed=0):
    """Estimates on many data sets, for features whose columns are neither normal nor of length 1."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(d, r + 1)))[0]
    features = basis[:, :r] @ (2 * np.eye(r) + 0.3 * rng.normal(size=(r, r)))
    direction = features[:, 0] / np.linalg.norm(features[:, 0])
    beta = sign * math.sqrt(inside) * direction + math.sqrt(outside) * basis[:, r]

    @jax.jit
    @jax.vmap
    def estimate(key):
        key, other = jax.random.split(key)
        X = jax.random.normal(key, (n, d))
        y = X @ beta + sigma * jax.random.normal(other, (n,))
        return estimate_overlap(features, X, y)

    return jax.block_until_ready(estimate(jax.random.split(jax.random.key(seed), count)))


@pytest.mark.parametrize(
    ("n", "d", "r", "inside", "outside", "sigma", "sign"),
    [
        (60, 100, 1, 0.5, 0.5, 0.3, 1),
        (60, 100, 1, 0.5, 0.5, 0.3, -1),
        (90, 40, 3, 0.7, 0.3, 0.5, 1),
        (60, 60, 1, 0.95, 0.05, 0.1, 1),
    ],
)
def test_overlap_is_unbiased_with_honest_errors_and_coverage(n, d, r, inside, outside, sigma, sign):
    found = estimates(n, d, r, inside, outside, sigma, sign)
    count = found.inside.size
    for value, error, truth in (
        (found.inside, found.inside_error, inside),
        (found.outside, found.outside_error, outside),
    ):
        assert abs(value.mean() - truth) < 5 * value.std() / math.sqrt(count)
        np.testing.assert_allclose(math.sqrt(np.mean(error**2)), value.std(), rtol=0.15)
    # the square of `noise` is clipped at 0, the total is not
    wrong = (found.outside + sigma**2).mean() - outside  # what one probe alone would call the floor
    assert abs(wrong) > 5 * found.outside.std() / math.sqrt(count) or sigma < 0.2
    cosine = math.sqrt(inside / (inside + outside)) * (sign if r == 1 else 1)
    low, high = found.cosine_interval
    coverage = float(((low <= cosine) & (cosine <= high)).mean())
    assert abs(coverage - 0.95) < 0.03 + 4 * math.sqrt(0.05 / count)
    assert (low <= found.cosine).all()
    assert (found.cosine <= high).all()
    half = (low + high) / 2 + (high - low) / 4  # a twin: half the interval does not cover
    quarter = (high - low) / 4
    assert float((jnp.abs(half - cosine) <= quarter).mean()) < 0.9
    np.testing.assert_allclose(jnp.cos(found.theta), found.cosine, atol=1e-12)
    np.testing.assert_allclose(jnp.cos(found.theta_interval[0]), high, atol=1e-12)


def test_a_probe_alone_does_not_separate_floor_from_noise_but_the_inputs_do():
    total = 0.8
    floor, noise = (
        estimates(80, 60, 2, 0.5, *split, count=500) for split in ((0.7, math.sqrt(0.1)), (0.1, math.sqrt(0.7)))
    )
    same = floor.inside.mean() - noise.inside.mean()
    error = math.sqrt((floor.inside.var() + noise.inside.var()) / 500)
    assert abs(same) < 5 * error
    apart = floor.outside.mean() - noise.outside.mean()
    assert abs(apart - 0.6) < 5 * math.sqrt((floor.outside.var() + noise.outside.var()) / 500)
    np.testing.assert_allclose(np.median(noise.noise**2), 0.7, rtol=0.1)
    assert feature_space_risk(80, 2, 0.5, 0.7, math.sqrt(total - 0.7)) > 0.7


def test_overlap_of_exact_data_and_of_redundant_features():
    rng = np.random.default_rng(3)
    d, n = 30, 25
    features = rng.normal(size=(d, 2))
    X = rng.normal(size=(n, d))
    exact = estimate_overlap(features, X, X @ features @ np.array([1.0, -2.0]))
    norm2 = np.sum((features @ np.array([1.0, -2.0])) ** 2)
    np.testing.assert_allclose(exact.inside, norm2, rtol=1e-12)
    np.testing.assert_allclose([exact.outside, exact.noise], 0, atol=1e-10)
    np.testing.assert_allclose(exact.cosine, 1, rtol=1e-10)
    y = X @ rng.normal(size=d) + rng.normal(size=n)
    plain = estimate_overlap(features, X, y)
    redundant = estimate_overlap(features @ rng.normal(size=(2, 4)), X, y)
    kept = estimate_overlap(np.c_[3 * features, 1e-3 * rng.normal(size=d)], X, y, rank=2)
    np.testing.assert_allclose(redundant.inside, plain.inside, rtol=1e-9)
    np.testing.assert_allclose(kept.inside, plain.inside, rtol=0.05)
    wide = estimate_overlap(features, X, y, confidence=0.999).cosine_interval
    assert wide[0] <= plain.cosine_interval[0]
    assert wide[1] >= plain.cosine_interval[1]


def test_overlap_refuses_what_it_cannot_answer():
    X, y, W = np.ones((9, 5)), np.ones(9), np.eye(5)[:, :2]
    with pytest.raises(ValueError, match="`features` must be of rank below the dimension 5, but got 5"):
        estimate_overlap(np.eye(5), X, y)
    with pytest.raises(ValueError, match="`n` must be at least the features' rank plus 3, 5, but got 4"):
        estimate_overlap(W, X[:4], y[:4])
    with pytest.raises(ValueError, match="`features` must be different from 0"):
        estimate_overlap(0 * W, X, y)
    with pytest.raises(ValueError, match="`confidence` must be between 0 and 1, but got 95"):
        estimate_overlap(W, X, y, confidence=95)
    with pytest.raises(ValueError, match="must have shapes"):
        estimate_overlap(W, X, y[:3])
