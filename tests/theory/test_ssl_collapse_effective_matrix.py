"""The matrix that pulls an encoder: gradients of minibatch losses, a double sum, the Gaussian limit, its null space."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sims.ssl_collapse import losses
from theory.ssl_collapse import (
    dormant_directions,
    effective_landscape,
    effective_matrix,
    gaussian_effective_matrix,
)

A0 = np.array([[1.5, 0.4, 0.0], [0.4, 0.8, 0.2], [0.0, 0.2, 0.6]])
C = np.array([[0.3, -0.1, 0.1], [-0.1, 0.5, 0.0], [0.1, 0.0, 0.2]])
W = np.array([[0.4, -0.3, 0.2], [0.2, 0.5, 0.6]])
NAMES = ("infonce_distance", "infonce_dot", "spectral", "barlow", "alignment")
INFONCE = {"temperature": 0.8, "alpha": 1.6}
RANDOM = np.random.default_rng(0)
VIEWS = RANDOM.normal(size=(2, 12, 3)) + RANDOM.exponential(size=(12, 3))


def minibatch_loss(name, W, x, x_plus, positive=False):
    options = INFONCE | {"positive": positive} if name.startswith("infonce") else {}
    return getattr(losses, name)(x @ W.T, x_plus @ W.T, **options) + 0.05 * jnp.sum(W**2)


@pytest.mark.thorough
@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_it_is_the_gradient_of_every_loss_as_coded(name, positive):
    if positive and not name.startswith("infonce"):
        return
    pairs = "positive_in_denominator" if positive else "augmented"
    gradient = jax.grad(minibatch_loss, argnums=1)(name, jnp.array(W), *VIEWS, positive)
    B = effective_matrix(W, *VIEWS, name, **INFONCE, weight_decay=0.05, pairs=pairs)
    np.testing.assert_allclose(-2 * W @ B, gradient, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(B, B.T, rtol=1e-13, atol=1e-15)


@pytest.mark.thorough
def test_clean_pairs_repel_and_augmented_ones_attract():
    clean = RANDOM.normal(size=(12, 3))

    def loss(W):
        pull = jnp.mean(jnp.sum((VIEWS[0] @ W.T - VIEWS[1] @ W.T) ** 2, 1)) / 1.6
        s = -losses.squared_distances(clean @ W.T, clean @ W.T) / 1.6
        return 1.6 * pull + jnp.mean(losses.log_mean_negatives(s))

    B = effective_matrix(W, *VIEWS, **INFONCE, pairs="clean", clean=clean)
    np.testing.assert_allclose(-2 * W @ B, jax.grad(loss)(jnp.array(W)), rtol=1e-11)


def test_the_pairs_are_tilted_towards_those_nearby():
    x, x_plus = VIEWS
    expected = np.zeros((3, 3))
    for i in range(12):
        others = [j for j in range(12) if j != i]
        apart = x[i] - x_plus[others]
        p = np.exp(-((apart @ W.T) ** 2).sum(1) / 1.6)
        expected += np.einsum("j,ja,jb->ab", p / p.sum(), apart, apart) / (12 * 1.6)
    expected -= 1.6 * (x - x_plus).T @ (x - x_plus) / (12 * 1.6) + 0.05 * np.eye(3)
    found = effective_matrix(W, x, x_plus, **INFONCE, weight_decay=0.05)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def gaussian_loss(name, M):
    Sigma, root = A0 + C, np.linalg.cholesky(A0 + C)
    S = root.T @ M @ root
    if name == "infonce_distance":
        T = jnp.eye(3) + S / 0.8
        pull = 1.6 / 0.8 * jnp.trace(M @ C) - jnp.linalg.slogdet(T)[1] / 2
        return pull - jnp.trace(jnp.linalg.inv(T) @ S) / 1.6 + 0.05 * jnp.trace(M)
    B, Sigma, kappa = effective_landscape(A0, C, name, **INFONCE, weight_decay=0.05)
    return -jnp.trace(M @ B) + kappa * jnp.trace(M @ Sigma @ M @ Sigma)


@pytest.mark.parametrize("name", NAMES)
def test_of_gaussian_features_it_is_minus_the_derivative_in_the_gram_matrix(name):
    M = W.T @ W
    slope = jax.grad(lambda M: gaussian_loss(name, M))(jnp.array(M))
    found = gaussian_effective_matrix(W, A0, C, name, **INFONCE, weight_decay=0.05)
    np.testing.assert_allclose(found, -(slope + slope.T) / 2, rtol=1e-11, atol=1e-13)
    at_zero = gaussian_effective_matrix(0 * W, A0, C, name, **INFONCE, weight_decay=0.05)
    B = effective_landscape(A0, C, name, **INFONCE, weight_decay=0.05).B
    np.testing.assert_allclose(at_zero, B, rtol=1e-12, atol=1e-14)


@pytest.mark.thorough
@pytest.mark.parametrize("name", NAMES)
def test_many_samples_come_to_the_gaussian_limit(name):
    z = np.random.default_rng(1).normal(size=(3, 1500, 3))
    clean, noise = np.linalg.cholesky(A0), np.linalg.cholesky(C)
    x, x_plus = z[0] @ clean.T + z[1] @ noise.T, z[0] @ clean.T + z[2] @ noise.T
    small = 0.5 * W  # so that the dot products of 1500 negatives average
    found = effective_matrix(small, x, x_plus, name, **INFONCE)
    exact = gaussian_effective_matrix(small, A0, C, name, **INFONCE)
    np.testing.assert_allclose(found, exact, atol=0.09 * np.abs(exact).max())


def test_at_the_global_minimum_used_directions_are_at_rest_and_the_others_fall():
    Sigma, tau = A0 + C, 0.8
    values, V = np.linalg.eigh(Sigma)
    root = V / np.sqrt(values) @ V.T
    q, v = np.linalg.eigh(root @ (1.6 * C + 0.05 * tau * np.eye(3)) @ root)
    strength = 2 / (np.sqrt(1 + 8 * q[:2]) - 1) - 1
    best = np.sqrt(tau * strength)[:, None] * (root @ v[:, :2]).T
    np.testing.assert_allclose((best.T @ best)[0, 0], 0.8116424480, rtol=1e-9)
    B = gaussian_effective_matrix(best, A0, C, **INFONCE, weight_decay=0.05)
    np.testing.assert_allclose(best @ B, 0, atol=1e-14)
    # Three positive modes and two dimensions: the third would grow, had it a dimension.
    dormant = dormant_directions(best, B)
    assert dormant.pull[0] > 0
    assert np.isnan(dormant.pull[1:]).all()
    np.testing.assert_allclose(best @ np.asarray(dormant.directions[:, 0]), 0, atol=1e-12)


def test_dormant_directions_are_the_spectrum_on_the_null_space():
    S = RANDOM.normal(size=(5, 5))
    B, used = S + S.T, RANDOM.normal(size=(3, 5))
    dormant = dormant_directions(used, B)
    null = np.linalg.svd(used)[2][3:]
    np.testing.assert_allclose(dormant.pull[:2], np.linalg.eigvalsh(null @ B @ null.T)[::-1], rtol=1e-12)
    v = np.asarray(dormant.directions[:, :2])
    np.testing.assert_allclose(v.T @ B @ v, np.diag(dormant.pull[:2]), atol=1e-12)
    np.testing.assert_allclose(used @ v, 0, atol=1e-12)
    np.testing.assert_allclose(dormant_directions(0 * used, B).pull, np.linalg.eigvalsh(B)[::-1], rtol=1e-10)
    assert np.isnan(dormant_directions(np.eye(5), B).pull).all()


def test_a_small_component_grows_at_twice_the_pull():
    x, x_plus = VIEWS
    B = effective_matrix(W, x, x_plus, **INFONCE)
    dormant = dormant_directions(W, B)
    v = dormant.directions[:, 0]
    wider = jnp.concatenate([jnp.array(W), 1e-4 * v[None, :]])
    velocity = -jax.grad(minibatch_loss, argnums=1)("infonce_distance", wider, x, x_plus)[-1] + 0.1 * wider[-1]
    np.testing.assert_allclose(velocity @ v / 1e-4, 2 * dormant.pull[0], rtol=1e-6)


@pytest.mark.thorough
def test_float32_jit_and_gradient():
    with jax.enable_x64(False):
        single = [np.float32(v) for v in (W, *VIEWS)]
        found = jax.jit(effective_matrix)(*single)
        assert found.dtype == np.float32
        gaussian = jax.jit(gaussian_effective_matrix)(*map(np.float32, (W, A0, C)))
        assert gaussian.dtype == np.float32
        pull = jax.jit(lambda W, B: dormant_directions(W, B).pull)(single[0], found)
    np.testing.assert_allclose(found, effective_matrix(W, *VIEWS), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(pull[0], dormant_directions(W, effective_matrix(W, *VIEWS)).pull[0], rtol=1e-3)
    slope = jax.grad(lambda tau: jnp.trace(effective_matrix(W, *VIEWS, temperature=tau)))(0.8)
    step = [jnp.trace(effective_matrix(W, *VIEWS, temperature=0.8 + h)) for h in (-1e-5, 1e-5)]
    np.testing.assert_allclose(slope, (step[1] - step[0]) / 2e-5, rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: effective_matrix(W, VIEWS[0], VIEWS[1][:5]),
         "`x_plus` must have the shape of `x`, (12, 3), but got shape (5, 3)."),
        (lambda: effective_matrix(W, VIEWS[0][:1], VIEWS[1][:1]),
         "`x` must have the shape (n, d) with n >= 2, but got shape (1, 3)."),
        (lambda: effective_matrix(W[:, :2], *VIEWS), "`W` must have the shape (m, 3), but got shape (2, 2)."),
        (lambda: effective_matrix(W, *VIEWS, "simclr"),
         f"`loss` must be one of {', '.join(NAMES)}, but got simclr."),
        (lambda: effective_matrix(W, *VIEWS, pairs="all"),
         "`pairs` must be one of augmented, positive_in_denominator, clean, but got all."),
        (lambda: effective_matrix(W, *VIEWS, pairs="clean"),
         "`clean` must be given with pairs of clean features, and only then."),
        (lambda: effective_matrix(W, *VIEWS, "spectral", pairs="positive_in_denominator"),
         "`pairs` must be augmented for spectral, but got positive_in_denominator."),
        (lambda: effective_matrix(W, *VIEWS, temperature=0.0), "`temperature` must be positive, but got 0."),
        (lambda: effective_matrix(W, np.full((12, 3), np.nan), VIEWS[1]), "`x` must be finite, but got nan."),
        (lambda: gaussian_effective_matrix(W[:, :2], A0, C), "`W` must have the shape (m, 3), but got shape (2, 2)."),
        (lambda: gaussian_effective_matrix(W, A0, C, "byol"),
         f"`loss` must be one of {', '.join(NAMES)}, but got byol."),
        (lambda: dormant_directions(W, np.eye(2)), "`B_eff` must have the shape (3, 3), but got shape (2, 2)."),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_one_sentence(call, sentence):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        call()
    assert str(error.value) == sentence
