"""Lazy or rich? How the balance between layers decides whether a network learns features, and how fast.

A neuron f = a sigma(w^T x) with beta = a w; delta = eta_w a^2 - eta_a ||w||^2 is conserved by gradient flow. Upstream
(delta > 0) the inner layer learns fast, downstream (delta < 0) the outer one. beta_* is the solution, s its norm;
the loss is half the sum of squared errors, and the mean without 1/2 for ReLU networks. Paper: D. Kunin, A. Raventos,
C. Domine, F. Chen, D. Klindt, A. Saxe and S. Ganguli, "Get rich quick: exact solutions reveal how unbalanced
initializations promote rapid feature learning" (2024), arXiv:2406.06158.
"""

from theory.lazy_rich.conserved import (
    conserved_quantity,
    conserved_sgd_step,
    conserved_step,
    decayed_conserved_quantity,
    gradient_noise,
)
from theory.lazy_rich.deep import (
    deep_conserved_matrices,
    deep_conserved_steps,
    deep_interpolator,
    deep_mirror_potential,
    deep_ntk_matrix,
    deep_params_from_beta,
)
from theory.lazy_rich.drift import conserved_drift
from theory.lazy_rich.implicit_bias import (
    Interpolator,
    interpolator,
    mirror_potential,
    mirror_potential_slope,
)
from theory.lazy_rich.kernel import (
    VanishingScale,
    kernel_distance,
    kernel_distance_at,
    loss_at,
    ntk_matrix,
    vanishing_scale_kernel_distance,
    whitened_kernel_distance,
)
from theory.lazy_rich.parameters import Strengths, layer_strengths, params_from_beta, relative_scale
from theory.lazy_rich.relu import (
    frozen_alignment_time,
    frozen_drive,
    population_hamming_distance,
    population_kernel_distance,
    relu_drift,
    relu_overlap,
    relu_population_drive,
    relu_population_flow,
    relu_population_loss,
)
from theory.lazy_rich.single_neuron import (
    final_sign,
    gradient_flow,
    reduced_velocity,
    separatrix,
    separatrix_cosine,
    turning_rate,
)
from theory.lazy_rich.times import alignment_time, fitted_norm, fitting_time
from theory.lazy_rich.wide import (
    conserved_matrix,
    conserved_matrix_step,
    hyperbolic_entropy,
    layer_grams,
    matrix_flow,
    wide_ntk_matrix,
)

__all__ = [
    "Interpolator",
    "Strengths",
    "VanishingScale",
    "alignment_time",
    "conserved_drift",
    "conserved_matrix",
    "conserved_matrix_step",
    "conserved_quantity",
    "conserved_sgd_step",
    "conserved_step",
    "decayed_conserved_quantity",
    "deep_conserved_matrices",
    "deep_conserved_steps",
    "deep_interpolator",
    "deep_mirror_potential",
    "deep_ntk_matrix",
    "deep_params_from_beta",
    "final_sign",
    "fitted_norm",
    "fitting_time",
    "frozen_alignment_time",
    "frozen_drive",
    "gradient_flow",
    "gradient_noise",
    "hyperbolic_entropy",
    "interpolator",
    "kernel_distance",
    "kernel_distance_at",
    "layer_grams",
    "layer_strengths",
    "loss_at",
    "matrix_flow",
    "mirror_potential",
    "mirror_potential_slope",
    "ntk_matrix",
    "params_from_beta",
    "population_hamming_distance",
    "population_kernel_distance",
    "reduced_velocity",
    "relative_scale",
    "relu_drift",
    "relu_overlap",
    "relu_population_drive",
    "relu_population_flow",
    "relu_population_loss",
    "separatrix",
    "separatrix_cosine",
    "turning_rate",
    "vanishing_scale_kernel_distance",
    "whitened_kernel_distance",
    "wide_ntk_matrix",
]
