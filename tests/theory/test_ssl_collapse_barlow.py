"""Barlow Twins: fifty digits, its differential equation, what one dimension keeps, and the quartic landscape."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.integrate import solve_ivp

from theory.ssl_collapse import (
    barlow_decayed_strength,
    barlow_kept,
    barlow_mode,
    barlow_shares,
    barlow_step_time,
    effective_landscape,
)


def test_printed_values():
    np.testing.assert_allclose(barlow_mode([0.8, 2.0], 0.6, 0.02), [0.1356799558, 1.1401380490], rtol=5e-10)


def test_fifty_digits_from_below_and_above_the_end():
    for gamma in (0.05, 0.6, 3.0):
        for w0 in (1e-8, 0.02, 1.0, 5.0):
            t = np.array([0.0, 1e-6, 0.3, 2.0, 40.0])
            found = barlow_mode(t, gamma, w0)
            with mp.workdps(50):
                g, start = mp.mpf(gamma), mp.mpf(w0)
                exact = [mp.exp(4 * g * x) / mp.sqrt(start**-2 + (mp.exp(8 * g * x) - 1) * g) for x in map(mp.mpf, t)]
            np.testing.assert_allclose(found, [float(x) for x in exact], rtol=1e-12)
    np.testing.assert_allclose(barlow_mode(np.inf, 0.25, 0.1), 2.0, rtol=1e-14)


@pytest.mark.thorough
def test_step_time_is_where_half_of_the_variance_is_there():
    gamma, w0 = np.array([0.2, 0.6, 1.4]), np.array([[1e-4], [0.05]])
    half = barlow_mode(barlow_step_time(gamma, w0), gamma, w0)
    np.testing.assert_allclose(half**2, np.broadcast_to(0.5 / gamma, (2, 3)), rtol=1e-10)
    near = -np.log(gamma * 1e-8) / (8 * gamma)
    np.testing.assert_allclose(barlow_step_time(gamma, 1e-4), near, rtol=1e-8)
    assert np.isnan(barlow_step_time(1.0, 0.8))


shares = jax.jit(barlow_shares)


@pytest.mark.thorough
def test_one_dimension_ends_with_the_shares_of_its_differential_equation():
    gamma = np.array([1.2, 0.7, 0.3])
    for w0 in ([1e-3, 2e-3, -1e-3], [0.2, 0.3, 0.4], [0.9, 0.8, 0.7], [0.0, 1e-2, 2e-2]):

        def slope(_, w):
            return 4 * (1 - w @ (gamma * w)) * gamma * w

        end = solve_ivp(slope, (0, 30), w0, rtol=1e-10, atol=1e-14).y[:, -1]
        found = shares(np.array(w0), gamma)
        np.testing.assert_allclose(found, gamma * end**2, rtol=1e-6, atol=1e-12)
        np.testing.assert_allclose(np.sum(found), 1, rtol=1e-12)
    assert barlow_shares(np.ones((4, 3)), gamma).shape == (4, 3)


@pytest.mark.thorough
def test_small_starts_keep_the_largest_eigenvalues():
    gamma = np.array([0.3, 1.2, 0.7])
    np.testing.assert_array_equal(barlow_kept(gamma, 2), [False, True, True])
    np.testing.assert_array_equal(barlow_kept(np.stack([gamma, gamma[::-1]]), 1)[1], [False, True, False])
    scales = 10.0 ** -np.arange(4, 8)
    left = barlow_shares(scales[:, None] * np.array([[0.0, 1.0, 0.8]]), gamma)[:, 2]
    np.testing.assert_allclose(np.diff(np.log(left)) / np.diff(np.log(scales)), 2 - 2 * 0.7 / 1.2, rtol=1e-3)


def test_decayed_strength_is_that_of_the_quartic_landscape():
    a, c, decay = np.array([0.9, 0.5, 0.2]), np.array([0.1, 0.6, 0.3]), 0.5
    B, Sigma, kappa = effective_landscape(np.diag(a), np.diag(c), "barlow", weight_decay=decay)
    beta = np.diag(B) / np.diag(Sigma)
    expected = np.maximum(beta, 0) / (2 * kappa) * (a + c) / a
    np.testing.assert_allclose(barlow_decayed_strength(a / (a + c), a, decay), expected, rtol=1e-12)
    assert barlow_decayed_strength(0.4, 0.2, 0.4) == 0


@pytest.mark.thorough
def test_gradients_jit_and_float32():
    t, gamma = np.array([0.3, 1.0]), np.array([0.6, 1.1])
    check_grads(jax.jit(lambda g, w: barlow_mode(t, g, w)), (gamma, np.array([0.1, 0.2])), order=1, rtol=1e-5)
    check_grads(jax.jit(lambda w: barlow_shares(w, gamma)), (np.array([0.1, 0.3]),), order=1, rtol=1e-5)
    for function, arguments in (
        (barlow_mode, (1.0, gamma, 0.01)),
        (barlow_step_time, (gamma, 0.01)),
        (barlow_shares, (np.array([0.01, 0.02]), gamma)),
    ):
        single = jax.jit(function)(*(np.float32(x) for x in arguments))
        assert single.dtype == jnp.float32
        np.testing.assert_allclose(single, function(*arguments), rtol=1e-4)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: barlow_mode(-1.0, 0.5, 0.1), "`t` must be zero or positive, but got -1."),
        (lambda: barlow_mode(1.0, 0.0, 0.1), "`gamma` must be positive, but got 0."),
        (lambda: barlow_step_time(1.0, -0.1), "`w0` must be positive, but got -0.1."),
        (lambda: barlow_kept([1.0, 2.0], 0), "`m` must be a whole number not below 1, but got 0."),
        (lambda: barlow_shares([np.nan, 1.0], [1.0, 2.0]), "`w0` must be finite, but got nan."),
        (lambda: barlow_decayed_strength(0.0, 1.0), "`rho` must be positive, but got 0."),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(call, sentence):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        call()
    assert str(error.value) == sentence
