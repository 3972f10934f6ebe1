"""Distances between data laws: second derivations, and the three arguments against them."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from scipy.optimize import brentq

from theory import gaussian
from theory.transfer import (
    fine_tuning_risk,
    kl_divergence,
    linear_transfer_boundary,
    linear_transferability,
    mmd,
    scratch_risk,
    wasserstein2,
)

PAIRS = [(0.7, 0.4, 1.3, 0.9), (2.5, 0.2, 0.5, 1.5), (0.01, 1.0, 1.0, 1.0)]


def covariances(theta, sigma, B, b, d=2):
    """Covariances of (x, y), x in R^d, under source and target."""
    result = []
    for norm, angle in ((B, 0.0), (b, theta)):
        beta = norm * np.r_[math.cos(angle), math.sin(angle), np.zeros(d - 2)]
        block = np.eye(d + 1)
        block[-1, :-1] = block[:-1, -1] = beta
        block[-1, -1] = norm**2 + sigma**2
        result.append(block)
    return result


@pytest.mark.parametrize("pair", PAIRS)
def test_kl_is_the_general_gaussian_divergence(pair):
    S, T = covariances(*pair)
    general = (np.trace(np.linalg.solve(T, S)) - 3 + np.log(np.linalg.det(T) / np.linalg.det(S))) / 2
    np.testing.assert_allclose(kl_divergence(*pair), general, rtol=1e-9)
    assert not np.isclose(2 * kl_divergence(*pair), general, rtol=1e-3)


@pytest.mark.parametrize("pair", PAIRS)
def test_wasserstein_is_the_formula_of_square_roots(pair):
    S, T = covariances(*pair)
    root = scipy.linalg.sqrtm(S)
    exact = np.trace(S + T - 2 * np.real(scipy.linalg.sqrtm(root @ T @ root)))
    np.testing.assert_allclose(wasserstein2(*pair) ** 2, exact, rtol=1e-8)
    assert not np.isclose(wasserstein2(*pair), exact, rtol=1e-3)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("d", [2, 6])
def test_mmd_is_the_discrepancy_of_the_whole_law(pair, d):
    theta, sigma, B, b = pair
    S, T = map(jnp.asarray, covariances(*pair, d=d))
    exact = gaussian.mmd(S, T, 1.8)
    np.testing.assert_allclose(mmd(theta, sigma, 1.8, d, B, b), exact, rtol=1e-8)
    assert not np.isclose(mmd(theta, sigma, 1.8, d + 1, B, b), exact, rtol=1e-3)


def test_small_distances_do_not_cancel():
    theta = 1e-7
    for distance in (wasserstein2, lambda t, s: mmd(t, s, 1.5, 4)):
        slope = distance(1e-3, 0.4) / 1e-3
        np.testing.assert_allclose(distance(theta, 0.4) / theta, slope, rtol=1e-5)
        assert distance(0.0, 0.4) == pytest.approx(0, abs=1e-15)
    np.testing.assert_allclose(kl_divergence(theta, 1.0), theta**2 / 2, rtol=1e-12)
    single = mmd(jnp.float32(1e-4), 0.4, 1.5, 4)
    np.testing.assert_allclose(single, mmd(1e-4, 0.4, 1.5, 4), rtol=1e-4)
    assert np.isfinite(jax.grad(wasserstein2)(0.0, 0.4))


def test_one_pair_changes_sign_three_times_in_the_amount_of_data():
    theta, sigma = math.pi / 4, 0.2
    zeros = np.array(linear_transfer_boundary(theta, sigma))
    np.testing.assert_allclose(zeros, [0.5486, 0.9114, 1.0800], atol=5e-5)
    gamma = np.array([0.3, 0.7, 1.02, 1.5])
    assert np.sign(linear_transferability(gamma, theta, sigma)).tolist() == [1, -1, 1, -1]


@pytest.mark.parametrize(
    ("distance", "norm"),
    [
        (kl_divergence, 1.958851),
        (wasserstein2, 1.803085),
        (lambda theta, sigma, B: mmd(theta, sigma, 5.0, 8, B), 1.452472),
    ],
)
def test_equal_distance_opposite_sign(distance, norm):
    gamma, sigma = 0.8, 0.1
    np.testing.assert_allclose(scratch_risk(gamma, sigma), 0.24, rtol=1e-12)
    gap = lambda B: float(distance(0.0, sigma, B) - distance(1.0, sigma, 1.0))  # noqa: E731
    B = brentq(gap, 1.0, 4.0, xtol=1e-9)
    assert abs(B - norm) < 1e-6
    np.testing.assert_allclose(linear_transferability(gamma, 1.0, sigma), -0.468, atol=5e-4)
    np.testing.assert_allclose(linear_transferability(gamma, 0.0, sigma), 0.24, rtol=1e-12)


def test_opposite_sources_transfer_perfectly_at_the_largest_divergence():
    theta = np.linspace(0, math.pi, 21)
    saved = linear_transferability(0.5, theta, 0.3)
    np.testing.assert_allclose(saved, saved[::-1], atol=1e-14)
    divergence = kl_divergence(theta, 0.3)
    assert (np.diff(divergence) > 0).all()
    np.testing.assert_allclose(divergence[-1], 2 / 0.3**2, rtol=1e-14)


def test_where_divergence_does_order_transfer():
    theta = np.linspace(0, math.pi / 2, 11)
    assert (np.diff(linear_transferability(0.5, theta, 0.3)) < 0).all()
    # one layer: the divergence determines the risk of fine-tuning, whatever the norms
    pairs = np.array([[0.4, 1.0, 1.2], [0.9, 0.7, 1.2]])
    risks = fine_tuning_risk(0.5, pairs[:, 0], 0.3, pairs[:, 1], pairs[:, 2], 1)
    divergences = kl_divergence(pairs[:, 0], 0.3, pairs[:, 1], pairs[:, 2])
    np.testing.assert_allclose(risks - scratch_risk(0.5, 0.3, 1e-9), 0.5 * 2 * 0.3**2 * divergences, rtol=1e-8)
