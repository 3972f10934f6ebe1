"""Gram maps: symmetric clouds, one block by hand, the causal exponent, and what a mask breaks."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from theory.signal_propagation import TransformerConfig, angle_exponent, propagate, propagate_gram

QUICK = TransformerConfig(
    n=12.0,
    alpha_A=0.6,
    alpha_M=0.5,
    sigma_A=1.7,
    sigma_V=1.2,
    sigma_w=2.2,
    sigma_2=1.1,
    activation="erf",
    closure="annealed",
)
gram = jax.jit(propagate_gram, static_argnames="depth")
run = jax.jit(propagate, static_argnums=2)
exponent = jax.jit(angle_exponent)


def cosines(C):
    lengths = np.sqrt(np.diagonal(C, axis1=-2, axis2=-1))
    return C / (lengths[..., :, None] * lengths[..., None, :])


def uneven_cloud(n=5, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 8)) + rng.normal(size=8)
    X *= rng.uniform(0.5, 2, size=(n, 1))
    return X @ X.T / 8


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_symmetric_cloud_follows_the_annealed_closure(norm):
    config = replace(QUICK, norm=norm)
    C0 = 1.3 * (0.7 * np.eye(12) + 0.3 * np.ones((12, 12)))
    C = np.array(gram(C0, depth=6, config=config))
    q, rho = np.array(run(1.3, 0.3, 6, config))[..., None, None]
    np.testing.assert_allclose(C, q * (rho + (1 - rho) * np.eye(12)), rtol=0, atol=1e-13)
    for twin in (replace(config, n=13.0), replace(config, sigma_A=1.71)):
        q, rho = run(1.3, 0.3, 6, twin)
        assert abs(q[-1] * rho[-1] - C[-1, 0, 1]) > 1e-4


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_one_block_of_uneven_tokens_is_the_sum_by_hand(norm, causal):
    C0 = uneven_cloud()
    inside = cosines(C0) if norm == "pre" else C0

    def by_hand(sigma_A, seen):
        weights = np.exp(sigma_A**2 * np.einsum("ik,jl->ikjl", inside, inside)) * np.einsum("ij,kl->ikjl", seen, seen)
        outputs = np.einsum("ikjl,jl->ik", weights, inside) / weights.sum((2, 3))
        if sigma_A == 0:  # then it is averaging, exactly
            T = seen / seen.sum(1, keepdims=True)
            np.testing.assert_allclose(outputs, T @ inside @ T.T, rtol=1e-12)
        between = (1 - 0.36) * C0 + 0.36 * 1.44 * outputs
        if norm == "post":
            between = cosines(between)
        images = 2 / np.pi * np.arcsin(2 * 2.2**2 * cosines(between) / (1 + 2 * 2.2**2))
        after = 0.75 * between + 0.25 * 1.21 * images
        return after if norm == "pre" else cosines(after)

    seen = np.tri(5) if causal else np.ones((5, 5))
    for sigma_A in (0.0, 1.3):
        C = gram(C0, depth=1, config=replace(QUICK, sigma_A=sigma_A, norm=norm, causal=causal))
        np.testing.assert_allclose(C, [C0, by_hand(sigma_A, seen)], rtol=1e-12)
        for twin in (by_hand(sigma_A + 0.1, seen), by_hand(sigma_A, np.tri(5).T), by_hand(sigma_A, np.eye(5))):
            assert not np.allclose(C[1], twin, rtol=1e-4)


@pytest.mark.parametrize(
    ("norm", "n", "depth"), [("pre", 4, 400), ("pre", 8, 400), ("post", 4, 400), ("post", 24, 150)]
)
def test_a_causal_mask_has_its_own_exponent(norm, n, depth):
    config = replace(QUICK, alpha_A=0.9, alpha_M=0.9, sigma_V=1.0, sigma_2=1.0, sigma_A=1.2, causal=True, norm=norm)
    config = replace(config, sigma_w=4.1 if norm == "pre" else 3.9)
    apart = 1e-7
    C = np.array(gram((1 - apart) * np.ones((n, n)) + apart * np.eye(n), depth=depth, config=config))
    angles = 1 - cosines(C)[:, 0, -1]
    rates = np.diff(np.log(angles))
    expected = exponent(config)
    assert abs(rates[-1] - expected) < 1e-5
    assert abs(rates[8] - expected) > 1e-2  # reached late: the averaging matrix is far from normal
    assert abs(rates[-1] - exponent(replace(config, causal=False))) > 0.1
    assert abs(rates[-1] - exponent(replace(config, alpha_A=0.901))) > 1e-5


def test_every_pair_of_nearly_equal_tokens_has_the_angle_exponent():
    config, q = QUICK, 1.3
    rng = np.random.default_rng(2)
    X = 1e-3 * rng.normal(size=(6, 9)) * np.array([[1], [1], [2], [3], [5], [9]])
    X[:, 0] = 1
    C0 = q * cosines(X @ X.T)
    C = np.array(gram(C0, depth=1, config=config))
    pairs = np.triu_indices(6, 1)
    before, after = (1 - cosines(x)[pairs] for x in C)
    assert before.max() > 10 * before.min()
    expected = exponent(config, q)
    np.testing.assert_allclose(np.log(after / before), expected, rtol=1e-3)
    assert abs(exponent(replace(config, causal=True), q) / expected - 1) > 1e-2
    masked = np.array(gram(C0, depth=1, config=replace(config, causal=True)))
    assert not np.allclose(np.log((1 - cosines(masked[1])[pairs]) / before), expected, rtol=1e-2)


def test_gram_matrices_stay_symmetric_and_positive():
    C0 = uneven_cloud(n=6)
    for causal in (False, True):
        config = replace(QUICK, causal=causal)
        for sigma_A in (0.0, 0.5, 3.0):
            C = np.array(gram(C0, depth=8, config=replace(config, sigma_A=sigma_A)))
            assert C.shape == (9, 6, 6)
            np.testing.assert_array_equal(C, C.transpose(0, 2, 1))
            if sigma_A == 0:  # otherwise an annealed average need not be positive
                assert np.linalg.eigvalsh(C).min() > 0
    assert np.isfinite(gram(C0, depth=8, config=replace(QUICK, sigma_A=40.0))).all()


def test_only_a_mask_tells_the_tokens_apart():
    C0 = uneven_cloud(n=6, seed=1)
    order = np.array([3, 0, 5, 1, 4, 2])
    shuffled = C0[np.ix_(order, order)]
    for causal in (False, True):
        config = replace(QUICK, causal=causal)
        C, other = (np.array(gram(x, depth=8, config=config)) for x in (C0, shuffled))
        same = np.allclose(other, C[:, order][:, :, order], rtol=1e-11)
        assert same != causal
        # A masked token does not hear of later ones.
        louder = C0.copy()
        louder[-1] *= 1.5
        louder[:, -1] *= 1.5
        louder[-1, -2] = louder[-2, -1] = 0
        changed = np.array(gram(louder, depth=8, config=config))
        assert np.allclose(changed[:, :-1, :-1], C[:, :-1, :-1], rtol=1e-13) == causal


def test_a_gram_map_refuses_what_is_no_gram_matrix():
    C0 = uneven_cloud()
    np.testing.assert_array_equal(propagate_gram(C0, 0, QUICK), [C0])
    with pytest.raises(ValueError, match=r'^`norm` must be pre or post for a Gram map, but got "none"\.$'):
        propagate_gram(C0, 3, replace(QUICK, norm="none"))
    with pytest.raises(ValueError, match=r"^`C0` must be a square matrix, but got shape \(5, 4\)\.$"):
        propagate_gram(C0[:, :4], 3, QUICK)
    lopsided = C0.copy()
    lopsided[1, 3] = 9.0
    words = rf"^`C0` must be symmetric, but got C0\[1, 3\] = 9 and C0\[3, 1\] = {C0[3, 1]:.6g}\.$"
    with pytest.raises(ValueError, match=words):
        propagate_gram(lopsided, 3, QUICK)
    with pytest.raises(ValueError, match=r"^`C0` must be at most sqrt\(C_ii C_kk\) off its diagonal, .* but got 2\.$"):
        propagate_gram(np.array([[1.0, 2.0], [2.0, 1.0]]), 3, QUICK)
    with pytest.raises(ValueError, match=r"^`sigma_A` must be one number here, but got shape \(2,\)\.$"):
        propagate_gram(C0, 3, replace(QUICK, sigma_A=np.ones(2)))
    with pytest.raises(ValueError, match=r"^`C0` must be positive on its diagonal, but got 0\.$"):
        propagate_gram(np.diag([1.0, 0.0]), 3, QUICK)
    with pytest.raises(ValueError, match=r"^`depth` must be a whole number not below 0, but got -1\.$"):
        propagate_gram(C0, -1, QUICK)
