"""The random hierarchy model: grammar, inputs, network, learning rate and score against what they stand for."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from sims.descent import gradient_descent
from sims.engine.experiment import configure, traced
from sims.engine.run import run
from sims.lazy_rich.hierarchy import (
    Grammar,
    Sizes,
    accuracy,
    derive,
    draw_inputs,
    draw_network,
    draw_rules,
    half_way,
    half_way_downstream,
    hierarchy,
    imbalance,
    logits,
    loss,
    predict,
    rescaled,
    sharpness,
    simulate,
    sizes,
    small_norm,
)

GRAMMARS = [Grammar(3, 3, 2, 2, 2), Grammar(4, 2, 3, 2, 3), Grammar(3, 5, 2, 3, 2)]
COUNTS = [24, 2 * 3**7, 5 * 2**4]
SIZES = Sizes(Grammar(3, 3, 2, 2, 2), P=12, width=5, test_inputs=4096, together=1)
KEY = jax.random.key(2)
TINY = {"v": 3, "n_c": 3, "m": 2, "P": [12], "width": 5, "steps": 20, "iterations": 20, "replicates": 2}


@pytest.fixture(scope="module")
def network():
    return draw_network(KEY, SIZES)


@pytest.fixture(scope="module")
def inputs():
    return draw_inputs(jax.random.key(5), SIZES)


@pytest.mark.parametrize("grammar", GRAMMARS)
def test_a_symbol_has_m_tuples_and_no_tuple_two_symbols(grammar):
    rules = draw_rules(KEY, grammar)
    assert [rule.shape for rule in rules] == [(grammar.n_c, grammar.m)] + [(grammar.v, grammar.m)] * (grammar.L - 1)
    for rule in rules:
        assert len(np.unique(rule)) == rule.size
        assert 0 <= int(rule.min()) <= int(rule.max()) < grammar.v**grammar.s


@pytest.mark.parametrize(("grammar", "count"), list(zip(GRAMMARS, COUNTS, strict=True)))
def test_all_inputs_differ_and_read_from_below_give_their_class(grammar, count):
    assert grammar.inputs == count
    rules = draw_rules(KEY, grammar)
    symbols, classes = map(np.asarray, derive(rules, jnp.arange(count), grammar))
    assert symbols.shape == (count, grammar.s**grammar.L)
    assert len(np.unique(symbols, axis=0)) == count
    np.testing.assert_array_equal(np.bincount(classes), count // grammar.n_c)
    read = symbols
    for rule in reversed(rules):
        parent = {int(number): symbol for symbol, row in enumerate(np.asarray(rule)) for number in row}
        numbers = read.reshape(count, -1, grammar.s) @ grammar.v ** np.arange(grammar.s)
        read = np.vectorize(parent.__getitem__)(numbers)
    np.testing.assert_array_equal(read[:, 0], classes)


def test_levels_have_rules_of_their_own():
    top, bottom = draw_rules(KEY, Grammar(6, 6, 3, 2, 2))
    assert (np.asarray(top) != np.asarray(bottom)).any()


def test_inputs_are_one_hot_distinct_and_never_both_trained_and_tested_on(inputs):
    train, test = inputs
    assert (train.X.shape, test.X.shape) == ((12, 4, 3), (12, 4, 3))
    everything = np.concatenate([np.asarray(part.X).argmax(-1) for part in inputs])
    assert len(np.unique(everything, axis=0)) == 24
    for part in inputs:
        np.testing.assert_array_equal(part.X.sum(-1), 1)
        np.testing.assert_array_equal(part.classes.sum(-1), 1)
    few = draw_inputs(jax.random.key(5), SIZES._replace(test_inputs=4))
    np.testing.assert_array_equal(few[0].X, train.X)
    np.testing.assert_array_equal(few[1].X, test.X[:4])


def test_layers_are_convolutions_whose_kernel_and_stride_are_s(network, inputs):
    X = inputs[0].X
    expected = X
    for kernel in network.kernels:
        layer = nn.Conv(5, kernel_size=(2,), strides=(2,), padding="VALID", use_bias=False)
        expected = jax.nn.relu(layer.apply({"params": {"kernel": kernel.reshape(2, -1, 5)}}, expected))
    assert expected.shape == (12, 1, 5)
    np.testing.assert_allclose(logits(network, X), expected[:, 0] @ network.readout, rtol=1e-12)


def test_the_start_has_the_scales_of_the_protocol():
    wide = draw_network(KEY, SIZES._replace(width=400))
    assert [kernel.shape for kernel in wide.kernels] == [(6, 400), (800, 400)]
    deviations = [float(jnp.std(layer)) for layer in (*wide.kernels, wide.readout)]
    np.testing.assert_allclose(deviations, [(2 / 6) ** 0.5, (2 / 800) ** 0.5, 400**-0.5], rtol=0.04)


@pytest.mark.parametrize("alpha", [0.1, 0.6, 5.0])
def test_alpha_leaves_the_function_as_it_is(network, inputs, alpha):
    other = rescaled(network, alpha)
    np.testing.assert_allclose(other.kernels[0], alpha * network.kernels[0])
    np.testing.assert_allclose(logits(other, inputs[0].X), logits(network, inputs[0].X), rtol=1e-12)


def test_loss_and_accuracy_are_those_by_hand(network, inputs):
    scores, classes = np.asarray(logits(network, inputs[1].X)), np.asarray(inputs[1].classes).argmax(1)
    right = scores[np.arange(12), classes]
    assert float(loss(network, inputs[1])) == pytest.approx(np.mean(np.log(np.exp(scores).sum(1)) - right), rel=1e-12)
    assert float(accuracy(network, inputs[1])) == pytest.approx(np.mean(scores.argmax(1) == classes))


def hessian_of(network, inputs):
    flat, unravel = ravel_pytree(network)
    return np.asarray(jax.jit(jax.hessian(lambda x: loss(unravel(x), inputs)))(flat))


@pytest.mark.parametrize("alpha", [0.3, 2.0])
def test_sharpness_is_the_largest_eigenvalue_of_the_dense_hessian(network, inputs, alpha):
    start, train = rescaled(network, alpha), inputs[0]
    values = np.linalg.eigvalsh(hessian_of(start, train))
    measured = jax.jit(lambda net: sharpness(KEY, lambda x: loss(x, train), net, 300))(start)
    assert float(measured) == pytest.approx(values[-1], rel=1e-6)


@pytest.mark.thorough
def test_training_takes_the_learning_rate_and_the_steps_that_it_says():
    numbers = traced({"rate": 0.7, "iterations": 300, "steps": 30})
    measured = jax.jit(simulate, static_argnums=3)(KEY, {"alpha": jnp.array([0.3, 2.0])}, numbers, SIZES)
    k_network, k_inputs, _ = jax.random.split(KEY, 3)
    (train, test), start = draw_inputs(k_inputs, SIZES), draw_network(k_network, SIZES)
    for i, alpha in enumerate((0.3, 2.0)):
        network = rescaled(start, alpha)
        rate = 0.7 / np.linalg.eigvalsh(hessian_of(network, train))[-1]
        assert float(measured["learning_rate"][i]) == pytest.approx(rate, rel=1e-5)
        sgd = optax.sgd(rate)

        @jax.jit
        def step(network, sgd=sgd):
            updates, _ = sgd.update(jax.grad(loss)(network, train), sgd.init(network))
            return optax.apply_updates(network, updates)

        for _ in range(30):
            network = step(network)
        assert float(measured["training_accuracy"][i]) == pytest.approx(float(accuracy(network, train)))
        assert float(measured["test_accuracy"][i]) == pytest.approx(float(accuracy(network, test)))


@pytest.mark.slow
def test_networks_trained_side_by_side_end_as_alone():
    numbers = traced({"rate": 0.7, "iterations": 50, "steps": 30})
    cells = {"alpha": jnp.array([0.3, 0.5, 1.0])}
    alone, pairs = (simulate(KEY, cells, numbers, SIZES._replace(together=k)) for k in (1, 2))
    for name in hierarchy.outputs:
        np.testing.assert_allclose(alone[name], pairs[name], rtol=1e-10)


def test_a_step_is_a_plain_gradient_step(network, inputs):
    stepped = gradient_descent(lambda net: loss(net, inputs[0]), network, 0.4, 1)
    expected = jax.tree.map(lambda x, slope: x - 0.4 * slope, network, jax.grad(loss)(network, inputs[0]))
    for now, then in zip(jax.tree.leaves(stepped), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(now, then, rtol=1e-13, atol=1e-15)


@pytest.mark.thorough
def test_the_flow_conserves_the_imbalance_of_the_outer_layers(inputs):
    deep = draw_network(KEY, SIZES._replace(grammar=Grammar(3, 3, 2, 2, 3)))
    X = jax.nn.one_hot(jax.random.randint(KEY, (9, 8), 0, 3), 3, dtype=float)
    slope = jax.grad(loss)(deep, inputs[0]._replace(X=X, classes=inputs[0].classes[:9]))
    sums = [float(jnp.sum(x * g)) for x, g in zip(jax.tree.leaves(deep), jax.tree.leaves(slope), strict=True)]
    assert abs(sums[0]) > 1e-3
    np.testing.assert_allclose(sums, sums[0], rtol=1e-12)


def test_imbalance_grows_as_alpha_falls_and_is_that_of_drawn_weights():
    wide = SIZES._replace(grammar=Grammar(8, 8, 4, 2, 2), width=600)
    alpha = jnp.array([0.1, 0.25, 0.6, 2.0])
    delta = imbalance(alpha, wide)
    assert (np.diff(delta) < 0).all()
    assert delta[0] > 0 > delta[-1]
    assert float(imbalance(jnp.asarray((8 / 1200) ** 0.25), wide)) == pytest.approx(0, abs=1e-10)
    for value, expected in zip(alpha, delta, strict=True):
        drawn = rescaled(draw_network(KEY, wide), value)
        measured = jnp.sum(drawn.readout**2) - jnp.sum(drawn.kernels[0] ** 2)
        assert float(measured) == pytest.approx(float(expected), rel=0.06)


def test_the_score_puts_upstream_highest_and_the_norm_does_not():
    job = configure(hierarchy, "laptop")
    static = sizes({**job.settings, "P": 64.0})
    cells = {"alpha": jnp.asarray(job.values["alpha"])}
    assert (np.diff(predict(cells, {}, static)["test_accuracy"]) < 0).all()
    norm = -np.asarray(small_norm(cells, {}, static))
    assert norm[0] == pytest.approx(norm[-1], rel=0.01)
    assert norm[0] > 10 * norm.min()


def test_claims_speak_of_the_sample_size_at_which_about_half_is_learnt():
    settings = configure(hierarchy, "laptop").settings
    cells = {"P": np.array([64, 128, 256, 256, 256.0]), "alpha": np.array([1.0, 1.0, 0.1, 0.59, 0.6])}
    assert half_way(cells, settings).tolist() == [False, False, True, True, True]
    assert half_way_downstream(cells, settings).tolist() == [False, False, False, False, True]


def test_a_network_that_diverges_is_a_failure(tmp_path):
    job = configure(hierarchy, "smoke", {**TINY, "alpha": [0.05, 0.6], "rate": 1e200})
    dataset, _ = run(job, tmp_path, progress=False)
    assert (dataset["status"] == 2).all()
    assert all(np.isnan(dataset[name]).all() for name in hierarchy.outputs)


@pytest.mark.thorough
def test_a_smoke_run_learns(tmp_path):
    dataset, _ = run(configure(hierarchy, "smoke"), tmp_path, progress=False)
    assert (dataset["status"] == 0).all()
    assert (dataset["training_accuracy"] > 0.9).all()
    mean = dataset["test_accuracy"].mean("replicate")
    assert (mean > 0.25).all(), "a guess is right in one of eight"
    assert float(mean.sel(alpha=0.5).squeeze()) > float(mean.sel(alpha=2.0).squeeze())


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        ({"alpha": [0.0, 0.5]}, "`alpha` must be positive, but got 0."),
        ({"m": 9}, "`m` must be such that v m is at most v^s = 64, but got 72."),
        ({"n_c": 20}, "`m` must be such that n_c m is at most v^s = 64, but got 80."),
        ({"P": [128, 512]}, "`P` must be below the number of inputs, 512, but got 512."),
        ({"P": [0]}, "`P` must be a whole number, 1 or more, but got 0."),
        ({"L": 4}, "`L` must leave at most 10000000 inputs, but got 8589934592."),
        ({"s": 1}, "`s` must be a whole number, 2 or more, but got 1."),
        ({"rate": 0.0}, "`rate` must be positive, but got 0."),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_sentence(wish, sentence):
    with pytest.raises(ValueError, match="^" + sentence.replace(".", r"\.").replace("^s", r"\^s")):
        configure(hierarchy, "smoke", wish)
