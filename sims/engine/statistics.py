"""Intervals and tests over replicates, whatever the correlation between cells."""

from __future__ import annotations

import numpy as np
from scipy import stats

FLIPS = 50_000
JACKKNIFE_REPLICATES = 64


def projection(residuals: np.ndarray, direction: np.ndarray, floor: float = 0.0) -> tuple[np.ndarray, float]:
    r"""The :math:`\lambda_r` of `sims.engine.agreement`, and how far errors of size `floor` could move them.

    Args:
        residuals: Draws minus theory, shape (replicates, cells).
        direction: Shape (cells,), or (replicates, cells) for a twin that was drawn: then its mean over the
            other replicates is taken.
        floor: Absolute numerical floor, in the output's unit.
    """
    count = len(residuals)
    if direction.ndim == 2:
        direction = (direction.sum(0) - direction) / (count - 1)
    centred = residuals - residuals.mean(0)
    squares = (centred**2).sum(0)
    others = np.maximum(squares - centred**2 * count / (count - 1), 0.0) / (count - 2)
    tiny = np.finfo(float).tiny ** 0.5
    weights = direction / (others + floor**2 + tiny)
    norm = (weights * direction).sum(1)
    return (weights * residuals).sum(1) / norm, float((np.abs(weights).sum(1) * floor / norm).mean())


def contrast(residuals: np.ndarray, direction: np.ndarray, level: float, floor: float = 0.0) -> tuple[float, float]:
    r"""Interval for the component of the mean residual along a direction.

    The weights tie the :math:`\lambda_r` of skewed cells to each other in second order. With few replicates the
    interval is therefore that of the jackknife's pseudo-values, which counts those terms; with many they do not matter.
    """
    values, slack = projection(residuals, direction, floor)
    count = len(values)
    if count <= JACKKNIFE_REPLICATES:
        kept = ~np.eye(count, dtype=bool)
        each = [projection(residuals[k], direction[k] if direction.ndim == 2 else direction, floor)[0] for k in kept]
        values = count * values.mean() - (count - 1) * np.mean(each, axis=1)
    return interval(values, level, slack)


def interval(values: np.ndarray, level: float, slack: float = 0.0) -> tuple[float, float]:
    r"""Interval for the mean at a false-alarm level, widened by `slack`.

    The union of the t interval and of Hall's (1992), which transforms t by its skewness
    :math:`g = \hat\gamma / \sqrt n`: :math:`x \mapsto \frac{3}{g}\{[1 + g (x - g/6)]^{1/3} - 1\}`. With 20 replicates
    of a skewed statistic the t interval alone misses the mean ten times too often.
    """
    count = len(values)
    error = values.std(ddof=1) / count**0.5
    quantile = stats.t.ppf(1 - level / 2, count - 1)
    g = float(stats.skew(values)) / count**0.5 if error > 1e-14 * np.abs(values).max() else 0.0
    low = high = quantile
    if abs(g) > 1e-9:
        hall = [3 / g * (np.cbrt(1 + g * (x - g / 6)) - 1) for x in (quantile, -quantile)]
        low, high = max(quantile, hall[0]), max(quantile, -hall[1])
    return float(values.mean() - low * error - slack), float(values.mean() + high * error + slack)


def sign_flip_p(residuals: np.ndarray, floor: float = 0.0) -> float:
    """p value of "the residuals have mean zero in every cell", against errors of any sign.

    The statistic sums, over cells, the products of two different replicates' residuals, scaled by the second moment in
    the replicates of the other half: its mean is zero for skewed residuals too. Its law comes from flipping the sign of
    whole replicates, so any correlation between cells is allowed for.
    """
    count = len(residuals)
    halves = np.arange(count) % 2 == 0
    products = np.zeros((count, count))
    for half in (halves, ~halves):
        moment = (residuals[~half] ** 2).mean(0) + floor**2
        scaled = residuals[half] / np.sqrt(np.where(moment > 0, moment, np.inf))
        products[np.ix_(half, half)] = scaled @ scaled.T
    np.fill_diagonal(products, 0.0)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(FLIPS, count))
    flipped = np.einsum("fi,ij,fj->f", signs, products, signs, optimize=True)
    return (1 + (flipped >= products.sum() - 1e-9 * np.abs(products).sum()).sum()) / (1 + FLIPS)


def effective_cells(residuals: np.ndarray) -> float:
    """The number of independent cells whose replicates would be correlated as weakly as these."""
    count = len(residuals)
    moment = (residuals**2).mean(0)
    scaled = residuals[:, moment > 0] / np.sqrt(moment[moment > 0])
    if scaled.shape[1] == 0:
        return float("nan")
    gram = scaled @ scaled.T / scaled.shape[1]
    off = (gram**2).sum() - (np.diag(gram) ** 2).sum()
    return float(min(count * (count - 1) / off, scaled.shape[1]))


def rank_correlation(draws: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of each row, ties sharing their mean rank; 0 for a row without any order."""
    a, b = (stats.rankdata(x, axis=1) - (x.shape[1] + 1) / 2 for x in (draws, score))
    size = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return np.divide((a * b).sum(1), size, out=np.zeros(len(a)), where=size > 0)
