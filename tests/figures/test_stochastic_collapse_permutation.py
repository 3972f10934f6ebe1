"""The figure of two neurons that become one: distances and slopes are the dataset's, lines have the cocycle's slope."""

import numpy as np
import pytest
import xarray as xr

from figures.stochastic_collapse import FIGURES
from tests.figures.datasets import attributes

ETA, SIGMA, STEPS = np.array([0.02, 0.05, 0.1]), np.array([0.1, 0.2, 0.4]), np.arange(1, 51) * 200


@pytest.fixture
def pairs():
    rate = -(ETA[:, None] ** 2) * SIGMA[None, :] ** 2
    draws = np.broadcast_to(rate[..., None], (3, 3, 4)) * (1 + 0.01 * np.arange(4))
    logs = draws[..., None] * STEPS - 1
    logs[2, 2, :, 30:] = np.nan  # rounding
    axes = ("eta", "sigma", "replicate")
    data = xr.Dataset(
        {
            "log_distance": ((*axes, "step"), logs),
            "log_distance_theory": ((*axes, "step"), logs),
            "log_distance_without_noise": ((*axes, "step"), np.full_like(logs, -1.0)),
            "slope": (axes, draws),
            "slope_theory": (axes, draws),
            "exponent": (axes, draws),
            "exponent_theory": (axes, 1.02 * draws),
            "status": (axes, np.zeros(draws.shape, np.int8)),
        },
        {"eta": ETA, "sigma": SIGMA, "replicate": range(4), "step": STEPS},
    )
    data.attrs = attributes("permutation", {"steps": 10_000})
    return data


def test_distances_are_geometric_means_and_lines_have_twice_the_exponent(pairs):
    axes = FIGURES["permutation"]["figure"](pairs).axes
    line, markers = axes[0].lines[0], axes[0].lines[1]
    rate = float(pairs["slope_theory"].sel(eta=0.05, sigma=0.1).mean())
    x, y = line.get_data()
    np.testing.assert_allclose(np.diff(np.log(y)) / np.diff(x), 2 * rate, rtol=1e-9)
    logs = pairs["log_distance"].sel(eta=0.05, sigma=0.1).mean("replicate")
    np.testing.assert_allclose(markers.get_ydata(), 2 * np.exp(2 * logs.sel(step=markers.get_xdata())), rtol=1e-12)
    # A curve ends where a draw reaches rounding.
    ends = [line.get_xdata()[-1] for line in axes[1].lines]
    assert max(ends) == STEPS[-1]
    assert axes[1].get_title("right") == r"$\sigma = 0.2$"
    dots = axes[2].lines[0]
    np.testing.assert_allclose(dots.get_ydata() / dots.get_xdata(), 1 / 1.02, rtol=1e-12)


def test_it_needs_two_axes(pairs):
    assert FIGURES["permutation"]["figure"](pairs.isel(eta=0)) is None
