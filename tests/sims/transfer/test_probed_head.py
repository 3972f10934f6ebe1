"""Probing first: the head that is probed, and the case in which it cannot hurt."""

import jax.numpy as jnp
import numpy as np
import pytest

from sims.engine.experiment import configure
from sims.engine.run import run
from sims.transfer.probed_head import predict, probed_head


@pytest.mark.thorough
def test_without_noise_the_source_itself_is_kept(tmp_path):
    wish = {"d": 30, "gamma": [0.5], "feature_scale": [1.0], "theta": [0.0], "sigma": [0.0], "replicates": 2}
    dataset, _ = run(configure(probed_head, "smoke", wish), tmp_path, progress=False)
    assert np.abs(dataset["risk"]).max() < 1e-10
    np.testing.assert_allclose(dataset["final_head"], 1.0, rtol=1e-6)


def test_small_features_with_a_probed_head_never_hurt():
    theta = jnp.linspace(0.0, jnp.pi / 2, 31)
    shared = {"gamma": 0.5, "sigma": 0.8, "feature_scale": 1e-3, "target_norm": 1.0}
    cells = {"theta": theta, **{name: jnp.full_like(theta, value) for name, value in shared.items()}}
    saved = predict(cells, {}, None)["transferability_controlled"]
    np.testing.assert_allclose(saved, 0.5 * jnp.cos(theta) ** 2, atol=1e-5)
