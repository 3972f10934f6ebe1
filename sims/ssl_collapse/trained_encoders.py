"""An encoder trained by minibatches of InfoNCE, and what its last layer then says of its features.

Arrays have lanes in front, encoders that are trained side by side, on views that they may share.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sims.descent import gradient_step
from sims.ssl_collapse.losses import infonce_distance
from sims.ssl_collapse.training import train
from theory.ssl_collapse import dormant_directions, effective_matrix, gaussian_effective_matrix, origin_matrix

CUT = 0.01  # variance of the embedding, in units of the temperature, above which a direction is in use
LATE = 0.1  # of the learning rate, at the end of training
TIME = 0.6  # training, in units of the learning rate times the steps
SECOND = 5e-4  # what the second order of a late step makes of a pull
LOSS = ("temperature", "alpha", "weight_decay")


class Probed(NamedTuple):
    """Trained parameters, the mean of what was observed, and, of the last layer at the end,

    B: the matrix that pulls, tilted, and untilted: not. Shape (lanes, p, p).
    squares: Mean square of the first over minibatches. Shape (lanes, p, p).
    new: Directions not in use, as columns. Shape (lanes, p, k).
    pull: v^T B v of each, by other minibatches than those that chose them. Shape (lanes, k).
    growth: The same as training has it. Shape (lanes, k).
    """

    params: Any
    observed: Any
    B: jax.Array
    untilted: jax.Array
    squares: jax.Array
    new: jax.Array
    pull: jax.Array
    growth: jax.Array


def probed(key, start, features, views, numbers, rate, sizes, variance, observe) -> Probed:
    """Train the encoder last @ features(params, x) in every lane, and probe its last layer.

    Args:
        key: Root of the minibatches.
        start: Parameters, "last" among them of shape (lanes, m, p).
        features: features(params, x) of one lane: shape (n, p).
        views: views(key): two views of one minibatch, each of shape (lanes, n, d).
        numbers: Temperature, weight of alignment and decay, each of shape (lanes,).
        rate: Learning rate at first.
        sizes: Has `steps`, `probe` and `directions`.
        variance: variance(params), the largest of the features, in every lane. Shape (lanes,).
        observe: As in `train`.
    """
    k_train, k_matrix, k_growth = jax.random.split(key, 3)

    def loss_of_one(p, first, second, number):
        f, g = (features(p, x) @ p["last"].T for x in (first, second))
        loss = infonce_distance(f, g, number["temperature"], number["alpha"])
        return loss + number["weight_decay"] * jnp.sum(p["last"] ** 2)

    def loss(params, k):
        return jnp.sum(jax.vmap(loss_of_one)(params, *views(k), numbers))

    end, observed = train(loss, start, k_train, sizes.steps, rate, observe)

    def matrices(p, first, second, number):
        x = features(p, first), features(p, second)
        how = [number[name] for name in LOSS]
        return jnp.stack([effective_matrix(p["last"], *x, "infonce_distance", *how), untilted_matrix(*x, *how)])

    halves, squares = averaged(lambda k: jax.vmap(matrices)(end, *views(k), numbers), k_matrix, sizes.probe)
    mean, (first, second) = jnp.mean(halves, 0), halves[:, :, 0]
    # A direction is in use if the largest variance would lift it above the cut.
    used = jnp.sqrt(CUT * numbers["temperature"] / variance(end))
    new = jax.vmap(lambda W, B, u: dormant_directions(W, B, u).directions[:, : sizes.directions])(
        end["last"], first, used
    )
    rows = growth(loss, end, new, k_growth, LATE * rate, sizes.probe)
    return Probed(end, observed, mean[:, 0], mean[:, 1], squares[:, 0], new, along(new, second), rows)


def untilted_matrix(x, x_plus, temperature, alpha, weight_decay):
    """The matrix that pulls at last = 0, of one minibatch."""
    n = len(x)
    products, sums = x.T @ x_plus, jnp.outer(jnp.sum(x, 0), jnp.sum(x_plus, 0))
    squares, others = x.T @ x + x_plus.T @ x_plus, sums - products
    negatives = squares / n - (others + others.T) / (n * (n - 1))
    positives = (squares - products - products.T) / n
    return origin_matrix(negatives, positives, temperature, alpha, weight_decay)


def averaged(matrix, key, batches: int):
    """(means of B over each half of the minibatches, stacked, mean of B^2), B = `matrix(key)` of one minibatch."""

    def add(total, k):
        B = matrix(jax.random.fold_in(key, k))
        first = (k < batches // 2).astype(B.dtype)
        return (total[0] + jnp.stack([first * B, (1 - first) * B]), total[1] + B @ B), None

    zero = jnp.zeros_like(matrix(key))
    (halves, squares), _ = jax.lax.scan(add, (jnp.stack([zero, zero]), zero), jnp.arange(batches))
    sizes = jnp.array([batches // 2, batches - batches // 2], zero.dtype)
    return halves / jnp.expand_dims(sizes, range(1, halves.ndim)), squares / batches


def mean_pull(W, B):
    """Tr[M B] / Tr[M], M = W^T W: the mean of v^T B v over the directions in use."""
    return jnp.sum(W * (W @ B), (-2, -1)) / jnp.sum(W**2, (-2, -1))


def along(directions, B):
    """v^T B v of every column v."""
    return jnp.sum(directions * (B @ directions), -2)


def growth(loss, params, directions, key, rate, steps: int, size=1e-4):
    """Pull along new directions as training has it, from the mean factor by which small weights along them grow.

    One more row of the last layer a direction, s v^T; its length s is trained with everything else.
    """

    def wide(p):
        rows = p["lengths"][:, :, None] * directions.mT
        return {name: v for name, v in p.items() if name != "lengths"} | {"last": jnp.concatenate([p["last"], rows], 1)}

    def step(p, k):
        return gradient_step(lambda q: loss(wide(q), jax.random.fold_in(key, k)), p, rate), None

    lengths = jnp.full((directions.shape[0], directions.shape[2]), size, directions.dtype)
    end, _ = jax.lax.scan(step, params | {"lengths": lengths}, jnp.arange(steps))
    return jnp.expm1(jnp.log(jnp.abs(end["lengths"]) / size) / steps) / (2 * rate)


def gaussian_matrix(W, A0, C, numbers):
    """The matrix that pulls at W in every lane, its pairs tilted as those of Gaussian features."""
    return jax.vmap(
        lambda W, A0, C, n: gaussian_effective_matrix(W, A0, C, "infonce_distance", *(n[name] for name in LOSS))
    )(W, A0, C, numbers)


def compared(found: Probed, gaussian, rate) -> dict:
    """What claims hold against the tilted matrix, with what it would be without the tilt and tilted as Gaussian.

    Steps W + 2 rate W B leave, on average, the trace of M = W^T W as it is: Tr M B = -rate Tr M B^2.
    """
    W, new = found.params["last"], found.new
    return {
        "rest": mean_pull(W, found.B),
        "rest_theory": -LATE * rate * mean_pull(W, found.squares),
        "rest_origin": mean_pull(W, found.untilted),
        "rest_gaussian": mean_pull(W, gaussian),
        "growth": found.growth,
        "growth_theory": found.pull,
        "growth_origin": along(new, found.untilted),
        "growth_gaussian": along(new, gaussian),
    }
