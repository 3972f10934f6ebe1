"""What exact laws and reductions save over simulation, of collapse and of SGD after convergence.

``python tests/benchmarks/stochastic_collapse.py`` prints CPU milliseconds (all threads, medians).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sims.engine.devices import prepare_environment

prepare_environment()

import jax
import jax.numpy as jnp
from timing import cpu_ms

from sims.stochastic_collapse.neuron import draw, label_noise, slopes
from sims.stochastic_collapse.quartic_steps import euler
from theory.sgd_limit import minibatch_moments
from theory.stochastic_collapse import collapse_fraction

jax.config.update("jax_enable_x64", True)
KEY = jax.random.key(0)


def collapsed_share(paths=1000, steps=10_000, dt=2.5e-3):
    exact = cpu_ms(lambda t: collapse_fraction(t, 1e-8, 1.5, 2.5, 1.0), jnp.asarray(steps * dt))

    def walk(key):
        def step(k, x):
            return euler(x, 1.5, 2.5, dt, dt**0.5 * jax.random.normal(jax.random.fold_in(key, k), x.shape))

        return jnp.mean(jax.lax.fori_loop(0, steps, step, jnp.zeros(paths)) < jnp.log(1e-8))

    print(f"collapsed share: {exact:.1f} ms by Fokker-Planck, {cpu_ms(walk, KEY, repeats=3):.0f} ms by {paths} paths")


def noise_of_a_neuron(samples=32, paths=1000, steps=1000):
    data = draw(KEY, samples)
    w = jax.random.normal(KEY, (2, paths))

    def labels(key):
        def step(k, total):
            by = jnp.stack(slopes(w, data.x)[1])
            xi = jax.random.normal(jax.random.fold_in(key, k), (samples, paths))
            return total + jnp.sum(by * xi[None], 1) / samples**0.5

        return jax.lax.fori_loop(0, steps, step, jnp.zeros((2, paths)))

    def reduced(key):
        def step(k, total):
            xi = jax.random.normal(jax.random.fold_in(key, k), (2, paths))
            return total + label_noise(*slopes(w, data.x)[1], xi)

        return jax.lax.fori_loop(0, steps, step, jnp.zeros((2, paths)))

    each, two = (cpu_ms(f, KEY, repeats=3) / steps for f in (labels, reduced))
    print(
        f"label noise of {paths} scalar neurons on {samples} samples: {each:.2f} ms a step, {two:.2f} ms by two normals"
    )


def moments(samples=200, d=10, steps=100, batch=8, runs=1000):
    k_X, k_y = jax.random.split(KEY)
    X, y = jax.random.normal(k_X, (samples, d)), jax.random.normal(k_y, (samples,))
    exact = cpu_ms(lambda X, y: minibatch_moments(X, y, 0.05, 0.9, batch, steps), X, y)

    def run(key):
        def step(state, k):
            theta, v = state
            rows = jax.random.randint(jax.random.fold_in(key, k), (batch,), 0, samples)
            v = 0.9 * v - 0.05 * X[rows].T @ (X[rows] @ theta - y[rows]) / batch
            return (theta + v, v), theta

        return jax.lax.scan(step, (jnp.zeros(d), jnp.zeros(d)), jnp.arange(steps))[1]

    many = cpu_ms(jax.vmap(run), jax.random.split(KEY, runs), repeats=3)
    print(f"second moments of minibatch SGD, {steps} steps: {exact:.1f} ms exactly, {many:.0f} ms by {runs} runs")


if __name__ == "__main__":
    print(f"{jax.devices()[0].platform}, float64")
    collapsed_share()
    noise_of_a_neuron()
    moments()
