"""Finite data and what descends on them: exact covariances, the loss by its definition, and starts that stay put."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sims.engine.experiment import configure
from sims.ssl_collapse import finite_data
from sims.ssl_collapse.minima import Sizes, covariances, minima, one
from sims.ssl_collapse.saddles import BETA, ROWS, SETS, escape, rates, saddles, spectra
from sims.ssl_collapse.sections import STARTS, sections
from theory.ssl_collapse import effective_landscape, quartic_loss
from theory.ssl_collapse.covariances import whitened

KEY = jax.random.key(3)


@pytest.mark.thorough
def test_every_pair_of_views_is_in_the_loss_and_the_covariances_are_exact():
    beta = jnp.array([1.0, 0.6, -0.2])
    A0, C = covariances(KEY, beta)
    views = finite_data.draw(KEY, 5, 4, A0, C)
    W = 0.7 * np.random.default_rng(0).normal(size=(2, 3))
    x = np.asarray(views.x)
    positives = np.mean([a @ W.T @ W @ b for k in range(5) for a in x[k] for b in x[k]])
    flat = x.reshape(-1, 3)
    squares = np.mean([(a @ W.T @ W @ b) ** 2 for a in flat for b in flat])
    by_definition = -2 * positives + squares + 0.3 * (W**2).sum()
    np.testing.assert_allclose(finite_data.spectral_loss(W, views, 0.3), by_definition, rtol=1e-12)
    np.testing.assert_allclose(flat.T @ flat / len(flat), A0 + C, rtol=1e-12, atol=1e-14)
    exact = quartic_loss(W, effective_landscape(A0, C, "spectral", weight_decay=0.3))
    np.testing.assert_allclose(by_definition, exact, rtol=1e-12)
    third = np.mean((flat - flat.mean(0)) ** 3, 0)
    assert np.abs(third).max() > 0.01  # not Gaussian


@pytest.mark.thorough
def test_covariances_have_the_modes_that_are_asked_for():
    beta = jnp.array([1.0, 0.7, -0.15, -0.3])
    A0, C = covariances(KEY, beta)
    B, Sigma, _ = effective_landscape(A0, C, "spectral", weight_decay=0.6)
    np.testing.assert_allclose(jnp.linalg.eigvalsh(whitened(B, Sigma))[::-1], beta, rtol=1e-10)
    assert jnp.linalg.eigvalsh(C).min() > 0
    assert jnp.linalg.eigvalsh(A0).min() >= 0
    assert jnp.abs(B @ Sigma - Sigma @ B).max() > 0.1


@pytest.mark.thorough
def test_rows_beyond_m_stay_zero_and_the_rest_is_descent():
    settings = {"learning_rate": jnp.array(0.04), "steps": jnp.array(1500)}
    out = jax.jit(one, static_argnums=3)(
        KEY, {"m": jnp.array(2.0), "n_positive": jnp.array(2.0)}, settings, Sizes(3, 5, 4)
    )
    assert np.linalg.matrix_rank(out["gram"], tol=1e-6) == 2 == out["rank"]
    np.testing.assert_allclose(out["gram"], out["gram_theory"], atol=1e-9)
    np.testing.assert_allclose(out["loss"], out["loss_theory"], rtol=1e-9)


def test_saddles_are_all_classes_but_the_minimum():
    assert SETS == [(), (0,), (1,), (2,), (0, 2), (1, 2)]
    for rows, chosen in zip(ROWS, SETS, strict=True):
        assert rows.sum(0).nonzero()[0].tolist() == list(chosen)
    np.testing.assert_allclose(BETA, [1.0, 0.7, 0.4, -0.3])
    np.testing.assert_allclose(rates(), [2.0, 1.4, 2.0, 2.0, 0.6, 1.2], rtol=1e-12)
    assert spectra().shape == (6, 8)


def test_the_rate_of_escape_is_read_off_a_growth_that_is_known():
    saddle = jnp.array([[0.5, 0.0]])

    def loss(W):
        return -0.7 * jnp.sum((W - saddle) ** 2)

    start = saddle + 1e-12 * jnp.array([[0.6, 0.8]])
    rate, stayed = jax.jit(lambda s: escape(loss, s, saddle, jnp.array(0.01)))(start)
    np.testing.assert_allclose(rate, np.log(1 + 0.014) / 0.01, rtol=1e-6)
    assert not stayed


def test_starts_hold_a_path_on_every_axis():
    assert any(w[0] == 0 for w in STARTS)
    assert any(w[1] == 0 for w in STARTS)
    assert np.abs(STARTS).max() <= 0.9


@pytest.mark.parametrize(
    ("experiment", "wish", "sentence"),
    [
        (minima, {"m": [6]}, "`m` must not exceed `d` = 5, but got 6."),
        (minima, {"noises": 5}, "`noises` must exceed `d` = 5, but got 5."),
        (minima, {"n_positive": [-1]}, "`n_positive` must be a whole number, 0 or more, but got -1."),
        (saddles, {"saddle": [6]}, "`saddle` must be a whole number from 0 to 5, but got 6."),
        (saddles, {"inputs": 4}, "`inputs` must be a whole number, 5 or more, but got 4."),
        (sections, {"weight_decay": [-0.1]}, "`weight_decay` must be non-negative, but got -0.1."),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_sentence(experiment, wish, sentence):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        configure(experiment, "smoke", wish)
    assert str(error.value) == sentence
