"""A large linear regression by SGD with momentum: displacements, isotropic variances and turns of the top mode."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sims.engine.experiment import (
    BELOW_ONE,
    NONNEGATIVE,
    POSITIVE,
    Experiment,
    Mean,
    Order,
    Output,
    Parameter,
    Setting,
    per_cell,
    whole,
)
from sims.minibatches import minibatch
from sims.sgd_limit.displacement import lags
from sims.sgd_limit.heavy_ball import half_squares, heavy_ball, power_law
from sims.sgd_limit.setup import SOURCE
from theory.sgd_limit import (
    autocorrelation,
    global_displacement,
    local_displacement,
    minibatch_autocovariance,
)

ACF = 128  # lags of the autocorrelation
PADDED = 4096  # points of its Fourier transform


class Sizes(NamedTuple):
    """What a compilation depends on."""

    samples: int
    d: int
    batch: int
    paths: int
    burn_in: int
    steps: int
    octaves: int


def sizes(settings) -> Sizes:
    return Sizes(*(int(settings[name]) for name in Sizes._fields))


def draw(key, alpha, sizes: Sizes):
    """Gaussian inputs with a power-law spectrum, and labels with unit noise about a random line."""
    k_x, k_line, k_noise = jax.random.split(key, 3)
    X = jax.random.normal(k_x, (sizes.samples, sizes.d)) * jnp.sqrt(power_law(sizes.d, alpha))[None, :]
    return X, X @ jax.random.normal(k_line, (sizes.d,)) + jax.random.normal(k_noise, (sizes.samples,))


def trajectory(key, X, y, optimum, eta, beta, sizes: Sizes):
    """Positions of all paths at every step after the burn-in, measured from the optimum, where they start."""

    def loss(theta, rows):
        return half_squares(theta, X[rows], y[rows])

    def step(carry, k):
        keys = jax.random.split(jax.random.fold_in(key, k), sizes.paths)
        rows = jax.vmap(lambda key: minibatch(key, sizes.samples, sizes.batch))(keys)
        theta, w = carry
        theta, w = heavy_ball(theta, w, jax.vmap(jax.grad(loss))(theta, rows), eta, beta)
        return (theta, w), theta - optimum[None, :]

    start = jnp.tile(optimum[None, :], (sizes.paths, 1))
    steps = jnp.arange(sizes.burn_in + sizes.steps, dtype=jnp.int32)
    return jax.lax.scan(step, (start, jnp.zeros_like(start)), steps)[1][sizes.burn_in :]


def over_origins(statistic, path, at, longest: int):
    """Mean of statistic(now, later) over all origins that have `longest` steps ahead, at every lag."""
    now = path[: len(path) - longest]

    def of_lag(lag):
        later = jax.lax.dynamic_slice_in_dim(path, lag, len(now))
        return statistic(now, later)

    return jax.lax.map(of_lag, jnp.asarray(at, jnp.int32))


def frequency(acf):
    """Where the Fourier transform of an autocorrelation peaks, radians per step; a parabola through the highest."""
    power = jnp.fft.rfft(acf.at[0].multiply(0.5), PADDED).real
    at = jnp.clip(jnp.argmax(power), 1, PADDED // 2 - 1)
    low, middle, high = (power[at + shift] for shift in (-1, 0, 1))
    peak = at.astype(acf.dtype) + (low - high) / (2 * (low - 2 * middle + high))
    return 2 * jnp.pi / PADDED * peak


def one(key, cell, settings, sizes):
    k_data, k_batches = jax.random.split(key)
    X, y = draw(k_data, settings["alpha"], sizes)
    eta, beta, S = settings["eta"], cell["beta"], sizes.batch
    optimum = jnp.linalg.solve(X.T @ X, X.T @ y)
    path = trajectory(k_batches, X, y, optimum, eta, beta, sizes)

    spectrum, V = (a[..., ::-1] for a in jnp.linalg.eigh(X.T @ X / sizes.samples))
    residuals = X @ optimum - y
    sigma = jnp.sqrt(jnp.mean(residuals**2))
    noise = jnp.mean((residuals[:, None] * (X @ V)) ** 2, 0)  # of one sample, along every mode
    k, short = lags(sizes.octaves), np.arange(ACF)
    longest = max(int(k[-1]), ACF)

    law = minibatch_autocovariance(np.concatenate([k, short]), X, y, eta, beta, S)[:, ::-1]
    later, still, top = law[: len(k)], law[len(k)], law[len(k) :, 0] / law[len(k), 0]
    exact = 2 * jnp.sum(still[None, :] - later, 1)
    modes = path @ V
    moved = over_origins(lambda a, b: jnp.mean(jnp.sum((a - b) ** 2, -1)), path, k, longest)
    acf = over_origins(lambda a, b: jnp.mean(a * b), modes[..., 0], short, longest) / still[0]
    acf_ou = autocorrelation(short, eta, beta, spectrum[0], "ou")
    variance, turns = jnp.mean(modes**2, (0, 1)), beta > 0
    # Additive noise with the covariance at the optimum, mode by mode.
    additive = jnp.sum(2 * eta**2 / S * noise / ((1 - beta) * (2 * (1 + beta) - eta * spectrum)))
    ou = (spectrum, eta, beta, S, 0.0, sigma, "ou")
    return {
        "local": moved[0],
        "local_theory": exact[0],
        "local_ou": local_displacement(*ou),
        "displacement": moved,
        "displacement_theory": exact,
        "displacement_ou": global_displacement(k, *ou),
        "displacement_uncorrelated": exact[0] * k,
        "variance": variance,
        "variance_theory": still,
        "variance_boltzmann": jnp.sum(still) / jnp.sum(1 / spectrum) / spectrum,
        "acf": acf,
        "acf_theory": top,
        "acf_ou": acf_ou,
        "frequency": jnp.where(turns, frequency(acf), jnp.nan),
        "frequency_theory": jnp.where(turns, frequency(top), jnp.nan),
        "frequency_ou": frequency(acf_ou),
        "additive": additive / moved[0],
        "additive_theory": jnp.ones_like(additive),
        "additive_ou": additive * (1 - beta**2) / jnp.sum(eta**2 / S * noise),
    }


DIMS = {
    "lag": {"lag": lambda settings: lags(settings["octaves"])},
    "mode": {"mode": lambda settings: np.arange(1, settings["d"] + 1)},
    "short": {"short_lag": lambda settings: np.arange(ACF)},
}

regression = Experiment(
    name="regression",
    title="Linear regression after convergence",
    sources=(SOURCE,),
    axes={"beta": Parameter([0.0, 0.9, 0.97], r"momentum $\beta$", domain=BELOW_ONE)},
    settings={
        "samples": Setting(1000, "samples of the data set", domain=whole(2)),
        "d": Setting(20, "dimension of the inputs", domain=whole(1)),
        "alpha": Setting(1.0, "exponent of the spectrum l^-alpha of the inputs", domain=NONNEGATIVE),
        "eta": Setting(0.2, "learning rate", domain=POSITIVE),
        "batch": Setting(64, "samples of a batch", domain=whole(1)),
        "paths": Setting(8, "paths averaged in a replicate", domain=whole(1)),
        "burn_in": Setting(1500, "steps before anything is measured", domain=whole(0)),
        "steps": Setting(3000, "steps over which is averaged", domain=whole(ACF + 1)),
        "octaves": Setting(9, "the longest lag is 2 to this power", domain=whole(1)),
    },
    sizes=sizes,
    simulate=per_cell(one, one_by_one=True),
    predict=lambda cells, settings, sizes: {},
    outputs={
        "local": Output(r"displacement in one step $E|\delta|^2$"),
        "displacement": Output(r"displacement $E|\Delta_k|^2$", dims=DIMS["lag"]),
        "variance": Output(r"variance $\mathrm{Var}\,x_l$", dims=DIMS["mode"]),
        "acf": Output("autocorrelation of the top mode", dims=DIMS["short"]),
        "frequency": Output("frequency of the top mode", unit="rad"),
        "additive": Output("displacement in one step, additive noise over batches"),
    },
    claims=(
        Mean(
            "local", "one step moves by the exact formula of the batches",
            twins={"additive noise in continuous time": "local_ou"},
        ),
        Mean(
            "displacement", "so do many steps",
            twins={
                "additive noise in continuous time": "displacement_ou",
                "uncorrelated steps": "displacement_uncorrelated",
            },
        ),
        Mean(
            "variance", "the position spreads alike in all directions, whatever their curvature",
            twins={"the Boltzmann law of the loss": "variance_boltzmann"},
        ),
        Mean("acf", "the top mode oscillates as the chain does", twins={"continuous time": "acf_ou"}),
        Mean("frequency", "its spectrum peaks where that of the chain does", twins={"continuous time": "frequency_ou"}),
        Order(
            "additive", "all but a share of order 1 / S of the noise is that at the optimum", setting="batch",
            values=(16, 32, 64, 128), order=-1, replicates=32, axes={"beta": [0.8]},
            settings={"burn_in": 400, "steps": 2000, "octaves": 1}, twins={"continuous time": "additive_ou"},
        ),
    ),
    presets={
        "smoke": {
            "beta": [0.0, 0.9], "samples": 100, "d": 4, "batch": 16, "paths": 4, "burn_in": 100, "steps": 400,
            "octaves": 6, "replicates": 4, "ladders": False,
        },
        "laptop": {"replicates": 20},
        "paper": {
            "beta": [0.0, 0.9, 0.99, 0.999], "samples": 10_000, "d": 50, "eta": 0.1, "batch": 512, "paths": 32,
            "burn_in": 10_000, "steps": 100_000, "octaves": 13, "replicates": 32,
        },
    },
)  # fmt: skip
