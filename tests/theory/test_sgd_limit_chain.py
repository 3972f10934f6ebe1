"""The exact chain of SGD: printed values, matrix powers, fifty digits of its memory, and its continuous embedding."""

import re

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from scipy.linalg import expm, solve_discrete_lyapunov

from theory.sgd_limit import (
    autocorrelation,
    chain_propagator,
    circulation,
    continuous_embedding,
    decorrelation,
    oscillation_per_step,
    oscillator_rates,
    phase_space_covariance,
    regime,
    regime_code,
    transient,
)

correlation, left = (jax.jit(f, static_argnames="time") for f in (autocorrelation, decorrelation))
late, turning = (jax.jit(f, static_argnames="time") for f in (transient, oscillation_per_step))
powers = jax.jit(chain_propagator)
BETAS = (0.0, 0.05, 0.3, 0.59, 0.61, 0.9, 0.999)


def transfer(beta, e):
    return np.array([[1 - e, beta], [-e, beta]])


def lines(beta):
    return (1 - beta**0.5) ** 2, (1 + beta**0.5) ** 2, 2 * (1 + beta)


def pulls(beta):
    """eta h in every stable regime and about its lines, also nearly flat and nearly unstable."""
    critical, flipping, unstable = lines(beta)
    near = [x * f for x in (critical, flipping) for f in (1 - 1e-3, 1 - 1e-7, 1.0, 1 + 1e-7, 1 + 1e-3)]
    values = [1e-9 * critical, 0.01 * critical, 0.5 * critical, 3 * critical, 1.0, 1 + beta, unstable * (1 - 1e-6)]
    return np.array([e for e in (*near, *values) if 0 < e < unstable])


def test_printed_values():
    assert [regime(1.0, 0.25, e) for e in (0.2, 0.3, 2.4, 2.5)] == [
        "overdamped", "oscillating", "flipping", "unstable",
    ]  # fmt: skip
    for k, beta, e, printed in (
        ([1, 2, 5], 0.5, 0.3, [0.8, 0.46, -0.13312]),
        ([1, 3], 0.36, 0.16, [0.8823529412, 0.5209411765]),
        ([1, 2, 3], 0.25, 2.4, [-0.92, 0.808, -0.6992]),
    ):
        np.testing.assert_allclose(correlation(np.array(k), 1.0, beta, e), printed, rtol=1e-9)
        np.testing.assert_allclose(left(np.array(k), 1.0, beta, e), 1 - np.array(printed), rtol=1e-8)
    np.testing.assert_allclose(oscillation_per_step(0.2, 0.8, 1.5), [0.5762249702, 0.1115717757], rtol=1e-9)
    np.testing.assert_allclose(oscillation_per_step(0.2, 0.8, 1.5, "ou"), [0.5665577237, 0.1111111111], rtol=1e-9)
    mean, covariance = transient(5, 1.0, 0.5, 0.2, 0.8, 4, 0.1)
    np.testing.assert_allclose(mean, [-0.0305856512, -0.2198618112], rtol=1e-8)
    printed = [[0.0774339808, 0.0124663585], [0.0124663585, 0.0081482670]]
    np.testing.assert_allclose(covariance, printed, rtol=0, atol=6e-11)
    x, cross, w = phase_space_covariance(0.5, 0.2, 0.8, 4)
    np.testing.assert_allclose([x, cross, w], [0.1285714286, 0.0142857143 / 2, 0.0142857143], rtol=1e-8)
    np.testing.assert_allclose(circulation(0.2, 0.8, 0.5, 0.125), -0.025, rtol=1e-12)
    printed = [[0.6426988710, -3.6338969347], [1.4535587739, 2.8230370318]]
    np.testing.assert_allclose(continuous_embedding(0.2, 0.5, 1.0), printed, rtol=1e-9)


@pytest.mark.thorough
@pytest.mark.parametrize("beta", BETAS)
def test_regimes_and_rates_are_those_of_the_eigenvalues(beta):
    e = np.array([x for x in pulls(beta) if all(abs(x / line - 1) > 1e-4 for line in lines(beta)[:2])])
    codes = np.asarray(regime_code(1.0, beta, e))
    angle, decay = turning(1.0, beta, e)
    for x, code, turned, rate in zip(e, codes, angle, decay, strict=True):
        roots = np.linalg.eigvals(transfer(beta, x))
        large = roots[np.argmax(np.abs(roots))]
        assert code == (1 if abs(large.imag) > 0 else 0 if large.real > 0 else 2)
        np.testing.assert_allclose(turned, abs(np.angle(large)), atol=1e-9)
        np.testing.assert_allclose(rate, -np.log(abs(large)), rtol=1e-6, atol=1e-9)
    assert regime_code(1.0, beta, 2 * (1 + beta)) == 3
    assert np.abs(np.linalg.eigvals(transfer(beta, 2.001 * (1 + beta)))).max() > 1
    slow = turning(np.float32(1.0), np.float32(beta), np.float32(1e-12)).decay
    np.testing.assert_allclose(slow, 1e-12 / (1 - beta), rtol=1e-3)


@pytest.mark.thorough
@pytest.mark.parametrize("beta", BETAS)
def test_powers_and_stationary_law(beta):
    for e in pulls(beta):
        T = transfer(beta, e)
        k = np.array([0, 1, 2, 5, 40])
        exact = [np.linalg.matrix_power(T, n) for n in k]
        np.testing.assert_allclose(powers(k, 1.0, beta, e), exact, rtol=1e-9, atol=1e-11)
    T = transfer(beta, 0.3)
    x, cross, w = phase_space_covariance(1.5, 0.2, beta, 3, 0.0, 1.2)
    noise = 0.2**2 * 1.2**2 * 1.5 / 3 * np.ones((2, 2))
    np.testing.assert_allclose(solve_discrete_lyapunov(T, noise), [[x, cross], [cross, w]], rtol=1e-9)
    B = phase_space_covariance(1.5, 0.2, beta, 3, 0.0, 1.2, time="ou")
    np.testing.assert_allclose([x / B.position, w / 0.04 / B.motion], 1 / (1 - 0.3 / (2 * (1 + beta))), rtol=1e-13)
    turned = x * (correlation(2, 0.2, beta, 1.5) - 1)
    np.testing.assert_allclose(circulation(0.2, beta, 1.5, noise[0, 0] / 0.04), turned, rtol=1e-12)


def digits(k, beta, e):
    """What the roots give for 1 - r(k), and how far the rounding of beta and of e moves it."""

    def exact(b, pull):
        P = 1 + b - pull
        gap = mp.sqrt(mp.mpc(P**2 - 4 * b)) + mp.mpf(10) ** -30
        plus, minus = (P + gap) / 2, (P - gap) / 2
        a = (P / (1 + b) - minus) / (plus - minus)
        return mp.re(1 - (a * plus**k + (1 - a) * minus**k))

    with mp.workdps(60):
        at = exact(mp.mpf(beta), mp.mpf(e))
        up = 1 + mp.mpf(2) ** -52
        moved = [abs(exact(mp.mpf(beta) * a, mp.mpf(e) * b) - at) for a, b in ((up, 1), (1, up))]
        return float(at), float(sum(moved))


@pytest.mark.thorough
@pytest.mark.parametrize("beta", BETAS)
def test_fifty_digits_of_what_is_forgotten(beta):
    k = np.array([0, 1, 2, 3, 10, 100, 3000])
    for e in pulls(beta):
        found, other = left(k, 1.0, beta, e), correlation(k, 1.0, beta, e)
        for n, value, kept in zip(k, found, other, strict=True):
            truth, moved = digits(int(n), beta, e)
            assert abs(float(kept) - (1 - truth)) <= 1e-13 + 4 * moved
            slack = 1e-14 * max(1.0, 4 / ((1 - beta) * max(int(n), 1)))
            assert abs(float(value) - truth) <= slack * abs(truth) + 4 * moved, (n, e, value, truth)


@pytest.mark.thorough
def test_flat_modes_keep_their_digits_in_single_precision():
    k = np.array([1, 2, 7, 50, 1000])
    for time in ("discrete", "ou"):
        for beta, e in ((0.0, 1e-7), (0.5, 1e-7), (0.9, 1e-8), (0.9, 1e-3), (0.9, 0.5)):
            single = left(k.astype(np.float32), np.float32(1), np.float32(beta), np.float32(e), time=time)
            assert single.dtype == np.float32
            double = left(k, 1.0, float(np.float32(beta)), float(np.float32(e)), time=time)
            np.testing.assert_allclose(single, double, rtol=2e-5)
    slow, other = left(k, 1.0, 0.9, 0.002), 1 - correlation(k, 1.0, 0.9, 0.002)
    np.testing.assert_allclose(slow, other, rtol=1e-12)
    slow, other = (f(k, 1.0, 0.9, 0.002, time="ou") for f in (left, correlation))
    np.testing.assert_allclose(slow, 1 - other, rtol=1e-12)


def test_the_memory_without_momentum_is_a_power():
    np.testing.assert_array_equal(correlation(np.array([0, 1, 2]), 1.0, 0.0, 1.0), [1, 0, 0])
    np.testing.assert_array_equal(left(np.array([0, 1, 2]), 1.0, 0.0, 1.0), [0, 1, 1])
    k = np.arange(9)
    for e in (0.3, 1.7):
        np.testing.assert_allclose(correlation(k, 1.0, 0.0, e), (1 - e) ** k, rtol=1e-12)
        np.testing.assert_allclose(left(k, 1.0, 0.0, e), 1 - (1 - e) ** k, rtol=1e-12)


@pytest.mark.thorough
def test_the_transient_is_the_recursion_flat_and_unstable_too():
    for beta, rho, decay in ((0.0, 0.4, 0.1), (0.9, 3.0, 0.0), (0.9, 0.0, 0.0), (0.7, 1e-7, 0.0), (0.3, 30.0, 0.0)):
        eta, batch, h = 0.1, 4, rho + decay
        T, noise = transfer(beta, eta * h), eta**2 * rho / batch * np.ones((2, 2))
        mean, C = np.array([0.7, -0.1]), np.zeros((2, 2))
        for k in range(1, 38):
            mean, C = T @ mean, T @ C @ T.T + noise
            if k in (1, 2, 6, 37):
                found = late(k, 0.7, rho, eta, beta, batch, decay, motion=-0.1)
                np.testing.assert_allclose(found.mean, mean, rtol=1e-10, atol=1e-12)
                np.testing.assert_allclose(found.covariance, C, rtol=1e-11)
    B = phase_space_covariance(3.0, 0.1, 0.9, 4)
    np.testing.assert_allclose(
        late(2**31 - 1, 1.0, 3.0, 0.1, 0.9, 4).covariance, [[B.position, B.cross], [B.cross, B.motion]], rtol=1e-11
    )
    single = late(*(np.float32(x) for x in (40, 1.0, 1e-5, 0.1, 0.9, 4)))
    np.testing.assert_allclose(single.covariance, late(40, 1.0, 1e-5, 0.1, 0.9, 4).covariance, rtol=1e-5)


def test_the_embedding_passes_through_the_chain_and_is_no_diffusion():
    for beta in (1e-3, 0.3, 0.8, 0.99):
        critical, flipping, _ = lines(beta)
        for e in [critical * f for f in (0.1, 1 - 1e-6, 1.0, 1 + 1e-6)] + [1 + beta, 0.99 * flipping]:
            A = np.asarray(continuous_embedding(0.2, beta, e / 0.2))
            size = np.abs(A).max()
            np.testing.assert_allclose(expm(-0.2 * A), transfer(beta, e), atol=1e-12 * max(size, 1))
            x, cross, w = phase_space_covariance(e / 0.2, 0.2, beta, 1)
            B = np.array([[x, cross], [cross, w]])
            assert np.linalg.eigvalsh(A @ B + B @ A.T)[0] < 0


@pytest.mark.thorough
def test_the_langevin_equation_has_the_memory_of_the_chain_to_first_order():
    for friction, etas in ((1.0, 0.04 / 4 ** np.arange(4)), (None, 0.01 / 4 ** np.arange(4))):
        errors = []
        for eta in etas:
            beta = 0.0 if friction is None else 1 - friction * eta**0.5
            k = np.arange(round(6 / min(eta, eta**0.5)))
            errors.append(np.max(np.abs(correlation(k, eta, beta, 1.0) - correlation(k, eta, beta, 1.0, time="ou"))))
        assert abs(np.polyfit(np.log(etas), np.log(errors), 1)[0] - 1) < 0.1
        if friction:
            np.testing.assert_allclose(errors, np.array([7.0, 1.63, 0.395, 0.0972]) * 1e-3, rtol=0.01)


@pytest.mark.thorough
def test_gradients_on_the_lines():
    def memory(beta, e, k):
        return autocorrelation(k, 1.0, beta, e), decorrelation(k, 1.0, beta, e), chain_propagator(k, 1.0, beta, e)

    value = jax.jit(memory)
    slope = jax.jit(jax.jacrev(memory, (0, 1)))
    for beta in (0.3, 0.9):
        critical, flipping, _ = lines(beta)
        for e in (1e-3 * critical, critical, 2 * critical, flipping, 1 + beta):
            for k in (0, 1, 9):
                found = slope(beta, e, k)
                h = 1e-6 * min(e, 0.1)
                for at, (db, de) in enumerate(((1e-6, 0), (0, h))):
                    for out, up, down in zip(
                        found, value(beta + db, e + de, k), value(beta - db, e - de, k), strict=True
                    ):
                        by_hand = (up - down) / (2 * (db + de))
                        np.testing.assert_allclose(out[at], by_hand, rtol=3e-5, atol=3e-6)
    total = jax.jit(jax.grad(lambda b: jnp.sum(transient(9, 1.0, 1.0, 0.1, b, 4).covariance)))
    by_hand = [float(jnp.sum(late(9, 1.0, 1.0, 0.1, b, 4).covariance)) for b in (0.5 + 1e-6, 0.5 - 1e-6)]
    np.testing.assert_allclose(total(0.5), np.subtract(*by_hand) / 2e-6, rtol=1e-6)


def refuses(call, words):
    with pytest.raises(ValueError, match="^" + re.escape(words) + "$"):
        call()


def test_bad_arguments_are_named():
    refuses(lambda: autocorrelation(1, 1.0, 0.5, 3.0), "`eta * h` must be below 2 (1 + beta), but got 3.")
    refuses(lambda: decorrelation(1, 1.0, 0.5, 0.0), "`h` must be positive, but got 0.")
    for f, name in ((autocorrelation, "lags"), (decorrelation, "lags"), (chain_propagator, "steps")):
        for k in (1.5, -1):
            words = f"`{name}` must be a whole number not below 0, but got {k}."
            refuses(lambda f=f, k=k: f(k, 1.0, 0.5, 0.1), words)
    words = "`eta * h` must be below 2 (1 + beta), but got 2.5."
    refuses(lambda: phase_space_covariance(2.5, 1.0, 0.25, 1), words)
    refuses(lambda: circulation(1.0, 0.25, 2.5, 1.0), words)
    words = "`eta * h` must be below (1 + sqrt(beta))^2, where flipping begins, but got 2.4."
    refuses(lambda: continuous_embedding(1.0, 0.25, 2.4), words)
    refuses(lambda: continuous_embedding(1.0, 0.0, 0.4), "`beta` must be positive, but got 0.")
    refuses(lambda: regime(0.0, 0.5, 1.0), "`eta` must be positive, but got 0.")
    refuses(lambda: transient(1.5, 0.0, 1.0, 0.1, 0.5, 1), "`steps` must be a whole number not below 0, but got 1.5.")
    refuses(lambda: transient(1, np.nan, 1.0, 0.1, 0.5, 1), "`start` must be finite, but got nan.")
    assert np.isfinite(oscillator_rates(0.1, 0.5, 1.0)).all()
