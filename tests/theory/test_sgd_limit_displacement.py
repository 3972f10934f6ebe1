"""Displacements of SGD: reference values, fifty-digit roots, moments step by step, and orders of the power law."""

import re

import jax
import mpmath as mp
import numpy as np
import pytest
from jax.test_util import check_grads

from theory.sgd_limit import (
    diffusion_constant,
    displacement_exponent,
    displacement_saturation,
    global_displacement,
    local_displacement,
    power_law_displacement,
    power_law_exponent,
)

RHO = np.array([1.0, 0.3, 0.05])
CASE = (0.2, 0.8, 4, 0.01)
START = np.array([1.0, -1.0, 0.5])
displacement = jax.jit(global_displacement, static_argnames="time")


def test_printed_values():
    lags = np.array([2, 20, 200])
    np.testing.assert_allclose(local_displacement(RHO, *CASE), 0.0393019768, rtol=2e-9)
    np.testing.assert_allclose(local_displacement(RHO, *CASE, time="ou"), 0.0375, rtol=1e-14)
    for time, printed in (
        ("discrete", [0.135, 0.6900181325, 0.7174445581]),
        ("ou", [0.1226013682, 0.6685407457, 0.6977935697]),
    ):
        np.testing.assert_allclose(displacement(lags, RHO, *CASE, time=time), printed, rtol=1e-9)
    found = displacement(lags, RHO, *CASE, start=START)
    np.testing.assert_allclose(found, [0.3542042111, 2.7449920955, 2.6087222792], rtol=1e-9)
    np.testing.assert_allclose(power_law_displacement(500, 0.1, 0.5, 1.0, 1.5, 8), 1.4428995279, rtol=1e-9)


def stationary(rho, eta, beta, batch, decay, sigma):
    """Covariance of (x, w) of every mode, by a dense solve."""
    for r in rho:
        T = np.array([[1 - eta * (r + decay), beta], [-eta * (r + decay), beta]])
        noise = np.full(4, eta**2 * sigma**2 * r / batch)
        yield T, np.linalg.solve(np.eye(4) - np.kron(T, T), noise).reshape(2, 2), noise.reshape(2, 2)


@pytest.mark.parametrize("beta", [0.0, 0.3, 0.95])
def test_the_chain_step_by_step(beta):
    case, lags = (0.9, beta, 3, 0.1, 0.7), np.arange(40)
    free, fixed, spread = (np.zeros(40) for _ in range(3))
    for x0, (T, B, noise) in zip(START, stationary(RHO, *case), strict=True):
        mean, C = np.array([x0, 0.0]), np.zeros((2, 2))
        for k in lags:
            free[k] += 2 * (B - np.linalg.matrix_power(T, k) @ B)[0, 0]
            fixed[k] += (mean[0] - x0) ** 2 + C[0, 0]
            mean, C = T @ mean, T @ C @ T.T + noise
        spread += 2 * B[0, 0]
    np.testing.assert_allclose(displacement(lags, RHO, *case), free, rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(displacement(lags, RHO, *case, start=START), fixed, rtol=1e-10, atol=1e-15)
    np.testing.assert_allclose(local_displacement(RHO, *case), free[1], rtol=1e-10)
    np.testing.assert_allclose(displacement_saturation(RHO, *case), spread[0], rtol=1e-10)
    np.testing.assert_allclose(displacement(100_000, RHO, *case), spread[0], rtol=1e-10)


def test_fifty_digits_for_flat_modes():
    with mp.workdps(50):
        for eta, beta, h, k in ((1e-3, 0.9, 1e-9, 7), (0.1, 0.99, 1e-7, 100), (0.5, 0.0, 1e-12, 3), (1.0, 0.5, 1.2, 5)):
            e, b = mp.mpf(eta) * mp.mpf(h), mp.mpf(beta)
            root = mp.sqrt(mp.mpc((1 + b - e) ** 2 - 4 * b))
            z, y = (1 + b - e + root) / 2, (1 + b - e - root) / 2
            a = ((1 + b - e) / (1 + b) - y) / (z - y)
            gone = 1 - mp.re(a * z**k + (1 - a) * y**k)
            variance = (1 + b) * mp.mpf(eta) / ((1 - b) * (2 * (1 + b) - e))
            np.testing.assert_allclose(displacement(k, [h], eta, beta, 1), float(2 * variance * gone), rtol=1e-11)


def test_continuous_time():
    t = 0.2 * np.array([1, 5, 40])
    exact, fixed = np.zeros(3), np.zeros(3)
    for x0, rho in zip(START, RHO, strict=True):
        eta, beta, batch, decay = CASE
        h = rho + decay
        A = np.array([[0.0, -1.0], [2 * h / (eta * (1 + beta)), 2 * (1 - beta) / (eta * (1 + beta))]])
        B = np.diag([eta * rho / h / (2 * batch * (1 - beta)), rho / (batch * (1 - beta**2))])
        for i, time in enumerate(t):
            E = np.array(jax.scipy.linalg.expm(-A * time))
            exact[i] += 2 * B[0, 0] * (1 - E[0, 0])
            fixed[i] += (x0 * (1 - E[0, 0])) ** 2 + (B - E @ B @ E.T)[0, 0]
    np.testing.assert_allclose(displacement(t / 0.2, RHO, *CASE, time="ou"), exact, rtol=1e-10)
    np.testing.assert_allclose(displacement(t / 0.2, RHO, *CASE, time="ou", start=START), fixed, rtol=1e-10)


def test_the_paper_sums_velocity_correlations_to_a_riemann_error():
    k, j = 50, np.arange(1, 51)
    errors = []
    for eta in (0.02, 0.01, 0.005):  # eta gamma is fixed by beta: the sum is over eta omega
        beta = 1 - eta * 10
        h, total = RHO, np.zeros(3)
        for i, rho in enumerate(h):
            gamma, omega2 = (1 - beta) / (eta * (1 + beta)), 2 * rho / (eta * (1 + beta))
            nu = np.sqrt(complex(omega2 - gamma**2))
            time = eta * j
            C = np.real(np.exp(-gamma * time) * (np.cos(nu * time) - gamma / nu * np.sin(nu * time)))
            total[i] = rho * (k + 2 * k * np.sum((1 - j / k) * C))
        paper = eta**2 / (1 - beta**2) * total.sum()
        errors.append(abs(paper / float(displacement(k, RHO, eta, beta, 1, time="ou")) - 1))
    assert errors[1] < 0.01
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def test_regimes_of_a_flat_spectrum():
    flat, eta, beta = RHO * 1e-11, 0.1, 0.99
    ballistic = np.array([1.0, 2.0, 3.0])
    slopes = displacement_exponent(ballistic, displacement(ballistic, flat, eta, beta, 4))
    np.testing.assert_allclose(slopes, 2, atol=0.01)
    late = np.array([1e5, 2e5])
    found = displacement(late, flat, eta, beta, 4)
    np.testing.assert_allclose(displacement_exponent(late, found), 1, atol=1e-3)
    constant = diffusion_constant(flat, eta, beta, 4)
    np.testing.assert_allclose(np.diff(found) / np.diff(late), constant, rtol=1e-3)
    enhanced = (1 + beta) / (1 - beta) * local_displacement(flat, eta, beta, 4)
    np.testing.assert_allclose(enhanced, constant, rtol=1e-6)


@pytest.mark.thorough
@pytest.mark.parametrize("from_minimum", [False, True])
@pytest.mark.parametrize("alpha", [2.0, 3.0])
def test_orders_of_the_power_law(alpha, from_minimum):
    eta, beta, d = 0.1, 0.5, 20_000
    rho, lags = np.arange(1, d + 1.0) ** -alpha, 1000.0 * 2 ** np.arange(6)
    start = np.zeros(d) if from_minimum else None
    exact = np.array([displacement(k, rho, eta, beta, 8, start=start) for k in lags])
    # The modes beyond d have only begun to diffuse.
    exact += diffusion_constant(rho[:1], eta, beta, 8) * lags * (d + 0.5) ** (1 - alpha) / (alpha - 1)
    forms = (
        power_law_displacement(lags, eta, beta, 1.0, alpha, 8, corrected=corrected, from_minimum=from_minimum)
        for corrected in (False, True)
    )
    errors = [np.abs(form / exact - 1) for form in forms]
    orders = [np.polyfit(np.log(lags), np.log(error), 1)[0] for error in errors]
    np.testing.assert_allclose(orders, [-1 / alpha, -1], atol=0.1)
    assert errors[1][-1] < 1e-4
    slope = displacement_exponent(lags, exact)[-1]
    np.testing.assert_allclose(slope, power_law_exponent(alpha), atol=0.01)


@pytest.mark.thorough
def test_single_precision_and_gradients():
    rho = np.arange(1, 301, dtype=np.float32) ** np.float32(-2)
    lags = np.float32([1, 10, 1000])
    for start in (None, np.full(300, 0.3, np.float32)):
        for time in ("discrete", "ou"):
            found = displacement(lags, rho, 0.3, 0.9, 8, time=time, start=start)
            assert found.dtype == np.float32
            exact = displacement(lags.astype(float), rho.astype(float), 0.3, 0.9, 8, time=time, start=start)
            np.testing.assert_allclose(found, exact, rtol=2e-4)
    for f in (
        lambda eta, beta: global_displacement(7, RHO, eta, beta, 4, 0.01),
        lambda eta, beta: power_law_displacement(500, eta, beta, 1.0, 1.5, 8, corrected=True),
    ):
        check_grads(jax.jit(f), (0.2, 0.8), order=1, modes=["rev"])


def test_arguments_broadcast():
    found = displacement(np.ones((4, 1)), RHO, np.array([0.1, 0.2]), 0.5, 8)
    assert found.shape == (4, 2)
    np.testing.assert_allclose(found[0], [displacement(1, RHO, eta, 0.5, 8) for eta in (0.1, 0.2)], rtol=1e-14)
    assert local_displacement(np.ones((2, 3)), 0.1, 0.5, 8).shape == (2,)
    assert displacement_exponent([1, 2, 4], np.ones((2, 3))).shape == (2, 2)
    np.testing.assert_allclose(displacement_exponent([1, 2, 4], [1.0, 4.0, 4.0]), [2, 0], atol=1e-15)


def test_bad_arguments_are_named():
    def refuses(call, sentence):
        with pytest.raises(ValueError, match="^" + re.escape(sentence) + "$"):
            call()

    for f in (local_displacement, lambda *a: global_displacement(3, *a), displacement_saturation):
        refuses(lambda f=f: f(RHO, 0.0, 0.5, 4), "`eta` must be positive, but got 0.")
        refuses(lambda f=f: f(RHO, 0.1, 1.0, 4), "`beta` must be zero or positive, and below 1, but got 1.")
        refuses(lambda f=f: f(RHO, 0.1, 0.5, 0.5), "`batch` must be a whole number not below 1, but got 0.5.")
        refuses(lambda f=f: f([1.0, 0.0], 0.1, 0.5, 4), "`h` must be positive, but got 0.")
        refuses(lambda f=f: f(RHO, 3.0, 0.5, 4), "`eta * h` must be below 2 (1 + beta), but got 3.")
        refuses(lambda f=f: f(RHO, 0.1, 0.5, 4, -1.0), "`weight_decay` must be zero or positive, but got -1.")
    refuses(lambda: global_displacement(1.5, RHO, *CASE), "`lags` must be a whole number not below 0, but got 1.5.")
    refuses(lambda: local_displacement(RHO, *CASE, time="t"), "`time` must be discrete or ou, but got t.")
    refuses(lambda: global_displacement(1, RHO, *CASE, start=[1, np.nan, 0]), "`start` must be finite, but got nan.")
    refuses(lambda: power_law_displacement(5, 0.1, 0.5, 1.0, 1.0, 8), "`alpha` must be above 1, but got 1.")
    refuses(lambda: power_law_exponent(0.5), "`alpha` must be above 1, but got 0.5.")
    refuses(lambda: power_law_displacement(0, 0.1, 0.5, 1.0, 2.0, 8), "`lags` must be positive, but got 0.")
    words = "`eta * rho1` must be below 2 (1 + beta), but got 4."
    refuses(lambda: power_law_displacement(5, 4.0, 0.5, 1.0, 2, 8), words)
    refuses(lambda: displacement_exponent([1, 3, 2], np.ones(3)), "`lags` must be rising, but got 2.")
    refuses(lambda: displacement_exponent([1, 2], [1.0, 0.0]), "`msd` must be positive, but got 0.")
