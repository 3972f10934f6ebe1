"""Noether's charges: regimes, motion against the exact law, orders in the learning rate, and the audit of a model."""

from figures.convergence import convergence
from figures.noether.charges import charges, deviations
from figures.noether.rates import effective_rates
from figures.noether.regimes import regimes

FIGURES = {
    "phase_diagram": {"figure": regimes},
    "charges": {"figure": charges, "deviations": deviations},
    "rmsprop": {"figure": effective_rates, "convergence": convergence},
    "modified_flow": {"figure": convergence},
    "continuous": {"figure": convergence},
}
