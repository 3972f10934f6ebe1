"""The quartic double well in its stationary law: many digits, both sides of every line, and what is refused."""

import re

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from jax.test_util import check_grads

from theory.stochastic_collapse import (
    quartic_distribution,
    quartic_modes,
    quartic_moment,
    quartic_of_steps,
    quartic_phase,
    quartic_phase_code,
    quartic_stationary_density,
)

density, within, moment = (
    jax.jit(f) for f in (quartic_stationary_density, quartic_distribution, quartic_moment)
)  # fmt: skip
# a = 2 mu / zeta^2 - 1 from 499 down to 1e-5, with both sides of the line a = 1.
MU, ZETA = 1.3, np.sqrt(2.6 / (1 + np.array([499.0, 19.0, 3.0, 1 + 1e-9, 1 - 1e-9, 0.4, 0.01, 1e-5])))
THETA = np.array([1e-30, 1e-6, 0.05, 0.7, 1.1, 1.2, 2.5])


def exact(theta, zeta):
    """a, the density and the distribution by mpmath."""
    theta, zeta = mp.mpf(theta), mp.mpf(zeta)
    a = 2 * mp.mpf(MU) / zeta**2 - 1
    p = theta ** (a - 1) * mp.exp(-((theta / zeta) ** 2)) / zeta**a / mp.gamma(a / 2)
    return a, p, mp.gammainc(a / 2, 0, (theta / zeta) ** 2, regularized=True)


def test_printed_values():
    np.testing.assert_allclose(density(jnp.array([0.2, -1.1]), 1.2, 0.9), [0.2457681085, 0.2993319842], atol=6e-11)
    np.testing.assert_allclose(moment(1.0, 1.2, 0.9), 0.7884934891, atol=6e-11)
    np.testing.assert_allclose(within(0.05, 1.0, 1.3), 0.5761135178, atol=6e-11)


def test_fifty_digits_on_both_sides_of_every_line():
    theta, zeta = (jnp.array(v) for v in np.meshgrid(THETA, ZETA))
    found_p, found_f = density(theta, MU, zeta), within(theta, MU, zeta)
    q = np.array([-0.5, 1.0, 2.0, 4.5])
    found_m = moment(jnp.array(q)[None, :], MU, jnp.array(ZETA)[:, None])
    with mp.workdps(50):
        for i, z in enumerate(ZETA):
            for k, x in enumerate(THETA):
                a, p, F = exact(x, z)
                # Rounding of a is felt ln(theta) times, and as the square root of the peak's height.
                rtol = 1e-12 * (2 + float(a))
                if p > 1e-290:
                    np.testing.assert_allclose(found_p[i, k], float(p), rtol=rtol)
                if F > 1e-290:
                    np.testing.assert_allclose(found_f[i, k], float(F), rtol=rtol)
            for k, order in enumerate(q):
                if a + order > 0:
                    truth = mp.mpf(z) ** order * mp.gamma((a + order) / 2) / mp.gamma(a / 2)
                    np.testing.assert_allclose(found_m[i, k], float(truth), rtol=1e-12 * (1 + 1 / float(a)))
                else:
                    assert found_m[i, k] == np.inf


def test_moments_and_distribution_are_those_of_the_density():
    for zeta in (0.5, 0.9, 1.2):
        edges = jnp.linspace(np.log(1e-12), np.log(6.0), 60_001)
        theta = jnp.exp(edges)
        weight = 2 * density(theta, 1.0, zeta) * theta
        total = jnp.trapezoid(weight, edges) + within(theta[0], 1.0, zeta)
        np.testing.assert_allclose(total, 1, rtol=1e-8)
        np.testing.assert_allclose(jnp.trapezoid(weight * theta**2, edges), 1 - zeta**2 / 2, rtol=1e-8)
    np.testing.assert_allclose(moment(2.0, MU, jnp.array(ZETA)), MU - ZETA**2 / 2, rtol=1e-9)
    slope = jax.grad(quartic_distribution)(0.7, 1.0, 0.9)
    np.testing.assert_allclose(slope, 2 * density(0.7, 1.0, 0.9), rtol=1e-12)
    assert within(jnp.inf, 1.0, 0.9) == 1
    # The neighbouring formula, without the Ito term in a, is no density of this variance.
    assert abs(moment(2.0, 1.0, 0.9) - 1.0) > 0.4


def test_phases_are_told_by_the_density():
    mu = 0.7
    for factor, word, at_zero in ((0.999, "bimodal", 0.0), (1.001, "unimodal", np.inf), (1.999, "unimodal", np.inf)):
        zeta = np.sqrt(factor * mu)
        assert quartic_phase(mu, zeta) == word
        assert density(0.0, mu, zeta) == at_zero
        peak = float(quartic_modes(mu, zeta))
        assert (peak > 0) == (word == "bimodal")
        if peak:
            np.testing.assert_allclose(jax.grad(quartic_stationary_density)(peak, mu, zeta), 0, atol=1e-12)
            np.testing.assert_allclose(peak**2, mu - zeta**2)
    # On the lines themselves: a finite peak at 0, and no law any more.
    assert quartic_phase(1.0, 1.0) == "unimodal"
    np.testing.assert_allclose(density(0.0, 1.0, 1.0), 1 / np.sqrt(np.pi), rtol=1e-14)
    assert quartic_phase(2.0, 2.0) == "collapsed"
    assert quartic_phase(1.0, 0.0) == "bimodal"
    assert quartic_modes(1.0, 0.0) == 1
    np.testing.assert_array_equal(quartic_phase(1.0, np.array([0.5, 1.2, 1.5])), ["bimodal", "unimodal", "collapsed"])
    np.testing.assert_array_equal(jax.jit(quartic_phase_code)(1.0, jnp.array([0.5, 1.2, 1.5])), [0, 1, 2])


def test_euler_steps_have_the_growth_of_another_quartic():
    xi, weight = np.polynomial.hermite_e.hermegauss(120)
    for mu, zeta, dt in ((1.5, 2.5, 2.5e-3), (1.5, 0.3, 0.04), (-1.0, 1.0, 0.01)):
        log = np.log(np.abs(1 + mu * dt + zeta * dt**0.5 * xi))
        mean = weight @ log / weight.sum()
        square = weight @ (log - mean) ** 2 / weight.sum()
        found = quartic_of_steps(mu, zeta, dt)
        np.testing.assert_allclose((found.mu - found.zeta**2 / 2) * dt, mean, rtol=1e-8)
        np.testing.assert_allclose(found.zeta**2 * dt, square, rtol=30 * (zeta**2 * dt) ** 2)
    limit = [np.subtract(quartic_of_steps(1.0, 2.0, dt), (1.0, 2.0)) for dt in (1e-4, 1e-5)]
    np.testing.assert_allclose(limit[0], 10 * limit[1], rtol=0.01)
    refuses(lambda: quartic_of_steps(1.0, 1.0, 0.0), "`dt` must be positive, but got 0.")


def test_gradients_single_precision_and_shapes():
    for zeta in (0.6, 1.2):
        check_grads(quartic_stationary_density, (0.8, 1.0, zeta), order=1, modes=["rev"])
        check_grads(quartic_moment, (1.5, 1.0, zeta), order=1, modes=["rev"])
        check_grads(quartic_distribution, (0.8, 1.0, zeta), order=1, modes=["rev"])
    assert np.isfinite(jax.grad(quartic_modes, argnums=(0, 1))(1.0, 1.0)).all()
    theta = np.linspace(-2, 2, 9)
    single = density(np.float32(theta), np.float32(1.0), np.float32(1.2))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, density(theta, 1.0, float(np.float32(1.2))), rtol=3e-6)
    assert density(theta[:, None], 1.0, np.array([[0.5, 1.2]])).shape == (9, 2)
    mapped = jax.vmap(quartic_moment)(jnp.arange(3.0), jnp.ones(3), jnp.full(3, 0.9))
    np.testing.assert_allclose(mapped, moment(jnp.arange(3.0), 1.0, 0.9), rtol=1e-14)


def refuses(call, words):
    with pytest.raises(ValueError, match="^" + re.escape(words) + "$"):
        call()


def test_what_does_not_exist_is_refused():
    collapsed = "`zeta` must be below sqrt(2 mu), for the law is collapsed from there on, but got 1.5."
    for f in (quartic_stationary_density, quartic_distribution, quartic_moment):
        refuses(lambda f=f: f(0.5, 1.0, np.array([1.2, 1.5])), collapsed)
        refuses(lambda f=f: f(0.5, 0.0, 1.0), "`mu` must be positive, but got 0.")
        refuses(lambda f=f: f(0.5, 1.0, 0.0), "`zeta` must be positive, but got 0.")
    refuses(lambda: quartic_distribution(-1.0, 1.0, 1.0), "`theta` must be zero or positive, but got -1.")
    refuses(lambda: quartic_moment(np.inf, 1.0, 1.0), "`q` must be finite, but got inf.")
    for f in (quartic_phase, quartic_phase_code, quartic_modes):
        refuses(lambda f=f: f(-1.0, 1.0), "`mu` must be positive, but got -1.")
        refuses(lambda f=f: f(1.0, -0.2), "`zeta` must be zero or positive, but got -0.2.")
        refuses(lambda f=f: f(1.0, np.inf), "`zeta` must be finite, but got inf.")
