"""Conserved quantity: real steps and flows of real neurons, every batch, and the weights at a given imbalance."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.integrate import quad_vec, solve_ivp

from theory.lazy_rich import (
    conserved_drift,
    conserved_quantity,
    conserved_sgd_step,
    conserved_step,
    decayed_conserved_quantity,
    gradient_flow,
    gradient_noise,
    layer_strengths,
    params_from_beta,
    relative_scale,
)

RATES = {"eta_a": 0.6, "eta_w": 2.5}
quantity = jax.jit(conserved_quantity)
step = jax.jit(conserved_step)
drift = jax.jit(conserved_drift)
weights = jax.jit(params_from_beta)
strengths = jax.jit(layer_strengths)
sgd = jax.jit(conserved_sgd_step)
scale = jax.jit(relative_scale)


def after_one_step(w, a, v, h, eta_a, eta_w, degree=1):
    return w + (h * eta_w * a)[..., None] * v, a + h * eta_a * np.sum(w * v, -1) / degree


def test_one_step_of_linear_neurons_changes_delta_by_exactly_this():
    rng = np.random.default_rng(0)
    w, v = rng.normal(size=(2, 50, 3))
    a, h = rng.normal(size=50), rng.uniform(0.1, 1, 50)
    change = quantity(*after_one_step(w, a, v, h, **RATES), **RATES) - quantity(w, a, **RATES)
    predicted = step(w, a, v, h, **RATES)
    np.testing.assert_allclose(predicted, change, rtol=1e-12, atol=1e-12)
    w1, _ = after_one_step(w, a, v, h, **RATES)
    in_turn = quantity(w1, after_one_step(w1, a, v, h, **RATES)[1], **RATES) - quantity(w, a, **RATES)
    for twin in (in_turn, -change, step(w, a, v, h, eta_a=2.5, eta_w=0.6)):
        assert np.median(np.abs(predicted - twin)) > 0.1
    assert np.all(
        step(w, a, v - np.sum(w * v, -1, keepdims=True) / np.sum(w**2, -1, keepdims=True) * w, h, **RATES) < 0
    )
    parallel = step(w, a, 1.3 * w, h, **RATES)
    shrunk = -(h**2) * 0.6 * 2.5 * 1.69 * np.sum(w**2, -1) * quantity(w, a, **RATES)
    np.testing.assert_allclose(parallel, shrunk, rtol=1e-12, atol=1e-12)  # steps along w balance the layers


@pytest.mark.parametrize(
    ("sigma", "slope", "degree"),
    [
        (lambda z: np.maximum(z, 0.2 * z), lambda z: np.where(z > 0, 1, 0.2), 1),
        (lambda z: z**2, lambda z: 2 * z, 2),
    ],
    ids=["leaky", "square"],
)
def test_every_neuron_of_a_homogeneous_network_has_its_own(sigma, slope, degree):
    rng = np.random.default_rng(1)
    X, W, a = rng.normal(size=(30, 4)), rng.normal(size=(6, 4)), rng.normal(size=6)
    r = sigma(X @ W.T) @ a - rng.normal(size=30)
    xi = -(slope(X @ W.T) * r[:, None]).T @ X
    # The step of `a` comes from its own gradient, not from Euler's identity.
    moved = W + 0.01 * 2.5 * a[:, None] * xi, a - 0.01 * 0.6 * sigma(X @ W.T).T @ r
    change = quantity(*moved, degree=degree, **RATES) - quantity(W, a, degree=degree, **RATES)
    np.testing.assert_allclose(step(W, a, xi, 0.01, degree=degree, **RATES), change, rtol=1e-11, atol=1e-12)
    other = step(W, a, xi, 0.01, degree=3 - degree, **RATES)
    assert np.all(np.abs(other - change) > 1e-3 * np.abs(change))


def test_flow_conserves_it_for_any_loss_and_weight_decay_shrinks_it():
    rng = np.random.default_rng(2)
    X, y = rng.normal(size=(7, 3)), rng.choice([-1.0, 1.0], 7)
    start = np.array([0.7, -0.4, 0.2, 0.5])

    def velocity(_, state, square, decay, eta_a, eta_w):
        w, a = state[:3], state[3]
        z = X @ w
        f, df = (a * z**2, 2 * a * z) if square else (a * z, a * np.ones(7))
        r = -y / (1 + np.exp(y * f))  # logistic
        grad_w, grad_a = X.T @ (df * r), (f / a) @ r
        return -np.append(eta_w * (grad_w + decay * w), eta_a * (grad_a + decay * a))

    for square, decay, eta_a, eta_w in ((0, 0, 0.6, 2.5), (1, 0, 0.6, 2.5), (0, 0.3, 0.8, 0.8)):
        args = (square, decay, eta_a, eta_w)
        end = solve_ivp(velocity, (0, 2), start, method="DOP853", rtol=1e-12, atol=1e-13, args=args).y[:, -1]
        kept = {"eta_a": eta_a, "eta_w": eta_w, "degree": 1 + square}
        before, after = quantity(np.stack([start, end])[:, :3], np.stack([start, end])[:, 3], **kept)
        expected = decayed_conserved_quantity(2.0, before, decay, eta=eta_a)
        np.testing.assert_allclose(after, expected, rtol=1e-10)
        assert abs(expected / before - 1) > 0.5 or not decay
        assert np.abs(end - start).max() > 0.1
    wrong = quantity(np.stack([start, end])[:, :3], np.stack([start, end])[:, 3], eta_a=0.8, eta_w=0.7)
    assert abs(wrong[1] / wrong[0] - expected / before) > 1e-3


def test_mean_of_a_stochastic_step_is_that_of_every_batch():
    rng = np.random.default_rng(3)
    X, y, w, a = rng.normal(size=(4, 3)), rng.normal(size=4), rng.normal(size=3), np.array(0.7)
    v, C = gradient_noise(a * w, X, y)
    np.testing.assert_allclose(v, X.T @ (y - X @ (a * w)), rtol=1e-12)
    single = 4 * X * (y - X @ (a * w))[:, None]
    draws = np.array([single[list(batch)].mean(axis=0) for batch in itertools.product(range(4), repeat=2)])
    moved = after_one_step(np.tile(w, (16, 1)), np.full(16, a), draws, 0.1, **RATES)
    mean = np.mean(quantity(*moved, **RATES)) - (2.5 * a**2 - 0.6 * w @ w)
    np.testing.assert_allclose(sgd(w, a, v, C, 2.0, 0.1, **RATES), mean, rtol=1e-12, atol=1e-13)
    full = step(w, a, v, 0.1, **RATES)
    for twin in (sgd(w, a, v, C, 4.0, 0.1, **RATES), full):
        assert abs(twin / mean - 1) > 0.05
    np.testing.assert_allclose(sgd(w, a, v, C, np.inf, 0.1, **RATES), full, rtol=1e-14)


def test_drift_keeps_its_printed_digits_and_is_that_of_gradient_descent():
    printed = drift(1.0, 3.0, np.array([1, 0.3]), 0.5, np.array([0.2, 0.8]))
    np.testing.assert_allclose(printed, -0.1953623664, rtol=0, atol=5e-11)
    beta_star = np.array([0.0, 1.0])
    a0 = ((1 + 5**0.5) / 2) ** 0.5
    w0 = np.array([-1.0, 0.0]) / a0
    measured = []
    for h in (0.02, 0.01, 0.005, 0.0025):
        w, a = w0, a0
        for _ in range(round(10 / h)):
            v = beta_star - a * w
            w, a = w + h * a * v, a + h * w @ v
        measured.append((a**2 - w @ w - 1) / h)
    np.testing.assert_allclose(measured, (-0.88588, -0.88116, -0.87883, -0.87767), rtol=0, atol=6e-6)
    theory = drift(1.0, 10.0, w0, a0, beta_star)
    np.testing.assert_allclose(theory, -0.87652, rtol=0, atol=6e-6)
    gaps = np.abs(np.array(measured) - float(theory))
    np.testing.assert_allclose(np.diff(np.log2(gaps)), -1, atol=0.1)
    np.testing.assert_allclose(2 * measured[-1] - measured[-2], theory, rtol=1e-5)


def test_drift_is_an_adaptive_integral_also_where_the_run_is_long():
    rng = np.random.default_rng(4)
    w0, beta_star = rng.normal(size=(2, 5, 3))
    a0 = np.array([4.0, 0.5, -1.0, -0.2, 1e-3])

    flow = jax.jit(gradient_flow)

    def rate(t):
        w, a = flow(t, w0, a0, beta_star, **RATES)
        return step(w, a, beta_star - a[:, None] * w, 1.0, **RATES)

    for T in (2.0, 100.0):
        expected, _ = quad_vec(lambda t: np.array(rate(t)), 0, T, epsabs=1e-12, epsrel=1e-12, points=[0.1, 1.0])
        found = drift(0.3, T, w0, a0, beta_star, **RATES)
        assert found.shape == (5,)
        np.testing.assert_allclose(found, 0.3 * expected, rtol=1e-10)
        assert np.all(np.abs(drift(0.3, T, w0, a0, beta_star) / found - 1) > 0.01)  # unit rates
    assert drift(0.3, 0.0, w0, a0, beta_star).tolist() == [0] * 5


def test_weights_have_the_product_and_the_imbalance_asked_for():
    beta = np.random.default_rng(5).normal(size=(6, 3))
    delta = np.array([-1e8, -3.0, -1e-9, 0.0, 2.0, 1e8])
    w, a = weights(beta, delta, **RATES)
    assert np.all(np.array(a) > 0)
    np.testing.assert_allclose(a[:, None] * w, beta, rtol=1e-14)
    size = 2.5 * a**2 + 0.6 * np.sum(w**2, -1)
    np.testing.assert_allclose((quantity(w, a, **RATES) - delta) / size, 0, atol=1e-15)
    outer, inner = strengths(np.linalg.norm(beta, axis=-1), delta, **RATES)
    np.testing.assert_allclose((outer, inner), (2.5 * a**2, 0.6 * np.sum(w**2, -1)), rtol=1e-14)
    single = weights(beta.astype(np.float32), delta.astype(np.float32), **RATES)
    assert single[0].dtype == single[1].dtype == np.float32
    np.testing.assert_allclose(single[1], a, rtol=1e-6)
    np.testing.assert_allclose(single[0], w, rtol=1e-6)
    zero = weights(np.zeros((6, 3)), np.full(6, 2.0), **RATES)
    np.testing.assert_allclose(zero[1], (2 / 2.5) ** 0.5, rtol=1e-15)
    assert not np.any(zero[0])


def test_relative_scale_splits_tau_so_that_delta_comes_out():
    assert relative_scale(0.5, -0.3) == pytest.approx(1.328980955, abs=5e-10)
    tau, delta = np.array([0.1, 0.5, 2.0, 1.0]), np.array([0.9, -0.3, 0.0, -40.0])
    alpha = scale(tau, delta, **RATES)
    np.testing.assert_allclose(quantity((tau * alpha)[:, None], tau / alpha, **RATES), delta, rtol=1e-13, atol=1e-14)
    textbook = np.sqrt((np.sqrt(4 + delta**2 / tau**4) - delta / tau**2) / 2)
    np.testing.assert_allclose(scale(tau, delta), textbook, rtol=1e-12)
    assert np.all(np.abs(scale(tau, -delta) / textbook - 1)[delta != 0] > 0.1)
    far = scale(np.float32(1), np.array([1e4, -1e4], np.float32))
    assert far.dtype == np.float32
    np.testing.assert_allclose(far, [1e-2, 1e2], rtol=1e-5)


def test_gradients_also_at_balance():
    beta = jnp.array([[0.3, -0.4]] * 3)
    delta = jnp.array([-0.7, 0.0, 0.7])

    @jax.jit
    def both(beta, delta):
        return params_from_beta(beta, delta), relative_scale(beta[:, 0], delta)

    check_grads(both, (beta, delta), order=1, modes=["rev"], atol=1e-6, rtol=1e-6)


def refuses(call, words):
    with pytest.raises(ValueError, match="^" + re.escape(words)):
        call()


def test_bad_arguments_are_named():
    w, a = np.ones(2), 0.5
    refuses(lambda: conserved_quantity(w, a, eta_a=0.0), "`eta_a` must be positive, but got 0.")
    refuses(lambda: conserved_quantity(w, a, eta_w=-1.0), "`eta_w` must be positive, but got -1.")
    refuses(lambda: conserved_quantity(w, a, degree=0), "`degree` must be positive, but got 0.")
    refuses(lambda: conserved_quantity([1, np.nan], a), "`w` must be finite, but got nan.")
    refuses(lambda: conserved_quantity(1.0, a), "`w` must be vectors of one length, but got shapes ().")
    words = "`w` and `v` must be vectors of one length, but got shapes (2,) and (3,)."
    refuses(lambda: conserved_step(w, a, np.ones(3), 0.1), words)
    refuses(lambda: conserved_step(np.ones((4, 2)), np.ones(3), w, 0.1), "The arguments' shapes do not broadcast: ")
    words = "`beta`, `X` and `y` must have shapes (d,), (n, d) and (n,), but got (2,), (3, 2) and (2,)."
    refuses(lambda: gradient_noise(w, np.ones((3, 2)), np.ones(2)), words)
    words = "`C` must have shape (d, d) = (2, 2), but got (3, 3)."
    refuses(lambda: conserved_sgd_step(w, a, w, np.eye(3), 2, 0.1), words)
    refuses(lambda: conserved_sgd_step(w, a, w, np.eye(2), 0, 0.1), "`batch` must be positive, but got 0.")
    refuses(lambda: decayed_conserved_quantity(-1, 1, 0.1), "`t` must be zero or positive, but got -1.")
    refuses(lambda: conserved_drift(0.1, np.inf, w, a, w), "`T` must be zero or positive, and finite, but got inf.")
    refuses(
        lambda: params_from_beta([0, 0], -1), "`beta` must be different from 0 where `delta` is negative, but got 0."
    )
    refuses(lambda: params_from_beta([1, 0], np.inf), "`delta` must be finite, but got inf.")
    refuses(lambda: relative_scale(0.0, 1.0), "`tau` must be positive, but got 0.")
