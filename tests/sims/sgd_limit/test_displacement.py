"""Displacements: the chain of modes is that of a rotated loss, and impulses carry the average over the noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sims.engine.experiment import configure
from sims.sgd_limit import anomalous, displacement
from sims.sgd_limit.anomalous import mean_displacement
from sims.sgd_limit.displacement import Sizes, lags, one, stationary
from sims.sgd_limit.heavy_ball import heavy_ball, power_law
from theory.sgd_limit import global_displacement, phase_space_covariance

CELL = {name: jnp.array(v) for name, v in {"alpha": 1.5, "beta": 0.8, "eta": 0.5, "batch": 4.0}.items()}
CELL["weight_decay"] = jnp.array(0.1)


def test_modes_are_the_eigenbasis_of_any_quadratic_loss():
    rng = np.random.default_rng(0)
    H = np.diag(np.asarray(power_law(4, 1.5)))
    Q = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    x = theta = rng.normal(size=4)
    theta, w, v = Q @ theta, np.zeros(4), np.zeros(4)
    for noise in rng.normal(size=(30, 4)):
        x, w = heavy_ball(x, w, H @ x + noise, 0.5, 0.8)
        gradient = jax.grad(lambda t: t @ jnp.asarray(Q @ H @ Q.T) @ t / 2)(theta)
        v = 0.8 * v + gradient + Q @ noise
        theta = theta - 0.5 * v
    np.testing.assert_allclose(Q @ x, theta, rtol=1e-12)


@pytest.mark.thorough
def test_the_start_has_the_stationary_law():
    spectrum = power_law(3, 1.5)
    x, w = stationary(jax.random.key(0), spectrum, CELL, 200_000)
    law = phase_space_covariance(spectrum, CELL["eta"], CELL["beta"], CELL["batch"], CELL["weight_decay"])
    for found, exact in ((x * x, law.position), (x * w, law.cross), (w * w, law.motion)):
        error = jnp.std(found, 0) / len(x) ** 0.5
        assert jnp.max(jnp.abs(jnp.mean(found, 0) - exact) / error) < 5


@pytest.mark.thorough
def test_outputs_are_sums_over_the_path_of_the_chain():
    sizes, settings = Sizes(d=3, paths=2, octaves=3), {"start": jnp.array(0.3)}
    key = jax.random.key(3)
    out = jax.jit(one, static_argnums=3)(key, CELL, settings, sizes)
    k_start, k_noise = jax.random.split(key)
    rho = np.asarray(power_law(3, 1.5))
    chains = [[np.asarray(a) for a in stationary(k_start, power_law(3, 1.5), CELL, 2)]]
    chains.append([np.full((2, 3), 0.3), np.zeros((2, 3))])
    starts, squares, moved = [c[0] for c in chains], [], []
    for k in range(8):
        noise = np.sqrt(rho / 4) * np.asarray(jax.random.normal(jax.random.fold_in(k_noise, k), (2, 3)))
        for chain in chains:
            chain[1] = 0.8 * chain[1] - 0.5 * ((rho + 0.1) * chain[0] + noise)
            chain[0] = chain[0] + chain[1]
        squares.append((chains[0][1] ** 2).sum(1).mean())
        moved.append([((c[0] - s) ** 2).sum(1).mean() for c, s in zip(chains, starts, strict=True)])
    at = lags(3).astype(int) - 1
    np.testing.assert_allclose(out["local"], np.mean(squares), rtol=1e-12)
    np.testing.assert_allclose(out["displacement"], np.array(moved)[at, 0], rtol=1e-12)
    np.testing.assert_allclose(out["from_start"], np.array(moved)[at, 1], rtol=1e-12)
    np.testing.assert_allclose(out["spread"], 2 * (chains[0][0] ** 2).sum(1).mean(), rtol=1e-12)
    np.testing.assert_allclose(out["exponent"], np.diff(np.log(np.array(moved)[at, 0])) / np.log(2), rtol=1e-12)


@pytest.mark.thorough
def test_impulses_carry_the_average_over_the_noise():
    spectrum = power_law(5, 1.5)
    for beta, lag in ((0.0, 1), (0.5, 7), (0.9, 40)):
        found = jax.jit(mean_displacement)(spectrum, 0.8, beta, 4.0, jnp.int32(lag))
        exact = global_displacement(lag, spectrum, 0.8, beta, 4, start=np.zeros(5))
        np.testing.assert_allclose(found, exact, rtol=1e-12)


@pytest.mark.parametrize(
    ("experiment", "wish", "sentence"),
    [
        (displacement, {"alpha": [1.0]}, "`alpha` must be above 1, but got 1."),
        (displacement, {"beta": [1.0]}, "`beta` must be from 0 to below 1, but got 1."),
        (displacement, {"batch": [1.5]}, "`batch` must be a whole number, 1 or more, but got 1.5."),
        (anomalous, {"lag": 0}, "`lag` must be a whole number, 1 or more, but got 0."),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_sentence(experiment, wish, sentence):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        configure(experiment, "smoke", wish)
    assert str(error.value) == sentence
