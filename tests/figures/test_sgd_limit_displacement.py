"""Figures of displacements and minibatches: on the axes are the dataset and the theory."""

import jax
import numpy as np
import pytest
import xarray as xr
from matplotlib.collections import QuadMesh

from figures.sgd_limit import FIGURES
from tests.figures.datasets import attributes
from theory.sgd_limit import displacement_exponent, global_displacement, streaming_stationary

LAGS = 2.0 ** np.arange(6)
REPLICATES = 3


def dataset(experiment, axes, variables, coordinates, settings):
    """Variables of shape (axes, inner) repeated over replicates; a variable is (inner dims, values)."""
    shape = tuple(len(v) for v in axes.values())
    full = {}
    for name, (inner, values) in variables.items():
        several = np.repeat(np.asarray(values, float)[(slice(None),) * len(shape) + (None,)], REPLICATES, len(shape))
        full[name] = ((*axes, "replicate", *inner), several)
    full["status"] = ((*axes, "replicate"), np.zeros((*shape, REPLICATES), np.int8))
    data = xr.Dataset(full, {**axes, **coordinates, "replicate": range(REPLICATES)})
    data.attrs = attributes(experiment, settings)
    return data


@pytest.fixture(scope="module")
def displacements():
    axes = {"alpha": [1.5, 2.5], "beta": [0.0, 0.9], "eta": [0.01, 0.3], "batch": [4.0, 64.0]}
    shape = (2, 2, 2, 2)
    spectrum = [np.arange(1.0, 9) ** -alpha for alpha in axes["alpha"]]
    moved, left = np.empty((*shape, 6)), np.empty((*shape, 6))
    for at in np.ndindex(shape):
        beta, eta, batch = (axes[name][i] for name, i in zip(("beta", "eta", "batch"), at[1:], strict=True))
        law, how = jax.jit(global_displacement), (LAGS, spectrum[at[0]], eta, beta, batch)
        moved[at], left[at] = law(*how), law(*how, start=np.full(8, 0.3))
    variables = {
        "local": ((), moved[..., 0]),
        "displacement": (("lag",), moved),
        "from_start": (("lag",), left),
        "exponent": (("lag_between",), displacement_exponent(LAGS, moved)),
    }
    coordinates = {"lag": LAGS, "lag_between": LAGS[1:] / 2**0.5, "weight_decay": 0.0}
    return dataset("displacement", axes, variables, coordinates, {"d": 8, "start": 0.3})


def markers(axis):
    """Positions of the markers with bars."""
    return [container[0].get_xydata() for container in axis.containers]


@pytest.mark.thorough
def test_displacements_are_drawn_on_their_theory(displacements):
    axes = FIGURES["displacement"]["figure"](displacements).axes
    for axis, name, cell in ((axes[0], "displacement", (0, 1, 1, 0)), (axes[2], "from_start", (0, 1, 1, 0))):
        values = displacements[name].values[cell][0]
        assert any(np.allclose(points[:, 1], values) for points in markers(axis))
        on_lags = [np.isin(LAGS, line.get_xdata()).all() for line in axis.lines]
        curves = [line for line, on in zip(axis.lines, on_lags, strict=True) if on]
        found = [np.interp(LAGS, line.get_xdata(), line.get_ydata()) for line in curves]
        assert any(np.allclose(curve, values) for curve in found)
    assert len(axes[1].containers) == 4


@pytest.mark.thorough
def test_exponents_from_a_checkpoint(displacements):
    axis = FIGURES["displacement"]["exponents"](displacements).axes[1]
    left = displacements["from_start"].values[0, :, :, 0, 0]
    expected = np.log(left[..., -1] / left[..., -4]) / np.log(8)
    for row in expected:
        assert any(np.allclose(points[:, 1], row) for points in markers(axis))
        assert any(
            np.allclose(line.get_ydata()[[0, -1]], row, atol=1e-9) for line in axis.lines if len(line.get_xdata())
        )


def test_one_value_of_an_axis_is_left_to_the_default_figure(displacements):
    assert FIGURES["displacement"]["figure"](displacements.isel(eta=0)) is None
    assert FIGURES["displacement"]["exponents"](displacements.isel(batch=0)) is None


def test_the_law_of_the_network_goes_through_its_reference_point():
    axes = {"eta": [0.01, 0.03, 0.1], "batch": [4.0, 16.0, 64.0], "beta": [0.0, 0.8, 0.9]}
    eta, batch, beta = np.meshgrid(*axes.values(), indexing="ij")
    law = 7 * eta**2 / (batch * (1 - beta**2))
    data = dataset("network", axes, {"local": ((), law)}, {}, {})
    figure = FIGURES["network"]["figure"](data)
    for axis, along in zip(figure.axes, (0, 1, 2), strict=True):
        index = [1, 1, 1]
        index[along] = slice(None)
        assert any(np.allclose(points[:, 1], law[tuple(index)]) for points in markers(axis))
        ends = law[tuple(index)][[0, -1]]
        assert any(np.allclose(line.get_ydata()[[0, -1]], ends) for line in axis.lines if len(line.get_xdata()) == 100)


@pytest.mark.thorough
def test_streaming_and_stability():
    axes = {"effective_rate": [0.2, 0.6], "beta": [0.0, 0.5], "batch": [4.0, 16.0]}
    rate, beta, batch = np.meshgrid(*axes.values(), indexing="ij")
    spectrum = 1 / np.arange(1.0, 4)
    exact = np.asarray(streaming_stationary(spectrum, rate * (1 - beta), beta, batch).variance)
    data = dataset(
        "streaming", axes, {"variance": (("mode",), exact)}, {"mode": [1, 2, 3], "sigma": 1.0}, {"d": 3, "alpha": 1.0}
    )
    data["variance_theory"] = data["variance"].isel(replicate=0)
    axis = FIGURES["streaming"]["figure"](data).axes[0]
    lines = [line.get_ydata() for line in axis.lines if len(line.get_xdata()) == 3]
    for points in markers(axis):
        assert any(np.allclose(line, points[:, 1]) for line in lines)
        assert (points[:, 1] > 1).all()

    axes = {"beta": [0.0, 0.4, 0.8], "eta": [0.1, 0.4, 1.6, 6.4]}
    growth = np.arange(12.0).reshape(3, 4) - 5
    data = dataset("streaming_stability", axes, {"growth": ((), growth)}, {}, {"d": 3, "alpha": 1.0, "batch": 8})
    axis = FIGURES["streaming_stability"]["figure"](data).axes[0]
    mesh = next(c for c in axis.collections if isinstance(c, QuadMesh))
    np.testing.assert_array_equal(np.ma.getdata(mesh.get_array()).reshape(4, 3), growth.T)


def test_finite_data_shows_both_samplings_and_the_change_by_epochs():
    axes = {"effective_rate": [0.1, 0.4], "beta": [0.0, 0.6], "batch": [2.0, 5.0]}
    random = np.random.default_rng(0)
    variables = {}
    for name in ("with_replacement", "without_replacement"):
        for twin in ("", "_exchanged", "_at_optimum", "_additive"):
            variables[name + twin] = (("step", "entry"), random.uniform(size=(2, 2, 2, 4, 3)))
    variables["epochs"] = (("mode",), -random.uniform(size=(2, 2, 2, 2)))
    coordinates = {"step": [1, 2, 3, 4], "entry": range(3), "mode": [2, 1]}
    figure = FIGURES["finite_data"]["figure"](dataset("finite_data", axes, variables, coordinates, {}))
    for axis, name in zip(figure.axes, ("with_replacement", "without_replacement"), strict=False):
        np.testing.assert_allclose(markers(axis)[0][:, 1], variables[name][1][-1, 1, 0, :, 0])
        np.testing.assert_allclose(axis.lines[1].get_ydata(), variables[f"{name}_exchanged"][1][-1, 1, 0, :, 0])
    np.testing.assert_allclose(markers(figure.axes[2])[0][:, 1], variables["epochs"][1][0, 0, 0])


def test_regression_shows_simulation_on_the_exact_law():
    axes, random = {"beta": [0.0, 0.9]}, np.random.default_rng(0)
    variables = {
        "displacement": (("lag",), 1 + random.uniform(size=(2, 3))),
        "variance": (("mode",), 1 + random.uniform(size=(2, 4))),
        "acf": (("short_lag",), random.uniform(size=(2, 8))),
        "frequency": ((), [np.nan, 0.3]),
    }
    variables |= {f"{name}_theory": value for name, value in variables.items()}
    coordinates = {"lag": [1.0, 2.0, 4.0], "mode": [1, 2, 3, 4], "short_lag": range(8)}
    settings = {"d": 4, "alpha": 1.0, "eta": 0.2, "batch": 64, "samples": 100}
    data = dataset("regression", axes, variables, coordinates, settings)
    figure = FIGURES["regression"]["figure"](data)
    for axis, name in zip(figure.axes, ("displacement", "variance", "acf"), strict=True):
        exact = variables[name][1]
        assert any(
            np.allclose(line.get_ydata(), exact[1]) for line in axis.lines if len(line.get_ydata()) == exact.shape[1]
        )
    assert "0.300" in figure.axes[2].texts[-1].get_text()
