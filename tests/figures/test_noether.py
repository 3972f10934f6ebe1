"""The figures of charges: what is on the axes is the dataset, the report and the theory."""

import numpy as np
import pytest
import xarray as xr
from matplotlib.collections import QuadMesh

from figures.noether import FIGURES
from figures.noether.audit import audit, save_figure
from tests.figures.datasets import attributes
from theory.noether import damping_boundaries, damping_code

BETA, E = np.array([0.0, 0.3, 0.6, 0.9]), np.geomspace(0.01, 5, 9)


@pytest.fixture
def regimes():
    codes = np.asarray(damping_code(BETA[:, None], E[None, :])).astype(float)
    steps = np.arange(41)
    data = xr.Dataset(
        {
            "regime": (("momentum", "eta_lambda", "replicate"), np.repeat(codes[..., None], 3, -1)),
            "charge": (("momentum", "eta_lambda", "replicate", "step", "unit"), np.ones((4, 9, 3, 41, 2))),
            "status": (("momentum", "eta_lambda", "replicate"), np.zeros((4, 9, 3), np.int8)),
        },
        {"momentum": BETA, "eta_lambda": E, "replicate": range(3), "step": steps},
    )
    data.attrs = attributes("phase_diagram", {})
    return data


def test_the_map_holds_the_measured_regimes_and_the_exact_boundaries(regimes):
    axis = FIGURES["phase_diagram"]["figure"](regimes).axes[0]
    mesh = next(c for c in axis.collections if isinstance(c, QuadMesh))
    np.testing.assert_array_equal(
        np.ma.getdata(mesh.get_array()).reshape(9, 4), regimes["regime"].isel(replicate=0).values.T
    )
    for line, name in zip(axis.lines[:3], ("critical", "alternating", "unstable"), strict=True):
        np.testing.assert_allclose(line.get_ydata(), getattr(damping_boundaries(line.get_xdata()), name))


def test_a_map_needs_two_axes(regimes):
    assert FIGURES["phase_diagram"]["figure"](regimes.isel(momentum=0)) is None


def test_charges_are_drawn_with_their_law_and_deviations_run_by_run():
    random = np.random.default_rng(0)
    axes = {"network": [0.0, 1.0], "optimizer": [0.0, 1.0, 4.0], "weight_decay": [0.0, 0.01], "replicate": range(2)}
    lead, shape = tuple(axes), (2, 3, 2, 2)
    measured, law = random.normal(size=(2, *shape, 3, 5, 4))
    data = xr.Dataset(
        {
            "charge": ((*lead, "family", "moment", "unit"), measured),
            "charge_theory": ((*lead, "family", "moment", "unit"), law),
            "deviation": ((*lead, "family"), random.uniform(1e-16, 1e-15, (*shape, 3))),
            "gap": ((*lead, "family"), random.uniform(1e-16, 1e-15, (*shape, 3))),
            "status": (lead, np.zeros(shape, np.int8)),
        },
        {**axes, "moment": np.arange(5.0)},
    )
    data.attrs = attributes("charges", {"steps": 4})
    axis = FIGURES["charges"]["figure"](data).axes[0]
    np.testing.assert_allclose(axis.lines[0].get_ydata(), measured[0, 0, 1, 0, 2, :, 0])
    np.testing.assert_allclose(axis.lines[1].get_ydata(), law[0, 0, 1, 0, 2, :, 0])
    dots = FIGURES["charges"]["deviations"](data).axes[0].lines
    np.testing.assert_allclose(dots[0].get_ydata(), data["deviation"][0, 0].max(("weight_decay", "family")))
    assert len(dots) == 6


def test_the_audit_shows_coefficients_and_saves_two_files(tmp_path):
    family = {
        "name": "rescale: a - b", "kind": "rescale", "status": "exact", "parts": {"a": 1.0, "b": -1.0},
        "evidence": {"gradient": 1e-16, "singular_value": 1e-16, "next_singular_value": 0.3},
    }  # fmt: skip
    flat = {"name": "flat: c", "kind": "flat", "status": "exact", "parts": {"c": 1.0}, "evidence": {}}
    report = {
        "families": [family, flat], "steps": 5, "tolerance": 1e-12,
        "charges": [{"family": family["name"], "predicted": 1e-15, "gap": 1e-16}],
    }  # fmt: skip
    figure = audit(report)
    table = np.ma.getdata(next(c for c in figure.axes[0].collections if isinstance(c, QuadMesh)).get_array())
    np.testing.assert_array_equal(table.ravel(), [1, -1])
    assert save_figure(figure, tmp_path) == ["figure.pdf", "figure.png"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["figure.pdf", "figure.png"]
