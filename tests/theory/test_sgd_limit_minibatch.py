"""Exact moments of minibatch SGD: every sequence of batches, the recursion of second moments, its spectral radius."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from theory.sgd_limit import (
    minibatch_autocovariance,
    minibatch_moments,
    minibatch_stationary,
    streaming_feedback,
    streaming_is_stable,
    streaming_stationary,
)

X, Y = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), np.array([1.0, 0.0, 2.0])
moments = jax.jit(minibatch_moments, static_argnames=("steps", "replace"))
RHO = np.array([1.0, 0.4, 0.05])


def test_printed_values():
    m, M = (a[-1] for a in moments(X, Y, 0.2, 0.5, 2, 3, 0.1)[1:])
    np.testing.assert_allclose(m[:2], [-0.4420963274, 0.0664114789], rtol=1e-9)
    np.testing.assert_allclose(M[[0, 0, 1], [0, 1, 1]], [0.2338850324, 0.0101299189, 0.0616567542], rtol=5e-9)
    M = moments(X, Y, 0.2, 0.5, 2, 3, 0.1, replace=False).second[-1]
    np.testing.assert_allclose(M[[0, 0, 1], [0, 1, 1]], [0.2144631469, -0.0097105011, 0.0328296687], rtol=5e-9)
    found = streaming_stationary([1.0, 0.4], 0.2, 0.5, 4)
    np.testing.assert_allclose(found.variance, [0.0613646116, 0.0568588185], rtol=1e-9)
    np.testing.assert_allclose(found.excess_risk, 0.0420540695, rtol=2e-9)
    np.testing.assert_allclose(streaming_feedback([1.0, 1.0], 0.25, 0.0, 1), 1 / 3, rtol=1e-14)
    np.testing.assert_allclose(streaming_stationary([1.0, 1.0], 0.25, 0.0, 1).excess_risk, 0.25, rtol=1e-14)


@pytest.mark.parametrize("replace", [True, False])
def test_all_sequences_of_batches(replace):
    eta, beta, decay, S, steps, start = 0.3, 0.6, 0.1, 2, 4, np.array([0.7, -0.4])
    batches = list(itertools.product(range(3), repeat=S) if replace else itertools.combinations(range(3), S))
    found = jax.tree.map(np.asarray, moments(X, Y, eta, beta, S, steps, decay, start, replace))
    theta, w = start[None], np.zeros((1, 2))
    for k in range(steps + 1):
        z = np.concatenate([theta - found.optimum, w], 1)
        np.testing.assert_allclose(found.mean[k], z.mean(0), rtol=0, atol=1e-13)
        np.testing.assert_allclose(found.second[k], z.T @ z / len(z), rtol=0, atol=1e-13)
        each = [
            beta * w - eta * ((theta @ X[list(b)].T - Y[list(b)]) @ X[list(b)] / S + decay * theta) for b in batches
        ]
        theta, w = np.concatenate([theta + step for step in each]), np.concatenate(each)


def step_matrix(H, eta, beta, decay):
    A, eye = eta * (H + decay * np.eye(len(H))), np.eye(len(H))
    return np.block([[eye - A, beta * eye], [-A, beta * eye]])


@functools.cache
def problem():
    rng = np.random.default_rng(0)
    return rng.normal(size=(30, 4)) * np.array([1.5, 1.0, 0.6, 0.3]), rng.normal(size=30)


@pytest.mark.thorough
@pytest.mark.parametrize("replace", [True, False])
@pytest.mark.parametrize(("beta", "decay"), [(0.0, 0.0), (0.7, 0.2)])
def test_the_stationary_law_is_the_end_of_the_recursion(replace, beta, decay):
    x, y = problem()
    how = (0.2, beta, 3)
    law = minibatch_stationary(x, y, *how, decay, replace)
    path = moments(x, y, *how, 3000, decay, None, replace)
    np.testing.assert_allclose(path.optimum, law.optimum, rtol=1e-12)
    np.testing.assert_allclose(path.second[-1], law.covariance, rtol=0, atol=1e-12)
    np.testing.assert_allclose(path.mean[-1], 0, atol=1e-12)

    H = x.T @ x / len(x)
    V = np.linalg.eigh(H)[1]
    lags = np.array([[0, 1], [6, 40]])
    found = minibatch_autocovariance(lags, x, y, *how, decay, replace)
    F = step_matrix(H, 0.2, beta, decay)
    for at in np.ndindex(lags.shape):
        later = (np.linalg.matrix_power(F, lags[at]) @ law.covariance)[:4, :4]
        np.testing.assert_allclose(found[at], np.diag(V.T @ later @ V), rtol=0, atol=1e-12)


def test_the_whole_data_set_without_replacement_is_gradient_descent():
    x, y = problem()
    path = moments(x, y, 0.2, 0.7, 30, 20, 0.1, None, False)
    np.testing.assert_allclose(path.second, path.mean[:, :, None] * path.mean[:, None, :], atol=1e-15)
    assert np.abs(minibatch_stationary(x, y, 0.2, 0.7, 30, 0.1, False).covariance).max() < 1e-15


def second_moments(rho, eta, beta, S):
    """The linear map of (E x_l^2, E x_l w_l, E w_l^2) over one step on fresh Gaussian samples, without label noise."""
    d, maps = len(rho), []
    for entry in np.eye(3 * d):
        xx, xw, ww = entry.reshape(3, d)
        C = (rho**2 * xx + rho * (rho @ xx)) / S
        a, b = 1 - eta * rho, -eta * rho
        maps.append(
            np.concatenate([
                a**2 * xx + 2 * a * beta * xw + beta**2 * ww + eta**2 * C,
                a * b * xx + (a + b) * beta * xw + beta**2 * ww + eta**2 * C,
                b**2 * xx + 2 * b * beta * xw + beta**2 * ww + eta**2 * C,
            ])
        )  # fmt: skip
    return np.array(maps).T


def test_streaming_is_the_fixed_point_of_its_second_moments():
    for eta, beta, S, sigma in ((0.3, 0.0, 2, 1.0), (0.9, 0.5, 8, 0.7), (0.2, 0.9, 3, 2.0), (2.5, 0.8, 200, 1.0)):
        T = second_moments(RHO, eta, beta, S)
        source = np.tile(eta**2 * sigma**2 * RHO / S, 3)
        exact = np.linalg.solve(np.eye(9) - T, source)[:3]
        found = streaming_stationary(RHO, eta, beta, S, sigma)
        np.testing.assert_allclose(found.variance, exact, rtol=1e-11)
        np.testing.assert_allclose(found.excess_risk, RHO @ exact / 2, rtol=1e-11)


def test_stability_is_that_of_the_recursion_of_second_moments():
    seen = set()
    for beta in (0.0, 0.5, 0.9):
        for S in (1, 2, 8, 100):
            for eta in np.geomspace(0.05, 5, 25):
                radius = np.abs(np.linalg.eigvals(second_moments(RHO, eta, beta, S))).max()
                stable = bool(streaming_is_stable(RHO, eta, beta, S))
                assert stable == (radius < 1), (eta, beta, S, radius)
                seen.add((stable, eta < 2 * (1 + beta)))
    assert seen == {(True, True), (False, True), (False, False)}
    d = 6
    edge = 2 / (d + 2)
    assert streaming_is_stable(np.ones(d), edge * (1 - 1e-9), 0, 1)
    assert not streaming_is_stable(np.ones(d), edge * (1 + 1e-9), 0, 1)
    assert np.isinf(streaming_feedback(RHO, 4.0, 0.5, 8))


def test_small_steps_are_the_additive_chain_to_first_order():
    etas = 0.02 / 2 ** np.arange(4)
    errors = []
    for eta in etas:
        additive = 1.5 * eta / (0.5 * 4 * (3 - eta * RHO))
        errors.append(np.max(np.abs(streaming_stationary(RHO, eta, 0.5, 4).variance / additive - 1)))
    assert abs(np.polyfit(np.log(etas), np.log(errors), 1)[0] - 1) < 0.02
    assert errors[-1] < 2e-3


def test_single_precision_gradients_and_batches_of_arguments():
    rho, etas = RHO.astype(np.float32), np.float32([0.1, 0.5])
    found = streaming_stationary(rho, etas, 0.9, 8)
    assert found.variance.dtype == np.float32
    assert found.variance.shape == (2, 3)
    exact = streaming_stationary(RHO, etas.astype(float), 0.9, 8)
    np.testing.assert_allclose(found.variance, exact.variance, rtol=1e-5)
    risk = jax.jit(lambda eta, beta: streaming_stationary(RHO, eta, beta, 8).excess_risk)
    check_grads(risk, (0.4, 0.6), order=1, modes=["rev"])
    unstable = jax.jit(streaming_stationary)(RHO, jnp.array([0.1, 5.0]), 0.5, 8)
    assert np.isinf(unstable.excess_risk).tolist() == [False, True]
    assert np.isinf(unstable.variance).tolist() == [[False] * 3, [True] * 3]

    x, y = problem()
    single = moments(x.astype(np.float32), y.astype(np.float32), 0.2, 0.7, 3, 20, 0.1)
    assert single.second.dtype == np.float32
    np.testing.assert_allclose(single.second, moments(x, y, 0.2, 0.7, 3, 20, 0.1).second, atol=1e-5)
    law = jax.jit(minibatch_stationary)(x.astype(np.float32), y.astype(np.float32), 0.2, 0.7, 3, 0.1)
    np.testing.assert_allclose(law.covariance, minibatch_stationary(x, y, 0.2, 0.7, 3, 0.1).covariance, rtol=2e-3)


@pytest.mark.thorough
def test_gradients_of_finite_data():
    for moment in (
        jax.jit(lambda eta: minibatch_moments(X, Y, eta, 0.5, 2, 3, 0.1).second),
        jax.jit(lambda eta: minibatch_stationary(X, Y, eta, 0.5, 2, 0.1).covariance),
    ):
        check_grads(moment, (0.2,), order=1, modes=["rev"])


def test_bad_arguments_are_named():
    def refuses(call, sentence):
        with pytest.raises(ValueError, match="^" + re.escape(sentence) + "$"):
            call()

    for f in (streaming_stationary, streaming_feedback, streaming_is_stable):
        refuses(lambda f=f: f([1.0, 0.0], 0.1, 0, 1), "`spectrum` must be positive, but got 0.")
        refuses(lambda f=f: f(RHO, 0.0, 0, 1), "`eta` must be positive, but got 0.")
        refuses(lambda f=f: f(RHO, 0.1, 1.0, 1), "`beta` must be zero or positive, and below 1, but got 1.")
        refuses(lambda f=f: f(RHO, 0.1, 0, 1.5), "`batch` must be a whole number not below 1, but got 1.5.")
    words = "small enough for the second moments to stay bounded"
    refuses(lambda: streaming_stationary(RHO, [0.1, 1.5], 0, 1), f"`eta` must be {words}, but got 1.5.")
    refuses(lambda: streaming_stationary(RHO, 0.1, 0, 1, -1.0), "`sigma` must be zero or positive, but got -1.")

    every = (lambda x, y, *a: minibatch_moments(x, y, *a[:3], 2, *a[3:]), minibatch_stationary)
    every = (*every, lambda *a: minibatch_autocovariance(1, *a))
    for f in every:
        refuses(lambda f=f: f(Y, Y, 0.1, 0, 1), "`X` must have shape (N, d), but got (3,).")
        refuses(lambda f=f: f(X, Y[:2], 0.1, 0, 1), "`y` must have shape (3,), but got (2,).")
        refuses(lambda f=f: f(X, Y, -0.1, 0, 1), "`eta` must be positive, but got -0.1.")
        refuses(lambda f=f: f(X, Y, [0.1], 0, 1), "`eta` must be a number, but got shape (1,).")
        refuses(lambda f=f: f(X, Y, 0.1, -0.5, 1), "`beta` must be zero or positive, and below 1, but got -0.5.")
        refuses(lambda f=f: f(X, Y, 0.1, 0, 0), "`batch` must be a whole number not below 1, but got 0.")
        refuses(lambda f=f: f(X, Y, 0.1, 0, 1, -1), "`weight_decay` must be zero or positive, but got -1.")
        words = "`weight_decay` must be positive where the inputs do not span all dimensions, but got 0."
        refuses(lambda f=f: f(X[:1], Y[:1], 0.1, 0, 1), words)
    words = "`batch` must be at most the number of samples, but got 4."
    refuses(lambda: minibatch_moments(X, Y, 0.1, 0, 4, 2, replace=False), words)
    refuses(lambda: minibatch_moments(X, Y, 0.1, 0, 4, 2, theta0=[1.0]), "`theta0` must have shape (2,), but got (1,).")
    refuses(
        lambda: minibatch_stationary(X, Y, 3.0, 0, 1), "`eta` must be below 2 (1 + beta) / (rho + lambda), but got 3."
    )
    words = "`eta` must be small enough for the second moments to stay bounded, but got 1.5."
    refuses(lambda: minibatch_stationary(X, Y, 1.5, 0, 1), words)
    refuses(
        lambda: minibatch_autocovariance([0.5], X, Y, 0.1, 0, 1),
        "`lags` must be a whole number not below 0, but got 0.5.",
    )
