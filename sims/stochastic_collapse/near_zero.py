"""The stationary density near an origin that repels: how fast its tail falls in ln |theta|."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sims.engine.experiment import POSITIVE, Domain, Experiment, Mean, Output, Parameter, Setting, per_cell, whole
from sims.stochastic_collapse.factors import log_size
from sims.stochastic_collapse.setup import SOURCE
from theory.stochastic_collapse import bounded_exponents, critical_noise, near_zero_exponent


class Sizes(NamedTuple):
    """What a compilation depends on."""

    paths: int
    steps: int
    burn_in: int


def below(key, eta, mu, sigma, K, bound, sizes: Sizes):
    """How often, and how far in all, ln |theta| lies below -bound after the burn-in."""

    def step(state, k):
        x, count, depth = state
        h = sigma * jax.random.normal(jax.random.fold_in(key, k), (sizes.paths,)) - mu
        x = x + log_size(1 - eta * (h + K * jax.nn.sigmoid(2 * x)))
        deep = (x < -bound) & (k >= sizes.burn_in)
        return (x, count + jnp.sum(deep), depth + jnp.sum(jnp.where(deep, -bound - x, 0.0))), None

    begin = jnp.zeros(sizes.paths), jnp.zeros((), int), jnp.zeros(())
    (_, count, depth), _ = jax.lax.scan(step, begin, jnp.arange(sizes.burn_in + sizes.steps))
    return count, depth


def one(key, cell, settings, sizes):
    sigma = spread(cell)
    count, depth = below(key, cell["eta"], cell["mu"], sigma, cell["K"], settings["bound"], sizes)
    # The maximum-likelihood estimate of the rate of an exponential law.
    return {"exponent": count.astype(depth.dtype) / depth}


def spread(cells):
    """sigma, given as a share of the least that collapses."""
    return cells["share"] * critical_noise(cells["eta"], -cells["mu"])


def predict(cells, settings, sizes):
    return {"exponent": near_zero_exponent(cells["eta"], -cells["mu"], spread(cells))}


def sde(cells, settings, sizes):
    return 2 * cells["mu"] / (cells["eta"] * spread(cells) ** 2) - 1


def of_theta(cells, settings, sizes):
    """Of the density of theta in place of that of its logarithm."""
    return predict(cells, settings, sizes)["exponent"] - 1


def full_batch_part(cells, settings, sizes):
    """The SDE with the second order of gradient descent in its drift."""
    eta, mu, sigma = cells["eta"], cells["mu"], spread(cells)
    return 2 * (mu - eta * mu**2 / 2) / (eta * sigma**2) - 1


def heavy_and_bounded(cells, settings):
    """Where the tail is heavy enough to be seen, and infinity repels."""
    model = cells["eta"], cells["mu"], np.asarray(spread(cells)), cells["K"]
    a = near_zero_exponent(model[0], -model[1], model[2])
    return (np.asarray(a) < settings["largest"]) & (np.asarray(bounded_exponents(*model).at_infinity) < -0.1)


def fits(values, settings):
    for eta in values["eta"]:
        for mu in values["mu"]:
            if np.isnan(critical_noise(eta, -mu)):
                raise ValueError(
                    f"`eta` must be small enough for a noise that collapses, but got {eta:g} at mu = {mu:g}."
                )


BELOW_CRITICAL = Domain("above 0 and below 1", lambda x: (x > 0) & (x < 1))

near_zero = Experiment(
    name="near_zero",
    title="How the stationary density of a live weight falls towards the origin",
    sources=(SOURCE,),
    axes={
        "eta": Parameter([0.2, 0.25, 0.3, 0.4], r"learning rate $\eta$", domain=POSITIVE),
        "share": Parameter([0.8, 0.85, 0.9], r"noise over the critical one $\sigma/\sigma_c$", domain=BELOW_CRITICAL),
    },
    fixed={
        "mu": Parameter(0.5, r"minus the curvature at the origin $\mu$", domain=POSITIVE),
        "K": Parameter(1.0, r"further curvature $K$ at infinity"),
    },
    settings={
        "bound": Setting(10.0, "ln |theta| below which, with a minus sign, the density is fitted", domain=POSITIVE),
        "largest": Setting(0.5, "exponent above which too few steps lie that low", domain=POSITIVE),
        "paths": Setting(64, "paths of a replicate", domain=whole(1)),
        "steps": Setting(20_000, "steps of SGD that count", domain=whole(1)),
        "burn_in": Setting(4000, "steps before them", domain=whole(0)),
    },
    sizes=lambda settings: Sizes(*(settings[name] for name in Sizes._fields)),
    theory_sizes=lambda sizes: (),
    simulate=per_cell(one),
    predict=predict,
    validate=fits,
    outputs={"exponent": Output(r"exponent $a$, $p(\theta) \propto |\theta|^{a-1}$")},
    claims=(
        Mean(
            "exponent", "the density of ln |theta| falls as exp(a x), E|1 - eta h|^-a = 1", where=heavy_and_bounded,
            twins={"the SDE": sde, "the density of theta": of_theta, "the SDE with descent": full_batch_part},
        ),
    ),
    presets={
        "smoke": {
            "eta": [0.3, 0.4], "share": [0.8, 0.9], "steps": 2000, "burn_in": 1000, "bound": 6.0, "replicates": 4,
        },
        "laptop": {"replicates": 20},
        "paper": {
            "eta": [0.1, 0.15, 0.2, 0.3, 0.4, 0.5], "share": [0.7, 0.75, 0.8, 0.86, 0.92], "paths": 4096,
            "steps": 100_000, "burn_in": 20_000, "bound": 16.0, "replicates": 100,
        },
    },
)  # fmt: skip
