"""Datasets for the figures: small, made by hand from the theory and Gaussian noise."""

import json

import numpy as np
import xarray as xr

from theory.transfer import (
    fine_tuning_scale,
    fine_tuning_transferability,
    linear_transfer_risk_finite,
    scratch_risk_finite,
)

DIMS = ("gamma", "theta", "sigma", "replicate")


def transfer_dataset(
    gamma=(0.25, 0.5, 0.75, 1.0, 1.5, 2.0),
    theta=(np.pi / 8, np.pi / 4, 3 * np.pi / 8, np.pi / 2),
    sigma=(0.0, 0.2, 1.0),
    *,
    d=40,
    replicates=6,
    failed=(),
    source_norms=(1.0,),
    depth=2,
    verdict=None,
):
    """A dataset laid out as the phase diagram's, its draws the theory plus noise; `failed` lists (cell, replicate)."""
    parts = []
    for source_norm in source_norms:
        grid = np.meshgrid(np.array(gamma), np.array(theta), np.array(sigma), indexing="ij")
        n, ridge, scale = np.round(grid[0] * d), 1e-3, source_norm ** (1 - 1 / depth)
        random = np.random.default_rng(0)
        shape = (*grid[0].shape, replicates)
        noise = 0.1 * random.normal(size=shape) * (1 + grid[2][..., None])
        scratch = np.asarray(scratch_risk_finite(n, d, grid[2]))
        probe = np.asarray(linear_transfer_risk_finite(n, grid[1], grid[2], ridge * scale**2, scale))
        tuned = np.asarray(fine_tuning_transferability(grid[0], grid[1], grid[2], source_norm, 1.0, depth))
        kappa = np.asarray(fine_tuning_scale(grid[0], grid[2], source_norm, 1.0, depth))
        under = grid[0] < 1
        theory = {
            "scratch_risk": scratch,
            "linear_transfer_risk": probe,
            "linear_transfer_transferability": scratch - probe,
            "fine_tuning_transferability": tuned,
            "fine_tuning_scale": np.where(under, kappa, np.nan),
        }
        base = np.where(np.isfinite(scratch), scratch, 50.0)[..., None]
        own = 0.02 * random.normal(size=shape)
        draws = {
            "scratch_risk": np.abs(base + noise),
            "linear_transfer_risk": probe[..., None] + own,
            "linear_transfer_transferability": np.abs(base + noise) - probe[..., None] - own,
            "fine_tuning_transferability": tuned[..., None] + np.where(under[..., None], own, 0.0),
            "fine_tuning_scale": theory["fine_tuning_scale"][..., None] + own,
        }
        status = np.zeros(shape, np.int8)
        for cell, replicate in failed:
            status[(*cell, replicate)] = 1
            for values in draws.values():
                values[(*cell, replicate)] = np.nan
        labels = {name: {"label": rf"{name.replace('_', ' ')} $q$", "units": "1"} for name in draws}
        variables = {name: (DIMS, values, labels[name]) for name, values in draws.items()}
        variables |= {f"{name}_theory": (DIMS[:3], values, labels[name]) for name, values in theory.items()}
        variables["status"] = (DIMS, status)
        coordinates = {
            "gamma": ("gamma", np.array(gamma, float), {"label": r"samples per dimension $\gamma=n/d$", "units": "1"}),
            "theta": ("theta", np.array(theta, float), {"label": r"angle $\theta$", "units": "rad"}),
            "sigma": ("sigma", np.array(sigma, float), {"label": r"label noise $\sigma$", "units": "1"}),
            "replicate": np.arange(replicates),
            "source_norm": source_norm,
            "target_norm": 1.0,
        }
        parts.append(xr.Dataset(variables, coordinates))
    data = parts[0] if len(parts) == 1 else xr.concat(parts, "source_norm").transpose(*DIMS[:3], "source_norm", ...)
    data.attrs = attributes("phase_diagram", {"d": d, "width": 8, "depth": depth, "ridge": 1e-3}, verdict)
    return data


def attributes(experiment, settings, verdict=None):
    """The provenance that every dataset carries."""
    facts = {
        "title": "A title",
        "experiment": experiment,
        "preset": "smoke",
        "seed": 3,
        "settings": json.dumps(settings),
        "commit": "abc1234",
        "command": "python -m sims.phase_diagram",
    }
    return facts | ({} if verdict is None else {"verdict": json.dumps(verdict)})


def order_claim(setting, x, order, *, replicates=20):
    """The judgement of an order claim whose discrepancy follows its law exactly."""
    y = [0.3 * v**order for v in x]
    return {
        "output": "endpoint_error",
        "kind": "order",
        "sentence": "it vanishes",
        "outcome": "agrees",
        "replicates": replicates,
        "twins": {f"order {order - 1:g}": True, f"order {order + 1:g}": True},
        "numbers": {
            setting: list(x),
            "discrepancy": y,
            "standard error": [v / 20 for v in y],
            "fitted order": float(order),
            "predicted order": float(order),
        },
    }


VERDICT = {
    "experiment": "phase_diagram",
    "judgements": [
        order_claim("alpha", (0.1, 0.05, 0.02, 0.01), 2),
        order_claim("d", (20, 40, 80, 160), -1),
        {"output": "scratch_risk", "kind": "mean", "sentence": "s", "outcome": "disagrees", "numbers": {}, "twins": {}},
    ],
}
