"""What the experiments of this topic share: the transformer's parameters, the network's settings, the source."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sims.engine.experiment import NONNEGATIVE, POSITIVE, Domain, Parameter, Setting, whole
from sims.signal_propagation.network import Shape
from theory.gaussian_kernels import FUNCTIONS
from theory.signal_propagation import TransformerConfig
from theory.signal_propagation.config import CHOICES, NUMBERS

SOURCE = """@article{cowsik2024geometric,
  title = {Geometric Dynamics of Signal Propagation Predict Trainability of Transformers},
  author = {Cowsik, Aditya and Nebabu, Tamra and Qi, Xiao-Liang and Ganguli, Surya},
  journal = {arXiv:2403.02579},
  year = {2024}
}"""

STRENGTH = Domain("above 0 and below 1", lambda x: (x > 0) & (x < 1))
FRACTION = Domain("from 0 to 1", lambda x: (x >= 0) & (x <= 1))

PARAMETERS = {
    "n": Parameter(8, "tokens $n$", domain=whole(2), role="static"),
    "alpha_A": Parameter(0.5, r"attention strength $\alpha_A$", domain=NONNEGATIVE),
    "alpha_M": Parameter(0.5, r"MLP strength $\alpha_M$", domain=NONNEGATIVE),
    "sigma_A": Parameter(1.0, r"logit scale $\sigma_A$", domain=NONNEGATIVE),
    "sigma_V": Parameter(1.0, r"value scale $\sigma_V$", domain=NONNEGATIVE),
    "sigma_w": Parameter(2.0, r"first MLP scale $\sigma_w$", domain=POSITIVE),
    "sigma_2": Parameter(1.0, r"second MLP scale $\sigma_2$", domain=NONNEGATIVE),
}

SETTINGS = {
    "d": Setting(96, "width of the stream", domain=whole(2)),
    "depth": Setting(6, "number of blocks", domain=whole(1)),
    "heads": Setting(1, "attention heads", domain=whole(1)),
    "mlp_width": Setting(0, "hidden units of the MLP, 0 for d", domain=whole(0)),
    "networks": Setting(1, "draws of the weights that a replicate averages, each with four signs", domain=whole(1)),
    "together": Setting(1, "cells simulated side by side: one on a CPU, many on a GPU", domain=whole(1)),
    "norm": Setting("pre", "where the norm stands", choices=CHOICES["norm"]),
    "residual": Setting("normalized", "a = sqrt(1 - alpha^2), or 1", choices=CHOICES["residual"]),
    "activation": Setting("tanh", "nonlinearity of the MLP", choices=tuple(FUNCTIONS)),
}


# How far the closure is off in q and p after an MLP or several blocks at infinite width, because the Gram matrix
# spreads over attention draws.
CLOSURE_ERROR = 3e-3


class Sizes(NamedTuple):
    """What a compilation depends on: the network, over how many a replicate averages, cells side by side."""

    shape: Shape
    networks: int
    together: int


def sizes(settings) -> Sizes:
    named = {name: settings[name] for name in Shape._fields if name in settings}
    return Sizes(Shape(**{**named, "n": int(settings["n"])}), settings["networks"], settings["together"])


def theory_sizes(sizes: Sizes) -> Sizes:
    """The closed forms know neither width nor heads, nor how many networks are averaged."""
    return Sizes(sizes.shape._replace(d=0, heads=0, mlp_width=0), 0, 0)


def layers(settings):
    """The blocks after which something is measured; 0 is the input."""
    return np.arange(settings["depth"] + 1)


def settings(**values):
    """The network's settings, those named with another default, those named None left out."""
    out = {name: s for name, s in SETTINGS.items() if name not in values}
    return out | {
        name: Setting(value, SETTINGS[name].words, domain=SETTINGS[name].domain, choices=SETTINGS[name].choices)
        for name, value in values.items()
        if value is not None
    }


def config_of(cells, shape: Shape, closure: str = "exact", **fields) -> TransformerConfig:
    """The transformer of every cell, its fields broadcast against each other."""
    numbers = {name: cells[name] for name in NUMBERS if name in cells} | fields
    config = TransformerConfig(
        **{**numbers, "n": shape.n},
        activation=shape.activation,
        norm=shape.norm,
        residual=shape.residual,
        closure=closure,
        causal=shape.causal,
    )
    return config.broadcast()[0]


def fits(values, settings):
    """One sentence for sizes that do not go together."""
    d, n, heads = settings["d"], int(np.max(values["n"] if "n" in values else settings["n"])), settings["heads"]
    if d < n:
        raise ValueError(f"`d` must be at least n = {n}, so that the tokens can form a simplex, but got {d}.")
    if d % heads:
        raise ValueError(f"`heads` must divide d = {d}, but got {heads}.")
    if settings["residual"] == "normalized":
        for name in ("alpha_A", "alpha_M"):
            if name in values and max(values[name]) > 1:
                raise ValueError(
                    f"`{name}` must be at most 1 with the normalized residual, but got {max(values[name]):g}."
                )
