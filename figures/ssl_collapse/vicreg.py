"""VICReg: modes that dimensions own, modes that they share."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from figures.statistics import bars, mean
from figures.style import BLUE, DASHED, GREEN, GREY, SMALL, VERMILION, footer, number, panels, points, style
from theory.ssl_collapse import vicreg_deviation, vicreg_shared_strengths, vicreg_threshold

COLOURS = (BLUE, GREEN, VERMILION)


def vicreg(dataset: xr.Dataset) -> Figure | None:
    """Deviation of a dimension that owns a mode; eigenvalues and variances of dimensions that share the modes."""
    if dataset["invariance"].ndim == 0 or dataset["covariance"].ndim == 0:
        return None
    nu, q = dataset["invariance"].values, dataset["q"].values
    weak, strong = float(dataset["covariance"][0]), float(dataset["covariance"][-1])
    epsilon = float(dataset["epsilon"].values.ravel()[0])
    dense = np.linspace(0.9 * nu.min(), 1.05 * nu.max(), 200)
    own, common = dataset.isel(covariance=-1), dataset.isel(covariance=0)
    with style():
        figure, axes = panels(1, 3, 2.45)
        axis = axes[0, 0]
        pull = np.linspace(0.1, 4 * nu.max() * q.max() * 1.05, 400)
        axis.set_ylim(0, 1.12)
        axis.plot(pull, vicreg_deviation(pull / 100, 25.0, 1.0, 1.0, epsilon), color="black")
        for k, value in enumerate(q):
            here = np.sqrt(own["strength"].isel(q=k) + epsilon)
            x = 4 * nu * value
            points(axis, x, mean(here).values, bars(here).values, COLOURS[k], rf"$q={number(float(value))}$")
        edge = 4 * float(vicreg_threshold(1.0, 1.0, epsilon))
        axis.axvline(edge, color=GREY, linestyle=DASHED)
        axis.text(edge, 0.62, r" collapse: $\sqrt{\epsilon}$", fontsize=SMALL, color=GREY)
        axis.set(xlabel=r"$4\nu_{inv}q/\nu_{var}$", ylabel=r"$\sqrt{S_{jj}+\epsilon}$")
        axis.legend(loc="upper right")
        axis.set_title(rf"$\nu_{{cov}}={number(strong)}$: modes of their own")

        shared = np.asarray(vicreg_shared_strengths(q, dense, 1.0, weak, 1.0, epsilon))
        axis = axes[0, 1]
        axis.set_ylim(-0.1, 1.25 * shared.max())
        for k in range(len(q)):
            axis.plot(dense, shared[:, k], color=COLOURS[k])
            here = common["strength"].isel(q=k)
            points(axis, nu, mean(here).values, bars(here).values, COLOURS[k], rf"$q={number(float(q[k]))}$")
        axis.set(xlabel=r"weight of the invariance $\nu_{inv}$", ylabel="eigenvalues of $S$")
        axis.legend(loc="upper right")
        axis.set_title(rf"$\nu_{{cov}}={number(weak)}$: shared modes")

        axis = axes[0, 2]
        axis.set_ylim(0, 1.3)
        axis.plot(dense, shared.mean(-1), color="black", label="theory: all alike")
        alone = np.asarray(vicreg_deviation(q[None, :], dense[:, None], 1.0, 1.0, epsilon)) ** 2 - epsilon
        for k in range(len(q)):
            axis.plot(dense, alone[:, k], color=GREY, linestyle=DASHED, label=None if k else "modes of their own")
            here = common["spread"].isel(dimension=k)
            points(axis, nu, mean(here).values, bars(here).values, COLOURS[k])
        axis.set(xlabel=r"weight of the invariance $\nu_{inv}$", ylabel="variance of a dimension $S_{jj}$")
        axis.legend(loc="upper right", fontsize=SMALL)
        axis.set_title(rf"$\nu_{{cov}}={number(weak)}$: shared modes")
        for k, axis in enumerate(axes.flat):
            axis.annotate(
                f"({'abc'[k]})", (0, 1), (-16, 3), "axes fraction", "offset points", fontweight="bold", va="bottom"
            )
        footer(figure, dataset, "lines: theory; markers: SGD on minibatches, 95 % bars")
    return figure
