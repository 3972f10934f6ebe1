"""Exact trajectories of a linear neuron: adaptive integration, many digits, the paper's forms, basins and times."""

import re

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.integrate import quad, solve_ivp

from theory.lazy_rich import (
    alignment_time,
    final_sign,
    fitted_norm,
    fitting_time,
    gradient_flow,
    reduced_velocity,
    separatrix,
    separatrix_cosine,
    turning_rate,
)
from theory.lazy_rich.single_neuron import linear_flow

RATES = {"eta_a": 0.6, "eta_w": 2.5}
flow = jax.jit(gradient_flow)
along = jax.jit(linear_flow)
distance = jax.jit(separatrix)
sign = jax.jit(final_sign)
cosine = jax.jit(separatrix_cosine)
velocity_of = jax.jit(reduced_velocity)
turning = jax.jit(turning_rate)
fit = jax.jit(fitting_time)
grown = jax.jit(fitted_norm)
align = jax.jit(alignment_time)


def weights(beta, delta, eta_a=1.0, eta_w=1.0):
    """A start of this product and imbalance, in numpy."""
    beta, delta = np.asarray(beta), np.asarray(delta)
    b2 = eta_a * eta_w * np.sum(beta**2, -1)
    larger = (np.abs(delta) + np.sqrt(delta**2 + 4 * b2)) / 2
    a = np.sqrt(np.where(delta >= 0, larger, b2 / larger) / eta_w)
    return beta / a[..., None], a


# t, w0, a0, beta_star, eta_a, eta_w -> a, w, Sigma
PRINTED = [
    (1.1, (0.5, -0.2, 0), 0.6, (0.3, 0.9, 0), 1, 1, 0.6654987638, (0.5002487319, 0.3501996728, 0), 0.5605972261),
    (
        2,
        (0.4, 1, -0.7),
        -0.8,
        (0.5, -0.2, 0.6),
        0.5,
        1.5,
        -0.6833032717,
        (-0.4584122456, 0.4666952863, -0.8383100894),
        -0.8251737699,
    ),
    (4, (0.5, 1.2, 0), 1.3, (-0.8, 0.1, 0), 1, 1, 0.8811718446, (-0.8582032094, 0.1998776402, 0), 0.7680935073),
    (25, (0.3, 2, 0), 0.02, (0.6, -0.3, 0), 2, 0.4, -0.2295868811, (-0.6075233487, 1.931677356, 0), -0.8391244728),
]


def test_trajectories_and_their_signs_keep_their_printed_digits():
    t, w0, a0, beta_star, eta_a, eta_w, a, w, sigma = (np.array(column) for column in zip(*PRINTED, strict=True))
    rates = {"eta_a": eta_a, "eta_w": eta_w}
    found_w, found_a = flow(t, w0, a0, beta_star, **rates)
    case = np.arange(4)
    np.testing.assert_allclose(found_a[case, case], a, rtol=0, atol=5e-11)
    np.testing.assert_allclose(found_w[case, case], w, rtol=0, atol=6e-10)
    np.testing.assert_allclose(distance(w0, a0, beta_star, **rates), sigma, rtol=0, atol=5e-11)
    np.testing.assert_array_equal(sign(w0, a0, beta_star, **rates), np.sign(a))


def integrate(w0, a0, beta_star, times, eta_a, eta_w, rtol=1e-12):
    """The real parameters of all starts at once."""
    count, d = w0.shape

    def velocity(_, state):
        w, a = state[: count * d].reshape(count, d), state[count * d :]
        v = beta_star - a[:, None] * w
        return np.concatenate([((eta_w * a)[:, None] * v).ravel(), eta_a * np.sum(w * v, -1)])

    start = np.concatenate([w0.ravel(), a0])
    options = {"method": "DOP853", "rtol": rtol, "atol": rtol}
    path = solve_ivp(velocity, (0, times[-1]), start, t_eval=times, **options).y.T
    return path[:, : count * d].reshape(-1, count, d).transpose(1, 0, 2), path[:, count * d :].T


def starts(seed, count=20, d=3):
    """Random ones; the first is balanced, the second orthogonal, the third without a target, the fourth at a = 0."""
    rng = np.random.default_rng(seed)
    w0, beta_star = rng.normal(size=(2, count, d))
    a0, rates = rng.normal(size=count), rng.uniform(0.4, 2, (2, count))
    a0[0] = -((rates[0, 0] / rates[1, 0]) ** 0.5) * np.linalg.norm(w0[0])
    beta_star[1] -= w0[1] * (w0[1] @ beta_star[1]) / (w0[1] @ w0[1])
    beta_star[2], a0[3] = 0, 0
    return w0, a0, beta_star, *rates


def test_trajectories_are_those_of_adaptive_integration():
    w0, a0, beta_star, eta_a, eta_w = starts(0)
    times = np.array([0.05, 0.4, 1.5, 4.0, 12.0])
    w, a = flow(times, w0, a0, beta_star, eta_a=eta_a, eta_w=eta_w)
    assert w.shape == (20, 5, 3)
    assert a.shape == (20, 5)
    real_w, real_a = integrate(w0, a0, beta_star, times, eta_a, eta_w)
    np.testing.assert_allclose(w, real_w, rtol=0, atol=1e-10)
    np.testing.assert_allclose(a, real_a, rtol=0, atol=1e-10)
    crosses = np.sign(real_a[:, -1]) != np.sign(a0)
    assert crosses[4:].sum() >= 2
    kept = eta_w[:, None] * a**2 - eta_a[:, None] * np.sum(w**2, -1)
    np.testing.assert_allclose(kept, np.tile(kept[:, :1], 5), rtol=0, atol=1e-12)
    assert abs(kept[0, 0]) < 1e-15

    def of_layers(delta):
        s = np.linalg.norm(beta_star, axis=-1)
        p0 = np.sum(w0 * beta_star, -1) / np.where(s > 0, s, 1)
        across2 = eta_a * (np.sum(w0**2, -1) - p0**2)
        layers = np.sqrt(eta_a) * p0, np.sqrt(eta_w) * a0, across2, np.sqrt(eta_a * eta_w) * s, delta
        return along(np.broadcast_to(times, (20, 5)), *(np.tile(x[:, None], 5) for x in layers))[1]

    delta = eta_w * a0**2 - eta_a * np.sum(w0**2, -1)
    real = np.sqrt(eta_w)[:, None] * real_a
    np.testing.assert_allclose(of_layers(delta), real, rtol=0, atol=1e-10)
    for twin in (-delta, 0 * delta):
        assert np.all(np.abs(of_layers(twin) - real).max(axis=1)[np.abs(delta) > 0.3] > 1e-3)
    swapped = flow(times, w0, a0, beta_star, eta_a=eta_w, eta_w=eta_a)[1]
    assert np.median(np.abs(swapped - real_a)) > 0.01


def in_many_digits(t, w0, a0, beta_star):
    """beta(t) by the plain formula, in 60 digits."""
    with mpmath.workdps(60):
        w0, beta_star = (mpmath.matrix([float(x) for x in v]) for v in (w0, beta_star))
        t, a0 = mpmath.mpf(float(t)), mpmath.mpf(float(a0))
        s = mpmath.norm(beta_star)
        hat = beta_star / s
        p0 = (w0.T * hat)[0]
        across = w0 - p0 * hat
        delta = a0**2 - (w0.T * w0)[0]
        lam = mpmath.sqrt(delta**2 / 4 + s**2)
        ch, sh = mpmath.cosh(lam * t), mpmath.sinh(lam * t) / lam
        P, Q = p0 * ch + (s * a0 - delta / 2 * p0) * sh, a0 * ch + (s * p0 + delta / 2 * a0) * sh
        fade = mpmath.exp(-delta * t / 2)
        c2 = delta / (Q**2 - P**2 - fade**2 * (across.T * across)[0])
        return np.array([float(c2 * Q * x) for x in P * hat + fade * across])


def off_the_separatrix(delta, angle, dtype=np.float64):
    """A start of ||beta_0|| = 0.7, rotated off the stable manifold of the saddle of beta_* = (1, 0.25)."""
    beta_star = np.array([1.0, 0.25])
    theta = np.arccos(cosine(0.7, np.linalg.norm(beta_star), delta)) + angle + np.arctan2(0.25, 1)
    w0, a0 = weights(0.7 * np.array([np.cos(theta), np.sin(theta)]), delta)
    return *(np.array(x, dtype) for x in (w0, a0)), beta_star.astype(dtype)


# A start is off the separatrix by `angle` only up to rounding, which the saddle magnifies by 1 / angle.
@pytest.mark.parametrize("angle", [0.8, 1e-3, 1e-9])
def test_many_digits_also_next_to_the_separatrix(angle):
    times = np.array([0.01, 1.0, 20.0, 90.0])
    for delta in (-8.0, -2.0, -1e-3):
        w0, a0, beta_star = off_the_separatrix(delta, angle)
        w, a = flow(times, w0, a0, beta_star)
        expected = [in_many_digits(t, w0, a0, beta_star) for t in times]
        np.testing.assert_allclose(w * a[:, None], expected, rtol=0, atol=1e-14 + 1e-17 / angle)
    for delta in (1e-9, 0.5, 30.0):
        w0, a0 = weights(np.array([-0.3, 0.6]), delta)
        w, a = flow(times, w0, a0, beta_star)
        expected = [in_many_digits(t, w0, a0, beta_star) for t in times]
        np.testing.assert_allclose(w * a[:, None], expected, rtol=0, atol=1e-13)


def test_the_papers_own_forms():
    t, beta_star, s = np.array([0.1, 0.5, 1.0, 2.0, 6.0]), np.array([0.6, -0.3]), 0.45**0.5
    for delta in (-1.5, 0.0, 0.8):
        w0, a0 = map(np.array, weights(np.array([0.4, 0.5]), delta))
        w, a = flow(t, w0, a0, beta_star)
        root = np.sqrt(4 * s**2 + delta**2)
        phase = np.arctanh((delta + 2 * w0 @ beta_star / a0) / root + 0j)
        nu = (-delta + root * np.tanh(t / 2 * root + phase)) / 2
        np.testing.assert_allclose(w @ beta_star / a, nu, rtol=1e-12)
    w0, a0 = map(np.array, weights(np.array([0.4, 0.5]), 0.0))
    w, a = flow(t, w0, a0, beta_star)
    x = np.arctanh(w0 @ beta_star / np.linalg.norm(w0) / s) + s * np.append(0, t)
    c2 = (np.cosh(2 * x[0]) + 1) / 0.41**0.5 - (2 * x[0] + np.sinh(2 * x[0])) / s
    phi, mu = np.tanh(x), s * (np.cosh(2 * x) + 1) / (2 * x + np.sinh(2 * x) + c2 * s)
    np.testing.assert_allclose(w @ beta_star / s / np.linalg.norm(w, axis=-1), phi[1:], rtol=1e-12)
    np.testing.assert_allclose(a * np.linalg.norm(w, axis=-1), mu[1:], rtol=1e-12)
    assert abs(mu[0] - 0.41**0.5) < 1e-14
    for delta in (-1.0, 1.0):  # the balanced form belongs to delta = 0
        w, a = flow(t, *weights(np.array([0.4, 0.5]), delta), beta_star)
        assert np.abs(a * np.linalg.norm(w, axis=-1) - mu[1:]).max() > 0.02


def test_norm_and_alignment_move_as_the_reduced_system_says():
    w0, a0, beta_star, eta_a, eta_w = starts(1)
    w0, a0, beta_star, eta_a, eta_w = (x[4:] for x in (w0, a0, beta_star, eta_a, eta_w))
    s = np.linalg.norm(beta_star, axis=-1)

    def reduced(t):
        w, a = gradient_flow(t, w0, a0, beta_star, eta_a=eta_a, eta_w=eta_w)
        length = jnp.sqrt(jnp.sum(w**2, -1))
        return a * length, jnp.sum(w * beta_star, -1) / length / s, a / length

    (mu, phi, ratio), velocity = jax.jit(lambda t: jax.jvp(reduced, (t,), (jnp.ones_like(t),)))(jnp.array(0.4))
    delta = eta_w * a0**2 - eta_a * np.sum(w0**2, -1)
    rates = {"eta_a": eta_a, "eta_w": eta_w}
    found = velocity_of(mu, phi, s, delta, **rates)
    np.testing.assert_allclose(found, velocity[:2], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(turning(mu, delta, **rates), eta_w * ratio, rtol=1e-12)
    assert np.median(np.abs(velocity_of(mu, phi, s, -delta, **rates)[1] - found[1])) > 0.01
    with_cosine_of_beta = np.array(velocity_of(mu, np.sign(mu) * phi, s, delta, **rates))
    assert np.all(np.abs(with_cosine_of_beta[0] - found[0])[np.array(mu) < 0] > 1e-3)


def test_symmetries_and_limits():
    w0, a0, beta_star, eta_a, eta_w = starts(2)
    rates = {"eta_a": eta_a, "eta_w": eta_w}
    t = np.array([0.0, 0.3, 0.7, 1.0, np.inf])
    w, a = map(np.array, flow(t, w0, a0, beta_star, **rates))
    np.testing.assert_allclose(w[:, 0], w0, rtol=0, atol=1e-15)
    np.testing.assert_allclose(a[:, 0], a0, rtol=0, atol=1e-15)
    np.testing.assert_allclose((a[..., None] * w)[:, -1], beta_star, rtol=0, atol=1e-14)
    later = flow(t, w[:, 1], a[:, 1], beta_star, **rates)  # 0.3 + 0.7 = 1
    np.testing.assert_allclose(later[0][:, 2], w[:, 3], rtol=0, atol=1e-14)
    np.testing.assert_allclose(later[1][:, 2], a[:, 3], rtol=0, atol=1e-14)
    mirrored = flow(t, -w0, -a0, beta_star, **rates)
    np.testing.assert_allclose(mirrored[1], -a, rtol=0, atol=1e-15)
    g = np.sqrt(eta_a * eta_w)  # rates are scales
    start = (w0 / np.sqrt(eta_w)[:, None], a0 / np.sqrt(eta_a), beta_star / g[:, None])
    for i in (0, 5, 7):
        unit_w, unit_a = flow(g[i] ** 2 * t, *start)
        np.testing.assert_allclose((g[i] * unit_a[..., None] * unit_w)[i], (a[..., None] * w)[i], rtol=0, atol=1e-14)
    # No target: case 2 only shrinks.
    delta = eta_w[2] * a0[2] ** 2 - eta_a[2] * w0[2] @ w0[2]
    shrink = 1 + eta_a[2] * w0[2] @ w0[2] * (1 - np.exp(-delta * t[:4])) / delta
    shrink += eta_w[2] * a0[2] ** 2 * np.expm1(delta * t[:4]) / delta
    np.testing.assert_allclose(a[2, :4], a0[2] * np.exp(delta / 2 * t[:4]) / np.sqrt(shrink), rtol=1e-13)


def test_saddles_and_balanced_decay_stay_finite():
    for dtype in (np.float64, np.float32):
        t = np.array([0.0, 3.0, 1e3, np.inf], dtype)
        w, a = flow(t, *(np.array(x, dtype) for x in ((0, 1.3), 0, (2, 0))))
        np.testing.assert_allclose(a, 0, atol=1e-15)
        np.testing.assert_allclose(w, np.tile([0, 1.3], (4, 1)), rtol=1e-6)
        w, a = flow(t, *(np.array(x, dtype) for x in ((0, 0), 0, (2, 0))))
        assert not np.any(w)
        assert not np.any(a)
        w, a = flow(t, *(np.array(x, dtype) for x in ((-0.6, 0), 0.6, (2, 0))))  # on the balanced separatrix
        np.testing.assert_allclose(a, -w[:, 0], atol=1e-6)
        np.testing.assert_allclose(a[2:], 0, atol=1e-6)
        w, a = flow(t, *(np.array(x, dtype) for x in ((3, 4), 5, (0, 0))))  # s = delta = 0
        np.testing.assert_allclose(a[:3], 5 / np.sqrt(1 + 50 * t[:3]), rtol=1e-6)
        assert abs(a[3]) < 1e-8


def test_float32_keeps_six_digits_at_every_imbalance():
    t = np.linspace(0, 30, 301).astype(np.float32)
    beta_star = np.array([0.0, 1.0], np.float32)
    for delta in (0.0, 1e-6, -1e-6, 1.0, -1.0, 4.0, -4.0, 50.0, -50.0):
        w0, a0 = (np.array(x, np.float32) for x in weights(np.array([-1.0, 0.0]), delta))
        w, a = flow(t, w0, a0, beta_star)
        assert w.dtype == a.dtype == np.float32
        exact_w, exact_a = flow(*(np.float64(x) for x in (t, w0, a0, beta_star)))
        np.testing.assert_allclose(a[:, None] * w, exact_a[:, None] * exact_w, rtol=0, atol=1e-6)


def test_gradients_also_at_balance_and_without_a_target():
    # Balanced, orthogonal to the target, downstream, upstream.
    w0 = jnp.array([[0.6, 0.8], [0.3, 0.0], [1.0, 0.5], [0.2, -0.1]])
    a0, beta_star = jnp.array([1.0, 0.2, -0.3, 1.5]), jnp.array([[0.5, -0.7], [0.0, 1.0], [0.9, 0.2], [1.0, 1.0]])
    for times in (jnp.array([0.7]), jnp.array([15.0])):
        check_grads(flow, (times, w0, a0, beta_star), order=1, modes=["rev"], atol=1e-5, rtol=1e-5)
    _, pull = jax.vjp(flow, times, w0, a0, 0 * beta_star)
    assert all(np.all(np.isfinite(slope)) for slope in pull((w0[:, None, :], a0[:, None])))


def test_shapes_follow_starts_then_times():
    w0, a0, beta_star, _, _ = starts(3)
    t = np.array([[0.1, 0.5, 2.0], [1.0, 3.0, 9.0]])
    w, a = flow(t, w0.reshape(4, 5, 3), a0.reshape(4, 5), beta_star[0])
    assert w.shape == (4, 5, 2, 3, 3)
    assert a.shape == (4, 5, 2, 3)
    mapped = jax.jit(jax.vmap(gradient_flow, in_axes=(None, 0, 0, None)))(t[1, 1], w0, a0, beta_star[0])
    np.testing.assert_allclose(mapped[0], w[:, :, 1, 1].reshape(20, 3), rtol=1e-13)
    np.testing.assert_allclose(mapped[1], a[:, :, 1, 1].ravel(), rtol=1e-13)


def test_signs_of_two_hundred_random_starts():
    rng = np.random.default_rng(4)
    w0, beta_star = rng.normal(size=(2, 200, 2))
    beta_star /= np.linalg.norm(beta_star, axis=-1, keepdims=True)
    a0, (eta_a, eta_w) = 0.6 * rng.normal(size=200), rng.uniform(0.4, 2, (2, 200))
    rates = {"eta_a": eta_a, "eta_w": eta_w}
    predicted = np.array(sign(w0, a0, beta_star, **rates))
    w, a = integrate(w0, a0, beta_star, np.array([600.0]), eta_a, eta_w, rtol=1e-9)
    a, w = a[:, 0], w[:, 0]
    assert np.linalg.norm(a[:, None] * w - beta_star, axis=-1).max() < 1e-3
    np.testing.assert_array_equal(predicted, np.sign(a))
    phi = np.sum(w * beta_star, -1) / np.linalg.norm(w, axis=-1) / np.linalg.norm(beta_star, axis=-1)
    np.testing.assert_allclose(phi, predicted, atol=1e-3)
    assert np.sum(predicted != np.sign(a0)) > 15
    for twin in (np.sign(a0), np.sign(np.sum(w0 * beta_star, -1)), sign(w0, a0, beta_star)):
        assert np.sum(twin != predicted) > 3


@pytest.mark.parametrize("delta", [0.0, -2.0, -10.0])
def test_both_sides_of_the_separatrix_end_on_their_own(delta):
    for side in (1, -1):
        w0, a0, beta_star = off_the_separatrix(delta, side * 1e-3)
        w, a = flow(np.array([0.0, 1e3]), w0, a0, beta_star)
        # The further from the solution, the more w_0^T beta_* is below 0.
        expected = -side if delta else 1
        assert sign(w0, a0, beta_star) == np.sign(a[-1]) == expected
        np.testing.assert_allclose(a[-1] * w[-1], beta_star, rtol=1e-9)
    w0, a0, beta_star = off_the_separatrix(delta, 0.0)
    assert abs(distance(w0, a0, beta_star)) < 1e-15
    assert sign(w0, a0, beta_star) == 0
    assert sign(*off_the_separatrix(delta, 0.0, np.float32)) == 0
    assert sign(-w0, -a0, beta_star) == 0


def test_fitting_times_keep_their_printed_digits_and_are_integrals():
    mu, mu0, s = 0.8, 0.05, 1.5
    np.testing.assert_allclose(fit(mu, mu0, s, np.array([-2.0, 0.0])), (0.3262865413, 1.166942408), rtol=5e-10)
    rates = {"eta_a": 0.5, "eta_w": 1.2}
    np.testing.assert_allclose(fit(mu, mu0, s, 1.0, **rates), 0.5862771799, rtol=1e-10)
    delta = np.array([-3.0, -1e-7, 0.0, 0.4, 20.0])

    def waiting(m, delta):
        return 1 / (np.sqrt(delta**2 + 2.4 * m**2) * (s - m))

    expected = [quad(waiting, mu0, mu, args=(x,), epsabs=1e-13)[0] for x in delta]
    times = fit(mu, mu0, s, delta, **rates)
    np.testing.assert_allclose(times, expected, rtol=1e-11)
    np.testing.assert_allclose(fit(mu, mu0, s, -delta, **rates), times, rtol=1e-13)
    assert np.all(np.abs(fit(mu, mu0, s, delta) / times - 1)[:4] > 0.01)
    np.testing.assert_allclose(grown(times, mu0, s, delta, **rates), mu, rtol=1e-12)
    lazy, rich = np.log((s - mu0) / (s - mu)) / 1e6, np.log(mu * (s - mu0) / mu0 / (s - mu)) / (2 * s)
    np.testing.assert_allclose(fit(mu, mu0, s, np.array([1e6, -1e6, 1e-9])), (lazy, lazy, rich), rtol=1e-9)
    single = fit(*(np.float32(x) for x in (mu, mu0, s)), delta.astype(np.float32), **rates)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, times, rtol=3e-6)
    assert np.isfinite(fit(mu, 0.0, s, 0.3))
    assert fit(mu, 0.0, s, 0.0) == np.inf


def test_grown_norms_are_those_of_trajectories_along_the_solution():
    delta = np.array([-3.0, 0.0, 0.4, 20.0])
    t = np.array([0.0, 0.1, 1.0, 4.0, np.inf])
    w0, a0 = weights(np.tile([0.03, 0.04], (4, 1)), delta, **RATES)
    w, a = flow(t, w0, a0, np.array([0.9, 1.2]), **RATES)
    mu = grown(t[None, :], 0.05, 1.5, delta[:, None], **RATES)
    np.testing.assert_allclose(mu, a * np.linalg.norm(w, axis=-1), rtol=1e-12)
    np.testing.assert_allclose(mu[:, -1], 1.5, rtol=1e-15)
    assert grown(1.0, 0.0, 1.5, 0.0) == 0
    assert np.abs(mu - grown(t[None, :], 0.05, 1.5, 0.0, **RATES))[[0, 2, 3], 1:4].max(axis=1).min() > 0.05


def test_alignment_times_keep_their_printed_digits_and_end_at_the_cosine():
    w0, a0 = weights(np.array([[0.5], [0.5]]), np.array([-3.0, 3.0]))
    times = align(0.7, w0[:, 0], a0, 1.0)
    np.testing.assert_allclose(times, (10.17558247, 0.1297467062), rtol=5e-10)
    delta = np.array([-60.0, -3.0, 0.0, 0.7, 40.0])
    for phi in (1e-4, 0.7, 1 - 1e-6):
        w0, a0 = weights(np.tile([0.5, 0.0], (5, 1)), delta, **RATES)
        times = align(phi, w0[:, 0], a0, 1.3, **RATES)
        w, _ = flow(times, w0, a0, np.array([0.0, 1.3]), **RATES)
        w = np.array(w)[np.arange(5), np.arange(5)]
        reached = w[:, 0] / np.linalg.norm(w, axis=-1) / np.sqrt(1 - phi**2)
        np.testing.assert_allclose(reached, 1, rtol=1e-10)
        assert np.all(np.abs(align(phi, w0[:, 0], a0, 1.3) / times - 1) > 0.01)


def test_alignment_is_early_upstream_and_late_downstream():
    delta = np.array([-4.0, -16.0, -64.0, 1e4])
    w0, a0 = weights(np.tile([1.0], (4, 1)), delta)
    times = np.array(align(2**-0.5, w0[:, 0], a0, 1.0))
    size = np.abs(delta[:3])
    np.testing.assert_allclose(times[:3] / (size * np.log(size**2)), (1.124, 1.006, 1.0003), rtol=0, atol=5e-4)
    np.testing.assert_allclose(times[3] * 1e4, np.log(2), rtol=1e-3)
    far = align(
        np.array([1e-30, 0.5, 1 - 1e-15]), np.array([[1e-9], [1.0], [1e6]]), np.array([[1e6], [1.0], [1e-9]]), 1.0
    )
    assert np.all(np.isfinite(far))
    assert np.all(np.diff(far, axis=1) > 0)
    assert np.all(np.diff(far, axis=0) > 0)
    single = align(np.float32(2**-0.5), w0[:, 0].astype(np.float32), a0.astype(np.float32), np.float32(1))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single[:3], times[:3], rtol=1e-4)


def test_times_are_differentiable():
    mu0, s, delta = jnp.array([0.05, 0.1, 0.2]), jnp.array([1.5, 1.2, 1.0]), jnp.array([-2.0, 0.0, 0.7])

    @jax.jit
    def both(mu0, s, delta):
        return fitting_time(0.8 * s, mu0, s, delta), alignment_time(mu0 + 0.3, s, delta + 3, s)

    check_grads(both, (mu0, s, delta), order=1, modes=["rev"], atol=1e-5, rtol=1e-5)


def refuses(call, words):
    with pytest.raises(ValueError, match="^" + re.escape(words) + "$"):
        call()


def test_bad_arguments_are_named():
    w, b = np.array([0.5, 1.0]), np.array([1.0, 0.0])
    refuses(lambda: gradient_flow([1.0, -0.5], w, 1.0, b), "`t` must be zero or positive, but got -0.5.")
    refuses(lambda: gradient_flow(np.nan, w, 1.0, b), "`t` must be zero or positive, but got nan.")
    refuses(lambda: gradient_flow(1.0, w, 1.0, b, eta_a=0), "`eta_a` must be positive, but got 0.")
    refuses(lambda: gradient_flow(1.0, w, 1.0, b, eta_w=np.inf), "`eta_w` must be finite, but got inf.")
    refuses(lambda: gradient_flow(1.0, w, np.inf, b), "`a0` must be finite, but got inf.")
    words = "`w0` and `beta_star` must be vectors of one length, but got shapes (2,) and (3,)."
    refuses(lambda: gradient_flow(1.0, w, 1.0, np.ones(3)), words)
    refuses(lambda: final_sign(w, 1.0, np.ones(3)), words)
    refuses(lambda: separatrix(w, 1.0, b, eta_w=-2), "`eta_w` must be positive, but got -2.")
    words = "`delta` must be zero or negative, for there is no saddle above, but got 0.1."
    refuses(lambda: separatrix_cosine(1.0, 1.0, 0.1), words)
    refuses(lambda: separatrix_cosine(0.0, 1.0, -1.0), "`beta_norm` must be positive, but got 0.")
    refuses(lambda: reduced_velocity(0.0, 0.5, 1.0, 1.0), "`mu` must be different from 0, but got 0.")
    refuses(lambda: reduced_velocity(1.0, 1.5, 1.0, 1.0), "`phi` must be between -1 and 1, but got 1.5.")
    refuses(lambda: fitting_time(1.5, 0.1, 1.5, 1.0), "`mu` must be below `s`, but got 1.5.")
    refuses(lambda: fitting_time(0.05, 0.1, 1.5, 1.0), "`mu` must be at least `mu0`, but got 0.05.")
    refuses(lambda: fitting_time(0.5, 0.0, 1.5, 0.0), "`mu0` must be positive where `delta` is 0, but got 0.")
    refuses(lambda: fitting_time(0.5, -0.1, 1.5, 1.0), "`mu0` must be zero or positive, but got -0.1.")
    refuses(lambda: fitted_norm(-1.0, 0.1, 1.5, 1.0), "`t` must be zero or positive, but got -1.")
    refuses(lambda: alignment_time(0.5, 1.0, 0.0, 1.0), "`a0` must be positive, but got 0.")
    refuses(lambda: alignment_time(0.5, 1.0, 1.0, 0.0), "`s` must be positive, but got 0.")
    words = "`phi` must be between 0 and 1, both excluded, but got 1."
    refuses(lambda: alignment_time(np.array([0.5, 1.0]), 1.0, 1.0, 1.0), words)
