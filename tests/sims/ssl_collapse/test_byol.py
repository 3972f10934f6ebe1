"""BYOL's matrices: the reduction to moments, the step, the readouts, and what cannot be run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sims.engine.experiment import configure
from sims.ssl_collapse import byol_basin, byol_ghost, byol_survival, byol_trajectory, direct_predictor
from sims.ssl_collapse.byol import byol
from sims.ssl_collapse.byol_training import (
    CLEAN,
    NOISE,
    Byol,
    Rates,
    encoder_modes,
    loss,
    moments,
    predictor_modes,
    rotation,
    start,
    step,
    whole_data,
)
from sims.ssl_collapse.direct_predictor import Net
from sims.ssl_collapse.direct_predictor import step as direct_step
from sims.ssl_collapse.training import gaussian_views
from theory.ssl_collapse import direct_predictor as predictor_of

RANDOM = np.random.default_rng(0)
D, CELLS = 4, 3


def network():
    return Byol(*(jnp.asarray(RANDOM.normal(size=(D, D, CELLS))) for _ in range(3)))


def on_samples(W, P, target, x, x_plus):
    """The loss as it is defined: embeddings, predictions, and a target without gradient."""
    return jnp.mean(jnp.sum((x @ W.T @ P.T - jax.lax.stop_gradient(x_plus @ target.T)) ** 2, 1)) / 2


gradients = jax.jit(jax.grad(on_samples, (0, 1)))


def test_the_loss_of_the_moments_has_the_gradient_of_the_loss_of_the_samples():
    net = network()
    x, y = gaussian_views(jax.random.key(1), 16, jnp.ones(D), jnp.full(D, 0.7))
    found = jax.jit(jax.grad(loss))((net.W, net.P), net.target, moments(x, y))
    for k in range(CELLS):
        W, P, target = (v[..., k] for v in net)
        exact = gradients(W, P, target, x, y)
        for a, b in zip(found, exact, strict=True):
            np.testing.assert_allclose(a[..., k], b, rtol=1e-11, atol=1e-12)
    assert not np.any(jax.jit(jax.grad(loss, 1))((net.W, net.P), net.target, moments(x, y)))


def test_a_step_is_sgd_with_decay_and_a_moving_average():
    net = network()
    x, y = gaussian_views(jax.random.key(2), 8, jnp.ones(D), jnp.full(D, 0.7))
    ema = jnp.array([jnp.inf, 0.5, 2.0])
    new = jax.jit(step)(net, moments(x, y), Rates(0.02, jnp.array([0.0, 0.1, 0.2]), 1.5, ema))
    for k, decay in enumerate((0.0, 0.1, 0.2)):
        W, P, target = (v[..., k] for v in net)
        gW, gP = gradients(W, P, target, x, y)
        W = W - 0.02 * (gW + decay * W)
        P = P - 0.02 * (1.5 * gP + decay * P)
        share = min(0.02 * float(ema[k]), 1.0)
        exact = W, P, target + share * (W - target)
        for a, b in zip(new, exact, strict=True):
            np.testing.assert_allclose(a[..., k], b, rtol=1e-12, atol=1e-14)


@pytest.mark.thorough
def test_all_data_have_the_moments_of_the_population_and_modes_are_read_back():
    a, c = jnp.asarray(CLEAN), jnp.asarray(NOISE)
    seen = whole_data(jax.random.key(3), a, c)
    np.testing.assert_allclose(seen.views, jnp.diag(a + c), atol=1e-14)
    np.testing.assert_allclose(seen.pairs, jnp.diag(a), atol=1e-14)
    Q = rotation(jax.random.key(4), D)
    p, w = (jnp.asarray(RANDOM.normal(size=(D, CELLS))) for _ in range(2))
    net = start(Q, p, w, 0.8)
    np.testing.assert_allclose(predictor_modes(net, Q), p, rtol=1e-12)
    np.testing.assert_allclose(encoder_modes(net.W, Q), w, rtol=1e-12)
    np.testing.assert_allclose(encoder_modes(net.target, Q), 0.8 * w, rtol=1e-12)


@pytest.mark.thorough
def test_a_step_of_directpred_sets_the_predictor_from_the_average():
    W, F = (jnp.asarray(RANDOM.normal(size=(D, D, CELLS))) for _ in range(2))
    F = jnp.einsum("ijc,kjc->ikc", F, F)
    x, y = gaussian_views(jax.random.key(5), 8, jnp.ones(D), jnp.full(D, 0.7))
    eps = jnp.array([0.0, 0.1, 0.3])
    new = direct_step(Net(W, F), moments(x, y), 0.02, 0.1, eps, 0.25)
    for k in range(CELLS):
        average = 0.75 * F[..., k] + 0.25 * W[..., k] @ x.T @ x @ W[..., k].T / 8
        np.testing.assert_allclose(new.F[..., k], average, rtol=1e-12)
        P = predictor_of((average + average.T) / 2, eps[k])
        gradient = jax.grad(on_samples)(W[..., k], P, W[..., k], x, y)
        np.testing.assert_allclose(new.W[..., k], W[..., k] - 0.02 * (gradient + 0.1 * W[..., k]), rtol=1e-9)


@pytest.mark.parametrize(
    ("experiment", "wish", "sentence"),
    [
        (byol, {"start": [0.0]}, "`start` must be positive, but got 0."),
        (byol, {"weight_decay": [-0.1]}, "`weight_decay` must be non-negative, but got -0.1."),
        (byol, {"batch": 0}, "`batch` must be a whole number, 1 or more, but got 0."),
        (byol_survival, {"rate": 0.0}, "`rate` must be positive, but got 0."),
        (byol_basin, {"encoder": [-1.0]}, "`encoder` must be positive, but got -1."),
        (byol_trajectory, {"predictor_rate": [0.0]}, "`predictor_rate` must be positive, but got 0."),
        (byol_ghost, {"distance": [0.0]}, "`distance` must be positive, but got 0."),
        (direct_predictor, {"eps": [-0.5]}, "`eps` must be non-negative, but got -0.5."),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_sentence(experiment, wish, sentence):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        configure(experiment, "smoke", wish)
    assert str(error.value) == sentence
