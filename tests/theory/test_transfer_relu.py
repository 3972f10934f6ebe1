"""The floor of probes on ReLU features."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.test_util import check_grads

from theory.transfer import relu_floor, relu_kernel, relu_linear_transfer_risk

floor_of = jax.jit(relu_floor)


def networks(seed=0, m=8, p=3, d=5):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(p, d)), rng.normal(size=p), rng.normal(size=(m, d))


def test_the_floor_is_what_least_squares_leaves():
    a, c, w = networks()
    x = np.random.default_rng(1).normal(size=(200_000, 5))
    target, features = np.maximum(x @ a.T, 0) @ c, np.maximum(x @ w.T, 0)
    head, *_ = np.linalg.lstsq(features, target, rcond=None)
    left = np.mean((target - features @ head) ** 2)
    floor = floor_of(a, c, w)
    np.testing.assert_allclose(floor, left, rtol=0.03)
    assert abs(c @ relu_kernel(jnp.asarray(a), jnp.asarray(a)) @ c / left - 1) > 0.1
    assert abs(floor_of(a, c * np.array([1, 1, -1]), w) / left - 1) > 0.1


def test_invariances_of_the_floor():
    a, c, w = networks()
    floor = floor_of(a, c, w)
    rescaled = np.vstack([3 * w[:4], 0.1 * w[4:], w[:1], 0 * w[:1]])
    np.testing.assert_allclose(floor_of(a, c, rescaled), floor, rtol=1e-8)
    np.testing.assert_allclose(floor_of(a, 2 * c, w), 4 * floor, rtol=1e-10)
    assert floor_of(a, c, np.vstack([w, a])) < 1e-12
    assert floor_of(a, c, np.vstack([w, a[:1]])) < floor


def test_gradient_of_the_floor():
    a, c, w = map(jnp.asarray, networks(m=4))
    check_grads(jax.jit(relu_floor), (a, c, w), order=1, modes=["rev"], atol=1e-5, rtol=1e-5)


def test_finite_samples_are_near_the_gaussian_formula():
    a, c, w = networks(m=10, d=8)
    n, m, rng = 100, 10, np.random.default_rng(2)
    fresh = rng.normal(size=(20_000, 8))
    truth, features = np.maximum(fresh @ a.T, 0) @ c, np.maximum(fresh @ w.T, 0)
    risks = []
    for _ in range(400):
        x = rng.normal(size=(n, 8))
        hidden = np.maximum(x @ w.T, 0)
        head, *_ = np.linalg.lstsq(hidden, np.maximum(x @ a.T, 0) @ c, rcond=None)
        risks.append(np.mean((truth - features @ head) ** 2))
    floor = np.mean((truth - features @ np.linalg.lstsq(features, truth, rcond=None)[0]) ** 2)
    np.testing.assert_allclose(np.mean(risks), relu_linear_transfer_risk(floor, n, m), rtol=0.05)
    assert abs(np.mean(risks) / floor - 1) > 0.05
    assert np.isposinf(relu_linear_transfer_risk(floor, np.array([5, 11]), m)).all()
    np.testing.assert_allclose(relu_linear_transfer_risk(floor, 1e9, m), floor, rtol=1e-7)
