"""Signal propagation in random transformers, simulated: the experiments beside `theory.signal_propagation`."""

from sims.signal_propagation.causal import causal
from sims.signal_propagation.depth_scaling import depth_scaling, identity_residual
from sims.signal_propagation.gram_ensemble import gram_ensemble
from sims.signal_propagation.gram_map import gram_map
from sims.signal_propagation.phase_diagram import phase_diagram
from sims.signal_propagation.propagation import propagation
from sims.signal_propagation.softmax_overlaps import softmax_overlaps
from sims.signal_propagation.training import training

EXPERIMENTS = (
    phase_diagram,
    propagation,
    softmax_overlaps,
    gram_ensemble,
    gram_map,
    causal,
    depth_scaling,
    identity_residual,
    training,
)

__all__ = ["EXPERIMENTS"]
