"""Gradient covariances against sampled attention at infinite width, printed digits, collapse and one token."""

import math
import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from theory.gaussian_kernels import gaussian_kernel
from theory.signal_propagation import (
    TransformerConfig,
    angle_exponent,
    backward,
    backward_attention,
    backward_block,
    backward_covariance,
    backward_exponents,
    backward_mlp,
    geometry,
    gradient_exponent,
    propagate,
    single_mode_gradient,
    softmax,
)

PRINTED = TransformerConfig(n=24.0, alpha_A=0.5, alpha_M=0.4, sigma_A=1.7, sigma_V=1.0, sigma_w=2.2, sigma_2=1.1)
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
ERF = TransformerConfig(n=np.inf, alpha_A=0.4, alpha_M=0.75, sigma_w=3.0, activation="erf", closure="large_n")


def once(function, words):
    """The same function, compiled alone and remembered by its arguments, of which number `words` is a word."""
    compiled, memory = jax.jit(function, static_argnums=words), {}

    def remembered(*arguments):
        key = tuple(x if isinstance(x, str) else float(x) for x in arguments)
        if key not in memory:
            with jax.disable_jit(False):
                memory[key] = compiled(*key)
        return memory[key]

    return remembered


@pytest.fixture
def step_by_step(monkeypatch):
    """No compilation of whole networks, and a coarser grid that is right to 1e-11 for these logits."""
    monkeypatch.setattr(softmax, "TIMES", 240)
    monkeypatch.setattr(softmax, "NODES", 91)
    monkeypatch.setattr(geometry, "overlaps_of_logits", once(softmax.overlaps_of_logits, 3))
    for module in (geometry, backward):
        monkeypatch.setattr(module, "gaussian_kernel", once(gaussian_kernel, 0))
    with jax.disable_jit():
        yield


attention = jax.jit(backward_attention)
mlp = jax.jit(backward_mlp)
exponents_of = jax.jit(backward_exponents)
of_gradient = jax.jit(gradient_exponent, static_argnames="readout")


@jax.jit
def block(u, v, q, rho, config):
    config, arrays = config.broadcast(u, v, q, rho)
    return backward_block(*arrays, config)


covariance = jax.jit(backward_covariance, static_argnames="depth")


@pytest.mark.thorough
@pytest.mark.usefixtures("step_by_step")
def test_six_blocks_keep_their_printed_digits():
    printed = {  # (q, p) after six blocks, and (u, v) at the input for a shared cotangent
        "pre": (0.6904216063, 0.4738499773, 7.5312569605, 1.8025886098),
        "post": (1.0, 0.6052090920, 8.0932120735, 2.2202769372),
        "none": (0.4975274024, 0.3036324045, 2.7929928429, 1.1403458716),
    }
    for norm, digits in printed.items():
        config = replace(PRINTED, norm=norm)
        q, rho = propagate(1.0, 0.25, 6, config)
        u, v = backward_covariance(1.0, 0.25, 6, config, 1.0, 1.0)
        assert u.shape == v.shape == (7,)
        assert u[-1] == v[-1] == 1
        np.testing.assert_allclose((q[-1], q[-1] * rho[-1], u[0], v[0]), digits, rtol=0, atol=1e-10)
        for other in {*printed} - {norm}:
            assert np.all(np.abs(np.array(printed[other]) - digits) > 1e-2)
    u, v = backward_covariance(1.0, 0.25, 6, PRINTED)
    np.testing.assert_allclose((u[0], v[0]), (1.1826540402, 0.0845517508), rtol=0, atol=1e-10)
    # Strong logits: far more of the gradient goes through the softmax than through the values.
    strong = replace(PRINTED, n=16.0, alpha_A=0.8, alpha_M=0.3, sigma_A=4.0)
    two_modes = backward_covariance(1.0, 0.25, 6, strong).u[0]
    assert two_modes > 10
    assert single_mode(np.tanh, strong, 0.25, 6) < two_modes / 50


def single_mode(phi, config, rho, depth):
    """The closure of the literature by hand, with pre-norm: u alone, the annealed Q, nothing through the softmax."""
    z = np.linspace(-9, 9, 361)
    weights = np.exp(-(z**2) / 2) / np.exp(-(z**2) / 2).sum()
    step = 1e-4
    slope = weights @ ((phi(config.sigma_w * z + step) - phi(config.sigma_w * z - step)) / (2 * step)) ** 2
    a, m = config.alpha_A**2, config.alpha_M**2
    q, gain = 1.0, 1.0
    for _ in range(depth):
        s2 = config.sigma_A**2 * (1 - rho)
        Q, P = (1 / (1 + (config.n - 1) * math.exp(-x)) for x in (s2, rho * s2))
        gain *= 1 - a + a * config.sigma_V**2 / q * Q
        outputs = [config.sigma_V**2 * (rho + (1 - rho) * overlap) for overlap in (Q, P)]
        q, p = ((1 - a) * old + a * new for old, new in zip((q, q * rho), outputs, strict=True))
        gain *= 1 - m + m * config.sigma_2**2 * config.sigma_w**2 / q * slope
        x = config.sigma_w * z[:, None]
        y = p / q * x + config.sigma_w * math.sqrt(1 - (p / q) ** 2) * z
        images = weights @ phi(x[:, 0]) ** 2, weights @ (phi(x) * phi(y)) @ weights
        q, p = ((1 - m) * old + m * config.sigma_2**2 * new for old, new in zip((q, p), images, strict=True))
        rho = p / q
    return gain


def test_the_single_mode_closure_is_that_of_the_literature():
    alone = single_mode_gradient(1.0, 0.25, 6, QUICK, 1.5)
    assert alone.shape == (7,)
    assert alone[-1] == 1.5
    by_hand = 1.5 * single_mode(scipy.special.erf, QUICK, 0.25, 6)
    np.testing.assert_allclose(alone[0], by_hand, rtol=1e-6)
    assert abs(covariance(1.0, 0.25, depth=6, config=QUICK, u=1.5).u[0] / by_hand - 1) > 1e-2


def sampled_attention(n, q, p, sigma_A, u, v, count=40_000):
    """Gram matrices of the gradients that values, queries and keys pass down, at infinite width."""
    rng = np.random.default_rng(5)
    inside = (q - p) * np.eye(n) + p * np.ones((n, n))
    above = (u - v) * np.eye(n) + v * np.ones((n, n))
    root, top = np.linalg.cholesky(inside), np.linalg.cholesky(above)
    A = np.exp(sigma_A * root @ rng.normal(size=(count, n, n)) @ root.T)
    A /= A.sum(-1, keepdims=True)
    # Overlaps of cotangents and values are Gaussian, of order sqrt d, so they survive at any width.
    overlaps = top @ rng.normal(size=(count, n, n)) @ root.T
    B = A * (overlaps - np.sum(A * overlaps, -1, keepdims=True))
    A_T, B_T = A.transpose(0, 2, 1), B.transpose(0, 2, 1)
    queries, keys = (sigma_A**2 * X @ inside @ Y for X, Y in ((B, B_T), (B_T, B)))
    grams = np.stack([A_T @ above @ A, queries, keys])
    diagonal = np.trace(grams, axis1=2, axis2=3) / n
    return diagonal, (grams.sum((2, 3)) - n * diagonal) / (n * (n - 1))


def test_gradients_through_attention_are_those_of_sampled_logits():
    n, q, rho, u, v = 5, 1.3, 0.3, 1.0, 0.4
    config = replace(PRINTED, n=float(n), sigma_A=1.8, sigma_V=1.2, norm="none")
    paths = np.array(sampled_attention(n, q, q * rho, config.sigma_A, u, v))
    draws = 0.75 * np.array([u, v])[:, None] + 0.25 * 1.44 * paths.sum(1)
    errors = draws.std(axis=1) / math.sqrt(draws.shape[1])

    def deviation(config):
        arrays = map(jnp.array, (u, v, q, q * rho))
        return np.abs(draws.mean(axis=1) - np.array(attention(*arrays, config))) / errors

    assert np.all(errors < 0.01)
    assert np.all(deviation(config) < 5)
    assert np.all(deviation(replace(config, closure="annealed")) > 5)
    assert np.all(deviation(replace(config, sigma_A=1.9)) > 5)
    for missing in (1, 2):  # the queries' or the keys' share alone would be seen
        assert 0.36 * np.abs(paths[0, missing].mean()) > 10 * errors[0]


def test_gradients_through_the_mlp_follow_price_theorem():
    config, arrays = QUICK.broadcast(1.3, 0.5, 1.2, 0.4)
    for norm in ("pre", "none"):
        hat = (1, 0.4 / 1.2) if norm == "pre" else (1.2, 0.4)
        slopes = np.array([4 / np.pi / math.sqrt((1 + 18 * hat[0]) ** 2 - (18 * c) ** 2) for c in hat])
        J = 0.75**2 * 9 / (1.2 if norm == "pre" else 1)
        expected = (1 - 0.75**2 + J * slopes) * [1.3, 0.5]
        np.testing.assert_allclose(mlp(*arrays, replace(config, norm=norm)), expected, rtol=1e-13)
        twin = (1 - 0.75**2 + J * slopes[::-1]) * [1.3, 0.5]
        assert not np.allclose(mlp(*arrays, replace(config, norm=norm)), twin, rtol=1e-2)


@pytest.mark.parametrize(("norm", "q"), [("pre", 0.6), ("post", 1.0)])
def test_equal_tokens_have_a_difference_mode_a_collective_mode_and_a_first_block(norm, q):
    config = replace(QUICK, norm=norm, sigma_w=1.2)
    factors = {name: np.exp(of_gradient(config, readout=name, q=q)) for name in ("token", "pooled", "frobenius")}
    w = {"token": -1.0, "pooled": 23.0, "frobenius": 0.0}
    for name, factor in factors.items():
        u, v = block(1.0, w[name] / 23, q, 1.0, config)
        np.testing.assert_allclose(u, factor, rtol=1e-12)
        if name != "frobenius":
            np.testing.assert_allclose(v, factor * w[name] / 23, rtol=1e-12)
        for twin in {*map(float, factors.values())} - {float(factor)}:
            assert abs(u / twin - 1) > 1e-3


def test_backward_exponents_at_collapse_are_pooled_and_token():
    config = replace(QUICK, sigma_w=1.2)
    larger, smaller = exponents_of(config)
    np.testing.assert_allclose(larger, of_gradient(config, readout="pooled"), rtol=1e-10)
    np.testing.assert_allclose(smaller, of_gradient(config, readout="token"), rtol=1e-10)
    assert larger > smaller + 0.1
    assert abs(smaller - of_gradient(config, readout="frobenius")) > 1e-3


def test_backward_exponents_at_the_chaotic_fixed_point_keep_their_printed_digits():
    larger, smaller = exponents_of(ERF)
    np.testing.assert_allclose((larger, smaller), (0.5134880642, 0.0304967206), rtol=0, atol=1e-10)
    collapsed = angle_exponent(ERF)
    assert collapsed == pytest.approx(0.3512813132, abs=1e-10)
    for exponent in (larger, smaller):
        assert abs(exponent - collapsed) > 0.1


def test_deep_gradients_grow_with_the_larger_exponent_of_the_fixed_point():
    q, rho = (x[-1] for x in propagate(1.0, 0.5, 2000, QUICK))
    assert rho < 0.6
    larger, smaller = exponents_of(QUICK)
    u, v = covariance(q, rho, depth=200, config=QUICK)
    for x in (u, v):
        np.testing.assert_allclose(np.log(x[0] / x[1]), larger, rtol=1e-9)
        assert abs(np.log(x[0] / x[1]) - smaller) > 0.05
    assert abs(np.log(u[-2] / u[-1]) - larger) > 1e-3


def test_one_token_has_one_gradient():
    config = replace(QUICK, n=1.0, sigma_w=1.2)
    expected = np.exp(of_gradient(config, readout="pooled", q=0.8))
    for v in (0.0, 1.0):
        np.testing.assert_allclose(block(1.0, v, 0.8, 1.0, config).u, expected, rtol=1e-12)
    assert abs(np.exp(of_gradient(replace(config, n=2.0), readout="frobenius", q=0.8)) / expected - 1) > 1e-2


def test_infinitely_many_tokens_pass_independent_gradients_through_the_residual_alone():
    u, v = covariance(1.0, 0.3, depth=3, config=ERF)
    np.testing.assert_array_equal(v, 0)
    many = covariance(1.0, 0.3, depth=3, config=replace(QUICK, n=1e9, sigma_A=1.0, sigma_V=1.0))
    np.testing.assert_allclose(many.u, u, rtol=1e-7)
    assert not np.allclose(covariance(1.0, 0.3, depth=3, config=QUICK).u, u, rtol=1e-3)
    assert np.all((many.v[:-1] > 0) & (many.v[:-1] < 1e-7))


def test_covariances_are_linear_in_the_cotangent_and_broadcast():
    u0, v0 = np.array([1.0, 0.0, 2.0]), np.array([0.0, 1.0, -0.05])
    u, v = covariance(1.0, 0.3, depth=3, config=QUICK, u=u0, v=v0)
    assert u.shape == v.shape == (4, 3)
    np.testing.assert_allclose(u[:, 2], 2 * u[:, 0] - 0.05 * u[:, 1], rtol=1e-12)
    np.testing.assert_allclose(v[:, 2], 2 * v[:, 0] - 0.05 * v[:, 1], rtol=1e-12)
    assert np.all(np.abs(u[:-1, 1]) > 1e-3)
    np.testing.assert_array_equal(covariance(1.0, 0.3, depth=0, config=QUICK).u, [1])


def test_covariances_refuse_sums_that_diverge_and_closures_without_them():
    diverging = r"^`v` must be 0 where `n` is infinite, since sums over tokens diverge, but got 1\.$"
    with pytest.raises(ValueError, match=diverging):
        backward_covariance(1.0, 0.5, 3, replace(QUICK, n=np.inf), v=1.0)
    dropped = r'^`n` must be infinite with the closure "large_n", which drops all gradient terms in 1/n, but got 24\.$'
    with pytest.raises(ValueError, match=dropped):
        backward_covariance(1.0, 0.5, 3, replace(QUICK, closure="large_n"))
    with pytest.raises(ValueError, match=dropped):
        backward_exponents(replace(QUICK, closure="large_n"))
    with pytest.raises(ValueError, match=r"^`config` must not be causal .*\.$"):
        backward_covariance(1.0, 0.5, 3, replace(QUICK, causal=True))
    for arguments, words in (
        ((0.0, 0.5, 3), "`q0` must be positive and finite, but got 0."),
        ((1.0, 1.5, 3), "`rho0` must be between 0 and 1, but got 1.5."),
        ((1.0, 0.5, -3), "`depth` must be a whole number not below 0, but got -3."),
    ):
        with pytest.raises(ValueError, match="^" + re.escape(words) + "$"):
            backward_covariance(*arguments, QUICK)
    with pytest.raises(ValueError, match=r'needs a norm, but `norm` is "none"\.$'):
        backward_exponents(replace(QUICK, norm="none"))
    with pytest.raises(ValueError, match=r'"identity"'):
        backward_exponents(replace(QUICK, residual="identity"))
