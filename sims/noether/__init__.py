"""Noether's charges of neural networks, simulated and audited: the experiments beside `theory.noether`."""

from sims.noether.adam_equilibrium import adam_l2_equilibrium, adamw_equilibrium
from sims.noether.adaptive import adaptive_charge, logit_shift
from sims.noether.charges import charges
from sims.noether.continuous import continuous
from sims.noether.cosine_classifier import cosine_classifier
from sims.noether.effective_rate import effective_rate
from sims.noether.equilibrium import equilibrium
from sims.noether.kinetic import kinetic
from sims.noether.modified_flow import modified_flow
from sims.noether.phase_diagram import phase_diagram
from sims.noether.relaxation import rate_change, relaxation
from sims.noether.rmsprop import rmsprop
from sims.noether.sign_descent import sign_descent

EXPERIMENTS = (
    phase_diagram,
    charges,
    continuous,
    modified_flow,
    equilibrium,
    cosine_classifier,
    relaxation,
    rate_change,
    effective_rate,
    adamw_equilibrium,
    adam_l2_equilibrium,
    rmsprop,
    adaptive_charge,
    logit_shift,
    sign_descent,
    kinetic,
)

__all__ = ["EXPERIMENTS"]
