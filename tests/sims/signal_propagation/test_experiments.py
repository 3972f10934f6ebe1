"""Pieces of the experiments: the infinite-width attention against wide networks, inputs, sizes and refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sims.engine.experiment import configure
from sims.signal_propagation import depth_scaling, gram_map, identity_residual, phase_diagram, propagation
from sims.signal_propagation.depth_scaling import sizes as deep_sizes
from sims.signal_propagation.gram_ensemble import attention
from sims.signal_propagation.gram_map import first_gram
from sims.signal_propagation.network import Shape, block, draw_weights
from theory.signal_propagation import TransformerConfig

N = 4


@pytest.mark.thorough
def test_attention_at_infinite_width_is_the_mean_of_wide_networks():
    config = TransformerConfig(n=N, alpha_A=0.9, alpha_M=0.0, sigma_A=2.0).broadcast()[0]
    C = 0.7 * jnp.eye(N) + 0.3
    keys = jax.random.split(jax.random.key(0), 4000)
    wide = jax.jit(lambda keys: jax.lax.map(lambda k: attention(k, C, config), keys))(keys)
    shape = Shape(N, 48, 1)
    X = 48**0.5 * jnp.pad(jnp.linalg.cholesky(C), ((0, 0), (0, 48 - N)))

    def gram(key):
        out = block(X, draw_weights(key, shape, X.dtype), config, shape)
        return out @ out.T / shape.d

    real = jax.jit(lambda keys: jax.lax.map(gram, keys))(keys[:2000])
    for pick in (np.eye(N, dtype=bool), ~np.eye(N, dtype=bool)):
        a, b = (np.asarray(G)[:, pick].mean(1) for G in (wide, real))
        error = np.hypot(a.std() / len(a) ** 0.5, b.std() / len(b) ** 0.5)
        assert abs(a.mean() - b.mean()) < 4 * error + 0.2 / shape.d
        assert abs(a.mean() - np.asarray(C)[pick].mean()) > 8 * error


def test_the_unequal_tokens_spread_over_a_decade_and_form_a_gram_matrix():
    C = np.asarray(first_gram(5, 3.0))
    assert np.linalg.eigvalsh(C).min() > 0
    assert C[-1, -1] / C[0, 0] == pytest.approx(10)
    assert C[0, 1] / np.sqrt(C[0, 0] * C[1, 1]) == pytest.approx(np.exp(-1 / 3))


def test_width_follows_the_depth():
    job = configure(depth_scaling, "smoke")
    shape = deep_sizes({**job.settings, "n": 3.0, "depth": 4.0, "residual": "normalized"}).shape
    assert (shape.depth, shape.d, shape.n) == (4, 4 * job.settings["width_per_block"], 3)


@pytest.mark.parametrize(
    ("experiment", "wish", "sentence"),
    [
        (phase_diagram, {"d": 3}, "`d` must be at least n = 4, so that the tokens can form a simplex, but got 3."),
        (phase_diagram, {"alpha": [0.0, 0.5]}, "`alpha` must be above 0 and below 1, but got 0."),
        (phase_diagram, {"sigma_w": [-1.0]}, "`sigma_w` must be positive, but got -1."),
        (propagation, {"heads": 3}, "`heads` must divide d = 16, but got 3."),
        (propagation, {"alpha_A": 1.5}, "`alpha_A` must be at most 1 with the normalized residual, but got 1.5."),
        (propagation, {"rho0": -0.1}, "`rho0` must be from 0 to 1, but got -0.1."),
        (propagation, {"norm": "layer"}, "`norm` must be one of pre, post, none, but got layer."),
        (gram_map, {"mask": [2]}, "`mask` must be 0 or 1, but got 2."),
        (identity_residual, {"depth": [1]}, "`depth` must be a whole number, 2 or more, but got 1."),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_sentence(experiment, wish, sentence):
    with pytest.raises(ValueError, match="^" + sentence.replace(".", r"\.").replace("`", "`")):
        configure(experiment, "smoke", wish)
