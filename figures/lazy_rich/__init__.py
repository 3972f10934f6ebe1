"""Lazy and rich learning: the phase diagram, trajectories of a linear neuron, and what the imbalance decides."""

from figures.convergence import convergence
from figures.lazy_rich.basins import basins
from figures.lazy_rich.generalization import grokking, hierarchy
from figures.lazy_rich.imbalance import interpolators, wide
from figures.lazy_rich.phase_diagram import phase_diagram
from figures.lazy_rich.single_neuron import trajectories

FIGURES = {
    "basins": {"figure": basins},
    "phase_diagram": {"figure": phase_diagram, "convergence": convergence},
    "interpolation": {"figure": interpolators, "convergence": convergence},
    "grokking": {"figure": grokking},
    "hierarchy": {"figure": hierarchy},
    "wide": {"figure": wide, "convergence": convergence},
    "single_neuron": {"figure": trajectories, "convergence": convergence},
}
