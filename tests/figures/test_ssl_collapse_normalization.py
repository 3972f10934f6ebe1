"""The figures of normalised embeddings and of imbalance: what is on the axes is the dataset and the theory."""

import numpy as np
import pytest
import xarray as xr

from figures.ssl_collapse import FIGURES
from tests.figures.datasets import attributes
from theory.ssl_collapse import class_strengths, normalized_rank, water_fill_infonce

RANDOM = np.random.default_rng(0)
Q = np.array([0.1, 0.25, 0.4, 0.55, 0.7, 0.85])


def markers(axis, kind="o"):
    """Markers of every error-bar series of an axis: their x and y."""
    return [line.get_xydata() for line in axis.lines if line.get_marker() == kind]


@pytest.mark.thorough
def test_shares_stand_on_water_filling_and_ranks_are_counted():
    tau = np.array([0.3, 1.0, 4.0])
    exact = np.asarray(water_fill_infonce(Q, 1 / tau).strengths) * tau[:, None]
    draws = exact[:, None, :] + 1e-4 * RANDOM.normal(size=(3, 5, 6))
    lead = ("temperature", "replicate", "mode")
    data = xr.Dataset(
        {
            "share": (lead, draws),
            "unit_length": (lead, draws + 0.02),
            "status": (lead[:2], np.zeros((3, 5), np.int8)),
        },
        {"temperature": tau, "replicate": range(5), "mode": 1 + np.arange(6)},
        attributes("normalization", {}),
    )
    left, right = FIGURES["normalization"]["figure"](data).axes
    for k, drawn in enumerate(markers(left)):
        np.testing.assert_allclose(drawn, np.stack([tau, draws[:, :, k].mean(1)], 1))
    np.testing.assert_allclose(markers(left, "x")[2][:, 1], draws[:, :, 2].mean(1) + 0.02)
    x, y = left.lines[0].get_data()
    np.testing.assert_allclose(y, np.asarray(water_fill_infonce(Q, 1 / x).strengths)[:, 0] * x, rtol=1e-9)
    x, y = right.lines[0].get_data()
    np.testing.assert_array_equal(y, normalized_rank(Q, 1 / x))
    np.testing.assert_array_equal(markers(right)[0][:, 1], normalized_rank(Q, 1 / tau))
    assert FIGURES["normalization"]["figure"](data.isel(temperature=0)) is None


@pytest.mark.thorough
def test_strengths_of_the_rare_class_are_the_datasets_and_the_lines_the_theorys():
    p, losses = np.array([0.03, 0.1, 0.3]), ("spectral", "infonce_distance", "barlow", "alignment")
    lead, shape = ("frequency", "load", "replicate", "class"), (3, 2, 4, 3)
    data = xr.Dataset(
        {name: (lead, RANDOM.uniform(0.1, 1, shape)) for name in losses}
        | {"status": (lead[:3], np.zeros(shape[:3], np.int8))},
        {"frequency": p, "load": [0.0, 1.0], "replicate": range(4), "class": [1, 2, 3]},
        attributes("imbalance", {}),
    )
    left, right = FIGURES["imbalance"]["figure"](data).axes
    for drawn, name in zip(markers(left), losses, strict=False):
        np.testing.assert_allclose(drawn[:, 1], data[name].isel({"load": 1, "class": 2}).mean("replicate"))
    x, y = left.lines[0].get_data()
    exact = class_strengths(np.stack([0.6 * (1 - x), 0.4 * (1 - x), x], -1), 1.0, 0.1, "spectral", weight_decay=0.3)
    np.testing.assert_allclose(y, exact[:, 2], rtol=1e-12)
    plain = data.isel(load=0)
    ratio = (plain["barlow"].isel({"class": 2}) / plain["barlow"].isel({"class": 0})).mean("replicate")
    np.testing.assert_allclose(markers(right)[0][:, 1], ratio[1:])  # the first is too rare for Barlow Twins to settle
    assert FIGURES["imbalance"]["figure"](data.isel(load=0)) is None
