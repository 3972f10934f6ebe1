"""Inverse design: the initialization at which tokens neither collapse nor diverge, and how deep one may go."""

from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from scipy.optimize import brentq

from theory.arguments import positive
from theory.signal_propagation.config import NUMBERS, TransformerConfig, one_number_a_field
from theory.signal_propagation.exponents import angle_exponent, gradient_exponent, slope_to_power_ratio

GAUGES = ("unit_variance", "fixed", "tied")
SCAN = np.geomspace(0.02, 50.0, 1201)


@dataclass(frozen=True)
class CriticalPoint:
    """An initialization on the critical line: the gauge, its weight scales, and the exponents there."""

    gauge: str
    sigma_w: float
    sigma_2: float
    sigma_V: float
    angle_exponent: float
    token_exponent: float
    pooled_exponent: float
    config: TransformerConfig


@dataclass(frozen=True)
class CriticalInitialization:
    """All critical points, and for each gauge without one the sentence that says why."""

    points: tuple[CriticalPoint, ...]
    missing: dict[str, str]

    def of(self, gauge: str) -> tuple[CriticalPoint, ...]:
        """The critical points of one gauge, by increasing sigma_w."""
        return tuple(point for point in self.points if point.gauge == gauge)


def in_gauge(config: TransformerConfig, gauge: str, sigma_w: ArrayLike) -> TransformerConfig:
    r"""The transformer with another sigma_w.

    "unit_variance" sets sigma_V = 1 and sigma_2 so that the MLP's output has unit variance; "fixed" keeps sigma_2;
    "tied" sets sigma_2 = sigma_w.
    """
    config = replace(config, sigma_w=sigma_w)
    if gauge == "unit_variance":
        return config.unit_variance()
    return replace(config, sigma_2=sigma_w) if gauge == "tied" else config


def required_ratio(config: TransformerConfig) -> float:
    r"""The ratio :math:`r_\phi` that criticality takes in the unit-variance gauge.

    .. math:: r_\phi = 1 + \frac{m\,\alpha_A^2}{\alpha_M^2 (1 - m\,\alpha_A^2)} \quad\text{(normalized residual)}

    m = 1, or 3/4 with a causal mask. It is infinite where nothing helps.
    """
    loss = np.exp(-_angle_without_mlp(config)) - 1
    kept = 1 - config.alpha_M**2 if config.residual == "normalized" else 1.0
    strength = float(config.alpha_M) ** 2
    return float(1 + loss * (kept + strength) / strength) if strength > 0 else float("inf")


def _angle_without_mlp(config):
    if config.alpha_A == 1 and config.residual == "normalized" and not config.causal:
        return -np.inf
    return float(angle_exponent(replace(config, alpha_M=0.0, sigma_V=1.0), q=1.0))


def critical_initialization(
    config: TransformerConfig, gauges: tuple[str, ...] = ("unit_variance", "fixed")
) -> CriticalInitialization:
    r"""The scales sigma_w of the MLP's first layer at which the angle exponent vanishes.

    .. math:: \lambda_a(\sigma_w) = 0; \qquad \text{unit variance:}\quad
        r_\phi(\sigma_w) = 1 + \frac{\alpha_A^2}{\alpha_M^2 (1 - \alpha_A^2)}, \qquad
        \lambda_g^{\rm pool} = -\ln(1 - \alpha_A^2)

    Args:
        config: The transformer, one number a field; its own sigma_w is ignored.
        gauges: What happens to the other scales, each of "unit_variance" (sigma_V = 1, output of the MLP of unit
            variance), "fixed" (sigma_2 and sigma_V as configured), "tied" (sigma_2 = sigma_w).

    Returns:
        The critical points: one for tanh or erf, none or two for GELU; gauges after the first without one are
        named in `missing`. At the stationary norm lambda_token =
        lambda_a = 0 as well, while lambda_pool stays above 0 unless alpha_A does: no choice of weights removes it.

    Valid: sigma_w from 0.02 to 50, scanned in its logarithm; d -> infinity.
    Raises: ValueError "No critical point exists, because ..." with the ratio reached and the ratio needed, if the
        first gauge has none; ValueError where exponents do not exist. In the fixed gauge GELU has a point even at
        equal strengths, but only where the MLP outweighs attention a hundredfold: ask for it alone.
    Source: derived here.
    Checked: printed roots to 1e-9; random networks there (`sims.signal_propagation.phase_diagram`).
    """
    for gauge in gauges:
        if gauge not in GAUGES:
            raise ValueError(f"`gauges` must be among {', '.join(GAUGES)}, but got {gauge}.")
    one_number_a_field(config)
    points, missing = [], {}
    for gauge in gauges:
        roots = [] if _needs_more_than_all(config) else _roots(config, gauge)
        points += [_point(config, gauge, sigma_w) for sigma_w in roots]
        if not roots:
            missing[gauge] = _why(config, gauge)
    if gauges and gauges[0] in missing:
        raise ValueError(missing[gauges[0]])
    return CriticalInitialization(tuple(points), missing)


def _needs_more_than_all(config):
    return not np.isfinite(required_ratio(config))


def _angle(config, gauge, sigma_w):
    return angle_exponent(in_gauge(config, gauge, jnp.asarray(sigma_w, float)))


def _roots(config, gauge):
    values = np.asarray(_angle(config, gauge, SCAN))
    # Rounding of an exponent that vanishes identically is no crossing.
    values = np.where(np.abs(values) < 1e-12, 0.0, values)
    brackets = np.flatnonzero(values[:-1] * values[1:] < 0)

    def of_log(x):
        return float(_angle(config, gauge, np.exp(x)))

    return [float(np.exp(brentq(of_log, *np.log(SCAN[[i, i + 1]]), xtol=1e-14))) for i in brackets]


def _point(config, gauge, sigma_w):
    at = in_gauge(config, gauge, sigma_w)
    at = replace(at, **{name: float(getattr(at, name)) for name in NUMBERS})
    exponents = angle_exponent(at), gradient_exponent(at, "token"), gradient_exponent(at, "pooled")
    return CriticalPoint(gauge, sigma_w, at.sigma_2, at.sigma_V, *map(float, exponents), at)


def _why(config, gauge):
    need = required_ratio(config)
    if not np.isfinite(need):
        strength = "alpha_M = 0" if config.alpha_M == 0 else f"alpha_A = {float(config.alpha_A):.6g}"
        return f"No critical point exists, because with {strength} no MLP can undo the averaging of attention."
    name = config.activation if isinstance(config.activation, str) else getattr(config.activation, "__name__", "phi")
    ratios = np.asarray(slope_to_power_ratio(config.activation, SCAN))
    if config.alpha_A == 0:
        values = np.asarray(_angle(config, gauge, SCAN))
        return (
            "No critical point exists, because without attention (alpha_A = 0) the angle exponent never changes sign: "
            f"with {name} it lies between {values.min():.3g} and {values.max():.6g} for all sigma_w from {SCAN[0]:g} "
            f"to {SCAN[-1]:g}."
        )
    if gauge == "unit_variance":
        return (
            f"No critical point exists, because {name} reaches r_phi = chi / V from {ratios.min():.6g} to "
            f"{ratios.max():.6g} (at sigma_w = {SCAN[ratios.argmax()]:.4g}), but {need:.6g} is needed."
        )
    values = np.asarray(_angle(config, gauge, SCAN))
    return (
        f"No critical point exists, because with {name} in the gauge {gauge} the angle exponent lies between "
        f"{values.min():.6g} and {values.max():.6g} for all sigma_w from {SCAN[0]:g} to {SCAN[-1]:g}, and r_phi = "
        f"chi / V never exceeds {ratios.max():.6g}."
    )


def depth_budget(config: TransformerConfig, bound: float = 5.0) -> float:
    r"""The largest depth at which no total exponent exceeds a bound.

    .. math:: L_{\max} = \Big\lfloor \frac c{\max(|\lambda_a|, |\lambda_g^{\rm pool}|)} \Big\rfloor

    Args:
        config: The transformer, one number a field.
        bound: c, positive: natural log of the factor by which an angle or a squared gradient may change. Training
            in `sims.signal_propagation.training` degrades from about 7.

    Returns:
        The depth in blocks; infinity if both exponents vanish.

    Valid: at the stationary norm, d -> infinity.
    Raises: ValueError as `angle_exponent`, or if the bound is not positive.
    Source: derived here.
    Checked: both sides of the returned depth.
    """
    positive(bound=bound)
    worst = max(abs(float(angle_exponent(config))), abs(float(gradient_exponent(config, "pooled"))))
    return float(np.floor(bound / worst)) if worst > 0 else float("inf")
