"""The statistics of the verdict: false alarms at the nominal level, power, orders, and what data cannot tell."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from scipy import stats

from sims.engine import agreement
from sims.engine.agreement import assess
from sims.engine.experiment import Bound, Experiment, Mean, Order, Output, Parameter, Pathwise, Phase, Rank, Setting
from sims.engine.judgement import AGREES, DISAGREES, OUTSIDE, UNDECIDED

X = np.linspace(0, 1, 120)


def truth(cells, settings, sizes):
    return {"y": 1 + cells["x"]}


def twin(cells, settings, sizes):
    return 1.5 + 2.5 * cells["x"]


def experiment(*claims, predict=truth):
    return Experiment(
        name="fake",
        title="Fake",
        sources=(),
        axes={"x": Parameter(X, "x")},
        settings={"h": Setting(1.0, "step")},
        simulate=None,
        predict=predict,
        outputs={"y": Output("y")},
        claims=claims,
        presets={"smoke": {}},
    )


MEAN = experiment(Mean("y", "y is 1 + x", twins={"twin": twin}))


def dataset(draws, theory=None, x=X, **extra):
    theory = 1 + x if theory is None else theory
    variables = {"y": (("x", "replicate"), draws.T), "y_theory": (("x",), theory)}
    variables |= {name: (("x", "replicate"), values.T) for name, values in extra.items()}
    attrs = {"settings": json.dumps({"h": 1.0}), "precision": 64}
    return xr.Dataset(variables, {"x": x, "replicate": np.arange(len(draws))}, attrs)


def noise(rng, kind, replicates=20):
    n, scale = len(X), 0.2 + X
    wave = np.stack([np.ones(n), X, np.sin(3 * X) ** 2, np.cos(7 * X) ** 2])
    if kind == "independent":
        out = rng.standard_normal((replicates, n))
    elif kind == "correlated":
        out = rng.standard_normal((replicates, 4)) @ wave + 0.2 * rng.standard_normal((replicates, n))
    elif kind == "skewed":
        out = rng.exponential(size=(replicates, n)) - 1
    elif kind == "skewed and correlated":
        out = (rng.exponential(size=(replicates, 4)) - 1) @ wave + 0.3 * (rng.exponential(size=(replicates, n)) - 1)
    else:
        out = rng.standard_normal((replicates, 1)) ** 2 - 1 + 0.1 * rng.standard_normal((replicates, n))
    return out * scale


def false_alarms(kind, trials, seed):
    rng = np.random.default_rng(seed)
    verdicts = [assess(dataset(1 + X + noise(rng, kind)), MEAN) for _ in range(trials)]
    return sum(v.disagrees for v in verdicts)


KINDS = ["independent", "correlated", "skewed", "skewed and correlated", "one chi-square"]


@pytest.mark.thorough
@pytest.mark.parametrize("kind", KINDS)
def test_false_alarms_are_at_the_nominal_level(kind, monkeypatch):
    monkeypatch.setattr(agreement, "LEVEL", 0.01)
    # At ten times the level few trials suffice; a plain t test of chi-square draws would give 20 to 30 here.
    assert false_alarms(kind, 300, seed=1) <= stats.binom.ppf(1 - 1e-4, 300, 0.015)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_false_alarms_at_the_level_that_is_used(kind):
    assert false_alarms(kind, 4000, seed=2) <= stats.binom.ppf(1 - 1e-4, 4000, 1.5 * agreement.LEVEL)


@pytest.mark.parametrize("kind", ["independent", "correlated", "skewed"])
def test_a_factor_is_found_and_named_with_its_size(kind):
    rng = np.random.default_rng(3)
    found = []
    for _ in range(20):
        result = assess(dataset(1.3 * (1 + X) + noise(rng, kind, 40)), MEAN).judgements[0]
        low, high = result.intervals["relative error"]
        found.append(result.outcome == DISAGREES and low <= 0.3 <= high)
    assert np.mean(found) >= 0.9


def test_the_printed_power_is_true():
    rng = np.random.default_rng(4)
    power = np.median(
        [assess(dataset(1 + X + noise(rng, "correlated")), MEAN).judgements[0].detectable for _ in range(9)]
    )
    caught = [assess(dataset((1 + 2 * power) * (1 + X) + noise(rng, "correlated")), MEAN).disagrees for _ in range(30)]
    missed = [assess(dataset((1 + power / 10) * (1 + X) + noise(rng, "correlated")), MEAN).disagrees for _ in range(30)]
    assert np.mean(caught) > 0.9
    assert np.mean(missed) < 0.2


def test_errors_of_random_sign_are_found():
    rng = np.random.default_rng(5)
    hidden = 0.5 * rng.choice([-1.0, 1.0], len(X)) * (0.2 + X)
    result = assess(dataset(1 + X + hidden + noise(rng, "independent")), MEAN).judgements[0]
    assert result.outcome == DISAGREES
    assert "random sign" in result.reason


def test_twin_that_the_data_cannot_reject_leaves_it_undecided():
    rng = np.random.default_rng(6)
    loud = dataset(1 + X + 30 * noise(rng, "correlated"))
    result = assess(loud, MEAN).judgements[0]
    assert result.outcome == UNDECIDED
    assert result.twins == {"twin": False}
    assert assess(dataset(1 + X + noise(rng, "independent")), MEAN).judgements[0].outcome == AGREES


def test_a_claim_without_a_twin_is_undecided():
    rng = np.random.default_rng(7)
    bare = experiment(Mean("y", "y is 1 + x"))
    assert assess(dataset(1 + X + noise(rng, "independent")), bare).judgements[0].outcome == UNDECIDED


def test_twin_data_are_recognised_as_the_twin():
    rng = np.random.default_rng(8)
    result = assess(dataset(1.5 + 2.5 * X + noise(rng, "independent")), MEAN).judgements[0]
    low, high = result.intervals["twin: twin"]
    assert result.outcome == DISAGREES
    assert low <= 1 <= high


def test_exact_cells_are_judged_by_the_floor():
    floored = experiment(Mean("y", "y is 1 + x", twins={"twin": twin}, floor=1e-6))
    exact = np.tile(1 + X, (20, 1))
    rng = np.random.default_rng(9)
    rounding = 1e-9 * rng.standard_normal(exact.shape) + 1e-8
    assert assess(dataset(exact + rounding), floored).judgements[0].outcome == AGREES
    assert assess(dataset(exact + rounding + 1e-4), floored).judgements[0].outcome == DISAGREES


def test_outside_validity_and_few_replicates():
    nowhere = experiment(Mean("y", "y", twins={"twin": twin}, where=lambda cells, settings: cells["x"] > 2))
    draws = 1 + X + noise(np.random.default_rng(10), "independent")
    assert assess(dataset(draws), nowhere).judgements[0].outcome == OUTSIDE
    assert assess(dataset(draws[:2]), MEAN).judgements[0].outcome == UNDECIDED


def test_failed_cells_are_counted_and_infinite_theory_is_left_out():
    draws = 1 + X + noise(np.random.default_rng(11), "independent")
    draws[3, 5] = np.nan
    theory = 1 + X
    theory[7] = np.inf
    result = assess(dataset(draws, theory), MEAN).judgements[0]
    assert (result.failed, result.cells) == (1, len(X) - 2)


def test_pathwise():
    claim = Pathwise("y", "every draw", tolerance=1e-3, twins={"twin": twin})
    exact = np.tile(1 + X, (5, 1))
    assert assess(dataset(exact * (1 + 5e-4)), experiment(claim)).judgements[0].outcome == AGREES
    one_off = exact.copy()
    one_off[2, 3] *= 1.01
    assert assess(dataset(one_off), experiment(claim)).judgements[0].outcome == DISAGREES
    near = dataclasses.replace(claim, twins={"near": lambda c, s, z: (1 + c["x"]) * (1 + 1e-4)})
    assert assess(dataset(exact), experiment(near)).judgements[0].outcome == UNDECIDED


def test_bound():
    claim = Bound("y", "never above", upper=3.0, twins={"other": "other"})
    exact = np.tile(1 + X, (5, 1))
    assert assess(dataset(exact, other=exact + 5), experiment(claim)).judgements[0].outcome == AGREES
    assert assess(dataset(exact, other=exact), experiment(claim)).judgements[0].outcome == UNDECIDED
    assert assess(dataset(exact + 5, other=exact), experiment(claim)).judgements[0].outcome == DISAGREES


def test_phase():
    def line(cells, settings, sizes):
        return {"y": cells["x"] - 0.5}

    def shifted(cells, settings, sizes):
        return cells["x"] - 0.2

    def close(cells, settings, sizes):
        return cells["x"] - 0.499

    phase = experiment(Phase("y", "sign", twins={"shifted": shifted}), predict=line)
    draws = X - 0.5 + 0.1 * noise(np.random.default_rng(12), "independent")
    assert assess(dataset(draws, X - 0.5), phase).judgements[0].outcome == AGREES
    assert assess(dataset(draws + 0.3, X - 0.5), phase).judgements[0].outcome == DISAGREES
    same = experiment(Phase("y", "sign", twins={"close": close}), predict=line)
    assert assess(dataset(draws, X - 0.5), same).judgements[0].outcome == UNDECIDED


def bent(cells, settings, sizes):
    """A score that orders only half of the cells as 1 + x does."""
    return abs(cells["x"] - 0.25)


def exponential(cells, settings, sizes):
    """A score with the order of 1 + x."""
    return jnp.exp(5 * cells["x"])


RANK = experiment(Rank("y", "y rises with x", twins={"bent": bent}))


def ranked(draws, claims=RANK):
    return assess(dataset(draws), claims).judgements[0]


def test_rank_needs_the_order_alone():
    rng = np.random.default_rng(15)
    result = ranked(np.exp(7 * X) - 20 + noise(rng, "correlated"))
    assert (result.outcome, result.twins) == (AGREES, {"bent": True})
    assert result.numbers["rank correlation"] > result.numbers["the twin's (bent)"] > 0
    assert ranked(noise(rng, "correlated") - 7 * X).outcome == DISAGREES


@pytest.mark.parametrize("ties", [False, True])
def test_rank_correlation_is_that_of_scipy(ties):
    draws, score = np.random.default_rng(16).standard_normal((2, 5, 30))
    draws = np.round(draws) if ties else draws
    expected = [stats.spearmanr(a, b).statistic for a, b in zip(draws, score, strict=True)]
    np.testing.assert_allclose(agreement.rank_correlation(draws, score), expected, rtol=1e-12)
    assert (agreement.rank_correlation(np.ones((5, 30)), score) == 0).all()


@pytest.mark.parametrize("kind", ["independent", "correlated"])
def test_noise_has_no_order(kind, monkeypatch):
    monkeypatch.setattr(agreement, "LEVEL", 0.02)
    rng = np.random.default_rng(17)
    outcomes = [ranked(1 + noise(rng, kind)).outcome for _ in range(100)]
    # One interval of two: a false alarm on either side in one case of a hundred.
    assert 100 - outcomes.count(UNDECIDED) <= stats.binom.ppf(1 - 1e-4, 100, 0.015)


def test_the_printed_power_of_a_rank_is_true():
    rng = np.random.default_rng(18)
    judgements = [ranked(0.02 * k * X + rng.standard_normal((20, len(X)))) for k in range(40)]
    found = [j.intervals["rank correlation"][0] > 0 for j in judgements]
    size = np.array([j.numbers["rank correlation"] / j.detectable for j in judgements])
    assert min((size > 1.5).sum(), (size < 0.5).sum()) > 3
    assert np.array(found)[size > 1.5].all()
    assert not np.array(found)[size < 0.5].any()


def test_a_rank_can_be_held_to_more_than_zero():
    rng = np.random.default_rng(18)
    high = experiment(Rank("y", "y rises with x", twins={"bent": bent}, least=0.5))
    assert ranked(X + 2 * rng.standard_normal((20, len(X))), high).outcome == DISAGREES
    assert ranked(X + 0.3 * rng.standard_normal((20, len(X))), high).outcome == AGREES


def test_a_rank_is_undecided_against_a_score_of_the_same_order_and_with_few_replicates():
    rng = np.random.default_rng(19)
    same = experiment(Rank("y", "y rises with x", twins={"exponential": exponential}))
    draws = X + noise(rng, "independent")
    result = ranked(draws, same)
    assert (result.outcome, result.twins) == (UNDECIDED, {"exponential": False})
    assert "exponential" in result.reason
    assert ranked(draws[:3]).outcome == UNDECIDED
    assert "fewer" in ranked(draws[:3]).reason
    exact = ranked(np.tile(X, (20, 1)))
    assert (exact.outcome, exact.detectable) == (AGREES, 0.0)


H = (0.4, 0.2, 0.1, 0.05)


def rungs(error, spread, replicates=40, seed=13):
    rng = np.random.default_rng(seed)
    x = X[:10]
    shape = (replicates, len(x))
    return [dataset(1 + x + error(h) + spread * rng.standard_normal(shape), x=x) for h in H]


def order_of(error, spread=0.0, order=2, **twins):
    claim = Order("y", "vanishes", setting="h", values=H, order=order, replicates=40, twins=twins)
    ladder = rungs(error, spread)
    return assess(ladder[0], experiment(claim), {0: ladder}).judgements[0]


def test_a_deterministic_order_with_its_correction():
    result = order_of(lambda h: 0.3 * h**2 + 0.05 * h**4, twin=twin)
    assert result.outcome == AGREES
    assert result.twins == {"order 1": True, "order 3": True, "twin": True}
    assert abs(result.numbers["fitted order"] - 2) < 0.1


@pytest.mark.parametrize(
    ("other", "rejected"),
    [(lambda h: 0.2 * h, True), (lambda h: 0.03 * h**3, False), (lambda h: 0.2 * h**2, False), (lambda h: 0.1, True)],
)
def test_a_twin_is_rejected_for_its_limit_or_its_order(other, rejected):
    x = X[:10]
    draws = [np.tile(1 + x + 0.3 * h**2, (40, 1)) for h in H]
    ladder = [dataset(y, x=x, near=np.tile(1 + x - other(h), (40, 1))) for h, y in zip(H, draws, strict=True)]
    claim = Order("y", "vanishes", setting="h", values=H, order=2, replicates=40, twins={"near": "near"}, floor=1e-9)
    assert assess(ladder[0], experiment(claim), {0: ladder}).judgements[0].twins["near"] == rejected


@pytest.mark.parametrize("error", [lambda h: 0.3 * h, lambda h: 0.3 * h**3, lambda h: 0.3 * h**2 + 0.01])
def test_another_order_or_another_limit_disagrees(error):
    assert order_of(error).outcome == DISAGREES


def test_a_stochastic_order_agrees_or_is_undecided_but_never_wrong():
    outcomes = [order_of(lambda h: 0.3 * h**2, spread).outcome for spread in (1e-3, 3e-2, 3.0)]
    assert outcomes[0] == AGREES
    assert outcomes[2] == UNDECIDED
    assert DISAGREES not in outcomes


def test_a_stochastic_ladder_raises_no_false_alarm():
    claim = Order("y", "vanishes", setting="h", values=H, order=1, replicates=40)
    outcomes = []
    for seed in range(60):
        ladder = rungs(lambda h: 0.3 * h, 0.05, seed=seed)
        outcomes.append(assess(ladder[0], experiment(claim), {0: ladder}).judgements[0].outcome)
    assert outcomes.count(DISAGREES) <= 1
    assert outcomes.count(AGREES) >= 50


def test_verdict_prints_and_travels():
    verdict = assess(dataset(1 + X + noise(np.random.default_rng(14), "correlated")), MEAN)
    assert "AGREES" in verdict.table()
    assert "would have caught" in verdict.table()
    assert json.loads(verdict.to_json())["judgements"][0]["outcome"] == AGREES
    assert jnp.isfinite(verdict.judgements[0].effective_cells)
