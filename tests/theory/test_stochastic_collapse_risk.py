"""The risk of a soft-thresholded student: its resolvents in thirty digits, exact limits, and random matrices."""

import re

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from jax.test_util import check_grads

from theory.stochastic_collapse import best_threshold, teacher_student_risk

TEACHER = np.linspace(0.6, 1.0, 5)
best = jax.jit(best_threshold, static_argnames="averaged")
risk = jax.jit(teacher_student_risk, static_argnames=("averaged", "complex_noise"))


def test_printed_values():
    found = [risk(np.array([0.3, 0.6]), TEACHER, 0.5, 64, averaged) for averaged in (False, True)]
    printed = [[13.5566755896, 7.6544013141], [5.4554140044, 2.1583895057]]
    np.testing.assert_allclose(found, printed, rtol=1e-10)
    found = [risk(0.6, np.zeros(0), 0.5, 64, averaged) for averaged in (False, True)]
    np.testing.assert_allclose(found, [4.2958200864, 0.7018734392], rtol=1e-9)


def by_resolvents(tau, teacher, sigma, m, averaged):
    """The risk from densities of singular values and overlaps, by mpmath's tanh-sinh rule."""
    tau, sigma, edge = mp.mpf(tau), mp.mpf(sigma), 2 * mp.mpf(sigma)

    def f1(x):
        return x - tau

    def f2(x):
        return f1(x) ** 2 if averaged else x**2 - tau**2

    def over_bulk(integrand):
        """Over x = 2 sigma cos w, from the edge; the integrand is given sqrt(4 sigma^2 - x^2) too."""
        return mp.quad(
            lambda w: integrand(edge * mp.cos(w), edge * mp.sin(w)) * edge * mp.sin(w), [0, mp.acos(tau / edge)]
        )

    total = mp.mpf(0)
    if tau < edge:
        total += m * over_bulk(lambda x, root: f2(x) * root / (mp.pi * sigma**2))
        total += f2(edge) / 4 - over_bulk(lambda x, root: f2(x) / root) / mp.pi
    for s in map(mp.mpf, teacher):

        def resolvents(x, root, s=s):
            g = (x - 1j * root) / (2 * sigma**2)
            slope = -(g**2) / (1 - sigma**2 * g**2)
            overlap = -2 / mp.pi * mp.im(s**2 * g**2 / (1 - s**2 * g**2))
            return overlap, mp.im(2 * s**2 * g * slope / (1 - s**2 * g**2)) / mp.pi

        if tau < edge:
            overlap, density = (lambda *at, r=resolvents, k=k: r(*at)[k] for k in (0, 1))
            total += over_bulk(lambda x, root, d=density, o=overlap: f2(x) * d(x, root) - 2 * f1(x) * o(x, root))
        x = s + sigma**2 / s
        if s > sigma and x > tau:
            total += f2(x) - 2 * f1(x) * s * (1 - sigma**2 / s**2)
        total += s**2
    return total


@pytest.mark.parametrize("averaged", [False, True])
def test_the_resolvents_of_the_derivation(averaged):
    for teacher, sigma, m in (((0.3, 0.49, 0.51, 0.9), 0.5, 32), ((1.7,), 0.8, 5), ((0.2, 0.4), 1.0, 7)):
        taus = sigma * np.array([0.0, 0.4, 1.1, 1.9, 2.0, 2.05, 2.7])
        with mp.workdps(20):
            exact = [float(by_resolvents(tau, teacher, sigma, m, averaged)) for tau in taus]
        np.testing.assert_allclose(risk(taus, np.array(teacher), sigma, m, averaged), exact, rtol=1e-9, atol=1e-10)


def test_limits():
    # A student without a threshold learns the noise: m sigma^2, whatever the teacher.
    for teacher in (np.zeros(0), TEACHER, np.array([0.1, 3.0])):
        for averaged in (False, True):
            np.testing.assert_allclose(risk(0.0, teacher, 0.5, 40, averaged, complex_noise=True), 10, rtol=1e-12)
            np.testing.assert_allclose(risk(0.0, teacher, 0.5, 40, averaged), 10, rtol=1e-12)
    # Above 2 sigma only outliers are left, above all of them nothing is learned.
    outliers = TEACHER + 0.25 / TEACHER
    seen = np.where(outliers > 1.05, (outliers - 1.05) ** 2 - 2 * (outliers - 1.05) * (TEACHER - 0.25 / TEACHER), 0)
    np.testing.assert_allclose(risk(1.05, TEACHER, 0.5, 64, True), np.sum(TEACHER**2 + seen), rtol=1e-14)
    np.testing.assert_allclose(risk(1.3, TEACHER, 0.5, 64), np.sum(TEACHER**2), rtol=1e-14)
    # s and sigma of one unit.
    np.testing.assert_allclose(risk(0.9, 3 * TEACHER, 1.5, 64), 9 * risk(0.3, TEACHER, 0.5, 64), rtol=1e-13)
    # The two terms of real noise.
    start = np.arcsin(0.6)
    sines = (np.pi / 2 - start + np.sin(2 * start) / 2) / 2
    terms = (1 - 0.36) / 4 - (sines - 0.36 * (np.pi / 2 - start)) / np.pi
    both = risk(0.6, TEACHER, 0.5, 64) - risk(0.6, TEACHER, 0.5, 64, complex_noise=True)
    np.testing.assert_allclose(both, terms, rtol=1e-12)


@pytest.mark.thorough
@pytest.mark.parametrize("complex_noise", [False, True])
def test_singular_values_of_random_matrices(complex_noise):
    rng, m, draws, taus = np.random.default_rng(3), 24, 4000, (0.5, 0.65)
    teacher = np.array([0.8, 1.2])
    W = np.zeros((m, m))
    W[[0, 1], [0, 1]] = teacher
    G = rng.normal(size=(draws, m, m))
    if complex_noise:
        G = (G + 1j * rng.normal(size=G.shape)) / 2**0.5
    U, x, V = np.linalg.svd(W + 0.5 / m**0.5 * G)
    q = np.real(np.einsum("rik,ij,rkj->rk", U.conj(), W, V.conj()))
    # At tau = 0 the risk is that of the noise, of mean m sigma^2: what another tau feels of it is removed.
    noise = np.sum(x**2 - 2 * x * q, 1) + np.sum(teacher**2) - 0.25 * m
    for averaged in (False, True):
        for tau in taus:
            first = np.maximum(x - tau, 0)
            second = first**2 if averaged else np.maximum(x**2 - tau**2, 0)
            sampled = np.sum(second - 2 * first * q, 1) + np.sum(teacher**2)
            sampled = sampled - np.mean(sampled * noise) / np.mean(noise**2) * noise
            error = sampled.std() / draws**0.5
            off, other = (
                sampled.mean() - risk(tau, teacher, 0.5, m, averaged, complex_noise=kind)
                for kind in (complex_noise, not complex_noise)
            )
            assert abs(off) < 5 * error + 0.2 / m
            # The O(1) terms of real noise are resolved.
            assert averaged or abs(other) > 5 * error + 0.2 / m


def test_the_best_threshold():
    found = best(TEACHER, 0.5, 64, True)
    np.testing.assert_allclose(found, [0.70694, 1.99298], rtol=1e-5)
    grid = np.linspace(0, 1.3, 2601)
    for averaged in (False, True):
        for teacher, m in ((TEACHER, 64), (2 * TEACHER, 5)):
            values = risk(grid, teacher, 0.5, m, averaged)
            least = best(teacher, 0.5, m, averaged)
            assert least.risk <= np.min(values) + 1e-12
            np.testing.assert_allclose(risk(least.tau, teacher, 0.5, m, averaged), least.risk, rtol=1e-12)
    unseen = TEACHER / 3
    np.testing.assert_allclose(best(unseen, 0.5, 64), [1.0, np.sum(unseen**2)], rtol=1e-12)


@pytest.mark.thorough
def test_gradients_float32_and_batches():
    for averaged in (False, True):
        check_grads(lambda *a, k=averaged: risk(*a, 64, k), (0.63, TEACHER, 0.47), 1, modes=["rev"], rtol=1e-5)
    assert np.isfinite(jax.grad(risk)(1.0, TEACHER, 0.5, 64))
    single = risk(np.float32([0.3, 0.6]), np.float32(TEACHER), np.float32(0.5), 64, True)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, [5.4554140044, 2.1583895057], rtol=1e-5)
    taus = jnp.array([[0.1, 0.4], [0.9, 1.4]])
    assert risk(taus, TEACHER, 0.5, 64).shape == (2, 2)
    mapped = jax.vmap(lambda t: risk(t, TEACHER, 0.5, 64))(taus.ravel())
    np.testing.assert_allclose(mapped, risk(taus, TEACHER, 0.5, 64).ravel(), rtol=1e-14)


@pytest.mark.parametrize("function", [lambda *a: teacher_student_risk(0.3, *a), best_threshold])
def test_bad_arguments_are_named(function):
    def refuses(arguments, words):
        with pytest.raises(ValueError, match="^" + re.escape(words) + "$"):
            function(*arguments)

    refuses((TEACHER, 0.0, 64), "`sigma` must be positive, but got 0.")
    refuses((TEACHER, [0.5, 0.6], 64), "`sigma` must be a number, but got shape (2,).")
    refuses(([0.6, -1.0], 0.5, 64), "`spectrum` must be positive, but got -1.")
    refuses((0.6, 0.5, 64), "`spectrum` must have shape (r,), but got ().")
    refuses(([0.5, 0.7], 0.5, 64), "`spectrum` must be different from sigma, but got 0.5.")
    refuses((TEACHER, 0.5, 4), "`m` must be a whole number not below 5, but got 4.")
    refuses((TEACHER, 0.5, 64.5), "`m` must be a whole number not below 5, but got 64.5.")
    with pytest.raises(ValueError, match=r"^`tau` must be zero or positive, but got -0\.1\.$"):
        teacher_student_risk(-0.1, TEACHER, 0.5, 64)
