"""Lazy and rich learning: the phase diagram, trajectories of a linear neuron, and what the imbalance decides."""

from figures.convergence import convergence
from figures.lazy_rich.basins import basins
from figures.lazy_rich.generalization import grokking, hierarchy
from figures.lazy_rich.imbalance import deep_interpolators, interpolators, wide
from figures.lazy_rich.phase_diagram import phase_diagram
from figures.lazy_rich.relu_neurons import relu_neurons
from figures.lazy_rich.single_neuron import trajectories

FIGURES = {
    "basins": {"figure": basins},
    "phase_diagram": {"figure": phase_diagram, "convergence": convergence},
    "interpolation": {"figure": interpolators, "convergence": convergence},
    "deep": {"figure": deep_interpolators, "convergence": convergence},
    "grokking": {"figure": grokking},
    "hierarchy": {"figure": hierarchy},
    "relu_neurons": {"figure": relu_neurons, "convergence": convergence},
    "wide": {"figure": wide, "convergence": convergence},
    "single_neuron": {"figure": trajectories, "convergence": convergence},
}
