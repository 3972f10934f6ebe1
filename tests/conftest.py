"""Sloppiness is an error in tests: float64, no silent broadcasting, no silent dtype changes."""

from sims.engine.devices import prepare_environment

prepare_environment()

import jax

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
