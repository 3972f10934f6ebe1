"""Initializations of a wanted scale and imbalance: against the balance report of their weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sims.lazy_rich.balance import balance_report
from sims.lazy_rich.initialization import initialize


@pytest.mark.parametrize("delta", [-2.0, 0.0, 0.3])
@pytest.mark.parametrize("activation", ["linear", "relu", "square"])
def test_an_exact_initialization_has_tau_and_delta_in_every_neuron(delta, activation):
    start = initialize(0.6, delta, (3, 8, 2), learning_rates=(0.7, 1.3), activation=activation)
    kernels = start.kernels(jax.random.key(0), exact=True)
    pair = balance_report(kernels, [0.7, 1.3], degree=2 if activation == "square" else 1)[0]
    np.testing.assert_allclose(pair.delta, delta, atol=1e-13)
    np.testing.assert_allclose([pair.tau, pair.alpha], [0.6, start.alpha], rtol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(kernels[0], axis=0), 0.6 * start.alpha, rtol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(kernels[1], axis=1), 0.6 / start.alpha, rtol=1e-12)


def test_a_gaussian_initialization_has_tau_and_delta_in_the_mean():
    start = initialize(0.5, -0.4, (40, 3000, 30))
    pair = balance_report(start.kernels(jax.random.key(1)))[0]
    error = pair.delta.std() / 3000**0.5
    assert abs(pair.delta.mean() + 0.4) < 4 * error < 0.01
    assert pair.tau == pytest.approx(0.5, rel=0.01)
    np.testing.assert_allclose(start.gains, start.stds * np.sqrt([40, 3000]))


def test_deep_networks_put_delta_on_the_first_hidden_layer_or_where_they_are_told():
    widths, rates = (3, 6, 5, 4, 2), (0.5, 1.0, 2.0, 0.8)
    for delta, expected in ((0.7, (0.7, 0, 0)), ([-0.2, 0.3, 0.1], (-0.2, 0.3, 0.1))):
        start = initialize(0.8, delta, widths, learning_rates=rates)
        report = balance_report(start.kernels(jax.random.key(2), exact=True), list(rates))
        for pair, value in zip(report.pairs, expected, strict=True):
            np.testing.assert_allclose(pair.delta, value, atol=1e-12)
        assert report[0].tau == pytest.approx(0.8, rel=1e-12)


def test_a_narrow_linear_layer_gets_a_conserved_matrix_delta_times_identity():
    kernels = initialize(0.5, 0.8, (6, 3, 4), activation="linear").kernels(jax.random.key(0), exact=True)
    np.testing.assert_allclose(balance_report(kernels, linear=True)[0].matrix, 0.8 * np.eye(3), atol=1e-14)


def test_flax_parameters_are_initialized_anew_in_place():
    layers = {"Dense_0": (3, 5), "Dense_1": (5, 4), "Dense_2": (4, 2)}
    params = {"params": {name: {"kernel": jnp.ones(s), "bias": jnp.ones(s[1])} for name, s in layers.items()}}
    start = initialize(0.5, 0.2, (3, 5, 4, 2))
    new = start.like(params, jax.random.key(0), exact=True)
    assert jax.tree.structure(new) == jax.tree.structure(params)
    assert not np.any(new["params"]["Dense_0"]["bias"])
    np.testing.assert_allclose(balance_report(new)[0].delta, 0.2, atol=1e-12)
    with pytest.raises(ValueError, match=r"^`params` must have shape \(3, 7\) in Dense_0, but got \(3, 5\)\.$"):
        initialize(0.5, 0.2, (3, 7, 4, 2)).like(params, jax.random.key(0))
    with pytest.raises(ValueError, match=r"^`params` must have 2 layers, but got Dense_0, Dense_1, Dense_2\.$"):
        initialize(0.5, 0.2, (3, 5, 2)).like(params, jax.random.key(0))
    assert "gain" in str(start)


@pytest.mark.parametrize(
    ("arguments", "keywords", "sentence"),
    [
        ((0.0, 0.1, (2, 3, 1)), {}, r"`tau` must be positive, but got 0\."),
        ((np.inf, 0.1, (2, 3, 1)), {}, r"`tau` must be finite, but got inf\."),
        ((0.5, np.nan, (2, 3, 1)), {}, r"`delta` must be finite, but got nan\."),
        ((0.5, 0.1, (2, 0, 1)), {}, r"`widths` must be a whole number not below 1, but got 0\."),
        (
            (0.5, 0.1, (2, 1)),
            {},
            r"`widths` must hold inputs, at least one hidden layer, and outputs, but got \(2, 1\)",
        ),
        ((0.5, 0.1, ()), {}, r"`widths` must hold inputs, .*, but got \(\)"),
        ((0.5, 0.1, (2, 3, 1)), {"learning_rates": (1, -1)}, r"`learning_rates` must be positive, but got -1\."),
        (
            (0.5, 0.1, (2, 3, 1)),
            {"learning_rates": (1, 1, 1)},
            r"`learning_rates` must be .* each of 2 layers, but got 3",
        ),
        ((0.5, 0.1, (2, 3, 1)), {"activation": "gelu"}, r"`activation` must be one of linear, .*, but got gelu\."),
        ((0.5, [0, -9.0], (2, 3, 3, 1)), {}, r"`delta` must be above -0\.25 in hidden layer 2, but got -9\."),
    ],
)
def test_a_wrong_argument_of_the_initializer_is_one_sentence(arguments, keywords, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}"):
        initialize(*arguments, **keywords)
