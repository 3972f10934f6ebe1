"""A linear encoder of real digits under InfoNCE with pixel noise, beside Gaussian vectors of the same covariance.

The Gaussian theory says how many directions are learned. Gaussian vectors keep to it. Digits learn fewer: the matrix
that pulls the encoder, tilted towards pairs that are close already, says which and why.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from sims.engine.experiment import POSITIVE, Experiment, Mean, Order, Output, Parameter, Phase, in_columns
from sims.ssl_collapse.digit_views import (
    FEATURES,
    FOLLOWED,
    LOSS_PARAMETERS,
    TRAINED,
    Sizes,
    clean_pair,
    covariance,
    principal,
)
from sims.ssl_collapse.setup import JING, SOURCE
from sims.ssl_collapse.trained_encoders import CUT, LOSS, SECOND, TIME, along, compared, gaussian_matrix, probed
from theory.ssl_collapse import infonce_mode_strength, negatives_dilution

SHOWN = 24  # leading modes
SLOW = 8.0  # e-foldings that a mode must have had time for
DILUTED = 10.0  # negatives for every one that counts


def simulate(key, cells, settings, sizes):
    # Of every cell two lanes: the digits, and Gaussian vectors.
    columns = {name: jnp.repeat(v, 2) for name, v in in_columns(cells).items()}
    sigma = jnp.sqrt(columns["sigma2"])
    numbers = {name: columns[name] for name in LOSS}
    k_start, k_train = jax.random.split(key)
    variances, components = (jnp.asarray(v, sigma.dtype) for v in principal())

    def views(k):
        """The same draws in every cell; the noise of both lanes is the same too."""
        k_clean, k_noise = jax.random.split(k)
        clean = jnp.tile(clean_pair(k_clean, sizes.batch, sigma.dtype), (len(sigma) // 2, 1, 1))
        noise = jax.random.normal(k_noise, (2, sizes.batch, FEATURES), sigma.dtype)
        return tuple(clean + sigma[:, None, None] * each[None] for each in noise)

    W = 0.1 * jax.random.normal(k_start, (sizes.m, FEATURES), sigma.dtype)
    found = probed(
        k_train, {"last": jnp.broadcast_to(W, (len(sigma), *W.shape))}, lambda params, x: x, views, numbers,
        settings["rate"], sizes, lambda params: variances[:1] + sigma**2,
        lambda params: params["last"].mT @ params["last"],
    )  # fmt: skip
    root = jnp.sqrt(variances[None] + sigma[:, None] ** 2)[:, :, None] * components.T[None]
    tau = numbers["temperature"][:, None]
    strengths = jnp.linalg.eigvalsh(root @ found.observed @ root.mT)[:, : -SHOWN - 1 : -1] / tau
    one = jnp.eye(FEATURES, dtype=sigma.dtype)
    noise = sigma[:, None, None] ** 2 * one[None]
    A0 = jnp.broadcast_to(jnp.asarray(covariance(), sigma.dtype), noise.shape)
    gaussian = gaussian_matrix(found.params["last"], A0, noise, numbers)
    out = compared(found, gaussian, settings["rate"]) | {
        "strength": strengths,
        "rank": jnp.sum(strengths > CUT, 1, dtype=sigma.dtype),
        "spectrum": jnp.linalg.eigvalsh(found.B)[:, : -SHOWN - 1 : -1],
        "alive": jnp.log10(jnp.maximum(strengths / CUT, jnp.finfo(sigma.dtype).tiny)),
        "growth_alpha": along(found.new, found.untilted - noise / tau[..., None]),
    }
    # Of Gaussian vectors the tilted matrix is known.
    of_gaussian = out | {"growth_theory": out["growth_gaussian"]}
    both = ("strength", "rank", "spectrum", "growth", "growth_theory")
    return {f"digits_{name}": out[name][::2] for name in (*both, *DIGITS)} | {
        f"gaussian_{name}": of_gaussian[name][1::2] for name in (*both, "alive", "growth_alpha")
    }


DIGITS = ("rest", "rest_theory", "rest_origin", "rest_gaussian", "growth_origin", "growth_gaussian")


def modes(cells):
    """(margin 1 - q, pull at the origin) of the leading modes. Shapes (cells, modes)."""
    s2, tau, alpha, decay = (cells[name][:, None] for name in ("sigma2", *LOSS))
    a = jnp.asarray(principal()[0][:SHOWN], s2.dtype)[None, :]
    pull = (a - (alpha - 1) * s2) / tau - decay
    return pull * tau / (a + s2), pull


def predict(cells, settings, sizes):
    margin, pull = modes(cells)
    learned = (jnp.arange(SHOWN) < sizes.m)[None, :]
    strength = jnp.where(learned, infonce_mode_strength(margin=margin), 0.0)
    rank = jnp.sum(strength > 0, 1, dtype=strength.dtype)
    # Near its threshold a mode takes longer than training to come or to go.
    time = TIME * settings["rate"] * sizes.steps
    settled = 4 * jnp.abs(pull) * time > SLOW
    spectrum = jnp.where(learned, jnp.minimum(pull, 0), pull)
    return {
        "digits_strength": strength,
        "gaussian_strength": jnp.where(settled, strength, jnp.nan),
        "digits_rank": rank,
        "gaussian_rank": rank,
        "gaussian_alive": jnp.where(settled & learned, jnp.sign(pull), jnp.nan),
        "digits_spectrum": spectrum,
        "gaussian_spectrum": spectrum,
    }


def quartic_strength(cells, settings, sizes):
    """The strength that the quartic landscape has."""
    margin, _ = modes(cells)
    return jnp.where((jnp.arange(SHOWN) < sizes.m)[None, :], 2 / 3 * jnp.maximum(margin, 0), 0.0)


def alive_with(alpha_less):
    """Which modes are alive if a > (alpha - `alpha_less`) sigma^2."""

    def formula(cells, settings, sizes):
        _, pull = modes({**cells, "alpha": cells["alpha"] + 1 - alpha_less})
        return jnp.sign(pull)

    return formula


def undiluted(cells, settings):
    """Where the negatives are many for the strengths to be learned."""
    values = {name: jnp.asarray(v, float) for name, v in cells.items()}
    sizes = Sizes(**{name: int(settings[name]) for name in Sizes._fields})
    diluted = negatives_dilution(predict(values, settings, sizes)["digits_strength"])
    return np.asarray(settings["batch"] - 1 >= DILUTED * diluted)


def learning(cells, settings):
    """Where the encoder does not collapse altogether."""
    return (cells["alpha"] - 1) * cells["sigma2"] < 0.9 * principal()[0][0]


MODES = {"variance": principal()[0][:SHOWN]}

digits = Experiment(
    name="digits",
    title="InfoNCE on handwritten digits: how many directions a linear encoder learns",
    sources=(SOURCE, JING),
    axes={
        "sigma2": Parameter(
            [0.075, 0.1, 0.15, 0.25, 0.4, 0.55, 0.9], r"augmentation variance $\sigma^2$", scale="log",
            domain=POSITIVE,
        ),
    },
    fixed=LOSS_PARAMETERS,
    settings=TRAINED,
    sizes=lambda settings: Sizes(*(settings[name] for name in Sizes._fields)),
    simulate=simulate,
    predict=predict,
    outputs={
        "digits_strength": Output("digits: strength $s$", dims=MODES),
        "gaussian_strength": Output("Gaussian surrogate: strength $s$", dims=MODES),
        "digits_rank": Output("digits: rank of the embedding"),
        "gaussian_rank": Output("Gaussian surrogate: rank of the embedding"),
        "gaussian_alive": Output("Gaussian surrogate: decades of strength above the cut", dims=MODES),
        "digits_rest": Output("digits: mean pull along the directions in use"),
        "digits_growth": Output("digits: pull along new directions", dims=FOLLOWED),
        "gaussian_growth": Output("Gaussian surrogate: pull along new directions", dims=FOLLOWED),
        "digits_spectrum": Output("digits: eigenvalues of the matrix that pulls", dims=MODES),
        "gaussian_spectrum": Output("Gaussian surrogate: eigenvalues of the matrix that pulls", dims=MODES),
    },
    claims=(
        Phase(
            "gaussian_alive", "Gaussian vectors of the digits' covariance: which modes are learned", where=undiluted,
            twins={"noise counted alpha times": alive_with(0), "noise counted alpha - 1/2 times": alive_with(0.5)},
        ),
        Mean(
            "digits_growth", "a new direction grows or dies as the tilted matrix of the trained encoder has it",
            floor=SECOND,
            twins={"without the tilt": "digits_growth_origin", "tilted as Gaussian": "digits_growth_gaussian"},
        ),
        Mean(
            "gaussian_growth", "of Gaussian vectors the tilted matrix is known, and as it was at the origin",
            where=undiluted,
            floor=SECOND, twins={"noise counted alpha times": "gaussian_growth_alpha"},
        ),
        Mean(
            "digits_rest", "along the directions in use the tilted matrix vanishes, up to the noise of a step",
            where=learning,
            twins={"without the tilt": "digits_rest_origin", "tilted as Gaussian": "digits_rest_gaussian"},
        ),
        Order(
            "gaussian_strength", "Gaussian vectors: the strengths tend to the closed form as 1 / batch",
            setting="batch", values=(16, 32, 64), order=-1, replicates=10, axes={"sigma2": [0.25, 0.4]},
            settings={"probe": 2},
            twins={"the quartic landscape": quartic_strength, "the digits themselves": "digits_strength"},
        ),
    ),
    presets={
        "smoke": {
            "sigma2": [0.15, 0.9], "m": 8, "batch": 32, "steps": 400, "probe": 60, "replicates": 5, "ladders": False,
        },
        "laptop": {"replicates": 20},
        "paper": {
            "sigma2": np.geomspace(0.05, 1.0, 25), "batch": 1024, "steps": 10_000, "probe": 2000, "replicates": 40,
        },
    },
    block=8,
)  # fmt: skip
