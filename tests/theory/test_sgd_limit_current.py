"""What SGD samples and the current around it: decompositions, the Fokker-Planck equation, printed values."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.linalg import solve_continuous_lyapunov

from theory.sgd_limit import (
    inverse_temperature,
    langevin_matrices,
    modified_loss,
    phase_space_covariance,
    probability_current,
    stationary_decomposition,
    stationary_density,
)

RANDOM = np.random.default_rng(0)
ROOT = RANDOM.normal(size=(4, 4))
H = ROOT @ ROOT.T / 4 + 0.1 * np.eye(4)
ETA, BETA, DECAY, BATCH, SIGMA = 0.1, 0.8, 0.05, 6, 1.3
decompose = jax.jit(stationary_decomposition)


def test_printed_circulation():
    _, _, Q = stationary_decomposition(np.diag([1.0, 3.0]), np.array([[1.0, 0.5], [0.5, 1.0]]))
    np.testing.assert_allclose(Q, [[0, -0.25], [0.25, 0]], atol=1e-15)


def test_a_diffusion_is_taken_apart():
    A = ROOT @ ROOT.T / 4 + np.eye(4) + 0.5 * (ROOT - ROOT.T)
    noise = RANDOM.normal(size=(4, 4))
    D = noise @ noise.T
    B, U, Q = decompose(A, D)
    np.testing.assert_allclose(B, solve_continuous_lyapunov(A, 2 * D), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(Q, -Q.T, atol=1e-15)
    np.testing.assert_allclose(Q, A @ B - D, atol=1e-12)
    np.testing.assert_allclose((D + Q) @ U, A, atol=1e-11)


def test_in_the_eigenbasis_of_a_symmetric_drift():
    a, V = np.linalg.eigh(H)
    noise = RANDOM.normal(size=(4, 4))
    D = noise @ noise.T
    B, _, Q = decompose(H, D)
    sums, gaps, inside = a[:, None] + a[None, :], a[:, None] - a[None, :], V.T @ D @ V
    np.testing.assert_allclose(V.T @ B @ V, 2 * inside / sums, atol=1e-12)
    np.testing.assert_allclose(V.T @ Q @ V, inside * gaps / sums, atol=1e-12)
    commuting = decompose(H, H @ H)
    np.testing.assert_allclose(commuting.Q, np.zeros((4, 4)), atol=1e-13)
    np.testing.assert_allclose(commuting.B, H, atol=1e-12)


def test_euler_steps_have_their_own_covariance_and_circulation():
    A, D, step = np.array([[2.5, -1.5], [-1.5, 2.5]]), np.diag([4.0, 1.0]), 0.3
    C = np.zeros((2, 2))
    for _ in range(400):
        C = (np.eye(2) - step * A) @ C @ (np.eye(2) - step * A).T + 2 * step * D
    B, _, Q = decompose(A, D, step)
    np.testing.assert_allclose(B, C, rtol=1e-12)
    after = (np.eye(2) - step * A) @ C  # E[x_{k+1} x_k^T]
    np.testing.assert_allclose(after - after.T, -2 * step * Q, atol=1e-13)
    assert np.abs(B - decompose(A, D).B).max() > 0.1


def test_the_langevin_equation_is_taken_apart():
    A, D, Q, U = langevin_matrices(H, ETA, BETA, DECAY)
    np.testing.assert_allclose((D + Q) @ U, A, atol=1e-10 * np.abs(A).max())
    kappa = float(inverse_temperature(BETA, BATCH, SIGMA))
    B, inverse, circulating = decompose(A, D / kappa)
    np.testing.assert_allclose(B, np.linalg.inv(U) / kappa, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(inverse, kappa * U, rtol=1e-9, atol=1e-9 * np.abs(U).max())
    np.testing.assert_allclose(circulating, Q / kappa, atol=1e-12)
    rho, V = np.linalg.eigh(H)
    position, _, velocity = phase_space_covariance(rho, ETA, BETA, BATCH, DECAY, SIGMA, time="ou")
    np.testing.assert_allclose(V.T @ B[:4, :4] @ V, np.diag(position), atol=1e-11)
    np.testing.assert_allclose(V.T @ B[4:, 4:] @ V, np.diag(velocity), atol=1e-11)


def test_density_and_current_are_those_of_the_modified_loss():
    z = 0.1 * RANDOM.normal(size=(5, 8))
    theta, v = z[:, :4], z[:, 4:]
    _, _, Q, U = (np.asarray(M) for M in langevin_matrices(H, ETA, BETA, DECAY))
    phi = modified_loss(theta, v, H, ETA, BETA, DECAY)
    np.testing.assert_allclose(phi, 0.5 * np.einsum("ki,ij,kj->k", z, U, z), rtol=1e-12)
    kappa = float(inverse_temperature(BETA, BATCH, SIGMA))
    p = stationary_density(theta, v, H, ETA, BETA, BATCH, DECAY, SIGMA)
    np.testing.assert_allclose(p, stats.multivariate_normal(cov=np.linalg.inv(kappa * U)).pdf(z), rtol=1e-9)
    J = np.concatenate(probability_current(theta, v, H, ETA, BETA, BATCH, DECAY, SIGMA), -1)
    np.testing.assert_allclose(J, -(z @ U @ Q.T) * np.asarray(p)[:, None], rtol=1e-9, atol=1e-12 * np.abs(J).max())
    round_ = modified_loss(np.eye(4), np.zeros((4, 4)), H, ETA, BETA)
    np.testing.assert_allclose(round_, np.full(4, round_[0]), rtol=1e-14)
    single = modified_loss(theta.astype(np.float32), v.astype(np.float32), H.astype(np.float32), ETA, BETA, DECAY)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, phi, rtol=1e-5)


@pytest.mark.thorough
def test_the_stationary_fokker_planck_equation_holds_and_the_current_has_no_divergence():
    def density(z):
        return stationary_density(z[:4], z[4:], H, ETA, BETA, BATCH, DECAY, SIGMA)

    def current(z):
        return jnp.concatenate(probability_current(z[:4], z[4:], H, ETA, BETA, BATCH, DECAY, SIGMA))

    A, D, _, _ = langevin_matrices(H, ETA, BETA, DECAY)
    kappa = inverse_temperature(BETA, BATCH, SIGMA)
    z = 0.1 * RANDOM.normal(size=8)
    np.testing.assert_allclose(jnp.trace(jax.jacfwd(current)(z)), 0, atol=1e-9 * np.abs(current(z)).max())
    flux = -(A @ z) * density(z) - D / kappa @ jax.grad(density)(z)
    np.testing.assert_allclose(flux, current(z), rtol=1e-9, atol=1e-9 * np.abs(flux).max())


def refuses(call, words):
    with pytest.raises(ValueError, match="^" + re.escape(words) + "$"):
        call()


def test_bad_arguments_are_named():
    one = np.eye(2)
    refuses(lambda: stationary_decomposition(np.ones(2), one), "`A` must have shape (n, n), but got (2,).")
    words = "`A` and `D` must have one shape, but got (2, 2) and (3, 3)."
    refuses(lambda: stationary_decomposition(one, np.eye(3)), words)
    words = "`A` must be of eigenvalues with positive real parts, but got -1."
    refuses(lambda: stationary_decomposition(np.diag([1.0, -1.0]), one), words)
    words = "`D` must be of eigenvalues that are zero or positive, but got -2."
    refuses(lambda: stationary_decomposition(one, np.diag([1.0, -2.0])), words)
    words = "`step` must be so small that its steps are stable, but got 2."
    refuses(lambda: stationary_decomposition(one, one, 2.0), words)
    refuses(lambda: stationary_decomposition(one, one, -0.1), "`step` must be zero or positive, but got -0.1.")
    lopsided = np.array([[1.0, 0.5], [0.0, 1.0]])
    refuses(
        lambda: langevin_matrices(lopsided, 0.1, 0.5),
        "`hessian` must be symmetric, but differs from its transpose by 0.5.",
    )
    words = "`hessian` must be of eigenvalues that are positive, but got 0."
    refuses(lambda: langevin_matrices(np.diag([1.0, 0.0]), 0.1, 0.5), words)
    refuses(lambda: langevin_matrices(one, 0.0, 0.5), "`eta` must be positive, but got 0.")
    refuses(lambda: langevin_matrices(one, 0.1, 0.5, -1.0), "`weight_decay` must be zero or positive, but got -1.")
    words = "`theta` must have shape (..., 2), but got (3,)."
    refuses(lambda: modified_loss(np.ones(3), np.ones(2), one, 0.1, 0.5), words)
    refuses(lambda: stationary_density(one, one, one, 0.1, 0.5, 1, sigma=0.0), "`sigma` must be positive, but got 0.")
