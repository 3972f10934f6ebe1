"""Charges in continuous time: fifty digits in every regime, direct sums, and the order in the step size."""

import re

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from jax.test_util import check_grads

from theory.noether import charge_rates, linear_charge, momentum_charge_ode, sgd_charge_ode

M = np.diag([1.0, 4.0, 6.0])
START = np.array([1.0, 0.5, -0.5])
DECAY = 0.3
curve = jax.jit(momentum_charge_ode, static_argnames=("linear", "corrected_start"))
decay = jax.jit(sgd_charge_ode, static_argnames=("linear", "improved_rate"))


def trained(eta, steps, beta):
    """Squared norm, [g]_A and [Delta]_A of a Rayleigh quotient under heavy ball."""
    w, v = START, np.zeros(3)
    r, g2, d2 = [w @ w], [], []
    for _ in range(steps):
        square = w @ w
        g = (M @ w - (w @ M @ w) / square * w) / square
        v = beta * v + g + DECAY * w
        w = w - eta * v
        r.append(w @ w)
        g2.append(g @ g)
        d2.append(eta**2 * v @ v)
    return np.array(r), np.array(g2), np.array(d2)


def slope(etas, errors):
    return np.polyfit(np.log(etas), np.log(errors), 1)[0]


def test_printed_values():
    np.testing.assert_allclose(charge_rates(0.05, 0.01, 0.8), [2.222222222, 0.6666666667], rtol=5e-10)
    np.testing.assert_allclose(charge_rates(0.05, 0.01, 0.8, linear=True)[1], 0.4714045208, rtol=5e-10)
    for arguments, printed in (
        ((1.5, 0.05, 0.3, 0.9), (0.01701042735, 0.03482646286)),
        ((1.0, 0.05, 0.5, 0.5), (0.1113293978, 0.1045107972)),
    ):
        found = [curve(1.0, *arguments, corrected_start=c) for c in (False, True)]
        np.testing.assert_allclose(found, printed, rtol=5e-10)


@pytest.mark.parametrize("linear", [False, True])
def test_fifty_digits_in_all_regimes(linear):
    t = np.array([0.0, 1e-9, 0.01, 0.3, 1.0, 7.0, 40.0])
    for beta in (0.0, 0.5, 0.9, 0.99):
        critical = (1 - beta) ** 2 / ((2 if linear else 4) * (1 + beta)) / 0.05
        for factor in (0.0, 1e-6, 0.5, 1 - 1e-4, 1 - 1e-10, 1.0, 1 + 1e-10, 1 + 1e-4, 3.0, 300.0):
            lam = critical * factor
            found = [curve(1.3, t, 0.05, lam, beta, linear=linear, corrected_start=c) for c in (False, True)]
            with mp.workdps(50):
                eta, b, decay = mp.mpf(0.05), mp.mpf(beta), mp.mpf(lam)
                gamma, square = (1 - b) / (eta * (1 + b)), (2 if linear else 4) * decay / (eta * (1 + b))
                root = mp.sqrt(mp.mpc(gamma**2 - square)) + mp.mpf(10) ** -25
                kick = -(1 if linear else 2) * decay / (1 + b)
                for x, rest, corrected in zip(t, *found, strict=True):
                    even, odd = mp.cosh(root * x), mp.sinh(root * x) / root
                    exact = [1.3 * mp.re(mp.exp(-gamma * x) * (even + (gamma + s) * odd)) for s in (0, kick)]
                    scale = abs(mp.exp(-gamma * x) * (abs(even) + gamma * abs(odd))) + mp.mpf(10) ** -290
                    # The rounding of gamma and omega is felt t times, near the critical point t^2 times.
                    turns = float((gamma + mp.sqrt(square)) * x)
                    allowed = (1e-13 + 1e-15 * turns + 3e-16 * turns**2) * (1 + abs(kick) / gamma)
                    for value, truth in zip((rest, corrected), exact, strict=True):
                        assert abs(float(value) - truth) <= allowed * scale
            assert found[0][0] == found[1][0] == 1.3


def test_sources_are_the_sums_on_and_off_the_grid():
    rng = np.random.default_rng(0)
    c0, source, eta, d = rng.normal(size=2), rng.uniform(size=(12, 2)), 0.1, 0.25
    t = np.array([0.0, 0.02, 0.05, 0.1, 0.33, 0.9, 1.2, 5.0])
    found = decay(c0, t, eta, 0.4, source)
    k = np.arange(12)
    passed = (eta * (k + 0.5))[None, :] < t[:, None]
    kernel = np.where(passed, np.exp(-0.8 * (t[:, None] - eta * k[None, :])), 0.0)
    np.testing.assert_allclose(found, np.exp(-0.8 * t)[:, None] * c0 + eta**2 * kernel @ source, rtol=1e-12)
    assert decay(c0, np.ones((2, 3)), eta, 0.4, source).shape == (2, 3, 2)

    for lam in (0.01, (1 - 0.6) ** 2 / (4 * 1.6) / (eta * (1 - d)), 2.0):
        gamma, omega = (float(x) for x in charge_rates(eta, lam, 0.6, dampening=d))
        step = eta * (1 - d)
        found = curve(c0, t, eta, lam, 0.6, source, dampening=d, corrected_start=True)
        root = np.sqrt(complex(gamma**2 - omega**2)) + 1e-9

        def G(x, gamma=gamma, root=root):
            return np.where(x > 0, np.real(np.exp(-gamma * x) * np.sinh(root * x) / root), 0.0)

        free = np.real(np.exp(-gamma * t) * np.cosh(root * t)) + (gamma - 2 * lam / 1.6) * G(t)
        kernel = 2 / step * G(t[:, None] - step * (k[None, :] + 0.5))
        np.testing.assert_allclose(found, free[:, None] * c0 + kernel @ source, rtol=1e-7)
        left = free[:, None] * c0 + 2 / step * G(t[:, None] - step * k[None, :]) @ source
        assert np.max(np.abs(left - found)) > 0.05


def on_one_grid(T, etas, beta):
    """Runs at several step sizes: all at the times of the largest, and at the first steps of each."""
    most = round(T / etas[-1])
    for eta in etas:
        steps = round(T / eta)
        r, g2, d2 = trained(eta, steps, beta)
        k = np.concatenate([np.arange(12), np.arange(0, steps + 1, round(etas[0] / eta))])
        s = linear_charge(1.0, steps, eta, DECAY, beta)
        yield eta, eta * k, r[k], np.array(s)[k], *(np.pad(x, (0, most - steps)) for x in (g2, d2))


def test_order_in_the_step_size_without_momentum():
    etas, plain, improved = 0.02 / 2 ** np.arange(4), [], []
    for eta, t, r, s, g2, _ in on_one_grid(3.0, etas, 0.0):
        plain.append(np.max(np.abs(decay(1.5, t, eta, DECAY, g2) - r)))
        improved.append(np.max(np.abs(decay(1.5, t, eta, DECAY, g2, improved_rate=True) - r)))
        assert np.max(np.abs(decay(1.0, t, eta, DECAY, linear=True, improved_rate=True) - s)) < 0.1 * eta**2
        assert np.max(np.abs(decay(1.0, t, eta, DECAY, linear=True) - s)) > 1e-2 * eta
    assert abs(slope(etas, plain) - 1) < 0.1
    assert abs(slope(etas, improved) - 2) < 0.1
    assert improved[-1] < 1e-5


def test_order_in_the_step_size_with_momentum():
    # Decay shortens the weight until steps overshoot; that is later than this.
    etas = 0.002 / 2 ** np.arange(4)
    errors = {name: [] for name in ("rest", "corrected", "layer", "linear rest", "linear corrected")}
    for eta, t, r, s, _, d2 in on_one_grid(1.5, etas, 0.8):
        late = t >= 0.5
        for name, corrected in (("rest", False), ("corrected", True)):
            off = np.abs(curve(1.5, t, eta, DECAY, 0.8, d2, corrected_start=corrected) - r)
            errors[name].append(np.max(off[late]))
            line = curve(1.0, t, eta, DECAY, 0.8, linear=True, corrected_start=corrected)
            errors["linear " + name].append(np.max(np.abs(line - s)[late]))
        errors["layer"].append(np.max(off[:12]))
    orders = {name: slope(etas, error) for name, error in errors.items()}
    orders["layer"] = slope(etas[-2:], errors["layer"][-2:])  # asymptotic there
    for name, order in (("rest", 1), ("corrected", 2), ("layer", 1), ("linear rest", 1), ("linear corrected", 2)):
        assert abs(orders[name] - order) < 0.1, (name, orders[name])
    assert errors["corrected"][-1] < 1e-5
    assert errors["linear corrected"][-1] < 1e-6


@pytest.mark.thorough
def test_long_runs_single_precision_and_gradients():
    # The accumulators of a growing exponential overflow at t = 1350 here.
    t = np.linspace(0.0, 4000.0, 7)
    found = curve(1.0, t, 0.1, 1e-4, 0.9, np.full(40_000, 1e-6))
    assert np.all(np.isfinite(found))
    np.testing.assert_allclose(found[-1], 1e-6 / (2 * 0.1 * 1e-4) * 1.9, rtol=0.5)
    for f in (
        lambda t, d: curve(d[0], t, 0.1, 0.01, 0.9, d, corrected_start=True),
        lambda t, d: decay(d[0], t, 0.1, 0.01, d),
    ):
        d, times = np.random.default_rng(1).uniform(size=200), np.linspace(0.1, 20.0, 50)
        single = f(times.astype(np.float32), d.astype(np.float32))
        assert single.dtype == np.float32
        np.testing.assert_allclose(single, f(times, d), rtol=3e-5)

    def corrected(lam, beta, t):
        return momentum_charge_ode(1.0, t, 0.1, lam, beta, corrected_start=True)

    value, slopes = jax.jit(corrected), jax.jit(jax.grad(corrected, (0, 1, 2)))
    critical, h = 0.2**2 / (4 * 1.8) / 0.1, 1e-5
    for lam in (0.0, critical * 0.9, critical, critical * 1.1):
        found = slopes(lam, 0.8, 1.7)
        by_lam = (value(lam + h, 0.8, 1.7) - value(max(lam - h, 0.0), 0.8, 1.7)) / (2 * h if lam else h)
        by_beta = (value(lam, 0.8 + h, 1.7) - value(lam, 0.8 - h, 1.7)) / (2 * h)
        by_t = (value(lam, 0.8, 1.7 + h) - value(lam, 0.8, 1.7 - h)) / (2 * h)
        np.testing.assert_allclose(found[1:], [by_beta, by_t], rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(found[0], by_lam, rtol=1e-6 if lam else 1e-4)
    check_grads(lambda lam: decay(1.0, 1.7, 0.1, lam, np.ones(9)), (0.3,), order=1, modes=["rev"])
    lams, times = jnp.array([0.01, 1.0]), jnp.array([1.0, 2.0])
    mapped = jax.jit(jax.vmap(corrected))(lams, jnp.array([0.8, 0.8]), times)
    np.testing.assert_allclose(mapped, [value(*x) for x in zip(lams, [0.8, 0.8], times, strict=True)], rtol=1e-13)


def refuses(call, words):
    with pytest.raises(ValueError, match="^" + re.escape(words) + "$"):
        call()


def test_bad_arguments_are_named():
    for f in (lambda *a, **k: sgd_charge_ode(*a[:4], *a[5:], **k), momentum_charge_ode):
        refuses(lambda f=f: f(1.0, 1.0, 0.0, 0.1, 0.9), "`eta` must be positive, but got 0.")
        refuses(lambda f=f: f(1.0, 1.0, np.ones(2), 0.1, 0.9), "`eta` must be a number, but got shape (2,).")
        refuses(lambda f=f: f(1.0, 1.0, 0.1, -0.1, 0.9), "`weight_decay` must be zero or positive, but got -0.1.")
        refuses(lambda f=f: f(1.0, [1.0, -2.0], 0.1, 0.1, 0.9), "`t` must be zero or positive, but got -2.")
        refuses(lambda f=f: f(1.0, np.inf, 0.1, 0.1, 0.9), "`t` must be finite, but got inf.")
        refuses(lambda f=f: f(np.nan, 1.0, 0.1, 0.1, 0.9), "`c0` must be finite, but got nan.")
    words = "must be None for a linear charge, but got shape (3,)."
    refuses(lambda: sgd_charge_ode(1.0, 1.0, 0.1, 0.1, np.ones(3), linear=True), "`gradient_sources` " + words)
    refuses(lambda: momentum_charge_ode(1.0, 1.0, 0.1, 0.1, 0.9, np.ones(3), linear=True), "`step_sources` " + words)
    words = "`step_sources` must have shape (K, 2), but got (3,)."
    refuses(lambda: momentum_charge_ode(np.ones(2), 1.0, 0.1, 0.1, 0.9, np.ones(3)), words)
    words = "`momentum` must be zero or positive, and below 1, but got 1."
    refuses(lambda: momentum_charge_ode(1.0, 1.0, 0.1, 0.1, 1.0), words)
    refuses(lambda: charge_rates(0.1, 0.1, 1.0), words)
    refuses(lambda: charge_rates([0.1, 0.2], 0.1, 0.9), "`eta` must be a number, but got shape (2,).")
