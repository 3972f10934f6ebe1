"""Normal dimensions and neurons: second derivations of drifts and exponents, quadrature of many digits, thresholds."""

import re

import jax
import mpmath as mp
import numpy as np
import pytest
from jax.test_util import check_grads

from theory.stochastic_collapse import (
    attractive_in_every_direction,
    largest_log_norm_drift,
    log_norm_drift,
    lyapunov_exponent,
    mean_square_exponent,
    neuron_boundary,
    neuron_exponents,
    neuron_threshold,
    sign_set_exponent,
    top_exponent_2d,
)

H = np.array([[0.2, 0.1], [0.0, -0.1]])
G = np.array([[[0.5, -0.3], [0.6, 0.2]], [[0.0, 0.4], [-0.2, 0.3]]])
X, Y = np.array([1.0, -0.5, 0.3, -1.4]), np.array([0.8, -0.6, 0.1, -1.0])
TURN = np.array([[0.0, -1.0], [1.0, 0.0]])
top = jax.jit(top_exponent_2d, static_argnames="points")
largest = jax.jit(largest_log_norm_drift)
mean_square = jax.jit(mean_square_exponent)
sign_set = jax.jit(sign_set_exponent)
exponents = jax.jit(neuron_exponents, static_argnames="time")
boundary = jax.jit(neuron_boundary)


def circle(count):
    phi = np.arange(count) * np.pi / count
    return np.stack([np.cos(phi), np.sin(phi)], axis=-1)


def drift(n, H, G):
    """q of directions of shape (..., d)."""
    Gn = np.einsum("aij,...j->...ai", G, n)
    along = np.einsum("...ai,...i->...a", Gn, n)
    return -np.einsum("...i,ij,...j->...", n, H, n) + (Gn**2).sum((-2, -1)) / 2 - (along**2).sum(-1)


def random_system(d, seed, channels=2):
    random = np.random.default_rng(seed)
    return random.normal(size=(d, d)), 0.7 * random.normal(size=(channels, d, d))


def test_printed_values():
    np.testing.assert_allclose(log_norm_drift([0.6, 0.8], H, G), -0.147848, rtol=1e-12)
    np.testing.assert_allclose(top(H, G), 0.0773171, atol=5e-8)
    found = sign_set(np.array([1.5, 2.0, 3.0, 4.0, 5.0]))
    np.testing.assert_allclose(found, [-0.1016140778, 0.0, 0.1418174551, 0.25, 0.3409890783], atol=5e-11)
    for time, printed in (
        ("continuous", (0.3025, -0.9625)),
        ("full_gradient", (0.0536044556, -0.2564856188)),
        ("single_sample", (0.0552000505, -0.2517298731)),
    ):
        np.testing.assert_allclose(exponents(X, Y, 0.2, 2.0, time=time), printed, atol=5e-11)


def test_the_drift_is_the_mean_growth_of_a_small_step():
    d = 3
    H, G = random_system(d, 0)
    n = np.array([0.3, -1.2, 0.5])
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    weights = np.outer(weights, weights).ravel() / (2 * np.pi)
    noise = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), -1).reshape(-1, 2)
    unit = n / np.linalg.norm(n)
    errors = []
    for dt in (1e-2, 5e-3, 2.5e-3):
        ends = unit - dt * H @ unit + np.sqrt(dt) * np.einsum("ka,aij,j->ki", noise, G, unit)
        growth = weights @ np.log(np.linalg.norm(ends, axis=-1)) / dt
        errors.append(abs(growth - float(log_norm_drift(n, H, G))))
    np.testing.assert_allclose(np.log2(np.array(errors[:-1]) / errors[1:]), 1, atol=0.1)
    np.testing.assert_allclose(log_norm_drift(-7.0 * n, H, G), drift(unit, H, G), rtol=1e-12)
    np.testing.assert_allclose(log_norm_drift([2.0], [[0.3]], [[[0.8]]]), lyapunov_exponent(0.3, 0.8), rtol=1e-12)


def test_the_largest_drift_in_two_dimensions_is_at_a_root_of_its_derivative():
    for seed in range(12):
        H, G = random_system(2, seed)
        # A trigonometric polynomial of degree 2 in twice the angle: five values give it.
        values = np.fft.fft(drift(circle(5), H, G)) / 5
        a, b = values[1], values[2]
        # The roots on the unit circle of its derivative, as a polynomial in e^(2 i phi).
        roots = np.roots([2j * b, 1j * a, 0, -1j * np.conj(a), -2j * np.conj(b)])
        z = np.exp(1j * np.angle(roots[np.abs(np.abs(roots) - 1) < 1e-6]))
        exact = np.max(np.real(values[0] + 2 * (a * z + b * z**2)))
        np.testing.assert_allclose(largest(H, G), exact, rtol=1e-12, atol=1e-12)
    # The start is itself a maximum, or a minimum.
    np.testing.assert_allclose(largest(np.diag([-1.0, 2.0]), 0 * G), 1, rtol=1e-14)
    np.testing.assert_allclose(largest(np.diag([2.0, -1.0]), 0 * G), 1, rtol=1e-14)


@pytest.mark.parametrize("d", [3, 4, 6])
def test_the_largest_drift_in_more_dimensions_is_above_a_dense_search_and_attained(d):
    random = np.random.default_rng(7)
    for seed in range(2):
        H, G = random_system(d, seed)
        n = random.normal(size=(4000, d))
        n /= np.linalg.norm(n, axis=1, keepdims=True)
        for scale in (0.3, 0.1, 0.03, 0.01, 0.003, 0.001):
            best = n[np.argsort(drift(n, H, G))[-20:]]
            n = np.concatenate([best, np.repeat(best, 200, 0) + scale * random.normal(size=(4000, d))])
            n /= np.linalg.norm(n, axis=1, keepdims=True)
        np.testing.assert_allclose(largest(H, G), drift(n, H, G).max(), rtol=1e-4)
        assert largest(H, G) >= drift(n, H, G).max() - 1e-9


def test_the_condition_is_sufficient_and_not_necessary():
    attractive = jax.jit(attractive_in_every_direction)
    assert attractive(H + (float(largest(H, G)) + 1e-6) * np.eye(2), G)
    shifted = H + 0.2 * np.eye(2)
    assert not attractive(shifted, G)
    assert top(shifted, G) < 0


def test_growth_of_the_mean_square():
    for d, seed in ((2, 0), (3, 1)):
        H_, G_ = random_system(d, seed)
        one = np.eye(d)
        generator = -np.kron(H_, one) - np.kron(one, H_) + sum(np.kron(g, g) for g in G_)
        found = mean_square(H_, G_)
        np.testing.assert_allclose(found, np.linalg.eigvals(generator).real.max() / 2, rtol=1e-10)
    np.testing.assert_allclose(mean_square(np.array([[0.3]]), np.array([[[0.8]]])), -0.3 + 0.8**2 / 2, rtol=1e-10)
    assert mean_square(H, G) > top(H, G)


def test_the_exponent_converges_at_fourth_order_and_without_noise_is_that_of_the_flow():
    reference = float(top(H, G, 1024))
    errors = [abs(float(top(H, G, points)) - reference) for points in (32, 64, 128)]
    np.testing.assert_allclose(np.log2(np.array(errors[:-1]) / errors[1:]), 4, atol=0.3)
    assert errors[-1] < 1e-8
    still = 0 * G
    np.testing.assert_allclose(top(np.diag([1.0, 2.0]), still), -1, rtol=1e-12)
    np.testing.assert_allclose(top(np.array([[0.3, -1.0], [0.9, 0.3]]), still), -0.3, rtol=1e-4)


def test_the_exponent_where_it_is_known_otherwise():
    # Commuting noise: two scalar processes. In each of them the noise vanishes on the axes of the other.
    h, g = np.array([-0.3, 0.4]), np.array([0.5, 1.3])
    rotated = [TURN @ np.diag(v) @ TURN.T for v in (h, g)]
    alone = np.array([[[1.0]], [[0.0]]])  # one of two channels
    for matrices in ([np.diag(h), np.diag(g)], rotated):
        found = top(matrices[0], alone * matrices[1])
        np.testing.assert_allclose(found, max(lyapunov_exponent(h, g)), atol=2e-3)
    # Noise that turns leaves the length alone but for its Ito term; isotropic noise sees no direction.
    np.testing.assert_allclose(top(0 * H, 0.7 * alone * TURN), 0.7**2 / 2, rtol=1e-10)
    np.testing.assert_allclose(top(0.1 * np.eye(2), 0.7 * alone * np.eye(2)), -0.1 - 0.7**2 / 2, rtol=1e-10)
    # The sign set of a scalar neuron with a signal: the exponent of the larger of u and v.
    C, s, swap = 0.3, 0.9, np.array([[0.0, 1.0], [1.0, 0.0]])
    np.testing.assert_allclose(top(-C * swap, s * alone * swap), C - s**2 / 2, atol=2e-3)
    # The same numbers in other units, and other coordinates.
    turn = np.array([[0.8, -0.6], [0.6, 0.8]])
    for a, b in ((3 * H, np.sqrt(3) * G), (3 * turn @ H @ turn.T, np.sqrt(3) * turn @ G @ turn.T)):
        np.testing.assert_allclose(top(a, b), 3 * top(H, G), rtol=1e-8)


def exact_sign_set(d):
    with mp.workdps(30):
        k = mp.mpf(d) - 1

        def weight(y):
            return mp.exp(k * (mp.log(mp.cosh(y)) - mp.sinh(y) ** 2 / 2))

        def q(y):
            rate = (mp.cosh(y) ** 2 + mp.mpf(d) * mp.sinh(y) ** 2) / (2 * mp.cosh(2 * y))
            return rate - mp.tanh(2 * y) ** 2

        end = mp.asinh(mp.sqrt(2 * (60 / k + mp.sqrt(60 / k))))
        edges = mp.linspace(0, end, 25)
        return float(mp.quad(lambda y: q(y) * weight(y), edges) / mp.quad(weight, edges))


@pytest.mark.thorough
def test_the_exponent_of_the_sign_set_to_many_digits():
    d = np.array([1 + 1e-9, 1.001, 1.5, 2.0, 3.0, 8.0, 100.0, 1e6])
    np.testing.assert_allclose(sign_set(d), [exact_sign_set(x) for x in d], rtol=1e-10, atol=1e-12)


def test_the_exponent_of_the_sign_set_in_one_dimension_gradients_and_single_precision():
    found = sign_set(np.concatenate([[1.0], 1 + np.geomspace(1e-12, 1e4, 60), [2.0]]))
    assert found[0] == -0.5
    assert abs(found[-1]) < 1e-13
    assert (np.diff(found[:-1]) > 0).all()
    slope = jax.jit(jax.grad(sign_set_exponent))
    np.testing.assert_allclose(slope(3.3), (sign_set(3.3 + 1e-5) - sign_set(3.3 - 1e-5)) / 2e-5, rtol=1e-7)
    assert np.isfinite(slope(1.0))
    d = np.array([1.0, 1.5, 3.0, 8.0])
    single = sign_set(d.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, sign_set(d), atol=3e-6)


def test_neuron_exponents_are_averages_over_the_label():
    eta, zeta, slope = 0.35, 1.7, 0.8

    def mean_log(m, s):
        with mp.workdps(20):
            density = lambda z: mp.exp(-(z**2) / 2) / mp.sqrt(2 * mp.pi)  # noqa: E731
            zero = -mp.mpf(m) / s
            edges = sorted([-12, 12, zero, zero - mp.mpf("0.1"), zero + mp.mpf("0.1"), 0])
            edges = [e for e in edges if -12 <= e <= 12]
            return float(mp.quad(lambda z: mp.log(abs(m + s * z)) * density(z), edges))

    C, X2 = X @ Y / 4, X @ X / 4
    found = exponents(X, Y, eta, zeta, slope, 2, time="full_gradient")
    for sign, value in zip((1, -1), found, strict=True):
        exact = mean_log(1 + sign * eta * slope * C, eta * slope * zeta * np.sqrt(X2 / 2))
        np.testing.assert_allclose(value, exact, atol=1e-8)
    found = exponents(X, Y, eta, zeta, slope, time="single_sample")
    for sign, value in zip((1, -1), found, strict=True):
        each = [
            mean_log(1 + sign * eta * slope * x * y, eta * slope * zeta * abs(x)) for x, y in zip(X, Y, strict=True)
        ]
        np.testing.assert_allclose(value, np.mean(each), atol=1e-8)


@pytest.mark.parametrize("time", ["full_gradient", "single_sample"])
def test_small_steps_are_the_continuous_exponents_to_first_order(time):
    noise, etas = 1.6, 0.002 / 2 ** np.arange(4)
    zeta = noise / np.sqrt(etas)
    continuous = np.array(exponents(X, Y, etas, zeta))
    errors = np.abs(np.array(exponents(X, Y, etas, zeta, time=time)) / etas - continuous)
    np.testing.assert_allclose(np.log2(errors[:, :-1] / errors[:, 1:]), 1, atol=0.1)
    assert errors.max() < 0.1


def test_thresholds_are_where_the_larger_exponent_vanishes():
    eta = np.array([1e-6, 0.01, 0.1, 0.3])
    for y in (Y, -Y):
        tau = neuron_threshold(X, y, 0.7, 3)
        critical = np.max(exponents(X, y, eta, np.sqrt(2 * tau / eta), 0.7, 3), axis=0)
        np.testing.assert_allclose(critical, 0, atol=1e-14)
        zeta = boundary(X, y, eta, 0.7, 3)
        found = exponents(X, y, eta, zeta, 0.7, 3, time="full_gradient")
        np.testing.assert_allclose(np.max(found, axis=0) / eta, 0, atol=1e-8)
        np.testing.assert_allclose(eta[0] * zeta[0] ** 2 / 2, tau, rtol=1e-5)
        assert np.max(exponents(X, y, eta, 1.01 * zeta, 0.7, 3, time="full_gradient"), 0).max() < 0
    C = X @ Y / 4
    edge = np.isnan(boundary(X, Y, np.array([0.278, 0.279, 1.0, 1.0]) / C))
    np.testing.assert_array_equal(edge, [False, True, True, True])


@pytest.mark.thorough
def test_gradients_shapes_and_single_precision():
    check_grads(jax.jit(lambda H, G: log_norm_drift(np.array([0.6, 0.8]), H, G)), (H, G), order=1, modes=["rev"])
    check_grads(jax.jit(lambda H, G: largest_log_norm_drift(H, G)), (H, G), order=1, modes=["rev"], rtol=1e-4)
    check_grads(jax.jit(lambda H, G: top_exponent_2d(H, G, 64)), (H, G), order=1, modes=["rev"])
    for time in ("continuous", "full_gradient", "single_sample"):
        check_grads(
            lambda y, eta, zeta, t=time: neuron_exponents(X, y, eta, zeta, time=t),
            (Y, 0.2, 2.0),
            order=1,
            modes=["rev"],
        )
    check_grads(jax.jit(lambda y, eta: neuron_boundary(X, y, eta)), (Y, 0.2), order=1, modes=["rev"])

    many = np.stack([H, 2 * H, -H])
    n = circle(5)[:, None, :]
    np.testing.assert_allclose(
        log_norm_drift(n, many, G), [[drift(v, h, G) for h in many] for v in circle(5)], rtol=1e-10, atol=1e-14
    )
    np.testing.assert_allclose(top(many, G), [top(h, G) for h in many], rtol=1e-12)
    assert jax.vmap(lambda h: largest_log_norm_drift(h, G))(many).shape == (3,)
    assert neuron_exponents(np.ones((3, 1, 4)) * X, Y, np.full(2, 0.2), 2.0, time="single_sample").u.shape == (3, 2)
    single = [v.astype(np.float32) for v in (H, G, X, Y)]
    for f, args, tolerance in (
        (top, (0, 1), 1e-3),
        (largest, (0, 1), 1e-5),
        (mean_square_exponent, (0, 1), 1e-4),
        (lambda x, y: neuron_exponents(x, y, 0.2, 2.0, time="single_sample").u, (2, 3), 1e-5),
        (lambda x, y: neuron_boundary(x, y, 0.2), (2, 3), 1e-5),
    ):
        found = f(*(single[k] for k in args))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, f(*((H, G, X, Y)[k] for k in args)), rtol=tolerance)


def refuses(call, words):
    with pytest.raises(ValueError, match="^" + re.escape(words) + "$"):
        call()


def test_bad_arguments_are_named():
    refuses(lambda: log_norm_drift([1.0, 0.0], H[:1], G), "`H` must be square matrices, but got shape (1, 2).")
    refuses(lambda: log_norm_drift([1.0, 0.0], H, G[0]), "`G` must have shape (..., a, 2, 2), but got (2, 2).")
    refuses(lambda: log_norm_drift([1.0], H, G), "`n` must have shape (..., 2), but got (1,).")
    refuses(lambda: log_norm_drift([0.0, 0.0], H, G), "`n` must be a direction, but got 0.")
    refuses(lambda: log_norm_drift([1.0, 0.0], H, np.full((1, 2, 2), np.inf)), "`G` must be finite, but got inf.")
    refuses(lambda: top_exponent_2d(np.eye(3), np.ones((1, 3, 3))), "`H` must have shape (..., 2, 2), but got (3, 3).")
    refuses(lambda: top_exponent_2d(H, G, 33), "`points` must be an even whole number not below 8, but got 33.")
    refuses(
        lambda: largest_log_norm_drift(np.ones((3, 2, 2)), np.ones((2, 1, 2, 2))),
        "The arguments' shapes do not broadcast: [(3, 2, 2), (2, 1, 2, 2)].",
    )
    refuses(lambda: sign_set_exponent([3.0, 0.9]), "`d` must be 1 or more, but got 0.9.")
    refuses(lambda: neuron_exponents(X, Y, 0.0, 1.0), "`eta` must be positive, but got 0.")
    refuses(lambda: neuron_exponents(X, Y, 0.1, -1.0), "`zeta` must be zero or positive, but got -1.")
    refuses(lambda: neuron_exponents(X, Y, 0.1, 1.0, slope=0.0), "`slope` must be positive, but got 0.")
    refuses(lambda: neuron_threshold(X, Y, batch=1.5), "`batch` must be a whole number not below 1, but got 1.5.")
    refuses(
        lambda: neuron_exponents(X, Y, 0.1, 1.0, batch=4, time="single_sample"),
        "`batch` must be 1 for a single sample, but got 4.",
    )
    refuses(
        lambda: neuron_exponents(X, Y, 0.1, 1.0, time="epoch"),
        "`time` must be one of continuous, full_gradient, single_sample, but got epoch.",
    )
    refuses(
        lambda: neuron_exponents(X, Y[:3], 0.1, 1.0),
        "`x` and `y` must have as many samples, but got shapes (4,) and (3,).",
    )
    refuses(lambda: neuron_threshold(0 * X, Y), "`x` must be nonzero in some sample, but got 0.")
