"""The audit finds every declared symmetry of every model, and no other, in float64 and in float32."""

import functools
import re
import warnings

import jax
import numpy as np
import pytest

from sims.noether import audit as module
from sims.noether import confirm
from sims.noether.audit import find_symmetries, table
from sims.noether.models import MODELS, build, families
from theory.noether import (
    Part,
    SymmetryFamily,
    constraint_residual,
    hessian_constraint,
    tensors,
    transform,
    units_shape,
)

BATCHES = 24
LONG = {
    "cnn_eval",
    "cnn_train",
    "cnn_train_epsilon",
    "modern_qk_norm",
    "transformer_gelu",
    "transformer_relu",
    "modern",
    "modern_plain",
}


def models(*, at_once=()):
    """Every model, the long ones among the thorough tests."""
    quick = at_once or [name for name in MODELS if name not in LONG]
    return [pytest.param(name, marks=[] if name in quick else pytest.mark.thorough) for name in MODELS]


@functools.cache
def compiled(name, dtype):
    return confirm.compiled_loss(build(name, dtype=dtype)[0])


@functools.cache
def audited(name, dtype=np.float64):
    """The audit, its compiled functions shared with the tests."""
    loss, params, make_batches = build(name, dtype=dtype)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        patch.setattr(module, "compiled_loss", lambda loss: compiled(name, dtype))
        return find_symmetries(loss, params, make_batches(BATCHES))


def wired(family):
    """Kind, tensors, axes and powers, up to the direction of the one parameter."""
    sign = np.sign(min(family.parts).coefficient)
    return family.kind, frozenset(part._replace(coefficient=sign * part.coefficient) for part in family.parts)


@pytest.mark.thorough
@pytest.mark.parametrize("name", models())
def test_all_declared_symmetries_are_found_and_no_others(name):
    found = {wired(family): family.status for family in audited(name)}
    assert found == {wired(family): family.status for family in families(name)}
    assert len(found) == len(audited(name))


@pytest.mark.thorough
@pytest.mark.parametrize("name", models(at_once=("mlp_relu2", "cnn_train_epsilon")))
def test_float32_finds_the_same_classes(name):
    found = {wired(family): family.status for family in audited(name, np.float32)}
    declared = {wired(family): family.status for family in families(name)}
    assert found.keys() == declared.keys()
    assert all(status in (declared[key], "undecided") for key, status in found.items())
    assert "undecided" not in found.values()  # measured; it would be no error


@pytest.mark.thorough
@pytest.mark.parametrize("name", models())
def test_residuals_of_exact_families_are_rounding_and_the_gap_is_wide(name):
    for family in audited(name):
        evidence = family.evidence
        if family.status == "exact":
            assert evidence["gradient"] < 3e-15
            assert evidence["hessian"] < 1e-12
            assert evidence["finite"] < 1e-12
            assert evidence.get("far", 0.0) < 1e-12
            assert abs(evidence["coherence"]) < 0.7
        if family.kind != "flat":
            assert evidence["next_singular_value"] > 4e-3
            assert evidence["singular_value"] < (1e-14 if family.status == "exact" else 1e-4)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("cnn_train_epsilon", id="batch_norm"),
        pytest.param("transformer_epsilon", id="layer_norm"),
    ],
)
def test_an_epsilon_shows_in_the_residual_and_after_a_far_scaling(name):
    near = [family for family in audited(name) if family.status == "approximate"]
    assert {family.kind for family in near} == {"scale"}
    for family in near:
        assert 1e-7 < family.evidence["gradient"] < 1e-4
        assert 1e-7 < family.evidence["hessian"] < 1e-4
        assert family.evidence["far"] > 1e-3
        assert family.evidence["coherence"] > 0.99


def point(params, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: np.asarray(x) * np.exp(0.3 * rng.standard_normal(x.shape)), params)


@pytest.mark.thorough
@pytest.mark.parametrize("name", models(at_once=("mlp_relu2", "mlp_linear", "cnn_train_epsilon", "modern_qk_norm")))
def test_the_families_transform_elsewhere_too(name):
    _, params, make_batches = build(name)
    batch, params = make_batches(1, seed=99)[0], point(params, 7)
    loss, rng = compiled(name, np.float64), np.random.default_rng(5)
    before, gradient = loss.gradient(params, batch)
    gradient = jax.tree.map(np.asarray, gradient)
    for family in audited(name):
        limit = 1e-11 if family.status == "exact" else 1e-4
        shape = units_shape(family, params)
        for amount in np.log((0.5, 2.0, 7.0)):
            moved = transform(family, params, amount * rng.choice((-1.0, 1.0), shape) / max(1, shape[-1] ** 0.5))
            assert loss.value(moved, batch) == pytest.approx(float(before), rel=limit)
        factors = jax.tree.map(lambda x: rng.standard_normal(x.shape), params)
        product = lambda tangent: jax.tree.map(np.asarray, loss.product(params, batch, tangent))  # noqa: E731
        residual = hessian_constraint(family, params, gradient, product, rng.standard_normal(shape), factors)
        assert residual < limit


UNITS = SymmetryFamily(
    "rescale", (Part("Dense_0/kernel", (1,)), Part("Dense_0/bias", (0,)), Part("Dense_1/kernel", (0,), -1.0))
)
CONTROLS = {
    "rescaling of GELU units": ("mlp_gelu", UNITS),
    "degree 1 of squared ReLU": ("mlp_relu2", UNITS),
    "scaling before batch norm at evaluation": ("cnn_eval", SymmetryFamily("scale", (Part("Conv_0/kernel", (3,)),))),
    "rescaling of every dimension under rotary positions": (
        "modern_qk_norm",
        SymmetryFamily("rescale", (Part("query_norm/scale", (0,)), Part("key_norm/scale", (0,), -1.0))),
    ),
    "rescaling of gate against down": (
        "modern_qk_norm",
        SymmetryFamily("rescale", (Part("gate/kernel", (1,)), Part("down/kernel", (0,), -1.0))),
    ),
}


@pytest.mark.thorough
@pytest.mark.parametrize("control", CONTROLS)
def test_controls_break_the_constraints_and_are_not_found(control):
    name, family = CONTROLS[control]
    _, params, make_batches = build(name)
    batch, params, rng = make_batches(1, seed=3)[0], point(params, 2), np.random.default_rng(1)
    loss = compiled(name, np.float64)
    gradient = jax.tree.map(np.asarray, loss.gradient(params, batch)[1])
    factors = jax.tree.map(lambda x: rng.standard_normal(x.shape), params)
    product = lambda tangent: jax.tree.map(np.asarray, loss.product(params, batch, tangent))  # noqa: E731
    direction = rng.standard_normal(units_shape(family, params))
    assert hessian_constraint(family, params, gradient, product, direction, factors) > 0.02
    assert wired(family) not in {wired(found) for found in audited(name)}


@pytest.mark.thorough
def test_the_residual_of_the_library_agrees_with_the_evidence():
    loss, params, make_batches = build("mlp_relu")
    measured = jax.jit(constraint_residual, static_argnums=(0, 3))
    residual = measured(loss, params, make_batches(1)[0], audited("mlp_relu")[-1], jax.random.key(1))
    assert max(map(float, residual)) < 1e-14


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["mlp_gelu", "mlp_relu2", "cnn_eval", "modern_qk_norm"])
def test_no_seed_invents_or_misses_a_symmetry(name):
    for seed in range(1, 5):
        loss, params, make_batches = build(name, seed)
        found = find_symmetries(loss, params, make_batches(BATCHES, seed), seed=seed)
        assert {wired(family) for family in found} == {wired(family) for family in families(name)}, seed


def test_the_result_is_the_same_twice_and_in_the_order_of_kinds_and_tensors():
    loss, params, make_batches = build("mlp_relu")
    again = find_symmetries(loss, params, make_batches(BATCHES))
    assert again == audited("mlp_relu")
    assert [str(family) for family in again] == [
        "translation: Dense_2/bias",
        "translation: Dense_2/kernel[u]",
        "rescale: Dense_0/bias[u] + Dense_0/kernel[.,u] - Dense_1/kernel[u]",
        "rescale: Dense_1/bias[u] + Dense_1/kernel[.,u] - Dense_2/kernel[u]",
    ]


@pytest.mark.thorough
def test_the_table_shows_status_residuals_and_gap():
    lines = table(audited("cnn_train_epsilon")).splitlines()
    assert lines[0].split() == ["status", "gradient", "Hessian", "finite", "far", "gap", "family"]
    assert len(lines) == 1 + len(families("cnn_train_epsilon"))
    near = next(line for line in lines if "Conv_0/kernel" in line)
    assert re.match(r"approximate +\S+e-05 +\S+e-06 +\S+ +\S+e-02 +1e-05 < 0\.\d+ +scale: Conv_0", near)


def test_models_name_their_tensors_and_refuse_others():
    _, params, make_batches = build("modern_qk_norm", dtype=np.float32)
    assert all(x.dtype == np.float32 for x in tensors(params).values())
    assert len(make_batches(3)) == 3
    for name in MODELS:
        shapes = {n: x.shape for n, x in tensors(build(name)[1]).items()}
        assert all(part.name in shapes for family in families(name) for part in family.parts)
    with pytest.raises(ValueError, match=r"^`name` must be one of mlp_relu, .*, but got resnet\.$"):
        build("resnet")
    with pytest.raises(ValueError, match=r"^`name` must be one of mlp_relu, .*, but got resnet\.$"):
        families("resnet")
