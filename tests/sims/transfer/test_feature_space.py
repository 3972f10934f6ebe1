"""The probe on many features: cases in which every draw is known."""

import numpy as np
import pytest

from sims.engine.experiment import configure
from sims.engine.run import run
from sims.transfer.feature_space import feature_space


def draws(folder, **wish):
    wish = {"d": 20, "rank": [6], "n": [12], "outside": [0.0], "sigma": [0.0], "draws": 2, "replicates": 2, **wish}
    return run(configure(feature_space, "smoke", wish), folder, progress=False)[0]["probe_risk"]


@pytest.mark.thorough
def test_a_target_within_the_features_is_learned_from_enough_clean_samples(tmp_path):
    assert np.abs(draws(tmp_path)).max() < 1e-10


@pytest.mark.thorough
def test_too_few_clean_samples_leave_the_share_that_they_do_not_see(tmp_path):
    risk = draws(tmp_path, n=[3], draws=400, replicates=10)
    assert float(risk.mean()) == pytest.approx(0.5 * (1 - 3 / 6), rel=0.05)


def test_a_rank_that_leaves_no_room_for_the_target_is_refused():
    with pytest.raises(ValueError, match=r"`rank` must be below d = 6, but got 6\."):
        configure(feature_space, "smoke", {"d": 6, "rank": [6]})
