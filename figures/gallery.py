"""Which figures a dataset gets, and where they go.

`figures/<topic>.py` says in `FIGURES` what it draws: {experiment: {file stem: function of the dataset}}; the first is
called `figure`. An experiment without an entry gets the default figure.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path

import xarray as xr

from figures.default import overview
from figures.style import save


def draw(topic: str, dataset: xr.Dataset, folder: Path) -> list[str]:
    """Draw every figure of a dataset as PDF and PNG; returns the file names."""
    known = {}
    if importlib.util.find_spec(f"figures.{topic}"):
        known = importlib.import_module(f"figures.{topic}").FIGURES
    written = []
    for stem, function in known.get(dataset.attrs["experiment"], {"figure": overview}).items():
        written += save(function(dataset), folder / stem, dataset)
    return written
