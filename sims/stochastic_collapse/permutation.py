"""Two neurons become one: the distance of a trained pair against the exponent of its normal cocycle.

A network of two GELU neurons is trained by heavy ball on the whole data set with fresh label noise at every step. The
cocycle is that of `theory.stochastic_collapse`, along a run of the same network whose neurons are equal.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sims.engine.experiment import (
    BELOW_ONE,
    NONNEGATIVE,
    POSITIVE,
    Bound,
    Experiment,
    Mean,
    Order,
    Output,
    Parameter,
    Pathwise,
    Setting,
    per_cell,
    whole,
)
from sims.stochastic_collapse.pair import (
    MIDDLE,
    START,
    Growth,
    Net,
    Run,
    at_rest,
    data,
    grown,
    hessians,
    log_distance,
    outputs,
    sandwiched,
    trained,
)
from sims.stochastic_collapse.setup import SOURCE
from theory.stochastic_collapse import heavy_ball_cocycle

MOMENTS = 50
ABOVE_ROUNDING = 10.0  # in ln distance, to be judged
LATE = 0.3  # share of the moments that is left out
LEAST = 10  # moments above rounding
COCYCLES = ("theory", "independent", "of_loss", "unlike_noise", "plain")


class Sizes(NamedTuple):
    """What a compilation depends on."""

    samples: int
    steps: int


class Noise(NamedTuple):
    """Label noise of a step, shapes (samples,): the run's own, and another draw."""

    own: jax.Array
    other: jax.Array


class State(NamedTuple):
    """Everything that takes a step: three networks that see the noise, one that sees none, one that sees another."""

    far: Run
    near: Run
    equal: Run
    quiet: Run
    independent: Run
    growths: dict
    moment: jax.Array  # second moments of the perturbation, of trace one
    log_moment: jax.Array


def cocycles(state, x, y, noise, eta, beta):
    """The matrix of this step: that of the theory, and wrong ones."""
    net, other = state.equal.net, state.independent.net
    of_run = hessians(net, x, outputs(net, x) - y - noise.own).mean(0)
    of_loss = hessians(net, x, outputs(net, x) - y).mean(0)
    of_other = hessians(net, x, outputs(net, x) - y - noise.other).mean(0)
    independent = hessians(other, x, outputs(other, x) - y - noise.other).mean(0)
    unlike = of_run.at[0, 1].set(of_other[0, 1]).at[1, 0].set(of_other[0, 1])
    return {
        "theory": heavy_ball_cocycle(of_run, eta, beta),
        "independent": heavy_ball_cocycle(independent, eta, beta),
        "of_loss": heavy_ball_cocycle(of_loss, eta, beta),
        "unlike_noise": heavy_ball_cocycle(unlike, eta, beta),
        "plain": heavy_ball_cocycle(of_run, eta / (1 - beta)),
    }


def moment_grown(state, A, x, eta_sigma):
    """(second moments, half the logarithm of their trace) after a step, averaged over its noise.

    A is the matrix without noise. Noise moves a residual by -sigma xi, and its Hessian with it.
    """
    kicks = eta_sigma * hessians(state.equal.net, x, jnp.ones_like(x)) / len(x)
    kick = jax.vmap(sandwiched, (0, None))(kicks, state.moment[:2, :2]).sum(0)
    S = sandwiched(A, state.moment) + jnp.tile(kick, (2, 2))
    size = jnp.trace(S)
    return S / size, state.log_moment + jnp.log(size) / 2


def one(key, cell, settings, sizes):
    k_data, k_noise, k_other, k_direction = jax.random.split(key, 4)
    eta, beta = cell["eta"], cell["momentum"]
    x, y = data(k_data, sizes.samples)
    direction = jax.random.normal(k_direction, (2,))
    direction = direction / jnp.sqrt((direction**2).sum())

    def draw(k, step):
        return cell["sigma"] * jax.random.normal(jax.random.fold_in(k, step), x.shape)

    def step(k, s):
        noise = Noise(draw(k_noise, k), draw(k_other, k))
        A = cocycles(s, x, y, noise, eta, beta)
        moment, log_moment = moment_grown(s, A["of_loss"], x, eta * cell["sigma"])
        return State(
            far=trained(s.far, x, y + noise.own, eta, beta),
            near=trained(s.near, x, y + noise.own, eta, beta),
            equal=trained(s.equal, x, y + noise.own, eta, beta),
            quiet=trained(s.quiet, x, y, eta, beta),
            independent=trained(s.independent, x, y + noise.other, eta, beta),
            growths={name: grown(s.growths[name], A[name]) for name in A},
            moment=moment,
            log_moment=log_moment,
        )

    def until(s, start):
        every = sizes.steps // MOMENTS
        s = jax.lax.fori_loop(0, every, lambda k, s: step(start + k, s), s)
        seen = {name: g.log + jnp.log((g.tangent[:2] ** 2).sum()) / 2 for name, g in s.growths.items()}
        seen["mean_square"] = s.log_moment
        return s, seen | {name: log_distance(getattr(s, name).net) for name in ("far", "near", "quiet")}

    far, middle = (Net(*jnp.array(start)) for start in (START, MIDDLE))
    off = jnp.array([1.0, -1.0]) * settings["delta"] / 2**0.5
    near = Net(middle.w + off * direction[0], middle.a + off * direction[1])
    tangent = jnp.concatenate([direction, jnp.zeros(2)])
    state = State(
        far=at_rest(far),
        near=at_rest(near),
        equal=at_rest(middle),
        quiet=at_rest(far),
        independent=at_rest(middle),
        growths={name: Growth(tangent, jnp.zeros(())) for name in COCYCLES},
        moment=tangent[:, None] * tangent[None, :],
        log_moment=jnp.zeros(()),
    )
    starts = jnp.arange(MOMENTS) * (sizes.steps // MOMENTS)
    _, logs = jax.lax.scan(until, state, starts)
    return measured(logs, settings["delta"], sizes)


def measured(logs, delta, sizes):
    """What is seen of the logarithms at all moments, as long as the distances stand above rounding."""
    every = sizes.steps // MOMENTS
    floor = jnp.log(jnp.finfo(delta.dtype).eps) + ABOVE_ROUNDING
    above = jnp.cumprod((logs["far"] > floor).astype(jnp.int32))
    last = jnp.maximum(above.sum(dtype=jnp.int32) - 1, 0)
    first = (LATE * last.astype(delta.dtype)).astype(jnp.int32)
    time = (jnp.maximum(last - first, 1) * every).astype(delta.dtype)

    def slope(name):
        return (logs[name][last] - logs[name][first]) / time

    near = jnp.exp(logs["near"] - jnp.log(delta))

    def error(name):
        return jnp.sqrt(((near - jnp.exp(logs[name])) ** 2).mean())

    stopped = logs["quiet"][int(LATE * MOMENTS)]
    anchored = logs["theory"] - logs["theory"][first] + logs["far"][first]
    return {
        "log_distance": jnp.where(above > 0, logs["far"], jnp.nan),
        "log_distance_theory": jnp.where(above > 0, anchored, jnp.nan),
        "log_distance_without_noise": logs["quiet"],
        "log_distance_without_noise_theory": jnp.broadcast_to(stopped, logs["quiet"].shape),
        "slope": slope("far"),
        "slope_theory": slope("theory"),
        "slope_plain": slope("plain"),
        "slope_of_loss": slope("of_loss"),
        "slope_unlike_noise": slope("unlike_noise"),
        "slope_mean_square": slope("mean_square"),
        "exponent": slope("far"),
        "exponent_theory": slope("independent"),
        "late_change": logs["quiet"][-1] - stopped,
        "late_change_theory": 0 * stopped,
        "late_change_with_noise": slope("far") * sizes.steps,
        # A twin of the error leaves that to another growth.
        "error": error("theory"),
        "error_theory": 0 * delta,
        "error_plain": error("theory") - error("plain"),
        "error_of_loss": error("theory") - error("of_loss"),
        "status": jnp.where(last >= LEAST, 0, 1),
    }


def slow(cells, settings):
    """Where the distance takes much longer to die than the networks to forget how they began."""
    return cells["eta"] * cells["sigma"] <= 0.05


def stable(cells, settings):
    """Where training without noise stays below the edge of stability to the end."""
    return cells["eta"] <= 0.05


DIMS = {"step": lambda settings: (np.arange(MOMENTS) + 1) * (settings["steps"] // MOMENTS)}
LADDER = {
    "setting": "delta", "values": (0.1, 0.05, 0.025, 0.0125), "order": 2, "replicates": 20,
    "axes": {"eta": [0.02, 0.05], "sigma": [0.2, 0.4]}, "settings": {"steps": 500},
}  # fmt: skip


def fits(values, settings):
    if settings["samples"] % 2:
        raise ValueError(f"`samples` must be even, for inputs come in pairs, but got {settings['samples']}.")


permutation = Experiment(
    name="permutation",
    title="Two neurons become one",
    sources=(SOURCE,),
    axes={
        "eta": Parameter([0.02, 0.03, 0.05, 0.07, 0.1], r"learning rate $\eta$", scale="log", domain=POSITIVE),
        "sigma": Parameter([0.1, 0.2, 0.4, 0.8], r"label noise $\sigma$", scale="log", domain=NONNEGATIVE),
    },
    fixed={"momentum": Parameter(0.9, r"momentum $\beta$", domain=BELOW_ONE)},
    settings={
        "samples": Setting(8, "samples", domain=whole(2)),
        "steps": Setting(10_000, "steps of training", domain=whole(10 * MOMENTS)),
        "delta": Setting(1e-3, "distance from equal neurons, at the start of the near one", domain=POSITIVE),
    },
    sizes=lambda settings: Sizes(settings["samples"], settings["steps"]),
    simulate=per_cell(one),
    predict=lambda cells, settings, sizes: {},
    validate=fits,
    outputs={
        "log_distance": Output(r"$\ln$ distance of the neurons", dims=DIMS),
        "log_distance_without_noise": Output(r"$\ln$ distance without noise", dims=DIMS),
        "slope": Output(r"slope of $\ln$ distance, same noise", unit="1/step"),
        "exponent": Output(r"slope of $\ln$ distance, other noise", unit="1/step"),
        "late_change": Output(r"late change of $\ln$ distance without noise"),
        "error": Output(r"error of the cocycle in distance$/\delta$, root mean square over time"),
    },
    claims=(
        Pathwise(
            "slope", "the distance dies at the exponent of the normal cocycle, draw by draw", tolerance=1e-3,
            where=slow,
            twins={
                "eta / (1 - beta) for momentum": "slope_plain",
                "the Hessian of the loss without noise": "slope_of_loss",
                "noise of its own in each block": "slope_unlike_noise",
                "mean-square growth": "slope_mean_square",
            },
        ),
        Mean(
            "exponent", "a run of equal neurons under other noise has the same exponent", where=slow,
            twins={"eta / (1 - beta) for momentum": "slope_plain", "mean-square growth": "slope_mean_square"},
        ),
        Bound(
            "late_change", "without noise the distance stops", upper=1e-3, where=stable,
            twins={"as with noise": "late_change_with_noise"},
        ),
        Order(
            "error", "a pair at distance delta follows the cocycle to second order in delta", **LADDER,
            twins={
                "eta / (1 - beta) for momentum": "error_plain",
                "the Hessian of the loss without noise": "error_of_loss",
            },
        ),
    ),
    presets={
        "smoke": {"eta": [0.03, 0.05], "sigma": [0.2, 0.4], "steps": 2000, "replicates": 4, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {"eta": np.geomspace(0.02, 0.1, 9), "sigma": np.geomspace(0.1, 0.8, 9), "replicates": 100},
    },
)  # fmt: skip
