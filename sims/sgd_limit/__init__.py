"""SGD after convergence: the experiments beside `theory.sgd_limit`."""

from sims.sgd_limit.anomalous import anomalous
from sims.sgd_limit.continuous import continuous
from sims.sgd_limit.currents import currents
from sims.sgd_limit.displacement import displacement
from sims.sgd_limit.finite_data import finite_data
from sims.sgd_limit.network import network
from sims.sgd_limit.phase_diagram import phase_diagram
from sims.sgd_limit.phase_space import phase_space
from sims.sgd_limit.regression import regression
from sims.sgd_limit.streaming import streaming
from sims.sgd_limit.streaming_stability import streaming_stability

EXPERIMENTS = (
    phase_diagram,
    phase_space,
    continuous,
    currents,
    displacement,
    anomalous,
    streaming,
    streaming_stability,
    finite_data,
    regression,
    network,
)

__all__ = [
    "EXPERIMENTS",
    "anomalous",
    "continuous",
    "currents",
    "displacement",
    "finite_data",
    "network",
    "phase_diagram",
    "phase_space",
    "regression",
    "streaming",
    "streaming_stability",
]
