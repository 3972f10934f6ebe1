"""Probes on trained encoders: least squares with modes left out, and how clearly modes have collapsed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sims.engine.experiment import configure
from sims.ssl_collapse import losses
from sims.ssl_collapse import probe as experiment
from sims.ssl_collapse.population import orthogonal
from sims.ssl_collapse.probe import ALIVE, ALPHA, A, D, augmentation, least_squares
from sims.ssl_collapse.training import gaussian_views, train

KEY = jax.random.key(2)


def test_least_squares_leaves_out_what_collapsed():
    X, y = jax.random.normal(KEY, (12, 4)), jax.random.normal(jax.random.key(3), (12,))
    found = least_squares(X, jnp.array([1.0, 0.0, 1.0, 0.0]), y)
    np.testing.assert_allclose(found[::2], np.linalg.lstsq(X[:, ::2], y)[0], rtol=1e-10)
    assert not found[1::2].any()


def test_the_augmentation_turns_the_signs_of_b():
    c = augmentation(jnp.array(2.0))
    assert (np.sign(np.array(A) - (ALPHA - 1) * c) == [1, 1, -1, -1, -1, -1]).all()


@pytest.mark.thorough
def test_collapsed_modes_are_far_below_the_threshold_and_living_ones_above():
    keys = jax.random.split(KEY, 3)
    V, a = orthogonal(keys[0], D, D), jnp.array(A)
    roots = [V * jnp.sqrt(x)[None, :] for x in (a, augmentation(jnp.array(3.0)))]

    def loss(W, key):
        first, second = gaussian_views(key, 64, *roots)
        return losses.infonce_distance(first @ W.T, second @ W.T, alpha=ALPHA)

    W, _ = train(loss, 0.1 * jax.random.normal(keys[1], (D, D)), keys[2], 800, 0.1, lambda W: jnp.zeros(()))
    strengths = np.linalg.svd(W @ roots[0])[1]
    assert (strengths[:3] > 4 * ALIVE * strengths[0]).all()
    assert (strengths[3:] < ALIVE / 2 * strengths[0]).all()


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        ({"survivors": [0.0]}, "`survivors` must be a whole number from 1 to 6, but got 0."),
        ({"noise_variance": 0.0}, "`noise_variance` must be positive, but got 0."),
        ({"steps": 3}, "`steps` must be a whole number, 4 or more, but got 3."),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_sentence(wish, sentence):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        configure(experiment, "smoke", wish)
    assert str(error.value) == sentence
