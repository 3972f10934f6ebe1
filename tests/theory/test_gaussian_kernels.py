"""Kernels of Gaussian features against mpmath, integrals and Monte Carlo."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from jax.test_util import check_grads

from theory.gaussian_kernels import arc_cosine_kernel, relu_kernel


def kernel_integral(u):
    """E (z)_+ (u z + sqrt(1-u^2) z')_+ over the wedge where both are positive, in polar angle."""
    wedge = np.pi - np.arccos(u)
    start = -np.pi / 2 + np.arccos(u)  # z'-axis rotated by the angle between the two half-planes
    first = lambda a: mpmath.cos(a) * mpmath.cos(a - mpmath.acos(u))  # noqa: E731
    radial = 2  # int r^3 exp(-r^2/2) dr
    return float(radial / (2 * mpmath.pi) * mpmath.quad(first, [start, start + wedge]))


def test_arc_cosine_kernel_is_the_gaussian_integral():
    u = np.array([-0.999, -0.5, -1e-6, 0.0, 0.3, 0.99, 1.0])
    expected = [kernel_integral(value) for value in u]
    np.testing.assert_allclose(arc_cosine_kernel(jnp.asarray(u)), expected, rtol=1e-10, atol=1e-13)
    twin = (np.sqrt(1 - u**2) + u * np.arccos(u)) / (2 * np.pi)
    assert not np.allclose(twin, expected, rtol=1e-3)


def test_arc_cosine_kernel_at_its_ends():
    ends = jnp.array([-1.0, 0.0, 1.0, 1 + 1e-12])
    np.testing.assert_allclose(arc_cosine_kernel(ends), [0, 1 / (2 * np.pi), 0.5, 0.5], atol=1e-15)
    slopes = jax.vmap(jax.grad(arc_cosine_kernel))(ends)
    np.testing.assert_allclose(slopes, [0, 0.25, 0.5, 0.5], atol=1e-15)
    check_grads(jax.jit(arc_cosine_kernel), (jnp.array([-0.9, -0.1, 0.0, 0.8]),), order=1)


def test_relu_kernel_is_homogeneous_symmetric_and_sampled():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(3, 4))
    c = np.concatenate([2 * a[:1], -a[1:2], np.zeros((1, 4))])
    gram_of = jax.jit(relu_kernel)
    gram = gram_of(a, c)
    np.testing.assert_allclose(gram[0, 0], np.sum(a[0] ** 2), rtol=1e-12)  # 2 |a|^2 / 2
    np.testing.assert_allclose(gram[1, 1], 0, atol=1e-12)
    np.testing.assert_array_equal(gram[:, 2], 0)
    np.testing.assert_allclose(gram_of(3 * a, c), 3 * gram)
    np.testing.assert_allclose(gram_of(c, a), gram.T, atol=1e-15)
    x = rng.normal(size=(100_000, 4))
    products = np.maximum(x @ a[0], 0) * np.maximum(x @ a[2], 0)
    error = (products.mean() - gram_of(a, a)[0, 2]) / (products.std() / np.sqrt(x.shape[0]))
    assert abs(error) < 5
    gradient = jax.jit(jax.grad(lambda w: relu_kernel(w, w).sum()))(np.concatenate([a, a[:1], 0 * a[:1]]))
    assert np.isfinite(gradient).all()


def test_relu_kernel_refuses_other_shapes():
    with pytest.raises(ValueError, match="equally long rows"):
        relu_kernel(jnp.ones((2, 3)), jnp.ones((2, 4)))
