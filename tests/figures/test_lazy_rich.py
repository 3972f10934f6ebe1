"""The figures of lazy and rich learning: what is on the axes is the dataset and the theory."""

import numpy as np
import pytest
import xarray as xr
from matplotlib.collections import QuadMesh

from figures.lazy_rich import FIGURES
from figures.lazy_rich.phase_diagram import ROWS
from figures.style import BLUE, VERMILION
from tests.figures.datasets import attributes

TAU, DELTA = np.geomspace(0.1, 2, 4), np.linspace(-1, 1, 5)


def drawn(dims, shape, random):
    theory = random.uniform(0.1, 1, shape)
    draws = theory[..., None, :] * (1 + 0.01 * random.normal(size=(*shape[:-1], 3, shape[-1])))
    lead = dims[:-1]
    return ((*lead, "replicate", dims[-1]), draws), (dims, theory)


@pytest.fixture
def diagram():
    random, variables = np.random.default_rng(0), {}
    for name, (_, clock) in ROWS.items():
        variables[name], variables[f"{name}_theory"] = drawn(("tau", "delta", clock), (4, 5, 2), random)
    variables["status"] = (("tau", "delta", "replicate"), np.zeros((4, 5, 3), np.int8))
    axes = {"tau": TAU, "delta": DELTA, "time": [1.0, 30.0], "step": [50, 5000], "replicate": range(3)}
    data = xr.Dataset(variables, axes)
    data.attrs = attributes("phase_diagram", {"d": 20})
    return data


def maps(axis):
    return [np.ma.getdata(c.get_array()) for c in axis.collections if isinstance(c, QuadMesh)]


def test_rows_are_measures_and_columns_theory_simulation_difference_twice(diagram):
    figure = FIGURES["phase_diagram"]["figure"](diagram)
    panels = np.array([axis for axis in figure.axes if axis.get_subplotspec() and maps(axis)][: 6 * len(ROWS)])
    panels = panels.reshape(len(ROWS), 6)
    for row, (name, (_, clock)) in zip(panels, ROWS.items(), strict=True):
        for group, moment in ((row[:3], 0), (row[3:], -1)):
            draws = diagram[name].isel({clock: moment}).mean("replicate").values
            theory = diagram[f"{name}_theory"].isel({clock: moment}).values
            for axis, expected in zip(group, (theory, draws, draws - theory), strict=True):
                np.testing.assert_allclose(maps(axis)[0].reshape(4, 5), expected, rtol=1e-12, atol=1e-14)


def test_a_diagram_needs_two_axes(diagram):
    assert FIGURES["phase_diagram"]["figure"](diagram.isel(tau=0)) is None


def test_neurons_are_drawn_over_the_longest_and_coloured_by_sign():
    random, paths = np.random.default_rng(2), np.random.default_rng(3).normal(size=(1, 3, 2, 7, 4, 2))
    dims = ("tau", "delta", "replicate")
    data = xr.Dataset(
        {
            "neuron": ((*dims, "time", "student_neuron", "component"), paths),
            "sign": ((*dims, "student_neuron"), np.broadcast_to([1.0, -1.0, -1.0, 1.0], (1, 3, 2, 4))),
            "inputs": ((*dims, "sample", "component"), random.normal(size=(1, 3, 2, 5, 2))),
            "teacher": ((*dims, "teacher_neuron", "component"), random.normal(size=(1, 3, 2, 3, 2))),
            "teacher_sign": ((*dims, "teacher_neuron"), np.ones((1, 3, 2, 3))),
            "status": (dims, np.zeros((1, 3, 2), np.int8)),
        },
        {"tau": [0.1], "delta": [-1.0, 0.0, 1.0], "replicate": range(2), "time": np.arange(7.0)},
    )
    data.attrs = attributes("relu_neurons", {"d": 2})
    axes = FIGURES["relu_neurons"]["figure"](data).axes
    assert len(axes) == 3
    for axis, network in zip(axes, paths[0, :, 0], strict=True):
        lines = [line for line in axis.lines if line.get_alpha()]
        drawn = np.stack([line.get_xydata() for line in lines], 1)
        np.testing.assert_allclose(drawn, network / np.linalg.norm(network, axis=-1).max(), rtol=1e-12)
        assert [line.get_color() for line in lines] == [BLUE, VERMILION, VERMILION, BLUE]


def test_trajectories_are_means_over_starts():
    random = np.random.default_rng(1)
    beta, exact = random.normal(size=(3, 6, 4, 2)), random.normal(size=(3, 6, 4, 2))
    kernel = random.uniform(size=(3, 6, 4))
    dims = ("delta", "replicate", "time")
    data = xr.Dataset(
        {
            "beta": ((*dims, "component"), beta),
            "beta_theory": ((*dims, "component"), exact),
            "kernel_distance": (dims, kernel),
            "kernel_distance_theory": (dims, kernel),
            "status": (dims[:2], np.zeros((3, 6), np.int8)),
        },
        {"delta": [-1.0, 0.0, 1.0], "time": [1.0, 2.0, 4.0, 8.0], "component": [1, 2], "replicate": range(6)},
    )
    data.attrs = attributes("single_neuron", {"d": 2})
    figure = FIGURES["single_neuron"]["figure"](data)
    along, across, _ = figure.axes[:3]
    np.testing.assert_allclose(along.lines[0].get_ydata(), exact[0, ..., 0].mean(0))
    np.testing.assert_allclose(across.lines[0].get_ydata(), np.abs(exact[0, ..., 1]).mean(0))
