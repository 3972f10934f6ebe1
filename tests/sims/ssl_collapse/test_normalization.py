"""Normalised embeddings under SGD: the data, the normalisations, and what a shift of scale cannot change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sims.engine.experiment import configure
from sims.ssl_collapse.normalization import (
    Q,
    Sizes,
    away_from_joining,
    mixing,
    normalization,
    normalized,
    of_unit_length,
    one,
    predict,
)
from theory.ssl_collapse import normalized_infonce_minimum

KEY = jax.random.key(0)


def test_embeddings_are_of_unit_mean_square_or_of_unit_length():
    first, second = 3 * jax.random.normal(KEY, (2, 7, 4))
    f, g = normalized(first, second)
    np.testing.assert_allclose((jnp.sum(f**2) + jnp.sum(g**2)) / 14, 1, rtol=1e-14)
    np.testing.assert_allclose(f / g, first / second, rtol=1e-12)
    for unit in of_unit_length(first, second):
        np.testing.assert_allclose(jnp.linalg.norm(unit, axis=1), 1, rtol=1e-14)


@pytest.mark.thorough
def test_the_prediction_is_the_minimum_over_encoders_of_inputs_without_a_common_eigenbasis():
    T = np.asarray(mixing(jnp.zeros(()).dtype))
    A0, C = T @ np.diag(1 - Q) @ T.T, T @ np.diag(Q) @ T.T
    assert np.abs(A0 @ C - C @ A0).max() > 0.01
    minimum = normalized_infonce_minimum(A0, C, len(Q), 0.8)
    here = predict({"temperature": jnp.array([0.8])}, {}, Sizes("infonce_distance", "no", 0, 0))["share"][0]
    np.testing.assert_allclose(np.diag(T.T @ minimum.gram @ T), here, atol=1e-10)
    np.testing.assert_allclose(minimum.q, Q, rtol=1e-10)


def test_every_default_temperature_is_away_from_a_mode_that_joins():
    cells = {"temperature": configure(normalization, "laptop").values["temperature"]}
    assert away_from_joining(cells, {}).all()


@pytest.mark.thorough
@pytest.mark.parametrize("loss", ["infonce_distance", "spectral"])
def test_trained_shares_sum_to_one_and_are_near_water_filling(loss):
    sizes = Sizes(loss, "yes", 64, 1200)
    cell, settings = {"temperature": jnp.array(1.6)}, {"learning_rate": jnp.array(0.1)}
    out = jax.jit(one, static_argnums=3)(KEY, cell, settings, sizes)
    theory = predict({"temperature": jnp.array([1.6])}, settings, sizes)["share"][0]
    for name in ("share", "unit_length"):
        np.testing.assert_allclose(jnp.sum(out[name]), 1, rtol=1e-12)
    np.testing.assert_allclose(out["share"], theory, atol=0.05)


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        ({"temperature": [-0.2]}, "`temperature` must be positive, but got -0.2."),
        ({"batch": 2}, "`batch` must be a whole number, 3 or more, but got 2."),
        ({"loss": "vicreg"}, "`loss` must be one of infonce_distance, spectral, but got vicreg."),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_sentence(wish, sentence):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        configure(normalization, "smoke", wish)
    assert str(error.value) == sentence
