"""DirectPred: its matrix, its fixed points as zeros of the flow, and which modes it rescues or kills."""

import re

import jax
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.integrate import solve_ivp

from theory.ssl_collapse import (
    byol_fixed_points,
    byol_trajectory,
    direct_predictor,
    direct_predictor_critical_start,
    direct_predictor_strengths,
    direct_predictor_trajectory,
)

A, C = np.array([1.4, 0.9, 0.7, 0.4]), np.array([0.4, 0.3, 0.5, 0.3])
ETA = 0.045


def settled(w, eps, time=4000.0):
    """sqrt(s) after a long gradient flow of the encoder's modes under the predictor."""

    def field(_, w):
        s = w**2 * (A + C)
        p = np.sqrt(s) + eps * s.max()
        return w * (p * (A - (A + C) * p) - ETA)

    return solve_ivp(field, (0, time), w, "LSODA", rtol=1e-10, atol=1e-14).y[:, -1] * np.sqrt(A + C)


def test_the_predictor_has_the_eigenvectors_of_the_covariance():
    random = np.random.default_rng(0)
    X = random.normal(size=(3, 3))
    F = X @ X.T
    P = direct_predictor(F)
    np.testing.assert_allclose(P @ P, F, rtol=1e-12)
    s = np.linalg.eigvalsh(F)
    shifted = direct_predictor(F, 0.3)
    np.testing.assert_allclose(shifted - P, 0.3 * s.max() * np.eye(3), atol=1e-13)
    np.testing.assert_allclose(direct_predictor(np.diag([0.25, 0.0]), 0.4), np.diag([0.6, 0.1]), atol=1e-15)


def test_strengths_are_where_the_flow_ends():
    for eps in (0.0, 0.2, 0.5):
        exact = direct_predictor_strengths(A, C, ETA, eps)
        np.testing.assert_allclose(settled(np.full(4, 0.6), eps), np.sqrt(exact), rtol=1e-6)
        p = np.sqrt(exact) + eps * np.max(exact)
        np.testing.assert_allclose(p, byol_fixed_points(A, C, ETA).stable, rtol=1e-13)
    np.testing.assert_allclose(direct_predictor_strengths(A, C, ETA), byol_fixed_points(A, C, ETA).stable ** 2)
    assert np.array_equal(direct_predictor_strengths(A, C, 0.12, 0.1) > 0, [True, True, False, False])
    # Too large an eps kills the weak modes.
    strengths = direct_predictor_strengths(A, C, ETA, 30.0)
    assert np.array_equal(strengths > 0, [True, True, False, False])
    np.testing.assert_allclose(settled(np.full(4, 0.2), 30.0), np.sqrt(strengths), atol=1e-6)


def test_a_weak_mode_is_rescued_above_its_critical_start_alone():
    for eps in (0.0, 0.1, 0.3):
        top = direct_predictor_strengths(A, C, ETA, eps)[0]
        critical = np.asarray(direct_predictor_critical_start(top, A, C, ETA, eps))
        below, above = (
            settled(np.r_[float(top) ** 0.5, np.maximum(critical[1:] + shift, 1e-5)] / np.sqrt(A + C), eps)
            for shift in (-1e-3, 1e-3)
        )
        alive = np.sqrt(direct_predictor_strengths(A, C, ETA, eps))
        np.testing.assert_allclose(above, alive, atol=1e-5)
        np.testing.assert_allclose(below[1:], np.where(critical[1:] > 0, 0.0, alive[1:]), atol=1e-5)
    assert direct_predictor_critical_start(0.5, 0.4, 0.3, ETA, 0.0) == byol_fixed_points(0.4, 0.3, ETA).saddle
    assert direct_predictor_critical_start(0.5, 0.4, 0.3, 0.1) == np.inf
    assert direct_predictor_critical_start(0.5, 0.4, 0.3, ETA, 2.0) == np.inf


def test_without_eps_it_is_the_parabola_of_equal_rates():
    how = {"a": A, "c": C, "weight_decay": ETA}
    p = byol_trajectory([8.0], 0.25, 0.25**2, **how).p[0]
    np.testing.assert_allclose(direct_predictor_trajectory([8.0], 0.25**2, A, C, ETA)[0], p**2, rtol=1e-8)


def test_trajectories_are_those_of_scipy():
    for eps in (0.0, 0.4):
        found = direct_predictor_trajectory([3.0, 8.0], 0.25**2, A, C, ETA, eps, steps=200)
        exact = [settled(0.25 / np.sqrt(A + C), eps, time) ** 2 for time in (3.0, 8.0)]
        np.testing.assert_allclose(found, exact, rtol=1e-7)
    assert np.array_equal(direct_predictor_trajectory([1.0], np.zeros(4), A, C, ETA, 0.2)[0], np.zeros(4))


@pytest.mark.thorough
def test_gradients_jit_single_precision_broadcasting_and_errors():
    F = np.array([[0.5, 0.1], [0.1, 0.3]])
    check_grads(lambda x, e: direct_predictor(np.eye(2) + x * F, e), (0.7, 0.2), order=1, modes=["rev"])
    check_grads(lambda e: direct_predictor_strengths(A, C, ETA, e), (0.2,), order=1, modes=["rev"])
    check_grads(lambda s: direct_predictor_critical_start(s, 0.4, 0.3, ETA, 0.1), (0.3,), order=1, modes=["rev"])
    for f, arguments in (
        (direct_predictor, (F, 0.2)),
        (direct_predictor_strengths, (A, C, ETA, 0.2)),
        (direct_predictor_trajectory, (np.array([2.0]), 0.1 * A, A, C, ETA, 0.2)),
        (direct_predictor_critical_start, (0.4, A, C, ETA, 0.1)),
    ):
        np.testing.assert_allclose(jax.jit(f)(*arguments), f(*arguments), rtol=1e-12)
        single = f(*(np.asarray(x, np.float32) for x in arguments))
        assert single.dtype == np.float32
        np.testing.assert_allclose(single, f(*arguments), rtol=1e-4)
    assert direct_predictor_strengths(A[None, :], C[None, :], ETA, np.full((5, 1), 0.1)).shape == (5, 4)

    def refuses(call, words):
        with pytest.raises(ValueError, match="^" + re.escape(words) + "$"):
            call()

    refuses(lambda: direct_predictor(F, -0.1), "`eps` must be zero or positive, but got -0.1.")
    refuses(lambda: direct_predictor(np.diag([1.0, -1.0])), "`F` must be without negative eigenvalues, but got -1.")
    refuses(lambda: direct_predictor_strengths(A, C, ETA, np.inf), "`eps` must be finite, but got inf.")
    refuses(
        lambda: direct_predictor_critical_start(-1.0, 0.4, 0.3, ETA),
        "`strongest` must be zero or positive, but got -1.",
    )
