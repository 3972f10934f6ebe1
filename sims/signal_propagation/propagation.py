"""Geometry and gradients block by block, from the first layer on: real random transformers of every architecture."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp

from sims.engine.experiment import POSITIVE, Experiment, Mean, Order, Output, Parameter, cell_by_cell
from sims.signal_propagation.network import (
    forward,
    gradient_moments,
    layer_keys,
    mean_moments,
    mean_over_networks,
    simplex,
)
from sims.signal_propagation.setup import (
    CLOSURE_ERROR,
    FRACTION,
    PARAMETERS,
    SOURCE,
    config_of,
    fits,
    layers,
    settings,
    sizes,
    theory_sizes,
)
from theory import signal_propagation as theory

KINDS = ("token", "pooled")


def one_network(key, config, q0, rho0, shape):
    k_weights, k_top = jax.random.split(key)
    keys, n = layer_keys(k_weights, shape.depth), shape.n
    path = forward(keys, jax.vmap(lambda q, rho: simplex(q, rho, n, shape.d))(q0, rho0), config, shape)
    stream = mean_moments(path)
    out = {"q": stream.square, "p": stream.square - stream.difference}
    for kind, m in gradient_moments(k_top, keys, path, config, shape, KINDS).items():
        out |= {f"u_{kind}": m.square, f"v_{kind}": (n - 1) * (m.square - m.difference)}
    return {name: x.T for name, x in out.items()}


def simulate(key, cells, settings, sizes):
    shape = sizes.shape
    config = config_of(cells, shape)
    starts = (jnp.broadcast_to(cells[name], config.n.shape) for name in ("q0", "rho0"))

    def some(cells):
        return mean_over_networks(key, sizes.networks, lambda k: one_network(k, *cells, shape))

    return cell_by_cell(some, (config, *starts), sizes.together)


def moments(config, cells, depth):
    """The closed forms in the shape of the simulation: (cells, depth + 1)."""
    start = cells["q0"], cells["rho0"], depth, config
    q, rho = theory.propagate(*start)
    out = {"q": q, "p": q * rho}
    for kind, overlap in zip(KINDS, (0.0, 1.0), strict=True):
        u, v = theory.backward_covariance(*start, 1.0, overlap)
        out |= {f"u_{kind}": u, f"v_{kind}": (config.n - 1)[None] * v}
    return {name: x.T for name, x in out.items()}


def predict(cells, settings, sizes):
    return moments(config_of(cells, sizes.shape), cells, sizes.shape.depth)


def of_config(output, **changes):
    """The same of a transformer with other words: another norm, another closure."""

    def formula(cells, settings, sizes):
        return moments(replace(config_of(cells, sizes.shape), **changes), cells, sizes.shape.depth)[output]

    return formula


def other(output):
    """Another output's closed form."""

    def formula(cells, settings, sizes):
        return predict(cells, settings, sizes)[output]

    return formula


def single_mode(cells, settings, sizes):
    """The closure of the literature, blind to other tokens and to the derivative of the softmax."""
    config = config_of(cells, sizes.shape, closure="annealed")
    return theory.single_mode_gradient(cells["q0"], cells["rho0"], sizes.shape.depth, config).T


def equal_slopes(output):
    """The MLP's slope at equal tokens in place of that at their angle."""

    def formula(cells, settings, sizes):
        config = config_of(cells, sizes.shape)
        _, chi = theory.mlp_moments(config)
        gain = config.kept_M + config.alpha_M**2 * chi / cells["q0"]
        return predict(cells, settings, sizes)[output].at[:, 0].set((config.n - 1) * gain)

    return formula


# One sublayer alone is exact at infinite width. Strong branches and small widths, where the corrections stand above
# the noise.
LADDER = {"setting": "d", "values": (8, 12, 16, 24), "order": -1, "replicates": 40}
ONE_BLOCK = {"depth": 1, "networks": 400}


def attention_alone(n=6, **words):
    return LADDER | {
        "axes": {"n": n, "sigma_A": [1.0, 2.0], "sigma_w": [2.0]},
        "settings": ONE_BLOCK | {"alpha_A": 0.8, "alpha_M": 0.0} | words,
    }


def mlp_alone(**words):
    return LADDER | {
        "axes": {"n": [6], "sigma_A": [1.0], "sigma_w": [2.0, 4.0]},
        "settings": ONE_BLOCK | {"alpha_A": 0.0, "alpha_M": 0.8} | words,
    }


propagation = Experiment(
    name="propagation",
    title="Tokens and gradients block by block in random transformers",
    sources=(SOURCE,),
    axes={
        "sigma_A": Parameter([0.5, 1.5, 3.0], r"logit scale $\sigma_A$", domain=POSITIVE),
        "sigma_w": Parameter([1.0, 2.3, 4.0], r"first MLP scale $\sigma_w$", domain=POSITIVE),
    },
    fixed={
        **{name: PARAMETERS[name] for name in ("n", "alpha_A", "alpha_M", "sigma_V", "sigma_2")},
        "q0": Parameter(1.0, r"squared length at the input $q_0$", domain=POSITIVE),
        "rho0": Parameter(0.25, r"cosine at the input $\rho_0$", domain=FRACTION),
    },
    settings=settings(d=128, depth=8, networks=4),
    sizes=sizes,
    theory_sizes=theory_sizes,
    simulate=simulate,
    predict=predict,
    outputs={
        "q": Output(r"squared length $q$", dims={"depth": layers}),
        "p": Output(r"overlap $p=\rho q$ of two tokens", dims={"depth": layers}),
        "u_token": Output(r"$u$, independent cotangents", dims={"depth": layers}),
        "v_token": Output(r"$(n-1)v$, independent cotangents", dims={"depth": layers}),
        "u_pooled": Output(r"$u$, shared cotangent", dims={"depth": layers}),
        "v_pooled": Output(r"$(n-1)v$, shared cotangent", dims={"depth": layers}),
    },
    claims=(
        Mean(
            "p", f"the overlap of two tokens is right to {CLOSURE_ERROR:g} in every block", floor=CLOSURE_ERROR,
            twins={
                "the annealed softmax closure": of_config("p", closure="annealed"),
                "post-norm for pre-norm": of_config("p", norm="post"),
            },
        ),
        Order(
            "u_token", "the squared gradient below attention is exact up to 1/d",
            twins={
                "the single-mode closure": single_mode,
                "the pooled cotangent": other("u_pooled"),
                "the annealed softmax closure": of_config("u_token", closure="annealed"),
            }, **attention_alone(n=[4, 8]),
        ),
        Order(
            "v_pooled", "the overlap of two tokens' gradients is exact up to 1/d",
            twins={"the token cotangent": other("v_token")},
            **attention_alone(n=[4, 8]),
        ),
        Order(
            "v_pooled", "the gradients' overlap is the same with two heads",
            twins={"the token cotangent": other("v_token")},
            **attention_alone(heads=2),
        ),
        Order(
            "v_pooled", "the gradients' overlap without a norm is exact up to 1/d",
            twins={"pre-norm for none": of_config("v_pooled", norm="pre")},
            **attention_alone(norm="none", q0=1.5),
        ),
        Order(
            "v_pooled", "the gradients' overlap below an MLP is exact up to 1/d",
            twins={"slopes at equal tokens": equal_slopes("v_pooled")},
            **mlp_alone(),
        ),
        Order(
            "v_pooled", "the gradients' overlap below a post-norm MLP is exact up to 1/d",
            twins={"pre-norm for post-norm": of_config("v_pooled", norm="pre")},
            **mlp_alone(norm="post"),
        ),
    ),
    presets={
        "smoke": {
            "sigma_A": [1.0, 3.0], "sigma_w": [1.0, 4.0], "d": 16, "n": 4, "depth": 3, "networks": 1,
            "replicates": 6, "ladders": False,
        },
        "laptop": {"n": 16, "replicates": 20},
        "paper": {"together": 16, "d": 1024, "n": 64, "depth": 64, "replicates": 32},
    },
    validate=fits,
    block=64,
)  # fmt: skip
