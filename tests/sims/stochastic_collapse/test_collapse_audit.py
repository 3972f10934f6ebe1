"""The auditor against real training: networks it was not written for, and a neuron whose exponents are known."""

import itertools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sims.stochastic_collapse.collapse_audit import (
    HeavyBall,
    Sampling,
    collapse_exponent,
    normal_growth,
)
from sims.stochastic_collapse.collapse_critical import critical_batch_size, critical_learning_rate
from sims.stochastic_collapse.collapse_example import compare
from sims.stochastic_collapse.collapse_report import collapse_report
from sims.stochastic_collapse.invariance import duplicates, fixed_points, vanishing
from sims.stochastic_collapse.lyapunov import top_lyapunov
from theory.stochastic_collapse.products import elog_abs_normal

KEY = jax.random.key(5)
NEURON = {"u": 0, "v": 0}


def lenient(f):
    """Flax promotes as it likes."""

    def relaxed(*args):
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            return f(*args)

    return relaxed


class Mlp(nn.Module):
    """Two hidden layers with biases, tanh and softplus."""

    @nn.compact
    def __call__(self, x):
        x = jnp.tanh(nn.Dense(6, param_dtype=float)(x))
        x = nn.softplus(nn.Dense(5, param_dtype=float)(x))
        return nn.Dense(3, param_dtype=float)(x)


class Cnn(nn.Module):
    """One convolution, GELU, averaged over positions."""

    @nn.compact
    def __call__(self, x):
        x = nn.gelu(nn.Conv(4, (3,), param_dtype=float)(x[..., None]))
        return nn.Dense(3, param_dtype=float)(x.mean(1))


class Attention(nn.Module):
    """One layer of attention with two heads over eight tokens."""

    @nn.compact
    def __call__(self, x):
        x = x[..., None] * self.param("embedding", nn.initializers.normal(1.0), (4,), float)
        x = x + nn.MultiHeadDotProductAttention(2, param_dtype=float, name="attention")(x)
        return nn.Dense(3, param_dtype=float)(jnp.tanh(x).mean(1))


HEADS = {
    f"attention/{part}/{leaf}": axis
    for part in ("query", "key", "value")
    for leaf, axis in (("kernel", 1), ("bias", 0))
}
NETWORKS = {
    "mlp": (Mlp, {"Dense_0/kernel": 1, "Dense_0/bias": 0, "Dense_1/kernel": 0}),
    "cnn": (Cnn, {"Conv_0/kernel": 2, "Conv_0/bias": 0, "Dense_0/kernel": 0}),
    "attention": (Attention, HEADS | {"attention/out/kernel": 0}),
}


def network(name):
    """(softmax loss, parameters, data with random labels, axes) of a Flax network."""
    module, axes = NETWORKS[name]
    x = jax.random.normal(KEY, (40, 8))
    y = jax.random.randint(jax.random.fold_in(KEY, 1), (40,), 0, 3)
    params = lenient(module().init)(jax.random.fold_in(KEY, 2), x)["params"]

    @lenient
    def loss(p, batch):
        out = module().apply({"params": p}, batch[0])
        return optax.softmax_cross_entropy_with_integer_labels(out, batch[1]).mean()

    return loss, params, (x, y), axes


def trained(loss, params, data, rule, sampling, key, invariant_set, steps):
    """ln of the distance after every step of an optax optimizer on the batches of that key."""

    def step(carry, k):
        params, state = carry
        gradient = jax.grad(loss)(params, sampling.draw(key, data, k))
        updates, state = lenient(rule.update)(gradient, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), jnp.log(invariant_set.distance(params))

    return jax.jit(lambda p: jax.lax.scan(step, (p, rule.init(p)), jnp.arange(steps))[1])(params)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "i", "j", "sampling", "decay", "joins"),
    [
        ("mlp", 1, 4, Sampling(8), 0.3, True),
        ("cnn", 0, 3, Sampling(8, replace=False), 1e-3, False),
        ("attention", 0, 1, Sampling(8, epochs=True), 1e-3, False),
    ],
)
def test_real_training_leaves_or_joins_a_pair_as_the_audit_says(name, i, j, sampling, decay, joins):
    loss, params, data, axes = network(name)
    A = duplicates(params, axes, i, j)
    params, steps = A.project(params), 150
    start = jax.random.normal(KEY, A.normal(params).shape)
    start = start / jnp.linalg.norm(start)
    run = jax.jit(normal_growth, static_argnums=(0, 5, 7))

    def growth(optimizer, key):
        return run(loss, params, A, data, optimizer, sampling, key, steps, start)

    logs, left = growth(HeavyBall(0.05, 0.9, decay), KEY)
    assert left < 1e-14
    assert logs[-1] < -1 if joins else logs[-1] > 0.1

    rule, errors = optax.chain(optax.add_decayed_weights(decay), optax.sgd(0.05, 0.9)), []
    for delta in (1e-2, 1e-3) if joins else (1e-3, 1e-4):
        real = trained(loss, A.move(params, delta * start), data, rule, sampling, KEY, A, steps) - np.log(delta)
        errors.append(np.abs(real - logs).max())
    assert errors[1] < 1e-5
    assert abs(np.log10(errors[0] / errors[1]) - 2) < 0.3
    # Other batches are seen, and a larger step for the momentum.
    assert np.abs(growth(HeavyBall(0.05, 0.9, decay), jax.random.key(9))[0] - logs).max() > 1e-2
    assert np.abs(growth(HeavyBall(0.5, 0.0, decay), KEY)[0] - logs).max() > 1e-2


def product(p, batch):
    """Half the squared error of the linear neuron f = v u x."""
    x, y = batch
    return ((p["v"][0] * p["u"][0] * x - y) ** 2).mean() / 2


def noisy(key, batch):
    """Fresh label noise of variance 4."""
    return batch[0], batch[1] + 2 * jax.random.normal(key, batch[1].shape)


X, Y = np.array([1.0, -0.5, 0.3, -1.4]), np.array([0.8, -0.6, 0.1, -1.0])
ORIGIN = {"u": jnp.zeros(1), "v": jnp.zeros(1)}
ALIVE = vanishing(ORIGIN, NEURON, 0)


def exact(y, eta, batch):
    """E ln |1 + eta c| with c the mean of x (y + 2 xi) over a batch drawn with replacement."""
    rows = np.array(list(itertools.product(range(len(X)), repeat=batch)))
    mean, deviation = (X * y)[rows].mean(1), 2 * np.sqrt((X[rows] ** 2).sum(1)) / batch
    return float(elog_abs_normal(1 + eta * mean, eta * deviation).mean())


def test_a_linear_neuron_has_the_exponent_of_its_scalar_product():
    # At the origin u + v and u - v decouple, and the first, of the smaller curvature, decides.
    found = collapse_exponent(product, ORIGIN, ALIVE, (X, Y), 0.2, 1, key=KEY, perturb=noisy, steps=4000, replicas=8)
    assert abs(found.mean - 0.0552000505) < 4 * found.error < 0.02


@pytest.mark.thorough
def test_the_critical_learning_rate_of_a_linear_neuron():
    options = {"key": KEY, "perturb": noisy, "steps": 6000, "replicas": 12}
    weak = 0.2 * Y
    rates = np.linspace(0.05, 0.1, 51)
    sharp = rates[np.argmax([exact(weak, eta, 1) < 0 for eta in rates])]
    found = critical_learning_rate(product, ORIGIN, ALIVE, (X, weak), (0.02, 0.5), 1, **options)
    assert abs(found.value - sharp) < 4 * found.error + 0.002
    assert 0 < found.error < 0.1 * sharp
    assert critical_learning_rate(product, ORIGIN, ALIVE, (X, weak), (0.1, 0.5), 1, points=3, **options) is None


@pytest.mark.thorough
def test_the_critical_batch_size_of_a_linear_neuron():
    options = {"key": KEY, "perturb": noisy, "steps": 6000, "replicas": 12}
    weak = 0.2 * Y
    assert exact(weak, 0.3, 4) < 0 < exact(weak, 0.3, 5)
    found = critical_batch_size(product, ORIGIN, ALIVE, (X, weak), 0.3, (2, 8), points=3, **options)
    assert abs(found.value - 4.5) < 0.5 + 4 * found.error
    assert found.error < 0.5


@pytest.mark.thorough
def test_redundant_coordinates_keep_to_the_set():
    # Rounding along the set would stand still, and a perturbation that dies for long would end as it.
    loss, params, data, axes = network("mlp")
    A = duplicates(params, axes, 0, 1)

    def exchanged(v):
        order = np.array([1, 0, 2, 3, 4, 5])
        first, second = v["Dense_0"], v["Dense_1"]
        return v | {
            "Dense_0": {"kernel": first["kernel"][:, order], "bias": first["bias"][order]},
            "Dense_1": second | {"kernel": second["kernel"][order]},
        }

    B, point = fixed_points(params, exchanged), A.project(params)
    strong = {"lr": 0.1, "batch": 8, "weight_decay": 0.5, "key": KEY, "steps": 1500, "replicas": 2}
    a, b = (collapse_exponent(loss, point, s, data, **strong) for s in (A, B))
    assert a.mean < -0.03
    np.testing.assert_allclose(a.mean, b.mean, rtol=0.02)


@pytest.mark.thorough
def test_the_report_ranks_units_and_pairs():
    loss, params, data, axes = network("mlp")
    options = {"lr": 0.1, "batch": 8, "weight_decay": 0.3, "key": KEY, "steps": 100, "replicas": 2}
    report = collapse_report(loss, params, axes, data, pairs=3, **options)
    assert report.count("unit") + report.count("pair") > 0
    assert [sum(row.kind == kind for row in report.rows) for kind in ("unit", "pair")] == [6, 3]
    assert report.invariant == {"unit": True, "pair": True}
    row = next(row for row in report.rows if row.kind == "pair")
    i, j = (int(word) for word in re.findall(r"\d+", row.name))
    A = duplicates(params, axes, i, j)
    again = collapse_exponent(loss, A.project(params), A, data, **options)
    assert (row.exponent, row.error) == (again.mean, again.error)
    exponents = [row.exponent for row in report.rows]
    assert exponents == sorted(exponents)
    assert row.name in str(report)
    assert report.to_dict()["rows"][0]["verdict"] == report.rows[0].verdict

    # The second layer's softplus is not zero at zero.
    axes = {"Dense_1/kernel": 1, "Dense_1/bias": 0, "Dense_2/kernel": 0}
    report = collapse_report(loss, params, axes, data, kinds=("unit",), **options)
    assert {row.verdict for row in report.rows} == {"not invariant"}
    assert "Not invariant" in str(report)


@pytest.mark.thorough
def test_the_example_foresees_the_slopes_of_training():
    report, run = lenient(compare)((0.03,), 2000)[0.03]
    merged = run.distances < 1e-2
    assert merged.sum() == 3
    rows = {row.name: row for row in report.rows}
    for name, slope in zip(np.array(run.pairs)[merged], run.slopes[merged], strict=True):
        # The error of a mean of eight runs; one run, over half of the steps, strays further.
        assert abs(slope - rows[name].exponent) < 4 * 8**0.5 * rows[name].error
        assert slope < -0.002
    assert np.abs(run.slopes[~merged]).max() < 0.001


def test_products_of_matrices_whose_exponent_is_known():
    turned = jnp.array([[0.6, -0.8], [0.8, 0.6]])
    found = top_lyapunov(lambda key: 0.7 * turned, KEY, steps=50, replicas=2)
    np.testing.assert_allclose(found.values, np.log(0.7), rtol=1e-12)
    found = top_lyapunov(lambda key: jnp.diag(jnp.array([0.5, 1.01])), KEY, steps=100, replicas=2)
    np.testing.assert_allclose(found.mean, np.log(1.01), rtol=1e-9)

    def gaussian(key):
        return 0.5 * jax.random.normal(key, (1, 1)) + 1.02

    found = top_lyapunov(gaussian, KEY, steps=4000, replicas=8)
    assert abs(found.mean + 0.1474205554) < 4 * found.error < 0.04


def refuses(call, words):
    with pytest.raises(ValueError, match="^" + re.escape(words)):
        call()


def test_bad_arguments_are_named():
    def audit(point=ORIGIN, data=(X, Y), lr=0.1, batch=1, **options):
        return lambda: collapse_exponent(product, point, ALIVE, data, lr, batch, **options)

    refuses(audit(lr=0.0), "`lr` must be positive, but got 0.")
    refuses(audit(lr=np.nan), "`lr` must be finite, but got nan.")
    refuses(audit(momentum=1.0), "`momentum` must be zero or positive, and below 1, but got 1.")
    refuses(audit(weight_decay=-0.1), "`weight_decay` must be zero or positive, but got -0.1.")
    refuses(audit(batch=0), "`batch` must be a whole number not below 1, but got 0.")
    words = "`batch` must be at most the 4 samples without replacement, but got 5."
    refuses(audit(batch=5, replace=False), words)
    refuses(audit(batch=5, epochs=True), words)
    refuses(audit(steps=5), "`steps` must be a whole number not below 10, but got 5.")
    refuses(audit(replicas=1), "`replicas` must be a whole number not below 2, but got 1.")
    refuses(audit(discard=1.0), "`discard` must be zero or positive, and below 1, but got 1.")
    refuses(audit({"u": jnp.ones(1), "v": jnp.zeros(1)}), "`params` must lie on the invariant set (unit 0), but got")
    refuses(audit({"u": jnp.full(1, jnp.nan), "v": jnp.zeros(1)}), "`params` must be finite, but got nan.")
    refuses(audit(data=(X, Y * np.inf)), "`data` must be finite, but got ")
    between = "`between` must rise, but got 0.2 and 0.1."
    refuses(lambda: critical_learning_rate(product, ORIGIN, ALIVE, (X, Y), (0.2, 0.1), 1), between)
    refuses(lambda: top_lyapunov(lambda key: jnp.ones((2, 3)), KEY), "`matrix` must give square matrices, but got")
    kinds = "`kinds` must be of unit and pair, but got triple."
    refuses(lambda: collapse_report(product, ORIGIN, NEURON, (X, Y), 0.1, 1, kinds=("triple",)), kinds)


def test_a_set_that_training_leaves_is_refused():
    point = {"u": jnp.ones(1), "v": jnp.ones(1)}
    half = vanishing(point, {"u": 0}, 0)
    words = "`invariant_set` (unit 0) must be kept by every step of training, but one left it by"
    call = lambda: collapse_exponent(product, half.project(point), half, (X, Y), 0.1, 2, steps=10, replicas=2)  # noqa: E731
    refuses(call, words)
