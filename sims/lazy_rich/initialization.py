"""Initialization of a wanted regime: lazy or rich, up- or downstream."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sims.lazy_rich.balance_layers import find_layers, leaf
from theory.arguments import finite, integer, positive
from theory.lazy_rich import relative_scale

DEGREES = {"linear": 1.0, "relu": 1.0, "leaky_relu": 1.0, "square": 2.0}


@dataclass(frozen=True)
class Initialization:
    """Standard deviations of every layer for a wanted scale and imbalance; made by `initialize`."""

    widths: tuple[int, ...]
    tau: float
    delta: tuple[float, ...]
    alpha: float
    activation: str
    stds: np.ndarray

    @property
    def gains(self) -> np.ndarray:
        """Standard deviations in units of 1 / sqrt(fan_in): 1 is LeCun's initialization, sqrt 2 He's."""
        return self.stds * np.sqrt(self.widths[:-1])

    def kernels(self, key: jax.Array, *, exact: bool = False) -> list[np.ndarray]:
        """Random kernels of shapes (in, out), in float64.

        With `exact` every neuron has its norms exactly, by scaling rows and columns; one hidden linear layer that is no
        wider than input and output also gets orthogonal neurons, so that the conserved matrix is delta times identity.
        """
        shapes, last = list(itertools.pairwise(self.widths)), len(self.stds) - 1
        draws = [jax.random.normal(jax.random.fold_in(key, number), shape) for number, shape in enumerate(shapes)]
        draws = [np.asarray(x, float) for x in draws]
        d, h, c = self.widths[0], self.widths[1], self.widths[-1]
        if exact and self.activation == "linear" and last == 1 and h <= min(d, c):
            draws = [d**0.5 * np.linalg.qr(draws[0])[0], c**0.5 * np.linalg.qr(draws[1].T)[0].T]
        elif exact:
            draws = [_unit_norms(x, number > 0, number < last) for number, x in enumerate(draws)]
        return [std * x for std, x in zip(self.stds, draws, strict=True)]

    def like(self, params: Any, key: jax.Array, *, exact: bool = False, order: Sequence[str] | None = None) -> Any:
        """The same parameters with these kernels and zero biases; `order` names the layers from input to output.

        Dtypes, structure and other leaves are kept.
        """
        layers, new = find_layers(params, order), {}
        if len(layers) != len(self.stds):
            raise ValueError(f"`params` must have {len(self.stds)} layers, but got {', '.join(layers)}.")
        for layer, kernel in zip(layers.values(), self.kernels(key, exact=exact), strict=True):
            shape = leaf(params, layer.kernel).shape
            if kernel.shape != (shape if len(shape) > 1 else (*shape, 1)):
                raise ValueError(f"`params` must have shape {kernel.shape} in {layer.name}, but got {shape}.")
            new["/".join(map(str, layer.kernel))] = kernel.reshape(shape)
            if layer.bias:
                new["/".join(layer.bias)] = np.zeros(shape[-1])

        def replaced(path, old):
            name = jax.tree_util.keystr(path, simple=True, separator="/").removeprefix("params/")
            return jnp.asarray(new[name], jnp.result_type(old)) if name in new else old

        return jax.tree_util.tree_map_with_path(replaced, params)

    def __str__(self) -> str:
        deltas = ", ".join(f"{x:g}" for x in self.delta)
        lines = [
            f"tau = {self.tau:g}, alpha = {self.alpha:.4g}, delta = {deltas} ({self.activation})",
            f"{'layer':>5}{'in':>8}{'out':>8}{'std':>12}{'gain':>12}",
        ]
        rows = zip(itertools.pairwise(self.widths), self.stds, self.gains, strict=True)
        lines += [f"{i:>5}{n:>8}{m:>8}{std:>12.4g}{gain:>12.4g}" for i, ((n, m), std, gain) in enumerate(rows)]
        return "\n".join(lines) + "\n"


def initialize(
    tau: float,
    delta: float | Sequence[float],
    widths: Sequence[int],
    *,
    learning_rates: float | Sequence[float] = 1.0,
    activation: str = "relu",
) -> Initialization:
    r"""Initialization of a wanted regime: lazy or rich, up- or downstream.

    .. math:: E\|w_i\|^2 = n_0\sigma_1^2 = \tau^2\alpha^2, \qquad E\|a_i\|^2 = n_2\sigma_2^2 = \tau^2/\alpha^2, \qquad
        k\,\eta_l\,n_{l+1}\sigma_{l+1}^2 - \eta_{l+1}\,n_{l-1}\sigma_l^2 = \delta_l

    for the layers l = 1, 2, ... of widths n_0 (inputs), n_1, ... and Gaussian entries of standard deviation sigma_l.
    The first hidden layer has scale tau and imbalance delta. In deeper networks one number delta means that the layers
    after the first are mutually balanced (delta_l = 0), so that the first layer stands against a balanced rest, as in
    the deep linear chain; the scale of the later hidden layers follows.

    Args:
        tau: Scale of the first hidden layer's neurons, |w| = tau alpha and |a| = tau / alpha, positive. Small is rich.
        delta: Conserved quantity of each neuron, positive upstream; one number, or one for each hidden layer.
        widths: Numbers of inputs, of neurons in each hidden layer, and of outputs.
        learning_rates: Relative rates of the layers, positive; one number, or one for each layer.
        activation: "linear", "relu", "leaky_relu" or "square"; only its degree of homogeneity k counts.

    Returns:
        An `Initialization` with `stds`, `gains`, and random weights by `kernels` and `like`.

    Valid: Dense layers with zero biases. Means over the draw; `exact` weights have them in every neuron.
    Raises: ValueError, one sentence: tau or a rate that is not positive, values that are not finite, widths below 1,
        no hidden layer, a delta_l so negative that no weights have it.
    Source: arXiv:2406.06158 for one hidden layer at equal rates; rates, degree and depth derived.
    Checked: `balance_report` of the weights gives tau and delta back (1e-12 with `exact`).
    """
    n = tuple(widths)
    if len(n) < 3:
        raise ValueError(f"`widths` must hold inputs, at least one hidden layer, and outputs, but got {n}.")
    integer(1, widths=np.array(n, float))
    if activation not in DEGREES:
        raise ValueError(f"`activation` must be one of {', '.join(DEGREES)}, but got {activation}.")
    k, hidden = DEGREES[activation], len(n) - 2
    rates = _each("learning_rates", learning_rates, hidden + 1, "layer")
    deltas = _each("delta", delta if np.ndim(delta) else [delta] + [0.0] * (hidden - 1), hidden, "hidden layer")
    positive(learning_rates=np.array(rates))
    finite(learning_rates=np.array(rates), delta=np.array(deltas))
    with jax.enable_x64(True):
        alpha = float(relative_scale(tau, deltas[0], eta_a=rates[1], eta_w=k * rates[0]))
    variances = [tau**2 * alpha**2 / n[0], tau**2 / alpha**2 / n[2]]
    for at in range(1, hidden):
        inner = rates[at + 1] * n[at] * variances[at]
        variances.append((deltas[at] + inner) / (k * rates[at] * n[at + 2]))
        if variances[-1] <= 0:
            raise ValueError(f"`delta` must be above {-inner:.6g} in hidden layer {at + 1}, but got {deltas[at]:.6g}.")
    return Initialization(tuple(map(int, n)), float(tau), tuple(deltas), alpha, activation, np.sqrt(variances))


def _each(name, values, count, what):
    values = [float(x) for x in (values if np.ndim(values) else [values] * count)]
    if len(values) != count:
        raise ValueError(f"`{name}` must be one number or one for each of {count} {what}s, but got {len(values)}.")
    return values


def _unit_norms(x, rows, columns):
    """Entries scaled by row and by column to mean square 1 in every row and (or) column."""
    for _ in range(10_000):
        if rows:
            x = x / np.sqrt((x**2).mean(1, keepdims=True))
        if columns:
            x = x / np.sqrt((x**2).mean(0, keepdims=True))
        if not (rows and columns) or abs((x**2).mean(1) - 1).max() < 1e-14:
            break
    return x
