"""A singular mode at finite times: the mean on the way to its stationary law, and after a drop of the learning rate."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sims.engine.experiment import (
    POSITIVE,
    Bound,
    Experiment,
    Order,
    Output,
    Parameter,
    Setting,
    per_cell,
    whole,
)
from sims.stochastic_collapse import modes
from sims.stochastic_collapse.setup import SOURCE
from sims.stochastic_collapse.singular_mode import label_noise
from theory.stochastic_collapse import mode_mean, mode_mean_bound, moments_after_drop

TIMES = (0.25, 0.5, 1.0, 2.0, 4.0)
AFTER = (0.25, 0.5, 1.0)
EARLY = TIMES[:3]  # later the bound is nearer to the mean than a step is to continuous time
START = 0.5


class Sizes(NamedTuple):
    """What a compilation depends on."""

    paths: int
    kept: int
    times: tuple[int, ...]
    burn_in: int
    after: tuple[int, ...]


def sizes(settings):
    """Steps between two measurements; those after the drop are eta times as large."""
    eta = settings["eta"]

    def steps(times, rate):
        return tuple(int(n) for n in np.diff([round(t / rate) for t in times], prepend=0))

    counts = steps(TIMES, eta), math.ceil(settings["burn_in"] / eta), steps(AFTER, eta**2)
    return Sizes(settings["paths"], settings["kept"], *counts)


def path(key, mode, s, eta, zeta, counts):
    """The last paths, and s_hat of each of them after each of so many steps more."""
    values = []
    for n, count in enumerate(counts):
        mode = modes.run(jax.random.fold_in(key, n), mode, s, eta, zeta, count)
        values.append(modes.value(mode))
    return mode, values


def independent_means(key, s, eta, zeta, paths, counts):
    """Means of modes whose u and v do not share their noise."""
    u = jnp.broadcast_to(jnp.sqrt(jnp.full_like(s, START)), (paths,))
    weights, means, done = (u, u), [], 0

    def body(k, weights):
        noises = jax.random.normal(jax.random.fold_in(key, k), (2, paths))
        return modes.independent_step(*weights, noises, s, eta, zeta)

    for count in counts:
        weights, done = jax.lax.fori_loop(done, done + count, body, weights), done + count
        means.append(jnp.mean(weights[0] * weights[1]))
    return jnp.stack(means)


def from_the_law(values, s_hat, law):
    """The mean of values of paths that had left a stationary law, of known moments, at s_hat."""
    first = s_hat - law.first
    second = s_hat**2 - law.second - 2 * law.first * first
    return jnp.mean(modes.controlled(modes.controlled(values, first), second))


def one(key, cell, settings, sizes):
    k_early, k_burn_in, k_law, k_after, k_independent = jax.random.split(key, 5)
    s, eta, zeta = cell["s"], settings["eta"], label_noise(cell, settings)
    mode = modes.start(START, jnp.zeros_like(s), sizes.paths)
    mode, values = path(k_early, mode, s, eta, zeta, sizes.times)
    mean = jnp.stack([jnp.mean(s_hat) for s_hat in values])
    mode = modes.run(k_burn_in, jax.tree.map(lambda x: x[: sizes.kept], mode), s, eta, zeta, sizes.burn_in)
    # The moments of the law, measured over a time as long, serve as controls.
    mode, law = modes.averaged(k_law, mode, s, eta, zeta, sizes.burn_in)
    _, later = path(k_after, mode, s, eta**2, zeta, sizes.after)
    s_hat = modes.value(mode)

    times, early = whole_steps(EARLY, eta), mean[: len(EARLY)]
    bound = mode_mean_bound(times, s, eta, zeta, START)
    noiseless = mode_mean_bound(times, s, eta, jnp.zeros_like(zeta), START)
    return {
        "mean": mean,
        "mean_of_independent_noise": independent_means(k_independent, s, eta, zeta, sizes.paths // 8, sizes.times),
        "shortfall": jnp.maximum(bound - early, 0.0),
        "below_the_noiseless": jnp.maximum(noiseless - early, 0.0),
        "above_the_noiseless": jnp.maximum(early - noiseless, 0.0),
        "after_drop": jnp.stack([from_the_law(v, s_hat, law) for v in later]),
        "after_drop_second": jnp.stack([from_the_law(v**2, s_hat, law) for v in later]),
    }


def whole_steps(times, rate):
    """The times that are measured: those of whole steps."""
    return jnp.round(jnp.asarray(times, rate.dtype) / rate) * rate


def columns(cells, settings, times):
    """(times, s, eta, zeta) over cells and times."""
    count = max(jnp.size(v) for v in cells.values())
    s, zeta = (jnp.broadcast_to(v, (count,))[:, None] for v in (cells["s"], label_noise(cells, settings)))
    return jnp.broadcast_to(times[None, :], (count, len(times))), s, settings["eta"], zeta


def before_drop(cells, settings, times=TIMES):
    return columns(cells, settings, whole_steps(times, settings["eta"]))


def after_drop(cells, settings):
    return columns(cells, settings, whole_steps(AFTER, settings["eta"] ** 2))


def predict(cells, settings, sizes):
    early, late = before_drop(cells, settings), after_drop(cells, settings)
    after = moments_after_drop(*late)
    return {
        "mean": mode_mean(*early, START),
        "shortfall": jnp.zeros_like(before_drop(cells, settings, EARLY)[0]),
        "after_drop": after.mean,
        "after_drop_second": after.second,
    }


def lower_bound(cells, settings, sizes):
    """The paper's bound, as if it were the mean."""
    return mode_mean_bound(*before_drop(cells, settings), START)


def noiseless(cells, settings, sizes):
    t, s, eta, zeta = before_drop(cells, settings)
    return mode_mean_bound(t, s, eta, jnp.zeros_like(zeta), START)


def from_twice_the_threshold(cells, settings, sizes):
    t, s, eta, zeta = after_drop(cells, settings)
    return moments_after_drop(t, s, eta, 2**0.5 * zeta).mean


def at_half_the_rate(cells, settings, sizes):
    t, *rest = after_drop(cells, settings)
    return moments_after_drop(t / 2, *rest).mean


def fits(values, settings):
    if settings["kept"] > settings["paths"]:
        raise ValueError(f"`kept` must be at most paths = {settings['paths']}, but got {settings['kept']}.")


def ladder(**settings):
    return {
        "setting": "eta", "values": (1 / 24, 1 / 32, 1 / 48, 1 / 64), "order": 1, "replicates": 20,
        "axes": {"s": [1.0]}, "settings": settings,
    }  # fmt: skip


mode_transient = Experiment(
    name="mode_transient",
    title="A singular mode under label noise: on the way, and after a drop of the learning rate",
    sources=(SOURCE,),
    axes={"s": Parameter([0.8, 1.2], "singular value $s$", domain=POSITIVE)},
    fixed={"temperature": Parameter(0.6, r"$c = \eta\zeta^2$", domain=POSITIVE)},
    settings={
        "eta": Setting(1 / 20, "learning rate; after the drop its square", domain=POSITIVE),
        "paths": Setting(32_768, "paths of a replicate", domain=whole(1)),
        "kept": Setting(4096, "of them, those followed until after the drop, an even number", domain=modes.EVEN),
        "burn_in": Setting(20.0, "half the time before the drop", domain=POSITIVE),
    },
    sizes=sizes,
    simulate=per_cell(one, one_by_one=True),
    predict=predict,
    validate=fits,
    outputs={
        "mean": Output(r"$E[\hat s_t]$", dims={"time": TIMES}),
        "shortfall": Output(r"lower bound less $E[\hat s_t]$, or 0", dims={"early_time": EARLY}),
        "after_drop": Output(r"$E[\hat s]$ after the drop", dims={"time_after": AFTER}),
        "after_drop_second": Output(r"$E[\hat s\,^2]$ after the drop", dims={"time_after": AFTER}),
    },
    claims=(
        Bound(
            "shortfall", "the mean stays above the paper's bound", upper=1e-3,
            twins={
                "above the noiseless logistic": "below_the_noiseless",
                "below the noiseless logistic": "above_the_noiseless",
            },
        ),
        Order(
            "mean", "the mean is that of the Fokker-Planck law, up to the step size", floor=2e-5,
            **ladder(paths=65_536, kept=64),
            twins={
                "the lower bound": lower_bound, "no noise": noiseless,
                "noise of its own in u and v": "mean_of_independent_noise",
            },
        ),
        Order(
            "after_drop", "after a drop to eta^2 a mode grows from its Gamma law",
            **ladder(paths=4096, kept=4096),
            twins={"from twice the threshold": from_twice_the_threshold, "at half the rate": at_half_the_rate},
        ),
    ),
    presets={
        "smoke": {"eta": 1 / 12, "paths": 4096, "kept": 1024, "replicates": 4, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {
            "s": [0.7, 0.8, 0.9, 1.0, 1.3, 1.6, 2.0], "eta": 1 / 60, "paths": 262_144, "kept": 65_536,
            "replicates": 100,
        },
    },
)  # fmt: skip
