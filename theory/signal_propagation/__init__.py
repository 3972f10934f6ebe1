"""Signal propagation in random transformers: do tokens collapse, do gradients explode, and where do neither?

Tokens X_i with squared length q per dimension and cosine rho; attention and MLP branches of strengths alpha_A and
alpha_M; exponents are natural logs per block, gradient exponents those of squared gradients. Paper: A. Cowsik,
T. Nebabu, X.-L. Qi and S. Ganguli, "Geometric dynamics of signal propagation predict trainability of transformers"
(2024), arXiv:2403.02579.
"""

from theory.gaussian_kernels import gaussian_kernel
from theory.signal_propagation.backward import (
    GradientCovariance,
    backward_attention,
    backward_block,
    backward_covariance,
    backward_exponents,
    backward_mlp,
    single_mode_gradient,
)
from theory.signal_propagation.config import TransformerConfig
from theory.signal_propagation.design import (
    CriticalInitialization,
    CriticalPoint,
    critical_initialization,
    depth_budget,
    in_gauge,
    required_ratio,
)
from theory.signal_propagation.exponents import (
    DepthScaledTotals,
    PowerLaws,
    angle_exponent,
    depth_scaled,
    depth_scaled_totals,
    gradient_exponent,
    mlp_moments,
    power_law_exponents,
    slope_to_power_ratio,
    stationary_norm,
)
from theory.signal_propagation.geometry import (
    Geometry,
    attention_map,
    block_map,
    depth_scale,
    fixed_point,
    mlp_map,
    propagate,
)
from theory.signal_propagation.gram import propagate_gram
from theory.signal_propagation.softmax import SoftmaxOverlaps, condensed_overlap, softmax_overlaps

__all__ = [
    "CriticalInitialization",
    "CriticalPoint",
    "DepthScaledTotals",
    "Geometry",
    "GradientCovariance",
    "PowerLaws",
    "SoftmaxOverlaps",
    "TransformerConfig",
    "angle_exponent",
    "attention_map",
    "backward_attention",
    "backward_block",
    "backward_covariance",
    "backward_exponents",
    "backward_mlp",
    "block_map",
    "condensed_overlap",
    "critical_initialization",
    "depth_budget",
    "depth_scale",
    "depth_scaled",
    "depth_scaled_totals",
    "fixed_point",
    "gaussian_kernel",
    "gradient_exponent",
    "in_gauge",
    "mlp_map",
    "mlp_moments",
    "power_law_exponents",
    "propagate",
    "propagate_gram",
    "required_ratio",
    "single_mode_gradient",
    "slope_to_power_ratio",
    "softmax_overlaps",
    "stationary_norm",
]
