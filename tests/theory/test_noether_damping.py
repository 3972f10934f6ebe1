"""Relaxation of charges: the roots, the four regimes and their edges, and powers of roots with fifty digits."""

import re

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from theory.noether import (
    characteristic_roots,
    charge_kernel,
    charge_rates,
    charge_relaxation,
    damping_boundaries,
    damping_code,
    damping_envelope,
    damping_frequency,
    damping_regime,
    linear_charge,
    ode_damping_boundary,
)

kernel, relaxation, roots_of = jax.jit(charge_kernel), jax.jit(charge_relaxation), jax.jit(characteristic_roots)
frequency, envelope_of = (jax.jit(f, static_argnames="quadratic") for f in (damping_frequency, damping_envelope))
slopes = jax.jit(jax.grad(lambda b, e, n: charge_kernel(n, b, e) + charge_relaxation(n, b, e), (0, 1)))
BETAS = np.array([0.0, 1e-8, 1e-3, 0.3, 0.8, 0.9, 0.99, 0.9999])


def largest(beta, e):
    return np.abs(np.linalg.eigvals([[1 + beta - e, -beta], [1.0, 0.0]]))


def test_printed_regimes_and_thresholds():
    e = np.array([0.01, 0.03, 3.595, 3.7])
    words = ["overdamped", "underdamped", "alternating", "unstable"]
    assert damping_regime(0.8, e).tolist() == words
    assert [damping_regime(0.8, x) for x in e] == words
    assert jax.jit(damping_code)(0.8, e).tolist() == [0, 1, 2, 3]
    assert damping_regime(0.8, e / 2, quadratic=True).tolist() == words
    np.testing.assert_allclose(damping_frequency(0.8, 0.03), 0.1453168067, rtol=0, atol=5e-11)
    np.testing.assert_allclose(damping_boundaries(np.array([0.9, 0.99])).critical, [0.002633, 2.513e-5], rtol=2e-4)
    np.testing.assert_allclose(damping_boundaries(0.8, quadratic=True), np.array(damping_boundaries(0.8)) / 2)
    assert damping_regime(0.0, 1.0) == "overdamped"  # gone after one step
    assert damping_regime(0.0, 0.0) == "overdamped"


@pytest.mark.parametrize("quadratic", [False, True])
def test_lines_part_real_from_complex_and_decay_from_growth(quadratic):
    beta = np.array([0.01, 0.3, 0.8, 0.9, 0.99])
    scale = 2.0 if quadratic else 1.0
    for line, (below, above) in zip(
        damping_boundaries(beta, quadratic=quadratic), ((0, 1), (1, 2), (2, 3)), strict=True
    ):
        for side, code in ((1 - 1e-6, below), (1 + 1e-6, above)):
            e = np.array(line) * side
            assert damping_code(beta, e, quadratic=quadratic).tolist() == [code] * 5
            roots = [np.roots([1, -(1 + b - scale * x), b]) for b, x in zip(beta, e, strict=True)]
            for root in roots:
                assert (np.abs(root.imag).max() > 0) == (code == 1)
                assert (np.abs(root).max() > 1) == (code == 3)
                assert code == 1 or (root.real.max() > 0) == (code == 0)
    critical, alternating, unstable = damping_boundaries(beta)
    on = [damping_code(beta, line).tolist() for line in (critical, alternating, unstable)]
    assert on == [[0] * 5, [2] * 5, [2] * 5]


def test_charges_of_each_regime_look_like_it():
    over, under, flips, grows = (np.array(linear_charge(1.0, 300, e, 1.0, 0.8)) for e in (0.01, 0.03, 3.595, 3.7))
    assert np.all(over > 0)
    assert np.all(np.diff(over) <= 0)
    crossings = np.flatnonzero(np.diff(np.sign(under[:120])))
    np.testing.assert_allclose(np.mean(np.diff(crossings)), np.pi / damping_frequency(0.8, 0.03), rtol=0.02)
    assert np.all(np.abs(under[:120]) <= 2.5 * 0.8 ** (np.arange(120) / 2))
    assert np.all(flips[1:] * flips[:-1] < 0)
    assert abs(flips[-1]) < 1e-2
    assert abs(grows[-1]) > 100


def test_roots_frequency_and_envelope_agree():
    rng = np.random.default_rng(0)
    beta = np.concatenate([BETAS, rng.uniform(0, 1, 60)])[:, None]
    e = np.concatenate([[0.0, 1e-9, 1.0, 4.2], rng.uniform(0, 4, 20)])[None, :]
    plus, minus = roots_of(beta, e)
    np.testing.assert_allclose(plus + minus, 1 + beta - e, rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(plus * minus, np.broadcast_to(beta, plus.shape), rtol=1e-14, atol=1e-15)
    assert np.all(plus.imag >= 0)
    assert np.all((plus.imag > 0) | (plus.real >= minus.real))
    envelope = np.maximum(np.abs(plus), np.abs(minus))
    np.testing.assert_allclose(envelope_of(beta, e), envelope, rtol=1e-13)
    np.testing.assert_allclose(envelope_of(beta, e / 2, quadratic=True), envelope, rtol=1e-13)
    largest_root = np.where(np.abs(plus) >= np.abs(minus), plus, minus)
    angle = np.abs(np.angle(largest_root))
    np.testing.assert_allclose(frequency(beta, e), angle, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(frequency(beta, e / 2, quadratic=True), angle, rtol=1e-7, atol=1e-7)
    textbook = np.arccos((1 + 0.8 - 0.03) / (2 * 0.8**0.5))
    np.testing.assert_allclose(damping_frequency(0.8, 0.03), textbook, rtol=1e-14)
    np.testing.assert_allclose(damping_envelope(0.8, 0.03), 0.8**0.5, rtol=1e-15)
    with mp.workdps(50):
        b, x = mp.mpf(0.9999), mp.mpf(1e-9)
        exact = (1 + b - x + mp.sqrt((1 + b - x) ** 2 - 4 * b)) / 2
        np.testing.assert_allclose(characteristic_roots(0.9999, 1e-9)[0].real, float(exact), rtol=1e-15)


@pytest.mark.thorough
def test_powers_of_the_roots_at_fifty_digits():
    n = np.array([0, 1, 2, 3, 7, 30, 200, 1000])
    nudges = [0.5, 1 - 1e-2, 1 - 1e-5, 1 - 1e-9, 1.0, 1 + 1e-9, 1 + 1e-5, 1 + 1e-2]
    count = 0
    for beta in BETAS:
        critical, alternating, unstable = (float(x) for x in damping_boundaries(beta))
        pulls = (
            [critical * x for x in nudges]
            + [alternating * x for x in nudges]
            + [0.0, 1.0, 1 + beta, unstable, unstable * 1.0001]
        )
        e = np.array([x for x in pulls if abs(1 + beta - x) > 1e-2])
        G, S = (np.array(f(n[None, :], beta, e[:, None])) for f in (kernel, relaxation))
        size = np.array([largest(beta, x).max() for x in e])
        for i, pull in enumerate(e):
            with mp.workdps(50):
                P, b = 1 + mp.mpf(beta) - mp.mpf(pull), mp.mpf(beta)
                powers = [mp.matrix([[P, -b], [1, 0]]) ** int(k) for k in n]
                exact_G = [float(m[1, 0]) for m in powers]
                exact_S = [float(m[0, 0] - b * m[1, 0]) for m in powers]
            # The n-th power feels the rounding of 1 + beta - e n^2 times at a double root.
            allowed = 1e-13 + 1e-15 * n.astype(float) ** 2 / abs(1 + beta - pull)
            scale = np.maximum(size[i] ** n, 1e-300)
            assert np.all(np.abs(S[i] - exact_S) <= allowed * np.maximum(np.abs(exact_S), scale))
            less = np.maximum(size[i] ** np.maximum(n - 1, 0), 1e-300)
            assert np.all(np.abs(G[i] - exact_G) <= allowed * np.maximum(np.abs(exact_G), less))
            count += len(n)
    assert count > 1000
    np.testing.assert_allclose(kernel(20, 0.25, 0.25), 20 * 0.5**19, rtol=1e-14)  # double root 1/2
    assert kernel(0, 0.0, 1.0) == 0
    assert kernel(1, 0.0, 1.0) == relaxation(0, 0.0, 1.0) == 1
    assert kernel(5, 0.0, 1.0) == relaxation(5, 0.0, 1.0) == 0


def test_relaxation_is_the_charge_of_a_translation_and_keeps_its_digits():
    for e in (0.01, 0.03, 3.595, 3.7, float(damping_boundaries(0.8).critical)):
        path = linear_charge(1.0, 60, e, 1.0, 0.8)
        found = relaxation(np.arange(61), 0.8, e)
        np.testing.assert_allclose(found, path, rtol=1e-11, atol=1e-14)
        now, after = kernel(np.arange(61), 0.8, e), kernel(np.arange(1, 62), 0.8, e)
        np.testing.assert_allclose(after - 0.8 * now, found, rtol=1e-11, atol=1e-14)
    beta, pull = np.array([0.9], np.float32), np.array([1e-7], np.float32)
    slow = relaxation(10**7, beta, pull)
    assert slow.dtype == np.float32
    np.testing.assert_allclose(slow, relaxation(10**7, beta.astype(float), pull.astype(float)), rtol=2e-5)


@pytest.mark.parametrize(("beta", "line"), [(0.3, 0), (0.3, 1), (0.9, 0), (0.9, 1), (0.0, 0)])
def test_gradients_through_a_double_root(beta, line):
    e = float(damping_boundaries(beta)[line]) * (0.7 if beta == 0 else 1.0)

    def exact(n, beta, e):
        P = 1 + beta - e
        m = mp.matrix([[P, -beta], [1, 0]]) ** n
        return m[0, 0] + (1 - beta) * m[1, 0]

    for n in (0, 1, 2, 5, 40):
        found = slopes(beta, e, n)
        with mp.workdps(60):
            h, b, x = mp.mpf(10) ** -20, mp.mpf(beta), mp.mpf(e)
            by_beta = (exact(n, b + h, x) - exact(n, b - h, x)) / (2 * h)
            by_e = (exact(n, b, x + h) - exact(n, b, x - h)) / (2 * h)
        np.testing.assert_allclose(found, [float(by_beta), float(by_e)], rtol=1e-10, atol=1e-10)


def test_ode_line_is_where_its_rates_meet():
    for linear in (False, True):
        for beta in (0.0, 0.5, 0.9):
            line = float(ode_damping_boundary(beta, quadratic=not linear))
            gamma, omega = charge_rates(0.1, line / 0.1, beta, linear=linear)
            np.testing.assert_allclose(gamma, omega, rtol=1e-14)
    np.testing.assert_allclose(ode_damping_boundary(0.0), 0.5)
    ratio = [float(ode_damping_boundary(b) / damping_boundaries(b).critical) for b in (0.9, 0.99, 0.999)]
    gap = np.abs(np.array(ratio) - 1)
    assert np.all(gap[1:] < 0.2 * gap[:-1])
    assert gap[-1] < 1e-6


def refuses(call, words):
    with pytest.raises(ValueError, match="^" + re.escape(words) + "$"):
        call()


def test_bad_arguments_are_named():
    words = "`beta` must be zero or positive, and below 1, but got 1."
    for f in (damping_code, damping_regime, damping_frequency, damping_envelope, characteristic_roots):
        refuses(lambda f=f: f(1.0, 0.1), words)
        name = "e" if f is characteristic_roots else "eta_lambda"
        refuses(lambda f=f: f(0.9, -0.1), f"`{name}` must be zero or positive, but got -0.1.")
    for f in (damping_boundaries, ode_damping_boundary):
        refuses(lambda f=f: f(1.0), words)
    for f in (charge_kernel, charge_relaxation):
        refuses(lambda f=f: f(1, 1.0, 0.1), words)
        refuses(lambda f=f: f(1.5, 0.9, 0.1), "`steps` must be a whole number not below 0, but got 1.5.")
        refuses(lambda f=f: f(1, 0.9, -1.0), "`e` must be zero or positive, but got -1.")
        refuses(lambda f=f: f(1, 0.9, jnp.inf), "`e` must be finite, but got inf.")
