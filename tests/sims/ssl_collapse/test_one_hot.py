"""The whole population of one-hot classes: its moments, its loss, and where the descent ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sims.ssl_collapse.one_hot import NOISE, TAU, VARIANCE, classes, infonce, one, population


def test_the_population_has_the_moments_of_classes_under_gaussian_noise():
    p, h = classes(jnp.array(0.2))
    x, chances = population(p, h)
    assert x.shape == (36, 2)
    np.testing.assert_allclose(jnp.sum(chances), 1, rtol=1e-14)
    np.testing.assert_allclose((x * chances[:, None]).T @ x, np.diag(VARIANCE + NOISE), atol=1e-14)
    fourth = chances @ x**4
    np.testing.assert_allclose(fourth, p * h**4 + 6 * VARIANCE * NOISE + 3 * NOISE**2, rtol=1e-12)


@pytest.mark.thorough
def test_the_loss_is_its_definition_over_all_pairs():
    p, h = classes(jnp.array(0.3))
    x, chances = population(p, h)
    W = jax.random.normal(jax.random.key(0), (2, 2))
    f = np.asarray(x @ W.T)
    squares = np.sum((f[:, None, :] - f[None, :, :]) ** 2, -1)
    push = np.asarray(chances) @ np.log(np.exp(-squares / (2 * TAU)) @ np.asarray(chances))
    pull = np.trace(W @ np.diag(NOISE) @ W.T) / TAU
    np.testing.assert_allclose(infonce(W, x, chances, 0.1), pull + push + 0.1 * jnp.sum(W**2), rtol=1e-12)


@pytest.mark.thorough
def test_the_descent_ends_at_a_diagonal_gram_matrix_and_says_if_it_does_not():
    cell = {"frequency": jnp.array(0.3)}
    settings = {"distance": jnp.array(0.1), "learning_rate": jnp.array(0.5)}
    run = jax.jit(one, static_argnums=3)
    ends = [run(jax.random.key(k), cell, {**settings, "e_folds": jnp.array(36.0)}, ()) for k in range(3)]
    assert all(end["status"] == 0 for end in ends)
    np.testing.assert_allclose(ends[0]["slope"], ends[1]["slope"], atol=1e-6)
    np.testing.assert_allclose(ends[0]["slope"][2], 0, atol=1e-6)
    short = run(jax.random.key(0), cell, {**settings, "e_folds": jnp.array(0.5)}, ())
    assert short["status"] == 1
