"""The Riccati flow: the formula as it stands in sixty digits, its equation, starts that lack rank, late times."""

import re

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from jax.test_util import check_grads

from theory.ssl_collapse import mode_trajectory, riccati_flow

flow = jax.jit(riccati_flow)
RNG = np.random.default_rng(0)


def symmetric(eigenvalues, seed=0):
    V = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(eigenvalues),) * 2))[0]
    B = V @ np.diag(eigenvalues) @ V.T
    return (B + B.T) / 2


def as_it_stands(t, U0, B, kappa):
    """The formula in many digits, exponentials by eigendecomposition."""
    with mp.workdps(int(60 + 4 * t * abs(np.linalg.eigvalsh(B)).max())):
        U, kappa = mp.matrix(U0.tolist()), mp.mpf(kappa)
        values, V = mp.eigsy(mp.matrix(B.tolist()))
        values = [values[i] for i in range(len(values))]
        E = mp.diag([mp.exp(2 * v * t) for v in values])
        J = mp.diag([mp.expm1(4 * v * t) / (4 * v) for v in values])
        Z = U * V
        inside = mp.eye(U.rows) + 8 * kappa * Z * J * Z.T
        N = V * E * Z.T * inside**-1 * Z * E * V.T
        return np.array(N.tolist(), float)


def test_printed_values():
    found = flow(2.0, np.array([[0.1, 0.05]]), np.array([[0.5, 0.15], [0.15, -0.2]]), 0.75)
    np.testing.assert_allclose(
        [found[0, 0], found[0, 1], found[1, 1]], [0.2375553187, 0.0519138935, 0.0113449463], atol=6e-11
    )


@pytest.mark.parametrize(("m", "d"), [(2, 4), (4, 4), (5, 3)])
def test_sixty_digits_from_random_starts(m, d):
    B = symmetric([0.9, 0.4, -0.3, 0.35][:d])
    for scale in (1e-4, 1.0):
        U0 = scale * RNG.normal(size=(m, d))
        times = np.array([0.0, 0.3, 3.0, 20.0])
        found = flow(times, U0, B, 0.75)
        for t, N in zip(times, found, strict=True):
            np.testing.assert_allclose(N, as_it_stands(t, U0, B, 0.75), atol=1e-10)
            np.testing.assert_array_equal(N, N.T)


def test_the_flow_obeys_its_equation():
    B, U0 = symmetric([0.9, 0.4, -0.3]), 0.3 * RNG.normal(size=(2, 3))
    N, slope = jax.jit(lambda t: jax.jvp(lambda t: riccati_flow(t, U0, B, 0.6), (t,), (jnp.ones_like(t),)))(1.3)
    np.testing.assert_allclose(slope, 2 * B @ N + 2 * N @ B - 8 * 0.6 * N @ N, atol=1e-12)


@pytest.mark.thorough
def test_late_times_reach_the_strongest_modes_without_overflow():
    B = symmetric([0.9, 0.4, 0.2, -0.3])
    values, V = np.linalg.eigh(B)
    kept = V[:, ::-1][:, :2]
    minimum = kept @ np.diag(values[::-1][:2] / 1.5) @ kept.T
    found = flow(np.array([1e3, 1e5]), 1e-3 * RNG.normal(size=(2, 4)), B, 0.75)
    np.testing.assert_allclose(found, np.broadcast_to(minimum, (2, 4, 4)), atol=1e-12)
    # More dimensions than positive modes: those that decay are gone.
    found = flow(1e4, RNG.normal(size=(5, 4)), B, 0.75)
    np.testing.assert_allclose(np.linalg.eigvalsh(found), [0, 0.2 / 1.5, 0.4 / 1.5, 0.9 / 1.5], atol=1e-12)


def test_a_start_that_lacks_rank_keeps_its_rank_for_ever():
    B = symmetric([0.9, 0.6, 0.4, -0.3])
    U0 = RNG.normal(size=(3, 1)) @ RNG.normal(size=(1, 4))
    for t in (2.0, 20.0, 1e4):
        values = np.linalg.eigvalsh(flow(t, U0, B, 0.75))
        np.testing.assert_allclose(values[:3], 0, atol=1e-12)
        assert values[3] > 0.1
    np.testing.assert_allclose(flow(20.0, U0, B, 0.75), as_it_stands(20.0, U0, B, 0.75), atol=1e-10)
    assert not np.any(flow(1e4, np.zeros((3, 4)), B, 0.75))
    # The strongest modes are absent: the others are learned in their places.
    U0 = np.array([[0.0, 0.1, 0.0, 0.2], [0.0, -0.3, 0.0, 0.1], [0.0, 0.2, 0.0, 0.3]])
    found = flow(1e4, U0, np.diag([0.9, 0.6, 0.5, 0.3]), 0.75)
    np.testing.assert_allclose(found, np.diag([0.0, 0.4, 0.0, 0.2]), atol=1e-12)


def test_aligned_modes_are_logistic():
    b, t = np.array([0.7, 0.0, -0.4]), np.array([0.5, 2.0, 9.0])
    w0 = np.array([0.1, 0.3, 0.5])
    found = flow(t, np.diag(w0), np.diag(b), 1.3)
    expected = mode_trajectory(t[:, None], b[None, :], 1.0, 1.3, w0[None, :] ** 2)
    np.testing.assert_allclose(np.diagonal(found, axis1=1, axis2=2), expected, rtol=1e-12)


@pytest.mark.thorough
def test_gradients():
    B, U0 = symmetric([0.9, 0.4, -0.3]), 0.3 * RNG.normal(size=(2, 3))
    of_all = jax.jit(lambda U, S, k: riccati_flow(1.1, U, (S + S.T) / 2, k))
    check_grads(of_all, (U0, B, 0.7), order=1, modes=["rev"], rtol=1e-5)


def test_shapes_and_float32():
    B, U0 = symmetric([0.9, 0.4, -0.3]), 0.3 * RNG.normal(size=(2, 3))
    assert flow(np.ones((2, 5)), U0, B, 0.7).shape == (2, 5, 3, 3)
    with jax.enable_x64(False):
        found = flow(np.float32(2.0), U0.astype(np.float32), B.astype(np.float32), 0.7)
        assert found.dtype == np.float32
    np.testing.assert_allclose(found, flow(2.0, U0, B, 0.7), atol=2e-6)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: riccati_flow(-1.0, np.eye(2), np.eye(2), 1.0), "`t` must be zero or positive, but got -1."),
        (lambda: riccati_flow(1.0, np.eye(2), np.ones((2, 3)), 1.0),
         "`B_tilde` must be a square matrix, but got shape (2, 3)."),
        (lambda: riccati_flow(1.0, np.ones((2, 3)), np.eye(2), 1.0),
         "`U0` must have 2 columns, as `B_tilde` has, but got shape (2, 3)."),
        (lambda: riccati_flow(1.0, np.eye(2), np.array([[1.0, 0.5], [0.0, 1.0]]), 1.0),
         "`B_tilde` must be symmetric, but differs from its transpose by 0.5."),
        (lambda: riccati_flow(1.0, np.eye(2), np.eye(2), 0.0), "`kappa` must be positive, but got 0."),
        (lambda: riccati_flow(1.0, np.full((2, 2), np.nan), np.eye(2), 1.0), "`U0` must be finite, but got nan."),
    ],
)  # fmt: skip
def test_what_is_refused(call, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        call()
