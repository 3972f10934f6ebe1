r"""Symmetries of a loss, the charges they conserve, and how training breaks them.

A symmetry psi_s of the loss L has a generator xi = A theta + b and, for symmetric A, a charge: a sum of weights s or a
quadratic form C = theta^T A theta = [theta]_A. Learning rate eta, weight decay lambda, momentum beta, gradient g of the
loss alone, step Delta, t = eta k. Papers: D. Kunin, J. Sagastuy-Brena, S. Ganguli, D. L. K. Yamins and H. Tanaka,
"Neural mechanics: symmetry and broken conservation laws in deep learning dynamics" (ICLR 2021), arXiv:2012.04728;
H. Tanaka and D. Kunin, "Noether's learning dynamics: role of symmetry breaking in neural networks" (NeurIPS 2021),
arXiv:2105.02716. Norms and angles in equilibrium: R. Wan et al. (2020), arXiv:2006.08419; A. Kosson, B. Messmer and
M. Jaggi (2023), arXiv:2305.17212.
"""

from theory.noether.adaptive import preconditioned_charge_rate, sign_descent_charge, softmax_bias_drift
from theory.noether.constraints import (
    ChargeBudget,
    Residual,
    charge_budget,
    constraint_residual,
    gradient_constraint,
    hessian_constraint,
)
from theory.noether.continuous import Rates, charge_rates, momentum_charge_ode, sgd_charge_ode
from theory.noether.damping import (
    damping_boundaries,
    damping_code,
    damping_envelope,
    damping_frequency,
    damping_regime,
    ode_damping_boundary,
)
from theory.noether.discrete import (
    angular_momentum,
    decoupled_charge,
    linear_charge,
    nesterov_charge,
    quadratic_charge,
    sgd_charge,
)
from theory.noether.equilibrium import (
    adam_l2_equilibrium_norm,
    adamw_equilibrium_norm,
    equilibrium_norm,
    equilibrium_norm_momentum,
    norm_relaxation,
    relaxation_multiplier,
    rotating_equilibrium_norm,
    squared_norm_sgd,
)
from theory.noether.family import (
    Part,
    SymmetryFamily,
    arranged,
    bilinear,
    charge,
    generator,
    tensors,
    transform,
    units_shape,
    view,
)
from theory.noether.heavy_ball import (
    Inertia,
    heavy_ball_flow,
    heavy_ball_inertia,
    heavy_ball_lag,
    heavy_ball_ode,
    heavy_ball_start,
)
from theory.noether.lagrangian import (
    NoetherBalance,
    explicit_breaking,
    kinetic_symmetry_breaking,
    noether_balance,
    noether_lagrangian,
    noether_memory,
    noether_momentum,
)
from theory.noether.modified import modified_charge_rate, modified_flow, modified_loss
from theory.noether.optimizer import Optimizer
from theory.noether.predict import Sources, final_charge, predict_charge
from theory.noether.rotation import (
    angle_after_drop,
    effective_learning_rate,
    equilibrium_angle,
    step_size_ratio,
    undecayed_learning_rate,
    weight_decay_for_angle,
)
from theory.noether.sphere import (
    RMSProp,
    RMSPropState,
    SphereState,
    equivalent_second_moment,
    norm_fourth_power_rate,
    rmsprop_equivalent,
    rmsprop_trajectory,
    sphere_step,
    sphere_trajectory,
)

__all__ = [
    "ChargeBudget",
    "Inertia",
    "NoetherBalance",
    "Optimizer",
    "Part",
    "RMSProp",
    "RMSPropState",
    "Rates",
    "Residual",
    "Sources",
    "SphereState",
    "SymmetryFamily",
    "adam_l2_equilibrium_norm",
    "adamw_equilibrium_norm",
    "angle_after_drop",
    "angular_momentum",
    "arranged",
    "bilinear",
    "charge",
    "charge_budget",
    "charge_rates",
    "constraint_residual",
    "damping_boundaries",
    "damping_code",
    "damping_envelope",
    "damping_frequency",
    "damping_regime",
    "decoupled_charge",
    "effective_learning_rate",
    "equilibrium_angle",
    "equilibrium_norm",
    "equilibrium_norm_momentum",
    "equivalent_second_moment",
    "explicit_breaking",
    "final_charge",
    "generator",
    "gradient_constraint",
    "heavy_ball_flow",
    "heavy_ball_inertia",
    "heavy_ball_lag",
    "heavy_ball_ode",
    "heavy_ball_start",
    "hessian_constraint",
    "kinetic_symmetry_breaking",
    "linear_charge",
    "modified_charge_rate",
    "modified_flow",
    "modified_loss",
    "momentum_charge_ode",
    "nesterov_charge",
    "noether_balance",
    "noether_lagrangian",
    "noether_memory",
    "noether_momentum",
    "norm_fourth_power_rate",
    "norm_relaxation",
    "ode_damping_boundary",
    "preconditioned_charge_rate",
    "predict_charge",
    "quadratic_charge",
    "relaxation_multiplier",
    "rmsprop_equivalent",
    "rmsprop_trajectory",
    "rotating_equilibrium_norm",
    "sgd_charge",
    "sgd_charge_ode",
    "sign_descent_charge",
    "softmax_bias_drift",
    "sphere_step",
    "sphere_trajectory",
    "squared_norm_sgd",
    "step_size_ratio",
    "tensors",
    "transform",
    "undecayed_learning_rate",
    "units_shape",
    "view",
    "weight_decay_for_angle",
]
