"""What closed forms, shared draws and the Riccati flow save over training in self-supervised learning.

``python tests/benchmarks/ssl_collapse.py`` prints CPU milliseconds (all threads, medians).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sims.engine.devices import prepare_environment

prepare_environment()

import jax
import jax.numpy as jnp
from timing import cpu_ms

from sims.ssl_collapse.infonce_training import minibatch_infonce
from sims.ssl_collapse.training import train
from theory.ssl_collapse import infonce_variance, riccati_flow

jax.config.update("jax_enable_x64", True)
KEY = jax.random.key(0)


def strengths(d=8, n=64, steps=3000):
    a, c = 1 / jnp.arange(1, d + 1), jnp.full(d, 0.2)
    exact = cpu_ms(lambda a, c: infonce_variance(a, c, 1.0, 2.0), a, c)

    def trained(key):
        start = 0.1 * jax.random.normal(key, (2 * d, d))
        loss = minibatch_infonce(n, a, c, 1.0, 2.0, 0.0)
        return train(loss, start, key, steps, jnp.asarray(0.15), lambda W: W.T @ W)[1]

    once = cpu_ms(trained, KEY, repeats=3)
    print(f"strengths of {d} modes: {exact:.3f} ms by formula, {once:.0f} ms by {steps} steps on {n} inputs")


def shared_draws(cells=32, d=64, m=8, n=128):
    a = 1 / jnp.arange(1, d + 1)
    c, W = jnp.linspace(0.05, 1.0, cells), 0.1 * jax.random.normal(KEY, (cells, m, d))

    def gradient(W, c, key):
        return jax.grad(minibatch_infonce(n, a, jnp.full(d, 1.0) * c, 1.0, 2.0, 0.0))(W, key)

    own = cpu_ms(lambda W, c, keys: jax.vmap(gradient)(W, c, keys), W, c, jax.random.split(KEY, cells))
    shared = cpu_ms(lambda W, c, key: jax.vmap(gradient, (0, 0, None))(W, c, key), W, c, KEY)
    print(f"a step of {cells} encoders of {d} features: {own:.1f} ms on draws of their own, {shared:.1f} ms on shared")


def whole_encoder(d=32, m=16, steps=10_000, rate=1e-3):
    B = jnp.diag(jnp.linspace(1, -0.5, d))
    U = 0.1 * jax.random.normal(KEY, (m, d))
    exact = cpu_ms(lambda U: riccati_flow(steps * rate, U, B, 1.0), U)

    def descent(U):
        return jax.lax.fori_loop(0, steps, lambda _, U: U + rate * (2 * U @ B - 4 * U @ U.T @ U), U)

    descended = cpu_ms(descent, U, repeats=3)
    print(f"an encoder of {m} x {d}: {exact:.2f} ms by the Riccati flow, {descended:.0f} ms by descent")


if __name__ == "__main__":
    print(f"{jax.devices()[0].platform}, float64")
    strengths()
    shared_draws()
    whole_encoder()
