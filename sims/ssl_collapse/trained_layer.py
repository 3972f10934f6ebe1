"""A trained last layer on its features: whether training is over for it, and which direction it would learn next."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import jax
import numpy as np

from theory.ssl_collapse import dormant_directions, effective_matrix

CUT = 0.01  # variance of the embedding, in units of the temperature, above which a direction is in use
CLEAR = 3.0  # standard errors
BLOCKS, LARGEST = 8, 1024  # least number of minibatches, and their most samples
SHOWN = 5


@dataclass(frozen=True)
class NewDirection:
    """A direction that is not in use: pull v^T B_eff v with its standard error, and whether training will learn it.

    Small weights along it grow at the rate of twice the pull, per learning rate times steps.
    """

    pull: float
    error: float
    verdict: str


@dataclass(frozen=True)
class TrainedLayer:
    """rank of the embedding; residual |W B_eff| over |W B(0)|, of what is at rest 0; the most wanted new directions."""

    rank: int
    residual: float
    batch: int
    new: tuple[NewDirection, ...]

    def sentences(self, predicted: int, m: int) -> Iterator[str]:
        """What a reader should know first."""
        yield f"Now {self.rank} directions are in use, {predicted} predicted for Gaussian features."
        still = "training is over for it" if self.residual < 0.05 else "it is still being trained"
        yield f"The pull on the layer is {self.residual:.2g} of that without repulsion between near pairs: {still}."
        if not self.new:
            yield "Every direction of the features is in use."
        elif self.rank == m:
            yield "All outputs are in use: a new direction can only replace another."
        else:
            words = {"grows": "will be learned next", "undecided": "may be at its threshold"}
            yield f"The most wanted new direction {words.get(self.new[0].verdict, self.new[0].verdict)}."


@functools.partial(jax.jit, static_argnames="loss")
def matrices(W, x, x_plus, loss: str, numbers):
    """B_eff of every minibatch; x and x_plus have the shape (minibatches, samples, r)."""
    return jax.lax.map(lambda views: effective_matrix(W, *views, loss, **numbers), (x, x_plus))


def inspect(W, x, x_plus, loss: str, numbers, n_negatives: float) -> TrainedLayer:
    """What W of shape (m, r) is at, on features of shape (n, r), by minibatches of n_negatives + 1 samples.

    The first half of the minibatches gives the new directions, the second their pulls, which are unbiased so.
    """
    n = len(x)
    batch = int(min(n_negatives + 1, n // BLOCKS, LARGEST))
    if batch < 2:
        raise ValueError(f"`views` must have at least {2 * BLOCKS} samples for a report on `W`, but got {n}.")
    # Samples may come in the order of their classes: they are shuffled.
    order = np.random.default_rng(0).permutation(n)[: n // batch * batch].reshape(-1, batch)
    scale = numbers["temperature"] if loss.startswith("infonce") else 1.0
    B, at_zero = (np.asarray(matrices(V, x[order], x_plus[order], loss, numbers)) for V in (W, np.zeros_like(W)))
    half = len(B) // 2
    first, second = B[:half].mean(0), B[half:]
    Sigma = np.cov(np.concatenate([x - x.mean(0), x_plus - x_plus.mean(0)]).T)
    variances = np.linalg.eigvalsh(W @ Sigma @ W.T) / scale
    tolerance = (CUT * scale / np.linalg.eigvalsh(Sigma)[-1]) ** 0.5
    _, directions = dormant_directions(W, first, tolerance)
    directions = np.asarray(directions)[:, np.isfinite(directions).all(0)][:, :SHOWN]
    values = np.einsum("ak,bac,ck->bk", directions, second, directions)
    errors = values.std(0, ddof=1) / len(values) ** 0.5
    rank = int((variances > CUT).sum())
    # Both halves: their noise is not in the product.
    square = np.sum((W @ first) * (W @ second.mean(0)))
    residual = max(float(square), 0.0) ** 0.5 / (np.linalg.norm(W @ at_zero.mean(0)) or 1.0)
    new = (NewDirection(float(p), float(e), _verdict(p, e)) for p, e in zip(values.mean(0), errors, strict=True))
    return TrainedLayer(rank, float(residual), batch, tuple(new))


def _verdict(pull, error):
    if abs(pull) <= CLEAR * error:
        return "undecided"
    return "grows" if pull > 0 else "stays collapsed"
