"""Wide linear networks: real flows of every shape, one step, kernels of the weights, the three regimes."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.linalg import sqrtm

from theory.lazy_rich import (
    conserved_matrix,
    conserved_matrix_step,
    fitted_norm,
    gradient_flow,
    hyperbolic_entropy,
    kernel_distance,
    layer_grams,
    matrix_flow,
    ntk_matrix,
    relative_scale,
    wide_ntk_matrix,
)

RATES = {"eta_a": 0.6, "eta_w": 2.5}
flow = jax.jit(matrix_flow, static_argnames="steps")
ntk = jax.jit(wide_ntk_matrix, static_argnames="width")
grams = jax.jit(layer_grams, static_argnames="width")
apart = jax.jit(kernel_distance)
delta_of = jax.jit(conserved_matrix)
entropy = jax.jit(hyperbolic_entropy)
scale = jax.jit(relative_scale)


def network(rng, d, h, c, delta, tau=0.6, eta_a=0.6, eta_w=2.5):
    """Weights of Delta = delta I with every neuron at scale tau, in random directions."""
    U, V_w, V_a = (np.linalg.qr(rng.normal(size=(n, n)))[0] for n in (h, d, c))
    alpha = float(scale(tau, delta, eta_a=eta_a, eta_w=eta_w))
    W, A = np.zeros((h, d)), np.zeros((h, c))
    both, either = min(d, c, h), np.arange(h)
    W[either[:both], either[:both]], A[either[:both], either[:both]] = tau * alpha, tau / alpha
    for i in range(both, h):  # neurons without a partner on the other side
        (A if delta > 0 else W)[i, i] = (abs(delta) / (eta_w if delta > 0 else eta_a)) ** 0.5
    return U @ W @ V_w.T, U @ A @ V_a.T


def integrate(W0, A0, beta_star, times, eta_a=0.6, eta_w=2.5):
    (h, d), c = W0.shape, A0.shape[1]

    def velocity(_, state):
        W, A = state[: h * d].reshape(h, d), state[h * d :].reshape(h, c)
        G = W.T @ A - beta_star
        return np.concatenate([(-eta_w * A @ G.T).ravel(), (-eta_a * W @ G).ravel()])

    start, options = np.concatenate([W0.ravel(), A0.ravel()]), {"method": "DOP853", "rtol": 1e-12, "atol": 1e-13}
    path = solve_ivp(velocity, (0, times[-1]), start, t_eval=times, **options).y.T
    return [(x[: h * d].reshape(h, d), x[h * d :].reshape(h, c)) for x in path]


def test_the_flow_keeps_its_printed_digits():
    W0 = np.array([[0.5, -0.3], [0.2, 0.4]])
    A0 = np.linalg.cholesky(0.8 * np.eye(2) + W0 @ W0.T)
    beta_star = np.array([[0.9, -0.1], [0.3, 0.6]])
    beta = matrix_flow(1.5, W0, A0, beta_star)
    np.testing.assert_allclose(flow(1.5, W0, A0, beta_star, steps=7), beta, rtol=1e-13)
    printed = ((0.8744329632, -0.06664619905), (0.2402603828, 0.5735307161))
    np.testing.assert_allclose(beta, printed, rtol=0, atol=5e-11)


@pytest.mark.parametrize(
    ("d", "h", "c", "delta"), [(2, 3, 4, 0.7), (4, 3, 2, -0.7), (3, 3, 3, 0.0), (3, 1, 2, 1.5), (4, 2, 2, -2.0)]
)
def test_flows_are_those_of_adaptive_integration(d, h, c, delta):
    rng = np.random.default_rng(d + 10 * h + 100 * c)
    (W0, A0), beta_star = network(rng, d, h, c, delta), rng.normal(size=(d, c))
    np.testing.assert_allclose(delta_of(W0, A0, **RATES), delta * np.eye(h), rtol=0, atol=1e-14)
    times = np.array([0.0, 0.3, 1.0, 8.0])
    beta = flow(times, W0, A0, beta_star, steps=24, **RATES)
    assert beta.shape == (4, d, c)
    layers = integrate(W0, A0, beta_star, times)
    np.testing.assert_allclose(beta, [W.T @ A for W, A in layers], rtol=0, atol=1e-10)
    np.testing.assert_allclose(delta_of(*layers[-1], **RATES), delta * np.eye(h), rtol=0, atol=1e-9)
    twice = flow(times, W0, A0, beta_star, steps=24, eta_a=0.6 * 4.1, eta_w=2.5 / 4.1)
    assert np.abs(twice - beta)[1:3].max() > 0.01
    if h < 3:  # rank(beta) = h
        W, A = layers[1]
        outer, inner = grams(W.T @ A, delta, h, **RATES)
        np.testing.assert_allclose(outer, 2.5 * A.T @ A, rtol=0, atol=1e-8)
        np.testing.assert_allclose(inner, 0.6 * W.T @ W, rtol=0, atol=1e-8)
        G = W.T @ A - beta_star
        moving = ntk(W.T @ A, delta, h, **RATES) @ -G.T.ravel()  # columns stacked
        velocity = -2.5 * G @ A.T @ A - 0.6 * W.T @ W @ G
        np.testing.assert_allclose(moving.reshape(c, d).T, velocity, rtol=0, atol=1e-8)
        assert np.abs(grams(W.T @ A, -delta, h, **RATES)[0] - outer).max() > 0.1


def test_one_neuron_and_one_output_are_the_single_neuron():
    w0, a0, beta_star = np.array([0.4, 1.0, -0.7]), -0.8, np.array([0.5, -0.2, 0.6])
    times = np.array([0.5, 2.0, 30.0])
    beta = flow(times, w0[None, :], np.array([[a0]]), beta_star[:, None], 40, **RATES)[..., 0]
    w, a = jax.jit(gradient_flow)(times, w0, a0, beta_star, **RATES)
    np.testing.assert_allclose(beta, a[:, None] * w, rtol=0, atol=1e-13)
    single = flow(*(np.asarray(x, np.float32) for x in (times, w0[None, :], [[a0]], beta_star[:, None])), 40, **RATES)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single[..., 0], beta, rtol=0, atol=1e-5)


def test_aligned_modes_grow_like_a_single_neuron():
    s, mu0, delta = np.array([1.5, 0.7]), np.array([0.2, 0.3]), -0.4
    outer = (delta + np.sqrt(delta**2 + 6 * mu0**2)) / 2
    A0 = np.diag(np.sqrt(outer / 2.5))
    times = np.array([0.2, 1.0, 5.0])
    beta = flow(times, np.diag(mu0 / np.diag(A0)), A0, np.diag(s), 20, **RATES)
    grown = jax.jit(fitted_norm)
    modes = grown(times[:, None], mu0[None, :], s[None, :], delta, **RATES)
    np.testing.assert_allclose(np.diagonal(beta, axis1=1, axis2=2), modes, rtol=1e-12)

    # The mirror flow of the entropy: d/dt Phi'(mu) = s - mu.
    @jax.jit
    def curvature_and_velocity(mu):
        curvature = jax.grad(jax.grad(lambda x: hyperbolic_entropy(x, delta, **RATES)))(mu)
        return curvature, jax.jvp(lambda t: fitted_norm(t, mu, 1.5, delta, **RATES), (0.0,), (1.0,))[1]

    curvature, velocity = curvature_and_velocity(jnp.array(0.5))
    np.testing.assert_allclose(curvature * velocity, 1.0, rtol=1e-10)
    np.testing.assert_allclose(curvature, 1 / np.sqrt(delta**2 + 6 * 0.25), rtol=1e-10)


def test_the_entropy_is_between_absolute_and_square():
    sigma = np.array([-2.0, 0.3, 0.6])
    np.testing.assert_allclose(entropy(sigma, 1e9) * 1e9, sigma**2 / 2, rtol=1e-12)
    ratio = entropy(sigma, 1e-300)
    np.testing.assert_allclose(ratio / ratio[1], np.abs(sigma) / 0.3, rtol=1e-2)
    np.testing.assert_allclose(entropy(sigma, -0.4), entropy(sigma, 0.4), rtol=1e-15)
    plain = (sigma * np.arcsinh(2 * sigma / 0.4) - np.sqrt(sigma**2 + 0.04) + 0.2) / 2
    np.testing.assert_allclose(entropy(sigma, 0.4), plain, rtol=1e-13)
    single = entropy(np.float32(1e-3), np.float32(5.0))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, 1e-7, rtol=1e-5)


def test_one_step_changes_the_conserved_matrix_by_exactly_this():
    rng = np.random.default_rng(0)
    W, A, G = rng.normal(size=(3, 4)), rng.normal(size=(3, 2)), rng.normal(size=(4, 2))
    moved = W - 0.1 * 2.5 * A @ G.T, A - 0.1 * 0.6 * W @ G
    change = delta_of(*moved, **RATES) - delta_of(W, A, **RATES)
    stepped = jax.jit(conserved_matrix_step)
    step = stepped(W, A, G, 0.1, **RATES)
    np.testing.assert_allclose(step, change, rtol=0, atol=1e-12)
    assert np.abs(stepped(W, A, G, 0.1, eta_a=2.5, eta_w=0.6) - change).max() > 0.01
    w, a, v = W[:1], A[:1, :1], G[:, :1]
    single = 0.01 * 1.5 * (0.6 * (w[0] @ v[:, 0]) ** 2 - 2.5 * a[0, 0] ** 2 * v[:, 0] @ v[:, 0])
    np.testing.assert_allclose(stepped(w, a, -v, 0.1, **RATES)[0, 0], single, rtol=1e-13)
    np.testing.assert_allclose(delta_of(w, a, **RATES)[0, 0], 2.5 * a[0, 0] ** 2 - 0.6 * w[0] @ w[0], rtol=1e-13)


def test_grams_are_square_roots_where_the_width_fills_the_space():
    beta, delta = np.random.default_rng(1).normal(size=(4, 2)), 0.7
    for x, d in ((beta, delta), (beta[:2], -delta)):
        outer, _ = grams(x, d, 2, **RATES)
        np.testing.assert_allclose(outer, (sqrtm(d**2 * np.eye(2) + 6 * x.T @ x) + d * np.eye(2)) / 2, atol=1e-13)
        _, inner = grams(x.T, d, 2, **RATES)
        np.testing.assert_allclose(inner, (sqrtm(d**2 * np.eye(2) + 6 * x.T @ x) - d * np.eye(2)) / 2, atol=1e-13)
    one = ntk(beta[:, :1], delta, 1, **RATES)
    np.testing.assert_allclose(one, ntk_matrix(beta[:, 0], delta, **RATES), rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("shape", "lazy", "rich"),
    [((8, 2, 2), (8.0,), (-8.0,)), ((2, 2, 8), (-8.0,), (8.0,)), ((4, 4, 4), (8.0, -8.0), ())],
    ids=["funnel", "inverted", "square"],
)
def test_the_shape_decides_which_side_is_lazy(shape, lazy, rich):
    d, h, c = shape

    def distance(seed, delta):
        rng = np.random.default_rng(seed)
        W, A = network(rng, d, h, c, delta, 0.05**0.5, 1, 1)
        beta_star = rng.normal(size=(d, c))
        beta_star /= np.linalg.norm(beta_star, 2)
        return apart(ntk(W.T @ A, delta, h), ntk(beta_star, delta, h))

    medians = {delta: np.median([distance(seed, delta) for seed in range(16)]) for delta in (-8.0, 0.0, 8.0)}
    # Over 16 seeds the prototype had 0.79, 0.125 (funnel), 0.72, 0.139 (inverted), and 0.080 (square).
    assert 0.06 < medians[0.0] < 0.18
    assert all(medians[delta] < 1e-4 for delta in lazy)
    assert all(0.6 < medians[delta] < 0.9 for delta in rich)


def refuses(call, words):
    with pytest.raises(ValueError, match="^" + re.escape(words)):
        call()


def test_bad_arguments_are_named():
    W, A, B = np.eye(2), np.eye(2), np.ones((2, 2))
    words = "`W0` must be such that Delta is a multiple of I, up to rounding, but got 1.5."
    refuses(lambda: matrix_flow(1.0, W, np.diag([1.0, 2]), B), words)
    refuses(lambda: matrix_flow(-1.0, W, A, B), "`t` must be zero or positive, but got -1.")
    refuses(lambda: matrix_flow(np.inf, W, A, B), "`t` must be finite, but got inf.")
    refuses(lambda: matrix_flow(1.0, W, A, B, 0), "`steps` must be a whole number not below 1, but got 0.")
    refuses(lambda: matrix_flow(1.0, W, A, B, eta_a=0), "`eta_a` must be positive, but got 0.")
    refuses(
        lambda: matrix_flow(1.0, W, A, np.ones((2, 3))), "`beta_star` must have shape (d, c) = (2, 2), but got (2, 3)."
    )
    refuses(
        lambda: jax.jit(matrix_flow)(1.0, W, A, B),
        "`steps` must be given where the arguments are traced, but got None.",
    )
    words = "`W` and `A` must have shapes (h, d) and (h, c), but got (2, 2) and (3, 3)."
    refuses(lambda: conserved_matrix(W, np.eye(3)), words)
    refuses(lambda: matrix_flow(1.0, W, np.eye(3), B), words)
    refuses(lambda: conserved_matrix_step(W, A, np.eye(3), 0.1), "`G` must have shape (d, c) = (2, 2), but got (3, 3).")
    refuses(lambda: conserved_matrix(W, np.nan * A), "`A` must be finite, but got nan.")
    refuses(lambda: layer_grams(np.ones(2), 1.0, 1), "`beta` must have shape (d, c), but got (2,).")
    refuses(lambda: wide_ntk_matrix(np.ones((2, 4)), 1.0, 3), "`width` must be at most min(d, c) = 2, but got 3.")
    refuses(
        lambda: hyperbolic_entropy(1.0, 0.0),
        "`delta` must be different from 0, where the entropy is infinite, but got 0.",
    )
