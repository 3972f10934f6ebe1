"""Transfer learning in high-dimensional regression: does pretraining help, and when does it hurt?

Deep linear (and two-layer ReLU) networks pretrained on a source regression and then probed or
fine-tuned on n noisy samples of a target at an angle theta to it. gamma = n/d, risks are squared
distances to the target's regression vector, transferability is the risk saved against training
from scratch. Paper: J. Tahir, S. Ganguli and G. M. Rotskoff, "Features are fate: a theory of
transfer learning in high-dimensional regression" (2025), arXiv:2410.08194.
"""

from theory.gaussian_kernels import relu_kernel
from theory.transfer.boundaries import (
    fine_tuning_boundary,
    linear_transfer_boundary,
    tuned_linear_transfer_boundary,
)
from theory.transfer.decision import (
    CHOICES,
    Overlap,
    Recommendation,
    estimate_overlap,
    recommend,
)
from theory.transfer.distances import kl_divergence, mmd, wasserstein2
from theory.transfer.fine_tuning import (
    fine_tuning_endpoint,
    fine_tuning_endpoint_scale,
    fine_tuning_risk,
    fine_tuning_scale,
    fine_tuning_transferability,
)
from theory.transfer.finite_source import (
    finite_source_fine_tuning_risk,
    finite_source_linear_transfer_risk,
)
from theory.transfer.head_start import (
    fine_tuning_head_endpoint,
    fine_tuning_head_risk,
    fine_tuning_head_scale,
)
from theory.transfer.implicit_bias import implicit_bias_potential, unbalanced_bias_potential
from theory.transfer.linear_transfer import (
    feature_ridge_risk,
    feature_space_risk,
    isotropic_feature_ridge_risk,
    linear_transfer_risk,
    linear_transfer_risk_finite,
    linear_transferability,
    tuned_linear_transfer_ridge,
)
from theory.transfer.pretraining import pretraining_half_time, pretraining_norm
from theory.transfer.relu import relu_floor, relu_linear_transfer_risk
from theory.transfer.scratch import (
    early_stopped_risk,
    noise_risk,
    scratch_risk,
    scratch_risk_finite,
    scratch_risk_std,
    tuned_scratch_ridge,
    tuned_scratch_risk,
    weight_decay_ridge,
)

__all__ = [
    "CHOICES",
    "Overlap",
    "Recommendation",
    "early_stopped_risk",
    "estimate_overlap",
    "feature_ridge_risk",
    "feature_space_risk",
    "fine_tuning_boundary",
    "fine_tuning_endpoint",
    "fine_tuning_endpoint_scale",
    "fine_tuning_head_endpoint",
    "fine_tuning_head_risk",
    "fine_tuning_head_scale",
    "fine_tuning_risk",
    "fine_tuning_scale",
    "fine_tuning_transferability",
    "finite_source_fine_tuning_risk",
    "finite_source_linear_transfer_risk",
    "implicit_bias_potential",
    "isotropic_feature_ridge_risk",
    "kl_divergence",
    "linear_transfer_boundary",
    "linear_transfer_risk",
    "linear_transfer_risk_finite",
    "linear_transferability",
    "mmd",
    "noise_risk",
    "pretraining_half_time",
    "pretraining_norm",
    "recommend",
    "relu_floor",
    "relu_kernel",
    "relu_linear_transfer_risk",
    "scratch_risk",
    "scratch_risk_finite",
    "scratch_risk_std",
    "tuned_linear_transfer_boundary",
    "tuned_linear_transfer_ridge",
    "tuned_scratch_ridge",
    "tuned_scratch_risk",
    "unbalanced_bias_potential",
    "wasserstein2",
    "weight_decay_ridge",
]
