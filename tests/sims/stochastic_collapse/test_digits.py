"""Networks that read digits: training is SGD on minibatches, and what counts as vanished or merged."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sims.descent import optimizer_step
from sims.engine.experiment import configure
from sims.stochastic_collapse.collapse_audit import HeavyBall, Sampling
from sims.stochastic_collapse.digits import (
    AXES,
    MERGED,
    VANISHED,
    counts,
    digits_networks,
    initial,
    loss,
    samples,
    train,
    units,
)
from sims.stochastic_collapse.invariance import Duplicates, Vanishing, check_invariance

KEY = jax.random.key(3)


def with_units(theta):
    """A network of these units, shape (hidden, 64 + 1 + 10)."""
    return {"hidden": {"kernel": theta[:, :64].T, "bias": theta[:, 64]}, "out": {"kernel": theta[:, 65:]}}


def test_units_are_all_weights_of_each():
    params = initial(KEY, 5)
    assert units(params).shape == (5, 75)
    np.testing.assert_array_equal(units(with_units(units(params))), units(params))


def test_units_that_vanished_or_merged_are_counted_once():
    theta = units(initial(KEY, 6))
    largest = float(jnp.max(jnp.linalg.norm(theta, axis=1)))
    tiny = theta[1] / jnp.linalg.norm(theta[1]) * largest * VANISHED
    theta = theta.at[1].set(0.5 * tiny).at[2].set(0.6 * tiny)
    theta = theta.at[4].set(theta[3] * (1 + MERGED)).at[5].set(theta[3])
    np.testing.assert_allclose(counts(with_units(theta)), [2 / 6, 2 / 6])
    theta = theta.at[1].set(1.5 * tiny).at[4].set(theta[3] * (1 + 3 * MERGED))
    np.testing.assert_allclose(counts(with_units(theta)), [1 / 6, 1 / 6])


@pytest.mark.thorough
def test_training_is_heavy_ball_on_the_minibatches():
    params, data, sampling = initial(KEY, 4), samples(), Sampling(8)
    found = train(params, data, HeavyBall(0.1, 0.7, 0.02), sampling, KEY, 6)
    rule = optax.chain(optax.add_decayed_weights(0.02), optax.sgd(0.1, 0.7))
    expected, state = params, rule.init(params)
    for k in range(6):
        gradient = jax.grad(loss)(expected, sampling.draw(KEY, data, k))
        expected, state = optimizer_step(rule, gradient, expected, state)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14), found, expected)


@pytest.mark.thorough
@pytest.mark.parametrize("kept", [Vanishing(AXES, 1), Duplicates(AXES, 0, 2)])
def test_both_sets_are_invariant(kept):
    few = jax.tree.map(lambda x: x[:10], samples())
    assert check_invariance(loss, kept.project(initial(KEY, 4)), kept, few, points=2).holds


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        ({"learning_rate": [0.0]}, "`learning_rate` must be positive, but got 0."),
        ({"hidden": 1}, "`hidden` must be a whole number, 2 or more, but got 1."),
        ({"momentum": 1.0}, "`momentum` must be from 0 to below 1, but got 1."),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_sentence(wish, sentence):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        configure(digits_networks, "smoke", wish)
    assert str(error.value) == sentence
