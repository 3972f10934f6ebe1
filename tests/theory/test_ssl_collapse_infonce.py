"""InfoNCE at infinitely many negatives: fifty digits, quadrature of its definition, descent, and the thresholds."""

import re

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.optimize import minimize

from theory.ssl_collapse import (
    effective_landscape,
    infonce_dot_loss,
    infonce_dot_minimum,
    infonce_loss,
    infonce_minimum,
    infonce_mode_loss,
    infonce_mode_strength,
    infonce_strength_near_threshold,
    infonce_variance,
)

A0 = np.array([[1.5, 0.4, 0.0], [0.4, 0.8, 0.2], [0.0, 0.2, 0.6]])
C = np.array([[0.3, -0.1, 0.1], [-0.1, 0.5, 0.0], [0.1, 0.0, 0.2]])
W = np.array([[0.4, -0.3, 0.2], [0.2, 0.5, 0.6]])
PARAMETERS = (0.8, 1.6, 0.05)  # tau, alpha, lambda
PAIRS = ("augmented", "clean", "clean_negatives")


@pytest.mark.thorough
def test_printed_values():
    least = infonce_minimum(A0, C, 2, *PARAMETERS)
    np.testing.assert_allclose(least.q, [0.1989148817, 0.4222415054, 0.8723004745], rtol=3e-10)
    np.testing.assert_allclose(least.strengths, [2.2799927159, 0.8309135896, 0], rtol=1e-10)
    np.testing.assert_allclose([least.loss, least.gram[0, 0]], [-0.6664303771, 0.8116424480], rtol=1e-10)
    np.testing.assert_allclose(infonce_loss(W, A0, C, *PARAMETERS), -0.2151284036, rtol=3e-10)
    np.testing.assert_allclose(infonce_dot_loss(W, A0, C, 0.8, 1.2), -0.6056781250, rtol=1e-10)
    s = infonce_mode_strength(np.array([0.07, 0.35, 0.65, 0.9]))
    np.testing.assert_allclose(s, [7.0321414274, 1.1066849064, 0.3422999691, 0.0732122813], rtol=5e-10)
    np.testing.assert_allclose(infonce_mode_loss(s[1], 0.35), -0.2478783543, rtol=3e-10)


def exact_strength(q):
    return 2 / (mp.sqrt(1 + 8 * q) - 1) - 1


@pytest.mark.thorough
def test_fifty_digits_up_to_the_threshold():
    margins = np.concatenate([10.0 ** -np.arange(1, 13), np.linspace(0.15, 0.95, 17), 1 - 10.0 ** -np.arange(2, 9)])
    with mp.workdps(50):
        exact = [exact_strength(1 - mp.mpf(x)) for x in margins]
        losses = [(1 - mp.mpf(x)) * s - mp.log1p(s) / 2 - s / (1 + s) / 2 for x, s in zip(margins, exact, strict=True)]
        few = 10.0 ** -np.arange(1, 13)
        strong = [float(exact_strength(mp.mpf(x))) for x in few]
    exact, losses = (np.array([float(x) for x in values]) for values in (exact, losses))
    np.testing.assert_allclose(infonce_mode_strength(margin=margins)[:-7], exact[:-7], rtol=1e-14)
    np.testing.assert_allclose(infonce_mode_strength(few), strong, rtol=1e-14)
    np.testing.assert_allclose(infonce_mode_loss(exact, margin=margins)[:-7], losses[:-7], rtol=1e-12)
    single = infonce_mode_strength(margin=margins[:12].astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, exact[:12], rtol=1e-6)
    found = infonce_mode_loss(exact[:12].astype(np.float32), margin=margins[:12].astype(np.float32))
    np.testing.assert_allclose(found, losses[:12], rtol=1e-5)


@pytest.mark.thorough
def test_a_mode_stands_at_the_minimum_of_its_loss_and_collapses_at_the_threshold():
    q = np.linspace(0.05, 0.99, 20)
    s = infonce_mode_strength(q)
    np.testing.assert_allclose(jax.vmap(jax.grad(infonce_mode_loss))(s, q), 0, atol=1e-13)
    u = 1 / (1 + s)
    np.testing.assert_allclose(jax.vmap(jax.grad(jax.grad(infonce_mode_loss)))(s, q), u**2 / 2 + u**3, rtol=1e-10)
    np.testing.assert_array_equal(infonce_mode_strength([-1.0, 0.0, 1.0, 3.0]), [np.inf, np.inf, 0, 0])
    np.testing.assert_array_equal(infonce_mode_strength(margin=[2.0, 0.0, -1.0]), [np.inf, 0, 0])
    assert jax.grad(infonce_mode_strength)(1.5) == 0
    check_grads(infonce_mode_strength, (0.4,), 1, ["rev"])
    check_grads(infonce_mode_loss, (0.499, 0.4), 1, ["rev"])
    np.testing.assert_allclose(jax.jit(infonce_mode_strength)(q), s, rtol=1e-14)
    np.testing.assert_allclose(infonce_mode_loss(np.nextafter(0.5, 0), q), infonce_mode_loss(0.5, q), rtol=1e-13)


@pytest.mark.thorough
def test_near_the_threshold_the_quartic_landscape_is_short_by_eight_ninths_of_the_margin():
    margin = 0.1 / 2.0 ** np.arange(5)
    exact = infonce_mode_strength(margin=margin)
    for order in (1, 2):
        error = exact - infonce_strength_near_threshold(margin, order)
        slope = np.polyfit(np.log(margin[2:]), np.log(error[2:]), 1)[0]
        assert abs(slope - order - 1) < 0.1
    short = 1 - infonce_strength_near_threshold(margin, 1) / exact
    np.testing.assert_allclose(short[-1] / margin[-1], 8 / 9, rtol=0.01)
    B, Sigma, kappa = effective_landscape(A0, C, "infonce_distance", *PARAMETERS)
    q = infonce_minimum(A0, C, 3, *PARAMETERS).q
    beta = np.linalg.eigvals(np.linalg.solve(Sigma, B)).real
    quartic = np.sort(beta / (2 * kappa) / PARAMETERS[0])[::-1]
    np.testing.assert_allclose(infonce_strength_near_threshold(1 - q, 1), quartic, rtol=1e-12)
    assert infonce_strength_near_threshold(-0.1) == 0


def quadrature(similarity, anchors, negatives, correlation):
    """E log E exp(similarity) of two Gaussian scalars of these variances, and E similarity of the positives."""
    x, w = np.polynomial.hermite_e.hermegauss(80)
    w = w / w.sum()
    f, g = np.sqrt(anchors) * x, np.sqrt(negatives) * x
    push = w @ np.log(np.exp(similarity(f[:, None], g[None, :])) @ w)
    pair = correlation * f[:, None] + np.sqrt(anchors * (1 - correlation**2)) * x[None, :]
    return push, w @ similarity(f[:, None], pair) @ w


@pytest.mark.parametrize("pairs", PAIRS)
def test_the_loss_is_its_definition(pairs):
    w, a, c, (tau, alpha, decay) = 0.7, 0.9, 0.4, PARAMETERS
    anchors = w**2 * (a if pairs == "clean" else a + c)
    negatives = w**2 * (a + c if pairs == "augmented" else a)

    def similarity(f, g):
        return -((f - g) ** 2) / (2 * tau)

    push = quadrature(similarity, anchors, negatives, 0.0)[0]
    pull = quadrature(similarity, w**2 * (a + c), 1.0, a / (a + c))[1]
    found = infonce_loss([[w]], [[a]], [[c]], *PARAMETERS, pairs=pairs)
    np.testing.assert_allclose(found, -alpha * pull + push + decay * w**2, rtol=1e-10)


def test_the_dot_product_loss_is_its_definition():
    w, a, c, tau, alpha = 0.5, 0.9, 0.4, 0.8, 1.2
    S = w**2 * (a + c)
    push, pull = quadrature(lambda f, g: f * g / tau, S, S, a / (a + c))
    found = infonce_dot_loss([[w]], [[a]], [[c]], tau, alpha, 0.05)
    np.testing.assert_allclose(found, -alpha * pull + push + 0.05 * w**2, rtol=1e-10)


@pytest.mark.thorough
@pytest.mark.parametrize("pairs", PAIRS)
def test_the_origin_is_that_of_the_quartic_landscape(pairs):
    def loss(flat):
        return infonce_loss(flat.reshape(2, 3), A0, C, *PARAMETERS, pairs=pairs)

    hessian = jax.hessian(loss)(jnp.zeros(6))
    tau, alpha, decay = PARAMETERS
    share = {"augmented": 1.0, "clean": 0.0, "clean_negatives": 0.5}[pairs]
    B = (A0 + (share - alpha) * C) / tau - decay * np.eye(3)
    np.testing.assert_allclose(hessian, -2 * np.kron(np.eye(2), B), atol=1e-12)
    check_grads(loss, (jnp.array(W.ravel()),), 1, ["rev"])
    assert loss(jnp.zeros(6)) == 0


def descended(loss, m, d, tries=4):
    value = jax.jit(jax.value_and_grad(lambda flat: loss(flat.reshape(m, d))))
    runs = [
        minimize(lambda x: [np.asarray(y) for y in value(x)], x, jac=True, method="BFGS", options={"gtol": 1e-9})
        for x in np.random.default_rng(0).normal(size=(tries, m * d))
    ]
    best = min(runs, key=lambda run: run.fun)
    found = best.x.reshape(m, d)
    return best.fun, found.T @ found


@pytest.mark.parametrize("m", [1, 2, 5])
def test_descent_finds_the_minimum(m):
    least = infonce_minimum(A0, C, m, *PARAMETERS)
    loss, gram = descended(lambda W: infonce_loss(W, A0, C, *PARAMETERS), m, 3)
    np.testing.assert_allclose(loss, least.loss, rtol=1e-10)
    np.testing.assert_allclose(gram, least.gram, atol=1e-6)


def test_descent_finds_the_minimum_of_the_dot_product():
    least = infonce_dot_minimum(A0, C, 2, *PARAMETERS)
    loss, gram = descended(lambda W: infonce_dot_loss(W, A0, C, *PARAMETERS), 2, 3)
    np.testing.assert_allclose(loss, least.loss, rtol=1e-10)
    np.testing.assert_allclose(gram, least.gram, atol=1e-6)
    plain = infonce_dot_minimum(A0, C, 3)
    rho = np.sort(np.linalg.eigvals(np.linalg.solve(A0 + C, A0)).real)[::-1]
    np.testing.assert_allclose(plain.strengths, rho, rtol=1e-12)


@pytest.mark.thorough
@pytest.mark.parametrize("pairs", PAIRS)
def test_modes_of_a_common_eigenbasis(pairs):
    a, c, (tau, alpha, decay) = np.array([1.0, 0.6, 0.3]), np.array([0.3, 0.05, 0.4]), PARAMETERS
    variance = infonce_variance(a, c, *PARAMETERS, pairs=pairs)
    share = {"augmented": 1.0, "clean": 0.0, "clean_negatives": 0.5}[pairs]
    np.testing.assert_array_equal(variance > 0, a + (share - alpha) * c > decay * tau)
    y = variance / (a + c)

    def loss(y):
        return infonce_loss(jnp.diag(jnp.sqrt(y)), np.diag(a), np.diag(c), *PARAMETERS, pairs=pairs)

    slopes = jax.grad(loss)(y + 1e-300)
    np.testing.assert_allclose(slopes[:2], 0, atol=1e-12)
    gram = descended(lambda W: infonce_loss(W, np.diag(a), np.diag(c), *PARAMETERS, pairs=pairs), 3, 3)[1]
    np.testing.assert_allclose(gram, np.diag(y), atol=2e-6)
    if pairs == "augmented":
        least = infonce_minimum(np.diag(a), np.diag(c), 3, *PARAMETERS)
        np.testing.assert_allclose(np.sort(variance)[::-1] / tau, least.strengths, rtol=1e-12, atol=1e-15)


def test_augmentation_alone_never_collapses_a_mode():
    c = np.array([0.5, 5.0, 500.0])
    assert np.all(infonce_variance(1.0, c) > 0)
    np.testing.assert_allclose(infonce_variance(1.0, 5.0), 0.1306623863, rtol=1e-9)
    np.testing.assert_array_equal(infonce_variance(1.0, c, pairs="clean") > 0, [True, False, False])
    np.testing.assert_array_equal(infonce_variance(1.0, [1.9, 2.1], pairs="clean_negatives") > 0, [True, False])
    assert infonce_variance(1.0, 0.0) == np.inf
    near = infonce_variance(np.float32(1.0), np.float32(1 - 1e-4), alpha=np.float32(2.0))
    np.testing.assert_allclose(near, infonce_variance(1.0, 1 - 1e-4, alpha=2.0), rtol=1e-3)


@pytest.mark.thorough
def test_single_precision_gradients_and_tracing():
    small = infonce_minimum(*(np.float32(x) for x in (A0, C)), 2, *PARAMETERS)
    assert {x.dtype for x in small} == {np.dtype("float32")}
    np.testing.assert_allclose(small.gram, infonce_minimum(A0, C, 2, *PARAMETERS).gram, atol=3e-6)
    weak = infonce_loss(np.float32(1e-3 * W), np.float32(A0), np.float32(C), *PARAMETERS)
    np.testing.assert_allclose(weak, infonce_loss(1e-3 * W, A0, C, *PARAMETERS), rtol=1e-4)

    def gram(tau):
        return infonce_minimum(A0, C, 2, tau, 1.6, 0.05).gram

    check_grads(jax.jit(gram), (0.8,), 1, ["rev"])


def refuses(call, words):
    with pytest.raises(ValueError, match="^" + re.escape(words) + "$"):
        call()


def test_bad_arguments_are_named():
    refuses(lambda: infonce_mode_strength(), "Give one of `q` and `margin`, and not the other.")
    refuses(lambda: infonce_mode_strength(np.nan), "`q` must be a number, but got nan.")
    refuses(lambda: infonce_mode_loss(-1.0, 0.5), "`s` must be zero or positive, but got -1.")
    refuses(lambda: infonce_strength_near_threshold(0.1, 3), "`order` must be 1 or 2, but got 3.")
    refuses(lambda: infonce_variance(1.0, 1.0, 0.0), "`temperature` must be positive, but got 0.")
    words = "`pairs` must be one of augmented, clean, clean_negatives, but got dirty."
    refuses(lambda: infonce_variance(1.0, 1.0, pairs="dirty"), words)
    refuses(lambda: infonce_loss(W, A0, C, pairs="dirty"), words)
    refuses(lambda: infonce_loss(W[:, :2], A0, C), "`W` must have shape (m, 3), but got (2, 2).")
    refuses(lambda: infonce_minimum(A0, C, 0), "`m` must be a whole number not below 1, but got 0.")
    refuses(lambda: infonce_minimum(A0, C, 2, alpha=-1.0), "`alpha` must be zero or positive, but got -1.")
    refuses(
        lambda: infonce_minimum(A0, C, 2, weight_decay=-0.1), "`weight_decay` must be zero or positive, but got -0.1."
    )
    refuses(
        lambda: infonce_minimum(A0, 0 * C, 2),
        "`alpha C + lambda tau I` must be positive definite, for without noise or decay along a mode there is no "
        "minimum, but got 0.",
    )
    refuses(lambda: infonce_dot_minimum(A0, C, 2, -1.0), "`temperature` must be positive, but got -1.")
