"""Tokens of unequal lengths and angles, with and without a causal mask: the full Gram matrix of real networks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from sims.engine.experiment import (
    NONNEGATIVE,
    POSITIVE,
    Domain,
    Experiment,
    Order,
    Output,
    Parameter,
    Setting,
    cell_by_cell,
    whole,
)
from sims.signal_propagation.network import forward, layer_keys, mean_over_networks
from sims.signal_propagation.setup import PARAMETERS, SOURCE, Sizes, config_of, settings, theory_sizes
from sims.signal_propagation.setup import fits as fit_together
from sims.signal_propagation.setup import sizes as plain_sizes
from theory.signal_propagation import propagate_gram

FLAG = Domain("0 or 1", lambda x: (x == 0) | (x == 1))


def sizes(settings) -> Sizes:
    plain = plain_sizes(settings)
    return plain._replace(shape=plain.shape._replace(causal=bool(settings["mask"])))


def first_gram(n: int, memory):
    """Tokens whose squared lengths spread over a decade, and whose cosines fall off with their distance."""
    place = jnp.arange(n, dtype=float)
    lengths = 10.0 ** (place / (n - 1) - 0.5)
    return jnp.sqrt(lengths[:, None] * lengths[None, :]) * jnp.exp(-jnp.abs(place[:, None] - place[None, :]) / memory)


def simulate(key, cells, settings, sizes):
    shape = sizes.shape

    def tokens(memory):
        root = jnp.linalg.cholesky(first_gram(shape.n, memory))
        return shape.d**0.5 * jnp.pad(root, ((0, 0), (0, shape.d - shape.n)))

    start = tokens(cells["memory"])[None]

    def some(config):
        def gram(key):
            X = forward(layer_keys(key, shape.depth), start, config, shape)[-1]
            return jnp.einsum("csnd,csmd->cnm", X, X) / (X.shape[1] * shape.d)

        return mean_over_networks(key, sizes.networks, gram)

    return {"gram": cell_by_cell(some, config_of(cells, shape), sizes.together)}


def of_mask(causal: bool | None = None, **changes):
    """The Gram map, or with another mask or norm that of the neighbouring architecture."""

    def formula(cells, settings, sizes):
        shape = sizes.shape._replace(**changes)
        shape = shape if causal is None else shape._replace(causal=causal ^ shape.causal)
        config = config_of(cells, shape)
        memory = jnp.broadcast_to(cells["memory"], config.n.shape)

        def one(config, memory):
            return propagate_gram(first_gram(shape.n, memory), shape.depth, config)[-1]

        return jax.vmap(one)(config, memory)

    return formula


def predict(cells, settings, sizes):
    return {"gram": of_mask()(cells, settings, sizes)}


def tokens(settings):
    return np.arange(1, int(settings["n"]) + 1)


gram_map = Experiment(
    name="gram_map",
    title="Gram matrices of unequal tokens, with and without a causal mask",
    sources=(SOURCE,),
    axes={
        "mask": Parameter([0, 1], "causal mask", domain=FLAG, role="static"),
        "sigma_w": Parameter([1.0, 2.0, 4.0], r"first MLP scale $\sigma_w$", domain=POSITIVE),
    },
    fixed={
        "sigma_A": Parameter(0.0, PARAMETERS["sigma_A"].label, domain=NONNEGATIVE),  # where the map is exact
        **{name: PARAMETERS[name] for name in ("alpha_A", "alpha_M", "sigma_V", "sigma_2")},
        "memory": Parameter(3.0, "range of the cosines in tokens", domain=POSITIVE),
    },
    settings={**settings(d=64, depth=3, networks=8), "n": Setting(6, "tokens", domain=whole(2))},
    sizes=sizes,
    theory_sizes=theory_sizes,
    simulate=simulate,
    predict=predict,
    outputs={"gram": Output(r"$X_i\cdot X_k/d$ after the last block", dims={"token": tokens, "other_token": tokens})},
    claims=(
        Order(
            "gram", "the Gram matrix is exact up to 1/d", setting="d", values=(8, 12, 16, 24), order=-1,
            replicates=40, settings={"n": 4, "depth": 3, "networks": 2560, "alpha_A": 0.9, "alpha_M": 0.9},
            axes={"sigma_w": [4.0]},
            twins={"the other mask": of_mask(causal=True), "post-norm for pre-norm": of_mask(norm="post")},
        ),
    ),
    presets={
        "smoke": {"sigma_w": [2.0], "d": 16, "n": 4, "depth": 2, "networks": 2, "replicates": 6, "ladders": False},
        "laptop": {"n": 6, "replicates": 20},
        "paper": {"together": 16, "n": 64, "d": 1024, "depth": 64, "replicates": 32},
    },
    validate=fit_together,
)  # fmt: skip
