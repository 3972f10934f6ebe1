"""How long a block of a random transformer takes over a grid of cells, by how the weights are drawn and scaled.

``python tests/benchmarks/signal_propagation.py [d] [cells]`` prints CPU milliseconds per block (all threads, medians).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sims.engine.devices import prepare_environment

prepare_environment()

import jax
import jax.numpy as jnp
from timing import cpu_ms

from sims.signal_propagation.network import Shape, block, draw_weights, layer_keys
from theory.signal_propagation import TransformerConfig

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_default_matmul_precision", "highest")


def main(d=128, cells=32, n=16):
    shape = Shape(n, d, 1)
    sigma_w = jnp.linspace(1.0, 5.0, cells)
    config, _ = TransformerConfig(n=n, sigma_w=sigma_w).broadcast()
    X = jax.random.normal(jax.random.key(0), (cells, n, d))
    key = jax.random.key(1)

    def own_weights(key, X):
        keys = layer_keys(key, cells)
        return jax.vmap(lambda k, x, c: block(x, draw_weights(k, shape, X.dtype), c, shape))(keys, X, config)

    def scaled_weights(key, X):
        weights = draw_weights(key, shape, X.dtype)
        unit = TransformerConfig(n=n, sigma_w=1.0).broadcast()[0]

        def one(x, c):
            return block(x, weights._replace(first=c.sigma_w * weights.first), unit, shape)

        return jax.vmap(one)(X, config)

    def scaled_activations(key, X):
        weights = draw_weights(key, shape, X.dtype)
        return jax.vmap(lambda x, c: block(x, weights, c, shape))(X, config)

    print(f"one block, {cells} cells, n = {n}, d = {d}, {jax.devices()[0].platform}, float64")
    base = None
    for function in (own_weights, scaled_weights, scaled_activations):
        cost = cpu_ms(function, key, X)
        base = base or cost
        name = function.__name__.replace("_", " ")
        print(f"{name:20} {cost:9.1f} ms  {base / cost:6.1f} times faster than own weights")
    gap = jnp.abs(scaled_weights(key, X) - scaled_activations(key, X)).max()
    print(f"scaled weights and scaled activations differ by {float(gap):.1e}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
