"""Rare classes under SGD: the inputs' distribution, unbiased losses, and the thresholds that are tested."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sims.engine.experiment import configure
from sims.ssl_collapse.imbalance import (
    LOSSES,
    NOISE,
    Sizes,
    away_from_threshold,
    barlow_of_halves,
    frequencies,
    imbalance,
    one,
    predict,
    views,
)

KEY = jax.random.key(0)


@pytest.mark.thorough
def test_views_are_one_hot_classes_of_either_sign_under_noise():
    p = frequencies(jnp.array(0.2))
    np.testing.assert_allclose(p, [0.48, 0.32, 0.2], rtol=1e-12)
    first, second = views(KEY, 40_000, p)
    shared = first.T @ second / len(first)
    np.testing.assert_allclose(shared, np.diag(p), atol=0.02)
    np.testing.assert_allclose(jnp.var(first - second, axis=0), 2 * NOISE * np.ones(3), rtol=0.05)
    np.testing.assert_allclose(jnp.mean(first, 0), 0, atol=0.02)
    # The fourth moment of +-1 with probability p is p, not a Gaussian's 3 p^2.
    fourth = jnp.mean(first**2 * second**2, 0)
    noisy = p + 2 * p * NOISE + NOISE**2
    np.testing.assert_allclose(fourth, noisy, rtol=0.1)


@pytest.mark.thorough
def test_barlow_of_halves_is_unbiased():
    p, W = frequencies(jnp.array(0.2)), jax.random.normal(KEY, (3, 3))

    def draw(key):
        first, second = views(key, 8, p)
        return barlow_of_halves(first @ W.T, second @ W.T)

    values = jax.vmap(draw)(jax.random.split(jax.random.key(1), 20_000))
    exact = np.sum((W @ np.diag(p) @ W.T - np.eye(3)) ** 2)
    assert abs(jnp.mean(values) - exact) < 4 * jnp.std(values) / len(values) ** 0.5


def test_cells_close_to_a_threshold_are_left_out():
    cells = {"frequency": np.array([0.05, 0.1, 0.3, 0.1]), "load": np.array([1.0, 1.0, 1.0, 0.0])}
    np.testing.assert_array_equal(away_from_threshold("infonce_distance")(cells, {}), [True, False, True, True])


@pytest.mark.thorough
def test_one_loss_can_be_trained_alone():
    cell = {"frequency": jnp.array(0.25), "load": jnp.array(1.0)}
    run = jax.jit(one, static_argnums=3)
    everything, alone = (run(KEY, cell, {}, Sizes(loss, 15, 60)) for loss in ("all", "spectral"))
    np.testing.assert_allclose(alone["spectral"], everything["spectral"], rtol=1e-12)
    assert np.all(np.isnan(alone["barlow"]))
    assert alone["status"] == 0
    cells = {name: value[None] for name, value in cell.items()}
    theory = jax.jit(predict, static_argnums=2)(cells, {}, "spectral")
    for name in LOSSES:
        assert np.all(np.isfinite(theory[name]) == (name == "spectral"))


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        ({"frequency": [1.0]}, "`frequency` must be above 0 and below 1, but got 1."),
        ({"negatives": 1}, "`negatives` must be a whole number, 3 or more, but got 1."),
        ({"load": [-1.0]}, "`load` must be non-negative, but got -1."),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_sentence(wish, sentence):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        configure(imbalance, "smoke", wish)
    assert str(error.value) == sentence
