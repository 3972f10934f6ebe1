"""What the experiments of this topic share: sources, and the optimizers by number."""

from __future__ import annotations

import optax

from theory.noether import Optimizer

SOURCES = (
    """@inproceedings{kunin2021mechanics,
  title = {Neural Mechanics: Symmetry and Broken Conservation Laws in Deep Learning Dynamics},
  author = {Kunin, Daniel and Sagastuy-Brena, Javier and Ganguli, Surya and Yamins, Daniel L. K. and Tanaka, Hidenori},
  booktitle = {International Conference on Learning Representations},
  year = {2021},
  note = {arXiv:2012.04728}
}""",
    """@inproceedings{tanaka2021noether,
  title = {Noether's Learning Dynamics: Role of Symmetry Breaking in Neural Networks},
  author = {Tanaka, Hidenori and Kunin, Daniel},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2021},
  note = {arXiv:2105.02716}
}""",
)

OPTIMIZERS = ("SGD", "heavy ball", "Nesterov", "decoupled decay", "AdamW")


def optimizer(name: str, learning_rate, momentum, weight_decay) -> optax.GradientTransformation:
    """One of `OPTIMIZERS`: weight decay is coupled (L2) in the first three, decoupled in the last two."""
    coupled = optax.add_decayed_weights(weight_decay)
    return {
        "SGD": lambda: optax.chain(coupled, optax.sgd(learning_rate)),
        "heavy ball": lambda: optax.chain(coupled, optax.sgd(learning_rate, momentum)),
        "Nesterov": lambda: optax.chain(coupled, optax.sgd(learning_rate, momentum, nesterov=True)),
        "decoupled decay": lambda: optax.chain(optax.trace(momentum), coupled, optax.scale(-learning_rate)),
        "AdamW": lambda: optax.adamw(learning_rate, weight_decay=weight_decay),
    }[name]()


def law_of(name: str, learning_rate, momentum, weight_decay) -> Optimizer:
    """The exact law of an optimizer; of AdamW, the one that it would follow without its metric."""
    return {
        "SGD": Optimizer(learning_rate, weight_decay),
        "heavy ball": Optimizer(learning_rate, weight_decay, momentum),
        "Nesterov": Optimizer(learning_rate, weight_decay, momentum, nesterov=True),
        "decoupled decay": Optimizer(learning_rate, weight_decay, momentum, decoupled=True),
        "AdamW": Optimizer(learning_rate, weight_decay, momentum, decoupled=True),
    }[name]
