"""Training in time: the population losses against minibatches, descent against its definition, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sims.engine.experiment import configure
from sims.ssl_collapse import dynamics as dynamics_experiment
from sims.ssl_collapse import losses
from sims.ssl_collapse import minibatch_dynamics as minibatch_experiment
from sims.ssl_collapse import plateau as plateau_experiment
from sims.ssl_collapse import riccati as riccati_experiment
from sims.ssl_collapse.dynamics import TIMES
from sims.ssl_collapse.plateau import at_minimum, modes
from sims.ssl_collapse.population import (
    descent_path,
    first_crossings,
    orthogonal,
    spectral,
    squares,
    steps_at,
    with_spectrum,
)
from sims.ssl_collapse.training import gaussian_views

KEY = jax.random.key(1)


def test_first_crossings_and_paths_of_a_known_growth():
    """W <- 1.1 W: an exponential, which is straight in the logarithm."""
    W, V = 0.1 * jnp.eye(2), jnp.eye(2)

    def step(W, _):
        return 1.1 * W

    found = first_crossings(step, lambda W: squares(W, V), W, 60, jnp.array([0.5, 1e9]), 0.25)
    np.testing.assert_allclose(found, [0.25 * np.log(50) / np.log(1.21), np.inf], rtol=1e-12)
    path = descent_path(step, W, jnp.array([0, 3, 7], jnp.int32), lambda W: squares(W, V))
    np.testing.assert_allclose(path[:, 0], 0.01 * 1.21 ** np.array([0, 3, 7]), rtol=1e-12)
    assert steps_at([0.04, 1.0], jnp.array(0.02)).tolist() == [2, 50]


@pytest.mark.thorough
def test_the_spectral_loss_is_the_mean_of_its_minibatches():
    keys = jax.random.split(KEY, 3)
    V, a, c = orthogonal(keys[0], 3, 3), jnp.array([1.0, 0.7, 0.4]), jnp.array([0.3, 0.5, 0.1])
    np.testing.assert_allclose(V.T @ V, np.eye(3), atol=1e-14)
    A0, C = with_spectrum(V, a), with_spectrum(V, c)
    W = 0.5 * jax.random.normal(keys[1], (2, 3))

    def minibatch(W, key):
        first, second = gaussian_views(key, 32, *(V * jnp.sqrt(x)[None, :] for x in (a, c)))
        return losses.spectral(first @ W.T, second @ W.T)

    slopes = jax.jit(jax.vmap(jax.grad(minibatch), (None, 0)))(W, jax.random.split(keys[2], 20_000))
    error = slopes.std(0) / len(slopes) ** 0.5
    exact = jax.grad(spectral)(W, A0, A0 + C, 0.0)
    assert (jnp.abs(slopes.mean(0) - exact) < 4.5 * error).all()
    assert (error < 0.05 * jnp.abs(exact).max()).all()


@pytest.mark.thorough
def test_descent_in_full_matrices_is_that_of_its_modes():
    """Aligned weights stay aligned: every column obeys the scalar recursion, whatever the bases."""
    settings = {"rate": jnp.array(0.02), "start": jnp.array(1e-3)}
    out = jax.jit(dynamics_experiment.simulate, static_argnums=3)(
        KEY, {"weight_decay": jnp.array([0.3, 0.75])}, settings, 1200
    )
    a = np.array([1.2, 1.0, 0.8, 0.6, 0.45, 0.3])
    sigma = a / np.array([0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    counts = np.asarray(steps_at(TIMES, 0.02))
    for cell, decay in enumerate((0.3, 0.75)):
        # From the first time on, by the recursion of each mode alone.
        w, seen = np.sqrt(np.asarray(out["spectral"])[cell, :, 0] / sigma), {}
        for k in range(counts[0], counts[-1] + 1):
            seen[k] = sigma * w**2
            w = w + 0.02 * (2 * (2 * a - decay) * w - 4 * sigma**2 * w**3)
        expected = np.stack([seen[k] for k in counts], 1)
        np.testing.assert_allclose(out["spectral"][cell], expected, rtol=1e-9)
    half = np.asarray(out["half_time"])
    assert (np.isfinite(half) == (2 * a[None, :] > np.array([0.3, 0.75])[:, None])).all()


@pytest.mark.thorough
def test_the_plateau_and_the_minimum_hold_different_modes():
    a, sigma = modes(jnp.array(0.4), jnp.array(0.6))
    np.testing.assert_allclose(a / sigma, [0.8, 0.4, 0.6, 0.3])
    np.testing.assert_allclose(at_minimum(jnp.array([0, 1]), 2 * a, sigma), [0.8, 0.4, 0, 0])
    out = plateau_experiment.predict({"a_out": jnp.array([0.4, 0.4]), "rho_out": jnp.array([0.5, 0.6])}, {}, 10)
    np.testing.assert_allclose(out["held"], [[0.8, 0.4, 0, 0]] * 2)
    np.testing.assert_allclose(out["end"], [[0.8, 0, 0.5, 0], [0.8, 0, 0.6, 0]], atol=1e-15)
    np.testing.assert_allclose(out["escape_rate"], [0.32, 4 * 0.4 * (1 - 0.4 / 0.6)])


@pytest.mark.thorough
def test_minibatch_runs_share_their_start_with_the_curves():
    job = configure(minibatch_experiment, "smoke")
    settings = {name: jnp.asarray(v, float) for name, v in job.settings.items() if name not in ("schedule", "batch")}
    cells, sizes = {"augmentation": jnp.array([0.5, 1.5])}, job.experiment.sizes(job.settings)
    out = jax.jit(job.experiment.simulate, static_argnums=3)(KEY, cells, settings, sizes)
    for name in ("without_sigma", "by_beta"):
        assert (out["deviation"] - out[name] > 2 * out["deviation"]).all()
    gap = jnp.sqrt(jnp.mean((out["curve"] - out["curve_theory"]) ** 2, (1, 2)))
    np.testing.assert_allclose(gap, out["deviation"], rtol=0.5)


@pytest.mark.parametrize(
    ("experiment", "wish", "sentence"),
    [
        (dynamics_experiment, {"rate": 0.0}, "`rate` must be positive, but got 0."),
        (riccati_experiment, {"rank": [4.0]}, "`rank` must be 1, 2 or 3, but got 4."),
        (plateau_experiment, {"rho_out": [0.9]},
         "`rho_out` must be between those of the modes that are held, 0.4 and 0.8, but got 0.9."),
        (minibatch_experiment, {"schedule": "cosine"}, "`schedule` must be one of fixed, falling, but got cosine."),
        (minibatch_experiment, {"batch": 1}, "`batch` must be a whole number, 2 or more, but got 1."),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_refused_in_one_sentence(experiment, wish, sentence):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        configure(experiment, "smoke", wish)
    assert str(error.value) == sentence
