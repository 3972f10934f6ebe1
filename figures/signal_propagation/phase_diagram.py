"""The phase diagram: three exponents over branch strength and weight scale, with geometry and ladder beside them."""

from __future__ import annotations

import jax
import numpy as np
import xarray as xr
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from figures.signal_propagation.transformer import transformer
from figures.statistics import bars, edges, failed, first_of_the_rest, mean
from figures.style import (
    BLUE,
    COLOURS,
    GREY,
    SIGNED,
    SMALL,
    footer,
    hatched,
    label_of,
    letter,
    number,
    panels,
    points,
    style,
    theory_and_simulation,
    verdict_of,
)
from theory.signal_propagation import angle_exponent, gradient_exponent

SYMBOLS = {
    "angle_exponent": r"\lambda_a",
    "token_exponent": r"\lambda_g^{\mathrm{tok}}",
    "pooled_exponent": r"\lambda_g^{\mathrm{pool}}",
}
NAMES = {"angle_exponent": "angle", "token_exponent": "token gradient", "pooled_exponent": "pooled gradient"}
POINTS = 161


@jax.jit
def exponents(config):
    """The three exponents of a configuration whose fields are arrays."""
    return {
        "angle_exponent": angle_exponent(config),
        "token_exponent": gradient_exponent(config, "token"),
        "pooled_exponent": gradient_exponent(config, "pooled"),
    }


def phase_diagram(dataset: xr.Dataset) -> Figure:
    """Theory, simulation and their difference for each exponent; geometry and the ladders in the last column."""
    dataset, words = first_of_the_rest(dataset, "alpha", "sigma_w")
    dataset = dataset.sortby(["alpha", "sigma_w"])
    alpha, sigma_w = dataset["alpha"].values, dataset["sigma_w"].values
    is_map = len(alpha) > 1 and len(sigma_w) > 1
    with style():
        if not is_map:
            return _slices(dataset, words)
        figure, axes = panels(3, 4, 5.3, width_ratios=[1, 1, 1, 1.15])
        x, y = edges(alpha), edges(sigma_w)
        x = np.clip(x, 1e-3, 1 - 1e-3)
        dense = [np.linspace(v[0], v[-1], POINTS) for v in (x, y)]
        theory = {k: np.asarray(v) for k, v in exponents(_config(dataset, *np.meshgrid(*dense))).items()}
        lost = failed(dataset).transpose("sigma_w", "alpha").values
        for row, name in zip(axes, SYMBOLS, strict=True):
            _row(figure, row, dataset, name, (x, y), dense, theory, lost)
        for axis in axes[:2, :3].flat:
            axis.tick_params(labelbottom=False)
        for axis in axes[2, :3]:
            axis.set_xlabel(r"branch strength $\alpha$")
        for axis, title in zip(axes[0], ("theory", "simulation", "difference"), strict=False):
            axis.set_title(title)
        _angles(axes[0, 3], dataset)
        _lengths(axes[1, 3], dataset)
        _ladders(axes[2, 3], dataset)
        letter(axes.flat)
        note = (
            r"line: $\lambda_a=0$ by theory; hatched: cells with a failed draw"
            if lost.any()
            else (r"black line: $\lambda_a=0$ by theory")
        )
        footer(figure, dataset, "; ".join(part for part in (note, words) if part))
    return figure


def _config(dataset, alpha, sigma_w):
    share = float(dataset["attention_share"])
    return transformer(dataset, alpha_A=share * alpha, alpha_M=alpha, sigma_w=sigma_w)


def _norm(values) -> Normalize:
    """Colours centred on zero; each side as far as all but two per cent of the theory goes."""
    low, high = np.quantile(values[np.isfinite(values)], [0.02, 1.0])
    if low > -0.02 * high:
        return Normalize(-high, high)
    return TwoSlopeNorm(0.0, min(low, -0.05), max(high, 0.05))


def _row(figure, row, dataset, name, edges_of, dense, theory, lost):
    norm = _norm(theory[name])
    x, y = edges_of
    draws = dataset[name].transpose("sigma_w", "alpha", "replicate")
    values = mean(draws).values
    gap = mean(draws - dataset[f"{name}_theory"]).transpose("sigma_w", "alpha").values
    limit = max(np.nanquantile(np.abs(gap), 0.98), 1e-3)
    row[0].pcolormesh(*dense, theory[name], norm=norm, cmap=SIGNED, rasterized=True)
    image = row[1].pcolormesh(x, y, values, norm=norm, cmap=SIGNED, rasterized=True)
    difference = row[2].pcolormesh(x, y, gap, vmin=-limit, vmax=limit, cmap="PuOr_r", rasterized=True)
    for axis in row[:3]:
        if theory["angle_exponent"].min() < 0 < theory["angle_exponent"].max():
            axis.contour(*dense, theory["angle_exponent"], [0.0], colors="black", linewidths=0.9)
        axis.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
        hatched(axis, x, y, lost)
        axis.xaxis.set_major_locator(MaxNLocator(4))
        axis.yaxis.set_major_locator(MaxNLocator(5))
    for axis in row[1:3]:
        axis.tick_params(labelleft=False)
    row[0].set_ylabel(f"{NAMES[name]}\n{label_of(dataset['sigma_w'])}")
    for mesh, axis, symbol in ((image, row[1], f"${SYMBOLS[name]}$"), (difference, row[2], "")):
        bar = figure.colorbar(mesh, ax=axis, pad=0.02, aspect=18, extend="both")
        bar.outline.set_linewidth(0.6)
        bar.ax.set_title(symbol, fontsize=SMALL + 0.5, pad=3)
        bar.ax.tick_params(labelsize=SMALL)
        if mesh is image:
            ticks = (norm.vmin, norm.vmin / 2, 0.0, norm.vmax / 2, norm.vmax)
            bar.set_ticks(ticks, labels=[f"{t:.2g}".replace("-", "−") for t in ticks])
        else:
            bar.locator = MaxNLocator(4)
            bar.update_ticks()


def _three_cells(dataset):
    """Cells deep in order, next to the critical line, and deep in chaos: the middle alpha, three weight scales."""
    alpha = float(dataset["alpha"][dataset.sizes["alpha"] // 2])
    along = dataset["angle_exponent_theory"].sel(alpha=alpha).values
    found = {int(np.argmin(along)), int(np.argmin(np.abs(along))), int(np.argmax(along))}
    return [(alpha, float(dataset["sigma_w"][k])) for k in sorted(found)]


def _angles(axis, dataset):
    _along_depth(axis, dataset, lambda cell, kind: 1 - cell["p" + kind] / cell["q" + kind])
    axis.set_ylabel(r"$1-\rho_l$")
    axis.legend(
        loc="lower left", fontsize=SMALL, handlelength=0.8, borderaxespad=0.1, labelspacing=0.25,
        title=rf"$\alpha={number(_three_cells(dataset)[0][0])}$", title_fontsize=SMALL,
    )  # fmt: skip


def _lengths(axis, dataset):
    _along_depth(axis, dataset, lambda cell, kind: cell["q" + kind])
    axis.set_ylabel(r"squared length $q_l$")
    theory_and_simulation(axis, loc="upper right", fontsize=SMALL, borderaxespad=0.1)


def _along_depth(axis, dataset, quantity):
    depth = dataset["depth"].values
    highest, drawn = [], []
    for (alpha, sigma_w), colour in zip(_three_cells(dataset), COLOURS, strict=False):
        cell = dataset.sel(alpha=alpha, sigma_w=sigma_w)
        averaged = mean(quantity(cell, ""))
        theory = quantity(cell, "_theory")
        axis.plot(depth, theory, color=colour)
        highest.append(float(np.nanmax([averaged.max(), theory.max()])))
        drawn.append((averaged, bars(quantity(cell, "")), colour, rf"$\sigma_w={number(sigma_w)}$"))
    axis.set_ylim(0, 1.25 * max(highest))
    for averaged, half, colour, label in drawn:
        points(axis, depth, averaged, half, colour, label)
    axis.set_xlabel("block $l$")
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def _ladders(axis, dataset):
    """|simulation - theory| against the width, one line an exponent, each with the predicted slope."""
    ladders = {
        j["output"]: j["numbers"] for j in verdict_of(dataset) if j["kind"] == "order" and j["output"] in SYMBOLS
    }
    if not ladders:
        axis.text(0.5, 0.5, "no ladder in this run", ha="center", va="center", color=GREY, transform=axis.transAxes)
        axis.set(xticks=[], yticks=[])
        axis.plot([], [])
        return
    axis.set_xscale("log")
    axis.set_yscale("log")
    ticks = []
    for (name, numbers), colour in zip(ladders.items(), COLOURS, strict=False):
        x, y, error = (np.array(numbers[k], float) for k in ("d", "discrepancy", "standard error"))
        seen = y > 0
        axis.errorbar(
            x[seen], y[seen], yerr=[np.minimum(2 * error, 0.99 * y)[seen], 2 * error[seen]], fmt="o", color=colour,
            label=f"${SYMBOLS[name]}$: {numbers.get('fitted order', np.nan):.2f}".replace("-", "−"),
        )  # fmt: skip
        weights = (y[seen] / error[seen]) ** 2
        middle = np.average(np.log(y[seen]) + np.log(x[seen]), weights=weights)
        axis.plot(x, np.exp(middle) / x, color=colour, linewidth=0.8)
        ticks = x
    axis.set_xticks(ticks, [number(v) for v in ticks])
    axis.minorticks_off()
    axis.set_xlabel("width $d$")
    axis.set_ylabel("|simulation − theory|")
    axis.legend(
        fontsize=SMALL, loc="upper right", borderaxespad=0.1, handlelength=0.8, labelspacing=0.25,
        title="lines: slope −1; fitted:", title_fontsize=SMALL,
    )  # fmt: skip
    low, high = axis.get_ylim()
    axis.set_ylim(low, high * (high / low) ** 0.45)


def _slices(dataset, words):
    """One of the two axes has a single value: the exponents along the other."""
    along = "alpha" if dataset.sizes["alpha"] > 1 else "sigma_w"
    other = "sigma_w" if along == "alpha" else "alpha"
    figure, axes = panels(1, 3, 2.2)
    x = dataset[along].values
    dense = np.linspace(x.min(), x.max(), POINTS) if len(x) > 1 else x
    fixed = float(dataset[other][0])
    pair = (dense, np.full_like(dense, fixed)) if along == "alpha" else (np.full_like(dense, fixed), dense)
    theory = exponents(_config(dataset, *pair))
    for axis, name in zip(axes[0], SYMBOLS, strict=True):
        draws = dataset[name].isel({other: 0})
        values = np.concatenate([np.ravel(theory[name]), mean(draws).values])
        margin = 0.1 * (np.nanmax(values) - np.nanmin(values)) + 0.02
        axis.set_ylim(np.nanmin(values) - margin, np.nanmax(values) + margin)
        axis.axhline(0, color=GREY, linewidth=0.5)
        axis.plot(dense, theory[name], color=BLUE)
        points(axis, x, mean(draws), bars(draws), BLUE)
        axis.set_xlabel(label_of(dataset[along], 30))
        axis.set_ylabel(f"${SYMBOLS[name]}$, {NAMES[name]}")
    letter(axes.flat)
    footer(figure, dataset, "; ".join(part for part in (f"{label_of(dataset[other])} = {fixed:g}", words) if part))
    return figure
