"""The figures of training in time: what is on the axes is the dataset and the theory."""

import numpy as np
import pytest
import xarray as xr

from figures.ssl_collapse import FIGURES
from tests.figures.datasets import attributes
from theory.ssl_collapse import plateau_escape_rate, riccati_flow

RANDOM = np.random.default_rng(0)
T = np.array([0.1, 0.5, 1.0, 4.0])


def markers(axis):
    """Markers of every error-bar series of an axis: their x and y."""
    return [line.get_xydata() for line in axis.lines if line.get_marker() == "o" and len(line.get_xydata())]


def test_modes_over_time_and_half_times_over_strengths():
    lead, inner = ("weight_decay", "replicate"), ("mode", "time")
    strengths = {
        name: ((*lead, *inner), RANDOM.uniform(size=(2, 5, 3, 4)))
        for name in ("spectral", "spectral_theory", "infonce", "infonce_theory", "infonce_quartic")
    }
    half = RANDOM.uniform(1, 2, size=(2, 5, 3))
    half[1, :, 2] = np.inf
    data = xr.Dataset(
        strengths
        | {"half_time": ((*lead, "mode"), half), "half_time_theory": ((*lead, "mode"), half)}
        | {"status": (lead, np.zeros((2, 5), np.int8))},
        {"weight_decay": [0.0, 0.5], "replicate": range(5), "mode": [1, 2, 3], "time": T},
        attributes("dynamics", {}),
    )
    left, middle, right = FIGURES["dynamics"]["figure"](data).axes
    for axis, name in ((left, "spectral"), (middle, "infonce")):
        for mode, drawn in enumerate(markers(axis)):
            expected = data[name].isel(weight_decay=0, mode=mode).mean("replicate")
            np.testing.assert_allclose(drawn, np.stack([T, expected], 1))
    lines = [line.get_ydata() for line in left.lines if line.get_linestyle() == "-" and line.get_marker() == "None"]
    for line, mode in zip([y for y in lines if len(y) == 4], range(3), strict=True):
        np.testing.assert_allclose(line, data["spectral_theory"].isel(weight_decay=0, mode=mode).mean("replicate"))
    first = markers(right)
    strength = data["spectral_theory"].isel(weight_decay=0, time=-1).mean("replicate")
    np.testing.assert_allclose(np.concatenate(first), np.stack([strength, half[0].mean(0)], 1))
    assert FIGURES["dynamics"]["figure"](data.isel(weight_decay=1)) is not None


@pytest.mark.thorough
def test_eigenvalues_of_the_gram_matrix():
    B = np.diag([0.9, 0.4])
    gram = np.stack([riccati_flow(T, 0.3 * RANDOM.normal(size=(2, 2)), B, 1.0) for _ in range(10)]).reshape(
        2, 5, 4, 2, 2
    )
    dims = ("rank", "replicate", "time", "row", "column")
    data = xr.Dataset(
        dict.fromkeys(("white", "white_theory", "white_modes_alone"), (dims, gram))
        | {"status": (dims[:2], np.zeros((2, 5), np.int8))},
        {"rank": [1.0, 2.0], "replicate": range(5), "time": T, "row": [1, 2], "column": [1, 2], "weight_decay": 0.4},
        attributes("riccati", {}),
    )
    for k, axis in enumerate(FIGURES["riccati"]["figure"](data).axes):
        largest, least = markers(axis)
        values = np.linalg.eigvalsh(gram[k])
        np.testing.assert_allclose(largest[:, 1], values[..., 1].mean(0))
        np.testing.assert_allclose(least[:, 1], values[..., 0].mean(0), atol=1e-15)
    assert len(FIGURES["riccati"]["figure"](data.isel(rank=0)).axes) == 1


def test_every_run_of_minibatches_is_drawn():
    dims, shape = ("augmentation", "replicate", "time", "mode"), (2, 5, 4, 3)
    data = xr.Dataset(
        {name: (dims, RANDOM.uniform(size=shape)) for name in ("curve", "curve_theory")}
        | {"status": (dims[:2], np.zeros((2, 5), np.int8))},
        {"augmentation": [0.5, 1.0], "replicate": range(5), "time": T, "mode": [1, 2, 3]},
        attributes("minibatch_dynamics", {}),
    )
    axes = FIGURES["minibatch_dynamics"]["figure"](data).axes
    for k, axis in enumerate(axes):
        drawn = np.stack([xy[:, 1] for xy in markers(axis)])
        np.testing.assert_allclose(drawn, data["curve"][k].transpose("mode", "replicate", "time").values.reshape(15, 4))
        lines = [line for line in axis.lines if line.get_label() in ("1", "2", "3")]
        np.testing.assert_allclose(
            [line.get_ydata() for line in lines], data["curve_theory"][k].mean("replicate").values.T
        )


def test_the_plateau_its_exit_and_the_rate():
    rho, t = np.array([0.5, 0.6]), np.linspace(1, 50, 50)
    rate = np.asarray(plateau_escape_rate(1.6, 2.0, 0.8, 0.4 / rho))
    out = np.minimum(1e-8 * np.exp(2 * rate[:, None] * t), rho[:, None])
    path = np.stack([np.full_like(out, 0.8), np.where(out < 0.3, 0.4, 1e-9), out, np.full_like(out, 1e-12)], -1)
    path = np.repeat(path[:, None], 3, 1)
    held = np.array([[0.8, 0.4, 0, 0]] * 2)
    end = np.array([[0.8, 0, r, 0] for r in rho])
    lead = ("rho_out", "replicate")
    data = xr.Dataset(
        {
            "escape_rate": (lead, rate[:, None] + 1e-3 * RANDOM.normal(size=(2, 3))),
            "escape_rate_theory": ("rho_out", rate),
            "held_theory": (("rho_out", "mode"), held),
            "end_theory": (("rho_out", "mode"), end),
            "path": ((*lead, "time", "mode"), path),
            "status": (lead, np.zeros((2, 3), np.int8)),
        },
        {"rho_out": rho, "replicate": range(3), "time": t, "mode": [1, 2, 3, 4], "a_out": 0.4},
        attributes("plateau", {}),
    )
    left, middle, right = FIGURES["plateau"]["figure"](data).axes
    for axis in (left, middle):
        for mode, drawn in enumerate(markers(axis)):
            np.testing.assert_allclose(drawn[:, 1], path[1, 0, :, mode])
    slope = next(line for line in middle.lines if line.get_color() == "#000000")
    np.testing.assert_allclose(np.polyfit(slope.get_xdata(), np.log(slope.get_ydata()), 1)[0], 2 * rate[1])
    x, y = next(line for line in right.lines if len(line.get_xdata()) == 200).get_data()
    np.testing.assert_allclose(y, plateau_escape_rate(1.6, 2.0, 0.8, 0.4 / x))
    np.testing.assert_allclose(markers(right)[0][:, 1], data["escape_rate"].mean("replicate"))
    assert FIGURES["plateau"]["figure"](data.isel(rho_out=0)) is None
