"""Interpolators: the end of real flows, minima of the potentials, both limits, and what the data do not decide."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.integrate import solve_ivp
from scipy.optimize import minimize

from theory.lazy_rich import (
    deep_conserved_matrices,
    deep_conserved_steps,
    deep_interpolator,
    deep_mirror_potential,
    deep_ntk_matrix,
    deep_params_from_beta,
    interpolator,
    mirror_potential,
    mirror_potential_slope,
    ntk_matrix,
    params_from_beta,
)

RATES = {"eta_a": 0.6, "eta_w": 2.5}
X, Y, BETA0 = np.array([[1.0, 2, -1]]), np.array([0.7]), np.array([0.1, 0.3, 0.2])
potential = jax.jit(mirror_potential)
slope = jax.jit(mirror_potential_slope)
deep_potential = jax.jit(deep_mirror_potential)
settle = jax.jit(interpolator)
deep_settle = jax.jit(deep_interpolator)
weights = jax.jit(params_from_beta)
deep_weights = jax.jit(deep_params_from_beta)


def test_interpolators_keep_their_printed_digits():
    for delta, beta, a in (
        (-0.6, (0.1367498802, 0.3939990417, 0.2247479635), 0.5106428459),
        (0.6, (0.1338131095, 0.3705048764, 0.1748228623), 0.9083568799),
    ):
        found = settle(X, Y, *weights(BETA0, delta))
        np.testing.assert_allclose(found.beta, beta, rtol=0, atol=5e-11)
        np.testing.assert_allclose(found.a, a, rtol=0, atol=5e-11)
    deep = deep_settle(X, Y, *deep_weights(BETA0, 0.3, 2), 2)
    np.testing.assert_allclose(deep.beta, (0.134978636, 0.3798290878, 0.1946368115), rtol=0, atol=5e-10)
    np.testing.assert_allclose(deep.a, 0.839127668, rtol=0, atol=5e-10)
    np.testing.assert_allclose(potential(0.7, -0.5), 0.823299675, rtol=0, atol=5e-10)


def end_of_flow(X, y, w0, a0, depth=1, T=150.0):
    """Where the real parameters of a a ... a w end."""

    def velocity(_, state):
        w, a = state[:-1], state[-1]
        v = X.T @ (y - X @ w * a**depth)
        return np.append(2.5 * a**depth * v, 0.6 * a ** (depth - 1) * w @ v)

    options = {"method": "DOP853", "rtol": 1e-12, "atol": 1e-13}
    end = solve_ivp(velocity, (0, T), np.append(w0, a0), **options).y[:, -1]
    beta = end[:-1] * end[-1] ** depth
    assert np.abs(X @ beta - y).max() < 1e-10
    return beta, end[-1]


def draws():
    """Upstream and downstream starts on data of unequal singular values, none with u <= 0."""
    rng = np.random.default_rng(0)
    for delta in (-0.2, 0.0, 0.5, 4.0):
        inputs, beta_star = rng.normal(size=(2, 5)), rng.normal(size=5)
        beta0 = rng.normal(size=5)
        beta0 -= 0.8 * np.linalg.pinv(inputs) @ inputs @ beta0
        yield inputs, inputs @ beta_star, beta0, delta


def test_interpolators_are_the_ends_of_flows():
    for inputs, y, beta0, delta in draws():
        w0, a0 = weights(beta0, delta, **RATES)
        for flip in (1, -1):
            real_beta, real_a = end_of_flow(inputs, y, flip * w0, flip * a0)
            found = settle(inputs, y, flip * w0, flip * a0, **RATES)
            np.testing.assert_allclose(found.beta, real_beta, rtol=0, atol=1e-9)
            np.testing.assert_allclose(found.a, real_a, rtol=0, atol=1e-9)
            assert np.linalg.norm(settle(inputs, y, flip * w0, flip * a0).beta - real_beta) > 0.01


def test_on_one_sample_a_may_cross_zero_and_the_sign_is_known():
    w0 = np.array([-0.5, -1.0, 0.9])
    for a0, crosses in ((0.02, True), (1.2, False), (-0.3, False), (0.0, True)):
        real_beta, real_a = end_of_flow(X, Y, w0, a0)
        found = settle(X, Y, w0, a0, **RATES)
        np.testing.assert_allclose((*found.beta, found.a), (*real_beta, real_a), rtol=0, atol=1e-9)
        assert (np.sign(real_a) != np.sign(a0)) == crosses
        other = settle(X, Y, w0, a0, sign=-np.sign(real_a), **RATES)
        assert np.linalg.norm(other.beta - real_beta) > 0.1
        given = settle(X, Y, w0, a0, sign=np.sign(real_a), **RATES)
        np.testing.assert_allclose(given.beta, found.beta, rtol=1e-14)


@jax.jit
def shallow_objective(z, kernel, beta_star, w0, delta, depth):
    beta = beta_star + kernel @ z
    return mirror_potential(jnp.linalg.norm(beta), delta, **RATES) - (2 * 0.6) ** 0.5 * w0 @ beta


@jax.jit
def deep_objective(z, kernel, beta_star, w0, delta, depth):
    beta = beta_star + kernel @ z
    return deep_mirror_potential(jnp.linalg.norm(beta), delta, depth, **RATES) - w0 @ beta


SLOPED = {f: jax.jit(jax.value_and_grad(f)) for f in (shallow_objective, deep_objective)}


def minimum(objective, inputs, y, *args):
    """Numerical minimum among the interpolators."""
    kernel, beta_star = np.linalg.svd(inputs)[2][len(inputs) :].T, np.linalg.pinv(inputs) @ y

    def value(z):
        return tuple(map(np.array, SLOPED[objective](z, kernel, beta_star, *args)))

    return beta_star + kernel @ minimize(value, np.full(3, 0.1), method="BFGS", jac=True, options={"gtol": 1e-10}).x


def test_interpolators_minimise_the_potential():
    for inputs, y, beta0, delta in draws():
        w0, a0 = map(np.array, weights(beta0, delta, **RATES))
        beta = settle(inputs, y, w0, a0, **RATES).beta
        np.testing.assert_allclose(minimum(shallow_objective, inputs, y, w0, delta, 1), beta, rtol=0, atol=1e-6)
        if delta:
            assert np.linalg.norm(minimum(shallow_objective, inputs, y, w0, -delta, 1) - beta) > 0.01


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_deep_interpolators_end_flows_and_minimise_their_potential(depth):
    for inputs, y, beta0, delta in draws():
        beta0 = beta0 + 0.5 * np.linalg.pinv(inputs) @ y  # a stays positive
        w0, a0 = map(np.array, deep_weights(beta0, delta, depth, **RATES))
        found = deep_settle(inputs, y, w0, a0, depth, **RATES)
        real_beta, real_a = end_of_flow(inputs, y, w0, a0, depth)
        np.testing.assert_allclose(found.beta, real_beta, rtol=0, atol=1e-9)
        np.testing.assert_allclose(found.a, real_a, rtol=0, atol=1e-9)
        if delta < 4:  # one upstream and one downstream start, and balance
            lowest = minimum(deep_objective, inputs, y, w0, delta, depth)
            np.testing.assert_allclose(lowest, found.beta, rtol=0, atol=1e-6)
        shallower = deep_settle(inputs, y, w0, a0, depth + 1, **RATES).beta
        assert np.linalg.norm(shallower - real_beta) > 1e-3
        if depth == 1:
            shallow = settle(inputs, y, w0, a0, **RATES)
            np.testing.assert_allclose(found.beta, shallow.beta, rtol=0, atol=1e-13)


def test_slopes_of_the_potentials_are_the_weights():
    b = np.array([1e-3, 0.4, 2.0])
    shallow_slope = jax.jit(jax.vmap(jax.grad(lambda x, delta: mirror_potential(x, delta, **RATES)), (0, None)))
    deep_slope = jax.jit(jax.vmap(jax.grad(lambda x, *args: deep_mirror_potential(x, *args, **RATES)), (0, None, None)))
    for delta in (-1.5, 0.0, 0.9):
        derivative = shallow_slope(b, delta)
        np.testing.assert_allclose(derivative, slope(b, delta, **RATES), rtol=1e-10)
        w, _ = weights(b[:, None], delta, **RATES)
        np.testing.assert_allclose(derivative, (2 * 0.6) ** 0.5 * w[:, 0], rtol=1e-10)
        assert np.all(np.abs(slope(b, delta) / derivative - 1)[1:] > 1e-2)
        for depth in (1.0, 3.0):
            w, a = deep_weights(b[:, None], delta, depth, **RATES)
            np.testing.assert_allclose(deep_slope(b, delta, depth), w[:, 0], rtol=1e-9)
            np.testing.assert_allclose(a**depth * w[:, 0], b, rtol=1e-12)
            size = 2.5 * a**2 + 0.6 * w[:, 0] ** 2
            np.testing.assert_allclose((2.5 * a**2 - 0.6 * w[:, 0] ** 2 - delta) / size, 0, atol=1e-13)
        shallow = (2 * 0.6) ** 0.5 * deep_potential(b, delta, 1, **RATES) - potential(b, delta, **RATES)
        np.testing.assert_allclose(shallow, shallow[0], rtol=0, atol=1e-13)  # up to a constant
    np.testing.assert_allclose(deep_potential(b, 0.0, 2), 3 / 4 * b ** (4 / 3), rtol=1e-12)
    np.testing.assert_allclose(potential(b, 0.0), (2 * b) ** 1.5 / 3, rtol=1e-14)
    assert slope(0 * b, -2.0).tolist() == [2] * 3  # a cone
    assert slope(0 * b, 2.0).tolist() == [0] * 3
    assert deep_potential(0 * b, -1.0, 2).tolist() == [0] * 3
    np.testing.assert_allclose(deep_potential(0 * b, 1.0, 2), -0.25, rtol=1e-14)


def test_deep_weights_at_balance_float32_and_extremes():
    delta = np.array([0.0, 1e-8, -1e-8, 50.0, -50.0, 1e6, -1e6])
    beta = np.tile([1e-3, 0.0], (7, 1))
    for depth in (1, 2, 5):
        w, a = deep_weights(beta, delta, depth)
        np.testing.assert_allclose(a**depth * w[:, 0], 1e-3, rtol=1e-11)
        single = deep_weights(beta.astype(np.float32), delta.astype(np.float32), depth)
        assert single[1].dtype == np.float32
        np.testing.assert_allclose(single[1], a, rtol=1e-5)
    np.testing.assert_allclose(deep_weights(beta, delta, 1)[1], weights(beta, delta)[1], rtol=1e-12)
    w, a = deep_weights(np.zeros((1, 2)), np.array([4.0]), 3)
    assert a == 2
    assert not np.any(w)
    points = jnp.array([0.5, 0.7, 1.2]), jnp.array([-0.8, 0.0, 0.6])
    check_grads(
        jax.jit(lambda b, delta: deep_mirror_potential(b, delta, 3)),
        points,
        order=1,
        modes=["rev"],
        atol=1e-5,
        rtol=1e-5,
    )
    check_grads(potential, points, order=1, modes=["rev"], atol=1e-5, rtol=1e-5)


def test_far_upstream_and_far_downstream():
    null = np.eye(3) - np.linalg.pinv(X) @ X
    beta_star = np.linalg.pinv(X) @ Y
    w0, a0 = weights(BETA0, 1e9)
    np.testing.assert_allclose(settle(X, Y, w0, a0).beta, beta_star + null @ BETA0, rtol=0, atol=1e-8)
    w0, a0 = map(np.array, weights(BETA0, -1e9))
    kept = np.linalg.norm(beta_star) / np.linalg.norm(w0 - null @ w0) * null @ w0
    beta = settle(X, Y, w0, a0).beta
    np.testing.assert_allclose(beta, beta_star + kept, rtol=0, atol=1e-8)
    np.testing.assert_allclose(np.cross(beta, BETA0), 0, atol=1e-8)
    for delta, biased in ((0.5, False), (0.0, False), (-0.5, True)):  # from almost nothing
        w0, a0 = weights(1e-9 * BETA0, delta)
        beta = settle(X, Y, w0, a0).beta
        assert (np.linalg.norm(beta - beta_star) > 0.05) == biased


def test_jitted_and_in_float32():
    w0, a0 = weights(BETA0, -0.6)
    exact = interpolator(X, Y, w0, a0)
    np.testing.assert_allclose(settle(X, Y, w0, a0).beta, exact.beta, rtol=1e-13)
    singles = [np.asarray(x, np.float32) for x in (X, Y, w0, a0)]
    for found in (settle(*singles), deep_settle(*singles, 1)):
        assert found.beta.dtype == found.a.dtype == np.float32
        np.testing.assert_allclose(found.beta, exact.beta, rtol=1e-5)
    slope_of = jax.grad(lambda a: settle(X, Y, w0, a).beta.sum())
    secant = (interpolator(X, Y, w0, a0 + 1e-5).beta.sum() - settle(X, Y, w0, a0 - 1e-5).beta.sum()) / 2e-5
    np.testing.assert_allclose(slope_of(a0), secant, rtol=1e-6)


def test_layers_of_a_deep_network_conserve_and_step_as_they_should():
    rng = np.random.default_rng(3)
    shapes, rates = ((3, 4), (2, 3), (2, 2)), (0.5, 1.3, 0.8)
    weights_ = [rng.normal(size=shape) for shape in shapes]
    inputs, targets = rng.normal(size=(6, 4)), rng.normal(size=(6, 2))

    def drives(weights_):
        W1, W2, W3 = weights_
        G = (targets - inputs @ (W3 @ W2 @ W1).T).T @ inputs
        return [W2.T @ W3.T @ G, W3.T @ G @ W1.T, G @ (W2 @ W1).T]

    S, h = drives(weights_), 0.03
    moved = [W + h * rate * s for W, rate, s in zip(weights_, rates, S, strict=True)]
    changes = [b - a for a, b in zip(*(deep_conserved_matrices(x, rates) for x in (weights_, moved)), strict=True)]
    for found, change in zip(deep_conserved_steps(S, h, rates), changes, strict=True):
        np.testing.assert_allclose(found, change, rtol=0, atol=1e-12 * np.abs(moved[0]).max() ** 2)
        assert np.abs(found).max() > 1e-3
    assert np.abs(deep_conserved_steps(S, h)[0] - changes[0]).max() > 1e-3
    sizes = np.cumsum([0, 12, 6, 4])

    def split(state):
        return [state[i:j].reshape(shape) for i, j, shape in zip(sizes, sizes[1:], shapes, strict=False)]

    def velocity(_, state):
        return np.concatenate([rate * s.ravel() for rate, s in zip(rates, drives(split(state)), strict=True)])

    start = np.concatenate([W.ravel() for W in weights_])
    end = split(solve_ivp(velocity, (0, 1), start, method="DOP853", rtol=1e-12, atol=1e-12).y[:, -1])
    for before, after in zip(*(deep_conserved_matrices(x, rates) for x in (weights_, end)), strict=True):
        np.testing.assert_allclose(after, before, rtol=0, atol=1e-9)
    assert np.abs(end[0] - weights_[0]).max() > 0.1
    assert np.abs(deep_conserved_matrices(end)[0] - deep_conserved_matrices(weights_)[0]).max() > 0.01
    two = deep_conserved_matrices([BETA0[None, :], np.array([[0.4]])], (2.5, 0.6))[0]
    np.testing.assert_allclose(0.6 * 2.5 * two, 2.5 * 0.16 - 0.6 * BETA0 @ BETA0, rtol=1e-14)


def test_the_kernel_of_a_chain_moves_it():
    delta, v = 0.4, np.array([0.3, -0.8, 0.5])
    for depth in (1, 3):
        w, a = map(np.array, deep_weights(BETA0, delta, depth, **RATES))
        M = deep_ntk_matrix(BETA0, delta, depth, **RATES)
        rest = depth * a ** (depth - 1) * 0.6 * a ** (depth - 1) * w @ v * w
        np.testing.assert_allclose(M @ v, a**depth * 2.5 * a**depth * v + rest, rtol=1e-12)
        assert np.abs(deep_ntk_matrix(BETA0, -delta, depth, **RATES) - M).max() > 0.01
    np.testing.assert_allclose(
        deep_ntk_matrix(BETA0, delta, 1, **RATES), ntk_matrix(BETA0, delta, **RATES), rtol=1e-11, atol=1e-13
    )


def refuses(call, words):
    with pytest.raises(ValueError, match="^" + re.escape(words) + "$"):
        call()


def test_bad_arguments_are_named():
    w = np.array([0.5, 1.0, 0.2])
    words = "`X`, `y` and `w0` must have shapes (n, d), (n,) and (d,), but got (1, 3), (1,), (2,)."
    refuses(lambda: interpolator(X, Y, w[:2], 1.0), words)
    refuses(lambda: deep_interpolator(X, Y, w[:2], 1.0, 2), words)
    twice = np.concatenate([X, X])
    words = "`y` must be in the range of `X`, with residual 0, but got 0.707107."
    refuses(lambda: interpolator(twice, np.array([0.0, 1]), w, 1.0), words)
    refuses(lambda: deep_interpolator(twice, np.array([0.0, 1]), w, 1.0, 2), words)
    np.testing.assert_allclose(
        interpolator(twice, np.array([0.7, 0.7]), w, 1.0).beta, interpolator(X, Y, w, 1.0).beta, rtol=1e-12
    )
    unequal = np.array([[1.0, 0, 0], [0, 2, 0]])
    words = "`sign` must be given where `X` has unequal singular values and a may cross 0 (u <= 0), but got -0.25."
    refuses(lambda: interpolator(unequal, np.ones(2), np.array([0.0, 0.5, 1]), 0.0), words)
    words = "`sign` must be given where the start is on the separatrix, but got 0."
    refuses(lambda: interpolator(X, Y, np.array([1.0, 0, 1]), 0.0), words)
    refuses(lambda: interpolator(X, Y, w, 0.1, sign=0.5), "`sign` must be 1 or -1, but got 0.5.")
    refuses(lambda: interpolator(X, Y, w, np.nan), "`a0` must be finite, but got nan.")
    refuses(lambda: interpolator(X, Y, w, 1.0, eta_w=0), "`eta_w` must be positive, but got 0.")
    refuses(lambda: deep_interpolator(X, Y, w, -1.0, 2), "`a0` must be positive, but got -1.")
    refuses(lambda: deep_interpolator(X, Y, w, 1.0, 0), "`depth` must be a whole number not below 1, but got 0.")
    refuses(lambda: mirror_potential(-1.0, 1.0), "`beta_norm` must be zero or positive, but got -1.")
    refuses(lambda: mirror_potential_slope(-1.0, 1.0), "`beta_norm` must be zero or positive, but got -1.")
    refuses(lambda: deep_mirror_potential(1.0, 1.0, 1.5), "`depth` must be a whole number not below 1, but got 1.5.")
    words = "`beta` must be different from 0 where `delta` is negative, but got 0."
    refuses(lambda: deep_params_from_beta(0 * w, -1.0, 2), words)
    words = "`weights` must chain as W_L ... W_1, but got shapes [(1, 3), (1, 3)]."
    refuses(lambda: deep_conserved_matrices([X, X]), words)
    words = "`weights` must be matrices with one rate each, but got [(1, 3)] and 2 rates."
    refuses(lambda: deep_conserved_matrices([X], [1, 1]), words)
    refuses(lambda: deep_conserved_steps([X], 0.1, [0.0]), "`rates` must be positive, but got 0.")


def test_data_that_leave_no_bias_are_warned_about():
    with pytest.warns(UserWarning, match="^`X` has full column rank: it has one interpolator, and no bias is left.$"):
        beta = interpolator(np.diag([1.0, 1]), np.array([0.3, -0.4]), np.array([1.0, 0]), 2.0).beta
    np.testing.assert_allclose(beta, [0.3, -0.4], rtol=1e-14)
