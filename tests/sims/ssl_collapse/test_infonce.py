"""Training on InfoNCE: the loss that is trained, the pairs that repel, and what is measured of the encoder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sims.engine.experiment import configure
from sims.ssl_collapse.infonce_training import in_embedding, minibatch_infonce, stationary_gram
from sims.ssl_collapse.losses import infonce_distance, infonce_dot
from sims.ssl_collapse.negatives import Sizes, distance, dot
from sims.ssl_collapse.negatives import negatives as negatives_experiment
from sims.ssl_collapse.pairs import PAIRS, minibatch_loss, pairs
from sims.ssl_collapse.phase_diagram import away_from_thresholds, phase_diagram
from sims.ssl_collapse.strength import strength
from sims.ssl_collapse.training import gaussian_views
from theory.ssl_collapse import infonce_loss

pytestmark = pytest.mark.thorough

KEY = jax.random.key(3)
A, C = jnp.array([1.0, 0.5, 0.2]), jnp.array([0.3, 0.1, 0.4])


def test_the_minibatch_loss_is_written_out():
    W = 0.7 * jax.random.normal(KEY, (2, 3))
    loss = minibatch_infonce(5, A, C, 0.8, 1.5, 0.1)
    f, g = (np.asarray(x @ W.T) for x in gaussian_views(KEY, 5, jnp.sqrt(A), jnp.sqrt(C)))
    terms = []
    for i in range(5):
        push = np.mean([np.exp(-np.sum((f[i] - g[j]) ** 2) / 1.6) for j in range(5) if j != i])
        terms.append(1.5 * np.sum((f[i] - g[i]) ** 2) / 1.6 + np.log(push))
    np.testing.assert_allclose(loss(W, KEY), np.mean(terms) + 0.1 * jnp.sum(W**2), rtol=1e-12)


@pytest.mark.parametrize("kind", PAIRS)
def test_minibatch_losses_of_all_pairs_are_those_of_the_population(kind):
    W = jnp.array([[0.6, 0.1, 0.0], [0.0, 0.5, 0.4]])
    loss = jax.jit(minibatch_loss(1024, A, C, kind))
    draws = [loss(W, jax.random.fold_in(KEY, k)) for k in range(40)]
    error = np.std(draws) / 40**0.5
    exact = infonce_loss(W, jnp.diag(A), jnp.diag(C), pairs=kind)
    assert abs(np.mean(draws) - exact) < 5 * error + 1e-3
    others = [infonce_loss(W, jnp.diag(A), jnp.diag(C), pairs=p) for p in PAIRS if p != kind]
    assert all(abs(np.mean(draws) - other) > 8 * error for other in others)


def test_what_is_measured_has_the_eigenvalues_of_the_embedding_covariance():
    W = jax.random.normal(KEY, (4, 3))
    S = W @ jnp.diag(A + C) @ W.T / 0.7
    found = jnp.linalg.eigvalsh(in_embedding(W.T @ W, A + C, 0.7))
    np.testing.assert_allclose(found, jnp.linalg.eigvalsh(S)[1:], rtol=1e-12)


def test_the_stationary_mean_leaves_out_the_first_quarter():
    def loss(W, key):
        return jnp.sum((W - 1) ** 2) / 2

    W, seen = jnp.zeros((1, 1)), []
    for _ in range(8):
        W = W - 0.5 * (W - 1)
        seen.append(float(W[0, 0] ** 2))
    found = stationary_gram(loss, jnp.zeros((1, 1)), KEY, 8, 0.5)
    np.testing.assert_allclose(found[0, 0], np.mean(seen[2:]), rtol=1e-12)


@pytest.mark.parametrize(("simulate", "loss"), [(distance, infonce_distance), (dot, infonce_dot)])
def test_the_excess_of_few_negatives_is_that_of_the_loss_itself(simulate, loss):
    s, rho, n = 0.3, 0.6, 8
    sizes = Sizes(n - 1, 2, 200_000)
    found = jax.jit(simulate, static_argnums=3)(KEY, {"strength": jnp.array(s), "rho": jnp.array(rho)}, {}, sizes)

    def raw(k):
        first, second = gaussian_views(k, n, jnp.full(2, (rho * s) ** 0.5), jnp.full(2, ((1 - rho) * s) ** 0.5))
        # The mean of exp(similarity) over all negatives, by itself.
        limit = jnp.sum(s * first**2, 1) / 2
        if loss is infonce_distance:
            limit = -jnp.sum(jnp.log1p(s) + first**2 / (1 + s), 1) / 2
        return loss(first, second, alpha=0.0) - jnp.mean(limit)

    draws = jax.lax.map(raw, jax.random.split(KEY, 40_000), batch_size=1000)
    name = "negatives_only" if loss is infonce_distance else "dot"
    assert abs(jnp.mean(draws) - found[name]) < 5 * jnp.std(draws) / 200


def test_cells_beside_a_threshold_are_left_out():
    settings = configure(phase_diagram, "laptop").settings
    cells = {
        "sigma2": np.array([0.2, 0.22, 0.332, 0.332, 1.25]),
        "weight_decay": np.array([0.0, 0.0, 0.0, 0.1, 0.0]),
        "alpha": np.full(5, 2.0),
        "temperature": np.ones(5),
    }
    assert away_from_thresholds(cells, settings).tolist() == [False, True, False, True, True]


@pytest.mark.parametrize(
    ("experiment", "wish", "sentence"),
    [
        (phase_diagram, {"sigma2": [0.0]}, "`sigma2` must be positive, but got 0."),
        (phase_diagram, {"weight_decay": [-0.1]}, "`weight_decay` must be non-negative, but got -0.1."),
        (phase_diagram, {"negatives": 0}, "`negatives` must be a whole number, 1 or more, but got 0."),
        (strength, {"q": [1.0]}, "`q` must be between 0 and 1, but got 1."),
        (pairs, {"noise": [-1.0]}, "`noise` must be positive, but got -1."),
        (negatives_experiment, {"rho": [1.5]}, "`rho` must be from 0 to 1, but got 1.5."),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_sentence(experiment, wish, sentence):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        configure(experiment, "smoke", wish)
    assert str(error.value) == sentence
