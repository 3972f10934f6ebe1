"""Transfer learning in real networks, trained: the simulations beside `theory.transfer`."""

from sims.transfer.phase_diagram import phase_diagram

EXPERIMENTS = (phase_diagram,)

__all__ = ["EXPERIMENTS"]
