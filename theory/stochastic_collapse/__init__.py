r"""Stochastic collapse: gradient noise that vanishes on an invariant set attracts SGD to it.

An invariant set A keeps SGD for every batch. Near it the noise is multiplicative, and the distance z from A grows or
dies at the Lyapunov exponent Lambda of ln |z|: A is attractive iff Lambda < 0. Learning rate eta, batch size B,
curvature h (mean h-bar, standard deviation sigma_h), noise amplitude zeta, Ito convention, time t = eta k. F. Chen,
D. Kunin, A. Yamamura and S. Ganguli, "Stochastic collapse: how gradient noise attracts SGD dynamics towards simpler
subnetworks" (NeurIPS 2023), arXiv:2306.04251.
"""

from theory.stochastic_collapse.bounded import (
    BoundedExponents,
    bounded_exponents,
    bounded_phase,
    bounded_phase_code,
    near_zero_exponent,
    phase_code,
)
from theory.stochastic_collapse.cocycle import heavy_ball_cocycle, permutation_set_hessian, sign_set_hessian
from theory.stochastic_collapse.fokker_planck import fokker_planck
from theory.stochastic_collapse.momentum import effective_exponent, momentum_exponent
from theory.stochastic_collapse.neuron import (
    NeuronExponents,
    neuron_boundary,
    neuron_exponents,
    neuron_threshold,
    sign_set_exponent,
)
from theory.stochastic_collapse.normal import (
    attractive_in_every_direction,
    largest_log_norm_drift,
    log_norm_drift,
    mean_square_exponent,
    top_exponent_2d,
)
from theory.stochastic_collapse.passage import collapse_fraction, mean_first_passage, quartic_path
from theory.stochastic_collapse.products import (
    discrete_exponent,
    elog_abs_normal,
    exponent_expansion,
    finite_data_exponent,
    lyapunov_exponent,
)
from theory.stochastic_collapse.quartic import (
    QuarticParameters,
    quartic_distribution,
    quartic_modes,
    quartic_moment,
    quartic_of_steps,
    quartic_phase,
    quartic_phase_code,
    quartic_stationary_density,
)
from theory.stochastic_collapse.risk import Threshold, best_threshold, teacher_student_risk
from theory.stochastic_collapse.singular_modes import (
    Moments,
    hold_time,
    mode_density,
    mode_exponent,
    mode_mean,
    mode_mean_bound,
    mode_moments,
    moments_after_drop,
    soft_threshold,
)
from theory.stochastic_collapse.windows import (
    CollapseWindow,
    collapse_boundary,
    collapse_window,
    critical_noise,
)

__all__ = [
    "BoundedExponents",
    "CollapseWindow",
    "Moments",
    "NeuronExponents",
    "QuarticParameters",
    "Threshold",
    "attractive_in_every_direction",
    "best_threshold",
    "bounded_exponents",
    "bounded_phase",
    "bounded_phase_code",
    "collapse_boundary",
    "collapse_fraction",
    "collapse_window",
    "critical_noise",
    "discrete_exponent",
    "effective_exponent",
    "elog_abs_normal",
    "exponent_expansion",
    "finite_data_exponent",
    "fokker_planck",
    "heavy_ball_cocycle",
    "hold_time",
    "largest_log_norm_drift",
    "log_norm_drift",
    "lyapunov_exponent",
    "mean_first_passage",
    "mean_square_exponent",
    "mode_density",
    "mode_exponent",
    "mode_mean",
    "mode_mean_bound",
    "mode_moments",
    "moments_after_drop",
    "momentum_exponent",
    "near_zero_exponent",
    "neuron_boundary",
    "neuron_exponents",
    "neuron_threshold",
    "permutation_set_hessian",
    "phase_code",
    "quartic_distribution",
    "quartic_modes",
    "quartic_moment",
    "quartic_of_steps",
    "quartic_path",
    "quartic_phase",
    "quartic_phase_code",
    "quartic_stationary_density",
    "sign_set_exponent",
    "sign_set_hessian",
    "soft_threshold",
    "teacher_student_risk",
    "top_exponent_2d",
]
