r"""Limiting dynamics of SGD: what a trained network does after its loss has converged.

Heavy ball with learning rate eta, momentum beta, L2 decay lambda and batches of S near a minimum mu of curvature H with
eigenvalues rho, h = rho + lambda: position x = theta - mu, step w_k = theta_k - theta_{k-1}, time t = eta k, velocity
v = dx/dt, so that w is eta v. Paper: D. Kunin, J. Sagastuy-Brena, L. Gillespie, E. Margalit, H. Tanaka, S. Ganguli and
D. L. K. Yamins, "The limiting dynamics of SGD: modified loss, phase space oscillations, and anomalous diffusion"
(Neural Computation 36, 2024), arXiv:2107.09133.
"""

from theory.sgd_limit.chain import (
    PerStep,
    chain_propagator,
    continuous_embedding,
    oscillation_per_step,
    regime,
    regime_code,
)
from theory.sgd_limit.correlation import (
    autocorrelation,
    decorrelation,
)
from theory.sgd_limit.current import (
    Current,
    LangevinMatrices,
    langevin_matrices,
    modified_loss,
    probability_current,
    stationary_density,
)
from theory.sgd_limit.diffusion import (
    Decomposition,
    stationary_decomposition,
)
from theory.sgd_limit.displacement import (
    diffusion_constant,
    displacement_exponent,
    displacement_saturation,
    global_displacement,
    local_displacement,
    power_law_displacement,
    power_law_exponent,
)
from theory.sgd_limit.finite_data import (
    MinibatchMoments,
    Stationary,
    minibatch_autocovariance,
    minibatch_moments,
    minibatch_stationary,
)
from theory.sgd_limit.langevin import (
    Hyperparameters,
    Langevin,
    OscillatorRates,
    equivalent_hyperparameters,
    inverse_temperature,
    langevin_coefficients,
    oscillator_rates,
    propagator,
)
from theory.sgd_limit.phase_space import (
    PhaseSpaceCovariance,
    Transient,
    circulation,
    phase_space_covariance,
    transient,
)
from theory.sgd_limit.streaming import (
    StreamingMoments,
    streaming_feedback,
    streaming_is_stable,
    streaming_stationary,
)

__all__ = [
    "Current",
    "Decomposition",
    "Hyperparameters",
    "Langevin",
    "LangevinMatrices",
    "MinibatchMoments",
    "OscillatorRates",
    "PerStep",
    "PhaseSpaceCovariance",
    "Stationary",
    "StreamingMoments",
    "Transient",
    "autocorrelation",
    "chain_propagator",
    "circulation",
    "continuous_embedding",
    "decorrelation",
    "diffusion_constant",
    "displacement_exponent",
    "displacement_saturation",
    "equivalent_hyperparameters",
    "global_displacement",
    "inverse_temperature",
    "langevin_coefficients",
    "langevin_matrices",
    "local_displacement",
    "minibatch_autocovariance",
    "minibatch_moments",
    "minibatch_stationary",
    "modified_loss",
    "oscillation_per_step",
    "oscillator_rates",
    "phase_space_covariance",
    "power_law_displacement",
    "power_law_exponent",
    "probability_current",
    "propagator",
    "regime",
    "regime_code",
    "stationary_decomposition",
    "stationary_density",
    "streaming_feedback",
    "streaming_is_stable",
    "streaming_stationary",
    "transient",
]
