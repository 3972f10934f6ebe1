"""The transformer that every formula of this topic speaks of."""

from dataclasses import dataclass, field, fields, replace
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array

from theory.arguments import require, together, traced
from theory.gaussian_kernels import Activation, activation_function, activation_moments

CHOICES = {
    "norm": ("pre", "post", "none"),
    "residual": ("normalized", "identity"),
    "closure": ("exact", "annealed", "large_n"),
}


@dataclass(frozen=True)
class TransformerConfig:
    r"""A random transformer: tokens, branch strengths, weight scales and architecture.

    .. math:: X' = a_A X + \alpha_A\,\mathrm{softmax}\Big(\tfrac{(Y W_Q)(Y W_K)^\top}{\sqrt{d_k}}\Big) Y W_V,
        \qquad X'' = a_M X' + \alpha_M\,\phi(N(X') W_1) W_2, \qquad Y = N(X)

    The numbers broadcast against each other and are leaves of a JAX pytree; the choices of words are static.

    Args:
        n: Number of tokens, a whole number from 1, or infinity.
        alpha_A: Strength of the attention branch; from 0 to 1 with the normalized residual. Dimensionless.
        alpha_M: Strength of the MLP branch, likewise.
        sigma_A: Standard deviation of an attention logit between tokens of unit RMS: entries of W_Q and W_K have
            variance sigma_A / d.
        sigma_V: Scale of the value weights (their product with the output weights): variance sigma_V^2 / d.
        sigma_w: Scale of the MLP's first layer, variance sigma_w^2 / d.
        sigma_2: Scale of the MLP's second layer, variance sigma_2^2 over its width.
        activation: The MLP's nonlinearity, a name or a function, as in `theory.gaussian_kernels.gaussian_kernel`.
        norm: "pre" (norm of each branch's input), "post" (norm of each sublayer's output) or "none". RMSNorm;
            LayerNorm is identical as d goes to infinity.
        residual: "normalized", a = sqrt(1 - alpha^2), or "identity", a = 1.
        closure: Softmax statistics: "exact" at any n, "annealed" (the paper's ratio of averages) or "large_n".
        causal: Whether each token attends to itself and earlier ones only.

    Raises: ValueError, one sentence, for numbers out of their range and for unknown words.
    Source: arXiv:2403.02579; there sigma_V = 1.
    """

    n: ArrayLike = 16
    alpha_A: ArrayLike = 0.5
    alpha_M: ArrayLike = 0.5
    sigma_A: ArrayLike = 1.0
    sigma_V: ArrayLike = 1.0
    sigma_w: ArrayLike = 2.0
    sigma_2: ArrayLike = 1.0
    activation: Activation = field(default="tanh", metadata={"static": True})
    norm: str = field(default="pre", metadata={"static": True})
    residual: str = field(default="normalized", metadata={"static": True})
    closure: str = field(default="exact", metadata={"static": True})
    causal: bool = field(default=False, metadata={"static": True})

    def __post_init__(self):
        for name, words in CHOICES.items():
            if getattr(self, name) not in words:
                raise ValueError(f"`{name}` must be one of {', '.join(words)}, but got {getattr(self, name)}.")
        activation_function(self.activation)
        normalized = self.residual == "normalized"
        for name in NUMBERS:
            value = getattr(self, name)
            if traced(value):
                continue
            try:
                x = np.asarray(value, float)
            except (TypeError, ValueError):
                raise ValueError(f"`{name}` must be a number or an array of numbers, but got {value!r}.") from None
            if isinstance(value, list | tuple):
                object.__setattr__(self, name, x)
            if name == "n":
                require((x >= 1) & (x == np.floor(x)), name, "a whole number not below 1, or infinity", value)
            elif name in ("alpha_A", "alpha_M") and normalized:
                require((x >= 0) & (x <= 1), name, "between 0 and 1 with the normalized residual", value)
            else:
                require((x >= 0) & np.isfinite(x), name, "zero or positive, and finite", value)

    def broadcast(self, *others: ArrayLike) -> tuple[Self, tuple[Array, ...]]:
        """The configuration and further numbers as arrays of one dtype and one shape."""
        arrays = together(*(getattr(self, name) for name in NUMBERS), *others)
        numbers = dict(zip(NUMBERS, arrays, strict=False))
        # The exact overlaps of infinitely many tokens vanish: no need to sum for them.
        infinite = not traced(self.n) and np.isinf(np.asarray(self.n, float)).all()
        closure = "large_n" if infinite else self.closure
        return replace(self, **numbers, closure=closure), arrays[len(NUMBERS) :]

    @property
    def kept_A(self) -> Array:
        """a_A^2, the share of the stream's variance that the attention sublayer keeps."""
        return _kept(self.alpha_A, self.residual)

    @property
    def kept_M(self) -> Array:
        """a_M^2, the share that the MLP sublayer keeps."""
        return _kept(self.alpha_M, self.residual)

    def unit_variance(self) -> Self:
        r"""The same network in the unit-variance gauge: :math:`\sigma_V = 1`, :math:`\sigma_2^2 C(\sigma_w^2) = 1`."""
        (sigma_w,) = together(self.sigma_w)
        power, _ = activation_moments(self.activation, sigma_w**2)
        return replace(self, sigma_V=jnp.ones_like(sigma_w), sigma_2=1 / jnp.sqrt(power))


NUMBERS = tuple(f.name for f in fields(TransformerConfig) if not f.metadata.get("static"))
WORDS = tuple(f.name for f in fields(TransformerConfig) if f.metadata.get("static"))


def one_number_a_field(config: TransformerConfig) -> None:
    """One sentence if a field is an array, for formulas of a single transformer."""
    for name in NUMBERS:
        if np.ndim(getattr(config, name)):
            raise ValueError(f"`{name}` must be one number here, but got shape {np.shape(getattr(config, name))}.")


def _flatten(config):
    return [getattr(config, name) for name in NUMBERS], tuple(getattr(config, name) for name in WORDS)


def _unflatten(words, numbers):
    """Without the checks of `__init__`: gradients and JAX's placeholders are no valid configurations."""
    config = object.__new__(TransformerConfig)
    for name, value in zip((*NUMBERS, *WORDS), (*numbers, *words), strict=True):
        object.__setattr__(config, name, value)
    return config


jax.tree_util.register_pytree_node(TransformerConfig, _flatten, _unflatten)


def _kept(alpha, residual):
    (alpha,) = together(alpha)
    return 1 - alpha**2 if residual == "normalized" else jnp.ones_like(alpha)
