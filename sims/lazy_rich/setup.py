"""What the experiments of this topic share: parameters, the linear neuron, its random starts, the source."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sims.engine.experiment import POSITIVE, Parameter, Setting
from theory.lazy_rich import params_from_beta

SOURCE = """@inproceedings{kunin2024rich,
  title = {Get rich quick: exact solutions reveal how unbalanced initializations promote rapid feature learning},
  author = {Kunin, Daniel and Ravent{\\'o}s, Allan and Domin{\\'e}, Cl{\\'e}mentine and Chen, Feng and Klindt, David
            and Saxe, Andrew and Ganguli, Surya},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2024},
  note = {arXiv:2406.06158}
}"""

PARAMETERS = {
    "tau": Parameter(1.0, r"overall scale $\tau$", scale="log", domain=POSITIVE),
    "delta": Parameter(0.0, r"imbalance $\delta$"),
    "eta_a": Parameter(1.0, r"outer learning rate $\eta_a$", domain=POSITIVE),
    "eta_w": Parameter(1.0, r"inner learning rate $\eta_w$", domain=POSITIVE),
}
STEP = Setting(0.01, "step size h, in units of time", domain=POSITIVE)


class Neuron(NamedTuple):
    """A linear neuron f = a w^T x."""

    w: jax.Array
    a: jax.Array


def half_squares(params: Neuron, X, y):
    """Half the sum of squared errors."""
    return jnp.sum((X @ (params.a * params.w) - y) ** 2) / 2


def rates(cell) -> dict:
    """Learning rates as the closed forms take them."""
    return {name: cell[name] for name in ("eta_a", "eta_w")}


def learning_rate(h, cell) -> Neuron:
    """The step of each layer."""
    return Neuron(h * cell["eta_w"], h * cell["eta_a"])


def goal_and_start(key, d: int):
    r"""The solution :math:`e_1` and a unit vector at a uniform angle from it, on one side: the frame is free."""
    phi = jax.random.uniform(key, maxval=jnp.pi)
    e = jnp.eye(d)
    return e[0], jnp.cos(phi) * e[0] + jnp.sin(phi) * e[1]


def neuron_at(beta, cell) -> Neuron:
    """The weights with a > 0 of a given product at the cell's imbalance."""
    return Neuron(*params_from_beta(beta, cell["delta"], **rates(cell)))


def imbalance(params: Neuron, cell):
    """eta_w a^2 - eta_a |w|^2 of the weights as they are."""
    return cell["eta_w"] * params.a**2 - cell["eta_a"] * jnp.sum(params.w**2, -1)
