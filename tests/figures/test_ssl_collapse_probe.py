"""The figure of the probes: errors and what a collapse saves are those of the dataset and of the theory."""

import numpy as np
import pytest
import xarray as xr

from figures.ssl_collapse import FIGURES
from tests.figures.datasets import attributes
from theory.ssl_collapse import best_rank, probe_risk


@pytest.mark.thorough
def test_errors_over_survivors_and_savings_over_samples():
    theta, a, noise = np.array([1.0, 0.5, 0.1]), np.array([1.0, 0.8, 0.6]), 0.5
    k, n = np.array([1.0, 2.0, 3.0]), np.array([8, 40])
    risk = np.asarray(probe_risk(theta, a, k[:, None], n.astype(float), noise))
    gain = risk[2] - risk
    lead, shape = ("survivors", "replicate", "samples"), (3, 6, 2)
    jitter = 1e-3 * np.random.default_rng(0).normal(size=shape)
    data = xr.Dataset(
        {
            "risk": (lead, risk[:, None] + jitter),
            "risk_theory": (("survivors", "samples"), risk),
            "gain": (lead, gain[:, None] + jitter),
            "gain_theory": (("survivors", "samples"), gain),
            "status": (lead[:2], np.zeros((3, 6), np.int8)),
        },
        {"survivors": k, "replicate": range(6), "samples": n, "noise_variance": noise},
        attributes("probe", {}),
    )
    left, right = FIGURES["probe"]["figure"](data).axes
    curves = [line.get_ydata() for line in left.lines if line.get_linestyle() == "-" and len(line.get_xdata()) == 3]
    np.testing.assert_allclose(curves, risk.T)
    least = [line.get_xdata()[0] for line in left.lines if line.get_marker() == "s"]
    assert least == [max(int(best_rank(theta, a, each, noise)), 1) for each in n]
    drawn = [line.get_xydata() for line in left.lines if line.get_marker() == "o"]
    np.testing.assert_allclose([xy[:, 1] for xy in drawn], data["risk"].mean("replicate").values.T)
    # The last mode's collapse saves nothing against itself: it has no curve.
    saved = [line.get_xydata() for line in right.lines if line.get_marker() == "o"]
    np.testing.assert_allclose([xy[:, 1] for xy in saved], data["gain"].mean("replicate").values[:2])
    assert FIGURES["probe"]["figure"](data.isel(survivors=0)) is None
