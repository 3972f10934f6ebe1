"""Small networks are compiled often and run once: compile them fast."""

import jax
import pytest


@pytest.fixture(autouse=True, scope="package")
def fast_compilation():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
