"""Lyapunov exponents of a collapsed transformer, per block: of the angle between tokens, and of gradients."""

from dataclasses import replace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from theory.arguments import integer, nonnegative, require, together, traced
from theory.gaussian_kernels import Activation, activation_moments
from theory.signal_propagation.config import TransformerConfig
from theory.signal_propagation.geometry import require_stationary

READOUTS = ("token", "pooled", "frobenius")
# With a causal mask the slowest difference mode of the averaging matrix has eigenvalue 1/2, squared in the Gram.
CAUSAL_MODE = 0.25


def mlp_moments(config: TransformerConfig) -> tuple[Array, Array]:
    r"""V and chi, the MLP's output power and its squared gain at unit input.

    .. math:: V = \sigma_2^2 C_\phi(\sigma_w^2, \sigma_w^2), \qquad
        \chi = \sigma_2^2 \sigma_w^2 \dot C_\phi(\sigma_w^2, \sigma_w^2)
    """
    sigma_w, sigma_2 = together(config.sigma_w, config.sigma_2)
    power, slope = activation_moments(config.activation, sigma_w**2)
    return sigma_2**2 * power, sigma_2**2 * sigma_w**2 * slope


def slope_to_power_ratio(activation: Activation, sigma_w: ArrayLike) -> Float[Array, "..."]:
    r"""The only number of the MLP that matters in a unit-variance block.

    .. math:: r_\phi(\sigma_w) = \frac\chi V = \frac{\sigma_w^2\,\mathbb E\,\phi'(\sigma_w z)^2}
        {\mathbb E\,\phi(\sigma_w z)^2}

    Args:
        activation: As in `theory.gaussian_kernels.gaussian_kernel`.
        sigma_w: Scale of the first layer, positive. Shape (...).

    Returns:
        r, dimensionless; at least 1 if E phi = 0, exactly 1 for ReLU, at most 1.074724 for GELU. Shape (...).

    Valid: exact. Independent of sigma_2.
    Raises: ValueError if `sigma_w` is not positive.
    Source: derived here; r >= 1 is the Gaussian Poincare inequality.
    Checked: mpmath; the bounds; 1 + (4/3) sigma_w^4 for tanh at small sigma_w.
    """
    if not traced(sigma_w):
        require((np.asarray(sigma_w) > 0) & np.isfinite(sigma_w), "sigma_w", "positive and finite", sigma_w)
    (sigma_w,) = together(sigma_w)
    power, slope = activation_moments(activation, sigma_w**2)
    return sigma_w**2 * slope / power


def stationary_norm(config: TransformerConfig) -> Float[Array, "..."]:
    r"""Squared length per dimension at which a collapsed stream stays.

    .. math:: q^* = \frac{a_M^2 \alpha_A^2 \sigma_V^2 + \alpha_M^2 V}{1 - a_A^2 a_M^2}
        \ \text{(pre-norm)}, \qquad q^* = 1\ \text{(post-norm)}

    Args:
        config: The transformer; its numbers broadcast.

    Returns:
        q*, dimensionless. Shape (...).

    Valid: at rho = 1; the same with a causal mask.
    Raises: ValueError where there is none: the identity residual, no norm, or both branches off.
    Source: derived here.
    Checked: `theory.signal_propagation.fixed_point` (1e-12).
    """
    require_stationary(config)
    config, _ = config.broadcast()
    if config.norm == "post":
        return jnp.ones_like(config.n)
    V, _ = mlp_moments(config)
    written = config.kept_M * config.alpha_A**2 * config.sigma_V**2 + config.alpha_M**2 * V
    return written / (1 - config.kept_A * config.kept_M)


class Collapsed(NamedTuple):
    """A collapsed block: norms before, between and after its sublayers, attention's strength, V and chi."""

    config: TransformerConfig
    q: Array
    between: Array
    after: Array
    attention: Array
    V: Array
    chi: Array


def collapsed_block(config: TransformerConfig, q: ArrayLike | None = None) -> Collapsed:
    """The norms of a block whose tokens are equal; with post-norm every sublayer starts at one.

    Args:
        config: The transformer.
        q: Squared length per dimension at the block's input; the stationary one if None.
    """
    if config.norm == "none":
        raise ValueError('An exponent needs a norm, but `norm` is "none": the gain depends on the length reached.')
    if q is None:
        q = stationary_norm(config)
    elif not traced(q):
        require((np.asarray(q) > 0) & np.isfinite(q), "q", "positive and finite", q)
    config, (q,) = config.broadcast(q)
    V, chi = mlp_moments(config)
    attention = config.alpha_A**2 * config.sigma_V**2
    q = jnp.ones_like(q) if config.norm == "post" else q
    between = config.kept_A * q + attention
    after = config.kept_M * (between if config.norm == "pre" else 1.0) + config.alpha_M**2 * V
    return Collapsed(config, q, between, after, attention, V, chi)


def _require_a_rest(config: TransformerConfig, name: str) -> None:
    """One sentence where attention leaves nothing of the differences between tokens."""
    if config.residual == "normalized" and not config.causal and not traced(config.alpha_A):
        words = f"below 1, where the {name} exponent is minus infinity"
        require(np.asarray(config.alpha_A) < 1, "alpha_A", words, config.alpha_A)


def angle_exponent(config: TransformerConfig, q: ArrayLike | None = None) -> Float[Array, "..."]:
    r"""Exponent per block of the angle between nearly aligned tokens.

    .. math:: 1 - \rho \to e^{\lambda_a}(1 - \rho), \qquad
        e^{\lambda_a} = \frac{a_A^2 q + t\,\alpha_A^2\sigma_V^2}{q'}
        \cdot \frac{a_M^2 q' + \alpha_M^2 \chi}{a_M^2 q' + \alpha_M^2 V}, \qquad
        q' = a_A^2 q + \alpha_A^2 \sigma_V^2

    with t = 0 without a mask and t = 1/4 with a causal one. Post-norm: q = 1 in the first factor, q' = 1 in the
    second. In the unit-variance gauge :math:`e^{\lambda_a} = (1 - \alpha_A^2)(1 - \alpha_M^2 + \alpha_M^2 r_\phi)`.

    Args:
        config: The transformer; its numbers broadcast. n and sigma_A drop out.
        q: Squared length per dimension at the block's input; the stationary one if None. Shape (...).

    Returns:
        lambda_a, natural log per block. Negative: tokens collapse. Shape (...).

    Valid: rho -> 1, d -> infinity, and every one of the n - 1 difference modes, so for asymmetric inputs too. With a
        causal mask it is reached after about 100 blocks only.
    Raises: ValueError without a norm, without a stationary norm (give `q`), and at alpha_A = 1, where it is minus
        infinity.
    Source: definition arXiv:2403.02579; closed form derived here.
    Checked: simulation `sims.signal_propagation.phase_diagram`, order 1 in 1/d; equal to the token exponent at the
        stationary norm (1e-12).
    """
    _require_a_rest(config, "angle")
    block = collapsed_block(config, q)
    config = block.config
    mode = CAUSAL_MODE if config.causal else 0.0
    entering = block.between if config.norm == "pre" else jnp.ones_like(block.q)
    kept = (config.kept_A * block.q + mode * block.attention) / block.between
    return jnp.log(kept) + jnp.log((config.kept_M * entering + config.alpha_M**2 * block.chi) / block.after)


def gradient_exponent(
    config: TransformerConfig, readout: str = "token", q: ArrayLike | None = None
) -> Float[Array, "..."]:
    r"""Exponent per block of the squared gradient in a collapsed transformer.

    .. math:: e^{\lambda_g} = \Big(a_A^2 + m\,\frac{\alpha_A^2\sigma_V^2}q\Big)
        \Big(a_M^2 + \alpha_M^2 \frac\chi{q'}\Big)

    ==========  ========================  ===========================================================
    readout     m                         cotangent at the top
    token       0 (causal: 1/4)           of zero mean over tokens: the difference modes
    pooled      1                         one for all tokens, as of a mean-pooled loss
    frobenius   1/n (causal: H_n / n)     independent per token, first block: :math:`\|J\|_F^2/(nd)`
    ==========  ========================  ===========================================================

    Post-norm: q = 1 and q' = 1 in the numerators, divided by the mean squares
    :math:`a_A^2 + \alpha_A^2\sigma_V^2` and :math:`a_M^2 + \alpha_M^2 V` before re-normalization.

    Args:
        config: The transformer; its numbers broadcast.
        readout: The cotangent at the top, one of the above.
        q: Squared length per dimension at the block's input; the stationary one if None. Shape (...).

    Returns:
        lambda_g, natural log of the squared gradient per block, from output to input. Shape (...).

    Valid: rho -> 1, d -> infinity; at the stationary norm "token" equals `angle_exponent`, and "pooled" is also the
        exponent of the angle between two sequences. "frobenius" holds for one block: later ones mix the two modes.
    Raises: ValueError as `angle_exponent`, or for an unknown readout.
    Source: derived here; the causal modes are eigenvalues 1, 1/2, ..., 1/n of the averaging matrix.
    Checked: simulation `sims.signal_propagation.phase_diagram`, order 1 in 1/d; the block map of
        `backward_covariance` at rho = 1.
    """
    if readout not in READOUTS:
        raise ValueError(f"`readout` must be one of {', '.join(READOUTS)}, but got {readout}.")
    if readout == "token":
        _require_a_rest(config, "token")
    block = collapsed_block(config, q)
    config, n = block.config, block.config.n
    if readout == "pooled":
        mode = jnp.ones_like(n)
    elif readout == "token":
        mode = jnp.full_like(n, CAUSAL_MODE if config.causal else 0.0)
    else:
        mode = harmonic_number(n) / n if config.causal else 1 / n
        mode = jnp.where(jnp.isinf(n), 0.0, mode)
    if config.norm == "post":
        attention = (config.kept_A + mode * block.attention) / block.between
        mlp = (config.kept_M + config.alpha_M**2 * block.chi) / block.after
    else:
        attention = config.kept_A + mode * block.attention / block.q
        mlp = config.kept_M + config.alpha_M**2 * block.chi / block.between
    return jnp.log(attention) + jnp.log(mlp)


def harmonic_number(n: Array) -> Array:
    """1 + 1/2 + ... + 1/n."""
    from jax.scipy.special import digamma

    return digamma(n + 1) + np.euler_gamma


class PowerLaws(NamedTuple):
    """Growth of the stream and exponents of depth with identity residuals."""

    growth: Float[Array, "..."]
    angle: Float[Array, "..."]
    token: Float[Array, "..."]
    pooled: Float[Array, "..."]


def power_law_exponents(config: TransformerConfig) -> PowerLaws:
    r"""Powers of depth with which a pre-norm transformer with identity residuals evolves.

    .. math:: q_l \simeq c\,l, \quad c = \alpha_A^2\sigma_V^2 + \alpha_M^2 V, \qquad 1 - \rho_l \sim l^{\zeta_a},
        \quad \zeta_a = \frac{\alpha_M^2(\chi - V) - \alpha_A^2 \sigma_V^2}c

    and gradients grow from the top to the input of L blocks as

    .. math:: L^{\zeta_g}, \qquad \zeta_g^{\rm tok} = \frac{\alpha_M^2 \chi}c = 1 + \zeta_a, \qquad
        \zeta_g^{\rm pool} = \frac{\alpha_A^2\sigma_V^2 + \alpha_M^2\chi}c

    Args:
        config: The transformer, with residual "identity" and norm "pre"; its numbers broadcast.

    Returns:
        (c, zeta_a, zeta_token, zeta_pooled), dimensionless. Shape (...).

    Valid: rho -> 1, depth -> infinity, corrections O(1 / l).
    Raises: ValueError for another residual or norm, a causal mask, or both branches off.
    Source: derived here.
    Checked: the recursion over 5000 -> 20000 blocks; simulation `sims.signal_propagation.identity_residual`, order 1
        in 1/L.
    """
    if config.residual != "identity" or config.norm != "pre" or config.causal:
        raise ValueError(
            'Power laws need `residual` = "identity", `norm` = "pre" and no causal mask, but got '
            f'"{config.residual}", "{config.norm}" and causal = {config.causal}.'
        )
    if not traced(config.alpha_A, config.alpha_M):
        still = np.logical_and(np.asarray(config.alpha_A) == 0, np.asarray(config.alpha_M) == 0)
        require(~still, "alpha_A", "positive where `alpha_M` is 0", 0.0)
    config, _ = config.broadcast()
    V, chi = mlp_moments(config)
    attention, mlp = config.alpha_A**2 * config.sigma_V**2, config.alpha_M**2
    c = attention + mlp * V
    return PowerLaws(c, (mlp * (chi - V) - attention) / c, mlp * chi / c, (attention + mlp * chi) / c)


class DepthScaledTotals(NamedTuple):
    """Exponents summed over the depth."""

    angle: Float[Array, "..."]
    pooled: Float[Array, "..."]


def depth_scaled_totals(config: TransformerConfig, kappa_A: ArrayLike, kappa_M: ArrayLike) -> DepthScaledTotals:
    r"""Total exponents of a very deep transformer whose branches are scaled by the root of the depth.

    .. math:: \alpha = \kappa / \sqrt L: \qquad L\lambda_a \to \kappa_M^2(r_\phi - 1) - \kappa_A^2, \qquad
        L\lambda_g^{\rm pool} \to \kappa_M^2(r_\phi - 1)

    Args:
        config: The transformer; only activation, sigma_w and the mask matter, in the unit-variance gauge.
        kappa_A: Total attention strength, zero or positive. Shape (...).
        kappa_M: Total MLP strength, zero or positive. Shape (...).

    Returns:
        (L lambda_a, L lambda_pool), natural logs. Shape (...).

    Valid: L -> infinity with an error O(1/L), pre- and post-norm. With a causal mask the angle's
        :math:`\kappa_A^2` is times 3/4.
    Raises: ValueError for a negative strength.
    Source: derived here; this is why 1 / sqrt(L) scaling works.
    Checked: L = 8 ... 512 (slope -1); simulation `sims.signal_propagation.depth_scaling`, order 1 in 1/L.
    """
    nonnegative(kappa_A=kappa_A, kappa_M=kappa_M)
    ratio, kappa_A, kappa_M = together(slope_to_power_ratio(config.activation, config.sigma_w), kappa_A, kappa_M)
    pooled = kappa_M**2 * (ratio - 1)
    return DepthScaledTotals(pooled - (1 - CAUSAL_MODE if config.causal else 1.0) * kappa_A**2, pooled)


def depth_scaled(config: TransformerConfig, kappa_A: ArrayLike, kappa_M: ArrayLike, depth: int) -> TransformerConfig:
    r"""The transformer of `depth` blocks with :math:`\alpha = \kappa / \sqrt L`, in the unit-variance gauge."""
    integer(1, depth=depth)
    return replace(config.unit_variance(), alpha_A=kappa_A / depth**0.5, alpha_M=kappa_M / depth**0.5)
