"""Strengths of rare classes by loss: descent on the population losses, thresholds, and the order of robustness."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from theory.ssl_collapse import class_strengths, critical_frequency, minority_ratio, squared_response

P, H, C = np.array([0.8, 0.2]), np.array([1.0, 1.3]), 0.25
OF_LOSS = {
    "infonce_distance": {"temperature": 0.5, "alpha": 1.4, "weight_decay": 0.1},
    "infonce_dot": {"temperature": 0.5, "alpha": 0.7, "weight_decay": 0.1},
    "spectral": {"weight_decay": 0.1},
    "barlow": {"weight_decay": 0.1},
}


def test_printed_values():
    expected = {
        "spectral": [0.7142857143, 0.4897959184],
        "infonce_distance": [0.4882696929, 0.1501340290],
    }
    for loss, values in expected.items():
        np.testing.assert_allclose(class_strengths(P, H, C, loss, **OF_LOSS[loss]), values, atol=5e-11)
    np.testing.assert_allclose(class_strengths(P, H, C, "barlow"), [1.3125, 1.7396449704], atol=5e-11)
    np.testing.assert_array_equal(class_strengths(P, H, C, "alignment", variance=2.0), [2, 0])


def test_strengths_minimise_the_population_losses():
    """Losses of an aligned encoder, written out in y = squared singular values of W."""
    a, tau = P * H**2, 0.5
    Sigma = a + C

    def losses(y, alpha, decay):
        s = Sigma * y
        x = s / tau
        return {
            "infonce_distance": alpha / tau * C * y - jnp.log1p(x) / 2 - x / (1 + x) / 2 + decay * y,
            "infonce_dot": -alpha / tau * a * y + x**2 / 2 + decay * y,
            "spectral": -2 * a * y + s**2 + decay * y,
            "barlow": (a * y - 1) ** 2 + decay * y,
        }

    for loss, how in OF_LOSS.items():
        alpha, decay = how.get("alpha", 1.0), how["weight_decay"]
        s = class_strengths(P, H, C, loss, **how)
        slope = jax.grad(lambda y, n=loss, k=alpha, w=decay: jnp.sum(losses(y, k, w)[n]))(s / Sigma)
        np.testing.assert_allclose(slope, 0, atol=1e-12)
        assert np.all(s > 0)


@pytest.mark.parametrize("loss", OF_LOSS)
def test_a_class_is_learned_above_its_frequency_and_not_below(loss):
    how = OF_LOSS[loss]
    edge = critical_frequency(1.3, C, loss, **how)
    for factor, learned in ((1 - 1e-9, False), (1 + 1e-9, True)):
        p = np.array([1 - edge * factor, edge * factor])
        assert (class_strengths(p, H, C, loss, **how)[1] > 0) == learned
    gone = class_strengths([1.0, 0.0], H, C, loss, **how)
    assert gone[1] == 0
    assert np.all(np.isfinite(gone))


def test_thresholds_in_words():
    np.testing.assert_allclose(critical_frequency(2.0, 0.3, "infonce_distance", 0.5, 1.4, 0.1), (0.12 + 0.05) / 4)
    assert critical_frequency(1.0, 0.3, "infonce_distance") == 0  # augmentation alone removes no class
    assert critical_frequency(1.0, 9.0, "spectral", weight_decay=0.1) == 0.05


@pytest.mark.thorough
def test_losses_in_the_order_of_their_robustness():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(4), 200)
    noise = rng.uniform(0.02, 2, 200)[:, None]
    order = ("alignment", "infonce_distance", "spectral", "barlow")
    ratios = np.array([minority_ratio(class_strengths(p, 1.0, noise, loss), p) for loss in order])
    assert np.all(np.diff(ratios, axis=0) > 0)
    assert np.all(ratios[0] == 0)
    assert np.all(ratios[3] >= 1)
    rho = p / (p + noise)
    np.testing.assert_allclose(ratios[2], rho.min(1) / rho.max(1), rtol=1e-12)
    np.testing.assert_allclose(ratios[3], rho.max(1) / rho.min(1), rtol=1e-12)
    dot = minority_ratio(class_strengths(p, 1.0, noise, "infonce_dot"), p)
    np.testing.assert_allclose(dot, ratios[2], rtol=1e-12)


def test_the_response_is_that_of_a_linear_encoder():
    y = np.array([0.7, 0.2])
    rotation = np.array([[0.6, -0.8], [0.8, 0.6]])
    W = rotation * np.sqrt(y)[None, :]
    strengths = (P * H**2 + C) * y
    np.testing.assert_allclose(squared_response(strengths, P, H, C), np.sum((W * H[None, :]) ** 2, 0), rtol=1e-12)


@pytest.mark.thorough
def test_gradients_jit_single_precision_and_shapes():
    for loss, how in OF_LOSS.items():
        check_grads(lambda h, n=loss, k=how: class_strengths(P, h, C, n, **k), (jnp.asarray(H),), 1, modes=["rev"])
    single = class_strengths(P.astype(np.float32), H.astype(np.float32), np.float32(C), "infonce_distance", 0.5, 1.4)
    assert single.dtype == np.float32
    p = np.stack([P, P[::-1], [0.5, 0.5]])
    table = jax.jit(class_strengths, static_argnums=3)(p, H, C, "spectral")
    assert table.shape == (3, 2)
    np.testing.assert_allclose(table[0], class_strengths(P, H, C, "spectral"), rtol=1e-15)
    assert minority_ratio(table, p).shape == (3,)


def refuses(call, words):
    with pytest.raises(ValueError, match="^" + re.escape(words) + "$"):
        call()


def test_bad_arguments_are_named():
    refuses(lambda: class_strengths([0.8, 0.3], H, C, "spectral"), "`p` must be of sum 1, but got 1.1.")
    refuses(lambda: class_strengths([1.2, -0.2], H, C, "spectral"), "`p` must be zero or positive, but got -0.2.")
    refuses(lambda: class_strengths(1.0, H, C, "spectral"), "`p` must be a list of frequencies, but got a number.")
    refuses(lambda: class_strengths(P, [1.0, 0.0], C, "spectral"), "`h` must be positive, but got 0.")
    refuses(lambda: class_strengths(P, H, 0.0, "spectral"), "`noise` must be positive, but got 0.")
    refuses(
        lambda: class_strengths(P, H, C, "vicreg"),
        "`loss` must be one of infonce_distance, infonce_dot, spectral, barlow, alignment, but got vicreg.",
    )
    refuses(
        lambda: critical_frequency(1.0, C, "alignment"),
        "`loss` must be one of infonce_distance, infonce_dot, spectral, barlow, but got alignment.",
    )
    refuses(lambda: critical_frequency(1.0, C, "spectral", -0.2), "`temperature` must be positive, but got -0.2.")
    refuses(lambda: squared_response([-1.0, 1.0], P, H, C), "`strengths` must be zero or positive, but got -1.")
