"""Roots: values at cancellation, gradients at the edges."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from jax.test_util import check_grads

from theory.roots import increasing_root, newton, positive_root, safe_sqrt

POINTS = [(a, c) for a in (-1e8, -3.0, -1e-9, 0.0, 1e-9, 0.7, 1e8) for c in (1e-8, 0.3, 5.0)]


def exact(a, c):
    with mpmath.workdps(50):
        a, c = mpmath.mpf(float(a)), mpmath.mpf(float(c))
        return float((a + mpmath.sqrt(a * a + 4 * c)) / 2)


@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-14), (np.float32, 1e-6)])
def test_positive_root_has_no_cancellation(dtype, rtol):
    a, c = np.array(POINTS, dtype).T
    root = positive_root(jnp.asarray(a), jnp.asarray(c))
    assert root.dtype == dtype
    expected = [exact(*point) for point in zip(a, c, strict=True)]
    np.testing.assert_allclose(root, expected, rtol=rtol)
    textbook = (a + np.sqrt(a**2 + 4 * c)) / 2
    assert not np.allclose(textbook, expected, rtol=100 * rtol, atol=0)


def test_positive_root_at_the_corner():
    zero = jnp.zeros(())
    assert positive_root(zero, zero) == 0
    assert positive_root(-1.0 + zero, zero) == 0
    assert np.isfinite(jax.grad(positive_root)(zero, zero))


def test_gradients():
    points = jnp.array([-2.0, -1e-3, 0.0, 1e-3, 2.0])
    check_grads(jax.jit(positive_root), (points, jnp.full(5, 0.3)), order=1, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(jax.vmap(jax.grad(safe_sqrt))(jnp.array([-1.0, 0.0, 4.0])), [0, 0, 0.25])


def test_newton_is_differentiated_implicitly():
    def cube_root(c):
        return newton(lambda x: x**3 - c, jnp.full_like(c, 3.0), steps=40)

    c = jnp.array([0.5, 2.0, 8.0])
    np.testing.assert_allclose(cube_root(c), c ** (1 / 3), rtol=1e-14)
    check_grads(jax.jit(cube_root), (c,), order=1, atol=1e-6, rtol=1e-6)


def test_increasing_root_by_bisection_and_its_gradient():
    c = jnp.array([0.2, 1.0, 7.0])

    def cube_root(c):
        return increasing_root(lambda x: x**3 - c, jnp.zeros_like(c), jnp.full_like(c, 2.0))

    np.testing.assert_allclose(cube_root(c), np.cbrt(c), rtol=1e-15)
    np.testing.assert_allclose(jax.jit(jax.vmap(jax.grad(cube_root)))(c), np.cbrt(c) ** -2 / 3, rtol=1e-12)
    np.testing.assert_allclose(cube_root(jnp.array(9.0)), 2.0, rtol=1e-15)  # none: the upper end
    assert cube_root(c.astype(np.float32)).dtype == np.float32
