"""Finitely many negatives: printed values, quadrature of the moments, and the minimum of the corrected loss."""

import re

import jax
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.optimize import minimize

from theory.ssl_collapse import (
    finite_negatives_correction,
    finite_negatives_dot_correction,
    finite_negatives_loss,
    finite_negatives_shift,
    infonce_mode_loss,
    infonce_mode_strength,
    negatives_dilution,
    negatives_needed,
)

S, RHO = np.array([1.1, 0.4]), np.array([0.7, 0.5])
X, WEIGHTS = np.polynomial.hermite_e.hermegauss(120)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


def test_printed_values():
    found = [finite_negatives_loss(S, 1 - RHO, *rest) for rest in ((), (50,))]
    found.append(finite_negatives_loss(S, 1 - RHO, 50, rho=RHO))
    np.testing.assert_allclose(found, [-0.4139666954, -0.4203565624, -0.3835144571], rtol=3e-10)
    shift = finite_negatives_shift([0.35, 0.6], 100)
    np.testing.assert_allclose(shift, [0.0137536981, 0.0054449461], rtol=5e-9)
    np.testing.assert_allclose(finite_negatives_dot_correction([0.5, 0.3], 40), -0.0070217202, rtol=1e-8)


def moments(kernel, s, powers):
    """E_x of the products over p of (E_chi k^p / (E_chi k)^p), of one mode, by quadrature."""
    f, g = np.sqrt(s) * X, np.sqrt(s) * X
    k = kernel(f[:, None], g[None, :])
    mean = k @ WEIGHTS
    return [WEIGHTS @ ((k**p @ WEIGHTS) / mean**p) ** square for p, square in powers]


def by_definition(kernel, s, N):
    """The correction to second order, from the moments of every mode."""
    m2, m3, m22 = np.prod([moments(kernel, x, ((2, 1), (3, 1), (2, 2))) for x in s], axis=0)
    return -(m2 - 1) / (2 * N), (m3 / 3 - 3 * m22 / 4 + m2 / 2 - 1 / 12) / N**2


def test_corrections_are_the_moments_of_the_kernels():
    s = np.array([0.5, 0.3])
    first, second = by_definition(lambda f, g: np.exp(-((f - g) ** 2) / 2), s, 9)
    np.testing.assert_allclose(finite_negatives_correction(s, 9), first, rtol=1e-10)
    np.testing.assert_allclose(finite_negatives_correction(s, 9, order=2), first + second, rtol=1e-8)
    np.testing.assert_allclose(negatives_dilution(s), 1 - 18 * first, rtol=1e-10)
    s = np.array([0.15, 0.1])
    first, second = by_definition(lambda f, g: np.exp(f * g), s, 9)
    np.testing.assert_allclose(finite_negatives_dot_correction(s, 9), first, rtol=1e-10)
    np.testing.assert_allclose(finite_negatives_dot_correction(s, 9, order=2), first + second, rtol=1e-8)


def test_the_positive_adds_its_mean_share():
    s, rho = 0.8, 0.6
    f = np.sqrt(s) * X
    other = rho * f[:, None] + np.sqrt(s * (1 - rho**2)) * X[None, :]
    mean = np.exp(-(f**2) / (2 * (1 + s))) / np.sqrt(1 + s)
    share = WEIGHTS @ (np.exp(-((f[:, None] - other) ** 2) / 2) @ WEIGHTS / mean)
    added = finite_negatives_correction([s], 5, rho=[rho]) - finite_negatives_correction([s], 5)
    np.testing.assert_allclose(added, share / 5, rtol=1e-10)
    np.testing.assert_allclose(finite_negatives_correction([0.0], 5, rho=[rho]), 1 / 5, rtol=1e-15)


@pytest.mark.thorough
@pytest.mark.parametrize("rho", [None, np.array([0.65, 0.4])])
def test_the_shift_is_that_of_the_minimum(rho):
    q = np.array([0.35, 0.6])
    s = np.asarray(infonce_mode_strength(q))
    slope = jax.jit(jax.grad(lambda s, N: finite_negatives_loss(s, q, N, rho=rho)))
    bend = jax.hessian(lambda s: infonce_mode_loss(s, q).sum())(s)
    np.testing.assert_allclose(
        finite_negatives_shift(q, 7.0, rho=rho), -np.linalg.solve(bend, slope(s, 7.0)), rtol=1e-10
    )
    value = jax.jit(lambda s, N: finite_negatives_loss(s, q, N, rho=rho))
    errors = []
    for N in (1000.0, 2000.0):
        least = minimize(
            lambda s, N=N: (float(value(s, N)), np.asarray(slope(s, N))), s, jac=True, options={"gtol": 1e-13}
        )
        errors.append(np.abs(least.x - s - finite_negatives_shift(q, N, rho=rho)).max())
    assert 3.8 < errors[0] / errors[1] < 4.2


def test_collapsed_modes_change_nothing():
    shift = finite_negatives_shift([0.35, 0.6, 1.2], 100)
    np.testing.assert_allclose(shift, [*finite_negatives_shift([0.35, 0.6], 100), 0], rtol=1e-14)
    assert finite_negatives_correction([0.0, 0.0], 10) == 0
    assert finite_negatives_dot_correction([0.0], 10, order=2) == 0
    assert negatives_needed([1.5, 2.0], 0.01) == 0


def test_edges_beyond_which_a_moment_is_infinite():
    edge = (2 + 7**0.5) / 3
    assert np.isfinite(finite_negatives_correction([edge - 1e-6, 0.1], 10, order=2))
    assert finite_negatives_correction([edge + 1e-6, 0.1], 10, order=2) == np.inf
    assert np.isfinite(finite_negatives_correction([50.0], 10))
    assert np.isfinite(finite_negatives_dot_correction([0.5**0.5 - 1e-9], 10))
    assert finite_negatives_dot_correction([0.5**0.5, 0.1], 10) == -np.inf
    assert finite_negatives_dot_correction([6**-0.5 + 1e-9], 10, order=2) == np.inf


def test_the_number_of_negatives_is_exponential_in_the_number_of_modes():
    needed = np.array([negatives_needed(np.full(k, 0.2), 0.05) for k in (1, 2, 3, 4)])
    one = negatives_dilution([infonce_mode_strength(0.2)])
    np.testing.assert_allclose(needed[1:] / needed[:-1], one, rtol=1e-12)
    q = np.array([0.2, 0.5])
    relative = finite_negatives_shift(q, negatives_needed(q, 0.05)) / infonce_mode_strength(q)
    np.testing.assert_allclose(relative.max(), 0.05, rtol=1e-12)


@pytest.mark.thorough
def test_broadcasting_single_precision_gradients():
    q, N = np.full((4, 1, 2), 0.4), np.array([10.0, 20.0, 40.0])
    assert finite_negatives_shift(q, N).shape == (4, 3, 2)
    assert finite_negatives_correction(q, N).shape == finite_negatives_loss(q, q, N).shape == (4, 3)
    assert finite_negatives_shift(q[0, 0], N, rho=0.6).shape == (3, 2)
    assert negatives_needed(q, np.full(5, 0.1)).shape == (4, 5)
    assert finite_negatives_dot_correction(q, N, order=2).shape == (4, 3)
    single = finite_negatives_shift(q.astype(np.float32), N.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, finite_negatives_shift(q, N), rtol=1e-5)
    small = finite_negatives_correction(np.float32([1e-3, 2e-3]), 10)
    np.testing.assert_allclose(small, finite_negatives_correction(np.array([1e-3, 2e-3]), 10), rtol=1e-3)
    check_grads(jax.jit(lambda s: finite_negatives_correction(s, 10, order=2)), (S,), 1, ["rev"])
    check_grads(jax.jit(lambda q: finite_negatives_shift(q, 10, rho=RHO)), (np.array([0.4, 0.7]),), 1, ["rev"])
    assert np.all(np.isfinite(jax.grad(lambda s: finite_negatives_dot_correction(s, 10.0))(np.array([0.9, 0.1]))))


def refuses(call, words):
    with pytest.raises(ValueError, match="^" + re.escape(words) + "$"):
        call()


def test_bad_arguments_are_named():
    refuses(lambda: negatives_dilution([-1.0]), "`s` must be zero or positive, but got -1.")
    for f in (finite_negatives_correction, finite_negatives_shift, finite_negatives_dot_correction):
        refuses(lambda f=f: f([0.5], 0.5), "`n_negatives` must be 1 or more, but got 0.5.")
    refuses(lambda: finite_negatives_correction([0.5], 2, rho=[1.1]), "`rho` must be between 0 and 1, but got 1.1.")
    refuses(lambda: finite_negatives_correction([0.5], 2, order=3), "`order` must be 1 or 2, but got 3.")
    words = "`order` must be 1 with the positive in the denominator, but got 2."
    refuses(lambda: finite_negatives_correction([0.5], 2, rho=[0.5], order=2), words)
    refuses(lambda: finite_negatives_shift([0.0], 2), "`q` must be positive, but got 0.")
    refuses(lambda: negatives_needed([0.5], 0.0), "`tolerance` must be positive, but got 0.")
