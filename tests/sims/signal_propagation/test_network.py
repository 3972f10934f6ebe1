"""The random transformers against plain numpy, explicit scales, explicit perturbations and rotations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from sims.signal_propagation.causal import modes
from sims.signal_propagation.network import (
    SIGNS,
    Shape,
    Weights,
    backward,
    block,
    cotangents,
    draw_weights,
    every_network,
    forward,
    gradient_moments,
    layer_keys,
    moments,
    simplex,
)
from theory.signal_propagation import TransformerConfig

N, D, DEPTH = 3, 8, 2
NUMBERS = {"alpha_A": 0.6, "alpha_M": 0.7, "sigma_A": 1.5, "sigma_V": 0.9, "sigma_w": 2.0, "sigma_2": 1.1}


def tokens(seed=0):
    return jax.random.normal(jax.random.key(seed), (N, D))


def config_for(shape, cells=None):
    words = {"norm": shape.norm, "residual": shape.residual, "activation": shape.activation, "causal": shape.causal}
    numbers = NUMBERS if cells is None else {k: jnp.full(cells, v) for k, v in NUMBERS.items()}
    return TransformerConfig(n=N, **numbers, **words).broadcast()[0]


def plain_block(X, weights, shape):
    """The block with its scales in the weight matrices, in numpy, token by token."""
    c, d = NUMBERS, shape.d
    d_k = d // shape.heads
    W_Q, W_K = (np.asarray(w) * np.sqrt(c["sigma_A"] / d) for w in (weights.query, weights.key))
    W_V = np.asarray(weights.value) * c["sigma_V"] / np.sqrt(d * shape.heads)
    W_1 = np.asarray(weights.first) * c["sigma_w"] / np.sqrt(d)
    W_2 = np.asarray(weights.second) * c["sigma_2"] / np.sqrt(shape.hidden)
    phi = {"tanh": np.tanh, "gelu": lambda x: x * scipy.stats.norm.cdf(x)}[shape.activation]
    a_A, a_M = (np.sqrt(1 - c[k] ** 2) if shape.residual == "normalized" else 1.0 for k in ("alpha_A", "alpha_M"))

    def norm(X, place):
        return np.sqrt(d) * X / np.linalg.norm(X, axis=1, keepdims=True) if shape.norm == place else X

    Y, out = norm(X, "pre"), np.zeros_like(X)
    for i in range(N):
        seen = i + 1 if shape.causal else N
        for h in range(shape.heads):
            logits = np.array([(Y[i] @ W_Q[h]) @ (Y[j] @ W_K[h]) for j in range(seen)]) / np.sqrt(d_k)
            out[i] += scipy.special.softmax(logits) @ Y[:seen] @ W_V[h]
    X = norm(a_A * X + c["alpha_A"] * out, "post")
    return norm(a_M * X + c["alpha_M"] * phi(norm(X, "pre") @ W_1) @ W_2, "post")


SHAPES = {
    "pre": Shape(N, D, DEPTH),
    "post": Shape(N, D, DEPTH, norm="post"),
    "none, identity": Shape(N, D, DEPTH, norm="none", residual="identity"),
    "two heads, causal, wide gelu": Shape(N, D, DEPTH, heads=2, mlp_width=13, activation="gelu", causal=True),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_block_is_the_plain_transformer_with_scaled_weights(name):
    shape, X = SHAPES[name], tokens()
    weights = draw_weights(jax.random.key(1), shape, X.dtype)
    expected = plain_block(np.asarray(X), weights, shape)
    np.testing.assert_allclose(block(X, weights, config_for(shape), shape), expected, rtol=1e-12, atol=1e-12)
    other = SHAPES["post" if name == "pre" else "pre"]
    if weights.first.shape == (D, D):
        assert not np.allclose(block(X, weights, config_for(other), other), expected, rtol=1e-3)


def test_weights_are_standard_normal_and_of_the_right_shapes():
    shape = Shape(2, 64, 1, heads=4, mlp_width=32)
    weights = draw_weights(jax.random.key(0), shape, jnp.float64)
    assert [w.shape for w in weights] == [(4, 64, 16), (4, 64, 16), (4, 64, 64), (64, 32), (32, 64)]
    for entries in weights:
        assert scipy.stats.kstest(np.ravel(entries), "norm").pvalue > 1e-4
    flat = [np.ravel(w)[:2048] for w in weights]
    assert np.abs(np.corrcoef(flat) - np.eye(5)).max() < 0.12


def test_a_rotated_input_sees_rotated_weights_so_that_the_frame_of_the_simplex_does_not_matter():
    shape, X = SHAPES["pre"], tokens()
    weights = draw_weights(jax.random.key(1), shape, X.dtype)
    R = jnp.asarray(scipy.stats.ortho_group.rvs(D, random_state=0))
    turned = Weights(
        *(jnp.einsum("ed,hdk->hek", R, w) for w in (weights.query, weights.key)),
        jnp.einsum("ed,hdf,gf->heg", R, weights.value, R),
        R @ weights.first,
        weights.second @ R.T,
    )
    out = block(X, weights, config_for(shape), shape)
    np.testing.assert_allclose(block(X @ R.T, turned, config_for(shape), shape), out @ R.T, atol=1e-12)


def test_the_simplex_has_the_lengths_and_cosines_it_was_asked_for():
    X = simplex(jnp.asarray(2.0), jnp.asarray(0.3), 4, 9)
    np.testing.assert_allclose(X @ X.T / 9, 2.0 * (0.7 * np.eye(4) + 0.3), atol=1e-14)
    near = moments(simplex(jnp.asarray(2.0), jnp.asarray(1 - 1e-9), 4, 9))
    assert float(near.difference) == pytest.approx(2e-9, rel=1e-6)
    with pytest.raises(ValueError, match="`d` must be at least n = 4"):
        simplex(jnp.asarray(1.0), jnp.asarray(0.3), 4, 3)


def test_moments_are_those_of_all_pairs():
    X = np.asarray(tokens())
    q = np.mean(X**2)
    p = np.mean([X[i] @ X[j] / D for i in range(N) for j in range(N) if i != j])
    found = moments(jnp.asarray(X))
    np.testing.assert_allclose(found, (q, q - p), rtol=1e-12)
    assert float(found.collective(N)) == pytest.approx(q + (N - 1) * p, rel=1e-12)


@pytest.mark.thorough
@pytest.mark.parametrize("name", SHAPES)
def test_gradients_at_every_block_are_those_of_explicit_perturbations(name):
    shape, cells = SHAPES[name], 2
    config = config_for(shape, cells)
    keys = layer_keys(jax.random.key(3), DEPTH)
    starts = jnp.stack([tokens(), tokens(1)])
    path = forward(keys, starts, config, shape)
    assert path.shape == (DEPTH + 1, cells, len(SIGNS), N, D)
    top = jax.random.normal(jax.random.key(4), (1, *path.shape[1:]))
    found = backward(keys, path, top, config, shape, lambda G: G)[:, 0]

    def loss(perturbation):
        X = jnp.repeat(starts[:, None], len(SIGNS), axis=1)
        for layer, key in enumerate(keys):
            X = every_network(X + perturbation[layer], draw_weights(key, shape, X.dtype), config, shape)
        return jnp.sum(top[0] * X)

    expected = jax.grad(loss)(jnp.zeros_like(path[:-1]))
    np.testing.assert_allclose(found[:-1], expected, rtol=1e-9, atol=1e-11)
    np.testing.assert_array_equal(found[-1], top[0])


def test_antithetic_networks_have_the_signs_flipped():
    shape, X = SHAPES["pre"], tokens()
    config = config_for(shape, 1)
    weights = draw_weights(jax.random.key(1), shape, X.dtype)
    together = every_network(jnp.repeat(X[None, None], 4, axis=1), weights, config, shape)[0]
    for out, (of_value, of_second) in zip(together, SIGNS, strict=True):
        flipped = weights._replace(value=of_value * weights.value, second=of_second * weights.second)
        np.testing.assert_allclose(out, plain_block(np.asarray(X), flipped, shape), rtol=1e-12, atol=1e-12)
    assert np.ptp(together, axis=0).max() > 0.1


def test_cotangents_are_what_they_are_called():
    token, difference, pooled = cotangents(jax.random.key(0), ("token", "difference", "pooled"), 5, 7)
    np.testing.assert_allclose(difference.sum(0), 0, atol=1e-14)
    np.testing.assert_allclose(token - difference, np.broadcast_to(token.mean(0), (5, 7)))
    np.testing.assert_array_equal(pooled, np.broadcast_to(token[0], (5, 7)))


def test_gradient_moments_average_over_the_signs():
    shape = SHAPES["pre"]
    config, keys = config_for(shape, 1), layer_keys(jax.random.key(3), DEPTH)
    path = forward(keys, tokens()[None], config, shape)
    found = gradient_moments(jax.random.key(5), keys, path, config, shape, ("pooled",))["pooled"]
    R = cotangents(jax.random.key(5), ("pooled",), N, D)
    top = jnp.broadcast_to(R[:, None, None], (1, *path.shape[1:]))
    G = backward(keys, path, top, config, shape, lambda G: G)[:, 0, 0]
    np.testing.assert_allclose(found.square[:, 0], (G**2).sum((-2, -1)).mean(-1) / (N * D), rtol=1e-12)


def test_the_causal_modes_are_eigenvectors_of_the_average():
    n = 6
    T = np.tri(n) / np.arange(1, n + 1)[:, None]
    spread, difference, collective = map(np.asarray, modes(n))
    np.testing.assert_allclose(T @ spread, spread / 2, atol=1e-14)
    np.testing.assert_allclose(T.T @ difference, difference / 2, atol=1e-14)
    np.testing.assert_allclose(T.T @ collective, collective, atol=1e-14)
