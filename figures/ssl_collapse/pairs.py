"""The strength of a mode under rising augmentation, by which pairs of InfoNCE are augmented."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from figures.statistics import bars, edges, first_of_the_rest, mean
from figures.style import BLUE, GREEN, SMALL, VERMILION, footer, number, panels, points, style
from theory.ssl_collapse import infonce_variance

DENSE = 400
LOOKS = (
    ("augmented", "augmented negatives", BLUE, None),
    ("clean_negatives", "clean negatives", GREEN, 2.0),
    ("clean", "clean anchors and negatives", VERMILION, 1.0),
)


def pairs(dataset: xr.Dataset) -> Figure | None:
    """Lines: the exact minimum; markers: SGD on minibatches; below: augmentations beyond which the mode collapses."""
    dataset, words = first_of_the_rest(dataset, "noise")
    if dataset["noise"].ndim == 0:
        return None
    c = dataset.sortby("noise")["noise"].values
    ends = edges(c, logarithmic=True)[[0, -1]]
    dense = np.geomspace(*ends, DENSE)
    with style():
        figure, axes = panels(1, 1, 2.6, "half")
        axis = axes[0, 0]
        axis.set_xscale("log")
        axis.set_ylim(-0.06, 1.08 * float(infonce_variance(1.0, ends[0], pairs="clean_negatives")))
        for k, (name, words_of, colour, dies) in enumerate(LOOKS):
            axis.plot(dense, np.asarray(infonce_variance(1.0, dense, pairs=name)), color=colour)
            draws = dataset["strength"].isel(pairs=k)
            points(axis, dataset["noise"].values, mean(draws), bars(draws), colour, words_of)
            if dies is not None and ends[0] < dies < ends[1]:
                axis.plot([dies], [-0.02], "^", color=colour, ms=4, clip_on=False)
        axis.set_xlim(*ends)
        axis.set_xticks([tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if ends[0] <= tick <= ends[1]])
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_xlabel(r"augmentation variance $c$ of a mode of $a=1$")
        axis.set_ylabel(r"strength $s$ (units of $\tau$)")
        axis.legend(loc="upper right", borderaxespad=0, fontsize=SMALL)
        note = r"$\alpha=1$; lines: theory; triangles: collapse beyond"
        footer(figure, dataset, "; ".join(part for part in (note, words) if part))
    return figure
