"""Will training merge these units? Collapse exponents of a person's own network, loss, data and optimizer.

The optimizer runs on the invariant set, on real minibatches; a perturbation across the set is driven by Hessian-vector
products of the same batches. It dies if its exponent is negative: the set attracts. Sets are those of
`sims.stochastic_collapse.invariance`; `python -m sims.stochastic_collapse.collapse_example` shows all of it at work.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array

from sims.minibatches import minibatch, shuffled_epoch
from sims.stochastic_collapse.invariance import InvariantSet, across, origin, require_on, require_samples
from sims.stochastic_collapse.invariant_sets import epsilon
from sims.stochastic_collapse.lyapunov import DISCARD, Exponent, exponent_of, log_growth, norm
from theory.arguments import below_one, finite, integer, nonnegative, positive


class Sampling(NamedTuple):
    """How batches are drawn, and what is done to them.

    perturb(key, batch) -> batch adds, say, fresh label noise.
    """

    batch: int
    replace: bool = True
    epochs: bool = False
    perturb: Callable | None = None

    def draw(self, key: Array, data: Any, step: ArrayLike) -> Any:
        """The batch of a step of the run that this key stands for."""
        samples = len(jax.tree.leaves(data)[0])
        if self.epochs:
            a_pass = samples // self.batch
            order = shuffled_epoch(jax.random.fold_in(jax.random.fold_in(key, 0), step // a_pass), samples, self.batch)
            rows = order[step % a_pass]
        else:
            rows = minibatch(jax.random.fold_in(jax.random.fold_in(key, 0), step), samples, self.batch, self.replace)
        batch = jax.tree.map(lambda x: x[rows], data)
        if self.perturb is None:
            return batch
        return self.perturb(jax.random.fold_in(jax.random.fold_in(key, 1), step), batch)


class HeavyBall(NamedTuple):
    """Stochastic gradient descent with momentum; the weight decay is added to the gradient."""

    lr: ArrayLike
    momentum: ArrayLike = 0.0
    weight_decay: ArrayLike = 0.0

    def step(self, gradient: Any, params: Any, velocity: Any) -> tuple[Any, Any]:
        """(parameters, velocity) after a step."""

        def faster(v, g, x):
            lr, momentum, decay = (jnp.asarray(number, x.dtype) for number in self)
            return momentum * v - lr * (g + decay * x)

        velocity = jax.tree.map(faster, velocity, gradient, params)
        return jax.tree.map(jnp.add, params, velocity), velocity


def collapse_exponent(
    loss: Callable[[Any, Any], Array],
    params: Any,
    invariant_set: InvariantSet,
    data: Any,
    lr: float,
    batch: int,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    key: Array | None = None,
    *,
    steps: int = 10_000,
    replicas: int = 8,
    discard: float = DISCARD,
    replace: bool = True,
    epochs: bool = False,
    perturb: Callable[[Array, Any], Any] | None = None,
) -> Exponent:
    r"""Lyapunov exponent of the distance from an invariant set, under the optimizer that trains the network.

    .. math:: p_{k+1} = \beta p_k - \eta\,(M_{b_k}(\theta_k) + \lambda) z_k, \quad z_{k+1} = z_k + p_{k+1}, \qquad
        \Lambda = \lim_{k\to\infty} \frac1k \ln \|z_k\|

    with :math:`M_b = N^\top \nabla^2 \ell_b\, N` along a run :math:`\theta_k \in A` of the same optimizer on the same
    batches. The set attracts iff the exponent is negative.

    Args:
        loss: loss(params, batch), the mean over the batch.
        params: A point of the set, from which training goes on; `invariant_set.project` gives the nearest one.
        invariant_set: From `vanishing`, `duplicates`, `fixed_points` or `affine`.
        data: The samples, a pytree of arrays that count them along their first axis.
        lr: Learning rate, positive.
        batch: Samples of a minibatch, from 1.
        momentum: beta of heavy ball, from 0 to below 1.
        weight_decay: lambda, zero or positive, added to the gradient.
        key: Key of all draws; `jax.random.key(0)` by default. Equal keys mean equal draws at every learning rate.
        steps: Steps of a run, from 10.
        replicas: Runs with batches of their own, from 2.
        discard: Share of the steps that is left out at the start, from 0 to below 1.
        replace: Whether a batch may hold a sample twice.
        epochs: Whether the batches are those of shuffled epochs instead, without a remainder.
        perturb: perturb(key, batch) -> batch, applied to every batch: fresh label noise, augmentation, dropout keys.

    Returns:
        An `Exponent` per step: mean and standard error over the replicas; nan where a run diverges.

    Valid: to first order in the distance, for losses that are twice differentiable along the run (a ReLU at zero, as on
        its sign set, is not). Time averages over the steps that were run: training that still moves has an exponent of
        its own later.
    Raises: ValueError, one sentence: lr <= 0, momentum outside [0, 1), a batch larger than the data without
        replacement, a point that is not on the set or not finite, a set that a step leaves.
    Source: derived, for the sets of arXiv:2306.04251.
    Checked: ln of the distance of real training, started close to the set, on the same batches: dense, convolutional
        and attention networks, softmax loss (second order in the distance); a linear neuron in closed form.
    """
    _require(lr=lr, momentum=momentum, weight_decay=weight_decay)
    sampling = _sampling(data, batch, replace, epochs, perturb)
    _require_runs(steps, replicas, discard)
    require_on(invariant_set, params)
    key = jax.random.key(0) if key is None else key
    optimizer = HeavyBall(float(lr), float(momentum), float(weight_decay))
    logs, left = _runs(loss, params, invariant_set, data, optimizer, sampling, jax.random.split(key, replicas), steps)
    _require_kept(invariant_set, left, params)
    return exponent_of(logs, discard)


def normal_growth(loss, params, invariant_set, data, optimizer, sampling, key, steps, start=None):
    """(ln |z| after every step, largest distance by which a step left the set, over the norm of the parameters).

    One run of the optimizer on the set; `start` is the first perturbation, a random unit vector by default.
    """
    if start is None:
        zero = origin(invariant_set, params)
        start = jax.random.normal(jax.random.fold_in(key, 2), zero.shape, zero.dtype)
        start = invariant_set.within(start, params)
        start = start / norm(start)

    def advance(k, state, tangent):
        (params, velocity, left), (z, p) = state, tangent
        batch = sampling.draw(key, data, k)
        slope = jax.grad(across(loss, params, invariant_set, batch))
        _, curved = jax.jvp(slope, (jnp.zeros_like(z),), (z,))
        tangent = tuple(invariant_set.within(x, params) for x in optimizer.step(curved, z, p))
        moved, velocity = optimizer.step(jax.grad(loss)(params, batch), params, velocity)
        left = jnp.maximum(left, invariant_set.distance(moved) / norm(moved))
        return (invariant_set.project(moved), velocity, left), tangent

    rest = jax.tree.map(jnp.zeros_like, params)
    first = params, rest, jnp.zeros((), start.dtype)
    (_, _, left), logs = log_growth(
        advance, first, (start, jnp.zeros_like(start)), steps, lambda tangent: norm(tangent[0])
    )
    return logs, left


@functools.partial(jax.jit, static_argnames=("loss", "sampling", "steps"))
def _runs(loss, params, invariant_set, data, optimizer, sampling, keys, steps):
    def run(key):
        return normal_growth(loss, params, invariant_set, data, optimizer, sampling, key, steps)

    return jax.vmap(run)(keys)


# ---- bad input


def _require(**named):
    finite(**named)
    positive(lr=named["lr"])
    below_one(momentum=named["momentum"])
    nonnegative(weight_decay=named["weight_decay"])


def _sampling(data, batch, replace, epochs, perturb):
    samples = require_samples(data)
    integer(1, batch=batch)
    if batch > samples and (epochs or not replace):
        raise ValueError(f"`batch` must be at most the {samples} samples without replacement, but got {batch}.")
    return Sampling(int(batch), bool(replace), bool(epochs), perturb)


def _require_runs(steps, replicas, discard):
    integer(10, steps=steps)
    integer(2, replicas=replicas)
    below_one(discard=discard)


def _require_kept(invariant_set, left, params):
    left = float(jnp.where(jnp.isfinite(left), left, 0.0).max())
    if left > epsilon(params) ** 0.5:
        raise ValueError(
            f"`invariant_set` ({invariant_set}) must be kept by every step of training, but one left it by {left:.2g} "
            "of the norm of the parameters."
        )
