"""Chains of the regimes' diagram, of the limit of small steps and in two dimensions, against loops in NumPy."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sims.engine.experiment import configure
from sims.sgd_limit.continuous import Sizes as Limits
from sims.sgd_limit.continuous import path
from sims.sgd_limit.currents import Sizes as Plane
from sims.sgd_limit.fit import fitted_roots, regime_of, standard_errors
from sims.sgd_limit.heavy_ball import heavy_ball
from theory.sgd_limit import chain_propagator, oscillation_per_step, phase_space_covariance, regime_code

diagram = importlib.import_module("sims.sgd_limit.phase_diagram")
plane = importlib.import_module("sims.sgd_limit.currents")
limits = importlib.import_module("sims.sgd_limit.continuous")

KEY = jax.random.key(3)
SIZES = diagram.Sizes(paths=3, modes=2, copies=2, burn_in=5, steps=11)


def sums(x, w):
    """What the diagram adds up along a path: xx, xw, ww, xw', ww'."""
    return np.array([np.sum(a * b) for a, b in ((x, x), (x, w), (w, w), (x[:-1], w[1:]), (w[:-1], w[1:]))])


@pytest.mark.parametrize("cell", [(0.5, 0.01), (0.5, 0.7), (0.1, 2.0), (0.0, 0.3), (0.3, 2.65)])
def test_the_fit_of_a_free_motion_is_its_roots(cell):
    beta, e = cell
    states = np.array([[1.0, 0.3]])
    for _ in range(30):
        x, w = states[-1]
        w = beta * w - e * x
        states = np.vstack([states, [x + w, w]])
    x, w = states[:-1].T
    moments = [np.sum(a * b) for a, b in ((x, x), (x, w), (w, w), (x, states[1:, 1]), (w, states[1:, 1]))]
    memory, pull = fitted_roots(np.array(moments))
    np.testing.assert_allclose([memory, pull], [beta, e], atol=1e-9)
    code, angle, decay = regime_of(jnp.asarray(beta), jnp.asarray(e))
    assert code == regime_code(1.0, beta, e)
    np.testing.assert_allclose([angle, decay], oscillation_per_step(1.0, beta, e), atol=1e-7)


@pytest.mark.thorough
def test_the_standard_errors_of_the_fit_are_its_spread():
    beta, e, count = 0.5, 0.4, 4000
    rng, T = np.random.default_rng(0), np.array([[1 - e, beta], [-e, beta]])
    z = np.zeros((2, 400))
    total = np.zeros((5, 400))
    for k in range(count + 100):
        after = T @ z - e * rng.normal(size=400)
        if k >= 100:
            x, w = z
            total += np.stack([x * x, x * w, w * w, x * after[1], w * after[1]])
        z = after
    memory, pull = fitted_roots(total)
    of_roots, of_growth = standard_errors(beta, e, count)
    np.testing.assert_allclose(np.std((1 + memory - pull) ** 2 - 4 * memory), of_roots, rtol=0.15)
    np.testing.assert_allclose(np.std(2 * (1 + memory) - pull), of_growth, rtol=0.15)


@pytest.mark.thorough
def test_a_cell_of_the_diagram_is_the_plain_loop():
    eta, beta, alpha = 0.4, 0.6, 1.5
    cell = {"eta_h": jnp.array(eta), "beta": jnp.array(beta), "alpha": jnp.array(alpha)}
    out = jax.jit(diagram.one, static_argnums=3)(KEY, cell, {}, SIZES)
    k_start, k_noise = jax.random.split(KEY)
    spectrum = np.tile(np.arange(1.0, 3) ** -alpha, 2)
    h = np.concatenate([np.ones(3), spectrum])
    x, w = (np.array(v) for v in diagram.stationary(k_start, jnp.array(h), cell["eta_h"], cell["beta"]))
    x[:3] = w[:3] = 0
    xs, ws = [x], [w]
    for k in range(16):
        noise = np.sqrt(h) * np.array(jax.random.normal(jax.random.fold_in(k_noise, k), (7,)))
        w = beta * ws[-1] - eta * (h * xs[-1] + noise)
        xs.append(xs[-1] + w)
        ws.append(w)
    xs, ws = np.array(xs), np.array(ws)
    unit = phase_space_covariance(1.0, eta, beta, 1, time="ou")
    late = slice(5, 16)
    np.testing.assert_allclose(out["position"], np.mean(xs[late, :3] ** 2) / unit.position, rtol=1e-10)
    np.testing.assert_allclose(out["motion"], np.mean(ws[late, :3] ** 2) / (eta**2 * unit.motion), rtol=1e-10)
    np.testing.assert_allclose(out["cross"], np.mean((xs * ws)[late, :3]) / (eta**2 * unit.motion), rtol=1e-10)
    for lag, value in zip((1, 2, 4), out["displacement"], strict=True):
        blocks = np.diff(xs[::lag, 3:], axis=0) ** 2
        np.testing.assert_allclose(value, blocks.sum() / (len(blocks) * 2) / unit.position, rtol=1e-10)


@pytest.mark.thorough
def test_an_unstable_chain_is_stopped_and_seen_to_be_one():
    cell = {"eta_h": jnp.array(3.5), "beta": jnp.array(0.2), "alpha": jnp.array(2.0)}
    out = jax.jit(diagram.one, static_argnums=3)(KEY, cell, {}, SIZES._replace(steps=400))
    assert out["regime"] == 3
    assert all(np.isfinite(value).all() for value in out.values())


def test_the_start_of_the_spectrum_is_its_stationary_law():
    h, eta, beta = jnp.ones(100_000), jnp.array(0.7), jnp.array(0.5)
    x, w = diagram.stationary(KEY, h, eta, beta)
    found = [np.mean(x * x), np.mean(x * w), np.mean(w * w)]
    np.testing.assert_allclose(found, phase_space_covariance(1.0, eta, beta, 1), rtol=0.03)
    x, w = jax.jit(diagram.stationary)(KEY, h[:3], jnp.array(3.5), beta)
    np.testing.assert_array_equal([x, w], np.zeros((2, 3)))


def test_claims_on_the_diagram_leave_out_the_lines():
    job = configure(diagram.phase_diagram, "laptop")
    beta, e = (np.ravel(v) for v in np.meshgrid(job.values["beta"], job.values["eta_h"], indexing="ij"))
    cells = {"beta": beta, "eta_h": e}
    clear, codes = diagram.clear(cells, job.settings), np.asarray(regime_code(1.0, beta, e))
    assert clear.mean() > 0.6
    assert set(codes[clear]) == {0, 1, 2, 3}
    turning = diagram.turning(cells, job.settings)
    assert not np.any(turning & ~clear)
    assert set(codes[turning]) == {1}
    assert not np.any(diagram.relaxed(cells, job.settings) & (codes == 3))


@pytest.mark.thorough
def test_a_ball_released_at_rest_comes_back_as_it_went():
    H = jnp.array([[2.0, 0.5], [0.5, 1.0]])
    start, eta, beta = jnp.array([1.0, -0.4]), jnp.array(0.1), jnp.array(0.7)
    x = path(H, start, eta, beta, 6)
    np.testing.assert_allclose(x[0], start)
    before = start - eta * (H @ start) / (1 + beta)
    np.testing.assert_allclose(x[1], before, rtol=1e-14)
    np.testing.assert_allclose(
        x[1:3], [x[0] + beta * (x[0] - before) - eta * H @ x[0], x[1] + beta * (x[1] - x[0]) - eta * H @ x[1]]
    )
    rho, R = np.linalg.eigh(H)
    for k in range(1, 7):
        at, moved = start @ R, (eta * rho) * (start @ R) / (1 + beta)
        T = chain_propagator(k, eta, beta, rho)
        np.testing.assert_allclose(x[k] @ R, T[:, 0, 0] * at + T[:, 0, 1] * moved, rtol=1e-12)


def test_steps_of_the_two_limits():
    sizes = limits.sizes({"step": 0.1, "d": 3})
    assert sizes == Limits(3, (25, 50, 100), (10, 20, 30, 40))


@pytest.mark.thorough
def test_the_plane_is_the_plain_loop():
    eta = 0.2
    settings = {"burn_in": jnp.int32(4), "steps": jnp.int32(6)}
    out = jax.jit(plane.one, static_argnums=3)(KEY, {"eta": jnp.array(eta)}, settings, Plane(paths=3, shown=2))
    A, b = np.array(plane.A), np.array(plane.B)
    x = [np.tile(plane.START, (3, 1))]
    for k in range(12):
        xi = np.array(jax.random.normal(jax.random.fold_in(KEY, k), (3, 2)))
        x.append(x[-1] - eta * (x[-1] @ A - b + xi * np.sqrt(plane.NOISE)))
    off = np.array(x) - np.linalg.solve(A, b)
    now, after = off[4:10], off[5:11]
    squares = [np.mean(now[..., i] * now[..., j]) for i, j in ((0, 0), (0, 1), (1, 1))]
    np.testing.assert_allclose(out["covariance"], np.array(squares) / (eta / 2), rtol=1e-12)
    turned = now[..., 0] * after[..., 1] - after[..., 0] * now[..., 1]
    np.testing.assert_allclose(out["circulation"], turned.mean() / eta**2, rtol=1e-11)
    np.testing.assert_allclose(out["path"], off[10:12, 0] / np.sqrt(eta / 2), rtol=1e-12)


@pytest.mark.parametrize(
    ("experiment", "wish", "sentence"),
    [
        (diagram.phase_diagram, {"beta": [1.0]}, "`beta` must be from 0 to below 1, but got 1."),
        (diagram.phase_diagram, {"alpha": 1.0}, "`alpha` must be above 1, but got 1."),
        (diagram.phase_diagram, {"paths": 1}, "`paths` must be a whole number, 2 or more, but got 1."),
        (plane.currents, {"eta": [0.5]}, "`eta` must be positive and below 1/2, but got 0.5."),
        (
            limits.continuous, {"friction": [6.0]},
            "`friction` must leave a momentum that is not negative, but got -0.2.",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_refused_in_one_sentence(experiment, wish, sentence):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        configure(experiment, "smoke", wish)
    assert str(error.value) == sentence


def test_the_ball_itself():
    theta, w = heavy_ball(jnp.array(2.0), jnp.array(0.5), jnp.array(3.0), 0.1, 0.8)
    np.testing.assert_allclose([theta, w], [2.1, 0.1])
