"""The transformer of a dataset, as the closed forms take it."""

from __future__ import annotations

import json

import jax.numpy as jnp
import numpy as np
import xarray as xr

from theory.signal_propagation import TransformerConfig
from theory.signal_propagation.config import NUMBERS

CHAOS, ORDER = "chaos", "order"


def transformer(dataset: xr.Dataset, **numbers) -> TransformerConfig:
    """Fixed numbers and words of the dataset; `numbers` are those of an axis, or derived from it."""
    settings = json.loads(dataset.attrs["settings"])
    known = {name: float(dataset[name]) for name in NUMBERS if name in dataset.coords and dataset[name].ndim == 0}
    known |= {"n": float(settings["n"])} if "n" in settings else {}
    words = {name: settings[name] for name in ("norm", "residual", "activation") if name in settings}
    return TransformerConfig(**(known | {k: jnp.asarray(v, float) for k, v in numbers.items()}), **words)


def spread(values, most: int = 3) -> list:
    """At most so many of the values, evenly chosen, the first and the last among them."""
    values = np.asarray(values)
    return list(values[np.unique(np.linspace(0, len(values) - 1, min(most, len(values))).round().astype(int))])
