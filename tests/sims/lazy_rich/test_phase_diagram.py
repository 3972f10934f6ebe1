"""What the lazy-rich phase diagram must show, at laptop size."""

import numpy as np
import pytest

from sims.engine.experiment import configure
from sims.engine.run import run
from sims.lazy_rich import phase_diagram


@pytest.mark.slow
def test_the_diagram_shows_what_the_paper_says(tmp_path):
    data, _ = run(configure(phase_diagram, "laptop", {"replicates": 6}), tmp_path, progress=False)
    tau, delta = data["tau"].values, data["delta"].values
    mean = data.mean("replicate")

    def at(name, step):
        return mean[name].isel(step=step).transpose("tau", "delta").values

    def highest(values):
        return tuple(int(i) for i in np.unravel_index(values.argmax(), values.shape))

    # Early on only small upstream networks have learned.
    early = at("test_loss", 0)
    row, column = highest(-early)
    assert row == 0
    assert delta[column] > 0
    assert early[:, delta < 0].min() > 2 * early.min()
    assert early[tau > 1].min() > 5 * early.min()
    # Late: the kernel moves most at small scale, a little downstream.
    row, column = highest(at("kernel_distance", -1))
    assert tau[row] < 0.2
    assert -0.5 < delta[column] < 0
    # Activation patterns change upstream, with an edge at balance.
    patterns = at("hamming_distance", -1)
    row, column = highest(patterns)
    assert tau[row] < 0.5
    assert delta[column] > 0
    first_above, first_below = np.flatnonzero(delta > 0)[0], np.flatnonzero(delta < 0)[-1]
    assert patterns[0, first_above] > 1.5 * patterns[0, first_below]
    # Downstream the parameters have to travel.
    moved = at("parameter_distance", -1)
    assert delta[highest(moved[:1])[1]] < 0
    assert moved[0, 0] > 2 * moved[0, -1]
