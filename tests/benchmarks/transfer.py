"""Ratios of the transfer simulation's integrators, in one run, on the same cells, with single-threaded BLAS.

``python tests/benchmarks/transfer.py [--d 500] [--repeats 3]`` prints CPU seconds (all threads) and ratios:

1. a step of the unreduced networks (gradient kept as an outer product, eigenbasis) against a plain d x d autograd loop;
2. the 20 x 20 x 20 diagram (gamma x theta x replicate) by reduced gradient descent and by reduced flow, with the
   distance of the flow's end from `fine_tuning_endpoint` off n = d;
3. compilations of a second run.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import jax.numpy as jnp
import numpy as np

from sims.descent import gradient_descent
from sims.engine.experiment import configure
from sims.engine.run import run
from sims.transfer.deep_linear import initial_network, quadratic_loss, weights
from sims.transfer.phase_diagram import phase_diagram
from sims.transfer.regression import draw, regression


def cpu_seconds(action, repeats):
    """Median CPU seconds of `action` after one run that compiles."""
    jax.block_until_ready(action())
    spent = []
    for _ in range(repeats):
        start = time.process_time()
        jax.block_until_ready(action())
        spent.append(time.process_time() - start)
    return statistics.median(spent)


def step_ratio(d, repeats, steps=20, cells=20):
    """CPU seconds a step and cell: plain autograd on the data with d x d layers, and the simulation's form."""
    data = draw(jax.random.key(0), d, d)
    theta = jnp.linspace(0.1, 1.5, cells)
    n = jnp.asarray(float(d // 2))
    task = regression(data, n, theta, jnp.zeros(cells), jnp.asarray(1.0))
    X = jnp.where(jnp.arange(d)[:, None] < d // 2, data.inputs, 0.0)
    labels = (X @ task.basis @ task.target.T).T
    square = initial_network(jax.random.key(1), d, d, 2, jnp.asarray(0.1))
    narrow = initial_network(jax.random.key(1), d, 8, 2, jnp.asarray(0.1))

    @jax.jit
    def plain(network, X, labels):
        def one(y):
            return gradient_descent(lambda net: jnp.sum((X @ net[0] @ net[1] - y) ** 2) / n, network, 0.01, steps)

        return jax.lax.map(one, labels)

    @jax.jit
    def unreduced(network, eigenvalues, optima):
        return jax.vmap(lambda w: gradient_descent(quadratic_loss(eigenvalues, w), network, 0.01, steps))(optima)

    slow = cpu_seconds(lambda: plain(square, X, labels[:2]), repeats) / (2 * steps)
    same = cpu_seconds(lambda: unreduced(square, task.eigenvalues, task.min_norm[:2]), repeats) / (2 * steps)
    fast = cpu_seconds(lambda: unreduced(narrow, task.eigenvalues, task.min_norm), repeats) / (cells * steps)
    end = [
        plain(square, X, labels[:2]),
        unreduced((task.basis.T @ square[0], square[1]), task.eigenvalues, task.min_norm[:2]),
    ]
    plain_end, fast_end = (jax.vmap(weights)(e) for e in end)
    gap = float(jnp.abs(plain_end - fast_end @ task.basis.T).max())
    print(f"plain autograd, {d} x {d} layers        {1e3 * slow:9.3f} CPU ms a step and cell")
    print(f"unreduced networks, {d} x {d} layers    {1e3 * same:9.3f}   ratio {slow / same:8.1f}   (same to {gap:.0e})")
    print(f"unreduced networks, {d} x 8 layers      {1e3 * fast:9.3f}   ratio {slow / fast:8.1f}")


def compilations(action):
    seen = []

    def listen(event, duration, **facts):
        seen.append(event == "/jax/core/compile/backend_compile_duration")

    jax.monitoring.register_event_duration_secs_listener(listen)
    action()
    jax.monitoring.unregister_event_duration_listener(listen)
    return sum(seen)


def diagram(protocol, d, precision):
    """CPU seconds of the 20 x 20 x 20 diagram at d, compile and engine included; twice, to count compilations."""
    jax.config.update("jax_enable_x64", precision == 64)
    wish = {
        "d": d, "gamma": np.linspace(0.1, 2.0, 20), "theta": np.pi / 2 * np.linspace(0.05, 1.0, 20), "sigma": [0.2],
        "replicates": 20, "protocol": protocol, "scratch_steps": 1, "flow_steps": 128,
    }  # fmt: skip
    job = configure(phase_diagram, "smoke", wish, precision=precision)
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        start = time.process_time()
        dataset, _ = run(job, Path(first), progress=False)
        spent = time.process_time() - start
        again = compilations(lambda: run(job, Path(second), progress=False))
    off = dataset["endpoint_error"].where(abs(dataset["gamma"] - 1) > 1e-9)
    print(
        f"{protocol:13} 20x20x20, d = {d}, float{precision}: {spent:7.1f} CPU s; end point off n = d: "
        f"max {float(off.max()):.1e}, median {float(off.median()):.1e}; second run compiles {again}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--d", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_default_matmul_precision", "highest")
    print(f"{os.cpu_count()} cores, jax {jax.__version__}, {jax.devices()[0].device_kind}")
    step_ratio(options.d, options.repeats)
    diagram("reduced_flow", options.d, 32)
    diagram("reduced_gd", options.d, 32)


if __name__ == "__main__":
    main()
