"""Audit of a person's own Flax transformer: do its tokens collapse, do its gradients explode, and what cures it?

`audit` measures the model's residual stream beside the mean-field theory of `theory.signal_propagation`; the model's
code stays as it is. `python -m sims.signal_propagation.audit_example` shows it at work.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from sims.signal_propagation.audit_streams import (
    calls_of,
    find_blocks,
    fitting,
    followed,
    geometry,
    measurement,
    streams,
)
from theory.arguments import integer
from theory.signal_propagation import (
    CriticalPoint,
    Geometry,
    GradientCovariance,
    TransformerConfig,
    angle_exponent,
    backward_block,
    critical_initialization,
    depth_budget,
    gradient_exponent,
    propagate,
    propagate_gram,
    stationary_norm,
)
from theory.signal_propagation.config import NUMBERS

NEAR = 1.0  # of a total exponent: below it an angle changes by less than a factor e over all blocks
LARGEST_GRAM = 64  # tokens: the causal map takes n^4 operations a block


class Profile(NamedTuple):
    """What the stream and its gradients look like at the input of every block and at the end. Shapes (L + 1,)."""

    q: np.ndarray
    rho: np.ndarray
    u_token: np.ndarray
    w_token: np.ndarray
    u_pooled: np.ndarray
    w_pooled: np.ndarray


class Exponent(NamedTuple):
    """An exponent at collapse: measured block by block, predicted at the norms measured and at the stationary one."""

    measured: np.ndarray
    predicted: np.ndarray
    stationary: float

    @property
    def mean(self) -> float:
        """Measured mean per block."""
        return float(self.measured.mean())

    @property
    def error(self) -> float:
        """Standard error of that mean over blocks, generous where they differ by their nature; nan for one block."""
        blocks = len(self.measured)
        return float(self.measured.std(ddof=1) / blocks**0.5) if blocks > 1 else np.nan

    @property
    def total(self) -> float:
        """Sum over the blocks."""
        return float(self.measured.sum())

    @property
    def theory(self) -> float:
        """Predicted mean per block, at the norms measured."""
        return float(self.predicted.mean())


@dataclass(frozen=True)
class Audit:
    """Measurements of a transformer beside mean-field theory; predictions that do not exist are nan."""

    block: str
    tokens: int
    networks: int
    measured: Profile
    predicted: Profile
    collapsed_q: np.ndarray
    angle: Exponent
    token: Exponent
    pooled: Exponent
    config: TransformerConfig | None
    depth_budget: float
    critical: tuple[CriticalPoint, ...]
    notes: tuple[str, ...]

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.angle.measured)

    @property
    def regime(self) -> str:
        """ "ordered", "near critical" or "chaotic", by the measured angle exponent times the depth."""
        return _regime(self.angle.total)

    @property
    def predicted_regime(self) -> str:
        """The same by the theory at the stationary norm, at the measured norms without one; "unknown" without both."""
        per_block = self.angle.theory if np.isnan(self.angle.stationary) else self.angle.stationary
        return _regime(self.depth * per_block)

    def table(self) -> str:
        """The numbers layer by layer, theory in brackets, and what they mean in plain sentences."""
        return _layers(self) + "\n\n" + textwrap.fill(" ".join(_sentences(self)), 110) + "\n"


def audit(
    model: Any,
    params: Mapping | None,
    tokens: Any,
    config: TransformerConfig | None = None,
    *,
    block: type | Callable[[Any], bool] | None = None,
    key: ArrayLike | None = None,
    networks: int = 1,
    draws: int = 4,
    keywords: Mapping | None = None,
) -> Audit:
    r"""Audit of a Flax transformer at its present parameters: geometry, gradients and exponents of its residual stream.

    .. math:: q_l = \frac{\langle X_i \cdot X_i\rangle}d, \quad
        \rho_l = \frac{\langle X_i \cdot X_j\rangle}{\langle X_i \cdot X_i\rangle}, \qquad
        u_l = \frac{\langle|G_i|^2\rangle}{\langle|R_i|^2\rangle}, \quad
        w_l = (n-1)\frac{\langle G_i \cdot G_j\rangle}{\langle|R_i|^2\rangle}, \quad
        G = \frac{\partial \sum_i R_i \cdot X_i^{(L)}}{\partial X^{(l)}}

    and, where all tokens of a sequence are made equal at the first block, to first order in a perturbation delta,

    .. math:: e^{\lambda_a} = \frac{E_{l+1}}{E_l}, \quad
        E = \Big\langle\frac{|(\delta_i - \bar\delta)_\perp|^2}{|x|^2}\Big\rangle, \qquad
        e^{\lambda_g^{\rm tok}} = \frac{(u - v)_l}{(u - v)_{l+1}}, \quad
        e^{\lambda_g^{\rm pool}} = \frac{(u + w)_l}{(u + w)_{l+1}}

    with the cotangents R Gaussian and of zero token mean ("token") or one Gaussian for all tokens ("pooled").

    Args:
        model: A `flax.linen.Module`.
        params: Its variables, or its parameters alone; None draws `networks` many by `model.init`.
        tokens: The argument of `model.apply`, or a tuple of several, giving a stream of shape (..., n, d).
        config: The transformer that the model is meant to be; without it there are only measurements.
        block: The residual blocks: a module class or a predicate on modules. By default the class, called more often
            than any other, whose calls form a chain, each output the next input, that lies in no other chain.
        key: Random key of the cotangents, perturbations and networks.
        networks: How many networks to draw and average over, from 1.
        draws: How many cotangents and perturbations to average over, from 1.
        keywords: Keyword arguments of `model.apply`, such as {"train": False}.

    Returns:
        An `Audit`, whose `table()` says it all. Natural logs per block; u and w in units of the top's u. All averages
        (sequences, tokens, draws; networks block by block) come before the log.

    Valid: blocks whose first argument and (first) output is the stream, outside nn.scan, nn.remat and nn.jit; what
        lies between two blocks counts with the earlier. Predictions: d -> infinity, independent weights, so at
        initialization. With a causal mask: the annealed Gram map for the geometry, exact at collapse, up to 64 tokens,
        and no u and w.
    Raises: ValueError, one sentence: no block found, fewer than two tokens, a `config.n` that is not the number of
        tokens, blocks that change the stream's shape, parameters that do not fit.
    Source: arXiv:2403.02579 for the angle exponent; predictions as in `theory.signal_propagation`.
    Checked: a forward pass by hand, explicit perturbations, finite differences; `sims.signal_propagation.audit_example`
        within statistical error.
    """
    _check(model, params, config, networks, draws)
    config = config and replace(config, **{name: float(getattr(config, name)) for name in NUMBERS})
    arguments, keywords = tokens if isinstance(tokens, tuple) else (tokens,), dict(keywords or {})
    keys = [jax.random.fold_in(jax.random.key(0) if key is None else key, k) for k in range(networks)]

    def variables_of(key):
        if params is None:
            return model.init(jax.random.fold_in(key, 0), *arguments, **keywords)
        return params if "params" in params else {"params": params}

    def apply(variables):
        return model.apply(variables, *arguments, **keywords)

    variables = fitting(variables_of, keys[0])
    is_block, name = find_blocks(calls_of(apply, variables), block)
    shapes = fitting(lambda v: jax.eval_shape(lambda v: streams(apply, is_block, v), v), variables)
    n = _count_tokens(shapes, name, config)
    notes: dict[str, None] = {}
    norm = float(_or_nan(notes, lambda: stationary_norm(config), ())) if config else np.nan
    measure = measurement(apply, is_block, shapes, draws)
    drawn = (variables, *map(variables_of, keys[1:]))
    with followed():
        each = [measure(v, jax.random.fold_in(k, 1), norm) for v, k in zip(drawn, keys, strict=True)]
    gram, gradients, q, gains = (np.stack(x).astype(float).mean(0) for x in zip(*each, strict=True))
    predicted, exponents = _predictions(config, gram, q, norm, notes)
    names = ("angle", "token", "pooled")
    return Audit(
        name, n, networks, Profile(*geometry(gram), *gradients), predicted, q,
        **{k: Exponent(np.log(gain), *theory) for k, gain, theory in zip(names, gains, exponents, strict=True)},
        config=config, depth_budget=float(_or_nan(notes, lambda: depth_budget(config), ())) if config else np.nan,
        critical=_critical(config, notes), notes=tuple(notes),
    )  # fmt: skip


# ---- bad input


def _check(model, params, config, networks, draws):
    from flax import linen

    integer(1, networks=networks, draws=draws)
    if not isinstance(model, linen.Module):
        raise ValueError(f"`model` must be a flax.linen.Module, but got {type(model).__name__}.")
    if not isinstance(params, Mapping | None):
        raise ValueError(f"`params` must be a mapping of variables, or None, but got {type(params).__name__}.")
    if params is not None and networks != 1:
        raise ValueError(f"`networks` must be 1 where `params` are given, but got {networks}.")
    if not isinstance(config, TransformerConfig | None):
        raise ValueError(f"`config` must be a TransformerConfig, but got {type(config).__name__}.")
    for name in NUMBERS if config else ():
        if np.ndim(getattr(config, name)):
            raise ValueError(f"`config.{name}` must be one number, but got shape {np.shape(getattr(config, name))}.")


def _count_tokens(shapes, name, config):
    forms = list(dict.fromkeys(np.shape(x) for x in shapes))
    if len(forms) > 1 or len(forms[0]) < 2:
        found = " to ".join(map(str, forms))
        raise ValueError(f"`block` must keep the shape (..., n, d) of the stream, but {name} maps {found}.")
    n = forms[0][-2]
    if n < 2:
        raise ValueError(f"`tokens` must hold at least 2 tokens a sequence, but got {n}.")
    if config and config.n != n:
        raise ValueError(f"`config.n` must be the number of tokens, {n}, but got {config.n:g}.")
    return n


# ---- theory


def _or_nan(notes, formula, shape):
    """The formula's numbers, or nan and a note of the reason."""
    try:
        return np.asarray(formula(), float)
    except ValueError as error:
        notes[str(error)] = None
        return np.full(shape, np.nan)


def _predictions(config, gram, q, norm, notes):
    """Profile from the measured start, and (per block at the measured norms q, stationary) of the three exponents."""
    depth, n = len(gram) - 1, gram.shape[-1]
    profile, nothing = np.full((6, depth + 1), np.nan), np.full(depth, np.nan)
    if config is None:
        return Profile(*profile), ((nothing, np.nan),) * 3
    q0, rho0 = (float(x[0]) for x in geometry(gram))
    if config.causal:
        notes["Gradients before collapse have no prediction with a causal mask."] = None
        profile[:2] = _or_nan(notes, lambda: geometry(_causal(gram[0], depth, config)), (2, depth + 1))
    else:
        if not 0 <= rho0 <= 1:
            notes[f"The predictions start at the nearest rho from 0 to 1 instead of {rho0:.3g}."] = None
        path = _forward(q0, min(max(rho0, 0.0), 1.0), depth, config)
        profile[:2] = np.asarray(path)
        profile[2:] = _or_nan(notes, lambda: _backward(path, config), (4, depth + 1))

    def exponent(formula, *readout):
        at_norms = _or_nan(notes, lambda: formula(config, *readout, q=q[:-1]), depth)
        return at_norms, float(_or_nan(notes, lambda: formula(config, *readout), ()))

    angle, token = exponent(angle_exponent), exponent(gradient_exponent, "token")
    if config.causal:
        # At finite depth many modes count. The averaging matrix and its transpose stretch zero-mean perturbations and
        # cotangents alike, so that at a stationary norm gradients repeat the angles from the top down.
        growth = _or_nan(notes, lambda: _causal_growth(n, q[0], depth, config), depth)
        angle, token = (growth, angle[1]), (nothing if np.isnan(norm) else growth[::-1], token[1])
    return Profile(*profile), (angle, token, exponent(gradient_exponent, "pooled"))


_forward = jax.jit(propagate, static_argnums=2)


@jax.jit
def _backward(path, config):
    """u, w of the token and u, w of the pooled gradients: `backward_covariance` for both in one pass."""
    if config.closure == "large_n":
        raise ValueError('Gradients have no prediction with the closure "large_n" at a finite number of tokens.')
    config, _ = config.broadcast()
    others = config.n - 1
    top = GradientCovariance(jnp.ones(2), jnp.stack([-1 / others, jnp.ones_like(others)]))

    def below(gradient, geometry):
        gradient = backward_block(*gradient, *geometry, config)
        return gradient, gradient

    _, rest = jax.lax.scan(below, top, Geometry(*(x[:-1] for x in path)), reverse=True)
    u, v = (jnp.concatenate([x, end[None]]) for x, end in zip(rest, top, strict=True))
    return jnp.stack([u[:, 0], others * v[:, 0], u[:, 1], others * v[:, 1]])


def _causal(gram, depth, config):
    if len(gram) > LARGEST_GRAM:
        raise ValueError(f"Causal predictions are left out beyond {LARGEST_GRAM} tokens.")
    return np.asarray(propagate_gram((gram + gram.T) / 2, depth, config), float)


def _causal_growth(n, q, depth, config):
    small = 1e-6 if jax.config.jax_enable_x64 else 1e-3
    _, rho = geometry(_causal(q * ((1 - small) * np.ones((n, n)) + small * np.eye(n)), depth, config))
    return np.diff(np.log(1 - rho))


def _critical(config, notes):
    """The critical points, none with a note of the reason."""
    try:
        return critical_initialization(config).points if config else ()
    except ValueError as error:
        notes[str(error)] = None
        return ()


# ---- words


def _regime(total):
    if np.isnan(total):
        return "unknown"
    return "near critical" if abs(total) <= NEAR else ("ordered" if total < 0 else "chaotic")


VERBS = {
    "ordered": "Tokens collapse",
    "near critical": "Tokens neither collapse nor separate (near critical)",
    "chaotic": "Tokens separate (chaotic)",
    "unknown": "Angles are unknown",
}


def _layers(audit):
    headers = ("q", "rho", "u, token cotangent", "u, pooled cotangent")
    names = ("q", "rho", "u_token", "u_pooled")
    networks = "1 network" if audit.networks == 1 else f"{audit.networks} networks"
    theory = "" if audit.config is None else "; theory in brackets"
    title = f"{audit.depth} blocks ({audit.block}), {audit.tokens} tokens, {networks}{theory}"
    lines = [title, "layer" + "".join(f"{header:>22}" for header in headers)]
    for layer in range(audit.depth + 1):
        pairs = [(getattr(audit.measured, name)[layer], getattr(audit.predicted, name)[layer]) for name in names]
        cells = [f"{m:.4g}" + ("" if np.isnan(t) else f" ({t:.4g})") for m, t in pairs]
        lines.append(f"{layer:>5}" + "".join(f"{cell:>22}" for cell in cells))
    return "\n".join(lines)


def _sentences(audit):
    a, t, p = audit.angle, audit.token, audit.pooled

    def number(symbol, e):
        theory = "" if np.isnan(e.theory) else f" (theory {e.theory:.3f})"
        return f"{symbol} = {e.mean:.3f} +- {e.error:.3f} per block{theory}, {e.total:.2f} over {audit.depth} blocks"

    yield f"{VERBS[audit.regime]}: {number('lambda_a', a)}."
    yield f"Squared gradients, per token: {number('lambda_tok', t)}; pooled: {number('lambda_pool', p)}."
    if audit.config is None:
        return
    if not np.isnan(a.stationary):
        yield (
            f"At the stationary norm the theory says {a.stationary:.3f}, {t.stationary:.3f} and {p.stationary:.3f}: "
            f"{audit.predicted_regime}."
        )
    if not np.isnan(audit.depth_budget):
        yield f"Up to {audit.depth_budget:g} blocks no total exponent exceeds 5 (depth_budget)."
    if audit.critical:
        # First the points that change sigma_w alone.
        points = sorted(audit.critical, key=lambda point: point.gauge != "fixed")
        yield f"For a critical start {', or '.join(map(_recipe, points))} (critical_initialization)."
    yield from audit.notes


def _recipe(point):
    others = "" if point.gauge == "fixed" else f", sigma_2 = {point.sigma_2:.4g}, sigma_V = {point.sigma_V:.4g}"
    return f"set sigma_w = {point.sigma_w:.4g}{others or ' alone'}"
