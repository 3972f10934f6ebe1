"""Grokking: the task, the start, the steps and the score against what they stand for."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sims.descent import gradient_descent
from sims.engine.agreement import assess
from sims.engine.experiment import configure, traced
from sims.engine.run import run
from sims.lazy_rich.grokking import (
    Sizes,
    accuracy,
    decayed_loss,
    draw_network,
    draw_pairs,
    first_right,
    grokking,
    imbalance,
    loss,
    outputs,
    predict,
    rescaled,
    simulate,
    sizes,
    squared_norm,
)
from theory.lazy_rich import conserved_quantity

SIZES = Sizes(p=7, width=24, train=36, checks=10, together=1)
KEY = jax.random.key(3)
TINY = {"p": 5, "width": 8, "every": 5, "checks": 2, "replicates": 2}


@pytest.fixture(scope="module")
def network():
    return draw_network(KEY, SIZES)


@pytest.fixture(scope="module")
def pairs():
    return draw_pairs(jax.random.key(4), SIZES)


def test_every_pair_is_trained_on_or_tested_on_with_its_sum(pairs):
    seen = [np.argmax(np.asarray(part.X).reshape(2, 7, -1), axis=1) for part in pairs]
    assert [column.shape[1] for column in seen] == [36, 13]
    assert {tuple(pair) for column in seen for pair in column.T} == {(a, b) for a in range(7) for b in range(7)}
    for part, (a, b) in zip(pairs, seen, strict=True):
        np.testing.assert_array_equal(part.X.sum(0), 2)
        np.testing.assert_array_equal(part.sums, (a + b) % 7)


def test_replicates_split_differently():
    one, other = (draw_pairs(jax.random.key(k), SIZES)[0].X for k in (0, 1))
    assert (np.asarray(one) != np.asarray(other)).any()


def test_three_quarters_are_trained_on():
    assert sizes(configure(grokking, "laptop").settings).train == 397


def test_the_start_has_the_scales_of_the_protocol():
    W, A = draw_network(KEY, SIZES._replace(p=101, width=300))
    assert (W.shape, A.shape) == ((300, 202), (101, 300))
    assert float(jnp.std(W)) == pytest.approx(202**-0.5, rel=0.02)
    assert float(jnp.std(A)) == pytest.approx(1 / 300, rel=0.02)


@pytest.mark.parametrize("alpha", [0.1, 0.65, 3.0])
def test_alpha_leaves_the_function_as_it_is(network, pairs, alpha):
    other = rescaled(network, alpha)
    np.testing.assert_allclose(other.W, alpha * network.W)
    np.testing.assert_allclose(outputs(other, pairs[0].X), outputs(network, pairs[0].X), rtol=1e-12)


def test_loss_and_accuracy_are_those_by_hand(network, pairs):
    W, A = map(np.asarray, network)
    errors, hits = [], []
    for column, label in zip(np.asarray(pairs[1].X).T, np.asarray(pairs[1].sums), strict=True):
        a, b = np.flatnonzero(column) % 7
        f = A @ (W[:, a] + W[:, 7 + b]) ** 2
        errors.append(((f - (np.arange(7) == label) + 1 / 7) ** 2).sum())
        hits.append(f.argmax() == label)
    assert float(loss(network, pairs[1])) == pytest.approx(np.mean(errors), rel=1e-12)
    assert float(accuracy(network, pairs[1])) == pytest.approx(np.mean(hits), rel=1e-12)


def test_a_step_is_that_of_gradient_descent_with_coupled_weight_decay(network, pairs):
    stepped = gradient_descent(lambda net: decayed_loss(net, pairs[0], 1e-3), network, 0.3, 1)
    optimizer = optax.chain(optax.add_decayed_weights(1e-3), optax.sgd(0.3))
    slope = jax.grad(loss)(network, pairs[0])
    updates, _ = optimizer.update(slope, optimizer.init(network), network)
    for now, expected in zip(stepped, optax.apply_updates(network, updates), strict=True):
        np.testing.assert_allclose(now, expected, rtol=1e-13, atol=1e-15)


def test_the_first_step_above_95_percent_is_found_and_a_later_one_counts_as_one_check_more():
    checkpoints = jnp.array([20, 40, 60])
    for accuracies, step in (([0.9, 0.96, 0.3], 40), ([0.96, 0.97, 1.0], 20), ([0.2, 0.95, 0.5], 80)):
        assert first_right(jnp.array(accuracies), checkpoints) == step


def test_the_steps_are_those_of_a_plain_loop():
    numbers = traced({"every": 20, "learning_rate": 0.3, "weight_decay": 1e-3})
    measured = jax.jit(simulate, static_argnums=3)(KEY, {"alpha": jnp.array([0.4, 0.7])}, numbers, SIZES)
    k_network, k_pairs = jax.random.split(KEY)
    start, (train, test) = draw_network(k_network, SIZES), draw_pairs(k_pairs, SIZES)
    optimizer = optax.chain(optax.add_decayed_weights(1e-3), optax.sgd(0.3))

    @jax.jit
    def step(network):
        updates, _ = optimizer.update(jax.grad(loss)(network, train), optimizer.init(network), network)
        return optax.apply_updates(network, updates)

    for i, alpha in enumerate((0.4, 0.7)):
        network, fitted = rescaled(start, alpha), []
        for count in range(200):
            network = step(network)
            if (count + 1) % 20 == 0:
                fitted.append(float(accuracy(network, train)))
        assert max(fitted) > 0.95 > fitted[0]
        assert float(measured["training_step"][i]) == 20 * (1 + np.argmax(np.array(fitted) > 0.95))
        assert float(measured["test_accuracy"][i]) == pytest.approx(float(accuracy(network, test)))


@pytest.mark.slow
def test_networks_trained_side_by_side_end_as_alone():
    numbers = traced({"every": 20, "learning_rate": 0.3, "weight_decay": 1e-3})
    cells = {"alpha": jnp.array([0.3, 0.5, 1.0])}
    alone, pairs = (simulate(KEY, cells, numbers, SIZES._replace(together=k)) for k in (1, 2))
    for name in grokking.outputs:
        np.testing.assert_array_equal(alone[name], pairs[name])


def test_the_flow_conserves_the_imbalance_of_every_neuron(network, pairs):
    W, A = network
    slope = jax.grad(loss)(network, pairs[0])
    change = 4 * jnp.sum(A * slope.A, axis=0) - 2 * jnp.sum(W * slope.W, axis=1)
    np.testing.assert_allclose(change, 0, atol=1e-12 * float(jnp.abs(W * slope.W).max()))


def test_imbalance_grows_as_alpha_falls_and_is_that_of_drawn_weights():
    wide = SIZES._replace(p=11, width=4000)
    alpha = jnp.array([0.02, 0.05, 0.3, 1.0])
    delta = imbalance(alpha, wide)
    np.testing.assert_allclose(delta, 22 / 4000**2 / alpha**4 - alpha**2, rtol=1e-12)
    assert (np.diff(delta) < 0).all()
    assert delta[0] > 0 > delta[-1]
    for value, expected in zip(alpha, delta, strict=True):
        W, A = rescaled(draw_network(KEY, wide), value)
        drawn = conserved_quantity(W, jnp.linalg.norm(A, axis=0), degree=2)
        assert float(jnp.mean(drawn)) == pytest.approx(float(expected), rel=0.03)
    balanced = jnp.asarray((22 / 4000**2) ** (1 / 6))
    assert float(imbalance(balanced, wide)) == pytest.approx(0, abs=1e-12)


def test_the_score_puts_upstream_first_and_the_norm_does_not():
    job = configure(grokking, "laptop")
    static = sizes(job.settings)
    cells = {"alpha": jnp.asarray(job.values["alpha"])}
    score, norm = predict(cells, {}, static)["grokking_step"], np.asarray(squared_norm(cells, {}, static))
    assert (np.diff(score) > 0).all()
    assert norm[0] == pytest.approx(norm[-1], rel=0.01)
    assert norm[0] > 5 * norm.min()
    W, A = rescaled(draw_network(KEY, static), 0.5)
    expected = squared_norm({"alpha": jnp.asarray(0.5)}, {}, static)
    assert float(jnp.sum(W**2) + jnp.sum(A**2)) == pytest.approx(float(expected), rel=0.05)


def test_a_network_that_diverges_is_a_failure(tmp_path):
    job = configure(grokking, "smoke", {**TINY, "alpha": [0.05, 1.0], "checks": 20})
    dataset, _ = run(job, tmp_path, progress=False)
    assert (dataset["status"].sel(alpha=0.05) == 2).all()
    assert (dataset["status"].sel(alpha=1.0) == 0).all()
    for name in grokking.outputs:
        np.testing.assert_array_equal(np.isnan(dataset[name]), dataset["status"] == 2)


@pytest.mark.thorough
def test_a_smoke_run_groks_sooner_upstream(tmp_path):
    dataset, _ = run(configure(grokking, "smoke"), tmp_path, progress=False)
    assert (dataset["status"] == 0).all()
    steps = dataset["grokking_step"].mean("replicate").values
    assert steps[0] < steps[-1]
    assert (dataset["training_step"] < dataset["grokking_step"]).all()
    (judgement,) = assess(dataset, grokking).judgements
    assert judgement.numbers["rank correlation"] > 0.7
    # Downstream of balance the norm has the same order.
    assert not judgement.twins["the smaller the norm of the weights"]


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        ({"alpha": [0.0, 0.5]}, "`alpha` must be positive, but got 0."),
        ({"alpha": [-1.0]}, "`alpha` must be positive, but got -1."),
        ({"p": 1}, "`p` must be a whole number, 2 or more, but got 1."),
        ({"share": 1.0}, "`share` must be above 0 and below 1, but got 1."),
        (
            {"p": 2, "share": 0.1},
            "`share` must be such that of 4 pairs some are trained on and some not, but got 0.1.",
        ),
        ({"width": 0}, "`width` must be a whole number, 1 or more, but got 0."),
        ({"learning_rate": -0.1}, "`learning_rate` must be non-negative, but got -0.1."),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_sentence(wish, sentence):
    with pytest.raises(ValueError, match="^" + sentence.replace(".", r"\.")):
        configure(grokking, "smoke", wish)
