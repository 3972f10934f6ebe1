r"""Self-supervised learning of a linear encoder: its loss landscape, and what collapses in it.

A clean input has mean 0 and covariance A0; a view adds independent noise, the augmentation, of covariance C; Sigma =
A0 + C. A positive pair is two views of one input, a negative is a view of another. The encoder f(x) = W x, W of shape
(m, d), has the Gram matrix M = W^T W and the embedding covariance S = W Sigma W^T, whose eigenvalues are the strengths
of its modes. Complete collapse is S = 0, dimensional collapse 0 < rank S < min(m, d). Temperature tau, weight alpha of
the alignment term, weight decay lambda |W|_F^2 (without 1/2), gradient flow dW/dt = -grad L. In the setting of Liu
Ziyin, E. S. Lubana, M. Ueda and H. Tanaka, "What shapes the loss landscape of self-supervised learning?" (ICLR 2023),
arXiv:2210.00638; the formulas are derived here.
"""

from theory.ssl_collapse.barlow import (
    barlow_decayed_strength,
    barlow_kept,
    barlow_mode,
    barlow_shares,
    barlow_step_time,
)
from theory.ssl_collapse.batch_bias import (
    barlow_batch_bias,
    barlow_batch_strengths,
    spectral_batch_bias,
    spectral_batch_strengths,
)
from theory.ssl_collapse.bias import (
    BiasedMinimum,
    dot_bias_penalty,
    dot_bias_threshold,
    spectral_loss_with_bias,
    spectral_minimum_with_bias,
    spectral_rank,
)
from theory.ssl_collapse.boundary import collapse_boundary, collapse_code, collapse_phase, learned_directions
from theory.ssl_collapse.byol import (
    ByolFixedPoints,
    ByolMode,
    byol_critical_decay,
    byol_fixed_points,
    byol_flow,
    byol_invariant,
    byol_trajectory,
)
from theory.ssl_collapse.byol_basin import byol_critical_start, byol_survives
from theory.ssl_collapse.byol_time import (
    byol_passage_time,
    ghost_time,
)
from theory.ssl_collapse.direct_predictor import (
    direct_predictor,
    direct_predictor_critical_start,
    direct_predictor_strengths,
    direct_predictor_trajectory,
)
from theory.ssl_collapse.dynamics import (
    final_ranking,
    half_time,
    infonce_mode_rate,
    infonce_mode_trajectory,
    learning_order,
    mode_trajectory,
    plateau_escape_rate,
)
from theory.ssl_collapse.effective_matrix import dormant_directions, effective_matrix, gaussian_effective_matrix
from theory.ssl_collapse.fourth_order import (
    anchor_augmented_loss,
    distance_quartic_term,
    positive_in_denominator_loss,
)
from theory.ssl_collapse.imbalance import class_strengths, critical_frequency, minority_ratio, squared_response
from theory.ssl_collapse.infonce import (
    InfoNCEMinimum,
    infonce_minimum,
    infonce_mode_loss,
    infonce_mode_strength,
    infonce_strength_near_threshold,
    infonce_variance,
)
from theory.ssl_collapse.infonce_loss import DotMinimum, infonce_dot_loss, infonce_dot_minimum, infonce_loss
from theory.ssl_collapse.landscape import Landscape, effective_landscape, origin_matrix
from theory.ssl_collapse.negatives import (
    finite_negatives_correction,
    finite_negatives_dot_correction,
    finite_negatives_loss,
    finite_negatives_shift,
    negatives_dilution,
    negatives_needed,
)
from theory.ssl_collapse.normalization import (
    NormalizedMinimum,
    WaterFilling,
    alignment_fill,
    critical_temperature,
    normalized_infonce_minimum,
    normalized_rank,
    water_fill,
    water_fill_infonce,
)
from theory.ssl_collapse.one_hot import (
    OneHotMinimum,
    one_hot_loss,
    one_hot_minimum,
    one_hot_quartic,
    one_hot_quartic_minimum,
)
from theory.ssl_collapse.probe import best_rank, dropping_helps, probe_risk
from theory.ssl_collapse.riccati import riccati_flow
from theory.ssl_collapse.stationary import (
    StationaryPoints,
    hessian_spectrum,
    minimum_gram,
    minimum_is_unique,
    minimum_loss,
    mode_strengths,
    n_active,
    quartic_loss,
    stationary_gram,
    stationary_loss,
    stationary_points,
)
from theory.ssl_collapse.two_layer import (
    representation_strength,
    two_layer_apparent_rank,
    two_layer_escape_time,
    two_layer_imbalance,
    two_layer_time,
    two_layer_trajectory,
)
from theory.ssl_collapse.two_layer_decay import (
    CriticalDecay,
    two_layer_barrier,
    two_layer_critical_decay,
    two_layer_potential,
    two_layer_strength,
)
from theory.ssl_collapse.vicreg import (
    CovarianceWeights,
    vicreg_covariance_weights,
    vicreg_deviation,
    vicreg_loss,
    vicreg_shared_strengths,
    vicreg_threshold,
)
from theory.ssl_collapse.views import collapse_thresholds, view_covariances

__all__ = [
    "BiasedMinimum",
    "ByolFixedPoints",
    "ByolMode",
    "CovarianceWeights",
    "CriticalDecay",
    "DotMinimum",
    "InfoNCEMinimum",
    "Landscape",
    "NormalizedMinimum",
    "OneHotMinimum",
    "StationaryPoints",
    "WaterFilling",
    "alignment_fill",
    "anchor_augmented_loss",
    "barlow_batch_bias",
    "barlow_batch_strengths",
    "barlow_decayed_strength",
    "barlow_kept",
    "barlow_mode",
    "barlow_shares",
    "barlow_step_time",
    "best_rank",
    "byol_critical_decay",
    "byol_critical_start",
    "byol_fixed_points",
    "byol_flow",
    "byol_invariant",
    "byol_passage_time",
    "byol_survives",
    "byol_trajectory",
    "class_strengths",
    "collapse_boundary",
    "collapse_code",
    "collapse_phase",
    "collapse_thresholds",
    "critical_frequency",
    "critical_temperature",
    "direct_predictor",
    "direct_predictor_critical_start",
    "direct_predictor_strengths",
    "direct_predictor_trajectory",
    "distance_quartic_term",
    "dormant_directions",
    "dot_bias_penalty",
    "dot_bias_threshold",
    "dropping_helps",
    "effective_landscape",
    "effective_matrix",
    "final_ranking",
    "finite_negatives_correction",
    "finite_negatives_dot_correction",
    "finite_negatives_loss",
    "finite_negatives_shift",
    "gaussian_effective_matrix",
    "ghost_time",
    "half_time",
    "hessian_spectrum",
    "infonce_dot_loss",
    "infonce_dot_minimum",
    "infonce_loss",
    "infonce_minimum",
    "infonce_mode_loss",
    "infonce_mode_rate",
    "infonce_mode_strength",
    "infonce_mode_trajectory",
    "infonce_strength_near_threshold",
    "infonce_variance",
    "learned_directions",
    "learning_order",
    "minimum_gram",
    "minimum_is_unique",
    "minimum_loss",
    "minority_ratio",
    "mode_strengths",
    "mode_trajectory",
    "n_active",
    "negatives_dilution",
    "negatives_needed",
    "normalized_infonce_minimum",
    "normalized_rank",
    "one_hot_loss",
    "one_hot_minimum",
    "one_hot_quartic",
    "one_hot_quartic_minimum",
    "origin_matrix",
    "plateau_escape_rate",
    "positive_in_denominator_loss",
    "probe_risk",
    "quartic_loss",
    "representation_strength",
    "riccati_flow",
    "spectral_batch_bias",
    "spectral_batch_strengths",
    "spectral_loss_with_bias",
    "spectral_minimum_with_bias",
    "spectral_rank",
    "squared_response",
    "stationary_gram",
    "stationary_loss",
    "stationary_points",
    "two_layer_apparent_rank",
    "two_layer_barrier",
    "two_layer_critical_decay",
    "two_layer_escape_time",
    "two_layer_imbalance",
    "two_layer_potential",
    "two_layer_strength",
    "two_layer_time",
    "two_layer_trajectory",
    "vicreg_covariance_weights",
    "vicreg_deviation",
    "vicreg_loss",
    "vicreg_shared_strengths",
    "vicreg_threshold",
    "view_covariances",
    "water_fill",
    "water_fill_infonce",
]
