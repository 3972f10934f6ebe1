"""Other heads: the plain loss, and the theory's function of a data set against a flow on its raw samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sims.descent import gradient_flow
from sims.engine.agreement import assess
from sims.engine.experiment import configure
from sims.engine.run import run
from sims.transfer.head_start import head_start
from theory.transfer import fine_tuning_head_endpoint, fine_tuning_risk


@pytest.mark.thorough
def test_the_plain_loss_has_the_end_points_of_its_own_samples(tmp_path):
    wish = {"protocol": "plain", "gamma": [0.25], "theta": [0.7, 1.4], "flow_steps": 12000, "d": 32, "replicates": 4}
    job = configure(head_start, "smoke", {**wish, "sigma": [0.5], "feature_scale": [1.0]})
    dataset, _ = run(job, tmp_path, progress=False)
    assert (dataset["status"] == 0).all()
    for judgement in assess(dataset, head_start).judgements[:2]:
        assert judgement.outcome == "agrees", judgement


def test_a_balanced_head_is_ordinary_fine_tuning():
    job = configure(head_start, "smoke")
    cells = {"gamma": 0.4, "theta": 0.8, "sigma": 0.5, "feature_scale": 1.2, "head": 1.2, "target_norm": 0.9}
    risk = head_start.predict({k: jnp.asarray(v) for k, v in cells.items()}, job.settings, None)["risk"]
    assert float(risk) == pytest.approx(float(fine_tuning_risk(0.4, 0.8, 0.5, 1.2**2, 0.9, 2)), rel=1e-12)


@pytest.mark.thorough
@pytest.mark.parametrize("head", [0.0, 0.4, 1.1, 2.0])
def test_a_flow_on_raw_samples_ends_at_the_theorys_point(head):
    scale, n, d = 1.1, 4, 12
    keys = jax.random.split(jax.random.key(3), 3)
    inputs, source = jax.random.normal(keys[0], (n, d)), jax.random.normal(keys[1], (d,))
    source = source / jnp.linalg.norm(source)
    labels = inputs @ source + 0.3 * jax.random.normal(keys[2], (n,))

    def loss(network):
        return jnp.sum((inputs @ (network[0] @ network[1]) - labels) ** 2) / n

    direction = jnp.array([0.6, 0.8])
    first, last = gradient_flow(loss, (scale * jnp.outer(source, direction), head * direction), 100.0, 20000)
    endpoint = fine_tuning_head_endpoint(inputs, labels, source, scale, head)
    np.testing.assert_allclose(first @ last, endpoint, atol=1e-6)
