"""Relaxation of charges: the four regimes and their edges, and charges that look like them."""

import re

import jax
import numpy as np
import pytest

from theory.noether import (
    charge_rates,
    damping_boundaries,
    damping_code,
    damping_envelope,
    damping_frequency,
    damping_regime,
    linear_charge,
    ode_damping_boundary,
)


def test_printed_regimes_and_thresholds():
    e = np.array([0.01, 0.03, 3.595, 3.7])
    words = ["overdamped", "underdamped", "alternating", "unstable"]
    assert damping_regime(0.8, e).tolist() == words
    assert [damping_regime(0.8, x) for x in e] == words
    assert jax.jit(damping_code)(0.8, e).tolist() == [0, 1, 2, 3]
    assert damping_regime(0.8, e / 2, quadratic=True).tolist() == words
    np.testing.assert_allclose(damping_frequency(0.8, 0.03), 0.1453168067, rtol=0, atol=5e-11)
    np.testing.assert_allclose(damping_boundaries(np.array([0.9, 0.99])).critical, [0.002633, 2.513e-5], rtol=2e-4)
    np.testing.assert_allclose(damping_boundaries(0.8, quadratic=True), np.array(damping_boundaries(0.8)) / 2)
    assert damping_regime(0.0, 1.0) == "overdamped"  # gone after one step
    assert damping_regime(0.0, 0.0) == "overdamped"


@pytest.mark.parametrize("quadratic", [False, True])
def test_lines_part_real_from_complex_and_decay_from_growth(quadratic):
    beta = np.array([0.01, 0.3, 0.8, 0.9, 0.99])
    scale = 2.0 if quadratic else 1.0
    for line, (below, above) in zip(
        damping_boundaries(beta, quadratic=quadratic), ((0, 1), (1, 2), (2, 3)), strict=True
    ):
        for side, code in ((1 - 1e-6, below), (1 + 1e-6, above)):
            e = np.array(line) * side
            assert damping_code(beta, e, quadratic=quadratic).tolist() == [code] * 5
            roots = [np.roots([1, -(1 + b - scale * x), b]) for b, x in zip(beta, e, strict=True)]
            for root in roots:
                assert (np.abs(root.imag).max() > 0) == (code == 1)
                assert (np.abs(root).max() > 1) == (code == 3)
                assert code == 1 or (root.real.max() > 0) == (code == 0)
    critical, alternating, unstable = damping_boundaries(beta)
    on = [damping_code(beta, line).tolist() for line in (critical, alternating, unstable)]
    assert on == [[0] * 5, [2] * 5, [2] * 5]


def test_charges_of_each_regime_look_like_it():
    over, under, flips, grows = (np.array(linear_charge(1.0, 300, e, 1.0, 0.8)) for e in (0.01, 0.03, 3.595, 3.7))
    assert np.all(over > 0)
    assert np.all(np.diff(over) <= 0)
    crossings = np.flatnonzero(np.diff(np.sign(under[:120])))
    np.testing.assert_allclose(np.mean(np.diff(crossings)), np.pi / damping_frequency(0.8, 0.03), rtol=0.02)
    assert np.all(np.abs(under[:120]) <= 2.5 * 0.8 ** (np.arange(120) / 2))
    assert np.all(flips[1:] * flips[:-1] < 0)
    assert abs(flips[-1]) < 1e-2
    assert abs(grows[-1]) > 100


def test_ode_line_is_where_its_rates_meet():
    for linear in (False, True):
        for beta in (0.0, 0.5, 0.9):
            line = float(ode_damping_boundary(beta, quadratic=not linear))
            gamma, omega = charge_rates(0.1, line / 0.1, beta, linear=linear)
            np.testing.assert_allclose(gamma, omega, rtol=1e-14)
    np.testing.assert_allclose(ode_damping_boundary(0.0), 0.5)
    ratio = [float(ode_damping_boundary(b) / damping_boundaries(b).critical) for b in (0.9, 0.99, 0.999)]
    gap = np.abs(np.array(ratio) - 1)
    assert np.all(gap[1:] < 0.2 * gap[:-1])
    assert gap[-1] < 1e-6


def refuses(call, words):
    with pytest.raises(ValueError, match="^" + re.escape(words) + "$"):
        call()


def test_bad_arguments_are_named():
    words = "`beta` must be zero or positive, and below 1, but got 1."
    for f in (damping_code, damping_regime, damping_frequency, damping_envelope):
        refuses(lambda f=f: f(1.0, 0.1), words)
        refuses(lambda f=f: f(0.9, -0.1), "`eta_lambda` must be zero or positive, but got -0.1.")
    for f in (damping_boundaries, ode_damping_boundary):
        refuses(lambda f=f: f(1.0), words)


def test_a_quadratic_charge_is_pulled_twice():
    beta, e = np.array([0.0, 0.3, 0.9])[:, None], np.linspace(0.0, 2.0, 9)[None, :]
    for f in (damping_frequency, damping_envelope):
        np.testing.assert_allclose(f(beta, e, quadratic=True), f(beta, 2 * e), rtol=1e-15)
