"""The trained pair: its data, its cocycle against the auditor's, its second moments against enumeration, its floor."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sims.engine.experiment import configure
from sims.stochastic_collapse.collapse_audit import HeavyBall, Sampling, normal_growth
from sims.stochastic_collapse.invariance import duplicates
from sims.stochastic_collapse.pair import (
    MIDDLE,
    Growth,
    Net,
    at_rest,
    data,
    grown,
    hessians,
    log_distance,
    loss,
    outputs,
    trained,
)
from sims.stochastic_collapse.permutation import (
    MOMENTS,
    Noise,
    Sizes,
    State,
    cocycles,
    measured,
    moment_grown,
    permutation,
)
from theory.stochastic_collapse import heavy_ball_cocycle

KEY = jax.random.key(2)
ETA, BETA, SIGMA = 0.1, 0.9, 0.4
EQUAL = Net(*jnp.array(MIDDLE))


def test_inputs_come_in_pairs_of_mean_square_one():
    x, y = data(KEY, 8)
    np.testing.assert_array_equal(x[:4], -x[4:])
    np.testing.assert_allclose((x**2).mean(), 1, rtol=1e-14)
    np.testing.assert_array_equal(y, -x)


def test_equal_neurons_stay_equal_to_the_last_bit():
    x, y = data(KEY, 8)
    run = at_rest(EQUAL)
    step = jax.jit(lambda run, k: (trained(run, x, y + SIGMA * jax.random.normal(k, x.shape), ETA, BETA), None))
    run, _ = jax.lax.scan(step, run, jax.random.split(KEY, 500))
    assert run.net.w[0] == run.net.w[1] != EQUAL.w[0]
    assert run.net.a[0] == run.net.a[1] != EQUAL.a[0]
    np.testing.assert_allclose(log_distance(Net(jnp.array([2.0, 1.0]), jnp.array([0.0, 1.0]))), 0, atol=1e-15)


@pytest.mark.thorough
def test_the_cocycle_is_the_auditors():
    x, y = data(KEY, 8)
    steps, direction = 300, jnp.array([0.6, 0.8])

    def of_step(key, k):
        return SIGMA * jax.random.normal(jax.random.fold_in(key, k), x.shape)

    def product(run, growth, k):
        M = hessians(run.net, x, outputs(run.net, x) - y - of_step(KEY, k)).mean(0)
        growth = grown(growth, heavy_ball_cocycle(M, ETA, BETA))
        return trained(run, x, y + of_step(KEY, k), ETA, BETA), growth

    def step(carry, k):
        run, growth = product(*carry, k)
        return (run, growth), growth.log + jnp.log((growth.tangent[:2] ** 2).sum()) / 2

    start = at_rest(EQUAL), Growth(jnp.append(direction, jnp.zeros(2)), jnp.zeros(()))
    _, by_hand = jax.jit(lambda s: jax.lax.scan(step, s, jnp.arange(steps)))(start)

    class Draws(Sampling):
        """The whole data set with the labels of that step."""

        def draw(self, key, batch, k):
            return batch[0], batch[1] + of_step(key, k)

    params = EQUAL._asdict()
    pair = duplicates(params, {"w": 0, "a": 0}, 0, 1)
    audited, left = jax.jit(normal_growth, static_argnums=(0, 5, 7))(
        lambda p, batch: loss(Net(**p), *batch), params, pair, (x, y), HeavyBall(ETA, BETA), Draws(8), KEY, steps,
        direction,
    )  # fmt: skip
    assert left < 1e-15
    np.testing.assert_allclose(by_hand, audited, rtol=1e-9, atol=1e-11)


def test_second_moments_are_averages_over_the_noise():
    x, y = data(KEY, 4)
    rest = at_rest(EQUAL)
    rng = np.random.default_rng(0)
    S = rng.normal(size=(4, 4))
    S = jnp.asarray(S @ S.T / np.trace(S @ S.T))
    state = State(rest, rest, rest, rest, rest, {}, S, jnp.zeros(()))
    nothing = jnp.zeros_like(x)
    matrices = jax.jit(lambda noise: cocycles(state, x, y, Noise(noise, nothing), ETA, BETA))
    moments, log = jax.jit(moment_grown)(state, matrices(nothing)["of_loss"], x, ETA * SIGMA)
    total = 0
    for signs in itertools.product([-1.0, 1.0], repeat=4):
        step = matrices(SIGMA * jnp.array(signs))["theory"]
        total = total + step @ S @ step.T / 16
    np.testing.assert_allclose(moments * jnp.exp(2 * log), total, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(jnp.trace(moments), 1, rtol=1e-14)


def test_slopes_end_where_rounding_begins():
    time = jnp.arange(1.0, MOMENTS + 1)
    names = ("near", "quiet", "theory", "plain", "of_loss", "unlike_noise", "mean_square", "independent")
    lines = dict.fromkeys(names, -0.1 * time)
    sizes = Sizes(8, 100 * MOMENTS)
    delta = jnp.asarray(1e-3)
    seen = measured(lines | {"far": jnp.maximum(-1.1 * time, -33.0)}, delta, sizes)
    assert seen["status"] == 0
    np.testing.assert_allclose(seen["slope"], -0.011, rtol=1e-12)
    np.testing.assert_allclose(seen["slope_theory"], -0.001, rtol=1e-12)
    lost = np.isnan(seen["log_distance"])
    assert np.flatnonzero(lost)[0] == 23
    assert lost[23:].all()
    assert measured(lines | {"far": -4.0 * time}, delta, sizes)["status"] == 1


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        ({"eta": [0.0]}, "`eta` must be positive, but got 0."),
        ({"momentum": [1.0]}, "`momentum` must be from 0 to below 1, but got 1."),
        ({"sigma": [-1.0]}, "`sigma` must be non-negative, but got -1."),
        ({"samples": 7}, "`samples` must be even, for inputs come in pairs, but got 7."),
        ({"steps": 100}, "`steps` must be a whole number, 500 or more, but got 100."),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_sentence(wish, sentence):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        configure(permutation, "smoke", wish)
    assert str(error.value) == sentence
