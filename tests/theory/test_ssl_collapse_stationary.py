"""All stationary points of the quartic landscape against autodiff, where B and Sigma do not commute."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.optimize import minimize

from theory.ssl_collapse import (
    Landscape,
    collapse_boundary,
    collapse_code,
    collapse_phase,
    effective_landscape,
    hessian_spectrum,
    learned_directions,
    minimum_gram,
    minimum_is_unique,
    minimum_loss,
    mode_strengths,
    n_active,
    quartic_loss,
    stationary_gram,
    stationary_loss,
    stationary_points,
)
from theory.ssl_collapse.covariances import inverse_root, whitened

A0 = np.array([[1.5, 0.4, 0.0], [0.4, 0.8, 0.2], [0.0, 0.2, 0.6]])
C = np.array([[0.3, -0.1, 0.1], [-0.1, 0.5, 0.0], [0.1, 0.0, 0.2]])
PRINTED = effective_landscape(A0, C, "infonce_distance", 0.8, 1.6, 0.05)

ROTATION = np.linalg.qr(np.random.default_rng(3).normal(size=(5, 5)))[0]
SIGMA = (ROTATION * np.linspace(0.6, 2.5, 5)) @ ROTATION.T
TILTED = np.linalg.qr(np.random.default_rng(4).normal(size=(5, 5)))[0]
FIVE = Landscape((TILTED * np.array([0.9, 0.6, 0.35, 0.2, -0.4])) @ TILTED.T, SIGMA, np.array(0.75))
THREE_POSITIVE = FIVE._replace(B=(TILTED * np.array([0.9, 0.6, 0.35, -0.1, -0.4])) @ TILTED.T)


def factor(gram, m):
    """An encoder of m rows with this Gram matrix, turned at random."""
    values, vectors = np.linalg.eigh(gram)
    W = np.zeros((m, len(gram)))
    top = np.argsort(-values)[: min(m, len(gram))]
    kept = np.where(values[top] > 1e-12 * values.max(), values[top], 0.0)
    W[: len(top)] = np.sqrt(kept)[:, None] * vectors.T[top]
    return np.linalg.qr(np.random.default_rng(0).normal(size=(m, m)))[0] @ W


def in_U(landscape, m):
    """The loss of the whitened encoder."""
    root = inverse_root(jnp.asarray(landscape.Sigma))
    return lambda U: quartic_loss(U.reshape(m, -1) @ root, landscape)


def test_printed_values():
    beta = jnp.linalg.eigvalsh(whitened(PRINTED.B, PRINTED.Sigma))[::-1]
    np.testing.assert_allclose(beta, [1.0013563979, 0.7221981182, 0.1596244068], rtol=5e-10)
    np.testing.assert_allclose(minimum_loss(*PRINTED, 2), -0.3251807483, rtol=5e-10)
    gram = minimum_gram(*PRINTED, 2)
    np.testing.assert_allclose(gram[0, :2], [0.1907021282, 0.0697746044], rtol=5e-9)
    np.testing.assert_allclose(quartic_loss(factor(gram, 2), PRINTED), minimum_loss(*PRINTED, 2), rtol=1e-12)


@pytest.mark.parametrize(
    ("landscape", "m"),
    [(THREE_POSITIVE, 2), *(pytest.param(L, m, marks=pytest.mark.thorough) for L in (FIVE, THREE_POSITIVE)
                            for m in (2, 3, 4, 6))],
)  # fmt: skip
def test_every_class_is_stationary_and_has_the_spectrum(landscape, m):
    B, Sigma, kappa = landscape
    found = stationary_points(B, Sigma, kappa, m)
    positive = int(n_active(B, 5))
    assert len(found.loss) == sum(math.comb(positive, k) for k in range(min(m, positive) + 1))
    loss = in_U(landscape, m)
    slope, curvature = jax.jit(jax.grad(loss)), jax.jit(jax.hessian(loss))
    root = np.linalg.inv(inverse_root(jnp.asarray(Sigma)))
    for active, gram, value, index in zip(*map(np.asarray, found), strict=True):
        U = (factor(gram, m) @ root).ravel()
        np.testing.assert_allclose(U.reshape(m, 5) @ np.asarray(inverse_root(jnp.asarray(Sigma))), factor(gram, m))
        np.testing.assert_allclose(slope(U), 0, atol=1e-10)
        np.testing.assert_allclose(loss(U), value, atol=1e-12)
        np.testing.assert_allclose(stationary_gram(B, Sigma, kappa, active), gram, atol=1e-13)
        np.testing.assert_allclose(stationary_loss(B, Sigma, kappa, active), value, atol=1e-13)
        spectrum = np.linalg.eigvalsh(curvature(U))
        np.testing.assert_allclose(hessian_spectrum(B, Sigma, np.flatnonzero(active), m), spectrum, atol=1e-8)
        assert (spectrum < -1e-8).sum() == index
    assert np.flatnonzero(np.asarray(found.index) == 0).tolist() == [0]
    np.testing.assert_allclose(found.gram[0], minimum_gram(*landscape, m), atol=1e-13)
    np.testing.assert_allclose(found.loss[0], minimum_loss(*landscape, m), rtol=1e-12)


@pytest.mark.thorough
def test_there_is_no_other_stationary_gram():
    """Newton from random encoders, which stops at stationary points of every kind."""
    m, losses = 2, np.asarray(stationary_points(*THREE_POSITIVE, 2).loss)
    loss = in_U(THREE_POSITIVE, m)
    slope, curvature = jax.grad(loss), jax.hessian(loss)

    def newton(U):
        def step(_, U):
            return U - jnp.linalg.pinv(curvature(U), rcond=1e-9, hermitian=True) @ slope(U)

        U = jax.lax.fori_loop(0, 200, step, U)
        return loss(U), jnp.linalg.norm(slope(U))

    starts = np.linspace(0.05, 0.6, 40)[:, None] * np.random.default_rng(0).normal(size=(40, 10))
    values, slopes = jax.jit(jax.vmap(newton))(starts)
    ended = np.asarray(values)[np.asarray(slopes) < 1e-9]
    assert len(ended) > 20
    nearest = np.abs(ended[:, None] - losses[None, :])
    assert nearest.min(1).max() < 1e-9
    assert len(set(nearest.argmin(1))) > 3


@pytest.mark.parametrize("m", [1, 3, 6])
def test_descent_from_anywhere_ends_at_the_global_minimum(m):
    loss = in_U(FIVE, m)
    value_and_slope = jax.jit(jax.value_and_grad(loss))
    for seed in range(4):
        start = np.random.default_rng(seed).normal(size=5 * m)
        end = minimize(value_and_slope, start, jac=True, method="BFGS", options={"gtol": 1e-10})
        np.testing.assert_allclose(end.fun, minimum_loss(*FIVE, m), rtol=1e-12)
        W = end.x.reshape(m, 5) @ inverse_root(jnp.asarray(SIGMA))
        np.testing.assert_allclose(W.T @ W, minimum_gram(*FIVE, m), atol=1e-7)


@pytest.mark.thorough
def test_at_the_origin_the_hessian_in_W_is_that_of_B():
    found = np.linalg.eigvalsh(jax.hessian(lambda w: quartic_loss(w.reshape(3, 5), FIVE))(jnp.zeros(15)))
    np.testing.assert_allclose(found, np.sort(np.repeat(-2 * np.linalg.eigvalsh(FIVE.B), 3)), atol=1e-12)


def test_rank_is_that_of_B_whatever_sigma_is():
    for m, mixed in itertools.product((1, 3, 5), (SIGMA, np.eye(5), 3 * ROTATION + 7 * np.eye(5))):
        assert n_active(FIVE.B, m) == min(m, 4) == n_active(mixed @ FIVE.B @ mixed.T, m)
        assert np.linalg.matrix_rank(minimum_gram(*FIVE, m), tol=1e-10) == min(m, 4)
    assert n_active(-np.eye(3), 2) == 0 == n_active(np.zeros((3, 3)), 2)
    np.testing.assert_allclose(minimum_gram(-np.eye(3), np.eye(3), 1.0, 2), 0)
    assert jax.jit(n_active, static_argnums=1)(FIVE.B, 3) == 3


def test_strengths_of_every_loss_on_a_common_basis():
    a, c = np.array([1.5, 0.9, 0.4]), np.array([0.2, 0.6, 0.5])
    rho, tau, clean = a / (a + c), 0.7, (np.diag(a), np.diag(c))
    expected = {"spectral": rho, "infonce_dot": tau * rho, "infonce_distance": 2 / 3 * tau * rho, "barlow": 1 / rho}
    for loss, s in expected.items():
        np.testing.assert_allclose(mode_strengths(*clean, loss, 4, tau), -np.sort(-s), rtol=1e-12)
    np.testing.assert_allclose(mode_strengths(*clean, "spectral", 2), [rho[0], rho[1]], rtol=1e-12)
    decayed = np.maximum(rho - 0.9 / (2 * (a + c)), 0)
    np.testing.assert_allclose(mode_strengths(*clean, "spectral", 3, weight_decay=0.9), -np.sort(-decayed), atol=1e-12)
    few = mode_strengths(*clean, "infonce_distance", 3, tau, n_negatives=4)
    np.testing.assert_allclose(few, 2 / 3 * tau * rho / 0.75, rtol=1e-12)


def test_strengths_are_the_spectrum_of_the_embedding():
    for loss in ("spectral", "barlow", "infonce_dot"):
        W = factor(minimum_gram(*effective_landscape(A0, C, loss, weight_decay=0.3), 2), 2)
        S = W @ (A0 + C) @ W.T
        found = mode_strengths(A0, C, loss, 2, weight_decay=0.3)
        np.testing.assert_allclose(found, np.linalg.eigvalsh(S)[::-1], rtol=1e-10)


def test_barlow_without_decay_has_a_subspace_of_minima():
    for decay, unique in ((0.0, False), (0.1, True)):
        B, Sigma, _ = effective_landscape(A0, C, "barlow", weight_decay=decay)
        assert bool(minimum_is_unique(B, Sigma, 2)) is unique
        assert minimum_is_unique(B, Sigma, 3)
        values = jnp.linalg.eigvalsh(whitened(B, Sigma))
        np.testing.assert_allclose(values, np.sort(2 - decay / np.linalg.eigvalsh(A0)), rtol=1e-12)
    W = factor(np.linalg.inv(A0), 3)[:2]  # any two directions in which W A0 W^T is the identity
    landscape = effective_landscape(A0, C, "barlow")
    np.testing.assert_allclose(quartic_loss(W, landscape), minimum_loss(*landscape, 2), rtol=1e-12)
    assert minimum_is_unique(-np.eye(3), np.eye(3), 1)


@pytest.mark.parametrize("pairs", ["augmented", "clean", "positive_in_denominator"])
@pytest.mark.parametrize("loss", ["infonce_distance", "infonce_dot", "spectral", "barlow"])
def test_a_mode_dies_on_the_boundary(loss, pairs):
    if pairs != "augmented" and (loss, pairs) not in (
        ("infonce_distance", "clean"), ("infonce_distance", pairs), ("infonce_dot", "positive_in_denominator")
    ):  # fmt: skip
        pytest.skip("no such pairs")
    noise, tau, alpha, decay, N = 0.3, 0.8, 1.7, 0.2, 9.0
    edge = collapse_boundary(noise, loss, tau, alpha, decay, N, pairs=pairs)
    for factor_, alive in ((1 - 1e-9, 0), (1 + 1e-9, 1)):
        clean = np.array([[edge * factor_]])
        B = effective_landscape(clean, [[noise]], loss, tau, alpha, decay, N, pairs=pairs).B
        assert n_active(B, 1) == alive == learned_directions([edge * factor_], edge, 1)


def test_the_boundary_is_straight_and_counts_the_learned_directions():
    noise, decay = np.linspace(0, 2, 5), np.linspace(0, 0.5, 4)
    edge = collapse_boundary(noise[:, None], temperature=0.6, alpha=1.8, weight_decay=decay[None, :])
    np.testing.assert_allclose(edge, 0.8 * noise[:, None] + 0.6 * decay[None, :], rtol=1e-14)
    clean = 1 / np.arange(1, 6)
    for (i, s), (j, lam) in itertools.product(enumerate(noise), enumerate(decay)):
        B = effective_landscape(np.diag(clean), s * np.eye(5), "infonce_distance", 0.6, 1.8, lam).B
        assert learned_directions(clean, edge, 4)[i, j] == n_active(B, 4)
    assert collapse_boundary(1.0, alpha=0.5) < 0
    assert np.isinf(collapse_boundary(1.0, "alignment"))
    assert np.isinf(collapse_boundary(1.0, "infonce_dot", alpha=0.0, weight_decay=0.1))


def test_phases_on_both_sides_of_both_edges():
    for values, m, word in (
        ((1.0, 0.5, 0.1), 3, "none"), ((1.0, 0.5, -0.1), 3, "dimensional"), ((1.0, 0.5, -0.1), 2, "none"),
        ((0.1, -0.5, -0.6), 2, "dimensional"), ((0.1, -0.5, -0.6), 1, "none"), ((-0.1, -0.5, -0.6), 2, "complete"),
        ((0.0, -0.5, -0.6), 2, "complete"), ((1.0, 0.5, 0.1), 7, "none"),
    ):  # fmt: skip
        assert collapse_phase(np.diag(values), m) == word
        assert jax.jit(collapse_code, static_argnums=1)(np.diag(values), m) == (
            ("none", "dimensional", "complete").index(word)
        )


@pytest.mark.thorough
def test_gradients_jit_and_float32():
    def at_minimum(B):
        return minimum_loss(B, SIGMA, 0.75, 3)

    check_grads(jax.jit(at_minimum), (FIVE.B,), order=1, modes=["rev"], atol=1e-6, rtol=1e-6)
    # The envelope theorem: at the minimum the loss moves as -Tr [M dB].
    np.testing.assert_allclose(jax.grad(at_minimum)(FIVE.B), -minimum_gram(*FIVE, 3), atol=1e-12)
    spectrum = jax.jit(lambda B: hessian_spectrum(B, SIGMA, (0, 2), 3))
    np.testing.assert_allclose(spectrum(FIVE.B), hessian_spectrum(FIVE.B, SIGMA, (0, 2), 3), rtol=1e-12)
    single = Landscape(*(jnp.asarray(x, jnp.float32) for x in FIVE))
    gram = jax.jit(minimum_gram, static_argnums=3)(*single, 3)
    assert gram.dtype == np.float32
    np.testing.assert_allclose(gram, minimum_gram(*FIVE, 3), atol=2e-5)
    assert stationary_points(*single, 3).loss.dtype == np.float32
    assert len(stationary_points(*single, 3).loss) == len(stationary_points(*FIVE, 3).loss)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: minimum_gram(A0, C[:2, :2], 1.0, 2),
         "`Sigma` must have the shape of `B`, (3, 3), but got shape (2, 2)."),
        (lambda: minimum_gram(A0, C, 0.0, 2), "`kappa` must be positive, but got 0."),
        (lambda: minimum_gram(A0, C, 1.0, 0), "`m` must be a whole number not below 1, but got 0."),
        (lambda: minimum_loss(A0, np.diag([1.0, 1.0, 0.0]), 1.0, 2), "`Sigma` must be positive definite, but got 0."),
        (lambda: n_active(np.array([[1.0, 0.5], [0.0, 1.0]]), 1),
         "`B` must be symmetric, but differs from its transpose by 0.5."),
        (lambda: n_active(np.ones(3), 1), "`B` must be a square matrix, but got shape (3,)."),
        (lambda: n_active(np.diag([1.0, np.nan]), 1), "`B` must be finite, but got nan."),
        (lambda: mode_strengths(A0, C, "alignment", 2), "`kappa` must be positive, but got 0."),
        (lambda: hessian_spectrum(A0, C, (0, 3), 2),
         "`active` must hold at most 2 different modes from 0 to 2, but got [0, 3]."),
        (lambda: hessian_spectrum(A0, C, (0, 1, 2), 2),
         "`active` must hold at most 2 different modes from 0 to 2, but got [0, 1, 2]."),
        (lambda: stationary_gram(A0, C, 1.0, [True]), "`active` must have shape (3,), but got shape (1,)."),
        (lambda: collapse_boundary(-0.1), "`augmentation` must be zero or positive, but got -0.1."),
        (lambda: collapse_boundary(0.1, "vicreg"),
         "`loss` must be one of infonce_distance, infonce_dot, spectral, barlow, alignment, but got vicreg."),
        (lambda: learned_directions(np.ones((2, 2)), 0.1, 2), "`clean` must have shape (d,), but got shape (2, 2)."),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_one_sentence(call, sentence):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        call()
    assert str(error.value) == sentence
