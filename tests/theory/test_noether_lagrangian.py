"""Noether's learning dynamics: the equation of motion, the balance of every kind of symmetry, and its memory."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from theory.noether import (
    Part,
    SymmetryFamily,
    bilinear,
    charge,
    explicit_breaking,
    generator,
    heavy_ball_inertia,
    heavy_ball_ode,
    kinetic_symmetry_breaking,
    noether_balance,
    noether_lagrangian,
    noether_memory,
    noether_momentum,
)

M = np.diag([1.0, 4.0, 6.0])
ETA, BETA, DECAY = 0.1, 0.8, 0.3
MASS, FRICTION = (float(x) for x in heavy_ball_inertia(ETA, BETA))


def rayleigh(p):
    return p["w"] @ M @ p["w"] / (2 * p["w"] @ p["w"])


def varying(p):
    """A metric that no symmetry leaves alone."""
    return jax.tree.map(lambda x: 0.3 + 0.1 * x**2 + 0.05 * jnp.sin(3 * x), p)


def cases():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 3))

    def softmax(p):
        return -jnp.mean(jax.nn.log_softmax(x @ p["w"])[:, 0])

    def relu(p):
        return jnp.mean((jax.nn.relu(x @ p["in"]) @ p["out"] - 1) ** 2)

    def attention(p):
        return jnp.mean((jax.nn.softmax(x @ p["q"] @ p["k"].T @ x.T) @ x - 1) ** 2)

    def turned(p):
        return jnp.mean(jnp.tanh(x @ p["q"] @ p["q"].T @ x.T))

    def draw(**shapes):
        return {name: jnp.asarray(rng.normal(size=shape)) for name, shape in shapes.items()}

    return {
        "translation": (SymmetryFamily("translation", (Part("w", (0,)),)), softmax, draw(w=(3, 4))),
        "scale": (SymmetryFamily("scale", (Part("w"),)), rayleigh, draw(w=3)),
        "rescale": (
            SymmetryFamily("rescale", (Part("in", (1,)), Part("out", (0,), -1.0))),
            relu,
            draw(**{"in": (3, 4), "out": (4, 1)}),
        ),
        "matrix": (
            SymmetryFamily("matrix", (Part("q", inner=1), Part("k", (), -1.0, inner=1))),
            attention,
            draw(q=(3, 2), k=(3, 2)),
        ),
        "rotation": (SymmetryFamily("rotation", (Part("q", inner=1),)), turned, draw(q=(3, 2))),
    }


CASES = cases()
memory = jax.jit(noether_memory)


def moving(name):
    family, loss, params = CASES[name]
    rng = np.random.default_rng(1)
    return family, loss, params, jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), params)


def acceleration(loss, metric, params, velocity):
    """Of the Euler-Lagrange equation with a diagonal metric, solved by hand."""
    lowered = jax.tree.map(jnp.multiply, metric(params), velocity)
    turning = jax.jvp(metric, (params,), (velocity,))[1]
    kinetic = jax.grad(lambda p: sum(jnp.sum(m * v**2) for m, v in zip(
        jax.tree.leaves(metric(p)), jax.tree.leaves(velocity), strict=True)) / 2)(params)  # fmt: skip
    return jax.tree.map(
        lambda g, w, mv, m, dm, v, k: (k - dm * v - FRICTION / MASS * mv - g - DECAY * w) / m,
        jax.grad(loss)(params), params, lowered, metric(params), turning, velocity, kinetic,
    )  # fmt: skip


def test_euler_lagrange_equation_is_heavy_ball():
    _, loss, params, velocity = moving("rescale")
    _, heavy = jax.jit(heavy_ball_ode(loss, ETA, BETA, weight_decay=DECAY))(params, velocity)
    other = jax.jit(lambda p, v: acceleration(loss, varying, p, v))(params, velocity)
    for metric, force in ((MASS, heavy), (varying, other)):
        L = noether_lagrangian(loss, metric, FRICTION, MASS, weight_decay=DECAY)

        @jax.jit
        def balance(params, velocity, force, L=L):
            now = jnp.array(0.7)
            along = jax.jvp(jax.grad(L, 2), (now, params, velocity), (jnp.ones(()), velocity, force))[1]
            return along, jax.grad(L, 1)(now, params, velocity)

        along, across = balance(params, velocity, force)
        for left, right in zip(jax.tree.leaves(along), jax.tree.leaves(across), strict=True):
            np.testing.assert_allclose(left, right, rtol=1e-12, atol=1e-12)
        twice, _ = balance(params, velocity, jax.tree.map(lambda x: 1.01 * x, force))
        assert np.max(np.abs(twice["in"] - across["in"])) > 1e-3


@pytest.mark.parametrize("name", CASES)
def test_balance_closes_and_its_rate_is_that_of_the_motion(name):
    family, loss, params, velocity = moving(name)
    for metric in (MASS, varying):

        @jax.jit
        def both(params, velocity, metric=metric):
            known = metric if callable(metric) else (lambda p: jax.tree.map(lambda x: jnp.full_like(x, metric), p))
            force = acceleration(loss, known, params, velocity)
            moved = jax.jvp(lambda p, v: noether_momentum(family, p, v, metric), (params, velocity), (velocity, force))[
                1
            ]
            balance = noether_balance(family, loss, params, velocity, metric, FRICTION, MASS, weight_decay=DECAY)
            return moved, balance

        moved, balance = both(params, velocity)
        np.testing.assert_allclose(balance.gap, 0, atol=1e-12)
        np.testing.assert_allclose(balance.rate, moved, rtol=1e-12, atol=1e-12)
        if metric is MASS:
            momentum = noether_momentum(family, params, velocity, MASS)
            np.testing.assert_allclose(balance.friction, -FRICTION / MASS * momentum, rtol=1e-13)
            if name in ("translation", "rotation"):
                np.testing.assert_allclose(balance.kinetic, 0, atol=1e-15)
            else:
                np.testing.assert_allclose(balance.kinetic, MASS * bilinear(family, velocity, velocity), rtol=1e-13)
        else:
            assert np.max(np.abs(balance.kinetic)) > 1e-2
        if name == "rotation":
            assert np.max(np.abs(balance.explicit)) < 1e-15
        else:
            np.testing.assert_allclose(balance.explicit, -DECAY * charge(family, params), rtol=1e-14)

    def broken(p):
        return loss(p) + sum(jnp.sum(jnp.sin(x + 0.3)) for x in jax.tree.leaves(p))

    gap = jax.jit(lambda p, v: noether_balance(family, broken, p, v, MASS, FRICTION, MASS).gap)(params, velocity)
    assert np.max(np.abs(gap)) > 1e-2


@pytest.mark.parametrize("name", CASES)
def test_kinetic_breaking_is_how_the_kinetic_energy_changes(name):
    family, _, params, velocity = moving(name)
    shape = noether_momentum(family, params, velocity, MASS).shape
    direction = np.random.default_rng(2).normal(size=shape)
    if family.kind == "matrix":
        direction = direction + np.swapaxes(direction, 1, 2)

    def kinetic(p, v):
        return sum(jnp.sum(m * x**2) for m, x in zip(jax.tree.leaves(varying(p)), jax.tree.leaves(v), strict=True)) / 2

    def xi(p):
        return generator(family, p, direction)

    @jax.jit
    def both(params, velocity):
        change = jax.jvp(xi, (params,), (velocity,))[1]
        moved = jax.jvp(kinetic, (params, velocity), (xi(params), change))[1]
        return moved, jnp.sum(direction * kinetic_symmetry_breaking(family, params, velocity, varying))

    np.testing.assert_allclose(*both(params, velocity), rtol=1e-12)


def test_momentum_remembers_how_its_symmetry_was_broken():
    family, loss, params, _ = moving("scale")
    motion = heavy_ball_ode(loss, ETA, BETA, weight_decay=DECAY)

    @jax.jit
    def velocity(y):
        return jnp.concatenate([x["w"] for x in motion({"w": y[:3]}, {"w": y[3:]})])

    flow = solve_ivp(
        lambda _, y: np.array(velocity(y)), (0, 2), np.append(params["w"], np.zeros(3)), "DOP853",
        rtol=1e-12, atol=1e-13, dense_output=True,
    )  # fmt: skip

    @jax.jit
    def terms(y):
        p, v = {"w": y[:3]}, {"w": y[3:]}
        breaking = kinetic_symmetry_breaking(family, p, v, MASS) + explicit_breaking(family, p, DECAY)
        return noether_momentum(family, p, v, MASS), breaking

    errors, sizes, times = [], (50, 100, 200, 400), np.linspace(0, 2, 401)
    momentum, breaking = (np.array(x) for x in jax.jit(jax.vmap(terms))(flow.sol(times).T))
    for size in sizes:
        some = slice(None, None, 400 // size)
        found = memory(times[some], breaking[some], FRICTION, MASS)
        errors.append(np.max(np.abs(found - momentum[some])))
    assert abs(np.polyfit(np.log(sizes), np.log(errors), 1)[0] + 2) < 0.1
    assert errors[-1] < 1e-4 * np.max(np.abs(momentum))
    twice = memory(times, breaking, 2 * FRICTION, MASS)
    assert np.max(np.abs(twice - momentum)) > 0.1 * np.max(np.abs(momentum))
    h = 1e-4
    rate = (terms(flow.sol(1 + h))[0] - terms(flow.sol(1 - h))[0]) / (2 * h)
    p, v = {"w": jnp.asarray(flow.sol(1.0)[:3])}, {"w": jnp.asarray(flow.sol(1.0)[3:])}
    balance = jax.jit(lambda p, v: noether_balance(family, loss, p, v, MASS, FRICTION, MASS, weight_decay=DECAY))(p, v)
    np.testing.assert_allclose(balance.rate, rate, rtol=1e-6)


def test_memory_of_a_straight_line_is_exact_at_any_spacing():
    for spacing in (1e-9, 1e-3, 0.1, 3.0, 1e4):
        times = spacing * np.array([0.0, 1.0, 1.5, 4.0, 9.0])
        k = FRICTION / MASS
        breaking = np.stack([0.7 + 0 * times, times / spacing], axis=-1)
        x = k * times
        constant = 0.7 * -np.expm1(-x) / k
        # x - 1 + e^-x cancels for small x.
        ramp = np.where(x < 1e-2, x**2 / 2 - x**3 / 6 + x**4 / 24 - x**5 / 120 + x**6 / 720, x + np.expm1(-x))
        exact = np.stack([constant, ramp / k**2 / spacing], axis=-1)
        np.testing.assert_allclose(memory(times, breaking, FRICTION, MASS), exact, rtol=1e-12)
    single = memory(times.astype(np.float32), breaking.astype(np.float32), FRICTION, MASS)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, exact, rtol=1e-6)


def test_single_precision():
    family, _, params, velocity = moving("scale")
    small = [jax.tree.map(lambda x: x.astype(jnp.float32), tree) for tree in (params, velocity)]

    @jax.jit
    def all_of_it(p, v):
        momenta = [noether_momentum(family, p, v, metric) for metric in (MASS, varying)]
        breaking = [kinetic_symmetry_breaking(family, p, v, metric) for metric in (MASS, varying)]
        return [*momenta, *breaking, explicit_breaking(family, p, DECAY)]

    found = all_of_it(*small)
    assert {x.dtype for x in found} == {jnp.dtype("float32")}
    np.testing.assert_allclose(found, all_of_it(params, velocity), rtol=1e-5)


def refuses(call, words):
    with pytest.raises(ValueError, match="^" + re.escape(words) + "$"):
        call()


def test_bad_arguments_are_named():
    family, loss, params, velocity = moving("scale")
    refuses(lambda: noether_lagrangian(loss, 1.0, 0.0, 1.0), "`friction` must be positive, but got 0.")
    refuses(lambda: noether_lagrangian(loss, 1.0, 1.0, -1.0), "`mass` must be positive, but got -1.")
    words = "`weight_decay` must be zero or positive, but got -1."
    refuses(lambda: noether_lagrangian(loss, 1.0, 1.0, 1.0, weight_decay=-1), words)
    refuses(lambda: explicit_breaking(family, params, -1), words)
    refuses(lambda: noether_balance(family, loss, params, velocity, 1.0, 1.0, 1.0, weight_decay=-1), words)
    missing = SymmetryFamily("scale", (Part("x"),))
    words = "`parts` must name tensors of the parameters, but got x."
    refuses(lambda: noether_momentum(missing, params, velocity, 1.0), words)
    words = "`times` and `breaking` must have shapes (T,) and (T, ...), but got (2,) and (3,)."
    refuses(lambda: noether_memory(np.arange(2.0), np.ones(3), 1.0, 1.0), words)
    words = "`times` must be rising, but got 0."
    refuses(lambda: noether_memory([0.0, 1.0, 0.0], np.ones(3), 1.0, 1.0), words)
