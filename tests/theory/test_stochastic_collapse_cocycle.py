"""Normal Hessians of invariant sets against autodiff of whole networks, and heavy ball's matrix against its steps."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from theory.stochastic_collapse import heavy_ball_cocycle, permutation_set_hessian, sign_set_hessian

D = 3
activations = {"tanh": jnp.tanh, "gelu": lambda u: jax.nn.gelu(u, approximate=False), "sin": jnp.sin}


def network(theta, x, sigma, p):
    """Three neurons, each with d incoming and p outgoing weights in a row."""
    neurons = theta.reshape(3, D + p)
    return (neurons[:, D:] * sigma(neurons[:, :D] @ x)[:, None]).sum(0)


def hessian(theta, x, y, sigma, p):
    """(Hessian of half the squared error, residual) at theta."""
    half_squares = jax.hessian(lambda t: ((network(t, x, sigma, p) - y) ** 2).sum() / 2)
    return half_squares(theta), network(theta, x, sigma, p) - y


@pytest.mark.thorough
@pytest.mark.parametrize("p", [1, 3])
@pytest.mark.parametrize("name", activations)
def test_blocks_of_the_whole_hessian(name, p):
    sigma, rng, n = activations[name], np.random.default_rng(p), D + p
    x, y, theta = rng.normal(size=D), rng.normal(size=p), rng.normal(size=(3, n))
    one, zero = np.eye(n), np.zeros((n, n))

    theta[2] = 0
    H, r = hessian(theta.ravel(), x, y, sigma, p)
    normal = np.concatenate([zero, zero, one])
    np.testing.assert_allclose(normal.T @ H @ normal, sign_set_hessian(x, r, jax.grad(sigma)(0.0)), atol=1e-14)
    np.testing.assert_allclose(H[2 * n :, : 2 * n], 0, atol=1e-14)

    theta[1] = theta[0] = rng.normal(size=n)
    H, r = hessian(theta.ravel(), x, y, sigma, p)
    normal, tangent = (np.concatenate([one, sign * one, zero]) / 2**0.5 for sign in (-1, 1))
    u = theta[0, :D] @ x
    slope, curvature = jax.grad(sigma)(u), jax.grad(jax.grad(sigma))(u)
    M = permutation_set_hessian(x, r, theta[0, D:], slope, curvature)
    np.testing.assert_allclose(normal.T @ H @ normal, M, atol=1e-14)
    np.testing.assert_allclose(normal.T @ H @ tangent, 0, atol=1e-14)
    np.testing.assert_allclose(normal.T @ H[:, 2 * n :], 0, atol=1e-14)
    # The sign of the curvature, and its factor, are seen.
    wrong = permutation_set_hessian(x, r, theta[0, D:], slope, 2 * curvature)
    assert np.abs(normal.T @ H @ normal - wrong).max() > 1e-3


def test_printed_values():
    M = permutation_set_hessian([0.5, 1.0], [-0.4], [0.8], 0.7, 0.3)
    np.testing.assert_allclose(M, [[-0.024, -0.048, -0.14], [-0.048, -0.096, -0.28], [-0.14, -0.28, 0]], atol=1e-16)
    np.testing.assert_allclose(
        sign_set_hessian([0.5, 1.0], [-0.4], 0.7), [[0, 0, -0.14], [0, 0, -0.28], [-0.14, -0.28, 0]], atol=1e-16
    )


def test_no_residual_no_force():
    assert not np.any(permutation_set_hessian(np.ones(3), np.zeros(2), np.ones(2), 0.7, 0.3))
    assert not np.any(sign_set_hessian(np.ones(3), np.zeros(2)))


@pytest.mark.thorough
def test_many_samples_at_once_and_in_single_precision():
    rng = np.random.default_rng(0)
    x, r, a, slope, curvature = (rng.normal(size=shape) for shape in ((5, 4), (5, 2), 2, (3, 1), 5))
    M = permutation_set_hessian(x, r, a, slope, curvature)
    assert M.shape == (3, 5, 6, 6)
    each = permutation_set_hessian(x[4], r[4], a, slope[1, 0], curvature[4])
    np.testing.assert_allclose(M[1, 4], each, rtol=1e-15)
    mapped = jax.jit(jax.vmap(permutation_set_hessian, (0, 0, None, None, 0)))(x, r, a, 0.3, curvature)
    np.testing.assert_allclose(mapped, permutation_set_hessian(x, r, a, 0.3, curvature), rtol=1e-14)
    single = permutation_set_hessian(*(v.astype(np.float32) for v in (x, r, a, slope, curvature)))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, M, rtol=1e-5, atol=1e-6)
    assert sign_set_hessian(x, r).shape == (5, 6, 6)
    assert heavy_ball_cocycle(M, 0.1, np.linspace(0, 0.9, 5)).shape == (3, 5, 12, 12)
    check_grads(lambda r: permutation_set_hessian(x, r, a, slope, curvature), (r,), order=1)


@pytest.mark.parametrize("beta", [0.0, 0.9])
def test_the_cocycle_is_two_steps_of_heavy_ball(beta):
    rng = np.random.default_rng(1)
    M = rng.normal(size=(2, 4, 4))
    M, eta, decay = M + np.swapaxes(M, -1, -2), 0.3, 0.05
    z, p = rng.normal(size=(2, 4))
    state = np.concatenate([z, p])
    for batch in M:
        gradient = jax.grad(lambda z, batch=batch: z @ batch @ z / 2 + decay * z @ z / 2)(z)
        p = beta * p - eta * gradient
        z = z + p
        state = heavy_ball_cocycle(batch, eta, beta, decay) @ state
    np.testing.assert_allclose(state, np.concatenate([z, p]), rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(np.linalg.det(heavy_ball_cocycle(M[0], eta, beta)), beta**4, atol=1e-14)
    plain = np.eye(4) - eta * M[0]
    np.testing.assert_allclose(heavy_ball_cocycle(M[0], eta)[:4, :4], plain, rtol=1e-15)


def refuses(call, words):
    with pytest.raises(ValueError, match="^" + re.escape(words) + "$"):
        call()


def test_bad_arguments_are_named():
    M = np.eye(2)
    refuses(lambda: heavy_ball_cocycle(M, 0.0), "`eta` must be positive, but got 0.")
    refuses(lambda: heavy_ball_cocycle(M, 0.1, 1.0), "`beta` must be zero or positive, and below 1, but got 1.")
    refuses(lambda: heavy_ball_cocycle(M, 0.1, 0.0, -1.0), "`weight_decay` must be zero or positive, but got -1.")
    refuses(lambda: heavy_ball_cocycle(M * np.nan, 0.1), "`M` must be finite, but got nan.")
    refuses(lambda: heavy_ball_cocycle(np.ones((2, 3)), 0.1), "`M` must be square, but got shape (2, 3).")
    refuses(lambda: sign_set_hessian([np.inf], [1.0]), "`x` must be finite, but got inf.")
    refuses(lambda: sign_set_hessian([1.0], 1.0), "`residual` must have an axis of its own, but got a number.")
    words = "`a` must have as many outputs as `residual`, 2, but got 1."
    refuses(lambda: permutation_set_hessian([1.0], [1.0, 2.0], [1.0], 1.0, 1.0), words)
    words = "The arguments' leading shapes do not broadcast: [(2,), (3,), (3,), (), ()]."
    refuses(lambda: sign_set_hessian(np.ones((2, 4)), np.ones((3, 1))), words)
