"""Gradient descent and RMSProp on the sphere: loss, stream and steps against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sims.engine.experiment import configure
from sims.noether.rmsprop import MOMENTS, Sizes, descend, draw, one, quotient, rmsprop
from sims.noether.setup import optimizer
from theory.noether import equivalent_second_moment, rmsprop_equivalent

pytestmark = pytest.mark.thorough

KEY = jax.random.key(1)
SIZES = Sizes(dimension=5, batch=3, steps=12)


def test_the_loss_does_not_see_the_norm_and_its_gradient_lies_across():
    u, stream = draw(KEY, SIZES)
    value, gradient = jax.value_and_grad(quotient)(2 * u, stream[0])
    np.testing.assert_allclose(value, u @ stream[0] @ u / 2, rtol=1e-14)
    np.testing.assert_allclose(u @ gradient, 0, atol=1e-15)
    across = stream[0] @ u - (u @ stream[0] @ u) * u
    np.testing.assert_allclose(gradient, across / 2, rtol=1e-12)


def test_the_stream_is_of_covariances_without_a_preferred_direction():
    u, stream = draw(KEY, SIZES._replace(steps=4000))
    np.testing.assert_allclose(u @ u, 1, rtol=1e-14)
    assert np.linalg.matrix_rank(stream[0]) == 3
    np.testing.assert_allclose(jnp.mean(stream, 0), np.eye(5), atol=0.06)


def test_steps_are_gradient_descent_with_weight_decay():
    u, stream = draw(KEY, SIZES)
    path = descend(1.5 * u, stream[:2], optimizer("SGD", 0.2, 0.0, 0.3))
    for k in range(2):
        now = path[k]
        np.testing.assert_allclose(
            path[k + 1], now - 0.2 * (jax.grad(quotient)(now, stream[k]) + 0.3 * now), rtol=1e-13
        )


def test_rmsprop_is_run_on_its_own_gradients_from_the_moment_that_the_norm_stands_for():
    settings = {"learning_rate": jnp.array(0.2), "eta_lambda": jnp.array(0.03)}
    out = jax.jit(one, static_argnums=3)(KEY, {"ratio": jnp.array(0.5)}, settings, SIZES)
    u, stream = draw(KEY, SIZES)
    gradients = jax.vmap(lambda M: jax.grad(quotient)(u, M))(stream)
    Z = 0.25 * 0.2**2 * jnp.mean(jnp.sum(gradients**2, 1)) / 0.06
    G, (rho, rate) = equivalent_second_moment(Z, 0.2, 0.15), rmsprop_equivalent(0.2, 0.15)
    first = G
    for M in stream:
        g = jax.grad(quotient)(u, M)
        u, G = u - rate * g / jnp.sqrt(G), rho * G + (1 - rho) * (g @ g)
        u = u / jnp.linalg.norm(u)
    np.testing.assert_allclose(out["direction_rmsprop"][-1], u, rtol=1e-12)
    np.testing.assert_allclose(out["second_moment_theory"][-1], G / first, rtol=1e-12)
    np.testing.assert_allclose(out["distance"][-1], jnp.linalg.norm(out["direction"][-1] - u), rtol=1e-9)
    assert out["distance"].shape == (MOMENTS,)
    # A twin of the distance leaves that to another trajectory: not negative, and larger.
    assert (out["distance"] - out["distance_fixed"] > out["distance"]).all()


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        ({"eta_lambda": 1.0}, "`eta_lambda` must be above 0 and below 1, but got 1."),
        ({"ratio": [0.0]}, "`ratio` must be positive, but got 0."),
        ({"dimension": 1}, "`dimension` must be a whole number, 2 or more, but got 1."),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_sentence(wish, sentence):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        configure(rmsprop, "smoke", wish)
    assert str(error.value) == sentence
