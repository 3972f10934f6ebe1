"""Closed-form predictions of deep-learning theory: pure `jax.numpy` functions, one module a topic."""
