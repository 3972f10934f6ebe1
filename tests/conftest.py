"""Sloppiness is an error in tests: float64, no silent broadcasting, no silent dtype changes."""

from sims.engine.devices import prepare_environment

prepare_environment()

import gc
from pathlib import Path

import jax
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

MAPS = Path("/proc/self/maps")
MOST_MAPS = 20_000


@pytest.fixture(autouse=True)
def compiled_programs_are_forgotten():
    """Linux gives a process 65530 memory maps. Every compiled program holds some, and the compiler dies without."""
    yield
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > MOST_MAPS:
        jax.clear_caches()
        gc.collect()
