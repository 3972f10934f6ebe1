"""Logistic and InfoNCE modes: fifty digits, closed forms by partial fractions, Hessians, both signs of b."""

import re

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from jax.test_util import check_grads

from theory.ssl_collapse import (
    effective_landscape,
    final_ranking,
    half_time,
    infonce_mode_rate,
    infonce_mode_trajectory,
    learning_order,
    mode_trajectory,
    plateau_escape_rate,
)

logistic, infonce, rate = (jax.jit(f) for f in (mode_trajectory, infonce_mode_trajectory, infonce_mode_rate))


def test_printed_values():
    np.testing.assert_allclose(
        logistic(np.array([3.0, 6.0]), 0.5, 1.1, 0.75, 1e-3), [0.1639410294, 0.2750182819], atol=6e-11
    )
    np.testing.assert_allclose(half_time(0.5, 1.1, 0.75, 1e-3), 2.8074430131, atol=6e-11)
    found = infonce(np.array([1.5, 4.0]), 0.8, 0.3, 0.01, 0.7, 1.3, 0.02)
    np.testing.assert_allclose(found, [0.397639703, 0.650119268], atol=6e-10)


def test_fifty_digits_on_both_sides_of_zero_growth():
    t = np.array([0.0, 1e-8, 0.3, 4.0, 300.0])
    b = np.array([-2.0, -0.3, -1e-3, -1e-12, -1e-300, 0.0, 1e-300, 1e-12, 1e-3, 0.3, 2.0])
    y0 = np.array([1e-20, 1e-3, 0.7])
    found = logistic(jnp.array(t)[:, None, None], jnp.array(b)[:, None], 1.1, 0.75, jnp.array(y0))
    with mp.workdps(50):
        for i, j, k in np.ndindex(found.shape):
            x, c, y = mp.mpf(t[i]), mp.mpf(b[j]), mp.mpf(y0[k])
            brake = 8 * mp.mpf(0.75) * mp.mpf(1.1) ** 2 * y
            late = -mp.expm1(-4 * c * x) / (4 * c) if c else x
            exact = y / (mp.exp(-4 * c * x) + brake * late)
            np.testing.assert_allclose(found[i, j, k], float(exact), rtol=1e-12)


def test_the_curve_obeys_its_equation_and_its_gradients_pass_zero_growth():
    slope_of = jax.jit(lambda *x: jax.jvp(lambda t: mode_trajectory(t, *x), (1.7,), (1.0,)))
    for b in (-0.4, -1e-9, 0.0, 1e-9, 0.4):
        y, slope = slope_of(b, 0.9, 1.3, 0.05)
        np.testing.assert_allclose(slope, 4 * b * y - 8 * 1.3 * 0.81 * y**2, rtol=1e-12)
        check_grads(lambda *x: logistic(1.7, *x), (b, 0.9, 1.3, 0.05), order=1, modes=["rev"], rtol=1e-5)


@pytest.mark.thorough
def test_half_of_the_final_strength_is_reached_at_the_half_time():
    b, sigma, y0 = np.array([0.2, 1.5]), np.array([0.5, 2.0]), np.array([1e-9, 1e-3])
    final = b / (2 * 0.6 * sigma**2)
    t = half_time(b, sigma, 0.6, y0)
    np.testing.assert_allclose(mode_trajectory(t, b, sigma, 0.6, y0), final / 2, rtol=1e-12)
    np.testing.assert_allclose(mode_trajectory(1e3, b, sigma, 0.6, y0), final, rtol=1e-12)
    assert half_time([0.0, -1.0, 1.0], 1.0, 1.0, [0.1, 0.1, 0.0]).tolist() == [np.inf] * 3
    assert half_time(1.0, 1.0, 1.0, [0.26, 3.0]).tolist() == [0.0, 0.0]
    check_grads(jax.jit(half_time), (0.3, 0.9, 1.3, 0.02), order=1, modes=["rev"], eps=1e-6, rtol=1e-5)


def test_modes_are_learned_by_b_and_ranked_by_beta():
    b, sigma = np.array([0.5, 2.0, -0.3, 1.0]), np.array([0.4, 4.0, 1.0, 1.0])
    assert learning_order(b, sigma, 0.7, 1e-12).tolist() == [1, 3, 0, 2]
    assert final_ranking(b, sigma).tolist() == [0, 3, 1, 2]
    # A mode that starts larger can be first.
    assert learning_order(b, sigma, 0.7, [0.1, 1e-12, 1.0, 1e-12]).tolist() == [0, 1, 3, 2]


@pytest.mark.thorough
def test_the_escape_rate_is_a_curvature_of_the_saddle():
    A0, C = np.diag([1.2, 0.8, 0.4, 0.2]), np.diag([0.3, 1.2, 0.2, 0.4])
    for loss, decay in (("spectral", 0.1), ("infonce_dot", 0.05)):
        B, Sigma, kappa = effective_landscape(A0, C, loss, temperature=0.9, weight_decay=decay)
        b, sigma = np.diagonal(B), np.diagonal(Sigma)
        beta = b / sigma
        saddle = np.zeros((2, 4))
        saddle[[0, 1], [0, 1]] = np.sqrt(beta[:2] / (2 * kappa * sigma[:2]))

        def value(W, B=B, Sigma=Sigma, kappa=kappa):
            S = W @ Sigma @ W.T
            return -jnp.trace(W @ B @ W.T) + kappa * jnp.trace(S @ S)

        slope, curvature = jax.jit(lambda W, f=value: (jax.grad(f)(W), jax.hessian(f)(W)))(saddle)
        np.testing.assert_allclose(slope, 0, atol=1e-14)
        for k in (2, 3):
            block = curvature[:, k, :, k]
            expected = [-float(plateau_escape_rate(b[i], sigma[i], b[k], sigma[k])) for i in (0, 1)]
            np.testing.assert_allclose(block, np.diag(expected), atol=1e-12)


def test_the_rate_of_infonce_is_the_gradient_of_its_loss_by_quadrature():
    nodes, weights = (jnp.array(v) for v in np.polynomial.hermite_e.hermegauss(60))
    weights = weights / jnp.sum(weights)
    a, c, tau, alpha, decay = 0.7, 0.4, 0.8, 1.3, 0.05
    x = nodes * (a + c) ** 0.5

    def value(w):
        push = jnp.exp(-(w**2) * (x[:, None] - x[None, :]) ** 2 / (2 * tau))
        return alpha * w**2 * c / tau + weights @ jnp.log(push @ weights) + decay * w**2

    slope = jax.jit(jax.grad(value))
    for w in (0.1, 0.5, 0.9):
        expected = -2 / w * slope(w)
        np.testing.assert_allclose(rate(w**2, a, c, tau, alpha, decay), expected, rtol=1e-9)
    # Near the origin it is the quartic landscape's.
    B, Sigma, kappa = (np.squeeze(v) for v in effective_landscape([[a]], [[c]], "infonce_distance", tau, alpha, decay))
    y = 1e-6
    quartic = 4 * B - 8 * kappa * Sigma**2 * y
    np.testing.assert_allclose(rate(y, a, c, tau, alpha, decay) - quartic, 0, atol=1e-10)


def time_to(s, s0, q):
    """Time from strength s0 to s, both over tau, in units of tau / 4 Sigma, by partial fractions."""
    q, s, s0 = mp.mpf(q), mp.mpf(s), mp.mpf(s0)
    root = mp.sqrt(1 + 8 * q) / 2
    up, low = (0.5 - 2 * q + root) / (2 * q), (0.5 - 2 * q - root) / (2 * q)
    terms = ((0, 1 / (1 - q)), (up, -((1 + up) ** 2) / (up * root)), (low, (1 + low) ** 2 / (low * root)))
    return sum(weight * mp.log(abs((s - pole) / (s0 - pole))) for pole, weight in terms)


@pytest.mark.parametrize("start", [1e-6, 0.5])
def test_infonce_trajectory_against_partial_fractions(start):
    q, T = (v.ravel() for v in np.meshgrid([0.05, 0.3, 0.7, 0.95, 1.3], [1.0, 5.0, 20.0, 100.0, 400.0]))
    y = np.asarray(infonce(T / 4, 0.6, 0.4, start, 1.0, q / 0.4, 0.0))
    slopes = np.asarray(rate(y, 0.6, 0.4, 1.0, q / 0.4)) / 4
    with mp.workdps(30):
        for each, t, end, slope in zip(q, T, y, slopes, strict=True):
            if abs(slope) > 1e-5:  # elsewhere it stands at its end, and the time to it says nothing
                assert abs(float(time_to(end, start, each) - t) * slope) < 1e-9 + 1e-9 * abs(np.log(end))
            else:
                assert each < 1
                np.testing.assert_allclose(end, 2 / (np.sqrt(1 + 8 * each) - 1) - 1, rtol=1e-3)


def test_infonce_end_points_and_gradients():
    for start in (1e-9, 0.01, 30.0):
        np.testing.assert_allclose(infonce(1e4, 0.6, 0.4, start, 1.0, 1.0), 2 / (np.sqrt(4.2) - 1) - 1, rtol=1e-12)
    assert infonce(3.0, 0.6, 0.4, 0.0) == 0
    assert infonce(0.0, 0.6, 0.4, 0.3) == pytest.approx(0.3, rel=1e-15)
    np.testing.assert_allclose(infonce(2.0, 0.0, 0.5, 1e-8, 2.0, 3.0, 0.1), 1e-8 * np.exp(-8 * 0.6), rtol=1e-7)
    check_grads(lambda *x: infonce(1.2, *x), (0.6, 0.4, 0.1, 0.8, 1.2, 0.05), order=1, modes=["fwd"], rtol=1e-5)


def test_float32():
    with jax.enable_x64(False):
        t, b = np.float32([0.5, 3.0, 200.0]), np.float32([-0.4, 0.0, 0.4])
        found = logistic(t[:, None], b, 1.1, 0.75, 1e-3)
        curve = infonce(t, 0.6, 0.4, 0.01, 0.8, 1.2)
        assert {found.dtype, curve.dtype} == {np.dtype("float32")}
    np.testing.assert_allclose(
        found, logistic(t[:, None].astype(float), b.astype(float), 1.1, 0.75, 1e-3), rtol=3e-6, atol=1e-30
    )
    np.testing.assert_allclose(curve, infonce(t.astype(float), 0.6, 0.4, 0.01, 0.8, 1.2), rtol=1e-4)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: mode_trajectory(-1.0, 1.0, 1.0, 1.0, 0.1), "`t` must be zero or positive, but got -1."),
        (lambda: mode_trajectory(np.inf, 1.0, 1.0, 1.0, 0.1), "`t` must be finite, but got inf."),
        (lambda: mode_trajectory(1.0, np.nan, 1.0, 1.0, 0.1), "`b` must be finite, but got nan."),
        (lambda: mode_trajectory(1.0, 1.0, 0.0, 1.0, 0.1), "`sigma` must be positive, but got 0."),
        (lambda: half_time(1.0, 1.0, 0.0, 0.1), "`kappa` must be positive, but got 0."),
        (lambda: half_time(1.0, 1.0, 1.0, -0.1), "`y0` must be zero or positive, but got -0.1."),
        (lambda: final_ranking([1.0], [-1.0]), "`sigma` must be positive, but got -1."),
        (lambda: plateau_escape_rate(0.0, 1.0, 1.0, 1.0), "`b_in` must be positive, but got 0."),
        (lambda: infonce_mode_rate(0.1, 0.0, 0.0), "`a + c` must be positive, but got 0."),
        (lambda: infonce_mode_trajectory(1.0, 1.0, 1.0, 0.1, 0.0), "`temperature` must be positive, but got 0."),
        (lambda: infonce_mode_rate(0.1, 1.0, 1.0, alpha=-1.0), "`alpha` must be zero or positive, but got -1."),
        (lambda: infonce_mode_trajectory(1.0, 1.0, 1.0, -0.1), "`y0` must be zero or positive, but got -0.1."),
    ],
)  # fmt: skip
def test_what_is_refused(call, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        call()
