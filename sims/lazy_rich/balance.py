"""Balance of a person's own network: which layers are up- or downstream, and how fast the optimizer erases it.

`balance_report` measures the conserved quantity of every pair of layers and predicts its drift.
`python -m sims.lazy_rich.balance_example` shows it at work, with `initialize`.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from sims.lazy_rich.balance_layers import find_joints, require_like, squares
from theory.arguments import finite, integer, nonnegative, positive
from theory.lazy_rich import decayed_conserved_quantity

LARGEST_ENUMERATION = 4096  # batches: up to here all of them are stepped through, beyond only `draws`


@dataclass(frozen=True)
class Drift:
    """Change of the conserved quantity in one step: predicted, measured by a step, and that measurement's error."""

    predicted: np.ndarray
    measured: np.ndarray
    error: np.ndarray | float = 0.0  # standard error over the batches drawn; 0 where the measurement is exact


@dataclass(frozen=True)
class PairBalance:
    """Balance of two consecutive layers, hidden neuron by hidden neuron. Shapes (h,), of the matrix (h, h).

    relative is delta over the sum of the strengths k eta_w |a|^2 + eta_a |w|^2, from -1 to 1; total_relative and side
    compare the sums over the neurons. In mean square |w| = tau alpha and |a| = tau / alpha. flow is d delta / dt of
    gradient flow, 0 where the pair is homogeneous of degree k, and broken where it is not. What was not asked for is
    None.
    """

    lower: str
    upper: str
    eta_w: float
    eta_a: float
    eta_b: float
    degree: float
    weight_decay: float
    delta: np.ndarray
    relative: np.ndarray
    sides: list[str]
    total_relative: float
    side: str
    tau: float
    alpha: float
    matrix: np.ndarray | None = None
    flow: np.ndarray | None = None
    broken: bool = False
    gd: Drift | None = None
    gd_matrix: Drift | None = None
    sgd: Drift | None = None
    decay: Drift | None = None

    @property
    def name(self) -> str:
        """Both layers."""
        return f"{self.lower} -> {self.upper}"

    def decayed(self, t: ArrayLike) -> np.ndarray:
        """delta after gradient flow with the weight decay for a time t of shape (...), shape (..., h)."""
        if not self.eta_w == self.eta_b == self.eta_a:
            rates = f"{self.eta_w:g}, {self.eta_b:g} (bias) and {self.eta_a:g}"
            raise ValueError(f"`learning_rates` must be equal for an exponential decay, but got {rates}.")
        t = np.asarray(t, float)[..., None]
        return np.asarray(decayed_conserved_quantity(t, self.delta, self.weight_decay, eta=self.eta_w))


@dataclass(frozen=True)
class BalanceReport:
    """Balance of all pairs of layers; `str()` is a table, `to_dict()` is ready for JSON."""

    pairs: tuple[PairBalance, ...]
    step: float
    batch_size: int | None
    tolerance: float
    notes: tuple[str, ...]

    def __getitem__(self, key: int | str) -> PairBalance:
        """A pair, by its position or by the name of its lower layer."""
        return {pair.lower: pair for pair in self.pairs}[key] if isinstance(key, str) else self.pairs[key]

    def __len__(self) -> int:
        return len(self.pairs)

    def to_dict(self) -> dict:
        """Plain numbers, lists and strings; None for what is not finite."""
        text = json.dumps(asdict(self), default=np.ndarray.tolist)
        return json.loads(text, parse_constant=lambda constant: None)

    def __str__(self) -> str:
        sentences = (textwrap.fill(sentence, 110) for sentence in (*_sentences(self), *self.notes))
        return "\n\n".join([*_tables(self.pairs), *sentences]) + "\n"


def step_change(
    w_gradient2: ArrayLike, a_gradient2: ArrayLike, h: ArrayLike, *, eta_w=1.0, eta_a=1.0, degree=1.0
) -> ArrayLike:
    r"""Exact change of a neuron's conserved quantity in one step of gradient descent, from its squared gradients.

    .. math:: \Delta\delta = h^2\eta_a\eta_w\big(k\,\eta_a\|\partial_a L\|^2 - \eta_w\|\partial_w L\|^2\big)

    Args:
        w_gradient2: Squared gradient of the incoming weights (and bias). Shape (...).
        a_gradient2: Squared gradient of the outgoing weights. Shape (...).
        h: Step size, in units of time. Shape (...).
        eta_w: Learning rate of w; relative. Shape (...).
        eta_a: Learning rate of a; relative. Shape (...).
        degree: Degree k of the activation's homogeneity. Shape (...).

    Returns:
        The change. Shape: broadcast. For random gradients, the mean squares give the mean change; between linear
        layers, the Gram matrices of the gradients give the change of the conserved matrix.

    Valid: exact at every step size, where k a . dL/da = w . dL/dw: a simultaneous step of plain gradient descent.
    Source: derived; `theory.lazy_rich.conserved_step` for several outputs, in terms of gradients.
    Checked: real steps (1e-12); `conserved_step`.
    """
    return h**2 * eta_a * eta_w * (degree * eta_a * a_gradient2 - eta_w * w_gradient2)


def balance_report(
    params: Any,
    learning_rates: Any = 1.0,
    *,
    step: float = 1.0,
    order: Sequence[str] | None = None,
    pairs: Sequence[tuple[str, str]] | None = None,
    degree: float | Mapping[str, float] = 1.0,
    linear: bool | Collection[str] = False,
    gradients: Any = None,
    loss: Callable[[Any, Any], Any] | None = None,
    batch: Any = None,
    sample_gradients: Any = None,
    batch_size: int | None = None,
    weight_decay: float = 0.0,
    draws: int = 256,
    seed: int = 0,
    tolerance: float = 0.1,
) -> BalanceReport:
    r"""Balance of a network's layers, and how gradient descent, minibatches and weight decay change it.

    .. math:: \delta_i = k\,\eta_w\|a_i\|^2 - \eta_a\|w_i\|^2, \qquad
        \Delta = \eta_w A A^\top - \eta_a W W^\top \text{ between linear layers}

    with w_i the incoming weights of hidden neuron i, its bias among them, and a_i its outgoing ones. A bias of another
    rate eta_b counts as b sqrt(eta_w / eta_b). In one step of size h, with gradient :math:`g + \lambda\theta`, and on
    average over batches of B samples drawn with replacement, of covariance C of their gradients:

    .. math:: \Delta\delta = h^2\eta_a\eta_w\big(k\,\eta_a\|g_a\|^2 - \eta_w\|g_w\|^2\big), \qquad
        \|g\|^2 \to \|g\|^2 + \operatorname{tr}C/B, \qquad
        \delta \to (1 - h\eta\lambda)^2\delta + \Delta\delta

    Args:
        params: Flax parameters, {module: {"kernel", "bias"}} at any depth, or a list of matrices of shape (in, out), of
            which the last may be a vector (in,). Convolutions count channel by channel, also before a flattened Dense.
        learning_rates: One number, or a list or dict by layer, each a number or {"kernel", "bias"}; relative to each
            other: a step moves a weight by -step * rate * gradient.
        step: Step size h, in units of time; the learning rate, where the rates are 1.
        order: Names of the layers from input to output, such as "Dense_0" or "encoder/Dense_0". By default the order of
            creation, or of the numbers in the names where a tree operation has sorted them: look at the names printed.
        pairs: (lower, upper) by name, instead of consecutive layers.
        degree: Degree k of homogeneity of the activation after each layer, 1 for linear and (leaky) ReLU, 2 for z^2; a
            number or a dict by lower layer.
        linear: Whether nothing but a linear map lies between the layers of a pair, or the lower layers where so.
        gradients: Gradient of the loss, a tree like `params`.
        loss: loss(params, batch), a mean over the samples of the batch; instead of `gradients`.
        batch: Its second argument, a tree of arrays with the samples along the first axis.
        sample_gradients: List of the gradients of samples or minibatches, or a dict with them along the first axis.
        batch_size: Gradients to a minibatch, B; asks for the drift of SGD of the samples of `batch`. 1 by default where
            `sample_gradients` are given.
        weight_decay: lambda of L + lambda / 2 |theta|^2, biases too, zero or positive.
        draws: Minibatches to measure with, where enumerating all would take more than 4096.
        seed: Seed of these draws.
        tolerance: A neuron, or a pair, is balanced if |delta| is at most this part of the sum of the strengths
            k eta_w |a|^2 + eta_a |w|^2; otherwise upstream for delta > 0 and downstream for delta < 0.

    Returns:
        A `BalanceReport`. Measured drifts take the step in float64 and subtract, so that rounding does not hide them.

    Valid: layers joined by an activation homogeneous of degree k, by pooling or by nothing; no norm, skip connection or
        shared weights between (`flow` is then not 0, and the report says so); not momentum or Adam, which conserve
        nothing.
    Raises: ValueError, one sentence: shapes that do not chain, missing layers, rates that are not positive, values that
        are not finite, a loss that is no mean.
    Source: arXiv:2406.06158 for ReLU and linear layers at equal rates; rates, bias, k, drifts derived.
    Checked: one real step, enumeration of batches (1e-12); `theory.lazy_rich.conserved_quantity`.
    """
    positive(step=step)
    nonnegative(weight_decay=weight_decay, tolerance=tolerance)
    finite(step=step, weight_decay=weight_decay)
    joints, notes = find_joints(params, learning_rates, order, pairs, degree, linear)
    gradient, samples, mean_gradient = _gradients(joints, params, gradients, loss, batch, sample_gradients)
    noises = [None] * len(joints)
    if batch_size is None and sample_gradients is not None:
        batch_size = 1
    if batch_size is not None:
        if samples is None:
            needs = "`sample_gradients`, or `loss` and `batch`"
            raise ValueError(f"`batch_size` needs {needs}, but got {batch_size} alone.")
        integer(1, batch_size=batch_size)
        integer(2, draws=draws)
        mean, noises = _sgd(joints, params, samples, mean_gradient, batch_size, draws, seed, step)
        if gradient is not None:
            _require_mean(gradient, mean)
        gradient = mean
    found = [
        _balance(joint, params, g, noise, step, weight_decay, tolerance)
        for joint, g, noise in zip(joints, gradient or noises, noises, strict=True)
    ]
    return BalanceReport(tuple(found), float(step), batch_size, float(tolerance), tuple(notes))


def _balance(joint, params, gradient, sgd, h, weight_decay, tolerance):
    k, rates = joint.degree, {"eta_w": joint.eta_w, "eta_a": joint.eta_a}
    w, a = joint.neurons(params)
    w2, a2 = squares(w).mean(), squares(a).mean()
    outer, inner = joint.strengths(w, a)
    delta, matrix = outer - inner, joint.matrix(w, a) if joint.linear else None
    relative, total = _over(delta, outer + inner), float(_over(delta.sum(), (outer + inner).sum()))
    drifts, (g_w, g_a) = {"sgd": sgd}, (0 * w, 0 * a) if gradient is None else gradient
    if gradient is not None:
        stepped = joint.step(w, a, g_w, g_a, h)
        change = step_change(squares(g_w), squares(g_a), h, **rates, degree=k)
        drifts["gd"] = Drift(change, joint.delta(*stepped) - delta)
        if joint.linear:
            change = step_change(g_w @ g_w.T, g_a @ g_a.T, h, **rates)
            drifts["gd_matrix"] = Drift(change, joint.matrix(*stepped) - matrix)
    if weight_decay:
        decay_w, decay_a = (weight_decay * x for x in joint.neurons(params, dual=True))
        g_w, g_a = g_w + decay_w, g_a + decay_a
        change = h * joint.flow(w, a, decay_w, decay_a) + step_change(squares(g_w), squares(g_a), h, **rates, degree=k)
        drifts["decay"] = Drift(change, joint.delta(*joint.step(w, a, g_w, g_a, h)) - delta)
    return PairBalance(
        lower=joint.lower.name,
        upper=joint.upper.name,
        **rates,
        eta_b=joint.eta_b,
        degree=k,
        weight_decay=weight_decay,
        delta=delta,
        relative=relative,
        sides=[_side(x, tolerance) for x in relative],
        total_relative=total,
        side=_side(total, tolerance),
        tau=float((w2 * a2) ** 0.25),
        alpha=float((w2 / a2) ** 0.25) if a2 > 0 else math.inf,
        matrix=matrix,
        flow=None if gradient is None else joint.flow(w, a, *gradient),
        broken=gradient is not None and joint.broken(w, a, *gradient),
        **drifts,
    )


def _gradients(joints, params, gradients, loss, batch, sample_gradients):
    """The gradient pair by pair, or None; the samples, or None; and a function, the mean gradient of some of them."""

    def by_pairs(name, tree):
        for joint in joints:
            require_like(name, tree, params, (joint.lower, joint.upper))
        return [joint.neurons(tree, dual=True) for joint in joints]

    def mean_gradient(indices):
        some = jax.tree.map(lambda x: np.asarray(x)[np.array(indices)], samples)
        if loss is None:
            return by_pairs("sample_gradients", jax.tree.map(lambda x: x.mean(0, dtype=float), some))
        return by_pairs("gradient of `loss`", gradient_of(params, some))

    if loss is not None:
        if gradients is not None or sample_gradients is not None:
            raise ValueError("`loss` must be left out where gradients are given, but got both.")
        gradient_of, samples = jax.jit(jax.grad(loss)), batch
        gradient = by_pairs("gradient of `loss`", gradient_of(params, batch))
    else:
        gradient = None if gradients is None else by_pairs("gradients", gradients)
        if isinstance(sample_gradients, Sequence):
            if not sample_gradients:
                raise ValueError("`sample_gradients` must hold at least one gradient, but got none.")
            sample_gradients = jax.tree.map(lambda *x: np.stack(x), *sample_gradients)
        samples = sample_gradients
    return gradient, samples, mean_gradient


def _sgd(joints, params, samples, mean_gradient, batch_size, draws, seed, h):
    """The samples' mean gradient, and every pair's drift, predicted from their moments and measured by real steps."""

    def added(x, y):
        return jax.tree.map(np.add, x, y)

    count = len(jax.tree.leaves(samples)[0])
    singles = (mean_gradient([j]) for j in range(count))
    moments = functools.reduce(added, ((g, jax.tree.map(squares, g)) for g in singles))
    mean, second = jax.tree.map(lambda x: x / count, moments)
    noisy = jax.tree.map(lambda m, s: squares(m) + (s - squares(m)) / batch_size, mean, second)

    exhaustive = batch_size * math.log(count) <= math.log(LARGEST_ENUMERATION)
    if exhaustive:
        batches = itertools.product(range(count), repeat=batch_size)
    else:
        batches = np.random.default_rng(seed).integers(count, size=(draws, batch_size))
    weights = [joint.neurons(params) for joint in joints]
    ends = [
        [joint.delta(*joint.step(*pair, *g, h)) for joint, pair, g in zip(joints, weights, gradient, strict=True)]
        for gradient in map(mean_gradient, batches)
    ]
    drifts = []
    for joint, pair, g2, after in zip(joints, weights, noisy, zip(*ends, strict=True), strict=True):
        changes = np.stack(after) - joint.delta(*pair)
        error = 0.0 if exhaustive else changes.std(0, ddof=1) / len(changes) ** 0.5
        predicted = step_change(*g2, h, eta_w=joint.eta_w, eta_a=joint.eta_a, degree=joint.degree)
        drifts.append(Drift(predicted, changes.mean(0), error))
    return mean, drifts


def _require_mean(gradient, mean):
    full, mean = (np.concatenate([x.ravel() for x in jax.tree.leaves(tree)]) for tree in (gradient, mean))
    if np.linalg.norm(full - mean) > 1e-3 * np.linalg.norm(full):
        raise ValueError(
            "`loss` (or `gradients`) must be the mean over the samples, but the mean of their gradients is "
            f"{full @ mean / (full @ full):.4g} of its gradient, off by {np.linalg.norm(full - mean):.2g}."
        )


def _over(x, y):
    return np.divide(x, y, out=np.zeros_like(y), where=y > 0)


def _side(relative, tolerance):
    return "balanced" if abs(relative) <= tolerance else ("upstream" if relative > 0 else "downstream")


def _tables(pairs):
    """The balance of every pair, and the drifts of those that have any."""
    rows = [
        ("layers", "neurons", "k", "eta_w", "eta_a", "tau", "alpha", "mean delta", "relative", "side", "up/bal/down")
    ]
    drifts = [("change of mean delta in one step", "predicted", "measured", "difference", "error", "e-folding (steps)")]
    for pair in pairs:
        delta, counts = pair.delta.mean(), [pair.sides.count(x) for x in ("upstream", "balanced", "downstream")]
        numbers = pair.degree, pair.eta_w, pair.eta_a, pair.tau, pair.alpha, delta, pair.total_relative
        rows.append((pair.name, len(pair.delta), *numbers, pair.side, "/".join(map(str, counts))))
        named = {"gradient descent": pair.gd, "minibatches": pair.sgd, "with weight decay": pair.decay}
        for name, drift in named.items():
            if drift is not None:
                predicted, measured, error = (np.mean(x) for x in (drift.predicted, drift.measured, drift.error))
                steps = -delta / predicted if predicted else math.inf
                drifts.append((f"{pair.name}, {name}", predicted, measured, measured - predicted, error, steps))
    return [_table(table) for table in (rows, drifts) if len(table) > 1]


def _table(rows):
    rows = [[f"{x:.4g}" if isinstance(x, float) else str(x) for x in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.rjust, row, widths)) for row in rows)


def _sentences(report):
    yield (
        "delta = k eta_w |a|^2 - eta_a |w|^2 of each hidden neuron; relative: divided by the sum of both terms, "
        f"balanced up to {report.tolerance:g}, upstream above (the lower layer learns first), downstream below. "
        "A negative e-folding: the imbalance grows."
    )
    for pair in report.pairs:
        if pair.broken:
            yield (
                f"{pair.name} conserves nothing: gradient flow itself changes the mean delta, by "
                f"{report.step * pair.flow.mean():.3g} in the time of a step, which the predictions leave out. "
                f"There may be another degree than {pair.degree:g}, a norm layer, a skip connection or shared weights."
            )
