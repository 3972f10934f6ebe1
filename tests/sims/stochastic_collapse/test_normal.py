"""Euler steps in several normal dimensions, and SGD of a linear neuron, against what they stand for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sims.engine.experiment import configure
from sims.stochastic_collapse import normal_dimensions, sign_set
from sims.stochastic_collapse.normal_dimensions import step, system, times
from sims.stochastic_collapse.sign_set import (
    NEAR,
    Neuron,
    Sizes,
    balanced,
    independent_noise,
    inner,
    one,
    sample,
    sgd_step,
)
from theory.stochastic_collapse import elog_abs_normal, log_norm_drift, top_exponent_2d

KEY = jax.random.key(3)


def unit(key, shape):
    n = jax.random.normal(key, shape)
    return n / jnp.linalg.norm(n, axis=-1, keepdims=True)


def test_a_step_is_eulers_and_its_growths_add_up():
    H, G = system({"system": jnp.array(2.0), "noise": jnp.array(0.7)}, 3)
    n = z = unit(KEY, (5, 3))
    log, dt = jnp.zeros(5), jnp.array(0.05)
    euler = jax.jit(step)
    for k in range(4):
        noise = jax.random.normal(jax.random.fold_in(KEY, k), (5, 2))
        before = n
        n, growth, martingale, drift = euler(n, noise, H, G, dt)
        np.testing.assert_allclose(drift, log_norm_drift(before, H, G), rtol=1e-10, atol=1e-12)
        z = z - dt * z @ H.T + jnp.sqrt(dt) * jnp.einsum("pa,aij,pj->pi", noise, G, z)
        log = log + growth
        expected = jnp.sqrt(dt) * jnp.einsum("pi,pa,aij,pj->p", before, noise, G, before)
        np.testing.assert_allclose(martingale, expected, atol=1e-14)
    np.testing.assert_allclose(log, jnp.log(jnp.linalg.norm(z, axis=-1)), atol=1e-12)
    np.testing.assert_allclose(n, z / jnp.linalg.norm(z, axis=-1, keepdims=True), atol=1e-12)
    np.testing.assert_allclose(times(H, z), z @ H.T, atol=1e-13)


def test_a_system_is_the_same_in_every_cell_and_another_for_another_number():
    cells = [{"system": jnp.array(float(s)), "noise": jnp.array(a)} for s, a in ((1, 1.0), (1, 0.5), (2, 1.0))]
    (H, G), (same, halved), (other, _) = (system(cell, 2) for cell in cells)
    np.testing.assert_array_equal(H, same)
    np.testing.assert_array_equal(G, 2 * halved)
    assert not np.allclose(H, other)


def a_path(d, steps, log, eta, key=KEY):
    sizes = Sizes(d, 4, 1)
    direction = balanced(key, sizes)
    logs = jnp.full(4, log)
    for k in range(steps):
        x, y = sample(jax.random.fold_in(key, k), sizes, eta)
        direction, growth, _ = sgd_step(direction, logs, x, y, eta)
        logs = logs + growth
    return direction, logs


@pytest.mark.parametrize("log", [-0.5, -12.0])
def test_steps_in_logs_are_sgd_of_the_weights(log):
    eta, sizes = jnp.array(0.02), Sizes(3, 4, 1)
    theta = jax.tree.map(lambda v: jnp.exp(log) * v, balanced(KEY, sizes))
    for k in range(5):
        x, y = sample(jax.random.fold_in(KEY, k), sizes, eta)
        residual = theta.a * jnp.sum(theta.w * x, -1) - y
        theta = Neuron(
            theta.a - eta * residual * jnp.sum(theta.w * x, -1),
            theta.w - eta * (residual * theta.a)[:, None] * x,
        )
    direction, logs = a_path(3, 5, log, eta)
    np.testing.assert_allclose(logs, jnp.log(inner(theta, theta)) / 2, rtol=1e-12)
    np.testing.assert_allclose(jnp.exp(logs)[:, None] * direction.w, theta.w, rtol=1e-11)


def test_far_below_the_origin_steps_are_the_same_at_every_distance():
    near, far = (a_path(2, 5, log, jnp.array(0.05))[1] - log for log in (NEAR, -2000.0))
    np.testing.assert_allclose(near, far, atol=1e-11)
    assert np.abs(near).min() > 1e-3


def test_labels_and_the_start_are_what_they_are_called():
    sizes = Sizes(2, 4000, 1)
    x, y = sample(KEY, sizes, jnp.array(0.04))
    np.testing.assert_allclose(jnp.abs(y), 5.0, rtol=1e-14)
    np.testing.assert_allclose(jnp.cov(x.T), np.eye(2), atol=0.15)
    neuron = balanced(KEY, sizes)
    np.testing.assert_allclose(neuron.a**2, 0.5, rtol=1e-14)
    np.testing.assert_allclose(inner(neuron, neuron), 1.0, rtol=1e-14)
    scalar = balanced(KEY, Sizes(1, 50, 1))
    np.testing.assert_allclose(jnp.abs(scalar.w[:, 0]), scalar.a, rtol=1e-14)


@pytest.mark.thorough
def test_in_one_dimension_the_exponent_is_exact_at_any_learning_rate():
    settings = {name: jnp.array(v) for name, v in (("eta", 0.04), ("time", 20.0), ("burn_in", 4.0), ("life", 0.1))}
    run = jax.jit(one, static_argnums=3)
    for seed in range(2):
        keys = jax.random.split(jax.random.key(seed), 12)
        found = np.array([run(key, {}, settings, Sizes(1, 400, 1))["exponent"] for key in keys])
        exact = elog_abs_normal(1.0, 0.2) / 0.04
        assert abs(found.mean() - exact) < 5 * found.std(ddof=1) / 12**0.5
        assert abs(found.mean() + 0.5) > 5 * found.std(ddof=1) / 12**0.5


@pytest.mark.thorough
def test_the_twin_of_independent_noise_is_its_exponent_in_the_plane():
    parts = np.zeros((2, 2, 2))
    parts[0, 0, 1] = parts[1, 1, 0] = 1.0
    found = independent_noise({"dimension": jnp.array([1.0])}, {}, None)
    np.testing.assert_allclose(found, top_exponent_2d(np.zeros((2, 2)), parts, 128), rtol=1e-6)


@pytest.mark.parametrize(("experiment", "time"), [(normal_dimensions, 50), (sign_set, 20)])
def test_what_cannot_be_run_is_refused_in_one_sentence(experiment, time):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        configure(experiment, "laptop", {"burn_in": 60.0})
    assert str(error.value) == f"`burn_in` must be below `time` = {time}, but got 60."
