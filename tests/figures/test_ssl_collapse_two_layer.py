"""The figures of two layers: what is on the axes is the dataset and the theory."""

import numpy as np
import pytest
import xarray as xr

from figures.ssl_collapse import FIGURES
from tests.figures.datasets import attributes
from theory.ssl_collapse import two_layer_barrier, two_layer_escape_time, two_layer_strength

RANDOM = np.random.default_rng(0)
CLEAN = [1.2, 0.7, 0.4]


def markers(axis):
    """Markers of every series of an axis."""
    return [line for line in axis.lines if line.get_marker() == "o" and len(line.get_xdata())]


def dataset(experiment, axes, outputs, **coordinates):
    lead = (*axes, "replicate")
    shape = tuple(len(v) for v in axes.values())
    variables = {
        name: ((*lead, *dims), RANDOM.uniform(0.1, 1, (*shape, 4, *(len(coordinates[d]) for d in dims))))
        for name, dims in outputs.items()
    }
    variables["status"] = (lead, np.zeros((*shape, 4), np.int8))
    settings = {"p0": 0.03}
    return xr.Dataset(
        variables, {**axes, **coordinates, "replicate": range(4), "noise": 0.25}, attributes(experiment, settings)
    )


@pytest.mark.thorough
def test_two_layers_over_time_and_over_the_ratio_of_their_starts():
    names = ("trajectory", "escape", "rank", "representation")
    dims = {"trajectory": ("moment", "clean"), "rank": ("learned",)}
    outputs = {f"{n}{t}": dims.get(n, ("clean",)) for n in names for t in ("", "_theory")}
    data = dataset(
        "two_layer", {"ratio": [0.5, 1.0, 4.0]}, outputs, moment=np.linspace(0, 1, 5), clean=CLEAN, learned=range(4)
    )
    data["trajectory"][{"moment": 0}] = 0.05
    axes = FIGURES["two_layer"]["figure"](data).axes
    path = markers(axes[0])[0]
    np.testing.assert_allclose(path.get_ydata(), data["trajectory"].isel(ratio=1, replicate=0, clean=0))
    curve = next(line for line in axes[1].lines if str(line.get_label()).startswith("small"))
    r, time = curve.get_data()
    np.testing.assert_allclose(time, np.asarray(two_layer_escape_time(0.6, 0.03, 0.03 * (r - 1 / r))) * 0.072)
    np.testing.assert_allclose(markers(axes[1])[1].get_ydata(), data["escape"].isel(clean=1).mean("replicate"))
    np.testing.assert_allclose(markers(axes[2])[0].get_ydata(), data["representation"].isel(clean=0).mean("replicate"))
    ranks = (data["trajectory"].isel(ratio=1) > 0.5).sum("clean").mean("replicate")
    np.testing.assert_allclose(markers(axes[3])[0].get_ydata(), ranks)
    x, rank = axes[3].lines[0].get_data()
    # A mode is counted from its half time on, and the last one at 1 / 1.3 of every run.
    assert rank[0] < rank[-1] == 3
    assert x[np.argmax(rank == 3)] == np.float64(x[x >= 1 / 1.3][0])
    assert FIGURES["two_layer"]["figure"](data.isel(ratio=0)) is None


@pytest.mark.thorough
def test_branches_and_barriers_of_one_layer_and_of_two():
    decays = np.array([0.1, 0.2, 0.4, 1.0])
    outputs = {"raised": ("clean",), "small": ("clean",), "survival": ("factor", "clean")}
    data = dataset("hysteresis", {"depth": [1.0, 2.0], "weight_decay": decays}, outputs, clean=CLEAN, factor=[0.5, 2.0])
    data["survival"] = xr.where(data["factor"] > 1, 1.0, -1.0) * xr.ones_like(data["survival"])
    figure = FIGURES["hysteresis"]["figure"](data)
    one, two, _, beside = figure.axes
    for axis, depth in ((one, 1), (two, 2)):
        x, p = next(line for line in axis.lines if len(line.get_xdata()) > 100).get_data()
        np.testing.assert_allclose(p[:-1], np.asarray(two_layer_strength(2.4, 1.45, 1.0, x[:-1], depth)), atol=1e-9)
        drawn = markers(axis)[0]
        np.testing.assert_allclose(drawn.get_ydata(), data["raised"].isel(depth=depth - 1, clean=0).mean("replicate"))
    x, barrier = next(line for line in beside.lines if len(line.get_xdata()) > 100).get_data()
    limit = float(two_layer_strength(2.4, 1.45, 1.0))
    np.testing.assert_allclose(barrier, np.asarray(two_layer_barrier(2.4, 1.45, 1.0, x)) / limit)
    dies = markers(beside)[0]
    here = np.asarray(two_layer_barrier(2.4, 1.45, 1.0, decays)) / limit
    np.testing.assert_allclose(dies.get_ydata(), 0.5 * here[np.isfinite(here)])
    assert FIGURES["hysteresis"]["figure"](data.isel(weight_decay=0)) is None
    assert FIGURES["hysteresis"]["figure"](data.isel(depth=1)) is not None


@pytest.mark.thorough
def test_minibatch_strengths_stand_beside_both_branches():
    decays = np.array([0.0, 0.1, 0.25, 0.5])
    data = dataset(
        "two_layer_minibatch", {"weight_decay": decays}, {"variance": ("clean",), "small": ("clean",)}, clean=CLEAN
    )
    axes = FIGURES["two_layer_minibatch"]["figure"](data).axes
    for k, axis in enumerate(axes):
        learned, small = markers(axis)[:2]
        np.testing.assert_allclose(learned.get_ydata(), data["variance"].isel(clean=k).mean("replicate"))
        expected = (np.exp(data["small"].isel(clean=k)) - 1e-6) / 12
        np.testing.assert_allclose(small.get_ydata(), expected.mean("replicate"))
        x, square = axis.lines[0].get_data()
        b, sigma = 2 * CLEAN[k], CLEAN[k] + 0.25
        np.testing.assert_allclose(square, 2 * (sigma * np.asarray(two_layer_strength(b, sigma, 1.0, x))) ** 2 / b)
    assert FIGURES["two_layer_minibatch"]["figure"](data.isel(weight_decay=0)) is None
