"""The figures of neurons and of normal dimensions: what is on the axes is the dataset and the theory."""

import numpy as np
import pytest
import xarray as xr
from matplotlib.collections import QuadMesh
from matplotlib.contour import ContourSet

from figures.stochastic_collapse import FIGURES
from tests.figures.datasets import attributes
from theory.stochastic_collapse import neuron_boundary, sign_set_exponent

RANDOM = np.random.default_rng(0)


def markers(axis):
    """Markers of every error-bar series of an axis: their x and y."""
    return [line.get_xydata() for line in axis.lines if line.get_marker() == "o"]


def test_exponents_over_the_dimension_stand_on_their_curve():
    d, time = np.array([1.0, 2.0, 3.0, 8.0]), np.linspace(1, 5, 5)
    exact = np.asarray(sign_set_exponent(d))
    data = xr.Dataset(
        {
            "exponent": (("dimension", "replicate"), exact[:, None] + 0.01 * RANDOM.normal(size=(4, 6))),
            "median": (("dimension", "replicate", "time"), exact[:, None, None] * time + np.zeros((4, 6, 5))),
            "status": (("dimension", "replicate"), np.zeros((4, 6), np.int8)),
        },
        {"dimension": d, "replicate": range(6), "time": time},
        attributes("sign_set", {}),
    )
    left, right = FIGURES["sign_set"]["figure"](data).axes
    x, y = left.lines[1].get_data()
    np.testing.assert_allclose(y, sign_set_exponent(x), atol=1e-12)
    np.testing.assert_allclose(markers(left)[0][:, 1], data["exponent"].mean("replicate"))
    np.testing.assert_allclose(markers(right)[3][:, 1], exact[3] * time)
    law = next(line for line in right.lines if line.get_label().startswith("slope"))
    np.testing.assert_allclose(np.diff(law.get_ydata()), -0.5 * np.diff(time))
    assert FIGURES["sign_set"]["figure"](data.isel(dimension=0)) is None


@pytest.mark.parametrize("dimensions", [[2.0, 3.0], [3.0, 4.0]])
def test_exponents_of_matrices_are_drawn_against_the_exact_ones_and_the_largest_drift(dimensions):
    lead, shape = ("dimension", "system", "replicate"), (2, 4, 5)
    exact = np.where(np.array(dimensions)[:, None] == 2, RANDOM.normal(size=(2, 4)), np.nan)
    data = xr.Dataset(
        {
            "exponent": (lead, RANDOM.normal(size=shape)),
            "exponent_theory": (lead[:2], exact),
            "largest_theory": (lead, np.repeat(RANDOM.normal(size=(2, 4, 1)), 5, -1)),
            "status": (lead, np.zeros(shape, np.int8)),
        },
        {"dimension": dimensions, "system": range(4), "replicate": range(5)},
        attributes("normal_dimensions", {}),
    )
    left, right = FIGURES["normal_dimensions"]["figure"](data).axes
    assert len(markers(left)) == (2.0 in dimensions)
    if markers(left):
        np.testing.assert_allclose(markers(left)[0][:, 0], exact[0])
    for k, drawn in enumerate(markers(right)):
        np.testing.assert_allclose(drawn[:, 0], data["largest_theory"].isel(dimension=k, replicate=0))
        np.testing.assert_allclose(drawn[:, 1], data["exponent"].isel(dimension=k).mean("replicate"))
    assert FIGURES["normal_dimensions"]["figure"](data.isel(system=0)) is None


def test_the_diagram_holds_the_phases_and_the_exact_boundary():
    eta, zeta = np.linspace(0.05, 0.4, 5), np.linspace(1, 8, 6)
    lead, shape = ("eta", "zeta", "replicate"), (5, 6, 4)
    names = [f"{n}{t}" for n in ("u", "v", "single_u", "single_v") for t in ("", "_theory")]
    data = xr.Dataset(
        {name: (lead, RANDOM.normal(size=shape)) for name in names}
        | {"phase": (lead, RANDOM.choice([-1.0, 1.0], shape)), "status": (lead, np.zeros(shape, np.int8))},
        {"eta": eta, "zeta": zeta, "replicate": range(4)},
        attributes("neuron_diagram", {}),
    )
    axes = FIGURES["neuron_diagram"]["figure"](data).axes
    mesh = next(c for c in axes[0].collections if isinstance(c, QuadMesh))
    found = np.ma.getdata(mesh.get_array()).reshape(6, 5)
    np.testing.assert_allclose(found, data["phase"].mean("replicate").values.T)
    line = next(c for c in axes[0].collections if isinstance(c, ContourSet)).get_paths()[0].vertices
    lower = line[(line[:, 0] < 0.2) & (line[:, 1] < 6)]
    np.testing.assert_allclose(lower[:, 1], neuron_boundary([1.0], [1.0], lower[:, 0]), rtol=0.02)
    np.testing.assert_allclose(markers(axes[1])[0][:, 1], data["u"].isel(zeta=1).mean("replicate"))
    assert FIGURES["neuron_diagram"]["figure"](data.isel(eta=0)) is None


def test_end_points_and_fractions_are_those_of_the_runs():
    eta, time = np.array([0.6, 1.8, 3.6]), np.array([10.0, 30.0])
    fraction, ends = RANDOM.uniform(size=(3, 4, 2)), RANDOM.normal(size=(3, 4, 5, 2))
    data = xr.Dataset(
        {
            "fraction": (("eta", "replicate", "time"), fraction),
            "end": (("eta", "replicate", "path", "weight"), ends),
            "status": (("eta", "replicate"), np.zeros((3, 4), np.int8)),
        },
        {"eta": eta, "zeta": 1.0, "replicate": range(4), "time": time, "path": range(5), "weight": [1, 2]},
        attributes("neuron_noise", {}),
    )
    axes = FIGURES["neuron_noise"]["figure"](data).axes
    for k, axis in enumerate(axes[:3]):
        points = axis.lines[0].get_xydata()
        assert {tuple(p) for p in points} == {tuple(p) for p in ends[k].reshape(-1, 2)}
    first = markers(axes[3])[0]
    np.testing.assert_allclose(first[:, 0], eta / 2)
    np.testing.assert_allclose(first[:, 1], fraction[..., 0].mean(1))
    assert FIGURES["neuron_noise"]["figure"](data.isel(eta=0)) is None
