"""The report on an encoder: known covariances, thresholds by varying what they speak of, trained layers, bad input."""

import json
import math

import numpy as np
import pytest

from sims.ssl_collapse.collapse_report import collapse_report
from theory.ssl_collapse import infonce_minimum, infonce_mode_strength, view_covariances

A, C = np.array([1.0, 0.6, 0.4, 0.1]), np.array([0.2, 0.1, 0.5, 0.3])
RANDOM = np.random.default_rng(0)


def views(n=4000, a=A, c=C):
    """Gaussian views whose sample covariances are exactly diag(a) and diag(c), and whose means are not zero."""
    z = RANDOM.normal(size=(n, 3 * len(a)))
    z = z - z.mean(0)
    z = z @ np.linalg.inv(np.linalg.cholesky(np.cov(z.T)).T)
    shared, first, second = np.split(z, 3, 1)
    return tuple(shared * a**0.5 + each * c**0.5 + 1 for each in (first, second))


PAIR = views()


@pytest.mark.thorough
def test_ranks_and_strengths_are_those_of_the_covariances():
    report = collapse_report(None, PAIR, alpha=2.0)
    q = 2 * C / (A + C)
    order = np.argsort(q)
    np.testing.assert_allclose([row.margin for row in report.modes], 1 - q[order], rtol=1e-8)
    np.testing.assert_allclose([row.strength for row in report.modes], infonce_mode_strength(q)[order], rtol=1e-8)
    np.testing.assert_allclose([row.rho for row in report.modes], (A / (A + C))[order], rtol=1e-8)
    np.testing.assert_allclose([row.variance for row in report.modes], (A + C)[order], rtol=1e-8)
    np.testing.assert_allclose([row.byol_decay for row in report.modes], (A**2 / (4 * (A + C)))[order], rtol=1e-8)
    assert (report.rank, report.unstable, report.phase, report.clipped) == (2, 2, "dimensional", 0)
    # Final strengths are ranked by the margin, learning by the pull itself.
    assert report.modes[1].half_time < report.modes[0].half_time < report.modes[2].half_time == math.inf
    assert collapse_report(None, PAIR, alpha=2.0, m=1).rank == 1


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("loss", "expected"),
    [("spectral", A / (A + C)), ("infonce_dot", 0.7 * A / (A + C)), ("barlow", (A + C) / A)],
)
def test_every_loss_has_its_own_strengths(loss, expected):
    report = collapse_report(None, PAIR, loss, temperature=0.7)
    np.testing.assert_allclose(sorted(row.strength for row in report.modes), np.sort(expected), rtol=1e-7)
    assert report.phase == "none"
    assert report.negatives is None


@pytest.mark.thorough
def test_thresholds_are_where_the_rank_changes():
    knobs = {k.name: k for k in collapse_report(None, PAIR, alpha=2.0, weight_decay=0.05).knobs}
    ranks = {}
    for name, now in (("alpha", 2.0), ("temperature", 1.0), ("weight_decay", 0.05)):
        how = {"alpha": 2.0, "weight_decay": 0.05}
        for side, value in (("dies", knobs[name].dies), ("appears", knobs[name].appears)):
            if value is not None:
                ranks[name, side] = [
                    collapse_report(None, PAIR, **(how | {name: value * factor})).rank for factor in (0.999, 1.001)
                ]
        assert knobs[name].value == now
        assert collapse_report(None, PAIR, **(how | {name: knobs[name].complete * 1.001})).phase == "complete"
    assert all(before == after + 1 for before, after in ranks.values())
    assert ranks["alpha", "dies"] == [2, 1]
    assert ranks["alpha", "appears"] == [3, 2]
    # Twice the noise is a factor of two on the augmentation.
    np.testing.assert_allclose(knobs["augmentation"].dies, (A[0] - 0.05) / C[0], rtol=1e-8)
    np.testing.assert_allclose(knobs["augmentation"].complete, (A[1] - 0.05) / C[1], rtol=1e-8)


@pytest.mark.thorough
def test_negatives_are_asked_for_and_unbounded_strengths_named():
    few = collapse_report(None, PAIR, alpha=1.0, weight_decay=0.02, n_negatives=15)
    assert few.dilution > 2
    assert few.negatives > 15
    assert "negatives" in str(few)
    bare = collapse_report(None, (PAIR[0], PAIR[0]))
    assert bare.modes[0].strength == math.inf
    assert "nothing bounds their strength" in str(bare)


@pytest.mark.thorough
def test_features_that_do_not_vary_or_depend_on_others_are_left_out():
    wider = [np.column_stack([x, np.ones(len(x)), x[:, 0] + x[:, 1]]) for x in PAIR]
    report = collapse_report(lambda x: x, wider, alpha=2.0)
    assert (report.features, report.spanned) == (6, 4)
    assert "2 do not vary" in str(report)
    pushed = collapse_report(None, wider, "spectral", W=np.eye(3, 6))
    assert pushed.trained.rank == 3


@pytest.mark.thorough
def test_a_trained_layer_is_at_rest_and_its_next_direction_is_found():
    A0, noise, _ = view_covariances(*PAIR)
    gram = np.asarray(infonce_minimum(A0, noise, 2, 1.0, 2.0).gram)
    values, vectors = np.linalg.eigh(gram)
    # With room for two more directions that the minimum does not want.
    best = np.concatenate([np.sqrt(values[2:])[:, None] * vectors[:, 2:].T, np.zeros((2, 4))])
    found = collapse_report(None, PAIR, alpha=2.0, W=best).trained
    assert found.rank == 2
    assert found.residual < 0.06
    assert [d.pull < 0 for d in found.new] == [True, True]
    assert found.new[1].verdict == "stays collapsed"
    # Less weight of alignment than the threshold of the third direction: it grows.
    eased = collapse_report(None, PAIR, alpha=1.4, W=best)
    assert eased.trained.new[0].verdict == "grows"
    assert "will be learned next" in str(eased)
    assert eased.trained.residual > found.residual
    # Gaussian features: the tilt does nothing to the direction, and its pull is that of the origin.
    np.testing.assert_allclose(eased.trained.new[0].pull, A[2] - 0.4 * C[2], atol=4 * eased.trained.new[0].error)


@pytest.mark.thorough
def test_it_is_ready_for_json_and_prints_a_table():
    report = collapse_report(None, PAIR, alpha=2.0, W=np.eye(4))
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["n_negatives"] is None
    assert len(plain["modes"]) == 4
    assert "next dies above" in str(report)
    assert "Every direction of the features is in use." in str(report)
    assert "All outputs are in use" in str(collapse_report(None, PAIR, W=np.eye(2, 4)))


@pytest.mark.thorough
def test_the_example_trains_reports_and_trains_on():
    from sims.ssl_collapse.report_example import ALPHA, compare

    runs = compare(steps=40)
    first, second = runs.values()
    assert next(iter(runs)) == ALPHA
    assert first.report.samples == 8 * 1797
    assert first.before == second.before <= 12


SQUARE = np.ones((10, 2))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: collapse_report(None, PAIR, "simclr"),
         "`loss` must be one of infonce_distance, infonce_dot, spectral, barlow, but got simclr."),
        (lambda: collapse_report(None, PAIR[0]), "`views` must be two batches of the same inputs."),
        (lambda: collapse_report(None, (PAIR[0], PAIR[1][:5])),
         "`views` must have one shape, but got (4000, 4) and (5, 4)."),
        (lambda: collapse_report(None, (PAIR[0][:4], PAIR[1][:4])),
         "`views` must have more samples than features, 4, but got 4."),
        (lambda: collapse_report(lambda x: x[:, 0], PAIR),
         "`features` must have the shape (4000, d), but got shape (4000,)."),
        (lambda: collapse_report(lambda x: x * np.nan, PAIR), "`features` must be finite, but got nan."),
        (lambda: collapse_report(None, (SQUARE, SQUARE)),
         "`features` must vary from sample to sample, but got constant ones."),
        (lambda: collapse_report(None, PAIR, W=np.eye(3)), "`W` must have the shape (m, 4), but got shape (3, 3)."),
        (lambda: collapse_report(None, PAIR, W=np.eye(4), m=3),
         "`m` must be the number of rows of `W`, 4, but got 3."),
        (lambda: collapse_report(None, PAIR, m=0), "`m` must be a whole number not below 1, but got 0."),
        (lambda: collapse_report(None, PAIR, temperature=0.0), "`temperature` must be positive, but got 0."),
        (lambda: collapse_report(None, PAIR, alpha=-1.0), "`alpha` must be zero or positive, but got -1."),
        (lambda: collapse_report(None, PAIR, n_negatives=0), "`n_negatives` must be 1 or more, but got 0."),
        (lambda: collapse_report(None, tuple(x[:15] for x in PAIR), W=np.eye(4)),
         "`views` must have at least 16 samples for a report on `W`, but got 15."),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_one_sentence(call, sentence):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        call()
    assert str(error.value) == sentence
