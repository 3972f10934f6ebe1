"""Stochastic collapse: phases, quartic paths, neurons, pairs and singular modes that gradient noise removes."""

from figures.convergence import convergence
from figures.stochastic_collapse.digits import units
from figures.stochastic_collapse.exponents import exponents
from figures.stochastic_collapse.momentum import momentum
from figures.stochastic_collapse.neuron import diagram, noise
from figures.stochastic_collapse.normal import normal_dimensions, sign_set
from figures.stochastic_collapse.passage import passage
from figures.stochastic_collapse.permutation import permutation
from figures.stochastic_collapse.phase_diagram import phase_diagram
from figures.stochastic_collapse.quartic import quartic
from figures.stochastic_collapse.risk import risks
from figures.stochastic_collapse.teacher_student import thresholds

FIGURES = {
    "phase_diagram": {"figure": phase_diagram},
    "exponents": {"figure": exponents},
    "momentum": {"figure": momentum, "convergence": convergence},
    "digits": {"figure": units},
    "teacher_student": {"figure": thresholds, "convergence": convergence},
    "risk": {"figure": risks, "convergence": convergence},
    "permutation": {"figure": permutation, "convergence": convergence},
    "neuron_diagram": {"figure": diagram},
    "neuron_noise": {"figure": noise},
    "normal_dimensions": {"figure": normal_dimensions, "convergence": convergence},
    "sign_set": {"figure": sign_set, "convergence": convergence},
    "quartic": {"figure": quartic, "convergence": convergence},
    "quartic_path": {"figure": convergence},
    "passage": {"figure": passage, "convergence": convergence},
}
