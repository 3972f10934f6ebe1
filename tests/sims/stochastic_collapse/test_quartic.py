"""The quartic double well: steps against the equation in theta, runs and passages against plain loops."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sims.engine.experiment import configure
from sims.stochastic_collapse.quartic_steps import (
    descent,
    euler,
    euler_of_logarithm,
    exact,
    splitting,
    trajectory,
    wiener,
)
from theory.stochastic_collapse import quartic_moment

quartic, quartic_path, passage = (
    importlib.import_module(f"sims.stochastic_collapse.{name}") for name in ("quartic", "quartic_path", "passage")
)
KEY = jax.random.key(3)
SETTINGS = {"dt": 0.01, "eps": 0.3, "start": 2.0, "most": 100_000}
CELL = {"mu": jnp.array(1.5), "zeta": jnp.array(1.8)}


def settings(**changes):
    return {k: jnp.asarray(v, jnp.int32 if isinstance(v, int) else float) for k, v in {**SETTINGS, **changes}.items()}


def test_steps_are_those_of_theta():
    theta, dW = np.array([2.0, 0.3, -1.0]), np.array([0.1, -0.02, -2.0])
    after = theta + (1.5 * theta - theta**3) * 0.01 + 0.9 * theta * dW
    np.testing.assert_allclose(euler(jnp.log(jnp.abs(theta)), 1.5, 0.9, 0.01, dW), np.log(np.abs(after)), rtol=1e-12)
    assert after[2] > 0 > theta[2]  # a step across 0 is a step of the distance all the same

    # d theta / dt = -theta^3, and geometric Brownian motion.
    np.testing.assert_allclose(np.exp(-2 * descent(np.log(0.7), 0.3)), 0.7**-2 + 0.6, rtol=1e-14)
    linear = splitting(jnp.array(-60.0), 1.5, 0.9, 0.01, 0.2)
    np.testing.assert_allclose(linear, -60 + (1.5 - 0.405) * 0.01 + 0.18, rtol=1e-14)


@pytest.mark.thorough
def test_integrators_meet_the_closed_form_on_a_fine_path():
    x = jnp.log(jnp.array([0.2, 1.0, 2.0]))
    dW, W = wiener(KEY, jnp.array(2.0**-12), 4096, 3)
    np.testing.assert_allclose(jnp.diff(W, axis=1), dW, atol=1e-12)
    times = jnp.arange(4097) / 4096
    closed = exact(x, 1.5, 0.8, times, W)
    for step, most in ((euler, 0.02), (euler_of_logarithm, 2e-3), (splitting, 2e-3)):
        path = trajectory(step, x, 1.5, 0.8, 2.0**-12, dW)
        assert jnp.max(jnp.abs(path - closed)) < most
        np.testing.assert_array_equal(path[:, 0], x)
    # Without Ito's drift it is another path.
    assert jnp.max(jnp.abs(exact(x, 1.5 + 0.32, 0.8, times, W) - closed)) > 0.1


def test_a_run_is_a_plain_loop():
    sizes = quartic.Sizes(paths=6, quarter=5, linear=4, samples=2, moments=4)
    s = settings()
    share, first, second = quartic.run(KEY, CELL, s, sizes)
    k_start, k_noise = jax.random.split(KEY)
    theta = 2.0 * np.asarray(jax.random.normal(k_start, (6,)))
    shares, firsts, seconds = [], [], []
    for k in range(20):
        xi = np.asarray(jax.random.normal(jax.random.fold_in(k_noise, k), (6,)))
        # 1.5 < 1.8^2 / 2: the law collapses, and nothing is subtracted.
        firsts.append(np.abs(theta).mean())
        seconds.append((theta**2).mean())
        theta = theta + (1.5 * theta - theta**3) * 0.01 + 1.8 * theta * 0.1 * xi
        if k % 5 == 4:
            shares.append((np.abs(theta) < 0.3).mean())
    np.testing.assert_allclose(share, shares)
    np.testing.assert_allclose(first, np.mean(firsts[10:]), rtol=1e-10)
    np.testing.assert_allclose(second, np.mean(seconds[10:]), rtol=1e-10)

    grown = quartic.growth(KEY, CELL, s, sizes)
    factors = [
        np.log(np.abs(1 + 0.015 + 0.18 * np.asarray(jax.random.normal(jax.random.fold_in(KEY, k), (6,)))))
        for k in range(4)
    ]
    np.testing.assert_allclose(grown, np.mean(factors) / 0.01, rtol=1e-10)


@pytest.mark.thorough
def test_sample_paths_come_with_the_closed_form_of_the_same_noise():
    sizes = quartic.Sizes(paths=2, quarter=1000, linear=1, samples=3, moments=8)
    path, closed = quartic.sample_paths(KEY, CELL, settings(dt=0.0005), sizes)
    assert path.shape == closed.shape == (3, 9)
    np.testing.assert_array_equal(path[:, 0], closed[:, 0])
    assert 0 < jnp.max(jnp.abs(path - closed)) < 0.5
    assert jnp.max(jnp.abs(path - closed[::-1])) > 1


def test_what_is_subtracted_from_moments_has_mean_zero():
    xi, weight = np.polynomial.hermite_e.hermegauss(20)
    for mu, zeta in ((1.5, 0.9), (1.0, 2.0)):
        known = quartic.by_noise(jnp.full(20, 0.7), jnp.array(xi), mu, zeta, 0.01)
        np.testing.assert_allclose(weight @ np.stack(known, 1), 0, atol=1e-12)
        assert np.any(known[1]) == (zeta**2 < 2 * mu)


@pytest.mark.thorough
def test_what_is_subtracted_has_mean_zero_and_takes_the_noise():
    """Two seeds of a live well: the controlled second moment is the plain one's mean, with less spread."""
    cell, sizes = {"mu": jnp.array(1.0), "zeta": jnp.array(0.8)}, quartic.Sizes(64, 2000, 1, 1, 4)
    keys = jax.random.split(jax.random.key(7), 40)
    _, first, second = jax.vmap(lambda k: quartic.run(k, cell, settings(start=1.0, dt=0.005), sizes))(keys)
    spread = np.std(second, ddof=1)
    assert abs(np.mean(second) - quartic_moment(2.0, 1.0, 0.8)) < 5 * spread / 40**0.5 + 0.01
    assert abs(np.mean(first) - quartic_moment(1.0, 1.0, 0.8)) < 5 * np.std(first) / 40**0.5 + 0.01
    # A mean over 10 times has a spread of about a tenth of the law's own, sqrt(zeta^2 / 2), without it.
    assert np.std(first) < 0.02
    assert spread < 0.02


def test_a_passage_is_a_plain_loop():
    s, cell = settings(start=1.0), {"mu": jnp.array(1.0), "zeta": jnp.array(1.8)}
    out = jax.jit(passage.one, static_argnums=3)(KEY, cell, s, (5,))
    x = np.full(5, -np.log1p(0.01) / 2)
    count, known, k = np.zeros(5), np.zeros(5), 0
    while (x > np.log(0.3)).any():
        dW = 0.1 * np.asarray(jax.random.normal(jax.random.fold_in(KEY, k), (5,)))
        on = x > np.log(0.3)
        known += np.where(on, 1.8 / (1.0 - 1.62 - 2 * np.exp(2 * x)) * dW, 0)
        x = np.where(on, np.asarray(splitting(x, 1.0, 1.8, 0.01, dW)), x)
        count, k = count + on, k + 1
    np.testing.assert_allclose(out["passage"], 0.01 * count.mean(), rtol=1e-12)
    np.testing.assert_allclose(out["passage_corrected"], (0.01 * count + known).mean(), rtol=1e-9)
    assert out["status"] == 0
    given_up = passage.one(KEY, cell, settings(start=1.0, eps=1e-6, most=3), (5,))
    assert given_up["status"] == 1
    # Next to criticality nothing is subtracted, nor in a live well.
    for zeta in (2**0.5, 1.2):
        out = passage.one(KEY, {**cell, "zeta": jnp.array(zeta)}, settings(start=1.0, eps=0.8), (5,))
        assert out["passage"] == out["passage_corrected"]


@pytest.mark.thorough
def test_the_control_of_a_passage_has_mean_zero():
    cell = {"mu": jnp.array(1.0), "zeta": jnp.array(2.2)}
    keys = jax.random.split(jax.random.key(11), 40)
    out = jax.vmap(lambda k: passage.one(k, cell, settings(start=1.0, eps=0.01), (200,)))(keys)
    gap = np.asarray(out["passage_corrected"] - out["passage"])
    assert abs(gap.mean()) < 5 * gap.std(ddof=1) / 40**0.5
    assert np.std(out["passage_corrected"]) < 0.6 * np.std(out["passage"])


@pytest.mark.parametrize(
    ("experiment", "wish", "sentence"),
    [
        (quartic.quartic, {"zeta": [0.0]}, "`zeta` must be positive, but got 0."),
        (quartic.quartic, {"eps": 0.0}, "`eps` must be positive, but got 0."),
        (
            quartic_path.quartic_path,
            {"dt": 0.1, "resolution": 1024},
            "`resolution` must be a whole number of points in a step of 0.1, but got 1024.",
        ),
        (passage.passage, {"eps": 2.0}, "`eps` must be below `start`, but got 2."),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_sentence(experiment, wish, sentence):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        configure(experiment, "smoke", wish)
    assert str(error.value) == sentence
