"""Transfer learning in real networks, trained: the simulations beside `theory.transfer`."""

from sims.transfer.data_distances import data_distances
from sims.transfer.early_stopping import early_stopping
from sims.transfer.phase_diagram import phase_diagram
from sims.transfer.pretraining import pretraining

EXPERIMENTS = (phase_diagram, early_stopping, pretraining, data_distances)

__all__ = ["EXPERIMENTS"]
