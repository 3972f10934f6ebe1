"""What closed forms and infinitely many samples save over simulation, on the lazy-rich phase diagram.

``python tests/benchmarks/lazy_rich.py [n] [d] [m]`` prints CPU milliseconds (all threads, medians).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sims.engine.devices import prepare_environment

prepare_environment()

import jax
import jax.numpy as jnp
from timing import cpu_ms

from sims.descent import gradient_descent
from sims.lazy_rich.relu import Student, draw, mean_squares, outputs, scaled
from sims.lazy_rich.setup import Neuron, half_squares
from theory.lazy_rich import kernel_distance_at, params_from_beta, relu_population_flow

jax.config.update("jax_enable_x64", True)
STEPS = 100


def main(n=1000, d=100, m=50):
    print(f"{jax.devices()[0].platform}, float64")
    tau, delta = jnp.meshgrid(jnp.geomspace(0.1, 2, 200), jnp.linspace(-1, 1, 200))
    formula = cpu_ms(lambda t: kernel_distance_at(tau, delta, t), jnp.asarray(10.0))

    def descend(delta):
        start = Neuron(*params_from_beta(jnp.array([0.0, 0.3]), delta))
        return gradient_descent(lambda p: half_squares(p, jnp.eye(2), jnp.array([1.0, 0.0])), start, 0.01, 1000)

    one = cpu_ms(jax.vmap(descend), jnp.linspace(-1, 1, 100))
    print(f"kernel distance of 40000 neurons: {formula:.1f} ms by formula, {400 * one:.0f} ms by 1000 steps each")

    task, student = draw(jax.random.key(0), n, 1, d, m)
    start = scaled(student, 0.3, 0.5, {"eta_a": 1.0, "eta_w": 1.0})
    y = outputs(Student(task.V, task.a_star), task.X)
    samples = cpu_ms(lambda s: gradient_descent(lambda p: mean_squares(p, task.X, y), s, 0.01, STEPS), start)
    limit = cpu_ms(lambda s: relu_population_flow(*s, task.V, task.a_star, 0.01, jnp.array([STEPS]), 1 / d), start)
    print(
        f"a step of {m} ReLU neurons, d = {d}: {samples / STEPS:.3f} ms on {n} samples, "
        f"{limit / STEPS:.3f} ms on infinitely many"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
