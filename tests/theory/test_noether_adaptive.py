"""Charges under adaptive optimizers: preconditioned steps, sign descent, and what survives."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from theory.noether import (
    Part,
    SymmetryFamily,
    bilinear,
    charge,
    preconditioned_charge_rate,
    sign_descent_charge,
    softmax_bias_drift,
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 3))


def softmax(p):
    return -jnp.mean(jax.nn.log_softmax(X @ p["w"])[:, 0])


def relu(p):
    return jnp.mean((jax.nn.relu(X @ p["in"]) @ p["out"] - 1) ** 2)


def attention(p):
    return jnp.mean((jax.nn.softmax(X @ p["q"] @ p["k"].T @ X.T) @ X - 1) ** 2)


def draw(**shapes):
    return {name: jnp.asarray(RNG.normal(size=shape)) for name, shape in shapes.items()}


CASES = {
    "translation": (SymmetryFamily("translation", (Part("w", (0,)),)), softmax, draw(w=(3, 4), other=2)),
    "rescale": (
        SymmetryFamily("rescale", (Part("in", (1,)), Part("out", (0,), -1.0))),
        relu,
        draw(**{"in": (3, 4), "out": (4, 1)}),
    ),
    "matrix": (
        SymmetryFamily("matrix", (Part("q", inner=1), Part("k", (), -1.0, inner=1))),
        attention,
        draw(q=(3, 2), k=(3, 2)),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_preconditioned_step_moves_the_charge_at_first_order(name):
    family, loss, params = CASES[name]
    rng, eta = np.random.default_rng(1), 0.05
    g = jax.jit(jax.grad(loss))(params)
    D = jax.tree.map(lambda x: rng.uniform(0.2, 3.0, x.shape), params)
    step = jax.tree.map(lambda d, x: -eta * d * x, D, g)
    change = charge(family, jax.tree.map(jnp.add, params, step)) - charge(family, params)
    finite = bilinear(family, step, step) if family.kind != "translation" else 0.0
    moved = jax.jit(lambda p, g, D, eta: preconditioned_charge_rate(family, p, g, D, eta))
    rate = moved(params, g, D, eta)
    np.testing.assert_allclose(rate, change - finite, rtol=1e-12, atol=1e-13)
    assert np.max(np.abs(rate)) > 1e-3
    small = moved(params, g, D, eta / 1000)
    np.testing.assert_allclose(small, rate / 1000, rtol=1e-12)
    shared = moved(params, g, jax.tree.map(lambda x: np.full(x.shape, 3.7), params), eta)
    np.testing.assert_allclose(shared, 0, atol=1e-16)
    single = [jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree) for tree in (params, g, D)]
    rounded = moved(*single, eta)
    assert rounded.dtype == jnp.float32
    np.testing.assert_allclose(rounded, rate, rtol=1e-4, atol=1e-6)


def test_a_chain_keeps_differences_of_sizes_under_sign_descent():
    w = np.array([0.9, -1.3, 0.5, 2.0])
    start = sign_descent_charge(w)
    np.testing.assert_allclose(start, [-0.4, 0.8, -1.5], rtol=1e-14)
    squares = w[0] ** 2 - w[1] ** 2
    for _ in range(30):
        g = (np.prod(w) - 3.0) * np.prod(w) / w
        w = w - 0.01 * np.sign(g)
        np.testing.assert_allclose(sign_descent_charge(w), start, rtol=1e-13)
    assert abs(w[0] ** 2 - w[1] ** 2 - squares) > 0.1
    assert sign_descent_charge(np.ones((5, 3))).shape == (5, 2)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_softmax_biases_drift_under_sign_descent_and_not_with_two_classes(classes):
    slope = jax.jit(jax.grad(lambda b, y: -jax.nn.log_softmax(b)[y]))
    b, eta = jnp.asarray(np.random.default_rng(2).normal(size=classes)), 0.01
    for y in (0, 1, 1):
        after = b - eta * jnp.sign(slope(b, y))
        np.testing.assert_allclose(
            jnp.sum(after) - jnp.sum(b), softmax_bias_drift(classes, eta), rtol=1e-12, atol=1e-15
        )
        b = after
    tx = optax.adam(0.1)
    memory, before = tx.init(b), float(jnp.sum(b))
    for y in (0, 1, 1, 0, 1):
        with jax.numpy_dtype_promotion("standard"):
            step, memory = tx.update(slope(b, y), memory, b)
        b = b + step
    assert (abs(float(jnp.sum(b)) - before) < 1e-12) == (classes == 2)


def refuses(call, words):
    with pytest.raises(ValueError, match="^" + re.escape(words) + "$"):
        call()


def test_bad_arguments_are_named():
    family, _, params = CASES["rescale"]
    words = "`eta` must be positive, but got 0."
    refuses(lambda: preconditioned_charge_rate(family, params, params, params, 0.0), words)
    rotation = SymmetryFamily("rotation", (Part("in", inner=0),))
    words = "`family` must have a symmetric generator, but got kind rotation."
    refuses(lambda: preconditioned_charge_rate(rotation, params, params, params, 0.1), words)
    refuses(lambda: sign_descent_charge(1.0), "`w` must have shape (..., depth), but got ().")
    refuses(lambda: sign_descent_charge([1.0, np.nan]), "`w` must be finite, but got nan.")
    refuses(lambda: softmax_bias_drift(1, 0.1), "`classes` must be a whole number not below 2, but got 1.")
    refuses(lambda: softmax_bias_drift(3, 0.0), "`eta` must be positive, but got 0.")
