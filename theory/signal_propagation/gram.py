"""The full Gram matrix of the tokens, block by block: asymmetric inputs and causal masks."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import integer, require, traced, with_one_dtype
from theory.gaussian_kernels import gaussian_kernel
from theory.roots import safe_sqrt
from theory.signal_propagation.config import TransformerConfig, one_number_a_field


def propagate_gram(C0: ArrayLike, depth: int, config: TransformerConfig) -> Float[Array, "..."]:
    r"""Gram matrix of the tokens after every block, with or without a causal mask.

    .. math:: C' = a_A^2 C + \alpha_A^2\sigma_V^2\,O, \qquad
        O_{ik} = \frac{\sum_{jl} e^{\sigma_A^2 \hat C_{ik}\hat C_{jl}}\,\hat C_{jl}}
        {\sum_{jl} e^{\sigma_A^2 \hat C_{ik}\hat C_{jl}}}, \qquad
        C''_{ik} = a_M^2 C'_{ik} + \alpha_M^2\sigma_2^2\,
        C_\phi\big(\sigma_w^2, \sigma_w^2 \hat C'_{ik}\big)

    over j <= i and l <= k with a causal mask, over all j and l without.
    :math:`\hat C_{ij} = C_{ij}/\sqrt{C_{ii}C_{jj}}`; with post-norm C itself is brought to unit diagonal after each
    sublayer.

    Args:
        C0: Gram matrix :math:`X_i \cdot X_j / d` at the input, symmetric with positive diagonal. Shape (n, n).
        depth: Number of blocks L, a whole number from 0.
        config: The transformer, one number a field, with norm "pre" or "post"; `n` is taken from C0, and the
            softmax is the annealed one.

    Returns:
        The Gram matrices, the input first. Shape (L + 1, n, n).

    Valid: d -> infinity; exact at sigma_A = 0 or where all tokens agree, otherwise for e^{2 sigma_A^2} << n; at strong
        logits the annealed map can lose positivity (an eigenvalue of -0.53 at sigma_A = 3).
    Raises: ValueError for a matrix that is not square, symmetric, of positive diagonal and of cosines up to 1; without
        a norm; for a field that is an array.
    Source: derived here.
    Checked: equal to `propagate` with the annealed closure for symmetric inputs (1e-13); the causal exponent after 400
        blocks (1e-5); simulation `sims.signal_propagation.gram_map`, both masks, order 1 in 1/d.
    """
    if config.norm == "none":
        raise ValueError('`norm` must be pre or post for a Gram map, but got "none".')
    integer(0, depth=depth)
    (C,) = with_one_dtype(C0)
    if C.ndim != 2 or C.shape[0] != C.shape[1]:
        raise ValueError(f"`C0` must be a square matrix, but got shape {C.shape}.")
    if not traced(C):
        C_np = np.asarray(C)
        uneven = np.abs(C_np - C_np.T) > 1e-9 * np.abs(C_np).max()
        if uneven.any():
            i, k = np.argwhere(uneven)[0]
            pair = f"C0[{i}, {k}] = {C_np[i, k]:.6g} and C0[{k}, {i}] = {C_np[k, i]:.6g}"
            raise ValueError(f"`C0` must be symmetric, but got {pair}.")
        require(np.diag(C_np) > 0, "C0", "positive on its diagonal", np.diag(C_np))
        largest = np.sqrt(np.outer(np.diag(C_np), np.diag(C_np)))
        words = "at most sqrt(C_ii C_kk) off its diagonal, as every cosine is"
        require(np.abs(C_np) <= largest * (1 + 1e-6), "C0", words, C_np)
    one_number_a_field(config)
    return _propagate_gram(C, depth, jax.tree.map(lambda x: jnp.asarray(x, C.dtype), config))


def _propagate_gram(C, depth, config):
    seen = jnp.tri(C.shape[0], dtype=C.dtype) if config.causal else jnp.ones_like(C)

    def step(C, _):
        C = _attention(C, seen, config)
        C = C if config.norm == "pre" else cosines(C)
        C = _mlp(C, config)
        C = C if config.norm == "pre" else cosines(C)
        return C, C

    _, path = jax.lax.scan(step, C, None, length=depth)
    return jnp.concatenate([C[None], path])


def cosines(C: Array) -> Array:
    """The Gram matrix with its diagonal brought to one."""
    lengths = safe_sqrt(jnp.diagonal(C))
    unit = C / (lengths[:, None] * lengths[None, :])
    return jnp.where(jnp.eye(C.shape[0], dtype=bool), 1.0, unit)


def _attention(C, seen, config):
    inside = cosines(C) if config.norm == "pre" else C

    def rows(i):
        # The largest exponent is taken out, so that strong logits do not overflow.
        exponent = config.sigma_A**2 * inside[i][:, None, None] * (inside - 1.0)[None]
        weight = jnp.exp(exponent) * seen[i][None, :, None] * seen[:, None, :]
        return jnp.sum(weight * inside[None], axis=(1, 2)) / jnp.sum(weight, axis=(1, 2))

    outputs = jax.lax.map(rows, jnp.arange(C.shape[0]))
    return config.kept_A * C + config.alpha_A**2 * config.sigma_V**2 * (outputs + outputs.T) / 2


def _mlp(C, config):
    inside = cosines(C) if config.norm == "pre" else C
    gain = config.sigma_w**2
    images, _ = gaussian_kernel(config.activation, jnp.full_like(C, gain), gain * inside)
    return config.kept_M * C + config.alpha_M**2 * config.sigma_2**2 * images
