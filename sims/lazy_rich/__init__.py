"""Lazy and rich learning from unbalanced layers, simulated: the experiments beside `theory.lazy_rich`."""

from sims.lazy_rich.conservation import conservation
from sims.lazy_rich.deep import deep
from sims.lazy_rich.early_phase import early_phase
from sims.lazy_rich.grokking import grokking
from sims.lazy_rich.hierarchy import hierarchy
from sims.lazy_rich.interpolation import basins, interpolation
from sims.lazy_rich.phase_diagram import phase_diagram
from sims.lazy_rich.population import population
from sims.lazy_rich.relu_neurons import relu_neurons
from sims.lazy_rich.single_neuron import single_neuron
from sims.lazy_rich.times import times
from sims.lazy_rich.wide import wide

EXPERIMENTS = (
    phase_diagram,
    population,
    single_neuron,
    conservation,
    times,
    early_phase,
    relu_neurons,
    interpolation,
    basins,
    wide,
    deep,
    grokking,
    hierarchy,
)

__all__ = ["EXPERIMENTS"]
