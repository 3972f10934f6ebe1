"""Discrete laws of charges: real optimizers on losses with symmetries, closed forms, reference values."""

import itertools
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads

from theory.noether import (
    Optimizer,
    Part,
    Sources,
    SymmetryFamily,
    angular_momentum,
    bilinear,
    charge,
    decoupled_charge,
    final_charge,
    linear_charge,
    nesterov_charge,
    predict_charge,
    quadratic_charge,
    sgd_charge,
)

M = np.diag([1.0, 4.0, 6.0])
START = np.array([1.0, 0.5, -0.5])
SPHERE = SymmetryFamily("scale", (Part("w"),))
KINDS = {
    "sgd": {},
    "heavy": {"momentum": 0.5},
    "dampened": {"momentum": 0.5, "dampening": 0.3},
    "nesterov": {"momentum": 0.5, "nesterov": True},
    "decoupled": {"momentum": 0.5, "decoupled": True},
    "decoupled, memoryless": {"decoupled": True},
}
PRINTED = {"sgd": 0.2237403434, "heavy": 0.8213585356, "nesterov": 0.4467758841, "decoupled": 0.3305838192}


def rayleigh(params, batch):
    w = params["w"]
    return w @ batch @ w / (2 * w @ w)


def relu_network(params, batch):
    x, y = batch[:, :3], batch[:, 3:]
    hidden = jax.nn.relu(x @ params["in"] + params["bias"][None, :])
    return jnp.mean((hidden @ params["out"] - y) ** 2)


def attention(params, batch):
    q, k = batch @ params["q"], batch @ params["k"]
    return jnp.mean((jax.nn.softmax(q @ k.T) @ batch - 1) ** 2)


def cosine(steps, eta=0.2):
    return eta * (0.55 + 0.45 * np.cos(np.pi * np.arange(steps) / steps))


def trainer(loss, family):
    """Charges and sources of plain updates, as the optimizer is defined: one compilation for all of them."""

    def mix(*terms):
        numbers, trees = zip(*terms, strict=True)
        return jax.tree.map(lambda *xs: sum(a * x for a, x in zip(numbers, xs, strict=True)), *trees)

    def run(params, batches, etas, weight_decay, momentum, dampening, nesterov, decoupled):
        def step(state, law):
            (params, v), (eta, batch) = state, law
            g = jax.grad(loss)(params, batch)
            pulled = mix((1.0, g), (weight_decay, params))
            v = mix((momentum, v), (1 - dampening, mix((decoupled, g), (1 - decoupled, pulled))))
            moved = mix((nesterov, pulled), (nesterov * momentum + 1 - nesterov, v))
            update = mix((-eta, moved))
            moved = mix((1.0, update), (-eta * weight_decay * decoupled, params))
            sources = [(moved, moved), (g, g), (moved, pulled), (update, update)]
            params = mix((1.0, params), (1.0, moved))
            return (params, v), (charge(family, params), [bilinear(family, *pair) for pair in sources])

        start = params, jax.tree.map(jnp.zeros_like, params)
        _, (charges, sources) = jax.lax.scan(step, start, (etas, batches))
        return jnp.concatenate([charge(family, params)[None], charges]), Sources(*sources)

    run = jax.jit(run)

    def trained(params, batches, spec):
        numbers = (float(x) for x in spec[1:])
        charges, sources = run(params, batches, np.broadcast_to(spec.eta, len(batches)), *numbers)
        return np.array(charges), sources

    return trained


def relu_case(rng):
    params = {"in": rng.normal(size=(3, 4)), "bias": rng.normal(size=4), "out": rng.normal(size=(4, 2))}
    family = SymmetryFamily("rescale", (Part("in", (1,)), Part("bias", (0,)), Part("out", (0,), -1.0)))
    return relu_network, params, family, rng.normal(size=(40, 8, 5))


def attention_case(rng):
    params = {"q": rng.normal(size=(3, 2)), "k": rng.normal(size=(3, 2))}
    family = SymmetryFamily("matrix", (Part("q", inner=1), Part("k", (), -1.0, inner=1)))
    return attention, params, family, rng.normal(size=(40, 5, 3))


def rayleigh_case(rng):
    return rayleigh, {"w": START}, SPHERE, M[None] + 0.3 * rng.normal(size=(40, 3, 3))


@pytest.mark.parametrize("case", [rayleigh_case, relu_case, attention_case])
def test_every_optimizer_obeys_its_law_and_no_other(case):
    loss, params, family, batches = case(np.random.default_rng(0))
    params = jax.tree.map(jnp.asarray, params)
    run = trainer(loss, family)
    for kind, eta in itertools.product(KINDS.values(), (0.1, cosine(len(batches), 0.1))):
        spec = Optimizer(eta, 0.3, **kind)
        measured, sources = run(params, batches, spec)
        assert measured.shape == (41, *charge(family, params).shape)
        predicted = predict_charge(measured[0], sources, spec)
        np.testing.assert_allclose(predicted, measured, rtol=1e-12, atol=1e-12)
        twins = [spec._replace(weight_decay=0.28), spec._replace(eta=eta * 1.05)]
        if spec.momentum:
            twins += [spec._replace(momentum=0.55), Optimizer(eta, 0.3)]
            twins += [] if spec.decoupled else [Optimizer(eta, 0.3, 0.5, decoupled=True)]
            twins += [] if spec.nesterov else [Optimizer(eta, 0.3, 0.5, nesterov=True)]
        for twin in twins:
            off = predict_charge(measured[0], sources, twin)
            assert np.max(np.abs(off - measured)) > 1e-3


@pytest.mark.parametrize("kind", ["sgd", "heavy", "nesterov", "decoupled"])
def test_optax_and_the_printed_digits(kind):
    steps, eta, decay = 100, 0.2, 0.05
    spec = Optimizer(eta, decay, **KINDS[kind])

    def optimizer(rate):
        if spec.decoupled:
            return optax.chain(optax.trace(0.5), optax.add_decayed_weights(decay), optax.scale_by_learning_rate(rate))
        return optax.chain(
            optax.add_decayed_weights(decay), optax.sgd(rate, spec.momentum or None, nesterov=spec.nesterov)
        )

    def trained(rate, rates):
        tx = optimizer(rate)

        def step(state, rate_now):
            w, memory = state
            decayed = rate_now * decay if spec.decoupled else 0.0
            g = jax.grad(rayleigh)({"w": w}, M)["w"]
            with jax.numpy_dtype_promotion("standard"):
                moved, memory = tx.update(g, memory, w)
            pulled, update = g + decay * w, moved + decayed * w
            return (w + moved, memory), (w + moved, jnp.stack([moved @ moved, g @ g, moved @ pulled, update @ update]))

        start = jnp.asarray(START)
        _, (path, sources) = jax.lax.scan(step, (start, tx.init(start)), rates)
        return jnp.concatenate([start[None], path]), Sources(*sources.T)

    path, sources = jax.jit(lambda: trained(eta, jnp.full(steps, eta)))()
    r = np.sum(np.array(path) ** 2, -1)
    np.testing.assert_allclose(r[-1], PRINTED[kind], rtol=0, atol=5e-11)
    np.testing.assert_allclose(predict_charge(1.5, sources, spec, steps=steps), r, rtol=1e-12)
    rates = jnp.asarray(cosine(steps))
    path, sources = jax.jit(lambda: trained(lambda count: rates[count], rates))()
    predicted = predict_charge(1.5, sources, spec._replace(eta=rates))
    np.testing.assert_allclose(predicted, np.sum(np.array(path) ** 2, -1), rtol=1e-12)


def test_class_sums_of_a_softmax_regression_need_no_source():
    rng = np.random.default_rng(1)
    batches = rng.normal(size=(40, 6, 4))
    family = SymmetryFamily("translation", (Part("w", (0,)),))

    def loss(params, x):
        return -jnp.mean(jax.nn.log_softmax(x @ params["w"])[:, 0])

    slope, start = jax.jit(jax.grad(loss)), rng.normal(size=(4, 3))
    for kind, eta in itertools.product(KINDS.values(), (0.4, cosine(40, 0.4))):
        spec = Optimizer(eta, 0.2, **kind)
        w, v, sums = start, np.zeros((4, 3)), [charge(family, {"w": start})]
        for eta_k, x in zip(np.broadcast_to(eta, 40), batches, strict=True):
            g = np.array(slope({"w": w}, x)["w"])
            pulled = g + 0.2 * w
            v = spec.momentum * v + (1 - spec.dampening) * (g if spec.decoupled else pulled)
            moved = -eta_k * (pulled + spec.momentum * v if spec.nesterov else v)
            w = w + moved - eta_k * 0.2 * w * spec.decoupled
            sums.append(w.sum(1))
        predicted = predict_charge(sums[0], None, spec, steps=40, linear=True)
        np.testing.assert_allclose(predicted, sums, rtol=1e-12, atol=1e-13)
        assert np.max(np.abs(predict_charge(sums[0], None, spec._replace(weight_decay=0.19), steps=40, linear=True)
                             - np.array(sums))) > 1e-3  # fmt: skip


def test_printed_values():
    def last(path):
        return float(path[-1])

    k = np.arange(25)
    step, cross = 0.01 * 0.95**k, -0.02 * 0.9**k
    found = [
        last(sgd_charge(1.2, 0.5 * 0.9 ** np.arange(15), 0.2, 0.05)),
        last(linear_charge(1.0, 30, 0.05, 0.4, 0.8)),
        last(linear_charge(1.0, 30, 0.05, 0.4, 0.8, dampening=0.3)),
        last(quadratic_charge(1.0, step, 0.05, 0.4, 0.8)),
        last(decoupled_charge(1.0, step, 0.05, 0.4, 0.8)),
        last(nesterov_charge(1.0, step, cross, 0.05, 0.4, 0.8)),
        last(linear_charge(1.0, 20, 0.05, 0.4, 0.8, nesterov=True)),
    ]
    printed = [1.020926151, -0.02924324394, 0.05992878464, 0.1348421471, 1.04200795, 0.1492006954, 0.07383769216]
    np.testing.assert_allclose(found, printed, rtol=5e-10)


def test_recursions_are_the_formulas_with_two_terms():
    rng = np.random.default_rng(2)
    d, x, eta, lam, beta = rng.normal(size=(30, 2, 2)), rng.normal(size=(30, 2, 2)), 0.3, 0.4, 0.7
    c = [np.eye(2), np.eye(2)]  # C_{-1}, C_0
    n, u = list(c), list(c)
    before, crossed, a = np.zeros((2, 2)), np.zeros((2, 2)), 1 - eta * lam
    for k in range(30):
        c.append((1 + beta - 2 * eta * lam) * c[-1] - beta * c[-2] + d[k] + beta * before)
        look = 2 * eta * beta * (lam * n[-2] + crossed) if k else 0.0
        n.append(n[-1] + d[k] + beta * (n[-1] - n[-2] + before) - 2 * eta * (1 + beta) * lam * n[-1] + look)
        memory = a * beta * (u[-1] - a**2 * u[-2] + before) if k else 0.0
        u.append(a**2 * u[-1] + memory + d[k])
        before, crossed = d[k], x[k]
    np.testing.assert_allclose(quadratic_charge(c[1], d, eta, lam, beta), c[1:], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(nesterov_charge(c[1], d, x, eta, lam, beta), n[1:], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(decoupled_charge(c[1], d, eta, lam, beta), u[1:], rtol=1e-12, atol=1e-12)


@pytest.mark.thorough
@pytest.mark.parametrize(("beta", "e"), [(0.8, 0.01), (0.8, 0.03), (0.8, 3.595), (0.8, 3.7), (0.0, 0.3), (0.25, 0.25)])
def test_closed_form_is_the_recursion_in_every_regime(beta, e):
    d = np.random.default_rng(3).uniform(size=(40, 3))
    for dampening in (0.0, 0.4):
        spec = Optimizer(0.5, e / (1 - dampening), beta, dampening)  # pull 2 eta lambda = e
        path = predict_charge(np.ones(3), Sources(step=d), spec)
        np.testing.assert_allclose(final_charge(np.ones(3), Sources(step=d), spec), path[-1], rtol=1e-11)
        wrong = final_charge(np.ones(3), Sources(step=d), spec._replace(momentum=beta + 0.02))
        assert np.all(np.abs(wrong / path[-1] - 1) > 1e-3)
    sgd = Optimizer(0.3, 7.0 if e > 1 else 0.4)  # 1 - eta lambda is negative in one
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        path = predict_charge(np.ones(3), Sources(gradient=d), sgd)
    np.testing.assert_allclose(final_charge(np.ones(3), Sources(gradient=d), sgd), path[-1], rtol=1e-12)


def test_angular_momentum_of_a_round_loss():
    J = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    slope = jax.jit(jax.grad(lambda w: jnp.sin(w[0] ** 2 + w[1] ** 2) + w[2] ** 2))
    for eta in (np.full(31, 0.2), cosine(31)):
        w, moved = START, np.array([0.1, 0.2, 0.3])
        found = []
        for k in range(31):
            beta = 0.7 * (eta[k] / eta[k - 1] if k else 1.0)
            moved = beta * moved - eta[k] * (np.array(slope(w)) + 0.1 * w)
            found.append(w @ J.T @ moved)
            w = w + moved
            np.testing.assert_allclose(w @ J.T @ moved, found[-1], rtol=1e-12)
        predicted = angular_momentum(found[0], 30, 0.7, eta=None if np.ptp(eta) == 0 else eta)
        np.testing.assert_allclose(predicted, found, rtol=1e-11)
        assert abs(angular_momentum(found[0], 30, 0.69)[-1] / found[-1] - 1) > 0.1
    assert not np.any(angular_momentum(np.zeros((2, 2)), 3, 0.9))


def test_no_steps_single_precision_traces_and_gradients():
    assert linear_charge(2.0, 0, 0.1, 0.1, 0.9).tolist() == [2.0]
    assert quadratic_charge(np.ones(2), np.ones((0, 2)), 0.1, 0.1, 0.9).tolist() == [[1.0, 1.0]]
    assert sgd_charge(1.0, np.ones(0), 0.1).tolist() == [1.0]
    d = np.random.default_rng(4).uniform(size=(500, 2))

    @jax.jit
    def all_laws(d):
        return [
            quadratic_charge(d[0], d, 1e-2, 1e-2, 0.9),
            nesterov_charge(d[0], d, -d, 1e-2, 1e-2, 0.9),
            decoupled_charge(d[0], d, 1e-2, 1e-2, 0.9),
            sgd_charge(d[0], d, 1e-2, 1e-2),
        ]

    for single, double in zip(all_laws(d.astype(np.float32)), all_laws(d), strict=True):
        assert single.dtype == np.float32
        np.testing.assert_allclose(single, double, rtol=1e-4)

    def final(eta, decay, beta):
        return predict_charge(1.0, Sources(step=d[:20, 0]), Optimizer(eta, decay, beta))[-1]

    grid = jnp.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])
    mapped = jax.jit(jax.vmap(final))(*grid)
    np.testing.assert_allclose(mapped, [final(*grid[:, i]) for i in (0, 1)], rtol=1e-14)
    check_grads(jax.jit(final), (0.1, 0.3, 0.5), order=1, modes=["rev"], atol=1e-6, rtol=1e-6)


def refuses(call, words):
    with pytest.raises(ValueError, match="^" + re.escape(words) + "$"):
        call()


def test_bad_arguments_are_named():
    one, two = np.ones(1), np.ones(2)
    refuses(lambda: sgd_charge(1.0, two, 0.0), "`eta` must be positive, but got 0.")
    refuses(lambda: sgd_charge(1.0, two, [0.1, -0.2]), "`eta` must be positive, but got -0.2.")
    refuses(lambda: sgd_charge(1.0, two, np.inf), "`eta` must be finite, but got inf.")
    refuses(lambda: sgd_charge(1.0, two, [[0.1]]), "`eta` must be a number or of shape (K,), but got shape (1, 1).")
    refuses(lambda: sgd_charge(1.0, two, 0.1, -1.0), "`weight_decay` must be zero or positive, but got -1.")
    refuses(lambda: sgd_charge(1.0, two, 0.1, two), "`weight_decay` must be a number, but got shape (2,).")
    words = "`momentum` must be zero or positive, and below 1, but got "
    for beta in (1.0, -0.1):
        refuses(lambda beta=beta: quadratic_charge(1.0, two, 0.1, 0.1, beta), words + f"{beta:g}.")
        refuses(lambda beta=beta: angular_momentum(1.0, 2, beta), words + f"{beta:g}.")
    words = "`dampening` must be zero or positive, and below 1, but got 1."
    refuses(lambda: linear_charge(1.0, 2, 0.1, 0.1, 0.9, dampening=1.0), words)
    words = "`momentum` must be positive with Nesterov, but got 0."
    refuses(lambda: nesterov_charge(1.0, two, two, 0.1, 0.1, 0.0), words)
    words = "`dampening` must be zero with Nesterov, but got 0.3."
    refuses(lambda: linear_charge(1.0, 2, 0.1, 0.1, 0.9, dampening=0.3, nesterov=True), words)
    words = "`decoupled` must be False with Nesterov, but got True."
    refuses(lambda: linear_charge(1.0, 2, 0.1, 0.1, 0.9, nesterov=True, decoupled=True), words)
    refuses(lambda: linear_charge(1.0, -1, 0.1, 0.1), "`steps` must be a whole number not below 0, but got -1.")
    refuses(lambda: linear_charge(np.nan, 1, 0.1, 0.1), "`s0` must be finite, but got nan.")
    words = "`eta` must be a number or one for each of 2 steps, but got shape (3,)."
    refuses(lambda: sgd_charge(1.0, two, np.ones(3)), words)
    refuses(lambda: linear_charge(1.0, 2, np.ones(3), 0.1), words)
    words = "`step_sources` must have shape (K, 2), but got (1,)."
    refuses(lambda: quadratic_charge(two, one, 0.1), words)
    refuses(lambda: sgd_charge(1.0, 1.0, 0.1), "`gradient_sources` must have shape (K,), but got ().")
    words = "`cross_sources` must have shape (2,), but got (1,)."
    refuses(lambda: nesterov_charge(1.0, two, one, 0.1, 0.1, 0.9), words)
    refuses(lambda: sgd_charge(1.0, [1.0, np.inf], 0.1), "`gradient_sources` must be finite, but got inf.")


def test_bad_predictions_are_named():
    d = Sources(step=np.ones(2))
    words = "`sources.{}` must be given for this optimizer, but got None."
    refuses(lambda: predict_charge(1.0, None, Optimizer(0.1)), words.format("step"))
    refuses(lambda: predict_charge(1.0, d, Optimizer(0.1, 0.1, 0.9, nesterov=True)), words.format("cross"))
    refuses(lambda: predict_charge(1.0, d, Optimizer(0.1, 0.1, 0.9, decoupled=True)), words.format("update"))
    refuses(lambda: final_charge(1.0, Sources(), Optimizer(0.1)), words.format("step"))
    words = "`steps` must be the 2 of `sources.step`, but got 3."
    refuses(lambda: predict_charge(1.0, d, Optimizer(0.1), steps=3), words)
    words = "`steps` must be given for a linear charge with a constant rate, but got None."
    refuses(lambda: predict_charge(1.0, None, Optimizer(0.1), linear=True), words)
    refuses(lambda: final_charge(1.0, d, Optimizer(np.ones(2))), "`eta` must be a number, but got shape (2,).")
    words = "`optimizer.{}` must be False for the closed form, but got True."
    refuses(lambda: final_charge(1.0, d, Optimizer(0.1, 0.1, 0.9, nesterov=True)), words.format("nesterov"))
    refuses(lambda: final_charge(1.0, d, Optimizer(0.1, 0.1, 0.9, decoupled=True)), words.format("decoupled"))
    refuses(lambda: predict_charge(1.0, d, Optimizer(-0.1)), "`eta` must be positive, but got -0.1.")
    with pytest.warns(UserWarning, match=re.escape("is above 2 (1 + beta): the charge grows.")):
        predict_charge(1.0, d, Optimizer(1.0, 3.9, 0.9))
