"""A learned source: the perfect one as a limit, and depth three."""

import numpy as np
import pytest

from sims.engine.agreement import assess
from sims.engine.experiment import configure
from sims.engine.run import run
from sims.transfer.finite_source import finite_source


def job(**wish):
    return configure(finite_source, "smoke", {"d": 30, "replicates": 4, **wish})


@pytest.mark.thorough
def test_enough_clean_samples_are_a_perfect_source(tmp_path):
    dataset, _ = run(job(gamma_source=[1.5], sigma_source=[0.0]), tmp_path, progress=False)
    same = dataset["linear_transfer_risk_true_angle"]
    np.testing.assert_allclose(dataset["linear_transfer_risk_theory"], same, rtol=1e-6)


@pytest.mark.thorough
def test_the_end_point_at_depth_three(tmp_path):
    wish = {"depth": 3, "flow_steps": 800, "theta": [0.7], "sigma": [0.5]}
    dataset, _ = run(job(**wish), tmp_path, progress=False)
    assert (dataset["status"] == 0).all()
    for judgement in assess(dataset, finite_source).judgements[:2]:
        assert judgement.outcome == "agrees", judgement


def test_more_source_samples_than_are_drawn_are_refused():
    with pytest.raises(ValueError, match=r"`gamma_source` must be at most gamma_source_max = 2.5, but got 4\."):
        configure(finite_source, "laptop", {"gamma_source": [4.0]})
