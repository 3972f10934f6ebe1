"""The probe's risk: printed values, least squares on drawn samples, when a collapsed mode helps."""

import re

import jax
import numpy as np
import pytest
from jax.test_util import check_grads

from theory.ssl_collapse import best_rank, dropping_helps, probe_risk

THETA, A = np.array([1.0, 0.4, 0.1]), np.array([1.0, 0.7, 0.5])
risk, dropping, best = (jax.jit(f) for f in (probe_risk, dropping_helps, best_rank))


def test_printed_values():
    found = risk(THETA, A, np.arange(4.0), 10, 0.3)
    np.testing.assert_allclose(found, [1.417, 0.469125, 0.3921428571, 0.45], atol=6e-11)


def test_least_squares_on_drawn_samples():
    """4000 fits of each size, on features mixed by an invertible map."""
    rng, n, noise, fits = np.random.default_rng(0), 12, 0.3, 4000
    x = rng.normal(size=(fits, n, 3)) * np.sqrt(A)
    y = x @ THETA + noise**0.5 * rng.normal(size=(fits, n))
    for k in (0, 1, 2, 3):
        features = x[..., :k] @ rng.normal(size=(k, k))
        mix = np.linalg.pinv(features) @ y[..., None]
        weights = np.zeros((fits, 3))
        # The same predictor, written as weights on the inputs.
        weights[:, :k] = (np.linalg.pinv(x[..., :k]) @ features @ mix)[..., 0]
        draws = noise + ((weights - THETA) ** 2 * A).sum(-1)
        error = draws.std() / fits**0.5 + 1e-12
        assert abs(draws.mean() - float(risk(THETA, A, k, n, noise))) < 4 * error


def test_dropping_a_mode_helps_just_where_the_risk_falls():
    n = np.arange(6.0, 60.0)
    for k in (1, 2, 3):
        falls = np.asarray(risk(THETA, A, k - 1, n, 0.3) < risk(THETA, A, k, n, 0.3))
        np.testing.assert_array_equal(dropping(THETA, A, k, n, 0.3), falls)
    assert dropping_helps([1.0, 0.0], [1.0, 1.0], 2, 1e6, 0.3)
    # theta_k^2 a_k against sigma_eff^2 / (n - k - 1), on both sides of equality: 0.1 against 0.3 / (n - 2).
    assert dropping_helps([1.0], [0.1], 1, np.array([4.0, 6.0]), 0.3).tolist() == [True, False]


def test_the_best_rank_is_the_least_risk():
    n, noise, k = np.arange(2.0, 80.0), np.array([0.01, 0.3, 3.0]), np.arange(4.0)
    found = best(THETA, A, n[:, None], noise[None, :])
    risks = risk(THETA, A, k, n[:, None, None], noise[:, None])  # inf where n is too small, for it is traced
    np.testing.assert_array_equal(found, np.argmin(risks, -1))
    assert best_rank(THETA, A, 1e9, 0.3) == 3
    assert best_rank(np.zeros(3), A, 10, 0.3) == 0


def test_limits_traces_and_float32():
    np.testing.assert_allclose(risk(THETA, A, 3, 1e12, 0.3), 0.3, rtol=1e-11)
    assert risk(THETA, A, np.array([8.0, 9.0]) / 4, 3, 0.3).tolist()[1] == np.inf
    check_grads(lambda t, a, s: risk(t, a, 2, 10, s), (THETA, A, 0.3), order=1, modes=["rev"], rtol=1e-5)
    np.testing.assert_allclose(jax.grad(lambda s: risk(THETA, A, 1, 10, s))(0.3), 9 / 8)
    with jax.enable_x64(False):
        found = risk(np.float32(THETA), np.float32(A), 2, 10, 0.3)
        assert found.dtype == np.float32
    np.testing.assert_allclose(found, 0.3921428571, rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: probe_risk(THETA, A[:2], 1, 10, 0.3),
         "`theta` and `a` must be vectors of one length, but got shapes (3,) and (2,)."),
        (lambda: probe_risk(THETA, A, 3, 4, 0.3), "`n` must be more than k + 1, but got 4."),
        (lambda: probe_risk(THETA, A, 4, 10, 0.3), "`k` must be at most the number of modes, 3, but got 4."),
        (lambda: probe_risk(THETA, A, 0.5, 10, 0.3), "`k` must be a whole number not below 0, but got 0.5."),
        (lambda: probe_risk(THETA, -A, 1, 10, 0.3), "`a` must be zero or positive, but got -1."),
        (lambda: probe_risk(THETA, A, 1, 10, -0.3), "`noise_variance` must be zero or positive, but got -0.3."),
        (lambda: dropping_helps(THETA, A, 0, 10, 0.3), "`k` must be a whole number not below 1, but got 0."),
        (lambda: best_rank(THETA, A, 1, 0.3), "`n` must be a whole number not below 2, but got 1."),
    ],
)  # fmt: skip
def test_what_is_refused(call, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        call()
