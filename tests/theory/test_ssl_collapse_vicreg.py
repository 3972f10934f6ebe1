"""VICReg: its loss against large batches, and both forms of its minimum against descent from many starts."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.optimize import minimize

from theory.ssl_collapse import (
    vicreg_covariance_weights,
    vicreg_deviation,
    vicreg_loss,
    vicreg_shared_strengths,
    vicreg_threshold,
)

Q = np.array([0.1, 0.4, 0.8])
EPSILON = 0.1


def loss(W, invariance, covariance, corner=0.0):
    """The loss of white views, its hinge rounded off over `corner`."""
    S = W @ W.T
    spread = jnp.diagonal(S)
    u = 1 - jnp.sqrt(spread + EPSILON)
    hinge = jnp.maximum(u, 0) if corner == 0 else corner * jax.nn.softplus(u / corner)
    rest = jnp.sum(S**2) - jnp.sum(spread**2)
    return 2 * invariance * jnp.sum(W**2 * jnp.array(Q)[None, :]) + jnp.sum(hinge) + covariance * rest


@partial(jax.jit, static_argnums=3)
def value(w, invariance, covariance, corner):
    return jax.value_and_grad(lambda w: loss(w.reshape(3, 3), invariance, covariance, corner))(w)


def descended(invariance, covariance, starts):
    """(loss, eigenvalues of S, its diagonal) at the least of several minima; the corner is sharpened on the way."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(starts):
        w = 0.7 * random.normal(size=9)
        for corner in (0.05, 0.01, 0.002, 5e-4):
            given = invariance, covariance, corner
            w = minimize(lambda w, g=given: [np.asarray(v) for v in value(w, *g)], w, jac=True, method="L-BFGS-B").x
        found.append((float(loss(w.reshape(3, 3), invariance, covariance)), w))
    least, w = min(found, key=lambda pair: pair[0])
    S = w.reshape(3, 3) @ w.reshape(3, 3).T
    return least, np.linalg.eigvalsh(S)[::-1], np.sort(np.diag(S))[::-1]


def test_printed_values():
    np.testing.assert_allclose(vicreg_deviation([0.15, 0.5, 0.95], 1, 0.8, 1, 0.01), [1, 0.4, 0.2105263158], rtol=5e-10)


def test_loss_of_white_views_and_of_mixed_ones():
    W = np.random.default_rng(1).normal(size=(3, 3))
    found = vicreg_loss(W, np.diag(1 - Q), np.diag(Q), 1.4, 1.0, 0.3, 1.0, EPSILON)
    np.testing.assert_allclose(found, loss(W, 1.4, 0.3), rtol=1e-13)
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    turned = vicreg_loss(
        W @ turn.T, turn @ np.diag(1 - Q) @ turn.T, turn @ np.diag(Q) @ turn.T, 1.4, 1.0, 0.3, 1.0, 0.1
    )
    np.testing.assert_allclose(turned, found, rtol=1e-12)


@pytest.mark.thorough
@pytest.mark.parametrize("invariance", [0.8, 1.5, 2.3])
def test_a_strong_covariance_term_gives_every_mode_its_own_dimension(invariance):
    weight = float(vicreg_covariance_weights(1.0, 1.0, EPSILON).aligned)
    least, eigenvalues, diagonal = descended(invariance, 1.2 * weight, 12)
    s = np.asarray(vicreg_deviation(Q, invariance, 1.0, 1.0, EPSILON)) ** 2 - EPSILON
    np.testing.assert_allclose(least, loss(np.diag(np.sqrt(s)), invariance, 1.2 * weight), atol=1e-3)
    np.testing.assert_allclose(eigenvalues, s, atol=6e-3)
    np.testing.assert_allclose(diagonal, s, atol=6e-3)


@pytest.mark.thorough
@pytest.mark.parametrize("invariance", [0.8, 1.5, 2.3])
def test_a_weak_covariance_term_lets_all_dimensions_share_the_modes(invariance):
    weight = float(vicreg_covariance_weights(1.0, 1.0, EPSILON).shared)
    least, eigenvalues, diagonal = descended(invariance, 0.8 * weight, 12)
    s = np.asarray(vicreg_shared_strengths(Q, invariance, 1.0, 0.8 * weight, 1.0, EPSILON))
    aligned = np.asarray(vicreg_deviation(Q, invariance, 1.0, 1.0, EPSILON)) ** 2 - EPSILON
    np.testing.assert_allclose(eigenvalues, s, atol=6e-3)
    np.testing.assert_allclose(diagonal, s.mean(), atol=6e-3)
    assert least < loss(np.diag(np.sqrt(aligned)), invariance, 0.8 * weight) - 0.05


def test_an_aligned_dimension_is_stationary_and_both_sides_of_its_edges():
    q = np.linspace(0.05, 0.95, 50)
    sigma = np.asarray(vicreg_deviation(q, 1.5, 1.0, 1.0, EPSILON))
    free = (sigma < 1) & (sigma > EPSILON**0.5 * (1 + 1e-12))
    np.testing.assert_allclose((2 * 1.5 * q - 1 / (2 * sigma))[free], 0, atol=1e-12)
    threshold = float(vicreg_threshold(1.5, 1.0, EPSILON))
    below, above = vicreg_deviation(np.array([threshold * (1 - 1e-6), threshold * (1 + 1e-6)]), 1.5, 1.0, 1.0, EPSILON)
    assert below > EPSILON**0.5
    assert above == EPSILON**0.5
    assert vicreg_deviation(0.0) == 1


@pytest.mark.thorough
def test_shared_dimensions_are_filled_with_water():
    """One price for every living mode, above it for the others; at the target the hinge pushes less than it can."""
    for invariance, covariance in ((0.3, 0.12), (0.8, 0.12), (2.3, 0.05), (2.3, 0.12)):
        s = np.asarray(vicreg_shared_strengths(Q, invariance, 1.0, covariance, 1.0, EPSILON))
        price = 2 * invariance * Q + 2 * covariance * s
        living = s > 1e-9
        np.testing.assert_allclose(price[living], price[living].max(), rtol=1e-9)
        assert (price[~living] >= price[living].max()).all()
        D = s.mean()
        push = price[living].max() - 2 * covariance * D
        if D < 1 - EPSILON - 1e-9:
            np.testing.assert_allclose(push, 1 / (2 * np.sqrt(D + EPSILON)), rtol=1e-9)
        else:
            np.testing.assert_allclose(D, 1 - EPSILON, rtol=1e-12)
            assert 0 < push < 0.5


def test_weights_are_where_the_price_of_a_rotation_changes_its_sign():
    low, high = vicreg_covariance_weights(0.7, 1.3, 0.02)
    for weight, s in ((low, 1.3**2 - 0.02), (high, 0.0)):

        def price(x, weight=weight):
            return 0.7 * (1.3 - jnp.sqrt(x + 0.02)) - weight * x**2

        np.testing.assert_allclose(jax.grad(jax.grad(price))(s), 0, atol=1e-9 * float(weight))


@pytest.mark.thorough
def test_gradients_jit_broadcasting_and_float32():
    check_grads(jax.jit(lambda q, e: vicreg_deviation(q, 1.5, 1.0, 1.0, e)), (Q, EPSILON), order=1, rtol=1e-5)
    shared = jax.jit(lambda i, c: vicreg_shared_strengths(Q, i, 1.0, c, 1.0, EPSILON))
    check_grads(shared, (0.8, 0.11), order=1, rtol=1e-5)
    check_grads(shared, (2.3, 0.11), order=1, rtol=1e-5)
    check_grads(shared, (1.4, 0.11), order=1, rtol=1e-5)
    assert shared(jnp.ones((4, 1)), 0.1 * jnp.ones(3)).shape == (4, 3, 3)
    single = jax.jit(vicreg_shared_strengths)(Q.astype(np.float32), 2.3, 1.0, 0.1, 1.0, EPSILON)
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, shared(2.3, 0.1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: vicreg_deviation(1.2), "`q` must be between 0 and 1, but got 1.2."),
        (lambda: vicreg_deviation(0.2, 0.0), "`invariance` must be positive, but got 0."),
        (lambda: vicreg_threshold(1.0, -1.0), "`variance` must be positive, but got -1."),
        (lambda: vicreg_covariance_weights(1.0, 1.0, 0.0), "`epsilon` must be positive, but got 0."),
        (lambda: vicreg_shared_strengths(Q, covariance=np.nan), "`covariance` must be positive, but got nan."),
        (
            lambda: vicreg_loss(np.ones((2, 2)), np.eye(3), np.eye(3)),
            "`W` must be of shape (m, 3), but got shape (2, 2).",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(call, sentence):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        call()
    assert str(error.value) == sentence
