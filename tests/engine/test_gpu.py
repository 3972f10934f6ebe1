"""The main experiment of every topic on a GPU: the numbers of a CPU."""

import jax
import numpy as np
import pytest

from sims.engine.run import run
from tests.engine.test_experiments import MAIN, tiny

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("name", MAIN)
def test_numbers_are_those_of_a_cpu(name, tmp_path):
    job = tiny(name)
    datasets = [run(job, tmp_path / kind, devices=jax.devices(kind)[:1], progress=False)[0] for kind in ("gpu", "cpu")]
    for output in job.experiment.outputs:
        found, expected = (dataset[output].values for dataset in datasets)
        # Sums in another order; what training amplifies of that stays far below a draw's own spread.
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * np.nanmax(np.abs(expected)), err_msg=output)
