"""Descent on the sphere: the exact update, and the RMSProp that it is."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from theory.noether import (
    equilibrium_norm_momentum,
    equivalent_second_moment,
    norm_fourth_power_rate,
    rmsprop_equivalent,
    rmsprop_trajectory,
    sphere_step,
    sphere_trajectory,
)

TURN = np.array([[0.0, -1.0], [1.0, 0.0]])


def slope(u, M):
    """Gradient of a Rayleigh quotient on the sphere."""
    return M @ u - (u @ M @ u) * u


def stream(steps, D=5):
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(steps, D, D))
    return np.diag(np.arange(1.0, D + 1)) + (noise + noise.transpose(0, 2, 1)) / 2


def test_printed_values():
    rho, rate = rmsprop_equivalent(0.2, 0.03)
    np.testing.assert_allclose([rho, rate], [0.9762151373, 0.1103729265], rtol=5e-10)
    np.testing.assert_allclose(rmsprop_equivalent(1e-6, 1e-3)[1], (2e-9) ** 0.5, rtol=1e-8)
    single = rmsprop_equivalent(np.full(1, 1e-4, np.float32), np.full(1, 1e-3, np.float32))
    np.testing.assert_allclose(single.learning_rate, (2e-7) ** 0.5, rtol=1e-6)


def test_direction_and_norm_of_gradient_descent():
    eta, lam, matrices = 0.2, 0.05, stream(50)
    w = np.array([1.0, 0.5, -0.5, 0.3, 0.2])
    start = w / np.linalg.norm(w), np.sum(w**2) ** 2
    path = [w]
    for M in matrices:
        r = w @ w
        w = w - eta * ((M @ w - (w @ M @ w) / r * w) / r + lam * w)
        path.append(w)
    norms = np.linalg.norm(path, axis=-1)
    found = jax.jit(lambda u, Z, M: sphere_trajectory(u, Z, slope, M, eta, lam))(*start, matrices)
    np.testing.assert_allclose(found.Z, norms**4, rtol=1e-12)
    np.testing.assert_allclose(found.u, path / norms[:, None], rtol=1e-11, atol=1e-13)
    once = sphere_step(*start, slope(start[0], matrices[0]), eta, lam)
    np.testing.assert_allclose(once.u, found.u[1], rtol=1e-13)
    np.testing.assert_allclose(once.Z, found.Z[1], rtol=1e-13)
    bare = sphere_step(*start, slope(start[0], matrices[0]), eta)
    assert abs(bare.Z / once.Z - 1) > 1e-2
    batch = sphere_step(*(np.stack([x, x]) for x in (*start, slope(start[0], matrices[0]))), eta, lam)
    np.testing.assert_allclose(batch.u, [once.u] * 2, rtol=1e-14)


def test_a_step_of_rmsprop_turns_by_the_same_angle():
    eta, lam, Z = 0.2, 0.03, 1.7
    u = np.array([0.6, 0.8])
    g = 0.9 * TURN @ u
    one = sphere_step(u, Z, g, eta, lam)
    constants = rmsprop_equivalent(eta, lam)
    G = equivalent_second_moment(Z, eta, lam)
    two = rmsprop_trajectory(u, G, lambda u, _: g, np.zeros(1), *constants)
    np.testing.assert_allclose(two.u[1], one.u, rtol=1e-13)
    # The second moments differ by the dropped term, eta^4 |g|^4 / Z.
    left = equivalent_second_moment(one.Z - eta**4 * 0.81**2 / Z, eta, lam)
    np.testing.assert_allclose(two.G[1], left, rtol=1e-12)


def test_whole_runs_deviate_in_proportion_to_the_decay_per_step():
    u = np.array([1.0, 0.5, -0.5, 0.3, 0.2])
    u = u / np.linalg.norm(u)

    @jax.jit
    def deviation(eta, lam, matrices):
        Z = eta / (2 * lam)
        exact = sphere_trajectory(u, Z, slope, matrices, eta, lam)
        G = equivalent_second_moment(Z, eta, lam)
        constants = rmsprop_equivalent(eta, lam)
        found = rmsprop_trajectory(u, G, slope, matrices, *constants)
        naive = rmsprop_trajectory(u, G, slope, matrices, constants.rho, constants.learning_rate * 1.1)
        size = equivalent_second_moment(exact.Z, eta, lam)
        off = [jnp.max(jnp.linalg.norm(x.u - exact.u, axis=-1)) for x in (found, naive)]
        return jnp.stack([*off, jnp.max(jnp.abs(found.G / size - 1))])

    rates = 8e-3 / 2 ** np.arange(4)
    off = np.array([deviation(0.1, rate / 0.1, stream(round(6 / rate))) for rate in rates])
    assert abs(np.polyfit(np.log(rates), np.log(off[:, 2]), 1)[0] - 1) < 0.2
    assert np.all(off[:, 2] < 20 * rates)
    assert np.all(off[:, 0] < 20 * rates)
    assert off[-1, 1] > 2 * off[-1, 0]


@pytest.mark.parametrize("beta", [0.0, 0.6])
def test_fourth_power_of_the_norm_is_a_second_moment(beta):
    c, errors, etas = 0.7, [], 0.02 / 2 ** np.arange(4)
    for eta in etas:
        lam, w, v, Z = 10 * eta, np.array([0.7, 0.0]), np.zeros(2), []  # decay and push of one order
        for _ in range(round(0.03 * (1 - beta) / eta**2)):
            v = beta * v + c * TURN @ w / (w @ w) + lam * w
            w = w - eta * v
            Z.append((w @ w) ** 2)
        measured = (Z[-1] - Z[-3]) / (2 * eta)
        rate = norm_fourth_power_rate(Z[-2], c**2, eta, lam, beta)
        errors.append(abs(rate / measured - 1))
    assert np.polyfit(np.log(etas), np.log(errors), 1)[0] > 0.9
    assert errors[-1] < 0.03
    assert abs(norm_fourth_power_rate(Z[-2], 1.1 * c**2, eta, lam, beta) / measured - 1) > 0.03
    Z = equilibrium_norm_momentum(0.01, 1e-3, c, beta, "smooth") ** 4
    np.testing.assert_allclose(norm_fourth_power_rate(Z, c**2, 0.01, 1e-3, beta), 0, atol=1e-17 + 1e-15 * Z)


def refuses(call, words):
    with pytest.raises(ValueError, match="^" + re.escape(words) + "$"):
        call()


def test_bad_arguments_are_named():
    u, g = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    refuses(lambda: rmsprop_equivalent(0.1, 0.0), "`weight_decay` must be positive, but got 0.")
    refuses(lambda: rmsprop_equivalent(0.1, 10.0), "`weight_decay` must be below 1 / `eta`, but got 10.")
    refuses(lambda: equivalent_second_moment(0.0, 0.1, 0.1), "`Z` must be positive, but got 0.")
    refuses(lambda: sphere_step(u, 0.0, g, 0.1), "`Z` must be positive, but got 0.")
    refuses(lambda: sphere_step(u, 1.0, g, 0.1, 10.0), "`weight_decay` must be below 1 / `eta`, but got 10.")
    refuses(lambda: sphere_step(u, 1.0, g, 0.0), "`eta` must be positive, but got 0.")
    refuses(lambda: sphere_step(u, 1.0, g, [0.1]), "`eta` must be a number, but got shape (1,).")
    words = "`gradient` must have shape (..., d) over (), but got (3,)."
    refuses(lambda: sphere_step(u, 1.0, np.ones(3), 0.1), words)
    words = "`u` must have shape (..., d) over (2,), but got (2,)."
    refuses(lambda: sphere_step(u, np.ones(2), g, 0.1), words)
    refuses(lambda: rmsprop_trajectory(u, 0.0, slope, u, 0.9, 0.1), "`G0` must be positive, but got 0.")
    words = "`rho` must be zero or positive, and below 1, but got 1."
    refuses(lambda: rmsprop_trajectory(u, 1.0, slope, u, 1.0, 0.1), words)
    refuses(
        lambda: norm_fourth_power_rate(1.0, -1.0, 0.1, 0.1),
        "`squared_gradient_norm` must be zero or positive, but got -1.",
    )
