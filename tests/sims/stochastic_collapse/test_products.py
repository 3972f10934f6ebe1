"""Simulations of random factors against SGD on the loss itself, step by step and with the same draws."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sims.engine.experiment import configure
from sims.stochastic_collapse import near_zero as near_zero_experiment
from sims.stochastic_collapse import phase_diagram as diagram_experiment
from sims.stochastic_collapse.continuous_limit import epoch, spread_evenly
from sims.stochastic_collapse.factors import log_size
from theory.stochastic_collapse import finite_data_exponent

diagram, products, heavy, tail = (
    importlib.import_module(f"sims.stochastic_collapse.{name}")
    for name in ("phase_diagram", "exponents", "momentum", "near_zero")
)
KEY = jax.random.key(3)
QUICK = jax.jit(diagram.walk, static_argnames="steps")


def test_rounding_to_zero_is_no_collapse():
    for dtype in (np.float32, np.float64):
        eps = np.finfo(dtype).eps
        found = log_size(jnp.array([0.0, eps / 2, -2.0, eps], dtype))
        assert found.dtype == dtype
        np.testing.assert_allclose(found, np.log([eps / 4, eps / 2, 2.0, eps]), rtol=1e-6)


@pytest.mark.parametrize("K", [1.0, -1.0])
def test_the_walk_is_sgd_on_a_loss_whose_gradient_is_bounded_in_slope(K):
    eta, mu, sigma, steps = 0.3, 0.5, 1.2, 60

    def loss(theta, h):
        return h * theta**2 / 2 + K * (theta**2 - jnp.log1p(theta**2)) / 2

    def step(theta, k):
        h = sigma * jax.random.normal(jax.random.fold_in(KEY, k), theta.shape) - mu
        return theta - eta * jax.vmap(jax.grad(loss))(theta, h), None

    starts = jnp.array([-3.0, 0.0, 3.0])[:, None] + jnp.zeros(5)[None, :]
    theta = [jax.lax.scan(step, jnp.exp(x), jnp.arange(steps))[0] for x in starts]
    x = QUICK(KEY, starts, eta, mu, sigma, K, steps=steps)
    np.testing.assert_allclose(x, np.log(np.abs(jnp.stack(theta))), rtol=1e-9, atol=1e-9)


def test_from_deep_starts_a_walk_is_a_product_of_the_factors_alone():
    eta, mu, sigma, K, steps = 0.3, 0.5, 2.0, 1.0, 40
    deep = diagram.FASTEST * steps
    starts = jnp.array([-deep, deep])[:, None] + jnp.zeros(3)[None, :]
    noise = jax.vmap(lambda k: jax.random.normal(jax.random.fold_in(KEY, k), (3,)))(jnp.arange(steps))
    moved = QUICK(KEY, starts, eta, mu, sigma, K, steps=steps) - starts
    for row, curvature in zip(moved, (-mu, K - mu), strict=True):
        np.testing.assert_allclose(row, np.log(np.abs(1 - eta * (curvature + sigma * noise))).sum(0), rtol=1e-10)


def test_phases_are_voted_from_where_paths_end():
    low, middle, high = -40.0, 3.0, 55.0
    ends = {
        0: [low, low, low], 1: [middle, middle, middle], 2: [high, high, high], 3: [low, middle, high],
        4: [low, middle, middle],
    }  # fmt: skip
    for code, end in ends.items():
        assert diagram.phase_of(jnp.array(end)[:, None] + jnp.zeros(3)[None, :], 30.0) == code
    assert diagram.phase_of(jnp.array([ends[0], ends[3], ends[3]]).T, 30.0) == 3


def test_epochs_of_single_samples_multiply_every_factor_once():
    h = jnp.array([0.3, -0.5, 1.7, 0.9])
    sizes = products.Sizes(batch=1, samples=4, paths=3, steps=10)
    np.testing.assert_allclose(products.growth_in_epochs(KEY, 0.7, h, sizes), finite_data_exponent(0.7, h), rtol=1e-13)
    np.testing.assert_allclose(epoch(KEY, 0.7, h), finite_data_exponent(0.7, h), rtol=1e-13)
    np.testing.assert_allclose(products.growth(KEY, 0.7, lambda key: h[:2], sizes), np.log(1 - 0.7 * -0.1), rtol=1e-13)


def test_the_data_set_of_the_limit_has_the_moments_of_its_noise():
    x = spread_evenly(KEY, 10)
    for power, moment in ((1, 0.0), (2, 1.0), (3, 0.0)):
        np.testing.assert_allclose(jnp.mean(x**power), moment, atol=1e-14)


def test_heavy_ball_is_that_of_optax_and_its_controls_have_mean_zero():
    eta, beta, mean, steps, paths = 0.01, 0.8, -0.2, 50, 4
    e, sizes = eta / (1 - beta), heavy.Sizes(paths, steps, 0)
    growth, _ = jax.jit(heavy.heavy_ball, static_argnums=4)(KEY, eta, beta, mean, sizes)
    rule = optax.sgd(eta, momentum=beta)
    z = jnp.ones(paths)
    state = rule.init(z)
    for k in range(steps):
        h = mean + jax.random.normal(jax.random.fold_in(KEY, k), (paths,))
        update, state = rule.update(h * z, state, z)
        z = z + update
    q = z + beta / (1 - beta) * update
    np.testing.assert_allclose(growth, np.log(np.abs(q)) / steps, rtol=1e-10)

    many = heavy.Sizes(4000, 200, 20)
    growth, zero = jax.jit(heavy.heavy_ball, static_argnums=4)(KEY, eta, beta, mean, many)
    assert abs(jnp.mean(zero)) < 5 * jnp.std(zero) / 4000**0.5
    # What is left of the noise of a step, of size e, once they are taken away.
    assert jnp.std(growth - zero) < 0.3 * jnp.std(growth)
    assert jnp.std(growth) > 0.5 * e / 200**0.5


def test_depths_are_counted_after_the_burn_in():
    # Without noise and curvature at infinity theta halves at every step.
    sizes = tail.Sizes(paths=2, steps=4, burn_in=3)
    count, depth = tail.below(KEY, 0.5, -1.0, 0.0, 0.0, 3.0, sizes)
    x = -np.log(2) * np.arange(1, 8)
    deep = x[3:][x[3:] < -3.0]
    assert count == 2 * len(deep)
    np.testing.assert_allclose(depth, 2 * np.sum(-3.0 - deep), rtol=1e-12)


@pytest.mark.parametrize(
    ("experiment", "wish", "sentence"),
    [
        (diagram_experiment, {"eta": [0.0]}, "`eta` must be positive, but got 0."),
        (diagram_experiment, {"sigma": [-1.0]}, "`sigma` must be non-negative, but got -1."),
        (diagram_experiment, {"paths": 0}, "`paths` must be a whole number, 1 or more, but got 0."),
        (near_zero_experiment, {"share": [1.0]}, "`share` must be above 0 and below 1, but got 1."),
        (
            near_zero_experiment, {"eta": [0.7]},
            "`eta` must be small enough for a noise that collapses, but got 0.7 at mu = 0.5.",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_refused_in_one_sentence(experiment, wish, sentence):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        configure(experiment, "smoke", wish)
    assert str(error.value) == sentence
