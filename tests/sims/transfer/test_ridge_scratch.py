"""Ridge from scratch: limits in which every draw is known, and a search that finds the least risk."""

import numpy as np
import pytest

from sims.engine.experiment import configure
from sims.engine.run import run
from sims.transfer.ridge_scratch import ridge_scratch


def draws(folder, **wish):
    wish = {"d": 20, "draws": 2, "gamma": [0.5], "sigma": [0.5], "replicates": 3, **wish}
    return run(configure(ridge_scratch, "smoke", wish), folder, progress=False)[0]


def test_without_noise_an_orthonormal_set_of_targets_is_missed_by_the_unseen_share_in_every_draw(tmp_path):
    dataset = draws(tmp_path, sigma=[1e-4], target_norm=1.2)
    np.testing.assert_allclose(dataset["tuned_risk"], 1.2**2 / 2, rtol=1e-5)


def test_an_overwhelming_ridge_learns_nothing(tmp_path):
    np.testing.assert_allclose(draws(tmp_path, relative_ridge=[1e9])["ridge_risk"], 1.0, rtol=1e-6)


def test_the_best_ridge_is_better_than_its_neighbours_on_average(tmp_path):
    relative = np.geomspace(0.2, 5, 5)
    risk = draws(tmp_path, relative_ridge=relative, replicates=20)["ridge_risk"].mean("replicate").values.ravel()
    assert risk.argmin() == 2
    assert (np.diff(risk[:3]) < 0).all()
    assert (np.diff(risk[2:]) > 0).all()


def test_no_noise_has_no_best_ridge_and_is_refused():
    with pytest.raises(ValueError, match="`sigma` must be positive"):
        configure(ridge_scratch, "smoke", {"sigma": [0.0]})
