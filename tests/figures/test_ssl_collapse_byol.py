"""The figures of BYOL: what is on the axes is the dataset and the theory."""

import numpy as np
import pytest
import xarray as xr
from matplotlib.collections import QuadMesh

from figures.ssl_collapse import FIGURES
from figures.ssl_collapse.byol_modes import CLEAN, NOISE
from sims.ssl_collapse import byol_training
from tests.figures.datasets import attributes
from theory.ssl_collapse import (
    byol_fixed_points,
    byol_invariant,
    byol_passage_time,
    byol_trajectory,
    direct_predictor_critical_start,
    direct_predictor_strengths,
)

RANDOM = np.random.default_rng(0)
MODE = np.arange(1, 5)


def markers(axis):
    """Markers of every error-bar series of an axis: their x and y."""
    return [line.get_xydata() for line in axis.lines if line.get_marker() == "o"]


def dataset(name, lead, coordinates, outputs, inner=(), **theory):
    """Draws of every output over the leading dims, replicate and inner dims."""
    sizes = {k: np.size(v) for k, v in coordinates.items()} | {"replicate": 5}
    dims = (*lead, "replicate", *inner)
    variables = {n: (dims, RANDOM.normal(0.3, 0.1, [sizes[d] for d in dims]), {"label": n}) for n in outputs}
    variables |= {f"{n}_theory": v for n, v in theory.items()}
    variables["status"] = ((*lead, "replicate"), np.zeros([sizes[d] for d in (*lead, "replicate")], np.int8))
    scalars = {k: v for k, v in coordinates.items() if np.ndim(v) == 0}
    arrays = {k: (k, np.asarray(v, float)) for k, v in coordinates.items() if np.ndim(v)}
    data = xr.Dataset(variables, scalars | arrays | {"replicate": range(5)}, attributes(name, {}))
    return data.assign_coords(mode=MODE) if "mode" in dims else data


def test_the_modes_are_those_of_the_experiments():
    np.testing.assert_array_equal(CLEAN, byol_training.CLEAN)
    np.testing.assert_array_equal(NOISE, byol_training.NOISE)


def test_fixed_points_lie_on_their_curves():
    eta = np.array([0.02, 0.08, 0.19])
    data = dataset(
        "byol", ("weight_decay",), {"weight_decay": eta, "mode": MODE}, ("predictor", "predictor_ema"), ("mode",)
    )
    left, right = FIGURES["byol"]["figure"](data).axes
    for k in range(4):
        x, y = (
            left.lines[0].get_data()
            if not k
            else next(line for line in left.lines if line.get_label().startswith(rf"$a={CLEAN[k]:g}")).get_data()
        )
        np.testing.assert_allclose(y, byol_fixed_points(CLEAN[k], NOISE[k], x).stable, rtol=1e-12)
    np.testing.assert_allclose(markers(left)[0][:, 1], data["predictor"].sel(mode=1).mean("replicate"))
    np.testing.assert_allclose(markers(left)[1][:, 1], data["predictor_ema"].sel(mode=1).mean("replicate"))
    first = data["predictor"].sel(mode=1).mean("replicate") * 1.8 / 1.4
    np.testing.assert_allclose(markers(right)[0][:, 1], first)
    assert FIGURES["byol"]["figure"](data.isel(weight_decay=0)) is None


def test_maps_hold_the_margins_and_the_edge():
    eta, start = np.linspace(0.02, 0.3, 5), np.linspace(0.05, 0.6, 6)
    where = {"weight_decay": eta, "start": start, "mode": MODE}
    known = (("weight_decay", "start", "mode"), np.where(RANDOM.uniform(size=(5, 6, 4)) < 0.2, np.nan, 0.5))
    names = ("survival", "survival_ema")
    data = dataset(
        "byol_survival", ("weight_decay", "start"), where, names, ("mode",), survival=known, survival_ema=known
    )
    axes = FIGURES["byol_survival"]["figure"](data).axes
    for row, name in enumerate(names):
        for k in range(4):
            axis = axes[4 * row + k]
            mesh = next(c for c in axis.collections if isinstance(c, QuadMesh))
            expected = data[name].isel(mode=k).mean("replicate").values.T
            np.testing.assert_allclose(np.ma.getdata(mesh.get_array()).reshape(6, 5), expected)
            hatched = [c for c in axis.collections if c.get_hatch()]
            assert sum(len(c.get_paths()) for c in hatched) == np.isnan(known[1][..., k]).sum()
            x, y = (v[:-1] for v in axis.lines[0].get_data())
            np.testing.assert_allclose(y, byol_fixed_points(CLEAN[k], NOISE[k], x).saddle, rtol=1e-12)
    assert FIGURES["byol_survival"]["figure"](data.isel(start=0)) is None


@pytest.mark.thorough
def test_the_basin_has_the_paths_of_both():
    start, encoder, time = np.array([0.0, 0.2, 0.4]), np.array([0.05, 0.2, 0.5]), np.array([15.0, 30.0])
    where = {"start": start, "encoder": encoder, "time": time, "mode": MODE, "weight_decay": 0.045}
    data = dataset("byol_basin", ("start", "encoder"), where, ("p", "w2"), ("time", "mode"))
    one = dataset("byol_basin", ("start", "encoder"), where, ("survival",), ("mode",))
    known = (("start", "encoder", "mode"), np.full((3, 3, 4), 0.5))
    data = data.assign(survival=one["survival"], survival_theory=known)
    axes = FIGURES["byol_basin"]["figure"](data).axes
    mesh = next(c for c in axes[0].collections if isinstance(c, QuadMesh))
    expected = data["survival"].isel(mode=0).mean("replicate").values.T
    np.testing.assert_allclose(np.ma.getdata(mesh.get_array()).reshape(3, 3), expected)
    flow = axes[4]
    paths = [line.get_xydata() for line in flow.lines if len(line.get_xydata()) == 200 and line.get_zorder() == 3]
    assert len(paths) == 9
    end = byol_trajectory([30.0], 0.0, 0.05**2, a=0.4, c=0.3, weight_decay=0.045)
    np.testing.assert_allclose(paths[0][-1], [end.p[0], end.w2[0]], rtol=1e-6)
    drawn = next(m for m in markers(flow) if len(m) == 2)
    here = data.sel(start=0.0, encoder=0.05, mode=4).mean("replicate")
    np.testing.assert_allclose(drawn, np.stack([here["p"], here["w2"]], 1))
    assert FIGURES["byol_basin"]["figure"](data.isel(encoder=0)) is None


@pytest.mark.thorough
def test_paths_and_times_are_the_theory_and_the_runs():
    time = np.array([4.0, 8.0])
    where = {
        "start": [0.1, 0.3], "encoder": 0.5, "time": time, "mode": MODE, "weight_decay": 0.045, "predictor_rate": 1.5,
        "ema_rate": 0.5,
    }  # fmt: skip
    data = dataset("byol_trajectory", ("start",), where, ("p", "w2", "tau", "invariant"), ("time", "mode"))
    axes = FIGURES["byol_trajectory"]["figure"](data).axes
    how = {"a": 0.9, "c": 0.3, "weight_decay": 0.045, "predictor_rate": 1.5, "ema_rate": 0.5}
    exact = byol_trajectory([8.0], 0.1, 0.25, **how)
    for axis, value in zip(axes, [*exact, byol_invariant(np.array([8.0]), 0.1, 0.25, 0.045, 1.5)], strict=True):
        np.testing.assert_allclose(axis.lines[1].get_ydata()[-1], value[0], rtol=1e-6)
    np.testing.assert_allclose(markers(axes[0])[0][:, 1], data["p"].isel(start=0, mode=0).mean("replicate"))

    distance = np.array([0.1, 0.2, 0.4])
    data = dataset(
        "byol_ghost",
        ("noise", "distance"),
        {"noise": [0.2, 0.8], "distance": distance, "clean": 1.0},
        ("time", "share"),
    )
    left, right = FIGURES["byol_ghost"]["figure"](data).axes
    x, y = next(line for line in left.lines if line.get_label() == "$c=0.2$").get_data()
    decay = (1 + x**2) / 4.8
    np.testing.assert_allclose(y, byol_passage_time(1.5 / 2.4, 0.5 / 2.4, 1.0, 0.2, decay), rtol=1e-9)
    np.testing.assert_allclose(markers(right)[1][:, 1], data["share"].isel(noise=1).mean("replicate"))
    assert FIGURES["byol_ghost"]["figure"](data.isel(distance=0)) is None


@pytest.mark.thorough
def test_directpred_has_its_strengths_and_its_edges():
    eps, start = np.array([0.0, 0.1, 0.4, 2.0]), np.array([0.01, 0.05, 0.2])
    where = {"eps": eps, "start": start, "mode": MODE, "weight_decay": 0.045}
    known = (("eps", "start", "mode"), np.full((4, 3, 4), 0.75))
    data = dataset("direct_predictor", ("eps", "start"), where, ("root", "survival"), ("mode",), survival=known)
    axes = FIGURES["direct_predictor"]["figure"](data).axes
    for k, line in enumerate(axes[0].lines[:8:2]):
        x, y = line.get_data()
        s = direct_predictor_strengths(CLEAN[None, :], NOISE[None, :], 0.045, x[:, None])
        if k == 0:
            np.testing.assert_allclose(y, np.sqrt(s[:, 0]), rtol=1e-9)
    np.testing.assert_allclose(markers(axes[0])[2][:, 1], data["root"].isel(start=-1, mode=2).mean("replicate"))
    x, y = axes[3].lines[0].get_data()
    s = np.asarray(direct_predictor_strengths(CLEAN[None, :], NOISE[None, :], 0.045, x[:, None]))
    edge = np.asarray(direct_predictor_critical_start(s.max(1), 0.4, 0.3, 0.045, x))
    finite = np.isfinite(edge) & (edge > 0)
    np.testing.assert_allclose(y[finite], edge[finite], rtol=1e-9)
    assert FIGURES["direct_predictor"]["figure"](data.isel(eps=0)) is None
