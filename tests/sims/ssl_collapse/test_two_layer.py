"""Real layers: their losses, starts and steps against their definitions, and a whole run of each experiment."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from sims.engine.experiment import configure
from sims.ssl_collapse.hysteresis import hysteresis
from sims.ssl_collapse.hysteresis import one as decayed
from sims.ssl_collapse.layers import (
    CLEAN,
    KAPPA,
    aligned,
    covariances,
    draw_basis,
    gaussian,
    halfway,
    hidden_grams,
    modes,
    population_loss,
    product,
    strengths,
)
from sims.ssl_collapse.losses import spectral
from sims.ssl_collapse.training import gaussian_views
from sims.ssl_collapse.two_layer import crossing, logistic, two_layer
from sims.ssl_collapse.two_layer import one as learned
from sims.ssl_collapse.two_layer_minibatch import Sizes, simulate, two_layer_minibatch
from theory.ssl_collapse import effective_landscape, two_layer_strength, two_layer_time

KEY = jax.random.key(2)
NOISE = jnp.array(0.25)


def numeric(experiment, **wish):
    settings = {name: s.value for name, s in experiment.settings.items()} | wish
    return {name: jnp.asarray(v, jnp.int32 if isinstance(v, int) else float) for name, v in settings.items()}


def test_aligned_layers_have_the_strengths_they_are_given():
    basis = draw_basis(KEY, 3)
    given = tuple(jnp.array([0.9, 0.3, 0.05]) * (k + 1) for k in range(3))
    layers = aligned(basis, given)
    assert [layer.shape for layer in layers] == [(6, 3), (6, 6), (3, 6)]
    for layer, s in zip(layers, given, strict=True):
        np.testing.assert_allclose(np.linalg.svd(layer, compute_uv=False)[:3], s, rtol=1e-12)
    np.testing.assert_allclose(strengths(product(layers), basis), given[0] * given[1] * given[2], rtol=1e-12)
    np.testing.assert_allclose(product(gaussian(KEY, 1, 0.3)), gaussian(KEY, 1, 0.3)[0])


def test_the_moment_of_a_crossing_is_interpolated():
    p, before = jnp.array([0.6, 0.4, 0.9]), jnp.array([0.2, 0.3, 0.7])
    np.testing.assert_allclose(halfway(p, before, 0.5, 7.0), [7.75, np.inf, np.inf])


@pytest.mark.thorough
def test_the_population_loss_is_the_quartic_landscape_and_the_mean_of_minibatches():
    basis = draw_basis(KEY)
    layers = gaussian(KEY, 2, 0.5)
    A0, Sigma = covariances(basis, NOISE)
    np.testing.assert_allclose(np.sort(np.linalg.eigvalsh(A0)), np.sort(CLEAN), rtol=1e-12)
    B, S, kappa = effective_landscape(A0, Sigma - A0, "spectral")
    W = product(layers)
    quartic = -jnp.trace(W @ B @ W.T) + kappa * jnp.sum((W @ S @ W.T) ** 2)
    decay = 0.3 * (jnp.sum(layers[0] ** 2) + jnp.sum(layers[1] ** 2))
    exact = population_loss(layers, A0, Sigma, jnp.array(0.3))
    np.testing.assert_allclose(exact, quartic + decay, rtol=1e-12)

    clean, noise = basis.data * jnp.sqrt(jnp.array(CLEAN))[None, :], jnp.sqrt(NOISE) * jnp.eye(3)

    def minibatch(key):
        first, second = gaussian_views(key, 16, clean, noise)
        return spectral(first @ W.T, second @ W.T)

    values = jax.jit(jax.vmap(minibatch))(jax.random.split(KEY, 20_000))
    np.testing.assert_allclose(values.mean(), exact - decay, atol=4 * values.std() / len(values) ** 0.5)


@pytest.mark.thorough
def test_the_logistic_twins_are_flows_of_their_own():
    b, sigma = (float(v[1]) for v in modes(NOISE))

    def field(_, p):
        return 0.3 * p * (2 * b - 4 * KAPPA * sigma**2 * p**2)

    exact = solve_ivp(field, (0, 5.0), [0.03], rtol=1e-10, atol=1e-12).y[0, -1]
    np.testing.assert_allclose(logistic(0.03, 0.3, b, sigma, 5.0), exact, rtol=1e-7)


@pytest.mark.thorough
def test_the_time_of_escape_is_that_of_the_gradient_flow():
    basis = draw_basis(KEY)
    A0, Sigma = covariances(basis, NOISE)

    def loss(layers):
        return population_loss(layers, A0, Sigma, jnp.array(0.0))

    def p(layers):
        return strengths(product(layers), basis)

    layers, b_sigma = aligned(basis, (jnp.full(3, 0.5), jnp.full(3, 0.4))), modes(NOISE)
    level = jnp.array([0.5, 0.4, 5.0])
    found = crossing(loss, layers, 0.01, 100, p, level)
    exact = two_layer_time(level[:2], 0.2, b_sigma.b[:2], b_sigma.sigma[:2], KAPPA, 0.25 - 0.16)
    np.testing.assert_allclose(found[:2], exact, atol=2e-5)
    assert found[2] == np.inf


@pytest.mark.thorough
def test_a_run_of_two_layers_stands_beside_its_theory():
    cell = {"ratio": jnp.array(3.0), "noise": NOISE}
    out = jax.jit(learned, static_argnums=3)(KEY, cell, numeric(two_layer, p0=0.05, learning_rate=0.002), ())
    assert out["status"] == 0
    np.testing.assert_allclose(out["trajectory"], out["trajectory_theory"], atol=0.01)
    np.testing.assert_array_equal(out["rank"], [0, 1, 2, 3])
    np.testing.assert_allclose(out["representation"], out["representation_theory"], atol=0.005)
    assert np.abs(out["trajectory"] - out["trajectory_balanced"]).max() > 0.1


@pytest.mark.thorough
@pytest.mark.parametrize("decay", [0.1, 0.4])
def test_raised_decay_keeps_the_learned_state_that_small_layers_never_find(decay):
    cell = {"weight_decay": jnp.array(decay), "noise": NOISE}
    out = jax.jit(decayed, static_argnums=3)(KEY, cell, numeric(hysteresis), 2)
    b, sigma = modes(NOISE)
    np.testing.assert_allclose(out["raised"], two_layer_strength(b, sigma, KAPPA, decay), atol=1e-6)
    np.testing.assert_allclose(out["small"], 0, atol=1e-6)
    assert out["status"] == 0


@pytest.mark.thorough
def test_minibatches_barely_change_the_balance_and_cells_share_their_draws():
    wish = {"time": 1.0, "settle": 0.5, "small_time": 1.0, "balance": 1.0, "learning_rate": 0.01}
    cells = {"weight_decay": jnp.array([0.0, 0.2]), "noise": NOISE}
    one, both = (
        jax.jit(simulate, static_argnums=3)(KEY, cells, numeric(two_layer_minibatch, **wish), Sizes(16, together))
        for together in (1, 2)
    )
    for name in one:
        np.testing.assert_allclose(one[name], both[name], rtol=1e-9)
    assert (one["drift"] > 0).all()
    assert (one["drift"] < 0.05).all()
    # A twin of a distance leaves that to another law: with decay, D is not conserved.
    assert one["drift"][1] - one["drift_conserved"][1] > 0.3


def test_hidden_grams_live_on_the_hidden_space():
    first, second = hidden_grams(gaussian(KEY, 2, 0.3))
    assert first.shape == second.shape == (6, 6)


@pytest.mark.parametrize(
    ("experiment", "wish", "sentence"),
    [
        (two_layer, {"ratio": [0.0]}, "`ratio` must be positive, but got 0."),
        (two_layer, {"p0": -0.1}, "`p0` must be positive, but got -0.1."),
        (
            two_layer,
            {"p0": 0.5},
            "`p0` must be below 0.309, for every mode to start below half of its limit, but got 0.5.",
        ),
        (hysteresis, {"depth": [1.5]}, "`depth` must be a whole number, 1 or more, but got 1.5."),
        (hysteresis, {"weight_decay": [0.0]}, "`weight_decay` must be positive, but got 0."),
        (two_layer_minibatch, {"batch": 1}, "`batch` must be a whole number, 2 or more, but got 1."),
        (two_layer_minibatch, {"settle": 90.0}, "`settle` must be below `time`, but got 90."),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_sentence(experiment, wish, sentence):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        configure(experiment, "smoke", wish)
    assert str(error.value) == sentence
