"""The damped oscillator: roots and their powers with fifty digits, and gradients through a double root."""

import re

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from theory import oscillator
from theory.oscillator import boundaries, characteristic_roots, envelope, frequency

kernel, relaxation, roots_of = (
    jax.jit(f) for f in (oscillator.impulse_response, oscillator.relaxation, characteristic_roots)
)
slopes = jax.jit(jax.grad(lambda b, e, n: kernel(n, b, e) + relaxation(n, b, e), (0, 1)))
BETAS = np.array([0.0, 1e-8, 1e-3, 0.3, 0.8, 0.9, 0.99, 0.9999])


def largest(beta, e):
    return np.abs(np.linalg.eigvals([[1 + beta - e, -beta], [1.0, 0.0]]))


def test_roots_frequency_and_envelope_agree():
    rng = np.random.default_rng(0)
    beta = np.concatenate([BETAS, rng.uniform(0, 1, 60)])[:, None]
    e = np.concatenate([[0.0, 1e-9, 1.0, 4.2], rng.uniform(0, 4, 20)])[None, :]
    plus, minus = roots_of(beta, e)
    np.testing.assert_allclose(plus + minus, 1 + beta - e, rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(plus * minus, np.broadcast_to(beta, plus.shape), rtol=1e-14, atol=1e-15)
    assert np.all(plus.imag >= 0)
    assert np.all((plus.imag > 0) | (plus.real >= minus.real))
    largest_of = np.maximum(np.abs(plus), np.abs(minus))
    np.testing.assert_allclose(envelope(beta, e), largest_of, rtol=1e-13)
    largest_root = np.where(np.abs(plus) >= np.abs(minus), plus, minus)
    angle = np.abs(np.angle(largest_root))
    np.testing.assert_allclose(frequency(beta, e), angle, rtol=1e-7, atol=1e-7)
    textbook = np.arccos((1 + 0.8 - 0.03) / (2 * 0.8**0.5))
    np.testing.assert_allclose(frequency(0.8, 0.03), textbook, rtol=1e-14)
    np.testing.assert_allclose(envelope(0.8, 0.03), 0.8**0.5, rtol=1e-15)
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
        critical, alternating, unstable = (float(x) for x in boundaries(beta))
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


def test_relaxation_is_heavy_ball_on_a_parabola_and_keeps_its_digits():
    for e in (0.01, 0.03, 3.595, 3.7, float(boundaries(0.8).critical)):
        path, v = [1.0], 0.0
        for _ in range(60):
            v = 0.8 * v - e * path[-1]
            path.append(path[-1] + v)
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
    e = float(boundaries(beta)[line]) * (0.7 if beta == 0 else 1.0)

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


def refuses(call, words):
    with pytest.raises(ValueError, match="^" + re.escape(words) + "$"):
        call()


def test_bad_arguments_are_named():
    words = "`beta` must be zero or positive, and below 1, but got 1."
    refuses(lambda: boundaries(1.0), words)
    for f in (frequency, envelope, characteristic_roots):
        refuses(lambda f=f: f(1.0, 0.1), words)
        refuses(lambda f=f: f(0.9, -0.1), "`e` must be zero or positive, but got -0.1.")
    for f in (oscillator.impulse_response, oscillator.relaxation):
        refuses(lambda f=f: f(1, 1.0, 0.1), "`beta` must be zero or positive, and below 1, but got 1.")
        refuses(lambda f=f: f(1.5, 0.9, 0.1), "`steps` must be a whole number not below 0, but got 1.5.")
        refuses(lambda f=f: f(1, 0.9, -1.0), "`e` must be zero or positive, but got -1.")
        refuses(lambda f=f: f(1, 0.9, jnp.inf), "`e` must be finite, but got inf.")
