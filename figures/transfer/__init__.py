"""Transferability of deep linear networks: the phase diagram and what surrounds it."""

from figures.convergence import convergence
from figures.transfer.decision import decision
from figures.transfer.distances import distances
from figures.transfer.phase_diagram import noise_levels, phase_diagram
from figures.transfer.relu import relu
from figures.transfer.residuals import residuals
from figures.transfer.risks import double_descent

FIGURES = {
    "phase_diagram": {
        "figure": phase_diagram,
        "noise_levels": noise_levels,
        "residuals": residuals,
        "double_descent": double_descent,
        "convergence": convergence,
        "distances": distances,
        "decision": decision,
    },
    "relu": {"figure": relu, "convergence": convergence},
}
