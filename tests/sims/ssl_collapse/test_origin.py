"""Taylor coefficients of sampled losses: against direct differences, and against the definitions of the pairs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sims.engine.experiment import configure
from sims.ssl_collapse import losses
from sims.ssl_collapse.origin import any_terms, norm_variance, origin, quartic_terms
from sims.ssl_collapse.taylor import (
    A0,
    ANCHOR,
    BARLOW,
    CLEAN,
    DIRECTIONS,
    DISTANCE,
    DISTANCE_KEPT,
    DOT,
    ROW,
    C,
    W,
    draw,
    every_loss,
    taylor,
)

NUMBERS = (jnp.array(0.8), 1.6, 0.3)


def test_derivatives_see_through_the_point_where_all_distances_vanish():
    f, g = np.random.default_rng(0).normal(size=(2, 4, 3))

    def at(s):
        return losses.squared_distances(s * f, s * g)

    second = jax.jvp(lambda s: jax.jvp(at, (s,), (1.0,))[1], (0.0,), (1.0,))[1]
    np.testing.assert_allclose(second / 2, ((f[:, None] - g[None]) ** 2).sum(-1), rtol=1e-12)
    assert (losses.squared_distances(f, f) >= 0).all()


@pytest.mark.thorough
def test_coefficients_are_those_of_the_loss_at_small_weights():
    batch = draw(jax.random.key(0), 4, jnp.array(0.6))
    second, fourth = jax.jit(taylor)(batch, *NUMBERS)
    size = 0.02
    at = [every_loss(k * size * jnp.asarray(W), batch, *NUMBERS) for k in (0, 1, 2)]
    # An even function of the size: its second order cancels between two of three differences.
    rise = [(v - at[0]) / (k * size) ** 2 for k, v in zip((1, 2), at[1:], strict=True)]
    np.testing.assert_allclose((rise[1] - rise[0]) / (3 * size**2), fourth, rtol=0.01, atol=1e-4)
    direction = jnp.asarray(ROW[:, None] * DIRECTIONS[4][None, :])
    near = (every_loss(1e-3 * direction, batch, *NUMBERS) - at[0]) / 1e-6
    np.testing.assert_allclose(second[:, 4], near, rtol=1e-4, atol=1e-4)


@pytest.mark.thorough
def test_pairs_of_every_loss_by_loops():
    clean, first, second = (np.asarray(x) for x in draw(jax.random.key(1), 3, jnp.array(1.0)))
    tau, alpha, decay = 0.8, 1.6, 0.3
    found = every_loss(jnp.asarray(W), (clean, first, second), *NUMBERS)

    def square(x, y):
        return ((W @ (x - y)) ** 2).sum()

    pull = alpha * np.mean([square(a, b) for a, b in zip(first, second, strict=True)]) / (2 * tau)
    pull += decay * (W**2).sum()

    def push(anchors, negatives, positives=None):
        out = []
        for i in range(3):
            terms = [np.exp(-square(anchors[i], negatives[j]) / (2 * tau)) for j in range(3) if j != i]
            if positives is not None:
                terms.append(np.exp(-square(anchors[i], positives[i]) / (2 * tau)))
            out.append(np.log(sum(terms) / 2))
        return np.mean(out)

    for index, value in (
        (DISTANCE, push(first, second)), (CLEAN, push(clean, clean)), (ANCHOR, push(first, clean)),
        (DISTANCE_KEPT, push(first, second, second)),
    ):  # fmt: skip
        np.testing.assert_allclose(found[index], pull + value, rtol=1e-12)
    K = sum(np.outer(W @ a, W @ b) for a, b in zip(first, second, strict=True)) / 3
    np.testing.assert_allclose(found[BARLOW], ((K - np.eye(2)) ** 2).sum() - 2 + decay * (W**2).sum(), rtol=1e-12)


@pytest.mark.thorough
def test_data_have_the_covariances_at_every_density():
    for density in (0.3, 1.0):
        clean, first, second = draw(jax.random.key(2), 200_000, jnp.array(density))
        np.testing.assert_allclose(jnp.mean(jnp.any(clean != 0, 1)), density, atol=0.01)
        np.testing.assert_allclose(first.T @ second / 200_000, A0, atol=0.05)
        np.testing.assert_allclose(first.T @ first / 200_000, A0 + C, atol=0.05)
        squares = jnp.sum((first @ W.T) ** 2, 1)
        np.testing.assert_allclose(jnp.var(squares), norm_variance(C, density), rtol=0.1)


def test_sparse_data_feel_the_variance_of_the_norm_alone():
    dense, sparse = any_terms(7, 0.8, jnp.array(1.0)), any_terms(7, 0.8, jnp.array(0.3))
    gaussian = quartic_terms(7, 0.8)
    np.testing.assert_allclose(dense, gaussian[np.array([DISTANCE, CLEAN, DOT, -1])], rtol=1e-12)
    assert (sparse[:2] > 1.3 * dense[:2]).all()
    np.testing.assert_allclose(sparse[2:], dense[2:], rtol=1e-12)


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        ({"density": [0.0]}, "`density` must be above 0 and at most 1, but got 0."),
        ({"n_negatives": [0]}, "`n_negatives` must be a whole number, 1 or more, but got 0."),
        ({"temperature": -0.2}, "`temperature` must be positive, but got -0.2."),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_sentence(wish, sentence):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        configure(origin, "smoke", wish)
    assert str(error.value) == sentence
