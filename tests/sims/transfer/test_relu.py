"""ReLU networks: gradients, masks and heads against what they stand for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sims.descent import gradient_descent
from sims.transfer.relu import (
    Sizes,
    best_head,
    floor_of_kernel,
    initial_student,
    labels_of,
    least_squares,
    pretrain,
    probe_risk,
    squared_error,
    student,
    teacher,
)
from theory.gaussian_kernels import arc_cosine_kernel, relu_kernel
from theory.transfer import relu_floor

D, M = 4, 7


@pytest.fixture
def network():
    first, head = initial_student(jax.random.key(0), D, M)
    return first, head * jnp.linspace(0.5, 2.0, M)


@pytest.fixture
def target():
    return teacher(jax.random.key(1), D, 3)


@pytest.fixture
def inputs():
    return jax.random.normal(jax.random.key(2), (20, D))


def test_gradient_is_that_by_hand(network, target, inputs):
    labels = labels_of(target, inputs)
    first, head = map(np.array, network)
    active = np.array(inputs) @ first.T
    residual = np.maximum(active, 0) @ head / M - np.array(labels)
    of_first = 2 * ((active > 0) * residual[:, None] * head).T @ np.array(inputs) / M
    of_head = 2 * np.maximum(active, 0).T @ residual / M
    slope = jax.grad(squared_error)(network, inputs, labels)
    np.testing.assert_allclose(slope[0], of_first, atol=1e-13)
    np.testing.assert_allclose(slope[1], of_head, atol=1e-13)


def test_masked_rows_are_as_if_they_were_not_there(network, target, inputs):
    labels = labels_of(target, inputs)
    seen = (jnp.arange(20) < 6).astype(float)
    masked = gradient_descent(lambda net: squared_error(net, inputs, labels, seen / 6), network, 0.5, 30)
    short = gradient_descent(lambda net: squared_error(net, inputs[:6], labels[:6], 1 / 6), network, 0.5, 30)
    for a, b in zip(masked, short, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-13)


def test_pretraining_learns_a_source_that_it_can_express(network, target):
    sizes = Sizes(D, 20, 3, 1, 1, 1, 64, 1500)
    start = initial_student(jax.random.key(3), D, 20)
    trained = pretrain(jax.random.key(4), start, target, 0.2 * 20, sizes)
    fresh = jax.random.normal(jax.random.key(5), (500, D))
    labels = labels_of(target, fresh)
    assert squared_error(trained, fresh, labels) < 0.03 * jnp.sum(labels**2)


def test_least_squares_without_a_ridge_is_that_of_numpy(network, target, inputs):
    hidden = jax.nn.relu(inputs @ network[0].T)
    labels = labels_of(target, inputs)
    expected = np.linalg.lstsq(np.array(hidden), np.array(labels), rcond=None)[0]
    np.testing.assert_allclose(least_squares(hidden, labels, 0.0), expected, rtol=1e-7)


def test_the_best_head_has_the_floor_as_its_risk(network, target):
    head = best_head(target, network[0])
    cross = relu_kernel(network[0], target[0]) @ target[1]
    total = target[1] @ relu_kernel(target[0], target[0]) @ target[1]
    risk = total - 2 * head @ cross + head @ relu_kernel(network[0], network[0]) @ head
    assert float(risk) == pytest.approx(float(relu_floor(*target, network[0])), rel=1e-8)


@pytest.mark.thorough
def test_predicted_risk_of_the_probe_ends_at_the_floor(network, target):
    floor = relu_floor(*target, network[0])
    risks = probe_risk(target, network[0], floor, jnp.array([20.0, 1e3, 1e9]), 1e-9)
    assert (np.diff(risks) < 0).all()
    assert float(risks[-1]) == pytest.approx(float(floor), rel=1e-5)


def test_the_floor_of_the_right_kernel_is_the_theory(network, target):
    right = floor_of_kernel(arc_cosine_kernel, target, network[0])
    assert float(right) == pytest.approx(float(relu_floor(*target, network[0])), rel=1e-8)


def test_the_student_that_is_the_teacher_has_no_error(target, inputs):
    same = (target[0], 3 * target[1])
    np.testing.assert_allclose(student(same, inputs), labels_of(target, inputs), atol=1e-14)
