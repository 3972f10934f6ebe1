"""Self-supervised learning with real minibatches and augmentations: the experiments beside `theory.ssl_collapse`."""

EXPERIMENTS = ()

__all__ = ["EXPERIMENTS"]
