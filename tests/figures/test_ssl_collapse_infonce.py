"""The figures of InfoNCE: what is on the axes is the dataset and the theory."""

import numpy as np
import pytest
import xarray as xr
from matplotlib.collections import PathCollection, QuadMesh

from figures.ssl_collapse import FIGURES
from tests.figures.datasets import attributes
from theory.ssl_collapse import (
    finite_negatives_correction,
    finite_negatives_dot_correction,
    finite_negatives_shift,
    infonce_mode_strength,
    infonce_variance,
)

RANDOM = np.random.default_rng(0)
REPLICATES = 6


def drawn(theory, noise=0.01):
    """The theory with noise, the replicate second to the axes."""
    return theory[:, :, None] * (1 + noise * RANDOM.normal(size=(*theory.shape[:2], REPLICATES, *theory.shape[2:])))


def markers(axis):
    """Markers of every error-bar series of an axis: their x and y."""
    return [
        line.get_xydata() for line in axis.lines if line.get_marker() not in ("", "None") and len(line.get_xydata())
    ]


def phase_diagram_dataset():
    sigma2, decay, mode = np.geomspace(0.06, 1.3, 7), np.array([0.0, 0.1, 0.4]), np.arange(1, 7)
    a = (1 / mode)[None, None, :]
    s = np.asarray(infonce_variance(a, sigma2[:, None, None], 1.0, 2.0, decay[None, :, None]))
    rank = (s > 0).sum(-1).astype(float)
    axes = ("sigma2", "weight_decay")
    return xr.Dataset(
        {
            "strength": ((*axes, "replicate", "mode"), drawn(np.maximum(s, 1e-4))),
            "strength_theory": ((*axes, "mode"), s),
            "rank": ((*axes, "replicate"), np.repeat(rank[:, :, None], REPLICATES, axis=2)),
            "rank_theory": (axes, rank),
            "status": ((*axes, "replicate"), np.zeros((7, 3, REPLICATES), np.int8)),
        },
        {
            "sigma2": sigma2, "weight_decay": decay, "mode": mode, "replicate": range(REPLICATES), "alpha": 2.0,
            "temperature": 1.0,
        },
        attributes("phase_diagram", {"d": 6, "m": 6, "negatives": 63}),
    )  # fmt: skip


@pytest.mark.thorough
def test_the_phase_diagram_shows_strengths_ranks_and_their_boundaries():
    data = phase_diagram_dataset()
    axes = FIGURES["phase_diagram"]["figure"](data).axes
    strengths = next(c for c in axes[0].collections if isinstance(c, QuadMesh))
    ranks = next(c for c in axes[3].collections if isinstance(c, PathCollection))
    first = data.isel(weight_decay=0)
    found = np.ma.getdata(strengths.get_array()).reshape(6, 7)
    np.testing.assert_allclose(found, first["strength"].mean("replicate").values.T[::-1])
    found = np.ma.getdata(ranks.get_array()).reshape(7, 3)
    np.testing.assert_allclose(found, data["rank"].mean("replicate"))
    x, y = axes[0].lines[0].get_xydata().T
    np.testing.assert_allclose(x, y)
    x, y = axes[3].lines[2].get_xydata().T
    np.testing.assert_allclose((x + y)[np.isfinite(y)], 1 / 3)
    best = first["strength"].sel(mode=1).mean("replicate").values
    alive = first["strength_theory"].sel(mode=1).values > 0.01
    assert any(np.allclose(m[:, 1], best[alive]) for m in markers(axes[1]) if len(m) == alive.sum())
    staircase = axes[2].lines[0].get_xydata()
    assert set(np.round(np.diff(staircase[:, 1]), 6)) <= {0.0, -1.0}
    assert FIGURES["phase_diagram"]["figure"](data.isel(sigma2=0)) is None
    assert FIGURES["phase_diagram"]["figure"](data.isel(weight_decay=0)) is not None


@pytest.mark.thorough
def test_strengths_and_shifts_stand_on_their_curves():
    q, N, modes = np.array([0.3, 0.5, 0.8]), np.array([15.0, 63.0]), np.array([1.0, 3.0])
    limit = np.asarray(infonce_mode_strength(q))
    shift = np.array([[finite_negatives_shift(np.full((3, int(k)), q[:, None]), n)[:, 0] for k in modes] for n in N])
    s = limit[:, None, None] + shift.transpose(2, 0, 1)
    noisy = s[..., None] * (1 + 1e-3 * RANDOM.normal(size=(3, 2, 2, REPLICATES)))
    axes = ("q", "negatives", "modes")
    data = xr.Dataset(
        {
            "strength": ((*axes, "replicate"), noisy),
            "strength_theory": (axes, np.broadcast_to(limit[:, None, None], s.shape)),
            "status": ((*axes, "replicate"), np.zeros(noisy.shape, np.int8)),
        },
        {"q": q, "negatives": N, "modes": modes, "replicate": range(REPLICATES)},
        attributes("strength", {}),
    )
    panels = FIGURES["strength"]["figure"](data).axes
    shown = markers(panels[0])
    np.testing.assert_allclose(shown[0][:, 1], noisy[:, 0, 0].mean(-1))
    np.testing.assert_allclose(shown[1][:, 1], noisy[:, 1, 0].mean(-1))
    line = panels[0].lines[0].get_xydata()
    np.testing.assert_allclose(line[:, 1], infonce_mode_strength(line[:, 0]))
    scaled = (noisy.mean(-1) - limit[:, None, None]) * N[None, :, None]
    np.testing.assert_allclose(markers(panels[1])[0][:, 1], scaled[:, 0, 0])
    assert FIGURES["strength"]["figure"](data.isel(q=0)) is None


def negatives_dataset(s, names, theory):
    N, modes = np.array([7.0, 31.0]), np.array([1.0, 3.0])
    values = {}
    for name in names:
        exact = np.array([[[theory(name)(np.full(int(k), x), n) for k in modes] for n in N] for x in s])
        values[name] = (("strength", "negatives", "modes", "replicate"), exact[..., None] * np.linspace(0.99, 1.01, 4))
    values["status"] = (("strength", "negatives", "modes", "replicate"), np.zeros((len(s), 2, 2, 4), np.int8))
    coordinates = {"strength": s, "negatives": N, "modes": modes, "replicate": range(4), "rho": 0.6}
    return xr.Dataset(values, coordinates, attributes("negatives", {}))


@pytest.mark.thorough
def test_corrections_times_the_number_of_negatives():
    s = np.array([0.25, 0.5, 1.0])

    def theory(name):
        rho = 0.6 if name == "with_positive" else None
        return lambda s, N: finite_negatives_correction(s, N, rho=rho)

    data = negatives_dataset(s, ("negatives_only", "with_positive"), theory)
    panels = FIGURES["negatives"]["figure"](data).axes
    for axis, name in zip(panels, ("negatives_only", "with_positive"), strict=True):
        scaled = (data[name].mean("replicate") * data["negatives"]).values
        np.testing.assert_allclose(markers(axis)[0][:, 1], scaled[:, 0, 0])
        line = axis.lines[0].get_xydata()
        np.testing.assert_allclose(np.interp(s, *line.T), scaled[:, 0, 0], rtol=2e-3)
    dot = negatives_dataset(np.array([0.1, 0.3, 0.6]), ("dot",), lambda name: finite_negatives_dot_correction)
    axis = FIGURES["negatives_dot"]["figure"](dot).axes[0]
    line = axis.lines[0].get_xydata()
    known = np.isfinite(line[:, 1]) & (line[:, 0] > 0)
    exact = [-finite_negatives_dot_correction([x], 1.0) for x in line[known, 0][::40]]
    np.testing.assert_allclose(line[known, 1][::40], exact)
    assert FIGURES["negatives"]["figure"](data.isel(strength=0)) is None


def test_pairs_stand_on_their_curves():
    c = np.array([0.3, 1.5, 5.0])
    kinds = ("augmented", "clean_negatives", "clean")
    s = np.stack([infonce_variance(1.0, c, pairs=p) for p in kinds], axis=1)
    data = xr.Dataset(
        {
            "strength": (("noise", "replicate", "pairs"), np.repeat(s[:, None], 4, axis=1)),
            "status": (("noise", "replicate"), np.zeros((3, 4), np.int8)),
        },
        {"noise": c, "replicate": range(4), "pairs": [0, 1, 2]},
        attributes("pairs", {}),
    )
    axis = FIGURES["pairs"]["figure"](data).axes[0]
    for k, line in enumerate(line for line in axis.lines if len(line.get_xydata()) > 100):
        np.testing.assert_allclose(line.get_ydata(), infonce_variance(1.0, line.get_xdata(), pairs=kinds[k]))
    found = [m for m in markers(axis) if len(m) == 3]
    np.testing.assert_allclose([m[:, 1] for m in found], s.T)
