"""What a figure needs to know of the draws: means with 95 % bars, z values, cells that failed, edges of cells."""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy import stats


def mean(draws: xr.DataArray) -> xr.DataArray:
    """Mean over the replicates that have a value."""
    return draws.mean("replicate", skipna=True)


def standard_error(draws: xr.DataArray) -> xr.DataArray:
    """Standard error of the mean over replicates; nan with fewer than two values."""
    count = draws.notnull().sum("replicate")
    centred = draws - mean(draws)
    several = count > 1
    return ((centred**2).sum("replicate") / (count * (count - 1)).where(several)) ** 0.5


def bars(draws: xr.DataArray) -> xr.DataArray:
    """Half-width of the 95 % t interval of the mean; nan with fewer than two values."""
    freedom = np.maximum(draws.notnull().sum("replicate") - 1, 1)
    return standard_error(draws) * stats.t.ppf(0.975, freedom)


def z_values(draws: xr.DataArray, theory: xr.DataArray, equal: float = 1e-12) -> xr.DataArray:
    """(simulation - theory) / standard error, draw by draw where the theory is.

    nan where no draw varies, and where every draw is the theory to `equal` times the largest size of the output.
    """
    residuals = draws - theory.where(np.isfinite(theory))
    error = standard_error(residuals)
    size = np.abs(theory.where(np.isfinite(theory))).max()
    differs = np.abs(residuals).max("replicate") > equal * size
    return (mean(residuals) / error.where(error > 0)).where(differs)


def of_draws(theory: xr.DataArray) -> xr.DataArray:
    """A theory as one number per cell: its mean over replicates where it depends on the draw."""
    return mean(theory) if "replicate" in theory.dims else theory


def failed(dataset: xr.Dataset) -> xr.DataArray:
    """Cells in which at least one replicate diverged or did not converge."""
    return (dataset["status"] > 0).any("replicate")


def edges(values: np.ndarray, logarithmic: bool = False) -> np.ndarray:
    """Edges of the cells around two or more increasing values, half way between neighbours."""
    x = np.log(values) if logarithmic else np.asarray(values, float)
    middles = (x[1:] + x[:-1]) / 2
    out = np.concatenate([[2 * x[0] - middles[0]], middles, [2 * x[-1] - middles[-1]]])
    if logarithmic:
        return np.exp(out)
    return np.maximum(out, 0.0) if x[0] >= 0 else out


def first_of_the_rest(dataset: xr.Dataset, *axes: str) -> tuple[xr.Dataset, str]:
    """The dataset at the first value of every swept axis beside `axes`, and words that say so."""
    extra = [dim for dim in dataset["status"].dims if dim not in ("replicate", *axes)]
    words = ", ".join(f"{dim} = {float(dataset[dim][0]):g}, the first of {dataset.sizes[dim]}" for dim in extra)
    return dataset.isel(dict.fromkeys(extra, 0)), words


def log_spaced(values: np.ndarray) -> bool:
    """Whether values are spaced more evenly on a logarithmic axis, over a decade or more."""
    x = np.asarray(values, float)
    if len(x) < 3 or x.min() <= 0 or x.max() < 10 * x.min():
        return False
    steps, ratios = np.diff(x), np.diff(np.log(x))
    return np.ptp(ratios) * abs(steps.mean()) < np.ptp(steps) * abs(ratios.mean())
