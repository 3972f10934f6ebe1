"""The figure of an experiment that brings none of its own: every output, simulated beside predicted."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from figures.statistics import bars, edges, failed, log_spaced, mean, of_draws, z_values
from figures.style import (
    GREY,
    MAGNITUDE,
    SIGNED,
    SMALL,
    angle,
    angle_ticks,
    footer,
    hatched,
    label_of,
    legend_above,
    letter,
    number,
    panels,
    points,
    style,
)

LEAST_FOR_A_MAP = 4
EQUAL = 1e-4
Z_LIMIT = 4.0
COLUMNS = 3
MOST_OUTPUTS = 8
FEW = 5


def overview(dataset: xr.Dataset) -> Figure:
    """Every output with its theory.

    Against two axes with several values each: the simulated map with the theory's contours, the map of z, and slices.
    Otherwise: means with 95 % bars over the theory's line, against time (or another inner dimension) or the first axis.
    Of further dimensions a few values are drawn, or one, which the panel names.
    """
    names = [name for name in dataset.data_vars if f"{name}_theory" in dataset][:MOST_OUTPUTS]
    maps = [name for name in names if _map_axes(dataset[name]) and np.any(dataset[f"{name}_theory"])]
    lines = [name for name in names if name not in maps]
    columns = COLUMNS if maps else 2 if len(lines) == 4 else max(min(len(lines), COLUMNS), 1)
    rows = max(len(maps) + -(-len(lines) // columns), 1)
    with style():
        column = "half" if columns == 1 else "full"
        figure, axes = panels(rows, columns, 2.05 * rows + 0.2, column)
        for row, name in zip(axes, maps, strict=False):
            _draw_maps(figure, row, dataset, name)
        free = list(axes[len(maps) :].flat)
        for axis, name in zip(free, lines, strict=False):
            _draw_lines(axis, dataset[name], dataset[f"{name}_theory"])
        for axis in free[len(lines) :]:
            axis.remove()
        shown = [axis for axis in axes.flat if axis.figure is not None]
        letter(shown)
        _drop_repeated_labels(axes)
        note = "line: theory, markers: simulation with 95 % bars"
        if maps:
            note += f"; s.e.: standard error; grey: no spread, or every draw within {EQUAL:g} of the theory"
        footer(figure, dataset, note)
    return figure


def _drop_repeated_labels(axes) -> None:
    """An x label is said once where the panel below says the same."""
    for above, below in zip(axes[:-1].flat, axes[1:].flat, strict=True):
        if below.figure is not None and above.get_xlabel() == below.get_xlabel():
            above.set_xlabel("")


def _axes_and_inner(draws: xr.DataArray) -> tuple[list[str], list[str]]:
    """The swept axes and the inner dimensions (those after the replicate) that have several values."""
    at = draws.dims.index("replicate")
    several = [dim for dim in draws.dims if draws.sizes[dim] > 1 and dim != "replicate"]
    return [d for d in several if d in draws.dims[:at]], [d for d in several if d in draws.dims[at:]]


def _map_axes(draws: xr.DataArray) -> tuple[str, str] | None:
    """(x, y) of a map, if there are two swept axes with enough values and no inner dimension."""
    axes, inner = _axes_and_inner(draws)
    wide = [dim for dim in axes if draws.sizes[dim] >= LEAST_FOR_A_MAP]
    return None if inner or len(wide) < 2 else (wide[1], wide[0])


def _rest(draws: xr.DataArray, used: tuple[str, ...]) -> tuple[dict[str, int], str]:
    """The middle of every dimension that is not used, and words for those that have a choice."""
    chosen = {d: draws.sizes[d] // 2 for d in draws.dims if d not in (*used, "replicate")}
    words = [f"{_short(draws[d])} = {_value(draws[d], i)}" for d, i in chosen.items() if draws.sizes[d] > 1]
    return chosen, ", ".join(words)


def _value(coordinate: xr.DataArray, index: int) -> str:
    value = float(coordinate[index])
    return angle(value) if coordinate.attrs.get("units") == "rad" else number(value)


def _short(coordinate: xr.DataArray) -> str:
    """The symbol at the end of a coordinate's label, or its name."""
    symbols = coordinate.attrs.get("label", "").split("$")
    return f"${symbols[-2]}$".replace("=n/d", "") if len(symbols) > 2 else str(coordinate.name).replace("_", " ")


def _is_log(coordinate: xr.DataArray) -> bool:
    values = coordinate.values
    if not np.issubdtype(values.dtype, np.number) or values.min() <= 0:
        return False
    return coordinate.attrs.get("scale") == "log" or ("scale" not in coordinate.attrs and log_spaced(values))


def _x_axis(axis, coordinate: xr.DataArray) -> None:
    axis.set_xlabel(label_of(coordinate, 36))
    if _is_log(coordinate):
        axis.set_xscale("log")
        _log_ticks(axis.xaxis, coordinate.values)
    elif coordinate.attrs.get("units") == "rad":
        angle_ticks(axis)
    else:
        whole = np.array_equal(coordinate.values, np.round(coordinate.values))
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=whole))


def _log_ticks(scale, values) -> None:
    """Ticks at the values themselves where they are few, at powers of ten where they are many."""
    if len(values) <= FEW:
        scale.set_ticks(values, [number(float(v)) for v in values])
        scale.set_ticks([], minor=True)
    else:
        scale.set_major_locator(LogLocator(numticks=5))
        scale.set_minor_formatter(NullFormatter())


def _draw_maps(figure, row, dataset, name):
    draws, theory = dataset[name], dataset[f"{name}_theory"]
    x_name, y_name = _map_axes(draws)
    chosen, words = _rest(draws, (x_name, y_name))
    here, predicted = (array.isel({d: i for d, i in chosen.items() if d in array.dims}) for array in (draws, theory))
    here = here.sortby([x_name, y_name])
    predicted = predicted.sortby([x_name, y_name])
    x, y = here[x_name].values, here[y_name].values
    x_edges, y_edges = (edges(v, _is_log(here[n])) for v, n in ((x, x_name), (y, y_name)))
    values = mean(here).transpose(y_name, x_name).values
    expected = of_draws(predicted).transpose(y_name, x_name).values
    z = z_values(here, predicted, EQUAL).transpose(y_name, x_name).values
    lost = dataset["status"].isel({d: i for d, i in chosen.items() if d in dataset["status"].dims})
    lost = failed(lost.sortby([x_name, y_name]).to_dataset(name="status")).transpose(y_name, x_name).values

    norm, cmap = _colours(expected, values)
    titles = ("simulation", "(sim. − theory) / s.e.")
    for axis, array, its_norm, its_cmap, title in (
        (row[0], values, norm, cmap, titles[0]),
        (row[1], z, Normalize(-Z_LIMIT, Z_LIMIT), SIGNED, titles[1]),
    ):
        axis.set_facecolor("0.85")
        image = axis.pcolormesh(x_edges, y_edges, array, norm=its_norm, cmap=its_cmap, rasterized=True)
        axis.set(xlim=(x_edges[0], x_edges[-1]), ylim=(y_edges[0], y_edges[-1]))
        hatched(axis, x_edges, y_edges, lost)
        bar = figure.colorbar(image, ax=axis, pad=0.02, aspect=22, extend="both" if axis is row[1] else "neither")
        bar.outline.set_linewidth(0.6)
        if axis is row[0]:
            bar.set_label(label_of(draws, 30), fontsize=SMALL + 0.5)
        if _is_log(here[y_name]):
            axis.set_yscale("log")
            _log_ticks(axis.yaxis, y)
        else:
            axis.yaxis.set_major_locator(MaxNLocator(5))
        axis.set_title(title, fontsize=SMALL + 0.5, loc="right")
        _x_axis(axis, here[x_name])
    _contours(row[0], x, y, expected, norm)
    row[0].set_ylabel(label_of(here[y_name], 30))
    row[1].tick_params(labelleft=False)
    _draw_lines(row[2], draws.isel(chosen), theory.isel({d: i for d, i in chosen.items() if d in theory.dims}), words)


def _colours(expected, values):
    """A diverging map about 0 for a signed quantity, a sequential one for a magnitude; log over two decades."""
    finite = expected[np.isfinite(expected)]
    finite = finite if len(finite) else values[np.isfinite(values)]
    if len(finite) == 0:
        return Normalize(0, 1), MAGNITUDE
    low, high = finite.min(), finite.max()
    if low < 0 < high:
        return Normalize(-max(-low, high), max(-low, high)), SIGNED
    if low > 0 and high > 100 * low:
        return LogNorm(low, high), MAGNITUDE
    return Normalize(low, high if high > low else low + 1), MAGNITUDE


def _contours(axis, x, y, expected, norm):
    inside = np.where(np.isfinite(expected), expected, np.nan)
    if not np.isfinite(inside).any() or np.nanmax(inside) <= np.nanmin(inside):
        return
    if norm.vmin < 0 < norm.vmax:
        levels = [0.0]
    elif isinstance(norm, LogNorm):
        levels = np.geomspace(norm.vmin, norm.vmax, 7)[1:-1]
    else:
        levels = np.linspace(norm.vmin, norm.vmax, 7)[1:-1]
    if np.nanmin(inside) < levels[0] or len(levels) > 1:
        color = "black" if len(levels) == 1 else "white"
        axis.contour(x, y, inside, levels, colors=color, linewidths=0.7)


def _draw_lines(axis, draws, theory, words: str = ""):
    """Mean with bars over theory along one dimension, one colour a value of another."""
    axes, inner = _axes_and_inner(draws)
    order = sorted(inner, key=lambda d: -draws.sizes[d]) + axes
    along = order[0] if order else draws.dims[0] if draws.dims[0] != "replicate" else None
    if along is None:
        draws, theory = (array.expand_dims("value") for array in (draws, theory))
        along = "value"
    varied = next((dim for dim in (axes if inner else axes[1:]) if dim != along), None)
    varied = varied or next((dim for dim in order[1:]), None)
    chosen, fixed = _rest(draws, tuple(d for d in (along, varied) if d))
    words = ", ".join(part for part in (words, fixed) if part)
    draws, theory = (array.isel({d: i for d, i in chosen.items() if d in array.dims}) for array in (draws, theory))
    curves = [None]
    if varied:
        curves = np.unique(np.linspace(0, draws.sizes[varied] - 1, 3).round().astype(int))
    x = draws[along].values if along in draws.coords else np.arange(draws.sizes[along])
    picked = [
        tuple(a if k is None or varied not in a.dims else a.isel({varied: k}) for a in (draws, theory)) for k in curves
    ]
    _y_limits(axis, [(mean(a).values, bars(a).values, of_draws(b).values) for a, b in picked])
    dense = len(x) > 40
    for k, (cells, expected) in enumerate(picked):
        label = None
        if varied:
            value = _value(draws[varied], curves[k])
            label = value if k else f"{_short(draws[varied])} = {value}"
        expected = np.asarray(of_draws(expected).values, float)
        expected = np.where(np.isfinite(expected), expected, np.nan)
        axis.plot(x, np.broadcast_to(expected, x.shape), color=f"C{k}")
        every = np.unique(np.linspace(0, len(x) - 1, 25).astype(int)) if dense else slice(None)
        points(axis, x[every], mean(cells).values[every], bars(cells).values[every], f"C{k}", label)
        if len(x) == 1:
            axis.plot(x, expected, "_", ms=14, color=f"C{k}")
    _x_axis(axis, draws[along] if along in draws.coords else xr.DataArray(x, dims=along, name=along))
    if len(x) == 1 and axis.get_xscale() == "linear":
        axis.set_xlim(x[0] - 1, x[0] + 1)
    axis.set_ylabel(label_of(draws, 34))
    if words:
        axis.text(0.98, 0.98, words, transform=axis.transAxes, ha="right", va="top", fontsize=SMALL, color=GREY)
    if varied:
        characters = sum(len(text) for text in axis.get_legend_handles_labels()[1])
        legend_above(axis, fontsize=SMALL if characters > 24 else None)


def _y_limits(axis, curves):
    """Limits that hold the theory and the means, logarithmic if they span more than one and a half decades."""
    finite = []
    for means, half, expected in curves:
        expected = np.broadcast_to(expected, means.shape)
        both = np.isfinite(expected) & np.isfinite(means)
        half = np.where(np.isfinite(half) & (half < np.abs(means)), half, 0.0)
        finite += [(means - half)[both], (means + half)[both], expected[np.isfinite(expected)]]
    finite = np.concatenate(finite)
    if len(finite) == 0:
        return
    low, high = finite.min(), finite.max()
    # A peak, where a theory diverges, is left to the edge of the panel.
    typical = np.quantile(np.abs(finite), 0.9)
    if low > 0 and high > 30 * low:
        axis.set_yscale("log")
        axis.set_ylim(low / 1.6, min(high, 1e4 * typical) * 2.2)
        return
    high = min(high, 8 * typical) if typical > 0 else high
    low = max(low, -8 * typical) if typical > 0 else low
    margin = 0.12 * (high - low) or 0.1 * abs(high) or 1.0
    axis.set_ylim(low - margin, high + 1.6 * margin)
    largest = max(abs(low), abs(high))
    if largest < 1e-2 or largest >= 1e5:
        axis.yaxis.set_major_locator(MaxNLocator(4))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    else:
        axis.ticklabel_format(axis="y", useOffset=False)
