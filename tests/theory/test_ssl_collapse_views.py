"""Covariances of two views, and the values at which directions collapse."""

import jax
import numpy as np
import pytest
from scipy.linalg import eigh

from theory.ssl_collapse import collapse_thresholds, effective_landscape, view_covariances

A0 = np.array([[1.5, 0.4, 0.0], [0.4, 0.8, 0.2], [0.0, 0.2, 0.6]])
C = np.array([[0.3, -0.1, 0.1], [-0.1, 0.5, 0.0], [0.1, 0.0, 0.2]])
CASES = [("infonce_distance", 2.5, 0.05), ("infonce_dot", 1.2, 0.3), ("spectral", 1.0, 1.5), ("barlow", 1.0, 1.1)]
at = jax.jit(collapse_thresholds, static_argnames="loss")


def views(n, clean, noise, seed=0):
    z = np.random.default_rng(seed).normal(size=(3, n, len(clean)))
    shared, spread = (np.linalg.cholesky(X + 1e-300 * np.eye(len(X))) for X in (clean, noise))
    return z[0] @ shared.T + z[1] @ spread.T, z[0] @ shared.T + z[2] @ spread.T


def test_covariances_of_many_samples_are_those_of_the_law():
    found = view_covariances(*views(200_000, A0, C))
    np.testing.assert_allclose(found.A0, A0, atol=0.02)
    np.testing.assert_allclose(found.C, C, atol=0.02)
    assert found.clipped == 0


def test_they_are_the_textbook_estimates():
    x, x_plus = views(50, A0, C)
    found = view_covariances(x, x_plus)
    both = np.cov(x.T, x_plus.T)
    np.testing.assert_allclose(found.A0, (both[:3, 3:] + both[3:, :3]) / 2, atol=1e-14)
    np.testing.assert_allclose(found.A0 + found.C, (both[:3, :3] + both[3:, 3:]) / 2, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(found.C, np.cov((x - x_plus).T) / 2, atol=1e-14)


def test_negative_correlations_become_zero_and_the_total_stays():
    x, x_plus = views(40, np.diag([1.0, 1e-12, 1e-12]), np.eye(3), seed=3)
    found = view_covariances(x, x_plus)
    both = np.cov(x.T, x_plus.T)
    negative = (np.linalg.eigvalsh((both[:3, 3:] + both[3:, :3]) / 2) < 0).sum()
    assert found.clipped == negative > 0
    assert np.linalg.eigvalsh(found.A0).min() > -1e-14
    np.testing.assert_allclose(found.A0 + found.C, (both[:3, :3] + both[3:, 3:]) / 2, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("loss", "alpha", "decay"), CASES)
def test_one_eigenvalue_of_b_vanishes_at_every_threshold(loss, alpha, decay):
    found = at(A0, C, loss, 0.8, alpha, decay)

    def spectrum(g=1.0, **changed):
        numbers = {"temperature": 0.8, "alpha": alpha, "weight_decay": decay} | changed
        return np.linalg.eigvalsh(effective_landscape(A0, g * C, loss, **numbers).B)

    for name, key in zip(found._fields, ("g", "alpha", "temperature", "weight_decay"), strict=True):
        values = np.asarray(getattr(found, name))
        assert np.isnan(values).all() or (np.diff(values[np.isfinite(values)]) <= 0).all()
        for value in values[np.isfinite(values) & (values > 0)]:
            assert np.abs(spectrum(**{key: value})).min() < 1e-12
            assert (spectrum(**{key: value * 0.999}) > 0).sum() > (spectrum(**{key: value * 1.001}) > 0).sum()
        if not np.isnan(values).any():
            now = {"g": 1.0, "alpha": alpha, "temperature": 0.8, "weight_decay": decay}[key]
            assert (values > now).sum() == (spectrum() > 0).sum()


def test_commuting_covariances_and_singular_noise():
    a, c = np.array([1.0, 0.5, 0.2, 0.1]), np.array([0.2, 0.0, 0.4, 0.05])
    found = at(np.diag(a), np.diag(c), "infonce_distance", 2.0, 1.5, 0.06)
    np.testing.assert_allclose(found.augmentation, [np.inf, 0.88 / 0.1, 0.08 / 0.2, 0.0], rtol=1e-10)
    np.testing.assert_allclose(found.alpha, [np.inf, 1 + 0.88 / 0.2, 1 + 0.08 / 0.4, 1 - 0.02 / 0.05], rtol=1e-10)
    np.testing.assert_allclose(found.weight_decay, [0.45, 0.25, 0.0375, 0.0], rtol=1e-10)
    np.testing.assert_allclose(found.temperature, [0.9 / 0.06, 0.5 / 0.06, 0.075 / 0.06, 0.0], rtol=1e-10)
    without = at(np.diag(a), np.diag(c), "infonce_distance", 2.0, 1.5, 0.0)
    np.testing.assert_allclose(without.temperature, [np.inf, np.inf, np.inf, 0])
    np.testing.assert_allclose(at(np.diag(a), np.diag(c)).augmentation, np.inf)
    assert np.isnan(at(np.diag(a), np.diag(c), alpha=0.5).augmentation).all()


def test_noise_and_matrices_that_do_not_commute_by_a_generalised_eigenproblem():
    found = at(A0, C, "infonce_distance", 0.8, 2.5, 0.05)
    np.testing.assert_allclose(found.augmentation, eigh(A0 - 0.04 * np.eye(3), 1.5 * C)[0][::-1], rtol=1e-11)


def test_float32():
    with jax.enable_x64(False):
        found = jax.jit(view_covariances)(*map(np.float32, views(100, A0, C)))
        assert found.A0.dtype == np.float32
        thresholds = at(np.float32(A0), np.float32(C), "infonce_distance", 0.8, 2.5, 0.05)
    np.testing.assert_allclose(found.C, view_covariances(*views(100, A0, C)).C, atol=1e-5)
    np.testing.assert_allclose(thresholds.alpha, at(A0, C, "infonce_distance", 0.8, 2.5, 0.05).alpha, rtol=1e-4)


GOOD = views(10, A0, C)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: view_covariances(GOOD[0], GOOD[1][:9]),
         "`x_plus` must have the shape of `x`, (10, 3), but got shape (9, 3)."),
        (lambda: view_covariances(GOOD[0][0], GOOD[1][0]), "`x` must have the shape (n, d), but got shape (3,)."),
        (lambda: view_covariances(GOOD[0][:3], GOOD[1][:3]),
         "`x` must have more samples than features, 3, but got 3."),
        (lambda: view_covariances(GOOD[0], np.full((10, 3), np.inf)), "`x_plus` must be finite, but got inf."),
        (lambda: view_covariances(GOOD[0] * [1, 1, 0], GOOD[1] * [1, 1, 0]),
         "`the covariance of the views` must be positive definite, but got 0."),
        (lambda: collapse_thresholds(A0, C, "alignment"), "`loss` must be one with repulsion, but got alignment."),
        (lambda: collapse_thresholds(A0, C, weight_decay=-0.1),
         "`weight_decay` must be zero or positive, but got -0.1."),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_one_sentence(call, sentence):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        call()
    assert str(error.value) == sentence
