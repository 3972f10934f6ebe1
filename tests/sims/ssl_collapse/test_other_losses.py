"""Spectra, biases, VICReg, Barlow Twins and the toy: losses against their definitions, and one short run of each."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sims.engine.experiment import configure, traced
from sims.ssl_collapse import EXPERIMENTS, losses
from sims.ssl_collapse.barlow_steps import covariance, rotation, shares
from sims.ssl_collapse.barlow_steps import loss as barlow_population
from sims.ssl_collapse.batch_bias import RHO, WEIGHTS, spectral_of_all_pairs
from sims.ssl_collapse.dot_toy import DIMENSION, NOISY, measured, squared_weight, views
from sims.ssl_collapse.training import gaussian_views
from theory.ssl_collapse import vicreg_loss

NAMED = {experiment.name: experiment for experiment in EXPERIMENTS}
KEY = jax.random.key(3)


def replicate(name, cells, key=KEY, **wish):
    """One replicate of an experiment at a few cells."""
    experiment = NAMED[name]
    settings = configure(experiment, "smoke", wish).settings
    columns = {k: jnp.asarray(v, float) for k, v in cells.items()}
    columns |= {k: jnp.asarray(p.values, float) for k, p in experiment.fixed.items() if k not in cells}
    run = jax.jit(experiment.simulate, static_argnums=3)
    static = {k: v[0] for k, v in cells.items() if experiment.role(k) == "static"}
    return run(key, columns, traced(settings), experiment.sizes({**settings, **static}))


def test_vicreg_of_a_large_batch_is_that_of_infinitely_many_inputs():
    q = np.array([0.2, 0.5, 0.7])
    W = np.array([[0.9, -0.4, 0.3], [0.2, 0.8, 0.5]])
    given = (1.4, 1.0, 0.3, 1.0, 0.1)
    x, y = gaussian_views(KEY, 200_000, jnp.sqrt(1 - q), jnp.sqrt(q))
    found = jax.jit(losses.vicreg)(x @ W.T, y @ W.T, *given)
    np.testing.assert_allclose(found, vicreg_loss(W, np.diag(1 - q), np.diag(q), *given), rtol=0.02)
    moved = jax.jit(losses.vicreg)(x @ W.T + 3.0, y @ W.T + 3.0, *given)
    np.testing.assert_allclose(moved, found, rtol=1e-9)


def test_all_pairs_are_the_negatives_and_the_positives():
    f, g = jax.random.normal(KEY, (2, 5, 3))
    products = np.array(f @ g.T)
    negatives = (np.sum(products**2) - np.sum(np.diag(products) ** 2)) / 20
    by_hand = -2 * np.mean(np.diag(products)) + 0.8 * negatives + 0.2 * np.mean(np.diag(products) ** 2)
    np.testing.assert_allclose(spectral_of_all_pairs(f, g), by_hand, rtol=1e-12)
    np.testing.assert_allclose(losses.spectral(f, g), -2 * np.mean(np.diag(products)) + negatives, rtol=1e-12)


@pytest.mark.thorough
def test_distances_do_not_see_a_bias_and_products_do():
    f, g = jax.random.normal(KEY, (2, 6, 3))
    b = jnp.array([[0.5, -0.2, 0.1]])
    distance = jax.jit(losses.infonce_distance)
    np.testing.assert_allclose(distance(f + b, g + b), distance(f, g), rtol=1e-12)
    assert abs(float(losses.spectral(f + b, g + b) - losses.spectral(f, g))) > 1e-3
    assert abs(float(losses.infonce_dot(f + b, g + b) - losses.infonce_dot(f, g))) > 1e-3


@pytest.mark.thorough
def test_population_loss_of_barlow_twins_is_that_of_a_large_batch():
    basis = rotation(KEY, 4)
    A0, gamma = covariance(jnp.array(0.5), basis)
    np.testing.assert_allclose(np.linalg.eigvalsh(A0)[::-1], [1, 0.5, 0.25, 0.125], rtol=1e-12)
    W = jax.random.normal(KEY, (2, 4))
    np.testing.assert_allclose(jnp.sum(shares(W, gamma, basis)), jnp.trace(W @ A0 @ W.T), rtol=1e-12)
    root = basis * jnp.sqrt(gamma)[None, :]
    x, y = gaussian_views(jax.random.key(1), 200_000, root, 0.3 * jnp.eye(4))
    batch = jax.jit(losses.barlow)(x @ W.T, y @ W.T)
    np.testing.assert_allclose(batch + 2, barlow_population(W, A0), rtol=0.03)


@pytest.mark.thorough
def test_toy_has_noise_on_half_of_the_coordinates_and_counts_what_is_lost():
    inputs = jax.random.normal(KEY, (50, DIMENSION))
    x, y = views(jax.random.key(1), inputs, 4000, jnp.array(1.5))
    np.testing.assert_array_equal(x[:, : DIMENSION - NOISY], y[:, : DIMENSION - NOISY])
    np.testing.assert_allclose(jnp.std((x - y)[:, -NOISY:]), 1.5 * 2**0.5, rtol=0.02)
    noise = jnp.array([1.5])
    weights = np.ones(DIMENSION) * float(squared_weight(noise)[0])
    weights[-1] = 0.0
    out = measured(jnp.diag(weights)[None], jnp.array([0.2 / 3.25]), noise)
    np.testing.assert_allclose(out["noisy"][0], [1] * (NOISY - 1) + [0], atol=1e-12)
    np.testing.assert_allclose(out["final_square"], 1, rtol=1e-12)
    assert out["lost"][0] == 1


@pytest.mark.thorough
def test_one_encoder_keeps_the_same_modes_under_every_loss():
    out = replicate("spectra", {"weight_decay": [0.1, 0.7]}, batch=16, steps=1200)
    living = np.asarray(out["living"]) > 0
    np.testing.assert_array_equal(living[0], np.tile([True, True, True, False], (4, 1)))
    np.testing.assert_array_equal(living[1], np.tile([True, True, False, False], (4, 1)))
    assert np.abs(out["alignment"]).max() < 1e-9


@pytest.mark.thorough
def test_a_bias_takes_one_dimension_of_the_embedding():
    out = replicate("bias", {"m": [1.0, 3.0]}, batch=32, time=60.0)
    assert (np.asarray(out["living"]) > 0).sum(1).tolist() == [0, 2]
    np.testing.assert_allclose(out["bias_square"], 1, atol=0.05)


@pytest.mark.thorough
def test_small_batches_add_their_bias_to_the_loss():
    out = replicate("batch_bias", {"batch": [8.0, 8.0]}, draws=20_000, steps=8, batch=[8.0])
    W, rho = np.array(WEIGHTS), np.array(RHO)
    S, K = W @ W.T, (W * rho) @ W.T
    np.testing.assert_allclose(out["barlow_loss"], np.trace(S) ** 2 + np.sum(K**2), rtol=0.1)
    np.testing.assert_allclose(out["spectral_loss"], np.trace(K) ** 2 + np.sum(K**2), rtol=0.2)


@pytest.mark.thorough
def test_a_weak_covariance_term_shares_one_mode_among_all_dimensions():
    out = replicate("vicreg", {"invariance": [2.4, 2.4], "covariance": [0.1, 5.0]}, batch=256, steps=1200)
    shared, own = np.asarray(out["spread"])
    np.testing.assert_allclose(shared, shared.mean(), rtol=0.01)
    assert out["strength"][0, 1] < 1e-3
    assert own[0] > 5 * own[1]


@pytest.mark.parametrize(
    ("name", "wish", "sentence"),
    [
        ("spectra", {"weight_decay": [0.0]}, "`weight_decay` must be positive, but got 0."),
        ("bias", {"m": [1.5]}, "`m` must be a whole number, 1 or more, but got 1.5."),
        ("dot_bias", {"temperature": -1.0}, "`temperature` must be positive, but got -1."),
        ("vicreg", {"covariance": [0.0]}, "`covariance` must be positive, but got 0."),
        ("barlow_steps", {"ratio": [1.0]}, "`ratio` must be above 0 and below 1, but got 1."),
        ("batch_bias", {"batch": [1.0]}, "`batch` must be a whole number, 2 or more, but got 1."),
        ("dot_toy", {"steps": 2}, "`steps` must be a whole number, 8 or more, but got 2."),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_sentence(name, wish, sentence):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        configure(NAMED[name], "smoke", wish)
    assert str(error.value) == sentence
