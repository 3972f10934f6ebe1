"""A dataset for the figures, and figures that are closed after each test."""

import matplotlib.pyplot as plt
import pytest

from tests.figures.datasets import VERDICT, transfer_dataset


@pytest.fixture(scope="session")
def dataset():
    return transfer_dataset(failed=[((1, 2, 1), 0)], verdict=VERDICT)


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")
