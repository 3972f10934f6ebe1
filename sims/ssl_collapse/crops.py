"""A linear encoder of randomly shifted and cropped digits: an augmentation that depends on the input.

Two views of the data say what they share, A0, and what the augmentation adds, C. The rank is predicted from them alone.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import eigh

from sims.digits import SIDE
from sims.engine.experiment import (
    POSITIVE,
    Experiment,
    Mean,
    Output,
    Parameter,
    Rank,
    Setting,
    cell_by_cell,
    in_columns,
    whole,
)
from sims.ssl_collapse.digit_views import (
    FEATURES,
    FOLLOWED,
    LOSS_PARAMETERS,
    TRAINED,
    Sizes,
    centered,
    crop,
)
from sims.ssl_collapse.setup import JING, SOURCE
from sims.ssl_collapse.trained_encoders import CUT, LOSS, SECOND, compared, gaussian_matrix, probed
from theory.ssl_collapse import effective_landscape, infonce_mode_strength, negatives_dilution, view_covariances

MEASURED = 4  # pairs of views of every image that the covariances are measured by


def simulate(key, cells, settings, sizes):
    shape, together = sizes
    return cell_by_cell(lambda columns: side_by_side(key, columns, settings, shape), in_columns(cells), together)


def side_by_side(key, columns, settings, sizes):
    """Encoders of the cells of one block, which share their draws."""
    reach, numbers = columns["reach"], {name: columns[name] for name in LOSS}
    images = jnp.asarray(centered(), reach.dtype).reshape(-1, SIDE, SIDE)
    k_start, k_train, k_measure = jax.random.split(key, 3)

    def augmented(k, x):
        """Two views in every cell."""

        def view(k):
            k_crop, k_noise = jax.random.split(k)
            z = jax.random.normal(k_noise, (len(x), FEATURES), x.dtype)
            return jax.vmap(lambda r, noise: crop(k_crop, x, r).reshape(-1, FEATURES) + jnp.sqrt(noise) * z)(
                reach, columns["noise"]
            )

        return tuple(map(view, jax.random.split(k)))

    def views(k):
        k_rows, k_views = jax.random.split(k)
        return augmented(k_views, images[jax.random.randint(k_rows, (sizes.batch,), 0, len(images))])

    A0, C, _ = jax.vmap(view_covariances)(*augmented(k_measure, jnp.tile(images, (MEASURED, 1, 1))))
    W = 0.1 * jax.random.normal(k_start, (sizes.m, FEATURES), reach.dtype)
    found = probed(
        k_train, {"last": jnp.broadcast_to(W, (len(reach), *W.shape))}, lambda params, x: x, views, numbers,
        settings["rate"], sizes, lambda params: jnp.linalg.eigvalsh(A0 + C)[:, -1],
        lambda params: params["last"].mT @ params["last"],
    )  # fmt: skip
    # The spectrum of W Sigma W^T, for which any factor of Sigma will do.
    root = jnp.linalg.cholesky(A0 + C)
    strengths = jnp.linalg.eigvalsh(root.mT @ found.observed @ root)[:, : -sizes.m - 1 : -1]
    strengths = strengths / numbers["temperature"][:, None]

    def predicted(A0, C, n, more=0.0):
        how = (n["temperature"], n["alpha"] + more, n["weight_decay"])
        B = effective_landscape(A0, C, "infonce_distance", *how).B
        return jnp.minimum(jnp.sum(jnp.linalg.eigvalsh(B) > 0, dtype=reach.dtype), sizes.m)

    return compared(found, gaussian_matrix(found.params["last"], A0, C, numbers), settings["rate"]) | {
        "strength": strengths,
        "strength_theory": jnp.full_like(strengths, jnp.nan),
        "rank": jnp.sum(strengths > CUT, 1, dtype=reach.dtype),
        "rank_theory": jax.vmap(predicted)(A0, C, numbers),
        "rank_alpha": jax.vmap(lambda *x: predicted(*x, more=1.0))(A0, C, numbers),
    }


@functools.cache
def spectrum(reach: float, noise: float) -> np.ndarray:
    """Noise fractions of the modes at alpha = 1, ascending."""
    images = jnp.tile(jnp.asarray(centered()).reshape(-1, SIDE, SIDE), (MEASURED, 1, 1))
    views = [np.asarray(crop(k, images, reach)).reshape(-1, FEATURES) for k in jax.random.split(jax.random.key(0))]
    total = np.cov(np.concatenate(views).T) + noise * np.eye(FEATURES)
    apart = np.cov((views[0] - views[1]).T) / 2 + noise * np.eye(FEATURES)
    return eigh(apart, total, eigvals_only=True)


def undiluted(cells, settings):
    """Where the negatives are many for what is learned, at no decay."""
    q = np.array([spectrum(float(r), float(n)) for r, n in zip(cells["reach"], cells["noise"], strict=True)])
    q = q[:, : settings["m"]] * np.asarray(cells["alpha"])[:, None]
    return np.asarray(settings["batch"] - 1 >= 2 * negatives_dilution(infonce_mode_strength(q)))


def reach_alone(cells, settings, sizes):
    """As if the weight of alignment did not count."""
    return -cells["reach"]


def alpha_alone(cells, settings, sizes):
    """As if the augmentation did not count."""
    return -cells["alpha"]


crops = Experiment(
    name="crops",
    title="InfoNCE on shifted and cropped digits: the rank predicted from two views",
    sources=(SOURCE, JING),
    axes={
        "reach": Parameter([0.5, 1.0, 1.5, 2.5], "reach of shifts (pixels)", domain=POSITIVE),
        "alpha": Parameter([1.25, 1.5, 2.0, 3.0], r"weight of alignment $\alpha$", domain=POSITIVE),
    },
    fixed={name: LOSS_PARAMETERS[name] for name in ("temperature", "weight_decay")}
    | {"noise": Parameter(0.02, "variance of pixel noise", domain=POSITIVE)},
    settings=TRAINED
    | {"together": Setting(1, "cells simulated side by side: one on a CPU, many on a GPU", domain=whole(1))},
    sizes=lambda settings: (Sizes(*(settings[name] for name in Sizes._fields)), settings["together"]),
    simulate=simulate,
    predict=lambda cells, settings, sizes: {},
    outputs={
        "rank": Output("rank of the embedding"),
        "strength": Output(r"strength $s$", dims={"mode": lambda settings: np.arange(1, settings["m"] + 1)}),
        "rest": Output("mean pull along the directions in use"),
        "growth": Output("pull along new directions", dims=FOLLOWED),
    },
    claims=(
        Rank(
            "rank", "the rank is in the order that two views predict", where=undiluted,
            twins={
                "noise counted alpha times": "rank_alpha",
                "the reach alone": reach_alone,
                "the weight of alignment alone": alpha_alone,
            },
        ),
        Mean(
            "growth", "a new direction grows or dies as the tilted matrix of the trained encoder has it",
            where=undiluted, floor=SECOND,
            twins={"without the tilt": "growth_origin", "tilted as Gaussian": "growth_gaussian"},
        ),
        Mean(
            "rest", "along the directions in use the tilted matrix vanishes, up to the noise of a step",
            where=undiluted, twins={"without the tilt": "rest_origin", "tilted as Gaussian": "rest_gaussian"},
        ),
    ),
    presets={
        "smoke": {
            "reach": [1.0, 2.5], "alpha": [1.5, 3.0], "m": 8, "batch": 32, "steps": 300, "probe": 60, "replicates": 5,
        },
        "laptop": {"reach": [0.5, 1.0, 2.0], "alpha": [1.25, 1.5, 2.0, 3.0], "steps": 1600, "replicates": 20},
        "paper": {
            "reach": np.linspace(0.25, 3, 12), "alpha": np.geomspace(1.1, 4, 12), "batch": 1024, "steps": 10_000,
            "probe": 2000, "replicates": 40, "together": 16,
        },
    },
    block=16,
)  # fmt: skip
