"""Pairs of one input in a minibatch: Isserlis' theorem entry by entry, and dense minimisation of the biased losses."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.optimize import minimize

from theory.ssl_collapse import (
    barlow_batch_bias,
    barlow_batch_strengths,
    spectral_batch_bias,
    spectral_batch_strengths,
)

S = np.array([[0.9, 0.2], [0.2, 0.5]])
K = np.array([[0.6, 0.1], [0.1, 0.3]])
RHO = np.array([0.8, 0.6, 0.3])


def test_biases_are_sums_of_fourth_moments():
    """E f_a f+_b f_c f+_d = K_ab K_cd + S_ac S_bd + K_ad K_cb for one input, K_ab K_cd for two."""
    one = np.einsum("ab,cd->abcd", K, K) + np.einsum("ac,bd->abcd", S, S) + np.einsum("ad,cb->abcd", K, K)
    two = np.einsum("ab,cd->abcd", K, K)
    # Barlow: K-hat_ab squared: a = c and b = d. Spectral: (f . f+)^2: a = b and c = d.
    barlow = np.einsum("abab->", one - two)
    negatives = np.einsum("ac,ac->", S, S)
    spectral = np.einsum("aacc->", one) - negatives
    np.testing.assert_allclose(barlow_batch_bias(S, K, 7.0), barlow / 7, rtol=1e-13)
    np.testing.assert_allclose(spectral_batch_bias(K, 7.0), spectral / 7, rtol=1e-13)


def minimum(loss, rho, starts=4):
    """Eigenvalues of U^T U, falling, at the least of several minima over whole matrices U."""
    value = jax.jit(jax.value_and_grad(lambda u: loss(u.reshape(3, 3))))
    random = np.random.default_rng(0)
    runs = [
        minimize(lambda u: [np.asarray(v) for v in value(u)], random.normal(size=9), jac=True, options={"gtol": 1e-10})
        for _ in range(starts)
    ]
    U = min(runs, key=lambda run: run.fun).x.reshape(3, 3)
    return np.diag(U.T @ U)


@pytest.mark.thorough
@pytest.mark.parametrize("n", [3.0, 20.0])
def test_strengths_minimise_the_expected_loss_over_all_encoders(n):
    def barlow(U):
        S, K = U @ U.T, U @ jnp.diag(RHO) @ U.T
        return jnp.sum((K - jnp.eye(3)) ** 2) + barlow_batch_bias(S, K, n)

    def spectral(U):
        S, K = U @ U.T, U @ jnp.diag(RHO) @ U.T
        return -2 * jnp.trace(K) + jnp.sum(S**2) + spectral_batch_bias(K, n)

    np.testing.assert_allclose(barlow_batch_strengths(RHO, n), minimum(barlow, RHO), atol=1e-5)
    np.testing.assert_allclose(spectral_batch_strengths(RHO, n), minimum(spectral, RHO), atol=1e-5)
    assert (barlow_batch_strengths(RHO, n)[-1] == 0) == (n == 3.0)


@pytest.mark.thorough
def test_large_batches_give_the_strengths_without_bias():
    np.testing.assert_allclose(barlow_batch_strengths(RHO, np.inf), 1 / RHO, rtol=1e-12)
    np.testing.assert_allclose(spectral_batch_strengths(RHO, np.inf), RHO, rtol=1e-12)
    n = np.array([1e4, 2e4, 4e4])
    for formula, limit in ((barlow_batch_strengths, 1 / RHO), (spectral_batch_strengths, RHO)):
        gap = np.abs(formula(RHO, n) - limit[None, :])
        np.testing.assert_allclose(np.diff(np.log(gap), axis=0), -np.log(2), rtol=0.01)
    assert barlow_batch_strengths([0.0, 0.5], 9.0)[0] == 0
    assert barlow_batch_strengths(RHO, n[:, None]).shape == (3, 1, 3)


@pytest.mark.thorough
def test_gradients_jit_and_float32():
    for formula in (barlow_batch_strengths, spectral_batch_strengths):
        check_grads(jax.jit(partial(formula, batch=12.0)), (RHO,), order=1, rtol=1e-5)
        single = jax.jit(formula)(RHO.astype(np.float32), 12.0)
        assert single.dtype == jnp.float32
        np.testing.assert_allclose(single, formula(RHO, 12.0), rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: barlow_batch_bias(S, K, 0.5), "`batch` must be 1 or more, but got 0.5."),
        (lambda: barlow_batch_bias(S, np.eye(3), 5), "`K` must have the shape of `S`, (2, 2), but got shape (3, 3)."),
        (lambda: spectral_batch_bias(-K, 5), "`K` must be without negative eigenvalues, but got -0.630278."),
        (lambda: barlow_batch_strengths([1.5], 5), "`rho` must be between 0 and 1, but got 1.5."),
        (lambda: spectral_batch_strengths([0.5], 0), "`batch` must be 1 or more, but got 0."),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(call, sentence):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        call()
    assert str(error.value) == sentence
