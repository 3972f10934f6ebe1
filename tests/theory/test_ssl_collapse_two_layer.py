"""Two layers: times against quadrature in fifty digits, trajectories against the flow of the layers themselves."""

import re

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from theory.ssl_collapse import (
    representation_strength,
    two_layer_apparent_rank,
    two_layer_escape_time,
    two_layer_imbalance,
    two_layer_time,
    two_layer_trajectory,
)

MODE = (0.6, 0.9, 0.75)
LIMIT = (0.6 / 1.5) ** 0.5 / 0.9
trajectory = jax.jit(two_layer_trajectory)
time_of = jax.jit(two_layer_time)
rank_of = jax.jit(two_layer_apparent_rank)
B, SIGMA = np.array([2.4, 1.4, 0.8]), np.array([1.45, 0.95, 0.65])


def quadrature(p, p0, b, sigma, kappa, imbalance):
    """Integral of dp over the speed, in x = ln p."""
    with mp.workdps(30):
        p, p0, b, sigma, kappa, delta = (mp.mpf(float(v)) for v in (p, p0, b, sigma, kappa, imbalance))

        def slowness(x):
            q = mp.exp(x)
            return 1 / (mp.sqrt(delta**2 + 4 * q**2) * (2 * b - 4 * kappa * sigma**2 * q**2))

        return float(mp.quad(slowness, mp.linspace(mp.log(p0), mp.log(p), 9)))


def layers_flow(time, p0, b, sigma, kappa, imbalance):
    """sigma_1 sigma_2 after the flow of both singular values."""

    def field(_, s):
        pull = 2 * b - 4 * kappa * sigma**2 * s[0] ** 2 * s[1] ** 2
        return [s[0] * s[1] ** 2 * pull, s[1] * s[0] ** 2 * pull]

    first = representation_strength(p0, imbalance)
    start = [float(first), float(p0 / first)]
    return np.prod(solve_ivp(field, (0, time), start, rtol=1e-12, atol=1e-15, method="DOP853").y[:, -1])


def test_printed_values():
    np.testing.assert_allclose(time_of(0.4, 0.01, *MODE), 40.9998023503, rtol=1e-11)
    np.testing.assert_allclose(trajectory(40.9998023503, 0.01, *MODE), 0.4, rtol=1e-9)


@pytest.mark.parametrize("imbalance", [0.0, 1e-5, 0.02, -0.8, 6.0])
def test_times_are_the_integral_of_the_inverse_speed(imbalance):
    # Below the limit, above it, with b < 0, with R^2 = 0 and beside it.
    kept = -0.16 * 1.5 * 0.81
    cases = [
        (0.4, 0.01, *MODE), (LIMIT * (1 - 1e-7), 1e-4, *MODE), (0.01, 0.4, *MODE), (LIMIT * 1.001, 3.0, *MODE),
        (1e-4, 0.5, -0.6, 0.9, 0.75), (0.05, 2.0, kept, 0.9, 0.75), (0.05, 2.0, kept * (1 + 1e-6), 0.9, 0.75),
        (0.3, 0.2, 0.001, 0.3, 0.02),
    ]  # fmt: skip
    found = time_of(*np.array(cases).T, imbalance)
    exact = [quadrature(*case, imbalance) for case in cases]
    np.testing.assert_allclose(found, exact, rtol=1e-9)


def test_balanced_time_has_the_simple_form():
    p, p0, b = 0.4, 0.01, 0.6
    simple = (1 / p0 - 1 / p + (np.arctanh(p / LIMIT) - np.arctanh(p0 / LIMIT)) / LIMIT) / (4 * b)
    np.testing.assert_allclose(time_of(p, p0, *MODE), simple, rtol=1e-13)


@pytest.mark.parametrize(
    ("p0", "b", "imbalance"), [(0.02, 0.6, 0.0), (0.02, 0.6, -0.3), (1.4, 0.6, 0.1), (0.5, -0.4, 0.0), (0.5, -0.4, 0.7)]
)
def test_trajectories_follow_the_flow_of_the_layers(p0, b, imbalance):
    for time in (0.0, 0.7, 6.0, 25.0):
        exact = layers_flow(time, p0, b, 0.9, 0.75, imbalance)
        np.testing.assert_allclose(trajectory(time, p0, b, 0.9, 0.75, imbalance), exact, rtol=2e-9)


@pytest.mark.thorough
def test_trajectories_go_back_through_the_time_and_end_at_the_limit():
    t = np.array([0.0, 1e-3, 1.0, 30.0, 45.0])
    for p0, b, imbalance in ((1e-3, 0.6, 0.4), (0.01, 0.6, 0.0), (2.0, 0.6, 0.0), (2.0, -0.6, 0.4)):
        p = trajectory(t, p0, b, 0.9, 0.75, imbalance)
        back = time_of(p[:3], p0, b, 0.9, 0.75, imbalance)
        np.testing.assert_allclose(back, t[:3], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(trajectory(1e9, np.array([1e-3, LIMIT, 5.0]), *MODE), LIMIT, rtol=1e-14)
    # A collapsing mode of balanced layers falls algebraically, one of unequal layers exponentially.
    np.testing.assert_allclose(trajectory(1e6, 0.3, -0.6, 0.9, 0.75) * 4 * 0.6 * 1e6, 1, rtol=1e-5)
    assert trajectory(100.0, 0.3, -0.6, 0.9, 0.75, 0.5) < 1e-20


def test_escape_is_hyperbolic_for_balanced_layers_and_logarithmic_for_unequal_ones():
    p0 = np.array([1e-4, 1e-6])
    np.testing.assert_allclose(two_layer_escape_time(0.6, p0), 1 / (2.4 * p0), rtol=1e-14)
    np.testing.assert_allclose(two_layer_escape_time(0.6, p0, 0.2), np.log(0.2 / p0) / 0.24, rtol=1e-6)
    exact = time_of(LIMIT / 2, p0, *MODE) / two_layer_escape_time(0.6, p0)
    # The next order: -2 / p_inf + artanh(1/2) / p_inf in units of 1 / p0.
    np.testing.assert_allclose((1 - exact) / p0, (2 - np.arctanh(0.5)) / LIMIT, rtol=1e-3)
    # In units of the balanced time it is 2 ln r / (r - 1/r) for layers of ratio r.
    r = np.array([1.5, 4.0])
    np.testing.assert_allclose(
        two_layer_escape_time(0.6, 0.01, 0.01 * (r - 1 / r)) * 0.024, 2 * np.log(r) / (r - 1 / r), rtol=1e-13
    )
    np.testing.assert_array_equal(two_layer_escape_time(np.array([0.0, -1.0]), 0.1), np.inf)


@pytest.mark.thorough
def test_the_apparent_rank_counts_modes_that_have_escaped():
    t = np.linspace(0, 60, 13)
    for imbalance in (0.0, 0.1):
        p = trajectory(t[:, None], 0.01, B[None, :], SIGMA[None, :], 1.0, imbalance)
        expected = (p > 0.5 * np.sqrt(B / 2)[None, :] / SIGMA[None, :]).sum(1)
        found = rank_of(t, 0.01, B, SIGMA, 1.0, imbalance)
        np.testing.assert_array_equal(found, expected)
    assert found[-1] == 3
    assert rank_of(1e9, 0.01, np.array([1.0, -1.0]), 1.0, 1.0) == 1
    assert rank_of(0.0, 3.0, np.array([1.0, -1.0]), 1.0, 1.0) == 1


def test_the_imbalance_of_matrices_decays_four_times_as_fast_as_lambda():
    rng = np.random.default_rng(0)
    W1, W2, decay = rng.normal(size=(4, 3)), rng.normal(size=(2, 4)), 0.15
    gram = np.diag([1.0, 0.6, 0.3])

    def field(_, w):
        first, second = w[:12].reshape(4, 3), w[12:].reshape(2, 4)
        product = second @ first
        pull = 2 * product - 4 * product @ gram @ product.T @ product @ gram
        return np.concatenate(
            [(second.T @ pull - 2 * decay * first).ravel(), (pull @ first.T - 2 * decay * second).ravel()]
        )

    end = solve_ivp(field, (0, 2.0), np.concatenate([W1.ravel(), W2.ravel()]), rtol=1e-11, atol=1e-13).y[:, -1]
    V1, V2 = end[:12].reshape(4, 3), end[12:].reshape(2, 4)
    D = W1 @ W1.T - W2.T @ W2
    np.testing.assert_allclose(V1 @ V1.T - V2.T @ V2, two_layer_imbalance(2.0, D, decay), rtol=1e-7, atol=1e-9)
    np.testing.assert_array_equal(two_layer_imbalance(5.0, D), D)


def test_the_representation_is_the_root_of_the_embedding():
    p = np.array([0.0, 0.04, 0.5])
    np.testing.assert_allclose(representation_strength(p), np.sqrt(p), rtol=1e-14)
    for delta in (-1.3, 1e-9, 0.4):
        first = representation_strength(p[1:], delta)
        np.testing.assert_allclose(first**2 - (p[1:] / first) ** 2, delta, rtol=1e-6, atol=1e-12)
    assert np.ptp(np.log(representation_strength(p[1:]))) == pytest.approx(np.ptp(np.log(p[1:])) / 2)


@pytest.mark.thorough
def test_gradients_jit_float32_and_broadcasting():
    for function, where in (
        (lambda *x: two_layer_time(0.4, *x), (0.1, *MODE, 0.05)),
        (lambda *x: two_layer_trajectory(20.0, *x), (0.02, *MODE, 0.05)),
    ):
        value, at = jax.jit(function), np.array(where)
        gradient = jax.jit(jax.grad(function, argnums=tuple(range(len(at)))))(*at)
        ends = [[float(value(*(at * (1 + s * h)))) for s in (1, -1)] for h in 1e-5 * np.eye(len(at))]
        np.testing.assert_allclose(gradient * at, -np.diff(ends)[:, 0] / 2e-5, rtol=1e-5)
    late = jax.jit(jax.grad(lambda b: two_layer_trajectory(1e4, 0.02, b, 0.9, 0.75)))
    np.testing.assert_allclose(late(0.6), LIMIT / 1.2, rtol=1e-6)
    assert np.isfinite(jax.jit(jax.grad(lambda d: two_layer_time(0.4, 0.01, *MODE, d)))(0.0))
    single = [jnp.array(v, jnp.float32) for v in (30.0, 0.01, *MODE, 0.02)]
    p = trajectory(*single)
    assert p.dtype == jnp.float32
    np.testing.assert_allclose(p, trajectory(30.0, 0.01, *MODE, 0.02), rtol=2e-4)
    assert trajectory(np.ones((4, 1)), 0.01, B, SIGMA, 1.0).shape == (4, 3)
    assert rank_of(np.ones(5), 0.01, B, SIGMA, 1.0).shape == (5,)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: two_layer_time(0.8, 0.01, *MODE),
            "`p` must be on the side of its limit on which `p0` is, but got 0.8.",
        ),
        (lambda: two_layer_time(LIMIT, 0.01, *MODE), "`p` must be on the side of its limit on which `p0` is, but got"),
        (lambda: two_layer_time(0.4, 0.0, *MODE), "`p0` must be positive, but got 0."),
        (lambda: two_layer_time(-0.4, 0.1, *MODE), "`p` must be positive, but got -0.4."),
        (lambda: two_layer_time(0.1, 0.4, 0.0, 1.0, 1.0), "`b` must be different from 0, but got 0."),
        (lambda: two_layer_trajectory(-1.0, 0.1, *MODE), "`time` must be zero or positive, but got -1."),
        (lambda: two_layer_trajectory(1.0, 0.1, 0.6, 0.0, 1.0), "`sigma` must be positive, but got 0."),
        (lambda: two_layer_trajectory(1.0, 0.1, 0.6, 1.0, np.nan), "`kappa` must be positive, but got nan."),
        (lambda: two_layer_trajectory(1.0, 0.1, *MODE, np.inf), "`imbalance` must be finite, but got inf."),
        (lambda: two_layer_escape_time(np.nan, 0.1), "`b` must be finite, but got nan."),
        (
            lambda: two_layer_apparent_rank(1.0, 0.1, B, SIGMA, 1.0, share=1.0),
            "`share` must be zero or positive, and below",
        ),
        (lambda: two_layer_imbalance(1.0, 0.1, -0.1), "`weight_decay` must be zero or positive, but got -0.1."),
        (lambda: representation_strength(-0.1), "`p` must be zero or positive, but got -0.1."),
    ],
)
def test_wrong_arguments_are_named_in_one_sentence(call, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}"):
        call()
