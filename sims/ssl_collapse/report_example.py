"""Worked example: a Flax encoder of handwritten digits, trained, reported on, and then trained further.

``python -m sims.ssl_collapse.report_example`` prints the report, and how many directions the embedding has after more
training of its last layer: with the weight of alignment as it was, and with one that lets a direction appear.
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

from sims.digits import digits
from sims.engine.devices import configure_jax, prepare_environment
from sims.ssl_collapse.collapse_report import CollapseReport, collapse_report
from sims.ssl_collapse.digit_views import crop
from sims.ssl_collapse.losses import infonce_distance
from sims.ssl_collapse.trained_layer import CUT
from sims.ssl_collapse.training import train

OUTPUTS, BATCH, REACH, NOISE, ALPHA, RATE = 12, 64, 0.5, 0.3, 2.0, 0.2
STEPS = 2000


class Encoder(nn.Module):
    """One hidden layer of ReLU units, and a linear last layer."""

    hidden: int = 32

    def setup(self):
        self.first = nn.Dense(self.hidden, kernel_init=nn.initializers.he_normal(), param_dtype=float)
        self.last = nn.Dense(OUTPUTS, use_bias=False, param_dtype=float)

    def features(self, x):
        return nn.relu(self.first(x.reshape(len(x), -1)))

    def __call__(self, x):
        return self.last(self.features(x))


MODEL = Encoder()


class Run(NamedTuple):
    """A report on the network as it was, and how many directions were in use then and after further training."""

    report: CollapseReport
    before: int
    after: int


def features(params, x):
    """Penultimate features of images, shape (n, hidden)."""
    return MODEL.apply(params, x, method="features")


def views(key, images):
    """Two views: shifted by a pixel at most, cropped, and with noise on the pixels."""

    def view(key):
        k_crop, k_noise = jax.random.split(key)
        return crop(k_crop, images, REACH) + NOISE * jax.random.normal(k_noise, images.shape, images.dtype)

    return tuple(map(view, jax.random.split(key)))


def rank(params, x):
    """Directions of the embedding whose variance is above the cut."""
    embedded = np.asarray(MODEL.apply(params, x))
    return int((np.linalg.eigvalsh(np.cov(embedded.T)) > CUT).sum())


def trained(params, images, key, steps: int, alpha, last_alone: bool = False):
    """Parameters after SGD on minibatches of fresh views."""

    def loss(params, k):
        k_rows, k_views = jax.random.split(k)
        batch = images[jax.random.randint(k_rows, (BATCH,), 0, len(images))]
        params = params["params"]
        if last_alone:
            params = {name: p if name == "last" else jax.lax.stop_gradient(p) for name, p in params.items()}
        first, second = (MODEL.apply({"params": params}, x) for x in views(k_views, batch))
        return infonce_distance(first, second, 1.0, alpha)

    return jax.jit(lambda p, k: train(loss, p, k, steps, RATE, lambda p: jnp.zeros(()))[0])(params, key)


def compare(steps: int = STEPS, seed: int = 0) -> dict[float, Run]:
    """{weight of alignment: run}: that of the training, and then one at which a further direction should appear."""
    keys = jax.random.split(jax.random.key(seed), 5)
    images = jnp.asarray(digits().pixels - digits().pixels.mean(0))
    params = trained(MODEL.init(keys[0], images[:2]), images, keys[1], steps, ALPHA)
    # Eight pairs of views of every image, for covariances of little error.
    pair = views(keys[2], jnp.tile(images, (8, 1, 1)))
    x = tuple(features(params, v) for v in pair)
    W = params["params"]["last"]["kernel"].T

    runs, alpha = {}, ALPHA
    for key in keys[3:]:
        report = collapse_report(None, x, alpha=alpha, W=W, n_negatives=BATCH - 1)
        further = trained(params, images, key, steps, alpha, last_alone=True)
        runs[alpha] = Run(report, rank(params, pair[0]), rank(further, pair[0]))
        knob = next(k for k in report.knobs if k.name == "alpha")
        alpha = 1 + 0.5 * ((knob.appears or alpha) - 1)
    return runs


def main(argv: list[str] | None = None) -> int:
    """Print the reports, and what further training did."""
    parser = argparse.ArgumentParser("python -m sims.ssl_collapse.report_example", description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS, help="steps of every training (%(default)s)")
    steps = parser.parse_args(argv).steps
    prepare_environment()
    configure_jax()
    start = time.perf_counter()
    for alpha, run in compare(steps).items():
        print(f"Weight of alignment {alpha:.3g}\n{run.report}")
        print(f"{run.before} directions in use, {run.after} after {steps} more steps of the last layer.\n")
    print(f"({time.perf_counter() - start:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
