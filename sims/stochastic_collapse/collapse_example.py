"""Worked example: an ordinary Flax MLP with label noise, audited and then trained, at a small and at a large rate.

``python -m sims.stochastic_collapse.collapse_example`` prints both reports and what training then does: at the large
rate one unit is left to carry the signal, and the others merge at the exponent foreseen.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from sims.engine.devices import configure_jax, prepare_environment
from sims.stochastic_collapse.collapse_audit import Sampling
from sims.stochastic_collapse.collapse_report import CollapseReport, collapse_report
from sims.stochastic_collapse.invariance import duplicates

HIDDEN, SAMPLES, BATCH, MOMENTUM, NOISE = 4, 32, 8, 0.9, 1.0
RATES = (0.003, 0.03)
STEPS = 4000
AXES = {"params/Dense_0/kernel": 1, "params/Dense_1/kernel": 0}


class MLP(nn.Module):
    """One hidden layer of tanh units."""

    hidden: int = HIDDEN

    @nn.compact
    def __call__(self, x):
        x = jnp.tanh(nn.Dense(self.hidden, use_bias=False, param_dtype=float)(x[:, None]))
        return nn.Dense(1, use_bias=False, param_dtype=float)(x)[:, 0]


MODEL = MLP()


class Run(NamedTuple):
    """Distance of every pair at the end of a training run, and the slope of its logarithm over the second half."""

    pairs: list[str]
    distances: np.ndarray
    slopes: np.ndarray


def loss(params, batch):
    """Half the mean squared error."""
    x, y = batch
    return ((MODEL.apply(params, x) - y) ** 2).mean() / 2


def label_noise(key, batch):
    """The batch with fresh noise on its labels."""
    x, y = batch
    return x, y + NOISE * jax.random.normal(key, y.shape, y.dtype)


def data(key):
    """Gaussian numbers, and what one tanh unit makes of them."""
    x = jax.random.normal(key, (SAMPLES,))
    return x, jnp.tanh(x)


def train(params, batches, lr: float, steps: int, key) -> Run:
    """Training as it is, without any audit: heavy ball on noisy minibatches."""
    sampling, rule = Sampling(BATCH, perturb=label_noise), optax.sgd(lr, MOMENTUM)
    pairs = [duplicates(params, AXES, i, j) for j in range(HIDDEN) for i in range(j)]

    def step(carry, k):
        params, state = carry
        updates, state = rule.update(jax.grad(loss)(params, sampling.draw(key, batches, k)), state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), jnp.stack([pair.distance(params) for pair in pairs])

    _, path = jax.jit(lambda p: jax.lax.scan(step, (p, rule.init(p)), jnp.arange(steps)))(params)
    late = np.log(path[steps // 2 :])
    return Run([str(pair) for pair in pairs], np.asarray(path[-1]), (late[-1] - late[0]) / (len(late) - 1))


def compare(rates=RATES, steps: int = STEPS, seed: int = 0) -> dict[float, tuple[CollapseReport, Run]]:
    """{learning rate: (report, run)}."""
    key = jax.random.key(seed)
    batches = data(jax.random.fold_in(key, 0))
    params = MODEL.init(jax.random.fold_in(key, 1), batches[0])
    options = {"momentum": MOMENTUM, "perturb": label_noise, "key": jax.random.fold_in(key, 2), "steps": steps}
    results = {}
    for lr in rates:
        report = collapse_report(loss, params, AXES, batches, lr, BATCH, **options)
        results[lr] = report, train(params, batches, lr, steps, jax.random.fold_in(key, 3))
    return results


def main(argv: list[str] | None = None) -> int:
    """Print the reports, and what training did."""
    parser = argparse.ArgumentParser("python -m sims.stochastic_collapse.collapse_example", description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS, help="steps of training (%(default)s)")
    steps = parser.parse_args(argv).steps
    prepare_environment()
    configure_jax()
    start = time.perf_counter()
    results = compare(steps=steps)
    for lr, (report, run) in results.items():
        predicted = {row.name: row.exponent for row in report.rows}
        print(f"Learning rate {lr:g}\n{report}")
        for name, distance, slope in zip(run.pairs, run.distances, run.slopes, strict=True):
            seen = f"distance {distance:.2g} after {steps} steps of training, late slope {slope:.2g}"
            print(f"{name}: {seen}; exponent {predicted[name]:.2g}")
        print()
    print(f"({time.perf_counter() - start:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
