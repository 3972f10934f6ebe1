"""Every public function of the topic: reference values, one generic contract, bad input."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import theory.transfer as transfer

INF = math.inf

# name, arguments, value to ten digits, arguments of a wrong twin
REFERENCES = [
    ("scratch_risk", (0.45, 0.35, 1.25), 0.9596022727, (0.45, 0.35, 1.0)),
    ("tuned_scratch_risk", (0.45, 0.35, 1.25), 0.9404099132, (0.45, 0.35, 1.0)),
    ("scratch_risk_finite", (21, 48, 0.35, 1.25), 0.9778485577, (21, 49, 0.35, 1.25)),
    ("linear_transfer_risk_finite", (13, 0.65, 0.4, 0, 1, 1.1), 0.4979962277, (12, 0.65, 0.4)),
    (
        "linear_transfer_risk_finite",
        (13, 0.65, 0.4, 0.15, 0.8, 1.1),
        0.5125406329,
        (13, 0.65, 0.4, 0.15 * 13, 0.8, 1.1),
    ),
    ("feature_space_risk", (25, 9, 0.55, 0.45, 0.3), 0.774, (25, 10, 0.55, 0.45, 0.3)),
    ("feature_space_risk", (7, 20, 0.55, 0.45, 0.3), 1.1225, (7, 20, 0.45, 0.55, 0.3)),
    (
        "isotropic_feature_ridge_risk",
        (0.7, 0.65, 0.25, 0.05, 0.3, 1.2, 1.1),
        0.2263484461,
        (0.7, 0.65, 0.25, 0.05, 0.09, 1.2, 1.1),
    ),
    ("fine_tuning_scale", (0.6, 0.5, 1.3, 0.8, 2), 0.9483489502, (0.6, 0.5, 0.8, 1.3, 2)),
    ("fine_tuning_scale", (0.6, 0.5, 1.3, 0.8, 3), 0.9249503497, (0.6, 0.5, 1.3, 0.8, 4)),
    ("fine_tuning_scale", (0.6, 0.5, 1.3, 0.8, INF), 0.8651709138, (0.6, 0.5, 1.3, 0.8, 9)),
    ("fine_tuning_risk", (0.6, 0.75, 0.5, 1.3, 0.8, 1), 0.6982348611, (0.6, 0.75, 0.5, 1.3, 0.8)),
    ("fine_tuning_risk", (0.6, 0.75, 0.5, 1.3, 0.8), 0.6616494540, (0.6, 0.75, 0.5, 0.8, 1.3)),
    ("fine_tuning_risk", (0.6, 0.75, 0.5, 1.3, 0.8, 3), 0.6462628809, (0.6, 0.75, 0.5, 1.3, 0.8)),
    ("fine_tuning_risk", (0.6, 0.75, 0.5, 1.3, 0.8, INF), 0.6103141085, (0.6, 0.75, 0.5)),
    (
        "finite_source_fine_tuning_risk",
        (0.4, 0.6, 0.25, 0.7, 0.3),
        0.5063390039,
        (0.4, 0.6, 0.25, 0.7, 0),
    ),
    (
        "finite_source_fine_tuning_risk",
        (0.4, 0.6, 0.25, 1.5, 0.3),
        0.3553472479,
        (0.4, 0.6, 0.25, 1.5, 0),
    ),
    ("finite_source_linear_transfer_risk", (0.6, 0.7, 0.3), 0.6332113738, (0.6, 0.7, 0)),
    ("fine_tuning_head_risk", (0.4, 0.6, 0.25, 1.2, 0), 0.2336008906, (0.4, 0.6, 0.25, 1.2, 1.2)),
    ("fine_tuning_head_risk", (0.4, 0.6, 0.25, 0.5, 1.5), 0.2351680158, (0.4, 0.6, 0.25, 1.5, 0.5)),
    ("tuned_linear_transfer_boundary", (0.9, 0.3), 0.4430740608, (0.3, 0.9)),
    ("kl_divergence", (0.7, 0.4, 1.3, 0.9), 2.2195915055, (0.7, 0.4)),
    ("wasserstein2", (0.7, 0.4, 1.3, 0.9), 0.6852179933, (0.7, 0.4)),
    ("mmd", (0.7, 0.4, 1.8, 6, 1.3, 0.9), 0.0807424153, (0.7, 0.4, 1.8, 7, 1.3, 0.9)),
    ("early_stopped_risk", (0.7, 0.9, 0.25, 3), 0.3665476709, (0.7, 0.9, 0.25, 6)),
    ("early_stopped_risk", (1.8, 0.9, 0.25, 1), 0.1532445433, (1.8, 0.9, 0.25, 2)),
]


@pytest.mark.parametrize(("name", "args", "value", "twin"), REFERENCES)
def test_reference_values(name, args, value, twin):
    function = getattr(transfer, name)
    assert abs(function(*args) - value) < 6e-11
    assert abs(function(*twin) - value) > 1e-4


def test_reference_values_of_arrays():
    boundary = transfer.linear_transfer_boundary(0.9, 0.3)
    np.testing.assert_allclose(boundary, [0.4644507118, 0.8319482408, 1.1466751082], atol=6e-11)
    q = transfer.unbalanced_bias_potential(np.array([3.0, 1.0]), -0.6)
    assert abs(q[0] - q[1] - 4.5383310174) < 6e-11
    W = np.array([[1, 0], [0, 0.4], [0, 0], [0.2, 0]])
    risk = transfer.feature_ridge_risk(W, np.array([0.7, 0.4, 0.3, 0.2]), 6, 0.25, 0.02)
    assert abs(risk - 0.1590588553) < 6e-11
    teacher = np.array([[0.6, 0.8, 0], [0, 0.8, 0.6]])
    assert abs(transfer.relu_floor(teacher, np.array([1, -1]), np.eye(3)[:2]) - 0.2221358477) < 6e-11
    assert abs(transfer.relu_floor(teacher, np.array([1, 1]), np.eye(3)[:2]) - 0.2221358477) > 1e-3
    X, y, source = np.array([[1, 2, 0], [0, 1, 1]]), np.array([1, -1]), np.array([0, 1, 2])
    for depth, expected in (
        (2, [0.9296466113, 0.0351766944, -1.0351766944]),
        (3, [0.9090094799, 0.0454952600, -1.0454952600]),
    ):
        endpoint = transfer.fine_tuning_endpoint(X, y, source, depth)
        np.testing.assert_allclose(endpoint, expected, atol=6e-11)


# Points on both sides of every regime edge; each row is one argument.
THETA, SIGMA = [0.3, 1.0, 2.0], [0.2, 0.7, 0.4]
B, b = [1.3, 0.7, 1.0], [0.8, 1.2, 1.0]
GAMMA = [0.4, 0.9, 1.6]
UFUNCS = {
    "scratch_risk": (GAMMA, SIGMA, b),
    "noise_risk": (GAMMA, SIGMA),
    "scratch_risk_finite": ([5, 20, 60], [30, 15, 20], SIGMA, b),
    "scratch_risk_std": ([5, 20, 60], [30, 10, 20], SIGMA, b),
    "tuned_scratch_risk": (GAMMA, SIGMA, b),
    "tuned_scratch_ridge": (GAMMA, SIGMA, b),
    "weight_decay_ridge": ([0.1, 0.3, 0.2], B, [1, 2, 3]),
    "early_stopped_risk": (GAMMA, B, SIGMA, [0.3, 2.0, 30.0]),
    "pretraining_norm": ([0.1, 0.5, 2.0], B, [0.01, 0.1, 2.0]),
    "pretraining_half_time": (B, [0.01, 0.1, 0.6]),
    "linear_transfer_risk": (THETA, [0.0, 0.1, 3.0], B, b),
    "linear_transfer_risk_finite": ([9, 5, 400], THETA, SIGMA, [0.01, 0.1, 3.0], B, b),
    "tuned_linear_transfer_ridge": ([9, 5, 400], THETA, SIGMA, B, b),
    "feature_space_risk": ([5, 20, 60], [30, 10, 20], B, b, SIGMA),
    "isotropic_feature_ridge_risk": (GAMMA, THETA, SIGMA, [0.1, 1e-3, 0.1], [0.3, 0.1, 0.2], B, b),
    "linear_transferability": (GAMMA, THETA, SIGMA, [0.0, 0.1, 3.0], B, b),
    "fine_tuning_endpoint_scale": ([1.2, 0.1, 3.0], [0.3, 0.9, 0.0], B, [2, 3, 10]),
    "fine_tuning_scale": (GAMMA, SIGMA, B, b, [1, 2, 5]),
    "fine_tuning_risk": (GAMMA, THETA, SIGMA, B, b, [2, 3, INF]),
    "fine_tuning_transferability": (GAMMA, THETA, SIGMA, B, b, [2, 3, INF]),
    "fine_tuning_head_scale": ([1.2, 0.1, 3.0], [0.3, 0.9, 0.0], B, [0.0, 2.0, 0.5]),
    "fine_tuning_head_risk": (GAMMA, [0.3, 1.0, 1.4], SIGMA, B, [0.0, 2.0, 0.5], b),
    "finite_source_fine_tuning_risk": (GAMMA, THETA, SIGMA, [0.5, 2.0, 0.7], SIGMA, [2, 3, 4]),
    "finite_source_linear_transfer_risk": (THETA, [0.5, 2.0, 0.7], SIGMA),
    "implicit_bias_potential": (B, [1, 2, INF]),
    "unbalanced_bias_potential": (B, [-0.7, 0.0, 0.9]),
    "linear_transfer_boundary": ([1.2, 1.0, 2.0], [0.2, 0.1, 0.4]),
    "tuned_linear_transfer_boundary": (THETA, SIGMA),
    "fine_tuning_boundary": ([0.4, 0.9, 0.2], [0.2, 0.1, 0.4], B, b, [1, 2, 3]),
    "kl_divergence": (THETA, SIGMA, B, b),
    "wasserstein2": (THETA, SIGMA, B, b),
    "mmd": (THETA, SIGMA, B, [2, 5, 9], B, b),
    "relu_linear_transfer_risk": (B, [50, 9, 30], [10, 2, 40]),
}
NOT_UFUNCS = {
    "CHOICES",
    "Overlap",
    "Recommendation",
    "estimate_overlap",
    "feature_ridge_risk",
    "fine_tuning_endpoint",
    "fine_tuning_head_endpoint",
    "recommend",
    "relu_floor",
    "relu_kernel",
}
WHOLE = {"n", "d", "rank", "depth", "width"}


def test_the_table_is_complete():
    assert set(UFUNCS) | NOT_UFUNCS == set(transfer.__all__)


def names_of(function):
    return function.__code__.co_varnames[: function.__code__.co_argcount]


@pytest.mark.parametrize("name", UFUNCS)
def test_contract(name):
    """Broadcasting, jit, vmap, gradients and single precision of one function."""
    function = getattr(transfer, name)
    args = tuple(jnp.asarray(arg, dtype=float) for arg in UFUNCS[name])
    everything = tuple(range(len(args)))

    def total(*full):
        leaves = jax.tree.leaves(function(*full))
        return sum(jnp.sum(jnp.where(jnp.isfinite(leaf), leaf, 0.0)) for leaf in leaves)

    @jax.jit
    def all_at_once(args):
        column = function(args[0][:, None], *args[1:])
        gradient = jax.grad(total, everything)(*args)
        return function(*args), column, jax.vmap(function)(*args), gradient

    values, column, each, gradient = all_at_once(args)
    assert np.isfinite(jnp.asarray(values)[..., :2]).all()
    assert np.isfinite(jnp.asarray(gradient)).all()
    for leaf, whole in zip(jax.tree.leaves(values), jax.tree.leaves(column), strict=True):
        assert whole.shape == (3, 3)
        np.testing.assert_allclose(jnp.diagonal(whole), leaf, rtol=1e-12, atol=1e-14)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-14), each, values)

    single = jax.jit(function)(*(arg.astype(jnp.float32) for arg in args))
    for leaf, reference in zip(jax.tree.leaves(single), jax.tree.leaves(values), strict=True):
        assert leaf.dtype == jnp.float32
        np.testing.assert_allclose(leaf, reference, rtol=3e-5, atol=1e-6)

    smooth = [i for i, arg in enumerate(names_of(function)) if arg not in WHOLE]
    smooth = [i for i in smooth if i < len(args) and (args[i] > 0).all()]

    def of_smooth(*moving):
        return total(*(moving[smooth.index(i)] if i in smooth else arg for i, arg in enumerate(args)))

    moving = tuple(args[i] for i in smooth)
    check_grads(jax.jit(of_smooth), moving, order=1, modes=["rev"], atol=1e-5, rtol=1e-5, eps=1e-6)


BAD = [
    ("scratch_risk", (-0.2, 0.1), "`gamma` must be positive, but got -0.2."),
    ("scratch_risk", (0, 0.1), "`gamma` must be positive, but got 0."),
    ("scratch_risk", (0.5, -0.1), "`sigma` must be zero or positive, but got -0.1."),
    ("scratch_risk", (0.5, 0.1, 0), "`target_norm` must be positive, but got 0."),
    ("scratch_risk", (0.5, 0.1, INF), "`target_norm` must be finite, but got inf."),
    ("scratch_risk_finite", (2.5, 5, 0.1), "`n` must be a whole number not below 0, but got 2.5."),
    ("scratch_risk_finite", (2, 1, 0.1), "`d` must be a whole number not below 2, but got 1."),
    ("linear_transfer_risk", (-0.1,), "`theta` must be between 0 and pi, but got -0.1."),
    ("linear_transfer_risk", (0.1, -1), "`ridge` must be zero or positive, but got -1."),
    ("linear_transfer_risk", (0.1, 0, 0), "`feature_scale` must be positive, but got 0."),
    (
        "linear_transfer_risk_finite",
        (0, 1, 1),
        "`n` must be a whole number not below 1, but got 0.",
    ),
    (
        "isotropic_feature_ridge_risk",
        (1, 1, 1, 1, -2),
        "`tail` must be zero or positive, but got -2.",
    ),
    (
        "fine_tuning_risk",
        (0.5, 1, 0, 1, 1, 1.5),
        "`depth` must be a whole number not below 1, or infinity, but got 1.5.",
    ),
    ("fine_tuning_risk", (0.5, 4, 0), "`theta` must be between 0 and pi, but got 4."),
    ("fine_tuning_scale", (0.5, 0, 0), "`source_norm` must be positive, but got 0."),
    (
        "fine_tuning_head_risk",
        (0.5, 2, 0, 1, 0.5),
        "`theta` must be at most pi/2 where `head` is below `feature_scale`, but got 2.",
    ),
    ("fine_tuning_head_risk", (0.5, 1, 0, 1, -1), "`head` must be zero or positive, but got -1."),
    ("kl_divergence", (1, 0), "`sigma` must be positive, but got 0."),
    ("mmd", (1, 0.1, 0, 5), "`bandwidth` must be positive, but got 0."),
    ("pretraining_half_time", (1, 2), "`initial_norm` must be below `source_norm`, but got 2."),
    ("early_stopped_risk", (1, 1, 1, -1), "`t` must be zero or positive, but got -1."),
    ("recommend", (5, 10, 0.1, 4), "`theta` must be between 0 and pi, but got 4."),
]


@pytest.mark.parametrize(("name", "args", "sentence"), BAD)
def test_bad_input_is_one_sentence(name, args, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        getattr(transfer, name)(*args)


def test_bad_data_sets_are_one_sentence():
    X, y, source = np.eye(3)[:2], np.ones(2), np.ones(3)
    for endpoint in (
        transfer.fine_tuning_endpoint,
        lambda X, y, source: transfer.fine_tuning_head_endpoint(X, y, source, 1, 1),
    ):
        with pytest.raises(ValueError, match="fewer rows than columns, but got 3 rows"):
            endpoint(np.eye(3), np.ones(3), source)
        with pytest.raises(ValueError, match="`X` must be of full rank 2, but got 1"):
            endpoint(np.ones((2, 3)), y, source)
        with pytest.raises(ValueError, match="`source` must be different from 0"):
            endpoint(X, y, 0 * source)
        with pytest.raises(ValueError, match="must have shapes"):
            endpoint(X, np.ones(3), source)
    with pytest.raises(ValueError, match="as many rows as `target` has entries"):
        transfer.feature_ridge_risk(X, np.ones(3), 5, 0.1, 0.1)
    with pytest.raises(ValueError, match="`ridge` must be positive"):
        transfer.feature_ridge_risk(X.T, np.ones(3), 5, 0.1, 0)
    with pytest.raises(ValueError, match="must have shapes"):
        transfer.relu_floor(X, np.ones(3), X)
