"""The figures of SGD after convergence: what is on the axes is the dataset and the theory."""

import numpy as np
import pytest
import xarray as xr
from matplotlib.collections import QuadMesh
from matplotlib.patches import Ellipse

from figures.sgd_limit import FIGURES
from tests.figures.datasets import attributes
from theory.oscillator import boundaries, frequency
from theory.sgd_limit import (
    global_displacement,
    phase_space_covariance,
    regime_code,
    stationary_decomposition,
)

BETA, E, LAGS = np.array([0.0, 0.3, 0.6, 0.9]), np.geomspace(0.01, 5, 9), 2 ** np.arange(5)
CELLS = ("beta", "eta_h", "replicate")


@pytest.fixture(scope="module")
def diagram():
    random = np.random.default_rng(0)
    grid = BETA[:, None], E[None, :]
    codes, angle = np.asarray(regime_code(1.0, *grid)).astype(float), np.asarray(frequency(*grid))
    ratio = np.where(codes < 3, 1 / (1 - E[None, :] / (2 * (1 + BETA[:, None]))), np.inf)
    walked = LAGS**0.8 * (1 + 0.01 * random.normal(size=(4, 9, 5, 5)))

    def of_three(values):
        return CELLS, np.repeat(values[..., None], 5, -1)

    data = xr.Dataset(
        {
            "regime": of_three(codes), "frequency": of_three(angle), "position": of_three(ratio),
            "displacement": ((*CELLS, "lag"), walked), "status": (CELLS, np.zeros((4, 9, 5), np.int8)),
        },
        {"beta": BETA, "eta_h": E, "replicate": range(5), "lag": LAGS, "alpha": 2.0},
    )  # fmt: skip
    data.attrs = attributes("phase_diagram", {"modes": 3})
    return data


@pytest.fixture(scope="module")
def drawn(diagram):
    return FIGURES["phase_diagram"]["figure"](diagram)


def mesh(axis):
    return np.ma.getdata(next(c for c in axis.collections if isinstance(c, QuadMesh)).get_array())


def test_the_maps_hold_what_was_measured_and_the_lines_of_the_chain(diagram, drawn):
    axes = drawn.axes
    np.testing.assert_array_equal(mesh(axes[0]).reshape(9, 4), diagram["regime"].isel(replicate=0).values.T)
    shown = mesh(axes[1]).reshape(9, 4)
    kept = np.isfinite(shown)
    np.testing.assert_array_equal(kept, (diagram["regime"].isel(replicate=0) < 3).values.T)
    np.testing.assert_allclose(shown[kept], diagram["frequency"].isel(replicate=0).values.T[kept])
    for axis in axes[:2]:
        for line, exact in zip(axis.lines[:3], boundaries(np.linspace(0, 0.999, 400)), strict=True):
            np.testing.assert_allclose(line.get_ydata(), exact)


@pytest.mark.thorough
def test_exponents_and_variances_are_those_of_the_draws_and_of_the_theory(diagram, drawn):
    exponents, variances = drawn.axes[2:4]
    at = int(np.argmin(np.abs(np.log(E / 0.14))))
    walked = diagram["displacement"].isel(beta=0, eta_h=at).mean("replicate").values
    markers = exponents.containers[0].lines[0]
    np.testing.assert_allclose(markers.get_ydata(), np.diff(np.log2(walked)))
    np.testing.assert_allclose(markers.get_xdata(), LAGS[:-1] * 2**0.5)
    theory = next(line for line in exponents.lines if line.get_color() == "C0" and len(line.get_xdata()) > 5)
    k = np.round(theory.get_xdata() / 2**0.5)
    pair = [np.asarray(global_displacement(x, np.array([1, 1 / 4, 1 / 9]), E[at], 0.0, 1)) for x in (k, 2 * k)]
    np.testing.assert_allclose(theory.get_ydata(), np.log2(pair[1] / pair[0]))
    np.testing.assert_allclose(
        variances.containers[0].lines[0].get_ydata()[:3], diagram["position"].isel(beta=0, replicate=0).values[:3]
    )
    assert FIGURES["phase_diagram"]["figure"](diagram.isel(beta=0)) is None


@pytest.fixture
def phases():
    random = np.random.default_rng(1)
    shape, lead = (3, 2, 4), ("beta", "weight_decay", "replicate")
    matrix = (np.eye(2) * [1.0, 2.0])[None, None] * np.ones((3, 2, 1, 1))
    plane = {"component": np.arange(2), "mode": np.arange(1, 3)}
    data = xr.Dataset(
        {
            "position": ((*lead, "mode", "other"), np.repeat(matrix[:, :, None], 4, 2)),
            "velocity": ((*lead, "mode", "other"), np.repeat(matrix[:, :, None], 4, 2)),
            "position_theory": (("beta", "weight_decay", "mode", "other"), matrix),
            "velocity_theory": (("beta", "weight_decay", "mode", "other"), 4 * matrix),
            "mean": ((*lead, "at", "component", "mode"), random.normal(size=(*shape, 3, 2, 2))),
            "run": ((*lead, "step", "component", "mode"), random.normal(size=(*shape, 5, 2, 2))),
            "run_theory": (("beta", "weight_decay", "step", "component", "mode"), random.normal(size=(3, 2, 5, 2, 2))),
            "cloud": ((*lead, "moment", "component", "mode"), random.normal(size=(*shape, 10, 2, 2))),
            "status": (lead, np.zeros(shape, np.int8)),
        },
        {
            "beta": [0.0, 0.5, 0.9], "weight_decay": [0.0, 0.2], "replicate": range(4), "other": np.arange(1, 3),
            "at": [1, 3, 5], "step": np.arange(1, 6), "moment": range(10), "eta": 0.2, "alpha": 1.0, **plane,
        },
    )  # fmt: skip
    data.attrs = attributes("phase_space", {"batch": 4, "d": 2})
    return data


def test_spirals_ellipses_and_variances(phases):
    axes = FIGURES["phase_space"]["figure"](phases).axes
    cell = phases.isel(beta=1, weight_decay=0)
    np.testing.assert_allclose(np.array(axes[1].lines[0].get_data()), cell["run"].isel(replicate=0, mode=0).values.T)
    np.testing.assert_allclose(np.array(axes[1].lines[1].get_data()), cell["run_theory"].isel(mode=0).values.T)
    markers = axes[1].containers[0].lines[0].get_data()
    np.testing.assert_allclose(np.array(markers), cell["mean"].isel(mode=0).mean("replicate").values.T)
    for axis, variances in ((axes[3], [1.0, 2.0]), (axes[4], [4.0, 8.0])):
        ellipse = next(patch for patch in axis.patches if isinstance(patch, Ellipse))
        np.testing.assert_allclose([ellipse.width, ellipse.height], 4 * np.sqrt(variances))
    dense, law = axes[5].lines[0].get_data()
    unit = phase_space_covariance(1.0, 0.2, 0.9, 4, time="ou").position
    np.testing.assert_allclose(law, phase_space_covariance(dense, 0.2, 0.9, 4).position / unit)
    np.testing.assert_allclose(axes[5].containers[0].lines[0].get_data(), [[1.0, 0.5], [1.0, 2.0]])
    assert FIGURES["phase_space"]["figure"](phases.isel(beta=0)) is None


def test_the_plane_of_currents():
    random = np.random.default_rng(2)
    lead, eta = ("eta", "replicate"), np.array([0.05, 0.3])
    data = xr.Dataset(
        {
            "covariance": ((*lead, "entry"), random.normal(size=(2, 4, 3))),
            "covariance_theory": (("eta", "entry"), random.normal(size=(2, 3))),
            "circulation": (lead, random.normal(size=(2, 4))),
            "circulation_theory": (("eta",), random.normal(size=2)),
            "path": ((*lead, "moment", "coordinate"), random.normal(size=(2, 4, 9, 2))),
            "status": (lead, np.zeros((2, 4), np.int8)),
        },
        {"eta": eta, "replicate": range(4), "entry": range(3), "moment": range(9), "coordinate": range(2)},
    )
    data.attrs = attributes("currents", {})
    for shown in (data, data.isel(eta=0)):
        axes = FIGURES["currents"]["figure"](shown).axes
        for axis in axes[:2]:
            run = np.array(axis.lines[0].get_data()).T
            np.testing.assert_allclose(run, data["path"].isel(eta=0, replicate=0).values)
        means = [*data["covariance"].isel(eta=0).mean("replicate").values, data["circulation"].isel(eta=0).mean()]
        np.testing.assert_allclose(axes[2].containers[0].lines[0].get_ydata(), means)
    B, _, Q = stationary_decomposition([[2.5, -1.5], [-1.5, 2.5]], np.diag([4.0, 1.0]))
    limits = [line.get_ydata()[0] for line in axes[2].lines if line.get_linestyle() == "--"]
    np.testing.assert_allclose(limits, [B[0, 0], B[0, 1], B[1, 1], Q[0, 1]])
