"""Singular modes and the student made of them: reductions against real weights, losses and controls by definition."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sims.engine.experiment import configure
from sims.stochastic_collapse import modes

teacher_student = importlib.import_module("sims.stochastic_collapse.teacher_student")
risk = importlib.import_module("sims.stochastic_collapse.risk")
singular_mode = importlib.import_module("sims.stochastic_collapse.singular_mode")
mode_transient = importlib.import_module("sims.stochastic_collapse.mode_transient")
collapsed_mode = importlib.import_module("sims.stochastic_collapse.collapsed_mode")

pytestmark = pytest.mark.thorough

KEY = jax.random.key(2)
SIZES = teacher_student.Sizes(m=5, rank=2, students=1, together=1)


def test_logarithms_follow_gradient_descent_on_a_noisy_label():
    def loss(weights, label):
        return (weights[0] * weights[1] - label) ** 2 / 2

    s, eta, zeta, s0, imbalance = 0.7, 0.05, 3.0, 0.4, 0.3
    mode = modes.start(jnp.array(s0), jnp.array(imbalance), 6)
    total = np.sqrt(4 * s0 / (1 - imbalance**2))
    weights = jnp.array([total * (1 + imbalance) / 2, total * (1 - imbalance) / 2])[:, None] * jnp.ones((1, 6))
    np.testing.assert_allclose(modes.value(mode), s0, rtol=1e-14)
    gradient = jax.vmap(jax.grad(loss), (1, 0), 1)
    for k in range(40):
        noise = jax.random.normal(jax.random.fold_in(KEY, k), (6,))
        weights = weights - eta * gradient(weights, s - zeta * noise)
    after = modes.run(KEY, mode, s, eta, zeta, 40)
    np.testing.assert_allclose(modes.value(after), weights[0] * weights[1], rtol=1e-10)
    np.testing.assert_allclose(after.difference, np.log(np.abs(weights[0] - weights[1])), rtol=1e-10)

    u, v = modes.independent_step(weights[0], weights[1], (noise, noise), s, eta, zeta)
    step = weights - eta * gradient(weights, s - zeta * noise)
    np.testing.assert_allclose([u, v], step, rtol=1e-12)


def linear_student(key, label_noise):
    """(A^T U V^T B, s, modes) of a two-layer linear student after real SGD on whitened inputs, and of its reduction."""
    n, m, eta, zeta, steps = 12, 5, 0.02, 4.0, 30
    k_x, k_w, k_noise = jax.random.split(key, 3)
    X = jnp.linalg.qr(jax.random.normal(k_x, (n, m)))[0]
    y = X @ jax.random.normal(k_w, (m, m)) / m**0.5
    A, s, right = jnp.linalg.svd(X.T @ y)

    def loss(weights, labels):
        return jnp.sum((X @ weights[0] @ weights[1].T - labels) ** 2) / 2

    weights = (A, right.T)
    for k in range(steps):
        noise = jax.random.normal(jax.random.fold_in(k_noise, k), (1, m))[0]
        labels = y - zeta * label_noise(X, A, right.T, noise, jax.random.fold_in(key, k))
        gradient = jax.grad(loss)(weights, labels)
        weights = tuple(w - eta * g for w, g in zip(weights, gradient, strict=True))
    reduced = teacher_student.train(k_noise, jnp.zeros((1, m)), s, eta, zeta, jnp.int32(steps))
    return A.T @ weights[0] @ weights[1].T @ right.T, jnp.exp(2 * reduced.weights[0])


def test_a_full_student_with_label_noise_on_its_singular_vectors_is_its_modes():
    student, s_hat = linear_student(KEY, lambda X, A, B, noise, key: X @ (A * noise[None, :]) @ B.T)
    np.testing.assert_allclose(student, jnp.diag(s_hat), atol=1e-12)


def test_label_noise_off_the_singular_vectors_couples_the_modes():
    student = linear_student(KEY, lambda X, A, B, noise, key: jax.random.normal(key, (len(X), len(B))))[0]
    assert np.abs(student - np.diag(np.diag(student))).max() > 0.1


def test_losses_are_distances_to_data_and_teacher():
    data = teacher_student.draw(KEY, jnp.array(0.5), SIZES)
    W = np.diag([0.5, 1.0, 0, 0, 0])
    Y = W + 0.5 / 5**0.5 * np.asarray(jax.random.normal(KEY, (5, 5)))
    A, s, right = np.linalg.svd(Y)
    np.testing.assert_allclose(data.singular, s, rtol=1e-12)
    s_hat = np.array([1.1, 0.4, 0.3, 0.0, 0.2])
    student = A @ np.diag(s_hat) @ right
    test, train = (f(jnp.asarray(s_hat), jnp.asarray(s_hat**2), data) for f in (
        teacher_student.test_loss, teacher_student.train_loss,
    ))  # fmt: skip
    np.testing.assert_allclose(test, np.sum((student - W) ** 2), rtol=1e-12)
    np.testing.assert_allclose(train, np.sum((student - Y) ** 2) / 2, rtol=1e-12)

    out = risk.losses(jnp.asarray(s_hat)[None], jnp.asarray(s_hat**2)[None], data.overlap[None], data.teacher)
    np.testing.assert_allclose(out[0], test, rtol=1e-14)


def test_what_noise_adds_to_the_means_is_known_and_of_mean_zero():
    s, eta, zeta, steps = np.array([0.2, 0.9, 1.3, 0.8, 1.0]), 0.01, 8.0, 400
    weights = jnp.zeros((1, 5))
    run = teacher_student.train(KEY, weights, jnp.asarray(s)[None], eta, zeta, jnp.int32(steps))
    x, plain, tau, added = np.zeros(5), np.zeros((2, 5)), 0.32, []
    for k in range(steps):
        noise = np.asarray(jax.random.normal(jax.random.fold_in(KEY, k), (1, 5)))[0]
        s_hat = np.exp(2 * x)
        push, heat = (s > tau) * zeta * noise, (s > tau) * tau * (noise**2 - 1)
        added.append([push + heat, s_hat * (push - heat) + (s + tau) * (push + heat)])
        plain += [s_hat, s_hat**2]
        x = x + np.log(np.abs(1 - eta * (s_hat - s + zeta * noise)))
    np.testing.assert_allclose(run.weights[0], x, rtol=1e-9)
    np.testing.assert_allclose([run.first[0], run.second[0]], (plain + np.sum(added, 0)) / steps, rtol=1e-9)
    # A mode below the threshold is left alone.
    assert added[0][0][0] == added[0][1][0] == 0


def test_the_window_is_the_second_half_of_the_phase():
    marks, after = map(np.asarray, teacher_student.checkpoints({"steps": 5000, "steps_after": 400}))
    assert marks.dtype == after.dtype == np.int32
    np.testing.assert_array_equal(marks[[-3, -1]], [2500, 5000])
    assert (np.diff(marks) > 0).all()
    assert after[-1] == 400


def test_a_control_variate_removes_what_is_linear_in_it_and_no_more():
    random = np.random.default_rng(0)
    control, loss = random.normal(size=(2, 500, 40))
    linear = modes.controlled(jnp.asarray(3 + 2 * control[0]), jnp.asarray(control[0]))
    np.testing.assert_allclose(linear.mean(), 3, rtol=0.02)
    values = [modes.controlled(jnp.asarray(x + c), jnp.asarray(c)).mean() for x, c in zip(loss, control, strict=True)]
    assert abs(np.mean(values)) < 5 * np.std(values) / 500**0.5
    assert np.std(values) < 0.85 * np.std((loss + control).mean(1))


def test_the_risk_of_a_replicate_is_the_mean_over_its_draws():
    sizes = risk.Sizes(m=6, rank=2, draws=4)
    cells = {"tau": jnp.array([0.0, 0.4]), "sigma": 0.5, "weakest": 0.8, "strongest": 1.2}
    out = risk.simulate(KEY, {k: jnp.asarray(v) for k, v in cells.items()}, {}, sizes)
    # Without a threshold the control is the loss itself, and m sigma^2 is left but for the halves' own slopes.
    np.testing.assert_allclose(out["risk"][0], 6 * 0.25, atol=0.2)
    np.testing.assert_allclose(out["risk"][0], out["averaged_risk"][0], rtol=1e-12)
    assert (out["averaged_risk"] <= out["risk"] + 1e-12).all()


@pytest.mark.parametrize(
    ("module", "wish", "sentence"),
    [
        (teacher_student, {"rank": 20, "m": 16}, "`rank` must be at most m = 16, but got 20."),
        (teacher_student, {"zeta": [-1.0]}, "`zeta` must be non-negative, but got -1."),
        (teacher_student, {"drop": 1.0}, "`drop` must be above 0 and below 1, but got 1."),
        (risk, {"rank": 20}, "`rank` must be at most m = 16, but got 20."),
        (risk, {"draws": 3}, "`draws` must be an even number, 2 or more, but got 3."),
        (risk, {"weakest": 0.5}, "`sigma` must be different from every mode of the teacher, but got 0.5."),
        (singular_mode, {"temperature": 0.0}, "`temperature` must be positive, but got 0."),
        (mode_transient, {"s": [0.0]}, "`s` must be positive, but got 0."),
        (collapsed_mode, {"drop": 0.0}, "`drop` must be above 0 and below 1, but got 0."),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_sentence(module, wish, sentence):
    experiment = getattr(module, module.__name__.rpartition(".")[2])
    with pytest.raises(ValueError) as error:  # noqa: PT011
        configure(experiment, "smoke", wish)
    assert str(error.value) == sentence
