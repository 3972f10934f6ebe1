"""The figures of random factors: what is on the axes is the dataset and the theory."""

import numpy as np
import pytest
import xarray as xr
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_rgb

from figures.stochastic_collapse import FIGURES
from figures.stochastic_collapse.phase_diagram import PALE, PHASES
from tests.figures.datasets import attributes
from theory.stochastic_collapse import (
    bounded_exponents,
    bounded_phase_code,
    collapse_window,
    discrete_exponent,
    effective_exponent,
    momentum_exponent,
)

ETA, SIGMA = np.geomspace(0.1, 3, 5), np.linspace(0.5, 6, 6)


def draws(values, count=4):
    return values[..., None] + 1e-3 * np.random.default_rng(0).normal(size=(*values.shape, count))


@pytest.fixture
def phases():
    K = np.array([-1.0, 1.0])
    cells = np.meshgrid(ETA, SIGMA, K, indexing="ij")
    exponents = [np.asarray(x) for x in bounded_exponents(cells[0], 0.5, cells[1], cells[2])]
    codes = np.asarray(bounded_phase_code(cells[0], 0.5, cells[1], cells[2])).astype(float)
    dims = ("eta", "sigma", "K", "replicate")
    data = xr.Dataset(
        {
            "phase": (dims, np.repeat(codes[..., None], 4, -1)),
            "near_zero": (dims, draws(exponents[0])),
            "at_infinity": (dims, draws(exponents[1])),
            "status": (dims, np.zeros((*codes.shape, 4), np.int8)),
        },
        {"eta": ETA, "sigma": SIGMA, "K": K, "replicate": range(4), "mu": 0.5},
    )
    data["phase"][0, 0, 1, 0] = 3.0
    data.attrs = attributes("phase_diagram", {})
    return data


@pytest.mark.thorough
def test_cells_have_the_colours_of_their_phases_and_the_plane_the_measured_exponents(phases):
    axes = FIGURES["phase_diagram"]["figure"](phases).axes
    mesh = next(c for c in axes[0].collections if isinstance(c, QuadMesh))
    shown = np.asarray(mesh.get_array()).reshape(6, 5, 3)
    pale = [PALE * np.array(to_rgb(colour)) + 1 - PALE for colour in PHASES.values()]
    codes = phases["phase"].isel(K=1).values.astype(int)
    np.testing.assert_allclose(shown, np.array(pale)[codes].mean(2).transpose(1, 0, 2))
    assert {0, 1, 2} <= set(codes.ravel())
    plane = axes[3]
    meshes = [c for c in plane.collections if isinstance(c, QuadMesh)]
    np.testing.assert_allclose(
        np.asarray(meshes[-1].get_array()).ravel(), phases["near_zero"].isel(K=0).mean("replicate").values.T.ravel()
    )
    corners = meshes[-1].get_coordinates()
    # A ray of constant ratio: both coordinates grow with the step.
    np.testing.assert_allclose(np.diff(corners[-1, :, 1] / corners[-1, :, 0]), 0, atol=1e-12)
    across, up = plane.lines[0].get_data()
    inside = (up > 1e-2) & (up < 10)
    np.testing.assert_allclose(discrete_exponent(1.0, -across[inside], up[inside]), 0, atol=1e-12)


def test_a_map_needs_two_axes_and_one_curvature_is_enough(phases):
    draw = FIGURES["phase_diagram"]["figure"]
    assert draw(phases.isel(eta=0)) is None
    assert draw(phases.isel(K=0)) is not None


@pytest.mark.thorough
def test_exponents_are_drawn_with_their_theory_and_the_window():
    eta, h, batch = np.array([0.3, 1.0, 2.0]), np.array([-0.3, 0.5]), np.array([1.0, 2.0])
    cells = np.meshgrid(eta, h, batch, indexing="ij")
    exact = np.asarray(discrete_exponent(cells[0], cells[1], 1.0, cells[2]))
    dims = ("eta", "mean_curvature", "batch", "replicate")
    names = ("with_replacement", "without_replacement", "epochs")
    data = xr.Dataset(
        {name: (dims, draws(exact)) for name in ("gaussian", *names)}
        | {f"{name}_theory": (dims, np.repeat(exact[..., None], 4, -1)) for name in names}
        | {"status": (dims, np.zeros((*exact.shape, 4), np.int8))},
        {"eta": eta, "mean_curvature": h, "batch": batch, "replicate": range(4), "std_curvature": 1.0},
    )
    data.attrs = attributes("exponents", {"samples": 12})
    axes = FIGURES["exponents"]["figure"](data).axes
    curve = axes[0].lines[1]
    np.testing.assert_allclose(curve.get_ydata(), discrete_exponent(curve.get_xdata(), -0.3, 1.0))
    crosses = [line.get_xdata() for line in axes[0].lines if line.get_marker() == "x"]
    np.testing.assert_allclose(crosses[0], collapse_window(-0.3, 1.0))
    np.testing.assert_allclose(crosses[1], collapse_window(0.5, 1.0)[1:])
    np.testing.assert_array_equal(axes[2].lines[1].get_ydata(), data["without_replacement"].values.ravel())
    assert FIGURES["exponents"]["figure"](data.isel(eta=0)) is None


def test_momentum_is_drawn_over_its_leading_order():
    beta, drift, strength = np.array([0.0, 0.5, 0.9]), np.array([-1.0, 0.3, 1.0]), 0.01
    noise = strength * (1 - beta[:, None])
    model = (1 - beta[:, None], beta[:, None], -drift[None, :] * noise, noise)
    exact = np.asarray(momentum_exponent(*model)) / noise
    dims = ("beta", "drift", "replicate")
    data = xr.Dataset(
        {"exponent": (dims, draws(exact)), "controlled": (dims, draws(exact))}
        | {"status": (dims, np.zeros((3, 3, 4), np.int8))},
        {"beta": beta, "drift": drift, "replicate": range(4)},
    )
    data.attrs = attributes("momentum", {"strength": strength})
    axes = FIGURES["momentum"]["figure"](data).axes
    second = (exact - np.asarray(effective_exponent(*model)) / noise) / strength
    np.testing.assert_allclose(axes[1].lines[0].get_ydata()[0], second[0, 0], rtol=1e-9)
    np.testing.assert_allclose(axes[1].lines[0].get_ydata()[-1], second[2, 0], rtol=1e-9)
    assert FIGURES["momentum"]["figure"](data.isel(beta=0)) is None
