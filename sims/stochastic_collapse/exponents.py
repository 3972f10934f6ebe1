"""Exponents of SGD on quadratic losses at any step size: Gaussian curvatures, finite data sets, shuffled epochs."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sims.engine.experiment import POSITIVE, Experiment, Mean, Output, Parameter, Pathwise, Setting, per_cell, whole
from sims.minibatches import minibatch, shuffled_epoch
from sims.stochastic_collapse.factors import log_size
from sims.stochastic_collapse.setup import SOURCE
from theory.stochastic_collapse import discrete_exponent, finite_data_exponent, lyapunov_exponent


class Sizes(NamedTuple):
    """What a compilation depends on."""

    batch: int
    samples: int
    paths: int
    steps: int


def growth(key, eta, curvatures, sizes: Sizes):
    """Mean growth of ln |theta| per step, over paths; `curvatures(key)` are those of one step's batch, shape (B,)."""

    def step(x, k):
        keys = jax.random.split(jax.random.fold_in(key, k), sizes.paths)
        return x + log_size(1 - eta * jnp.mean(jax.vmap(curvatures)(keys), axis=-1)), None

    x, _ = jax.lax.scan(step, jnp.zeros(sizes.paths), jnp.arange(sizes.steps))
    return jnp.mean(x) / sizes.steps


def growth_in_epochs(key, eta, h, sizes: Sizes):
    """The same over shuffled epochs, in each of which every sample is seen once."""
    batches = sizes.samples // sizes.batch
    epochs = -(-sizes.steps // batches)

    def epoch(x, k):
        keys = jax.random.split(jax.random.fold_in(key, k), sizes.paths)
        order = jax.vmap(lambda key: shuffled_epoch(key, sizes.samples, sizes.batch))(keys)
        return x + jnp.sum(log_size(1 - eta * jnp.mean(h[order], axis=-1)), axis=-1), None

    x, _ = jax.lax.scan(epoch, jnp.zeros(sizes.paths), jnp.arange(epochs))
    return jnp.mean(x) / (epochs * batches)


def one(key, cell, settings, sizes):
    k_data, k_gauss, *k_finite = jax.random.split(key, 5)
    eta, mean, std = cell["eta"], cell["mean_curvature"], cell["std_curvature"]
    h = mean + std * jax.random.normal(k_data, (sizes.samples,))

    def gaussian(key):
        return mean + std * jax.random.normal(key, (sizes.batch,))

    def drawn(replace):
        return lambda key: h[minibatch(key, sizes.samples, sizes.batch, replace)]

    again, once = (finite_data_exponent(eta, h, sizes.batch, replace) for replace in (True, False))
    # Of Gaussian curvatures with the moments of the data.
    smooth = discrete_exponent(eta, jnp.mean(h), jnp.std(h), sizes.batch)
    epochs = growth_in_epochs(k_finite[2], eta, h, sizes)
    return {
        "gaussian": growth(k_gauss, eta, gaussian, sizes),
        "with_replacement": growth(k_finite[0], eta, drawn(True), sizes),
        "with_replacement_theory": again,
        "without_replacement": growth(k_finite[1], eta, drawn(False), sizes),
        "without_replacement_theory": once,
        "epochs": epochs,
        "epochs_theory": once,
        "epochs_of_one": epochs,
        "epochs_of_one_theory": once,
        "drawn_with_replacement": again,
        "gaussian_data": smooth,
        "full_batch": log_size(1 - eta * jnp.mean(h)),
        "sde": eta * lyapunov_exponent(jnp.mean(h), jnp.sqrt(eta / sizes.batch) * jnp.std(h)),
    }


def predict(cells, settings, sizes):
    exponent = discrete_exponent(cells["eta"], cells["mean_curvature"], cells["std_curvature"], sizes.batch)
    return {"gaussian": exponent}


def by(formula):
    """A twin, of the step size and of the mean and the variance of the mean curvature of a batch."""

    def twin(cells, settings, sizes):
        return formula(cells["eta"], cells["mean_curvature"], cells["std_curvature"] ** 2 / sizes.batch)

    return twin


def several(cells, settings):
    return cells["batch"] > 1


def single(cells, settings):
    return cells["batch"] == 1


OF_DATA = {
    "Gaussian curvatures of the data's moments": "gaussian_data", "gradient descent": "full_batch", "the SDE": "sde",
}  # fmt: skip

exponents = Experiment(
    name="exponents",
    title="Exact exponents of random factors at any step size",
    sources=(SOURCE,),
    axes={
        "eta": Parameter([0.1, 0.3, 0.7, 1.0, 1.5, 2.5], r"learning rate $\eta$", scale="log", domain=POSITIVE),
        "mean_curvature": Parameter([-0.3, 0.0, 0.5], r"mean curvature $\bar h$"),
        "batch": Parameter([1, 2], "samples of a batch $B$", domain=whole(1), role="static"),
    },
    fixed={"std_curvature": Parameter(1.0, r"standard deviation of the curvature $\sigma_h$", domain=POSITIVE)},
    settings={
        "samples": Setting(12, "samples of the finite data set", domain=whole(2)),
        "paths": Setting(4, "paths of a replicate", domain=whole(1)),
        "steps": Setting(3000, "steps of SGD", domain=whole(1)),
    },
    sizes=lambda s: Sizes(int(s["batch"]), s["samples"], s["paths"], s["steps"]),
    theory_sizes=lambda sizes: sizes._replace(samples=0, paths=0, steps=0),
    simulate=per_cell(one),
    predict=predict,
    outputs={
        "gaussian": Output(r"growth of $\ln|\theta|$ per step"),
        "with_replacement": Output("growth on a data set drawn with replacement"),
        "without_replacement": Output("growth on a data set drawn without replacement"),
        "epochs": Output("growth in shuffled epochs"),
        "epochs_of_one": Output("growth in shuffled epochs of single samples"),
    },
    claims=(
        Mean(
            "gaussian", "Gaussian factors grow at E ln |N(m, s^2)|",
            twins={
                "the SDE": by(lambda eta, h, v: eta * lyapunov_exponent(h, jnp.sqrt(eta * v))),
                "noise sqrt(D) dW": by(lambda eta, h, v: eta * lyapunov_exponent(h, jnp.sqrt(eta * v / 2))),
                "the mean square": by(lambda eta, h, v: jnp.log((1 - eta * h) ** 2 + eta**2 * v) / 2),
                "Stratonovich noise": by(lambda eta, h, v: -eta * h + 0 * v),
            },
        ),
        Mean("with_replacement", "the average over multisets is exact", twins=OF_DATA),
        Mean(
            "without_replacement", "the average over subsets is exact", where=several,
            twins=OF_DATA | {"drawn with replacement": "drawn_with_replacement"},
        ),
        Mean(
            "epochs", "shuffling the epochs leaves the mean exponent as it is", where=several,
            twins=OF_DATA | {"drawn with replacement": "drawn_with_replacement"},
        ),
        Pathwise(
            "epochs_of_one", "shuffled epochs of single samples grow without any spread", tolerance=1e-12, rounding=1e3,
            where=single, twins=OF_DATA,
        ),
    ),
    presets={
        "smoke": {"eta": [0.3, 1.0], "mean_curvature": [-0.3, 0.5], "batch": [1], "steps": 200, "replicates": 4},
        "laptop": {"replicates": 20},
        "paper": {
            "eta": [0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.5, 5.0], "mean_curvature": [-0.5, -0.3, 0.0, 0.3, 1.0],
            "batch": [1, 2, 4], "samples": 24, "paths": 64, "steps": 20_000, "replicates": 100,
        },
    },
)  # fmt: skip
