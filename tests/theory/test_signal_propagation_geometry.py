"""Geometry of tokens by sampled attention, printed digits, plain iteration, limits and derivatives."""

import math
import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from theory.gaussian_kernels import FUNCTIONS
from theory.signal_propagation import (
    TransformerConfig,
    attention_map,
    block_map,
    depth_scale,
    fixed_point,
    mlp_map,
    propagate,
    stationary_norm,
)

PRINTED = TransformerConfig(n=24, alpha_A=0.5, alpha_M=0.4, sigma_A=1.7, sigma_w=2.2, sigma_2=1.1)
# Chaotic at sigma_w = 3, collapsed at sigma_w = 1.2.
INFINITE = TransformerConfig(n=np.inf, alpha_A=0.4, alpha_M=0.75, sigma_w=3.0, activation="erf")
QUICK = TransformerConfig(
    n=24.0,
    alpha_A=0.4,
    alpha_M=0.75,
    sigma_A=1.7,
    sigma_V=1.1,
    sigma_w=3.0,
    sigma_2=1.0,
    activation="erf",
    closure="annealed",
)
run = jax.jit(propagate, static_argnames="depth")
attend = jax.jit(attention_map)
scale_of = jax.jit(depth_scale)
block = jax.jit(block_map)


def test_the_first_block_keeps_its_printed_digits():
    q, rho = run(1.0, 0.25, 1, PRINTED)
    assert q.shape == rho.shape == (2,)
    np.testing.assert_allclose((q[0], rho[0]), (1, 0.25), rtol=1e-15)
    np.testing.assert_allclose((q[1], q[1] * rho[1]), (0.8369987898, 0.2528346298), rtol=0, atol=1e-10)
    wrong = run(1.0, 0.25, 1, replace(PRINTED, sigma_A=1.71))
    assert np.all(np.abs(np.array(wrong)[:, 1] - (q[1], rho[1])) > 1e-5)


def test_attention_is_that_of_sampled_logits():
    n, q, rho, count = 6, 1.3, 0.4, 20_000
    config = replace(PRINTED, n=float(n), sigma_A=2.0, sigma_V=1.2, norm="none")
    rng = np.random.default_rng(3)
    inside = q * ((1 - rho) * np.eye(n) + rho * np.ones((n, n)))
    root = np.linalg.cholesky(inside)
    A = np.exp(config.sigma_A * root @ rng.normal(size=(count, n, n)) @ root.T)
    A /= A.sum(-1, keepdims=True)
    outputs = A @ inside @ A.transpose(0, 2, 1)
    diagonal = np.trace(outputs, axis1=1, axis2=2) / n
    others = (outputs.sum((1, 2)) - n * diagonal) / (n * (n - 1))
    draws = np.stack([0.75 * q + 0.25 * 1.44 * diagonal, 0.75 * q * rho + 0.25 * 1.44 * others])
    errors = draws.std(axis=1) / math.sqrt(count)
    assert np.all(errors < 2e-3)

    def deviation(config):
        return np.abs(draws.mean(axis=1) - np.array(attend(jnp.array(q), jnp.array(q * rho), config))) / errors

    assert np.all(deviation(config) < 5)
    assert np.all(deviation(replace(config, closure="annealed")) > 5)
    assert np.all(deviation(replace(config, sigma_V=1.44)) > 5)


@pytest.mark.parametrize("norm", ["pre", "none"])
def test_the_mlp_is_that_of_sampled_preactivations(norm):
    q, rho = 1.3, 0.4
    config = replace(QUICK, norm=norm)
    rng = np.random.default_rng(4)
    x, z = math.sqrt(q if norm == "none" else 1) * rng.normal(size=(2, 200_000))
    images = [scipy.special.erf(3 * w) for w in (x, rho * x + math.sqrt(1 - rho**2) * z)]
    products = np.stack([images[0] ** 2, images[0] * images[1]])
    errors = products.std(axis=1) / math.sqrt(x.size)
    start = np.array([q, q * rho])
    of_mlp = np.array(mlp_map(*map(jnp.asarray, start), config)) - (1 - 0.75**2) * start
    assert np.all(np.abs(products.mean(axis=1) - of_mlp / 0.75**2) < 5 * errors)
    assert np.all(np.abs(products.mean(axis=1) - of_mlp / 0.75) > 5 * errors)
    other = replace(config, norm="pre" if norm == "none" else "none")
    swapped = np.array(mlp_map(*map(jnp.asarray, start), other)) - (1 - 0.75**2) * start
    assert abs(products.mean(axis=1) - swapped / 0.75**2)[0] > 5 * errors[0]


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_fixed_points_and_depth_scales_are_those_of_plain_iteration(norm):
    config = replace(INFINITE, norm=norm, sigma_w=np.array([3.0, 1.2]))
    path = np.array(run(1.0, 0.25, 5000, replace(config, closure="large_n")))
    reached = np.array(fixed_point(config, 1.0, 0.25))
    np.testing.assert_allclose(reached, path[:, -1], rtol=0, atol=1e-12)
    assert reached[1, 0] < 0.6  # chaos
    np.testing.assert_allclose(reached[:, 1], (stationary_norm(config)[1], 1), rtol=1e-12)  # order
    assert np.all(np.abs(reached - path[:, 20]).max(axis=0) > 1e-4)
    if norm == "post":
        np.testing.assert_array_equal(path[0, 1:], 1)
        return
    printed = 0.7445352845, 0.3588115050
    np.testing.assert_allclose(reached[:, 0], printed, rtol=0, atol=1e-10)
    # Both are approached as exp(-l / xi), read off after the faster mode has died.
    config = replace(config, closure="large_n")
    steps = np.diff(path[1], axis=0)
    measured = [-1 / np.log(steps[at + 1, i] / steps[at, i]) for i, at in ((0, 350), (1, 80))]
    xi = scale_of(config, 1.0, 0.25)
    np.testing.assert_allclose(xi, measured, rtol=1e-4)
    np.testing.assert_allclose(np.exp(-1 / xi[0]), 0.9453766887, rtol=0, atol=1e-10)
    q, rho = reached
    alone = -1 / np.log((block(q, rho, config).rho - block(q, rho - 1e-6, config).rho) / 1e-6)
    assert abs(alone[0] / measured[0] - 1) > 0.02  # the slope of rho at fixed q is not the rate
    np.testing.assert_allclose(alone[1], measured[1], rtol=1e-4)  # but at collapse it is


def test_uncorrelated_tokens_stay_so_with_an_odd_activation_and_infinitely_many():
    np.testing.assert_allclose(run(1.0, 0.0, 6, replace(INFINITE, closure="large_n")).rho, 0, atol=1e-15)
    assert run(1.0, 0.0, 6, replace(INFINITE, n=100.0, closure="annealed")).rho[-1] > 0.01


def test_many_tokens_approach_infinitely_many_as_one_over_n():
    n = 10.0 ** np.arange(3, 8)
    paths = np.array(run(1.0, 0.25, 6, replace(QUICK, n=n)))[:, -1]
    limit = np.array(propagate(1.0, 0.25, 6, replace(QUICK, n=np.inf, closure="exact")))[:, -1]
    gaps = np.abs(paths - limit[:, None])
    np.testing.assert_allclose(np.diff(np.log10(gaps)), -1, atol=0.1)
    assert np.all(gaps[:, -1] < 1e-6)
    assert np.all(np.abs(limit - np.array(run(1.0, 0.2501, 6, QUICK))[:, -1]) > 1e-5)


def test_one_token_keeps_all_that_attention_gives():
    alone, two = (attend(jnp.array(1.7), jnp.array(0.6), replace(PRINTED, n=n, norm="none"))[0] for n in (1.0, 2.0))
    np.testing.assert_allclose(alone, 1.7, rtol=1e-14)
    assert two < 1.69


def test_branches_that_are_off_change_nothing_and_identity_residuals_add():
    off = replace(QUICK, alpha_A=0.0, alpha_M=0.0)
    q, rho = run(1.4, 0.3, 6, off)
    np.testing.assert_allclose(q, 1.4, rtol=1e-15)
    np.testing.assert_allclose(rho, 0.3, rtol=1e-15)
    q, p = attention_map(*QUICK.broadcast(1.4, 0.42)[1], replace(QUICK, residual="identity"))
    kept = attention_map(*QUICK.broadcast(1.4, 0.42)[1], QUICK)
    np.testing.assert_allclose((q - kept[0], p - kept[1]), 0.4**2 * np.array([1.4, 0.42]), rtol=1e-12)


def test_numbers_broadcast_against_the_start():
    sigma_w, rho0 = np.array([[1.2], [2.0], [3.0]]), np.array([0.1, 0.7])
    q, rho = run(1.0, rho0, 6, replace(QUICK, sigma_w=sigma_w))
    assert q.shape == rho.shape == (7, 3, 2)
    alone = run(1.0, 0.7, 6, replace(QUICK, sigma_w=2.0))
    np.testing.assert_allclose((q[:, 1, 1], rho[:, 1, 1]), alone, rtol=1e-14)
    assert np.all(np.abs(rho[1:, 0, 1] - alone.rho[1:]) > 1e-3)
    single = propagate(np.float32(1.0), np.array([0.7], np.float32), 6, QUICK)
    assert single.q.dtype == single.rho.dtype == np.float32
    np.testing.assert_allclose(single.rho[:, 0], rho[:, 2, 1], atol=1e-5)


def test_gradients_reach_every_number_of_the_configuration():
    def last(config):
        q, rho = block_map(jnp.array(1.3), jnp.array(0.25), config)
        return q + 2 * rho

    value, gradient = jax.jit(last), jax.jit(jax.grad(last))(QUICK)
    assert isinstance(gradient, TransformerConfig)
    for name in ("alpha_A", "alpha_M", "sigma_A", "sigma_V", "sigma_w", "sigma_2"):
        number = getattr(QUICK, name)
        low, high = (value(replace(QUICK, **{name: number * (1 + step)})) for step in (-1e-5, 1e-5))
        secant = (high - low) / (2e-5 * number)
        np.testing.assert_allclose(getattr(gradient, name), secant, rtol=1e-6)
    assert abs(gradient.n - (value(replace(QUICK, n=25.0)) - value(replace(QUICK, n=23.0))) / 2) < 1e-5
    assert gradient.n < -1e-4


@pytest.mark.thorough
@pytest.mark.parametrize("closure", ["exact", "annealed"])
def test_gradients_are_those_of_secants_also_where_tokens_are_unrelated(closure):
    def last(rho):
        return propagate(1.0, rho, 2, replace(QUICK, closure=closure)).rho[-1]

    value, gradient = jax.jit(last), jax.jit(jax.grad(last))
    h = 1e-4
    secant = (-3 * value(0.0) + 4 * value(h) - value(2 * h)) / (2 * h)
    np.testing.assert_allclose(gradient(0.0), secant, rtol=1e-6)


def test_maps_take_plain_numbers():
    with jax.numpy_dtype_promotion("strict"):
        q, p = attention_map(1, 0.25, replace(QUICK, n=24))
        assert q > p > 0.25
        rho = propagate(1.0, 0.25, 1, replace(QUICK, alpha_A=[0.2, 0.4])).rho
    np.testing.assert_allclose(rho[1, 1], run(1.0, 0.25, 1, QUICK).rho[1], rtol=1e-14)


def test_infinitely_many_tokens_need_no_sums():
    assert replace(QUICK, n=np.inf).broadcast()[0].closure == "large_n"
    assert replace(QUICK, n=np.array([2.0, np.inf]), closure="exact").broadcast()[0].closure == "exact"


def test_a_configuration_is_a_pytree_of_its_numbers():
    leaves, structure = jax.tree.flatten(QUICK)
    assert len(leaves) == 7
    assert jax.tree.unflatten(structure, leaves) == QUICK
    halved = jax.tree.map(lambda x: x / 2, QUICK)
    assert (halved.n, halved.sigma_A, halved.sigma_w, halved.activation) == (12, 0.85, 1.5, "erf")
    assert jax.tree.map(lambda x: -x, QUICK).n == -24  # as in a gradient
    assert structure != jax.tree.structure(replace(QUICK, norm="post"))
    stacked = jax.tree.map(lambda *x: jnp.stack(x), halved, QUICK)
    both = jax.vmap(lambda config: propagate(1.0, 0.25, 6, config))(stacked)
    np.testing.assert_allclose(both.rho[1], run(1.0, 0.25, 6, QUICK).rho, rtol=1e-14)
    unit = QUICK.unit_variance()
    np.testing.assert_allclose(mlp_map(*unit.broadcast(1.0, 1.0)[1], unit)[0], 1.0, rtol=1e-14)
    assert unit.sigma_V == 1
    assert QUICK.kept_A == pytest.approx(1 - 0.4**2)
    assert replace(QUICK, residual="identity").kept_M == 1


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"n": 0}, "`n` must be a whole number not below 1, or infinity, but got 0."),
        ({"n": 2.5}, "`n` must be a whole number not below 1, or infinity, but got 2.5."),
        ({"n": np.nan}, "`n` must be a whole number not below 1, or infinity, but got nan."),
        ({"alpha_A": 1.1}, "`alpha_A` must be between 0 and 1 with the normalized residual, but got 1.1."),
        ({"alpha_M": -0.1}, "`alpha_M` must be between 0 and 1 with the normalized residual, but got -0.1."),
        ({"alpha_A": -1, "residual": "identity"}, "`alpha_A` must be zero or positive, and finite, but got -1."),
        ({"sigma_A": -0.5}, "`sigma_A` must be zero or positive, and finite, but got -0.5."),
        ({"sigma_V": np.nan}, "`sigma_V` must be zero or positive, and finite, but got nan."),
        ({"sigma_w": np.array([1, -2])}, "`sigma_w` must be zero or positive, and finite, but got -2."),
        ({"sigma_2": np.inf}, "`sigma_2` must be zero or positive, and finite, but got inf."),
        ({"n": "a"}, "`n` must be a number or an array of numbers, but got 'a'."),
        ({"norm": "layer"}, "`norm` must be one of pre, post, none, but got layer."),
        ({"residual": "scaled"}, "`residual` must be one of normalized, identity, but got scaled."),
        ({"closure": "mean"}, "`closure` must be one of exact, annealed, large_n, but got mean."),
        (
            {"activation": "swish"},
            "`activation` must be a function or one of " + ", ".join(FUNCTIONS) + ", but got swish.",
        ),
    ],
)
def test_a_configuration_refuses_what_is_no_transformer(numbers, words):
    with pytest.raises(ValueError, match="^" + re.escape(words) + "$"):
        replace(QUICK, **numbers)
    assert replace(QUICK, alpha_A=1.5, residual="identity").alpha_A == 1.5


def test_the_geometry_refuses_what_is_no_cloud_of_tokens():
    for arguments, words in (
        ((0.0, 0.5, 3), "`q0` must be positive and finite, but got 0."),
        ((np.nan, 0.5, 3), "`q0` must be positive and finite, but got nan."),
        ((1.0, -0.01, 3), "`rho0` must be between 0 and 1, but got -0.01."),
        ((1.0, np.array([0.5, 1.5]), 3), "`rho0` must be between 0 and 1, but got 1.5."),
        ((1.0, 0.5, -1), "`depth` must be a whole number not below 0, but got -1."),
        ((1.0, 0.5, 2.5), "`depth` must be a whole number not below 0, but got 2.5."),
    ):
        with pytest.raises(ValueError, match="^" + re.escape(words) + "$"):
            propagate(*arguments, QUICK)
    for call in (lambda config: propagate(1.0, 0.5, 3, config), fixed_point, depth_scale):
        with pytest.raises(ValueError, match=r"^`config` must not be causal .*propagate_gram.*masks\.$"):
            call(replace(QUICK, causal=True))
    for call in (fixed_point, depth_scale):
        with pytest.raises(ValueError, match=r'^The stationary norm needs a norm, but `norm` is "none"\.$'):
            call(replace(QUICK, norm="none"))
        with pytest.raises(ValueError, match=r'^The stationary norm does not exist with .* "identity": .*\.$'):
            call(replace(QUICK, residual="identity"))
        with pytest.raises(ValueError, match=r"^`alpha_A` must be positive where `alpha_M` is 0, but got 0\.$"):
            call(replace(QUICK, alpha_A=0.0, alpha_M=0.0))
    assert propagate(1.0, 0.5, 0, QUICK).q.shape == (1,)
