"""Noise of a minibatch: every batch of a small data set."""

import itertools

import numpy as np
import pytest

from theory.sampling import minibatch_variance

VALUES = np.array([0.3, -1.2, 2.0, 0.7, 0.1])


@pytest.mark.parametrize("batch", [1, 2, 3, 5])
def test_all_batches(batch):
    pairs = (
        (None, itertools.product(VALUES, repeat=batch)),
        (len(VALUES), itertools.combinations(VALUES, batch)),
    )
    for samples, batches in pairs:
        exact = np.var([np.mean(b) for b in batches]) / np.var(VALUES)
        np.testing.assert_allclose(minibatch_variance(batch, samples), exact, rtol=1e-12, atol=1e-15)


def test_arrays_and_a_single_sample():
    np.testing.assert_allclose(minibatch_variance([1, 2, 4], 4), [1, 1 / 3, 0])
    assert minibatch_variance(1, 1) == 0


def test_bad_arguments_are_named():
    for arguments, sentence in (
        ((0,), "`batch` must be a whole number not below 1, but got 0."),
        ((1.5,), "`batch` must be a whole number not below 1, but got 1.5."),
        ((5, 4), "`batch` must be at most the number of samples, but got 5."),
    ):
        with pytest.raises(ValueError) as error:  # noqa: PT011
            minibatch_variance(*arguments)
        assert str(error.value) == sentence
