"""Weight decay on two layers and more: roots, thresholds and the potential against the loss of the matrices."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.optimize import minimize, minimize_scalar

from theory.ssl_collapse import (
    two_layer_barrier,
    two_layer_critical_decay,
    two_layer_potential,
    two_layer_strength,
)

MODE = (0.6, 0.9, 0.75)
strength = jax.jit(two_layer_strength, static_argnames="lowest")
barrier_of = jax.jit(two_layer_barrier)
potential = jax.jit(two_layer_potential)


def closed_form(b, sigma, kappa, decay):
    """Strength and barrier of two layers by the trigonometric solution of the cubic."""
    edge = np.sqrt(b / (6 * kappa)) / sigma
    third = np.arcsin(decay / (2 * b / 3 * edge)) / 3
    return 2 * edge * np.cos(np.pi / 6 + third), 2 * edge * np.sin(third)


def test_printed_values():
    ends = two_layer_critical_decay(*MODE)
    np.testing.assert_allclose(ends, [0.1147550621, 0.1622881652], rtol=5e-10)
    np.testing.assert_allclose(strength(*MODE, 0.08), 0.6230094434, rtol=2e-10)
    a = np.array([1.2, 0.7, 0.4])
    np.testing.assert_allclose(
        two_layer_critical_decay(a, a + 0.25, 0.75).spinodal, [0.2849, 0.1937, 0.1223], atol=5e-5
    )


def test_roots_are_those_of_the_cubic():
    decay = np.array([1e-9, 0.01, 0.08, 0.1147, 0.16, 0.1622])
    top, barrier = closed_form(*MODE, decay)
    np.testing.assert_allclose(strength(*MODE, decay), top, rtol=1e-11)
    np.testing.assert_allclose(barrier_of(*MODE, decay), barrier, rtol=1e-10)


def test_one_layer_has_a_continuous_transition():
    decay = np.array([0.0, 0.1, 0.59, 0.6, 0.7])
    np.testing.assert_allclose(two_layer_critical_decay(*MODE, 1), [0.6, 0.6], rtol=1e-14)
    exact = np.sqrt(np.maximum(0.6 - decay, 0) / 1.5) / 0.9
    np.testing.assert_allclose(strength(*MODE, decay, 1), exact, rtol=1e-12)
    np.testing.assert_array_equal(barrier_of(*MODE, decay, 1), [0, 0, 0, np.inf, np.inf])


@pytest.mark.thorough
@pytest.mark.parametrize("depth", [1.5, 2, 3, 6])
def test_thresholds_are_where_the_potential_says(depth):
    transition, spinodal = (float(v) for v in two_layer_critical_decay(*MODE, depth))
    p = np.linspace(1e-3, 1, 400)
    loss = np.asarray(potential(p, *MODE, transition, depth))
    assert abs(loss.min()) < 1e-5
    for decay, states in ((0.999 * spinodal, 2), (1.001 * spinodal, 0)):
        fine = np.linspace(0.05, 1, 20_001)
        slope = np.diff(np.asarray(potential(fine, *MODE, decay, depth)))
        assert (slope[1:] * slope[:-1] < 0).sum() == states
    assert spinodal / transition == pytest.approx(depth * 2 ** (1 / depth - 1))
    middle = (transition + spinodal) / 2
    top, barrier = strength(*MODE, middle, depth), barrier_of(*MODE, middle, depth)
    slopes = jax.vmap(jax.grad(lambda p: potential(p, *MODE, middle, depth)))(jnp.stack([top, barrier]))
    np.testing.assert_allclose(slopes, 0, atol=1e-12)
    assert float(strength(*MODE, middle, depth, lowest=True)) == 0
    assert float(strength(*MODE, 0.99 * transition, depth, lowest=True)) > 0
    assert float(potential(top, *MODE, middle, depth)) > 0


@pytest.mark.parametrize("depth", [2, 3])
def test_the_potential_is_the_least_loss_of_layers_with_that_product(depth):
    """With one layer free, layers of matrices cost at least what the potential says, and reach it."""
    rng = np.random.default_rng(0)
    p, decay = 0.5, 0.1

    def loss(x):
        inner = x.reshape(depth - 1, 2, 2)
        product = np.linalg.multi_dot([*inner, np.eye(2)]) if depth > 2 else inner[0]
        last = np.diag([p, 0.3]) @ np.linalg.inv(product)
        return decay * (np.sum(inner**2) + np.sum(last**2))

    start = np.stack([np.eye(2)] * (depth - 1)).ravel() * 0.8 + 0.05 * rng.normal(size=4 * (depth - 1))
    found = minimize(loss, start, tol=1e-12).fun
    decays = [potential(v, *MODE, decay, depth) - potential(v, *MODE, 0.0) for v in (p, 0.3)]
    np.testing.assert_allclose(found, sum(decays), rtol=1e-8)


def test_the_learned_state_is_the_local_minimum():
    found = minimize_scalar(lambda p: float(potential(p, *MODE, 0.13)), (0.4, 0.6, 0.8), tol=1e-12).x
    np.testing.assert_allclose(strength(*MODE, 0.13), found, rtol=1e-7)


def test_modes_collapse_from_below_the_barrier_only():
    barrier = float(barrier_of(*MODE, 0.08))

    def field(_, s):
        b, sigma, kappa = MODE
        pull = 2 * b - 4 * kappa * sigma**2 * s[0] ** 2 * s[1] ** 2
        return [s[0] * s[1] ** 2 * pull - 0.16 * s[0], s[1] * s[0] ** 2 * pull - 0.16 * s[1]]

    for factor, end in ((0.98, 0.0), (1.02, float(strength(*MODE, 0.08)))):
        last = solve_ivp(field, (0, 150), [np.sqrt(factor * barrier)] * 2, rtol=1e-9, atol=1e-12).y[:, -1]
        np.testing.assert_allclose(np.prod(last), end, atol=1e-6)


def test_nothing_lives_without_a_pull():
    b = np.array([0.0, -0.4])
    np.testing.assert_array_equal(two_layer_critical_decay(b, 0.9, 0.75), np.zeros((2, 2)))
    np.testing.assert_array_equal(strength(b, 0.9, 0.75, 0.0), [0, 0])
    np.testing.assert_array_equal(barrier_of(b, 0.9, 0.75, 0.1), [np.inf, np.inf])
    assert float(barrier_of(*MODE, 0.0)) == 0


@pytest.mark.thorough
def test_gradients_jit_float32_and_broadcasting():
    for function, x in ((two_layer_strength, (*MODE, 0.08, 2)), (two_layer_barrier, (*MODE, 0.08, 3))):
        value, x = jax.jit(function), np.array(x, float)
        gradient = jax.jit(jax.grad(function, argnums=tuple(range(len(x)))))(*x)
        ends = [[float(value(*(x * (1 + s * h)))) for s in (1, -1)] for h in 1e-5 * np.eye(len(x))]
        np.testing.assert_allclose(gradient * x, -np.diff(ends)[:, 0] / 2e-5, rtol=1e-5)
    # The states that are not taken leave no nan behind.
    alive = jax.jit(jax.grad(lambda d: jnp.sum(two_layer_strength(jnp.array([0.6, 0.6, -1.0]), 0.9, 0.75, d))))
    np.testing.assert_allclose(alive(0.08), jax.jit(jax.grad(lambda d: 2 * two_layer_strength(*MODE, d)))(0.08))
    assert np.isfinite(jax.jit(jax.grad(lambda d: jnp.where(d > 1, two_layer_barrier(*MODE, d), 0.0)))(0.3))
    single = [jnp.array(v, jnp.float32) for v in (*MODE, 0.08)]
    assert two_layer_strength(*single).dtype == jnp.float32
    np.testing.assert_allclose(two_layer_strength(*single), strength(*MODE, 0.08), rtol=1e-6)
    assert strength(np.ones((3, 1)), 0.9, 0.75, np.array([0.1, 0.2]), 2).shape == (3, 2)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: two_layer_strength(0.6, -1.0, 0.75), "`sigma` must be positive, but got -1."),
        (lambda: two_layer_strength(0.6, 1.0, 0.0), "`kappa` must be positive, but got 0."),
        (lambda: two_layer_strength(*MODE, -0.2), "`weight_decay` must be zero or positive, but got -0.2."),
        (lambda: two_layer_critical_decay(*MODE, 0.5), "`depth` must be 1 or more, but got 0.5."),
        (lambda: two_layer_barrier(np.nan, 0.9, 0.75, 0.1), "`b` must be finite, but got nan."),
        (lambda: two_layer_potential(np.inf, *MODE), "`p` must be finite, but got inf."),
    ],
)
def test_wrong_arguments_are_named_in_one_sentence(call, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        call()
