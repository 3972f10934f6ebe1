"""Linear probes on encoders that lost modes to their augmentation: least squares on few samples without augmentation.

Encoders are trained by SGD on minibatches of distance-InfoNCE. The augmentation hardly touches the first modes and
swamps the others, which collapse.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sims.engine.experiment import (
    POSITIVE,
    Domain,
    Experiment,
    Mean,
    Output,
    Parameter,
    Pathwise,
    Phase,
    Setting,
    per_cell,
    whole,
)
from sims.ssl_collapse import losses
from sims.ssl_collapse.population import orthogonal
from sims.ssl_collapse.setup import SOURCE
from sims.ssl_collapse.training import gaussian_views, train
from theory.ssl_collapse import probe_risk

A = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
THETA = (1.0, 0.8, 0.5, 0.2, 0.1, 0.05)
D = len(A)
SAMPLES = (14, 18, 26, 50, 100)
WEAK, STRONG = 0.1, 3.0  # the augmentation of a mode over its variance: b = a - c of either sign
ALPHA = 2.0
ALIVE = 0.1  # of the largest singular value; what SGD's noise leaves of a collapsed mode is below a third of it


class Sizes(NamedTuple):
    """What a compilation depends on."""

    batch: int
    steps: int
    probes: int


def augmentation(survivors):
    """Variances of the augmentation that the first modes survive. Shape (d,)."""
    kept = jnp.arange(D, dtype=survivors.dtype) < survivors
    return jnp.array(A) * jnp.where(kept, WEAK, STRONG)


def least_squares(features, kept, y):
    """Weights of the features that are kept, 0 of the others."""
    F = features * kept[None, :]
    gram = F.T @ F + jnp.diag(1 - kept)
    return jnp.linalg.solve(gram, F.T @ y)


def one(key, cell, settings, sizes):
    a, theta = jnp.array(A), jnp.array(THETA)
    keys = jax.random.split(key, 4)
    V = orthogonal(keys[0], D, D)
    roots = [V * jnp.sqrt(x)[None, :] for x in (a, augmentation(cell["survivors"]))]

    def loss(W, key):
        first, second = gaussian_views(key, sizes.batch, *roots)
        return losses.infonce_distance(first @ W.T, second @ W.T, alpha=ALPHA)

    W = 0.1 * jax.random.normal(keys[1], (D, D))
    W, _ = train(loss, W, keys[2], sizes.steps, settings["rate"], lambda W: jnp.zeros(()))
    _, strengths, directions = jnp.linalg.svd(W @ roots[0])
    kept = (strengths > ALIVE * strengths[0]).astype(a.dtype)

    def fit(key, n):
        """Excess errors of probes on the embedding and on the inputs themselves, from the same n samples."""
        z = jax.random.normal(key, (n + 1, max(n, D)))
        x, noise = z[:n, :D], jnp.sqrt(cell["noise_variance"]) * z[n, :n]
        target = theta * jnp.sqrt(a)  # of white coordinates
        y = x @ target + noise
        embedded = directions.T @ least_squares(x @ directions.T, kept, y)
        plain = least_squares(x, jnp.ones(D), y)
        return jnp.stack([jnp.sum((w - target) ** 2) for w in (embedded, plain)])

    errors = jnp.stack(
        [
            jnp.mean(
                jax.vmap(lambda k, n=n: fit(k, n))(jax.random.split(jax.random.fold_in(keys[3], n), sizes.probes)), 0
            )
            for n in SAMPLES
        ]
    )
    return {
        "survivors_found": jnp.sum(kept),
        "risk": cell["noise_variance"] + errors[:, 0],
        "gain": errors[:, 1] - errors[:, 0],
    }


def risk_of(k, noise_variance):
    """R(k) at every number of samples. Shape (cells, samples)."""
    columns = (k[:, None], jnp.array(SAMPLES, k.dtype)[None, :], jnp.broadcast_to(noise_variance, k.shape)[:, None])
    return probe_risk(jnp.array(THETA), jnp.array(A), *columns)


def predict(cells, settings, sizes):
    noise = cells["noise_variance"]
    alive = jnp.array(A)[None, :] > (ALPHA - 1) * jax.vmap(augmentation)(cells["survivors"])
    k = jnp.sum(alive, 1).astype(noise.dtype)
    risk = risk_of(k, noise)
    return {"survivors_found": k, "risk": risk, "gain": risk_of(jnp.full_like(k, D), noise) - risk}


def factors(cells):
    """n - 1, n - k, noise and signal that was dropped, each to broadcast to (cells, samples)."""
    k, n = cells["survivors"][:, None], jnp.array(SAMPLES, float)[None, :]
    signal = jnp.array(THETA) ** 2 * jnp.array(A)
    dropped = jnp.sum(jnp.where(jnp.arange(D, dtype=k.dtype)[None, :] >= k, signal[None, :], 0.0), 1)[:, None]
    return n - 1, n - k, jnp.broadcast_to(cells["noise_variance"], cells["survivors"].shape)[:, None], dropped


def one_degree_of_freedom_more(cells, settings, sizes):
    above, left, noise, dropped = factors(cells)
    return (noise + dropped) * above / left


def dropped_signal_is_free(cells, settings, sizes):
    above, left, noise, _ = factors(cells)
    return noise * above / (left - 1)


def dropped_signal_is_not_noise(cells, settings, sizes):
    """It is missed, but does not disturb the fit."""
    above, left, noise, dropped = factors(cells)
    return dropped + noise * above / (left - 1)


def gain_if_free(cells, settings, sizes):
    above, left, noise, _ = factors(cells)
    return noise * (above / (above - D) - above / (left - 1))


def gain_of_infinite_samples(cells, settings, sizes):
    above, _, _, dropped = factors(cells)
    return -dropped * jnp.ones_like(above)


DIMS = {"samples": np.array(SAMPLES)}

probe = Experiment(
    name="probe",
    title="When collapse helps: linear probes on encoders that lost modes to their augmentation",
    sources=(SOURCE,),
    axes={
        "survivors": Parameter(
            np.arange(1.0, D + 1), "modes that the augmentation spares",
            domain=Domain(f"a whole number from 1 to {D}", lambda x: np.isin(x, range(1, D + 1))),
        )
    },
    fixed={"noise_variance": Parameter(0.5, r"noise of the target $\sigma_\xi^2$", domain=POSITIVE)},
    settings={
        "batch": Setting(64, "batch size", domain=whole(2)),
        "steps": Setting(800, "steps of SGD", domain=whole(4)),
        "rate": Setting(0.1, "first learning rate", domain=POSITIVE),
        "probes": Setting(100, "probes on each encoder, for each number of samples", domain=whole(1)),
    },
    sizes=lambda settings: Sizes(*(settings[name] for name in Sizes._fields)),
    theory_sizes=lambda sizes: None,
    simulate=per_cell(one, one_by_one=True),
    predict=predict,
    outputs={
        "risk": Output("test error of the probe", dims=DIMS),
        "gain": Output("error saved by the collapse", dims=DIMS),
        "survivors_found": Output("modes that survived"),
    },
    claims=(
        Pathwise(
            "survivors_found", "just the modes with a > (alpha - 1) c survive", tolerance=1e-6,
            twins={"augmentation never collapses": lambda cells, settings, sizes: jnp.full_like(cells["survivors"], D)},
        ),
        Mean(
            "risk", "the probe's risk on the surviving modes is exact at every n",
            twins={
                "n - k for n - k - 1": one_degree_of_freedom_more,
                "dropped signal is free": dropped_signal_is_free,
                "dropped signal does not disturb the fit": dropped_signal_is_not_noise,
            },
        ),
        Phase(
            "gain", "collapse helps just where the noise of fitting a mode exceeds its signal", floor=1e-6,
            twins={"dropped signal is free": gain_if_free, "infinitely many samples": gain_of_infinite_samples},
        ),
    ),
    presets={
        "smoke": {"survivors": [2.0, 4.0, 6.0], "steps": 400, "probes": 50, "replicates": 4, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {"batch": 512, "steps": 4000, "probes": 1000, "replicates": 50},
    },
)  # fmt: skip
