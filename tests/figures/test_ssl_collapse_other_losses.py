"""Figures of losses, biases, VICReg and Barlow Twins: what is on the axes is the dataset and the theory."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

from figures.ssl_collapse import FIGURES
from tests.figures.datasets import attributes
from theory.ssl_collapse import (
    barlow_batch_strengths,
    barlow_mode,
    dot_bias_threshold,
    infonce_mode_strength,
    spectral_minimum_with_bias,
    vicreg_deviation,
    vicreg_shared_strengths,
)

RANDOM = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def figures_are_closed():
    yield
    plt.close("all")


def markers(axis):
    """x and y of every series of markers with bars."""
    return [c.lines[0].get_xydata() for c in axis.containers]


def dataset(name, axis, values, inner, outputs, scalars=None):
    """Draws of Gaussian noise: outputs are name -> inner dimensions."""
    coordinates = {axis: values, "replicate": range(5), **inner}
    lead = (axis, "replicate")

    def draws(dims):
        return (*lead, *dims), RANDOM.uniform(0.1, 1, [len(coordinates[d]) for d in (*lead, *dims)])

    arrays = {key: draws(dims) for key, dims in outputs.items()}
    arrays["status"] = (lead, np.zeros((len(values), 5), np.int8))
    return xr.Dataset(arrays, coordinates | (scalars or {}), attributes(name, {}))


def test_spectra_stand_beside_their_curves():
    rho = np.array([0.6, 0.45, 0.3, 0.0])
    names = ("spectral", "infonce_dot", "infonce_distance", "barlow", "alignment")
    data = dataset(
        "spectra", "weight_decay", np.array([0.1, 0.3, 0.7, 1.05]), {"rho": rho, "loss": range(4)},
        dict.fromkeys(names, ("rho",)) | {"living": ("loss", "rho")}, {"temperature": 0.5},
    )  # fmt: skip
    first, second, right = FIGURES["spectra"]["figure"](data).axes
    for axis, decay, k in ((first, 0.1, 0), (second, 0.7, 2)):
        x, y = axis.lines[0].get_data()
        inside = x > decay / 2
        np.testing.assert_allclose(y[inside], (1 - decay / (2 * x[inside])) / x[inside], rtol=1e-10)
        distance = next(line for line in axis.lines if line.get_color() == "#D55E00")
        x, y = distance.get_data()
        np.testing.assert_allclose(y, 0.5 * np.asarray(infonce_mode_strength(margin=x - decay / 2)))
        drawn = markers(axis)
        np.testing.assert_allclose(drawn[1][:, 1], data["spectral"].isel(weight_decay=k).mean("replicate"))
    x, y = right.lines[0].get_data()
    np.testing.assert_array_equal(y, (2 * rho[None, :] > x[:, None]).sum(1))
    np.testing.assert_allclose(markers(right)[0][:, 1], 4)
    assert FIGURES["spectra"]["figure"](data.isel(weight_decay=0)) is None


@pytest.mark.thorough
def test_batch_bias_has_the_biased_strengths():
    rho, batch = np.array([0.6, 0.45, 0.3]), np.array([8.0, 16.0, 32.0])
    data = dataset(
        "batch_bias", "batch", batch, {"rho": rho},
        {"barlow": ("rho",), "spectral": ("rho",), "barlow_loss": (), "spectral_loss": ()},
    )  # fmt: skip
    for name in ("barlow", "spectral"):
        data[f"{name}_loss_theory"] = ("batch", np.full(3, 1.5))
    axes = FIGURES["batch_bias"]["figure"](data).axes
    x, y = axes[0].lines[0].get_data()
    np.testing.assert_allclose(y, np.asarray(barlow_batch_strengths(rho, x))[:, 0])
    np.testing.assert_allclose(markers(axes[1])[2][:, 1], data["spectral"].isel(rho=2).mean("replicate"))
    np.testing.assert_allclose(axes[2].lines[0].get_ydata(), 1.5)
    assert FIGURES["batch_bias"]["figure"](data.isel(batch=0)) is None


def test_a_bias_takes_one_step_of_the_staircase():
    rho, m = np.array([0.9, 0.5, 0.0]), np.arange(1.0, 4)
    data = dataset(
        "bias", "m", m, {"rho": rho}, {"strength": ("rho",), "living": ("rho",), "bias_square": ()},
        {"weight_decay": 0.1},
    )  # fmt: skip
    left, middle, right = FIGURES["bias"]["figure"](data).axes
    exact = [spectral_minimum_with_bias(np.diag(rho), np.diag(1 - rho), k, 0.1).strengths[0] for k in m]
    np.testing.assert_allclose(left.lines[0].get_ydata(), exact)
    np.testing.assert_array_equal(middle.lines[0].get_ydata(), [0, 1, 2])
    np.testing.assert_array_equal(middle.lines[1].get_ydata(), [1, 2, 2])
    np.testing.assert_allclose(markers(right)[0][:, 1], data["bias_square"].mean("replicate"))
    assert FIGURES["bias"]["figure"](data.isel(m=0)) is None


def test_every_run_with_a_dot_product_is_a_point():
    data = dataset(
        "dot_bias", "bias_square", np.array([0.1, 0.4, 0.8]), {"rho": np.array([0.5, 0.35])},
        {"strength": ("rho",), "final_square": ()}, {"temperature": 0.5},
    )  # fmt: skip
    axes = FIGURES["dot_bias"]["figure"](data).axes
    x, y = axes[2].lines[0].get_data()
    np.testing.assert_allclose(x, data["final_square"].values.ravel())
    np.testing.assert_allclose(y, data["strength"].isel(rho=1).values.ravel() / (0.5 * 0.35))
    assert axes[2].lines[1].get_xdata()[0] == pytest.approx(float(dot_bias_threshold(np.array([0.35]), 0.5)))
    assert FIGURES["dot_bias"]["figure"](data.isel(bias_square=0)) is None


def test_every_direction_of_the_toy_is_a_point():
    data = dataset(
        "dot_toy", "bias", np.array([0.25, 1.0]), {"direction": range(1, 3), "noisy_direction": range(1, 4)},
        {"clean": ("direction",), "noisy": ("noisy_direction",), "final_square": ()},
    )  # fmt: skip
    for given in (data, data.isel(bias=0)):
        axes = FIGURES["dot_toy"]["figure"](given).axes
        drawn = next(line for line in axes[1].lines if line.get_marker() == "o").get_ydata()
        np.testing.assert_allclose(np.sort(drawn), np.sort(data["noisy"].isel(bias=0).values.ravel()))


@pytest.mark.thorough
def test_vicreg_has_one_curve_for_modes_of_their_own_and_water_for_shared_ones():
    q, nu = np.array([0.1, 0.4, 0.8]), np.array([0.8, 1.6])
    data = dataset(
        "vicreg", "invariance", nu, {"covariance": np.array([0.1, 5.0]), "q": q, "dimension": range(1, 4)},
        {"strength": ("covariance", "q"), "spread": ("covariance", "dimension")}, {"epsilon": 0.1},
    )  # fmt: skip
    left, middle, right = FIGURES["vicreg"]["figure"](data).axes
    x, y = left.lines[0].get_data()
    np.testing.assert_allclose(y, vicreg_deviation(0.4, x / 1.6, 1.0, 1.0, 0.1), rtol=1e-12)
    np.testing.assert_allclose(markers(left)[1][:, 0], 4 * nu * 0.4)
    root = np.sqrt(data["strength"].isel(covariance=1, q=1) + 0.1).mean("replicate")
    np.testing.assert_allclose(markers(left)[1][:, 1], root)
    x, y = middle.lines[0].get_data()
    shared = np.asarray(vicreg_shared_strengths(q, x, 1.0, 0.1, 1.0, 0.1))
    np.testing.assert_allclose(y, shared[:, 0])
    np.testing.assert_allclose(right.lines[0].get_ydata(), shared.mean(1))
    assert FIGURES["vicreg"]["figure"](data.isel(covariance=0)) is None


def test_barlow_steps_are_on_their_curves():
    ratio, time, modes = np.array([0.4, 0.6]), np.array([1.0, 4.0, 9.0]), np.arange(1, 5)
    data = dataset(
        "barlow_steps", "ratio", ratio, {"time": time, "mode": modes},
        {"path": ("time", "mode"), "kept": ("mode",), "share": ("mode",), "share_theory": ("mode",)},
    )  # fmt: skip
    start = 0.01 * np.sqrt(modes)
    gamma = ratio[:, None] ** (modes - 1.0)[None, :]
    path = np.asarray(barlow_mode(time[None, :, None], gamma[:, None, :], start[None, None, :]))
    data["path_theory"] = (("ratio", "time", "mode"), path)
    data["kept_theory"] = (("ratio", "mode"), np.full((2, 4), 0.5))
    left, middle, right = FIGURES["barlow_steps"]["figure"](data).axes
    first = left.lines[0]
    exact = np.asarray(barlow_mode(first.get_xdata(), 1.0, 0.01)) ** 2
    np.testing.assert_allclose(first.get_ydata(), exact, rtol=1e-8)
    drawn = markers(left)[1][:, 1]
    np.testing.assert_allclose(drawn, 0.6 * (data["path"].isel(ratio=1, mode=1) ** 2).mean("replicate"))
    np.testing.assert_allclose(markers(middle)[0][:, 1], data["kept"].isel(mode=0).mean("replicate") + 0.5)
    np.testing.assert_allclose(right.lines[1].get_xdata(), data["share_theory"].isel(mode=0).values.ravel())
    assert FIGURES["barlow_steps"]["figure"](data.isel(ratio=0)) is None
