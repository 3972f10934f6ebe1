"""Distances from samples: the estimates against their definitions, written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from sims.transfer.data_distances import Sizes, moment, simulate

SIZES = Sizes(3, 40, 25)
CELLS = {
    "theta": jnp.array([0.0, 1.1]), "sigma": jnp.array([0.6, 0.4]),
    "source_norm": jnp.asarray(1.2), "target_norm": jnp.asarray(0.8),
}  # fmt: skip
LENGTH = 1.7


@pytest.fixture(scope="module")
def estimates():
    return simulate(jax.random.key(5), CELLS, {"bandwidth": jnp.asarray(LENGTH)}, SIZES)


def samples(cell):
    """(x, y) of both laws, as the simulation draws them."""
    k_source, k_target, k_noise = jax.random.split(jax.random.key(5), 3)
    x_s, x_t = (np.array(jax.random.normal(k, (40, 3))) for k in (k_source, k_target))
    noise = np.array(jax.random.normal(k_noise, (2, 40)))
    theta, sigma = float(CELLS["theta"][cell]), float(CELLS["sigma"][cell])
    source, target = np.array([1.2, 0, 0]), 0.8 * np.array([np.cos(theta), np.sin(theta), 0])
    return x_s, x_s @ source + sigma * noise[0], x_t, x_t @ target + sigma * noise[1], source, target, sigma


@pytest.mark.parametrize("cell", [0, 1])
def test_kernel_estimate_is_the_u_statistic(estimates, cell):
    x_s, y_s, x_t, y_t, *_ = samples(cell)
    z, w = np.c_[x_s, y_s][:25], np.c_[x_t, y_t][:25]

    def k(a, b):
        return np.exp(-((a - b) ** 2).sum() / (2 * LENGTH**2))

    def of_pairs(v):
        return sum(k(v[i], v[j]) for i in range(25) for j in range(25) if i != j) / (25 * 24)

    expected = of_pairs(z) + of_pairs(w) - 2 * np.mean([[k(a, b) for b in w] for a in z])
    assert float(estimates["mmd_squared"][cell]) == pytest.approx(expected, abs=1e-13)


@pytest.mark.parametrize("cell", [0, 1])
def test_likelihood_ratio_is_that_of_the_densities(estimates, cell):
    x, y, *_, source, target, sigma = samples(cell)
    ratio = ((y - x @ target) ** 2 - (y - x @ source) ** 2) / (2 * sigma**2)
    assert float(estimates["kl_divergence"][cell]) == pytest.approx(ratio.mean(), rel=1e-12)


@pytest.mark.parametrize("cell", [0, 1])
def test_wasserstein_estimate_is_that_of_the_empirical_moments(estimates, cell):
    x_s, y_s, x_t, y_t, *_ = samples(cell)
    a, b = np.array(moment(jnp.array(x_s), jnp.array(y_s))), np.array(moment(jnp.array(x_t), jnp.array(y_t)))
    root = scipy.linalg.sqrtm(a)
    expected = np.trace(a + b - 2 * np.real(scipy.linalg.sqrtm(root @ b @ root)))
    assert float(estimates["wasserstein2_squared"][cell]) == pytest.approx(expected, rel=1e-9)
