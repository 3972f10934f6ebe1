"""Kernels of Gaussian features against mpmath, integrals and Monte Carlo."""

import itertools
import re

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.integrate import fixed_quad, quad
from scipy.special import erf, ndtr

from theory.gaussian_kernels import (
    activation_function,
    activation_moments,
    arc_cosine_kernel,
    gaussian_kernel,
    relu_kernel,
)


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


def density(z):
    return np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)


PHI = {
    "linear": (lambda x: x, lambda x: np.ones_like(x)),
    "erf": (erf, lambda x: 2 / np.sqrt(np.pi) * np.exp(-(x**2))),
    "relu": (lambda x: np.maximum(x, 0), lambda x: (x > 0) * 1.0),
    "gelu": (lambda x: x * ndtr(x), lambda x: ndtr(x) + x * density(x)),
    "tanh": (np.tanh, lambda x: 1 - np.tanh(x) ** 2),
}
kernel = jax.jit(gaussian_kernel, static_argnums=0)
moments = jax.jit(activation_moments, static_argnums=0)


def polar_integral(phi, q, c):
    """E phi(x) phi(y) in polar coordinates of the plane, split where x or y changes sign."""
    apart = np.arccos(c / q)
    nodes, weights = np.polynomial.legendre.leggauss(160)
    r, weights = 6 * (nodes + 1)[:, None], 6 * weights[:, None]

    def of_angle(a):
        x, y = (np.sqrt(q) * r * np.cos(a - turn) for turn in (0, apart))
        return np.sum(weights * r * np.exp(-(r**2) / 2) / (2 * np.pi) * phi(x) * phi(y), axis=0)

    edges = np.sort([-np.pi / 2, apart - np.pi / 2, np.pi / 2, apart + np.pi / 2, 3 * np.pi / 2])
    return sum(fixed_quad(of_angle, *sector, n=80)[0] for sector in itertools.pairwise(edges))


PRINTED = {
    ("tanh", 2.5, 1.0): (0.1979026635, 0.2047467313),
    ("tanh", 2.5, -1.0): (-0.1979026635, 0.2047467313),
    ("gelu", 1.5, 0.7): (0.3493259970, 0.3403624498),
    ("erf", 2.0, 0.5): (0.1281884337, 0.2598989337),
    ("relu", 2.0, 0.5): (0.4533098778, 0.2902153116),
}


@pytest.mark.parametrize("name", ["erf", "relu", "gelu", "tanh"])
def test_kernel_and_slope_are_the_double_integrals(name):
    q = np.array([2.5, 2.5, 1.5, 2, 0.7, 0.7, 1.5, 4.84, 4.84, 9, 0.04, 2, 2, 25])
    c = np.array([1, -1, 0.7, 0.5, 0.3, -0.69, 0, 4.8, -4.8, 2, -0.01, 2, -2, -20])
    expected = np.array([[polar_integral(f, *pair) for pair in zip(q, c, strict=True)] for f in PHI[name]])
    values = np.array(kernel(name, q, c))
    np.testing.assert_allclose(values, expected, rtol=1e-11, atol=1e-12)
    for twin in (kernel(name, q, 0.999 * c), kernel(name, q, -c), kernel(name, 1.001 * q, c)):
        assert not np.allclose(twin, expected, rtol=1e-5)
    for (activation, *pair), printed in PRINTED.items():
        at = np.flatnonzero((q == pair[0]) & (c == pair[1]))[0]
        same = np.allclose(values[:, at], printed, rtol=0, atol=1e-10)
        assert same == (activation == name)


def test_a_linear_activation_keeps_covariances():
    c = np.linspace(-2, 2, 14)
    np.testing.assert_array_equal(kernel("linear", np.full(14, 2.0), c), [c, np.ones(14)])


def test_a_callable_has_the_kernel_of_its_closed_form():
    q = np.geomspace(0.1, 5, 14)
    c = q * np.linspace(-1, 1, 14)
    expected = np.exp(-q) * np.sinh(c), np.exp(-q) * np.cosh(c)
    np.testing.assert_allclose(kernel(jnp.sin, q, c), expected, rtol=1e-10, atol=1e-12)
    assert not np.allclose(kernel(jnp.sin, q, c)[::-1], expected, rtol=1e-3)
    kinked = kernel(jax.nn.relu, q, c)
    np.testing.assert_allclose(kinked[0], kernel("relu", q, c)[0], rtol=0, atol=1e-3)
    assert not np.allclose(kinked[0], kernel("gelu", q, c)[0], rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", [*PHI, jnp.sin])
def test_the_slope_along_c_is_price_theorem_up_to_the_ends(name):
    q, c = np.full(14, 2.0), np.linspace(-2, 2, 14)
    along = jax.jit(jax.grad(lambda c: gaussian_kernel(name, q, c)[0].sum()))(c)
    np.testing.assert_allclose(along, kernel(name, q, c)[1], rtol=1e-12, atol=1e-13)
    if name != "linear":
        assert not np.allclose(along, kernel(name, q, 0.9 * c)[1], rtol=1e-3)
    step = 1e-4 * (np.abs(c) < 2)
    secant = (kernel(name, q, c + step)[0] - kernel(name, q, c - step)[0])[1:-1] / 2e-4
    np.testing.assert_allclose(along[1:-1], secant, rtol=1e-6)


CURVATURE = {
    "linear": lambda x: 0 * x,
    "erf": lambda x: -4 * x / np.sqrt(np.pi) * np.exp(-(x**2)),
    "relu": lambda x: 0 * x,
    "gelu": lambda x: (2 - x**2) * density(x),
    "tanh": lambda x: -2 * np.tanh(x) * (1 - np.tanh(x) ** 2),
}


@pytest.mark.parametrize("name", PHI)
def test_the_slope_along_q_is_exact_inside_and_at_equal_inputs(name):
    q = np.full(14, 2.0)
    c = np.linspace(-2, 2, 14)
    slope = np.array(jax.jit(jax.grad(lambda q: gaussian_kernel(name, q, c)[0].sum()))(q))
    step = 1e-4 * (np.abs(c) < q)
    secant = (kernel(name, q + step, c)[0] - kernel(name, q - step, c)[0])[1:-1] / 2e-4
    np.testing.assert_allclose(slope[1:-1], secant, rtol=1e-6, atol=1e-9)
    # Heat equation: the slope along q is E phi'' phi, which needs one Gaussian only where y = x or y = -x.
    phi, curve = PHI[name][0], CURVATURE[name]
    expected = [
        quad(lambda z: phi(sign * z) * curve(z) * density(z / 2**0.5) / 2**0.5, -14, 14, epsabs=1e-11)[0]  # noqa: B023
        for sign in (-1, 1)
    ]
    np.testing.assert_allclose(slope[[0, -1]], expected, rtol=1e-9, atol=1e-10)
    if name != "relu":  # the twin moves along the diagonal
        assert not np.allclose(slope[-1], expected[1] + kernel(name, q, c)[1][-1], rtol=1e-3)


def test_moments_are_the_kernel_at_equal_inputs():
    q = np.geomspace(0.01, 20, 14)
    for name in (*PHI, jnp.sin):
        np.testing.assert_allclose(moments(name, q), kernel(name, q, q), rtol=1e-12, atol=1e-14)
        assert not np.allclose(moments(name, q)[0], kernel(name, q, 0.9 * q)[0], rtol=1e-3)
    steep = np.array(moments("tanh", np.linspace(2500.0, 2487.0, 14)))
    pieces = [-9, -0.3, -0.1, 0, 0.1, 0.3, 9]
    for values, f in zip(steep, (lambda x: mpmath.tanh(x) ** 2, lambda x: mpmath.sech(x) ** 4), strict=True):
        expected = float(mpmath.quad(lambda z: f(50 * z) * mpmath.npdf(z), pieces))  # noqa: B023
        np.testing.assert_allclose(values[0], expected, rtol=1e-12)
        assert np.all(np.abs(values[1:] / expected - 1) > 1e-6)


def test_kernels_broadcast_and_keep_the_precision_of_their_arguments():
    q, c = np.array([[1.0], [2.0], [3.0]]), np.array([0.1, -0.4, 0.9, 1.0])
    table = kernel("tanh", q, c)[0]
    assert table.shape == (3, 4)
    np.testing.assert_allclose(table[2, 1], kernel("tanh", np.full(14, 3.0), np.full(14, -0.4))[0][0], rtol=1e-14)
    single = kernel("tanh", q.astype(np.float32), c.astype(np.float32))
    assert single[0].dtype == single[1].dtype == np.float32
    np.testing.assert_allclose(single[0], table, atol=1e-6)
    for name in PHI:
        assert np.isfinite(kernel(name, np.zeros(14), np.zeros(14))).all()


def test_kernels_refuse_what_is_no_covariance():
    for q, c, words in (
        (-1.0, 0.0, "`q` must be zero or positive, but got -1."),
        (np.nan, 0.0, "`q` must be zero or positive, but got nan."),
        (1.0, np.inf, "`c` must be finite, but got inf."),
        (1.0, 1.1, "`c` must be between -q and q, but got 1.1."),
        (1.0, np.array([0.5, -1.1]), "`c` must be between -q and q, but got -1.1."),
    ):
        with pytest.raises(ValueError, match="^" + re.escape(words) + "$"):
            gaussian_kernel("erf", q, c)
    for call in (lambda: gaussian_kernel("swish", 1.0, 0.5), lambda: activation_moments("swish", 1.0)):
        with pytest.raises(ValueError, match=r"^`activation` must be a function or one of .*tanh, but got swish\.$"):
            call()
    with pytest.raises(ValueError, match=r"^`q` must be zero or positive, but got -2\.$"):
        activation_moments("tanh", -2.0)
    assert activation_function(jnp.cos) is jnp.cos
