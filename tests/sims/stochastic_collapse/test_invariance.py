"""Invariant sets of networks: their geometry, the check of every sample, and normal Hessians against closed forms."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sims.stochastic_collapse.invariance import (
    affine,
    check_invariance,
    duplicates,
    fixed_points,
    normal_hessians,
    vanishing,
)
from theory.stochastic_collapse import permutation_set_hessian, sign_set_hessian

AXES = {"hidden/kernel": 1, "hidden/bias": 0, "out/kernel": 0}
D, H, P, N = 3, 4, 2, 12


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(0)
    hidden = {"kernel": jnp.asarray(rng.normal(size=(D, H))), "bias": jnp.asarray(rng.normal(size=H))}
    return {"hidden": hidden, "out": {"kernel": jnp.asarray(rng.normal(size=(H, P)))}}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(1)
    return jnp.asarray(rng.normal(size=(N, D))), jnp.asarray(rng.normal(size=(N, P)))


def mean_squares(activation):
    def loss(params, batch):
        x, y = batch
        u = x @ params["hidden"]["kernel"] + params["hidden"]["bias"][None, :]
        return ((activation(u) @ params["out"]["kernel"] - y) ** 2).sum(1).mean() / 2

    return loss


tanh_loss, sigmoid_loss = mean_squares(jnp.tanh), mean_squares(jax.nn.sigmoid)


def exchanged(v):
    """Units 0 and 2 exchanged."""
    order = np.array([2, 1, 0, 3])
    hidden = {"kernel": v["hidden"]["kernel"][:, order], "bias": v["hidden"]["bias"][order]}
    return {"hidden": hidden, "out": {"kernel": v["out"]["kernel"][order]}}


def difference(p):
    """Units 0 and 2 compared."""
    hidden = p["hidden"]
    return hidden["kernel"][:, 0] - hidden["kernel"][:, 2], hidden["bias"][0] - hidden["bias"][2], shifted(p)


def shifted(p):
    return p["out"]["kernel"][0] - p["out"]["kernel"][2] - 0.5


def sets(params):
    return {
        "unit": vanishing(params, AXES, 1),
        "pair": duplicates(params, AXES, 0, 2),
        "symmetry": fixed_points(params, exchanged),
        "equations": affine(params, difference),
    }


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["unit", "pair", "symmetry", "equations"])
def test_a_set_is_affine_and_its_coordinates_orthonormal(params, name):
    A = sets(params)[name]
    flat = jax.flatten_util.ravel_pytree
    nearest = A.project(params)
    assert A.distance(nearest) < 1e-14
    across = flat(jax.tree.map(jnp.subtract, params, nearest))[0]
    np.testing.assert_allclose(jnp.linalg.norm(across), A.distance(params), rtol=1e-13)
    z = A.within(jnp.asarray(np.random.default_rng(2).normal(size=A.normal(params).shape)), params)
    moved = A.move(nearest, z)
    np.testing.assert_allclose(A.normal(moved), z, atol=1e-14)
    np.testing.assert_allclose(flat(A.project(moved))[0], flat(nearest)[0], atol=1e-14)
    # The adjoint of lift takes coordinates, so that a gradient by them is the gradient's part across the set.
    np.testing.assert_allclose(jax.vjp(lambda z: A.lift(z, params), 0 * z)[1](A.lift(z, params))[0], z, atol=1e-14)


@pytest.mark.thorough
def test_three_ways_to_say_the_same_set(params):
    found = {name: A for name, A in sets(params).items() if name != "unit"}
    found["equations"] = affine(params, lambda p: (*difference(p)[:2], shifted(p) + 0.5))
    distances = [A.distance(params) for A in found.values()]
    np.testing.assert_allclose(distances, distances[0], rtol=1e-13)
    points = [jax.flatten_util.ravel_pytree(A.project(params))[0] for A in found.values()]
    np.testing.assert_allclose(points, np.tile(points[0], (3, 1)), atol=1e-14)


@pytest.mark.thorough
def test_tanh_keeps_a_vanished_unit_and_a_sigmoid_does_not(params, data):
    unit, pair = (sets(params)[name] for name in ("unit", "pair"))
    for loss, A, holds in (
        (tanh_loss, unit, True), (tanh_loss, pair, True), (sigmoid_loss, unit, False), (sigmoid_loss, pair, True),
    ):  # fmt: skip
        found = check_invariance(loss, A.project(params), A, data)
        assert found.holds is holds
        assert found.normal.shape == (4, N)
        assert (found.largest < 1e-14) is holds
        assert holds or found.largest > 0.05


@pytest.mark.thorough
def test_equal_incoming_weights_alone_are_not_kept_even_where_the_point_given_hides_it(params, data):
    A = duplicates(params, {"hidden/kernel": 1, "hidden/bias": 0}, 0, 2)
    hidden = sets(params)["pair"].project(params)
    assert check_invariance(tanh_loss, hidden, A, data, points=1).holds
    assert not check_invariance(tanh_loss, hidden, A, data).holds
    # A unit without its bias does not vanish.
    A = vanishing(params, {"hidden/kernel": 1, "out/kernel": 0}, 1)
    assert not check_invariance(tanh_loss, A.project(params), A, data).holds


def test_a_set_that_only_the_mean_gradient_keeps_is_refused(data):
    x = jnp.concatenate([data[0], -data[0]])
    params = {"w": jnp.zeros(D)}
    A = affine(params, lambda p: p["w"])
    found = check_invariance(lambda p, x: (x @ p["w"]).mean(), params, A, x)
    assert abs(jax.grad(lambda p: (x @ p["w"]).mean())(params)["w"]).max() < 1e-15
    assert not found.holds


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["unit", "pair"])
def test_normal_hessians_are_those_of_the_theory(params, data, name):
    A = sets(params)[name]
    point = A.project(params)
    found = normal_hessians(tanh_loss, point, A, data)
    x = jnp.concatenate([data[0], jnp.ones((N, 1))], 1)
    u = data[0] @ point["hidden"]["kernel"] + point["hidden"]["bias"][None, :]
    r = jnp.tanh(u) @ point["out"]["kernel"] - data[1]
    slope = 1 - jnp.tanh(u[:, 0]) ** 2
    expected = {
        "unit": lambda: sign_set_hessian(x, r, 1.0),
        "pair": lambda: permutation_set_hessian(x, r, point["out"]["kernel"][0], slope, -2 * jnp.tanh(u[:, 0]) * slope),
    }[name]()
    # Coordinates follow the order of `axes`: kernel, bias, outgoing weights.
    np.testing.assert_allclose(found, expected, atol=1e-13)


class Conv(nn.Module):
    """A convolution, tanh, averaged over positions; the input is an image without channels."""

    @nn.compact
    def __call__(self, images):
        x = nn.tanh(nn.Conv(4, (3, 3), param_dtype=float)(images[..., None]))
        return nn.Dense(3, param_dtype=float)(x.mean((1, 2)))


@pytest.mark.thorough
def test_channels_of_a_convolution():
    model = Conv()
    images = jax.random.normal(jax.random.key(0), (6, 5, 5))
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        params = model.init(jax.random.key(1), images)["params"]

    def loss(p, batch):
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            return (model.apply({"params": p}, batch) ** 2).sum(1).mean()

    axes = {"Conv_0/kernel": 3, "Conv_0/bias": 0, "Dense_0/kernel": 0}
    for A in (duplicates(params, axes, 1, 3), vanishing(params, axes, 0)):
        assert check_invariance(loss, A.project(params), A, images).holds
    assert duplicates(params, axes, 0, 1).normal(params).shape == (9 + 1 + 3,)
    half = duplicates(params, {"Conv_0/kernel": 3, "Conv_0/bias": 0}, 0, 1)
    assert not check_invariance(loss, half.project(params), half, images).holds


def refuses(call, words):
    with pytest.raises(ValueError, match="^" + re.escape(words)):
        call()


def test_bad_arguments_are_named(params, data):
    refuses(lambda: vanishing(params, {}, 0), "`axes` must name at least one tensor, but got none.")
    words = "`axes` must name tensors of `params` (hidden/bias, hidden/kernel, out/kernel), but got kernel."
    refuses(lambda: vanishing(params, {"kernel": 0}, 0), words)
    words = "`axes` must fit the tensors, but hidden/bias has shape (4,) and no axis 1."
    refuses(lambda: vanishing(params, {"hidden/bias": 1}, 0), words)
    words = "`axes` must count the same units in every tensor, but got 3 in hidden/kernel, 4 in hidden/bias."
    refuses(lambda: vanishing(params, {"hidden/kernel": 0, "hidden/bias": 0}, 0), words)
    refuses(lambda: vanishing(params, AXES, 4), "`unit` must be from 0 to 3, but got 4.")
    refuses(lambda: duplicates(params, AXES, 1, 1), "`j` must be another unit than `i`, but got 1 twice.")
    broken = jax.tree.map(lambda x: x * jnp.nan, params)
    refuses(lambda: vanishing(broken, AXES, 0), "`params` must be finite, but got nan.")

    A = duplicates(params, AXES, 0, 2)
    words = "`params` must lie on the invariant set (units 0 and 2), but got a distance of"
    refuses(lambda: check_invariance(tanh_loss, params, A, data), words)
    refuses(lambda: normal_hessians(tanh_loss, params, A, data), words)
    refuses(lambda: check_invariance(tanh_loss, broken, A, data), "`params` must be finite, but got nan.")
    words = "`data` must count its samples along the first axis, but got [11, 12] of them."
    refuses(lambda: check_invariance(tanh_loss, A.project(params), A, (data[0], data[1][1:])), words)
    words = "`data` must be finite, but got nan."
    refuses(lambda: check_invariance(tanh_loss, A.project(params), A, (data[0] * jnp.nan, data[1])), words)

    scaled = {"x": jnp.ones(3)}
    refuses(lambda: fixed_points(scaled, lambda v: jax.tree.map(lambda x: x + 1, v)), "`reflect` must be linear")
    refuses(lambda: fixed_points(scaled, lambda v: {"x": jnp.roll(v["x"], 1)}), "`reflect` must be its own inverse")
    shear = jnp.array([[1.0, 0.5, 0], [0, -1, 0], [0, 0, 1]])
    refuses(lambda: fixed_points(scaled, lambda v: {"x": shear @ v["x"]}), "`reflect` must be orthogonal")
    refuses(lambda: affine(scaled, lambda v: v["x"] ** 2), "`constraint` must be affine, but it is not.")
    words = "`constraint` must have independent values, but some of the 2 follow from others."
    refuses(lambda: affine(scaled, lambda v: (v["x"][0], 2 * v["x"][0] + 1)), words)
