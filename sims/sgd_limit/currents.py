"""SGD in two dimensions, with noise of another shape than its loss: where it is, and how it circulates."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sims.engine.experiment import Domain, Experiment, Mean, Output, Parameter, Setting, per_cell, whole
from sims.sgd_limit.setup import SOURCE
from theory.sgd_limit import stationary_decomposition

# The example of the paper: curvatures 1 and 4 along the diagonals, noise along the axes.
A = ((2.5, -1.5), (-1.5, 2.5))
B = (-0.1, 0.05)
NOISE = (4.0, 1.0)
START = (0.09, 0.0)
STABLE = Domain("positive and below 1/2", lambda x: (x > 0) & (x < 0.5))


class Sizes(NamedTuple):
    """What a compilation depends on."""

    paths: int
    shown: int


def one(key, cell, settings, sizes):
    eta = cell["eta"]
    drift, pull, spread = jnp.array(A), jnp.array(B), jnp.sqrt(jnp.array(NOISE))
    minimum = jnp.linalg.solve(drift, pull)

    def loss(theta):
        return theta @ drift @ theta / 2 - pull @ theta

    def step(theta, k):
        xi = jax.random.normal(jax.random.fold_in(key, k), theta.shape)
        return theta - eta * (jax.vmap(jax.grad(loss))(theta) + spread[None, :] * xi)

    def measure(k, carry):
        theta, squares, turned = carry
        after = step(theta, k)
        (x, y), (x_after, y_after) = (theta - minimum[None, :]).T, (after - minimum[None, :]).T
        return after, squares + jnp.stack([x * x, x * y, y * y]), turned + x * y_after - x_after * y

    start = jnp.broadcast_to(jnp.array(START)[None, :], (sizes.paths, 2))
    early = settings["burn_in"]
    theta = jax.lax.fori_loop(0, early, lambda k, theta: step(theta, k), start)
    zero = jnp.zeros((3, sizes.paths)), jnp.zeros(sizes.paths)
    end = early + settings["steps"]
    theta, squares, turned = jax.lax.fori_loop(early, end, measure, (theta, *zero))
    last = end + jnp.arange(sizes.shown, dtype=jnp.int32)
    _, path = jax.lax.scan(lambda theta, k: (step(theta, k), theta[0]), theta, last)
    count = settings["steps"].astype(eta.dtype)
    return {
        "covariance": jnp.mean(squares, 1) / count / (eta / 2),
        "circulation": jnp.mean(turned) / count / eta**2,
        "path": (path - minimum[None, :]) / jnp.sqrt(eta / 2),
    }


def law(cells, noise=NOISE, discrete=True):
    """(B, Q) of every cell, in units of eta / 2."""

    def of(eta):
        found = stationary_decomposition(jnp.array(A), jnp.diag(jnp.array(noise)), eta if discrete else 0.0)
        return found.B, found.Q

    return jax.vmap(of)(cells["eta"])


def observed(C, Q):
    return {"covariance": jnp.stack([C[:, 0, 0], C[:, 0, 1], C[:, 1, 1]], 1), "circulation": Q[:, 0, 1]}


def predict(cells, settings, sizes):
    return observed(*law(cells)) | {"path": jnp.zeros((len(cells["eta"]), sizes.shown, 2))}


def in_time(output):
    return lambda cells, settings, sizes: observed(*law(cells, discrete=False))[output]


def isotropic(output):
    """Noise of the same trace in all directions: that of a thermal bath, which has no current."""
    mean = sum(NOISE) / 2
    return lambda cells, settings, sizes: observed(*law(cells, (mean, mean)))[output]


def reversed_current(cells, settings, sizes):
    return -predict(cells, settings, sizes)["circulation"]


currents = Experiment(
    name="currents",
    title="Stationary law and circulation of SGD in two dimensions",
    sources=(SOURCE,),
    axes={"eta": Parameter([0.05, 0.3], r"learning rate $\eta$", scale="log", domain=STABLE)},
    settings={
        "paths": Setting(128, "paths averaged in a replicate", domain=whole(1)),
        "burn_in": Setting(200, "steps before anything is measured", domain=whole(0)),
        "steps": Setting(1000, "steps over which is averaged", domain=whole(1)),
        "shown": Setting(400, "steps of the path that is kept", domain=whole(1)),
    },
    sizes=lambda settings: Sizes(settings["paths"], settings["shown"]),
    simulate=per_cell(one, one_by_one=True),
    predict=predict,
    outputs={
        "covariance": Output(r"covariance ($xx, xy, yy$) over $\eta/2$", dims={"entry": np.arange(3)}),
        "circulation": Output(r"circulation over $\eta^2$"),
        "path": Output(r"position over $\sqrt{\eta/2}$", dims={
            "moment": lambda s: np.arange(s["shown"]), "coordinate": np.arange(2),
        }),
    },
    claims=(
        Mean(
            "covariance", "SGD spreads by Lyapunov's equation of its steps",
            twins={"of small steps": in_time("covariance"), "of isotropic noise": isotropic("covariance")},
        ),
        Mean(
            "circulation", "and circulates by its antisymmetric part",
            twins={
                "the other way round": reversed_current, "of isotropic noise": isotropic("circulation"),
                "of small steps": in_time("circulation"),
            },
        ),
    ),
    presets={
        "smoke": {"paths": 32, "burn_in": 100, "steps": 100, "shown": 40, "replicates": 4},
        "laptop": {"replicates": 20},
        "paper": {
            "eta": [1e-4, 1e-3, 1e-2, 0.1, 0.3], "paths": 256, "burn_in": 100_000, "steps": 100_000, "replicates": 50,
        },
    },
)  # fmt: skip
