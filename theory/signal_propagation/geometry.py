"""Geometry of the tokens, block by block: squared length q and cosine rho of a permutation-symmetric cloud."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import integer, require, traced
from theory.gaussian_kernels import gaussian_kernel
from theory.roots import safe_sqrt
from theory.signal_propagation.config import TransformerConfig
from theory.signal_propagation.softmax import SoftmaxOverlaps, overlaps_of_logits

MOST_BLOCKS = 20_000


class Geometry(NamedTuple):
    """Mean squared length of a token per dimension, and the cosine between two tokens."""

    q: Float[Array, "..."]
    rho: Float[Array, "..."]


def branch_input(q: Array, p: Array, config: TransformerConfig) -> tuple[Array, Array]:
    """(q, p) of what a branch sees: of unit length with pre-norm, otherwise the stream itself."""
    return (jnp.ones_like(q), p / q) if config.norm == "pre" else (q, p)


def attention_overlaps(q_hat: Array, p_hat: Array, config: TransformerConfig) -> SoftmaxOverlaps:
    r"""Softmax overlaps at :math:`s^2 = \sigma_A^2 \hat q(\hat q - \hat p)` and :math:`r = \hat p / \hat q`.

    A shift common to a row's logits is invisible to the softmax, which is why s falls as the tokens align.
    """
    apart = q_hat - p_hat
    shared, own = config.sigma_A**2 * apart * p_hat, (config.sigma_A * apart) ** 2
    return overlaps_of_logits(config.n, shared, own, config.closure)


def attention_map(q: Array, p: Array, config: TransformerConfig) -> tuple[Array, Array]:
    r"""(q, p) after the attention sublayer, before any post-norm.

    .. math:: q' = a_A^2 q + \alpha_A^2 \sigma_V^2 [\hat p + (\hat q - \hat p) Q], \qquad
        p' = a_A^2 p + \alpha_A^2 \sigma_V^2 [\hat p + (\hat q - \hat p) P]
    """
    config, (q, p) = config.broadcast(q, p)
    q_hat, p_hat = branch_input(q, p, config)
    Q, P, _, _ = attention_overlaps(q_hat, p_hat, config)
    strength = config.alpha_A**2 * config.sigma_V**2
    return tuple(
        config.kept_A * old + strength * (p_hat + (q_hat - p_hat) * overlap) for old, overlap in ((q, Q), (p, P))
    )


def mlp_map(q: Array, p: Array, config: TransformerConfig) -> tuple[Array, Array]:
    r"""(q, p) after the MLP sublayer, before any post-norm.

    .. math:: q'' = a_M^2 q' + \alpha_M^2 \sigma_2^2 C_\phi(\sigma_w^2 \hat q, \sigma_w^2 \hat q), \qquad
        p'' = a_M^2 p' + \alpha_M^2 \sigma_2^2 C_\phi(\sigma_w^2 \hat q, \sigma_w^2 \hat p)
    """
    config, (q, p) = config.broadcast(q, p)
    q_hat, p_hat = branch_input(q, p, config)
    strength, gain = config.alpha_M**2 * config.sigma_2**2, config.sigma_w**2
    return tuple(
        config.kept_M * old + strength * gaussian_kernel(config.activation, gain * q_hat, gain * hat)[0]
        for old, hat in ((q, q_hat), (p, p_hat))
    )


def sublayers(q: Array, rho: Array, config: TransformerConfig):
    """(q, p) at the input of both sublayers and at the block's output, and what post-norm divides by."""
    p = q * rho
    between = attention_map(q, p, config)
    scale_A = between[0] if config.norm == "post" else jnp.ones_like(q)
    between = tuple(x / scale_A for x in between)
    after = mlp_map(*between, config)
    scale_M = after[0] if config.norm == "post" else jnp.ones_like(q)
    return (q, p), between, tuple(x / scale_M for x in after), (scale_A, scale_M)


def block_map(q: Array, rho: Array, config: TransformerConfig) -> Geometry:
    """(q, rho) after one block."""
    config, (q, rho) = config.broadcast(q, rho)
    _, _, (q, p), _ = sublayers(q, rho, config)
    return Geometry(q, p / q)


def propagate(q0: ArrayLike, rho0: ArrayLike, depth: int, config: TransformerConfig) -> Geometry:
    r"""Geometry of the tokens after every block.

    .. math:: (q_0, \rho_0) \to (q_1, \rho_1) \to \cdots \to (q_L, \rho_L), \qquad
        q = \frac{X_i \cdot X_i}d, \quad \rho = \frac{X_i \cdot X_j}{X_i \cdot X_i}

    Each block is `attention_map`, then `mlp_map`, each followed by :math:`(q, p) \to (1, p/q)` with post-norm.

    Args:
        q0: Mean squared length per dimension at the input, positive; dimensionless. Shape (...).
        rho0: Cosine between two tokens at the input, from 0 to 1. Shape (...).
        depth: Number of blocks L, a whole number from 0.
        config: The transformer; its numbers broadcast against q0 and rho0. Not causal.

    Returns:
        (q, rho), the input first. Shapes (L + 1, ...).

    Valid: d -> infinity at fixed n, with an error O(1/d). One attention sublayer, or one MLP, is exact; after both, and
        in later blocks, the Gram matrix has spread over attention draws (below 3e-3 in p for sigma_A <= 3). Heads
        drop out.
    Raises: ValueError for q0 <= 0, rho0 outside [0, 1], or a causal configuration.
    Source: arXiv:2403.02579 with the annealed closure; exact softmax statistics derived here.
    Checked: the infinite-width Gram ensemble (`sims.signal_propagation.gram_ensemble`: one sublayer within 2e-4, eight
        blocks within 3e-3); random networks, eight blocks (`sims.signal_propagation.propagation`); printed values.
    """
    config, (q, rho) = _checked(config, q0, rho0, depth)

    def step(state, _):
        state = block_map(*state, config)
        return state, state

    start = Geometry(q, rho)
    _, path = jax.lax.scan(step, start, None, length=depth)
    return Geometry(*(jnp.concatenate([first[None], rest]) for first, rest in zip(start, path, strict=True)))


def _checked(config, q0, rho0, depth):
    """The configuration and the start as arrays of one shape, if they are what the symmetric closure can do."""
    if config.causal:
        raise ValueError("`config` must not be causal here, but got causal = True; `propagate_gram` is for masks.")
    integer(0, depth=depth)
    if not traced(q0):
        require((np.asarray(q0) > 0) & np.isfinite(q0), "q0", "positive and finite", q0)
    if not traced(rho0):
        require((np.asarray(rho0) >= 0) & (np.asarray(rho0) <= 1), "rho0", "between 0 and 1", rho0)
    return config.broadcast(q0, rho0)


def require_stationary(config: TransformerConfig, named: str = "The stationary norm") -> None:
    """One sentence where the norm of the stream has no fixed point of its own."""
    if config.norm == "none":
        raise ValueError(f'{named} needs a norm, but `norm` is "none".')
    if config.residual == "identity" and config.norm == "pre":
        raise ValueError(
            f'{named} does not exist with `residual` = "identity": the stream grows as in `power_law_exponents`.'
        )
    if not traced(config.alpha_A, config.alpha_M) and config.norm == "pre":
        still = np.logical_and(np.asarray(config.alpha_A) == 0, np.asarray(config.alpha_M) == 0)
        require(~still, "alpha_A", "positive where `alpha_M` is 0", 0.0)


def fixed_point(config: TransformerConfig, q0: ArrayLike = 1.0, rho0: ArrayLike = 0.5) -> Geometry:
    r"""Geometry that a deep network reaches: rho = 1 (order, rank collapse) or rho < 1 (chaos).

    Blocks are iterated from the start; once a block contracts in every direction, Newton's method ends the
    approach, which takes thousands of blocks close to criticality.

    Args:
        config: The transformer, with a norm and, with pre-norm, the normalized residual. Its numbers broadcast.
        q0: Where to start, positive. Shape (...).
        rho0: Where to start, from 0 to 1. Shape (...).

    Returns:
        (q*, rho*). Shape (...).

    Valid: to 1e-12; nan where 20000 blocks do not converge (exactly at criticality). For odd activations and
        n = infinity rho = 0 is always a fixed point, and can be the stable one.
    Raises: ValueError where there is no stationary norm.
    Source: arXiv:2403.02579 for the two phases.
    Checked: 5000 plain blocks from the same start; a fixed point of erf at n = infinity to 1e-10.
    """
    require_stationary(config)
    config, (q, rho) = _checked(config, q0, rho0, 0)
    return _fixed_point(config, q, rho)


@jax.jit
def _fixed_point(config, q, rho):
    tolerance = 256 * jnp.finfo(q.dtype).eps

    def advance(state):
        (q, rho), _, count = state
        (q1, rho1), jacobian = _with_jacobian(q, rho, config)
        (a, b), (c, d) = jacobian
        step_q, step_rho = q1 - q, rho1 - rho
        moved = jnp.maximum(jnp.abs(step_q), jnp.abs(step_rho))
        # Newton: (1 - J) x = step.
        determinant = (1 - a) * (1 - d) - b * c
        safe = jnp.where(determinant == 0, 1.0, determinant)
        newton_q = q + ((1 - d) * step_q + b * step_rho) / safe
        newton_rho = jnp.minimum(rho + (c * step_q + (1 - a) * step_rho) / safe, 1.0)
        near = jnp.maximum(jnp.abs(newton_q - q), jnp.abs(newton_rho - rho)) < 0.2
        contracting = (spectral_radius(jacobian) < 1) & (determinant != 0)
        use = near & contracting & (newton_q > 0) & (newton_rho >= 0)
        return (jnp.where(use, newton_q, q1), jnp.where(use, newton_rho, rho1)), moved, count + 1

    def unfinished(state):
        return (state[1].max() > tolerance) & (state[2] < MOST_BLOCKS)

    start = ((q, rho), jnp.full_like(q, jnp.inf), 0)
    (q, rho), moved, _ = jax.lax.while_loop(unfinished, advance, start)
    done = moved <= tolerance
    return Geometry(jnp.where(done, q, jnp.nan), jnp.where(done, rho, jnp.nan))


def _with_jacobian(q, rho, config):
    """One block and ((dq''/dq, dq''/drho), (drho''/dq, drho''/drho)), elementwise."""
    one, zero = jnp.ones_like(q), jnp.zeros_like(q)

    def block(q, rho):
        return tuple(block_map(q, rho, config))

    out, by_q = jax.jvp(block, (q, rho), (one, zero))
    _, by_rho = jax.jvp(block, (q, rho), (zero, one))
    return out, ((by_q[0], by_rho[0]), (by_q[1], by_rho[1]))


def spectral_radius(matrix) -> Array:
    """Largest absolute eigenvalue of 2 x 2 matrices ((a, b), (c, d)), elementwise."""
    (a, b), (c, d) = matrix
    half, det = (a + d) / 2, a * d - b * c
    root = half**2 - det
    return jnp.where(root >= 0, jnp.abs(half) + safe_sqrt(root), safe_sqrt(det))


def depth_scale(config: TransformerConfig, q0: ArrayLike = 1.0, rho0: ArrayLike = 0.5) -> Float[Array, "..."]:
    r"""Number of blocks over which the tokens forget their initial geometry.

    .. math:: \xi = -1 / \ln\mu, \qquad \mu = \max |\mathrm{eig}|\ \frac{\partial(q'', \rho'')}{\partial(q, \rho)}

    Args:
        config: As in `fixed_point`.
        q0: Where the approach begins. Shape (...).
        rho0: Where the approach begins. Shape (...).

    Returns:
        xi in blocks, at the fixed point reached. Shape (...).

    Valid: asymptotically, close to the fixed point.
    Raises: ValueError as `fixed_point`.
    Source: as `fixed_point`; the full Jacobian derived here.
    Checked: the rate of 400 iterated blocks, collapsed and chaotic.
    """
    q, rho = fixed_point(config, q0, rho0)
    config, (q, rho) = config.broadcast(q, rho)
    _, jacobian = _with_jacobian(q, rho, config)
    return -1 / jnp.log(spectral_radius(jacobian))
