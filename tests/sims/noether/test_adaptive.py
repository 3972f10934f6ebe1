"""Adaptive optimizers, sign descent and kinetic energy: losses, preconditioners and steps against their definitions."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sims.descent import optimizer_step
from sims.engine.experiment import configure
from sims.noether import softmax
from sims.noether.adaptive import (
    FAMILIES,
    NAMES,
    RESCALE,
    Sizes,
    adaptive_charge,
    adaptive_optimizer,
    draw,
    logit_shift,
    loss,
    preconditioner,
    train,
)
from sims.noether.setup import optimizer
from sims.noether.sign_descent import sign_descent, signs
from theory.noether import bilinear, charge, transform

pytestmark = pytest.mark.thorough

# The package names its experiments as their modules.
kinetic = importlib.import_module("sims.noether.kinetic")
KEY = jax.random.key(4)
SIZES = Sizes("Adam", inputs=3, width=4, classes=3, batch=6, steps=5)


@pytest.fixture(scope="module")
def network():
    return draw(KEY, SIZES)


def first(batches):
    return jax.tree.map(lambda x: x[0], batches)


def test_the_network_has_relu_units_and_the_symmetries(network):
    params, batches = network
    inputs, labels = batch = first(batches)
    hidden = jnp.maximum(inputs @ params["kernel0"] + params["bias0"][None, :], 0)
    logits = hidden @ params["kernel"] + params["bias"][None, :]
    by_hand = -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(6), labels])
    np.testing.assert_allclose(loss(params, batch), by_hand, rtol=1e-13)
    for family in FAMILIES:
        amount = 0.3 * jnp.ones(charge(family, params).shape)
        np.testing.assert_allclose(loss(transform(family, params, amount), batch), by_hand, rtol=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_updates_are_the_preconditioner_times_the_gradient(name, network):
    params, batches = network
    rule = adaptive_optimizer(name, 0.1, jnp.array(0.8))
    state, v = rule.init(params), jax.tree.map(jnp.zeros_like, params)
    for k in range(3):
        g = jax.grad(loss)(params, jax.tree.map(lambda x, k=k: x[k], batches))
        v = jax.tree.map(lambda v, g: 0.8 * v + 0.2 * g**2, v, g)
        D = preconditioner(name, v, jnp.array(0.8), k + 1)
        new, state = optimizer_step(rule, g, params, state)
        for tensor in params:
            moved = -0.1 * D[tensor] * g[tensor]
            np.testing.assert_allclose(new[tensor] - params[tensor], moved, rtol=1e-9, atol=1e-14)
        params = new


@pytest.mark.parametrize("name", NAMES)
def test_what_the_first_order_misses_is_the_finite_step(name, network):
    params, batches = network
    rule = adaptive_optimizer(name, 0.05, jnp.array(0.5))
    end, total = train(loss, params, batches, rule, name, 0.05, jnp.array(0.5))
    state, now, missed = rule.init(params), params, 0
    for k in range(SIZES.steps):
        g = jax.grad(loss)(now, jax.tree.map(lambda x, k=k: x[k], batches))
        new, state = optimizer_step(rule, g, now, state)
        moved = jax.tree.map(jnp.subtract, new, now)
        missed, now = missed + bilinear(RESCALE, moved, moved), new
    change = charge(RESCALE, end) - charge(RESCALE, params)
    np.testing.assert_allclose(change - total[0], missed, rtol=1e-9, atol=1e-12)


def test_sign_descent_moves_every_weight_by_the_learning_rate():
    params, batches = softmax.draw(KEY, softmax.Sizes(3, 4, 5, 2))
    g = jax.grad(softmax.loss)(params, first(batches))
    after = signs(softmax.loss, params, 0.01, jax.tree.map(lambda x: x[:1], batches))
    for tensor in params:
        np.testing.assert_allclose(after[tensor], params[tensor] - 0.01 * jnp.sign(g[tensor]), rtol=1e-14)


def test_heavy_ball_is_followed_with_central_differences_from_rest():
    def square(params):
        return jnp.sum(params["w"] ** 4)

    eta, beta, decay = 0.01, 0.6, 0.2
    start = {"w": jnp.array([0.5, -1.0])}
    path, difference = kinetic.heavy_ball(square, start, optimizer("heavy ball", eta, beta, decay), 3)
    w, v, weights = start["w"], 0, [start["w"]]
    for _ in range(4):
        v = beta * v + 4 * w**3 + decay * w
        w = w - eta * v
        weights.append(w)
    weights = np.array(weights)
    np.testing.assert_allclose(path["w"], weights[:4], rtol=1e-14)
    before = np.concatenate([weights[:1], weights[:3]])
    np.testing.assert_allclose(difference["w"], (weights[1:] - before) / 2, rtol=1e-12)


def test_the_losses_of_the_particle_have_their_symmetries():
    (quotient, w), (product, factors) = kinetic.draw(KEY, kinetic.Sizes(4, 2, 10))
    for function, params, family, units in (
        (quotient, w, kinetic.SCALE, 1),
        (product, factors, kinetic.RESCALE, 2),
    ):
        moved = transform(family, params, jnp.linspace(0.2, 0.5, units))
        np.testing.assert_allclose(function(moved), function(params), rtol=1e-13)


@pytest.mark.parametrize(
    ("experiment", "wish", "sentence"),
    [
        (adaptive_charge, {"optimizer": [2]}, "`optimizer` must be one of 0 (RMSProp), 1 (Adam), but got 2."),
        (adaptive_charge, {"forgetting": [0.0]}, "`forgetting` must be above 0 and below 1, but got 0."),
        (adaptive_charge, {"time": 0.0}, "`time` must be positive, but got 0."),
        (logit_shift, {"classes": 1}, "`classes` must be a whole number, 2 or more, but got 1."),
        (sign_descent, {"classes": [1]}, "`classes` must be a whole number, 2 or more, but got 1."),
        (sign_descent, {"learning_rate": [-0.1]}, "`learning_rate` must be positive, but got -0.1."),
        (kinetic.kinetic, {"momentum": [1.0]}, "`momentum` must be from 0 to below 1, but got 1."),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_sentence(experiment, wish, sentence):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        configure(experiment, "smoke", wish)
    assert str(error.value) == sentence
