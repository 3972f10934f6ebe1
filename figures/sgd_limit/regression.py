"""A large linear regression after convergence: displacements, isotropic variances, and the turns of the top mode."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from figures.statistics import bars, mean, of_draws
from figures.style import DASHED, SMALL, footer, letter, number, panels, points, style
from theory.sgd_limit import global_displacement, oscillation_per_step, phase_space_covariance


def regression(dataset: xr.Dataset) -> Figure | None:
    """Displacements, variances and oscillations of a regression, with additive noise for comparison."""
    if dataset["beta"].ndim == 0:
        return None
    settings = json.loads(dataset.attrs["settings"])
    rho = np.arange(1.0, settings["d"] + 1) ** -settings["alpha"]
    eta, S = settings["eta"], settings["batch"]
    sigma = (1 - settings["d"] / settings["samples"]) ** 0.5  # of the residuals, for labels with unit noise
    lags, modes, short = (dataset[name].values for name in ("lag", "mode", "short_lag"))
    with style():
        figure, axes = panels(1, 3, 2.35)
        axes[0, 0].set(xscale="log", yscale="log")
        spread = dataset["variance_theory"]
        axes[0, 1].set(yscale="log", ylim=(float(spread.min()) / 2, 2 * float(spread.max())))
        for i, beta in enumerate(dataset["beta"].values):
            here, color = dataset.isel(beta=i), f"C{i}"
            axes[0, 0].plot(lags, of_draws(here["displacement_theory"]), color=color)
            axes[0, 0].plot(
                lags, global_displacement(lags, rho, eta, beta, S, 0.0, sigma), color=color, linestyle=DASHED
            )
            axes[0, 1].plot(modes, of_draws(here["variance_theory"]), color=color)
            additive = phase_space_covariance(rho, eta, beta, S, 0.0, sigma).position
            axes[0, 1].plot(modes, additive, color=color, linestyle=DASHED)
            axes[0, 2].plot(short, of_draws(here["acf_theory"]), color=color)
            for axis, x, name, every in zip(
                axes.flat, (lags, modes, short), ("displacement", "variance", "acf"), (1, 1, 4), strict=True
            ):
                label = rf"$\beta={number(float(beta))}$"
                points(
                    axis, x[::every], mean(here[name]).values[::every], bars(here[name]).values[::every], color, label
                )
        axes[0, 0].legend(fontsize=SMALL, loc="lower right")
        axes[0, 0].set(xlabel="steps $k$", ylabel=r"$E|\theta_{j+k}-\theta_j|^2$")
        axes[0, 1].set(xlabel="mode, from the steepest", ylabel=r"$\mathrm{Var}\,x_l$")
        axes[0, 2].set(xlabel="steps $k$", ylabel="autocorrelation, top mode")
        _turn(axes[0, 2], dataset, rho[0], eta)
        letter(axes.flat)
        note = "lines: exact for the batches; dashed: additive noise; markers: simulation with 95 % bars"
        footer(figure, dataset, note)
    return figure


def _turn(axis, dataset, curvature, eta):
    """Measured and predicted frequency of the top mode, in words."""
    words = []
    for i, beta in enumerate(dataset["beta"].values):
        if beta > 0:
            draws = dataset["frequency"].isel(beta=i)
            angle = float(oscillation_per_step(eta, beta, curvature).angle)
            found = rf"{mean(draws).item():.3f} $\pm$ {bars(draws).item():.3f}"
            words.append(rf"$\beta={number(float(beta))}$: {found}, chain {angle:.3f}")
    axis.set_ylim(-1.0, 1.45)
    text = "\n".join(["frequency (rad a step)", *words])
    axis.text(0.98, 0.98, text, transform=axis.transAxes, fontsize=SMALL, ha="right", va="top")
