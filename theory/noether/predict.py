"""Charge of a whole run from its start, what was recorded, and the optimizer."""

import warnings
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import number, traced, with_one_dtype
from theory.noether.discrete import (
    decoupled_charge,
    each_step,
    linear_charge,
    nesterov_charge,
    previous,
    quadratic_charge,
    sgd_charge,
    with_sources,
)
from theory.noether.optimizer import Optimizer, check
from theory.oscillator import impulse_response, relaxation


class Sources(NamedTuple):
    r"""What a run must record for its quadratic charge, one value a step, shaped as the charge. Shapes (K, ...).

    Args:
        step: :math:`[\Delta_k]_A`, of the step; for momentum.
        gradient: :math:`[g_k]_A`, of the gradient without decay; enough without momentum.
        cross: :math:`\Delta_k^\top A \tilde g_k`, of the gradient with decay; for Nesterov, besides `step`.
        update: :math:`[d_k]_A`, of the step without its decay; for decoupled decay.
    """

    step: ArrayLike | None = None
    gradient: ArrayLike | None = None
    cross: ArrayLike | None = None
    update: ArrayLike | None = None


def predict_charge(
    c0: ArrayLike,
    sources: Sources | None,
    optimizer: Optimizer,
    *,
    steps: int | None = None,
    linear: bool = False,
) -> Float[Array, "K+1 ..."]:
    r"""Charge after every step of a run, by the exact law of its optimizer.

    Args:
        c0: The charge at the start. Shape (...).
        sources: What the law needs: `gradient` (or `step`) without momentum, `step` with it, `step` and `cross` for
            Nesterov, `update` for decoupled decay. None for a linear charge.
        optimizer: The optimizer.
        steps: Number of steps. Needed for a linear charge with a constant rate only; static.
        linear: Whether the charge is that of a translation.

    Returns:
        C_0, ..., C_K, in units of c0. Shape (K + 1, ...).

    Valid: every batch and step size, where the symmetry is exact. Adam has no such law: see `charge_budget`.
    Raises: ValueError for an optimizer that does not exist (learning rate not positive, weight_decay < 0, momentum or
        dampening outside [0, 1), Nesterov without momentum, with dampening or with decoupled decay), for a source that
        is missing, of another shape or not finite, or if `steps` is another number than theirs. UserWarning where
        eta lambda > 2 (1 + beta), and the charge grows.
    Source: derived here.
    Checked: every optimizer, simulated, with constant rates and schedules (1e-12).
    """
    check(optimizer)
    eta, decay, momentum, dampening, nesterov, decoupled = optimizer
    if not (nesterov or decoupled or traced(eta, decay, momentum, dampening)):
        pull = np.max(np.asarray(eta)) * (1 - np.asarray(dampening)) * np.asarray(decay)
        if pull > 2 * (1 + np.asarray(momentum)):
            warnings.warn("`eta` times `weight_decay` is above 2 (1 + beta): the charge grows.", stacklevel=2)
    if linear:
        steps = _steps(steps, eta)
        kinds = {"dampening": dampening, "nesterov": nesterov, "decoupled": decoupled}
        return linear_charge(c0, steps, eta, decay, momentum, **kinds)
    sources = sources or Sources()
    for name, x in sources._asdict().items():
        if x is not None and steps is not None and len(x) != steps:
            raise ValueError(f"`steps` must be the {len(x)} of `sources.{name}`, but got {steps}.")
    if not traced(momentum) and momentum == 0 and sources.gradient is not None and not decoupled:
        return sgd_charge(c0, sources.gradient, _dampened(eta, dampening), decay)
    if nesterov:
        return nesterov_charge(c0, *_need(sources, "step", "cross"), eta, decay, momentum)
    if decoupled:
        return decoupled_charge(c0, *_need(sources, "update"), eta, decay, momentum)
    return quadratic_charge(c0, *_need(sources, "step"), eta, decay, momentum, dampening=dampening)


def _steps(steps, eta):
    if steps is None and not np.ndim(eta):
        raise ValueError("`steps` must be given for a linear charge with a constant rate, but got None.")
    return len(eta) if steps is None else steps


def _dampened(eta, dampening):
    eta, dampening = with_one_dtype(eta, dampening)
    return eta * (1 - dampening)


def _need(sources, *names):
    for name in names:
        if getattr(sources, name) is None:
            raise ValueError(f"`sources.{name}` must be given for this optimizer, but got None.")
    return [getattr(sources, name) for name in names]


def final_charge(c0: ArrayLike, sources: Sources, optimizer: Optimizer) -> Float[Array, "..."]:
    r"""Quadratic charge at the end of a run, in closed form.

    .. math:: C_K = C_0 (G_{K+1} - \beta G_K) + \sum_{k<K} G_{K-k} \big([\Delta_k]_A + \beta[\Delta_{k-1}]_A\big)

    or, from gradients without momentum,
    :math:`C_K = a^{2K} C_0 + \eta^2 \sum_{k<K} a^{2(K-1-k)} [g_k]_A` with :math:`a = 1 - \eta\lambda`.

    Args:
        c0: The charge C_0 at the start. Shape (...).
        sources: `gradient` (without momentum) or `step`. Shape (K, ...).
        optimizer: The optimizer: constant rate, no Nesterov, coupled decay.

    Returns:
        C_K, the last of `predict_charge`. Shape (...).

    Valid: every batch and step size.
    Raises: ValueError as `predict_charge`, for a schedule, Nesterov or decoupled decay.
    Source: derived here; G is `theory.oscillator.impulse_response`.
    Checked: `predict_charge` in every regime (1e-11).
    """
    check(optimizer)
    eta, decay, momentum, dampening, nesterov, decoupled = optimizer
    number(eta=eta)
    if nesterov or decoupled:
        kind = "nesterov" if nesterov else "decoupled"
        raise ValueError(f"`optimizer.{kind}` must be False for the closed form, but got True.")
    if not traced(momentum) and momentum == 0 and sources.gradient is not None:
        c0, g, eta, decay = with_sources(c0, _dampened(eta, dampening), decay, gradient=sources.gradient)
        kept = (1 - eta * decay) ** 2
        after = jnp.arange(len(g) - 1, -1, -1, dtype=g.dtype)
        return kept ** len(g) * c0 + eta**2 * jnp.sum(each_step(kept**after, g) * g, axis=0)
    (moved,) = _need(sources, "step")
    c0, moved, eta, decay, beta, dampening = with_sources(c0, eta, decay, momentum, dampening, step=moved)
    steps, pull = len(moved), 2 * eta * (1 - dampening) * decay
    kernel = impulse_response(jnp.arange(steps, 0, -1), beta, pull)
    push = moved + beta * previous(moved)
    return relaxation(steps, beta, pull) * c0 + jnp.sum(each_step(kernel, push) * push, axis=0)
