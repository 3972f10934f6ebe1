"""The fast simulation against the plain one: raw data, raw loss, all layers, gradient descent by autograd."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sims.descent import gradient_descent, gradient_flow
from sims.engine.agreement import assess
from sims.engine.experiment import configure
from sims.engine.judgement import AGREES, DISAGREES
from sims.engine.run import run
from sims.transfer.deep_linear import features, initial_network, quadratic_loss, reduced_flow, rotated, weights
from sims.transfer.phase_diagram import phase_diagram
from sims.transfer.regression import draw, regression
from sims.transfer.training import linear_probe
from theory.transfer import fine_tuning_endpoint

D, N = 24, 15


@pytest.fixture(params=[N, 40], ids=["n<d", "n>d"])
def problem(request):
    """Raw data of one cell, and the same cell as the simulation sees it."""
    n, theta, sigma = request.param, 0.9, 0.3
    data = draw(jax.random.key(3), 48, D)
    target = jnp.cos(theta) * data.source + jnp.sin(theta) * data.normal
    X = data.inputs[:n]
    y = X @ target + sigma * data.noise[:n]
    task = regression(data, jnp.asarray(float(n)), jnp.array([theta]), jnp.array([sigma]), jnp.asarray(1.0))
    return X, y, data.source, task


def pretrained(task, depth, alpha=1e-3, width=5, time=40.0):
    network = initial_network(jax.random.key(7), D, width, depth, jnp.asarray(alpha))
    return gradient_flow(quadratic_loss(jnp.ones(D), task.source), rotated(network, task.basis), time, 800)


def plain_loss(X, y):
    return lambda network: jnp.mean((X @ weights(network) - y) ** 2)


def test_directions_are_orthonormal_and_rows_are_nested():
    large, small = draw(jax.random.key(0), 40, D), draw(jax.random.key(0), 25, D)
    np.testing.assert_array_equal(large.inputs[:25], small.inputs)
    np.testing.assert_array_equal(large.noise[:25], small.noise)
    plane = jnp.stack([large.source, large.normal])
    np.testing.assert_allclose(plane @ plane.T, jnp.eye(2), atol=1e-14)


def test_the_factorisation_is_the_least_squares_problem(problem):
    X, y, source, task = problem
    np.testing.assert_allclose(task.basis @ task.min_norm[0], np.linalg.lstsq(X, y)[0], atol=1e-10)
    np.testing.assert_allclose((task.basis * task.eigenvalues[None]) @ task.basis.T, X.T @ X / len(X), atol=1e-12)
    assert int(task.seen.sum()) == min(len(X), D)
    np.testing.assert_allclose(task.basis @ task.source, source, atol=1e-13)


@pytest.mark.parametrize("depth", [2, 3])
def test_gradient_descent_in_the_eigenbasis_is_plain_gradient_descent_on_the_data(problem, depth):
    X, y, _, task = problem
    network = pretrained(task, depth)
    raw = (task.basis @ network[0], *network[1:])
    fast = gradient_descent(quadratic_loss(task.eigenvalues, task.min_norm[0]), network, 0.02, 300)
    plain = gradient_descent(plain_loss(X, y), raw, 0.02, 300)
    np.testing.assert_allclose(task.basis @ weights(fast), weights(plain), atol=1e-11)
    for a, b in zip(fast[1:], plain[1:], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-11)


@pytest.mark.parametrize("depth", [2, 3])
def test_the_whitened_flow_ends_where_the_plain_flow_ends(problem, depth):
    X, y, source, task = problem
    network = pretrained(task, depth, alpha=1e-5 if depth == 2 else 1e-3, time=80.0)
    raw = (task.basis @ network[0], *network[1:])
    fast = gradient_flow(quadratic_loss(task.seen, task.min_norm[0]), network, 40.0, 800)
    plain = gradient_flow(plain_loss(X, y), raw, 2000.0, 40000)
    np.testing.assert_allclose(task.basis @ weights(fast), weights(plain), atol=2e-5 if depth == 2 else 2e-3)
    if len(X) < D:
        endpoint = fine_tuning_endpoint(X, y, source, depth)
        np.testing.assert_allclose(task.basis @ weights(fast), endpoint, atol=1e-5 if depth == 2 else 3e-3)


def rank_one(key, width, depth):
    """The same network twice: with matrices of rank one, and in the reduced form."""
    keys = jax.random.split(key, depth + 1)
    units = [v / jnp.linalg.norm(v) for v in jax.random.normal(keys[0], (depth - 1, width))]
    u = jax.random.normal(keys[1], (D,)) / D**0.5
    sizes = [0.6 + 0.1 * k for k in range(depth - 1)]
    matrices = [s * jnp.outer(a, b) for s, a, b in zip(sizes, units, units[1:], strict=False)]
    full = (jnp.outer(u, units[0]), *matrices, sizes[-1] * units[-1])
    return full, (u, *map(jnp.asarray, sizes))


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_reduced_gradient_descent_is_the_rank_one_network_exactly(problem, depth):
    _, _, _, task = problem
    full, reduced = rank_one(jax.random.key(depth), 4, depth)
    loss = quadratic_loss(task.eigenvalues, task.min_norm[0])
    a, b = (gradient_descent(loss, network, 0.02, 400) for network in (full, reduced))
    np.testing.assert_allclose(weights(a), weights(b), atol=1e-12)
    assert np.linalg.svd(a[0], compute_uv=False)[1] < 1e-12
    assert np.linalg.norm(a[0]) == pytest.approx(float(jnp.linalg.norm(b[0])), abs=1e-12)


@pytest.mark.parametrize("depth", [2, 3])
def test_reduced_flow_is_the_rank_one_network_to_second_order_in_the_time_grid(problem, depth):
    _, _, _, task = problem
    full, reduced = rank_one(jax.random.key(depth), 4, depth)
    loss = quadratic_loss(task.eigenvalues, task.min_norm[0])
    exact = weights(gradient_flow(loss, full, 3.0, 3000))
    errors = [
        jnp.linalg.norm(
            weights(reduced_flow(reduced, task.eigenvalues, task.min_norm[0], jnp.geomspace(1e-4, 3.0, steps))) - exact
        )
        for steps in (400, 800, 1600)
    ]
    slopes = np.diff(np.log(errors)) / -np.log(2)
    np.testing.assert_allclose(slopes, 2, atol=0.1)


@pytest.mark.parametrize("depth", [2, 3])
def test_a_network_keeps_its_conserved_quantities(problem, depth):
    _, _, _, task = problem
    network = pretrained(task, depth)
    after = gradient_flow(quadratic_loss(task.seen, task.min_norm[0]), network, 20.0, 2000)

    def balances(layers):
        return [a.T @ a - (b @ b.T if b.ndim == 2 else jnp.outer(b, b)) for a, b in itertools.pairwise(layers)]

    for before, now in zip(balances(network), balances(after), strict=True):
        np.testing.assert_allclose(before, now, atol=1e-9)


def test_the_probe_is_ridge_regression_on_the_hidden_layer(problem):
    X, y, _, task = problem
    network = pretrained(task, 2, alpha=0.1)
    hidden = features(network)
    H, ridge = X @ task.basis @ hidden, 0.05
    head = np.linalg.solve(H.T @ H / len(X) + ridge * np.eye(H.shape[1]), H.T @ y / len(X))
    np.testing.assert_allclose(linear_probe(hidden, task, ridge)[0], hidden @ head, atol=1e-11)


@pytest.mark.thorough
def test_depth_three_unequal_norms_and_other_protocols_agree(tmp_path):
    wish = {
        "d": 40, "gamma": [0.3, 0.6, 1.5], "theta": [0.6, 1.2], "sigma": [0.0, 1.0], "replicates": 20,
        "source_norm": [0.7, 1.4], "target_norm": 1.2,
    }  # fmt: skip
    cases = [
        {"depth": 3},
        {"depth": 2},
        {"depth": 2, "protocol": "reduced_flow"},
    ]
    for case in cases:
        dataset, _ = run(configure(phase_diagram, "smoke", wish | case), tmp_path, progress=False)
        endpoint = dataset["endpoint_error"].where(dataset["gamma"] != 1)
        limit = {"reduced_flow": 1e-3}.get(case.get("protocol"), 1e-4 if case["depth"] == 2 else 3e-4)
        assert float(endpoint.max()) < limit, case
        assert (dataset["status"] == 0).mean() > 0.95
        judgements = {(j.output, j.kind): j.outcome for j in assess(dataset, phase_diagram).judgements}
        assert DISAGREES not in judgements.values(), judgements
        if case == {"depth": 2}:
            assert judgements["fine_tuning_scale", "pathwise"] == AGREES


def test_scratch_training_from_small_weights_is_min_norm_to_first_order(problem):
    X, _, _, task = problem
    if len(X) > D:
        pytest.skip("above n = d the limit does not depend on the start")
    errors = []
    alphas = (1e-2, 5e-3, 2.5e-3, 1.25e-3)
    for alpha in alphas:
        start = rotated(initial_network(jax.random.key(1), D, 5, 2, jnp.asarray(alpha)), task.basis)
        end = weights(gradient_flow(quadratic_loss(task.seen, task.min_norm[0]), start, 40.0, 600))
        errors.append(jnp.linalg.norm(end - task.min_norm[0]))
    slope = np.polyfit(np.log(alphas), np.log(errors), 1)[0]
    assert slope == pytest.approx(1, abs=0.1)


@pytest.mark.thorough
def test_a_fixed_budget_of_steps_shows_transfer_that_the_limit_does_not_have(tmp_path):
    """The paper's finite time, t = 50, at n = d: the early-stopped risks differ where the end points do not."""
    theta = math.pi / 8
    wish = {"d": 100, "gamma": [1.0], "theta": [theta], "sigma": [0.0], "replicates": 20, "protocol": "gd"}
    dataset, _ = run(configure(phase_diagram, "smoke", wish | {"scratch_steps": 500}), tmp_path, progress=False)
    draws = dataset["fine_tuning_transferability"].values.ravel()
    assert draws.mean() > 5 * draws.std(ddof=1) / 20**0.5
