"""Learned features with a tail: the two starts, and limits in which every draw is known."""

import numpy as np
import pytest

from sims.engine.experiment import configure
from sims.engine.run import run
from sims.transfer.learned_features import learned_features


def draws(folder, **wish):
    wish = {"d": 20, "draws": 2, "gamma": [0.5], "theta": [0.7], "sigma": [0.3], "replicates": 2, **wish}
    return run(configure(learned_features, "smoke", wish), folder, progress=False)[0]


@pytest.mark.thorough
def test_an_overwhelming_ridge_learns_nothing(tmp_path):
    dataset = draws(tmp_path, relative_ridge=[1e9])
    for start in ("learned_features_risk", "isotropic_tail_risk"):
        np.testing.assert_allclose(dataset[start], 1.0, rtol=1e-5)
        np.testing.assert_allclose(dataset[f"{start}_theory"], 1.0, rtol=1e-5)


@pytest.mark.thorough
def test_both_starts_end_in_one_feature_as_the_tail_vanishes(tmp_path):
    # The ridge is far above the tail and far below the feature.
    dataset = draws(tmp_path, tail=1e-3, relative_ridge=[1e3])
    np.testing.assert_allclose(dataset["feature_strength"], 1.0, rtol=1e-5)
    np.testing.assert_allclose(dataset["learned_features_risk"], dataset["isotropic_tail_risk"], rtol=0.02)
    infinite = dataset["learned_features_risk_infinite"]
    np.testing.assert_allclose(infinite, np.sin(0.7) ** 2, rtol=1e-2)


@pytest.mark.thorough
def test_without_noise_and_ridge_enough_samples_learn_the_target(tmp_path):
    dataset = draws(tmp_path, gamma=[1.5], sigma=[0.0], relative_ridge=[1e-9])
    assert np.abs(dataset["isotropic_tail_risk"]).max() < 1e-9


def test_more_tasks_than_directions_are_refused():
    with pytest.raises(ValueError, match=r"`tasks` must be below d = 8, but got 8\."):
        configure(learned_features, "smoke", {"d": 8, "tasks": 8})
