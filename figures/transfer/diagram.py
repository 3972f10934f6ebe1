"""The dataset of the transfer phase diagram as its figures need it, with the theory on dense curves."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import jax
import numpy as np
import xarray as xr

from figures.style import number
from theory import transfer

# Compiled, the dense maps of one figure take a second in place of ten.
fine_tuning_boundary = jax.jit(transfer.fine_tuning_boundary, static_argnames="depth")
fine_tuning_transferability = jax.jit(transfer.fine_tuning_transferability, static_argnames="depth")
linear_transfer_boundary = jax.jit(transfer.linear_transfer_boundary)
linear_transfer_risk_finite = jax.jit(transfer.linear_transfer_risk_finite)
linear_transferability = jax.jit(transfer.linear_transferability)
recommend = jax.jit(transfer.recommend, static_argnames=("depth", "tuned"))
scratch_risk_finite = jax.jit(transfer.scratch_risk_finite)

AXES = ("gamma", "theta", "sigma", "replicate")
GAMMA = r"samples per dimension $\gamma=n/d$"
THETA = r"task angle $\theta$ (rad)"
SLICES = (math.pi / 8, math.pi / 4, 3 * math.pi / 8)
LEAST_SAMPLES = 10


@dataclass(frozen=True)
class Diagram:
    """One source and one target norm: the draws over (gamma, theta, sigma, replicate), and the theory's constants."""

    data: xr.Dataset
    d: int
    depth: float
    ridge: float
    source_norm: float
    target_norm: float
    note: str

    @property
    def gamma(self) -> np.ndarray:
        return self.data["gamma"].values

    @property
    def theta(self) -> np.ndarray:
        return self.data["theta"].values

    @property
    def sigma(self) -> np.ndarray:
        return self.data["sigma"].values

    @property
    def is_map(self) -> bool:
        return len(self.gamma) > 1 and len(self.theta) > 1

    @property
    def limit(self) -> float:
        """Largest transferability, in size, that the colours tell apart."""
        return max(self.source_norm, self.target_norm) ** 2

    @property
    def feature_scale(self) -> float:
        return self.source_norm ** (1 - 1 / self.depth)

    def samples(self, most: int = 600) -> np.ndarray:
        """Numbers of samples for a dense curve over the simulated range of gamma; every simulated one is among them."""
        simulated = np.round(self.gamma * self.d).astype(int)
        several = len(simulated) > 1
        first, last = (simulated.min(), simulated.max()) if several else (max(self.d // 10, 1), 2 * self.d)
        dense = np.linspace(first, last, min(last - first + 1, most)).astype(int)
        near = np.arange(self.d - 30, self.d + 31)
        return np.unique(np.concatenate([dense, near[(near >= first) & (near <= last)], simulated]))

    def at(self, sigma: float) -> xr.Dataset:
        """The draws at one noise level."""
        return self.data.sel(sigma=sigma)

    def valid(self) -> np.ndarray:
        """Where 20 replicates of a least-squares risk have a usable mean: ten samples, ten away from n = d."""
        n = np.round(self.gamma * self.d)
        return (np.abs(n - self.d) >= LEAST_SAMPLES) & (n >= LEAST_SAMPLES)

    def thetas(self) -> list[float]:
        """The simulated angles that the slices show: those nearest to pi/8, pi/4 and 3pi/8."""
        return [float(v) for v in sorted({self.theta[np.argmin(np.abs(self.theta - wish))] for wish in SLICES})]

    def probe_exact(self, n, theta, sigma) -> np.ndarray:
        """Exact finite-size transferability of the linear probe, at the ridge of the simulation."""
        return self.scratch_exact(n, sigma) - self.probe_risk_exact(n, theta, sigma)

    def scratch_exact(self, n, sigma) -> np.ndarray:
        n = np.asarray(n, float)
        return np.asarray(scratch_risk_finite(n, self.d, sigma, self.target_norm))

    def probe_risk_exact(self, n, theta, sigma, ridge: float | np.ndarray | None = None) -> np.ndarray:
        """Exact finite-size risk of the linear probe; the ridge is in units of the squared feature.

        The risk is linear in sin^2 theta, so two angles give them all, with one quadrature per n and ridge.
        """
        ridge = self.ridge if ridge is None else ridge
        scale, n = self.feature_scale, np.asarray(n, float)
        aligned, orthogonal = (
            np.asarray(linear_transfer_risk_finite(n, end, sigma, ridge * scale**2, scale, self.target_norm))
            for end in (0.0, np.pi / 2)
        )
        finite = np.isfinite(aligned) & np.isfinite(orthogonal)
        aligned, orthogonal = np.where(finite, aligned, 0.0), np.where(finite, orthogonal, np.inf)
        share = np.maximum(np.sin(theta) ** 2, 1e-30)
        return (1 - share) * aligned + share * orthogonal

    def probe_asymptotic(self, gamma, theta, sigma) -> np.ndarray:
        return np.asarray(linear_transferability(gamma, theta, sigma, target_norm=self.target_norm))

    def fine_tuned(self, gamma, theta, sigma, depth: float | None = None) -> np.ndarray:
        """Asymptotic transferability of fine-tuning."""
        depth = self.depth if depth is None else depth
        norms = self.source_norm, self.target_norm
        return np.asarray(fine_tuning_transferability(gamma, theta, sigma, *norms, depth=depth))

    def probe_contours(self, theta: np.ndarray, sigma: float) -> list[tuple[np.ndarray, np.ndarray]]:
        """Zero lines (theta, gamma) of the probe's transferability, drawn on through the points where they meet."""
        relative = sigma / self.target_norm
        if relative < 1:
            tangent = np.arccos(1 - relative)
            fan = np.geomspace(1e-6, 0.5, 60)
            theta = np.concatenate(
                [theta, *(side + sign * fan for side in (tangent, np.pi - tangent) for sign in (1, -1))]
            )
        theta = np.unique(theta[(theta >= 0) & (theta <= np.pi)])
        minus, plus, over = (np.asarray(part) for part in linear_transfer_boundary(theta, relative))
        if relative == 0:
            return [(theta, minus)]
        lines = [(theta, over)]
        for side in (theta <= np.pi / 2, theta > np.pi / 2):
            here = side & np.isfinite(minus)
            if here.any():
                order = -1 if side[0] else 1
                x, lower, upper = theta[here][::order], minus[here][::order], plus[here][::order]
                lines.append((np.concatenate([x, x[::-1]]), np.concatenate([lower, upper[::-1]])))
        return lines

    def fine_tuning_contour(self, gamma: np.ndarray, sigma: float, depth: float | None = None) -> np.ndarray:
        """Angle of zero transferability of fine-tuning; with depth 1 it is the one of the printed formula."""
        depth = self.depth if depth is None else depth
        return np.asarray(fine_tuning_boundary(gamma, sigma, self.source_norm, self.target_norm, depth=depth))


def diagram(dataset: xr.Dataset) -> Diagram:
    """The first value of every dimension beside gamma, theta, sigma and replicate; the note says which."""
    settings = json.loads(dataset.attrs["settings"])
    extra = [dim for dim in dataset["status"].dims if dim not in AXES]
    chosen = dataset.isel(dict.fromkeys(extra, 0)).sortby(["gamma", "theta", "sigma"])
    parts = [
        f"{dim.replace('_', ' ')} {number(float(dataset[dim][0]))}, the first of {dataset.sizes[dim]}" for dim in extra
    ]
    norms = float(chosen["source_norm"]), float(chosen["target_norm"])
    if not extra and norms != (1.0, 1.0):
        parts.append(rf"$|\beta_s|$ = {norms[0]:g}, $|\beta_t|$ = {norms[1]:g}")
    elif extra and "target_norm" not in extra and norms[1] != 1:
        parts.append(rf"$|\beta_t|$ = {norms[1]:g}")
    return Diagram(
        chosen, int(settings["d"]), float(settings["depth"]), float(settings["ridge"]), *norms, ", ".join(parts)
    )


def telling_noise(sigmas: np.ndarray, target_norm: float = 1.0) -> float:
    """The noise level that shows most of the phase diagram: below b, where both regions of negative transfer exist."""
    between = [s for s in sigmas if 0 < s < target_norm]
    return float(min(between, key=lambda s: abs(s - 0.3 * target_norm)) if between else min(sigmas))


def spread(values: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the values, evenly chosen, the first and the last among them."""
    return values[np.unique(np.linspace(0, len(values) - 1, min(most, len(values))).round().astype(int))]
