"""Collapse in time: the Fokker-Planck equation, the hard wall, first passages and the solution along a path."""

import re

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import special, stats

from theory.stochastic_collapse import (
    collapse_fraction,
    fokker_planck,
    mean_first_passage,
    quartic_distribution,
    quartic_moment,
    quartic_path,
)
from theory.stochastic_collapse.passage import OVERSHOOT, exponential_integral

law = jax.jit(fokker_planck, static_argnames=("start", "cells", "steps"))
share = jax.jit(collapse_fraction, static_argnames=("method", "start", "cells", "steps"))
passage = jax.jit(mean_first_passage)
path = jax.jit(quartic_path)
FINE = {"cells": 8192, "steps": 800}


def slope(x, y):
    return np.polyfit(np.log(x), np.log(np.abs(y)), 1)[0]


def test_printed_values():
    found = passage(1e-2, 1.0, 1.0, jnp.array([1.0, np.sqrt(2), 1.6]))
    np.testing.assert_allclose(found, [167.5539886, 11.17254766, 6.574155213], rtol=5e-10)
    found = [
        share(t, eps, 1.0, zeta, method="reflected") for t, eps, zeta in ((40.0, 1e-6, np.sqrt(2)), (20.0, 1e-10, 2.0))
    ]
    np.testing.assert_allclose(found, [0.1224379545, 0.4428689739], atol=6e-11)
    np.testing.assert_allclose(share(20.0, 1e-10, 1.0, 2.0, 1.0), 0.426382, atol=3e-5)
    x, mass = law(1.5, np.sqrt(0.5), 0.8, 0.6)
    np.testing.assert_allclose(jnp.sum(mass * jnp.exp(2 * x)), 0.64664, atol=5e-5)


def test_far_below_the_well_it_is_brownian_motion_with_drift():
    t, mu, zeta = np.array([0.1, 1.0, 6.0]), np.array([0.4, 1.0, -0.3]), np.array([0.5, 1.5, 2.0])
    x, mass = law(t, 1e-20, mu, zeta)
    assert x.shape == mass.shape == (3, 2048)
    middle = np.log(1e-20) + (mu - zeta**2 / 2) * t
    h = x[:, 1] - x[:, 0]
    for k in range(3):
        width = zeta[k] * np.sqrt(t[k])
        exact = stats.norm.cdf((x[k] + h[k] / 2 - middle[k]) / width)
        np.testing.assert_allclose(jnp.cumsum(mass[k]), exact, atol=5e-5 + 0.03 * (h[k] / width) ** 2)
    np.testing.assert_allclose(jnp.sum(mass, -1), 1, rtol=1e-10)
    # The neighbouring formula: a drift without the Ito term.
    assert np.max(np.abs(jnp.sum(mass * x, -1) - np.log(1e-20) - mu * t)) > 1


def test_in_the_end_it_is_the_stationary_law():
    for mu, zeta in ((1.5, 0.1), (1.0, 0.8), (1.0, 1.2)):
        x, mass = law(2000.0, 1.0, mu, zeta)
        for q in (1.0, 2.0, 4.0):
            mean = jnp.sum(mass * jnp.exp(q * x))
            np.testing.assert_allclose(mean, quartic_moment(q, mu, zeta), rtol=1e-6)
    for eps in (0.05, 0.3):
        np.testing.assert_allclose(share(2000.0, eps, 1.0, 1.2, 1.0), quartic_distribution(eps, 1.0, 1.2), atol=1e-4)


@pytest.mark.thorough
def test_second_order_in_cells_and_in_steps():
    wall = {"lowest": -60.0, "highest": 3.0}

    def mean(**sizes):
        x, mass = law(4.0, 1.0, 1.0, 2.0, **wall, **sizes)
        return jnp.sum(mass * jnp.tanh(x / 5))

    # Sizes at which the start, which does not change, is resolved.
    cells = np.array([2048, 4096, 8192, 16384])
    errors = np.array([mean(cells=int(c), steps=100) for c in cells]) - mean(cells=65536, steps=100)
    assert abs(slope(1 / cells[:3], errors[:3]) - 2) < 0.2
    steps = np.array([10, 20, 40, 80])
    errors = np.array([mean(cells=4096, steps=int(s)) for s in steps]) - mean(cells=4096, steps=1600)
    assert abs(slope(1 / steps, errors) - 2) < 0.2


@pytest.mark.thorough
def test_default_sizes_hold_fractions_to_four_digits():
    for t, eps, mu, zeta, theta0, start in (
        (20.0, 1e-10, 1.0, 2.0, 1.0, "point"),
        (25.0, 1e-15, 1.5, 2.5, 2.0, "normal"),
        (50.0, 1e-4, 1.0, 1.3, 3.0, "point"),
        (5.0, 1e-8, 1.5, 2.5, 10.0, "point"),
    ):
        usual = share(t, eps, mu, zeta, theta0, start=start)
        np.testing.assert_allclose(
            usual, share(t, eps, mu, zeta, theta0, start=start, cells=8192, steps=800), atol=1e-4
        )


@pytest.mark.thorough
def test_starts_are_a_point_and_a_normal_law():
    for theta0 in (1e-6, 0.5, 30.0):
        x, mass = law(0.0, theta0, 1.0, 1.0)
        np.testing.assert_allclose(jnp.sum(mass * x), np.log(theta0), atol=0.01)
        assert jnp.max(mass) > 0.49
    x, mass = law(0.0, 2.0, 1.0, 1.0, start="normal", cells=8192)
    edges = np.exp(x + (x[1] - x[0]) / 2)
    np.testing.assert_allclose(jnp.cumsum(mass)[:-1], special.erf(edges / 2**1.5)[:-1], rtol=1e-10, atol=1e-12)
    # A normal start is the average of points.
    points = jnp.array(0.7 * stats.halfnorm.ppf((np.arange(100) + 0.5) / 100))
    each = share(3.0, 1e-3, 1.0, 2.0, points, cells=512, steps=50)
    np.testing.assert_allclose(share(3.0, 1e-3, 1.0, 2.0, 0.7, start="normal"), jnp.mean(each), atol=3e-3)
    assert abs(share(3.0, 1e-3, 1.0, 2.0, 0.7) - jnp.mean(each)) > 0.01


def test_the_hard_wall_by_many_digits():
    cases = [
        (t, eps, mu, zeta)
        for mu, zeta in ((1.0, 2.0), (1.0, np.sqrt(2)), (1.0, 1.41), (1.0, 1.0), (0.3, 5.0))
        for t, eps in ((1e-3, 0.1), (2.0, 0.3), (40.0, 1e-12), (900.0, 1e-100))
    ]
    found = share(*(jnp.array(v) for v in zip(*cases, strict=True)), method="reflected")
    with mp.workdps(60):
        for value, (t, eps, mu, zeta) in zip(found, cases, strict=True):
            t, eps, mu, zeta = map(mp.mpf, (t, eps, mu, zeta))
            X, nu, spread = mp.log(mp.sqrt(mu) / eps), zeta**2 / 2 - mu, zeta * mp.sqrt(t)
            truth = mp.ncdf((nu * t - X) / spread)
            truth += mp.exp(2 * nu * X / zeta**2) * mp.ncdf((-X - nu * t) / spread)
            if truth > 1e-290:
                np.testing.assert_allclose(value, float(truth), rtol=1e-10)
    critical = special.erfc(np.log(1e6) / np.sqrt(2) / np.sqrt(2 * 40))
    np.testing.assert_allclose(share(40.0, 1e-6, 1.0, np.sqrt(2), method="reflected"), critical, rtol=1e-12)
    assert share(0.0, 0.1, 1.0, 2.0, method="reflected") == 0


def test_the_hard_wall_is_a_constant_shift_away_from_the_quartic():
    # At ln eps = -30, -60, -120 and the times at which half has collapsed.
    depth = np.array([30.0, 60.0, 120.0])
    wall = share(depth, jnp.exp(-depth), 1.0, 2.0, method="reflected")
    well = share(depth, jnp.exp(-depth), 1.0, 2.0, cells=8192)
    gap = (wall - well) * np.sqrt(depth)
    assert ((wall - well) > 0).all()
    np.testing.assert_allclose(gap, gap[-1], rtol=0.1)
    assert wall[-1] - well[-1] < 0.02


def test_the_exponential_integral_on_both_sides_of_one():
    log_z = np.concatenate([np.linspace(-80, 6, 801), [-1e-12, 0.0, 1e-12]])
    truth = special.exp1(np.exp(log_z))
    found = jax.jit(exponential_integral)(log_z)
    np.testing.assert_allclose(found[truth > 1e-290], truth[truth > 1e-290], rtol=1e-13)


@pytest.mark.thorough
def test_first_passages_are_the_double_integral():
    mu = 1.0
    for zeta in (0.6, 1.0, np.sqrt(2), 1.4142, 1.6, 3.0):
        for eps, theta0 in ((0.5, 1.0), (1e-3, 0.3), (1e-6, 4.0), (0.9, 0.95)):
            with mp.workdps(25):
                a, square = 2 * mp.mpf(mu) / mp.mpf(zeta) ** 2 - 1, mp.mpf(zeta) ** 2

                def inner(v, a=a):
                    return mp.gammainc(a / 2, v) if abs(a) > 1e-12 else mp.e1(v)

                def integrand(x, a=a, square=square, inner=inner):
                    v = mp.exp(2 * x) / square
                    return mp.exp(v) * v ** (-a / 2) * inner(v) / square

                low, high = mp.log(mp.mpf(eps)), mp.log(mp.mpf(theta0))
                truth = mp.quad(integrand, mp.linspace(low, high, 9))
            np.testing.assert_allclose(passage(eps, theta0, mu, zeta), float(truth), rtol=1e-10)


def test_steps_see_a_lower_level():
    lower = 0.1 * np.exp(-0.5825971579 * 1.5 * 0.2)
    np.testing.assert_allclose(passage(0.1, 1.0, 1.0, 1.5, seen_every=0.04), passage(lower, 1.0, 1.0, 1.5), rtol=1e-9)
    with mp.workdps(20):
        np.testing.assert_allclose(OVERSHOOT, float(-mp.zeta(0.5) / mp.sqrt(2 * mp.pi)), rtol=1e-15)


@pytest.mark.thorough
def test_first_passages_solve_their_equation_and_have_their_limits():
    def of_log(x, mu, zeta):
        return mean_first_passage(1e-3, jnp.exp(x), mu, zeta)

    first, second = (jax.jit(f) for f in (jax.grad(of_log), jax.grad(jax.grad(of_log))))
    for mu, zeta in ((1.0, 1.0), (1.0, np.sqrt(2)), (1.0, 2.0), (-0.5, 1.0)):
        for x in (-3.0, 0.2, 1.5):
            left = zeta**2 / 2 * second(x, mu, zeta) + (mu - zeta**2 / 2 - np.exp(2 * x)) * first(x, mu, zeta)
            np.testing.assert_allclose(left, -1, rtol=1e-8)
        assert passage(1e-3, 1e-3 * (1 + 1e-9), mu, zeta) < 1e-5 * (1 + passage(1e-3, 1.0, mu, zeta))

    eps = 10.0 ** -np.array([20.0, 40.0, 80.0, 160.0])
    collapsed = passage(eps, 1.0, 1.0, 2.0) / -np.log(eps)
    np.testing.assert_allclose(collapsed, 1, atol=0.04)
    assert abs(collapsed[-1] - 1) < 0.005
    critical = np.sqrt(passage(eps, 1.0, 1.0, np.sqrt(2)))
    np.testing.assert_allclose(np.diff(critical) / np.diff(-np.log(eps)), 1 / np.sqrt(2), rtol=0.01)
    live = np.log(passage(eps, 1.0, 1.0, 1.2))
    np.testing.assert_allclose(np.diff(live) / np.diff(-np.log(eps)), 2 / 1.44 - 1, rtol=1e-3)


def test_the_path_is_the_formula_and_underflows_nowhere():
    rng = np.random.default_rng(0)
    times = np.linspace(0.0, 3.0, 301)
    W = np.concatenate([np.zeros((4, 1)), np.cumsum(rng.normal(size=(4, 300)) / 10, 1)], 1)
    theta0, mu, zeta = np.array([0.1, 1.0, 2.0, 3.0]), 1.5, 0.7
    M = np.exp((2 * mu - zeta**2) * times + 2 * zeta * W)
    area = np.concatenate([np.zeros((4, 1)), np.cumsum((M[:, 1:] + M[:, :-1]) / 2 * 0.01, 1)], 1)
    square = theta0[:, None] ** 2 * M / (1 + 2 * theta0[:, None] ** 2 * area)
    found = path(theta0, W, times, mu, zeta)
    np.testing.assert_allclose(found, np.log(square) / 2, atol=1e-13)
    # Without noise it is the logistic curve, to second order in the spacing.
    spacing, errors = 3.0 / np.array([60, 120, 300]), []
    for h in spacing:
        t = np.linspace(0.0, 3.0, round(3.0 / h) + 1)
        exact = mu / (1 + (mu / 0.01 - 1) * np.exp(-2 * mu * t))
        errors.append(np.abs(path(0.1, 0 * t, t, mu, 0.0) - np.log(exact) / 2).max())
    assert abs(slope(spacing, errors) - 2) < 0.1
    deep = path(np.float32(1), np.float32(W[0]), np.float32(times), np.float32(-90), np.float32(1))
    assert deep.dtype == np.float32
    np.testing.assert_allclose(deep[-1], path(1.0, W[0], times, -90.0, 1.0)[-1], rtol=1e-5)


@pytest.mark.thorough
def test_gradients_and_batches():
    check_grads(passage, (0.1, 1.0, 1.0, 1.3), order=1, modes=["rev"])
    check_grads(lambda *x: share(*x, method="reflected"), (2.0, 0.1, 1.0, 1.6), order=1, modes=["rev"])
    small = {"cells": 256, "steps": 20}
    check_grads(lambda *x: share(2.0, 0.1, *x, 1.0, **small), (1.0, 1.6), order=1, modes=["rev"])
    single = share(np.float32(20), np.float32(1e-10), np.float32(1), np.float32(2), np.float32(1))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, 0.426382, atol=2e-3)
    np.testing.assert_allclose(passage(*np.float32([1e-2, 1, 1, 1.6])), 6.574155213, rtol=1e-4)
    t = jnp.array([1.0, 4.0])
    mapped = jax.vmap(lambda t: collapse_fraction(t, 0.1, 1.0, 2.0, cells=512, steps=50))(t)
    np.testing.assert_allclose(mapped, share(t, 0.1, 1.0, 2.0, cells=512, steps=50), rtol=1e-9)


def refuses(call, words):
    with pytest.raises(ValueError, match="^" + re.escape(words) + "$"):
        call()


def test_bad_arguments_are_named():
    refuses(lambda: fokker_planck(-1.0, 1.0, 1.0, 1.0), "`t` must be zero or positive, but got -1.")
    refuses(lambda: fokker_planck(np.inf, 1.0, 1.0, 1.0), "`t` must be finite, but got inf.")
    refuses(lambda: fokker_planck(1.0, 1.0, 1.0, 0.0), "`zeta` must be positive, but got 0.")
    refuses(lambda: fokker_planck(1.0, 1.0, 1.0, 1.0, lowest=2.0), "`lowest` must be below ln(theta0), but got 2.")
    refuses(lambda: fokker_planck(1.0, 1.0, 1.0, 1.0, highest=-2.0), "`highest` must be above ln(theta0), but got -2.")
    words = "`start` must be one of point, normal, but got law."
    refuses(lambda: fokker_planck(1.0, 1.0, 1.0, 1.0, start="law"), words)
    words = "`method` must be one of fokker_planck, reflected, but got mirror."
    refuses(lambda: collapse_fraction(1.0, 0.1, 1.0, 1.0, method="mirror"), words)
    refuses(lambda: collapse_fraction(1.0, 1.5, 1.0, 1.0), "`eps` must be below the start, but got 1.5.")
    refuses(lambda: collapse_fraction(1.0, 0.1, -1.0, 1.0), "`mu` must be positive, but got -1.")
    refuses(lambda: collapse_fraction(1.0, 0.1, 1.0, 0.0, method="reflected"), "`zeta` must be positive, but got 0.")
    refuses(lambda: mean_first_passage(2.0, 1.0, 1.0, 1.0), "`eps` must be below theta0, but got 2.")
    words = "`seen_every` must be zero or positive, but got -1."
    refuses(lambda: mean_first_passage(0.1, 1.0, 1.0, 1.0, seen_every=-1.0), words)
    refuses(lambda: mean_first_passage(0.0, 1.0, 1.0, 1.0), "`eps` must be positive, but got 0.")
    t, W = np.arange(3.0), np.zeros(3)
    refuses(lambda: quartic_path(0.0, W, t, 1.0, 1.0), "`theta0` must be positive, but got 0.")
    refuses(lambda: quartic_path(1.0, W, t + 1, 1.0, 1.0), "`times` must be 0 at first, but got 1.")
    refuses(lambda: quartic_path(1.0, W, -t, 1.0, 1.0), "`times` must be rising, but got -1.")
    words = "`wiener` must end with the shape of the times, (3,), but got (2,)."
    refuses(lambda: quartic_path(1.0, W[:2], t, 1.0, 1.0), words)
