"""Times on BYOL's parabola: quadrature to fifty digits, the flow itself, and the ghost's inverse square root."""

import re

import jax
import mpmath as mp
import numpy as np
import pytest
from jax.test_util import check_grads

from theory.ssl_collapse import (
    byol_critical_decay,
    byol_fixed_points,
    byol_passage_time,
    byol_trajectory,
    ghost_time,
)

MODE = (0.9, 0.3)


def test_printed_value_of_the_ghost():
    np.testing.assert_allclose(ghost_time(0.8, 0.4, 0.14), 105.3722209656, rtol=1e-12)


def test_passage_times_are_their_integral():
    critical = float(byol_critical_decay(*MODE))
    for eta in critical * np.array([0.05, 0.5, 0.95, 0.999999, 1.0, 1.000001, 1.05, 3.0]):
        p = byol_fixed_points(*MODE, eta)
        living = [(1.3, float(p.stable) * 1.01), (float(p.saddle) * 0.98, float(p.saddle) * 0.2)]
        if eta < 0.999 * critical:
            living.append((float(p.saddle) * 1.05, float(p.stable) * 0.98))
        for start, end in living if eta <= critical else [(1.3, 0.01), (0.5, 0.2)]:
            with mp.workdps(30):
                a, s, e = (mp.mpf(float(x)) for x in (MODE[0], sum(MODE), eta))
                middle = [
                    mp.mpf(x)
                    for x in (0.45, 0.38, 0.3755, 0.375, 0.3745, 0.37, 0.3)
                    if eta > critical and end < x < start
                ]
                exact = mp.quad(
                    lambda x, a=a, s=s, e=e: 1 / (x * (a * x - s * x * x - e)), [mp.mpf(start), *middle, mp.mpf(end)]
                )
            gap = max(abs(1 - eta / critical), 1e-6)
            np.testing.assert_allclose(byol_passage_time(start, end, *MODE, eta), float(exact), rtol=1e-13 / gap)


def test_passage_times_are_those_of_the_flow():
    for start, end, eta in ((0.6, 0.1, 0.19), (0.12, 0.5, 0.08), (0.08, 0.01, 0.08), (1.2, 0.7, 0.08)):
        time = byol_passage_time(start, end, *MODE, eta)
        last = byol_trajectory([time], start, start**2, a=0.9, c=0.3, weight_decay=eta, steps=2000).p[0]
        np.testing.assert_allclose(last, end, rtol=1e-9)


def test_what_is_never_reached_takes_forever():
    p = byol_fixed_points(*MODE, 0.08)
    stable, saddle = float(p.stable), float(p.saddle)
    for start, end in ((0.9 * saddle, 0.5), (0.5, 0.9 * saddle), (1.2, 0.9 * stable), (0.3, 0.2), (0.05, 0.06)):
        assert byol_passage_time(start, end, *MODE, 0.08) == np.inf
    assert byol_passage_time(0.9 * saddle, 1.2, *MODE, 0.08) == np.inf
    assert byol_passage_time(0.3, 0.6, *MODE, 0.3) == np.inf
    assert byol_passage_time(0.3, 0.3, *MODE, 0.3) == 0


def test_the_ghost_is_the_divergent_part():
    critical = byol_critical_decay(*MODE)
    assert np.isinf(ghost_time(*MODE, critical * np.array([0.5, 1.0]))).all()
    root = np.array([0.01, 0.005, 0.0025, 0.00125])
    eta = critical * (1 + root**2)
    off = 1 - byol_passage_time(0.6, 0.15, *MODE, eta) / ghost_time(*MODE, eta)
    slopes = np.diff(np.log(off)) / np.diff(np.log(root))
    np.testing.assert_allclose(slopes, 1, atol=0.02)
    assert off[-1] < 0.004


@pytest.mark.thorough
def test_gradients_jit_single_precision_and_errors():
    for eta in (0.08, 0.3):
        check_grads(lambda *x, eta=eta: byol_passage_time(*x, *MODE, eta), (1.2, 0.7), order=1, modes=["rev"])
        check_grads(lambda e: byol_passage_time(1.2, 0.7, *MODE, e), (eta,), order=1, modes=["rev"])
        arguments = (1.2, 0.7, *MODE, eta)
        np.testing.assert_allclose(jax.jit(byol_passage_time)(*arguments), byol_passage_time(*arguments), rtol=1e-12)
        single = byol_passage_time(*(np.float32(x)[None] for x in arguments))
        assert single.dtype == np.float32
        np.testing.assert_allclose(single[0], byol_passage_time(*arguments), rtol=1e-4)
    check_grads(ghost_time, (0.8, 0.4, 0.16), order=1, modes=["rev"])
    assert jax.grad(ghost_time, 2)(0.8, 0.4, 0.1) == 0
    assert byol_passage_time(np.full((2, 1), 0.6), np.full((1, 3), 0.1), *MODE, 0.3).shape == (2, 3)

    def refuses(call, words):
        with pytest.raises(ValueError, match="^" + re.escape(words) + "$"):
            call()

    refuses(lambda: byol_passage_time(0.0, 0.1, *MODE, 0.3), "`start` must be positive, but got 0.")
    refuses(lambda: byol_passage_time(0.5, -0.1, *MODE, 0.3), "`end` must be positive, but got -0.1.")
    refuses(lambda: byol_passage_time(0.5, 0.1, *MODE, 0.0), "`weight_decay` must be positive, but got 0.")
    refuses(lambda: ghost_time(0.8, 0.4, -0.1), "`weight_decay` must be zero or positive, but got -0.1.")
