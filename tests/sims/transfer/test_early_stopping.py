"""Finite training time: the trajectory in the eigenbasis is that of plain gradient descent on the samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sims.transfer.deep_linear import initial_network, quadratic_loss, rotated, weights
from sims.transfer.early_stopping import FRACTIONS, Sizes, counts, early_stopping, on_spectrum, trajectory
from sims.transfer.regression import draw, regression

SETTINGS = {"learning_rate": jnp.asarray(0.02), "last_time": jnp.asarray(4.0)}
D, ROWS = 12, 18
SIZES = Sizes(D, ROWS, 0, "gd", 10, 50)


def a_task(key, n, theta=0.7, sigma=0.3):
    data = draw(key, ROWS, D)
    theta, sigma = jnp.array([theta]), jnp.array([sigma])
    return data, regression(data, jnp.asarray(float(n)), theta, sigma, jnp.asarray(1.0))


@pytest.mark.thorough
@pytest.mark.parametrize("n", [7, 12, 18])
@pytest.mark.parametrize("width", [None, 0, 3])
def test_trajectory_is_plain_gradient_descent_on_the_samples(n, width):
    data, task = a_task(jax.random.key(1), n)
    inputs = data.inputs[:n]
    target = np.cos(0.7) * data.source + np.sin(0.7) * data.normal
    labels = inputs @ target + 0.3 * data.noise[:n]
    network = (data.source,) if width is None else initial_network(jax.random.key(2), D, width, 2, 0.5)

    path = trajectory(quadratic_loss(task.eigenvalues, task.min_norm[0]), rotated(network, task.basis), SETTINGS, SIZES)

    slope = jax.jit(jax.grad(lambda net: jnp.mean((inputs @ weights(net) - labels) ** 2)))
    steps = [int(c) for c in counts(SETTINGS)]
    at = []
    for step in range(1, steps[-1] + 1):
        network = jax.tree.map(lambda a, g: a - 0.02 * g, network, slope(network))
        at += [weights(network)] * steps.count(step)
    np.testing.assert_allclose(path @ task.basis.T, np.array(at), atol=1e-12)
    assert len(path) == len(FRACTIONS)


@pytest.mark.thorough
def test_flow_is_the_limit_of_descent():
    _, task = a_task(jax.random.key(3), 9)
    loss = quadratic_loss(task.eigenvalues, task.min_norm[0])
    network = (task.source,)
    fine = trajectory(loss, network, {**SETTINGS, "learning_rate": jnp.asarray(2e-4)}, SIZES)
    coarse = trajectory(
        loss, network, {**SETTINGS, "learning_rate": jnp.asarray(4e-3)}, SIZES._replace(protocol="flow")
    )
    np.testing.assert_allclose(fine, coarse, atol=2e-3)


@pytest.mark.thorough
def test_the_part_that_is_subtracted_has_mean_zero_and_carries_most_of_the_variance():
    cells = {"sigma": jnp.array([0.3])}
    times = jnp.array([0.2, 2.0])

    def parts(key):
        _, task = a_task(key, 9)
        drawn, part = on_spectrum(task, task.source, cells, jnp.asarray(9.0), times, rate=2.0)
        return drawn[0], part[0]

    drawn, part = jax.lax.map(parts, jax.random.split(jax.random.key(0), 2000), batch_size=100)
    error = part.std(0) / 2000**0.5
    assert (np.abs(part.mean(0)) < 4.5 * error).all()
    assert (np.var(drawn - part, axis=0) < 0.5 * np.var(drawn, axis=0)).all()


def test_recorded_times_are_those_of_the_paper():
    times = early_stopping.outputs["scratch_risk"].dims["time"]({"last_time": 50.0, "learning_rate": 0.01})
    np.testing.assert_allclose(times, [0.05, 0.15, 0.5, 1.5, 5, 15, 50])
