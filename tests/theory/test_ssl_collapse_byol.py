"""BYOL's modes: printed values, fifty digits, the matrix loss, SciPy's integrator, and the two sides of every edge."""

import re

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.integrate import solve_ivp

from theory.ssl_collapse import (
    byol_critical_decay,
    byol_critical_start,
    byol_fixed_points,
    byol_flow,
    byol_invariant,
    byol_survives,
    byol_trajectory,
)

A, C = np.array([1.4, 0.9, 0.7, 0.4]), np.array([0.4, 0.3, 0.5, 0.3])
MODE = {"a": 0.9, "c": 0.3, "weight_decay": 0.045}


def test_printed_values():
    np.testing.assert_allclose(byol_fixed_points(1.2, 0.4, 0.12), [0.6311737691, 0.1188262309], rtol=5e-10)
    np.testing.assert_allclose(byol_critical_decay(1.2, 0.4), 0.225, rtol=1e-15)
    np.testing.assert_allclose(byol_critical_decay(A, C), [0.2722, 0.1688, 0.1021, 0.0571], atol=5e-5)
    how = {"a": 1.2, "c": 0.4, "weight_decay": 0.06, "predictor_rate": 1.5, "ema_rate": 0.5}
    end = byol_trajectory([6.0], 0.2, 0.4, 0.7, **how, steps=400)
    np.testing.assert_allclose(np.ravel(end), [0.687902933, 0.497194473, 0.981061068], rtol=2e-9)


def test_fixed_points_to_fifty_digits_and_where_they_merge():
    random = np.random.default_rng(0)
    a, c, tau = random.uniform(0.1, 2.0, (3, 60))
    eta = byol_critical_decay(a, c, tau) * np.r_[random.uniform(0, 1, 50), 10.0 ** -np.arange(1, 11)]
    found = byol_fixed_points(a, c, eta, tau)
    for k in range(60):
        with mp.workdps(50):
            x, s, e = (mp.mpf(float(v)) for v in (tau[k] * a[k], a[k] + c[k], eta[k]))
            root = mp.sqrt(x**2 - 4 * e * s)
            exact = [(x + root) / (2 * s), (x - root) / (2 * s)]
        loss = x**2 / root**2
        for value, truth in zip((found.stable[k], found.saddle[k]), exact, strict=True):
            assert abs(float(value) / truth - 1) < 1e-14 * loss
    both = byol_fixed_points(1.0, 0.0, 0.25)
    assert both.stable == both.saddle == 0.5
    assert np.isnan(byol_fixed_points(1.0, 0.0, 0.25 + 1e-9)).all()
    np.testing.assert_allclose(byol_fixed_points(a, c, 0.0).stable, a / (a + c), rtol=1e-15)
    assert not np.any(byol_fixed_points(a, c, 0.0).saddle)
    assert byol_survives(0.1188263, 1.2, 0.4, 0.12)
    assert not byol_survives(0.1188262, 1.2, 0.4, 0.12)
    assert not byol_survives(5.0, 1.2, 0.4, 0.2251)


@pytest.mark.thorough
def test_fixed_points_are_zeros_of_the_flow_and_have_their_stability():
    points = byol_fixed_points(A, C, 0.045)
    for p, stable in ((points.stable, True), (points.saddle, False)):
        state = jnp.stack([p, p**2 / 1.3, jnp.ones(4)])

        def field(x, ema_rate=0.4):
            return jnp.stack(byol_flow(*x, A[:1], C[:1], 0.045, predictor_rate=1.3, ema_rate=ema_rate))

        np.testing.assert_allclose(byol_flow(*state, A, C, 0.045, predictor_rate=1.3, ema_rate=0.4), 0, atol=1e-16)
        np.testing.assert_allclose(byol_flow(*state, A, C, 0.045, predictor_rate=1.3), 0, atol=1e-16)
        rates = np.linalg.eigvals(jax.jacfwd(field)(state[:, :1])[:, 0, :, 0])
        assert (rates.real.max() < 0) == stable
        np.testing.assert_allclose(rates[np.argmin(abs(rates + 0.09))], -0.09, rtol=1e-10)


def test_the_flow_is_that_of_the_matrix_loss():
    random = np.random.default_rng(1)
    q = np.linalg.qr(random.normal(size=(2, 4, 4)))[0]
    p, w, tau = random.uniform(0.2, 1.0, (3, 4))
    alpha, beta, eta = 1.7, 0.4, 0.06
    W, P = q[0] @ np.diag(w) @ q[1].T, q[0] @ np.diag(p) @ q[0].T
    target = q[0] @ np.diag(tau * w) @ q[1].T
    clean, views = (q[1] @ np.diag(x) @ q[1].T for x in (A, A + C))

    def loss(W, P):
        F = P @ W
        return jnp.trace(F @ views @ F.T) / 2 - jnp.trace(F @ clean @ target.T)

    gW, gP = jax.grad(loss, (0, 1))(W, P)
    dw = np.diag(q[0].T @ (-gW - eta * W) @ q[1])
    dp = np.diag(q[0].T @ (-alpha * gP - eta * P) @ q[0])
    dtau = (beta * (w - tau * w) - tau * dw) / w
    found = byol_flow(p, w**2, tau, A, C, eta, predictor_rate=alpha, ema_rate=beta)
    np.testing.assert_allclose(found, [dp, 2 * w * dw, dtau], rtol=1e-12)
    np.testing.assert_allclose(byol_flow(p, w**2, tau, A, C, eta).tau, 0, atol=0)


@pytest.mark.thorough
def test_trajectories_are_those_of_scipy_and_keep_the_invariant():
    times = np.array([0.0, 0.7, 3.0, 20.0])
    for ema in (None, 0.5):
        how = {"predictor_rate": 1.5, "ema_rate": ema}

        def field(_, x, how=how):
            return np.asarray(byol_flow(*x, *MODE.values(), **how))

        exact = solve_ivp(field, (0, 20), [0.2, 0.4, 0.8], "DOP853", times, rtol=1e-11, atol=1e-12).y
        found = byol_trajectory(times, 0.2, 0.4, 0.8, **MODE, **how, steps=400)
        np.testing.assert_allclose(found, exact, rtol=2e-9)
        invariant = byol_invariant(times, 0.2, 0.4, MODE["weight_decay"], 1.5)
        np.testing.assert_allclose(found.w2 - found.p**2 / 1.5, invariant, rtol=1e-7)
    assert byol_trajectory(times, 0.2, np.full((3, 1), 0.4), a=A[None, :], c=C[None, :], weight_decay=0.01).p.shape == (
        4,
        3,
        4,
    )


@pytest.mark.thorough
def test_a_target_network_moves_no_boundary_that_starts_at_the_encoder():
    p = byol_fixed_points(A, C, 0.045).saddle[None, :] * np.array([[0.98], [1.02]])
    for ema in (None, 0.3):
        how = {"a": A[None, :], "c": C[None, :], "weight_decay": 0.045, "ema_rate": ema, "steps": 6000}
        end = byol_trajectory([3000.0], p, p**2, **how).p[0]
        np.testing.assert_allclose(end[0], 0, atol=1e-12)
        np.testing.assert_allclose(end[1], byol_fixed_points(A, C, 0.045).stable, rtol=1e-9)
        assert np.array_equal(end > 0.1, byol_survives(p, A[None, :], C[None, :], 0.045))


@pytest.mark.thorough
def test_the_basin_off_the_parabola_ends_where_trajectories_part():
    for alpha, c0 in ((1.0, -0.2), (1.0, -0.02), (1.0, 0.003), (1.0, 0.006), (2.0, -0.1), (2.0, 0.002)):
        edge = float(byol_critical_start(c0, *MODE.values(), alpha))
        p = edge + np.array([-1e-7, 1e-7])
        w2 = p**2 / alpha + c0
        end = byol_trajectory([1500.0], p, w2, **MODE, predictor_rate=alpha, steps=5000).p[0]
        assert abs(end[0]) < 1e-9
        np.testing.assert_allclose(end[1], byol_fixed_points(*MODE.values()).stable, rtol=1e-6)
    edges = byol_critical_start(np.array([-0.1, -0.001, 0.0, 0.001, 0.006]), *MODE.values())
    assert np.all(np.diff(edges) < 0)
    np.testing.assert_allclose(edges[2], byol_fixed_points(*MODE.values()).saddle, rtol=1e-12)
    assert byol_critical_start(0.5, *MODE.values()) == -np.inf
    assert byol_critical_start(0.1, 0.9, 0.3, 0.17) == np.inf
    # An untrained predictor under a large encoder: it survives without any start of its own.
    end = byol_trajectory([400.0], -0.5, 0.75, **MODE, steps=2000).p[0]
    np.testing.assert_allclose(end, byol_fixed_points(*MODE.values()).stable, rtol=1e-9)


@pytest.mark.thorough
def test_gradients_jit_single_precision_and_broadcasting():
    check_grads(byol_fixed_points, (1.2, 0.4, 0.12, 0.9), order=1, modes=["rev"])
    check_grads(lambda e: byol_trajectory([2.0], 0.2, 0.4, **{**MODE, "weight_decay": e}).p, (0.05,), order=1)
    assert np.isfinite(jax.grad(lambda e: byol_fixed_points(1.0, 0.0, e).stable)(0.2))
    check_grads(
        lambda c0: byol_critical_start(c0, *MODE.values(), steps=400), (0.003,), order=1, modes=["fwd"], rtol=1e-3
    )
    for f, arguments in (
        (byol_critical_decay, (1.2, 0.4)),
        (byol_fixed_points, (1.2, 0.4, 0.12)),
        (byol_survives, (0.3, 1.2, 0.4, 0.12)),
        (byol_invariant, (2.0, 0.2, 0.4, 0.05)),
        (byol_flow, (0.2, 0.4, 0.9, 1.2, 0.4, 0.05)),
        (byol_critical_start, (0.002, 0.9, 0.3, 0.045)),
    ):
        np.testing.assert_allclose(jax.jit(f)(*arguments), f(*arguments), rtol=1e-13, atol=1e-15)
        single = f(*(np.float32(x)[None] for x in arguments))
        for x, y in zip(jax.tree.leaves(single), jax.tree.leaves(f(*arguments)), strict=True):
            assert x.dtype in (np.float32, bool)
            np.testing.assert_allclose(x[0], y, rtol=3e-5)
    assert byol_fixed_points(np.ones((2, 1)), np.ones((1, 3)), 0.01).stable.shape == (2, 3)
    assert byol_critical_start(np.full((2, 1), 0.01), A[None, :3], C[None, :3], 0.01, steps=50).shape == (2, 3)


def refuses(call, words):
    with pytest.raises(ValueError, match="^" + re.escape(words) + "$"):
        call()


def test_bad_arguments_are_named():
    refuses(lambda: byol_critical_decay(0.0, 0.1), "`a` must be positive, but got 0.")
    refuses(lambda: byol_fixed_points(1.0, -0.2, 0.1), "`c` must be zero or positive, but got -0.2.")
    refuses(lambda: byol_fixed_points(1.0, 0.2, -0.1), "`weight_decay` must be zero or positive, but got -0.1.")
    refuses(lambda: byol_fixed_points(1.0, 0.2, np.nan), "`weight_decay` must be zero or positive, but got nan.")
    refuses(lambda: byol_fixed_points(1.0, 0.2, 0.1, 0.0), "`tau` must be positive, but got 0.")
    refuses(lambda: byol_survives(np.inf, 1.0, 0.2, 0.1), "`p` must be finite, but got inf.")
    refuses(lambda: byol_flow(0.1, -0.1, 1.0, *MODE.values()), "`w2` must be zero or positive, but got -0.1.")
    refuses(lambda: byol_flow(0.1, 0.1, 1.0, *MODE.values(), ema_rate=0.0), "`ema_rate` must be positive, but got 0.")
    refuses(lambda: byol_trajectory([2.0, 1.0], 0.1, 0.1, **MODE), "`times` must be rising, but got 1.")
    refuses(lambda: byol_trajectory([-1.0], 0.1, 0.1, **MODE), "`times` must be zero or positive, but got -1.")
    refuses(
        lambda: byol_trajectory([1.0], 0.1, 0.1, **MODE, steps=0),
        "`steps` must be a whole number not below 1, but got 0.",
    )
    refuses(lambda: byol_critical_start(0.1, 1.0, 0.2, 0.0), "`weight_decay` must be positive, but got 0.")
    refuses(lambda: byol_invariant(1.0, 0.1, 0.1, 0.1, 0.0), "`predictor_rate` must be positive, but got 0.")
