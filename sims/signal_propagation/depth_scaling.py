"""Very deep transformers: branches scaled by the root of the depth, and residual streams that grow.

Depth and width go to infinity together, d = depth x width_per_block, so that both corrections vanish as 1 / depth.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from sims.engine.experiment import (
    NONNEGATIVE,
    POSITIVE,
    Experiment,
    Order,
    Output,
    Parameter,
    Setting,
    cell_by_cell,
    whole,
)
from sims.signal_propagation.network import (
    forward,
    gradient_moments,
    layer_keys,
    mean_moments,
    mean_over_networks,
    simplex,
)
from sims.signal_propagation.setup import PARAMETERS, SOURCE, Sizes, config_of, fits, settings, theory_sizes
from sims.signal_propagation.setup import sizes as plain_sizes
from theory.signal_propagation import angle_exponent, depth_scaled, depth_scaled_totals, power_law_exponents

KINDS = ("difference", "pooled")


def sizes(settings) -> Sizes:
    depth = int(settings["depth"])
    return plain_sizes({**settings, "depth": depth, "d": depth * settings["width_per_block"]})


def profile(key, config, q0, distance, shape):
    """q, 1 - rho and both squared gradients, layer by layer."""
    k_weights, k_top = jax.random.split(key)
    keys, q0 = layer_keys(k_weights, shape.depth), jnp.broadcast_to(q0, config.n.shape)
    start = jax.vmap(lambda q: simplex(q, 1 - distance, shape.n, shape.d))(q0)
    path = forward(keys, start, config, shape)
    stream = mean_moments(path)
    gradients = gradient_moments(k_top, keys, path, config, shape, KINDS)
    return {
        "q": stream.square,
        "apart": stream.difference / stream.square,
        "token": gradients["difference"].difference,
        "pooled": gradients["pooled"].collective(shape.n),
    }


def profiles(key, config, settings, sizes):
    """The profile of every cell, averaged over networks; shapes (cells, depth + 1)."""
    shape = sizes.shape

    def some(config):
        at = mean_over_networks(key, sizes.networks, lambda k: profile(k, config, 1.0, settings["distance"], shape))
        return {name: x.T for name, x in at.items()}

    return {name: x.T for name, x in cell_by_cell(some, config, sizes.together).items()}


def scaled(cells, shape):
    r"""alpha = kappa / sqrt L in the unit-variance gauge."""
    return depth_scaled(config_of(cells, shape), cells["kappa_A"], cells["kappa_M"], shape.depth).broadcast()[0]


def simulate_totals(key, cells, settings, sizes):
    at = profiles(key, scaled(cells, sizes.shape), settings, sizes)
    return {
        "angle_total": jnp.log(at["apart"][-1] / at["apart"][0]),
        "pooled_total": jnp.log(at["pooled"][0] / at["pooled"][-1]),
    }


def totals(cells, settings, sizes):
    angle, pooled = depth_scaled_totals(config_of(cells, sizes.shape), cells["kappa_A"], cells["kappa_M"])
    return {"angle_total": angle, "pooled_total": pooled}


def no_attention(cells, settings, sizes):
    return totals(cells, settings, sizes)["pooled_total"]


def with_attention(cells, settings, sizes):
    return totals(cells, settings, sizes)["angle_total"]


DEPTH = Parameter([4, 8, 16, 32], "depth $L$", scale="log", domain=whole(2), role="static")
SHARED = {
    **settings(d=None, depth=None),
    "width_per_block": Setting(4, "width of the stream per block of depth", domain=whole(1)),
    "distance": Setting(1e-6, "1 - rho at the input", domain=POSITIVE),
}
PRESETS = {
    "smoke": {"depth": [2, 4], "width_per_block": 3, "n": 3, "replicates": 6, "ladders": False},
    "laptop": {"n": 4, "replicates": 20},
    "paper": {"together": 16, "depth": [8, 16, 32, 64, 128], "width_per_block": 8, "replicates": 32},
}
LADDER = {"setting": "depth", "order": -1, "replicates": 40}
SMALL = {"n": 3, "width_per_block": 4}


def totals_at(kappa_A, kappa_M):
    """A ladder; the corrections in 1/L and in 1/d have opposite signs, so each claim stands where one is small."""
    return LADDER | {
        "values": (4, 6, 8, 12, 16), "settings": SMALL | {"networks": 80, "kappa_M": kappa_M},
        "axes": {"kappa_A": [kappa_A], "sigma_w": [2.0, 3.0]},
    }  # fmt: skip


POWERS = LADDER | {
    "values": (4, 8, 16, 32), "settings": SMALL | {"networks": 16},
    "axes": {"alpha_A": [1.0], "sigma_w": [1.0, 3.0]},
}  # fmt: skip


def fit_together(values, settings):
    fits(values, {**settings, "d": int(min(values["depth"])) * settings["width_per_block"]})


depth_scaling = Experiment(
    name="depth_scaling",
    title="Total exponents with branches scaled by the root of the depth",
    sources=(SOURCE,),
    axes={
        "depth": DEPTH,
        "kappa_A": Parameter([0.0, 1.0], r"total attention strength $\kappa_A$", domain=NONNEGATIVE),
        "sigma_w": Parameter([1.0, 2.0, 3.0], r"first MLP scale $\sigma_w$", domain=POSITIVE),
    },
    fixed={
        "kappa_M": Parameter(1.0, r"total MLP strength $\kappa_M$", domain=NONNEGATIVE),
        **{name: PARAMETERS[name] for name in ("n", "sigma_A")},
    },
    settings={name: s for name, s in SHARED.items() if name != "residual"},
    sizes=lambda settings: sizes({**settings, "residual": "normalized"}),
    theory_sizes=theory_sizes,
    simulate=simulate_totals,
    predict=totals,
    outputs={
        "angle_total": Output(r"$L\lambda_a$ at $\alpha=\kappa/\sqrt{L}$"),
        "pooled_total": Output(r"$L\lambda_g^{\mathrm{pool}}$ at $\alpha=\kappa/\sqrt{L}$"),
    },
    claims=(
        Order(
            "angle_total", "the angle's total exponent tends to its limit as 1/L",
            twins={"attention left out": no_attention}, **totals_at(1.0, 0.5),
        ),
        Order(
            "pooled_total", "the gradient's total exponent tends to its limit as 1/L",
            twins={"attention contracts gradients": with_attention}, **totals_at(1.3, 0.5),
        ),
    ),
    presets=PRESETS,
    validate=lambda values, settings: fit_together(values, {**settings, "residual": "normalized"}),
)  # fmt: skip


def simulate_powers(key, cells, settings, sizes):
    """Powers between half the depth and all of it."""
    shape = sizes.shape
    at = profiles(key, config_of(cells, shape), settings, sizes)
    half = shape.depth // 2
    octave = jnp.log(shape.depth / half)
    return {
        "growth": (at["q"][-1] - at["q"][half]) / (shape.depth - half),
        "angle_power": jnp.log(at["apart"][-1] / at["apart"][half]) / octave,
        "token_power": jnp.log(at["token"][half] / at["token"][-1]) / octave,
        "pooled_power": jnp.log(at["pooled"][half] / at["pooled"][-1]) / octave,
    }


def powers(cells, settings, sizes):
    laws = power_law_exponents(config_of(cells, sizes.shape))
    return dict(zip(("growth", "angle_power", "token_power", "pooled_power"), laws, strict=True))


def other(output):
    def formula(cells, settings, sizes):
        return powers(cells, settings, sizes)[output]

    return formula


def exponential(cells, settings, sizes):
    """The exponent of the first block, as if the stream kept its norm."""
    config = config_of(cells, sizes.shape)
    return angle_exponent(config, q=1.0) * jnp.full_like(config.n, sizes.shape.depth / 2) / jnp.log(2.0)


identity_residual = Experiment(
    name="identity_residual",
    title="Power laws of depth with identity residuals",
    sources=(SOURCE,),
    axes={
        "depth": DEPTH,
        "alpha_A": Parameter([0.5, 1.0], PARAMETERS["alpha_A"].label, domain=POSITIVE),
        "sigma_w": Parameter([1.0, 2.0, 4.0], r"first MLP scale $\sigma_w$", domain=POSITIVE),
    },
    fixed={
        "alpha_M": Parameter(1.0, PARAMETERS["alpha_M"].label, domain=NONNEGATIVE),
        **{name: PARAMETERS[name] for name in ("n", "sigma_A", "sigma_V", "sigma_2")},
    },
    settings={name: s for name, s in SHARED.items() if name not in ("residual", "norm")},
    sizes=lambda settings: sizes({**settings, "residual": "identity", "norm": "pre"}),
    theory_sizes=theory_sizes,
    simulate=simulate_powers,
    predict=powers,
    outputs={
        "growth": Output(r"growth $c$ of $q_l$ per block"),
        "angle_power": Output(r"power $\zeta_a$ of $1-\rho_l$"),
        "token_power": Output(r"power $\zeta_g^{\mathrm{tok}}$"),
        "pooled_power": Output(r"power $\zeta_g^{\mathrm{pool}}$"),
    },
    claims=(
        Order(
            "angle_power", "angles follow a power of depth, up to 1/L",
            twins={"an exponential in depth": exponential, "the token gradient's power": other("token_power")},
            **POWERS,
        ),
        Order(
            "token_power", "gradients of single tokens follow a power of depth, up to 1/L",
            twins={"the pooled power": other("pooled_power")}, **POWERS,
        ),
        Order(
            "pooled_power", "gradients of pooled readouts follow a power of depth, up to 1/L",
            twins={"the token power": other("token_power")}, **POWERS,
        ),
    ),
    presets=PRESETS,
    validate=lambda values, settings: fit_together(values, {**settings, "residual": "identity"}),
)  # fmt: skip
