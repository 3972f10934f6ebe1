"""Distances between Gaussian laws against matrix square roots and Monte Carlo."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax.test_util import check_grads

from theory.gaussian import mmd, wasserstein2


def random_factors(shape, seed=0):
    return jax.random.normal(jax.random.key(seed), (2, *shape))


def test_wasserstein2_is_the_formula_of_square_roots():
    factors, others = random_factors((5, 3, 3))
    distances = wasserstein2(factors, others)
    for A, C, distance in zip(*map(np.asarray, (factors, others, distances)), strict=True):
        S, T = A @ A.T, C @ C.T
        root = scipy.linalg.sqrtm(S)
        cross = np.real(scipy.linalg.sqrtm(root @ T @ root))
        np.testing.assert_allclose(distance**2, np.trace(S + T - 2 * cross), rtol=1e-10)
        assert not np.isclose(distance**2, np.trace(S + T) - np.trace(cross), rtol=1e-3)


def test_wasserstein2_of_commuting_equal_and_singular_covariances():
    a, c = jnp.diag(jnp.array([1.0, 2.0, 0.0])), jnp.diag(jnp.array([3.0, 0.5, 1.0]))
    np.testing.assert_allclose(wasserstein2(a, c), np.sqrt(4 + 2.25 + 1), rtol=1e-14)
    rotation = scipy.linalg.qr(np.arange(9.0).reshape(3, 3) + np.eye(3))[0]
    assert wasserstein2(c, c @ rotation) < 1e-14
    assert np.isfinite(jax.grad(wasserstein2)(a, a)).all()


def test_wasserstein2_gradient():
    check_grads(jax.jit(wasserstein2), tuple(random_factors((3, 3))), order=1, atol=1e-5, rtol=1e-5)


def test_mmd_is_the_sampled_discrepancy():
    A, C = np.asarray(random_factors((2, 2), seed=3))
    ell, count = 1.3, 100_000
    rng = np.random.default_rng(0)
    kernel = lambda x, y: np.exp(-((x - y) ** 2).sum(1) / (2 * ell**2))  # noqa: E731
    x, x2, y, y2 = (rng.normal(size=(count, 2)) @ F.T for F in (A, A, C, C))
    terms = kernel(x, x2) + kernel(y, y2) - kernel(x, y) - kernel(x2, y2)
    exact = mmd(jnp.asarray(A @ A.T), jnp.asarray(C @ C.T), ell) ** 2
    tolerance = 5 * terms.std() / np.sqrt(count)
    assert abs(terms.mean() - exact) < tolerance
    twin = mmd(jnp.asarray(A @ A.T), jnp.asarray(C @ C.T), ell / np.sqrt(2)) ** 2
    assert abs(terms.mean() - twin) > tolerance
    assert mmd(jnp.eye(3), jnp.eye(3), ell) == 0
