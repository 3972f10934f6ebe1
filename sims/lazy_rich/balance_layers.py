"""Layers in a person's parameters, and the pairs of them whose balance gradient flow conserves."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from theory.arguments import finite, positive

BROKEN = 1e-3  # of |theta| |gradient|: above it the flow itself moves delta; rounding in float32 stays below


class Layer(NamedTuple):
    """A layer's name, and the paths of its kernel and, where there is one, its bias."""

    name: str
    kernel: tuple
    bias: tuple | None = None


class Joint(NamedTuple):
    """Two layers and the hidden neurons between, with what their conserved quantity needs."""

    lower: Layer
    upper: Layer
    eta_w: float
    eta_a: float
    eta_b: float
    degree: float
    linear: bool

    def neurons(self, tree: Any, dual: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Incoming and outgoing weights, shapes (h, p) and (h, q), in float64; `dual`: gradients by them.

        Rates are scales: a bias of rate eta_b moves like one of rate eta_w that is sqrt(eta_w / eta_b) times larger.
        """
        w, a = leaf(tree, self.lower.kernel), leaf(tree, self.upper.kernel)
        w = w.reshape(-1, w.shape[-1]).T
        if self.lower.bias:
            scale = (self.eta_w / self.eta_b) ** (-0.5 if dual else 0.5)
            w = np.concatenate([w, scale * leaf(tree, self.lower.bias)[:, None]], axis=1)
        a = a.reshape(-1, len(w), a.shape[-1] if a.ndim > 1 else 1)  # positions, channels, outputs
        return w, a.swapaxes(0, 1).reshape(len(w), -1)

    def strengths(self, w: np.ndarray, a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """k eta_w |a|^2 and eta_a |w|^2 of every neuron."""
        return self.degree * self.eta_w * squares(a), self.eta_a * squares(w)

    def delta(self, w: np.ndarray, a: np.ndarray) -> np.ndarray:
        """Conserved quantity of every neuron."""
        return np.subtract(*self.strengths(w, a))

    def matrix(self, w: np.ndarray, a: np.ndarray) -> np.ndarray:
        """Conserved matrix between linear layers."""
        return self.eta_w * a @ a.T - self.eta_a * w @ w.T

    def step(self, w, a, g_w, g_a, h: float) -> tuple[np.ndarray, np.ndarray]:
        """Weights after a step of gradient descent."""
        return w - h * self.eta_w * g_w, a - h * self.eta_a * g_a

    def flow(self, w, a, g_w, g_a) -> np.ndarray:
        """d delta / dt of gradient flow, of every neuron."""
        return -2 * self.eta_a * self.eta_w * (self.degree * (a * g_a).sum(1) - (w * g_w).sum(1))

    def broken(self, w, a, g_w, g_a) -> bool:
        """Whether k a . dL/da = w . dL/dw fails, on which all conservation rests; of linear layers, as matrices."""
        if self.linear:
            mismatch = (a @ g_a.T + g_a @ a.T - w @ g_w.T - g_w @ w.T) / 2
        else:
            mismatch = self.degree * (a * g_a).sum(1) - (w * g_w).sum(1)
        size = self.degree * np.linalg.norm(a) * np.linalg.norm(g_a) + np.linalg.norm(w) * np.linalg.norm(g_w)
        return bool(np.linalg.norm(mismatch) > BROKEN * size)


def find_joints(params, learning_rates, order, pairs, degree, linear) -> tuple[list[Joint], list[str]]:
    """Joints of all pairs that chain, and a note on each pair of a dict that does not. Arguments: `balance_report`."""
    layers = find_layers(params, order)
    require_names("pairs", itertools.chain(*(pairs or ())), layers)
    require_names("degree", degree if isinstance(degree, Mapping) else (), layers)
    require_names("linear", () if isinstance(linear, bool) else linear, layers)
    joints, notes = [], []
    for lower, upper in pairs or itertools.pairwise(layers):
        shapes = [leaf(params, layers[name].kernel).shape for name in (lower, upper)]
        if _chain(*shapes):
            k = degree.get(lower, 1.0) if isinstance(degree, Mapping) else degree
            straight = linear if isinstance(linear, bool) else lower in linear
            joints.append(_joint(layers[lower], layers[upper], learning_rates, k, straight))
            continue
        sentence = f"must chain, but {lower} has shape {shapes[0]} and {upper} {shapes[1]}"
        if order or pairs or not isinstance(params, Mapping):
            raise ValueError(f"`params` {sentence}.")
        notes.append(f"{lower} and {upper} are no pair: layers {sentence} (`order` or `pairs` says which do).")
    if not joints:
        raise ValueError("`params` must hold layers that chain, but no two do; `order` or `pairs` says which should.")
    return joints, notes


def _chain(lower, upper):
    """Whether kernels of these shapes follow each other, the upper one perhaps behind flattened channels."""
    inputs, h = upper[-2:][0], lower[-1]
    return len(lower) > 1 and (inputs == h or (len(lower) > 2 and len(upper) == 2 and inputs % h == 0))


def _joint(lower, upper, learning_rates, degree, linear):
    if linear and degree != 1:
        raise ValueError(f"`degree` must be 1 after the linear layer {lower.name}, but got {degree:g}.")
    positive(degree=degree)
    finite(degree=degree)
    eta_w, eta_a = (_rate(learning_rates, layer.name, "kernel") for layer in (lower, upper))
    eta_b = _rate(learning_rates, lower.name, "bias") if lower.bias else eta_w
    return Joint(lower, upper, eta_w, eta_a, eta_b, float(degree), linear)


def _rate(rates, layer, kind):
    """A rate: from one number, or from a list or dict by layer, of numbers or of {"kernel", "bias"}."""
    try:
        if isinstance(rates, Mapping | Sequence):
            rates = rates[layer if isinstance(rates, Mapping) else int(layer)]
        rate = rates[kind] if isinstance(rates, Mapping) else rates
    except (KeyError, IndexError, ValueError):
        raise ValueError(f"`learning_rates` must hold a rate for layer {layer}, but it does not.") from None
    positive(learning_rates=rate)
    finite(learning_rates=rate)
    return float(rate)


def find_layers(params: Any, order: Sequence[str] | None = None) -> dict[str, Layer]:
    """The layers of parameters from input to output, by name; those of `order` where it is given."""
    if isinstance(params, Mapping):
        layers = {layer.name: layer for layer in _walk(_unwrapped(params))}
    elif isinstance(params, Sequence):
        layers = {str(i): Layer(str(i), (i,)) for i in range(len(params))}
    else:
        raise ValueError(f"`params` must be a dict of layers or a list of matrices, but got {type(params).__name__}.")
    if len(layers) < 2:
        raise ValueError(f"`params` must hold at least two layers, but got {len(layers)}.")
    require_like("params", params, params, layers.values())
    require_names("order", order or (), layers)
    return {name: layers[name] for name in order or layers}


def _walk(tree, path=()):
    """Layers in the order of creation, or of the numbers in their names where a tree operation has sorted them."""
    if "kernel" in tree:
        yield Layer("/".join(path), (*path, "kernel"), None if tree.get("bias") is None else (*path, "bias"))
    names = list(tree)
    if names == sorted(names):
        names.sort(key=lambda name: [int(x) if x.isdigit() else x for x in re.split(r"(\d+)", name)])
    for name in names:
        if isinstance(tree[name], Mapping):
            yield from _walk(tree[name], (*path, name))


def leaf(tree: Any, path: tuple, name: str = "params") -> np.ndarray:
    """A leaf as a float64 array."""
    found = _unwrapped(tree)
    try:
        for part in path:
            found = found[part]
        return np.asarray(found, dtype=float)
    except (KeyError, IndexError, TypeError, ValueError):
        raise ValueError(f"`{name}` must hold an array at {'/'.join(map(str, path))}, but it does not.") from None


def _unwrapped(tree):
    """The tree without Flax's outer "params"."""
    return tree["params"] if isinstance(tree, Mapping) and "params" in tree else tree


def require_names(argument: str, names: Iterable[str], layers: Mapping[str, Layer]) -> None:
    """One sentence where a name is not that of a layer."""
    for name in names:
        if name not in layers:
            raise ValueError(f"`{argument}` must name layers among {', '.join(layers)}, but got {name}.")


def require_like(argument: str, tree: Any, params: Any, layers: Iterable[Layer]) -> None:
    """One sentence where a leaf of a layer is missing, has another shape than in `params`, or is not finite."""
    for layer in layers:
        for path in filter(None, (layer.kernel, layer.bias)):
            found, shape = leaf(tree, path, argument), leaf(params, path).shape
            if found.shape != shape:
                raise ValueError(f"`{argument}` must have shape {shape} in {layer.name}, but got {found.shape}.")
            if not np.isfinite(found).all():
                raise ValueError(f"`{argument}` must be finite, but layer {layer.name} is not.")


def squares(x: np.ndarray) -> np.ndarray:
    """Squared norms of the rows."""
    return (x**2).sum(-1)
