"""The figures of the transfer phase diagram: what is on the axes is the dataset and the theory."""

import math
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.collections import PolyCollection, QuadMesh
from matplotlib.text import Text
from PIL import Image
from scipy import stats

from figures.gallery import draw
from figures.statistics import edges
from figures.style import angle, save
from figures.transfer import FIGURES
from figures.transfer.decision import predicted_choice, simulated_choice
from figures.transfer.diagram import diagram, telling_noise
from figures.transfer.distances import GAMMA_OF_PAIRS, measures_of, opposite_pair
from figures.transfer.residuals import sign_agreement, z_of
from figures.transfer.risks import scratch_draws
from tests.figures import datasets as data
from theory.transfer import (
    fine_tuning_transferability,
    linear_transfer_boundary,
    linear_transfer_risk_finite,
    linear_transferability,
    recommend,
    scratch_risk_finite,
)

DRAWERS = FIGURES["phase_diagram"]
SIGMA = 0.2
ODD = {
    "one angle, one noise level": {"theta": (0.7,), "sigma": (0.5,)},
    "one amount of data": {"gamma": (0.5,), "replicates": 2},
    "one cell, one draw": {"gamma": (0.5,), "theta": (2.0,), "sigma": (1.0,), "replicates": 1},
    "far beyond, three layers": {"gamma": (0.3, 1.2, 3.5), "theta": (0.2, 1.5, math.pi), "depth": 3},
    "two norms, more noise than signal": {"source_norms": (2.5, 0.5), "sigma": (1.5, 2.0)},
    "n < d, one cell all failed": {"gamma": (0.25, 0.5, 0.75), "failed": [((0, 0, 1), r) for r in range(6)]},
}


@pytest.fixture(scope="module")
def drawn(dataset):
    """Every figure of the dataset, drawn once."""
    return {stem: function(dataset) for stem, function in DRAWERS.items()}


def visible_texts(figure):
    figure.draw_without_rendering()
    return [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]


def means(dataset, name, **where):
    return dataset[name].sel(where).mean("replicate").values


def half_widths(dataset, name, **where):
    draws = dataset[name].sel(where)
    count = draws.notnull().sum("replicate")
    return (stats.t.ppf(0.975, count - 1) * draws.std("replicate", ddof=1) / count**0.5).values


def meshes(axis):
    return [c for c in axis.collections if isinstance(c, QuadMesh)]


def hatches(axis):
    return [c for c in axis.collections if isinstance(c, PolyCollection) and c.get_hatch()]


@pytest.mark.parametrize("stem", DRAWERS)
def test_every_figure_has_labels_fonts_of_six_points_and_no_empty_panel(drawn, stem):
    figure = drawn[stem]
    for text in visible_texts(figure):
        assert text.get_fontsize() >= 6, text.get_text()
    panels = [a for a in figure.axes if a.get_label() != "<colorbar>"]
    assert panels
    for axis in panels:
        assert axis.has_data()
    labels = [t.get_text() for t in visible_texts(figure)]
    assert any("depth = 2; 6 replicates; preset smoke" in re.sub(r"\s+", " ", text) for text in labels)
    assert [a.get_title(loc="left") for a in panels] == [f"({chr(97 + k)})" for k in range(len(panels))]


@pytest.mark.thorough
@pytest.mark.parametrize("stem", [s for s in DRAWERS if s != "convergence"])
@pytest.mark.parametrize("case", ODD)
def test_odd_datasets_give_a_figure_or_none(stem, case):
    figure = DRAWERS[stem](data.transfer_dataset(**ODD[case]))
    if figure is not None:
        figure.draw_without_rendering()
        assert all(a.has_data() for a in figure.axes)


def test_no_text_is_cut_off(drawn):
    for figure in drawn.values():
        visible_texts(figure)
        box, page = figure.get_tightbbox(), figure.get_size_inches()
        assert box.x0 >= -0.02
        assert box.y0 >= -0.02
        assert box.x1 <= page[0] + 0.02
        assert box.y1 <= page[1] + 0.02


@pytest.mark.parametrize(("row", "name"), [(0, "linear_transfer"), (1, "fine_tuning")])
def test_the_simulated_map_holds_the_means_in_cells_around_the_grid(drawn, dataset, row, name):
    figure = drawn["figure"]
    axis = figure.axes[3 * row]
    (mesh,) = meshes(axis)
    shown = np.asarray(mesh.get_array()).reshape(dataset.sizes["gamma"], dataset.sizes["theta"])
    np.testing.assert_array_equal(shown, means(dataset, f"{name}_transferability", sigma=SIGMA))
    corners = mesh.get_coordinates()
    for k, value in enumerate(dataset["theta"].values):
        assert corners[0, k, 0] < value < corners[0, k + 1, 0]
    for k, value in enumerate(dataset["gamma"].values):
        assert corners[k, 0, 1] < value < corners[k + 1, 0, 1]
    assert mesh.norm.vmin == -mesh.norm.vmax
    red, green, blue, _ = mesh.cmap(mesh.norm(0.0))
    assert min(red, green, blue) > 0.96


@pytest.mark.parametrize(("row", "predict"), [(0, linear_transferability), (1, fine_tuning_transferability)])
def test_the_theory_map_is_the_theory(drawn, row, predict):
    figure = drawn["figure"]
    axis = figure.axes[3 * row + 1]
    (image,) = axis.images
    left, right, bottom, top = image.get_extent()
    values = np.asarray(image.get_array())
    i, j = 37, 251
    gamma = bottom + (i + 0.5) / values.shape[0] * (top - bottom)
    theta = left + (j + 0.5) / values.shape[1] * (right - left)
    np.testing.assert_allclose(values[i, j], float(predict(gamma, theta, SIGMA)), rtol=1e-9)


@pytest.mark.parametrize(("row", "name"), [(0, "linear_transfer"), (1, "fine_tuning")])
def test_slices_show_means_bars_and_theory(drawn, dataset, row, name):
    figure = drawn["figure"]
    axis = figure.axes[3 * row + 2]
    lines = [
        line for line in axis.lines if len(line.get_xdata()) > dataset.sizes["gamma"] and line.get_linestyle() == "-"
    ]
    assert len(axis.containers) == len(lines) == 3
    angles = np.pi / 8 * np.array([1, 2, 3])
    for container, line, theta in zip(axis.containers, lines, angles, strict=True):
        where = {"sigma": SIGMA, "theta": theta}
        markers, _, (bar,) = container
        mean = means(dataset, f"{name}_transferability", **where)
        np.testing.assert_allclose(markers.get_ydata(), mean)
        np.testing.assert_allclose(markers.get_xdata(), dataset["gamma"])
        half = half_widths(dataset, f"{name}_transferability", **where)
        inside = np.abs(mean) < axis.get_ylim()[1]
        drawn = np.array([np.ptp(segment[:, 1]) / 2 for segment in bar.get_segments() if len(segment)])
        np.testing.assert_allclose(drawn[np.isfinite(drawn)], half[inside & np.isfinite(half)], atol=1e-12)
        expected = dataset[f"{name}_transferability_theory"].sel(where).values
        at = np.searchsorted(line.get_xdata(), dataset["gamma"].values)
        finite = np.isfinite(expected)
        np.testing.assert_allclose(line.get_ydata()[at][finite], expected[finite], rtol=1e-9, atol=1e-12)


def test_a_mean_beyond_the_panel_becomes_a_triangle(drawn):
    axis = drawn["figure"].axes[2]
    triangles = [line for line in axis.lines if line.get_marker() == "^"]
    assert len(triangles) == 3
    for line in triangles:
        np.testing.assert_array_equal(line.get_xdata(), [1.0])


def test_zero_lines_are_those_of_the_theory(drawn):
    axis = drawn["figure"].axes[1]
    curves = [line.get_xydata() for line in axis.lines if line.get_color() == "black"]
    theta = np.concatenate([c[:, 0] for c in curves])
    gamma = np.concatenate([c[:, 1] for c in curves])
    keep = np.isfinite(gamma)
    saved = np.asarray(linear_transferability(gamma[keep], theta[keep], SIGMA))
    size = np.asarray(linear_transferability(gamma[keep], 0.0, SIGMA))
    assert (np.abs(saved) < 1e-6 * (1 + size)).all()
    minus, plus, over = (float(v) for v in linear_transfer_boundary(1.2, SIGMA))
    for boundary in (minus, plus, over):
        assert np.hypot(theta[keep] - 1.2, gamma[keep] - boundary).min() < 0.02

    lower = drawn["figure"].axes[4]
    exact, printed = (line for line in lower.lines if len(line.get_xdata()) > 100)
    assert exact.get_linestyle() == "-"
    assert printed.get_linestyle() == "--"
    np.testing.assert_allclose(printed.get_xdata()[printed.get_ydata() < 1], math.pi / 3)
    x, y = exact.get_xydata()[100]
    assert abs(float(fine_tuning_transferability(y, x, SIGMA))) < 1e-9


def test_failed_cells_are_hatched(drawn, dataset):
    clean = data.transfer_dataset()
    for stem, panel in (("figure", 0), ("noise_levels", 1), ("residuals", 1), ("decision", 1)):
        failures, none = drawn[stem].axes[panel], DRAWERS[stem](clean).axes[panel]
        boxes = [path.get_extents() for c in hatches(failures) for path in c.get_paths()]
        before = [path.get_extents() for c in hatches(none) for path in c.get_paths()]
        assert len(boxes) == len(before) + 1
        gamma, theta = (float(dataset[name][k]) for name, k in (("gamma", 1), ("theta", 2)))
        assert any(b.contains(theta, gamma) for b in boxes)
        assert not any(b.contains(theta, gamma) for b in before)


def test_noise_levels_show_every_noise_level(drawn, dataset):
    figure = drawn["noise_levels"]
    for k, sigma in enumerate(dataset["sigma"].values):
        assert f"{sigma:g}" in figure.axes[k].get_title()
        for row, name in enumerate(("linear_transfer", "fine_tuning")):
            (mesh,) = meshes(figure.axes[3 * row + k])
            expected = means(dataset, f"{name}_transferability", sigma=sigma)
            np.testing.assert_array_equal(np.asarray(mesh.get_array()).reshape(expected.shape), expected)


def test_residuals_are_z_values_inside_the_claims_region(drawn, dataset):
    d = diagram(dataset)
    z = z_of(d, "linear_transfer_transferability")
    draws = dataset["linear_transfer_transferability"]
    theory = dataset["linear_transfer_transferability_theory"]
    error = draws.std("replicate", ddof=1) / draws.sizes["replicate"] ** 0.5
    expected = ((draws.mean("replicate") - theory) / error).values
    for i, gamma in enumerate(dataset["gamma"].values):
        if abs(gamma - 1) * 40 < 10 or gamma * 40 < 10:
            assert np.isnan(z.values[i]).all()
        else:
            ok = ~dataset["status"].values[i].any(-1)
            np.testing.assert_allclose(z.values[i][ok], expected[i][ok], rtol=1e-10)
    assert np.isnan(z_of(d, "fine_tuning_transferability").sel(gamma=[1.5, 2.0]).values).all()
    (mesh,) = meshes(drawn["residuals"].axes[4])
    np.testing.assert_array_equal(np.asarray(mesh.get_array()).ravel(), z.sel(sigma=0.0).values.ravel())
    share, count = sign_agreement(d, "linear_transfer_transferability")
    assert 0.9 < share <= 1
    assert count > 10


def test_a_theory_of_the_wrong_sign_is_seen_in_residuals_and_signs(dataset):
    wrong = dataset.copy()
    wrong["linear_transfer_transferability_theory"] = -dataset["linear_transfer_transferability_theory"]
    z = z_of(diagram(wrong), "linear_transfer_transferability").values
    assert np.nanmean(z**2) > 20 * np.nanmean(z_of(diagram(dataset), "linear_transfer_transferability").values ** 2)
    assert sign_agreement(diagram(wrong), "linear_transfer_transferability")[0] < 0.1


def test_double_descent_shows_exact_curves_and_the_simulated_ridge(drawn, dataset):
    scratch, probe, ridge = drawn["double_descent"].axes
    d = diagram(dataset)
    assert scratch.get_yscale() == "log"
    for container, sigma in zip(scratch.containers, dataset["sigma"].values, strict=True):
        draws = scratch_draws(d, sigma)
        x, y = container[0].get_data()
        np.testing.assert_allclose(y, draws.sel(gamma=x).mean("replicate"))
    solid = [line for line in scratch.lines if line.get_linestyle() == "-" and len(line.get_xdata()) > 20]
    x, y = solid[1].get_data()
    finite = np.isfinite(y)
    np.testing.assert_allclose(y[finite], np.asarray(scratch_risk_finite(np.round(x * 40), 40, SIGMA))[finite])
    assert len(probe.containers) == 3
    for container, sigma in zip(ridge.containers, dataset["sigma"].values, strict=True):
        x, y = container[0].get_data()
        assert x == [1e-3]
        np.testing.assert_allclose(y, means(dataset, "linear_transfer_risk", gamma=0.5, theta=np.pi / 8, sigma=sigma))
    curve = ridge.lines[1]
    exact = linear_transfer_risk_finite(20, np.pi / 8, SIGMA, np.asarray(curve.get_xdata()))
    np.testing.assert_allclose(curve.get_ydata(), np.asarray(exact), rtol=1e-9)


def test_convergence_draws_the_ladders_of_the_verdict(drawn):
    figure = drawn["convergence"]
    assert len(figure.axes) == 2
    for axis, claim, order in zip(figure.axes, data.VERDICT["judgements"], (2, -1), strict=False):
        assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")
        numbers = claim["numbers"]
        x, y = axis.containers[0][0].get_data()
        np.testing.assert_allclose(y, numbers["discrepancy"])
        np.testing.assert_allclose(x, next(iter(numbers.values())))
        for line in axis.lines[1:]:
            u, v = (np.log(np.asarray(part)) for part in line.get_data())
            np.testing.assert_allclose(np.diff(v) / np.diff(u), order)
        words = [t.get_text() for t in axis.get_legend().get_texts()]
        assert words[0].startswith("predicted order")
        assert words[1].startswith("fitted order")


def test_convergence_needs_a_ladder():
    assert DRAWERS["convergence"](data.transfer_dataset()) is None
    falling = data.order_claim("alpha", (0.1, 0.05, 0.02), 2)
    falling["numbers"]["discrepancy"] = [1e-3, -1e-9, 0.0]
    assert DRAWERS["convergence"](data.transfer_dataset(verdict={"judgements": [falling]})) is None


def test_distances_do_not_decide_but_the_angle_does(drawn, dataset):
    figure = drawn["distances"]
    d = diagram(dataset)
    offsets = [np.concatenate([c.get_offsets() for c in axis.collections]) for axis in figure.axes[:4]]
    ranks = [abs(stats.spearmanr(*o.T).statistic) for o in offsets]
    assert max(ranks[:3]) < 0.4
    assert ranks[3] > 0.9999
    for _, measure in measures_of(d, SIGMA).values():
        distance, norm = opposite_pair(d, measure)
        np.testing.assert_allclose(measure(0.0, norm), distance, rtol=1e-4)
    pair = linear_transferability(GAMMA_OF_PAIRS, np.array([1.2, 0.0]), SIGMA)
    assert pair[0] < 0 < pair[1]
    markers = figure.axes[4].containers[0][0]
    expected = means(dataset, "linear_transfer_transferability", theta=np.pi / 4, sigma=SIGMA)
    np.testing.assert_allclose(markers.get_ydata(), expected)


def test_decisions_are_the_least_mean_risk_and_those_of_recommend(dataset):
    d = diagram(dataset)
    choice, close = simulated_choice(d, SIGMA)
    scratch = means(dataset, "scratch_risk", sigma=SIGMA)
    saved = means(dataset, "fine_tuning_transferability", sigma=SIGMA)
    risks = np.stack([scratch, means(dataset, "linear_transfer_risk", sigma=SIGMA), scratch - saved])
    np.testing.assert_array_equal(choice, risks.argmin(0))
    assert (choice[dataset["gamma"].values > 1] != 2).all()
    n = np.round(dataset["gamma"].values * 40)[:, None]
    predicted = predicted_choice(d, dataset["gamma"].values[:, None], dataset["theta"].values[None], SIGMA)
    np.testing.assert_array_equal(predicted, recommend(n, 40, SIGMA, dataset["theta"].values[None]).choice)
    assert (choice == predicted)[~close].mean() > 0.9


def test_the_first_of_further_dimensions_is_drawn_and_named():
    several = data.transfer_dataset(source_norms=(2.0, 0.5))
    figure = DRAWERS["figure"](several)
    words = " ".join(t.get_text() for t in figure.texts).replace("\n", " ")
    assert "source norm 2, the first of 2" in words
    (mesh,) = meshes(figure.axes[0])
    expected = several["linear_transfer_transferability"].isel(source_norm=0).sel(sigma=SIGMA).mean("replicate")
    np.testing.assert_array_equal(np.asarray(mesh.get_array()).ravel(), expected.values.ravel())


@pytest.mark.parametrize(
    ("sigmas", "best"), [((0.0, 0.2, 1.0), 0.2), ((0.0,), 0.0), ((1.0, 2.0), 1.0), ((0.1, 0.3, 0.9), 0.3)]
)
def test_the_headline_takes_a_noise_level_where_both_regions_exist(sigmas, best):
    assert telling_noise(np.array(sigmas)) == best


@pytest.mark.parametrize("stem", ["figure", "distances"])
def test_files_carry_provenance_and_embedded_fonts(drawn, dataset, tmp_path, stem):
    assert save(drawn[stem], tmp_path / stem, dataset) == [f"{stem}.pdf", f"{stem}.png"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{stem}.pdf", f"{stem}.png"]
    with Image.open(tmp_path / f"{stem}.png") as image:
        assert image.info["Title"] == "A title"
        assert "seed: 3" in image.info["Description"]
        assert "commit: abc1234" in image.info["Description"]
    pdf = (tmp_path / f"{stem}.pdf").read_bytes()
    assert b"/FontType 42" in pdf or b"/CIDFontType2" in pdf
    assert b"/Type3" not in pdf
    assert b"/FontType 3" not in pdf
    assert b"commit: abc1234" in pdf


def test_the_gallery_writes_every_figure_that_has_something_to_show(drawn, dataset, tmp_path, monkeypatch):
    some = {"figure": lambda _: drawn["convergence"], "nothing": lambda _: None}
    monkeypatch.setitem(FIGURES, "phase_diagram", some)
    assert draw("transfer", dataset, tmp_path) == ["figure.pdf", "figure.png"]
    assert next(iter(DRAWERS)) == "figure"


def test_a_figure_that_cannot_be_written_leaves_nothing_behind(drawn, dataset, tmp_path, monkeypatch):
    figure = drawn["convergence"]

    def half(path, **_):
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(figure, "savefig", half)
    with pytest.raises(OSError, match="disk full"):
        save(figure, tmp_path / "figure", dataset)
    assert list(tmp_path.iterdir()) == []
    assert figure.number not in plt.get_fignums()


def test_edges_enclose_their_values_and_meet():
    values = np.array([0.1, 0.2, 0.5, 1.1])
    for logarithmic in (False, True):
        out = edges(values, logarithmic)
        assert ((out[:-1] < values) & (values < out[1:])).all()
    assert edges(np.array([0.0, 1.0]))[0] == 0


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.0, "$0$"), (math.pi / 8, r"$\pi/8$"), (3 * math.pi / 8, r"$3\pi/8$"), (math.pi, r"$\pi$"), (0.7, "0.70")],
)
def test_angles_are_named_as_fractions_of_pi(value, words):
    assert angle(value) == words
