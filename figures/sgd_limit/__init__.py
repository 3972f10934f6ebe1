"""SGD after convergence: regimes, phase space, modified loss and anomalous diffusion."""

from figures.convergence import convergence
from figures.sgd_limit.currents import currents
from figures.sgd_limit.displacement import displacements, exponents, local
from figures.sgd_limit.minibatch import finite_data, stability, streaming
from figures.sgd_limit.phase_diagram import regimes
from figures.sgd_limit.phase_space import phase_space
from figures.sgd_limit.regression import regression

FIGURES = {
    "phase_diagram": {"figure": regimes},
    "phase_space": {"figure": phase_space},
    "continuous": {"figure": convergence},
    "currents": {"figure": currents},
    "displacement": {"figure": displacements, "exponents": exponents},
    "anomalous": {"figure": convergence},
    "streaming": {"figure": streaming},
    "streaming_stability": {"figure": stability},
    "finite_data": {"figure": finite_data},
    "regression": {"figure": regression, "convergence": convergence},
    "network": {"figure": local, "convergence": convergence},
}
