"""Lazy and rich learning: the phase diagram, and trajectories of a linear neuron."""

from figures.convergence import convergence
from figures.lazy_rich.phase_diagram import phase_diagram
from figures.lazy_rich.single_neuron import trajectories

FIGURES = {
    "phase_diagram": {"figure": phase_diagram, "convergence": convergence},
    "single_neuron": {"figure": trajectories, "convergence": convergence},
}
