"""Random-matrix laws against moments, mpmath integrals and sampled spectra."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from jax.test_util import check_grads

from theory.random_matrix import (
    chi_square_inverse_square,
    effective_ridge,
    marchenko_pastur_mean,
)

GAMMAS = np.array([0.05, 0.5, 0.9, 1 - 1e-6, 1.0, 1 + 1e-6, 1.1, 2.0, 20.0])


def integral(f, gamma, at_zero):
    """The law's mean with its density, by mpmath's tanh-sinh rule."""
    with mpmath.workdps(30):
        gamma = mpmath.mpf(float(gamma))
        low, high = ((1 + sign / mpmath.sqrt(gamma)) ** 2 for sign in (-1, 1))
        density = lambda e: (  # noqa: E731
            gamma * mpmath.sqrt(abs((high - e) * (e - low))) / (2 * mpmath.pi * e)
        )
        nodes = [low, low + (high - low) * mpmath.mpf("1e-8"), low + (high - low) / 1000]
        nodes += [low + (high - low) / 10, high]
        bulk = mpmath.quad(lambda e: f(e) * density(e) if e > 0 else 0, nodes)
        return float(max(1 - gamma, 0) * at_zero + bulk)


def test_moments():
    for power, moment in enumerate(
        [lambda c: 1 + 0 * c, lambda c: 1 + 0 * c, lambda c: 1 + c, lambda c: 1 + 3 * c + c**2]
    ):
        mean = marchenko_pastur_mean(lambda e, p=power: e**p, GAMMAS, float(power == 0))
        np.testing.assert_allclose(mean, moment(1 / GAMMAS), rtol=1e-13)
    without_atom = marchenko_pastur_mean(jnp.ones_like, GAMMAS)
    np.testing.assert_allclose(without_atom, np.minimum(GAMMAS, 1), rtol=1e-13)
    assert not np.allclose(without_atom, 1, rtol=1e-3)


def test_inverse_moment_up_to_the_edge():
    gamma = np.array([1 + 1e-6, 1.01, 3.0])
    np.testing.assert_allclose(marchenko_pastur_mean(lambda e: 1 / e, gamma), gamma / (gamma - 1), rtol=1e-8)


@pytest.mark.parametrize("z", [1e-3, 0.1, 10.0])
def test_resolvent(z):
    c = 1 / GAMMAS
    root = np.sqrt((1 + c + z) ** 2 - 4 * c)
    resolvent = (-(1 - c + z) + root) / (2 * c * z)
    mean = marchenko_pastur_mean(lambda e: 1 / (e + z), GAMMAS, 1 / z)
    np.testing.assert_allclose(mean, resolvent, rtol=1e-10)


@pytest.mark.parametrize("t", [0.3, 50.0, 1e4])
def test_decay_and_fitted_noise_against_mpmath(t):
    gammas = GAMMAS[[1, 3, 7]]
    decay = marchenko_pastur_mean(lambda e: jnp.exp(-4 * t * e), gammas, 1.0)
    fitted = marchenko_pastur_mean(lambda e: jnp.expm1(-2 * t * e) ** 2 / e, gammas)
    for i, gamma in enumerate(gammas):
        expected = integral(lambda e: mpmath.exp(-4 * t * e), gamma, 1)
        np.testing.assert_allclose(decay[i], expected, rtol=1e-10)
        expected = integral(lambda e: mpmath.expm1(-2 * t * e) ** 2 / e, gamma, 0)
        np.testing.assert_allclose(fitted[i], expected, rtol=1e-10)


def test_the_law_is_that_of_sampled_spectra():
    rng = np.random.default_rng(1)
    n, d = 60, 120
    f = lambda e: 1 / (e + 0.3)  # noqa: E731
    means = [f(np.linalg.eigvalsh(X.T @ X / n)).mean() for X in rng.normal(size=(40, n, d))]
    assert abs(np.mean(means) - marchenko_pastur_mean(f, n / d, f(0.0))) < 0.02
    assert abs(np.mean(means) - marchenko_pastur_mean(f, d / n, f(0.0))) > 0.1


def test_marchenko_pastur_gradient_jit_and_single_precision():
    def mean(gamma, z):
        return marchenko_pastur_mean(lambda e: 1 / (e + z[..., None]), gamma, 1 / z)

    gamma = jnp.array([0.5, 0.99, 1.01, 2.0])
    check_grads(jax.jit(mean), (gamma, jnp.full(4, 0.2)), order=1, atol=1e-5, rtol=1e-5)
    single = mean(gamma.astype(jnp.float32), jnp.full(4, 0.2, jnp.float32))
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, mean(gamma, jnp.full(4, 0.2)), rtol=2e-6)


def test_marchenko_pastur_refuses_a_negative_ratio():
    with pytest.raises(ValueError, match=r"^`gamma` must be positive, but got -1\.$"):
        marchenko_pastur_mean(jnp.exp, -1)


@pytest.mark.parametrize("n", [1, 3, 4, 5, 1000])
@pytest.mark.parametrize("ridge", [1e-8, 1e-2, 10.0])
def test_effective_ridge_is_the_root(n, ridge):
    spectrum = np.array([0.0, 0.2, 0.2, 1.0, 3.0])
    kappa = float(effective_ridge(jnp.asarray(spectrum), n, ridge))
    with mpmath.workdps(40):
        gap = lambda x: x - ridge - x / n * sum(k / (k + x) for k in map(mpmath.mpf, spectrum))  # noqa: E731
        root = mpmath.findroot(gap, (ridge, ridge + spectrum.sum() / n), solver="anderson", tol=1e-60)
    np.testing.assert_allclose(kappa, float(root), rtol=1e-12)
    assert ridge <= kappa <= ridge + spectrum.sum() / n


def test_effective_ridge_gradient():
    check_grads(
        jax.jit(lambda spectrum, ridge: effective_ridge(spectrum, 3, ridge)),
        (jnp.array([0.0, 0.2, 0.2, 1.0, 3.0]), 0.05),
        order=1,
        atol=1e-5,
        rtol=1e-5,
    )


def test_chi_square_inverse_square_is_tricomis_function():
    points = [(n, shift) for n in (1, 3, 5, 14, 1e5) for shift in (1e-12, 1e-3, 2.0, 1e6)]
    n, shift = np.array(points).T
    with mpmath.workdps(50):
        expected = [float(mpmath.hyperu(2, 3 - mpmath.mpf(a) / 2, mpmath.mpf(b) / 2) / 4) for a, b in points]
    computed = chi_square_inverse_square(n, shift)
    np.testing.assert_allclose(computed, expected, rtol=1e-11)
    assert not np.allclose(chi_square_inverse_square(n + 1, shift), expected, rtol=1e-3)


def test_chi_square_inverse_square_without_shift():
    n = np.array([5, 6, 50, 1e6])
    np.testing.assert_allclose(chi_square_inverse_square(n, 0), 1 / ((n - 2) * (n - 4)), rtol=1e-11)
    assert np.isposinf(chi_square_inverse_square(np.array([1, 4]), 0)).all()


def test_chi_square_inverse_square_gradient_and_single_precision():
    n, shift = jnp.array([3.0, 9.0, 400.0]), jnp.array([0.5, 2.0, 30.0])
    check_grads(jax.jit(chi_square_inverse_square), (n, shift), order=1, atol=1e-5, rtol=1e-5)
    single = chi_square_inverse_square(n.astype(jnp.float32), shift.astype(jnp.float32))
    np.testing.assert_allclose(single, chi_square_inverse_square(n, shift), rtol=5e-6)


def test_chi_square_refuses_a_negative_shift():
    with pytest.raises(ValueError, match=r"^`shift` must be zero or positive, but got -0\.1\.$"):
        chi_square_inverse_square(3, -0.1)
