"""Transfer learning in real networks, trained: the simulations beside `theory.transfer`."""

from sims.transfer.data_distances import data_distances
from sims.transfer.early_stopping import early_stopping
from sims.transfer.feature_space import feature_space
from sims.transfer.finite_source import finite_source
from sims.transfer.head_start import head_start
from sims.transfer.learned_features import learned_features
from sims.transfer.phase_diagram import phase_diagram
from sims.transfer.pretraining import pretraining
from sims.transfer.probe import probe
from sims.transfer.probed_head import probed_head
from sims.transfer.relu import relu
from sims.transfer.ridge_scratch import ridge_scratch
from sims.transfer.weight_decay import weight_decay

EXPERIMENTS = (
    phase_diagram,
    early_stopping,
    pretraining,
    data_distances,
    relu,
    probe,
    feature_space,
    learned_features,
    ridge_scratch,
    weight_decay,
    finite_source,
    head_start,
    probed_head,
)

__all__ = ["EXPERIMENTS"]
