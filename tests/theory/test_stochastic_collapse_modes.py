"""Singular modes under label noise: fifty digits, limits on both sides of the threshold, and sampled modes."""

import math
import re

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from jax.test_util import check_grads

from theory.stochastic_collapse import (
    hold_time,
    mode_density,
    mode_exponent,
    mode_mean,
    mode_mean_bound,
    mode_moments,
    moments_after_drop,
    quartic_stationary_density,
    soft_threshold,
)

bound = jax.jit(mode_mean_bound)
dropped = jax.jit(moments_after_drop)


def test_printed_values():
    np.testing.assert_allclose(soft_threshold(3 / 1024, 20), 0.5859375, rtol=1e-15)
    np.testing.assert_allclose(mode_moments(0.9, 3 / 1024, 20), [0.3140625, 0.4666772461], rtol=1e-10)
    np.testing.assert_allclose(bound(1.5, 0.8, 0.01, 6, 0.5), 0.5976701864, rtol=1e-10)
    np.testing.assert_allclose(mode_exponent(0.5, 0.02, 8), -0.0031157698, rtol=1e-8)
    np.testing.assert_allclose(dropped(1.0, 0.7, 0.01, 8), [0.4141130609, 0.2383930213], rtol=1e-9)
    np.testing.assert_allclose(hold_time(0.2, 0.01, 10, 30), 45, rtol=1e-14)


def zeta_of(shape, s, eta):
    """Label noise at which the Gamma law has this shape."""
    return np.sqrt(s / (shape + 0.5) / eta)


def test_the_density_is_a_gamma_law_whose_moments_are_the_soft_threshold():
    shapes = np.array([0.02, 0.5, 0.99, 1.0, 1.01, 7.0, 500.0])
    zeta = zeta_of(shapes, 0.7, 0.01)
    values = np.array([1e-8, 0.01, 0.3, 0.69, 1.5])
    found = mode_density(values[:, None], 0.7, 0.01, zeta[None, :])
    with mp.workdps(50):
        for k, noise in enumerate(map(mp.mpf, zeta)):
            c = mp.mpf(0.01) * noise**2
            shape = mp.mpf(0.7) / c - mp.mpf(0.5)
            exact = [float(v ** (shape - 1) * mp.exp(-v / c) / mp.gamma(shape) / c**shape) for v in map(mp.mpf, values)]
            np.testing.assert_allclose(found[:, k], exact, rtol=1e-11)
            moments = [shape * c, shape * (shape + 1) * c**2]
            np.testing.assert_allclose(mode_moments(0.7, 0.01, zeta[k]), [float(m) for m in moments], rtol=1e-12)
    u = np.array([0.1, 0.6, 1.1])
    quartic = quartic_stationary_density(u, 0.7, np.sqrt(0.01) * 4.0)
    np.testing.assert_allclose(mode_density(u**2, 0.7, 0.01, 4.0) * u, quartic, rtol=1e-12)
    at_zero = mode_density(0.0, 0.75, 0.5, np.array([1.2, 1.0, 0.8]))
    np.testing.assert_allclose(at_zero, [np.inf, 2.0, 0.0], rtol=1e-14)


def test_moments_are_zero_for_a_collapsed_mode_and_those_of_the_data_without_noise():
    s = np.array([0.1, 0.5 - 1e-9, 0.5, 0.5 + 1e-9, 0.9])
    for discrete in (False, True):
        mean, second = mode_moments(s, 0.01, 10.0, discrete=discrete)
        np.testing.assert_array_equal(mean[:3], 0)
        np.testing.assert_array_equal(second[:3], 0)
        np.testing.assert_allclose(mode_moments(s, 0.01, 0.0, discrete=discrete), [s, s**2], rtol=1e-15)
    np.testing.assert_allclose(mode_moments(0.9, 0.01, 10, discrete=True), [0.4 - 0.00575, 0.56 - 0.00475], rtol=1e-13)


def test_the_exponent_of_discrete_steps():
    draws = np.random.default_rng(0).normal(size=400_000)
    for s, eta, zeta in ((0.5, 0.02, 8.0), (0.3, 0.4, 3.0), (-0.5, 0.1, 2.0)):
        growth = np.log(np.abs(1 + eta * (s + zeta * draws)))
        assert abs(growth.mean() - mode_exponent(s, eta, zeta)) < 5 * growth.std() / len(draws) ** 0.5
    np.testing.assert_allclose(mode_exponent(0.5, 0.1, 0.0), np.log(1.05), rtol=1e-13)
    for s in (0.2, 0.7):
        off = [
            mode_exponent(s, eta, np.sqrt(0.8 / eta)) / eta - (s - soft_threshold(eta, np.sqrt(0.8 / eta)))
            for eta in (1e-2, 1e-3)
        ]
        assert abs(off[0] / off[1] - 10) < 0.5


def test_the_bound_in_fifty_digits_on_both_sides_of_the_threshold():
    tau, t = 0.4, np.array([0.0, 1e-6, 0.3, 2.0, 50.0])
    for gap in (-0.35, -1e-3, -1e-9, 0.0, 1e-9, 1e-3, 0.5, 30.0):
        for s0 in (1e-6, 0.3, 1.2):
            found = bound(t, tau + gap, 0.008, 10.0, s0)
            with mp.workdps(50):
                rate = mp.mpf(float(tau + gap)) - mp.mpf(0.008) * 50
                rate = rate if rate else mp.mpf(10) ** -40
                exact = [float(rate / (1 + (rate / s0 - 1) * mp.exp(-2 * rate * x))) for x in map(mp.mpf, t)]
            np.testing.assert_allclose(found, exact, rtol=1e-12)
            assert found[0] == s0
    np.testing.assert_allclose(bound(t, 0.4, 0.008, 10.0, 0.3), 0.3 / (1 + 0.6 * t), rtol=1e-9)
    np.testing.assert_allclose(bound(1e4, 0.9, 0.008, 10.0, 0.3), 0.5, rtol=1e-14)


def test_the_mean_at_finite_times():
    mean = jax.jit(mode_mean)
    # The reference value is good to its fourth digit.
    np.testing.assert_allclose(mean(1.5, 0.8, 0.01, 6.0, 0.5), 0.64664, atol=5e-5)
    np.testing.assert_allclose(mean(0.0, 0.8, 0.01, 6.0, 0.5), 0.5, rtol=1e-15)
    np.testing.assert_allclose(mean(60.0, 0.8, 0.01, 6.0, 0.5), mode_moments(0.8, 0.01, 6.0).mean, rtol=1e-4)
    t = np.array([0.1, 0.7, 2.0, 6.0])
    for s in (0.1, 0.18, 0.5, 1.2):
        exact, lower, noiseless = mean(t, s, 0.01, 6.0, 0.5), bound(t, s, 0.01, 6.0, 0.5), bound(t, s, 0.01, 0.0, 0.5)
        assert (exact > lower - 1e-4).all()
        assert (exact > lower + 0.02)[:2].all()
        # The noiseless logistic is no upper bound at short times.
        assert (exact > noiseless)[0]
        assert not (exact > noiseless).all()
    # d^n E / dt^n at 0 from powers of the generator on x^p: p (s + (p - 1) c / 2 + ...) x^p - p x^(p + 1).
    s, c, s0 = 0.8, 0.36, 0.5

    def derivative(powers):
        out = {}
        for p, factor in powers.items():
            out[p] = out.get(p, 0) + factor * (2 * p * (s - c / 2) + 2 * p**2 * c)
            out[p + 1] = out.get(p + 1, 0) - factor * 2 * p
        return out

    series, powers, t = s0, {1: 1.0}, 0.02
    for order in range(1, 6):
        powers = derivative(powers)
        series += sum(f * s0**p for p, f in powers.items()) * t**order / math.factorial(order)
    np.testing.assert_allclose(mean(t, s, 0.01, 6.0, s0), series, rtol=3e-5)


@pytest.mark.thorough
def test_more_cells_and_steps_move_the_mean_by_less_than_promised():
    for arguments in ((6.0, 1.2, 0.01, 6.0, 0.5), (10.0, 0.2, 0.01, 7.7, 0.5), (0.4, 1.0, 0.01, 7.7, 2.0)):
        fine = mode_mean(*arguments, cells=6144, steps=600)
        np.testing.assert_allclose(mode_mean(*arguments), fine, atol=3e-5)


@pytest.mark.thorough
def test_orders_in_the_learning_rate_of_the_exact_stationary_law_of_discrete_steps():
    s, c, x = 1.0, 0.3, np.linspace(-9, 0.9, 700)
    u, etas, off = np.exp(x), np.array([0.056, 0.04, 0.028]), []
    for eta in etas:
        centre, width = u * (1 + eta * (s - u**2)), np.sqrt(eta * c) * u
        step = sum(np.exp(-(((sign * u[None, :] - centre[:, None]) / width[:, None]) ** 2) / 2) for sign in (1, -1))
        step = step * u[None, :] / width[:, None]
        step /= step.sum(1, keepdims=True)
        law = np.linalg.solve(step.T - np.eye(len(u)) + 1.0, np.ones(len(u)))
        exact = np.array([law @ u**2, law @ u**4])
        zeta = np.sqrt(c / eta)
        off.append([exact - mode_moments(s, eta, zeta), exact - mode_moments(s, eta, zeta, discrete=True)])
    slopes = np.polyfit(np.log(etas), np.log(np.abs(np.reshape(off, (3, 4)))), 1)[0]
    np.testing.assert_allclose(slopes, [1, 1, 2, 2], atol=0.3)


def test_after_the_drop_in_fifty_digits():
    for shape in (1e-3, 0.5, 4.0, 1e4):
        zeta = zeta_of(shape, 0.7, 0.01)
        times = np.array([0.0, 0.2, 1.5, 60.0])
        found = np.array(dropped(times, 0.7, 0.01, zeta))
        with mp.workdps(30):
            c = mp.mpf(0.01) * mp.mpf(zeta) ** 2
            k, s = mp.mpf(0.7) / c - mp.mpf(0.5), mp.mpf(0.7)
            for i, t in enumerate(map(mp.mpf, times)):

                def integrand(v, power, s=s, k=k, c=c, t=t):
                    start = c * mp.exp(v)
                    value = s / (1 + (s / start - 1) * mp.exp(-2 * s * t))
                    return value**power * mp.exp(k * v - mp.exp(v) - mp.loggamma(k))

                peak, width = mp.log(k + 1), 1 / mp.sqrt(k + 1)
                ends = [peak + x * width for x in (-160, -120, -70, -25, -8, -3, 0, 3, 8, 14)]
                exact = [float(mp.quad(lambda v, p=p: integrand(v, p), ends)) for p in (1, 2)]
                np.testing.assert_allclose(found[:, i], exact, rtol=1e-10)
    np.testing.assert_allclose(np.array(dropped(0.0, 0.9, 0.01, 9.0)), mode_moments(0.9, 0.01, 9.0), rtol=1e-13)
    np.testing.assert_allclose(dropped(100.0, 0.9, 0.01, 5.0), [0.9, 0.81], rtol=1e-6)
    np.testing.assert_allclose(dropped(2.0, 0.9, 0.01, 0.0), [0.9, 0.81], rtol=1e-13)
    np.testing.assert_array_equal(dropped(2.0, 0.3, 0.01, 9.0), [0.0, 0.0])


def test_hold_time_at_its_edges():
    np.testing.assert_array_equal(hold_time(np.array([0.5, 0.7]), 0.01, 10, 30), [0, 0])
    np.testing.assert_array_equal(hold_time(0.2, 0.01, 10, 30, np.array([0.004, 0.006])), [np.inf, np.inf])
    np.testing.assert_allclose(hold_time(0.2, 0.01, 10, 30, 0.001), 60, rtol=1e-13)


@pytest.mark.thorough
def test_gradients_float32_and_batches():
    check_grads(lambda *a: dropped(*a), (0.7, 0.9, 0.02, 5.0), 1, modes=["rev"], rtol=1e-5)
    both_sides = np.array([0.2, 0.9])
    check_grads(lambda *a: bound(*a), (0.7, both_sides, 0.02, 6.0, 0.3), 1, modes=["rev"], rtol=1e-5)
    at_threshold = jax.grad(bound, 1)(0.7, 0.5, 0.25, 2.0, 0.3)
    near = (bound(0.7, 0.5 + 1e-5, 0.25, 2.0, 0.3) - bound(0.7, 0.5 - 1e-5, 0.25, 2.0, 0.3)) / 2e-5
    np.testing.assert_allclose(at_threshold, near, rtol=1e-6)
    assert np.isfinite(jax.grad(lambda z: sum(dropped(1.0, 0.4, 0.01, z)))(9.0))
    assert np.isfinite(jax.grad(lambda x: mode_density(x, 0.9, 0.01, 5.0))(0.0))
    single = [np.float32(x) for x in (1.0, 0.7, 0.01, 8.0)]
    for moment, printed in zip(dropped(*single), (0.4141130609, 0.2383930213), strict=True):
        assert moment.dtype == np.float32
        np.testing.assert_allclose(moment, printed, rtol=1e-5)
    s = jnp.array([0.2, 0.6, 0.9])
    mapped = jax.vmap(lambda x: bound(1.0, x, 0.01, 8.0, 0.2))(s)
    np.testing.assert_allclose(mapped, bound(1.0, s, 0.01, 8.0, 0.2), rtol=1e-14)
    assert bound(np.ones((2, 1)), np.ones((1, 3)), 0.01, 8.0, 0.2).shape == (2, 3)


def refuses(call, words):
    with pytest.raises(ValueError, match="^" + re.escape(words) + "$"):
        call()


def test_bad_arguments_are_named():
    for f in (
        lambda e, z: soft_threshold(e, z),
        lambda e, z: mode_moments(1.0, e, z),
        lambda e, z: hold_time(1, e, z, 1),
    ):
        refuses(lambda f=f: f(0.0, 1.0), "`eta` must be positive, but got 0.")
        refuses(lambda f=f: f(0.1, -1.0), "`zeta` must be zero or positive, but got -1.")
    refuses(lambda: mode_moments([0.3, 0.0], 0.1, 1.0), "`s` must be positive, but got 0.")
    refuses(lambda: mode_exponent(np.nan, 0.1, 1.0), "`s` must be finite, but got nan.")
    words = "`s` must be above the soft threshold, or the mode is collapsed, but got 0.4."
    refuses(lambda: mode_density(0.1, [0.9, 0.4], 0.01, 10.0), words)
    refuses(lambda: mode_density(0.1, 0.9, 0.01, 0.0), "`zeta` must be positive, but got 0.")
    refuses(lambda: mode_density(-0.1, 0.9, 0.01, 1.0), "`s_hat` must be zero or positive, but got -0.1.")
    refuses(lambda: mode_mean_bound(1.0, 0.9, 0.01, 1.0, 0.0), "`s0` must be positive, but got 0.")
    refuses(lambda: mode_mean_bound(-1.0, 0.9, 0.01, 1.0, 0.1), "`t` must be zero or positive, but got -1.")
    refuses(lambda: moments_after_drop(-1.0, 0.9, 0.01, 1.0), "`t` must be zero or positive, but got -1.")
    refuses(lambda: hold_time(0.2, 0.1, 1.0, -1.0), "`duration` must be zero or positive, but got -1.")
    refuses(lambda: hold_time(0.2, 0.1, 1.0, 1.0, -1.0), "`eta_after` must be zero or positive, but got -1.")
