"""The Langevin equation of SGD: printed values, matrix exponentials, Lyapunov's equation, and its hyperparameters."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.linalg import expm

from theory.sgd_limit import (
    autocorrelation,
    equivalent_hyperparameters,
    inverse_temperature,
    langevin_coefficients,
    oscillator_rates,
    phase_space_covariance,
    propagator,
    transient,
)

through = jax.jit(propagator)
late = jax.jit(transient, static_argnames="time")
CRITICAL = 0.5**2 / (2 * 1.5) / 0.2  # h of critical damping at eta = 0.2, beta = 0.5


def drift(eta, beta, h):
    gamma, omega = (float(x) for x in oscillator_rates(eta, beta, h))
    return np.array([[0, -1], [omega**2, 2 * gamma]])


def test_printed_values():
    np.testing.assert_allclose(oscillator_rates(0.2, 0.8, 0.5), [0.5555555556, 1.6666666667], rtol=1e-9)
    np.testing.assert_allclose(langevin_coefficients(0.2, 0.8), [0.18, 0.2], rtol=1e-15)
    for beta, h, printed in (
        (0.8, 0.5, [[0.3064021209, 0.3812714799], [-1.0590874441, -0.1172328568]]),
        (0.5, 0.1, [[0.8812690098, 0.2631474799], [-0.1754316532, 0.0041107436]]),
    ):
        np.testing.assert_allclose(propagator(0.9, 0.2, beta, h), printed, rtol=0, atol=6e-11)
    mean, covariance = transient(0.9 / 0.2, 1.0, 0.5, 0.2, 0.8, 4, 0.1, time="ou")
    np.testing.assert_allclose(mean, [0.1971115948, -1.1624767776], rtol=1e-9)
    printed = [[0.0578897231, 0.0469219534], [0.0469219534, 0.1938713629]]
    np.testing.assert_allclose(covariance, printed, rtol=0, atol=6e-11)
    np.testing.assert_allclose(
        phase_space_covariance(0.5, 0.2, 0.8, 4, time="ou"), [0.125, 0.0, 0.3472222222], rtol=1e-9
    )
    beta, eta, _ = equivalent_hyperparameters(0.5, 0.1, 0.9)
    np.testing.assert_allclose([beta, eta], [0.9513148795, 0.0973702410], rtol=1e-9)


def test_the_propagator_is_a_matrix_exponential_on_both_sides_of_the_critical_damping():
    t = np.array([0.0, 1e-6, 0.03, 0.9, 4.0, 40.0])
    for factor in (1e-9, 0.3, 1 - 1e-6, 1.0, 1 + 1e-6, 3.0, 50.0):
        h = CRITICAL * factor
        exact = [expm(-x * drift(0.2, 0.5, h)) for x in t]
        np.testing.assert_allclose(through(t, 0.2, 0.5, h), exact, rtol=1e-9, atol=1e-11)
    assert np.isfinite(through(1e6, 1e-3, 0.0, 1e-4)).all()
    single = through(np.float32(0.9), np.float32(0.2), np.float32(0.5), np.float32(1e-5))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expm(-0.9 * drift(0.2, 0.5, 1e-5)), rtol=3e-6)


def test_first_step_of_the_equation_is_its_mass_and_damping():
    mass, damping = langevin_coefficients(0.2, 0.5)
    change = (through(1e-6, 0.2, 0.5, 0.7) - np.eye(2)) / 1e-6
    np.testing.assert_allclose(change[1], [-0.7 / mass, -damping / mass], rtol=2e-6)


def test_the_covariance_solves_lyapunovs_equation_and_starts_as_the_noise():
    rho, eta, beta, batch, decay, sigma = 0.3, 0.2, 0.7, 5, 0.1, 1.3
    A = drift(eta, beta, rho + decay)
    noise = np.diag([0.0, (2 / (eta * (1 + beta))) ** 2 * eta * sigma**2 * rho / batch])
    xx, xv, vv = phase_space_covariance(rho, eta, beta, batch, decay, sigma, time="ou")
    B = np.array([[xx, xv], [xv, vv]])
    np.testing.assert_allclose(A @ B + B @ A.T, noise, atol=1e-12 * noise.max())
    kappa = inverse_temperature(beta, batch, sigma)
    np.testing.assert_allclose(vv, rho / kappa, rtol=1e-14)
    for k in (0.5, 3.0, 30.0):
        E = expm(-A * eta * k)
        found = late(k, 0.4, rho, eta, beta, batch, decay, sigma, time="ou", motion=0.2)
        np.testing.assert_allclose(found.mean, E @ [0.4, 0.2], rtol=1e-10)
        np.testing.assert_allclose(found.covariance, B - E @ B @ E.T, rtol=1e-10, atol=1e-14)
    short = late(1e-3, 0.0, rho, eta, beta, batch, decay, sigma, time="ou").covariance
    np.testing.assert_allclose(short[1, 1], noise[1, 1] * eta * 1e-3, rtol=2e-3)
    np.testing.assert_allclose(short[0, 0], noise[1, 1] * (eta * 1e-3) ** 3 / 3, rtol=2e-3)


def test_positions_are_isotropic_and_velocities_as_the_hessian_without_decay():
    rho = np.geomspace(1e-3, 2.0, 7)
    x, _, v = phase_space_covariance(rho, 0.1, 0.9, 16, time="ou")
    np.testing.assert_allclose(x, x[0] * np.ones(7), rtol=1e-14)
    np.testing.assert_allclose(v / rho, v[0] / rho[0] * np.ones(7), rtol=1e-14)
    decayed = phase_space_covariance(rho, 0.1, 0.9, 16, 0.05, time="ou").position
    np.testing.assert_allclose(decayed / x, rho / (rho + 0.05), rtol=1e-14)


def test_equivalent_hyperparameters_keep_the_stationary_law():
    rho = np.array([0.1, 1.0])
    alpha = np.array([0.3, 1.0, 1 / (1 - 0.6**2)])
    beta, eta, batch = equivalent_hyperparameters(alpha, 0.05, 0.6, 12)
    np.testing.assert_allclose(beta[1:], [0.6, 0.0], atol=1e-7)
    np.testing.assert_allclose(eta * (1 + beta), 0.05 * 1.6, rtol=1e-12)
    np.testing.assert_allclose(1 - beta**2, alpha * (1 - 0.36), rtol=1e-12)
    np.testing.assert_allclose(batch, 12 / alpha)
    for b, e, factor in zip(beta, eta, alpha, strict=True):
        here = phase_space_covariance(rho, e, b, 12, 0.02, time="ou")
        for x, y in zip(here, phase_space_covariance(rho, 0.05, 0.6, 12, 0.02, time="ou"), strict=True):
            np.testing.assert_allclose(factor * x, y, rtol=1e-12)
    doubled = equivalent_hyperparameters(0.5, 0.05, 0.6, 12)
    same = phase_space_covariance(rho, doubled.eta, doubled.beta, int(doubled.batch), 0.02, time="ou")
    np.testing.assert_allclose(same, phase_space_covariance(rho, 0.05, 0.6, 12, 0.02, time="ou"), rtol=1e-12)


@pytest.mark.thorough
def test_gradients_at_the_critical_damping_and_maps():
    for h in (0.5 * CRITICAL, CRITICAL, 2 * CRITICAL):
        check_grads(lambda h, b, t: through(t, 0.2, b, h), (h, 0.5, 0.9), order=1, modes=["rev"], atol=1e-5, rtol=1e-5)
    h = jnp.array([0.1, 1.0])
    mapped = jax.vmap(lambda h: propagator(0.9, 0.2, 0.5, h))(h)
    np.testing.assert_allclose(mapped, through(0.9, 0.2, 0.5, h), rtol=1e-13)


def refuses(call, words):
    with pytest.raises(ValueError, match="^" + re.escape(words) + "$"):
        call()


def test_bad_arguments_are_named():
    for f in (langevin_coefficients, lambda e, b: propagator(1.0, e, b, 1.0), lambda e, b: oscillator_rates(e, b, 1.0)):
        refuses(lambda f=f: f(0.0, 0.5), "`eta` must be positive, but got 0.")
        refuses(lambda f=f: f(0.1, 1.0), "`beta` must be zero or positive, and below 1, but got 1.")
    refuses(lambda: oscillator_rates(0.1, 0.5, [1.0, 0.0]), "`h` must be positive, but got 0.")
    refuses(lambda: propagator(-1.0, 0.1, 0.5, 1.0), "`t` must be zero or positive, but got -1.")
    refuses(lambda: inverse_temperature(0.5, 2.5), "`batch` must be a whole number not below 1, but got 2.5.")
    words = "`alpha` must be at most 1 / (1 - beta^2), but got 1.6."
    refuses(lambda: equivalent_hyperparameters(1.6, 0.1, 0.6), words)
    refuses(lambda: equivalent_hyperparameters(0.0, 0.1, 0.6), "`alpha` must be positive, but got 0.")
    words = "`time` must be discrete or ou, but got continuous."
    refuses(lambda: phase_space_covariance(1.0, 0.1, 0.5, 1, time="continuous"), words)
    refuses(lambda: autocorrelation(1, 0.1, 0.5, 1.0, time="continuous"), words)
    refuses(lambda: phase_space_covariance(-1.0, 0.1, 0.5, 1), "`spectrum` must be zero or positive, but got -1.")
    refuses(lambda: phase_space_covariance(0.0, 0.1, 0.5, 1), "`h` must be positive, but got 0.")
    refuses(lambda: phase_space_covariance(0.0, 0.1, 0.5, 1, time="ou"), "`h` must be positive, but got 0.")
