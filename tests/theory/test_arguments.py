"""Argument checks: the sentence, concrete values only, one dtype and one shape."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from theory import arguments


@pytest.mark.parametrize(
    ("check", "bad", "good", "words"),
    [
        (arguments.positive, -0.2, 0.1, "positive"),
        (arguments.positive, 0, np.inf, "positive"),
        (arguments.positive, np.nan, 1, "positive"),
        (arguments.nonnegative, -1e-9, 0, "zero or positive"),
        (arguments.finite, np.inf, -3, "finite"),
        (arguments.angle, 3.2, np.float32(np.pi), "between 0 and pi"),
        (arguments.angle, -0.1, 0, "between 0 and pi"),
    ],
)
def test_a_bad_value_is_one_sentence_and_its_neighbour_passes(check, bad, good, words):
    check(gamma=good)
    with pytest.raises(ValueError, match=rf"^`gamma` must be {words}, but got {bad:.6g}\.$"):
        check(gamma=bad)


def test_the_first_offending_entry_is_named():
    with pytest.raises(ValueError, match=r"^`sigma` must be positive, but got -0\.2\.$"):
        arguments.positive(gamma=1.0, sigma=jnp.array([[1.0, -0.2], [-0.3, 1.0]]))


@pytest.mark.parametrize("bad", [1.5, 1, np.inf, np.nan])
def test_whole_numbers_from_a_minimum(bad):
    arguments.integer(2, n=np.array([2, 3]), d=4.0)
    with pytest.raises(ValueError, match=r"^`n` must be a whole number not below 2, but got"):
        arguments.integer(2, n=bad)


@pytest.mark.parametrize("bad", [0, 1.5, -1, np.nan])
def test_depths_are_whole_or_infinite(bad):
    for depth in (1, 2, 7.0, np.inf):
        arguments.depth_of_network(depth)
    with pytest.raises(ValueError, match=r"^`depth` must be a whole number not below 1"):
        arguments.depth_of_network(bad)


def test_traced_values_pass_and_concrete_neighbours_are_still_checked():
    def f(x, fixed):
        arguments.positive(x=x, fixed=fixed)
        return 2 * x

    assert jax.jit(lambda x: f(x, 1.0))(-1.0) == -2
    assert jax.grad(lambda x: f(x, 1.0))(-1.0) == 2
    np.testing.assert_array_equal(jax.vmap(lambda x: f(x, 1.0))(-jnp.ones(2)), [-2, -2])
    with pytest.raises(ValueError, match="`fixed`"):
        jax.jit(lambda x: f(x, -1.0))(1.0)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ((1, 2.0), jnp.float64),
        ((np.float64(1), jnp.ones(3, jnp.float32)), jnp.float32),
        ((np.float32(1), 2), jnp.float64),
        ((np.ones(3), jnp.ones((), jnp.float32)), jnp.float64),
        ((jnp.arange(3), jnp.ones((2, 1), jnp.float32)), jnp.float32),
        ((jnp.arange(3), True), jnp.float64),
    ],
)
def test_together_has_one_dtype_and_one_shape(values, dtype):
    result = arguments.together(*values)
    assert {array.dtype for array in result} == {jnp.dtype(dtype)}
    assert {array.shape for array in result} == {np.broadcast_shapes(*map(np.shape, values))}
    for array, value in zip(result, values, strict=True):
        np.testing.assert_array_equal(array, np.broadcast_to(value, array.shape))


def test_together_works_under_transformations():
    def f(x, y):
        x, y = arguments.together(x, y)
        return jnp.sum(x * y)

    y = np.arange(6).reshape(2, 3)
    assert jax.jit(f)(2, y) == 30
    assert jax.grad(f)(2.0, y) == 15
    np.testing.assert_array_equal(jax.vmap(f, (None, 0))(2, y), [6, 24])


def test_shapes_that_do_not_broadcast_are_one_sentence():
    with pytest.raises(ValueError, match=r"^The arguments' shapes do not broadcast: .*\.$"):
        arguments.together(np.ones(2), np.ones(3))


def test_with_one_dtype_keeps_shapes():
    matrix, vector = arguments.with_one_dtype(np.ones((2, 3), np.float32), [1, 2])
    assert matrix.shape == (2, 3)
    assert vector.shape == (2,)
    assert matrix.dtype == vector.dtype == jnp.float32
