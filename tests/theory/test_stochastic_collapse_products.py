"""Products of random factors: many digits, every regime edge, the universal line, brute-force averages, momentum."""

import itertools
import re

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from jax.test_util import check_grads

from theory.stochastic_collapse import (
    bounded_exponents,
    bounded_phase,
    bounded_phase_code,
    collapse_boundary,
    collapse_window,
    critical_noise,
    discrete_exponent,
    effective_exponent,
    elog_abs_normal,
    exponent_expansion,
    finite_data_exponent,
    lyapunov_exponent,
    momentum_exponent,
    near_zero_exponent,
)
from theory.stochastic_collapse.products import FAR
from theory.stochastic_collapse.windows import STEEPEST, STEEPEST_REACH, TIP_MEAN, TIP_RATIO


def compiled(formula):
    """The formula jitted, for numbers and lists too."""
    fast = jax.jit(formula)
    return lambda *arguments: fast(*map(jnp.asarray, arguments))


growth, mean_log, near_zero, noise, window = map(
    compiled, (discrete_exponent, elog_abs_normal, near_zero_exponent, critical_noise, collapse_window)
)


def exact(m, s):
    """E ln |N(m, s^2)| by mpmath."""
    m, s = mp.mpf(m), mp.mpf(s)
    z = m * m / (2 * s * s)
    return mp.log(s) - (mp.euler + mp.log(2)) / 2 + z * mp.hyp2f2(1, 1, mp.mpf(3) / 2, 2, -z)


def exact_moment(m, s, q):
    m, s = mp.mpf(m), mp.mpf(s)
    z = m * m / (2 * s * s)
    return (2 * s * s) ** (q / 2) / mp.sqrt(mp.pi) * mp.gamma((1 + q) / 2) * mp.hyp1f1(-q / 2, mp.mpf(1) / 2, -z)


def slope(x, y):
    return np.polyfit(np.log(x), np.log(np.abs(y)), 1)[0]


def test_printed_values():
    found = mean_log([1.02, 0.7, 1.0, 0.0], [0.5, 2.0, 0.1, 1.0])
    np.testing.assert_allclose(found, [-0.1474205554, 0.1179853970, -0.0050776417, -0.6351814227], atol=6e-11)
    np.testing.assert_allclose(window(-0.1, 1.0), [0.1937354310, 1.4020920362], atol=6e-11)
    found = noise([1.0, 0.5], [-0.15, -0.2], [1, 4])
    np.testing.assert_allclose(found, [0.5117127962, 1.6495834819], atol=6e-11)
    np.testing.assert_allclose(near_zero(0.3, -0.5, 1.5), 0.2032021347, atol=6e-11)
    np.testing.assert_allclose(bounded_exponents(1.0, 0.5, 1.0, 1.0), [0.1691936654, -0.5152206938], atol=6e-11)
    np.testing.assert_allclose(momentum_exponent(0.002, 0.5, -0.4, 16.0), 0.0014692632, atol=6e-11)


def test_the_mean_logarithm_to_fourteen_digits_on_both_sides_of_the_switch():
    s = np.array([0.3, 1.0, 7.0])[:, None]
    near, far = np.linspace(0, FAR, 9), FAR * (1 + np.array([1e-12, 1e-3, 0.1, 1.0, 10.0]))
    m = s * np.concatenate([near, [FAR * (1 - 1e-12)], far, -near[1:], -far])
    with mp.workdps(60):
        truth = np.array([[float(exact(v, width)) for v in row] for row, (width,) in zip(m, s, strict=True)])
    np.testing.assert_allclose(mean_log(m, s), truth, rtol=1e-14, atol=1e-14)
    single = mean_log(m.astype(np.float32), s.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, truth, rtol=1e-5, atol=1e-6)
    # The edges: no noise, no mean, neither.
    found = mean_log([2.0, -3.0, 1e-200, 0.0, 0.0, 1e-9], [0.0, 0.0, 0.0, 2.0, 0.0, 1e-9])
    rest = float(exact(1, 1)) + np.log(1e-9)
    expected = [np.log(2.0), np.log(3.0), np.log(1e-200), np.log(2.0) - 0.6351814227307391, -np.inf, rest]
    np.testing.assert_allclose(found, expected, rtol=1e-14)


@pytest.mark.thorough
def test_gradients():
    for m, s in ((0.3, 0.7), (0.0, 1.0), (-1.2, 0.4), (FAR + 0.5, 1.0), (1.0, 0.01)):
        check_grads(mean_log, (m, s), order=2, modes=["rev"], rtol=1e-5)
    slopes = jax.jit(jax.grad(elog_abs_normal, (0, 1)))
    np.testing.assert_allclose(slopes(2.0, 0.0), [0.5, 0.0], atol=1e-15)
    np.testing.assert_allclose(slopes(0.0, 2.0), [0.0, 0.5], atol=1e-15)
    below, above = (jnp.array(slopes(FAR * (1 + sign * 1e-9), 1.0)) for sign in (-1, 1))
    np.testing.assert_allclose(below, above, rtol=1e-7)
    check_grads(lambda h, s: jnp.stack(window(h, s)), (-0.1, 1.1), order=1, modes=["rev"])
    check_grads(noise, (0.5, -0.3), order=1, modes=["rev"])
    check_grads(lambda h, s: near_zero(0.3, h, s), (-0.5, 1.5), order=1, modes=["rev"], rtol=1e-4)
    check_grads(lambda b, h: momentum_exponent(0.1, b, h, 2.0), (0.5, -0.3), order=1, modes=["rev"])
    mapped = jax.jit(jax.vmap(elog_abs_normal))(jnp.array([0.3, 20.0]), jnp.array([1.0, 1.0]))
    np.testing.assert_allclose(mapped, mean_log(np.array([0.3, 20.0]), 1.0), rtol=1e-14)


def test_small_steps_keep_their_relative_digits():
    for eta in (1e-8, 1e-4, 0.03, 0.3):
        for h, sigma, batch in ((-0.7, 0.1, 1), (0.4, 2.0, 3), (-0.5, 1.1, 2), (3.0, 0.0, 1)):
            with mp.workdps(60):
                e, q = mp.mpf(eta), mp.mpf(eta) * mp.mpf(sigma) / mp.sqrt(batch)
                m = 1 - e * mp.mpf(h)
                tails = [(q / m) ** (2 * n) * mp.fac2(2 * n - 1) / (2 * n) for n in range(1, 12)]
                truth = float(mp.log(m) - mp.fsum(tails)) if q * 12 < m else float(exact(m, q))
            np.testing.assert_allclose(growth(eta, h, sigma, batch), truth, rtol=1e-13)


def test_orders_of_the_expansion_and_of_the_sde():
    etas = 0.02 / 2.0 ** np.arange(4)
    gap = growth(etas, -0.5, 1.3, 2) - exponent_expansion(etas, -0.5, 1.3, 2)
    assert abs(slope(etas, gap) - 3) < 0.1
    assert abs(gap[-1]) < 1e-8
    # The SDE of a fixed noise amplitude, per unit time.
    for h, zeta in ((-0.2, 1.0), (0.5, 0.3)):
        gap = growth(etas, h, zeta / np.sqrt(etas)) / etas - lyapunov_exponent(h, zeta)
        assert abs(slope(etas, gap) - 1) < 0.1
        np.testing.assert_allclose(gap[-1] / etas[-1], -((h + zeta**2) ** 2) / 2 - zeta**4 / 4, rtol=0.02)
        wrong = growth(etas, h, zeta / np.sqrt(etas)) / etas - (-h - zeta**2 / 4)
        assert abs(slope(etas, wrong)) < 0.1


@pytest.mark.thorough
def test_finite_data_are_averaged_over_every_batch():
    h, eta = np.array([1.0, -2.0, 0.5, 0.5]), np.array([0.1, 0.3, 1.7])
    for batch in (1, 2, 3):
        ordered = np.array(list(itertools.product(range(4), repeat=batch)))
        means = h[ordered].mean(1)
        np.testing.assert_allclose(
            finite_data_exponent(eta, h, batch), np.log(np.abs(1 - eta[:, None] * means)).mean(1), rtol=1e-13
        )
        distinct = [len(set(b)) == batch for b in ordered.tolist()]
        means = means[distinct]
        np.testing.assert_allclose(
            finite_data_exponent(eta, h, batch, replace=False),
            np.log(np.abs(1 - eta[:, None] * means)).mean(1),
            rtol=1e-12,
        )
    # A full batch is gradient descent; an epoch of single samples is a deterministic product.
    np.testing.assert_allclose(finite_data_exponent(0.3, h, 4, replace=False), np.log(1 - 0.3 * h.mean()), rtol=1e-13)
    np.testing.assert_allclose(4 * finite_data_exponent(0.3, h), np.log(np.abs(np.prod(1 - 0.3 * h))), rtol=1e-13)
    assert finite_data_exponent(2.0, h) == -np.inf
    several = np.stack([h, h + 0.1, -h])
    np.testing.assert_allclose(
        jax.jit(finite_data_exponent, static_argnums=(2, 3))(eta, several, 2, False),
        [finite_data_exponent(e, row, 2, False) for e, row in zip(eta, several, strict=True)],
        rtol=1e-13,
    )
    # Many samples of a Gaussian law.
    quantiles = np.array([float(mp.sqrt(2) * mp.erfinv(2 * (k + 0.5) / 400 - 1)) for k in range(400)])
    np.testing.assert_allclose(finite_data_exponent(0.2, 0.5 + quantiles), growth(0.2, 0.5, 1.0), atol=3e-4)


def test_the_universal_line_and_its_tip():
    z = np.concatenate([np.linspace(-6, 6, 61), np.geomspace(6, 1e6, 9)])
    x, s = collapse_boundary(z)
    np.testing.assert_allclose(growth(1.0, -x, s), 0, atol=1e-14)
    # Relative to the terms that cancel, along the limit of small steps.
    far = z > 5
    np.testing.assert_allclose(2 * x[far] / s[far] ** 2, 1, rtol=0.1)
    assert np.all(np.abs(growth(1.0, -x[far], s[far])) < 1e-13 * x[far])
    with mp.workdps(30):
        dawson = lambda u: mp.sqrt(mp.pi) / 2 * mp.exp(-u * u) * mp.erfi(u)  # noqa: E731
        size = lambda u: mp.exp((mp.euler + mp.log(2)) / 2 - u * u * mp.hyp2f2(1, 1, 1.5, 2, -u * u))  # noqa: E731
        tip = mp.findroot(lambda u: 1 - 2 * u * dawson(u), 0.92)
        tangent = mp.findroot(lambda u: mp.sqrt(2) * size(u) - 2 * dawson(u), 1.2)
        m, at = mp.sqrt(2) * tangent * size(tangent), size(tangent)
        np.testing.assert_allclose([TIP_RATIO, TIP_MEAN], [float(tip), float(mp.sqrt(2) * tip * size(tip))], rtol=1e-15)
        np.testing.assert_allclose(STEEPEST, float((m - 1) / at), rtol=1e-15)
        np.testing.assert_allclose(STEEPEST_REACH, float(mp.hypot(m - 1, at)), rtol=1e-15)
    np.testing.assert_allclose([TIP_MEAN, STEEPEST], [1.2780776, 0.3281876], atol=6e-8)
    np.testing.assert_allclose(collapse_boundary(TIP_RATIO), [0.2780776, 0.9779237], atol=6e-8)
    np.testing.assert_allclose(collapse_boundary(0.0), [-1.0, 1.8873645], atol=6e-8)
    np.testing.assert_allclose(window(0.0, 1.0), [0.0, 1.5560365], atol=6e-8)
    np.testing.assert_allclose(growth(1.5560365, 0.0, 1.0), 0, atol=1e-7)


@pytest.mark.thorough
def test_windows_open_and_close_where_the_exponent_is_zero():
    h = np.array([-1e-6, -0.01, -0.1, -0.25, -0.328, 0.0, 0.2, 1.0, 30.0, 0.5])
    sigma = np.array([1.0] * 9 + [0.0])
    low, high = window(h, sigma)
    falling = h < 0
    assert np.all((low > 0) == falling)
    np.testing.assert_allclose(growth(high, h, sigma), 0, atol=3e-14)
    found = growth(low[falling], h[falling], 1.0)
    assert np.all(np.abs(found) < 1e-15)
    assert np.all(np.abs(found[:2]) < 1e-13 * low[:2] * np.abs(h[:2]))
    np.testing.assert_allclose(low[0], 2e-6, rtol=1e-5)
    np.testing.assert_allclose(high[-1], 4.0, rtol=1e-14)
    sides = np.array([low * 0.99, low * 1.01, high * 0.999, high * 1.001])
    signs = np.sign(growth(np.where(sides > 0, sides, 1e-3), h, sigma))
    np.testing.assert_array_equal(signs[1:], np.stack([-np.ones(10), -np.ones(10), np.ones(10)]))
    assert np.all(signs[0][falling] == 1)
    # A batch only divides the variance; scaling the curvatures scales the rates.
    np.testing.assert_allclose(window(-0.1, 2.0, 4), [low[2], high[2]], rtol=1e-13)
    np.testing.assert_allclose(window(-1.0, 10.0), [low[2] / 10, high[2] / 10], rtol=1e-13)
    assert collapse_window(-0.33, 1.0) is collapse_window(0.0, 0.0) is collapse_window(-0.1, 0.0) is None
    none = window(np.array([-0.33, 0.0, -1.0]), np.array([1.0, 0.0, 0.0]))
    assert np.isnan(none).all()


def test_the_critical_noise_is_the_smallest_root():
    eta, h = 0.5, np.array([-1e-9, -0.01, -0.3, -0.556, 4.2, 4.5])
    found = noise(eta, h)
    m, s = 1 - eta * h, eta * found
    np.testing.assert_allclose(growth(eta, h, found), 0, atol=1e-14)
    np.testing.assert_allclose(found[0] * eta, np.sqrt(2 * 0.5e-9), rtol=1e-7)
    assert np.all(np.abs(m) / (s * np.sqrt(2)) > TIP_RATIO)
    assert np.all(growth(eta, h, 0.999 * found) > 0)
    assert np.all(growth(eta, h, 1.001 * found)[1:3] < 0)
    np.testing.assert_array_equal(noise(eta, [0.0, 1.0, 4.0]), 0.0)
    assert np.isnan(noise(1.0, [-0.2781, 2.2781])).all()
    np.testing.assert_allclose(noise(eta, -0.3, 4), 2 * found[2], rtol=1e-14)


def test_the_density_near_zero():
    switch = [(1.0, -0.75 / r**2, (1 + 0.75 / r**2) / r) for r in (FAR * (1 - 1e-9), FAR * (1 + 1e-9))]
    cases = np.array([(0.3, -0.5, 1.5), (1.0, -0.1, 0.4), (2.0, 0.1, 1.2), (1.0, -1.0, 2.4), (1.0, 3.0, 0.6), *switch])
    for eta, h, sigma, found in zip(*cases.T, near_zero(*cases.T), strict=True):
        with mp.workdps(40):
            m, s = 1 - mp.mpf(eta) * mp.mpf(h), mp.mpf(eta) * mp.mpf(sigma)
            a = mp.findroot(
                lambda a, m=m, s=s: mp.log(exact_moment(m, s, -a)) / a, (0.001, 1 - mp.mpf(10) ** -20),
                solver="anderson", maxsteps=200,
            )  # fmt: skip
        np.testing.assert_allclose(found, float(a), rtol=1e-10)
    # Small steps: the continuous-time density. Little noise: squeezed against one.
    etas = 0.01 / 2.0 ** np.arange(4)
    sigma = np.sqrt(2 * 0.5 / (etas * 1.4))
    assert abs(slope(etas, near_zero(etas, -0.5, sigma) - 0.4) - 1) < 0.1
    np.testing.assert_allclose(near_zero(0.1, -1.0, 0.1), 1, rtol=1e-14)
    np.testing.assert_allclose(near_zero(0.3, -0.5, 3.0, 4), near_zero(0.3, -0.5, 1.5), rtol=1e-13)
    found = near_zero(jnp.array([0.3, 0.3]), jnp.array([-0.5, 0.5]), jnp.array([1.5, 1.5]))
    np.testing.assert_array_equal(np.isnan(found), [False, True])


def test_phases_of_the_bounded_model():
    cases = [(0.3, 0.5, 2.5, 1.0), (1.0, 0.5, 1.0, 1.0), (1.0, 0.5, 3.0, 1.0), (0.3, 0.5, 2.5, -1.0)]
    words = ["collapsed", "live", "diverged", "bistable"]
    assert [bounded_phase(*case) for case in cases] == words
    columns = np.array(cases).T
    assert bounded_phase(*columns).tolist() == words
    np.testing.assert_array_equal(jax.jit(bounded_phase_code)(*columns), range(4))


def stationary_exponent(d, v, beta, points=400):
    """Exponent of heavy ball from the stationary law of rho = z / (z + beta p / (1 - beta)), on a grid.

    With the effective step e: rho' = (1 - beta + beta rho - (1 - beta) e h rho) / (1 - e h rho), e h normal.
    """
    width = 9 * np.sqrt(v / (1 - beta**2)) * beta
    x = 1 + np.linspace(-width, width, points)
    now, then = x[:, None], x[None, :]
    slope = 1 - beta - then
    u = (1 - beta + beta * now - then) / (now * slope)  # the e h that leads from one to the other
    jacobian = np.abs(-1 / (now * slope) + u / slope)
    kernel = np.exp(-((u - d) ** 2) / (2 * v)) / np.sqrt(2 * np.pi * v) * jacobian * (x[1] - x[0])
    law = np.ones(points) / points
    for _ in range(round(45 / (1 - beta))):
        law = law @ kernel
        law /= law.sum()
    return law @ np.asarray(mean_log(1 - d * x, np.sqrt(v) * x))


def test_momentum_is_expanded_to_second_order():
    scales = 0.01 / 2.0 ** np.arange(4)
    for beta in (0.4, 0.8):
        for drift in (-0.3, 0.2):
            d, v = drift * scales * (1 - beta), scales * (1 - beta)
            variance = v / (0.1 / (1 - beta)) ** 2
            arguments = (0.1, beta, d * (1 - beta) / 0.1, variance)
            law = np.array([stationary_exponent(*x, beta) for x in zip(d, v, strict=True)])
            assert abs(slope(scales, momentum_exponent(*arguments) - law) - 3) < 0.15
            assert abs(slope(scales, effective_exponent(*arguments) - law) - 2) < 0.15
            assert abs(momentum_exponent(*arguments) - law)[-1] < 1e-2 * abs(effective_exponent(*arguments) - law)[-1]
    etas = 0.02 / 2.0 ** np.arange(4)
    gap = momentum_exponent(etas, 0.0, -0.5, 1.3 / etas) - growth(etas, -0.5, np.sqrt(1.3 / etas))
    assert abs(slope(etas, gap) - 3) < 0.1


def refuses(call, words):
    with pytest.raises(ValueError, match="^" + re.escape(words) + "$"):
        call()


def test_bad_arguments_are_named():
    for f in (discrete_exponent, exponent_expansion, near_zero_exponent):
        refuses(lambda f=f: f(0.0, -0.1, 1.0), "`eta` must be positive, but got 0.")
        refuses(lambda f=f: f(0.1, np.nan, 1.0), "`mean_curvature` must be finite, but got nan.")
        refuses(lambda f=f: f(0.1, 0.1, -1.0), "`std_curvature` must be zero or positive, but got -1.")
        for batch in (0, 1.5):
            words = f"`batch` must be a whole number not below 1, but got {batch:g}."
            refuses(lambda f=f, batch=batch: f(0.1, 0.1, 1.0, batch), words)
    refuses(lambda: collapse_window(0.1, -1.0), "`std_curvature` must be zero or positive, but got -1.")
    refuses(lambda: critical_noise(-1.0, 0.1), "`eta` must be positive, but got -1.")
    refuses(lambda: elog_abs_normal(1.0, -0.1), "`s` must be zero or positive, but got -0.1.")
    refuses(lambda: lyapunov_exponent(1.0, -0.1), "`noise` must be zero or positive, but got -0.1.")
    refuses(lambda: bounded_phase(1.0, np.inf, 1.0, 1.0), "`mu` must be finite, but got inf.")
    refuses(lambda: bounded_exponents(1.0, 0.5, -1.0, 1.0), "`sigma` must be zero or positive, but got -1.")
    refuses(lambda: momentum_exponent(0.1, 1.0, 0.1, 1.0), "`beta` must be zero or positive, and below 1, but got 1.")
    refuses(lambda: momentum_exponent(0.1, 0.5, 0.1, -1.0), "`variance` must be zero or positive, but got -1.")
    words = "`discrete_exponent` must be positive for a density near the origin, but got -0.404699."
    refuses(lambda: near_zero_exponent(0.3, 0.5, 2.0), words)
    h = np.ones(30)
    words = "`batch` must be at most the 30 samples if none is drawn twice, but got 31."
    refuses(lambda: finite_data_exponent(0.1, h, 31, replace=False), words)
    words = "`batch` must be small enough to leave at most 100000 different batches of 30 samples, but got 10."
    refuses(lambda: finite_data_exponent(0.1, h, 10), words)
    refuses(
        lambda: finite_data_exponent(0.1, 2.0), "`curvatures` must have a last axis over samples, but got a number."
    )
