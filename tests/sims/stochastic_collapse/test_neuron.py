"""The scalar neuron: its gradient, its label noise in two normals, and steps in logs against steps of the weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sims.engine.experiment import configure
from sims.stochastic_collapse import neuron_noise
from sims.stochastic_collapse.neuron import (
    NEAR,
    START,
    State,
    draw,
    label_noise,
    network,
    noisy_step,
    slopes,
    start,
    walk,
)
from sims.stochastic_collapse.neuron_diagram import growth, independent_noise, measured_exponents
from theory.stochastic_collapse import neuron_exponents, top_exponent_2d

KEY = jax.random.key(5)
DATA = draw(KEY, 32)
W = jnp.array([[0.7, -1.2, 0.1], [0.4, 0.9, -2.0]])


def test_data_have_a_mean_square_of_one_and_targets_near_the_inputs():
    np.testing.assert_allclose(jnp.mean(DATA.x**2), 1.0, rtol=1e-14)
    assert 0.05 < jnp.std(DATA.y - DATA.x) < 0.2


def test_the_gradient_by_hand_is_that_of_the_network():
    f, by = slopes(W, DATA.x)
    for path in range(3):
        np.testing.assert_allclose(f[:, path], network(W[:, path], DATA.x), rtol=1e-14)
        exact = jax.vmap(jax.grad(network), (None, 0))(W[:, path], DATA.x)
        np.testing.assert_allclose(jnp.stack(by)[..., path].T, exact, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("distance", [1.0, 1e-3, 1e-8])
def test_two_normals_have_the_law_of_a_wiener_process_for_every_sample(distance):
    _, by = slopes(distance * W, DATA.x)
    root = jnp.stack([label_noise(*by, jnp.broadcast_to(e[:, None], (2, 3))) for e in jnp.eye(2)], 1)
    for path in range(3):
        gradients = jnp.stack([b[:, path] for b in by])
        wanted = gradients @ gradients.T / 32
        np.testing.assert_allclose(root[..., path] @ root[..., path].T, wanted, rtol=1e-12)
    # Both are Gaussian and linear in their normals: the covariance is the law. Parallel gradients leave no rest.
    if distance < 1e-6:
        assert jnp.max(jnp.abs(root[1, 1])) < 1e-9 * distance


def test_noise_of_a_single_gradient_is_finite():
    zero = jnp.zeros((32, 3))
    _, by = slopes(W, DATA.x)
    np.testing.assert_array_equal(label_noise(zero, zero, jnp.ones((2, 3))), 0.0)
    np.testing.assert_allclose(
        label_noise(zero, by[1], jnp.ones((2, 3)))[1], jnp.sqrt(jnp.mean(by[1] ** 2, 0)), rtol=1e-12
    )


@pytest.mark.parametrize("log", [0.0, -14.0])
def test_steps_in_logs_are_sgd_of_the_weights(log):
    state = start(KEY, 3)._replace(log=jnp.full(3, log))
    w = jnp.exp(log) * state.direction
    for k in range(4):
        normals = jax.random.normal(jax.random.fold_in(KEY, k), (2, 3))
        state = noisy_step(state, DATA, 0.2, 0.3, normals)
        loss = lambda w: jnp.mean((network(w, DATA.x) - DATA.y) ** 2) / 2  # noqa: E731
        w = w + 0.3 * label_noise(*slopes(w, DATA.x)[1], normals) - 0.2 * jax.vmap(jax.grad(loss), 1, 1)(w)
    np.testing.assert_allclose(jnp.exp(state.log)[None, :] * state.direction, w, rtol=1e-9)


def test_below_the_smallest_distance_a_step_is_the_same_at_every_distance():
    normals = jax.random.normal(KEY, (2, 3))
    near, far = (
        noisy_step(State(start(KEY, 3).direction, jnp.full(3, log)), DATA, 0.2, 0.7, normals) for log in (NEAR, -900.0)
    )
    np.testing.assert_allclose(near.log - NEAR, far.log + 900.0, atol=1e-11)
    np.testing.assert_allclose(near.direction, far.direction, rtol=1e-11)


def test_a_walk_goes_on_from_where_it_was_left():
    begin, zero = start(KEY, 3), jnp.int32(0)
    np.testing.assert_allclose(jnp.exp(begin.log), 1e-3, rtol=1e-12)
    whole = walk(KEY, begin, DATA, 0.1, 0.5, zero, jnp.int32(9))
    half = walk(KEY, begin, DATA, 0.1, 0.5, zero, jnp.int32(4))
    np.testing.assert_array_equal(walk(KEY, half, DATA, 0.1, 0.5, jnp.int32(4), jnp.int32(9)).log, whole.log)
    assert jnp.all(whole.log != START)


def test_growth_of_sum_and_difference_is_that_of_the_labels_seen():
    w, eta = jnp.array([3e-9, -5e-9]), 0.3
    signal = jnp.mean(DATA.x * DATA.y)
    np.testing.assert_allclose(
        growth(w, DATA.x, DATA.y, eta), jnp.log(jnp.abs(jnp.array([1 + eta * signal, 1 - eta * signal]))), atol=1e-12
    )


@pytest.mark.thorough
@pytest.mark.parametrize("seed", [0, 1])
def test_measured_exponents_are_the_closed_ones_within_their_standard_errors(seed):
    count, eta, zeta = 20_000, jnp.array(0.3), jnp.array(2.0)
    found = jax.jit(measured_exponents, static_argnums=4)(jax.random.key(seed), DATA, eta, zeta, count)
    for prefix, time in (("", "full_gradient"), ("single_", "single_sample")):
        exact = neuron_exponents(*DATA, 0.3, 2.0, time=time)
        for name in ("u", "v"):
            assert abs(found[prefix + name] - getattr(exact, name)) < 5 * 1.2 / count**0.5


@pytest.mark.thorough
def test_the_twin_of_independent_noise_is_its_exponent_in_the_plane():
    C, square = 0.6, 1.3
    parts = np.zeros((2, 2, 2))
    parts[0, 0, 1] = parts[1, 1, 0] = square**0.5
    found = independent_noise(jnp.array(C), jnp.array(square))
    np.testing.assert_allclose(found, top_exponent_2d(-C * np.array([[0.0, 1.0], [1.0, 0.0]]), parts, 128), rtol=1e-6)


def test_what_cannot_be_run_is_refused_in_one_sentence():
    with pytest.raises(ValueError) as error:  # noqa: PT011
        configure(neuron_noise, "smoke", {"samples": 1})
    assert str(error.value) == "`samples` must be a whole number, 2 or more, but got 1."
