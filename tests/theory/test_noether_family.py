"""Symmetry families: transformations, generators, charges and constraints on losses that have them, and do not."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.integrate import solve_ivp

from theory.noether import (
    Part,
    SymmetryFamily,
    bilinear,
    charge,
    charge_budget,
    constraint_residual,
    generator,
    gradient_constraint,
    tensors,
    transform,
    view,
)

BATCH = np.random.default_rng(0).normal(size=(6, 3))


def softmax(p, x):
    return -jnp.mean(jax.nn.log_softmax(x @ p["w"])[:, 0])


def rayleigh(p, x):
    w = p["w"]
    return jnp.sum((x @ w) ** 2) / (w @ w)


def network(activation):
    def loss(p, x):
        hidden = activation(x @ p["layer"]["in"] + p["layer"]["bias"][None, :])
        return jnp.mean((hidden @ p["out"] - 1) ** 2)

    return loss


def recurrent(p, x):
    h = jax.nn.relu(x @ p["in"])
    return jnp.mean((jax.nn.relu(jax.nn.relu(h @ p["w"]) @ p["w"]) @ p["out"] - 1) ** 2)


def attention(p, x):
    """Two heads; queries and keys stored flat over heads and their width."""
    q, k = (jnp.reshape(x @ p[w] + p[w + "_bias"][None, :], (6, 2, 2)) for w in ("q", "k"))
    heads = jnp.einsum("hij,jd->ihd", jax.nn.softmax(jnp.einsum("ihc,jhc->hij", q, k)), x)
    return jnp.sum(heads**2 * jnp.array([1.0, -2.0], x.dtype)[None, :, None])


def turned(p, x):
    return jnp.mean(jnp.tanh(x @ p["q"] @ p["q"].T @ x.T))


def draw(*, seed=1, **shapes):
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.normal(size=shape)) for name, shape in shapes.items()}


def layered(seed=1):
    p = draw(seed=seed, **{"in": (3, 4), "bias": 4, "out": (4, 2)})
    return {"layer": {"in": p["in"], "bias": p["bias"]}, "out": p["out"]}


def neurons(power):
    parts = Part("layer/in", (1,)), Part("layer/bias", (0,)), Part("out", (0,), -power)
    return SymmetryFamily("rescale", parts)


HEADS = {"q": (3, 4), "q_bias": 4, "k": (3, 4), "k_bias": 4}
CASES = {
    "translation": (SymmetryFamily("translation", (Part("w", (0,)),)), softmax, draw(w=(3, 4)), (3,)),
    "scale": (SymmetryFamily("scale", (Part("w"),)), rayleigh, draw(w=3), (1,)),
    "rescale": (neurons(1.0), network(jax.nn.relu), layered(), (4,)),
    "degree": (neurons(2.0), network(lambda z: jax.nn.relu(z) ** 2), layered(), (4,)),
    "twice": (
        SymmetryFamily("rescale", (Part("in", (1,)), Part("w", (1,)), Part("w", (0,), -1.0), Part("out", (0,), -1.0))),
        recurrent,
        draw(**{"in": (3, 4), "w": (4, 4), "out": (4, 2)}),
        (4,),
    ),
    "matrix": (
        SymmetryFamily(
            "matrix",
            (
                Part("q", (1,), shape=(3, 2, 2), inner=2),
                Part("q_bias", (0,), shape=(2, 2), inner=1),
                Part("k", (1,), -1.0, (3, 2, 2), 2),
                Part("k_bias", (0,), -1.0, (2, 2), 1),
            ),
        ),
        attention,
        draw(**HEADS),
        (2, 2, 2),
    ),
    "rotation": (SymmetryFamily("rotation", (Part("q", inner=1),)), turned, draw(q=(3, 2)), (1, 2, 2)),
    "flat": (SymmetryFamily("flat", (Part("k_bias", (0,)),)), attention, draw(**HEADS), (4,)),
}
CONTROLS = {
    "gelu": (neurons(1.0), network(jax.nn.gelu), layered()),
    "wrong degree": (neurons(1.0), network(lambda z: jax.nn.relu(z) ** 2), layered()),
    "wrong sums": (SymmetryFamily("translation", (Part("w", (1,)),)), softmax, draw(w=(3, 4))),
}


def largest(tree):
    return max(float(jnp.max(jnp.abs(x))) for x in jax.tree.leaves(tree))


@functools.cache
def compiled(name):
    """All that is asked of a case, in one compilation."""
    family, loss, params, _ = CASES[name]

    @jax.jit
    def facts(amount, batch, key):
        direction = amount + jnp.swapaxes(amount, 1, 2) if family.kind == "matrix" else amount
        xi = generator(family, params, direction)
        after = transform(family, params, amount)
        gradient = xi
        if family.has_charge:
            gradient = jax.grad(lambda p: jnp.sum(direction * charge(family, p)))(params)
        return {
            "losses": jnp.stack([loss(after, batch), loss(params, batch)]),
            "moved": jax.tree.map(jnp.subtract, after, params),
            "generator": xi,
            "gradient": gradient,
            "residual": constraint_residual(loss, params, batch, family, key),
            "violation": gradient_constraint(family, params, jax.grad(loss)(params, batch)),
        }

    return lambda amount, seed=0: facts(amount, np.random.default_rng(seed).normal(size=(6, 3)), jax.random.key(seed))


@pytest.mark.thorough
@pytest.mark.parametrize("name", CASES)
def test_transformed_parameters_have_the_same_loss(name):
    amount = np.random.default_rng(2).uniform(0.5, 1, CASES[name][3])
    for s in np.log([0.5, 2.0, 7.0]):
        found = compiled(name)(s * amount)
        np.testing.assert_allclose(*found["losses"], rtol=1e-11)
        assert largest(found["moved"]) > 0.1
    assert largest(compiled(name)(0 * amount)["moved"]) < 1e-15


@pytest.mark.parametrize("name", CASES)
def test_generator_is_the_slope_of_the_transformation_and_of_the_charge(name):
    family, _, _, shape = CASES[name]
    direction, h = np.random.default_rng(3).normal(size=shape), 1e-5
    direction = direction + np.swapaxes(direction, 1, 2) if family.kind == "matrix" else direction
    ends = [compiled(name)(s * direction)["moved"] for s in (h, -h)]
    found = compiled(name)(direction / 2 if family.kind == "matrix" else direction)
    slope = jax.tree.map(lambda up, down: (up - down) / (2 * h), *ends)
    assert largest(jax.tree.map(np.subtract, slope, found["generator"])) < 1e-8
    factor = 2.0 if family.kind in ("scale", "rescale", "matrix") else 1.0
    assert largest(jax.tree.map(lambda g, x: g - factor * x, found["gradient"], found["generator"])) < 1e-13


@pytest.mark.parametrize("name", CASES)
def test_constraints_hold_on_every_batch(name):
    shape = CASES[name][3]
    for seed in (4, 5):
        found = compiled(name)(np.ones(shape), seed)
        assert max(found["residual"]) < 1e-13
        assert found["violation"].shape == shape


@pytest.mark.parametrize("name", CONTROLS)
def test_constraints_fail_without_the_symmetry(name):
    family, loss, params = CONTROLS[name]
    found = jax.jit(lambda key: constraint_residual(loss, params, BATCH, family, key))(jax.random.key(0))
    assert found.gradient > 1e-3
    assert found.hessian > 1e-3


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name][0].has_charge])
def test_gradient_flow_conserves_the_charge_and_decay_shrinks_it(name):
    family, loss, params, _ = CASES[name]
    leaves, structure = jax.tree.flatten(params)
    ends = np.cumsum([x.size for x in leaves])[:-1]

    def tree(flat):
        return structure.unflatten([x.reshape(y.shape) for x, y in zip(jnp.split(flat, ends), leaves, strict=True)])

    slope = jax.jit(jax.grad(lambda flat, decay: loss(tree(flat), BATCH) + decay / 2 * flat @ flat))
    start = np.concatenate([np.ravel(x) for x in leaves])
    for decay in (0.0, 0.3):
        flow = solve_ivp(lambda _, y, d=decay: -np.array(slope(y, d)), (0, 0.5), start, "DOP853", rtol=1e-9, atol=1e-10)
        rate = decay if family.kind in ("translation", "flat") else 2 * decay
        kept = charge(family, tree(flow.y[:, -1]))
        np.testing.assert_allclose(kept, np.exp(-rate * 0.5) * charge(family, params), rtol=1e-6, atol=1e-7)
    assert np.max(np.abs(flow.y[:, -1] - start)) > 0.05


@pytest.mark.parametrize("name", ["translation", "rescale", "matrix"])
def test_budget_closes_for_any_update_and_has_no_remainder_for_descent(name):
    family, loss, params, _ = CASES[name]
    g = jax.jit(jax.grad(loss))(params, BATCH)
    eta, decay = 0.1, 0.2
    descent = jax.tree.map(lambda g, x: -eta * (g + decay * x), g, params)
    tx = optax.adam(0.1)
    with jax.numpy_dtype_promotion("standard"):
        adam, _ = tx.update(g, tx.init(params), params)
    budgeted = jax.jit(lambda update: (charge_budget(family, params, update, eta, decay), charge(family, params)))
    for update, remains in ((descent, False), (adam, True)):
        budget, before = budgeted(update)
        np.testing.assert_allclose(budget.gap, 0, atol=1e-14)
        after = charge(family, jax.tree.map(np.add, params, update))
        np.testing.assert_allclose(budget.total, after - before, atol=1e-14)
        assert (np.max(np.abs(budget.remainder)) > 1e-2) == remains
        if family.kind == "translation":
            assert not np.any(budget.finite_step)
        else:
            np.testing.assert_allclose(budget.finite_step, bilinear(family, update, update), rtol=1e-14, atol=1e-16)


def test_names_views_and_words():
    family, _, params, _ = CASES["matrix"]
    assert view(family.parts[0], params).shape == (2, 2, 3)
    np.testing.assert_array_equal(view(family.parts[0], params)[1, 0], params["q"][:, 2])
    assert list(tensors({"a": {"b": 1, "c": [2, 3]}})) == ["a/b", "a/c/0", "a/c/1"]
    assert str(neurons(1.0)) == "rescale: layer/in[.,u] + layer/bias[u] - out[u]"
    assert str(neurons(2.0)) == "rescale: layer/in[.,u] + layer/bias[u] - 2 out[u]"
    assert str(CASES["scale"][0]) == "scale: w"
    assert neurons(2.0).coefficients == (1.0, 1.0, -2.0)
    assert [CASES[name][0].has_charge for name in ("flat", "rotation")] == [True, False]
    measured = SymmetryFamily("scale", (Part("w"),), "exact", {"gap": 1e3})
    assert (measured.status, CASES["scale"][0].status) == ("exact", "declared")
    moment = bilinear(CASES["rotation"][0], CASES["rotation"][2], draw(seed=6, q=(3, 2)))
    np.testing.assert_allclose(moment, -np.swapaxes(moment, 1, 2), rtol=1e-15)


def test_charges_in_single_precision_and_mapped():
    family, loss, params, shape = CASES["rescale"]
    single = jax.tree.map(lambda x: x.astype(jnp.float32), params)
    found = charge(family, single)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, charge(family, params), rtol=1e-5, atol=1e-5)
    many = jax.tree.map(lambda x: np.stack([x, 2 * x]), params)
    mapped = jax.jit(jax.vmap(lambda p: charge(family, p)))(many)
    assert mapped.shape == (2, *shape)
    np.testing.assert_allclose(mapped[0], charge(family, params), rtol=1e-13, atol=1e-14)
    residual = jax.jit(lambda x, key: constraint_residual(loss, single, x, family, key))
    assert max(residual(BATCH.astype(np.float32), jax.random.key(0))) < 1e-5


def refuses(call, words):
    with pytest.raises(ValueError, match="^" + re.escape(words) + "$"):
        call()


def test_bad_arguments_are_named():
    params = draw(w=(3, 4))
    words = "`kind` must be one of translation, scale, rescale, matrix, rotation, flat, but got shear."
    refuses(lambda: SymmetryFamily("shear", (Part("w"),)), words)
    refuses(lambda: SymmetryFamily("scale", ()), "`parts` must name at least one tensor, but got none.")
    words = "`parts` must name tensors of the parameters, but got v."
    refuses(lambda: charge(SymmetryFamily("scale", (Part("v"),)), params), words)
    words = "`parts` must fit the tensors, but w has shape (3, 4)."
    refuses(lambda: charge(SymmetryFamily("scale", (Part("w", (2,)),)), params), words)
    refuses(lambda: charge(SymmetryFamily("scale", (Part("w", (0,), shape=(5, 2)),)), params), words)
    words = "`family` must have a symmetric generator, but got kind rotation."
    rotation = SymmetryFamily("rotation", (Part("w", inner=1),))
    refuses(lambda: charge(rotation, params), words)
    refuses(lambda: charge_budget(rotation, params, params), words)
    for kind in ("translation", "flat"):
        words = f"`family` must have a quadratic charge, but got kind {kind}."
        refuses(lambda kind=kind: bilinear(SymmetryFamily(kind, (Part("w"),)), params, params), words)
    scale = SymmetryFamily("scale", (Part("w"),))
    refuses(lambda: charge_budget(scale, params, params, 0.0), "`eta` must be positive, but got 0.")
    words = "`weight_decay` must be zero or positive, but got -1."
    refuses(lambda: charge_budget(scale, params, params, 0.1, -1), words)
