"""Worked example: an ordinary Flax MLP, downstream as it is initialized, and the same one made upstream.

``python -m sims.lazy_rich.balance_example`` prints both reports, trains both networks and compares them.
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

from sims.engine.devices import configure_jax, prepare_environment
from sims.lazy_rich.balance import balance_report, step_change
from sims.lazy_rich.initialization import initialize

INPUTS, HIDDEN, SAMPLES, TEACHERS = 20, 64, 200, 3
STEP, STEPS, BATCH, DRAWS = 0.02, 400, 20, 64


class MLP(nn.Module):
    """One hidden ReLU layer."""

    hidden: int = HIDDEN

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(self.hidden, param_dtype=float)(x))
        return nn.Dense(1, param_dtype=float)(x)[..., 0]


class Run(NamedTuple):
    """A training run: loss and share of changed activation patterns after every step, and the drift of mean delta."""

    losses: np.ndarray
    changed: np.ndarray
    predicted: float
    measured: float


def data(key):
    """Gaussian inputs and the outputs of a teacher of three ReLU neurons."""
    inputs, teachers = jax.random.split(key)
    x = jax.random.normal(inputs, (SAMPLES, INPUTS))
    neurons = jax.random.normal(teachers, (INPUTS, TEACHERS)) / INPUTS**0.5
    return x, nn.relu(x @ neurons) @ jnp.array([1.0, -1.0, 1.0])


def mean_squared_error(model):
    """loss(params, batch) of a model."""

    def loss(params, batch):
        x, y = batch
        return ((model.apply(params, x) - y) ** 2).mean()

    return loss


def train(loss, params, batch, step: float, steps: int) -> Run:
    """Gradient descent, with the drift of delta summed up from the exact change in every step."""

    def norms(tree):
        lower, upper = tree["params"]["Dense_0"], tree["params"]["Dense_1"]
        return (lower["kernel"] ** 2).sum(0) + lower["bias"] ** 2, (upper["kernel"] ** 2).sum(1)

    def active(p):
        layer = p["params"]["Dense_0"]
        return batch[0] @ layer["kernel"] + layer["bias"][None, :] > 0

    def descend(p, _):
        gradient = jax.grad(loss)(p, batch)
        after = jax.tree.map(lambda x, g: x - step * g, p, gradient)
        seen = loss(after, batch), (active(after) != active(params)).mean(), step_change(*norms(gradient), step).mean()
        return after, seen

    last, (losses, changed, drifts) = jax.jit(lambda p: jax.lax.scan(descend, p, length=steps))(params)
    before, after = (balance_report(p)[0].delta.mean() for p in (params, last))
    return Run(np.asarray(losses), np.asarray(changed), float(drifts.sum()), float(after - before))


def compare(step: float = STEP, steps: int = STEPS, seed: int = 0) -> dict[str, tuple]:
    """(report, run) of the network as Flax initializes it, and of one of the same scale and opposite delta."""
    key, model = jax.random.key(seed), MLP()
    batch, loss = data(jax.random.fold_in(key, 0)), mean_squared_error(model)
    params = model.init(jax.random.fold_in(key, 1), batch[0])
    pair = balance_report(params)[0]
    upstream = initialize(pair.tau, -pair.delta.mean(), (INPUTS, HIDDEN, 1))
    networks = {
        "as initialized": params,
        "made upstream": upstream.like(params, jax.random.fold_in(key, 2), exact=True),
    }
    results = {}
    for name, p in networks.items():
        report = balance_report(p, step=step, loss=loss, batch=batch, batch_size=BATCH, draws=DRAWS, weight_decay=1e-3)
        results[name] = report, train(loss, p, batch, step, steps)
    return results


def main(argv: list[str] | None = None) -> int:
    """Print both reports and what differs between the two runs."""
    parser = argparse.ArgumentParser("python -m sims.lazy_rich.balance_example", description=__doc__)
    parser.add_argument("--step", type=float, default=STEP, help="learning rate")
    parser.add_argument("--steps", type=int, default=STEPS, help="steps of gradient descent")
    sizes = parser.parse_args(argv)
    prepare_environment()
    configure_jax()
    start = time.perf_counter()
    results = compare(sizes.step, sizes.steps)
    for name, (report, _) in results.items():
        print(f"Network {name}\n{report}")
    for name, (_, run) in results.items():
        early = run.changed[min(sizes.steps, 10) - 1]
        print(
            f"{name}: {early:.1%} of the activation patterns have changed after {min(sizes.steps, 10)} steps, "
            f"{run.changed[-1]:.1%} after {sizes.steps}, with loss {run.losses[-1]:.3g}; "
            f"mean delta moved by {run.measured:.6g}, predicted {run.predicted:.6g}."
        )
    print(f"({time.perf_counter() - start:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
