"""Signal propagation in transformers: phase diagram, geometry, gradients, overlaps, masks, depth and training."""

from figures.convergence import convergence
from figures.signal_propagation.depth import geometry, gradients
from figures.signal_propagation.masks import causal
from figures.signal_propagation.overlaps import overlaps
from figures.signal_propagation.phase_diagram import phase_diagram
from figures.signal_propagation.scaling import depth_scaling
from figures.signal_propagation.training import training

FIGURES = {
    "phase_diagram": {"figure": phase_diagram, "convergence": convergence},
    "propagation": {"figure": geometry, "gradients": gradients, "convergence": convergence},
    "softmax_overlaps": {"figure": overlaps},
    "causal": {"figure": causal, "convergence": convergence},
    "depth_scaling": {"figure": depth_scaling, "convergence": convergence},
    "training": {"figure": training},
}
