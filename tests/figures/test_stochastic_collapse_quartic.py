"""The figure of the quartic double well: what is on the axes is the dataset and the theory."""

import jax
import numpy as np
import pytest
import xarray as xr

from figures.stochastic_collapse.passage import passage
from figures.stochastic_collapse.quartic import quartic
from tests.figures.datasets import attributes
from theory.stochastic_collapse import collapse_fraction, mean_first_passage, quartic_moment, quartic_of_steps

ZETA, MU = np.array([0.5, 1.2, 1.6, 2.5]), 1.5
TIMES = np.array([2.0, 4.0])


@pytest.fixture
def dataset():
    random = np.random.default_rng(0)
    lead, moment = ("zeta", "replicate"), np.linspace(0, 4, 21)
    paths = np.cumsum(random.normal(size=(4, 3, 2, 21)), -1) / 5
    data = xr.Dataset(
        {
            "exponent": (lead, random.normal(size=(4, 3))),
            "collapsed": ((*lead, "time"), random.uniform(size=(4, 3, 2))),
            "mean_distance": (lead, random.uniform(size=(4, 3))),
            "second_moment": (lead, random.uniform(size=(4, 3))),
            "path": ((*lead, "sample", "moment"), paths),
            "path_theory": ((*lead, "sample", "moment"), paths + 0.1),
            "status": (lead, np.zeros((4, 3), np.int8)),
        },
        {"zeta": ZETA, "mu": MU, "replicate": range(3), "time": TIMES, "sample": range(2), "moment": moment},
    )
    data.attrs = attributes("quartic", {"dt": 0.01, "eps": 1e-3, "start": 2.0})
    return data


@pytest.mark.thorough
def test_paths_and_curves_are_those_of_the_dataset_and_the_theory(dataset):
    axes = quartic(dataset).axes
    for axis, cell in zip(axes[:3], (1, 2, 3), strict=True):
        lines = axis.lines
        np.testing.assert_allclose(lines[0].get_ydata(), np.exp(dataset["path_theory"].values[cell, 0, 0]))
        np.testing.assert_allclose(lines[1].get_ydata(), np.exp(dataset["path"].values[cell, 0, 0]))
    shares, moments = axes[3], axes[4]
    dense = shares.lines[0].get_xdata()
    with jax.enable_x64(True):
        model = quartic_of_steps(MU, dense, 0.01)
        curve = collapse_fraction(2.0, 1e-3, *model, 2.0, start="normal", cells=1024, steps=100)
        np.testing.assert_allclose(shares.lines[0].get_ydata(), curve, rtol=1e-10, atol=1e-12)
        live = dense**2 < 2 * MU
        np.testing.assert_allclose(moments.lines[0].get_ydata()[live], quartic_moment(2, MU, dense[live]))
    assert (moments.lines[0].get_ydata()[~live] == 0).all()
    words = [text.get_text() for axis in axes[:3] for text in axis.texts]
    assert [w for w in words if "zeta" in w] == [
        rf"{phase}, $\zeta = {z}$" for phase, z in (("bimodal", 1.2), ("unimodal", 1.6), ("collapsed", 2.5))
    ]


@pytest.mark.thorough
def test_a_phase_without_cells_says_so_and_one_noise_is_no_sweep(dataset):
    axes = quartic(dataset.isel(zeta=[0, 3])).axes
    assert axes[1].texts[0].get_text() == "no cell in this phase"
    assert quartic(dataset.isel(zeta=0)) is None


@pytest.mark.thorough
def test_passages_are_drawn_over_their_double_integral():
    draws = np.random.default_rng(0).uniform(2, 3, (3, 4))
    data = xr.Dataset(
        {
            "passage": (("zeta", "replicate"), draws),
            "status": (("zeta", "replicate"), np.zeros((3, 4), np.int8)),
        },
        {"zeta": [1.2, 1.6, 2.0], "mu": 1.0, "replicate": range(4)},
    )
    data.attrs = attributes("passage", {"dt": 0.02, "eps": 0.05, "start": 1.0})
    left, right = passage(data).axes
    with jax.enable_x64(True):
        for line, dt in zip(left.lines[:2], (0.02, 0.0), strict=True):
            law = mean_first_passage(0.05, 1.0, 1.0, line.get_xdata(), seen_every=dt)
            np.testing.assert_allclose(line.get_ydata(), law, rtol=1e-4)
        law = mean_first_passage(0.05, 1.0, 1.0, data["zeta"].values, seen_every=0.02)
    np.testing.assert_allclose(right.lines[0].get_ydata(), draws.mean(1) / law - 1, rtol=1e-4)
    assert passage(data.isel(zeta=0)) is None
