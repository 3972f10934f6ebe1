"""Transformers of infinite width at finite n: the Gram matrix under real softmax attention over random logits."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sims.engine.experiment import NONNEGATIVE, Experiment, Mean, Output, Parameter, Setting, per_cell, whole
from sims.signal_propagation.network import Shape
from sims.signal_propagation.setup import CLOSURE_ERROR, FRACTION, PARAMETERS, SETTINGS, SOURCE, config_of, layers
from theory.gaussian_kernels import gaussian_kernel
from theory.signal_propagation import attention_map, propagate
from theory.signal_propagation.gram import cosines


class Sizes(NamedTuple):
    """What a compilation depends on."""

    shape: Shape
    draws: int


def sizes(settings):
    shape = Shape(int(settings["n"]), 0, settings["depth"], activation=settings["activation"])
    return Sizes(shape, settings["draws"])


def attention(key, C, config):
    r"""C' = a^2 C + alpha^2 sigma_V^2 A C^ A^T, A the softmax of logits with covariance sigma_A^2 C^_ik C^_jl."""
    inside = cosines(C)
    root = jnp.linalg.cholesky(inside)
    A = jax.nn.softmax(config.sigma_A * root @ jax.random.normal(key, C.shape) @ root.T, axis=-1)
    return config.kept_A * C + config.alpha_A**2 * config.sigma_V**2 * A @ inside @ A.T


def mlp(C, config):
    """The kernel of a wide random layer, entry by entry."""
    gain = jnp.full_like(C, config.sigma_w**2)
    images, _ = gaussian_kernel(config.activation, gain, gain * cosines(C))
    return config.kept_M * C + config.alpha_M**2 * config.sigma_2**2 * images


def one(key, cell, settings, sizes):
    shape = sizes.shape
    config = config_of(cell, shape)
    start = jnp.where(jnp.eye(shape.n, dtype=bool), 1.0, cell["rho0"]).astype(jnp.result_type(float))

    def step(C, layer_key):
        between = attention(layer_key, C, config)
        C = mlp(between, config)
        return C, (C, between)

    def path(draw):
        keys = jax.vmap(lambda layer: jax.random.fold_in(draw, layer))(jnp.arange(shape.depth))
        _, (C, between) = jax.lax.scan(step, start, keys)
        return jnp.concatenate([start[None], C]), between[0]

    def overlaps(C):
        q = jnp.trace(C, axis1=-2, axis2=-1).mean(0) / shape.n
        return q, (C.sum((-2, -1)).mean(0) - shape.n * q) / (shape.n * (shape.n - 1))

    C, first = jax.lax.map(path, jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(sizes.draws)))
    return dict(zip(("q", "p", "q_attention", "p_attention"), (*overlaps(C), *overlaps(first)), strict=True))


def moments(cells, sizes, closure):
    config = config_of(cells, sizes.shape, closure)
    q, rho = propagate(1.0, cells["rho0"], sizes.shape.depth, config)
    first = attention_map(1.0, cells["rho0"], config)
    return {"q": q.T, "p": (q * rho).T, "q_attention": first[0], "p_attention": first[1]}


def predict(cells, settings, sizes):
    return moments(cells, sizes, "exact")


def annealed(output):
    def formula(cells, settings, sizes):
        return moments(cells, sizes, "annealed")[output]

    return formula


def claim(output, sentence, **words):
    return Mean(output, sentence, rounding=1e5, twins={"the annealed softmax closure": annealed(output)}, **words)


gram_ensemble = Experiment(
    name="gram_ensemble",
    title="Infinitely wide random transformers at finite n",
    sources=(SOURCE,),
    axes={
        "n": Parameter([8, 32], "tokens $n$", scale="log", domain=whole(2), role="static"),
        "sigma_A": Parameter([0.5, 1.5, 3.0], r"logit scale $\sigma_A$", domain=NONNEGATIVE),
    },
    fixed={
        **{name: PARAMETERS[name] for name in ("alpha_A", "alpha_M", "sigma_V", "sigma_w", "sigma_2")},
        "rho0": Parameter(0.25, r"cosine at the input $\rho_0$", domain=FRACTION),
    },
    settings={
        "depth": Setting(8, "number of blocks", domain=whole(1)),
        "draws": Setting(40, "draws of the logits that a replicate averages", domain=whole(1)),
        "activation": Setting("erf", "nonlinearity of the MLP", choices=SETTINGS["activation"].choices),
    },
    sizes=sizes,
    simulate=per_cell(one),
    predict=predict,
    outputs={
        "q": Output(r"squared length $q$", dims={"depth": layers}),
        "p": Output(r"overlap $p=\rho q$ of two tokens", dims={"depth": layers}),
        "q_attention": Output("squared length after the first attention sublayer"),
        "p_attention": Output("overlap after the first attention sublayer"),
    },
    claims=(
        claim("q_attention", "one attention sublayer is exact at infinite width: squared length"),
        claim("p_attention", "one attention sublayer is exact at infinite width: overlap"),
        claim("q", f"every block is right to {CLOSURE_ERROR:g}: squared length", floor=CLOSURE_ERROR),
        claim("p", f"every block is right to {CLOSURE_ERROR:g}: overlap", floor=CLOSURE_ERROR),
    ),
    presets={
        "smoke": {"n": [4, 8], "sigma_A": [1.0, 3.0], "depth": 3, "draws": 10, "replicates": 20},
        "laptop": {"replicates": 20},
        "paper": {"n": [8, 32, 128], "draws": 1000, "replicates": 100},
    },
)  # fmt: skip
