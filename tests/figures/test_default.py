"""The default figure: every output of an experiment that brings no figure of its own."""

import numpy as np
import pytest
import xarray as xr
from matplotlib.collections import QuadMesh
from matplotlib.text import Text

from figures.default import overview
from figures.gallery import DEFAULT, draw, figures_of
from figures.statistics import bars, mean, z_values
from figures.style import label_of, number
from tests.figures import datasets as data


def training_run(steps=60, rates=(1e-3, 1e-2, 0.1, 1.0), replicates=8):
    """An output over time and one without, on a logarithmic axis, with units."""
    time, rates, random = np.geomspace(0.01, 100, steps), np.array(rates), np.random.default_rng(0)
    theory = np.exp(-rates[:, None] * time) + 0.1
    loss = theory[:, None] + 0.02 * random.normal(size=(len(rates), replicates, steps))
    speed = rates[:, None] * (1 + 0.1 * random.normal(size=(len(rates), replicates)))
    variables = {
        "loss": (("rate", "replicate", "time"), loss, {"label": r"loss $\ell$", "units": "1"}),
        "loss_theory": (("rate", "time"), theory),
        "speed": (("rate", "replicate"), speed, {"label": "speed", "units": "1/s"}),
        "speed_theory": (("rate", "replicate"), np.broadcast_to(rates[:, None], speed.shape)),
        "status": (("rate", "replicate"), np.zeros(speed.shape, np.int8)),
    }
    coordinates = {
        "rate": ("rate", rates, {"label": r"rate $r$", "units": "1", "scale": "log"}),
        "time": time,
        "replicate": np.arange(replicates),
    }
    dataset = xr.Dataset(variables, coordinates)
    dataset.attrs = data.attributes("training", {"width": 7})
    return dataset


def test_an_output_over_time_is_drawn_along_time():
    dataset = training_run()
    loss, _speed = overview(dataset).axes
    assert (loss.get_xlabel(), loss.get_xscale()) == ("time", "log")
    assert loss.get_ylabel() == r"loss $\ell$"
    lines = [line for line in loss.lines if len(line.get_xdata()) == dataset.sizes["time"]]
    for line, k in zip(lines, (0, 2, 3), strict=True):
        np.testing.assert_allclose(line.get_ydata(), dataset["loss_theory"][k])
    for container, k in zip(loss.containers, (0, 2, 3), strict=True):
        x, y = container[0].get_data()
        np.testing.assert_allclose(y, dataset["loss"][k].mean("replicate").sel(time=x))
    assert [t.get_text() for t in loss.get_legend().get_texts()] == ["$r$ = 0.001", "0.1", "1"]


def test_units_log_axes_and_a_theory_of_each_draw():
    dataset = training_run()
    axis = overview(dataset).axes[1]
    assert axis.get_ylabel() == "speed (1/s)"
    assert axis.get_xlabel() == "rate $r$"
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")
    (container,) = axis.containers
    np.testing.assert_allclose(container[0].get_ydata(), dataset["speed"].mean("replicate"))
    half = [np.ptp(s[:, 1]) / 2 for s in container[2][0].get_segments()]
    np.testing.assert_allclose(half, bars(dataset["speed"]))
    np.testing.assert_allclose(axis.lines[0].get_ydata(), dataset["rate"])


def test_two_axes_give_maps_with_residuals_and_slices(dataset):
    figure = overview(dataset)
    panels = [a for a in figure.axes if a.get_label() != "<colorbar>"]
    name = "scratch_risk"
    chosen = dataset.isel(sigma=1)
    simulated, residual, slices = panels[:3]
    (mesh,) = (c for c in simulated.collections if isinstance(c, QuadMesh))
    np.testing.assert_array_equal(np.asarray(mesh.get_array()).ravel(), mean(chosen[name]).values.ravel())
    (mesh,) = (c for c in residual.collections if isinstance(c, QuadMesh))
    z = z_values(chosen[name], chosen[f"{name}_theory"], 1e-4)
    np.testing.assert_array_equal(np.asarray(mesh.get_array()).ravel(), z.values.ravel())
    assert len(slices.containers) == 3
    assert any(c.get_hatch() for c in simulated.collections)
    assert any(c.get_hatch() for c in residual.collections)


@pytest.mark.parametrize("make", [training_run, data.transfer_dataset])
def test_text_is_six_points_or_more_and_inside_the_page(make):
    figure = overview(make())
    figure.draw_without_rendering()
    for text in figure.findobj(Text):
        assert not text.get_visible() or not text.get_text().strip() or text.get_fontsize() >= 6
    box, page = figure.get_tightbbox(), figure.get_size_inches()
    assert min(box.x0, box.y0) >= -0.02
    assert box.x1 <= page[0] + 0.02
    assert box.y1 <= page[1] + 0.02


@pytest.mark.parametrize(
    "dataset",
    [
        training_run(steps=1, rates=(0.1,), replicates=1),
        training_run(steps=1),
        training_run(rates=(0.5, 1.0)),
        data.transfer_dataset(gamma=(0.5,), theta=(0.3,), sigma=(0.2,), replicates=1),
        data.transfer_dataset(source_norms=(1.0, 2.0)),
        data.transfer_dataset(failed=[((0, 0, 1), r) for r in range(6)]),
    ],
    ids=["a point", "one time", "two rates", "a cell", "four axes", "a cell without values"],
)
def test_odd_datasets_are_drawn(dataset):
    figure = overview(dataset)
    figure.draw_without_rendering()
    assert all(axis.has_data() for axis in figure.axes)


def test_labels_wrap_outside_their_formulas():
    array = xr.DataArray(0.0, name="drift", attrs={"label": r"the drift of $W_1 W_1^\top - w_2 w_2^\top$ by descent"})
    assert label_of(array, 16).split("\n") == ["the drift of", r"$W_1 W_1^\top - w_2 w_2^\top$", "by descent"]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.0, "0"),
        (-0.25, "−0.25"),
        (0.0025, "0.0025"),
        (2e-5, r"$2\times 10^{-5}$"),
        (1e-6, "$10^{-6}$"),
        (12345.0, "12345"),
    ],
)
def test_numbers_are_short(value, words):
    assert number(value) == words


def test_residuals_that_are_nothing_are_left_grey():
    theory = xr.DataArray(np.array([1.0, 2.0, 3.0]), dims="x")
    noise = xr.DataArray(np.array([[0.0, 0.0], [1e-7, 2e-7], [0.1, 0.3]]), dims=("x", "replicate"))
    z = z_values(theory + noise, theory, 1e-4)
    np.testing.assert_array_equal(np.isnan(z), [True, True, False])
    np.testing.assert_allclose(z[2], 2.0)


def test_an_experiment_without_figures_gets_the_default_ones(tmp_path):
    assert figures_of("transfer", "no such experiment") is DEFAULT
    assert figures_of("no_such_topic", "training") is DEFAULT
    dataset = training_run()
    assert draw("no_such_topic", dataset, tmp_path) == ["figure.pdf", "figure.png"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["figure.pdf", "figure.png"]
    dataset.attrs["verdict"] = data.attributes("training", {}, data.VERDICT)["verdict"]
    assert "convergence.pdf" in draw("no_such_topic", dataset, tmp_path)
