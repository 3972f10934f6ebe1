"""Charges of real networks under real optimizers: exact laws, closing budgets, and the report that says so."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sims.digits import Images, batches, digits
from sims.noether.networks import families, network
from sims.noether.report import symmetry_report
from sims.noether.setup import OPTIMIZERS, law_of, optimizer
from sims.noether.tracking import law_sources, terms_of, track_charges
from theory.noether import Optimizer, Part, SymmetryFamily, charge, charge_budget, predict_charge

RATE, MOMENTUM, DECAY = 0.05, 0.9, 0.01
HYPER = RATE, MOMENTUM, DECAY
UNITS = (
    SymmetryFamily("rescale", (Part("a", (1,)), Part("bias", (0,)), Part("b", (0,), -1.0))),
    SymmetryFamily("translation", (Part("b", (0,)),)),
)


def small():
    """A two-layer ReLU network with softmax, its start and some batches."""
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = {"a": (5, 7), "bias": (7,), "b": (7, 3)}
    params = {name: jax.random.normal(k, shape) for k, (name, shape) in zip(keys, shapes.items(), strict=False)}
    x = jax.random.normal(keys[3], (40, 8, 5))
    return params, (x, jnp.argmax(x[..., :3], -1))


def loss(params, batch):
    x, y = batch
    hidden = jax.nn.relu(x @ params["a"] + params["bias"][None, :])
    return optax.softmax_cross_entropy_with_integer_labels(hidden @ params["b"], y).mean()


@functools.cache
def run(name):
    params, data = small()
    end, losses, tracks = track_charges(loss, params, optimizer(name, *HYPER), data, UNITS)
    return params, data, end, losses, tracks


@pytest.mark.thorough
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_tracks_are_the_charges_of_a_plain_loop(name):
    params, data, end, losses, tracks = run(name)
    tx = optimizer(name, *HYPER)
    state = tx.init(params)
    for k in range(3):
        batch = jax.tree.map(lambda x, k=k: x[k], data)
        value, g = jax.value_and_grad(loss)(params, batch)
        np.testing.assert_allclose(losses[k], value, rtol=1e-12)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = tx.update(g, state, params)
        after = optax.apply_updates(params, updates)
        for family, track in zip(UNITS, tracks, strict=True):
            np.testing.assert_allclose(track.charge[k], charge(family, params), rtol=1e-11, atol=1e-13)
            np.testing.assert_allclose(track.charge[k + 1], charge(family, after), rtol=1e-11, atol=1e-13)
            budget = charge_budget(family, params, updates, RATE, DECAY)
            np.testing.assert_allclose(track.step[k], budget.finite_step, rtol=1e-9, atol=1e-13)
            np.testing.assert_allclose(budget.gap, 0, atol=1e-13)
        params = after
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(end))


@pytest.mark.thorough
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_only_adam_leaves_the_law(name):
    params, _, _, _, tracks = run(name)
    for family, track in zip(UNITS, tracks, strict=True):
        linear = family.kind == "translation"
        law = law_of(name, *HYPER)
        sources = None if linear else law_sources(track, law)
        exact = predict_charge(track.charge[0], sources, law, steps=40, linear=linear)
        off = float(jnp.max(jnp.abs(track.charge - exact)) / terms_of(family, params))
        assert off > 1e-3 if name == "AdamW" else off < 1e-13


@pytest.mark.thorough
def test_a_schedule_has_its_law_step_by_step():
    params, data = small()
    eta = 0.05 * jnp.cos(jnp.linspace(0.0, 1.4, 40))

    def schedule(count):
        return eta[count]

    tx = optax.chain(optax.add_decayed_weights(DECAY), optax.trace(MOMENTUM), optax.scale_by_schedule(schedule))
    tx = optax.chain(tx, optax.scale(-1.0))
    _, _, tracks = track_charges(loss, params, tx, data, UNITS[:1])
    law = Optimizer(eta, DECAY, MOMENTUM)
    exact = predict_charge(tracks[0].charge[0], law_sources(tracks[0], law), law)
    np.testing.assert_allclose(tracks[0].charge, exact, rtol=1e-12, atol=1e-12)


@pytest.mark.thorough
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_transformer_keeps_to_the_law_for_300_minibatch_steps(name):
    start, loss_of = network("transformer")
    params, known, law = start(jax.random.key(0)), families("transformer"), law_of(name, *HYPER)
    data = batches(jax.random.key(1), 300, 64)
    _, losses, tracks = jax.jit(lambda p, b: track_charges(loss_of, p, optimizer(name, *HYPER), b, known))(params, data)
    for family, track in zip(known, tracks, strict=True):
        linear, size = family.kind == "translation", float(terms_of(family, params))
        change = np.diff(track.charge, axis=0)
        first = np.asarray(track.work) * (1 if linear else 2)
        assert np.abs(change - first - track.step).max() < 1e-13 * size
        if name != "AdamW":
            exact = predict_charge(
                track.charge[0], None if linear else law_sources(track, law), law, steps=300, linear=linear
            )
            assert np.abs(track.charge - exact).max() < 1e-12 * size
            assert losses[-20:].mean() < 0.5 * losses[0]


@pytest.mark.thorough
def test_networks_read_digits():
    images = digits()
    assert images.pixels.shape == (1797, 8, 8)
    assert 0 <= images.pixels.min() < images.pixels.max() <= 1
    drawn = batches(jax.random.key(0), 3, 5)
    assert drawn.pixels.shape == (3, 5, 8, 8)
    start, loss_of = network("mlp")
    one = Images(drawn.pixels[0], drawn.labels[0])
    assert 1 < loss_of(start(jax.random.key(1)), one) < 5


def as_list(data):
    return [jax.tree.map(lambda x, k=k: x[k], data) for k in range(40)]


@pytest.mark.thorough
def test_the_report_names_the_coupling_that_was_used():
    params, data = small()
    said = {}
    for declared in ("heavy ball", "decoupled decay"):
        report = symmetry_report(
            loss, params, optimizer("decoupled decay", *HYPER), as_list(data), law_of(declared, *HYPER), families=UNITS
        )
        said[declared] = report.coupling
        assert "budget of 2 closes" in report.sentences[0]
    assert said["heavy ball"] == "The decay is decoupled, not coupled as declared."
    assert said["decoupled decay"] == "The decay is decoupled, as declared."
    adam = symmetry_report(
        loss, params, optimizer("AdamW", *HYPER), as_list(data), law_of("AdamW", *HYPER), families=UNITS
    )
    assert adam.coupling.startswith("The charges follow neither the coupled nor the decoupled law")


@pytest.mark.thorough
def test_the_report_finds_flat_tensors_that_the_optimizer_moves():
    params, data = small()

    def with_idle(p, batch):
        return loss(p, batch) + 0.0 * jnp.sum(p["idle"])

    params = params | {"idle": jnp.ones(3)}
    noise = optax.chain(optax.add_noise(1.0, 0.55, jax.random.key(0)), optax.sgd(0.01))
    for tx, moves in ((optax.sgd(0.01), False), (noise, True)):
        report = symmetry_report(with_idle, params, tx, as_list(data), Optimizer(0.01))
        assert [row.tensor for row in report.flat] == ["idle"]
        assert (report.flat[0].moved > 1e-4) == moves
        assert ("Moved without any gradient: idle." in report.sentences) == moves


@pytest.mark.thorough
def test_the_forecast_of_the_effective_rate_meets_continued_training():
    rng = np.random.default_rng(0)
    stream = [{"A": jnp.asarray(a)} for a in rng.normal(size=(2400, 4, 30))]

    def quotient(params, batch):
        projected = batch["A"] @ params["w"]
        return jnp.sum(projected**2) / jnp.sum(params["w"] ** 2)

    scale = (SymmetryFamily("scale", (Part("w"),)),)
    params = {"w": jnp.asarray(rng.normal(size=30)) / 4}
    tx = optimizer("SGD", 0.1, 0.0, 0.05)
    first, rest = stream[:400], stream[400:]
    report = symmetry_report(
        quotient, params, tx, first, Optimizer(0.1, 0.05), families=scale, next_rate=0.03, next_steps=300
    )
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *first)
    params = track_charges(quotient, params, tx, stacked, scale)[0]
    later = jax.tree.map(lambda *x: jnp.stack(x), *rest[:300])
    _, _, tracks = track_charges(quotient, params, optimizer("SGD", 0.03, 0.0, 0.05), later, scale)
    np.testing.assert_allclose(report.rates[0].forecast, 0.03 / tracks[0].charge[-1, 0], rtol=0.1)
    assert abs(report.rates[0].end / report.rates[0].forecast - 1) > 0.3


def test_what_cannot_be_reported_is_refused_in_one_sentence():
    params, data = small()
    tx = optax.sgd(0.1)
    with pytest.raises(ValueError, match=r"^`next_rate` must be positive, but got -1\.$"):
        symmetry_report(loss, params, tx, as_list(data), Optimizer(0.1), families=UNITS, next_rate=-1.0)
    uneven = [*as_list(data), jax.tree.map(lambda x: x[0, :4], data)]
    with pytest.raises(ValueError, match=r"^`batches` must all have one shape, but got 2 shapes\.$"):
        symmetry_report(loss, params, tx, uneven, Optimizer(0.1), families=UNITS)
