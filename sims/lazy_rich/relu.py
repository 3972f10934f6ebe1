"""A ReLU student of a ReLU teacher, trained by full-batch gradient descent, and the measures of how rich that was."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sims.descent import gradient_descent_path
from theory.lazy_rich import relative_scale

TEACHERS = 3


class Student(NamedTuple):
    """f = sum_i a_i relu(w_i^T x)."""

    W: jax.Array
    a: jax.Array


class Task(NamedTuple):
    """Inputs on the unit sphere, for training and test, and a teacher of unit neurons with readouts +-1."""

    X: jax.Array
    X_test: jax.Array
    V: jax.Array
    a_star: jax.Array


def on_sphere(key, count: int, d: int):
    """Uniform points of the unit sphere."""
    x = jax.random.normal(key, (count, d))
    return x / jnp.linalg.norm(x, axis=1, keepdims=True)


def draw(key, n: int, n_test: int, d: int, m: int) -> tuple[Task, Student]:
    """A task and a student of unit strength; its second half is the first with the other sign, so that f = 0."""
    keys = jax.random.split(key, 6)
    V, a_star = on_sphere(keys[2], TEACHERS, d), jax.random.rademacher(keys[3], (TEACHERS,), float)
    W, a = on_sphere(keys[4], m // 2, d), jax.random.rademacher(keys[5], (m // 2,), float)
    task = Task(on_sphere(keys[0], n, d), on_sphere(keys[1], n_test, d), V, a_star)
    return task, Student(jnp.concatenate([W, W]), jnp.concatenate([a, -a]))


def scaled(student: Student, tau, delta, cell_rates) -> Student:
    """Every neuron with |w| = tau alpha and |a| = tau / alpha."""
    alpha = relative_scale(tau, delta, **cell_rates)
    return Student(tau * alpha * student.W, tau / alpha * student.a)


def outputs(student: Student, X):
    """f of every input."""
    return jax.nn.relu(X @ student.W.T) @ student.a


def mean_squares(student: Student, X, y):
    """Mean squared error, without 1/2."""
    return jnp.mean((outputs(student, X) - y) ** 2)


def kernel(student: Student, X, eta_a, eta_w):
    """Neural tangent kernel of the data; at a kink the slope is 1."""
    pre = X @ student.W.T
    on = (pre >= 0).astype(X.dtype)
    hidden = pre * on
    weighted = on * student.a[None, :]
    return eta_a * hidden @ hidden.T + eta_w * (weighted @ weighted.T) * (X @ X.T)


def hamming(student: Student, other: Student, X):
    """Share of inputs on which a neuron is on in one student and off in the other, mean over neurons."""
    return jnp.mean((X @ student.W.T >= 0) != (X @ other.W.T >= 0))


def distance(student: Student, other: Student):
    """Euclidean distance of all weights."""
    return jnp.sqrt(jnp.sum((student.W - other.W) ** 2) + jnp.sum((student.a - other.a) ** 2))


def train(task: Task, student: Student, h, checkpoints, eta_a, eta_w) -> Student:
    """The student at the checkpoints (numbers of steps)."""
    y = outputs(Student(task.V, task.a_star), task.X)
    rate = Student(h * eta_w, h * eta_a)
    return gradient_descent_path(lambda s: mean_squares(s, task.X, y), student, rate, checkpoints)
