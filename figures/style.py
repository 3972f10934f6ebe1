"""The one style: sizes of a venue's columns, colours, and how a figure is saved with its provenance."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import xarray as xr
from matplotlib.figure import Figure
from tueplots import figsizes

BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000",
)  # fmt: skip
SIGNED = "RdBu_r"
MAGNITUDE = "cividis"
SMALL = 6
STYLE = Path(__file__).with_name("style.mplstyle")


def width(column: str = "full") -> float:
    """Width in inches of a "half" (one column) or "full" (two columns) figure."""
    sizes = {"half": figsizes.icml2024_half, "full": figsizes.icml2024_full}
    return sizes[column]()["figure.figsize"][0]


@contextmanager
def style() -> Iterator[None]:
    """The project's matplotlib style, and nothing of the user's."""
    with plt.style.context(["default", STYLE]):
        yield


def panels(rows: int, columns: int, height: float, column: str = "full", **options):
    """(figure, axes array) of a venue's width; `height` in inches."""
    return plt.subplots(rows, columns, figsize=(width(column), height), squeeze=False, **options)


def verdict_line(dataset: xr.Dataset) -> str:
    """Sizes, replicates and verdict in one line of small type."""
    settings = json.loads(dataset.attrs["settings"])
    sizes = ", ".join(f"{k} = {settings[k]:g}" for k in ("d", "width", "depth") if k in settings)
    judgements = json.loads(dataset.attrs.get("verdict", "{}")).get("judgements", [])
    counts = {j["outcome"]: sum(k["outcome"] == j["outcome"] for k in judgements) for j in judgements}
    claims = ", ".join(f"{n} {outcome}" for outcome, n in counts.items())
    words = f"{sizes}; {dataset.sizes['replicate']} replicates; preset {dataset.attrs['preset']}"
    return words + (f"; claims: {claims}" if claims else "")


def footer(figure: Figure, dataset: xr.Dataset) -> None:
    """The verdict line below the panels."""
    figure.supxlabel(verdict_line(dataset), fontsize=SMALL, color="0.35", x=0.99, ha="right")


def save(figure: Figure, stem: Path, dataset: xr.Dataset) -> list[str]:
    """Write `stem`.pdf and `stem`.png, each under a temporary name first, with the provenance in their metadata."""
    facts = {key: str(dataset.attrs[key]) for key in ("title", "commit", "preset", "seed", "settings", "command")}
    words = "; ".join(f"{k}: {v}" for k, v in facts.items())
    metadata = {
        "pdf": {"Title": facts["title"], "Subject": words, "CreationDate": None},
        "png": {"Title": facts["title"], "Description": words},
    }
    written = []
    with style():
        for kind, meta in metadata.items():
            path = stem.with_suffix(f".{kind}")
            temporary = path.with_name(f".{path.name}.tmp")
            figure.savefig(temporary, format=kind, metadata=meta)
            os.replace(temporary, path)
            written.append(path.name)
    plt.close(figure)
    return written
