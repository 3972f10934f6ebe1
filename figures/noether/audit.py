"""The audit of a model: which tensors move in which symmetry, its evidence, and how its charges kept to their law."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure

from figures.style import BLUE, GREY, SIGNED, SMALL, VERMILION, letter, style, width

LEAST = 1e-17
COLUMNS = (("gradient", "o", BLUE), ("hessian", "s", GREY), ("finite", "^", VERMILION))


def audit(report: Mapping) -> Figure:
    """Rows are symmetries: coefficients of the tensors; residuals and singular-value gap; deviation from the law.

    Args:
        report: What `SymmetryReport.to_dict` gives.
    """
    families = [f for f in report["families"] if f["kind"] != "flat"]
    names = list(dict.fromkeys(name for f in families for name in f["parts"]))
    rows = np.arange(len(families))
    height = max(0.19 * len(families) + 1.7, 2.4)
    with style():
        figure, axes = plt.subplots(
            1,
            3,
            figsize=(width("full"), height),
            sharey=True,
            gridspec_kw={"width_ratios": [2.1, 1.3, 1]},
            squeeze=False,
        )
        wiring, evidence, laws = axes[0]
        table = np.full((len(families), max(len(names), 1)), np.nan)
        for i, family in enumerate(families):
            for name, coefficient in family["parts"].items():
                table[i, names.index(name)] = coefficient
        wiring.pcolormesh(
            np.arange(table.shape[1] + 1) - 0.5, np.arange(len(families) + 1) - 0.5, np.ma.masked_invalid(table),
            cmap=SIGNED, norm=BoundaryNorm([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5], 256), edgecolors="0.9", linewidth=0.3,
        )  # fmt: skip
        wiring.set_xticks(range(len(names)), [_short(n) for n in names], rotation=90, fontsize=SMALL - 1.5)
        wiring.set_yticks(rows, [f"{f['kind']}, {f['status']}" for f in families], fontsize=SMALL - 0.5)
        wiring.set_title("tensors: red +, blue −", fontsize=SMALL + 0.5, loc="right")

        for name, marker, colour in COLUMNS:
            values = [max(f["evidence"].get(name) or LEAST, LEAST) for f in families]
            evidence.plot(values, rows, marker, ms=3, color=colour, label=name if name != "hessian" else "Hessian")
        gaps = [(f["evidence"].get("singular_value"), f["evidence"].get("next_singular_value")) for f in families]
        for row, (low, high) in zip(rows, gaps, strict=True):
            if low is not None and high is not None:
                evidence.plot([max(low, LEAST), high], [row, row], color="0.75", linewidth=1, zorder=0)
        evidence.plot([], [], color="0.75", label="gap")
        evidence.set_xlabel("residual, over a random direction's")
        by_name = {row["family"]: row for row in report["charges"]}
        for key, marker, colour, words in (("predicted", "o", BLUE, "law"), ("gap", "s", GREY, "budget")):
            found = [(by_name[f["name"]][key], r) for f, r in zip(families, rows, strict=True) if f["name"] in by_name]
            found = [(max(x, LEAST), r) for x, r in found if x is not None]
            laws.plot([x for x, _ in found], [r for _, r in found], marker, ms=3, color=colour, label=words)
        laws.set_xlabel(f"off after {report['steps']} steps")
        for axis in (evidence, laws):
            axis.set_xscale("log")
            axis.set_xlim(LEAST / 2, 3)
            axis.set_xticks([1e-16, 1e-12, 1e-8, 1e-4, 1])
            axis.legend(
                fontsize=SMALL, loc="lower right", bbox_to_anchor=(1, 0.99), ncols=2, handlelength=0.8,
                columnspacing=0.7, handletextpad=0.3, borderaxespad=0.2,
            )  # fmt: skip
        laws.axvline(report["tolerance"], color="0.75", linewidth=0.8)
        wiring.set_ylim(len(families) - 0.5, -0.5)
        letter([wiring])
        for axis, sign in ((evidence, "(b)"), (laws, "(c)")):
            axis.set_title(sign, loc="left", fontweight="bold")
    return figure


def _short(name: str) -> str:
    return name.removeprefix("params/")


def save_figure(figure: Figure, folder: Path) -> Sequence[str]:
    """Write figure.pdf and figure.png, each under a temporary name first."""
    written = []
    with style():
        for kind in ("pdf", "png"):
            path, temporary = folder / f"figure.{kind}", folder / f".figure.{kind}.tmp"
            figure.savefig(temporary, format=kind)
            os.replace(temporary, path)
            written.append(path.name)
    plt.close(figure)
    return written
