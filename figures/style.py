"""The one style: sizes of a venue's columns, colours, furniture of a panel, and how a figure is saved."""

from __future__ import annotations

import json
import math
import os
import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from tueplots import figsizes

BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000",
)  # fmt: skip
GREY = "0.45"
COLOURS = (BLUE, GREEN, VERMILION)
DASHED, DOTTED = (0, (3.5, 1.8)), (0, (1, 1.2))
SIGNED = "RdBu_r"
MAGNITUDE = "cividis"
SMALL = 6
HATCH = "/////"
PLURAL = {"agrees": "agree", "disagrees": "disagree"}
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


def letter(axes) -> None:
    """(a), (b), (c), ... at the top left corner of the panels."""
    for k, axis in enumerate(axes):
        axis.set_title(f"({chr(ord('a') + k)})", loc="left", fontweight="bold")


def shared_x_label(row, words: str) -> None:
    """One x label below the middle of a row of panels."""
    for axis in row:
        axis.set_xlabel("")
    row[(len(row) - 1) // 2].set_xlabel(words, x=0.5 if len(row) % 2 else 1.06)


def label_of(array: xr.DataArray, wrap: int | None = None) -> str:
    """The label of a variable or coordinate, with its unit if it has one."""
    unit = array.attrs.get("units", "1")
    words = array.attrs.get("label", str(array.name).replace("_", " "))
    words = words if unit in ("1", "") else f"{words} ({unit})"
    if wrap is None:
        return words
    held = re.sub(r"\$[^$]*\$", lambda formula: formula[0].replace(" ", "\0"), words)
    return "\n".join(textwrap.wrap(held, wrap, break_long_words=False, break_on_hyphens=False)).replace("\0", " ")


def number(value: float) -> str:
    """A number for a label: short, with a power of ten in mathtext where one is needed."""
    if value == 0 or 1e-4 <= abs(value) < 1e5:
        return f"{value:.3g}".replace("-", "−") if abs(value) < 1e3 else f"{value:.0f}".replace("-", "−")
    mantissa, exponent = f"{value:.2e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".")
    power = f"10^{{{int(exponent)}}}"
    return f"${power}$" if mantissa == "1" else rf"${mantissa}\times {power}$"


def angle(value: float) -> str:
    """An angle for a label: a fraction of pi if it is a simple one."""
    share = Fraction(value / math.pi).limit_denominator(16)
    if abs(float(share) * math.pi - value) > 1e-6:
        return f"{value:.2f}"
    top = {0: "0", 1: r"\pi"}.get(share.numerator, rf"{share.numerator}\pi")
    return f"${top}$" if share.denominator == 1 or not share.numerator else f"${top}/{share.denominator}$"


def angle_ticks(axis) -> None:
    """Ticks of an x axis at multiples of pi / 8, or of pi / 4 if it runs beyond pi / 2."""
    low, high = axis.get_xlim()
    step = math.pi / 8 if high < 0.6 * math.pi else math.pi / 4
    ticks = step * np.arange(math.ceil(low / step - 0.05), math.floor(high / step + 0.05) + 1)
    if len(ticks) > 1:
        axis.set_xticks(ticks, [angle(tick) for tick in ticks])
        axis.set_xlim(low, high)


def hatched(axis, x_edges: np.ndarray, y_edges: np.ndarray, where: np.ndarray, **options) -> None:
    """Hatch the cells (rows along y) in which `where` holds."""
    rows, columns = np.nonzero(where)
    x, y = np.asarray(x_edges), np.asarray(y_edges)
    around = ((0, 0), (1, 0), (1, 1), (0, 1))
    corners = [[(x[j + right], y[i + up]) for right, up in around] for i, j in zip(rows, columns, strict=True)]
    if corners:
        look = {"facecolor": "none", "edgecolor": "0.35", "linewidth": 0, "hatch": HATCH, "zorder": 2} | options
        axis.add_collection(PolyCollection(corners, **look), autolim=False)


def points(axis, x, means, half, color, label: str | None = None, **options):
    """Simulation as markers with 95 % bars; a mean beyond the y axis becomes a small triangle on the panel's edge.

    Call it once the limits of the y axis stand.
    """
    x, means, half = (np.asarray(v, float) for v in (x, means, half))
    low, high = sorted(axis.get_ylim())
    inside = (means >= low) & (means <= high)
    look = {"fmt": "o", "color": color, "label": label, "zorder": 3} | options
    drawn = axis.errorbar(x, means, yerr=np.where(inside, half, np.nan), **look)
    for beyond, at, marker in ((means > high, 0.985, "^"), (means < low, 0.015, "v")):
        if beyond.any():
            axis.plot(
                x[beyond], np.full(beyond.sum(), at), marker, ms=2.6, mew=0.6, mfc="white", color=color,
                transform=axis.get_xaxis_transform(), clip_on=False, zorder=4,
            )  # fmt: skip
    return drawn


def legend_above(axis, handles=None, labels=None, **options):
    """A legend in one row above the panel, where it covers no data."""
    if handles is None:
        handles, labels = axis.get_legend_handles_labels()
    handles = [handle[0] if hasattr(handle, "has_yerr") else handle for handle in handles]
    look = {
        "loc": "lower right", "bbox_to_anchor": (1.0, 0.99), "ncols": len(handles), "handlelength": 0.9,
        "handletextpad": 0.35, "columnspacing": 0.8, "borderaxespad": 0.2, "borderpad": 0.1,
    }  # fmt: skip
    return axis.legend(handles, labels, **(look | {k: v for k, v in options.items() if v is not None}))


def theory_and_simulation(axis, theory: str = "theory", simulation: str = "simulation", **options) -> None:
    """The legend that every comparison needs: a line is theory, a marker is simulation."""
    line = Line2D([], [], color=GREY)
    marker = Line2D([], [], color=GREY, marker="o", linestyle="none")
    axis.legend([line, marker], [theory, simulation], handlelength=1.4, **options)


def verdict_of(dataset: xr.Dataset) -> list[dict]:
    """The judgements that are stored with a dataset; none if it was not judged."""
    return json.loads(dataset.attrs.get("verdict", "{}")).get("judgements", [])


def verdict_line(dataset: xr.Dataset) -> str:
    """Sizes, replicates and verdict in one line of small type."""
    settings = json.loads(dataset.attrs["settings"])
    sizes = ", ".join(f"{k} = {settings[k]:g}" for k in ("d", "width", "depth") if k in settings)
    judgements = verdict_of(dataset)
    counts = {j["outcome"]: sum(k["outcome"] == j["outcome"] for k in judgements) for j in judgements}
    replicates = dataset.sizes["replicate"]
    words = [sizes, f"{replicates} replicate{'s' * (replicates != 1)}", f"preset {dataset.attrs['preset']}"]
    if counts:
        words.append("claims: " + ", ".join(f"{n} {PLURAL.get(outcome, outcome)}" for outcome, n in counts.items()))
    return "; ".join(word for word in words if word)


def footer(figure: Figure, dataset: xr.Dataset, note: str = "") -> None:
    """The verdict line in the lower right corner, after a note if there is one; the panels make room for it."""
    words = "; ".join(part for part in (note, verdict_line(dataset)) if part)
    lines = textwrap.wrap(words, int(figure.get_figwidth() * 22))
    figure.text(
        0.995, 0.005, "\n".join(lines), fontsize=SMALL, color="0.35", ha="right", va="bottom", linespacing=1.15
    )  # fmt: skip
    room = (len(lines) * 1.2 * SMALL + 4) / 72 / figure.get_figheight()
    figure.get_layout_engine().set(rect=(0, room, 1, 1 - room))


def save(figure: Figure, stem: Path, dataset: xr.Dataset) -> list[str]:
    """Write `stem`.pdf and `stem`.png, each under a temporary name first, with the provenance in their metadata."""
    facts = {key: str(dataset.attrs[key]) for key in ("title", "commit", "preset", "seed", "settings", "command")}
    words = "; ".join(f"{k}: {v}" for k, v in facts.items())
    metadata = {
        "pdf": {"Title": facts["title"], "Subject": words, "CreationDate": None},
        "png": {"Title": facts["title"], "Description": words},
    }
    written = []
    try:
        with style():
            for kind, meta in metadata.items():
                path = stem.with_suffix(f".{kind}")
                temporary = path.with_name(f".{path.name}.tmp")
                try:
                    figure.savefig(temporary, format=kind, metadata=meta)
                    os.replace(temporary, path)
                finally:
                    temporary.unlink(missing_ok=True)
                written.append(path.name)
    finally:
        plt.close(figure)
    return written
