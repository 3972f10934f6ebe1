"""The figures of encoders of digits: what is on the axes is the dataset and the theory."""

import numpy as np
import pytest
import xarray as xr

from figures.ssl_collapse import FIGURES
from figures.statistics import mean
from tests.figures.datasets import attributes
from theory.ssl_collapse import infonce_mode_strength

RANDOM = np.random.default_rng(0)
A = np.array([0.7, 0.5, 0.3, 0.1])
LOSS = {"temperature": 1.0, "alpha": 2.0, "weight_decay": 0.0}


def markers(axis):
    """Markers of every error-bar series of an axis: their x and y."""
    return [line.get_xydata() for line in axis.lines if line.get_marker() == "o"]


def grown(lead, shape, prefix=""):
    names = [f"{prefix}growth{t}" for t in ("", "_theory", "_origin", "_gaussian")]
    return {name: ((*lead, "direction"), RANDOM.uniform(-0.1, 0.05, (*shape, 2))) for name in names}


@pytest.mark.thorough
def test_digits_stand_on_the_theory_of_gaussian_vectors():
    noise, lead, shape = np.array([0.2, 0.4, 0.9]), ("sigma2", "replicate"), (3, 4)
    rank = (A[None, :] > noise[:, None]).sum(1)
    q = 2 * noise[:, None] / (A[None, :] + noise[:, None])
    strength = np.repeat(np.asarray(infonce_mode_strength(q))[:, None], 4, 1)
    data = xr.Dataset(
        {
            f"{kind}_{name}": (dims, values)
            for kind in ("digits", "gaussian")
            for name, dims, values in (
                ("rank", lead, rank[:, None] + RANDOM.integers(0, 2, shape)),
                ("rank_theory", lead[:1], rank.astype(float)),
                ("strength", (*lead, "variance"), strength),
                ("spectrum", (*lead, "variance"), RANDOM.normal(size=(*shape, 4))),
            )
        }
        | grown(lead, shape, "digits_")
        | {"status": (lead, np.zeros(shape, np.int8))},
        {"sigma2": noise, "replicate": range(4), "variance": A, "direction": [1, 2], **LOSS},
        attributes("digits", {"m": 3}),
    )
    axes = FIGURES["digits"]["figure"](data).axes
    x, staircase = axes[0].lines[0].get_data()
    np.testing.assert_allclose(staircase, np.minimum((A[None, :] > x[:, None]).sum(1), 3))
    np.testing.assert_allclose(markers(axes[0])[1][:, 1], mean(data["digits_rank"]))
    x, curve = axes[1].lines[0].get_data()
    np.testing.assert_allclose(curve, infonce_mode_strength(x), rtol=1e-12)
    for found in markers(axes[1]):
        np.testing.assert_allclose(found[:, 1], infonce_mode_strength(found[:, 0]), rtol=1e-9)
        assert len(found) == (strength[:, 0] > 0.01).sum()
    at = int(np.argmax(abs(mean(data["digits_rank"]) - rank).values))
    np.testing.assert_allclose(axes[2].lines[1].get_ydata(), A - noise[at])
    np.testing.assert_allclose(markers(axes[2])[1][:, 1], mean(data["digits_spectrum"])[at])
    tilted = markers(axes[3])[-1]
    np.testing.assert_allclose(tilted[:, 0], mean(data["digits_growth_theory"]).values.ravel())
    np.testing.assert_allclose(tilted[:, 1], mean(data["digits_growth"]).values.ravel())
    assert FIGURES["digits"]["figure"](data.isel(sigma2=0)) is None


def test_ranks_of_a_relu_encoder():
    noise, lead, shape = np.array([0.1, 0.3, 0.6]), ("sigma2", "replicate"), (3, 4)
    data = xr.Dataset(
        {
            "rank": (lead, RANDOM.integers(0, 9, shape).astype(float)),
            "feature_rank": (lead, RANDOM.integers(0, 9, shape).astype(float)),
            "rank_theory": (lead[:1], np.array([9.0, 4.0, 1.0])),
            "status": (lead, np.zeros(shape, np.int8)),
        }
        | grown(lead, shape),
        {"sigma2": noise, "replicate": range(4), "direction": [1, 2], **LOSS},
        attributes("relu_encoder", {}),
    )
    left = FIGURES["relu_encoder"]["figure"](data).axes[0]
    np.testing.assert_allclose(left.lines[0].get_ydata(), [9, 4, 1])
    np.testing.assert_allclose(markers(left)[0][:, 1], mean(data["feature_rank"]))
    np.testing.assert_allclose(markers(left)[1][:, 1], mean(data["rank"]))
    assert FIGURES["relu_encoder"]["figure"](data.isel(sigma2=0)) is None


@pytest.mark.parametrize("reaches", [2, 4])
def test_ranks_of_crops_stand_beside_those_that_two_views_predict(reaches):
    lead, shape = ("reach", "alpha", "replicate"), (reaches, 3, 4)
    data = xr.Dataset(
        {
            "rank": (lead, RANDOM.integers(0, 9, shape).astype(float)),
            "rank_theory": (lead, RANDOM.integers(0, 9, shape).astype(float)),
            "status": (lead, np.zeros(shape, np.int8)),
        }
        | grown(lead, shape),
        {
            "reach": np.arange(1.0, reaches + 1), "alpha": [1.25, 1.5, 2.0], "replicate": range(4),
            "direction": [1, 2], "temperature": 1.0, "weight_decay": 0.0,
        },
        attributes("crops", {}),
    )  # fmt: skip
    left, right = FIGURES["crops"]["figure"](data).axes
    assert len(markers(left)) == min(reaches, 3)
    np.testing.assert_allclose(left.lines[0].get_ydata(), mean(data["rank_theory"])[0])
    np.testing.assert_allclose(markers(left)[-1][:, 1], mean(data["rank"])[-1])
    np.testing.assert_allclose(markers(right)[-1][:, 1], mean(data["growth"]).values.ravel())
    assert FIGURES["crops"]["figure"](data.isel(alpha=0)) is None
