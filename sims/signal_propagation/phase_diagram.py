"""The phase diagram: exponents of angles and gradients, measured in collapsed random transformers."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from sims.engine.experiment import POSITIVE, Experiment, Order, Output, Parameter, Phase, Setting, cell_by_cell
from sims.signal_propagation.network import (
    forward,
    gradient_moments,
    layer_keys,
    mean_moments,
    mean_over_networks,
    simplex,
)
from sims.signal_propagation.setup import (
    FRACTION,
    PARAMETERS,
    SOURCE,
    STRENGTH,
    config_of,
    fits,
    layers,
    settings,
    sizes,
    theory_sizes,
)
from theory.signal_propagation import angle_exponent, gradient_exponent, propagate, stationary_norm

KINDS = ("difference", "pooled", "token")


def config_of_cells(cells, shape):
    """Both branches have the strength alpha, attention's times `attention_share`."""
    return config_of(cells, shape, alpha_A=cells["alpha"] * cells["attention_share"], alpha_M=cells["alpha"])


def one_network(key, config, rho0, distance, shape):
    """Growth over the depth of 1 - rho, of squared gradients, and of the distance between two sequences; q and p.

    The two sequences are collapsed: all tokens of each are one vector, which attention sees as a single token. q and p
    are those of tokens that start at the cosine rho0.
    """
    n, d = shape.n, shape.d
    k_weights, k_top = jax.random.split(key)
    keys, q = layer_keys(k_weights, shape.depth), stationary_norm(config)
    aligned, pair = (jax.vmap(lambda q, n=n: simplex(q, 1 - distance, n, d))(q) for n in (n, 2))
    spread = jax.vmap(lambda rho: simplex(jnp.ones_like(rho), rho, n, d))(rho0)
    path, spread, first, second = forward(keys, (aligned, spread, pair[:, :1], pair[:, 1:]), config, shape)
    apart, between = mean_moments(path).difference, mean_moments(first - second).square
    gradients = gradient_moments(k_top, keys, path, config, shape, KINDS)
    tokens, pooled = gradients["difference"].difference, gradients["pooled"].collective(n)
    alone, stream = gradients["token"].square, mean_moments(spread)
    return {
        "angle_exponent": apart[-1] / apart[0],
        "token_exponent": tokens[0] / tokens[-1],
        "pooled_exponent": pooled[0] / pooled[-1],
        "frobenius_exponent": alone[-2] / alone[-1],
        "sequence_exponent": between[-1] / between[0],
    }, {"q": stream.square.T, "p": (stream.square - stream.difference).T}


def simulate(key, cells, settings, sizes):
    shape = sizes.shape
    config = config_of_cells(cells, shape)

    def some(cells):
        return mean_over_networks(key, sizes.networks, lambda k: one_network(k, *cells, settings["distance"], shape))

    rho0 = jnp.broadcast_to(cells["rho0"], config.n.shape)
    gains, geometry = cell_by_cell(some, (config, rho0), sizes.together)
    blocks = {name: 1 if name == "frobenius_exponent" else shape.depth for name in gains}
    return geometry | {name: jnp.log(gain) / blocks[name] for name, gain in gains.items()}


def exponents(config, q=None):
    pooled = gradient_exponent(config, "pooled", q)
    return {
        "angle_exponent": angle_exponent(config, q),
        "token_exponent": gradient_exponent(config, "token", q),
        "pooled_exponent": pooled,
        "frobenius_exponent": gradient_exponent(config, "frobenius", q),
        "sequence_exponent": pooled,
    }


def predict(cells, settings, sizes):
    config = config_of_cells(cells, sizes.shape)
    q, rho = propagate(1.0, cells["rho0"], sizes.shape.depth, config)
    return exponents(config) | {"q": q.T, "p": (q * rho).T}


def twin(output, **changes):
    """The exponent of a transformer with other words."""

    def formula(cells, settings, sizes):
        return exponents(replace(config_of_cells(cells, sizes.shape), **changes))[output]

    return formula


def at_unit_norm(output):
    """The exponent at q = 1 in place of the stationary norm."""

    def formula(cells, settings, sizes):
        return exponents(config_of_cells(cells, sizes.shape), q=1.0)[output]

    return formula


def other_readout(output):
    """The exponent of another cotangent."""

    def formula(cells, settings, sizes):
        return exponents(config_of_cells(cells, sizes.shape))[output]

    return formula


def decided(cells, settings):
    """Where the exponent is further from zero than its finite-width correction, about 1.5 / d."""
    config = config_of_cells(cells, sizes({**settings, "n": 2}).shape)
    return np.abs(np.asarray(angle_exponent(config))) > 3 / settings["d"]


WIDTHS = (16, 24, 40, 64)
LADDER = {
    "setting": "d",
    "values": WIDTHS,
    "order": -1,
    "replicates": 40,
    "axes": {"alpha": [0.4, 0.8], "sigma_w": [1.5, 3.0]},
    "settings": {"n": 4, "depth": 3, "networks": 32},
}


# One block alone is noisier than the mean of three.
ONE_BLOCK = LADDER | {"values": (12, 16, 24, 40), "settings": LADDER["settings"] | {"networks": 128}}


def order(output, sentence, *others, ladder=LADDER):
    """An order claim in 1/d whose twins are the exponent at q = 1 and those of other cotangents or architectures."""
    twins = {"at q = 1, not q*": at_unit_norm(output)}
    for other in others:
        words = f"the {other.removesuffix('_exponent')} exponent"
        twins |= (
            {words: other_readout(other)} if other != "post" else {"post-norm for pre-norm": twin(output, norm="post")}
        )
    return Order(output, sentence, twins=twins, **ladder)


phase_diagram = Experiment(
    name="phase_diagram",
    title="Lyapunov exponents of random transformers",
    sources=(SOURCE,),
    axes={
        "alpha": Parameter(np.linspace(0.05, 0.95, 11), r"branch strength $\alpha_A=\alpha_M=\alpha$", domain=STRENGTH),
        "sigma_w": Parameter(np.linspace(1.0, 5.0, 11), r"first MLP scale $\sigma_w$", domain=POSITIVE),
    },
    fixed={
        **{name: PARAMETERS[name] for name in ("n", "sigma_A", "sigma_V", "sigma_2")},
        "rho0": Parameter(0.25, r"cosine at the input $\rho_0$", domain=FRACTION),
        "attention_share": Parameter(1.0, r"ratio $\alpha_A/\alpha_M$", domain=POSITIVE),
    },
    settings={
        **settings(),
        "distance": Setting(1e-6, "1 - rho at the input", domain=POSITIVE),
    },
    sizes=sizes,
    theory_sizes=theory_sizes,
    simulate=simulate,
    predict=predict,
    outputs={
        "angle_exponent": Output(r"angle exponent $\lambda_a$ per block"),
        "token_exponent": Output(r"token gradient exponent $\lambda_g^{\mathrm{tok}}$"),
        "pooled_exponent": Output(r"pooled gradient exponent $\lambda_g^{\mathrm{pool}}$"),
        "frobenius_exponent": Output(r"one-block exponent $\lambda_g^{\mathrm{fro}}$"),
        "sequence_exponent": Output(r"exponent of two sequences' angle"),
        "q": Output(r"squared length $q$", dims={"depth": layers}),
        "p": Output(r"overlap $p=\rho q$ of two tokens", dims={"depth": layers}),
    },
    claims=(
        Phase(
            "angle_exponent", "tokens collapse or spread as the theory says", where=decided,
            twins={"the pooled exponent": other_readout("pooled_exponent")},
        ),
        order("angle_exponent", "the angle exponent is exact up to 1/d", "post", "pooled_exponent"),
        order("token_exponent", "the token gradient exponent is exact up to 1/d", "post", "pooled_exponent"),
        order("pooled_exponent", "the pooled gradient exponent is exact up to 1/d", "token_exponent"),
        order(
            "frobenius_exponent", "the one-block exponent of independent cotangents is exact up to 1/d",
            "post", "token_exponent", ladder=ONE_BLOCK,
        ),
        order("sequence_exponent", "two sequences part at the pooled exponent, up to 1/d", "angle_exponent"),
    ),
    presets={
        "smoke": {
            "alpha": np.linspace(0.15, 0.9, 4), "sigma_w": np.linspace(1.0, 5.0, 4), "d": 24, "n": 4, "depth": 3,
            "replicates": 8, "ladders": False,
        },
        "laptop": {"replicates": 20},
        "paper": {
            "together": 64, "alpha": np.linspace(0.025, 0.975, 39), "sigma_w": np.linspace(1.0, 5.0, 41),
            "d": 512, "n": 64,
            "depth": 10, "replicates": 32,
        },
    },
    validate=fits,
    block=256,
)  # fmt: skip
