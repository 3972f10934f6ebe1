"""Which figures a dataset gets, and where they go.

`figures/<topic>.py` says in `FIGURES` what it draws: {experiment: {file stem: function of the dataset}}; the first is
called `figure`. An experiment without an entry gets the default figures. A function that finds nothing to draw in a
dataset (no ladder, a single noise level) returns None, and its figure is left out.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path

import xarray as xr
from matplotlib.figure import Figure

from figures.convergence import convergence
from figures.default import overview
from figures.style import save

DEFAULT: Mapping[str, Callable[[xr.Dataset], Figure | None]] = {"figure": overview, "convergence": convergence}


def figures_of(topic: str, experiment: str) -> Mapping[str, Callable[[xr.Dataset], Figure | None]]:
    """The figures of an experiment: file stem -> function of its dataset."""
    if importlib.util.find_spec(f"figures.{topic}") is None:
        return DEFAULT
    return importlib.import_module(f"figures.{topic}").FIGURES.get(experiment, DEFAULT)


def draw(topic: str, dataset: xr.Dataset, folder: Path) -> list[str]:
    """Draw every figure of a dataset as PDF and PNG; returns the file names."""
    written = []
    for stem, function in figures_of(topic, dataset.attrs["experiment"]).items():
        figure = function(dataset)
        if figure is not None:
            written += save(figure, folder / stem, dataset)
    return written
