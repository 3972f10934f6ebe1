"""SGD around a minimum in general position: the loop, the noise and the measured moments against NumPy."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sims.engine.experiment import configure
from sims.sgd_limit.ensemble import Sizes, early_steps, moments, one, problem, start_of, units

phases = importlib.import_module("sims.sgd_limit.phase_space")
KEY = jax.random.key(5)
SIZES = Sizes(d=2, paths=3, early=6, burn_in=4, steps=8)
CELL = {"beta": 0.7, "weight_decay": 0.1, "eta": 0.3, "alpha": 1.2}


@pytest.fixture(scope="module")
def run():
    """Positions and steps of every path in the eigenbasis, by a loop, and what the simulation returns."""
    cell = {name: jnp.array(value) for name, value in CELL.items()}
    settings = {"batch": jnp.int32(4)}
    out = jax.jit(one, static_argnums=3)(KEY, cell, settings, SIZES)
    k_problem, k_noise = jax.random.split(KEY)
    R, spectrum, optimum = (np.array(x) for x in problem(k_problem, cell, SIZES))
    H = R @ np.diag(spectrum) @ R.T
    minimum = np.linalg.solve(H + 0.1 * np.eye(2), H @ optimum)
    theta = np.tile(minimum + R @ np.array(start_of(cell, settings, SIZES)), (3, 1))
    w, path = np.zeros_like(theta), []
    for k in range(18):
        xi = np.array(jax.random.normal(jax.random.fold_in(k_noise, k), (3, 2)))
        gradient = (theta - optimum) @ H + 0.1 * theta + xi @ (R * np.sqrt(spectrum)).T / 2
        w = 0.7 * w - 0.3 * gradient
        theta = theta + w
        path.append(((theta - minimum) @ R, w @ R))
    x, w = (np.array(v) for v in zip(*path, strict=True))
    return out, x, w, units(cell, settings)


@pytest.mark.thorough
def test_stationary_moments_are_those_of_the_loop(run):
    out, x, w, unit = run
    x, w = x[10:], w[10:]
    step2 = 0.3**2 * unit.motion
    np.testing.assert_allclose(out["position"], np.einsum("kpi,kpj->ij", x, x) / 24 / unit.position, rtol=1e-10)
    np.testing.assert_allclose(out["velocity"], np.einsum("kpi,kpj->ij", w, w) / 24 / step2, rtol=1e-10)
    turned = x[:-1] * w[1:] - x[1:] * w[:-1]
    np.testing.assert_allclose(out["circulation"], turned.mean((0, 1)) / step2, rtol=1e-10)
    middle = (x[1:] ** 2 - x[:-1] ** 2).mean((0, 1)) / 2 / np.sqrt(unit.position * step2)
    np.testing.assert_allclose(out["midpoint"], middle, rtol=1e-9)
    for lag in range(6):
        kept = (x[:3] * x[lag : lag + 3]).mean((0, 1)) / unit.position
        np.testing.assert_allclose(out["memory"][lag], kept, rtol=1e-10)
    np.testing.assert_allclose(out["cloud"][:, 0], x[:, 0] / np.sqrt(unit.position), rtol=1e-10)


@pytest.mark.thorough
def test_the_way_from_the_start_is_that_of_the_loop(run):
    out, x, w, unit = run
    sizes = np.sqrt([unit.position, 0.3**2 * unit.motion])
    at = early_steps(6) - 1
    z = np.stack([x[at], w[at]], 1) / sizes[None, :, None, None]
    np.testing.assert_allclose(out["mean"], z.mean(2), rtol=1e-10)
    for k in range(len(at)):
        for mode in range(2):
            np.testing.assert_allclose(out["spread"][k, :, :, mode], np.cov(z[k, :, :, mode]), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(out["run"][:, 0], x[:6, 0] / sizes[0], rtol=1e-10)
    np.testing.assert_allclose(out["run"][:, 1], w[:6, 0] / sizes[1], rtol=1e-10)


def test_moments_of_paths_are_unbiased():
    x, w = np.random.default_rng(0).normal(size=(2, 4, 5, 3))
    mean, spread = moments(jnp.array(x), jnp.array(w))
    np.testing.assert_allclose(mean[:, 1], w.mean(1))
    np.testing.assert_allclose(spread[2, :, :, 0], np.cov(x[2, :, 0], w[2, :, 0]))


@pytest.mark.thorough
def test_theory_and_twins_have_the_shape_of_the_outputs():
    job = configure(phases.phase_space, "smoke")
    count, sizes = 2, phases.phase_space.sizes(job.settings)
    cells = {name: jnp.full(count, value) for name, value in CELL.items()}
    settings = {name: jnp.asarray(value) for name, value in job.settings.items()}
    exact = jax.jit(phases.predict, static_argnums=2)(cells, settings, sizes)
    drawn = jax.eval_shape(lambda: phases.phase_space.simulate(KEY, cells, settings, sizes))
    assert {name: value.shape for name, value in exact.items()} == {name: value.shape for name, value in drawn.items()}
    for claim in phases.phase_space.claims:
        for twin in claim.twins.values():
            wrong = np.asarray(jax.jit(twin, static_argnums=2)(cells, settings, sizes))
            assert wrong.shape == exact[claim.output].shape
            assert np.abs(wrong - exact[claim.output]).max() > 0.01


def test_what_cannot_be_run_is_refused_in_one_sentence():
    for wish, sentence in (
        ({"d": 1}, "`d` must be a whole number, 2 or more, but got 1."),
        ({"weight_decay": [-0.1]}, "`weight_decay` must be non-negative, but got -0.1."),
        ({"early": 50}, "`steps` must be at least `early`, 50, but got 40."),
    ):
        with pytest.raises(ValueError) as error:  # noqa: PT011
            configure(phases.phase_space, "smoke", wish)
        assert str(error.value) == sentence
