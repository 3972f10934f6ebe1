"""The figures of the landscape: what is on the axes is the dataset and the theory."""

import numpy as np
import pytest
import xarray as xr
from matplotlib.collections import LineCollection

from figures.ssl_collapse import FIGURES
from figures.ssl_collapse.sections import landscape_of, marked_points
from tests.figures.datasets import attributes
from theory.ssl_collapse import quartic_loss

RANDOM = np.random.default_rng(0)


def markers(axis, mark="o"):
    """Markers of every series of an axis: their x and y."""
    return [line.get_xydata() for line in axis.lines if line.get_marker() == mark]


def section_dataset():
    decay, time = np.array([0.2, 1.1, 1.8]), np.linspace(0, 15, 7)
    shape = (3, 2, 4, 7, 2)
    return xr.Dataset(
        {
            "weight": (("weight_decay", "replicate", "path", "time", "mode"), RANDOM.uniform(-1, 1, shape)),
            "status": (("weight_decay", "replicate"), np.zeros((3, 2), np.int8)),
        },
        {
            "weight_decay": decay, "replicate": range(2), "path": range(4), "time": time, "mode": [1, 2], "first": 0.8,
            "second": 0.45, "first_noise": 0.4, "second_noise": 0.35,
        },
        attributes("sections", {}),
    )  # fmt: skip


@pytest.mark.thorough
def test_every_stationary_point_is_marked_by_its_kind_and_descents_are_those_of_the_runs():
    data = section_dataset()
    axes = FIGURES["sections"]["figure"](data).axes
    for axis, counts in zip(axes, ((4, 4, 1), (2, 1, 0), (1, 0, 0)), strict=True):
        marked = [
            sum(line.get_marker() == mark and line.get_markersize() > 5 for line in axis.lines)
            for mark in ("o", "X", "^")
        ]
        assert tuple(marked) == counts
    first = [line for line in axes[0].lines if len(line.get_xdata()) == 7]
    for line, path in zip(first, range(4), strict=True):
        np.testing.assert_allclose(
            line.get_xydata(), data["weight"].isel(weight_decay=0, replicate=0, path=path).values
        )
    assert ["collapse" in axis.get_title(loc="right") for axis in axes] == [True] * 3
    assert FIGURES["sections"]["figure"](data.isel(weight_decay=0)) is None


@pytest.mark.thorough
def test_marked_points_are_stationary_in_the_section():
    landscape = landscape_of(section_dataset(), 0.2)
    h = 1e-5
    for w, kind, counts in marked_points(landscape):
        assert sum(counts) == 4
        for step in np.eye(2) * h:
            slope = (quartic_loss(np.diag(w + step), landscape) - quartic_loss(np.diag(w - step), landscape)) / (2 * h)
            assert abs(slope) < 1e-8
        assert (kind == "minimum") == (counts[0] == 0)


def test_curvatures_and_quartic_terms_stand_against_theory():
    N, p = np.array([1, 3, 12]), np.array([0.3, 1.0])
    lead = ("n_negatives", "density", "replicate")
    dims = {"curvature": ("loss", "direction"), "quartic": ("quartic_loss",), "quartic_any": ("any_loss",)}
    sizes = {"loss": 9, "direction": 6, "quartic_loss": 7, "any_loss": 4}
    variables = {"status": (lead, np.zeros((3, 2, 5), np.int8))}
    for name, inner in dims.items():
        shape = tuple(sizes[d] for d in inner)
        theory = RANDOM.uniform(0.2, 1, (3, 2, *shape))
        variables[f"{name}_theory"] = (lead[:2] + inner, theory)
        draws = theory[:, :, None] + 0.01 * RANDOM.normal(size=(3, 2, 5, *shape))
        variables[name] = (lead + inner, draws)
    coordinates = {
        "n_negatives": N, "density": p, "replicate": range(5), "loss": range(9), "direction": range(6),
        "quartic_loss": range(7), "any_loss": [0, 1, 4, 6],
    }  # fmt: skip
    data = xr.Dataset(variables, coordinates, attributes("origin", {}))
    left, middle, right = FIGURES["origin"]["figure"](data).axes
    found = markers(left)[0]
    np.testing.assert_allclose(found[:, 0], data["curvature_theory"].isel(loss=0).values.ravel())
    np.testing.assert_allclose(found[:, 1], data["curvature"].mean("replicate").isel(loss=0).values.ravel())
    shown = [c for c in middle.collections if isinstance(c, LineCollection) and len(c.get_segments()) == 3]
    levels = [segment[0, 1] for segment in shown[0].get_segments()]
    np.testing.assert_allclose(levels, data["quartic_theory"].sel(quartic_loss=0, density=1.0))
    np.testing.assert_allclose(
        markers(middle)[0][:, 1], data["quartic"].mean("replicate").isel(quartic_loss=0, density=1)
    )
    np.testing.assert_allclose(
        markers(right)[0][:, 1], data["quartic_any"].mean("replicate").isel(any_loss=0, n_negatives=2)
    )
    assert FIGURES["origin"]["figure"](data.isel(density=0)) is None


def test_ends_of_descents_stand_against_the_minimum_and_the_saddle():
    m, n = np.array([1, 2]), np.array([0, 1, 2])
    lead = ("m", "n_positive", "replicate")
    rank = np.minimum(m[:, None, None], n[None, :, None]) + np.zeros((2, 3, 4))
    gram, loss = RANDOM.normal(size=(2, 3, 4, 2, 2)), RANDOM.normal(size=(2, 3, 4))
    data = xr.Dataset(
        {
            "rank": (lead, rank), "rank_theory": (lead, rank),
            "gram": ((*lead, "row", "column"), gram), "gram_theory": ((*lead, "row", "column"), gram + 1e-3),
            "gram_at_saddle": ((*lead, "row", "column"), gram + 1), "loss": (lead, loss),
            "loss_theory": (lead, loss + 1e-3), "loss_at_saddle": (lead, loss + 1),
            "status": (lead, np.zeros((2, 3, 4), np.int8)),
        },
        {"m": m, "n_positive": n, "replicate": range(4), "row": range(2), "column": range(2)},
        attributes("minima", {}),
    )  # fmt: skip
    left, middle, right = FIGURES["minima"]["figure"](data).axes
    np.testing.assert_allclose(markers(left)[1][:, 1], rank[1, :, 0] + 0.14)
    saddle, minimum = markers(middle)
    np.testing.assert_allclose(minimum[:, 0], (gram + 1e-3).ravel())
    np.testing.assert_allclose(saddle[:, 0], (gram + 1).ravel())
    np.testing.assert_allclose(markers(right)[1][:, 1], loss.ravel())
    assert FIGURES["minima"]["figure"](data.isel(m=0)) is None


def test_spectra_and_rates_of_every_saddle():
    theory, rate = RANDOM.normal(size=(6, 8)), np.array([2.0, 1.4, 2.0, 2.0, 0.6, 1.2])
    data = xr.Dataset(
        {
            "spectrum": (("saddle", "replicate", "eigenvalue"), np.repeat(theory[:, None], 4, 1)),
            "spectrum_theory": (("saddle", "eigenvalue"), theory),
            "escape": (("saddle", "replicate"), rate[:, None] - 0.01 * RANDOM.uniform(size=(6, 4))),
            "escape_theory": ("saddle", rate),
            "status": (("saddle", "replicate"), np.zeros((6, 4), np.int8)),
        },
        {"saddle": range(6), "replicate": range(4), "eigenvalue": range(8)},
        attributes("saddles", {"learning_rate": 0.02}),
    )
    left, right = FIGURES["saddles"]["figure"](data).axes
    np.testing.assert_allclose(np.concatenate(markers(left))[:, 1], theory.ravel())
    np.testing.assert_allclose(markers(right)[0][:, 0], rate)
    np.testing.assert_allclose(markers(right)[0][:, 1], data["escape"].mean("replicate"))
    names = {text.get_text() for text in right.texts}
    assert names == {"none\n2\n3", "1", "1, 3", "2, 3"}
    assert FIGURES["saddles"]["figure"](data.isel(saddle=0)) is None


@pytest.mark.parametrize("name", ["origin", "minima", "saddles", "sections"])
def test_registered(name):
    assert "figure" in FIGURES[name]
