"""The quartic landscapes against the definitions of the losses, averaged over data with Gaussian fourth moments."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from theory.ssl_collapse import (
    Landscape,
    anchor_augmented_loss,
    distance_quartic_term,
    effective_landscape,
    origin_matrix,
    positive_in_denominator_loss,
    quartic_loss,
)

A0 = np.array([[1.2, 0.4], [0.4, 0.7]])
C = np.array([[0.5, -0.2], [-0.2, 0.3]])
W = np.array([[0.4, -0.3], [0.2, 0.5]])
TAU, ALPHA, DECAY = 0.8, 1.6, 0.05
NUMBERS = (TAU, ALPHA, DECAY)
THREE = np.array([-(3**0.5), 0.0, 3**0.5]), np.array([1 / 6, 2 / 3, 1 / 6])  # the moments of a normal up to the fifth


def points(covariance):
    """Three points a dimension, with their weights: the moments are those of a Gaussian up to the fifth."""
    root, d = np.linalg.cholesky(np.atleast_2d(covariance)), len(np.atleast_2d(covariance))
    z = np.array(list(itertools.product(THREE[0], repeat=d)))
    weights = np.prod(list(itertools.product(THREE[1], repeat=d)), axis=1)
    return z @ root.T, weights


def data(A0=A0, C=C):
    """(first view, second view, weights) of every positive pair, and (clean, view, weights) of every input."""
    (x, p), (e, q) = points(A0), points(C)
    k, i, j = (g.ravel() for g in np.meshgrid(range(len(x)), range(len(e)), range(len(e)), indexing="ij"))
    pairs = x[k] + e[i], x[k] + e[j], p[k] * q[i] * q[j]
    k, i = (g.ravel() for g in np.meshgrid(range(len(x)), range(len(e)), indexing="ij"))
    return pairs, (x[k], x[k] + e[i], p[k] * q[i])


def distance(f, g):
    return -jnp.sum((f[:, None, :] - g[None, :, :]) ** 2, -1) / (2 * TAU)


def product(f, g):
    return f @ g.T / TAU


def infonce(similarity, pairs="augmented", A0=A0, C=C, negatives=None):
    """InfoNCE of W by its definition, at N = infinity or over every draw of N negatives."""
    (first, second, p), (clean, views, q) = data(A0, C)
    with_positive = pairs == "positive_in_denominator"
    anchors, weights = (first, p) if with_positive else (clean if pairs == "clean" else views, q)
    others = clean if pairs in ("clean", "anchor_augmented") else views

    def loss(W):
        embed = [x @ W.T for x in (anchors, first, second, others)]
        every = similarity(embed[0], embed[3])
        if similarity is distance:
            positives = -jnp.sum((embed[1] - embed[2]) ** 2, 1) / (2 * TAU)
        else:
            positives = jnp.sum(embed[1] * embed[2], 1) / TAU
        pull = -ALPHA * jnp.sum(p * positives) + DECAY * jnp.sum(W**2)
        if negatives is None:
            return pull + weights @ jnp.log(jnp.exp(every) @ q)
        chosen = np.array(list(itertools.product(range(len(q)), repeat=negatives)))
        total = jnp.sum(jnp.exp(every[:, chosen]), -1)
        if with_positive:
            total = total + jnp.exp(positives)[:, None]
        return pull + weights @ jnp.log(total / negatives) @ np.prod(q[chosen], axis=1)

    return loss


def orders(loss, W):
    """Coefficients of s^2 and s^4 in loss(s W)."""

    derivatives = [lambda s: loss(s * W)]
    for _ in range(4):
        derivatives.append(lambda s, g=derivatives[-1]: jax.jvp(g, (s,), (jnp.ones(()),))[1])
    return np.array(jax.jit(lambda s: (derivatives[2](s) / 2, derivatives[4](s) / 24))(0.0))


def quartic(landscape):
    return lambda W: quartic_loss(W, landscape)


@pytest.mark.parametrize("pairs", ["augmented", "clean"])
@pytest.mark.parametrize("negatives", [None, 1, 2])
def test_infonce_of_distances(pairs, negatives):
    landscape = effective_landscape(
        A0, C, "infonce_distance", *NUMBERS, np.inf if negatives is None else negatives, pairs=pairs
    )
    if negatives == 2:
        small = A0[:1, :1], C[:1, :1]
        landscape = effective_landscape(*small, "infonce_distance", *NUMBERS, 2, pairs=pairs)
        found = orders(infonce(distance, pairs, *small, negatives=2), W[:, :1])
        np.testing.assert_allclose(found, orders(quartic(landscape), W[:, :1]), rtol=1e-10)
        return
    found = orders(infonce(distance, pairs, negatives=negatives), W)
    np.testing.assert_allclose(found, orders(quartic(landscape), W), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("negatives", [None, 1])
def test_infonce_of_products(negatives):
    landscape = effective_landscape(A0, C, "infonce_dot", *NUMBERS, np.inf if negatives is None else negatives)
    found = orders(infonce(product, negatives=negatives), W)
    np.testing.assert_allclose(found, orders(quartic(landscape), W), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("negatives", [None, 1])
def test_augmented_anchors_and_clean_negatives(negatives):
    N = np.inf if negatives is None else negatives
    found = orders(infonce(distance, "anchor_augmented", negatives=negatives), W)
    expected = orders(lambda W: anchor_augmented_loss(W, A0, C, *NUMBERS, N), W)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(anchor_augmented_loss(W, A0, 0 * C, *NUMBERS, N), quartic_loss(
        W, effective_landscape(A0, 0 * C, "infonce_distance", *NUMBERS, N)
    ), rtol=1e-13)  # fmt: skip


@pytest.mark.thorough
@pytest.mark.parametrize(("loss", "similarity"), [("infonce_distance", distance), ("infonce_dot", product)])
def test_the_positive_in_the_denominator(loss, similarity):
    how = {"pairs": "positive_in_denominator"}
    found = orders(infonce(similarity, "positive_in_denominator", negatives=1), W)
    expected = orders(lambda W: positive_in_denominator_loss(W, A0, C, loss, *NUMBERS, 1), W)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    small = A0[:1, :1], C[:1, :1]
    found = orders(infonce(similarity, "positive_in_denominator", *small, negatives=3), W[:, :1])
    expected = orders(lambda W: positive_in_denominator_loss(W, *small, loss, *NUMBERS, 3), W[:, :1])
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    for N in (3, np.inf):
        second = orders(lambda W, N=N: positive_in_denominator_loss(W, A0, C, loss, *NUMBERS, N), W)
        both = orders(quartic(effective_landscape(A0, C, loss, *NUMBERS, N, **how)), W)
        np.testing.assert_allclose(second[0], both[0], rtol=1e-12)
    np.testing.assert_allclose(second, both, rtol=1e-12)


def test_spectral_barlow_and_alignment_are_exact_for_data_that_is_not_gaussian():
    rng = np.random.default_rng(0)
    clean, noise = (z - z.mean(0) for z in (rng.exponential(size=(5, 3)), rng.uniform(size=(4, 3))))
    cov = clean.T @ clean / 5, noise.T @ noise / 4
    big = 1.7 * rng.normal(size=(2, 3))
    f = (clean[:, None, :] + noise[None, :, :]) @ big.T
    positives = np.einsum("kia,kja->", f, f) / 80
    flat = f.reshape(-1, 2)
    decay = DECAY * (big**2).sum()
    spectral = -2 * positives + ((flat @ flat.T) ** 2).mean() + decay
    found = quartic_loss(big, effective_landscape(*cov, "spectral", weight_decay=DECAY))
    np.testing.assert_allclose(found, spectral, rtol=1e-12)
    K = np.einsum("kia,kjb->ab", f, f) / 80
    found = quartic_loss(big, effective_landscape(*cov, "barlow", weight_decay=DECAY))
    np.testing.assert_allclose(found, ((K - np.eye(2)) ** 2).sum() - 2 + decay, rtol=1e-12)
    half_squares = np.mean(((f[:, :, None, :] - f[:, None, :, :]) ** 2).sum(-1)) / 2
    found = quartic_loss(big, effective_landscape(*cov, "alignment", weight_decay=DECAY))
    np.testing.assert_allclose(found, half_squares + decay, rtol=1e-12)


def test_distances_of_any_symmetric_data():
    x = np.concatenate([z := np.random.default_rng(1).normal(size=(4, 2)) ** 3, -z])
    S, variance = W @ (x.T @ x / 8) @ W.T, np.var(((x @ W.T) ** 2).sum(1))

    def loss(W):
        return jnp.mean(jnp.log(jnp.mean(jnp.exp(distance(x @ W.T, x @ W.T)), 1)))

    np.testing.assert_allclose(orders(loss, W)[1], distance_quartic_term(S, variance, TAU), rtol=1e-10)
    gaussian = distance_quartic_term(S, 2 * (S**2).sum(), TAU, 5)
    np.testing.assert_allclose(gaussian, 0.75 * 0.8 / TAU**2 * (S**2).sum(), rtol=1e-13)


def test_the_general_rule_gives_every_row_of_distances():
    N, views = 7, 2 * (A0 + C)
    rows = {
        "augmented": (views, 2 * C),
        "clean": (2 * A0, 2 * C),
        "positive_in_denominator": ((N * views + 2 * C) / (N + 1), 2 * C),
    }
    for pairs, differences in rows.items():
        B = effective_landscape(A0, C, "infonce_distance", *NUMBERS, N, pairs=pairs).B
        np.testing.assert_allclose(origin_matrix(*differences, *NUMBERS), B, rtol=1e-13, atol=1e-15)


def test_augmentation_alone_collapses_nothing():
    B = effective_landscape(np.diag([1.0, 1e-3]), np.diag([9.0, 4.0]), "infonce_distance").B
    np.testing.assert_allclose(B, np.diag([1.0, 1e-3]), rtol=1e-15)


def test_jit_gradient_and_float32():
    def trace(tau, alpha, N):
        B, Sigma, kappa = effective_landscape(A0, C, "infonce_distance", tau, alpha, DECAY, N)
        return quartic_loss(W, Landscape(B, Sigma, kappa))

    check_grads(jax.jit(trace), (0.8, 1.6, 7.0), order=1, modes=["rev"], atol=1e-6, rtol=1e-6)
    small = [jnp.asarray(x, jnp.float32) for x in (A0, C)]
    assert {x.dtype for x in effective_landscape(*small, "infonce_dot", 0.8)} == {np.dtype("float32")}
    assert anchor_augmented_loss(jnp.asarray(W, jnp.float32), *small).dtype == np.float32


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            (A0, C, "simclr"),
            "`loss` must be one of infonce_distance, infonce_dot, spectral, barlow, alignment, but got simclr.",
        ),
        ((A0, C, "infonce_dot", -0.2), "`temperature` must be positive, but got -0.2."),
        ((A0, C, "infonce_dot", 1.0, -1.0), "`alpha` must be zero or positive, but got -1."),
        ((A0, C, "spectral", 1.0, 1.0, -0.1), "`weight_decay` must be zero or positive, but got -0.1."),
        ((A0, C, "infonce_dot", 1.0, 1.0, 0.0, 0.5), "`n_negatives` must be 1 or more, but got 0.5."),
        ((A0, C, "infonce_dot", [0.5]), "`temperature` must be a number, but got shape (1,)."),
        ((A0, np.eye(3), "spectral"), "`C` must have the shape of `A0`, (2, 2), but got shape (3, 3)."),
        ((-A0, C, "spectral"), "`A0` must be without negative eigenvalues, but got -1.42170."),
        ((np.diag([1.0, 0.0]), 0 * C, "spectral"), "`A0 + C` must be positive definite, but got 0."),
        ((np.diag([1.0, 0.0]), C, "barlow"), "`A0` must be positive definite, but got 0."),
        ((A0, np.array([[0.5, 0.1], [0.0, 0.5]]), "spectral"),
         "`C` must be symmetric, but differs from its transpose by 0.1."),
        ((A0, np.array([[np.nan, 0.0], [0.0, 0.5]]), "spectral"), "`C` must be finite, but got nan."),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_one_sentence(arguments, sentence):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        effective_landscape(*arguments)
    assert str(error.value) == sentence.replace("-1.42170", f"{np.linalg.eigvalsh(-A0).min():.6g}")


def test_other_functions_refuse_what_does_not_fit():
    for call, sentence in (
        (lambda: effective_landscape(A0, C, "spectral", pairs="clean"),
         "`pairs` must be augmented for spectral, but got clean."),
        (lambda: effective_landscape(A0, C, "infonce_dot", pairs="clean"),
         "`pairs` must be augmented or positive_in_denominator for infonce_dot, but got clean."),
        (lambda: effective_landscape(A0, C, "infonce_distance", pairs="all"),
         "`pairs` must be one of augmented, clean, positive_in_denominator, but got all."),
        (lambda: origin_matrix(A0, np.eye(3)),
         "`positive_differences` must have the shape of `negative_differences`, (2, 2), but got shape (3, 3)."),
        (lambda: anchor_augmented_loss(np.ones((2, 3)), A0, C), "`W` must have shape (m, 2), but got shape (2, 3)."),
        (lambda: positive_in_denominator_loss(W, A0, C, "barlow"),
         "`pairs` must be augmented for barlow, but got positive_in_denominator."),
        (lambda: distance_quartic_term(A0, -1.0), "`norm_variance` must be zero or positive, but got -1."),
        (lambda: quartic_loss(np.ones(3), effective_landscape(A0, C, "spectral")),
         "`W` must have shape (m, 2), but got shape (3,)."),
    ):  # fmt: skip
        with pytest.raises(ValueError) as error:  # noqa: PT011
            call()
        assert str(error.value) == sentence
