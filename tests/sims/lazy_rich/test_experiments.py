"""Pieces of the experiments: starts, steps, kernels and measures against what they are by definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sims.descent import gradient_descent, gradient_descent_path
from sims.engine.experiment import configure
from sims.lazy_rich import basins, phase_diagram, relu, wide
from sims.lazy_rich.deep import chain, product
from sims.lazy_rich.early_phase import COSINES, Sizes, draw
from sims.lazy_rich.phase_diagram import checkpoints
from sims.lazy_rich.setup import Neuron, half_squares, imbalance, learning_rate, neuron_at
from sims.lazy_rich.single_neuron import kernel, kernel_with_the_first_outer_weight
from sims.lazy_rich.times import first_time
from sims.lazy_rich.wide import SHAPES, start
from theory.lazy_rich import conserved_matrix, deep_conserved_matrices, kernel_distance, ntk_matrix

CELL = {"tau": 0.7, "delta": -0.4, "eta_a": 0.6, "eta_w": 1.3}


def test_steps_move_every_layer_at_its_own_rate():
    neuron = Neuron(jnp.array([0.3, -0.2]), jnp.array(0.8))
    X, y = jnp.array([[1.0, 0.5], [0.2, -1.0], [0.4, 0.3]]), jnp.array([0.2, 0.7, -0.1])
    v = X.T @ (y - X @ (neuron.a * neuron.w))
    after = gradient_descent(lambda p: half_squares(p, X, y), neuron, learning_rate(0.1, CELL), 1)
    np.testing.assert_allclose(after.w, neuron.w + 0.1 * 1.3 * neuron.a * v, rtol=1e-14)
    np.testing.assert_allclose(after.a, neuron.a + 0.1 * 0.6 * neuron.w @ v, rtol=1e-14)


def test_a_path_holds_what_single_runs_end_with():
    def loss(p):
        return jnp.sum((p - 1.0) ** 4)

    begin, steps = jnp.array([0.2, 3.0]), [0, 3, 7]
    path = gradient_descent_path(loss, begin, 0.02, steps)
    for at, count in zip(path, steps, strict=True):
        np.testing.assert_allclose(at, gradient_descent(loss, begin, 0.02, count), rtol=1e-15)


def test_starts_have_their_imbalance():
    neuron = neuron_at(jnp.array([0.3, 0.4]), CELL)
    np.testing.assert_allclose(imbalance(neuron, CELL), -0.4, rtol=1e-14)
    for shape in SHAPES.values():
        network = start(jax.random.key(0), CELL, jnp.array(-0.4 if shape[0] >= shape[1] else 0.4), shape)
        delta = conserved_matrix(*network, eta_a=0.6, eta_w=1.3)
        np.testing.assert_allclose(delta, delta[0, 0] * np.eye(shape[1]), atol=1e-14)
        np.testing.assert_allclose(np.linalg.svd(network.beta)[1][: shape[1]], 0.49, rtol=1e-12)


def test_a_chain_is_balanced_after_its_first_layer():
    w, a = jnp.array([0.2, -0.5, 0.1]), 0.9
    layers = chain(w, a, 3, jax.random.key(1))
    np.testing.assert_allclose(product(layers), a**3 * w, rtol=1e-12)
    first, *rest = deep_conserved_matrices(layers)
    assert np.abs(first).max() > 0.1
    for matrix in rest:
        np.testing.assert_allclose(matrix, 0, atol=1e-14)


def test_kernels_are_those_of_the_weights():
    first, now = (neuron_at(jnp.array(beta), CELL) for beta in ([0.3, 0.4], [0.9, -0.1]))
    for neuron in (first, now):
        matrix = ntk_matrix(neuron.a * neuron.w, -0.4, eta_a=0.6, eta_w=1.3)
        np.testing.assert_allclose(kernel(neuron, CELL), matrix, rtol=1e-13)
    unit = {**CELL, "eta_a": 1.0, "eta_w": 1.0}
    first, now = (neuron_at(jnp.array(beta), unit) for beta in ([0.3, 0.4], [0.9, -0.1]))
    right = kernel_distance(kernel(first, unit), kernel(now, unit))
    assert abs(kernel_with_the_first_outer_weight(first, now) - right) > 1e-3
    same = now._replace(a=first.a)
    right = kernel_distance(kernel(first, unit), kernel(same, unit))
    np.testing.assert_allclose(kernel_with_the_first_outer_weight(first, same), right, rtol=1e-12)


def test_the_first_time_lies_between_two_steps():
    def falling(p):
        return jnp.sum(p.w**2) / 2 + 0 * p.a

    begin = Neuron(jnp.array([1.0]), jnp.array(0.0))
    cell = {"eta_a": 1.0, "eta_w": 1.0}

    def fallen(p):
        return 1 - p.w[0]

    time = first_time(fallen, 0.145, begin, falling, jnp.asarray(0.1), cell, 100)  # 0.1 after one step, 0.19 after two
    np.testing.assert_allclose(time, 0.15, rtol=1e-12)
    assert np.isnan(first_time(fallen, 0.145, begin, falling, jnp.asarray(0.1), cell, 1))


@pytest.mark.thorough
def test_a_mirrored_student_starts_at_zero_and_measures_count_inputs():
    task, student = relu.draw(jax.random.key(2), 30, 10, 5, 8)
    small = relu.scaled(student, 0.5, 0.3, {"eta_a": 1.0, "eta_w": 1.0})
    np.testing.assert_allclose(relu.outputs(small, task.X), 0, atol=1e-15)
    np.testing.assert_allclose(small.a**2 - jnp.sum(small.W**2, 1), 0.3, rtol=1e-12)
    np.testing.assert_allclose(jnp.linalg.norm(task.X, axis=1), 1, rtol=1e-12)
    turned = small._replace(W=small.W.at[0].multiply(-1))
    assert relu.hamming(small, turned, task.X) == pytest.approx(1 / 8)

    def features(x):
        return jax.grad(lambda s: relu.outputs(s, x[None])[0])(small)

    J = jax.vmap(features)(task.X)
    by_hand = 0.6 * J.a @ J.a.T + 1.3 * jnp.einsum("imd,jmd->ij", J.W, J.W)
    np.testing.assert_allclose(relu.kernel(small, task.X, 0.6, 1.3), by_hand, rtol=1e-12, atol=1e-14)


@pytest.mark.thorough
def test_early_neurons_lie_across_their_drive_and_stay_on():
    sizes = Sizes(pairs=20, d=5, m=4)
    X, y, xi, directions = draw(jax.random.key(3), sizes)
    np.testing.assert_allclose(directions @ xi, 0, atol=1e-15)
    student = relu.Student(1e-6 * directions, jnp.full(4, 1e-6))
    drive = -jax.grad(lambda s: relu.mean_squares(s, X, y))(student).W / student.a[:, None]
    np.testing.assert_allclose(drive, jnp.broadcast_to(xi, drive.shape), atol=1e-10)
    largest = max(COSINES)
    aligned = np.sqrt(1 - largest**2) * directions + largest * (xi / jnp.linalg.norm(xi))[None, :]
    assert (X @ directions.T > 0).all()
    assert (X @ aligned.T > 0).all()


def test_checkpoints_are_decades_of_steps():
    assert checkpoints(5000, 3).tolist() == [50, 500, 5000]


@pytest.mark.parametrize(
    ("experiment", "wish", "sentence"),
    [
        (phase_diagram, {"m": 5}, "`m` must be even, for half of the students are mirrored, but got 5."),
        (phase_diagram, {"tau": [0.0]}, "`tau` must be positive, but got 0."),
        (
            phase_diagram,
            {"steps": 9, "checkpoints": 2},
            "`steps` must be at least 10^(checkpoints - 1) = 10, but got 9.",
        ),
        (basins, {"delta": [0.5]}, "`delta` must be zero or negative, for there is no saddle above, but got 0.5."),
        (wide, {"shape": [3]}, "`shape` must be 0, 1 or 2, but got 3."),
        (wide, {"eta_a": 0.0}, "`eta_a` must be positive, but got 0."),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_sentence(experiment, wish, sentence):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        configure(experiment, "smoke", wish)
    assert str(error.value) == sentence
