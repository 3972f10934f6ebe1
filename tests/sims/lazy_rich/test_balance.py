"""The balance of a person's own network: against real steps written out, enumerated batches and the theory."""

import itertools
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sims.descent import gradient_flow
from sims.lazy_rich.balance import balance_report, step_change
from sims.lazy_rich.balance_example import compare
from theory.lazy_rich import conserved_quantity, conserved_sgd_step, conserved_step, gradient_noise

H, DECAY = 0.07, 0.3
RATES = {"Dense_0": {"kernel": 0.7, "bias": 1.9}, "Dense_1": 1.3, "Dense_2": 0.4}
ACTIVATIONS = {"linear": lambda z: z, "relu": nn.relu, "square": jnp.square, "tanh": nn.tanh}


@pytest.fixture(scope="module", autouse=True)
def flax_habits():
    """Flax's biases are broadcast; small networks are compiled often and run once."""
    jax.config.update("jax_disable_most_optimizations", True)
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield
    jax.config.update("jax_disable_most_optimizations", False)


class MLP(nn.Module):
    widths: tuple = (5, 4, 2)
    activation: str = "relu"
    bias: bool = True

    @nn.compact
    def __call__(self, x):
        for number, width in enumerate(self.widths):
            x = ACTIVATIONS[self.activation](x) if number else x
            x = nn.Dense(width, use_bias=self.bias)(x)
        return x


class ConvNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.avg_pool(nn.relu(nn.Conv(3, (3, 3))(x)), (2, 2), (2, 2))
        x = nn.max_pool(nn.relu(nn.Conv(4, (2, 2))(x)), (2, 1), (2, 1))
        return nn.Dense(2)(x.reshape(len(x), -1))


def random_like(params, seed=0, scale=0.7):
    """The same tree in float64, with every leaf random, the biases too."""
    draw = np.random.default_rng(seed).normal
    return jax.tree.map(lambda x: jnp.asarray(scale * draw(size=x.shape)), params)


def problem(model, shape=(6, 3), outputs=2):
    """(loss, parameters, batch)"""
    rng = np.random.default_rng(7)
    batch = jnp.asarray(rng.normal(size=shape)), jnp.asarray(rng.normal(size=(shape[0], outputs)))

    def loss(params, batch):
        return jnp.mean((model.apply(params, batch[0]) - batch[1]) ** 2)

    return loss, random_like(jax.eval_shape(model.init, jax.random.key(0), batch[0])), batch


def dense_delta(params, number, rates=None, degree=1):
    """The definition, for Dense layers, with the rates (of w, of its bias, of a)."""
    lower, upper = (params["params"][f"Dense_{i}"] for i in (number, number + 1))
    eta_w, eta_b, eta_a = rates or (1.0, 1.0, 1.0)
    w, a = np.asarray(lower["kernel"]), np.asarray(upper["kernel"])
    bias = eta_w / eta_b * np.asarray(lower["bias"]) ** 2 if "bias" in lower else 0.0
    return degree * eta_w * (a**2).sum(1) - eta_a * ((w**2).sum(0) + bias)


def stepped(params, gradient, rates=None, decay=0.0):
    """One step of the library's kind: every leaf at once."""

    def move(path, x, g):
        rate = 1.0 if rates is None else rates[path[1].key]
        rate = rate[path[2].key] if isinstance(rate, dict) else rate
        return x - H * rate * (g + decay * x)

    return jax.tree_util.tree_map_with_path(move, params, gradient)


@pytest.fixture(scope="module")
def relu():
    return problem(MLP())


@pytest.fixture(scope="module")
def relu_report(relu):
    loss, params, batch = relu
    return balance_report(params, step=H, loss=loss, batch=batch, batch_size=2, weight_decay=DECAY)


# ---- conserved quantity and steps


def test_a_step_of_a_relu_network_with_biases_and_four_rates_changes_delta_as_predicted():
    loss, params, batch = problem(MLP())
    report = balance_report(params, RATES, step=H, loss=loss, batch=batch, weight_decay=DECAY)
    gradient = jax.jit(jax.grad(loss))(params, batch)
    for number, rates in enumerate([(0.7, 1.9, 1.3), (1.3, 1.3, 0.4)]):
        pair, before = report[number], dense_delta(params, number, rates)
        np.testing.assert_allclose(pair.delta, before, atol=1e-14)
        np.testing.assert_allclose(pair.flow, 0, atol=1e-14)
        for drift, decay in ((pair.gd, 0.0), (pair.decay, DECAY)):
            after = dense_delta(stepped(params, gradient, RATES, decay), number, rates)
            np.testing.assert_allclose(drift.predicted, after - before, atol=1e-12)
            np.testing.assert_allclose(drift.measured, after - before, atol=1e-12)
    assert not any(pair.broken for pair in report.pairs)


def test_a_step_of_linear_layers_changes_the_conserved_matrix_as_predicted():
    loss, params, batch = problem(MLP(activation="linear"))
    gradient = jax.jit(jax.grad(loss))(params, batch)

    def matrix(p):
        lower, upper = p["params"]["Dense_0"], p["params"]["Dense_1"]
        w = np.concatenate([lower["kernel"], lower["bias"][None, :]])
        return np.asarray(0.7 * upper["kernel"] @ upper["kernel"].T - 1.3 * w.T @ w)

    rates = {"Dense_0": 0.7, "Dense_1": 1.3, "Dense_2": 0.4}
    pair = balance_report(params, rates, step=H, linear=True, gradients=gradient)["Dense_0"]
    change = matrix(stepped(params, gradient, rates)) - matrix(params)
    np.testing.assert_allclose(pair.matrix, matrix(params), atol=1e-14)
    np.testing.assert_allclose(pair.gd_matrix.predicted, change, atol=1e-12)
    np.testing.assert_allclose(pair.gd_matrix.measured, change, atol=1e-12)
    np.testing.assert_allclose(np.diag(pair.matrix), pair.delta, atol=1e-14)
    assert not pair.broken


def test_relu_layers_taken_for_linear_are_found_out(relu):
    loss, params, batch = relu
    report = balance_report(params, linear=["Dense_1"], loss=loss, batch=batch)
    assert [pair.broken for pair in report.pairs] == [False, True]
    assert "Dense_1 -> Dense_2 conserves nothing" in str(report).replace("\n", " ")


def test_a_squared_activation_conserves_delta_of_degree_two_and_no_other():
    loss, params, batch = problem(MLP((5, 2), "square"))
    gradient = jax.jit(jax.grad(loss))(params, batch)
    right, wrong = (balance_report(params, step=H, gradients=gradient, degree=k)[0] for k in (2, {"Dense_0": 1}))
    change = dense_delta(stepped(params, gradient), 0, degree=2) - dense_delta(params, 0, degree=2)
    np.testing.assert_allclose(right.gd.predicted, change, atol=1e-12)
    np.testing.assert_allclose(right.gd.measured, change, atol=1e-12)
    assert not right.broken
    assert wrong.broken
    assert abs(wrong.gd.predicted - wrong.gd.measured).max() > 1e-3


def test_convolutions_with_pooling_and_flattening_conserve_delta_channel_by_channel():
    loss, params, batch = problem(ConvNet(), (4, 4, 6, 2))
    report = balance_report(params, step=H, loss=loss, batch=batch)
    gradient = jax.jit(jax.grad(loss))(params, batch)

    def deltas(p):
        first, second, head = (p["params"][name] for name in ("Conv_0", "Conv_1", "Dense_0"))
        squares = [(layer["kernel"] ** 2).sum((0, 1, 2)) + layer["bias"] ** 2 for layer in (first, second)]
        flat = (head["kernel"].reshape(-1, 4, 2) ** 2).sum((0, 2))
        return [np.asarray(x) for x in ((second["kernel"] ** 2).sum((0, 1, 3)) - squares[0], flat - squares[1])]

    for pair, before, after in zip(report.pairs, deltas(params), deltas(stepped(params, gradient)), strict=True):
        np.testing.assert_allclose(pair.delta, before, atol=1e-13)
        np.testing.assert_allclose(pair.gd.predicted, after - before, atol=1e-12)
        assert not pair.broken


@pytest.mark.parametrize("twin", ["other sign", "rates exchanged", "outgoing weights by the new incoming ones"])
def test_the_measured_step_rejects_a_wrong_twin(twin):
    loss, params, batch = problem(MLP((5, 2)))
    rates = {"Dense_0": 0.7, "Dense_1": 1.3}
    gradient = jax.jit(jax.grad(loss))(params, batch)
    pair = balance_report(params, rates, step=H, gradients=gradient)[0]
    after, predicted = stepped(params, gradient, rates), pair.gd.predicted
    if twin == "other sign":
        predicted = -predicted
    elif twin == "rates exchanged":
        w2 = (gradient["params"]["Dense_0"]["kernel"] ** 2).sum(0) + gradient["params"]["Dense_0"]["bias"] ** 2
        a2 = (gradient["params"]["Dense_1"]["kernel"] ** 2).sum(1)
        predicted = step_change(w2, a2, H, eta_w=1.3, eta_a=0.7)
    else:
        mixed = {"params": {"Dense_0": after["params"]["Dense_0"], "Dense_1": params["params"]["Dense_1"]}}
        after["params"]["Dense_1"] = stepped(params, jax.grad(loss)(mixed, batch), rates)["params"]["Dense_1"]
    change = dense_delta(after, 0, (0.7, 0.7, 1.3)) - dense_delta(params, 0, (0.7, 0.7, 1.3))
    assert abs(predicted - change).max() > 0.05 * abs(change).max()


def test_delta_and_its_change_are_those_of_the_theory_for_one_linear_output():
    rng = np.random.default_rng(3)
    X, y, W, a = (rng.normal(size=shape) for shape in ((7, 3), 7, (3, 4), 4))
    beta = W @ a
    gradient = [-np.outer(X.T @ (y - X @ beta), a), -W.T @ X.T @ (y - X @ beta)]
    pair = balance_report([W, a], [0.5, 1.4], step=H, gradients=gradient)[0]
    v = X.T @ (y - X @ beta)
    expected = conserved_step(W.T, a, np.broadcast_to(v, (4, 3)), H, eta_a=1.4, eta_w=0.5)
    np.testing.assert_allclose(pair.gd.predicted, expected, rtol=1e-12)
    np.testing.assert_allclose(pair.delta, conserved_quantity(W.T, a, eta_a=1.4, eta_w=0.5), rtol=1e-12)


# ---- minibatches


def test_the_mean_change_over_minibatches_is_that_over_every_batch(relu, relu_report):
    loss, params, batch = relu
    gradient_of = jax.jit(jax.grad(loss))
    changes = []
    for indices in itertools.product(range(6), repeat=2):
        gradient = gradient_of(params, [x[jnp.array(indices)] for x in batch])
        changes.append([dense_delta(stepped(params, gradient), i) - dense_delta(params, i) for i in (0, 1)])
    for number, pair in enumerate(relu_report.pairs):
        mean = np.mean([change[number] for change in changes], axis=0)
        np.testing.assert_allclose(pair.sgd.predicted, mean, atol=1e-12)
        np.testing.assert_allclose(pair.sgd.measured, mean, atol=1e-12)
        assert abs(pair.gd.predicted - mean).max() > 1e-3


def test_a_list_and_a_tree_of_sample_gradients_say_the_same_as_the_loss(relu, relu_report):
    loss, params, batch = relu
    gradient_of = jax.jit(jax.grad(loss))
    singles = [gradient_of(params, [x[j : j + 1] for x in batch]) for j in range(6)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *singles)
    for sample_gradients in (singles, stacked):
        pair = balance_report(params, step=H, sample_gradients=sample_gradients, batch_size=2)[0]
        np.testing.assert_allclose(pair.sgd.predicted, relu_report[0].sgd.predicted, atol=1e-13)
        np.testing.assert_allclose(pair.gd.predicted, relu_report[0].gd.predicted, atol=1e-13)
    minibatches = balance_report(params, step=H, sample_gradients=singles)
    assert minibatches.batch_size == 1
    np.testing.assert_allclose(minibatches[0].sgd.predicted, minibatches[0].sgd.measured, atol=1e-12)


def test_drawn_batches_agree_within_their_error_and_the_noiseless_twin_does_not(relu):
    loss, params, batch = relu
    pair = balance_report(params, step=H, loss=loss, batch=batch, batch_size=5, draws=400)[0]
    assert (pair.sgd.error > 0).all()
    assert (abs(pair.sgd.measured - pair.sgd.predicted) < 5 * pair.sgd.error).all()
    assert (abs(pair.sgd.measured - pair.gd.predicted) > 5 * pair.sgd.error).any()


def test_minibatches_drift_as_the_theory_of_one_linear_neuron_says():
    rng = np.random.default_rng(4)
    X, y, w = rng.normal(size=(5, 3)), rng.normal(size=5), rng.normal(size=(3, 1))
    a = np.array([0.8])
    v, C = gradient_noise(a[0] * w[:, 0], X, y)
    draws = [5 * x * (t - x @ w[:, 0] * a[0]) for x, t in zip(X, y, strict=True)]
    gradients = [[-a * u[:, None], -w.T @ u] for u in draws]
    pair = balance_report([w, a], step=0.01, sample_gradients=gradients, batch_size=3)[0]
    expected = conserved_sgd_step(w[:, 0], a[0], v, C, 3, 0.01)
    np.testing.assert_allclose(pair.sgd.predicted, [expected], rtol=1e-12)


# ---- weight decay


def test_gradient_flow_with_weight_decay_takes_delta_down_exponentially():
    loss, params, batch = problem(MLP((4, 2), "linear"))
    pair = balance_report(params, weight_decay=DECAY)[0]

    def decayed(p):
        return loss(p, batch) + DECAY / 2 * sum((x**2).sum() for x in jax.tree.leaves(p))

    after = jax.jit(lambda p: gradient_flow(decayed, p, 0.2, 200))(params)
    np.testing.assert_allclose(pair.decayed(0.2), dense_delta(after, 0), rtol=1e-9)
    assert pair.decayed([0.0, 1.0]).shape == (2, 4)
    with pytest.raises(ValueError, match=r"^`learning_rates` must be equal for an exponential decay"):
        balance_report(params, {"Dense_0": RATES["Dense_0"], "Dense_1": 0.7}, weight_decay=DECAY)[0].decayed(1.0)


# ---- which layers


def test_layers_sorted_by_a_tree_operation_are_found_in_the_order_of_their_numbers():
    params = {f"Dense_{i}": {"kernel": np.ones((i + 2, i + 3))} for i in range(12)}
    names = [pair.lower for pair in balance_report(jax.tree.map(lambda x: x, params)).pairs]
    assert names == [f"Dense_{i}" for i in range(11)]


def test_layers_keep_the_order_of_creation_and_other_orders_can_be_told():
    a, b, c = (np.ones(shape) for shape in ((5, 3), (3, 4), (4, 2)))
    created = {"params": {"stem": {"kernel": a}, "body": {"kernel": b}, "head": {"kernel": c}}}
    assert [pair.name for pair in balance_report(created).pairs] == ["stem -> body", "body -> head"]
    nested = {"z": {"in": {"kernel": a}}, "a": {"kernel": b}, "scale": np.ones(3)}
    assert balance_report(nested)[0].name == "z/in -> a"
    told = {"body": {"kernel": b}, "head": {"kernel": c}, "stem": {"kernel": a}}
    assert len(balance_report(told, order=["stem", "body", "head"])) == 2
    assert [pair.name for pair in balance_report(told, pairs=[("stem", "body")]).pairs] == ["stem -> body"]
    (note,) = balance_report(told).notes
    assert note.startswith("head and stem are no pair: layers must chain, but head has shape (4, 2) and stem (5, 3)")


def test_a_norm_layer_or_tanh_between_two_layers_breaks_the_conservation():
    class Normed(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.LayerNorm()(nn.Dense(5)(x)))
            return nn.Dense(2)(x)

    for model in (Normed(), MLP((5, 2), "tanh")):
        loss, params, batch = problem(model)
        report = balance_report(params, step=1e-4, loss=loss, batch=batch)
        assert report[0].broken
        change = report[0].gd.measured - report[0].gd.predicted
        np.testing.assert_allclose(change, 1e-4 * report[0].flow, atol=1e-12)


# ---- words and numbers


def test_sides_follow_the_tolerance():
    pair = balance_report([np.diag([1.0, 1.0, 1.0]), np.diag([0.5, 1.05, 2.0])], tolerance=0.05)[0]
    assert pair.sides == ["downstream", "balanced", "upstream"]
    np.testing.assert_allclose(pair.relative, [-0.6, 0.1025 / 2.1025, 0.6], rtol=1e-12)
    assert balance_report([np.eye(2), np.zeros((2, 2))])[0].side == "downstream"
    assert balance_report([np.zeros((2, 2)), np.zeros((2, 2))])[0].side == "balanced"


def test_the_report_is_a_table_and_ready_for_json(relu_report):
    text = str(relu_report)
    assert all(word in text for word in ("Dense_1 -> Dense_2", "gradient descent", "minibatches", "with weight decay"))
    assert max(map(len, text.splitlines())) < 140
    first = json.loads(json.dumps(relu_report.to_dict(), allow_nan=False))["pairs"][0]
    assert first["side"] == relu_report[0].side
    np.testing.assert_array_equal(first["gd"]["predicted"], relu_report[0].gd.predicted)


def test_float32_parameters_are_judged_in_float64(relu):
    loss, params, batch = relu
    small = jax.tree.map(lambda x: x.astype(jnp.float32), (params, batch))
    with jax.enable_x64(False):
        pair = balance_report(small[0], step=1e-3, loss=loss, batch=small[1])[0]
    assert pair.delta.dtype == np.float64
    assert not pair.broken
    np.testing.assert_allclose(pair.gd.measured, pair.gd.predicted, atol=1e-8)


# ---- bad input

GOOD = [np.ones((2, 3)), np.ones((3, 2))]
NAMED = {"Dense_0": {"kernel": GOOD[0]}, "Dense_1": {"kernel": GOOD[1]}}


@pytest.mark.parametrize(
    ("arguments", "keywords", "sentence"),
    [
        ([[np.ones((2, 3)), np.ones((4, 2))]], {}, r"`params` must chain, but 0 has shape \(2, 3\) and 1 \(4, 2\)\."),
        ([{}], {}, r"`params` must hold at least two layers, but got 0\."),
        ([[np.ones((2, 3))]], {}, r"`params` must hold at least two layers, but got 1\."),
        ([3.0], {}, r"`params` must be a dict of layers or a list of matrices, but got float\."),
        ([[np.full((2, 3), np.nan), GOOD[1]]], {}, r"`params` must be finite, but layer 0 is not\."),
        ([GOOD, 0.0], {}, r"`learning_rates` must be positive, but got 0\."),
        ([GOOD, np.inf], {}, r"`learning_rates` must be finite, but got inf\."),
        ([GOOD, [1.0]], {}, r"`learning_rates` must hold a rate for layer 1, but it does not\."),
        ([NAMED, {"Dense_0": 1.0}], {}, r"`learning_rates` must hold a rate for layer Dense_1, but it does not\."),
        ([NAMED], {"order": ["Dense_0", "Head"]}, r"`order` must name layers among Dense_0, Dense_1, but got Head\."),
        ([NAMED], {"pairs": [("Dense_1", "Head")]}, r"`pairs` must name layers among Dense_0, Dense_1, but got Head\."),
        ([NAMED], {"degree": {"Head": 2}}, r"`degree` must name layers among .*, but got Head\."),
        ([NAMED], {"degree": -1.0}, r"`degree` must be positive, but got -1\."),
        ([NAMED], {"linear": True, "degree": 2}, r"`degree` must be 1 after the linear layer Dense_0, but"),
        ([GOOD], {"step": 0.0}, r"`step` must be positive, but got 0\."),
        ([GOOD], {"weight_decay": -0.1}, r"`weight_decay` must be zero or positive, but got -0\.1\."),
        ([GOOD], {"gradients": GOOD[::-1]}, r"`gradients` must have shape \(2, 3\) in 0, but got \(3, 2\)\."),
        ([GOOD], {"gradients": GOOD[:1]}, r"`gradients` must hold an array at 1, but it does not\."),
        ([GOOD], {"gradients": [np.inf * GOOD[0], GOOD[1]]}, r"`gradients` must be finite, but layer 0 is not\."),
        ([GOOD], {"sample_gradients": []}, r"`sample_gradients` must hold at least one gradient, but got none\."),
        ([GOOD], {"sample_gradients": [GOOD], "batch_size": 0}, r"`batch_size` must be a whole number not below 1"),
        ([GOOD], {"batch_size": 2}, r"`batch_size` needs `sample_gradients`, or `loss` and `batch`, but got 2 alone\."),
        (
            [GOOD],
            {"loss": sum, "gradients": GOOD},
            r"`loss` must be left out where gradients are given, but got both\.",
        ),
    ],
)
def test_a_wrong_argument_of_the_report_is_one_sentence(arguments, keywords, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}"):
        balance_report(*arguments, **keywords)


def test_a_loss_that_is_a_sum_over_samples_is_refused(relu):
    loss, params, batch = relu
    with pytest.raises(ValueError, match=r"must be the mean over the samples, .* is 0\.1667 of its gradient"):
        balance_report(params, loss=lambda p, b: len(b[0]) * loss(p, b), batch=batch, batch_size=1)


# ---- the example


@pytest.mark.thorough
def test_the_example_s_upstream_network_changes_its_activation_patterns_faster():
    results = compare(steps=30)
    (before, slow), (after, fast) = results.values()
    assert (before[0].side, after[0].side) == ("downstream", "upstream")
    assert fast.changed[9] > 4 * slow.changed[9]
    for _, run in results.values():
        assert run.predicted == pytest.approx(run.measured, rel=1e-9)
