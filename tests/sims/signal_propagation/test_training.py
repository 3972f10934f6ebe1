"""Training on the counting task: labels, weights, steps and scores against what they stand for."""

from math import comb

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sims.engine.experiment import configure, traced
from sims.signal_propagation.network import Shape, Weights, block, draw_weights
from sims.signal_propagation.training import (
    VOCABULARY,
    Model,
    Sizes,
    config_of_cells,
    counts,
    draw_normal,
    draw_sequences,
    loss,
    predict,
    scaled,
    simulate,
    strong,
    train,
    training,
    unscaled,
)
from theory.gaussian_kernels import gaussian_kernel

SHAPE = Shape(n=10, d=8, depth=2, heads=2, mlp_width=12)
SIZES = Sizes(SHAPE, batch=16, steps=400, test_sequences=64, together=1)
CELLS = {name: jnp.array(value) for name, value in (("alpha", 0.6), ("sigma_w", 2.5), ("sigma_A", 1.4))}


@pytest.fixture(scope="module")
def config():
    return config_of_cells(CELLS, SHAPE).unit_variance()


@pytest.fixture(scope="module")
def model(config):
    return jax.jit(lambda key: scaled(draw_normal(key, SHAPE, jnp.float64), config, SHAPE))(jax.random.key(0))


@pytest.fixture(scope="module")
def sequences():
    """2000 sequences of ten tokens."""
    return np.asarray(draw_sequences(jax.random.key(1), 2000, SHAPE.n))


def test_labels_are_counted_right(sequences):
    assert (sequences.min(), sequences.max()) == (0, VOCABULARY - 1)
    expected = [[list(row).count(token) - 1 for token in row] for row in sequences]
    np.testing.assert_array_equal(counts(jnp.asarray(sequences)), expected)


def test_entropy_of_the_labels_is_that_of_the_task(sequences):
    binomial = np.array([comb(9, k) * (1 / 8) ** k * (7 / 8) ** (9 - k) for k in range(10)])
    assert -(binomial * np.log(binomial)).sum() == pytest.approx(1.33555, abs=5e-6)
    seen = np.bincount(np.ravel(counts(jnp.asarray(sequences))), minlength=10) / sequences.size
    np.testing.assert_allclose(seen, binomial, atol=0.015)


def test_the_matrices_as_they_are_give_the_block_of_the_theory(config, model):
    @jax.jit
    def both(key):
        k_tokens, k_weights = jax.random.split(key)
        X = jax.random.normal(k_tokens, (SHAPE.n, SHAPE.d))
        normal = draw_weights(k_weights, SHAPE, jnp.float64)
        matrices = scaled(model._replace(blocks=normal), config, SHAPE).blocks
        return block(X, matrices, unscaled(config, SHAPE), SHAPE), block(X, normal, config, SHAPE)

    np.testing.assert_allclose(*both(jax.random.key(4)), rtol=1e-12)


def test_matrices_have_the_scales_of_the_protocol():
    shape = Shape(n=10, d=64, depth=1)
    config = config_of_cells(CELLS, shape).unit_variance()
    power = gaussian_kernel("tanh", CELLS["sigma_w"] ** 2, CELLS["sigma_w"] ** 2)[0]
    E, W, U = scaled(Model(1.0, Weights(1.0, 1.0, 1.0, 1.0, 1.0), 1.0), config, shape)
    variances = {"query": 1.4 / 64, "key": 1.4 / 64, "value": 1 / 64, "first": 2.5**2 / 64, "second": 1 / power / 64}
    for name, variance in variances.items():
        assert float(getattr(W, name)) ** 2 == pytest.approx(float(variance), rel=1e-12), name
    assert (E, U) == (1, 1 / 8)


@jax.jit
@jax.value_and_grad
def by_hand(model, tokens, labels, alpha):
    """The loss of the theory's equations, one block and one head at a time, with the matrices as they are."""

    def norm(x):
        return x * SHAPE.d**0.5 / jnp.sqrt(jnp.sum(x**2, axis=-1, keepdims=True))

    def loss_of(sequence, answers):
        X = model.embedding[sequence]
        for layer in range(SHAPE.depth):
            W = jax.tree.map(lambda w, layer=layer: w[layer], model.blocks)
            Y, out = norm(X), 0.0
            for h in range(SHAPE.heads):
                scores = jnp.exp((Y @ W.query[h]) @ (Y @ W.key[h]).T / d_k**0.5)
                out = out + scores / scores.sum(1, keepdims=True) @ Y @ W.value[h]
            X = a * X + alpha * out
            X = a * X + alpha * jnp.tanh(norm(X) @ W.first) @ W.second
        scores = norm(X) @ model.readout
        return jnp.mean(jnp.log(jnp.sum(jnp.exp(scores), axis=1)) - scores[jnp.arange(SHAPE.n), answers])

    a, d_k = jnp.sqrt(1 - alpha**2), SHAPE.d // SHAPE.heads
    return jnp.mean(jax.vmap(loss_of)(tokens, labels))


@pytest.mark.thorough
def test_steps_of_training_are_those_of_adam_by_hand(config, model):
    key, rate, sizes = jax.random.key(6), 0.01, SIZES._replace(batch=2, steps=2)
    plain = unscaled(config, SHAPE)
    trained = jax.jit(train, static_argnums=4)(key, model, plain, rate, sizes)
    expected, first, second = (jax.tree.map(np.asarray, m) for m in (model, *[jax.tree.map(jnp.zeros_like, model)] * 2))
    for step in range(2):
        tokens = draw_sequences(jax.random.fold_in(key, step), 2, SHAPE.n)
        _, slope = by_hand(expected, tokens, counts(tokens), 0.6)
        size = sum((np.asarray(g) ** 2).sum() for g in jax.tree.leaves(slope)) ** 0.5
        assert size > 1
        slope = jax.tree.map(lambda g, size=size: np.asarray(g) / size, slope)
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, slope)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, second, slope)
        now, m_share, v_share = rate * (1 - step / 2), 1 - 0.9 ** (step + 1), 1 - 0.999 ** (step + 1)

        def move(w, m, v, now=now, m_share=m_share, v_share=v_share):
            return w - now * (m / m_share) / (np.sqrt(v / v_share) + 1e-8)

        expected = jax.tree.map(move, expected, first, second)
    for a, b in zip(jax.tree.leaves(trained), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9)


def test_the_loss_is_that_by_hand_and_without_a_readout_that_of_a_guess(config, model, sequences):
    plain, test = unscaled(config, SHAPE), jnp.asarray(sequences[:2])
    measured = jax.jit(lambda model: loss(model, test, plain, SHAPE))
    assert float(measured(model)) == pytest.approx(float(by_hand(model, test, counts(test), 0.6)[0]), rel=1e-12)
    assert float(measured(model._replace(readout=0 * model.readout))) == pytest.approx(np.log(10), rel=1e-12)


@pytest.fixture(scope="module")
def final_losses():
    """The experiment's own program, compiled once: losses of three cells at a learning rate."""
    job = configure(training, "smoke")
    run = jax.jit(simulate, static_argnums=3)

    def losses(alphas, sigmas, learning_rate):
        cells = {"alpha": jnp.array(alphas), "sigma_w": jnp.array(sigmas), "sigma_A": jnp.array(1.0)}
        numbers = traced({**job.settings, "learning_rate": learning_rate})
        return np.asarray(run(jax.random.key(9), cells, numbers, SIZES)["final_loss"])

    return losses


@pytest.mark.thorough
def test_training_teaches_what_an_untrained_network_does_not_know(final_losses):
    cells = [0.4, 0.5, 0.6], [2.0, 2.0, 2.0]
    # Logits of unit variance cost about half a nat more than none.
    np.testing.assert_allclose(final_losses(*cells, 0.0), np.log(10) + 0.5, atol=0.5)
    assert (final_losses(*cells, 2e-2) < 1.2).all()


@pytest.mark.thorough
def test_cells_share_their_numbers_and_do_not_touch_each_other(final_losses):
    three = final_losses([0.5, 0.9, 0.5], [2.0, 3.0, 2.0], 1e-3)
    assert three[0] == three[2] != three[1]
    assert final_losses([0.9, 0.3, 0.2], [3.0, 1.0, 1.0], 1e-3)[0] == three[1]


@pytest.mark.slow
def test_cells_trained_side_by_side_end_as_alone():
    key, numbers = jax.random.key(10), {"learning_rate": jnp.array(1e-3)}
    cells = {"alpha": jnp.array([0.5, 0.9, 0.7]), "sigma_w": jnp.array([2.0, 3.0, 1.0]), "sigma_A": jnp.array(1.0)}
    alone, pairs = (simulate(key, cells, numbers, SIZES._replace(steps=5, together=k)) for k in (1, 2))
    np.testing.assert_allclose(pairs["final_loss"], alone["final_loss"], rtol=1e-10)


def test_the_score_is_that_by_hand():
    alpha, sigma_w, depth = np.array([0.8, 0.6, 0.4]), np.array([0.5, 4.0, 2.0]), 16
    cells = {"alpha": alpha, "sigma_w": sigma_w, "sigma_A": 1.0}
    score = predict(cells, {}, SIZES._replace(shape=Shape(n=10, d=32, depth=depth)))["final_loss"]
    power, slope = gaussian_kernel("tanh", sigma_w**2, sigma_w**2)
    pooled = np.log(1 - alpha**2 + alpha**2 * sigma_w**2 * np.asarray(slope / power))
    angle = np.log(1 - alpha**2) + pooled
    np.testing.assert_allclose(depth * angle, [-16, 0.2, -1.3], atol=0.05)
    np.testing.assert_allclose(score, depth * np.maximum(np.abs(angle), np.abs(pooled)), rtol=1e-9)


def test_weak_branches_are_outside_the_claim():
    assert strong({"alpha": np.array([0.05, 0.2, 0.25, 0.8])}, {"depth": 16}).tolist() == [False, False, True, True]
