"""A bias beside the encoder: the loss with one more constant input, its minimum by BFGS, the Hessian along the bias."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.optimize import minimize

from theory.ssl_collapse import (
    dot_bias_penalty,
    dot_bias_threshold,
    spectral_loss_with_bias,
    spectral_minimum_with_bias,
    spectral_rank,
)

A0 = np.array([[1.5, 0.4, 0.0], [0.4, 0.8, 0.2], [0.0, 0.2, 0.6]])
C = np.array([[0.3, -0.1, 0.1], [-0.1, 0.5, 0.0], [0.1, 0.0, 0.2]])
W = np.array([[0.4, -0.3, 0.2], [0.2, 0.5, 0.6]])
BIAS = np.array([0.7, -0.2])


def test_the_bias_is_the_weight_of_one_more_constant_input():
    extended = np.hstack([W, BIAS[:, None]])
    clean, views = (np.block([[X, np.zeros((3, 1))], [np.zeros((1, 3)), np.ones((1, 1))]]) for X in (A0, A0 + C))
    S = extended @ views @ extended.T
    expected = -2 * np.trace(extended @ clean @ extended.T) + np.sum(S**2) + 0.3 * np.sum(W**2)
    np.testing.assert_allclose(spectral_loss_with_bias(W, BIAS, A0, C, 0.3), expected, rtol=1e-13)
    S = W @ (A0 + C) @ W.T
    without = -2 * np.trace(W @ A0 @ W.T) + np.sum(S**2)
    np.testing.assert_allclose(spectral_loss_with_bias(W, 0 * BIAS, A0, C), without, rtol=1e-13)


@pytest.mark.parametrize("m", [1, 2, 3, 4])
@pytest.mark.parametrize("decay", [0.0, 1.3])
def test_minimum_is_that_of_descent_from_random_starts(m, decay):
    def loss(p):
        p = p.reshape(m, 4)
        return spectral_loss_with_bias(p[:, :3], p[:, 3], A0, C, decay)

    value = jax.jit(jax.value_and_grad(loss))
    random = np.random.default_rng(m)
    runs = [
        minimize(
            lambda x: [np.asarray(v) for v in value(x)], random.normal(size=4 * m), jac=True, options={"gtol": 1e-10}
        )
        for _ in range(3)
    ]
    best = min(runs, key=lambda run: run.fun)
    found = best.x.reshape(m, 4)
    theory = spectral_minimum_with_bias(A0, C, m, decay)
    np.testing.assert_allclose(best.fun, theory.loss, rtol=1e-9)
    np.testing.assert_allclose(found[:, :3].T @ found[:, :3], theory.gram, atol=1e-5)
    np.testing.assert_allclose(found[:, 3] @ found[:, 3], theory.bias_square, rtol=1e-6)
    np.testing.assert_allclose(found[:, :3].T @ found[:, 3], 0, atol=1e-5)
    B = 2 * A0 - decay * np.eye(3)
    assert int(spectral_rank(B, m, bias=True)) == int(np.sum(theory.strengths > 1e-9))
    assert int(spectral_rank(B, m)) == min(m, int(np.sum(np.linalg.eigvalsh(B) > 0)))


def test_rank_on_both_sides_of_a_vanishing_eigenvalue():
    assert [int(spectral_rank(np.diag([1.0, x]), 3)) for x in (-1e-6, 0.0, 1e-6)] == [1, 1, 2]
    assert [int(spectral_rank(np.diag([1.0, x]), 2, bias=True)) for x in (-1e-6, 1e-6)] == [1, 1]


def test_penalty_is_the_integral_over_gaussian_embeddings():
    S, tau, alpha = np.array([[0.3, 0.1], [0.1, 0.2]]), 0.8, 1.3
    root = np.linalg.cholesky(S)
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    weights = weights / weights.sum()
    z = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), -1).reshape(-1, 2) @ root.T
    w = np.outer(weights, weights).ravel()

    def loss(b):
        f = z + b
        repulsion = w @ np.log(np.exp(f @ f.T / tau) @ w)
        return repulsion - alpha / tau * (b @ b)

    np.testing.assert_allclose(dot_bias_penalty(S, BIAS, tau, alpha), loss(BIAS) - loss(0 * BIAS), rtol=1e-10)


@pytest.mark.parametrize("side", [0.97, 1.03])
def test_the_best_unused_mode_grows_along_the_bias_below_the_threshold_alone(side):
    """Hessian at the minimum of InfoNCE with dot products in the dimension that is left, beside two learned modes."""
    rho, tau = np.array([0.7, 0.5, 0.4]), 0.6
    square = side * dot_bias_threshold(rho[2:], tau)
    W = np.vstack([np.diag(np.sqrt(tau * rho))[:2], np.zeros(3)])
    b = jnp.array([0.0, 0.0, float(square) ** 0.5])

    def loss(W):
        S = W @ W.T
        return -jnp.trace(W @ jnp.diag(rho) @ W.T) / tau + jnp.sum(S**2) / (2 * tau**2) + dot_bias_penalty(S, b, tau)

    gradient, hessian = jax.jit(jax.grad(loss))(W), jax.jit(jax.hessian(loss))(W)
    np.testing.assert_allclose(gradient, 0, atol=1e-12)
    least = np.linalg.eigvalsh(np.asarray(hessian).reshape(9, 9)).min()
    assert (least < -1e-3) == (side < 1)
    small = np.asarray(jax.jit(jax.hessian(loss))(0.0 * W)).reshape(3, 3, 3, 3)[2, :, 2, :]
    assert np.linalg.eigvalsh(small).min() < 0
    assert dot_bias_threshold(rho, tau) == pytest.approx(2 * tau * 0.7)


@pytest.mark.thorough
def test_threshold_broadcasts_over_temperatures_and_everything_is_differentiable():
    rho, tau = np.array([[0.2, 0.6], [0.5, 0.1]]), np.array([0.5, 2.0])
    np.testing.assert_allclose(dot_bias_threshold(rho, tau), [0.6, 2.0])
    check_grads(jax.jit(lambda *p: spectral_loss_with_bias(*p, A0, C, 0.1)), (W, BIAS), order=1, rtol=1e-5)
    check_grads(jax.jit(lambda t: dot_bias_threshold(rho, t)), (tau,), order=1, rtol=1e-5)
    check_grads(jax.jit(lambda d: spectral_minimum_with_bias(A0, C, 3, d).loss), (0.2,), order=1, rtol=1e-5)
    found = jax.jit(spectral_minimum_with_bias)(A0.astype(np.float32), C.astype(np.float32), 2)
    assert found.gram.dtype == jnp.float32
    np.testing.assert_allclose(found.gram, spectral_minimum_with_bias(A0, C, 2).gram, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: spectral_minimum_with_bias(A0, C, 0), "`m` must be a whole number not below 1, but got 0."),
        (lambda: spectral_minimum_with_bias(A0, C, 2, -1.0), "`weight_decay` must be zero or positive, but got -1."),
        (
            lambda: spectral_minimum_with_bias(A0, C[:2, :2], 2),
            "`C` must have the shape of `A0`, (3, 3), but got shape (2, 2).",
        ),
        (lambda: spectral_loss_with_bias(W[:, :2], BIAS, A0, C), "`W` must be of shape (m, 3), but got shape (2, 2)."),
        (
            lambda: spectral_loss_with_bias(W, BIAS[:1], A0, C),
            "`bias` must have one entry for each of the 2 rows of `W`, but got (1,).",
        ),
        (lambda: spectral_loss_with_bias(W, np.nan * BIAS, A0, C), "`bias` must be finite, but got nan."),
        (lambda: spectral_rank(np.ones((2, 3)), 2), "`B` must be a square matrix, but got shape (2, 3)."),
        (lambda: dot_bias_threshold([1.2], 1.0), "`rho` must be between 0 and 1, but got 1.2."),
        (lambda: dot_bias_threshold([0.2], 0.0), "`temperature` must be positive, but got 0."),
        (
            lambda: dot_bias_penalty(np.eye(2), np.ones(3)),
            "`bias` must have one entry for each row of `S`, but got shape (3,).",
        ),
        (lambda: dot_bias_penalty(np.eye(2), np.ones(2), 1.0, -0.5), "`alpha` must be zero or positive, but got -0.5."),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(call, sentence):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        call()
    assert str(error.value) == sentence
