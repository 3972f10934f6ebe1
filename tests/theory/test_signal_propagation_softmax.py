"""Softmax overlaps by brute force over two and three logits, sampling, sum rules, finer grids and limits."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from theory.signal_propagation import SoftmaxOverlaps, condensed_overlap, softmax, softmax_overlaps

compiled = jax.jit(softmax_overlaps, static_argnames="method")
row_overlap = jax.jit(lambda n, s: softmax_overlaps(n, s, 0.0).Q)


def overlaps(n, s, r, method="exact"):
    """Exact overlaps two at a time, so that one shape is compiled."""
    cases = np.stack(np.broadcast_arrays(n, s, r), axis=-1).astype(float)
    if method != "exact":
        return SoftmaxOverlaps(*map(np.asarray, compiled(*np.moveaxis(cases, -1, 0), method=method)))
    flat = np.resize(cases, (-(-cases.size // 6), 2, 3))
    values = np.concatenate([compiled(*pair.T) for pair in flat], axis=1)[:, : cases.size // 3]
    return SoftmaxOverlaps(*values.reshape(4, *cases.shape[:-1]))


def test_overlaps_keep_their_printed_digits():
    n, s, r = np.array([48.0, 20.0]), np.array([1.2, 2.5]), np.array([0.4, 0.6])
    printed = [[0.0686694506, 0.0342492130, 0.0530955632, 0.0287553809]]
    printed += [[0.3738502502, 0.1811190449, 0.1129160143, 0.0535711279]]
    np.testing.assert_allclose(np.transpose(overlaps(n, s, r)), printed, rtol=0, atol=1e-10)
    Q, P, T1, T2 = overlaps(48.0, 1.2, 0.4, method="annealed")
    np.testing.assert_allclose((Q, P), (0.0824021570, 0.0364688059), rtol=0, atol=1e-10)
    np.testing.assert_allclose((T1, T2), (Q * (1 - Q), P * (1 - P)), rtol=1e-14)


def brute_force(n, s, r):
    """All four by a grid over the differences of n logits, shared and own: what they have in common is invisible."""
    plane = scipy.linalg.null_space(np.ones((1, n)))
    x = np.linspace(-8, 8, 61 if n == 2 else 33)
    grid = np.stack(np.meshgrid(*[x] * (n - 1), indexing="ij"), -1).reshape(-1, n - 1)
    weights = np.exp(-np.sum(grid**2, axis=1) / 2)
    grid, weights = grid[weights > 1e-15], weights[weights > 1e-15]
    weights /= weights.sum()
    logits = grid @ plane.T
    A = np.exp(s * (math.sqrt(r) * logits[:, None] + math.sqrt(1 - r) * logits))
    A /= A.sum(-1, keepdims=True)  # (shared, own, j)
    mean, square = (np.einsum("gzj,z->gj", A**k, weights) for k in (1, 2))
    products = np.einsum("gzj,gzk->gjk", A * weights[:, None], A)
    of_row = np.sum(A**2, -1), np.sum(A**2, -1) - 2 * np.sum(A**3, -1) + np.sum(A**2, -1) ** 2
    Q, T1 = (weights @ x @ weights for x in of_row)
    P = weights @ np.sum(mean**2, -1)
    T2 = P - 2 * weights @ np.sum(square * mean, -1) + weights @ np.sum(products**2, (1, 2))
    return Q, P, T1, T2


def test_overlaps_are_the_brute_force_average_over_two_and_three_logits():
    n, s, r = np.array([2.0, 2.0, 3.0]), np.array([1.3, 0.6, 1.1]), np.array([0.4, 0.9, 0.3])
    expected = np.transpose([brute_force(int(count), *rest) for count, *rest in zip(n, s, r, strict=True)])
    np.testing.assert_allclose(overlaps(n, s, r), expected, rtol=1e-10)
    for wrong in (overlaps(3, 1.101, 0.3), overlaps(3, 1.1, 0.301)):
        assert not np.allclose(wrong, expected[:, 2], rtol=1e-5)
    annealed = overlaps(n, s, r, method="annealed")
    assert np.all(np.abs(annealed / expected - 1) > 1e-2)


def test_overlaps_are_those_of_sampled_rows_but_the_ratio_of_averages_is_not():
    n, s, r, count = 32, 2.0, 0.5, 20_000
    rng = np.random.default_rng(1)
    shared, own, other = rng.normal(size=(3, count, n))
    A, B = (np.exp(s * (math.sqrt(r) * shared + math.sqrt(1 - r) * x)) for x in (own, other))
    A, B = A / A.sum(1, keepdims=True), B / B.sum(1, keepdims=True)
    AB = np.sum(A * B, 1)
    draws = [
        np.sum(A**2, 1),
        AB,
        np.sum(A**2 - 2 * A**3, 1) + np.sum(A**2, 1) ** 2,
        AB - np.sum(A**2 * B + A * B**2, 1) + AB**2,
    ]
    errors = np.std(draws, axis=1) / math.sqrt(count)
    assert np.all(errors < 0.01 * np.mean(draws, axis=1))
    assert np.all(np.abs(np.mean(draws, axis=1) - np.array(overlaps(float(n), s, r))) < 5 * errors)
    for method in ("annealed", "expansion"):
        twin = np.array(overlaps(float(n), s, r, method=method))
        assert np.all(np.abs(np.mean(draws, axis=1) - twin) > 5 * errors)


def test_sum_rules():
    n, s = np.array([20.0, 700.0]), np.array([1.7, 2.0])
    same, independent = overlaps(n, s, 1), overlaps(n, s, 0)
    np.testing.assert_allclose(same.P, same.Q, rtol=1e-10)
    np.testing.assert_allclose(same.T2, same.T1, rtol=1e-10)
    # For independent rows every entry averages to 1 / n, since a row sums to one.
    np.testing.assert_allclose(independent.P, 1 / n, rtol=1e-11)
    np.testing.assert_allclose(independent.Q, same.Q, rtol=1e-11)
    np.testing.assert_allclose(independent.T2, (1 - independent.Q) ** 2 / (n - 1), rtol=1e-10)
    assert np.all(np.abs(independent.T2 * n / (1 - independent.Q) ** 2 - 1) > 1e-3)
    assert np.all(same.P > 2 * independent.P)
    annealed = overlaps(n, s, 0, method="annealed")
    assert np.all(np.abs(annealed.T2 / independent.T2 - 1) > 0.05)


def test_equal_logits_one_logit_and_infinitely_many():
    n = np.array([1, 20, np.inf])
    still = np.array([1 / n, 1 / n, (1 - 1 / n) / n, (1 - 1 / n) / n])
    np.testing.assert_allclose(overlaps(n, 0, 0.3), still, rtol=1e-10)
    moving = np.array(overlaps(n, 1.5, 0.3))
    np.testing.assert_array_equal(moving[:, 0], [1, 1, 0, 0])
    np.testing.assert_array_equal(moving[:, 2], 0)
    assert np.all(moving[:, 1] > 1.02 * still[:, 1])
    np.testing.assert_array_equal(overlaps(n, 1.5, 0.3, method="large_n"), np.zeros((4, 3)))
    for method in ("annealed", "expansion"):
        np.testing.assert_array_equal(overlaps(np.inf, 1.5, 0.3, method=method), np.zeros(4))


def test_the_expansion_is_right_to_second_order_in_one_over_n():
    n = 2.0 ** np.arange(7, 11)
    exact = np.array(overlaps(n, 0.5, 0.4))

    def slopes(method):
        errors = np.abs(np.array(overlaps(n, 0.5, 0.4, method=method)) - exact)
        return errors, np.diff(np.log2(errors), axis=1)

    errors, orders = slopes("expansion")
    np.testing.assert_allclose(orders, np.array([[-3.0], [-3.0], [-2.0], [-2.0]]) * np.ones(3), atol=0.1)
    assert np.all(errors[:2, -1] < 1e-9)
    annealed, orders = slopes("annealed")
    np.testing.assert_allclose(orders[:2], -2, atol=0.1)
    assert np.all(annealed[:2] > 10 * errors[:2])


def test_a_cold_row_condenses_as_the_logarithm_of_n_grows():
    n = 10.0 ** np.arange(2, 13, 2)
    log = np.log(n)
    for beta in (0.8, 1.0):
        assert condensed_overlap(beta) == 0
        Q = row_overlap(n, beta * np.sqrt(log))
        assert np.all(np.diff(np.log(Q)) < -0.5)
    Q, limit = row_overlap(n, 2 * np.sqrt(log)), condensed_overlap(2.0)
    assert limit == pytest.approx(1 - 1 / math.sqrt(2), rel=1e-14)

    def orders(limit):
        """Powers of 1 / ln n with which the limit is approached."""
        return -np.diff(np.log(np.abs(Q - limit))) / np.diff(np.log(log))

    assert np.all(np.diff(Q - limit) < 0)
    assert 0 < Q[-1] - limit < 0.05
    assert np.all(np.diff(orders(limit)) > 0)
    assert 0.75 < orders(limit)[-1] < 1
    for twin in (0.0, 0.25, 1 - 1 / 2):
        assert not (np.all(np.diff(orders(twin)) > 0) and orders(twin)[-1] > 0.75)


@pytest.mark.thorough
def test_grids_twice_as_fine_give_the_same(monkeypatch):
    case = np.array([4096.0]), np.array([4.0]), np.array([0.5])
    coarse, times, nodes = overlaps(*case), softmax.TIMES, softmax.NODES

    def again(factor, part=slice(None)):
        monkeypatch.setattr(softmax, "TIMES", int(factor * times))
        monkeypatch.setattr(softmax, "NODES", int(factor * nodes))
        return np.array(jax.jit(lambda *x: softmax_overlaps(*x)[part])(*case))

    np.testing.assert_allclose(again(2), coarse, rtol=0, atol=1e-9)
    assert abs(again(0.5, 2) - coarse.T1) > 1e-9


def test_the_slope_of_the_exact_overlap_is_that_of_the_brute_force_average():
    slope = jax.jit(jax.grad(lambda s: row_overlap(2.0, s)))
    secant = (brute_force(2, 1.1 + 1e-4, 0.3)[0] - brute_force(2, 1.1 - 1e-4, 0.3)[0]) / 2e-4
    np.testing.assert_allclose(slope(1.1), secant, rtol=1e-6)
    assert abs(slope(1.1001) / secant - 1) > 1e-6


def test_overlaps_refuse_what_is_no_softmax():
    for n, s, r, words in (
        (0, 1.0, 0.5, "`n` must be a whole number not below 1, or infinity, but got 0."),
        (2.5, 1.0, 0.5, "`n` must be a whole number not below 1, or infinity, but got 2.5."),
        (8, -1.0, 0.5, "`s` must be zero or positive, and finite, but got -1."),
        (8, np.nan, 0.5, "`s` must be zero or positive, and finite, but got nan."),
        (8, 1.0, -0.1, "`r` must be between 0 and 1, but got -0.1."),
        (8, 1.0, np.array([0.5, 1.1]), "`r` must be between 0 and 1, but got 1.1."),
    ):
        with pytest.raises(ValueError, match="^" + re.escape(words) + "$"):
            softmax_overlaps(n, s, r)
    with pytest.raises(ValueError, match=r"^`method` must be one of exact, .*, expansion, but got mean\.$"):
        softmax_overlaps(8, 1.0, 0.5, "mean")
    with pytest.raises(ValueError, match=r"^`beta` must be positive, but got 0\.$"):
        condensed_overlap(jnp.array([1.0, 0.0]))
