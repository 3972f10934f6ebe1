"""Regimes measured from charges, any optimizer by a number, and what the experiments refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sims.engine.experiment import configure
from sims.noether import charges, phase_diagram, softmax
from sims.noether.charges import any_optimizer, one_of
from sims.noether.phase_diagram import measured_recursion, regime_of_roots
from sims.noether.setup import OPTIMIZERS, law_of, optimizer
from theory.noether import damping_code, linear_charge


@pytest.mark.parametrize(("beta", "e"), [(0.0, 0.3), (0.5, 0.01), (0.8, 0.3), (0.3, 2.5), (0.9, 3.9), (0.95, 1e-4)])
def test_memory_decay_and_regime_are_read_off_a_trajectory(beta, e):
    s = linear_charge(jnp.array([1.0, -0.3]), 60, 0.1, e / 0.1, beta)
    memory, decay = measured_recursion(s)
    np.testing.assert_allclose([memory, decay], [beta, e], rtol=1e-7, atol=1e-9)
    assert regime_of_roots(memory, decay) == damping_code(beta, e)


def test_the_loss_of_softmax_regression_cannot_see_a_shift():
    params, (x, y) = softmax.draw(jax.random.key(0), softmax.Sizes(3, 4, 5, 2))
    assert x.shape == (2, 5, 3)
    shifted = {"kernel": params["kernel"] + jnp.array([[0.3], [2.0], [-1.0]]), "bias": params["bias"] + 0.7}
    value = softmax.loss(params, (x[0], y[0]))
    np.testing.assert_allclose(softmax.loss(shifted, (x[0], y[0])), value, rtol=1e-12)


@pytest.mark.thorough
def test_one_compilation_holds_every_optimizer():
    cell, settings = {"weight_decay": 0.01}, {"learning_rate": 0.05, "momentum": 0.9}
    params, gradient = jnp.array([1.0, -2.0]), jnp.array([0.3, 0.1])
    for index, name in enumerate(OPTIMIZERS):
        rate = 0.001 if name == "AdamW" else 0.05
        alone, chosen = optimizer(name, rate, 0.9, 0.01), any_optimizer(jnp.int32(index), cell, settings)
        states = [alone.init(params), chosen.init(params)]
        for _ in range(3):
            with jax.numpy_dtype_promotion("standard"):
                (a, states[0]), (b, states[1]) = (
                    tx.update(gradient, state, params) for tx, state in zip((alone, chosen), states, strict=True)
                )
            np.testing.assert_allclose(a, b, rtol=1e-12)
        assert law_of(name, rate, 0.9, 0.01).decoupled == (name in ("decoupled decay", "AdamW"))
    assert optax.apply_updates(params, b).shape == (2,)


@pytest.mark.parametrize(
    ("experiment", "wish", "sentence"),
    [
        (phase_diagram, {"momentum": [1.0]}, "`momentum` must be from 0 to below 1, but got 1."),
        (phase_diagram, {"eta_lambda": [0.0]}, "`eta_lambda` must be positive, but got 0."),
        (charges, {"network": [3]}, "`network` must be one of 0 (mlp), 1 (cnn), 2 (transformer), but got 3."),
        (charges, {"weight_decay": [-0.1]}, "`weight_decay` must be non-negative, but got -0.1."),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_sentence(experiment, wish, sentence):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        configure(experiment, "smoke", wish)
    assert str(error.value) == sentence


def test_a_position_in_a_list_is_a_domain():
    domain = one_of(("a", "b"))
    assert domain.words == "one of 0 (a), 1 (b)"
    assert domain.holds(np.array([0, 1, 2, 0.5])).tolist() == [True, True, False, False]
