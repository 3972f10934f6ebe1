"""A scale-invariant weight in equilibrium: gradients, steps and measures against their definitions."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sims.digits import CLASSES, SIDE, batches
from sims.engine.experiment import configure
from sims.noether import adam_equilibrium
from sims.noether.adam_equilibrium import adam_l2_equilibrium, adamw_equilibrium
from sims.noether.equilibrium import equilibrium, step_and_angle
from sims.noether.relaxation import rate_change
from sims.noether.setup import optimizer
from sims.noether.synthetic import (
    Steps,
    gaussian_lengths,
    measured,
    next_direction,
    squares,
    start,
    tangent,
    train,
    unit,
)
from theory.noether import adam_l2_equilibrium_norm, equilibrium_angle, step_size_ratio

pytestmark = pytest.mark.thorough

# The package names its experiments as their modules.
cosine_classifier, effective_rate, relaxation = (
    importlib.import_module(f"sims.noether.{name}") for name in ("cosine_classifier", "effective_rate", "relaxation")
)
KEY, NEXT = jax.random.key(3), jax.random.key(4)
ETA, DECAY, C = 0.1, 0.3, 1.4


@pytest.mark.parametrize("correlation", [0.0, 0.4, 1.0])
def test_gradients_have_unit_length_lie_across_the_weight_and_remember_the_last(correlation):
    u, n = start(KEY, 7)
    np.testing.assert_allclose([u @ u, n @ n, u @ n], [1, 1, 0], atol=1e-15)
    turned = unit(u + 0.3 * unit(jax.random.normal(KEY, (7,))))
    following = next_direction(jax.random.key(5), turned, n, correlation)
    kept = unit(tangent(turned, n))
    expected = [1, 0, correlation]
    np.testing.assert_allclose([following @ following, turned @ following, kept @ following], expected, atol=1e-14)


def test_the_autocorrelation_falls_by_a_factor_each_step():
    u, n = start(KEY, 5)

    def later(key):
        first, second = jax.random.split(key)
        return next_direction(second, u, next_direction(first, u, n, 0.6), 0.6) @ n

    many = jax.vmap(later)(jax.random.split(KEY, 4000))
    np.testing.assert_allclose(jnp.mean(many), 0.36, atol=5 * float(jnp.std(many)) / 4000**0.5)


def test_a_fully_correlated_gradient_stays_in_the_plane_and_turns_with_the_weight():
    u, n = start(KEY, 6)
    (theta, last, _), _ = train(NEXT, 1.3 * u, n, optimizer("heavy ball", ETA, 0.5, DECAY), C, 1.0, 9)
    for x in (theta, last):
        np.testing.assert_allclose((x @ u) ** 2 + (x @ n) ** 2, x @ x, rtol=1e-13)
    now, following = unit(theta), next_direction(NEXT, unit(theta), last, 1.0)
    assert abs(now @ u) < 0.9
    np.testing.assert_allclose((now @ u) * (following @ n) - (now @ n) * (following @ u), 1, rtol=1e-13)


@pytest.mark.parametrize("name", ["heavy ball", "decoupled decay"])
def test_two_steps_are_those_of_the_formula(name):
    u, n = start(KEY, 6)
    rule, beta, r = optimizer(name, ETA, 0.7, DECAY), 0.7, 1.5
    (theta, _, _), run = train(NEXT, r**0.5 * u, n, rule, C, 0.2, 2)
    now, direction, v = r**0.5 * u, n, jnp.zeros(6)
    for k in range(2):
        direction = next_direction(jax.random.fold_in(NEXT, k), unit(now), direction, 0.2)
        g = C * direction / jnp.linalg.norm(now)
        v = beta * v + (g + DECAY * now if name == "heavy ball" else g)
        moved = -ETA * v - (0 if name == "heavy ball" else ETA * DECAY * now)
        np.testing.assert_allclose([run.square[k], run.work[k], run.step[k]], [now @ now, now @ moved, moved @ moved])
        now = now + moved
    np.testing.assert_allclose(theta, now, rtol=1e-13)
    np.testing.assert_allclose(squares(run)[2], now @ now, rtol=1e-13)
    np.testing.assert_allclose(
        run.work[0], -ETA * DECAY * r, rtol=1e-13
    )  # the gradient itself does not change the norm


def test_each_step_may_have_a_length_of_its_own():
    u, n = start(KEY, 6)
    lengths = jnp.array([0.5, 2.0])
    _, run = train(NEXT, u, n, optimizer("SGD", ETA, 0.0, 0.0), lengths, 0.0, 2)
    np.testing.assert_allclose(run.step * run.square, (ETA * lengths) ** 2, rtol=1e-13)
    drawn = gaussian_lengths(KEY, 3.0, 10, 20_000)
    np.testing.assert_allclose(jnp.mean(drawn**2), 9.0, rtol=0.02)
    np.testing.assert_allclose(jnp.var(drawn**2) / 81, 2 / 9, rtol=0.05)


def test_the_angle_of_a_step_is_that_between_the_weights():
    before, after = jax.random.normal(KEY, (2, 5))
    run = jax.tree.map(lambda x: x[None], measured(before, after))
    np.testing.assert_allclose(run.angle[0], jnp.arccos(unit(before) @ unit(after)), rtol=1e-13)


@pytest.mark.parametrize("decoupled", [0.0, 1.0])
def test_averages_of_a_stationary_run_are_the_law(decoupled):
    e, beta = 0.2, 0.4
    law = {"decoupled": bool(decoupled)}
    phi = equilibrium_angle(0.1, e / 0.1, beta, **law)
    step = 2 * (1 - jnp.cos(phi))
    run = Steps(*(2.0 * jnp.ones(3) * x for x in (1.0, -step / 2, step)))
    out = step_and_angle(run, e, decoupled)
    np.testing.assert_allclose(out["angle"] * (2 * e) ** 0.5, phi, rtol=1e-13)
    np.testing.assert_allclose(out["step"] * 2 * e, step_size_ratio(0.1, e / 0.1, beta, **law) ** 2, rtol=1e-13)


def test_the_classifier_does_not_see_the_norm_of_its_weight():
    images = jax.tree.map(lambda x: x[0], batches(KEY, 1, 8))
    weight = jax.random.normal(KEY, (SIDE**2, CLASSES))
    value, gradient = jax.jit(jax.value_and_grad(cosine_classifier.loss))(weight, images, 20.0)
    np.testing.assert_allclose(cosine_classifier.loss(3 * weight, images, 20.0), value, rtol=1e-13)
    np.testing.assert_allclose(jnp.sum(weight * gradient), 0, atol=1e-14)
    logits = images.pixels.reshape(8, -1) @ (20 * weight / jnp.sqrt(jnp.sum(weight**2)))
    chosen = jax.nn.log_softmax(logits)[jnp.arange(8), images.labels]
    np.testing.assert_allclose(value, -jnp.mean(chosen), rtol=1e-13)


def test_the_first_step_of_adamw_is_its_sign():
    u, n = start(KEY, 6)
    rule = optax.adamw(ETA, 0.9, 0.99, eps=0.0, weight_decay=DECAY)
    (theta, last, _), _ = train(NEXT, 2 * u, n, rule, C, 0.0, 1)
    np.testing.assert_allclose(theta, 2 * u * (1 - ETA * DECAY) - ETA * jnp.sign(last), rtol=1e-12)


def test_the_units_of_the_norm_under_adam_cancel():
    settings = {"learning_rate": 0.2, "gradient_norm": 3.0, "small": 0.01}
    sizes = adam_equilibrium.Sizes(50, 1, 1)
    for x in (1.0, 4.0):
        decay = adam_equilibrium.weight_decay({"decay": x}, settings, sizes)
        norm = adam_l2_equilibrium_norm(0.2, decay, 3.0, 50)
        lost = 0.2**2 * 50 / (2 * norm**2)  # half the squared step, over the squared norm
        np.testing.assert_allclose(lost, 2 ** (-1 / 3) * 0.01 * x, rtol=1e-12)


def test_moments_lie_at_their_times_and_a_little_later():
    sizes = relaxation.sizes({"eta_lambda": 0.01, "dimension": 4})
    assert sizes == relaxation.Sizes(4, 0, (8, 16, 32, 64, 128), 4)
    at = jax.vmap(lambda key: relaxation.moments(key, sizes))(jax.random.split(KEY, 50))
    late = np.asarray(at) - np.array(sizes.moments)
    assert (late.min(), late.max()) == (0, 4)
    assert sizes.steps == 132


def test_times_are_whole_numbers_of_steps():
    job = configure(
        effective_rate.effective_rate, "smoke", {"eta_lambda_steps": [0.001, 0.031, 0.5], "eta_lambda": 0.02}
    )
    np.testing.assert_allclose(job.values["eta_lambda_steps"], [0.02, 0.04, 0.5], rtol=1e-14)


@pytest.mark.parametrize(
    ("experiment", "wish", "sentence"),
    [
        (equilibrium, {"eta_lambda": 0.0}, "`eta_lambda` must be above 0 and below 1, but got 0."),
        (equilibrium, {"momentum": [1.0]}, "`momentum` must be from 0 to below 1, but got 1."),
        (equilibrium, {"correlation": [1.5]}, "`correlation` must be from 0 to 1, but got 1.5."),
        (equilibrium, {"decoupled": [2]}, "`decoupled` must be 0 (coupled) or 1 (decoupled), but got 2."),
        (equilibrium, {"dimension": 2}, "`dimension` must be a whole number, 3 or more, but got 2."),
        (relaxation.relaxation, {"ratio": [-1.0]}, "`ratio` must be positive, but got -1."),
        (rate_change, {"change": [0.0]}, "`change` must be positive, but got 0."),
        (
            effective_rate.effective_rate, {"eta_lambda_steps": [3.0]},
            "`eta_lambda_steps` must be at most `longest` = 1, but got 3.",
        ),
        (cosine_classifier.cosine_classifier, {"scale": 0.0}, "`scale` must be positive, but got 0."),
        (adamw_equilibrium, {"forgetting": 1.0}, "`forgetting` must be above 0 and below 1, but got 1."),
        (adam_l2_equilibrium, {"small": 0.0}, "`small` must be above 0 and below 1, but got 0."),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_refused_in_one_sentence(experiment, wish, sentence):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        configure(experiment, "smoke", wish)
    assert str(error.value) == sentence
