"""The probe at any n: cases in which every draw is known."""

import numpy as np
import pytest

from sims.engine.experiment import configure
from sims.engine.run import run
from sims.transfer.probe import probe


def draws(folder, **wish):
    wish = {"n": [3, 20], "theta": [0.0], "sigma": [0.0], "ridge": [0.0], "n_max": 20, "draws": 2, **wish}
    return run(configure(probe, "smoke", {"replicates": 2, **wish}), folder, progress=False)[0]


@pytest.mark.parametrize("depth", [2, 3])
def test_the_source_itself_is_learned_without_error(tmp_path, depth):
    risk = draws(tmp_path, depth=depth, source_norm=0.7)["linear_transfer_risk"]
    assert np.abs(risk).max() < 1e-12


def test_an_overwhelming_ridge_learns_nothing(tmp_path):
    dataset = draws(tmp_path, ridge=[1e9], theta=[0.9], sigma=[1.0], target_norm=1.3)
    np.testing.assert_allclose(dataset["linear_transfer_risk"], 1.3**2, rtol=1e-6)


@pytest.mark.thorough
def test_the_dimension_does_not_matter_only_the_angle_does(tmp_path):
    wish = {"theta": [1.0], "sigma": [0.5], "ridge": [0.3], "replicates": 20, "draws": 200}
    means = [draws(tmp_path / str(d), d=d, **wish)["linear_transfer_risk"].mean("replicate") for d in (2, 40)]
    np.testing.assert_allclose(means[0], means[1], rtol=0.05)


def test_more_samples_than_are_drawn_are_refused():
    with pytest.raises(ValueError, match=r"`n` must be at most n_max = 100, but got 200\."):
        configure(probe, "laptop", {"n": [200]})
