"""Transformers with a causal mask: exponents of the slowest modes, and the full Gram matrix."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from sims.engine.experiment import POSITIVE, Experiment, Order, Output, Parameter, Setting, cell_by_cell
from sims.signal_propagation.network import (
    backward,
    forward,
    layer_keys,
    mean_moments,
    mean_over_networks,
)
from sims.signal_propagation.setup import PARAMETERS, SOURCE, STRENGTH, config_of, fits, settings, theory_sizes
from sims.signal_propagation.setup import sizes as bidirectional_sizes
from theory.signal_propagation import angle_exponent, gradient_exponent, stationary_norm


def sizes(settings):
    plain = bidirectional_sizes(settings)
    return plain._replace(shape=plain.shape._replace(causal=True))


def modes(n: int):
    r"""Modes of the causal average T, :math:`T_{ij} = 1/i` for j <= i, with eigenvalue 1/2, and of T^T with 1.

    :math:`T c = c/2` for c_i = i - 1; :math:`T^\top g = g/2` for g = (-1, 1, 0, ...);
    :math:`T^\top g = g` for g = (1, 0, ...).
    """
    return jnp.arange(n, dtype=float), jnp.zeros(n).at[0].set(-1.0).at[1].set(1.0), jnp.zeros(n).at[0].set(1.0)


def gains(key, config, distance, shape):
    """Growth of the slowest mode of the angles, and of gradients in the slowest difference mode and the collective."""
    n, d = shape.n, shape.d
    k_weights, k_top = jax.random.split(key)
    keys = layer_keys(k_weights, shape.depth)
    spread, difference, collective = (m.astype(config.n.dtype) for m in modes(n))
    X = jnp.zeros((n, d), config.n.dtype).at[:, 0].set(1.0).at[:, 1].set(jnp.sqrt(distance) * spread)
    X = X / jnp.linalg.norm(X, axis=1, keepdims=True)
    path = forward(keys, jnp.sqrt(stationary_norm(config) * d)[:, None, None] * X[None], config, shape)
    apart = mean_moments(path).difference
    R = jax.random.normal(k_top, (d,), path.dtype)
    top = jnp.stack([mode[:, None] * R[None, :] for mode in (difference, collective)])
    top = jnp.broadcast_to(top[:, None, None], (2, *path.shape[1:]))
    square = backward(keys, path, top, config, shape, mean_moments).square
    return {
        "angle": apart[-1] / apart[0],
        "token": square[0, 0] / square[-1, 0],
        "pooled": square[0, 1] / square[-1, 1],
    }


def config_of_cells(cells, shape):
    return config_of(cells, shape, alpha_A=cells["alpha"], alpha_M=cells["alpha"])


def simulate(key, cells, settings, sizes):
    shape = sizes.shape

    def some(config):
        return mean_over_networks(key, sizes.networks, lambda k: gains(k, config, settings["distance"], shape))

    gain = cell_by_cell(some, config_of_cells(cells, shape), sizes.together)
    return {f"{name}_exponent": jnp.log(g) / shape.depth for name, g in gain.items()}


def exponents(config):
    return {
        "angle_exponent": angle_exponent(config),
        "token_exponent": gradient_exponent(config, "token"),
        "pooled_exponent": gradient_exponent(config, "pooled"),
    }


def predict(cells, settings, sizes):
    return exponents(config_of_cells(cells, sizes.shape))


def twin(output, **changes):
    def formula(cells, settings, sizes):
        return exponents(replace(config_of_cells(cells, sizes.shape), **changes))[output]

    return formula


LADDER = {
    "setting": "d",
    "values": (16, 24, 40, 64),
    "order": -1,
    "replicates": 40,
    "axes": {"alpha": [0.4, 0.8], "sigma_w": [1.5, 3.0]},
    "settings": {"n": 4, "depth": 3, "networks": 48},
}

causal = Experiment(
    name="causal",
    title="Lyapunov exponents with a causal mask",
    sources=(SOURCE,),
    axes={
        "alpha": Parameter(np.linspace(0.1, 0.9, 5), r"branch strength $\alpha_A=\alpha_M=\alpha$", domain=STRENGTH),
        "sigma_w": Parameter(np.linspace(1.0, 5.0, 5), r"first MLP scale $\sigma_w$", domain=POSITIVE),
    },
    fixed={name: PARAMETERS[name] for name in ("n", "sigma_A", "sigma_V", "sigma_2")},
    settings={**settings(), "distance": Setting(1e-8, "squared angle of two neighbours at the input", domain=POSITIVE)},
    sizes=sizes,
    theory_sizes=theory_sizes,
    simulate=simulate,
    predict=predict,
    outputs={
        "angle_exponent": Output(r"angle exponent $\lambda_a$, causal"),
        "token_exponent": Output(r"token gradient exponent, causal"),
        "pooled_exponent": Output(r"pooled gradient exponent, causal"),
    },
    claims=(
        Order(
            "angle_exponent", "the causal angle exponent is exact up to 1/d",
            twins={"the bidirectional exponent": twin("angle_exponent", causal=False)}, **LADDER,
        ),
        Order(
            "token_exponent", "the causal token exponent is exact up to 1/d",
            twins={"the bidirectional exponent": twin("token_exponent", causal=False)}, **LADDER,
        ),
        Order(
            "pooled_exponent", "the pooled exponent knows no mask",
            twins={"the causal token exponent": twin("token_exponent")}, **LADDER,
        ),
    ),
    presets={
        "smoke": {
            "alpha": [0.3, 0.8], "sigma_w": [1.0, 4.0], "d": 16, "n": 3, "depth": 3, "replicates": 6,
            "ladders": False,
        },
        "laptop": {"replicates": 20},
        "paper": {
            "together": 16, "alpha": np.linspace(0.05, 0.95, 19), "d": 1024, "n": 64, "depth": 10, "replicates": 32},
    },
    validate=fits,
    block=64,
)  # fmt: skip
