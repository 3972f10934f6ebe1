"""The figure of an experiment that brings none of its own: every output against its first axis, theory as a line."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from scipy import stats

from figures.style import footer, panels, style


def overview(dataset: xr.Dataset) -> Figure:
    """Mean with 95 % bars over theory, one panel an output, against the first axis with several values.

    The other axes and the inner dimensions are shown at their first, middle and last value, one colour each.
    """
    names = [name for name in dataset.data_vars if f"{name}_theory" in dataset]
    with style():
        figure, axes = panels(-(-len(names) // 3), min(len(names), 3), 2.2 * -(-len(names) // 3))
        for axis in axes.flat[len(names) :]:
            axis.set_visible(False)
        for axis, name in zip(axes.flat, names, strict=False):
            _panel(axis, dataset[name], dataset[f"{name}_theory"])
        footer(figure, dataset)
    return figure


def _panel(axis, draws, theory):
    if "replicate" in theory.dims:
        theory = theory.mean("replicate")
    count = draws.sizes["replicate"]
    mean = draws.mean("replicate")
    half = stats.t.ppf(0.975, max(count - 1, 1)) * draws.std("replicate", ddof=1) / count**0.5
    along = next((dim for dim in mean.dims if mean.sizes[dim] > 1), None)
    if along is None:
        along = mean.dims[0]
    others = [dim for dim in mean.dims if dim != along]
    stacked = [a.transpose(along, *others).values.reshape(mean.sizes[along], -1) for a in (mean, half, theory)]
    lines = np.unique(np.linspace(0, stacked[0].shape[1] - 1, 3).astype(int))
    x = mean[along].values
    for k, line in enumerate(lines):
        m, h, t = (s[:, line] for s in stacked)
        at = np.unravel_index(line, [mean.sizes[d] for d in others]) if others else ()
        label = ", ".join(f"{d} = {mean[d].values[i]:.3g}" for d, i in zip(others, at, strict=True))
        axis.plot(x, t, color=f"C{k}")
        axis.errorbar(x, m, yerr=h, fmt="o", color=f"C{k}", elinewidth=0.8, label=label or None)
    axis.set_xlabel(mean[along].attrs.get("label", along))
    axis.set_ylabel(draws.attrs.get("label", draws.name))
    if mean[along].attrs.get("scale") == "log":
        axis.set_xscale("log")
    if others:
        axis.legend()
