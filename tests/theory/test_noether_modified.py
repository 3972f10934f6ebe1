"""Modified flows of gradient descent and heavy ball: the order in which they follow the iterates."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from theory.noether import (
    Part,
    SymmetryFamily,
    charge,
    heavy_ball_flow,
    heavy_ball_inertia,
    heavy_ball_lag,
    heavy_ball_ode,
    heavy_ball_start,
    modified_charge_rate,
    modified_flow,
    modified_loss,
)

M = np.diag([1.0, 4.0, 6.0])
START = np.array([1.0, 0.5, -0.5])


def rayleigh(w):
    return w @ jnp.asarray(M, w.dtype) @ w / (2 * w @ w)


def descended(eta, T, beta=0.0, decay=0.0, dampening=0.0):
    """Iterate at time T = steps eta (1 - d)."""
    w, v = START, np.zeros(3)
    for _ in range(round(T / (eta * (1 - dampening)))):
        square = w @ w
        g = (M @ w - (w @ M @ w) / square * w) / square + decay * w
        v = beta * v + (1 - dampening) * g
        w = w - eta * v
    return w


def integrated(velocity, eta, time, start=START):
    """End of a flow, compiled for all step sizes."""
    flow = solve_ivp(lambda _, w: np.array(velocity(w, eta)), (0, time), start, "DOP853", rtol=1e-10, atol=1e-11)
    return flow.y[:, -1]


def order(etas, errors):
    return np.polyfit(np.log(etas), np.log(errors), 1)[0]


@pytest.mark.parametrize("n", [0, 1, 2])
def test_orders_follow_the_iterates_of_gradient_descent(n):
    etas, errors = 0.04 / 2 ** np.arange(4), []
    flow = jax.jit(lambda w, eta: modified_flow(rayleigh, eta, n, weight_decay=0.1)(w))
    for eta in etas:
        errors.append(np.linalg.norm(descended(eta, 3.0, decay=0.1) - integrated(flow, eta, 3.0)))
    assert abs(order(etas, errors) - (n + 1)) < 0.1
    assert errors[-1] < etas[-1] ** (n + 1)


def test_flow_of_a_linear_step_is_its_logarithm():
    curvature = jnp.array([0.3, 1.0, 2.0])
    linear = jax.jit(lambda eta: modified_flow(lambda w: curvature @ w**2 / 2, eta, 2, weight_decay=0.5)(jnp.ones(3)))
    for eta in (0.01, 0.005):
        found = linear(eta)
        exact = np.log(1 - eta * (np.array(curvature) + 0.5)) / eta
        np.testing.assert_allclose(found, exact, rtol=6 * eta**3)
        assert np.max(np.abs(found / exact - 1)) > 0.1 * eta**3
    H, T = (np.array(jax.jit(f)(START)) for f in (jax.hessian(rayleigh), jax.jacfwd(jax.hessian(rayleigh))))
    g, flow = np.array(jax.grad(rayleigh)(START)), jax.jit(modified_flow(rayleigh, 0.1, 2))(START)
    third = np.einsum("ijk,j,k->i", T, g, g)
    dense = -g - 0.1 / 2 * H @ g - 0.01 * (H @ H @ g / 3 + third / 12)
    np.testing.assert_allclose(flow, dense, rtol=1e-13)
    assert np.max(np.abs(flow - dense - 0.01 * third / 12)) > 1e-5


def test_modified_loss_has_the_first_order_flow():
    params = {"a": jnp.array([0.3, -0.2]), "b": (jnp.array(1.5),)}

    def loss(p):
        return jnp.sin(p["a"] @ p["a"]) * p["b"][0] + p["b"][0] ** 4

    slope = jax.jit(jax.grad(modified_loss(loss, 0.2, weight_decay=0.3)))(params)
    flow = jax.jit(modified_flow(loss, 0.2, 1, weight_decay=0.3))(params)
    for down, along in zip(jax.tree.leaves(slope), jax.tree.leaves(flow), strict=True):
        np.testing.assert_allclose(along, -down, rtol=1e-13)
    bare = modified_flow(loss, 0.2, 0)(params)
    np.testing.assert_allclose(bare["a"], -jax.grad(loss)(params)["a"])
    single = jax.tree.map(lambda x: x.astype(jnp.float32), params)
    single = jax.jit(modified_flow(loss, 0.2, 2, weight_decay=0.3))(single)
    assert {x.dtype for x in jax.tree.leaves(single)} == {jnp.dtype("float32")}
    value = jax.jit(modified_loss(loss, 0.2, weight_decay=0.3))(params)
    g = jax.tree.map(lambda d, x: d + 0.3 * x, jax.grad(loss)(params), params)
    squares = [sum(jnp.sum(x**2) for x in jax.tree.leaves(tree)) for tree in (params, g)]
    np.testing.assert_allclose(value, loss(params) + 0.15 * squares[0] + 0.05 * squares[1], rtol=1e-14)


def cases():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(6, 3)))

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape))

    def softmax(p):
        return -jnp.mean(jax.nn.log_softmax(x @ p["w"])[:, 0])

    def sphere(p):
        return rayleigh(p["w"])

    def relu(p):
        return jnp.mean((jax.nn.relu(x @ p["in"]) @ p["out"] - 1) ** 2)

    def attention(p):
        return jnp.mean((jax.nn.softmax(x @ p["q"] @ p["k"].T @ x.T) @ x - 1) ** 2)

    return [
        (SymmetryFamily("translation", (Part("w", (0,)),)), softmax, {"w": draw(3, 4)}),
        (SymmetryFamily("scale", (Part("w"),)), sphere, {"w": draw(3)}),
        (SymmetryFamily("rescale", (Part("in", (1,)), Part("out", (0,), -1.0))), relu,
         {"in": draw(3, 4), "out": draw(4, 1)}),
        (SymmetryFamily("matrix", (Part("q", inner=1), Part("k", (), -1.0, inner=1))), attention,
         {"q": draw(3, 2), "k": draw(3, 2)}),
    ]  # fmt: skip


@pytest.mark.parametrize("case", range(4), ids=["translation", "scale", "rescale", "matrix"])
def test_rate_of_a_charge_is_its_derivative_along_the_flow(case):
    family, loss, params = cases()[case]

    @jax.jit
    def both(p, decay):
        moved, rates = [], []
        for n in (0, 1, 2):
            velocity = modified_flow(loss, 0.3, n, weight_decay=decay)(p)
            moved.append(jax.jvp(lambda at: charge(family, at), (p,), (velocity,))[1])
            rates.append(modified_charge_rate(family, loss, p, 0.3, n, weight_decay=decay))
        return jnp.stack(moved), jnp.stack(rates)

    for decay in (0.0, 0.4):
        moved, rates = both(params, decay)
        np.testing.assert_allclose(rates, moved, rtol=1e-12, atol=1e-13)
        if decay or family.kind != "translation":
            assert np.max(np.abs(rates[1] - rates[2])) > 1e-4
            assert np.max(np.abs(rates[0] - rates[1])) > 1e-4


def test_orders_follow_the_iterates_of_heavy_ball():
    beta, decay, T, etas = 0.8, 0.1, 0.7, 7e-4 / 2 ** np.arange(4)
    kick = np.array(heavy_ball_start(rayleigh, beta, weight_decay=decay)(jnp.asarray(START)))
    np.testing.assert_allclose(kick, -(np.array(jax.grad(rayleigh)(START)) + decay * START) / 1.8, rtol=1e-14)
    starts = np.concatenate([START, np.zeros(3), START, kick])  # at rest, corrected
    known = {"weight_decay": decay}
    settled = jax.jit(lambda w, eta: heavy_ball_flow(rayleigh, eta, beta, 0, **known)(w))
    slow = jax.jit(lambda w, eta: heavy_ball_flow(rayleigh, eta, beta, 1, **known)(w))

    @jax.jit
    def second(y, eta):
        motion = heavy_ball_ode(rayleigh, eta, beta, **known)
        return jnp.concatenate(jax.vmap(lambda y: jnp.concatenate(motion(y[:3], y[3:])))(y.reshape(2, 6)))

    errors = []
    for eta in etas:
        flows = [
            integrated(settled, eta, T),
            integrated(slow, eta, T),
            integrated(slow, eta, T - float(heavy_ball_lag(eta, beta))),
            *integrated(second, eta, T, starts).reshape(2, 6)[:, :3],
        ]
        errors.append(np.linalg.norm(np.array(flows) - descended(eta, T, beta, decay), axis=-1))
    orders = np.array([order(etas, error) for error in np.transpose(errors)])
    np.testing.assert_allclose(orders, [1, 1, 2, 1, 2], atol=0.1)
    assert np.all(errors[-1][[2, 4]] < 1e-5)


def test_without_momentum_the_slow_manifold_is_the_modified_flow():
    w = jnp.asarray(START)
    for n in (0, 1):
        slow = heavy_ball_flow(rayleigh, 0.1, 0.0, n, weight_decay=0.2)(w)
        np.testing.assert_allclose(slow, modified_flow(rayleigh, 0.1, n, weight_decay=0.2)(w), rtol=1e-14)
    assert heavy_ball_lag(0.1, 0.0) == 0
    np.testing.assert_allclose(heavy_ball_inertia(0.1, 0.9), [0.095, 0.1], rtol=1e-14)
    np.testing.assert_allclose(heavy_ball_inertia(0.1, 0.9, dampening=0.9), [0.0095, 0.1], rtol=1e-13)
    single = heavy_ball_ode(rayleigh, 0.1, 0.9)(w.astype(jnp.float32), w.astype(jnp.float32))
    assert {x.dtype for x in single} == {jnp.dtype("float32")}
    np.testing.assert_allclose(
        descended(0.02, 1.0, 0.8, 0.1, dampening=0.5), descended(0.01, 1.0, 0.8, 0.1), rtol=1e-12
    )
    assert heavy_ball_lag(0.02, 0.8, dampening=0.5) == heavy_ball_lag(0.01, 0.8)
    pair = [heavy_ball_ode(rayleigh, eta, 0.8, dampening=d)(w, w) for eta, d in ((0.02, 0.5), (0.01, 0.0))]
    np.testing.assert_allclose(*pair, rtol=1e-14)
    dampened = heavy_ball_flow(rayleigh, 0.2, 0.9, dampening=0.5)(w)
    np.testing.assert_allclose(dampened, heavy_ball_flow(rayleigh, 0.1, 0.9)(w), rtol=1e-14)


def refuses(call, words):
    with pytest.raises(ValueError, match="^" + re.escape(words) + "$"):
        call()


def test_bad_arguments_are_named():
    refuses(lambda: modified_flow(rayleigh, 0.1, 3), "`order` must be 0, 1 or 2, but got 3.")
    refuses(lambda: heavy_ball_flow(rayleigh, 0.1, 0.9, 2), "`order` must be 0 or 1, but got 2.")
    refuses(lambda: modified_loss(rayleigh, 0.0), "`eta` must be positive, but got 0.")
    refuses(lambda: modified_flow(rayleigh, [0.1, 0.1]), "`eta` must be a number, but got shape (2,).")
    refuses(
        lambda: modified_flow(rayleigh, 0.1, weight_decay=-1), "`weight_decay` must be zero or positive, but got -1."
    )
    words = "`momentum` must be zero or positive, and below 1, but got 1."
    for call in (
        lambda: heavy_ball_ode(rayleigh, 0.1, 1.0),
        lambda: heavy_ball_flow(rayleigh, 0.1, 1.0),
        lambda: heavy_ball_start(rayleigh, 1.0),
        lambda: heavy_ball_lag(0.1, 1.0),
        lambda: heavy_ball_inertia(0.1, 1.0),
    ):
        refuses(call, words)
    family = SymmetryFamily("rotation", (Part("w", inner=0),))
    words = "`family` must have a symmetric generator, but got kind rotation."
    refuses(lambda: modified_charge_rate(family, rayleigh, {"w": START}, 0.1), words)
