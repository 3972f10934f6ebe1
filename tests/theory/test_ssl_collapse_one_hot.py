"""InfoNCE of one-hot classes: enumerated pairs, Monte Carlo, KKT conditions, and the limit near the threshold."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from theory.ssl_collapse import one_hot_loss, one_hot_minimum, one_hot_quartic, one_hot_quartic_minimum

P, H = np.array([0.5, 0.3, 0.2]), np.array([1.0, 1.1, 1.2])
SIGMA = np.array([0.7, 0.6, 0.4])
C = SIGMA - P * H**2
TAU, ALPHA, DECAY = 0.7, 1.3, 0.05
loss = jax.jit(one_hot_loss, static_argnames="nodes")


def population(p, h, c):
    """Inputs of a data set whose noise takes three values, with a Gaussian's first five moments; and their weights."""
    clean = np.concatenate([np.diag(h), -np.diag(h)])
    values = np.stack(np.meshgrid(*[np.sqrt(3) * np.array([-1, 0, 1.0])] * len(p), indexing="ij"), -1)
    values = values.reshape(-1, len(p))
    weights = np.prod(np.where(values == 0, 2 / 3, 1 / 6), 1)
    x = (clean[:, None, :] + (values * np.sqrt(c))[None]).reshape(-1, len(p))
    return x, (np.tile(p, 2)[:, None] / 2 * weights[None]).ravel()


def test_printed_values():
    K = one_hot_quartic(P, H, C)
    np.testing.assert_allclose(np.diag(K), [0.33625, 0.275490375, 0.140736], rtol=1e-12)
    np.testing.assert_allclose(K[0, 1], -0.0226875, rtol=1e-12)
    np.testing.assert_allclose(K, K.T, rtol=1e-15)


def test_the_quartic_term_is_half_the_variance_over_enumerated_pairs():
    x, weights = population(P, H, C)
    squares = (x[:, None, :] - x[None, :, :]) ** 2
    y = np.array([0.3, 0.9, 0.5])
    distance = squares @ y / 2
    variance = distance**2 @ weights - (distance @ weights) ** 2
    np.testing.assert_allclose(variance @ weights / 2, y @ one_hot_quartic(P, H, C) @ y, rtol=1e-12)


@pytest.mark.thorough
def test_the_exact_loss_is_that_of_its_definition_and_expands_to_the_quartic_one():
    nodes, shares = np.polynomial.hermite_e.hermegauss(14)
    p, h, c = np.array([0.7, 0.3]), np.array([1.0, 1.3]), np.array([0.2, 0.4])
    noise = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), -1).reshape(-1, 2) * np.sqrt(c)
    x = (np.concatenate([np.diag(h), -np.diag(h)])[:, None, :] + noise[None]).reshape(-1, 2)
    weights = (np.tile(p, 2)[:, None] / 2 * np.outer(shares, shares).ravel()[None] / shares.sum() ** 2).ravel()
    y = np.array([1.1, 0.6])
    mu = np.exp(-((x[:, None, :] - x[None, :, :]) ** 2 @ y) / (2 * TAU)) @ weights
    pairs = ALPHA / TAU * np.sum(c * y) + DECAY * y.sum() + weights @ np.log(mu)
    np.testing.assert_allclose(loss(y, p, h, c, TAU, ALPHA, DECAY, nodes=20), pairs, rtol=1e-8)

    y = np.array([1.5, 0.8, 0.4])
    finer = [loss(y, P, H, C, TAU, ALPHA, DECAY, nodes=n) for n in (4, 8, 16)]
    assert abs(finer[1] - finer[2]) < 1e-7 < abs(finer[0] - finer[2]) < 1e-3

    b, K = (P * H**2 - (ALPHA - 1) * C) / TAU - DECAY, one_hot_quartic(P, H, C) / TAU**2
    small = np.array([loss(e * y, P, H, C, TAU, ALPHA, DECAY, nodes=20) for e in (0.02, 0.01)])
    left = small + np.array([0.02, 0.01]) * (b @ y) - np.array([4e-4, 1e-4]) * (y @ K @ y)
    np.testing.assert_allclose(left[0] / left[1], 8, rtol=0.05)  # of third order in y
    np.testing.assert_allclose(loss(0 * y, P, H, C, TAU, ALPHA, DECAY, nodes=8), 0, atol=1e-14)


@pytest.mark.thorough
@pytest.mark.parametrize(("decay", "lost"), [(0.05, 0), (0.5, 2), (2.0, 3)])
def test_the_minimum_meets_its_conditions(decay, lost):
    found = one_hot_minimum(P, H, C, TAU, ALPHA, decay)
    slope = jax.jit(jax.grad(lambda y, d: one_hot_loss(y, P, H, C, TAU, ALPHA, d, nodes=10)))(found.y, decay)
    np.testing.assert_allclose(np.where(found.y > 0, slope, 0), 0, atol=1e-12)
    assert np.all(slope[found.y == 0] >= 0)
    np.testing.assert_allclose(found.strengths, SIGMA * found.y, rtol=1e-12)
    np.testing.assert_allclose(found.loss, loss(found.y, P, H, C, TAU, ALPHA, decay, nodes=10), rtol=1e-12)
    assert np.sum(found.y == 0) == lost
    quartic = one_hot_quartic_minimum(P, H, C, TAU, ALPHA, decay)
    b, K = (P * H**2 - (ALPHA - 1) * C) / TAU - decay, one_hot_quartic(P, H, C) / TAU**2
    slope = -b + 2 * K @ quartic.y
    np.testing.assert_allclose(np.where(quartic.y > 0, slope, 0), 0, atol=1e-12)
    assert np.all(slope[quartic.y == 0] >= 0)


@pytest.mark.thorough
def test_near_the_threshold_of_all_classes_both_minima_agree_to_first_order():
    h = np.sqrt(0.4 / P)  # every a_k is 0.4
    gaps = []
    for distance in (0.02, 0.01):
        decay = 0.4 / TAU - distance
        exact, quartic = (f(P, h, C, TAU, 1.0, decay) for f in (one_hot_minimum, one_hot_quartic_minimum))
        gaps.append((exact.y - quartic.y) / distance)
    assert np.all(np.abs(gaps[0] / gaps[1] - 2) < 0.1)
    gaussian = TAU**2 / (1.5 * (0.4 + C) ** 2)
    assert np.all(np.abs(quartic.y / 0.01 / gaussian - 1) > 0.02)


@pytest.mark.thorough
def test_a_learned_class_lowers_the_threshold_of_a_rare_one():
    decay, noise = 0.1, 0.1
    rare = ((ALPHA - 1) * noise + decay * TAU) * 0.99  # just below its own threshold
    p = np.array([0.6, 0.4]) * (1 - rare)
    p = np.array([*p, rare])
    assert one_hot_minimum(p, np.ones(3), noise, TAU, ALPHA, decay).strengths[2] > 0


@pytest.mark.thorough
def test_gradients_and_single_precision():
    def strengths(tau, alpha):
        return one_hot_minimum(P, H, C, tau, alpha, DECAY).strengths

    step = 1e-5
    for k, at in enumerate(((TAU, ALPHA), (TAU, ALPHA))):
        up, down = ([v + sign * step * (i == k) for i, v in enumerate(at)] for sign in (1, -1))
        found = jax.jacrev(strengths, argnums=k)(*at)
        np.testing.assert_allclose(found, (strengths(*up) - strengths(*down)) / (2 * step), rtol=1e-6, atol=1e-8)
    single = one_hot_minimum(*(x.astype(np.float32) for x in (P, H, C)), TAU, ALPHA, DECAY)
    assert single.strengths.dtype == jnp.float32
    np.testing.assert_allclose(single.strengths, strengths(TAU, ALPHA), rtol=2e-3)


def refuses(call, words):
    with pytest.raises(ValueError, match="^" + re.escape(words) + "$"):
        call()


def test_bad_arguments_are_named():
    refuses(lambda: one_hot_quartic([0.5, 0.4], [1, 1], C[:2]), "`p` must be of sum 1, but got 0.9.")
    refuses(lambda: one_hot_quartic(P, H[:2], C), "`p` and `h` must have one shape (K,), but got (3,) and (2,).")
    refuses(lambda: one_hot_quartic(P, H, C[:2]), "`noise` must have the shape of `p`, (3,), but got shape (2,).")
    refuses(lambda: one_hot_minimum(P, H, 0.0), "`noise` must be positive, but got 0.")
    refuses(lambda: one_hot_minimum(P, H, C, -0.2), "`temperature` must be positive, but got -0.2.")
    refuses(lambda: one_hot_loss(-P, P, H, C), "`y` must be zero or positive, but got -0.5.")
    p = np.full(8, 1 / 8)
    words = "`nodes` must have `nodes`^K at most 200000, but got 10 for K = 8."
    refuses(lambda: one_hot_loss(p, p, 8 * p, 0.1), words)
