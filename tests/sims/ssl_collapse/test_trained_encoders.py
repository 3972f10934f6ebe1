"""Encoders of digits: their views, what is measured of a trained last layer, and the predictions."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sims.engine.experiment import configure
from sims.ssl_collapse.crops import crops
from sims.ssl_collapse.digit_views import Sizes, centered, clean_pair, covariance, crop, hat, principal
from sims.ssl_collapse.digits import digits, predict, undiluted
from sims.ssl_collapse.losses import infonce_distance
from sims.ssl_collapse.relu_encoder import Sizes as ReluSizes
from sims.ssl_collapse.relu_encoder import predict as predict_relu
from sims.ssl_collapse.relu_encoder import relu_encoder
from sims.ssl_collapse.trained_encoders import averaged, growth, mean_pull, probed, untilted_matrix
from theory.ssl_collapse import dormant_directions, effective_matrix, infonce_minimum

pytestmark = pytest.mark.thorough

KEY = jax.random.key(0)
RANDOM = np.random.default_rng(0)


def test_the_surrogate_has_the_covariance_of_the_digits():
    images, surrogate = clean_pair(KEY, 20_000, jnp.float64)
    for x in (images, surrogate):
        np.testing.assert_allclose(np.cov(x.T), covariance(), atol=0.02)
    assert {tuple(row) for row in np.asarray(images[:50])} <= {tuple(row) for row in centered()}
    np.testing.assert_allclose(principal()[0].sum(), np.trace(covariance()), rtol=1e-12)


def test_a_crop_of_no_reach_is_the_image_and_shifts_are_whole_images_moved():
    images = jnp.array(RANDOM.normal(size=(3, 8, 8)))
    np.testing.assert_allclose(crop(KEY, images, 0.0), images, atol=1e-14)
    moved = hat(jnp.array(2.0), jnp.array(1.0)) @ images[0]
    np.testing.assert_allclose(moved[:6], images[0][2:], atol=1e-14)
    np.testing.assert_allclose(moved[6:], 0, atol=1e-14)
    half = hat(jnp.array(0.5), jnp.array(1.0)) @ images[0]
    np.testing.assert_allclose(half[:7], (images[0][1:] + images[0][:-1]) / 2, atol=1e-14)


def test_the_untilted_matrix_is_that_of_zero_weights():
    x, y = jnp.array(RANDOM.normal(size=(2, 12, 3)) + 1)
    found = untilted_matrix(x, y, 0.8, 1.6, 0.05)
    expected = effective_matrix(np.zeros((2, 3)), x, y, "infonce_distance", 0.8, 1.6, 0.05)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


def test_halves_and_squares_are_averages():
    def matrix(k):
        return jax.random.normal(k, (2, 3, 3))

    halves, squares = averaged(matrix, KEY, 5)
    each = jnp.stack([matrix(jax.random.fold_in(KEY, k)) for k in range(5)])
    np.testing.assert_allclose(halves, [each[:2].mean(0), each[2:].mean(0)], rtol=1e-12)
    np.testing.assert_allclose(squares, (each @ each).mean(0), rtol=1e-12)


def test_growth_along_a_direction_is_twice_the_pull_of_a_fixed_minibatch():
    x, y = jnp.array(RANDOM.normal(size=(2, 12, 4)))
    W = jnp.array(RANDOM.normal(size=(2, 4)))

    def loss(p, key):
        return infonce_distance(x @ p["last"][0].T, y @ p["last"][0].T, 1.0, 1.5)

    B = effective_matrix(W, x, y, alpha=1.5)
    new = dormant_directions(W, B)
    v = new.directions[:, :2]
    found = growth(loss, {"last": W[None]}, v[None], KEY, 1e-5, 2)
    np.testing.assert_allclose(found[0], new.pull[:2], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(mean_pull(W, B), jnp.trace(W @ B @ W.T) / jnp.sum(W**2), rtol=1e-12)


def test_lanes_do_not_know_of_each_other():
    sizes = SimpleNamespace(steps=8, probe=4, directions=2)
    data = jnp.array(RANDOM.normal(size=(40, 3)))

    def run(scales):
        scales = jnp.array(scales)

        def views(k):
            z = jax.random.normal(k, (2, 8, 3))
            return tuple(data[:8][None] + scales[:, None, None] * each[None] for each in z)

        ones = jnp.ones(len(scales))
        numbers = {"temperature": ones, "alpha": 2 * ones, "weight_decay": 0 * ones}
        start = {"last": jnp.broadcast_to(0.1 * jnp.eye(2, 3), (len(scales), 2, 3))}
        return probed(KEY, start, lambda p, x: x, views, numbers, 0.1, sizes, lambda p: ones, lambda p: p["last"])

    both, other = run([0.3, 0.6]), run([0.6, 0.9])
    for name in ("B", "untilted", "pull", "growth"):
        np.testing.assert_allclose(getattr(both, name)[1], getattr(other, name)[0], rtol=1e-9, atol=1e-12)


def test_predictions_are_the_minimum_of_gaussian_vectors():
    sizes = Sizes(5, 64, 100_000, 2, 1)
    cells = {"sigma2": jnp.array([0.15, 0.9]), "temperature": jnp.full(2, 0.8), "alpha": jnp.full(2, 2.0),
             "weight_decay": jnp.full(2, 0.01)}  # fmt: skip
    found = predict(cells, {"rate": 0.15}, sizes)
    best = infonce_minimum(covariance(), 0.15 * np.eye(64), 5, 0.8, 2.0, 0.01)
    np.testing.assert_allclose(found["digits_strength"][0], best.strengths[:24], rtol=1e-8)
    np.testing.assert_allclose(found["digits_rank"], [5, 0])
    np.testing.assert_allclose(found["gaussian_alive"][1][:5], -1)
    assert np.isnan(found["gaussian_alive"][0][5:]).all()
    pull = principal()[0][:24] - 0.15 - 0.01 * 0.8
    np.testing.assert_allclose(found["digits_spectrum"][0][5:] * 0.8, pull[5:], rtol=1e-8)
    assert undiluted({k: np.asarray(v) for k, v in cells.items()}, dict(sizes._asdict(), rate=0.15))[1]


def test_a_relu_encoder_is_predicted_as_a_linear_one():
    sizes = ReluSizes(16, 8, 64, 10, 2, 1)
    cells = {"sigma2": jnp.array([0.1, 0.25]), "temperature": jnp.array(1.0), "alpha": jnp.array(2.0),
             "weight_decay": jnp.array(0.0)}  # fmt: skip
    np.testing.assert_allclose(predict_relu(cells, {}, sizes)["rank"], [12, 5])


@pytest.mark.parametrize(
    ("experiment", "wish", "sentence"),
    [
        (digits, {"sigma2": [0.0]}, "`sigma2` must be positive, but got 0."),
        (digits, {"batch": 1}, "`batch` must be a whole number, 2 or more, but got 1."),
        (relu_encoder, {"hidden": 0}, "`hidden` must be a whole number, 2 or more, but got 0."),
        (crops, {"reach": [-1.0]}, "`reach` must be positive, but got -1."),
        (crops, {"alpha": [0.0]}, "`alpha` must be positive, but got 0."),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_sentence(experiment, wish, sentence):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        configure(experiment, "smoke", wish)
    assert str(error.value) == sentence
