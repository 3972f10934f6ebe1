"""Multiplicative noise and collapse, simulated and audited: the experiments beside `theory.stochastic_collapse`."""

from sims.stochastic_collapse.collapsed_mode import collapsed_mode
from sims.stochastic_collapse.continuous_limit import continuous_limit
from sims.stochastic_collapse.digits import digits_networks
from sims.stochastic_collapse.exponents import exponents
from sims.stochastic_collapse.mode_transient import mode_transient
from sims.stochastic_collapse.momentum import momentum
from sims.stochastic_collapse.near_zero import near_zero
from sims.stochastic_collapse.neuron_diagram import neuron_diagram
from sims.stochastic_collapse.neuron_noise import neuron_noise
from sims.stochastic_collapse.normal_dimensions import normal_dimensions
from sims.stochastic_collapse.passage import passage
from sims.stochastic_collapse.permutation import permutation
from sims.stochastic_collapse.phase_diagram import phase_diagram
from sims.stochastic_collapse.quartic import quartic
from sims.stochastic_collapse.quartic_path import quartic_path
from sims.stochastic_collapse.risk import risk
from sims.stochastic_collapse.sign_set import sign_set
from sims.stochastic_collapse.singular_mode import singular_mode
from sims.stochastic_collapse.teacher_student import teacher_student

EXPERIMENTS = (
    phase_diagram,
    exponents,
    continuous_limit,
    momentum,
    near_zero,
    quartic,
    quartic_path,
    passage,
    permutation,
    neuron_diagram,
    neuron_noise,
    normal_dimensions,
    digits_networks,
    sign_set,
    singular_mode,
    mode_transient,
    collapsed_mode,
    teacher_student,
    risk,
)

__all__ = ["EXPERIMENTS"]
