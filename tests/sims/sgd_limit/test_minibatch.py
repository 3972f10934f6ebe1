"""SGD on real samples: gradients, ways of drawing batches and what is measured, against plain loops."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sims.engine.experiment import configure
from sims.sgd_limit import finite_data, network, regression, streaming
from theory.sgd_limit import minibatch_moments

samples = importlib.import_module("sims.sgd_limit.finite_data")
fresh = importlib.import_module("sims.sgd_limit.streaming")
unstable = importlib.import_module("sims.sgd_limit.streaming_stability")
large = importlib.import_module("sims.sgd_limit.regression")
digits = importlib.import_module("sims.sgd_limit.network")
KEY = jax.random.key(2)


def numbers(**values):
    return {name: jnp.array(v, float) for name, v in values.items()}


@pytest.mark.thorough
def test_streaming_averages_the_squares_of_a_plain_loop():
    sizes = fresh.Sizes(d=3, batch=2, paths=2, burn_in=4, steps=5)
    cell, settings = numbers(effective_rate=0.4, beta=0.5, sigma=0.7), numbers(alpha=1.0)
    out = jax.jit(fresh.one, static_argnums=3)(KEY, cell, settings, sizes)
    k_optimum, k_samples = jax.random.split(KEY)
    rho, optimum = 1 / np.arange(1.0, 4), np.asarray(jax.random.normal(k_optimum, (3,)))
    theta, w, squares = np.tile(optimum, (2, 1)), np.zeros((2, 3)), []
    for k in range(9):
        k_u, k_noise = jax.random.split(jax.random.fold_in(k_samples, k))
        u = np.asarray(jax.random.normal(k_u, (2, 2, 3))) * np.sqrt(rho)
        y = u @ optimum + 0.7 * np.asarray(jax.random.normal(k_noise, (2, 2)))
        gradient = np.einsum("ps,psd->pd", np.einsum("psd,pd->ps", u, theta) - y, u) / 2
        w = 0.5 * w - 0.2 * gradient
        theta = theta + w
        squares.append(((theta - optimum) ** 2).mean(0))
    variance = np.mean(squares[4:], 0)
    np.testing.assert_allclose(out["variance"], variance, rtol=1e-12)
    np.testing.assert_allclose(out["excess_risk"], rho @ variance / 2, rtol=1e-12)


@pytest.mark.thorough
def test_the_moving_unit_of_the_risk_changes_nothing():
    sizes = unstable.Sizes(d=3, batch=2, paths=2, steps=6)
    out = jax.jit(unstable.one, static_argnums=3)(KEY, numbers(beta=0.5, eta=2.0), numbers(alpha=1.0), sizes)
    k_start, k_samples = jax.random.split(KEY)
    rho, x, w = 1 / np.arange(1.0, 4), np.asarray(jax.random.normal(k_start, (2, 3))), np.zeros((2, 3))
    risk = []
    for k in range(6):
        u = np.asarray(jax.random.normal(jax.random.fold_in(k_samples, k), (2, 2, 3))) * np.sqrt(rho)
        w = 0.5 * w - 2.0 * np.einsum("ps,psd->pd", np.einsum("psd,pd->ps", u, x), u) / 2
        x = x + w
        risk.append((rho * x**2).sum(1).mean())
    np.testing.assert_allclose(out["growth"], np.log(risk[-1] / risk[2]) / 3, rtol=1e-10)


def test_batches_of_the_three_kinds():
    sizes = samples.Sizes(samples=12, d=2, batch=4, paths=3, steps=6)

    def drawn(indices):
        return np.asarray(jax.jit(lambda: jax.lax.map(lambda k: indices(KEY, k, sizes), jnp.arange(6)))())

    epochs = drawn(samples.of_epochs)
    for epoch in (epochs[:3], epochs[3:]):
        for path in range(3):
            assert sorted(epoch[:, path].ravel()) == list(range(12))
    assert not np.array_equal(epochs[:3], epochs[3:])
    without = drawn(samples.independent(False))
    assert all(len(set(batch)) == 4 for batch in without.reshape(-1, 4))
    assert not np.array_equal(without[0, 0], without[0, 1])
    assert set(drawn(samples.independent(True)).ravel()) <= set(range(12))


@pytest.mark.thorough
def test_second_moments_and_frozen_noise_against_the_exact_ones_without_noise():
    sizes = samples.Sizes(samples=6, d=2, batch=6, paths=2, steps=5)
    X, y = data = samples.draw(KEY, 6, 2)
    law = minibatch_moments(X, y, 0.3, 0.6, 6, 5, 0.1, None, False)
    found = samples.second_moments(KEY, data, law.optimum, 0.3, 0.6, 0.1, (samples.independent(False),), sizes)[0]
    np.testing.assert_allclose(found, law.second[1:], rtol=1e-11)
    frozen = samples.frozen(jnp.zeros((2, 2)), law.second[0], X.T @ X / 6, 0.3, 0.6, 0.1, 5)
    np.testing.assert_allclose(frozen, law.second[1:], rtol=1e-11)
    assert samples.entries(found, jnp.ones((5, 4))).shape == (5, 10)


@pytest.mark.thorough
def test_regression_starts_at_the_optimum_and_averages_over_origins():
    sizes = large.Sizes(samples=30, d=3, batch=5, paths=2, burn_in=0, steps=7, octaves=1)
    X, y = large.draw(KEY, jnp.array(1.0), sizes)
    optimum = jnp.linalg.solve(X.T @ X, X.T @ y)
    path = np.asarray(large.trajectory(KEY, X, y, optimum, 0.2, 0.5, sizes))
    theta, w = np.tile(optimum, (2, 1)), np.zeros((2, 3))
    for k in range(7):
        for p, key in enumerate(jax.random.split(jax.random.fold_in(KEY, k), 2)):
            rows = np.asarray(large.minibatch(key, 30, 5))
            x, t = np.asarray(X)[rows], np.asarray(y)[rows]
            w[p] = 0.5 * w[p] - 0.2 * x.T @ (x @ theta[p] - t) / 5
        theta = theta + w
        np.testing.assert_allclose(path[k], theta - np.asarray(optimum), atol=1e-13)
    found = large.over_origins(lambda a, b: jnp.mean((a - b) ** 2), jnp.asarray(path), [1, 3], 4)
    np.testing.assert_allclose(found, [np.mean((path[:3] - path[k : k + 3]) ** 2) for k in (1, 3)], rtol=1e-12)


def test_frequency_is_that_of_a_slowly_decaying_cosine():
    k = np.arange(large.ACF)
    for angle in (0.31, 0.7, 2.0):
        np.testing.assert_allclose(large.frequency(jnp.cos(angle * k) * jnp.exp(-0.05 * k)), angle, atol=2e-3)


@pytest.mark.thorough
def test_a_batch_of_the_network_and_its_noise():
    sizes = digits.Sizes(samples=15, hidden=3, training=1000, burn_in=0, steps=1, largest_batch=8, paths=1)
    net, X, labels = digits.draw(KEY, sizes)
    weights = jnp.where(jnp.arange(8) < 3, 1 / 3, 0.0)
    of_three = digits.objective(net, X[:3], labels[:3], jnp.full(3, 1 / 3), 0.1)
    np.testing.assert_allclose(digits.objective(net, X[:8], labels[:8], weights, 0.1), of_three, rtol=1e-12)

    net = jax.jit(digits.converged, static_argnums=4)(net, X, labels, 0.05, sizes.training)
    gradient = jax.grad(digits.objective)(net, X, labels, jnp.full(15, 1 / 15), 0.05)
    trace = digits.noise(net, X, labels)
    assert digits.square(gradient) < 1e-9 * trace
    of_one = jax.jit(jax.grad(lambda net, x, label: digits.losses(net, x[None], label[None])[0]))
    each = [jnp.concatenate([g.ravel() for g in of_one(net, *sample)]) for sample in zip(X, labels, strict=True)]
    np.testing.assert_allclose(trace, np.var(np.array(each), 0).sum(), rtol=1e-10)


@pytest.mark.parametrize(
    ("experiment", "wish", "sentence"),
    [
        (streaming, {"effective_rate": [0.0]}, "`effective_rate` must be positive, but got 0."),
        (finite_data, {"batch": [3]}, "`batch` must divide samples = 10, but got 3."),
        (regression, {"steps": 100}, "`steps` must be a whole number, 129 or more, but got 100."),
        (network, {"batch": [32]}, "`batch` must be at most largest_batch = 16, but got 32."),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_sentence(experiment, wish, sentence):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        configure(experiment, "smoke", wish)
    assert str(error.value) == sentence
