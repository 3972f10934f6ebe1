"""Null vectors of features, their whole and sparse form, and views of tensors by parts of their axes."""

import numpy as np
import pytest

from sims.noether.features import INNER, REST, Measured, View, measure, numbered
from sims.noether.promotion import planes_and_inner
from sims.noether.wiring import (
    Tolerance,
    aligned,
    coarser,
    columns,
    implied_vectors,
    independent,
    null_vectors,
    ordered,
    reduced,
    sparsest,
    whole,
)
from theory.noether import Part

TOLERANCE = Tolerance(1e-11, 1e-3, 1e-4)


def features(values):
    """Columns as measured features of as many tensors."""
    chance = [1.0 if np.abs(v).max() < 1e-2 else 10.0 for v in values]
    shaped = (np.reshape(v, (-1, 1, 1)) for v in values)
    return [
        Measured(View(f"t{k}", ((1, REST),)), v, float(np.linalg.norm(v)), c)
        for k, (v, c) in enumerate(zip(shaped, chance, strict=True))
    ]


def nulls(values, implied=()):
    shapes = {f"t{k}": (2, 2) for k in range(len(values))}
    return null_vectors(features(values), list(implied), TOLERANCE, shapes)


def columns_with(*relations, count, rows=60, noise=0.0):
    """Random columns with the given relations, dicts of coefficients; the last tensor of each is solved for."""
    rng = np.random.default_rng(0)
    values = list(rng.standard_normal((count, rows)))
    for relation in relations:
        *others, last = relation
        values[last] = -sum(relation[c] * values[c] for c in others) / relation[last]
        values[last] = values[last] + noise * rng.standard_normal(rows)
    return values


def test_relations_come_back_as_whole_numbers():
    relations = ({0: 1.0, 1: 1.0, 2: -2.0}, {3: 2.0, 4: -3.0})
    values = columns_with(*relations, count=6)
    found = nulls(values)
    assert [vector for vector, _, _ in found] == list(relations)
    assert all(residual < 1e-14 for _, residual, _ in found)
    assert all(0.1 < following < 2 for _, _, following in found)


def test_relations_that_overlap_come_back_sparse():
    relations = ({0: 1.0, 1: 1.0, 2: -1.0}, {2: 1.0, 3: 1.0, 4: -1.0})
    assert [vector for vector, _, _ in nulls(columns_with(*relations, count=5))] == list(relations)


def test_implied_relations_are_left_out():
    relations = ({0: 1.0, 1: -1.0}, {2: 1.0, 3: 1.0, 4: -1.0})
    values = columns_with(*relations, count=5)
    assert [vector for vector, _, _ in nulls(values, [relations[0]])] == [relations[1]]
    assert nulls(values, relations) == []


def test_exact_relations_are_not_mixed_with_approximate_ones():
    exact, near = {0: 1.0, 1: 1.0, 2: -1.0}, {2: 1.0, 3: 1.0, 4: -1.0}
    values = columns_with(exact, count=5)
    values[4] = columns_with(near, count=5, noise=1e-5)[4] - columns_with(near, count=5)[4] + values[2] + values[3]
    (first, small, _), (second, larger, _) = nulls(values)
    assert (first, second) == (exact, near)
    assert small < 1e-14
    assert 1e-6 < larger < 1e-4


def test_a_column_that_is_nearly_zero_stands_alone_and_spoils_no_other():
    values = columns_with({0: 1.0, 1: -1.0}, count=4)
    values[2] = 1e-6 * values[2]
    vectors = [vector for vector, _, _ in nulls(values)]
    assert vectors == [{2: 1.0}, {0: 1.0, 1: -1.0}]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([0.5, 0.5, -1], [1, 1, -2]),
        ([-0.2, 0.2, 0.2], [-1, 1, 1]),
        ([-1, 1], [1, -1]),
        ([1, -1.5], [2, -3]),
        ([1, 1e-9, -1.3], [1, 0, -1.3]),
        ([3, -3, 6], [1, -1, 2]),
    ],
)
def test_whole_numbers_where_there_are_some(row, expected):
    np.testing.assert_allclose(whole(np.array(row, float), 1e-4), expected)


def test_row_echelon_form_spans_the_same():
    rng = np.random.default_rng(1)
    rows = np.array([[1.0, 1, -1, 0, 0], [0, 0, 1, 1, -2]])
    mixed = rng.standard_normal((2, 2)) @ rows
    echelon = reduced(mixed, 1e-6)
    assert np.linalg.matrix_rank(np.stack([*echelon, *rows])) == 2
    assert independent([*echelon, *rows], []) == echelon
    cost = lambda v: (np.count_nonzero(v), *np.flatnonzero(v))  # noqa: E731
    best = sparsest(echelon, [], cost, 1e-6)
    assert {tuple(np.abs(v)) for v in best} == {tuple(np.abs(r)) for r in rows}


# ---- views


def test_columns_are_all_sets_of_axes_but_whole_tensors_only_to_match():
    found = columns({"q": (6, 2, 3), "b": (2, 3), "s": ()}, 1)
    assert {length: [view.name for view in views] for length, views in found.items()} == {
        18: ["q"],
        12: ["q"],
        6: ["q", "q", "b"],
        3: ["q", "b"],
        2: ["q", "b"],
        1: ["q", "b", "s"],
    }


def test_units_cut_alike_and_summed_in_all_ways():
    kernel = numbered(View("kernel", ((12, 0), (5, REST))))
    heads = numbered(View("heads", ((5, REST), (3, 0), (4, 0))))
    cut = aligned([kernel, heads])
    assert cut[0].axes == ((3, 0), (4, 1), (5, REST))
    assert [views[0].units for views in coarser(cut)] == [(3, 4), (3,), (4,), ()]
    shapes = {"kernel": (12, 5), "heads": (5, 3, 4)}
    assert cut[0].part(1.0, shapes) == Part("kernel", (0,))
    assert coarser(cut)[1][0].part(1.0, shapes) == Part("kernel", (0,), 1.0, (3, 4, 5))
    whole_columns = columns(shapes, 1)[1]
    assert implied_vectors([(cut, (1.0, -1.0))], whole_columns) == [{0: 1.0, 1: -1.0}]


def test_units_that_cannot_be_cut_alike_stay():
    views = [numbered(View("a", ((4, 0), (6, 0)))), numbered(View("b", ((6, 0), (4, 0))))]
    assert aligned(views) == tuple(views)
    assert [v.units for v in coarser(views)[-1]] == [(), ()]


def test_units_follow_the_first_tensor():
    views = [View("a", ((3, 1), (4, 0))), View("b", ((4, 0), (3, 1)))]
    assert ordered(views) == (View("a", ((3, 0), (4, 1))), View("b", ((4, 1), (3, 0))))


def test_features_are_sums_of_products():
    rng = np.random.default_rng(2)
    x, g = rng.standard_normal((2, 4, 3, 2))
    view = View("x", ((4, 1), (3, 0), (2, REST)))
    pairs = [({"x": x}, {"x": g}, 1.0)]
    scale, shift = (measure(pairs, kind, [view], {"x": x.shape})[0] for kind in ("scale", "shift"))
    np.testing.assert_allclose(scale.values[0, :, 0], (x * g).sum(2).T.ravel(), rtol=1e-14)
    np.testing.assert_allclose(shift.values[0, :, 0], g.sum(2).T.ravel(), rtol=1e-14)
    assert scale.chance == pytest.approx(np.linalg.norm(x * g))
    spin = measure(pairs, "spin", [View("x", ((4, INNER), (3, 0), (2, REST)))], {"x": x.shape})[0]
    product = np.einsum("iur,jur->uij", x, g)
    i, j = np.triu_indices(4, 1)
    np.testing.assert_allclose(spin.values[0], (product - product.swapaxes(1, 2))[:, i, j], rtol=1e-12, atol=1e-14)


def test_planes_are_cut_from_an_axis_in_all_ways():
    found = planes_and_inner({"w": (5, 8)}, 1)
    axes = {view.axes for view in found[2, 4]}
    assert {((5, REST), (4, 0), (2, INNER)), ((5, REST), (2, INNER), (4, 0))} <= axes
    assert ((5, REST), (2, 0), (2, INNER), (2, 1)) in axes
    assert [view.axes for view in found[8, 1]] == [((5, REST), (8, INNER))]
