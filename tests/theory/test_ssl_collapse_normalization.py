"""Water-filling of normalised embeddings: KKT conditions, fifty digits, both sides of every joining mode."""

import re

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from jax.test_util import check_grads

from theory.ssl_collapse import (
    alignment_fill,
    critical_temperature,
    infonce_loss,
    infonce_mode_strength,
    normalized_infonce_minimum,
    normalized_rank,
    water_fill,
    water_fill_infonce,
)

BETA = np.array([1.0, 0.7, 0.5, 0.1])
Q = np.array([0.2, 0.35, 0.55, 0.8])
A0 = np.array([[1.5, 0.4, 0.0], [0.4, 0.8, 0.2], [0.0, 0.2, 0.6]])
C = np.array([[0.3, -0.1, 0.1], [-0.1, 0.5, 0.0], [0.1, 0.0, 0.2]])
filled, rank = jax.jit(water_fill_infonce), jax.jit(normalized_rank)


@pytest.mark.thorough
def test_printed_values():
    strengths, mu = water_fill(BETA, 1.0, 0.3)
    np.testing.assert_allclose(strengths, [0.225, 0.075, 0, 0], rtol=1e-12)
    np.testing.assert_allclose(mu, 0.55, rtol=1e-12)
    strengths, mu = water_fill_infonce(Q, 0.5)
    np.testing.assert_allclose(strengths, [0.3394002711, 0.1605997289, 0, 0], atol=5e-11)
    np.testing.assert_allclose(mu, 0.4520092773, atol=5e-11)


@pytest.mark.thorough
def test_the_quartic_level_meets_the_conditions_of_a_minimum():
    rng = np.random.default_rng(0)
    beta, kappa, budget = rng.normal(size=(50, 5)), rng.uniform(0.2, 2, 50), 10 ** rng.uniform(-3, 2, 50)
    for m in (None, 3):
        strengths, mu = water_fill(beta, kappa, budget, m)
        np.testing.assert_allclose(strengths.sum(-1), budget, rtol=1e-12)
        top = np.sort(beta, -1)[:, -(m or 5) :][:, :1]
        for s, b, kappa_, level, least in zip(strengths, beta, kappa, mu, top, strict=True):
            np.testing.assert_allclose((b - 2 * kappa_ * s)[s > 0], level, atol=1e-12 + 1e-12 * abs(level))
            assert np.all(b[(s == 0) & (b >= least)] <= level + 1e-12)
    fill = jax.jit(water_fill)
    for k in range(1, 5):  # at least k modes are active iff the sum of the gaps is below 2 kappa c
        edge = np.sum(BETA[:k] - BETA[k - 1]) / 2
        assert np.sum(fill(BETA, 1.0, edge * (1 + 1e-9) + 1e-12).strengths > 0) == k
        if edge:
            assert np.sum(fill(BETA, 1.0, edge * (1 - 1e-9)).strengths > 0) == k - 1


def test_the_exact_level_has_fifty_digits_of_one_solved_otherwise():
    q = np.array([0.31, 0.02, 0.9, 0.55])
    budgets = np.array([1e-9, 1e-3, 0.4, 3.0, 50.0, 1e6])
    for budget, strengths, mu in zip(budgets, *filled(q, budgets), strict=True):
        with mp.workdps(50):

            def strength(x):
                return 2 / (mp.sqrt(1 + 8 * x) - 1) - 1 if x < 1 else mp.mpf(0)

            low, high = mp.mpf(10) ** -40 - mp.mpf(0.02), 1 - mp.mpf(0.02)
            for _ in range(160):
                middle = (low + high) / 2
                more = sum(strength(mp.mpf(x) + middle) for x in q) > budget
                low, high = (middle, high) if more else (low, middle)
            exact = [strength(mp.mpf(x) + low) for x in q]
        np.testing.assert_allclose(mu, float(low), rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(strengths, np.array(exact, float), rtol=1e-8 if budget < 1e-6 else 1e-11, atol=1e-15)


@pytest.mark.thorough
def test_a_mode_joins_at_its_temperature_and_ranks_are_counted_strengths():
    for k in (1, 2, 3):
        tau = critical_temperature(Q, k)
        for factor, alive in ((1 + 1e-6, k), (1 - 1e-6, k + 1)):
            assert np.sum(filled(Q, 1 / (tau * factor)).strengths > 0) == alive
            assert rank(Q, 1 / (tau * factor)) == alive
    assert critical_temperature([0.3, 0.3, 0.6], 1) == np.inf
    np.testing.assert_allclose(critical_temperature(Q, 2, 3.0), 3 * critical_temperature(Q, 2), rtol=1e-15)
    assert np.all(np.diff([float(critical_temperature(Q, k)) for k in (1, 2, 3)]) < 0)
    rng = np.random.default_rng(1)
    q, budget = rng.uniform(size=(40, 6)), 10 ** rng.uniform(-2, 2, 40)
    np.testing.assert_array_equal(rank(q, budget), np.sum(filled(q, budget).strengths > 0, -1))
    np.testing.assert_array_equal(normalized_rank(q, 1e9, m=4), np.full(40, 4.0))


@pytest.mark.thorough
def test_limits():
    # A budget that the unconstrained minimum would choose itself leaves the level at 0; a larger one makes it negative.
    free = infonce_mode_strength(Q)
    np.testing.assert_allclose(water_fill_infonce(Q, free.sum()).mu, 0, atol=1e-14)
    assert water_fill_infonce(Q, 2 * free.sum()).mu < 0
    # Near the origin the exact strengths are those of the quartic landscape, kappa = 3/4 and beta = 1 - q.
    q = 1 - np.array([0.02, 0.015, 0.011])
    exact, quartic = water_fill_infonce(q, 1e-3).strengths, water_fill(1 - q, 0.75, 1e-3).strengths
    np.testing.assert_allclose(exact, quartic, rtol=0.03, atol=1e-5)
    # Without repulsion the best mode takes all.
    np.testing.assert_allclose(water_fill(-Q, 1e-9, 2.0).strengths, alignment_fill(Q, 2.0), atol=1e-12)
    np.testing.assert_array_equal(alignment_fill([[0.5, 0.2], [0.1, 0.1]], [1.0, 2.0]), [[0, 1], [2, 0]])


def test_the_minimum_over_encoders_is_stationary_on_the_constraint_and_the_least():
    minimum = normalized_infonce_minimum(A0, C, 2, 0.3, 1.4, 0.1, variance=1.2)
    Sigma = A0 + C
    np.testing.assert_allclose(np.trace(minimum.gram @ Sigma), 1.2, rtol=1e-12)
    values, vectors = np.linalg.eigh(minimum.gram)
    W = (vectors[:, -2:] * np.sqrt(values[-2:])).T
    loss = jax.jit(jax.value_and_grad(lambda W: infonce_loss(W, A0, C, 0.3, 1.4, 0.1)))
    least, slope = loss(W)
    np.testing.assert_allclose(slope, -2 * minimum.mu / 0.3 * W @ Sigma, atol=1e-10)
    rng = np.random.default_rng(0)
    for size in (1e-3, 0.1, 1.0, 1.0, 10.0, 10.0):
        other = W + size * rng.normal(size=W.shape)
        other = other * np.sqrt(1.2 / np.trace(other @ Sigma @ other.T))
        assert loss(other)[0] > least


@pytest.mark.thorough
def test_gradients_jit_single_precision_and_shapes():
    check_grads(lambda b, c: water_fill(b, 0.8, c).strengths, (jnp.asarray(BETA), 0.3), order=1, modes=["rev"])
    check_grads(lambda q, c: water_fill_infonce(q, c).strengths, (jnp.asarray(Q), 0.5), order=1, modes=["rev"])
    single = water_fill_infonce(Q.astype(np.float32), np.float32(0.5))
    assert single.strengths.dtype == single.mu.dtype == np.float32
    np.testing.assert_allclose(single.strengths, water_fill_infonce(Q, 0.5).strengths, rtol=1e-5, atol=1e-6)
    quartic = water_fill(BETA.astype(np.float32), np.float32(1), np.float32(0.3)).strengths
    np.testing.assert_allclose(quartic, [0.225, 0.075, 0, 0], rtol=1e-5)
    budgets = np.array([[0.1], [0.5], [2.0]])
    table = jax.jit(water_fill_infonce, static_argnums=2)(np.stack([Q, Q[::-1]]), budgets, 3).strengths
    assert table.shape == (3, 2, 4)
    np.testing.assert_allclose(table[1, 1], water_fill_infonce(Q[::-1], 0.5, 3).strengths, rtol=1e-13)
    assert water_fill(BETA, np.ones(3), 0.3).strengths.shape == (3, 4)
    assert normalized_rank(Q, budgets).shape == (3, 1)


def refuses(call, words):
    with pytest.raises(ValueError, match="^" + re.escape(words) + "$"):
        call()


def test_bad_arguments_are_named():
    refuses(lambda: water_fill(BETA, 0.0, 1.0), "`kappa` must be positive, but got 0.")
    refuses(lambda: water_fill(BETA, 1.0, -1.0), "`budget` must be positive, but got -1.")
    refuses(lambda: water_fill(0.3, 1.0, 1.0), "The modes must be a list, but got a number.")
    refuses(lambda: water_fill(BETA, 1.0, 1.0, m=0), "`m` must be a whole number not below 1, but got 0.")
    refuses(lambda: water_fill_infonce(Q, 0.0), "`budget` must be positive, but got 0.")
    refuses(lambda: water_fill_infonce([0.1, np.nan], 1.0), "`q` must be finite, but got nan.")
    refuses(lambda: critical_temperature(Q, 4), "`k` must be below the number of modes, 4, but got 4.")
    refuses(lambda: critical_temperature(Q, 0), "`k` must be a whole number not below 1, but got 0.")
    refuses(lambda: alignment_fill(Q, -2.0), "`budget` must be positive, but got -2.")
    refuses(lambda: normalized_infonce_minimum(A0, C, 2, -0.2), "`temperature` must be positive, but got -0.2.")
    refuses(lambda: normalized_infonce_minimum(A0, C, 2, variance=0), "`variance` must be positive, but got 0.")
