"""Exponents of collapsed transformers: printed digits, identities between them, one block by hand, power laws."""

import math
import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads
from scipy.integrate import quad
from scipy.optimize import minimize_scalar

from theory.signal_propagation import (
    TransformerConfig,
    angle_exponent,
    attention_map,
    block_map,
    depth_scaled,
    depth_scaled_totals,
    gradient_exponent,
    mlp_moments,
    power_law_exponents,
    propagate,
    slope_to_power_ratio,
    stationary_norm,
)

PRINTED = TransformerConfig(n=24.0, alpha_A=0.35, alpha_M=0.55, sigma_A=1.7, sigma_V=1.0, sigma_w=2.2, sigma_2=1.1)
IDENTITY = TransformerConfig(alpha_A=0.6, alpha_M=0.5, sigma_w=1.5, residual="identity")


def all_exponents(config, q=None):
    gradients = [gradient_exponent(config, readout, q) for readout in ("token", "pooled", "frobenius")]
    return angle_exponent(config, q), *gradients, angle_exponent(replace(config, causal=True), q)


def angle(config, q=None):
    return float(all_exponents(config, q)[0])


def pooled(config, q=None):
    return float(all_exponents(config, q)[2])


@pytest.mark.parametrize(
    ("norm", "printed"),
    [
        ("pre", (0.0322392584, 0.0322392584, 0.1848896524, 0.0390873254, 0.0726413998)),
        ("post", (0.0372028842, 0.0372028842, 0.1678812078, 0.0430027465, 0.0715079631)),
    ],
)
def test_exponents_keep_their_printed_digits(norm, printed):
    config = replace(PRINTED, norm=norm)
    np.testing.assert_allclose(all_exponents(config), printed, rtol=0, atol=1e-10)
    if norm == "pre":
        start = stationary_norm(config)
        np.testing.assert_allclose(start, 0.8464900111, rtol=0, atol=1e-10)
        between, _ = attention_map(start, start, replace(config, closure="annealed"))
        np.testing.assert_allclose(between, 0.8652949850, rtol=1e-9)
        assert np.all(np.abs(np.array(all_exponents(config, 1.0)) - printed) > 1e-3)
    for twin in (replace(config, sigma_w=2.21), replace(config, sigma_2=1.101)):
        assert np.all(np.abs(np.array(all_exponents(twin)) - printed) > 1e-6)


strengths, scales = st.floats(0.05, 0.95), st.floats(0.3, 3)
configs = {
    (norm, residual): st.builds(
        TransformerConfig,
        n=st.just(24.0),
        sigma_A=scales,
        alpha_A=strengths,
        alpha_M=strengths,
        sigma_V=scales,
        sigma_w=scales,
        sigma_2=scales,
        activation=st.just("erf"),
        norm=st.just(norm),
        residual=st.just(residual),
        closure=st.just("annealed"),
    )
    for norm, residual in (("pre", "normalized"), ("post", "normalized"), ("post", "identity"))
}


@pytest.mark.parametrize("architecture", configs)
def test_angles_and_difference_gradients_share_an_exponent_where_the_norm_stays(architecture):
    @given(configs[architecture])
    @settings(max_examples=12, deadline=None)
    def check(config):
        lambda_a, token, pooled, _, _ = all_exponents(config)
        np.testing.assert_allclose(lambda_a, token, rtol=0, atol=1e-12)
        q = stationary_norm(config)
        np.testing.assert_allclose(block_map(q, jnp.ones(()), config), (q, 1), rtol=1e-12)
        kept = 1 - config.alpha_A**2 if config.residual == "normalized" else 1.0
        between = kept * q + config.alpha_A**2 * config.sigma_V**2
        np.testing.assert_allclose(lambda_a, pooled + np.log(kept * q / between), rtol=0, atol=1e-12)
        assert pooled > lambda_a + 1e-6
        if config.norm == "pre":  # elsewhere the length counts
            for at in (0.5 * q, 2 * q):
                after, _ = block_map(at, jnp.ones(()), config)
                lambda_a, token, *_ = all_exponents(config, at)
                np.testing.assert_allclose(lambda_a, token + np.log(at / after), rtol=0, atol=1e-12)
                assert abs(lambda_a - token) > 1e-4
                assert abs(lambda_a - token + np.log(at / after)) > 1e-4

    check()


def test_in_the_unit_variance_gauge_one_ratio_of_the_mlp_is_enough():
    config = replace(PRINTED, activation="erf", sigma_V=0.7).unit_variance()
    V, chi = mlp_moments(config)
    r = slope_to_power_ratio("erf", 2.2)
    np.testing.assert_allclose((V, chi, stationary_norm(config)), (1, r, 1), rtol=1e-13)
    expected = math.log((1 - 0.35**2) * (1 - 0.55**2 + 0.55**2 * r))
    np.testing.assert_allclose(angle(config), expected, rtol=1e-12)
    np.testing.assert_allclose(pooled(config), expected - math.log(1 - 0.35**2), rtol=1e-12)
    for twin in (r + 0.01, 1 / r):
        assert abs(angle(config) - math.log((1 - 0.35**2) * (1 - 0.55**2 + 0.55**2 * twin))) > 1e-4
    assert abs(angle(replace(PRINTED, activation="erf")) - expected) > 1e-3


def test_without_an_mlp_tokens_collapse_at_the_rate_of_attention():
    bare = replace(PRINTED, alpha_M=0.0, sigma_V=1.6)
    for norm in ("pre", "post"):
        b = 0.35**2 * 1.6**2
        expected = math.log(1 - 0.35**2) if norm == "pre" else math.log((1 - 0.35**2) / (1 - 0.35**2 + b))
        np.testing.assert_allclose(angle(replace(bare, norm=norm)), expected, rtol=1e-12)
        assert abs(pooled(replace(bare, norm=norm))) < 1e-14
    np.testing.assert_allclose(stationary_norm(bare), 1.6**2, rtol=1e-12)
    mixed = replace(PRINTED, alpha_A=0.0)
    np.testing.assert_allclose(angle(mixed), pooled(mixed), rtol=1e-13)
    assert angle(mixed) > angle(PRINTED) + 0.1


@pytest.mark.parametrize(
    "config",
    [
        replace(PRINTED, closure="annealed"),
        replace(PRINTED, activation="gelu", norm="post", closure="annealed", sigma_V=0.8),
        replace(PRINTED, activation="erf", norm="post", closure="annealed", residual="identity"),
    ],
    ids=["pre", "post", "post, identity"],
)
def test_one_block_of_nearly_equal_tokens_has_the_angle_exponent(config):
    apart, q = 1e-6, stationary_norm(config)
    _, rho = jax.jit(propagate, static_argnums=2)(q, 1 - apart, 1, config)
    measured = np.log((1 - rho[1]) / (1 - rho[0]))
    np.testing.assert_allclose(measured, angle(config), rtol=1e-4)
    twins = [angle(replace(config, causal=True)), pooled(config)]
    if config.norm == "pre":
        twins += [angle(config, 1.0), angle(replace(config, norm="post"))]
    else:
        twins += [angle(replace(config, sigma_V=1.0 if config.sigma_V != 1 else 1.1))]
    for twin in twins:
        assert not np.allclose(measured, twin, rtol=1e-4)


def test_causal_and_frobenius_factors_are_those_of_the_averaging_matrix():
    n, q = 7, 1.3
    for causal in (False, True):
        T = np.tri(n) if causal else np.ones((n, n))
        T /= T.sum(1, keepdims=True)
        moduli = np.sort(np.abs(np.linalg.eigvals(T)))[::-1]
        config = replace(PRINTED, n=float(n), causal=causal, sigma_V=1.4)
        V, chi = mlp_moments(config)
        between = (1 - 0.35**2) * q + 0.35**2 * 1.96
        mlp = 1 - 0.55**2 + 0.55**2 * chi / between
        values = all_exponents(config, q)
        modes = moduli[1] ** 2, 1, np.sum(T**2) / n
        for value, mode in zip(values[1:4], modes, strict=True):
            expected, twin = (np.log((1 - 0.35**2 + x * 0.35**2 * 1.96 / q) * mlp) for x in (mode, mode + 0.01))
            np.testing.assert_allclose(value, expected, rtol=1e-11)
            assert abs(value - twin) > 1e-4
        kept = (1 - 0.35**2) * q + moduli[1] ** 2 * 0.35**2 * 1.96
        after = (1 - 0.55**2) * between + 0.55**2 * V
        np.testing.assert_allclose(values[0], np.log(kept * mlp / after), rtol=1e-11)
    lone, many = replace(PRINTED, n=1.0), replace(PRINTED, n=np.inf)
    np.testing.assert_allclose(all_exponents(lone)[3], all_exponents(lone)[2], rtol=1e-13)
    np.testing.assert_allclose(all_exponents(many)[3], all_exponents(many)[1], rtol=1e-13)


def test_mean_zero_activations_stretch_angles():
    for phi in ("tanh", "erf", jnp.sin):

        @given(st.floats(0.02, 6))
        @settings(max_examples=12, deadline=None)
        def check(sigma_w):
            r = slope_to_power_ratio(phi, sigma_w)  # noqa: B023
            assert r >= 1 - 1e-12
            if phi is jnp.sin:  # noqa: B023
                np.testing.assert_allclose(r, sigma_w**2 / np.tanh(sigma_w**2), rtol=1e-9)

        check()
    np.testing.assert_allclose(slope_to_power_ratio("relu", np.array([0.1, 1.0, 7.0])), 1, rtol=1e-14)
    np.testing.assert_allclose(slope_to_power_ratio("linear", np.array([0.1, 1.0, 7.0])), 1, rtol=1e-14)
    assert slope_to_power_ratio(lambda x: 1 + jnp.tanh(x), 1.0) < 0.5  # with a mean the inequality fails


def test_gelu_stretches_angles_by_at_most_its_printed_ratio():
    best = minimize_scalar(
        lambda x: -float(slope_to_power_ratio("gelu", x)), bounds=(0.5, 1.2), options={"xatol": 1e-7}
    )
    assert -best.fun == pytest.approx(1.074724, abs=5e-7)
    assert best.x == pytest.approx(0.7825, abs=5e-5)
    scan = slope_to_power_ratio("gelu", np.geomspace(0.01, 1000, 400))
    assert np.all(scan <= -best.fun)
    assert abs(scan[0] - 1) < 1e-2
    assert abs(scan[-1] - 1) < 1e-3


def test_a_gentle_tanh_stretches_angles_in_fourth_order():
    sigma_w = 0.1 / 2.0 ** np.arange(5)
    excess = (np.array(slope_to_power_ratio("tanh", sigma_w)) - 1) / sigma_w**4
    errors = np.abs(excess - 4 / 3)
    np.testing.assert_allclose(np.diff(np.log2(errors)), -2, atol=0.1)
    assert errors[-1] < 2e-3
    assert np.all(np.abs(excess - 2 / 3) > 0.1)
    assert np.all(np.diff(slope_to_power_ratio("tanh", np.array([1.0, 4, 16, 50]))) > 1)


def test_identity_residuals_follow_power_laws():
    printed = 0.4951620952, -0.6228387553, 0.3771612447, 1.1041958935
    laws = np.array(power_law_exponents(IDENTITY))
    np.testing.assert_allclose(laws, printed, rtol=0, atol=1e-10)
    np.testing.assert_allclose(laws[2], 1 + laws[1], rtol=1e-14)

    def gaussian_mean(f):
        return quad(lambda z: f(1.5 * z) * math.exp(-z * z / 2) / math.sqrt(2 * math.pi), -9, 9, epsabs=1e-13)[0]

    V = gaussian_mean(lambda x: math.tanh(x) ** 2)
    chi = 1.5**2 * gaussian_mean(lambda x: math.cosh(x) ** -4)

    def measured(q0, first):
        """Powers between block `first` and block 4 `first`, of a collapsed stream that starts at q0."""
        q = q0 + np.arange(first, 4 * first) * (0.36 + 0.25 * V)
        between = q + 0.36
        mlp = 1 + 0.25 * chi / between
        gains = q / between * mlp / (1 + 0.25 * V / between), mlp, (1 + 0.36 / q) * mlp
        return np.log(gains).sum(1) / math.log(4)

    bounds = 2e-5, 2e-4, 3e-4
    assert np.all(np.abs(measured(0.1, 5000) - laws[1:]) < bounds)
    for wrong in ({"sigma_2": 1.01}, {"alpha_A": 0.61}):
        twin = np.array(power_law_exponents(replace(IDENTITY, **wrong))[1:])
        assert np.all(np.abs(twin - measured(0.1, 5000)) > bounds)
    errors = np.abs([measured(1.0, first) - laws[1:] for first in (625, 1250, 2500, 5000)])
    np.testing.assert_allclose(np.diff(np.log2(errors), axis=0), -1, atol=0.1)


def test_branches_scaled_by_the_root_of_the_depth_have_finite_totals():
    printed = depth_scaled_totals(TransformerConfig(sigma_w=2.5), 1.3, 0.9)
    np.testing.assert_allclose(printed, (-0.9979413147, 0.6920586853), rtol=0, atol=1e-10)
    depths = 2.0 ** np.arange(3, 10)
    for norm, causal in (("pre", False), ("post", False), ("pre", True)):
        config = TransformerConfig(sigma_w=2.5, activation="erf", norm=norm, causal=causal)
        totals = depths * np.array(all_exponents(depth_scaled(config, 1.3, 0.9, depths)))[[0, 2]]
        limits = np.array(depth_scaled_totals(config, 1.3, 0.9))
        stretch = 0.81 * (slope_to_power_ratio("erf", 2.5) - 1)
        np.testing.assert_allclose(limits, (stretch - 1.69 * (0.75 if causal else 1), stretch), rtol=1e-12)
        errors = limits[:, None] - totals
        np.testing.assert_allclose(np.diff(np.log2(errors))[:, 1:], -1, atol=0.1)
        loss = 1.69 * (0.75 if causal else 1)
        second_order = np.array([loss**2 + limits[1] ** 2, limits[1] ** 2]) / 2
        np.testing.assert_allclose(errors[:, -1] * depths[-1], second_order, rtol=0.01)
        for twin in (limits + 1.69, limits * 1.01):
            assert np.all(np.abs(np.diff(np.log2(np.abs(totals - twin[:, None])))[:, -1] + 1) > 0.1)


def test_gradients_reach_the_numbers_of_the_configuration():
    config = replace(PRINTED, activation="erf")

    def of_scale(sigma_w):
        return angle_exponent(replace(config, sigma_w=sigma_w))

    check_grads(jax.jit(of_scale), (2.2,), order=1, modes=["rev"], atol=1e-6, rtol=1e-6)
    gradient = jax.jit(jax.grad(angle_exponent))(config)
    secants = {}
    for name in ("alpha_A", "alpha_M", "sigma_w", "sigma_2", "sigma_V"):
        number = getattr(config, name)
        low, high = (angle(replace(config, **{name: number * (1 + step)})) for step in (-1e-5, 1e-5))
        secants[name] = (high - low) / (2e-5 * number)
        np.testing.assert_allclose(getattr(gradient, name), secants[name], rtol=1e-6)
    assert len({round(float(x), 3) for x in secants.values()}) == 5
    assert (gradient.n, gradient.sigma_A) == (0, 0)


def test_exponents_broadcast():
    alpha_A, sigma_w = np.array([[0.2], [0.35]]), np.array([1.0, 2.2, 3.0])
    config = replace(PRINTED, activation="erf")
    table = all_exponents(replace(config, alpha_A=alpha_A, sigma_w=sigma_w))[0]
    assert table.shape == (2, 3)
    np.testing.assert_allclose(table[1, 1], angle(config), rtol=1e-13)
    assert len(np.unique(np.round(table, 6))) == 6


def test_exponents_refuse_what_has_none():
    both_off = r"^`alpha_A` must be positive where `alpha_M` is 0, but got 0\.$"
    identity = r'^The stationary norm does not exist with `residual` = "identity": .*power_law_exponents`\.$'
    for call in (angle_exponent, gradient_exponent, stationary_norm):
        with pytest.raises(ValueError, match=identity):
            call(IDENTITY)
        with pytest.raises(ValueError, match=both_off):
            call(replace(PRINTED, alpha_A=0.0, alpha_M=0.0))
        with pytest.raises(ValueError, match=r'needs a norm, but `norm` is "none"[^.]*\.$'):
            call(replace(PRINTED, norm="none"))
    assert np.isfinite(angle_exponent(IDENTITY, q=2.0))
    assert stationary_norm(replace(PRINTED, alpha_A=0.0, alpha_M=0.0, norm="post")) == 1
    minus_infinity = r"^`alpha_A` must be below 1, where the angle exponent is minus infinity, but got 1\.$"
    for norm in ("pre", "post"):
        with pytest.raises(ValueError, match=minus_infinity):
            angle_exponent(replace(PRINTED, alpha_A=1.0, norm=norm))
        with pytest.raises(ValueError, match=r"^`alpha_A` must be below 1, where .* minus infinity, but got 1\.$"):
            gradient_exponent(replace(PRINTED, alpha_A=1.0, norm=norm), "token")
        full = replace(PRINTED, alpha_A=1.0, norm=norm)
        assert np.isfinite(angle_exponent(replace(full, causal=True)))
        assert np.isfinite(gradient_exponent(full, "pooled"))
    for q in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match=rf"^`q` must be positive and finite, but got {q:g}\.$"):
            angle_exponent(PRINTED, q)
    with pytest.raises(ValueError, match=r"^`readout` must be one of token, pooled, frobenius, but got mean\.$"):
        gradient_exponent(PRINTED, "mean")
    with pytest.raises(ValueError, match=r"^`sigma_w` must be positive and finite, but got 0\.$"):
        slope_to_power_ratio("tanh", np.array([1.0, 0.0]))
    for wrong in ({"residual": "normalized"}, {"norm": "post"}, {"causal": True}):
        with pytest.raises(ValueError, match=r"^Power laws need .* and no causal mask, but got .*\.$"):
            power_law_exponents(replace(IDENTITY, **wrong))
    with pytest.raises(ValueError, match=both_off):
        power_law_exponents(replace(IDENTITY, alpha_A=0.0, alpha_M=0.0))
    with pytest.raises(ValueError, match=re.escape("`depth` must be a whole number not below 1, but got 0.")):
        depth_scaled(PRINTED, 1.0, 1.0, 0)
    with pytest.raises(ValueError, match=re.escape("`kappa_M` must be zero or positive, but got -1.")):
        depth_scaled_totals(PRINTED, 1.0, -1.0)
    with pytest.raises(ValueError, match=r"^`alpha_A` must be between 0 and 1 .* residual, but got 1\.5\.$"):
        depth_scaled(PRINTED, 3.0, 1.0, 4)
