"""Norms and angles of scale-invariant weights: fixed points, rotating and random gradients, learning-rate changes."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from theory.noether import (
    adam_l2_equilibrium_norm,
    adamw_equilibrium_norm,
    angle_after_drop,
    effective_learning_rate,
    equilibrium_angle,
    equilibrium_norm,
    equilibrium_norm_momentum,
    norm_relaxation,
    relaxation_multiplier,
    rotating_equilibrium_norm,
    squared_norm_sgd,
    step_size_ratio,
    undecayed_learning_rate,
    weight_decay_for_angle,
)

relaxed, grown = jax.jit(norm_relaxation), jax.jit(squared_norm_sgd)
TURN = np.array([[0.0, -1.0], [1.0, 0.0]])


def test_printed_values():
    np.testing.assert_allclose(equilibrium_norm(0.2, 0.01, 1.5**0.5) ** 4, 15.01501502, rtol=5e-10)
    np.testing.assert_allclose(np.degrees(equilibrium_angle(0.2, 0.01, 0.8)), 2.701199099, rtol=5e-10)
    np.testing.assert_allclose(step_size_ratio(0.2, 0.01, 0.8, decoupled=True), 0.02116483352, rtol=5e-10)
    np.testing.assert_allclose(squared_norm_sgd(2.0, np.full(50, 1.5), 0.2, 0.05)[-1], 1.773320241, rtol=5e-10)
    np.testing.assert_allclose(norm_relaxation(10.0, 2.0, 0.2, 0.05, 1.5**0.5), 1.770687799, rtol=5e-10)
    np.testing.assert_allclose(rotating_equilibrium_norm(0.2, 0.03, 0.7, 0.6) ** 4, 16.36401586, rtol=5e-10)


def test_norm_of_gradient_descent_is_the_fixed_point_of_its_step():
    slope = jax.jit(jax.grad(lambda *x: squared_norm_sgd(*x)[1]))
    for eta, lam, c in ((0.2, 0.05, 1.3), (0.7, 1.2, 0.4), (1e-3, 0.3, 5.0)):
        r = float(equilibrium_norm(eta, lam, c)) ** 2
        path = squared_norm_sgd(r, np.full(3, c**2), eta, lam)
        np.testing.assert_allclose(path, r, rtol=1e-13)
        by_step = slope(r, np.full(1, c**2), eta, lam)
        np.testing.assert_allclose(relaxation_multiplier(eta, lam), by_step, rtol=1e-12, atol=1e-13)
        for twin in ((eta * c**2 / (2 * lam)) ** 0.25, (eta * c**2 / lam / (2 + eta * lam)) ** 0.25):
            assert abs(squared_norm_sgd(twin**2, np.full(1, c**2), eta, lam)[1] / twin**2 - 1) > 1e-9
    assert relaxation_multiplier(1.0, 0.29) > 0 > relaxation_multiplier(1.0, 0.296)
    np.testing.assert_allclose(
        equilibrium_norm_momentum(0.2, 1e-6, 1.5, 0.0), equilibrium_norm(0.2, 1e-6, 1.5), rtol=1e-6
    )


def test_squared_norm_of_a_rayleigh_quotient_on_a_schedule():
    M, w, r, c2 = np.diag([1.0, 4.0, 6.0]), np.array([1.0, 0.5, -0.5]), [1.5], []
    eta = 0.2 * np.linspace(1, 0.1, 60)
    for step in eta:
        square = w @ w
        g = (M @ w - (w @ M @ w) / square * w) / square
        c2.append(g @ g * square)
        w = w - step * (g + 0.05 * w)
        r.append(w @ w)
    np.testing.assert_allclose(squared_norm_sgd(1.5, c2, eta, 0.05), r, rtol=1e-12)
    assert abs(squared_norm_sgd(1.5, c2, eta, 0.04)[-1] / r[-1] - 1) > 0.01
    single = squared_norm_sgd(np.float32(1.5), np.array(c2, np.float32), eta.astype(np.float32), 0.05)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, r, rtol=1e-5)


@pytest.mark.parametrize("decoupled", [False, True])
def test_a_rotating_gradient_reaches_norm_and_angle_exactly(decoupled):
    eta, lam, c = 0.2, 0.1, 0.7
    for beta in (0.0, 0.6, 0.9):
        w, v = np.array([1.0, 0.0]), np.zeros(2)
        for _ in range(8000):
            g = c * TURN @ w / (w @ w)
            v = beta * v + (g if decoupled else g + lam * w)
            before, w = w, w - eta * v - eta * lam * w * decoupled
        moved = w - before
        update = moved + eta * lam * before * decoupled
        r = w @ w
        assert abs(r / (before @ before) - 1) < 1e-13
        cosine = w @ before / np.sqrt(r * (before @ before))
        np.testing.assert_allclose(np.cos(equilibrium_angle(eta, lam, beta, decoupled=decoupled)), cosine, rtol=1e-12)
        ratio = np.sqrt(update @ update / (before @ before))
        np.testing.assert_allclose(step_size_ratio(eta, lam, beta, decoupled=decoupled), ratio, rtol=1e-11)
        if not decoupled:
            np.testing.assert_allclose(
                rotating_equilibrium_norm(eta, lam, c, beta), np.sqrt(np.sqrt(r * r)), rtol=1e-12
            )
        if beta:
            other = equilibrium_angle(eta, lam, beta, decoupled=not decoupled)
            assert abs(np.cos(other) - cosine) > 1e-3


def test_smooth_norm_is_the_rotating_one_for_small_decay():
    for lam in (1e-4, 1e-6):
        smooth = equilibrium_norm_momentum(0.2, lam, 0.7, 0.6, "smooth")
        np.testing.assert_allclose(smooth, rotating_equilibrium_norm(0.2, lam, 0.7, 0.6), rtol=lam)
    rho = 0.5 ** np.arange(1, 60)
    sums = [equilibrium_norm_momentum(0.2, 1e-4, 0.7, np.array([0.6, 0.9]), x) for x in (rho, [0.0], "white")]
    np.testing.assert_allclose((sums[0] / sums[2]) ** 4, 1 + 2 * np.array([0.3 / 0.7, 0.45 / 0.55]), rtol=1e-12)
    np.testing.assert_allclose(sums[1], sums[2], rtol=1e-15)
    ratio = (equilibrium_norm_momentum(0.2, 1e-4, 0.7, 0.9, "smooth") / sums[2][1]) ** 4
    np.testing.assert_allclose(ratio, 19, rtol=1e-12)
    np.testing.assert_allclose(
        rotating_equilibrium_norm(0.2, 0.3, 0.7, 0.0), equilibrium_norm(0.2, 0.3, 0.7), rtol=1e-14
    )


def random_walk(key, D, beta, eta, lam, correlation, steps):
    """Mean norm^4, squared step over squared norm, and cosine, of heavy ball on an autoregressive gradient."""

    def step(state, key):
        w, v, noise = state
        noise = correlation * noise + jnp.sqrt(1 - correlation**2) * jax.random.normal(key, (D,))
        r = w @ w
        g = (noise - (noise @ w) / r * w) / jnp.sqrt(D * r)
        v = beta * v + g + lam * w
        after = w - eta * v
        angle = after @ w / jnp.sqrt(r * (after @ after))
        return (after, v, noise), jnp.array([r**2, eta**2 * v @ v / r, 1 - angle])

    start = jnp.zeros(D).at[0].set(equilibrium_norm_momentum(eta, lam, 1.0, beta)), jnp.zeros(D), jnp.zeros(D)
    return jnp.mean(jax.lax.scan(step, start, jax.random.split(key, steps))[1][steps // 3 :], axis=0)


@pytest.mark.thorough
def test_random_gradients_reach_norm_and_angle_on_average():
    walk = jax.jit(random_walk, static_argnums=(1, 6))
    D, beta, eta, lam = 200, 0.8, 0.5, 0.01
    white = walk(jax.random.key(0), D, beta, eta, lam, 0.0, 8000)
    np.testing.assert_allclose(white[0], equilibrium_norm_momentum(eta, lam, 1.0, beta) ** 4, rtol=0.02)
    np.testing.assert_allclose(white[1], step_size_ratio(eta, lam, beta) ** 2, rtol=0.01)
    np.testing.assert_allclose(white[2], 1 - np.cos(equilibrium_angle(eta, lam, beta)), rtol=0.01)
    smooth = walk(jax.random.key(1), D, beta, eta, lam, 0.5, 8000)
    np.testing.assert_allclose(smooth[1], step_size_ratio(eta, lam, beta) ** 2, rtol=0.01)
    rho = 0.5 ** np.arange(1, 80)
    found = equilibrium_norm_momentum(eta, lam, 1.0, beta, rho) ** 4
    np.testing.assert_allclose(smooth[0], found, rtol=0.06)
    assert abs(smooth[0] / white[0] - 1) > 1
    assert abs(step_size_ratio(eta, lam) ** 2 / white[1] - 1) > 0.5


def adam_norm(tx, key, D, c, start, steps):
    """Mean norm under an optimizer of optax, on white gradients across the weight."""

    def step(state, key):
        w, memory = state
        noise = jax.random.normal(key, (D,))
        r = w @ w
        g = c * (noise - (noise @ w) / r * w) / jnp.sqrt(D * r)
        with jax.numpy_dtype_promotion("standard"):
            moved, memory = tx.update(g, memory, w)
        return (w + moved, memory), jnp.sqrt(r)

    w = start * jax.random.normal(key, (D,)) / jnp.sqrt(D)
    norms = jax.lax.scan(step, (w, tx.init(w)), jax.random.split(key, steps))[1]
    return jnp.mean(norms[steps // 2 :])


@pytest.mark.thorough
def test_adam_reaches_its_norms():
    D, eta, lam = 300, 0.0122474487, 0.816496581
    theory = adamw_equilibrium_norm(eta, lam, D, 0.9)
    tx = optax.adamw(eta, b1=0.9, b2=0.9999, eps=0.0, weight_decay=lam)
    found = jax.jit(lambda key: adam_norm(tx, key, D, 1.0, theory, 3000))(jax.random.key(0))
    np.testing.assert_allclose(found, theory, rtol=0.02)
    assert abs((eta * D / (2 * lam)) ** 0.5 / found - 1) > 0.03  # the leading order
    assert abs(adamw_equilibrium_norm(eta, lam, D, 0.99) / found - 1) > 0.1
    np.testing.assert_allclose(adamw_equilibrium_norm(1e-5, 0.3, D, 0.5), (1e-5 * D / 0.6) ** 0.5, rtol=1e-4)
    eta, lam, c = 0.005, 2e-3, 0.5
    theory = adam_l2_equilibrium_norm(eta, lam, c, D)
    tx = optax.chain(optax.add_decayed_weights(lam), optax.adam(eta, b1=0.0, b2=0.9999, eps=0.0))
    found = jax.jit(lambda key: adam_norm(tx, key, D, c, theory, 3000))(jax.random.key(1))
    np.testing.assert_allclose(found, theory, rtol=0.02)


def test_relaxation_in_continuous_time():
    t = np.array([0.0, 1.0, 30.0])
    for lam in (0.0, 1e-14, 1e-9, 0.05, 3.0):
        found = relaxed(t, 2.0, 0.2, lam, 1.2)
        pushed = 2 * 0.2 * 1.44 * (-np.expm1(-4 * lam * t) / (4 * lam) if lam else t)
        np.testing.assert_allclose(found, np.sqrt(4 * np.exp(-4 * lam * t) + pushed), rtol=1e-12)
    np.testing.assert_allclose(relaxed(1e6, 2.0, 0.2, 0.05, 1.2), (0.2 * 1.44 / 0.1) ** 0.5, rtol=1e-14)
    etas, errors = 0.1 / 2 ** np.arange(4), []
    for eta in etas:
        k = np.arange(round(4 / eta) + 1)
        path = grown(2.0, np.full(320, 1.44), eta, 0.3)[: len(k)]
        errors.append(np.max(np.abs(relaxed(eta * k, 2.0, eta, 0.3, 1.2) - path)))
    assert abs(np.polyfit(np.log(etas), np.log(errors), 1)[0] - 1) < 0.1
    slope, h = jax.jit(jax.grad(norm_relaxation, 3)), 1e-6
    for lam in (0.0, 1e-3):
        ends = [relaxed(2.0, 2.0, 0.2, x, 1.2) for x in (lam, lam + h, lam + 2 * h)]
        by_step = (-3 * ends[0] + 4 * ends[1] - ends[2]) / (2 * h)
        np.testing.assert_allclose(slope(2.0, 2.0, 0.2, lam, 1.2), by_step, rtol=1e-6)


def test_without_decay_the_effective_rate_forgets_the_rate():
    for eta in (0.3, 3.0):
        r = squared_norm_sgd(1.0, np.full(10_000, 1.44), eta)[-1]
        rate = effective_learning_rate(eta, r)
        np.testing.assert_allclose(rate, undecayed_learning_rate(10_000, 1.2), rtol=1e-3)
    assert abs(rate * 1.2 * 100 - 1) > 0.2


@pytest.mark.thorough
def test_angle_after_a_change_of_the_rate():
    for after in (0.02, 1.0):
        errors = []
        for scale in (1.0, 0.5, 0.25, 0.125):
            eta, lam = 0.2, 0.05 * scale
            r = float(equilibrium_norm(eta, lam, 1.3)) ** 2
            k = np.arange(round(1 / (after * lam)))
            path = np.array(grown(r, np.full(8000, 1.69), after, lam))[: len(k)]
            angle = np.arctan(after * 1.3 / path / (1 - after * lam))
            errors.append(np.max(np.abs(angle_after_drop(k, eta, after, lam) / angle - 1)))
        np.testing.assert_allclose(np.diff(np.log2(errors)), -1, atol=0.15)
    np.testing.assert_allclose(angle_after_drop(0, 0.2, 0.02, 0.01), (2 * 0.2 * 0.01) ** 0.5 / 10, rtol=1e-14)
    np.testing.assert_allclose(angle_after_drop(1e9, 0.2, 0.02, 0.01), (2 * 0.02 * 0.01) ** 0.5, rtol=1e-14)
    np.testing.assert_allclose(angle_after_drop(1e9, 0.2, 0.02, 0.01), equilibrium_angle(0.02, 0.01), rtol=1e-3)


def test_decay_for_an_angle_is_the_inverse_also_in_single_precision():
    eta, lam, beta = np.array([0.1, 0.5, 1e-3]), np.array([1e-12, 0.3, 2.0]), np.array([0.0, 0.9, 0.99])
    angle = equilibrium_angle(eta, lam, beta)
    np.testing.assert_allclose(weight_decay_for_angle(angle, eta, beta), lam, rtol=1e-13)
    np.testing.assert_allclose(angle, np.sqrt(2 * eta * lam / (1 + beta)), rtol=0.02)
    small = [x.astype(np.float32) for x in (eta, lam, beta)]
    for f in (equilibrium_angle, step_size_ratio):
        for decoupled in (False, True):
            single = f(*small, decoupled=decoupled)
            assert single.dtype == np.float32
            np.testing.assert_allclose(single, f(eta, lam, beta, decoupled=decoupled), rtol=1e-5)


def refuses(call, words):
    with pytest.raises(ValueError, match="^" + re.escape(words) + "$"):
        call()


def test_bad_arguments_are_named():
    for f in (
        lambda eta, lam: equilibrium_norm(eta, lam, 1.0),
        lambda eta, lam: equilibrium_norm_momentum(eta, lam, 1.0, 0.9),
        lambda eta, lam: rotating_equilibrium_norm(eta, lam, 1.0, 0.9),
        lambda eta, lam: adamw_equilibrium_norm(eta, lam, 10),
        lambda eta, lam: step_size_ratio(eta, lam, decoupled=True),
        lambda eta, lam: angle_after_drop(1, eta, 0.1, lam),
        equilibrium_angle,
        relaxation_multiplier,
    ):
        refuses(lambda f=f: f(0.1, 0.0), "`weight_decay` must be positive, but got 0.")
        refuses(lambda f=f: f(-0.1, 0.1), "`eta` must be positive, but got -0.1.")
        refuses(lambda f=f: f(0.5, 2.0), "`weight_decay` must be below 1 / `eta`, but got 2.")
    words = "`gradient_norm` must be positive, but got 0."
    refuses(lambda: equilibrium_norm(0.1, 0.1, 0.0), words)
    refuses(lambda: norm_relaxation(1.0, 1.0, 0.1, 0.1, 0.0), words)
    refuses(lambda: norm_relaxation(1.0, 0.0, 0.1, 0.1, 1.0), "`r0` must be positive, but got 0.")
    refuses(lambda: squared_norm_sgd(0.0, np.ones(3), 0.1), "`r0` must be positive, but got 0.")
    words = "`squared_gradient_norms` must be zero or positive, but got -1."
    refuses(lambda: squared_norm_sgd(1.0, [-1.0], 0.1), words)
    words = "`r0` and `squared_gradient_norms` must have shapes () and (K,), but got () and ()."
    refuses(lambda: squared_norm_sgd(1.0, 1.0, 0.1), words)
    words = "`eta` must be a number or one for each of 3 steps, but got shape (2,)."
    refuses(lambda: squared_norm_sgd(1.0, np.ones(3), [0.1, 0.1]), words)
    words = "`momentum` must be zero or positive, and below 1, but got 1."
    refuses(lambda: equilibrium_norm_momentum(0.1, 0.1, 1.0, 1.0), words)
    words = "`autocorrelation` must be numbers, white or smooth, but got pink."
    refuses(lambda: equilibrium_norm_momentum(0.1, 0.1, 1.0, 0.9, "pink"), words)
    words = "`autocorrelation` must have shape (J,), but got ()."
    refuses(lambda: equilibrium_norm_momentum(0.1, 0.1, 1.0, 0.9, 0.5), words)
    refuses(lambda: weight_decay_for_angle(0.0, 0.1), "`angle` must be between 0 and pi / 2, both excluded, but got 0.")
    refuses(lambda: adam_l2_equilibrium_norm(0.1, 0.0, 1.0, 10), "`weight_decay` must be positive, but got 0.")
    refuses(lambda: effective_learning_rate(0.1, 0.0), "`squared_norm` must be positive, but got 0.")
    refuses(lambda: undecayed_learning_rate(0, 1.0), "`steps` must be positive, but got 0.")
