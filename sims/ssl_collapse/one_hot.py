"""InfoNCE of one-hot classes close to the threshold of all of them, on the whole population."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from sims.descent import gradient_descent
from sims.engine.experiment import POSITIVE, Experiment, Order, Output, Parameter, Setting, per_cell
from sims.ssl_collapse.losses import squared_distances
from sims.ssl_collapse.setup import SOURCE
from theory.ssl_collapse import one_hot_quartic

VARIANCE = 0.7  # p h^2 of every class: they share one threshold
NOISE = np.array([0.3, 0.5])
TAU = 0.8


def classes(p):
    """(frequencies, amplitudes) of a rare class and of a common one, of one variance."""
    p = jnp.stack([p, 1 - p], axis=-1)
    return p, jnp.sqrt(VARIANCE / p)


def population(p, h):
    """All inputs, shape (36, 2), and their probabilities: +-h_k e_k under noise of three values.

    Noise of 0 and +-sqrt(3 c), with the probabilities 2/3 and 1/6, has the first five moments of a Gaussian's.
    """
    values = np.sqrt(3) * np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1], indexing="ij"), -1).reshape(-1, 2)
    chances = np.prod(np.where(values == 0, 2 / 3, 1 / 6), 1)
    clean = jnp.concatenate([jnp.diag(h), -jnp.diag(h)])
    noise = jnp.asarray(values * np.sqrt(NOISE), h.dtype)
    x = (clean[:, None, :] + noise[None, :, :]).reshape(-1, 2)
    return x, (jnp.tile(p, 2)[:, None] / 2 * jnp.asarray(chances, h.dtype)[None, :]).ravel()


def infonce(W, x, chances, decay):
    """Distance-InfoNCE of the whole population, every input an anchor and every input a negative."""
    f = x @ W.T
    push = jax.nn.logsumexp(-squared_distances(f, f) / (2 * TAU), axis=1, b=chances[None, :])
    pull = jnp.trace(W @ jnp.diag(jnp.asarray(NOISE, W.dtype)) @ W.T) / TAU
    return pull + jnp.sum(chances * push) + decay * jnp.sum(W**2)


def one(key, cell, settings, sizes):
    p, h = classes(cell["frequency"])
    x, chances = population(p, h)
    distance = settings["distance"]
    decay = VARIANCE / TAU - distance
    W = jnp.sqrt(distance) * jax.random.normal(key, (2, 2), distance.dtype)
    rate = settings["learning_rate"]
    steps = jnp.ceil(settings["e_folds"] / (2 * distance * rate)).astype(jnp.int32)
    W = gradient_descent(lambda W: infonce(W, x, chances, decay), W, rate, steps)
    M = W.T @ W / distance
    slope = jax.grad(lambda W: infonce(W, x, chances, decay))(W)
    settled = jnp.max(jnp.abs(slope)) < 1e-3 * distance * jnp.max(jnp.abs(W))
    return {"slope": jnp.stack([M[0, 0], M[1, 1], M[0, 1]]), "status": jnp.where(settled, 0, 1)}


def on_axes(y):
    """Entries 11, 22 and 12 of a diagonal Gram matrix."""
    return jnp.concatenate([y, jnp.zeros_like(y[:, :1])], axis=1)


def predict(cells, settings, sizes):
    """y over the distance from the threshold, tau^2 K^-1 (1, 1) / 2."""

    def of_cell(p):
        return TAU**2 / 2 * jnp.linalg.solve(one_hot_quartic(*classes(p), NOISE), jnp.ones(2, p.dtype))

    return {"slope": on_axes(jax.vmap(of_cell)(cells["frequency"]))}


def gaussian(cells, settings, sizes):
    """The same if the coordinates were Gaussian: K = 3/4 Sigma^2."""
    y = TAU**2 / (1.5 * (VARIANCE + jnp.asarray(NOISE, cells["frequency"].dtype)) ** 2)
    return on_axes(jnp.broadcast_to(y[None, :], (len(cells["frequency"]), 2)))


def without_help(cells, settings, sizes):
    """The same without what one class does for the other: K's diagonal alone."""

    def of_cell(p):
        return TAU**2 / 2 / jnp.diag(one_hot_quartic(*classes(p), NOISE))

    return on_axes(jax.vmap(of_cell)(cells["frequency"]))


one_hot = Experiment(
    name="one_hot",
    title="One-hot classes close to their threshold",
    sources=(SOURCE,),
    axes={
        "frequency": Parameter(
            [0.05, 0.1, 0.2, 0.3, 0.5], "frequency $p$ of the rare class", domain=POSITIVE
        )
    },
    settings={
        "distance": Setting(0.1, "distance from the threshold, in weight decay", domain=POSITIVE),
        "learning_rate": Setting(0.5, "learning rate", domain=POSITIVE),
        "e_folds": Setting(36.0, "length of the descent, in e-folds of growth from the origin", domain=POSITIVE),
    },
    simulate=per_cell(one, one_by_one=True),
    predict=predict,
    outputs={
        "slope": Output("squared weight over the distance from the threshold", dims={"entry": ("11", "22", "12")})
    },
    claims=(
        Order(
            "slope", "close to the threshold the strengths follow the quartic form of one-hot classes",
            setting="distance", values=(0.08, 0.04, 0.02, 0.01), order=1, replicates=20,
            axes={"frequency": [0.1, 0.3]}, floor=1e-5,
            twins={"Gaussian classes": gaussian, "classes that do not help one another": without_help},
        ),
    ),
    presets={
        "smoke": {"frequency": [0.1, 0.5], "replicates": 4, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {"frequency": np.linspace(0.02, 0.98, 33), "e_folds": 120.0, "replicates": 50},
    },
)  # fmt: skip
