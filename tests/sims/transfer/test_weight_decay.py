"""Weight decay: what happens where the ridge path does not reach."""

import numpy as np
import pytest

from sims.engine.experiment import configure
from sims.engine.run import run
from sims.transfer.weight_decay import weight_decay


def draws(folder, **wish):
    wish = {"d": 12, "decay": [0.1], "depth": [2], "gamma": [1.5], "replicates": 2, **wish}
    return run(configure(weight_decay, "smoke", wish), folder, progress=False)[0]


def test_a_decay_that_empties_the_network_is_a_failure_on_record(tmp_path):
    dataset = draws(tmp_path, decay=[0.1, 10.0], learning_rate=0.01)
    np.testing.assert_array_equal(dataset["status"].sel(decay=10.0), 1)
    assert np.isnan(dataset["norm"].sel(decay=10.0)).all()
    np.testing.assert_array_equal(dataset["status"].sel(decay=0.1), 0)


def test_too_few_steps_are_a_failure_on_record(tmp_path):
    assert (draws(tmp_path, steps=10)["status"] == 1).all()


@pytest.mark.thorough
def test_the_end_does_not_depend_on_the_width(tmp_path):
    ends = [draws(tmp_path / str(width), width=width)["norm"] for width in (1, 5)]
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-6)
