"""Pretraining: what the measurement of an escape gives where the answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sims.descent import gradient_flow
from sims.transfer.deep_linear import initial_network, quadratic_loss
from sims.transfer.pretraining import Sizes, escape_time, two_layers
from theory.transfer import pretraining_half_time

D, B = 9, 1.4


def rank_one(size):
    """A balanced network along the first axis, of end-to-end norm `size`."""
    head = size**0.5 * jnp.array([0.6, 0.8])
    return jnp.zeros((D, 2)).at[0].set(head), head


@pytest.fixture
def loss():
    return quadratic_loss(jnp.ones(D), jnp.zeros(D).at[0].set(B))


@pytest.mark.parametrize("size", [1e-3, 1e-6])
def test_a_balanced_rank_one_network_escapes_at_the_half_time(loss, size):
    time = escape_time(loss, rank_one(size), jnp.asarray(B), jnp.asarray(100.0), jnp.asarray(0.01 / B))
    assert time == pytest.approx(float(pretraining_half_time(B, size)), rel=2e-5)


def test_no_escape_is_an_infinite_time(loss):
    time = escape_time(loss, rank_one(1e-6), jnp.asarray(B), jnp.asarray(0.5), jnp.asarray(0.01))
    assert np.isinf(time)


def test_a_balanced_rank_one_network_follows_the_logistic_function_exactly(loss):
    direction = jnp.zeros(D).at[0].set(1.0)
    settings = {"learning_rate": jnp.asarray(0.01)}
    out = two_layers(rank_one(1e-4), direction, loss, jnp.asarray(B), settings, Sizes(D, 2, 2, 60))
    np.testing.assert_allclose(out["norm"], out["norm_theory"], rtol=1e-7)
    assert abs(float(out["early_excess"])) < 1e-10
    assert float(out["second_singular_value"]) < 1e-12
    assert float(out["balance_drift"]) < 1e-12


def test_the_flow_conserves_the_imbalance_of_the_layers(loss):
    before = initial_network(jax.random.key(0), D, 3, 2, 0.3)
    after = gradient_flow(loss, before, 2.0, 400)

    def imbalance(network):
        return np.asarray(network[0].T @ network[0] - jnp.outer(network[1], network[1]))

    np.testing.assert_allclose(imbalance(before), imbalance(after), atol=1e-9)
