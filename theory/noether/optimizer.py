"""An optimizer, as far as the law of a charge depends on it."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import below_one, finite, nonnegative, number, positive, require, traced


class Optimizer(NamedTuple):
    r"""Gradient descent with weight decay and momentum, from rest.

    .. math:: v \leftarrow \beta v + (1 - d)\,\tilde g, \qquad \theta \leftarrow \theta - \eta v, \qquad
        \tilde g = g + \lambda\theta

    Nesterov: :math:`\theta \leftarrow \theta - \eta(\tilde g + \beta v)`. Decoupled decay: g instead of g~ above, and
    :math:`\theta \leftarrow (1 - \eta\lambda)\theta - \eta v`.

    Args:
        eta: Learning rate, positive. A number, or one for each step, shape (K,).
        weight_decay: Coefficient lambda, zero or positive. A number.
        momentum: beta, from 0 to below 1. A number.
        dampening: d, from 0 to below 1, of every step including the first. A number.
        nesterov: Whether the step looks ahead.
        decoupled: Whether the decay bypasses the momentum, as in AdamW.
    """

    eta: ArrayLike
    weight_decay: ArrayLike = 0.0
    momentum: ArrayLike = 0.0
    dampening: ArrayLike = 0.0
    nesterov: bool = False
    decoupled: bool = False


def check(optimizer: Optimizer) -> None:
    """One-sentence `ValueError` for an optimizer that does not exist, or whose law is unknown."""
    eta, weight_decay, momentum, dampening, nesterov, decoupled = optimizer
    if np.ndim(eta) > 1:
        raise ValueError(f"`eta` must be a number or of shape (K,), but got shape {np.shape(eta)}.")
    number(weight_decay=weight_decay, momentum=momentum, dampening=dampening)
    positive(eta=eta)
    nonnegative(weight_decay=weight_decay)
    finite(eta=eta, weight_decay=weight_decay)
    below_one(momentum=momentum, dampening=dampening)
    if nesterov:
        if not traced(momentum):
            require(np.asarray(momentum) > 0, "momentum", "positive with Nesterov", momentum)
        if not traced(dampening):
            require(np.asarray(dampening) == 0, "dampening", "zero with Nesterov", dampening)
        if decoupled:
            raise ValueError("`decoupled` must be False with Nesterov, but got True.")


def schedule(eta: Array, momentum: Array, steps: int) -> tuple[Float[Array, " K"], Float[Array, " K"]]:
    r"""Learning rate and momentum of every step, :math:`\beta_k = \beta\,\eta_k / \eta_{k-1}` from :math:`\beta_0 = 0`.

    With them :math:`\Delta_k = \beta_k \Delta_{k-1} - \eta_k (1 - d)\,\tilde g_k` holds for any schedule.
    """
    if eta.ndim and eta.shape != (steps,):
        raise ValueError(f"`eta` must be a number or one for each of {steps} steps, but got shape {eta.shape}.")
    eta = jnp.broadcast_to(eta, (steps,))
    return eta, jnp.concatenate([jnp.zeros(1, eta.dtype), momentum * (eta[1:] / eta[:-1])])[:steps]
